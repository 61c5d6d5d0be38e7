"""t-test against logistic regression on simulated data: settings, checks and identity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from actmax.errors import InputError
from actmax.stats.design import Design
from actmax.tasks.task import Task, Work, settings_of

if TYPE_CHECKING:
    from actmax.model.subject import Subject
    from actmax.report.blocks import Page
    from actmax.report.source import Source


class SimulationTask(Task):
    """t-test against logistic regression on simulated data."""

    name = "simulation"
    groups: ClassVar = {"simulation": Design}
    keys = ("simulation",)

    def check(self, cfg: DictConfig) -> None:
        """Refuses a design that cannot be simulated."""
        design_of(cfg)

    def label(self, cfg: DictConfig) -> str:
        """The distribution that is drawn from."""
        return f"simulation_{cfg.simulation.distribution}"

    def line(self, summary: Mapping[str, Any]) -> str:
        """Where logistic regression breaks."""
        from actmax.report.words import simulation_statement

        return simulation_statement(summary)

    def work(self, cfg: DictConfig, subject: Subject | None) -> Work:  # noqa: ARG002
        """The simulation."""
        from actmax.tasks.simulation.work import SimulationWork

        return SimulationWork(self, cfg)

    def page(self, source: Source) -> Page:
        """Rejections and separation by effect, and the two tests side by side."""
        from actmax.tasks.simulation.page import simulation_page

        return simulation_page(source)


def design_of(cfg: DictConfig) -> Design:
    """The simulation that a config asks for.

    Raises:
        InputError: names the key under `simulation`.
    """
    try:
        return settings_of(cfg.simulation)
    except InputError as error:
        raise InputError(f"simulation.{error.key}", error.value, error.allowed, error.way_out) from error
    except OmegaConfBaseException as error:  # which wraps what a constructor raises
        if isinstance(wrong := error.__cause__, InputError):
            raise InputError(f"simulation.{wrong.key}", wrong.value, wrong.allowed, wrong.way_out) from error
        raise
