"""All records under a folder put together: a tidy table of each kind, the units over all their jobs, `sweep.json`.

It reads records alone, so it works while a sweep runs, after it failed, and on another machine. Restarts of one unit
that several jobs ran are put together and set beside their nulls again; for that the subject must be at hand.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from jaxtyping import Float, Int
from safetensors.torch import load_file

from actmax.errors import InputError
from actmax.evidence import gap
from actmax.evidence.findings import findings_table, unit_findings
from actmax.evidence.measures import judge, measure
from actmax.evidence.nulls import Null, Restarts
from actmax.evidence.own import MOST_UNITS, Own, own_agreement
from actmax.evidence.readings import VERDICTS, OwnStatus
from actmax.evidence.settings import NullSettings
from actmax.evidence.verdicts import PRIMARY, decide
from actmax.model.nearest import NearestTokens
from actmax.model.objective import Objective
from actmax.model.settings import GapSettings
from actmax.model.subject import shared
from actmax.model.target import UNIT, Unit, with_layers
from actmax.records.store import Record, Status, Table, from_yaml, now
from actmax.search.settings import SearchSettings
from actmax.tasks.ladder import SEARCHES, by_method, ladder, methods
from actmax.tasks.search import tables as search_tables
from actmax.tasks.units import measure as results
from actmax.weights import cache_folder

log = logging.getLogger(__name__)

HEADLINE = {
    "unique_share": "null_unique_share",
    "init_retention": "null_retention_mean",
    "cosine_mean": "null_cosine_mean",
    "jaccard": "null_jaccard_mean",
    "displacement_cosine_assigned": "null_displacement_cosine_assigned_mean",
}
"""A unit's headline numbers, each with the mean of its null."""
GAPS = ("random_activation_mean", "activation_snapped_mean", "z_final", "z_snapped", "z_retokenised")
"""Of the decode gap: means over units say where the gain dies."""
ENDS = ("activation_initial", "activation_final")
HELD = 2**28
"""Bytes of tables, as they lie on disk, that are held from the check to the writing; what is beyond is read twice."""
ROW_GROUP = 100_000
"""Rows that are written at a time."""
STATES = ("complete", "failed", "interrupted", "running", "died")


@dataclass(frozen=True)
class Job:
    """A record as found."""

    name: str
    """Its folder, as seen from the folder that is collected."""
    record: Record
    """The record."""
    status: Status
    """How it stands."""
    state: str
    """Its state; `died` where it says `running` and no process holds it."""
    summary: Mapping[str, Any]
    """Of a complete job; else empty."""
    config: Mapping[str, Any]
    """Resolved; empty where the job left none."""
    held: dict[str, pa.Table] = field(default_factory=dict)
    """Tables that were read already."""

    @cached_property
    def tables(self) -> list[Table]:
        """The kinds of tables that it has."""
        files = {file.name for file in self.record.folder.glob("*.parquet")}
        return [name for name in get_args(Table) if f"{name}.parquet" in files]

    def read(self, name: Table) -> pa.Table:
        """One of them, whole."""
        return self.held[name] if name in self.held else self._read(name)

    def check(self, *, hold: bool) -> int:
        """Reads all of them, and returns their bytes on disk; they are held for the next who asks, or not."""
        for name in self.tables:
            table = self._read(name)
            if hold:
                self.held[name] = table
        return sum(self.record.path(f"{name}.parquet").stat().st_size for name in self.tables)

    def _read(self, name: Table) -> pa.Table:
        # not pyarrow's dataset, which takes longer to open a small file than to read it
        return pq.ParquetFile(self.record.path(f"{name}.parquet")).read(use_threads=False)


