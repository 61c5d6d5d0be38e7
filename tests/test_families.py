"""Every family's sites against Hugging Face's own model, by hooks and weights named here and not in the table."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu, relu, silu

from actmax.api import wrap
from actmax.errors import InputError
from actmax.model.families import FAMILIES
from actmax.model.subject import Subject, byte_tokenizer, load
from tiny_families import CASES, D_MLP, D_MODEL, LAYERS, SOME, TINY, WINDOW

ROWS, TOKENS = 2, 7
CLOSE, FAR = 1e-9, 1e-2
assert TOKENS > 2 * WINDOW


def shaken(model: Any) -> None:
    """Draws every weight anew: Hugging Face starts biases at 0 and norms at 1, which hides errors."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            centre = 1.0 if weight.dim() == 1 and bool((weight == 1).all()) else 0.0
            noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
            weight.copy_(centre + 0.3 * noise)


@cache
def the_subject(name: str) -> Subject:
    subject = load(name=name, source="random", architecture=CASES[name], dtype="float64")
    shaken(subject.model)
    return subject


@cache
def the_ids() -> Tensor:
    return torch.randint(0, 256, (ROWS, TOKENS), generator=torch.Generator().manual_seed(3))


@cache
def captured(name: str) -> dict[Any, Tensor]:
    subject = the_subject(name)
    places = [(site, layer) for site in subject.geometry.sites if site != "final_norm" for layer in range(LAYERS)]
    return subject.run(subject.embed(the_ids()), [*places, ("final_norm", None)])


@cache
def the_truth(name: str) -> Any:
    """Hidden states and logits of the model's own pass from ids."""
    with torch.no_grad():
        return the_subject(name).model(input_ids=the_ids(), output_hidden_states=True, use_cache=False)


def difference(left: Tensor, right: Tensor) -> float:
    return float((left - right).abs().max() / right.abs().max())


# ---------------------------------------------------------------- what these tests know of a block

Split = Callable[[Any, Tensor], tuple[Tensor, ...]]


def linear(module: Any, x: Tensor) -> Tensor:
    """A Linear's product, or a Conv1D's, whose weight lies the other way round."""
    weight = module.weight if type(module).__name__ == "Conv1D" else module.weight.T
    bias = getattr(module, "bias", None)
    return x @ weight if bias is None else x @ weight + bias


def apart(path: str) -> Split:
    return lambda block, x: tuple(linear(block.get_submodule(f"{path}.{one}_proj"), x) for one in "qkv")


SEPARATE = apart("self_attn")


def joined(path: str, *sizes: int) -> Split:
    return lambda block, x: linear(block.get_submodule(path), x).split(list(sizes), dim=-1)


