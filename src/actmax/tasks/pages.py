"""Pages of jobs: the task that a record names says what is shown of it."""

from __future__ import annotations

from pathlib import Path

from actmax.records.store import Record
from actmax.report import pages
from actmax.report.blocks import Page
from actmax.report.source import Source
from actmax.tasks import registry


def describe(source: Source) -> Page:
    """What is shown of a job, by its task."""
    name = str(source.part("task").get("name"))
    return registry.task_of(name).page(source) if name in registry.names() else pages.plain_page(source)


def write_job(record: Record) -> Path:
    """Writes a job's page, whatever there is of its record; what is missing is named in it."""
    return pages.write_page(record, describe)


def draw_figures(record: Record) -> list[Path]:
    """Draws a job's figures, and gives the PNG files."""
    return pages.draw_figures(record, describe)


def first_screen(record: Record) -> Page:
    """What a terminal shows of a job."""
    return pages.page_of(Source(record, brief=True, draw=False), describe)
