"""`compare` at its edges: statuses, dtypes, errors, probabilities, intervals, corrections."""

from __future__ import annotations

import dataclasses

import mpmath as mp
import numpy as np
import pytest
import torch
from scipy import stats

from actmax.stats import _inputs as inputs
from actmax.stats import _logistic
from actmax.stats._effects import noncentrality_interval
from actmax.stats.corrections import correct
from actmax.stats.groups import P_COLUMNS, STATUSES, compare
from actmax.stats.ttests import one_sample

Y = np.repeat([0, 1], 4)
CONTRACT = [
    "n_0",
    "n_1",
    "mean_0",
    "mean_1",
    "cohens_d",
    "cohens_d_low",
    "cohens_d_high",
    "auc",
    "mannwhitney_p",
    "student_t",
    "student_p",
    "welch_t",
    "welch_df",
    "welch_p",
    "paired_t",
    "paired_p",
    "n_pairs",
    "logit_coef",
    "logit_intercept",
    "logit_se",
    "logit_wald_p",
    "logit_lr",
    "logit_lr_p",
    "score_p",
    "firth_coef",
    "firth_intercept",
    "firth_se",
    "firth_lr_p",
    "status",
]


def one(x, y=Y, **options):
    return compare(np.asarray(x, dtype=float), y, **options).table.iloc[0]


def test_the_contracts_columns_are_there():
    table = compare(np.random.default_rng(0).normal(size=(8, 3)), Y).table
    assert set(CONTRACT) <= set(table.columns)
    assert {name for name in CONTRACT if name.endswith("_p")} == set(P_COLUMNS)
    for name in P_COLUMNS:
        assert {f"{name}_log10", f"{name}_bonferroni", f"{name}_bh"} <= set(table.columns)


@pytest.mark.parametrize(
    ("x", "status"),
    [
        ([1, 2, np.nan, 4, 5, 6, 7, 8], "not_finite"),
        ([1, 1, 1, 1, 1, 1, 1, np.inf], "not_finite"),
        ([3, 3, 3, 3, 3, 3, 3, 3], "constant"),
        ([1, 2, 3, 4, 5, 6, 7, 8], "separated"),
        ([8, 7, 6, 5, 4, 3, 2, 1], "separated"),
        ([1, 2, 3, 4, 4, 6, 7, 8], "quasi_separated"),
        ([1, 1, 1, 1, 1, 1, 1, 2], "quasi_separated"),
        ([1, 1, 1, 1, 2, 2, 2, 2], "separated"),
        ([1, 2, 3, 5, 4, 6, 7, 8], "ok"),
        ([2, 2, 2, 2, 1, 3, 1, 3], "ok"),
    ],
)
def test_status(x, status):
    assert status in STATUSES
    assert one(x)["status"] == status


def test_a_unit_that_is_not_finite_has_no_numbers_and_spoils_no_neighbour():
    x = np.random.default_rng(0).normal(size=(8, 3))
    clean = compare(x[:, [0, 2]], Y).table
    x[2, 1] = np.nan
    table = compare(x, Y).table
    assert table.loc[1].drop(["n_0", "n_1", "n_pairs", "status"]).isna().all()
    np.testing.assert_array_equal(table.loc[[0, 2], "student_p_bh"], clean["student_p_bh"])
    np.testing.assert_array_equal(table.loc[[0, 2], "student_p_bonferroni"], clean["student_p_bonferroni"])


def test_zero_variance_within_both_groups_is_no_infinite_t():
    """scipy gives t = inf and p = 0 here, which is how the check would fail."""
    row = one([0.1] * 4 + [0.3] * 4)
    assert row["status"] == "separated"
    assert np.isnan(row[["student_t", "student_p", "welch_t", "welch_df", "welch_p", "cohens_d"]].astype(float)).all()
    assert np.isfinite(row[["firth_coef", "firth_lr_p", "mannwhitney_p", "score_p"]].astype(float)).all()
    with pytest.warns(RuntimeWarning, match="Precision loss"):
        assert stats.ttest_ind([0.3] * 4, [0.1] * 4).pvalue < 1e-100


def test_one_constant_group_keeps_welch():
    row = one([2, 2, 2, 2, 1, 3, 4, 3])
    assert row["welch_df"] == 3.0
    expected = stats.ttest_1samp([1, 3, 4, 3], 2)
    np.testing.assert_allclose([row["welch_t"], row["welch_p"]], [expected.statistic, expected.pvalue], rtol=1e-12)


