"""The gradient run: builds the LightningModule and its callbacks, fits, decodes, measures."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning import Callback, Trainer
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.loggers import Logger
from lightning.pytorch.loggers.logger import DummyLogger
from omegaconf import OmegaConf
from torch import Tensor

from actmax.errors import InputError
from actmax.evidence.nulls import Restarts
from actmax.maximize import optimizee, ranks
from actmax.maximize.callbacks import Checkpoint, JobCallback, Progress, Stopper
from actmax.maximize.module import Maximization
from actmax.maximize.optimizee import Parameterization
from actmax.maximize.priors import PRIORS
from actmax.maximize.ranks import Rank, RankSync
from actmax.model.nearest import Vocabulary
from actmax.model.objective import Row
from actmax.model.target import Target
from actmax.progress import Stop
from actmax.records.contents import Contents
from actmax.records.store import Summary
from actmax.tasks.execution import graceful_interrupt, matmul_precision, quieted
from actmax.tasks.maximization import tables
from actmax.tasks.maximization.task import MaximizationTask, prior_terms
from actmax.tasks.subjects import device_of, on_cuda, subject_of
from actmax.tasks.targets import write_targets
from actmax.tasks.task import Run, keys_of, plain, settings_of
from actmax.tasks.units import measure
from actmax.tasks.units.work import UnitsWork
from actmax.weights import cache_folder

log = logging.getLogger(__name__)

VOCABULARY_BYTES = 65_536 * 4 * 3 * 2
"""What a position of prior=simplex takes in checkpoints: three numbers per token, and the next is written beside it."""


class MaximizationWork(UnitsWork):
    """Maximizes units over input embeddings, decodes, and sets the result beside its nulls."""

    @property
    def space(self) -> int:
        """Bytes that the record may take; a checkpoint of prior=simplex holds numbers per token of the vocabulary."""
        scores = VOCABULARY_BYTES if self.cfg.prior.simplex.use else 0
        return super().space + len(self.rows) * self.cfg.tokens * scores

    def prepare(self) -> None:
        """Builds the LightningModule, and refuses what the vocabulary, kernels or PyTorch's compiler do not allow."""
        vocabulary, prior = len(self.subject.embedding_matrix), self.cfg.prior
        counts = {
            "decode.top_k": self.cfg.decode.top_k,
            "prior.manifold.k": prior.manifold.k if prior.manifold.weight > 0 else 1,
            "prior.pca.components": prior.pca.components if prior.pca.use else 1,
        }
        for key, value in counts.items():
            if value > vocabulary:
                raise InputError(key, value, f"must be at most {vocabulary}, the size of the vocabulary")
        if self.cfg.rounding.restarts:
            self._check_kernel()
        if self.cfg.trainer.compile:
            _require_compiler(device_of(self.cfg.trainer.accelerator))
        self.module, self.callbacks = self._module(self.rows), self._callbacks()

    def _check_kernel(self) -> None:
        try:
            with self.subject.attending(self._second_kernel):
                pass
        except (ValueError, ImportError) as error:
            way_out = "rounding.kernel=same takes the same kernel, one restart at a time."
            raise InputError("rounding.kernel", self.cfg.rounding.kernel, f"cannot be had: {error}", way_out) from error

    @property
    def _second_kernel(self) -> str:
        """The attention kernel of the second run of `rounding`."""
        own = self.subject.attention
        other = "sdpa" if own == "eager" else "eager"
        return other if self.cfg.rounding.kernel == "other" else own

    def perform(self, run: Run) -> Summary:
        """Fits, decodes, measures, and returns the summary."""
        cfg, clock = self.cfg, time.perf_counter()
        self._bind(self.callbacks, run.contents)
        finished = self._fit(run)
        seconds = {"fit": time.perf_counter() - clock}
        found = tables.by_unit_restarts(self.module, interrupted=not finished)
        write_targets(run.contents, self.units, self.controls)
        measure.write_restarts(run.contents, self.subject, found, top_k=cfg.decode.top_k, controls=self.controls)
        own = {unit: one for unit, one in found.items() if unit not in self.controls}
        summary: Summary = {}
        for callback in self.callbacks:
            if isinstance(callback, JobCallback):
                summary |= callback.finish(self.module, found)
        if not finished:
            log.warning("Stopped by hand: the best of each restart so far is kept.")
            raise KeyboardInterrupt
        summary |= tables.prior_summary(self.module, found, self.controls)
        clock = time.perf_counter()
        headline = measure.measure_units(
            run.contents,
            self.subject,
            found,
            objective=self.module.objective,
            settings=settings_of(cfg, "nulls"),
            gap_settings=settings_of(cfg, "gap"),
            transfer=self.transfer,
            meaning=self.meaning,
            passes=2 * cfg.steps,
            cache=cache_folder() / "nulls",
            controls=self.controls,
        )
        seconds["nulls"] = time.perf_counter() - clock
        if cfg.rounding.restarts:
            clock = time.perf_counter()
            summary["rounding"] = self._rounding(run, own)
            seconds["rounding"] = time.perf_counter() - clock
        return {**headline, **summary, **self.provenance(seconds)}

    def _rounding(self, run: Run, found: Mapping[Target, tuple[list[int], Restarts]]) -> Summary:
        """Runs the first seeds of every unit again, with another kernel or one at a time, and compares."""
        count = self.cfg.rounding.restarts
        chosen = {unit: seeds[:count] for unit, (seeds, _) in found.items()}
        rows = [Row(unit, seed) for unit, seeds in chosen.items() for seed in seeds]
        kernel, stop, again = self._second_kernel, Stop(), self._module(rows)
        again.compiled = False
        if self.cfg.rounding.kernel == "same":
            again.max_rows = 1
        log.info("Running %d restarts again, attention kernel %s, %d at a time.", len(rows), kernel, again.max_rows)
        with graceful_interrupt(stop), self.subject.attending(kernel):
            self._trainer([Progress(), Stopper(stop)], [], 1, run.folder).fit(again)
            if stop.requested:
                raise KeyboardInterrupt
            again.to(self.subject.device)
            second = tables.by_unit_restarts(again, interrupted=False)
        return tables.write_rounding(run.contents, self.subject, found, second, kernel=kernel)

    def _module(self, rows: list[Row]) -> Maximization:
        cfg = self.cfg
        options = plain(cfg.optimizer.options)
        module = Maximization(
            self.subject,
            rows,
            self._initial([row.seed for row in rows]),
            objective=self.objective,
            priors=[PRIORS[name](**settings) for name, settings in prior_terms(cfg).items()],
            parameterization=self._parameterization(),
            optimizer=cfg.optimizer.name,
            lr=cfg.optimizer.lr,
            options=options,
            steps=cfg.steps,
            max_rows=cfg.max_rows,
            identity=self.identity,
            job=self.rows,
            controls=self.controls,
            compiled=cfg.trainer.compile,
        )
        try:
            module.configure_optimizers()
        except (TypeError, ValueError) as error:
            raise InputError("optimizer.options", options, f"must suit {cfg.optimizer.name} ({error})") from error
        return module

    def _initial(self, seeds: Sequence[int]) -> Tensor:
        """The embeddings that restarts start from, a row per seed."""
        cfg, matrix = self.cfg, self.subject.embedding_matrix
        starts = {"scaled": optimizee.scaled, "randn": optimizee.randn, "tokens": optimizee.from_tokens}
        with keys_of(cfg, "init", folder="init.path", start="init"):
            if cfg.init.name == "file":
                start = optimizee.from_record(Path(cfg.init.path), cfg.init.tensor, cfg.tokens, matrix.shape[1])
            else:
                start = starts[cfg.init.name](matrix, cfg.tokens)
            return optimizee.initial(start, seeds)

    def _parameterization(self) -> Parameterization:
        prior, matrix = self.cfg.prior, self.subject.embedding_matrix
        if prior.pca.use:
            return optimizee.Principal(matrix, prior.pca.components)
        if prior.simplex.use:
            return optimizee.Mixture(Vocabulary(matrix), prior.simplex.temperature, prior.simplex.final_temperature)
        return optimizee.Direct()

    def _callbacks(self) -> list[Callback]:
        callbacks = []
        for name, spec in self.cfg.callbacks.items():
            if spec is None:
                continue
            if not isinstance(spec, Mapping) or "_target_" not in spec:
                allowed = "must be a group of keys with _target_, the path of a Lightning callback, or null"
                raise InputError(f"callbacks.{name}", spec, allowed)
            try:
                callbacks.append(instantiate(spec))
            except InstantiationException as error:
                if isinstance(wrong := error.__cause__, InputError):
                    raise InputError(f"callbacks.{name}.{wrong.key}", wrong.value, wrong.allowed) from error
                allowed = f"cannot be made ({str(error.__cause__ or error).splitlines()[0]})"
                raise InputError(f"callbacks.{name}", spec.get("_target_"), allowed) from error
        return callbacks

    def _bind(self, callbacks: list[Callback], contents: Contents) -> None:
        for callback in callbacks:
            if isinstance(callback, JobCallback):
                callback.bind(contents)

    def _fit(self, run: Run) -> bool:
        """Fits; False if the user stopped it, with a checkpoint of the step it had reached."""
        devices = self.cfg.trainer.devices
        with graceful_interrupt(run.stop):
            if devices == 1:
                trainer = self._trainer([*self.callbacks, Stopper(run.stop)], list(run.loggers), 1, run.folder)
                finished = self._optimize(trainer, self.module, run)
            else:
                log.info("Splitting %d restarts over %d devices.", len(self.rows), devices)
                warn_of_cores(self.cfg.trainer.accelerator, devices)
                settings = plain(self.cfg)
                with ranks.started(devices, _serve, settings, bool(run.loggers), run.checkpoint) as rank:
                    finished = self._fit_share(rank, run)
        self.module.to(self.subject.device)  # Lightning has put it on the CPU, and leaves the subject where it is
        return finished

    def serve(self, rank: Rank, *, logs: bool, checkpoint: Path | None) -> None:
        """What a rank other than 0 does: the same fit, of its own restarts, which rank 0 then gets.

        Args:
            rank: this process.
            logs: whether rank 0 has a logger; measures are taken together or not at all.
            checkpoint: the whole job's, to go on from.
        """
        self.callbacks = [one for one in self._callbacks() if not isinstance(one, Progress)]
        contents = Contents(rank.record)
        self._bind(self.callbacks, contents)
        rank.join()
        loggers = [DummyLogger()] if logs else []
        self._fit_share(rank, Run(contents, rank.record.folder, checkpoint, loggers))

    def _fit_share(self, rank: Rank, run: Run) -> bool:
        """Fits this rank's restarts. On rank 0 the module and the callbacks then hold those of all."""
        share, sync, checkpoint = rank.share(len(self.rows)), RankSync(rank), run.checkpoint
        if checkpoint is not None:
            checkpoint = ranks.shared_checkpoint(checkpoint, rank, share, self.callbacks)
        devices = [rank.number] if on_cuda(self.cfg.trainer.accelerator) else 1
        callbacks = [*self.callbacks, Stopper(run.stop), sync]
        trainer = self._trainer(callbacks, list(run.loggers), devices, run.folder)
        shared_run = Run(run.contents, run.folder, checkpoint)
        finished = self._optimize(trainer, self._module(self.rows[share]), shared_run)
        if rank.number == 0:
            self.module.trainer = trainer  # which knows the steps
        sync.collect(trainer, self.module if rank.number == 0 else None)
        return finished

    def _trainer(
        self, callbacks: list[Callback], loggers: list[Logger], devices: int | list[int], folder: Path | None
    ) -> Trainer:
        settings = self.cfg.trainer
        return Trainer(
            accelerator=settings.accelerator,
            devices=devices,
            deterministic=settings.deterministic,
            detect_anomaly=settings.detect_anomaly,
            profiler=settings.profiler,
            max_steps=self.cfg.steps,
            max_epochs=-1,  # steps alone decide: a checkpoint may stand at what Lightning takes for an epoch's end
            callbacks=callbacks,
            logger=loggers,
            default_root_dir=folder,
            log_every_n_steps=1,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            plugins=[LightningEnvironment()],  # one process: Slurm, where there is one, is the launcher's affair
        )

    def _optimize(self, trainer: Trainer, module: Maximization, run: Run) -> bool:
        trainer.fit(module, ckpt_path=run.checkpoint, weights_only=True)
        if trainer.global_step < self.cfg.steps:
            keeper = Checkpoint()
            keeper.bind(run.contents)
            keeper.save(trainer)
            return False
        return True


