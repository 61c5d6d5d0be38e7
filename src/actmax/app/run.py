"""A config in, a record out: what each task builds from its config.

Together with `config.py` this is all that knows Hydra; what it calls takes objects.
"""

from __future__ import annotations

import logging
import os
import platform
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from hydra.utils import instantiate
from lightning import Callback, Trainer
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities import registry
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator
from lightning.pytorch.loggers import Logger
from lightning.pytorch.loggers.logger import DummyLogger
from omegaconf import DictConfig, OmegaConf
from tqdm.auto import tqdm

from actmax import stats
from actmax.app import config, report
from actmax.app.job import Work, run_job
from actmax.app.tracking import CsvTracker, Tracker, WandbTracker
from actmax.errors import InputError, JobError
from actmax.evidence.measures import NullSettings
from actmax.evidence.nulls import Restarts
from actmax.maximize import optimizee, ranks
from actmax.maximize.callbacks import Checkpoint, JobCallback, Progress, Stop
from actmax.maximize.module import Maximization
from actmax.maximize.optimizee import Parameterization
from actmax.maximize.priors import PRIORS
from actmax.maximize.ranks import Rank, Together
from actmax.model.architecture import Unit
from actmax.model.evaluation import GapSettings
from actmax.model.nearest import Vocabulary
from actmax.model.objective import Objective, Row
from actmax.model.subject import Place, Subject, shared
from actmax.records.store import Record, job_hash
from actmax.search.methods import SearchSettings
from actmax.search.restarts import Found, search, spreads
from actmax.tasks import examples, pages, results, search_tables
from actmax.tasks.tuning import activations, analysis, heatmap
from actmax.tasks.tuning.activations import Reader, Texts
from actmax.tasks.tuning.plan import Settings, words_of
from actmax.tasks.tuning.store import Store
from actmax.text.windows import text_files, windows
from actmax.weights import cache_folder
from actmax.words import lists as words
from actmax.words.encoding import begin_token, encode

log = logging.getLogger(__name__)

PACKAGES = ("actmax", "torch", "transformers", "lightning", "hydra-core", "torchmetrics", "numpy", "scipy", "pandas")

# Lightning reads what every installed package declares, at every Trainer: a twentieth of a small job's time
registry.entry_points = lru_cache(registry.entry_points)  # pyright: ignore[reportPrivateImportUsage]
# with `trainer.deterministic` PyTorch fills every new tensor before it is written; nothing reads one before that
torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]

LINE_SECONDS = 10
"""Between two lines about a search's progress where there is no terminal."""
KEEP_SECONDS = 10
"""Between two checkpoints of a search."""


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
    resolved = OmegaConf.to_yaml(cfg, resolve=True)
    with _bounded_noise(), products(cfg):
        work = TASKS[cfg.task.name](cfg, record)
        request = config.request(cfg)
        draws = cfg.report and cfg.page and HydraConfig.get().mode != RunMode.MULTIRUN
        try:
            run_job(work, record, resolved=resolved, request=request, resume=cfg.resume, force=cfg.force)
        except JobError:
            if draws:
                report.draw(record)
            raise
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        log.info("%s", report.line(record))
    elif cfg.report:
        if draws:
            report.draw(record)
        report.show(record)


def _refuse_missing_accelerator(name: str, devices: int) -> None:
    known = {"auto": True, "cpu": True, "gpu": CUDAAccelerator.is_available() or MPSAccelerator.is_available()}
    known |= {"cuda": CUDAAccelerator.is_available(), "mps": MPSAccelerator.is_available()}
    if name not in known:
        raise InputError("trainer.accelerator", name, f"must be one of {', '.join(known)}")
    if not known[name]:
        raise InputError("trainer.accelerator", name, "there is none on this machine", "Use trainer=cpu.")
    gpus = CUDAAccelerator.auto_device_count() if _on_cuda(name) else int(MPSAccelerator.is_available())
    if name != "cpu" and 0 < gpus < devices:
        allowed = f"must be at most {gpus}, the GPUs that this process sees"
        raise InputError("trainer.devices", devices, allowed, "Lower it, or take trainer=cpu.")


def _on_cuda(accelerator: str) -> bool:
    return accelerator in ("auto", "gpu", "cuda") and CUDAAccelerator.is_available()


