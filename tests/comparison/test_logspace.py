"""Tails and their logarithms against 50-digit mpmath, from p = 1 to 1e-100,000 and beyond."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest
from scipy import stats

from actmax.stats import _logspace

DFS = (1.0, 1.5, 2.0, 3.7, 9.99, 38.0, 49.9, 50.1, 198.0, 1234.5)
STATISTICS = (1e-150, 1e-12, 1e-6, 0.1, 0.6, 1.0, 2.5, 5.0, 5.9, 6.2, 8.0, 12.0, 30.0, 100.0, 1e3, 1e5, 1e20, 1e170)


def exact_t(t, df):
    with mp.workdps(50):
        half, df = mp.mpf(1) / 2, mp.mpf(df)
        y = mp.mpf(t) ** 2 / (df + mp.mpf(t) ** 2)
        if t < 1e-3:
            return mp.log1p(-mp.betainc(half, df / 2, 0, y, regularized=True)) / mp.log(10)
        return mp.log10(mp.betainc(df / 2, half, 0, df / (df + mp.mpf(t) ** 2), regularized=True))


def exact_t_huge_df(t, df):
    """By quadrature: the series of the incomplete beta needs more terms than there is time where df is huge."""
    with mp.workdps(40):
        t, df = mp.mpf(t), mp.mpf(df)

        def log_density(u):
            return -(df + 1) / 2 * mp.log1p(u * u / df)

        width = 1 / max(1, (df + 1) * t / (df + t * t))
        area = mp.quad(lambda v: mp.e ** (log_density(t + v) - log_density(t)), [0, *(width * 2**k for k in range(8))])
        constant = mp.loggamma((df + 1) / 2) - mp.loggamma(df / 2) - mp.log(df * mp.pi) / 2
        return (mp.log(2) + constant + log_density(t) + mp.log(area)) / mp.log(10)


@pytest.mark.parametrize("df", DFS)
def test_t_tail(df):
    t = np.array(STATISTICS)
    ours = _logspace.t_two_sided(-t, np.full_like(t, df))
    exact = [exact_t(value, df) for value in STATISTICS]
    np.testing.assert_allclose(ours.log10, [float(e) for e in exact], rtol=2e-12)
    np.testing.assert_allclose(ours.p, [float(mp.mpf(10) ** e) for e in exact], rtol=1e-11, atol=1e-307)


@pytest.mark.parametrize("df", [1e5, 1e9])
def test_t_tail_at_huge_df(df):
    t = np.array([0.5, 3.0, 5.5, 6.5, 10.0, 45.0, 300.0])
    ours = _logspace.t_two_sided(t, np.full_like(t, df))
    np.testing.assert_allclose(ours.log10, [float(exact_t_huge_df(value, df)) for value in t], rtol=1e-12)


@pytest.mark.parametrize("tail", ["normal", "chi2"])
def test_normal_and_chi2_tails(tail):
    z = np.array([0.0, 1e-150, 1e-9, 0.1, 0.4999, 0.5001, 1.0, 5.0, 37.0, 39.0, 43.0, 1e3, 1e8])
    ours = _logspace.normal_two_sided(-z) if tail == "normal" else _logspace.chi2_one_df(z**2)
    z = z if tail == "normal" else np.sqrt(z**2)
    with mp.workdps(50):
        exact = [
            mp.log10(mp.erfc(v / mp.sqrt(2))) if v > 0.1 else mp.log1p(-mp.erf(v / mp.sqrt(2))) / mp.log(10)
            for v in map(mp.mpf, z)
        ]
    np.testing.assert_allclose(ours.log10, [float(e) for e in exact], rtol=1e-12)


def test_one_in_ten_to_the_four_hundred_is_a_number():
    """The same tail through scipy's logsf is -inf: the check can fail."""
    t, df = np.array([100.0]), np.array([1000.0])
    assert not np.isfinite(stats.norm.logsf(1e200)) or not np.isfinite(stats.t.logsf(100.0, 1000.0))
    ours = _logspace.t_two_sided(t, df)
    assert ours.log10[0] < -400
    assert ours.p[0] == 0.0
    np.testing.assert_allclose(ours.log10[0], float(exact_t(100.0, 1000.0)), rtol=1e-12)


def test_nan_stays_nan():
    nan = np.array([np.nan])
    for tail in (
        _logspace.t_two_sided(nan, np.array([5.0])),
        _logspace.normal_two_sided(nan),
        _logspace.chi2_one_df(nan),
    ):
        assert np.isnan(tail.p[0])
        assert np.isnan(tail.log10[0])
