"""The Python front door: the same tables as the command line, save and open, models in memory, one clear error each."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import matplotlib.axes
import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM

import actmax
from actmax.api import LanguageModel
from actmax.model.subject import byte_tokenizer, load
from actmax.records.store import VERSION
from cli import QUICK
from cli import Actmax as Command
from tiny_families import CASES

SMALL = {
    "nulls": {"draws": 299, "displacements": 20},
    "gap": {"draws": 40},
    "transfer": {"draws": 40},
    "meaning": {"embedder": "none"},
    "controls": 0,
    "progress": False,
}
END = "<|endoftext|>"
KINDS = f"""
from functools import partial

import numpy as np

import actmax

lm = actmax.load("tiny")
ask = partial(lm.maximize, "resid_pre.3[4]", steps=2, tokens=2, **{SMALL})
for call in (
    *(partial(ask, seeds=seeds) for seeds in (None, 2.0, "0:3")),
    *(partial(lm.maximize, target) for target in (None, 5, ["resid_pre.1[2]", None])),
    *(partial(ask, prior=None), partial(ask, context=None), partial(lm.tune, sites="q"), partial(lm.tune, sites=None)),
    *(partial(actmax.wrap, lm.subject.model, tokenizer) for tokenizer in (None, "gpt2")),
):
    try:
        call()
    except actmax.InputError as error:
        print(str(error).partition(": ")[0])
plain = ask(seeds=3).restarts
for seeds in (np.int64(3), np.arange(3), range(3)):
    print(ask(seeds=seeds).restarts.equals(plain))
"""
"""Asks with arguments of other kinds, and with numpy's numbers."""
WORDS = "word,category\n" + "".join(f"{a}{b},{'x' if a < 'e' else 'y'}\n" for a in "abcdefgh" for b in "rstu")


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return actmax.load("tiny", dtype="float64")


@pytest.fixture
def exact(actmax: Command) -> Callable[..., Path]:
    """Runs a command on the same model, and gives its record's folder."""

    def run(*overrides: str) -> Path:
        ran = actmax("subject=tiny", "subject.dtype=float64", *QUICK, "hydra.run.dir=job", *overrides)
        assert ran.code == 0, ran.err
        return ran.folder / "job"

    return run


def assert_same(found: actmax.Result, folder: Path) -> None:
    """Every table of a command's record, value by value."""
    tables = sorted(file.stem for file in folder.glob("*.parquet"))
    assert sorted(found.tables) == tables
    for name in tables:
        pd.testing.assert_frame_equal(found.table(name), pd.read_parquet(folder / f"{name}.parquet"), check_exact=True)
    summary = json.loads((folder / "summary.json").read_text())
    for key in ("seconds", "device", "versions"):
        summary.pop(key)
    assert {key: found.summary[key] for key in summary} == summary