def _bytes_needed(cfg: DictConfig) -> int:
    """A generous guess of a record's size: a dozen copies of the embeddings, the trajectory, and 20 MB.

    A checkpoint of prior=simplex holds three numbers per token of the vocabulary, and the next is written beside it.
    """
    rows = len(config.seeds(cfg)) * len(config.units(cfg))
    scores = 65_536 * 4 * 3 * 2 if cfg.prior.simplex.use else 0
    return rows * (cfg.tokens * (2048 * 4 * 12 + scores) + cfg.steps * 64) + 20_000_000


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
            # a job is one process, and a login node has srun too
            warnings.filterwarnings("ignore", message="The `srun` command is available")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def products(cfg: DictConfig) -> Iterator[None]:
    """How exact float32 products are in this job; the next one in this process may ask for something else."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(cfg.trainer.matmul_precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _require_compiler(device: str) -> None:
    """Compiles something small: without a compiler PyTorch would say so in the middle of the first step."""
    try:
        torch.compile(lambda tensor: tensor.sin() + 1)(torch.ones(2, device=device))
    except Exception as error:
        allowed = f"PyTorch's compiler cannot be used here ({str(error).strip().splitlines()[0]})"
        way_out = "On Linux: apt-get install g++. Or leave it out: results are the same beyond rounding."
        raise InputError("trainer.compile", "true", allowed, way_out) from error


def _subject(cfg: DictConfig) -> Subject:
    spec: Any = OmegaConf.to_container(cfg.subject, resolve=True)
    return shared(**spec)


class SubjectWork(Work):
    """What all tasks on a subject share.

    Args:
        cfg: the job's config.
        record: where it writes.

    Raises:
        InputError: there is no such accelerator, or too few, no room on the disk, or no subject.
    """

    def __init__(self, cfg: DictConfig, record: Record) -> None:
        _refuse_missing_accelerator(cfg.trainer.accelerator, cfg.trainer.devices)
        record.require_space(self.space(cfg))
        self.cfg, self.record, self.subject = cfg, record, _subject(cfg)

    def space(self, cfg: DictConfig) -> int:  # noqa: ARG002
        """Bytes that the record may take, as far as they are known before the subject is."""
        return 100_000_000

    def read(self) -> dict[str, str | None]:
        """What names the files that the job reads besides the weights."""
        return {"data": config.data_hash(self.cfg)}

    @property
    def identity(self) -> dict[str, str | None]:
        """The job, and whose weights."""
        return self._identity

    @cached_property
    def _identity(self) -> dict[str, str | None]:
        subject = self.subject
        work = {"config": config.identity(self.cfg), "weights": subject.weights_hash, **self.read()}
        names = {"subject": subject.id, "revision": subject.revision, "weights_sha256": subject.weights_hash}
        return {"job_hash": job_hash(work), **names}

    def signed(self, seconds: dict[str, float]) -> dict[str, Any]:
        """What every summary says of its job: of which subject, where, and how long it took."""
        subject = {**self.identity, "name": self.subject.name, "attention": self.subject.attention}
        return {"subject": subject, **_setting(self.identity, self.subject.device, seconds)}


class UnitsWork(SubjectWork):
    """What the tasks share that maximize units: a row per restart, and what names a condition."""

    def __init__(self, cfg: DictConfig, record: Record) -> None:
        super().__init__(cfg, record)
        self.rows = [Row(unit, seed) for unit in config.units(cfg) for seed in config.seeds(cfg)]

    def space(self, cfg: DictConfig) -> int:
        """By the restarts."""
        return _bytes_needed(cfg)

    def read(self) -> dict[str, str | None]:
        """The record that restarts start from."""
        return {"init": config.init_hash(self.cfg)}

    def signed(self, seconds: dict[str, float]) -> dict[str, Any]:
        """Also the condition, everything but the unit and the seed: records of one condition may be put together."""
        said = super().signed(seconds)
        condition = config.condition(self.cfg) + self.subject.weights_hash[:12]
        device = {**said["device"], "count": self.cfg.trainer.devices}
        return {**said, "condition": condition, "prior": config.prior_label(self.cfg), "device": device}

    def tracker(self) -> Tracker:
        """The one that the config names."""
        cfg = self.cfg
        place = cfg.unit.site if cfg.unit.layer is None else f"{cfg.unit.site}.{cfg.unit.layer}"
        name = f"{cfg.subject.name} {place}[{cfg.unit.index}] seeds {cfg.seeds}"
        return tracker_of(cfg, self.record, name, [cfg.subject.name, cfg.unit.site], dict(self.identity))


class MaximizationWork(UnitsWork):
    """Report A: maximize units, decode, set beside the nulls."""

    def prepare(self) -> None:
        """Builds the LightningModule and its callbacks."""
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
            _require_compiler(_device(self.cfg.trainer.accelerator))
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
        """What attends in the second run of `rounding`."""
        own = self.subject.attention
        other = "sdpa" if own == "eager" else "eager"
        return other if self.cfg.rounding.kernel == "other" else own

    def perform(self, tracker: Tracker, checkpoint: Path | None) -> dict[str, Any]:
        """Fits, decodes, measures."""
        cfg, clock = self.cfg, time.perf_counter()
        finished = self._fit(tracker, checkpoint)
        seconds = {"fit": time.perf_counter() - clock}
        found = results.by_unit_restarts(self.module, interrupted=not finished)
        results.write_restarts(self.record, self.subject, found, top_k=cfg.decode.top_k)
        said: dict[str, Any] = {}
        for callback in self.callbacks:
            if isinstance(callback, JobCallback):
                said |= callback.finish(self.module, found)
        if not finished:
            log.warning("Stopped by hand: the best of each restart so far is kept in %s", self.record.folder)
            raise KeyboardInterrupt
        said |= results.prior_summary(self.module, found)
        clock = time.perf_counter()
        headline = results.measure_units(
            self.record,
            self.subject,
            found,
            objective=self.module.objective,
            settings=NullSettings(**cfg.nulls),
            gap_settings=GapSettings(**cfg.gap),
            cache=cache_folder() / "nulls",
        )
        seconds["nulls"] = time.perf_counter() - clock
        if cfg.rounding.restarts:
            clock = time.perf_counter()
            said["rounding"] = self._rounding(found)
            seconds["rounding"] = time.perf_counter() - clock
        return {**headline, **said, **self.signed(seconds)}

    def _rounding(self, found: Mapping[Unit, tuple[list[int], Restarts]]) -> dict[str, Any]:
        """Runs the first seeds of every unit again, with another kernel or one at a time, and compares."""
        count = self.cfg.rounding.restarts
        chosen = {unit: seeds[:count] for unit, (seeds, _) in found.items()}
        rows = [Row(unit, seed) for unit, seeds in chosen.items() for seed in seeds]
        kernel, stop, again = self._second_kernel, Stop(), self._module(rows)
        again.compiled = False
        if self.cfg.rounding.kernel == "same":
            again.max_rows = 1
        log.info("Running %d restarts again, attention kernel %s, %d at a time.", len(rows), kernel, again.max_rows)
        with _graceful_interrupt(stop), self.subject.attending(kernel):
            self._trainer([Progress(), stop], [], 1).fit(again)
            if stop.requested:
                raise KeyboardInterrupt
            again.to(self.subject.device)
            second = results.by_unit_restarts(again, interrupted=False)
        return results.write_rounding(self.record, self.subject, found, second, kernel=kernel)

    def _module(self, rows: list[Row]) -> Maximization:
        cfg, matrix = self.cfg, self.subject.embedding_matrix
        starts = {"scaled": optimizee.scaled, "randn": optimizee.randn, "tokens": optimizee.from_tokens}
        if cfg.init.name == "file":
            start = optimizee.from_record(Path(cfg.init.path), cfg.init.tensor, cfg.tokens, matrix.shape[1])
        else:
            start = starts[cfg.init.name](matrix, cfg.tokens)
        options: Any = OmegaConf.to_container(cfg.optimizer.options, resolve=True)
        module = Maximization(
            self.subject,
            rows,
            optimizee.initial(start, [row.seed for row in rows]),
            objective=Objective(cfg.objective.reduction, cfg.objective.sign),
            priors=[PRIORS[name](**settings) for name, settings in config.prior_terms(cfg).items()],
            parameterization=self._parameterization(),
            optimizer=cfg.optimizer.name,
            lr=cfg.optimizer.lr,
            options=options,
            steps=cfg.steps,
            max_rows=cfg.max_rows,
            identity=self.identity,
            job=self.rows,
            compiled=cfg.trainer.compile,
        )
        try:
            module.configure_optimizers()
        except (TypeError, ValueError) as error:
            raise InputError("optimizer.options", options, f"must suit {cfg.optimizer.name} ({error})") from error
        return module

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
            try:
                callback = instantiate(spec)
            except InstantiationException as error:
                allowed = f"cannot be made ({str(error.__cause__ or error).splitlines()[0]})"
                raise InputError(f"callbacks.{name}", spec.get("_target_"), allowed) from error
            if isinstance(callback, JobCallback):
                callback.bind(self.record)
            callbacks.append(callback)
        return callbacks

    def _fit(self, tracker: Tracker, checkpoint: Path | None) -> bool:
        """Fits; False if the user stopped it, with a checkpoint of the step it had reached."""
        stop, devices = Stop(), self.cfg.trainer.devices
        with _graceful_interrupt(stop):
            if devices == 1:
                trainer = self._trainer([*self.callbacks, stop], tracker.loggers, 1)
                finished = self._run(trainer, self.module, checkpoint)
            else:
                log.info("Splitting %d restarts over %d devices.", len(self.rows), devices)
                settings: Any = OmegaConf.to_container(self.cfg, resolve=True)
                with ranks.started(devices, _serve, settings, bool(tracker.loggers), checkpoint) as rank:
                    finished = self._fit_share(rank, stop, tracker.loggers, checkpoint)
        self.module.to(self.subject.device)  # Lightning has put it on the CPU, and leaves the subject where it is
        return finished

    def serve(self, rank: Rank, *, logs: bool, checkpoint: Path | None) -> None:
        """What a rank other than 0 does: the same fit, of its own restarts, which rank 0 then gets.

        Args:
            rank: of this process.
            logs: whether rank 0 has a logger; measures are taken together or not at all.
            checkpoint: of the whole job, to go on from.
        """
        self.callbacks = [one for one in self._callbacks() if not isinstance(one, Progress)]
        rank.meet()
        self._fit_share(rank, Stop(), [DummyLogger()] if logs else [], checkpoint)

    def _fit_share(self, rank: Rank, stop: Stop, loggers: list[Logger], checkpoint: Path | None) -> bool:
        """Fits this rank's restarts. On rank 0 the module and the callbacks then hold those of all."""
        share, together = rank.share(len(self.rows)), Together(rank)
        if checkpoint is not None:
            checkpoint = ranks.shared_checkpoint(checkpoint, rank, share, self.callbacks)
        devices = [rank.number] if _on_cuda(self.cfg.trainer.accelerator) else 1
        trainer = self._trainer([*self.callbacks, stop, together], loggers, devices)
        finished = self._run(trainer, self._module(self.rows[share]), checkpoint)
        if rank.number == 0:
            self.module.trainer = trainer  # which knows the steps
        together.collect(trainer, self.module if rank.number == 0 else None)
        return finished

    def _trainer(self, callbacks: list[Callback], loggers: list[Logger], devices: int | list[int]) -> Trainer:
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
            default_root_dir=self.record.folder,
            log_every_n_steps=1,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            plugins=[LightningEnvironment()],  # one process: Slurm, where there is one, is the launcher's affair
        )

    def _run(self, trainer: Trainer, module: Maximization, checkpoint: Path | None) -> bool:
        trainer.fit(module, ckpt_path=checkpoint, weights_only=True)
        if trainer.global_step < self.cfg.steps:
            keeper = Checkpoint()
            keeper.bind(self.record)
            keeper.save(trainer)
            return False
        return True


