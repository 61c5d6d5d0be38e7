"""From where the restarts of units ended to their tables: embeddings, tokens, every unit beside its nulls."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from actmax.evidence import gap
from actmax.evidence.findings import is_missing, unit_findings
from actmax.evidence.gap import STAGES, Gap
from actmax.evidence.measures import Measures, judge, measure, moves
from actmax.evidence.nulls import Displaced, Restarts
from actmax.evidence.own import MOST_UNITS, Own, own_agreement
from actmax.evidence.readings import GapEnd, OwnStatus, Verdict
from actmax.evidence.settings import NullSettings
from actmax.evidence.transfer import Carriage, Carried, carry, first_position
from actmax.evidence.verdicts import Decision, shares
from actmax.model.context import Context
from actmax.model.directions import Latent
from actmax.model.nearest import NearestTokens
from actmax.model.objective import Objective
from actmax.model.settings import GapSettings, TransferSettings
from actmax.model.subject import Subject
from actmax.model.target import TARGET, UNIT, Target, addressed, names_in, with_layers
from actmax.progress import Bar
from actmax.records.contents import Contents
from actmax.records.store import Summary
from actmax.tasks.findings import write_findings
from actmax.tasks.units.meaning import Asked, meaning_columns
from actmax.text.settings import MeaningSettings

TOGETHER = 32
"""Number of units whose nulls are drawn together."""


def write_restarts(
    contents: Contents,
    subject: Subject,
    found: Mapping[Target, tuple[list[int], Restarts]],
    *,
    top_k: int,
    controls: Collection[Target] = (),
) -> None:
    """Writes `embeddings.safetensors` and the tables of tokens, candidates and restarts.

    Args:
        contents: contents of the job, which take the tables.
        subject: the language model.
        found: the seeds and the restarts of each unit.
        top_k: nearest tokens to keep for each position.
        controls: which of the units are control units.
    """
    stacked = {
        name: torch.cat([getattr(restarts, name) for _, restarts in found.values()]) for name in ("initial", "final")
    }
    seeds = torch.tensor([seed for some, _ in found.values() for seed in some])
    control = torch.tensor([unit in controls for unit, (some, _) in found.items() for _ in some])
    contents.write_tensors("embeddings", {**stacked, "seeds": seeds, "control": control})
    nearest = subject.nearest
    parts = [unit_tables(subject, nearest, unit, *one, top_k=top_k) for unit, one in found.items()]
    tokens, candidates, per_restart = zip(*parts, strict=True)
    _write_marked(contents, {"tokens": tokens, "candidates": candidates, "restarts": per_restart}, controls)


def marked(table: pd.DataFrame, controls: Collection[Target]) -> pd.DataFrame:
    """A table of units with the column `control`: whether the row is about a control unit."""
    columns = names_in(table)
    names = zip(*(table[name] for name in columns), strict=True)
    known = {tuple(unit.columns().get(name) for name in columns) for unit in controls}
    control = [tuple(None if is_missing(part) else part for part in name) in known for name in names]
    return table.assign(control=np.array(control, dtype=bool))


def measure_units(
    contents: Contents,
    subject: Subject,
    found: Mapping[Target, tuple[list[int], Restarts]],
    *,
    objective: Objective,
    settings: NullSettings,
    gap_settings: GapSettings,
    transfer: tuple[TransferSettings, Sequence[Context]],
    meaning: MeaningSettings,
    passes: int,
    cache: Path,
    ends: Callable[[Sequence[Restarts]], Sequence[Displaced]] | None = None,
    controls: Collection[Target] = (),
) -> Summary:
    """Sets every unit beside its nulls: writes the tables of units, gaps and rarefaction, returns the headline numbers.

    Args:
        contents: contents of the job, which take the tables.
        subject: the language model.
        found: the seeds and the restarts of each unit.
        objective: the objective that the restarts were optimized for.
        settings: settings of the nulls.
        gap_settings: settings of the null of random text.
        transfer: settings of the trial in other contexts, and these contexts.
        meaning: settings of the comparison in meaning.
        passes: forward passes that each restart took, a backward pass counted as one.
        cache: the folder that keeps activations of random sequences.
        ends: draws where restarts would end by chance; None for random displacements.
        controls: which are control units: set beside the others, left out of headline numbers, not tried elsewhere.
    """
    nearest = subject.nearest
    lost = {unit: restarts.missing for unit, (_, restarts) in found.items()}
    found = {unit: counted(*one) for unit, one in found.items()}
    ended = {unit: restarts for unit, (_, restarts) in found.items()}
    restarts = list(ended.values())
    measured, by_chance = _measured(restarts, ends, nearest, settings, name=subject.token, keep=meaning.pool)
    measured = [one.without(int(missing.sum())) for one, missing in zip(measured, lost.values(), strict=True)]
    own = {unit: ended[unit] for unit in found if unit not in controls}
    asked = [number for number, unit in enumerate(found) if unit in own]
    decided = judge(measured, own_of(found, nearest, settings), judged=asked)
    gaps = gap.measure(subject, objective, ended, nearest, passes=passes, settings=gap_settings, cache=cache)
    gaps = {unit: one.untested() if lost[unit].all() else one for unit, one in gaps.items()}
    contents.write_table("surroundings", surroundings(subject, objective, transfer[1]))
    carried = carry_units(subject, objective, own, gaps, nearest, transfer, alpha=decided[0].alpha, cache=cache)
    asked_of = Asked(subject, objective, meaning, gap_settings, text_of(transfer[1]), cache)
    on_meaning, themes = write_meaning(contents, asked_of, found, gaps, by_chance, nearest, list(own), passes, lost)
    numbers = zip(found, map(unit_row, found, measured, decided, gaps.values()), strict=True)
    on_context = partial(context_columns, subject, objective)
    rows = [row | on_context(unit, carried.get(unit)) | on_meaning[unit] for unit, row in numbers]
    tables = {"units": [with_layers(pd.DataFrame(rows))], **themes, **_tables(found, measured, gaps, carried)}
    tables |= {"latents": latents} if (latents := latent_tables(subject, objective, found)) else {}
    _write_marked(contents, tables, controls)
    listed = write_findings(contents, [one for number in asked for one in unit_findings(rows[number])])
    return {**summarize([rows[number] for number in asked]), **listed, "controls": [str(unit) for unit in controls]}


def latent_tables(
    subject: Subject, objective: Objective, found: Mapping[Target, tuple[list[int], Restarts]]
) -> list[pd.DataFrame]:
    """What latents of autoencoders give behind their activation function, beside the pre-activation that is optimized.

    A row per restart and stage (`initial`, `optimum`, and `snapped` to its tokens): `pre` and `post`, reduced over
    positions as the objective is, and `firing`, the share of positions at which the latent is not 0.
    """
    parts = []
    for unit, (seeds, restarts) in found.items():
        if not isinstance(unit, Latent):
            continue
        tokens = subject.embed(subject.nearest(restarts.final).best)
        for stage, embeddings in (("initial", restarts.initial), ("optimum", restarts.final), ("snapped", tokens)):
            with torch.no_grad():
                seen = subject.run(embeddings.to(subject.device), [unit.place], context=objective.seen)[unit.place]
            flat = seen.flatten(0, 1).double().cpu().numpy()
            pre, post = (torch.from_numpy(one).unflatten(0, seen.shape[:2]) for one in unit.activations(flat))
            columns = {"pre": pre, "post": post, "firing": (post != 0).double()}
            averaged = {name: objective.activation(values).tolist() for name, values in columns.items()}
            averaged["firing"] = objective.averaged(columns["firing"].mean(1)).tolist()
            parts.append(addressed(pd.DataFrame({"seed": seeds, "stage": stage, **averaged}), [unit]))
    return parts


def _tables(
    found: Mapping[Target, tuple[list[int], Restarts]],
    measured: Iterable[Measures],
    gaps: Mapping[Target, Gap],
    carried: Mapping[Target, Carriage],
) -> dict[str, Iterable[pd.DataFrame]]:
    """The parts of the tables of rarefaction, of restarts on their way to text, and of their tokens elsewhere."""
    return {
        "rarefaction": map(rarefaction_rows, found, measured),
        "gaps": [gap_rows(unit, seeds, gaps[unit]) for unit, (seeds, _) in found.items()],
        "transfer": [transfer_rows(unit, found[unit][0], one) for unit, one in carried.items()],
    }


def _write_marked(
    contents: Contents, tables: Mapping[str, Iterable[pd.DataFrame]], controls: Collection[Target]
) -> None:
    """Writes tables, each put together of its parts, with the column `control`."""
    for name, parts in tables.items():
        contents.write_table(name, marked(pd.concat(parts, ignore_index=True), controls))


def carry_units(
    subject: Subject,
    objective: Objective,
    ended: Mapping[Target, Restarts],
    gaps: Mapping[Target, Gap],
    nearest: NearestTokens,
    transfer: tuple[TransferSettings, Sequence[Context]],
    *,
    alpha: float,
    cache: Path,
) -> dict[Target, Carriage]:
    """What the decoded tokens of units do in other contexts.

    Args:
        subject: the language model.
        objective: the objective that the restarts were optimized for.
        ended: the restarts of each unit.
        gaps: the decode gap of each unit: what its tokens do where they were found.
        nearest: the nearest tokens of the subject.
        transfer: settings of the trial in other contexts, and these contexts.
        alpha: level of a claim on a unit.
        cache: the folder that keeps activations of random sequences.
    """
    settings, contexts = transfer
    found = {
        unit: (
            nearest(restarts.final).best,
            Carried(gaps[unit].snapped, gaps[unit].random.activation, own=True, sign=objective.sign),
        )
        for unit, restarts in ended.items()
    }
    drawn = GapSettings(settings.draws, settings.random_seed)
    return carry(subject, objective, found, contexts, settings=drawn, alpha=alpha, cache=cache)


def context_columns(subject: Subject, objective: Objective, unit: Target, carried: Carriage | None) -> dict[str, Any]:
    """The columns of `units.parquet` on a unit's context: the first position, and what other contexts give.

    `first_norm` and `later_norm` are missing where something stands before the tokens, so that they have no first
    position.
    """
    first, later = (nan, nan) if objective.context.length else first_position(subject, unit.place)
    own = {"first_norm": first, "later_norm": later}
    return own | (carried.flat() if carried else {})


def surroundings(subject: Subject, objective: Objective, contexts: Sequence[Context]) -> pd.DataFrame:
    """A row per surrounding of the job's own context (`own`) and of those in which its tokens were tried."""
    rows = [
        {
            "context": context.name,
            "own": own,
            "number": number,
            "before": subject.text(before),
            "after": subject.text(context.after),
            "before_ids": list(before),
            "after_ids": list(context.after),
        }
        for own, context in [(True, objective.context), *((False, one) for one in contexts)]
        for number, before in enumerate(context.before)
    ]
    return pd.DataFrame(rows)


