"""Text files in windows of tokens, streamed, and random pieces of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from actmax.model.subject import Subject

BLOCK = 100_000
"""Number of characters that are tokenized together, up to the end of a line where there is one."""


@dataclass(frozen=True)
class Window:
    """A piece of text as the subject reads it."""

    ids: tuple[int, ...]
    """Token ids of the piece, behind what stands before it."""
    source: str
    """Path of the file that it comes from."""
    start: int
    """Number of the piece's first token in the file, what stands before it not counted."""


def windows(subject: Subject, files: Iterable[Path], *, size: int, before: tuple[int, ...]) -> Iterator[Window]:
    """The text in windows of at most `size` tokens, each behind the same tokens; nothing is kept.

    Args:
        subject: the model whose tokenizer is used.
        files: text files.
        size: number of tokens of a window, those that stand before it among them.
        before: what stands before each window, such as begin-of-text.
    """
    own = size - len(before)
    for file in files:
        done, held = 0, []
        for block in _blocks(file):
            held += subject.tokenizer(block, add_special_tokens=False)["input_ids"]
            while len(held) >= own:
                yield Window((*before, *held[:own]), str(file), done)
                done, held = done + own, held[own:]
        if held:
            yield Window((*before, *held), str(file), done)


def pieces(subject: Subject, files: Iterable[Path], *, size: int, count: int, seed: int) -> Int[ndarray, "pieces size"]:
    """A uniform choice of runs of `size` consecutive tokens of one file, beginning anywhere; nothing else is kept.

    Args:
        subject: the model whose tokenizer is used.
        files: text files.
        size: number of tokens of a piece.
        count: number of pieces; all of them where there are fewer.
        seed: seed of the choice.
    """
    # Every piece gets a random key, and those with the smallest keys are kept: a uniform choice from a stream whose
    # length is not known.
    rng, found, keys = np.random.default_rng(seed), np.empty((0, size), dtype=np.int64), np.empty(0)
    for file in files:
        held: list[int] = []
        for block in _blocks(file):
            held += subject.tokenizer(block, add_special_tokens=False)["input_ids"]
            if len(held) < size:
                continue
            new = np.lib.stride_tricks.sliding_window_view(np.array(held), size)
            found, keys = np.concatenate([found, new]), np.concatenate([keys, rng.random(len(new))])
            if len(keys) > count:
                kept = np.argpartition(keys, count)[:count]
                found, keys = found[kept], keys[kept]
            held = held[len(held) - size + 1 :]
    return found[np.argsort(keys)]


def _blocks(file: Path) -> Iterator[str]:
    """A file's text in pieces of about `BLOCK` characters, at the ends of lines unless a line is ten times as long."""
    with file.open(encoding="utf-8") as stream:
        while lines := stream.readlines(BLOCK):
            text = "".join(lines)
            yield from (text[start : start + 10 * BLOCK] for start in range(0, len(text), 10 * BLOCK))