class TestTheCommandsTables:
    def test_of_a_maximization(self, lm: LanguageModel, exact: Callable[..., Path]) -> None:
        found = lm.maximize("resid_pre.3[7]", seeds=4, steps=12, prior=["l2", "smooth"], **SMALL)
        folder = exact("unit.layer=3", "unit.index=7", "seeds='0:4'", "steps=12", "prior=[l2,smooth]")
        assert_same(found, folder)
        other = lm.maximize("resid_pre.3[7]", seeds=4, steps=12, prior=["l2"], **SMALL)
        with pytest.raises(AssertionError):  # the comparison can fail
            assert_same(other, folder)

    def test_of_several_units(self, lm: LanguageModel, exact: Callable[..., Path]) -> None:
        units = [actmax.Unit("mlp_post", layer, index) for layer in (1, 2) for index in (5, 6)]
        found = lm.maximize(units, seeds=[3, 8], steps=6, lr=0.01, reduction="last", **SMALL)
        command = ("unit=neuron", "unit.layer=[1,2]", "unit.index=[5,6]", "seeds=[3,8]", "steps=6")
        assert_same(found, exact(*command, "optimizer.lr=0.01", "objective.reduction=last"))
        assert list(found.verdicts.index) == [str(unit) for unit in units]

    @pytest.mark.parametrize("method", ["gcg", "epo"])
    def test_of_a_search(self, method: str, lm: LanguageModel, exact: Callable[..., Path]) -> None:
        found = lm.search("resid_pre.2[3]", method=method, seeds=2, passes=80, search={"candidates": 20}, **SMALL)
        command = ("task=search", f"search={method}", "search.passes=80", "search.candidates=20")
        assert_same(found, exact(*command, "unit.layer=2", "unit.index=3", "seeds='0:2'"))

    def test_of_examples(self, lm: LanguageModel, exact: Callable[..., Path], tmp_path: Path) -> None:
        (tmp_path / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 40)
        text = str(tmp_path / "text.txt")
        progress = {"progress": False}
        found = lm.examples("mlp_post.2[9]", text, top=3, examples={"window": 32}, **progress)
        command = ("experiment=max_examples", "unit=neuron", "unit.layer=2", "unit.index=9", f"examples.text={text}")
        assert_same(found, exact(*command, "examples.top=3", "examples.window=32", "meaning.embedder=wordllama"))

    def test_of_words(self, lm: LanguageModel, exact: Callable[..., Path], tmp_path: Path) -> None:
        (tmp_path / "words.csv").write_text(WORDS)
        data = str(tmp_path / "words.csv")
        quick = {"splits": 2, "permutations": 20, "folds": 2, "top": 2}
        found = lm.tune(data, sites=["resid_post"], layers=[0, 1], text="abc", tuning=quick, progress=False)
        command = ["task=tuning", f"tuning.data={data}", "tuning.sites=[resid_post]", "tuning.layers=[0,1]"]
        command += ["tuning.text=abc", *(f"tuning.{key}={value}" for key, value in quick.items())]
        assert_same(found, exact(*command))


class TestContext:
    """What stands around the tokens is an argument of all four, a name or settings."""

    PREFIX: ClassVar = {"name": "prefix", "text": "Hi"}

    def test_of_texts(self, lm: LanguageModel, tmp_path: Path) -> None:
        text, words = tmp_path / "text.txt", tmp_path / "words.csv"
        text.write_text("The quick brown fox jumps over the lazy dog. " * 4)
        words.write_text(WORDS)
        quick = {"splits": 2, "folds": 2, "permutations": 20}
        for context, before in (("auto", [END]), ("none", []), (self.PREFIX, [END, "H", "i"])):
            read = lm.examples("resid_pre.3[4]", text, context=context, progress=False)
            tuned = lm.tune(words, sites=["resid_post"], layers=[0], context=context, tuning=quick, progress=False)
            assert read.summary["before"] == tuned.summary["before"] == before

    def test_of_units(self, lm: LanguageModel) -> None:
        around = {
            name: lm.search("resid_pre.3[4]", seeds=2, passes=20, context=name, **SMALL).table("surroundings")
            for name in ("auto", "none")
        }
        around["prefix"] = lm.maximize("resid_pre.3[4]", seeds=2, steps=2, context=self.PREFIX, **SMALL).table(
            "surroundings"
        )
        own = {name: rows[rows["own"]]["before"].tolist() for name, rows in around.items()}
        assert own == {"auto": [END], "none": [""], "prefix": [f"{END}Hi"]}

    @pytest.mark.parametrize("context", ["nowhere", {"name": "prefix"}, {"nam": "bos"}])
    def test_that_is_wrong_is_named(self, lm: LanguageModel, context: Any) -> None:
        with pytest.raises(actmax.InputError, match=r"^context"):
            lm.search("resid_pre.3[4]", seeds=2, passes=20, context=context, **SMALL)


