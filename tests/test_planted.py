"""Subjects whose truth is known, through the whole command: the verdict, the answer and the decode gap say it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from actmax.evidence.readings import Answer, DecisionStatus, GapEnd, OwnStatus, Verdict
from actmax.model.subject import Subject, load
from cli import Actmax

RUN = (
    "subject=tiny",
    "subject.dtype=float64",
    "tokens=3",
    "nulls.displacements=50",
    "gap.draws=200",
    "meaning.embedder=none",
    "logger=none",
    "page=false",
)
TOY = {"model_type": "gpt2", "n_layer": 2, "n_embd": 24, "n_head": 4, "n_positions": 16}
BEST = 100
"""The token that stands out in dim 0."""
ONE_OPTIMUM = (
    "unit.site=resid_pre",
    "unit.layer=0",
    "prior=simplex",
    "prior.simplex.temperature=0.1",
    "optimizer.lr=0.05",
    "steps=150",
)
ONE_ATTRACTOR = ("unit.site=mlp_pre", "unit.layer=1", "optimizer.lr=0.01", "steps=40")
NOTHING = ("unit.site=mlp_pre", "unit.layer=0", "steps=10")

WIDTH, SEEN, FOLDS = 192, 24, 288
"""Width of the subject of faint directions, its dims that tokens have a part in, and its pairs of opposite neurons."""
FAINT = ("unit.site=mlp_out", "unit.layer=0", "optimizer=sgd", "optimizer.lr=0.03", "steps=20")
STRENGTH = 0.11
"""Of the faint directions: two restarts' moves then have a cosine of about 0.05."""
WITHOUT = 100
"""Units from this one on have no direction of their own."""

several_seeds = pytest.mark.parametrize("seeds", [5, 10])


def saved(subject: Subject, folder: Path) -> str:
    subject.model.save_pretrained(folder)
    subject.tokenizer.save_pretrained(folder)
    return f"subject.path={folder}"


@pytest.fixture
def toy(tmp_path: Path) -> str:
    """Token 100 stands out in dim 0; neurons 8 to 10 of block 0 see nothing, all of block 1 are the same."""
    subject = load(name="toy", source="random", architecture=TOY, dtype="float64")
    model: Any = subject.model
    with torch.no_grad():
        model.transformer.wte.weight[BEST, 0] = 0.2
        blocks = model.transformer.h
        blocks[0].mlp.c_fc.weight[:, 8:11] = 0  # (d_model, neurons)
        blocks[1].mlp.c_fc.weight[:] = blocks[1].mlp.c_fc.weight[:, :1].clone()
    return saved(subject, tmp_path / "toy")


@pytest.fixture
def faint(tmp_path: Path) -> str:
    return saved(faint_subject(STRENGTH), tmp_path / "faint")


def faint_subject(strength: float) -> Subject:
    """One block whose MLP alone does anything, on dims that tokens have no part in.

    Each coordinate of mlp_out is a sum of folds, |w·x| with random w and signs, which draw every restart its own way,
    and, below `WITHOUT`, of one line v·x, which draws all restarts of this unit the same way.
    """
    sizes = {"model_type": "gpt2", "n_layer": 1, "n_embd": WIDTH, "n_head": 4, "n_positions": 16}
    subject = load(name="faint", source="random", architecture=sizes, dtype="float64")
    model: Any = subject.model
    embed, block, blind = model.transformer.wte.weight, model.transformer.h[0], WIDTH - SEEN
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64) / shape[0] ** 0.5

    with torch.no_grad():
        embed[:, SEEN:] = 0
        embed[:, :SEEN] -= embed[:, :SEEN].mean(1, keepdim=True)  # layer norm moves all dims alike: nothing to tokens
        for weight in (model.transformer.wpe.weight, block.attn.c_proj.weight):
            weight.zero_()
        folds, lines = drawn(blind, FOLDS), drawn(blind, WIDTH)
        into, out = block.mlp.c_fc.weight, block.mlp.c_proj.weight
        into.zero_()
        into[SEEN:] = torch.cat([folds, -folds, lines], dim=1)
        block.mlp.c_fc.bias[2 * FOLDS :] = 20  # where GELU is a line
        out[:FOLDS] = out[FOLDS : 2 * FOLDS] = drawn(FOLDS, WIDTH)
        out[2 * FOLDS :] = strength * torch.diag((torch.arange(WIDTH) < WITHOUT).double())
    return subject


