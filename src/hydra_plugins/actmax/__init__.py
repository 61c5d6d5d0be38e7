"""What Hydra finds of actmax: it takes sweepers and launchers from this package alone."""

from __future__ import annotations

from actmax.app import launchers, sweep


class ActmaxSweeper(sweep.Sweeper):
    """The sweeper of `hydra/sweeper=actmax`, the default."""


sweep.store(f"{__name__}.{ActmaxSweeper.__name__}")

if launchers.RAY:

    class RayLauncher(launchers.RayLauncher):
        """The launcher of `launch=gpus` and `launch=cluster`."""


if launchers.SUBMITIT:
    from actmax.app import slurm

    class SlurmLauncher(slurm.SlurmLauncher):
        """The launcher of `launch=slurm`."""
