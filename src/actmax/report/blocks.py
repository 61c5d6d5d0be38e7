"""What is shown of a result, as blocks: described once, then rendered on a terminal, as a page and in a notebook."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pandas as pd

from actmax.evidence.findings import is_missing

ROWS = 1_000
"""Most rows of a table on a page."""
FEW, MANY = 20, 60
"""Most rows of a table on a terminal and in a notebook, and of one with a row per restart, layer or effect."""
PHONE = 400
"""Width in points from which on a figure has the page's width to itself."""
LONG = 24
"""Characters from which on a text may be wrapped."""
Row = Mapping[Any, Any]
"""A row of a data frame, values by column."""


@dataclass(frozen=True)
class Number:
    """A headline number beside what chance gives."""

    name: str
    """What was measured, in a few words."""
    value: str
    """The number with its unit."""
    null: str
    """What chance, or nothing, gives."""


@dataclass(frozen=True)
class Cell:
    """One cell of a table."""

    text: str
    """The value as text."""
    key: float | None = None
    """The number by which the column is sorted; None sorts it by its text."""
    note: str = ""
    """Small print: under the text on a page, behind it on a terminal."""
    detail: str = ""
    """Longer small print, which takes the note's place where there is room for it: not on a terminal."""
    marks: str = ""
    """Signs behind the text, which the table's caption explains."""
    shade: float | None = None
    """Strength of the background's colour, from 0 to 1; None for no colour."""
    link: str | None = None
    """Address of a file beside the page that the text leads to."""
    wide: bool = False
    """Whether the text is prose, and may be wrapped."""


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    name: str
    """The text at the head of the column."""
    numeric: bool = True
    """Whether the column holds numbers, and is aligned to the right."""
    extra: bool = False
    """Whether the column is left out where there is little room: on a terminal."""
    about: str = ""
    """A few words on what the column holds, for the text below the table."""


@dataclass(frozen=True)
class Prose:
    """A paragraph of text under its title."""

    kind: ClassVar[str] = "prose"
    text: str
    """The sentences of the paragraph."""
    title: str = ""
    """A few words in bold before the sentences."""


@dataclass(frozen=True)
class Missing:
    """A note about something that cannot be shown."""

    kind: ClassVar[str] = "missing"
    what: str
    """The thing that would have stood here."""
    why: str
    """Why the table or figure is missing."""


@dataclass(frozen=True)
class Code:
    """Text that is shown as it is, in a fixed-width font."""

    kind: ClassVar[str] = "code"
    title: str
    """What the text is."""
    text: str
    """The text, shown as it is."""
    folded: bool = True
    """Whether a page shows the text only at a click."""


@dataclass(frozen=True)
class Table:
    """A table under its title, with a caption below."""

    kind: ClassVar[str] = "table"
    title: str
    """What the table shows."""
    columns: tuple[Column, ...]
    """Head and alignment of each column."""
    rows: tuple[tuple[Cell, ...], ...]
    """A cell for each column, row by row."""
    caption: str = ""
    """What a reader must know to read the table, beside what its columns say about themselves."""
    total: int = 0
    """Number of rows that there are in all, where it is more than the rows here."""
    file: str = ""
    """Name of the record's file that holds all rows."""
    brief: int = FEW
    """Most rows on a terminal and in a notebook."""

    @property
    def long(self) -> bool:
        """Whether a page folds the table."""
        return len(self.rows) > FEW

    @property
    def size(self) -> str:
        """How many rows there are to see, and in all where these are more.

        Example:
            >>> Table("t", (), ((),) * 3, total=1500).size
            '3 of 1,500 rows'
        """
        of = f" of {self.total:,}" if self.total > len(self.rows) else ""
        return f"{len(self.rows):,}{of} rows"

    def legend(self, shown: int = ROWS, *, brief: bool = False) -> str:
        """The text below the table: the caption, the columns, and the rows that are left out.

        Args:
            shown: how many rows are shown at most.
            brief: whether extra columns are left out.
        """
        columns = [column for column in self.columns if column.about and not (brief and column.extra)]
        return join([self.caption, *(f"{column.name}: {column.about}." for column in columns), self.cut(shown)])

    def cut(self, shown: int = ROWS) -> str:
        """A sentence about the rows that are left out; empty where none is.

        Args:
            shown: how many rows are shown at most.
        """
        shown, total = min(shown, len(self.rows)), max(self.total, len(self.rows))
        if shown == total:
            return ""
        return f"The first {shown:,} of {total:,} rows{f'; {self.file} has them all' if self.file else ''}."


