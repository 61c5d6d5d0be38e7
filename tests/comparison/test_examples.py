"""The examples in the docstrings, and the one in the docs, do what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import actmax.stats

MODULES = [
    "actmax.stats",
    *(f"actmax.stats.{m.name}" for m in pkgutil.iter_modules(actmax.stats.__path__)),
]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_examples_to_run():
    finder = doctest.DocTestFinder()
    found = [test for name in MODULES for test in finder.find(importlib.import_module(name))]
    assert sum(len(test.examples) for test in found) > 8


@pytest.mark.slow
def test_the_docs_example_runs(capsys):
    text = (Path(__file__).parents[2] / "docs" / "statistics.md").read_text(encoding="utf-8")
    exec(re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1), {})
    assert "overlapping units" in capsys.readouterr().out
