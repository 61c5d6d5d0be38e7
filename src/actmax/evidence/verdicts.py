"""The verdict on one unit: a rule declared before the numbers are seen, and the share of each verdict over units."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import nan
from typing import Any

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from actmax.evidence.agreement import Agreement
from actmax.evidence.estimates import LEVEL
from actmax.evidence.nulls import Null, against
from actmax.evidence.own import Own
from actmax.evidence.readings import VERDICTS, DecisionStatus, OwnStatus, Verdict
from actmax.evidence.settings import ALPHA, RANDOM_MOVES, claim_alpha

PRIMARY = {"tokens": "shared_tokens", "embeddings": "direction"}
"""The one statistic of each space on which the verdict rests."""
SAME, PARTLY_SAME = 0.5, 0.1
"""Lower limits of the chance-corrected agreement from which on answers are called the same, and partly the same."""


@dataclass(frozen=True)
class Agreed:
    """What the rule needs of how far a unit's restarts agree."""

    p: float
    """p of the share of tokens in common; NaN for one restart."""
    smallest_p: float
    """The smallest p that the number of draws can give."""
    kappa_tokens_low: float
    """Lower limit of κ in tokens; NaN where it has no interval."""
    kappa_embeddings_low: float
    """Lower limit of κ in embeddings; NaN where it has no interval."""

    @classmethod
    def of(cls, agreement: Agreement) -> Agreed:
        """What the rule needs of an agreement."""
        null, kappa = agreement.nulls[PRIMARY["tokens"]], agreement.kappa
        return cls(null.p, null.smallest_p, kappa["tokens"].low, kappa["embeddings"].low)

    @classmethod
    def of_row(cls, row: Mapping[Any, Any]) -> Agreed:
        """The same from a unit's row of `units.parquet`."""
        smallest = 1 / (float(row["null_shared_tokens_draws"]) + 1)
        return cls(row["null_shared_tokens_p"], smallest, row["kappa_tokens_low"], row["kappa_embeddings_low"])


@dataclass(frozen=True)
class Decision:
    """The verdict on one unit, and the numbers that decided it."""

    verdict: Verdict
    """What may be said of the unit."""
    verdict_tokens: Verdict
    """What may be said of its tokens, which decide the headline."""
    verdict_embeddings: Verdict
    """What may be said of its moves in embedding space."""
    status: DecisionStatus
    """Whether the tokens could be judged, or why not."""
    alpha: float
    """Level of one claim: of shared tokens, and of the direction of moves beside other units."""
    own_alpha: float
    """Level at which shared tokens are called the unit's own: BH over the units whose tokens are above chance."""
    own: OwnStatus = OwnStatus.ONE_UNIT
    """Whether the unit was set against other units, or why not."""
    own_units: int = 1
    """Number of units that were set against each other."""
    own_seeds: int = 0
    """Number of seeds that these units share."""
    own_tokens: Null | None = None
    """Shared tokens within the unit beside those of any units' rows; None where that was not tested."""
    direction: Null | None = None
    """Direction of moves within the unit beside that of any units' rows; None where that was not tested."""

    def flat(self) -> dict[str, Any]:
        """The columns of `units.parquet` that say the verdict and why."""
        missing = against(nan, [], alternative="greater")
        own, direction = self.own_tokens or missing, self.direction or missing
        return {
            "verdict": self.verdict.value,
            "answer": self.verdict.answer.value,
            "verdict_tokens": self.verdict_tokens.value,
            "verdict_embeddings": self.verdict_embeddings.value,
            "verdict_status": self.status.value,
            "own": self.own.value,
            "own_units": self.own_units,
            "own_seeds": self.own_seeds,
            "own_tokens": own.observed,
            **own.claim_columns("own_tokens", self.own_alpha),
            **direction.claim_columns("direction", self.alpha),
            **({} if self.direction is None else {"direction": direction.observed}),
        }


def decide(
    agreed: Sequence[Agreed],
    own: Own,
    *,
    kind: str = RANDOM_MOVES,
    judged: Sequence[int] | None = None,
    alpha: float | int = ALPHA,
) -> tuple[Decision, ...]:
    """The declared rule, for the units of one job or sweep.

    Each claim on a unit is made at α over the number of claims (`CLAIMS`, Bonferroni): a unit with nothing to find has
    any false claim with probability at most α. *Tokens* are detected where two restarts have more of them in common
    than by chance (`displace`, of a search `redraw`), at the level of a claim; they are the unit's own where they also
    have more in common than with other units' restarts (`own_agreement`), at that level by BH over the units whose
    tokens are detected. *Moves* are detected, and by the same test the unit's own, where their direction is more in
    common within the unit than with other units. κ, with the lower limit L of its 95 % interval, says how much is the
    same (`kappa`). For each space

    - `reproducible`: detected, the unit's own, L ≥ 0.5; `partly_reproducible`: L ≥ 0.1;
    - `detectable_not_the_same_answer`: detected and the unit's own;
    - `shared_with_other_units`: tokens: detected, not the unit's own; moves: not detected, but L ≥ 0.1;
    - `not_above_chance`: none of these;
    - `not_judged`: what decides was not tested. Nothing that was not tested counts as yes.

    `_together` makes the unit's verdict of the two. Detection is not corrected over units: of many with nothing there,
    expect up to a share α with a claim. References: Benjamini & Hochberg 1995, JRSS B 57:289; Cohen 1960, Educ.
    Psychol. Meas. 20:37.

    Args:
        agreed: how far the restarts of each unit agree.
        own: the test of the same units in the same order, or of one unit (not available).
        kind: what restarts would end at by chance.
        judged: numbers of the units that count in the correction over units; None for all (control units do not).
        alpha: level of all claims on a unit together.

    Raises:
        InputError: alpha is no probability strictly between 0 and 1.
        ValueError: the numbers of units differ.
    """
    tests = [test for test in (own.tokens, own.embeddings) if test is not None]
    if any(len(test.nulls) != len(agreed) for test in tests):
        raise ValueError("the agreement and the test of units must name the same units")
    level = claim_alpha(kind, alpha)
    available = own.status if own.status != OwnStatus.OK or own.smallest_p <= level else OwnStatus.OUT_OF_REACH
    tested = available == OwnStatus.OK
    asked = [unit for unit in (range(len(agreed)) if judged is None else judged) if agreed[unit].p <= level]
    shared, moves = (test.nulls if test and tested else (None,) * len(agreed) for test in (own.tokens, own.embeddings))
    levels = level, bh_level([null.p for unit in asked if (null := shared[unit]) is not None], level)
    set_beside = replace(own, status=available)
    return tuple(_decision(*one, levels, set_beside) for one in zip(agreed, shared, moves, strict=True))


