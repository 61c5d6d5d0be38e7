"""On noise, tests reject as often as an independent simulation says, and at n = 500 as often as they promise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from actmax.stats.groups import compare

ROOT = Path(__file__).parents[2]
REFERENCE = pd.read_csv(ROOT / "tests" / "reference" / "comparison" / "calibration.csv")
TESTS = ("student", "welch", "mannwhitney", "logit_wald", "logit_lr", "score", "firth_lr")
UNITS = 20_000
SIGMAS = 4.0
"""Fourteen rates at four standard errors: one false alarm in a thousand runs, and the seed is fixed."""


def null_table(n, units, seed):
    x = np.random.default_rng(seed).normal(size=(2 * n, units))
    return compare(x, np.repeat([0, 1], n)).table


@pytest.fixture(scope="module")
def small():
    return null_table(20, UNITS, 2026)


def distance(p):
    return stats.kstest(p, "uniform").statistic


CRITICAL = stats.kstwo.ppf(0.999, UNITS)


@pytest.mark.parametrize("test", ["student", "welch"])
def test_t_tests_are_uniform(small, test):
    assert distance(small[f"{test}_p"]) < CRITICAL


def test_the_uniformity_check_can_fail(small):
    """The likelihood ratio and the discrete Mann-Whitney are not uniform at n = 20, and the same check says so."""
    assert distance(small["logit_lr_p"]) > CRITICAL
    assert distance(small["mannwhitney_p"]) > CRITICAL


@pytest.mark.parametrize("level", [0.05, 0.01])
@pytest.mark.parametrize("test", TESTS)
def test_rates_agree_with_the_independent_simulation(small, test, level):
    row = REFERENCE.set_index(["test", "level"]).loc[(test, level)]
    ours = (small[f"{test}_p"] <= level).mean()
    exact = np.isfinite(row["exact"])
    expected = row["exact"] if exact else row["rate"]
    error = np.sqrt(expected * (1 - expected) * (1 / UNITS + (0 if exact else 1 / row["units"])))
    assert abs(ours - expected) < SIGMAS * error


def test_the_rate_check_can_fail(small):
    """Wald rejects 3.9 % and the likelihood ratio 5.6 % at n = 20: neither would pass for the other."""
    rates = REFERENCE.set_index(["test", "level"])["rate"]
    error = np.sqrt(2 * 0.05 * 0.95 / UNITS)
    assert abs((small["logit_lr_p"] <= 0.05).mean() - rates["logit_wald", 0.05]) > SIGMAS * error


def held_to_alpha(n, units, seed):
    table = null_table(n, units, seed)
    for test in TESTS:
        for level in (0.05, 0.01):
            error = np.sqrt(level * (1 - level) / units)
            assert abs((table[f"{test}_p"] <= level).mean() - level) < SIGMAS * error, (test, level)


def test_large_groups_reject_at_alpha():
    held_to_alpha(500, 3000, 11)


@pytest.mark.slow
def test_large_groups_reject_at_alpha_over_many_units():
    held_to_alpha(500, 20_000, 12)


def test_the_docs_publish_the_table():
    text = (ROOT / "docs" / "statistics.md").read_text(encoding="utf-8")
    for row in REFERENCE.itertuples():
        assert f"{row.rate:.4f} ± {row.error:.4f}" in text, (row.test, row.level)
