"""A sweep's jobs through Slurm: submitted as one array, waited for, and stopped when the sweep is stopped.

submitit's own waiting asks `sacct`, which knows nothing where a cluster keeps no accounts, and so waits for ever for a
job that was killed; it raises at the first dead job while others still run; and it leaves the jobs in the queue when
the driver is stopped. Here `squeue` says what is left, a dead job is one result among others, and Ctrl-C cancels.
"""

from __future__ import annotations

import logging
import os
import pickle
import re
import shutil
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher as SubmititLauncher
from omegaconf import DictConfig, OmegaConf

from actmax.app import config
from actmax.errors import InputError, JobError

if TYPE_CHECKING:
    from submitit import Job
    from submitit.helpers import DelayedSubmission

log = logging.getLogger(__name__)

COMMANDS = ("sbatch", "srun", "squeue", "scancel", "sinfo")
LONGEST_PAUSE = 10.0
"""Most seconds between two queries of the queue; the first queries follow each other faster."""
PATIENCE = 20.0
"""Seconds after which jobs that all wait for a reason in `HOPELESS` are cancelled."""
SILENCE = 1800.0
"""Seconds that Slurm may leave the queue unanswered."""
GRACE = 60.0
"""Seconds that stopped jobs get to end after the step in hand and to save it."""
HOPELESS = {
    "PartitionConfig": "launch.cpus",
    "PartitionTimeLimit": "launch.minutes",
    "BadConstraints": "hydra.launcher.constraint",
    "AccountNotAllowed": "hydra.launcher.account",
    "InvalidAccount": "hydra.launcher.account",
    "QOSNotAllowed": "hydra.launcher.qos",
    "InvalidQOS": "hydra.launcher.qos",
    "DependencyNeverSatisfied": "hydra.launcher.additional_parameters",
    "JobHeldAdmin": "launch",
    "launch failed requeued held": "launch",
}
"""Slurm's reasons for a job to wait that never end by themselves, each with the key that causes it."""
REFUSALS = {
    "partition name": "launch.partition",
    "memory specification": "launch.memory_gb",
    "time limit": "launch.minutes",
    "generic resource": "launch.gpus",
    "account": "hydra.launcher.account",
    "qos": "hydra.launcher.qos",
    "feature": "hydra.launcher.constraint",
}
"""Phrases of Slurm's messages when it refuses a job, each with the key that it means."""


@dataclass(frozen=True)
class Node:
    """What a machine of the cluster has."""

    partition: str
    """Name of the partition that the machine is in."""
    gpus: int
    """Number of GPUs of the machine."""
    cpus: int
    """Number of processors of the machine."""
    memory: int
    """Main memory of the machine in MiB."""

    def __str__(self) -> str:
        return f"{self.partition} ({self.gpus} GPUs, {self.cpus} CPUs and {self.memory / 1024:.0f} GB a node)"


class SlurmError(RuntimeError):
    """A command of Slurm failed; the message is Slurm's."""


class SlurmLauncher(SubmititLauncher):
    """The launcher behind `launch=slurm`; its settings are hydra-submitit-launcher's."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs jobs and waits until none is left in the queue.

        Returns:
            What each job returned. One that died without a word is `FAILED`, with a JobError that quotes Slurm's log.

        Raises:
            InputError: there is no Slurm here, or it refuses the jobs; none has run.
            KeyboardInterrupt: stopped by hand; the jobs have been stopped too.
        """
        _require_slurm()
        label = re.sub(r"[^\w.-]", "_", str(self.params["name"]))
        queue = Queue(f"{label}-{uuid.uuid4().hex[:8]}")
        with _stopping(queue):
            jobs = self._submit(job_overrides, initial_job_idx, queue.name)
            log.info("Slurm has %d jobs of this sweep, by the name %s", len(jobs), queue.name)
            stuck = queue.wait()
            _wait_for_files(jobs)
        if stuck is not None and not any(job.paths.stdout.exists() for job in jobs):
            raise _refusal_error(HOPELESS[stuck], f"Slurm would let the jobs wait for ever ({stuck})", self._settings)
        return [_result(job, overrides, stuck) for job, overrides in zip(jobs, job_overrides, strict=True)]

    def __call__(self, sweep_overrides: list[str], *args: Any, **kwargs: Any) -> JobReturn:
        """Runs one job on its node, in a new process, where nothing of ours is registered yet."""
        config.register()
        return super().__call__(sweep_overrides, *args, **kwargs)

    def checkpoint(self, sweep_overrides: list[str], *args: Any, **kwargs: Any) -> DelayedSubmission:
        """The job that Slurm runs when this one's time is up: the same, from its checkpoint, whatever it was told."""
        return super().checkpoint([*sweep_overrides, "force=false", "resume=true"], *args, **kwargs)

    @property
    def _settings(self) -> DictConfig:
        return self.config  # pyright: ignore[reportReturnType]  # Hydra calls `setup` first

    def _submit(self, job_overrides: Sequence[Sequence[str]], first: int, name: str) -> list[Job[Any]]:
        from submitit import AutoExecutor
        from submitit.core.utils import FailedJobError

        given = {**self.params, "name": name}
        folder, requeue = given.pop("submitit_folder"), given.pop("max_num_timeout")
        executor = AutoExecutor(folder=folder, cluster="slurm", slurm_max_num_timeout=requeue)
        shared = set(OmegaConf.structured(BaseQueueConf))
        executor.update_parameters(**{key if key in shared else f"slurm_{key}": given[key] for key in given})
        state = Singleton.get_state()
        calls = [
            (list(overrides), "hydra.sweep.dir", number, f"job_id_for_{number}", state)
            for number, overrides in enumerate(job_overrides, first)
        ]
        try:
            return executor.map_array(self, *zip(*calls, strict=True))
        except FailedJobError as error:
            raise _submission_error(str(error), self._settings) from error


