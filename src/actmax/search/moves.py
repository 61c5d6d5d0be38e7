"""How one restart draws sequences, all from its own generator."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from actmax.errors import InputError
from actmax.search.alphabet import Alphabet, Ids
from actmax.seeds import stream

DRAWS = 8
"""How often perturbed copies are drawn again, where they were used before or are no text."""
FIRST_DRAWS = 1000
"""The same for random sequences, of which hardly any may be text."""


class Moves:
    """Draws the sequences of one restart; no sequence is drawn twice.

    Args:
        alphabet: the tokens that may be used.
        seed: the restart's; its random numbers are its own, whatever else runs.
        lengths: the shortest and the longest sequence.
        start: the length of random sequences.
        sign: -1 where the activation is minimized.
        text: sequences of real text, that `real` draws from.
    """

    def __init__(
        self,
        alphabet: Alphabet,
        seed: int,
        *,
        lengths: tuple[int, int],
        start: int,
        sign: float,
        text: Int[Tensor, "sequences tokens"] | None = None,
    ) -> None:
        self.alphabet, self.lengths, self.start, self.sign = alphabet, lengths, start, sign
        # A stream of its own for the search: the restart's initial noise comes from the bare seed.
        self._generator = stream(seed, "search")
        self._used: set[Ids] = set()
        self._unread = iter(()) if text is None else self._shuffled(text)

    def draw(self, below: int) -> int:
        """A uniform whole number from 0 up to, and without, `below`."""
        return int(self._draw(below, 1)[0])

    def fresh(self, count: int) -> tuple[Ids, ...]:
        """Random sequences, uniform over those that are text.

        Where nearly all have been used, they may come again.

        Raises:
            InputError: the tokenizer gives hardly any sequence back.
        """
        # Rejection: uniform draws of which those that are no text are thrown away are uniform over those that are.
        found = self._new(self._random, count, FIRST_DRAWS)
        if not found and not self._used:
            way_out = "Try fewer tokens, or search.only_text=false."
            raise InputError("tokens", self.start, "no random sequence is text that gives the same tokens", way_out)
        return found or tuple(self._random(count))

    def real(self, count: int) -> tuple[Ids, ...]:
        """Sequences of the text, each once; fewer and then none where all have been used."""
        return tuple(itertools.islice(self._unread, count))

    def children(self, parent: Ids, tops: Int[Tensor, "tokens k"], count: int) -> tuple[Ids, ...]:
        """Sequences one edit away: a position swapped, or where the lengths allow it left out or put in.

        Args:
            parent: the sequence to edit.
            tops: tokens that may be put at each position, a row per position.
            count: how many children, where there are as many.
        """
        # Edits come in random order, so the first that are text are a uniform choice among them (of each kind).
        edits = self._edits(parent, tops.tolist())
        found: tuple[Ids, ...] = ()
        while len(found) < count and (drafts := list(itertools.islice(edits, count))):
            found += self._select(drafts, count - len(found))
        return found

    def perturbed(self, parent: Ids, count: int) -> tuple[Ids, ...]:
        """Copies with about half of the positions drawn anew."""

        def draft(drafts: int) -> list[Ids]:
            # Each position is drawn anew with probability 1/2, and may by chance get its old token again.
            anew = (torch.rand(drafts, len(parent), generator=self._generator) < 0.5).tolist()
            tokens = self._tokens(drafts, len(parent))
            return [
                tuple(new if yes else old for old, new, yes in zip(parent, *row, strict=True))
                for row in zip(tokens, anew, strict=True)
            ]

        return self._new(draft, count, DRAWS) or self.fresh(count)

    def _shuffled(self, text: Int[Tensor, "sequences tokens"]) -> Iterator[Ids]:
        """The sequences of a text in random order, one by one."""
        for number in torch.randperm(len(text), generator=self._generator).tolist():
            yield tuple(text[number].tolist())

    def _new(self, draft: Callable[[int], Sequence[Ids]], count: int, draws: int) -> tuple[Ids, ...]:
        """Draws until there are enough sequences that are text and unused, or that has been tried often enough."""
        found: tuple[Ids, ...] = ()
        for _ in range(draws):
            found += self._select(draft(count), count - len(found))
            if len(found) == count:
                break
        return found

    def _select(self, drafts: Sequence[Ids], count: int) -> tuple[Ids, ...]:
        """The first drafts that are text and unused; from now on they are used."""
        # The cheap test first: whether a sequence is text takes a tokenizer's decoding and encoding.
        drafts = [one for one in dict.fromkeys(drafts) if one not in self._used]
        kept = [one for one, keep in zip(drafts, self.alphabet.accepts(drafts), strict=True) if keep][:count]
        self._used |= set(kept)
        return tuple(kept)

    def _random(self, count: int) -> list[Ids]:
        """Sequences of independent uniform tokens."""
        return [tuple(row) for row in self._tokens(count, self.start)]

    def _tokens(self, count: int, length: int) -> list[list[int]]:
        ids = self.alphabet.ids
        return ids[torch.randint(len(ids), (count, length), generator=self._generator)].tolist()

    def _edits(self, parent: Ids, tops: list[list[int]]) -> Iterator[Ids]:
        """All edits, each kind in random order, the kinds in turn."""
        shortest, longest = self.lengths
        ranks = len(tops[0])
        # Swap, insertion, deletion: how many tokens a kind takes out, how many it puts in, and how many ways it has at
        # a position. Number n of a kind is its way n mod ways at position n div ways.
        kinds = [(1, 1, ranks)]
        kinds += [(0, 1, ranks)] if len(parent) < longest else []
        kinds += [(1, 0, 1)] if len(parent) > shortest else []
        orders = [torch.randperm(len(parent) * ways, generator=self._generator).tolist() for _, _, ways in kinds]
        for numbers in itertools.zip_longest(*orders):
            for (out, into, ways), number in zip(kinds, numbers, strict=True):
                if number is not None:
                    place, rank = divmod(number, ways)
                    yield (*parent[:place], *tops[place][rank : rank + into], *parent[place + out :])

    def _draw(self, below: int, count: int) -> Tensor:
        return torch.randint(below, (count,), generator=self._generator)