def test_a_group_of_one_is_too_few():
    row = one([1, 2, 3, 4, 5], np.array([0, 0, 0, 0, 1]))
    assert row["status"] == "too_few"
    assert (row["n_1"], row["mean_1"]) == (1, 5.0)
    assert np.isnan(row[[*P_COLUMNS, "student_t", "logit_coef", "firth_coef", "auc"]].astype(float)).all()


def test_near_separation_still_has_its_maximum():
    """Overlap by a hair: β is huge but exists, and the gradient there is nothing."""
    rng = np.random.default_rng(4)
    x = np.sort(rng.uniform(size=60))
    y = (np.arange(60) >= 30).astype(int)
    x[29], x[30] = x[30] + 1e-5, x[29]
    result = compare(x, y)
    row, p = result.table.iloc[0], result.probabilities(0)
    assert row["status"] == "ok"
    assert abs((y - p).sum()) < 1e-9
    assert abs(((y - p) * x).sum()) < 1e-9
    assert row["logit_coef"] > 2 * row["firth_coef"] > 0


@pytest.mark.parametrize("exponent", [-150, -30, 30, 150])
def test_any_scale_gives_the_same_tests(exponent):
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(30, 3)), np.repeat([0, 1], 15)
    table, scaled = compare(x, y).table, compare(x * 10.0**exponent, y).table
    for name in ("student_t", "logit_lr_p", "firth_lr_p", "auc", "logit_coef_std"):
        np.testing.assert_allclose(table[name], scaled[name], rtol=1e-9)
    np.testing.assert_allclose(table["logit_coef"], scaled["logit_coef"] * 10.0**exponent, rtol=1e-9)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_dtypes_are_computed_in_float64(dtype):
    x = (np.random.default_rng(6).normal(size=(8, 3)) * 8).astype(dtype)
    np.testing.assert_array_equal(compare(x, Y).table["welch_p"], compare(x.astype(np.float64), Y).table["welch_p"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_are_welcome(dtype):
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    ours = compare(x, torch.from_numpy(Y)).table
    np.testing.assert_array_equal(ours["student_p"], compare(x.detach().double().numpy(), Y).table["student_p"])


def test_one_unit_may_come_flat_and_lists_too():
    x = [0.1, 0.4, 0.2, 0.9, 0.3, 1.2, 0.8, 0.7]
    assert compare(x, Y.tolist()).table.equals(compare(np.array(x)[:, None], Y == 1).table)


def test_blocks_do_not_show(monkeypatch):
    x = np.random.default_rng(7).normal(size=(8, 50))
    whole = compare(x, Y).table
    monkeypatch.setattr(inputs, "BLOCK", 24)
    assert whole.equals(compare(x, Y).table)


def test_a_comparison_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        compare(np.arange(8.0), Y).alpha = 0.1


def test_probabilities_sum_to_the_group_and_are_nan_without_a_maximum():
    rng = np.random.default_rng(8)
    x = rng.normal(size=(30, 2)) + 1e8
    y = np.repeat([0, 1], [10, 20])
    x[y == 1, 1] += 50
    result = compare(x, y)
    np.testing.assert_allclose(result.probabilities(0).sum(), 20, rtol=1e-12)
    assert np.isnan(result.probabilities(1)).all()
    firth = result.probabilities(1, method="firth")
    assert (firth[y == 1] > 0.9).all()
    assert (firth[y == 0] < 0.1).all()


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: compare(np.zeros((2, 2, 2)), [0, 1]), "activations"),
        (lambda: compare(np.array(["a", "b"]), [0, 1]), "activations"),
        (lambda: compare(np.zeros((0, 3)), []), "activations"),
        (lambda: compare(np.zeros(4), [0, 1]), "labels"),
        (lambda: compare(np.zeros(4), [0, 1, 2, 1]), "labels"),
        (lambda: compare(np.zeros(4), ["n", "n", "v", "v"]), "labels"),
        (lambda: compare(np.zeros(4), [1, 1, 1, 1]), "labels"),
        (lambda: compare(np.zeros(4), [0, 0, 1, 1], alpha=1.5), "alpha"),
        (lambda: compare(np.zeros(4), [0, 0, 1, 1], pairs=[0, 1]), "pairs"),
        (lambda: compare(np.zeros(4), [0, 0, 1, 1], pairs=[0, 0, 1, 1]), "pairs"),
        (lambda: compare(np.zeros(4), [0, 0, 1, 1], pairs=[0, 1, 0, 2]), "pairs"),
        (lambda: compare(np.zeros(4), [0, 0, 1, 1]).probabilities(1), "unit"),
        (lambda: compare(np.zeros(4), [0, 0, 1, 1]).probabilities(0, method="map"), "method"),
        (lambda: one_sample(np.zeros(4), np.nan), "popmean"),
        (lambda: correct(np.ones(3), "sidak"), "method"),
        (lambda: correct(np.array([0.1, -3.0]), "bh"), "p"),
    ],
)
def test_mistakes_are_named(call, named):
    with pytest.raises(ValueError, match=rf"^{named}=.+: .+\. .+"):
        call()