@dataclass(frozen=True)
class Ended:
    """A restart as its record holds it."""

    initial: Float[torch.Tensor, "tokens d_model"]
    """Its embedding before the first step."""
    final: Float[torch.Tensor, "tokens d_model"]
    """After the last."""
    ids: Int[torch.Tensor, " tokens"]
    """What it decodes to."""
    activation_initial: float
    """Before."""
    activation_final: float
    """After."""
    frozen: bool
    """Whether it went non-finite on the way."""


@dataclass(frozen=True)
class Collected:
    """What lies under a folder."""

    folder: Path
    """Which folder."""
    jobs: pd.DataFrame
    """A row per job: how it stands, what it was, how long it took, and every key of its config that differs."""
    units: pd.DataFrame
    """A row per condition and unit, its restarts from all jobs together, each number beside its null."""
    layers: pd.DataFrame
    """A row per condition (and what a person calls its prior), site and layer: means over units."""
    ladder: pd.DataFrame
    """A row per prior and site, where there are several priors; else empty."""
    methods: pd.DataFrame
    """The same as what each finds in tokens, where a search is among them; else empty."""
    left_out: tuple[tuple[str, str], ...]
    """Records that could not be read, with the reason."""
    notes: tuple[str, ...]
    """What could not be worked out, and why."""
    summary: Mapping[str, Any]
    """What `sweep.json` says."""


def collect(folder: Path) -> Collected:
    """Reads every record under a folder and writes its tables and `sweep.json` there.

    Raises:
        InputError: there is no record.
    """
    jobs, left_out = _jobs(folder)
    if not jobs and not left_out:
        raise InputError("DIR", folder, "must hold records: folders with a status.json", "Name a sweep's folder.")
    complete = [job for job in jobs if job.state == "complete"]
    target = Record(folder)
    for name in get_args(Table):
        if name not in ("units", "findings", "jobs", "layers", "ladder", "methods"):
            _concatenate(target, name, [job for job in complete if name in job.tables])
    table, (units, notes) = _job_table(jobs), _units(complete)
    layers = _aggregate(units, ["condition", "prior", "site", "layer"])
    rungs = _ladder(units, complete)
    searched = _methods(rungs, units, complete)
    target.write_table("jobs", table)
    findings = _findings(units, complete)
    if len(findings):
        target.write_table("findings", findings)
    if len(units):
        target.write_table("units", units)
        target.write_table("layers", layers)
    if len(rungs):
        target.write_table("ladder", rungs)
    summary = {**_summary(folder, table, units, layers, left_out, notes), "ladder": _rows(rungs, list(rungs.columns))}
    if len(searched):
        target.write_table("methods", searched)
        summary |= {"methods": by_method(searched)}
        target.write_json("summary.json", {key: summary[key] for key in ("sweep", "collected", "methods")})
    target.write_json("sweep.json", summary)
    return Collected(folder, table, units, layers, rungs, searched, tuple(left_out), tuple(notes), summary)


def _findings(units: pd.DataFrame, jobs: Sequence[Job]) -> pd.DataFrame:
    """The findings on the units of each condition, over all their jobs, and those of jobs that are not about units."""
    parts = [
        findings_table(unit_findings(row)).assign(condition=row["condition"], prior=row["prior"])
        for row in units.to_dict("records")
    ]
    others = [job for job in jobs if "findings" in job.tables and "units" not in job.tables]
    parts += [job.record.table("findings").assign(job=job.name) for job in others]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _ladder(units: pd.DataFrame, jobs: Sequence[Job]) -> pd.DataFrame:
    """The priors side by side, where there are several."""
    if not len(units) or len(set(units["prior"])) < 2:
        return pd.DataFrame()
    seconds: dict[tuple[str, str], float] = {}
    for job in jobs:
        if "units" in job.tables:
            key = str(job.summary["condition"]), str(job.config["unit"]["site"])
            seconds[key] = seconds.get(key, 0.0) + job.summary["seconds"]["fit"]
    return ladder(units, seconds)


