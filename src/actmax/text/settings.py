"""What a config says of the space in which texts are compared. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from actmax.settings import setting

EMBEDDERS = ("wordllama", "model2vec", "sentence_transformers", "subject", "none")
"""What says what a text is about, by name."""


@dataclass(unsafe_hash=True)
class MeaningSettings:
    """How it is asked whether restarts agree in what they are about; docs/meaning.md says what each does."""

    embedder: str = setting("wordllama", choices=EMBEDDERS)
    """What makes a vector of a text: a static table of word pieces (extra `meaning`), a folder of model2vec or of
    sentence-transformers, the subject's own residual stream (confounded), or none."""
    path: str | None = None
    """`model2vec`, `sentence_transformers`: the folder."""
    layer: int | None = setting(None, least=0)
    """`subject`: the block whose output is read."""
    draws: int = setting(999, least=20)
    """Draws of the nulls of meaning and of theme words."""
    pool: int = setting(200, least=20)
    """Texts by chance per restart that are embedded; a draw combines one of each."""
    words: int = setting(2000, least=0)
    """Words of the vocabulary that are read in real text, to see whether words of a theme raise the unit; 0: none."""
    seed: int = setting(0, least=0)
    """Seed of these draws."""

    def identity(self) -> dict[str, Any]:
        """What of the settings can change a result; where a folder lies cannot."""
        used = {"none": (), "subject": ("layer",)}.get(self.embedder, ())
        common = () if self.embedder == "none" else ("draws", "pool", "words", "seed")
        return {"embedder": self.embedder} | {key: getattr(self, key) for key in (*used, *common)}
