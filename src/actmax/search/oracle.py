"""The questions that a search puts to the subject, answered for many restarts in one batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from actmax.memory import in_batches
from actmax.model import evaluation
from actmax.model.objective import LAST, Objective, own_activations
from actmax.model.subject import Subject
from actmax.model.target import Place, Target
from actmax.search import prefixes
from actmax.search.alphabet import Alphabet, Ids
from actmax.search.front import Point
from actmax.stats.pareto import pareto_front

Answer = TypeVar("Answer")
"""Type of the answer to one sequence of a question."""
ROWS = 2048
"""Largest number of sequences per forward pass on a GPU: the more there are, the more of them begin alike."""
ROWS_OF_CPU = 512
"""The same on a CPU, which more of them keep no busier: 2,048 take 0.2 GB more, and as long."""
GRADIENT = 4
"""How many times fewer sequences a pass through the whole model holds with its gradient: log p, its gradient and the
logits' stand in memory together."""


@dataclass(frozen=True)
class Evaluate:
    """A question: the activation of some sequences, and their cross-entropy. One forward pass each."""

    sequences: tuple[Ids, ...]
    """Token ids of the sequences, all for one unit."""
    fluency: bool = False
    """Whether their cross-entropy is asked for too, so that the whole model runs."""

    @property
    def passes(self) -> int:
        """Number of forward passes that the answer costs."""
        return len(self.sequences)


@dataclass(frozen=True)
class Slopes:
    """A question: the tokens with the largest slope at each position. A forward and a backward pass per sequence."""

    sequences: tuple[Ids, ...]
    """Token ids of the sequences, all for one unit."""
    weights: tuple[float, ...] = ()
    """Weight λ on the cross-entropy of each sequence; empty where it does not count."""

    @property
    def passes(self) -> int:
        """Weights take no gradient, so that a backward pass costs what a forward pass costs; it counts as one."""
        return 2 * len(self.sequences)

    @property
    def fluency(self) -> bool:
        """Whether the whole model runs."""
        return bool(self.weights)


@dataclass(frozen=True)
class Scored:
    """The answer to `Evaluate`."""

    sequences: tuple[Ids, ...]
    """Token ids of the sequences, as they were asked for."""
    activation: Float[ndarray, " sequences"]
    """Activation of the unit, reduced over positions as the objective does."""
    cross_entropy: Float[ndarray, " sequences"]
    """Cross-entropy under the subject, nats per token; NaN where it was not asked for."""

    def worth(self, sign: float, weight: float = 0.0) -> Float[ndarray, " sequences"]:
        """Sign · activation - weight · cross-entropy; where that is no number, a sequence is worth nothing."""
        score = sign * self.activation - (weight * self.cross_entropy if weight > 0 else 0.0)
        return np.where(np.isfinite(score), score, -np.inf)

    def point(self, number: int) -> Point:
        """One of the sequences, by its number."""
        return Point(self.sequences[number], float(self.activation[number]), float(self.cross_entropy[number]))

    def front(self, sign: float) -> list[Point]:
        """The Pareto front of these sequences, most fluent first."""
        return [self.point(row) for row in pareto_front(-self.cross_entropy, sign * self.activation).tolist()]


