"""The life of any job: what its folder already holds, its lock, its status, its failure, its end."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from actmax.app.tracking import Tracker
from actmax.errors import InputError, JobError, renamed
from actmax.maximize import memory
from actmax.memory import is_lack
from actmax.records.contents import Contents
from actmax.records.store import Record, Status, now
from actmax.tasks.task import Run, Work

log = logging.getLogger(__name__)

FORCE = "force=true moves that record aside and runs the job again."
LACK = (
    "Memory ran out. Fewer rows in a forward pass take less (max_rows=N, with texts examples.rows or "
    "tuning.batch_tokens), and so do fewer tokens, draws and units."
)
"""What to do where memory ran out."""
FOLDER = {"folder": "hydra.run.dir"}
"""The config key behind the argument `folder` of a record."""


def run_job(
    work: Work,
    record: Record,
    tracker: Callable[[], Tracker],
    *,
    resolved: str,
    request: str | None = None,
    resume: bool = True,
    force: bool = False,
) -> None:
    """Does what is left to do of a job, in its folder, alone.

    Args:
        work: the job, ready to be done.
        record: the record that the job writes.
        tracker: makes the job's tracker; called once the job begins.
        resolved: the resolved config, as text.
        request: hash of the config that was asked for; kept in the status.
        resume: go on from a checkpoint.
        force: do it again though it is complete; the old record moves aside.

    Raises:
        BusyError: another process is at this very job; nothing was changed.
        InputError: the folder holds something else; nothing was changed.
        JobError: the work failed; the record says how.
        KeyboardInterrupt: it was stopped by hand; the record says so.
    """
    with renamed(FOLDER), record.alone():
        job_hash = str(work.identity["job_hash"])
        status = _own_status(record, job_hash, force=force)
        if status is not None and status.state == "complete":
            record.require_whole(status)
            log.info("This job is complete; force=true runs it again.")
            return
        record.clean()
        checkpoint = _checkpoint(record, work.identity) if status is not None and resume else None
        work.prepare()
        # the status comes first: a folder with other files and no status is somebody else's
        record.set_status(begun := Status("running", job_hash, now(), request=request))
        _begin(work, record, tracker, begun, checkpoint, resolved)


def _begin(
    work: Work,
    record: Record,
    make_tracker: Callable[[], Tracker],
    status: Status,
    checkpoint: Path | None,
    resolved: str,
) -> None:
    exit_code, tracker = 1, Tracker()
    try:
        record.write_text("config.yaml", resolved)
        tracker = make_tracker()
        with renamed(FOLDER):
            summary = work.perform(Run(Contents(record), record.folder, checkpoint, tracker.loggers))
        record.write_json("summary.json", summary)
        tracker.publish(record, summary)
        record.set_status(replace(status, state="complete", finished=now(), files=record.files))
        exit_code = 0
    except KeyboardInterrupt:
        exit_code = 130
        record.set_status(replace(status, state="interrupted", finished=now()))
        raise
    except Exception as error:  # whatever ends a job, its status says so
        log.exception("the job failed")
        _fail(record, replace(status, state="failed", finished=now(), error=_described(error)))
        lacking = f" {LACK}" if is_lack(error) else ""
        raise JobError(f"{type(error).__name__}: {error} (traceback in {record.folder}){lacking}") from error
    finally:
        tracker.finish(exit_code)
        memory.give_back()  # a sweep runs its jobs in one process


def _described(error: Exception) -> dict[str, str]:
    return {"type": type(error).__name__, "message": str(error), "traceback": traceback.format_exc()}


def _fail(record: Record, status: Status) -> None:
    try:
        record.set_status(status)
    except OSError:
        log.exception("the status could not be written either")  # a full disk, say


def _own_status(record: Record, job_hash: str, *, force: bool) -> Status | None:
    """How this job stands in the folder; None where it has not begun (any more)."""
    if force:
        record.move_aside()
        return None
    try:
        status = record.status()
    except InputError as error:
        allowed = f"its record is damaged or of another version ({error.key}={error.value})"
        raise InputError("folder", record.folder, allowed, f"{FORCE} Or name another folder.") from error
    if status is None:
        if record.path("summary.json").exists():
            raise InputError("folder", record.folder, "its record is damaged: status.json is missing", FORCE)
        return None
    if status.job_hash != job_hash:
        way_out = "Name another folder, or add force=true to move that record aside."
        raise InputError("hydra.run.dir", record.folder, "it holds the record of another job", way_out)
    return status


def _checkpoint(record: Record, identity: Mapping[str, str | None]) -> Path | None:
    """The checkpoint of an unfinished run, once it has shown that it is whole and of this job."""
    file = record.checkpoint
    if not file.exists():
        return None
    way_out = f"Delete {file} or add resume=false to start afresh."
    if not file.is_file():
        raise InputError("resume", "true", f"the checkpoint {file} must be a file on disk", way_out)
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
        found, step = content["actmax"], content["global_step"]
    except Exception as error:  # a damaged file can raise anything
        allowed = f"the checkpoint {file} cannot be read ({type(error).__name__})"
        raise InputError("resume", "true", allowed, way_out) from error
    if found != identity:
        raise InputError("resume", "true", f"the checkpoint {file} is not of this job and subject", way_out)
    log.info("Going on from step %d of an interrupted run.", step)
    return file
