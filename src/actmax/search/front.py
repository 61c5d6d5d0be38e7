"""The Pareto front of activation against fluency."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import nan

import numpy as np

from actmax.search.alphabet import Ids
from actmax.stats.pareto import pareto_front


@dataclass(frozen=True)
class Point:
    """A token sequence with its activation and its cross-entropy."""

    ids: Ids
    """The tokens of the sequence."""
    activation: float
    """Activation of the target, reduced over positions as the objective does."""
    cross_entropy: float
    """Cross-entropy of the tokens under the subject, nats per token."""


def front_of(points: Iterable[Point], *, sign: float = 1.0) -> tuple[Point, ...]:
    """The points that no other beats in one number without losing in the other, most fluent first.

    Along the front both numbers rise, strictly; of points that are equal in both the first by its tokens is kept.

    Args:
        points: sequences.
        sign: -1 where the activation is minimized.
    """
    ordered = sorted(points, key=lambda point: point.ids)
    activation = np.array([point.activation for point in ordered])
    cross_entropy = np.array([point.cross_entropy for point in ordered])
    return tuple(ordered[row] for row in pareto_front(-cross_entropy, sign * activation))


def weight_of(point: Point, front: Sequence[Point], weights: Sequence[float], *, sign: float = 1.0) -> float:
    """The smallest of the weights at which a point is the best of its front; NaN where it is at none (a dent in it)."""
    for weight in sorted(weights):
        if max(front, key=lambda one: sign * one.activation - weight * one.cross_entropy) == point:
            return weight
    return nan
