"""Units over all jobs of a sweep: restarts of one unit put together, means by layer, priors and methods side by side.

Restarts of one unit that several jobs ran are set beside their nulls again; for that the subject must be at hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import pandas as pd
import pyarrow as pa
import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file

from actmax.errors import InputError
from actmax.evidence import gap
from actmax.evidence.findings import findings_table, unit_findings
from actmax.evidence.measures import measure, moves
from actmax.evidence.nulls import Restarts
from actmax.evidence.own import MOST_UNITS, Own, Relabelled, own_agreement
from actmax.evidence.readings import VERDICTS, DecisionStatus, OwnStatus
from actmax.evidence.settings import NullSettings
from actmax.evidence.verdicts import Agreed, decide
from actmax.model.nearest import NearestTokens
from actmax.model.settings import GapSettings, TransferSettings
from actmax.model.target import Target, names_in, target_of_row, with_layers
from actmax.records.collect import Job, common_schema, fitted, rows_of
from actmax.records.store import Summary
from actmax.tasks.registry import task_in
from actmax.tasks.settings import integers, kind_of
from actmax.tasks.subjects import objective_of, subject_of, transfer_contexts
from actmax.tasks.targets import with_vector
from actmax.tasks.task import Gathered
from actmax.tasks.units import measure as measuring
from actmax.tasks.units.ladder import SEARCHES, by_method, ladder, methods
from actmax.tasks.units.meaning import Asked, decisions, meaning_columns, set_apart
from actmax.tasks.units.sweep import units_page
from actmax.tasks.units.task import UnitsTask
from actmax.text.settings import MeaningSettings
from actmax.weights import cache_folder

HEADLINE = {
    "unique_share": "null_unique_share",
    "init_retention": "null_retention_mean",
    "cosine_mean": "null_cosine_mean",
    "shared_tokens": "null_shared_tokens_mean",
    "direction": "null_direction_mean",
}
"""A unit's headline numbers, each with the mean of its null."""
GAPS = ("random_activation_mean", "activation_snapped_mean", "z_final", "z_snapped", "z_retokenised")
"""Columns of the decode gap; their means over units show where the gain is lost."""
NAMES = ("prior", "context")
"""Entries of a job's summary that say in words what its condition is."""
ENDS = ("activation_initial", "activation_final")
"""Activations of a restart before the first step and after the last."""


@dataclass(frozen=True)
class Ended:
    """Where one restart started and ended, as its record holds it."""

    initial: Float[torch.Tensor, "tokens d_model"]
    """Embedding of the restart before the first step."""
    final: Float[torch.Tensor, "tokens d_model"]
    """Embedding of the restart after the last step."""
    ids: Int[torch.Tensor, " tokens"]
    """The tokens that the final embedding decodes to."""
    activation_initial: float
    """Activation of the restart before the first step."""
    activation_final: float
    """Activation of the restart after the last step."""
    meaning: Float[torch.Tensor, " dims"] | None
    """The vector of its text, centred; None where meaning was not measured."""


def gather(jobs: Sequence[Job]) -> Gathered:
    """Every unit of every condition over all its jobs, and what follows from that.

    Args:
        jobs: complete records of gradient runs and searches.
    """
    units, notes = _units(jobs)
    layers = _aggregate(units, ["condition", *NAMES, "site", "layer"])
    rungs = _ladder(units, jobs)
    searched = _methods(rungs, units, jobs)
    tables = {"findings": _findings(units), "units": units, "layers": layers, "ladder": rungs, "methods": searched}
    gathered = Gathered(
        {name: table for name, table in tables.items() if len(table)},
        {**_summary(units, layers), "ladder": rows_of(rungs, list(rungs.columns))}
        | ({"methods": by_method(searched)} if len(searched) else {}),
        tuple(notes),
        ("units", "findings", "layers", "ladder", "methods"),
    )
    return replace(gathered, page=lambda source: units_page(source, gathered))


