"""A task is one file: it runs from the command line, leaves a record, is shown, and is collected in a sweep."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

FILE = Path(__file__).with_name("toy_task.py")


def run(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FILE), *overrides]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def test_it_is_one_file_of_under_80_lines_with_one_call() -> None:
    text = FILE.read_text()
    assert len(text.splitlines()) < 80
    calls = [
        node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call) and "register" in ast.dump(node.func)
    ]
    assert len(calls) == 1


def test_it_runs_leaves_a_record_and_is_shown(tmp_path: Path) -> None:
    ran = run(tmp_path, "task=toy", "coin.flips=7", "hydra.run.dir=job")
    assert ran.returncode == 0, ran.stderr
    assert json.loads((tmp_path / "job" / "status.json").read_text())["state"] == "complete"
    flips = pd.read_parquet(tmp_path / "job" / "flips.parquet")
    assert len(flips) == 7
    assert "flips" in ran.stdout  # the table, on the terminal
    page = (tmp_path / "job" / "report.html").read_text()
    assert "<table" in page
    assert "heads" in page


@pytest.mark.parametrize(("override", "key"), [("coin.flips=0", "coin.flips"), ("coin.flop=1", "flop")])
def test_its_settings_are_checked(override: str, key: str, tmp_path: Path) -> None:
    ran = run(tmp_path, "task=toy", override)
    assert ran.returncode == 2
    assert key in ran.stderr
    assert not (tmp_path / "outputs").exists()


@pytest.mark.slow
def test_it_is_collected_in_a_sweep(tmp_path: Path) -> None:
    ran = run(tmp_path, "-m", "task=toy", "coin.seed=0,1,2", "hydra.sweep.dir=sweep")
    assert ran.returncode == 0, ran.stderr
    flips = pd.read_parquet(tmp_path / "sweep" / "flips.parquet")
    assert flips.groupby("job").size().tolist() == [10, 10, 10]
    jobs = pd.read_parquet(tmp_path / "sweep" / "jobs.parquet")
    assert jobs["task"].unique().tolist() == ["toy"]
    assert sorted(jobs["coin.seed"]) == ["0", "1", "2"]
    assert "toy" in (tmp_path / "sweep" / "report.html").read_text()
    again = run(tmp_path, "-m", "task=toy", "coin.seed=0,1,2", "hydra.sweep.dir=sweep")
    assert "3 complete already" in again.stderr + again.stdout
