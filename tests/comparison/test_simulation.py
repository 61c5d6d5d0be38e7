"""The simulation: what the report claims, and where its claims end."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from actmax.report.words import simulation_statement
from actmax.stats.design import DISTRIBUTIONS, Design
from actmax.stats.simulation import simulate


@pytest.fixture(scope="module")
def found():
    return simulate(Design(effects=[0.0, 0.25, 0.5, 0.75, 1.0, 6.0], repetitions=100, n_0=40, n_1=40, seed=1))


def test_a_row_per_unit_effect_and_test(found):
    assert len(found.units) == 600
    assert found.units["effect"].value_counts().unique().tolist() == [100]
    assert len(found.rates) == 6 * 7
    assert found.effects["effect"].tolist() == [0.0, 0.25, 0.5, 0.75, 1.0, 6.0]


def test_beta_follows_t_while_groups_overlap(found):
    small = found.units[found.units["effect"] < 1.0]
    assert np.corrcoef(small["student_t"], small["logit_coef_std"])[0, 1] > 0.98
    assert small["student_t"].corr(small["student_t"].sample(frac=1, random_state=0).reset_index(drop=True)) < 0.2


def test_beta_explodes_where_groups_part_and_t_and_firth_do_not(found):
    last = found.units[found.units["effect"] == 6.0]
    assert found.explodes_at == 6.0
    assert found.effects["separation_rate"].iloc[-1] > 0.9
    assert found.effects["separation_rate"].iloc[0] == 0.0
    assert np.isfinite(last[["student_t", "firth_coef", "firth_lr_p"]]).all().all()
    assert last["firth_coef_std"].abs().max() < 100


def test_rates_start_at_alpha_and_rise(found):
    rates = found.rates.set_index(["test", "effect"])
    for test in ("student", "welch", "score", "firth_lr", "mannwhitney", "logit_lr", "logit_wald"):
        row = rates.loc[(test, 0.0)]
        assert abs(row["rate"] - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 100)
    assert rates.loc[("student", 1.0), "rate"] > 0.9
    assert rates.loc[("logit_wald", 6.0), "missing"] > 0.9
    assert rates.loc[("firth_lr", 6.0), "rate"] == 1.0
    row = rates.loc[("student", 0.5)]
    assert row["error"] == pytest.approx(np.sqrt(row["rate"] * (1 - row["rate"]) / 100))


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_distributions_have_unit_mean_variance(distribution):
    design = Design(effects=[0.0], repetitions=400, n_0=100, n_1=100, distribution=distribution)
    found = simulate(design)
    variance = (found.units["sd_0"] ** 2 + found.units["sd_1"] ** 2).mean() / 2
    assert variance == pytest.approx(1.0, abs=0.15)
    ratio = (found.units["sd_1"] / found.units["sd_0"]).median()
    assert ratio == pytest.approx(3.0 if distribution == "unequal" else 1.0, abs=0.15)


def test_students_t_is_wrong_under_unequal_variances_and_sizes_and_welch_is_not():
    design = Design(effects=[0.0], repetitions=2000, n_0=40, n_1=10, distribution="unequal")
    rates = simulate(design).rates.set_index("test")["rate"]
    assert rates["student"] > 0.1
    assert abs(rates["welch"] - 0.05) < 0.02


def test_the_seed_decides():
    design = Design(effects=[0.0, 1.0], repetitions=5)
    first, second = simulate(design).units, simulate(design).units
    assert first.equals(second)
    other = simulate(Design(effects=[0.0, 1.0], repetitions=5, seed=1)).units
    assert not np.isclose(first["student_t"], other["student_t"]).any()


def test_power_is_the_noncentral_ts():
    """The simulated rate against the t-test's power from theory; the power at another effect is far away."""
    n_0, n_1, repetitions = 20, 35, 4000
    rates = simulate(Design(effects=[0.3, 0.6], repetitions=repetitions, n_0=n_0, n_1=n_1)).rates
    rate = rates.set_index(["test", "effect"])["rate"]
    df, critical = n_0 + n_1 - 2, stats.t.ppf(0.975, n_0 + n_1 - 2)
    shift = np.sqrt(n_0 * n_1 / (n_0 + n_1))
    power = {e: stats.nct.sf(critical, df, e * shift) + stats.nct.cdf(-critical, df, e * shift) for e in (0.3, 0.6)}
    for effect, expected in power.items():
        error = np.sqrt(expected * (1 - expected) / repetitions)
        assert abs(rate["student", effect] - expected) < 4 * error
    assert abs(rate["student", 0.3] - power[0.6]) > 20 * error


@pytest.mark.parametrize("effects", [[-6.0, 0.0, 6.0], [6.0, -6.0, 0.0]])
def test_an_effect_has_a_size_whatever_its_sign_and_place(effects):
    found = simulate(Design(effects=effects, repetitions=20))
    assert found.explodes_at == 6.0
    assert "at 0," not in simulation_statement(found.headline)


def test_the_statement_has_the_numbers(found):
    assert "explode" in simulation_statement(found.headline)
    assert "from an effect of 6 on" in simulation_statement(found.headline)
    calm = simulate(Design(effects=[0.0, 0.5], repetitions=20))
    assert "nowhere on this grid" in simulation_statement(calm.headline)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"distribution": "cauchy"}, "distribution"),
        ({"effects": []}, "effects"),
        ({"effects": [0.0, float("nan")]}, "effects"),
        ({"effects": [1.0, 0.0, 1.0]}, "effects"),
        ({"repetitions": 0}, "repetitions"),
        ({"n_1": 1}, "n_1"),
        ({"alpha": 0.0}, "alpha"),
    ],
)
def test_mistakes_are_named(options, named):
    with pytest.raises(ValueError, match=rf"^{named}="):
        Design(**options)
