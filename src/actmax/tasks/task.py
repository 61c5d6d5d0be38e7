"""What a task is: a kind of job, with its settings, checks, identity, work, page and collection in one room.

A task's class is light: it is asked for settings and checks before torch is imported. What computes is a `Work`, which
the task makes once its config has been checked.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from omegaconf import DictConfig, OmegaConf

from actmax.errors import renamed
from actmax.progress import Stop
from actmax.records.contents import Contents
from actmax.records.store import Summary, job_hash
from actmax.tasks.settings import PRECISIONS
from actmax.text.files import files_in
from actmax.weights import settings_digest

if TYPE_CHECKING:
    import pandas as pd
    from lightning.pytorch.loggers import Logger

    from actmax.model.architecture import Geometry
    from actmax.model.subject import Subject
    from actmax.records.collect import Job
    from actmax.report.blocks import Page
    from actmax.report.source import Source
    from actmax.tasks.bounds import Share
    from actmax.tasks.commands import Next

FILES_OF_SUBJECT = ("subject.path", "subject.wheel")
"""Keys that say where weights lie; the hash of the weights identifies them."""


class Task:
    """A kind of job; one instance is registered (`actmax.tasks.registry.register`)."""

    name: ClassVar[str]
    """The name of the task, as the command line takes it: `task=NAME`."""
    groups: ClassVar[Mapping[str, Any]] = {}
    """Groups of config keys that the task reads: a settings dataclass by the group's name."""
    keys: ClassVar[Sequence[str]] = ()
    """Top-level keys of the config that can change the task's result, beside `task`."""
    idle: ClassVar[Sequence[str]] = ()
    """Dotted keys below `keys` that cannot change the result."""
    on_subject: ClassVar[bool] = False
    """Whether the task runs a language model."""
    default_context: ClassVar[str] = "none"
    """What `context=auto` stands for: `none` or `bos`."""
    work_import: ClassVar[str]
    """Where the class of the task's work is, `module:class`; imported when a job runs."""
    page_import: ClassVar[str] = "actmax.report.pages:plain_page"
    """Where the function is that makes what is shown of a job, `module:function`; imported when it is shown."""

    def check_settings(self, cfg: DictConfig) -> None:
        """Refuses settings of the task's own groups that contradict each other, whichever task runs.

        Raises:
            InputError: names the key, the value and what is allowed.
        """

    def check(self, cfg: DictConfig) -> None:
        """Refuses a job of this task that is wrong whatever the subject is.

        Raises:
            InputError: names the key, the value and what is allowed.
        """

    def check_subject(self, cfg: DictConfig, sizes: Geometry) -> None:
        """Refuses a job of this task that the subject's sizes do not allow.

        Raises:
            InputError: names the key, the value and what is allowed.
        """

    def shares(self, cfg: DictConfig, sizes: Geometry | None) -> Iterable[Share]:  # noqa: ARG002
        """What a job certainly takes of memory and time, for each key that it grows with.

        Args:
            cfg: a config that has been checked.
            sizes: the subject's, where the task runs one.
        """
        return ()

    def identity(self, cfg: DictConfig) -> dict[str, Any]:
        """Everything in the config that can change the result."""
        content = {key: plain(cfg[key]) for key in ("task", *self.keys)}
        for key in self.idle:
            remove(content, key)
        if self.on_subject and (precision := cfg.trainer.matmul_precision) != PRECISIONS[0]:
            content["matmul_precision"] = precision
        return content

    def check_files(self, cfg: DictConfig, sizes: Geometry | None) -> None:
        """Refuses files that the job would read and cannot, before the model is loaded.

        Args:
            cfg: the job's config.
            sizes: the subject's, where the task runs one.

        Raises:
            InputError: names the key, or the file and the line.
        """

    def read(self, cfg: DictConfig) -> dict[str, str | None]:
        """Digests of the files that the job reads besides the weights, by a name for each kind."""
        if not self.on_subject or cfg.subject.path is None:
            return {}
        return {"model": settings_digest(cfg.subject.path)}  # a hub's commit and a wheel's hash name them already

    def label(self, cfg: DictConfig) -> str:  # noqa: ARG002
        """The beginning of the job's folder name: what a person looks for."""
        return self.name

    def work(self, cfg: DictConfig, subject: Subject | None) -> Work:
        """Makes the work of one job.

        Args:
            cfg: a config that has been checked.
            subject: the language model, where the task runs one.
        """
        kind = import_name(self.work_import)
        return kind(self, cfg, subject) if self.on_subject else kind(self, cfg)

    def page(self, source: Source) -> Page:
        """What is shown of a job: on the terminal, as an HTML page, in a notebook."""
        return import_name(self.page_import)(source)

    def line(self, summary: Mapping[str, Any]) -> str:
        """A job's result in one line, for the log of a sweep."""
        return self.statement(summary) or f"complete, {summary['seconds']['total']:.1f} s"

    def statement(self, summary: Mapping[str, Any]) -> str:  # noqa: ARG002
        """What a job found, in words; empty for a task that has no findings."""
        return ""

    def after(self, source: Source) -> Next | None:  # noqa: ARG002
        """The command that a user would want behind a job of this task; None where there is none.

        Args:
            source: the job's record.
        """
        return None

    def verify(self, job: Job) -> None:
        """Refuses a complete record of this task whose files do not belong together.

        Raises:
            ValueError: they do not.
        """

    def gather(self, jobs: Sequence[Job]) -> Gathered:  # noqa: ARG002
        """What the complete jobs of this task in a sweep say together, beyond their tables one after the other.

        Args:
            jobs: complete records of this task (and of the tasks with the same `gathered_with`).
        """
        return Gathered()

    @property
    def gathered_with(self) -> str:
        """Tasks that give the same name are gathered together: their jobs can be set side by side."""
        return self.name


