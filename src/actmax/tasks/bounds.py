"""What a job certainly takes, by the key that it grows with: too much memory or time is refused before it begins."""

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
COLUMNS = 70
"""Numbers in a unit's row of a comparison."""
STEP, PASS = 1e-3, 1e-6
"""Seconds that a step of the fit and a forward pass of a search take at least: of the smallest model on one core 19 ms
and 1.1 ms, and an H200 evaluates 17,357 candidates a second (docs/performance.md)."""
LONGEST = 7
"""Days that a job may certainly take; what takes less, but long, says how long by its bar."""


class Share(NamedTuple):
    """What one key makes a job take."""

    key: str
    """The key."""
    each: float
    """Bytes for each of what it counts: those that are certainly held at once, so no more than there will be."""
    seconds: float = 0.0
    """Seconds for each, on any machine; 0 where memory is the narrower bound."""


def check_bounds(cfg: Any, sizes: Geometry | None) -> None:
    """Refuses a number that makes a job hold more than there is memory for, or take longer than anybody waits.

    What is counted is the least that it takes: with room for that it may still not be enough, and the fit and the
    search then halve their batches.

    Args:
        cfg: the job's config.
        sizes: the subject's, where the task runs one.

    Raises:
        InputError: names the key, the largest number that there is memory or time for, and how much that is.
    """
    free = free_bytes(used=False)
    free = inf if free is None else free
    for key, each, seconds in _shares(cfg, sizes):
        count = OmegaConf.select(cfg, key)
        if isinstance(count, int) and count * each > free:
            allowed = f"takes {count * each / 1e9:.3g} GB of memory or more, and {free / 1e9:.3g} GB are free"
            raise InputError(key, count, allowed, f"At most {key}={int(free / each)} would fit.")
        if isinstance(count, int) and count * seconds > (most := LONGEST * 86400):
            allowed = f"takes {count * seconds / 86400:.3g} days or more, and a job may take {LONGEST}"
            raise InputError(key, count, allowed, f"At most {key}={int(most / seconds)} can be done by then.")


def check_weights(cfg: Any, sizes: Geometry) -> None:
    """Refuses a random model that there is no memory for.

    Args:
        cfg: the job's config.
        sizes: the subject's.

    Raises:
        InputError: names `subject.architecture`, how much it takes and how much there is.
    """
    free = free_bytes(used=False)
    if free is not None and cfg.subject.source == "random" and cfg.subject.path is None:
        needed = _weights(cfg.subject.architecture, sizes)
        if needed > free:
            allowed = f"weights of {needed / 1e9:.3g} GB or more, and {free / 1e9:.3g} GB of memory are free"
            raise InputError("subject.architecture", dict(cfg.subject.architecture), allowed, "Make it smaller.")


def _shares(cfg: Any, sizes: Geometry | None) -> Iterator[Share]:
    """The keys of the job's task that memory or time grows with."""
    name = cfg.task.name
    if name == "simulation":
        samples = cfg.simulation.n_0 + cfg.simulation.n_1
        counts = {key: cfg.simulation[key] for key in ("n_0", "n_1", "repetitions")}
        key = max(counts, key=lambda one: counts[one])
        numbers = len(cfg.simulation.effects) * counts["repetitions"] * (samples + COLUMNS)
        yield Share(f"simulation.{key}", WORD * numbers / counts[key])
    if name in ("maximization", "search"):
        yield from _of_units(cfg)
    if name == "examples" and sizes is not None:
        yield Share("examples.rows", 4 * cfg.examples.window * sizes.d_model)
        yield from (Share(f"examples.{key}", WORD * len(units(cfg))) for key in ("sample", "top"))
    if name == "tuning" and sizes is not None:
        yield Share("tuning.batch_tokens", 4 * sizes.d_model)
        yield from (Share(f"tuning.{key}", 4 * WORD) for key in ("folds", "words", "contexts"))
        # t, p and d of every unit of a place under every shuffle and split
        widest = max((sizes.width(site) for site in cfg.tuning.sites), default=1)
        yield from (Share(f"tuning.{key}", 3 * WORD * widest) for key in ("permutations", "splits"))


def _of_both(cfg: Any, one: str, other: str, each: float | int) -> Share:
    """The share of two keys of whose product so many bytes are held for each, by the key that is the larger."""
    counts = {key: OmegaConf.select(cfg, key) for key in (one, other)}
    key = max(counts, key=lambda name: counts[name])
    return Share(key, each * min(counts.values()))


def _of_units(cfg: Any) -> Iterator[Share]:
    own, each = len(units(cfg)), len(seeds(cfg))
    together, rows = min(own, TOGETHER), own * each
    yield Share("nulls.draws", 6 * WORD * each * cfg.tokens)
    yield Share("nulls.displacements", 3 * WORD * each * cfg.tokens * together)
    for group in ("gap", "transfer"):
        yield Share(f"{group}.draws", WORD * (cfg.tokens + 2 * own))
    for group in ("context", "transfer"):
        yield _of_both(cfg, f"{group}.windows", f"{group}.window", WORD)
    if cfg.meaning.embedder != "none":
        yield from (Share(f"meaning.{key}", VECTOR * each) for key in ("draws", "pool", "words"))
    yield Share("decode.top_k", 1.5 * WORD * rows * cfg.tokens)
    if cfg.task.name == "maximization":
        yield Share("steps", WORD * rows / _every(cfg), STEP)
    else:
        yield Share("search.passes", 2 * WORD * rows, PASS * rows)
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
