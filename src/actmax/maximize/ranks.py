"""Several processes for one job: each optimizes restarts of its own, and rank 0 alone leaves a record.

Restarts have nothing to tell each other, so no gradient and no parameter is exchanged and every rank runs a Lightning
trainer for one device: a strategy such as DDP would average the restarts into one. Ranks communicate (gloo, on this
machine) only to stop after the same step, to make one checkpoint of the whole job, to add up running measures, and at
the end.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import parent_process
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.multiprocessing import get_context

from actmax.maximize.callbacks import JobCallback
from actmax.maximize.module import Maximization
from actmax.records.store import Record

PATIENCE = timedelta(minutes=30)
"""Longest time that a rank waits for a slower one; that one has ended is known at once."""
GRACE = 10.0
"""Seconds in which the rank that made others fail must have ended."""
GLOO_INTERFACE = "GLOO_SOCKET_IFNAME"
"""Environment variable that names the network interface which gloo uses."""


class RankError(RuntimeError):
    """A rank other than 0 ended before its work was done; the note holds its own traceback."""


class Scratch(Record):
    """The record of a rank other than 0: it holds a share of a checkpoint at most, and is deleted with the job."""

    def require_space(self, needed: int) -> None:  # noqa: ARG002
        """Makes the folder; the space for the job's own record has been checked."""
        self.folder.mkdir(exist_ok=True)


