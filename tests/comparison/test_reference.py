"""Every column against numbers made elsewhere: R, 50-digit mpmath and statsmodels."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.stats.multitest import multipletests

from actmax.stats._inputs import block_of
from actmax.stats._logistic import _flat, _maximize, _penalised, side_of
from actmax.stats.corrections import correct
from actmax.stats.groups import P_COLUMNS, compare
from actmax.stats.ttests import one_sample

HERE = Path(__file__).parents[1] / "reference" / "comparison"


def read(name, number):
    """Numbers through Python's float, which reads every digit; pandas' parser may miss the last."""
    table = pd.read_csv(HERE / name, dtype=str, keep_default_na=False)
    return table.assign(**{number: table[number].map(float)})


DATA = read("data.csv", "x").astype({"label": int})
R = read("reference_r.csv", "value")
MPMATH = read("reference_mpmath.csv", "value")
NAMES = list(DATA["dataset"].unique())
ESTIMATES, ERRORS_AND_P = 1e-8, 1e-6
CORRECTIONS = ("bonferroni", "holm", "bh", "by")
R_LOSES_DIGITS = {"huge_offset", "huge_scale", "small_scale"}
"""There R's own numbers are wrong beyond the tolerance (or missing); mpmath's hold."""
R_DOES_NOT_COUNT_TIES = {"one_group_constant"}
"""There we count, and R takes the normal approximation, since values are tied."""
RANKS = {"auc", "mannwhitney_p", "mannwhitney_p_log10", "n_0", "n_1", "n_pairs"}
"""What R counts and so has right at any scale."""
R_IS_A_STEP_BEHIND = {"score", "logit_wald_z"}
"""`glm` takes the weights of the iteration before last: good to 1e-6 only; mpmath holds them to 1e-8."""


def tables():
    found = {}
    for name in NAMES:
        part = DATA[DATA["dataset"] == name]
        x, y = part["x"].to_numpy(), part["label"].to_numpy()
        pairs = None
        if 2 * y.sum() == len(y):
            pairs = np.empty(len(y), dtype=int)
            pairs[y == 0] = pairs[y == 1] = np.arange(len(y) // 2)
        row = compare(x, y, pairs=pairs).table.iloc[0]
        single = one_sample(x, 0.5).table.iloc[0]
        found[name] = pd.concat([row, pd.Series({f"one_sample_{end}": single[end] for end in ("t", "p", "p_log10")})])
    return found


OURS = tables()


def tolerance(column):
    return ERRORS_AND_P if column.endswith(("_se", "_p", "_log10", "_bonferroni", "_bh", "_by", "_holm")) else ESTIMATES


def disagreements(reference, skip=(), loose=(), counted=()):
    wrong = []
    for row in reference.itertuples():
        if row.dataset in counted and row.column in ("mannwhitney_p", "mannwhitney_p_log10"):
            continue
        if row.dataset in skip and row.column not in RANKS:
            continue
        if row.column.split("_p_")[-1] in CORRECTIONS:
            continue
        ours, theirs = float(OURS[row.dataset][row.column]), float(row.value)
        allowed = ERRORS_AND_P if row.column in loose else tolerance(row.column)
        # Not `>`: a NaN of ours where the reference has a number is a disagreement.
        if not abs(ours - theirs) <= allowed * abs(theirs) + 1e-300:
            wrong.append((row.dataset, row.column, ours, theirs))
    return wrong


def test_every_column_agrees_with_r():
    assert len(NAMES) >= 8
    assert not disagreements(R, skip=R_LOSES_DIGITS, loose=R_IS_A_STEP_BEHIND, counted=R_DOES_NOT_COUNT_TIES)


def test_every_column_agrees_with_fifty_digits():
    assert set(MPMATH["dataset"]) == set(NAMES)
    assert not disagreements(MPMATH)


def test_r_is_wrong_where_we_do_not_follow_it():
    """The exception is needed: were R right there, this would fail and the exception could go."""
    wrong = {dataset for dataset, *_ in disagreements(R, loose=R_IS_A_STEP_BEHIND)}
    assert wrong <= R_LOSES_DIGITS | R_DOES_NOT_COUNT_TIES
    assert {"huge_offset", *R_DOES_NOT_COUNT_TIES} <= wrong


def test_a_wrong_number_is_caught():
    """Negative control: a t that is off by 2e-8 of itself, and one that is missing."""
    right = R[(R["column"] == "student_t") & ~R["dataset"].isin(R_LOSES_DIGITS)]
    off = right.assign(value=right["value"] * (1 + 2e-8))
    assert len(disagreements(off)) == len(off)
    missing = pd.DataFrame({"dataset": ["separated"], "column": ["logit_coef"], "value": [1.0]})
    assert len(disagreements(missing)) == 1


def test_no_column_goes_unchecked():
    """Every column of `compare` but the status has its number from R or mpmath, the corrections from `p.adjust`."""
    outside = set(R["column"]) | set(MPMATH["column"])
    # R has no Firth test, so no family of its p; a correction of p does not ask where p came from.
    outside |= {f"firth_lr_p_{method}" for method in CORRECTIONS}
    assert set(compare(DATA["x"][:20], DATA["label"][:20] ^ (np.arange(20) % 2)).table.columns) - outside == {"status"}


WIDE = R.pivot_table(index="dataset", columns="column", values="value").loc[NAMES]


@pytest.mark.parametrize("test", ["student", "welch", "mannwhitney", "paired", "logit_wald", "logit_lr", "score"])
def test_corrections_agree_with_p_adjust(test):
    for method in CORRECTIONS:
        ours = correct(WIDE[f"{test}_p"].to_numpy(), method)
        np.testing.assert_allclose(ours, WIDE[f"{test}_p_{method}"], rtol=1e-12)


@pytest.mark.parametrize("test", [name.removesuffix("_p") for name in P_COLUMNS])
def test_the_tables_corrections_are_those_of_its_own_column(test):
    """Families with gaps: constant, separated and broken units are among them."""
    rng = np.random.default_rng(20)
    y = np.repeat([0, 1], 12)
    x = rng.normal(size=(24, 30)) + 1.5 * y[:, None]
    x[:, 3], x[0, 4], x[:, 5] = 1.0, np.nan, y
    table = compare(x, y, pairs=np.tile(np.arange(12), 2), by=True).table
    p = table[f"{test}_p"].to_numpy()
    known = np.isfinite(p)
    assert 20 < known.sum() < 30
    for method, name in (("bonferroni", "bonferroni"), ("bh", "fdr_bh"), ("by", "fdr_by")):
        np.testing.assert_array_equal(table[f"{test}_p_{method}"][known], multipletests(p[known], method=name)[1])
        assert table[f"{test}_p_{method}"][~known].isna().all()


def test_firth_finds_the_higher_of_two_maxima():
    """One sample far out puts a lower maximum near β = 0, where a climb from there ends: p is 0.3 there."""
    row = OURS["outlier"]
    assert row["firth_coef"] > 0.5 * row["logit_coef"] > 0
    assert row["firth_lr_p"] < 1e-5
    x, y = (DATA.loc[DATA["dataset"] == "outlier", name].to_numpy() for name in ("x", "label"))
    block = block_of(x[:, None], y == 1)
    lower = _maximize(_penalised, block.centred, side_of(block.is_1).sign, *_flat(block.centred, 0.0))
    assert lower[2].all()
    scale = np.ldexp(1.0, block.exponent + block.spread_exponent)
    assert 0 < (lower[1] / scale)[0] < 0.1 * row["firth_coef"]


@pytest.mark.parametrize(
    ("name", "status"),
    [("balanced", "ok"), ("near_separated", "ok"), ("separated", "separated"), ("quasi_separated", "quasi_separated")],
)
def test_reference_sets_are_what_they_are_called(name, status):
    assert OURS[name]["status"] == status


def test_separated_sets_have_firth_and_t_but_no_maximum():
    for name in ("separated", "quasi_separated", "far"):
        row = OURS[name]
        assert np.isnan(
            row[["logit_coef", "logit_intercept", "logit_se", "logit_wald_p", "logit_lr_p"]].astype(float)
        ).all()
        assert np.isfinite(
            row[["firth_coef", "firth_se", "firth_lr_p", "student_t", "auc", "score_p"]].astype(float)
        ).all()


@pytest.mark.parametrize("seed", range(4))
def test_random_data_agree_with_statsmodels_and_scipy(seed):
    rng = np.random.default_rng(seed)
    n_0, n_1, units = int(rng.integers(12, 40)), int(rng.integers(12, 40)), 12
    y = rng.permutation(np.repeat([0, 1], [n_0, n_1]))
    x = (rng.normal(size=(n_0 + n_1, units)) + y[:, None] * rng.normal(0, 0.7, units)) * np.exp(rng.normal(size=units))
    table = compare(x, y).table
    student, welch = stats.ttest_ind(x[y == 1], x[y == 0]), stats.ttest_ind(x[y == 1], x[y == 0], equal_var=False)
    np.testing.assert_allclose(table["student_t"], student.statistic, rtol=1e-8)
    np.testing.assert_allclose(table["student_p"], student.pvalue, rtol=1e-6)
    np.testing.assert_allclose(table["welch_t"], welch.statistic, rtol=1e-8)
    np.testing.assert_allclose(table["welch_df"], welch.df, rtol=1e-8)
    np.testing.assert_allclose(table["welch_p"], welch.pvalue, rtol=1e-6)
    ranks = stats.mannwhitneyu(x[y == 1], x[y == 0], method="auto")
    np.testing.assert_allclose(table["auc"], ranks.statistic / n_0 / n_1, rtol=1e-12)
    np.testing.assert_allclose(table["mannwhitney_p"], ranks.pvalue, rtol=1e-8)
    assert (table["status"] == "ok").all()
    for unit in range(units):
        fit = sm.Logit(y, sm.add_constant(x[:, unit])).fit(disp=0, tol=1e-14, maxiter=200)
        row = table.loc[unit]
        np.testing.assert_allclose([row["logit_intercept"], row["logit_coef"]], fit.params, rtol=1e-8)
        np.testing.assert_allclose([row["logit_se"], row["logit_wald_p"]], [fit.bse[1], fit.pvalues[1]], rtol=1e-6)
        np.testing.assert_allclose(row["logit_lr_p"], fit.llr_pvalue, rtol=1e-6)


@pytest.mark.parametrize(("n_0", "n_1"), [(2, 2), (3, 5), (8, 8), (8, 30), (2, 60)])
def test_small_groups_have_the_exact_mann_whitney(n_0, n_1):
    rng = np.random.default_rng(n_0 * n_1)
    y, x = np.repeat([0, 1], [n_0, n_1]), rng.normal(size=(n_0 + n_1, 40))
    x[y == 1, 20:] += 1.5
    exact = stats.mannwhitneyu(x[y == 1], x[y == 0], method="exact").pvalue
    np.testing.assert_allclose(compare(x, y).table["mannwhitney_p"], exact, rtol=1e-12)


def test_ties_are_counted_where_the_smaller_group_is_small():
    """Every way to name six of twelve samples, one by one; the normal approximation is 2 % off here."""
    y, x = np.repeat([0, 1], 6), np.array([0.0, 1, 1, 2, 3, 3, 1, 2, 3, 4, 4, 4])
    ranks = stats.rankdata(x)
    sums = np.array([sum(ranks[list(chosen)]) for chosen in combinations(range(12), 6)])
    exact = np.mean(np.abs(sums - 39) >= abs(ranks[y == 1].sum() - 39) - 1e-9)
    np.testing.assert_allclose(compare(x, y).table["mannwhitney_p"], exact, rtol=1e-12)
    assert abs(stats.mannwhitneyu(x[y == 1], x[y == 0], method="asymptotic").pvalue / exact - 1) > 0.01
