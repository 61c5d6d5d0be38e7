"""What the restarts of a job's units are about: their texts in a space of meaning, themes, and what these predict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import combinations
from math import nan
from pathlib import Path
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
    mean_similarity,
    measure_meaning,
    plane,
)
from actmax.evidence.nulls import against
from actmax.evidence.own import MOST_UNITS, Relabelled, relabel
from actmax.evidence.readings import MeaningStatus, OwnStatus
from actmax.evidence.settings import ALPHA
from actmax.evidence.themes import Held, Theme, held, held_out, near_from, raised_by, theme
from actmax.model.context import Context
from actmax.model.evaluation import kept_activations, random_tokens
from actmax.model.objective import Objective
from actmax.model.settings import GapSettings
from actmax.model.subject import Subject
from actmax.model.target import Target, addressed
from actmax.text.embedders import Embedder, MissingExtraError, ResidualStream, make_embedder
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
class Asked:
    """What of a job is compared in meaning."""

    subject: Subject
    """The language model whose units were maximized."""
    objective: Objective
    """What the units were maximized for."""
    settings: MeaningSettings
    """Settings of the comparison in meaning (`meaning.*`)."""
    gap: GapSettings
    """Number and seed of the random sequences whose activations are known."""
    text: Context | None
    """Windows of real text in which words are read; None where they do not fit."""
    cache: Path | None = None
    """The folder that keeps activations of these words; None: they are not kept."""


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
    def of(cls, asked: Asked, units: Sequence[Target], *, tokens: int) -> Space:
        """The space of sequences of some length, for the restarts of some units."""
        with renamed({name: f"meaning.{name}" for name in ("embedder", "path", "layer")}):
            embed = make_embedder(asked.settings, asked.subject, units)
        return cls.around(asked, embed, tokens=tokens)

    @classmethod
    def around(cls, asked: Asked, embed: Embedder, *, tokens: int) -> Space:
        """The space of an embedder, for sequences of some length."""
        return cls(asked.subject, embed, _centre(asked.subject, embed, tokens, asked.gap.seed))

    @cached_property
    def words(self) -> Float[ndarray, "words dims"]:
        """The vectors of the whole words of the subject's vocabulary, centred at their own mean, of length 1."""
        raw = self.embed(vocabulary(self.subject)).vectors
        return centred(raw, raw.mean(0))

    def __call__(self, texts: Sequence[str]) -> Float[ndarray, "texts dims"]:
        """The vectors of some texts, centred, of length 1."""
        return centred(self.embed(texts).vectors, self.centre)

    def sequences(self, ids: Int[torch.Tensor, "*batch tokens"]) -> Float[ndarray, "*batch dims"]:
        """The same of token sequences."""
        found = self([self.subject.text(one) for one in ids.flatten(0, -2).tolist()])
        return found.reshape(*ids.shape[:-1], -1)


@lru_cache(maxsize=4)  # the jobs of a sweep share it
def _centre(subject: Subject, embed: Embedder, tokens: int, seed: int) -> Float[ndarray, " dims"]:
    """The mean vector of random token sequences."""
    drawn = random_tokens(subject, tokens, draws=CENTRE, seed=seed).tolist()
    return embed([subject.text(ids) for ids in drawn]).vectors.mean(0)


