"""The sizes of a subject and the sites that it has, from its config alone: nothing here imports torch or transformers.

So a layer, site or index that a model lacks is refused before anything heavy is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from actmax.errors import InputError
from actmax.json_text import from_json
from actmax.model.target import Target

RESIDUAL = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "final_norm")
MLP = ("mlp_pre", "mlp_pre_linear", "mlp_post")
HEADS = ("q", "k", "v", "z")
SITES = (*RESIDUAL, *MLP, *HEADS)
"""All sites, grouped by their width: the residual stream's, the MLP's, that of all heads together."""
LAYER_NORM = (
    "gpt2",
    "gpt_neo",
    "gpt_neox",
    "olmo",
    "stablelm",
    "phi",
    "gptj",
    "starcoder2",
    "cohere",
    "falcon",
    "opt",
    "bloom",
)
"""Families whose norms take the mean of the residual stream away; the others' keep it."""
TRAINED_CONTEXT = 2048
"""The context where the config names none: BLOOM and Falcon were trained on texts of this length."""


def _flag(config: Mapping[str, Any], *, key: str, default: bool) -> bool:
    return bool(config.get(key, default))


def _never(config: Mapping[str, Any]) -> bool:  # noqa: ARG001
    return False


def _always(config: Mapping[str, Any]) -> bool:  # noqa: ARG001
    return True


def _falcon_parallel(config: Mapping[str, Any]) -> bool:
    return bool(config.get("new_decoder_architecture", False)) or bool(config.get("parallel_attn", True))


def _falcon_kv_heads(config: Mapping[str, Any], heads: int) -> int:
    """As many as the config says in the newer models; in the older ones one for all queries, or one for each."""
    if config.get("new_decoder_architecture", False):
        return _first(config, "num_kv_heads", "n_head_kv", default=heads)
    return 1 if config.get("multi_query", True) else heads


@dataclass(frozen=True)
class Sizes:
    """How a family's config says what its blocks are like; what is not said here, all families say alike."""

    gated: bool = False
    """Whether the MLP multiplies two branches: the gate (`mlp_pre`) and the linear one (`mlp_pre_linear`)."""
    experts: bool = False
    """Whether the MLP is a mixture of experts: it is read as a whole (`mlp_out`), its inside is not."""
    parallel: Callable[[Mapping[str, Any]], bool] = _never
    """Whether attention and MLP read the same residual stream, by the config."""
    kv_heads: Callable[[Mapping[str, Any], int], int] | None = None
    """Number of key and value heads, by the config and the number of query heads; None: `num_key_value_heads`."""
    four_times: bool = False
    """Whether the MLP is four times as wide as the residual stream where the config does not say how wide."""
    defaults: Mapping[str, int] = field(default_factory=dict)
    """What Hugging Face takes for a size that the config leaves out, where that is a number of its own."""
    context: int | None = None
    """The longest text where the config names none; None: it must name it."""
    unlisted: tuple[str, ...] = ()
    """Keys that its models read, and that its config class does not list."""
    only: Mapping[str, Any] = field(default_factory=dict)
    """Values that keys of the config must have, if they are there: other values are blocks of another kind."""


