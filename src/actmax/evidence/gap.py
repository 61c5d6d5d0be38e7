"""The decode gap: what an optimum's text gives, beside what a reader would use instead of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import nan, sqrt
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray

from actmax.evidence.nulls import Null, Restarts, against
from actmax.evidence.pairs import Alternative, signs
from actmax.evidence.readings import GapEnd
from actmax.evidence.settings import ALPHA
from actmax.model.context import Context
from actmax.model.evaluation import activations, cross_entropies, random_activations, random_tokens
from actmax.model.nearest import NearestTokens
from actmax.model.objective import Objective
from actmax.model.settings import GapSettings
from actmax.model.subject import Subject
from actmax.model.target import Target

PREDICTIONS = 39_999
"""Draws from the null of a mean over as many random sequences as there are restarts."""
BEST_DRAWS = 999
"""Draws of the mean over restarts of the best of many random sequences."""
ENTROPY_DRAWS = 500
"""Random sequences of which the cross-entropy is taken, at most: it runs the whole model."""
STAGES = ("initial", "final", "snapped", "retokenised")
"""Stages of an optimum's way to text."""


@dataclass(frozen=True)
class RandomText:
    """What one unit does on token sequences in which nothing was sought."""

    activation: Float[ndarray, " draws"]
    """Activation of each sequence, reduced over positions like the target."""
    cross_entropy: Float[ndarray, " entropies"]
    """The subject's cross-entropy of the first sequences, nats per token; NaN for one token: nothing is before it."""


