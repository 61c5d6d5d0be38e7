"""Student's, Welch's, the one-sample and the paired t, with every sum taken in a scale of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from actmax.errors import InputError
from actmax.stats._inputs import Block, Readable, blocks_of, check_values, flat, normalize, unit_names
from actmax.stats._logspace import t_two_sided
from actmax.stats.corrections import p_columns


class Moments(NamedTuple):
    """Location and spread of a group, per unit of the model, on the scale of `Block.scaled`."""

    mean: Float[ndarray, " units"]
    """Mean of `Block.centred`, so that a difference of two means keeps its digits under a huge offset."""
    root_ss: Float[ndarray, " units"]
    """Root of the sum of squared deviations from the group's own mean; 0 in a group that rounding alone varies."""
    low: Float[ndarray, " units"]
    """Smallest of the raw values."""
    high: Float[ndarray, " units"]
    """Largest of the raw values."""
    n: int
    """Number of samples in the group."""


def group_moments(block: Block, chosen: Bool[ndarray, " samples"]) -> Moments:
    """Moments of one group, by two passes (Chan, Golub & LeVeque 1983, The American Statistician 37:242)."""
    # A group is constant where its extremes are equal but for rounding; a sum of squares would say otherwise.
    raw, own = block.raw[:, chosen], block.scaled[:, chosen]
    low, high = raw.min(axis=1), raw.max(axis=1)
    root = np.where(flat(low, high, block.eps), 0.0, root_sum_of_squares(own))
    return Moments(block.centred[:, chosen].mean(axis=1), root, low, high, int(chosen.sum()))


def root_sum_of_squares(x: Float[ndarray, "units samples"]) -> Float[ndarray, " units"]:
    """Root of the sum of squared deviations from the row's mean, without underflow."""
    # Twice centred: the mean of the first pass is rounded, the second takes out what that left (Chan et al.).
    deviation = x - x.mean(axis=1, keepdims=True)
    deviation, exponent = normalize(deviation - deviation.mean(axis=1, keepdims=True))
    return np.ldexp(np.sqrt(np.einsum("us,us->u", deviation, deviation)), exponent)


def difference(block: Block, m_0: Moments, m_1: Moments) -> Float[ndarray, " units"]:
    """Mean of group 1 minus mean of group 0, on the scale of `Block.scaled`."""
    return np.ldexp(m_1.mean - m_0.mean, block.spread_exponent)


def student(diff: Float[ndarray, " units"], m_0: Moments, m_1: Moments) -> Float[ndarray, " units"]:
    """Student's t of two independent groups with one common variance.

    Null hypothesis: the groups' means are equal. Assumptions: independent samples, normal within each group, one
    common variance. Formula: t = (mean_1 - mean_0) / (s_p √(1/n_0 + 1/n_1)), s_p² = (SS_0 + SS_1) / (N - 2), on N - 2
    degrees of freedom. Reference: Student 1908, Biometrika 6:1. Example: t = 2.4 at n = 20 per group has p = 0.021.
    Zero variance within both groups leaves 0/0 or a number over 0: NaN.
    """
    # s_p √(1/n_0 + 1/n_1), as the root of a sum of squares that `hypot` takes without overflow.
    total = m_0.n + m_1.n
    se = np.hypot(m_0.root_ss, m_1.root_ss) * np.sqrt((1 / m_0.n + 1 / m_1.n) / (total - 2))
    return np.where(se > 0, diff / se, np.nan)


