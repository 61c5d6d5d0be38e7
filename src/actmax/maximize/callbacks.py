"""Lightning callbacks: thin adapters between the trainer and the record, the loggers and the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torchmetrics import MeanMetric

from actmax.evidence.measures import InitRetention, UniqueTokens
from actmax.evidence.nulls import Restarts
from actmax.evidence.readings import NeighbourStatus
from actmax.maximize.module import Maximization
from actmax.model.objective import by_unit
from actmax.model.target import Place, Target, address_columns, addressed, place_name
from actmax.progress import SECONDS, Bar, Stop
from actmax.records.contents import Contents
from actmax.settings import required
from actmax.stats.change import BeforeAfter, before_after

Found = Mapping[Target, tuple[list[int], Restarts]]


class JobCallback(Callback):
    """A callback that writes tables of its job's result.

    The job binds the result's contents before the fit, so that a config names only what a person would choose.
    """

    contents: Contents
    """Where the callback's tables are written to."""
    by_row: tuple[str, ...] = ()
    """Entries of the callback's state whose tensors have a row per restart: ranks put theirs together."""

    def bind(self, contents: Contents) -> None:
        """Sets where the callback's tables are written to; with a record they are on disk at once."""
        self.contents = contents

    def finish(self, module: Maximization, found: Found) -> dict[str, Any]:
        """Writes the callback's tables after the last step; what is returned joins the summary."""
        return {}


def _module(module: LightningModule) -> Maximization:
    """The module as what it is.

    Raises:
        TypeError: it is another kind of module.
    """
    if not isinstance(module, Maximization):
        raise TypeError(f"actmax's callbacks serve a Maximization, not a {type(module).__name__}")
    return module


def _due(step: int, every: int, last: int) -> bool:
    """Whether a step is a multiple of `every`, or the last."""
    return step % every == 0 or step == last


