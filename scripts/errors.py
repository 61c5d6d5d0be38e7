"""Writes docs/errors.md: the errors that the tests provoke, each with what its key means and the way out.

python scripts/errors.py           writes it
python scripts/errors.py --check   exits with 1 where it is not what would be written
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints
from unittest import mock

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "tests")]

from actmax import __main__ as command
from actmax.app import config
from actmax.app.settings import JobSettings
from actmax.errors import InputError, printable
from actmax.settings import LARGEST, limits
from actmax.tasks import bounds
from actmax.tasks.settings import RestartSettings
from reference import allowed as allowed_values
from reference import arguments, defaults, documentation, escaped, shown, wrapped
from test_autoencoder import DAMAGED, EIGHT, WRONG_CONFIGS, WRONG_SIZES, copied
from test_directions import (
    DIRECTION,
    FAMILIES,
    WRONG_DIRECTIONS,
    WRONG_LATENTS,
    WRONG_LOGITS,
    write_autoencoder,
    write_directions,
)
from test_wrong_commands import LONG, MANY, TINY, UNKNOWN, WRONG_VALUES
from test_wrong_files import BAD, WHERE

PAGE = Path(__file__).parents[1] / "docs" / "errors.md"
HEAD = """# Errors

<!-- Written by scripts/errors.py from the commands of the tests: change those, then run it again. -->

What does a message mean, and what does one do about it? Search this page for the key that your message names. The page
has the messages that the tests provoke.

A command that is wrong is answered with one line, before anything runs or is written:

```
actmax: KEY=VALUE: what is allowed. The way out.
```

In a sweep the message also names the job.

| exit code | meaning |
|---|---|
| 0 | The job is done. |
| 1 | A job failed after its start. |
| 2 | The command is wrong, or a file that it names. |
| 130 | It was stopped by Ctrl-C. |

After exit code 1 the job's folder holds the traceback (`status.json`, `actmax.log`). The same command goes on where it
stopped.
"""
FREE = 4 * 10**9
"""Bytes of memory that are free where the page is made."""
NO_KEY = "no such key"
BY_HAND = "by hand"
"""What is wrong in Python alone: a command names the place itself, by unit.site and unit.layer."""
GROUPS = ("subject=null", "prior=null", "callbacks=null")
"""Wrong values of whole groups, which Hydra answers by a longer message."""
FILES = {"tuning.data": "words.csv", "init.path": "start.safetensors"}
"""Names of files on the page by the key that names them; text.txt for all others."""
WAYS_OUT = {
    "unit.sae": "Name another folder, or write this one again with the package that trained the autoencoder. "
    "What is read: docs/targets.md.",
    "subject.name": "Give a name without / and control characters: `subject.name=mine`.",
    "sweep": "Give a name without / and control characters: `sweep=mine`.",
    "unit.index": "Give `unit.index=` such a number. Counting begins at 0.",
    "unit.direction": "Write the file again. What it must hold: docs/targets.md.",
}
"""By key: the way out where the message has none and the limits of the key do not say it."""
Known = Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    """A wrong command."""

    overrides: Sequence[str]
    prepare: Callable[[], object] = bool
    """Makes the files that the command reads, in the working folder."""
    reads: str = ""
    """The key that names the file which is wrong, if the error names a line of it."""


def meanings(kind: type, prefix: str = "") -> dict[str, str]:
    """What every key means, from the settings' docstrings."""
    found, hints = dict[str, str](), get_type_hints(kind)
    for field in dataclasses.fields(kind):
        own = hints[field.name]
        if isinstance(own, type) and dataclasses.is_dataclass(own):
            found[f"{prefix}{field.name}"] = documentation(own).text
            found |= {f"{prefix}{field.name}.{key}": text for key, text in documentation(own).meanings.items()}
            found |= meanings(own, f"{prefix}{field.name}.")
    return found


