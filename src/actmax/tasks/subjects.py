"""What all tasks on a language model share: whose weights, on which device, and what their summaries say of it."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import torch
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator
from omegaconf import DictConfig

from actmax.errors import InputError
from actmax.model.context import NONE, Context
from actmax.model.objective import Objective
from actmax.model.settings import ContextSettings
from actmax.model.subject import Subject, shared
from actmax.records.store import Summary
from actmax.tasks.contexts import context_label
from actmax.tasks.settings import objective_settings
from actmax.tasks.task import Task, Work, hashed, keys_of, plain, subject_keys
from actmax.text.contexts import make_context

log = logging.getLogger(__name__)

PACKAGES = ("actmax", "torch", "transformers", "lightning", "hydra-core", "torchmetrics", "numpy", "scipy", "pandas")
"""Packages whose versions a summary holds."""


def subject_of(cfg: Mapping[Any, Any]) -> Subject:
    """The language model that a config names; jobs of one process share it.

    Raises:
        InputError: names the key.
    """
    with subject_keys(cfg):
        return shared(**plain(cfg["subject"]))


def context_of(cfg: Mapping[Any, Any], task: Task, subject: Subject, *, tokens: int) -> Context:
    """What stands around the tokens of a job.

    Args:
        cfg: the job's config, a node or the mapping that a record holds.
        task: the kind of job, which says what `context=auto` stands for.
        subject: the language model.
        tokens: number of tokens that are to stand there.

    Raises:
        InputError: names the key.
    """
    with keys_of(cfg, "context"):
        settings = ContextSettings(**plain(cfg["context"]))
        return make_context(subject, settings, tokens=tokens, default=task.default_context)


def objective_of(cfg: Mapping[Any, Any], task: Task, subject: Subject) -> Objective:
    """What is asked of a job's units, and what stands around their tokens.

    Raises:
        InputError: names the key.
    """
    context = context_of(cfg, task, subject, tokens=int(cfg["tokens"]))
    return Objective(**objective_settings(cfg), context=context)


def transfer_contexts(cfg: Mapping[Any, Any], subject: Subject, own: Context) -> list[Context]:
    """Where the tokens that a job finds are tried: with nothing before them, behind begin-of-text, and in real text.

    Windows of real text are others than those that the tokens were found in. What does not fit into the subject's
    context, or needs a token or a text that is not there, is left out.

    Args:
        cfg: the job's config, a node or the mapping that a record holds.
        subject: the language model.
        own: the job's own context.
    """
    asked, tokens = plain(cfg["context"]), int(cfg["tokens"])
    windows = {name: plain(cfg["transfer"])[name] for name in ("windows", "window", "seed")}
    shared = {name: asked[name] for name in ("token", "texts")}
    found = [NONE]
    for settings in ({"name": "bos"}, {"name": "text", **windows}):
        try:
            made = ContextSettings(**{**shared, **settings})
            found.append(make_context(subject, made, tokens=tokens, apart=set(own.before)))
        except InputError as error:
            log.info("Not tried in another context: %s", error)
    return found


class SubjectWork(Work):
    """A job on a language model.

    Args:
        task: the kind of job.
        cfg: the job's config, checked.
        subject: the language model.

    Raises:
        InputError: there is no such accelerator, or too few; or the subject lacks a site that is asked for.
    """

    def __init__(self, task: Task, cfg: DictConfig, subject: Subject) -> None:
        refuse_missing_accelerator(cfg.trainer.accelerator, cfg.trainer.devices)
        if subject.geometry.refused or subject.geometry.like:  # its config alone did not say which sites it has
            task.check_subject(cfg, subject.geometry)
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

    def read_behind(self, before: Sequence[int]) -> Summary:
        """The entries of a summary that say behind which tokens a text or words were read."""
        asked = self.cfg.context.name
        name = asked if asked not in ("auto", "bos") else "bos" if before else "none"
        names = self.subject.tokenizer.convert_ids_to_tokens(list(before))
        return {"context": context_label(self.cfg, name), "before": names}

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
