"""Directions wherever a unit stands: a coordinate's record bit for bit, planted ones found, files, logits, controls."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy import ndarray
from safetensors.numpy import load_file, save_file
from sklearn.linear_model import LogisticRegression

import actmax
from actmax.api import LanguageModel
from actmax.errors import InputError
from actmax.model.directions import read_directions
from actmax.model.target import Direction, Unit, names_in, read_own, target_of_row
from actmax.records.store import Record
from actmax.report.blocks import Page, Table
from actmax.stats.layers import ridge_logistic
from actmax.tasks.targets import targets_of
from cli import QUICK
from cli import Actmax as Command

SMALL: dict[str, Any] = {
    "nulls": {"draws": 299, "displacements": 20},
    "gap": {"draws": 40},
    "transfer": {"draws": 40},
    "progress": False,
}
FAMILIES = {
    "gpt2": {"model_type": "gpt2", "n_layer": 3, "n_embd": 24, "n_head": 4, "n_positions": 48},
    "gpt_neox": {
        "model_type": "gpt_neox",
        "num_hidden_layers": 3,
        "hidden_size": 24,
        "num_attention_heads": 4,
        "intermediate_size": 96,
        "max_position_embeddings": 48,
    },
    "llama": {
        "model_type": "llama",
        "num_hidden_layers": 3,
        "hidden_size": 24,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 40,
        "max_position_embeddings": 48,
    },
}
DIRECTION = ("unit.layer=2", "unit.direction=f.safetensors")
WRONG_DIRECTIONS = [
    ("width", ("unit.index=0",), ["unit.direction", "has 7 numbers", "96 wide"]),
    ("nan", ("unit.index=1",), ["unit.direction", "NaN"]),
    ("zero", ("unit.index=1",), ["unit.direction", "zeros"]),
    ("good", ("unit.index=3",), ["unit.index=3", "0 to 2"]),
    ("good", ("unit.name=verbs",), ["unit.name=verbs", "verb, noun, other"]),
    ("twice", ("unit.index=0",), ["unit.direction", "two are called 'verb'"]),
    ("text", ("unit.index=0",), ["unit.direction", "safetensors"]),
    ("cut", ("unit.index=0",), ["unit.direction", "whole safetensors"]),
    ("pickle", ("unit.index=0",), ["unit.direction", "safetensors"]),
    ("place", ("unit.index=0",), ["unit.direction", "resid_post.9"]),
    ("tensors", ("unit.index=0",), ["unit.direction", "weight"]),
    ("long bias", ("unit.name=verb",), ["unit.direction", "one number under verb.bias"]),
    ("lone bias", ("unit.name=verb",), ["unit.direction", "one number under nuon.bias", "vector nuon"]),
    ("folder", ("unit.index=0",), ["unit.direction", "no file"]),
    ("none", ("unit.index=0",), ["unit.direction", "not there"]),
    ("good", ("unit.index=0", "unit.layer=99"), ["unit.layer=99"]),
    ("good", ("unit.index=0", "unit.logit=a"), ["unit.logit", "cannot stand beside"]),
    ("good", ("unit.index=0", "controls=7", "unit.against=rows"), ["unit.against=rows", "too few"]),
]
"""What is wrong with a file of directions or with what is asked of it (`write_directions`); words of the error."""
WRONG_LOGITS = [
    (("unit.logit=ab",), ["unit.logit=ab", "must be one token", "'a', 'b'"]),
    (("unit.logit=a", "unit.minus=xyz"), ["unit.minus=xyz", "must be one token"]),
    (("unit.logit=a", "unit.minus=a"), ["unit.minus=a", "another token than the one whose logit is read"]),
    (("unit.minus=a",), ["unit.minus=a", "belongs to unit.logit"]),
    (("unit.logit=a", "unit.sae=x"), ["unit.logit", "cannot stand beside"]),
    (("unit.target='logit:a-b-c'",), ["unit.target", "one hyphen"]),
    (("unit.target='logit:'",), ["unit.target"]),
]
"""Logits of what is no token, and words of the error."""
WRONG_LATENTS = [
    (("unit.index=32",), ["unit.index=32", "0 to 31"]),
    (("unit.index=0", "subject.architecture.n_embd=48"), ["unit.sae", "another model"]),
    (("unit.index=0", "unit.name=x"), ["unit.name=x", "belongs to unit.direction"]),
]
"""Latents that the planted autoencoder lacks (`write_autoencoder`), and words of the error."""


def random_model(name: str, dtype: str = "float64") -> LanguageModel:
    from actmax.model.subject import load

    settings = {"name": name, "source": "random", "architecture": FAMILIES[name], "dtype": dtype}
    return LanguageModel(load(**settings), settings)


@pytest.fixture(
    scope="module",
    params=[name if name == "gpt2" else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES],
)
def family(request: pytest.FixtureRequest) -> LanguageModel:
    return random_model(request.param)


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return random_model("gpt2")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    rng = np.random.default_rng(5)
    words = ["".join(rng.choice(list("abcdefghij"), 4)) for _ in range(800)]
    (tmp_path / "text.txt").write_text(" ".join(words))
    return tmp_path / "text.txt"


def one_hot(width: int, index: int) -> ndarray:
    return np.eye(width)[index]


def width_of(lm: LanguageModel, site: str) -> int:
    return lm.subject.geometry.width(site)


def assert_same_tables(of_unit: actmax.Result, of_direction: actmax.Result) -> None:
    """Every table value by value, but for what an address is."""
    assert set(of_direction.tables) - {"targets"} == set(of_unit.tables)
    for name in of_unit.tables:
        tables = [found.table(name) for found in (of_unit, of_direction)]
        ours = [
            one.drop(columns=[column for column in (*names_in(one), "unit", "of") if column in one]) for one in tables
        ]
        pd.testing.assert_frame_equal(*ours, check_exact=True, obj=name)


def write_directions(kind: str, file: Path) -> None:
    """Writes a file of three directions of 96 numbers; every kind but `good` has something wrong."""
    rows = np.random.default_rng(9).normal(size=(3, 96))
    names = {"names": json.dumps(["verb", "noun", "other"])}
    rows[1] = {"nan": np.nan, "zero": 0.0}.get(kind, rows[1])
    makers: dict[str, Callable[[], object]] = {
        "width": lambda: save_file({"weight": rows[:, :7].copy()}, file),
        "twice": lambda: save_file({"weight": rows}, file, {"names": json.dumps(["verb", "verb", "x"])}),
        "text": lambda: file.write_text("weight"),
        "cut": lambda: (save_file({"weight": rows}, file), file.write_bytes(file.read_bytes()[:-9])),
        "pickle": lambda: torch.save({"weight": torch.ones(3, 96)}, file),
        "place": lambda: save_file({"resid_post.9/weight": rows}, file),
        "tensors": lambda: save_file({"coef": rows, "other": rows[0]}, file),
        "long bias": lambda: save_file({"verb": rows[0], "verb.bias": rows[0, :3].copy()}, file),
        "lone bias": lambda: save_file({"verb": rows[0], "noun": rows[1], "nuon.bias": rows[0, :1].copy()}, file),
        "folder": file.mkdir,
        "none": lambda: None,
    }
    makers.get(kind, lambda: save_file({"weight": rows}, file, names))()


def write_autoencoder(folder: Path) -> Path:
    """Encoder rows that are coordinates, so that a latent is a coordinate; JumpReLU with thresholds of 0.1."""
    rows = np.zeros((24, 32), dtype=np.float32)
    rows[np.arange(24), np.arange(24)] = 1
    rows[:, 24:] = np.random.default_rng(0).normal(size=(24, 8))
    config = {
        "architecture": "jumprelu",
        "d_in": 24,
        "d_sae": 32,
        "dtype": "float32",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "metadata": {"hook_name": "blocks.1.hook_resid_post", "model_name": "gpt2"},
    }
    tensors = {
        "W_enc": rows,
        "W_dec": rows.T.copy(),
        "b_enc": np.zeros(32, dtype=np.float32),
        "b_dec": np.ones(24, dtype=np.float32),
        "threshold": np.full(32, 0.1, dtype=np.float32),
    }
    folder.mkdir()
    (folder / "cfg.json").write_text(json.dumps(config))
    save_file(tensors, folder / "sae_weights.safetensors")
    return folder


class TestACoordinate:
    """A direction that is 1 at one coordinate and 0 elsewhere."""

    @pytest.mark.parametrize("site", ["resid_pre", "z"])
    def test_maximized_gives_the_units_record_bit_for_bit(self, site: str, family: LanguageModel) -> None:
        direction = Direction(site, 1, one_hot(width_of(family, site), 5), name="five")
        asked = {"seeds": 3, "steps": 8, "controls": 0, **SMALL}
        assert_same_tables(family.maximize(f"{site}.1[5]", **asked), family.maximize(direction, **asked))
        other = Direction(site, 1, one_hot(width_of(family, site), 6), name="five")
        with pytest.raises(AssertionError):  # the comparison can fail
            assert_same_tables(family.maximize(f"{site}.1[5]", **asked), family.maximize(other, **asked))

    @pytest.mark.parametrize("method", ["gcg", "epo"])
    def test_searched_likewise(self, method: str, family: LanguageModel) -> None:
        direction = Direction("resid_post", 1, one_hot(24, 7), name="seven")
        asked = {"method": method, "seeds": 2, "passes": 200, "controls": 0, "context": "none", **SMALL}
        asked |= {"search": {"candidates": 20, "top_k": 8}}
        assert_same_tables(family.search("resid_post.1[7]", **asked), family.search(direction, **asked))

    def test_examples_likewise(self, family: LanguageModel, text: Path) -> None:
        direction = Direction("resid_post", 1, one_hot(24, 7), name="seven")
        asked = {"context": "none", "top": 5, "progress": False, "examples": {"window": 16}}
        assert_same_tables(family.examples("resid_post.1[7]", text, **asked), family.examples(direction, text, **asked))

    def test_as_a_product_in_a_batch_with_others_too(self, lm: LanguageModel) -> None:
        g = np.random.default_rng(0)
        values = torch.from_numpy(g.normal(size=(3, 4, 24)))
        place = ("resid_pre", 1)
        some = Direction(*place, g.normal(size=24), name="some")
        found = read_own({place: values}, [Direction(*place, one_hot(24, 5)), some, Unit(*place, 5)])
        assert torch.equal(found[0], values[0, :, 5])
        assert torch.equal(found[2], values[2, :, 5])
        torch.testing.assert_close(found[1], values[1] @ torch.from_numpy(some.w.copy()))

    def test_is_no_coordinate_with_another_length_or_a_bias(self) -> None:
        assert Direction("z", 0, one_hot(8, 3)).coordinate == 3
        assert Direction("z", 0, 2 * one_hot(8, 3)).coordinate is None
        assert Direction("z", 0, one_hot(8, 3), 0.5).coordinate is None


class TestBatch:
    def test_kinds_mixed_in_a_batch_and_alone_agree(self, lm: LanguageModel) -> None:
        g = np.random.default_rng(1)
        some = [
            Direction("resid_pre", 2, g.normal(size=24), 0.3, name="a"),
            "mlp_post.0[3]",
            Direction("resid_pre", 2, g.normal(size=24), name="b"),
            "resid_pre.2[1]",
        ]
        asked = {"seeds": 2, "steps": 20, "controls": 0, **SMALL}
        together = lm.maximize(some, **asked).restarts
        for one in some:
            alone = lm.maximize(one, **asked).restarts
            rows = together[[str(target_of_row(row)) == str(one) for row in together.to_dict("records")]]
            np.testing.assert_allclose(rows["activation_final"], alone["activation_final"], rtol=1e-9)
        assert len(set(together["activation_final"].round(6))) == 8

    def test_what_is_optimized_is_w_x_plus_b(self, lm: LanguageModel) -> None:
        w, b = np.random.default_rng(2).normal(size=24), -1.7
        found = lm.maximize(Direction("resid_mid", 1, w, b, name="d"), seeds=2, steps=10, controls=0, **SMALL)
        final = found.contents.tensors("embeddings")["final"]
        hidden = lm.subject.run(final, [("resid_mid", 1)])["resid_mid", 1]
        expected = (hidden.numpy() @ w + b).mean(1)
        np.testing.assert_allclose(found.restarts["activation_final"], expected, atol=1e-5)
        saved = found.targets.iloc[0]
        assert saved["norm"] == pytest.approx(np.linalg.norm(w))
        assert saved["bias"] == b

    def test_minimized_it_is_the_opposite_direction_maximized(self, lm: LanguageModel) -> None:
        w = np.random.default_rng(3).normal(size=24)
        asked = {"seeds": 2, "steps": 10, "controls": 0, **SMALL}
        up = lm.maximize(Direction("resid_post", 1, -w, name="d"), **asked).restarts["activation_final"]
        down = lm.maximize(Direction("resid_post", 1, w, name="d"), sign="minimize", **asked).restarts
        np.testing.assert_allclose(up, -down["activation_final"], rtol=1e-9)

    @pytest.mark.slow
    def test_two_devices_give_the_table_of_one(self, actmax: Command) -> None:
        g = np.random.default_rng(4)
        save_file({"up": g.normal(size=96), "down": g.normal(size=96)}, "two.safetensors")
        asked = ("subject=tiny", "subject.dtype=float64", *QUICK, "steps=6", "seeds='0:2'", "unit.layer=2")
        asked += ("unit.direction=two.safetensors", "unit.index='0:2'")
        for devices in (1, 2):
            assert actmax(*asked, f"trainer.devices={devices}", "trainer=cpu", f"hydra.run.dir=d{devices}").code == 0
        one, two = (pd.read_parquet(f"d{devices}/restarts.parquet") for devices in (1, 2))
        assert one["target"].tolist() == ["two.safetensors#down"] * 2 + ["two.safetensors#up"] * 2
        pd.testing.assert_frame_equal(one, two, rtol=1e-9)

    def test_the_same_name_with_other_numbers_is_another_direction(self, lm: LanguageModel) -> None:
        g = np.random.default_rng(5)
        asked = {"seeds": 2, "steps": 3, "controls": 0, **SMALL}
        found = [lm.maximize(Direction("resid_pre", 2, g.normal(size=24), name="probe"), **asked) for _ in range(2)]
        random = [one.gaps["random_activation_mean"].iloc[0] for one in found]
        assert random[0] != random[1]  # the null is kept by what the direction is, not by what it is called
        assert found[0].summary["job_hash"] != found[1].summary["job_hash"]


class TestPlanted:
    """At layer 0 the residual stream is the embedding, so a token's own embedding is a direction that it maximizes."""

    @pytest.mark.slow
    def test_the_token_is_found_at_every_position_of_every_restart(self) -> None:
        lm = random_model("llama")  # no position embeddings: what enters block 0 is the token's embedding alone
        matrix = lm.subject.embedding_matrix.double().numpy()
        token = int(lm.subject.plain_tokens[40])
        asked = {"seeds": 4, "passes": 3000, "tokens": 3, "controls": 0, "context": "none", **SMALL}
        planted = lm.search(Direction("resid_pre", 0, matrix[token], name="token"), **asked)
        assert set(planted.tokens["token_id"]) == {token}
        random = np.random.default_rng(6).normal(size=24)
        random *= np.linalg.norm(matrix[token]) / np.linalg.norm(random)
        other = lm.search(Direction("resid_pre", 0, random, name="random"), **asked)
        assert token not in set(other.tokens["token_id"])


