"""Priors at equal budget: what each buys in agreement of restarts, and what it keeps of the activation once snapped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool
from numpy import ndarray

from actmax.reproducibility import VERDICTS

RUNGS = ("none", "l2", "norm", "manifold", "pca", "simplex", "fluency")
"""From nothing to the dearest; any other prior comes after them."""
SPACES = {"tokens": "jaccard", "embeddings": "displacement_cosine_assigned"}
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
    "null_cross_entropy_mean",
    "init_retention",
    "null_retention_mean",
    "jaccard",
    "null_jaccard_mean",
    "displacement_cosine_assigned",
    "null_displacement_cosine_assigned_mean",
)


def ladder(units: pd.DataFrame, seconds: Mapping[tuple[str, str], float]) -> pd.DataFrame:
    """A row per condition and site: means over units of what the prior did, each beside its null.

    Args:
        units: a row per condition and unit, as collected.
        seconds: of the fits, by condition and site.

    Returns:
        `prior site condition units restarts seconds`, the means of `MEANS`, `jaccard_above` and
        `displacement_cosine_assigned_above` (over their null, with `_se` over units), `z_snapped_se`, a column per
        verdict, and `pareto_tokens` and `pareto_embeddings`: whether no other rung of the site is at least as good in
        both agreement above its null and z once snapped, and better in one. Units are the replicates of the errors.
    """
    measured = units.assign(
        **{f"{name}_above": units[name] - units[f"null_{name}_mean"] for name in SPACES.values()},
    )
    rows = []
    for address, group in measured.groupby(["prior", "site", "condition"], sort=False):
        prior, site, condition = (str(part) for part in tuple(address))
        row = {"prior": prior, "site": site, "condition": condition, **_means(pd.DataFrame(group))}
        rows.append({**row, "seconds": seconds.get((condition, site), np.nan)})
    table = pd.DataFrame(rows)
    table = table.sort_values(["site", "prior"], key=lambda column: column.map(_order), kind="stable")
    for space, name in SPACES.items():
        table[f"pareto_{space}"] = np.concatenate(
            [front(group["z_snapped"], group[f"{name}_above"]) for _, group in table.groupby("site", sort=False)]
        )
    return table.reset_index(drop=True)


def _order(name: str) -> tuple[int, str]:
    return (RUNGS.index(name), "") if name in RUNGS else (len(RUNGS), name)


def _means(group: pd.DataFrame) -> dict[str, Any]:
    above = [f"{name}_above" for name in SPACES.values()]
    row: dict[str, Any] = {"units": len(group), "restarts": int(group["restarts"].sum())}
    row |= {name: float(group[name].mean()) for name in (*MEANS, *above)}
    row |= {f"{name}_se": float(group[name].sem()) for name in ("z_snapped", *above)}
    return row | {label: int((group["convergence"] == label).sum()) for label in VERDICTS}


def front(first: pd.Series, second: pd.Series) -> Bool[ndarray, " rows"]:
    """Which points are on the Pareto front, both coordinates the more the better; a point with a NaN is not.

    Example:
        >>> front(pd.Series([1.0, 2.0, 0.5]), pd.Series([2.0, 1.0, 1.0])).tolist()
        [True, True, False]
    """
    points = np.stack([first.to_numpy(float), second.to_numpy(float)], axis=1)
    good = np.isfinite(points).all(axis=1)
    covers = (points[:, None] >= points[None]).all(axis=2) & (points[:, None] > points[None]).any(axis=2)
    return good & ~(covers & good[:, None]).any(axis=0)
