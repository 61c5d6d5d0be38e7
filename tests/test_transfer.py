"""Tokens in other contexts: planted units that work in one context alone, level, and an independent recomputation."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from scipy import stats

from actmax.api import load as open_model
from actmax.api import wrap
from actmax.evidence.readings import Transfer
from actmax.evidence.transfer import Carriage, Carried, carry, first_position
from actmax.model.context import Context
from actmax.model.objective import Objective
from actmax.model.settings import GapSettings
from actmax.model.subject import Subject, load
from actmax.model.target import Unit
from actmax.report.words import sink_statement, transfer_statement
from actmax.tasks.result import Result
from cli import QUICK, Actmax

SCRIPT = Path(__file__).parents[1] / "scripts" / "transfer_reference.py"
SMALL: dict[str, Any] = {
    "nulls": {"draws": 299, "displacements": 20},
    "gap": {"draws": 400},
    "transfer": {"draws": 400},
    "controls": 0,
    "progress": False,
}
TOKENS = (65, 70, 75)
"""The tokens that a planted unit answers to."""
WORD = 33
"""The token that stands in the prefix of a planted unit."""


def planted(*, position: bool) -> Subject:
    """A tiny GPT-2 whose neuron `mlp_post.0[5]` needs one of `TOKENS` and either the first position, or `WORD` before.

    The tokens have dim 0, the first position (or, through attention, the word) gives the other dim; behind the norm
    either alone stays below the neuron's threshold.
    """
    sizes = {"model_type": "gpt2", "n_layer": 2, "n_embd": 24, "n_head": 1, "n_positions": 32}
    subject = load(name="planted", source="random", architecture=sizes, dtype="float64")
    base: Any = subject.base
    block = base.h[0]
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        base.wte.weight.copy_(0.01 * torch.randn(base.wte.weight.shape, generator=noise, dtype=torch.float64))
        base.wte.weight[list(TOKENS), 0] = 1.0
        base.wte.weight[WORD, 2] = 1.0
        base.wpe.weight.zero_()
        base.wpe.weight[0, 3] = 1.0 if position else 0.0
        for part in (block.attn.c_attn, block.attn.c_proj):
            part.weight.zero_()
            part.bias.zero_()
        block.attn.c_attn.weight[2, 48] = 1.0  # value dim 0 is dim 2 of the norm, where the word is
        block.attn.c_proj.weight[0, 3] = 0.0 if position else 1.0
        block.mlp.c_fc.weight[:, 5] = 0.0
        block.mlp.c_fc.weight[[0, 3], 5] = 3.0
        block.mlp.c_fc.bias[5] = -3.0 * 5.5
    return subject


def asked(subject: Subject, **options: Any) -> Result:
    lm = wrap(subject.model, subject.tokenizer, name="planted")
    options = {"seeds": 6, "passes": 300, "search": {"candidates": 60, "top_k": 60}, **SMALL} | options
    return lm.search("mlp_post.0[5]", reduction="max", **options)


class TestPlanted:
    def test_a_unit_of_the_first_position_is_found_without_context_and_dead_elsewhere(self) -> None:
        found = asked(planted(position=True), context="none")
        (row,) = found.table("units").to_dict("records")
        assert row["activation_final_mean"] > 2.5
        assert (row["transfer"], row["transfer_own"]) == (Transfer.NOWHERE, "none")
        elsewhere = found.table("transfer").query("not own")
        assert set(elsewhere["context"]) == {"bos", "text"}
        assert float(np.max(elsewhere["activation"])) < 0.1
        assert "do not carry over" in transfer_statement(row)
        firsts = found.table("tokens").query("position == 0")["token_id"]
        assert set(firsts) <= set(TOKENS)

    def test_one_that_needs_no_position_carries(self) -> None:
        subject = planted(position=True)
        base: Any = subject.base
        with torch.no_grad():
            base.wpe.weight.zero_()
            base.h[0].mlp.c_fc.bias[5] = -3.0 * 3.0  # the token alone is enough
        (row,) = asked(subject, context="none", passes=100).table("units").to_dict("records")
        assert row["transfer_bos_mean"] > 2.5
        assert row["transfer"] == Transfer.EVERYWHERE
        assert "They work elsewhere" in transfer_statement(row)

    def test_a_unit_that_needs_a_word_of_the_prefix_is_found_behind_it_alone(self) -> None:
        subject = planted(position=False)
        word = subject.token(WORD)
        behind = asked(subject, context={"name": "prefix", "text": word}, tokens=1)
        without = asked(subject, context={"name": "prefix", "text": "x"}, tokens=1)
        values = [one.table("units")["activation_final_mean"].item() for one in (behind, without)]
        assert values[0] > 1.0 > 0.1 > values[1]
        assert set(behind.table("tokens")["token_id"]) <= set(TOKENS)
        (row,) = behind.table("units").to_dict("records")
        assert row["transfer"] == Transfer.NOWHERE
        assert row["transfer_own"] is None


class TestRule:
    RANDOM = np.random.default_rng(0).normal(1.0, 2.0, size=2000)

    def carried(self, z: float, spread: float = 0.5, *, sign: Any = "maximize", own: bool = False) -> Carried:
        """Restarts that are `z` standard deviations of random tokens beyond them, on average."""
        noise = spread * np.linspace(-1, 1, 8)
        away = (z + noise) * self.RANDOM.std(ddof=1) * (1 if sign == "maximize" else -1)
        return Carried(self.RANDOM.mean() + away, self.RANDOM, own, sign)

    def carriage(self, *z: float, own: float = 8.0, **options: Any) -> Carriage:
        tried = {name: self.carried(value, **options) for name, value in zip(("bos", "text"), z, strict=False)}
        found = self.carried(own, own=True, **options)
        return Carriage(found, {"none": found, **tried}, 0.01)

    @pytest.mark.parametrize("sign", ["maximize", "minimize"])
    def test_z_and_share_count_beyond_random_tokens_on_the_side_looked_for(self, sign: str) -> None:
        one = self.carriage(6.0, sign=sign)
        assert one.contexts["bos"].z.mean() == pytest.approx(6.0)
        assert one.share("bos").value == pytest.approx(0.75)
        assert one.contexts["bos"].null.p < 1e-4
        assert self.carried(-6.0, sign=sign).null.p == 1.0

    def test_the_share_has_the_jackknife_interval_of_a_ratio(self) -> None:
        """Against the delta method, which it agrees with where restarts vary little."""
        rng = np.random.default_rng(3)
        here, there = rng.normal(8, 0.5, 40), rng.normal(5, 0.5, 40)
        own, other = (Carried(self.RANDOM.mean() + z * self.RANDOM.std(ddof=1), self.RANDOM) for z in (here, there))
        share = Carriage(own, {"bos": other}, 0.01).share("bos")
        ratio = there.mean() / here.mean()
        error = np.std(there - ratio * here, ddof=1) / np.sqrt(40) / here.mean()
        assert share.value == pytest.approx(ratio)
        assert (share.high - share.low) / 2 == pytest.approx(stats.t.ppf(0.975, 39) * error, rel=0.05)

    @pytest.mark.parametrize(
        ("z", "expected"),
        [
            ((7.0, 6.0), Transfer.EVERYWHERE),
            ((7.0, 1.0), Transfer.IN_PART),  # beyond random ones, and not half of it
            ((7.0, 0.0), Transfer.IN_PART),
            ((4.05, 0.0), Transfer.NOWHERE),  # half, and the interval reaches below
            ((0.0, 0.0), Transfer.NOWHERE),
        ],
    )
    def test_readings(self, z: tuple[float, float], expected: Transfer) -> None:
        one = self.carriage(*z)
        assert (one.reading, one.alpha) == (expected, 0.025)
        assert one.flat()["transfer"] == expected
        assert one.flat()["transfer_own"] == "none"

    def test_what_is_not_beyond_random_tokens_where_it_was_found_carries_nothing(self) -> None:
        assert self.carriage(0.0, 0.0, own=0.1).reading == Transfer.NOTHING
        assert self.carriage(9.0, 9.0, own=0.1).reading == Transfer.NOTHING

    def test_takes_three_restarts_and_other_contexts(self) -> None:
        assert self.carriage().reading == Transfer.NOT_TESTED
        two = Carried(self.RANDOM.mean() + np.array([20.0, 22.0]), self.RANDOM)
        assert Carriage(two, {"bos": two}, 0.01).reading == Transfer.NOT_TESTED

    def test_restarts_that_all_found_the_same_have_a_share_without_width(self) -> None:
        one = self.carriage(8.0, 8.0, spread=0.0)
        assert one.share("bos").low == one.share("bos").high == pytest.approx(1.0)
        assert one.reading == Transfer.EVERYWHERE

    @pytest.mark.parametrize("restarts", [5, 8, 12])
    def test_the_shares_interval_covers(self, restarts: int) -> None:
        """Nominal 95 %; restarts differ in how strong they are, and in how much of it each keeps."""
        rng, covered, too_high = np.random.default_rng(4), 0, 0
        for _ in range(800):
            here = rng.normal(8, 2, restarts)
            there = 0.5 * here + rng.normal(0, 1, restarts)
            own, other = (Carried(self.RANDOM.mean() + z * self.RANDOM.std(ddof=1), self.RANDOM) for z in (here, there))
            share = Carriage(own, {"bos": other}, 0.01).share("bos")
            covered += share.low <= 0.5 <= share.high
            too_high += share.low > 0.5
        assert 0.92 < covered / 800 < 0.98
        assert too_high / 800 < 0.045  # nominal 2.5 %: called at least half though it is half

    @pytest.mark.parametrize("kind", ["normal", "skewed"])
    def test_level(self, kind: str) -> None:
        """Tokens that do what random ones do are called beyond them as often as the level says."""
        rng, claimed = np.random.default_rng(2), 0
        draw = rng.standard_normal if kind == "normal" else lambda size: rng.exponential(size=size) ** 1.5
        for _ in range(600):
            claimed += Carried(draw(8), draw(2000)).null.p <= 0.05
        assert 0.01 < claimed / 600 < 0.07  # the bootstrap is on the safe side where few draws make the tail


class TestSink:
    def test_two_norms_of_random_tokens(self, subject: Subject) -> None:
        first, later = first_position(subject, ("resid_pre", 2))
        assert 0 < first < 5 * later

    def test_is_said_from_five_times_on(self) -> None:
        row = {"site": "resid_pre", "layer": 8, "first_norm": 812.4, "later_norm": 130.2}
        assert "the norm at resid_pre.8 is 812 there and 130 later" in sink_statement(row)
        assert "context=bos" in sink_statement(row)
        assert sink_statement(row | {"later_norm": 170.0}) == ""
        assert sink_statement({"site": "resid_pre", "layer": 8}) == ""

    def test_only_where_nothing_stands_before(self) -> None:
        subject = planted(position=True)
        for context, missing in (("none", False), ("bos", True)):
            (row,) = asked(subject, context=context, passes=60).table("units").to_dict("records")
            assert np.isnan(row["first_norm"]) == missing


def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("transfer_reference", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "overrides",
    [
        ("unit.layer=2", "unit.index=[3,4]", "seeds='0:3'", "steps=5"),
        ("task=search", "unit=neuron", "unit.site=mlp_post", "unit.layer=1", "unit.index=5", "search.passes=60"),
        ("task=search", "unit.layer=3", "unit.index=5", "search.passes=60", "objective.reduction=max", "context=text"),
    ],
)
def test_transformers_alone_gives_every_activation(actmax: Actmax, overrides: tuple[str, ...]) -> None:
    ran = actmax("subject=tiny", "subject.dtype=float64", *QUICK, *overrides, "hydra.run.dir=job")
    assert ran.code == 0, ran.err
    model: Any = load(
        name="tiny", source="random", architecture=_architecture(ran.folder / "job"), dtype="float64"
    ).model
    table = reference().recomputed(ran.folder / "job", model)
    assert (table["recomputed"] - table["activation"]).abs().max() < 1e-9
    assert {"none", "bos", "text"} == set(table["context"])
    around = pd.read_parquet(ran.folder / "job/surroundings.parquet")
    wrong = around.assign(before_ids=[[1, *ids[1:]] if len(ids) else ids for ids in around["before_ids"]])
    wrong.to_parquet(ran.folder / "job/surroundings.parquet")
    other = reference().recomputed(ran.folder / "job", model).query("context != 'none'")
    assert (other["recomputed"] - other["activation"]).abs().max() > 1e-4


def _architecture(record: Path) -> dict[str, Any]:
    return yaml.safe_load((record / "config.yaml").read_text())["subject"]["architecture"]


@pytest.mark.slow
def test_transformers_alone_gives_every_activation_of_a_real_model(actmax: Actmax) -> None:
    quick = ("gap.draws=100", "transfer.draws=100", "controls=0", "logger=none", "page=false", "nulls.draws=299")
    asked_for = ("task=search", "subject=smollm2", "seeds='0:4'", "search.passes=300", *quick)
    ran = actmax(*asked_for, "hydra.run.dir=job")
    assert ran.code == 0, ran.err
    subject = open_model("smollm2").subject
    table = reference().recomputed(ran.folder / "job", subject.model)
    assert (table["recomputed"] - table["activation"]).abs().max() < 1e-4 * table["activation"].abs().max()


def test_windows_that_the_tokens_were_found_in_are_not_tried_again(actmax: Actmax) -> None:
    ran = actmax("subject=tiny", *QUICK, "unit.layer=2", "unit.index=3", "steps=3", "context=text", "hydra.run.dir=job")
    assert ran.code == 0, ran.err
    around = pd.read_parquet(ran.folder / "job/surroundings.parquet")
    own = around.query("own")
    tried = around.query("not own and context == 'text'")
    assert (len(own), len(tried)) == (8, 4)
    assert not set(map(tuple, own["before_ids"])) & set(map(tuple, tried["before_ids"]))


def test_the_mean_over_several_surroundings_is_what_counts(subject: Subject) -> None:
    unit, ids = Unit("resid_pre", 2, 7), torch.tensor([[1, 2, 3], [4, 5, 6]])
    both, own = Context("text", ((9, 8), (7, 6))), Carried(np.ones(2), np.zeros(2))
    options: dict[str, Any] = {"settings": GapSettings(50, 0), "alpha": 0.01}
    found = [
        carry(subject, Objective(), {unit: (ids, own)}, [context], **options)[unit].contexts["text"]
        for context in (both, Context("text", both.before[:1]), Context("text", both.before[1:]))
    ]
    for name in ("activation", "random"):
        whole, one, two = (getattr(some, name) for some in found)
        assert np.allclose(whole, (one + two) / 2, atol=1e-12)
        assert not np.allclose(whole, one, atol=1e-6)