def _methods(rungs: pd.DataFrame, units: pd.DataFrame, jobs: Sequence[Job]) -> pd.DataFrame:
    """What gradient runs and searches find in tokens, where a search is among them."""
    if not len(rungs) or not set(SEARCHES) & set(rungs["prior"]):
        return pd.DataFrame()
    ran = [job for job in jobs if "gaps" in job.tables]
    gaps = pd.concat([job.record.table("gaps").assign(condition=job.summary["condition"]) for job in ran])
    gaps = gaps.drop_duplicates(["condition", *UNIT, "seed"])
    return methods(rungs, units, gaps, {str(job.summary["condition"]): _passes(job) for job in ran})


def _passes(job: Job) -> tuple[float, float]:
    """Forward passes of a restart, a backward pass counted as one, and how many ran the whole model."""
    if job.config["task"]["name"] == "search":
        spent = job.record.table("restarts")[["forward_passes", "whole_passes"]].mean()
        return float(spent.iloc[0]), float(spent.iloc[1])
    passes = 2.0 * job.config["steps"]
    return passes, passes if job.config["prior"]["fluency"]["weight"] > 0 else 0.0


def _jobs(folder: Path) -> tuple[list[Job], list[tuple[str, str]]]:
    """The readable records, and those that are not, with the reason."""
    jobs, left_out, size = [], [], 0
    for place in sorted(_folders(folder)):
        name = str(place.relative_to(folder))
        try:
            job = _job(name, Record(place))
            if job.state == "complete":
                size += job.check(hold=size < HELD)
                _restart_count(job)
            jobs.append(job)
        except InputError as error:
            left_out.append((name, f"{error.value}: {error.allowed}"))
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException, yaml.YAMLError) as error:
            left_out.append((name, f"damaged ({type(error).__name__}: {str(error).splitlines()[0]})"))
    return jobs, left_out


def _folders(folder: Path) -> Iterator[Path]:
    """Folders with a status, but for old records that `force=true` moved aside."""
    for file in folder.rglob("status.json"):
        if "previous" not in file.relative_to(folder).parts and file.parent != folder:
            yield file.parent


def _job(name: str, record: Record) -> Job:
    """A record; one that still runs may lack everything."""
    status = record.status()
    if status is None:
        raise ValueError("its status went away")
    state = "died" if status.state == "running" and not record.busy else status.state
    file = record.path("config.yaml")
    config = from_yaml(file.read_text(encoding="utf-8")) if file.exists() else {}
    summary = record.summary() if state == "complete" else {}
    return Job(name, record, status, state, summary, config)


def _restart_count(job: Job) -> None:
    """Refuses a record whose tables do not belong together."""
    if "restarts" in job.tables:
        restarts, tokens = (len(job.read(name)) for name in ("restarts", "tokens"))
        if not restarts or tokens % restarts or len(_embeddings(job)["final"]) != restarts:
            raise ValueError("its tables are of different lengths")


def _embeddings(job: Job) -> dict[str, torch.Tensor]:
    try:
        return load_file(job.record.path("embeddings.safetensors"))
    except Exception as error:  # safetensors raises its own, which is no OSError
        raise ValueError(f"embeddings.safetensors cannot be read: {error}") from error


def _concatenate(target: Record, name: Table, jobs: Sequence[Job]) -> None:
    """One table of all jobs, a few jobs at a time, so that memory stays flat."""
    if not jobs:
        return
    schema = _common_schema(name, jobs)

    def save(path: Path) -> None:
        with pq.ParquetWriter(path, schema) as writer:
            waiting, rows = [], 0
            for job in jobs:
                waiting.append(_fitted(job.read(name), job.name, schema))
                rows += len(waiting[-1])
                if rows >= ROW_GROUP:
                    writer.write_table(pa.concat_tables(waiting))
                    waiting, rows = [], 0
            if waiting:
                writer.write_table(pa.concat_tables(waiting))

    target.write(f"{name}.parquet", save)