class TestLogit:
    def test_is_the_difference_of_the_models_own_logits_at_the_last_position(self, family: LanguageModel) -> None:
        found = family.search(
            actmax.Logit("a", minus="b"), seeds=2, passes=300, tokens=3, controls=0, context="none", **SMALL
        )
        assert found.restarts["site"].tolist() == ["final_norm"] * 2
        assert found.tokens["target"].iloc[0] == "logit:a-b"
        ids = torch.tensor(found.tokens["token_id"].to_numpy().reshape(2, 3))
        logits = family.subject.model(ids).logits[:, -1].double()
        a, b = (family.subject.tokens(one)[0] for one in "ab")
        expected = (logits[:, a] - logits[:, b]).tolist()
        np.testing.assert_allclose(found.restarts["activation_final"], expected, atol=1e-9)
        assert np.abs(np.array(expected) - (logits[:, b] - logits[:, a]).tolist()).max() > 1e-3

    def test_an_address_is_read_as_its_keys_are(self, actmax: Command) -> None:
        asked = ("task=search", "subject=tiny", *QUICK, "search.passes=60", "context=none")
        assert actmax(*asked, "unit.logit=a", "unit.minus=b", "hydra.run.dir=keys").code == 0
        assert actmax(*asked, "unit.target='logit:a-b'", "hydra.run.dir=address").code == 0
        keys, address = (pd.read_parquet(f"{name}/restarts.parquet") for name in ("keys", "address"))
        pd.testing.assert_frame_equal(keys, address)

    @pytest.mark.parametrize(("asked", "said"), WRONG_LOGITS)
    def test_what_is_no_token_is_refused(self, asked: tuple[str, ...], said: list[str], actmax: Command) -> None:
        ran = actmax("subject=tiny", *QUICK, "steps=2", *asked)
        assert ran.code == 2, ran.err
        assert all(one in ran.err for one in said), ran.err
        assert "Traceback" not in ran.err


