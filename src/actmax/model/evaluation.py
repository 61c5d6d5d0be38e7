"""What token sequences give in a subject: activations of units, cross-entropies, and both for random sequences."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from io import BytesIO
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from actmax.memory import in_batches
from actmax.model.context import NONE, Context
from actmax.model.nearest import BLOCK
from actmax.model.objective import LAST, Objective, own_activations
from actmax.model.settings import GapSettings
from actmax.model.subject import Subject
from actmax.model.target import Target
from actmax.progress import DELAY, Bar
from actmax.seeds import stream

log = logging.getLogger(__name__)

RANDOM_VERSION = 1
"""Version of how random sequences are drawn and read: kept activations of another version are not read."""
DIGEST = 32
"""Bytes of the digest at the end of a file of activations."""
ROWS = 256
"""Token sequences per forward pass, at most."""


def random_tokens(subject: Subject, tokens: int, *, draws: int, seed: int) -> Int[Tensor, "draws tokens"]:
    """Token sequences drawn uniformly from the subject's plain tokens (none that is special or has no text)."""
    plain = subject.plain_tokens
    return plain[torch.randint(len(plain), (draws, tokens), generator=stream(seed, "random tokens"))]


@torch.no_grad()
def activations(
    subject: Subject, objective: Objective, sequences: Sequence[Sequence[int]], units: Sequence[Target]
) -> Float[ndarray, " sequences"]:
    """The activation of each token sequence's own unit, reduced over its positions.

    NaN for an empty sequence, and for one that does not fit into the subject's context with what stands around it.

    Args:
        subject: the language model.
        objective: whose reduction counts.
        sequences: token ids, of any lengths.
        units: one per sequence.
    """
    found = np.full(len(sequences), nan)
    room = subject.geometry.context - objective.seen.length - len(objective.seen.after)
    bar = Bar("activations of tokens", len(sequences), unit="sequence", delay=DELAY)
    for length in sorted({len(one) for one in sequences if 0 < len(one) <= room}):
        rows = [number for number, one in enumerate(sequences) if len(one) == length]

        def act(start: int, stop: int, rows: list[int] = rows) -> ndarray:
            own = [units[row] for row in rows[start:stop]]
            ids = torch.tensor([list(sequences[row]) for row in rows[start:stop]])
            captured = subject.run(subject.embed(ids), [unit.place for unit in own], context=objective.seen)
            bar.advance(len(ids))
            return _numbers(own_activations(captured, own, objective))

        found[rows] = np.concatenate(list(in_batches(act, len(rows), rows_in(objective.context))))
    bar.close()
    return found


@torch.no_grad()
def by_unit_activations(
    subject: Subject,
    objective: Objective,
    ids: Int[Tensor, "rows tokens"],
    units: Sequence[Target],
    title: str = "activations of tokens",
) -> Float[ndarray, "rows units"]:
    """The activation of every unit at every token sequence, reduced over positions.

    Args:
        subject: the language model.
        objective: whose reduction counts.
        ids: the sequences.
        units: what is read.
        title: what a bar calls it.
    """

    def act(some: Tensor) -> ndarray:
        captured = subject.run(subject.embed(some), [unit.place for unit in units], context=objective.seen)
        return np.stack([_numbers(objective.activation(unit.read(captured))) for unit in units], axis=1)

    return _in_blocks(act, ids, rows_in(objective.context), title)


@torch.no_grad()
def cross_entropies(
    subject: Subject, ids: Int[Tensor, "rows tokens"], context: Context = NONE
) -> Float[ndarray, " rows"]:
    """The subject's own cross-entropy of token sequences, nats per token but the first; NaN for one token.

    mean over t ≥ 1 of -log p(token t | context, tokens before t), the whole model running; with several surroundings
    the mean over these. The first token counts in no context, so that one is comparable with another.
    """
    if ids.shape[1] < 2:
        return np.full(len(ids), nan)
    before = context.without_after()

    def entropy(some: Tensor) -> ndarray:
        hidden = subject.run(subject.embed(some), [LAST], context=before)[LAST]
        return _numbers(-own_scores(predictions(subject, hidden, some), some).mean((1, 2)))

    return _in_blocks(entropy, ids, whole_rows(subject, ids.shape[1], context), "cross-entropies")


def predictions(
    subject: Subject, hidden: Float[Tensor, "copies read d_model"], ids: Int[Tensor, "rows tokens"]
) -> Float[Tensor, "rows count tokens-1 vocabulary"]:
    """The subject's log p of every token but the first, in each surrounding; never coarser than float32.

    Args:
        subject: the language model.
        hidden: what leaves the final norm, from `Subject.run`.
        ids: the sequences that were run.
    """
    scores = subject.logits(hidden[:, : ids.shape[1] - 1]).to(torch.promote_types(torch.float32, subject.dtype))
    return scores.log_softmax(2).unflatten(0, (len(ids), -1))


def own_scores(
    predicted: Float[Tensor, "rows count nexts vocabulary"], ids: Int[Tensor, "rows tokens"]
) -> Float[Tensor, "rows count nexts"]:
    """The predicted log p of each token of the sequences but the first, in each surrounding."""
    nexts = ids[:, None, 1:, None].expand(-1, predicted.shape[1], -1, -1)
    return predicted.gather(3, nexts.to(predicted.device)).squeeze(3)


