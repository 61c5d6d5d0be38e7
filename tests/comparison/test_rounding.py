"""Spreads that rounding alone has made are none: no t of 1e15, and a status that says so."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from actmax.stats.change import before_after
from actmax.stats.diagnostics import assumptions
from actmax.stats.groups import compare
from actmax.stats.ttests import one_sample

NEAR = {
    "0.3": (0.3, 0.1 + 0.2),
    "0.7": (0.7, 0.1 * 7),
    "1": (1.0, sum([0.1] * 10)),
    "-1.1e-10": (-1.1e-10, -(1e-10 + 1e-11)),
    "1e300": (1e300, float(np.nextafter(1e300, 2e300))),
}


@pytest.fixture(params=NEAR)
def near(request):
    one, two = NEAR[request.param]
    assert one != two
    return one, two


def rows(x, **options):
    return compare(np.asarray(x), np.repeat([0, 1], len(x) // 2), **options).table.iloc[0]


def test_a_unit_of_one_value_but_for_rounding_is_constant(near):
    one, two = near
    for x in ([one] * 4 + [two] * 4, [one, two] * 4, [one, one, two, one, two, two, one, two]):
        row = rows(x)
        assert row["status"] == "constant"
        assert row["auc"] == 0.5
        assert np.isnan(row[["student_t", "welch_p", "mannwhitney_p", "firth_lr_p", "score_p"]].astype(float)).all()
        assert assumptions(np.array(x), np.repeat([0, 1], 4)).table.loc[0, "student_doubtful"]


def test_groups_that_rounding_alone_varies_have_no_t(near):
    """t = 1e15 and more, were it computed."""
    one, two = near
    x = np.array([one, two, one, one, 3 * one, 3 * one, 3 * one, 3 * one])
    row = rows(x)
    assert row["status"] == "separated"
    assert np.isnan(row[["student_t", "student_p", "welch_t", "welch_p", "cohens_d"]].astype(float)).all()
    relative = x / one
    assert np.ptp(relative[4:]) == 0 < relative[:4].std(ddof=1) < 1e-14 * (relative[4:].mean() - relative[:4].mean())


def test_one_sample_of_one_value_is_constant(near):
    one, two = near
    row = one_sample(np.array([one, two, two, one])).table.iloc[0]
    assert row["status"] == "constant"
    assert np.isnan(row["t"])


def test_float32_has_a_coarser_rounding():
    x = np.float32(0.3) + np.float32([0, 1, 2, 0, 1, 0, 2, 1]) * np.spacing(np.float32(0.3))
    assert len(np.unique(x)) == 3
    assert rows(x)["status"] == "constant"
    assert rows(x.astype(np.float64))["status"] == "ok"  # of float64 these are different values


@pytest.mark.parametrize("offset", [0.0, 1e8, 1e15, -1e15])
def test_small_spreads_about_a_large_offset_are_kept(offset):
    """Negative control: a spread of some ulps is data. Exact in rationals: all values are multiples of 1/8."""
    steps = np.array([0, 3, 1, 16, 2, 9, 12, 8, 25, 10])
    x = offset + steps / 8
    row = rows(x)
    zero, one = ([Fraction(float(v)) for v in part] for part in (x[:5], x[5:]))
    means = sum(zero) / 5, sum(one) / 5
    ss = sum((v - means[0]) ** 2 for v in zero) + sum((v - means[1]) ** 2 for v in one)
    t = float(means[1] - means[0]) / float(ss / 8 * Fraction(2, 5)) ** 0.5
    np.testing.assert_allclose(row["student_t"], t, rtol=1e-12)
    assert row["status"] == "ok"


def test_whole_numbers_and_half_precision_are_never_rounding():
    assert rows(np.array([1000, 1001, 1000, 1001, 1001, 1002, 1001, 1000]))["status"] == "ok"
    half = np.float16([1.0, 1.001, 1.002, 1.0, 1.001, 1.002, 1.003, 1.001])
    assert rows(half)["status"] == "ok"


PAIRS = np.tile(np.arange(4), 2)
BEFORE = np.array([1.0, 2.0, 4.0, 8.0])


@pytest.mark.parametrize("before", [BEFORE, BEFORE / 10, BEFORE + 1000.3])
@pytest.mark.parametrize("shift", [2.0, -2.0, 0.3, 0.1, 100.0])
def test_one_shift_for_all_pairs_leaves_no_paired_t(before, shift):
    row = rows(np.r_[before, before + shift], pairs=PAIRS)
    assert row["status"] == "constant_difference"
    assert np.isnan([row["paired_t"], row["paired_p"]]).all()
    assert np.isfinite(row["student_t"])
    assert (np.isnan(row["logit_coef"])) == (abs(shift) > np.ptp(before))
    uneven = rows(np.r_[before, before + shift + [0, 0, 0, 1e-6]], pairs=PAIRS)  # a spread that is none of rounding's
    assert np.isfinite(uneven["paired_t"])
    assert uneven["status"] != "constant_difference"


def test_pairs_that_do_not_differ_at_all():
    row = rows(np.r_[BEFORE, BEFORE], pairs=PAIRS)
    assert row["status"] == "constant_difference"
    assert np.isnan(row["paired_p"])


def test_a_neighbour_that_rose_by_one_amount_has_changed():
    rng = np.random.default_rng(0)
    before = rng.normal(size=(6, 5))
    after = before + rng.normal(size=(6, 5))
    after[:, 0] += 50
    after[:, 1] = before[:, 1] + 2.0
    after[:, 2] = before[:, 2]
    after[:, 3] = before[:, 3] - 0.3
    found = before_after(before, after, target=0)
    assert found.table["status"].tolist()[1:4] == ["constant_difference"] * 3
    headline = found.headline
    assert (headline["neighbours_changed"], headline["neighbours_rose"]) == (2, 1)
    assert headline["neighbours"] == 4


class TestBeforeAfter:
    def test_a_site_of_one_coordinate(self):
        found = before_after(np.zeros((4, 1)), np.arange(1.0, 5)[:, None], target=0)
        expected = stats.ttest_rel([1, 2, 3, 4], [0, 0, 0, 0])
        np.testing.assert_allclose(found.table.loc[0, "paired_p"], expected.pvalue, rtol=1e-12)
        assert found.headline["neighbours"] == 0
        assert found.headline["neighbours_changed"] == 0

    @pytest.mark.parametrize("target", [99, -1, 3, True])
    def test_a_target_that_is_not_there(self, target):
        with pytest.raises(ValueError, match=r"^target=.+0 to 2"):
            before_after(np.zeros((4, 3)), np.ones((4, 3)), target=target)

    def test_other_restarts_after_than_before(self):
        with pytest.raises(ValueError, match=r"^after="):
            before_after(np.zeros((4, 3)), np.ones((5, 3)), target=0)