def meaning_columns(
    asked: Asked,
    texts: Mapping[Target, Sequence[str]],
    ids: Mapping[Target, Int[torch.Tensor, "restarts tokens"]],
    gaps: Mapping[Target, Gap],
    by_chance: Sequence[Int[torch.Tensor, "draws restarts tokens"]],
    *,
    own: Sequence[Target],
    passes: int,
    seeds: Mapping[Target, Sequence[int]] | None = None,
) -> tuple[dict[Target, dict[str, Any]], dict[str, list[pd.DataFrame]], dict[str, torch.Tensor]]:
    """The columns of `units.parquet` on meaning, the parts of the tables on it, and the vectors of all restarts.

    Args:
        asked: what is asked, and of which subject.
        texts: the texts that the restarts of each unit ended at.
        ids: the tokens of these texts.
        gaps: the decode gap of each unit, with activations of random sequences.
        by_chance: tokens that the restarts of each unit could have ended at by chance.
        own: the units that are no control units.
        passes: forward passes that each restart took.
        seeds: the seeds of each unit's restarts, where they differ: units are set apart over those that all have, and
            one that is not named is not set apart.

    Raises:
        InputError: names the setting of `meaning` that the subject does not allow.
    """
    settings, units = asked.settings, list(texts)
    if settings.embedder == "none":
        return {unit: {} for unit in units}, {}, {}
    try:
        space = Space.of(asked, units, tokens=ids[units[0]].shape[1])
    except MissingExtraError:
        return {unit: {"meaning_status": MeaningStatus.EXTRA_MISSING.value} for unit in units}, {}, {}
    embedded = {unit: space.embed(some) for unit, some in texts.items()}
    vectors = {unit: centred(one.vectors, space.centre) for unit, one in embedded.items()}
    combined, whole = _Combined(space, settings), _whole(asked, space, texts, ids)
    in_text = _InText(asked, [unit for unit in units if unit in own][:THEMES])
    columns: dict[Target, dict[str, Any]] = {unit: {} for unit in units}
    measured, tables = dict[Target, Meaning](), dict[str, list[pd.DataFrame]](meaning=[], theme=[])
    for unit, some in zip(units, by_chance, strict=True):
        if unit not in own:
            continue
        (pool, chance), unknown = combined(some), float(embedded[unit].unknown.mean())
        best, size = _best(asked, space, gaps[unit], passes, ids[unit])
        one = measure_meaning(vectors[unit], unknown, chance, best, best_of=size, seed=settings.seed)
        columns[unit] = meaning_numbers(one) | whole(unit, some) | _apart(space, ids[unit], vectors[unit], chance)
        measured[unit] = one
        if one.status == MeaningStatus.OK and len(measured) <= THEMES:
            others = {other: vectors[other] for other in units if other != unit}
            tables["meaning"].append(_map(unit, vectors[unit], others, pool[:, 0]))
            read = ids[unit], vectors[unit], chance, others, some[:, 0]
            tables["theme"] += _about(columns[unit], in_text, space, unit, *read)
    columns |= decided(columns, measured, _set_apart(vectors, seeds), settings)
    columns = {unit: columns[unit] or {"meaning_status": MeaningStatus.ONE_RESTART.value} for unit in units}
    kept = {"vectors": torch.from_numpy(np.concatenate(list(vectors.values()))), "centre": torch.tensor(space.centre)}
    return columns, {name: parts for name, parts in tables.items() if parts}, kept


def _set_apart(
    vectors: Mapping[Target, ndarray], seeds: Mapping[Target, Sequence[int]] | None
) -> Mapping[Target, ndarray]:
    """The vectors of the units that are set apart, from the seeds that all of these have."""
    if seeds is None:
        return vectors
    shared = set.intersection(*map(set, seeds.values()))
    return {unit: one[[seed in shared for seed in seeds[unit]]] for unit, one in vectors.items() if unit in seeds}


def _apart(
    space: Space,
    ids: Int[torch.Tensor, "restarts tokens"],
    texts: Float[ndarray, "restarts dims"],
    by_chance: Float[ndarray, "draws restarts dims"],
) -> dict[str, float]:
    """The columns on how alike texts are where of every two the tokens are left out that both hold.

    Beside the same texts by chance as all: these hardly share a token, and where they do they keep it, which makes the
    test conservative.
    """
    if len(ids) < 2:
        return {}
    rows, pairs = ids.tolist(), list(combinations(range(len(ids)), 2))
    cosines = (texts @ texts.T)[tuple(np.array(pairs).T)]
    sharing = [number for number, (one, other) in enumerate(pairs) if set(rows[one]) & set(rows[other])]
    left = [[[token for token in rows[a] if token not in rows[b]] for a, b in (pair, pair[::-1])] for pair in pairs]
    if sharing:
        found = space([space.subject.text(part) for number in sharing for part in left[number]])
        cosines[sharing] = (found[::2] * found[1::2]).sum(1)
    null = against(cosines.mean(), mean_similarity(by_chance), alternative="greater")
    return _floats({"meaning_apart": null.observed, **null.claim_columns("meaning_apart", ALPHA)})


def _map(
    unit: Target,
    texts: Float[ndarray, "restarts dims"],
    others: Mapping[Target, Float[ndarray, "restarts dims"]],
    by_chance: Float[ndarray, "draws dims"],
) -> pd.DataFrame:
    """Where the restarts of a unit, those of others and texts by chance lie in the plane of the unit."""
    rest = np.concatenate([texts[:0], *others.values()])
    found = plane(texts, rest, by_chance)
    kinds = ["own"] * len(texts) + ["other"] * len(rest) + ["chance"] * len(by_chance)
    named = [str(other) for other, some in others.items() for _ in some]
    of = [str(unit)] * len(texts) + named + [""] * len(by_chance)
    return addressed(pd.DataFrame({"kind": kinds, "of": of, "near": found[:, 0], "axis": found[:, 1]}), [unit])


