"""What a job certainly takes, by the key that it grows with: too much memory or time is refused before it begins."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from omegaconf import OmegaConf

from actmax.errors import InputError
from actmax.memory import free_bytes

if TYPE_CHECKING:
    from actmax.model.architecture import Geometry

WORD = 8
"""Bytes of a number in float64."""
LONGEST = 7
"""Days that a job may certainly take; what takes less, but long, says how long by its bar."""


class Share(NamedTuple):
    """What one key makes a job take."""

    key: str
    """The dotted key of the config, which counts something."""
    each: float
    """Bytes for each of what it counts: those that are certainly held at once, so no more than there will be."""
    seconds: float = 0.0
    """Seconds for each, on any machine; 0 where memory is the narrower bound."""


def check_bounds(cfg: Any, shares: Iterable[Share]) -> None:
    """Refuses a number that makes a job hold more than there is memory for, or take longer than anybody waits.

    What is counted is the least that it takes: with room for that it may still not be enough, and the fit and the
    search then halve their batches.

    Args:
        cfg: the job's config.
        shares: what the keys of the job's task make it take (`Task.shares`).

    Raises:
        InputError: names the key, the largest number that there is memory or time for, and how much that is.
    """
    free = free_bytes(used=False)
    free = inf if free is None else free
    for key, each, seconds in shares:
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


def share_of_product(cfg: Any, one: str, other: str, each: float | int) -> Share:
    """The share of two keys of whose product so many bytes are held for each, by the key that is the larger."""
    counts = {key: OmegaConf.select(cfg, key) for key in (one, other)}
    key = max(counts, key=lambda name: counts[name])
    return Share(key, each * min(counts.values()))


def _weights(architecture: Any, sizes: Geometry) -> int:
    """Bytes of the matrices of the blocks, of the tokens, and of learned positions, in float32."""
    heads = sizes.d_model * sizes.head_dim * (2 * sizes.heads + 2 * sizes.kv_heads)
    blocks = sizes.layers * (heads + 2 * sizes.d_model * sizes.d_mlp)
    positions = sizes.context if sizes.model_type == "gpt2" else 0
    return 4 * (blocks + sizes.d_model * (int(architecture.get("vocab_size", 0)) + positions))
