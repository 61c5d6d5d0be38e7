"""What the passages in which units are highest are about, beside passages moved along the text together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy import ndarray

from actmax.errors import renamed
from actmax.evidence.meaning import Meaning, centred, measure_meaning, rotations
from actmax.evidence.readings import MeaningStatus
from actmax.evidence.themes import theme
from actmax.model.subject import Subject
from actmax.model.target import addressed
from actmax.tasks.examples.find import Examples, Place, passage
from actmax.tasks.units.meaning import THEMES, Space, decided, meaning_numbers, theme_columns, theme_rows, vocabulary
from actmax.text.embedders import MissingExtraError, make_embedder
from actmax.text.settings import MeaningSettings
from actmax.text.windows import Window

MOST_UNITS = THEMES
"""Most units whose passages are compared: each needs as many passages of the text as it has draws."""


def passages_in_common(
    subject: Subject,
    settings: MeaningSettings,
    found: Examples,
    text: Iterable[Window],
    *,
    context: int,
    before: int,
) -> tuple[list[dict[str, Any]], pd.DataFrame | None]:
    """The columns of `quantiles.parquet` on meaning, and the table of themes.

    Null hypothesis: where a unit is highest has nothing to do with what the text is about there. All its passages
    are moved along the text by the same number of windows, so that those which lie close together stay together.

    Args:
        subject: the language model.
        settings: how it is asked.
        found: where the units are highest, in `text`.
        text: the windows that they were found in.
        context: tokens on either side.
        before: tokens of a window that stand before it.

    Raises:
        InputError: names the setting of `meaning` that the subject does not allow.
    """
    units, asked = list(found.places), list(found.places)[:MOST_UNITS]
    if settings.embedder == "none":
        return [{} for _ in units], None
    try:
        with renamed({name: f"meaning.{name}" for name in ("embedder", "path", "layer")}):
            embed = make_embedder(settings, subject, asked)
    except MissingExtraError:
        return [{"meaning_status": MeaningStatus.EXTRA_MISSING.value} for _ in units], None
    moved = [_moved(found.places[unit], found.windows, settings) for unit in asked]
    texts = _texts(subject, text, moved, context=context, before=before)
    read = embed(list(texts.values()))
    space = Space(subject, embed, read.vectors.mean(0))
    vectors = dict(zip(texts, centred(read.vectors, space.centre), strict=True))
    unknown = dict(zip(texts, read.unknown.tolist(), strict=True))
    columns: dict[Any, dict[str, Any]] = {}
    measured, tables = dict[Any, Meaning](), list[pd.DataFrame]()
    for unit, draws in zip(asked, moved, strict=True):
        own, share = np.stack([vectors[place] for place in draws[0]]), [unknown[place] for place in draws[0]]
        chance = np.stack([[vectors[place] for place in draw] for draw in draws[1:]]).reshape(-1, *own.shape)
        measured[unit] = measure_meaning(own, float(np.mean(share)), chance, own[:0], best_of=0)
        columns[unit] = meaning_numbers(measured[unit])
        if measured[unit].status == MeaningStatus.OK and len(chance):
            tables += _theme(columns[unit], space, unit, own, chance)
    columns = decided(columns, measured, {unit: one.texts for unit, one in measured.items()}, settings)
    rows = [columns.get(unit, {"meaning_status": MeaningStatus.OFF.value}) for unit in units]
    return rows, pd.concat(tables, ignore_index=True) if tables else None


def _moved(places: Sequence[Place], windows: int, settings: MeaningSettings) -> list[list[Place]]:
    """A unit's own places, then those of every draw: the same, in windows further on."""
    numbers = np.array([number for number, _ in places])
    drawn = rotations(numbers, total=windows, draws=settings.pool, seed=settings.seed)
    rows = np.concatenate([numbers[None], drawn]).tolist()
    return [[(number, place) for number, (_, place) in zip(row, places, strict=True)] for row in rows]


def _texts(
    subject: Subject,
    text: Iterable[Window],
    moved: Sequence[Sequence[Sequence[Place]]],
    *,
    context: int,
    before: int,
) -> dict[Place, str]:
    """The passages around places; a place beyond a short window stands for its last token."""
    wanted: Mapping[int, set[int]] = defaultdict(set)
    for number, place in {one for unit in moved for draw in unit for one in draw}:
        wanted[number].add(place)
    found: dict[Place, str] = {}
    for number, window in enumerate(text):
        for place in sorted(wanted.get(number, ())):
            own = min(place + before, len(window.ids) - 1)
            found[number, place] = "".join(passage(subject, window, own, context=context, before=before))
    return found


def _theme(
    columns: dict[str, Any],
    space: Space,
    unit: Any,
    own: Float[ndarray, "passages dims"],
    chance: Float[ndarray, "draws passages dims"],
) -> list[pd.DataFrame]:
    """The words that are nearest to a unit's passages; how many of them are nearer than chance goes to its columns."""
    words = vocabulary(space.subject)
    if not words:
        return []
    found = theme(own, chance, space.words)
    columns |= theme_columns(found, words)
    return [addressed(theme_rows(found, words, ()), [unit])]
