"""Maximize units over input embeddings: settings, checks and identity."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from omegaconf import DictConfig, OmegaConf

from actmax.errors import InputError, renamed
from actmax.maximize.settings import (
    OPTIONS,
    PARAMETERIZATIONS,
    TERMS,
    InitSettings,
    OptimizerSettings,
    PriorSettings,
    check_start,
)
from actmax.settings import setting
from actmax.tasks.bounds import WORD, Share
from actmax.tasks.settings import integers, seeds, units
from actmax.tasks.task import FILES_OF_SUBJECT, plain
from actmax.tasks.units.task import GROUPS, KEYS, UnitsTask, init_digest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actmax.model.architecture import Geometry
    from actmax.report.source import Source
    from actmax.tasks.commands import Next

STEP = 1e-3
"""Seconds that a step of the fit takes at least: of the smallest model on one core 19 ms (docs/performance.md)."""


@dataclass
class RoundingSettings:
    """How many restarts of each unit are run again to see what arithmetic does, and how."""

    restarts: int = setting(0, least=0)
    """How many seeds of each unit to run a second time; 0: none."""
    kernel: str = setting("other", choices=("other", "same"))
    """With another attention kernel than the subject's (eager or sdpa), or the same, one restart at a time."""


class MaximizationTask(UnitsTask):
    """Maximize units over input embeddings."""

    name = "maximization"
    groups: ClassVar = {
        "init": InitSettings,
        "prior": PriorSettings,
        "optimizer": OptimizerSettings,
        "callbacks": dict,
        **GROUPS,
        "rounding": RoundingSettings,
    }
    keys = (*KEYS, "init", "prior", "optimizer", "steps", "callbacks", "rounding")
    idle = (*FILES_OF_SUBJECT, "callbacks.progress", "callbacks.checkpoint")
    work_import = "actmax.tasks.maximization.work:MaximizationWork"

    def check_settings(self, cfg: DictConfig) -> None:
        """Refuses priors that exclude each other, or that the start or the length does not allow."""
        used, terms = parameterizations(cfg), prior_terms(cfg)
        if len(used) > 1:
            names, both = ",".join(used), " and ".join(used)
            allowed = f"the optimizee has one parameterization at most, so {both} exclude each other"
            raise InputError("prior", f"[{names}]", allowed, f"Run them as jobs of their own: -m prior={names}.")
        if cfg.tokens < 2 and (alone := terms.keys() & {"fluency", "smooth"}):
            allowed = f"must be at least 2 with prior={min(alone)}, which is about neighbouring positions"
            raise InputError("tokens", cfg.tokens, allowed)
        if cfg.init.name == "tokens" and "manifold" in terms and terms["manifold"]["scale"] == "relative":
            allowed = "cannot be relative with init=tokens, which starts where this prior has no pull to measure by"
            way_out = "Say prior.manifold.scale=absolute and a weight in that scale, or another init."
            raise InputError("prior.manifold.scale", "relative", allowed, way_out)
        if cfg.init.name == "file" and cfg.init.path is None:
            raise InputError("init.path", None, "must name a record's folder with init=file")

    def check(self, cfg: DictConfig) -> None:
        """Refuses more devices than restarts, and options that the optimizer does not take."""
        known = OPTIONS[cfg.optimizer.name]
        for name, value in cfg.optimizer.options.items():
            if name not in known:
                way_out = "Say objective.sign=minimize." if name == "maximize" else ""
                allowed = f"is no option here: {cfg.optimizer.name} takes {', '.join(known)}"
                raise InputError(f"optimizer.options.{name}", value, allowed, way_out)
        devices, restarts = cfg.trainer.devices, len(integers(cfg.seeds, "seeds")) * len(units(cfg))
        if devices > restarts:
            way_out = "Lower it, or give more seeds or units."
            raise InputError("trainer.devices", devices, f"must be at most {restarts}, the job's restarts", way_out)

    def check_subject(self, cfg: DictConfig, sizes: Geometry) -> None:
        """Refuses units, lengths and principal components that the subject lacks."""
        super().check_subject(cfg, sizes)
        if cfg.prior.pca.use and cfg.prior.pca.components > sizes.d_model:
            allowed = f"must be at most {sizes.d_model}, the width of {cfg.subject.name}"
            raise InputError("prior.pca.components", cfg.prior.pca.components, allowed)

    def check_files(self, cfg: DictConfig, sizes: Geometry | None) -> None:
        """Refuses a text, and a record to start from, that cannot be read."""
        super().check_files(cfg, sizes)
        if cfg.init.name == "file" and sizes is not None:
            with renamed({"file": "init.path"}):
                check_start(Path(cfg.init.path), cfg.init.tensor, (cfg.tokens, sizes.d_model))

    def shares(self, cfg: DictConfig, sizes: Geometry | None) -> Iterable[Share]:
        """The steps, of which a trajectory may be kept."""
        yield from super().shares(cfg, sizes)
        yield Share("steps", WORD * len(units(cfg)) * len(seeds(cfg)) / _recorded_every(cfg), STEP)

    def read(self, cfg: DictConfig) -> dict[str, str | None]:
        """The record that restarts start from."""
        return {**super().read(cfg), "init": init_digest(cfg)}

    def after(self, source: Source) -> Next:
        """The search of the same unit."""
        from actmax.tasks.units.after import after_maximization

        return after_maximization(source)

    def method(self, cfg: DictConfig) -> str:
        """The priors as a person calls them: `none`, `l2`, `simplex+fluency`, `l2 0.5`."""
        weights = {name: (one["weight"], one["scale"]) for name, one in prior_terms(cfg).items()}
        terms = [
            name if weight == (1, "relative") else f"{name} {weight[0]:g}" + " absolute" * (weight[1] == "absolute")
            for name, weight in weights.items()
        ]
        return "+".join([*parameterizations(cfg), *terms]) or "none"


def prior_terms(cfg: DictConfig) -> dict[str, dict[str, Any]]:
    """The loss terms with a weight, by name, with their settings."""
    settings = plain(cfg.prior)
    return {term: settings[term] for term in TERMS if settings[term]["weight"] > 0}


def parameterizations(cfg: DictConfig) -> list[str]:
    """The parameterizations in use; `check_settings` allows one at most."""
    return [name for name in PARAMETERIZATIONS if cfg.prior[name].use]


def _recorded_every(cfg: DictConfig) -> float:
    """Steps between two that the trajectory holds; infinite where none is recorded."""
    spec = cfg.callbacks.get("trajectory")
    every = spec.get("every", 1) if OmegaConf.is_dict(spec) else None
    return float(every) if isinstance(every, int) and every >= 1 else inf
