from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from actmax.evidence import nulls
from actmax.evidence.arithmetic import Ends, rounding
from actmax.evidence.measures import InitRetention, Measures, UniqueTokens, judge, measure, moves, repeated
from actmax.evidence.nulls import Restarts, against, displace, redraw
from actmax.evidence.own import Own
from actmax.evidence.readings import DecisionStatus, OwnStatus, Reading, Verdict
from actmax.evidence.settings import RANDOM_TEXT, NullSettings, claim_alpha
from actmax.model.nearest import NearestTokens
from actmax.report.words import rise, unit_answer

SIDES = [Reading.BELOW, Reading.WITHIN, Reading.ABOVE]
SETTINGS = NullSettings(draws=299, displacements=100, seed=0)


@pytest.fixture(scope="module")
def nearest() -> NearestTokens:
    return NearestTokens(torch.randn(300, 16, generator=torch.Generator().manual_seed(0)))


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
        assert [against(value, draws).reading(0.05) for value in (-1.0, 500.0, 2000.0)] == SIDES

    def test_limits_are_order_statistics(self) -> None:
        """The least p of 39 draws is 2/40: outside is beyond all of them. Of 119 draws two may lie further out."""
        assert against(3.0, np.arange(39.0)).limits(0.05) == (0, 38)
        assert against(3.0, np.arange(78.0)).limits(0.05) == (0, 77)
        assert against(3.0, np.arange(79.0)).limits(0.05) == (1, 77)
        assert against(3.0, np.arange(119.0)).limits(0.05) == (2, 116)
        assert against(3.0, np.arange(39.0), alternative="greater").limits(0.05)[1] == 37
        low, high = against(3.0, np.arange(39.0), alternative="less").limits(0.05)
        assert low == 1
        assert math.isnan(high)

    def test_too_few_draws_have_no_interval(self) -> None:
        null = against(9.0, np.arange(38.0))
        assert null.smallest_p > 0.05
        assert np.isnan(null.limits(0.05)).all()
        assert null.reading(0.05) == Reading.NOT_AVAILABLE
        assert null.reading(0.1) == Reading.WITHIN

    def test_columns(self) -> None:
        null = against(200.0, np.arange(99.0))
        assert null.columns("one") == {"null_one_mean": 49, "null_one_low": 1, "null_one_high": 97, "null_one_p": 0.02}
        claim = null.claim_columns("one", 0.02)
        assert claim == {
            "null_one_mean": 49, "null_one_low": 0, "null_one_high": 98, "null_one_p": 0.02,
            "null_one_alpha": 0.02, "null_one_draws": 99,
        }  # fmt: skip

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


class TestRedraw:
    """Random tokens, or random sequences of a text, wherever restarts began."""

    def test_tokens_are_uniform_and_independent(self, nearest: NearestTokens) -> None:
        every = torch.arange(300)[:, None]
        found = redraw(nearest, noise(0, 4, 3, 16), every, draws=2000, seed=0)
        expected = 300 * (1 - (1 - 1 / 300) ** 12)
        assert found.unique.mean() == pytest.approx(expected, abs=4 * found.unique.std() / math.sqrt(2000))
        assert found.retention.mean() == pytest.approx(1 / 300, abs=4 * found.retention.std() / math.sqrt(2000))
        assert found.cosine.size == 0  # it ends at tokens

    def test_only_the_given_choices_are_drawn(self, nearest: NearestTokens) -> None:
        initial = nearest.directions[torch.tensor([[7, 7], [8, 8], [7, 8]])]
        found = redraw(nearest, initial, torch.tensor([[7], [8]]), draws=500, seed=0)
        assert set(found.unique) == {1, 2}
        assert found.retention.mean() == pytest.approx(0.5, abs=0.05)
        assert (redraw(nearest, initial, torch.tensor([[9]]), draws=20, seed=0).retention == 0).all()

    def test_sequences_stay_whole(self, nearest: NearestTokens) -> None:
        text = torch.arange(40).reshape(10, 4)
        found = redraw(nearest, noise(0, 2, 4, 16), text, draws=500, seed=0, kind=RANDOM_TEXT)
        assert set(found.unique) == {4, 8}
        assert set(found.agreement["shared_tokens"]) == {0, 1}
        assert found.agreement["shared_tokens"].mean() == pytest.approx(0.1, abs=0.05)
        assert found.kind == RANDOM_TEXT

    def test_is_named_by_its_seed(self, nearest: NearestTokens) -> None:
        first, again, other = (
            redraw(nearest, noise(0, 4, 3, 16), torch.arange(300)[:, None], draws=50, seed=seed) for seed in (0, 0, 1)
        )
        assert (first.unique == again.unique).all()
        assert (first.rarefaction != other.rarefaction).any()


