"""What the command line reads of a config beyond what the tasks read. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from actmax.settings import setting


@dataclass
class LoggerSettings:
    """Where running measures go."""

    name: str = setting(MISSING, choices=("csv", "wandb", "none"))
    """CSV in the job's folder, Weights & Biases, or nowhere."""
    project: str = "actmax"
    """Project of the W&B run."""
    entity: str | None = None
    """User or team of W&B; null: your default one."""
    tags: list[str] = field(default_factory=list)
    """Tags of the W&B run, beside the task, the subject and the site."""


@dataclass
class LaunchSettings:
    """Where the jobs of a multirun run; conf/launch says which key serves which launcher."""

    name: str = setting("serial", choices=("serial", "gpus", "cluster", "slurm"))
    """One after the other, Ray on this machine, a Ray cluster, or Slurm."""
    jobs_per_gpu: int = setting(1, least=1)
    """Ray (`gpus`, `cluster`): jobs that share a GPU."""
    gpus: int | None = setting(None, least=0)
    """Ray (`gpus`): GPUs to use, null: all that it finds; Slurm: GPUs of a job, null: none."""
    partition: str | None = None
    """Slurm: null is the cluster's default."""
    minutes: int = setting(60, least=1, most=1_000_000)
    """Slurm: a job's time limit."""
    memory_gb: float = setting(8.0, above=0, most=1e6)
    """Slurm: main memory of a job; 0.5 is half."""
    cpus: int = setting(2, least=1)
    """Slurm: processors of a job."""
    parallel: int = setting(256, least=1)
    """Slurm: jobs at a time."""
    requeue: int = setting(3, least=0)
    """Slurm: how often a job that runs out of time is queued again; it goes on from its checkpoint."""


@dataclass
class JobSettings:
    """What is done with a job's folder."""

    sweep: str = MISSING
    """Names the folder below `outputs/`; by default the experiment, or the task where there is none."""
    resume: bool = True
    """Go on from the checkpoint of an interrupted run of the same job."""
    force: bool = False
    """Run again what is complete; the old record moves aside."""
    report: bool = True
    """Show the result; false leaves the record alone."""
    page: bool = True
    """With `report`: write report.html and its figures too."""
