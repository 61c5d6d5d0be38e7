"""The LightningModule: a frozen subject, a learnable embedding per restart, and many restarts in one batch.

The loss is a sum over restarts, the optimizers work element by element, and no operation mixes rows; so what a restart
does depends on no other restart, beyond rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from actmax.architecture import Unit
from actmax.subject import Place, Subject

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
"""Only optimizers that work element by element: any other would let restarts feel each other."""


@dataclass(frozen=True)
class Objective:
    """What a restart minimizes: minus its activation (or plus, to minimize it), plus priors."""

    reduction: Literal["mean", "last", "max"] = "mean"
    """Over positions."""
    sign: Literal["maximize", "minimize"] = "maximize"
    """Which way."""
    l2: float = 0.0
    """Weight of the sum of squares of the embedding."""

    def activation(self, values: Float[Tensor, "rows tokens"]) -> Float[Tensor, " rows"]:
        """A unit's activations over positions to one number per restart."""
        if self.reduction == "mean":
            return values.mean(1)
        return values[:, -1] if self.reduction == "last" else values.amax(1)

    def loss(
        self, activation: Float[Tensor, " rows"], embeddings: Float[Tensor, "rows tokens d_model"]
    ) -> Float[Tensor, " rows"]:
        """The loss of each restart."""
        loss = -activation if self.sign == "maximize" else activation
        # a weight of 0 costs nothing and cannot turn an overflow of the square into NaN
        return loss + self.l2 * embeddings.square().sum((1, 2)) if self.l2 else loss


@dataclass(frozen=True)
class Row:
    """One restart: a unit and a seed."""

    unit: Unit
    """What is maximized."""
    seed: int
    """Of the initial embedding."""


@dataclass(frozen=True)
class Steps:
    """What stands in for data. It has no state, and says so, for Lightning else warns at every resume."""

    count: int
    """How many steps."""

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.count))

    def state_dict(self) -> dict[str, int]:
        """Nothing to keep."""
        return {}

    def load_state_dict(self, state_dict: Mapping[str, int]) -> None:
        """Nothing to take up."""


