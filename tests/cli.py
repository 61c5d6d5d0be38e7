"""What tests of the command line share."""

from __future__ import annotations

import os
import subprocess
import sys
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
