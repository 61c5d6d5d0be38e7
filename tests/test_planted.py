"""Subjects whose truth is known, through the whole command: the verdict and the decode gap say it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from actmax.evidence.readings import VERDICTS, GapEnd, OwnStatus, Verdict
from actmax.model.subject import load
from cli import QUICK, Actmax

TOKENS, EMBEDDINGS, NOT_OWN, CHANCE = VERDICTS
TOY = {"model_type": "gpt2", "n_layer": 1, "n_embd": 24, "n_head": 4, "n_positions": 16}
SEEDS = "seeds='0:6'"
RUN = ("subject=tiny", "subject.dtype=float64", "tokens=3", "nulls.pool=1000", "nulls.displacements=99", *QUICK[1:2])
UNITS = "unit.index='0:3'"
BEST = (100, 101, 102)
BLIND = range(20, 24)
"""The token embeddings have no part in these dimensions."""


@pytest.fixture
def toy(tmp_path: Path) -> str:
    """One block; tokens 100 to 102 stand out in dims 0 to 2; neurons 0 to 7 are the same, 8 to 10 see nothing."""
    subject = load(name="toy", source="random", architecture=TOY, dtype="float64")
    model: Any = subject.model
    with torch.no_grad():
        model.transformer.wte.weight[:, list(BLIND)] = 0
        for dim, token in enumerate(BEST):
            model.transformer.wte.weight[token, dim] = 0.2
        into = model.transformer.h[0].mlp.c_fc.weight  # (d_model, neurons)
        into[:, :8] = into[:, :1]
        into[:, 8:11] = 0
    subject.model.save_pretrained(tmp_path / "toy")
    subject.tokenizer.save_pretrained(tmp_path / "toy")
    return f"subject.path={tmp_path / 'toy'}"


def units(job: Path) -> pd.DataFrame:
    return pd.read_parquet(job / "units.parquet")


def test_one_known_optimum_converges_in_tokens_and_survives_the_snap(actmax: Actmax, toy: str) -> None:
    """resid_pre of layer 0 is the embedding itself: the best mixture of tokens is the token with the largest entry."""
    mixture = ("prior=simplex", "prior.simplex.temperature=0.1", "optimizer.lr=0.05", "steps=150")
    ran = actmax(*RUN, toy, "unit.site=resid_pre", "unit.layer=0", UNITS, SEEDS, *mixture)
    assert ran.code == 0, ran.err
    found = units(ran.job)
    assert found["convergence"].tolist() == [TOKENS] * 3
    assert found["own"].tolist() == [OwnStatus.OK] * 3
    assert (found["kept_snapped"] > 0.99).all()  # the tokenizer may still lose it: not every byte is a text
    assert GapEnd.SNAP not in found["gap"].tolist()
    tokens = pd.read_parquet(ran.job / "tokens.parquet")
    assert [set(rows["token_id"]) for _, rows in tokens.groupby("index")] == [{token} for token in BEST]


def test_one_direction_that_tokens_are_blind_to_is_half_way(actmax: Actmax, toy: str) -> None:
    blind = ("unit.site=resid_pre", "unit.layer=0", f"unit.index='{BLIND.start}:{BLIND.stop}'")
    ran = actmax(*RUN, toy, *blind, SEEDS, "optimizer.lr=0.01", "steps=40")
    assert ran.code == 0, ran.err
    found = units(ran.job)
    assert found["convergence"].tolist() == [EMBEDDINGS] * 4
    assert found["init_retention"].tolist() == [1.0] * 4  # no token has moved
    assert found["gap"].tolist() == [GapEnd.SNAP] * 4


@pytest.mark.slow
def test_an_attractor_of_all_units_is_not_one_units_own(actmax: Actmax, toy: str, tmp_path: Path) -> None:
    """Each unit is a job of its own: alone it converges, beside the others of the sweep it is not its own."""
    same = ("unit.site=mlp_pre", "unit.layer=0", SEEDS, "optimizer.lr=0.01", "steps=40", "sweep=s")
    ran = actmax("-m", *RUN, toy, *same, "unit.index=0,1,2")
    assert ran.code == 0, ran.err
    alone = [json.loads((job / "summary.json").read_text())["convergence"] for job in ran.jobs]
    assert set(alone) <= {TOKENS, EMBEDDINGS}
    together = pd.read_parquet(tmp_path / "outputs/s/units.parquet")
    assert together["convergence"].tolist() == [NOT_OWN] * 3
    assert set(together["own"]) == {OwnStatus.OK}


def test_neurons_that_see_nothing_converge_to_nothing(actmax: Actmax, toy: str) -> None:
    nothing = ("unit.site=mlp_pre", "unit.layer=0", "unit.index='8:11'")
    ran = actmax(*RUN, toy, *nothing, SEEDS, "steps=10")
    assert ran.code == 0, ran.err
    found = units(ran.job)
    assert set(found["convergence"]) <= {CHANCE, Verdict.NOT_AVAILABLE}
    assert set(found["gap"]) == {GapEnd.NO_GAIN}