class Queue:
    """The jobs of one launch, as Slurm has them; a name of their own finds them, also where their numbers got lost.

    Args:
        name: the jobs' name.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._logged = ""

    def remaining(self) -> list[tuple[str, str]]:
        """State and reason of every job that is left.

        Raises:
            SlurmError: Slurm does not answer.
        """
        lines = _slurm("squeue", "--noheader", "--array", "--format=%T|%r", *self._filters).splitlines()
        return [(line.split("|")[0], line.split("|")[1]) for line in lines]

    def wait(self) -> str | None:
        """Waits until none is left. Where all that is left waits in vain, cancels it and returns Slurm's reason."""
        pause, answered, hopeful = 1.0, time.monotonic(), time.monotonic()
        while time.monotonic() - answered < SILENCE:
            try:
                left = self.remaining()
            except SlurmError as error:
                self._log_change(f"Slurm does not answer; its jobs go on without it ({error})", logging.WARNING)
            else:
                answered = time.monotonic()
                if not left:
                    return None
                self._log_change("Slurm: " + ", ".join(f"{count} {what}" for what, count in _counted(left).items()))
                if not _hopeless(left):
                    hopeful = answered
                elif answered - hopeful > PATIENCE:
                    self.cancel()
                    return left[0][1]
            time.sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 1.2)
        log.error("Slurm has not answered for %.0f minutes: what it still runs is left to it", SILENCE / 60)
        return None

    def stop(self) -> None:
        """Stops every job: those that run after their step in hand, but no later than `GRACE` or a second Ctrl-C."""
        log.warning("Stopping the sweep's jobs after their step in hand; Ctrl-C again kills them.")
        try:
            self.cancel("--state=PENDING")
            self.cancel("--signal=INT")
            deadline = time.monotonic() + GRACE
            while time.monotonic() < deadline and self.remaining():
                time.sleep(0.5)
        except SlurmError as error:
            log.warning("Slurm does not answer (%s)", error)
        finally:
            self.cancel()

    def cancel(self, *options: str) -> None:
        """Cancels the jobs, or signals them; says so where Slurm does not."""
        try:
            _slurm("scancel", *options, *self._filters)
        except SlurmError as error:
            log.warning("The jobs could not be cancelled (%s). By hand: scancel --name=%s", error, self.name)

    @property
    def _filters(self) -> tuple[str, str]:
        """Options of Slurm's commands that choose these jobs."""
        return f"--user={os.getuid()}", f"--name={self.name}"

    def _log_change(self, message: str, level: int = logging.INFO) -> None:
        """Logs a message, unless it was the last one too."""
        if message != self._logged:
            log.log(level, "%s", message)
        self._logged = message


@contextmanager
def _stopping(queue: Queue) -> Iterator[None]:
    """Leaves no job behind, whatever ends the wait."""
    try:
        yield
    except InputError:
        raise  # Slurm has none of them
    except BaseException:
        queue.stop()
        raise


def _require_slurm() -> None:
    missing = [command for command in COMMANDS if shutil.which(command) is None]
    if missing:
        allowed = f"needs Slurm's commands, and there is no {', '.join(missing)} here"
        raise InputError("launch", "slurm", allowed, "Type it on a cluster's login node, or use launch=serial.")


