"""Logistic regression where samples lie far off: the maximum of the likelihood, and the highest of Firth's maxima."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, special, stats

from actmax.stats import _logistic
from actmax.stats.groups import compare
from firth_maxima import highest, penalised, random_set

Y = np.repeat([0, 1], 10)
X = np.array(
    [-3.4e38, -0.4, 0.3, 1.2, -1.1, 0.8, -0.6, 0.1, 0.9, -0.2, 0.5, 1.9, 0.2, 2.4, -0.3, 1.1, 1.6, 0.7, 2.2, -0.1]
)


def with_first(value):
    return np.r_[value, X[1:]]


def without_far(x, y, limit):
    """β and the likelihood-ratio p if samples beyond a limit, on their own side, weigh nothing: BFGS on the others."""
    near = np.abs(x) < limit

    def loss(theta):
        return np.logaddexp(0, -(2 * y[near] - 1) * (theta[0] + theta[1] * x[near])).sum()

    found = optimize.minimize(loss, [0.0, 0.0], method="BFGS", options={"gtol": 1e-9})
    null = -len(y) * (special.entr(y.mean()) + special.entr(1 - y.mean()))
    return found.x[1], stats.chi2.sf(2 * (-null - found.fun), 1)


@pytest.mark.parametrize("far", [-1e305, -1e200, -3.4e38, -1e100, -1e30, -1e12, -1e6, -1e4])
def test_a_far_sample_on_its_own_side_weighs_nothing(far):
    """The group's other nine samples have the maximum that they have without it, but count one more for the null."""
    row = compare(with_first(far), Y).table.iloc[0]
    slope, p = without_far(with_first(far), Y, 1e3)
    assert row["status"] == "ok"
    np.testing.assert_allclose([row["logit_coef"], row["logit_lr_p"]], [slope, p], rtol=1e-5)
    np.testing.assert_allclose(row["logit_coef"], 1.268789, rtol=1e-6)
    np.testing.assert_allclose(row["logit_lr_p"], 0.0121, atol=5e-5)


def test_many_far_samples_on_several_scales():
    x = np.r_[-1e30, -1e9, X[2:10], X[10:18], 1e5, 1e20]
    row = compare(x, Y).table.iloc[0]
    np.testing.assert_allclose([row["logit_coef"], row["logit_lr_p"]], without_far(x, Y, 1e3), rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-38, 1e-5, 1e30])
def test_the_unit_of_measurement_does_not_matter(scale):
    ours, plain = compare(with_first(-1e12) * scale, Y).table.iloc[0], compare(with_first(-1e12), Y).table.iloc[0]
    np.testing.assert_allclose(ours["logit_coef"] * scale, plain["logit_coef"], rtol=1e-9)
    np.testing.assert_allclose(ours["logit_lr_p"], plain["logit_lr_p"], rtol=1e-9)


@pytest.mark.parametrize("far", [1e4, 1e8, 1e12, 3.4e38])
def test_a_far_sample_on_the_other_side_rules(far):
    """Negative control: here the far sample makes the estimate. The gradient at it is 0, in units of the far sample."""
    x = with_first(far)
    result = compare(x, Y)
    row, p = result.table.iloc[0], result.probabilities(0)
    assert row["status"] == "ok"
    assert row["logit_coef"] < 0
    assert abs((Y - p).sum()) < 1e-9
    # At the maximum Σ (y - p) x = 0: the far sample's own share is what the others leave.
    others = ((Y - p) * x)[1:].sum()
    margin = -(row["logit_intercept"] + row["logit_coef"] * far)
    np.testing.assert_allclose(-far * special.expit(-margin), -others, rtol=1e-5)


SMALL = [0.5, 0.8, 0.03], [510, 415, 1020, 48, 70, 2190, 106, 1150, 116]


def test_firth_takes_the_higher_of_two_maxima():
    x, y = np.r_[SMALL[0], SMALL[1]], np.repeat([0, 1], [3, 9])
    row, (slope, ratio) = compare(x, y).table.iloc[0], highest(x, y)
    np.testing.assert_allclose([row["firth_coef"], row["firth_lr"]], [slope, ratio], rtol=1e-4)
    assert (round(slope, 3), round(stats.chi2.sf(ratio, 1), 4)) == (0.050, 0.0757)


@pytest.mark.parametrize(("kind", "seed"), [("lognormal", 3), ("rectified", 5), ("separated", 7), ("normal", 11)])
def test_firth_misses_no_higher_maximum(kind, seed):
    """A dozen sets of each kind; `scripts/firth_maxima.py` tries 2,000."""
    rng = np.random.default_rng(seed)
    for _ in range(12):
        x, y = random_set(kind, rng)
        assert compare(x, y).table["firth_lr"].iloc[0] > highest(x, y)[1] - 2e-6, (x, y)


def test_the_check_of_maxima_can_fail():
    """From β = 0 alone, as R's brglm2 and logistf start, the maximum of the small set is missed."""
    x, y = np.r_[SMALL[0], SMALL[1]], np.repeat([0, 1], [3, 9])
    climb = optimize.minimize(lambda at: -penalised(x / 1e3, y, *at), [np.log(10 / 4), 0.0], method="BFGS")
    null = penalised(x / 1e3, y, np.log(10 / 4), 0.0)
    assert 2 * (-climb.fun - null) < highest(x, y)[1] - 0.1


def parting_sets(seed):
    """Groups that nearly part, and rectified and log-normal ones: of 200 units some have sharp maxima."""
    rng = np.random.default_rng(seed)
    drawn, apart = rng.normal(size=(3, 48, 200)), 2 * np.repeat([0, 1], 24)[:, None]
    return [drawn[0] + apart, np.maximum(drawn[1] + apart - 1.5, 0), np.sort(np.exp(2 * drawn[2]), axis=0)]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_bound_rules_out_no_maximum(place, monkeypatch):
    """Where the bound says that no sharper maximum is higher, trying all starts finds none, to the last bit."""
    x, y = parting_sets(0)[place], np.repeat([0, 1], 24)
    asked = []
    bound = _logistic._maybe_elsewhere

    def counted(*given):
        asked.append(bound(*given))
        return asked[-1]

    monkeypatch.setattr(_logistic, "_maybe_elsewhere", counted)
    ours = compare(x, y).table
    assert place == 2 or not np.concatenate(asked).all()
    monkeypatch.setattr(_logistic, "_maybe_elsewhere", lambda x, *_: np.ones(len(x), dtype=bool))
    pd.testing.assert_frame_equal(ours, compare(x, y).table, check_exact=True)


def test_without_sharp_starts_maxima_are_missed(monkeypatch):
    """Negative control of the bound: one that rules out everything loses some."""
    x, y = parting_sets(0)[2], np.repeat([0, 1], 24)
    ours = compare(x, y).table["firth_lr"]
    monkeypatch.setattr(_logistic, "_maybe_elsewhere", lambda x, *_: np.zeros(len(x), dtype=bool))
    assert (compare(x, y).table["firth_lr"] < ours - 1e-3).any()