@dataclass(frozen=True)
class Figure:
    """A figure; a terminal leaves it out."""

    kind: ClassVar[str] = "figure"
    name: str
    """Name of the figure's files, without their endings."""
    alt: str
    """Description for readers who cannot see it."""
    caption: str
    """What a reader must know to read the figure."""
    data: str
    """The figure as SVG, base64."""
    width: float
    """Width on a page in points."""

    @property
    def broad(self) -> bool:
        """Whether it is wider than a phone: there it is moved from side to side."""
        return self.width > PHONE


@dataclass(frozen=True)
class Token:
    """One token of a coloured text."""

    text: str
    """The token as it is read."""
    score: float
    """The token's colour, from -1 (blue) over 0 (none) to 1 (red)."""
    numbers: str
    """The numbers behind the colour, shown under the pointer."""


@dataclass(frozen=True)
class ColouredText:
    """A text with a colour for each token."""

    kind: ClassVar[str] = "text"
    title: str
    """What the colours mean."""
    tokens: tuple[Token, ...]
    """The text's tokens in order."""


Block = Prose | Missing | Code | Table | Figure | ColouredText


@dataclass(frozen=True)
class Section:
    """A part of a page under a heading."""

    title: str
    """The heading above the blocks."""
    blocks: tuple[Block, ...]
    """What stands under the heading."""


@dataclass(frozen=True)
class Page:
    """Everything that is shown of a result."""

    question: str
    """The question that was asked."""
    verdict: str = ""
    """The answer in plain words."""
    numbers: tuple[Number, ...] = ()
    """The headline numbers, each beside its null."""
    first: tuple[Block, ...] = ()
    """The first screen: main tables, statements, main figures. A terminal shows nothing else, and no figures."""
    sections: tuple[Section, ...] = ()
    """The rest. A block of the first screen may stand in a section too; a page shows it there alone, but for figures,
    which it shows on the first screen alone."""
    card: tuple[Block, ...] = ()
    """The card that the verdict is read from: a page shows it below the verdict, a terminal as the last thing."""
    title: str = ""
    """Title of the browser's tab."""
    state: str = "complete"
    """How the job stands."""
    facts: str = ""
    """Task, record and so on in one line."""
    problems: tuple[str, ...] = ()
    """What is missing or damaged in the record."""

    @property
    def opening(self) -> tuple[Block, ...]:
        """The first screen behind the card: figures, then the blocks that neither the verdict nor a section repeats."""
        repeated = {id(block) for section in self.sections for block in section.blocks}
        drawn = [block for block in self.first if isinstance(block, Figure)]
        others = [block for block in self.first if not isinstance(block, Figure) and id(block) not in repeated]
        return (*drawn, *(block for block in others if not self._is_verdict(block)))

    @property
    def rest(self) -> tuple[Section, ...]:
        """The sections without the figures of the first screen; one that has nothing else is left out."""
        drawn = {id(block) for block in self.first if isinstance(block, Figure)}
        parts = [(one.title, tuple(block for block in one.blocks if id(block) not in drawn)) for one in self.sections]
        return tuple(Section(title, blocks) for title, blocks in parts if blocks)

    def _is_verdict(self, block: Block) -> bool:
        return isinstance(block, Prose) and block.text == self.verdict


@dataclass(frozen=True)
class Shown:
    """How a column of a data frame is shown in a table."""

    name: str
    """The data frame's column."""
    head: str = ""
    """Head of the table's column; the name where it is empty."""
    form: str | Callable[[Any], str] = ".4g"
    """Format of a value, or a function that makes text of it; `s` for text."""
    text: Callable[[Row], str] | None = None
    """Makes the text of a cell from the whole row, where the value alone is not enough."""
    beside: str = ""
    """Another column, a null most often, whose number in brackets is the small print."""
    note: Callable[[Row], str] | None = None
    """Makes the small print of a cell from the whole row."""
    detail: Callable[[Row], str] | None = None
    """Makes the longer small print of a cell from the whole row."""
    marks: Callable[[Row], str] | None = None
    """Makes the signs behind a cell's text from the whole row."""
    shade: bool = False
    """Whether cells are shaded by their value."""
    words: bool = False
    """Whether the column holds text, whatever its format."""
    extra: bool = False
    """Whether the column is left out on a terminal."""
    about: str = ""
    """A few words on what the column holds, for the text below the table."""

    @property
    def column(self) -> Column:
        """The column of the table that holds these cells."""
        numeric = not (self.words or self.form == "s")
        return Column(self.head or self.name.replace("_", " "), numeric, self.extra, self.about)


