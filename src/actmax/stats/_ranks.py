"""The rank AUC and the Mann-Whitney test."""

from __future__ import annotations

from functools import lru_cache
from math import comb, log10
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from actmax.stats._logspace import LN10, Tail, normal_two_sided

EXACT_UP_TO = 8
"""Largest size of the smaller group at which the exact law is used, if nothing is tied, as in scipy's
`mannwhitneyu(method="auto")`."""


class Ranks(NamedTuple):
    """The rank statistics of each unit."""

    u_1: Float[ndarray, " units"]
    """Number of pairs (one sample of each group) in which group 1's value is the larger; a tie counts half."""
    ties: Float[ndarray, " units"]
    """Σ(t³ - t) over the runs of t equal values; 0 without ties."""


def rank_statistics(raw: Float[ndarray, "units samples"], is_1: Bool[ndarray, " samples"]) -> Ranks:
    """U of group 1 and the tie term, from mid-ranks."""
    units, samples = raw.shape
    order = np.argsort(raw, axis=1)
    ordered = np.take_along_axis(raw, order, axis=1)
    # A run of equal values from place `first` to place `last` shares the mid-rank (first + last)/2 + 1.
    place = np.arange(samples)
    opens = np.ones((units, samples), dtype=bool)
    opens[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = np.maximum.accumulate(np.where(opens, place, 0), axis=1)
    closes = np.roll(opens, -1, axis=1)
    last = np.minimum.accumulate(np.where(closes, place, samples)[:, ::-1], axis=1)[:, ::-1]
    run = (last - first + 1).astype(np.float64)
    rank_sum = np.einsum("us,us->u", (first + last) / 2 + 1, is_1[order].astype(np.float64))
    n_1 = float(is_1.sum())
    # U_1 = R_1 - n_1(n_1 + 1)/2; and each of a run's t samples brings t² - 1, together t³ - t.
    return Ranks(rank_sum - n_1 * (n_1 + 1) / 2, (run * run - 1).sum(axis=1))


def mann_whitney(ranks: Ranks, n_0: int, n_1: int) -> Tail:
    """The Mann-Whitney test, two-sided.

    Null hypothesis: both groups come from one distribution (AUC = 1/2 is its consequence, not the null itself).
    Assumptions: independent samples; unequal spread alone can reject. Formula: without ties and with at most 8 samples
    in the smaller group, twice the smaller exact tail of U; else z = (|U - n_0 n_1/2| - 1/2) / σ with
    σ² = n_0 n_1/12 ((N + 1) - Σ(t³ - t)/(N(N - 1))). Reference: Mann & Whitney 1947, Ann. Math. Statist. 18:50.
    Example: 3 against 3 fully ordered has p = 2/20 = 0.1, however far apart.
    """
    total = n_0 + n_1
    # U moves in steps of 1, so half a step is taken off its distance from the mean (correction for continuity).
    away = np.abs(ranks.u_1 - n_0 * n_1 / 2)
    with np.errstate(all="ignore"):
        variance = n_0 * n_1 / 12 * (total + 1 - ranks.ties / (total * (total - 1)))
        asymptotic = normal_two_sided(np.maximum(away - 0.5, 0.0) / np.sqrt(variance))
    p = np.where(variance > 0, asymptotic.p, np.nan)
    log = np.where(variance > 0, asymptotic.log10, np.nan)
    if min(n_0, n_1) > EXACT_UP_TO:
        return Tail(p, log)
    # The law is symmetric: the p of the smaller of U_1 and U_0 stands for both.
    exact = exact_log10_p(min(n_0, n_1), max(n_0, n_1))
    smaller = np.nan_to_num(n_0 * n_1 / 2 - away).astype(np.int64)
    return Tail(
        np.where(ranks.ties == 0, np.exp(exact[smaller] * LN10), p), np.where(ranks.ties == 0, exact[smaller], log)
    )


@lru_cache(maxsize=16)
def exact_log10_p(small: int, large: int) -> Float[ndarray, " half"]:
    """Decimal logarithm of the exact two-sided p at U = 0, 1, ... up to n_0 n_1 / 2, from whole numbers.

    The counts of U are the coefficients of the Gaussian binomial Π (1 - q^(large+i)) / (1 - q^i), i = 1..small (Andrews
    1976, The Theory of Partitions, chapter 3).
    """
    # The polynomial up to half of its degree, which is enough as it is symmetric: for each i it is multiplied by
    # 1 - q^(large+i), highest power first, and divided by 1 - q^i, lowest first, both in place.
    half = small * large // 2 + 1
    counts = [1] + [0] * (half - 1)
    for i in range(1, small + 1):
        for k in range(half - 1, large + i - 1, -1):
            counts[k] -= counts[k - large - i]
        for k in range(i, half):
            counts[k] += counts[k - i]
    total, tail, logs = comb(small + large, small), 0, []
    for count in counts:
        tail += count
        logs.append(min(0.0, log10(2 * tail) - log10(total)))
    return np.array(logs)
