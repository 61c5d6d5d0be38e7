"""Nulls: what a statistic is where nothing was found, and an observed value beside it.

A p counts draws: k = (number of draws at least as extreme + 1) / (draws + 1) (Davison & Hinkley 1997, section 4.2.3;
North, Curtis & Sham 2002, Am J Hum Genet 71:439), so that it is never 0. Two-sided it is 2 min(k_low, k_high), where
both sides mean something; one-sided it is k of the side that was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from math import nan

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from actmax.evidence.coverage import incidence_counts, rarefactions
from actmax.evidence.estimates import ROUNDING
from actmax.evidence.pairs import Alternative, token_values
from actmax.evidence.readings import Reading, read
from actmax.evidence.settings import ALPHA, RANDOM_MOVES, RANDOM_TOKENS
from actmax.model.nearest import BLOCK, NearestTokens
from actmax.progress import DELAY, Bar
from actmax.seeds import stream


@dataclass(frozen=True, eq=False)
class Null:
    """A statistic beside its draws where nothing was found: p, interval and reading are all made of these draws."""

    observed: float
    """The statistic as it was found."""
    values: Float[NDArray[np.float64], " draws"]
    """The draws in ascending order; those that differ from the observed value by rounding alone are set to it."""
    alternative: Alternative = "two-sided"
    """`two-sided`, `greater` or `less`: on which side the observed value was looked for."""

    @property
    def draws(self) -> int:
        """Number of draws."""
        return len(self.values)

    @property
    def exists(self) -> bool:
        """Whether there is an observed value, and something to set it beside."""
        return bool(np.isfinite(self.observed)) and self.draws > 0 and bool(np.isfinite(self.values[[0, -1]]).all())

    @property
    def mean(self) -> float:
        """Mean of the draws; NaN where the statistic does not exist."""
        return float(self.values.mean()) if self.exists else nan

    @property
    def p(self) -> float:
        """P of the observed value, on the side of `alternative`; NaN where the statistic does not exist."""
        if not self.exists:
            return nan
        as_low = int(np.searchsorted(self.values, self.observed, "right"))
        as_high = self.draws - int(np.searchsorted(self.values, self.observed, "left"))
        count = {"less": as_low, "greater": as_high, "two-sided": min(as_low, as_high)}[self.alternative]
        return self._p_of(count + 1)  # the +1 counts the observed value: under the null it is one more draw

    def _p_of(self, count: int) -> float:
        sides = 2 if self.alternative == "two-sided" else 1
        return min(1.0, sides * count / (self.draws + 1))

    @property
    def smallest_p(self) -> float:
        """The smallest p that so many draws can give."""
        return self._p_of(1)

    def limits(self, alpha: float) -> tuple[float, float]:
        """The interval that the observed value lies outside of exactly where p ≤ alpha; NaN where there is no limit.

        Let m be the largest count whose p is at most alpha. p ≤ alpha, on the upper side, if at most m - 1 draws are as
        large as the observed value, that is if it is larger than the m-th largest draw: this order statistic is the
        limit. Likewise below. A one-sided test has one limit; where even the smallest p is larger than alpha, none.
        """
        if not self.exists or self.smallest_p > alpha:
            return nan, nan
        sides = 2 if self.alternative == "two-sided" else 1
        count = min(self.draws, int(alpha * (self.draws + 1) / sides) + 1)
        while self._p_of(count) > alpha:  # the quotient may round either way: the p that are compared decide
            count -= 1
        low, high = float(self.values[count - 1]), float(self.values[-count])
        return (nan if self.alternative == "greater" else low), (nan if self.alternative == "less" else high)

    def reading(self, alpha: float) -> Reading:
        """Where the observed value lies to the interval at a level."""
        return read(self.observed, *self.limits(alpha))

    def columns(self, name: str, alpha: float = ALPHA) -> dict[str, float]:
        """The null's numbers by column name: `null_NAME_mean`, `_low`, `_high` and `_p`; the interval at a level."""
        low, high = self.limits(alpha)
        numbers = {"mean": self.mean, "low": low, "high": high, "p": self.p}
        return {f"null_{name}_{part}": value for part, value in numbers.items()}

    def claim_columns(self, name: str, alpha: float) -> dict[str, float]:
        """Those of `columns`, with the level of the claim and the number of draws: `_alpha` and `_draws`."""
        return {
            **self.columns(name, alpha),
            f"null_{name}_alpha": alpha,
            f"null_{name}_draws": self.draws,
        }


