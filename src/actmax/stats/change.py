"""What a maximization did to its target and to the target's neighbours, over restarts that are really paired."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy import stats

from actmax.errors import InputError
from actmax.stats._inputs import Readable, aligned, check_unit, check_values, index_of
from actmax.stats.groups import P_COLUMNS, SEPARATED, compare

DESCRIPTIVE = tuple(name for name in P_COLUMNS if name != "paired_p")
"""The unpaired tests: beside the paired one they describe, since they ignore that a restart is its own control."""


@dataclass(frozen=True)
class BeforeAfter:
    """Every coordinate of a site, optimized against initial."""

    table: pd.DataFrame
    """A row per coordinate: `coordinate is_target paired_difference paired_difference_low paired_difference_high
    descriptive` and the columns of `compare`. Group 0 is the initial noise, group 1 the optimum. `descriptive` names
    the tests that ignore the pairing. The corrections of the neighbours leave out the target, which was chosen
    beforehand; the target's own family is itself."""
    restarts: int
    """How many pairs each row stands on."""
    alpha: float
    """Level of the tests; the intervals cover 1 - alpha."""

    @property
    def headline(self) -> dict[str, Any]:
        """The change of the target with its interval and p, and how many of its neighbours changed beyond chance.

        A neighbour that moved by one amount in every restart has no t; it has changed all the same.
        """
        rows = self.table.to_dict("records")
        target = next(row for row in rows if row["is_target"])
        others = [row for row in rows if not row["is_target"]]
        moved = [row for row in others if _changed(row, self.alpha)]
        unclear = [row for row in others if not _changed(row, self.alpha)]
        return {
            "restarts": self.restarts,
            "alpha": self.alpha,
            "difference": target["paired_difference"],
            "difference_low": target["paired_difference_low"],
            "difference_high": target["paired_difference_high"],
            "p": target["paired_p"],
            "status": target["status"],
            "neighbours": len(others),
            "neighbours_changed": len(moved),
            "neighbours_further": sum(_further(row, target) for row in others),
            "neighbours_further_unclear": sum(_further(row, target) for row in unclear),
            "neighbours_rose": sum(row["paired_difference"] > 0 for row in moved),
            "neighbours_separated": sum(row["status"] in SEPARATED for row in others),
        }


def _changed(row: Mapping[Any, Any], alpha: float) -> bool:
    """Whether a coordinate changed beyond chance: by the test, or by one amount in every restart."""
    alike = row["status"] == "constant_difference" and row["paired_difference"] != 0
    return bool(alike or row["paired_p_bonferroni"] <= alpha)


def _further(row: Mapping[Any, Any], target: Mapping[Any, Any]) -> bool:
    """Whether a coordinate moved at least as far as the target on average."""
    return bool(abs(row["paired_difference"]) >= abs(target["paired_difference"]))


def before_after(
    before: Readable,
    after: Readable,
    *,
    target: int,
    alpha: float | int = 0.05,
) -> BeforeAfter:
    """Compares every coordinate of a site after a maximization with before, restart by restart.

    Null hypothesis: the mean change of a coordinate over restarts is 0. Assumptions: restarts are independent and
    their changes normal. Formula: the mean difference d̄ with d̄ ± t_{1-α/2, R-1} s_d / √R, and the paired t. Reference:
    Student 1908, Biometrika 6:1. Where a coordinate moved by one amount in every restart, t does not exist, and its
    status is `constant_difference`.

    Args:
        before: activations of the initial noise, (restarts, width) of any float dtype.
        after: activations of the optimum, the same restarts in the same order.
        target: number of the coordinate that was maximized.
        alpha: level.

    Raises:
        InputError: fewer than two restarts, of which no change can be told from chance; no such coordinate; other
            restarts or coordinates before than after.

    Example:
        >>> import numpy as np
        >>> noise = np.random.default_rng(0).normal(size=(2, 8, 3))
        >>> found = before_after(noise[0], noise[0] + noise[1] * 0.1 + [9.0, 0.0, 0.0], target=0)
        >>> found.table["is_target"].tolist()
        [True, False, False]
    """
    first, second = check_values("before", before), check_values("after", aligned("after", after, index_of(before)))
    restarts, width = first.shape
    if second.shape != first.shape:
        allowed = f"the shape of before, {first.shape}"
        raise InputError("after", f"array of shape {second.shape}", allowed, "Pass the same restarts and coordinates.")
    if restarts < 2:
        raise InputError("seeds", f"{restarts} restart", "a comparison needs at least 2 restarts, its replicates")
    target = check_unit(target, width, name="target")
    labels, pairs = np.repeat([0, 1], restarts), np.tile(np.arange(restarts), 2)
    values = np.concatenate([first, second])
    is_target = np.arange(width) == target
    # The target was chosen beforehand, its neighbours were not: two calls, for a call is a family of corrections.
    parts = []
    for chosen in (mask for mask in (is_target, ~is_target) if mask.any()):
        part = compare(values[:, chosen], labels, pairs=pairs, alpha=alpha).table
        parts.append(part.set_axis(np.flatnonzero(chosen), axis=0))
    table = pd.concat(parts).sort_index()
    lead = _changes(second.astype(np.float64) - first.astype(np.float64), is_target, alpha)
    return BeforeAfter(pd.concat([lead, table], axis=1), restarts, alpha)


def _changes(
    change: Float[ndarray, "restarts width"], is_target: Bool[ndarray, " width"], alpha: float
) -> pd.DataFrame:
    """The mean change of each coordinate over restarts, with its t interval."""
    restarts, width = change.shape
    mean, error = change.mean(0), change.std(0, ddof=1) / np.sqrt(restarts)
    half = stats.t.ppf(1 - alpha / 2, restarts - 1) * error
    return pd.DataFrame(
        {
            "coordinate": np.arange(width),
            "is_target": is_target,
            "paired_difference": mean,
            "paired_difference_low": mean - half,
            "paired_difference_high": mean + half,
            "descriptive": " ".join(DESCRIPTIVE),
        }
    )