def _common_schema(name: Table, jobs: Sequence[Job]) -> pa.Schema:
    """Every column that a table has in any of the jobs, behind the job's name."""
    schemas = [_plain(_schema(job, name)) for job in jobs]
    return pa.unify_schemas(schemas, promote_options="permissive").insert(0, pa.field("job", pa.string()))


def _schema(job: Job, name: Table) -> pa.Schema:
    return job.held[name].schema if name in job.held else pq.read_schema(job.record.path(f"{name}.parquet"))


def _plain(schema: pa.Schema) -> pa.Schema:
    return schema.remove_metadata()


def _fitted(table: pa.Table, job: str, schema: pa.Schema) -> pa.Table:
    """A job's table with all columns of the schema, empty where it lacks one."""
    known = dict(zip(table.column_names, table.columns, strict=True)) | {"job": pa.repeat(job, table.num_rows)}
    columns = []
    for own in schema:
        column = known.get(own.name)
        if column is None:
            column = pa.nulls(table.num_rows, own.type)
        columns.append(column if column.type == own.type else column.cast(own.type))
    return pa.table(columns, schema=schema)


def _job_table(jobs: Sequence[Job]) -> pd.DataFrame:
    """A row per job, with the keys of the configs that differ among them."""
    flat = [_flatten(job.config) for job in jobs]
    differs = _differing(flat)
    rows = [
        {**_job_row(job), **{key: config.get(key) for key in differs}} for job, config in zip(jobs, flat, strict=True)
    ]
    return pd.DataFrame(rows)


def _job_row(job: Job) -> dict[str, Any]:
    device, error = job.summary.get("device", {}), job.status.error or {}
    return {
        "job": job.name,
        "state": job.state,
        "task": job.config.get("task", {}).get("name"),
        "subject": job.config.get("subject", {}).get("name"),
        "condition": job.summary.get("condition"),
        "started": job.status.started,
        "finished": job.status.finished,
        "seconds": job.summary.get("seconds", {}).get("total"),
        "device": device.get("name"),
        "visible": device.get("visible"),
        "host": device.get("host"),
        "process": device.get("process"),
        "error": f"{error.get('type')}: {error.get('message')}" if error else None,
        "job_hash": job.status.job_hash,
    }


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A config as one level of dotted keys with values as text."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value)
    return flat


def _differing(flat: Sequence[Mapping[str, str]]) -> list[str]:
    keys = dict.fromkeys(key for config in flat for key in config)
    return [key for key in keys if len({config.get(key) for config in flat}) > 1]


def _units(jobs: Sequence[Job]) -> tuple[pd.DataFrame, list[str]]:
    """Every unit of every condition once, with a note for those whose numbers could not be worked out."""
    having = [job for job in jobs if "units" in job.tables]
    if not having:
        return pd.DataFrame(), []
    rows = _own_units(having)
    notes: list[str] = []
    parts = []
    known = {job.name: job for job in jobs}
    read: tuple[frozenset[str], dict[Unit, dict[int, Ended]]] = (frozenset(), {})
    for _, found in rows.groupby(["condition", *UNIT], sort=True, dropna=False):
        if len(found) == 1:
            parts.append(found)
            continue
        names = frozenset(found["job"])
        together = [known[name] for name in found["job"]]
        if names != read[0]:  # units of the same jobs stand together: their records are read once
            read = names, _ended(together)
        unit = Unit.of_row(found.iloc[0].to_dict())
        try:
            parts.append(_pooled(str(found.iloc[0]["condition"]), unit, together, read[1][unit]))
        except InputError as error:
            notes.append(f"{unit}: the restarts of {len(together)} jobs were not put together ({error})")
    if not parts:
        return pd.DataFrame(), notes
    units = pd.concat(parts, ignore_index=True).drop(columns="job")
    units = _with(units, _shares(units))
    groups = [_judged(pd.DataFrame(group), jobs) for _, group in units.groupby("condition", sort=True)]
    return pd.concat(groups, ignore_index=True), notes


