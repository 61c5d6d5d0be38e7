"""Every statistic of agreement against a naive loop; the permutation null against full enumeration; planted units."""

from __future__ import annotations

import doctest
import importlib
import itertools
import math
import pkgutil
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from statsmodels.stats.proportion import proportion_confint
from torch import Tensor
from torch.nn.functional import cosine_similarity

import actmax.evidence
from actmax.evidence.agreement import agree, kappa
from actmax.evidence.estimates import jackknife
from actmax.evidence.measures import moves
from actmax.evidence.nulls import Restarts, against, displace, displace_together
from actmax.evidence.own import EXACT, OwnTest, _Space, own_agreement
from actmax.evidence.pairs import (
    EMBEDDINGS,
    TOKENS,
    activation_estimates,
    assigned_cosines,
    cosines,
    direction_cosines,
    embedding_estimates,
    entropy,
    flipped_values,
    jaccards,
    pair_mean,
    pair_means_left_out,
    position_agreements,
    shared_shares,
    signs,
    token_estimates,
)
from actmax.evidence.readings import OwnStatus, Reading
from actmax.evidence.settings import NullSettings
from actmax.model.nearest import NearestTokens


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tokens(seed: int, *shape: int, vocabulary: int = 8) -> Tensor:
    return torch.randint(0, vocabulary, shape, generator=torch.Generator().manual_seed(seed))


