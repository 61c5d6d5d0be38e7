"""Words as token ids behind what stands before them, each with the place of its word; batches of equal length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.utils.data import Dataset

from actmax.errors import InputError
from actmax.model.subject import Subject
from actmax.words.lists import Context, Data, Sample, checked


@dataclass(frozen=True)
class Encoded:
    """One text as token ids, with the positions of its word."""

    ids: tuple[int, ...]
    """Token ids; first those that stand before every text, which are never part of a word."""
    word: tuple[int, ...]
    """The positions of the word's sub-tokens."""
    sample: int
    """Number of the sample that the text belongs to."""
    share: float
    """Weight of the text in the sample's average: 1 over the number of the sample's contexts."""


@dataclass(frozen=True)
class Encoding:
    """All texts of the data, and the data less what cannot be encoded."""

    data: Data
    """The samples that could be encoded."""
    texts: tuple[Encoded, ...]
    """The encoded texts of all samples, in the samples' order."""
    before: tuple[int, ...]
    """What stands before every text: begin-of-text, an attention sink, or more, or nothing."""

    @property
    def subtokens(self) -> list[int]:
        """How many sub-tokens each sample's word has, in its first context."""
        first: dict[int, int] = {}
        for text in self.texts:
            first.setdefault(text.sample, len(text.word))
        return [first[number] for number in range(len(self.data.samples))]


def encode(subject: Subject, data: Data, *, before: tuple[int, ...]) -> Encoding:
    """Encodes every context; what has no sub-token or is too long for the subject is left out and counted.

    Args:
        subject: the model whose tokenizer is used, and whose context length is the limit.
        data: the words.
        before: what stands before every text.

    Raises:
        InputError: too few words are left.
    """
    kept: list[Sample] = []
    found: dict[tuple[int, Context], tuple[tuple[int, ...], tuple[int, ...]]] = {}
    for sample in data.samples:
        contexts = []
        for context in sample.contexts:
            ids, word = tokens_of(subject, context, before)
            reason = _unfit(subject, ids, word, len(before))
            if reason is None:
                contexts.append(context)
                found[id(sample), context] = ids, word
            else:
                data.skips.add(sample.word, reason, context.source)
        if contexts:
            kept.append(replace(sample, contexts=tuple(contexts)))
            found |= {(id(kept[-1]), context): found[id(sample), context] for context in contexts}
    left = checked(replace(data, samples=tuple(kept)))
    texts = tuple(
        Encoded(*found[id(sample), context], number, 1 / len(sample.contexts))
        for number, sample in enumerate(left.samples)
        for context in sample.contexts
    )
    return Encoding(left, texts, before)


def tokens_of(subject: Subject, context: Context, before: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A text's ids behind what stands before it, and the positions of all tokens that hold characters of the word."""
    if not subject.tokenizer.is_fast:
        allowed = "tuning needs a tokenizer that tells where in the text its tokens stand (a fast one)"
        raise InputError("subject", subject.name, allowed)
    ids = subject.tokens(context.text)
    coded = subject.tokenizer(context.text, add_special_tokens=False, return_offsets_mapping=True)
    spans = coded["offset_mapping"]
    word = [
        number for number, (start, end) in enumerate(spans, len(before)) if start < context.end and end > context.start
    ]
    return (*before, *ids), tuple(word)


def _unfit(subject: Subject, ids: Sequence[int], word: Sequence[int], before: int) -> str | None:
    """Why a text cannot be used; None where it can."""
    if not word:
        return "no sub-token"
    if any(token in subject.boundaries for token in ids[before:]):
        return "with a special token in its text"
    if any(ids[place] in subject.special_tokens for place in word):
        return "unknown to the tokenizer"  # to which all unknown words are one
    return "longer than the context has room for" if len(ids) > subject.geometry.context else None


@dataclass(frozen=True)
class Batch:
    """Texts that run through the subject together."""

    ids: Int[Tensor, "texts tokens"]
    """Token ids, shorter texts padded on the right with their first token: a causal model does not look there."""
    word: Bool[Tensor, "texts tokens"]
    """Whether a position holds a sub-token of the word."""
    samples: Int[Tensor, " texts"]
    """Number of the sample of each text."""
    shares: tuple[float, ...]
    """Weight of each text in the average of the sample that it belongs to."""

    def __getitem__(self, some: slice) -> Batch:
        """Some of the texts, padded as all of them are."""
        return Batch(self.ids[some], self.word[some], self.samples[some], self.shares[some])


class Batches(Dataset):
    """Texts sorted by length, a batch per item.

    Args:
        texts: the texts, in any order.
        tokens: largest number of tokens of a batch; a single text may be longer.
        padding: how many tokens shorter than its batch's longest a text may be; 0 keeps lengths apart, so that no
            padding enters a sum at all.
    """

    def __init__(self, texts: Sequence[Encoded], *, tokens: int, padding: int = 0) -> None:
        ordered = sorted(texts, key=lambda text: -len(text.ids))
        self.batches = [some for part in _by_length(ordered, padding) for some in _cut(part, tokens)]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> Batch:
        if not 0 <= number < len(self):
            raise IndexError(number)
        return collated(self.batches[number])


def _by_length(ordered: Sequence[Encoded], padding: int) -> Iterator[list[Encoded]]:
    """Runs of texts, longest first, none more than `padding` shorter than the first."""
    run: list[Encoded] = []
    for length, texts in groupby(ordered, key=lambda text: len(text.ids)):
        if run and len(run[0].ids) - length > padding:
            yield run
            run = []
        run.extend(texts)
    if run:
        yield run


def _cut(texts: Sequence[Encoded], tokens: int) -> Iterator[Sequence[Encoded]]:
    """Texts in groups whose tokens, padded to the first and longest, are at most `tokens`."""
    size = max(1, tokens // len(texts[0].ids))
    for start in range(0, len(texts), size):
        yield texts[start : start + size]


def collated(texts: Sequence[Encoded]) -> Batch:
    """A batch of texts, padded to the longest."""
    longest = max(len(text.ids) for text in texts)
    ids = torch.tensor([[*text.ids, *[text.ids[0]] * (longest - len(text.ids))] for text in texts])
    word = torch.zeros(ids.shape, dtype=torch.bool)
    for row, text in enumerate(texts):
        word[row, list(text.word)] = True
    return Batch(ids, word, torch.tensor([text.sample for text in texts]), tuple(text.share for text in texts))