class TestFile:
    @pytest.fixture
    def rows(self) -> ndarray:
        return np.random.default_rng(7).normal(size=(3, 24))

    def test_in_all_its_forms(self, rows: ndarray, tmp_path: Path) -> None:
        place, names = ("resid_post", 1), ["x", "y", "z"]
        bias = np.array([0.5, 0.0, -1.0])
        save_file({"weight": rows, "bias": bias}, tmp_path / "m.safetensors", {"names": json.dumps(names)})
        save_file({"resid_post.1/weight": rows, "resid_post.2/weight": rows + 1}, tmp_path / "p.safetensors")
        vectors = {f"resid_post.1/{name}": row for name, row in zip(names, rows, strict=True)}
        save_file({**vectors, "resid_post.1/z.bias": np.array([-1.0])}, tmp_path / "v.safetensors")
        by_name = read_directions(tmp_path / "m.safetensors", place).pick("y")
        assert str(by_name) == "resid_post.1:m.safetensors#y"
        np.testing.assert_array_equal(by_name.w, rows[1])
        numbered = read_directions(tmp_path / "p.safetensors", place).pick(2)
        assert (str(numbered), numbered.b) == ("resid_post.1:p.safetensors#2", 0.0)
        np.testing.assert_array_equal(numbered.w, rows[2])
        z = read_directions(tmp_path / "v.safetensors", place).pick("z")
        assert z.b == -1.0
        np.testing.assert_array_equal(z.w, rows[2])

    def test_in_bfloat16(self, rows: ndarray, tmp_path: Path) -> None:
        from safetensors.torch import save_file as save

        tensor = torch.from_numpy(rows).bfloat16()
        save({"weight": tensor}, tmp_path / "b.safetensors")
        found = read_directions(tmp_path / "b.safetensors", ("resid_post", 1)).pick(1)
        np.testing.assert_array_equal(found.w, tensor[1].double().numpy())

    def test_a_command_maximizes_rows_by_name_and_by_address(self, actmax: Command) -> None:
        rows = np.random.default_rng(8).normal(size=(3, 96))
        save_file({"weight": rows}, "probe.safetensors", {"names": json.dumps(["verb", "noun", "other"])})
        asked = ("subject=tiny", *QUICK, "steps=4", "seeds='0:2'")
        by_name = actmax(
            *asked, "unit.direction=probe.safetensors", "unit.name=noun", "unit.layer=3", "hydra.run.dir=name"
        )
        assert by_name.code == 0, by_name.err
        assert "Norm of w" in by_name.out + by_name.err
        assert "resid_pre.3:probe.safetensors#noun" in by_name.out
        ran = actmax(*asked, "unit.target='resid_pre.3:probe.safetensors#noun'", "hydra.run.dir=address")
        assert ran.code == 0, ran.err
        pd.testing.assert_frame_equal(
            pd.read_parquet("name/restarts.parquet"), pd.read_parquet("address/restarts.parquet")
        )
        (kept,) = targets_of(Record("name"))
        np.testing.assert_array_equal(kept.w, rows[1])

    @pytest.mark.parametrize(("kind", "asked", "said"), WRONG_DIRECTIONS)
    def test_what_is_wrong_is_said_early(
        self, kind: str, asked: tuple[str, ...], said: list[str], actmax: Command, tmp_path: Path
    ) -> None:
        write_directions(kind, tmp_path / "f.safetensors")
        ran = actmax("subject=tiny", *QUICK, "steps=2", *DIRECTION, *asked)
        assert ran.code == 2, ran.err
        assert all(one in ran.err for one in said), ran.err
        assert "Traceback" not in ran.err
        assert not ran.jobs

    @pytest.mark.parametrize(
        ("w", "b", "said"),
        [
            ([[1.0, 2.0]], 0.0, "one vector"),
            ([], 0.0, "one vector"),
            ([0.0, 0.0], 0.0, "zeros"),
            ([np.inf, 1.0], 0.0, "infinity"),
            (["a", "b"], 0.0, "numbers"),
            ([1.0], np.nan, "finite"),
        ],
    )
    def test_of_arrays_too(self, w: Any, b: float, said: str) -> None:
        with pytest.raises(InputError, match=said):
            Direction("resid_pre", 0, w, b)

    def test_another_file_of_the_same_name_is_another_job(self, actmax: Command) -> None:
        asked = ("subject=tiny", *QUICK, "steps=2", "unit.layer=2", "unit.direction=f.safetensors", "unit.index=0")
        codes = []
        for seed in (0, 0, 1):
            save_file({"weight": np.random.default_rng(seed).normal(size=(2, 96))}, "f.safetensors")
            ran = actmax(*asked)
            codes.append((ran.code, "another job" in ran.err))
        assert codes == [(0, False), (0, False), (2, True)]


