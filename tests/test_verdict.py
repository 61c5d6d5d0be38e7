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
from actmax.evidence.verdicts import PRIMARY, VERDICTS, Verdict, decide, shares
from actmax.model.nearest import Decoder

TOKENS, EMBEDDINGS, NOT_OWN, CHANCE = VERDICTS
ALPHA, RESTARTS, POSITIONS, WIDTH, VOCABULARY = 0.05, 8, 3, 16, 60
ALONE = Own("not available: one unit")
BLIND = 4
"""The embedding matrix has no part in its last 4 dimensions: moving along them leaves every token tied as it was."""


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    matrix = noise(0, VOCABULARY, WIDTH)
    matrix[:, -BLIND:] = 0
    assert matrix.shape == (60, 16)
    return Decoder(matrix)


def starts(first: int) -> Tensor:
    """The initial noise of `RESTARTS` seeds, the same for every unit."""
    return torch.stack([noise(first + seed, POSITIONS, WIDTH) for seed in range(RESTARTS)])


def judge(decoder: Decoder, moves: Tensor, initial: Tensor, *, draws: int = 99, alpha: float = ALPHA) -> list[Verdict]:
    """The verdicts on some units: (units, restarts, tokens, d_model) moves from the same initial noise."""
    nulls, ids = [], []
    for move in moves:
        final = initial + move
        ids.append(decoder(final).best)
        restarts = Restarts(initial, final, torch.zeros(RESTARTS), torch.ones(RESTARTS), torch.zeros(RESTARTS) > 0)
        moved = displace(decoder, initial, final, draws=draws, seed=0)
        nulls.append(agree(restarts, ids[-1], moved).nulls)
    spaces = ([one[name] for one in nulls] for name in PRIMARY.values())
    return list(decide(*spaces, own_agreement(torch.stack(ids), moves), alpha=alpha))


def labels(verdicts: list[Verdict]) -> list[str]:
    return [verdict.label for verdict in verdicts]


def wobble(seed: int, units: int, size: float) -> Tensor:
    return size * noise(seed, units, RESTARTS, POSITIONS, WIDTH)


class TestPlanted:
    def test_one_known_optimum(self, decoder: Decoder) -> None:
        """Each unit draws every restart to tokens of its own."""
        optima = decoder.directions[torch.arange(18).reshape(6, 1, 3)]
        found = judge(decoder, 20 * optima + wobble(1, 6, 0.5), starts(100))
        assert labels(found) == [TOKENS] * 6
        assert all(one.p_tokens <= ALPHA and one.own_tokens <= ALPHA for one in found)

    def test_one_known_optimum_of_one_unit(self, decoder: Decoder) -> None:
        (found,) = judge(decoder, 20 * decoder.directions[:3] + wobble(1, 1, 0.5), starts(100))
        assert found.label == TOKENS
        assert found.own == "not available: one unit"
        assert math.isnan(found.own_tokens)
        assert "not available: one unit" in found.reason

    def test_order_does_not_matter(self, decoder: Decoder) -> None:
        """Every restart finds the same tokens, each in another order: sets and assigned positions see it."""
        optimum = decoder.directions[:3]
        order = [torch.randperm(3, generator=torch.Generator().manual_seed(s)) for s in range(RESTARTS)]
        moves = 20 * torch.stack([optimum[some] for some in order])[None]
        assert labels(judge(decoder, moves + wobble(1, 1, 0.5), starts(100))) == [TOKENS]

    def test_same_direction_but_tokens_tie(self, decoder: Decoder) -> None:
        """Units move in directions of their own that no token has a part in: embeddings agree and tokens cannot."""
        direction = torch.zeros(6, 1, 1, WIDTH)
        direction[..., -BLIND:] = noise(5, 6, 1, 1, BLIND)
        initial = starts(100)
        moves = direction + wobble(1, 6, 0.1)
        found = judge(decoder, moves, initial)
        assert labels(found) == [EMBEDDINGS] * 6
        assert labels(judge(decoder, moves[:1], initial)) == [EMBEDDINGS]

    def test_all_units_share_an_attractor(self, decoder: Decoder) -> None:
        moves = 20 * decoder.directions[:3] + wobble(1, 6, 0.5)
        found = judge(decoder, moves, starts(100))
        assert labels(found) == [NOT_OWN] * 6
        assert all(one.own == "ok" for one in found)
        assert labels(judge(decoder, moves[:1], starts(100))) == [TOKENS]  # one unit alone cannot tell

    def test_nothing_there(self, decoder: Decoder) -> None:
        assert labels(judge(decoder, wobble(1, 6, 1.0), starts(100))) == [CHANCE] * 6


