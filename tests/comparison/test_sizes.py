"""How often tests reject where nothing differs, at the level of a scan: the table, and what `compare` says of it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, stats

from actmax.report.words import caution_statement
from actmax.stats.groups import D_STATUSES, P_COLUMNS, compare
from actmax.stats.sizes import TABLE, TOO_OFTEN, cautions
from effect_intervals import by_status

SIZES = pd.read_csv(TABLE)
DOCS = Path(__file__).parents[2] / "docs" / "statistics.md"


def row(test, design, distribution, level):
    part = SIZES[(SIZES["test"] == test) & (SIZES["n_small"] == design[0]) & (SIZES["n_large"] == design[1])]
    return part[(part["distribution"] == distribution) & np.isclose(part["level"], level)].iloc[0]


def welch_size(n_0, n_1, level):
    """Welch's size for normal groups with one variance, by quadrature over the share of the two sums of squares.

    Given r = SS_1/(SS_0 + SS_1), which is Beta((n_1 - 1)/2, (n_0 - 1)/2) and independent of the pooled t, Welch's t is
    a known multiple of the pooled t, and its degrees of freedom are known.
    """
    total = n_0 + n_1 - 2

    def rejects(r):
        # In units of SS_0 + SS_1: v_g = s_g²/n_g; the pooled t's squared error is (1/n_0 + 1/n_1)/total.
        v_0, v_1 = (1 - r) / (n_0 - 1) / n_0, r / (n_1 - 1) / n_1
        df = (v_0 + v_1) ** 2 / (v_0**2 / (n_0 - 1) + v_1**2 / (n_1 - 1))
        pooled = stats.t.isf(level / 2, df) * np.sqrt((v_0 + v_1) / ((1 / n_0 + 1 / n_1) / total))
        return 2 * stats.t.sf(pooled, total)

    law = stats.beta((n_1 - 1) / 2, (n_0 - 1) / 2)
    # In quantiles of r, finely near 0, where a small group is narrow by chance.
    edges = [0, 1e-6, 1e-4, 1e-3, 1e-2, 0.1, 0.5, 0.9, 1]
    pieces = pairwise(edges)
    return sum(integrate.quad(lambda q: rejects(law.ppf(q)), *piece, limit=200)[0] for piece in pieces)


@pytest.mark.parametrize("design", [(3, 100), (8, 100), (20, 20), (20, 200), (100, 100)])
@pytest.mark.parametrize("level", [0.05, 1e-3, 2.5e-6])
def test_known_sizes_are_in_the_table(design, level):
    """Student's t is exact on normal groups; the score test is a function of it; Welch's size is an integral."""
    small, large = design
    total = small + large
    chi2 = stats.chi2.isf(level, 1)
    score = 2 * stats.t.sf(np.sqrt(chi2 * (total - 2) / (total - chi2)), total - 2) if chi2 < total else 0.0
    for test, exact in (("student", level), ("score", score), ("welch", welch_size(large, small, level))):
        found = row(test, design, "normal", level)
        assert abs(found["size"] - exact) <= 5 * found["error"] + 0.02 * exact, (test, exact, found["size"])


def test_welchs_integral_is_the_simulated_size():
    rng = np.random.default_rng(0)
    p = stats.ttest_ind(rng.normal(size=(3, 200_000)), rng.normal(size=(100, 200_000)), equal_var=False).pvalue
    assert abs((p <= 1e-3).mean() - welch_size(100, 3, 1e-3)) < 4 * np.sqrt(0.013 / 200_000)
    assert welch_size(100, 3, 2.5e-6) > 1000 * 2.5e-6


@pytest.mark.parametrize(("small", "least"), [(3, 50), (8, 5)])
def test_a_scan_with_a_few_samples_in_one_group_is_cautioned_against(small, least):
    """3,072 null units: with 3 against 100 Welch with Bonferroni finds something every time."""
    x, y = np.random.default_rng(0).normal(size=(small + 100, 3072)), np.repeat([0, 1], [100, small])
    result = compare(x, y)
    by_test = {one.test: one for one in result.cautions}
    assert by_test["welch_p"].size > least * by_test["welch_p"].level
    assert by_test["welch_p"].level == pytest.approx(0.05 / 3072)
    assert "mannwhitney_p" not in by_test
    assert "welch_p" in repr(result)
    if small == 3:
        assert (result.table["welch_p_bonferroni"] <= 0.05).any()
    assert not (result.table["mannwhitney_p_bonferroni"] <= 0.05).any()
    assert compare(x, 1 - y).cautions == result.cautions


def test_large_groups_are_not_cautioned_against():
    x, y = np.random.default_rng(0).normal(size=(200, 3072)), np.repeat([0, 1], 100)
    result = compare(x, y)
    assert not {"welch_p", "student_p", "mannwhitney_p", "score_p"} & {one.test for one in result.cautions}
    assert "cautions" not in repr(compare(x[:, :2], y))


def test_one_unit_needs_no_more_than_alpha():
    result = compare(np.random.default_rng(0).normal(size=40), np.repeat([0, 1], 20))
    assert result.cautions == ()
    assert cautions(100, 3, 0.05, {}) == ()


def test_a_caution_is_what_the_table_says():
    found = {one.test: one for one in cautions(100, 3, 2.5e-6, {"welch_p": 1, "student_p": 1, "mannwhitney_p": 1})}
    worst = max(row("welch", (3, 100), kind, 2.5e-6)["size"] for kind in ("normal", "skewed", "heavy", "rectified"))
    assert found["welch_p"].size == pytest.approx(worst, rel=1e-6)
    assert found["welch_p"].size > TOO_OFTEN * 2.5e-6
    said = caution_statement(found["welch_p"])
    assert "welch_p is not to be trusted here" in said
    assert "3 and 100" in said


def test_the_docs_show_the_table():
    text = DOCS.read_text(encoding="utf-8")
    for one in SIZES[np.isclose(SIZES["level"], 2.5e-6)].itertuples():
        assert one.test in text
    for test in ("student", "welch", "mannwhitney", "firth_lr"):
        for design in ((3, 100), (8, 100), (20, 20), (20, 200), (100, 100)):
            cells = [f"{row(test, design, kind, 2.5e-6)['size']:.1e}" for kind in SIZES["distribution"].unique()]
            assert " | ".join(cells) in text, (test, design)


def test_every_unpaired_test_is_in_the_table():
    assert {f"{name}_p" for name in SIZES["test"]} == set(P_COLUMNS) - {"paired_p"}


class TestStatusOfD:
    """The status of d's interval: by the size of d, since a sample does not show its own tail."""

    def test_it_is_by_the_size_of_d(self):
        rng, y = np.random.default_rng(0), np.repeat([0, 1], 50)
        x = rng.normal(size=(100, 4)) + np.array([0, 2, -2, 0]) * y[:, None]
        x[:, 3] = 1.0
        result = compare(pd.DataFrame(x, columns=list("abcd")), y)
        assert result.d_status.to_dict() == {"a": "ok", "b": "normal_only", "c": "normal_only", "d": "missing"}
        assert set(result.d_status) == set(D_STATUSES)
        assert "d_status on the interval of d (2 of them)" in repr(result)
        assert "d_status" not in repr(compare(x[:, [0, 3]], y))

    @pytest.mark.parametrize("name", ["normal", "exponential", "t, 3 df"])
    @pytest.mark.parametrize("design", [(20, 20), (100, 100)])
    def test_what_it_says_of_coverage_is_so(self, name, design):
        """Over true d from 0 to 3: `ok` intervals hold about what they say, the others in normal groups only."""
        found = by_status(name, design, 4000, np.random.default_rng(2))["mean"]
        assert 0.90 < found["ok"] < 0.97
        assert 0.93 < found["normal_only"] < 0.97 if name == "normal" else found["normal_only"] < 0.89


