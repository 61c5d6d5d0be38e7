"""The pictures of the pages: each is there, small, made by a command, and the text says what its records do."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

import actmax
import gallery

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
LARGEST = 150_000
"""Bytes of a picture that a page may show."""
IMAGE = re.compile(r"!\[[^\]]*\]\(\s*([^)\s]+)[^)]*\)|<img\b[^>]*\ssrc=[\"']?([^\"'\s>]+)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SAID = (DOCS / "gallery.md").read_text(encoding="utf-8")
NUMBERS = json.loads(gallery.NUMBERS.read_text(encoding="utf-8"))
LEVELS = {"5", "90", "95"}
"""Percentages of levels and of intervals, which are no finding."""


def images(text: str) -> list[str]:
    """The addresses of all images of a page, as Markdown or HTML."""
    shown = re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))  # a token in code may begin like an image
    return [one or other for one, other in IMAGE.findall(shown)]


def wrong_images(page: Path) -> list[str]:
    """The images that a page names and that are not there, too large, or of another host."""
    wrong = []
    for name in images(page.read_text(encoding="utf-8")):
        file = page.parent / name
        if not file.is_file():
            wrong.append(f"{name}: not there")
        elif file.stat().st_size >= LARGEST:
            wrong.append(f"{name}: too large")
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_image_of_a_page_is_there_and_small(page: Path) -> None:
    assert wrong_images(page) == []


def test_an_image_that_is_missing_or_large_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "large.svg").write_bytes(b" " * LARGEST)
    (tmp_path / "small.svg").write_bytes(b" " * (LARGEST - 1))
    page = tmp_path / "page.md"
    page.write_text('![a b](gone.svg "title") ![](large.svg)\n![over\ntwo](small.svg) <img alt=x src="far.png">\n')
    page.write_text(page.read_text() + "\n`![a](code.svg)`\n\n```\n![oske](code.svg)\n```\n")
    assert wrong_images(page) == ["gone.svg: not there", "large.svg: too large", "far.png: not there"]


def drawn(*texts: str) -> set[str]:
    """The pictures that the gallery's script draws, and those that a command on these pages names."""
    command = re.compile(r"^(?:`|    )?python scripts/\w+\.py [^\n`]*?--figure (\S+\.(?:svg|png))", re.MULTILINE)
    return {f"{name}.svg" for name in gallery.PICTURES}.union(*(command.findall(text) for text in texts))


def test_every_picture_is_made_by_a_command() -> None:
    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    shown = {Path(name).name for text in texts for name in images(text)}
    assert {f"{name}.svg" for name in gallery.PICTURES} < shown  # those of the gallery and others
    assert shown - drawn(*texts) == set()
    assert {file.name for file in gallery.FIGURES.iterdir() if file.suffix in (".svg", ".png")} == shown


def test_a_picture_without_a_command_is_noticed() -> None:
    page = "![](figures/a.svg) ![](figures/b.svg)\n\n```\npython scripts/meaning_units.py FOLDER --figure a.svg\n```\n"
    assert {Path(name).name for name in images(page)} - drawn(page) == {"b.svg"}


def test_the_gallery_shows_every_picture_once() -> None:
    assert [Path(name).stem for name in images(SAID)] == list(gallery.PICTURES)
    assert list(NUMBERS) == list(gallery.PICTURES)


def test_the_pictures_are_those_whose_numbers_are_known() -> None:
    found = {name: hashlib.sha256((gallery.FIGURES / f"{name}.svg").read_bytes()).hexdigest() for name in NUMBERS}
    assert found == {name: picture["sha256"] for name, picture in NUMBERS.items()}


def commands(text: str) -> set[tuple[str, ...]]:
    """The `actmax` lines of fenced blocks, as a shell splits them."""
    lines = "\n".join(body.replace("\\\n", " ") for _, body in FENCE.findall(text)).splitlines()
    return {tuple(shlex.split(line, comments=True)) for line in lines if line.startswith("actmax ")}


def test_the_page_gives_the_commands_that_the_script_runs() -> None:
    run = {tuple(shlex.split(command)) for command in gallery.COMMANDS.values()}
    assert commands(SAID) == run
    assert commands(SAID.replace("steps=200", "steps=100")) != run


def sections(text: str) -> dict[str, str]:
    """The prose below each picture up to the next heading, without code."""
    parts = re.split(r"^## ", FENCE.sub("", text), flags=re.MULTILINE)[1:]
    return {Path(found[0]).stem: part for part in parts if (found := images(part))}


def figures_in(text: str) -> set[str]:
    """The numbers of a text, as they are written."""
    bare = re.sub(r"`[^`]*`|\]\([^)]*\)|\w+-\d+M\b", " ", text)
    return set(re.findall(r"\d[\d,]*(?:\.\d+)?", bare))


def invented(name: str, prose: str) -> set[str]:
    """The numbers of a picture's prose that its records do not give."""
    known = figures_in(" ".join(NUMBERS[name]["numbers"].values()).replace("`", " "))
    known |= figures_in(" ".join(NUMBERS[name]["numbers"]))
    return {one.rstrip(",") for one in figures_in(prose)} - {one.rstrip(",") for one in known} - LEVELS


@pytest.mark.parametrize("name", list(gallery.PICTURES))
def test_every_number_on_the_page_is_of_the_records(name: str) -> None:
    assert invented(name, sections(SAID)[name]) == set()


def test_a_number_that_no_record_gives_is_noticed() -> None:
    prose = sections(SAID)["card"]
    own = sorted(figures_in(prose) - LEVELS)
    assert len(own) > 3
    assert invented("card", prose + " It was 123.4 of 5,678.") == {"123.4", "5,678"}
    assert invented("card", prose.replace(own[-1], f"{own[-1]}7")) == {f"{own[-1]}7"}


