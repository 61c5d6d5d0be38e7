"""Decoders of many layers: the same fit as scikit-learn's, a null that holds, groups that are never split."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from actmax.errors import InputError
from actmax.stats.layers import Folds, decode_products, make_folds, products


def sample(units: int, seed: int = 0, effect: float = 1.0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    labels = np.arange(60) % 2 == 1
    x = rng.normal(size=(60, units)) * rng.uniform(0.1, 10, units) + rng.normal(size=units) * 5
    x[:, 0] += effect * labels * x[:, 0].std()
    return x, labels, [f"w{number}" for number in range(60)]


def plain(labels: np.ndarray, groups: list[str], *, seed: int = 0, permutations: int = 20, folds: int = 4) -> Folds:
    return make_folds(labels, groups, folds=folds, permutations=permutations, seed=seed)


@pytest.mark.parametrize("units", [5, 200])
@pytest.mark.parametrize("C", [1.0, 30.0])
def test_the_fit_is_scikit_learns(units: int, C: float) -> None:
    x, labels, groups = sample(units)
    folds = plain(labels, groups)
    found = decode_products(products(x, folds), folds, C=C)
    expected = np.empty(60)
    for fold in range(4):
        train = folds.held_out != fold
        model = make_pipeline(StandardScaler(), LogisticRegression(C=C / units, tol=1e-12, max_iter=10_000))
        expected[~train] = model.fit(x[train], labels[train]).predict_proba(x[~train])[:, 1]
    assert np.abs(found.probabilities - expected).max() < 1e-5
    table = found.table["observed"]
    assert table["accuracy"] == ((expected > 0.5) == labels).mean()
    assert table["auc"] == pytest.approx(roc_auc_score(labels, expected))
    assert table["log_loss"] == pytest.approx(log_loss(labels, expected), rel=1e-5)


def test_products_of_parts_add_up_to_the_whole() -> None:
    x, labels, groups = sample(20)
    folds = plain(labels, groups)
    parts, whole = products(x[:, :8], folds) + products(x[:, 8:], folds), products(x, folds)
    assert parts.units == whole.units == 20
    assert np.allclose(parts.values, whole.values)


def test_a_strong_effect_beats_its_null_and_constant_units_say_nothing() -> None:
    x, labels, groups = sample(3, effect=5.0)
    x[:, 1:] = 7.0
    folds = plain(labels, groups, permutations=100)
    strong = decode_products(products(x, folds), folds)
    assert strong.table.loc["accuracy", "observed"] > 0.9 > strong.table.loc["accuracy", "null_high"]
    assert strong.table.loc["accuracy", "p"] == pytest.approx(1 / 101)
    nothing = decode_products(products(np.ones((60, 2)), folds), folds)
    assert np.allclose(nothing.probabilities, 0.5, atol=0.1)


def test_the_null_holds_where_nothing_is() -> None:
    """Over 150 draws of noise p is at most 0.05 about as often as it says; an effect is seen nearly always."""

    def found(seed: int, effect: float) -> bool:
        x, labels, groups = sample(10, seed=seed, effect=effect)
        folds = plain(labels, groups, seed=seed, permutations=19, folds=2)
        return decode_products(products(x, folds), folds).table.loc["auc", "p"] <= 0.05

    assert np.mean([found(seed, 0.0) for seed in range(150)]) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 150)
    assert np.mean([found(seed, 2.0) for seed in range(20)]) > 0.8


def test_groups_stay_whole_and_shuffles_keep_the_balance_of_folds() -> None:
    _, labels, _ = sample(3)
    groups = [f"w{number // 3}" for number in range(60)]
    folds = plain(labels, groups)
    assert len(set(zip(groups, folds.held_out.tolist(), strict=True))) == 20
    for fold in range(4):
        inside = folds.labels[folds.held_out == fold]
        assert (inside.sum(0) == inside[:, 0].sum()).all()
    assert (folds.labels[:, 0] == labels).all()
    assert (folds.labels[:, 1:] != labels[:, None]).any(axis=0).all()


def test_pairs_are_swapped_whole() -> None:
    _, labels, _ = sample(3)
    groups = [f"w{number // 2}" for number in range(60)]
    folds = make_folds(labels, groups, folds=4, permutations=20, seed=0, paired=True)
    for column in folds.labels.T:
        assert (column.reshape(30, 2).sum(1) == 1).all()


def test_refuses() -> None:
    x, labels, groups = sample(3)
    with pytest.raises(InputError, match=r"^folds="):
        plain(labels, groups, folds=31)
    with pytest.raises(InputError, match=r"^folds="):
        plain(labels, groups, folds=1)
    folds = plain(labels, groups)
    with pytest.raises(InputError, match=r"^C="):
        decode_products(products(x, folds), folds, C=0.0)