class TestDisplacement:
    def test_keeps_each_positions_own_length(self, nearest: NearestTokens, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[tuple[Tensor, ...]] = []
        initial = noise(0, 3, 4, 16)
        final = initial + noise(1, 3, 4, 16) * torch.arange(1.0, 13).reshape(3, 4, 1)
        along = NearestTokens.along
        monkeypatch.setattr(NearestTokens, "along", lambda self, *paths: seen.append(paths) or along(self, *paths))
        displace(nearest, initial, final, draws=50, seed=0, moves=20)
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

    def test_a_random_move_is_called_random(self, nearest: NearestTokens) -> None:
        p = []
        for seed in range(60):
            initial = noise(seed, 10, 5, 16)
            final = initial + noise(seed + 1000, 10, 5, 16)
            p.append(measure(restarts(initial, final), nearest, settings=SETTINGS).retention.p)
        assert np.mean(np.array(p) <= 0.05) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 60)

    def test_a_move_that_spares_the_start_is_not(self, nearest: NearestTokens) -> None:
        initial = noise(0, 10, 5, 16)
        measures = measure(restarts(initial, 3 * initial), nearest, settings=SETTINGS)
        assert measures.init_retention == 1
        assert measures.retention.reading(0.05) == Reading.ABOVE
        assert measures.retention.p == pytest.approx(2 / 300)


def row(measures: Measures) -> dict[str, Any]:
    """A row as far as restarts of one unit alone fill it, with nothing gained as text."""
    (decision,) = judge([measures], Own(OwnStatus.ONE_UNIT))
    return measures.flat() | decision.flat() | {"gap": "no_gain"}


def claims(measures: Measures) -> dict[str, Reading]:
    """How each null of the restarts reads, at the level of a claim."""
    nulls = {"unique": measures.unique, "cosine": measures.cosine, "retention": measures.retention}
    nulls |= {"shared_tokens": measures.agreement.nulls["shared_tokens"]}
    return {name: null.reading(claim_alpha(measures.null_of_ends)) for name, null in nulls.items()}


