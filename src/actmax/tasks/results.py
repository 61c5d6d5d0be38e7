"""From where the restarts ended to the record: embeddings, tokens, the units beside their nulls, the summary."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from actmax.evidence import gap
from actmax.evidence.arithmetic import Ends, rounding
from actmax.evidence.gap import NO_GAIN, RETOKENISE, SNAP, STAGES, SURVIVES, Gap
from actmax.evidence.measures import AGREEMENT, Measures, NullSettings, judge, measure, moves, verdict
from actmax.evidence.nulls import POOL_VERSION, Displaced, Pool, Restarts, random_pool
from actmax.evidence.own import Own, own_agreement
from actmax.evidence.verdicts import Verdict, shares
from actmax.model.architecture import Unit
from actmax.model.evaluation import GapSettings
from actmax.model.nearest import Decoder
from actmax.model.objective import Objective, by_unit
from actmax.model.subject import Place, Subject
from actmax.records.store import Record
from actmax.stats.simulation import Simulation
from actmax.tasks.examples import Examples, beside_optimum
from actmax.tasks.tuning import headlines
from actmax.tasks.tuning.analysis import Tuning
from actmax.tasks.tuning.heatmap import HeatMap, Scale
from actmax.tasks.tuning.store import Store
from actmax.words.encoding import Encoding
from actmax.words.lists import BUILT_IN, BUILT_IN_ZIPF, Data

if TYPE_CHECKING:
    from actmax.maximize.module import Maximization  # Lightning takes seconds, and a report needs none of it

log = logging.getLogger(__name__)

SPREAD = ("tokens_equal", "displacement_cosine", "activation_difference")
"""How alike two restarts ended."""
TOGETHER = 32
"""Units whose nulls are drawn together."""
OWN_UNITS = 256
"""Units above which they are not set against each other: similarities of all their restarts are held at once."""


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
    objective: Objective,
    settings: NullSettings,
    gap_settings: GapSettings,
    cache: Path,
    ends: Callable[[Sequence[Restarts]], Sequence[Displaced]] | None = None,
) -> dict[str, Any]:
    """Sets every unit beside its nulls: writes the tables of units, gaps and rarefaction, returns the headline numbers.

    Args:
        record: of the job.
        subject: whose tokens they are.
        found: the restarts of each unit.
        objective: that they were optimized for.
        settings: of the nulls.
        gap_settings: of the null of random text.
        cache: the folder that keeps pools of decoded random vectors.
        ends: draws where the restarts of some units would end by chance; None for random displacements.
    """
    decoder = Decoder(subject.embedding_matrix)
    sample = max(restarts.final.shape[:2].numel() for _, restarts in found.values())
    pool = null_pool(subject, decoder, settings, sample, cache)
    draw = ends or partial(moves, decoder, settings=settings)
    measured: list[Measures] = []
    with tqdm(desc="nulls", unit="unit", total=len(found), disable=not sys.stderr.isatty() or len(found) < 2) as bar:
        for start in range(0, len(found), TOGETHER):
            some = [restarts for _, restarts in list(found.values())[start : start + TOGETHER]]
            for one, by_chance in zip(some, draw(some), strict=True):
                options = {"settings": settings, "name": subject.token, "ends": by_chance}
                measured.append(measure(one, decoder, pool, **options))
                bar.update()
    decided = judge(measured, own_of([one for _, one in found.values()], decoder, settings))
    ended = {unit: restarts for unit, (_, restarts) in found.items()}
    gaps = gap.measure(subject, objective, ended, decoder, settings=gap_settings)
    rows = [unit_row(*row) for row in zip(found, measured, decided, gaps.values(), strict=True)]
    record.write_table("units", with_layers(pd.DataFrame(rows)))
    record.write_table("rarefaction", pd.concat(map(rarefaction_rows, found, measured), ignore_index=True))
    by_restart = [gap_rows(unit, seeds, gaps[unit]) for unit, (seeds, _) in found.items()]
    record.write_table("gaps", pd.concat(by_restart, ignore_index=True))
    return summarize(measured, decided, list(gaps.values()))


def own_of(restarts: Sequence[Restarts], decoder: Decoder, settings: NullSettings) -> Own:
    """Whether units that share their seeds agree more with themselves than with each other.

    Args:
        restarts: of each unit, from the same seeds in the same order.
        decoder: of the subject.
        settings: of the nulls.
    """
    if len(restarts) > OWN_UNITS:
        return Own(f"not available: {len(restarts)} units, and above {OWN_UNITS} it takes too much memory")
    ids = torch.stack([decoder(one.final).best for one in restarts])
    return own_agreement(ids, torch.stack([one.final - one.initial for one in restarts]), seed=settings.seed)


def with_layers(table: pd.DataFrame) -> pd.DataFrame:
    """The table, its layers as whole numbers or missing (`final_norm` has none); the other columns are not copied."""
    table["layer"] = table["layer"].astype("Int64")
    return table


def rarefaction_rows(unit: Unit, measures: Measures) -> pd.DataFrame:
    """A row per number of restarts: expected unique tokens, beside the same under random displacements."""
    curve = measures.agreement.rarefaction
    columns = {name: getattr(curve, name) for name in ("unique", "null_mean", "null_low", "null_high")}
    table = pd.DataFrame({"restarts": range(1, len(curve.unique) + 1), **columns})
    for place, (name, value) in enumerate({"site": unit.site, "layer": unit.layer, "index": unit.index}.items()):
        table.insert(place, name, value)
    return with_layers(table)


def gap_rows(unit: Unit, seeds: Sequence[int], one: Gap) -> pd.DataFrame:
    """A row per restart: its activation on the way to text, beside random text."""
    address = {"site": unit.site, "layer": pd.array([unit.layer], dtype="Int64")[0], "index": unit.index}
    columns = {
        "seed": list(seeds),
        "text": list(one.texts),
        "retokenised_same": list(one.same),
        "retokenised_tokens": list(one.lengths),
        **{f"activation_{stage}": getattr(one, stage) for stage in STAGES},
        "random_activation_mean": one.random.activation.mean(),
        "random_activation_sd": one.random.activation.std(ddof=1),
        "cross_entropy": one.cross_entropy,
        "cross_entropy_initial": one.cross_entropy_initial,
        "random_cross_entropy_mean": one.random.cross_entropy.mean(),
    }
    table = pd.DataFrame({**dict.fromkeys(address), **columns})
    return with_layers(table.assign(**address))


def write_rounding(
    record: Record,
    subject: Subject,
    found: Mapping[Unit, tuple[list[int], Restarts]],
    again: Mapping[Unit, tuple[list[int], Restarts]],
    *,
    kernel: str,
) -> dict[str, Any]:
    """Writes `rounding.parquet`, a row per unit, and returns its means over units with a statement.

    Args:
        record: of the job.
        subject: whose tokens they are.
        found: the restarts of each unit.
        again: the first seeds of each unit once more.
        kernel: the attention kernel of the second run.
    """
    decoder = Decoder(subject.embedding_matrix)

    def ends(restarts: Restarts) -> Ends:
        return Ends(decoder(restarts.final).best, restarts)

    rows = [
        {"site": unit.site, "layer": unit.layer, "index": unit.index, "kernel": kernel, "restarts": len(second.final)}
        | rounding(ends(found[unit][1]), ends(second)).flat()
        for unit, (_, second) in again.items()
    ]
    table = with_layers(pd.DataFrame(rows))
    record.write_table("rounding", table)
    means = table.drop(columns=["site", "layer", "index", "kernel"]).mean().to_dict()
    return {"kernel": kernel, **means, "statement": rounding_of(means, kernel)}


def rounding_of(means: Mapping[Any, float], kernel: str) -> str:
    """The rounding spread in words."""
    same, other = ({name: means[f"{kind}_{name}"] for name in SPREAD} for kind in ("same_seed", "different_seeds"))
    return (
        f"The same seeds again, {means['restarts']:.0f} of each unit, attention kernel {kernel}: "
        f"{same['tokens_equal']:.0%} of the tokens equal (different seeds: {other['tokens_equal']:.1%}), displacement "
        f"cosine {same['displacement_cosine']:.3f} ({other['displacement_cosine']:.3f}), activations "
        f"{same['activation_difference']:.2%} apart ({other['activation_difference']:.2%})."
    )


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
    file = cache / f"{subject.weights_hash[:24]}-{settings.seed}-{size}-v{POOL_VERSION}.npz"
    silent = not sys.stderr.isatty()
    with tqdm(desc="null pool, once per subject", unit="vector", total=size, disable=silent) as bar:

        def progress(done: int, total: int) -> None:
            if silent and bar.n == 0 and done < total:
                log.info("Decoding %d random vectors for the null, once per subject.", total)
            bar.n = done
            bar.refresh()

        return random_pool(decoder, size=size, seed=settings.seed, cache=file, progress=progress)


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
        return with_layers(table.assign(**address))

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


def unit_row(unit: Unit, measures: Measures, decision: Verdict, one: Gap) -> dict[str, Any]:
    """A unit's row of `units.parquet`: its address, every headline number with its null, its verdict."""
    numbers = measures.flat()
    numbers["tokens_repeated"] = json.dumps(numbers["tokens_repeated"], ensure_ascii=False)
    address = {"site": unit.site, "layer": unit.layer, "index": unit.index}
    said = {"verdict": verdict(measures, decision), "decode_gap": one.statement}
    return {**address, **numbers, **one.flat(), **convergence(decision), **said}


