"""The pages: every command in them is one that the app takes, every Python block runs, every file that they name is
there, no line is long; the site builds, and is whole."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from safetensors.numpy import save_file

import notebook_pages
from actmax.api import load
from actmax.api import open as load_record
from actmax.app import config
from actmax.errors import InputError

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))
FENCE = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
LOADING = re.compile(
    r"<(?:script|img|iframe|source|audio|video|embed)\b[^>]*\ssrc\s*=\s*[\"']?([^\"'\s>]+)", re.IGNORECASE
)
LINKED = re.compile(r"<link\b[^>]*\shref\s*=\s*[\"']?([^\"'\s>]+)[^>]*>", re.IGNORECASE)
STYLED = re.compile(r"(?:@import\s+(?:url\()?|url\()\s*[\"']?([^\"')\s;]+)", re.IGNORECASE)
SCRIPTED = re.compile(r"(?:fetch|importScripts|import|\.open|new Worker)\s*\(\s*(?:\"GET\"\s*,\s*)?[\"']([^\"']+)")


def commands(text: str) -> Iterator[list[str]]:
    """What stands behind `actmax` on the lines of fenced blocks, as a shell would split it."""
    for block in FENCE.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("actmax ") and not {"--help", "experiments"} & set(line.split()):
                yield shlex.split(line, comments=True)[1:]


def jobs(words: list[str]) -> list[list[str]]:
    """The overrides of every job of a command."""
    if words[0] not in ("-m", "--multirun"):
        return [words]
    (batch,) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(words[1:]), None)
    return batch


def checked(words: list[str]) -> None:
    """Composes every job of a command, and asks what can be asked without a subject.

    Raises:
        HydraException: a key, a choice or a value's form is wrong.
        InputError: a value is.
    """
    config.register()
    for overrides in jobs(words):
        with initialize_config_dir(str(config.conf_folder()), version_base="1.3"):
            cfg = compose("config", overrides, return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        config.check(cfg)


PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
SHOWN = {page.name: list(commands(page.read_text(encoding="utf-8"))) for page in PAGES}


def test_there_are_commands() -> None:
    assert {len(SHOWN[name]) > 5 for name in ("README.md", "tutorial.md", "howto.md", "tuning.md")} == {True}


@pytest.fixture
def directions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of directions that commands name, which are read wherever a command is checked."""
    monkeypatch.chdir(tmp_path)
    save_file({"verb": np.ones(576), "noun": -np.ones(576)}, "probe.safetensors")
    (tmp_path / "nouns").mkdir()
    names = ("decoder", *(f"decoder_shuffled_{number}" for number in (1, 2, 3)))
    save_file({f"resid_post.12/{name}": np.ones(576) for name in names}, "nouns/directions.safetensors")
    shutil.copytree(ROOT / "tests" / "reference" / "sae" / "sparsify" / "layers.3", tmp_path / "saes" / "layers.12")


@pytest.mark.usefixtures("directions")
@pytest.mark.parametrize("page", [name for name, found in SHOWN.items() if found])
def test_every_command_is_one_that_the_app_takes(page: str) -> None:
    wrong = []
    for words in SHOWN[page]:
        # an atlas asks the subject how wide it is
        known = [word for word in words if not word.startswith("subject=")] + ["subject=tiny"]
        try:
            checked(known if "experiment=atlas" in words else words)
        except (HydraException, InputError) as error:
            wrong.append(f"{shlex.join(words)}: {error}")
    assert wrong == []


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("actmax experiment=reproducibilty", HydraException),
        ("actmax unit.indx=3", HydraException),
        ("actmax unit.index=0,1", HydraException),
        ("actmax experiment=nouns_verbs tuning.group_0=upos=NOUN", HydraException),
        ("actmax unit.site=mlp  # not one", InputError),
        ("actmax -m seeds=0,1 optimizer.lr=0", InputError),
    ],
)
def test_a_command_that_it_does_not_take_is_noticed(line: str, error: type[Exception]) -> None:
    (words,) = commands(f"As here:\n\n```sh\n{line}\n```\n")
    with pytest.raises(error):
        checked(words)


PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
SMALLER = {'"smollm2"': '"tiny"', "steps=100": "steps=5", "passes=400": "passes=60", "seeds=10": "seeds=3, steps=5"}
SMALLER |= {'" Paris"': '"P"', '" London"': '"L"'}  # tokens are single bytes there
"""What a block says on the page, and what is run in its place."""


