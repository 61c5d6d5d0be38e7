"""A record as far as it can be read: what is damaged or missing is named, and does not stop the rest."""

from __future__ import annotations

import base64
import logging
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import yaml

from actmax.errors import InputError
from actmax.records.store import Record, Status, Table, from_yaml
from actmax.report.blocks import Block, Figure, Missing, Section

log = logging.getLogger(__name__)

CSV_CELLS = 500_000
"""Of a table that is also written as CSV; larger ones are for programs."""
POINTS_PER_INCH = 72


class Source:
    """Reads a record, and remembers what could not be read.

    Args:
        record: of a job, or the folder of a sweep.
        job: whether it is of a job; a sweep's folder has no status.
    """

    def __init__(self, record: Record, *, job: bool = True) -> None:
        self.record = record
        self.problems: list[str] = []
        self.drawn: list[Path] = []
        self.status: Status | None = None
        self.summary: dict[str, Any] = {}
        self.config_text = ""
        self.config: dict[str, Any] = {}
        if job:
            self._read_job()

    def _read_job(self) -> None:
        self.status = self._read("status.json", self._status)
        self.summary = self._read("summary.json", self._summary) or {}
        self.config_text = self._read("config.yaml", lambda: self._text("config.yaml")) or ""
        self.config = self._read("config.yaml", lambda: self._mapping(self.config_text)) or {}

    def _read(self, name: str, read: Callable[[], Any]) -> Any:
        """What a file says; None where it cannot be read, with the reason among the problems."""
        try:
            return read()
        except FileNotFoundError:
            self.problems.append(f"{name} is missing.")
        except InputError as error:
            self.problems.append(f"{name}: {error.value}; {error.allowed}.")
        except Exception as error:  # a damaged file can raise anything
            self.problems.append(f"{name} is damaged ({_first_line(error)}).")
        return None

    def _status(self) -> Status:
        status = self.record.status()
        if status is None:
            raise FileNotFoundError("status.json")
        return status

    def _summary(self) -> dict[str, Any]:
        found = self.record.summary()
        if not isinstance(found, dict):
            raise ValueError("not an object")
        return found

    def _text(self, name: str) -> str:
        return self.record.path(name).read_text(encoding="utf-8")

    def _mapping(self, text: str) -> dict[str, Any]:
        found = from_yaml(text)
        if text and not isinstance(found, dict):
            raise ValueError("not a mapping")
        return found or {}

    def part(self, name: str) -> dict[str, Any]:
        """A group of the config; empty where it is not there, or is no group."""
        found = self.config.get(name)
        return found if isinstance(found, dict) else {}

    @property
    def refused(self) -> bool:
        """Whether the record is of another version, so that its tables may mean something else."""
        return self.status is None and self.record.path("status.json").exists()

    def has(self, name: Table) -> bool:
        """Whether there is such a table."""
        return self.record.path(f"{name}.parquet").exists()

    def table(self, name: Table, *columns: str) -> pd.DataFrame:
        """A table, or some of its columns.

        Raises:
            FileNotFoundError: there is none.
        """
        file = self.record.path(f"{name}.parquet")
        if not columns:
            return self.record.table(name)
        known = set(pq.read_schema(file).names)
        return pd.read_parquet(file, columns=[column for column in columns if column in known])

    def figure(self, name: str, draw: Callable[[], Any], *, alt: str, caption: str) -> Block:
        """Draws a figure into `figures/` and hands it out for the page.

        Args:
            name: of its files.
            draw: gives a matplotlib figure.
            alt: what it shows, for who cannot see it.
            caption: what a reader must know.
        """
        from actmax.report import figures  # matplotlib takes half a second

        png, svg = figures.save(self.record, name, draw)
        self.drawn.append(png)
        text = svg.read_bytes()
        found = re.search(rb'<svg[^>]* width="([\d.]+)pt"', text)
        width = float(found.group(1)) if found else figures.WIDE * POINTS_PER_INCH
        return Figure(name, alt, caption, base64.b64encode(text).decode(), width * 1.25)

    def section(self, title: str, *parts: Callable[[], Block | Sequence[Block] | None]) -> Section | None:
        """A section of what can be had, with a word about each part that cannot; None where nothing is asked for."""
        blocks: list[Block] = []
        for part in parts:
            made = self._made(title, part)
            blocks += [made] if isinstance(made, Block) else list(made or ())
        return Section(title, tuple(blocks)) if blocks else None

    def _made(self, title: str, part: Callable[[], Any]) -> Any:
        try:
            return part()
        except FileNotFoundError as error:
            missing = Path(error.filename or str(error)).name
            return Missing(title, f"{missing} is not in the record.")
        except Exception as error:  # a page says what is wrong with a record, whatever it is
            log.debug("a part of %s could not be made", title, exc_info=True)
            return Missing(title, f"What it is made from is damaged or incomplete ({_first_line(error)}).")

    @property
    def command(self) -> str:
        """What reproduces the job; empty where the record doesn't say."""
        file = self.record.path(".hydra/overrides.yaml")
        try:
            overrides = from_yaml(file.read_text(encoding="utf-8"))
            return (
                shlex.join(["actmax", "hydra.mode=RUN", *overrides])
                if self._swept
                else shlex.join(["actmax", *overrides])
            )
        except (OSError, ValueError, TypeError, yaml.YAMLError):
            return ""

    @property
    def _swept(self) -> bool:
        return (self.record.folder.parent / "multirun.yaml").exists()

    def write_csv(self) -> None:
        """Writes every table that is small enough as CSV beside its Parquet."""
        for file in sorted(self.record.folder.glob("*.parquet")):
            try:
                about = pq.read_metadata(file)
                if about.num_rows * about.num_columns <= CSV_CELLS:
                    self._as_csv(file)
            except Exception as error:  # a damaged table is named, and the others are written
                self.problems.append(f"{file.name} is damaged ({_first_line(error)}).")

    def _as_csv(self, file: Path) -> None:
        frame = pd.read_parquet(file)
        self.record.write(
            f"{file.stem}.csv",
            lambda path: frame.to_csv(path, index=False, encoding="utf-8", errors="backslashreplace"),
        )


def _first_line(error: Exception) -> str:
    said = str(error).splitlines()
    return f"{type(error).__name__}: {said[0][:200]}" if said else type(error).__name__


def present(sections: Sequence[Section | None]) -> tuple[Section, ...]:
    """The sections that there are."""
    return tuple(section for section in sections if section is not None)
