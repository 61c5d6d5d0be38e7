"""Text files that users give, read line by line so that a complaint can name the line. Nothing heavy is imported."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from actmax.errors import InputError

BYTE_ORDER_MARK = "\ufeff"
ENDINGS = ("txt", "text", "md", "rst", "csv", "tsv", "json", "jsonl", "html", "htm", "xml", "log", "conllu")
ENDINGS += ("doc", "docx", "odt", "pdf", "tex", "py", "gz", "zip")
"""Endings of names by which a text is taken for a file's name."""

SAMPLE = Path(__file__).with_name("passages.txt")
"""A small sample of real text, which comes with actmax."""
SAMPLE_NAME = "sample"
"""What it is called where a text must be named."""


def named_text(name: str) -> Path:
    """The file or folder of a text that is named: `sample` is the one that comes with actmax."""
    return SAMPLE if name == SAMPLE_NAME else Path(name)


def require_regular(file: Path, key: str = "place") -> Path:
    """A file that lies on a disk: a pipe can be read once only, and a job is named by what its files hold.

    Args:
        file: the file; a link to one is one.
        key: what the error calls it.

    Raises:
        InputError: it is not there, or a folder, a pipe, a device.
    """
    if not file.is_file():
        if not file.exists():
            raise InputError(key, file, "must be a file on disk, and there is none")
        kind, way_out = ("a folder", "") if file.is_dir() else ("a pipe or a device", "Write what it gives to a file.")
        raise InputError(key, file, f"must be a file on disk, and is {kind}", way_out)
    return file


def text_files(place: Path) -> list[Path]:
    """A text file, or the `.txt` files of a folder, each checked to be text.

    Args:
        place: a file or a folder.

    Raises:
        InputError: there is none, or one is no file on disk or not UTF-8 (file and line are named).
    """
    if not place.exists():
        raise InputError("place", place, "must be a text file or a folder of .txt files")
    files = files_in(place, "*.txt") if place.is_dir() else [place]
    if not any(require_regular(file).stat().st_size for file in files):
        allowed = "must hold text: a file, or a folder with .txt files"
        raise InputError("place", place, allowed, "Name a file that is not empty.")
    for file in files:
        check_utf8(file)
    return files


def files_in(folder: Path, pattern: str) -> list[Path]:
    """What lies in a folder, or in folders in it, under a name of a pattern, `.TXT` as `.txt`; in order."""
    return sorted(one for one in folder.rglob("*") if fnmatchcase(one.name.lower(), pattern))


def utf8_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Each line's number, from 1, and the line with its end; a byte order mark in front of a line is left out.

    Raises:
        InputError: a line is not UTF-8; the key is `FILE:LINE`.
    """
    with require_regular(file).open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                yield number, line.decode("utf-8").removeprefix(BYTE_ORDER_MARK)
            except UnicodeDecodeError as error:
                allowed, way_out = f"must be UTF-8 ({error.reason})", "Save the file as UTF-8."
                raise InputError(f"{file}:{number}", "not text", allowed, way_out) from error


def check_utf8(file: Path) -> None:
    """Reads a file to its end, and keeps nothing.

    Raises:
        InputError: a line is not UTF-8; the key is `FILE:LINE`.
    """
    for _ in utf8_lines(file):
        pass


def named_file(text: str, key: str = "text") -> Path | None:
    """The file that a text names; None where it is a text itself.

    Raises:
        InputError: it names something else than a file on disk, or looks like a file's name and there is no such file.
    """
    try:
        there = Path(text).exists()
    except (OSError, ValueError):  # longer than any name, or with a zero byte
        return None
    if there and text:
        return require_regular(Path(text), key)
    looks = "\n" not in text and re.search(rf"\w\.({'|'.join(ENDINGS)})$", text, re.IGNORECASE)
    if looks or re.match(r"(~|\.{1,2})?/\S+$", text):
        way_out = "A text that only looks like a file's name is taken as it is with a space at its end."
        raise InputError(key, repr(text), "looks like a file's name, and there is no such file", way_out)
    return None
