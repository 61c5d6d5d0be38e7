"""One HTML page for every job and every sweep, made from records alone.

`write_job`, and `write_sweep` of `page.sweep`, are all that the rest needs: they draw figures into `figures/`, write
small tables as CSV beside their Parquet, and leave `report.html`, which needs no network and no other file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from actmax.records.store import Record
from actmax.report.blocks import Block, Code, Missing, Page, Prose, Shown, table, visible
from actmax.report.html import render
from actmax.report.source import Source
from actmax.tasks.statistics_page import simulation_page, tuning_page
from actmax.tasks.units_page import examples_page, maximization_page, question

__all__ = ["NAME", "draw", "encodable", "visible", "write_job"]

NAME = "report.html"
"""Of the page, in a record or a sweep's folder."""
TASKS: dict[str, Callable[[Source], Page]] = {
    "maximization": maximization_page,
    "search": maximization_page,
    "simulation": simulation_page,
    "tuning": tuning_page,
    "examples": examples_page,
}


def write_job(record: Record) -> Path:
    """Writes a job's page, whatever there is of its record; what is missing is named in it."""
    source = Source(record)
    source.write_csv()
    return record.write_text(NAME, encodable(render(_job_page(source))))


def draw(record: Record) -> list[Path]:
    """Draws a job's figures, and gives the PNG files."""
    source = Source(record)
    _job_page(source)
    return source.drawn


def encodable(text: str) -> str:
    """A text that UTF-8 can hold: half of a surrogate pair as an escape."""
    return text.encode("utf-8", "backslashreplace").decode()


def _job_page(source: Source) -> Page:
    task = source.part("task").get("name")
    page = _refused(source) if source.refused else TASKS.get(str(task), _unknown)(source)
    state = source.status.state if source.status is not None else "status unreadable"
    if not page.verdict:
        page = replace(page, verdict=_no_verdict(state))
    sections = (*page.sections, *_error(source), *_made(source))
    name = source.record.folder.resolve().name
    facts = f"actmax · {task or 'a job'} · {name}"
    problems = tuple(dict.fromkeys(source.problems))
    return replace(page, title=f"{name} · actmax", state=state, facts=facts, sections=sections, problems=problems)


def _unknown(_: Source) -> Page:
    """Of a record that does not say which task it is of."""
    return Page("", "What was this job?", "", ())


def _refused(source: Source) -> Page:
    """Of a record whose tables may mean something else."""
    return Page(
        "", question(source), "Its status is damaged or of another version of actmax, so its tables are left alone."
    )


def _no_verdict(state: str) -> str:
    """What can be said where there is no result."""
    said = {
        "running": "The job has not ended, or its process died without a word: there is no result yet.",
        "failed": "The job failed, so there is no result. What it said is below.",
        "interrupted": "The job was stopped by hand. What it had until then is below.",
        "complete": "The job is complete, but what it found cannot be read.",
    }
    return said.get(state, "There is no result that can be read.")


def _error(source: Source) -> Sequence:
    section = source.section("What went wrong", lambda: _trouble(source))
    return () if section is None else (section,)


def _trouble(source: Source) -> list[Block]:
    error = source.status.error if source.status is not None else None
    if not error:
        return []
    said = Prose(f"{error.get('type')}: {error.get('message')}", "Error")
    return [said, *([Code("Traceback", error["traceback"])] if error.get("traceback") else [])]


def _made(source: Source) -> Sequence:
    section = source.section(
        "How this was made", lambda: _command(source), lambda: _setting(source), lambda: _config(source)
    )
    return () if section is None else (section,)


def _command(source: Source) -> Block:
    command = source.command
    if command:
        return Code("Run it again", command, folded=False)
    return Missing("The command", "Hydra's .hydra/overrides.yaml is not in the folder; the config below is whole.")


def _setting(source: Source) -> list[Block]:
    """Times, device and versions."""
    import pandas as pd

    status, said, blocks = source.status, source.summary, []
    if status is not None:
        ended = f"ended {status.finished}" if status.finished else "not ended"
        blocks.append(Prose(f"Started {status.started}, {ended}. Job {status.job_hash[:16]}.", "When"))
    device = said.get("device") or {}
    if device:
        parts = ", ".join(f"{key} {value}" for key, value in device.items() if value is not None)
        blocks.append(Prose(parts, "Where"))
    for key, title, shown in (("seconds", "Seconds", ".1f"), ("versions", "Versions", "s")):
        if isinstance(said.get(key), dict):
            frame = pd.DataFrame({"what": list(said[key]), key: list(said[key].values())})
            blocks.append(
                table(frame, [Shown("what", form="s"), Shown(key, form=shown)], title=title, source="summary.json")
            )
    return blocks


def _config(source: Source) -> Block:
    if not source.config_text:
        return Missing("The config", "config.yaml is not in the record.")
    return Code("config.yaml, resolved", source.config_text)
