"""Mann-Whitney with ties: the exact law by naming the samples of one group in every way."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pytest
from scipy import stats

from actmax.stats import _ranks
from actmax.stats.groups import compare


def enumerated(x, y):
    """The share of the ways to name group 1 whose rank sum is as far from its mean."""
    ranks, n_1, total = stats.rankdata(x), int(y.sum()), len(y)
    middle = n_1 * (total + 1) / 2
    sums = np.array([sum(chosen) for chosen in combinations(ranks.tolist(), n_1)])
    return np.mean(np.abs(sums - middle) >= abs(ranks[y == 1].sum() - middle) - 1e-9)


def ours(x, y):
    return compare(np.asarray(x, float), y).table.iloc[0]


def labelled(zero, one):
    return np.r_[zero, one].astype(float), np.repeat([0, 1], [len(zero), len(one)])


@pytest.mark.parametrize(
    ("zero", "one", "p"),
    [
        ([0] * 20, [1, 2, 3], 1 / 1771),
        ([0] * 3, [7] * 3, 0.1),
        ([0] * 20, [5] * 20, 2 / comb(40, 20)),
        ([0] * 100, [1] * 3, 1 / comb(103, 3)),
        ([0] * 200, [*[0] * 5, 1, 2, 3, 4], comb(9, 4) / comb(209, 4)),
        ([0] * 100, [*[0] * 98, 1, 1], None),
    ],
)
def test_against_counting(zero, one, p):
    x, y = labelled(zero, one)
    if p is None:  # two of 200 fire, both in one group: of the C(200, 2) pairs these lie inside either group
        p = 2 * comb(100, 2) / comb(200, 2)
    row = ours(x, y)
    np.testing.assert_allclose([row["mannwhitney_p"], 10 ** row["mannwhitney_p_log10"]], p, rtol=1e-12)
    swapped = ours(x, 1 - y)
    np.testing.assert_allclose(swapped["mannwhitney_p"], p, rtol=1e-12)


@pytest.mark.parametrize("seed", range(12))
def test_against_enumeration_on_random_ties(seed):
    rng = np.random.default_rng(seed)
    n_0, n_1 = rng.integers(2, 9, 2)
    y = rng.permutation(np.repeat([0, 1], [n_0, n_1]))
    x = rng.integers(0, rng.integers(2, 7), n_0 + n_1) * 1.0
    if seed % 3 == 0:
        x = np.maximum(x - 2, 0)
    if np.ptp(x) > 0:
        np.testing.assert_allclose(ours(x, y)["mannwhitney_p"], enumerated(x, y), rtol=1e-12)


def test_the_counts_are_not_the_normal_approximation():
    x, y = labelled([0] * 20, [1, 2, 3])
    approximate = stats.mannwhitneyu(x[y == 1], x[y == 0], method="asymptotic").pvalue
    assert approximate < 0.01 * enumerated(x, y)


@pytest.mark.parametrize("sizes", [(9, 9), (9, 200), (30, 30), (100, 100), (3, 3), (2, 500)])
def test_p_is_never_below_the_one_way_that_was_seen(sizes):
    """Where counting costs too much, the normal approximation is held to that floor; no floor would show here."""
    x, y = labelled(np.repeat([0.0, 1.0], [sizes[0] - 1, 1]), np.full(sizes[1], 2.0))
    assert ours(x, y)["mannwhitney_p_log10"] >= -np.log10(float(comb(sum(sizes), sizes[1]))) - 1e-12


def test_without_ties_the_smallest_p_is_two_ways():
    x, y = labelled(np.arange(100.0), 1000 + np.arange(3.0))
    np.testing.assert_allclose(ours(x, y)["mannwhitney_p"], 2 / comb(103, 3), rtol=1e-12)


def test_the_floor_holds_where_nothing_is_counted(monkeypatch):
    monkeypatch.setattr(_ranks, "EXACT_COST", 0)
    _ranks.tied_log10_p.cache_clear()
    x, y = labelled([0] * 200, np.arange(1.0, 10))
    p = ours(x, y)["mannwhitney_p"]
    _ranks.tied_log10_p.cache_clear()
    np.testing.assert_allclose(p, 1 / comb(209, 9), rtol=1e-12)
    assert stats.mannwhitneyu(x[y == 1], x[y == 0], method="asymptotic").pvalue < 1e-20


def test_ties_and_no_ties_in_one_call():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], [30, 5])
    x = rng.normal(size=(35, 6))
    x[:, ::2] = np.round(x[:, ::2], 1)
    together = compare(x, y).table["mannwhitney_p"].to_numpy()
    np.testing.assert_array_equal(together, [compare(x[:, [u]], y).table["mannwhitney_p"].iloc[0] for u in range(6)])
