"""The verdict on one unit: a rule declared before the numbers are seen, and the share of each verdict over units."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy import ndarray
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from actmax.evidence.estimates import LEVEL, OK
from actmax.evidence.nulls import Null
from actmax.evidence.own import Own, OwnTest

PRIMARY = {"tokens": "jaccard", "embeddings": "displacement_cosine_assigned"}
"""The one statistic of each space on which the verdict rests."""
TOKENS, EMBEDDINGS = "converges in tokens", "converges in embedding space only"
NOT_OWN, CHANCE = "above chance, not this unit's own", "not above chance"
VERDICTS = (TOKENS, EMBEDDINGS, NOT_OWN, CHANCE)
"""What can be said of a unit, strongest first."""
NONE = "not available"
"""Where there is nothing to judge: one restart, or a null with too few draws to reach α."""


@dataclass(frozen=True)
class Verdict:
    """What may be said of one unit, and why."""

    label: str
    """One of `VERDICTS`, or `not available`."""
    reason: str
    """Which tests it rests on, in words."""
    p_tokens: float
    """Above chance in token space: p of the primary statistic, by Holm over the two spaces."""
    p_embeddings: float
    """Above chance in embedding space, likewise."""
    own_tokens: float
    """This unit's own in token space: p by Holm over the two spaces, then BH over units; NaN where not available."""
    own_embeddings: float
    """This unit's own in embedding space, likewise."""
    own: str
    """Whether the second question could be asked: `ok`, or `not available: ` and the reason."""


def decide(tokens: Sequence[Null], embeddings: Sequence[Null], own: Own, *, alpha: float = 0.05) -> tuple[Verdict, ...]:
    """The declared rule, for the units of one job or sweep.

    One primary statistic per space: the mean pairwise Jaccard of token sets, and the mean assigned cosine of
    displacements. Question 1, above chance: a space is above chance where its p against random displacements is at
    most α, by Holm over the two spaces, so that a unit with nothing there is called above chance in either with
    probability at most α. Question 2, this unit's own: likewise by Holm over the two spaces, then by BH over units,
    so that of the units called their own at most a share α is expected not to be. A space converges where both
    answers are yes; where question 2 is not available (one unit, or too few seeds to reach α), where the first is
    yes. Then

    - `converges in tokens`: token space converges;
    - `converges in embedding space only`: embedding space converges, token space does not;
    - `above chance, not this unit's own`: some space is above chance, none converges;
    - `not above chance`: no space is above chance.

    Assumptions: those of `agree` and `own_agreement`. Question 1 is not corrected over units: over many units with
    nothing there, expect up to a share α above chance. References: Holm 1979, Scand. J. Statist. 6:65; Benjamini &
    Hochberg 1995, JRSS B 57:289.

    Args:
        tokens: the null of each unit's mean pairwise Jaccard.
        embeddings: the null of its mean assigned displacement cosine.
        own: of the same units in the same order, or of one unit (not available).
        alpha: level of both questions.

    Raises:
        ValueError: the numbers of units differ.

    Example:
        >>> from actmax.evidence import Own
        >>> jaccard = Null(0.0, 0.0, 0.0, 0.0, 1.0, 99, "greater")
        >>> cosine = Null(0.8, 0.1, 0.0, 0.2, 0.01, 99, "greater")
        >>> decide([jaccard], [cosine], Own("not available: one unit"))[0].label
        'converges in embedding space only'
    """
    available = _availability(own, alpha)
    asked = [own.tokens, own.embeddings] if available == OK else []
    if len(tokens) != len(embeddings) or any(test is not None and len(test.p) != len(tokens) for test in asked):
        raise ValueError("the nulls of both spaces and the test of units must name the same units")
    above = _holm(np.array([[t.p, e.p] for t, e in zip(tokens, embeddings, strict=True)]))
    theirs = _own(own.tokens, own.embeddings) if available == OK else np.full_like(above, nan)
    draws = [min(_draws(t), _draws(e)) for t, e in zip(tokens, embeddings, strict=True)]
    rows = zip(above.tolist(), theirs.tolist(), draws, strict=True)
    return tuple(_judge(p, q, available, enough=2 / (count + 1) <= alpha, alpha=alpha) for p, q, count in rows)


