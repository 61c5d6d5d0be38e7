"""The files of conf/: where they are, and what one choice of a group says. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actmax.errors import InputError
from actmax.records.store import from_yaml


def conf_folder() -> Path:
    """The config files: inside the package of a wheel, at the root of a checkout."""
    packaged = Path(__file__).parent / "conf"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "conf"


def choices(group: str) -> list[str]:
    """The names of a group's choices, sorted."""
    return sorted(file.stem for file in (conf_folder() / group).glob("*.yaml"))


def about(group: str, name: str) -> str:
    """The first line of the comment at the head of a choice's file, without its last full stop.

    Args:
        group: name of a folder of conf/.
        name: name of a file in it.
    """
    text = (conf_folder() / group / f"{name}.yaml").read_text(encoding="utf-8")
    lines = (line.removeprefix("#").strip() for line in text.splitlines() if not line.startswith("# @package"))
    return next(lines).removesuffix(".")


def choice(group: str, name: str, argument: str | None = None) -> dict[str, Any]:
    """The settings that a choice of a group holds.

    Args:
        group: name of a folder of conf/.
        name: name of a file in it.
        argument: name of the caller's argument, for the error; None for the group.

    Raises:
        InputError: there is no such choice.
    """
    if name not in choices(group):
        raise InputError(argument or group, name, f"must be one of {', '.join(choices(group))}")
    return from_yaml((conf_folder() / group / f"{name}.yaml").read_text(encoding="utf-8")) or {}
