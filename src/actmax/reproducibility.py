"""How often the same tokens come back, and how often they would by chance: counts, nulls, one sentence.

Every null is a sample of the statistic where nothing was found; a p is two-sided, 2 min(k_low, k_high) with
k = (number of draws at least as extreme + 1) / (draws + 1) on each side (Davison & Hinkley 1997, section 4.2.3; North,
Curtis & Sham 2002, Am J Hum Genet 71:439), so that it is never 0 and never below 2/(draws+1).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from actmax.decoding import BLOCK, Decoder

POOL_VERSION = 1
"""Of how a pool's vectors are drawn and decoded: a cached pool of another version is not read."""
LEVEL = 0.95
"""Of every interval of a null."""


@dataclass(frozen=True)
class Null:
    """A statistic beside what it would be if nothing had been found."""

    observed: float
    """The statistic itself."""
    mean: float
    """Mean of the null."""
    low: float
    """2.5 % quantile of the null: the smallest value that at least 2.5 % of it reach."""
    high: float
    """97.5 % quantile of the null."""
    p: float
    """Two-sided p of the observed value."""
    draws: int
    """How many draws the null has; 0 where it is exact."""

    @property
    def side(self) -> str:
        """`below`, `within` or `above`: where the observed value lies to the null's 95 % interval."""
        if self.observed < self.low:
            return "below"
        return "above" if self.observed > self.high else "within"


def against(observed: float | int, draws: NDArray[np.float64]) -> Null:
    """Sets an observed value beside draws of its null.

    Args:
        observed: the statistic.
        draws: the same statistic where nothing was found, one per draw.
    """
    size = len(draws)
    as_low, as_high = (np.sum(draws <= observed) + 1) / (size + 1), (np.sum(draws >= observed) + 1) / (size + 1)
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="inverted_cdf")
    p = min(1.0, 2 * float(min(as_low, as_high)))
    return Null(float(observed), float(np.mean(draws)), float(low), float(high), p, size)