def welch(
    diff: Float[ndarray, " units"], m_0: Moments, m_1: Moments
) -> tuple[Float[ndarray, " units"], Float[ndarray, " units"]]:
    """Welch's t of two independent groups, each with its own variance, and its degrees of freedom.

    Null hypothesis: the groups' means are equal. Assumptions: independent samples, normal within each group; the
    variances may differ. Formula: t = (mean_1 - mean_0) / √(v_0 + v_1), v_g = s_g² / n_g, on
    (v_0 + v_1)² / (v_0²/(n_0 - 1) + v_1²/(n_1 - 1)) degrees of freedom. Reference: Welch 1947, Biometrika 34:28.
    Example: groups with s = 1 and s = 3 at n = 20 each get 23.2 degrees of freedom where Student's t has 38.
    """
    # √v_g = √(SS_g/(n_g (n_g - 1))).
    se_0 = m_0.root_ss / np.sqrt(m_0.n * (m_0.n - 1))
    se_1 = m_1.root_ss / np.sqrt(m_1.n * (m_1.n - 1))
    se = np.hypot(se_0, se_1)
    # Degrees of freedom from the shares of the variance: their squares stay within float64 where the v_g's would not.
    share_0, share_1 = (se_0 / se) ** 2, (se_1 / se) ** 2
    df = (share_0 + share_1) ** 2 / (share_0**2 / (m_0.n - 1) + share_1**2 / (m_1.n - 1))
    return np.where(se > 0, diff / se, np.nan), np.where(se > 0, df, np.nan)


def score_chi2(block: Block, m_0: Moments, m_1: Moments) -> Float[ndarray, " units"]:
    """The score (Rao) statistic of the logistic slope, fitted under the null only, so it survives separation.

    Null hypothesis: the slope is 0. Assumptions: independent samples; the χ² law is asymptotic. Formula: U²/V with U =
    Σ(x - x̄)(y - ȳ), V = ȳ(1 - ȳ) Σ(x - x̄)²; equal to N t² / (N - 2 + t²) in the pooled t. Reference: Rao 1948, Proc.
    Camb. Phil. Soc. 44:50. Example: t = 2.4 at N = 40 is χ² = 5.26.
    """
    # U = n_0 n_1/N (mean_1 - mean_0) and V = n_0 n_1/N² Σ(x - x̄)², so U²/V = n_0 n_1 (mean_1 - mean_0)²/Σ(x - x̄)².
    total = root_sum_of_squares(block.centred)
    return m_0.n * m_1.n * ((m_1.mean - m_0.mean) / total) ** 2


def paired_t(block: Block, apart: Float[ndarray, "units pairs"]) -> Float[ndarray, " units"]:
    """The paired t: the one-sample t of the differences within pairs, group 1 minus group 0.

    Null hypothesis: the mean difference is 0. Assumptions: independent pairs, normal differences. Formula: that of
    `one_sample`, on the differences. Reference: Student 1908, Biometrika 6:1. Example: restart s after against restart
    s before optimization; two word lists put side by side are not pairs. NaN where all pairs differ by one amount.
    """
    return np.where(constant_difference(block, apart), np.nan, one_sample_t(apart, 0.0, block.eps))


def constant_difference(block: Block, apart: Float[ndarray, "units pairs"]) -> Bool[ndarray, " units"]:
    """Whether all pairs differ by one amount, but for the rounding of their members.

    Args:
        block: the units.
        apart: the differences within pairs.
    """
    # Differences are rounded to the spacing of the values that they are of. Small ones between exact values are no
    # rounding: only where they also agree to a millionth is it one shift that rounding has made uneven.
    low, high, least = apart.min(axis=1), apart.max(axis=1), np.abs(apart).min(axis=1)
    rounded = flat(low, high, block.eps, size=np.abs(block.raw).max(axis=1)) & (high - low <= 2.0**-20 * least)
    return rounded | flat(low, high, block.eps)


def differences(block: Block, pairs: Int[ndarray, "pairs 2"]) -> Float[ndarray, "units pairs"]:
    """Group 1 minus group 0 within each pair."""
    # Raw differences are exact where the members of a pair are near each other, but may overflow near float64's end.
    apart = block.raw[:, pairs[:, 1]] - block.raw[:, pairs[:, 0]]
    # Scaled values overflow nowhere, but beside a large one a subnormal number has lost its digits in them.
    overflown = ~np.isfinite(apart).all(axis=1)
    apart[overflown] = block.scaled[np.ix_(overflown, pairs[:, 1])] - block.scaled[np.ix_(overflown, pairs[:, 0])]
    return apart