MODULES = [m.name for m in pkgutil.iter_modules(actmax.evidence.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name: str) -> None:
    assert doctest.testmod(importlib.import_module(f"actmax.evidence.{name}")).failed == 0


def test_there_are_examples_to_run() -> None:
    modules = [importlib.import_module(f"actmax.evidence.{name}") for name in MODULES]
    assert sum(len(test.examples) for module in modules for test in doctest.DocTestFinder().find(module)) > 20


class TestPairsAgainstLoops:
    def test_jaccard(self) -> None:
        ids = tokens(0, 7, 5)
        sets = [set(row) for row in ids.tolist()]
        expected = [[len(a & b) / len(a | b) for b in sets] for a in sets]
        assert torch.allclose(jaccards(ids), torch.tensor(expected).double(), atol=1e-15)
        multiset = [[sum(a.count(t) > 0 for t in b) for b in ids.tolist()] for a in ids.tolist()]
        assert not torch.equal(jaccards(ids) * 5, torch.tensor(multiset).double())  # duplicates count once

    def test_shared(self) -> None:
        ids = tokens(9, 7, 5)
        sets = [set(row) for row in ids.tolist()]
        expected = torch.tensor([[2 * len(a & b) / (len(a) + len(b)) for b in sets] for a in sets]).double()
        assert torch.allclose(shared_shares(ids), expected, atol=1e-15)
        assert len({len(one) for one in sets}) > 1  # sets of different sizes, where Dice is no share of either
        assert not torch.allclose(jaccards(ids), expected)

    @pytest.mark.parametrize("similarity", [jaccards, shared_shares, position_agreements])
    def test_of_a_batch_is_that_of_its_parts(self, similarity: Callable[[Tensor], Tensor]) -> None:
        ids = tokens(1, 3, 6, 4)
        assert torch.equal(similarity(ids), torch.stack([similarity(one) for one in ids]))

    def test_position(self) -> None:
        ids = tokens(2, 6, 5, vocabulary=3)
        expected = [[np.mean([a == b for a, b in zip(x, y, strict=True)]) for y in ids.tolist()] for x in ids.tolist()]
        assert torch.allclose(position_agreements(ids), torch.tensor(expected), atol=1e-15)

    def test_order_counts_for_positions_and_not_for_sets(self) -> None:
        ids = torch.tensor([[1, 2, 3], [3, 1, 2]])
        assert jaccards(ids)[0, 1] == shared_shares(ids)[0, 1] == 1
        assert position_agreements(ids)[0, 1] == 0

    def test_cosine(self) -> None:
        vectors = noise(3, 6, 4, 9)
        expected = [[cosine_similarity(a.double(), b.double(), dim=-1).mean() for b in vectors] for a in vectors]
        assert torch.allclose(cosines(vectors), torch.tensor(expected).double(), atol=1e-12)

    def test_direction(self) -> None:
        vectors = noise(10, 6, 4, 9)
        expected = [
            [np.mean([cosine_similarity(u.double(), v.double(), dim=0) for u in a for v in b]) for b in vectors]
            for a in vectors
        ]
        assert torch.allclose(direction_cosines(vectors), torch.tensor(expected).double(), atol=1e-12)

    def test_direction_sees_one_direction_and_no_subspace(self) -> None:
        axis = torch.zeros(1, 1, 200)
        axis[..., :2] = 1
        same = axis + 0.1 * noise(11, 40, 3, 200)
        plane = noise(12, 40, 3, 200) * axis  # moves in one plane, each its own way
        assert pair_mean(direction_cosines(same)) > 0.3
        assert abs(pair_mean(direction_cosines(plane))) < 0.1
        assert pair_mean(assigned_cosines(plane)) > 0.3  # what assigning finds in a plane is no direction

    @pytest.mark.parametrize("count", [1, 2, 5, 7])
    def test_assigned(self, count: int) -> None:
        vectors = noise(4, 2, 5, count, 9)
        found = assigned_cosines(vectors)
        for batch, a, b in itertools.product(range(2), range(5), range(5)):
            x, y = vectors[batch, a].double(), vectors[batch, b].double()
            if a == b:
                continue
            table = np.array([[cosine_similarity(u, v, dim=0).item() for v in y] for u in x])
            best = table[linear_sum_assignment(table, maximize=True)].mean()
            assert found[batch, a, b].item() == pytest.approx(best, abs=1e-12)
            assert found[batch, a, b] >= cosines(vectors[batch])[a, b] - 1e-12

    def test_assignment_undoes_a_shuffle(self) -> None:
        vectors = noise(5, 1, 6, 32)
        both = torch.cat([vectors, vectors[:, [3, 1, 5, 0, 2, 4]]])
        assert assigned_cosines(both)[0, 1] == pytest.approx(1)
        assert cosines(both)[0, 1] < 0.5

    def test_a_vector_of_length_zero_has_no_direction(self) -> None:
        vectors = torch.cat([torch.zeros(1, 2, 4), noise(6, 1, 2, 4)])
        assert cosines(vectors)[0, 1] == direction_cosines(vectors)[0, 1] == 0
        assert assigned_cosines(vectors)[0, 1] == 0

    def test_pair_mean(self) -> None:
        similarity = cosines(noise(7, 6, 2, 5))
        pairs = [similarity[i, j].item() for i, j in itertools.combinations(range(6), 2)]
        assert pair_mean(similarity).item() == pytest.approx(np.mean(pairs), rel=1e-12)
        assert pair_mean(similarity).item() != pytest.approx(similarity.mean().item())  # not with itself
        assert math.isnan(pair_mean(similarity[:1, :1]).item())

    def test_entropy(self) -> None:
        assert entropy(torch.tensor([[7, 7], [7, 7]])) == 0
        assert entropy(torch.arange(8).reshape(4, 2)) == 3

    def test_speed(self) -> None:
        vectors = noise(8, 10, 5, 576)
        assigned_cosines(vectors)
        times = []
        for _ in range(20):
            start = time.perf_counter()
            assigned_cosines(vectors)
            times.append(time.perf_counter() - start)
        assert min(times) < 0.01


class TestJackknife:
    def test_left_out_pairs_against_a_loop(self) -> None:
        similarity = cosines(noise(0, 6, 2, 5))
        for gone, value in enumerate(pair_means_left_out(similarity)):
            rest = [row for row in range(6) if row != gone]
            expected = np.mean([similarity[i, j].item() for i, j in itertools.combinations(rest, 2)])
            assert value == pytest.approx(expected, rel=1e-12)

    def test_interval_against_pseudo_values(self) -> None:
        ids = tokens(1, 9, 5, vocabulary=60)
        found = token_estimates(ids)["shared_tokens"]

        def share(some: Tensor) -> float:
            pairs = itertools.combinations([set(row) for row in some.tolist()], 2)
            return float(np.mean([2 * len(a & b) / (len(a) + len(b)) for a, b in pairs]))

        left = np.array([share(ids[[row for row in range(9) if row != gone]]) for gone in range(9)])
        pseudo = 9 * share(ids) - 8 * left
        half = 2.306004135204166 * pseudo.std(ddof=1) / 3  # t(8) at 97.5 %
        assert found.value == pytest.approx(share(ids), rel=1e-12)
        assert found.high - found.value == pytest.approx(half, rel=1e-9)
        assert found.value - found.low == pytest.approx(min(half, found.value), rel=1e-9)

    def test_mean_of_independent_values_gets_the_t_interval(self) -> None:
        values = noise(2, 12).double().numpy()
        left = (values.sum() - values) / 11
        found = jackknife(float(values.mean()), left)
        half = 2.200985160082949 * values.std(ddof=1) / math.sqrt(12)
        assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half))

    def test_covers_the_truth_and_a_bootstrap_does_not(self) -> None:
        """Restarts of 5 tokens from 40: the expected Jaccard is known by simulation."""
        rng = np.random.default_rng(0)
        draw = lambda restarts: torch.tensor(rng.integers(0, 40, size=(restarts, 5)))  # noqa: E731
        truth = pair_mean(jaccards(draw(400))).item()
        samples = [draw(10) for _ in range(100)]
        found = [token_estimates(ids)["jaccard"] for ids in samples]
        assert np.mean([one.low <= truth <= one.high for one in found]) > 0.9
        again = [pair_mean(jaccards(ids[rng.integers(0, 10, 10)])).item() for ids in samples]
        assert np.mean(again) > truth + 0.05  # a restart agrees with its copy

    @pytest.mark.parametrize("values", [np.zeros(5), np.array([1.0, 2.0]), np.array([1.0, 2.0, math.nan])])
    def test_degenerate(self, values: np.ndarray) -> None:
        found = jackknife(0.0, values)
        assert found.status.startswith("not estimable")
        assert math.isnan(found.low)
        assert math.isnan(found.high)

    def test_limits_stay_within_bounds(self) -> None:
        found = jackknife(0.1, np.array([0.0, 0.3, 0.0]), bounds=(0.0, 1.0))
        assert found.low == 0
        assert found.status == "ok"


