"""What restarts are about, in words: words nearer to their common centre than chance, and predictions from these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from actmax.evidence.nulls import Null, against
from actmax.evidence.own import EXACT, LEAST, all_picks

WORDS = 20
"""Number of words of a theme, claimed or not: what is shown, and what predictions are made from."""
NEIGHBOUR_RANK = 0.999
"""A word's near neighbours are as near as the nearest thousandth of other words is, on average."""
BLOCK = 512
"""Words that are scored at once."""


@dataclass(frozen=True)
class Theme:
    """How near every word of a vocabulary is to the common centre of some restarts, beside chance."""

    similarity: Float[ndarray, " words"]
    """Mean cosine of a word to the restarts' texts."""
    chance: Float[ndarray, " words"]
    """Mean score of each word over texts drawn by chance."""
    z: Float[ndarray, " words"]
    """The difference in standard deviations of texts by chance."""
    p: Float[ndarray, " words"]
    """p of a word, corrected for looking at the whole vocabulary."""
    nearest: Int[ndarray, " top"]
    """The words with the largest z, largest first."""
    drawn: Int[ndarray, "draws top"]
    """The same of each draw of texts by chance: as many random themes."""


def theme(
    texts: Float[ndarray, "restarts dims"],
    by_chance: Float[ndarray, "draws restarts dims"],
    words: Float[ndarray, "words dims"],
    *,
    top: int = WORDS,
) -> Theme:
    """Which words of a vocabulary are nearer to what restarts have in common than chance.

    Null hypothesis: that of the texts by chance. A word's score is its mean cosine to the restarts' texts; how large
    that is by chance differs from word to word, so it counts in standard deviations over the draws, the restarts' own
    score being one of them (so that all are exchangeable). p of a word is the share of draws whose *largest* z over the
    whole vocabulary is at least as large: with nothing there, any word is claimed in a share α of jobs at most.
    References: Westfall & Young 1993, Resampling-Based Multiple Testing, section 2.3 (single-step max T); Phipson &
    Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9:39 (the +1).

    Args:
        texts: vectors of the restarts' texts, centred, of length 1.
        by_chance: the same of texts that they could have ended at by chance.
        words: vectors of the words of a vocabulary, centred, of length 1.
        top: number of nearest words to keep.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> words = rng.normal(size=(300, 20))
        >>> words /= np.linalg.norm(words, axis=1, keepdims=True)
        >>> found = theme(words[[3, 3, 3, 3]], words[rng.integers(0, 300, (99, 4))], words, top=2)
        >>> int(found.nearest[0]), float(found.p[3]), bool(np.median(found.p) > 0.9)
        (3, 0.01, True)
    """
    centres = np.concatenate([texts.mean(0)[None], by_chance.mean(1)])
    similarity, chance, z = (np.empty(len(words)) for _ in range(3))
    largest = np.full(len(centres), -np.inf)
    best, at = np.empty((len(centres), 0)), np.empty((len(centres), 0), dtype=np.int64)
    for start in range(0, len(words), BLOCK):
        some = slice(start, min(start + BLOCK, len(words)))
        scores = centres @ words[some].T
        similarity[some], chance[some] = scores[0], scores[1:].mean(0)
        spread = scores.std(0)
        scores = np.divide(scores - scores.mean(0), spread, out=np.zeros_like(scores), where=spread > 0)
        z[some] = scores[0]
        largest = np.maximum(largest, scores.max(1))
        numbers = np.broadcast_to(np.arange(some.start, some.stop), scores.shape)
        best, at = _largest(np.hstack([best, scores]), np.hstack([at, numbers]), top)
    p = (_at_least(largest[1:], z) + 1) / len(centres)
    return Theme(similarity, chance, z, p, at[0], at[1:])


def _at_least(drawn: Float[ndarray, " draws"], z: Float[ndarray, " words"]) -> Int[ndarray, " words"]:
    """How many draws are at least as large as each z, rounding aside."""
    return len(drawn) - np.searchsorted(np.sort(drawn), z - 1e-9, side="left")


def _largest(values: ndarray, numbers: ndarray, top: int) -> tuple[ndarray, ndarray]:
    """The largest values of each row, largest first, with their numbers."""
    some = np.sort(np.argpartition(-values, min(top, values.shape[1]) - 1, axis=1)[:, :top], axis=1)
    order = np.argsort(-np.take_along_axis(values, some, 1), axis=1, kind="stable")
    order = np.take_along_axis(some, order, 1)
    return np.take_along_axis(values, order, 1), np.take_along_axis(numbers, order, 1)


