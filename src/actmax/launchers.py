"""Where Hydra finds the launchers of a sweep's jobs.

Hydra takes launchers only by names in `hydra_plugins`. Ours have such names, whatever module they live in; one whose
package is not installed leaves a stand-in, which says what to install.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from actmax.errors import InputError

NAMESPACE = "hydra_plugins.actmax"
SUBMITIT = "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher"


class MissingLauncher(Launcher):
    """Stands where a launcher would be, had its package been installed.

    Args:
        settings: what the config says of it, which is of no use here.
    """

    def __init__(self, **settings: Any) -> None:
        """Takes any."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:  # noqa: ARG002
        """Says what to install.

        Raises:
            InputError: always, before any job is composed.
        """
        name = config.launch.name
        raise InputError("launch", name, "needs a package that is not installed", f"pip install 'actmax[{name}]'")

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:  # noqa: ARG002
        """Is never reached."""
        raise AssertionError("setup refuses")


def register() -> None:
    """Makes `launch=slurm` known to Hydra, whether its package is installed or not."""
    if SUBMITIT in Plugins.instance().class_name_to_class:
        from actmax.slurm import SlurmLauncher

        _name("SlurmLauncher", SlurmLauncher)
    else:
        _name("SlurmLauncher", MissingLauncher)
        ConfigStore.instance().store(group="hydra/launcher", name="submitit_slurm", node={"_target_": "a stand-in"})


def _name(name: str, launcher: type[Launcher]) -> None:
    """Gives a class its name; `Plugins.register` would take that of its module, which Hydra refuses for a launcher."""
    Plugins.instance().class_name_to_class[f"{NAMESPACE}.{name}"] = launcher
