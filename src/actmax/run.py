"""One job: a config in, a record out. Seeds, builds, fits, measures, records.

Together with `config.py` this is all that knows Hydra; what it calls takes objects.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning import Callback, Trainer
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator
from omegaconf import DictConfig, OmegaConf

from actmax import config, optimizee, report, results
from actmax.callbacks import Checkpoint, JobCallback, Stop
from actmax.errors import InputError, JobError
from actmax.maximization import Maximization, Objective, Row
from actmax.record import Record, Status, job_hash, now
from actmax.reproducibility import NullSettings
from actmax.subject import Subject, load
from actmax.tracking import CsvTracker, Tracker, WandbTracker
from actmax.weights import cache_folder

log = logging.getLogger(__name__)

PACKAGES = ("actmax", "torch", "transformers", "lightning", "hydra-core", "torchmetrics", "numpy", "scipy", "pandas")


def run(cfg: DictConfig) -> None:
    """Runs one job in Hydra's output folder, or shows its record if it is complete.

    Args:
        cfg: a config that `config.check` and `config.check_subject` have passed.

    Raises:
        InputError: the user's input is wrong; nothing was started.
        JobError: the job failed; its record says how.
        KeyboardInterrupt: the user stopped it; its record holds the best so far.
    """
    record = Record(HydraConfig.get().runtime.output_dir)
    with _bounded_noise():
        _refuse_missing_accelerator(cfg.trainer.accelerator)
        record.require_space(_bytes_needed(cfg))
        with _alone(record):
            Job(cfg, record, _subject(cfg)).run()
    report.show(record)


def _refuse_missing_accelerator(name: str) -> None:
    known = {"auto": True, "cpu": True, "gpu": CUDAAccelerator.is_available() or MPSAccelerator.is_available()}
    known |= {"cuda": CUDAAccelerator.is_available(), "mps": MPSAccelerator.is_available()}
    if name not in known:
        raise InputError("trainer.accelerator", name, f"must be one of {', '.join(known)}")
    if not known[name]:
        raise InputError("trainer.accelerator", name, "there is none on this machine", "Use trainer=cpu.")


def _bytes_needed(cfg: DictConfig) -> int:
    """A generous guess of a record's size: a dozen copies of the embeddings, the trajectory, and 20 MB."""
    rows = len(config.seeds(cfg)) * len(config.units(cfg))
    return rows * (cfg.tokens * 2048 * 4 * 12 + cfg.steps * 64) + 20_000_000