class TestSweep:
    @pytest.mark.slow
    def test_names_side_by_side_and_seeds_put_together_without_the_file(self, actmax: Command) -> None:
        save_file({"a": np.random.default_rng(1).normal(size=96), "b": np.ones(96)}, "two.safetensors")
        asked = ("-m", "subject=tiny", *QUICK, "steps=3", "unit.layer=2", "unit.direction=two.safetensors")
        ran = actmax(*asked, "unit.name=a,b", "seeds=0,1", "hydra.sweep.dir=sweep")
        assert ran.code == 0, ran.err
        units = pd.read_parquet("sweep/units.parquet")
        assert units["target"].tolist() == ["two.safetensors#a", "two.safetensors#b"]
        assert units["restarts"].tolist() == [2, 2]
        assert units["activation_final_mean"].nunique() == 2
        Path("two.safetensors").unlink()
        from actmax.app.report import main as report

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["actmax-report", "sweep"])
            report()
        pd.testing.assert_frame_equal(pd.read_parquet("sweep/units.parquet"), units)


class TestControls:
    """What is set beside a direction: others of its file, or random directions of its length."""

    def test_are_other_rows_where_the_file_has_enough(self, actmax: Command) -> None:
        save_file({"weight": np.random.default_rng(2).normal(size=(5, 96))}, "f.safetensors")
        asked = ("subject=tiny", *QUICK, "steps=2", "unit.layer=2", "unit.direction=f.safetensors", "unit.index=1")
        assert actmax(*asked, "controls=3", "hydra.run.dir=rows").code == 0
        targets = pd.read_parquet("rows/targets.parquet")
        assert targets["control"].tolist() == [False, True, True, True]
        assert set(targets["index"]) < set(range(5))
        assert targets["index"].nunique() == 4
        assert actmax(*asked, "controls=7", "hydra.run.dir=random").code == 0
        beside = pd.read_parquet("random/targets.parquet").iloc[1:]
        assert all("isotropic" in name for name in beside["target"])
        np.testing.assert_allclose(beside["norm"], targets["norm"].iloc[0], rtol=1e-12)

    @pytest.mark.slow
    def test_drawn_as_text_varies_have_its_covariance(self, lm: LanguageModel, text: Path) -> None:
        asked = {"seeds": 2, "steps": 1, "controls": 100, "context": {"name": "none", "texts": str(text)}, **SMALL}
        own = Direction("resid_post", 1, one_hot(24, 0) + one_hot(24, 1), name="d")
        drawn = {}
        for against in ("text", "isotropic"):
            found = lm.maximize(own, unit={"against": against}, **asked)
            drawn[against] = np.stack([w.numpy() for w in found.contents.tensors("targets").values()])[1:]
        # the first principal direction of the text's activations, worked out apart from the code
        from actmax.text.files import text_files
        from actmax.text.windows import windows

        some = [one.ids for one in windows(lm.subject, text_files(text), size=32, before=()) if len(one.ids) == 32]
        values = lm.subject.run(lm.subject.embed(torch.tensor(some)), [("resid_post", 1)])["resid_post", 1]
        flat = values[:, 2:].flatten(0, 1).numpy()
        first = np.linalg.svd(flat - flat.mean(0), full_matrices=False)[2][0]
        share = {name: float(((w @ first) ** 2).sum() / (w**2).sum()) for name, w in drawn.items()}
        # of isotropic directions a share of 1/24 on average, of the text's covariance what that direction has of it
        assert share["isotropic"] == pytest.approx(1 / 24, abs=0.02)
        assert share["text"] > 0.12
        np.testing.assert_allclose(np.linalg.norm(drawn["text"], axis=1), np.sqrt(2))


