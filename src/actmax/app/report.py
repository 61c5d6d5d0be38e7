"""What jobs and sweeps found: on the terminal, as pages, and by the command `actmax-report`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.markup import escape

from actmax.app.streams import steady
from actmax.errors import InputError, printable
from actmax.records.store import Record
from actmax.report import terminal
from actmax.report.blocks import Missing, Page
from actmax.report.pages import NAME
from actmax.report.source import Source
from actmax.tasks.collect import Collected, collect
from actmax.tasks.commands import Next
from actmax.tasks.pages import after, first_screen, write_job
from actmax.tasks.sweep_page import after_sweep, sweep_page, write_sweep


def show(record: Record, console: Console | None = None) -> None:
    """Prints a job's result, where the record and its page lie, and a command that one would want next."""
    _print(first_screen(record), {"Record": record.folder}, record, after(record), console)


def show_sweep(found: Collected, console: Console | None = None) -> None:
    """Prints what a folder of records says together, where its tables and its page lie, and a command for next."""
    record = Record(found.folder)
    page = sweep_page(Source(record, job=False, brief=True, draw=False), found)
    _print(page, {"Tables and sweep.json": record.folder}, record, after_sweep(found), console)


def _print(page: Page, places: dict[str, Path], record: Record, ahead: Next | None, console: Console | None) -> None:
    console = console or terminal.open_console()
    terminal.show(page, console)
    if record.path(NAME).exists():
        places["Page"] = record.path(NAME)
    for name, place in places.items():
        console.print(f"{name}: {escape(printable(str(place)))}", highlight=False, soft_wrap=True)
    if ahead is not None and ahead.command == printable(ahead.command):  # as an escape it would be another command
        console.print(f"Next, {ahead.why}: {escape(ahead.command)}", highlight=False, soft_wrap=True)


def show_failures(failures: Sequence[tuple[Path, str, str, str]], console: Console | None = None) -> None:
    """Prints the jobs of a sweep that are not complete: folder, state, error, and the command that runs one alone."""
    console = console or terminal.open_console()
    for folder, state, message, command in failures:
        text = f"[bold red]{state}[/bold red] {escape(printable(folder.name))}: {escape(printable(message))}"
        console.print(text, highlight=False, soft_wrap=True)  # whole lines, so that a search in a log finds them
        console.print(f"    record and log: {escape(printable(str(folder)))}", highlight=False, soft_wrap=True)
        console.print(f"    alone: {escape(printable(command))}", highlight=False, soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script `actmax-report`: collects what lies under a folder, shows it, writes `report.html` there."""
    parser = argparse.ArgumentParser(prog="actmax-report", description=main.__doc__)
    parser.add_argument("folder", metavar="DIR", type=Path, help="of a job, a sweep, or several; it may still run")
    parser.add_argument("--jobs", type=int, metavar="N", help="a page for each job too, up to N jobs of a sweep")
    parsed = parser.parse_args(arguments)
    with steady():
        _report(parsed.folder, parsed.jobs)


def _report(folder: Path, jobs: int | None) -> None:
    try:
        if _is_job(folder):
            _report_job(Record(folder))
        else:
            found = collect(folder)
            write_sweep(found, **({} if jobs is None else {"jobs": jobs}))
            show_sweep(found)
    except KeyboardInterrupt:
        print("actmax-report: stopped", file=sys.stderr)  # noqa: T201
        sys.exit(130)
    except InputError as error:
        _refuse(error)
    except OSError as error:
        allowed = f"pages and tables cannot be written there ({error.strerror}: {error.filename})"
        _refuse(InputError("DIR", folder, allowed, "Copy the folder to where you may write, and name the copy."))


def _refuse(error: InputError) -> NoReturn:
    print(f"actmax-report: {printable(str(error))}", file=sys.stderr)  # noqa: T201
    sys.exit(2)


def _is_job(folder: Path) -> bool:
    """Whether a folder is a job's own; of a damaged record something may be missing, but it has no jobs under it."""
    return Record(folder).known and not (folder / "multirun.yaml").exists()


def _report_job(record: Record) -> None:
    """Writes the page first: it says what is missing where the rest cannot be shown.

    Raises:
        InputError: the record is damaged, or of another version.
    """
    page = write_job(record)
    status = record.status()
    if status is None or status.state != "complete":
        state = "without a status" if status is None else status.state
        text = f"This job is {state}. Page: {escape(printable(str(page)))}"
        terminal.open_console().print(text, highlight=False, soft_wrap=True)
        return
    if problems := _problems(first_screen(record)):
        allowed = f"its record is damaged or incomplete ({problems[0]})"
        raise InputError("DIR", record.folder, allowed, f"{page} says what is missing.")
    show(record)


def _problems(page: Page) -> list[str]:
    """What of the first screen cannot be shown."""
    return [*page.problems, *(block.why for block in page.first if isinstance(block, Missing))]
