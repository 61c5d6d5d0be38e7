"""The headline numbers of one unit, each beside its null."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from math import nan
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from actmax.evidence.agreement import Agreement, agree
from actmax.evidence.estimates import not_estimable
from actmax.evidence.nulls import (
    Displaced,
    Null,
    Restarts,
    against,
    displace_together,
)
from actmax.evidence.own import Own
from actmax.evidence.pairs import deviation, shared_shares, signs
from actmax.evidence.settings import NullSettings, claim_alpha
from actmax.evidence.verdicts import PRIMARY, Agreed, Decision, decide
from actmax.model.nearest import NearestTokens


@dataclass(frozen=True)
class Measures:
    """The headline numbers of one unit, each beside its null.

    Cosine, uniqueness and retention of the restarts as they ended. A restart is a replicate; positions of one restart
    are not, so the nulls are drawn for the whole set of restarts x tokens at once.
    """

    restarts: int
    """Number of restarts of the unit that are measured."""
    restarts_frozen: int
    """Number of restarts that went non-finite: they are not measured, unless all did, and nothing is judged."""
    tokens_total: int
    """Number of decoded tokens, restarts x positions."""
    tokens_unique: int
    """Number of different tokens among all decoded tokens."""
    tokens_repeated: list[tuple[str, int]]
    """Tokens that occur more than once, with their counts, most frequent first."""
    init_retention: float
    """Share of positions that still decode to the token of their initial noise."""
    cosine_mean: float
    """Mean cosine of a position to its nearest token."""
    init_cosine_mean: float
    """Mean cosine of a position of the initial noise to its nearest token."""
    displacement_mean: float
    """Mean over positions of |final - initial| / |initial|."""
    activation_initial_mean: float
    """Mean activation over restarts before the first step."""
    activation_final_mean: float
    """Mean activation over restarts after the last."""
    activation_initial_sd: float
    """Standard deviation over restarts of the activation before the first step (NaN for one restart)."""
    activation_final_sd: float
    """Standard deviation over restarts of the final activation (NaN for one restart)."""
    pairs: int
    """Number of pairs of restarts."""
    pairs_sharing: int
    """Number of pairs of restarts that have a token in common."""
    unique: Null
    """Different tokens beside those of random moves; of a search beside random tokens."""
    cosine: Null
    """Mean cosine beside that of random moves, restart by restart; of a search there are no draws, for it ends at
    tokens."""
    retention: Null
    """Retention beside random moves of the same length; of a search beside random tokens."""
    agreement: Agreement
    """Agreement of pairs of restarts in tokens, embeddings and activation, each beside its null."""
    null_of_ends: str
    """Where restarts would end by chance: `random moves`, or `random tokens` or `random text` for a search."""

    def without(self, frozen: int) -> Measures:
        """The same beside restarts that went non-finite; where no other is there, every null is without draws.

        Args:
            frozen: number of these restarts.
        """
        beside = replace(self, restarts_frozen=frozen)
        if not self.restarts_frozen:
            return beside
        agreement = self.agreement
        nulls = {
            name: against(null.observed, [], alternative=null.alternative) for name, null in agreement.nulls.items()
        }
        kappa = {space: not_estimable(nan, "all restarts went non-finite") for space in agreement.kappa}
        own = {name: against(getattr(self, name).observed, []) for name in ("unique", "cosine", "retention")}
        return replace(beside, **own, agreement=replace(agreement, nulls=nulls, kappa=kappa))

    def flat(self) -> dict[str, float | int | str | list[tuple[str, int]]]:
        """The numbers by column name.

        The null of `unique` gives `null_unique_mean`, `_low`, `_high`, `_p`, `_alpha` and `_draws`.
        """
        alpha = claim_alpha(self.null_of_ends)
        numbers: dict[str, Any] = {}
        nulls: dict[str, Any] = {}
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if isinstance(value, Null):
                nulls |= value.claim_columns(name, alpha)
            elif not isinstance(value, Agreement):
                numbers[name] = value
        nulls |= self.agreement.flat()
        shared = self.agreement.nulls[PRIMARY["tokens"]]
        return numbers | nulls | shared.claim_columns(PRIMARY["tokens"], alpha)


def measure(
    restarts: Restarts,
    nearest: NearestTokens,
    *,
    settings: NullSettings,
    name: Callable[[int], str] = str,
    ends: Displaced | None = None,
) -> Measures:
    """The headline numbers of one unit, each beside its null.

    Args:
        restarts: the restarts of the unit.
        nearest: the nearest tokens of the subject.
        settings: sizes and seed of the nulls.
        name: gives the text of a token id.
        ends: where such restarts would end by chance; None for random displacements of their own lengths.
    """
    before, after = nearest(restarts.initial), nearest(restarts.final)
    ids, total = after.best.flatten(), after.best.numel()
    retention = (after.best == before.best).double().mean().item()
    cosine = after.best_cosine.double().mean().item()
    unique = len(ids.unique())
    moved = ends or moves(nearest, [restarts], settings)[0]
    length = (restarts.final - restarts.initial).double().norm(dim=-1) / restarts.initial.double().norm(dim=-1)
    return Measures(
        restarts=len(restarts.final),
        restarts_frozen=int(restarts.missing.sum()),
        tokens_total=total,
        tokens_unique=unique,
        tokens_repeated=repeated(ids.tolist(), name),
        init_retention=retention,
        cosine_mean=cosine,
        init_cosine_mean=before.best_cosine.double().mean().item(),
        displacement_mean=length.mean().item(),
        activation_initial_mean=restarts.activation_initial.double().mean().item(),
        activation_final_mean=restarts.activation_final.double().mean().item(),
        activation_initial_sd=deviation(restarts.activation_initial.double()),
        activation_final_sd=deviation(restarts.activation_final.double()),
        pairs=len(restarts.final) * (len(restarts.final) - 1) // 2,
        pairs_sharing=int((shared_shares(after.best).triu(1) > 0).sum()),
        unique=against(unique, moved.unique),
        cosine=beside_own_moves(after.best_cosine, moved, settings),
        retention=against(retention, moved.retention),
        agreement=agree(restarts, after.best, moved, draws=settings.draws, seed=settings.seed),
        null_of_ends=moved.kind,
    )


def beside_own_moves(cosines: Float[Tensor, "restarts tokens"], moved: Displaced, settings: NullSettings) -> Null:
    """The mean cosine to the nearest token beside that of random moves, with restarts as replicates.

    Null hypothesis: a restart's mean cosine differs from that of its own random moves by as much in either direction.
    The positions of a restart are not independent, and optimized restarts differ more from each other than random
    moves do, so that draws of single positions would make the null too narrow. Formula: mean of the random moves plus
    the mean over restarts of their differences under random signs, all patterns where there are few.
    """
    observed = cosines.double().mean(1).numpy()
    if not len(moved.cosine):
        return against(observed.mean(), [])
    patterns = signs(len(observed), settings.draws, settings.seed, both=True)
    return against(observed.mean(), moved.cosine.mean() + patterns @ (observed - moved.cosine) / len(observed))


def moves(nearest: NearestTokens, restarts: Sequence[Restarts], settings: NullSettings) -> list[Displaced]:
    """Random displacements of the restarts of some units, those that share their initial noise together."""
    found: dict[int, Displaced] = {}
    for number, one in enumerate(restarts):
        if number not in found:
            same = [other for other in range(number, len(restarts)) if _same_start(one, restarts[other])]
            finals = [restarts[other].final for other in same]
            options = {"draws": settings.draws, "seed": settings.seed, "moves": settings.displacements}
            found |= dict(zip(same, displace_together(nearest, one.initial, finals, **options), strict=True))
    return [found[number] for number in range(len(restarts))]


def _same_start(one: Restarts, other: Restarts) -> bool:
    return one.initial.shape == other.initial.shape and torch.equal(one.initial, other.initial)


def judge(measured: Sequence[Measures], own: Own, *, judged: Sequence[int] | None = None) -> tuple[Decision, ...]:
    """The declared verdict on each unit of a job (`decide`).

    Args:
        measured: the numbers of each unit.
        own: the test of the same units against each other, in the same order.
        judged: numbers of the units that are no control units; None for all.
    """
    return decide([Agreed.of(one.agreement) for one in measured], own, kind=measured[0].null_of_ends, judged=judged)


def repeated(ids: Sequence[int], name: Callable[[int], str] = str) -> list[tuple[str, int]]:
    """The tokens that occur more than once, with their counts, most frequent first.

    Example:
        >>> repeated([3, 1, 3, 2, 1, 3])
        [('3', 3), ('1', 2)]
    """
    return [(name(token), count) for token, count in Counter(ids).most_common() if count > 1]


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
        """Share of positions so far that still decode to the token of their initial noise."""
        return self.kept / self.total
