"""The LightningModule: a frozen subject, a learnable embedding per restart, and many restarts in one batch.

The loss is a sum over restarts, the optimizers work element by element, and no operation mixes rows; so what a restart
does depends on no other restart, beyond rounding.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from actmax.maximize import memory
from actmax.maximize.optimizee import Direct, Parameterization
from actmax.maximize.priors import Prior, Seen, coefficients
from actmax.memory import fewer, release
from actmax.model.nearest import Vocabulary
from actmax.model.objective import LAST, Objective, Row, by_unit, own_activations
from actmax.model.subject import Subject
from actmax.model.target import Place, Target

log = logging.getLogger(__name__)

Found = TypeVar("Found")

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
"""The optimizers by name, all of which work element by element: any other would mix restarts."""
BUCKET = 16
"""Fewest rows for which a pass of their own, no deeper than they need, costs less than one with deeper rows."""
PROBED = 64
"""Most rows that a job runs together without measuring first whether there is memory for them."""
ROW_TENSORS = 8
"""Number of tensors as large as the parameter: the parameter, its gradient, Adam's two, the best, and copies."""
LARGE = 1_000_000
"""Entries of the parameter from which on freed memory is handed back during the fit."""
GIVE_BACK = 25
"""Steps between two times that this is done; each takes some milliseconds."""
SHARE_OF_MEMORY = 0.5
"""Largest share of the free memory that may be kept for the backward pass; the pass itself takes some of the rest."""


@dataclass(frozen=True)
class Steps:
    """The numbers of the steps, which stand in for data: Lightning wants a loader, and one with a state to resume."""

    count: int
    """Number of steps of the fit."""

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.count))

    def state_dict(self) -> dict[str, int]:
        """An empty state: the trainer knows the step."""
        return {}

    def load_state_dict(self, state_dict: Mapping[str, int]) -> None:
        """Takes an empty state, and changes nothing."""


