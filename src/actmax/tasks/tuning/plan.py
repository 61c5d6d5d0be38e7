"""The words of a comparison, and every regrouping of them: halves, folds, and shuffled labels for the nulls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray

from actmax.stats.layers import Folds, make_folds
from actmax.stats.regrouped import Regrouped, regrouped_paired, regrouped_welch
from actmax.tasks.tuning.settings import TuningSettings
from actmax.words.lists import Data


@dataclass(frozen=True)
class Words:
    """Labels, groups and pairs of the samples, in the order of the rows of every activation."""

    labels: Bool[ndarray, " samples"]
    """Whether a sample is in group 1."""
    groups: tuple[str, ...]
    """A name per sample; halves and folds keep samples of one name together."""
    pairs: tuple[str, ...] | None
    """The name of each sample's pair; None where nothing is paired."""
    subtokens: Int[ndarray, " samples"]
    """Number of sub-tokens of each word."""

    @property
    def test(self) -> str:
        """Name of the p that decides: Welch's t-test's, or the paired t-test's where words are really paired."""
        return "welch_p" if self.pairs is None else "paired_p"

    @property
    def t(self) -> str:
        """Name of the statistic of the test that decides."""
        return "welch_t" if self.pairs is None else "paired_t"

    @property
    def matched(self) -> Int[ndarray, "pairs 2"]:
        """Sample numbers of each pair, group 0's first.

        Raises:
            ValueError: nothing is paired.
        """
        pairs = self.pairs or ()
        place = {(pair, bool(label)): n for n, (pair, label) in enumerate(zip(pairs, self.labels, strict=True))}
        return np.array([[place[pair, False], place[pair, True]] for pair in dict.fromkeys(pairs)])


def words_of(data: Data, subtokens: Sequence[int]) -> Words:
    """The samples of some data as arrays."""
    labels = np.array(data.labels, dtype=bool)
    groups = tuple(sample.group for sample in data.samples)
    pairs = None if data.pairs is None else tuple(data.pairs)
    return Words(labels, groups, pairs, np.array(subtokens, dtype=np.int64))


@dataclass(frozen=True)
class Plan:
    """The words and every regrouping of them, drawn once, so that all units and layers meet the same ones."""

    words: Words
    """Labels, groups and pairs of the samples."""
    settings: TuningSettings
    """Levels and numbers of the tests."""
    folds: Folds
    """Folds of the decoders, and the labels that they are fitted to."""
    halves: Bool[ndarray, "samples splits"]
    """Whether a sample is in the first half, a column per split."""
    shuffled: ndarray
    """Shuffled labels, a column each; for pairs the signs of their differences, a row per pair."""
    outside: ndarray
    """Labels of which only the second half is shuffled: `draws` columns for each split, one split after the other."""

    @property
    def draws(self) -> int:
        """Number of columns of `outside` for each split."""
        return self.outside.shape[1] // self.halves.shape[1]

    @property
    def plain(self) -> ndarray:
        """The labels as they are, a column per split, in the form of `shuffled`."""
        column = self.words.labels if self.words.pairs is None else np.ones(len(self.words.matched))
        return np.repeat(column[:, None], self.halves.shape[1], axis=1)

    def tested(self, x: ndarray, labelled: ndarray, chosen: ndarray | None = None) -> Regrouped:
        """The deciding test under many labellings, of all samples or (a column per labelling) of the chosen ones."""
        if self.words.pairs is not None:
            pairs = self.words.matched
            inside = 1.0 if chosen is None else chosen[pairs[:, 0]].astype(np.float64)
            return regrouped_paired(x[pairs[:, 1]] - x[pairs[:, 0]], labelled * inside)
        inside = np.ones_like(labelled) if chosen is None else chosen
        return regrouped_welch(x, ~labelled & inside, labelled & inside)


def make_plan(words: Words, settings: TuningSettings) -> Plan:
    """Draws halves, folds and shuffles of the words."""
    rng = np.random.default_rng(settings.seed)
    folds = make_folds(
        words.labels,
        words.groups,
        folds=min(settings.folds, _fewest(words)),
        permutations=settings.permutations,
        seed=settings.seed,
        paired=words.pairs is not None,
    )
    halves = np.stack([_half(words, rng) for _ in range(settings.splits)], axis=1)
    shuffled = _shuffles(words, rng, settings.permutations)
    draws = -(-settings.permutations // settings.splits)
    outside = np.concatenate([_shuffled_outside(words, half, draws, rng) for half in halves.T], axis=1)
    return Plan(words, settings, folds, halves, shuffled, outside)


def _fewest(words: Words) -> int:
    """Number of groups of words in the smaller category, the largest number of folds: none may lack a category."""
    return min(len({g for g, y in zip(words.groups, words.labels, strict=True) if y == side}) for side in (False, True))


def _half(words: Words, rng: np.random.Generator) -> Bool[ndarray, " samples"]:
    """Which samples are in the first half: whole words, evenly in each category."""
    kinds: dict[str, set[bool]] = {}
    for group, label in zip(words.groups, words.labels.tolist(), strict=True):
        kinds.setdefault(group, set()).add(label)
    # Names that stand in one category, in the other, or in both are halved by themselves; an odd one goes either way.
    first: set[str] = set()
    for kind in ({False}, {True}, {False, True}):
        names = sorted(group for group, labels in kinds.items() if labels == kind)
        chosen = rng.permutation(len(names))[: (len(names) + int(rng.integers(2))) // 2]
        first |= {names[place] for place in chosen}
    return np.array([group in first for group in words.groups])


def _shuffles(words: Words, rng: np.random.Generator, count: int) -> ndarray:
    """Shuffled labels, a column each; for pairs the signs of their differences."""
    if words.pairs is not None:
        return rng.choice([-1.0, 1.0], size=(len(words.matched), count))
    return np.stack([rng.permutation(words.labels) for _ in range(count)], axis=1)


def _shuffled_outside(words: Words, half: ndarray, draws: int, rng: np.random.Generator) -> ndarray:
    """Shuffled labels of the second half, a column per draw."""
    if words.pairs is not None:
        return _shuffles(words, rng, draws)
    columns = np.repeat(words.labels[:, None], draws, axis=1)
    for column in columns.T:
        column[~half] = rng.permutation(column[~half])
    return columns