def against(
    observed: float | int, draws: NDArray[np.float64] | Sequence[float], *, alternative: Alternative = "two-sided"
) -> Null:
    """Sets an observed value beside draws of its null.

    Draws that differ from the observed value by rounding count as equal to it, and so as at least as extreme: by less
    than `ROUNDING` of the largest size among them. With a draw that does not exist the null says nothing: p is NaN.

    Args:
        observed: the statistic as it was found.
        draws: the same statistic where nothing was found, one per draw; none where it was not tested.
        alternative: the side on which p and the interval look.

    Example:
        >>> null = against(3.0, [1.0] * 18 + [2.0], alternative="greater")
        >>> null.p, null.limits(0.05), null.reading(0.05).value
        (0.05, (nan, 2.0), 'above')
    """
    values = np.sort(np.asarray(draws, dtype=np.float64))
    if np.isfinite(observed) and len(values) and np.isfinite(values[[0, -1]]).all():
        slack = ROUNDING * max(abs(observed), abs(values[0]), abs(values[-1]))
        values[np.abs(values - observed) <= slack] = observed
    return Null(float(observed), values, alternative)


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

    @property
    def missing(self) -> Bool[Tensor, " restarts"]:
        """Which restarts count as missing: went non-finite on the way, or ended at an activation that is no number."""
        return self.frozen | ~self.activation_final.isfinite() | ~self.final.isfinite().flatten(1).all(1)

    @property
    def counted(self) -> Bool[Tensor, " restarts"]:
        """Which restarts are measured: those that are not missing; where all are, all, and nothing is judged."""
        return ~self.missing if not self.missing.all() else torch.ones_like(self.frozen)

    def __getitem__(self, rows: Bool[Tensor, " restarts"]) -> Restarts:
        return Restarts(*(getattr(self, field.name)[rows] for field in fields(self)))


@dataclass(frozen=True)
class Displaced:
    """What tokens restarts would end with by chance, one entry per draw."""

    retention: NDArray[np.float64]
    """Share of positions that keep the token of their initial noise."""
    unique: NDArray[np.float64]
    """Number of different tokens over all restarts."""
    agreement: dict[str, NDArray[np.float64]]
    """Every statistic of agreement in tokens (`TOKENS`)."""
    rarefaction: Float[NDArray[np.float64], "draws restarts"]
    """Expected different tokens in h restarts, one curve per draw."""
    cosine: Float[NDArray[np.float64], " cosines"]
    """Mean cosine to the nearest token of each restart's random moves; no entries where restarts end at tokens."""
    ids: Int[Tensor, "draws restarts tokens"]
    """Token ids that the restarts end with."""
    kind: str = RANDOM_MOVES
    """What was drawn: `random moves`, `random tokens` or `random text`."""


def displace(
    nearest: NearestTokens,
    initial: Float[Tensor, "restarts tokens d_model"],
    final: Float[Tensor, "restarts tokens d_model"],
    *,
    draws: int,
    seed: int,
    moves: int = 200,
) -> Displaced:
    """Draws from the null of random moves: each position keeps the length of its own move, not the direction.

    Null hypothesis: the direction of every position's move is uniform on the sphere and independent of all others. The
    restarts keep their initial noise, so what agrees because of the start is in the null too. Decoding is what costs:
    each position decodes `moves` random moves, and a draw takes one of them at each position, independently.

    Args:
        nearest: the nearest tokens of the subject.
        initial: embeddings from which the restarts of one unit started.
        final: embeddings at which they ended.
        draws: number of draws.
        seed: seed of the directions and of the draws.
        moves: random moves that are decoded at each position.
    """
    (found,) = displace_together(nearest, initial, [final], draws=draws, seed=seed, moves=moves)
    return found


