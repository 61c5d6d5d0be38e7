"""An estimate with its jackknife interval over restarts, or a status that says why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite, nan, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.95
"""Coverage of every interval."""
OK = "ok"
"""The status of an estimate whose interval exists."""
ROUNDING = 1e-12
"""Below this share of its size a difference between two floats is rounding."""


@dataclass(frozen=True)
class Estimate:
    """A statistic and its 95 % interval."""

    value: float
    """The statistic; NaN where it does not exist."""
    low: float
    """Lower limit of the interval; NaN where the interval is not estimable."""
    high: float
    """Upper limit of the interval; NaN where the interval is not estimable."""
    status: str
    """`ok`, or `not estimable: ` and the reason."""


def not_estimable(value: float, reason: str) -> Estimate:
    """An estimate without an interval."""
    return Estimate(value, nan, nan, f"not estimable: {reason}")


def jackknife(
    value: float, left_out: NDArray[np.float64], *, bounds: tuple[float, float] = (-inf, inf), reason: str | None = None
) -> Estimate:
    """The interval of a statistic from its values with each restart left out once.

    Assumptions: restarts are independent and alike; the statistic is smooth in them (a mean over pairs, a count; not a
    maximum or a range). Formula: θ ± t(R - 1) s with s² = (R - 1)/R Σ (θ₍ᵢ₎ - mean θ₍.₎)² over the R values with one
    restart left out, cut to the statistic's bounds. For statistics of pairs s² is too large on average rather than too
    small (Efron & Stein 1981, Ann. Statist. 9:586). A bootstrap would draw restarts twice, and a restart agrees
    with its copy: it is biased for every statistic here. Where the R values are all equal (all tokens unique; all
    restarts the same) they say nothing about the spread, and the interval is not estimable rather than of width zero.
    Reference: Tukey 1958, Ann. Math. Statist. 29:614; Efron & Tibshirani 1993, chapter 11.

    Args:
        value: the statistic of all restarts.
        left_out: the statistic without each restart in turn.
        bounds: the least and largest value the statistic can have.
        reason: why the interval is not estimable, where the caller knows already.

    Example:
        >>> jackknife(2.0, np.array([2.5, 2.0, 1.5])).status
        'ok'
        >>> jackknife(0.0, np.zeros(5)).status
        'not estimable: every restart left out leaves the same value'
    """
    reason = reason or _obstacle(value, left_out)
    if reason is not None:
        return not_estimable(value, reason)
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(left_out) - 1)) * _error(left_out)
    return Estimate(value, max(bounds[0], value - half), min(bounds[1], value + half), OK)


def _error(left_out: NDArray[np.float64]) -> float:
    """The jackknife's standard error: √((R - 1)/R Σ (θ₍ᵢ₎ - mean)²) = √((R - 1) mean (θ₍ᵢ₎ - mean)²)."""
    return sqrt((len(left_out) - 1) * float(np.mean((left_out - left_out.mean()) ** 2)))


def _obstacle(value: float, left_out: NDArray[np.float64]) -> str | None:
    if len(left_out) < 3:
        return "fewer than 3 restarts"
    if not (isfinite(value) and np.isfinite(left_out).all()):
        return "the statistic does not exist for these restarts"
    if _error(left_out) <= ROUNDING * len(left_out) * max(1.0, abs(value)):
        return "every restart left out leaves the same value"
    return None
