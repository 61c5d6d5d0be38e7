"""Lightning callbacks: thin adapters between the trainer and the record, the loggers and the terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torchmetrics import MeanMetric
from tqdm.auto import tqdm

from actmax.evidence.measures import InitRetention, UniqueTokens
from actmax.evidence.nulls import Restarts
from actmax.maximize.module import Maximization
from actmax.model.architecture import Unit
from actmax.model.nearest import Decoder
from actmax.model.objective import by_unit
from actmax.model.subject import Place
from actmax.records.store import Record
from actmax.stats.change import BeforeAfter, before_after

Found = Mapping[Unit, tuple[list[int], Restarts]]


class JobCallback(Callback):
    """A callback that knows its job's record.

    `run.py` binds the record before the fit, so that a config only names what a person would choose.
    """

    record: Record
    by_row: tuple[str, ...] = ()
    """Entries of its state whose tensors have a row per restart: ranks put theirs together."""

    def bind(self, record: Record) -> None:
        """Names the record to write to."""
        self.record = record

    def finish(self, module: Maximization, found: Found) -> dict[str, Any]:
        """Writes what it has gathered, once the restarts stand where they end; what it returns joins the summary."""
        return {}


def _module(module: LightningModule) -> Maximization:
    if not isinstance(module, Maximization):
        raise TypeError(f"actmax's callbacks serve a Maximization, not a {type(module).__name__}")
    return module


def _due(step: int, every: int, last: int) -> bool:
    return step % every == 0 or step == last


class Trajectory(JobCallback):
    """Records the activation of every restart on the way; nothing leaves the device before the end.

    Args:
        every: steps between two records; the start and the end are always there.
    """

    by_row = ("activations",)

    def __init__(self, every: int = 1) -> None:
        self.every = every
        self.steps: list[int] = []
        self.activations: list[Tensor] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keeps the activations that the step has just computed, which are those before its update."""
        done = trainer.global_step - 1
        if done % self.every == 0:
            self.steps.append(done)
            self.activations.append(_module(pl_module).activation.clone())

    def finish(self, module: Maximization, found: Found) -> dict[str, Any]:
        """Writes `trajectory.parquet`: a row per step and restart, the last where they ended."""
        final = torch.cat([restarts.activation_final for _, restarts in found.values()])
        values = torch.stack([*(row.cpu() for row in self.activations), final]).double()
        steps, rows = [*self.steps, module.steps_done], module.rows
        table = pd.DataFrame(
            {
                "step": [step for step in steps for _ in rows],
                "site": [row.unit.site for row in rows] * len(steps),
                "layer": pd.array([row.unit.layer for row in rows] * len(steps), dtype="Int64"),
                "index": [row.unit.index for row in rows] * len(steps),
                "seed": [row.seed for row in rows] * len(steps),
                "activation": values.flatten().numpy(),
            }
        )
        self.record.write_table("trajectory", table)
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to go on."""
        return {"steps": self.steps, "activations": [row.cpu() for row in self.activations]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up where the checkpoint stood."""
        self.steps, self.activations = list(state_dict["steps"]), list(state_dict["activations"])


class Measures(JobCallback):
    """Logs the running measures to every logger: mean activation, unique tokens, initialization bias.

    Args:
        every: steps between two; 0 for never. Decoding costs about a hundredth of a second for 50 tokens.
    """

    def __init__(self, every: int = 50) -> None:
        self.every = every
        self.activation = MeanMetric()
        self.unique = UniqueTokens()
        self.retention = InitRetention()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Decodes the initial noise once."""
        if self.every and trainer.loggers:
            module = _module(pl_module)
            self.decoder = Decoder(module.subject.embedding_matrix)
            self.initial_ids = self.decoder(module.initial).best

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measures and logs, where it is due."""
        if not self.every or not trainer.loggers or not _due(trainer.global_step, self.every, trainer.max_steps):
            return
        measured = self.measure(_module(pl_module))
        for logger in trainer.loggers:
            logger.log_metrics(measured, step=trainer.global_step)

    def measure(self, module: Maximization) -> dict[str, float]:
        """The three measures, accumulated over `max_rows` chunks (and over ranks, when computed)."""
        number = {unit: number for number, unit in enumerate(by_unit(module.job))}  # the same on every rank
        units = torch.tensor([number[unit] for unit, rows in by_unit(module.rows).items() for _ in rows])
        order = torch.tensor([row for rows in by_unit(module.rows).values() for row in rows])
        for rows in order.split(module.max_rows):
            ids = self.decoder(module.embedding[rows.to(module.embedding.device)]).best
            self.unique.update(units[: len(rows)], ids)
            units = units[len(rows) :]
            self.retention.update(ids, self.initial_ids[rows])
            self.activation.update(module.activation[rows.to(module.activation.device)].detach().float().cpu())
        metrics = {"activation": self.activation, "unique_tokens": self.unique, "init_retention": self.retention}
        found = {name: float(metric.compute()) for name, metric in metrics.items()}
        for metric in metrics.values():
            metric.reset()
        return found


