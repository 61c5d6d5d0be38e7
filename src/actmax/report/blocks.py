"""What a page is made of, before it is HTML."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pandas as pd

ROWS = 1_000
"""Rows of a table on a page."""


@dataclass(frozen=True)
class Number:
    """One of the numbers that matter."""

    name: str
    """What it is."""
    value: str
    """The number with its unit."""
    null: str
    """What chance, or nothing, gives."""


@dataclass(frozen=True)
class Cell:
    """One cell of a table."""

    text: str
    """What is read."""
    key: float | None = None
    """What it is sorted by; None for its text."""
    note: str = ""
    """In small print under it."""
    marks: str = ""
    """Signs behind it."""
    shade: float | None = None
    """From 0 to 1."""
    link: str | None = None
    """A file beside the page."""
    wide: bool = False
    """Whether it is text that may wrap."""


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    name: str
    """Its head."""
    numeric: bool = True
    """Whether it stands to the right."""


@dataclass(frozen=True)
class Prose:
    """A paragraph."""

    kind: ClassVar[str] = "prose"
    text: str
    """What it says."""
    title: str = ""
    """In bold in front."""


@dataclass(frozen=True)
class Missing:
    """Something that is not there, in words."""

    kind: ClassVar[str] = "missing"
    what: str
    """That would have stood here."""
    why: str
    """Reason."""


@dataclass(frozen=True)
class Code:
    """Verbatim text."""

    kind: ClassVar[str] = "code"
    title: str
    """What it is."""
    text: str
    """Verbatim."""
    folded: bool = True
    """Whether it opens at a click."""


@dataclass(frozen=True)
class Table:
    """A table that can be sorted."""

    kind: ClassVar[str] = "table"
    title: str
    """What it shows."""
    columns: tuple[Column, ...]
    """Heads."""
    rows: tuple[tuple[Cell, ...], ...]
    """Cells."""
    caption: str = ""
    """What a reader must know."""
    cut: str = ""
    """Where the rows are that are not here."""


@dataclass(frozen=True)
class Figure:
    """A figure, inline."""

    kind: ClassVar[str] = "figure"
    name: str
    """Of its files in `figures/`."""
    alt: str
    """What it shows, for who cannot see it."""
    caption: str
    """What a reader must know."""
    data: str
    """SVG, base64."""
    width: float
    """Points."""


@dataclass(frozen=True)
class Token:
    """A piece of a coloured text."""

    text: str
    """What is read."""
    score: float
    """From -1 (blue) to 1 (red)."""
    said: str
    """Its numbers."""


@dataclass(frozen=True)
class ColouredText:
    """A text with a colour per token."""

    kind: ClassVar[str] = "text"
    title: str
    """What the colours mean."""
    tokens: tuple[Token, ...]
    """In order."""


Block = Prose | Missing | Code | Table | Figure | ColouredText


@dataclass(frozen=True)
class Section:
    """A part of a page."""

    title: str
    """Its heading."""
    blocks: tuple[Block, ...]
    """What stands in it."""


@dataclass(frozen=True)
class Page:
    """A page."""

    title: str
    """In the browser's tab."""
    question: str
    """What was asked."""
    verdict: str
    """The answer in plain words."""
    numbers: tuple[Number, ...] = ()
    """The three that matter, with their nulls."""
    sections: tuple[Section, ...] = ()
    """The rest."""
    state: str = "complete"
    """How the job stands."""
    facts: str = ""
    """Subject, unit and so on in a line."""
    problems: tuple[str, ...] = field(default=())
    """What is missing or damaged."""


Form = str | Callable[[Any], str]


@dataclass(frozen=True)
class Shown:
    """How a column of a data frame is shown."""

    name: str
    """Of the column."""
    head: str = ""
    """Of the table's; its name where empty."""
    form: Form = ".4g"
    """A format, or what makes text of a value; `s` for text."""
    shade: bool = False
    """Whether its cells are shaded by value."""


def table(
    frame: pd.DataFrame, shown: Sequence[Shown], *, title: str, source: str, caption: str = "", rows: int = ROWS
) -> Table:
    """A data frame as a table of a page, cut after some rows.

    Args:
        frame: the data; columns of `shown` that it lacks are left out.
        shown: which columns, and how.
        title: what it shows.
        source: the file that holds all rows.
        caption: what a reader must know.
        rows: after which it is cut.
    """
    here = [one for one in shown if one.name in frame.columns]
    top = frame.head(rows)
    columns = [_column(pd.Series(top[one.name]), one) for one in here]
    cut = f"The first {rows:,} of {len(frame):,} rows; {source} has them all." if len(frame) > rows else ""
    heads = tuple(Column(one.head or one.name.replace("_", " "), one.form != "s") for one in here)
    return Table(title, heads, tuple(zip(*columns, strict=True)), caption, cut)


def _column(values: pd.Series, shown: Shown) -> list[Cell]:
    if shown.form == "s":
        return [Cell("" if is_missing(value) else visible_text(str(value)), wide=True) for value in values]
    low, high = (float(values.min()), float(values.max())) if shown.shade and len(values) else (0.0, 0.0)
    return [_number(value, shown, low, high) for value in values]


def _number(value: Any, shown: Shown, low: float, high: float) -> Cell:
    if is_missing(value):
        return Cell("–")
    text = shown.form(value) if callable(shown.form) else f"{value:{shown.form}}"
    key = float(value) if isinstance(value, (int, float)) or hasattr(value, "dtype") else None
    return Cell(text, key, shade=(key - low) / (high - low) if key is not None and high > low else None)


def is_missing(value: Any) -> bool:
    """Whether there is no value: None, NA or NaN."""
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def visible(token: str) -> str:
    """A token with its spaces shown as dots and its control characters as escapes.

    Example:
        >>> visible(" the ")
        '·the·'
    """
    shown = (letter if letter.isprintable() else ascii(letter)[1:-1] for letter in token.replace(" ", "·"))
    return "".join(shown)


def visible_text(text: str) -> str:
    r"""A text whose control characters, all but line ends, are shown as escapes; its spaces stay spaces.

    Example:
        >>> print(visible_text("a b\x1b"))
        a b\x1b
    """
    if text.isprintable():
        return text
    return "".join(letter if letter == "\n" or letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def address(row: Any) -> str:
    """A unit's address, as it is written everywhere.

    Example:
        >>> address({"site": "resid_pre", "layer": 8, "index": 91})
        'resid_pre.8[91]'
    """
    place = row["site"] if is_missing(row["layer"]) else f"{row['site']}.{int(row['layer'])}"
    return f"{place}[{row['index']}]"


def interval(low: float | None, high: float | None, form: str) -> str:
    """An interval in words, or that there is none."""
    return "no interval" if is_missing(low) or is_missing(high) else f"95 %: {low:{form}} to {high:{form}}"


def p_value(p: float | None) -> str:
    """A p as it is printed everywhere."""
    return "–" if is_missing(p) else f"{p:.2g}"


def join(parts: Iterable[str]) -> str:
    """What there is of some sentences."""
    return " ".join(part for part in parts if part)
