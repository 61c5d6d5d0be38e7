"""The notebooks of docs/: they run, what they show is there, and nothing of the machine that ran them is."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook, new_output

from actmax import Verdict
from actmax.report.words import label
from notebooks import FOLDER, execute, problems

FIRST_STEPS = FOLDER / "first-steps.ipynb"
TINY = {'NAME = "smollm2"': 'NAME = "tiny"', 'UNIT = "resid_pre.8[91]"': 'UNIT = "resid_pre.3[7]"'}
"""What makes the notebook one on a small random model."""


def cell(notebook: NotebookNode, name: str) -> NotebookNode:
    return next(one for one in notebook.cells if one.id == name)


def kinds(one: NotebookNode) -> list[list[str]]:
    """The form of each output of a cell."""
    return [sorted(output.get("data", {output.get("name", "error"): None})) for output in one.get("outputs", [])]


def assert_shows_the_verdict(notebook: NotebookNode) -> None:
    """The result's own HTML says the answer of the verdict that `found.verdict` gives."""
    (output,) = cell(notebook, "verdict").outputs
    verdict = Verdict(re.findall(r"'(\w+)'", output.data["text/plain"])[0])
    (output,) = cell(notebook, "maximize").outputs  # one, in all its forms
    card = f"{label(verdict.answer).capitalize()}: would another start give the same answer?"
    assert card in output.data["text/html"]
    assert card in " ".join(output.data["text/plain"].split())


@pytest.fixture
def committed() -> NotebookNode:
    return nbformat.read(FIRST_STEPS, as_version=4)


@pytest.fixture(scope="module")
def on_tiny(session_cache: Path) -> NotebookNode:
    notebook = nbformat.read(FIRST_STEPS, as_version=4)
    for old, new in TINY.items():
        assert cell(notebook, "load").source.count(old) == 1
        cell(notebook, "load").source = cell(notebook, "load").source.replace(old, new)
    return execute(notebook, {"ACTMAX_CACHE": str(session_cache)})


@pytest.mark.slow
class TestOnTiny:
    def test_every_cell_runs(self, on_tiny: NotebookNode) -> None:
        assert problems(on_tiny) == []
        assert cell(on_tiny, "load").outputs[-1].data["text/plain"].startswith("tiny: ")

    def test_the_result_shows_its_verdict(self, on_tiny: NotebookNode) -> None:
        assert_shows_the_verdict(on_tiny)

    def test_what_is_opened_is_what_was_saved(self, on_tiny: NotebookNode) -> None:
        shown = cell(on_tiny, "save").outputs[-1].data["text/plain"]
        assert shown.startswith("(True,")
        assert "report.html" in shown


class TestCommitted:
    def test_it_is_clean_and_small(self, committed: NotebookNode) -> None:
        nbformat.validate(committed)
        assert problems(committed) == []
        assert FIRST_STEPS.stat().st_size < 600_000

    def test_it_was_run_from_the_top(self, committed: NotebookNode) -> None:
        code = [one for one in committed.cells if one.cell_type == "code"]
        assert [one.execution_count for one in code] == [number + 1 for number in range(len(code))]

    def test_what_ends_in_an_expression_shows_something(self, committed: NotebookNode) -> None:
        code = [one for one in committed.cells if one.cell_type == "code"]
        assert all(one.outputs for one in code if isinstance(ast.parse(one.source).body[-1], ast.Expr))
        assert_shows_the_verdict(committed)

    @pytest.mark.slow
    def test_it_is_what_runs_here(self, committed: NotebookNode, on_tiny: NotebookNode) -> None:
        pairs = list(zip(committed.cells, on_tiny.cells, strict=True))
        assert [ours.id for ours, theirs in pairs if ours.source != theirs.source] == ["load"]
        # outputs of another version would be of other forms
        assert [kinds(ours) for ours, _ in pairs] == [kinds(theirs) for _, theirs in pairs]

    def test_its_links_lead_somewhere(self, committed: NotebookNode) -> None:
        text = "\n".join(one.source for one in committed.cells if one.cell_type == "markdown")
        links = re.findall(r"\]\(([^)#]+)(?:#([^)]*))?\)", text)
        assert len(links) > 5
        for file, anchor in links:
            page = (FOLDER / file).read_text(encoding="utf-8")
            titles = [title.lower().replace(" ", "-") for title in re.findall(r"^#+ (.+)$", page, re.MULTILINE)]
            assert not anchor or anchor in titles, (file, anchor)


class TestControls:
    """What the tests above would notice."""

    def test_a_cell_that_raises(self) -> None:
        with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
            execute(new_notebook(cells=[new_code_cell("1 + 1"), new_code_cell("1 / 0")]))

    def test_a_cell_that_warns_or_names_a_place(self) -> None:
        progress = "import sys, warnings, pathlib; print('actmax: search: step 3 of 20, 4 s', file=sys.stderr)"
        cells = [new_code_cell(f"{progress}; warnings.warn('old')"), new_code_cell("pathlib.Path.cwd()")]
        ran = execute(new_notebook(cells=cells))
        warned, *places = problems(ran)
        assert "UserWarning: old" in warned
        assert "step 3" not in warned
        assert places[-1].startswith(f"{ran.cells[1].id}: /")

    @pytest.mark.parametrize(
        ("output", "noticed"),
        [
            (new_output("error", ename="KeyError", evalue="'x'", traceback=[]), True),
            (new_output("stream", name="stderr", text="warned"), True),
            (new_output("stream", name="stdout", text="saved to /home/me/runs"), True),
            (new_output("display_data", {"text/html": "<td>/root/.cache</td>"}), True),
            (
                new_output(
                    "display_data", {"text/html": '<img src="data:image/png;base64,/tmp/a">', "image/png": "/tmp/"}
                ),
                False,
            ),
            (new_output("stream", name="stdout", text="units/s; a home/work"), False),
        ],
    )
    def test_of_outputs(self, output: NotebookNode, noticed: bool) -> None:
        found = problems(new_notebook(cells=[new_code_cell("x", outputs=[output])]))
        assert bool(found) == noticed


@pytest.mark.slow
def test_on_the_real_model(committed: NotebookNode) -> None:
    ran = execute(committed)
    assert problems(ran) == []
    assert_shows_the_verdict(ran)
    assert [kinds(one) for one in ran.cells] == [kinds(one) for one in committed.cells]


@pytest.mark.slow
def test_loading_in_a_kernel_warns_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether ipywidgets is there or not; the scripts of this project silence nothing here."""
    monkeypatch.delenv("PYTHONWARNINGS", raising=False)
    code = "import actmax\nlm = actmax.load('tiny')"
    notebook = new_notebook(cells=[new_code_cell(code)])
    client = NotebookClient(notebook, timeout=120, kernel_name="python3")
    client.execute()
    assert [output for output in notebook.cells[0].outputs if output.get("name") == "stderr"] == []
