from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from actmax.evidence import nulls
from actmax.evidence.arithmetic import Ends, rounding
from actmax.evidence.measures import InitRetention, Measures, UniqueTokens, judge, measure, repeated
from actmax.evidence.nulls import Pool, Restarts, against, displace, random_pool, uniform_unique
from actmax.evidence.own import Own
from actmax.evidence.readings import OwnStatus, Reading
from actmax.evidence.settings import NullSettings
from actmax.model.nearest import NearestTokens
from actmax.report.words import unit_statement

SIDES = [Reading.BELOW, Reading.WITHIN, Reading.ABOVE]
SETTINGS = NullSettings(pool=5000, draws=200, displacements=100, seed=0)


@pytest.fixture(scope="module")
def nearest() -> NearestTokens:
    return NearestTokens(torch.randn(300, 16, generator=torch.Generator().manual_seed(0)))


@pytest.fixture(scope="module")
def pool(nearest: NearestTokens) -> Pool:
    return random_pool(nearest, size=SETTINGS.pool, seed=1)


def restarts(initial: Tensor, final: Tensor) -> Restarts:
    count = len(initial)
    return Restarts(initial, final, torch.zeros(count), torch.ones(count), torch.zeros(count, dtype=torch.bool))


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class TestAgainst:
    def test_p_counts_the_draws_on_the_nearer_side_twice(self) -> None:
        null = against(9.5, np.arange(10.0))
        assert null.p == pytest.approx(2 * 1 / 11)
        assert null.draws == 10
        assert null.mean == pytest.approx(4.5)
        assert against(8.5, np.arange(10.0)).p == pytest.approx(2 * 2 / 11)

    def test_p_is_never_above_one_or_zero(self) -> None:
        assert against(4.0, np.full(10, 4.0)).p == 1.0
        assert against(1e9, np.arange(10.0)).p > 0

    def test_sides(self) -> None:
        draws = np.arange(1000.0)
        assert [against(value, draws).reading for value in (-1.0, 500.0, 2000.0)] == SIDES

    def test_false_positives_stay_at_alpha(self) -> None:
        generator = np.random.default_rng(0)
        p = np.array([against(*_draw(generator, 0.0)).p for _ in range(2000)])
        rate = float(np.mean(p <= 0.05))
        error = math.sqrt(0.05 * 0.95 / 2000)
        assert rate <= 0.05 + 3 * error
        assert rate > 0.02
        shifted = np.array([against(*_draw(generator, 3.0)).p for _ in range(200)])
        assert np.mean(shifted <= 0.05) > 0.7  # and an effect is seen


def _draw(generator: np.random.Generator, shift: float) -> tuple[float, np.ndarray]:
    return float(generator.normal() + shift), generator.normal(size=99)


class TestUniform:
    @pytest.mark.parametrize(("drawn", "vocabulary"), [(1, 4), (3, 4), (5, 3)])
    def test_equals_enumeration(self, drawn: int, vocabulary: int) -> None:
        counts = np.array([len(set(draw)) for draw in itertools.product(range(vocabulary), repeat=drawn)])
        for observed in range(1, min(drawn, vocabulary) + 1):
            null = uniform_unique(observed, drawn, vocabulary)
            assert null.mean == pytest.approx(counts.mean(), rel=1e-12)
            tails = 2 * min(np.mean(counts <= observed), np.mean(counts >= observed))
            assert null.p == pytest.approx(min(1.0, tails), rel=1e-12)

    def test_report_a(self) -> None:
        null = uniform_unique(48, 50, 50257)
        assert null.mean == pytest.approx(50257 * (1 - (1 - 1 / 50257) ** 50), rel=1e-9)
        assert null.low == null.high == 50
        assert null.p < 0.001


