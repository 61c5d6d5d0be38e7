"""What the t-tests assume, checked per unit, with a note in words where it is doubtful."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy import stats

from actmax.stats._inputs import Block, Readable, check_level, check_samples, normalize
from actmax.stats._logspace import t_two_sided
from actmax.stats.corrections import correct
from actmax.stats.ttests import group_moments, student

SHAPIRO_SIZES = (3, 5000)
"""Group sizes for which Royston's approximation of Shapiro-Wilk's p is meant."""
MUCH_SKEW = 2.0
"""Absolute skewness from which a mean of some thirty samples is visibly not normal."""
LARGE_GROUP = 30
"""From this group size on, the central limit theorem covers mild non-normality."""
UNEVEN = 1.5
"""Ratio of group sizes from which unequal variances distort Student's t."""
NO_DOUBT = "nothing speaks against it"
"""Note of a unit whose checks found nothing."""
NOT_CHECKED = f"{NO_DOUBT}, but normality was not checked: Shapiro-Wilk's p is meant for at most 5000 samples"
"""The same where the groups are too large to be checked for normality."""
ROUNDING = 4 * np.finfo(np.float64).eps
"""Largest difference of two distances that rounding alone may leave, where the largest value lies in [1/2, 1)."""


@dataclass(frozen=True)
class Assumptions:
    """Whether what Student's t assumes holds, a row per unit."""

    table: pd.DataFrame
    """`skewness_0 skewness_1 kurtosis_0 kurtosis_1 shapiro_p_0 shapiro_p_1 shapiro_p_0_holm shapiro_p_1_holm
    variance_ratio brown_forsythe_p student_doubtful note`: variance ratio is group 1's over group 0's, kurtosis is in
    excess of the normal's, the Holm family is both groups of every unit, and `note` says in words when and why
    Student's t is doubtful."""
    alpha: float
    """Level of the checks."""


def assumptions(activations: Readable, labels: Readable, *, alpha: float | int = 0.05) -> Assumptions:
    """Checks what Student's t assumes: normal groups with one variance.

    Null hypotheses: each group is normal (Shapiro-Wilk); the groups' spreads about their medians are equal
    (Brown-Forsythe). Assumptions: independent samples. Formulas: skewness m_3/m_2^(3/2), excess kurtosis m_4/m_2² - 3;
    W of Royston 1995, Applied Statistics 44:547; Brown-Forsythe is Student's t² on |x - median of its group|.
    References: Shapiro & Wilk 1965, Biometrika 52:591; Brown & Forsythe 1974, JASA 69:364; Holm 1979, Scand. J.
    Statist. 6:65. An assumption that is not rejected is not thereby true: small groups cannot reject much, large ones
    reject what is harmless.

    Args:
        activations: (samples, units) or (samples,), any float dtype.
        labels: 0 or 1 per sample.
        alpha: level of the checks.

    Example:
        >>> assumptions([0.0, 1.0, 2.0, 1.0, 2.0, 3.0], [0, 0, 0, 1, 1, 1]).table.loc[0, "note"]
        'nothing speaks against it'
    """
    alpha, samples = check_level("alpha", alpha), check_samples(activations, labels)
    with np.errstate(all="ignore"):
        parts = [_checks(block) for block in samples.blocks()]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    units = len(columns["variance_ratio"])
    holm = correct(np.concatenate([columns["shapiro_p_0"], columns["shapiro_p_1"]]), "holm")
    columns |= {"shapiro_p_0_holm": holm[:units], "shapiro_p_1_holm": holm[units:]}
    n_1 = int(samples.is_1.sum())
    reasons = _reasons(columns, len(samples.is_1) - n_1, n_1, alpha)
    known = np.isfinite(columns["variance_ratio"])
    no_doubt = NO_DOUBT if max(n_1, len(samples.is_1) - n_1) <= SHAPIRO_SIZES[1] else NOT_CHECKED
    note, doubtful = _in_words(reasons, known, no_doubt)
    names = ["skewness_0", "skewness_1", "kurtosis_0", "kurtosis_1", "shapiro_p_0", "shapiro_p_1", "shapiro_p_0_holm"]
    names += ["shapiro_p_1_holm", "variance_ratio", "brown_forsythe_p"]
    table = pd.DataFrame({name: columns[name] for name in names} | {"student_doubtful": doubtful, "note": note})
    return Assumptions(table.set_axis(samples.units, axis=0), alpha)


def _checks(block: Block) -> dict[str, Float[ndarray, " units"]]:
    """Moments and p-values of a block of units."""
    columns: dict[str, ndarray] = {}
    m_0, m_1 = group_moments(block, ~block.is_1), group_moments(block, block.is_1)
    for group, chosen, moments in ((0, ~block.is_1, m_0), (1, block.is_1, m_1)):
        scaled = block.scaled[:, chosen]
        # About the group's own mean: a group's small spread survives however far the other group lies.
        own, _ = normalize(scaled - scaled.mean(axis=1, keepdims=True))
        own = np.where(block.finite[:, None], own, np.nan)
        varied = moments.root_ss > 0
        columns[f"skewness_{group}"] = np.where(varied, _standard_moment(own, 3), np.nan)
        columns[f"kurtosis_{group}"] = np.where(varied, _standard_moment(own, 4) - 3, np.nan)
        columns[f"shapiro_p_{group}"] = _shapiro(own, varied & block.finite)
    ratio = (m_1.root_ss / m_0.root_ss) ** 2 * ((m_0.n - 1) / max(m_1.n - 1, 1))
    usable = block.finite & (m_0.root_ss > 0) & (m_1.root_ss > 0)
    return columns | {"variance_ratio": np.where(usable, ratio, np.nan), "brown_forsythe_p": _brown_forsythe(block)}


