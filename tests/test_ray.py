"""Sweeps by a real Ray on this machine, with invented GPUs: Ray pins and counts them, and tiny runs on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from cli import QUICK, planted, states

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
pytest.importorskip("ray")

TABLES = ("tokens", "restarts", "candidates", "trajectory", "units", "layers")
SWEEP = ("-m", "subject=tiny", "steps=20", "sweep=s", "seeds=0,1,2,3,4,5,6,7", *QUICK)
GPUS = ("launch=gpus", "launch.gpus=2")


def actmax_command(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """A process of its own, whose workers find the tests' callbacks."""
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "actmax", *overrides]
    return subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=900
    )


def intervals(folder: Path) -> list[tuple[str, str, str]]:
    """Of each job: the GPUs that it saw, when it started, when it ended."""
    found = []
    for file in folder.glob("*/status.json"):
        status = json.loads(file.read_text())
        device = json.loads((file.parent / "summary.json").read_text())["device"]
        found.append((device["visible"], status["started"], status["finished"]))
    return sorted(found, key=lambda one: one[1])


def most_at_once(spans: list[tuple[str, str, str]]) -> int:
    """The largest number of jobs that ran at one time."""
    return max(sum(start <= at < end for _, start, end in spans) for _, at, _ in spans)


def test_a_sweep_of_which_one_job_raises_and_one_is_killed(tmp_path: Path) -> None:
    sweep = (*SWEEP, *planted(tmp_path / "plants"))
    (tmp_path / "plants/2").write_text("raise")
    (tmp_path / "plants/5").write_text("kill")
    ran = actmax_command(tmp_path, *sweep, *GPUS)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "2 of 8 jobs are not complete" in ran.stderr
    assert "RuntimeError: planted" in ran.stdout
    assert "its process ended without a word" in ran.stdout
    folder = tmp_path / "outputs/s"
    jobs = sorted(file.parent for file in folder.glob("*/status.json"))
    assert sorted(states(jobs)) == ["complete"] * 6 + ["failed"] * 2
    assert len(pd.read_parquet(folder / "tokens.parquet")) == 6 * 5

    before = {job: json.loads((job / "status.json").read_text()) for job in jobs}
    again = actmax_command(tmp_path, *sweep, *GPUS)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "6 complete already, skipped" in again.stdout
    changed = [job for job in jobs if json.loads((job / "status.json").read_text()) != before[job]]
    assert sorted(before[job]["state"] for job in changed) == ["failed", "failed"]

    spans = intervals(folder)
    assert {gpu for gpu, _, _ in spans} == {"0", "1"}
    for gpu in ("0", "1"):
        assert most_at_once([one for one in spans if one[0] == gpu]) == 1

    undisturbed = actmax_command(tmp_path, *sweep, "sweep=whole", *GPUS)
    assert undisturbed.returncode == 0, undisturbed.stdout + undisturbed.stderr
    for name in TABLES:
        pair = [pd.read_parquet(tmp_path / "outputs" / one / f"{name}.parquet") for one in ("s", "whole")]
        pd.testing.assert_frame_equal(*pair, check_exact=True)


def test_several_jobs_per_gpu_share_it(tmp_path: Path) -> None:
    """The control of the test above: here two jobs are on one GPU at a time, and the same measure sees it."""
    ran = actmax_command(
        tmp_path,
        *SWEEP[:-5],
        "seeds=0,1,2,3",
        "steps=400",
        *QUICK,
        "launch=gpus",
        "launch.gpus=1",
        "launch.jobs_per_gpu=2",
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert most_at_once(intervals(tmp_path / "outputs/s")) == 2


def test_a_gpu_that_is_not_there_is_refused_before_anything_starts(tmp_path: Path) -> None:
    ran = actmax_command(tmp_path, *SWEEP, "launch=gpus", "launch.gpus=0")
    assert ran.returncode == 2, ran.stdout + ran.stderr
    assert "a job asks for 1 GPU, and Ray finds 0" in ran.stderr
    assert not list(tmp_path.rglob("status.json"))
    nobody = actmax_command(tmp_path, *SWEEP, "launch=cluster")
    assert nobody.returncode == 2, nobody.stdout + nobody.stderr
    assert "ray start --head" in nobody.stderr
