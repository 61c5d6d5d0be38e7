"""The Pareto front of two numbers, both the more the better."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray


def pareto_front(first: Float[ndarray, " rows"], second: Float[ndarray, " rows"]) -> Int[ndarray, " front"]:
    """The rows that no other beats in one number without losing in the other, from the highest `first` down.

    Along them `first` falls and `second` rises, strictly: of rows that are equal in both the earliest stands for all. A
    row with a number that is not finite is on no front.

    Example:
        >>> pareto_front(np.array([1.0, 2.0, 0.5, 2.0]), np.array([2.0, 1.0, 1.0, 1.0])).tolist()
        [1, 0]
    """
    known = np.isfinite(first) & np.isfinite(second)
    first, second = np.where(known, first, -np.inf), np.where(known, second, -np.inf)
    # Read from the highest `first` down, a row is beaten unless its `second` exceeds that of all rows before it.
    order = np.lexsort((-second, -first))
    before = np.maximum.accumulate(np.concatenate([[-np.inf], second[order][:-1]]))
    return order[second[order] > before]


def on_pareto_front(first: Float[ndarray, " rows"], second: Float[ndarray, " rows"]) -> Bool[ndarray, " rows"]:
    """Which rows are on the Pareto front, with all that are equal to one on it.

    Example:
        >>> on_pareto_front(np.array([1.0, 2.0, 0.5, 2.0]), np.array([2.0, 1.0, 1.0, 1.0])).tolist()
        [True, True, False, True]
    """
    front = pareto_front(first, second)
    return ((first[:, None] == first[front]) & (second[:, None] == second[front])).any(axis=1)
