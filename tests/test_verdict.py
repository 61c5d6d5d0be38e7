"""The declared rule: its truth table, planted truths, and how often it claims something where nothing is there."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint
from torch import Tensor
from torch.nn.functional import normalize

from actmax.evidence.agreement import Agreement, agree
from actmax.evidence.nulls import Displaced, Null, Restarts, displace_together, redraw
from actmax.evidence.own import Own, OwnTest, own_agreement
from actmax.evidence.readings import VERDICTS, Answer, DecisionStatus, OwnStatus, Verdict
from actmax.evidence.settings import CLAIMS, RANDOM_TOKENS, claim_alpha, controls_needed, smallest_own_p
from actmax.evidence.verdicts import PRIMARY, Agreed, Decision, decide, shares
from actmax.model.nearest import NearestTokens

YES, PARTLY, DETECTABLE, SHARED, CHANCE = VERDICTS
UNKNOWN = Verdict.NOT_JUDGED
ALPHA, RESTARTS, POSITIONS, WIDTH, VOCABULARY = 0.05, 8, 3, 16, 60
LEVEL = claim_alpha("random moves")
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


def ended(initial: Tensor, final: Tensor) -> Restarts:
    zeros = torch.zeros(len(initial))
    return Restarts(initial, final, zeros, zeros + 1, zeros > 0)


def agreements(nearest: NearestTokens, moves: Tensor, initial: Tensor, *, draws: int = 199) -> list[Agreement]:
    """How far restarts of some units agree: (units, restarts, tokens, d_model) moves from the same initial noise."""
    finals = [initial + move for move in moves]
    moved = displace_together(nearest, initial, finals, draws=draws, seed=0, moves=40)
    return [agree(ended(initial, final), nearest(final).best, one) for final, one in zip(finals, moved, strict=True)]


def judge(nearest: NearestTokens, moves: Tensor, initial: Tensor) -> list[Decision]:
    """The verdicts on some units, from their moves."""
    agreed = [Agreed.of(one) for one in agreements(nearest, moves, initial)]
    return list(decide(agreed, own_agreement(nearest(initial + moves).best, moves)))


def labels(decisions: list[Decision]) -> list[Verdict]:
    return [decision.verdict for decision in decisions]


def wobble(seed: int, units: int, size: float) -> Tensor:
    return size * noise(seed, units, RESTARTS, POSITIONS, WIDTH)


class TestPlanted:
    def test_one_known_optimum(self, nearest: NearestTokens) -> None:
        """Each unit draws every restart to tokens of its own."""
        optima = nearest.directions[torch.arange(18).reshape(6, 1, 3)]
        found = judge(nearest, 20 * optima + wobble(1, 6, 0.5), starts(100))
        assert labels(found) == [YES] * 6
        assert {one.verdict.answer for one in found} == {Answer.YES}
        for one in found:
            assert one.own_tokens is not None
            assert one.own_tokens.p <= one.own_alpha

    def test_one_known_optimum_of_one_unit(self, nearest: NearestTokens) -> None:
        """One unit alone cannot be told from an attractor of all units."""
        (found,) = judge(nearest, 20 * nearest.directions[:3] + wobble(1, 1, 0.5), starts(100))
        assert found.verdict == UNKNOWN
        assert found.status == DecisionStatus.OTHER_UNITS_NOT_TESTED
        assert found.own == OwnStatus.ONE_UNIT
        assert found.own_tokens is None

    def test_some_tokens_are_the_same(self, nearest: NearestTokens) -> None:
        """One of three positions is drawn to a token of the unit, the others are noise."""
        optima = torch.zeros(3, 1, POSITIONS, WIDTH)
        optima[:, 0, 0] = 20 * nearest.directions[:3]
        found = judge(nearest, optima + wobble(1, 3, 2.0), starts(100))
        assert labels(found) == [PARTLY] * 3
        assert {one.verdict.answer for one in found} == {Answer.PARTLY}

    def test_the_same_part_in_every_pair(self, nearest: NearestTokens) -> None:
        """All restarts have one token of three in common, and no two have another: it can be no less than partly."""
        ids = torch.arange(2 * RESTARTS).reshape(RESTARTS, 2) + 10
        ids = torch.cat([torch.zeros(RESTARTS, 1, dtype=torch.long), ids], dim=1)
        initial, final = starts(100), nearest.directions[ids]
        (moved,) = displace_together(nearest, initial, [final], draws=199, seed=0, moves=60)
        (found,) = decide([Agreed.of(agree(ended(initial, final), ids, moved))], beside([0.001], [0.9]))
        assert found.verdict_tokens == PARTLY

    def test_a_few_tokens_are_the_same(self, nearest: NearestTokens) -> None:
        """Six of eight restarts are drawn to a token of their unit at one position: there, but not the same."""
        optima = torch.zeros(3, RESTARTS, POSITIONS, WIDTH)
        optima[:, :6, 0] = 20 * nearest.directions[:3, None]
        found = judge(nearest, optima + wobble(1, 3, 0.3), starts(100))
        assert [one.verdict_tokens for one in found] == [DETECTABLE] * 3
        assert {one.verdict.answer for one in found} == {Answer.NO}

    def test_order_does_not_matter(self, nearest: NearestTokens) -> None:
        """Every restart finds the same tokens, each in another order: sets and all pairs of positions see it."""
        optima = nearest.directions[torch.arange(9).reshape(3, 3)]
        order = [torch.randperm(3, generator=torch.Generator().manual_seed(s)) for s in range(RESTARTS)]
        moves = 20 * torch.stack([torch.stack([one[some] for some in order]) for one in optima])
        found = judge(nearest, moves + wobble(1, 3, 0.5), starts(100))
        assert labels(found) == [YES] * 3
        assert [one.verdict_embeddings for one in found] == [YES] * 3

    def test_same_direction_but_tokens_tie(self, nearest: NearestTokens) -> None:
        """Units move in directions of their own that no token has a part in: embeddings agree and tokens cannot."""
        direction = torch.zeros(6, 1, 1, WIDTH)
        direction[..., -BLIND:] = noise(5, 6, 1, 1, BLIND)
        found = judge(nearest, direction + wobble(1, 6, 0.1), starts(100))
        assert [one.verdict_embeddings for one in found] == [YES] * 6
        assert [one.verdict_tokens for one in found] == [CHANCE] * 6
        assert labels(found) == [DETECTABLE] * 6  # something is there, but the answer in tokens is not the same
        assert {one.verdict.answer for one in found} == {Answer.NO}

    def test_all_units_share_an_attractor(self, nearest: NearestTokens) -> None:
        found = judge(nearest, 20 * nearest.directions[:3] + wobble(1, 6, 0.5), starts(100))
        assert labels(found) == [SHARED] * 6
        assert [one.verdict_embeddings for one in found] == [SHARED] * 6
        assert all(one.own == OwnStatus.OK for one in found)

    def test_nothing_there(self, nearest: NearestTokens) -> None:
        found = judge(nearest, wobble(1, 6, 1.0), starts(100))
        assert labels(found) == [CHANCE] * 6
        assert all(one.own_tokens is None for one in found)  # asked only where tokens are above chance


REPETITIONS = 200
MOST = ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / REPETITIONS)
"""A share of so many repetitions that a test of level α passes within three Monte Carlo errors."""


def p_and_verdict(nearest: NearestTokens, moves: Tensor, initial: Tensor) -> tuple[dict[str, float], Verdict]:
    """What p is of each claim on the first unit, beside two control units, and its verdict."""
    (found,) = agreements(nearest, moves[:1], initial, draws=199)
    own = own_agreement(nearest(initial + moves).best, moves)
    assert own.embeddings is not None
    p = {"shared_tokens": found.nulls["shared_tokens"].p, "direction": own.embeddings.nulls[0].p}
    return p | {"direction_signs": found.nulls["direction"].p}, decide([Agreed.of(found)], own.only(0))[0].verdict


class TestLevel:
    """False claims stay at or below α within three Monte Carlo errors, and the tests behind them are not idle."""

    def of(self, nearest: NearestTokens, moves: list[Tensor]) -> tuple[pd.DataFrame, list[Verdict]]:
        """p of each claim, and the verdict, in each repetition."""
        found = [p_and_verdict(nearest, one, starts(10_000 + 100 * at)) for at, one in enumerate(moves)]
        return pd.DataFrame([p for p, _ in found]), [verdict for _, verdict in found]

    @pytest.mark.slow
    def test_nothing_there(self, nearest: NearestTokens) -> None:
        p, verdicts = self.of(nearest, [wobble(7 + at, 3, 1.0) for at in range(REPETITIONS)])
        assert ((p <= ALPHA).mean() <= MOST).all(), (p <= ALPHA).mean()
        assert ((p <= 0.5).mean() > 0.3).all()
        assert np.mean([one != CHANCE for one in verdicts]) <= MOST

    @pytest.mark.slow
    def test_moves_in_a_subspace_that_all_units_share(self, nearest: NearestTokens) -> None:
        """Uniform in three dimensions of sixteen: no direction is in common, though moves are anything but uniform."""
        basis = noise(4, 3, WIDTH)
        ways = (noise(7 + at, 3, RESTARTS, POSITIONS, 3) @ basis for at in range(REPETITIONS))
        p, verdicts = self.of(nearest, [6 * normalize(way, dim=-1) for way in ways])
        rates = (p <= ALPHA).mean()
        assert rates["shared_tokens"] > 0.3  # fewer tokens are in reach, which is no direction and nothing of a unit
        assert (rates[["direction", "direction_signs"]] <= MOST).all(), rates
        assert np.mean([one in (YES, PARTLY, DETECTABLE) for one in verdicts]) <= MOST

    def test_a_planted_direction_and_planted_tokens_are_found(self, nearest: NearestTokens) -> None:
        """The negative control: what keeps its level above finds what is there."""
        own = 4 * nearest.directions[torch.arange(9).reshape(3, 1, 3)]
        p, verdicts = self.of(nearest, [wobble(7 + at, 3, 1.0) + own for at in range(40)])
        assert ((p <= ALPHA).mean() > 0.9).all(), (p <= ALPHA).mean()
        assert np.mean([one in (YES, PARTLY, DETECTABLE) for one in verdicts]) > 0.9

    @pytest.mark.slow
    def test_seeds_shared_between_units_and_no_other_agreement(self, nearest: NearestTokens) -> None:
        """What a unit gives is a function of the seed alone, plus noise: the trap that two units agree."""
        verdicts, agreed = [], []
        for at in range(REPETITIONS):
            of_seed = noise(50_000 + at, 1, RESTARTS, POSITIONS, WIDTH)
            initial = starts(10_000 + 100 * at)
            moves = of_seed + wobble(7 + at, 3, 0.3)
            verdicts.append(judge(nearest, moves, initial))
            ids = nearest(initial + moves).best
            agreed.append((ids[0] == ids[1]).double().mean().item())
        assert np.mean(agreed) > 0.4  # the trap is there
        for unit in range(3):
            assert np.mean([found[unit].verdict != CHANCE for found in verdicts]) <= MOST
            p = np.array([one.p if (one := found[unit].direction) else math.nan for found in verdicts])
            assert np.mean(p <= ALPHA) <= MOST
            assert np.mean(p <= 0.9) > 0.1


def null(p: float, draws: int = 999) -> Null:
    """A null whose p is about this."""
    above = min(draws, max(0, round(p * (draws + 1)) - 1))
    return Null(0.5, np.array([0.0] * (draws - above) + [1.0] * above), "greater")


def agreed(p: float, tokens: float = 0.9, embeddings: float = 0.0, *, draws: int = 999) -> Agreed:
    return Agreed(p, 1 / (draws + 1), tokens, embeddings)


def beside(p_tokens: list[float], p_moves: list[float], *, seeds: int = 10, draws: int = 999) -> Own:
    spaces = (
        OwnTest(np.ones(len(p)), np.zeros(len(p)), tuple(null(one, draws) for one in p)) for p in (p_tokens, p_moves)
    )
    return Own(OwnStatus.OK, *spaces, units=max(2, len(p_tokens)), seeds=seeds, draws=draws)


@pytest.mark.slow
class TestRestartsThatEndAtTokens:
    """Random tokens of those that a search may use, which are not all that a random move may lead to."""

    def rejected(self, shared: int) -> tuple[float, float]:
        """Shares of 100 repetitions that p <= 0.05 calls above chance: beside random tokens, beside random moves."""
        matrix, allowed = noise(3, VOCABULARY, WIDTH), VOCABULARY // 4
        nearest, found, every = NearestTokens(matrix), [], torch.arange(allowed)[:, None]
        generator = torch.Generator().manual_seed(1)
        for number in range(100):
            begun, ids = (torch.randint(allowed, (RESTARTS, POSITIONS), generator=generator) for _ in range(2))
            ids[:shared] = ids[0]
            initial, final = matrix[begun], matrix[ids]
            options = {"draws": 99, "seed": number}
            (moved,) = displace_together(nearest, initial, [final], moves=60, **options)
            nulls = redraw(nearest, initial, every, **options), moved
            found.append([self.above(initial, final, ids, one) for one in nulls])
        tokens, moves = np.mean(found, axis=0)
        return float(tokens), float(moves)

    def above(self, initial: Tensor, final: Tensor, ids: Tensor, by_chance: Displaced) -> bool:
        return agree(ended(initial, final), ids, by_chance, draws=20).nulls[PRIMARY["tokens"]].p <= ALPHA

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
            nulls = (redraw(nearest, matrix[begun], some, draws=99, seed=number) for some in (text, every))
            found.append([self.above(matrix[begun], matrix[ids], ids, one) for one in nulls])
        of_text, of_tokens = np.mean(found, axis=0)
        assert of_text <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / 100)
        assert of_tokens > 0.3


JUST = 1e-9
LOWS = {
    YES: (0.5, 0.7, 1.0),
    PARTLY: (0.1, 0.3, 0.5 - JUST),
    DETECTABLE: (math.nan, -0.3, 0.0, 0.1 - JUST),
}
"""Lower limits of κ, by what they make of something that is there and the unit's own."""
LOW = [(low, sort) for sort, lows in LOWS.items() for low in lows]
TOGETHER = {
    # tokens: the unit's verdict where moves are YES, PARTLY, DETECTABLE, SHARED, CHANCE, UNKNOWN
    YES: (YES, YES, YES, YES, YES, YES),
    PARTLY: (PARTLY, PARTLY, PARTLY, PARTLY, PARTLY, PARTLY),
    DETECTABLE: (DETECTABLE, DETECTABLE, DETECTABLE, DETECTABLE, DETECTABLE, DETECTABLE),
    SHARED: (DETECTABLE, DETECTABLE, DETECTABLE, SHARED, SHARED, SHARED),
    CHANCE: (DETECTABLE, DETECTABLE, DETECTABLE, SHARED, CHANCE, CHANCE),
    UNKNOWN: (UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN),
}
DETECTED = {
    "yes": (0.007, 999),
    "no": (0.008, 999),  # the level of a claim is 0.00714
    "one restart": (math.nan, 999),
    "few draws": (0.01, 99),
}
UNTESTED = [Own(status) for status in OwnStatus if status not in (OwnStatus.OK, OwnStatus.OUT_OF_REACH)]
UNTESTED += [beside([0.01], [0.01], draws=99), beside([0.001], [0.001], seeds=3)]  # no p reaches the level


