"""One description, three renderings: a page, a notebook and a terminal show the same blocks of a record or a result."""

from __future__ import annotations

import ast
import io
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

import actmax
from actmax.records.store import Record
from actmax.report import html, notebook, terminal
from actmax.report.blocks import (
    Block,
    Cell,
    Code,
    ColouredText,
    Column,
    Figure,
    Missing,
    Number,
    Page,
    Prose,
    Section,
    Table,
    Token,
    visible_text,
)
from actmax.report.source import Source
from actmax.tasks.pages import describe, first_screen
from cli import QUICK, Actmax
from test_page import HOSTILE, hosts, read

JOBS = {
    "maximization": ("subject=tiny", "steps=4", "seeds='0:3'", *QUICK),
    "several": ("subject=tiny", "steps=4", "seeds='0:3'", "unit.index=[3,5]", *QUICK),
    "search": (
        "task=search",
        "subject=tiny",
        "seeds=[0,1]",
        "search.passes=40",
        "search.candidates=8",
        "search.top_k=8",
        *QUICK,
    ),
    "simulation": ("task=simulation", "simulation.effects=[0.0,1.0,5.0]", "simulation.repetitions=20", "page=false"),
}
SVG = "PHN2ZyB4bWxucz0iaHR0cDovL3d3dy53My5vcmcvMjAwMC9zdmciLz4="
BLOCKS: dict[str, tuple[Block, str]] = {
    "prose": (Prose("A sentence.", "Verdict"), "A sentence."),
    "missing": (Missing("A table", "There is no reason."), "There is no reason."),
    "code": (Code("Command", "actmax steps=3"), "actmax steps=3"),
    "table": (Table("Words", (Column("token"),), ((Cell("a cell"),),)), "a cell"),
    "figure": (Figure("curve", "words for a figure", "below it", SVG, 100.0), "words for a figure"),
    "text": (ColouredText("Colours", (Token("tepid", 1.0, "its numbers"),)), "tepid"),
}
RENDERINGS: dict[str, Callable[[Page], str]] = {
    "page": html.render,
    "notebook": notebook.html,
    "terminal": lambda page: printed(page),
}


def printed(page: Page) -> str:
    stream = io.StringIO()
    terminal.show(page, Console(file=stream, width=120))
    return stream.getvalue()


def page(text: str) -> Page:
    heads = (Column("token", numeric=False), Column(text, about=text))
    cells = Cell(text, note=text, marks=text), Cell(text, note=text, detail=text)
    rows = Table("tokens", heads, (cells,), text, 2, text)
    coloured = ColouredText(text, (Token(text, 1.0, text),))
    blocks = (rows, Prose(text, text), Missing(text, text), Code(text, text), coloured)
    return Page(text, f"{text}.", (Number(text, text, text),), blocks, title=text, state=text, problems=(text,))


class TestRenderings:
    def test_every_kind_of_block_is_among_these(self) -> None:
        assert {block.kind for block, _ in BLOCKS.values()} == {kind.kind for kind in Block.__args__}

    @pytest.mark.parametrize("kind", BLOCKS)
    @pytest.mark.parametrize("rendering", RENDERINGS)
    def test_each_shows_every_kind_of_block(self, rendering: str, kind: str) -> None:
        block, words = BLOCKS[kind]
        shown = RENDERINGS[rendering](Page("q", first=(block,)))
        assert (words in shown) == (rendering != "terminal" or kind != "figure")
        assert words not in RENDERINGS[rendering](Page("q"))

    def test_a_page_shows_a_block_of_a_section_once(self) -> None:
        block, other = Prose("twice"), Prose("once")
        source = html.render(Page("q", first=(block, other), sections=(Section("s", (block,)),)))
        assert source.count("twice") == source.count("once") == 1
        assert source.index("once") < source.index("twice")

    def test_a_page_does_not_repeat_its_verdict(self) -> None:
        both = Page("q", "the answer", first=(Prose("the answer", "Verdict"),))
        assert html.render(both).count("the answer") == notebook.html(both).count("the answer") == 1
        assert "the answer" in printed(both)

    def test_a_notebook_cuts_tables_like_a_terminal_and_shows_all_columns(self) -> None:
        columns = (Column("n"), Column("aside", extra=True))
        rows = tuple((Cell(f"row {number}"), Cell("more")) for number in range(30))
        shown = Page("q", first=(Table("t", columns, rows, file="words.parquet"),))
        assert notebook.html(shown).count("<td") == 40
        assert printed(shown).count("row ") == 20
        for text in (notebook.html(shown), " ".join(printed(shown).split())):
            assert "The first 20 of 30 rows; words.parquet has them all." in text
        assert html.render(shown).count("<td") == 60

    def test_only_the_terminal_makes_tables_for_the_terminal(self) -> None:
        folder = Path(str(actmax.__file__)).parent
        found = {
            file.relative_to(folder).as_posix()
            for file in folder.rglob("*.py")
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom) and node.module in ("rich.table", "rich.text", "html")
        }
        assert found == {"report/terminal.py"}


