"""The rank AUC and the Mann-Whitney test."""

from __future__ import annotations

from functools import lru_cache
from math import comb, log10
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy import special

from actmax.stats._logspace import LN10, Tail, normal_two_sided

EXACT_UP_TO = 8
"""Largest size of the smaller group at which the exact law is used, as in scipy's `mannwhitneyu(method="auto")`."""
EXACT_COST = 2**21
"""Most additions, about two milliseconds, for which the exact law of one pattern of ties is counted."""


class Ranks(NamedTuple):
    """The rank statistics of each unit."""

    u_1: Float[ndarray, " units"]
    """Number of pairs (one sample of each group) in which group 1's value is the larger; a tie counts half."""
    ties: Float[ndarray, " units"]
    """Σ(t³ - t) over the runs of t equal values; 0 without ties."""
    tied_log10: Float[ndarray, " units"]
    """Decimal logarithm of the exact two-sided p of a unit with ties; NaN where there are none or it is not counted."""


def rank_statistics(raw: Float[ndarray, "units samples"], is_1: Bool[ndarray, " samples"]) -> Ranks:
    """U of group 1, the tie term from mid-ranks, and the exact p of units with ties where that is cheap."""
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
    u_1, ties = rank_sum - n_1 * (n_1 + 1) / 2, (run * run - 1).sum(axis=1)
    sizes = samples - int(n_1), int(n_1)
    exact = np.full(units, np.nan)
    few = np.full(units, min(sizes) <= EXACT_UP_TO)
    for unit in np.flatnonzero((ties > 0) & (few | (2 * run.max(axis=1) >= samples))):
        runs = np.diff(np.flatnonzero(np.append(opens[unit], True)))
        law = tied_log10_p(tuple(runs.tolist()), min(sizes))
        exact[unit] = np.nan if law is None else law[abs(round(2 * u_1[unit]) - sizes[0] * sizes[1])]
    return Ranks(u_1, ties, exact)


def mann_whitney(ranks: Ranks, n_0: int, n_1: int) -> Tail:
    """The Mann-Whitney test, two-sided.

    Null hypothesis: both groups come from one distribution (AUC = 1/2 is its consequence, not the null itself).
    Assumptions: independent samples; unequal spread alone can reject. Formula: with at most 8 samples in the smaller
    group, or half of all samples tied at one value, the exact share of the C(N, n_1) ways to name the samples of group
    1 whose U is at least as far from n_0 n_1/2, where that is cheap to count (`EXACT_COST`); else z = (|U - n_0 n_1/2|
    - 1/2) / σ with σ² = n_0 n_1/12 ((N + 1) - Σ(t³ - t)/(N(N - 1))), and never less than the one way that is there,
    1/C(N, n_1). References: Mann & Whitney 1947, Ann. Math. Statist. 18:50; Streitberg & Röhmel 1986, Statistical
    Software Newsletter 12:10, for counts with ties. Example: 3 against 3 fully ordered has p = 2/20 = 0.1, however far
    apart.
    """
    total = n_0 + n_1
    # U moves in steps of 1, so half a step is taken off its distance from the mean (correction for continuity).
    away = np.abs(ranks.u_1 - n_0 * n_1 / 2)
    with np.errstate(all="ignore"):
        variance = n_0 * n_1 / 12 * (total + 1 - ranks.ties / (total * (total - 1)))
        asymptotic = normal_two_sided(np.maximum(away - 0.5, 0.0) / np.sqrt(variance))
    least = -log10(comb(total, n_1)) if total < 1000 else -np.inf
    log = np.where(variance > 0, np.maximum(asymptotic.log10, least), np.nan)
    log = np.where(np.isnan(ranks.tied_log10), log, ranks.tied_log10)
    if min(n_0, n_1) <= EXACT_UP_TO:
        # The law is symmetric: the p of the smaller of U_1 and U_0 stands for both.
        exact = exact_log10_p(min(n_0, n_1), max(n_0, n_1))
        smaller = np.nan_to_num(n_0 * n_1 / 2 - away).astype(np.int64)
        log = np.where(ranks.ties == 0, exact[smaller], log)
    return Tail(np.where(log == asymptotic.log10, asymptotic.p, np.exp(log * LN10)), log)


def auc_limits(
    auc: Float[ndarray, " units"], n_0: int, n_1: int, alpha: float
) -> tuple[Float[ndarray, " units"], Float[ndarray, " units"]]:
    """The AUCs between which the observed one is no surprise (Newcombe 2006, method 5); NaN where it does not exist."""
    z, extra = -special.ndtri(alpha / 2), (n_0 + n_1) / 2 - 1

    def away(theta: Float[ndarray, " units"]) -> Float[ndarray, " units"]:
        """How far an observed AUC may lie from θ."""
        spread = 1 + extra * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return z * np.sqrt(theta * (1 - theta) * spread / (n_0 * n_1))

    def limit(end: float) -> Float[ndarray, " units"]:
        # Between the observed AUC and the end, |θ̂ - θ| starts below that distance and ends above it: bisection.
        near, far = auc.copy(), np.full_like(auc, end)
        for _ in range(60):
            middle = (near + far) / 2
            inside = np.abs(auc - middle) <= away(middle)
            near, far = np.where(inside, middle, near), np.where(inside, far, middle)
        return np.where(np.isnan(auc), np.nan, np.where(auc == end, end, near))

    return limit(0.0), limit(1.0)


@lru_cache(maxsize=128)
def tied_log10_p(runs: tuple[int, ...], small: int) -> Float[ndarray, " distances"] | None:
    """Decimal logarithm of the exact two-sided p under ties, at each |2U - n_0 n_1| from 0; None where it is costly.

    With c = 2 rank - (N + 1), the sum of c over a group is 2U - n_0 n_1. The subsets of the smaller group's size are
    counted by that sum, one sample after the other (Streitberg & Röhmel 1986); samples of the longest run come last,
    all together, as a binomial coefficient.

    Args:
        runs: numbers of equal values, from the smallest value to the largest.
        small: size of the smaller group.
    """
    total, lengths = sum(runs), np.array(runs)
    ends = np.cumsum(lengths)
    score, longest = 2 * ends - lengths - total, int(lengths.argmax())
    others = np.delete(np.repeat(score, lengths), slice(ends[longest] - lengths[longest], ends[longest]))
    steps = np.sort(others - score[longest])
    most = min(small, len(steps))
    reach = int(np.maximum(steps[::-1][:most], 0).sum()), int(np.maximum(-steps[:most], 0).sum())
    if len(steps) * (most + 1) * (sum(reach) + 1) > EXACT_COST:
        return None
    # Entry (k, s) counts the subsets of k samples whose steps sum to s - reach[1].
    ways = np.zeros((most + 1, sum(reach) + 1))
    ways[0, reach[1]] = 1.0
    for step in steps.tolist():
        if step > 0:
            ways[1:, step:] += ways[:-1, :-step]
        else:
            ways[1:, :step] += ways[:-1, -step:]
    every = comb(total, small)
    share = np.array([comb(runs[longest], small - k) / every for k in range(most + 1)])
    distance = np.abs(np.arange(ways.shape[1]) - reach[1] + small * int(score[longest]))
    mass = np.bincount(distance, weights=share @ ways, minlength=small * (total - small) + 1)
    with np.errstate(divide="ignore"):
        return np.minimum(np.log10(np.cumsum(mass[::-1])[::-1]), 0.0)


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
