"""Whether restarts agree more with others of their own unit than with those of other units."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from actmax.evidence.nulls import Null, against
from actmax.evidence.pairs import assigned_cosines, jaccards
from actmax.evidence.readings import OwnStatus

LEAST_PER_UNIT = 20
"""Least number of draws per unit: with fewer no p could survive a correction over units."""
DRAWS_PER_UNIT = 100
"""Draws per unit by default: Holm's correction over two spaces and BH's over units leave a single unit only at p ≤ α/(2
units), which needs 40 draws per unit at α = 0.05 if none of them is as extreme, and more to be told apart from luck."""
LEAST = 1_000
"""Least number of draws by default."""
ENTRIES = 2**22
"""Relabelled (draw, unit) entries that are held at once."""
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
    """Within - between of each unit against its own relabellings, one-sided (`greater`)."""

    @property
    def p(self) -> Float[ndarray, " units"]:
        """The p of each unit, uncorrected."""
        return np.array([null.p for null in self.nulls])


@dataclass(frozen=True)
class Own:
    """The test of some units in both spaces, from the same relabellings."""

    status: OwnStatus
    """Whether the units could be set against each other, or why not."""
    tokens: OwnTest | None = None
    """The test by pairwise Jaccard of token sets; None where not available."""
    embeddings: OwnTest | None = None
    """The test by assigned cosine of displacements; None where not available."""
    units: int = 1
    """Number of units that were set against each other."""
    seeds: int = 0
    """Number of seeds that the units share."""
    draws: int = 0
    """Number of relabellings behind the null."""

    @property
    def smallest_p(self) -> float:
        """The least p of a unit where all units are alike: 1/(draws + 1), or units^(1 - seeds) if that is more.

        There are units^seeds ways to pick a unit's rows, and where every unit is its own those of each unit tie.
        """
        return max(1 / (self.draws + 1), float(self.units) ** (1 - self.seeds))


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
    never used. The permutation test is then exact whatever the seeds do, up to Monte Carlo error, which the +1 in p =
    (k + 1)/(draws + 1) covers.

    Statistic of unit u: within - between, where within is the mean similarity over pairs of its restarts, and between
    the mean over pairs of one of its restarts and another unit's of a different seed. The mean within alone would be
    as exact but answer less: a unit of its own among units that share a tight attractor agrees *less* within than a
    relabelled unit does (mostly rows of that attractor), and would be missed. Each unit has its own permutation
    distribution. A rejection means that the unit is not one of many alike; correct over units (`decide` does, by BH).

    Formula: with similarity s of rows (u, i), (v, j) and c = s minus the mean of both rows' means over all rows of
    other seeds, within - between = U/(U - 1) mean over i < j of c[(u, i), (u, j)]. Similarities: Jaccard of token
    sets, and assigned cosine of displacements. References: Clarke 1993, Aust. J. Ecol. 18:117 (within against
    between); Welch 1990, JASA 85:693 and Good 2005, chapter 7 (permutation within blocks); Phipson & Smyth 2010,
    Stat. Appl. Genet. Mol. Biol. 9:39 (the +1).

    Args:
        ids: the tokens of each unit's restart from each shared seed.
        displacement: the final minus the initial embedding of each of these restarts.
        draws: number of relabellings, at least 20 per unit; by default max(1000, 100 units).
        seed: seed of the relabellings, which have a random stream of their own.

    Raises:
        ValueError: fewer than 20 draws per unit.

    Example:
        >>> import torch
        >>> ids = torch.arange(4)[:, None, None].expand(4, 5, 2)  # unit u always decodes to token u
        >>> moves = torch.eye(4)[:, None, None].expand(4, 5, 2, 4)
        >>> found = own_agreement(ids, moves)
        >>> found.tokens.within.tolist(), found.tokens.between.tolist(), bool((found.tokens.p < 0.02).all())
        ([1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0], True)
    """
    units, seeds = ids.shape[:2]
    draws = _enough(draws, units)
    if units < 2 or seeds < 2:
        return Own(OwnStatus.ONE_UNIT if units < 2 else OwnStatus.ONE_SEED, units=units, seeds=seeds)
    return _relabelled(ids, displacement, draws, seed)