def ran(text: str) -> dict[str, Any]:
    """Runs the Python blocks of a page one after the other, on a small model, and gives their names."""
    names: dict[str, Any] = {}
    for block in PYTHON.findall(text):
        for said, run in SMALLER.items():
            block = block.replace(said, run)
        exec(block, names)
    return names


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the blocks read: a model, texts, words."""
    monkeypatch.chdir(tmp_path)
    subject = load("tiny").subject
    for one in (subject.model, subject.tokenizer):
        one.save_pretrained(tmp_path / "models" / "mine")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 20)
    words = [f"{one}{two},{'noun' if one < 'e' else 'verb'}\n" for one in "abcdefgh" for two in "rstu"]
    (tmp_path / "words.csv").write_text("word,category\n" + "".join(words))
    return tmp_path


@pytest.mark.parametrize("page", ["README.md", "docs/python.md", "docs/howto.md"])
@pytest.mark.slow
def test_every_python_block_runs(page: str, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = ran((ROOT / page).read_text(encoding="utf-8"))["found"]
    assert "would another start give the same answer?" in capsys.readouterr().out
    assert load_record("outputs/mine").verdict == found.verdict


@pytest.mark.slow
@pytest.mark.usefixtures("workplace")
def test_the_blocks_on_directions_run() -> None:
    text, _, _ = (DOCS / "targets.md").read_text(encoding="utf-8").partition("## Latents of sparse autoencoders")
    names = ran(text)
    assert str(names["probe"]) == "resid_post.8:probe"
    assert Path("probe.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("page", ["context.md", "reproducibility.md"])
def test_the_blocks_on_contexts_and_evidence_run(page: str) -> None:
    names = ran((DOCS / page).read_text(encoding="utf-8"))
    if page == "reproducibility.md":
        assert (names["decision"].verdict.value, names["decision"].verdict.answer.value) == ("not_above_chance", "no")


def test_a_python_block_that_does_not_run_is_noticed() -> None:
    with pytest.raises(AttributeError, match="maximise"):
        ran('```python\nimport actmax\n\nactmax.load("smollm2").maximise("resid_pre.8[91]")\n```\n')


WIDTH, README_LINES = 120, 119
"""Most characters of a line of Markdown, most lines of the README."""


def too_long(text: str, lines: int | None = None) -> list[str]:
    """The lines of a text that are too long, by number, and how many lines it has where these are too many."""
    found = text.splitlines()
    long = [f"line {number}: {len(line)} characters" for number, line in enumerate(found, 1) if len(line) > WIDTH]
    return long + ([f"{len(found)} lines"] if lines is not None and len(found) > lines else [])


def markdown_files() -> list[Path]:
    """The Markdown files that git tracks; without git those outside of hidden folders."""
    listed = subprocess.run(["git", "ls-files", "-z", "*.md"], capture_output=True, text=True, cwd=ROOT)
    if listed.returncode == 0 and listed.stdout:
        return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    return [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "tests").rglob("*.md")]


@pytest.mark.parametrize("file", markdown_files(), ids=lambda file: str(file.relative_to(ROOT)))
def test_no_line_of_a_page_is_long_and_the_readme_is_short(file: Path) -> None:
    lines = README_LINES if file == ROOT / "README.md" else None
    assert too_long(file.read_text(encoding="utf-8"), lines) == []


def test_all_pages_are_looked_at() -> None:
    assert {*PAGES} <= {*markdown_files()}


def test_a_long_line_and_a_long_readme_are_noticed() -> None:
    assert too_long("x" * 120 + "\n" + "é" * 121 + "\n") == ["line 2: 121 characters"]
    assert too_long("| `a` | b |\n```\n" + "x" * 130 + "\n```") == ["line 3: 130 characters"]
    assert too_long("x\n" * 119, README_LINES) == []
    assert too_long("x\n" * 120, README_LINES) == ["120 lines"]


def test_a_notebook_becomes_markdown_with_places_for_its_outputs() -> None:
    png = new_output("display_data", {"image/png": "aaaa\n", "text/plain": "<Figure>"})
    table = new_output("execute_result", {"text/html": "<table></table>", "text/plain": "1"})
    cells = [
        new_markdown_cell("# Title\n\nText, [a page](../howto.md)."),
        new_code_cell("1 < 2", outputs=[table, png, new_output("stream", name="stdout", text="a < b\n")]),
        new_code_cell("x = 1"),
        new_markdown_cell("## More"),
    ]
    text, outputs = notebook_pages.rendered(new_notebook(cells=cells), "a.ipynb")
    picture = '<img alt="&lt;Figure&gt;" src="data:image/png;base64,aaaa">'
    assert outputs == ["<table></table>", picture, "<pre>a &lt; b\n</pre>"]
    assert re.findall(r"^# .*|^## .*", text, re.MULTILINE) == ["# Title", "## More"]
    assert "[notebook](a.ipynb)" in text
    assert "```python\n1 < 2\n```" in text
    order = [text.index(notebook_pages.PLACE.format(number)) for number in range(3)]
    assert order == sorted(order)
    assert text.index("1 < 2") < order[0] < order[2] < text.index("x = 1")


NAMED = re.compile(r"`(?:python )?((?:src|tests|scripts|conf|docs)/[\w./-]+\.(?:py|yaml|md|json|sh|csv|R))(?: [^`]*)?`")


def absent(text: str) -> list[str]:
    """The files that a text names by their path from the root, and that are not there."""
    return [name for name in NAMED.findall(text) if "NAME" not in name and not (ROOT / name).is_file()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    own, _, _ = page.read_text(encoding="utf-8").partition("## Style, with the places it comes from")
    assert absent(own) == []


def test_a_file_that_is_not_there_is_noticed() -> None:
    text = "`src/actmax/seeds.py`, `conf/prior/NAME.yaml`, `src/actmax/priors.py`, `python scripts/no.py --all`"
    assert absent(text) == ["src/actmax/priors.py", "scripts/no.py"]


def test_the_task_on_the_page_is_the_one_that_is_tested() -> None:
    page = (DOCS / "extending.md").read_text(encoding="utf-8")
    toy = (ROOT / "tests" / "toy_task.py").read_text(encoding="utf-8")
    assert f"```python\n{toy}```" in page


def built(folder: Path, configuration: Path = ROOT / "mkdocs.yml") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(configuration)]
    return subprocess.run([*command, "--site-dir", str(folder)], capture_output=True, text=True, cwd=ROOT)


def loaded(file: Path) -> list[str]:
    """What a file of the site makes a browser load, as it is written there."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".html":
        links = [match for match in LINKED.finditer(text) if 'rel="canonical"' not in match[0]]
        return [*LOADING.findall(text), *(match[1] for match in links), *STYLED.findall(text)]
    return STYLED.findall(text) if file.suffix == ".css" else SCRIPTED.findall(text)


