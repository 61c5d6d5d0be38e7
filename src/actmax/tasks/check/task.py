"""Whether the sites of a model are what their names say: checks and identity."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from actmax.tasks.task import FILES_OF_SUBJECT, Task
from actmax.tasks.tuning.task import refuse_devices

if TYPE_CHECKING:
    from actmax.report.source import Source
    from actmax.tasks.commands import Next

MEASURED_WITH = ("actmax", "transformers", "torch")
"""Packages whose versions decide what is measured."""


class CheckTask(Task):
    """Whether the sites of a model are what their names say."""

    name = "check"
    keys = ("subject",)
    idle = FILES_OF_SUBJECT
    on_subject = True
    work_import = "actmax.tasks.check.work:CheckWork"
    page_import = "actmax.tasks.check.page:check_page"

    def check(self, cfg: DictConfig) -> None:
        """Refuses several devices: a few passes of a few tokens are made."""
        refuse_devices(cfg, self.name)

    def read(self, cfg: DictConfig) -> dict[str, str | None]:
        """The versions that it was measured with, beside what is read of the subject."""
        return super().read(cfg) | {"versions": " ".join(f"{name}=={version(name)}" for name in MEASURED_WITH)}

    def label(self, cfg: DictConfig) -> str:
        """The subject."""
        return f"{cfg.subject.name}_check"

    def after(self, source: Source) -> Next | None:
        """A maximization in the middle of the model, at a site that holds; None where none does."""
        from actmax.tasks.commands import asked, job, override

        sizes, sites = source.summary["sizes"], source.summary["sites"]
        if not sites:
            return None
        site = "resid_pre" if "resid_pre" in sites else sites[0]
        at = {"site": site, "layer": None if site == "final_norm" else sizes["layers"] // 2, "index": 0}
        unit = [override(f"unit.{key}", value) for key, value in at.items()]
        subject = asked(source.config, "subject")
        return job("ten restarts of one unit", "task=maximization", *subject, *unit, override("seeds", "0:10"))

    def statement(self, summary: Mapping[str, Any]) -> str:
        """Which sites hold."""
        from actmax.report.words import check_statement

        return check_statement(summary)
