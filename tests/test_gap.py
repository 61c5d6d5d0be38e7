"""The decode gap against Hugging Face's own numbers, its null, and where the gain is said to be lost."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from actmax.evidence.gap import Gap, RandomText, measure, predictive
from actmax.evidence.nulls import Restarts
from actmax.evidence.readings import GapEnd
from actmax.model.evaluation import activations, by_unit_activations, cross_entropies, random_tokens
from actmax.model.nearest import NearestTokens
from actmax.model.objective import Objective
from actmax.model.settings import GapSettings
from actmax.model.subject import Subject
from actmax.model.target import Unit
from actmax.report.words import gap_statement

UNITS = [Unit("resid_pre", 2, 5), Unit("mlp_post", 1, 7), Unit("resid_pre", 2, 6)]
MEAN = Objective()


@pytest.fixture(scope="module")
def ids(subject: Subject) -> Tensor:
    return random_tokens(subject, 5, draws=7, seed=3)


def hidden(subject: Subject, ids: Tensor) -> Tensor:
    """Hugging Face's own hidden state that enters block 2."""
    with torch.no_grad():
        return subject.model(input_ids=ids, output_hidden_states=True).hidden_states[2]


def gap(*, final: float = 10.0, snapped: float = 0.0, retokenised: float = 0.0, restarts: int = 6) -> Gap:
    """A gap with some means, beside standard normal random text."""
    noise = np.random.default_rng(0).normal(size=(5, restarts)) / 10
    means = {"initial": 0.0, "final": final, "snapped": snapped, "retokenised": retokenised}
    stages = {name: mean + row - row.mean() for (name, mean), row in zip(means.items(), noise, strict=False)}
    random = np.random.default_rng(1).normal(size=500)
    text = RandomText((random - random.mean()) / random.std(ddof=1), np.full(500, 5.0) + random)
    lists = {"texts": ("a",) * restarts, "same": (True,) * restarts, "lengths": (5,) * restarts}
    return Gap(
        **stages,
        **lists,
        cross_entropy=np.full(restarts, 5.0),
        cross_entropy_initial=np.full(restarts, 6.0),
        random=text,
    )


class TestActivations:
    def test_are_hugging_faces(self, subject: Subject, ids: Tensor) -> None:
        expected = hidden(subject, ids).mean(1)
        found = activations(subject, MEAN, ids.tolist(), [UNITS[0]] * 7)
        assert np.abs(found - expected[:, 5].numpy()).max() < 1e-12
        assert np.abs(found - expected[:, 6].numpy()).max() > 1e-3  # and not another coordinate's

    def test_each_sequence_has_its_own_unit_and_length(self, subject: Subject, ids: Tensor) -> None:
        rows = [ids[0, :3].tolist(), [], ids[1].tolist(), ids[2, :3].tolist()]
        found = activations(subject, MEAN, rows, [UNITS[0], UNITS[0], UNITS[2], UNITS[1]])
        assert found[0] == pytest.approx(hidden(subject, ids[:1, :3])[0, :, 5].mean().item(), abs=1e-12)
        assert math.isnan(found[1])
        assert found[2] == pytest.approx(hidden(subject, ids[1:2])[0, :, 6].mean().item(), abs=1e-12)
        assert found[3] == pytest.approx(by_unit_activations(subject, MEAN, ids[2:3, :3], UNITS)[0, 1], abs=1e-12)

    @pytest.mark.parametrize("reduction", ["mean", "last", "max"])
    def test_are_reduced_like_the_target(self, subject: Subject, ids: Tensor, reduction: str) -> None:
        objective = Objective(reduction)  # pyright: ignore[reportArgumentType]
        expected = objective.activation(hidden(subject, ids)[..., 5])
        assert np.allclose(by_unit_activations(subject, objective, ids, UNITS)[:, 0], expected, atol=1e-12)
        assert np.allclose(activations(subject, objective, ids.tolist(), [UNITS[0]] * 7), expected, atol=1e-12)


class TestCrossEntropy:
    def test_is_hugging_faces_loss(self, subject: Subject, ids: Tensor) -> None:
        with torch.no_grad():
            expected = [subject.model(input_ids=row[None], labels=row[None]).loss.item() for row in ids]
        assert np.allclose(cross_entropies(subject, ids), expected, atol=1e-6)  # Hugging Face's loss is in float32
        assert not np.allclose(cross_entropies(subject, ids.flip(1)), expected, atol=1e-3)

    def test_of_one_token_does_not_exist(self, subject: Subject, ids: Tensor) -> None:
        assert np.isnan(cross_entropies(subject, ids[:, :1])).all()


class TestRandomTokens:
    def test_are_plain_and_named_by_their_seed(self, subject: Subject) -> None:
        ids = random_tokens(subject, 5, draws=2000, seed=0)
        assert subject.tokenizer.eos_token_id not in ids
        assert len(ids.unique()) == 256
        assert torch.equal(ids, random_tokens(subject, 5, draws=2000, seed=0))
        assert not torch.equal(ids, random_tokens(subject, 5, draws=2000, seed=1))