def convergence(decision: Verdict) -> dict[str, Any]:
    """The declared verdict in columns."""
    return {
        "convergence": decision.label,
        "convergence_reason": decision.reason,
        "convergence_p_tokens": decision.p_tokens,
        "convergence_p_embeddings": decision.p_embeddings,
        "own_p_tokens": decision.own_tokens,
        "own_p_embeddings": decision.own_embeddings,
        "own": decision.own,
    }


def rejudged(row: Mapping[Any, Any], decision: Verdict) -> dict[str, Any]:
    """What a new verdict changes in a unit's row, its sentence included."""
    old = f"{AGREEMENT}: {row['convergence']}."
    said = str(row["verdict"]).replace(old, f"{AGREEMENT}: {decision.label}.")
    return {**convergence(decision), "verdict": said.replace(str(row["convergence_reason"]), decision.reason)}


def summarize(measured: Sequence[Measures], decided: Sequence[Verdict], gaps: Sequence[Gap]) -> dict[str, Any]:
    """The headline numbers, flat for one unit; for several their mean and range, and the shares of verdicts."""
    if len(measured) == 1:
        said = {"verdict": verdict(measured[0], decided[0]), "decode_gap": gaps[0].statement}
        return {"units": 1, **measured[0].flat(), **gaps[0].flat(), **convergence(decided[0]), **said}
    table = pd.DataFrame([measures.flat() | one.flat() for measures, one in zip(measured, gaps, strict=True)])
    columns = table.select_dtypes("number").astype(float).items()
    spread: dict[str, Any] = {str(name): {"mean": c.mean(), "min": c.min(), "max": c.max()} for name, c in columns}
    by_verdict = shares(decided)
    said = {"convergence": by_verdict.to_dict("records"), "verdict": said_of(by_verdict), "decode_gap": gaps_of(table)}
    return {"units": len(measured), **spread, **said}