def _whole(
    asked: Asked,
    space: Space,
    texts: Mapping[Target, Sequence[str]],
    ids: Mapping[Target, Int[torch.Tensor, "restarts tokens"]],
) -> Callable[[Target, Int[torch.Tensor, "draws restarts tokens"]], dict[str, float]]:
    """Makes the columns on agreement with no coordinate left out; empty for embedders that leave none out."""
    if not isinstance(space.embed, ResidualStream):
        return lambda _unit, _chance: {}
    tokens = next(iter(ids.values())).shape[1]
    full = Space.around(asked, space.embed.whole(), tokens=tokens)
    combined = _Combined(full, asked.settings)

    def columns(unit: Target, by_chance: Int[torch.Tensor, "draws restarts tokens"]) -> dict[str, float]:
        found = mean_similarity(full(texts[unit])).item()
        null = against(found, mean_similarity(combined(by_chance)[1]), alternative="greater")
        return _floats({"meaning_whole": found, **null.claim_columns("meaning_whole", ALPHA)})

    return columns


def decided(
    columns: Mapping[Target, dict[str, Any]],
    measured: Mapping[Target, Meaning],
    vectors: Mapping[Target, Float[ndarray, "restarts dims"]],
    settings: MeaningSettings,
) -> dict[Target, dict[str, Any]]:
    """The columns of all units with their verdicts; units that were not measured are control units.

    Args:
        columns: the columns of each unit so far.
        measured: how alike the texts of each unit are.
        vectors: vectors of the texts of each unit, and of control units.
        settings: how it is asked.
    """
    tested = set_apart(list(vectors.values()), seed=settings.seed)
    decided = decide_meaning([Alike.of(measured.get(unit)) for unit in vectors], tested)
    return {unit: columns[unit] | one.flat() for unit, one in zip(vectors, decided, strict=True)}


def _best(
    asked: Asked, space: Space, one: Gap, passes: int, ids: Int[torch.Tensor, "restarts tokens"]
) -> tuple[Float[ndarray, "blocks dims"], int]:
    """The best of random sequences as vectors, and of how many each is the best (`best_of_blocks`)."""
    maximize = asked.objective.sign == "maximize"
    best, size = best_of_blocks(one.random.activation, passes=passes, restarts=len(ids), maximize=maximize)
    drawn = random_tokens(asked.subject, ids.shape[1], draws=asked.gap.draws, seed=asked.gap.seed)
    return space.sequences(drawn[best]), size


def set_apart(vectors: Sequence[ndarray], *, seed: int) -> Relabelled:
    """Units set against each other in meaning.

    Args:
        vectors: vectors of the restarts of each unit, restarts x dims, from the same seeds in the same order.
        seed: seed of the relabellings.
    """
    if len({len(one) for one in vectors}) > 1:
        return Relabelled(OwnStatus.NO_SHARED_SEEDS, units=len(vectors))
    if len(vectors) > MOST_UNITS:
        return Relabelled(OwnStatus.TOO_MANY_UNITS, units=len(vectors))
    flat = np.concatenate(list(vectors))
    return relabel(flat @ flat.T, len(vectors), seed=seed)


def decisions(rows: Sequence[Mapping[Any, Any]], own: Relabelled, judged: Sequence[int]) -> Sequence[MeaningDecision]:
    """The rule for rows of `units.parquet`, set against each other anew."""
    return decide_meaning([Alike.of_row(row) for row in rows], own, judged=judged)


class _Combined:
    """Makes vectors of texts by chance; units with the same draws, one after the other, share them."""

    def __init__(self, space: Space, settings: MeaningSettings) -> None:
        self.space, self.settings = space, settings
        self.last: tuple[torch.Tensor, ndarray, ndarray] | None = None

    def __call__(
        self, ids: Int[torch.Tensor, "draws restarts tokens"]
    ) -> tuple[Float[ndarray, "draws restarts dims"], Float[ndarray, "combined restarts dims"]]:
        if self.last is None or not (self.last[0].shape == ids.shape and torch.equal(self.last[0], ids)):
            pool = self.space.sequences(ids)
            self.last = ids, pool, combinations_of(pool, draws=self.settings.draws, seed=self.settings.seed)
        return self.last[1:]


def meaning_numbers(one: Meaning) -> dict[str, Any]:
    """The columns of a table of units on how alike a unit's texts are."""
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
def vocabulary(subject: Subject) -> list[str]:
    """The whole words of the subject's vocabulary; none where they are too few to make themes of."""
    words = [text for _, text in whole_words(subject)]
    return words if len(words) >= LEAST_WORDS else []


def _tokens(subject: Subject) -> list[int]:
    """The tokens of these words."""
    return [token for token, _ in whole_words(subject)]


