"""Maximum-activating examples: where in real text a unit is highest, streamed, beside its quantiles over all of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from actmax.errors import InputError
from actmax.memory import in_batches
from actmax.model.subject import Subject
from actmax.model.target import Target, addressed, rows_of, target_of_row, with_layers
from actmax.text.windows import Window

QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 1.0)


Place = tuple[int, int]
"""The number of a window in a text, and a position in it, what stands before it not counted."""


@dataclass(frozen=True)
class Examples:
    """Where units are highest."""

    contexts: pd.DataFrame
    """A row per unit and rank: `site layer index rank activation file position token before after`."""
    quantiles: pd.DataFrame
    """A row per unit: `mean sd`, and the activation's quantiles `q0.01` to `q1` over positions."""
    positions: int
    """Positions read, what stands before each window left out."""
    places: dict[Target, list[Place]]
    """Where each unit is highest, highest first."""
    windows: int
    """Number of windows read."""


@dataclass
class _Kept:
    """The best windows of each unit so far, and a random choice of positions."""

    top: int
    """Number of windows to keep for each unit."""
    size: int
    """Number of positions to choose at random."""
    rng: np.random.Generator
    """Generator of the random keys of positions."""
    best: list[list[tuple[float, int, int]]]
    """For each unit the activation, the negated number and the position of its best windows, highest first."""
    windows: dict[int, Window] = field(default_factory=dict)
    """The windows that stand in `best`, by number."""
    keys: ndarray = field(default_factory=lambda: np.empty(0))
    """The random keys of the chosen positions."""
    values: ndarray | None = None
    """Activations at the chosen positions, a column per unit."""
    seen: int = 0
    """Number of positions so far."""
    total: ndarray | None = None
    """Sum of each unit's activation over all positions so far."""
    squares: ndarray | None = None
    """Sum of squares of each unit's activation over all positions so far."""

    def add(self, first: int, batch: Sequence[Window], values: Float[ndarray, "windows positions units"]) -> None:
        """Takes a batch: each window's highest position stands for it."""
        where = values.argmax(1)
        highest = values.max(1)
        for unit, best in enumerate(self.best):
            candidates = [
                (float(highest[row, unit]), -(first + row), int(where[row, unit]))
                for row in np.argsort(-highest[:, unit], kind="stable")[: self.top]
            ]
            self.best[unit] = sorted(best + candidates, reverse=True)[: self.top]
        self.windows |= {first + row: window for row, window in enumerate(batch)}
        used = {-number for best in self.best for _, number, _ in best}
        self.windows = {number: self.windows[number] for number in used}
        self._choose(values.reshape(-1, values.shape[2]))

    def _choose(self, flat: Float[ndarray, "positions units"]) -> None:
        """Keeps the positions with the smallest random keys: a uniform choice of all so far."""
        self.seen += len(flat)
        total, squares = flat.sum(0), (flat**2).sum(0)
        self.total = total if self.total is None else self.total + total
        self.squares = squares if self.squares is None else self.squares + squares
        keys = np.concatenate([self.keys, self.rng.random(len(flat))])
        values = flat if self.values is None else np.concatenate([self.values, flat])
        if len(keys) > self.size:
            order = np.argpartition(keys, self.size)[: self.size]
            keys, values = keys[order], values[order]
        self.keys, self.values = keys, values


def find_examples(
    subject: Subject,
    units: Sequence[Target],
    text: Iterable[Window],
    *,
    top: int,
    seed: int,
    rows: int = 16,
    sample: int = 100_000,
    context: int = 10,
    before: int = 1,
) -> Examples:
    """Reads text through the subject and keeps where each unit is highest.

    A window counts once for a unit, at its highest position; what stands before it never counts (begin-of-text is an
    attention sink).
    Memory does not grow with the text.

    Args:
        subject: the model.
        units: units of any sites and layers.
        text: windows of the text.
        top: examples per unit.
        seed: seed of the choice of positions that quantiles are taken over.
        rows: windows of a forward pass.
        sample: positions of that choice; with fewer, the quantiles are exact.
        context: tokens shown on either side.
        before: tokens of a window that stand before it, such as begin-of-text.

    Raises:
        InputError: an activation is no finite number, or there is no text.
    """
    kept = _Kept(top, sample, np.random.default_rng(seed), [[] for _ in units])
    number = 0
    for batch in _batches(text, rows):
        ids = torch.tensor([window.ids for window in batch], device=subject.device)

        def act(start: int, stop: int, ids: Tensor = ids) -> ndarray:
            captured = subject.run(subject.embed(ids[start:stop]), [unit.place for unit in units])
            read = [unit.read(captured)[:, before:] for unit in units]
            return torch.stack(read, dim=2).double().cpu().numpy()

        with torch.inference_mode():
            values = np.concatenate(list(in_batches(act, len(ids), len(ids), key="examples.rows")))
        _refuse_non_finite(batch, values)
        kept.add(number, batch, values)
        number += len(batch)
    quantiles = _quantiles(units, kept)  # first: it refuses a text of no token
    places = {unit: [(int(-one), place) for _, one, place in best] for unit, best in zip(units, kept.best, strict=True)}
    return Examples(_contexts(subject, units, kept, context, before), quantiles, kept.seen, places, number)


