"""Sparse autoencoders by their files, beside what SAELens and sparsify make of the same folders.

tests/reference/sae/make_sae.py wrote the folders with these packages' own code, and `expected.safetensors` in each.
"""

from __future__ import annotations

import ast
import json
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy import ndarray
from safetensors.numpy import load_file, save_file

from actmax.errors import InputError
from actmax.model import Autoencoder, Geometry
from actmax.model.autoencoder import SAELENS, SPARSIFY
from actmax.model.hooks import place_of
from cli import QUICK, Actmax

ROOT = Path(__file__).parent / "reference" / "sae"
FOLDERS = {str(file.parent.relative_to(ROOT)): file.parent for file in sorted(ROOT.rglob("cfg.json"))}
X = load_file(ROOT / "inputs.safetensors")["x"]
GPT2 = Geometry("gpt2", 6, 8, 32, 2, 2, 4, 64, parallel=False)
CLOSE = 1e-10
FAR = 0.02
"""What a wrong rule is off by at least; activations are of the order of 1."""

Edit = Callable[[dict[str, Any]], object]


def expected(name: str) -> dict[str, ndarray]:
    return load_file(FOLDERS[name] / "expected.safetensors")


def off(a: ndarray, b: ndarray) -> float:
    return float(np.abs(a - b).max())


def copied(name: str, into: Path, config: Edit = bool, tensors: Edit = bool) -> Path:
    """A copy of a folder whose config and tensors were edited in place."""
    folder = into / Path(name).name
    shutil.copytree(FOLDERS[name], folder)
    said = json.loads((folder / "cfg.json").read_text())
    config(said)
    (folder / "cfg.json").write_text(json.dumps(said))
    if tensors is not bool:
        file = folder / (SAELENS if (folder / SAELENS).exists() else SPARSIFY)
        numbers = load_file(file)
        tensors(numbers)
        save_file(numbers, file)
    return folder


def refused(*words: str, call: Callable[[], object], key: str = "folder") -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert caught.value.key == key
    for word in words:
        assert word in str(caught.value)


def test_there_is_a_folder_of_every_architecture() -> None:
    found = {(sae.format, sae.architecture) for sae in map(Autoencoder.load, FOLDERS.values())}
    own = {("saelens", one) for one in ("standard", "gated", "topk", "jumprelu", "batchtopk")}
    assert found == {*own, ("sparsify", "topk")}


@pytest.mark.parametrize("name", FOLDERS)
def test_activations_are_those_of_the_package_that_wrote_the_folder(name: str) -> None:
    sae, theirs = Autoencoder.load(FOLDERS[name]), expected(name)
    assert (sae.width, sae.latents) == (8, 24)
    assert off(sae.pre(X), theirs["pre"]) < CLOSE
    assert off(sae.post(X), theirs["post"]) < CLOSE
    assert 0.05 < np.mean(theirs["post"] > 0) < 0.95  # it does something
    assert off(sae.pre(X), theirs["post"]) > FAR


@pytest.mark.parametrize("name", FOLDERS)
def test_a_latent_is_affine_in_the_raw_activations(name: str) -> None:
    sae, theirs = Autoencoder.load(FOLDERS[name]), expected(name)["pre"]
    for index in range(sae.latents):
        w, b = sae.weight(index)
        assert w.dtype == np.float64
        assert off(X @ w + b, theirs[:, index]) < CLOSE
    assert off(X @ w, theirs[:, -1]) > FAR  # without its b


@pytest.mark.parametrize("name", FOLDERS)
def test_forgetting_the_centring_is_far_off(name: str) -> None:
    sae = Autoencoder.load(FOLDERS[name])
    other = replace(sae, subtracts=not sae.subtracts)
    assert off(other.pre(X), expected(name)["pre"]) > FAR


def test_the_gate_decides_and_the_magnitude_is_the_value() -> None:
    sae, theirs = Autoencoder.load(FOLDERS["saelens/gated"]), expected("saelens/gated")
    assert off(sae.gate(X), theirs["gate"]) < CLOSE
    assert np.any((theirs["pre"] > 0) != (theirs["gate"] > 0))  # the two do differ
    assert off(np.maximum(sae.pre(X), 0), theirs["post"]) > FAR
    assert off(np.where(sae.gate(X) > 0, np.maximum(sae.gate(X), 0), 0), theirs["post"]) > FAR
    for index in range(sae.latents):
        (w, _), (v, b) = sae.weight(index), sae.gate_weight(index)
        assert off(X @ v + b, theirs["gate"][:, index]) < CLOSE
        assert w @ v / np.linalg.norm(w) / np.linalg.norm(v) == pytest.approx(1)  # one direction
    with pytest.raises(InputError, match="has no gate"):
        Autoencoder.load(FOLDERS["saelens/topk"]).gate(X)


