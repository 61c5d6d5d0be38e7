"""The decode gap against Hugging Face's own numbers, its null, and where the gain is said to be lost."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from actmax.evidence import gap as gaps
from actmax.evidence.gap import BEST_DRAWS, PREDICTIONS, Gap, RandomText, measure, predictive
from actmax.evidence.nulls import Restarts
from actmax.evidence.readings import GapEnd, Reading
from actmax.model.evaluation import (
    activations,
    by_unit_activations,
    cross_entropies,
    random_activations,
    random_tokens,
)
from actmax.model.nearest import NearestTokens
from actmax.model.objective import Objective
from actmax.model.settings import GapSettings
from actmax.model.subject import Subject, load
from actmax.model.target import Unit
from conftest import TINY

UNITS = [Unit("resid_pre", 2, 5), Unit("mlp_post", 1, 7), Unit("resid_pre", 2, 6)]
MEAN = Objective()


@pytest.fixture(scope="module")
def ids(subject: Subject) -> Tensor:
    return random_tokens(subject, 5, draws=7, seed=3)


def hidden(subject: Subject, ids: Tensor) -> Tensor:
    """Hugging Face's own hidden state that enters block 2."""
    with torch.no_grad():
        return subject.model(input_ids=ids, output_hidden_states=True).hidden_states[2]


Sign = Literal["maximize", "minimize"]
ALPHA = 0.05


