"""Every statistic of agreement against a naive loop; the permutation null against full enumeration; planted units."""

from __future__ import annotations

import doctest
import importlib
import itertools
import math
import pkgutil
import time

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import cosine_similarity

import actmax.evidence
from actmax.evidence.agreement import agree
from actmax.evidence.estimates import jackknife
from actmax.evidence.measures import moves
from actmax.evidence.nulls import Restarts, against, displace, displace_together
from actmax.evidence.own import _Space, own_agreement
from actmax.evidence.pairs import (
    EMBEDDINGS,
    TOKENS,
    activation_estimates,
    assigned_cosines,
    cosines,
    embedding_estimates,
    entropy,
    jaccards,
    pair_mean,
    pair_means_left_out,
    position_agreements,
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

    def test_jaccard_of_a_batch_is_that_of_its_parts(self) -> None:
        ids = tokens(1, 3, 6, 4)
        assert torch.equal(jaccards(ids), torch.stack([jaccards(one) for one in ids]))

    def test_position(self) -> None:
        ids = tokens(2, 6, 5, vocabulary=3)
        expected = [[np.mean([a == b for a, b in zip(x, y, strict=True)]) for y in ids.tolist()] for x in ids.tolist()]
        assert torch.allclose(position_agreements(ids), torch.tensor(expected), atol=1e-15)

    def test_order_counts_for_positions_and_not_for_sets(self) -> None:
        ids = torch.tensor([[1, 2, 3], [3, 1, 2]])
        assert jaccards(ids)[0, 1] == 1
        assert position_agreements(ids)[0, 1] == 0

    def test_cosine(self) -> None:
        vectors = noise(3, 6, 4, 9)
        expected = [[cosine_similarity(a.double(), b.double(), dim=-1).mean() for b in vectors] for a in vectors]
        assert torch.allclose(cosines(vectors), torch.tensor(expected).double(), atol=1e-12)

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
        assert cosines(vectors)[0, 1] == 0
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
        found = token_estimates(ids)["unique_share"]
        share = lambda some: len(some.unique()) / some.numel()  # noqa: E731
        left = np.array([share(ids[[row for row in range(9) if row != gone]]) for gone in range(9)])
        pseudo = 9 * share(ids) - 8 * left
        half = 2.306004135204166 * pseudo.std(ddof=1) / 3  # t(8) at 97.5 %
        assert found.value == share(ids)
        assert found.high - found.value == pytest.approx(min(half, 1 - found.value), rel=1e-9)

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
        assert null.reading == Reading.NOT_AVAILABLE


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
            assert null.draws == 40
            assert null.alternative == (TOKENS | EMBEDDINGS)[name].alternative
        flat = found.flat()
        assert {"jaccard", "jaccard_low", "jaccard_status", "null_jaccard_p", "null_coverage_mean"} <= set(flat)
        assert all(isinstance(value, (float, str)) for value in flat.values())

    def test_the_null_is_what_the_same_functions_say_of_displaced_noise(self, nearest: NearestTokens) -> None:
        initial, final = noise(1, 6, 3, 12), noise(2, 6, 3, 12)
        seen: list[tuple[Tensor, ...]] = []
        along = NearestTokens.along
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(NearestTokens, "along", lambda self, *paths: seen.append(paths) or along(self, *paths))
            moved = displace(nearest, initial, final, draws=15, seed=0)
        ((start, directions, (lengths,)),) = seen
        assert torch.allclose(lengths, (final - initial).norm(dim=-1).flatten())
        assert torch.allclose(directions.norm(dim=-1), torch.ones(15, 18))
        drawn = (start + lengths[:, None] * directions).view(15, *initial.shape)
        for draw, where in enumerate(drawn):
            expected = token_estimates(nearest(where).best) | embedding_estimates(where - initial, where)
            for name, estimate in expected.items():
                assert moved.agreement[name][draw] == pytest.approx(estimate.value, abs=1e-6), name
        assert moved.rarefaction.shape == (15, 6)
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
        settings = NullSettings(displacements=20)
        restarts = [ended(noise(seed, 6, 3, 12), noise(9, 6, 3, 12)) for seed in (1, 2, 1)]
        found = moves(nearest, restarts, settings)
        for one, restart in zip(found, restarts, strict=True):
            alone = displace(nearest, restart.initial, restart.final, draws=20, seed=0)
            assert np.array_equal(one.cosine, alone.cosine)
        assert not np.array_equal(found[0].cosine, found[1].cosine)

    def test_rarefaction_stands_beside_its_null(self, nearest: NearestTokens) -> None:
        initial = noise(1, 6, 3, 12)
        final = initial + 50 * nearest.directions[:3]
        moved = displace(nearest, initial, final, draws=40, seed=0)
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


def sweep(kind: str, units: int, seeds: int, seed: int) -> tuple[Tensor, Tensor]:
    """Token ids and displacements of some units; everything a unit has of its own or shares is drawn from `seed`."""
    place = {"nothing": 0, "own": noise(seed + 1, units, 1, 3, 16), "shared": noise(seed + 1, 1, 1, 3, 16)}
    place |= {"seeds": noise(seed + 1, 1, seeds, 3, 16)}
    moves = 0.4 * noise(seed, units, seeds, 3, 16) + place[kind]
    directions = noise(99, 50, 16)
    ids = (moves @ directions.T).argmax(-1)
    return ids, moves


class TestOwn:
    def test_against_full_enumeration(self) -> None:
        """3 units x 3 seeds: 3!^3 = 216 relabellings, each by naive loops."""
        ids, moves = sweep("own", 3, 3, 5)
        found = own_agreement(ids, moves, draws=20_000)
        assert found.tokens is not None
        assert found.embeddings is not None
        similarity = assigned_cosines(moves.flatten(0, 1)).reshape(3, 3, 3, 3).numpy()
        orders = list(itertools.permutations(range(3)))
        drawn = np.array([naive(similarity, labels) for labels in itertools.product(orders, repeat=3)])
        observed = naive(similarity, (tuple(range(3)),) * 3)
        for unit, null in enumerate(found.embeddings.nulls):
            assert null.observed == pytest.approx(observed[unit], abs=1e-12)
            exact = np.mean(drawn[:, unit] >= observed[unit] - 1e-12)
            assert abs(null.p - exact) < 4 * math.sqrt(exact * (1 - exact) / 20_000) + 1e-4
            assert null.mean == pytest.approx(drawn[:, unit].mean(), abs=0.01)
        assert np.ptp([null.p for null in found.embeddings.nulls]) > 0  # each unit has its own distribution

    def test_within_and_between(self) -> None:
        ids, moves = sweep("own", 4, 3, 6)
        found = own_agreement(ids, moves)
        assert found.tokens is not None
        similarity = jaccards(ids.flatten(0, 1)).reshape(4, 3, 4, 3).numpy()
        pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
        for unit in range(4):
            within = np.mean([similarity[unit, i, unit, j] for i, j in pairs])
            between = np.mean([similarity[unit, i, v, j] for i, j in pairs for v in range(4) if v != unit])
            assert found.tokens.within[unit] == pytest.approx(within, abs=1e-12)
            assert found.tokens.between[unit] == pytest.approx(between, abs=1e-12)
            assert found.tokens.nulls[unit].observed == pytest.approx(within - between, abs=1e-12)

    def test_pairs_of_one_seed_are_never_read(self) -> None:
        similarity = assigned_cosines(sweep("own", 4, 3, 6)[1].flatten(0, 1)).reshape(4, 3, 4, 3).numpy().copy()
        labels = np.stack([np.random.default_rng(0).permuted(np.tile(np.arange(4), (3, 1)), axis=1) for _ in range(9)])
        before = _Space(similarity).contrast(labels)
        for i in range(3):
            similarity[:, i, :, i] = math.nan
        assert (_Space(similarity).contrast(labels) == before).all()
        similarity[:, 0, :, 1] = math.nan
        assert np.isnan(_Space(similarity).contrast(labels)).any()

    def test_finds_units_of_their_own(self) -> None:
        found = own_agreement(*sweep("own", 8, 10, 0))
        assert found.tokens is not None
        assert found.embeddings is not None
        assert (found.tokens.p < 0.01).all()
        assert (found.embeddings.p < 0.01).all()

    @pytest.mark.parametrize("kind", ["nothing", "shared", "seeds"])
    def test_keeps_its_level(self, kind: str) -> None:
        p = []
        for repetition in range(60):
            found = own_agreement(*sweep(kind, 6, 5, 1000 * repetition), draws=199, seed=repetition)
            assert found.tokens is not None
            assert found.embeddings is not None
            p.append([found.tokens.p, found.embeddings.p])
        rate = (np.array(p) <= 0.1).mean((0, 2))
        assert (rate <= 0.1 + 3 * math.sqrt(0.1 * 0.9 / 360)).all()
        assert rate[1] > 0.04  # exact, not merely cautious

    def test_the_trap_is_in_the_data(self) -> None:
        """Units that share seeds agree at equal seeds, so a null that mixed in such pairs would be of another kind."""
        ids, _ = sweep("seeds", 6, 5, 0)
        similarity = jaccards(ids.flatten(0, 1)).reshape(6, 5, 6, 5)
        same = np.mean([similarity[u, i, v, i] for i in range(5) for u, v in itertools.combinations(range(6), 2)])
        other = np.mean([similarity[u, i, v, j] for i, j in itertools.permutations(range(5), 2) for u, v in [(0, 1)]])
        assert same > other + 0.2

    def test_finds_one_of_its_own_among_units_that_share_a_tighter_attractor(self) -> None:
        """The mean within alone would miss it: a relabelled unit is mostly made of the others' rows."""
        _, moves = sweep("shared", 8, 6, 0)
        moves[0] = 1.2 * noise(7, 6, 3, 16) + noise(8, 1, 3, 16)
        ids = (moves @ noise(99, 50, 16).T).argmax(-1)
        found = own_agreement(ids, moves)
        assert found.embeddings is not None
        assert found.embeddings.p[0] < 0.01
        assert found.embeddings.within[0] < found.embeddings.within[1:].min()
        assert (found.embeddings.p[1:] > 0.01).all()

    def test_says_when_it_is_not_available(self) -> None:
        ids, moves = sweep("own", 3, 4, 0)
        assert own_agreement(ids[:1], moves[:1]).status == OwnStatus.ONE_UNIT
        assert own_agreement(ids[:, :1], moves[:, :1]).status == OwnStatus.ONE_SEED
        assert own_agreement(ids, moves).status == "ok"

    def test_too_few_draws_are_refused(self) -> None:
        with pytest.raises(ValueError, match="at least 20 per unit"):
            own_agreement(*sweep("own", 8, 3, 0), draws=159)

    def test_draws_do_not_depend_on_how_they_are_grouped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = own_agreement(*sweep("own", 4, 3, 0), draws=200)
        monkeypatch.setattr("actmax.evidence.own.ENTRIES", 4 * 3 * 7)
        parts = own_agreement(*sweep("own", 4, 3, 0), draws=200)
        other = own_agreement(*sweep("own", 4, 3, 0), draws=200, seed=1)
        assert whole.tokens is not None
        assert parts.tokens is not None
        assert other.tokens is not None
        assert whole.tokens.nulls == parts.tokens.nulls
        assert whole.tokens.nulls != other.tokens.nulls


def naive(similarity: np.ndarray, labels: tuple[tuple[int, ...], ...]) -> np.ndarray:
    """Within - between of each unit by loops; `labels[s][u]` is whose row of seed s unit u has."""
    units, seeds = similarity.shape[:2]
    found = []
    for unit in range(units):
        within, between = [], []
        for i, j in itertools.permutations(range(seeds), 2):
            row = labels[i][unit]
            within.append(similarity[row, i, labels[j][unit], j])
            between += [similarity[row, i, labels[j][v], j] for v in range(units) if v != unit]
        found.append(np.mean(within) - np.mean(between))
    return np.array(found)