def transfer_rows(unit: Target, seeds: Sequence[int], one: Carriage) -> pd.DataFrame:
    """A row per context and restart: what its tokens do there, beside random tokens there."""
    rows = [
        {"seed": seed, "context": name, "own": carried.own, **carried.of_restart(number)}
        for name, carried in one.contexts.items()
        for number, seed in enumerate(seeds)
    ]
    return addressed(pd.DataFrame(rows), [unit])


def _measured(
    restarts: Sequence[Restarts],
    ends: Callable[[Sequence[Restarts]], Sequence[Displaced]] | None,
    nearest: NearestTokens,
    settings: NullSettings,
    *,
    name: Callable[[int], str],
    keep: int,
) -> tuple[list[Measures], list[Tensor]]:
    """The numbers of each unit, those of some units drawn by chance together, and the tokens of the first draws."""
    draw = ends or partial(moves, nearest, settings=settings)
    found: list[Measures] = []
    ids: list[Tensor] = []
    with Bar("nulls", len(restarts), unit="unit") as bar:
        for start in range(0, len(restarts), TOGETHER):
            some = restarts[start : start + TOGETHER]
            for one, by_chance in zip(some, draw(some), strict=True):
                found.append(measure(one, nearest, ends=by_chance, settings=settings, name=name))
                ids.append(by_chance.ids[:keep].clone())
                bar.advance()
    return found, ids