@pytest.mark.slow
class TestOfTuning:
    """A tuning job's directions, and a maximization of one of them."""

    @pytest.fixture
    def job(self, actmax: Command) -> Path:
        rows = [f"{a}{b}x,{'one' if a < 'e' else 'two'}" for a in "abcdefgh" for b in "rstu"]
        Path("words.csv").write_text("word,category\n" + "\n".join(rows) + "\n")
        asked = ("task=tuning", "subject=tiny", "tuning.data=words.csv", "tuning.permutations=40", "tuning.save=true")
        ran = actmax(*asked, "page=false", "logger=none", "hydra.run.dir=tuned", "tuning.sites=[resid_post]")
        assert ran.code == 0, ran.err
        return ran.folder / "tuned"

    def test_are_the_difference_of_means_and_the_decoder_of_all_words(self, job: Path) -> None:
        tensors = load_file(job / "directions.safetensors")
        labels = (pd.read_parquet(job / "words.parquet")["category"] == "two").to_numpy()
        (file,) = job.rglob("resid_post.2.npy")
        x = np.load(file).astype(float)
        np.testing.assert_allclose(tensors["resid_post.2/means"], x[labels].mean(0) - x[~labels].mean(0))
        z = (x - x.mean(0)) / x.std(0) / np.sqrt(x.shape[1])
        reference = LogisticRegression(C=1.0, tol=1e-12, max_iter=10_000).fit(z, labels)
        ours = x @ tensors["resid_post.2/decoder"] + tensors["resid_post.2/decoder.bias"]
        np.testing.assert_allclose(ours, z @ reference.coef_[0] + reference.intercept_, atol=1e-5)
        tuned = pd.read_parquet(job / "tuning.parquet")
        tuned = tuned[tuned["layer"] == 2].reset_index()
        firth, known = tensors["resid_post.2/firth"], tuned["firth_coef"].to_numpy(float)
        chosen = np.flatnonzero(firth)
        assert set(chosen) == set(np.argsort(-tuned["welch_t"].abs().to_numpy(float))[: len(chosen)])
        np.testing.assert_allclose(firth[chosen], known[chosen], rtol=1e-6)

    def test_each_has_three_from_shuffled_labels(self, job: Path) -> None:
        names = read_directions(job / "directions.safetensors", ("resid_post", 2)).names
        kinds = ("decoder", "firth", "means")
        assert set(names) == {*kinds, *(f"{kind}_shuffled_{n}" for kind in kinds for n in (1, 2, 3))}

    def test_one_is_maximized_with_the_shuffled_ones_beside_it(self, job: Path, actmax: Command) -> None:
        asked = ("subject=tiny", *QUICK, "steps=30", "seeds='0:2'", "unit.site=resid_post", "unit.layer=2")
        name = "unit.name=[decoder,decoder_shuffled_1]"
        ran = actmax(*asked, f"unit.direction={job}/directions.safetensors", name, "hydra.run.dir=up")
        assert ran.code == 0, ran.err
        units = pd.read_parquet("up/units.parquet")
        assert units["target"].tolist() == [
            "directions.safetensors#decoder",
            "directions.safetensors#decoder_shuffled_1",
        ]
        assert (units["activation_final_mean"] > units["activation_initial_mean"]).all()

    def test_a_heat_map_of_a_direction(self, job: Path, actmax: Command) -> None:
        asked = ("task=tuning", "subject=tiny", "tuning.data=words.csv", "tuning.permutations=40", "page=false")
        address = f"resid_post.2:{job}/directions.safetensors#decoder"
        ran = actmax(
            *asked,
            "logger=none",
            "hydra.run.dir=drawn",
            "tuning.sites=[resid_post]",
            "tuning.text='abc xyz'",
            f"tuning.unit='{address}'",
        )
        assert ran.code == 0, ran.err
        assert "directions.safetensors#decoder" in json.loads(Path("drawn/summary.json").read_text())["heatmap"]["unit"]


