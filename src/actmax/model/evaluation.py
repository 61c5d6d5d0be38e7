"""What token sequences give in a subject: activations of units, cross-entropies, and both for random sequences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import nan

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from actmax.model.nearest import BLOCK
from actmax.model.objective import LAST, Objective, own_activations
from actmax.model.settings import GapSettings
from actmax.model.subject import Subject
from actmax.model.target import Unit
from actmax.seeds import stream

ROWS = 256
"""Token sequences per forward pass, at most."""


def random_tokens(subject: Subject, tokens: int, *, draws: int, seed: int) -> Int[Tensor, "draws tokens"]:
    """Token sequences drawn uniformly from the subject's plain tokens (none that is special or has no text)."""
    plain = subject.plain_tokens
    return plain[torch.randint(len(plain), (draws, tokens), generator=stream(seed, "random tokens"))]


@torch.no_grad()
def activations(
    subject: Subject, objective: Objective, sequences: Sequence[Sequence[int]], units: Sequence[Unit]
) -> Float[ndarray, " sequences"]:
    """The activation of each token sequence's own unit, reduced over its positions; NaN for an empty sequence.

    Args:
        subject: the language model.
        objective: whose reduction counts.
        sequences: token ids, of any lengths.
        units: one per sequence.
    """
    found = np.full(len(sequences), nan)
    for length in sorted({len(one) for one in sequences} - {0}):
        rows = [number for number, one in enumerate(sequences) if len(one) == length]
        for some in _split(rows, ROWS):
            own = [units[row] for row in some]
            ids = torch.tensor([list(sequences[row]) for row in some])
            captured = subject.run(subject.embed(ids), [unit.place for unit in own])
            found[some] = _numbers(own_activations(captured, own, objective))
    return found


@torch.no_grad()
def by_unit_activations(
    subject: Subject, objective: Objective, ids: Int[Tensor, "rows tokens"], units: Sequence[Unit]
) -> Float[ndarray, "rows units"]:
    """The activation of every unit at every token sequence, reduced over positions."""

    def act(some: Tensor) -> ndarray:
        captured = subject.run(subject.embed(some), [unit.place for unit in units])
        return np.stack([_numbers(objective.activation(unit.read(captured))) for unit in units], axis=1)

    return _in_blocks(act, ids, ROWS)


@torch.no_grad()
def cross_entropies(subject: Subject, ids: Int[Tensor, "rows tokens"]) -> Float[ndarray, " rows"]:
    """The subject's own cross-entropy of token sequences, nats per token but the first; NaN for one token.

    mean over t ≥ 1 of -log p(token t | tokens before t), the whole model running.
    """
    if ids.shape[1] < 2:
        return np.full(len(ids), nan)

    def entropy(some: Tensor) -> ndarray:
        return _numbers(-own_scores(predictions(subject, subject.run(subject.embed(some), [LAST])[LAST]), some).mean(1))

    return _in_blocks(entropy, ids, whole_rows(subject, ids.shape[1]))


def predictions(
    subject: Subject, hidden: Float[Tensor, "rows tokens d_model"]
) -> Float[Tensor, "rows tokens-1 vocabulary"]:
    """The subject's log p of every next token, from what leaves the final norm; never coarser than float32."""
    return subject.logits(hidden[:, :-1]).to(torch.promote_types(torch.float32, subject.dtype)).log_softmax(2)


def own_scores(
    predicted: Float[Tensor, "rows nexts vocabulary"], ids: Int[Tensor, "rows tokens"]
) -> Float[Tensor, "rows nexts"]:
    """The predicted log p of each token of the sequences but the first."""
    return predicted.gather(2, ids[:, 1:, None].to(predicted.device)).squeeze(2)


def whole_rows(subject: Subject, tokens: int) -> int:
    """How many token sequences a forward pass may hold where it holds the predictions of all their tokens too."""
    return max(1, min(ROWS, BLOCK // (tokens * len(subject.embedding_matrix))))


def _in_blocks(act: Callable[[Tensor], ndarray], ids: Tensor, rows: int) -> ndarray:
    return np.concatenate([act(some) for some in ids.split(rows)])


def _split(numbers: Sequence[int], size: int) -> list[Sequence[int]]:
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]


def _numbers(values: Tensor) -> ndarray:
    return values.double().cpu().numpy()


@lru_cache(maxsize=8)
def random_activations(
    subject: Subject, objective: Objective, units: tuple[Unit, ...], tokens: int, settings: GapSettings
) -> Float[ndarray, "draws units"]:
    """The activations of every unit at random token sequences; cached, for jobs of a sweep over seeds ask alike."""
    ids = random_tokens(subject, tokens, draws=settings.draws, seed=settings.seed)
    return by_unit_activations(subject, objective, ids, units)
