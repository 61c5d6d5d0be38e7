"""The decoder: held-out probabilities, and a null that finds nothing where there is nothing."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from actmax.stats.decoder import _exchanged, _model, _out_of_fold, decode_labels

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


@pytest.mark.parametrize("samples", [30, 50, 60, 100, 101, 200, 400])
def test_units_that_say_nothing_decode_at_chance(samples):
    """Whatever the folds: a fold's own share of labels would tell of those that are held out."""
    y = (np.arange(samples) >= samples // 2).astype(int)
    x = np.zeros((samples, 3))
    found = decode_labels(x, y, seed=0)
    assert found.table.loc["auc", "observed"] == 0.5
    assert (found.table["p"] == 1).all()
    np.testing.assert_allclose(found.probabilities, y.mean(), rtol=1e-12)


@pytest.mark.parametrize("fires", [1, 2, 3])
def test_units_that_fire_on_a_few_samples(fires):
    """The regression against scikit-learn's other solver, on one fold's training samples."""
    y = np.repeat([0, 1], 50)
    x = np.zeros((100, 3))
    for unit in range(3):
        x[np.random.default_rng([fires, unit]).choice(100, fires, replace=False), unit] = 1.0
    probabilities, folds = _out_of_fold(_model(1.0, None, x.shape), x, y == 1, 5, np.random.default_rng(0))
    train = folds != 0
    mean, scale = x[train].mean(axis=0), x[train].std(axis=0)
    scale[scale == 0] = 1.0
    plain = LogisticRegression(tol=1e-10, max_iter=10_000).fit((x[train] - mean) / scale, y[train])
    np.testing.assert_allclose(probabilities[~train], plain.predict_proba((x[~train] - mean) / scale)[:, 1], rtol=1e-5)


WORDS = np.repeat(np.arange(20), 4)
LABEL_OF_WORD = np.repeat([0, 1], 40)


def occurrences(seed, noise=0.05):
    """Four occurrences of each of twenty words: each word has its own place, which says nothing of its label."""
    rng = np.random.default_rng(seed)
    return np.repeat(rng.normal(size=(20, 30)), 4, axis=0) + noise * rng.normal(size=(80, 30))


@pytest.mark.parametrize("names", [WORDS, [f"word {k}" for k in WORDS], np.array([str(k) for k in WORDS], object)])
def test_a_group_is_never_on_both_sides(names):
    found = decode_labels(occurrences(0), LABEL_OF_WORD, seed=0, folds=4, groups=names)
    for word in range(20):
        assert len(set(found.folds[word == WORDS])) == 1
    for fold in range(4):
        assert set(LABEL_OF_WORD[found.folds == fold]) == {0, 1}


@pytest.mark.slow
def test_words_that_are_recognised_are_no_decoding():
    """Negative control: without groups every word's label is known from its other occurrences."""
    recognised = decode_labels(occurrences(1), LABEL_OF_WORD, seed=0, folds=4).table
    decoded = decode_labels(occurrences(1), LABEL_OF_WORD, seed=0, folds=4, groups=WORDS).table
    assert recognised.loc["auc", "observed"] > 0.95
    assert recognised.loc["auc", "p"] == 1 / 101
    assert decoded.loc["auc", "p"] > 0.05
    assert decoded.loc["auc", "null_high"] < 0.95


@pytest.mark.parametrize("kind", ["pure", "pairs", "uneven"])
def test_shuffles_keep_groups_together(kind):
    rng = np.random.default_rng(2)
    names = {"pure": WORDS, "pairs": np.tile(np.arange(20), 2), "uneven": np.repeat(np.arange(10), np.arange(1, 11))}[
        kind
    ]
    y = {"pure": LABEL_OF_WORD == 1, "pairs": np.arange(40) >= 20, "uneven": names % 2 == 1}[kind]
    for _ in range(20):
        shuffled = _exchanged(y, names, rng)
        for name in np.unique(names):
            inside = names == name
            assert shuffled[inside].sum() in ({y[inside].sum()} if kind == "pairs" else {0, inside.sum()})
    assert any((_exchanged(y, names, rng) != y).any() for _ in range(5))


def test_pairs_are_held_out_together():
    rng = np.random.default_rng(3)
    y, pair = np.repeat([0, 1], 20), np.tile(np.arange(20), 2)
    x = np.tile(3 * rng.normal(size=(20, 5)), (2, 1)) + rng.normal(size=(40, 5)) + 2.0 * y[:, None]
    found = decode_labels(x, y, seed=0, folds=4, groups=pair)
    np.testing.assert_array_equal(found.folds[:20], found.folds[20:])
    assert found.table.loc["auc", "p"] == 1 / 101


@pytest.mark.slow
def test_groups_hold_their_level():
    """Words with places of their own and nothing else: p is below 0.1 about as often as it says."""
    p = [
        decode_labels(occurrences(seed), LABEL_OF_WORD, seed=seed, folds=2, groups=WORDS).table.loc["auc", "p"]
        for seed in range(24)
    ]
    assert np.mean(np.array(p) <= 0.1) <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / 24)


@pytest.mark.parametrize(
    ("groups", "folds", "named"),
    [
        (WORDS[:-1], 4, "groups"),
        (np.array([None, *WORDS[1:]], object), 4, "groups"),
        (np.where(LABEL_OF_WORD == 1, 99, WORDS), 2, "folds"),
        (WORDS, 11, "folds"),
    ],
)
def test_groups_that_cannot_be_split_are_named(groups, folds, named):
    with pytest.raises(ValueError, match=rf"^{named}="):
        decode_labels(occurrences(0), LABEL_OF_WORD, seed=0, folds=folds, groups=groups)
