"""The schema of a job's config, made of the settings of all tasks: a misspelt key is an error wherever it stands."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any, get_type_hints

from omegaconf import OmegaConf

from actmax.errors import InputError
from actmax.model.settings import SubjectSettings
from actmax.settings import check as check_limits
from actmax.settings import check_keys
from actmax.tasks import registry
from actmax.tasks.settings import RestartSettings, TaskSettings, TrainerSettings, control_count, seeds, units
from actmax.tasks.task import hashed, subject_keys
from actmax.weights import fingerprint

UNREAD = "Settings of another task, which change nothing in %s: %s"
"""What is said of settings that were typed and are not read."""


def groups() -> dict[str, Any]:
    """The groups of keys of every job: a settings dataclass by the group's name."""
    own = registry.groups()
    return {"task": TaskSettings, "subject": SubjectSettings, **own, "trainer": TrainerSettings}


def schema(more: Mapping[str, Any] | None = None, *scalars: type) -> type:
    """The dataclass of a whole config.

    Args:
        more: further groups beside those of the tasks.
        scalars: dataclasses whose fields are top-level keys, beside seeds, tokens, steps and max_rows.
    """
    fields: list[tuple[str, Any, Any]] = []
    for name, kind in {**groups(), **(more or {})}.items():
        hint = dict[str, Any] if kind is dict else kind
        fields.append((name, hint, dataclasses.field(default_factory=kind)))
    for kind in (RestartSettings, *scalars):
        hints = get_type_hints(kind)
        for field in dataclasses.fields(kind):
            own = dataclasses.field(default=field.default, metadata=field.metadata)
            fields.append((field.name, hints[field.name], own))
    return dataclasses.make_dataclass("Config", fields)


def check(cfg: Any, schema: type) -> None:
    """Refuses what is wrong with a job whatever its subject is.

    Args:
        cfg: the config.
        schema: the dataclass that it was made from.

    Raises:
        InputError: names the key, the value and what is allowed.
    """
    check_keys({key: None if OmegaConf.is_missing(cfg, key) else cfg[key] for key in cfg if key != "hydra"}, schema)
    task = registry.task_in(cfg)
    check_limits(cfg, schema)
    strategy = cfg.trainer.strategy
    if strategy != "auto":
        reason = (
            "must be auto: every other strategy has the devices share one set of parameters, and would merge the "
            "restarts (ddp averages their gradients, fsdp and deepspeed shard and average them)"
        )
        way_out = "With auto, trainer.devices=N splits the restarts over N devices, which exchange nothing."
        raise InputError("trainer.strategy", strategy, reason, way_out)
    seeds(cfg)
    units(cfg)
    control_count(cfg)
    for name in registry.names():
        registry.task_of(name).check_settings(cfg)
    task.check(cfg)


def place_of(cfg: Any) -> dict[str, Any]:
    """Where a config's weights lie."""
    return {key: cfg.subject[key] for key in ("source", "id", "revision", "path", "wheel")}


def request(cfg: Any) -> str:
    """The hash of what a config asks for, without loading the weights: its identity, and the files it reads.

    Equal requests are the same job; that one job may have several (the same weights in two folders).
    """
    task = registry.task_in(cfg)
    with subject_keys(cfg):
        weights = fingerprint(**place_of(cfg)) if task.on_subject else None
    return hashed(task.identity(cfg), weights, task.read(cfg))


def without_effect(cfg: Any, typed: Iterable[str]) -> list[str]:
    """Those of some settings that the job's task does not read, because they are of other tasks.

    Args:
        cfg: the job's config, which has been checked.
        typed: settings as they are typed on the command line, such as `search.passes=7` or `+init=tokens`.
    """
    task = registry.task_in(cfg)
    read = {*task.keys, *task.groups, *task.identity(cfg)}
    others = map(registry.task_of, registry.names())
    known = {key for other in others for key in (*other.keys, *other.groups)} - read
    return [one for one in typed if re.split(r"[.=@]", one.lstrip("+~"))[0] in known]
