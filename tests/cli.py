"""What tests of the command line share."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning import Callback

QUICK = (
    "nulls.draws=299",
    "nulls.displacements=20",
    "gap.draws=40",
    "transfer.draws=40",
    "meaning.embedder=none",
    "controls=0",
    "logger=none",
    "page=false",
)


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


def start(folder: Path, *overrides: str, own_group: bool = False) -> subprocess.Popen[str]:
    """The command line in a process of its own."""
    command = [sys.executable, "-m", "actmax", *overrides]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(
        command,
        cwd=folder,
        start_new_session=own_group,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"},
        **pipes,
    )


class Failing(Callback):
    """Raises in the middle of a fit."""

    def on_train_batch_end(self, trainer: object, *args: object) -> None:
        if trainer.global_step == 5:  # pyright: ignore[reportAttributeAccessIssue]
            raise RuntimeError("planted")


class Lost(Callback):
    """Makes restarts of some units go non-finite behind the first step.

    Args:
        seeds: the seeds of these restarts; None for all.
        index: the coordinate of their unit; None for all units, control units too.
    """

    def __init__(self, seeds: list[int] | None = None, index: int | None = None) -> None:
        self.seeds, self.index = seeds, index

    def on_train_batch_end(self, trainer: object, pl_module: Any, *args: object) -> None:
        for number, row in enumerate(pl_module.rows):
            if (self.seeds is None or row.seed in self.seeds) and self.index in (None, row.unit.index):
                pl_module.parameter.data[number] = torch.nan


class Averaging(Callback):
    """What DDP does to gradients, and nobody should: every rank steps along the mean of all."""

    def on_before_optimizer_step(self, trainer: object, module: Any, optimizer: object) -> None:
        if dist.is_initialized():
            dist.all_reduce(module.parameter.grad)
            module.parameter.grad /= dist.get_world_size()


class Diary(Callback):
    """Writes down which process optimizes which restarts, and how exact its products are."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_start(self, trainer: object, module: Any) -> None:
        rank = dist.get_rank() if dist.is_initialized() else 0
        rows = [[row.unit.index, row.seed] for row in module.rows]
        said = {"pid": os.getpid(), "rows": rows, "products": torch.get_float32_matmul_precision()}
        (self.folder / f"rank{rank}.json").write_text(json.dumps(said))


class Doomed(Callback):
    """Ends rank 1 in the middle of a fit: it raises, or a signal kills it."""

    def __init__(self, folder: str, kill: bool) -> None:
        self.moment = Path(folder) / "moment"
        self.kill = kill

    def on_train_batch_end(self, trainer: Any, *args: object) -> None:
        if trainer.global_step == 5 and dist.get_rank() == 1:
            self.moment.write_text(datetime.now(UTC).isoformat())
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("planted on rank 1")


class Planted(Callback):
    """Ends one job of a sweep at step 5, once: as long as a file called like the seed lies in a folder.

    Args:
        folder: of the files; one called `3` with the text `raise` or `kill` ends the job whose first seed is 3.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_batch_end(self, trainer: object, pl_module: object, *args: object) -> None:
        file = self.folder / str(pl_module.rows[0].seed)  # pyright: ignore[reportAttributeAccessIssue]
        if trainer.global_step != 5 or not file.exists():  # pyright: ignore[reportAttributeAccessIssue]
            return
        how = file.read_text()
        file.unlink()
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise RuntimeError("planted")


class Slow(Callback):
    """Takes its time at every step."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def on_train_batch_end(self, trainer: object, *args: object) -> None:
        time.sleep(self.seconds)


class Seen(Callback):
    """Writes down which GPUs the job may see."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_fit_start(self, trainer: object, pl_module: object) -> None:
        seed = pl_module.rows[0].seed  # pyright: ignore[reportAttributeAccessIssue]
        (self.folder / f"seen-{seed}").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "none"))


def planted(folder: Path) -> tuple[str, str]:
    """The overrides that plant it."""
    folder.mkdir(exist_ok=True)
    return "+callbacks.planted._target_=cli.Planted", f"+callbacks.planted.folder={folder}"


def states(jobs: list[Path]) -> list[str]:
    return [json.loads((job / "status.json").read_text())["state"] for job in jobs]