def gaps_of(units: pd.DataFrame) -> str:
    """Where the gain dies, over units, in one line; columns as in `units.parquet`."""
    counts = units["gap"].value_counts()
    endings = {
        SNAP: "the gain dies at the snap",
        RETOKENISE: "the gain dies at the tokenizer",
        SURVIVES: "the gain survives",
        NO_GAIN: "the optimum itself is no better than random tokens",
    }
    said = "; ".join(f"in {counts[key]} {text}" for key, text in endings.items() if key in counts)
    z = ", ".join(f"{stage} {units[f'z_{stage}'].mean():.3g}" for stage in STAGES)
    return f"Of {len(units)} units: {said}. Mean z against random tokens: {z}."


def said_of(shares: pd.DataFrame) -> str:
    """The shares of verdicts over units in one sentence."""
    judged = max(shares["units"].tolist())
    if judged == 0:
        return "No unit could be judged: one restart has no pairs, and a null needs 39 draws."
    parts = [
        f"{row['count']} {row['verdict']} ({row['share']:.0%}, 95 %: {row['low']:.0%} to {row['high']:.0%})"
        for row in shares.to_dict("records")
    ]
    return f"Of {judged} units: {'; '.join(parts)}. With nothing there, up to 5 % would be above chance."


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


def write_tuning(record: Record, found: Tuning, encoding: Encoding, store: Store, source: str) -> dict[str, Any]:
    """Writes a tuning job's tables and returns the summary's headline numbers.

    `tuning.parquet` has a row per unit, `shares` one per site and layer, `replication` one per halving of the words,
    `decoders` one per decoder, `correlations` and `agreement` set the t-test beside logistic regression, `strata` has
    the units by number of sub-tokens; `words`, `balance` and `skipped` say what was read, `examples` holds the most
    strongly tuned units at every word.
    """
    data = encoding.data
    tables = {"tuning": found.units, "shares": found.shares, "replication": found.replication}
    tables |= {"decoders": found.decoders, "correlations": found.correlations, "agreement": found.agreement}
    tables |= {"strata": found.strata, "words": word_table(encoding), "examples": example_table(found, data, store)}
    balance = balance_table(encoding, source)
    tables |= {"balance": balance, "skipped": pd.DataFrame([vars(skip) for skip in data.skips.listed])}
    for name, table in tables.items():
        if len(table.columns):
            record.write_table(name, table)  # pyright: ignore[reportArgumentType]
    headline = headlines.summarize(found)
    words = {name: data.labels.count(label) for label, name in enumerate(data.categories)}
    return {
        "words": words,
        "paired": data.pairs is not None,
        "begin_of_text": encoding.begin,
        "skipped": dict(data.skips.counts),
        "balance": balance.to_dict("records"),
        **headline,
        "verdict": headlines.statement(headline, data.categories, found.alpha),
    }


