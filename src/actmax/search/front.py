"""The Pareto front of activation against fluency."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import nan

from actmax.search.alphabet import Ids


@dataclass(frozen=True)
class Point:
    """A sequence with both of its numbers."""

    ids: Ids
    """Its tokens."""
    activation: float
    """Reduced over positions like the target."""
    cross_entropy: float
    """The subject's, nats per token."""


def front_of(points: Iterable[Point], *, sign: float = 1.0) -> tuple[Point, ...]:
    """The points that no other beats in one number without losing in the other, most fluent first.

    Along the front both numbers rise, strictly.

    Args:
        points: sequences.
        sign: -1 where the activation is minimized.
    """
    kept: list[Point] = []
    for point in sorted(points, key=lambda one: (one.cross_entropy, -sign * one.activation, one.ids)):
        if not kept or sign * point.activation > sign * kept[-1].activation:
            kept.append(point)
    return tuple(kept)


def weight_of(point: Point, front: Sequence[Point], weights: Sequence[float], *, sign: float = 1.0) -> float:
    """The smallest of the weights at which a point is the best of its front; NaN where it is at none (a dent in it)."""
    for weight in sorted(weights):
        if max(front, key=lambda one: sign * one.activation - weight * one.cross_entropy) == point:
            return weight
    return nan
