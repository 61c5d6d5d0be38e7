"""Cohen's d and its interval from the noncentral t."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy import special
from scipy.optimize import elementwise

FAR_T = 50.0
"""Beyond this t, the noncentral t comes from our own quadrature: scipy's grows slow, then wrong."""
FAR_T_TINY = 300.0
"""The same below `TINY_DF`, where the quadrature's integrand has a kink that matters for smaller t."""
TINY_DF = 10.0
SHARP = 0.5
"""Standard deviation of t S, S² ~ χ²/df, below which P(S >= (Z + δ)/t) is too sharp in Z for the nodes."""
NODES = np.arange(-8.5, 8.51, 0.25)
"""Places at which integrands over the standard normal are evaluated."""
WEIGHTS = np.exp(-(NODES**2) / 2) / np.exp(-(NODES**2) / 2).sum()
"""Weights of the trapezoid rule at `NODES`, exact to rounding for integrands as smooth as ours."""


def cohens_d(t: Float[ndarray, " units"], n_0: int, n_1: int) -> Float[ndarray, " units"]:
    """Cohen's d: the difference of means over the pooled standard deviation, from Student's t.

    Formula: d = (mean_1 - mean_0) / s_p = t √(1/n_0 + 1/n_1). Assumptions: those of Student's t for the interval, none
    for the number itself. Reference: Cohen 1988, Statistical Power Analysis, chapter 2. Example: t = 2.4 at n = 20 per
    group is d = 0.76.
    """
    return t * np.sqrt(1 / n_0 + 1 / n_1)


def hedges_factor(df: float) -> float:
    """The factor that makes d unbiased under normality: Γ(df/2) / (√(df/2) Γ((df-1)/2)) (Hedges 1981, JES 6:107)."""
    return float(np.exp(special.gammaln(df / 2) - special.gammaln((df - 1) / 2)) / np.sqrt(df / 2))


def noncentrality_interval(
    t: Float[ndarray, " units"], df: float, alpha: float
) -> tuple[Float[ndarray, " units"], Float[ndarray, " units"]]:
    """The noncentralities that t does not reject at alpha, two-sided.

    Formula: low solves P(T >= t | low) = alpha/2, high solves P(T <= t | high) = alpha/2 (Steiger & Fouladi 1997, in
    What If There Were No Significance Tests, chapter 9). Any finite t is in range, any alpha down to 1e-12.

    Example:
        >>> [round(float(limit[0]), 3) for limit in noncentrality_interval(np.array([2.4]), 38.0, 0.05)]
        [0.353, 4.418]
    """
    # P(T <= t | δ) falls in δ, so each limit is the one root of a monotone function.
    size = np.abs(t)
    low, high = np.full_like(t, np.nan), np.full_like(t, np.nan)
    middle = size <= (FAR_T if df >= TINY_DF else FAR_T_TINY)
    far = size > (FAR_T if df >= TINY_DF else FAR_T_TINY)
    low[middle], high[middle] = _by_scipy(size[middle], df, alpha / 2)
    low[far], high[far] = _by_quadrature(size[far], df, alpha / 2)
    # Solved for |t| and turned round, so that swapping the labels swaps the limits exactly; at t = 0 both must agree.
    low = np.where(t == 0, -high, low)
    return np.where(t < 0, -high, low), np.where(t < 0, -low, high)


def _by_scipy(
    t: Float[ndarray, " middle"], df: float, tail: float
) -> tuple[Float[ndarray, " middle"], Float[ndarray, " middle"]]:
    """Roots in the noncentrality, on the probit scale, on which the distribution is nearly a straight line."""
    probit = special.ndtri(tail)
    # T is nearly normal about the noncentrality, with variance 1 + t²/(2 df): a first guess, and the brackets' width.
    slope = np.sqrt(1 + t**2 / (2 * df))

    def excess(noncentrality: ndarray, t: ndarray, target: ndarray) -> ndarray:
        # Φ⁻¹(P(T <= t | δ)) is nearly (t - δ)/√(1 + t²/(2 df)), a line in δ: few steps from bracket to root.
        # Kept off 0 and 1, whose probits are infinite: far from the root only the sign matters.
        return special.ndtri(np.clip(special.nctdtr(df, noncentrality, t), 1e-300, 1 - 1e-16)) - target

    # At t >= 0 the lower limit is never below the one at t = 0, which is the normal quantile. Both limits are found in
    # one call: for a few units its overhead is most of the time.
    guess = np.concatenate([np.maximum(t + probit * slope, probit), t - probit * slope])
    target = np.repeat([-probit, probit], len(t))
    low, high = np.split(_root(excess, np.tile(t, 2), guess, target, np.tile(slope, 2)), 2)
    return low, high


