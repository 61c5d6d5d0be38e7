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
from collections.abc import Iterator, Mapping
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
HEAD = """# Every key and every choice

<!-- Written by scripts/reference.py from src/actmax and conf/: change those, then run it again. -->

Every key can be given on the command line, `actmax steps=100 unit.layer=4`, and every choice by its folder's name,
`actmax subject=smollm2`. The defaults here are those of a job that names nothing else, `actmax task=maximization`: an
experiment and each choice set their own.
With `--cfg job` at its end a command prints what it comes to, without running it. Keys under `hydra.` are [Hydra's
own](https://hydra.cc/docs/configure_hydra/intro/); `hydra.run.dir=FOLDER` says where a job writes.

A *number, list or range* is `3`, `[0,3]` or `"0:12"`, where the stop is left out as in Python; on a shell's command
line the quotes need quotes: `'seeds="0:12"'`.
"""
WHOLE = {
    "experiment": "Whole jobs and sweeps, to start from.",
    "method": "A prior or a search by one name, so that one sweep sets them side by side.",
    "debug": "Small, to try a command.",
}
"""Choices that set keys of several groups."""
WORDS = {"trainer.accelerator": "auto, cpu, gpu, cuda, mps", "trainer.strategy": "auto"}
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
    rows = []
    for kind in (RestartSettings, JobSettings):
        own = documentation(kind)
        rows += [_row(name, own, name, values[name]) for name in own.types]
    yield _table(rows)


def _group(path: str, kind: Any, values: Mapping[str, Any], *, level: int, text: str = "") -> Iterator[str]:
    """A section, and one for every dataclass in it."""
    own, hints = documentation(kind), get_type_hints(kind)
    yield f"{'#' * level} {path}\n"
    yield f"{_escaped(text or own.text)}\n"
    if level == 2 and choices(path):
        yield _choices(path)
    inner = [name for name in own.types if dataclasses.is_dataclass(hints[name])]
    plain = [name for name in own.types if name not in inner]
    if plain:
        yield _table([_row(f"{path}.{name}", own, name, values[name]) for name in plain])
    for name in inner:
        where, said = f"{path}.{name}", own.meanings[name]
        yield from _group(where, hints[name], values[name], level=level + 1, text=said)


def _callbacks(values: Mapping[str, Any]) -> Iterator[str]:
    """The default callbacks, whose classes document their arguments."""
    yield "## callbacks\n"
    yield "Lightning callbacks by name, each with its `_target_`; null leaves one out.\n"
    yield _choices("callbacks")
    rows = []
    for name, spec in values.items():
        text, types, meanings = arguments(spec["_target_"].rsplit(".", 1)[1])
        rows.append((f"`callbacks.{name}`", "mapping", "", "", _escaped(text)))
        for key, value in spec.items():
            if key != "_target_":
                rows.append((f"`callbacks.{name}.{key}`", types[key], _shown(value), "", _escaped(meanings[key])))
    yield _table(rows)


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


def _row(key: str, own: Documented, name: str, value: Any) -> tuple[str, ...]:
    kind = own.types[name]
    words = {"Any": "number, list or range", "dict[str, Any]": "mapping", "bool": "true or false"}
    said = words.get(kind, kind.replace("list[", "list of ").replace("]", "").replace(" | None", " or null"))
    said = {"controls": "number or `auto`"}.get(key, said)
    return f"`{key}`", said, _shown(value), _allowed(key), _escaped(own.meanings[name])


def _allowed(key: str) -> str:
    if key == "tuning.sites":
        return f"of {limits(config.schema())['unit.site']}"
    if key == "task.name":
        return ", ".join(registry.names())
    found = limits(config.schema()).get(key)
    return WORDS.get(key, "") if found is None else str(found)


def _shown(value: Any) -> str:
    if isinstance(value, list) and len(value) > 10:
        return f"`{value[0]}`, `{value[1]}` … `{value[-1]}` ({len(value)})"
    if isinstance(value, str) and value == value.strip():
        return f"`{value}`"
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def _choices(group: str) -> str:
    return _table([(f"`{group}={name}`", _escaped(text)) for name, text in choices(group).items()], "choice")


def _table(rows: list[tuple[str, ...]], first: str = "key") -> str:
    heads = (first, "meaning") if first == "choice" else (first, "type", "default", "allowed", "meaning")
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def _escaped(text: str) -> str:
    """Text for a table's cell: what stands in backticks stays as it is, and may hold no bar in any Markdown."""
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