def token_verdict(detected: str, own: bool | None, sort: Verdict) -> Verdict:
    """What the declared rule makes of tokens."""
    if detected in ("one restart", "few draws") or (detected == "yes" and own is None):
        return UNKNOWN
    if detected == "no":
        return CHANCE
    return sort if own else SHARED


def move_verdict(own: bool | None, sort: Verdict) -> Verdict:
    """What the declared rule makes of moves; without a test that says yes, agreement is shared or chance."""
    if own is None:
        return UNKNOWN
    return sort if own else (CHANCE if sort == DETECTABLE else SHARED)


CASES = list(itertools.product(DETECTED, LOW, LOW))


class TestRule:
    @pytest.mark.parametrize("own_moves", [True, False])
    @pytest.mark.parametrize("own_tokens", [True, False])
    def test_truth_table_beside_other_units(self, own_tokens: bool, own_moves: bool) -> None:
        own = beside([0.007 if own_tokens else 0.008], [0.007 if own_moves else 0.008])
        seen = set[Verdict]()
        for detected, (low_tokens, sort_tokens), (low_moves, sort_moves) in CASES:
            p, draws = DETECTED[detected]
            (found,) = decide([agreed(p, low_tokens, low_moves, draws=draws)], own)
            tokens, moves = token_verdict(detected, own_tokens, sort_tokens), move_verdict(own_moves, sort_moves)
            assert (found.verdict_tokens, found.verdict_embeddings) == (tokens, moves), (detected, found)
            assert found.verdict == TOGETHER[tokens][(*VERDICTS, UNKNOWN).index(moves)], found
            seen.add(found.verdict)
        assert (
            len(seen) == {(True, True): 4, (True, False): 6, (False, True): 2, (False, False): 3}[own_tokens, own_moves]
        )

    @pytest.mark.parametrize("own", UNTESTED)
    def test_what_was_not_tested_says_nothing(self, own: Own) -> None:
        for detected, (low_tokens, _), (low_moves, _) in CASES:
            p, draws = DETECTED[detected]
            (found,) = decide([agreed(p, low_tokens, low_moves, draws=draws)], own)
            expected = CHANCE if detected == "no" else UNKNOWN
            assert (found.verdict, found.verdict_tokens) == (expected, expected)
            assert found.verdict_embeddings == UNKNOWN
            assert (found.own_tokens, found.direction) == (None, None)
            assert found.own != OwnStatus.OK

    def test_every_pair_of_verdicts_is_in_the_table(self) -> None:
        sorts = {sort for _, sort in LOW}
        tokens = {token_verdict(one, own, sort) for one in DETECTED for own in (True, False, None) for sort in sorts}
        assert tokens == set(TOGETHER) == {*VERDICTS, UNKNOWN}
        assert {move_verdict(own, sort) for own in (True, False, None) for sort in sorts} == tokens

    @pytest.mark.parametrize(
        ("detected", "own", "expected"),
        [
            ("yes", beside([0.001], [0.001]), DecisionStatus.OK),
            ("no", beside([0.001], [0.001]), DecisionStatus.OK),
            ("no", ALONE, DecisionStatus.OK),
            ("yes", ALONE, DecisionStatus.OTHER_UNITS_NOT_TESTED),
            ("one restart", ALONE, DecisionStatus.ONE_RESTART),
            ("few draws", beside([0.001], [0.001]), DecisionStatus.TOO_FEW_DRAWS),
        ],
    )
    def test_status(self, detected: str, own: Own, expected: DecisionStatus) -> None:
        p, draws = DETECTED[detected]
        (found,) = decide([agreed(p, draws=draws)], own)
        assert found.status == expected
        assert (found.verdict_tokens == UNKNOWN) == (expected != DecisionStatus.OK)

    def test_a_test_that_cannot_say_yes_may_not_say_no(self) -> None:
        own = beside([0.25] * 2, [0.25] * 2, seeds=3)
        assert own.smallest_p == 0.25
        found = decide([agreed(0.001)] * 2, own)
        assert {one.verdict for one in found} == {UNKNOWN}
        assert {(one.own, one.own_units, one.own_seeds) for one in found} == {(OwnStatus.OUT_OF_REACH, 2, 3)}

    def test_levels_are_those_of_the_claims(self) -> None:
        """Seven claims of a gradient run share α, and five of a search: 0.009 is enough for one of five."""
        assert len(CLAIMS["random moves"]) == 7
        assert len(CLAIMS[RANDOM_TOKENS]) == 5
        for kind, expected in (("random moves", CHANCE), (RANDOM_TOKENS, YES)):
            (found,) = decide([agreed(0.009)], beside([0.001], [0.9]), kind=kind)
            assert found.verdict == expected
            assert found.alpha == pytest.approx(ALPHA / len(CLAIMS[kind]))

    def test_alpha(self) -> None:
        own = beside([0.001], [0.9])
        assert decide([agreed(0.002)], own, alpha=0.02)[0].verdict == YES  # 0.02/7 is 0.0029
        assert decide([agreed(0.003)], own, alpha=0.02)[0].verdict == CHANCE
        assert decide([agreed(0.002)], beside([0.003], [0.9]), alpha=0.02)[0].verdict == SHARED

    def test_units_must_be_the_same(self) -> None:
        with pytest.raises(ValueError, match="same units"):
            decide([agreed(0.1)] * 3, beside([0.1] * 2, [0.1] * 2))

    def test_of_a_row_is_that_of_the_agreement(self, nearest: NearestTokens) -> None:
        for moves in (wobble(1, 1, 1.0), wobble(1, 1, 0.2) + 20 * nearest.directions[:3]):
            (one,) = agreements(nearest, moves, starts(100))
            flat = one.flat() | one.nulls["shared_tokens"].claim_columns("shared_tokens", LEVEL)
            assert Agreed.of_row(flat) == Agreed.of(one)
            assert Agreed.of(one).smallest_p == 1 / 200


