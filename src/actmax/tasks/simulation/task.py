"""t-test against logistic regression on simulated data: settings, checks and identity."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from omegaconf import DictConfig

from actmax.settings import LARGEST, required
from actmax.stats.design import Design
from actmax.tasks.bounds import WORD, Share
from actmax.tasks.task import Task, settings_of

if TYPE_CHECKING:
    from actmax.model.architecture import Geometry
    from actmax.report.source import Source
    from actmax.tasks.commands import Next

COLUMNS = 70
"""Numbers in a unit's row of a comparison."""


class SimulationTask(Task):
    """t-test against logistic regression on simulated data."""

    name = "simulation"
    groups: ClassVar = {"simulation": Design}
    keys = ("simulation",)
    work_import = "actmax.tasks.simulation.work:SimulationWork"
    page_import = "actmax.tasks.simulation.page:simulation_page"

    def check(self, cfg: DictConfig) -> None:
        """Refuses a design that cannot be simulated."""
        required(cfg.simulation.seed, int, "simulation.seed", least=0, most=LARGEST)
        design_of(cfg)

    def shares(self, cfg: DictConfig, sizes: Geometry | None) -> Iterable[Share]:  # noqa: ARG002
        """Every sample and every row of the table is held; the key is the largest of the three counts."""
        design = cfg.simulation
        counts = {key: design[key] for key in ("n_0", "n_1", "repetitions")}
        key = max(counts, key=lambda one: counts[one])
        numbers = len(design.effects) * design.repetitions * (design.n_0 + design.n_1 + COLUMNS)
        yield Share(f"simulation.{key}", WORD * numbers / counts[key])

    def label(self, cfg: DictConfig) -> str:
        """The distribution that is drawn from."""
        return f"simulation_{cfg.simulation.distribution}"

    def after(self, source: Source) -> Next:  # noqa: ARG002
        """The same tests on real words."""
        from actmax.tasks.commands import job

        return job("the same tests on real words", "experiment=nouns_verbs", "subject=smollm2")

    def statement(self, summary: Mapping[str, Any]) -> str:
        """Where logistic regression breaks."""
        from actmax.report.words import simulation_statement

        return simulation_statement(summary)


def design_of(cfg: DictConfig) -> Design:
    """The simulation that a config asks for.

    Raises:
        InputError: names the key under `simulation`.
    """
    return settings_of(cfg, "simulation")
