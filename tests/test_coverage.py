"""Coverage, richness and rarefaction against R's vegan, published tables of iNEXT and brute force."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from actmax.evidence.coverage import Incidence, coverage, coverages, rarefaction, richness, richness_variance
from actmax.evidence.pairs import entropy, jaccards, pair_mean, token_estimates

HERE = Path(__file__).parent / "reference" / "reproducibility"
DATA = pd.read_csv(HERE / "data.csv")
R = pd.read_csv(HERE / "reference_r.csv", converters={"value": float})
NAMES = list(DATA["dataset"].unique())
ANTS = pd.read_csv(HERE / "ants.csv", index_col="assemblage")
PUBLISHED = pd.read_csv(HERE / "ants_published.csv", index_col="assemblage")


def token_ids(name: str) -> Tensor:
    part = DATA[DATA["dataset"] == name]
    return torch.tensor(part.pivot_table(index="restart", columns="position", values="token").to_numpy(int))


def by_r(name: str, statistic: str) -> np.ndarray:
    return R[(R["dataset"] == name) & (R["statistic"] == statistic)].sort_values("at")["value"].to_numpy()


@pytest.mark.parametrize("name", NAMES)
class TestVegan:
    def test_richness(self, name: str) -> None:
        incidence = Incidence.of(token_ids(name))
        assert incidence.unique == by_r(name, "unique")[0]
        assert richness(incidence).value == pytest.approx(by_r(name, "richness")[0], rel=1e-12)
        assert math.sqrt(richness_variance(incidence)) == pytest.approx(by_r(name, "richness_se")[0], rel=1e-12)

    def test_rarefaction(self, name: str) -> None:
        assert rarefaction(Incidence.of(token_ids(name))) == pytest.approx(by_r(name, "rarefaction"), rel=1e-12)

    def test_jaccard_and_entropy(self, name: str) -> None:
        ids = token_ids(name)
        assert pair_mean(jaccards(ids)).item() == pytest.approx(by_r(name, "jaccard")[0], rel=1e-12, abs=1e-14)
        assert entropy(ids) == pytest.approx(by_r(name, "entropy")[0], rel=1e-12)


def test_the_reference_covers_every_branch() -> None:
    found = {name: Incidence.of(token_ids(name)) for name in NAMES}
    assert any(one.twice and one.once for one in found.values())
    assert any(not one.twice and one.once > 1 for one in found.values())
    assert any(not one.once for one in found.values())
    assert max(one.restarts for one in found.values()) == 100


def test_the_reference_can_fail() -> None:
    """The infinite-sample Chao2, without (m - 1)/m, is not vegan's."""
    incidence = Incidence.of(token_ids("skewed"))
    large = incidence.unique + incidence.once**2 / (2 * incidence.twice)
    assert large != pytest.approx(by_r("skewed", "richness")[0], rel=0.01)


@pytest.mark.parametrize("name", ANTS.index)
class TestPublishedAnts:
    """iNEXT's tables for the ants of Longino & Colwell 2011 (its `ant` data): see ants.md."""

    @pytest.fixture
    def incidence(self, name: str) -> Incidence:
        frequencies = np.array([int(number) for number in str(ANTS.loc[name, "frequencies"]).split()])
        return Incidence(np.bincount(frequencies, minlength=int(ANTS.loc[name, "quadrats"]) + 1)[1:])

    def test_data(self, name: str, incidence: Incidence) -> None:
        row = PUBLISHED.loc[name]
        assert (incidence.unique, incidence.total) == (row["S_obs"], row["U"])
        assert (incidence.once, incidence.twice) == (row["Q1"], row["Q2"])

    def test_coverage(self, name: str, incidence: Incidence) -> None:
        assert coverage(incidence) == pytest.approx(PUBLISHED.loc[name, "coverage"], abs=6e-8)
        good = 1 - incidence.once / incidence.total
        assert good != pytest.approx(PUBLISHED.loc[name, "coverage"], abs=6e-8)  # the simpler estimator is another

    def test_richness_and_rarefaction(self, name: str, incidence: Incidence) -> None:
        row = PUBLISHED.loc[name]
        assert richness(incidence).value == pytest.approx(row["chao2"], abs=6e-7)
        curve = rarefaction(incidence)
        assert curve[0] == pytest.approx(row["rarefied_1"], abs=6e-7)
        assert curve[int(row["half"]) - 1] == pytest.approx(row["rarefied_half"], abs=6e-7)
        assert curve[-1] == incidence.unique