class TestAucInterval:
    def test_the_limits_solve_their_equation(self):
        rng = np.random.default_rng(0)
        result = compare(
            rng.normal(size=(30, 5)) + np.linspace(0, 3, 5) * np.repeat([0, 1], [12, 18])[:, None],
            np.repeat([0, 1], [12, 18]),
        )
        found = result.auc_interval()
        for auc, low, high in found.to_numpy():
            for theta in {low, high} - {0.0, 1.0}:
                spread = 1 + 14 * ((1 - theta) / (2 - theta) + theta / (1 + theta))
                error = stats.norm.ppf(0.975) * np.sqrt(theta * (1 - theta) * spread / (12 * 18))
                assert abs(auc - theta) == pytest.approx(error, rel=1e-9)
            assert low < auc <= high

    def test_separated_groups_have_an_interval(self):
        found = compare(np.arange(10.0), np.repeat([0, 1], 5)).auc_interval().iloc[0]
        assert (found["auc"], found["auc_high"]) == (1.0, 1.0)
        assert 0.4 < found["auc_low"] < 0.9

    @pytest.mark.parametrize("name", ["exponential", "t3"])
    def test_it_holds_where_that_of_d_does_not(self, name):
        """At d = 3, 20 against 20: d's 95 % interval covers 0.80 and 0.70, the AUC's 0.93 or so."""
        rng = np.random.default_rng(1)
        draw, sd = {
            "exponential": (lambda shape: rng.exponential(size=shape), 1.0),
            "t3": (lambda shape: rng.standard_t(3, shape), np.sqrt(3)),
        }[name]
        ranks = stats.rankdata(np.r_[draw(300_000), draw(300_000) + 3 * sd])
        truth = (ranks[300_000:].sum() - 300_000 * 300_001 / 2) / 300_000**2
        result = compare(draw((40, 2000)) + 3 * sd * np.repeat([0, 1], 20)[:, None], np.repeat([0, 1], 20))
        d, auc = result.table, result.auc_interval()
        assert ((d["cohens_d_low"] <= 3) & (d["cohens_d_high"] >= 3)).mean() < 0.85
        assert ((auc["auc_low"] <= truth) & (auc["auc_high"] >= truth)).mean() > 0.91
