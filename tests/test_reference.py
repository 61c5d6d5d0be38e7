"""The reference of keys and choices is what the schema says, whole, and its check notices when it is not."""

from __future__ import annotations

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


def test_every_key_and_every_choice_stands_in_it(text: str) -> None:
    content: Any = OmegaConf.to_container(OmegaConf.structured(config.schema()), throw_on_missing=False)
    keys = leaves({key: value for key, value in content.items() if key != "callbacks"})
    assert len(keys) > 120
    assert [key for key in keys if f"| `{key}` |" not in text] == []
    files = sorted(config.conf_folder().glob("*/*.yaml"))
    assert [file for file in files if f"| `{file.parent.name}={file.stem}` |" not in text] == []


def test_every_row_has_a_meaning(text: str) -> None:
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| `")]
    assert len(rows) > 150
    assert [row for row in rows if len(row[-1].strip(" |")) < 4] == []
    assert {len(row) for row in rows} == {2, 5}  # no bar has split a cell


@pytest.mark.parametrize("change", ["a key lost", "a key too many", "a default changed", "no file"])
def test_the_check_notices(change: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "reference.md"
    lines = text.splitlines(keepends=True)
    (place,) = (number for number, line in enumerate(lines) if line.startswith("| `search.passes` |"))
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
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| `") and line.count(" | ") == 4]
    allowed = {row[0].strip("| `"): row[3] for row in rows}
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
