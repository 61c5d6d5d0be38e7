"""All records under a folder put together: tables of each kind, what each task says of its jobs, `sweep.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from actmax.errors import InputError, renamed
from actmax.records.collect import STATES, Job, concatenate, job_table, read_jobs, rows_of
from actmax.records.store import Record, Summary, now
from actmax.settings import check_types
from actmax.tasks import registry
from actmax.tasks.schema import schema
from actmax.tasks.task import Gathered, Task
from actmax.weights import fetching_nothing


@dataclass(frozen=True)
class Collected:
    """The jobs under a folder, and what they say together."""

    folder: Path
    """The folder that was collected; its tables and `sweep.json` lie there."""
    jobs: pd.DataFrame
    """A row per job: its state, task, subject, times, and every key of the config that differs among the jobs."""
    left_out: tuple[tuple[str, str], ...]
    """Records that could not be read, with the reason."""
    gathered: Mapping[Task, Gathered]
    """What the jobs of each task say together."""
    summary: Mapping[str, Any]
    """The content of `sweep.json`."""
    written: frozenset[str]
    """The tables that lie in the folder now."""

    def table(self, name: str) -> pd.DataFrame:
        """A table that a task made of its jobs; empty where there is none."""
        return next((one.table(name) for one in self.gathered.values() if name in one.tables), pd.DataFrame())

    @property
    def notes(self) -> tuple[str, ...]:
        """What could not be worked out, and why."""
        return tuple(note for one in self.gathered.values() for note in one.notes)


def collect(folder: Path) -> Collected:
    """Reads every record under a folder and writes its tables and `sweep.json` there.

    Raises:
        InputError: there is no record, or the folder has files of the same names that actmax did not write.
    """
    jobs, left_out = read_jobs(folder, _verify)
    if not jobs and not left_out:
        raise InputError("DIR", folder, "must hold records: folders with a status.json", "Name a sweep's folder.")
    with fetching_nothing():
        gathered, refused = _gathered([job for job in jobs if job.state == "complete"])
    jobs, left_out = [job for job in jobs if job.name not in refused], [*left_out, *refused.items()]
    complete = [job for job in jobs if job.state == "complete"]
    target, table = Record(folder), job_table(jobs)
    names = {"jobs", *(name for job in complete for name in job.tables), *_made(gathered)}
    with renamed({"folder": "DIR"}):
        target.refuse_other_tables(sorted(names))
    if not target.path("sweep.json").exists():  # from now on the folder's tables are ours
        target.write_json("sweep.json", {"sweep": folder.resolve().name, "collected": now()})
    _concatenate(target, complete, gathered)
    target.write_table("jobs", table)
    for one in gathered.values():
        for name, made in one.tables.items():
            others = _not_replaced(name, complete, gathered)
            rest = [job.read(name).to_pandas().assign(job=job.name) for job in others]
            target.write_table(name, pd.concat([made, *rest], ignore_index=True) if rest else made)
    summary = _summary(folder, table, left_out, gathered)
    if "methods" in summary:
        target.write_json("summary.json", {key: summary[key] for key in ("sweep", "collected", "methods")})
    target.write_json("sweep.json", summary)
    return Collected(folder, table, tuple(left_out), gathered, summary, frozenset(names))


def _task(job: Job) -> Task | None:
    """The task of a job; None where this process does not know it."""
    try:
        return registry.task_in(job.config)
    except InputError:
        return None


def _verify(job: Job) -> None:
    """Refuses a complete record with settings of wrong kinds, or with files that do not belong together.

    Raises:
        InputError: names the key.
        ValueError: the task's own reason.
    """
    task = _task(job)
    if task is not None:
        check_types(job.config, schema())
        task.verify(job)


def _gathered(jobs: Sequence[Job]) -> tuple[dict[Task, Gathered], dict[str, str]]:
    """What the jobs of each task say together, and the jobs with which nothing can be made, with the reason."""
    found, refused = {}, {}
    for task, some in _by_task(jobs).items():
        try:
            found[task] = task.gather(some)
        except Exception:  # a file that somebody changed can raise anything: whose it is shows when it is read alone
            alone = {job.name: reason for job in some if (reason := _reason(task, [job]))}
            rest = [job for job in some if job.name not in alone]
            if rest and (reason := _reason(task, rest)):
                raise
            refused |= alone
            found |= {task: task.gather(rest)} if rest else {}
    return found, refused


def _reason(task: Task, jobs: Sequence[Job]) -> str:
    """Why nothing can be made of some jobs; empty where something can."""
    try:
        task.gather(jobs)
    except Exception as error:  # as above
        return f"damaged ({type(error).__name__}: {str(error).partition(chr(10))[0]})"
    return ""


def _by_task(jobs: Sequence[Job]) -> dict[Task, list[Job]]:
    """Jobs that are gathered together, by the first task among them."""
    names: dict[str, Task] = {}
    by_task: dict[Task, list[Job]] = {}
    for job in jobs:
        if (task := _task(job)) is not None:
            by_task.setdefault(names.setdefault(task.gathered_with, task), []).append(job)
    return by_task


def _concatenate(target: Record, jobs: Sequence[Job], gathered: Mapping[Task, Gathered]) -> None:
    """Writes each kind of table of all jobs, but for the jobs whose task makes a table of that name of them."""
    for name in dict.fromkeys(name for job in jobs for name in job.tables):
        if not any(name in one.tables for one in gathered.values()):
            concatenate(target, name, _not_replaced(name, jobs, gathered))


def _made(gathered: Mapping[Task, Gathered]) -> set[str]:
    return {name for one in gathered.values() for name in one.tables}


def _not_replaced(name: str, jobs: Sequence[Job], gathered: Mapping[Task, Gathered]) -> list[Job]:
    """The jobs with a table of that name whose own task makes none of that name of its jobs."""
    replacing = {task.gathered_with for task, one in gathered.items() if name in one.replaces}
    tasks = ((job, _task(job)) for job in jobs if name in job.tables)
    return [job for job, task in tasks if task is None or task.gathered_with not in replacing]


def _summary(
    folder: Path, jobs: pd.DataFrame, left_out: Sequence[tuple[str, str]], gathered: Mapping[Task, Gathered]
) -> Summary:
    states = jobs["state"].tolist() if len(jobs) else []
    unfinished = pd.DataFrame(jobs[jobs["state"] != "complete"]) if len(jobs) else jobs
    return {
        "sweep": folder.resolve().name,
        "collected": now(),
        "jobs": {"total": len(jobs), **{state: states.count(state) for state in STATES}},
        "not_complete": rows_of(unfinished, ["job", "state", "error"]),
        "left_out": [{"record": name, "reason": reason} for name, reason in left_out],
        "notes": [note for one in gathered.values() for note in one.notes],
        **{key: value for one in gathered.values() for key, value in one.summary.items()},
    }