@pytest.mark.parametrize(
    "name", ["saelens/topk", "saelens/jumprelu", "saelens/batchtopk_checkpoint", "sparsify/layers.3"]
)
def test_the_rule_of_another_architecture_is_far_off(name: str) -> None:
    sae, theirs = Autoencoder.load(FOLDERS[name]), expected(name)["post"]
    assert off(np.maximum(sae.pre(X), 0), theirs) > FAR
    if sae.k is not None:
        assert off(replace(sae, k=sae.k - 1).post(X), theirs) > FAR
        assert off(replace(sae, k=sae.k + 1).post(X), theirs) > FAR


def test_forgetting_what_scales_a_latent_is_far_off() -> None:
    for name, change in (
        ("saelens/topk_rescaled", {"rescales": False}),
        ("saelens/batchtopk_checkpoint", {"rescales": False}),
        ("saelens/batchtopk_checkpoint", {"scale": 1.0}),
    ):
        assert off(replace(Autoencoder.load(FOLDERS[name]), **change).pre(X), expected(name)["pre"]) > FAR


def test_sparsify_shows_its_pre_activations_without_those_below_zero() -> None:
    for name in (name for name in FOLDERS if name.startswith("sparsify")):
        sae, theirs = Autoencoder.load(FOLDERS[name]), expected(name)["relu_pre"]
        assert off(np.maximum(sae.pre(X), 0), theirs) < CLOSE
        assert off(sae.pre(X), theirs) > FAR


def test_bfloat16_is_read_as_the_numbers_that_it_holds() -> None:
    import torch
    from safetensors.torch import load_file as load_tensors

    folder = FOLDERS["saelens/standard_bfloat16"]
    sae, theirs = Autoencoder.load(folder), load_tensors(folder / SAELENS)["W_enc"]
    assert sae.dtype == "bfloat16"
    assert theirs.dtype == torch.bfloat16
    for index in range(sae.latents):
        assert np.array_equal(sae.weight(index)[0], theirs[:, index].double().numpy())


def test_many_latents_are_read_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actmax.model.autoencoder.BLOCK", 7)
    for name in FOLDERS:
        assert off(Autoencoder.load(FOLDERS[name]).post(X), expected(name)["post"]) < CLOSE


def test_a_centred_sae_reads_activations_without_their_mean(tmp_path: Path) -> None:
    """Expected: the same SAE on x less its mean, which is what TransformerLens's centred weights give at this site."""

    def centre(said: dict[str, Any]) -> None:
        said["metadata"]["model_from_pretrained_kwargs"] = {"center_writing_weights": True}

    plain = Autoencoder.load(FOLDERS["saelens/standard"])
    theirs = plain.pre(X - X.mean(axis=1, keepdims=True))
    sae = Autoencoder.load(copied("saelens/standard", tmp_path, centre))
    assert sae.centred
    assert not plain.centred
    for centred in (sae, Autoencoder.load(plain.folder, centred=True)):
        assert off(centred.pre(X), theirs) < CLOSE
    for raw in (plain, Autoencoder.load(sae.folder, centred=False)):
        assert off(raw.pre(X), theirs) > FAR
    (tmp_path / "z").mkdir()
    gated = Autoencoder.load(copied("saelens/gated", tmp_path / "z", centre))  # z is not written to the residual stream
    assert not gated.centred
    with pytest.raises(InputError, match="centred=False"):
        sae.check_model(replace(GPT2, model_type="llama"))


def test_an_identity_encoder_gives_the_coordinates_themselves(tmp_path: Path) -> None:
    def plant(numbers: dict[str, Any]) -> None:
        numbers["W_enc"] = np.eye(8, 24, dtype=np.float32)
        numbers["b_enc"][:], numbers["b_dec"][:] = 0, 0

    sae = Autoencoder.load(copied("saelens/standard", tmp_path, tensors=plant))
    for index in range(8):
        w, b = sae.weight(index)
        assert (w.tolist(), b) == ([float(one == index) for one in range(8)], 0)
    assert np.array_equal(sae.pre(X)[:, :8], X)
    assert np.array_equal(sae.post(X)[:, :8], np.maximum(X, 0))


