"""Nulls: what a statistic is where nothing was found, and an observed value beside it.

A p counts draws: k = (number of draws at least as extreme + 1) / (draws + 1) (Davison & Hinkley 1997, section 4.2.3;
North, Curtis & Sham 2002, Am J Hum Genet 71:439), so that it is never 0. Two-sided it is 2 min(k_low, k_high), where
both sides mean something; one-sided it is k of the side that was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import nan
from pathlib import Path
from typing import TypeAlias
from zipfile import BadZipFile

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from actmax.evidence.coverage import incidence_counts, rarefactions
from actmax.evidence.estimates import LEVEL, ROUNDING
from actmax.evidence.pairs import Alternative, embedding_values, token_values
from actmax.evidence.readings import Reading, read
from actmax.model.nearest import BLOCK, NearestTokens
from actmax.seeds import stream

RANDOM_MOVES, RANDOM_TOKENS, RANDOM_TEXT = "random moves", "random tokens", "random text"
"""Names of the nulls of where restarts end."""
POOL_VERSION = 1
"""Version of how a pool's vectors are drawn and decoded: a cached pool of another version is not read."""


@dataclass(frozen=True)
class Null:
    """A statistic beside what it would be if nothing had been found."""

    observed: float
    """The statistic as it was found."""
    mean: float
    """Mean of the null."""
    low: float
    """2.5 % quantile of the null: the smallest value that at least 2.5 % of it reach."""
    high: float
    """97.5 % quantile of the null."""
    p: float
    """p of the observed value, on the side of `alternative`; NaN where the statistic does not exist."""
    draws: int
    """Number of draws of the null; 0 where it is exact."""
    alternative: Alternative = "two-sided"
    """`two-sided`, `greater` or `less`: on which side the observed value was looked for."""

    @property
    def reading(self) -> Reading:
        """Where the observed value lies to the null's 95 % interval."""
        return read(self.observed, self.low, self.high)

    def columns(self, name: str) -> dict[str, float]:
        """The null's numbers by the column names of a statistic: `null_NAME_mean`, `_low`, `_high` and `_p`."""
        return {f"null_{name}_{part}": getattr(self, part) for part in ("mean", "low", "high", "p")}


def against(observed: float | int, draws: NDArray[np.float64], *, alternative: Alternative = "two-sided") -> Null:
    """Sets an observed value beside draws of its null.

    Draws that differ from the observed value by rounding count as equal to it, and so as at least as extreme.

    Args:
        observed: the statistic as it was found.
        draws: the same statistic where nothing was found, one per draw.
        alternative: the side that p counts; the interval has both sides always.
    """
    size = len(draws)
    if not np.isfinite(observed):
        return Null(float(observed), nan, nan, nan, nan, size, alternative)
    slack = ROUNDING * max(1.0, abs(observed))
    # the +1 counts the observed value itself: under the null it is one more draw, so that p is valid and never 0
    as_low, as_high = (np.sum(draws <= observed + slack) + 1), (np.sum(draws >= observed - slack) + 1)
    counted = {"less": as_low, "greater": as_high, "two-sided": 2 * min(as_low, as_high)}[alternative]
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="inverted_cdf")
    p = min(1.0, float(counted / (size + 1)))
    return Null(float(observed), float(np.mean(draws)), float(low), float(high), p, size, alternative)