class TestPool:
    def test_samples_are_without_replacement(self) -> None:
        pool = Pool(torch.arange(60), torch.linspace(0, 1, 60))
        unique, cosine = pool.samples(60, draws=5, seed=0)
        assert (unique == 60).all()
        assert np.allclose(cosine, 0.5)
        unique, cosine = pool.samples(10, draws=500, seed=0)
        assert (unique == 10).all()
        assert abs(cosine.mean() - 0.5) < 0.02
        assert cosine.std() > 0.01

    def test_too_large_a_sample_is_refused(self) -> None:
        with pytest.raises(ValueError, match="pool of 3"):
            Pool(torch.arange(3), torch.zeros(3)).samples(4, draws=1, seed=0)

    def test_is_the_decoding_of_seeded_noise(self, nearest: NearestTokens) -> None:
        pool = random_pool(nearest, size=3000, seed=4)
        again, other = random_pool(nearest, size=3000, seed=4), random_pool(nearest, size=3000, seed=5)
        assert torch.equal(pool.ids, again.ids)
        assert not torch.equal(pool.ids, other.ids)

    def test_cache(self, nearest: NearestTokens, tmp_path: Path) -> None:
        file, calls = tmp_path / "nulls" / "pool.npz", []
        make = lambda: random_pool(nearest, size=3000, seed=4, cache=file, progress=lambda *at: calls.append(at))  # noqa: E731
        fresh, made = make(), len(calls)
        assert made > 0
        assert torch.equal(make().ids, fresh.ids)
        assert len(calls) == made  # nothing was decoded again
        file.write_bytes(file.read_bytes()[:500])
        assert torch.equal(make().ids, fresh.ids)  # a damaged cache is made anew
        assert len(calls) > made
        assert not list(tmp_path.rglob("*.part"))


