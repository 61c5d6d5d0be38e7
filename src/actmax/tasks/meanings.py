"""What every task that compares texts in meaning reads of `meaning.*`: checks, identity, an embedder's folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from actmax.tasks.task import digest_of, keys_of, plain
from actmax.text.settings import FILES, MeaningSettings, check_folder

if TYPE_CHECKING:
    from omegaconf import DictConfig


def check_meaning(cfg: DictConfig, layers: int) -> None:
    """Refuses an embedder's folder that is none, and a layer that the subject lacks.

    Args:
        cfg: the job's config.
        layers: number of the subject's blocks.

    Raises:
        InputError: names the key.
    """
    with keys_of(cfg, "meaning"):
        settings = MeaningSettings(**plain(cfg.meaning))
        if settings.embedder in FILES:
            check_folder(settings)
        if settings.embedder == "subject":
            settings.check_layer(layers)


def meaning_identity(cfg: DictConfig) -> dict[str, Any]:
    """What of a job's settings of meaning can change its result; nothing where it is not asked."""
    settings = MeaningSettings(**plain(cfg.meaning))  # a rank's config has no types
    return {} if settings.embedder == "none" else {"meaning": settings.identity()}


def meaning_digest(cfg: DictConfig) -> dict[str, str | None]:
    """The digest of an embedder's folder, where one is used."""
    settings = MeaningSettings(**plain(cfg.meaning))
    if settings.embedder not in FILES or settings.path is None:
        return {}
    return {"meaning": digest_of([(Path(settings.path), "*.safetensors")])}
