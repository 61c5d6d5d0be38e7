"""Corrections for many tests, against statsmodels and scipy, over axes and around missing values."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from actmax.errors import InputError
from actmax.stats.corrections import METHODS, benjamini_hochberg, correct, holm

STATSMODELS = {"bonferroni": "bonferroni", "holm": "holm", "bh": "fdr_bh", "by": "fdr_by"}


def some_p(*shape: int, missing: float = 0.0, seed: int = 0) -> np.ndarray:
    """P-values, a third of them small, some tied, some missing."""
    rng = np.random.default_rng(seed)
    p = np.where(rng.random(shape) < 0.3, rng.random(shape) ** 6, rng.random(shape))
    p = np.where(rng.random(shape) < 0.2, np.round(p, 1), p)
    return np.where(rng.random(shape) < missing, np.nan, p)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_each_slice_is_statsmodels_on_its_finite_values(method: str, missing: float):
    p = some_p(40, 7, missing=missing)
    found = correct(p, method, axis=0)
    for column, corrected in zip(p.T, found.T, strict=True):
        known = np.isfinite(column)
        expected = multipletests(column[known], method=STATSMODELS[method])[1]
        np.testing.assert_array_equal(corrected[known], expected)
        assert np.isnan(corrected[~known]).all()
    np.testing.assert_array_equal(correct(p.T, method), found.T)


def test_benjamini_hochberg_is_scipys_to_the_last_bit():
    for seed in range(20):
        p = some_p(11, 5, seed=seed)
        np.testing.assert_array_equal(benjamini_hochberg(p, axis=0), stats.false_discovery_control(p, axis=0))
        np.testing.assert_allclose(benjamini_hochberg(p, axis=0), correct(p, "bh", axis=0), rtol=1e-14)


def test_holm_of_two_is_twice_the_smaller_and_no_less_for_the_larger():
    p = some_p(200, 2)
    expected = np.minimum(np.maximum(2 * p.min(axis=1, keepdims=True), p), 1.0)
    np.testing.assert_array_equal(holm(p, axis=1), expected)


def test_step_up_count_by_the_textbook():
    """The largest k with p_(k) ≤ k α / m, which is how many have a corrected p of at most α."""
    p = some_p(30, 300)
    ordered = np.sort(p, axis=0)
    passed = ordered <= 0.05 * np.arange(1, 31)[:, None] / 30
    expected = np.where(passed.any(0), 30 - np.argmax(passed[::-1], axis=0), 0)
    np.testing.assert_array_equal((benjamini_hochberg(p, axis=0) <= 0.05).sum(0), expected)
    assert len(np.unique(expected)) > 5


def test_a_missing_p_counts_for_nothing_and_a_wrong_count_would_show():
    assert holm(np.array([0.01, np.nan]))[0] == 0.01
    assert holm(np.array([0.01, 1.0]))[0] == 0.02  # negative control: a test that exists does count
    assert np.isnan(correct(np.full(3, np.nan), "bh")).all()
    assert correct(np.empty(0), "holm").shape == (0,)


@pytest.mark.parametrize("call", [holm, benjamini_hochberg])
def test_what_is_no_probability_is_refused(call):
    with pytest.raises(InputError, match=r"^p=1\.5"):
        call(np.array([[0.5, 1.5]]))
