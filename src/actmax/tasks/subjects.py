"""What all tasks on a language model share: whose weights, on which device, and what their summaries say of it."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import torch
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator
from omegaconf import DictConfig

from actmax.errors import InputError
from actmax.model.subject import Subject, shared
from actmax.records.store import Summary
from actmax.tasks.task import Task, Work, hashed, plain, subject_keys

PACKAGES = ("actmax", "torch", "transformers", "lightning", "hydra-core", "torchmetrics", "numpy", "scipy", "pandas")
"""Packages whose versions a summary holds."""


def subject_of(cfg: Mapping[Any, Any]) -> Subject:
    """The language model that a config names; jobs of one process share it.

    Raises:
        InputError: names the key.
    """
    with subject_keys(cfg):
        return shared(**plain(cfg["subject"]))


class SubjectWork(Work):
    """A job on a language model.

    Args:
        task: the kind of job.
        cfg: the job's config, checked.
        subject: the language model.

    Raises:
        InputError: there is no such accelerator, or too few.
    """

    def __init__(self, task: Task, cfg: DictConfig, subject: Subject) -> None:
        refuse_missing_accelerator(cfg.trainer.accelerator, cfg.trainer.devices)
        self.task, self.cfg, self.subject = task, cfg, subject
        self.identity = {
            "job_hash": hashed(task.identity(cfg), subject.weights_hash, task.read(cfg)),
            "subject": subject.id,
            "revision": subject.revision,
            "weights_sha256": subject.weights_hash,
        }

    @property
    def space(self) -> int:
        """Bytes that the record may take."""
        return 100_000_000

    def provenance(self, seconds: dict[str, float]) -> Summary:
        """The entries of every summary that say of which subject it is, where it was made, and how long that took."""
        subject = {**self.identity, "name": self.subject.name, "attention": self.subject.attention}
        return {"subject": subject, **circumstances(self.identity["job_hash"], self.subject.device, seconds)}


def refuse_missing_accelerator(name: str, devices: int) -> None:
    """Refuses an accelerator that this machine lacks, or more devices than it has.

    Raises:
        InputError: names `trainer.accelerator` or `trainer.devices`.
    """
    known = {"auto": True, "cpu": True, "gpu": CUDAAccelerator.is_available() or MPSAccelerator.is_available()}
    known |= {"cuda": CUDAAccelerator.is_available(), "mps": MPSAccelerator.is_available()}
    if name not in known:
        raise InputError("trainer.accelerator", name, f"must be one of {', '.join(known)}")
    if not known[name]:
        raise InputError("trainer.accelerator", name, "there is none on this machine", "Use trainer=cpu.")
    gpus = CUDAAccelerator.auto_device_count() if on_cuda(name) else int(MPSAccelerator.is_available())
    if name != "cpu" and 0 < gpus < devices:
        allowed = f"must be at most {gpus}, the GPUs that this process sees"
        raise InputError("trainer.devices", devices, allowed, "Lower it, or take trainer=cpu.")


def on_cuda(accelerator: str) -> bool:
    """Whether an accelerator of the config comes to a CUDA device here."""
    return accelerator in ("auto", "gpu", "cuda") and CUDAAccelerator.is_available()


def device_of(accelerator: str) -> str:
    """The device of a job without a Lightning trainer."""
    if on_cuda(accelerator):
        return "cuda"
    return "mps" if accelerator in ("gpu", "mps") else "cpu"


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}}


def circumstances(job_hash: str | None, device: torch.device, seconds: dict[str, float]) -> Summary:
    """The entries of a summary for the job's hash, the device, the seconds of its parts, and versions."""
    name = platform.processor() or platform.machine()
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    return {
        "job_hash": job_hash,
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
