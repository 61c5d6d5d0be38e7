"""The verdict on one unit: a rule declared before the numbers are seen, and the share of each verdict over units."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
import pandas as pd
from numpy import ndarray
from statsmodels.stats.proportion import proportion_confint

from actmax.evidence.estimates import LEVEL
from actmax.evidence.nulls import Null
from actmax.evidence.own import Own, OwnTest
from actmax.evidence.readings import VERDICTS, DecisionStatus, OwnStatus, Verdict
from actmax.stats.corrections import benjamini_hochberg, holm

PRIMARY = {"tokens": "jaccard", "embeddings": "displacement_cosine_assigned"}
"""The one statistic of each space on which the verdict rests."""


@dataclass(frozen=True)
class Decision:
    """The verdict on one unit, and the numbers that decided it."""

    verdict: Verdict
    """What may be said of the unit."""
    status: DecisionStatus
    """Whether there was anything to judge, or why not."""
    alpha: float
    """Level of both questions."""
    p_tokens: float
    """p of the first question in token space (above chance?), by Holm over the two spaces."""
    p_embeddings: float
    """p of the first question in embedding space, by Holm over the two spaces."""
    own_p_tokens: float = nan
    """p of the second question in token space (its own?), by Holm, then BH over units; NaN where not available."""
    own_p_embeddings: float = nan
    """p of the second question in embedding space, by Holm, then BH over units; NaN where not available."""
    own: OwnStatus = OwnStatus.ONE_UNIT
    """Whether the second question could be asked, or why not."""
    own_units: int = 1
    """Number of units that were set against each other."""
    own_seeds: int = 0
    """Number of seeds that these units share."""
    own_draws: int = 0
    """Number of relabellings of the second question's null."""
    own_contrast_tokens: Null | None = None
    """Agreement within the unit minus that between units in token space; None where the question was not asked."""
    own_contrast_embeddings: Null | None = None
    """Agreement within the unit minus that between units in embedding space; None where the question was not asked."""

    def flat(self) -> dict[str, Any]:
        """The columns of `units.parquet` that say the verdict and why."""
        columns: dict[str, Any] = {
            "convergence": self.verdict.value,
            "convergence_status": self.status.value,
            "convergence_alpha": self.alpha,
            "convergence_p_tokens": self.p_tokens,
            "convergence_p_embeddings": self.p_embeddings,
            "own_p_tokens": self.own_p_tokens,
            "own_p_embeddings": self.own_p_embeddings,
            "own": self.own.value,
            "own_units": self.own_units,
            "own_seeds": self.own_seeds,
            "own_draws": self.own_draws,
        }
        for name in ("own_contrast_tokens", "own_contrast_embeddings"):
            null: Null | None = getattr(self, name)
            columns[name] = nan if null is None else null.observed
            columns |= {f"null_{name}_{part}": getattr(null, part, nan) for part in ("mean", "low", "high")}
        return columns


def decide(
    tokens: Sequence[Null], embeddings: Sequence[Null], own: Own, *, alpha: float = 0.05
) -> tuple[Decision, ...]:
    """The declared rule, for the units of one job or sweep.

    One primary statistic per space: the mean pairwise Jaccard of token sets, and the mean assigned cosine of
    displacements. Question 1, above chance: a space is above chance where its p against random displacements is at
    most α, by Holm over the two spaces, so that a unit with nothing there is called above chance in either with
    probability at most α. Question 2, this unit's own: likewise by Holm over the two spaces, then by BH over units,
    so that of the units called their own at most a share α is expected not to be. A space converges where both
    answers are yes; where question 2 is not available (one unit, or too few seeds to reach α), where the first is
    yes. Then

    - `converges_in_tokens`: token space converges;
    - `converges_in_embedding_space`: embedding space converges, token space does not;
    - `not_this_units_own`: some space is above chance, none converges;
    - `not_above_chance`: no space is above chance.

    Assumptions: those of `agree` and `own_agreement`. Question 1 is not corrected over units: over many units with
    nothing there, expect up to a share α above chance. References: Holm 1979, Scand. J. Statist. 6:65; Benjamini &
    Hochberg 1995, JRSS B 57:289.

    Args:
        tokens: the null of each unit's mean pairwise Jaccard.
        embeddings: the null of its mean assigned displacement cosine.
        own: the test of the same units in the same order, or of one unit (not available).
        alpha: level of both questions.

    Raises:
        ValueError: the numbers of units differ.

    Example:
        >>> from actmax.evidence.own import Own
        >>> jaccard = Null(0.0, 0.0, 0.0, 0.0, 1.0, 99, "greater")
        >>> cosine = Null(0.8, 0.1, 0.0, 0.2, 0.01, 99, "greater")
        >>> decide([jaccard], [cosine], Own(OwnStatus.ONE_UNIT))[0].verdict.value
        'converges_in_embedding_space'
    """
    tests = [test for test in (own.tokens, own.embeddings) if test is not None]
    if len(tokens) != len(embeddings) or any(len(test.nulls) != len(tokens) for test in tests):
        raise ValueError("the nulls of both spaces and the test of units must name the same units")
    available = _availability(own, alpha)
    # Holm over two spaces: twice the smaller p, and the larger as it is but no less than that
    above = holm(np.array([[t.p, e.p] for t, e in zip(tokens, embeddings, strict=True)]).reshape(-1, 2), axis=1)
    own_p = _own_p(own.tokens, own.embeddings) if available == OwnStatus.OK else np.full_like(above, nan)
    draws = [min(_draws(t), _draws(e)) for t, e in zip(tokens, embeddings, strict=True)]
    numbers = enumerate(zip(above, own_p, draws, strict=True))
    return tuple(_decision(unit, *each, own=own, available=available, alpha=alpha) for unit, each in numbers)