def provoked(*overrides: str) -> tuple[InputError, str]:
    """The error of a command, and the line that a person reads of it.

    Raises:
        RuntimeError: the command was taken.
    """
    seen: list[BaseException] = []
    explain, out = command.explain, tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115

    def noted(error: BaseException) -> tuple[int, str]:
        ours = command._unknown(str(error)) or command._mistyped(error)
        seen.extend(link for link in (*command._origins(error), ours) if isinstance(link, InputError))
        return explain(error)

    replaced = mock.patch.object(command, "explain", noted), mock.patch.object(sys, "argv", ["actmax", *overrides])
    with replaced[0], replaced[1], contextlib.redirect_stderr(out), contextlib.suppress(SystemExit):
        command.main()
    if not seen:
        out.close()
        raise RuntimeError(f"{overrides} was taken, or no InputError was raised")
    with out:
        out.seek(0)
        return seen[0], out.read().strip()


def cases() -> Iterator[tuple[str, Iterable[Case]]]:
    """The wrong commands by section, as the tests have them."""
    yield "Keys that there are not", [Case((*TINY, f"{key}=5")) for key, _ in UNKNOWN]
    values = [given.split() for given, _ in WRONG_VALUES if given not in GROUPS]
    yield "Values that are not allowed", [Case((*TINY, *given)) for given in values]
    many = [f"{given}={10**9}".split() for given in MANY if "examples" not in given]
    key, most, others = LONG[0]
    many.append([others, f"{key}={10 * most}"])
    yield "More than there is memory or time for", [Case((*TINY, *given)) for given in many]
    files = []
    for key, write, _ in BAD.values():
        file = Path(FILES.get(key, "text.txt"))
        files.append(Case((*TINY, *WHERE[key], f"{key}={file}"), partial(write, file), key))
    yield "Files that cannot be read", files
    logits = [Case((*TINY, *given)) for given, _ in WRONG_LOGITS]
    directions = [
        Case((*TINY, *DIRECTION, *given), partial(write_directions, kind, Path("f.safetensors")))
        for kind, given, _ in WRONG_DIRECTIONS
    ]
    yield "Directions and logits", [*directions, *logits]
    yield "Sparse autoencoders", autoencoders()


def autoencoders() -> Iterator[Case]:
    """Commands that name a latent that there is not, or a folder that is not understood."""
    small = (f"subject.architecture.{key}={value}" for key, value in FAMILIES["gpt2"].items())
    latent = (*TINY, *small, "unit.sae=planted")
    for given, _ in WRONG_LATENTS:
        yield Case((*latent, *given), partial(write_autoencoder, Path("planted")))
    changed = [(name, {key: value}) for name, key, value, words in WRONG_CONFIGS if BY_HAND not in words]
    for name, changes in [*changed, *((name, changes) for name, changes, _ in WRONG_SIZES)]:
        prepare = partial(copied, name, Path(), config=partial(_change, changes))
        yield Case((*TINY, f"unit.sae={Path(name).name}", "unit.index=0"), prepare)
    eight = [f"subject.architecture.{one}" for one in EIGHT]
    for name, damage, _ in DAMAGED.values():
        yield Case((*TINY, *eight, f"unit.sae={Path(name).name}", "unit.index=5"), partial(_damaged, name, damage))


def _damaged(name: str, damage: Callable[[Path], object]) -> None:
    damage(copied(name, Path()))


def _change(changes: Mapping[str, Any], config: dict[str, Any]) -> None:
    config.update(changes)


@dataclass(frozen=True)
class Row:
    """What the page says of one error."""

    key: str
    meaning: str
    way_out: str
    message: str
    behind: str = ""
    """What stands behind the message: the key that names the file of a line."""


def page() -> str:
    """The page: a section per kind of command, in it one per key."""
    return laid_out({title: [*rows] for title, rows in collected()})


def collected() -> Iterator[tuple[str, Iterator[Row]]]:
    """The rows of every section, each by running its command."""
    config.register()
    known = meanings(config.schema()) | documentation(RestartSettings).meanings | documentation(JobSettings).meanings
    for name, spec in defaults()["callbacks"].items():
        text, _, arguments_of = arguments(spec["_target_"].rsplit(".", 1)[1])
        known |= {f"callbacks.{name}": text} | {f"callbacks.{name}.{key}": one for key, one in arguments_of.items()}
    values = flat(defaults())
    for title, commands in cases():
        yield title, (row(*ran(case), known, values, case.reads) for case in commands)