class Maximization(LightningModule):
    """Optimizes one embedding per restart against a frozen subject.

    The subject is no submodule: no checkpoint carries its weights, no trainer switches its dropout on.

    Args:
        subject: the frozen language model.
        rows: the restarts.
        initial: their initial embeddings, shape (restarts, tokens, d_model).
        objective: what they minimize.
        optimizer: a name of `OPTIMIZERS`.
        lr: its learning rate.
        options: its other arguments.
        steps: how many steps.
        max_rows: rows per forward pass; None for all at once.
        identity: what a checkpoint must name to be this job's own.
        job: the restarts of the whole job, where `rows` are a share of them; None where they are all.
    """

    def __init__(
        self,
        subject: Subject,
        rows: Sequence[Row],
        initial: Float[Tensor, "restarts tokens d_model"],
        *,
        objective: Objective,
        optimizer: str = "adam",
        lr: float = 0.001,
        options: Mapping[str, Any] | None = None,
        steps: int = 500,
        max_rows: int | None = None,
        identity: Mapping[str, str | None] | None = None,
        job: Sequence[Row] | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.__dict__["subject"] = subject  # past nn.Module's registration
        self.rows = tuple(rows)
        self.job = self.rows if job is None else tuple(job)
        if [row for numbers in by_unit(self.rows).values() for row in numbers] != list(range(len(self.rows))):
            raise ValueError("the rows of a unit must stand together")
        self.objective = objective
        self.optimizer = (optimizer, lr, dict(options or {}))
        self.steps = steps
        self.max_rows = len(self.rows) if max_rows is None else max_rows
        self.identity = dict(identity or {})
        # float32 whatever the subject's dtype, but never coarser than a float64 subject
        precision = torch.promote_types(torch.float32, subject.dtype)
        initial = initial.to(precision)
        self.embedding = nn.Parameter(initial.clone())
        self.register_buffer("best", initial.clone())
        self.register_buffer("best_loss", torch.full((len(self.rows),), torch.inf, dtype=precision))
        self.register_buffer("alive", torch.ones(len(self.rows), dtype=torch.bool))
        self.register_buffer("initial", initial, persistent=False)
        self.register_buffer("activation", torch.full((len(self.rows),), torch.nan, dtype=precision), persistent=False)

    subject: Subject
    best: Tensor
    best_loss: Tensor
    alive: Tensor
    initial: Tensor
    activation: Tensor

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer of all restarts."""
        name, lr, options = self.optimizer
        return OPTIMIZERS[name]([self.embedding], lr=lr, **options)

    def train_dataloader(self) -> Steps:
        """There is no data: one number per step."""
        return Steps(self.steps)

    def on_fit_start(self) -> None:
        """Brings the subject, which Lightning does not know of, to the optimizee's device."""
        self.subject.to(self.device)

    def training_step(self, batch: object, batch_idx: int) -> None:  # noqa: ARG002
        """One step of every restart, at most `max_rows` of them in a forward pass."""
        optimizer = self.optimizers()
        gradient = torch.empty_like(self.embedding)
        loss = torch.empty_like(self.best_loss)
        for chunk in self._chunks():
            leaf = self.embedding.detach()[chunk].requires_grad_()
            self.activation[chunk], loss[chunk] = self._backward(leaf, chunk)
            gradient[chunk] = leaf.grad  # pyright: ignore[reportArgumentType]
        self._judge(loss, gradient)
        # where() and not *: a frozen row's NaN must not survive as NaN * 0
        self.embedding.grad = torch.where(self.alive[:, None, None], gradient, 0)
        optimizer.step()  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]
        with torch.no_grad():
            self.embedding.copy_(torch.where(self.alive[:, None, None], self.embedding, self.best))

    def _backward(self, leaf: Tensor, chunk: slice) -> tuple[Tensor, Tensor]:
        activation = self.activations(leaf, chunk)
        loss = self.objective.loss(activation, leaf)
        self.manual_backward(loss.sum())
        return activation.detach(), loss.detach()

    def _judge(self, loss: Tensor, gradient: Tensor) -> None:
        """Keeps the best finite embedding of each restart, and freezes those that went non-finite."""
        self.alive &= loss.isfinite() & gradient.isfinite().all(2).all(1)
        better = self.alive & (loss < self.best_loss)
        self.best = torch.where(better[:, None, None], self.embedding.detach(), self.best)
        self.best_loss = torch.where(better, loss, self.best_loss)

    def _chunks(self) -> list[slice]:
        return [slice(start, start + self.max_rows) for start in range(0, len(self.rows), self.max_rows)]

    def activations(self, embeddings: Float[Tensor, "rows tokens d_model"], chunk: slice) -> Float[Tensor, " rows"]:
        """The activation of each restart of a chunk: its own unit, reduced over positions."""
        units = [row.unit for row in self.rows[chunk]]
        places = [(unit.site, unit.layer) for unit in units]
        captured = self.subject.run(embeddings, places)
        index = torch.tensor([unit.index for unit in units], device=embeddings.device)
        if len(captured) == 1:
            values = captured[places[0]].gather(2, index[:, None, None].expand(-1, embeddings.shape[1], 1))[..., 0]
        else:
            values = torch.stack([captured[place][row, :, units[row].index] for row, place in enumerate(places)])
        return self.objective.activation(values.to(embeddings.dtype))

    @torch.no_grad()
    def evaluate(self, embeddings: Float[Tensor, "restarts tokens d_model"]) -> Float[Tensor, " restarts"]:
        """The activation of each restart at some embeddings, without gradients."""
        return torch.cat([self.activations(embeddings[chunk], chunk) for chunk in self._chunks()])

    @torch.no_grad()
    def capture(self, embeddings: Float[Tensor, "restarts tokens d_model"]) -> dict[Place, Float[Tensor, "own width"]]:
        """Every coordinate at each target's site and layer, reduced over positions like the target, per restart.

        A place's rows are those of its own restarts, in the order of `rows`.
        """
        found: dict[Place, list[Tensor]] = {}
        for chunk in self._chunks():
            places = [(row.unit.site, row.unit.layer) for row in self.rows[chunk]]
            captured = self.subject.run(embeddings[chunk], places)
            for place, values in captured.items():
                own = [number for number, other in enumerate(places) if other == place]
                reduced = [self.objective.activation(values[number].T) for number in own]
                found.setdefault(place, []).append(torch.stack(reduced))
        return {place: torch.cat(parts) for place, parts in found.items()}

    @torch.no_grad()
    def outcome(self, *, interrupted: bool = False) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Where the restarts stand: initial and final embeddings, initial and final activations.

        A restart that went non-finite, also at the very last step, stands at its best finite embedding; so does every
        restart of an interrupted run.
        """
        final = self.best if interrupted else self.embedding.detach()
        activation = self.evaluate(final)
        self.alive &= activation.isfinite() & final.isfinite().all(2).all(1)
        final = torch.where(self.alive[:, None, None], final, self.best)
        activation = torch.where(self.alive, activation, self.evaluate(self.best))
        return self.initial, final, self.evaluate(self.initial), activation

    @property
    def steps_done(self) -> int:
        """How many steps were taken."""
        return self.trainer.global_step

    @property
    def frozen(self) -> Bool[Tensor, " restarts"]:
        """Which restarts went non-finite and were held."""
        return ~self.alive

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Names the job and the subject; the weights themselves stay out."""
        checkpoint["actmax"] = self.identity


def by_unit(rows: Sequence[Row]) -> dict[Unit, list[int]]:
    """The numbers of the rows of each unit, units in the order of their first row."""
    numbers: dict[Unit, list[int]] = {}
    for number, row in enumerate(rows):
        numbers.setdefault(row.unit, []).append(number)
    return numbers