class TestSaved:
    def test_and_opened_it_is_the_same(self, lm: LanguageModel, tmp_path: Path) -> None:
        found = lm.maximize("resid_pre.3[7]", seeds=3, steps=5, **SMALL)
        folder = found.save(tmp_path / "mine")
        again = actmax.open(folder)
        assert again.tables == found.tables
        for name in found.tables:
            pd.testing.assert_frame_equal(again.table(name), found.table(name), check_exact=True)
        assert again.summary == found.summary
        assert again.config == found.config
        assert (again.verdict, repr(again)) == (found.verdict, repr(found))
        ours, theirs = (one.contents.tensors("embeddings") for one in (found, again))
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        assert (folder / "report.html").exists()
        copied = again.save(tmp_path / "copy")
        assert actmax.open(copied).summary == found.summary

    def test_the_command_line_knows_the_job(self, lm: LanguageModel, actmax: Command, tmp_path: Path) -> None:
        found = lm.maximize("resid_pre.3[7]", seeds=3, steps=5, **SMALL)
        found.save(tmp_path / "job")
        command = ["subject=tiny", "subject.dtype=float64", *QUICK, "unit.layer=3", "unit.index=7", "seeds='0:3'"]
        ran = actmax(*command, "steps=5", "hydra.run.dir=job")
        assert ran.code == 0, ran.err
        assert "complete" in ran.out + ran.err + (tmp_path / "job" / "actmax.log").read_text()
        refused = actmax(*command, "steps=6", "hydra.run.dir=job")
        assert refused.code == 2

    def test_a_folder_that_holds_something_else_is_left_alone(self, lm: LanguageModel, tmp_path: Path) -> None:
        found = lm.maximize("resid_pre.3[7]", seeds=2, steps=2, **SMALL)
        (tmp_path / "notes.txt").write_text("mine")
        with pytest.raises(actmax.InputError, match=r"^folder="):
            found.save(tmp_path)
        assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]
        found.save(tmp_path / "one")
        other = lm.maximize("resid_pre.3[8]", seeds=2, steps=2, **SMALL)
        with pytest.raises(actmax.InputError, match="another job"):
            other.save(tmp_path / "one")


