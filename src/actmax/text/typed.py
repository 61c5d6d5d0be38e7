"""Whether somebody who types a token sequence as text, where it stands, gets the same tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from actmax.errors import InputError
from actmax.model.context import NONE, Context
from actmax.model.subject import UNDECODABLE, Subject

NEIGHBOURS = 3
"""Tokens on either side that are tokenised together with a sequence, at least."""


class Typed:
    """Tells which token sequences are what the tokenizer makes of their own text, in a context.

    Text merges with its neighbours: behind `is`, `land` may become `island`. So a few tokens on either side are
    tokenised together with a sequence; in every surrounding the same tokens have to come back.

    Args:
        subject: the language model, with a fast tokenizer.
        context: what stands around the sequences.

    Raises:
        InputError: the tokenizer is one in Python.
    """

    def __init__(self, subject: Subject, context: Context = NONE) -> None:
        if not subject.tokenizer.is_fast:
            raise InputError("subject", subject.name, "needs a fast tokenizer to tell which tokens can be typed")
        # The backend itself, one by one: for short texts what is wrapped around it, or threads, cost ten times as much.
        self.backend: Any = subject.tokenizer.backend_tokenizer
        self.backend.no_padding()  # another caller's padding would stay
        self.backend.no_truncation()
        self.special = subject.special_tokens
        after = context.after
        shortest = min(NEIGHBOURS, len(after))
        self.head = self._nearest([after[:end] for end in range(shortest, len(after) + 1)])
        self.tails = list(dict.fromkeys(map(self._tail, context.before)))

    def __call__(self, sequences: Sequence[tuple[int, ...]]) -> list[bool]:
        """Whether each sequence is decoded to text that is tokenised to the same sequence, in every surrounding."""
        return [all(self._same((*tail, *ids, *self.head)) for tail in self.tails) for ids in sequences]

    def again(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        """The tokens that a text of some tokens gives."""
        return tuple(self.backend.encode(self._spelled(ids), add_special_tokens=False).ids)

    def changes(self, ids: tuple[int, ...]) -> bool:
        """Whether the tokenizer makes another text of what the tokens spell, as where it puts a space in front."""
        return self._spelled(self.again(ids)) != self._spelled(ids)

    def _tail(self, before: tuple[int, ...]) -> tuple[int, ...]:
        return self._nearest([before[start:] for start in range(max(0, len(before) - NEIGHBOURS), -1, -1)])

    def _nearest(self, parts: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        """The shortest of some parts that is its own text's tokens: a part may begin in the middle of a word."""
        return next((part for part in parts if self._same(part)), ())

    def _same(self, ids: tuple[int, ...]) -> bool:
        """Whether a text that the tokens spell gives them again: as they are decoded together, or document by document.

        Behind a special token, such as begin-of-text, some tokenizers show a first word's space, and would add another.
        """
        text = self._spelled(ids)
        if self._gives(text, ids):
            return True
        apart = "".join(map(self._spelled, self._documents(ids)))
        return apart != text and self._gives(apart, ids)

    def _documents(self, ids: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        """The special tokens, each by itself, and the stretches between them."""
        for special, part in groupby(ids, key=self.special.__contains__):
            run = tuple(part)
            yield from zip(run) if special else (run,)

    def _spelled(self, ids: tuple[int, ...]) -> str:
        return self.backend.decode(list(ids), skip_special_tokens=False)

    def _gives(self, text: str, ids: tuple[int, ...]) -> bool:
        return UNDECODABLE not in text and tuple(self.backend.encode(text, add_special_tokens=False).ids) == ids