class TestNull:
    def test_draws_are_means(self) -> None:
        weights = predictive(50, 4)
        assert np.allclose(weights.sum(1), 1)
        assert set(np.unique(weights * 4).round(9)) <= set(range(5))

    def test_knows_its_spread(self) -> None:
        """A mean of n new values about the mean of m old ones has variance s² (1/n + 1/m), roughly."""
        drawn = np.random.default_rng(0).normal(size=40)
        variance = np.var(predictive(40, 10) @ drawn) / drawn.var(ddof=1)
        assert variance == pytest.approx(1 / 10 + 1 / 40, rel=0.15)

    def test_keeps_its_level(self) -> None:
        """Where restarts are random text, p ≤ 0.05 in at most 5 % of 400, within Monte Carlo error; else in most."""
        generator = np.random.default_rng(5)

        def rejected(shift: float) -> float:
            found = []
            for _ in range(400):
                random, own = generator.normal(size=500), generator.normal(size=10) + shift
                one = gap(restarts=10)
                found.append(_with(one, own, random).null("snapped").p <= 0.05)
            return float(np.mean(found))

        assert rejected(0.0) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)
        assert rejected(1.5) > 0.9

    def test_of_a_text_without_tokens_leaves_it_out(self) -> None:
        one = gap(retokenised=4.0)
        lost = np.array([np.nan, *one.retokenised[1:]])
        some = Gap(**{**vars(one), "retokenised": lost})
        assert some.null("retokenised").observed == pytest.approx(lost[1:].mean())
        none = Gap(**{**vars(one), "retokenised": np.full(6, np.nan)})
        assert math.isnan(none.null("retokenised").p)


def _with(one: Gap, snapped: np.ndarray, random: np.ndarray) -> Gap:
    return Gap(**{**vars(one), "snapped": snapped, "random": RandomText(random, random)})


class TestWhereItIsLost:
    @pytest.mark.parametrize(
        ("means", "expected"),
        [
            ({"snapped": 1.0, "retokenised": 1.0}, GapEnd.SNAP),
            ({"snapped": 1.0, "retokenised": 9.0}, GapEnd.SNAP),
            ({"snapped": 9.0, "retokenised": 1.0}, GapEnd.RETOKENISE),
            ({"snapped": 9.0, "retokenised": 8.0}, GapEnd.SURVIVES),
            ({"final": 0.1, "snapped": 9.0, "retokenised": 9.0}, GapEnd.NO_GAIN),
        ],
    )
    def test_is_the_first_stage_that_leaves_less_than_half(self, means: dict[str, Any], expected: GapEnd) -> None:
        assert gap(**means).lost_at == expected

    def test_z_and_kept_are_their_formulas(self) -> None:
        one = gap(final=10.0, snapped=2.5)
        assert one.z("final") == pytest.approx(10.0)
        assert one.kept("snapped") == pytest.approx(0.25)
        assert math.isnan(gap(final=0.0).kept("snapped"))  # no gain, no share of it

    def test_minimizing_has_a_gap_too(self) -> None:
        assert gap(final=-10.0, snapped=-9.0, retokenised=-1.0).lost_at == GapEnd.RETOKENISE

    def test_is_said_in_one_line(self) -> None:
        row = gap(final=10.0, snapped=2.5, retokenised=2.0).flat() | {"restarts": 6, "activation_final_mean": 10.0}
        said = gap_statement(row)
        assert "\n" not in said
        assert "dies at the snap: 25.0% of it is left" in said
        assert "random tokens give" in said
        assert "5 nats per token (what the initial noise decodes to: 6; random tokens: 4.9" in said


class TestMeasure:
    def test_follows_each_restart(self, subject: Subject, ids: Tensor) -> None:
        embeddings, begun = subject.embed(ids), subject.embed(ids.flip(0, 1))
        ends = torch.arange(7.0, dtype=torch.float64)
        restarts = Restarts(begun, embeddings, ends, ends + 1, torch.zeros(7, dtype=torch.bool))
        nearest = NearestTokens(subject.embedding_matrix)
        found = measure(subject, MEAN, dict.fromkeys(UNITS, restarts), nearest, settings=GapSettings(draws=30))
        assert list(found) == UNITS
        for unit, one in found.items():
            assert np.allclose(one.snapped, activations(subject, MEAN, ids.tolist(), [unit] * 7), atol=1e-12)
            assert one.random.activation.shape == (30,)
            assert one.initial.tolist() == ends.tolist()
            assert np.allclose(one.cross_entropy, cross_entropies(subject, ids))
            assert np.allclose(one.cross_entropy_initial, cross_entropies(subject, ids.flip(0, 1)))
            assert one.texts[0] == subject.text(ids[0].tolist())
            again = [subject.tokens(text) for text in one.texts]
            assert one.same == tuple(a == b for a, b in zip(again, ids.tolist(), strict=True))
            assert not all(one.same)  # bytes that are no text do not come back
            assert np.allclose(one.retokenised, activations(subject, MEAN, again, [unit] * 7), atol=1e-12)