class TestLevel:
    """False verdicts stay at or below α within three Monte Carlo errors, and the tests behind them are not idle."""

    REPETITIONS = 200
    LIMIT = ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / REPETITIONS)

    def test_nothing_there(self, decoder: Decoder) -> None:
        found = [
            judge(decoder, wobble(7 + at, 1, 1.0), starts(10_000 + 100 * at), draws=79)[0]
            for at in range(self.REPETITIONS)
        ]
        assert np.mean([one.label != CHANCE for one in found]) <= self.LIMIT
        assert np.mean([min(one.p_tokens, one.p_embeddings) <= 0.5 for one in found]) > 0.3

    @pytest.mark.slow
    def test_seeds_shared_between_units_and_no_other_agreement(self, decoder: Decoder) -> None:
        """What a unit gives is a function of the seed alone, plus noise: the trap that two units agree."""
        verdicts, agreed = [], []
        for at in range(self.REPETITIONS):
            of_seed = noise(50_000 + at, 1, RESTARTS, POSITIONS, WIDTH)
            initial = starts(10_000 + 100 * at)
            moves = of_seed + wobble(7 + at, 3, 0.3)
            verdicts.append(judge(decoder, moves, initial, draws=39))
            ids = decoder(initial + moves).best
            agreed.append((ids[0] == ids[1]).double().mean().item())
        assert np.mean(agreed) > 0.4  # the trap is there
        for unit in range(3):
            assert np.mean([found[unit].label != CHANCE for found in verdicts]) <= self.LIMIT
            smallest = [min(found[unit].own_tokens, found[unit].own_embeddings) for found in verdicts]
            assert np.mean(np.array(smallest) <= ALPHA) <= self.LIMIT
            assert np.mean(np.array(smallest) <= 0.9) > 0.1


def null(p: float, draws: int = 999) -> Null:
    return Null(0.5, 0.0, 0.0, 0.1, p, draws, "greater")


def relabelled(p_tokens: list[float], p_embeddings: list[float], seeds: int = 10) -> Own:
    spaces = (
        OwnTest(np.ones(len(p)), np.zeros(len(p)), tuple(null(one) for one in p)) for p in (p_tokens, p_embeddings)
    )
    return Own("ok", *spaces, units=len(p_tokens), seeds=seeds, draws=999)


ALONE = Own("not available: one unit")


