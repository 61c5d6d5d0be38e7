"""A tiny config of every family, with odd sizes: grouped heads, wide heads, biases, multipliers, windows.

3 blocks of 24 dims; 4 query heads on 2 key heads of 10 dims, where the family allows it; windows of 3 tokens.
"""

from __future__ import annotations

from typing import Any

import pytest

LAYERS, D_MODEL, D_MLP, WINDOW = 3, 24, 40, 3
_MODERN = {
    "num_hidden_layers": LAYERS,
    "hidden_size": D_MODEL,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": D_MLP,
    "max_position_embeddings": 32,
}
_WIDE = {**_MODERN, "head_dim": 10}
_WINDOWS = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
_QWEN_WINDOWS = {**_WINDOWS, "use_sliding_window": True, "max_window_layers": 1}
_SMOL_WINDOWS = {**_WINDOWS, "use_sliding_window": True}
_PARTIAL = {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.67}}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 12}

TINY: dict[str, dict[str, Any]] = {
    "gpt2": {"n_layer": LAYERS, "n_embd": D_MODEL, "n_head": 3, "n_inner": D_MLP, "n_positions": 32},
    "gpt_neo": {
        "num_layers": LAYERS,
        "hidden_size": D_MODEL,
        "num_heads": 3,
        "intermediate_size": D_MLP,
        "max_position_embeddings": 32,
        "attention_types": [[["local", "global", "local"], 1]],
        "window_size": WINDOW,
    },
    "gpt_neox": {
        "num_hidden_layers": LAYERS,
        "hidden_size": D_MODEL,
        "num_attention_heads": 3,
        "intermediate_size": D_MLP,
        "max_position_embeddings": 32,
    },
    "llama": {**_WIDE, "attention_bias": True, "mlp_bias": True},
    "mistral": {**_WIDE, "sliding_window": WINDOW},
    "qwen2": {**_MODERN, **_QWEN_WINDOWS},
    "qwen3": {**_WIDE, **_QWEN_WINDOWS, "attention_bias": True},
    "smollm3": {**_MODERN, "attention_bias": True, "mlp_bias": True, "no_rope_layers": [1, 0, 1], **_SMOL_WINDOWS},
    "olmo": {**_MODERN, "attention_bias": True, "clip_qkv": 1.5},
    "olmo2": {**_MODERN, "attention_bias": True},
    "olmo3": {**_MODERN, "attention_bias": True, **_WINDOWS},
    "stablelm": {**_MODERN, **_PARTIAL, "use_qkv_bias": True, "qk_layernorm": True},
    "granite": {
        **_MODERN,
        "attention_bias": True,
        "mlp_bias": True,
        "embedding_multiplier": 6.0,
        "logits_scaling": 3.0,
        "residual_multiplier": 0.3,
        "attention_multiplier": 0.2,
    },
    "gemma": {**_WIDE, "attention_bias": True},
    "gemma2": {
        **_WIDE,
        **_WINDOWS,
        "query_pre_attn_scalar": 7,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 1.5,
    },
    "gemma3_text": {**_WIDE, **_WINDOWS, "query_pre_attn_scalar": 7, "final_logit_softcapping": 1.5},
    "phi": {**_MODERN, **_PARTIAL, "qk_layernorm": True},
    "phi3": {**_MODERN, "sliding_window": WINDOW},
    "gptj": {"n_layer": LAYERS, "n_embd": D_MODEL, "n_head": 3, "n_inner": D_MLP, "n_positions": 32, "rotary_dim": 4},
    "starcoder2": {**_MODERN, "sliding_window": WINDOW},
    "cohere": {**_MODERN, "attention_bias": True, "use_qk_norm": True, "logit_scale": 0.3},
    "falcon": {
        "num_hidden_layers": LAYERS,
        "hidden_size": D_MODEL,
        "num_attention_heads": 4,
        "num_kv_heads": 2,
        "new_decoder_architecture": True,
        "ffn_hidden_size": D_MLP,
        "bias": True,
    },
    "opt": {
        "num_hidden_layers": LAYERS,
        "hidden_size": D_MODEL,
        "num_attention_heads": 3,
        "ffn_dim": D_MLP,
        "max_position_embeddings": 32,
        "word_embed_proj_dim": D_MODEL,
    },
    "bloom": {"n_layer": LAYERS, "hidden_size": D_MODEL, "n_head": 3},
    "mixtral": {**_WIDE, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": WINDOW},
    "qwen2_moe": {**_MODERN, **_EXPERTS, "shared_expert_intermediate_size": 20, "mlp_only_layers": [1]},
    "qwen3_moe": {**_WIDE, **_EXPERTS, "attention_bias": True},
    "olmoe": {**_MODERN, "num_experts": 4, "num_experts_per_tok": 2, "clip_qkv": 1.5},
}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt_neox sequential": ("gpt_neox", {"use_parallel_residual": False}),
    "stablelm parallel": ("stablelm", {"use_parallel_residual": True}),
    "falcon one norm": ("falcon", {"num_ln_in_parallel_attn": 1}),
    "falcon one key": ("falcon", {"new_decoder_architecture": False, "multi_query": True}),
    "falcon alibi": (
        "falcon",
        {
            "new_decoder_architecture": False,
            "multi_query": False,
            "num_kv_heads": 4,
            "alibi": True,
            "parallel_attn": False,
        },
    ),
    "bloom wide": ("bloom", {"n_head": 2}),
}
"""Other kinds of block that a family's config can ask for."""
CASES = {name: {"model_type": name, **sizes} for name, sizes in TINY.items()} | {
    name: {"model_type": family, **TINY[family], **changes} for name, (family, changes) in VARIANTS.items()
}
"""All of them as an `architecture`, by name."""

KINDS = ("gpt2", "gpt_neox", "llama", "gemma2", "olmo2", "falcon", "mixtral")
"""One family of each kind of block; the others are among the slow tests."""
SOME = [name if name in KINDS else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
