"""Concordance and assumptions: what they say where the answer is known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.contingency_tables import mcnemar

from actmax.report.words import concordance_statement
from actmax.stats.diagnostics import assumptions
from actmax.stats.groups import compare
from actmax.stats.t_and_logit import concordance, predicted_score

Y = np.repeat([0, 1], 25)


@pytest.fixture(scope="module")
def comparison():
    rng = np.random.default_rng(0)
    return compare(rng.normal(size=(50, 120)) + Y[:, None] * np.linspace(0, 5, 120), Y)


def test_correlations_agree_with_scipy(comparison):
    rows = concordance(comparison).correlations.set_index(["x", "y", "units"])
    known = comparison.table[comparison.table["logit_coef_std"].notna()]
    row = rows.loc[("student_t", "logit_coef_std", "all")]
    assert row["n"] == len(known) < 120
    assert row["pearson"] == pytest.approx(stats.pearsonr(known["student_t"], known["logit_coef_std"]).statistic)
    assert row["spearman"] == pytest.approx(stats.spearmanr(known["student_t"], known["logit_coef_std"]).statistic)


def test_separated_units_are_counted_with_and_without(comparison):
    rows = concordance(comparison).correlations.set_index(["x", "y", "units"])["n"]
    separated = comparison.table["status"].isin(["separated", "quasi_separated"]).sum()
    assert separated > 0
    assert rows["student_t", "firth_coef_std", "all"] == 120
    assert rows["student_t", "firth_coef_std", "overlapping"] == 120 - separated


def test_agreement_agrees_with_sklearn(comparison):
    agreement = concordance(comparison).agreement.set_index(["t_test", "logistic", "level", "units"])
    row = agreement.loc[("student", "firth_lr", "bonferroni", "all")]
    t, firth = (comparison.table[f"{name}_p_bonferroni"] <= 0.05 for name in ("student", "firth_lr"))
    assert row["kappa"] == pytest.approx(cohen_kappa_score(t, firth))
    assert row["agreement"] == pytest.approx((t == firth).mean())
    assert row[["both", "t_only", "logistic_only", "neither"]].sum() == row["n"] == 120


def test_the_score_is_the_pooled_t_and_not_another():
    rng = np.random.default_rng(1)
    found = concordance(compare(rng.normal(size=(50, 20)), Y))
    assert found.theory["difference"].abs().max() < 1e-11
    table = compare(rng.normal(size=(50, 20)), Y).table
    wrong = 50 * table["student_t"] ** 2 / (50 + table["student_t"] ** 2)
    assert (table["score"] - wrong).abs().max() > 1e-3


def test_the_statement_names_its_units(comparison):
    text = concordance_statement(concordance(comparison).headline)
    assert "overlapping units" in text
    assert "α=0.05" in text


def test_mcnemar_and_the_cells_agree_with_statsmodels(comparison):
    """Every row, counted again from the table; and the counts of another level would not do."""
    agreement = concordance(comparison).agreement.set_index(["t_test", "logistic", "level", "units"])
    table = comparison.table[comparison.table["status"] == "ok"]
    ends = {"raw": "", "bonferroni": "_bonferroni"}
    for t_test, logistic, level in itertools.product(("student", "welch"), ("logit_wald", "score"), ends):
        row = agreement.loc[(t_test, logistic, level, "overlapping")]
        by_t, by_logistic = (table[f"{name}_p{ends[level]}"] <= 0.05 for name in (t_test, logistic))
        square = [[(by_t & by_logistic).sum(), (by_t & ~by_logistic).sum()]]
        square += [[(~by_t & by_logistic).sum(), (~by_t & ~by_logistic).sum()]]
        assert row[["both", "t_only", "logistic_only", "neither"]].tolist() == np.ravel(square).tolist()
        assert row["mcnemar_p"] == pytest.approx(mcnemar(square, exact=True).pvalue)
        other = agreement.loc[(t_test, logistic, "bonferroni" if level == "raw" else "raw", "overlapping")]
        assert other["both"] != row["both"]


def test_the_predicted_score_at_huge_t():
    """No warning, which is an error here, and N in the limit."""
    np.testing.assert_allclose(predicted_score(np.array([0.0, 1e-200, 1e200]), np.full(3, 40)), [0, 0, 40], atol=1e-300)


def test_nothing_to_correlate_is_nan():
    found = concordance(compare(np.ones((50, 5)), Y))
    assert concordance_statement(found.headline).startswith("No unit has both")
    assert found.correlations["pearson"].isna().all()
    assert found.agreement["kappa"].isna().all()


def test_assumptions_against_scipy():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(50, 5)) + 1e6
    table = assumptions(x, Y).table
    for unit in range(5):
        zero, one = x[Y == 0, unit], x[Y == 1, unit]
        row = table.loc[unit]
        expected = stats.levene(zero, one, center="median").pvalue
        assert row["brown_forsythe_p"] == pytest.approx(expected, rel=1e-6)
        assert row["shapiro_p_0"] == pytest.approx(stats.shapiro(zero).pvalue, rel=1e-6)
        assert row["skewness_1"] == pytest.approx(stats.skew(one), rel=1e-6)
        assert row["kurtosis_1"] == pytest.approx(stats.kurtosis(one), rel=1e-6)
        assert row["variance_ratio"] == pytest.approx(one.var(ddof=1) / zero.var(ddof=1), rel=1e-6)


@pytest.mark.parametrize("sizes", [(2, 2), (2, 30)])
def test_two_samples_have_no_spread_of_spreads(sizes):
    """Both lie equally far from their median; rounding alone would give p = 1e-30 on three units of four."""
    y = np.repeat([0, 1], sizes)
    x = np.random.default_rng(5).normal(size=(len(y), 50)) + 3.3
    table = assumptions(x, y).table
    if sizes == (2, 2):
        assert table["brown_forsythe_p"].isna().all()
    else:
        expected = [stats.levene(x[y == 0, u], x[y == 1, u], center="median").pvalue for u in range(50)]
        np.testing.assert_allclose(table["brown_forsythe_p"], expected, rtol=1e-9)
    assert table["student_doubtful"].all()
    assert table["note"].str.contains("fewer than 3 samples").all()


def test_what_was_not_checked_is_said():
    x = np.random.default_rng(6).normal(size=5010)
    table = assumptions(x, np.repeat([0, 1], [5001, 9])).table
    assert np.isnan(table.loc[0, "shapiro_p_0"])
    assert "normality was not checked" in table.loc[0, "note"]


def test_doubt_is_said_where_it_belongs_and_only_there():
    rng = np.random.default_rng(3)
    y = np.repeat([0, 1], [20, 60])
    x = rng.normal(size=(80, 4))
    x[y == 1, 1] *= 6
    x[:, 2] = np.exp(2 * x[:, 2])
    x[:, 3] = 1.0
    table = assumptions(x, y).table
    assert table["student_doubtful"].tolist() == [False, True, True, True]
    assert table["note"][0] == "nothing speaks against it"
    assert "trust Welch" in table["note"][1]
    assert "skewed" in table["note"][2]
    assert "nothing to check" in table["note"][3]


def test_holm_keeps_false_alarms_down():
    """Of 200 normal units about 20 groups fall below 0.05 raw; Holm leaves hardly any."""
    table = assumptions(np.random.default_rng(4).normal(size=(50, 200)), Y).table
    assert (table[["shapiro_p_0", "shapiro_p_1"]] < 0.05).to_numpy().sum() > 5
    assert (table[["shapiro_p_0_holm", "shapiro_p_1_holm"]] < 0.05).to_numpy().sum() <= 1