def row_of(actmax: Actmax, *overrides: str) -> dict[str, Any]:
    """The row of a job's one unit, after those of its control units have been set beside it."""
    ran = actmax(*RUN, *overrides)
    assert ran.code == 0, ran.err
    units = pd.read_parquet(ran.folder / "job/units.parquet")
    (row,) = units[~units["control"]].to_dict("records")
    assert len(units) == row["own_units"] == 1 + int(units["control"].sum())
    return row


def judged(row: dict[str, Any]) -> tuple[str, str]:
    return row["verdict"], row["answer"]


def sweep_of(actmax: Actmax, folder: Path, *overrides: str) -> pd.DataFrame:
    """Units over a sweep of jobs without control units; no job can judge its unit by itself."""
    ran = actmax("-m", *RUN, *overrides, "sweep=s", "controls=0")
    assert ran.code == 0, ran.err
    alone = pd.concat([pd.read_parquet(job / "units.parquet") for job in ran.jobs])
    assert set(alone["own"]) == {OwnStatus.ONE_UNIT}
    return pd.read_parquet(folder / "outputs/s/units.parquet")


class TestTheSameOptimum:
    """resid_pre of layer 0 is the embedding itself: the best mixture of tokens is the token with the largest entry."""

    @several_seeds
    def test_is_reproducible(self, seeds: int, actmax: Actmax, toy: str) -> None:
        row = row_of(actmax, toy, *ONE_OPTIMUM, "unit.index=0", f"seeds='0:{seeds}'", "hydra.run.dir=job")
        assert judged(row) == (Verdict.REPRODUCIBLE, Answer.YES)
        assert row["shared_tokens"] == 1
        assert row["null_own_tokens_p"] <= row["null_own_tokens_alpha"]
        assert row["kept_snapped"] > 0.99  # the tokenizer may still lose it: not every byte is a text
        assert row["gap"] in (GapEnd.SURVIVES, GapEnd.RETOKENISE)

    def test_is_not_judged_where_no_other_unit_was_tested(self, actmax: Actmax, toy: str) -> None:
        job = (*ONE_OPTIMUM, "unit.index=0", "seeds='0:6'", "hydra.run.dir=job")
        row = row_of(actmax, toy, *job, "controls=0")
        assert judged(row) == (Verdict.NOT_JUDGED, Answer.UNKNOWN)
        assert row["verdict_status"] == DecisionStatus.OTHER_UNITS_NOT_TESTED
        assert row["null_shared_tokens_p"] <= row["null_shared_tokens_alpha"]

    @pytest.mark.parametrize(("seeds", "verdict"), [(4, Verdict.PARTLY), (3, Verdict.PARTLY)])
    def test_few_restarts_cannot_say_that_it_is_the_same(
        self, seeds: int, verdict: Verdict, actmax: Actmax, toy: str
    ) -> None:
        """All are the same, but so few leave a lower limit of 0.05^(1/R) < 0.5."""
        row = row_of(actmax, toy, *ONE_OPTIMUM, "unit.index=0", f"seeds='0:{seeds}'", "hydra.run.dir=job")
        assert row["shared_tokens"] == 1
        assert row["kappa_tokens_low"] == pytest.approx(0.05 ** (1 / seeds))
        assert judged(row) == (verdict, Answer.PARTLY)

    @pytest.mark.slow
    def test_is_reproducible_over_a_sweep(self, actmax: Actmax, toy: str, tmp_path: Path) -> None:
        found = sweep_of(actmax, tmp_path, toy, *ONE_OPTIMUM, "unit.index=0,1,2", "seeds='0:6'")
        assert found["verdict"].iloc[0] == Verdict.REPRODUCIBLE
        assert set(found["own"]) == {OwnStatus.OK}