def _standard_moment(x: Float[ndarray, "units samples"], order: int) -> Float[ndarray, " units"]:
    """m_k / m_2^(k/2) of each row, of deviations divided by their largest so that no power underflows."""
    deviation = x - x.mean(axis=1, keepdims=True)
    largest = np.abs(deviation).max(axis=1, keepdims=True)
    deviation = deviation / largest
    return (deviation**order).mean(axis=1) / (deviation**2).mean(axis=1) ** (order / 2)


def _shapiro(x: Float[ndarray, "units samples"], usable: Bool[ndarray, " units"]) -> Float[ndarray, " units"]:
    """Shapiro-Wilk p per row; NaN in constant rows and for group sizes outside `SHAPIRO_SIZES`."""
    p = np.full(len(x), np.nan)
    if SHAPIRO_SIZES[0] <= x.shape[1] <= SHAPIRO_SIZES[1]:
        for row in np.flatnonzero(usable & (np.ptp(x, axis=1) > 0)):
            p[row] = stats.shapiro(x[row]).pvalue
    return p


def _brown_forsythe(block: Block) -> Float[ndarray, " units"]:
    """Brown and Forsythe's p: for two groups their F is t² of Student's t on distances from the group's median."""
    n_0, n_1 = block.n_0, block.n_1
    if min(n_0, n_1) < 2:
        return np.full(len(block.raw), np.nan)
    x_0, x_1 = block.scaled[:, ~block.is_1], block.scaled[:, block.is_1]
    away = np.empty_like(block.scaled)
    away[:, ~block.is_1] = np.abs(x_0 - np.median(x_0, axis=1, keepdims=True))
    away[:, block.is_1] = np.abs(x_1 - np.median(x_1, axis=1, keepdims=True))
    for chosen in (~block.is_1, block.is_1):
        # Two samples lie equally far from their median: what rounding leaves between them is no spread.
        own = away[:, chosen]
        away[:, chosen] = np.where(np.ptp(own, axis=1, keepdims=True) <= ROUNDING, own[:, :1], own)
    spread = Block(away, away, away, *(getattr(block, name) for name in _KEPT))
    m_0, m_1 = group_moments(spread, ~block.is_1), group_moments(spread, block.is_1)
    t = np.where(block.finite, student(m_1.mean - m_0.mean, m_0, m_1), np.nan)
    return t_two_sided(t, np.full(len(t), float(n_0 + n_1 - 2))).p


_KEPT = ("exponent", "spread_exponent", "centre", "finite", "is_1", "eps")
"""Fields of a block that its distances from the medians share with it."""


def _reasons(
    columns: dict[str, Float[ndarray, " units"]], n_0: int, n_1: int, alpha: float
) -> dict[str, Bool[ndarray, " units"]]:
    """Why Student's t is doubtful, by unit, in words that say what to use instead."""
    # Unequal variances hurt Student's t in groups of unequal size, skewness in any that a mean of 30 cannot heal.
    uneven = max(n_0, n_1) / min(n_0, n_1) >= UNEVEN
    spread = columns["brown_forsythe_p"] < alpha
    normal = (columns["shapiro_p_0_holm"] >= alpha) & (columns["shapiro_p_1_holm"] >= alpha)
    known = np.isfinite(columns["shapiro_p_0_holm"]) & np.isfinite(columns["shapiro_p_1_holm"])
    not_normal = known & ~normal
    skewed = np.fmax(np.abs(columns["skewness_0"]), np.abs(columns["skewness_1"])) >= MUCH_SKEW
    few = np.full_like(known, min(n_0, n_1) < SHAPIRO_SIZES[0])
    small = min(n_0, n_1) < LARGE_GROUP
    sizes = "and the groups differ in size: trust Welch" if uneven else "so Welch is the safer choice"
    return {
        f"the variances differ, {sizes}": spread,
        "a group is strongly skewed: compare with Mann-Whitney": not_normal & skewed,
        "a group is not normal and the groups are small: compare with Mann-Whitney": not_normal
        & ~skewed
        & np.full_like(not_normal, small),
        "a group has fewer than 3 samples, too few to check: Student's t rests on normality alone": few,
    }


def _in_words(
    reasons: dict[str, Bool[ndarray, " units"]], known: Bool[ndarray, " units"], no_doubt: str
) -> tuple[ndarray, Bool[ndarray, " units"]]:
    """The reasons joined, and whether there is any."""
    doubtful = np.any(list(reasons.values()), axis=0) | ~known
    notes = []
    for unit, sure in enumerate(known):
        own = [reason for reason, holds in reasons.items() if holds[unit]]
        own = own if sure else ["a group has no variance or the unit is not finite: there is nothing to check", *own]
        notes.append("; ".join(own) or no_doubt)
    return np.array(notes, dtype=object), doubtful
