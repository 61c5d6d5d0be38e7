"""The headline numbers of one unit, each beside its null."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from actmax.evidence.agreement import Agreement, agree
from actmax.evidence.nulls import (
    Displaced,
    Null,
    Pool,
    Restarts,
    against,
    displace_together,
    uniform_unique,
)
from actmax.evidence.own import Own
from actmax.evidence.pairs import deviation
from actmax.evidence.settings import NullSettings
from actmax.evidence.verdicts import PRIMARY, Decision, decide
from actmax.model.nearest import NearestTokens


@dataclass(frozen=True)
class Measures:
    """The headline numbers of one unit, each beside its null.

    Cosine, uniqueness and retention of the restarts as they ended. A restart is a replicate; positions of one restart
    are not, so the nulls are drawn for the whole set of restarts x tokens at once.
    """

    restarts: int
    """Number of restarts of the unit."""
    restarts_frozen: int
    """Number of restarts that went non-finite and were held at their best finite embedding."""
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
    activation_final_sd: float
    """Standard deviation over restarts of the final activation (NaN for one restart)."""
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
    agreement: Agreement
    """Agreement of pairs of restarts, in three spaces, against random displacements."""
    null_of_ends: str
    """What retention and agreement stand beside: `random moves`, or `random tokens` where restarts end at tokens."""

    def flat(self) -> dict[str, float | int | str | list[tuple[str, int]]]:
        """The numbers by column name; the null of `unique` gives `null_unique_mean`, `_low`, `_high`, `_p`."""
        numbers: dict[str, Any] = {}
        nulls: dict[str, Any] = {}
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if isinstance(value, Null):
                nulls |= value.columns(name)
            elif not isinstance(value, Agreement):
                numbers[name] = value
        nulls |= {"pool_draws": self.unique.draws, "end_draws": self.retention.draws}
        return numbers | nulls | self.agreement.flat()


def measure(
    restarts: Restarts,
    nearest: NearestTokens,
    pool: Pool,
    *,
    settings: NullSettings,
    name: Callable[[int], str] = str,
    ends: Displaced | None = None,
) -> Measures:
    """The headline numbers of one unit, each beside its null.

    Args:
        restarts: the restarts of the unit.
        nearest: the nearest tokens of the subject.
        pool: decoded random vectors of the subject.
        settings: sizes and seed of the nulls.
        name: gives the text of a token id.
        ends: where such restarts would end by chance; None for random displacements of their own lengths.
    """
    before, after = nearest(restarts.initial), nearest(restarts.final)
    ids, total = after.best.flatten(), after.best.numel()
    retention = (after.best == before.best).double().mean().item()
    cosine = after.best_cosine.double().mean().item()
    unique = len(ids.unique())
    pool_unique, pool_cosine = pool.samples(total, draws=settings.draws, seed=settings.seed)
    moved = ends or moves(nearest, [restarts], settings)[0]
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
        activation_final_sd=deviation(restarts.activation_final.double()),
        unique=against(unique, pool_unique),
        cosine=against(cosine, pool_cosine),
        retention=against(retention, moved.retention),
        displaced_cosine=against(cosine, moved.cosine),
        displaced_unique=against(unique, moved.unique),
        uniform=uniform_unique(unique, total, nearest.vocabulary),
        agreement=agree(restarts, after.best, moved),
        null_of_ends=moved.kind,
    )


def moves(nearest: NearestTokens, restarts: Sequence[Restarts], settings: NullSettings) -> list[Displaced]:
    """Random displacements of the restarts of some units, those that share their initial noise together."""
    found: dict[int, Displaced] = {}
    for number, one in enumerate(restarts):
        if number not in found:
            same = [other for other in range(number, len(restarts)) if _same_start(one, restarts[other])]
            finals = [restarts[other].final for other in same]
            options = {"draws": settings.displacements, "seed": settings.seed}
            found |= dict(zip(same, displace_together(nearest, one.initial, finals, **options), strict=True))
    return [found[number] for number in range(len(restarts))]


def _same_start(one: Restarts, other: Restarts) -> bool:
    return one.initial.shape == other.initial.shape and torch.equal(one.initial, other.initial)


def judge(measured: Sequence[Measures], own: Own, *, alpha: float = 0.05) -> tuple[Decision, ...]:
    """The declared verdict on each unit of a job: `decide` on the primary statistic of each space.

    Args:
        measured: the numbers of each unit.
        own: the test of the same units against each other, in the same order.
        alpha: level of the verdict's two questions.
    """
    tokens, embeddings = ([one.agreement.nulls[name] for one in measured] for name in PRIMARY.values())
    return decide(tokens, embeddings, own, alpha=alpha)


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