class TestRestartsThatEndAtTokens:
    """Random tokens of an embedding matrix that is longer in some directions than in others, as real ones are."""

    def rejected(self, shared: int) -> tuple[float, float]:
        """Shares of 100 repetitions that p <= 0.05 calls above chance: beside random tokens, beside random moves."""
        matrix = noise(3, VOCABULARY, WIDTH) * torch.logspace(0, -1.5, WIDTH)
        decoder, found, every = Decoder(matrix), [], torch.arange(VOCABULARY)[:, None]
        generator = torch.Generator().manual_seed(1)
        for number in range(100):
            begun, ids = (torch.randint(VOCABULARY, (RESTARTS, POSITIONS), generator=generator) for _ in range(2))
            ids[:shared] = ids[0]
            initial, final = matrix[begun], matrix[ids]
            restarts = Restarts(initial, final, torch.zeros(RESTARTS), torch.ones(RESTARTS), torch.zeros(RESTARTS) > 0)
            nulls = (
                redraw(decoder, initial, every, embed=matrix.__getitem__, draws=99, seed=number),
                displace(decoder, initial, final, draws=99, seed=number),
            )
            verdicts = [
                decide([agreed[PRIMARY["tokens"]]], [agreed[PRIMARY["embeddings"]]], ALONE)[0].label
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
        decoder, found, every = Decoder(matrix), [], torch.arange(VOCABULARY)[:, None]
        for number in range(100):
            begun, ids = (text[torch.randint(500, (RESTARTS,), generator=generator)] for _ in range(2))
            zeros = torch.zeros(RESTARTS)
            restarts = Restarts(matrix[begun], matrix[ids], zeros, zeros + 1, zeros > 0)
            options = {"embed": matrix.__getitem__, "draws": 99, "seed": number}
            nulls = (redraw(decoder, matrix[begun], choices, **options) for choices in (text, every))
            found.append(
                [
                    decide([agreed[PRIMARY["tokens"]]], [agreed[PRIMARY["embeddings"]]], ALONE)[0].label != CHANCE
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
    def test_of_one_unit(self, tokens: float, embeddings: float, expected: str) -> None:
        (found,) = decide([null(tokens)], [null(embeddings)], ALONE)
        assert found.label == expected
        assert found.own == "not available: one unit"

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
    def test_of_a_unit_above_chance_in_both(self, own_tokens: float, own_embeddings: float, expected: str) -> None:
        own = relabelled([own_tokens] * 2, [own_embeddings] * 2)
        assert {one.label for one in decide([null(0.001)] * 2, [null(0.001)] * 2, own)} == {expected}

    def test_its_own_counts_only_where_it_is_above_chance(self) -> None:
        own = relabelled([0.001] * 2, [0.9] * 2)
        assert {one.label for one in decide([null(0.9)] * 2, [null(0.001)] * 2, own)} == {NOT_OWN}
        assert {one.label for one in decide([null(0.9)] * 2, [null(0.9)] * 2, own)} == {CHANCE}

    def test_corrects_over_units(self) -> None:
        above = [null(0.001)] * 20
        one_of_many = decide(above, above, relabelled([0.01] + [0.9] * 19, [0.9] * 20))
        assert one_of_many[0].label == NOT_OWN  # 0.01 x 2 spaces x 20 units
        many = decide(above, above, relabelled([0.01] * 20, [0.9] * 20))
        assert {one.label for one in many} == {TOKENS}
        assert many[0].own_tokens == pytest.approx(0.02)

    def test_a_test_that_cannot_say_yes_may_not_say_no(self) -> None:
        own = relabelled([0.25] * 2, [0.25] * 2, seeds=3)
        assert own.smallest_p == 0.25
        found = decide([null(0.001)] * 2, [null(0.001)] * 2, own)
        assert {one.label for one in found} == {TOKENS}
        assert {one.own for one in found} == {"not available: 2 units x 3 seeds cannot reach p ≤ 0.05"}

    def test_too_few_draws_are_no_verdict(self) -> None:
        (found,) = decide([null(1 / 20, 19)], [null(1 / 20, 19)], ALONE)
        assert found.label == "not available"
        assert "too few draws" in found.reason

    def test_one_restart_has_no_verdict(self) -> None:
        (found,) = decide([null(math.nan)], [null(math.nan)], ALONE)
        assert found.label == "not available"
        assert "one restart" in found.reason

    def test_alpha(self) -> None:
        assert decide([null(0.004)], [null(0.9)], ALONE, alpha=0.01)[0].label == TOKENS
        assert decide([null(0.006)], [null(0.9)], ALONE, alpha=0.01)[0].label == CHANCE

    def test_units_must_be_the_same(self) -> None:
        with pytest.raises(ValueError, match="same units"):
            decide([null(0.1)] * 3, [null(0.1)] * 3, relabelled([0.1] * 2, [0.1] * 2))
        with pytest.raises(ValueError, match="same units"):
            decide([null(0.1)] * 3, [null(0.1)] * 2, ALONE)


class TestShares:
    def test_counts_and_intervals(self) -> None:
        found = shares(
            [Verdict(label, "", 1.0, 1.0, 1.0, 1.0, "ok") for label in [TOKENS] * 3 + [CHANCE] * 9 + ["not available"]]
        )
        assert found["verdict"].tolist() == list(VERDICTS)
        assert found["count"].tolist() == [3, 0, 0, 9]
        assert (found["units"] == 12).all()
        assert found["share"].tolist() == [0.25, 0, 0, 0.75]
        assert (found["low"][0], found["high"][0]) == pytest.approx(proportion_confint(3, 12, method="wilson"))
        assert (found["high"] - found["low"] > 0.2).all()  # none of width zero, not even at a share of 0

    def test_no_verdicts(self) -> None:
        assert shares([])["share"].isna().all()
