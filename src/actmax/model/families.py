"""Where the sites of each family's blocks are read: a table of module paths, one entry a family.

Sites are named as in TransformerLens. A site is an input or an output of one module of a block, or some of its columns.
What differs in a family is an option of its entry; nothing else in the house knows a family's name. That an entry is
right for a model is not believed but proved when it is loaded (`model.identities`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from actmax.model.architecture import Geometry


@dataclass(frozen=True)
class Tap:
    """Where a site is read: one side of one module of a block, or some columns of it."""

    module: str
    """Path from the block; empty for the block itself."""
    side: Literal["input", "output"]
    columns: Callable[[Geometry], Tensor] | None = None
    """Which of the module's columns are the site's, in the site's order; None for all."""
    scaled: bool = False
    """Whether the block multiplies it by `Geometry.residual_multiplier` before it adds it to the residual stream."""
    copied: bool = False
    """Whether the block goes on to change it in place, so that it must be copied when it is read."""


@dataclass(frozen=True)
class Family:
    """The module paths of one model type; to add a family, add one of these to `FAMILIES` and a size rule."""

    blocks: str
    """Path from the base model to its list of blocks."""
    final_norm: str
    """Path from the base model to the norm behind the last block."""
    taps: Mapping[str, Tap]
    """Where each site of a block is read, by the site's name."""


def watch(module: nn.Module, side: str, take: Callable[[Any], None]) -> Callable[[], None]:
    """Hands what enters or leaves a module to `take` in every pass, until what it returns is called.

    Args:
        module: any module of a block.
        side: `input` or `output`.
        take: called with the first input, or with the whole output, which may be a tuple.
    """
    if side == "input":
        return module.register_forward_pre_hook(partial(_on_input, take), with_kwargs=True).remove
    return module.register_forward_hook(partial(_on_output, take)).remove


def _on_input(take: Callable[[Any], None], module: nn.Module, inputs: tuple[Any, ...], named: Any) -> None:  # noqa: ARG001
    take(inputs[0] if inputs else named["hidden_states"])


