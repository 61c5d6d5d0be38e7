"""Whether restarts agree in what they are about: similarity of their texts beside chance, and beside other units.

A text is a vector (`actmax.text.embedders`), less the mean vector of random texts, at length 1. The restart is the
replicate, and pairs of one seed are never used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import comb, nan
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from numpy.typing import NDArray

from actmax.evidence.agreement import kappa
from actmax.evidence.estimates import Estimate, not_estimable
from actmax.evidence.nulls import Null, against
from actmax.evidence.own import EXACT, LEAST, Relabelled
from actmax.evidence.readings import DecisionStatus, MeaningStatus, OwnStatus, Verdict
from actmax.evidence.settings import ALPHA
from actmax.evidence.verdicts import bh_level, judge_shared

UNKNOWN = 0.5
"""Share of pieces that the embedder does not know from which on a unit's texts are not judged."""
LEAST_BEST = 3
"""Least number of best random sequences that restarts are set beside."""
MOST_BEST = 200
"""Most of them: more say hardly more, and each has to be embedded."""


def centred(vectors: Float[ndarray, "*batch dims"], centre: Float[ndarray, " dims"]) -> Float[ndarray, "*batch dims"]:
    """Vectors less a centre, at length 1; what is at the centre stays 0, and is like nothing."""
    moved = vectors - centre
    length = np.linalg.norm(moved, axis=-1, keepdims=True)
    return np.divide(moved, length, out=np.zeros_like(moved), where=length > 1e-12 * max(1.0, np.abs(centre).max()))


def mean_similarity(texts: Float[ndarray, "*batch texts dims"]) -> NDArray[np.float64]:
    """The mean cosine over pairs of texts; NaN for one text.

    Formula: for vectors u of length 1 (or 0), Σ over i ≠ j of u_i·u_j = |Σ u|² - Σ |u|², over n(n - 1).

    Example:
        >>> mean_similarity(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])).item()
        0.3333333333333333
    """
    count = texts.shape[-2]
    if count < 2:
        return np.full(texts.shape[:-2], nan)
    pairs = np.square(texts.sum(-2)).sum(-1) - np.square(texts).sum((-1, -2))
    return np.asarray(pairs / (count * (count - 1)))


def combinations_of(
    pool: Float[ndarray, "draws restarts dims"], *, draws: int, seed: int
) -> Float[ndarray, "combined restarts dims"]:
    """Texts that restarts could have ended at by chance: for each restart one of its own texts of the pool.

    Args:
        pool: vectors of texts by chance, some for each restart.
        draws: number of combinations.
        seed: seed of the choice.
    """
    count, restarts = pool.shape[:2]
    picks = np.random.default_rng([seed, *b"meaning"]).integers(0, count, (draws, restarts))
    return pool[picks, np.arange(restarts)]


def rotations(places: Int[ndarray, " places"], *, total: int, draws: int, seed: int) -> Int[ndarray, "draws places"]:
    """Places of a sequence, all moved on by the same number of steps; what goes over the end begins anew.

    Places that lie close together stay together, so that what is alike because it is near stays as it was. All steps
    but none are taken where there are no more than `draws`, else so many of them, none twice.
    Reference: Lotwick & Silverman 1982, J. R. Stat. Soc. B 44:406 (toroidal shifts), here in one dimension.

    Args:
        places: numbers of places, from 0.
        total: length of the sequence.
        draws: most draws.
        seed: seed of the choice of steps.

    Example:
        >>> rotations(np.array([0, 2]), total=4, draws=9, seed=0).tolist()
        [[1, 3], [2, 0], [3, 1]]
    """
    steps = np.arange(1, total)
    if len(steps) > draws:
        steps = np.random.default_rng([seed, *b"rotations"]).choice(steps, draws, replace=False)
    return (places[None] + steps[:, None]) % total


