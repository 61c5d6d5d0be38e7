"""Logistic regression where samples lie far off: the maximum of the likelihood, and the highest of Firth's maxima."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, special, stats

from actmax.stats.groups import compare

Y = np.repeat([0, 1], 10)
X = np.array([-3.4e38, -0.4, 0.3, 1.2, -1.1, 0.8, -0.6, 0.1, 0.9, -0.2, 0.5, 1.9, 0.2, 2.4, -0.3, 1.1, 1.6, 0.7, 2.2, -0.1])


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


@pytest.mark.parametrize("far", [-3.4e38, -1e100, -1e30, -1e12, -1e6, -1e4])
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


def penalised(x, y, intercept, slope):
    """Firth's penalised log likelihood as Heinze & Schemper (2002) write it."""
    eta = intercept + slope * x
    log_weight = -np.abs(eta) - 2 * np.log1p(np.exp(-np.abs(eta)))
    weight = np.exp(log_weight)
    centre = (weight * x).sum() / weight.sum()
    with np.errstate(divide="ignore"):
        penalty = np.log(weight.sum()) + np.log((weight * (x - centre) ** 2).sum())
    return (y * eta - np.logaddexp(0, eta)).sum() + penalty / 2


def highest(x, y):
    """The highest penalised likelihood on a grid of cuts and slopes, polished by Nelder-Mead; β and the ratio's p."""
    ordered = np.unique(x)
    gaps = np.diff(ordered)
    cuts = np.r_[ordered, ordered[:-1] + gaps / 2, ordered[:-1] + gaps / 9, ordered[1:] - gaps / 9]
    slopes = np.geomspace(0.02 / np.ptp(x), 40 / max(gaps.min(), 1e-5 * np.ptp(x)), 50)
    with np.errstate(all="ignore"):
        grid = [(penalised(x, y, -cut * b, b), cut, b) for cut in cuts for b in np.r_[-slopes, slopes]]
        grid = sorted((point for point in grid if np.isfinite(point[0])), reverse=True)
        # Far apart: of each slope's neighbourhood only the best cut is polished.
        starts = {round(np.log2(abs(b))) * np.sign(b): (cut, b) for _, cut, b in reversed(grid)}.values()
        starts = sorted(starts, key=lambda at: -penalised(x, y, -at[0] * at[1], at[1]))[:6]

        def loss(at, cut, b):
            return -penalised(x, y, -(cut + at[1] / abs(b)) * b * np.exp(at[0]), b * np.exp(at[0]))

        polish = {"method": "Nelder-Mead", "options": {"xatol": 1e-7, "fatol": 1e-11, "maxiter": 800}}
        ends = [(optimize.minimize(loss, [0.0, 0.0], start, **polish), start[1]) for start in starts]
    best, b = min(ends, key=lambda end: end[0].fun)
    null = penalised(x, y, np.log((y.sum() + 1) / ((1 - y).sum() + 1)), 0.0)
    return b * np.exp(best.x[0]), 2 * (-best.fun - null)


SMALL = [0.5, 0.8, 0.03], [510, 415, 1020, 48, 70, 2190, 106, 1150, 116]


def test_firth_takes_the_higher_of_two_maxima():
    x, y = np.r_[SMALL[0], SMALL[1]], np.repeat([0, 1], [3, 9])
    row, (slope, ratio) = compare(x, y).table.iloc[0], highest(x, y)
    np.testing.assert_allclose([row["firth_coef"], row["firth_lr"]], [slope, ratio], rtol=1e-4)
    assert (round(slope, 3), round(stats.chi2.sf(ratio, 1), 4)) == (0.050, 0.0757)


def random_set(kind, rng):
    sizes = rng.integers(2, 11, 2)
    y = np.repeat([0, 1], sizes)
    draw = rng.normal(size=sizes.sum())
    if kind == "lognormal":
        return np.exp(rng.uniform(0.5, 4) * draw + rng.normal(0, 2) * y), y
    if kind == "rectified":
        return np.maximum(draw + rng.uniform(-1.5, 0.5) + rng.uniform(0, 2) * y, 0), y
    if kind == "separated":
        return np.sort(np.exp(rng.uniform(0.2, 2.5) * draw)), y
    return draw + rng.uniform(-2, 2) * y, y


@pytest.mark.parametrize(("kind", "seed"), [("lognormal", 3), ("rectified", 5), ("separated", 7), ("normal", 11)])
def test_firth_misses_no_higher_maximum(kind, seed):
    """A dozen sets of each kind; `scripts/firth_maxima.py` tries 2,000."""
    rng, tried = np.random.default_rng(seed), 0
    while tried < 12:
        x, y = random_set(kind, rng)
        if len(np.unique(x)) < 3:
            continue
        tried += 1
        assert compare(x, y).table["firth_lr"].iloc[0] > highest(x, y)[1] - 2e-6, (x, y)


def test_the_check_of_maxima_can_fail():
    """From β = 0 alone, as R's brglm2 and logistf start, the maximum of the small set is missed."""
    x, y = np.r_[SMALL[0], SMALL[1]], np.repeat([0, 1], [3, 9])
    climb = optimize.minimize(lambda at: -penalised(x / 1e3, y, *at), [np.log(10 / 4), 0.0], method="BFGS")
    null = penalised(x / 1e3, y, np.log(10 / 4), 0.0)
    assert 2 * (-climb.fun - null) < highest(x, y)[1] - 0.1
