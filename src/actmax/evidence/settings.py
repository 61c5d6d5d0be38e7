"""How large the nulls of a unit's restarts are. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

from actmax.settings import setting


@dataclass
class NullSettings:
    """How large the nulls are."""

    pool: int = setting(50_000, least=1000)
    """Decoded random vectors, made once per subject and cached."""
    draws: int = setting(1_000, least=20)
    """Samples from that pool."""
    displacements: int = setting(100, least=20)
    """Random displacements of the initial noise (random tokens for a search)."""
    seed: int = 0
    """Seed of all these draws."""
