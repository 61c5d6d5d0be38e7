"""task=check: the identities of a model as a table, and which sites are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from actmax.model import identities
from actmax.model.families import FAMILIES, Family
from actmax.model.subject import byte_tokenizer
from cli import Actmax, Ran
from test_identities import model_of

NAMES = ("resid_pre + attn_out + mlp_out = resid_post", "turning v of a head turns z of the heads that read it")


def summary(ran: Ran) -> Any:
    return json.loads((ran.job / "summary.json").read_text())


def test_the_table_of_a_model_whose_identities_hold(actmax: Actmax) -> None:
    ran = actmax("task=check", "subject=tiny", "logger=none")
    assert ran.code == 0, ran.err
    for name in NAMES:
        assert name in ran.out
    assert "All 12 sites of tiny are what their names say." in ran.out
    rows = pd.read_parquet(ran.job / "identities.parquet")
    assert list(rows.columns) == ["identity", "sites", "difference", "tolerance", "passed"]
    assert rows["passed"].all()
    assert set(", ".join(rows["sites"]).replace(", ", " ").split()) == set(summary(ran)["sites"])


def test_a_model_in_which_one_does_not(actmax: Actmax, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = FAMILIES["gpt2"]
    wrong = Family(entry.blocks, entry.final_norm, {**entry.taps, "v": entry.taps["k"]})
    monkeypatch.setitem(FAMILIES, "gpt2", wrong)
    monkeypatch.setattr(identities, "_code", lambda: "planted")
    ran = actmax("task=check", "subject=tiny", "subject.seed=7", "logger=none")
    assert ran.code == 0, ran.err
    found = summary(ran)
    assert list(found["refused"]) == ["v"]
    assert "v" not in found["sites"]
    assert "1 of 14 identities do not hold in tiny. Refused: v." in " ".join(ran.out.split())
    rows = pd.read_parquet(ran.job / "identities.parquet").set_index("identity")
    assert not rows.loc[NAMES[1], "passed"]
    assert rows.loc[NAMES[1], "difference"] > 0.01
    refused = actmax("subject=tiny", "subject.seed=7", "unit.site=v", "unit.layer=1", "unit.index=0")
    assert refused.code == 2
    assert "unit.site=v: is not what its name says in this gpt2: turning v" in refused.err


def test_a_family_that_is_not_known(actmax: Actmax, tmp_path: Path) -> None:
    model_of("seed_oss").save_pretrained(tmp_path / "model")
    byte_tokenizer().save_pretrained(tmp_path / "model")
    ran = actmax("task=check", "subject=hub", f"subject.path={tmp_path / 'model'}", "subject.name=new", "logger=none")
    assert ran.code == 0, ran.err
    assert "Its family, seed_oss, is not known; it is read as llama." in " ".join(ran.out.split())
