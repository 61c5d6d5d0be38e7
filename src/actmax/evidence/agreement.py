"""How far the restarts of one unit agree, in tokens, embeddings and activation, each number beside its null."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from actmax.evidence.coverage import Incidence, rarefaction
from actmax.evidence.estimates import LEVEL, Estimate
from actmax.evidence.nulls import Displaced, Null, Restarts, against
from actmax.evidence.pairs import (
    EMBEDDINGS,
    TOKENS,
    activation_estimates,
    embedding_estimates,
    token_estimates,
)


@dataclass(frozen=True)
class Rarefaction:
    """Expected unique tokens in h = 1 ... R restarts, beside the same under random displacements."""

    unique: Float[ndarray, " restarts"]
    """Mean over all subsets of h restarts (Mao Tau)."""
    null_mean: Float[ndarray, " restarts"]
    """Mean of the null's curves."""
    null_low: Float[ndarray, " restarts"]
    """2.5 % quantile of the null's curves at each h."""
    null_high: Float[ndarray, " restarts"]
    """97.5 % quantile of the null's curves at each h."""


@dataclass(frozen=True)
class Agreement:
    """The agreement of one unit's restarts."""

    estimates: dict[str, Estimate]
    """Statistics by name: those of `TOKENS`, those of `EMBEDDINGS`, and `activation_sd`, `activation_cv`,
    `activation_range`, `activation_near_best`."""
    nulls: dict[str, Null]
    """Each statistic of `TOKENS` and `EMBEDDINGS` against random displacements, one-sided on the side of agreement. The
    activation has none: a displaced embedding's activation takes the model."""
    rarefaction: Rarefaction
    """Expected unique tokens against the number of restarts."""

    def flat(self) -> dict[str, float | str]:
        """The numbers by column name.

        `jaccard`, `jaccard_low`, `jaccard_high`, `jaccard_status`, `null_jaccard_mean`, `_low`, `_high`, `_p`, and so
        on.
        """
        numbers: dict[str, float | str] = {}
        for name, one in self.estimates.items():
            numbers |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high, f"{name}_status": one.status}
        for name, null in self.nulls.items():
            numbers |= null.columns(name)
        return numbers


def agree(restarts: Restarts, ids: Int[Tensor, "restarts tokens"], displaced: Displaced) -> Agreement:
    """Sets every statistic of agreement beside its null, which answers whether restarts agree more than chance.

    Null hypothesis: each position's move from its initial noise has its length and a random direction (`displace`). p
    is one-sided, the share of draws that agree at least as much: the question is whether restarts agree *more* than
    chance. Less agreement than chance shows as a value below the null's interval, which has both sides.
    The null is drawn for the whole set of restarts, so that every bias of a statistic that depends on the number of
    restarts or tokens (of entropy, coverage, Chao2, of an assigned cosine) is in it too.

    Args:
        restarts: the restarts of one unit, from different seeds.
        ids: the tokens that the restarts ended at.
        displaced: the null's draws for the same restarts.

    Example:
        >>> import torch
        >>> from actmax.model.nearest import NearestTokens
        >>> from actmax.evidence.nulls import displace
        >>> nearest = NearestTokens(torch.eye(8))
        >>> initial = torch.randn(6, 2, 8, generator=torch.Generator().manual_seed(0))
        >>> final = initial + 50 * torch.eye(8)[:2]  # every restart is drawn to tokens 0 and 1
        >>> ended = Restarts(initial, final, torch.zeros(6), torch.ones(6), torch.zeros(6, dtype=torch.bool))
        >>> moved = displace(nearest, initial, final, draws=99, seed=0)
        >>> found = agree(ended, nearest(final).best, moved)
        >>> found.estimates["jaccard"].value, found.nulls["jaccard"].p
        (1.0, 0.01)
    """
    initial, final = (each.detach().float().cpu() for each in (restarts.initial, restarts.final))
    estimates = token_estimates(ids) | embedding_estimates(final - initial, final)
    nulls = {
        name: against(estimates[name].value, displaced.agreement[name], alternative=statistic.alternative)
        for name, statistic in (TOKENS | EMBEDDINGS).items()
    }
    estimates |= activation_estimates(restarts.activation_final)
    return Agreement(estimates, nulls, _rarefaction(ids, displaced))


def _rarefaction(ids: Int[Tensor, "restarts tokens"], displaced: Displaced) -> Rarefaction:
    curves = displaced.rarefaction
    low, high = np.quantile(curves, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0, method="inverted_cdf")
    return Rarefaction(rarefaction(Incidence.of(ids)), curves.mean(axis=0), low, high)