class TestLatents:
    """Latents of a planted autoencoder, and what is refused."""

    @pytest.fixture
    def planted(self, tmp_path: Path) -> Path:
        return write_autoencoder(tmp_path / "planted")

    def test_an_identity_encoder_gives_the_units_record(self, planted: Path, lm: LanguageModel) -> None:
        asked = {"seeds": 2, "steps": 8, "controls": 0, **SMALL}
        unit, latent = lm.maximize("resid_post.1[5]", **asked), lm.maximize(f"sae:{planted}[5]", **asked)
        rows = latent.latents
        assert str(target_of_row(rows.iloc[0])) == "sae:planted[5]"
        optimum = rows[rows["stage"] == "optimum"]
        np.testing.assert_allclose(optimum["pre"], latent.restarts["activation_final"], rtol=1e-6)
        values = lm.subject.run(latent.contents.tensors("embeddings")["final"], [("resid_post", 1)])["resid_post", 1]
        own = values[..., 5].double().numpy()
        np.testing.assert_allclose(optimum["post"], np.where(own > 0.1, own, 0).mean(1), rtol=1e-6, atol=1e-12)
        np.testing.assert_allclose(optimum["firing"], (own > 0.1).mean(1))
        shown = shown_tables(latent.page(draw=False))
        assert shown["Targets"] == [["target", "is", "length of w", "b"], ["sae:planted[5]", "own", "1", "0"]]
        heads, *stages = shown["Latents"]
        assert heads[:2] == ["latent", "stage"]
        assert heads[2:] == ["before its activation function", "behind it", "positions at which it fires"]
        (last,) = [row for row in stages if row[1] == "optimum"]
        means = optimum[["pre", "post", "firing"]].mean()
        assert last[2:] == [f"{means['pre']:.4g}", f"{means['post']:.4g}", f"{means['firing']:.0%}"]
        latent.contents._tables.pop("latents")
        assert_same_tables(unit, latent)

    def test_controls_are_other_latents(self, planted: Path, actmax: Command, lm: LanguageModel) -> None:
        found = lm.maximize(actmax_latent(planted, 30), seeds=2, steps=2, controls=4, **SMALL)
        targets = found.targets
        assert targets["target"].iloc[0] == "sae:planted[30]"
        assert all(name.startswith("sae:planted[") for name in targets["target"])
        assert targets["target"].nunique() == 5

    @pytest.mark.parametrize(("asked", "said"), WRONG_LATENTS)
    def test_what_is_not_there_is_refused(
        self, asked: tuple[str, ...], said: list[str], planted: Path, actmax: Command
    ) -> None:
        architecture = (f"subject.architecture.{key}={value}" for key, value in FAMILIES["gpt2"].items())
        ran = actmax("subject=tiny", *architecture, *QUICK, "steps=2", f"unit.sae={planted}", *asked)
        assert ran.code == 2, ran.err
        assert all(one in ran.err for one in said), ran.err

    def test_changed_weights_are_another_job(self, planted: Path, actmax: Command) -> None:
        architecture = (f"subject.architecture.{key}={value}" for key, value in FAMILIES["gpt2"].items())
        asked = ("subject=tiny", *architecture, *QUICK, "steps=2", f"unit.sae={planted}", "unit.index=3")
        assert actmax(*asked).code == 0
        tensors = load_file(planted / "sae_weights.safetensors")
        save_file({**tensors, "W_enc": tensors["W_enc"] + 1}, planted / "sae_weights.safetensors")
        ran = actmax(*asked)
        assert (ran.code, "another job" in ran.err) == (2, True)


def shown_tables(page: Page) -> dict[str, list[list[str]]]:
    """The tables of a page's sections by title: their heads, and the texts of their rows."""
    tables = [block for section in page.sections for block in section.blocks if isinstance(block, Table)]
    return {
        one.title: [[column.name for column in one.columns], *([cell.text for cell in row] for row in one.rows)]
        for one in tables
    }


def actmax_latent(folder: Path, index: int) -> actmax.Latent:
    return actmax.Latent.load(folder, index)


def test_weights_of_the_decoder_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 200)) * rng.uniform(0.1, 9, 200) + 5 * rng.normal(size=200), rng.random(60) < 0.5
    x[:, 3] = 2.0  # a unit that does not vary has no weight
    ((w, b),) = ridge_logistic(x, y[:, None], C=0.7)
    assert w[3] == 0
    spread = np.where(x.std(0) > 0, x.std(0), np.inf)
    z = (x - x.mean(0)) / spread / np.sqrt(200)
    reference = LogisticRegression(C=0.7, tol=1e-12, max_iter=10_000).fit(z, y)
    np.testing.assert_allclose(x @ w + b, z @ reference.coef_[0] + reference.intercept_, atol=1e-5)