class TestOverUnits:
    def test_corrects_over_units(self) -> None:
        above = [agreed(0.001)] * 20
        one_of_many = decide(above, beside([0.002] + [0.9] * 19, [0.9] * 20))
        assert one_of_many[0].verdict == SHARED  # 0.002 x 20 units
        many = decide(above, beside([0.002] * 20, [0.9] * 20))
        assert {one.verdict for one in many} == {YES}
        assert one_of_many[0].own_alpha == pytest.approx(LEVEL / 20)
        assert many[0].own_alpha == pytest.approx(LEVEL)

    def test_only_units_whose_tokens_are_above_chance_are_asked(self) -> None:
        mixed, own = [agreed(0.001)] * 2 + [agreed(0.9)] * 18, beside([0.003] * 2 + [0.9] * 18, [0.9] * 20)
        assert decide([agreed(0.001)] * 20, own)[0].verdict == SHARED
        found = decide(mixed, own)
        assert labels(list(found)) == [YES] * 2 + [CHANCE] * 18
        assert [one.own_tokens is not None for one in found] == [True] * 2 + [False] * 18

    def test_control_units_do_not_count(self) -> None:
        """Their own p would take the level of the unit that was asked about."""
        above, own = [agreed(0.001)] * 3, beside([0.005, 0.9, 0.9], [0.9] * 3)
        assert decide(above, own)[0].verdict == SHARED
        assert decide(above, own, judged=[0])[0].verdict == YES

    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.tuples(st.booleans(), st.integers(1, 20)), min_size=1, max_size=12))
    def test_is_benjamini_and_hochbergs_over_the_detected(self, units: list[tuple[bool, int]]) -> None:
        p = [rank / 1000 for _, rank in units]
        found = decide([agreed(0.001 if yes else 0.9) for yes, _ in units], beside(p, [0.9] * len(p)))
        asked = [number for number, (yes, _) in enumerate(units) if yes]
        rejected = multipletests([p[number] for number in asked], LEVEL, "fdr_bh")[0] if asked else []
        assert [found[number].verdict == YES for number in asked] == list(rejected)
        for one in found:  # what stands in the row says the same: claimed exactly where p is at most the level
            if one.own_tokens is not None:
                assert (one.own_tokens.p <= one.own_alpha) == (one.verdict == YES)


