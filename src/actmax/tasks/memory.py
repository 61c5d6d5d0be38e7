"""What a job certainly holds in memory at once, by the key that it grows with: too much is refused before it begins."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from omegaconf import OmegaConf

from actmax.errors import InputError
from actmax.memory import free_bytes
from actmax.tasks.settings import seeds, units

if TYPE_CHECKING:
    from actmax.model.architecture import Geometry

TOGETHER = 32
"""Units whose nulls are drawn together."""
WORD, VECTOR = 8, 256
"""Bytes of a number, and the least of a vector of a text."""


class Share(NamedTuple):
    """What one key makes a job hold."""

    key: str
    """The key."""
    each: float
    """Bytes for each of what it counts: those that are certainly held at once, so no more than there will be."""


def check_memory(cfg: Any, sizes: Geometry | None) -> None:
    """Refuses a number that makes a job hold more than there is memory for.

    What is counted is the least that it takes: with room for that it may still not be enough, and the fit and the
    search then halve their batches.

    Args:
        cfg: the job's config.
        sizes: the subject's, where the task runs one.

    Raises:
        InputError: names the key, the largest number that there is memory for, and how much that is.
    """
    free = free_bytes(used=False)
    if free is None:
        return
    for key, each in _shares(cfg, sizes):
        count = OmegaConf.select(cfg, key)
        if isinstance(count, int) and count * each > free:
            allowed = f"takes {count * each / 1e9:.3g} GB of memory or more, and {free / 1e9:.3g} GB are free"
            raise InputError(key, count, allowed, f"At most {int(free / each)} would fit.")
    if sizes is not None and cfg.subject.source == "random" and cfg.subject.path is None:
        needed = _weights(cfg.subject.architecture, sizes)
        if needed > free:
            allowed = f"weights of {needed / 1e9:.3g} GB or more, and {free / 1e9:.3g} GB of memory are free"
            raise InputError("subject.architecture", dict(cfg.subject.architecture), allowed, "Make it smaller.")


def _shares(cfg: Any, sizes: Geometry | None) -> Iterator[Share]:
    """The keys of the job's task that memory grows with."""
    name = cfg.task.name
    if name == "simulation":
        counts = {key: cfg.simulation[key] for key in ("n_0", "n_1", "repetitions")}
        key = max(counts, key=lambda one: counts[one])
        numbers = len(cfg.simulation.effects) * counts["repetitions"] * (counts["n_0"] + counts["n_1"])
        yield Share(f"simulation.{key}", WORD * numbers / counts[key])
    if name == "tuning":
        yield Share("tuning.permutations", 8 * WORD)
        yield from (Share(f"tuning.{key}", 4 * WORD) for key in ("splits", "folds", "words", "contexts"))
    if name in ("maximization", "search"):
        yield from _of_units(cfg)
    if name == "examples" and sizes is not None:
        yield Share("examples.rows", 4 * cfg.examples.window * sizes.d_model)
        yield from (Share(f"examples.{key}", WORD * len(units(cfg))) for key in ("sample", "top"))
    if name == "tuning" and sizes is not None:
        yield Share("tuning.batch_tokens", 4 * sizes.d_model)


def _of_units(cfg: Any) -> Iterator[Share]:
    own, each = len(units(cfg)), len(seeds(cfg))
    together, rows = min(own, TOGETHER), own * each
    yield Share("nulls.draws", WORD * each * cfg.tokens * together)
    yield Share("nulls.displacements", 1.5 * WORD * each * cfg.tokens * together)
    for group in ("gap", "transfer"):
        yield Share(f"{group}.draws", WORD * (cfg.tokens + 2 * own))
    for group in ("context", "transfer"):
        yield Share(f"{group}.windows", WORD * cfg[group].window)
    if cfg.meaning.embedder != "none":
        yield from (Share(f"meaning.{key}", VECTOR * each) for key in ("draws", "pool", "words"))
    yield Share("decode.top_k", 1.5 * WORD * rows * cfg.tokens)
    if cfg.task.name == "maximization":
        yield Share("steps", WORD * rows / _every(cfg))
    else:
        yield Share("search.passes", 2 * WORD * rows)
        yield from (Share(f"search.{key}", WORD * cfg.tokens) for key in ("candidates", "top_k"))


def _every(cfg: Any) -> float:
    """Steps between two that the trajectory holds; infinite where none is recorded."""
    spec = cfg.callbacks.get("trajectory")
    every = spec.get("every", 1) if OmegaConf.is_dict(spec) else None
    return float(every) if isinstance(every, int) and every >= 1 else inf


def _weights(architecture: Any, sizes: Geometry) -> int:
    """Bytes of the matrices of the blocks, of the tokens, and of learned positions, in float32."""
    heads = sizes.d_model * sizes.head_dim * (2 * sizes.heads + 2 * sizes.kv_heads)
    blocks = sizes.layers * (heads + 2 * sizes.d_model * sizes.d_mlp)
    positions = sizes.context if sizes.model_type == "gpt2" else 0
    return 4 * (blocks + sizes.d_model * (int(architecture.get("vocab_size", 0)) + positions))
