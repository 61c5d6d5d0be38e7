"""What a tuning job reads and compares. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from actmax.errors import InputError
from actmax.model.architecture import SITES
from actmax.settings import check, setting
from actmax.words.lists import Reading


@dataclass
class TuningSettings(Reading):
    """What a tuning job reads and compares; docs/tuning.md says more of each."""

    vector: str = setting("last", choices=("last", "mean"))
    """The word's last sub-token, or the mean over its sub-tokens."""
    sites: list[str] = field(default_factory=lambda: ["mlp_pre", "resid_post"])
    """Sites whose coordinates are compared."""
    layers: Any = "all"
    """Blocks whose coordinates are compared: `all`, a number, a list or a range."""
    memory: float = setting(2.0, least=0)
    """GB of activations, above which they go to disk."""
    save: bool = False
    """Keep the activations in the record."""
    batch_tokens: int = setting(1024, least=1)
    """Tokens of a forward pass."""
    padding: int = setting(0, least=0)
    """Tokens by which the texts of a batch may differ in length."""
    alpha: float = setting(0.05, above=0, below=1)
    """Level of every test, raw and corrected."""
    splits: int = setting(20, least=1)
    """Random halvings of the words, for replication."""
    folds: int = setting(5, least=2)
    """Folds in which the decoders are tested."""
    C: float = setting(1.0, above=0)
    """Inverse strength of the decoders' regularisation."""
    permutations: int = setting(200, least=20)
    """Shuffles of the labels, for every null."""
    top: int = setting(20, least=1)
    """Units whose words are kept."""
    text: str | None = None
    """A text, or a file, that one unit is drawn over; null: none."""
    unit: str | None = None
    """The unit of that heat map, SITE.LAYER[INDEX]; null: the most strongly tuned."""

    def __post_init__(self) -> None:
        """Refuses what no comparison can use.

        Raises:
            InputError: names the setting.
        """
        check(self, TuningSettings)
        if not self.sites or len(set(self.sites)) < len(self.sites):
            raise InputError("sites", list(self.sites), "must name at least one site, and each once")
        for site in self.sites:
            if site not in SITES:
                raise InputError("sites", site, f"must be of {', '.join(SITES)}")