GATED = Sizes(gated=True)
EXPERTS = Sizes(experts=True)
SIZES: dict[str, Sizes] = {
    "gpt2": Sizes(four_times=True),
    "gpt_neo": Sizes(four_times=True),
    "gpt_neox": Sizes(parallel=partial(_flag, key="use_parallel_residual", default=True)),
    "llama": GATED,
    "mistral": Sizes(gated=True, defaults={"num_key_value_heads": 8}),
    "qwen2": Sizes(gated=True, defaults={"num_key_value_heads": 32}),
    "qwen3": Sizes(gated=True, defaults={"num_key_value_heads": 32, "head_dim": 128}),
    "smollm3": Sizes(gated=True, defaults={"num_key_value_heads": 4}),
    "olmo": GATED,
    "olmo2": GATED,
    "olmo3": GATED,
    "stablelm": Sizes(
        gated=True,
        parallel=partial(_flag, key="use_parallel_residual", default=False),
        defaults={"num_key_value_heads": 32},
    ),
    "granite": GATED,
    "gemma": Sizes(gated=True, defaults={"num_key_value_heads": 16, "head_dim": 256}),
    "gemma2": Sizes(gated=True, defaults={"num_key_value_heads": 4, "head_dim": 256}),
    "gemma3_text": Sizes(gated=True, defaults={"num_key_value_heads": 4, "head_dim": 256}),
    "phi": Sizes(parallel=_always),
    "phi3": GATED,
    "gptj": Sizes(parallel=_always, four_times=True),
    "starcoder2": Sizes(defaults={"num_key_value_heads": 2}),
    "cohere": Sizes(gated=True, parallel=_always),
    "falcon": Sizes(parallel=_falcon_parallel, kv_heads=_falcon_kv_heads, four_times=True, context=TRAINED_CONTEXT),
    "opt": Sizes(only={"do_layer_norm_before": True, "_remove_final_layer_norm": False}),
    "bloom": Sizes(
        four_times=True,
        context=TRAINED_CONTEXT,
        only={"apply_residual_connection_post_layernorm": False, "slow_but_exact": False},
    ),
    "mixtral": Sizes(experts=True, defaults={"num_key_value_heads": 8}),
    "qwen2_moe": Sizes(experts=True, defaults={"num_key_value_heads": 16}),
    "qwen3_moe": Sizes(experts=True, defaults={"num_key_value_heads": 4}, unlisted=("head_dim",)),
    "olmoe": EXPERTS,
}
"""The known families, by Hugging Face's names."""
MODEL_TYPES = tuple(SIZES)
"""Hugging Face's names of the known families."""