class TestHostileText:
    @pytest.mark.parametrize("text", HOSTILE, ids=ascii)
    def test_is_text_and_nothing_else(self, text: str) -> None:
        source = notebook.html(page(text)).encode("utf-8", "backslashreplace").decode()
        plain, hostile = read(notebook.html(page("plain"))), read(source)
        assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in plain.tags]
        assert hostile.text.count(visible_text(text)) == plain.text.count("plain")
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", source)

    def test_the_check_can_fail(self) -> None:
        plain = notebook.html(page("plain"))
        broken = plain.replace("plain", HOSTILE[0])  # what a rendering without escaping would be
        assert [tag for tag, _ in read(broken).tags] != [tag for tag, _ in read(plain).tags]

    @settings(deadline=None, max_examples=30)
    @given(st.text(min_size=1))
    def test_any_text_leaves_it_as_it_is(self, text: str) -> None:
        tags = [tag for tag, _ in read(notebook.html(page(text))).tags]
        assert tags == [tag for tag, _ in read(notebook.html(page("plain"))).tags]


def selectors(style: str) -> list[str]:
    """The selectors of a style sheet, one by one."""
    bare = re.sub(r"/\*.*?\*/", "", style, flags=re.DOTALL)
    return [one.strip() for group in re.findall(r"([^{}]+)\{", bare) for one in group.split(",") if "@" not in group]


class TestNotebook:
    def test_is_one_element_whose_style_touches_nothing_else(self) -> None:
        source = notebook.html(page("plain"))
        assert source.startswith('<div class="actmax"')
        assert source.rstrip().endswith("</div>")
        (style,) = re.findall(r"<style>(.*?)</style>", source, re.DOTALL)
        assert len(found := selectors(style)) > 30
        assert all(re.match(r"\.actmax\b", one) for one in found)
        (whole,) = re.findall(r"<style>(.*?)</style>", html.render(page("plain")), re.DOTALL)
        assert not all(re.match(r"\.actmax\b", one) for one in selectors(whole))  # a page has it for itself

    def test_has_no_script_no_host_and_no_theme_of_its_own(self) -> None:
        source = notebook.html(Page("q", first=tuple(block for block, _ in BLOCKS.values())))
        assert "<script" not in source
        assert "<button" not in source
        assert hosts(source) == []
        assert "prefers-color-scheme" not in source  # a notebook's theme need not be the system's
        assert "<script" in html.render(Page("q", first=(BLOCKS["table"][0],)))

    def test_begins_with_the_question_the_answer_and_the_numbers(self) -> None:
        numbers = (Number("shared", "29 %", "its null: 1 %"),)
        text = read(notebook.html(Page("the question", "the answer", numbers, (Prose("then this"),)))).text
        places = [text.index(part) for part in ("the question", "the answer", "29 %", "its null: 1 %", "then this")]
        assert places == sorted(places)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for records that several tests look at."""
    return tmp_path_factory.mktemp("records")


@pytest.fixture(params=JOBS)
def job(request: pytest.FixtureRequest, kept: Path, actmax: Actmax, tmp_path: Path) -> Path:
    """A record that nobody else has touched."""
    if not (kept / request.param).exists():
        ran = actmax(*JOBS[request.param])
        assert ran.code == 0, ran.err
        shutil.copytree(ran.job, kept / request.param)
    return Path(shutil.copytree(kept / request.param, tmp_path / "copy" / request.param))


def undrawn(page: Page) -> Page:
    """The page without its figures' bytes: on disk an SVG is drawn after a PNG, which moves it by a hair."""

    def plain(blocks: tuple[Block, ...]) -> tuple[Block, ...]:
        return tuple(replace(block, data="", width=0.0) if isinstance(block, Figure) else block for block in blocks)

    sections = tuple(replace(section, blocks=plain(section.blocks)) for section in page.sections)
    return replace(page, first=plain(page.first), sections=sections)