class TestActivation:
    def test_numbers(self) -> None:
        found = activation_estimates(torch.tensor([100.0, 96.0, 94.0, 50.0]))
        assert found["activation_sd"].value == pytest.approx(np.std([100, 96, 94, 50], ddof=1))
        assert found["activation_cv"].value == pytest.approx(np.std([100, 96, 94, 50], ddof=1) / 85)
        assert found["activation_range"].value == 50
        assert found["activation_near_best"].value == 0.5
        assert found["activation_sd"].status == "ok"
        assert found["activation_near_best"].status.startswith("not estimable")

    def test_near_best_of_a_negative_best(self) -> None:
        assert activation_estimates(torch.tensor([-10.0, -10.4, -12.0]))["activation_near_best"].value == 2 / 3

    def test_degenerate(self) -> None:
        assert activation_estimates(torch.full((5,), 3.0))["activation_sd"].status.startswith("not estimable")
        assert math.isnan(activation_estimates(torch.tensor([1.0]))["activation_sd"].value)
        assert math.isnan(activation_estimates(torch.tensor([-1.0, 0.0, 1.0]))["activation_cv"].value)


class TestOneSided:
    def test_counts_its_own_side(self) -> None:
        draws = np.arange(10.0)
        assert against(8.5, draws, alternative="greater").p == pytest.approx(2 / 11)
        assert against(8.5, draws, alternative="less").p == pytest.approx(10 / 11)
        assert against(9.0, draws, alternative="greater").p == pytest.approx(2 / 11)  # a tie is as extreme
        assert against(0.3 - 0.2, np.full(9, 0.1), alternative="greater").p == 1  # rounding is no difference

    def test_what_does_not_exist_has_no_p(self) -> None:
        null = against(math.nan, np.full(9, math.nan), alternative="greater")
        assert math.isnan(null.p)
        assert null.reading(0.05) == Reading.NOT_AVAILABLE


@pytest.fixture(scope="module")
def nearest() -> NearestTokens:
    return NearestTokens(noise(0, 60, 12))


def ended(initial: Tensor, final: Tensor) -> Restarts:
    count = len(initial)
    return Restarts(initial, final, torch.zeros(count), 1 + noise(3, count).abs(), torch.zeros(count, dtype=torch.bool))


