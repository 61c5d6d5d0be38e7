"""How a search over tokens searches. Imports nothing heavy."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from actmax.errors import InputError
from actmax.settings import check, setting

METHOD_NAMES = ("gcg", "epo", "random", "text")
"""The searches, by name."""


@dataclass
class SearchSettings:
    """How a token search searches; docs/search.md says what the keys mean, and how forward passes are counted."""

    method: str = setting("gcg", choices=METHOD_NAMES)
    """Greedy coordinate gradient, evolutionary prompt optimization, or no search: random tokens, or a text's."""
    passes: int = setting(2000, least=2)
    """Forward passes per restart; a backward pass counts as one."""
    candidates: int = setting(160, least=1)
    """Sequences to evaluate per step of a restart."""
    top_k: int = setting(256, least=1)
    """Tokens per position that a swap may take, by their slope."""
    patience: int = setting(5, least=0)
    """`gcg`: steps in vain before a restart goes on from a disturbed sequence."""
    generations: int = setting(30, least=1)
    """`epo`: generations before the population begins anew from one member."""
    weights: list[float] = field(default_factory=lambda: [0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2])
    """`epo`: weights on cross-entropy, one per member: standard deviations of the unit over random tokens, per nat."""
    only_text: bool = True
    """Leave out tokens and sequences that nobody can type."""
    text: str | None = None
    """`text`: a text file, or a folder of .txt files, whose sequences are evaluated."""

    @property
    def source(self) -> Path | None:
        """The text that the method reads, if it reads any."""
        return Path(self.text) if self.method == "text" and self.text is not None else None

    @property
    def fluency(self) -> bool:
        """Whether the method weighs cross-entropy against the activation."""
        return self.method == "epo"

    def __post_init__(self) -> None:
        """Refuses what no search can use.

        Raises:
            InputError: names the setting.
        """
        check(self, SearchSettings)
        if not self.weights or not all(weight >= 0 and math.isfinite(weight) for weight in self.weights):
            raise InputError("weights", self.weights, "must be numbers from 0, at least one")
        if self.method == "text" and self.text is None:
            raise InputError("text", None, "must be a text file or a folder of .txt files with search=text")

    def check_length(self, tokens: int) -> None:
        """Refuses sequences that are too short for the method.

        Raises:
            InputError: names `tokens`.
        """
        if self.fluency and tokens < 2:
            raise InputError("tokens", tokens, "must be at least 2 with search=epo: one has no fluency")