def word_table(encoding: Encoding) -> pd.DataFrame:
    """A row per sample: what was compared."""
    data = encoding.data
    rows = {
        "word": [sample.word for sample in data.samples],
        "category": [data.categories[sample.label] for sample in data.samples],
        "pair": pd.array([sample.pair for sample in data.samples], dtype="string"),
        "letters": [len(sample.word) for sample in data.samples],
        "subtokens": encoding.subtokens,
        "contexts": [len(sample.contexts) for sample in data.samples],
        "text": [sample.contexts[0].text for sample in data.samples],
        "source": [sample.contexts[0].source for sample in data.samples],
    }
    return pd.DataFrame(rows)


def balance_table(encoding: Encoding, source: str) -> pd.DataFrame:
    """A row per category: how its words compare in length, sub-tokens and, for the built-in list, frequency."""
    words = word_table(encoding)
    rows = []
    for category in encoding.data.categories:
        inside = words[words["category"] == category]
        row: dict[str, Any] = {"category": category, "words": len(inside)}
        for name in ("letters", "subtokens", "contexts"):
            values = np.asarray(inside[name], dtype=float)
            row |= {f"{name}_mean": float(values.mean()), f"{name}_sd": float(values.std(ddof=1))}
        if source == BUILT_IN:
            row["zipf_mean"], row["zipf_sd"] = BUILT_IN_ZIPF[category]
        rows.append(row)
    return pd.DataFrame(rows)


