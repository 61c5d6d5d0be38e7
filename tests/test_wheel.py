"""The built wheel, in an empty environment, from an empty folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from cli import QUICK

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_wheel_runs_by_itself(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path / "dist"), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=True)
    tools = tmp_path / "venv" / "bin"
    install = [str(tools / "python"), "-m", "pip", "install", "--quiet", "--constraint", str(ROOT / "constraints.txt")]
    subprocess.run([*install, str(wheel)], check=True)
    empty = tmp_path / "empty"
    empty.mkdir()
    command = [str(tools / "actmax"), "experiment=reproducibility", "subject=tiny", *QUICK]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ran = subprocess.run(command, cwd=empty, capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stderr
    (job,) = (empty / "outputs" / "reproducibility").glob("tiny_*")
    summary = json.loads((job / "summary.json").read_text())
    assert summary["tokens_total"] == 50
    assert "would another start give the same answer?" in ran.stdout
    sweep = [str(tools / "actmax"), "-m", "subject=tiny", "steps=2", "seeds=0,1", "sweep=s", *QUICK]
    swept = subprocess.run(sweep, cwd=empty, capture_output=True, text=True, env=environment)
    assert swept.returncode == 0, swept.stderr
    assert json.loads((empty / "outputs/s/sweep.json").read_text())["jobs"]["complete"] == 2
    collected = subprocess.run([str(tools / "actmax-report"), "outputs/s"], cwd=empty, capture_output=True, text=True)
    assert collected.returncode == 0, collected.stderr
    assert (empty / "outputs/s/report.html").stat().st_size > 10_000
    lacking = subprocess.run([*sweep, "launch=gpus"], cwd=empty, capture_output=True, text=True, env=environment)
    assert lacking.returncode == 2
    assert "pip install 'actmax[ray]'" in lacking.stderr
