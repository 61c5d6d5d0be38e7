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
    """The choices of a group, by name."""
    return sorted(file.stem for file in (conf_folder() / group).glob("*.yaml"))


def choice(group: str, name: str, argument: str | None = None) -> dict[str, Any]:
    """What a choice of a group says.

    Args:
        group: a folder of conf/.
        name: a file in it.
        argument: what the caller calls the name, for the error.

    Raises:
        InputError: there is no such choice.
    """
    if name not in choices(group):
        raise InputError(argument or group, name, f"must be one of {', '.join(choices(group))}")
    return from_yaml((conf_folder() / group / f"{name}.yaml").read_text(encoding="utf-8")) or {}
