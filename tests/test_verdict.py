"""The declared rule, on planted truths and where nothing is there."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from statsmodels.stats.proportion import proportion_confint
from torch import Tensor

from actmax.evidence.agreement import agree
from actmax.evidence.nulls import Null, Restarts, displace, redraw
from actmax.evidence.own import Own, OwnTest, own_agreement
from actmax.evidence.readings import VERDICTS, DecisionStatus, OwnStatus, Verdict
from actmax.evidence.verdicts import PRIMARY, Decision, decide, shares
from actmax.model.nearest import NearestTokens

TOKENS, EMBEDDINGS, NOT_OWN, CHANCE = VERDICTS
ALPHA, RESTARTS, POSITIONS, WIDTH, VOCABULARY = 0.05, 8, 3, 16, 60
ALONE = Own(OwnStatus.ONE_UNIT)
BLIND = 4
"""The embedding matrix has no part in its last 4 dimensions: moving along them leaves every token tied as it was."""


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def nearest() -> NearestTokens:
    matrix = noise(0, VOCABULARY, WIDTH)
    matrix[:, -BLIND:] = 0
    assert matrix.shape == (60, 16)
    return NearestTokens(matrix)


def starts(first: int) -> Tensor:
    """The initial noise of `RESTARTS` seeds, the same for every unit."""
    return torch.stack([noise(first + seed, POSITIONS, WIDTH) for seed in range(RESTARTS)])


def judge(
    nearest: NearestTokens, moves: Tensor, initial: Tensor, *, draws: int = 99, alpha: float = ALPHA
) -> list[Decision]:
    """The verdicts on some units: (units, restarts, tokens, d_model) moves from the same initial noise."""
    nulls, ids = [], []
    for move in moves:
        final = initial + move
        ids.append(nearest(final).best)
        restarts = Restarts(initial, final, torch.zeros(RESTARTS), torch.ones(RESTARTS), torch.zeros(RESTARTS) > 0)
        moved = displace(nearest, initial, final, draws=draws, seed=0)
        nulls.append(agree(restarts, ids[-1], moved).nulls)
    spaces = ([one[name] for one in nulls] for name in PRIMARY.values())
    return list(decide(*spaces, own_agreement(torch.stack(ids), moves), alpha=alpha))


def labels(decisions: list[Decision]) -> list[Verdict]:
    return [decision.verdict for decision in decisions]


def wobble(seed: int, units: int, size: float) -> Tensor:
    return size * noise(seed, units, RESTARTS, POSITIONS, WIDTH)


class TestPlanted:
    def test_one_known_optimum(self, nearest: NearestTokens) -> None:
        """Each unit draws every restart to tokens of its own."""
        optima = nearest.directions[torch.arange(18).reshape(6, 1, 3)]
        found = judge(nearest, 20 * optima + wobble(1, 6, 0.5), starts(100))
        assert labels(found) == [TOKENS] * 6
        assert all(one.p_tokens <= ALPHA and one.own_p_tokens <= ALPHA for one in found)

    def test_one_known_optimum_of_one_unit(self, nearest: NearestTokens) -> None:
        (found,) = judge(nearest, 20 * nearest.directions[:3] + wobble(1, 1, 0.5), starts(100))
        assert found.verdict == TOKENS
        assert found.own == OwnStatus.ONE_UNIT
        assert math.isnan(found.own_p_tokens)

    def test_order_does_not_matter(self, nearest: NearestTokens) -> None:
        """Every restart finds the same tokens, each in another order: sets and assigned positions see it."""
        optimum = nearest.directions[:3]
        order = [torch.randperm(3, generator=torch.Generator().manual_seed(s)) for s in range(RESTARTS)]
        moves = 20 * torch.stack([optimum[some] for some in order])[None]
        assert labels(judge(nearest, moves + wobble(1, 1, 0.5), starts(100))) == [TOKENS]

    def test_same_direction_but_tokens_tie(self, nearest: NearestTokens) -> None:
        """Units move in directions of their own that no token has a part in: embeddings agree and tokens cannot."""
        direction = torch.zeros(6, 1, 1, WIDTH)
        direction[..., -BLIND:] = noise(5, 6, 1, 1, BLIND)
        initial = starts(100)
        moves = direction + wobble(1, 6, 0.1)
        found = judge(nearest, moves, initial)
        assert labels(found) == [EMBEDDINGS] * 6
        assert labels(judge(nearest, moves[:1], initial)) == [EMBEDDINGS]

    def test_all_units_share_an_attractor(self, nearest: NearestTokens) -> None:
        moves = 20 * nearest.directions[:3] + wobble(1, 6, 0.5)
        found = judge(nearest, moves, starts(100))
        assert labels(found) == [NOT_OWN] * 6
        assert all(one.own == OwnStatus.OK for one in found)
        assert labels(judge(nearest, moves[:1], starts(100))) == [TOKENS]  # one unit alone cannot tell

    def test_nothing_there(self, nearest: NearestTokens) -> None:
        assert labels(judge(nearest, wobble(1, 6, 1.0), starts(100))) == [CHANCE] * 6


class TestLevel:
    """False verdicts stay at or below α within three Monte Carlo errors, and the tests behind them are not idle."""

    REPETITIONS = 200
    LIMIT = ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / REPETITIONS)

    def test_nothing_there(self, nearest: NearestTokens) -> None:
        found = [
            judge(nearest, wobble(7 + at, 1, 1.0), starts(10_000 + 100 * at), draws=79)[0]
            for at in range(self.REPETITIONS)
        ]
        assert np.mean([one.verdict != CHANCE for one in found]) <= self.LIMIT
        assert np.mean([min(one.p_tokens, one.p_embeddings) <= 0.5 for one in found]) > 0.3

    @pytest.mark.slow
    def test_seeds_shared_between_units_and_no_other_agreement(self, nearest: NearestTokens) -> None:
        """What a unit gives is a function of the seed alone, plus noise: the trap that two units agree."""
        verdicts, agreed = [], []
        for at in range(self.REPETITIONS):
            of_seed = noise(50_000 + at, 1, RESTARTS, POSITIONS, WIDTH)
            initial = starts(10_000 + 100 * at)
            moves = of_seed + wobble(7 + at, 3, 0.3)
            verdicts.append(judge(nearest, moves, initial, draws=39))
            ids = nearest(initial + moves).best
            agreed.append((ids[0] == ids[1]).double().mean().item())
        assert np.mean(agreed) > 0.4  # the trap is there
        for unit in range(3):
            assert np.mean([found[unit].verdict != CHANCE for found in verdicts]) <= self.LIMIT
            smallest = [min(found[unit].own_p_tokens, found[unit].own_p_embeddings) for found in verdicts]
            assert np.mean(np.array(smallest) <= ALPHA) <= self.LIMIT
            assert np.mean(np.array(smallest) <= 0.9) > 0.1


def null(p: float, draws: int = 999) -> Null:
    return Null(0.5, 0.0, 0.0, 0.1, p, draws, "greater")


def relabelled(p_tokens: list[float], p_embeddings: list[float], seeds: int = 10) -> Own:
    spaces = (
        OwnTest(np.ones(len(p)), np.zeros(len(p)), tuple(null(one) for one in p)) for p in (p_tokens, p_embeddings)
    )
    return Own(OwnStatus.OK, *spaces, units=len(p_tokens), seeds=seeds, draws=999)


class TestRestartsThatEndAtTokens:
    """Random tokens of an embedding matrix that is longer in some directions than in others, as real ones are."""

    def rejected(self, shared: int) -> tuple[float, float]:
        """Shares of 100 repetitions that p <= 0.05 calls above chance: beside random tokens, beside random moves."""
        matrix = noise(3, VOCABULARY, WIDTH) * torch.logspace(0, -1.5, WIDTH)
        nearest, found, every = NearestTokens(matrix), [], torch.arange(VOCABULARY)[:, None]
        generator = torch.Generator().manual_seed(1)
        for number in range(100):
            begun, ids = (torch.randint(VOCABULARY, (RESTARTS, POSITIONS), generator=generator) for _ in range(2))
            ids[:shared] = ids[0]
            initial, final = matrix[begun], matrix[ids]
            restarts = Restarts(initial, final, torch.zeros(RESTARTS), torch.ones(RESTARTS), torch.zeros(RESTARTS) > 0)
            nulls = (
                redraw(nearest, initial, every, embed=matrix.__getitem__, draws=99, seed=number),
                displace(nearest, initial, final, draws=99, seed=number),
            )
            verdicts = [
                decide([agreed[PRIMARY["tokens"]]], [agreed[PRIMARY["embeddings"]]], ALONE)[0].verdict
                for agreed in (agree(restarts, ids, null).nulls for null in nulls)
            ]
            found.append([label != CHANCE for label in verdicts])
        tokens, moves = np.mean(found, axis=0)
        return float(tokens), float(moves)

    def test_beside_random_tokens_keep_the_level_and_beside_random_moves_do_not(self) -> None:
        tokens, moves = self.rejected(shared=0)
        assert tokens <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / 100)
        assert moves > 0.3

    def test_agreement_is_found(self) -> None:
        tokens, _ = self.rejected(shared=5)
        assert tokens > 0.9

    def test_of_a_text_keep_the_level_beside_its_sequences_and_not_beside_random_tokens(self) -> None:
        """Restarts at sequences of a text share its common tokens, whatever the unit."""
        matrix, generator = noise(3, VOCABULARY, WIDTH), torch.Generator().manual_seed(2)
        often = 1 / torch.arange(1, VOCABULARY + 1)
        text = torch.multinomial(often, 500 * POSITIONS, replacement=True, generator=generator).view(500, POSITIONS)
        nearest, found, every = NearestTokens(matrix), [], torch.arange(VOCABULARY)[:, None]
        for number in range(100):
            begun, ids = (text[torch.randint(500, (RESTARTS,), generator=generator)] for _ in range(2))
            zeros = torch.zeros(RESTARTS)
            restarts = Restarts(matrix[begun], matrix[ids], zeros, zeros + 1, zeros > 0)
            options = {"embed": matrix.__getitem__, "draws": 99, "seed": number}
            nulls = (redraw(nearest, matrix[begun], choices, **options) for choices in (text, every))
            found.append(
                [
                    decide([agreed[PRIMARY["tokens"]]], [agreed[PRIMARY["embeddings"]]], ALONE)[0].verdict != CHANCE
                    for agreed in (agree(restarts, ids, null).nulls for null in nulls)
                ]
            )
        of_text, of_tokens = np.mean(found, axis=0)
        assert of_text <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / 100)
        assert of_tokens > 0.3


class TestRule:
    @pytest.mark.parametrize(
        ("tokens", "embeddings", "expected"),
        [
            (0.001, 0.001, TOKENS),
            (0.001, 0.9, TOKENS),
            (0.9, 0.001, EMBEDDINGS),
            (0.9, 0.9, CHANCE),
            (0.03, 0.9, CHANCE),  # Holm: 0.06
            (0.9, 0.03, CHANCE),
            (0.025, 0.9, TOKENS),
            (0.03, 0.025, TOKENS),  # Holm: 0.05 and 0.05
        ],
    )
    def test_of_one_unit(self, tokens: float, embeddings: float, expected: Verdict) -> None:
        (found,) = decide([null(tokens)], [null(embeddings)], ALONE)
        assert found.verdict == expected
        assert found.own == OwnStatus.ONE_UNIT

    @pytest.mark.parametrize(
        ("own_tokens", "own_embeddings", "expected"),
        [
            (0.001, 0.001, TOKENS),
            (0.9, 0.001, EMBEDDINGS),
            (0.001, 0.9, TOKENS),
            (0.9, 0.9, NOT_OWN),
            (0.03, 0.9, NOT_OWN),
        ],
    )
    def test_of_a_unit_above_chance_in_both(self, own_tokens: float, own_embeddings: float, expected: Verdict) -> None:
        own = relabelled([own_tokens] * 2, [own_embeddings] * 2)
        assert {one.verdict for one in decide([null(0.001)] * 2, [null(0.001)] * 2, own)} == {expected}

    def test_its_own_counts_only_where_it_is_above_chance(self) -> None:
        own = relabelled([0.001] * 2, [0.9] * 2)
        assert {one.verdict for one in decide([null(0.9)] * 2, [null(0.001)] * 2, own)} == {NOT_OWN}
        assert {one.verdict for one in decide([null(0.9)] * 2, [null(0.9)] * 2, own)} == {CHANCE}

    def test_corrects_over_units(self) -> None:
        above = [null(0.001)] * 20
        one_of_many = decide(above, above, relabelled([0.01] + [0.9] * 19, [0.9] * 20))
        assert one_of_many[0].verdict == NOT_OWN  # 0.01 x 2 spaces x 20 units
        many = decide(above, above, relabelled([0.01] * 20, [0.9] * 20))
        assert {one.verdict for one in many} == {TOKENS}
        assert many[0].own_p_tokens == pytest.approx(0.02)

    def test_a_test_that_cannot_say_yes_may_not_say_no(self) -> None:
        own = relabelled([0.25] * 2, [0.25] * 2, seeds=3)
        assert own.smallest_p == 0.25
        found = decide([null(0.001)] * 2, [null(0.001)] * 2, own)
        assert {one.verdict for one in found} == {TOKENS}
        assert {(one.own, one.own_units, one.own_seeds) for one in found} == {(OwnStatus.OUT_OF_REACH, 2, 3)}

    def test_too_few_draws_are_no_verdict(self) -> None:
        (found,) = decide([null(1 / 20, 19)], [null(1 / 20, 19)], ALONE)
        assert found.verdict == Verdict.NOT_AVAILABLE
        assert found.status == DecisionStatus.TOO_FEW_DRAWS

    def test_one_restart_has_no_verdict(self) -> None:
        (found,) = decide([null(math.nan)], [null(math.nan)], ALONE)
        assert found.verdict == Verdict.NOT_AVAILABLE
        assert found.status == DecisionStatus.ONE_RESTART

    def test_alpha(self) -> None:
        assert decide([null(0.004)], [null(0.9)], ALONE, alpha=0.01)[0].verdict == TOKENS
        assert decide([null(0.006)], [null(0.9)], ALONE, alpha=0.01)[0].verdict == CHANCE

    def test_units_must_be_the_same(self) -> None:
        with pytest.raises(ValueError, match="same units"):
            decide([null(0.1)] * 3, [null(0.1)] * 3, relabelled([0.1] * 2, [0.1] * 2))
        with pytest.raises(ValueError, match="same units"):
            decide([null(0.1)] * 3, [null(0.1)] * 2, ALONE)


class TestShares:
    def test_counts_and_intervals(self) -> None:
        found = shares([TOKENS] * 3 + [CHANCE] * 9 + [Verdict.NOT_AVAILABLE])
        assert found["verdict"].tolist() == list(VERDICTS)
        assert found["count"].tolist() == [3, 0, 0, 9]
        assert (found["units"] == 12).all()
        assert found["share"].tolist() == [0.25, 0, 0, 0.75]
        assert (found["low"][0], found["high"][0]) == pytest.approx(proportion_confint(3, 12, method="wilson"))
        assert (found["high"] - found["low"] > 0.2).all()  # none of width zero, not even at a share of 0

    def test_no_verdicts(self) -> None:
        assert shares([])["share"].isna().all()
