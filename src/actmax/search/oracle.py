"""What a search asks of the subject, for many restarts at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from actmax.model import evaluation
from actmax.model.architecture import Unit
from actmax.model.objective import LAST, Objective, own_activations
from actmax.model.subject import Place, Subject
from actmax.search import prefixes
from actmax.search.alphabet import Alphabet, Ids
from actmax.search.front import Point

Answer = TypeVar("Answer")
ROWS = 2048
"""Sequences per forward pass, at most: the more there are, the more of them begin alike."""


@dataclass(frozen=True)
class Evaluate:
    """A restart asks: what do these sequences give? One forward pass each."""

    sequences: tuple[Ids, ...]
    """Token ids; one unit's."""
    fluency: bool = False
    """Whether their cross-entropy counts too: the whole model runs."""

    @property
    def passes(self) -> int:
        """Forward passes."""
        return len(self.sequences)


@dataclass(frozen=True)
class Slopes:
    """A restart asks: which tokens promise most at each position? A forward and a backward pass each."""

    sequences: tuple[Ids, ...]
    """Token ids; one unit's."""
    weights: tuple[float, ...] = ()
    """λ on the cross-entropy of each sequence; none where it doesn't count."""

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
    """As asked."""
    activation: Float[ndarray, " sequences"]
    """Reduced over positions like the target."""
    cross_entropy: Float[ndarray, " sequences"]
    """Nats per token; NaN where it was not asked for."""

    def worth(self, sign: float, weight: float = 0.0) -> Float[ndarray, " sequences"]:
        """Sign · activation - weight · cross-entropy; where that is no number, a sequence is worth nothing."""
        score = sign * self.activation - (weight * self.cross_entropy if weight > 0 else 0.0)
        return np.where(np.isfinite(score), score, -np.inf)

    def point(self, number: int) -> Point:
        """One of them."""
        return Point(self.sequences[number], float(self.activation[number]), float(self.cross_entropy[number]))

    def front(self, sign: float) -> list[Point]:
        """Those that no other of them beats, and perhaps ties."""
        worth = np.where(np.isfinite(self.cross_entropy), self.worth(sign), -np.inf)
        order = np.lexsort((-worth, self.cross_entropy))
        before = np.maximum.accumulate(np.concatenate([[-np.inf], worth[order][:-1]]))
        return [self.point(number) for number in order[worth[order] > before].tolist()]