def _by_quadrature(
    t: Float[ndarray, " far"], df: float, tail: float
) -> tuple[Float[ndarray, " far"], Float[ndarray, " far"]]:
    """For large t: T = (Z + δ)/S with S² ~ χ²/df, integrated over Z or over S, in whichever the rest is smooth."""
    sharp = t < SHARP * np.sqrt(2 * df)
    low, high = np.empty_like(t), np.empty_like(t)
    low[sharp], high[sharp] = _over_scale(t[sharp], df, tail)
    low[~sharp], high[~sharp] = _over_normal(t[~sharp], df, tail)
    return low, high


def _over_scale(
    t: Float[ndarray, " far"], df: float, tail: float
) -> tuple[Float[ndarray, " far"], Float[ndarray, " far"]]:
    """P(T <= t) = E_S Φ(t S - δ), by the trapezoid rule in log S; the root is in δ."""
    # The density of u = log S is proportional to exp(df (u - e^(2u)/2)): about normal, with deviation 1/√(2 df).
    u = NODES / np.sqrt(2 * df)
    weights = np.exp(df * (u - np.expm1(2 * u) / 2))
    weights, scale = weights / weights.sum(), np.exp(u)

    def above(noncentrality: ndarray, t: ndarray, target: ndarray) -> ndarray:
        return special.ndtr(noncentrality[..., None] - t[..., None] * scale) @ weights - target

    def below(noncentrality: ndarray, t: ndarray, target: ndarray) -> ndarray:
        return target - special.ndtr(t[..., None] * scale - noncentrality[..., None]) @ weights

    probit, width = special.ndtri(tail), np.sqrt(1 + t**2 / (2 * df))
    target = np.full_like(t, tail)
    return _root(above, t, t + probit * width, target, width), _root(below, t, t - probit * width, target, width)


def _over_normal(
    t: Float[ndarray, " far"], df: float, tail: float
) -> tuple[Float[ndarray, " far"], Float[ndarray, " far"]]:
    """P(T <= t) = E_Z P(S >= (Z + δ)/t), by the trapezoid rule in Z; the root is in δ/t."""

    # T = (Z + δ)/S, so T <= t where S >= (Z + δ)/t. P(S >= s) is the upper incomplete gamma function Q(df/2, df s²/2),
    # its complement P(df/2, df s²/2); where Z + δ < 0 any S will do. Each limit takes the one that is small there.
    def half_chi2(ratio: ndarray, t: ndarray) -> ndarray:
        scale = np.maximum(ratio[..., None] + NODES / t[..., None], 0.0)
        return df / 2 * scale**2

    def above(ratio: ndarray, t: ndarray, target: ndarray) -> ndarray:
        return special.gammaincc(df / 2, half_chi2(ratio, t)) @ WEIGHTS - target

    def below(ratio: ndarray, t: ndarray, target: ndarray) -> ndarray:
        return target - special.gammainc(df / 2, half_chi2(ratio, t)) @ WEIGHTS

    # For large t the ratio δ/t is nearly S itself, whose standard deviation is about 1/√(2 df).
    width = np.full_like(t, 1 / np.sqrt(2 * df))
    target = np.full_like(t, tail)
    high = _root(above, t, 1 - special.ndtri(tail) * width, target, width)
    low = _root(below, t, np.maximum(1 + special.ndtri(tail) * width, width / 4), target, width)
    return low * t, high * t


def _root(
    function: Callable[[ndarray, ndarray, ndarray], ndarray],
    t: ndarray,
    guess: ndarray,
    target: ndarray,
    width: ndarray,
) -> ndarray:
    """The root of each element, bracketed outwards from a guess (Chandrupatla's method within the bracket)."""
    if not len(t):
        return t
    args = (t, target)
    bracket = elementwise.bracket_root(function, guess - width / 8, guess + width / 8, args=args).bracket
    return elementwise.find_root(function, bracket, args=args).x
