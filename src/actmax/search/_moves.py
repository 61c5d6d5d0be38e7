"""How one restart draws sequences, all from its own generator."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from actmax.errors import InputError
from actmax.reproducibility import stream
from actmax.search._alphabet import Alphabet, Ids

DRAWS = 8
"""Times to draw again where drafts are known already or no text."""
FIRST_DRAWS = 1000
"""The same for sequences out of nothing."""


class Moves:
    """Draws of one restart. No sequence is given out twice.

    Args:
        alphabet: the tokens.
        seed: of the restart; its stream is its own, whatever else runs.
        lengths: the shortest and the longest sequence.
        start: the length of sequences out of nothing.
        sign: -1 where the activation is minimized.
    """

    def __init__(self, alphabet: Alphabet, seed: int, *, lengths: tuple[int, int], start: int, sign: float) -> None:
        self.alphabet, self.lengths, self.start, self.sign = alphabet, lengths, start, sign
        self._generator = stream(seed, "search")
        self._given: set[Ids] = set()

    def draw(self, below: int) -> int:
        """A number."""
        return int(self._draw(below, 1)[0])

    def fresh(self, count: int) -> tuple[Ids, ...]:
        """Sequences out of nothing, uniform over those that are text.

        Where nearly all have been given out, they may come again.

        Raises:
            InputError: the tokenizer gives hardly any sequence back.
        """
        found = self._new(self._random, count, FIRST_DRAWS)
        if not found and not self._given:
            way_out = "Try fewer tokens, or search.only_text=false."
            raise InputError("tokens", self.start, "no random sequence is text that gives the same tokens", way_out)
        return found or tuple(self._random(count))

    def children(self, parent: Ids, tops: Int[Tensor, "tokens k"], count: int) -> tuple[Ids, ...]:
        """Sequences one edit away: a position swapped, or where the lengths allow it left out or put in.

        Args:
            parent: to edit.
            tops: tokens to take at each position.
            count: how many, where there are as many.
        """
        return self._new(lambda drafts: self._edited(parent, tops.tolist(), drafts), count, DRAWS)

    def disturbed(self, parent: Ids, count: int) -> tuple[Ids, ...]:
        """Copies with about half of the positions drawn anew."""

        def draft(drafts: int) -> list[Ids]:
            anew = (torch.rand(drafts, len(parent), generator=self._generator) < 0.5).tolist()
            tokens = self._tokens(drafts, len(parent))
            return [
                tuple(new if yes else old for old, new, yes in zip(parent, *row, strict=True))
                for row in zip(tokens, anew, strict=True)
            ]

        return self._new(draft, count, DRAWS) or self.fresh(count)

    def _new(self, draft: Callable[[int], Sequence[Ids]], count: int, draws: int) -> tuple[Ids, ...]:
        found: dict[Ids, None] = {}
        for _ in range(draws):
            drafts = [one for one in dict.fromkeys(draft(count)) if one not in self._given and one not in found]
            found |= dict.fromkeys(one for one, keep in zip(drafts, self.alphabet.keeps(drafts), strict=True) if keep)
            if len(found) >= count:
                break
        given = tuple(found)[:count]
        self._given |= set(given)
        return given

    def _random(self, count: int) -> list[Ids]:
        return [tuple(row) for row in self._tokens(count, self.start)]

    def _tokens(self, count: int, length: int) -> list[list[int]]:
        ids = self.alphabet.ids
        return ids[torch.randint(len(ids), (count, length), generator=self._generator)].tolist()

    def _edited(self, parent: Ids, tops: list[list[int]], count: int) -> list[Ids]:
        shortest, longest = self.lengths
        allowed = (True, len(parent) < longest, len(parent) > shortest)
        edits = [edit for edit, may in zip((_swap, _insert, _delete), allowed, strict=True) if may]
        numbers = [self._draw(below, count).tolist() for below in (len(edits), len(parent), len(tops[0]))]
        return [edits[edit](parent, place, tops[place][rank]) for edit, place, rank in zip(*numbers, strict=True)]

    def _draw(self, below: int, count: int) -> Tensor:
        return torch.randint(below, (count,), generator=self._generator)


def _swap(parent: Ids, place: int, token: int) -> Ids:
    return (*parent[:place], token, *parent[place + 1 :])


def _insert(parent: Ids, place: int, token: int) -> Ids:
    return (*parent[:place], token, *parent[place:])


def _delete(parent: Ids, place: int, token: int) -> Ids:  # noqa: ARG001
    return parent[:place] + parent[place + 1 :]