def test_log10_goes_on_where_p_ends():
    rng = np.random.default_rng(9)
    y = np.repeat([0, 1], 600)
    row = one(rng.normal(size=1200) + 60 * y, y)
    assert row["student_p"] == 0.0
    assert -2500 < row["student_p_log10"] < -1000
    assert row["student_p_bonferroni"] == 0.0


@pytest.mark.parametrize("df", [2.0, 5.0, 38.0, 198.0, 1998.0])
@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_noncentral_interval_against_quadrature(df, alpha):
    """The limits put back into the noncentral t, integrated here another way, give alpha/2."""
    t = np.array([0.0, 1e-9, 0.3, 2.0, 6.0, 20.0, 49.0, 51.0, 290.0, 310.0, 5e3])
    low, high = noncentrality_interval(t, df, alpha)
    # Small df and tiny alpha meet the kink that `FAR_T_TINY` names.
    rtol = 1e-9 if alpha == 0.05 or df > 2 else 1e-5
    np.testing.assert_allclose([_tail(a, df, b, upper=True) for a, b in zip(t, low, strict=True)], alpha / 2, rtol=rtol)
    np.testing.assert_allclose(
        [_tail(a, df, b, upper=False) for a, b in zip(t, high, strict=True)], alpha / 2, rtol=rtol
    )
    mirrored = noncentrality_interval(-t, df, alpha)
    np.testing.assert_array_equal(mirrored, (-high, -low))


def test_the_interval_check_can_fail():
    assert (
        abs(_tail(2.0, 38.0, noncentrality_interval(np.array([2.0]), 38.0, 0.05)[0][0] + 1e-6, upper=True) - 0.025)
        > 1e-8
    )


def _tail(t, df, delta, *, upper):
    """P(T >= t) or P(T <= t) by the trapezoid rule in log S."""
    width = 1 / np.sqrt(2 * df)
    step = 0.2 * min(width, 1 / max(t, 1e-9))
    u = np.arange(min(-60 / df if df < 80 else 0, -12 * width), np.log1p(14 * width), step)
    log_weight = df * u - df / 2 * np.exp(2 * u)
    weight = np.exp(log_weight - log_weight.max())
    z = t * np.exp(u) - delta
    return (weight * stats.norm.cdf(-z if upper else z)).sum() / weight.sum()


@pytest.mark.parametrize(
    ("t", "df", "low", "high"),
    [
        (55.0, 999_998.0, 53.0385, 56.9614),
        (60.0, 99_998.0, None, None),
        (200.0, 1e7, None, None),
        (51.0, 4e3, None, None),
    ],
)
def test_large_t_at_many_degrees_of_freedom(t, df, low, high):
    """P(T <= t | δ) is too sharp in Z for the nodes there; mpmath integrates Φ(t s - δ) over the density of S."""
    found = [float(limit[0]) for limit in noncentrality_interval(np.array([t]), df, 0.05)]
    if low is not None:
        np.testing.assert_allclose(found, [low, high], atol=5e-5)
    width = 1 / mp.sqrt(2 * df)

    def density(u):
        return mp.exp(df * (u - mp.expm1(2 * u) / 2))

    places = [k * width for k in range(-12, 13, 3)]
    mass = mp.quad(density, places)
    above = mp.quad(lambda u: density(u) * mp.ncdf(found[0] - t * mp.exp(u)), places) / mass
    below = mp.quad(lambda u: density(u) * mp.ncdf(t * mp.exp(u) - found[1]), places) / mass
    np.testing.assert_allclose([float(above), float(below)], 0.025, rtol=1e-9)


