"""The tasks by name: the only place where a task is chosen."""

from __future__ import annotations

from functools import cache
from typing import Any

from actmax.errors import InputError
from actmax.tasks.settings import GROUPS
from actmax.tasks.task import Task, import_name

BUILT_IN = {
    "maximization": "actmax.tasks.maximization.task:MaximizationTask",
    "search": "actmax.tasks.search.task:SearchTask",
    "simulation": "actmax.tasks.simulation.task:SimulationTask",
    "tuning": "actmax.tasks.tuning.task:TuningTask",
    "examples": "actmax.tasks.examples.task:ExamplesTask",
    "check": "actmax.tasks.check.task:CheckTask",
}
"""Where the classes of actmax's own tasks are; they are imported when they are asked for."""
_ADDED: dict[str, Task] = {}


def register(new: Task) -> None:
    """Adds a task: `task=NAME` and its groups of keys work on the command line of this process.

    Raises:
        ValueError: another task has the name.
    """
    if new.name in names():
        raise ValueError(f"a task named {new.name} is registered already")
    _ADDED[new.name] = new


def names() -> tuple[str, ...]:
    """The names of all tasks."""
    return *BUILT_IN, *_ADDED


def task_of(name: str) -> Task:
    """The task of a name.

    Raises:
        InputError: there is none.
    """
    if name in _ADDED:
        return _ADDED[name]
    if name not in BUILT_IN:
        raise InputError("task.name", name, f"must be one of {', '.join(names())}")
    return _built_in(name)


def task_in(config: Any) -> Task:
    """The task of a config, a node or a mapping.

    Raises:
        InputError: there is no such task.
    """
    return task_of(str(config["task"]["name"]))


@cache
def _built_in(name: str) -> Task:
    return import_name(BUILT_IN[name])()


def added() -> tuple[Task, ...]:
    """Tasks that others registered."""
    return tuple(_ADDED.values())


def groups() -> dict[str, Any]:
    """The groups of keys of all tasks: a settings dataclass by the group's name.

    Raises:
        ValueError: two tasks give one name to different settings.
    """
    found = dict(GROUPS)
    for name in names():
        for group, schema in task_of(name).groups.items():
            if found.setdefault(group, schema) is not schema:
                raise ValueError(f"the task {name} gives the group {group} to other settings than another task does")
    return found