class Oracle:
    """Answers questions of many restarts in shared batches.

    Args:
        subject: the language model.
        objective: what restarts are optimized for.
        alphabet: the tokens that may be used.
        top_k: tokens per position in an answer to `Slopes`.
        max_rows: sequences per forward pass; None for `ROWS` on a GPU and `ROWS_OF_CPU` on a CPU.
    """

    def __init__(
        self, subject: Subject, objective: Objective, alphabet: Alphabet, *, top_k: int, max_rows: int | None = None
    ) -> None:
        self.subject, self.objective, self.alphabet = subject, objective, alphabet
        self.top_k = min(top_k, len(alphabet.ids))
        most = ROWS_OF_CPU if subject.device.type == "cpu" else ROWS
        self.rows = max_rows or evaluation.rows_in(objective.context, most)
        self.sign = 1.0 if objective.sign == "maximize" else -1.0
        with torch.no_grad():
            self._matrix = subject.embed(alphabet.ids)

    def evaluate(self, asked: Sequence[tuple[Target, Evaluate]]) -> list[Scored]:
        """Answers questions of several restarts, in order."""
        units = [unit for unit, one in asked for _ in one.sequences]
        sequences = [ids for _, one in asked for ids in one.sequences]
        if any(one.fluency for _, one in asked):
            pairs = self._by_length(sequences, units, self._both, whole=True)
        else:
            pairs = [(one, np.nan) for one in self._by_length(sequences, units, self._activations, whole=False)]
        found, start = [], 0
        for _, one in asked:
            own = np.array(pairs[start : start + one.passes], dtype=float).reshape(-1, 2)
            found.append(Scored(one.sequences, own[:, 0], own[:, 1]))
            start += one.passes
        return found

    def slopes(self, asked: Sequence[tuple[Target, Slopes]]) -> list[list[Int[Tensor, "tokens k"]]]:
        """Answers questions of several restarts: for each sequence the best tokens at each position, best first.

        The slope of position t and token v is the derivative of sign · activation - λ · cross-entropy to the v-th entry
        of t's one-hot vector: gradient to the embedding times v's embedding, and for the cross-entropy, which t's token
        enters as what is predicted too, λ · log p(v | before t) / (tokens - 1) besides.
        """
        units = [unit for unit, one in asked for _ in one.sequences]
        sequences = [ids for _, one in asked for ids in one.sequences]
        weights = [weight for _, one in asked for weight in (one.weights or [0.0] * len(one.sequences))]
        whole = any(one.fluency for _, one in asked)
        act = self._whole_slopes if whole else self._activation_slopes
        flat = self._by_length(sequences, list(zip(units, weights, strict=True)), act, whole=True, share=GRADIENT)
        ends = np.cumsum([len(one.sequences) for _, one in asked])
        return [flat[end - len(one.sequences) : end] for end, (_, one) in zip(ends, asked, strict=True)]

    def _by_length(
        self,
        sequences: Sequence[Ids],
        others: Sequence,
        act: Callable[[Tensor, list], Sequence[Answer]],
        *,
        whole: bool,
        share: int = 1,
    ) -> list[Answer]:
        """Runs sequences in batches of equal length, each with what belongs to it; answers in the order given.

        Args:
            sequences: token ids.
            others: what `act` needs beside each sequence.
            act: answers a batch of one length.
            whole: whether the whole model runs, whose logits allow fewer rows.
            share: how many times fewer rows a batch may then hold.
        """
        found: dict[int, Answer] = {}
        seen = self.objective.seen
        for length in sorted({len(one) for one in sequences}):
            numbers = [number for number, one in enumerate(sequences) if len(one) == length]
            rows = self.rows
            if whole:
                rows = min(rows, max(1, evaluation.whole_rows(self.subject, length, seen) // share))

            def answers(start: int, stop: int, numbers: list[int] = numbers) -> Sequence[Answer]:
                some = numbers[start:stop]
                ids = torch.tensor([sequences[number] for number in some])
                return act(ids, [others[number] for number in some])

            given = chain.from_iterable(in_batches(answers, len(numbers), rows, self._lower))
            found |= dict(zip(numbers, given, strict=True))
        return [found[number] for number in range(len(sequences))]

    def _lower(self, rows: int) -> None:
        """Takes fewer rows from now on: memory ran out."""
        self.rows = rows

    @torch.no_grad()
    def _activations(self, ids: Tensor, units: Sequence[Target]) -> list[float]:
        """The activation of each sequence's unit."""
        captured = prefixes.run(self.subject, ids, _places(units), context=self.objective.seen)
        return own_activations(captured, units, self.objective).tolist()

    @torch.no_grad()
    def _both(self, ids: Tensor, units: Sequence[Target]) -> list[tuple[float, float]]:
        """The activation of each sequence's unit, and the sequence's cross-entropy."""
        captured = prefixes.run(self.subject, ids, [*_places(units), LAST], context=self.objective.seen)
        activation = own_activations(captured, units, self.objective)
        scores = evaluation.own_scores(evaluation.predictions(self.subject, captured[LAST], ids), ids)
        return list(zip(activation.tolist(), (-scores.mean((1, 2))).tolist(), strict=True))

    def _activation_slopes(self, ids: Tensor, others: Sequence[tuple[Target, float]]) -> list[Tensor]:
        """The best tokens of each sequence for the activation alone: no block above the target runs."""
        units = [unit for unit, _ in others]
        embedding = self.subject.embed(ids).detach().requires_grad_()
        captured = self.subject.run(embedding, _places(units), context=self.objective.seen)
        return self._best(self._gradient(self._score(captured, units), embedding))

    def _whole_slopes(self, ids: Tensor, others: Sequence[tuple[Target, float]]) -> list[Tensor]:
        """The best tokens of each sequence for the activation less λ times the cross-entropy."""
        units = [unit for unit, _ in others]
        embedding = self.subject.embed(ids).detach().requires_grad_()
        captured = self.subject.run(embedding, [*_places(units), LAST], context=self.objective.seen)
        predicted = evaluation.predictions(self.subject, captured[LAST], ids)
        weights = torch.tensor([weight for _, weight in others]).to(predicted)
        fluency = weights * evaluation.own_scores(predicted, ids).mean((1, 2))
        slope = self._gradient(self._score(captured, units) + fluency, embedding)
        # The token at t enters the cross-entropy twice: through what is predicted from it (the gradient above), and as
        # what is predicted at t, where the derivative to its one-hot vector is the log probability itself.
        log_p = predicted.detach().mean(1) if predicted.shape[1] > 1 else predicted.detach()[:, 0]
        as_predicted = log_p[..., self.alphabet.ids.to(predicted.device)] / log_p.shape[1]
        slope[:, 1:] += weights[:, None, None] * as_predicted
        return self._best(slope)

    def _score(self, captured: dict[Place, Tensor], units: Sequence[Target]) -> Tensor:
        precision = torch.promote_types(torch.float32, self.subject.dtype)
        return self.sign * own_activations(captured, units, self.objective, precision)

    def _gradient(self, score: Tensor, embedding: Tensor) -> Float[Tensor, "rows tokens alphabet"]:
        """The derivative of the scores to the one-hot vectors: x = Σ_v o_v e_v, so ∂/∂o_v = e_v · ∂/∂x."""
        (gradient,) = torch.autograd.grad(score.sum(), embedding)
        return gradient @ self._matrix.T

    def _best(self, slope: Tensor) -> list[Tensor]:
        return list(self.alphabet.ids[slope.topk(self.top_k, dim=2).indices.cpu()])


def _places(units: Sequence[Target]) -> list[Place]:
    return [unit.place for unit in units]
