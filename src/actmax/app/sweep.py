"""Hydra's multirun that goes by records: it runs missing jobs, waits for all, names failed ones, and collects.

A job's folder and its `status.json` are all that it goes by, so it does not matter which launcher ran the jobs.
"""

from __future__ import annotations

import copy
import logging
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from hydra._internal.config_loader_impl import get_overrides_dirname
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper as HydraSweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from actmax.app import config
from actmax.errors import BusyError, InputError, JobError, renamed
from actmax.progress import Bar, shown
from actmax.records.store import Record, Status, Table
from actmax.tasks.schema import UNREAD, without_effect

log = logging.getLogger(__name__)

DIED = (
    "its process ended without a word: killed, out of memory or out of time. The same command goes on from its last "
    "checkpoint, where it has one."
)
"""Message of a job whose process ended without writing a status."""
FOLDER = {"folder": "hydra.sweep.dir"}
"""The config key behind the argument `folder` of a sweep."""
ANNOUNCED = 100
"""From how many jobs on it is said that they are being planned, which takes 0.02 s each."""
MOST_JOBS = 100_000
"""Most jobs of a sweep."""
KEPT = 256
"""Composed configs that are kept from the plan to the launch."""


@dataclass(frozen=True)
class Planned:
    """A job of the sweep, before anything runs."""

    overrides: tuple[str, ...]
    """Overrides of the command line that make this job."""
    record: Record
    """The record in the job's folder, whether it is there yet or not."""
    standing: str
    """State of the record: `new`, `complete`, `interrupted`, `failed`, `died` or `busy` (another process runs it)."""
    config: DictConfig
    """The composed config, with Hydra's own part."""

    @property
    def command(self) -> str:
        """What runs this one job alone, in the same folder."""
        own = [one for one in self.overrides if not one.startswith(("launch=", "launch.", "hydra.launcher"))]
        return shlex.join(["actmax", "hydra.mode=RUN", *own])


@dataclass(frozen=True)
class Failed:
    """A job that is not complete though the sweep is over."""

    job: Planned
    """The job of the sweep."""
    state: str
    """State of the job: `failed`, `interrupted` or `not started`."""
    message: str
    """The job's error in one line."""


class _Composed:
    """A config loader that hands out what is composed already, once; another process gets the plain loader."""

    def __init__(self, loader: Any, composed: dict[tuple[str, ...], DictConfig]) -> None:
        self.loader, self.composed = loader, composed

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """The config of a job."""
        found = self.composed.pop(tuple(sweep_overrides), None)
        return self.loader.load_sweep_config(master_config, sweep_overrides) if found is None else found

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def __reduce__(self) -> tuple[Any, ...]:
        return _plain_loader, (self.loader,)


def _plain_loader(loader: Any) -> Any:
    """Makes a pickled `_Composed` the loader that it stands before."""
    return loader


class Composer:
    """Composes the configs of jobs: once by Hydra for every choice of groups, and from there by setting values.

    Hydra applies values after everything else is composed, so the result is the same, in less than a tenth of the time.

    Args:
        loader: Hydra's config loader.
        master: the config of the multirun.
    """

    def __init__(self, loader: Any, master: DictConfig) -> None:
        self.loader, self.master = loader, master
        self.parser = OverridesParser.create(config_loader=loader)
        self.known: dict[tuple[str, ...], DictConfig] = {}

    def __call__(self, overrides: Sequence[str]) -> DictConfig:
        """The config of the job with these overrides, with Hydra's own part."""
        parsed = self.parser.parse_overrides(list(overrides))
        groups = [one for one in parsed if self.loader.repository.group_exists(one.key_or_group)]
        values = [one for one in parsed if one not in groups]
        key = tuple(str(one.input_line) for one in groups)
        if key not in self.known:
            self.known[key] = self.loader.load_sweep_config(self.master, list(key))
        cfg = copy.deepcopy(self.known[key])
        self.loader._apply_overrides_to_config(values, cfg)
        self._sign(cfg, parsed)
        return cfg

    def _sign(self, cfg: DictConfig, parsed: Sequence[Override]) -> None:
        """Writes into Hydra's part what it was asked for, as Hydra does."""
        own = [one for one in parsed if not one.is_hydra_override()]
        common = list(self.master.hydra.overrides.hydra)
        asked, job = cfg.hydra.overrides, cfg.hydra.job
        asked.hydra = common + [one.input_line for one in parsed if one.is_hydra_override()]
        asked.task = [one.input_line for one in own]
        style = job.config.override_dirname
        job.override_dirname = get_overrides_dirname(
            own, kv_sep=style.kv_sep, item_sep=style.item_sep, exclude_keys=list(style.exclude_keys)
        )


