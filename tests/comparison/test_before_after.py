from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from actmax.errors import InputError
from actmax.report.words import neighbours_statement
from actmax.stats.change import before_after
from actmax.stats.groups import compare

RNG = np.random.default_rng(7)
BEFORE = RNG.normal(size=(12, 40))
AFTER = BEFORE + 0.5 * RNG.normal(size=(12, 40))
AFTER[:, 3] += 50.0
AFTER[:, 10] -= 2.0


def test_paired_columns_are_scipys() -> None:
    table = before_after(BEFORE, AFTER, target=3).table
    expected = stats.ttest_rel(AFTER, BEFORE)
    np.testing.assert_allclose(table["paired_t"], expected.statistic, rtol=1e-9)
    np.testing.assert_allclose(table["paired_p"], expected.pvalue, rtol=1e-7)
    interval = expected.confidence_interval(0.95)
    np.testing.assert_allclose(table["paired_difference_low"], interval.low, rtol=1e-9)
    np.testing.assert_allclose(table["paired_difference_high"], interval.high, rtol=1e-9)
    assert not np.allclose(table["paired_t"], -expected.statistic)  # group 1 is the optimum


def test_the_target_is_outside_its_neighbours_family() -> None:
    table = before_after(BEFORE, AFTER, target=3).table
    assert table["is_target"].to_numpy().nonzero()[0].tolist() == [3]
    assert table.loc[3, "paired_p_bonferroni"] == table.loc[3, "paired_p"]
    assert table.loc[10, "paired_p_bonferroni"] == pytest.approx(39 * table.loc[10, "paired_p"])
    whole = compare(np.concatenate([BEFORE, AFTER]), np.repeat([0, 1], 12), pairs=np.tile(np.arange(12), 2)).table
    assert whole.loc[10, "paired_p_bonferroni"] == pytest.approx(40 * table.loc[10, "paired_p"])


def test_a_neighbour_that_moved_further_is_counted_whether_or_not_that_is_established() -> None:
    after = AFTER.copy()
    after[:, 20] += 60.0  # further than the target, in every restart
    after[:, 21] += np.where(np.arange(12) < 2, 600.0, 0.0)  # further on average, in two restarts alone
    found = before_after(BEFORE, after, target=3).headline
    assert (found["neighbours_further"], found["neighbours_further_unclear"]) == (2, 1)
    assert before_after(BEFORE, AFTER, target=3).headline["neighbours_further"] == 0


def test_separation_of_the_target_is_said() -> None:
    found = before_after(BEFORE, AFTER, target=3)
    assert found.table.loc[3, "status"] == "separated"
    said = neighbours_statement(found.headline)
    assert "separated, so logistic regression has no maximum-likelihood estimate" in said
    assert "no maximum-likelihood" not in neighbours_statement(before_after(BEFORE, AFTER, target=0).headline)


def test_planted_neighbours_are_found_and_counted() -> None:
    found = before_after(BEFORE, AFTER, target=3)
    changed = found.table.query("not is_target and paired_p_bonferroni <= 0.05")
    assert changed["coordinate"].tolist() == [10]
    said = neighbours_statement(found.headline)
    assert "Of its 39 neighbours 1 changed (paired t, Bonferroni 0.05): 0 rose and 1 fell" in said


@pytest.mark.slow
def test_where_nothing_moved_few_are_called() -> None:
    rng = np.random.default_rng(0)
    called = [_called(rng) for _ in range(80)]
    assert np.mean(np.array(called) > 0) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 80)


def _called(rng: np.random.Generator) -> int:
    before = rng.normal(size=(10, 30))
    table = before_after(before, before + rng.normal(size=(10, 30)), target=0).table
    return int((table["paired_p_bonferroni"] <= 0.05)[1:].sum())


def test_one_restart_is_refused() -> None:
    with pytest.raises(InputError, match="at least 2 restarts"):
        before_after(BEFORE[:1], AFTER[:1], target=0)


def test_the_unpaired_tests_are_marked() -> None:
    named = before_after(BEFORE, AFTER, target=3).table["descriptive"][0].split()
    assert "paired_p" not in named
    assert {"student_p", "welch_p", "logit_lr_p", "firth_lr_p", "mannwhitney_p"} <= set(named)
