"""Priors at equal budget: what each buys in agreement of restarts, and what it keeps of the activation once snapped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
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
    "cross_entropy_initial_mean",
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
        `prior site condition seconds units restarts`, the means of `MEANS`, `jaccard_above` and
        `displacement_cosine_assigned_above` (over their null, with `_se` over units), `z_snapped_se`, a column per
        verdict, and `pareto_tokens` and `pareto_embeddings`: whether no other rung of the site is at least as good in
        both agreement above its null and z once snapped, and better in one. Units are the replicates of the errors.
    """
    above = {f"{name}_above": units[name] - units[f"null_{name}_mean"] for name in SPACES.values()}
    groups = units.assign(**above).groupby(["prior", "site", "condition"], sort=False)
    rows = [
        {"prior": prior, "site": site, "condition": condition, "seconds": seconds.get((condition, site), np.nan)}
        | _means(pd.DataFrame(group))
        for (prior, site, condition), group in groups  # pyright: ignore[reportGeneralTypeIssues]
    ]
    table = pd.DataFrame(rows)
    table = table.sort_values(["site", "prior"], key=lambda column: column.map(_order), kind="stable")
    for space, name in SPACES.items():
        fronts = [
            front(group["z_snapped"].to_numpy(), group[f"{name}_above"].to_numpy())
            for _, group in table.groupby("site", sort=False)
        ]
        table[f"pareto_{space}"] = np.concatenate(fronts)
    return table.reset_index(drop=True)


def _order(name: str) -> tuple[int, str]:
    return (RUNGS.index(name), "") if name in RUNGS else (len(RUNGS), name)


def _means(group: pd.DataFrame) -> dict[str, Any]:
    above = [f"{name}_above" for name in SPACES.values()]
    means = pd.DataFrame(group[[*MEANS, *above]]).mean().to_dict()
    errors = {name: group[name].sem() for name in ("z_snapped", *above)}
    verdicts = group["convergence"].value_counts().to_dict()
    row: dict[str, Any] = {"units": len(group), "restarts": group["restarts"].sum()}
    row |= means | {f"{name}_se": error for name, error in errors.items()}
    return row | {label: verdicts.get(label, 0) for label in VERDICTS}


def front(first: Float[ndarray, " rows"], second: Float[ndarray, " rows"]) -> Bool[ndarray, " rows"]:
    """Which points are on the Pareto front, both coordinates the more the better; a point with a NaN is not.

    Example:
        >>> front(np.array([1.0, 2.0, 0.5]), np.array([2.0, 1.0, 1.0])).tolist()
        [True, True, False]
    """
    points = np.stack([first, second], axis=1)
    good = np.asarray(np.isfinite(points).all(axis=1))
    covers = (points[:, None] >= points[None]).all(axis=2) & (points[:, None] > points[None]).any(axis=2)
    return good & ~(covers & good[:, None]).any(axis=0)
