"""What a restart optimizes: the activation of its own unit, as one number. Nothing here imports Lightning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from actmax.model.context import NONE, Context
from actmax.model.target import Place, Target, read_own

LAST: Place = ("final_norm", None)
"""Where the subject's head reads."""


@dataclass(frozen=True)
class Objective:
    """What a restart minimizes beside its priors: minus its activation (or plus, to minimize it), in a context."""

    reduction: Literal["mean", "last", "max"] = "mean"
    """How a unit's activations at all positions become one number."""
    sign: Literal["maximize", "minimize"] = "maximize"
    """Whether to maximize or minimize that number."""
    positions: Literal["own", "last"] = "own"
    """Which positions are read: those of the optimized tokens, or the last of the whole input."""
    context: Context = NONE
    """What stands around the tokens."""

    @property
    def seen(self) -> Context:
        """What stands around the tokens in a forward pass: nothing behind them where they alone are read."""
        return self.context if self.positions == "last" else self.context.without_after()

    def activation(self, values: Float[Tensor, "copies read ..."]) -> Float[Tensor, "rows ..."]:
        """One number per row, from a unit's activations at all positions of `Subject.run` in `seen`.

        Reduced over positions in each surrounding; then the mean over these.
        """
        if self.positions == "last" or self.reduction == "last":
            found = values[:, -1]
        else:
            found = values.mean(1) if self.reduction == "mean" else values.amax(1)
        return self.averaged(found)

    def averaged(self, values: Float[Tensor, "copies ..."]) -> Float[Tensor, "rows ..."]:
        """The mean over the surroundings of each row."""
        count = self.context.count
        return values.unflatten(0, (-1, count)).mean(1) if count > 1 else values

    def loss(self, activation: Float[Tensor, " rows"]) -> Float[Tensor, " rows"]:
        """The loss of each restart, without priors."""
        return -activation if self.sign == "maximize" else activation


@dataclass(frozen=True)
class Row:
    """One restart: a unit and a seed."""

    unit: Target
    """The unit whose activation is optimized."""
    seed: int
    """Seed of the initial embedding."""


def own_activations(
    captured: Mapping[Place, Tensor], units: Sequence[Target], objective: Objective, dtype: torch.dtype = torch.float64
) -> Float[Tensor, " rows"]:
    """The activation of each row's own unit, reduced over positions, from what `Subject.run` captured."""
    return objective.activation(read_own(captured, units).to(dtype))


def by_unit(rows: Sequence[Row]) -> dict[Target, list[int]]:
    """The numbers of the rows of each unit, units in the order of their first row."""
    numbers: dict[Target, list[int]] = {}
    for number, row in enumerate(rows):
        numbers.setdefault(row.unit, []).append(number)
    return numbers