class TestOpen:
    @pytest.fixture
    def saved(self, lm: LanguageModel, tmp_path: Path) -> Path:
        return lm.maximize("resid_pre.3[7]", seeds=2, steps=2, **SMALL).save(tmp_path / "one", page=False)

    def test_of_no_record(self, tmp_path: Path) -> None:
        for place in (tmp_path, tmp_path / "nowhere"):
            with pytest.raises(actmax.InputError, match="must hold a record"):
                actmax.open(place)

    @pytest.mark.parametrize("name", ["summary.json", "status.json", "config.yaml"])
    def test_of_a_damaged_one(self, name: str, saved: Path) -> None:
        (saved / name).write_text("{")
        with pytest.raises(actmax.InputError):
            actmax.open(saved)

    def test_of_a_damaged_table(self, saved: Path) -> None:
        (saved / "tokens.parquet").write_bytes(b"PAR1")
        found = actmax.open(saved)
        with pytest.raises(actmax.InputError, match=r"tokens\.parquet"):
            _ = found.tokens

    def test_of_another_version(self, saved: Path) -> None:
        status = json.loads((saved / "status.json").read_text())
        (saved / "status.json").write_text(json.dumps({**status, "version": VERSION + 1}))
        with pytest.raises(actmax.InputError, match=f"version {VERSION + 1}"):
            actmax.open(saved)

    def test_of_one_that_is_not_complete(self, saved: Path) -> None:
        status = json.loads((saved / "status.json").read_text())
        (saved / "status.json").write_text(json.dumps({**status, "state": "interrupted"}))
        with pytest.raises(actmax.InputError, match="interrupted"):
            actmax.open(saved)


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            ({"target": "resid_pre.8"}, "target=resid_pre.8"),
            ({"target": "nosuch.3[4]"}, "target=nosuch.3[4]"),
            ({"target": "resid_pre.99[4]"}, "target=resid_pre.99[4]"),
            ({"target": "resid_pre.3[96]"}, "target=resid_pre.3[96]"),
            ({"target": []}, "target=[]"),
            ({"target": ["resid_pre.1[2]", "resid_pre.1[2]"]}, "target="),
            ({"target": "resid_pre.1:nosuch.safetensors#0"}, "target="),
            ({"seeds": 0}, "seeds=0"),
            ({"seeds": [1, 1]}, "seeds=[1, 1]"),
            ({"seeds": []}, "seeds=[]"),
            ({"tokens": 0}, "tokens=0"),
            ({"tokens": 65}, "tokens=65"),
            ({"steps": 0}, "steps=0"),
            ({"lr": -1.0}, "lr=-1.0"),
            ({"prior": "fluent"}, "prior=fluent"),
            ({"prior": ["pca", "simplex"]}, "prior="),
            ({"optimizer": "lbfgs"}, "optimizer=lbfgs"),
            ({"reduction": "sum"}, "reduction=sum"),
            ({"device": "gpu"}, "device=gpu"),
            ({"nulls": {"displacements": 3}}, "nulls.displacements=3"),
            ({"nulls": {"drawz": 3}}, "nulls.drawz="),
            ({"nullz": {"draws": 3}}, "nullz="),
        ],
    )
    def test_of_maximize_names_the_argument(self, arguments: dict, named: str, lm: LanguageModel) -> None:
        if "device" in arguments and torch.cuda.is_available():
            pytest.skip("this machine has a GPU")
        with pytest.raises(actmax.InputError) as refused:
            lm.maximize(**{"target": "resid_pre.3[4]", "progress": False, **arguments})
        assert str(refused.value).startswith(named)

    def test_of_another_kind(self, tmp_path: Path) -> None:
        """As a user meets it: the tests' own checks of types would refuse it before."""
        (file := tmp_path / "ask.py").write_text(KINDS)
        ran = subprocess.run([sys.executable, str(file)], check=False, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.split("\n")[:-1] == [
            *("seeds=None", "seeds=2.0", "seeds=0:3", "target=None", "target=5", "target=None", "prior=None"),
            *("context=None", "sites=q", "sites=None", "tokenizer=None", "tokenizer=gpt2", "True", "True", "True"),
        ]

    def test_of_the_others(self, lm: LanguageModel, tmp_path: Path) -> None:
        for ask, named in (
            (lambda: lm.search("resid_pre.3[4]", method="beam"), "method=beam"),
            (lambda: lm.search("resid_pre.3[4]", method="text"), "text=None"),
            (lambda: lm.examples("resid_pre.3[4]", tmp_path / "none.txt"), "texts="),
            (lambda: lm.tune(tmp_path / "none.csv"), "data="),
            (lambda: actmax.load("nosuch"), "name=nosuch"),
            (lambda: actmax.load("tiny", dtype="int8"), "dtype=int8"),
            (lambda: actmax.load("tiny", color="red"), "color="),
            (lambda: actmax.wrap(torch.nn.Linear(2, 2), None), "model=Linear"),
        ):
            with pytest.raises(actmax.InputError) as refused:
                ask()
            assert str(refused.value).startswith(named)


class TestWrapped:
    def test_a_model_changed_in_memory(self, lm: LanguageModel, tmp_path: Path) -> None:
        model = model_of(lm)
        own = actmax.wrap(model, lm.subject.tokenizer, name="mine")
        before = own.maximize("resid_pre.3[7]", seeds=3, steps=5, **SMALL)
        pd.testing.assert_frame_equal(before.tokens, lm.maximize("resid_pre.3[7]", seeds=3, steps=5, **SMALL).tokens)
        assert all(weight.requires_grad for weight in model.parameters())  # the user's model is left as it is
        assert model.training
        with torch.no_grad():
            model.get_input_embeddings().weight[5:] += 0.5
        after = own.maximize("resid_pre.3[7]", seeds=3, steps=5, **SMALL)
        assert not before.tokens.equals(after.tokens)
        names = [found.summary["subject"]["weights_sha256"] for found in (before, after)]
        assert names[0] == lm.subject.weights_hash != names[1]
        assert before.summary["job_hash"] != after.summary["job_hash"]
        opened = actmax.open(after.save(tmp_path / "after", page=False))
        assert opened.summary == after.summary
        model.save_pretrained(tmp_path / "model")
        lm.subject.tokenizer.save_pretrained(tmp_path / "model")
        folder = actmax.load(tmp_path / "model", dtype="float64")
        assert folder.subject.weights_hash == names[1]
        same = folder.maximize("resid_pre.3[7]", seeds=3, steps=5, **SMALL)
        pd.testing.assert_frame_equal(same.tokens, after.tokens, check_exact=True)

    @pytest.mark.parametrize("name", ["llama", "gemma2", "granite", "bloom", "qwen2_moe"])
    @pytest.mark.parametrize("change", ["in place", "low rank", "untied"])
    def test_changed_models_give_the_numbers_of_their_folder(self, tmp_path: Path, name: str, change: str) -> None:
        made = load(name=name, source="random", architecture=CASES[name] | {"tie_word_embeddings": change != "untied"})
        model = AutoModelForCausalLM.from_config(made.model.config, dtype=torch.float32)
        generator = torch.Generator().manual_seed(2)
        before = actmax.wrap(model, made.tokenizer).subject.weights_hash
        with torch.no_grad():
            for key, weight in model.named_parameters():
                if change == "low rank" and weight.dim() == 2 and "embed" not in key:  # what merging LoRA leaves
                    up, down = (torch.randn(size, 2, generator=generator) for size in weight.shape)
                    weight += 0.1 * up @ down.T
                elif change != "low rank":
                    weight += 0.1 * torch.randn(weight.shape, generator=generator)
        own = actmax.wrap(model, made.tokenizer).subject
        model.save_pretrained(tmp_path)
        made.tokenizer.save_pretrained(tmp_path)
        folder = actmax.load(tmp_path).subject
        assert folder.weights_hash == own.weights_hash != before
        tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
        assert tied is (change != "untied")
        ids, places = torch.tensor([[5, 9, 77, 3]]), [(site, 1) for site in own.geometry.sites if site != "final_norm"]
        found = [one.run(one.embed(ids), [*places, ("final_norm", None)]) for one in (own, folder)]
        assert all(torch.equal(found[0][place], found[1][place]) for place in found[0])
        scores = [one.logits(two["final_norm", None]) for one, two in zip((own, folder), found, strict=True)]
        assert torch.equal(scores[0], scores[1])
        assert torch.allclose(scores[0], model.eval()(ids).logits, atol=1e-4)

    def test_an_adapter_that_was_not_merged_is_refused(self, lm: LanguageModel) -> None:
        model: Any = model_of(lm)
        model.merge_and_unload = lambda: model  # as peft's models have it
        with pytest.raises(actmax.InputError, match=r"adapter.*merge_and_unload"):
            actmax.wrap(model, lm.subject.tokenizer)

    def test_weights_of_whole_numbers_need_gradients(self, lm: LanguageModel) -> None:
        class Quantized(torch.nn.Module):
            """A product with weights of 8 bits; `through` says whether gradients pass."""

            def __init__(self, linear: Any, *, through: bool) -> None:
                super().__init__()
                self.scale = float(linear.weight.detach().abs().max()) / 127
                whole = (linear.weight.detach() / self.scale).round().to(torch.int8)
                self.weight = torch.nn.Parameter(whole, requires_grad=False)
                self.through = through

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                found = x @ (self.weight.to(x.dtype) * self.scale)
                return found if self.through else found.detach()

        for through in (True, False):
            model: Any = model_of(lm)
            for block in model.transformer.h:
                for part in (block.attn, block.mlp):
                    part.c_proj = Quantized(part.c_proj, through=through)
                if not through:
                    block.register_forward_hook(lambda _, __, out: out.detach())
            if through:
                assert actmax.wrap(model, lm.subject.tokenizer).subject.geometry.sites
                continue
            with pytest.raises(actmax.InputError, match="gradients must pass"):
                actmax.wrap(model, lm.subject.tokenizer)

    def test_a_family_that_is_not_known(self) -> None:
        from transformers import XGLMConfig

        sizes = {"d_model": 8, "attention_heads": 2, "num_layers": 1, "ffn_dim": 8}
        model = AutoModelForCausalLM.from_config(XGLMConfig(vocab_size=257, pad_token_id=1, **sizes))
        with pytest.raises(actmax.InputError, match=r"^model=xglm: .*llama.*FAMILIES"):
            actmax.wrap(model, byte_tokenizer())


def model_of(lm: LanguageModel) -> torch.nn.Module:
    """A model of one's own with the same weights, in training mode and with gradients."""
    model = AutoModelForCausalLM.from_config(lm.subject.model.config, dtype=torch.float64)
    model.load_state_dict(lm.subject.model.state_dict())
    return model.train()


class TestShown:
    def test_on_a_terminal_and_in_a_notebook(self, lm: LanguageModel) -> None:
        found = lm.maximize("resid_pre.3[7]", seeds=3, steps=5, **SMALL)
        text, html = repr(found), found._repr_html_()
        token = found.tokens["token"].iloc[0]
        assert "resid_pre.3[7]" in html
        for shown in (text, html):
            assert f"{found.units['activation_final_mean'].iloc[0]:.4g}" in shown
        assert "<script" not in html
        assert isinstance(token, str)

    def test_figures_are_axes(self, lm: LanguageModel) -> None:
        found = lm.maximize("resid_pre.3[7]", seeds=3, steps=5, **SMALL)
        assert "trajectory" in dir(found.plot)
        for name in dir(found.plot):
            assert isinstance(getattr(found.plot, name)(), matplotlib.axes.Axes)
        with pytest.raises(AttributeError, match="trajectory"):
            _ = found.plot.nosuch

    def test_tables_complete_and_others_are_named(self, lm: LanguageModel) -> None:
        found = lm.maximize("resid_pre.3[7]", seeds=2, steps=2, **SMALL)
        assert {"tokens", "restarts", "findings", "plot", "save"} <= set(dir(found))
        with pytest.raises(AttributeError, match="tokens"):
            _ = found.nosuch
        assert (found.findings["claimed"].dtype, len(found.findings) > 3) == (bool, True)


@pytest.mark.parametrize("progress", [True, False])
def test_progress_is_an_argument(progress: bool, lm: LanguageModel, capfd: pytest.CaptureFixture[str]) -> None:
    options = {**SMALL, "progress": progress, "callbacks": {"progress": {"seconds": 0.0}}}
    lm.maximize("resid_pre.3[7]", seeds=2, steps=4, **options)
    assert ("step" in capfd.readouterr().err) == progress


def test_importing_is_quick_and_light() -> None:
    heavy = ("torch", "transformers", "lightning", "scipy", "pandas")
    program = f"import actmax, sys; print([name for name in {heavy} if name in sys.modules]); actmax.load; "
    program += "print('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.split("\n")[:2] == ["[]", "True"]  # and what is asked for comes with what it needs


def test_a_record_needs_no_page(lm: LanguageModel, tmp_path: Path) -> None:
    folder = lm.maximize("resid_pre.3[7]", seeds=2, steps=2, **SMALL).save(tmp_path / "one", page=False)
    assert not (folder / "report.html").exists()
    shutil.rmtree(folder)
