"""t-tests of many regroupings of the same samples at once: halves of the data, shuffled labels.

For one grouping there is `compare`. A null needs hundreds, of which only t matters; all of them are two products of
matrices, since sums and sums of squares of any group are linear in the mask that chooses it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Num
from numpy import ndarray

from actmax.errors import InputError
from actmax.stats._logspace import t_two_sided

FLAT = 1e-12
"""Share of a unit's variance over all samples below which a group's is rounding, and is taken for none."""


class Regrouped(NamedTuple):
    """A t-test per unit and grouping; NaN where a group has fewer than two samples or nothing varies."""

    t: Float[ndarray, "units groupings"]
    """Welch's t, or the paired t; group 1 minus group 0."""
    p: Float[ndarray, "units groupings"]
    """Two-sided p of that t."""
    d: Float[ndarray, "units groupings"]
    """Effect size: Cohen's d (pooled), or for pairs the mean difference in standard deviations of the differences."""


def regrouped_welch(
    activations: Num[ndarray, "samples units"],
    group_0: Bool[ndarray, "samples groupings"],
    group_1: Bool[ndarray, "samples groupings"],
) -> Regrouped:
    """Welch's t-test of every unit under every grouping.

    Null hypothesis, assumptions and formula are those of `compare`'s `welch_p`; the same numbers to about 1e-9, less
    its care for values that span hundreds of orders of magnitude.

    Args:
        activations: (samples, units); computed in float64.
        group_0: which samples are in group 0, a column per grouping.
        group_1: which are in group 1; a sample may be in neither, and must not be in both.

    Example:
        >>> x, labels = np.array([[0.1], [0.4], [0.2], [0.9], [0.3], [1.2]]), np.array([[0, 0, 0, 1, 1, 1]]).T == 1
        >>> round(float(regrouped_welch(x, ~labels, labels).t[0, 0]), 4)
        2.0319
    """
    if (group_0 & group_1).any():
        raise InputError("group_1", "overlapping", "a sample is in one group at most", "Pass two disjoint masks.")
    x = _standardised(activations)
    n_0, mean_0, ss_0 = _sums(x, group_0.astype(np.float64))
    n_1, mean_1, ss_1 = _sums(x, group_1.astype(np.float64))
    with np.errstate(all="ignore"):
        # Squared standard errors v_g = SS_g/(n_g (n_g - 1)), and Welch's degrees of freedom. Standardising a unit
        # multiplies differences and errors alike, so t, df and d are those of the activations.
        v_0, v_1 = ss_0 / (n_0 * (n_0 - 1)), ss_1 / (n_1 * (n_1 - 1))
        df = (v_0 + v_1) ** 2 / (v_0**2 / (n_0 - 1) + v_1**2 / (n_1 - 1))
        difference = mean_1 - mean_0
        pooled = np.sqrt((ss_0 + ss_1) / (n_0 + n_1 - 2))
        t = np.where((np.minimum(n_0, n_1) > 1) & (ss_0 + ss_1 > 0), difference / np.sqrt(v_0 + v_1), np.nan)
        return Regrouped(t, _p(t, df), np.where(np.isnan(t), np.nan, difference / pooled))


def regrouped_paired(differences: Num[ndarray, "pairs units"], signs: Float[ndarray, "pairs groupings"]) -> Regrouped:
    """The paired t-test of every unit under every choice and every swapping of pairs.

    Null hypothesis and formula are those of `compare`'s `paired_p`.

    Args:
        differences: (pairs, units), group 1 minus group 0.
        signs: 1 for a pair as it is, -1 for a swapped one, 0 for one that is left out; a column per grouping.

    Example:
        >>> round(float(regrouped_paired(np.array([[1.0], [2.0], [4.0]]), np.ones((3, 1))).t[0, 0]), 4)
        2.6458
    """
    # Divided by the root mean square, which t does not see: squares neither overflow nor underflow. A pair's sign s has
    # s² = |s|, so sums of squares need the choice of pairs alone.
    x = differences.astype(np.float64)
    size = np.sqrt((x**2).mean(0))
    x = np.divide(x, size, out=np.zeros_like(x), where=size > 0)
    n = np.abs(signs).sum(0)
    with np.errstate(all="ignore"):
        # n counts the chosen pairs; t = mean/(sd/√n), and the effect is mean/sd.
        mean = x.T @ signs / n
        ss = _cleaned((x**2).T @ np.abs(signs) - n * mean**2)
        sd = np.sqrt(ss / (n - 1))
        t = np.where((n > 1) & (ss > 0), mean / sd * np.sqrt(n), np.nan)
        return Regrouped(t, _p(t, np.broadcast_to(n - 1, t.shape)), np.where(np.isnan(t), np.nan, mean / sd))


def _standardised(activations: Num[ndarray, "samples units"]) -> Float[ndarray, "samples units"]:
    """Mean 0 and variance 1 per unit, so that sums of squares cancel little; zeros where a unit is constant."""
    x = activations.astype(np.float64)
    x -= x.mean(0)
    spread = x.std(0)
    return np.divide(x, spread, out=np.zeros_like(x), where=spread > 0)


def _sums(x: Float[ndarray, "samples units"], mask: Float[ndarray, "samples groupings"]) -> tuple[ndarray, ...]:
    """Size, mean and sum of squared deviations of each unit in each group."""
    # Σ(x - mean)² = Σx² - n mean²: on standardised units the difference loses at most the digits that `_standardised`
    # leaves it to lose, and what remains below `FLAT` is set to 0.
    n = mask.sum(0)
    with np.errstate(all="ignore"):
        mean = x.T @ mask / n
        return n, mean, _cleaned((x**2).T @ mask - n * mean**2)


def _cleaned(ss: Float[ndarray, "units groupings"]) -> Float[ndarray, "units groupings"]:
    """Sums of squares with rounding errors set to 0."""
    return np.where(ss > FLAT, ss, 0.0)


def _p(
    t: Float[ndarray, "units groupings"], df: Float[ndarray, "units groupings"]
) -> Float[ndarray, "units groupings"]:
    return t_two_sided(t.ravel(), df.ravel()).p.reshape(t.shape)
