"""Records under a folder, read and put together: a row per job, and tables of one kind one after the other.

Records alone are read, so it works while a sweep runs, after it failed, and on another machine.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from actmax.errors import InputError
from actmax.records.store import Record, Status, Table, from_yaml

HELD = 2**28
"""Bytes of tables, as they lie on disk, that are held from the check to the writing; what is beyond is read twice."""
ROW_GROUP = 100_000
"""Rows that are written at a time."""
STATES = ("complete", "failed", "interrupted", "running", "died")
"""The states of a job; `died`: its status is `running`, and no process holds its lock."""


@dataclass(frozen=True)
class Job:
    """A record under the folder that is collected."""

    name: str
    """Path of the job's folder below the folder that is collected."""
    record: Record
    """The files that the job left."""
    status: Status
    """The status that the job itself wrote."""
    state: str
    """State of the job; `died` where its status is `running` and no process holds its lock."""
    summary: Mapping[str, Any]
    """The summary of a complete job; else empty."""
    config: Mapping[str, Any]
    """The resolved config; empty where the job left none."""
    held: dict[str, pa.Table] = field(default_factory=dict)
    """Tables that were read already."""

    @cached_property
    def tables(self) -> list[str]:
        """The tables that the record has, in the order in which records list them."""
        files = {file.stem for file in self.record.folder.glob("*.parquet")}
        known = [name for name in get_args(Table) if name in files]
        return [*known, *sorted(files - set(known))]

    def read(self, name: str) -> pa.Table:
        """Reads a whole table, or gives the one that is held."""
        return self.held[name] if name in self.held else self._read(name)

    def check(self, *, hold: bool) -> int:
        """Reads all tables, and returns their bytes on disk; `hold` keeps them for `read`."""
        for name in self.tables:
            table = self._read(name)
            if hold:
                self.held[name] = table
        return sum(self.record.path(f"{name}.parquet").stat().st_size for name in self.tables)

    def _read(self, name: str) -> pa.Table:
        # not pyarrow's dataset, which takes longer to open a small file than to read it
        return pq.ParquetFile(self.record.path(f"{name}.parquet")).read(use_threads=False)


def read_jobs(folder: Path, verify: Callable[[Job], None]) -> tuple[list[Job], list[tuple[str, str]]]:
    """The readable records, and those that are not, with the reason.

    Args:
        folder: where records lie, at any depth.
        verify: raises ValueError where the tables of a complete record do not belong together.
    """
    jobs, left_out, size = [], [], 0
    for place in sorted(_folders(folder)):
        name = str(place.relative_to(folder))
        try:
            job = _job(name, Record(place))
            if job.state == "complete":
                size += job.check(hold=size < HELD)
                verify(job)
            jobs.append(job)
        except InputError as error:
            left_out.append((name, str(error)))
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
    file, done = record.path("config.yaml"), state == "complete"
    config = from_yaml(file.read_text(encoding="utf-8")) if done or file.exists() else {}
    summary = record.summary() if done else {}
    _require_groups("config.yaml", config, ("task", "subject"), some=done)
    _require_groups("summary.json", summary, ("device", "seconds"), some=done)
    if summary.get("job_hash", status.job_hash) != status.job_hash:
        raise ValueError("summary.json is another job's")
    return Job(name, record, status, state, summary, config)


def _require_groups(file: str, content: Any, names: Sequence[str], *, some: bool) -> None:
    """Refuses what is no mapping, is empty where something is needed, or has something else for a group of keys."""
    if not isinstance(content, dict) or (some and not content):
        raise ValueError(f"{file} is empty, or something else than a record's")
    for name in names:
        if not isinstance(content.get(name, {}), dict):
            raise ValueError(f"{file}: {name} must be a group of keys")


def concatenate(target: Record, name: str, jobs: Sequence[Job]) -> None:
    """One table of all jobs, a few jobs at a time, so that memory stays flat."""
    if not jobs:
        return
    schema = common_schema(name, jobs)

    def save(path: Path) -> None:
        with pq.ParquetWriter(path, schema) as writer:
            waiting, rows = [], 0
            for job in jobs:
                waiting.append(fitted(job.read(name), job.name, schema))
                rows += len(waiting[-1])
                if rows >= ROW_GROUP:
                    writer.write_table(pa.concat_tables(waiting))
                    waiting, rows = [], 0
            if waiting:
                writer.write_table(pa.concat_tables(waiting))

    target.write(f"{name}.parquet", save)


def common_schema(name: str, jobs: Sequence[Job]) -> pa.Schema:
    """Every column that a table has in any of the jobs, behind the job's name."""
    schemas = [_schema(job, name).remove_metadata() for job in jobs]
    return pa.unify_schemas(schemas, promote_options="permissive").insert(0, pa.field("job", pa.string()))


def _schema(job: Job, name: str) -> pa.Schema:
    return job.held[name].schema if name in job.held else pq.read_schema(job.record.path(f"{name}.parquet"))


def fitted(table: pa.Table, job: str, schema: pa.Schema) -> pa.Table:
    """A job's table with all columns of the schema, empty where it lacks one."""
    known = dict(zip(table.column_names, table.columns, strict=True)) | {"job": pa.repeat(job, table.num_rows)}
    columns = []
    for own in schema:
        column = known.get(own.name)
        if column is None:
            column = pa.nulls(table.num_rows, own.type)
        columns.append(column if column.type == own.type else column.cast(own.type))
    return pa.table(columns, schema=schema)


def job_table(jobs: Sequence[Job]) -> pd.DataFrame:
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
            flat[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value, default=str)
    return flat


def _differing(flat: Sequence[Mapping[str, str]]) -> list[str]:
    keys = dict.fromkeys(key for config in flat for key in config)
    return [key for key in keys if len({config.get(key) for config in flat}) > 1]


def rows_of(table: pd.DataFrame, columns: list[str]) -> list[dict[str, Any]]:
    """Some columns of a table as JSON holds its rows."""
    if not len(table):
        return []
    return json.loads(str(pd.DataFrame(table[columns]).to_json(orient="records")))