def verify(job: Job) -> None:
    """Refuses a record whose tables do not belong together.

    Raises:
        ValueError: they are of different lengths, a file cannot be read, or config and summary are another job's.
    """
    if not isinstance(job.summary.get("condition"), str):
        raise ValueError("summary.json names no condition")
    if "restarts" in job.tables:
        table, asked = job.read("restarts"), integers(job.config["seeds"], "seeds")
        found = set(table["site"].to_pylist())
        sites = {str(job.config["unit"]["site"])} if kind_of(job.config["unit"]) == "coordinate" else found
        if set(table["seed"].to_pylist()) != set(asked) or sites != found:
            raise ValueError("config.yaml is another job's: its seeds or its site are not those of restarts.parquet")
        restarts, tokens = (len(job.read(name)) for name in ("restarts", "tokens"))
        if not restarts or tokens % restarts or len(_embeddings(job)["final"]) != restarts:
            raise ValueError("its tables are of different lengths")


def _findings(units: pd.DataFrame) -> pd.DataFrame:
    """The findings on the units of each condition, over all their jobs."""
    parts = [
        findings_table(unit_findings(row)).assign(condition=row["condition"], **{name: row[name] for name in NAMES})
        for row in units.to_dict("records")
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _ladder(units: pd.DataFrame, jobs: Sequence[Job]) -> pd.DataFrame:
    """The priors side by side, where there are several, or several contexts."""
    if not len(units) or len(units[list(NAMES)].drop_duplicates()) < 2:
        return pd.DataFrame()
    seconds: dict[tuple[str, str], float] = {}
    for job in jobs:
        if "units" in job.tables:
            key = str(job.summary["condition"]), str(job.read("units")["site"][0])
            seconds[key] = seconds.get(key, 0.0) + job.summary["seconds"]["fit"]
    return ladder(units, seconds)


def _methods(rungs: pd.DataFrame, units: pd.DataFrame, jobs: Sequence[Job]) -> pd.DataFrame:
    """What gradient runs and searches find in tokens, where a search is among them."""
    if not len(rungs) or not set(SEARCHES) & set(rungs["prior"]):
        return pd.DataFrame()
    measured = [job for job in jobs if "gaps" in job.tables]
    parts = [job.record.table("gaps").assign(condition=job.summary["condition"]) for job in measured]
    gaps = pd.concat([part.loc[~part["control"]] for part in parts])
    gaps = gaps.drop_duplicates(["condition", *names_in(gaps), "seed"])
    return methods(rungs, units, gaps, {str(job.summary["condition"]): _task(job).passes(job) for job in measured})


def _task(job: Job) -> UnitsTask:
    return cast("UnitsTask", task_in(job.config))


def _embeddings(job: Job) -> dict[str, torch.Tensor]:
    try:
        return load_file(job.record.path("embeddings.safetensors"))
    except Exception as error:  # safetensors raises its own, which is no OSError
        raise ValueError(f"embeddings.safetensors cannot be read: {error}") from error


def _units(jobs: Sequence[Job]) -> tuple[pd.DataFrame, list[str]]:
    """Every unit of every condition once, with a note for those whose numbers could not be worked out."""
    having = [job for job in jobs if "units" in job.tables]
    if not having:
        return pd.DataFrame(), []
    notes: list[str] = []
    parts = []
    known = {job.name: job for job in jobs}
    read: tuple[frozenset[str], dict[Target, dict[int, Ended]]] = (frozenset(), {})
    every = _own_units(having)
    for _, rows in every.groupby(["condition", *names_in(every)], sort=True, dropna=False):
        if len(rows) == 1:
            parts.append(rows)
            continue
        names = frozenset(rows["job"])
        together = [known[name] for name in rows["job"]]
        if names != read[0]:  # units of the same jobs stand together: their records are read once
            read = names, _ended(together)
        unit = target_of_row(rows.iloc[0].to_dict())
        try:
            pooled = _pooled(str(rows.iloc[0]["condition"]), unit, together, read[1])
            parts.append(pooled.assign(restarts_frozen=int(rows["restarts_frozen"].to_numpy(int).sum())))
        except InputError as error:
            notes.append(f"{unit}: the restarts of {len(together)} jobs were not put together ({error})")
    if not parts:
        return pd.DataFrame(), notes
    units = pd.concat(parts, ignore_index=True).drop(columns="job")
    units = _put_columns(units, _shares(units))
    groups = [_judged(pd.DataFrame(group), jobs) for _, group in units.groupby("condition", sort=True)]
    return pd.concat(groups, ignore_index=True), notes


def _judged(units: pd.DataFrame, jobs: Sequence[Job]) -> pd.DataFrame:
    """The units of one condition with their verdicts.

    A unit that its jobs set beside others, control units or units of their own, keeps its verdict. The rest are set
    against each other and those, whichever job they were in.
    """
    lost = units["verdict_status"] == DecisionStatus.NON_FINITE  # nothing is known of them, whatever they stand beside
    if bool(lost.to_numpy(bool).any()):
        rest = pd.DataFrame(units[~lost])
        return pd.DataFrame(pd.concat([units[lost], _judged(rest, jobs)]).sort_index()) if len(rest) else units
    rows = units.to_dict("records")
    alone = [number for number, row in enumerate(rows) if row["own"] != OwnStatus.OK]
    if len(units) < 2 or not alone:
        return units
    names = [target_of_row(row) for row in rows]
    same = [job for job in jobs if job.summary.get("condition") == rows[0]["condition"]]
    own, ended = Own(OwnStatus.TOO_MANY_UNITS, units=len(names)), {}
    if len(names) <= MOST_UNITS:
        ended = _ended(same)
        own = _own([ended[unit] for unit in names], NullSettings(**same[0].config["nulls"]))
    decided = decide([Agreed.of_row(row) for row in rows], own, kind=rows[0]["null_of_ends"], judged=alone)
    changed = [{**rows[number], **decided[number].flat()} for number in alone]
    if len(names) <= MOST_UNITS and "meaning_status" in rows[0]:
        own_meaning = _own_meaning([ended[unit] for unit in names], _meaning(same[0].config))
        again_of = decisions(rows, own_meaning, alone)
        changed = [{**row, **again_of[number].flat()} for row, number in zip(changed, alone, strict=True)]
    rest, again = units.drop(index=units.index[alone]), pd.DataFrame(changed, index=units.index[alone])
    judged = pd.concat([rest, again]) if len(rest) else again
    return with_layers(pd.DataFrame(judged.sort_index(), columns=units.columns))


def _own(ended: Sequence[Mapping[int, Ended]], settings: NullSettings) -> Own:
    """Units set against each other over the seeds that all of them have."""
    seeds = sorted(set.intersection(*(set(one) for one in ended)))
    if len(ended) > 1 and len(seeds) < 2:
        return Own(OwnStatus.NO_SHARED_SEEDS, units=len(ended), seeds=len(seeds))
    ids = torch.stack([torch.stack([one[seed].ids for seed in seeds]) for one in ended])
    moves = torch.stack([torch.stack([one[seed].final - one[seed].initial for seed in seeds]) for one in ended])
    return own_agreement(ids, moves, seed=settings.seed)


def _meaning(config: Mapping[str, Any]) -> MeaningSettings:
    """How it was asked what restarts are about; records from before that was asked have no such settings."""
    return MeaningSettings(**config.get("meaning", {}))


def _own_meaning(ended: Sequence[Mapping[int, Ended]], settings: MeaningSettings) -> Relabelled:
    """Units set against each other in meaning, over the seeds that all of them have."""
    seeds = sorted(set.intersection(*(set(one) for one in ended)))
    vectors = [[found for seed in seeds if (found := one[seed].meaning) is not None] for one in ended]
    if len(seeds) < 2 or any(len(one) < len(seeds) for one in vectors):
        return Relabelled(OwnStatus.NO_SHARED_SEEDS, units=len(ended), seeds=len(seeds))
    return set_apart([torch.stack(one).numpy() for one in vectors], seed=settings.seed)


def _controls(unit: Target, jobs: Sequence[Job]) -> list[Target]:
    """The control units of some jobs, which ran beside a unit; only those that all of these jobs ran."""
    found: list[list[Target]] = []
    for job in jobs:
        restarts = job.record.table("restarts")
        rows = restarts.loc[restarts["control"]].to_dict("records")
        found.append(list(dict.fromkeys(target_of_row(row) for row in rows)))
    return [one for one in found[0] if one != unit and all(one in some for some in found)]


def _own_units(jobs: Sequence[Job]) -> pd.DataFrame:
    """The rows of all jobs without control units, a unit of several jobs several times."""
    schema = common_schema("units", jobs)
    whole = pa.concat_tables([fitted(job.read("units"), job.name, schema) for job in jobs])
    table: Any = whole.to_pandas()
    table = with_layers(table[~table["control"]].reset_index(drop=True))
    named = ("condition", *NAMES)
    names = {name: table["job"].map({job.name: job.summary[name] for job in jobs}) for name in named}
    return _put_columns(table, {"job": table["job"], **names, "jobs": 1.0}, first=True).copy()  # in one piece


def _put_columns(table: pd.DataFrame, columns: Mapping[str, Any], *, first: bool = False) -> pd.DataFrame:
    """A table with columns put in or replaced, all at once: one by one is slow in a wide table."""
    new = pd.DataFrame(dict(columns), index=table.index)
    old = table.drop(columns=list(columns), errors="ignore")
    return pd.concat([new, old] if first else [old, new], axis=1)


def _shares(units: pd.DataFrame) -> dict[str, Any]:
    total = units["tokens_total"]
    return {
        "unique_share": units["tokens_unique"] / total,
        "null_unique_share": units["null_unique_mean"] / total,
        "jobs": units["jobs"].astype(int),
    }


def _pooled(
    condition: str, unit: Target, jobs: Sequence[Job], ended: Mapping[Target, Mapping[int, Ended]]
) -> pd.DataFrame:
    """One unit whose restarts lie in several jobs, measured as if one job had run them; a seed counts once."""
    config = jobs[0].config
    subject = subject_of(config)
    if unit not in ended:
        raise InputError("unit", unit, "all its restarts went non-finite")
    restarts = _restarts(ended[unit])
    nearest, settings = subject.nearest, NullSettings(**config["nulls"])
    draw = _task(jobs[0]).ends(subject, settings, config)
    (ends,) = moves(nearest, [restarts], settings) if draw is None else draw([restarts])
    measured = measure(restarts, nearest, settings=settings, name=subject.token, ends=ends)
    beside = [one for one in (unit, *_controls(unit, jobs)) if one in ended]
    own = _own([ended[one] for one in beside], settings)
    (decision,) = decide([Agreed.of(measured.agreement)], own.only(0), kind=measured.null_of_ends)
    read = with_vector(unit, jobs[0].record)
    objective, gap_settings = objective_of(config, _task(jobs[0]), subject), GapSettings(**config["gap"])
    passes = round(sum(_task(job).passes(job)[0] for job in jobs) / len(jobs))
    options: dict[str, Any] = {"settings": gap_settings, "cache": cache_folder() / "nulls"}
    gaps = gap.measure(subject, objective, {read: restarts}, nearest, passes=passes, **options)
    transfer = TransferSettings(**config["transfer"]), transfer_contexts(config, subject, objective.context)
    tried = {"alpha": decision.alpha, "cache": cache_folder() / "nulls"}
    carried = measuring.carry_units(subject, objective, {read: restarts}, gaps, nearest, transfer, **tried)
    numbers = measuring.unit_row(read, measured, decision, gaps[read])
    numbers |= measuring.context_columns(subject, objective, read, carried[read])
    asked = Asked(
        subject, objective, _meaning(config), gap_settings, measuring.text_of(transfer[1]), cache_folder() / "nulls"
    )
    some = {read: restarts} | {one: _restarts(ended[one]) for one in beside if one != unit}
    numbers |= _pooled_meaning(asked, read, some, gaps[read], ends.ids[: asked.settings.pool], nearest, passes)
    names = {"job": None, "condition": condition, **{name: jobs[0].summary[name] for name in NAMES}}
    row = {**names, **numbers, "control": False, "jobs": float(len(jobs))}
    return with_layers(pd.DataFrame([row]))


def _pooled_meaning(
    asked: Asked,
    unit: Target,
    restarts: Mapping[Target, Restarts],
    own: gap.Gap,
    by_chance: torch.Tensor,
    nearest: NearestTokens,
    passes: int,
) -> dict[str, Any]:
    """The columns on meaning of one unit whose restarts lie in several jobs, beside its control units."""
    ids = {one: nearest(some.final).best for one, some in restarts.items()}
    texts = {one: [asked.subject.text(row) for row in some.tolist()] for one, some in ids.items()}
    drawn = [by_chance] * len(ids)
    columns, _, _ = meaning_columns(asked, texts, ids, {unit: own}, drawn, own=[unit], passes=passes)
    return columns[unit]


def _restarts(ended: Mapping[int, Ended]) -> Restarts:
    """A unit's restarts, ordered by seed."""
    rows = [ended[seed] for seed in sorted(ended)]
    before, after = (torch.tensor([getattr(row, name) for row in rows], dtype=torch.float64) for name in ENDS)
    initial, final = torch.stack([row.initial for row in rows]), torch.stack([row.final for row in rows])
    return Restarts(initial, final, before, after, torch.zeros(len(rows), dtype=torch.bool))


def _ended(jobs: Sequence[Job]) -> dict[Target, dict[int, Ended]]:
    """Each unit's restarts by seed, every record read once; a seed that several jobs ran counts once.

    Restarts that went non-finite are left out, and so are units that have no others.
    """
    by_unit: dict[Target, dict[int, Ended]] = {}
    for job in jobs:
        restarts = job.record.table("restarts")
        saved, tokens = _embeddings(job), job.record.table("tokens")["token_id"].to_numpy()
        ids = torch.from_numpy(tokens.reshape(len(restarts), -1).copy())
        file = job.record.path("meaning.safetensors")
        vectors = load_file(file)["vectors"] if file.exists() else None
        for number, row in enumerate(restarts.to_dict("records")):
            if row["frozen"]:
                continue
            ends = float(row["activation_initial"]), float(row["activation_final"])
            meaning = None if vectors is None else vectors[number]
            ended = Ended(saved["initial"][number], saved["final"][number], ids[number], *ends, meaning)
            by_unit.setdefault(target_of_row(row), {}).setdefault(int(row["seed"]), ended)
    return by_unit


def _aggregate(units: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Means over units, and in how many the retention and the repeats differ from their null."""
    if not len(units):
        return units
    numbers = ["activation_initial_mean", "activation_final_mean", *GAPS, *HEADLINE, *HEADLINE.values()]
    groups = units.groupby(by, sort=True, dropna=False)
    counts = groups.agg(units=("index", "size"), restarts=("restarts", "sum"))
    means = pd.DataFrame(groups[numbers].mean())
    for name in ("unique", "retention"):
        alpha = units[f"null_{name}_alpha"]
        differs = units.assign(differs=(units[f"null_{name}_p"] <= alpha).astype(int))
        means[f"{name}_differs"] = differs.groupby(by, sort=True, dropna=False)["differs"].sum()
    for verdict in VERDICTS:
        means[verdict.value] = groups["verdict"].agg(lambda found, verdict=verdict: int((found == verdict).sum()))
    return pd.concat([pd.DataFrame(counts), means], axis=1).reset_index()


def _summary(units: pd.DataFrame, layers: pd.DataFrame) -> Summary:
    overall = _aggregate(units, ["condition", *NAMES])
    keep = [
        *names_in(units),
        "condition",
        *NAMES,
        "restarts",
        "activation_final_mean",
        *GAPS,
        "gap",
        *HEADLINE,
        *HEADLINE.values(),
        "verdict",
        "answer",
    ]
    return {
        "overall": rows_of(overall, list(overall.columns)),
        "layers": rows_of(layers, list(layers.columns)),
        "units": rows_of(units, keep),
    }
