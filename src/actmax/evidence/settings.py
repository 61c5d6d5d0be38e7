"""What is declared before any number is seen: levels, claims, control units, sizes of nulls. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

from actmax.errors import InputError
from actmax.settings import seed_setting, setting

ALPHA = 0.05
"""Level of a claim, and where several stand together that of all of them."""
RANDOM_MOVES, RANDOM_TOKENS, RANDOM_TEXT = "random moves", "random tokens", "random text"
"""Names of the nulls of where restarts end."""
LEAST_UNITS = 3
"""Least number of units that are set against each other in a job that adds its own: one other unit may be odd."""
LEAST_SEEDS = 3
"""Least number of seeds for which control units are added."""
TRIED = ("none", "bos", "text")
"""Contexts in which the tokens of every job are tried, by the name of their columns."""
SINK = 5.0
"""From how many times the norm at later positions on the first one is called an attention sink."""
CLAIMS = {
    RANDOM_MOVES: ("final", "snapped", "shared_tokens", "direction", "unique", "cosine", "retention"),
    RANDOM_TOKENS: ("snapped", "shared_tokens", "direction", "unique", "retention"),
    RANDOM_TEXT: ("snapped", "shared_tokens", "direction", "unique", "retention"),
}
"""Nulls on which something is claimed of a unit, by what its restarts would end at by chance."""


def smallest_own_p(units: int, seeds: int) -> float:
    """The least p that a test of so many units against each other can give over so many seeds, units^(1 - seeds)."""
    return float(units) ** (1 - seeds)


def claim_alpha(kind: str, alpha: float | int = ALPHA) -> float:
    """The level of one claim: alpha over the number of claims (Bonferroni), declared before any number is seen.

    Args:
        kind: what the unit's restarts would end at by chance, a key of `CLAIMS`.
        alpha: level of all claims together.

    Raises:
        InputError: alpha is no probability strictly between 0 and 1.
    """
    if not 0 < alpha < 1:
        raise InputError("alpha", alpha, "a number above 0 and below 1", "The usual choice is 0.05.")
    return alpha / len(CLAIMS[kind])


def controls_needed(units: int, seeds: int, *, alpha: float | int = ALPHA) -> int:
    """How many control units make a job's second question answerable: two or more units beside each, and p in reach.

    With U units and S seeds no p of `own_agreement` is below U^(1 - S), which has to reach the level of one claim.

    Args:
        units: number of the job's own units.
        seeds: number of its seeds; with fewer than three κ has no interval, and none are added.
        alpha: level of all claims together.

    Example:
        >>> controls_needed(1, 10), controls_needed(1, 4), controls_needed(3, 10), controls_needed(1, 2)
        (2, 5, 0, 0)
    """
    if seeds < LEAST_SEEDS:
        return 0
    level, total = min(claim_alpha(kind, alpha) for kind in CLAIMS), units
    while total < LEAST_UNITS or smallest_own_p(total, seeds) > level:
        total += 1
    return total - units


@dataclass
class NullSettings:
    """How large the nulls are."""

    draws: int = setting(999, least=20)
    """Draws of each null: combinations of random moves (of random tokens for a search), patterns of signs."""
    displacements: int = setting(200, least=20)
    """Random moves of the initial noise that are decoded at each position; a draw combines one of each."""
    seed: int = seed_setting()
    """Seed of all these draws."""