def elsewhere(folder: Path) -> list[str]:
    """Everything that a site loads from another host."""
    files = [file for file in folder.rglob("*") if file.suffix in (".html", ".css", ".js")]
    there = re.compile(r"(?:[a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)
    return [f"{file.name}: {place}" for file in files for place in loaded(file) if there.match(place)]


@pytest.mark.slow
def test_the_site_is_whole_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    ran = built(tmp_path / "site")
    assert ran.returncode == 0, ran.stderr
    pages = [*sorted(DOCS.glob("*.md")), *(file.with_suffix(".md") for file in NOTEBOOKS)]
    assert len(pages) >= 16
    names = [page.relative_to(DOCS).as_posix() for page in pages]
    assert [name for name in names if not (tmp_path / "site" / name).with_suffix(".html").is_file()] == []
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert [name for name in names if f": {name}\n" not in navigation] == []
    assert elsewhere(tmp_path / "site") == []


@pytest.mark.slow
def test_a_notebook_is_a_page_with_its_outputs_and_other_pages_lead_there(tmp_path: Path) -> None:
    assert built(tmp_path / "site").returncode == 0
    for file in NOTEBOOKS:
        page = (tmp_path / "site/notebooks" / f"{file.stem}.html").read_text(encoding="utf-8")
        cells = nbformat.read(file, as_version=4).cells
        outputs = [output for cell in cells if cell.cell_type == "code" for output in cell.outputs]
        assert page.count('<div class="notebook-output">') == len(outputs) > 5
        assert "data-output" not in page  # no place is left
        for output in outputs:
            if "text/html" in (data := output.get("data", {})):
                assert data["text/html"] in page
        assert (tmp_path / "site/notebooks" / file.name).read_bytes() == file.read_bytes()
        assert f'href="notebooks/{file.stem}.html"' in (tmp_path / "site/python.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_broken_link_fails_the_build(tmp_path: Path) -> None:
    shutil.copytree(DOCS, tmp_path / "docs")
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    configuration = tmp_path / "mkdocs.yml"
    places = {"docs_dir": str(tmp_path / "docs"), "hooks": [str(ROOT / hook) for hook in settings["hooks"]]}
    configuration.write_text(yaml.safe_dump({**settings, **places}), encoding="utf-8")
    assert built(tmp_path / "site", configuration).returncode == 0
    for broken in ("[there](nowhere.md)", "[there](search.md#nowhere)", "[there](notebooks/nowhere.ipynb)"):
        shutil.copy(DOCS / "howto.md", tmp_path / "docs")
        with (tmp_path / "docs" / "howto.md").open("a", encoding="utf-8") as page:
            page.write(f"\n{broken}\n")
        ran = built(tmp_path / "site", configuration)
        assert ran.returncode != 0
        assert "nowhere" in ran.stderr


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.html", '<script async src="https://cdn.example/x.js"></script>'),
        ("a.html", "<link rel=stylesheet href='//fonts.example/css'>"),
        ("a.html", "<style>@import url(https://fonts.example/css)</style>"),
        ("a.css", "src: url('http://fonts.example/a.woff2')"),
        ("a.js", 'importScripts("https://cdn.example/x.js")'),
    ],
)
def test_what_loads_from_elsewhere_is_noticed(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert len(elsewhere(tmp_path)) == 1
    (tmp_path / name).write_text('<a href="https://example.org">a link is fine</a>', encoding="utf-8")
    assert elsewhere(tmp_path) == []