def held_out(
    theme_texts: Float[ndarray, "some dims"], tried: Float[ndarray, "units restarts dims"], *, seed: int = 0
) -> Null:
    """Whether restarts that a theme was not made of are nearer to it than other units' restarts.

    Null hypothesis: within each seed, which unit a restart belongs to says nothing about how near it is to the theme.
    Statistic: mean cosine of the unit's held-out restarts to the mean vector of those that make the theme. Units are
    permuted within seeds: all ways to pick a unit per seed are taken up to `EXACT`, else as many as `LEAST`.

    Args:
        theme_texts: vectors of the restarts that make the theme.
        tried: vectors of the held-out restarts of every unit, by seed; those of the theme's own unit first.
        seed: seed of the picks where not all are taken.
    """
    units, seeds = tried.shape[:2]
    if units < 2 or seeds < 1 or len(theme_texts) < 1:
        return against(nan, [], alternative="greater")
    centre = theme_texts.mean(0)
    length = np.linalg.norm(centre)
    near = tried @ centre / length if length > 0 else np.zeros((units, seeds))
    if units**seeds <= EXACT:
        picks = all_picks(units, seeds)[1:]  # the first is the unit's own
    else:
        picks = np.random.default_rng([seed, *b"held out"]).integers(0, units, (LEAST, seeds))
    return against(near[0].mean(), near[picks, np.arange(seeds)].mean(1), alternative="greater")


def raised_by(
    activation: Float[ndarray, " words"],
    nearest: Int[ndarray, " top"],
    drawn: Int[ndarray, "draws top"],
    *,
    alternative: Literal["greater", "less"] = "greater",
) -> Null:
    """Whether the words of a theme raise a unit in real text more than those of random themes.

    Null hypothesis: that of the texts by chance, which random themes are made of in the same way, so that near words
    stand together in them as well. The statistic is the mean activation of a theme's words.

    Args:
        activation: what each word gives in real text.
        nearest: words of the theme.
        drawn: words of random themes.
        alternative: the side of the objective.
    """
    return against(activation[nearest].mean(), activation[drawn].mean(1), alternative=alternative)


@dataclass(frozen=True)
class Held:
    """In how many restarts a token, or a near neighbour of it, stands."""

    token: str
    """Text of the token that is counted."""
    same: int
    """Number of restarts that hold the token itself."""
    near: int
    """Number of restarts that hold it or a near neighbour."""
    chance: float
    """Number of restarts that would by chance, where one of them is the restart that the token was found in."""


def held(
    tokens: Sequence[Sequence[str]],
    vectors: Float[ndarray, "restarts tokens dims"],
    by_chance: Float[ndarray, "sequences tokens dims"],
    *,
    near: float,
) -> list[Held]:
    """The tokens of restarts by the number of restarts that hold them or a near neighbour, most first.

    Args:
        tokens: the tokens of each restart.
        vectors: vectors of these tokens, centred, of length 1.
        by_chance: the same of sequences that restarts could have ended at by chance.
        near: cosine from which on two tokens are near neighbours.
    """
    found: dict[str, Held] = {}
    for row, some in enumerate(tokens):
        for place, token in enumerate(some):
            if token in found or not vectors[row, place].any():
                continue
            same = [token in other for other in tokens]
            close = (vectors @ vectors[row, place] >= near).any(1)
            random = (by_chance @ vectors[row, place] >= near).any(1).mean()
            expected = 1 + (len(tokens) - 1) * float(random)
            found[token] = Held(token, sum(same), int((close | np.array(same)).sum()), expected)
    return sorted(found.values(), key=lambda one: (-one.near, -one.same))


def near_from(words: Float[ndarray, "words dims"], *, seed: int = 0, tried: int = 500) -> float:
    """The cosine from which on two words are near neighbours: `NEIGHBOUR_RANK` of those between random words.

    Args:
        words: vectors of a vocabulary's words, centred, of length 1.
        seed: seed of the choice of words.
        tried: number of words whose cosines to all others are taken.
    """
    some = np.random.default_rng([seed, *b"near"]).choice(len(words), min(tried, len(words)), replace=False)
    cosines = words[some] @ words.T
    cosines[np.arange(len(some)), some] = -1.0
    return float(np.quantile(cosines, NEIGHBOUR_RANK, overwrite_input=True))
