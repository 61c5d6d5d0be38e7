"""What the restarts of a job's units are about: their texts in a space of meaning, themes, and what these predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import nan
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from numpy import ndarray

from actmax.errors import renamed
from actmax.evidence.gap import Gap
from actmax.evidence.meaning import (
    Alike,
    Meaning,
    MeaningDecision,
    best_of_blocks,
    centred,
    combinations_of,
    decide_meaning,
    measure_meaning,
)
from actmax.evidence.own import MOST_UNITS, Relabelled, relabel
from actmax.evidence.readings import MeaningStatus, OwnStatus
from actmax.evidence.settings import ALPHA
from actmax.evidence.themes import Held, Theme, held, held_out, near_from, raised_by, theme
from actmax.model.context import Context
from actmax.model.evaluation import by_unit_activations, random_tokens
from actmax.model.objective import Objective
from actmax.model.settings import GapSettings
from actmax.model.subject import Subject
from actmax.model.target import Unit, addressed
from actmax.text.embedders import Embedder, MissingExtraError, make_embedder
from actmax.text.settings import MeaningSettings
from actmax.text.vocabulary import whole_words

CENTRE = 2000
"""Random token sequences whose mean vector is the centre of the space."""
THEMES = 16
"""Most units of a job whose themes are made: each is held against the whole vocabulary."""
LEAST_WORDS = 200
"""Least number of words of a vocabulary that themes are made of."""
HELD = 20
"""Tokens of the restarts that are listed, those of most restarts."""


@dataclass(frozen=True)
class Space:
    """A space of meaning, centred at the mean of random token sequences."""

    subject: Subject
    """The language model, whose tokens spell the texts."""
    embed: Embedder
    """What makes vectors of texts."""
    centre: Float[ndarray, " dims"]
    """The mean vector of random token sequences."""

    @classmethod
    def of(cls, subject: Subject, embed: Embedder, *, tokens: int, seed: int) -> Space:
        """The space of sequences of some length."""
        drawn = random_tokens(subject, tokens, draws=CENTRE, seed=seed).tolist()
        return cls(subject, embed, embed([subject.text(ids) for ids in drawn]).vectors.mean(0))

    def __call__(self, texts: Sequence[str]) -> Float[ndarray, "texts dims"]:
        """The vectors of some texts, centred, of length 1."""
        return centred(self.embed(texts).vectors, self.centre)

    def sequences(self, ids: Int[torch.Tensor, "*batch tokens"]) -> Float[ndarray, "*batch dims"]:
        """The same of token sequences."""
        found = self([self.subject.text(one) for one in ids.flatten(0, -2).tolist()])
        return found.reshape(*ids.shape[:-1], -1)


@dataclass(frozen=True)
class Asked:
    """What of a job is compared in meaning."""

    subject: Subject
    """The language model."""
    objective: Objective
    """What its units were maximized for."""
    settings: MeaningSettings
    """How it is asked."""
    gap: GapSettings
    """Number and seed of the random sequences whose activations are known."""
    text: Context | None
    """Windows of real text in which words are read; None where they do not fit."""


def meaning_columns(
    asked: Asked,
    texts: Mapping[Unit, Sequence[str]],
    ids: Mapping[Unit, Int[torch.Tensor, "restarts tokens"]],
    gaps: Mapping[Unit, Gap],
    by_chance: Sequence[Int[torch.Tensor, "draws restarts tokens"]],
    *,
    own: Sequence[Unit],
    passes: int,
) -> tuple[dict[Unit, dict[str, Any]], dict[str, pd.DataFrame], dict[str, torch.Tensor]]:
    """The columns of `units.parquet` on meaning, the table of themes, and the vectors of all restarts.

    Args:
        asked: what is asked, and of which subject.
        texts: the texts that the restarts of each unit ended at.
        ids: the tokens of these texts.
        gaps: the decode gap of each unit, with activations of random sequences.
        by_chance: tokens that the restarts of each unit could have ended at by chance.
        own: the units that are no control units.
        passes: forward passes that each restart took.

    Raises:
        InputError: names the setting of `meaning` that the subject does not allow.
    """
    settings, units = asked.settings, list(texts)
    if settings.embedder == "none":
        return {unit: {} for unit in units}, {}, {}
    try:
        with renamed({"embedder": "meaning.embedder", "path": "meaning.path", "layer": "meaning.layer"}):
            embed = make_embedder(settings, asked.subject, units)
    except MissingExtraError:
        return {unit: {"meaning_status": MeaningStatus.EXTRA_MISSING.value} for unit in units}, {}, {}
    space = Space.of(asked.subject, embed, tokens=ids[units[0]].shape[1], seed=asked.gap.seed)
    vectors = {unit: space(some) for unit, some in texts.items()}
    drawn: list[tuple[torch.Tensor, ndarray]] = []
    columns: dict[Unit, dict[str, Any]] = {unit: {"meaning_status": MeaningStatus.OFF.value} for unit in units}
    measured: dict[Unit, Meaning] = {}
    tables = []
    for unit, some in zip(units, by_chance, strict=True):
        if unit not in own:
            continue
        chance = _combined(space, some, settings, drawn)
        best, size = best_of_blocks(
            gaps[unit].random.activation,
            passes=passes,
            restarts=len(texts[unit]),
            maximize=asked.objective.sign == "maximize",
        )
        sequences = random_tokens(asked.subject, some.shape[2], draws=asked.gap.draws, seed=asked.gap.seed)
        unknown = float(embed(texts[unit]).unknown.mean())
        rest = {"best_of": size, "seed": settings.seed}
        measured[unit] = measure_meaning(vectors[unit], unknown, chance, space.sequences(sequences[best]), **rest)
        columns[unit] = _columns(measured[unit])
        if measured[unit].status == MeaningStatus.OK and own.index(unit) < THEMES:
            others = [vectors[other] for other in units if other != unit]
            found, table = _about(asked, space, unit, ids[unit], vectors[unit], chance, others, some[:, 0])
            columns[unit] |= found
            tables += table
    tested = set_apart([vectors[unit] for unit in units], seed=settings.seed)
    judged = [number for number, unit in enumerate(units) if unit in own]
    decided = decide_meaning([Alike.of(measured.get(unit)) for unit in units], tested, judged=judged)
    columns = {unit: columns[unit] | one.flat() for unit, one in zip(units, decided, strict=True)}
    kept = {"vectors": torch.from_numpy(np.concatenate(list(vectors.values()))), "centre": torch.tensor(space.centre)}
    return columns, {"theme": pd.concat(tables, ignore_index=True)} if tables else {}, kept


def set_apart(vectors: Sequence[Float[ndarray, "restarts dims"]], *, seed: int) -> Relabelled:
    """Units set against each other in meaning; restarts of each unit from the same seeds in the same order."""
    if len(vectors) > MOST_UNITS or len({len(one) for one in vectors}) > 1:
        return Relabelled(OwnStatus.TOO_MANY_UNITS, units=len(vectors))
    flat = np.concatenate(list(vectors))
    return relabel(flat @ flat.T, len(vectors), seed=seed)


def decisions(rows: Sequence[Mapping[Any, Any]], own: Relabelled, judged: Sequence[int]) -> Sequence[MeaningDecision]:
    """The rule for rows of `units.parquet`, set against each other anew."""
    return decide_meaning([Alike.of_row(row) for row in rows], own, judged=judged)


def _combined(
    space: Space, ids: torch.Tensor, settings: MeaningSettings, drawn: list[tuple[torch.Tensor, ndarray]]
) -> Float[ndarray, "draws restarts dims"]:
    """Texts by chance; units with the same draws share them."""
    for known, found in drawn:
        if known is ids or (known.shape == ids.shape and torch.equal(known, ids)):
            return found
    found = combinations_of(space.sequences(ids[: settings.pool]), draws=settings.draws, seed=settings.seed)
    drawn[:] = [(ids, found)]
    return found


def _columns(one: Meaning) -> dict[str, Any]:
    numbers = {
        "meaning": one.null.observed,
        "meaning_unknown": one.unknown,
        **one.null.claim_columns("meaning", ALPHA),
        "kappa_meaning": one.kappa.value,
        "kappa_meaning_low": one.kappa.low,
        "kappa_meaning_high": one.kappa.high,
        "meaning_best_mean": one.best_similarity,
        "meaning_best_count": one.best_count,
        "meaning_best_of": one.best_of,
        **one.best.claim_columns("meaning_best", ALPHA),
    }
    return {"meaning_status": one.status.value, "theme": "", **_floats(numbers)}


def _floats(numbers: Mapping[str, float | int]) -> dict[str, float]:
    """Numbers as floats, so that tables of jobs with and without them fit together."""
    return {name: float(value) for name, value in numbers.items()}


@lru_cache(maxsize=2)
def _vocabulary(subject: Subject) -> tuple[list[int], list[str]]:
    words = whole_words(subject)
    return [token for token, _ in words], [text for _, text in words]


def _about(
    asked: Asked,
    space: Space,
    unit: Unit,
    ids: Int[torch.Tensor, "restarts tokens"],
    texts: Float[ndarray, "restarts dims"],
    chance: Float[ndarray, "draws restarts dims"],
    others: Sequence[ndarray],
    random_ids: Int[torch.Tensor, "sequences tokens"],
) -> tuple[dict[str, Any], list[pd.DataFrame]]:
    """A unit's theme: its words, whether it holds for restarts and words that it was not made of, its tokens."""
    tokens, words = _vocabulary(asked.subject)
    if len(words) < LEAST_WORDS:
        return {}, []
    raw = space.embed(words).vectors
    vectors = centred(raw, raw.mean(0))
    found = theme(texts, chance, vectors)
    half = len(texts) // 2
    tried = np.stack([texts[half:], *(one[half:] for one in others if len(one) == len(texts))])
    kept = held_out(texts[:half], tried, seed=asked.settings.seed)
    columns = {"theme": ", ".join(words[number].strip() for number in found.nearest if found.p[number] <= ALPHA)}
    numbers: dict[str, float] = {"theme_words": float((found.p <= ALPHA).sum()), "theme_held_out": kept.observed}
    numbers |= kept.claim_columns("theme_held_out", ALPHA)
    numbers |= _raised(asked, unit, tokens, theme(texts[:half], chance[:, :half], vectors))
    columns |= _floats(numbers)
    listed = _held(space, ids, random_ids, near_from(vectors, seed=asked.settings.seed))
    return columns, [addressed(_theme_rows(found, words, listed), [unit])]


