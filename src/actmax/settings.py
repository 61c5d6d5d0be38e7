"""Settings: a dataclass per group of keys holds defaults, limits and meanings, each in one place.

The same dataclass is Hydra's schema node, the argument of the functions that read it, and the source of
docs/reference.md. A limit stands in a field's metadata, where `check` finds it. Nothing heavy is imported here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast, get_type_hints

from actmax.errors import InputError


@dataclass(frozen=True)
class Limits:
    """What a setting may be; None stands for no limit."""

    least: int | float | None = None
    """The smallest value that is allowed."""
    above: int | float | None = None
    """A value that every allowed value exceeds; infinity and NaN are refused with it."""
    below: int | float | None = None
    """A value that every allowed value stays under."""
    choices: tuple[str, ...] = ()
    """The names that are allowed; any where it is empty."""

    def broken(self, value: Any) -> str | None:
        """The limit that a value breaks, as a clause such as `must be at least 1`; None where it is allowed."""
        if self.choices:
            return None if value in self.choices else f"must be one of {', '.join(self.choices)}"
        if value is None:
            return None
        if self.least is not None and not (value >= self.least and math.isfinite(value)):
            return f"must be at least {self.least:g}"
        inside = (self.above is None or value > self.above) and (self.below is None or value < self.below)
        if not inside or (self.above is not None and not math.isfinite(value)):
            return self._between
        return None

    @property
    def _between(self) -> str:
        if self.below is not None:
            return f"must be above {self.above:g} and below {self.below:g}"
        return "must be a positive number" if self.above == 0 else f"must be above {self.above:g}"

    def __str__(self) -> str:
        """As the reference prints it."""
        if self.choices:
            return ", ".join(self.choices)
        if self.least is not None:
            return f"{self.least:g} or above"
        bounds = [f"above {self.above:g}"] if self.above is not None else []
        return ", ".join([*bounds, *([f"below {self.below:g}"] if self.below is not None else [])])


def setting(
    default: Any,
    *,
    least: int | float | None = None,
    above: int | float | None = None,
    below: int | float | None = None,
    choices: Sequence[str] = (),
) -> Any:
    """A dataclass field with a default (or a function that makes it) and the limits of its value."""
    metadata = {"limits": Limits(least, above, below, tuple(choices))}
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def limits(schema: type, prefix: str = "") -> dict[str, Limits]:
    """The limits of all settings of a dataclass and of the dataclasses in it, by dotted key."""
    found: dict[str, Limits] = {}
    hints = get_type_hints(schema)
    for field in dataclasses.fields(schema):
        key = f"{prefix}{field.name}"
        if "limits" in field.metadata:
            found[key] = field.metadata["limits"]
        elif dataclasses.is_dataclass(kind := hints[field.name]):
            found |= limits(cast("type", kind), f"{key}.")
    return found


def check(values: Any, schema: type) -> None:
    """Refuses settings outside their limits.

    Args:
        values: an instance of the schema, a mapping, or a node of a config.
        schema: the dataclass.

    Raises:
        InputError: names the key, the value and what is allowed.
    """
    for key, limit in limits(schema).items():
        value = values
        for part in key.split("."):
            value = value[part] if isinstance(value, Mapping) else getattr(value, part)
        if (allowed := limit.broken(value)) is not None:
            raise InputError(key, value, allowed)
