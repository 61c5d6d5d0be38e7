"""Several processes for one job: each optimizes restarts of its own, and rank 0 alone leaves a record.

Restarts have nothing to tell each other, so no gradient and no parameter is exchanged and every rank runs a Lightning
trainer for one device: a strategy such as DDP would average the restarts into one. Ranks meet (gloo, on this machine)
only to stop after the same step, to make one checkpoint of the whole job, to add up running measures, and at the end.
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
"""How long a rank waits for a living one that is slower; of a dead one it hears at once."""
GRACE = 10.0
"""Seconds in which a rank that made another fail shows itself."""
GLOO_INTERFACE = "GLOO_SOCKET_IFNAME"


class RankError(RuntimeError):
    """A rank other than 0 ended before its work was done; the note holds its own traceback."""


class Scratch(Record):
    """The record of a rank other than 0: its share of a checkpoint at most, and gone with the job."""

    def require_space(self, needed: int) -> None:  # noqa: ARG002
        """Needs none to speak of; that of the job has been asked for."""
        self.folder.mkdir(exist_ok=True)


@dataclass(frozen=True)
class Rank:
    """One of the processes that share a job."""

    number: int
    """From 0, which is the process that the user started."""
    count: int
    """How many there are."""
    folder: Path
    """Where they meet, on a disk of this machine; it is gone when the job ends."""
    threads: int
    """Of the CPU, for each."""

    @property
    def record(self) -> Record:
        """Where it writes what nobody will read."""
        return Scratch(self.folder / f"rank{self.number}")

    def share(self, total: int) -> slice:
        """Its own restarts: neighbours stay together, and no share is larger than another by more than one.

        Example:
            >>> [Rank(number, 2, Path(), 1).share(5) for number in range(2)]
            [slice(0, 2, None), slice(2, 5, None)]
        """
        return slice(total * self.number // self.count, total * (self.number + 1) // self.count)

    def meet(self) -> None:
        """Says that it is ready, and opens the group; until all have done so, it waits."""
        (self.folder / f"ready{self.number}").touch()
        with _loopback():
            store = dist.FileStore(str(self.folder / "store"), self.count)  # pyright: ignore[reportPrivateImportUsage]
            dist.init_process_group("gloo", store=store, rank=self.number, world_size=self.count, timeout=PATIENCE)


class Together(Callback):
    """What ranks must do at the same step, though each has a trainer of its own.

    Args:
        rank: of this process.
    """

    def __init__(self, rank: Rank) -> None:
        self.rank = rank

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Leaves it to rank 0 to hear that the job is to end (Slurm tells every process); the fit's end undoes this."""
        if self.rank.number > 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        outputs: Any,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Stops all where one would stop."""
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
        """Hands every restart over to rank 0, at the end.

        Args:
            trainer: of this rank.
            module: on rank 0, holds all restarts; it and the callbacks take up the state of the whole job.
        """
        share: Any = trainer.lightning_module
        states = {one.state_key: one.state_dict() for one in _with_rows(trainer)}
        whole = self._joined(trainer, {"state_dict": share.state_dict(), "callbacks": states})
        if module is not None:
            module.load_state_dict(whole["state_dict"])
            for one in _with_rows(trainer):
                one.load_state_dict(whole["callbacks"][one.state_key])

    def _joined(self, trainer: Trainer, checkpoint: Mapping[str, Any]) -> dict[str, Any]:
        """On rank 0 the checkpoint with the rows of all ranks; elsewhere as it was."""
        own = _each(Tensor.cpu, _rows(checkpoint, _with_rows(trainer)))
        parts: list[Any] | None = [None] * self.rank.count if self.rank.number == 0 else None
        dist.gather_object(own, parts)
        return dict(checkpoint) if parts is None else _with(checkpoint, _each(_cat, *parts))


def shared_checkpoint(file: Path, rank: Rank, rows: slice, callbacks: Sequence[Callback]) -> Path:
    """What a rank needs of a checkpoint of the whole job, whatever number of devices made it.

    Args:
        file: the checkpoint.
        rank: who asks.
        rows: its own restarts.
        callbacks: those whose state the checkpoint may hold.

    Returns:
        A checkpoint of those restarts, in the rank's own record.
    """
    content = torch.load(file, map_location="cpu", weights_only=True)
    # cloned, for a view would be saved with everything that it is a view of
    own = _each(lambda value: value[rows].clone() if value.dim() else value, _rows(content, _by_row(callbacks)))
    return rank.record.write("share.ckpt", lambda path: torch.save(_with(content, own), path))


def _by_row(callbacks: Sequence[Callback]) -> list[JobCallback]:
    return [one for one in callbacks if isinstance(one, JobCallback) and one.by_row]


def _with_rows(trainer: Trainer) -> list[JobCallback]:
    return _by_row(trainer.callbacks)  # pyright: ignore[reportAttributeAccessIssue]


def _rows(checkpoint: Mapping[str, Any], callbacks: Sequence[JobCallback]) -> dict[str, Any]:
    """Those parts of a checkpoint in which every tensor (but single numbers) has a row per restart."""
    states = checkpoint["callbacks"]
    own = {one.state_key: {name: states[one.state_key][name] for name in one.by_row} for one in callbacks}
    kept = {key: checkpoint[key] for key in ("state_dict", "optimizer_states") if key in checkpoint}
    return {**kept, "callbacks": own}


def _with(checkpoint: Mapping[str, Any], rows: Mapping[str, Any]) -> dict[str, Any]:
    """The checkpoint with those parts replaced."""
    own = rows["callbacks"]
    states = {key: {**state, **own[key]} if key in own else state for key, state in checkpoint["callbacks"].items()}
    return {**checkpoint, **rows, "callbacks": states}


def _each(change: Callable[..., Tensor], *parts: Any) -> Any:
    """Changes the tensors that stand at one place of containers of one form; what is no tensor is the first's."""
    first = parts[0]
    if isinstance(first, Tensor):
        return change(*parts)
    if isinstance(first, Mapping):
        return {key: _each(change, *(part[key] for part in parts)) for key in first}
    if isinstance(first, (list, tuple)):
        return type(first)(_each(change, *items) for items in zip(*parts, strict=True))
    return first


