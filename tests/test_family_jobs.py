"""The main job, a search behind begin-of-text and a small tuning run on a tiny model of every family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from actmax.api import LanguageModel
from actmax.model.subject import Subject, load
from actmax.model.target import Direction
from test_directions import assert_same_tables
from test_families import block_of, shaken
from tiny_families import D_MODEL, TINY

pytestmark = pytest.mark.slow

LAYER, DIM, BOS = 1, 5, 256
SMALL = {
    "nulls": {"draws": 299, "displacements": 20},
    "gap": {"draws": 40},
    "transfer": {"draws": 40},
    "meaning": {"embedder": "none"},
    "controls": 0,
    "progress": False,
}
WORDS = "word,category\n" + "".join(f"{a}{b},{'x' if a < 'e' else 'y'}\n" for a in "abcdefgh" for b in "rstu")


@pytest.fixture(scope="module", params=TINY)
def lm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACTMAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        spec = {"name": request.param, "source": "random", "architecture": {"model_type": request.param}}
        spec["architecture"] |= TINY[request.param]
        subject = load(**spec)
        shaken(subject.model)
        yield LanguageModel(subject, spec)


def stream_behind(subject: Subject, ids: list[list[int]], before: list[int]) -> torch.Tensor:
    """resid_post of the block by the model itself, from ids, at the positions behind `before`."""
    found: list[torch.Tensor] = []
    block = block_of(subject.model, subject.name, LAYER)
    hook = block.register_forward_hook(lambda _, __, out: found.append(out[0] if isinstance(out, tuple) else out))
    with torch.no_grad():
        subject.model(input_ids=torch.tensor([before + one for one in ids]), use_cache=False)
    hook.remove()
    return found[0][:, len(before) :, DIM]


def sequences(table: pd.DataFrame) -> list[list[int]]:
    return [rows.sort_values("position")["token_id"].tolist() for _, rows in table.groupby("seed")]


def test_a_maximization(lm: LanguageModel) -> None:
    found = lm.maximize(f"resid_post.{LAYER}[{DIM}]", seeds=3, steps=20, tokens=3, **SMALL)
    rows = found.restarts
    assert (rows["activation_final"] > rows["activation_initial"]).all()
    assert (rows["displacement"] > 0).all()
    assert found.summary["answer"]


def test_a_search_behind_begin_of_text(lm: LanguageModel) -> None:
    """What it says of its tokens is what the model itself gives for them."""
    found = lm.search(f"resid_post.{LAYER}[{DIM}]", seeds=3, tokens=3, passes=60, context="bos", **SMALL)
    rows = found.restarts.sort_values("seed")
    assert (rows["activation_final"] >= rows["activation_initial"]).all()
    own = stream_behind(lm.subject, sequences(found.tokens), [BOS]).mean(1)
    assert rows["activation_final"].tolist() == pytest.approx(own.tolist(), rel=1e-3, abs=1e-4)
    bare = stream_behind(lm.subject, sequences(found.tokens), []).mean(1)
    assert rows["activation_final"].tolist() != pytest.approx(bare.tolist(), rel=1e-3, abs=1e-4)


def test_a_direction_that_is_a_coordinate_gives_its_record(lm: LanguageModel) -> None:
    unit, asked = f"resid_post.{LAYER}[{DIM}]", {"seeds": 2, "tokens": 3, **SMALL}
    direction = Direction("resid_post", LAYER, np.eye(D_MODEL)[DIM], name="one")
    assert_same_tables(lm.maximize(unit, steps=8, **asked), lm.maximize(direction, steps=8, **asked))
    assert_same_tables(lm.search(unit, passes=60, **asked), lm.search(direction, passes=60, **asked))


def test_a_tuning_run(lm: LanguageModel, tmp_path: Path) -> None:
    (tmp_path / "words.csv").write_text(WORDS)
    quick = {"splits": 2, "permutations": 20, "folds": 2}
    found = lm.tune(tmp_path / "words.csv", sites=("resid_post",), layers=[LAYER], progress=False, tuning=quick)
    words = [line.split(",") for line in WORDS.split()[1:]]
    ids = [lm.subject.tokens(f" {word}") for word, _ in words]  # as in the middle of a text
    means = stream_behind(lm.subject, ids, [BOS])[:, -1]
    groups = [torch.stack([one for one, (_, kind) in zip(means, words, strict=True) if kind == name]) for name in "xy"]
    table = found.tuning
    row = table[table["index"] == DIM].iloc[0]
    expected = [float(group.double().mean()) for group in groups]
    assert [row["mean_0"], row["mean_1"]] == pytest.approx(expected, rel=1e-3, abs=1e-4)
