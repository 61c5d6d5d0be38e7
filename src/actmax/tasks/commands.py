"""Commands: what a user would type to ask for what a config says, and what they would want to type next."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from actmax.choices import choice, choices
from actmax.model.settings import CONTEXTS
from actmax.tasks.schema import groups
from actmax.tasks.settings import RestartSettings, kind_of

PLAIN = re.compile(r"[A-Za-z_/][\w./-]*", re.ASCII)
"""Texts that Hydra reads as they stand, unless they are one of its words."""
WORDS = ("null", "true", "false", "nan", "inf")
"""Hydra's own words, in any case."""
COORDINATE = ("site", "layer", "index")
"""Keys that a coordinate is asked for by."""
ALONE = ("seeds", "controls", "tokens", "max_rows")
"""Keys without a group that a next job on the same unit takes over."""


@dataclass(frozen=True)
class Next:
    """The command that a user would want behind a result."""

    why: str
    """A few words that say where it leads, to stand behind `Next,`."""
    words: tuple[str, ...]
    """Words of the command, as a shell splits them."""

    @property
    def command(self) -> str:
        """The command in one line, quoted for a shell."""
        return shlex.join(self.words)


def job(why: str, *overrides: str) -> Next:
    """The command of a job by its overrides."""
    return Next(why, ("actmax", *overrides))


def override(key: str, value: object) -> str:
    """A key and its value as Hydra reads them.

    Example:
        >>> override("seeds", "0:10"), override("unit.layer", None), override("seeds", [0, 3])
        ('seeds="0:10"', 'unit.layer=null', 'seeds=[0,3]')
    """
    return f"{key}={_spelled(value)}"


def _spelled(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_spelled(one)}" for key, one in value.items()) + "}"
    if isinstance(value, str):
        return value if PLAIN.fullmatch(value) and value.lower() not in WORDS else _quoted(value)
    if isinstance(value, Sequence):
        return f"[{','.join(map(_spelled, value))}]"
    return repr(value)


def _quoted(text: str) -> str:
    r"""A text in Hydra's quotes, where backslashes count double before a quote and at the end, else as they stand."""
    inside = re.sub(r'(\\*)"', r'\1\1\\"', text)
    inside = re.sub(r"(\\+)$", r"\1\1", inside)
    return f'"{inside}"'.replace("${", "\\${")


def asked(config: Mapping[str, Any], *names: str) -> list[str]:
    """The overrides that ask for what a config says, group by group: a choice, and what differs from it.

    Args:
        config: the config of a job, resolved.
        names: groups, or keys without one.
    """
    found: list[str] = []
    for name in names:
        said = config.get(name)
        if isinstance(said, Mapping):
            defaults = {one.name: _default(one) for one in fields(groups()[name])}
            chosen, differing = _closest(name, {key: said[key] for key in defaults if key in said}, defaults)
            found += [*([f"{name}={chosen}"] if chosen else []), *differing]
        elif name in config and said != RestartSettings.__dataclass_fields__[name].default:
            found.append(override(name, said))
    return found


def _default(field: Any) -> Any:
    return field.default if field.default is not MISSING else field.default_factory()


def _closest(group: str, said: Mapping[str, Any], defaults: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The choice of a group that leaves least to say, and that; of `unit` the one that a job has by itself."""
    if group == "unit":
        always = COORDINATE if kind_of(said) == "coordinate" else ()
        return "", list(_differing(group, said, {**defaults, **choice(group, "residual")}, always))
    each = {name: list(_differing(group, said, {**defaults, **choice(group, name)})) for name in choices(group)}
    if not each:
        return "", list(_differing(group, said, defaults))
    closest = min(each, key=lambda name: len(each[name]))
    return closest, each[closest]


def _differing(
    group: str, said: Mapping[str, Any], given: Mapping[str, Any], always: Collection[str] = ()
) -> Iterator[str]:
    for key, value in said.items():
        before = given[key]
        if isinstance(before, str) and "${" in before:  # a model of the hub goes by the last part of its id
            before = str(said.get("id")).rpartition("/")[2]
        if isinstance(value, Mapping):
            for inner, one in value.items():
                if inner not in before or before[inner] != one:
                    yield ("" if inner in before else "+") + override(f"{group}.{key}.{inner}", one)
        elif key in always or value != before:
            yield override(f"{group}.{key}", value)


def same_unit(config: Mapping[str, Any], only: Mapping[str, Any] | None = None) -> list[str]:
    """The overrides that ask for the subject and the units of a job.

    Args:
        config: the job's config.
        only: the one coordinate of several that is meant, by `site`, `layer` and `index`; None for all.
    """
    unit = config.get("unit", {})
    return asked({**config, "unit": {**unit, **(only or {})}}, "subject", "unit")


def same_context(config: Mapping[str, Any], allowed: Sequence[str] = CONTEXTS) -> list[str]:
    """The overrides that ask for the context of a job, where it has one that another kind of job can have.

    Args:
        config: the job's config.
        allowed: the contexts that the other kind can have.
    """
    if config.get("context", {}).get("name") not in allowed:
        return []
    return [word for word in asked(config, "context") if word != "context=auto"]  # which a job is by itself


def same_search(config: Mapping[str, Any], why: str, only: Mapping[str, Any] | None = None) -> Next:
    """The command that searches real tokens for what the units of a job respond to.

    Args:
        config: the job's config.
        why: where it leads.
        only: as of `same_unit`.
    """
    rest = [*asked(config, "objective"), *same_context(config), *asked(config, *ALONE)]
    return job(why, "task=search", *same_unit(config, only), *rest)


def place(path: Path) -> str:
    """A path as one would type it here: from the working directory where it lies under it."""
    whole, here = path.resolve(), Path.cwd()
    return str(whole.relative_to(here) if whole.is_relative_to(here) and whole != here else whole)