def _judged(units: pd.DataFrame, jobs: Sequence[Job]) -> pd.DataFrame:
    """The units of one condition with their verdicts, each against all the others, whichever job they were in."""
    if len(units) < 2:
        return units
    rows = units.to_dict("records")
    found = [Unit.of_row(row) for row in rows]
    same = [job for job in jobs if job.summary.get("condition") == rows[0]["condition"]]
    settings = NullSettings(**same[0].config["nulls"])
    own = Own(OwnStatus.TOO_MANY_UNITS, units=len(found))
    if len(found) <= MOST_UNITS:
        ended = _ended(same)
        own = _own([ended[unit] for unit in found], settings)
    tokens, embeddings = ([_null(row, name, settings) for row in rows] for name in PRIMARY.values())
    decided = decide(tokens, embeddings, own)
    changed = pd.DataFrame([decision.flat() for decision in decided], index=units.index)
    return _with(units, changed.to_dict("series"))


def _own(ended: Sequence[Mapping[int, Ended]], settings: NullSettings) -> Own:
    """The units set against each other over the seeds that all of them have."""
    seeds = sorted(set.intersection(*(set(one) for one in ended)))
    if len(seeds) < 2:
        return Own(OwnStatus.NO_SHARED_SEEDS, units=len(ended), seeds=len(seeds))
    ids = torch.stack([torch.stack([one[seed].ids for seed in seeds]) for one in ended])
    moves = torch.stack([torch.stack([one[seed].final - one[seed].initial for seed in seeds]) for one in ended])
    return own_agreement(ids, moves, seed=settings.seed)


def _null(row: Mapping[Any, Any], name: str, settings: NullSettings) -> Null:
    """A statistic beside its null, from a unit's row."""
    mean, low, high, p = (row[f"null_{name}_{part}"] for part in ("mean", "low", "high", "p"))
    return Null(row[name], mean, low, high, p, settings.displacements, "greater")


def _own_units(jobs: Sequence[Job]) -> pd.DataFrame:
    """The rows of all jobs, a unit of several jobs several times."""
    schema = _common_schema("units", jobs)
    whole = pa.concat_tables([_fitted(job.read("units"), job.name, schema) for job in jobs])
    table: Any = with_layers(whole.to_pandas())
    named = {name: table["job"].map({job.name: job.summary[name] for job in jobs}) for name in ("condition", "prior")}
    return _with(table, {"job": table["job"], **named, "jobs": 1.0}, first=True).copy()  # in one piece


def _with(table: pd.DataFrame, columns: Mapping[str, Any], *, first: bool = False) -> pd.DataFrame:
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


def _pooled(condition: str, unit: Unit, jobs: Sequence[Job], ended: Mapping[int, Ended]) -> pd.DataFrame:
    """One unit whose restarts lie in several jobs, measured as if one job had run them; a seed counts once."""
    config = jobs[0].config
    subject = shared(**config["subject"])
    restarts = _restarts(ended)
    nearest, settings = NearestTokens(subject.embedding_matrix), NullSettings(**config["nulls"])
    total = restarts.final.shape[:2].numel()
    pool = results.null_pool(subject, nearest, settings, total, cache_folder() / "nulls")
    ends = None
    if config["task"]["name"] == "search":
        searched = SearchSettings(**config["search"])
        (ends,) = search_tables.random_ends(subject, settings, searched, config["tokens"])([restarts])
    measured = measure(restarts, nearest, pool, settings=settings, name=subject.token, ends=ends)
    (decision,) = judge([measured], Own(OwnStatus.ONE_UNIT, seeds=measured.restarts))
    objective, gap_settings = Objective(**config["objective"]), GapSettings(**config["gap"])
    gaps = gap.measure(subject, objective, {unit: restarts}, nearest, settings=gap_settings)
    found = results.unit_row(unit, measured, decision, gaps[unit])
    named = {"job": None, "condition": condition, "prior": jobs[0].summary["prior"]}
    row = {**named, **found, "jobs": float(len(jobs))}
    return with_layers(pd.DataFrame([row]))