def uniform_unique(observed: int, drawn: int, vocabulary: int) -> Null:
    """The exact null of the number of unique tokens among tokens drawn uniformly: the occupancy distribution.

    After m draws with u unique, the next is new with probability (V - u) / V (Feller 1968, volume 1, section IV.2).
    """
    mass = np.zeros(drawn + 1)
    mass[0] = 1.0
    new = 1 - np.arange(drawn + 1) / vocabulary
    for _ in range(drawn):
        mass[1:] = mass[1:] * (1 - new[1:]) + mass[:-1] * new[:-1]
        mass[0] = 0.0
    below = np.cumsum(mass)
    low, high = (int(np.searchsorted(below, share)) for share in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    tails = below[observed], mass[observed:].sum()
    mean = vocabulary * -np.expm1(drawn * np.log1p(-1 / vocabulary))
    return Null(float(observed), float(mean), float(low), float(high), min(1.0, 2 * float(min(tails))), 0)


@dataclass(frozen=True)
class Pool:
    """Decoded random directions: what the decoder makes of vectors in which nothing was found."""

    ids: Int[Tensor, " size"]
    """The nearest token of each."""
    cosines: Float[Tensor, " size"]
    """Its cosine."""

    def samples(self, size: int, *, draws: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Unique tokens and mean cosine of samples of `size` vectors, each drawn without replacement.

        Returns:
            Two arrays of length `draws`.
        """
        if size > len(self.ids):
            raise ValueError(f"a sample of {size} cannot be drawn from a pool of {len(self.ids)}")
        generator = np.random.default_rng(seed)
        ids, cosines = self.ids.numpy(), self.cosines.double().numpy()
        picks = (generator.choice(len(ids), size, replace=False, shuffle=False) for _ in range(draws))
        pairs = [(len(np.unique(ids[pick])), cosines[pick].mean()) for pick in picks]
        unique, cosine = np.asarray(pairs, dtype=np.float64).T
        return unique, cosine


def random_pool(
    decoder: Decoder,
    *,
    size: int,
    seed: int,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Pool:
    """Decodes `size` random directions (isotropic: a Gaussian vector's direction is uniform on the sphere), once.

    Args:
        decoder: of the subject.
        size: how many vectors.
        seed: of the vectors.
        cache: a file to keep them in; its name must name the weights, the size and the seed.
        progress: called with (done, size).
    """
    if cache is None:
        return _decode_pool(decoder, size, seed, progress)
    cache.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{cache}.lock"):
        found = _read_pool(cache, size)
        if found is not None:
            return found
        pool = _decode_pool(decoder, size, seed, progress)
        partial = cache.with_suffix(".part")
        with partial.open("wb") as stream:
            np.savez(stream, ids=pool.ids.numpy(), cosines=pool.cosines.numpy())
        partial.replace(cache)
    return pool


def _read_pool(cache: Path, size: int) -> Pool | None:
    """The cached pool, or None where there is none or it is damaged (then it is made anew)."""
    try:
        with cache.open("rb") as stream, np.load(stream, allow_pickle=False) as held:
            pool = Pool(torch.from_numpy(held["ids"]), torch.from_numpy(held["cosines"]))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None
    return pool if len(pool.ids) == len(pool.cosines) == size else None


def _generator(seed: int, purpose: str) -> torch.Generator:
    """A stream of its own: a null that shared its seed with a restart would draw that restart's noise again."""
    state = np.random.SeedSequence([seed, *purpose.encode()]).generate_state(1, np.uint64)
    return torch.Generator("cpu").manual_seed(int(state[0] >> np.uint64(1)))


def _decode_pool(decoder: Decoder, size: int, seed: int, progress: Callable[[int, int], None] | None) -> Pool:
    generator = _generator(seed, "pool")
    ids, cosines, done = [], [], 0
    while done < size:
        vectors = torch.randn(min(2048, size - done), decoder.d_model, generator=generator)
        decoded = decoder(vectors)
        ids.append(decoded.best)
        cosines.append(decoded.best_cosine)
        done += len(vectors)
        if progress is not None:
            progress(done, size)
    return Pool(torch.cat(ids), torch.cat(cosines))


@dataclass(frozen=True)
class Displaced:
    """What decoding gives when the initial noise is moved in random directions, as far as the optimizer moved it."""

    retention: NDArray[np.float64]
    """Share of positions that keep the token of their initial noise, one per draw."""
    cosine: NDArray[np.float64]
    """Mean best cosine, one per draw."""
    unique: NDArray[np.float64]
    """Unique tokens, one per draw."""


def displace(
    decoder: Decoder,
    initial: Float[Tensor, "restarts tokens d_model"],
    final: Float[Tensor, "restarts tokens d_model"],
    *,
    draws: int,
    seed: int,
) -> Displaced:
    """Draws from the null of random displacements: each position keeps the length of its own move, not the direction.

    Args:
        decoder: of the subject.
        initial: where the restarts of one unit started.
        final: where they ended.
        draws: how many.
        seed: of the directions.
    """
    generator = _generator(seed, "displacement")
    start = initial.detach().float().cpu().reshape(-1, decoder.d_model)
    length = (final.detach().float().cpu().reshape_as(start) - start).norm(dim=1, keepdim=True)
    kept = decoder(start).best
    together = max(1, BLOCK // (decoder.vocabulary * len(start)))
    rows: list[tuple[float, float, int]] = []
    while len(rows) < draws:
        group = range(min(together, draws - len(rows)))
        noise = torch.stack([torch.randn(start.shape, generator=generator) for _ in group])
        decoded = decoder(start + length * normalize(noise, dim=-1))
        rows += [
            ((ids == kept).double().mean().item(), cosines.double().mean().item(), len(ids.unique()))
            for ids, cosines in zip(decoded.best, decoded.best_cosine, strict=True)
        ]
    retention, cosine, unique = np.asarray(rows, dtype=np.float64).T
    return Displaced(retention, cosine, unique)


@dataclass(frozen=True)
class Measures:
    """The headline numbers of one unit, each beside its null.

    Cosine, uniqueness and retention of the restarts as they ended. A restart is a replicate; positions of one restart
    are not, so the nulls are drawn for the whole set of restarts x tokens at once.
    """

    restarts: int
    """How many restarts."""
    restarts_frozen: int
    """How many of them went non-finite and were held at their best finite embedding."""
    tokens_total: int
    """Restarts x tokens."""
    tokens_unique: int
    """Different tokens among them."""
    tokens_repeated: list[tuple[str, int]]
    """Tokens that occur more than once, with their counts, most frequent first."""
    init_retention: float
    """Share of positions that still decode to the token of their initial noise."""
    cosine_mean: float
    """Mean cosine to the nearest token."""
    init_cosine_mean: float
    """The same for the initial noise."""
    displacement_mean: float
    """Mean over positions of |final - initial| / |initial|."""
    activation_initial_mean: float
    """Mean activation over restarts before the first step."""
    activation_final_mean: float
    """Mean activation over restarts after the last."""
    activation_final_sd: float
    """Its standard deviation over restarts (NaN for one)."""
    unique: Null
    """Unique tokens against decoded random vectors."""
    cosine: Null
    """Mean cosine against decoded random vectors."""
    retention: Null
    """Retention against random displacements of the same length."""
    displaced_cosine: Null
    """Mean cosine against random displacements."""
    displaced_unique: Null
    """Unique tokens against random displacements."""
    uniform: Null
    """Unique tokens against tokens drawn uniformly from the vocabulary (exact)."""

    def flat(self) -> dict[str, float | int | list[tuple[str, int]]]:
        """One level of names: the null of `unique` becomes `null_unique_mean`, `_low`, `_high` and `_p`, and so on."""
        numbers = {name: value for name, value in asdict(self).items() if not isinstance(value, dict)}
        for name in ("unique", "cosine", "retention", "displaced_cosine", "displaced_unique", "uniform"):
            null = getattr(self, name)
            numbers |= {f"null_{name}_{part}": getattr(null, part) for part in ("mean", "low", "high", "p")}
        return numbers


@dataclass(frozen=True)
class Restarts:
    """The restarts of one unit, before and after."""

    initial: Float[Tensor, "restarts tokens d_model"]
    """Embeddings before the first step."""
    final: Float[Tensor, "restarts tokens d_model"]
    """Embeddings after the last."""
    activation_initial: Float[Tensor, " restarts"]
    """Activations before."""
    activation_final: Float[Tensor, " restarts"]
    """Activations after."""
    frozen: Bool[Tensor, " restarts"]
    """Which went non-finite on the way."""


@dataclass(frozen=True)
class NullSettings:
    """How large the nulls are, and their seed."""

    pool: int = 50_000
    """Decoded random vectors."""
    draws: int = 1_000
    """Samples from that pool."""
    displacements: int = 100
    """Random displacements."""
    seed: int = 0
    """Of all of them."""


def measure(
    restarts: Restarts,
    decoder: Decoder,
    pool: Pool,
    *,
    settings: NullSettings,
    name: Callable[[int], str] = str,
) -> Measures:
    """The headline numbers of one unit, each beside its null.

    Args:
        restarts: of the unit.
        decoder: of the subject.
        pool: decoded random vectors of the subject.
        settings: sizes and seed of the nulls.
        name: a token id in, its text out.
    """
    before, after = decoder(restarts.initial), decoder(restarts.final)
    ids, total = after.best.flatten(), after.best.numel()
    retention = (after.best == before.best).double().mean().item()
    cosine = after.best_cosine.double().mean().item()
    unique = len(ids.unique())
    pool_unique, pool_cosine = pool.samples(total, draws=settings.draws, seed=settings.seed)
    moved = displace(decoder, restarts.initial, restarts.final, draws=settings.displacements, seed=settings.seed)
    length = (restarts.final - restarts.initial).double().norm(dim=-1) / restarts.initial.double().norm(dim=-1)
    return Measures(
        restarts=len(restarts.final),
        restarts_frozen=int(restarts.frozen.sum()),
        tokens_total=total,
        tokens_unique=unique,
        tokens_repeated=repeated(ids.tolist(), name),
        init_retention=retention,
        cosine_mean=cosine,
        init_cosine_mean=before.best_cosine.double().mean().item(),
        displacement_mean=length.mean().item(),
        activation_initial_mean=restarts.activation_initial.double().mean().item(),
        activation_final_mean=restarts.activation_final.double().mean().item(),
        activation_final_sd=_deviation(restarts.activation_final),
        unique=against(unique, pool_unique),
        cosine=against(cosine, pool_cosine),
        retention=against(retention, moved.retention),
        displaced_cosine=against(cosine, moved.cosine),
        displaced_unique=against(unique, moved.unique),
        uniform=uniform_unique(unique, total, decoder.vocabulary),
    )


def _deviation(values: Tensor) -> float:
    return values.double().std().item() if len(values) > 1 else float("nan")


def repeated(ids: Sequence[int], name: Callable[[int], str] = str) -> list[tuple[str, int]]:
    """The tokens that occur more than once, with their counts, most frequent first.

    Example:
        >>> repeated([3, 1, 3, 2, 1, 3])
        [('3', 3), ('1', 2)]
    """
    return [(name(token), count) for token, count in Counter(ids).most_common() if count > 1]


def verdict(measures: Measures) -> str:
    """What the numbers say, in plain words, with null results said as clearly as positive ones."""
    return " ".join([_rise(measures), _decoded(measures), _start(measures)])


def _p(null: Null) -> str:
    floor = 2 / (null.draws + 1) if null.draws else 0.0
    return f"p = {null.p:.2g}" + (", the smallest it can be" if null.draws and null.p <= floor * 1.0001 else "")


def _rise(measures: Measures) -> str:
    change = f"from {measures.activation_initial_mean:.4g} to {measures.activation_final_mean:.4g}"
    sentence = f"The mean activation over {measures.restarts} restart{'s'[: measures.restarts > 1]} went {change}."
    if measures.restarts_frozen:
        sentence += f" {measures.restarts_frozen} went non-finite and stand at their best finite embedding."
    return sentence


def _decoded(measures: Measures) -> str:
    unique, cosine = measures.unique, measures.cosine
    facts = (
        f"{measures.tokens_unique} of {measures.tokens_total} decoded tokens are unique (decoded random vectors: "
        f"{unique.mean:.1f}, 95 %: {unique.low:.0f} to {unique.high:.0f}, {_p(unique)}) and their mean cosine is "
        f"{cosine.observed:.4f} (random: {cosine.mean:.4f}, 95 %: {cosine.low:.4f} to {cosine.high:.4f}, {_p(cosine)})"
    )
    if unique.side != "below" and cosine.side != "above":
        return f"Null result: {facts}, so tokens repeat no more and lie no nearer than decoded noise."
    found = [text for text, yes in _findings(measures).items() if yes]
    return f"Beyond chance: {facts}: {' and '.join(found)}."


def _findings(measures: Measures) -> dict[str, bool]:
    return {
        "tokens repeat more than in decoded noise": measures.unique.side == "below",
        "they lie nearer to real tokens than decoded noise": measures.cosine.side == "above",
    }


def _start(measures: Measures) -> str:
    null = measures.retention
    facts = (
        f"{measures.init_retention:.0%} of the positions still decode to the token of their initial noise, where "
        f"random moves of the same length leave {null.mean:.0%} (95 %: {null.low:.0%} to {null.high:.0%}, {_p(null)})"
    )
    meaning = {
        "above": "the result holds more of its start than a random move would leave",
        "within": "no more and no less of the start than a random move leaves",
        "below": "the optimizer leaves its start more thoroughly than a random move",
    }
    return f"Initialization: {facts}: {meaning[null.side]}."


class UniqueTokens(Metric):
    """Unique decoded tokens per unit, running: accumulates over batches and ranks, mean over units."""

    full_state_update = False
    pairs: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("pairs", default=[], dist_reduce_fx="cat")

    def update(self, units: Int[Tensor, " restarts"], ids: Int[Tensor, "restarts tokens"]) -> None:
        """Takes the decoded tokens of some restarts, with the number of the unit of each."""
        pairs = torch.stack([units[:, None].expand_as(ids).flatten(), ids.flatten()], dim=1)
        self.pairs.append(pairs)

    def compute(self) -> Tensor:
        """Unique tokens per unit, averaged over units."""
        pairs = dim_zero_cat(self.pairs).unique(dim=0)
        return torch.tensor(len(pairs) / len(pairs[:, 0].unique()))


class InitRetention(Metric):
    """Share of positions that still decode to the token of their initial noise, running."""

    full_state_update = False
    kept: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("kept", default=torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, ids: Int[Tensor, "restarts tokens"], initial_ids: Int[Tensor, "restarts tokens"]) -> None:
        """Takes the decoded tokens of some restarts and those of their initial noise."""
        self.kept += (ids == initial_ids).sum()
        self.total += ids.numel()

    def compute(self) -> Tensor:
        """The share."""
        return self.kept / self.total
