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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_type_hints
from unittest import mock

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "tests")]

from actmax import __main__ as command
from actmax.app import config
from actmax.app.settings import JobSettings
from actmax.errors import InputError, printable
from actmax.tasks import memory
from actmax.tasks.settings import RestartSettings
from reference import _escaped, documentation
from test_wrong_commands import MANY, TINY, UNKNOWN, WRONG_VALUES
from test_wrong_files import BAD, WHERE

PAGE = Path(__file__).parents[1] / "docs" / "errors.md"
HEAD = """# Errors

<!-- Written by scripts/errors.py from the commands of the tests: change those, then run it again. -->

A command that is wrong is answered with one line, `actmax: KEY=VALUE: what is allowed. The way out.`, and with the exit
code 2, before anything runs or is written. Exit code 1 says that a job failed after its start; its folder holds the
traceback (`status.json`, `actmax.log`), and the same command goes on where it stopped. 130 says that it was stopped by
Ctrl-C, 0 that it is done. In a sweep the message also names the job. Here are the messages that the tests provoke; a
message that you met is found by its key.
"""
FREE = 4 * 10**9
"""Bytes of memory that are free where the page is made."""
PLAIN = "Another value ([reference](reference.md))."
"""The way out where the message says all there is."""
UNKNOWN_KEY = "The [reference](reference.md) has every key."
"""The way out of a key that is near to none."""


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
        unknown = command._unknown(str(error))
        seen.extend(link for link in (*command._origins(error), unknown) if isinstance(link, InputError))
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


def cases() -> Iterator[tuple[str, list[Sequence[str]]]]:
    """The commands by section, as the tests have them."""
    yield "Keys that there are not", [(*TINY, f"{key}=5") for key, _ in UNKNOWN]
    groups = ("subject=null", "prior=null", "callbacks=null")
    yield "Values that are not allowed", [(*TINY, *given.split()) for given, _ in WRONG_VALUES if given not in groups]
    yield "More than memory holds", [(*TINY, *f"{given}={10**9}".split()) for given in MANY if "examples" not in given]
    files = []
    for number, (key, write, _) in enumerate(BAD.values()):
        write(Path(f"given{number}.csv"))
        files.append((*TINY, *WHERE[key], f"{key}=given{number}.csv"))
    yield "Files that cannot be read", files


def page() -> str:
    """The page: a section per kind of command, a row per error."""
    config.register()
    known = meanings(config.schema()) | documentation(RestartSettings).meanings | documentation(JobSettings).meanings
    parts = [HEAD]
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(memory, "free_bytes", return_value=FREE):
        os.chdir(folder)
        try:
            for title, commands in cases():
                rows: dict[str, str] = {}
                for overrides in commands:
                    error, said = provoked(*overrides)
                    rows[_row(error, said.splitlines()[-1].replace(folder, "FOLDER"), known)] = ""
                head = f"\n## {title}\n", "| message | what the key means | what to do |", "|---|---|---|"
                parts += [*head, *sorted(rows)]
        finally:
            os.chdir(before)
    return "\n".join(parts) + "\n"


def _row(error: InputError, said: str, known: dict[str, Any]) -> str:
    """A row of the table, whose message is as it is printed, without the way out, which has a column of its own."""
    message = said.removesuffix(error.way_out).strip().removeprefix("actmax: ")
    message = message if len(message) < 300 else f"{message[:300]}…"
    group = error.key.partition(".")[0]
    meaning = known.get(error.key) or known.get(group)
    if ":" in error.key:
        meaning = "A line of a file."
    if meaning is None or "no such key" in error.allowed:
        meaning = "A callback of the fit." if group == "callbacks" else "Nothing: there is no such key."
    plain = UNKNOWN_KEY if "no such key" in error.allowed else PLAIN
    code = printable(message).replace("|", "¦").replace("`", "'")
    return f"| `{code}` | {_escaped(meaning)} | {_escaped(error.way_out or plain).replace('|', '&#124;')} |"


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
