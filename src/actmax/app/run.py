"""A config in, a record out: one job of the command line."""

from __future__ import annotations

import logging
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from actmax.app import config, report
from actmax.app.job import FOLDER, run_job
from actmax.app.tracking import CsvTracker, Tracker, WandbTracker
from actmax.errors import JobError, renamed
from actmax.memory import is_lack
from actmax.model.subject import Subject
from actmax.records.store import Record
from actmax.tasks.execution import matmul_precision, quieted
from actmax.tasks.pages import draw_figures, write_job
from actmax.tasks.schema import UNREAD, without_effect
from actmax.tasks.settings import seeds, units
from actmax.tasks.subjects import subject_of
from actmax.tasks.task import Work, plain

log = logging.getLogger(__name__)

TOO_LARGE = (
    "Memory ran out. subject.dtype=bfloat16 halves what the weights take; trainer=cpu takes the machine's memory in "
    "the place of a GPU's; or take a smaller model."
)
"""What to do where there is no memory for a model."""


def run(cfg: DictConfig) -> None:
    """Runs one job in Hydra's output folder, or shows its record if it is complete.

    Args:
        cfg: a config that `config.check` and `config.check_subject` have passed.

    Raises:
        InputError: the user's input is wrong; nothing was started.
        JobError: the job failed; its record says how.
        KeyboardInterrupt: the user stopped it; its record holds the best so far.
    """
    task, record = config.task_in(cfg), Record(HydraConfig.get().runtime.output_dir)
    resolved = OmegaConf.to_yaml(cfg, resolve=True)
    hydra = HydraConfig.get()
    if hydra.mode == RunMode.RUN and (unread := without_effect(cfg, hydra.overrides.task)):
        log.warning(UNREAD, "this job", " ".join(unread))
    with quieted(), matmul_precision(cfg.trainer.matmul_precision):
        work = task.work(cfg, _loaded(cfg) if task.on_subject else None)
        with renamed(FOLDER):
            record.require_space(work.space)
        draws = cfg.report and cfg.page and HydraConfig.get().mode != RunMode.MULTIRUN
        request = config.request(cfg)
        try:
            run_job(
                work,
                record,
                lambda: tracker_of(cfg, record, work),
                resolved=resolved,
                request=request,
                resume=cfg.resume,
                force=cfg.force,
            )
        except JobError:
            if draws:
                write_job(record)
            raise
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        log.info("%s", task.line(record.summary()))
    elif cfg.report:
        if draws:
            write_job(record)
        report.show(record)


def _loaded(cfg: DictConfig) -> Subject:
    """The subject of a job.

    Raises:
        InputError: names the key.
        JobError: there is no memory for it.
    """
    try:
        return subject_of(cfg)
    except Exception as error:
        if not is_lack(error):
            raise
        raise JobError(f"{type(error).__name__}: {error} (while {cfg.subject.name} was loaded). {TOO_LARGE}") from error


def tracker_of(cfg: DictConfig, record: Record, work: Work) -> Tracker:
    """The tracker that the config names, for one job."""
    logger = cfg.logger
    if logger.name == "csv":
        return CsvTracker(record)
    if logger.name == "none":
        return Tracker()
    task, (name, tags) = config.task_in(cfg), work.title
    kind = task.name
    return WandbTracker(
        record,
        project=logger.project,
        entity=logger.entity,
        group=cfg.sweep,
        name=name,
        tags=[kind, *tags, *logger.tags],
        job_type=kind,
        config={**work.identity, **plain(cfg), **_axes(cfg)},
        state=task.statement,
        draw=draw_figures if cfg.report and cfg.page else None,
    )


def _axes(cfg: DictConfig) -> dict[str, Any]:
    """The unit and the seeds at the top level and as numbers, as W&B's tables and parallel coordinates want them."""
    if "init" not in config.task_in(cfg).keys:
        return {}
    found = units(cfg)
    layers, indices = list(dict.fromkeys(u.layer for u in found)), list(dict.fromkeys(u.index for u in found))
    axes = {"layer": layers, "index": indices, "seeds": seeds(cfg)}
    return {"site": found[0].site, **{key: one[0] if len(one) == 1 else one for key, one in axes.items()}}