def test_what_the_page_shows_is_what_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/targets.md has its values in a comment."""
    root = Path(__file__).parents[1]
    monkeypatch.chdir(root)
    page = (root / "docs" / "targets.md").read_text(encoding="utf-8")
    block = re.search(r"```python\n(from actmax.model import Autoencoder.*?)```", page, re.DOTALL)
    assert block is not None
    names: dict[str, Any] = {}
    exec(block[1], names)
    shown = re.search(r"sae.place, .*?# (.*)", block[1])
    assert shown is not None
    sae = names["sae"]
    assert (sae.place, sae.width, sae.latents, sae.model) == ast.literal_eval(shown[1])
    assert off(X @ names["w"] + names["b"], expected("saelens/jumprelu")["pre"][:, 3]) < CLOSE


# where it reads


def test_hooks_and_modules_are_mapped_to_sites() -> None:
    assert place_of("blocks.8.hook_resid_pre") == ("resid_pre", 8)
    assert place_of("blocks.11.hook_resid_post") == ("resid_post", 11)
    assert place_of("blocks.0.attn.hook_q") == ("q", 0)
    assert place_of("blocks.0.mlp.hook_pre") == ("mlp_pre", 0)
    assert place_of("blocks.3.hook_out") == ("resid_post", 3)
    for prefix in ("", "model.", "gpt_neox."):
        assert place_of(f"{prefix}layers.8") == ("resid_post", 8)
    assert place_of("h.3.mlp") == place_of("transformer.h.3.mlp.c_proj") == ("mlp_out", 3)
    assert place_of("layers.8.self_attn.q_proj") == ("q", 8)
    assert place_of("ln_f") == ("final_norm", None)
    unknown = ["ln_final.hook_normalized", "blocks.8.ln1.hook_normalized", "blocks.8.attn.hook_pattern", "hook_embed"]
    for name in (*unknown, "embed_tokens", "encoder.layers.3", "layers.x", "layers.3.norm", "", "blocks.8"):
        assert place_of(name) is None


OLD = {"n_layer": 2, "n_embd": 12, "n_head": 2, "n_positions": 16}
NEO = {"num_layers": 2, "hidden_size": 12, "num_heads": 2, "max_position_embeddings": 16}
NEW = {"num_hidden_layers": 2, "hidden_size": 12, "num_attention_heads": 2, "intermediate_size": 20}
FAMILIES = {
    "gpt2": (OLD, 1 + 2 * 6),
    "gpt_neo": (NEO | {"attention_types": [[["global"], 2]]}, 1 + 2 * 10),
    "gpt_neox": (NEW | {"max_position_embeddings": 16}, 1 + 2 * 6),
    "llama": (NEW | {"max_position_embeddings": 16}, 1 + 2 * 10),
}
"""Sizes of a small subject of each family, and how many of its modules are mapped: in each block, and the last norm."""


@pytest.mark.parametrize("family", FAMILIES)
def test_a_module_gives_what_the_subject_reads_at_its_site(family: str) -> None:
    import torch

    from actmax.model import load

    sizes, count = FAMILIES[family]
    subject = load(name=family, source="random", architecture={"model_type": family, **sizes}, dtype="float64")
    modules = {name: module for name, module in subject.model.base_model.named_modules() if place_of(name)}
    given = {}

    def keep(name: str, output: Any) -> None:
        given[name] = output[0] if isinstance(output, tuple) else output

    for name, module in modules.items():
        module.register_forward_hook(lambda _, __, output, name=name: keep(name, output))
    places = {name: place_of(name) for name in modules}
    captured = subject.run(torch.randn(2, 5, 12), list(set(places.values())))
    assert len(given) == count
    for name, place in places.items():
        same = [one for one in captured if captured[one].shape == given[name].shape]
        gaps = {one: float((captured[one] - given[name]).abs().max()) for one in same}
        assert gaps.pop(place) < CLOSE
        assert all(gap > CLOSE for one, gap in gaps.items() if one != ("resid_pre", (place[1] or 0) + 1))


@pytest.mark.parametrize(
    ("name", "place", "model"),
    [
        ("saelens/standard", ("resid_pre", 3), "pythia-14m"),
        ("saelens/gated", ("z", 4), "pythia-14m"),
        ("saelens/before_6_topk", ("mlp_post", 5), "pythia-14m"),
        ("sparsify/layers.3", ("resid_post", 3), "EleutherAI/pythia-14m"),
        ("sparsify/h.2.mlp", ("mlp_out", 2), "EleutherAI/pythia-14m"),
        ("sparsify/layers.1.attention/seed1", ("attn_out", 1), "EleutherAI/pythia-14m"),
    ],
)
def test_a_folder_says_where_it_reads_and_of_which_model(name: str, place: tuple[str, int], model: str) -> None:
    sae = Autoencoder.load(FOLDERS[name])
    assert sae.place == place
    assert sae.model == model


class TestAPlaceByHand:
    def test_is_taken_where_the_hook_is_not_known(self, tmp_path: Path) -> None:
        folder = copied("sparsify/layers.3", tmp_path)
        odd = folder.rename(tmp_path / "mine")
        refused("mine", "site and the layer by hand", call=lambda: Autoencoder.load(odd))
        assert Autoencoder.load(odd, site="resid_post", layer=3).place == ("resid_post", 3)
        assert Autoencoder.load(odd, site="final_norm").place == ("final_norm", None)

    def test_must_be_whole(self) -> None:
        folder = FOLDERS["saelens/standard"]
        refused("site", key="layer", call=lambda: Autoencoder.load(folder, layer=3))
        refused("with the site", key="layer", call=lambda: Autoencoder.load(folder, site="resid_pre"))
        refused("takes none", key="layer", call=lambda: Autoencoder.load(folder, site="final_norm", layer=3))

    def test_must_not_contradict_the_config(self) -> None:
        folder = FOLDERS["saelens/standard"]
        assert Autoencoder.load(folder, site="resid_pre", layer=3).place == ("resid_pre", 3)
        assert Autoencoder.load(folder, site="resid_post", layer=2).place == ("resid_post", 2)  # the same values
        for site, layer in (("resid_pre", 4), ("resid_post", 3), ("mlp_out", 3)):
            refused(
                "resid_pre.3",
                key="site",
                call=lambda site=site, layer=layer: Autoencoder.load(folder, site=site, layer=layer),
            )


class TestTheModel:
    SAE = Autoencoder.load(FOLDERS["saelens/standard"])

    def test_of_the_same_sizes_passes(self) -> None:
        assert self.SAE.check_model(GPT2) is None

    def test_of_another_width_is_refused(self) -> None:
        refused("reads 8", "has 16", "pythia-14m", call=lambda: self.SAE.check_model(replace(GPT2, d_model=16)))

    def test_without_its_layer_or_site_is_refused(self) -> None:
        refused("resid_pre.3", "0 to 1", call=lambda: self.SAE.check_model(replace(GPT2, layers=2)))
        middle = replace(self.SAE, site="resid_mid")
        assert middle.check_model(GPT2) is None
        refused("resid_mid.3", "in parallel", call=lambda: middle.check_model(replace(GPT2, parallel=True)))

    @pytest.mark.parametrize("name", ["pythia-14m", "EleutherAI/pythia-14m", "/models/Pythia-14M/", "pythia_14m"])
    def test_of_the_same_name_is_not_told(self, name: str) -> None:
        assert self.SAE.check_model(GPT2, name) is None

    @pytest.mark.parametrize("name", ["EleutherAI/pythia-14m-deduped", "pythia-70m", "/models/mine"])
    def test_of_another_name_is_told_and_not_refused(self, name: str) -> None:
        assert self.SAE.check_model(GPT2, name) == "pythia-14m"

    def test_of_transformer_lens_own_name_is_the_same(self) -> None:
        assert replace(self.SAE, model="gpt2-small").check_model(GPT2, "openai-community/gpt2") is None


# what is refused


WRONG_CONFIGS: list[tuple[Any, ...]] = [
    ("saelens/standard", "architecture", "transcoder", ("transcoder", "standard, gated")),
    ("saelens/standard", "architecture", "matryoshka_batchtopk", ("matryoshka_batchtopk",)),
    ("saelens/standard", "architecture", "temporal", ("temporal",)),
    ("saelens/standard", "architecture", None, ("architecture: null",)),
    ("saelens/standard", "architecture", 3, ("architecture: 3", "must be text")),
    ("saelens/standard", "d_out", 8, ("d_out: 8", "transcoder")),
    ("saelens/standard", "activation_fn", "tanh-relu", ("tanh-relu",)),
    ("saelens/gated", "activation_fn", "topk", ("activation_fn: topk",)),
    ("saelens/standard", "normalize_activations", ["none"], ("normalize_activations", "text")),
    ("saelens/standard", "normalize_activations", "layer_norm", ("layer_norm", "affine", "standard deviation")),
    ("saelens/standard", "normalize_activations", "constant_norm_rescale", ("affine", "own length")),
    ("saelens/standard", "normalize_activations", "covariance_whitening", ("covariance_whitening", "fold")),
    ("saelens/standard", "normalize_activations", "expected_average_only_in", ("activation_scaler.json",)),
    ("saelens/before_6_topk", "normalize_activations", True, ("activation_scaler.json",)),
    ("saelens/before_6_topk", "hook_head_index", 2, ("hook_head_index: 2", "single head")),
    ("saelens/before_6_topk", "hook_name", "blocks.5.attn.hook_pattern", ("hook_pattern", "by hand")),
    ("saelens/before_6_topk", "hook_name", "ln_final.hook_normalized", ("before the final norm's weight",)),
    ("saelens/before_6_topk", "hook_name", None, ("hook: none", "by hand")),
    ("saelens/before_6_topk", "hook_name", 5, ("hook_name: 5", "text")),
    ("saelens/before_6_topk", "activation_fn_kwargs", {}, ("k: null", "whole number")),
    ("saelens/standard", "d_in", None, ("d_in: null", "whole number")),
    ("saelens/standard", "d_in", "8", ('d_in: "8"', "whole number")),
    ("saelens/standard", "d_in", True, ("d_in: true", "whole number")),
    ("saelens/standard", "d_sae", 0, ("d_sae: 0", "from 1")),
    ("saelens/before_6_topk", "activation_fn_kwargs", {"k": "5"}, ('k: "5"', "whole number")),
    ("saelens/standard", "apply_b_dec_to_input", "yes", ("apply_b_dec_to_input", "true or false")),
    ("saelens/standard", "metadata", [], ("metadata", "JSON object")),
    ("saelens/topk", "k", 25, ("k: 25", "1 to 24")),
    ("saelens/batchtopk_checkpoint", "rescale_acts_by_decoder_norm", None, ("rescale_acts", "true or false")),
    ("saelens/standard", "whitens", True, ("whitens: true", "not understood")),
    ("sparsify/layers.3", "gram_lookup", True, ("gram_lookup: true", "not understood")),
    ("sparsify/layers.3", "transcode", True, ("transcode: true", "transcoder")),
    ("sparsify/layers.3", "skip_connection", True, ("skip_connection: true",)),
    ("sparsify/layers.3", "activation", "groupmax", ("groupmax",)),
    ("sparsify/layers.3", "signed", True, ("signed",)),
    ("sparsify/layers.3", "k", None, ("k: null",)),
    ("sparsify/layers.3", "k", 25, ("k: 25", "1 to 24")),
    ("sparsify/layers.3", "num_latents", "24", ('num_latents: "24"',)),
]
"""A folder, a key of its config, what it is set to, and words of the error."""


@pytest.mark.parametrize(("name", "key", "value", "words"), WRONG_CONFIGS)
def test_a_config_that_is_not_understood_is_refused_by_name(
    name: str, key: str, value: object, words: tuple[str, ...], tmp_path: Path
) -> None:
    assert Autoencoder.load(copied(name, tmp_path / "whole"))
    folder = copied(name, tmp_path, lambda said: said.update({key: value}))
    refused("cfg.json", *words, call=lambda: Autoencoder.load(folder))


WRONG_SIZES: list[tuple[Any, ...]] = [
    ("saelens/standard", {"d_sae": 25}, ("25", "24")),
    ("saelens/standard", {"d_in": 9}, ("9", "8")),
    ("saelens/standard", {"architecture": "gated"}, ("lacks b_gate, b_mag, r_mag",)),
    ("saelens/gated", {"architecture": "standard"}, ("lacks b_enc",)),
    ("saelens/jumprelu", {"architecture": "standard"}, ("threshold besides",)),
    ("sparsify/layers.3", {"num_latents": 0}, ("256", "24")),
    ("sparsify/layers.3", {"d_in": 9}, ("9", "8")),
]
"""A folder, changes of its config that its weights contradict, and words of the error."""


@pytest.mark.parametrize(("name", "changes", "words"), WRONG_SIZES)
def test_weights_that_disagree_with_the_config_are_refused(
    name: str, changes: dict[str, Any], words: tuple[str, ...], tmp_path: Path
) -> None:
    folder = copied(name, tmp_path, lambda said: said.update(changes))
    refused(".safetensors", "as its config says", *words, call=lambda: Autoencoder.load(folder))


@pytest.mark.parametrize("name", ["saelens/standard", "sparsify/layers.3"])
def test_a_key_that_is_not_known_and_not_set_is_let_be(name: str, tmp_path: Path) -> None:
    folder = copied(name, tmp_path, lambda said: said.update({"gram_lookup": False, "table": None}))
    assert off(Autoencoder.load(folder).pre(X), expected(name)["pre"]) < CLOSE


def test_a_config_of_before_6_holds_the_settings_of_its_training(tmp_path: Path) -> None:
    folder = copied("saelens/before_6_topk", tmp_path, lambda said: said.update({"lr": 3e-4, "use_ghost_grads": True}))
    assert off(Autoencoder.load(folder).pre(X), expected("saelens/before_6_topk")["pre"]) < CLOSE


def test_a_head_whose_biases_were_folded_is_refused_and_a_residual_stream_is_not(tmp_path: Path) -> None:
    def fold(said: dict[str, Any]) -> None:
        said["metadata"]["model_from_pretrained_kwargs"] = {"fold_value_biases": True}

    folder = copied("saelens/gated", tmp_path, fold)
    refused("fold_value_biases", call=lambda: Autoencoder.load(folder))
    assert Autoencoder.load(copied("saelens/standard", tmp_path, fold))


def _spoiled(**numbers: Callable[[ndarray], ndarray]) -> Callable[[Path], object]:
    """Damage to a folder: tensors by name, made anew of what they were."""

    def spoil(folder: Path) -> None:
        file = next(folder.glob("*.safetensors"))
        kept = load_file(file)
        save_file({**kept, **{name: act(kept[name]) for name, act in numbers.items()}}, file)

    return spoil


def _with_nan(values: ndarray) -> ndarray:
    return np.where(np.arange(values.shape[-1]) == 5, np.nan, values).astype(values.dtype)


def _set(file: str, content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / file).write_text(content)


def _folded(folder: Path) -> None:
    said = json.loads((folder / "cfg.json").read_text())
    said["metadata"]["model_from_pretrained_kwargs"] = {"fold_value_biases": True}
    (folder / "cfg.json").write_text(json.dumps(said))


def _moved(folder: Path) -> None:
    shutil.move(folder, folder.parent / "other")
    folder.mkdir()
    shutil.move(folder.parent / "other", folder)


def _replaced(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("a file")


DAMAGED: dict[str, tuple[str, Callable[[Path], object], tuple[str, ...]]] = {
    "no folder": ("saelens/standard", shutil.rmtree, ("neither",)),
    "a file": ("saelens/standard", _replaced, ("is a file",)),
    "nothing in it": ("saelens/standard", lambda folder: [file.unlink() for file in folder.iterdir()], ("lacks both",)),
    "another folder around it": ("saelens/standard", _moved, ("name one", "other")),
    "no config": ("saelens/standard", lambda folder: (folder / "cfg.json").unlink(), ("lacks cfg.json",)),
    "no weights": ("saelens/standard", lambda folder: (folder / SAELENS).unlink(), ("lacks", SAELENS)),
    "both formats": (
        "saelens/standard",
        lambda folder: shutil.copy(ROOT / "sparsify/layers.3" / SPARSIFY, folder),
        ("holds both",),
    ),
    "pickled weights": (
        "saelens/standard",
        lambda folder: (folder / SAELENS).rename(folder / "sae_weights.pt"),
        ("pickled", "safetensors"),
    ),
    "a config of nothing": ("saelens/standard", _set("cfg.json", ""), ("cfg.json", "JSON")),
    "a config of other bytes": (
        "saelens/standard",
        lambda folder: (folder / "cfg.json").write_bytes(b"\xff\xfe"),
        ("cfg.json", "JSON"),
    ),
    "half a config": ("saelens/standard", _set("cfg.json", "{"), ("cfg.json", "JSON")),
    "a list as config": ("saelens/standard", _set("cfg.json", "[1]"), ("cfg.json", "JSON")),
    "text as weights": ("saelens/standard", _set(SAELENS, "no weights"), ("whole file of safetensors", SAELENS)),
    "half the weights": (
        "sparsify/layers.3",
        lambda folder: (folder / SPARSIFY).write_bytes((folder / SPARSIFY).read_bytes()[:-1]),
        ("whole file of safetensors", SPARSIFY),
    ),
    "whole numbers": ("saelens/standard", _spoiled(b_enc=lambda b: b.astype(np.int64)), ("b_enc", "I64")),
    "no numbers": ("saelens/standard", _spoiled(b_enc=lambda b: b[:0]), ("b_enc", "[0]")),
    "NaN in a bias": ("saelens/standard", _spoiled(b_enc=_with_nan), ("b_enc", "finite")),
    "NaN in a latent": ("saelens/standard", _spoiled(W_enc=_with_nan), ("W_enc", "finite")),
    "a latent of zeros": ("saelens/standard", _spoiled(W_enc=np.zeros_like), ("5", "zero")),
    "a factor of null": (
        "saelens/batchtopk_checkpoint",
        _set("activation_scaler.json", '{"scaling_factor": null}'),
        ("scaling_factor",),
    ),
    "folded biases": ("saelens/gated", _folded, ("fold_value_biases",)),
}
"""By what is wrong with a folder: of which it is a copy, what damages it, and words of the error."""
EIGHT = ("n_embd=8", "n_layer=6", "n_head=2")
"""Sizes of a subject that these autoencoders fit."""


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_folder_is_refused(kind: str, tmp_path: Path) -> None:
    name, damage, words = DAMAGED[kind]
    folder = copied(name, tmp_path)
    Autoencoder.load(folder).weight(5)
    damage(folder)
    with pytest.raises(InputError) as caught:
        Autoencoder.load(folder).weight(5)
    for word in words:
        assert word in str(caught.value)


def test_so_it_is_by_the_command_line(actmax: Actmax, tmp_path: Path) -> None:
    small = (f"subject.architecture.{one}" for one in EIGHT)
    command = ("subject=tiny", *small, "steps=2", *QUICK, "unit.sae=standard", "unit.index=5")
    folder = copied("saelens/standard", tmp_path)
    assert actmax(*command, "hydra.run.dir=whole").code == 0
    for kind in ("NaN in a latent", "half a config", "no folder"):
        _, damage, words = DAMAGED[kind]
        damage(folder)
        ran = actmax(*command, "hydra.run.dir=damaged")
        assert ran.code == 2, ran.err
        assert ran.err.startswith("actmax: unit.sae=")
        assert all(word in ran.err for word in words)
        assert not (tmp_path / "damaged").exists()


class TestFolders:
    def test_that_are_none(self, tmp_path: Path) -> None:
        for place in (tmp_path / "no", "no", "no/such/folder", "a b/c"):
            refused("neither", call=lambda place=place: Autoencoder.load(place))
        refused("is a file", call=lambda: Autoencoder.load(FOLDERS["saelens/standard"] / SAELENS))
        refused("lacks both", call=lambda: Autoencoder.load(tmp_path))

    def test_in_the_hubs_cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        monkeypatch.chdir(tmp_path)
        repository = tmp_path / "models--one--saes"
        shutil.copytree(ROOT / "sparsify", repository / "snapshots" / "0123abc")
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("0123abc")
        sae = Autoencoder.load("one/saes/h.2.mlp")
        assert sae.place == ("mlp_out", 2)
        assert off(sae.pre(X), expected("sparsify/h.2.mlp")["pre"]) < CLOSE
        refused("one/saes/h.3.mlp", "hf download", call=lambda: Autoencoder.load("one/saes/h.3.mlp"))
        refused("two/saes/h.2.mlp", "hub's cache", call=lambda: Autoencoder.load("two/saes/h.2.mlp"))
        refused("h.2.mlp first", "name one", call=lambda: Autoencoder.load("one/saes"))  # it holds several

    def test_that_hold_others(self) -> None:
        refused("sparsify/h.2.mlp", "name one", call=lambda: Autoencoder.load(ROOT / "sparsify"))

    def test_with_a_pickle_are_refused_and_it_is_not_opened(self, tmp_path: Path) -> None:
        folder = copied("saelens/standard", tmp_path)

        class Trap:
            def __reduce__(self) -> tuple[Any, ...]:
                return Path.touch, (tmp_path / "ran",)

        (folder / "sae_weights.pt").write_bytes(pickle.dumps(Trap()))
        assert Autoencoder.load(folder)  # beside whole weights it does no harm
        (folder / SAELENS).unlink()
        refused("pickled", "safetensors", call=lambda: Autoencoder.load(folder))
        shutil.copy(folder / "sae_weights.pt", folder / SAELENS)  # nor under another name
        refused("whole file of safetensors", call=lambda: Autoencoder.load(folder))
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize("left", [0, 4, 200, -1])
    @pytest.mark.parametrize("name", ["saelens/standard", "sparsify/layers.3"])
    def test_with_truncated_weights(self, name: str, left: int, tmp_path: Path) -> None:
        folder = copied(name, tmp_path)
        file = next(file for file in (folder / SAELENS, folder / SPARSIFY) if file.exists())
        file.write_bytes(file.read_bytes()[:left])
        refused("whole file of safetensors", file.name, call=lambda: Autoencoder.load(folder))


class TestNumbers:
    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    @pytest.mark.parametrize("name", ["W_enc", "b_enc", "b_dec"])
    def test_that_are_not_finite(self, name: str, bad: float, tmp_path: Path) -> None:
        def spoil(numbers: dict[str, Any]) -> None:
            numbers[name][..., 5] = bad

        sae = Autoencoder.load(copied("saelens/standard", tmp_path, tensors=spoil))
        refused(name, "finite", call=lambda: sae.weight(5))
        refused(name, "finite", call=lambda: sae.pre(X))
        if name != "b_dec":  # another latent is whole
            assert off(X @ sae.weight(4)[0] + sae.weight(4)[1], expected("saelens/standard")["pre"][:, 4]) < CLOSE

    def test_of_a_latent_that_is_zero(self, tmp_path: Path) -> None:
        def kill(numbers: dict[str, Any]) -> None:
            numbers["W_enc"][:, 5] = 0

        sae = Autoencoder.load(copied("saelens/standard", tmp_path, tensors=kill))
        refused("5", "zero", key="index", call=lambda: sae.weight(5))
        assert np.ptp(sae.pre(X)[:, 5]) == 0
        assert np.ptp(sae.pre(X)[:, 4]) > FAR

    @pytest.mark.parametrize("index", [-1, 24, 10**9])
    def test_beyond_the_file(self, index: int) -> None:
        sae = Autoencoder.load(FOLDERS["saelens/standard"])
        refused("0 to 23", key="index", call=lambda: sae.weight(index))
        refused("0 to 23", key="index", call=lambda: Autoencoder.load(FOLDERS["saelens/gated"]).gate_weight(index))


@pytest.mark.parametrize("factor", [None, 0.0, "1.7", -1.0])
def test_a_checkpoint_needs_the_factor_of_its_inputs(factor: object, tmp_path: Path) -> None:
    folder = copied("saelens/batchtopk_checkpoint", tmp_path)
    assert Autoencoder.load(folder).scale == 1.7
    (folder / "activation_scaler.json").write_text(json.dumps({"scaling_factor": factor}))
    refused("scaling_factor", call=lambda: Autoencoder.load(folder))


def test_older_checkpoints_hold_the_logarithm_of_thresholds(tmp_path: Path) -> None:
    def older(numbers: dict[str, Any]) -> None:
        numbers["log_threshold"] = np.log(numbers.pop("threshold"))

    folder = copied("saelens/jumprelu", tmp_path, tensors=older)
    assert off(Autoencoder.load(folder).post(X), expected("saelens/jumprelu")["post"]) < CLOSE


def test_a_scaling_factor_of_the_decoder_changes_nothing(tmp_path: Path) -> None:
    folder = copied(
        "saelens/standard", tmp_path, tensors=lambda numbers: numbers.update(scaling_factor=np.full(24, 2, np.float32))
    )
    assert off(Autoencoder.load(folder).post(X), expected("saelens/standard")["post"]) < CLOSE


def test_reading_a_latent_needs_no_torch() -> None:
    script = f"""
import sys
from actmax.model.autoencoder import Autoencoder
Autoencoder.load({str(FOLDERS["saelens/standard_bfloat16"])!r}).weight(3)
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
