"""One unit over a text: its activation at every token, scored by how the two groups of words lie."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch

from actmax.errors import InputError
from actmax.model.subject import Subject
from actmax.model.target import Target
from actmax.text.files import BYTE_ORDER_MARK, named_file, utf8_lines

SATURATED = 2.0
"""Distance from the middle, in standard deviations, at which a colour is full."""


@dataclass(frozen=True)
class Scale:
    """What a unit's activation is measured by: the words of the two groups."""

    middle: float
    """Half-way between the groups' means."""
    spread: float
    """The groups' pooled standard deviation."""
    towards_1: float
    """1 where group 1 has the larger mean, else -1."""
    categories: tuple[str, str]
    """Names of the two groups of words."""

    def score(self, activation: float) -> float:
        """Distance from the middle in standard deviations, positive towards group 1."""
        return self.towards_1 * (activation - self.middle) / self.spread if self.spread > 0 else 0.0


@dataclass(frozen=True)
class HeatMap:
    """One unit over a text."""

    unit: Target
    """The unit that was read."""
    tokens: pd.DataFrame
    """A row per token: `position token activation score`; what stands before the text is left out."""
    scale: Scale
    """What the scores mean."""

    @property
    def title(self) -> str:
        """The unit, and what the colours mean."""
        first, second = self.scale.categories
        return f"{self.unit}: blue leans to {first}, red to {second}; full colour {SATURATED:g} SD from the middle"


def text_of(name_or_text: str) -> str:
    """A text, or the content of the file that it names.

    Raises:
        InputError: the file is no text (the key is `FILE:LINE`), or there is nothing in it.
    """
    text, file = name_or_text.removeprefix(BYTE_ORDER_MARK), named_file(name_or_text)
    if file is not None:
        text = "".join(line for _, line in utf8_lines(file))
    if not text.strip():
        raise InputError("text", repr(name_or_text), "must hold text")
    return text


def encoded(subject: Subject, text: str, *, before: tuple[int, ...]) -> list[int]:
    """A text's tokens behind what stands before it.

    Raises:
        InputError: it has none, or more than the subject's context, or a special token among them.
    """
    own = subject.tokens(text)
    if inside := [subject.token(token) for token in own if token in subject.boundaries]:
        allowed = f"must be one document, and holds {inside[0]}, at which another begins"
        raise InputError("text", repr(text[:40]), allowed, "Give one of them.")
    ids = [*before, *own]
    if not len(before) < len(ids) <= subject.geometry.context:
        allowed = f"must have 1 to {subject.geometry.context - len(before)} tokens, and has {len(ids) - len(before)}"
        raise InputError("text", repr(text[:40]), allowed, "Give a part of it.")
    return ids


def heat_map(subject: Subject, unit: Target, ids: list[int], scale: Scale, *, before: tuple[int, ...]) -> HeatMap:
    """Reads a unit at every token of a text.

    Args:
        subject: the model.
        unit: the unit to read.
        ids: the text's tokens, as `encoded` gives them.
        scale: what the unit's activation is measured by.
        before: what stands before the text, and is left out.
    """
    own = len(before)
    with torch.inference_mode():
        embeddings = subject.embed(torch.tensor([ids]))
        values = unit.read(subject.run(embeddings, [unit.place]))[0, own:].double().tolist()
    rows = {
        "position": range(own, len(ids)),
        "token": [subject.token(token) for token in ids[own:]],
        "activation": values,
        "score": [scale.score(value) for value in values],
    }
    return HeatMap(unit, pd.DataFrame(rows), scale)
