"""Which tokens a search may use, and which sequences of them are text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from jaxtyping import Int
from torch import Tensor

from actmax.model.subject import Subject

Ids = tuple[int, ...]
"""The token ids of a sequence."""
UNDECODABLE = "\ufffd"
"""The character that stands for bytes which are no text."""


class Alphabet:
    """The tokens that a search may use.

    Args:
        subject: the model whose tokenizer and token embeddings they are taken from.
        only_text: leave out what nobody can type: special tokens, tokens whose bytes are no text, tokens that are not
            what the tokenizer makes of their own text, and all but the first of tokens with one embedding.
    """

    def __init__(self, subject: Subject, *, only_text: bool = True) -> None:
        self.subject = subject
        self.only_text = only_text

    @cached_property
    def ids(self) -> Int[Tensor, " tokens"]:
        """The ids of the tokens, ascending."""
        if not self.only_text:
            return torch.arange(len(self.subject.embedding_matrix))
        plain = [number for number in self.subject.plain_tokens.tolist() if number in self._first_of_twins]
        kept = self._same([(number,) for number in plain])
        return torch.tensor([number for number, keep in zip(plain, kept, strict=True) if keep])

    @cached_property
    def _first_of_twins(self) -> set[int]:
        """The first of the tokens that have one embedding, as untrained ones may: no activation tells them apart."""
        matrix = self.subject.embedding_matrix.double().cpu()
        # Equal rows have equal weighted sums; that two others have the same one is improbable enough.
        keys = (matrix * torch.arange(1, matrix.shape[1] + 1)).sum(1).tolist()
        first: dict[float, int] = {}
        for number, key in enumerate(keys):
            first.setdefault(key, number)
        return set(first.values())

    def accepts(self, sequences: Sequence[Ids]) -> list[bool]:
        """Whether the text of each sequence is tokenised to the same sequence again."""
        return self._same(sequences) if self.only_text else [True] * len(sequences)

    def _same(self, sequences: Sequence[Ids]) -> list[bool]:
        """Whether each sequence is decoded to text that is tokenised to the same sequence."""
        if not sequences:
            return []
        # The backend itself, one by one: for short texts what is wrapped around it, or threads, cost ten times as much.
        backend = self.subject.tokenizer.backend_tokenizer
        backend.no_padding()  # another caller's padding would stay
        backend.no_truncation()
        texts = [backend.decode(list(ids), skip_special_tokens=False) for ids in sequences]
        again = [tuple(backend.encode(text, add_special_tokens=False).ids) for text in texts]
        found = zip(texts, again, sequences, strict=True)
        return [UNDECODABLE not in text and ids == own for text, ids, own in found]