@dataclass(frozen=True)
class Geometry:
    """The sizes of a decoder-only transformer, and which sites it has."""

    model_type: str
    """Hugging Face's name of the family."""
    layers: int
    """Number of transformer blocks."""
    d_model: int
    """Width of the residual stream."""
    d_mlp: int
    """Number of neurons of an MLP; 0 where it is a mixture of experts."""
    heads: int
    """Number of query heads of a block."""
    kv_heads: int
    """Number of key and value heads of a block."""
    head_dim: int
    """Number of coordinates of a head."""
    context: int
    """The longest text that the model takes, in tokens."""
    parallel: bool
    """Whether attention and MLP read the same residual stream, side by side (then there is no `resid_mid`)."""
    residual_multiplier: float = 1.0
    """What the outputs of attention and MLP are multiplied by before they are added to the residual stream."""
    like: str | None = None
    """The known family whose blocks it has, where its own is not known; None: its own, or not tried yet."""
    refused: tuple[tuple[str, str], ...] = ()
    """Sites that its family has and this model has not, each with the identity that failed (`model.identities`)."""

    @property
    def family(self) -> str:
        """The entry of the tables that its blocks are read by."""
        return self.like or self.model_type

    @property
    def own_sites(self) -> tuple[str, ...]:
        """The sites that its family has; of a family that is not known, all."""
        sizes = SIZES.get(self.family, GATED)
        missing = {"resid_mid"} if self.parallel else set()
        if not sizes.gated:
            missing.add("mlp_pre_linear")
        if sizes.experts:
            missing |= set(MLP)
        return tuple(site for site in SITES if site not in missing)

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites that it has: those of its family, without those whose identity failed."""
        refused = dict(self.refused)
        return tuple(site for site in self.own_sites if site not in refused)

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
            if self.like is not None:  # a sum does not tell in which order its parts were added
                reason = f"no module is known that reads it in {self.model_type}, whose blocks are read as {self.like}"
            raise InputError("site", site, reason, f"It has {', '.join(self.sites)}.")
        if reason := dict(self.refused).get(site):
            way_out = f"It has {', '.join(self.sites)}." if self.sites else "No site of it is proved."
            raise InputError("site", site, f"is not what its name says in this {self.model_type}: {reason}", way_out)
        if site in MLP and self.family in SIZES and SIZES[self.family].experts:
            reason = "the MLP of this model is read as a whole (mlp_out): a mixture of experts, or of no known kind"
            raise InputError("site", site, reason, f"It has {', '.join(self.sites)}.")
        if site not in self.sites:
            raise InputError("site", site, f"must be one of {', '.join(self.sites)}")


def geometry(config: Mapping[str, Any], *, like: str | None = None) -> Geometry:
    """The sizes in a Hugging Face config (the contents of its config.json).

    Args:
        config: the config.
        like: the known family to read it by, where its own is not known.

    Raises:
        InputError: the family is not one that is known, or a size is missing or makes no sense.
    """
    model_type = config.get("model_type")
    if like is None and model_type not in SIZES:
        raise unknown_family(model_type)
    return _sizes(config, SIZES[like or str(model_type)], like)


def outline(config: Mapping[str, Any]) -> Geometry:
    """The sizes in a config before the model is loaded; of a family that is not known, by the names that others use.

    Whether a model of such a family has the sites is for the identities to say (`model.identities`).

    Raises:
        InputError: a size is missing or makes no sense.
    """
    if config.get("model_type") in SIZES:
        return geometry(config)
    try:
        return _sizes(config, Sizes(gated=True, experts=True), None)
    except InputError as error:
        raise unknown_family(config.get("model_type"), f", and {error.key}={error.value} makes no sense") from error


def unknown_family(model_type: object, why: str = "") -> InputError:
    """The error for a model whose blocks are of no known kind.

    Args:
        model_type: Hugging Face's name of its family.
        why: what was tried, as the end of a clause.
    """
    return InputError(
        "config",
        model_type,
        f"the model's family (model_type in its config.json) must be one of {', '.join(SIZES)}, or have the blocks of "
        f"one of these{why}",
        "To add one, give it an entry in FAMILIES of actmax/model/families.py (its module paths) and in SIZES of "
        "actmax/model/architecture.py (its sizes); docs/families.md shows how.",
    )


def _sizes(config: Mapping[str, Any], rule: Sizes, like: str | None) -> Geometry:
    for key, value in rule.only.items():
        if config.get(key, value) != value:
            name = f"config.json's {key}: {config[key]}"
            raise InputError("config", name, f"of {config.get('model_type')} only models with {value} are known")
    config = {**rule.defaults, **config}
    d_model = _first(config, "hidden_size", "n_embd", "n_embed", "d_model")
    heads = _first(config, "num_attention_heads", "num_heads", "n_head", "n_heads")
    four_times = 4 * d_model if rule.four_times else None  # what Hugging Face takes where it is unset
    wide = ("intermediate_size", "n_inner", "ffn_hidden_size", "ffn_dim")
    d_mlp = 0 if rule.experts else _first(config, *wide, default=four_times)
    by_rule = None if rule.kv_heads is None else rule.kv_heads(config, heads)
    return Geometry(
        model_type=str(config.get("model_type")),
        layers=_first(config, "num_hidden_layers", "num_layers", "n_layer", "n_layers"),
        d_model=d_model,
        d_mlp=d_mlp,
        heads=heads,
        kv_heads=by_rule or _first(config, "num_key_value_heads", default=heads),
        head_dim=_first(config, "head_dim", default=max(1, d_model // heads)),
        context=_first(
            config, "max_position_embeddings", "n_positions", "seq_length", "max_seq_len", default=rule.context
        ),
        parallel=rule.parallel(config),
        residual_multiplier=float(config.get("residual_multiplier", 1.0)),
        like=like,
    )


def read_geometry(path: Path) -> Geometry:
    """The sizes of the model in the folder at a path, from its config.json.

    Raises:
        InputError: the file is damaged, or its sizes make no sense.
    """
    file = path / "config.json"
    try:
        content = from_json(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            "path", file, f"must be whole JSON ({error})", "Copy it again from where it was made."
        ) from error
    if not isinstance(content, dict):
        raise InputError("path", file, "must hold a JSON object", "Copy it again from where it was made.")
    return outline(content)


def _first(config: Mapping[str, Any], *keys: str, default: int | None = None) -> int:
    """The size under the first key that is there: families name the same size differently."""
    found = {key: config[key] for key in keys if config.get(key) is not None}
    key, value = next(iter(found.items()), (keys[0], default))
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError("config", f"config.json's {key}: {value}", "must be a whole number from 1")
    return value