@dataclass(frozen=True)
class Rank:
    """One of the processes that share a job."""

    number: int
    """Number of the rank, from 0, which is the process that the user started."""
    count: int
    """Number of ranks that share the job."""
    folder: Path
    """Folder for their messages, on a disk of this machine; it is deleted when the job ends."""
    threads: int
    """Number of CPU threads that each rank uses."""

    @property
    def record(self) -> Record:
        """A record for what this rank writes, which is deleted with the job."""
        return Scratch(self.folder / f"rank{self.number}")

    def share(self, total: int) -> slice:
        """The restarts of this rank: neighbours stay together, and shares differ by one restart at most.

        Example:
            >>> [Rank(number, 2, Path(), 1).share(5) for number in range(2)]
            [slice(0, 2, None), slice(2, 5, None)]
        """
        return slice(total * self.number // self.count, total * (self.number + 1) // self.count)

    def join(self) -> None:
        """Reports that this rank is ready, and opens the group; waits until all ranks have done so."""
        (self.folder / f"ready{self.number}").touch()
        with _loopback():
            store = dist.FileStore(str(self.folder / "store"), self.count)  # pyright: ignore[reportPrivateImportUsage]
            dist.init_process_group("gloo", store=store, rank=self.number, world_size=self.count, timeout=PATIENCE)


class RankSync(Callback):
    """What ranks do together, though each has a trainer of its own: stop after one step, and make one checkpoint.

    Args:
        rank: the rank of this process.
    """

    def __init__(self, rank: Rank) -> None:
        self.rank = rank

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Leaves SIGTERM, which Slurm sends to every process, to rank 0; the end of the fit undoes this."""
        if self.rank.number > 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        outputs: object,  # noqa: ARG002
        batch: object,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Stops all ranks after this step where one of them is to stop."""
        stop = torch.tensor([trainer.should_stop], dtype=torch.uint8)
        dist.all_reduce(stop, op=dist.ReduceOp.MAX)
        trainer.should_stop = bool(stop.item())

    def on_save_checkpoint(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        checkpoint: dict[str, Any],
    ) -> None:
        """Makes rank 0's checkpoint one of the whole job, as a single device would have written it."""
        checkpoint.update(self._joined(trainer, checkpoint))

    def collect(self, trainer: Trainer, module: Maximization | None) -> None:
        """Sends every restart to rank 0, after the last step.

        Args:
            trainer: this rank's trainer.
            module: on rank 0, a module of all restarts; it and the callbacks take over the state of the whole job.
        """
        share = trainer.lightning_module
        states = {one.state_key: one.state_dict() for one in _row_callbacks(trainer)}
        whole = self._joined(trainer, {"state_dict": share.state_dict(), "callbacks": states})
        if module is not None:
            module.load_state_dict(whole["state_dict"])
            for one in _row_callbacks(trainer):
                one.load_state_dict(whole["callbacks"][one.state_key])

    def _joined(self, trainer: Trainer, checkpoint: Mapping[str, Any]) -> dict[str, Any]:
        """On rank 0 the checkpoint with the rows of all ranks; elsewhere as it was."""
        own = _map_tensors(Tensor.cpu, _rows(checkpoint, _row_callbacks(trainer)))
        parts: list[Any] | None = [None] * self.rank.count if self.rank.number == 0 else None
        dist.gather_object(own, parts)
        return dict(checkpoint) if parts is None else _replaced(checkpoint, _map_tensors(_concatenated, *parts))


def shared_checkpoint(file: Path, rank: Rank, rows: slice, callbacks: Sequence[Callback]) -> Path:
    """A rank's share of a checkpoint of the whole job, whatever number of devices made it.

    Args:
        file: the checkpoint of the whole job.
        rank: the rank that resumes.
        rows: the restarts of that rank.
        callbacks: those whose state the checkpoint may hold.

    Returns:
        A checkpoint of those restarts, in the rank's own record.
    """
    content = torch.load(file, map_location="cpu", weights_only=True)
    # Cloned: a view would be saved with all that it is a view of.
    own = _map_tensors(
        lambda value: value[rows].clone() if value.dim() else value, _rows(content, _with_rows(callbacks))
    )
    return rank.record.write("share.ckpt", lambda path: torch.save(_replaced(content, own), path))


def _with_rows(callbacks: Sequence[Callback]) -> list[JobCallback]:
    return [one for one in callbacks if isinstance(one, JobCallback) and one.by_row]


def _row_callbacks(trainer: Trainer) -> list[JobCallback]:
    return _with_rows(trainer.callbacks)  # pyright: ignore[reportAttributeAccessIssue]


def _rows(checkpoint: Mapping[str, Any], callbacks: Sequence[JobCallback]) -> dict[str, Any]:
    """Those parts of a checkpoint in which every tensor (but single numbers) has a row per restart."""
    states = checkpoint["callbacks"]
    own = {one.state_key: {name: states[one.state_key][name] for name in one.by_row} for one in callbacks}
    kept = {key: checkpoint[key] for key in ("state_dict", "optimizer_states") if key in checkpoint}
    return {**kept, "callbacks": own}


def _replaced(checkpoint: Mapping[str, Any], rows: Mapping[str, Any]) -> dict[str, Any]:
    """The checkpoint with its parts that have rows replaced."""
    own = rows["callbacks"]
    states = {key: {**state, **own[key]} if key in own else state for key, state in checkpoint["callbacks"].items()}
    return {**checkpoint, **rows, "callbacks": states}


def _map_tensors(change: Callable[..., Tensor], *parts: Any) -> Any:
    """Applies a function to the tensors at each place of containers of one form; other values are the first's."""
    first = parts[0]
    if isinstance(first, Tensor):
        return change(*parts)
    if isinstance(first, Mapping):
        return {key: _map_tensors(change, *(part[key] for part in parts)) for key in first}
    if isinstance(first, (list, tuple)):
        return type(first)(_map_tensors(change, *items) for items in zip(*parts, strict=True))
    return first


def _concatenated(*parts: Tensor) -> Tensor:
    """The rows of all parts; a single number is the same in all of them."""
    return torch.cat(parts) if parts[0].dim() else parts[0]


@contextmanager
def started(count: int, serve: Callable[..., None], *args: object) -> Iterator[Rank]:
    """Starts the other ranks, and yields rank 0, which is this process, in an open group.

    At the end, and after any error, all processes and the group are gone.

    Args:
        count: number of ranks, this one among them.
        serve: what every other rank runs, `serve(rank, *args)`; it must call `rank.join()` when it is ready.
        args: arguments of `serve`; they are pickled.

    Raises:
        RankError: another rank failed or was killed.
    """
    threads, context = torch.get_num_threads(), get_context("spawn")
    share = max(1, threads // count)
    with tempfile.TemporaryDirectory(prefix="actmax-ranks-") as folder:
        first, *ranks = (Rank(number, count, Path(folder), share) for number in range(count))
        others = [context.Process(target=_run_rank, args=(rank, serve, args), daemon=True) for rank in ranks]
        try:
            torch.set_num_threads(share)
            _start_ranks(others)
            _wait_for_ranks(first, others)
            yield first
        except RankError:
            raise
        except RuntimeError as error:  # gloo raises no other, where a rank has ended
            if _ended(others, GRACE):
                _raise_rank_failure(first, others, error)
            raise
        finally:
            torch.set_num_threads(threads)
            _stop_ranks(others)


def _start_ranks(others: Sequence[BaseProcess]) -> None:
    """Starts processes that ignore Ctrl-C: rank 0 handles it, and stops them."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None  # a new process inherits that
    try:
        for other in others:
            other.start()
    finally:
        if main:
            signal.signal(signal.SIGINT, before)


def _wait_for_ranks(first: Rank, others: Sequence[BaseProcess]) -> None:
    """Opens the group once all ranks are ready; until then Ctrl-C works and a rank that ended is found."""
    # gloo itself would wait for a rank that never comes.
    ready = [first.folder / f"ready{number}" for number in range(1, first.count)]
    while not all(file.exists() for file in ready):
        if _ended(others, 0.02):
            _raise_rank_failure(first, others, None)
    first.join()


def _ended(others: Sequence[BaseProcess], seconds: float) -> list[BaseProcess]:
    """The processes that have ended, as soon as there is one, or none after some seconds."""
    by_sentinel: dict[Any, BaseProcess] = {other.sentinel: other for other in others if other.pid is not None}
    return [by_sentinel[sentinel] for sentinel in wait(list(by_sentinel), seconds)]


def _stop_ranks(others: Sequence[BaseProcess]) -> None:
    """Ends the processes of the other ranks, and the group."""
    for other in others:
        if other.pid is not None:
            other.kill()  # not terminate(), to which Lightning listens and gloo does not
            other.join()
            other.close()
    if dist.is_initialized():
        dist.destroy_process_group()


def _raise_rank_failure(first: Rank, others: Sequence[BaseProcess], cause: RuntimeError | None) -> NoReturn:
    """Raises an error that names the rank which failed first; others fail when they lose it.

    Raises:
        RankError: always.
    """
    for other in _ended(others, 0.0):
        other.join(GRACE)  # for its exit code
    codes = {number: other.exitcode or 0 for number, other in enumerate(others, start=1)}
    killed = [number for number, code in codes.items() if code < 0]
    if killed:
        name = signal.Signals(-codes[killed[0]]).name
        hint = "; the system kills a process where memory runs out" if name == "SIGKILL" else ""
        raise RankError(f"rank {killed[0]} of {first.count} was killed by {name}{hint}") from cause
    if not (first.folder / "error").exists():
        ended = {number: code for number, code in codes.items() if others[number - 1].exitcode is not None}
        raise RankError(f"a rank of {first.count} ended too early (exit codes {ended})") from cause
    report = json.loads((first.folder / "error").read_text(encoding="utf-8"))
    error = RankError(f"rank {report['rank']} of {first.count} failed: {report['error']}")
    error.add_note(f"On rank {report['rank']}:\n{report['traceback']}")
    raise error from cause


def _run_rank(rank: Rank, serve: Callable[..., None], args: Sequence[object]) -> None:
    """What the process of a rank other than 0 runs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(rank,), daemon=True).start()
    torch.set_num_threads(rank.threads)
    rank_zero_only.rank = rank.number  # pyright: ignore[reportFunctionMemberAccess]
    try:
        serve(rank, *args)
    except Exception as error:  # of any kind: rank 0 reports it
        _write_error(rank, error)
        sys.stderr.flush()
        os._exit(1)  # at once, so that ranks that lose this one fail after its error has been written
    threading.Event().wait()  # rank 0 may still be reading what this one has sent, and ends it afterwards


def _end_with_parent(rank: Rank) -> None:
    """Ends this process when the one that started it has ended, and deletes the folder in its place."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        shutil.rmtree(rank.folder, ignore_errors=True)
        os._exit(1)


def _write_error(rank: Rank, error: Exception) -> None:
    """Writes an error for rank 0 to report, unless another rank has failed before."""
    report = {"rank": rank.number, "error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
    with suppress(FileExistsError), (rank.folder / "error").open("x", encoding="utf-8") as file:
        json.dump(report, file)


@contextmanager
def _loopback() -> Iterator[None]:
    """Makes gloo use the loopback interface, unless the user has named another."""
    names = [name for _, name in socket.if_nameindex() if name.startswith("lo")]
    if GLOO_INTERFACE in os.environ or not names:
        yield
        return
    os.environ[GLOO_INTERFACE] = names[0]
    try:
        yield
    finally:
        del os.environ[GLOO_INTERFACE]
