"""Writes docs/reference.md, every config key and every choice, from the schema's docstrings and the conf files.

python scripts/reference.py           writes it
python scripts/reference.py --check   exits with 1 where it is not what would be written
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from actmax.app import config
from actmax.app.settings import JobSettings
from actmax.choices import choices as choices_of
from actmax.settings import limits
from actmax.tasks import registry
from actmax.tasks.settings import RestartSettings

SOURCE = Path(config.__file__).parents[1]
PAGE = Path(__file__).parents[1] / "docs" / "reference.md"
WIDTH = 120
"""Most characters of a line."""
WRAPPING: Any = {"break_long_words": False, "break_on_hyphens": False}
"""Words and code stay whole, even where a line becomes longer."""
HEAD = """# Every key and every choice

<!-- Written by scripts/reference.py from src/actmax and conf/: change those, then run it again. -->

This page lists what a command can be given. There are two kinds:

- A *key* has a value: `actmax steps=100 unit.layer=4`.
- A *choice* sets several keys at once. It is the name of a file in a folder of `conf/`: `actmax subject=smollm2`.

A key stands here as `KEY (type, default): meaning. Allowed: limits.` The defaults are those of the bare config, without
an experiment. An experiment and each choice set their own. With `--cfg job` at its end a command prints the config that
it comes to, and runs nothing.

A *number, list or range* is `3`, `[0,3]` or `"0:12"`. The stop of a range is left out, as in Python. In a shell the
quotes need quotes: `'seeds="0:12"'`.

Keys under `hydra.` are [Hydra's own](https://hydra.cc/docs/configure_hydra/intro/). `hydra.run.dir=FOLDER` says where a
job writes.
"""
KINDS = {"Any": "number, list or range", "dict[str, Any]": "mapping", "bool": "true or false"}
KINDS |= {"str": "text", "int": "whole number", "float": "number"}
"""Types of fields in plain words."""
WHOLE = {
    "experiment": "Whole jobs and sweeps, to start from.",
    "method": "A prior or a search by one name, so that one sweep sets them side by side.",
    "debug": "Small, to try a command.",
}
"""Choices that set keys of several groups."""
WORDS = {"trainer.strategy": ("auto",)}
"""What is allowed beyond the limits in the settings."""


@dataclass(frozen=True)
class Documented:
    """What the source of a class says of it."""

    text: str
    """The class's docstring, its first line."""
    types: Mapping[str, str]
    """By field, as it is written."""
    meanings: Mapping[str, str]
    """By field: the docstring under it."""


@cache
def documented(file: Path) -> dict[str, Documented]:
    """Every class of a module, by name; dataclasses' fields include those of their base."""
    found: dict[str, Documented] = {}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.ClassDef):
            continue
        bases = [found[base.id] for base in node.bases if isinstance(base, ast.Name) and base.id in found]
        types = {key: value for base in bases for key, value in base.types.items()}
        meanings = {key: value for base in bases for key, value in base.meanings.items()}
        for field, behind in zip(node.body, [*node.body[1:], None], strict=True):
            if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
                continue
            types[field.target.id] = ast.unparse(field.annotation)
            if isinstance(behind, ast.Expr) and isinstance(behind.value, ast.Constant):
                meanings[field.target.id] = " ".join(str(behind.value.value).split())
        text = (ast.get_docstring(node) or "").split("\n")[0]
        found[node.name] = Documented(text, types, meanings)
    return found


def documentation(kind: type) -> Documented:
    """What the source of a settings dataclass says of it, the fields of its bases first."""
    parts = [base for base in reversed(kind.__mro__) if dataclasses.is_dataclass(base)]
    found = [documented(Path(inspect.getfile(base)))[base.__name__] for base in parts]
    types = {name: value for one in found for name, value in one.types.items()}
    return Documented(found[-1].text, types, {name: value for one in found for name, value in one.meanings.items()})


def defaults() -> dict[str, Any]:
    """What a job comes to that names nothing."""
    config.register()
    with initialize_config_dir(str(config.conf_folder()), version_base="1.3"):
        content: Any = OmegaConf.to_container(compose("config"), resolve=False)
    return content


def leading_comment(file: Path) -> str:
    """The first sentence of the comment at the head of a conf file."""
    said = []
    for line in file.read_text(encoding="utf-8").splitlines():
        text = line.removeprefix("#")
        if text == line or (said and text.startswith(("  ", " actmax "))):
            break
        if not text.startswith(" @package"):
            said.append(text.strip())
    return " ".join(said).split(". ")[0].rstrip(".,: ")


def choices(group: str) -> dict[str, str]:
    """The files of a folder of conf/, by name, with their meaning."""
    return {name: leading_comment(config.conf_folder() / group / f"{name}.yaml") for name in choices_of(group)}


def page() -> str:
    """The whole reference."""
    values = defaults()
    parts = [HEAD, *_job(values)]
    for name, kind in get_type_hints(config.schema()).items():
        if dataclasses.is_dataclass(kind):
            parts += _group(name, kind, values[name], level=2)
        elif name == "callbacks":
            parts += _callbacks(values["callbacks"])
    for name, text in WHOLE.items():
        parts += [f"## {name}\n", f"{text}\n", _choices(name)]
    return "\n".join(parts)


def _job(values: Mapping[str, Any]) -> Iterator[str]:
    yield "## The job\n"
    entries = []
    for kind in (RestartSettings, JobSettings):
        own = documentation(kind)
        entries += [_key(name, own, name, values[name]) for name in own.types]
    yield _list(entries)