def test_hedges_correction_and_by_are_options():
    x = np.random.default_rng(10).normal(size=(8, 4))
    table = compare(x, Y, hedges=True, by=True).table
    np.testing.assert_allclose(table["hedges_g"] / table["cohens_d"], 1 - 3 / (4 * 6 - 1), rtol=2e-3)
    assert (table["student_p_by"] >= table["student_p_bh"]).all()
    assert "hedges_g" not in compare(x, Y).table
    assert "student_p_by" not in compare(x, Y).table


def test_alpha_sets_the_interval():
    x = np.random.default_rng(11).normal(size=8)
    wide, narrow = one(x, alpha=0.01), one(x, alpha=0.2)
    assert (
        wide["cohens_d_low"]
        < narrow["cohens_d_low"]
        < narrow["cohens_d"]
        < narrow["cohens_d_high"]
        < wide["cohens_d_high"]
    )


def test_probabilities_do_not_follow_a_reused_array():
    x = np.random.default_rng(13).normal(size=(8, 2))
    result = compare(x, Y)
    before = result.probabilities(0, method="firth")
    x[:] = x[::-1] * 5
    np.testing.assert_array_equal(result.probabilities(0, method="firth"), before)


def test_one_outlier_does_not_hide_a_separation_from_firth():
    """The climb from β = 0 ends at p = 0.2 on each of these units; ranks and Firth's real maximum know better."""
    rng = np.random.default_rng(14)
    y = np.repeat([0, 1], [5, 30])
    x = rng.normal(size=(35, 40)) + 6 * y[:, None]
    x[20] = 100.0
    table, calm = compare(x, y).table, compare(np.delete(x, 20, axis=0), np.delete(y, 20)).table
    assert (table["status"] == "separated").all()
    assert (table["firth_lr_p"] < 1e-3).all()
    np.testing.assert_allclose(table["firth_coef"], calm["firth_coef"], rtol=0.1)
    start = np.log(31) - np.log(6)
    block = inputs.block_of(x, y == 1)
    from_flat = _logistic._maximize(
        _logistic._penalised, block.centred, _logistic.side_of(y == 1).sign, np.full(40, start), np.zeros(40)
    )[1]
    assert (from_flat < 0.5 * np.ldexp(table["firth_coef"], block.exponent + block.spread_exponent)).mean() > 0.5


@pytest.mark.parametrize("scale", [1e-150, 1e-8, 1.0, 1e8])
def test_one_sample_keeps_its_digits_beside_any_popmean(scale):
    """Subtracting a popmean far above the spread first would round the spread away, and call the unit constant."""
    x = np.random.default_rng(15).normal(size=7) * scale
    exact = (mp.fsum(map(mp.mpf, x)) / 7 - mp.mpf(0.5)) * mp.sqrt(42)
    exact /= mp.sqrt(mp.fsum((mp.mpf(v) - mp.fsum(map(mp.mpf, x)) / 7) ** 2 for v in x))
    row = one_sample(x, 0.5).table.iloc[0]
    assert row["status"] == "ok"
    np.testing.assert_allclose(row["t"], float(exact), rtol=1e-13)


def test_a_one_sample_t_beyond_float64_is_not_finite():
    row = one_sample(np.array([1.0, 2.0, 3.0]) * 1e-300, 1e20).table.iloc[0]
    assert row["status"] == "not_finite"
    assert np.isnan(row[["t", "p", "p_log10"]].astype(float)).all()


def test_one_sample_against_scipy_and_its_statuses():
    x = np.random.default_rng(12).normal(size=(9, 4)) + 0.3
    x[:, 2], x[0, 3] = 0.1, np.nan
    table = one_sample(x, 0.2).table
    expected = stats.ttest_1samp(x[:, :2], 0.2)
    np.testing.assert_allclose(table["t"][:2], expected.statistic, rtol=1e-12)
    np.testing.assert_allclose(table["p"][:2], expected.pvalue, rtol=1e-12)
    assert table["status"].tolist() == ["ok", "ok", "constant", "not_finite"]
    assert table["t"][2:].isna().all()
    assert one_sample([1.0]).table["status"].tolist() == ["too_few"]