def test_the_block_on_the_page_shuffles_as_the_script_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = [body for language, body in FENCE.findall(SAID) if language == "python" and "shuffled.csv" in body]
    exec(block, {})
    gallery.shuffled_words(tmp_path / "script.csv")
    shuffled = (tmp_path / "shuffled.csv").read_bytes()
    assert shuffled == (tmp_path / "script.csv").read_bytes()
    before, after = pd.read_csv(gallery.BUILT_IN_FILE), pd.read_csv(tmp_path / "shuffled.csv")
    assert before["word"].tolist() == after["word"].tolist()
    assert before["category"].value_counts().to_dict() == after["category"].value_counts().to_dict()
    assert 0.3 < (before["category"] == after["category"]).mean() < 0.7  # by chance a half


def checked(content: bytes) -> str:
    """A picture as text, when it is one for a page: small, its text outlines, on a sheet of its own, in SVG."""
    text = content.decode()
    assert len(content) < LARGEST
    root = ElementTree.fromstring(content)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert not root.findall(".//{http://www.w3.org/2000/svg}text")
    assert text.count(f"fill: {gallery.PAPER}") == 1
    assert re.search(r'(?:href|src)="(?!#)', text) is None
    return text


@pytest.mark.parametrize("name", list(gallery.PICTURES))
def test_a_picture_is_a_sheet_that_needs_no_font_and_no_host(name: str) -> None:
    checked((gallery.FIGURES / f"{name}.svg").read_bytes())


UNIT = "resid_pre.2[3]"


def test_a_card_is_drawn_from_any_record_of_one_unit(tmp_path: Path) -> None:
    actmax.load("tiny").maximize(UNIT, seeds=3, steps=6, controls=0).save(tmp_path / "card", page=False)
    picture = gallery.card_picture(tmp_path / "card")
    first = checked(gallery.svg(picture.draw))
    assert first == gallery.svg(picture.draw).decode()  # the same record, the same file
    assert picture.numbers["restarts"] == "3"
    row = actmax.open(tmp_path / "card").units.iloc[0]
    assert f"{row['tokens_unique']:.0f} of {row['tokens_total']:.0f}" in picture.numbers["different tokens"]


def test_two_searches_are_drawn_side_by_side(tmp_path: Path) -> None:
    lm = actmax.load("tiny")
    for context in ("none", "bos"):
        lm.search(UNIT, seeds=3, passes=60, controls=0, context=context).save(tmp_path / context, page=False)
    picture = gallery.contexts_picture(tmp_path)
    checked(gallery.svg(picture.draw))
    assert len(picture.jobs) == len(set(picture.jobs)) == 2
    assert {"none, kept in bos", "bos, kept in text"} <= set(picture.numbers)


def test_a_unit_of_each_layer_is_one_point_of_each_kind() -> None:
    units = pd.DataFrame({"layer": [2, 9], "restarts": 4, "z_final": [50.0, 7.0], "z_snapped": [0.1, 2.0]})
    units = units.assign(shared_tokens=[0.01, 0.3], null_shared_tokens_high=[0.02, 0.025])
    left, right = gallery.layers_figure(units).axes
    assert [line.get_ydata().tolist() for line in left.lines] == [[50.0, 7.0], [0.1, 2.0]]
    assert [line.get_ydata().tolist() for line in right.lines] == [[1.0, 30.0]]
    assert [patch.get_height() for patch in right.patches] == [2.0, 2.5]


def test_chance_of_a_direction_lies_where_nine_of_ten_means_do() -> None:
    null = np.linspace(-1, 1, 2001)
    (axes,) = gallery.direction_figure([("one", np.array([0.5, 0.7]), null)], [["a text"]]).axes
    (bar,) = [patch for patch in axes.patches if patch.get_height() > 0.5]
    assert (bar.get_x(), bar.get_x() + bar.get_width()) == pytest.approx((-0.9, 0.9))
    assert axes.get_yticklabels()[0].get_text() == "one\n“a text”"


def test_labels_that_say_nothing_give_a_flat_histogram() -> None:
    layers = pd.DataFrame({"site": "z", "layer": [0, 1], "accuracy": [0.5, 0.6]})
    layers = layers.assign(accuracy_null_low=0.4, accuracy_null_high=0.6)
    p = {"shuffled": np.linspace(0.0005, 0.9995, 1000), "real": np.full(1000, 0.01)}
    left, right = gallery.null_figure(p, dict.fromkeys(p, layers)).axes
    flat, steep = (patch.get_data().values for patch in left.patches)
    assert flat == pytest.approx([5.0] * 20)
    assert steep[0] == 100
    assert [line.get_ydata().tolist() for line in right.lines] == [[50.0, 60.0]] * 2


def test_a_theme_shows_which_words_are_nearer_than_chance() -> None:
    texts = pd.DataFrame({"kind": ["own", "other", "chance"], "near": [0.4, 0.1, 0.0], "axis": 0.0})
    words = pd.DataFrame({"text": ["ship", "sand"], "similarity": [0.3, 0.1], "chance": 0.0, "z": [6.0, 2.0]})
    figure = gallery.theme_figure(texts, words.assign(p=[0.01, 0.4]), ["a ship", "a boat", "a sail"])
    axes = figure.axes[1]
    near, other = axes.lines
    assert near.get_xdata().tolist() == [0.3]
    assert other.get_xdata().tolist() == [0.1]
    # z = (0.3 - 0) / sd = 6: sd is 0.05, and 95 % of chance lies within 1.96 of it
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([2 * 1.96 * 0.05] * 2)
