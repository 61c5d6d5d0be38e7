"""Whether units that are selected on one half of the words tell the other half apart too, and how effects shrink."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from actmax.progress import track
from actmax.stats.corrections import correct
from actmax.stats.regrouped import Regrouped
from actmax.tasks.tuning.plan import Plan
from actmax.tasks.tuning.store import Store


def replication(halves: Sequence[tuple[Regrouped, ...]], store: Store, plan: Plan) -> pd.DataFrame:
    """Selects on one half of the words (Benjamini-Hochberg over all units), tests on the other.

    A unit replicates where the other half's test has p at most alpha and the same sign. Null: the same with the other
    half's labels shuffled, which passes half of alpha where the test keeps its level.

    Args:
        halves: per site and layer the test of every unit on the first and on the second half, a column per split.
        store: the activations of all words.
        plan: the words, their halves, and the shuffles.

    Returns:
        A row per split: `split selected replicated rate null_rate_mean null_rate_high effect_selected effect_held_out
        shrinkage`.
    """
    alpha = plan.settings.alpha
    (p_1, d_1), (p_2, d_2) = (
        tuple(np.concatenate([getattr(place[side], name) for place in halves]) for name in ("p", "d"))
        for side in (0, 1)
    )
    selected = correct(p_1, "bh", axis=0) <= alpha
    replicated = selected & (p_2 <= alpha) & (np.sign(d_1) == np.sign(d_2))
    null = _null(store, plan, selected, d_1)
    columns = zip(selected.T, replicated.T, d_1.T, d_2.T, null.T, strict=True)
    return pd.DataFrame([_row(*each) for each in columns]).rename_axis("split").reset_index()


def _row(selected: ndarray, replicated: ndarray, d_1: ndarray, d_2: ndarray, null: ndarray) -> dict[str, object]:
    """The row of one split; NaN where it selects no unit."""
    # Effects are taken in the direction of the first half, so that one that turns round counts against. A unit whose
    # effect does not exist on the second half counts as none.
    count = int(selected.sum())
    sign, size = np.sign(d_1[selected]), np.abs(d_1[selected])
    seen = np.where(np.isnan(d_2[selected]), 0.0, d_2[selected])
    return {
        "selected": count,
        "replicated": int(replicated.sum()),
        "rate": replicated.sum() / count if count else np.nan,
        "null_rate_mean": null.mean() / count if count else np.nan,
        "null_rate_high": np.quantile(null, 0.95) / count if count else np.nan,
        "effect_selected": float(size.mean()) if count else np.nan,
        "effect_held_out": float((sign * seen).mean()) if count else np.nan,
        "shrinkage": 1 - (sign * seen).sum() / size.sum() if count else np.nan,
    }


def _null(
    store: Store,
    plan: Plan,
    selected: Bool[ndarray, "units splits"],
    d_1: Float[ndarray, "units splits"],
) -> Int[ndarray, "draws splits"]:
    """How many selected units replicate on the other half when its labels are shuffled."""
    splits, draws = plan.halves.shape[1], plan.draws
    # Only selected units are tested again; `start` is the number of a site and layer's first unit among all.
    outside, start = np.repeat(~plan.halves, draws, axis=1), 0
    counts = np.zeros((splits, draws), dtype=np.int64)
    for place in track(store.places, "replication null", unit="layer"):
        x = np.asarray(store[place])
        rows = slice(start, start + x.shape[1])
        start += x.shape[1]
        some = selected[rows].any(1)
        if some.any():
            tested = plan.tested(x[:, some], plan.outside, outside)
            hit = (tested.p <= plan.settings.alpha).reshape(-1, splits, draws)
            same = np.sign(tested.d).reshape(hit.shape) == np.sign(d_1[rows][some])[:, :, None]
            counts += (hit & same & selected[rows][some][:, :, None]).sum(0)
    return counts.T
