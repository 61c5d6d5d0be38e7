"""Text files in windows of tokens, streamed, and random pieces of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from actmax.errors import InputError
from actmax.model.subject import Subject

BLOCK = 100_000
"""Characters that are tokenized together, cut at a line's end where there is one."""


@dataclass(frozen=True)
class Window:
    """A piece of text as the subject reads it."""

    ids: tuple[int, ...]
    """Its tokens; the first is begin-of-text."""
    source: str
    """Which file."""
    start: int
    """Number of its first token behind begin-of-text, in the file."""


def text_files(place: Path, *, key: str = "examples.text") -> list[Path]:
    """A text file, or the `.txt` files of a folder, each checked to be text.

    Args:
        place: a file or a folder.
        key: that an error names.

    Raises:
        InputError: there is none, or one is not UTF-8 (file and line are named).
    """
    if not place.exists():
        raise InputError(key, place, "must be a text file or a folder of .txt files")
    files = sorted(place.rglob("*.txt")) if place.is_dir() else [place]
    if not any(file.stat().st_size for file in files):
        raise InputError(key, place, "must hold text: a file, or a folder with .txt files")
    for file in files:
        with file.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                try:
                    line.decode("utf-8")
                except UnicodeDecodeError as error:
                    raise InputError(f"{file}:{number}", "not text", f"must be UTF-8 ({error.reason})") from error
    return files


def windows(subject: Subject, files: Iterable[Path], *, size: int, begin: int) -> Iterator[Window]:
    """The text in windows of at most `size` tokens behind a begin-of-text token; nothing is kept.

    Args:
        subject: whose tokenizer it is.
        files: of text.
        size: tokens of a window, begin-of-text among them.
        begin: begin-of-text.
    """
    for file in files:
        done, held = 0, []
        for block in _blocks(file):
            held += subject.tokenizer(block, add_special_tokens=False)["input_ids"]
            while len(held) >= size - 1:
                yield Window((begin, *held[: size - 1]), str(file), done)
                done, held = done + size - 1, held[size - 1 :]
        if held:
            yield Window((begin, *held), str(file), done)


def pieces(subject: Subject, files: Iterable[Path], *, size: int, count: int, seed: int) -> Int[ndarray, "pieces size"]:
    """A uniform choice of runs of `size` consecutive tokens of one file, beginning anywhere; nothing else is kept.

    Args:
        subject: whose tokenizer it is.
        files: of text.
        size: tokens of a piece.
        count: how many; all of them where there are fewer.
        seed: of the choice.
    """
    rng, found, keys = np.random.default_rng(seed), np.empty((0, size), dtype=np.int64), np.empty(0)
    for file in files:
        held: list[int] = []
        for block in _blocks(file):
            held += subject.tokenizer(block, add_special_tokens=False)["input_ids"]
            if len(held) < size:
                continue
            new = np.lib.stride_tricks.sliding_window_view(np.array(held), size)
            found, keys = np.concatenate([found, new]), np.concatenate([keys, rng.random(len(new))])
            if len(keys) > count:  # the smallest keys so far
                kept = np.argpartition(keys, count)[:count]
                found, keys = found[kept], keys[kept]
            held = held[len(held) - size + 1 :]
    return found[np.argsort(keys)]


def _blocks(file: Path) -> Iterator[str]:
    with file.open(encoding="utf-8") as stream:
        while lines := stream.readlines(BLOCK):
            text = "".join(lines)
            yield from (text[start : start + 10 * BLOCK] for start in range(0, len(text), 10 * BLOCK))