class TestAgree:
    def test_each_number_stands_beside_its_null(self, nearest: NearestTokens) -> None:
        initial, final = noise(1, 6, 3, 12), noise(2, 6, 3, 12)
        moved = displace(nearest, initial, final, draws=40, seed=0)
        found = agree(ended(initial, final), nearest(final).best, moved)
        assert set(found.nulls) == set(TOKENS) | set(EMBEDDINGS)
        for name, null in found.nulls.items():
            assert null.observed == found.estimates[name].value
            assert null.draws == (40 if name in TOKENS else 2**5 - 1)  # all signs of five restarts, but none turned
            assert null.alternative == (TOKENS | EMBEDDINGS)[name].alternative
        flat = found.flat()
        assert {"jaccard", "jaccard_low", "jaccard_status", "null_jaccard_p", "null_coverage_mean"} <= set(flat)
        assert {"null_direction_signs_p", "kappa_tokens", "kappa_embeddings_low"} <= set(flat)
        assert "null_direction_p" not in flat  # that is the null of other units, which the decision gives
        assert all(isinstance(value, (float, str)) for value in flat.values())

    def test_the_null_is_what_the_same_functions_say_of_displaced_noise(self, nearest: NearestTokens) -> None:
        """A draw is one of the decoded moves at each position: the only one where there is one."""
        initial, final = noise(1, 6, 3, 12), noise(2, 6, 3, 12)
        seen: list[tuple[Tensor, ...]] = []
        along = NearestTokens.along
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(NearestTokens, "along", lambda self, *paths: seen.append(paths) or along(self, *paths))
            moved = displace(nearest, initial, final, draws=3, seed=0, moves=1)
        ((start, directions, (lengths,)),) = seen
        assert torch.allclose(lengths, (final - initial).norm(dim=-1).flatten())
        assert torch.allclose(directions.norm(dim=-1), torch.ones(1, 18))
        where = (start + lengths[:, None] * directions).view(initial.shape)
        decoded = nearest(where)
        for name, estimate in token_estimates(decoded.best).items():
            assert moved.agreement[name] == pytest.approx([estimate.value] * 3, abs=1e-6), name
        assert moved.cosine == pytest.approx(decoded.best_cosine.double().mean(1).tolist(), abs=1e-6)  # by restart
        kept = (decoded.best == nearest(initial).best).double().mean().item()
        assert moved.retention.tolist() == [kept] * 3
        assert moved.unique.tolist() == [len(decoded.best.unique())] * 3

    def test_draws_combine_the_decoded_moves_of_each_position(self, nearest: NearestTokens) -> None:
        initial, final = noise(1, 6, 3, 12), noise(2, 6, 3, 12)
        seen: list[Tensor] = []
        along = NearestTokens.along

        def watched(self: NearestTokens, *paths: Tensor) -> tuple[Tensor, Tensor]:
            seen.append(along(self, *paths)[0])
            return along(self, *paths)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(NearestTokens, "along", watched)
            moved = displace(nearest, initial, final, draws=400, seed=0, moves=20)
        ((decoded,),) = seen  # 20 moves of 18 positions
        assert decoded.shape == (20, 18)
        kept = (decoded == nearest(initial).best.flatten()).double().mean().item()
        error = moved.retention.std(ddof=1) / math.sqrt(400)
        assert moved.retention.mean() == pytest.approx(kept, abs=4 * error)
        assert len(np.unique(moved.agreement["entropy"])) > 20  # more than the moves that were decoded
        assert moved.rarefaction.shape == (400, 6)
        assert (moved.rarefaction[:, -1] == moved.unique).all()

    def test_units_together_are_what_each_is_alone(self, nearest: NearestTokens) -> None:
        initial, finals = noise(1, 6, 3, 12), [noise(2, 6, 3, 12), 4 * noise(3, 6, 3, 12)]
        together = displace_together(nearest, initial, finals, draws=40, seed=0)
        for final, one in zip(finals, together, strict=True):
            alone = displace(nearest, initial, final, draws=40, seed=0)
            assert np.array_equal(one.retention, alone.retention)
            assert np.array_equal(one.rarefaction, alone.rarefaction)
            assert np.array_equal(one.cosine, alone.cosine)
        assert together[0].retention.mean() > together[1].retention.mean()  # the longer the move, the less is kept

    def test_units_that_start_elsewhere_are_not_taken_together(self, nearest: NearestTokens) -> None:
        settings = NullSettings(draws=30, displacements=20)
        restarts = [ended(noise(seed, 6, 3, 12), noise(9, 6, 3, 12)) for seed in (1, 2, 1)]
        found = moves(nearest, restarts, settings)
        for one, restart in zip(found, restarts, strict=True):
            alone = displace(nearest, restart.initial, restart.final, draws=30, seed=0, moves=20)
            assert np.array_equal(one.cosine, alone.cosine)
        assert not np.array_equal(found[0].cosine, found[1].cosine)

    def test_rarefaction_stands_beside_its_null(self, nearest: NearestTokens) -> None:
        initial = noise(1, 6, 3, 12)
        final = initial + 50 * nearest.directions[:3]
        moved = displace(nearest, initial, final, draws=79, seed=0)
        curve = agree(ended(initial, final), nearest(final).best, moved).rarefaction
        assert curve.unique.tolist() == [3.0] * 6
        assert (curve.null_low <= curve.null_mean).all()
        assert (curve.unique[1:] < curve.null_low[1:]).all()

    def test_one_restart_has_no_agreement(self, nearest: NearestTokens) -> None:
        initial, final = noise(1, 1, 3, 12), noise(2, 1, 3, 12)
        moved = displace(nearest, initial, final, draws=20, seed=0)
        found = agree(ended(initial, final), nearest(final).best, moved)
        assert math.isnan(found.nulls["jaccard"].p)
        assert math.isnan(found.nulls["displacement_cosine"].p)
        assert not any(one.status == "ok" for one in found.estimates.values())
        assert all(math.isnan(one.low) for one in found.kappa.values())