def text_of(contexts: Sequence[Context]) -> Context | None:
    """The windows of real text among some contexts."""
    return next((context for context in contexts if context.name == "text"), None)


def write_meaning(
    contents: Contents,
    asked: Asked,
    found: Mapping[Target, tuple[list[int], Restarts]],
    gaps: Mapping[Target, Gap],
    by_chance: Sequence[Tensor],
    nearest: NearestTokens,
    own: Sequence[Target],
    passes: int,
    lost: Mapping[Target, Tensor],
) -> tuple[dict[Target, dict[str, Any]], dict[str, list[pd.DataFrame]]]:
    """What the decoded tokens of units are about (`meaning_columns`); writes the vectors of all restarts.

    A restart that is missing has a vector of NaN; a unit without any other is not measured.
    """
    texts = {unit: gaps[unit].texts for unit in found}
    ids = {unit: nearest(restarts.final).best for unit, (_, restarts) in found.items()}
    seeds = {unit: some for unit, (some, _) in found.items() if not lost[unit].all()}
    given: dict[str, Any] = {"own": [unit for unit in own if unit in seeds], "passes": passes, "seeds": seeds}
    columns, tables, vectors = meaning_columns(asked, texts, ids, gaps, by_chance, **given)
    if vectors:
        rows = torch.cat([~missing if unit in seeds else missing for unit, missing in lost.items()])
        whole = torch.full((len(rows), vectors["vectors"].shape[1]), nan, dtype=vectors["vectors"].dtype)
        whole[rows] = vectors["vectors"]
        whole[torch.cat(list(lost.values()))] = nan
        contents.write_tensors("meaning", {**vectors, "vectors": whole})
    return columns, tables


def counted(seeds: list[int], restarts: Restarts) -> tuple[list[int], Restarts]:
    """The restarts of a unit that are measured (`Restarts.counted`), with their seeds."""
    kept = restarts.counted
    return [seed for seed, one in zip(seeds, kept.tolist(), strict=True) if one], restarts[kept]