class Comparison(JobCallback):
    """Compares every coordinate of each target's site and layer, optimized against initial, over restarts.

    Args:
        max_units: above so many units it is off.
        alpha: level of the tests.
    """

    def __init__(self, max_units: int = 16, alpha: float = 0.05) -> None:
        self.max_units = max_units
        self.alpha = alpha

    def finish(self, module: Maximization, found: Found) -> dict[str, Any]:
        """Writes `activations.safetensors` and `comparison.parquet`; returns a statement per unit, or why not.

        The activations are `SITE.LAYER.initial` and `.final`, shape (restarts, width), reduced like the target.
        """
        if len(found) > self.max_units:
            return {"comparison": f"off: {len(found)} units, and callbacks.comparison.max_units is {self.max_units}"}
        before, after = module.capture(module.initial), module.capture(self._final(module, found))
        saved = {_name(place): (before[place], after[place]) for place in before}
        self.record.write_tensors(
            "activations",
            {f"{name}.initial": pair[0] for name, pair in saved.items()}
            | {f"{name}.final": pair[1] for name, pair in saved.items()},
        )
        if min(len(seeds) for seeds, _ in found.values()) < 2:
            return {"comparison": "not available: one restart, and restarts are the replicates; give two seeds or more"}
        compared = {unit: self._compare(module, unit, before, after) for unit in found}
        tables = [_addressed(one.table, unit) for unit, one in compared.items()]
        self.record.write_table("comparison", pd.concat(tables, ignore_index=True))
        return {"comparison": {str(unit): one.statement for unit, one in compared.items()}}

    def _final(self, module: Maximization, found: Found) -> Tensor:
        return torch.cat([restarts.final for _, restarts in found.values()]).to(module.device)

    def _compare(self, module: Maximization, unit: Unit, *captured: Mapping[Place, Tensor]) -> BeforeAfter:
        place = (unit.site, unit.layer)
        there = [row.unit for row in module.rows if (row.unit.site, row.unit.layer) == place]
        own = [number for number, other in enumerate(there) if other == unit]
        before, after = (values[place][own].double().cpu().numpy() for values in captured)
        return before_after(before, after, target=unit.index, alpha=self.alpha)


def _name(place: Place) -> str:
    site, layer = place
    return site if layer is None else f"{site}.{layer}"


def _addressed(table: pd.DataFrame, unit: Unit) -> pd.DataFrame:
    address = pd.DataFrame({"site": unit.site, "layer": unit.layer, "index": unit.index}, index=table.index)
    return pd.concat([address.astype({"layer": "Int64"}), table], axis=1)


class Checkpoint(JobCallback):
    """Keeps one checkpoint, the newest, written whole or not at all.

    Args:
        every: steps between two; 0 for none but that of an interruption.
    """

    def __init__(self, every: int = 100) -> None:
        self.every = every

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves, where it is due."""
        if self.every and trainer.global_step % self.every == 0 and trainer.global_step < trainer.max_steps:
            self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Saves now."""
        target = self.record.checkpoint
        self.record.write(str(target.relative_to(self.record.folder)), trainer.save_checkpoint)


class Stop(Callback):
    """Ends the fit after the step in hand once `requested` is set, so that its state is whole."""

    def __init__(self) -> None:
        self.requested = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Looks at the flag."""
        if self.requested:
            trainer.should_stop = True


class Progress(Callback):
    """A bar with the mean activation on a terminal; elsewhere a plain line now and then.

    On several devices it is the mean over rank 0's restarts: no rank waits for a bar.

    Args:
        seconds: between two lines where there is no terminal.
    """

    def __init__(self, seconds: float = 10.0) -> None:
        self.seconds = seconds
        self.bar: tqdm | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens the bar, where the fit starts or takes up."""
        self.shown = time.monotonic()
        module = _module(pl_module)
        units = len(by_unit(module.job))
        self.title = f"{len(module.job)} restarts of {units} unit{'s'[: units > 1]}"
        if sys.stderr.isatty():
            self.bar = tqdm(total=trainer.max_steps, initial=trainer.global_step, desc=self.title, unit="step")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Moves on; reads the device only when it shows something."""
        if self.bar is not None:
            before = self.bar.last_print_n
            if self.bar.update(1) and self.bar.last_print_n != before:
                self.bar.set_postfix(activation=f"{self._mean(pl_module):.4g}", refresh=False)
            return
        if time.monotonic() - self.shown > self.seconds:
            self.shown = time.monotonic()
            mean = self._mean(pl_module)
            line = f"actmax: {self.title}: step {trainer.global_step} of {trainer.max_steps}, activation {mean:.4g}"
            print(line, file=sys.stderr, flush=True)  # noqa: T201

    def _mean(self, module: LightningModule) -> float:
        return _module(module).activation.nanmean().item()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Closes the bar."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Closes the bar."""
        self._close()

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None
