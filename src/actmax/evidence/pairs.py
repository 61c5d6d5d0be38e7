"""How far restarts agree: statistics over pairs of restarts with different seeds, and over all their tokens.

The restart is the replicate. The seeds of a job are different, so every pair of restarts of one unit is a pair of
different seeds. All arithmetic is in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import permutations
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from actmax.evidence.coverage import (
    ALL_UNIQUE,
    Incidence,
    chao2s,
    coverages,
    frequencies,
    incidence_counts,
    richness,
)
from actmax.evidence.estimates import Estimate, jackknife, not_estimable

Alternative = Literal["two-sided", "greater", "less"]
"""On which side of its null a statistic is looked for."""
ENUMERATED_SIGNS = 2**12
"""Up to so many patterns of signs all are taken."""
ENUMERATED = 5
"""Up to so many positions all assignments are tried in one product (5! = 120), several times faster than one by one."""


COMPARED = 2**24
"""Pairs of tokens that are compared at once."""


class Statistic(NamedTuple):
    """What is known about a statistic before it is computed."""

    alternative: Alternative
    """The side on which restarts agree more: the question is one-sided."""
    bounds: tuple[float, float]
    """The least and largest value that the statistic can have."""
    text: str
    """Name of the statistic in words."""


TOKENS = {
    "shared_tokens": Statistic("greater", (0.0, 1.0), "share of tokens that two restarts have in common"),
    "jaccard": Statistic("greater", (0.0, 1.0), "pairwise Jaccard of token sets"),
    "position_agreement": Statistic("greater", (0.0, 1.0), "positions with the same token, over pairs"),
    "entropy": Statistic("less", (0.0, np.inf), "entropy of token frequencies, bits"),
    "coverage": Statistic("greater", (0.0, 1.0), "coverage of the sample of restarts"),
    "richness": Statistic("less", (0.0, np.inf), "Chao2 richness"),
}
"""The statistics of agreement in token space."""
EMBEDDINGS = {
    "direction": Statistic("greater", (-1.0, 1.0), "cosine of displacements, all pairs of positions"),
    "displacement_cosine": Statistic("greater", (-1.0, 1.0), "cosine of displacements, by order"),
    "displacement_cosine_assigned": Statistic("greater", (-1.0, 1.0), "cosine of displacements, assigned"),
    "final_cosine": Statistic("greater", (-1.0, 1.0), "cosine of final embeddings, by order"),
    "final_cosine_assigned": Statistic("greater", (-1.0, 1.0), "cosine of final embeddings, assigned"),
}
"""The statistics of agreement in embedding space."""


def jaccards(ids: Int[Tensor, "*batch restarts tokens"]) -> Float[Tensor, "*batch restarts restarts"]:
    """Jaccard similarity of the token sets of every two restarts, |A ∩ B| / |A ∪ B|.

    Sets, not multisets: a token that fills three positions of one restart counts once, and order does not count.
    Reference: Jaccard 1912, New Phytol. 11:37.

    Example:
        >>> jaccards(torch.tensor([[1, 1, 2], [2, 1, 3]]))[0, 1].item()  # {1, 2} and {1, 2, 3}
        0.6666666666666666
    """
    shared, size = _overlap(ids)
    return shared / (size[..., :, None] + size[..., None, :] - shared)


def shared_shares(ids: Int[Tensor, "*batch restarts tokens"]) -> Float[Tensor, "*batch restarts restarts"]:
    """The share of their tokens that every two restarts have in common, 2 |A ∩ B| / (|A| + |B|), as sets.

    It is 1 where the sets are the same and, unlike Jaccard's similarity, 1/2 where half of the tokens are. Reference:
    Dice 1945, Ecology 26:297; Sørensen 1948, Biol. Skr. 5(4):1.

    Example:
        >>> shared_shares(torch.tensor([[1, 2], [2, 3]]))[0, 1].item()
        0.5
    """
    shared, size = _overlap(ids)
    return 2 * shared / (size[..., :, None] + size[..., None, :])


def _overlap(ids: Int[Tensor, "*batch restarts tokens"]) -> tuple[Tensor, Tensor]:
    """How many tokens every two restarts have in common, and how many different ones each has."""
    first = _first(ids)
    size = first.sum(-1)
    shared = torch.zeros((*size.shape, size.shape[-1]), dtype=torch.int64)
    for position in range(ids.shape[-1]):
        held = (ids[..., :, None, position, None] == ids[..., None, :, :]).any(-1)
        shared += held & first[..., :, position, None]
    return shared.double(), size


def _first(ids: Int[Tensor, "*batch restarts tokens"]) -> Bool[Tensor, "*batch restarts tokens"]:
    """Whether no earlier position of the restart holds the same token."""
    return ~(ids[..., :, None] == ids[..., None, :]).tril(-1).any(-1)


def position_agreements(ids: Int[Tensor, "*batch restarts tokens"]) -> Float[Tensor, "*batch restarts restarts"]:
    """The share of positions at which two restarts have the same token.

    Example:
        >>> position_agreements(torch.tensor([[1, 5, 2], [2, 5, 1]]))[0, 1].item()
        0.3333333333333333
    """
    return (ids[..., :, None, :] == ids[..., None, :, :]).double().mean(-1)


def cosines(vectors: Float[Tensor, "*batch restarts tokens d_model"]) -> Float[Tensor, "*batch restarts restarts"]:
    """The mean cosine of two restarts' vectors, position by position; a vector of length 0 has cosine 0 to all.

    Example:
        >>> cosines(torch.tensor([[[1.0, 0.0]], [[3.0, 0.0]], [[0.0, 2.0]]]))[0].tolist()
        [1.0, 1.0, 0.0]
    """
    flat = _unit(vectors).flatten(-2)
    return flat @ flat.mT / vectors.shape[-2]


def direction_cosines(
    vectors: Float[Tensor, "*batch restarts tokens d_model"],
) -> Float[Tensor, "*batch restarts restarts"]:
    """The mean cosine of two restarts' vectors over all pairs of positions; a vector of length 0 has cosine 0 to all.

    The mean over pairs of restarts estimates the squared length of the mean direction, without bias: it is 0 on average
    where restarts have no direction in common, whatever subspace or spread they share.

    Example:
        >>> direction_cosines(torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [3.0, 0.0]]]))[0, 1].item()
        0.5
    """
    mean = _unit(vectors).mean(-2)
    return mean @ mean.mT


def assigned_cosines(
    vectors: Float[Tensor, "*batch restarts tokens d_model"],
) -> Float[Tensor, "*batch restarts restarts"]:
    """The mean cosine of two restarts' vectors where positions are matched so that it is largest.

    The assignment can only raise the mean, also between noise and noise: read it beside its null, which is assigned
    in the same way. Formula: max over permutations π of mean over t of cos(a_t, b_π(t)). Reference: Kuhn 1955, Naval
    Res. Logist. Q. 2:83, solved as in Crouse 2016, IEEE Trans. Aerosp. Electron. Syst. 52:1679
    (`scipy.optimize.linear_sum_assignment`).

    Example:
        >>> swapped = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]])
        >>> cosines(swapped)[0, 1].item(), assigned_cosines(swapped)[0, 1].item()
        (0.0, 1.0)
    """
    unit = _unit(vectors)
    found = torch.diag_embed(unit.square().sum(-1).mean(-1))
    for row in range(unit.shape[-3] - 1):
        one, others = unit[..., row, :, :], unit[..., row + 1 :, :, :]
        best = _assigned(one[..., None, :, :] @ others.mT)
        found[..., row, row + 1 :] = found[..., row + 1 :, row] = best
    return found


def _assigned(similarity: Float[Tensor, "*batch tokens tokens"]) -> Float[Tensor, "*batch"]:
    """The largest mean over the assignments of rows to columns: all tried at once where few, else solved one by one."""
    tokens = similarity.shape[-1]
    if tokens <= ENUMERATED:
        return (similarity.flatten(-2) @ _assignments(tokens)).amax(-1) / tokens
    flat = similarity.flatten(0, -3).numpy()
    columns = [linear_sum_assignment(one, maximize=True)[1] for one in flat]
    best = np.take_along_axis(flat, np.asarray(columns)[..., None], axis=2).mean((1, 2))
    return torch.from_numpy(best).reshape(similarity.shape[:-2])


@lru_cache(maxsize=ENUMERATED)
def _assignments(tokens: int) -> Float[Tensor, "cells assignments"]:
    """Every assignment as a column of zeros and ones, so that one product sums the cells of them all."""
    return torch.stack([torch.eye(tokens).double()[list(order)].flatten() for order in permutations(range(tokens))], 1)


def _unit(vectors: Float[Tensor, "*shape d_model"]) -> Float[Tensor, "*shape d_model"]:
    vectors = vectors.detach().cpu().double()
    length = vectors.norm(dim=-1, keepdim=True)
    return vectors / length.where(length > 0, 1)


def pair_mean(similarity: Float[Tensor, "*batch restarts restarts"]) -> Float[Tensor, "*batch"]:
    """The mean over pairs of different restarts of a symmetric similarity; NaN for one restart."""
    count = similarity.shape[-1]
    return (similarity.sum((-2, -1)) - similarity.diagonal(dim1=-2, dim2=-1).sum(-1)) / (count * (count - 1))


def pair_means_left_out(similarity: Float[Tensor, "restarts restarts"]) -> NDArray[np.float64]:
    """The mean over pairs with each restart left out once."""
    # leaving out restart i takes its row and its column from the sum: 2 rows[i], the diagonal is out already
    own = similarity.diagonal()
    total, rows = similarity.sum() - own.sum(), similarity.sum(1) - own
    count = len(similarity) - 1
    return ((total - 2 * rows) / (count * (count - 1))).numpy()


def entropy(ids: Int[Tensor, "restarts tokens"]) -> float:
    """Shannon's entropy of the frequencies of all restarts x tokens decoded tokens, in bits.

    The plug-in (maximum likelihood) estimator -Σ p log2 p with p = count / N. It is biased low, by about (S - 1)/(2 N
    ln 2), and cannot exceed log2 N: compare it with its null, which has the same N and the same bias, and not between
    jobs of different size. References: Shannon 1948, Bell Syst. Tech. J. 27:379; Miller 1955 for the bias.

    Example:
        >>> entropy(torch.tensor([[1, 2], [1, 3]]))
        1.5
    """
    return float(entropies(ids[None])[0])


def entropies(ids: Int[Tensor, "draws restarts tokens"]) -> Float[NDArray[np.float64], " draws"]:
    """`entropy` of many draws at once."""
    draw, frequency = frequencies(ids.numpy(), np.ones(ids.shape, dtype=bool))
    share = frequency / ids[0].numel()
    return np.bincount(draw, weights=-share * np.log2(share), minlength=len(ids)).astype(np.float64) + 0.0


PAIRED: dict[str, Callable[[Tensor], Tensor]] = {
    "shared_tokens": shared_shares,
    "jaccard": jaccards,
    "position_agreement": position_agreements,
}
"""The statistics of `TOKENS` that are means over pairs of restarts, with their similarities."""


def pooled(ids: Int[Tensor, "draws restarts tokens"]) -> dict[str, NDArray[np.float64]]:
    """The statistics of `TOKENS` over all tokens together, not over pairs, one value per draw."""
    counts = incidence_counts(ids)
    return {
        "entropy": entropies(ids),
        "coverage": coverages(counts),
        "richness": chao2s(counts),
    }


def token_values(ids: Int[Tensor, "draws restarts tokens"]) -> dict[str, NDArray[np.float64]]:
    """Every statistic of `TOKENS`, one value per draw of restarts."""
    some = ids.split(max(1, COMPARED // (ids.shape[-1] * ids.shape[-2]) ** 2))  # every two tokens are compared at once
    paired = {
        name: torch.cat([pair_mean(similarity(one)) for one in some]).numpy() for name, similarity in PAIRED.items()
    }
    return paired | pooled(ids)


def token_estimates(ids: Int[Tensor, "restarts tokens"]) -> dict[str, Estimate]:
    """Every statistic of `TOKENS` with its interval: jackknife, but Chao 1987's log-normal for richness."""
    values = {name: float(value[0]) for name, value in token_values(ids[None]).items()}
    left_out = {name: pair_means_left_out(similarity(ids)) for name, similarity in PAIRED.items()}
    left_out |= pooled(torch.stack(_left_out(ids) or [ids]))
    incidence = Incidence.of(ids)
    reasons = {"coverage": ALL_UNIQUE if incidence.all_unique else None}
    found = {
        name: jackknife(value, left_out[name], bounds=TOKENS[name].bounds, reason=reasons.get(name))
        for name, value in values.items()
    }
    return found | {"richness": richness(incidence)}