def example_table(found: Tuning, data: Data, store: Store) -> pd.DataFrame:
    """The most strongly tuned units at every word: a row per unit and word, `rank` from the highest activation."""
    tables = []
    for order, row in enumerate(found.units.iloc[list(found.top)].to_dict("records")):
        values = pd.Series(store[_place(row)][:, row["index"]].astype(float))
        table = pd.DataFrame({"unit": order, "site": row["site"], "index": row["index"], "activation": values})
        table.insert(2, "layer", pd.array([_place(row)[1]] * len(values), dtype="Int64"))
        table["word"] = [sample.word for sample in data.samples]
        table["category"] = [data.categories[sample.label] for sample in data.samples]
        table["rank"] = values.rank(ascending=False, method="first").astype(int)
        tables.append(table.sort_values("rank"))
    return pd.concat(tables, ignore_index=True)


def _place(row: Mapping[Any, Any]) -> Place:
    return str(row["site"]), None if pd.isna(row["layer"]) else int(row["layer"])


def scale_of(found: Tuning, unit: Unit | None, categories: tuple[str, str]) -> tuple[Unit, Scale]:
    """The unit of the heat map (the most strongly tuned one where none is named), and what measures it.

    Raises:
        KeyError: the unit is not among those compared.
    """
    rows = found.units
    if unit is None:
        row = rows.iloc[found.top[0]].to_dict()
    else:
        layer = rows["layer"].isna() if unit.layer is None else rows["layer"] == unit.layer
        inside = rows[(rows["site"] == unit.site) & layer.fillna(value=False) & (rows["index"] == unit.index)]
        if not len(inside):
            raise KeyError(str(unit))
        row = inside.iloc[0].to_dict()
    n_0, n_1 = int(row["n_0"]), int(row["n_1"])
    pooled = (((n_0 - 1) * row["sd_0"] ** 2 + (n_1 - 1) * row["sd_1"] ** 2) / (n_0 + n_1 - 2)) ** 0.5
    middle, towards = (row["mean_0"] + row["mean_1"]) / 2, 1.0 if row["mean_1"] >= row["mean_0"] else -1.0
    return Unit(*_place(row), int(row["index"])), Scale(float(middle), float(pooled), towards, categories)


def write_heat_map(record: Record, drawn: HeatMap) -> dict[str, Any]:
    """Writes `heatmap.parquet` and `heatmap.html`; returns what the summary says of it."""
    record.write_table("heatmap", drawn.tokens)
    record.write_text("heatmap.html", drawn.html())
    return {"heatmap": {"unit": str(drawn.unit), "title": drawn.title}}


def write_examples(record: Record, found: Examples, beside: Record | None) -> dict[str, Any]:
    """Writes `contexts.parquet`, and `quantiles.parquet` beside what a maximization reached in the same units."""
    quantiles = found.quantiles
    if beside is not None:
        quantiles = beside_optimum(quantiles, beside.table("gaps"))
    record.write_table("contexts", found.contexts)
    record.write_table("quantiles", quantiles)
    rows = quantiles.to_dict("records")
    return {"units": len(rows), "positions": found.positions, "verdict": " ".join(map(_said_of_examples, rows[:5]))}


def _said_of_examples(row: Mapping[Any, Any]) -> str:
    unit = Unit(*_place(row), int(row["index"]))
    said = f"{unit} is highest at {row['q1']:.4g} in this text (median {row['q0.5']:.4g}, 99.9 %: {row['q0.999']:.4g})"
    if bool(pd.isna(row.get("optimized_mean"))):
        return f"{said}."
    return (
        f"{said}; {row['restarts']:.0f} optimized embeddings reach {row['optimized_mean']:.4g} on average, and snapped "
        f"to tokens {row['snapped_mean']:.4g}."
    )
