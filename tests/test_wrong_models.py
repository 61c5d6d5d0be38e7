"""Models in folders of the user's own that are not whole: what is wrong is said, and how to mend it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from actmax.model.subject import load
from cli import QUICK, Actmax

TINY = {"model_type": "gpt2", "n_layer": 2, "n_embd": 12, "n_head": 2, "n_positions": 32}
JOB = ("unit.layer=1", "unit.index=3", "steps=2", "subject.path=model", *QUICK, "nulls.draws=39", "report=false")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    subject: Any = load(name="tiny", source="random", architecture=TINY)
    subject.model.save_pretrained(folder)
    subject.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def config(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def edited(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    file = folder / "model.safetensors"
    state = load_file(file)
    change(state)
    save_file(state, file, metadata={"format": "pt"})


def cut(name: str, keep: int) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:keep])


def sharded(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


def adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')


def adapter_alone(folder: Path) -> None:
    adapter(folder)
    (folder / "config.json").unlink()
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")


EVIL = "raise SystemExit('this code was run')"


def remote_code(folder: Path) -> None:
    (folder / "evil.py").write_text(EVIL)
    config(folder, model_type="evil", auto_map={"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"})


def remote_tokenizer(folder: Path) -> None:
    (folder / "evil.py").write_text(EVIL)
    file = folder / "tokenizer_config.json"
    content = json.loads(file.read_text())
    content |= {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}, "tokenizer_class": "Tokenizer"}
    file.write_text(json.dumps(content))


WRONG: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "adapter beside the model": (adapter, ["adapter", "merge_and_unload"]),
    "adapter alone": (adapter_alone, ["adapter", "merge_and_unload"]),
    "weights cut off": (cut("model.safetensors", -100), ["model.safetensors: must have", "Copy it again"]),
    "weights cut off in the header": (cut("model.safetensors", 90), ["model.safetensors", "90 bytes", "Copy it"]),
    "weights empty": (cut("model.safetensors", 0), ["model.safetensors", "0 bytes", "Copy it again"]),
    "a shard missing": (sharded, ["model-00002-of-00002.safetensors", "not there", "Copy it again"]),
    "tokenizer cut off": (cut("tokenizer.json", 100), ["tokenizer.json", "whole JSON", "Copy it again"]),
    "config cut off": (cut("config.json", 30), ["config.json", "whole JSON", "Copy it again"]),
    "config a list": (lambda folder: (folder / "config.json").write_text("[]"), ["config.json", "Copy it again"]),
    "config missing": (lambda folder: (folder / "config.json").unlink(), ["lacks config.json"]),
    "pickled weights": (
        lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
        ["pickled weights only", "python -c", "save_pretrained('NEW_FOLDER')", "subject.path=NEW_FOLDER"],
    ),
    "config of another width": (
        lambda folder: config(folder, n_embd=24),
        ["same sizes", "in the weights", "by config.json", "Put back the config.json"],
    ),
    "config of more tokens": (lambda folder: config(folder, vocab_size=300), ["wte.weight", "(257, 12)", "(300, 12)"]),
    "config of more layers": (lambda folder: config(folder, n_layer=3), ["missing: transformer.h.2.", "Copy it again"]),
    "heads that do not fit": (lambda folder: config(folder, n_head=5), ["num_heads", "Put back the config.json"]),
    "code of its own": (remote_code, ["brings code of its own", "evil.Model", "never run"]),
    "a weight missing": (
        lambda folder: edited(folder, lambda state: state.pop("transformer.ln_f.bias")),
        ["missing: transformer.ln_f.bias", "Copy it again"],
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_folder_that_is_not_whole_is_explained(actmax: Actmax, folder: Path, case: str) -> None:
    damage, words = WRONG[case]
    damage(folder)
    ran = actmax(*JOB)
    assert ran.code == 2, ran.out
    assert ran.err.splitlines()[-1].startswith("actmax: subject.path=")
    assert "Traceback" not in ran.err
    for word in words:
        assert word in ran.err
    assert "elete" not in ran.err  # it is the user's
    assert not ran.jobs


def test_a_whole_folder_runs(actmax: Actmax, folder: Path) -> None:
    ran = actmax(*JOB)
    assert ran.code == 0, ran.err


@pytest.mark.parametrize("add", [lambda folder: config(folder, auto_map={"AutoModel": "evil.Model"}), remote_tokenizer])
def test_code_beside_a_known_family_is_not_run(actmax: Actmax, folder: Path, add: Callable[[Path], object]) -> None:
    (folder / "evil.py").write_text(EVIL)
    add(folder)
    ran = actmax(*JOB)
    assert ran.code == 0, ran.err
    assert "this code was run" not in ran.err + ran.out


def test_a_folder_given_as_an_id_is_named(actmax: Actmax, folder: Path) -> None:
    ran = actmax(*(one for one in JOB if "path" not in one), "subject=hub", f"subject.id={folder}")
    assert ran.code == 2
    assert f"subject.id={folder}: is a folder on this machine" in ran.err
    assert f"Say subject.path={folder}" in ran.err


def test_weights_that_float16_cannot_hold(actmax: Actmax, folder: Path) -> None:
    edited(folder, lambda state: state["transformer.h.0.ln_1.weight"].fill_(1e6))
    ran = actmax(*JOB, "subject.dtype=float16")
    assert ran.code == 2
    assert "subject.dtype=float16: must hold all weights, and transformer.h.0.ln_1.weight" in ran.err
    assert actmax(*JOB, "subject.dtype=bfloat16").code == 0


def test_auto_takes_the_dtype_of_the_checkpoint(folder: Path) -> None:
    whole: Any = load(name="m", path=str(folder), dtype="bfloat16")
    assert load(name="m", path=str(folder), dtype="auto").dtype is torch.float32
    whole.model.save_pretrained(folder)
    assert load(name="m", path=str(folder), dtype="auto").dtype is torch.bfloat16
    assert load(name="m", path=str(folder)).dtype is torch.float32
    assert load(name="t", source="random", architecture=TINY, dtype="auto").dtype is torch.float32


def test_shards_are_one_model(folder: Path) -> None:
    before: Any = load(name="m", path=str(folder))
    (folder / "model.safetensors").unlink()
    before.model.save_pretrained(folder, max_shard_size="4KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    assert load(name="m", path=str(folder)).weights_hash == before.weights_hash