class Sweeper(HydraSweeper):
    """Sweeps over the same overrides as Hydra's basic sweeper, and goes by the record that each job has left.

    Args:
        max_batch_size: Hydra's setting of that name; it stands in the config, and is not used.
        params: values to sweep over by key; the command line's take their place.
    """

    config: DictConfig
    hydra_context: HydraContext
    launcher: Launcher

    def __init__(self, max_batch_size: int | None = None, params: Mapping[str, str] | None = None) -> None:
        self.max_batch_size, self.params = max_batch_size, dict(params or {})

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Fixes the sweep's folder, which jobs on other machines or in other folders must find."""
        folder = str(Path(str(config.hydra.sweep.dir)).resolve())
        quoted = folder.replace("\\", "\\\\").replace("'", "\\'")
        with open_dict(config):
            config.hydra.overrides.hydra.append(f"hydra.sweep.dir='{quoted}'")
            config.hydra.sweep.dir = folder
        self.task_function = task_function
        self.hydra_context, self.config = hydra_context, config  # pyright: ignore[reportIncompatibleVariableOverride]
        self.launcher = Plugins.instance().instantiate_launcher(  # pyright: ignore[reportIncompatibleVariableOverride]
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Plans the jobs, runs those that are not complete, and collects.

        Raises:
            InputError: a job's config is wrong; nothing was started.
            JobError: a job failed; its record says how, and the others ran.
        """
        folder = Path(self.config.hydra.sweep.dir)
        with renamed(FOLDER):
            Record(folder).refuse_other_tables(get_args(Table))
        jobs = self._plan(arguments)
        todo = [job for job in jobs if job.standing not in ("complete", "busy")]
        log.info("%s", _announcement(jobs, folder))
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        returns: Sequence[JobReturn] = []
        self._hand_over(todo)
        try:
            if todo:
                returns = self.launcher.launch([job.overrides for job in todo], initial_job_idx=0)
        except KeyboardInterrupt:
            for job in todo:
                job.record.settle("interrupted", "the sweep was stopped")
            log.warning("Stopped. What was finished is kept; the same command goes on: see actmax-report %s", folder)
            raise
        failed = _failures(todo, returns)
        self._close(folder, failed, len(jobs))
        return [returns]

    def _plan(self, arguments: Sequence[str]) -> list[Planned]:
        """Every job once, checked, with how it stands."""
        compose = Composer(self.hydra_context.config_loader, self.config)
        parser = compose.parser
        params = [f"{key}={value}" for key, value in self.params.items()]
        parsed = parser.parse_overrides([*params, *arguments])
        count = _count(parsed)
        if count > ANNOUNCED:
            log.info("Planning %d jobs", count)
        (batch,) = BasicSweeper.split_arguments(parsed, None)
        with shown(count > ANNOUNCED), Bar("planning", count, unit="job") as bar:
            planned = []
            for number, overrides in enumerate(batch):
                planned.append(self._planned(number, overrides, compose(overrides)))
                bar.advance()
        once = {str(job.record.folder): job for job in planned}
        if len(once) < len(planned):
            log.warning("%d of %d jobs are the same as another and run once", len(planned) - len(once), len(planned))
        if unread := _unread(planned):
            log.warning(UNREAD, "any job", " ".join(unread))
        return list(once.values())

    def _planned(self, number: int, overrides: list[str], cfg: DictConfig) -> Planned:
        with open_dict(cfg):
            cfg.hydra.job.id = cfg.hydra.job.num = number
        before = HydraConfig.instance().cfg
        HydraConfig.instance().set_config(cfg)
        try:
            config.check(cfg)
            config.check_subject(cfg)
            config.check_files(cfg)
            record = Record(Path(cfg.hydra.sweep.dir) / str(cfg.hydra.sweep.subdir))
            with renamed(FOLDER):
                record.refuse_strangers()
            return Planned(tuple(overrides), record, _standing(record, cfg), cfg)
        except InputError as error:
            allowed = f"{error.allowed} (in the job {' '.join(overrides)}; nothing was started)"
            raise InputError(error.key, error.value, allowed, error.way_out) from error
        finally:
            HydraConfig.instance().cfg = before
            OmegaConf.set_readonly(cfg.hydra, None)  # which HydraConfig had made it

    def _hand_over(self, jobs: Sequence[Planned]) -> None:
        """Spares the launcher composing again what was composed to be checked; that takes longer than a small job."""
        composed = {job.overrides: job.config for job in jobs[:KEPT]}
        loader, callbacks = self.hydra_context.config_loader, self.hydra_context.callbacks
        context = HydraContext(config_loader=_Composed(loader, composed), callbacks=callbacks)  # pyright: ignore
        self.launcher.setup(hydra_context=context, task_function=self.task_function, config=self.config)

    def _close(self, folder: Path, failed: list[Failed], count: int) -> None:
        """Collects the records, shows them, and names the jobs that failed.

        Raises:
            JobError: a job failed, or the records could not be collected.
        """
        from actmax.app import report  # pandas and torch; a wrong config is answered without them
        from actmax.tasks.collect import collect
        from actmax.tasks.sweep_page import write_sweep

        problem = ""
        try:
            collected = collect(folder)
            if self.config.report:
                if self.config.page:
                    write_sweep(collected)
                report.show_sweep(collected)
        except InputError:
            problem = f"There is no record in {folder} to collect."
        except Exception as error:  # the records are whole, whatever the collection makes of them
            log.exception("collecting failed")
            problem = f"Collecting failed ({type(error).__name__}: {error}); actmax-report {folder} tries again."
        if failed:
            report.show_failures([(one.job.record.folder, one.state, one.message, one.job.command) for one in failed])
            message = f"{len(failed)} of {count} jobs are not complete. The same command again runs these alone."
            raise JobError(f"{message} {problem or f'What is there was collected in {folder}.'}")
        if problem:
            raise JobError(problem)


def _unread(jobs: Sequence[Planned]) -> list[str]:
    """The settings that all jobs of a sweep have and that none of their tasks reads."""
    common = set.intersection(*(set(job.overrides) for job in jobs))
    unread = [one for one in jobs[0].overrides if one in common]
    for job in {config.task_in(job.config): job for job in jobs}.values():
        unread = without_effect(job.config, unread)
    return unread


def _count(overrides: Sequence[Override]) -> int:
    """How many jobs the overrides of a sweep make, without writing them out.

    Raises:
        InputError: there is none, or more than `MOST_JOBS`.
    """
    total = 1
    for key, one in {
        one.get_key_element(): one for one in overrides
    }.items():  # a later one takes an earlier one's place
        values = _values(one)
        if not values:
            allowed = "names no value, so that there are no jobs"
            raise InputError(key, str(one.input_line).partition("=")[2], allowed, "Give one at least.")
        total *= values
    if total > MOST_JOBS:
        way_out = "One job takes many units and seeds: unit.index='0:500' seeds='0:10'. Or give the sweep in parts."
        raise InputError("-m", f"{total} jobs", f"must be at most {MOST_JOBS} jobs", way_out)
    return total


def _values(override: Override) -> int:
    """How many values an override sweeps over."""
    if not override.is_sweep_override() or not override.is_discrete_sweep():
        return 1
    value = override.value()
    if isinstance(value, RangeSweep):
        start, stop, step = value.start or 0, value.stop or 0, value.step
        if not step or not all(map(math.isfinite, (start, stop, step))):
            key, given = override.get_key_element(), str(override.input_line).partition("=")[2]
            raise InputError(key, given, "must be a range between finite numbers, in steps other than 0")
        return max(0, math.ceil((stop - start) / step))
    return sum(1 for _ in override.sweep_iterator())


def _standing(record: Record, task: DictConfig) -> str:
    try:
        status = record.status()
    except InputError:
        return "new"  # damaged, or of another version: the job itself says so, and harms nothing
    if status is None or task.force:
        return "new"
    if status.state == "complete":
        whole = not record.missing(status)  # the job itself names what is missing
        return "complete" if whole and status.request == config.request(task) else "new"
    if status.state == "running":
        return "busy" if record.busy else "died"
    return status.state


def _announcement(jobs: Sequence[Planned], folder: Path) -> str:
    """How many jobs there are, which of them run, and why the others don't."""
    reasons = {
        "complete": "complete already, skipped (force=true runs them again)",
        "busy": "running in another process, skipped",
        "new": "new",
        "failed": "failed before",
        "interrupted": "interrupted before",
        "died": "died before",
    }
    counts = {standing: sum(job.standing == standing for job in jobs) for standing in reasons}
    parts = ", ".join(f"{count} {reasons[standing]}" for standing, count in counts.items() if count)
    return f"Sweep of {len(jobs)} jobs in {folder}: {parts}"


def _failures(jobs: Sequence[Planned], returns: Sequence[JobReturn]) -> list[Failed]:
    """The jobs that are not complete after all have ended."""
    errors: list[Any] = [None] * len(jobs)
    for number, one in enumerate(returns):
        if one is not None and one.status == JobStatus.FAILED:
            errors[number] = one._return_value  # the property would raise it
    failed = []
    for job, error in zip(jobs, errors, strict=True):
        if isinstance(error, BusyError):
            log.info("%s is running in another process: skipped", job.record.folder)
            continue
        status = job.record.settle("failed", str(error) if isinstance(error, JobError) else DIED)
        if isinstance(error, InputError) or status is None:
            failed.append(Failed(job, "not started", str(error or "it left no record; see its launcher's log")))
        elif status.state != "complete":
            failed.append(Failed(job, status.state, _message(status)))
    return failed


def _message(status: Status) -> str:
    if status.error is None:
        return status.state
    kind, message = status.error["type"], status.error["message"]
    return message if kind == "Died" else f"{kind}: {message}"


@dataclass
class SweeperConfig:
    """Hydra's schema of the group `hydra.sweeper`."""

    _target_: str
    max_batch_size: int | None = None
    params: dict[str, str] | None = None


def store(target: str) -> None:
    """Makes a class Hydra's choice `hydra/sweeper=actmax`."""
    ConfigStore.instance().store(group="hydra/sweeper", name="actmax", node=SweeperConfig(target), provider="actmax")