def own_of(found: Mapping[Target, tuple[list[int], Restarts]], nearest: NearestTokens, settings: NullSettings) -> Own:
    """Whether units agree more with themselves than with each other, over the seeds that all of them have.

    Units whose restarts all went non-finite are not tested, and the others as if these were not there.

    Args:
        found: the seeds and the restarts of each unit.
        nearest: the nearest tokens of the subject.
        settings: settings of the nulls.
    """
    if len(found) > MOST_UNITS:
        return Own(OwnStatus.TOO_MANY_UNITS, units=len(found))
    present = [one for one in found.values() if not one[1].missing.all()]
    if not present:
        return Own(OwnStatus.ONE_UNIT)
    seeds = set.intersection(*(set(some) for some, _ in present))
    if len(seeds) < 2 and any(set(some) != seeds for some, _ in present):
        return Own(OwnStatus.NO_SHARED_SEEDS, units=len(present), seeds=len(seeds))
    rows = [torch.tensor([seed in seeds for seed in some]) for some, _ in present]
    shared = [restarts[kept] for (_, restarts), kept in zip(present, rows, strict=True)]
    ids = torch.stack([nearest(one.final).best for one in shared])
    own = own_agreement(ids, torch.stack([one.final - one.initial for one in shared]), seed=settings.seed)
    return own.spread([not restarts.missing.all() for _, restarts in found.values()])


def rarefaction_rows(unit: Target, measures: Measures) -> pd.DataFrame:
    """A row per number of restarts: expected unique tokens, beside the same under random displacements."""
    curve = measures.agreement.rarefaction
    columns = {name: getattr(curve, name) for name in ("unique", "null_mean", "null_low", "null_high")}
    table = pd.DataFrame({"restarts": range(1, len(curve.unique) + 1), **columns})
    return addressed(table, [unit])


def gap_rows(unit: Target, seeds: Sequence[int], one: Gap) -> pd.DataFrame:
    """A row per restart: its activation on the way to text, beside random text."""
    columns = {
        "seed": list(seeds),
        "text": list(one.texts),
        "retokenised_same": list(one.same),
        "retokenised_tokens": list(one.lengths),
        **{f"activation_{stage}": getattr(one, stage) for stage in STAGES},
        "activation_start_tokens": one.start_tokens,
        "random_activation_mean": one.random.activation.mean(),
        "random_activation_sd": one.random.activation.std(ddof=1),
        "cross_entropy": one.cross_entropy,
        "cross_entropy_initial": one.cross_entropy_initial,
        "random_cross_entropy_mean": one.random.cross_entropy.mean(),
    }
    return addressed(pd.DataFrame(columns), [unit])


def unit_tables(
    subject: Subject, nearest: NearestTokens, unit: Target, seeds: Sequence[int], restarts: Restarts, *, top_k: int
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The tables of one unit: a row per token, per candidate, and per restart."""
    before, after = nearest(restarts.initial), nearest(restarts.final, top_k=top_k)
    count, positions = after.best.shape

    def frame(columns: Mapping[str, Any], repeat: int) -> pd.DataFrame:
        seed = [seed for seed in seeds for _ in range(repeat)]
        return addressed(pd.DataFrame({"seed": seed, **columns}), [unit])

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


def unit_row(unit: Target, measures: Measures, decision: Decision, one: Gap) -> dict[str, Any]:
    """A unit's row of `units.parquet`: its address, every headline number with its null, its verdict."""
    numbers = measures.flat()
    numbers["tokens_repeated"] = json.dumps(numbers["tokens_repeated"], ensure_ascii=False)
    return {**unit.columns(), **numbers, **one.flat(decision.alpha), **decision.flat()}


def summarize(rows: Sequence[Mapping[str, Any]]) -> Summary:
    """The headline numbers, flat for one unit; for several their mean and range, and the shares of verdicts.

    Args:
        rows: rows of `units.parquet`, without control units.
    """
    if len(rows) == 1:
        numbers = {name: value for name, value in rows[0].items() if name not in (*UNIT, TARGET)}
        return {"units": 1, **numbers, "tokens_repeated": json.loads(numbers["tokens_repeated"])}
    table = pd.DataFrame(rows)
    table = table.drop(columns=names_in(table))
    columns = table.select_dtypes("number").astype(float).items()
    spread: dict[str, Any] = {str(name): {"mean": c.mean(), "min": c.min(), "max": c.max()} for name, c in columns}
    gaps = Counter(table["gap"])
    ends = {end.value: gaps[end.value] for end in GapEnd if end != GapEnd.NOT_TESTED or gaps[end.value]}
    by_verdict = shares([Verdict(verdict) for verdict in table["verdict"]]).to_dict("records")
    return {"units": len(rows), **spread, "gap": ends, "verdicts": by_verdict}