def displace_together(
    nearest: NearestTokens,
    initial: Float[Tensor, "restarts tokens d_model"],
    finals: Sequence[Float[Tensor, "restarts tokens d_model"]],
    *,
    draws: int,
    seed: int,
    moves: int = 200,
) -> list[Displaced]:
    """`displace` for units whose restarts started from the same noise: what decoding has in common is done once.

    Args:
        nearest: the nearest tokens of the subject.
        initial: embeddings from which the restarts of every unit started.
        finals: embeddings at which the restarts of each unit ended.
        draws: number of draws.
        seed: seed of the directions and of the draws.
        moves: random moves that are decoded at each position.
    """
    start = initial.detach().float().cpu()
    lengths = torch.stack([(final.detach().float().cpu() - start).norm(dim=-1) for final in finals])
    kept, flat = nearest(start).best, start.flatten(0, 1)
    ids, cosines, bar = [], [], Bar("random moves", moves, unit="move", delay=DELAY)
    for noise in _directions(start.shape, draws=moves, seed=seed):
        directions = noise.flatten(1, 2)
        token, product = nearest.along(flat, directions, lengths.flatten(1))
        # |x + l u|² = |x|² + 2 l x·u + l² for a unit vector u
        along, reach = (directions * flat).sum(-1), lengths.flatten(1)[:, None]
        square = flat.square().sum(-1) + 2 * reach * along + reach.square()
        ids.append(token)
        cosines.append(product / square.clamp_min(torch.finfo().tiny).sqrt())
        bar.advance(len(noise))
    bar.close()
    picks = torch.randint(moves, (draws, len(flat)), generator=stream(seed, "picked moves"))
    return [
        combined(kept, token.gather(0, picks).view(draws, *kept.shape), cosine.view(moves, *kept.shape), RANDOM_MOVES)
        for token, cosine in zip(torch.cat(ids, dim=1), torch.cat(cosines, dim=1), strict=True)
    ]


def redraw(
    nearest: NearestTokens,
    initial: Float[Tensor, "restarts tokens d_model"],
    choices: Int[Tensor, "choices length"],
    *,
    draws: int,
    seed: int,
    kind: str = RANDOM_TOKENS,
) -> Displaced:
    """Draws from the null of random tokens: each position ends at a token drawn uniformly, wherever it began.

    Null hypothesis: what a search over tokens ends with is independent of the unit: tokens drawn uniformly and
    independently; where it chose among sequences of a text, whole sequences of that text, whose common tokens
    restarts share whatever the unit is.

    Args:
        nearest: the nearest tokens of the subject.
        initial: embeddings from which the restarts of one unit started.
        choices: the tokens that the search may use (length 1), or sequences as long as the restarts'.
        draws: number of draws.
        seed: seed of the tokens.
        kind: name of the null.
    """
    kept = nearest(initial.detach().float().cpu()).best
    shape = (draws, len(kept), kept.shape[1] // choices.shape[1])
    rows = torch.randint(len(choices), shape, generator=stream(seed, "random ends"))
    return combined(kept, choices[rows].flatten(-2), torch.empty(1, 0, kept.shape[1]), kind)


def combined(
    kept: Tensor, ids: Int[Tensor, "draws restarts tokens"], cosines: Float[Tensor, "moves cosines tokens"], kind: str
) -> Displaced:
    """The statistics of some draws of tokens."""
    counts = incidence_counts(ids)
    return Displaced(
        retention=(ids == kept).double().mean((1, 2)).numpy(),
        cosine=cosines.double().mean((0, 2)).numpy(),
        unique=counts.sum(axis=1).astype(np.float64),
        agreement=token_values(ids),
        rarefaction=rarefactions(counts),
        ids=ids,
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