class TestMeasure:
    def test_counts(self, nearest: NearestTokens) -> None:
        vectors = nearest.directions[torch.tensor([[3, 3], [7, 3], [9, 7]])]
        ended = restarts(noise(0, 3, 2, 16), vectors)
        measures = measure(ended, nearest, settings=SETTINGS, name=lambda token: f"t{token}")
        assert (measures.tokens_total, measures.tokens_unique) == (6, 3)
        assert measures.tokens_repeated == [("t3", 3), ("t7", 2)]
        assert measures.cosine_mean == pytest.approx(1, abs=1e-6)
        assert (measures.pairs, measures.pairs_sharing) == (3, 2)
        assert claims(measures) == {
            "unique": Reading.BELOW,
            "cosine": Reading.NOT_AVAILABLE,  # three restarts have eight patterns of signs
            "retention": Reading.WITHIN,
            "shared_tokens": Reading.ABOVE,
        }

    def test_ends_at_tokens_are_nearer_to_them_than_noise(self, nearest: NearestTokens) -> None:
        initial = noise(20, 10, 2, 16)
        ended = restarts(initial, nearest.directions[torch.randint(50, (10, 2))])
        assert claims(measure(ended, nearest, settings=SETTINGS))["cosine"] == Reading.ABOVE

    def test_the_cosines_of_restarts_are_the_replicates(self, nearest: NearestTokens) -> None:
        """Against a loop over all patterns of signs of the restarts' differences from their own random moves."""
        initial = noise(30, 5, 3, 16)
        ended = restarts(initial, initial + noise(31, 5, 3, 16))
        (moved,) = moves(nearest, [ended], SETTINGS)
        found = measure(ended, nearest, settings=SETTINGS, ends=moved).cosine
        cosines = nearest(ended.final).best_cosine.double().mean(1).numpy()
        change = cosines - moved.cosine
        patterns = [np.array(one) for one in itertools.product((1, -1), repeat=5) if set(one) != {1}]
        expected = [moved.cosine.mean() + (change * pattern).mean() for pattern in patterns]
        assert found.observed == pytest.approx(cosines.mean())
        assert found.values == pytest.approx(np.sort(expected))

    def test_nothing_is_claimed_of_noise(self, nearest: NearestTokens) -> None:
        initial = noise(20, 10, 5, 16)
        measures = measure(restarts(initial, initial + noise(21, 10, 5, 16)), nearest, settings=SETTINGS)
        assert set(claims(measures).values()) == {Reading.WITHIN}
        assert row(measures)["verdict"] == Verdict.CHANCE
        assert unit_answer(row(measures)).startswith("No. Other starts share no more tokens than chance.")

    def test_uniqueness_and_cosine_of_noise_are_calibrated(self, nearest: NearestTokens) -> None:
        measured = []
        for seed in range(100):
            initial = noise(seed, 10, 5, 16)
            ended = restarts(initial, initial + noise(seed + 500, 10, 5, 16))
            measured.append(measure(ended, nearest, settings=SETTINGS))
        limit = 0.05 + 3 * math.sqrt(0.05 * 0.95 / 100)
        for name in ("cosine", "unique", "retention"):
            p = np.array([getattr(one, name).p for one in measured])
            assert np.mean(p <= 0.05) <= limit, name
            assert np.mean(p <= 0.6) > 0.3, name

    def test_flat_names_every_null(self, nearest: NearestTokens) -> None:
        flat = measure(restarts(noise(0, 2, 2, 16), noise(1, 2, 2, 16)), nearest, settings=SETTINGS).flat()
        asked = "null_unique_mean null_unique_low null_unique_high null_unique_p null_cosine_mean null_retention_mean"
        assert set(asked.split()) <= set(flat)
        for name in ("unique", "retention", "shared_tokens"):
            assert (flat[f"null_{name}_alpha"], flat[f"null_{name}_draws"]) == (0.05 / 7, 299)
        assert (flat["null_cosine_alpha"], flat["null_cosine_draws"]) == (0.05 / 7, 3)  # signs of two restarts
        assert all(not isinstance(value, dict) for value in flat.values())

    def test_frozen_restarts_are_said(self, nearest: NearestTokens) -> None:
        held = replace(restarts(noise(0, 2, 2, 16), noise(1, 2, 2, 16)), frozen=torch.tensor([True, False]))
        assert "1 more went non-finite and counts as missing" in rise(row(measure(held, nearest, settings=SETTINGS)))

    def test_agreement_is_said(self, nearest: NearestTokens) -> None:
        initial = noise(0, 6, 2, 16)
        same = row(measure(restarts(initial, initial + 50 * nearest.directions[:2]), nearest, settings=SETTINGS))
        assert same["verdict_status"] == DecisionStatus.OTHER_UNITS_NOT_TESTED
        assert unit_answer(same).startswith(
            "Not judged. Other starts share more tokens than chance; whether those of other units share as many was "
            "not tested: there is no other unit (controls=2 adds two)."
        )
        assert (same["shared_tokens"], same["pairs"], same["pairs_sharing"]) == (1, 15, 15)
        assert same["null_shared_tokens_p"] == pytest.approx(1 / 300)
        assert same["kappa_tokens_low"] == pytest.approx(0.05 ** (1 / 6))
        alone = measure(restarts(initial[:1], 2 * initial[:1]), nearest, settings=SETTINGS)
        assert row(alone)["verdict_status"] == DecisionStatus.ONE_RESTART
        assert unit_answer(row(alone)).startswith("Not judged. One restart has no pairs.")


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