def _restarts(ended: Mapping[int, Ended]) -> Restarts:
    """A unit's restarts, ordered by seed."""
    rows = [ended[seed] for seed in sorted(ended)]
    before, after = (torch.tensor([getattr(row, name) for row in rows], dtype=torch.float64) for name in ENDS)
    frozen = torch.tensor([row.frozen for row in rows])
    initial, final = torch.stack([row.initial for row in rows]), torch.stack([row.final for row in rows])
    return Restarts(initial, final, before, after, frozen)


def _ended(jobs: Sequence[Job]) -> dict[Unit, dict[int, Ended]]:
    """Each unit's restarts by seed, every record read once; a seed that several jobs ran counts once."""
    found: dict[Unit, dict[int, Ended]] = {}
    for job in jobs:
        restarts = job.record.table("restarts")
        saved, tokens = _embeddings(job), job.record.table("tokens")["token_id"].to_numpy()
        ids = torch.from_numpy(tokens.reshape(len(restarts), -1).copy())
        for number, row in enumerate(restarts.to_dict("records")):
            ends = float(row["activation_initial"]), float(row["activation_final"]), bool(row["frozen"])
            ended = Ended(saved["initial"][number], saved["final"][number], ids[number], *ends)
            found.setdefault(Unit.of_row(row), {}).setdefault(int(row["seed"]), ended)
    return found


def _aggregate(units: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Means over units, and in how many the retention and the repeats differ from their null."""
    if not len(units):
        return units
    numbers = ["activation_initial_mean", "activation_final_mean", *GAPS, *HEADLINE, *HEADLINE.values()]
    groups = units.groupby(by, sort=True, dropna=False)
    counts = groups.agg(units=("index", "size"), restarts=("restarts", "sum"))
    means = pd.DataFrame(groups[numbers].mean())
    for name in ("unique", "retention"):
        means[f"{name}_differs"] = groups[f"null_{name}_p"].agg(lambda p: int((p <= 0.05).sum()))
    for verdict in VERDICTS:
        means[verdict.value] = groups["convergence"].agg(lambda found, verdict=verdict: int((found == verdict).sum()))
    return pd.concat([pd.DataFrame(counts), means], axis=1).reset_index()


def _summary(
    folder: Path,
    jobs: pd.DataFrame,
    units: pd.DataFrame,
    layers: pd.DataFrame,
    left_out: Sequence[tuple[str, str]],
    notes: Sequence[str],
) -> dict[str, Any]:
    states = jobs["state"].tolist() if len(jobs) else []
    unfinished = pd.DataFrame(jobs[jobs["state"] != "complete"]) if len(jobs) else jobs
    overall = _aggregate(units, ["condition", "prior"])
    keep = [
        *UNIT,
        "condition",
        "prior",
        "restarts",
        "activation_final_mean",
        *GAPS,
        "gap",
        *HEADLINE,
        *HEADLINE.values(),
        "convergence",
    ]
    return {
        "sweep": folder.resolve().name,
        "collected": now(),
        "jobs": {"total": len(jobs), **{state: states.count(state) for state in STATES}},
        "not_complete": _rows(unfinished, ["job", "state", "error"]),
        "left_out": [{"record": name, "reason": reason} for name, reason in left_out],
        "notes": list(notes),
        "overall": _rows(overall, list(overall.columns)),
        "layers": _rows(layers, list(layers.columns)),
        "units": _rows(units, keep),
    }


def _rows(table: pd.DataFrame, columns: list[str]) -> list[dict[str, Any]]:
    if not len(table):
        return []
    return json.loads(str(pd.DataFrame(table[columns]).to_json(orient="records")))
