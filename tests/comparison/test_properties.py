"""What must hold for any data: symmetry in the labels, invariance, identities; and proof that each check can fail."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis.extra.numpy import arrays

from actmax.stats.groups import P_COLUMNS, compare
from actmax.stats.ttests import one_sample

SIGNED = ["cohens_d", "student_t", "welch_t", "paired_t", "logit_coef", "logit_coef_std", "logit_intercept"]
SIGNED += ["logit_wald_z", "firth_coef", "firth_coef_std", "firth_intercept"]
SWAPPED = [("n_0", "n_1"), ("mean_0", "mean_1"), ("sd_0", "sd_1")]
KEPT = ["welch_df", "logit_se", "logit_lr", "score", "firth_se", "firth_lr", "n_pairs"]
KEPT += [f"{name}{end}" for name in P_COLUMNS for end in ("", "_log10", "_bonferroni", "_bh")]
INVARIANT = [
    "auc",
    "student_t",
    "welch_t",
    "welch_df",
    "cohens_d",
    "cohens_d_low",
    "cohens_d_high",
    "score",
    "logit_lr",
]
INVARIANT += ["firth_lr", "logit_wald_z", "logit_coef_std", *P_COLUMNS]
fast = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))


@st.composite
def labelled(draw, whole=False, smallest=2):
    """Two groups over a few units, tied, separated and constant ones among them."""
    n_0, n_1 = draw(st.integers(smallest, 12)), draw(st.integers(smallest, 12))
    # Multiples of 1/8 make ties and touching groups likely, and shifts and scales exact.
    element = st.integers(-40, 40).map(lambda k: k if whole else k / 8)
    x = draw(arrays(np.float64, (n_0 + n_1, 3), elements=element))
    y = np.array(draw(st.permutations([0] * n_0 + [1] * n_1)))
    x[:, 2] += y * draw(st.integers(0, 30))
    return x, y


def close(left, right, tolerance=1e-12):
    np.testing.assert_allclose(np.asarray(left, float), np.asarray(right, float), rtol=tolerance, atol=tolerance)


def check_swap(table, swapped):
    for left, right in SWAPPED:
        close(table[left], swapped[right])
        close(table[right], swapped[left])
    for name in SIGNED:
        close(table[name], -swapped[name])
    for name in KEPT:
        close(table[name], swapped[name])
    close(table["cohens_d_low"], -swapped["cohens_d_high"])
    close(table["cohens_d_high"], -swapped["cohens_d_low"])
    close(table["auc"], 1 - swapped["auc"])
    assert (table["status"] == swapped["status"]).all()


@fast
@given(labelled())
def test_swapping_the_labels_changes_signs_and_nothing_else(data):
    x, y = data
    pairs = None
    if 2 * y.sum() == len(y):
        pairs = np.empty(len(y), dtype=int)
        pairs[y == 0] = pairs[y == 1] = np.arange(len(y) // 2)
    check_swap(compare(x, y, pairs=pairs).table, compare(x, 1 - y, pairs=pairs).table)


def test_the_swap_check_can_fail():
    """Negative control: swapping all but one label is not a swap, nor is a p that is off by 1e-11."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 3)), np.repeat([0, 1], 10)
    table, swapped = compare(x, y).table, compare(x, 1 - y).table
    with pytest.raises(AssertionError):
        check_swap(table, swapped.assign(student_p=swapped["student_p"] + 1e-11))
    with pytest.raises(AssertionError):
        check_swap(table, swapped.assign(logit_coef=-swapped["logit_coef"]))
    with pytest.raises(AssertionError):
        check_swap(table, compare(x, np.r_[1 - y[:-1], y[-1]]).table)


@fast
@given(
    arrays(np.float64, (9, 3), elements=st.floats(-1e6, 1e6)), arrays(np.float64, (9, 3), elements=st.floats(-1e6, 1e6))
)
@example(np.r_[[[-6e5, 2.0, 1.0]], np.zeros((8, 3))], np.r_[[[-6e5, 2.0, 3.0]], np.full((8, 3), 5e-324)])
def test_paired_is_one_sample_on_the_differences(before, after):
    names = np.tile(np.arange(9), 2)
    table = compare(np.vstack([before, after]), np.repeat([0, 1], 9), pairs=names).table
    single = one_sample(after - before, 0.0).table
    np.testing.assert_array_equal(table["paired_t"], single["t"])
    np.testing.assert_array_equal(table["paired_p"], single["p"])
    np.testing.assert_array_equal(table["paired_p_log10"], single["p_log10"])


def test_pairs_further_apart_than_float64_reaches():
    """Every difference here is beyond 1.8e308; the t is that of the same numbers a power of two smaller."""
    names, y = np.tile(np.arange(5), 2), np.repeat([0, 1], 5)
    x = np.r_[-np.linspace(0.95, 0.99, 5), np.array([0.91, 0.97, 0.92, 0.99, 0.96])]
    near, far = (compare(x * scale, y, pairs=names).table.iloc[0] for scale in (1.0, 2.0**1023 * 1.9375))
    close(near["paired_t"], far["paired_t"])
    assert near["paired_t"] > 10