@dataclass(frozen=True)
class Gathered:
    """What several jobs of a sweep say together."""

    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    """Tables by the name of their file in the sweep's folder."""
    summary: Mapping[str, Any] = field(default_factory=dict)
    """Entries that the jobs add to `sweep.json`."""
    notes: Sequence[str] = ()
    """What could not be worked out, and why."""
    replaces: Sequence[str] = ()
    """Tables of the jobs that are not put one after the other, because one of `tables` takes their place."""
    page: Callable[[Source], Page] | None = None
    """Makes what the sweep's page shows of these jobs; None for nothing beyond the table of jobs."""

    def table(self, name: str) -> pd.DataFrame:
        """One of `tables`; empty where there is none."""
        import pandas as pd

        return self.tables.get(name, pd.DataFrame())


@dataclass
class Run:
    """Where and how one job runs."""

    contents: Contents = field(default_factory=Contents)
    """Takes tables, tensors and texts as they come; with a record they are on disk at once."""
    folder: Path | None = None
    """Folder of checkpoints and scratch files; None where there is none."""
    checkpoint: Path | None = None
    """A checkpoint of this very job that the work goes on from; None for a fresh start."""
    loggers: Sequence[Logger] = ()
    """Lightning loggers that get running measures."""
    progress: bool = True
    """Whether progress is shown."""
    stop: Stop = field(default_factory=Stop)
    """Whether a stop was asked for by Ctrl-C."""


class Work(ABC):
    """One job, ready to be done."""

    identity: Mapping[str, str | None]
    """Names of the work, `job_hash` among them; a checkpoint must hold the same."""

    @property
    def space(self) -> int:
        """Bytes that the record may take, as far as they are known before anything runs."""
        return 50_000_000

    @property
    def title(self) -> tuple[str, list[str]]:
        """Name and tags of the job's run in a tracker such as W&B."""
        return type(self).__name__, []

    def prepare(self) -> None:
        """Builds what is needed, and refuses what is wrong: nothing has been written yet.

        Raises:
            InputError: names the key, the value and what is allowed.
        """

    @abstractmethod
    def perform(self, run: Run) -> Summary:
        """Does the work, hands tables to `run.contents`, and returns the summary.

        Raises:
            KeyboardInterrupt: stopped by hand; what there was is in `run.contents`.
        """


def import_name(path: str) -> Any:
    """What a module holds under a name, by a path `module:name`."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def plain(value: Any) -> Any:
    """A node of a config as plain containers, interpolations resolved."""
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def keys_of(cfg: Mapping[Any, Any], group: str, **others: str) -> AbstractContextManager[None]:
    """Turns the arguments that errors of lower rooms name into the keys of a group.

    Args:
        cfg: the config.
        group: name of the group, whose keys are called as the arguments are.
        others: keys by the arguments that are not called so.
    """
    return renamed({str(name): f"{group}.{name}" for name in cfg[group]} | others)


def subject_keys(cfg: Mapping[Any, Any]) -> AbstractContextManager[None]:
    """Turns the arguments that errors about a subject's weights and sizes name into keys of the config."""
    return keys_of(cfg, "subject", config="subject", name="subject")


def settings_of(cfg: DictConfig, group: str) -> Any:
    """A group of a config as an instance of its settings dataclass.

    Raises:
        InputError: names the key.
    """
    with keys_of(cfg, group):
        return OmegaConf.to_object(cfg[group])


def remove(content: dict[str, Any], key: str) -> None:
    """Takes a dotted key out of nested dicts, where it is there."""
    *parents, last = key.split(".")
    for parent in parents:
        content = content.get(parent, {})
    content.pop(last, None)


def checked_once(check: Callable[[str], object], asked: str, *places: str | None) -> None:
    """Calls a check, and not again in this process as long as its argument and the files at some places stay the same.

    Args:
        check: raises InputError; it is called with `asked`.
        asked: what it is asked about, a path or more.
        places: files and folders that it reads.
    """
    files = [file for place in places if place is not None for file in (Path(place), *_inside(Path(place)))]
    stamps = tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.exists())
    _checked(check, asked, stamps)


def _inside(place: Path) -> list[Path]:
    return sorted(place.rglob("*")) if place.is_dir() else []


@lru_cache(maxsize=64)
def _checked(check: Callable[[str], object], asked: str, stamps: tuple[tuple[str, int, int], ...]) -> None:  # noqa: ARG001
    check(asked)


def digest_of(places: Iterable[tuple[Path, str]]) -> str | None:
    """sha256 of some files; None where none is named.

    Args:
        places: files, or folders with the pattern of the files in them.
    """
    whole, named = hashlib.sha256(), list(places)
    for place, pattern in named:
        for file in files_in(place, pattern) if place.is_dir() else [place]:
            if file.is_file():
                with file.open("rb") as stream:
                    whole.update(hashlib.file_digest(stream, "sha256").digest())
    return whole.hexdigest() if named else None


def hashed(identity: Mapping[str, Any], weights: str | None, files: Mapping[str, str | None]) -> str:
    """The hash that names a job's work: of its config, of the subject's weights, and of other files that it reads."""
    return job_hash({"config": identity, **({} if weights is None else {"weights": weights}), **files})