class Oracle:
    """Answers questions of many restarts in shared batches.

    Args:
        subject: the language model.
        objective: what is sought.
        alphabet: of what.
        top_k: tokens per position in an answer to `Slopes`.
        max_rows: sequences per forward pass; None for `ROWS`.
    """

    def __init__(
        self, subject: Subject, objective: Objective, alphabet: Alphabet, *, top_k: int, max_rows: int | None = None
    ) -> None:
        self.subject, self.objective, self.alphabet = subject, objective, alphabet
        self.top_k = min(top_k, len(alphabet.ids))
        self.rows = ROWS if max_rows is None else max_rows
        self.sign = 1.0 if objective.sign == "maximize" else -1.0
        with torch.no_grad():
            self._matrix = subject.embed(alphabet.ids)

    def evaluate(self, asked: Sequence[tuple[Unit, Evaluate]]) -> list[Scored]:
        """Answers some questions, in order."""
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

    def slopes(self, asked: Sequence[tuple[Unit, Slopes]]) -> list[list[Int[Tensor, "tokens k"]]]:
        """Answers some questions: for each sequence the best tokens at each position, best first.

        The slope of position t and token v is the derivative of sign · activation - λ · cross-entropy to the v-th entry
        of t's one-hot vector: gradient to the embedding times v's embedding, and for the cross-entropy, which t's token
        enters as what is predicted too, λ · log p(v | before t) / (tokens - 1) besides.
        """
        units = [unit for unit, one in asked for _ in one.sequences]
        sequences = [ids for _, one in asked for ids in one.sequences]
        weights = [weight for _, one in asked for weight in (one.weights or [0.0] * len(one.sequences))]
        whole = any(one.fluency for _, one in asked)
        act = self._whole_slopes if whole else self._activation_slopes
        flat = self._by_length(sequences, list(zip(units, weights, strict=True)), act, whole=True)
        ends = np.cumsum([len(one.sequences) for _, one in asked])
        return [flat[end - len(one.sequences) : end] for end, (_, one) in zip(ends, asked, strict=True)]

    def _by_length(
        self,
        sequences: Sequence[Ids],
        others: Sequence,
        act: Callable[[Tensor, list], Sequence[Answer]],
        *,
        whole: bool,
    ) -> list[Answer]:
        """Batches of equal length, answers in the order of the questions."""
        found: dict[int, Answer] = {}
        for length in sorted({len(one) for one in sequences}):
            numbers = [number for number, one in enumerate(sequences) if len(one) == length]
            rows = min(self.rows, evaluation.whole_rows(self.subject, length)) if whole else self.rows
            for start in range(0, len(numbers), rows):
                some = numbers[start : start + rows]
                ids = torch.tensor([sequences[number] for number in some])
                found |= dict(zip(some, act(ids, [others[number] for number in some]), strict=True))
        return [found[number] for number in range(len(sequences))]

    @torch.no_grad()
    def _activations(self, ids: Tensor, units: Sequence[Unit]) -> list[float]:
        captured = prefixes.run(self.subject, ids, _places(units))
        return own_activations(captured, units, self.objective).tolist()

    @torch.no_grad()
    def _both(self, ids: Tensor, units: Sequence[Unit]) -> list[tuple[float, float]]:
        captured = prefixes.run(self.subject, ids, [*_places(units), LAST])
        activation = own_activations(captured, units, self.objective)
        scores = evaluation.own_scores(evaluation.predictions(self.subject, captured[LAST]), ids)
        return list(zip(activation.tolist(), (-scores.mean(1)).tolist(), strict=True))

    def _activation_slopes(self, ids: Tensor, others: Sequence[tuple[Unit, float]]) -> list[Tensor]:
        units = [unit for unit, _ in others]
        embedding = self.subject.embed(ids).detach().requires_grad_()
        captured = self.subject.run(embedding, _places(units))
        return self._best(self._gradient(self._score(captured, units), embedding))

    def _whole_slopes(self, ids: Tensor, others: Sequence[tuple[Unit, float]]) -> list[Tensor]:
        units = [unit for unit, _ in others]
        embedding = self.subject.embed(ids).detach().requires_grad_()
        captured = self.subject.run(embedding, [*_places(units), LAST])
        predicted = evaluation.predictions(self.subject, captured[LAST])
        weights = torch.tensor([weight for _, weight in others]).to(predicted)
        fluency = weights * evaluation.own_scores(predicted, ids).mean(1)
        slope = self._gradient(self._score(captured, units) + fluency, embedding)
        as_predicted = predicted.detach()[..., self.alphabet.ids.to(predicted.device)] / predicted.shape[1]
        slope[:, 1:] += weights[:, None, None] * as_predicted
        return self._best(slope)

    def _score(self, captured: dict[Place, Tensor], units: Sequence[Unit]) -> Tensor:
        precision = torch.promote_types(torch.float32, self.subject.dtype)
        return self.sign * own_activations(captured, units, self.objective, precision)

    def _gradient(self, score: Tensor, embedding: Tensor) -> Float[Tensor, "rows tokens alphabet"]:
        (gradient,) = torch.autograd.grad(score.sum(), embedding)
        return gradient @ self._matrix.T

    def _best(self, slope: Tensor) -> list[Tensor]:
        return list(self.alphabet.ids[slope.topk(self.top_k, dim=2).indices.cpu()])


def _places(units: Sequence[Unit]) -> list[Place]:
    return [(unit.site, unit.layer) for unit in units]
