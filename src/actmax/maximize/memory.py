"""How much memory is free, and how much of it a forward pass keeps for its backward pass."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

LIMITS = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""Files of a control group, version 2 and version 1: its limit, its usage, and the cache within the usage."""


def give_back() -> None:
    """Hands memory that was freed back to the system, where the C library is glibc; elsewhere does nothing.

    Freed blocks of some megabytes lie between small ones that live on, and glibc neither hands them back nor always
    uses them again: 1,000 steps over a vocabulary (prior=simplex) grew by 2 GB in one process.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def free_memory(device: torch.device, root: Path = Path("/")) -> int | None:
    """Bytes that this process could still take; None where that is not known (Apple's GPUs, macOS).

    On a CUDA device: what the driver has left and what PyTorch keeps unused. On a CPU under Linux: `MemAvailable`, or
    what is left in a control group of this process if that is less, since Slurm and containers set such limits, and end
    processes that exceed them.

    Args:
        device: the device whose memory is meant.
        root: root of the file system.
    """
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    if device.type != "cpu":
        return None
    available = re.search(r"^MemAvailable: *(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    machine = [1024 * int(available[1])] if available else []
    return min([*machine, *_left_in_groups(root)], default=None)


def _left_in_groups(root: Path) -> Iterator[int]:
    """Bytes left in each control group of this process, and in each of its parents, that has a limit."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        top = root / "sys/fs/cgroup" / controllers  # version 2 has one tree, and no controllers here
        if controllers not in ("", "memory"):
            continue
        group = top / path.lstrip("/")
        for folder in (group, *group.parents):
            if top not in (folder, *folder.parents):
                break
            for limit, usage, cache in LIMITS:
                allowed, used = _text(folder / limit).strip(), _text(folder / usage).strip()
                if allowed.isdigit() and used.isdigit():
                    # The kernel drops cached files before it ends a process.
                    cached = re.search(rf"^{cache} (\d+)$", _text(folder / "memory.stat"), re.MULTILINE)
                    yield max(0, int(allowed) - int(used) + (int(cached[1]) if cached else 0))


def _text(file: Path) -> str:
    """The content of a file; nothing where it cannot be read."""
    try:
        return file.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def kept_for_backward(forward: Callable[[], Tensor]) -> int:
    """Bytes of all tensors that a computation keeps for its gradient, each storage once, weights among them.

    Args:
        forward: the computation; its result must require a gradient.
    """
    storages: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.enable_grad(), saved_tensors_hooks(note, lambda tensor: tensor):
        result = forward()  # held to the end, so that no storage's address is used twice
    del result
    return sum(storages.values())