def _serve(rank: Rank, settings: dict[str, Any], logs: bool, checkpoint: Path | None) -> None:
    """A rank other than 0 of a job, in a process of its own. Its record is scratch."""
    cfg = OmegaConf.create(settings)
    with _bounded_noise(), products(cfg):
        MaximizationWork(cfg, rank.record).serve(rank, logs=logs, checkpoint=checkpoint)


class SearchWork(UnitsWork):
    """Maximizes units over real tokens, and sets what it finds beside the same nulls."""

    def read(self) -> dict[str, str | None]:
        """The text that it chooses among, where there is one."""
        data = {"data": config.data_hash(self.cfg)} if config.reads_text(self.cfg) else {}
        return super().read() | data

    def prepare(self) -> None:
        """Puts the subject where it is to run, and builds the settings."""
        cfg, vocabulary = self.cfg, len(self.subject.embedding_matrix)
        if cfg.decode.top_k > vocabulary:
            allowed = f"must be at most {vocabulary}, the size of the vocabulary"
            raise InputError("decode.top_k", cfg.decode.top_k, allowed)
        content: Any = OmegaConf.to_container(cfg.search, resolve=True)
        self.settings = SearchSettings.of(content, tokens=cfg.tokens)
        self.objective = Objective(cfg.objective.reduction, cfg.objective.sign)
        self.subject.to(_device(cfg.trainer.accelerator))

    def perform(self, tracker: Tracker, checkpoint: Path | None) -> dict[str, Any]:  # noqa: ARG002
        """Searches and measures."""
        cfg, clock, stop = self.cfg, time.perf_counter(), Stop()
        gap_settings = GapSettings(**cfg.gap)
        with _graceful_interrupt(stop):
            found = self._search(stop, gap_settings, checkpoint)
        seconds = {"fit": time.perf_counter() - clock}
        search_tables.write_found(self.record, self.subject, found, top_k=cfg.decode.top_k)
        if stop.requested:
            log.warning("Stopped by hand: the best of each restart so far is kept in %s", self.record.folder)
            raise KeyboardInterrupt
        clock = time.perf_counter()
        said = search_tables.summarize(
            self.record,
            self.subject,
            found,
            objective=self.objective,
            searched=self.settings,
            settings=NullSettings(**cfg.nulls),
            gap_settings=gap_settings,
            cache=cache_folder() / "nulls",
        )
        seconds["nulls"] = time.perf_counter() - clock
        return {**said, "method": self.settings.method, **self.signed(seconds)}

    def _search(self, stop: Stop, gap_settings: GapSettings, checkpoint: Path | None) -> list[Found]:
        subject, tokens, units = self.subject, self.cfg.tokens, config.units(self.cfg)
        answers = [] if checkpoint is None else torch.load(checkpoint, weights_only=True)["answers"]
        spread = spreads(subject, self.objective, units, tokens=tokens, settings=gap_settings)
        options = {"tokens": tokens, "spread": spread, "max_rows": self.cfg.max_rows, "answers": answers}
        silent, shown, kept = not sys.stderr.isatty(), time.perf_counter(), time.perf_counter()
        with tqdm(desc="search", unit="pass", disable=silent) as bar:

            def progress(done: int, total: int) -> bool:
                nonlocal shown
                bar.total, bar.n = total, done
                bar.refresh()
                if silent and time.perf_counter() - shown > LINE_SECONDS:
                    shown = time.perf_counter()
                    log.info("%d of %d forward passes", done, total)
                return stop.requested

            def keep(given: list) -> None:
                nonlocal kept
                if stop.requested or time.perf_counter() - kept > KEEP_SECONDS:
                    kept = time.perf_counter()
                    self._keep(given)

            return search(subject, self.objective, self.rows, self.settings, progress=progress, keep=keep, **options)

    def _keep(self, answers: list) -> None:
        """A checkpoint: whose it is, and what every restart was answered so far."""
        name = str(self.record.checkpoint.relative_to(self.record.folder))
        content = {"actmax": self.identity, "global_step": max(map(len, answers)), "answers": answers}
        self.record.write(name, partial(torch.save, content))