def grouped(path: str, groups: int, heads: int, dim: int) -> Split:
    """Each group: its queries, then a key, then a value."""

    def split(block: Any, x: Tensor) -> tuple[Tensor, ...]:
        parts = linear(block.get_submodule(path), x).unflatten(-1, (groups, heads // groups + 2, dim))
        return parts[..., :-2, :].flatten(-3), parts[..., -2, :].flatten(-2), parts[..., -1, :].flatten(-2)

    return split


def gelu_tanh(x: Tensor) -> Tensor:
    return gelu(x, approximate="tanh")


@dataclass(frozen=True)
class Truth:
    blocks: str = "model.layers"
    norm: str | None = "input_layernorm"
    """The norm before the attention; None: there is none."""
    mlp_norm: str | None = "post_attention_layernorm"
    """The norm before the MLP."""
    qkv: Split = SEPARATE
    out: str = "self_attn.o_proj"
    behind: str | None = None
    """The norm behind the attention."""
    behind_mlp: str | None = None
    up: str | None = "mlp.up_proj"
    gate: str | None = "mlp.gate_proj"
    down: str = "mlp.down_proj"
    act: Callable[[Tensor], Tensor] = silu
    head_dim: int = 6
    group: int = 2
    """Query heads that read one key head."""
    parallel: bool = False
    times: float = 1.0
    clip: float | None = None


POST = {"behind": "post_attention_layernorm", "behind_mlp": "post_feedforward_layernorm"}
LLAMA, WIDE = Truth(), Truth(head_dim=10)
GPT2 = Truth(
    blocks="transformer.h",
    norm="ln_1",
    mlp_norm="ln_2",
    qkv=joined("attn.c_attn", D_MODEL, D_MODEL, D_MODEL),
    out="attn.c_proj",
    up="mlp.c_fc",
    gate=None,
    down="mlp.c_proj",
    act=gelu_tanh,
    head_dim=8,
    group=1,
)
NEOX = Truth(
    blocks="gpt_neox.layers",
    qkv=grouped("attention.query_key_value", 3, 3, 8),
    out="attention.dense",
    up="mlp.dense_h_to_4h",
    gate=None,
    down="mlp.dense_4h_to_h",
    act=gelu,
    head_dim=8,
    group=1,
    mlp_norm="post_attention_layernorm",
    parallel=True,
)
FALCON = replace(
    NEOX,
    blocks="transformer.h",
    norm="ln_attn",
    mlp_norm="ln_mlp",
    qkv=grouped("self_attention.query_key_value", 2, 4, 6),
    out="self_attention.dense",
    head_dim=6,
    group=2,
)
BLOOM = replace(
    NEOX,
    blocks="transformer.h",
    qkv=grouped("self_attention.query_key_value", 3, 3, 8),
    out="self_attention.dense",
    act=gelu_tanh,
    parallel=False,
)
MOE = replace(WIDE, up=None, gate=None, down="mlp.experts")
TRUTHS = {
    "gpt2": GPT2,
    "gpt_neo": replace(GPT2, qkv=apart("attn.attention"), out="attn.attention.out_proj"),
    "gpt_neox": NEOX,
    "gpt_neox sequential": replace(NEOX, parallel=False),
    "llama": WIDE,
    "mistral": WIDE,
    "qwen2": LLAMA,
    "qwen3": WIDE,
    "smollm3": LLAMA,
    "olmo": replace(LLAMA, clip=1.5),
    "olmo2": replace(LLAMA, norm=None, mlp_norm=None, **POST),
    "olmo3": replace(LLAMA, norm=None, mlp_norm=None, **POST),
    "stablelm": LLAMA,
    "stablelm parallel": replace(LLAMA, mlp_norm="input_layernorm", parallel=True),
    "granite": replace(LLAMA, times=0.3),
    "gemma": replace(WIDE, act=gelu_tanh),
    "gemma2": replace(WIDE, act=gelu_tanh, mlp_norm="pre_feedforward_layernorm", **POST),
    "gemma3_text": replace(WIDE, act=gelu_tanh, mlp_norm="pre_feedforward_layernorm", **POST),
    "phi": replace(
        LLAMA,
        mlp_norm="input_layernorm",
        out="self_attn.dense",
        up="mlp.fc1",
        gate=None,
        down="mlp.fc2",
        act=gelu_tanh,
        parallel=True,
    ),
    "phi3": replace(
        LLAMA, qkv=joined("self_attn.qkv_proj", 24, 12, 12), up="mlp.gate_up_proj", gate="mlp.gate_up_proj"
    ),
    "gptj": replace(
        GPT2,
        mlp_norm="ln_1",
        qkv=apart("attn"),
        out="attn.out_proj",
        up="mlp.fc_in",
        down="mlp.fc_out",
        parallel=True,
    ),
    "starcoder2": replace(LLAMA, up="mlp.c_fc", gate=None, down="mlp.c_proj", act=gelu_tanh),
    "cohere": replace(LLAMA, mlp_norm="input_layernorm", parallel=True),
    "falcon": FALCON,
    "falcon one norm": replace(FALCON, norm="input_layernorm", mlp_norm="input_layernorm"),
    "falcon one key": replace(
        FALCON,
        norm="input_layernorm",
        mlp_norm="input_layernorm",
        qkv=joined("self_attention.query_key_value", 24, 6, 6),
        group=4,
    ),
    "falcon alibi": replace(
        FALCON,
        norm="input_layernorm",
        mlp_norm="post_attention_layernorm",
        qkv=grouped("self_attention.query_key_value", 4, 4, 6),
        group=1,
        parallel=False,
    ),
    "opt": replace(
        LLAMA,
        blocks="model.decoder.layers",
        norm="self_attn_layer_norm",
        mlp_norm="final_layer_norm",
        out="self_attn.out_proj",
        up="fc1",
        gate=None,
        down="fc2",
        act=relu,
        head_dim=8,
        group=1,
    ),
    "bloom": BLOOM,
    "bloom wide": replace(BLOOM, qkv=grouped("self_attention.query_key_value", 2, 2, 12), head_dim=12),
    "mixtral": MOE,
    "qwen2_moe": replace(MOE, head_dim=6),
    "qwen3_moe": MOE,
    "olmoe": replace(MOE, head_dim=6, clip=1.5),
}


def block_of(model: Any, name: str, layer: int) -> Any:
    return model.get_submodule(TRUTHS[name].blocks)[layer]


def normed(block: Any, path: str | None, x: Tensor) -> Tensor:
    return x if path is None else block.get_submodule(path)(x)


@cache
def contributions(name: str, layer: int) -> tuple[Tensor, Tensor]:
    """What attention and MLP of a block add to the stream: a pass of a model whose MLP there gives nothing tells."""
    model: Any = copy.deepcopy(the_subject(name).model)
    block = block_of(model, name, layer)
    with torch.no_grad():
        for path, weight in block.named_parameters():
            shared = ("mlp.down_proj", "mlp.shared_expert.down_proj", "mlp.experts.down_proj")
            if path.startswith((f"{TRUTHS[name].down}.weight", f"{TRUTHS[name].down}.bias", *shared)):
                weight.zero_()
    outputs: list[Tensor] = []
    for one in (model, the_subject(name).model):
        hook = block_of(one, name, layer).register_forward_hook(
            lambda _, __, out: outputs.append(out[0] if isinstance(out, tuple) else out)
        )
        with torch.no_grad():
            one(input_ids=the_ids(), use_cache=False)
        hook.remove()
    before = the_truth(name).hidden_states[layer]
    return outputs[0] - before, outputs[1] - outputs[0]


def test_every_family_is_here() -> None:
    assert set(TRUTHS) == set(CASES)
    assert set(TINY) == set(FAMILIES)


@pytest.mark.parametrize("name", SOME)
class TestAgainstHuggingFace:
    def test_the_stream_and_the_prediction(self, name: str) -> None:
        found, truth = captured(name), the_truth(name)
        for layer in range(LAYERS):
            assert difference(found["resid_pre", layer], truth.hidden_states[layer]) < CLOSE
            assert difference(found["resid_pre", layer], truth.hidden_states[(layer + 1) % LAYERS]) > FAR
        assert difference(found["final_norm", None], truth.hidden_states[-1]) < CLOSE
        scores = the_subject(name).logits(found["final_norm", None])
        assert difference(scores, truth.logits) < CLOSE
        assert difference(the_subject(name).logits(found["resid_post", LAYERS - 1]), truth.logits) > FAR

    def test_what_a_token_is(self, name: str) -> None:
        """One that another pass would not take for the same: `embed`, the matrix, and what the model's module gives."""
        subject = the_subject(name)
        own = subject.model.get_input_embeddings()(the_ids())
        assert torch.equal(subject.embed(the_ids()), own)
        assert torch.equal(subject.embedding_matrix[the_ids()], own)
        before = subject.model.get_input_embeddings().weight[the_ids()]
        scaled = CASES[name]["model_type"] in ("gemma", "gemma2", "gemma3_text")
        assert (difference(before, own) > FAR) is scaled

    @pytest.mark.parametrize("layer", range(LAYERS))
    def test_what_attention_and_mlp_add(self, name: str, layer: int) -> None:
        attention, mlp = contributions(name, layer)
        found, pre = captured(name), the_truth(name).hidden_states[layer]
        size = float((pre + attention + mlp).abs().max())
        for site, expected in (("attn_out", attention), ("mlp_out", mlp), ("resid_post", pre + attention + mlp)):
            assert float((found[site, layer] - expected).abs().max()) < CLOSE * size, site
        assert difference(found["attn_out", layer], mlp) > FAR
        assert difference(found["mlp_out", layer], attention) > FAR
        if not TRUTHS[name].parallel:
            assert difference(found["resid_mid", layer], pre + attention) < CLOSE
        else:
            with pytest.raises(InputError, match="in parallel"):
                the_subject(name).geometry.check_site("resid_mid")

    @pytest.mark.parametrize("layer", range(LAYERS))
    def test_queries_keys_and_values(self, name: str, layer: int) -> None:
        truth, found = TRUTHS[name], captured(name)
        block = block_of(the_subject(name).model, name, layer)
        read = normed(block, truth.norm, the_truth(name).hidden_states[layer])
        for site, expected in zip("qkv", truth.qkv(block, read), strict=True):
            assert difference(found[site, layer], expected) < CLOSE, site
            assert difference(found[site, layer], expected.roll(1, -1)) > FAR, site
        queries, keys = found["q", layer].shape[-1], found["k", layer].shape[-1]
        assert queries == truth.group * keys
        assert keys % truth.head_dim == 0

    @pytest.mark.parametrize("layer", range(LAYERS))
    def test_z(self, name: str, layer: int) -> None:
        """Through the output projection it is what attention adds; the first position sees its own value alone."""
        truth, found = TRUTHS[name], captured(name)
        block, z = block_of(the_subject(name).model, name, layer), captured(name)["z", layer]

        def added(z: Tensor) -> Tensor:
            return normed(block, truth.behind, linear(block.get_submodule(truth.out), z)) * truth.times

        attention, _ = contributions(name, layer)
        size = float(found["resid_post", layer].abs().max())
        heads = z.unflatten(-1, (-1, truth.head_dim))
        assert float((added(z) - attention).abs().max()) < CLOSE * size
        assert float((added(heads.flip(-2).flatten(-2)) - attention).abs().max()) > FAR
        value = found["v", layer][:, 0].unflatten(-1, (-1, truth.head_dim))
        value = value if truth.clip is None else value.clamp(-truth.clip, truth.clip)
        assert difference(heads[:, 0], value.repeat_interleave(truth.group, 1)) < 1e-6
        assert difference(heads[:, 1], value.repeat_interleave(truth.group, 1)) > FAR

    @pytest.mark.parametrize("layer", range(LAYERS))
    def test_the_mlp(self, name: str, layer: int) -> None:
        truth, found = TRUTHS[name], captured(name)
        if truth.up is None:
            with pytest.raises(InputError, match="mixture of experts"):
                the_subject(name).geometry.check_site("mlp_post")
            return
        block, pre = block_of(the_subject(name).model, name, layer), the_truth(name).hidden_states[layer]
        attention, mlp = contributions(name, layer)
        read = normed(block, truth.mlp_norm, pre if truth.parallel else pre + attention)
        up = linear(block.get_submodule(truth.up), read)
        gate = None if truth.gate is None else linear(block.get_submodule(truth.gate), read)
        if truth.gate == truth.up:
            gate, up = up.chunk(2, -1)
        assert found["mlp_pre", layer].shape[-1] == the_subject(name).geometry.d_mlp
        assert difference(found["mlp_pre", layer], up if gate is None else gate) < 1e-8
        post = truth.act(up) if gate is None else truth.act(gate) * up
        if gate is not None:
            assert difference(found["mlp_pre_linear", layer], up) < 1e-8
            assert difference(found["mlp_pre", layer], up) > FAR
        assert difference(found["mlp_post", layer], post) < 1e-8
        added = normed(block, truth.behind_mlp, linear(block.get_submodule(truth.down), post)) * truth.times
        size = float(found["resid_post", layer].abs().max())
        assert float((added - mlp).abs().max()) < 1e-8 * size

    def test_kept_keys_and_cut_off_blocks_change_nothing(self, name: str) -> None:
        from actmax.model.context import Context

        subject, ids = the_subject(name), the_ids()
        place = ("resid_pre", LAYERS - 1)
        cut = subject.run(subject.embed(ids), [place])[place]
        assert difference(cut, captured(name)[place]) < CLOSE
        before = Context("prefix", before=(tuple(ids[0, :4].tolist()),))
        behind = subject.run(subject.embed(ids[:1, 4:]), [place, ("final_norm", None)], context=before)
        for at in behind:
            assert difference(behind[at], captured(name)[at][:1, 4:]) < 1e-6
            assert difference(behind[at], captured(name)[at][1:, 4:]) > FAR


def test_widths_are_odd_where_the_family_allows_it() -> None:
    """Otherwise a mix-up of widths would not show."""
    wide = {name for name, truth in TRUTHS.items() if truth.head_dim == 10}
    assert wide >= {"llama", "mistral", "qwen3", "gemma", "gemma2", "gemma3_text", "mixtral", "qwen3_moe"}
    assert D_MLP not in (D_MODEL, 4 * D_MODEL)


def test_a_site_that_another_familys_table_lacks_is_not_said_to_be_none_of_the_model() -> None:
    """VaultGemma adds attention and MLP one after the other, and is read as Cohere, which adds them side by side."""
    from transformers import AutoModelForCausalLM, VaultGemmaConfig

    sizes = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = VaultGemmaConfig(**sizes, num_key_value_heads=2, head_dim=8, vocab_size=257, max_position_embeddings=32)
    read = wrap(AutoModelForCausalLM.from_config(config), byte_tokenizer()).subject.geometry
    assert read.like == "cohere"
    with pytest.raises(InputError, match=r"no module is known that reads it in vaultgemma.* read as cohere"):
        read.check_site("resid_mid")
    with pytest.raises(InputError, match="this model adds attention and MLP in parallel"):
        replace(read, model_type="cohere", like=None).check_site("resid_mid")