def ran(case: Case) -> tuple[InputError, str]:
    """The error of a case, and the line that a person reads of it, run in a folder of its own."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(bounds, "free_bytes", return_value=FREE):
        os.chdir(folder)
        try:
            case.prepare()
            error, said = provoked(*case.overrides)
        finally:
            os.chdir(before)
    error = InputError(error.key, error.value, error.allowed, error.way_out.replace(folder, "FOLDER"))
    return error, said.splitlines()[-1].replace(folder, "FOLDER")


def laid_out(sections: Mapping[str, Iterable[Row]]) -> str:
    """Keys by name, in each its messages by what to do about them."""
    parts = [HEAD]
    for title, rows in sections.items():
        parts.append(f"## {title}\n")
        by_key = dict[tuple[str, str], dict[str, set[str]]]()
        for one in rows:
            by_key.setdefault((one.key, one.meaning), {}).setdefault(one.way_out, set()).add(
                f"`{one.message}`{one.behind}"
            )
        for (key, means), ways in sorted(by_key.items()):
            parts += [f"### {key}\n", wrapped(escaped(means)) + "\n"]
            for way, messages in sorted(ways.items(), key=lambda item: min(item[1])):
                parts += [wrapped(message, "- ") for message in sorted(messages)]
                parts.append("\n" + wrapped(f"**Way out:** {escaped(way)}") + "\n")
    return "\n".join(parts)


def flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """The values of a nested config by dotted key, groups too."""
    found = dict[str, Any]()
    for key, value in values.items():
        found[f"{path}{key}"] = value
        if isinstance(value, Mapping):
            found |= flat(value, f"{path}{key}.")
    return found


def row(error: InputError, said: str, known: Known, values: Known, reads: str = "") -> Row:
    """What the page says of an error; the message is as it is printed, without the way out."""
    message = said.removesuffix(error.way_out).strip().removeprefix("actmax: ")
    message = message if len(message) < 400 else f"{message[:400]}…"
    key, means = error.key, known.get(error.key) or known.get(error.key.partition(".")[0], "")
    if NO_KEY in error.allowed:
        key, means = "Any key", "Nothing reads the key that was given."
    elif ":" in error.key:
        key, means = "FILE:LINE", "A line of a file cannot be read; the message names both."
    behind = f" (the file of `{reads}`)" if ":" in error.key else ""
    return Row(key, means, way_out(error, values), printable(message).replace("`", "'"), behind)


def way_out(error: InputError, values: Known) -> str:
    """What to do: what the error itself says, else how to write the key and what it is without being written."""
    if error.way_out:
        return error.way_out
    if NO_KEY in error.allowed:
        group = error.key.partition(".")[0]
        place = f"reference.md#{group}" if group in values and "." in error.key else "reference.md"
        return f"Take the key out, or write one that [the reference]({place}) has."
    if "belongs to" in error.allowed:
        return f"Take `{error.key}` out of the command, or add what it belongs to."
    if error.key in WAYS_OUT:
        return WAYS_OUT[error.key]
    right = f"Give `{error.key}=` {_right(error.key)}."
    default = values.get(error.key)
    if default is None or isinstance(default, Mapping):
        return f"{right} `{error.key}=null` leaves it out."
    return f"{right} Without this key it is {shown(default)}."


def _right(key: str) -> str:
    """What a key may be."""
    limit = limits(config.schema()).get(key)
    if limit is None:
        return "such a value"
    if limit.choices:
        return f"one of {allowed_values(key)}"
    return f"a value from {limit.least} to {limit.most}" if limit.most == LARGEST else f"a value: {limit}"


def main() -> None:
    """Writes the page, or checks it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where the page is old")
    parser.add_argument("--file", type=Path, default=PAGE, help="the page")
    options, text = parser.parse_args(), page()
    if not options.check:
        options.file.write_text(text, encoding="utf-8")
    elif not options.file.is_file() or options.file.read_text(encoding="utf-8") != text:
        sys.exit(f"{options.file} is not what the commands say: run python scripts/errors.py")


if __name__ == "__main__":
    main()
