"""Text files in windows of tokens, streamed, and random pieces of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from actmax.model.subject import Subject
from actmax.text.files import BYTE_ORDER_MARK

BLOCK = 100_000
"""Number of characters that are tokenized together, up to the end of a line where there is one."""
OVERLAP = 1_000
"""Number of characters at a block's end that are tokenized again with the next block, at least."""


@dataclass(frozen=True)
class Window:
    """A piece of text as the subject reads it."""

    ids: tuple[int, ...]
    """Token ids of the piece, behind what stands before it."""
    source: str
    """Path of the file that the window was read from."""
    start: int
    """Number of the piece's first token in the file, what stands before it not counted."""


def windows(
    subject: Subject,
    files: Iterable[Path],
    *,
    size: int,
    before: tuple[int, ...],
    progress: Callable[[int], object] = bool,
) -> Iterator[Window]:
    """The text in windows of at most `size` tokens, each behind the same tokens; nothing is kept.

    A special token inside a text, such as `<|endoftext|>`, is no part of it: another document begins behind it, and so
    does another window.

    Args:
        subject: the model whose tokenizer is used.
        files: text files.
        size: number of tokens of a window, those that stand before it among them.
        before: what stands before each window, such as begin-of-text.
        progress: called with the number of bytes that were read, once the windows in them have been dealt with.
    """
    own = size - len(before)
    for file in files:
        first, held = 0, []
        for start, ids, ends in _stretches(subject, file, progress):
            first = first if held else start
            held += ids
            while len(held) >= own:
                yield Window((*before, *held[:own]), str(file), first)
                first, held = first + own, held[own:]
            if ends and held:
                yield Window((*before, *held), str(file), first)
                held = []
        if held:
            yield Window((*before, *held), str(file), first)


def pieces(subject: Subject, files: Iterable[Path], *, size: int, count: int, seed: int) -> Int[ndarray, "pieces size"]:
    """A uniform choice of runs of `size` consecutive tokens of one document, beginning anywhere; nothing else is kept.

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
        for _, ids, ends in _stretches(subject, file):
            held += ids
            if len(held) >= size:
                new = np.lib.stride_tricks.sliding_window_view(np.array(held), size)
                found, keys = np.concatenate([found, new]), np.concatenate([keys, rng.random(len(new))])
                if len(keys) > count:
                    kept = np.argpartition(keys, count)[:count]
                    found, keys = found[kept], keys[kept]
                held = held[len(held) - size + 1 :]
            held = [] if ends else held
    return found[np.argsort(keys)]


def _stretches(
    subject: Subject, file: Path, progress: Callable[[int], object] = bool
) -> Iterator[tuple[int, list[int], bool]]:
    """A file's tokens as they come: the number of the first, the tokens, and whether a document ends behind them."""
    special, done = list(subject.boundaries), 0
    for some in _tokens(subject, _blocks(file, progress)):
        ids, start = np.array(some, dtype=np.int64), 0
        for end in [*np.flatnonzero(np.isin(ids, special)).tolist(), len(ids)]:
            yield done + start, ids[start:end].tolist(), end < len(ids)
            start = end + 1
        done += len(ids)


def _tokens(subject: Subject, blocks: Iterable[str]) -> Iterator[list[int]]:
    """The tokens of a text that comes in blocks, as of the whole: its first is no word of a new text in each of them.

    Some tokenizers put a space in front of a text, or make one token of what stands on both sides of a block's border.
    So a block's last tokens wait for the next block, and are replaced by what the tokenizer makes of both.
    """
    tail, before, held = "", [], []
    for block in blocks:
        ids = subject.tokens(tail + block)
        # where tokens of both passes end at one place, what stands behind it is cut in the same way
        agree = ids[: len(before)] == before
        ids = ids[len(before) :] if agree else held + subject.tokens(block)
        tail, before, held = _overlap(subject, tail + block, ids)
        yield ids[: len(ids) - len(held)]
    yield held


def _overlap(subject: Subject, text: str, ids: list[int]) -> tuple[str, list[int], list[int]]:
    """The end of a text, and the first and the second half of its tokens, of which the second are the text's last.

    It is long enough for the tokenizer to have come back into step; empty where a block's length is not.
    """
    length = OVERLAP
    while length <= min(BLOCK, len(text)):
        alone = subject.tokens(text[-length:])
        middle = len(alone) // 2
        if middle and ids[middle - len(alone) :] == alone[middle:]:
            return text[-length:], alone[:middle], alone[middle:]
        length *= 2
    return "", [], []


def _blocks(file: Path, progress: Callable[[int], object]) -> Iterator[str]:
    """A file's text in pieces of about `BLOCK` characters, at the ends of lines unless a line is ten times as long."""
    done = 0
    with file.open(encoding="utf-8") as stream:
        while lines := stream.readlines(BLOCK):
            text = "".join(line.removeprefix(BYTE_ORDER_MARK) for line in lines)
            yield from (text[start : start + 10 * BLOCK] for start in range(0, len(text), 10 * BLOCK))
            position = os.lseek(stream.fileno(), 0, os.SEEK_CUR)
            progress(position - done)
            done = position