def uniform_unique(observed: int, drawn: int, vocabulary: int) -> Null:
    """The exact null of the number of unique tokens among tokens drawn uniformly: the occupancy distribution.

    After m draws with u unique, the next is new with probability (V - u) / V (Feller 1968, volume 1, section IV.2).
    """
    # mass[u] is the probability of u unique tokens after the draws so far
    mass = np.zeros(drawn + 1)
    mass[0] = 1.0
    new = 1 - np.arange(drawn + 1) / vocabulary
    for _ in range(drawn):
        mass[1:] = mass[1:] * (1 - new[1:]) + mass[:-1] * new[:-1]
        mass[0] = 0.0
    below = np.cumsum(mass)
    low, high = (int(np.searchsorted(below, share)) for share in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    tails = below[observed], mass[observed:].sum()
    # a token is missed by all m draws with probability (1 - 1/V)^m, so the mean is V (1 - (1 - 1/V)^m)
    mean = vocabulary * -np.expm1(drawn * np.log1p(-1 / vocabulary))
    return Null(float(observed), float(mean), float(low), float(high), min(1.0, 2 * float(min(tails))), 0)


@dataclass(frozen=True, eq=False)  # two pools are the same if they are one object: their samples are kept
class Pool:
    """The nearest tokens of random directions: of vectors in which nothing was found."""

    ids: Int[Tensor, " size"]
    """The nearest token of each vector."""
    cosines: Float[Tensor, " size"]
    """Cosine of each vector to its nearest token."""

    def samples(self, size: int, *, draws: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Unique tokens and mean cosine of samples of `size` vectors, each drawn without replacement.

        Returns:
            Two arrays of length `draws`.
        """
        if size > len(self.ids):
            raise ValueError(f"a sample of {size} cannot be drawn from a pool of {len(self.ids)}")
        return _samples(self, size, draws, seed)


@lru_cache(maxsize=8)
def _samples(pool: Pool, size: int, draws: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The samples of `Pool.samples`, kept because units and jobs of one size draw the same."""
    generator = np.random.default_rng(seed)
    ids, cosines = pool.ids.numpy(), pool.cosines.double().numpy()
    picks = (generator.choice(len(ids), size, replace=False, shuffle=False) for _ in range(draws))
    pairs = [(len(np.unique(ids[pick])), cosines[pick].mean()) for pick in picks]
    unique, cosine = np.asarray(pairs, dtype=np.float64).T
    return unique, cosine


def random_pool(
    nearest: NearestTokens,
    *,
    size: int,
    seed: int,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Pool:
    """Decodes `size` random directions (isotropic: a Gaussian vector's direction is uniform on the sphere), once.

    Args:
        nearest: the nearest tokens of the subject.
        size: number of vectors.
        seed: seed of the vectors.
        cache: a file to keep the pool in; its name must name the weights, the size and the seed.
        progress: called with (done, size).
    """
    if cache is None:
        return _decode_pool(nearest, size, seed, progress)
    cache.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{cache}.lock"):
        found = _read_pool(cache, size)
        if found is not None:
            return found
        pool = _decode_pool(nearest, size, seed, progress)
        partial = cache.with_suffix(".part")
        with partial.open("wb") as stream:
            np.savez(stream, ids=pool.ids.numpy(), cosines=pool.cosines.numpy())
        partial.replace(cache)
    return pool


def _read_pool(cache: Path, size: int) -> Pool | None:
    """The cached pool, or None where there is none or it is damaged (then it is made anew)."""
    try:
        return _held_pool(cache, size, cache.stat().st_mtime_ns)
    except FileNotFoundError:
        return None


@lru_cache(maxsize=4)
def _held_pool(cache: Path, size: int, changed: int) -> Pool | None:  # noqa: ARG001
    """The pool of a cache file, read once as long as the file does not change."""
    try:
        with cache.open("rb") as stream, np.load(stream, allow_pickle=False) as held:
            pool = Pool(torch.from_numpy(held["ids"]), torch.from_numpy(held["cosines"]))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None
    return pool if len(pool.ids) == len(pool.cosines) == size else None


def _decode_pool(nearest: NearestTokens, size: int, seed: int, progress: Callable[[int, int], None] | None) -> Pool:
    generator = stream(seed, "pool")
    ids, cosines, done = [], [], 0
    while done < size:
        vectors = torch.randn(min(2048, size - done), nearest.d_model, generator=generator)
        decoded = nearest(vectors)
        ids.append(decoded.best)
        cosines.append(decoded.best_cosine)
        done += len(vectors)
        if progress is not None:
            progress(done, size)
    return Pool(torch.cat(ids), torch.cat(cosines))


@dataclass(frozen=True)
class Restarts:
    """The restarts of one unit, before and after."""

    initial: Float[Tensor, "restarts tokens d_model"]
    """Embeddings before the first step."""
    final: Float[Tensor, "restarts tokens d_model"]
    """Embeddings after the last."""
    activation_initial: Float[Tensor, " restarts"]
    """Activation of each restart before the first step."""
    activation_final: Float[Tensor, " restarts"]
    """Activation of each restart after the last step."""
    frozen: Bool[Tensor, " restarts"]
    """Whether each restart went non-finite on the way."""


_Group: TypeAlias = tuple[Tensor, Tensor, dict[str, NDArray[np.float64]]]
"""What some draws come to: token ids, mean best cosine, and the agreement in embeddings."""


@dataclass(frozen=True)
class Displaced:
    """What decoding gives when the initial noise is moved in random directions, as far as the optimizer moved it."""

    retention: NDArray[np.float64]
    """Share of positions that keep the token of their initial noise, one per draw."""
    cosine: NDArray[np.float64]
    """Mean best cosine, one per draw."""
    unique: NDArray[np.float64]
    """Unique tokens, one per draw."""
    agreement: dict[str, NDArray[np.float64]]
    """Every statistic of agreement (`TOKENS`, `EMBEDDINGS`), one per draw."""
    rarefaction: Float[NDArray[np.float64], "draws restarts"]
    """Expected unique tokens in h restarts, one curve per draw."""
    kind: str = RANDOM_MOVES
    """What was drawn, in words: `random moves` or `random tokens`."""


def displace(
    nearest: NearestTokens,
    initial: Float[Tensor, "restarts tokens d_model"],
    final: Float[Tensor, "restarts tokens d_model"],
    *,
    draws: int,
    seed: int,
) -> Displaced:
    """Draws from the null of random displacements: each position keeps the length of its own move, not the direction.

    Null hypothesis: the direction of every position's move is uniform on the sphere and independent of all others. The
    restarts keep their initial noise, so what agrees because of the start is in the null too.

    Args:
        nearest: the nearest tokens of the subject.
        initial: embeddings from which the restarts of one unit started.
        final: embeddings at which they ended.
        draws: number of draws.
        seed: seed of the directions.
    """
    (found,) = displace_together(nearest, initial, [final], draws=draws, seed=seed)
    return found


def displace_together(
    nearest: NearestTokens,
    initial: Float[Tensor, "restarts tokens d_model"],
    finals: Sequence[Float[Tensor, "restarts tokens d_model"]],
    *,
    draws: int,
    seed: int,
) -> list[Displaced]:
    """`displace` for units whose restarts started from the same noise: what decoding has in common is done once.

    Args:
        nearest: the nearest tokens of the subject.
        initial: embeddings from which the restarts of every unit started.
        finals: embeddings at which the restarts of each unit ended.
        draws: number of draws.
        seed: seed of the directions.
    """
    start = initial.detach().float().cpu()
    lengths = torch.stack([(final.detach().float().cpu() - start).norm(dim=-1) for final in finals])
    kept, flat = nearest(start).best, start.flatten(0, 1)
    groups: list[list[_Group]] = [[] for _ in finals]
    for noise in _directions(start.shape, draws=draws, seed=seed):
        ids, products = nearest.along(flat, noise.flatten(1, 2), lengths.flatten(1))
        for unit, (length, own, product) in enumerate(zip(lengths, ids, products, strict=True)):
            step = length[..., None] * noise
            moved = start + step
            cosine = product.view(moved.shape[:-1]) / moved.norm(dim=-1).clamp_min(torch.finfo().tiny)
            decoded = own.view(cosine.shape), cosine.double().mean((1, 2)), embedding_values(step, moved)
            groups[unit].append(decoded)
    return [_put_together(kept, group, RANDOM_MOVES) for group in groups]


def redraw(
    nearest: NearestTokens,
    initial: Float[Tensor, "restarts tokens d_model"],
    choices: Int[Tensor, "choices length"],
    *,
    embed: Callable[[Int[Tensor, "*shape"]], Float[Tensor, "*shape d_model"]],
    draws: int,
    seed: int,
    kind: str = RANDOM_TOKENS,
) -> Displaced:
    """Draws from the null of random tokens: each position ends at a token drawn uniformly, wherever it began.

    Null hypothesis: what a search over tokens ends with is independent of the unit: tokens drawn uniformly and
    independently; where it chose among sequences of a text, whole sequences of that text, whose common tokens
    restarts share whatever the unit is. The right null where restarts end at tokens: differences of token embeddings
    are no isotropic moves, so that under `displace` even random tokens would seem to agree.

    Args:
        nearest: the nearest tokens of the subject.
        initial: embeddings from which the restarts of one unit started.
        choices: the tokens that the search may use (length 1), or sequences as long as the restarts'.
        embed: gives tokens' embeddings.
        draws: number of draws.
        seed: seed of the tokens.
        kind: name of the null.
    """
    start = initial.detach().float().cpu()
    generator, shape = stream(seed, "random ends"), start.shape[:2]
    drawn = (shape[0], shape[1] // choices.shape[1])
    together = max(1, BLOCK // (nearest.vocabulary * shape.numel()))

    def steps() -> Iterator[Tensor]:
        for first in range(0, draws, together):
            group = range(min(together, draws - first))
            rows = torch.stack([torch.randint(len(choices), drawn, generator=generator) for _ in group])
            yield embed(choices[rows].flatten(-2)).detach().float().cpu() - start

    return _displaced(nearest, start, steps(), kind)


def _displaced(nearest: NearestTokens, start: Tensor, steps: Iterator[Tensor], kind: str) -> Displaced:
    """The statistics of some groups of displacements; each tensor of steps is (draws, restarts, tokens, d_model)."""
    groups = []
    for step in steps:
        moved = start + step
        decoded = nearest(moved)
        groups.append((decoded.best, decoded.best_cosine.double().mean((1, 2)), embedding_values(step, moved)))
    return _put_together(nearest(start).best, groups, kind)


def _put_together(kept: Tensor, groups: Sequence[_Group], kind: str) -> Displaced:
    parts, cosine, embeddings = zip(*groups, strict=True)
    ids = torch.cat(parts)
    counts = incidence_counts(ids)
    in_embeddings = {name: np.concatenate([one[name] for one in embeddings]) for name in embeddings[0]}
    return Displaced(
        retention=(ids == kept).double().mean((1, 2)).numpy(),
        cosine=torch.cat(cosine).numpy(),
        unique=counts.sum(axis=1).astype(np.float64),
        agreement=token_values(ids) | in_embeddings,
        rarefaction=rarefactions(counts),
        kind=kind,
    )


def _directions(shape: torch.Size, *, draws: int, seed: int) -> Iterator[Tensor]:
    """Random unit vectors for (restarts, tokens), some draws at a time; how many makes no difference to a draw."""
    generator = stream(seed, "displacement")
    together = max(1, BLOCK // shape.numel())
    for start in range(0, draws, together):
        group = range(min(together, draws - start))
        noise = torch.stack([torch.randn((shape[0] * shape[1], shape[2]), generator=generator) for _ in group])
        yield normalize(noise, dim=-1).reshape(-1, *shape)