def in_memory(job: Path, *, brief: bool = False, draw: bool = True) -> Source:
    """What a record holds, as a result in memory."""
    tables = {file.stem: pd.read_parquet(file) for file in job.glob("*.parquet")}
    summary, config = json.loads((job / "summary.json").read_text()), yaml.safe_load((job / "config.yaml").read_text())
    return Source.of(tables, summary, config, brief=brief, draw=draw)


def titles(source: str) -> list[str]:
    """The titles of a page's tables."""
    return re.findall(r"<h3>(.*?)</h3>", source)


@pytest.mark.slow
class TestRecord:
    def test_in_memory_is_shown_as_on_disk(self, job: Path) -> None:
        live = describe(in_memory(job))
        assert not (job / "figures").exists()
        on_disk = Source(Record(job))
        assert undrawn(live) == undrawn(describe(on_disk))
        assert on_disk.problems == []
        assert {file.stem for file in (job / "figures").glob("*.png")} == {file.stem for file in on_disk.drawn}
        assert any(isinstance(block, Figure) for block in live.first)

    def test_the_first_screen_alone_has_the_same_blocks(self, job: Path) -> None:
        whole, brief = describe(in_memory(job)), describe(in_memory(job, brief=True))
        assert brief.sections == ()
        assert brief.first == whole.first
        without = describe(in_memory(job, brief=True, draw=False))
        assert without.first == tuple(block for block in whole.first if not isinstance(block, Figure))

    def test_every_table_of_the_terminal_is_on_the_page(self, job: Path) -> None:
        text, whole = printed(first_screen(Record(job))), describe(Source(Record(job)))
        tables = [block for block in (*whole.first, *whole.card) if isinstance(block, Table)]
        assert text.count("\n ──") == len(tables) > 0
        source = html.render(whole)
        shown = read(source)
        for table in tables:
            assert table.title in text
            assert table.title in titles(source)
            for row in table.rows:
                for cell, column in zip(row, table.columns, strict=True):
                    assert cell.text in shown.text
                    assert column.extra or all(part in text for part in cell.text.split())  # a terminal may fold it

    def test_a_table_that_the_page_lacks_would_be_noticed(self, job: Path) -> None:
        whole = describe(Source(Record(job)))
        (table, *_) = [block for block in whole.first if isinstance(block, Table)]
        assert table.title not in titles(html.render(Page("q", first=whole.first[1:])))

    def test_the_card_is_the_last_of_a_terminal_and_the_first_elsewhere(self) -> None:
        both = Page("q", "the answer", first=(Prose("what was found"),), card=(Prose("the card"),))
        order = ("the answer", "the card", "what was found")
        for source in (html.render(both), notebook.html(both)):
            text = read(source).text
            assert sorted(order, key=text.index) == list(order)
        assert printed(both).index("what was found") < printed(both).index("the card")

    def test_a_notebook_shows_the_first_screen(self, job: Path) -> None:
        live = describe(in_memory(job, brief=True))
        source = notebook.html(live)
        assert 0 < source.count("data:image/svg+xml") <= 2
        assert 'class="missing"' not in source
        assert live.question in read(source).text
        assert len(source) < 500_000
