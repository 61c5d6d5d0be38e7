"""What tests of the command line share."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lightning import Callback

QUICK = ("nulls.pool=1000", "nulls.draws=100", "nulls.displacements=20", "logger=none")


@dataclass(frozen=True)
class Ran:
    """What a command left."""

    code: int
    out: str
    err: str
    folder: Path

    @property
    def jobs(self) -> list[Path]:
        return sorted(file.parent for file in self.folder.rglob("status.json"))

    @property
    def job(self) -> Path:
        (job,) = self.jobs
        return job


Actmax = Callable[..., Ran]


def start(folder: Path, *overrides: str) -> subprocess.Popen[str]:
    """The command line in a process of its own."""
    command = [sys.executable, "-m", "actmax", *overrides]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(
        command, cwd=folder, env={**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}, **pipes
    )


class Failing(Callback):
    """Raises in the middle of a fit."""

    def on_train_batch_end(self, trainer: object, *args: object) -> None:
        if trainer.global_step == 5:  # pyright: ignore[reportAttributeAccessIssue]
            raise RuntimeError("planted")


class Slow(Callback):
    """Takes its time at every step."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def on_train_batch_end(self, trainer: object, *args: object) -> None:
        time.sleep(self.seconds)


class Killing(Callback):
    """Kills the process in the middle of the fit of one seed, as a lack of memory would."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_end(self, trainer: object, pl_module: object, *args: object) -> None:
        if pl_module.rows[0].seed == self.seed and trainer.global_step == 5:  # pyright: ignore[reportAttributeAccessIssue]
            os.kill(os.getpid(), signal.SIGKILL)
