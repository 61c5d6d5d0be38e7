"""From where the restarts ended to the record: embeddings, tokens, the units beside their nulls, the summary."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from actmax import reproducibility
from actmax.architecture import Unit
from actmax.comparison import Simulation
from actmax.decoding import Decoder
from actmax.maximization import Maximization, by_unit
from actmax.record import Record
from actmax.reproducibility import Measures, NullSettings, Pool, Restarts
from actmax.subject import Subject

log = logging.getLogger(__name__)


def by_unit_restarts(module: Maximization, *, interrupted: bool) -> dict[Unit, tuple[list[int], Restarts]]:
    """Where the restarts of each unit stand, on the CPU, with their seeds.

    Args:
        module: after the fit.
        interrupted: whether it was stopped; then each restart stands at its best.
    """
    initial, final, before, after = (value.cpu() for value in module.outcome(interrupted=interrupted))
    frozen = module.frozen.cpu()
    return {
        unit: (
            [module.rows[row].seed for row in rows],
            Restarts(initial[rows], final[rows], before[rows], after[rows], frozen[rows]),
        )
        for unit, rows in by_unit(module.rows).items()
    }


def write_restarts(
    record: Record, subject: Subject, found: Mapping[Unit, tuple[list[int], Restarts]], *, top_k: int
) -> None:
    """Writes `embeddings.safetensors` and the tables of tokens, candidates and restarts."""
    stacked = {
        name: torch.cat([getattr(restarts, name) for _, restarts in found.values()]) for name in ("initial", "final")
    }
    seeds = torch.tensor([seed for some, _ in found.values() for seed in some])
    record.write_tensors("embeddings", {**stacked, "seeds": seeds})
    decoder = Decoder(subject.embedding_matrix)
    parts = [unit_tables(subject, decoder, unit, *one, top_k=top_k) for unit, one in found.items()]
    tokens, candidates, per_restart = zip(*parts, strict=True)
    record.write_table("tokens", pd.concat(tokens, ignore_index=True))
    record.write_table("candidates", pd.concat(candidates, ignore_index=True))
    record.write_table("restarts", pd.concat(per_restart, ignore_index=True))


def measure_units(
    record: Record,
    subject: Subject,
    found: Mapping[Unit, tuple[list[int], Restarts]],
    *,
    settings: NullSettings,
    cache: Path,
) -> dict[str, Any]:
    """Sets every unit beside its nulls: writes `units.parquet` and returns the summary's headline numbers.

    Args:
        record: of the job.
        subject: whose tokens they are.
        found: the restarts of each unit.
        settings: of the nulls.
        cache: the folder that keeps pools of decoded random vectors.
    """
    decoder = Decoder(subject.embedding_matrix)
    sample = max(restarts.final.shape[:2].numel() for _, restarts in found.values())
    pool = null_pool(subject, decoder, settings, sample, cache)
    silent = not sys.stderr.isatty() or len(found) < 2
    measured = [
        reproducibility.measure(restarts, decoder, pool, settings=settings, name=subject.token)
        for _, restarts in tqdm(found.values(), desc="nulls", unit="unit", disable=silent)
    ]
    verdicts = [reproducibility.verdict(one) for one in measured]
    rows = [unit_row(*row) for row in zip(found, measured, verdicts, strict=True)]
    record.write_table("units", pd.DataFrame(rows).astype({"layer": "Int64"}))
    return summarize(measured, verdicts)


def prior_summary(module: Maximization, found: Mapping[Unit, tuple[list[int], Restarts]]) -> dict[str, Any]:
    """Each loss term's weight, its coefficient and its value at the start and at the end, means over restarts."""
    values = {
        name: module.prior_values(torch.cat([getattr(one, name) for _, one in found.values()]).to(module.device))
        for name in ("initial", "final")
    }
    said = {
        prior.name: {
            "weight": prior.weight,
            "scale": prior.scale,
            "coefficient_mean": float(module.coefficients[:, number].mean()),
            **{f"{name}_mean": float(terms[prior.name].mean()) for name, terms in values.items()},
        }
        for number, prior in enumerate(module.priors)
    }
    return {"priors": said} if said else {}


def null_pool(subject: Subject, decoder: Decoder, settings: NullSettings, sample: int, cache: Path) -> Pool:
    """The subject's decoded random vectors, from the cache or made now, with a bar or a line."""
    # a sample is drawn without replacement, so a large job needs a larger pool
    size = max(settings.pool, 2 * sample)
    file = cache / f"{subject.weights_hash[:24]}-{settings.seed}-{size}-v{reproducibility.POOL_VERSION}.npz"
    silent = not sys.stderr.isatty()
    with tqdm(desc="null pool, once per subject", unit="vector", total=size, disable=silent) as bar:

        def progress(done: int, total: int) -> None:
            if silent and bar.n == 0 and done < total:
                log.info("Decoding %d random vectors for the null, once per subject.", total)
            bar.n = done
            bar.refresh()

        return reproducibility.random_pool(decoder, size=size, seed=settings.seed, cache=file, progress=progress)


