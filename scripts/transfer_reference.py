"""Recomputes what a record says of its tokens in other contexts, with transformers alone.

    python scripts/transfer_reference.py RECORD MODEL      # MODEL: a folder that save_pretrained wrote

Reads `tokens.parquet`, `surroundings.parquet` and `transfer.parquet`, runs every token sequence in every surrounding
through the whole model in one pass without kept keys, reads the unit with a hook of its own, and prints the largest
difference from the table. Nothing of actmax is imported. Sites: resid_pre, resid_post, mlp_post, of GPT-2 and Llama.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from transformers import AutoModelForCausalLM

DOWN = {"gpt2": "mlp.c_proj", "llama": "mlp.down_proj"}
"""What reads the neurons of a block, by model type."""


def values_at(model: Any, site: str, layer: int, ids: list[int]) -> np.ndarray:
    """The activations of all coordinates of a site at every position of one sequence."""
    kind = model.config.model_type
    block = (model.transformer.h if kind == "gpt2" else model.model.layers)[layer]
    found: list[torch.Tensor] = []
    if site == "resid_post":
        handle = block.register_forward_hook(lambda _, __, out: found.append(out[0] if isinstance(out, tuple) else out))
    else:
        module = block if site == "resid_pre" else block.get_submodule(DOWN[kind])
        handle = module.register_forward_pre_hook(
            lambda _, args, kwargs: found.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
        )
    with torch.no_grad():
        model(torch.tensor([ids]), use_cache=False)
    handle.remove()
    return found[0][0].double().numpy()


def activation(values: np.ndarray, tokens: int, start: int, objective: dict[str, str]) -> float:
    """One number of the values of a unit: over the tokens' own positions, or the last of all."""
    if objective["positions"] == "last":
        return float(values[-1])
    own = values[start : start + tokens]
    reduced = {
        "auto": own.mean(),
        "mean": own.mean(),
        "last": own[-1],
        "max": own.max(),
    }  # auto: the mean, of a coordinate
    return float(reduced[objective["reduction"]])


def recomputed(record: Path, model: Any) -> pd.DataFrame:
    """The rows of `transfer.parquet` with a column `recomputed`."""
    config = yaml.safe_load((record / "config.yaml").read_text())
    tokens, around = (pd.read_parquet(record / f"{name}.parquet") for name in ("tokens", "surroundings"))
    table = pd.read_parquet(record / "transfer.parquet")
    found = []
    for row in table.to_dict("records"):
        named = ["site", "layer", "index", "seed"]
        ids = tokens.loc[(tokens[named] == [row[name] for name in named]).all(axis=1), "token_id"].tolist()
        tried = around.loc[~around["own"] & (around["context"] == row["context"])]
        single = []
        for one in tried.to_dict("records"):
            before, after = list(one["before_ids"]), list(one["after_ids"])
            values = values_at(model, row["site"], row["layer"], [*before, *ids, *after])[:, row["index"]]
            single.append(activation(values, len(ids), len(before), config["objective"]))
        found.append(np.mean(single))
    return table.assign(recomputed=found)


def main() -> None:
    """Prints how far the table and what is recomputed are apart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("record", type=Path)
    parser.add_argument("model", type=Path)
    asked = parser.parse_args()
    table = recomputed(asked.record, AutoModelForCausalLM.from_pretrained(asked.model, dtype=torch.float32))
    apart, largest = (table["recomputed"] - table["activation"]).abs().max(), table["activation"].abs().max()
    print(f"{len(table)} activations of at most {largest:.4g}: {apart:.2e} apart at most")


if __name__ == "__main__":
    main()
