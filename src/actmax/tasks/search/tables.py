"""From what a token search found to the record: the tables of the gradient run, and the front."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from actmax.evidence.nulls import Displaced, Restarts, redraw
from actmax.evidence.settings import RANDOM_TEXT, RANDOM_TOKENS, NullSettings
from actmax.model.context import NONE, Context
from actmax.model.objective import Objective, by_unit
from actmax.model.settings import GapSettings, TransferSettings
from actmax.model.subject import Subject
from actmax.model.target import Target, with_layers
from actmax.records.contents import Contents
from actmax.records.store import Summary
from actmax.search.alphabet import Alphabet
from actmax.search.front import front_of, weight_of
from actmax.search.pieces import real_text
from actmax.search.restarts import Found
from actmax.search.settings import SearchSettings
from actmax.tasks.units import measure
from actmax.text.settings import MeaningSettings


def by_unit_found(subject: Subject, found: Sequence[Found]) -> dict[Target, tuple[list[int], Restarts]]:
    """The restarts of each unit with their seeds, their tokens as embeddings."""
    return {
        unit: ([found[row].row.seed for row in rows], _restarts(subject, [found[row] for row in rows]))
        for unit, rows in by_unit([one.row for one in found]).items()
    }


def _restarts(subject: Subject, found: Sequence[Found]) -> Restarts:
    initial, final = (
        subject.embed(torch.tensor([getattr(one, name) for one in found])).cpu() for name in ("initial", "ids")
    )
    before, after = (
        torch.tensor([getattr(one, name) for one in found], dtype=torch.float64)
        for name in ("activation_initial", "activation")
    )
    return Restarts(initial, final, before, after, ~after.isfinite())


def write_found(
    contents: Contents, subject: Subject, found: Sequence[Found], *, top_k: int, controls: Collection[Target] = ()
) -> None:
    """Writes embeddings, tokens, candidates (nearest to the tokens found), restarts, trajectory and front.

    Args:
        contents: contents of the job, which take the tables.
        subject: the language model.
        found: the restarts of all units.
        top_k: nearest tokens to keep for each position.
        controls: which of the units are control units.
    """
    measure.write_restarts(contents, subject, by_unit_found(subject, found), top_k=top_k, controls=controls)
    columns = {
        "text": [subject.text(one.ids) for one in found],
        "forward_passes": [one.passes for one in found],
        "whole_passes": [one.whole_passes for one in found],
    }
    contents.write_table("restarts", contents.table("restarts").assign(**columns))
    curves = pd.concat(map(trajectory_rows, found), ignore_index=True)
    contents.write_table("trajectory", measure.marked(curves, controls))
    if found[0].weights:
        contents.write_table("front", measure.marked(front_rows(subject, found), controls))


def trajectory_rows(one: Found) -> pd.DataFrame:
    """A row per step of one restart: the best activation after so many forward passes."""
    columns = {"seed": one.row.seed, "activation": one.trajectory, "forward_passes": one.evaluated}
    return with_layers(pd.DataFrame({"step": np.arange(len(one.trajectory)), **one.row.unit.columns(), **columns}))


def front_rows(subject: Subject, found: Sequence[Found]) -> pd.DataFrame:
    """A row per point of each unit's Pareto front over all its restarts, most fluent first.

    `lambda` is the smallest weight of the population at which the point is the best of the front, in activations per
    nat; missing where it is at none.
    """
    rows = []
    for unit, numbers in by_unit([one.row for one in found]).items():
        own = [found[number] for number in numbers]
        seeds = {point: one.row.seed for one in own for point in one.front}
        front = front_of(seeds, sign=own[0].sign)
        rows += [
            {
                **unit.columns(),
                "seed": seeds[point],
                "lambda": weight_of(point, front, own[0].weights, sign=own[0].sign),
                "text": subject.text(point.ids),
                "token_ids": list(point.ids),
                "activation": point.activation,
                "cross_entropy": point.cross_entropy,
            }
            for point in front
        ]
    return with_layers(pd.DataFrame(rows))


def random_ends(
    subject: Subject, settings: NullSettings, searched: SearchSettings, tokens: int, context: Context = NONE
) -> Callable[[Sequence[Restarts]], list[Displaced]]:
    """Where searches would end by chance: at tokens drawn uniformly from those that they may use, one by one.

    A search among sequences of a text ends at one of these, drawn uniformly.

    Raises:
        InputError: the text is no longer there.
    """
    nearest = subject.nearest
    alphabet = Alphabet(subject, only_text=searched.only_text, context=context)
    if searched.source is None:
        choices, kind = alphabet.ids[:, None], RANDOM_TOKENS
    else:
        choices, kind = real_text(alphabet, searched.source, tokens=tokens), RANDOM_TEXT
    options: dict[str, Any] = {"kind": kind}
    drawn: list[tuple[Tensor, Displaced]] = []

    def draw(one: Restarts) -> Displaced:
        # the same start gives the same draws: units of a job share their seeds
        for initial, found in drawn:
            if initial.shape == one.initial.shape and torch.equal(initial, one.initial):
                return found
        found = redraw(nearest, one.initial, choices, draws=settings.draws, seed=settings.seed, **options)
        drawn.append((one.initial, found))
        return found

    return lambda restarts: [draw(one) for one in restarts]


def summarize(
    contents: Contents,
    subject: Subject,
    found: Sequence[Found],
    *,
    objective: Objective,
    searched: SearchSettings,
    tokens: int,
    settings: NullSettings,
    gap_settings: GapSettings,
    transfer: tuple[TransferSettings, Sequence[Context]],
    meaning: MeaningSettings,
    cache: Path,
    controls: Collection[Target] = (),
) -> Summary:
    """Sets every unit beside its nulls as a gradient run does, and says what the search found and cost.

    Args:
        contents: contents of the job, which take the tables.
        subject: the language model.
        found: the restarts of all units.
        objective: the objective of the search.
        searched: settings of the search.
        tokens: length of the sequences.
        settings: settings of the nulls.
        gap_settings: settings of the null of random text.
        transfer: settings of the trial in other contexts, and these contexts.
        meaning: settings of the comparison in meaning.
        cache: the folder that keeps activations of random sequences.
        controls: which of the units are control units.
    """
    ended: Mapping[Target, tuple[list[int], Restarts]] = by_unit_found(subject, found)
    nulls = {"settings": settings, "gap_settings": gap_settings, "cache": cache}
    ends = random_ends(subject, settings, searched, tokens, objective.context)
    nulls |= {"ends": ends, "transfer": transfer, "meaning": meaning, "controls": controls}
    own = [one for one in found if one.row.unit not in controls]
    nulls |= {"passes": round(float(np.mean([one.passes for one in own])))}
    headline = measure.measure_units(contents, subject, ended, objective=objective, **nulls)
    activations = [one.activation for one in own]
    best = max(own, key=lambda one: one.sign * one.activation)
    return {
        **headline,
        "search": {
            "activation_mean": float(np.mean(activations)),
            "activation_best": best.activation,
            "best_text": subject.text(best.ids),
            "forward_passes": sum(one.passes for one in own),
            "whole_passes": sum(one.whole_passes for one in own),
        },
    }
