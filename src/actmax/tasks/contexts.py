"""What every task on a model reads of `context.*`: checks, identity, the user's own text, a name. Nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actmax.errors import InputError, renamed
from actmax.model.settings import CONTEXTS, ContextSettings
from actmax.tasks.task import checked_once, digest_of, keys_of, plain, settings_of
from actmax.text.files import text_files

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from actmax.tasks.task import Task

READ_BEHIND = ("auto", "none", "bos", "prefix")
"""The contexts behind which a text or words can be read."""
SHOWN = 40
"""Most characters of a text in the name of a context."""


def check_context(cfg: DictConfig, task: Task, allowed: Sequence[str] = CONTEXTS) -> None:
    """Refuses a context that lacks its text, that a task cannot have, or whose text is not there.

    Args:
        cfg: the job's config.
        task: the job's task.
        allowed: the contexts that it can have.

    Raises:
        InputError: names the key.
    """
    settings: ContextSettings = settings_of(cfg, "context")
    if settings.name not in allowed:
        clause = f"must be one of {', '.join(allowed)} with task={task.name}"
        raise InputError("context.name", settings.name, clause)
    if settings.texts is not None and not Path(settings.texts).exists():
        raise InputError("context.texts", settings.texts, "must be a text file or a folder of .txt files")


def check_text(key: str, place: str | None) -> None:
    """Reads a text that a job would read to its end, once, and keeps nothing.

    Args:
        key: the config's key that names it.
        place: a file or a folder; None for none.

    Raises:
        InputError: names the key, or the file and the line.
    """
    if place is not None:
        with renamed({"place": key}):
            checked_once(_text, place, place)


def _text(place: str) -> None:
    text_files(Path(place))


def context_identity(cfg: DictConfig, task: Task) -> dict[str, Any]:
    """What of a job's context can change its result."""
    with keys_of(cfg, "context"):
        settings = ContextSettings(**plain(cfg.context))  # a rank's config has no types
    return settings.identity(task.default_context)


def context_digest(cfg: DictConfig) -> dict[str, str | None]:
    """The digest of the text whose windows are a context, where it is the user's own."""
    texts = cfg.context.texts
    return {} if texts is None else {"context": digest_of([(Path(texts), "*.txt")])}


def context_label(cfg: Mapping[Any, Any], name: str) -> str:
    """A context as a person calls it: `none`, `bos`, `prefix “Once upon”`, `8 windows of text`.

    Args:
        cfg: the job's config.
        name: the context that was made of it: `auto` may have become `none` or `bos`.
    """
    settings = plain(cfg["context"])
    if name == "text":
        return f"{settings['windows']} windows of text"
    text = {"prefix": settings["text"], "chat": settings["chat"]}.get(name)
    if text is None:
        return name
    return f"{name} “{text}”" if len(text) <= SHOWN else f"{name} “{text[:SHOWN]}…”"