def _enough(draws: int | None, units: int) -> int:
    """The number of relabellings that was asked for, or the default."""
    draws = max(LEAST, DRAWS_PER_UNIT * units) if draws is None else draws
    if draws < LEAST_PER_UNIT * units:
        raise ValueError(f"{draws} relabellings of {units} units are too few: at least {LEAST_PER_UNIT} per unit")
    return draws


def _relabelled(
    ids: Int[Tensor, "units seeds tokens"],
    displacement: Float[Tensor, "units seeds tokens d_model"],
    draws: int,
    seed: int,
) -> Own:
    """The test in both spaces, under the same relabellings."""
    units, seeds = ids.shape[:2]
    shape = (units, seeds, units, seeds)
    similarities = jaccards(ids.flatten(0, 1)), assigned_cosines(displacement.flatten(0, 1))
    spaces = [_Space(similarity.numpy().reshape(shape)) for similarity in similarities]
    drawn = [np.concatenate(parts) for parts in zip(*_draw(spaces, units, seeds, draws, seed), strict=True)]
    tokens, embeddings = (space.test(one) for space, one in zip(spaces, drawn, strict=True))
    return Own(OwnStatus.OK, tokens, embeddings, units, seeds, draws)


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
        self.units, seeds = similarity.shape[:2]
        self.pairs = list(combinations(range(seeds), 2))
        others = ~np.eye(seeds, dtype=bool)
        means = np.stack([similarity[:, i][:, :, others[i]].mean((1, 2)) for i in range(seeds)], axis=1)
        self.row_means: Float[ndarray, " units"] = means.mean(axis=1)
        raw = [similarity[:, i, :, j] for i, j in self.pairs]
        self.within: Float[ndarray, " units"] = np.mean([block.diagonal() for block in raw], axis=0)
        self.centred = [
            block - (means[:, i, None] + means[None, :, j]) / 2 for block, (i, j) in zip(raw, self.pairs, strict=True)
        ]

    def contrast(self, labels: Int[ndarray, "draws seeds units"]) -> Float[ndarray, "draws units"]:
        """Within - between of each unit, where `labels[d, s, u]` is whose row of seed s unit u has in draw d."""
        found = np.zeros((len(labels), self.units))
        for block, (i, j) in zip(self.centred, self.pairs, strict=True):
            found += block[labels[:, i], labels[:, j]]
        return found * self.units / ((self.units - 1) * len(self.pairs))

    def test(self, drawn: Float[ndarray, "draws units"]) -> OwnTest:
        """Sets the contrast of each unit under its true labels beside its draws."""
        seeds = max(j for _, j in self.pairs) + 1
        observed = self.contrast(np.broadcast_to(np.arange(self.units), (1, seeds, self.units)))[0]
        between = (self.units * self.row_means - self.within) / (self.units - 1)
        nulls = (against(o, d, alternative="greater") for o, d in zip(observed.tolist(), drawn.T, strict=True))
        return OwnTest(self.within, between, tuple(nulls))


def _draw(spaces: list[_Space], units: int, seeds: int, draws: int, seed: int) -> Iterator[list[ndarray]]:
    """The contrast in each space under relabellings, some draws at a time."""
    # each seed permutes the units by itself: what two units share because of their seed is in every draw alike
    generator = np.random.default_rng(np.random.SeedSequence([seed, *b"units"]))
    together = max(1, ENTRIES // (units * seeds))
    for start in range(0, draws, together):
        count = min(together, draws - start)
        labels = generator.permuted(np.broadcast_to(np.arange(units), (count, seeds, units)), axis=-1)
        yield [space.contrast(labels) for space in spaces]