def rows_in(context: Context, rows: int = ROWS) -> int:
    """How many token sequences a forward pass may hold: fewer where each stands in several surroundings."""
    return max(1, rows // context.count)


def whole_rows(subject: Subject, tokens: int, context: Context = NONE) -> int:
    """How many token sequences a forward pass may hold where it holds the predictions of all their tokens too."""
    return rows_in(context, min(ROWS, BLOCK // (tokens * len(subject.embedding_matrix))))


def _in_blocks(act: Callable[[Tensor], ndarray], ids: Tensor, rows: int, title: str) -> ndarray:
    found = []
    with Bar(title, len(ids), unit="sequence", delay=DELAY) as bar:
        for some in in_batches(lambda start, stop: act(ids[start:stop]), len(ids), rows):
            found.append(some)
            bar.advance(len(some))
    return np.concatenate(found)


def _numbers(values: Tensor) -> ndarray:
    return values.double().cpu().numpy()


@lru_cache(maxsize=8)
def random_activations(
    subject: Subject,
    objective: Objective,
    units: tuple[Target, ...],
    tokens: int,
    settings: GapSettings,
    cache: Path | None = None,
) -> Float[ndarray, "draws units"]:
    """The activations of every unit at random token sequences, kept for other jobs on the same units.

    Args:
        subject: the language model.
        objective: whose reduction counts.
        units: what is read.
        tokens: length of the sequences.
        settings: number and seed of the sequences.
        cache: a folder that keeps them, a file per weights, unit, objective, length, number and seed.
    """
    ids = partial(random_tokens, subject, tokens, draws=settings.draws, seed=settings.seed)
    made_of = [tokens, settings.draws, settings.seed]
    given = {"rows": settings.draws, "made_of": made_of, "cache": cache, "title": "activations of random tokens"}
    return kept_activations(subject, objective, units, ids, **given)


def kept_activations(
    subject: Subject,
    objective: Objective,
    units: Sequence[Target],
    ids: Callable[[], Int[Tensor, "rows tokens"]],
    *,
    rows: int,
    made_of: Sequence[int | str],
    cache: Path | None,
    title: str,
) -> Float[ndarray, "rows units"]:
    """The activations of every unit at some token sequences, kept for other jobs on the same units.

    Args:
        subject: the language model.
        objective: whose reduction counts.
        units: what is read.
        ids: makes the sequences, where activations have to be computed.
        rows: their number.
        made_of: everything that the sequences depend on besides the subject.
        cache: a folder that keeps activations, a file per weights, unit, objective and `made_of`; None: they are not
            kept.
        title: what the progress bar says.
    """
    names = {unit: _kept_name(subject, objective, unit, made_of) for unit in units}
    files = {} if cache is None else {unit: cache / name for unit, name in names.items()}
    kept = {unit: _kept(file, rows) for unit, file in files.items()}
    found = {unit: values for unit, values in kept.items() if values is not None}
    missing = [unit for unit in units if unit not in found]
    if missing:
        made = by_unit_activations(subject, objective, ids(), missing, title)
        found |= dict(zip(missing, made.T, strict=True))
        for unit in files.keys() & set(missing):
            _keep(files[unit], found[unit])
    return np.stack([found[unit] for unit in units], axis=1)


def _kept_name(subject: Subject, objective: Objective, unit: Target, made_of: Sequence[int | str]) -> str:
    """A file's name that says everything the activations depend on."""
    asked: list[Any] = [unit.identity, objective.reduction, str(subject.dtype), *made_of]
    if objective.positions != "own" or not objective.seen.bare:
        asked += [objective.positions, objective.seen.before, objective.seen.after]
    if subject.revision is None:  # of a plain folder the weights alone are not the model
        asked.append(subject.model.config.to_dict())  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]
    digest = hashlib.sha256(json.dumps(asked, default=str).encode()).hexdigest()[:16]
    return f"{subject.weights_hash[:24]}-{digest}-v{RANDOM_VERSION}.npy"


def _kept(file: Path, draws: int) -> Float[ndarray, " draws"] | None:
    """Activations of an earlier job; None where there are none, or the file is damaged (then they are made anew).

    It ends with its digest: of wrong numbers in a file of the right shape every later job would take its null.
    """
    try:
        content = file.read_bytes()
        numbers, digest = content[:-DIGEST], content[-DIGEST:]
        if hashlib.sha256(numbers).digest() != digest:
            return None
        values = np.load(BytesIO(numbers), allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return values if values.shape == (draws,) and values.dtype == np.float64 else None


def _keep(file: Path, values: Float[ndarray, " draws"]) -> None:
    """Writes activations whole or not at all, whoever else writes the same; a warning where that cannot be."""
    stream = BytesIO()
    np.save(stream, values)
    partial = file.with_suffix(f".{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(stream.getvalue() + hashlib.sha256(stream.getvalue()).digest())
        partial.replace(file)
    except OSError as error:
        log.warning("Nothing is kept in %s (ACTMAX_CACHE), where nothing can be written: %s", file.parent, error)