class TestAFaintDirection:
    @several_seeds
    def test_that_tokens_are_blind_to_is_detected(self, seeds: int, actmax: Actmax, faint: str) -> None:
        row = row_of(actmax, faint, *FAINT, "unit.index=0", f"seeds='0:{seeds}'", "hydra.run.dir=job")
        assert 0.03 < row["direction"] < 0.08
        assert judged(row) == (Verdict.DETECTABLE, Answer.NO)
        assert (row["verdict_tokens"], row["verdict_embeddings"]) == (Verdict.CHANCE, Verdict.DETECTABLE)
        assert row["init_retention"] == 1  # no token has moved
        assert row["gap"] == GapEnd.SNAP

    @several_seeds
    def test_is_not_seen_where_there_is_none(self, seeds: int, actmax: Actmax, faint: str) -> None:
        unit = f"unit.index={WITHOUT + 50}"
        row = row_of(actmax, faint, *FAINT, unit, f"seeds='0:{seeds}'", "hydra.run.dir=job")
        assert abs(row["direction"]) < 0.03
        assert judged(row) == (Verdict.CHANCE, Answer.NO)
        assert row["displacement_mean"] > 0.1  # the restarts do move, each its own way

    def test_is_not_seen_without_other_units(self, actmax: Actmax, faint: str) -> None:
        job = (*FAINT, "unit.index=0", "seeds='0:10'", "hydra.run.dir=job")
        row = row_of(actmax, faint, *job, "controls=0")
        assert row["verdict_embeddings"] == Verdict.NOT_JUDGED
        assert judged(row) == (Verdict.CHANCE, Answer.NO)  # that of its tokens

    @pytest.mark.slow
    def test_is_detected_over_a_sweep(self, actmax: Actmax, faint: str, tmp_path: Path) -> None:
        units = f"unit.index=0,1,{WITHOUT + 50}"
        found = sweep_of(actmax, tmp_path, faint, *FAINT, units, "seeds='0:10'")
        assert found["verdict"].tolist() == [Verdict.DETECTABLE, Verdict.DETECTABLE, Verdict.CHANCE]


class TestOneAttractorForAllUnits:
    @several_seeds
    def test_is_shared_with_other_units(self, seeds: int, actmax: Actmax, toy: str) -> None:
        row = row_of(actmax, toy, *ONE_ATTRACTOR, "unit.index=0", f"seeds='0:{seeds}'", "hydra.run.dir=job")
        assert judged(row) == (Verdict.SHARED, Answer.NO)
        assert (row["verdict_tokens"], row["verdict_embeddings"]) == (Verdict.SHARED, Verdict.SHARED)
        assert row["kappa_tokens_low"] > 0.1  # the tokens alone would have been called the same, at least partly
        assert row["null_own_tokens_p"] == 1

    def test_is_one_units_own_where_the_others_differ(self, actmax: Actmax, toy: str) -> None:
        """Block 0 has neurons of all kinds: what other units have in common decides, not how much restarts agree."""
        other = (*ONE_ATTRACTOR, "unit.layer=0", "unit.index=0", "seeds='0:6'", "hydra.run.dir=job")
        assert row_of(actmax, toy, *other)["verdict_embeddings"] == Verdict.REPRODUCIBLE

    def test_is_not_judged_where_no_other_unit_was_tested(self, actmax: Actmax, toy: str) -> None:
        job = (*ONE_ATTRACTOR, "unit.index=0", "seeds='0:6'", "hydra.run.dir=job")
        row = row_of(actmax, toy, *job, "controls=0")
        assert judged(row) == (Verdict.NOT_JUDGED, Answer.UNKNOWN)

    @pytest.mark.slow
    def test_is_shared_over_a_sweep(self, actmax: Actmax, toy: str, tmp_path: Path) -> None:
        found = sweep_of(actmax, tmp_path, toy, *ONE_ATTRACTOR, "unit.index=0,1,2", "seeds='0:6'")
        assert found["verdict"].tolist() == [Verdict.SHARED] * 3
        assert set(found["own"]) == {OwnStatus.OK}


class TestNothing:
    @several_seeds
    def test_is_not_above_chance(self, seeds: int, actmax: Actmax, toy: str) -> None:
        row = row_of(actmax, toy, *NOTHING, "unit.index=8", f"seeds='0:{seeds}'", "hydra.run.dir=job")
        assert judged(row) == (Verdict.CHANCE, Answer.NO)
        assert row["gap"] == GapEnd.NO_GAIN

    def test_a_neuron_that_sees_something_gains(self, actmax: Actmax, toy: str) -> None:
        row = row_of(actmax, toy, *NOTHING, "unit.index=0", "seeds='0:6'", "hydra.run.dir=job")
        assert row["gap"] != GapEnd.NO_GAIN
        assert row["verdict_embeddings"] == Verdict.REPRODUCIBLE

    @pytest.mark.slow
    def test_is_not_above_chance_over_a_sweep(self, actmax: Actmax, toy: str, tmp_path: Path) -> None:
        found = sweep_of(actmax, tmp_path, toy, *NOTHING, "unit.index=8,9,10", "seeds='0:6'")
        assert found["verdict"].tolist() == [Verdict.CHANCE] * 3