def _device(accelerator: str) -> str:
    """Where a job without a Lightning trainer runs."""
    if _on_cuda(accelerator):
        return "cuda"
    return "mps" if accelerator in ("gpu", "mps") else "cpu"


class SimulationWork(Work):
    """Report B on simulated data: t-test against logistic regression where the truth is known.

    Args:
        cfg: the job's config.
        record: where it writes.
    """

    def __init__(self, cfg: DictConfig, record: Record) -> None:
        record.require_space(50_000_000)
        self.cfg, self.record = cfg, record

    @property
    def identity(self) -> dict[str, str | None]:
        """The job."""
        return {"job_hash": job_hash({"config": config.identity(self.cfg)})}

    def prepare(self) -> None:
        """Builds the design."""
        self.design = config.design(self.cfg)

    def tracker(self) -> Tracker:
        """The one that the config names."""
        design = self.cfg.simulation
        name = f"simulation {design.distribution} {design.n_0} against {design.n_1}"
        return tracker_of(self.cfg, self.record, name, [design.distribution], dict(self.identity))

    def perform(self, tracker: Tracker, checkpoint: Path | None) -> dict[str, Any]:  # noqa: ARG002
        """Simulates and compares."""
        clock = time.perf_counter()
        found = stats.simulate(self.design)
        headline = results.write_simulation(self.record, found)
        seconds = {"simulation": time.perf_counter() - clock}
        return {**headline, **_setting(self.identity, torch.device("cpu"), seconds)}