def _decision(
    unit: int, p: ndarray, own_p: ndarray, draws: float, *, own: Own, available: OwnStatus, alpha: float
) -> Decision:
    """The decision on one unit, from its p in both spaces of question 1 and of question 2."""
    verdict, status = _judge(p, own_p if available == OwnStatus.OK else None, draws, alpha)
    return Decision(
        verdict=verdict,
        status=status,
        alpha=alpha,
        p_tokens=float(p[0]),
        p_embeddings=float(p[1]),
        own_p_tokens=float(own_p[0]),
        own_p_embeddings=float(own_p[1]),
        own=available,
        own_units=own.units,
        own_seeds=own.seeds,
        own_draws=own.draws,
        own_contrast_tokens=own.tokens and own.tokens.nulls[unit],
        own_contrast_embeddings=own.embeddings and own.embeddings.nulls[unit],
    )


def _draws(null: Null) -> float:
    return float(null.draws) if null.draws > 0 else np.inf  # 0 stands for an exact null


def _availability(own: Own, alpha: float) -> OwnStatus:
    """Whether question 2 could be answered yes at all.

    One unit of its own has p ≥ units^-seeds, and needs 2 units p ≤ α; if all are, p ≥ units^(1 - seeds) and 2 p ≤ α.
    It is the same condition, and a test that cannot say yes may not say no.
    """
    return own.status if own.status != OwnStatus.OK or 2 * own.smallest_p <= alpha else OwnStatus.OUT_OF_REACH


def _own_p(tokens: OwnTest | None, embeddings: OwnTest | None) -> ndarray:
    """The p of question 2, units x spaces: Holm over the spaces of each unit, then BH over units in each space."""
    if tokens is None or embeddings is None:
        raise ValueError("a test of units whose status is ok must hold both spaces")
    return benjamini_hochberg(holm(np.stack([tokens.p, embeddings.p], axis=1), axis=1), axis=0)


def _judge(p: ndarray, own_p: ndarray | None, draws: float, alpha: float) -> tuple[Verdict, DecisionStatus]:
    """The rule, for one unit: p of question 1, and of question 2 where it is available; tokens first."""
    if 2 / (draws + 1) > alpha:  # the smaller p, doubled by Holm, cannot be less: no unit could be above chance
        return Verdict.NOT_AVAILABLE, DecisionStatus.TOO_FEW_DRAWS
    if not np.isfinite(p).all():
        return Verdict.NOT_AVAILABLE, DecisionStatus.ONE_RESTART
    above = p <= alpha
    in_tokens, in_embeddings = above if own_p is None else above & (own_p <= alpha)
    if in_tokens:
        return Verdict.TOKENS, DecisionStatus.OK
    if in_embeddings:
        return Verdict.EMBEDDINGS, DecisionStatus.OK
    return Verdict.NOT_OWN if above.any() else Verdict.CHANCE, DecisionStatus.OK


def shares(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """The share of each verdict over units, with its interval.

    Units without a verdict (`not_available`) are left out. The interval is Wilson's, which is never of width zero and
    keeps its level at shares near 0 and 1. It takes units as independent draws; units that share seeds are not quite,
    so read it as a least width. Reference: Wilson 1927, JASA 22:209.

    Returns:
        A row per verdict of `VERDICTS`: `verdict count units share low high`; the last three are NaN where no unit
        has a verdict.

    Example:
        >>> print(shares([Verdict.CHANCE] * 10).round(2).iloc[3].to_dict())
        {'verdict': 'not_above_chance', 'count': 10, 'units': 10, 'share': 1.0, 'low': 0.72, 'high': 1.0}
    """
    counts = Counter(verdicts)
    units = sum(counts[verdict] for verdict in VERDICTS)
    return pd.DataFrame(
        [{"verdict": verdict.value, "count": counts[verdict], **_share(counts[verdict], units)} for verdict in VERDICTS]
    )


def _share(count: int, units: int) -> dict[str, float | int]:
    if units == 0:
        return {"units": 0, "share": nan, "low": nan, "high": nan}
    low, high = np.asarray(proportion_confint(count, units, alpha=1 - LEVEL, method="wilson"), dtype=np.float64)
    return {"units": units, "share": count / units, "low": float(low), "high": float(high)}