def _decision(
    one: Agreed, shared: Null | None, direction: Null | None, levels: tuple[float, float], own: Own
) -> Decision:
    """The rule for one unit, at the levels of a claim and of a unit's own tokens."""
    level, own_level = levels
    options = {"level": level, "own": shared, "own_level": own_level, "kappa_low": one.kappa_tokens_low}
    in_tokens, status = judge_shared(one.p, one.smallest_p, **options)
    in_embeddings = _judge_moves(one, level, direction)
    return Decision(
        verdict=_together(in_tokens, in_embeddings),
        verdict_tokens=in_tokens,
        verdict_embeddings=in_embeddings,
        status=status,
        alpha=level,
        own_alpha=own_level,
        own=own.status,
        own_units=own.units,
        own_seeds=own.seeds,
        own_tokens=shared if one.p <= level else None,
        direction=direction,
    )


def bh_level(p: Sequence[float], alpha: float) -> float:
    """The level at which BH rejects: α k/m for the k of m that it rejects, α/m where it rejects none; without NaN."""
    ordered = sorted(one for one in p if np.isfinite(one))
    count = len(ordered)
    rejected = [rank for rank, one in enumerate(ordered, start=1) if one <= alpha * rank / count]
    return alpha * max(rejected, default=1) / max(count, 1)


def judge_shared(
    p: float, smallest_p: float, *, level: float, own: Null | None, own_level: float, kappa_low: float
) -> tuple[Verdict, DecisionStatus]:
    """The rule for one unit in a space where restarts are first set beside chance, then beside other units.

    Args:
        p: p beside chance; NaN where it was not tested.
        smallest_p: the smallest p that the draws can give; 1 where there are none, for all restarts went non-finite.
        level: level of that claim.
        own: what was found beside other units; None where that was not tested.
        own_level: level of that claim.
        kappa_low: lower limit of κ.
    """
    if not np.isfinite(p):
        return Verdict.NOT_JUDGED, DecisionStatus.NON_FINITE if smallest_p >= 1 else DecisionStatus.ONE_RESTART
    if smallest_p > level:
        return Verdict.NOT_JUDGED, DecisionStatus.TOO_FEW_DRAWS
    if p > level:
        return Verdict.CHANCE, DecisionStatus.OK
    if own is None or not own.exists:
        return Verdict.NOT_JUDGED, DecisionStatus.OTHER_UNITS_NOT_TESTED
    return _how_same(kappa_low) if own.p <= own_level else Verdict.SHARED, DecisionStatus.OK


def _judge_moves(one: Agreed, level: float, direction: Null | None) -> Verdict:
    if direction is None or np.isnan(direction.p):
        return Verdict.NOT_JUDGED
    if direction.p <= level:
        return _how_same(one.kappa_embeddings_low)
    return Verdict.SHARED if one.kappa_embeddings_low >= PARTLY_SAME else Verdict.CHANCE


def _how_same(low: float) -> Verdict:
    if low >= SAME:
        return Verdict.REPRODUCIBLE
    return Verdict.PARTLY if low >= PARTLY_SAME else Verdict.DETECTABLE


def _together(tokens: Verdict, embeddings: Verdict) -> Verdict:
    """The unit's verdict: tokens decide whether the answer is the same, moves can only add that something is there.

    It is that of its tokens where they are reproducible, partly reproducible or not judged. Else it is
    `detectable_not_the_same_answer` where tokens or moves are the unit's own in any degree, `shared_with_other_units`
    where either is shared, and `not_above_chance`.
    """
    own = {Verdict.REPRODUCIBLE, Verdict.PARTLY, Verdict.DETECTABLE}
    if tokens in (Verdict.REPRODUCIBLE, Verdict.PARTLY, Verdict.NOT_JUDGED):
        return tokens
    if tokens in own or embeddings in own:
        return Verdict.DETECTABLE
    return Verdict.SHARED if Verdict.SHARED in (tokens, embeddings) else Verdict.CHANCE


def shares(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """The share of each verdict over units, with its interval.

    Units without a verdict (`not_judged`) are left out. The interval is Wilson's, which is never of width zero and
    keeps its level at shares near 0 and 1. It takes units as independent draws; units that share seeds are not quite,
    so read it as a least width. Reference: Wilson 1927, JASA 22:209.

    Returns:
        A row per verdict of `VERDICTS`: `verdict count units share low high`; the last three are NaN where no unit
        has a verdict.

    Example:
        >>> print(shares([Verdict.CHANCE] * 10).round(2).iloc[4].to_dict())
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