class Maximization(LightningModule):
    """Optimizes one embedding per restart against a frozen subject.

    The subject is no submodule: no checkpoint carries its weights, no trainer switches its dropout on. All that is
    learned or kept of a restart is a row of a tensor: `parameter` (what the optimizer moves: the embedding itself,
    unless a parameterization says otherwise), `best`, `best_loss`, `alive`, and with priors `coefficients`.

    Args:
        subject: the frozen language model.
        rows: the restarts.
        initial: their initial embeddings, shape (restarts, tokens, d_model).
        objective: what is maximized or minimized.
        priors: loss terms that are added to the objective.
        parameterization: what the optimizer moves in the place of the embedding; None for the embedding itself.
        optimizer: a name of `OPTIMIZERS`.
        lr: learning rate of the optimizer.
        options: further arguments of the optimizer.
        steps: number of steps.
        max_rows: rows per forward pass; None for all at once, or for as many as the free memory has room for.
        identity: what a checkpoint must name to be this job's own.
        job: the restarts of the whole job, where `rows` are a share of them; None where they are all.
        controls: units that run beside the job's own, and count in no running measure.
        compiled: whether the steps run the subject's blocks through PyTorch's compiler.
    """

    def __init__(
        self,
        subject: Subject,
        rows: Sequence[Row],
        initial: Float[Tensor, "restarts tokens d_model"],
        *,
        objective: Objective,
        priors: Sequence[Prior] = (),
        parameterization: Parameterization | None = None,
        optimizer: str = "adam",
        lr: float = 0.001,
        options: Mapping[str, Any] | None = None,
        steps: int = 500,
        max_rows: int | None = None,
        identity: Mapping[str, str | None] | None = None,
        job: Sequence[Row] | None = None,
        controls: Collection[Target] = (),
        compiled: bool = False,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.__dict__["subject"] = subject  # past nn.Module's registration
        self.rows = tuple(rows)
        self.job = self.rows if job is None else tuple(job)
        self.controls = tuple(controls)
        if [row for numbers in by_unit(self.rows).values() for row in numbers] != list(range(len(self.rows))):
            raise ValueError("the rows of a unit must stand together")
        self.objective = objective
        self.priors = tuple(priors)
        whole = any(prior.needs_logits for prior in self.priors)
        self._depths = [0 if whole else subject.geometry.depth(*row.unit.place) for row in self.rows]
        self.parameterization = Direct() if parameterization is None else parameterization
        self.optimizer = (optimizer, lr, dict(options or {}))
        self.steps = steps
        self.max_rows = min(len(self.rows), max_rows or len(self.rows))
        self._bounded = max_rows is not None
        self.compiled = compiled
        self.identity = dict(identity or {})
        # float32 whatever the subject's dtype, but never coarser than a float64 subject
        precision = torch.promote_types(torch.float32, subject.dtype)
        self.parameter = nn.Parameter(self.parameterization.start(initial.to(precision)))
        initial = self.parameterization.embed(self.parameter.detach(), 0.0)
        self.register_buffer("best", initial.clone())
        self.register_buffer("best_loss", torch.full((len(self.rows),), torch.inf, dtype=precision))
        self.register_buffer("alive", torch.ones(len(self.rows), dtype=torch.bool))
        if self.priors:
            self.vocabulary = Vocabulary(subject.embedding_matrix)
            self.register_buffer("coefficients", torch.zeros(len(self.rows), len(self.priors), dtype=precision))
        self.register_buffer("initial", initial.clone(), persistent=False)
        self.register_buffer("activation", torch.full((len(self.rows),), torch.nan, dtype=precision), persistent=False)

    subject: Subject
    """The frozen language model."""
    vocabulary: Vocabulary
    """The token embeddings that priors compare with; only with priors."""
    best: Tensor
    """The embedding with the lowest loss so far, a row per restart."""
    best_loss: Tensor
    """The loss of that embedding, a number per restart."""
    alive: Tensor
    """Whether a restart has stayed finite so far."""
    coefficients: Tensor
    """What multiplies each prior, a row per restart; only with priors."""
    initial: Tensor
    """The embedding before the first step, a row per restart."""
    activation: Tensor
    """The activation at the step in hand, a number per restart."""

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """One optimizer for the parameters of all restarts."""
        name, lr, options = self.optimizer
        return OPTIMIZERS[name]([self.parameter], lr=lr, **options)

    def train_dataloader(self) -> Steps:
        """The numbers of the steps: there is no data."""
        return Steps(self.steps)

    def on_fit_start(self) -> None:
        """Moves the subject, which Lightning does not know of, to the optimizee's device, and measures the memory."""
        self.subject.to(self.device)
        if not self._bounded and self.max_rows > PROBED:
            self._fit_into_memory()

    def _fit_into_memory(self) -> None:
        """Lowers `max_rows` where there is no memory for all rows at once; results change by rounding alone."""
        free = memory.free_memory(self.device)
        if free is None:
            return
        if self.device.type == "cpu":
            free = free * len(self.rows) // len(self.job)  # the other ranks of the job take the rest
        states = ROW_TENSORS * self.parameter.numel() * self.parameter.element_size()
        room = int(max(0, free - states) * SHARE_OF_MEMORY / self.bytes_per_row())
        if room < self.max_rows:
            self.max_rows = max(1, room)
            message = "%.1f GB of memory are free: %d of %d rows in a forward pass (max_rows=N sets another number)"
            log.warning(message, free / 1e9, self.max_rows, len(self.rows))

    def bytes_per_row(self) -> int:
        """Bytes that one more row, a deepest one, keeps for the backward pass: the difference of two small passes."""
        # What two rows keep less what one keeps leaves out the weights, which both keep.
        start = min(self._depths.index(max(self._depths)), max(0, len(self.rows) - 2))

        def held(count: int) -> int:
            chunk = slice(start, start + count)

            def loss() -> Tensor:
                embedding = self._embed(self.parameter.detach()[chunk].requires_grad_(), chunk)
                captured = self._run(embedding, chunk)
                value = self.objective.loss(self._reduced(captured, chunk, embedding.dtype))
                return torch.stack([value, *(self._prior_values(embedding, captured) if self.priors else [])]).sum()

            return memory.kept_for_backward(loss)

        return held(2) - held(1) if len(self.rows) > 1 else held(1)

    def training_step(self, batch: object, batch_idx: int) -> None:  # noqa: ARG002
        """One step of every restart, at most `max_rows` of them in a forward pass."""
        optimizer = self.optimizers()
        with self.subject.compiled() if self.compiled else nullcontext():
            gradient, loss, embeddings = self._within_memory(self._gradients)
        self._update_best(loss, gradient, embeddings)
        # Filled and not multiplied: a frozen row's NaN must not survive as NaN * 0.
        self.parameter.grad = gradient.masked_fill_(~self.alive[:, None, None], 0)
        optimizer.step()  # pyright: ignore[reportAttributeAccessIssue]
        if self.parameter.numel() >= LARGE and self.global_step % GIVE_BACK == 0:
            memory.give_back()

    def _gradients(self) -> tuple[Tensor, Tensor, Tensor]:
        """Gradient, loss and embedding of every restart; a second try after lack of memory gives the same."""
        loss, embeddings, gradients = torch.empty_like(self.best_loss), [], []
        for chunk in self._chunks():
            leaf = self.parameter.detach()[chunk].requires_grad_()
            embedding = self._embed(leaf, chunk)
            self.activation[chunk], loss[chunk] = self._backward(leaf, embedding, chunk)
            gradients.append(leaf.grad)
            embeddings.append(embedding.detach())
        # One chunk's gradient is not copied: a mixture's has an entry per token, and a copy costs as much as Adam.
        gradient = gradients[0] if len(gradients) == 1 else torch.cat(gradients)
        return gradient, loss, torch.cat(embeddings)

    def _within_memory(self, act: Callable[[], Found]) -> Found:
        """Computes something in chunks; where memory runs out, again in chunks of half as many rows, from then on.

        Raises:
            Exception: what was raised, where it is no lack of memory, or one row is too many.
        """
        while True:
            try:
                return act()
            except (MemoryError, RuntimeError) as error:
                self.max_rows = fewer(self.max_rows, error)
            # Outside of the handler the error is gone, and with it the tensors that it held.
            release()

    def _embed(self, parameter: Tensor, chunk: slice) -> Tensor:
        """The embeddings of a chunk; a frozen restart's is its best, wherever momentum still moves its parameter."""
        mapped = self.parameterization.embed(parameter, self.global_step / self.steps)
        return torch.where(self.alive[chunk, None, None], mapped, self.best[chunk])

    @property
    def embedding(self) -> Float[Tensor, "restarts tokens d_model"]:
        """The embeddings of all restarts at the current step, without gradient."""
        with torch.no_grad():
            return torch.cat([self._embed(self.parameter[chunk], chunk) for chunk in self._chunks()])

    def _backward(self, leaf: Tensor, embeddings: Tensor, chunk: slice) -> tuple[Tensor, Tensor]:
        """Activation and loss of a chunk; the gradient of the loss is added to `leaf`."""
        captured = self._run(embeddings, chunk)
        activation = self._reduced(captured, chunk, embeddings.dtype)
        loss = self.objective.loss(activation)
        if self.priors:
            values = self._prior_values(embeddings, captured)
            if self.global_step == 0:
                self._fix_coefficients(coefficients(self.priors, loss, values, leaf), chunk)
            loss = loss + (self.coefficients[chunk] * torch.stack(values, dim=1)).sum(1)
        # No operation mixes rows, so the gradient of the sum is each restart's own gradient.
        self.manual_backward(loss.sum())
        return activation.detach(), loss.detach()

    def _fix_coefficients(self, found: Tensor, chunk: slice) -> None:
        """Sets the priors' coefficients of a chunk for the whole fit; a checkpoint carries them."""
        self.coefficients[chunk] = found
        for prior, off in zip(self.priors, (found == 0).sum(0).tolist(), strict=True):
            if off and prior.weight > 0:
                message = "prior %s is off in %d of %d restarts: its gradient or the objective's is 0 at the start"
                log.warning(message, prior.name, off, len(found))

    def _prior_values(self, embeddings: Tensor, captured: Mapping[Place, Tensor]) -> list[Tensor]:
        """The value of each prior for each restart of a chunk."""
        seen = Seen(embeddings, self.vocabulary, captured.get(LAST), self.subject.logits)
        return [prior.value(seen) for prior in self.priors]

    def _update_best(self, loss: Tensor, gradient: Tensor, embeddings: Tensor) -> None:
        """Keeps the best finite embedding of each restart, and freezes those that went non-finite."""
        ends = gradient.amax((1, 2)), gradient.amin((1, 2))  # both are NaN where an entry is
        self.alive &= loss.isfinite() & ends[0].isfinite() & ends[1].isfinite()
        better = self.alive & (loss < self.best_loss)
        self.best = torch.where(better[:, None, None], embeddings, self.best)
        self.best_loss = torch.where(better, loss, self.best_loss)

    def _chunks(self) -> list[slice]:
        """The rows that run together: at most `max_rows`, and of one depth, unless these would be few."""
        starts = [0]
        for row in range(1, len(self.rows)):
            held = row - starts[-1]
            if held == self.max_rows or (self._depths[row] != self._depths[row - 1] and held >= BUCKET):
                starts.append(row)
        return [slice(*ends) for ends in pairwise([*starts, len(self.rows)])]

    def activations(self, embeddings: Float[Tensor, "rows tokens d_model"], chunk: slice) -> Float[Tensor, " rows"]:
        """The activation of each restart of a chunk: its own unit, reduced over positions."""
        captured = self.subject.run(embeddings, self._places(chunk), context=self.objective.seen)
        return self._reduced(captured, chunk, embeddings.dtype)

    def _places(self, chunk: slice) -> list[Place]:
        """Site and layer of each restart of a chunk."""
        return [row.unit.place for row in self.rows[chunk]]

    def _run(self, embeddings: Tensor, chunk: slice) -> dict[Place, Tensor]:
        """One forward pass that captures what the targets of a chunk need, and what the priors need besides."""
        whole = [LAST] if any(prior.needs_logits for prior in self.priors) else []
        return self.subject.run(embeddings, self._places(chunk) + whole, context=self.objective.seen)

    def _reduced(self, captured: Mapping[Place, Tensor], chunk: slice, dtype: torch.dtype) -> Tensor:
        """The activation of each restart's own unit, reduced over positions."""
        return own_activations(captured, [row.unit for row in self.rows[chunk]], self.objective, dtype)

    @torch.no_grad()
    def prior_values(
        self, embeddings: Float[Tensor, "restarts tokens d_model"]
    ) -> dict[str, Float[Tensor, " restarts"]]:
        """Each prior's value for each restart at some embeddings, before any weight."""
        if not self.priors:
            return {}
        parts = [self._prior_values(embeddings[chunk], self._run(embeddings[chunk], chunk)) for chunk in self._chunks()]
        columns = (torch.cat(column) for column in zip(*parts, strict=True))
        return {prior.name: column for prior, column in zip(self.priors, columns, strict=True)}

    @torch.no_grad()
    def evaluate(self, embeddings: Float[Tensor, "restarts tokens d_model"]) -> Float[Tensor, " restarts"]:
        """The activation of each restart at some embeddings, without gradients."""
        return self._within_memory(
            lambda: torch.cat([self.activations(embeddings[chunk], chunk) for chunk in self._chunks()])
        )

    @torch.no_grad()
    def capture(self, embeddings: Float[Tensor, "restarts tokens d_model"]) -> dict[Place, Float[Tensor, "own width"]]:
        """Every coordinate at each target's site and layer, reduced over positions like the target.

        The rows of a site and layer are the restarts whose target lies there, in the order of `rows`.
        """
        return self._within_memory(lambda: self._capture(embeddings))

    def _capture(self, embeddings: Tensor) -> dict[Place, Tensor]:
        found: dict[Place, list[Tensor]] = {}
        for chunk in self._chunks():
            places = self._places(chunk)
            captured = self.subject.run(embeddings[chunk], places, context=self.objective.seen)
            for place, values in captured.items():
                own = [number for number, other in enumerate(places) if other == place]
                found.setdefault(place, []).append(self.objective.activation(values)[own])
        return {place: torch.cat(parts) for place, parts in found.items()}

    @torch.no_grad()
    def outcome(self, *, interrupted: bool = False) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Initial and final embeddings, initial and final activations.

        The final embedding of a restart that went non-finite, also at the very last step, is its best finite one; so is
        that of every restart of an interrupted run.
        """
        final = self.best if interrupted else self.embedding
        activation = self.evaluate(final)
        self.alive &= activation.isfinite() & final.isfinite().all(2).all(1)
        final = torch.where(self.alive[:, None, None], final, self.best)
        activation = torch.where(self.alive, activation, self.evaluate(self.best))
        return self.initial, final, self.evaluate(self.initial), activation

    @property
    def steps_done(self) -> int:
        """Number of steps that were taken."""
        return self.trainer.global_step

    @property
    def frozen(self) -> Bool[Tensor, " restarts"]:
        """Which restarts went non-finite, and were frozen at their best embedding."""
        return ~self.alive

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the identity of the job and its subject to a checkpoint."""
        checkpoint["actmax"] = self.identity