def test_pairs_follow_their_names_and_not_their_order():
    """Negative control of B8: other pairs, another t."""
    rng = np.random.default_rng(1)
    x, y, names = rng.normal(size=(20, 2)), np.repeat([0, 1], 10), np.tile(np.arange(10), 2)
    table, order = compare(x, y, pairs=names).table, rng.permutation(20)
    close(table["paired_t"], compare(x[order], y[order], pairs=names[order]).table["paired_t"])
    mixed = compare(x, y, pairs=np.r_[names[:10], rng.permutation(10)]).table
    assert (np.abs(table["paired_t"] - mixed["paired_t"]) > 1e-3).all()
    close(table["student_t"], mixed["student_t"])


@fast
@given(labelled(), st.sampled_from([2.0**-40, 0.25, 8.0, 2.0**60, 2.0**-500]), st.integers(-50, 50))
def test_scale_and_shift_change_no_test(data, scale, shift):
    x, y = data
    table, moved = compare(x, y).table, compare((x + shift) * scale, y).table
    assert (table["status"] == moved["status"]).all()
    for name in INVARIANT:
        close(table[name], moved[name], 1e-9)


@fast
@given(labelled(smallest=4), st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
def test_inexact_scales_and_shifts_change_t_only_by_rounding(data, scale, shift):
    x, y = data
    moved = x * scale + shift
    assume(all(len(np.unique(x[:, u])) == len(np.unique(moved[:, u])) for u in range(3)))
    table, moved = compare(x, y).table, compare(moved, y).table
    assert (table["status"] == moved["status"]).all()
    close(table["auc"], moved["auc"])
    for name in ("student_t", "welch_t", "student_p", "welch_p", "mannwhitney_p"):
        # A distance of 1/8 · 1e-3 beside 1e3 leaves nine of sixteen digits.
        np.testing.assert_allclose(table[name], moved[name], rtol=1e-6, atol=1e-6)


def test_a_nonlinear_map_is_no_change_of_scale():
    """Negative control: exp keeps ranks (AUC) and statuses but not t."""
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(30, 3)), np.repeat([0, 1], 15)
    table, moved = compare(x, y).table, compare(np.exp(x), y).table
    close(table["auc"], moved["auc"])
    assert (np.abs(table["student_t"] - moved["student_t"]) > 1e-3).all()


@fast
@given(labelled())
def test_score_identity(data):
    table = compare(*data).table
    total = table["n_0"] + table["n_1"]
    t_squared = table["student_t"] ** 2
    known = np.isfinite(t_squared)
    close(table["score"][known], (total * t_squared / (total - 2 + t_squared))[known], 1e-11)


def test_the_score_identity_is_not_welchs():
    """Negative control: with unequal groups and variances the identity fails for Welch's t."""
    rng = np.random.default_rng(3)
    y = np.repeat([0, 1], [10, 30])
    x = rng.normal(size=(40, 4)) * (1 + 2 * y[:, None]) + y[:, None]
    table = compare(x, y).table
    t_squared = table["welch_t"] ** 2
    assert (np.abs(table["score"] - 40 * t_squared / (38 + t_squared)) > 1e-3).all()


@fast
@given(labelled(), st.randoms(use_true_random=False))
def test_permuting_samples_and_units_permutes_rows(data, random):
    x, y = data
    samples, units = list(range(len(y))), [2, 0, 1]
    random.shuffle(samples)
    table = compare(x, y).table
    permuted = compare(x[samples], y[samples]).table
    reordered = compare(x[:, units], y).table
    assert (table["status"] == permuted["status"]).all()
    for name in table.columns.drop("status"):
        close(table[name], permuted[name], 1e-9)
        np.testing.assert_array_equal(table[name].to_numpy()[units], reordered[name].to_numpy())


@fast
@given(labelled())
def test_no_number_is_infinite_and_every_gap_has_a_reason(data):
    table = compare(*data).table
    numbers = table.drop(columns=["status"]).to_numpy(float)
    assert not np.isinf(numbers).any()
    complete = table[(table["status"] == "ok")].drop(columns=["status", *[c for c in table if c.startswith("paired")]])
    assert not complete.isna().to_numpy().any()


@fast
@given(labelled())
def test_separation_is_what_the_ranges_say(data):
    x, y = data
    for unit, status in enumerate(compare(x, y).table["status"]):
        low, high = x[y == 0, unit], x[y == 1, unit]
        gap = max(high.min() - low.max(), low.min() - high.max())
        constant = np.ptp(x[:, unit]) == 0
        expected = "constant" if constant else "separated" if gap > 0 else "quasi_separated" if gap == 0 else "ok"
        assert status == expected