def _raised(asked: Asked, unit: Unit, tokens: Sequence[int], half: Theme) -> dict[str, Any]:
    """Whether words of a theme of half of the restarts raise the unit in real text, beside random themes."""
    activation = np.full(len(tokens), nan)
    read = min(asked.settings.words, len(tokens))
    if asked.text is not None and read:
        there = replace(asked.objective, context=asked.text)
        chosen = np.unique(np.concatenate([half.nearest, half.drawn.ravel()]))[: 10 * read]
        some = np.random.default_rng([asked.settings.seed, *b"words"]).permutation(chosen)[:read]
        some = np.union1d(some, half.nearest)
        column = torch.tensor([[tokens[number]] for number in some])
        activation[some] = by_unit_activations(asked.subject, there, column, [unit])[:, 0]
    side = "greater" if asked.objective.sign == "maximize" else "less"
    found = raised_by(activation, half.nearest, half.drawn, alternative=side)
    return {"theme_raises": found.observed, **found.claim_columns("theme_raises", ALPHA)}


def _held(space: Space, ids: torch.Tensor, random_ids: torch.Tensor, near: float) -> list[Held]:
    """Tokens of restarts by the number of restarts that hold them or a near neighbour."""
    names = [[space.subject.token(token) for token in row] for row in ids.tolist()]
    both = torch.cat([ids, random_ids[:CENTRE]])
    unique, place = both.unique(return_inverse=True)
    raw = space.embed([space.subject.token(token) for token in unique.tolist()]).vectors
    vectors = centred(raw, raw.mean(0))[place.numpy()]
    return held(names, vectors[: len(ids)], vectors[len(ids) :], near=near)[:HELD]


def _theme_rows(found: Theme, words: Sequence[str], listed: Sequence[Held]) -> pd.DataFrame:
    """The nearest words of the vocabulary, then the tokens of the restarts."""
    rows: list[dict[str, Any]] = [
        {
            "kind": "word",
            "text": str(words[number]).strip(),
            "similarity": found.similarity[number],
            "chance": found.chance[number],
            "z": found.z[number],
            "p": found.p[number],
        }
        for number in found.nearest.tolist()
    ]
    rows += [
        {"kind": "token", "text": one.token, "restarts": one.same, "restarts_near": one.near, "chance": one.chance}
        for one in listed
    ]
    columns = ["kind", "text", "similarity", "chance", "z", "p", "restarts", "restarts_near"]
    return pd.DataFrame(rows, columns=columns).astype({"restarts": "Int64", "restarts_near": "Int64"})
