"""A task of one's own in one file: how often a coin falls heads. Run it: python toy_task.py task=toy coin.flips=9."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from actmax.__main__ import main
from actmax.settings import setting
from actmax.tasks.registry import register
from actmax.tasks.task import Run, Task, Work, hashed, settings_of


@dataclass
class CoinSettings:
    """How often the coin is flipped."""

    flips: int = setting(10, least=1)
    """Flips of the coin."""
    seed: int = setting(0, least=0)
    """Seed of the flips."""


class ToyTask(Task):
    """Flips a coin."""

    name = "toy"
    groups: ClassVar = {"coin": CoinSettings}
    keys = ("coin",)

    def line(self, summary: Mapping[str, Any]) -> str:
        return f"{summary['heads']} heads"

    def work(self, cfg: DictConfig, subject: object) -> Work:
        return ToyWork(self, cfg)


class ToyWork(Work):
    """One series of flips."""

    def __init__(self, task: Task, cfg: DictConfig) -> None:
        self.settings = settings_of(cfg, "coin")
        self.identity = {"job_hash": hashed(task.identity(cfg), None, task.read(cfg))}

    def perform(self, run: Run) -> dict[str, Any]:
        heads = np.random.default_rng(self.settings.seed).integers(2, size=self.settings.flips)
        run.contents.write_table("flips", pd.DataFrame({"flip": range(len(heads)), "heads": heads}))
        return {"heads": int(heads.sum()), "seconds": {"total": 0.0}, **self.identity}


register(ToyTask())

if __name__ == "__main__":
    main()