def _left_out(values: Tensor) -> list[Tensor]:
    """The values of all restarts but one, each left out once; nothing for one restart."""
    rows = range(len(values)) if len(values) > 1 else ()
    return [torch.cat([values[:row], values[row + 1 :]]) for row in rows]


def _embedding_pairs(displacement: Tensor, final: Tensor) -> dict[str, Tensor]:
    return {
        "direction": direction_cosines(displacement),
        "displacement_cosine": cosines(displacement),
        "displacement_cosine_assigned": assigned_cosines(displacement),
        "final_cosine": cosines(final),
        "final_cosine_assigned": assigned_cosines(final),
    }


def flipped_values(
    initial: Float[Tensor, "restarts tokens d_model"],
    final: Float[Tensor, "restarts tokens d_model"],
    *,
    draws: int,
    seed: int,
) -> dict[str, NDArray[np.float64]]:
    """Every statistic of `EMBEDDINGS` where the moves of whole restarts change their sign at random.

    Null hypothesis: a restart's moves are as likely as their opposite, independently of other restarts: no direction is
    in common. Any subspace, spread or dependence between positions that the moves have is kept. All patterns of signs
    are taken where there are not many more than draws are asked for, without that of the restarts themselves.
    Reference: Good 2005, Permutation, Parametric and Bootstrap Tests of Hypotheses, section 3.2 (one sample).

    Args:
        initial: embeddings from which the restarts started.
        final: embeddings at which they ended.
        draws: number of draws, where not all patterns are taken.
        seed: seed of the draws.
    """
    moves = (final - initial).double()
    pairs = _embedding_pairs(torch.cat([moves, -moves]), torch.cat([final.double(), initial.double() - moves]))
    patterns = torch.from_numpy(signs(len(initial), draws, seed))
    return {name: _under_signs(similarity, patterns).numpy() for name, similarity in pairs.items()}


