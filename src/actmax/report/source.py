"""What pages are made from: a record on disk, or a result in memory.

A record is read as far as it can be: what is damaged or missing is named, and does not stop the rest.
"""

from __future__ import annotations

import base64
import logging
import re
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow.parquet as pq
import yaml

from actmax.errors import InputError
from actmax.records.store import Record, Status, from_yaml
from actmax.report.blocks import Block, Figure, Missing, Number, Section

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing  # half a second

    from actmax.records.contents import Contents

log = logging.getLogger(__name__)

CSV_CELLS = 500_000
"""Most cells of a table that is also written as CSV; larger ones are for programs."""
POINTS_PER_INCH = 72
SCALE = 1.25
"""Width of a figure on a page, in its own width on paper."""

Part = Callable[[], Block | Sequence[Block] | None]
"""Makes a part of a page; it may raise whatever a damaged record makes it raise."""
Headline = tuple[str, tuple[Number, ...]]
"""The verdict in plain words, and the headline numbers."""


class Source:
    """Tables, summary and config of a job, and a list of what could not be read.

    Args:
        record: a job's record, or the folder of a sweep; None for a result in memory (`Source.of`).
        job: whether it is the record of a job; a sweep's folder has no status.
        brief: whether only the first screen is made: sections are left out, and figures are not written to files.
        draw: whether figures are drawn; a terminal needs none.
    """

    def __init__(self, record: Record | None, *, job: bool = True, brief: bool = False, draw: bool = True) -> None:
        self.record, self.brief, self.draw = record, brief, draw
        self.problems: list[str] = []
        self.drawn: list[Path] = []
        self.status: Status | None = None
        self.summary: Mapping[str, Any] = {}
        self.config_text = ""
        self.config: Mapping[str, Any] = {}
        self._tables: Mapping[str, pd.DataFrame] = {}
        if record is not None and job:
            self._read_job()

    @classmethod
    def of(
        cls,
        tables: Mapping[str, pd.DataFrame],
        summary: Mapping[str, Any],
        config: Mapping[str, Any] | None = None,
        *,
        brief: bool = False,
        draw: bool = True,
    ) -> Source:
        """A result in memory.

        Args:
            tables: the tables, by the names that their files have in a record; read when they are asked for.
            summary: headline numbers, as in `summary.json`.
            config: the settings, as in `config.yaml`.
            brief: whether only the first screen is made.
            draw: whether figures are drawn.
        """
        source = cls(None, brief=brief, draw=draw)
        source._tables, source.summary, source.config = tables, summary, config or {}
        return source

    @classmethod
    def of_contents(cls, contents: Contents, *, brief: bool = False, draw: bool = True) -> Source:
        """A result as its job holds it, its tables read when they are asked for; nothing is written to its record."""
        config = from_yaml(contents.config_text) or {}
        source = cls.of(_Tables(contents), contents.summary, config, brief=brief, draw=draw)
        source.config_text, source.status = contents.config_text, contents.status
        return source

    def _read_job(self) -> None:
        self.status = self._read("status.json", self._status)
        self.summary = self._read("summary.json", self._summary) or {}
        self.config_text = self._read("config.yaml", lambda: self.text("config.yaml")) or ""
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

    @property
    def _folder(self) -> Record:
        """The record that pages and figures are written to.

        Raises:
            FileNotFoundError: the result is in memory.
        """
        if self.record is None:
            raise FileNotFoundError("a folder")
        return self.record

    def _status(self) -> Status:
        status = self._folder.status()
        if status is None:
            raise FileNotFoundError("status.json")
        return status

    def _summary(self) -> dict[str, Any]:
        found = self._folder.summary()
        if not isinstance(found, dict):
            raise ValueError("not an object")
        return found

    def _mapping(self, text: str) -> dict[str, Any]:
        found = from_yaml(text)
        if text and not isinstance(found, dict):
            raise ValueError("not a mapping")
        return found or {}

    def text(self, name: str) -> str:
        """The text of a file in the folder.

        Raises:
            FileNotFoundError: there is no such file, or no folder.
        """
        return self._folder.path(name).read_text(encoding="utf-8")

    def exists(self, name: str) -> bool:
        """Whether the folder has a file of that name."""
        return self.record is not None and (self.record.folder / name).exists()

    def part(self, name: str) -> dict[str, Any]:
        """A group of the config; empty where there is none, or where it is no group."""
        found = self.config.get(name)
        return dict(found) if isinstance(found, Mapping) else {}

    @property
    def name(self) -> str:
        """The name of the record's folder; empty for a result in memory."""
        return "" if self.record is None else self.record.folder.resolve().name

    @property
    def names(self) -> list[str]:
        """The names of all tables."""
        files = [] if self.record is None else self.record.folder.glob("*.parquet")
        return [*self._tables, *sorted(file.stem for file in files)]

    @property
    def refused(self) -> bool:
        """Whether the record is of another version, so that its tables may mean something else."""
        return self.status is None and self.exists("status.json")

    def has(self, name: str) -> bool:
        """Whether there is a table of that name."""
        return name in self._tables or self.exists(f"{name}.parquet")

    def table(self, name: str, *columns: str) -> pd.DataFrame:
        """A table, or some of its columns.

        Raises:
            FileNotFoundError: there is none.
        """
        if name in self._tables:
            whole = self._tables[name]
            return pd.DataFrame(whole[[column for column in columns if column in whole]]) if columns else whole
        if self.record is None:
            raise FileNotFoundError(f"{name}.parquet")
        if not columns:
            return self.record.table(name)
        file = self.record.path(f"{name}.parquet")
        known = set(pq.read_schema(file).names)
        return pd.read_parquet(file, columns=[column for column in columns if column in known])

    def figure(self, name: str, draw: Callable[[], Drawing], *, alt: str, caption: str) -> Block:
        """Draws a figure; for a whole page of a record, also into the record's `figures/`.

        Args:
            name: name of the figure's files, without their endings.
            draw: makes the figure.
            alt: description for readers who cannot see it.
            caption: what a reader must know.
        """
        from actmax.report import figures  # matplotlib takes half a second

        if self.record is None or self.brief:
            svg = figures.image(draw, "svg")
        else:
            png, file = figures.save(self.record, name, draw)
            self.drawn.append(png)
            svg = file.read_bytes()
        found = re.search(rb'<svg[^>]* width="([\d.]+)pt"', svg)
        width = float(found.group(1)) if found else figures.WIDE * POINTS_PER_INCH
        return Figure(name, alt, caption, base64.b64encode(svg).decode(), width * SCALE)

    def headline(self, file: str, make: Callable[[], Headline]) -> Headline:
        """The verdict in plain words and the headline numbers; empty, with a problem named, where they cannot be made.

        Args:
            file: the file that they are made from, beside the summary.
            make: makes them.
        """
        try:
            return make()
        except Exception as error:  # a page says what is wrong with a record, whatever it is
            problem = f"{file} or summary.json cannot be read, or lacks what the headline needs"
            self.problems.append(f"{problem} ({_first_line(error)}).")
            return "", ()

    def section(self, title: str, *parts: Part) -> Section | None:
        """A section of the parts that can be made; None where there are none, or only the first screen is made."""
        found = () if self.brief else self.blocks(title, *parts)
        return Section(title, found) if found else None

    def blocks(self, title: str, *parts: Part) -> tuple[Block, ...]:
        """The blocks of the parts that can be made, with a note about each part that cannot."""
        blocks: list[Block] = []
        for part in parts:
            made = self._made(title, part)
            blocks += [made] if isinstance(made, Block) else list(made or ())
        return tuple(blocks)

    def figures(self, title: str, *parts: Part) -> tuple[Block, ...]:
        """The blocks of parts that are figures; empty where figures are not drawn."""
        return self.blocks(title, *parts) if self.draw else ()

    def _made(self, title: str, part: Part) -> Block | Sequence[Block] | None:
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
        """The command that runs the job again; empty where the record doesn't say."""
        try:
            overrides = from_yaml(self.text(".hydra/overrides.yaml"))
            return shlex.join(["actmax", *(["hydra.mode=RUN"] if self._swept else []), *overrides])
        except (OSError, ValueError, TypeError, yaml.YAMLError):
            return ""

    @property
    def _swept(self) -> bool:
        return (self._folder.folder.parent / "multirun.yaml").exists()

    def write_csv(self, names: Collection[str] | None = None) -> None:
        """Writes tables that are small enough as CSV beside their Parquet.

        Args:
            names: of the tables; None for all that there are.
        """
        for file in sorted(self._folder.folder.glob("*.parquet")):
            if names is not None and file.stem not in names:
                continue
            try:
                about = pq.read_metadata(file)
                if about.num_rows * about.num_columns <= CSV_CELLS:
                    self._write_as_csv(file)
            except Exception as error:  # a damaged table is named, and the others are written
                self.problems.append(f"{file.name} is damaged ({_first_line(error)}).")

    def _write_as_csv(self, file: Path) -> None:
        frame = pd.read_parquet(file)
        self._folder.write(
            f"{file.stem}.csv",
            lambda path: frame.to_csv(path, index=False, encoding="utf-8", errors="backslashreplace"),
        )


class _Tables(Mapping[str, pd.DataFrame]):
    """The tables of a result by name."""

    def __init__(self, contents: Contents) -> None:
        self._contents = contents

    def __getitem__(self, name: str) -> pd.DataFrame:
        return self._contents.table(name)

    def __contains__(self, name: object) -> bool:
        return self._contents.has(str(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self._contents.names)

    def __len__(self) -> int:
        return len(self._contents.names)


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def present(sections: Sequence[Section | None]) -> tuple[Section, ...]:
    """The sections that there are."""
    return tuple(section for section in sections if section is not None)
