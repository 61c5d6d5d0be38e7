"""The sizes of a subject and the sites that it has, from its config alone: nothing here imports torch or transformers.

So a layer, site or index that a model lacks is refused before anything heavy is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actmax.errors import InputError
from actmax.model.target import Target

RESIDUAL = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "final_norm")
MLP = ("mlp_pre", "mlp_pre_linear", "mlp_post")
HEADS = ("q", "k", "v", "z")
SITES = (*RESIDUAL, *MLP, *HEADS)
"""All sites, grouped by their width: the residual stream's, the MLP's, that of all heads together."""
GATED = ("llama",)
"""Families whose MLP multiplies two branches: the gate (`mlp_pre`) and the linear one (`mlp_pre_linear`)."""
RMS_NORM = ("llama",)
"""Families whose norms keep the mean of the residual stream; the others take it away."""
MODEL_TYPES = ("gpt2", "gpt_neo", "gpt_neox", "llama")
"""Hugging Face's names of the known families."""


@dataclass(frozen=True)
class Geometry:
    """The sizes of a decoder-only transformer."""

    model_type: str
    """Hugging Face's name of the family."""
    layers: int
    """Number of transformer blocks."""
    d_model: int
    """Width of the residual stream."""
    d_mlp: int
    """Number of neurons of an MLP."""
    heads: int
    """Number of query heads of a block."""
    kv_heads: int
    """Number of key and value heads of a block."""
    head_dim: int
    """Number of coordinates of a head."""
    context: int
    """The longest text that it takes, in tokens."""
    parallel: bool
    """Whether attention and MLP read the same residual stream, side by side (then there is no `resid_mid`)."""

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites that this family has."""
        missing = {"resid_mid"} if self.parallel else set()
        if self.model_type not in GATED:
            missing.add("mlp_pre_linear")
        return tuple(site for site in SITES if site not in missing)

    def width(self, site: str) -> int:
        """How many coordinates a site has."""
        if site in MLP:
            return self.d_mlp
        if site in HEADS:
            return self.head_dim * (self.kv_heads if site in ("k", "v") else self.heads)
        return self.d_model

    def depth(self, site: str, layer: int | None) -> int:
        """How many blocks must run before a site of a layer has its value."""
        if layer is None:
            return self.layers
        # what enters a block is known before the block runs; every other site needs its own block
        return layer if site == "resid_pre" else layer + 1

    def check(self, unit: Target) -> None:
        """Refuses a target that this subject does not have.

        Raises:
            InputError: names `site`, `layer`, `index` or `direction`, and what is allowed.
        """
        unit.check_subject(self)

    def check_place(self, site: str, layer: int | None) -> None:
        """Refuses a site, or a layer of it, that this subject does not have."""
        self.check_site(site)
        if site == "final_norm":
            if layer is not None:
                raise InputError("layer", layer, "final_norm takes no layer", "Say unit.layer=null.")
        elif layer is None or not 0 <= layer < self.layers:
            allowed = f"must be a number from 0 to {self.layers - 1} (this {self.model_type} has {self.layers} blocks)"
            raise InputError("layer", layer, allowed)

    def check_site(self, site: str) -> None:
        """Refuses a site that this subject does not have."""
        if site == "resid_mid" and self.parallel:
            reason = "this model adds attention and MLP in parallel, so there is no residual stream between them"
            raise InputError("site", site, reason, f"It has {', '.join(self.sites)}.")
        if site not in self.sites:
            raise InputError("site", site, f"must be one of {', '.join(self.sites)}")


def geometry(config: Mapping[str, Any]) -> Geometry:
    """The sizes in a Hugging Face config (the contents of its config.json).

    Raises:
        InputError: the family is not one that is known, or a size is missing or makes no sense.
    """
    model_type = config.get("model_type")
    if model_type not in MODEL_TYPES:
        raise InputError(
            "config",
            model_type,
            f"the model's family (model_type in its config.json) must be one of {', '.join(MODEL_TYPES)}",
            "To add one, give it an entry in FAMILIES of actmax/model/subject.py (its module paths) and in "
            "actmax/model/architecture.py (its sizes); docs/families.md shows how.",
        )
    d_model = _first(config, "hidden_size", "n_embd")
    heads = _first(config, "num_attention_heads", "num_heads", "n_head")
    four_times = 4 * d_model if model_type in ("gpt2", "gpt_neo") else None  # what Hugging Face takes where it is unset
    return Geometry(
        model_type=str(model_type),
        layers=_first(config, "num_hidden_layers", "num_layers", "n_layer"),
        d_model=d_model,
        d_mlp=_first(config, "intermediate_size", "n_inner", default=four_times),
        heads=heads,
        kv_heads=_first(config, "num_key_value_heads", default=heads),
        head_dim=_first(config, "head_dim", default=d_model // heads),
        context=_first(config, "max_position_embeddings", "n_positions"),
        parallel=model_type == "gpt_neox" and bool(config.get("use_parallel_residual", True)),
    )


def read_geometry(path: Path) -> Geometry:
    """The sizes of the model in the folder at a path, from its config.json.

    Raises:
        InputError: the file is damaged, or the family is not one that is known.
    """
    file = path / "config.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            "path", file, f"must be whole JSON ({error})", "Copy it again from where it was made."
        ) from error
    if not isinstance(content, dict):
        raise InputError("path", file, "must hold a JSON object", "Copy it again from where it was made.")
    return geometry(content)


def _first(config: Mapping[str, Any], *keys: str, default: int | None = None) -> int:
    """The size under the first key that is there: families name the same size differently."""
    found = {key: config[key] for key in keys if config.get(key) is not None}
    key, value = next(iter(found.items()), (keys[0], default))
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError("config", f"config.json's {key}: {value}", "must be a whole number from 1")
    return value