def signs(count: int, draws: int, seed: int, *, both: bool = False) -> Float[NDArray[np.float64], "patterns count"]:
    """Random patterns of signs, or all of them where there are not many more; that of all + is left out.

    Args:
        count: number of signs.
        draws: number of patterns, where not all are taken.
        seed: seed of the patterns.
        both: whether turning all signs makes another pattern; where it does not, the first sign is always +.
    """
    free = count if both else count - 1
    if 2**free <= max(ENUMERATED_SIGNS, draws):
        patterns = np.arange(1, 2**free)[:, None] >> np.arange(free) & 1
    else:
        patterns = np.random.default_rng([seed, *b"signs"]).integers(0, 2, (draws, free))
    return np.hstack([np.ones((len(patterns), count - free)), 1.0 - 2 * patterns]).astype(np.float64)


def _under_signs(
    similarity: Float[Tensor, "both both"], patterns: Float[Tensor, "draws restarts"]
) -> Float[Tensor, " draws"]:
    """Mean over pairs of restarts of a similarity that has rows for each restart and, below, for its mirror image."""
    # The similarity of restarts i and j under signs s, t is a + b s + c t + d s t, with coefficients from its four
    # values. Summed over ordered pairs, b and c give the same (the matrix is symmetric), so that a draw is a quadratic
    # form: Σ a + 2 Σ_i s_i Σ_j b_ij + s' d s over the pairs of different restarts.
    count = patterns.shape[1]
    same, turned = similarity[:count, :count], similarity[:count, count:]
    mirrored = similarity[count:, count:]
    other = ~torch.eye(count, dtype=torch.bool)
    constant, linear, product = (
        part / 4 * other
        for part in (
            same + turned + turned.T + mirrored,
            same + turned - turned.T - mirrored,
            same - turned - turned.T + mirrored,
        )
    )
    total = constant.sum() + 2 * patterns @ linear.sum(1) + (patterns @ product * patterns).sum(1)
    return total / (count * (count - 1))


