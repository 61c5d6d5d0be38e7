"""What is shown of a sweep: what its jobs show together, their states, how it was made."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from actmax.evidence.findings import is_missing
from actmax.progress import track
from actmax.records.store import Record, from_yaml
from actmax.report import pages
from actmax.report.blocks import (
    ROWS,
    Block,
    Cell,
    Code,
    Column,
    Missing,
    Number,
    Page,
    Prose,
    Row,
    Table,
)
from actmax.report.source import Source, present
from actmax.tasks.collect import Collected
from actmax.tasks.commands import Next, place
from actmax.tasks.pages import write_job

JOBS = 24
"""Most jobs of a sweep that get a page each when it is collected: a page takes a second or two."""
COLUMNS = (
    "job",
    "state",
    "seconds",
    "task",
    "subject",
    "condition",
    "started",
    "finished",
    "device",
    "visible",
    "host",
)
"""Columns of `jobs.parquet` before the keys that differ among the jobs."""
HIDDEN = (*COLUMNS, "process", "error", "job_hash")
"""Columns of `jobs.parquet` that are no keys of the config."""
REPORT = "actmax-report"
"""The command that collects a folder, or shows a job."""
SWEEP_KEYS = ("overrides", "sweeper", "launcher")
"""Parts of Hydra's own part of multirun.yaml that a reader may want."""


def write_sweep(found: Collected, *, jobs: int = JOBS) -> Path:
    """Writes a sweep's page, and those of its jobs where there are few.

    Args:
        found: what was collected.
        jobs: number of jobs above which none gets its own page; one that is newer than its job's status is kept.
    """
    names = [] if len(found.jobs) > jobs else _job_names(found)
    for name in track(names, "pages", unit="job"):
        record = Record(found.folder / name)
        if not _has_new_page(record):
            write_job(record)
    source = Source(Record(found.folder), job=False)
    source.write_csv(found.written)
    page = sweep_page(source, found)
    return pages.write(Record(found.folder), replace(page, problems=tuple(source.problems)))


def _job_names(found: Collected) -> list[str]:
    return [str(name) for name in found.jobs["job"]] if len(found.jobs) else []


def _has_new_page(record: Record) -> bool:
    """Whether there is a page that is newer than the job's status and summary."""
    page = record.path(pages.NAME)
    files = [record.path(name) for name in ("status.json", "summary.json")]
    return page.exists() and all(page.stat().st_mtime >= file.stat().st_mtime for file in files if file.exists())


def sweep_page(source: Source, found: Collected) -> Page:
    """What is shown of all jobs under a folder.

    Args:
        source: the sweep's folder.
        found: what was collected there.
    """
    counts, name = found.summary["jobs"], str(found.summary["sweep"])
    parts = [one.page(source) for one in found.gathered.values() if one.page is not None]
    left_out = source.blocks("Records that could not be read", lambda: _left_out(found))
    states = ", ".join(f"{number} {state}" for state, number in counts.items() if number and state != "total")
    complete = Number(
        "Jobs complete", f"{counts.get('complete', 0)} of {counts['total']}", states or "none could be read"
    )
    sections = [
        *(section for part in parts for section in part.sections),
        source.section("Jobs", lambda: _not_complete(found), lambda: left_out, lambda: _jobs(source, found)),
        source.section("How this was made", lambda: _command(source)),
    ]
    whole = counts["total"] and counts["complete"] == counts["total"] and not found.left_out
    return Page(
        question=f"What do the {counts['total']} jobs of {name} say together?",
        verdict=" ".join(part.verdict for part in parts if part.verdict) or _answer(found),
        numbers=(complete, *(number for part in parts for number in part.numbers)),
        first=(
            *(block for part in parts for block in part.first),
            Prose(f"{counts['total']}: {states}", "Jobs"),
            *left_out,
        ),
        sections=present(sections),
        title=f"{name} · actmax",
        state="complete" if whole else "incomplete",
        facts=f"actmax · sweep {name} · collected {found.summary['collected'][:16].replace('T', ' ')} UTC",
    )