class TestDisplacement:
    def test_keeps_each_positions_own_length(self, nearest: NearestTokens, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[tuple[Tensor, ...]] = []
        initial = noise(0, 3, 4, 16)
        final = initial + noise(1, 3, 4, 16) * torch.arange(1.0, 13).reshape(3, 4, 1)
        along = NearestTokens.along
        monkeypatch.setattr(NearestTokens, "along", lambda self, *paths: seen.append(paths) or along(self, *paths))
        displace(nearest, initial, final, draws=20, seed=0)
        ((start, directions, (lengths,)),) = seen
        assert torch.equal(start, initial.flatten(0, 1))
        moved = (lengths[:, None] * directions).norm(dim=-1)
        assert moved.shape == (20, 12)
        assert torch.allclose(moved, (final - initial).norm(dim=-1).flatten().expand(20, 12), rtol=1e-4)

    def test_no_move_keeps_every_token(self, nearest: NearestTokens) -> None:
        initial = noise(0, 3, 4, 16)
        assert (displace(nearest, initial, initial, draws=20, seed=0).retention == 1).all()
        far = initial + 1000 * noise(1, 3, 4, 16)
        assert displace(nearest, initial, far, draws=20, seed=0).retention.mean() < 0.05

    def test_does_not_depend_on_how_draws_are_grouped(
        self, nearest: NearestTokens, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        initial, final = noise(0, 3, 4, 16), noise(1, 3, 4, 16)
        whole = displace(nearest, initial, final, draws=30, seed=0)
        monkeypatch.setattr(nulls, "BLOCK", 300 * 12 * 7)
        parts = displace(nearest, initial, final, draws=30, seed=0)
        assert (whole.retention == parts.retention).all()
        assert (whole.unique == parts.unique).all()

    def test_shares_no_noise_with_a_restart_of_the_same_seed(self, nearest: NearestTokens) -> None:
        initial = noise(0, 1, 5, 16)  # the start of seed 0: a null drawn from seed 0 would push it along itself
        found = displace(nearest, initial, initial + 1e6 * noise(9, 1, 5, 16), draws=100, seed=0)
        assert found.retention.max() < 1

    def test_a_random_move_is_called_random(self, nearest: NearestTokens, pool: Pool) -> None:
        p = []
        for seed in range(60):
            initial = noise(seed, 10, 5, 16)
            final = initial + noise(seed + 1000, 10, 5, 16)
            p.append(measure(restarts(initial, final), nearest, pool, settings=SETTINGS).retention.p)
        assert np.mean(np.array(p) <= 0.05) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 60)

    def test_a_move_that_spares_the_start_is_not(self, nearest: NearestTokens, pool: Pool) -> None:
        initial = noise(0, 10, 5, 16)
        measures = measure(restarts(initial, 3 * initial), nearest, pool, settings=SETTINGS)
        assert measures.init_retention == 1
        assert measures.retention.reading == Reading.ABOVE
        assert measures.retention.p == pytest.approx(2 / 101)


def said(measures: Measures) -> str:
    (decision,) = judge([measures], Own(OwnStatus.ONE_UNIT))
    return unit_statement(measures.flat() | decision.flat())


class TestMeasure:
    def test_counts(self, nearest: NearestTokens, pool: Pool) -> None:
        vectors = nearest.directions[torch.tensor([[3, 3], [7, 3], [9, 7]])]
        ended = restarts(noise(0, 3, 2, 16), vectors)
        measures = measure(ended, nearest, pool, settings=SETTINGS, name=lambda token: f"t{token}")
        assert (measures.tokens_total, measures.tokens_unique) == (6, 3)
        assert measures.tokens_repeated == [("t3", 3), ("t7", 2)]
        assert measures.cosine_mean == pytest.approx(1, abs=1e-6)
        assert measures.cosine.reading == Reading.ABOVE
        assert measures.unique.reading == Reading.BELOW
        assert "Beyond chance" in said(measures)

    def test_noise_is_a_null_result_in_words(self, nearest: NearestTokens, pool: Pool) -> None:
        initial = noise(20, 10, 5, 16)
        text = said(measure(restarts(initial, initial + noise(21, 10, 5, 16)), nearest, pool, settings=SETTINGS))
        assert "Null result" in text
        assert "Beyond chance" not in text
        assert "Agreement of restarts: not above chance." in text

    def test_uniqueness_and_cosine_of_noise_are_calibrated(self, nearest: NearestTokens, pool: Pool) -> None:
        measured = [
            measure(restarts(noise(seed, 10, 5, 16), noise(seed + 500, 10, 5, 16)), nearest, pool, settings=SETTINGS)
            for seed in range(100)
        ]
        limit = 0.05 + 3 * math.sqrt(0.05 * 0.95 / 100)
        assert np.mean([one.cosine.p <= 0.05 for one in measured]) <= limit
        assert np.mean([one.unique.p <= 0.05 for one in measured]) <= limit

    def test_flat_names_every_null(self, nearest: NearestTokens, pool: Pool) -> None:
        flat = measure(restarts(noise(0, 2, 2, 16), noise(1, 2, 2, 16)), nearest, pool, settings=SETTINGS).flat()
        asked = "null_unique_mean null_unique_low null_unique_high null_unique_p null_cosine_mean null_retention_mean"
        assert set(asked.split()) <= set(flat)
        assert all(not isinstance(value, dict) for value in flat.values())

    def test_frozen_restarts_are_said(self, nearest: NearestTokens, pool: Pool) -> None:
        held = replace(restarts(noise(0, 2, 2, 16), noise(1, 2, 2, 16)), frozen=torch.tensor([True, False]))
        assert "1 went non-finite" in said(measure(held, nearest, pool, settings=SETTINGS))

    def test_agreement_is_said_with_its_null(self, nearest: NearestTokens, pool: Pool) -> None:
        initial = noise(0, 6, 2, 16)
        same = measure(restarts(initial, initial + 50 * nearest.directions[:2]), nearest, pool, settings=SETTINGS)
        text = said(same)
        assert "Agreement of restarts: converges in tokens. Two restarts share 100.0% of their tokens" in text
        assert "not available: one unit" in text
        alone = measure(restarts(initial[:1], 2 * initial[:1]), nearest, pool, settings=SETTINGS)
        assert "Agreement of restarts: not available, one restart has no pairs." in said(alone)
        flat = same.flat()
        assert flat["jaccard"] == 1
        assert flat["null_jaccard_p"] == pytest.approx(1 / 101)


def test_repeated_ranks_by_count() -> None:
    assert repeated([5, 4, 5, 4, 4, 1]) == [("4", 3), ("5", 2)]
    assert repeated([1, 2, 3]) == []


class TestMetrics:
    def test_unique_tokens_accumulate_over_batches_and_units(self) -> None:
        metric = UniqueTokens()
        metric.update(torch.tensor([0, 0]), torch.tensor([[1, 2], [2, 3]]))
        metric.update(torch.tensor([0, 1]), torch.tensor([[3, 4], [1, 1]]))
        assert metric.compute() == (4 + 1) / 2
        metric.reset()
        metric.update(torch.tensor([0]), torch.tensor([[1, 2]]))
        assert metric.compute() == 2

    def test_unique_tokens_merge_over_ranks(self) -> None:
        first, second, both = UniqueTokens(), UniqueTokens(), UniqueTokens()
        ids = torch.tensor([[1, 2], [2, 3], [9, 9]])
        first.update(torch.tensor([0]), ids[:1])
        second.update(torch.tensor([0, 0]), ids[1:])
        both.update(torch.tensor([0, 0, 0]), ids)
        first.pairs = [torch.cat([*first.pairs, *second.pairs])]  # what dist_reduce_fx="cat" leaves
        assert first.compute() == both.compute() == 4

    def test_init_retention_weighs_positions(self) -> None:
        metric = InitRetention()
        metric.update(torch.tensor([[1, 2]]), torch.tensor([[1, 9]]))
        metric.update(torch.tensor([[3, 4], [5, 6]]), torch.tensor([[3, 4], [0, 0]]))
        assert metric.compute() == pytest.approx(3 / 6)


class TestRounding:
    def test_against_a_loop(self) -> None:
        generator = torch.Generator().manual_seed(0)
        initial, final = (torch.randn(4, 3, 6, generator=generator) for _ in range(2))
        ids = torch.randint(4, (4, 3), generator=generator)
        ends = torch.tensor([1.0, 2.0, -1.0, 4.0])
        first = Ends(ids, Restarts(initial, final, ends, ends, torch.zeros(4, dtype=torch.bool)))
        nudged = final + 0.1 * torch.randn(4, 3, 6, generator=generator)
        again = Ends(
            ids[:2] + torch.tensor([[1, 0, 0], [0, 0, 0]]),
            Restarts(initial[:2], nudged[:2], *[ends[:2] * 1.1] * 2, torch.zeros(2) > 0),
        )
        found = rounding(first, again).flat()
        assert found["same_seed_tokens_equal"] == pytest.approx((2 / 3 + 1) / 2)
        assert found["same_seed_activation_difference"] == pytest.approx(0.1 / 1.05)
        cosines, equal = [], []
        for i in range(4):
            for j in range(i):
                equal.append(sum(int(ids[i, t]) == int(ids[j, t]) for t in range(3)) / 3)
                moves = [[final[row, t] - initial[row, t] for t in range(3)] for row in (i, j)]
                each = [float(a @ b / a.norm() / b.norm()) for a, b in zip(*moves, strict=True)]
                cosines.append(sum(each) / 3)
        assert found["different_seeds_tokens_equal"] == pytest.approx(sum(equal) / 6)
        assert found["different_seeds_displacement_cosine"] == pytest.approx(sum(cosines) / 6, abs=1e-6)

    def test_one_restart_has_no_other_seed(self) -> None:
        one = Ends(
            torch.ones(1, 2, dtype=torch.long),
            Restarts(torch.zeros(1, 2, 3), torch.ones(1, 2, 3), *[torch.ones(1)] * 2, torch.zeros(1) > 0),
        )
        found = rounding(one, one).flat()
        assert found["same_seed_tokens_equal"] == 1
        assert math.isnan(found["different_seeds_tokens_equal"])
