"""Tail probabilities together with their log10, so that 1e-400 can be told from 0.

scipy's `logsf` takes the logarithm of a tail that has already underflowed. Here the logarithm is never taken of a small
number: the far tail comes from a continued fraction in log space, and near p = 1 from log1p of the complement.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy import special

LN10 = np.log(10.0)
FAR = 1e-8
"""Largest p whose logarithm comes from the continued fraction, which converges there within some twenty terms."""
STIRLING_FROM = 25.0
"""Smallest a at which the Stirling series of ln Γ(a + 1/2) - ln Γ(a) is exact to rounding."""


class Tail(NamedTuple):
    """A p-value and its logarithm."""

    p: Float[ndarray, " units"]
    """Tail probability; 0 where it is below float64's smallest number."""
    log10: Float[ndarray, " units"]
    """Decimal logarithm of the probability, finite also where `p` is 0."""


def t_two_sided(t: Float[ndarray, " units"], df: Float[ndarray, " units"]) -> Tail:
    """Two-sided tail of Student's t: P(|T| >= |t|) = I_x(df/2, 1/2) with x = df / (df + t²).

    Args:
        t: statistics of either sign; NaN gives NaN.
        df: degrees of freedom, above 0, not necessarily whole.
    """
    with np.errstate(all="ignore"):
        # x = 1/(1 + ratio²). Near p = 1 the complement I_{1-x}(1/2, df/2) is computed, and p and its logarithm from it:
        # 1 - p would have lost the digits of a small t.
        a, ratio = df / 2, np.abs(t) / np.sqrt(df)
        p = 2 * special.stdtr(df, -np.abs(t))
        inner = special.betainc(0.5, a, ratio**2 / (1 + ratio**2))
        log = np.where(p > 0.5, np.log1p(-inner), np.log(p))
        p = np.where(p > 0.5, 1 - inner, p)
        far = p < FAR
        if far.any():
            log[far] = _log_t_tail(ratio[far], a[far])
    return Tail(np.where(far, np.exp(log), p), log / LN10)


def normal_two_sided(z: Float[ndarray, " units"]) -> Tail:
    """Two-sided tail of the standard normal: P(|Z| >= |z|) = erfc(|z|/√2).

    Args:
        z: statistics of either sign; NaN gives NaN.
    """
    with np.errstate(all="ignore"):
        # erfc(|z|/√2) = 1 - erf(|z|/√2) = 2 Φ(-|z|): the first form's logarithm is exact near 0, the second's far out.
        size = np.abs(z)
        near = np.log1p(-special.erf(size / np.sqrt(2)))
        log = np.where(size < 0.5, near, np.log(2) + special.log_ndtr(-size))
        return Tail(special.erfc(size / np.sqrt(2)), log / LN10)


def chi2_one_df(x: Float[ndarray, " units"]) -> Tail:
    """Upper tail of χ² with one degree of freedom: the two-sided normal tail at √x.

    Args:
        x: statistics, from 0; NaN gives NaN.
    """
    with np.errstate(invalid="ignore"):
        return normal_two_sided(np.sqrt(x))


def _log_t_tail(ratio: Float[ndarray, " far"], a: Float[ndarray, " far"]) -> Float[ndarray, " far"]:
    """Ln I_x(a, 1/2) at x = 1 / (1 + ratio²), by the prefactor and the continued fraction of I_x (DLMF 8.17.22)."""
    # I_x(a, b) = x^a y^b / (a B(a, b)) · fraction, with y = 1 - x and, for b = 1/2, B = √π Γ(a) / Γ(a + 1/2). All of it
    # is in logarithms; where ratio is `big`, its square might overflow, and 1 + ratio² is ratio² anyway.
    big = ratio > 1e8
    log_x = -np.where(big, 2 * np.log(ratio), np.log1p(np.where(big, 0, ratio) ** 2))
    log_y = -np.log1p(1 / ratio**2)
    log_beta = 0.5 * np.log(np.pi) - _log_gamma_ratio(a)
    return a * log_x + 0.5 * log_y - np.log(a) - log_beta + _log_fraction(a, np.exp(log_x), np.exp(log_y))


def _log_gamma_ratio(a: Float[ndarray, " far"]) -> Float[ndarray, " far"]:
    """Ln Γ(a + 1/2) - ln Γ(a), without the difference of two large numbers."""
    # ½ ln a - 1/(8a) + 1/(192a³) - 1/(640a⁵) + 17/(14336a⁷) - 31/(18432a⁹): the difference of the Stirling series (DLMF
    # 5.11.8).
    inverse = 1 / np.maximum(a, STIRLING_FROM)
    square = inverse**2
    series = inverse * (-1 / 8 + square * (1 / 192 + square * (-1 / 640 + square * (17 / 14336 - square * 31 / 18432))))
    direct = special.gammaln(a + 0.5) - special.gammaln(a)
    return np.where(a >= STIRLING_FROM, 0.5 * np.log(a) + series, direct)


def _log_fraction(
    a: Float[ndarray, " far"], x: Float[ndarray, " far"], y: Float[ndarray, " far"]
) -> Float[ndarray, " far"]:
    """Ln of the continued fraction of I_x(a, 1/2), with y = 1 - x: Didonato & Morris 1992 (TOMS 708), BFRAC.

    It is written in λ = a - (a+b)x = a·y - b·x, which loses nothing where x is near 1 and `a` is huge.
    """
    # Numerators `an` and denominators `bn` of two neighbouring convergents; after each term all are divided by the last
    # denominator, so that none overflows, and `r` is the convergent itself. Names are those of the paper.
    b = 0.5
    lam = a * y - b * x
    c, c0, c1, y1 = 1 + lam, b / a, 1 + 1 / a, y + 1
    p, s = np.ones_like(a), a + 1
    an, bn, anp1, bnp1 = np.zeros_like(a), np.ones_like(a), np.ones_like(a), c / c1
    r = c1 / c
    for n in range(1, 1000):
        t, w, e = n / a, n * (b - n) * x, a / s
        alpha = p * (p + c0) * e * e * (w * x)
        e = (1 + t) / (c1 + t + t)
        beta = n + w / s + e * (c + n * y1)
        p, s = 1 + t, s + 2
        an, anp1 = anp1, alpha * an + beta * anp1
        bn, bnp1 = bnp1, alpha * bn + beta * bnp1
        previous, r = r, anp1 / bnp1
        if np.all(np.abs(r - previous) <= 1e-15 * r):
            break
        an, bn, anp1, bnp1 = an / bnp1, bn / bnp1, r, np.ones_like(a)
    # BFRAC's prefactor is x^a y^b / B(a, b), ours x^a y^b / (a B(a, b)).
    return np.log(r * a)
