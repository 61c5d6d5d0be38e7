"""Which tokens a search may use, and which sequences of them are text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from jaxtyping import Int
from torch import Tensor

from actmax.errors import InputError
from actmax.model.context import NONE, Context
from actmax.model.subject import Subject
from actmax.text.typed import Typed

CARRIERS = 16
"""Number of tokens behind which pieces of words are tried."""
ROWS = 4096
"""Rows of the embedding matrix that are compared at once."""
Ids = tuple[int, ...]
"""The token ids of a sequence."""


class Alphabet:
    """The tokens that a search may use.

    Args:
        subject: the model whose tokenizer and token embeddings they are taken from.
        only_text: leave out what nobody can type: special tokens, tokens whose bytes are no text, tokens that are not
            what the tokenizer makes of their own text, and all but the first of tokens with one embedding.
        context: what stands around the sequences, with which their text must not merge.
    """

    def __init__(self, subject: Subject, *, only_text: bool = True, context: Context = NONE) -> None:
        self.subject = subject
        self.only_text = only_text
        self.context = context

    @cached_property
    def ids(self) -> Int[Tensor, " tokens"]:
        """The ids of the tokens, ascending."""
        if not self.only_text:
            return torch.arange(len(self.subject.embedding_matrix))
        plain = [number for number in self.subject.plain_tokens.tolist() if number in self._first_of_twins]
        typed = Typed(self.subject)
        alone = typed([(number,) for number in plain])
        kept = {number for number, keep in zip(plain, alone, strict=True) if keep}
        pieces = [number for number in plain if number not in kept]
        if self.subject.spells_alone:
            pieces = [number for number in pieces if typed.changes((number,))]
        kept |= self._beside_others(pieces, sorted(kept), typed)
        if not kept:
            allowed = (
                f"leaves no token that could be typed: the tokenizer of {self.subject.name} gives none of them back"
            )
            raise InputError("only_text", True, allowed, "search.only_text=false takes all tokens.")
        return torch.tensor(sorted(kept))

    @staticmethod
    def _beside_others(pieces: Sequence[int], words: Sequence[int], typed: Typed) -> set[int]:
        """Which pieces of words come back behind or between tokens that do by themselves, or some pieces' own text.

        Where a text's first word loses its space, or is given one, a piece of a word cannot stand alone; nor can one
        where the end of a word is marked.
        """
        left, found = list(pieces), set()
        starts = [(word,) for word in words[:: max(1, len(words) // CARRIERS)]]
        starts = starts or [typed.again((piece,)) for piece in pieces[:: max(1, len(pieces) // CARRIERS)]]
        for start, end in [*((one, ()) for one in starts), *((one, one) for one in starts)]:
            came = typed([(*start, piece, *end) for piece in left])
            found |= {piece for piece, keep in zip(left, came, strict=True) if keep}
            left = [piece for piece in left if piece not in found]
        return found

    @cached_property
    def _first_of_twins(self) -> set[int]:
        """The first of the tokens that have one embedding, as untrained ones may: no activation tells them apart."""
        # Equal rows have equal weighted sums; that two others have the same one is improbable enough. In blocks: the
        # matrix in float64, twice, is 0.45 GB for a vocabulary of 49,152.
        matrix = self.subject.embedding_matrix
        weights = torch.arange(1, matrix.shape[1] + 1)
        keys = [key for rows in matrix.split(ROWS) for key in (rows.double().cpu() * weights).sum(1).tolist()]
        first: dict[float, int] = {}
        for number, key in enumerate(keys):
            first.setdefault(key, number)
        return set(first.values())

    def accepts(self, sequences: Sequence[Ids]) -> list[bool]:
        """Whether the text of each sequence is tokenised to the same sequence again, where it stands."""
        return self._typed(sequences) if self.only_text else [True] * len(sequences)

    @cached_property
    def _typed(self) -> Typed:
        return Typed(self.subject, self.context)
