"""Maximize units over real tokens: settings, checks and identity."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from omegaconf import DictConfig

from actmax.errors import InputError
from actmax.search.settings import SearchSettings
from actmax.tasks.bounds import WORD, Share
from actmax.tasks.contexts import check_text
from actmax.tasks.maximization.task import parameterizations, prior_terms
from actmax.tasks.settings import seeds, units
from actmax.tasks.task import digest_of, keys_of, remove, settings_of
from actmax.tasks.units.task import GROUPS, KEYS, UnitsTask

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from actmax.evidence.settings import NullSettings
    from actmax.model.architecture import Geometry
    from actmax.model.subject import Subject
    from actmax.records.collect import Job
    from actmax.report.source import Source
    from actmax.tasks.commands import Next
    from actmax.tasks.units.task import Ends

PASS = 1e-6
"""Seconds that a forward pass takes at least: of the smallest model on one core 1.1 ms, and an H200 evaluates 17,357
candidates a second (docs/performance.md)."""


class SearchTask(UnitsTask):
    """Maximize units over real tokens."""

    name = "search"
    groups: ClassVar = {"search": SearchSettings, **GROUPS}
    keys = (*KEYS, "search")
    default_context = "bos"
    work_import = "actmax.tasks.search.work:SearchWork"
    page_import = "actmax.tasks.units.page:search_page"

    def check(self, cfg: DictConfig) -> None:
        """Refuses priors, sequences that are too short, and several devices."""
        if "prior" in cfg and (unused := [*parameterizations(cfg), *prior_terms(cfg)]):
            allowed = "a search moves over tokens: there is no embedding that a prior could keep near text"
            way_out = "Leave it out, or run two jobs: task=maximization prior=NAME, and task=search."
            raise InputError("prior", "+".join(unused), allowed, way_out)
        if cfg.search.method == "text" and cfg.search.text is None:
            raise InputError("search.text", None, "must be a text file or a folder of .txt files with search=text")
        settings_of(cfg, "search").check_length(cfg.tokens)
        if cfg.trainer.devices > 1:
            way_out = "A job per seed, spread over the devices: -m 'seeds=range(0,8)' launch=gpus."
            raise InputError("trainer.devices", cfg.trainer.devices, "must be 1 with task=search", way_out)

    def check_subject(self, cfg: DictConfig, sizes: Geometry) -> None:
        """Refuses units and lengths that the subject lacks, and a text that is not there."""
        super().check_subject(cfg, sizes)
        if reads_text(cfg) and not Path(cfg.search.text).exists():
            allowed = "must be a text file or a folder of .txt files with search=text"
            raise InputError("search.text", cfg.search.text, allowed)

    def check_files(self, cfg: DictConfig, sizes: Geometry | None) -> None:
        """Refuses texts that cannot be read."""
        super().check_files(cfg, sizes)
        if reads_text(cfg):
            check_text("search.text", cfg.search.text)

    def shares(self, cfg: DictConfig, sizes: Geometry | None) -> Iterable[Share]:
        """The passes, of which a curve is kept, and the candidates of a round."""
        yield from super().shares(cfg, sizes)
        restarts = len(units(cfg)) * len(seeds(cfg))
        yield Share("search.passes", 2 * WORD * restarts, PASS * restarts)
        yield from (Share(f"search.{key}", WORD * cfg.tokens) for key in ("candidates", "top_k"))

    def identity(self, cfg: DictConfig) -> dict[str, Any]:
        """Everything in the config that can change the result; a text only where it is read."""
        content = super().identity(cfg)
        if not reads_text(cfg):
            remove(content, "search.text")
        return content

    def read(self, cfg: DictConfig) -> dict[str, str | None]:
        """The text that it chooses among, where there is one."""
        own = {"data": digest_of([(Path(cfg.search.text), "*.txt")])} if reads_text(cfg) else {}
        return super().read(cfg) | own

    def after(self, source: Source) -> Next:
        """Where in real text the same unit is highest."""
        from actmax.tasks.units.after import after_search

        return after_search(source)

    def method(self, cfg: DictConfig) -> str:
        """The name of the search."""
        return str(cfg.search.method)

    def label(self, cfg: DictConfig) -> str:
        """The method, then what every job on units is called."""
        return f"{cfg.search.method}_{super().label(cfg)}"

    def passes(self, job: Job) -> tuple[float, float]:
        """Forward passes of a restart, a backward pass counted as one, and how many ran the whole model."""
        spent = job.record.table("restarts")[["forward_passes", "whole_passes"]].mean()
        return float(spent.iloc[0]), float(spent.iloc[1])

    def ends(self, subject: Subject, settings: NullSettings, config: Mapping[str, Any]) -> Ends | None:
        """Draws token sequences that the search could have ended at."""
        from actmax.tasks.search.tables import random_ends
        from actmax.tasks.subjects import context_of

        with keys_of(config, "search"):
            searched = SearchSettings(**config["search"])
        context = context_of(config, self, subject, tokens=config["tokens"])
        with keys_of(config, "search"):
            return random_ends(subject, settings, searched, config["tokens"], context)


def reads_text(cfg: DictConfig) -> bool:
    """Whether a search chooses among sequences of a text."""
    return cfg.search.method == "text"
