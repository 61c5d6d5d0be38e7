"""Which tokens a search may use, and which sequences of them are text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from jaxtyping import Int
from torch import Tensor

from actmax.model.subject import Subject

Ids = tuple[int, ...]
"""A token sequence."""
UNDECODABLE = "\ufffd"


class Alphabet:
    """The tokens of a search.

    Args:
        subject: whose tokens they are.
        only_text: leave out what nobody can type: special tokens, tokens whose bytes are no text, tokens that are not
            what the tokenizer makes of their own text, and all but the first of tokens with one embedding.
    """

    def __init__(self, subject: Subject, *, only_text: bool = True) -> None:
        self.subject = subject
        self.only_text = only_text

    @cached_property
    def ids(self) -> Int[Tensor, " tokens"]:
        """The tokens, in order."""
        if not self.only_text:
            return torch.arange(len(self.subject.embedding_matrix))
        plain = [number for number in self.subject.plain_tokens.tolist() if number in self._first_of_twins]
        kept = self._same([(number,) for number in plain])
        return torch.tensor([number for number, keep in zip(plain, kept, strict=True) if keep])

    @cached_property
    def _first_of_twins(self) -> set[int]:
        """Tokens that were never trained may share one embedding: no activation tells them apart."""
        matrix = self.subject.embedding_matrix.double().cpu()
        # equal rows have equal sums, whatever their weights
        keys = (matrix * torch.arange(1, matrix.shape[1] + 1)).sum(1).tolist()
        first: dict[float, int] = {}
        for number, key in enumerate(keys):
            first.setdefault(key, number)
        return set(first.values())

    def keeps(self, sequences: Sequence[Ids]) -> list[bool]:
        """Whether the text of each sequence is tokenised to the same sequence again."""
        return self._same(sequences) if self.only_text else [True] * len(sequences)

    def _same(self, sequences: Sequence[Ids]) -> list[bool]:
        if not sequences:
            return []
        # the backend itself, one by one: for short texts what is wrapped around it, or threads, cost ten times as much
        backend = self.subject.tokenizer.backend_tokenizer
        backend.no_padding()  # another caller's padding would stay
        backend.no_truncation()
        texts = [backend.decode(list(ids), skip_special_tokens=False) for ids in sequences]
        again = [tuple(backend.encode(text, add_special_tokens=False).ids) for text in texts]
        found = zip(texts, again, sequences, strict=True)
        return [UNDECODABLE not in text and ids == own for text, ids, own in found]