def after_sweep(found: Collected) -> Next:
    """The command that a user would want behind a sweep: what is missing, its jobs' pages, or one of its jobs."""
    source, counts, folder = Source(Record(found.folder), job=False), found.summary["jobs"], place(found.folder)
    names = sorted(_job_names(found), key=_natural_order)
    if not names or counts.get("complete", 0) < counts["total"]:
        again = _again(source)
        return Next("the jobs that are missing", again) if again else Next("what is there by then", (REPORT, folder))
    if not all(source.exists(f"{name}/{pages.NAME}") for name in names):
        return Next("a page for each job", (REPORT, folder, "--jobs", str(len(names))))
    return Next("one of the jobs by itself", (REPORT, place(found.folder / names[0])))


def _again(source: Source) -> tuple[str, ...]:
    """The command that made a sweep; empty where the folder was not made by one."""
    try:
        asked = from_yaml(source.text("multirun.yaml"))["hydra"]["overrides"]
        *own, _ = [str(one) for one in asked["hydra"] if not str(one).startswith("hydra.mode=")]  # the last is ours
        return "actmax", "-m", *map(str, asked["task"]), *own
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return ()


def _answer(found: Collected) -> str:
    """What can be said of jobs that have no units."""
    complete = found.summary["jobs"].get("complete", 0)
    if not complete:
        return "No job is complete, so there is nothing to say yet."
    return f"{complete} jobs are complete; each has its own page below."


def _not_complete(found: Collected) -> Block | None:
    rows = found.summary["not_complete"]
    if not rows:
        return None
    cells = tuple(
        (
            Cell(str(row["job"]), wide=True),
            Cell(str(row["state"])),
            Cell(str(row["error"] or "it left no error"), wide=True),
        )
        for row in rows[:ROWS]
    )
    heads = tuple(Column(name, numeric=False) for name in ("job", "state", "error"))
    caption = "The sweep's command again runs these alone."
    return Table("Not complete", heads, cells, caption, len(rows), "jobs.parquet")


def _left_out(found: Collected) -> Block | None:
    if not found.left_out:
        return None
    heads = (Column("record", numeric=False), Column("reason", numeric=False))
    rows = tuple((Cell(name, wide=True), Cell(reason, wide=True)) for name, reason in found.left_out[:ROWS])
    caption = "They are in none of the numbers."
    return Table("Records that could not be read", heads, rows, caption, len(found.left_out), "sweep.json")


def _natural_order(name: str) -> list[str | int]:
    """A key that sorts names by the numbers in them: layer 2 before layer 10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def _jobs(source: Source, found: Collected) -> Block:
    if not len(found.jobs):
        return Missing("The table of jobs", "No record could be read.")
    extra = [name for name in found.jobs.columns if name not in HIDDEN]
    heads = [Column("job", numeric=False), Column("state", numeric=False), Column("seconds")]
    heads += [Column(name, numeric=False) for name in [*extra, "device", "host"]]
    shown = sorted(found.jobs.head(ROWS).to_dict("records"), key=lambda row: _natural_order(str(row["job"])))
    rows = [_job(source, row, extra) for row in shown]
    linked = sum(row[0].link is not None for row in rows)
    caption = "Each job's name leads to its own page." if linked else "No job has a page of its own yet."
    if linked < len(rows):
        caption += f" {len(rows) - linked} have none: actmax-report FOLDER/JOB makes it."
    return Table("All jobs", tuple(heads), tuple(rows), caption, len(found.jobs), "jobs.parquet")


def _job(source: Source, row: Row, extra: Sequence[str]) -> tuple[Cell, ...]:
    name = str(row["job"])
    page = source.exists(f"{name}/{pages.NAME}")
    link = "/".join(quote(part) for part in (*name.split("/"), pages.NAME)) if page else None
    seconds = Cell("–") if is_missing(row["seconds"]) else Cell(f"{row['seconds']:.1f}", float(row["seconds"]))
    rest = [
        Cell("–" if is_missing(row[key]) else str(row[key])[:60], _key(row[key])) for key in (*extra, "device", "host")
    ]
    return Cell(name, link=link), Cell(str(row["state"])), seconds, *rest


def _key(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _command(source: Source) -> list[Block]:
    again = _again(source)
    if not again:
        return [Missing("The command", "multirun.yaml is not here: the folder was not made by one sweep.")]
    content = from_yaml(source.text("multirun.yaml"))
    # the rest of Hydra's own part is its help and its logging
    content["hydra"] = {key: content["hydra"][key] for key in SWEEP_KEYS if key in content["hydra"]}
    return [
        Code("Run it again", shlex.join(again), folded=False),
        Code("multirun.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True)),
    ]