@dataclass(frozen=True)
class _InText:
    """What words of the vocabulary, drawn beforehand, give in windows of real text; read once for all units."""

    asked: Asked
    """What is asked, and of which subject."""
    units: Sequence[Target]
    """The units that are read."""

    @cached_property
    def words(self) -> Int[ndarray, " words"]:
        """The numbers of these words in the vocabulary; none without windows of text."""
        settings, count = self.asked.settings, len(vocabulary(self.asked.subject))
        drawn = np.random.default_rng([settings.seed, *b"words"]).permutation(count)
        return np.sort(drawn[: settings.words if self.asked.text else 0])

    @cached_property
    def activation(self) -> Float[ndarray, "words units"]:
        """The activation of every unit at each word alone, the mean over the windows that it stands behind."""
        asked, tokens = self.asked, _tokens(self.asked.subject)
        if asked.text is None:
            return np.empty((0, len(self.units)))
        return kept_activations(
            asked.subject,
            replace(asked.objective, context=asked.text),
            self.units,
            lambda: torch.tensor([[tokens[word]] for word in self.words]),
            rows=len(self.words),
            made_of=["words", asked.settings.words, asked.settings.seed],
            cache=asked.cache,
            title="activations of words in text",
        )


def _about(
    columns: dict[str, Any],
    in_text: _InText,
    space: Space,
    unit: Target,
    ids: Int[torch.Tensor, "restarts tokens"],
    texts: Float[ndarray, "restarts dims"],
    chance: Float[ndarray, "draws restarts dims"],
    others: Mapping[Target, ndarray],
    random_ids: Int[torch.Tensor, "sequences tokens"],
) -> list[pd.DataFrame]:
    """A unit's theme: its words, and its tokens; whether it holds for what it was not made of goes into its columns."""
    words, seed = vocabulary(space.subject), in_text.asked.settings.seed
    if not words:
        return []
    vectors = space.words
    found = theme(texts, chance, vectors)
    half = len(texts) // 2
    tried = np.stack([texts[half:], *(one[half:] for one in others.values() if len(one) == len(texts))])
    kept = held_out(texts[:half], tried, seed=seed)
    columns |= theme_columns(found, words)
    numbers: dict[str, float] = {"theme_held_out": kept.observed}
    numbers |= kept.claim_columns("theme_held_out", ALPHA)
    numbers |= _raised(in_text, unit, texts[:half], chance[:, :half], vectors)
    columns |= _floats(numbers)
    listed = _held(space, ids, random_ids, near_from(vectors, seed=seed))
    return [addressed(theme_rows(found, words, listed), [unit])]


def theme_columns(found: Theme, words: Sequence[str]) -> dict[str, Any]:
    """The words of a theme that are nearer than chance, and their number."""
    named = [str(words[number]).strip() for number in found.nearest if found.p[number] <= ALPHA]
    return {"theme": ", ".join(named), "theme_words": float((found.p <= ALPHA).sum())}


def _raised(
    in_text: _InText,
    unit: Target,
    texts: Float[ndarray, "half dims"],
    chance: Float[ndarray, "draws half dims"],
    words: Float[ndarray, "words dims"],
) -> dict[str, float]:
    """Whether words of a theme of half of the restarts raise the unit in real text, beside random themes.

    Only words that are drawn beforehand are read, and the theme and the random themes are made of these alone.
    """
    if not len(in_text.words):
        return {"theme_raises": nan, **against(nan, []).claim_columns("theme_raises", ALPHA)}
    activation = in_text.activation[:, in_text.units.index(unit)]
    found = theme(texts, chance, words[in_text.words])
    side = "greater" if in_text.asked.objective.sign == "maximize" else "less"
    raised = raised_by(activation, found.nearest, found.drawn, alternative=side)
    return {"theme_raises": raised.observed, **raised.claim_columns("theme_raises", ALPHA)}


def _held(space: Space, ids: torch.Tensor, random_ids: torch.Tensor, near: float) -> list[Held]:
    """Tokens of restarts by the number of restarts that hold them or a near neighbour."""
    names = [[space.subject.token(token) for token in row] for row in ids.tolist()]
    both = torch.cat([ids, random_ids[:CENTRE]])
    unique, place = both.unique(return_inverse=True)
    raw = space.embed([space.subject.token(token) for token in unique.tolist()]).vectors
    vectors = centred(raw, raw.mean(0))[place.numpy()]
    return held(names, vectors[: len(ids)], vectors[len(ids) :], near=near)[:HELD]


def theme_rows(found: Theme, words: Sequence[str], listed: Sequence[Held]) -> pd.DataFrame:
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
