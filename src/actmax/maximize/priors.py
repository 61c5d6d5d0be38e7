"""Loss terms that keep the optimizee near text, each weighed against the objective's own pull at the start.

A prior is a number per restart that a restart lowers beside its objective. Formulas, units and costs stand together in
docs/priors.md. In them x_t is the embedding of position t of T, e_v the embedding of token v, and m the mean length of
the token embeddings.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from actmax.maximize.settings import FluencySettings, ManifoldSettings
from actmax.model.nearest import BLOCK, Vocabulary

Scale = Literal["relative", "absolute"]
"""Unit of a prior's weight: lengths of the objective's initial gradient, or 1, so that it multiplies the formula."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What priors are computed from, for some restarts."""

    embeddings: Float[Tensor, "rows tokens d_model"]
    """The optimizee's embeddings; gradients flow to them."""
    vocabulary: Vocabulary
    """The token embeddings, with their lengths."""
    hidden: Float[Tensor, "copies read d_model"] | None = None
    """What leaves the subject's final norm, in every surrounding of each row; None unless a prior needs logits."""
    head: Callable[[Tensor], Tensor] | None = None
    """The subject's head: from what leaves the final norm to logits over the vocabulary."""


@dataclass(frozen=True)
class Prior(ABC):
    """A loss term, a number per restart that is minimized beside the objective."""

    weight: float
    """Strength of the term; what it counts in is `scale`."""
    scale: Scale = "relative"
    """Unit of the weight: `relative` to the objective's gradient, or `absolute`."""

    name: ClassVar[str]
    """Name of the term in the config and in records."""
    least_tokens: ClassVar[int] = 1
    """Fewest positions for which the term is defined."""
    needs_logits: ClassVar[bool] = False
    """Whether the term needs the subject's logits, for which all blocks run."""

    @abstractmethod
    def value(self, seen: Seen) -> Float[Tensor, " rows"]:
        """The term of each restart, before any weight."""


@dataclass(frozen=True)
class L2(Prior):
    """Σ_t ‖x_t‖², weight decay: with an absolute weight λ, the term λ Σ_t ‖x_t‖²."""

    name: ClassVar[str] = "l2"

    def value(self, seen: Seen) -> Float[Tensor, " rows"]:
        """The sum of squares: a sum and not a mean, so that an absolute weight is weight decay's λ."""
        return seen.embeddings.square().sum((1, 2))


@dataclass(frozen=True)
class Norm(Prior):
    """mean_t (‖x_t‖/m - 1)²: each position as long as a token embedding is on average."""

    name: ClassVar[str] = "norm"

    def value(self, seen: Seen) -> Float[Tensor, " rows"]:
        """The mean squared relative deviation: 0.01 is a tenth of the mean length, root mean square."""
        # Relative to the tokens' mean length, as in Smooth and Manifold: an absolute weight means the same for every
        # subject.
        return (seen.embeddings.norm(dim=2) / seen.vocabulary.mean_length - 1).square().mean(1)


@dataclass(frozen=True)
class Smooth(Prior):
    """mean_t ‖x_{t+1} - x_t‖² / m²: neighbouring positions alike."""

    name: ClassVar[str] = "smooth"
    least_tokens: ClassVar[int] = 2

    def value(self, seen: Seen) -> Float[Tensor, " rows"]:
        """The mean squared step in mean lengths: 2 for neighbours of mean length at a right angle."""
        steps = seen.embeddings.diff(dim=1) / seen.vocabulary.mean_length
        return steps.square().sum(2).mean(1)


@dataclass(frozen=True)
class Manifold(Prior):
    """mean_t -τ log( 1/k Σ_j exp(-d_tj/τ) ), d_tj = ‖x_t - e_j‖² / m² over the k nearest tokens j.

    A soft minimum of the squared distance to a token: between the least and the mean of the k. The k are chosen without
    gradient, a block of positions at a time, so that only k tokens per position stand in the graph; the gradient is
    that of the formula wherever the choice does not change.
    """

    k: int = ManifoldSettings.k
    """Number of nearest tokens that count."""
    temperature: float = ManifoldSettings.temperature
    """Softness τ of the minimum, in the unit of d."""

    name: ClassVar[str] = "manifold"

    def value(self, seen: Seen) -> Float[Tensor, " rows"]:
        """The mean soft squared distance: 1 is a distance of the tokens' mean length."""
        vocabulary = seen.vocabulary
        near = vocabulary.matrix[nearest(seen.embeddings, vocabulary, self.k)]
        # -τ log(1/k Σ exp(-d/τ)) = τ (log k - logsumexp(-d/τ)): min d where τ is small, mean d where it is large.
        # Tokens beyond the k nearest would add next to nothing to the sum, and a row of the vocabulary each to the
        # graph.
        distance = ((seen.embeddings[:, :, None] - near) / vocabulary.mean_length).square().sum(3)
        share = -(-distance / self.temperature).logsumexp(2) + math.log(self.k)
        return (self.temperature * share).mean(1)


