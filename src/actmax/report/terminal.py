"""The first screen of a page on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from actmax.report import blocks
from actmax.report.blocks import Block, Cell, ColouredText, Missing, Page, Prose, visible_text

WIDTH = 120
"""Characters of a line where the output is no terminal, which has a width of its own."""
BORDER = 3
"""Characters between two columns of a table."""
COLD, WARM, STRENGTH = (33, 102, 172), (178, 24, 43), 0.75
"""Colours of scores of -1 and 1, and how much of them is mixed into white there."""


def open_console() -> Console:
    """The console that writes to stdout."""
    return Console(width=None if sys.stdout.isatty() else WIDTH)


def show(page: Page, console: Console | None = None) -> None:
    """Prints the first screen of a page. Whatever stands in a text, it cannot move the cursor or change colours."""
    console = console or open_console()
    for block in (*page.first, *page.card):
        for line in _lines(block, console.width):
            console.print(line)


def _lines(block: Block, width: int) -> Iterator[Text | Table]:
    """What a block is for rich: a terminal has no figures, and folds nothing."""
    if isinstance(block, blocks.Table):
        yield _table(block, width)
        if legend := block.legend(block.brief, brief=True):  # not rich's caption, which is no wider than the table
            yield Text(visible_text(legend), style="dim italic")
    elif isinstance(block, ColouredText):
        yield Text(visible_text(block.title))
        yield _coloured(block)
    elif isinstance(block, Prose):
        yield _titled(f"{block.title}." if block.title else "", block.text)
    elif isinstance(block, Missing):
        yield _titled(f"{block.what}:", f"not here. {block.why}")
    elif isinstance(block, blocks.Code):
        yield _titled(f"{block.title}:", f"\n{block.text}")


def _titled(title: str, text: str) -> Text:
    parts = [(visible_text(title), "bold"), " "] if title else []
    return Text.assemble(*parts, visible_text(text))


def _table(block: blocks.Table, width: int) -> Table:
    """A table without its extra columns, cut after its `brief` rows."""
    table = Table(title=_plain(block.title), box=box.SIMPLE_HEAD)
    shown = [place for place, column in enumerate(block.columns) if not column.extra]
    rows = block.rows[: block.brief]
    words = {place: max(map(len, block.columns[place].name.split()), default=0) for place in shown}
    fits = sum(words.values()) + BORDER * len(words) < width
    for place in shown:
        column = block.columns[place]
        whole = column.numeric and not any(row[place].note for row in rows)  # a number is never broken into two lines
        side, least = "right" if column.numeric else "left", words[place] if fits else None
        table.add_column(_plain(column.name), justify=side, no_wrap=whole, overflow="fold", min_width=least)
    for row in rows:
        table.add_row(*(_cell(row[place]) for place in shown))
    return table


def _cell(cell: Cell) -> Text:
    text = Text(_one_line(cell.text + cell.marks))
    return text.append(f" {_one_line(cell.note)}", style="dim") if cell.note else text


def _plain(text: str) -> Text:
    return Text(visible_text(text))


def _one_line(text: str) -> str:
    """A cell's text: a line end would tear the row apart."""
    return visible_text(text).replace("\n", "\\n")


def _coloured(block: ColouredText) -> Text:
    text = Text()
    for token in block.tokens:
        red, green, blue = _mixed(token.score)
        text.append(visible_text(token.text), style=f"black on rgb({red},{green},{blue})")
    return text


def _mixed(score: float) -> tuple[int, int, int]:
    """White, with some of the colour of a score's side."""
    share, full = abs(score) * STRENGTH, WARM if score > 0 else COLD
    red, green, blue = (round(255 + (channel - 255) * share) for channel in full)
    return red, green, blue
