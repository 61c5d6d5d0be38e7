"""Forward passes of many sequences that begin alike: what they have in common is computed once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from actmax.model.context import NONE, Context
from actmax.model.subject import Subject
from actmax.model.target import Place

PAYS = 0.85
"""Share of the positions that must be left to run, at most, for shared beginnings to be faster than plain batches."""


def shared_lengths(ids: Int[ndarray, "rows tokens"]) -> Int[ndarray, " rows"]:
    """How many tokens each row has in common with another from the first on; the last token is always its own.

    Example:
        >>> shared_lengths(np.array([[1, 2, 3], [4, 2, 3], [1, 2, 5]])).tolist()
        [2, 0, 2]
    """
    # In lexicographic order, the row with the longest common beginning is one of a row's two neighbours.
    order = np.lexsort(ids.T[::-1])
    ordered = ids[order]
    common = np.cumprod(ordered[1:] == ordered[:-1], axis=1).sum(axis=1)
    padded = np.concatenate([[0], common, [0]])
    found = np.empty(len(ids), dtype=np.int64)
    found[order] = np.minimum(np.maximum(padded[:-1], padded[1:]), ids.shape[1] - 1)
    return found


def bases(ids: Int[ndarray, "rows tokens"], shared: Int[ndarray, " rows"]) -> tuple[list[int], Int[ndarray, " rows"]]:
    """Rows whose beginnings hold all shared ones, and for each row which of them holds its own; -1 where none does."""
    # The longest first: a shorter beginning may be one of theirs.
    chosen: list[int] = []
    known: dict[tuple[int, ...], int] = {}
    own = np.full(len(ids), -1, dtype=np.int64)
    for row in np.argsort(-shared, kind="stable").tolist():
        if shared[row] == 0:
            break
        start = tuple(ids[row, : shared[row]].tolist())
        if start not in known:
            known |= {start[:length]: len(chosen) for length in range(1, len(start) + 1) if start[:length] not in known}
            chosen.append(row)
        own[row] = known[start]
    return chosen, own


@torch.no_grad()
def run(
    subject: Subject, ids: Int[Tensor, "rows tokens"], places: Sequence[Place], *, context: Context = NONE
) -> dict[Place, Float[Tensor, "copies read width"]]:
    """`subject.run` of token sequences; beginnings that several of them share run once, where that pays.

    Keys and values of a shared beginning are kept and only what follows runs, so that after swaps of one token at
    uniform places of n about half of the positions run, (n + 1) / 2n. The same activations up to rounding.
    """
    table = ids.cpu().numpy()
    shared = shared_lengths(table)
    chosen, own = bases(table, shared)
    tokens = ids.shape[1]
    positions = len(chosen) * (tokens - 1) + int((tokens - shared).sum())
    blocks = max(subject.geometry.depth(site, layer) for site, layer in places)
    if positions > PAYS * ids.numel() or not subject.keeps_keys or not blocks:  # no block runs: there are no keys
        return subject.run(subject.embed(ids), places, context=context)
    copies = torch.arange(context.count)
    cache = subject.begin(context, places, rows=len(chosen))
    begun = subject.run(_embedded(subject, ids[chosen, :-1], context), places, cache=cache)
    behind = Context(context.name, after=context.after)
    found: dict[Place, Tensor] = {}
    for rows, length in _groups(shared):
        if length:
            base = (torch.from_numpy(own[rows])[:, None] * context.count + copies).flatten().to(subject.device)
            kept = _truncated(cache, base, context.length + length)
        else:
            base, kept = None, subject.begin(context, places, rows=len(rows))
        ended = subject.run(_embedded(subject, ids[rows, length:], context), places, context=behind, cache=kept)
        into = (torch.from_numpy(rows)[:, None] * context.count + copies).flatten().to(subject.device)
        for place, value in ended.items():
            whole = value if base is None else torch.cat([begun[place][base, :length], value], dim=1)
            all_rows = found.setdefault(place, whole.new_empty(len(ids) * context.count, *whole.shape[1:]))
            all_rows[into] = whole
    return found


def _embedded(subject: Subject, ids: Int[Tensor, "rows tokens"], context: Context) -> Float[Tensor, "copies tokens d"]:
    """The embeddings of token sequences, a copy for each surrounding."""
    return subject.embed(ids).repeat_interleave(context.count, 0)


def _groups(shared: Int[ndarray, " rows"]) -> Iterator[tuple[ndarray, int]]:
    """The rows of each length of a shared beginning, and that length."""
    for length in np.unique(shared).tolist():
        yield np.flatnonzero(shared == length), length


def _truncated(cache: Any, rows: Int[Tensor, " rows"], length: int) -> Any:
    """The first keys and values of some rows, in a cache of their own."""
    truncated = type(cache)()
    for number, layer in enumerate(cache.layers):
        truncated.update(layer.keys[rows, :, :length], layer.values[rows, :, :length], number)
    return truncated