@dataclass(frozen=True)
class Gap:
    """The decode gap of one unit; the restart is the replicate."""

    initial: Float[ndarray, " restarts"]
    """Activation of the initial noise."""
    final: Float[ndarray, " restarts"]
    """Activation of the optimum."""
    snapped: Float[ndarray, " restarts"]
    """Activation of the optimum's decoded tokens."""
    retokenised: Float[ndarray, " restarts"]
    """Activation of the text that these tokens spell, tokenised again; NaN where that gives no token at all."""
    texts: tuple[str, ...]
    """The text that the decoded tokens spell."""
    same: tuple[bool, ...]
    """Whether the text gives the same tokens when it is tokenised again."""
    lengths: tuple[int, ...]
    """Number of tokens that the text gives when it is tokenised again."""
    cross_entropy: Float[ndarray, " restarts"]
    """The subject's cross-entropy of the snapped tokens, nats per token."""
    cross_entropy_initial: Float[ndarray, " restarts"]
    """Cross-entropy of the tokens that the initial noise decodes to: noise does not decode to all tokens alike."""
    start_tokens: Float[ndarray, " restarts"]
    """Activation of the tokens that the initial noise decodes to."""
    random: RandomText
    """Activation and cross-entropy of random token sequences."""
    passes: int
    """Forward passes that each restart took, a backward pass counted as one."""
    sign: Literal["maximize", "minimize"] = "maximize"
    """Whether more activation was looked for, or less."""

    @property
    def alternative(self) -> Alternative:
        """The side of random tokens that was looked for."""
        return "greater" if self.sign == "maximize" else "less"

    def z(self, stage: str) -> float:
        """Mean over restarts at a stage of `STAGES`, in standard deviations of one random sequence."""
        deviation = self._deviation
        return (_mean(getattr(self, stage)) - self._base) / deviation if deviation > 0 else nan

    def z_of_mean(self, stage: str) -> float:
        """Mean over restarts at a stage, in standard errors of a mean of as many random sequences."""
        return self.z(stage) * sqrt(int(np.isfinite(getattr(self, stage)).sum()))

    def kept(self, stage: str, alpha: float) -> float:
        """The share of the optimum's gain over random tokens that a stage keeps; NaN where there was no gain."""
        gain = _mean(self.final) - self._base
        return (_mean(getattr(self, stage)) - self._base) / gain if self._beyond("final", alpha) else nan

    def null(self, name: str) -> Null:
        """A mean over restarts beside the mean of as many random token sequences.

        Activations are looked for on the side of the objective, the cross-entropy on both sides (`beside_random`).

        Args:
            name: a stage of `STAGES`, or `cross_entropy`.
        """
        values, entropy = getattr(self, name), name == "cross_entropy"
        drawn = self.random.cross_entropy if entropy else self.random.activation
        return beside_random(values, drawn, "two-sided" if entropy else self.alternative)

    def end(self, alpha: float) -> GapEnd:
        """How far the gain is carried: the last stage that is still beyond random tokens, at a level."""
        if not self.null("final").exists:
            return GapEnd.NOT_TESTED
        stages = {"final": GapEnd.NO_GAIN, "snapped": GapEnd.SNAP, "retokenised": GapEnd.RETOKENISE}
        lost = (end for stage, end in stages.items() if not self._beyond(stage, alpha))
        return next(lost, GapEnd.SURVIVES)

    def untested(self) -> Gap:
        """The same without a value of any restart, as where all went non-finite: nothing is judged."""
        names = (*STAGES, "start_tokens", "cross_entropy", "cross_entropy_initial")
        return replace(self, **{name: np.full_like(getattr(self, name), nan) for name in names})

    def _beyond(self, stage: str, alpha: float) -> bool:
        return self.null(stage).p <= alpha

    def best_of_random(self) -> Null:
        """The mean of the snapped activation beside the best of as many random sequences as passes were spent.

        Each draw is a mean over restarts of the best of `passes` random sequences. The best of N of n sequences is the
        one whose rank, from the top, is that of the best of N uniform numbers; with fewer sequences than passes it is
        not known, and there are no draws.
        """
        count, ordered = len(self.final), np.sort(self.random.activation)
        ordered = ordered if self.sign == "maximize" else ordered[::-1]
        if not 0 < self.passes <= len(ordered) or not np.isfinite(ordered).all():
            return against(nan, [])
        generator = np.random.default_rng([len(ordered), self.passes, *b"best"])
        highest = generator.random((BEST_DRAWS, count)) ** (1 / self.passes)  # the largest of N uniform numbers
        ranks = np.minimum((highest * len(ordered)).astype(int), len(ordered) - 1)
        return against(_mean(self.snapped), ordered[ranks].mean(axis=1))

    @property
    def _base(self) -> float:
        return float(self.random.activation.mean())

    @property
    def _deviation(self) -> float:
        return float(self.random.activation.std(ddof=1))

    def flat(self, alpha: float) -> dict[str, Any]:
        """The numbers by column name; claims and intervals are at a level."""
        best, gained = self.best_of_random(), _mean(self.snapped - self.start_tokens)
        low, high = best.limits(ALPHA)
        flipped = against(gained, _flipped_means(self.snapped - self.start_tokens), alternative=self.alternative)
        numbers: dict[str, Any] = {
            "gap_alternative": self.alternative,
            "random_activation_mean": self._base,
            "random_activation_sd": self._deviation,
            "random_activation_draws": len(self.random.activation),
            "start_tokens_activation_mean": _mean(self.start_tokens),
            "start_tokens_p": flipped.p,
            "passes": self.passes,
            "best_of_random_mean": best.mean,
            "best_of_random_low": low,
            "best_of_random_high": high,
        }
        for stage in ("snapped", "retokenised"):
            numbers |= {
                f"activation_{stage}_mean": _mean(getattr(self, stage)),
                f"kept_{stage}": self.kept(stage, alpha),
            }
            numbers |= self.null(stage).claim_columns(stage, alpha)
        numbers |= {f"z_{stage}": self.z(stage) for stage in STAGES}
        numbers |= {f"z_of_mean_{stage}": self.z_of_mean(stage) for stage in STAGES}
        numbers |= {
            "retokenised_same": float(np.mean(self.same)),
            "cross_entropy_mean": _mean(self.cross_entropy),
            "cross_entropy_initial_mean": _mean(self.cross_entropy_initial),
        }
        numbers |= self.null("final").claim_columns("final", alpha)
        numbers |= self.null("cross_entropy").columns("cross_entropy")
        return numbers | {"gap": self.end(alpha).value}


def beside_random(values: Float[ndarray, " restarts"], drawn: Float[ndarray, " draws"], side: Alternative) -> Null:
    """The mean of some values, one per restart, beside the mean of as many of those of random token sequences.

    Null hypothesis: the restarts' sequences are exchangeable with token sequences drawn uniformly. The null is the
    predictive distribution of such a mean under Rubin's Bayesian bootstrap of the random sequences (1981, Ann. Statist.
    9:130), so that it also knows how few they were.

    Args:
        values: a number of each restart; NaN where it has none.
        drawn: the same number of each random sequence.
        side: on which side more is looked for.
    """
    count = int(np.isfinite(values).sum())
    if count == 0 or not np.isfinite(drawn).all():
        return against(nan, [], alternative=side)
    return against(_mean(values), drawn[predictive(len(drawn), count)].mean(axis=1), alternative=side)


