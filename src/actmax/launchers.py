"""Where Hydra finds the launchers of a sweep's jobs.

Hydra takes launchers from the namespace `hydra_plugins` only, by the name that a config's `_target_` gives. Ours live
here, under names of their own; a launcher whose package is not installed leaves a stand-in, which says what to install.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from actmax.errors import InputError

NAMESPACE = "hydra_plugins.actmax"


class MissingLauncher(Launcher):
    """Stands where a launcher would, had its package been installed.

    Args:
        params: what the config says, of no use here.
    """

    def __init__(self, **params: Any) -> None:
        """Takes any launcher's settings."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Says what to install, before any job is composed.

        Raises:
            InputError: always.
        """
        name = config.launch.name
        raise InputError("launch", name, "needs a package that is not installed", f"pip install 'actmax[{name}]'")

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Never comes to it."""
        raise AssertionError("setup refuses")


def register() -> None:
    """Makes `launch=slurm` known to Hydra, whether its package is installed or not."""
    OmegaConf.register_new_resolver("mebibytes", mebibytes, replace=True)
    OmegaConf.register_new_resolver("requeue_seconds", requeue_seconds, replace=True)
    if _installed("hydra_plugins.hydra_submitit_launcher"):
        from actmax.slurm import SlurmLauncher

        _add("SlurmLauncher", SlurmLauncher)
    else:
        _add("SlurmLauncher", MissingLauncher)
        ConfigStore.instance().store(group="hydra/launcher", name="submitit_slurm", node={"_target_": "overridden"})


def mebibytes(gigabytes: float) -> str:
    """An amount of memory as Slurm reads it, which knows no fractions.

    Example:
        >>> mebibytes(0.5)
        '512M'
    """
    return f"{round(float(gigabytes) * 1024)}M"


def requeue_seconds(minutes: int) -> int:
    """How long before its time limit a job is told to queue again: two minutes, or a quarter of a short limit.

    A job that is told while it still starts dies of it.

    Example:
        >>> requeue_seconds(60), requeue_seconds(2)
        (120, 30)
    """
    return min(120, int(minutes) * 15)


def _installed(module: str) -> bool:
    package = module.split(".", maxsplit=1)[0]
    return find_spec(package) is not None and find_spec(module) is not None


def _add(name: str, launcher: type[Launcher]) -> None:
    """Registers a class under a name of ours; `Plugins.register` would take the name of its module, which Hydra refuses."""
    Plugins.instance().class_name_to_class[f"{NAMESPACE}.{name}"] = launcher