def sweep(kind: str, units: int, seeds: int, seed: int) -> tuple[Tensor, Tensor]:
    """Token ids and displacements of some units; everything a unit has of its own or shares is drawn from `seed`."""
    place = {"nothing": 0, "own": noise(seed + 1, units, 1, 3, 16), "shared": noise(seed + 1, 1, 1, 3, 16)}
    place |= {"seeds": noise(seed + 1, 1, seeds, 3, 16)}
    moves = 0.4 * noise(seed, units, seeds, 3, 16) + place[kind]
    directions = noise(99, 50, 16)
    ids = (moves @ directions.T).argmax(-1)
    return ids, moves


class TestKappa:
    def test_is_the_share_of_what_chance_leaves(self) -> None:
        similarity = shared_shares(tokens(3, 9, 5, vocabulary=20))
        found = kappa(similarity, 0.125)
        pairs = [similarity[i, j].item() for i, j in itertools.combinations(range(9), 2)]
        assert found.value == pytest.approx((np.mean(pairs) - 0.125) / 0.875, rel=1e-12)
        assert kappa(similarity, float(np.mean(pairs))).value == pytest.approx(0, abs=1e-12)

    def test_interval_against_pseudo_values(self) -> None:
        similarity, chance = shared_shares(tokens(4, 9, 5, vocabulary=20)), 0.125

        def naive(rows: list[int]) -> float:
            pairs = [similarity[i, j].item() for i, j in itertools.combinations(rows, 2)]
            return float((np.mean(pairs) - chance) / (1 - chance))

        pseudo = [9 * naive(list(range(9))) - 8 * naive([r for r in range(9) if r != gone]) for gone in range(9)]
        half = 2.306004135204166 * np.std(pseudo, ddof=1) / 3  # t(8) at 97.5 %
        found = kappa(similarity, chance)
        assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half), rel=1e-9)

    @pytest.mark.parametrize("count", [2, 3, 6, 10, 100])
    def test_all_the_same_has_the_interval_of_a_run_of_successes(self, count: int) -> None:
        found = kappa(shared_shares(torch.tensor([[3, 1, 2]] * count)), 0.01)
        low, high = proportion_confint(count, count, alpha=0.1, method="beta")  # one-sided at 5 %
        assert (found.value, found.high) == (1.0, 1.0)
        assert found.low == pytest.approx(0.05 ** (1 / count), rel=1e-12)
        assert (found.low, found.high) == pytest.approx((low, high), rel=1e-9)

    def test_moves_that_are_the_same_but_for_rounding_are_the_same(self) -> None:
        one = noise(5, 1, 4, 30)
        scaled = one * torch.linspace(0.3, 3, 6)[:, None, None]  # float32: cosines are 1 but for rounding
        assert kappa(assigned_cosines(scaled.double()), 0.2).low == pytest.approx(0.05 ** (1 / 6))
        assert kappa(assigned_cosines(one + 0.01 * noise(6, 6, 4, 30)), 0.2).low != pytest.approx(0.05 ** (1 / 6))

    @pytest.mark.parametrize("count", [1, 2])
    def test_few_restarts_have_no_interval(self, count: int) -> None:
        found = kappa(shared_shares(torch.arange(5 * count).reshape(count, 5)), 0.1)
        assert math.isnan(found.low)
        assert math.isnan(found.high)

    def test_of_a_unit_is_beside_its_nulls(self, nearest: NearestTokens) -> None:
        initial = noise(1, 6, 3, 12)
        final = initial + 4 * nearest.directions[:3] + noise(2, 6, 3, 12)
        ids = nearest(final).best
        found = agree(ended(initial, final), ids, displace(nearest, initial, final, draws=40, seed=0))
        for space, name, own in (
            ("tokens", "shared_tokens", shared_shares(ids)),
            ("embeddings", "displacement_cosine_assigned", assigned_cosines(final - initial)),
        ):
            chance = found.nulls[name].mean
            assert found.kappa[space].value == pytest.approx((pair_mean(own).item() - chance) / (1 - chance))
            assert found.kappa[space].status == "ok"