def embedding_estimates(
    displacement: Float[Tensor, "restarts tokens d_model"], final: Float[Tensor, "restarts tokens d_model"]
) -> dict[str, Estimate]:
    """Every statistic of `EMBEDDINGS` with its jackknife interval."""
    return {
        name: jackknife(pair_mean(pairs).item(), pair_means_left_out(pairs), bounds=EMBEDDINGS[name].bounds)
        for name, pairs in _embedding_pairs(displacement, final).items()
    }


def activation_estimates(activation: Float[Tensor, " restarts"]) -> dict[str, Estimate]:
    """The spread of the final activation over restarts.

    `activation_sd` (dividing by R - 1) and `activation_cv` (sd / |mean|) have a jackknife interval.
    `activation_range` (largest - least) and `activation_near_best` (share of restarts within 5 % of the best: a ≥
    best - 0.05 |best|; the best itself counts) hang on the largest value, where the jackknife is inconsistent, so
    they have none.

    Example:
        >>> activation_estimates(torch.tensor([10.0, 9.6, 5.0]))["activation_near_best"].value
        0.6666666666666666
    """
    values = activation.detach().cpu().double()
    extreme = "it hangs on the largest value"
    smooth = {"activation_sd": deviation, "activation_cv": _variation}
    found = {
        name: jackknife(one(values), np.array([one(rest) for rest in _left_out(values)]), bounds=(0.0, np.inf))
        for name, one in smooth.items()
    }
    best = values.max()
    near = (values >= best - 0.05 * best.abs()).double().mean().item()
    return found | {
        "activation_range": not_estimable((best - values.min()).item(), extreme),
        "activation_near_best": not_estimable(near, extreme),
    }


def deviation(values: Float[Tensor, " restarts"]) -> float:
    """Standard deviation over restarts; NaN for one restart."""
    return values.std().item() if len(values) > 1 else float("nan")


def _variation(values: Tensor) -> float:
    mean = values.mean().abs().item()
    return deviation(values) / mean if mean > 0 else float("nan")