class TuningWork(SubjectWork):
    """Report B on a model's real activations: which units tell two categories of words apart."""

    def prepare(self) -> None:
        """Reads the words, encodes them, and makes room for their activations."""
        settings = self.cfg.tuning
        self.places = config.tuned_places(self.cfg, self.subject.geometry)
        self.encoding = encode(self.subject, words.read(config.reading(self.cfg)), bos=settings.bos)
        self.unit = None if settings.unit is None else config.tuned_unit(settings.unit)
        if self.unit is not None and (self.unit.site, self.unit.layer) not in self.places:
            raise InputError("tuning.unit", settings.unit, "must be of a site and layer that are compared")
        text = None if settings.text is None else heatmap.text_of(settings.text)
        self.ids = None if text is None else heatmap.encoded(self.subject, text, bos=settings.bos)
        size = sum(self.subject.geometry.width(site) for site, _ in self.places)
        self.record.require_space(size * (len(self.encoding.data.samples) * 8 + 2000) + 50_000_000)

    def tracker(self) -> Tracker:
        """The one that the config names."""
        cfg = self.cfg
        name = f"{cfg.subject.name} {Path(cfg.tuning.data).stem}"
        return tracker_of(cfg, self.record, name, [cfg.subject.name, *cfg.tuning.sites], dict(self.identity))

    def perform(self, tracker: Tracker, checkpoint: Path | None) -> dict[str, Any]:  # noqa: ARG002
        """Reads the activations, compares, draws."""
        cfg, found = self.cfg.tuning, self.encoding.data
        store = Store(
            self.subject.geometry,
            self.places,
            len(found.samples),
            memory=cfg.memory * 1e9,
            folder=self.record.path("activations"),
            keep=cfg.save,
            dtype="float64" if self.subject.dtype == torch.float64 else "float32",
        )
        with store:
            clock = time.perf_counter()
            texts = Texts(self.encoding.texts, tokens=cfg.batch_tokens, padding=cfg.padding)
            reader = Reader(self.subject, store, vector=cfg.vector)
            trainer = activations.trainer(accelerator=self.cfg.trainer.accelerator, folder=self.record.folder)
            trainer.predict(reader, datamodule=texts, return_predictions=False)
            seconds = {"activations": time.perf_counter() - clock}
            clock = time.perf_counter()
            headline = self._analyse(store)
            seconds["analysis"] = time.perf_counter() - clock
        return {**headline, **self.signed(seconds)}

    def _analyse(self, store: Store) -> dict[str, Any]:
        cfg, data = self.cfg.tuning, self.encoding.data
        settings = Settings(cfg.alpha, cfg.splits, cfg.folds, cfg.C, cfg.permutations, cfg.top, cfg.seed)
        samples = words_of(data, self.encoding.subtokens)
        found = analysis.analyse(store, samples, self.subject.geometry, settings, _shown)
        headline = results.write_tuning(self.record, found, self.encoding, store, cfg.data)
        if self.ids is None:
            return headline
        unit, scale = results.scale_of(found, self.unit, data.categories)
        drawn = heatmap.heat_map(self.subject, unit, self.ids, scale)
        return {**headline, **results.write_heat_map(self.record, drawn)}


