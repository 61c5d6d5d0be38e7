"""The targets of a job: vectors that need the subject's weights, control targets, and what a record keeps of both."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy import ndarray

from actmax.errors import InputError
from actmax.model.directions import resolved, siblings
from actmax.model.settings import ContextSettings
from actmax.model.subject import Subject
from actmax.model.target import TARGET, Direction, Place, Target, address_columns, target_of_row
from actmax.records.contents import Contents
from actmax.records.store import Record
from actmax.seeds import stream
from actmax.tasks.settings import control_count, control_units, kind_of, unit_keys, units
from actmax.tasks.task import keys_of
from actmax.text.contexts import make_context

log = logging.getLogger(__name__)

WINDOWS, WINDOW = 64, 32
"""Windows of text, and tokens of each, whose activations random directions are drawn from."""


def own_targets(cfg: Any, subject: Subject) -> list[Target]:
    """The targets of a job with their vectors.

    Raises:
        InputError: names the key; the subject lacks a target, or a logit's token is no single one.
    """
    with unit_keys(cfg):
        own = resolved(units(cfg), subject)
        for one in own:
            one.check_subject(subject.geometry, subject.id)
    _say_norms(own)
    return own


def control_targets(cfg: Any, subject: Subject, own: Sequence[Target]) -> list[Target]:
    """The control targets of a job: other coordinates, other directions of the same file, or random directions.

    Args:
        cfg: the job's config.
        subject: the language model.
        own: the job's own targets.

    Raises:
        InputError: names `unit.against`; there are too few others.
    """
    return control_units(cfg, subject.geometry) if kind_of(cfg.unit) == "coordinate" else _controls(cfg, subject, own)


def _say_norms(own: Sequence[Target]) -> None:
    norms = [one.norm for one in own if isinstance(one, Direction) and abs(one.norm - 1) > 1e-6]
    if norms:
        of = f"{min(norms):.4g}" if len(norms) == 1 else f"{min(norms):.4g} to {max(norms):.4g}"
        log.info("Norm of w: %s. It is kept as it is: activations are w · x + b.", of)


def _controls(cfg: Any, subject: Subject, own: Sequence[Target]) -> list[Target]:
    """Control targets of directions: as many as asked for, of each of the job's directions in turn."""
    count, kind = control_count(cfg), cfg.unit.against
    if not count:
        return []
    rows = [] if kind in ("isotropic", "text") else _other_rows(own, count)
    if kind == "rows" and not rows:
        allowed = f"needs {count} other rows or latents, and there are too few"
        raise InputError("unit.against", "rows", allowed, "isotropic draws random directions; or lower controls.")
    if len(rows) == count:
        return rows
    spread = _text_activations(cfg, subject, own) if kind == "text" else {}
    return [_random(own[number % len(own)], number, spread, subject) for number in range(count)]


def _other_rows(own: Sequence[Target], count: int) -> list[Target]:
    """Directions of the same files or latents of the same autoencoders, of each in turn; none where too few."""
    found: dict[Target, None] = {}
    for turn in zip_longest(*(siblings(one) for one in own)):
        found |= dict.fromkeys(one for one in turn if one is not None and one not in own)
        if len(found) >= count:
            return list(found)[:count]
    return []


def _random(one: Target, number: int, spread: Mapping[Place, ndarray], subject: Subject) -> Direction:
    """A random direction with the place, the length and b of a target: of any direction alike, or as text varies."""
    width = subject.geometry.width(one.site)
    w = one.weights(width)
    kind = "text" if spread else "isotropic"
    rows = spread.get(one.place)
    rng = stream(number, f"{kind} directions")
    size = width if rows is None else len(rows)
    drawn = torch.randn(size, generator=rng, dtype=torch.float64).numpy()
    vector = drawn if rows is None else drawn @ rows
    length = np.linalg.norm(w) / np.linalg.norm(vector)
    return Direction(*one.place, vector * length, getattr(one, "b", 0.0), name=f"random, {kind} {number}", index=number)


@torch.no_grad()
def _text_activations(cfg: Any, subject: Subject, own: Sequence[Target]) -> dict[Place, Float[ndarray, "reads width"]]:
    """Activations of real text at the places of targets, centred: a normal mixture of rows has their covariance.

    Begin-of-text and the first token behind it are left out: they are attention sinks.
    """
    settings = ContextSettings("text", texts=cfg.context.texts, windows=WINDOWS, window=WINDOW, token=cfg.context.token)
    with keys_of(cfg, "context"):
        before = make_context(subject, settings, tokens=0).before
    places = list(dict.fromkeys(one.place for one in own))
    captured = subject.run(subject.embed(torch.tensor(before)), places)
    read = {place: values[:, 2:].flatten(0, 1).double().cpu().numpy() for place, values in captured.items()}
    return {place: values - values.mean(0) for place, values in read.items()}


def write_targets(contents: Contents, targets: Sequence[Target], controls: Sequence[Target]) -> None:
    """Writes what a job's directions are: `targets.parquet`, a row each, and their vectors in `targets.safetensors`.

    Nothing where all are coordinates, which their addresses say.
    """
    if not any(isinstance(one, Direction) for one in targets):
        return
    rows = [
        {"norm": getattr(one, "norm", 1.0), "bias": getattr(one, "b", 0.0), "source": _source(one)} for one in targets
    ]
    table = pd.DataFrame({**address_columns(targets), **{key: [row[key] for row in rows] for key in rows[0]}})
    contents.write_table("targets", table.assign(control=[one in controls for one in targets]))
    known = {str(number): one.w for number, one in enumerate(targets) if isinstance(one, Direction)}
    vectors = {number: torch.from_numpy(w.copy()) for number, w in known.items()}
    contents.write_tensors("targets", vectors)


def _source(one: Target) -> str | None:
    """The path of the file or folder that a direction comes from."""
    origin = getattr(one, "origin", None)
    return None if origin is None else str(origin.path)


def with_vector(target: Target, record: Record) -> Target:
    """A target whose address a table gave, with the vector that its record holds."""
    return next((one for one in targets_of(record) if str(one) == str(target)), target)


def targets_of(record: Record) -> list[Direction]:
    """The directions of a record with their vectors, whether or not the files that they came from are still there."""
    from safetensors.numpy import load_file

    if not record.path("targets.parquet").is_file():
        return []
    table, vectors = record.table("targets"), load_file(record.path("targets.safetensors"))
    found = []
    for number, row in enumerate(table.to_dict("records")):
        if str(number) in vectors:
            one, name = target_of_row(row), str(row[TARGET])
            found.append(Direction(*one.place, vectors[str(number)], row["bias"], name, one.index))
    return found