def table(
    frame: pd.DataFrame,
    shown: Sequence[Shown],
    *,
    title: str,
    source: str,
    caption: str = "",
    rows: int = ROWS,
    brief: int = FEW,
    total: int = 0,
) -> Table:
    """A data frame as a table, cut after some rows.

    Args:
        frame: the data; columns of `shown` that it lacks are left out.
        shown: the columns of the table, in order.
        title: what the table shows.
        source: the file that holds all rows.
        caption: what a reader must know.
        rows: most rows on a page.
        brief: most rows on a terminal and in a notebook.
        total: number of rows that there are, where the data has not all of them.
    """
    present = [one for one in shown if one.name in frame.columns]
    records = frame.head(rows).to_dict("records")
    columns = [_cells(records, one) for one in present]
    heads = tuple(one.column for one in present)
    cells = tuple(zip(*columns, strict=True))
    return Table(title, heads, cells, caption, max(total, len(frame)), source, brief)


def _cells(rows: Sequence[Row], shown: Shown) -> list[Cell]:
    keys = [_key(row[shown.name]) for row in rows]
    known = [key for key in keys if key is not None and not math.isnan(key)] if shown.shade else []
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    cells = [_cell(row, key, shown, low, high) for row, key in zip(rows, keys, strict=True)]
    wide = not shown.column.numeric and any(len(cell.text) > LONG for cell in cells)
    return [replace(cell, wide=True) for cell in cells] if wide else cells


def _key(value: Any) -> float | None:
    numeric = isinstance(value, (int, float)) or hasattr(value, "dtype")
    return float(value) if numeric and not is_missing(value) else None


def _cell(row: Row, key: float | None, shown: Shown, low: float, high: float) -> Cell:
    value = row[shown.name]
    words = not shown.column.numeric
    if is_missing(value):
        return Cell("" if words else "–")
    if shown.text is not None:
        text = shown.text(row)
    elif shown.form == "s":
        text = visible_text(str(value))
    else:
        text = shown.form(value) if callable(shown.form) else f"{value:{shown.form}}"
    note, detail, marks = ("" if make is None else make(row) for make in (shown.note, shown.detail, shown.marks))
    if shown.beside and isinstance(shown.form, str):
        note = in_brackets(row.get(shown.beside), shown.form)
    shade = (key - low) / (high - low) if key is not None and high > low else None
    return Cell(text, None if words else key, note, detail, marks, shade)


def in_brackets(value: float | None, form: str) -> str:
    """A number as small print behind another one; empty where it does not exist.

    Example:
        >>> in_brackets(0.25, ".1%"), in_brackets(None, ".1%")
        ('(25.0%)', '')
    """
    return "" if is_missing(value) else f"({value:{form}})"


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


def interval(low: float | None, high: float | None, form: str) -> str:
    """A 95 % interval in words, or that there is none."""
    return "no interval" if is_missing(low) or is_missing(high) else f"95 %: {low:{form}} to {high:{form}}"


def number(value: float | int | None, form: str) -> str:
    """A number as it is printed; a dash where it does not exist.

    Example:
        >>> number(0.0312, ".2g"), number(float("nan"), ".2g")
        ('0.031', '–')
    """
    return "–" if is_missing(value) else f"{value:{form}}"


def number_cell(value: float | int | None, form: str) -> Cell:
    """A number as a cell, which sorts by it."""
    return Cell(number(value, form), _key(value))


def p_said(p: float | None, before: str = "") -> str:
    """A p as small print; that nothing was tested where there is none.

    Args:
        p: the p.
        before: what stands before it.

    Example:
        >>> p_said(0.0312, "paired "), p_said(None, "paired ")
        ('paired p = 0.031', 'not tested')
    """
    return "not tested" if is_missing(p) else f"{before}p = {p:.2g}"


def join(parts: Iterable[str]) -> str:
    """The parts that are not empty, as one text."""
    return " ".join(part for part in parts if part)
