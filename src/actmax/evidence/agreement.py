"""How far the restarts of one unit agree, in tokens, embeddings and activation, each number beside its null."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from actmax.evidence.coverage import Incidence, rarefaction
from actmax.evidence.estimates import LEVEL, OK, ROUNDING, Estimate, jackknife, not_estimable
from actmax.evidence.nulls import Displaced, Null, Restarts, against
from actmax.evidence.pairs import (
    EMBEDDINGS,
    TOKENS,
    activation_estimates,
    assigned_cosines,
    embedding_estimates,
    flipped_values,
    pair_mean,
    pair_means_left_out,
    shared_shares,
    token_estimates,
)

SIGN_NULLS = {"direction": "direction_signs"}
"""Names of nulls that are called otherwise than their statistic: the direction's own null is other units."""


@dataclass(frozen=True)
class Rarefaction:
    """Expected unique tokens in h = 1 ... R restarts, beside the same by chance."""

    unique: Float[ndarray, " restarts"]
    """Mean over all subsets of h restarts (Mao Tau)."""
    null_mean: Float[ndarray, " restarts"]
    """Mean of the null's curves."""
    null_low: Float[ndarray, " restarts"]
    """Lower limit of the null's 95 % interval at each h; NaN with too few draws."""
    null_high: Float[ndarray, " restarts"]
    """Upper limit of the null's 95 % interval at each h; NaN with too few draws."""


@dataclass(frozen=True)
class Agreement:
    """The agreement of one unit's restarts."""

    estimates: dict[str, Estimate]
    """Statistics by name: those of `TOKENS`, those of `EMBEDDINGS`, and `activation_sd`, `activation_cv`,
    `activation_range`, `activation_near_best`."""
    nulls: dict[str, Null]
    """Each statistic of `TOKENS` against what restarts would end with by chance, and of `EMBEDDINGS` against the same
    moves with random signs, one-sided on the side of agreement. The activation has none: it would take the model."""
    kappa: dict[str, Estimate]
    """Chance-corrected agreement in `tokens` and in `embeddings`: 0 is chance, 1 is the same answer."""
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
            numbers |= null.columns(SIGN_NULLS.get(name, name))
        for space, one in self.kappa.items():
            numbers |= {f"kappa_{space}": one.value, f"kappa_{space}_low": one.low, f"kappa_{space}_high": one.high}
        return numbers


def agree(
    restarts: Restarts, ids: Int[Tensor, "restarts tokens"], displaced: Displaced, *, draws: int = 999, seed: int = 0
) -> Agreement:
    """Sets every statistic of agreement beside its null, which answers whether restarts agree more than chance.

    Null hypotheses: of tokens, that of `displaced`; of moves and final embeddings, that the sign of a restart's moves
    is random (`flipped_values`). p is one-sided, the share of draws that agree at least as much: the question is
    whether restarts agree *more* than chance. The nulls are drawn for the whole set of restarts, so that every bias of
    a statistic that depends on the number of restarts or tokens (of entropy, coverage, Chao2, of an assigned cosine)
    is in them too.

    Args:
        restarts: the restarts of one unit, from different seeds.
        ids: the tokens that the restarts ended at.
        displaced: draws of the tokens that they would end at by chance.
        draws: number of draws of signs.
        seed: seed of these draws.

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
        >>> found.estimates["shared_tokens"].value, found.nulls["shared_tokens"].p
        (1.0, 0.01)
    """
    initial, final = (each.detach().float().cpu() for each in (restarts.initial, restarts.final))
    estimates = token_estimates(ids) | embedding_estimates(final - initial, final)
    drawn = displaced.agreement | flipped_values(initial, final, draws=draws, seed=seed)
    nulls = {
        name: against(estimates[name].value, drawn[name], alternative=statistic.alternative)
        for name, statistic in (TOKENS | EMBEDDINGS).items()
    }
    kappas = {
        "tokens": kappa(shared_shares(ids), nulls["shared_tokens"].mean),
        "embeddings": kappa(assigned_cosines(final - initial), nulls["displacement_cosine_assigned"].mean),
    }
    estimates |= activation_estimates(restarts.activation_final)
    return Agreement(estimates, nulls, kappas, _rarefaction(ids, displaced))


def kappa(similarity: Float[Tensor, "restarts restarts"], chance: float) -> Estimate:
    """Chance-corrected agreement over pairs of restarts, with its 95 % interval.

    Formula: κ = (mean similarity - chance)/(1 - chance), as Cohen's (1960, Educ. Psychol. Meas. 20:37): 0 where
    restarts agree as much as chance, 1 where they are the same. Interval: jackknife over restarts, chance taken as
    known. Where every pair is as similar, more than by chance (all restarts the same, say), the jackknife knows no
    spread; a further restart then ends elsewhere, and is as similar as by chance, with a probability whose exact
    (Clopper and Pearson 1934, Biometrika 26:404) 95 % limit is 1 - 0.05^(1/R), and the interval is from 0.05^(1/R) κ
    to 1.

    Args:
        similarity: similarity of every two restarts, 1 for the same.
        chance: mean similarity of two restarts by chance.

    Example:
        >>> import torch
        >>> found = kappa(torch.ones(10, 10), 0.01)
        >>> found.value, round(found.low, 3), found.high
        (1.0, 0.741, 1.0)
    """
    similarity, count = similarity.double(), len(similarity)
    if not chance < 1:
        return not_estimable(nan, "two restarts are the same by chance")
    observed = pair_mean(similarity).item()
    value = (observed - chance) / (1 - chance)
    others = similarity[~torch.eye(count, dtype=torch.bool)]
    if count > 1 and observed > chance and bool((others - observed).abs().max() <= ROUNDING):
        return Estimate(value, value * (1 - LEVEL) ** (1 / count), 1.0, OK)
    left_out = (pair_means_left_out(similarity) - chance) / (1 - chance)
    return jackknife(value, left_out, bounds=(-np.inf, 1.0))


def _rarefaction(ids: Int[Tensor, "restarts tokens"], displaced: Displaced) -> Rarefaction:
    curves = displaced.rarefaction
    found = rarefaction(Incidence.of(ids))
    limits = [against(one, some).limits(1 - LEVEL) for one, some in zip(found, curves.T, strict=True)]
    low, high = np.array(limits).T
    return Rarefaction(found, curves.mean(axis=0), low, high)
