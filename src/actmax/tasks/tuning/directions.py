"""Directions that tell two groups of words apart at a site and layer, each beside the same from shuffled labels.

What is written is a file of directions (`actmax.model.directions`): `unit.direction=RECORD/directions.safetensors
unit.name=decoder` maximizes one. All point to group 1, and are 0 midway between the groups, or where the decoder
decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray

from actmax.model.target import Place, place_name
from actmax.stats.groups import compare
from actmax.stats.layers import ridge_logistic
from actmax.tasks.tuning.plan import Plan

SHUFFLES = 3
"""Number of shuffles of the labels whose directions are kept."""
Affine = tuple[Float[ndarray, " width"], float]
"""A vector w, and b."""


def place_directions(x: Float[ndarray, "samples width"], place: Place, plan: Plan) -> dict[str, torch.Tensor]:
    """The directions of one site and layer, by their names in the file.

    * `means`: the difference of the groups' means.
    * `decoder`: the weights of the decoder (`decode_products`) fitted to all words, over raw activations.
    * `firth`: the slopes of Firth's logistic regression of the `tuning.top` units with the largest t, one by one; 0 at
      all others. Slopes of single units add up to no joint model: it is a direction by vote.

    `NAME_shuffled_N` is the same from the N-th shuffle of the labels, within the decoders' folds (of pairs: swapped).
    Where the groups do not differ at all there is none.

    Args:
        x: activations of all words.
        place: the site and layer.
        plan: labels, shuffles and settings.
    """
    labelled = plan.folds.labels[:, : SHUFFLES + 1]
    values = x.astype(np.float64)
    columns = labelled.T
    means = [_between_means(values, labels) for labels in columns]
    firth = [_firth(values, labels, plan.settings.top) for labels in columns]
    named: Mapping[str, list[Affine]] = {"means": means, "firth": firth}
    named = {**named, "decoder": ridge_logistic(values, labelled, C=plan.settings.C)}
    found = chain.from_iterable(_tensors(place, name, some) for name, some in named.items())
    return dict(found)


def _tensors(place: Place, name: str, found: list[Affine]) -> list[tuple[str, torch.Tensor]]:
    parts: list[tuple[str, torch.Tensor]] = []
    for number, (w, b) in enumerate(found):
        if w.any():
            key = f"{place_name(*place)}/{name}" + (f"_shuffled_{number}" if number else "")
            parts += [(key, torch.from_numpy(w)), (f"{key}.bias", torch.tensor([b], dtype=torch.float64))]
    return parts


def _between_means(x: Float[ndarray, "samples width"], labels: Bool[ndarray, " samples"]) -> Affine:
    ones, zeros = x[labels].mean(0), x[~labels].mean(0)
    w = ones - zeros
    return w, float(-w @ (ones + zeros) / 2)


def _firth(x: Float[ndarray, "samples width"], labels: Bool[ndarray, " samples"], top: int) -> Affine:
    n_1, n_0 = labels.sum(), (~labels).sum()
    ones, zeros = x[labels], x[~labels]
    error = np.sqrt(ones.var(0, ddof=1) / n_1 + zeros.var(0, ddof=1) / n_0)
    t = np.divide(ones.mean(0) - zeros.mean(0), error, out=np.zeros(x.shape[1]), where=error > 0)
    chosen = np.argsort(-np.abs(t), kind="stable")[:top]
    slopes = compare(x[:, chosen], labels).table["firth_coef"].to_numpy(dtype=float)
    w = np.zeros(x.shape[1])
    w[chosen] = np.nan_to_num(slopes)
    return w, float(-w @ (ones.mean(0) + zeros.mean(0)) / 2)