def _group(path: str, kind: Any, values: Mapping[str, Any], *, level: int, text: str = "") -> Iterator[str]:
    """A section, and one for every dataclass in it."""
    own, hints = documentation(kind), get_type_hints(kind)
    yield f"{'#' * level} {path}\n"
    yield f"{wrapped(escaped(text or own.text))}\n"
    if level == 2 and choices(path):
        yield f"Choices:\n\n{_choices(path)}"
    inner = [name for name in own.types if dataclasses.is_dataclass(hints[name])]
    plain = [name for name in own.types if name not in inner]
    if plain:
        yield "Keys:\n"
        yield _list([_key(f"{path}.{name}", own, name, values[name]) for name in plain])
    for name in inner:
        where, said = f"{path}.{name}", own.meanings[name]
        yield from _group(where, hints[name], values[name], level=level + 1, text=said)


def _callbacks(values: Mapping[str, Any]) -> Iterator[str]:
    """The default callbacks, whose classes document their arguments."""
    yield "## callbacks\n"
    yield "Lightning callbacks by name, each with its `_target_`; null leaves one out.\n"
    yield f"Choices:\n\n{_choices('callbacks')}"
    yield "Keys:\n"
    entries = []
    for name, spec in values.items():
        text, types, meanings = arguments(spec["_target_"].rsplit(".", 1)[1])
        entries.append(f"`callbacks.{name}` (mapping): {escaped(text)}")
        for key, value in spec.items():
            if key != "_target_":
                said = KINDS.get(types[key], types[key]) if types[key] != "Any" else "number"
                entries.append(f"`callbacks.{name}.{key}` ({said}, default {shown(value)}): {escaped(meanings[key])}")
    yield _list(entries)


def arguments(name: str) -> tuple[str, dict[str, str], dict[str, str]]:
    """A callback's docstring, its first line, and of every argument the type and what `Args` says.

    Read from the source, for the module itself imports torch.
    """
    tree = ast.parse((SOURCE / "maximize" / "callbacks.py").read_text(encoding="utf-8"))
    (kind,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    (start,) = (node for node in kind.body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    types = {one.arg: ast.unparse(one.annotation) for one in start.args.args if one.annotation is not None}
    text, _, listed = (ast.get_docstring(kind) or "").partition("Args:")
    pairs = [line.strip().partition(": ") for line in listed.splitlines() if ": " in line]
    return text.split("\n")[0], types, {key: said[0].upper() + said[1:] for key, _, said in pairs}


def _key(key: str, own: Documented, name: str, value: Any) -> str:
    """The entry of a key: its type, its default, what it means and what it may be."""
    kind = own.types[name]
    words = KINDS.get(kind) or re.sub(r"\b(str|int|float)\b", lambda one: KINDS[one[0]], _unfolded(kind))
    words = {"controls": "number or `auto`"}.get(key, words)
    text = f"`{key}` ({words}, default {shown(value)}): {escaped(own.meanings[name])}"
    right = allowed(key)
    return f"{text} Allowed: {right}." if right else text


def _unfolded(kind: str) -> str:
    return kind.replace("list[", "list of ").replace("]", "").replace(" | None", " or null")


def allowed(key: str) -> str:
    """What a key may be, names as code; empty where no limit is declared."""
    if key == "tuning.sites":
        return f"some of {_names(limits(config.schema())['unit.site'].choices)}"
    if key == "task.name":
        return _names(registry.names())
    found = limits(config.schema()).get(key)
    if found is None:
        return _names(WORDS.get(key, ()))
    return _names(found.choices) or str(found)


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def shown(value: Any) -> str:
    """A value as code; a long list by its ends."""
    if isinstance(value, list) and len(value) > 10:
        return f"`{value[0]}`, `{value[1]}` … `{value[-1]}` ({len(value)})"
    if isinstance(value, str) and value == value.strip():
        return f"`{value}`"
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def _choices(group: str) -> str:
    return _list([f"`{group}={name}`: {escaped(text)}." for name, text in choices(group).items()])


def _list(entries: Iterable[str]) -> str:
    return "".join(f"{wrapped(entry, '- ')}\n" for entry in entries)


def wrapped(text: str, head: str = "") -> str:
    """A paragraph, or an entry of a list behind `head`, in lines of at most WIDTH characters.

    No line is broken inside of short code, and none begins with a mark that Markdown takes for a list or a heading.

    Example:
        >>> print(wrapped("`a b` " * 30, "- ").splitlines()[1])
          `a b` `a b` `a b` `a b` `a b` `a b` `a b` `a b` `a b` `a b` `a b`
    """
    kept = re.sub(r"`[^`]{1,60}`", lambda code: code[0].replace(" ", "\0"), text)
    kept = re.sub(r" (?=(?:[-+*#>=]+|\d+[.)])(?: |$))", "\0", kept)
    behind = " " * len(head)
    lines = textwrap.wrap(kept, WIDTH, initial_indent=head, subsequent_indent=behind, **WRAPPING)
    return "\n".join(lines).replace("\0", " ")


def escaped(text: str) -> str:
    """Text in Markdown: what stands in backticks stays as it is."""
    parts = text.split("`")
    for number in range(0, len(parts), 2):
        plain = parts[number].replace("<|", "&lt;&#124;").replace("|>", "&#124;&gt;")
        plain = plain.replace("*", "\\*").replace("_", "\\_")
        parts[number] = re.sub(r"docs/(\w+)\.md", r"[\1](\1.md)", plain)
    return "`".join(parts)


def main() -> None:
    """Writes the page, or checks it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where the page is old")
    parser.add_argument("--file", type=Path, default=PAGE, help="the page")
    options, text = parser.parse_args(), page()
    if not options.check:
        options.file.write_text(text, encoding="utf-8")
    elif not options.file.is_file() or options.file.read_text(encoding="utf-8") != text:
        sys.exit(f"{options.file} is not what the schema says: run python scripts/reference.py")


if __name__ == "__main__":
    main()
