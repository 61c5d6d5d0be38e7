"""What a simulation draws: effects, group sizes, distributions. Imports nothing heavy."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from actmax.errors import InputError
from actmax.settings import check, setting

DISTRIBUTIONS = ("normal", "skewed", "heavy", "unequal")
"""What samples are drawn from."""


@dataclass
class Design:
    """Simulated groups: a grid of effects, and what is drawn for each."""

    effects: list[float] = field(default_factory=lambda: [step / 4 for step in range(25)])
    """Differences of means, in root mean standard deviations of the two groups; each once."""
    repetitions: int = setting(200, least=2)
    """Units drawn per effect."""
    n_0: int = setting(50, least=2)
    """Samples in group 0."""
    n_1: int = setting(50, least=2)
    """Samples in group 1."""
    distribution: str = setting("normal", choices=DISTRIBUTIONS)
    """`skewed`: exponential; `heavy`: t with 3 degrees of freedom; `unequal`: normal, standard deviations 1 to 3."""
    alpha: float = setting(0.05, above=0, below=1)
    """Level of every test."""
    seed: int = 0
    """Seed of the draws; an effect's draws depend on it and on the effect's place in the grid."""

    def __post_init__(self) -> None:
        """Refuses what cannot be simulated.

        Raises:
            InputError: names the setting.
        """
        check(self, Design)
        if not self.effects or not all(math.isfinite(effect) for effect in self.effects):
            raise InputError("effects", self.effects, "one finite number or more", "Grids usually go from 0 to 6.")
        if len(set(self.effects)) < len(self.effects):
            raise InputError("effects", self.effects, "every effect once", "Take more repetitions instead.")
        if len(self.effects) * self.repetitions < 3:
            raise InputError("repetitions", self.repetitions, "at least 3 units in all", "Take more repetitions.")
