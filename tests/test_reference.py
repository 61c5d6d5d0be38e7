"""The reference of keys and choices is what the schema says, whole, and its check notices when it is not."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import reference
from actmax.app import config
from actmax.errors import InputError
from actmax.maximize.settings import TERMS
from actmax.settings import limits


@pytest.fixture(scope="module")
def text() -> str:
    return reference.page()


def leaves(content: dict[str, Any], path: str = "") -> list[str]:
    found = []
    for key, value in content.items():
        found += leaves(value, f"{path}{key}.") if isinstance(value, dict) and value else [f"{path}{key}"]
    return found


def test_the_page_is_what_the_schema_says(text: str) -> None:
    assert reference.PAGE.read_text(encoding="utf-8") == text, "run python scripts/reference.py"


ENTRY = re.compile(r"^- `([^`=]+)(?:=[^`]*)?`(?: \(([^)]*(?:\([^)]*\)[^)]*)*)\))?: (.*)$", re.DOTALL)
"""Key or group, type with default, meaning."""


def entries(text: str) -> list[str]:
    """The entries of the page's lists, each on one line."""
    return [" ".join(one.split()) for one in re.findall(r"^- `.*(?:\n  .*)*", text, re.MULTILINE)]


def parts(entry: str) -> tuple[str, str, str]:
    found = ENTRY.match(entry)
    assert found, entry
    return found[1], found[2] or "", found[3]


def test_every_key_and_every_choice_stands_in_it(text: str) -> None:
    content: Any = OmegaConf.to_container(OmegaConf.structured(config.schema()), throw_on_missing=False)
    keys = leaves({key: value for key, value in content.items() if key != "callbacks"})
    assert len(keys) > 120
    assert [key for key in keys if f"\n- `{key}` (" not in text] == []
    files = sorted(config.conf_folder().glob("*/*.yaml"))
    assert [file for file in files if f"\n- `{file.parent.name}={file.stem}`: " not in text] == []


def test_every_entry_has_a_meaning(text: str) -> None:
    found = [parts(entry) for entry in entries(text)]
    assert len(found) > 150
    assert [one for one in found if len(one[2].partition("Allowed:")[0]) < 4] == []
    assert [one for one in found if one[1] and one[1] != "mapping" and ", default `" not in one[1]] == []


def test_no_line_is_long_and_none_begins_with_a_mark_by_accident(text: str) -> None:
    assert [line for line in text.splitlines() if len(line) > reference.WIDTH] == []
    text = ("one - two `a b` three 1. four # five * six 2) seven + eight `c - d` " * 40).strip()
    long = reference.wrapped(text, "- ")
    lines = long.splitlines()
    assert len(lines) > 20
    assert max(map(len, lines)) <= reference.WIDTH
    assert [line for line in lines[1:] if re.match(r"\s*([-*#]|\d[.)])(\s|$)", line)] == []
    assert " ".join(long.split()) == f"- {text}"
    assert [line for line in lines if line.count("`") % 2] == []  # code is whole
    assert len(reference.wrapped("x" * 130)) == 130  # a word stays whole


@pytest.mark.parametrize("change", ["a key lost", "a key too many", "a default changed", "no file"])
def test_the_check_notices(change: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "reference.md"
    lines = text.splitlines(keepends=True)
    (place,) = (number for number, line in enumerate(lines) if line.startswith("- `search.passes` ("))
    changed = {
        "a key lost": lines[:place] + lines[place + 1 :],
        "a key too many": [*lines[:place], lines[place].replace("passes", "parses"), *lines[place:]],
        "a default changed": [*lines[:place], lines[place].replace("2000", "3000"), *lines[place + 1 :]],
    }
    monkeypatch.setattr(sys, "argv", ["reference.py", "--check", "--file", str(file)])
    file.write_text(text, encoding="utf-8")
    reference.main()
    if change in changed:
        file.write_text("".join(changed[change]), encoding="utf-8")
    else:
        file.unlink()
    with pytest.raises(SystemExit) as stopped:
        reference.main()
    assert isinstance(stopped.value.code, str)  # which Python prints, and exits with 1
    assert "\n" not in stopped.value.code


WRONG = {
    "optimizer.lr": 0.0,
    "trainer.strategy": "ddp",
    **{f"prior.{term}.weight": -1.0 for term in TERMS},
    **{f"prior.{term}.scale": "metric" for term in TERMS},
    "prior.manifold.temperature": 0.0,
    "prior.simplex.final_temperature": float("nan"),
    "simulation.repetitions": 1,
    "simulation.n_0": 1,
    "simulation.distribution": "uniform",
    "simulation.alpha": 1.0,
    "tuning.sites": ["resid"],
    "tuning.alpha": 1.0,
    "tuning.C": 0.0,
    "tuning.words": 3,
    "search.passes": 1,
    "examples.sample": 999,
    "launch.minutes": 0,
    "logger.name": "paper",
}


def test_every_limit_stands_in_the_page(text: str) -> None:
    allowed = {key: said.partition("Allowed: ")[2].replace("`", "") for key, _, said in map(parts, entries(text))}
    for key, limit in limits(config.schema()).items():
        assert str(limit) in allowed[key], key


@pytest.mark.parametrize("key", WRONG)
def test_what_it_calls_wrong_is_refused(key: str) -> None:
    with initialize_config_dir(str(config.conf_folder()), version_base="1.3"):
        cfg = compose("config", ["task=simulation"] if key.startswith("simulation") else [])
    config.check(cfg)
    OmegaConf.update(cfg, key, WRONG[key])
    with pytest.raises(InputError) as refused:
        config.check(cfg)
    assert refused.value.key == key
