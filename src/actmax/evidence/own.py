"""Whether restarts agree more with others of their own unit than with those of other units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import nan

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from actmax.evidence.nulls import Null, against
from actmax.evidence.pairs import direction_cosines, shared_shares
from actmax.evidence.readings import OwnStatus
from actmax.evidence.settings import smallest_own_p

EXACT = 60_000
"""Up to so many ways to pick a unit's rows, one per seed, all are taken: three units and ten seeds have 59,049."""
LEAST = 9_999
"""Least number of draws where not all picks are taken."""
DRAWS_PER_UNIT = 120
"""Draws per unit, at least: BH over units leaves a single unit only at p ≤ α/units, which needs 20 draws per unit at
α = 0.05 if none of them is as extreme, and more to be told apart from luck."""
MOST_UNITS = 256
"""Units above which they are not set against each other: similarities of all their restarts are held at once."""


@dataclass(frozen=True)
class OwnTest:
    """The test in one space: the agreement within units against that between them, over pairs of different seeds."""

    within: Float[ndarray, " units"]
    """Mean similarity of a unit's restarts with each other."""
    between: Float[ndarray, " units"]
    """Mean similarity of a unit's restarts with other units' restarts of other seeds."""
    nulls: tuple[Null, ...]
    """Within of each unit beside what it would be if its rows were those of any units, one-sided (`greater`)."""

    @property
    def p(self) -> Float[ndarray, " units"]:
        """The p of each unit, uncorrected."""
        return np.array([null.p for null in self.nulls])


@dataclass(frozen=True)
class Own:
    """The test of some units in both spaces, under the same relabellings."""

    status: OwnStatus
    """Whether the units could be set against each other, or why not."""
    tokens: OwnTest | None = None
    """The test by the share of tokens in common; None where not available."""
    embeddings: OwnTest | None = None
    """The test by the cosine of displacements over all pairs of positions; None where not available."""
    units: int = 1
    """Number of units that were set against each other."""
    seeds: int = 0
    """Number of seeds that the units share."""
    draws: int = 0
    """Number of relabellings behind the null."""

    def only(self, unit: int) -> Own:
        """The same test with the numbers of one unit alone."""
        if self.tokens is None or self.embeddings is None:
            return self
        parts = (
            OwnTest(test.within[unit : unit + 1], test.between[unit : unit + 1], (test.nulls[unit],))
            for test in (self.tokens, self.embeddings)
        )
        return replace(self, **dict(zip(("tokens", "embeddings"), parts, strict=True)))

    def spread(self, whole: Sequence[bool]) -> Own:
        """The same test with units put between that were not tested, which have NaN.

        Args:
            whole: whether each unit was tested.
        """
        if all(whole) or self.tokens is None or self.embeddings is None:
            return self
        there = np.array(whole)
        return replace(self, tokens=_with_missing(self.tokens, there), embeddings=_with_missing(self.embeddings, there))

    @property
    def smallest_p(self) -> float:
        """The least p of a unit: 1/(draws + 1), or units^(1 - seeds) if that is more.

        There are units^seeds ways to pick a unit's rows, and where every unit is its own those of each unit tie.
        """
        return max(1 / (self.draws + 1), smallest_own_p(self.units, self.seeds))


