"""The page around what a task shows of a job: how the job stands, what went wrong, how it was made.

A page is made from a record or a result in memory (`Source`), and from what the job's task shows of it: a function
from a source to a page. `write_page` leaves `report.html` in a record, its figures in `figures/`, and its small tables
as CSV beside their Parquet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from actmax.records.store import Record
from actmax.report.blocks import Block, Code, Missing, Page, Prose, Shown, Table, table
from actmax.report.html import encodable, render
from actmax.report.source import Source

NAME = "report.html"
"""The page's file in a record or in the folder of a sweep."""
COLUMNS_SHOWN = 12
"""Most columns of a table that no task describes."""

Describe = Callable[[Source], Page]
"""What a task shows of its jobs."""


def write_page(record: Record, describe: Describe) -> Path:
    """Writes a job's page, whatever there is of its record; what is missing is named in it.

    Args:
        record: the job's record.
        describe: what its task shows.
    """
    source = Source(record)
    source.write_csv()
    return write(record, page_of(source, describe))


def write(record: Record, page: Page) -> Path:
    """Writes a page into a folder."""
    return record.write_text(NAME, encodable(render(page)))


def draw_figures(record: Record, describe: Describe) -> list[Path]:
    """Draws a job's figures, and gives the PNG files."""
    source = Source(record)
    describe(source)
    return source.drawn


def page_of(source: Source, describe: Describe) -> Page:
    """A whole page: what the task shows, how the job stands, what is missing, how it was made.

    Args:
        source: the record or the result.
        describe: what the task shows.
    """
    page = _refused() if source.refused else describe(source)
    unknown = "complete" if source.record is None else "status unreadable"
    state = unknown if source.status is None else source.status.state
    task, name = source.part("task").get("name") or "a job", source.name
    made = (
        source.section("What went wrong", lambda: _trouble(source)),
        source.section(
            "How this was made", lambda: _command(source), lambda: _setting(source), lambda: _config(source)
        ),
    )
    return replace(
        page,
        verdict=page.verdict or _no_verdict(state),
        title=f"{name or task} · actmax",
        state=state,
        facts=" · ".join(part for part in ("actmax", str(task), name) if part),
        sections=(*page.sections, *(section for section in made if section is not None)),
        problems=tuple(dict.fromkeys(source.problems)),
    )


def plain_page(source: Source) -> Page:
    """What is shown of a job whose task describes nothing: its tables as they are."""
    names = source.names
    tables = [block for name in names for block in source.blocks(name, lambda name=name: _plain_table(source, name))]
    verdict = "Its tables are below." if names else ""
    return Page(f"What did {source.part('task').get('name') or 'this job'} find?", verdict, first=tuple(tables))


def _plain_table(source: Source, name: str) -> Table:
    frame = source.table(name)
    shown = [Shown(str(column), form=_form(kind)) for column, kind in frame.dtypes.items()][:COLUMNS_SHOWN]
    left_out = len(frame.columns) - len(shown)
    caption = f"{left_out} more columns are in the file." if left_out else ""
    return table(frame, shown, title=name, source=f"{name}.parquet", caption=caption)


def _form(kind: Any) -> str:
    if not pd.api.types.is_numeric_dtype(kind):
        return "s"
    return ".4g" if pd.api.types.is_float_dtype(kind) else ""


def _refused() -> Page:
    """The page of a record whose tables may mean something else."""
    verdict = "Its status is damaged or of another version of actmax, so its tables are left alone."
    return Page("What was this job?", verdict)


def _no_verdict(state: str) -> str:
    """What can be said where there is no result."""
    sentences = {
        "running": "The job has not ended, or its process died without a word: there is no result yet.",
        "failed": "The job failed, so there is no result. What it said is below.",
        "interrupted": "The job was stopped by hand. What it had until then is below.",
        "complete": "The job is complete, but what it found cannot be read.",
    }
    return sentences.get(state, "There is no result that can be read.")


def _trouble(source: Source) -> list[Block]:
    """The error that ended the job."""
    error = source.status.error if source.status is not None else None
    if not error:
        return []
    message = Prose(f"{error.get('type')}: {error.get('message')}", "Error")
    return [message, *([Code("Traceback", error["traceback"])] if error.get("traceback") else [])]


def _command(source: Source) -> Block | None:
    if source.record is None:
        return None
    if command := source.command:
        return Code("Run it again", command, folded=False)
    return Missing("The command", "Hydra's .hydra/overrides.yaml is not in the folder; the config below is whole.")


def _setting(source: Source) -> list[Block]:
    """Times, device and versions."""
    status, summary, blocks = source.status, source.summary, []
    if status is not None:
        ended = f"ended {status.finished}" if status.finished else "not ended"
        blocks.append(Prose(f"Started {status.started}, {ended}. Job {status.job_hash[:16]}.", "When"))
    device = summary.get("device") or {}
    if device:
        parts = ", ".join(f"{key} {value}" for key, value in device.items() if value is not None)
        blocks.append(Prose(parts, "Where"))
    for key, title, form in (("seconds", "Seconds", ".1f"), ("versions", "Versions", "s")):
        found = summary.get(key)
        if isinstance(found, Mapping):
            frame = pd.DataFrame({"what": list(found), key: list(found.values())})
            blocks.append(
                table(frame, [Shown("what", form="s"), Shown(key, form=form)], title=title, source="summary.json")
            )
    return blocks


def _config(source: Source) -> Block | None:
    if source.config_text:
        return Code("config.yaml, resolved", source.config_text)
    return Missing("The config", "config.yaml is not in the record.") if source.record is not None else None
