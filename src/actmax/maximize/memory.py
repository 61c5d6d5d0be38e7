"""How much memory is free, and how much of it a forward pass keeps for its backward pass."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from actmax.memory import free_bytes


def give_back() -> None:
    """Hands memory that was freed back to the system, where the C library is glibc; elsewhere does nothing.

    Freed blocks of some megabytes lie between small ones that live on, and glibc neither hands them back nor always
    uses them again: 1,000 steps over a vocabulary (prior=simplex) grew by 2 GB in one process.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def free_memory(device: torch.device, root: Path = Path("/")) -> int | None:
    """Bytes that this process could still take; None where that is not known (Apple's GPUs, macOS).

    On a CUDA device: what the driver has left and what PyTorch keeps unused; on a CPU `actmax.memory.free_bytes`.

    Args:
        device: the device whose memory is meant.
        root: root of the file system.
    """
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    return free_bytes(root) if device.type == "cpu" else None


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