def beside_best(
    texts: Float[ndarray, "restarts dims"], best: Float[ndarray, "sequences dims"], *, draws: int = LEAST, seed: int = 0
) -> Null:
    """How alike restarts are, beside how alike the best of as many random sequences are.

    Null hypothesis: restarts and best random sequences are exchangeable: what a search ends at is about the same
    things as what scores high by luck. Statistic: mean similarity of the restarts with each other less that of the
    best random sequences with each other, where it is random which of all texts are called restarts. All ways to
    divide them are taken up to `EXACT`, else `draws`. The null is given on the scale of the restarts' similarity.
    Reference: Good 2005, Permutation, Parametric and Bootstrap Tests of Hypotheses, section 3.1 (two samples).

    Args:
        texts: vectors of the restarts' texts.
        best: vectors of the best random sequences, each the best of others than the next.
        draws: number of divisions where not all are taken.
        seed: seed of the divisions.
    """
    restarts, others = len(texts), len(best)
    if restarts < 2 or others < LEAST_BEST:
        return against(nan, [], alternative="greater")
    both = np.concatenate([texts, best])
    base = mean_similarity(best)
    found = base + _contrasts(both, _divisions(restarts, others, draws, seed))
    return against(found[0], found[1:], alternative="greater")


@lru_cache(maxsize=2)  # the units of a job are divided alike
def _divisions(restarts: int, others: int, draws: int, seed: int) -> Int[ndarray, "divisions restarts"]:
    """The numbers of the texts that are called restarts; the first division is what was found."""
    total = restarts + others
    if comb(total, restarts) <= EXACT:
        return np.array(list(combinations(range(total), restarts)))  # the first is 0 … restarts - 1
    rng = np.random.default_rng([seed, *b"divisions"])
    rows = np.argsort(rng.random((draws + 1, total)), axis=1)[:, :restarts]
    rows[0] = np.arange(restarts)
    return rows


def _contrasts(texts: Float[ndarray, "texts dims"], chosen: Int[ndarray, "divisions restarts"]) -> ndarray:
    """Mean similarity of the chosen texts less that of the others, of each division.

    What the others share is what all do, less what the chosen share with all, plus what these share among themselves,
    which that took away twice.
    """
    similarity = texts @ texts.T
    np.fill_diagonal(similarity, 0.0)
    count, others = chosen.shape[1], len(texts) - chosen.shape[1]
    inside = sum(similarity[one[:, None], chosen].sum(1) for one in chosen.T)
    outside = similarity.sum() - 2 * similarity.sum(1)[chosen].sum(1) + inside
    return inside / (count * (count - 1)) - outside / (others * (others - 1))