def gap(
    *,
    final: float = 10.0,
    snapped: float = 0.0,
    retokenised: float = 0.0,
    restarts: int = 6,
    sign: Sign = "maximize",
    passes: int = 20,
) -> Gap:
    """A gap with some means, beside standard normal random text."""
    noise = np.random.default_rng(0).normal(size=(5, restarts)) / 10
    means = {"initial": 0.0, "final": final, "snapped": snapped, "retokenised": retokenised, "start_tokens": 0.0}
    stages = {name: mean + row - row.mean() for (name, mean), row in zip(means.items(), noise, strict=True)}
    random = np.random.default_rng(1).normal(size=500)
    return Gap(
        **stages,
        texts=("a",) * restarts,
        same=(True,) * restarts,
        lengths=(5,) * restarts,
        cross_entropy=np.full(restarts, 5.0),
        cross_entropy_initial=np.full(restarts, 6.0),
        random=RandomText((random - random.mean()) / random.std(ddof=1), np.full(500, 5.0) + random),
        passes=passes,
        sign=sign,
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
    def test_draws_are_of_the_old_values(self) -> None:
        found = predictive(50, 4)
        assert found.shape == (PREDICTIONS, 4)
        assert set(np.unique(found)) == set(range(50))
        shares = np.bincount(found.ravel(), minlength=50) / found.size
        assert shares == pytest.approx(np.full(50, 1 / 50), rel=0.1)

    @pytest.mark.parametrize(("old", "new"), [(40, 10), (10, 40), (500, 1)])
    def test_is_the_bayesian_bootstraps(self, old: int, new: int) -> None:
        """Its mean and variance, and those of weights drawn from Dirichlet and values drawn by them."""
        drawn = np.random.default_rng(0).normal(size=old)
        means = drawn[predictive(old, new)].mean(axis=1)
        # the mean over weights of the variance given them, and the variance of the mean: s² (1/n + (n - 1)/(n (m + 1)))
        variance = drawn.var() * (1 / new + (new - 1) / (new * (old + 1)))
        assert means.mean() == pytest.approx(drawn.mean(), abs=4 * math.sqrt(variance / PREDICTIONS))
        assert means.var() == pytest.approx(variance, rel=0.03)
        generator = np.random.default_rng(1)
        weights = generator.dirichlet(np.ones(old), size=4000)
        slow = np.array([drawn[generator.choice(old, new, p=one)].mean() for one in weights])
        assert means.var() == pytest.approx(slow.var(), rel=0.1)
        if old < 100:  # without the doubt about the old values it would be narrower
            assert means.var() > 1.1 * drawn.var() / new

    @pytest.mark.parametrize("sign", ["maximize", "minimize"])
    def test_keeps_its_level(self, sign: Sign, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where restarts are random text, p ≤ 0.05 in at most 5 % of 400, within Monte Carlo error; else in most."""
        monkeypatch.setattr(gaps, "PREDICTIONS", 1999)
        predictive.cache_clear()
        generator, way = np.random.default_rng(5), 1 if sign == "maximize" else -1

        def rejected(shift: float) -> float:
            found = []
            for _ in range(400):
                random, own = generator.normal(size=500), generator.normal(size=10) + way * shift
                found.append(_with(gap(restarts=10, sign=sign), own, random).null("snapped").p <= 0.05)
            return float(np.mean(found))

        assert 0.01 < rejected(0.0) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)
        assert rejected(1.5) > 0.9
        assert rejected(-1.5) == 0  # the other side is not looked for
        predictive.cache_clear()

    def test_p_varies_little_between_seeds_of_random_text(self) -> None:
        """With as many random sequences as are drawn by default; with few the same mean may or may not be beyond."""

        def spread(count: int) -> float:
            own = np.full(10, 0.7)
            p = [
                _with(gap(restarts=10), own, np.random.default_rng(seed).normal(size=count)).null("snapped").p
                for seed in range(20)
            ]
            assert 0.002 < np.mean(p) < 0.1
            return float(np.std(np.log(p)))

        assert spread(GapSettings().draws) < 0.15
        assert spread(100) > 0.3

    def test_of_a_text_without_tokens_leaves_it_out(self) -> None:
        one = gap(retokenised=4.0)
        lost = np.array([np.nan, *one.retokenised[1:]])
        some = replace(one, retokenised=lost)
        assert some.null("retokenised").observed == pytest.approx(lost[1:].mean())
        assert some.z_of_mean("retokenised") == pytest.approx(some.z("retokenised") * math.sqrt(5))
        none = replace(one, retokenised=np.full(6, np.nan))
        assert math.isnan(none.null("retokenised").p)
        assert none.end(ALPHA) != GapEnd.SURVIVES

    def test_of_the_cross_entropy_looks_on_both_sides(self) -> None:
        for sign in ("maximize", "minimize"):
            null = gap(sign=sign).null("cross_entropy")
            assert null.alternative == "two-sided"
            assert null.observed == 5
        one_token = replace(gap(), random=RandomText(gap().random.activation, np.full(500, np.nan)))
        assert math.isnan(one_token.null("cross_entropy").p)


def _with(one: Gap, snapped: np.ndarray, random: np.ndarray) -> Gap:
    return replace(one, snapped=snapped, random=RandomText(random, random))


class TestWhereItIsLost:
    @pytest.mark.parametrize(
        ("means", "expected"),
        [
            ({"snapped": 0.5, "retokenised": 0.5}, GapEnd.SNAP),
            ({"snapped": 0.5, "retokenised": 9.0}, GapEnd.SNAP),
            ({"snapped": 2.0, "retokenised": 0.5}, GapEnd.RETOKENISE),
            ({"snapped": 2.0, "retokenised": 2.0}, GapEnd.SURVIVES),
            ({"final": 0.1, "snapped": 9.0, "retokenised": 9.0}, GapEnd.NO_GAIN),
        ],
    )
    @pytest.mark.parametrize("sign", ["maximize", "minimize"])
    def test_is_the_first_stage_that_is_not_beyond_random_tokens(
        self, means: dict[str, Any], expected: GapEnd, sign: Sign
    ) -> None:
        """A standard error of a mean of six is 0.41: 0.5 is within, 2 is beyond."""
        way = 1 if sign == "maximize" else -1
        asked = {"final": 10.0} | means
        assert gap(**{name: way * mean for name, mean in asked.items()}, sign=sign).end(ALPHA) == expected
        other: Sign = "minimize" if sign == "maximize" else "maximize"
        assert gap(**{name: way * mean for name, mean in asked.items()}, sign=other).end(ALPHA) == GapEnd.NO_GAIN

    def test_an_optimum_on_the_wrong_side_is_no_gain(self) -> None:
        """-5 where random text gives 1: far beyond it, on the side that was not looked for."""
        one = gap(final=-5.0, snapped=-5.0, retokenised=-5.0)
        one = replace(one, random=RandomText(one.random.activation + 1, one.random.cross_entropy))
        assert one.end(ALPHA) == GapEnd.NO_GAIN
        assert one.null("final").p > 0.99
        assert math.isnan(one.kept("snapped", ALPHA))
        assert one.flat(ALPHA)["gap"] == "no_gain"
        turned = replace(one, sign="minimize")
        assert turned.end(ALPHA) == GapEnd.SURVIVES
        assert turned.null("final").p < 0.001
        assert turned.kept("snapped", ALPHA) == pytest.approx(1)
        assert turned.flat(ALPHA)["gap_alternative"] == "less"

    def test_the_level_counts(self) -> None:
        one = gap(snapped=0.9, retokenised=0.9)
        assert 0.001 < one.null("snapped").p < 0.05
        assert (one.end(0.05), one.end(0.001)) == (GapEnd.SURVIVES, GapEnd.SNAP)
        for alpha in (0.05, 0.001):
            flat = one.flat(alpha)
            assert flat["gap"] == one.end(alpha).value
            assert (flat["null_snapped_p"] <= alpha) == (flat["activation_snapped_mean"] > flat["null_snapped_high"])
            assert math.isnan(flat["null_snapped_low"])

    def test_z_and_kept_are_their_formulas(self) -> None:
        one = gap(final=10.0, snapped=2.5)
        assert one.z("final") == pytest.approx(10.0)
        assert one.z_of_mean("final") == pytest.approx(10.0 * math.sqrt(6))
        assert one.kept("snapped", ALPHA) == pytest.approx(0.25)
        assert math.isnan(gap(final=0.0).kept("snapped", ALPHA))  # no gain, no share of it


class TestInstead:
    """What a reader would use instead of the optimum's text."""

    @pytest.mark.parametrize("sign", ["maximize", "minimize"])
    @pytest.mark.parametrize("passes", [1, 20, 500])
    def test_best_of_random_against_brute_force(self, passes: int, sign: Sign) -> None:
        one = gap(passes=passes, sign=sign, snapped=2.0)
        null, generator = one.best_of_random(), np.random.default_rng(3)
        tried = generator.choice(one.random.activation, (2000, 6, passes))
        means = (tried.max(axis=2) if sign == "maximize" else tried.min(axis=2)).mean(axis=1)
        error = means.std(ddof=1) * math.sqrt(1 / BEST_DRAWS + 1 / 2000)
        assert null.draws == BEST_DRAWS
        assert null.mean == pytest.approx(means.mean(), abs=4 * error)
        assert np.std(null.values) == pytest.approx(means.std(), rel=0.15)
        low, high = null.limits(ALPHA)
        for end, expected in ((low, 0.025), (high, 0.975)):
            assert np.mean(means < end - 1e-9) - 0.03 <= expected <= np.mean(means <= end + 1e-9) + 0.03  # with ties
        assert null.observed == pytest.approx(2.0)

    def test_more_passes_give_more(self) -> None:
        best = [gap(passes=passes).best_of_random().mean for passes in (1, 10, 100)]
        assert best == sorted(best)
        assert gap(passes=100, snapped=0.5).best_of_random().reading(ALPHA) == Reading.BELOW

    @pytest.mark.parametrize("passes", [0, 501])
    def test_more_passes_than_random_sequences_are_not_known(self, passes: int) -> None:
        flat = gap(passes=passes).flat(ALPHA)
        assert math.isnan(flat["best_of_random_mean"])
        assert math.isnan(flat["best_of_random_low"])
        assert flat["passes"] == passes

    @pytest.mark.parametrize("sign", ["maximize", "minimize"])
    def test_start_tokens_against_all_patterns_of_signs(self, sign: Sign) -> None:
        one, way = gap(sign=sign), 1 if sign == "maximize" else -1
        start = np.random.default_rng(4).normal(size=6)
        gained = way * np.array([0.9, 0.1, -0.3, 0.5, 0.4, -0.2])
        flat = replace(one, start_tokens=start, snapped=start + gained).flat(ALPHA)
        means = [np.mean(gained * signs) for signs in itertools.product((1, -1), repeat=6)]
        expected = np.mean([way * mean >= way * gained.mean() - 1e-12 for mean in means])
        assert flat["start_tokens_p"] == pytest.approx(expected)
        assert flat["start_tokens_activation_mean"] == pytest.approx(start.mean())
        worse = replace(one, start_tokens=start, snapped=start - gained).flat(ALPHA)
        assert worse["start_tokens_p"] > 0.8


def restarts_at(subject: Subject, ids: Tensor) -> Restarts:
    """Restarts that ended at tokens, and began at those of the restart that is as far from the end of the list."""
    ends = torch.arange(float(len(ids)), dtype=torch.float64)
    begun = subject.embed(ids.flip(0))
    return Restarts(begun, subject.embed(ids), ends, ends + 1, torch.zeros(len(ids), dtype=torch.bool))


class TestMeasure:
    def test_follows_each_restart(self, subject: Subject, ids: Tensor) -> None:
        restarts, nearest = restarts_at(subject, ids), NearestTokens(subject.embedding_matrix)
        settings = GapSettings(draws=30)
        found = measure(subject, MEAN, dict.fromkeys(UNITS, restarts), nearest, passes=24, settings=settings)
        assert list(found) == UNITS
        for unit, one in found.items():
            assert np.allclose(one.snapped, activations(subject, MEAN, ids.tolist(), [unit] * 7), atol=1e-12)
            assert np.allclose(one.start_tokens, one.snapped[::-1], atol=1e-12)
            assert not np.allclose(one.start_tokens, one.snapped, atol=1e-3)
            assert one.random.activation.shape == (30,)
            assert one.initial.tolist() == restarts.activation_initial.tolist()
            assert np.allclose(one.cross_entropy, cross_entropies(subject, ids))
            assert np.allclose(one.cross_entropy_initial, cross_entropies(subject, ids.flip(0)))
            assert one.texts[0] == subject.text(ids[0].tolist())
            again = [subject.tokens(text) for text in one.texts]
            assert one.same == tuple(a == b for a, b in zip(again, ids.tolist(), strict=True))
            assert not all(one.same)  # bytes that are no text do not come back
            assert np.allclose(one.retokenised, activations(subject, MEAN, again, [unit] * 7), atol=1e-12)
            assert (one.passes, one.sign, one.alternative) == (24, "maximize", "greater")

    def test_looks_on_the_side_of_the_objective(self, subject: Subject, ids: Tensor) -> None:
        nearest, objective = NearestTokens(subject.embedding_matrix), Objective(sign="minimize")
        found = {UNITS[0]: restarts_at(subject, ids)}
        (one,) = measure(subject, objective, found, nearest, passes=1, settings=GapSettings(draws=30)).values()
        assert (one.sign, one.alternative) == ("minimize", "less")


class TestCache:
    """Activations of random sequences are kept on disk for other jobs."""

    SETTINGS = GapSettings(draws=40)

    @pytest.fixture
    def passes(self, subject: Subject, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
        """Collects the number of sequences of every forward pass; nothing is kept in memory."""
        rows: list[int] = []
        run = Subject.run

        def counted(self: Subject, embedded: Tensor, *rest: Any, **options: Any) -> Any:
            rows.append(len(embedded))
            return run(self, embedded, *rest, **options)

        monkeypatch.setattr(Subject, "run", counted)
        random_activations.cache_clear()
        yield rows
        random_activations.cache_clear()

    @pytest.fixture
    def ask(self, subject: Subject, tmp_path: Path, passes: list[int]) -> Callable[..., np.ndarray]:
        """Asks as a new process would."""

        def ask(
            units: tuple[Unit, ...] = (UNITS[0],),
            *,
            objective: Objective = MEAN,
            tokens: int = 5,
            settings: GapSettings = self.SETTINGS,
        ) -> np.ndarray:
            random_activations.cache_clear()
            passes.clear()
            return random_activations(subject, objective, units, tokens, settings, tmp_path / "random")

        return ask

    def test_a_second_call_runs_no_forward_pass(
        self, ask: Callable[..., np.ndarray], passes: list[int], subject: Subject
    ) -> None:
        first = ask()
        assert sum(passes) == 40
        assert np.array_equal(ask(), first)
        assert passes == []
        ids = random_tokens(subject, 5, draws=40, seed=0)
        assert np.array_equal(first, by_unit_activations(subject, MEAN, ids, [UNITS[0]]))

    def test_only_what_is_missing_is_made(
        self, ask: Callable[..., np.ndarray], passes: list[int], subject: Subject, tmp_path: Path
    ) -> None:
        first = ask()
        both = ask((UNITS[2], UNITS[0]))
        assert np.array_equal(both[:, 1], first[:, 0])
        assert not np.array_equal(both[:, 0], first[:, 0])
        assert len(list((tmp_path / "random").iterdir())) == 2
        assert np.array_equal(ask((UNITS[0], UNITS[2])), both[:, ::-1])
        assert passes == []

    @pytest.mark.parametrize("damage", [b"", b"no numbers", None])
    def test_a_damaged_file_is_made_anew(
        self, ask: Callable[..., np.ndarray], passes: list[int], tmp_path: Path, damage: bytes | None
    ) -> None:
        first = ask()
        (file,) = (tmp_path / "random").iterdir()
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
        assert np.array_equal(ask(), first)
        assert sum(passes) == 40
        assert file.read_bytes() == whole
        assert not list(tmp_path.rglob("*.part"))

    def test_a_file_of_other_numbers_is_made_anew(
        self, ask: Callable[..., np.ndarray], passes: list[int], tmp_path: Path
    ) -> None:
        first = ask()
        (file,) = (tmp_path / "random").iterdir()
        for other in (np.zeros(39), np.zeros(40, dtype=np.float32), np.array(["a"] * 40)):
            with file.open("wb") as stream:
                np.save(stream, other)
            assert np.array_equal(ask(), first)
            assert sum(passes) == 40

    @pytest.mark.parametrize(
        "changed",
        [
            {"objective": Objective("last")},
            {"objective": Objective("max")},
            {"tokens": 4},
            {"settings": GapSettings(draws=40, seed=1)},
            {"settings": GapSettings(draws=30)},
            {"units": (UNITS[1],)},
        ],
    )
    def test_whatever_changes_the_numbers_has_its_own_file(
        self, ask: Callable[..., np.ndarray], passes: list[int], tmp_path: Path, changed: dict[str, Any]
    ) -> None:
        first = ask()
        other = ask(**changed)
        assert sum(passes) == len(other)
        assert not np.array_equal(other, first)
        assert len(list((tmp_path / "random").iterdir())) == 2
        assert np.array_equal(ask(), first)
        assert passes == []

    def test_the_sign_of_the_objective_makes_no_difference(
        self, ask: Callable[..., np.ndarray], passes: list[int]
    ) -> None:
        first = ask()
        assert np.array_equal(ask(objective=Objective(sign="minimize")), first)
        assert passes == []

    def test_other_weights_have_their_own_file(
        self, ask: Callable[..., np.ndarray], tmp_path: Path, passes: list[int]
    ) -> None:
        first = ask()
        other = load(name="other", source="random", architecture=TINY, dtype="float64", seed=1)
        passes.clear()
        found = random_activations(other, MEAN, (UNITS[0],), 5, self.SETTINGS, tmp_path / "random")
        assert sum(passes) == 40
        assert not np.array_equal(found, first)

    def test_a_measurement_uses_it(self, subject: Subject, ids: Tensor, tmp_path: Path, passes: list[int]) -> None:
        nearest, found = NearestTokens(subject.embedding_matrix), {UNITS[0]: restarts_at(subject, ids)}
        options: dict[str, Any] = {"passes": 1, "settings": GapSettings(draws=45), "cache": tmp_path}
        measured, counts = [], []
        for _ in range(2):
            random_activations.cache_clear()
            passes.clear()
            measured.append(measure(subject, MEAN, found, nearest, **options)[UNITS[0]])
            counts.append(list(passes))
        assert len(counts[0]) > len(counts[1]) > 0  # the optimum's own tokens are run again
        assert 45 not in counts[1]
        assert np.array_equal(measured[0].random.activation, measured[1].random.activation)
