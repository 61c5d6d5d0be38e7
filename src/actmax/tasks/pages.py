"""Pages of jobs: the task that a record names says what is shown of it."""

from __future__ import annotations

import logging
from pathlib import Path

from actmax.records.store import Record
from actmax.report import pages
from actmax.report.blocks import Page
from actmax.report.source import Source
from actmax.tasks import registry
from actmax.tasks.commands import Next

log = logging.getLogger(__name__)


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


def after(record: Record) -> Next | None:
    """The command that a user would want behind a job; None where no command line has its task or its subject."""
    source = Source(record, brief=True, draw=False)
    name = str(source.part("task").get("name"))
    if name not in registry.names() or source.part("subject").get("source") == "memory":
        return None
    try:
        return registry.task_of(name).after(source)
    except Exception:  # whatever is wrong with a record, its page says so
        log.debug("no command for %s could be made", record.folder, exc_info=True)
        return None


def first_screen(record: Record) -> Page:
    """What a terminal shows of a job."""
    return pages.page_of(Source(record, brief=True, draw=False), describe)
