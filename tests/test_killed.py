"""`kill -9` at 20 random moments over every task: going on gives the same bits as a run that nobody disturbed."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from datetime import datetime
from pathlib import Path

import pytest

from cli import QUICK, Actmax, start

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SHORT = ("logger=none", "page=false", "report=false")
UNIT = ("subject=tiny", "seeds='0:4'", *QUICK, "report=false")
TASKS = {
    "maximization": (*UNIT, "steps=300", "callbacks.checkpoint.every=20", "prior=l2", "rounding.restarts=2"),
    "search": ("task=search", *UNIT, "search.passes=400", "search.candidates=20"),
    "tuning": ("task=tuning", "subject=tiny", "tuning.layers=1", "logger=none", "page=false", "report=false"),
    "examples": (
        "task=examples",
        "subject=tiny",
        "examples.text=text.txt",
        "logger=none",
        "page=false",
        "report=false",
    ),
    "simulation": ("task=simulation", "simulation.repetitions=20", "logger=none", "page=false", "report=false"),
}
KILLS = 4
"""Kills of each task, one after the other in one folder; what they leave is gone on from."""
TIMES = {"device", "seconds", "provenance", "versions", "host", "started", "finished"}


def content(job: Path) -> dict[str, object]:
    """What a job found: its tables and tensors bit by bit, its headline numbers."""
    files = sorted(file for file in job.iterdir() if file.suffix in (".safetensors", ".parquet"))
    found: dict[str, object] = {file.name: file.read_bytes() for file in files}
    summary = json.loads((job / "summary.json").read_text())
    return found | {name: value for name, value in summary.items() if name not in TIMES}


def kill_once(folder: Path, command: tuple[str, ...], rng: random.Random, seconds: float) -> str:
    """Starts the job, and kills it so many seconds behind its start; returns the state that it was in."""
    job = folder / "job"
    process = start(folder, *command, "hydra.run.dir=job", own_group=True)
    begun, status = time.monotonic(), job / "status.json"
    seen = status.stat().st_mtime_ns if status.exists() else 0
    while process.poll() is None and not (status.exists() and status.stat().st_mtime_ns != seen):
        assert time.monotonic() - begun < 90
        time.sleep(0.01)
    time.sleep(seconds * rng.random())
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    return json.loads(status.read_text())["state"]


@pytest.mark.parametrize("task", TASKS)
def test_going_on_gives_the_same_bits(actmax: Actmax, tmp_path: Path, task: str) -> None:
    (tmp_path / "text.txt").write_text("Once upon a time there was a red fox, and a sea. " * 300)
    command, rng = TASKS[task], random.Random(task)
    whole = actmax(*command, "hydra.run.dir=whole")
    assert whole.code == 0, whole.err
    times = json.loads((tmp_path / "whole/status.json").read_text())
    ends = [datetime.fromisoformat(times[name]) for name in ("started", "finished")]
    seconds = (ends[1] - ends[0]).total_seconds()
    states = []
    for number in range(KILLS):  # the first soon behind the start, the others anywhere
        states.append(kill_once(tmp_path, command, rng, seconds * (0.8 if number else 0.1)))
        if states[-1] == "complete":  # there was nothing left to kill
            shutil.rmtree(tmp_path / "job")
    assert "running" in states  # the kills met it at work
    ran = actmax(*command, "hydra.run.dir=job")
    assert ran.code == 0, ran.err
    assert json.loads((tmp_path / "job/status.json").read_text())["state"] == "complete"
    one, other = content(tmp_path / "whole"), content(tmp_path / "job")
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name]] == []
    assert not list((tmp_path / "job").rglob(".*.????????"))  # nothing half written is left
