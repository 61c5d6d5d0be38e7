"""How much of what a unit can give its restarts have shown: coverage, richness, rarefaction, from incidences.

The restart is the sampling unit: a token counts once per restart, however many of its positions hold it, since the
positions of one restart are not independent. With m restarts, Q_k is the number of tokens that occur in exactly k of
them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import exp, log1p, nan, sqrt

import numpy as np
from jaxtyping import Bool, Float, Int, Num
from numpy import ndarray
from numpy.typing import ArrayLike
from scipy import stats
from torch import Tensor

from actmax.errors import InputError
from actmax.evidence.estimates import LEVEL, OK, Estimate, not_estimable

ALL_UNIQUE = "every token occurs in one restart only"
"""Reason why coverage and richness have no interval: a sample without repetition says nothing of their spread."""


@dataclass(frozen=True)
class Incidence:
    """Counts of how many tokens occur in how many restarts."""

    counts: Num[ndarray, ...]
    """Q_1 ... Q_m: entry k - 1 is the number of tokens that occur in exactly k restarts; kept as 64-bit integers."""

    def __post_init__(self) -> None:
        """Refuses what counts nothing.

        Raises:
            InputError: counts that are not whole, below 0 or all 0.
        """
        counts = np.asarray(self.counts)
        if counts.ndim != 1 or counts.dtype.kind not in "iuf" or (counts != np.floor(counts)).any():
            allowed = "one whole number per restart, Q_1 to Q_m"
            raise InputError("counts", self.counts, allowed, "Incidence.of counts the tokens of restarts.")
        if (counts < 0).any() or not counts.sum() > 0:
            allowed = "numbers of tokens from 0, not all of them 0"
            raise InputError("counts", self.counts, allowed, "Where no token was seen there is nothing to estimate.")
        object.__setattr__(self, "counts", counts.astype(np.int64))

    @classmethod
    def from_frequencies(cls, frequencies: ArrayLike, restarts: int) -> Incidence:
        """Counts from the number of restarts in which each token occurs.

        Args:
            frequencies: a number from 1 to `restarts` per token.
            restarts: number of restarts, m.

        Raises:
            InputError: a token occurs in no restart, or in more than there are.

        Example:
            >>> Incidence.from_frequencies([1, 2, 2], 4).counts.tolist()
            [1, 2, 0, 0]
        """
        found = np.asarray(frequencies)
        wrong = found[~((found >= 1) & (found <= restarts) & (found == np.floor(found)))]
        if len(wrong):
            allowed = f"whole numbers from 1 to the {restarts} restarts"
            raise InputError("frequencies", wrong[0], allowed, "Leave tokens out that were not seen.")
        return cls(np.bincount(found.astype(np.int64), minlength=restarts + 1)[1:])

    @classmethod
    def of(cls, ids: Int[Tensor, "restarts tokens"]) -> Incidence:
        """Counts the tokens of some restarts.

        Example:
            >>> import torch
            >>> Incidence.of(torch.tensor([[1, 1, 2], [1, 3, 3]])).counts.tolist()  # 2 and 3 in one restart, 1 in both
            [2, 1]
        """
        return cls(incidence_counts(ids[None])[0])

    @property
    def restarts(self) -> int:
        """The number of sampling units, m."""
        return len(self.counts)

    @property
    def unique(self) -> int:
        """Number of different tokens, S_obs."""
        return int(self.counts.sum())

    @property
    def total(self) -> int:
        """Number of incidences, U = Σ k Q_k."""
        return int(self.counts @ np.arange(1, self.restarts + 1))

    @property
    def once(self) -> int:
        """Q_1, the number of tokens that occur in exactly one restart."""
        return int(self.counts[0])

    @property
    def twice(self) -> int:
        """Q_2, the number of tokens that occur in exactly two restarts."""
        return int(self.counts[1]) if self.restarts > 1 else 0

    @property
    def all_unique(self) -> bool:
        """Whether no token occurs in two restarts."""
        return self.once == self.total


def coverage(incidence: Incidence) -> float:
    """The estimated share of all token incidences that belongs to tokens already seen.

    Assumptions: restarts are independent and alike. Formula (Good and Turing's estimator for incidences): C = 1 -
    (Q_1/U) (m - 1) Q_1 / ((m - 1) Q_1 + 2 Q_2), and with Q_2 = 0, 1 - (Q_1/U) (m - 1)(Q_1 - 1) / ((m - 1)(Q_1 - 1) +
    2). Where every token occurs in one restart only, this is barely above 0 (Good's simpler 1 - Q_1/U is 0) and has
    no interval. References: Chao & Jost 2012, Ecology 93:2533; Chao et al. 2014, Ecol. Monogr. 84:45, table 2.

    Returns:
        A share, or NaN below two restarts.

    Example:
        >>> coverage(Incidence(np.array([4, 3, 0])))  # m = 3, U = 10
        0.7714285714285714
    """
    return float(coverages(incidence.counts[None])[0])


def richness(incidence: Incidence) -> Estimate:
    """Chao2: a lower bound of the number of different tokens that endless restarts would give.

    Assumptions: restarts are independent and alike; tokens may differ in frequency. Formula: S_obs + A Q_1²/(2 Q_2)
    with A = (m - 1)/m, and S_obs + A Q_1 (Q_1 - 1)/2 (bias-corrected) where Q_2 = 0. Variance: with r = Q_1/Q_2, Q_2
    (A r²/2 + A² r³ + A² r⁴/4); where Q_2 = 0, A Q_1 (Q_1 - 1)/2 + A² Q_1 (2 Q_1 - 1)²/4 - A² Q_1⁴/(4 Chao2). The
    interval takes the number of unseen tokens T = Chao2 - S_obs as log-normal: S_obs + T/K to S_obs + T K, K = exp(z
    √log(1 + var/T²)). It is not estimable where every token occurs in one restart only (Chao2 then grows with the
    square of what was drawn, and says nothing) nor where T = 0. References: Chao 1987, Biometrics 43:783; Chao 1984,
    Scand. J. Statist. 11:265; Colwell 2013, EstimateS 9, appendix B.

    Example:
        >>> found = richness(Incidence(np.array([4, 3, 0])))
        >>> round(found.value, 4), found.low > 7
        (8.7778, True)
    """
    seen, once = incidence.unique, incidence.once
    value = chao2(incidence)
    if incidence.restarts < 2:
        return not_estimable(value, "fewer than 2 restarts")
    if incidence.all_unique:
        return not_estimable(value, ALL_UNIQUE)
    if value == seen:
        return not_estimable(value, f"{once} tokens in one restart only leave no sign of unseen ones")
    spread = exp(
        float(stats.norm.ppf((1 + LEVEL) / 2)) * sqrt(log1p(richness_variance(incidence) / (value - seen) ** 2))
    )
    return Estimate(value, seen + (value - seen) / spread, seen + (value - seen) * spread, OK)


def chao2(incidence: Incidence) -> float:
    """The value of `richness` alone; NaN below two restarts."""
    return float(chao2s(incidence.counts[None])[0])


def richness_variance(incidence: Incidence) -> float:
    """The variance of Chao2; see `richness`."""
    once, twice, small = incidence.once, incidence.twice, (incidence.restarts - 1) / incidence.restarts
    if twice:
        ratio = once / twice
        return twice * (small * ratio**2 / 2 + small**2 * ratio**3 + small**2 * ratio**4 / 4)
    first = small * once * (once - 1) / 2 + small**2 * once * (2 * once - 1) ** 2 / 4
    return first - small**2 * once**4 / (4 * chao2(incidence))


def rarefaction(incidence: Incidence) -> Float[ndarray, " restarts"]:
    """The expected number of different tokens in h of the m restarts, h = 1 ... m (Mao Tau).

    Assumptions: none; it is the exact mean over all subsets of h restarts. Formula: S(h) = S_obs - Σ_k Q_k C(m - k,
    h)/C(m, h). Reference: Colwell, Mao & Chang 2004, Ecology 85:2717, equation 5.

    Example:
        >>> rarefaction(Incidence(np.array([2, 1]))).tolist()  # {1, 2} and {1, 3}: two each, three together
        [2.0, 3.0]
    """
    return rarefactions(incidence.counts[None])[0]


@lru_cache(maxsize=16)
def _missed(m: int) -> Float[ndarray, "m m"]:
    """C(m - k, h)/C(m, h) for k (rows) and h (columns) from 1 to m, as a product: no factorial overflows."""
    # C(m - k, h)/C(m, h) is the chance that a token of k restarts is in none of h drawn ones: drawing one by one, the
    # factor of draw s is (m - k - s)/(m - s), the restarts left that miss it over those left
    k, step = np.arange(1, m + 1)[:, None], np.arange(m)
    return np.cumprod(np.maximum(m - k - step, 0) / (m - step), axis=1)


def incidence_counts(ids: Int[Tensor, "draws restarts tokens"]) -> Int[ndarray, "draws restarts"]:
    """Q_1 ... Q_m of many draws of restarts at once."""
    # a token counts once per restart: in the sorted row only the first of equal neighbours is counted
    ordered = np.sort(ids.numpy(), axis=2)
    first = np.ones(ordered.shape, dtype=bool)
    first[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    draws, restarts = ordered.shape[:2]
    draw, frequency = frequencies(ordered, first)
    cells = np.bincount(draw * (restarts + 1) + frequency, minlength=draws * (restarts + 1))
    return cells.reshape(draws, restarts + 1)[:, 1:]


def frequencies(
    ids: Int[ndarray, "draws restarts tokens"], counted: Bool[ndarray, "draws restarts tokens"]
) -> tuple[Int[ndarray, " distinct"], Int[ndarray, " distinct"]]:
    """How often each token of each draw occurs among the entries that count: the draw, and the frequency."""
    # one number names a (draw, token) pair, so that one call of `unique` counts all draws
    values, width = ids - ids.min(), int(ids.max() - ids.min()) + 1
    keys = np.arange(len(ids))[:, None, None] * width + values
    distinct, frequency = np.unique(keys[counted], return_counts=True)
    return distinct // width, frequency


def coverages(counts: Int[ndarray, "draws restarts"]) -> Float[ndarray, " draws"]:
    """`coverage` of many draws at once."""
    m = counts.shape[1]
    if m < 2:
        return np.full(len(counts), nan)
    counts = counts.astype(np.float64)  # squares of counts overflow narrower integers
    once, twice, total = counts[:, 0], counts[:, 1], counts @ np.arange(1, m + 1)
    # `unseen` is m times Chao2's number of unseen tokens over Q_1: with it the last factor of the formula,
    # (m - 1) Q_1/((m - 1) Q_1 + 2 Q_2), is unseen/(unseen + 1), in both cases of Q_2
    unseen = np.where(twice > 0, (m - 1) * once / (2 * np.maximum(twice, 1)), (m - 1) * np.maximum(once - 1, 0) / 2)
    return np.where(once > 0, 1 - once / total * unseen / (unseen + 1), 1.0)


def chao2s(counts: Int[ndarray, "draws restarts"]) -> Float[ndarray, " draws"]:
    """The value of `richness` of many draws at once."""
    m = counts.shape[1]
    if m < 2:
        return np.full(len(counts), nan)
    counts = counts.astype(np.float64)  # squares of counts overflow narrower integers
    once, twice = counts[:, 0], counts[:, 1]
    unseen = np.where(twice > 0, once * once / (2 * np.maximum(twice, 1)), once * (once - 1) / 2)
    return counts.sum(axis=1) + (m - 1) / m * unseen


def rarefactions(counts: Int[ndarray, "draws restarts"]) -> Float[ndarray, "draws restarts"]:
    """`rarefaction` of many draws at once."""
    return counts @ (1 - _missed(counts.shape[1]))