STRENGTH = {verdict: -place for place, verdict in enumerate(VERDICTS)}
EVIDENCE = st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(1, 20), st.floats(-0.5, 1), st.floats(-0.5, 1))


@settings(max_examples=500, deadline=None)
@given(EVIDENCE, EVIDENCE, st.lists(st.tuples(st.booleans(), st.integers(1, 20)), max_size=4))
def test_more_evidence_never_weakens_the_verdict(
    one: tuple[int, int, int, float, float],
    other: tuple[int, int, int, float, float],
    rest: list[tuple[bool, int]],
) -> None:
    """Of a unit among others, with p of tokens, of their being its own and of its moves, and both κ."""

    def verdicts(p: int, own: int, direction: int, tokens: float, embeddings: float) -> Decision:
        units = [agreed(p / 1000, tokens, embeddings), *(agreed(0.001 if yes else 0.9) for yes, _ in rest)]
        others = beside([own / 1000, *(rank / 1000 for _, rank in rest)], [direction / 1000] * len(units))
        return decide(units, others)[0]

    weaker = verdicts(*(max(pair) for pair in zip(one[:3], other[:3], strict=True)), *map(min, one[3:], other[3:]))
    stronger = verdicts(*(min(pair) for pair in zip(one[:3], other[:3], strict=True)), *map(max, one[3:], other[3:]))
    for name in ("verdict", "verdict_tokens", "verdict_embeddings"):
        assert STRENGTH[getattr(stronger, name)] >= STRENGTH[getattr(weaker, name)], name