def _shown(places: Iterable[Place], what: str) -> Iterator[Place]:
    """Shows how far a pass over sites and layers is: a bar on a terminal, else a line now and then."""
    whole, shown = list(places), time.monotonic()
    with tqdm(whole, desc=what, unit="layer", disable=not sys.stderr.isatty()) as bar:
        for number, place in enumerate(bar, start=1):
            yield place
            if bar.disable and time.monotonic() - shown > 10:
                shown = time.monotonic()
                log.info("%s: %d of %d layers", what, number, len(whole))


class ExamplesWork(SubjectWork):
    """Where in real text units are highest."""

    def prepare(self) -> None:
        """Looks through the files, and at the record that is to stand beside them."""
        cfg = self.cfg.examples
        self.files = text_files(Path(cfg.text))
        self.begin = begin_token(self.subject, cfg.bos, key="examples.bos")
        self.units = config.units(self.cfg)
        self.beside = None if cfg.record is None else Record(cfg.record)
        if self.beside is not None:
            named = self.beside.summary().get("subject", {}).get("weights_sha256")
            if named != self.subject.weights_hash:
                raise InputError(
                    "examples.record", cfg.record, f"must be of {self.subject.name}, with the same weights"
                )

    def tracker(self) -> Tracker:
        """The one that the config names."""
        name = f"{self.cfg.subject.name} examples of {self.cfg.unit.site}"
        return tracker_of(self.cfg, self.record, name, [self.cfg.subject.name], dict(self.identity))

    def perform(self, tracker: Tracker, checkpoint: Path | None) -> dict[str, Any]:  # noqa: ARG002
        """Reads the text."""
        cfg, clock = self.cfg.examples, time.perf_counter()
        if _on_cuda(self.cfg.trainer.accelerator):
            self.subject.to("cuda")
        text = windows(self.subject, self.files, size=cfg.window, begin=self.begin)
        with tqdm(desc="text", unit="token", unit_scale=True, disable=not sys.stderr.isatty()) as bar:
            found = examples.find_examples(
                self.subject,
                self.units,
                text,
                top=cfg.top,
                seed=cfg.seed,
                rows=cfg.rows,
                sample=cfg.sample,
                context=cfg.context,
                progress=_Lines(bar),
            )
        headline = results.write_examples(self.record, found, self.beside)
        seconds = {"examples": time.perf_counter() - clock}
        return {**headline, **self.signed(seconds)}