def unit_tables(
    subject: Subject, decoder: Decoder, unit: Unit, seeds: Sequence[int], restarts: Restarts, *, top_k: int
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The tables of one unit: a row per token, per candidate, and per restart."""
    before, after = decoder(restarts.initial), decoder(restarts.final, top_k=top_k)
    count, positions = after.best.shape
    address = {"site": unit.site, "layer": pd.array([unit.layer], dtype="Int64")[0], "index": unit.index}

    def frame(columns: Mapping[str, Any], repeat: int) -> pd.DataFrame:
        seed = [seed for seed in seeds for _ in range(repeat)]
        table = pd.DataFrame({**dict.fromkeys(address), "seed": seed, **columns})
        return table.assign(**address).astype({"layer": "Int64"})

    def text(ids: Tensor) -> list[str]:
        return [subject.token(token) for token in ids.flatten().tolist()]

    def per_token(values: Tensor) -> list[float]:
        return values.repeat_interleave(positions).tolist()

    position = list(range(positions)) * count
    tokens = {
        "position": position,
        "token_id": after.best.flatten().tolist(),
        "token": text(after.best),
        "cosine": after.best_cosine.flatten().tolist(),
        "init_token_id": before.best.flatten().tolist(),
        "init_token": text(before.best),
        "init_cosine": before.best_cosine.flatten().tolist(),
        "activation_initial": per_token(restarts.activation_initial),
        "activation_final": per_token(restarts.activation_final),
    }
    candidates = {
        "position": [place for place in position for _ in range(top_k)],
        "rank": list(range(top_k)) * (count * positions),
        "token_id": after.ids.flatten().tolist(),
        "token": text(after.ids),
        "cosine": after.cosines.flatten().tolist(),
    }
    moved = (restarts.final - restarts.initial).flatten(1).norm(dim=1)
    per_restart = {
        "activation_initial": restarts.activation_initial.tolist(),
        "activation_final": restarts.activation_final.tolist(),
        "initial_norm": restarts.initial.flatten(1).norm(dim=1).tolist(),
        "final_norm": restarts.final.flatten(1).norm(dim=1).tolist(),
        "displacement": moved.tolist(),
        "init_retention": (after.best == before.best).double().mean(1).tolist(),
        "cosine_mean": after.best_cosine.double().mean(1).tolist(),
        "frozen": restarts.frozen.tolist(),
    }
    return frame(tokens, positions), frame(candidates, positions * top_k), frame(per_restart, 1)


def unit_row(unit: Unit, measures: Measures, verdict: str) -> dict[str, Any]:
    """A unit's row of `units.parquet`: its address, every headline number with its null, its verdict."""
    numbers = measures.flat()
    numbers["tokens_repeated"] = json.dumps(numbers["tokens_repeated"], ensure_ascii=False)  # pyright: ignore
    return {"site": unit.site, "layer": unit.layer, "index": unit.index, **numbers, "verdict": verdict}


def summarize(measured: Sequence[Measures], verdicts: Sequence[str]) -> dict[str, Any]:
    """The headline numbers, flat for one unit; for several their mean, least and largest, and how many p are small."""
    if len(measured) == 1:
        return {"units": 1, **measured[0].flat(), "verdict": verdicts[0]}
    table = pd.DataFrame([one.flat() for one in measured]).drop(columns="tokens_repeated")
    columns = table.astype(float).items()
    spread: dict[str, Any] = {str(name): {"mean": c.mean(), "min": c.min(), "max": c.max()} for name, c in columns}
    kept = table["null_retention_p"].le(0.05).sum()
    repeats = table["null_unique_p"].le(0.05).sum()
    verdict = (
        f"{len(measured)} units: {repeats} differ from decoded noise in their number of unique tokens at p ≤ 0.05, and "
        f"{kept} in how much of the initial noise they keep; by chance alone about {0.05 * len(measured):.1f} would "
        "(p uncorrected, at most that many since p is discrete)."
    )
    return {"units": len(measured), **spread, "verdict": verdict}


def write_simulation(record: Record, found: Simulation) -> dict[str, Any]:
    """Writes a simulation's tables and returns the summary's headline numbers.

    `comparison.parquet` has a row per simulated unit, `rates` one per effect and test, `effects` one per effect (its
    `pearson` and `spearman` are of t and the standardised β over all effects up to it); `correlations` and `agreement`
    set the t-test beside logistic regression.
    """
    record.write_table("comparison", found.units)
    record.write_table("rates", found.rates)
    record.write_table("effects", found.effects.merge(found.correlations_up_to.drop(columns="n"), on="effect"))
    record.write_table("correlations", found.concordance.correlations)
    record.write_table("agreement", found.concordance.agreement)
    return {
        "simulated_units": len(found.units),
        "explodes_at": found.explodes_at,
        "separation_rate": dict(zip(map(str, found.effects["effect"]), found.effects["separation_rate"], strict=True)),
        "theory_largest_difference": found.concordance.theory["difference"].abs().max(),
        "verdict": found.statement,
    }
