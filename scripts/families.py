"""Which model types of `transformers` pass, by the table and as families that are not known: lists in Markdown.

A causal language model of each type that can be built from a small config, its weights drawn at random, is taken as a
subject in float32. By the table: its own entry, all identities. Alone: its entry is not looked at, and it is read as
the other known kinds of block (`model.identities.recognised`).

    python scripts/families.py [MODEL_TYPE ...]
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from actmax.errors import InputError
from actmax.model.architecture import RESIDUAL, SIZES, geometry
from actmax.model.identities import measure, recognised
from actmax.model.subject import Subject, byte_tokenizer, settle
from reference import wrapped

SMALL = {
    ("hidden_size", "n_embd", "d_model", "word_embed_proj_dim", "dim"): 32,
    ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "decoder_layers"): 3,
    ("num_attention_heads", "n_head", "num_heads", "n_heads", "decoder_attention_heads"): 4,
    ("num_key_value_heads", "num_kv_heads"): 2,
    ("head_dim",): 8,
    ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "decoder_ffn_dim"): 40,
    ("moe_intermediate_size", "shared_expert_intermediate_size", "expert_ffn_hidden_size"): 12,
    ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"): 4,
    ("num_experts_per_tok", "moe_k", "num_experts_per_token", "moe_topk"): 2,
    ("n_group", "topk_group", "n_shared_experts", "first_k_dense_replace"): 1,
    ("vocab_size",): 257,
    ("max_position_embeddings", "n_positions", "max_seq_len"): 64,
    ("bos_token_id", "eos_token_id"): 256,
    ("rotary_dim",): 4,
    ("attention_types",): [[["global", "local", "global"], 1]],
}
"""Sizes that configs have under these names; a config takes those that it knows."""
MOST = 5_000_000
"""Most parameters of what still counts as built from a small config."""
ATTENTION = ("q", "k", "v", "z")


@dataclass(frozen=True)
class Outcome:
    """What became of a model type."""

    model_type: str
    table: str
    alone: str
    sites: tuple[str, ...] = ()
    """The sites that it has where its entry is not looked at."""


def small(model_type: str) -> Any:
    """A small causal language model of a type, weights drawn at random.

    Raises:
        Exception: of whatever kind, where there is none.
    """
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    kind = CONFIG_MAPPING[model_type]
    known = kind().to_dict()
    asked = {name: value for names, value in SMALL.items() for name in names if name in known}
    asked |= {"pad_token_id": None} if "pad_token_id" in known else {}
    asked |= {"layer_types": None} if "layer_types" in known else {}
    try:
        config = kind(**asked)
    except Exception:
        config = kind(**{name: value for name, value in asked.items() if name != "head_dim"})
    with torch.device("meta"):
        count = sum(one.numel() for one in AutoModelForCausalLM.from_config(config).parameters())
    if count > MOST:
        raise ValueError(f"the small config still has {count / 1e6:,.0f} million parameters")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # a bias of 0 or a norm of 1 would hide what is wrong
        for weight in model.parameters():
            centre = 1.0 if weight.dim() == 1 and bool((weight == 1).all()) else 0.0
            weight.copy_(centre + 0.2 * torch.randn(weight.shape, generator=generator))
    model.requires_grad_(False).eval()
    settle(model)
    return model


def outcome(model_type: str) -> Outcome | None:
    """What becomes of a model type; None where no small model of it can be built."""
    try:
        model = small(model_type)
        with torch.no_grad():
            model(input_ids=torch.arange(4)[None], use_cache=False)
    except Exception as error:
        print(f"{model_type}: none can be built ({_short(error)})", file=sys.stderr)
        return None
    make = partial(Subject, model_type, "random", None, model, byte_tokenizer())
    config = model.config.to_dict()
    table = "–"
    if model_type in SIZES:
        sizes = geometry(config)
        failed = [one for one in measure(make(sizes)) if not one.passed]
        table = f"all {len(sizes.own_sites)} sites" if not failed else f"fails: {failed[0]}"
    try:
        found = recognised(make, config).geometry
    except InputError as error:
        return Outcome(model_type, table, f"fails: {_reason(error)}")
    except Exception as error:  # a model whose parts are called otherwise can fail in any way
        return Outcome(model_type, table, f"fails: {_short(error)}")
    return Outcome(model_type, table, f"as {found.family}, {len(found.sites)} sites", found.sites)


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:110]}"


def _reason(error: InputError) -> str:
    return error.allowed.rpartition("one of these")[2].strip(" ,;")


def outcomes(model_types: list[str]) -> Iterator[Outcome]:
    """Of those that can be built."""
    for model_type in model_types:
        found = outcome(model_type)
        if found is not None:
            yield found


def main(asked: list[str]) -> None:
    """Prints the totals, what passes, and why what fails does."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    known = asked or sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    found = list(outcomes(known))
    table = [one.model_type for one in found if one.table.startswith("all")]
    alone = sum({*RESIDUAL, *ATTENTION} - {"resid_mid"} <= set(one.sites) for one in found)
    print(
        f"Of {len(known)} model types {len(found)} can be built from a small config.\n\n"
        f"- By the table {len(table)} pass with all their sites.\n"
        f"- Without their entries {alone} pass with the sites of the residual stream and of the attention.\n\n"
        "What each is read as without its entry:\n"
    )
    read = sorted({(one.alone, len(one.sites)) for one in found if one.sites}, key=lambda kind: -kind[1])
    for kind, sites in read:
        names = ", ".join(one.model_type for one in found if one.alone == kind)
        print(wrapped(f"{kind.split()[1].strip(',')}, {sites} sites: {names}", "- "))
    print("\nWhat passes as none, and why:\n")
    failed = [one for one in found if not one.sites]
    for why in dict.fromkeys(one.alone for one in failed):
        names = ", ".join(one.model_type for one in failed if one.alone == why)
        print(wrapped(f"{names}: {why.removeprefix('fails: ')}", "- "))
    for one in found:
        if one.table.startswith("fails"):
            print(f"\n{one.model_type}, by its own entry, {one.table}")


if __name__ == "__main__":
    main(sys.argv[1:])