def _cat(*parts: Tensor) -> Tensor:
    return torch.cat(parts) if parts[0].dim() else parts[0]


@contextmanager
def started(count: int, serve: Callable[..., None], *args: Any) -> Iterator[Rank]:
    """Starts the other ranks, and yields rank 0, which is this process, in an open group.

    Whatever happens, no process and no group is left behind.

    Args:
        count: how many ranks, this one among them.
        serve: what every other rank does: `serve(rank, *args)`; it must call `rank.meet()` when it is ready.
        args: of `serve`; they are pickled.

    Raises:
        RankError: another rank failed or was killed.
    """
    threads, context = torch.get_num_threads(), get_context("spawn")
    share = max(1, threads // count)
    with tempfile.TemporaryDirectory(prefix="actmax-ranks-") as folder:
        first, *ranks = (Rank(number, count, Path(folder), share) for number in range(count))
        others = [context.Process(target=_work, args=(rank, serve, args), daemon=True) for rank in ranks]
        try:
            torch.set_num_threads(share)
            _start(others)
            _await(first, others)
            yield first
        except RankError:
            raise
        except RuntimeError as error:  # gloo's, where a rank is gone, is no more special
            if _ended(others, GRACE):
                _blame(first, others, error)
            raise
        finally:
            torch.set_num_threads(threads)
            _end(others)


def _start(others: Sequence[BaseProcess]) -> None:
    """Starts processes that Ctrl-C does not reach: rank 0 hears it, and tells them."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None  # a new process inherits that
    try:
        for other in others:
            other.start()
    finally:
        if main:
            signal.signal(signal.SIGINT, before)


def _await(first: Rank, others: Sequence[BaseProcess]) -> None:
    """Opens the group once all are ready. Until then a Ctrl-C or a dead rank is noticed, which gloo would not."""
    ready = [first.folder / f"ready{number}" for number in range(1, first.count)]
    while not all(file.exists() for file in ready):
        if _ended(others, 0.02):
            _blame(first, others, None)
    first.meet()


def _ended(others: Sequence[BaseProcess], seconds: float) -> list[BaseProcess]:
    """Those that have ended, as soon as there is one, but not later than in so many seconds."""
    by_sentinel: dict[Any, BaseProcess] = {other.sentinel: other for other in others if other.pid is not None}
    return [by_sentinel[sentinel] for sentinel in wait(list(by_sentinel), seconds)]


def _end(others: Sequence[BaseProcess]) -> None:
    for other in others:
        if other.pid is not None:
            other.kill()  # not terminate(), to which Lightning listens and gloo does not
            other.join()
            other.close()
    if dist.is_initialized():
        dist.destroy_process_group()


def _blame(first: Rank, others: Sequence[BaseProcess], cause: RuntimeError | None) -> NoReturn:
    """Names the rank that failed first; those that lost it failed after it."""
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
    said = json.loads((first.folder / "error").read_text(encoding="utf-8"))
    error = RankError(f"rank {said['rank']} of {first.count} failed: {said['error']}")
    error.add_note(f"On rank {said['rank']}:\n{said['traceback']}")
    raise error from cause


def _work(rank: Rank, serve: Callable[..., None], args: Sequence[Any]) -> None:
    """The life of a rank other than 0."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, args=(rank,), daemon=True).start()
    torch.set_num_threads(rank.threads)
    rank_zero_only.rank = rank.number  # pyright: ignore[reportFunctionMemberAccess]
    try:
        serve(rank, *args)
    except Exception as error:  # whatever it is, rank 0 reports it
        _confess(rank, error)
        sys.stderr.flush()
        os._exit(1)  # leaves the group and this world at once: whoever loses this rank confesses later, to no effect
    threading.Event().wait()  # rank 0 may still be reading what this one has sent; it kills whom it needs no more


def _follow(rank: Rank) -> None:
    """Ends this process when the one that started it is gone, and takes along what that one would have."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        shutil.rmtree(rank.folder, ignore_errors=True)
        os._exit(1)


def _confess(rank: Rank, error: Exception) -> None:
    """Leaves word, unless another has failed before."""
    said = {"rank": rank.number, "error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
    with suppress(FileExistsError), (rank.folder / "error").open("x", encoding="utf-8") as file:
        json.dump(said, file)


@contextmanager
def _loopback() -> Iterator[None]:
    """Keeps gloo off the network, unless the user has named an interface."""
    names = [name for _, name in socket.if_nameindex() if name.startswith("lo")]
    if GLOO_INTERFACE in os.environ or not names:
        yield
        return
    os.environ[GLOO_INTERFACE] = names[0]
    try:
        yield
    finally:
        del os.environ[GLOO_INTERFACE]
