"""Text files that users give, read line by line so that a complaint can name the line. Nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from actmax.errors import InputError

BYTE_ORDER_MARK = "\ufeff"


def utf8_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Each line's number, from 1, and the line with its end; a byte order mark in front of a line is left out.

    Raises:
        InputError: a line is not UTF-8; the key is `FILE:LINE`.
    """
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                yield number, line.decode("utf-8").removeprefix(BYTE_ORDER_MARK)
            except UnicodeDecodeError as error:
                raise InputError(f"{file}:{number}", "not text", f"must be UTF-8 ({error.reason})") from error


def check_utf8(file: Path) -> None:
    """Reads a file to its end, and keeps nothing.

    Raises:
        InputError: a line is not UTF-8; the key is `FILE:LINE`.
    """
    for _ in utf8_lines(file):
        pass


def names_file(text: str) -> bool:
    """Whether a text is the name of a file; a text may be longer than any name."""
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return False