def one_sample_t(
    x: Float[ndarray, "units samples"], popmean: float = 0.0, eps: float = 0.0
) -> Float[ndarray, " units"]:
    """Student's t of each row's mean against `popmean`; NaN for fewer than two samples or where all are equal.

    Args:
        x: a row per unit.
        popmean: the mean under the null.
        eps: relative spacing of what x was rounded to.
    """
    n = x.shape[1]
    if n < 2:
        return np.full(len(x), np.nan)
    # Contiguous rows, so that sums run in one order and paired and one-sample t agree to the last bit.
    x, exponent = normalize(np.ascontiguousarray(x))
    # t = mean/(s/√n) with s = root/√(n - 1), so t = mean/root · √(n (n - 1)).
    root = np.where(flat(x.min(axis=1), x.max(axis=1), eps), 0.0, root_sum_of_squares(x))
    # The spread is that of x itself: where popmean is far larger than x, that of x - popmean would lose its digits.
    common = np.maximum(exponent, np.frexp(popmean)[1]) if popmean != 0 else exponent
    # x and popmean on one scale, the larger of their two: the difference is taken before the mean, digit by digit.
    mean = (np.ldexp(x, (exponent - common)[:, None]) - np.ldexp(popmean, -common)[:, None]).mean(axis=1)
    return np.where(root > 0, np.ldexp(mean / root * np.sqrt(n * (n - 1.0)), common - exponent), np.nan)


@dataclass(frozen=True)
class OneSample:
    """One-sample t-tests, a row per unit."""

    table: pd.DataFrame
    """`n mean popmean t df p p_log10 p_bonferroni p_bh status`; status is `not_finite` (also where t exceeds float64),
    `too_few`, `constant` (but for rounding) or `ok`. Units are called as a data frame's columns are."""


def one_sample(x: Readable, popmean: float | int = 0.0) -> OneSample:
    """The one-sample t-test of each unit's mean.

    Null hypothesis: the unit's mean is `popmean`. Assumptions: independent samples from a normal distribution (or
    enough of them that the mean is nearly normal). Formula: t = (x̄ - popmean) √n / s on n - 1 degrees of freedom.
    Reference: Student 1908, Biometrika 6:1.

    Args:
        x: activations, (samples, units) or (samples,), any float dtype; computed in float64.
        popmean: the mean under the null.

    Example:
        >>> round(float(one_sample([1.0, 2.0, 3.0, 4.0], 2.0).table["t"].iloc[0]), 4)
        0.7746
    """
    values = check_values("x", x)
    if not np.isfinite(popmean):
        raise InputError("popmean", popmean, "a finite number", "0 asks whether the mean differs from nothing.")
    # Blocks of one group: the scale in which nothing overflows is what is wanted of them.
    everyone = np.zeros(len(values), dtype=bool)
    with np.errstate(all="ignore"):
        parts = [_one_sample_columns(block, float(popmean)) for block in blocks_of(values, everyone)]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return OneSample(_one_sample_table(columns, len(values), float(popmean), unit_names(x, values.shape[1])))


def _one_sample_columns(block: Block, popmean: float) -> dict[str, ndarray]:
    """Mean, t and status of a block of units."""
    n = block.raw.shape[1]
    t = np.where(block.finite, one_sample_t(block.raw, popmean, block.eps), np.nan)
    mean = np.where(block.finite, np.ldexp(block.centre, block.exponent), np.nan)
    finite, constant = block.finite & ~np.isinf(t), flat(block.raw.min(axis=1), block.raw.max(axis=1), block.eps)
    status = np.select([~finite, np.full(len(t), n < 2), constant], ["not_finite", "too_few", "constant"], "ok")
    return {"mean": mean, "t": np.where(finite, t, np.nan), "status": status}


def _one_sample_table(columns: dict[str, ndarray], n: int, popmean: float, units: pd.Index) -> pd.DataFrame:
    t = columns["t"]
    df = np.where(np.isnan(t), np.nan, n - 1.0)
    table = {"n": np.full(len(t), n), "mean": columns["mean"], "popmean": np.full(len(t), popmean), "t": t, "df": df}
    table |= p_columns("p", t_two_sided(t, df))
    return pd.DataFrame(table | {"status": columns["status"]}).set_axis(units, axis=0)
