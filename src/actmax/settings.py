"""Settings: a dataclass per group of keys holds defaults, limits and meanings, each in one place.

The same dataclass is Hydra's schema node, the argument of the functions that read it, and the source of
docs/reference.md. A limit stands in a field's metadata, where `check` finds it. Nothing heavy is imported here.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from itertools import islice
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from actmax.errors import InputError

LARGEST = 2**63 - 1
"""The largest whole number that tables and random generators take."""
SHOWN = 60
"""Most characters of a value of the wrong kind that an error shows."""
GROUP = "a group of keys"
"""What a value of several keys is called."""


@dataclass(frozen=True)
class Limits:
    """What a setting may be; None stands for no limit."""

    least: int | float | None = None
    """The smallest value that is allowed."""
    most: int | float | None = None
    """The largest value that is allowed."""
    above: int | float | None = None
    """A value that every allowed value exceeds; infinity and NaN are refused with it."""
    below: int | float | None = None
    """A value that every allowed value stays under."""
    choices: tuple[str, ...] = ()
    """The names that are allowed; any where it is empty."""

    def broken(self, value: Any) -> str | None:
        """The limit that a value breaks, as a clause such as `must be at least 1`; None where it is allowed."""
        if value is None:
            return None
        if self.choices:
            return None if value in self.choices else f"must be one of {', '.join(self.choices)}"
        if self.least is not None and not (value >= self.least and math.isfinite(value)):
            return f"must be at least {self.least:g}"
        inside = (self.above is None or value > self.above) and (self.below is None or value < self.below)
        if not inside or (self.above is not None and not math.isfinite(value)):
            return self._between
        if self.most is not None and value > self.most:
            return f"must be at most {self.most:{'d' if isinstance(self.most, int) else 'g'}}"
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
            return f"{self.least:g} or above" if self.most in (None, LARGEST) else f"{self.least:g} to {self.most:g}"
        bounds = [f"above {self.above:g}"] if self.above is not None else []
        bounds += [f"below {self.below:g}"] if self.below is not None else []
        return ", ".join([*bounds, *([f"at most {self.most:g}"] if self.most is not None else [])])


def setting(
    default: Any,
    *,
    least: int | float | None = None,
    most: int | float | None = None,
    above: int | float | None = None,
    below: int | float | None = None,
    choices: Sequence[str] = (),
) -> Any:
    """A dataclass field with a default (or a function that makes it) and the limits of its value."""
    metadata = {"limits": Limits(least, most, above, below, tuple(choices))}
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def seed_setting() -> Any:
    """A dataclass field with the seed of a random generator, 0 by default."""
    return setting(0, least=0, most=LARGEST)


def required(value: Any, kind: type, argument: str, **bounds: Any) -> Any:
    """A value of a kind and within bounds, for arguments that no dataclass declares.

    Args:
        value: what was given.
        kind: int or float.
        argument: its name.
        bounds: `least`, `most`, `above`, `below`.

    Raises:
        InputError: names the argument.
    """
    broken = Limits(**bounds).broken(value) if _fits(value, kind) else f"must be {_kind(kind)}"
    if broken:
        raise InputError(argument, value, broken)
    return value


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


def check_keys(values: Mapping[Any, Any], schema: type, prefix: str = "") -> None:
    """Refuses keys that a dataclass and the dataclasses in it do not have: Hydra's `+` adds any, and nobody reads them.

    Args:
        values: the config.
        schema: the dataclass.
        prefix: what stands before a key's name in an error.

    Raises:
        InputError: names the key, and those that it may have been meant for.
    """
    known = _hints(schema)
    for name in known:
        if name not in values:
            raise InputError(f"{prefix}{name}", "removed", "every key must be there", "Leave it as it is, or set it.")
    for name in values:
        if name not in known:
            way_out = meant(str(name), known, prefix) or inside(str(name), schema, prefix)
            raise InputError(f"{prefix}{name}", values[name], "there is no such key", way_out)
        if dataclasses.is_dataclass(known[name]) and isinstance(values[name], Mapping):
            check_keys(values[name], cast("type", known[name]), f"{prefix}{name}.")


def keys(schema: type, *groups: str) -> list[str] | None:
    """The keys of a dataclass, or of a group inside it; None where a group takes any key.

    Where there is no such group, the keys of the last one that there is.
    """
    known = _hints(schema)
    for group in groups:
        if group not in known:
            break
        if not dataclasses.is_dataclass(known[group]):
            return None if "dict" in str(known[group]) else []
        known = _hints(cast("type", known[group]))
    return list(known)


def kind_at(schema: type, key: str) -> str:
    """What the value of a dotted key must be, as a person calls it; empty where there is no such key.

    An index behind the key, of a place in its list, is left out: what is asked of the list is said.
    """
    hint: Any = schema
    for part in key.partition("[")[0].split("."):
        if not dataclasses.is_dataclass(hint) or part not in (known := _hints(cast("type", hint))):
            return ""
        hint = known[part]
    return "a value" if hint is Any else _kind(hint)


def meant(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Which of some names another was meant for, as a sentence; empty where none is near."""
    return _asked(f"{prefix}{one}" for one in get_close_matches(name, list(known), n=3, cutoff=0.7))