def best_of_blocks(
    activation: Float[ndarray, " sequences"], *, passes: int, restarts: int, maximize: bool = True
) -> tuple[Int[ndarray, " blocks"], int]:
    """The best of every so many random sequences, each block of others: their numbers, and the size of a block.

    A block is as long as a restart took passes; where that gives fewer blocks than restarts (three, at least), it is
    shorter. More than `MOST_BEST` blocks are not taken.

    Args:
        activation: activations of random sequences, in their order.
        passes: forward passes of a restart.
        restarts: number of restarts.
        maximize: whether the largest activation is the best.
    """
    size = max(1, min(passes, len(activation) // max(restarts, LEAST_BEST)))
    blocks = activation[: len(activation) // size * size].reshape(-1, size)[: max(restarts, MOST_BEST)]
    best = blocks.argmax(1) if maximize else blocks.argmin(1)
    return best + size * np.arange(len(blocks)), size


def plane(
    texts: Float[ndarray, "restarts dims"],
    others: Float[ndarray, "others dims"],
    by_chance: Float[ndarray, "draws dims"],
) -> Float[ndarray, "all two"]:
    """Texts in two dimensions: how near they are to a unit's restarts, and where they lie among texts by chance.

    The first coordinate is the cosine to the mean vector of the unit's restarts; a restart itself is left out of the
    mean that it is held against, so that restarts with nothing in common lie where texts by chance do. The second is
    the first principal component of texts by chance.

    Args:
        texts: vectors of the unit's restarts, centred, of length 1.
        others: the same of other units' restarts.
        by_chance: the same of texts that restarts could have ended at by chance.

    Returns:
        A row for each text, in the order of the arguments.

    Example:
        >>> east, north = np.array([1.0, 0.0]), np.array([0.0, 1.0])
        >>> plane(np.stack([east, east, north]), np.stack([-east]), np.stack([east, north]))[:4, 0].round(2).tolist()
        [0.71, 0.71, 0.0, -0.89]
    """
    total = texts.sum(0)
    rest = np.concatenate([others, by_chance])
    centre = np.concatenate([total - texts, np.broadcast_to(total, rest.shape)])
    whole = np.concatenate([texts, rest])
    length = np.linalg.norm(centre, axis=1)
    near = np.divide((whole * centre).sum(1), length, out=np.zeros(len(whole)), where=length > 1e-12)
    axis = np.linalg.svd(by_chance - by_chance.mean(0), full_matrices=False)[2][0]
    axis = axis * np.sign(axis[np.abs(axis).argmax()])  # an axis has no side of its own
    return np.stack([near, whole @ axis], axis=1)


@dataclass(frozen=True)
class Meaning:
    """What the texts of one unit's restarts have in common."""

    texts: Float[ndarray, "restarts dims"]
    """Vectors of the restarts' texts, centred, of length 1."""
    unknown: float
    """Share of the pieces of all texts that the embedder does not know."""
    null: Null
    """Mean similarity of two restarts, beside that of texts by chance."""
    best: Null
    """The same beside the best of as many random sequences; no draws where there are too few of these."""
    best_similarity: float
    """Mean similarity of the best random sequences with each other."""
    best_count: int
    """Number of best random sequences."""
    best_of: int
    """Number of random sequences of which each is the best."""
    kappa: Estimate
    """Similarity beyond chance: 0 is chance, 1 the same text (`kappa`)."""

    @property
    def status(self) -> MeaningStatus:
        """Whether there is anything to judge, or why not."""
        if len(self.texts) < 2:
            return MeaningStatus.ONE_RESTART
        return MeaningStatus.UNKNOWN_PIECES if self.unknown > UNKNOWN else MeaningStatus.OK


def measure_meaning(
    texts: Float[ndarray, "restarts dims"],
    unknown: float,
    by_chance: Float[ndarray, "draws restarts dims"],
    best: Float[ndarray, "sequences dims"],
    *,
    best_of: int,
    seed: int = 0,
) -> Meaning:
    """How alike the texts of one unit's restarts are, beside chance.

    Null hypothesis: what restarts end at is drawn by chance (random moves decoded, random tokens, or random sequences
    of a text), each restart by itself. p is the share of draws that are at least as alike.

    Args:
        texts: vectors of the restarts' texts, centred, of length 1.
        unknown: share of their pieces that the embedder does not know.
        by_chance: the same of texts that they could have ended at by chance.
        best: the same of best random sequences.
        best_of: number of random sequences of which each is the best.
        seed: seed of the divisions in the test beside these.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> chance = centred(rng.normal(size=(199, 6, 50)), np.zeros(50))
        >>> alike = centred(rng.normal(size=(6, 50)) + 2, np.zeros(50))
        >>> found = measure_meaning(alike, 0.0, chance, chance[:, 0], best_of=1)
        >>> found.null.p, found.kappa.low > 0.5
        (0.005, True)
    """
    null = against(mean_similarity(texts).item(), mean_similarity(by_chance), alternative="greater")
    similarity = torch.from_numpy(texts @ texts.T)
    agreed = kappa(similarity, null.mean) if len(texts) > 1 else not_estimable(nan, "one restart has no pairs")
    beside = beside_best(texts, best, seed=seed)
    alike = mean_similarity(best).item() if len(best) > 1 else nan
    return Meaning(texts, unknown, null, beside, alike, len(best), best_of, agreed)


@dataclass(frozen=True)
class MeaningDecision:
    """The verdict on what one unit's restarts are about."""

    verdict: Verdict
    """What may be said of the unit's restarts in the space of meaning."""
    status: DecisionStatus
    """Whether the meaning could be judged, or why not."""
    alpha: float
    """Level of the claim that restarts are alike."""
    own_alpha: float
    """Level at which that is called the unit's own: BH over the units whose restarts are alike."""
    own_status: OwnStatus
    """Whether the unit was set against other units, or why not."""
    own: Null | None = None
    """Similarity within the unit beside that of any units' rows; None where that was not tested."""

    def flat(self) -> dict[str, Any]:
        """The columns of `units.parquet` that say the verdict and why."""
        own = self.own or against(nan, [], alternative="greater")
        return {
            "verdict_meaning": self.verdict.value,
            "own_meaning_status": self.own_status.value,
            "own_meaning": own.observed,
            **{name: float(value) for name, value in own.claim_columns("own_meaning", self.own_alpha).items()},
        }


@dataclass(frozen=True)
class Alike:
    """What the rule needs of how alike a unit's restarts are."""

    p: float
    """p of their similarity beside chance; NaN where it was not measured."""
    smallest_p: float
    """The smallest p that the number of draws can give."""
    kappa_low: float
    """Lower limit of κ; NaN where it has no interval."""

    @classmethod
    def of(cls, one: Meaning | None) -> Alike:
        """What the rule needs of what was measured."""
        if one is None or one.status != MeaningStatus.OK:
            return cls(nan, nan, nan)
        return cls(one.null.p, one.null.smallest_p, one.kappa.low)

    @classmethod
    def of_row(cls, row: Any) -> Alike:
        """The same from a unit's row of `units.parquet`."""
        if row.get("meaning_status") != MeaningStatus.OK:
            return cls(nan, nan, nan)
        return cls(row["null_meaning_p"], 1 / (float(row["null_meaning_draws"]) + 1), row["kappa_meaning_low"])


def decide_meaning(
    alike: Sequence[Alike], own: Relabelled, *, judged: Sequence[int] | None = None, alpha: float = ALPHA
) -> tuple[MeaningDecision, ...]:
    """The declared rule for meaning, for the units of one job or sweep.

    It is a question of its own, at a level of its own, and its two claims are made in a fixed order: a unit's restarts
    are *alike* where they are more so than texts by chance, at α; only where they are it is asked whether they are
    more alike than with other units' restarts, *the unit's own*, at α by BH over the units whose restarts are alike. In
    a fixed order no correction for the second claim is needed (Maurer, Hothorn & Lehmacher 1995). Verdicts are those of
    tokens (`actmax.evidence.verdicts.decide`), with κ of meaning: the same from a lower limit of 0.5 on, partly the
    same from 0.1 on.

    Args:
        alike: how alike the restarts of each unit are.
        own: the test of the same units against each other.
        judged: numbers of the units that count in the correction over units; None for all (control units do not).
        alpha: level of the claims on a unit.
    """
    reachable = own.status == OwnStatus.OK and own.smallest_p <= alpha
    status = OwnStatus.OUT_OF_REACH if own.status == OwnStatus.OK and not reachable else own.status
    nulls = own.test.nulls if own.test is not None and reachable else (None,) * len(alike)
    asked = [unit for unit in (range(len(alike)) if judged is None else judged) if alike[unit].p <= alpha]
    own_alpha = bh_level([null.p for unit in asked if (null := nulls[unit]) is not None], alpha)
    found = []
    for one, null in zip(alike, nulls, strict=True):
        options = {"level": alpha, "own": null, "own_level": own_alpha, "kappa_low": one.kappa_low}
        verdict, why = judge_shared(one.p, one.smallest_p, **options)
        found.append(MeaningDecision(verdict, why, alpha, own_alpha, status, null if one.p <= alpha else None))
    return tuple(found)
