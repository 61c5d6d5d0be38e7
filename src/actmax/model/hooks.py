"""Where a module or hook of other packages lies among our sites: TransformerLens's hooks and Hugging Face's modules."""

from __future__ import annotations

import re

from actmax.model.target import Place

_OWN = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
BLOCK_HOOKS = {
    **{f"hook_{site}": site for site in _OWN},
    **{f"attn.hook_{site}": site for site in ("q", "k", "v", "z")},
    "mlp.hook_pre": "mlp_pre",
    "mlp.hook_pre_linear": "mlp_pre_linear",
    "mlp.hook_post": "mlp_post",
    # the same under TransformerBridge's own names
    "hook_in": "resid_pre",
    "ln2.hook_in": "resid_mid",
    "hook_out": "resid_post",
    "attn.hook_out": "attn_out",
    "attn.o.hook_in": "z",
    "mlp.hook_out": "mlp_out",
    "mlp.out.hook_in": "mlp_post",
}
"""Sites by TransformerLens's names inside `blocks.N` (3.9; `hook_aliases` of its bridge). `mlp.in.hook_out` is left
out: which branch it is depends on whether the MLP is gated."""
BLOCK_MODULES = {
    "": "resid_post",
    **dict.fromkeys(("attn", "attention", "self_attn", "attn.attention"), "attn_out"),
    **dict.fromkeys(("attn.c_proj", "attn.attention.out_proj", "attention.dense", "self_attn.o_proj"), "attn_out"),
    **dict.fromkeys(("mlp", "mlp.c_proj", "mlp.dense_4h_to_h", "mlp.down_proj"), "mlp_out"),
    **dict.fromkeys(("mlp.c_fc", "mlp.dense_h_to_4h", "mlp.gate_proj"), "mlp_pre"),
    "mlp.up_proj": "mlp_pre_linear",
    **{f"{attention}.{one}_proj": one for attention in ("self_attn", "attn.attention") for one in ("q", "k", "v")},
}
"""Sites by the Hugging Face module of a block whose output they are, over the families of `FAMILIES`."""
_BASE = r"(?:(?:transformer|model|gpt_neox)\.)?"


def place_of(name: str) -> Place | None:
    """The site and layer where a hook of TransformerLens fires, or that a module of Hugging Face gives; None: unknown.

    `ln_final.hook_normalized` is none of ours: it fires before the final norm's weight, and `final_norm` is after it.

    Args:
        name: `blocks.8.hook_resid_pre`; or a module's name from the whole model or from its base: `model.layers.8`,
            `h.3.mlp`.

    Example:
        >>> place_of("blocks.8.attn.hook_z"), place_of("gpt_neox.layers.3"), place_of("blocks.8.ln1.hook_normalized")
        (('z', 8), ('resid_post', 3), None)
    """
    if match := re.fullmatch(r"blocks\.(\d+)\.(.+)", name, re.ASCII):
        site = BLOCK_HOOKS.get(match[2])
        return None if site is None else (site, int(match[1]))
    if name == "ln_final.hook_out" or re.fullmatch(_BASE + "(ln_f|norm|final_layer_norm)", name):
        return "final_norm", None
    if match := re.fullmatch(_BASE + r"(?:h|layers)\.(\d+)(?:\.(.+))?", name, re.ASCII):
        site = BLOCK_MODULES.get(match[2] or "")
        return None if site is None else (site, int(match[1]))
    return None
