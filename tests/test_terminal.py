"""The terminal's rendering: what blocks become, that nothing in a text takes hold of the terminal, and real records."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from actmax.report.blocks import (
    Cell,
    Code,
    ColouredText,
    Column,
    Figure,
    Missing,
    Page,
    Prose,
    Section,
    Table,
    Token,
    visible_text,
)
from actmax.report.terminal import show

HOSTILE = [
    "[red]out[/red]",
    "[link=file:///etc/passwd]x[/link]",
    "\x1b[31mred\x1b]0;title\x07",
    "\x00\x08\r",
    "\u202eabc\u202c",
    "\ud800",
    "[/]",
    "a\nb",
]
TABLE = Table(
    "Words",
    (Column("seed"), Column("token", numeric=False), Column("aside", extra=True, about="only on a page"), Column("z")),
    tuple(
        (Cell(str(row)), Cell("a\nb", marks="*", note="0.14", detail="0.142 long"), Cell("77"), Cell("1.50"))
        for row in range(30)
    ),
    "Marked twice.",
    file="words.parquet",
)
BLOCKS = {
    "prose": Prose("A sentence.", "Verdict"),
    "missing": Missing("A figure", "No reason."),
    "code": Code("Command", "actmax steps=3"),
    "table": TABLE,
    "figure": Figure("curve", "alt words", "caption words", "QUJD", 100.0),
    "text": ColouredText("Colours", (Token("warm", 1.0, "1"), Token("none", 0.0, "0"), Token("cold", -0.5, "-0.5"))),
}


def printed(page: Page, *, width: int = 120, colours: bool = False) -> str:
    stream = io.StringIO()
    system = "truecolor" if colours else None
    show(page, Console(file=stream, width=width, force_terminal=colours, color_system=system))
    return stream.getvalue()


def hostile(text: str) -> Page:
    cell = Cell(text, note=text, detail=text, marks=text)
    rows = Table(text, (Column(text, numeric=False, about=text), Column(text)), ((cell, cell),), text, 2, text)
    blocks = (
        rows,
        Prose(text, text),
        Missing(text, text),
        Code(text, text),
        ColouredText(text, (Token(text, 1.0, text),)),
    )
    return Page(text, text, first=blocks)


class TestBlocks:
    def test_prose_begins_with_its_title(self) -> None:
        assert printed(Page("q", first=(BLOCKS["prose"],))) == "Verdict. A sentence.\n"
        assert printed(Page("q", first=(Prose("A sentence."),))) == "A sentence.\n"

    def test_what_is_missing_is_said_with_the_reason(self) -> None:
        assert printed(Page("q", first=(BLOCKS["missing"],))) == "A figure: not here. No reason.\n"

    def test_code_is_shown_as_it_is(self) -> None:
        assert "Command:" in (text := printed(Page("q", first=(BLOCKS["code"],))))
        assert "\nactmax steps=3\n" in text

    def test_a_figure_is_left_out(self) -> None:
        assert printed(Page("q", first=(BLOCKS["figure"],))) == ""

    def test_a_text_keeps_its_letters_and_has_colours(self) -> None:
        page = Page("q", first=(BLOCKS["text"],))
        assert printed(page) == "Colours\nwarmnonecold\n"
        found = dict(re.findall(r"48;2;(\d+;\d+;\d+)m(\w+)", printed(page, colours=True)))
        assert list(found.values()) == ["warm", "none", "cold"]
        red, white, blue = ([int(value) for value in colour.split(";")] for colour in found)
        assert red[0] > red[2]
        assert white == [255, 255, 255]
        assert blue[2] > blue[0]

    def test_only_the_first_screen_is_shown(self) -> None:
        page = Page("the question", "the verdict", first=(Prose("first"),), sections=(Section("s", (Prose("later"),)),))
        assert printed(page) == "first\n"


class TestTable:
    def test_says_what_its_cells_say(self) -> None:
        text = printed(Page("q", first=(TABLE,)))
        assert text.count("a\\nb* 0.14") == 20  # a line end would tear the row apart
        assert "0.142" not in text
        assert text.count("1.50") == 20

    def test_is_cut_and_names_the_file(self) -> None:
        text = " ".join(printed(Page("q", first=(TABLE,))).split())
        assert text.endswith("Marked twice. The first 20 of 30 rows; words.parquet has them all.")
        whole = " ".join(printed(Page("q", first=(replace(TABLE, brief=30),))).split())
        assert whole.endswith("Marked twice.")

    def test_leaves_extra_columns_and_their_words_out(self) -> None:
        text = printed(Page("q", first=(TABLE,)))
        assert "aside" not in text
        assert "77" not in text
        shown = replace(TABLE, columns=tuple(replace(column, extra=False) for column in TABLE.columns))
        assert "aside: only on a page." in printed(Page("q", first=(shown,)))

    def test_numbers_stand_to_the_right_and_words_to_the_left(self) -> None:
        cells = ((Cell("1"), Cell("a")), (Cell("100"), Cell("abc")))
        lines = printed(Page("q", first=(Table("t", (Column("n"), Column("w", numeric=False)), cells),))).splitlines()
        rows = [line for line in lines if re.search(r"\b(1|100)\b", line)]
        assert [row.index("1") for row in rows] == [4, 2]
        assert len({row.index("a") for row in rows}) == 1

    def test_a_number_is_whole_on_a_narrow_terminal(self) -> None:
        words = Cell("many words that take a lot of room " * 3)
        rows = Table("t", (Column("seed"), Column("w", numeric=False)), ((Cell("1234567"), words),))
        assert "1234567" in printed(Page("q", first=(rows,)), width=30)

    def test_a_head_is_not_torn_where_there_is_room(self) -> None:
        columns = tuple(Column(f"Mann-Whitney and {row}") for row in range(6))
        rows = (tuple(Cell("1", note="±2") for _ in columns),)
        assert printed(Page("q", first=(Table("t", columns, rows),))).count("Mann-Whitney") == 6
        assert printed(Page("q", first=(Table("t", columns, rows),)), width=60).count("Mann-Whitney") < 6


class TestHostileText:
    @pytest.mark.parametrize("text", HOSTILE, ids=ascii)
    def test_is_text_and_nothing_else(self, text: str) -> None:
        said = printed(hostile(text), colours=True)
        plain = printed(hostile("plain"), colours=True)
        assert set(re.findall(r"\x1b[^m]*m", said)) == set(re.findall(r"\x1b[^m]*m", plain))
        assert not re.search(r"[\x00-\x09\x0b-\x1a\x1c-\x1f\x7f\u202a-\u202e\ud800-\udfff]", said)
        shown = "".join(re.sub(r"\x1b[^m]*m", "", said).split())
        assert shown.count("".join(visible_text(text).split())) >= 10

    def test_the_check_can_fail(self) -> None:
        stream = io.StringIO()
        Console(file=stream, force_terminal=True, color_system="truecolor").print(HOSTILE[0])  # markup that is obeyed
        assert "[red]" not in stream.getvalue()
        stream = io.StringIO()
        Console(file=stream, force_terminal=True).file.write(HOSTILE[2])
        assert re.search(r"\x1b\]0;", stream.getvalue())

    @settings(deadline=None, max_examples=50)
    @given(st.text(min_size=1))
    def test_any_text_can_be_shown(self, text: str) -> None:
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\ud800-\udfff]", printed(hostile(text)))