def _draws(null: Null) -> float:
    return float(null.draws) if null.draws > 0 else np.inf  # 0 stands for an exact null


def _availability(own: Own, alpha: float) -> str:
    """Whether question 2 could be answered yes at all.

    One unit of its own has p ≥ units^-seeds, and needs 2 units p ≤ α; if all are, p ≥ units^(1 - seeds) and 2 p ≤ α.
    It is the same condition, and a test that cannot say yes may not say no.
    """
    if own.status != OK or 2 * own.smallest_p <= alpha:
        return own.status
    return f"not available: {own.units} units x {own.seeds} seeds cannot reach p ≤ {alpha:g}"


def _own(tokens: OwnTest | None, embeddings: OwnTest | None) -> ndarray:
    """The p of question 2, units x spaces: Holm over the spaces of each unit, then BH over units in each space."""
    if tokens is None or embeddings is None:
        raise ValueError("a test of units whose status is ok must hold both spaces")
    holm = _holm(np.stack([tokens.p, embeddings.p], axis=1))
    return np.asarray(stats.false_discovery_control(holm, axis=0, method="bh"))


def _holm(p: Float[ndarray, "units spaces"]) -> Float[ndarray, "units spaces"]:
    """Holm's correction over the two spaces of each unit: twice the smaller p, and no less for the larger."""
    return np.minimum(np.maximum(2 * p.min(axis=1, keepdims=True), p), 1.0)


def _judge(p: Sequence[float], q: Sequence[float], own: str, *, enough: bool, alpha: float) -> Verdict:
    """The rule, for one unit: p of question 1 and q of question 2, tokens first."""
    if not (enough and np.isfinite(p).all()):
        reason = "one restart has no pairs" if enough else f"too few draws to reach p ≤ {alpha:g}"
        return Verdict(NONE, reason, p[0], p[1], q[0], q[1], own)
    above = np.array(p) <= alpha
    converges = above & (np.array(q) <= alpha if own == OK else True)
    label = TOKENS if converges[0] else EMBEDDINGS if converges[1] else NOT_OWN if above.any() else CHANCE
    return Verdict(label, f"{_above(p, above)}; {_theirs(q, above, own)}", p[0], p[1], q[0], q[1], own)


def _above(p: Sequence[float], above: ndarray) -> str:
    found = " and ".join(name for name, yes in zip(PRIMARY, above, strict=True) if yes)
    return f"above chance in {found or 'neither space'} (tokens p = {p[0]:.2g}, embeddings p = {p[1]:.2g}, Holm)"


def _theirs(q: Sequence[float], above: ndarray, own: str) -> str:
    if not above.any():
        return "so whether it is this unit's own does not arise"
    if own != OK:
        return f"whether it is this unit's own: {own}"
    return f"this unit's own: tokens p = {q[0]:.2g}, embeddings p = {q[1]:.2g} (Holm, then BH over units)"


def shares(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """The share of each verdict over units, with its interval.

    Units without a verdict (`not available`) are left out. The interval is Wilson's, which is never of width zero and
    keeps its level at shares near 0 and 1. It takes units as independent draws; units that share seeds are not quite,
    so read it as a least width. Reference: Wilson 1927, JASA 22:209.

    Returns:
        A row per verdict of `VERDICTS`: `verdict count units share low high`; the last three are NaN where no unit
        has a verdict.

    Example:
        >>> one = Verdict("not above chance", "", 1.0, 1.0, 1.0, 1.0, "ok")
        >>> print(shares([one] * 10).round(2).iloc[3].to_dict())
        {'verdict': 'not above chance', 'count': 10, 'units': 10, 'share': 1.0, 'low': 0.72, 'high': 1.0}
    """
    counts = Counter(verdict.label for verdict in verdicts)
    units = sum(counts[label] for label in VERDICTS)
    return pd.DataFrame(
        [{"verdict": label, "count": counts[label], **_share(counts[label], units)} for label in VERDICTS]
    )


def _share(count: int, units: int) -> dict[str, float | int]:
    if units == 0:
        return {"units": 0, "share": nan, "low": nan, "high": nan}
    low, high = np.asarray(proportion_confint(count, units, alpha=1 - LEVEL, method="wilson"), dtype=np.float64)
    return {"units": units, "share": count / units, "low": float(low), "high": float(high)}