class TestSigns:
    def test_patterns_are_all_but_the_one_of_the_restarts(self) -> None:
        found = {tuple(row) for row in signs(5, 10, 0).tolist()}
        assert found == {(1, *rest) for rest in itertools.product((1, -1), repeat=4)} - {(1,) * 5}
        both = {tuple(row) for row in signs(3, 10, 0, both=True).tolist()}
        assert both == set(itertools.product((1, -1), repeat=3)) - {(1,) * 3}

    def test_many_restarts_take_draws(self) -> None:
        drawn = signs(20, 500, 0)
        assert drawn.shape == (500, 20)
        assert set(np.unique(drawn)) == {-1, 1}
        assert (drawn[:, 0] == 1).all()
        assert abs(drawn[:, 1:].mean()) < 0.05
        assert not (drawn == signs(20, 500, 1)).all()
        assert len(signs(13, 999, 0)) == 2**12 - 1  # the last number of restarts of which all patterns are taken
        assert len(signs(14, 999, 0)) == 999

    @pytest.mark.parametrize("positions", [1, 3, 6])
    def test_values_against_a_loop_over_all_patterns(self, positions: int) -> None:
        """Six positions are assigned one by one, fewer are assigned all at once."""
        initial, final = noise(1, 4, positions, 7), noise(2, 4, positions, 7)
        found = flipped_values(initial, final, draws=10, seed=0)
        expected: dict[str, list[float]] = {name: [] for name in EMBEDDINGS}
        for rest in itertools.product((1.0, -1.0), repeat=3):
            if rest == (1, 1, 1):
                continue
            turned = torch.tensor([1.0, *rest]).double()[:, None, None] * (final - initial).double()
            for name, one in embedding_estimates(turned, initial.double() + turned).items():
                expected[name].append(one.value)
        assert set(found) == set(EMBEDDINGS)
        for name, values in found.items():
            assert sorted(values) == pytest.approx(sorted(expected[name]), abs=1e-6), name
        assert np.ptp(found["final_cosine_assigned"]) > 0

    def test_drawn_patterns_give_what_enumeration_gives(self, monkeypatch: pytest.MonkeyPatch) -> None:
        initial, final = noise(1, 8, 3, 7), noise(2, 8, 3, 7)
        every = flipped_values(initial, final, draws=10, seed=0)
        monkeypatch.setattr("actmax.evidence.pairs.ENUMERATED_SIGNS", 1)
        drawn = flipped_values(initial, final, draws=100, seed=0)
        for name in EMBEDDINGS:
            assert len(every[name]) == 127
            assert len(drawn[name]) == 100
            known = np.append(every[name], embedding_estimates(final - initial, final)[name].value)
            assert all(np.abs(known - value).min() < 1e-6 for value in drawn[name]), name
            error = every[name].std(ddof=1) / math.sqrt(100)
            assert drawn[name].mean() == pytest.approx(every[name].mean(), abs=4 * error)


def of(found: OwnTest | None) -> OwnTest:
    assert found is not None
    return found