def _serve(rank: Rank, settings: dict[str, Any], logs: bool, checkpoint: Path | None) -> None:
    """A rank other than 0 of a job, in a process of its own. Its record is scratch."""
    cfg = OmegaConf.create(settings)
    with quieted(), matmul_precision(cfg.trainer.matmul_precision):
        MaximizationWork(MaximizationTask(), cfg, subject_of(cfg)).serve(rank, logs=logs, checkpoint=checkpoint)


def warn_of_cores(accelerator: str, devices: int) -> None:
    """Warns where more ranks share the processor than it has cores for this process."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if devices > cores and not on_cuda(accelerator):
        message = "trainer.devices=%d, and there are %d cores: ranks wait for each other (trainer.devices=%d)"
        log.warning(message, devices, cores, cores)


def _require_compiler(device: str) -> None:
    """Compiles something small: without a compiler PyTorch would say so in the middle of the first step."""
    try:
        torch.compile(lambda tensor: tensor.sin() + 1)(torch.ones(2, device=device))
    except Exception as error:  # PyTorch raises kinds of its own, and those of the compiler that it calls
        allowed = f"PyTorch's compiler cannot be used here ({str(error).strip().splitlines()[0]})"
        way_out = "On Linux: apt-get install g++. Or leave it out: results are the same beyond rounding."
        raise InputError("trainer.compile", "true", allowed, way_out) from error