def own_agreement(
    ids: Int[Tensor, "units seeds tokens"],
    displacement: Float[Tensor, "units seeds tokens d_model"],
    *,
    draws: int | None = None,
    seed: int = 0,
) -> Own:
    """Asks of each unit whether its restarts agree more with each other than with other units' restarts.

    Null hypothesis: within each seed, which unit a result belongs to says nothing: the results of a seed are
    exchangeable over units. Nothing is assumed about seeds: two units that start from the same noise resemble each
    other, so labels are permuted within each seed only (independently from seed to seed), and pairs of one seed are
    never used. The permutation test is then exact whatever the seeds do. What all units have in common is in the null.

    Statistic of unit u: within - between, where within is the mean similarity over pairs of its restarts, and between
    the mean over pairs of one of its restarts and another unit's of a different seed. The mean within alone would be
    as exact but answer less: a unit of its own among units that share a tight attractor agrees *less* within than a
    relabelled unit does (mostly rows of that attractor), and would be missed. Under relabelling a unit's rows are one
    row of any unit from each seed, all equally likely: up to `EXACT` such picks are all taken, else `draws` of them.
    The null is given on the scale of within: between of the unit plus the statistic of a pick.

    Formula: with similarity s of rows (u, i), (v, j) and c = s minus the mean of both rows' means over all rows of
    other seeds, within - between = U/(U - 1) mean over i < j of c[(u, i), (u, j)]. Similarities: share of tokens in
    common, and cosine of displacements over all pairs of positions. References: Clarke 1993, Aust. J. Ecol. 18:117
    (within against between); Welch 1990, JASA 85:693 and Good 2005, chapter 7 (permutation within blocks); Phipson &
    Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9:39 (the +1).

    Args:
        ids: the tokens of each unit's restart from each shared seed.
        displacement: the final minus the initial embedding of each of these restarts.
        draws: number of picks where not all are taken; by default 9,999, or more where there are many units.
        seed: seed of the picks, which have a random stream of their own.

    Example:
        >>> import torch
        >>> ids = torch.arange(4)[:, None, None].expand(4, 5, 2)  # unit u always decodes to token u
        >>> moves = torch.eye(4)[:, None, None].expand(4, 5, 2, 4)
        >>> found = own_agreement(ids, moves)
        >>> found.tokens.within.tolist(), found.tokens.between.tolist(), bool((found.tokens.p < 0.02).all())
        ([1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0], True)
    """
    units, seeds = ids.shape[:2]
    similarities = shared_shares(ids.flatten(0, 1)).numpy(), direction_cosines(displacement.flatten(0, 1)).numpy()
    found = [relabel(similarity, units, draws=draws, seed=seed) for similarity in similarities]
    return Own(found[0].status, *(one.test for one in found), units=units, seeds=seeds, draws=found[0].draws)


@dataclass(frozen=True)
class Relabelled:
    """The test of some units in one space."""

    status: OwnStatus
    """Whether the units could be set against each other, or why not."""
    test: OwnTest | None = None
    """The test; None where not available."""
    units: int = 1
    """Number of units that were set against each other."""
    seeds: int = 0
    """Number of seeds that the units share."""
    draws: int = 0
    """Number of relabellings behind the null."""

    @property
    def smallest_p(self) -> float:
        """The least p of a unit, as that of `Own`."""
        return max(1 / (self.draws + 1), smallest_own_p(self.units, self.seeds))


def relabel(
    similarity: Float[ndarray, "rows rows"], units: int, *, draws: int | None = None, seed: int = 0
) -> Relabelled:
    """The test of `own_agreement` in one space, from the similarity of every two restarts.

    A unit with a restart that is similar to none (a displacement that is not finite) has NaN, and the others are tested
    as if it were not there.

    Args:
        similarity: similarity of every two restarts, those of a unit one after the other in the order of the seeds.
        units: number of units.
        draws: number of picks where not all are taken.
        seed: seed of the picks.
    """
    seeds = len(similarity) // max(units, 1)
    if units < 2 or seeds < 2:
        return Relabelled(OwnStatus.ONE_UNIT if units < 2 else OwnStatus.ONE_SEED, units=units, seeds=seeds)
    whole = np.logical_not(np.isnan(similarity).all(axis=1).reshape(units, seeds).any(axis=1))
    known = int(whole.sum())
    if known < 2:
        nothing = np.full(0, nan), np.full(0, nan), ()
        return Relabelled(OwnStatus.ONE_UNIT, _with_missing(OwnTest(*nothing), whole & False), seeds=seeds)
    exact = known**seeds <= EXACT
    picks = all_picks(known, seeds) if exact else _drawn_picks(known, seeds, draws, seed)
    space = similarity.reshape(units, seeds, units, seeds)[whole][:, :, whole]
    test = _with_missing(_Space(space).test(picks, exact=exact), whole)
    return Relabelled(OwnStatus.OK, test, known, seeds, len(picks) - exact)