def inside(name: str, schema: type, prefix: str = "") -> str:
    """The first places at which a dataclass, or a group in it, has a key of this name, as a sentence; else empty."""
    return _asked(islice((path for path in _paths(schema, prefix) if path.rpartition(".")[2] == name), 3))


def _asked(names: Iterable[str]) -> str:
    """Whether one of some names was meant, as a sentence; empty where there are none."""
    listed = " or ".join(names)
    return f"Did you mean {listed}?" if listed else ""


def _paths(schema: type, prefix: str = "") -> Iterator[str]:
    """The keys of a dataclass and of the dataclasses in it, with the names of their groups."""
    for name, hint in _hints(schema).items():
        yield f"{prefix}{name}"
        if dataclasses.is_dataclass(hint):
            yield from _paths(cast("type", hint), f"{prefix}{name}.")


def check_types(values: Mapping[str, Any], schema: type, prefix: str = "") -> None:
    """Refuses values of another kind than a dataclass says, as they come out of a file that somebody may have changed.

    Keys that the dataclass lacks, and keys that are not there, are left alone: a file may be of another release.

    Args:
        values: what the file holds.
        schema: the dataclass.
        prefix: what stands before a key's name in an error.

    Raises:
        InputError: names the key, the value and the kind that it must be of.
    """
    for name, hint in _hints(schema).items():
        if name not in values:
            continue
        value, key = values[name], f"{prefix}{name}"
        if dataclasses.is_dataclass(hint):
            if not isinstance(value, Mapping):
                raise InputError(key, _short(value), "must be a group of keys")
            check_types(value, cast("type", hint), f"{key}.")
        elif not _fits(value, hint):
            raise InputError(key, _short(value), f"must be {_kind(hint)}")


@cache
def _hints(schema: type) -> dict[str, Any]:
    hints = get_type_hints(schema)
    return {field.name: hints[field.name] for field in dataclasses.fields(schema)}


def _fits(value: Any, hint: Any) -> bool:
    origin, inside = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in inside)
    if origin is Literal:
        return value in inside
    if origin is list:
        return isinstance(value, list) and all(_fits(one, inside[0]) for one in value)
    if origin is dict or hint is dict:
        return isinstance(value, Mapping) and all(_fits(one, inside[1]) for one in value.values() if inside)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value) is hint or (hint is type(None) and value is None)


def _kind(hint: Any) -> str:
    """A type as a person calls it."""
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", type(None): "null"}
    inside = get_args(hint)
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_kind(one) for one in inside)
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, inside))}"
    if get_origin(hint) is list:
        return f"a list, each {_kind(inside[0])}"
    return names.get(hint, GROUP)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