@dataclass(frozen=True)
class Fluency(Prior):
    """mean over t < T of -Σ_v p_{t+1}(v) log q_t(v), in nats per token.

    p_t = softmax over v of cos(x_t, e_v)/τ, the softly decoded token of position t; q_t is the subject's own prediction
    of the next token from the embeddings up to t. Gradients flow through both. The first position has no prediction.
    """

    temperature: float = FluencySettings.temperature
    """Temperature τ of the soft decoding, in cosines."""

    name: ClassVar[str] = "fluency"
    least_tokens: ClassVar[int] = 2
    needs_logits: ClassVar[bool] = True

    def value(self, seen: Seen) -> Float[Tensor, " rows"]:
        """The cross-entropy; in blocks of rows, each computed again for its gradient, so that one's logits are held."""
        if seen.hidden is None or seen.head is None:
            raise ValueError("fluency needs the subject's last hidden states and its head")
        # What leaves position t - 1 predicts position t: hidden states but the last, beside embeddings but the first.
        copies = len(seen.hidden) // len(seen.embeddings)
        before, after = seen.hidden[:, : seen.embeddings.shape[1] - 1], seen.embeddings[:, 1:]
        after = after.repeat_interleave(copies, 0) if copies > 1 else after
        rows = max(1, BLOCK // (after.shape[1] * len(seen.vocabulary.matrix)))
        term = partial(self._cross_entropy, seen.head, seen.vocabulary)
        if len(after) <= rows:
            found = term(before, after)
        else:
            recomputed = partial(checkpoint, term, use_reentrant=False, preserve_rng_state=False)  # nothing is drawn
            blocks = zip(before.split(rows), after.split(rows), strict=True)
            found = torch.cat([recomputed(*block) for block in blocks])
        return found.unflatten(0, (-1, copies)).mean(1) if copies > 1 else found

    def _cross_entropy(
        self, head: Callable[[Tensor], Tensor], vocabulary: Vocabulary, before: Tensor, after: Tensor
    ) -> Tensor:
        """Mean over positions of -Σ_v p(v) log q(v), for some rows."""
        prediction = head(before).to(after.dtype).log_softmax(2)
        # A padded head has more rows than there are tokens, or the matrix more than the head: q is a softmax over all
        # rows of the head, p over the tokens that both have.
        shared = min(prediction.shape[2], len(vocabulary.matrix))
        softly = vocabulary.cosines(after, temperature=self.temperature)[..., :shared].softmax(2)
        return -(softly * prediction[..., :shared]).sum(2).mean(1)


PRIORS: dict[str, type[Prior]] = {kind.name: kind for kind in (L2, Norm, Manifold, Fluency, Smooth)}
"""Every loss term by its name in the config."""


@torch.no_grad()
def nearest(
    embeddings: Float[Tensor, "rows tokens d_model"], vocabulary: Vocabulary, k: int
) -> Int[Tensor, "rows tokens k"]:
    """The k tokens with the least Euclidean distance to each position, in no promised order, a block at a time."""
    # A block of positions at a time, so that the products with all tokens take a bounded amount of memory.
    half = vocabulary.lengths.square() / 2
    blocks = embeddings.flatten(0, 1).split(max(1, BLOCK // len(half)))
    # argmin ‖x - e‖² = argmax x·e - ‖e‖²/2: one matrix product, no differences.
    ids = [(block @ vocabulary.matrix.T).sub_(half).topk(k, sorted=False).indices for block in blocks]
    return torch.cat(ids).unflatten(0, embeddings.shape[:2])


def coefficients(
    priors: Sequence[Prior],
    objective: Float[Tensor, " rows"],
    values: Sequence[Float[Tensor, " rows"]],
    parameter: Float[Tensor, "rows tokens width"],
) -> Float[Tensor, "rows priors"]:
    """What multiplies each prior of each restart, from the gradients at its current parameter.

    Relative: weight x ‖∇ objective‖ / ‖∇ prior‖, both with respect to the restart's own parameter, so that at weight 1
    the two pull equally hard at the start; where one of the two is 0 (or the ratio is no finite number) there is
    nothing to weigh, and the coefficient is 0. Absolute: the weight.

    Args:
        priors: the loss terms.
        objective: the loss of each restart without priors.
        values: each prior's value for each restart; its graph is needed, and kept.
        parameter: what both are functions of, row by row.
    """
    # Rows do not depend on each other, so the gradient of a sum over restarts holds each restart's own gradient. The
    # sum objective + c · prior has the gradients' lengths |∇objective| and c |∇prior|; c = weight ·
    # |∇objective|/|∇prior| makes the second `weight` times the first. A gradient of 0 gives 0, inf or NaN, and the term
    # is left out.
    length = _gradient_lengths(objective, parameter) if any(prior.scale == "relative" for prior in priors) else None
    columns = []
    for prior, value in zip(priors, values, strict=True):
        if length is None or prior.scale == "absolute":
            columns.append(torch.full_like(value.detach(), prior.weight))
            continue
        ratio = length / _gradient_lengths(value, parameter)
        columns.append(torch.where(ratio.isfinite(), prior.weight * ratio, 0))
    return torch.stack(columns, dim=1)


def _gradient_lengths(values: Tensor, parameter: Tensor) -> Tensor:
    """The length of each row's gradient."""
    # ‖g‖ = a ‖g/a‖ with a = max |g_i|: entries of 1e-30, whose squares float32 does not hold, keep their length.
    (gradient,) = torch.autograd.grad(values.sum(), parameter, retain_graph=True)
    largest = gradient.abs().amax((1, 2))
    scaled = gradient / largest.where(largest > 0, 1)[:, None, None]
    return largest * scaled.flatten(1).norm(dim=1)