@contextmanager
def _alone(record: Record) -> Iterator[None]:
    """Keeps other processes out of the folder; the lock dies with this process."""
    lock = FileLock(record.path(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        allowed = "another process is running this very job there"
        raise InputError("hydra.run.dir", record.folder, allowed, "Wait for it, or name another folder.") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _bounded_noise() -> Iterator[None]:
    """Lightning announces devices and tips at every fit; a job says what matters itself."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # Lightning 2.6 on torch 2.13: nothing that a user could act on
            warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated", module="lightning")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _subject(cfg: DictConfig) -> Subject:
    return _load(json.dumps(OmegaConf.to_container(cfg.subject, resolve=True), sort_keys=True))


@lru_cache(maxsize=1)
def _load(spec: str) -> Subject:
    """Jobs of one process share the subject, which nothing changes."""
    return load(**json.loads(spec))


@dataclass
class Job:
    """One maximization job."""

    cfg: DictConfig
    """Its config."""
    record: Record
    """Where it writes."""
    subject: Subject
    """What it studies."""

    def __post_init__(self) -> None:
        units, seeds = config.units(self.cfg), config.seeds(self.cfg)
        self.rows = [Row(unit, seed) for unit in units for seed in seeds]
        place = self.cfg.init.path
        self.hash = job_hash(
            {
                "config": config.identity(self.cfg),
                "weights": self.subject.weights_hash,
                "init": _file_hash(Path(place)) if place is not None else None,
            }
        )
        if self.cfg.decode.top_k > len(self.subject.embedding_matrix):
            allowed = f"must be at most {len(self.subject.embedding_matrix)}, the size of the vocabulary"
            raise InputError("decode.top_k", self.cfg.decode.top_k, allowed)

    def run(self) -> None:
        """Runs what is left to do of it."""
        checkpoint = self._checkpoint()
        if checkpoint == "complete":
            log.info("This job is complete; force=true runs it again.")
            return
        module, callbacks = self._module(), self._callbacks()  # may still refuse the input: nothing is written yet
        started = now()
        self.record.write_text("config.yaml", OmegaConf.to_yaml(self.cfg, resolve=True))
        self.record.set_status(Status("running", self.hash, started))
        tracker, exit_code = self._tracker(), 1
        try:
            self._work(module, callbacks, tracker, checkpoint)
            self.record.set_status(Status("complete", self.hash, started, now()))
            exit_code = 0
        except KeyboardInterrupt:
            exit_code = 130
            self.record.set_status(Status("interrupted", self.hash, started, now()))
            raise
        except Exception as error:
            log.exception("the job failed")
            self._fail(error, started)
            raise JobError(f"{type(error).__name__}: {error} (traceback in {self.record.folder})") from error
        finally:
            tracker.finish(exit_code)

    def _fail(self, error: Exception, started: str) -> None:
        text = {"type": type(error).__name__, "message": str(error), "traceback": traceback.format_exc()}
        try:
            self.record.set_status(Status("failed", self.hash, started, now(), text))
        except OSError:
            log.exception("the status could not be written either")  # a full disk, say

    def _work(
        self, module: Maximization, callbacks: list[Callback], tracker: Tracker, checkpoint: Path | str | None
    ) -> None:
        cfg, clock = self.cfg, time.perf_counter()
        finished = self._fit(module, callbacks, tracker, checkpoint)
        seconds = {"fit": time.perf_counter() - clock}
        found = results.by_unit_restarts(module, interrupted=not finished)
        results.write_restarts(self.record, self.subject, found, top_k=cfg.decode.top_k)
        for callback in callbacks:
            if isinstance(callback, JobCallback):
                callback.finish(module, found)
        if not finished:
            log.warning("Stopped by hand: the best of each restart so far is kept in %s", self.record.folder)
            raise KeyboardInterrupt
        clock = time.perf_counter()
        settings = NullSettings(cfg.nulls.pool, cfg.nulls.draws, cfg.nulls.displacements, cfg.nulls.seed)
        headline = results.measure_units(
            self.record, self.subject, found, settings=settings, cache=cache_folder() / "nulls"
        )
        seconds["nulls"] = time.perf_counter() - clock
        self._conclude(tracker, headline, {**seconds, "total": sum(seconds.values())})

    def _conclude(self, tracker: Tracker, headline: dict[str, Any], seconds: dict[str, float]) -> None:
        summary = {**headline, "job_hash": self.hash, "seconds": seconds, **self._setting()}
        self.record.write_json("summary.json", summary)
        tracker.publish(self.record, summary)

    def _checkpoint(self) -> Path | str | None:
        """What the folder holds of this job: a checkpoint, `complete`, or nothing."""
        status = self.record.status()
        if status is not None and self.cfg.force:
            self._move_aside(status)
            return None
        if status is None:
            return None
        if status.job_hash != self.hash:
            way_out = "Name another folder, or add force=true to move that record aside."
            raise InputError("hydra.run.dir", self.record.folder, "it holds the record of another job", way_out)
        if status.state == "complete":
            return "complete"
        file = self.record.checkpoint
        if not (self.cfg.resume and file.exists()):
            return None
        return self._own(file)

    def _own(self, file: Path) -> Path:
        """The checkpoint, once it has shown that it is whole and of this job."""
        way_out = f"Delete {file} or add resume=false to start afresh."
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
            found, step = content["actmax"], content["global_step"]
        except Exception as error:  # a damaged file can raise anything
            allowed = f"cannot be read ({type(error).__name__})"
            raise InputError("resume", "true", f"the checkpoint {file} {allowed}", way_out) from error
        if found != self._identity():
            raise InputError("resume", "true", f"the checkpoint {file} is not of this job and subject", way_out)
        log.info("Going on from step %d of an interrupted run.", step)
        return file

    def _identity(self) -> dict[str, str | None]:
        subject = self.subject
        return {
            "job_hash": self.hash,
            "subject": subject.id,
            "revision": subject.revision,
            "weights_sha256": subject.weights_hash,
        }

    def _move_aside(self, status: Status) -> None:
        """Puts a whole old record into a folder of its own; nothing is deleted."""
        aside = self.record.path("previous") / status.started.replace(":", "-")
        aside.mkdir(parents=True, exist_ok=True)
        for item in self.record.folder.iterdir():
            if item.name not in ("previous", ".hydra", ".lock") and item.suffix != ".log":
                item.rename(aside / item.name)

    def _module(self) -> Maximization:
        cfg, matrix = self.cfg, self.subject.embedding_matrix
        starts = {"scaled": optimizee.scaled, "randn": optimizee.randn, "tokens": optimizee.from_tokens}
        if cfg.init.name == "file":
            start = optimizee.from_record(Path(cfg.init.path), cfg.init.tensor, cfg.tokens, matrix.shape[1])
        else:
            start = starts[cfg.init.name](matrix, cfg.tokens)
        options: Any = OmegaConf.to_container(cfg.optimizer.options, resolve=True)
        module = Maximization(
            self.subject,
            self.rows,
            optimizee.initial(start, [row.seed for row in self.rows]),
            objective=Objective(cfg.objective.reduction, cfg.objective.sign, cfg.prior.l2),
            optimizer=cfg.optimizer.name,
            lr=cfg.optimizer.lr,
            options=options,
            steps=cfg.steps,
            max_rows=cfg.max_rows,
            identity=self._identity(),
        )
        try:
            module.configure_optimizers()
        except (TypeError, ValueError) as error:
            raise InputError("optimizer.options", options, f"must suit {cfg.optimizer.name} ({error})") from error
        return module

    def _callbacks(self) -> list[Callback]:
        callbacks = []
        for name, spec in self.cfg.callbacks.items():
            if spec is None:
                continue
            try:
                callback = instantiate(spec)
            except InstantiationException as error:
                allowed = f"cannot be made ({str(error.__cause__ or error).splitlines()[0]})"
                raise InputError(f"callbacks.{name}", spec.get("_target_"), allowed) from error
            if isinstance(callback, JobCallback):
                callback.bind(self.record)
            callbacks.append(callback)
        return callbacks

    def _tracker(self) -> Tracker:
        logger, cfg = self.cfg.logger, self.cfg
        if logger.name == "csv":
            return CsvTracker(self.record)
        if logger.name == "none":
            return Tracker()
        plain: Any = OmegaConf.to_container(cfg, resolve=True)
        place = cfg.unit.site if cfg.unit.layer is None else f"{cfg.unit.site}.{cfg.unit.layer}"
        return WandbTracker(
            self.record,
            project=logger.project,
            entity=logger.entity,
            group=cfg.sweep,
            name=f"{cfg.subject.name} {place}[{cfg.unit.index}] seeds {cfg.seeds}",
            tags=[cfg.task.name, cfg.subject.name, cfg.unit.site, *logger.tags],
            config={**plain, "job_hash": self.hash, "weights_sha256": self.subject.weights_hash},
        )

    def _fit(
        self, module: Maximization, callbacks: list[Callback], tracker: Tracker, checkpoint: Path | str | None
    ) -> bool:
        """Fits; False if the user stopped it, with a checkpoint of the step it had reached."""
        stop, trainer_config = Stop(), self.cfg.trainer
        trainer = Trainer(
            accelerator=trainer_config.accelerator,
            devices=1,
            deterministic=trainer_config.deterministic,
            detect_anomaly=trainer_config.detect_anomaly,
            profiler=trainer_config.profiler,
            max_steps=self.cfg.steps,
            max_epochs=-1,  # steps alone decide: a checkpoint may stand at what Lightning takes for an epoch's end
            callbacks=[*callbacks, stop],
            logger=tracker.loggers,
            default_root_dir=self.record.folder,
            log_every_n_steps=1,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        with _graceful_interrupt(stop):
            trainer.fit(module, ckpt_path=checkpoint, weights_only=True)
        if trainer.global_step < self.cfg.steps:
            keeper = Checkpoint()
            keeper.bind(self.record)
            keeper.save(trainer)
            return False
        return True

    def _setting(self) -> dict[str, Any]:
        device = self.subject.device
        name = platform.processor() or platform.machine()
        if device.type == "cuda":
            name = torch.cuda.get_device_name(device)
        return {
            "subject": {**self._identity(), "name": self.subject.name, "attention": self.subject.attention},
            "device": {"type": device.type, "name": name, "threads": torch.get_num_threads()},
            "versions": {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}},
        }


def _file_hash(place: Path) -> str | None:
    file = place / "embeddings.safetensors" if place.is_dir() else place
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None


@contextmanager
def _graceful_interrupt(stop: Stop) -> Iterator[None]:
    """The first Ctrl-C asks the fit to stop after the step in hand; the second stops at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(signum: int, frame: object) -> None:  # noqa: ARG001
        if stop.requested:
            raise KeyboardInterrupt
        stop.requested = True
        log.warning("Stopping after this step; Ctrl-C again stops at once.")

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield
    except SystemExit:  # Lightning turns a KeyboardInterrupt into one
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGINT, before)
