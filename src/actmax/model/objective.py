"""What a restart is asked for: the activation of its own unit, as one number. Nothing here imports Lightning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from actmax.model.architecture import Unit
from actmax.model.subject import Place

LAST: Place = ("final_norm", None)
"""What the subject's head reads."""


@dataclass(frozen=True)
class Objective:
    """What a restart minimizes beside its priors: minus its activation (or plus, to minimize it)."""

    reduction: Literal["mean", "last", "max"] = "mean"
    """Over positions."""
    sign: Literal["maximize", "minimize"] = "maximize"
    """Which way."""

    def activation(self, values: Float[Tensor, "rows tokens"]) -> Float[Tensor, " rows"]:
        """A unit's activations over positions to one number per restart."""
        if self.reduction == "mean":
            return values.mean(1)
        return values[:, -1] if self.reduction == "last" else values.amax(1)

    def loss(self, activation: Float[Tensor, " rows"]) -> Float[Tensor, " rows"]:
        """The loss of each restart, without priors."""
        return -activation if self.sign == "maximize" else activation


@dataclass(frozen=True)
class Row:
    """One restart: a unit and a seed."""

    unit: Unit
    """What is maximized."""
    seed: int
    """Of the initial embedding."""


def own_activations(
    captured: Mapping[Place, Tensor], units: Sequence[Unit], objective: Objective, dtype: torch.dtype = torch.float64
) -> Float[Tensor, " rows"]:
    """The activation of each row's own unit, reduced over positions, from what `Subject.run` captured."""
    places = [(unit.site, unit.layer) for unit in units]
    if len(set(places)) == 1:
        target = captured[places[0]]
        index = torch.tensor([unit.index for unit in units], device=target.device)
        values = target.gather(2, index[:, None, None].expand(-1, target.shape[1], 1))[..., 0]
    else:
        values = torch.stack([captured[place][row, :, units[row].index] for row, place in enumerate(places)])
    return objective.activation(values.to(dtype))


def by_unit(rows: Sequence[Row]) -> dict[Unit, list[int]]:
    """The numbers of the rows of each unit, units in the order of their first row."""
    numbers: dict[Unit, list[int]] = {}
    for number, row in enumerate(rows):
        numbers.setdefault(row.unit, []).append(number)
    return numbers
