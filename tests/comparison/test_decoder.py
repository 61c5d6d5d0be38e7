"""The decoder: held-out probabilities, and a null that finds nothing where there is nothing."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from actmax.stats.decoder import _model, _out_of_fold, decode_labels

Y = np.repeat([0, 1], 20)


def data(shift, units=6, seed=0):
    return np.random.default_rng(seed).normal(size=(40, units)) + shift * Y[:, None]


def held_out(x, seed, components=None):
    """Probabilities and folds alone, without the hundred shuffles."""
    return _out_of_fold(_model(1.0, components, x.shape), x, Y == 1, 5, np.random.default_rng(seed))


@pytest.fixture(scope="module")
def noise():
    return decode_labels(data(0.0), Y, seed=0, folds=2)


@pytest.fixture(scope="module")
def found():
    return decode_labels(data(2.0), Y, seed=0, folds=2)


def test_a_difference_is_found(found):
    assert found.table.loc["accuracy", "observed"] > 0.9
    assert (found.table["p"] == 1 / 101).all()
    assert found.table.loc["log_loss", "observed"] < found.table.loc["log_loss", "null_low"]


def test_nothing_is_found_in_noise(noise):
    assert (noise.table["p"] > 0.05).all()
    assert abs(noise.table.loc["auc", "null_mean"] - 0.5) < 0.05
    assert len(noise.null) == 100


def test_every_sample_is_held_out_once_and_unseen():
    """Units as many as samples fit any labels perfectly; held-out probabilities cannot."""
    x = data(0.0, units=40, seed=1)
    probabilities, folds = held_out(x, 1)
    assert np.bincount(folds).tolist() == [8] * 5
    assert LogisticRegression().fit(x, Y).score(x, Y) == 1.0
    assert ((probabilities > 0.5) == Y).mean() < 0.8


def test_scaling_and_projection_change_with_the_training_folds():
    """A held-out outlier must not move the others' scale: the probability of the rest of its fold stays."""
    x = data(1.0)
    moved = x.copy()
    moved[0] += 1e6
    (before, folds), (after, _) = held_out(x, 3, components=3), held_out(moved, 3, components=3)
    same_fold = (folds == folds[0]) & (np.arange(40) > 0)
    np.testing.assert_allclose(before[same_fold], after[same_fold], rtol=1e-6)
    assert np.abs(before[folds != folds[0]] - after[folds != folds[0]]).max() > 1e-3


def test_many_units_give_what_the_plain_regression_gives():
    x = data(0.3, units=100, seed=4)
    probabilities, folds = held_out(x, 4)
    test = folds == 0
    mean, scale = x[~test].mean(axis=0), x[~test].std(axis=0)
    plain = LogisticRegression(tol=1e-10, max_iter=10_000).fit((x[~test] - mean) / scale, Y[~test])
    np.testing.assert_allclose(probabilities[test], plain.predict_proba((x[test] - mean) / scale)[:, 1], rtol=1e-4)


def test_the_seed_decides_and_the_scale_does_not(noise):
    """Variances at 2^±700 overflow or vanish: every unit would pass for a constant, were it not scaled first."""
    again = decode_labels(data(0.0) * np.repeat([2.0**-700, 2.0**700], 3), Y, seed=0, folds=2)
    np.testing.assert_array_equal(noise.probabilities, again.probabilities)
    assert noise.null.equals(again.null)
    assert not np.array_equal(held_out(data(0.0), 0)[1], held_out(data(0.0), 1)[1])


def test_constant_units_know_nothing():
    probabilities, _ = held_out(np.ones((40, 50)), 0)
    assert (probabilities == 0.5).all()


def test_p_counts_the_shuffles_that_are_as_good(found, noise):
    for decoding in (found, noise):
        better = decoding.null >= decoding.table["observed"]
        better["log_loss"] = decoding.null["log_loss"] <= decoding.table.loc["log_loss", "observed"]
        np.testing.assert_allclose(decoding.table["p"], (1 + better.sum()) / 101)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"folds": 21}, "folds"),
        ({"C": 0.0}, "C"),
        ({"permutations": 10}, "permutations"),
        ({"components": 7}, "components"),
    ],
)
def test_mistakes_are_named(options, named):
    with pytest.raises(ValueError, match=rf"^{named}="):
        decode_labels(data(0.0), Y, seed=0, **options)


def test_broken_units_are_named():
    x = data(0.0)
    x[3, 4] = np.nan
    with pytest.raises(ValueError, match=r"units \[4\]"):
        decode_labels(x, Y, seed=0)
