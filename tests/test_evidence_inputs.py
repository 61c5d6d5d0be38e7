"""What `evidence` is given: draws that do not exist, small numbers, counts that overflow, units that are broken."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from actmax.errors import InputError
from actmax.evidence.coverage import Incidence, coverage, rarefaction, richness
from actmax.evidence.nulls import against
from actmax.evidence.own import own_agreement
from actmax.evidence.readings import OwnStatus, Verdict
from actmax.evidence.settings import claim_alpha, controls_needed
from actmax.evidence.verdicts import Agreed, decide


class TestAgainst:
    @pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
    @pytest.mark.parametrize(
        "draws", [np.full(99, np.nan), np.r_[np.arange(98.0), np.nan], np.r_[np.arange(98.0), np.inf]]
    )
    def test_draws_that_do_not_exist_give_no_p(self, draws, alternative):
        null = against(2.0, draws, alternative=alternative)
        assert np.isnan(null.p)
        assert np.isnan(null.limits(0.05)).all()

    @pytest.mark.parametrize("scale", [1e-300, 1e-13, 1e-6, 1.0, 1e9])
    def test_p_does_not_depend_on_the_unit_of_measurement(self, scale):
        """k = 1 of 100: no draw is as large as twice the largest."""
        assert against(2 * scale, np.linspace(0, scale, 99), alternative="greater").p == 0.01
        assert against(0.5 * scale, np.linspace(0, scale, 99), alternative="greater").p == 0.51
        assert against(-scale, np.linspace(0, scale, 99), alternative="less").p == 0.01

    @pytest.mark.parametrize("scale", [1e-13, 1.0, 1e9])
    def test_draws_apart_by_rounding_still_tie(self, scale):
        """0.1 + 0.2 is as large as 0.3, on any scale."""
        near = np.r_[np.full(9, (0.1 + 0.2) * scale), np.full(90, 0.1 * scale)]
        assert against(0.3 * scale, near, alternative="less").p == 1.0
        assert against(0.3 * scale, near, alternative="greater").p == 0.1

    def test_rounding_beside_larger_draws_ties_with_nothing(self):
        """A difference of large numbers that should be 0 is rounding beside them."""
        null = against(0.3 - (0.1 + 0.2), np.r_[np.zeros(50), np.linspace(-1, 1, 49)])
        assert null.p == 1.0


class TestIncidence:
    @pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64, np.uint32, np.float64])
    def test_squares_do_not_overflow(self, dtype):
        """S_obs + (m - 1)/m Q_1²/(2 Q_2), in whole numbers."""
        counts = np.array([30_000, 3, 1]).astype(dtype)
        expected = 30_004 + 2 / 3 * 30_000**2 / 6
        assert richness(Incidence(counts)).value == pytest.approx(expected, rel=1e-12)
        found = richness(Incidence(np.array([50_000, 3, 1]).astype(np.int32)))
        assert round(found.value) == 277_827_782
        assert found.low < found.value < found.high

    def test_without_tokens_in_two_restarts_either(self):
        counts = np.array([70_000, 0, 1], dtype=np.int32)
        assert richness(Incidence(counts)).value == pytest.approx(70_001 + 2 / 3 * 70_000 * 69_999 / 2, rel=1e-12)
        unseen = 2 * 69_999 / 2
        total = 70_000 + 3
        assert coverage(Incidence(counts)) == pytest.approx(1 - 70_000 / total * unseen / (unseen + 1), rel=1e-12)

    def test_frequencies_are_counted(self):
        assert Incidence.from_frequencies([1, 2, 2, 5], 5).counts.tolist() == [1, 2, 0, 0, 1]
        assert rarefaction(Incidence.from_frequencies([1, 2, 1], 2)).tolist() == [2.0, 3.0]

    @pytest.mark.parametrize("frequencies", [[1, 2, 9], [0, 1], [-1, 2], [1.5], [np.nan, 1.0]])
    def test_frequencies_beyond_the_restarts_are_refused(self, frequencies):
        with pytest.raises(InputError, match=r"^frequencies=.+1 to the 5 restarts"):
            Incidence.from_frequencies(frequencies, 5)

    @pytest.mark.parametrize("counts", [[1, -2, 3], [0, 0, 0], [], [-1], [1.5, 2], [[1, 2]], [np.nan, 1.0]])
    def test_counts_that_count_nothing_are_refused(self, counts):
        with pytest.raises(InputError, match=r"^counts="):
            Incidence(np.array(counts))


def agreeing(units=4, seeds=5, width=8):
    """Every unit has a direction and a token of its own."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.arange(units)[:, None, None].expand(units, seeds, 2).clone()
    moves = torch.eye(width)[:units, None, None].expand(units, seeds, 2, width)
    return ids, moves + 0.3 * torch.randn(moves.shape, generator=generator)


class TestOwnAgreement:
    @pytest.mark.parametrize("unit", [0, 2, 3])
    @pytest.mark.parametrize("broken", [torch.nan, torch.inf])
    def test_a_displacement_that_is_not_finite_breaks_its_unit_alone(self, unit, broken):
        ids, moves = agreeing()
        moves[unit, 1, 0, 3] = broken
        found = own_agreement(ids, moves)
        others = [u for u in range(4) if u != unit]
        assert np.isnan([found.embeddings.p[unit], found.embeddings.within[unit], found.embeddings.between[unit]]).all()
        without = own_agreement(ids[others], moves[others])
        np.testing.assert_array_equal(found.embeddings.p[others], without.embeddings.p)
        np.testing.assert_allclose(found.embeddings.within[others], without.embeddings.within, rtol=1e-12)
        np.testing.assert_array_equal(found.tokens.p, own_agreement(*agreeing()).tokens.p)

    def test_whole_units_are_tested_as_ever(self):
        assert (own_agreement(*agreeing()).embeddings.p < 0.05).all()

    def test_where_one_unit_is_left_none_is_tested(self):
        ids, moves = agreeing()
        moves[1:, 0, 0, 0] = torch.nan
        found = own_agreement(ids, moves)
        assert found.status == OwnStatus.OK
        assert np.isnan(found.embeddings.p).all()
        assert np.isfinite(found.tokens.p).all()

    def test_moves_that_were_not_tested_are_not_judged(self):
        ids, moves = agreeing()
        moves[1, 0] = torch.nan
        agreed = [Agreed(0.001, 0.001, 0.9, 0.9)] * 4
        verdicts = [one.verdict_embeddings for one in decide(agreed, own_agreement(ids, moves), alpha=0.5)]
        assert verdicts[1] == Verdict.NOT_JUDGED
        assert verdicts[0] == Verdict.REPRODUCIBLE


@pytest.mark.parametrize("alpha", [5, 1.0, 0, 0.0, -0.05, float("nan")])
def test_a_level_that_is_none_is_refused(alpha):
    agreed, own = [Agreed(0.001, 0.001, 0.9, 0.9)] * 4, own_agreement(*agreeing())
    for call in (lambda: decide(agreed, own, alpha=alpha), lambda: claim_alpha("random moves", alpha)):
        with pytest.raises(InputError, match=r"^alpha=.+above 0 and below 1"):
            call()
    with pytest.raises(InputError, match=r"^alpha="):
        controls_needed(1, 10, alpha=alpha)