class TestOwn:
    @pytest.mark.parametrize("space", ["tokens", "embeddings"])
    def test_against_full_enumeration(self, space: str) -> None:
        """3 units x 3 seeds: the 27 ways to pick a row of each seed, each by naive loops."""
        ids, moves = sweep("own", 3, 3, 5)
        found = own_agreement(ids, moves)
        assert found.draws == 26
        own = {"tokens": shared_shares(ids.flatten(0, 1)), "embeddings": direction_cosines(moves.flatten(0, 1))}
        similarity = own[space].reshape(3, 3, 3, 3).numpy()
        tested = of(getattr(found, space))
        for unit, null in enumerate(tested.nulls):
            picks = list(itertools.product(range(3), repeat=3))
            drawn = {pick: naive(similarity, pick) for pick in picks}
            observed = drawn.pop((unit,) * 3)
            base = tested.between[unit]
            assert null.observed == pytest.approx(base + observed, abs=1e-12)
            assert null.observed == pytest.approx(tested.within[unit], abs=1e-12)
            assert null.values == pytest.approx(sorted(base + value for value in drawn.values()), abs=1e-12)
            extreme = sum(value >= observed - 1e-9 for value in drawn.values())
            assert null.p == pytest.approx((1 + extreme) / 27)
        assert np.ptp(tested.p) > 0  # each unit has its own distribution

    def test_a_pick_is_what_a_relabelling_gives(self) -> None:
        """Over all (3!)³ relabellings of the units within seeds, a unit's statistic takes each pick's equally often."""
        similarity = direction_cosines(sweep("own", 3, 3, 5)[1].flatten(0, 1)).reshape(3, 3, 3, 3).numpy()
        orders = list(itertools.permutations(range(3)))
        relabelled = [relabel(similarity, labels, unit=0) for labels in itertools.product(orders, repeat=3)]
        picks = [naive(similarity, pick) for pick in itertools.product(range(3), repeat=3)]
        assert sorted(relabelled) == pytest.approx(sorted(np.repeat(picks, 8)), abs=1e-12)

    def test_picks_are_drawn_where_there_are_too_many(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ids, moves = sweep("own", 4, 6, 5)
        moves[0] = 0.4 * noise(77, 6, 3, 16) + 0.3 * moves[0, :1]  # a unit whose p is no extreme
        every = own_agreement(ids, moves)
        assert every.draws == 4**6 - 1
        monkeypatch.setattr("actmax.evidence.own.EXACT", 100)
        drawn = own_agreement(ids, moves)
        assert drawn.draws == 9_999
        for one, other in zip(of(every.embeddings).nulls, of(drawn.embeddings).nulls, strict=True):
            assert one.observed == other.observed
            assert other.p == pytest.approx(one.p, abs=4 * math.sqrt(one.p * (1 - one.p) / 9_999) + 2e-4)
            assert other.mean == pytest.approx(one.mean, abs=4 * one.values.std() / 100)
        many = own_agreement(*sweep("own", 100, 3, 5))  # at least 120 draws per unit
        assert many.draws >= 12_000
        assert (many.draws + 1) % 40 == 0

    def test_enumeration_reaches_three_units_and_ten_seeds(self) -> None:
        assert 3**10 <= EXACT < 3**11

    def test_within_and_between(self) -> None:
        ids, moves = sweep("own", 4, 3, 6)
        found = of(own_agreement(ids, moves).tokens)
        similarity = shared_shares(ids.flatten(0, 1)).reshape(4, 3, 4, 3).numpy()
        pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
        for unit in range(4):
            within = np.mean([similarity[unit, i, unit, j] for i, j in pairs])
            between = np.mean([similarity[unit, i, v, j] for i, j in pairs for v in range(4) if v != unit])
            assert found.within[unit] == pytest.approx(within, abs=1e-12)
            assert found.between[unit] == pytest.approx(between, abs=1e-12)
            assert found.nulls[unit].observed == pytest.approx(within, abs=1e-12)

    def test_pairs_of_one_seed_are_never_read(self) -> None:
        similarity = direction_cosines(sweep("own", 4, 3, 6)[1].flatten(0, 1)).reshape(4, 3, 4, 3).numpy().copy()
        picks = np.random.default_rng(0).integers(0, 4, (9, 3))
        before = _Space(similarity).contrast(picks)
        for i in range(3):
            similarity[:, i, :, i] = math.nan
        assert (_Space(similarity).contrast(picks) == before).all()
        similarity[:, 0, :, 1] = math.nan
        assert np.isnan(_Space(similarity).contrast(picks)).any()

    def test_finds_units_of_their_own(self) -> None:
        found = own_agreement(*sweep("own", 8, 10, 0))
        assert (of(found.tokens).p < 0.01).all()
        assert (of(found.embeddings).p < 0.01).all()

    def test_the_smallest_p_is_in_reach(self) -> None:
        """Where every unit is its own, each has the smallest p; what the status says of it is what is given."""
        ids = torch.arange(3)[:, None, None].expand(3, 4, 2)
        moves = torch.eye(3)[:, None, None].expand(3, 4, 2, 3)
        found = own_agreement(ids, moves)
        assert found.smallest_p == 3.0**-3
        assert of(found.tokens).p == pytest.approx([3.0**-3] * 3)
        assert of(found.embeddings).p == pytest.approx([3.0**-3] * 3)

    def test_only_one_unit_is_left(self) -> None:
        whole = own_agreement(*sweep("own", 4, 3, 6))
        one = whole.only(2)
        for before, after in ((whole.tokens, one.tokens), (whole.embeddings, one.embeddings)):
            assert of(after).p.tolist() == [of(before).p[2]]
            assert of(after).within.tolist() == [of(before).within[2]]
            assert of(after).between.tolist() == [of(before).between[2]]
        assert (one.units, one.seeds, one.draws, one.smallest_p) == (4, 3, whole.draws, whole.smallest_p)

    @pytest.mark.parametrize("kind", ["nothing", "shared", "seeds"])
    def test_keeps_its_level(self, kind: str) -> None:
        p = []
        for repetition in range(60):
            found = own_agreement(*sweep(kind, 6, 5, 1000 * repetition))
            p.append([of(found.tokens).p, of(found.embeddings).p])
        rate = (np.array(p) <= 0.1).mean((0, 2))
        assert (rate <= 0.1 + 3 * math.sqrt(0.1 * 0.9 / 360)).all()
        assert rate[1] > 0.04  # exact, not merely cautious

    def test_the_trap_is_in_the_data(self) -> None:
        """Units that share seeds agree at equal seeds, so a null that mixed in such pairs would be of another kind."""
        ids, _ = sweep("seeds", 6, 5, 0)
        similarity = shared_shares(ids.flatten(0, 1)).reshape(6, 5, 6, 5)
        same = np.mean([similarity[u, i, v, i] for i in range(5) for u, v in itertools.combinations(range(6), 2)])
        other = np.mean([similarity[u, i, v, j] for i, j in itertools.permutations(range(5), 2) for u, v in [(0, 1)]])
        assert same > other + 0.2

    def test_finds_one_of_its_own_among_units_that_share_a_tighter_attractor(self) -> None:
        """The mean within alone would miss it: a relabelled unit is mostly made of the others' rows."""
        moves = 0.4 * noise(6, 8, 6, 3, 16) + noise(5, 16)
        moves[0] = 1.2 * noise(7, 6, 3, 16) + noise(8, 16)
        ids = (moves @ noise(99, 50, 16).T).argmax(-1)
        found = of(own_agreement(ids, moves).embeddings)
        assert found.p[0] < 0.01
        assert found.within[0] < found.within[1:].min()
        assert (found.p[1:] > 0.01).all()

    def test_says_when_it_is_not_available(self) -> None:
        ids, moves = sweep("own", 3, 4, 0)
        assert own_agreement(ids[:1], moves[:1]).status == OwnStatus.ONE_UNIT
        assert own_agreement(ids[:, :1], moves[:, :1]).status == OwnStatus.ONE_SEED
        assert own_agreement(ids, moves).status == "ok"

    def test_drawn_picks_are_named_by_their_seed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("actmax.evidence.own.EXACT", 10)
        ids, moves = sweep("own", 4, 3, 0)
        first, again, other = (
            of(own_agreement(ids, moves, draws=200, seed=seed).embeddings).nulls for seed in (0, 0, 1)
        )
        assert {one.draws for one in first} == {200}
        assert all((one.values == two.values).all() for one, two in zip(first, again, strict=True))
        assert not any((one.values == two.values).all() for one, two in zip(first, other, strict=True))


def naive(similarity: np.ndarray, pick: tuple[int, ...]) -> float:
    """Within - between by loops of a unit whose row of each seed is that of the picked unit.

    The other units hold the rest of each seed's rows; the mean over them does not depend on which of them holds which.
    """
    units, seeds = similarity.shape[:2]
    within, between = [], []
    for i, j in itertools.permutations(range(seeds), 2):
        within.append(similarity[pick[i], i, pick[j], j])
        between += [similarity[pick[i], i, v, j] for v in range(units) if v != pick[j]]
    return float(np.mean(within) - np.mean(between))


def relabel(similarity: np.ndarray, labels: tuple[tuple[int, ...], ...], *, unit: int) -> float:
    """Within - between of a unit by loops over a relabelling; `labels[s][u]` is whose row of seed s unit u has."""
    units, seeds = similarity.shape[:2]
    within, between = [], []
    for i, j in itertools.permutations(range(seeds), 2):
        row = labels[i][unit]
        within.append(similarity[row, i, labels[j][unit], j])
        between += [similarity[row, i, labels[j][v], j] for v in range(units) if v != unit]
    return float(np.mean(within) - np.mean(between))