class Trajectory(JobCallback):
    """Records the activation of every restart during the fit; nothing leaves the device before the end.

    Args:
        every: steps between two records; the start and the end are always there.
    """

    by_row = ("activations",)

    def __init__(self, every: Any = 1) -> None:
        self.every = required(every, int, "every", least=1)
        self.steps: list[int] = []
        self.activations: list[Tensor] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Keeps the activations that the step has just computed, which are those before its update."""
        done = trainer.global_step - 1
        if done % self.every == 0:
            self.steps.append(done)
            self.activations.append(_module(pl_module).activation.clone())

    def finish(self, module: Maximization, found: Found) -> dict[str, Any]:
        """Writes the table `trajectory`: a row per step and restart, the last step's from the final embeddings."""
        final = torch.cat([restarts.activation_final for _, restarts in found.values()])
        values = torch.stack([*(row.cpu() for row in self.activations), final]).double()
        steps, rows = [*self.steps, module.steps_done], module.rows
        table = pd.DataFrame(
            {
                "step": [step for step in steps for _ in rows],
                **address_columns([row.unit for row in rows] * len(steps)),
                "seed": [row.seed for row in rows] * len(steps),
                "activation": values.flatten().numpy(),
                "control": [row.unit in module.controls for row in rows] * len(steps),
            }
        )
        self.contents.write_table("trajectory", table)
        return {}

    def state_dict(self) -> dict[str, Any]:
        """The steps and activations so far, for a checkpoint."""
        return {"steps": self.steps, "activations": [row.cpu() for row in self.activations]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over the steps and activations of a checkpoint."""
        self.steps, self.activations = list(state_dict["steps"]), list(state_dict["activations"])


class Measures(JobCallback):
    """Logs the running measures to every logger: mean activation, unique tokens, initialization bias.

    Args:
        every: steps between two measurements; 0 for none. Each costs about a hundredth of a second for 50 tokens.
    """

    def __init__(self, every: Any = 50) -> None:
        self.every = required(every, int, "every", least=0)
        self.activation = MeanMetric()
        self.unique = UniqueTokens()
        self.retention = InitRetention()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Decodes the initial noise once."""
        if self.every and trainer.loggers:
            module = _module(pl_module)
            self.nearest = module.subject.nearest
            self.initial_ids = self.nearest(module.initial).best

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Measures and logs at every `every`-th step and the last."""
        if not self.every or not trainer.loggers or not _due(trainer.global_step, self.every, trainer.max_steps):
            return
        measured = self.measure(_module(pl_module))
        for logger in trainer.loggers:
            logger.log_metrics(measured, step=trainer.global_step)

    def measure(self, module: Maximization) -> dict[str, float]:
        """The three measures, accumulated over chunks of `max_rows` rows (and over ranks, when computed).

        Control units are left out.
        """
        number = {unit: number for number, unit in enumerate(by_unit(module.job))}  # the same on every rank
        own = {unit: rows for unit, rows in by_unit(module.rows).items() if unit not in module.controls}
        units = torch.tensor([number[unit] for unit, rows in own.items() for _ in rows], dtype=torch.long)
        order = torch.tensor([row for rows in own.values() for row in rows], dtype=torch.long)
        for rows in order.split(module.max_rows):
            ids = self.nearest(module.embedding[rows.to(module.embedding.device)]).best
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
        max_units: largest number of units for which it compares anything.
        alpha: level of the tests.
    """

    def __init__(self, max_units: Any = 16, alpha: Any = 0.05) -> None:
        self.max_units = required(max_units, int, "max_units", least=0)
        self.alpha = required(alpha, float, "alpha", above=0, below=1)

    def finish(self, module: Maximization, found: Found) -> dict[str, Any]:
        """Writes `activations.safetensors` and `comparison.parquet`; returns the headline numbers of each unit.

        The activations are `SITE.LAYER.initial` and `.final`, shape (restarts, width), reduced like the target. Where
        there is nothing to compare, `status` says why.
        """
        own = [unit for unit in found if unit not in module.controls]
        if len(own) > self.max_units:
            sizes = {"asked": len(own), "max_units": self.max_units}
            return {"comparison": {"status": NeighbourStatus.TOO_MANY_UNITS.value, **sizes}}
        before, after = module.capture(module.initial), module.capture(self._final(module, found))
        saved = {place_name(*place): (before[place], after[place]) for place in before}
        self.contents.write_tensors(
            "activations",
            {f"{name}.initial": pair[0] for name, pair in saved.items()}
            | {f"{name}.final": pair[1] for name, pair in saved.items()},
        )
        if min(len(seeds) for seeds, _ in found.values()) < 2:
            return {"comparison": {"status": NeighbourStatus.ONE_RESTART.value}}
        compared = {unit: self._compare(module, unit, before, after) for unit in own}
        tables = [addressed(one.table, [unit]) for unit, one in compared.items()]
        self.contents.write_table("comparison", pd.concat(tables, ignore_index=True))
        headlines = {str(unit): one.headline for unit, one in compared.items()}
        return {"comparison": {"status": NeighbourStatus.OK.value, "units": headlines}}

    def _final(self, module: Maximization, found: Found) -> Tensor:
        """The final embeddings of all restarts, on the module's device."""
        return torch.cat([restarts.final for _, restarts in found.values()]).to(module.device)

    def _compare(self, module: Maximization, unit: Target, *captured: Mapping[Place, Tensor]) -> BeforeAfter:
        """Compares the restarts of one unit, from what all restarts gave before and after."""
        there = [row.unit for row in module.rows if row.unit.place == unit.place]
        own = [number for number, other in enumerate(there) if other == unit]
        before, after = (values[unit.place][own].double().cpu().numpy() for values in captured)
        if unit.coordinate is not None:
            return before_after(before, after, target=unit.coordinate, alpha=self.alpha)
        # the value of a direction stands behind the coordinates, and has the next number
        before, after = (np.column_stack([values, unit.read({unit.place: values})]) for values in (before, after))
        return before_after(before, after, target=before.shape[1] - 1, alpha=self.alpha)


class Checkpoint(JobCallback):
    """Keeps one checkpoint, the newest, written whole or not at all.

    Args:
        every: steps between two checkpoints; 0 for none but that of an interruption.
    """

    def __init__(self, every: Any = 100) -> None:
        self.every = required(every, int, "every", least=0)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Saves at every `every`-th step but the last."""
        if self.every and trainer.global_step % self.every == 0 and trainer.global_step < trainer.max_steps:
            self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Saves now, where there is a record."""
        record = self.contents.record
        if record is not None:
            record.write(str(record.checkpoint.relative_to(record.folder)), trainer.save_checkpoint)


class Stopper(Callback):
    """Ends the fit after the step in hand once a stop is requested, so that its state is whole.

    Args:
        stop: the request.
    """

    def __init__(self, stop: Stop) -> None:
        self.stop = stop

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Looks at the flag."""
        if self.stop.requested:
            trainer.should_stop = True


def _own_mean(module: Maximization) -> float:
    """Mean activation over the restarts of the job's own units; over all where a rank has none of them."""
    own = [row.unit not in module.controls for row in module.rows]
    values = module.activation.cpu()
    return (values[own] if any(own) else values).nanmean().item()


class Progress(Callback):
    """A bar with the mean activation on a terminal; elsewhere a plain line now and then.

    On several devices the mean is over rank 0's restarts: no rank waits for a bar.

    Args:
        seconds: time between two lines where there is no terminal.
    """

    def __init__(self, seconds: Any = SECONDS) -> None:
        self.seconds = required(seconds, float, "seconds", least=0)
        self.bar: Bar | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens the bar, at the step at which the fit starts or resumes."""
        module = _module(pl_module)
        job, beside = module.job, len(module.controls)
        units = len(by_unit(job)) - beside
        title = f"{len(job)} restarts of {units} unit{'s'[: units > 1]}"
        title += f" and {beside} control{'s'[: beside > 1]}" if beside else ""
        start = trainer.global_step
        self.bar = Bar(title, trainer.max_steps, unit="step", start=start, seconds=self.seconds)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Moves the bar on; reads the device only when something is shown."""
        if self.bar is not None:
            self.bar.advance(note=lambda: f"activation {_own_mean(_module(pl_module)):.4g}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Closes the bar after the last step."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Closes the bar, so that the error stands below it."""
        self._close()

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None