class TestBruteForce:
    def test_incidence_counts_a_restart_once(self) -> None:
        incidence = Incidence.of(torch.tensor([[1, 1, 1, 2], [1, 3, 3, 3], [4, 1, 4, 2]]))
        assert incidence.counts.tolist() == [2, 1, 1]  # 3 and 4; 2; 1
        assert (incidence.unique, incidence.total) == (4, 7)

    def test_rarefaction_is_the_mean_over_all_subsets(self) -> None:
        ids = torch.randint(0, 9, (6, 4), generator=torch.Generator().manual_seed(0))
        for size, expected in enumerate(rarefaction(Incidence.of(ids)), start=1):
            subsets = itertools.combinations(range(6), size)
            assert expected == pytest.approx(np.mean([len(ids[list(some)].unique()) for some in subsets]), rel=1e-12)

    def test_coverage_estimates_the_true_coverage(self) -> None:
        """Over many samples the mean estimate lies at the mean true coverage; the share seen so often does not."""
        rng, weight = np.random.default_rng(0), np.arange(1, 61) ** -1.0
        weight /= weight.sum()
        estimates, truths = [], []
        for _ in range(300):
            ids = rng.choice(60, size=(10, 5), p=weight)
            held = 1 - (1 - weight) ** 5  # probability that a restart holds the token
            truths.append(held[np.unique(ids)].sum() / held.sum())
            estimates.append(coverage(Incidence.of(torch.tensor(ids))))
        error = np.std(np.subtract(estimates, truths)) / math.sqrt(300)
        assert abs(np.mean(estimates) - np.mean(truths)) < 4 * error + 0.01
        assert abs(np.mean(estimates) - np.mean(truths)) < abs(np.mean(truths) - 1)


class TestEdges:
    def test_all_unique_has_no_interval(self) -> None:
        ids = torch.arange(50).reshape(10, 5)
        found = token_estimates(ids)
        assert found["coverage"].value < 0.01
        for name in ("coverage", "richness", "jaccard", "shared_tokens", "entropy"):
            assert found[name].status.startswith("not estimable")
            assert math.isnan(found[name].low)
            assert math.isnan(found[name].high)

    def test_one_repeat_has(self) -> None:
        ids = torch.arange(50).reshape(10, 5)
        ids[3, 2] = 0
        found = token_estimates(ids)
        for name in ("coverage", "richness", "jaccard", "shared_tokens", "entropy"):
            assert found[name].status == "ok"
            assert found[name].low <= found[name].value <= found[name].high
            assert found[name].high - found[name].low > 0

    def test_a_repeat_within_one_restart_is_no_sign_of_repetition(self) -> None:
        ids = torch.arange(50).reshape(10, 5)
        ids[0, 1] = ids[0, 0]  # now the values with a restart left out differ, but coverage still means nothing
        assert token_estimates(ids)["coverage"].status.startswith("not estimable")

    def test_same_tokens_everywhere(self) -> None:
        found = token_estimates(torch.tensor([[1, 2, 3]] * 6))
        assert (found["coverage"].value, found["richness"].value, found["jaccard"].value) == (1.0, 3.0, 1.0)
        assert all(one.status.startswith("not estimable") for one in found.values())

    @pytest.mark.parametrize("restarts", [1, 2])
    def test_too_few_restarts(self, restarts: int) -> None:
        found = token_estimates(torch.arange(5 * restarts).reshape(restarts, 5))
        assert all(one.status.startswith("not estimable") for one in found.values())
        assert math.isnan(found["coverage"].value) == (restarts == 1)

    def test_lognormal_interval_starts_at_what_was_seen(self) -> None:
        incidence = Incidence.of(token_ids("skewed"))
        found = richness(incidence)
        unseen = found.value - incidence.unique
        assert incidence.unique < found.low < found.value < found.high
        assert (found.low - incidence.unique) * (found.high - incidence.unique) == pytest.approx(unseen**2)


def test_restarts_that_are_the_same_divide_by_nothing() -> None:
    """Three restarts, the same five tokens: none is in one restart only, and leaving one out leaves two alike."""
    assert coverages(np.array([[0, 0, 5]])).tolist() == [1.0]
    assert 0 < coverages(np.array([[5, 5, 0]]))[0] < 1
