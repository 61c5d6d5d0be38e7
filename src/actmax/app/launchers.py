"""Launchers of a multirun that wait for every job, whatever becomes of another, and that stop with us."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from actmax.errors import InputError

RAY = find_spec("hydra_plugins.hydra_ray_launcher") is not None
"""Whether the extra `ray` is installed."""
SUBMITIT = find_spec("hydra_plugins.hydra_submitit_launcher") is not None
"""Whether the extra `slurm` is installed; its launcher is in `actmax.app.slurm`."""

log = logging.getLogger(__name__)

if RAY:
    from hydra_plugins.hydra_ray_launcher import ray_launcher

    class RayLauncher(ray_launcher.RayLauncher):
        """hydra-ray-launcher, where a job that dies takes nobody with it and none waits for a GPU that is not there."""

        config: DictConfig  # pyright: ignore[reportIncompatibleVariableOverride]
        hydra_context: HydraContext  # pyright: ignore[reportIncompatibleVariableOverride]
        task_function: TaskFunction  # pyright: ignore[reportIncompatibleVariableOverride]

        def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
            """Runs the jobs; returns when the last has ended.

            Raises:
                InputError: there is no cluster, or a job asks for more GPUs than it has; no job was started.
            """
            import ray

            setup_globals()
            configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
            self._start()
            try:
                runs = [self._submit(initial_job_idx + n, list(one)) for n, one in enumerate(job_overrides)]
                return [_outcome(run, one) for run, one in zip(runs, job_overrides, strict=True)]
            finally:
                ray.shutdown()  # on a Ctrl-C, its jobs stop with it

        def _start(self) -> None:
            import ray
            from hydra_plugins.hydra_ray_launcher._launcher_util import start_ray

            os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # each job says one line, and each is wanted
            self.ray_cfg.init.setdefault("object_store_memory", 78643200)  # the launcher's own default
            try:
                start_ray(self.ray_cfg.init)
            except (ConnectionError, ValueError) as error:
                key, way_out = "hydra.launcher.ray.init", "Start one with `ray start --head`, or use launch=gpus."
                raise InputError(key, self.ray_cfg.init.get("address"), f"no Ray ({error})", way_out) from error
            wanted, available = self.ray_cfg.remote.get("num_gpus") or 0, ray.cluster_resources().get("GPU", 0)
            if wanted > available:
                ray.shutdown()
                allowed = f"a job asks for {wanted:g} GPU, and Ray finds {available:g}"
                raise InputError("launch", "gpus", allowed, "Use launch=serial, or run where there are GPUs.")

        def _submit(self, number: int, overrides: list[str]) -> Any:
            from hydra_plugins.hydra_ray_launcher._launcher_util import launch_job_on_ray

            log.info("\t#%d : %s", number, " ".join(filter_overrides(overrides)))
            config = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
            with open_dict(config):
                config.hydra.job.id, config.hydra.job.num = f"{number}", number
            state = Singleton.get_state()
            return launch_job_on_ray(self.hydra_context, self.ray_cfg.remote, config, self.task_function, state)


def _outcome(run: Any, overrides: Sequence[str]) -> JobReturn:
    """What a job returned, or a failed return that holds the error where its process died."""
    import ray
    from ray.exceptions import RayError

    try:
        return ray.get(run)
    except RayError as error:
        return JobReturn(overrides=overrides, status=JobStatus.FAILED, _return_value=error)
