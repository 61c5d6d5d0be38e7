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
        ["pickled weights only"],
    ),
    "config of another width": (
        lambda folder: config(folder, n_embd=24),
        ["same sizes", "in the weights", "by config.json", "Put back the config.json"],
    ),
    "config of more tokens": (lambda folder: config(folder, vocab_size=300), ["wte.weight", "(257, 12)", "(300, 12)"]),
    "config of more layers": (lambda folder: config(folder, n_layer=3), ["missing: transformer.h.2.", "Copy it again"]),
    "heads that do not fit": (lambda folder: config(folder, n_head=5), ["num_heads", "Put back the config.json"]),
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
    assert "Delete the folder" not in ran.err  # it is the user's
    assert not ran.jobs


def test_a_whole_folder_runs(actmax: Actmax, folder: Path) -> None:
    ran = actmax(*JOB)
    assert ran.code == 0, ran.err