class TestControls:
    @pytest.mark.parametrize(
        ("units", "seeds", "expected"),
        [
            (1, 1, 0), (1, 2, 0), (5, 2, 0),  # no interval of κ below three seeds
            (1, 3, 11), (1, 4, 5), (1, 5, 3), (1, 6, 2), (1, 10, 2), (1, 100, 2),
            (2, 3, 10), (2, 10, 1), (3, 10, 0), (3, 5, 1), (11, 3, 1), (12, 3, 0), (100, 3, 0),
        ],
    )  # fmt: skip
    def test_table(self, units: int, seeds: int, expected: int) -> None:
        assert controls_needed(units, seeds) == expected

    @pytest.mark.parametrize("alpha", [0.05, 0.01])
    def test_are_the_least_with_which_a_verdict_is_in_reach(self, alpha: float) -> None:
        """That of a gradient run, whose level is the lower one; `decide` agrees that p is in reach."""
        level = claim_alpha("random moves", alpha)
        for units, seeds in itertools.product(range(1, 14), range(3, 12)):
            total = units + controls_needed(units, seeds, alpha=alpha)
            assert total >= 3
            assert smallest_own_p(total, seeds) <= level
            fewer = total - 1
            assert total == units or fewer < 3 or smallest_own_p(fewer, seeds) > level
            own = Own(OwnStatus.OK, units=total, seeds=seeds, draws=99_999)
            assert decide([agreed(1e-5, draws=99_999)], own, alpha=alpha)[0].own == OwnStatus.OK


class TestShares:
    def test_counts_and_intervals(self) -> None:
        found = shares([YES] * 3 + [CHANCE] * 9 + [UNKNOWN])
        assert found["verdict"].tolist() == list(VERDICTS)
        assert found["count"].tolist() == [3, 0, 0, 0, 9]
        assert (found["units"] == 12).all()
        assert found["share"].tolist() == [0.25, 0, 0, 0, 0.75]
        assert (found["low"][0], found["high"][0]) == pytest.approx(proportion_confint(3, 12, method="wilson"))
        assert (found["high"] - found["low"] > 0.2).all()  # none of width zero, not even at a share of 0

    def test_no_verdicts(self) -> None:
        assert shares([])["share"].isna().all()


def test_answers() -> None:
    expected = {YES: "yes", PARTLY: "partly", DETECTABLE: "no", SHARED: "no", CHANCE: "no", UNKNOWN: "not_judged"}
    assert {verdict: verdict.answer.value for verdict in Verdict} == expected