def _with_missing(test: OwnTest, whole: Bool[ndarray, " units"]) -> OwnTest:
    """The test of the whole units, with NaN at the places of the others."""
    within, between = np.full(len(whole), nan), np.full(len(whole), nan)
    within[whole], between[whole] = test.within, test.between
    found, missing = iter(test.nulls), against(nan, [], alternative="greater")
    return OwnTest(within, between, tuple(next(found) if one else missing for one in whole))


def all_picks(units: int, seeds: int) -> Int[ndarray, "picks seeds"]:
    """Every way to pick the unit of each seed's row; pick number u (1 + U + U² + ...) has unit u throughout."""
    return np.arange(units**seeds)[:, None] // units ** np.arange(seeds) % units


def _drawn_picks(units: int, seeds: int, draws: int | None, seed: int) -> Int[ndarray, "picks seeds"]:
    least = max(LEAST, DRAWS_PER_UNIT * units) if draws is None else draws
    count = least if draws is not None else 40 * -(-(least + 1) // 40) - 1
    return np.random.default_rng(np.random.SeedSequence([seed, *b"units"])).integers(0, units, (count, seeds))


class _Space:
    """The similarities of one space, centred once; relabelling only indexes.

    Args:
        similarity: similarity of every two (unit, seed) rows; entries of one seed are never read.
    """

    def __init__(self, similarity: Float[ndarray, "units seeds units seeds"]) -> None:
        # Write s(u, i; v, j) for the similarity and m(u, i) for its mean over all rows of other seeds. Subtracting both
        # rows' means leaves c = s - (m(u, i) + m(v, j))/2. For unit u, `between` follows from `within` and the mean of
        # its rows' means: a mean over all units is within/U + between (U - 1)/U. So within - between = U/(U - 1)
        # (within - mean of m), which is U/(U - 1) times the mean of c over the unit's own pairs of seeds. Relabelling
        # then only picks other entries of c, and nothing is averaged again.
        self.units, self.seeds = similarity.shape[:2]
        self.pairs = list(combinations(range(self.seeds), 2))
        others = ~np.eye(self.seeds, dtype=bool)
        means = np.stack([similarity[:, i][:, :, others[i]].mean((1, 2)) for i in range(self.seeds)], axis=1)
        raw = [similarity[:, i, :, j] for i, j in self.pairs]
        self.within: Float[ndarray, " units"] = np.mean([block.diagonal() for block in raw], axis=0)
        self.between = (self.units * means.mean(axis=1) - self.within) / (self.units - 1)
        self.centred = [
            block - (means[:, i, None] + means[None, :, j]) / 2 for block, (i, j) in zip(raw, self.pairs, strict=True)
        ]

    def contrast(self, picks: Int[ndarray, "picks seeds"]) -> Float[ndarray, " picks"]:
        """Within - between of a unit whose row of each seed is that of the picked unit."""
        found = np.zeros(len(picks))
        for block, (i, j) in zip(self.centred, self.pairs, strict=True):
            found += block[picks[:, i], picks[:, j]]
        return found * self.units / ((self.units - 1) * len(self.pairs))

    def test(self, picks: Int[ndarray, "picks seeds"], *, exact: bool) -> OwnTest:
        """Sets each unit's agreement within beside that of the picks; the unit's own rows are no draw of its null."""
        drawn, own = self.contrast(picks), np.broadcast_to(np.arange(self.units)[:, None], (self.units, self.seeds))
        places = own[:, 0] * (self.units ** np.arange(self.seeds)).sum()
        nulls = []
        for unit, contrast in enumerate(self.contrast(own).tolist()):
            others = np.delete(drawn, places[unit]) if exact else drawn
            base = self.between[unit]
            nulls.append(against(base + contrast, base + others, alternative="greater"))
        return OwnTest(self.within, self.between, tuple(nulls))