def _mean(values: Float[ndarray, " restarts"]) -> float:
    """The mean over restarts that have a value: a text of no tokens has no activation."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else nan


def _flipped_means(values: Float[ndarray, " restarts"]) -> Float[ndarray, " draws"]:
    """Means of paired differences under random signs, all patterns where there are few, without that of all +."""
    finite = values[np.isfinite(values)]
    return signs(len(finite), BEST_DRAWS, 0, both=True) @ finite / max(1, len(finite))


@lru_cache(maxsize=2)
def predictive(draws: int, count: int) -> Int[ndarray, "predictions count"]:
    """Which of the `draws` old values `count` new values are, by the Bayesian bootstrap, for each prediction."""
    # The predictive distribution of the Bayesian bootstrap is a Pólya urn: the k-th new value is an old one, each with
    # probability 1/(n + k - 1), or else a copy of one of the k - 1 new values before it.
    generator = np.random.default_rng([draws, count])
    found = np.empty((PREDICTIONS, count), dtype=np.int32)
    for place in range(count):
        ball = generator.integers(0, draws + place, PREDICTIONS)
        copied = ball >= draws
        found[:, place] = np.where(copied, 0, ball)
        found[copied, place] = found[copied, ball[copied] - draws]
    return found


@torch.no_grad()
def measure(
    subject: Subject,
    objective: Objective,
    found: Mapping[Target, Restarts],
    nearest: NearestTokens,
    *,
    passes: int,
    settings: GapSettings,
    cache: Path | None = None,
) -> dict[Target, Gap]:
    """The decode gap of each unit.

    Args:
        subject: the model that the restarts were optimized against.
        objective: what the restarts were optimized for; its reduction counts.
        found: the restarts of each unit.
        nearest: the nearest tokens of the subject.
        passes: forward passes that each restart took, a backward pass counted as one.
        settings: size and seed of the null of random text.
        cache: the folder that keeps activations of random sequences.
    """
    units = [unit for unit, restarts in found.items() for _ in restarts.final]
    begun = torch.cat([nearest(restarts.initial).best for restarts in found.values()])
    ids = torch.cat([nearest(restarts.final).best for restarts in found.values()])
    texts = [subject.text(row) for row in ids.tolist()]
    again = [subject.tokens(text) for text in texts]
    put_in = ids.tolist(), begun.tolist(), again
    snapped, start_tokens, retokenised = (activations(subject, objective, some, units) for some in put_in)
    entropy, before = (cross_entropies(subject, some, objective.context) for some in (ids, begun))
    random = _random_text(subject, objective, list(found), ids.shape[1], settings, cache)
    same = [one == two for one, two in zip(again, ids.tolist(), strict=True)]
    gaps, start = {}, 0
    for unit, restarts in found.items():
        start, rows = start + len(restarts.final), slice(start, start + len(restarts.final))
        gaps[unit] = Gap(
            initial=restarts.activation_initial.double().numpy(),
            final=restarts.activation_final.double().numpy(),
            snapped=snapped[rows],
            retokenised=retokenised[rows],
            texts=tuple(texts[rows]),
            same=tuple(same[rows]),
            lengths=tuple(map(len, again[rows])),
            cross_entropy=entropy[rows],
            cross_entropy_initial=before[rows],
            start_tokens=start_tokens[rows],
            random=random[unit],
            passes=passes,
            sign=objective.sign,
        )
    return gaps


def _random_text(
    subject: Subject,
    objective: Objective,
    units: Sequence[Target],
    tokens: int,
    settings: GapSettings,
    cache: Path | None,
) -> dict[Target, RandomText]:
    draws = min(settings.draws, ENTROPY_DRAWS)
    entropy = _random_entropies(subject, tokens, draws, settings.seed, objective.context.without_after())
    found = random_activations(subject, objective, tuple(units), tokens, settings, cache)
    return {unit: RandomText(found[:, number], entropy) for number, unit in enumerate(units)}


@lru_cache(maxsize=2)
def _random_entropies(
    subject: Subject, tokens: int, draws: int, seed: int, context: Context
) -> Float[ndarray, " draws"]:
    """Cross-entropies of random sequences, which are the same for all units of a subject."""
    return cross_entropies(subject, random_tokens(subject, tokens, draws=draws, seed=seed), context)
