"""Priors and searches at equal budget: what each buys in agreement of restarts, and what it finds once it is tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from actmax.evidence.readings import VERDICTS
from actmax.evidence.verdicts import PRIMARY
from actmax.model.settings import CONTEXTS
from actmax.model.target import names_in
from actmax.stats.pareto import on_pareto_front

RUNGS = ("none", "l2", "norm", "manifold", "pca", "simplex", "fluency", "random", "text", "gcg", "epo")
"""From nothing to the dearest, then the searches over tokens; any other prior comes after them."""
SEARCHES = ("random", "text", "gcg", "epo")
"""The rungs that are searches over tokens."""
RENAMED = {
    "activation_snapped_mean": "activation_mean",
    "z_snapped": "z",
    "cross_entropy_mean": "cross_entropy",
}
"""Names in the table of methods of columns of the ladder."""
METHOD_COLUMNS = (
    "method",
    "context",
    "site",
    "condition",
    "units",
    "restarts",
    "activation_mean",
    "activation_max",
    "random_activation_mean",
    "z",
    "z_max",
    "null_snapped_p",
    "cross_entropy",
    "null_cross_entropy_mean",
    "shared_tokens",
    "null_shared_tokens_mean",
    "direction",
    "null_direction_mean",
    "forward_passes",
    "whole_passes",
    "seconds",
)
"""Columns of `methods.parquet`, in order."""
MEANS = (
    "activation_initial_mean",
    "activation_final_mean",
    "activation_snapped_mean",
    "random_activation_mean",
    "z_final",
    "z_snapped",
    "z_retokenised",
    "kept_snapped",
    "cosine_mean",
    "null_cosine_mean",
    "cross_entropy_mean",
    "cross_entropy_initial_mean",
    "null_cross_entropy_mean",
    "init_retention",
    "null_retention_mean",
    "shared_tokens",
    "null_shared_tokens_mean",
    "direction",
    "null_direction_mean",
)
"""Columns of `units.parquet` of which the ladder holds the mean over units."""


def ladder(units: pd.DataFrame, seconds: Mapping[tuple[str, str], float]) -> pd.DataFrame:
    """A row per condition and site: means over units of what the prior did, each beside its null.

    Args:
        units: a row per condition and unit, as collected.
        seconds: seconds of the fits, by condition and site.

    Returns:
        `prior context site condition seconds units restarts`, the means of `MEANS`, `shared_tokens_above`
        and `direction_above` (over their null, with `_se` over units), `z_snapped_se`, a column per
        verdict, and `pareto_tokens` and `pareto_embeddings`: whether no other rung of the site and context is at least
        as good in both agreement above its null and z once snapped, and better in one. Units are the replicates of the
        errors.
    """
    above = {f"{name}_above": units[name] - units[f"null_{name}_mean"] for name in PRIMARY.values()}
    keys = ["prior", "context", "site", "condition"]
    rows = []
    for _, group in units.assign(**above).groupby(keys, sort=False):
        named = group.iloc[0][keys].to_dict()
        spent = seconds.get((named["condition"], named["site"]), np.nan)
        rows.append({**named, "seconds": spent, **_means(pd.DataFrame(group))})
    table = pd.DataFrame(rows)
    table = table.sort_values("prior", key=lambda column: column.map(_order), kind="stable")
    table = table.sort_values(["site", "context"], key=lambda column: column.map(_context_order), kind="stable")
    for space, name in PRIMARY.items():
        fronts = [
            on_pareto_front(group["z_snapped"].to_numpy(), group[f"{name}_above"].to_numpy())
            for _, group in table.groupby(["site", "context"], sort=False)
        ]
        table[f"pareto_{space}"] = np.concatenate(fronts)
    return table.reset_index(drop=True)


def methods(
    rungs: pd.DataFrame, units: pd.DataFrame, gaps: pd.DataFrame, passes: Mapping[str, tuple[float, float]]
) -> pd.DataFrame:
    """A row per method and site: what it finds once it is tokens, beside random tokens.

    Args:
        rungs: the table that `ladder` made.
        units: a row per condition and unit, as collected.
        gaps: a row per restart, with its `condition`: `activation_snapped` is what its tokens give.
        passes: forward passes of a restart, by condition, and how many of them ran the whole model.

    Returns:
        `method` (`snapped` where an embedding was free), `context site condition units restarts`, `activation_mean` and
        `activation_max` over restarts, `z` and `z_max` (of both, in standard deviations of one random token sequence),
        `null_snapped_p` (of the mean against as many random sequences, on the objective's side; the largest over
        units), `cross_entropy`, `shared_tokens` and `direction` with their nulls' means, `random_activation_mean`,
        `forward_passes whole_passes seconds`. Several units: means over them.
    """
    spread = gaps["random_activation_sd"].where(gaps["random_activation_sd"] > 0)
    highest = gaps.assign(
        activation_max=gaps["activation_snapped"],
        z_max=(gaps["activation_snapped"] - gaps["random_activation_mean"]) / spread,
    )
    best = pd.DataFrame(
        highest.groupby(["condition", *names_in(highest)], dropna=False)[["activation_max", "z_max"]].max()
    )
    best = pd.DataFrame(best.groupby(["condition", "site"]).mean())
    best["null_snapped_p"] = units.groupby(["condition", "site"])["null_snapped_p"].max()
    table = rungs.merge(best, left_on=["condition", "site"], right_index=True, how="left")
    costs = [passes.get(condition, (np.nan, np.nan)) for condition in table["condition"]]
    table[["forward_passes", "whole_passes"]] = np.array(costs, dtype=float).reshape(-1, 2)
    table = table.rename(columns={"prior": "method", **RENAMED})
    table["method"] = table["method"].replace("none", "snapped")
    return pd.DataFrame(table[list(METHOD_COLUMNS)])


def by_method(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """The numbers of `methods` under each method's name, means over sites; with several contexts, `METHOD, CONTEXT`."""
    if len(set(table["context"])) > 1:
        table = table.assign(method=[f"{row['method']}, {row['context']}" for row in table.to_dict("records")])
    groups = table.drop(columns=["site", "context", "condition"]).groupby("method", sort=False)
    found = pd.DataFrame(groups.mean())
    found[["units", "restarts"]] = groups[["units", "restarts"]].sum()
    return {
        str(name): {key: None if pd.isna(value) else value for key, value in row.items()}
        for name, row in found.to_dict("index").items()
    }


def _order(name: str) -> tuple[int, str]:
    return (RUNGS.index(name), "") if name in RUNGS else (len(RUNGS), name)


def _context_order(name: str) -> tuple[int, str]:
    return (CONTEXTS.index(name), "") if name in CONTEXTS else (len(CONTEXTS), name)


def _means(group: pd.DataFrame) -> dict[str, Any]:
    above = [f"{name}_above" for name in PRIMARY.values()]
    means = pd.DataFrame(group[[*MEANS, *above]]).mean().to_dict()
    errors = {name: group[name].sem() for name in ("z_snapped", *above)}
    verdicts = group["verdict"].value_counts().to_dict()
    row: dict[str, Any] = {"units": len(group), "restarts": group["restarts"].sum()}
    row |= means | {f"{name}_se": error for name, error in errors.items()}
    return row | {verdict.value: verdicts.get(verdict, 0) for verdict in VERDICTS}