def _slurm(*command: str) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout  # noqa: S603
    except subprocess.CalledProcessError as error:
        raise SlurmError(_one_line(error.stderr)) from error
    except subprocess.TimeoutExpired as error:
        raise SlurmError(f"{command[0]} took more than a minute") from error


def _one_line(text: str) -> str:
    lines = [re.sub(r"^[\w-]+: (error|fatal): ", "", line.strip()) for line in text.splitlines() if line.strip()]
    return "; ".join(dict.fromkeys(lines))


def _counted(left: Sequence[tuple[str, str]]) -> Counter[str]:
    """How many jobs are in which state, and why those that wait do."""
    return Counter(f"waiting ({reason})" if state == "PENDING" else state.lower() for state, reason in left)


def _hopeless(left: Sequence[tuple[str, str]]) -> bool:
    return all(state == "PENDING" and reason in HOPELESS for state, reason in left)


def _submission_error(message: str, settings: DictConfig) -> InputError:
    """The error of jobs that sbatch refuses, by the key that its message means."""
    key = next((key for phrase, key in REFUSALS.items() if phrase in message.lower()), None)
    return _refusal_error(key, f"Slurm refuses it ({_one_line(message)})", settings)


def _refusal_error(key: str | None, allowed: str, settings: DictConfig) -> InputError:
    """An error that names what the cluster has; an unknown key becomes the one that asks for too much."""
    nodes = _nodes()
    if not nodes:
        return InputError("launch", settings.launch.name, allowed, "Ask Slurm how it is: sinfo.")
    key = key or _excessive_key(settings.launch, nodes)
    value: Any = OmegaConf.select(settings, key)
    if key == "launch":
        value = " ".join(f"{name}={value[name]}" for name in ("partition", "gpus", "cpus", "memory_gb", "minutes"))
    partitions = dict.fromkeys(map(str, nodes))
    return InputError(key, value, allowed, f"The partitions here: {', '.join(partitions)}.")


def _excessive_key(launch: DictConfig, nodes: Sequence[Node]) -> str:
    """The key that asks for more than any node has; Slurm does not name it."""
    if launch.gpus is not None and launch.gpus > max(node.gpus for node in nodes):
        return "launch.gpus"
    return "launch.cpus" if launch.cpus > max(node.cpus for node in nodes) else "launch"


def _nodes() -> list[Node]:
    """Every node of the cluster; empty where sinfo fails."""
    try:
        lines = _slurm("sinfo", "--noheader", "--Node", "--format=%P|%G|%c|%m").splitlines()
    except SlurmError:
        return []
    fields = [line.split("|") for line in lines]
    return [Node(name.rstrip("*"), _gpus(gres), int(cpus), int(memory)) for name, gres, cpus, memory in fields]


def _gpus(gres: str) -> int:
    """GPUs in what Slurm calls generic resources, such as `gpu:a100:4(S:0-1),shard:8`."""
    return sum(int(count) for count in re.findall(r"\bgpu(?::[^:,()]+)?:(\d+)", gres))


def _wait_for_files(jobs: Sequence[Job[Any]], seconds: float = 5.0) -> None:
    """Lets a shared file system show what the nodes have written."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not all(job.paths.result_pickle.exists() for job in jobs):
        time.sleep(0.5)


def _result(job: Job[Any], overrides: Sequence[str], stuck: str | None) -> JobReturn:
    """What a job left; a failure where it left nothing."""
    file = job.paths.result_pickle
    outcome, result = "nothing", None
    if file.exists():
        outcome, result = pickle.loads(file.read_bytes())  # noqa: S301  # our own job wrote it
    if isinstance(result, JobReturn):
        return result
    if outcome == "error":  # raised around the job, not by it; the text is a traceback
        reason = str(result).strip().splitlines()[-1]
    else:
        reason = f"waits for ever ({stuck})" if stuck is not None else _end_of_log(job)
    log.error("Slurm's job %s: %s", job.job_id, reason)
    failed = JobReturn(overrides=overrides, status=JobStatus.FAILED)
    failed.return_value = JobError(f"Slurm's job {job.job_id}: {reason}")
    return failed


def _end_of_log(job: Job[Any]) -> str:
    """The end of what Slurm kept of a dead job's output."""
    logs = [file for file in (job.paths.stderr, job.paths.stdout) if file.exists()]
    if not logs:
        return f"it left no log in {job.paths.folder}: do the nodes share that folder?"
    lines = logs[0].read_text(errors="replace").splitlines()
    errors = [line for line in lines if re.match(r"(srun|slurmstepd[\w-]*): error: ", line)]
    reason = _one_line("\n".join(errors[-3:] or lines[-1:])) or "without a word"
    return f"its process died ({reason}; log: {logs[0]})"