def _on_output(take: Callable[[Any], None], module: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG001
    take(output)


def _joined(part: int, geometry: Geometry) -> Tensor:
    """Columns of q (part 0), k (1) or v (2) where one projection holds all queries, all keys, all values."""
    queries, keys = geometry.width("q"), geometry.width("k")
    start, width = [(0, queries), (queries, keys), (queries + keys, keys)][part]
    return torch.arange(width) + start


def _by_group(part: int, geometry: Geometry) -> Tensor:
    """Columns of q (part 0), k (1) or v (2) where one projection holds them group by group.

    A group is a key head, its value head and the queries that read them: queries first, then key, then value. With as
    many groups as heads that is head by head (GPT-NeoX, BLOOM), with one group all queries, a key and a value (Falcon).
    """
    queries = geometry.heads // geometry.kv_heads
    inside = [torch.arange(queries), torch.tensor([queries]), torch.tensor([queries + 1])][part]
    heads = (torch.arange(geometry.kv_heads)[:, None] * (queries + 2) + inside).flatten()
    return (heads[:, None] * geometry.head_dim + torch.arange(geometry.head_dim)).flatten()


def _half(part: int, geometry: Geometry) -> Tensor:
    """Columns of the gate (part 0) or the linear branch (1) where one projection holds both."""
    return torch.arange(geometry.d_mlp) + part * geometry.d_mlp


def _apart(attention: str, *, copied: bool = False) -> dict[str, Tap]:
    """q, k and v from projections of their own."""
    return {site: Tap(f"{attention}.{site}_proj", "output", copied=copied) for site in "qkv"}


def _fused(module: str, columns: Callable[[int, Geometry], Tensor]) -> dict[str, Tap]:
    """q, k and v from one projection."""
    return {site: Tap(module, "output", partial(columns, part)) for part, site in enumerate("qkv")}


# q and k are what the projection gives: norms of queries and keys, and rotary positions, come afterwards, inside the
# attention, where no module begins or ends in all families. `z` is what the attention's last projection reads.
def _taps(
    *,
    mid: str,
    attention_out: str,
    mlp_out: str,
    qkv: Mapping[str, Tap],
    mlp_in: str | None = None,
    linear: str | None = None,
    behind_attention: str | None = None,
    behind_mlp: str | None = None,
    scaled: bool = False,
    copied: bool = False,
) -> dict[str, Tap]:
    """The taps of a block.

    Args:
        mid: module that reads the residual stream between attention and MLP: a norm, or the MLP itself.
        attention_out: the attention's last projection.
        mlp_out: the MLP's last projection; the MLP itself where it is a mixture of experts.
        qkv: where q, k and v are read.
        mlp_in: the MLP's first projection (the gate's); None: what is inside the MLP cannot be read.
        linear: the projection of the branch that the gate multiplies; None: the MLP has no gate.
        behind_attention: the norm between the attention and the residual stream; None: there is none.
        behind_mlp: the same of the MLP.
        scaled: whether both are multiplied by `residual_multiplier` before they are added.
        copied: whether the block adds to the MLP's output in place.
    """
    inside = {} if mlp_in is None else {"mlp_pre": Tap(mlp_in, "output"), "mlp_post": Tap(mlp_out, "input")}
    branch = {} if linear is None else {"mlp_pre_linear": Tap(linear, "output")}
    return {
        "resid_pre": Tap("", "input"),
        "resid_mid": Tap(mid, "input"),
        "resid_post": Tap("", "output"),
        "attn_out": Tap(behind_attention or attention_out, "output", scaled=scaled),
        "mlp_out": Tap(behind_mlp or mlp_out, "output", scaled=scaled, copied=copied),
        "z": Tap(attention_out, "input"),
        **inside,
        **branch,
        **qkv,
    }


_SEPARATE = _apart("self_attn")
_LLAMA = partial(
    _taps,
    mid="post_attention_layernorm",
    attention_out="self_attn.o_proj",
    mlp_in="mlp.gate_proj",
    linear="mlp.up_proj",
    mlp_out="mlp.down_proj",
    qkv=_SEPARATE,
)
"""Llama's taps, but for what is named."""
_GPT = partial(
    _taps,
    mid="ln_2",
    mlp_in="mlp.c_fc",
    mlp_out="mlp.c_proj",
)
"""GPT-2's taps, all but the attention's."""
_NEOX = partial(
    _taps,
    # under a parallel residual this norm reads the block's input, or is not there: `Geometry` has no resid_mid there
    mid="post_attention_layernorm",
    mlp_in="mlp.dense_h_to_4h",
    mlp_out="mlp.dense_4h_to_h",
)
"""GPT-NeoX's taps, all but the attention's."""


def _llama(taps: Mapping[str, Tap]) -> Family:
    return Family("layers", "norm", taps)


_AS_LLAMA = _llama(_LLAMA())
_POST_NORMED = partial(_LLAMA, behind_attention="post_attention_layernorm", behind_mlp="post_feedforward_layernorm")
"""Llama's taps with norms behind attention and MLP."""
_SANDWICHED = _llama(_POST_NORMED(mid="pre_feedforward_layernorm"))  # norms before and behind
_NORMED_BEHIND = _llama(_POST_NORMED(mid="mlp"))  # norms behind attention and MLP, none before
_EXPERTS = _llama(_LLAMA(mlp_in=None, linear=None, mlp_out="mlp"))

FAMILIES: dict[str, Family] = {
    "gpt2": Family("h", "ln_f", _GPT(attention_out="attn.c_proj", qkv=_fused("attn.c_attn", _joined))),
    "gpt_neo": Family("h", "ln_f", _GPT(attention_out="attn.attention.out_proj", qkv=_apart("attn.attention"))),
    "gpt_neox": Family(
        "layers",
        "final_layer_norm",
        _NEOX(attention_out="attention.dense", qkv=_fused("attention.query_key_value", _by_group)),
    ),
    "llama": _AS_LLAMA,
    "mistral": _AS_LLAMA,
    "qwen2": _AS_LLAMA,
    "qwen3": _AS_LLAMA,
    "smollm3": _AS_LLAMA,
    "olmo": _llama(_LLAMA(qkv=_apart("self_attn", copied=True))),  # `clip_qkv` cuts them off in place
    "olmo2": _NORMED_BEHIND,
    "olmo3": _NORMED_BEHIND,
    "stablelm": _AS_LLAMA,
    "granite": _llama(_LLAMA(scaled=True)),
    "gemma": _AS_LLAMA,
    "gemma2": _SANDWICHED,
    "gemma3_text": _SANDWICHED,
    "phi": Family(
        "layers",
        "final_layernorm",
        _taps(
            mid="input_layernorm",
            attention_out="self_attn.dense",
            mlp_in="mlp.fc1",
            mlp_out="mlp.fc2",
            qkv=_SEPARATE,
        ),
    ),
    "phi3": _llama(
        {
            **_LLAMA(qkv=_fused("self_attn.qkv_proj", _joined)),
            "mlp_pre": Tap("mlp.gate_up_proj", "output", partial(_half, 0)),
            "mlp_pre_linear": Tap("mlp.gate_up_proj", "output", partial(_half, 1)),
        }
    ),
    "gptj": Family(
        "h",
        "ln_f",
        _taps(mid="ln_1", attention_out="attn.out_proj", mlp_in="mlp.fc_in", mlp_out="mlp.fc_out", qkv=_apart("attn")),
    ),
    "starcoder2": _llama(
        _GPT(mid="post_attention_layernorm", attention_out="self_attn.o_proj", qkv=_SEPARATE),
    ),
    "cohere": _AS_LLAMA,
    "falcon": Family(
        "h",
        "ln_f",
        _NEOX(
            attention_out="self_attention.dense",
            qkv=_fused("self_attention.query_key_value", _by_group),
            copied=True,  # `mlp_output += attention_output`
        ),
    ),
    "opt": Family(
        "decoder.layers",
        "decoder.final_layer_norm",
        _taps(mid="final_layer_norm", attention_out="self_attn.out_proj", mlp_in="fc1", mlp_out="fc2", qkv=_SEPARATE),
    ),
    "bloom": Family(
        "h",
        "ln_f",
        _NEOX(attention_out="self_attention.dense", qkv=_fused("self_attention.query_key_value", _by_group)),
    ),
    "mixtral": _EXPERTS,
    "qwen2_moe": _EXPERTS,
    "qwen3_moe": _EXPERTS,
    "olmoe": _llama(_LLAMA(mlp_in=None, linear=None, mlp_out="mlp", qkv=_apart("self_attn", copied=True))),
}
"""The known families, by Hugging Face's names."""
