"""The simulation: draws groups, compares them by every test, and writes its tables."""

from __future__ import annotations

import time

import torch
from omegaconf import DictConfig

from actmax.records.store import Summary
from actmax.stats.simulation import simulate
from actmax.tasks.simulation.tables import write_simulation
from actmax.tasks.simulation.task import design_of
from actmax.tasks.subjects import circumstances
from actmax.tasks.task import Run, Task, Work, hashed


class SimulationWork(Work):
    """t-test against logistic regression where the truth is known.

    Args:
        task: the kind of job.
        cfg: the job's config, checked.
    """

    def __init__(self, task: Task, cfg: DictConfig) -> None:
        self.cfg = cfg
        self.identity = {"job_hash": hashed(task.identity(cfg), None, {})}

    @property
    def title(self) -> tuple[str, list[str]]:
        """Name and tags of the job's run: its distribution and group sizes."""
        design = self.cfg.simulation
        return f"simulation {design.distribution} {design.n_0} against {design.n_1}", [design.distribution]

    def perform(self, run: Run) -> Summary:
        """Simulates, compares by every test, and returns the summary."""
        clock = time.perf_counter()
        headline = write_simulation(run.contents, simulate(design_of(self.cfg)))
        seconds = {"simulation": time.perf_counter() - clock}
        return {**headline, **circumstances(self.identity["job_hash"], torch.device("cpu"), seconds)}
