"""Imports between rooms point one way; the check notices one that points up."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """What `make test` runs, on a copy of the package."""
    shutil.copytree(ROOT / "src" / "actmax", folder / "actmax", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return check(folder)


def check(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    env = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("room", "imported"),
    [
        ("stats/groups.py", "actmax.tasks.registry"),
        ("model/target.py", "actmax.evidence.nulls"),
        ("tasks/simulation/task.py", "actmax.tasks.search.task"),
        ("report/blocks.py", "actmax.app.config"),
    ],
)
def test_an_import_that_points_up_is_noticed(room: str, imported: str, tmp_path: Path) -> None:
    kept = lint(tmp_path)
    assert kept.returncode == 0, kept.stdout
    file = tmp_path / "actmax" / room
    file.write_text(f"{file.read_text()}\n\ndef _up() -> None:\n    import {imported}  # noqa: F401\n")
    broken = check(tmp_path)
    assert broken.returncode == 1
    assert imported in broken.stdout
