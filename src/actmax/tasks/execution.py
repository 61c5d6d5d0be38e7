"""Around every job: what third parties print and do is kept in bounds, and Ctrl-C stops after the step in hand."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import entry_points

import torch
from lightning.fabric.utilities import registry

from actmax.progress import Stop

log = logging.getLogger(__name__)


@contextmanager
def quieted() -> Iterator[None]:
    """Keeps Lightning's announcements and known warnings of others out of a job's output, and spares repeated work."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings(), _workarounds():
            # Lightning 2.6 on torch 2.13: nothing that a user could act on
            warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated", module="lightning")
            # a job is one process, and a login node has srun too
            warnings.filterwarnings("ignore", message="The `srun` command is available")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _replaced(owner: object, name: str, value: object) -> Iterator[None]:
    """Gives an attribute another value for the time of a `with` block."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


_entry_points = cache(entry_points)
"""What installed packages declare, read once."""


@contextmanager
def _workarounds() -> Iterator[None]:
    """Two settings of other packages, for the time of a job; both can go without changing a result.

    Lightning 2.6 reads what every installed package declares at every Trainer: a twentieth of a small job's time. With
    `trainer.deterministic` PyTorch 2.13 fills every new tensor before it is written; nothing reads one before that.
    """
    filling = _replaced(torch.utils.deterministic, "fill_uninitialized_memory", value=False)
    with _replaced(registry, "entry_points", _entry_points), filling:
        yield


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """Sets PyTorch's precision of float32 products for one job, and resets it for the next one in this process."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def graceful_interrupt(stop: Stop) -> Iterator[None]:
    """The first Ctrl-C asks to stop after the step in hand; the second stops at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def request_stop(*_: object) -> None:
        if stop.requested:
            raise KeyboardInterrupt
        stop.requested = True
        log.warning("Stopping after this step; Ctrl-C again stops at once.")

    before = signal.signal(signal.SIGINT, request_stop)
    try:
        yield
    except SystemExit:  # Lightning turns a KeyboardInterrupt into one
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGINT, before)