def _refuse_non_finite(batch: Sequence[Window], values: Float[ndarray, "windows positions units"]) -> None:
    """Refuses text at which an activation overflows: what is no number is neither high nor low."""
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        row, place, _ = wrong[0]
        allowed = f"the activation at token {batch[row].start + place} of the text is no finite number"
        raise InputError("text", batch[row].source, allowed, "A wider number format helps: subject.dtype=float32.")


def _batches(text: Iterable[Window], rows: int) -> Iterator[list[Window]]:
    """Windows of one length together, as they come."""
    for _, run in groupby(text, key=lambda window: len(window.ids)):
        while batch := list(islice(run, rows)):
            yield batch


def _contexts(subject: Subject, units: Sequence[Target], kept: _Kept, context: int, before: int) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for unit, best in zip(units, kept.best, strict=True):
        for rank, (value, number, place) in enumerate(best, start=1):
            window = kept.windows[-number]
            left, token, right = passage(subject, window, place + before, context=context, before=before)
            rows.append(
                {
                    **unit.columns(),
                    "rank": rank,
                    "activation": value,
                    "file": window.source,
                    "position": window.start + place,
                    "token": token,
                    "before": left,
                    "after": right,
                }
            )
    return with_layers(pd.DataFrame(rows))


def passage(subject: Subject, window: Window, own: int, *, context: int, before: int) -> tuple[str, str, str]:
    """What stands before a token of a window, the token, and what stands behind it.

    Args:
        subject: the model.
        window: the window.
        own: the token's position in it.
        context: tokens on either side.
        before: tokens of the window that stand before its text.
    """
    left, right = window.ids[max(before, own - context) : own], window.ids[own + 1 : own + 1 + context]
    return _text(subject, left), subject.token(window.ids[own]), _text(subject, right)


def _text(subject: Subject, ids: Sequence[int]) -> str:
    return str(subject.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))


def _quantiles(units: Sequence[Target], kept: _Kept) -> pd.DataFrame:
    if kept.values is None or kept.total is None or kept.squares is None:
        raise InputError("text", "nothing", "must hold at least one token that is not special")
    mean = kept.total / kept.seen
    spread = np.sqrt(np.maximum(kept.squares / kept.seen - mean**2, 0))
    quantiles = np.quantile(kept.values, QUANTILES, axis=0)
    # the highest is known, whatever the choice
    quantiles[-1] = [best[0][0] for best in kept.best]
    columns = {f"q{quantile:g}": values for quantile, values in zip(QUANTILES, quantiles, strict=True)}
    return addressed(pd.DataFrame({"mean": mean, "sd": spread, **columns}), units)


def beside_optimum(quantiles: pd.DataFrame, gaps: pd.DataFrame) -> pd.DataFrame:
    """Quantiles of units beside their optimized and snapped activations in a maximization's record.

    Args:
        quantiles: the quantiles that `find_examples` gave.
        gaps: the record's table of the decode gap: there both are reduced over positions as the unit was maximized.
    """
    stages = {"optimized": "activation_final", "snapped": "activation_snapped"}
    rows = []
    for row in quantiles.to_dict("records"):
        own = rows_of(gaps, target_of_row(row))
        reached: dict[str, float | None] = {"restarts": float(len(own)) if len(own) else None}
        for name, column in stages.items():
            values = np.asarray(own[column], dtype=float)
            reached |= {f"{name}_mean": values.mean() if len(own) else None, f"{name}_max": max(values, default=None)}
        rows.append(reached)
    return pd.concat([quantiles, pd.DataFrame(rows, index=quantiles.index).astype("Float64")], axis=1)