class _Lines:
    """Moves a bar on, and says a line now and then where there is none."""

    def __init__(self, bar: tqdm) -> None:
        self.bar, self.done, self.shown = bar, 0, time.monotonic()

    def __call__(self, tokens: int) -> None:
        self.bar.update(tokens)
        self.done += tokens
        if self.bar.disable and time.monotonic() - self.shown > 10:
            self.shown = time.monotonic()
            log.info("%d tokens read", self.done)


TASKS = {
    "maximization": MaximizationWork,
    "search": SearchWork,
    "simulation": SimulationWork,
    "tuning": TuningWork,
    "examples": ExamplesWork,
}


def tracker_of(cfg: DictConfig, record: Record, name: str, tags: list[str], identity: dict[str, Any]) -> Tracker:
    """The tracker that the config names."""
    logger = cfg.logger
    if logger.name == "csv":
        return CsvTracker(record)
    if logger.name == "none":
        return Tracker()
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    return WandbTracker(
        record,
        project=logger.project,
        entity=logger.entity,
        group=cfg.sweep,
        name=name,
        tags=[cfg.task.name, *tags, *logger.tags],
        job_type=cfg.task.name,
        config={**identity, **plain, **_axes(cfg)},
        draw=pages.draw if cfg.report and cfg.page else None,
    )


def _axes(cfg: DictConfig) -> dict[str, Any]:
    """The unit and the seeds at the top level and as numbers, as W&B's tables and parallel coordinates want them."""
    if cfg.task.name != "maximization":
        return {}
    units = config.units(cfg)
    layers, indices = list(dict.fromkeys(u.layer for u in units)), list(dict.fromkeys(u.index for u in units))
    axes = {"layer": layers, "index": indices, "seeds": config.seeds(cfg)}
    return {"site": cfg.unit.site, **{key: one[0] if len(one) == 1 else one for key, one in axes.items()}}


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}}


def _setting(identity: dict[str, str | None], device: torch.device, seconds: dict[str, float]) -> dict[str, Any]:
    """Under which job, where, how long and with what a result came about."""
    name = platform.processor() or platform.machine()
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    return {
        "job_hash": identity["job_hash"],
        "device": {
            "type": device.type,
            "name": name,
            "threads": torch.get_num_threads(),
            "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "host": platform.node(),
            "process": os.getpid(),
        },
        "seconds": {**seconds, "total": sum(seconds.values())},
        "versions": _versions(),
    }


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
