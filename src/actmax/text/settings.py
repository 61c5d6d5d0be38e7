"""What a config says of the space in which texts are compared. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actmax.errors import InputError
from actmax.settings import seed_setting, setting

EMBEDDERS = ("wordllama", "model2vec", "sentence_transformers", "subject", "none")
"""What says what a text is about, by name."""


FILES = {
    "model2vec": ("model.safetensors", "tokenizer.json", "config.json"),
    "sentence_transformers": ("modules.json", "config.json", "1_Pooling/config.json"),
}
"""Files that a folder of an embedder holds, by the embedder's name."""


@dataclass(unsafe_hash=True)
class MeaningSettings:
    """How it is asked whether restarts agree in what they are about; docs/meaning.md says what each does."""

    embedder: str = setting("wordllama", choices=EMBEDDERS)
    """What makes a vector of a text: `wordllama` is a static table of word pieces (extra `meaning`), the next two are
    folders, `subject` is its own residual stream (confounded); `none`: it is not asked."""
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
    seed: int = seed_setting()
    """Seed of these draws."""

    def identity(self) -> dict[str, Any]:
        """What of the settings can change a result; where a folder lies cannot."""
        used = {"none": (), "subject": ("layer",)}.get(self.embedder, ())
        common = () if self.embedder == "none" else ("draws", "pool", "words", "seed")
        return {"embedder": self.embedder} | {key: getattr(self, key) for key in (*used, *common)}

    def check_layer(self, layers: int) -> int:
        """The layer of the subject's own residual stream.

        Args:
            layers: number of the subject's blocks.

        Raises:
            InputError: there is no such layer.
        """
        if self.layer is None or not self.layer < layers:
            allowed = f"must be a layer of the subject, 0 to {layers - 1}, with meaning.embedder=subject"
            raise InputError("layer", self.layer, allowed)
        return self.layer


def check_folder(settings: MeaningSettings) -> Path:
    """The folder of an embedder that needs one.

    Raises:
        InputError: there is none, or it holds no such embedder.
    """
    words = folder_words(settings)
    if settings.path is None:
        raise InputError("path", None, words)
    folder = Path(settings.path).expanduser()
    lacking = [name for name in FILES[settings.embedder] if not (folder / name).is_file()]
    if lacking:
        raise InputError("path", settings.path, f"{words}; it lacks {', '.join(lacking)}")
    return folder


def folder_words(settings: MeaningSettings) -> str:
    """What the folder of an embedder must be."""
    return f"must be a folder that {settings.embedder.replace('_', '-')} wrote"
