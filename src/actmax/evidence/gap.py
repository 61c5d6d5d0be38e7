"""The decode gap: what is left of an optimum's activation once it has become text, beside random text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import nan
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from actmax.evidence.nulls import Null, Restarts, against
from actmax.evidence.readings import GapEnd
from actmax.model.evaluation import activations, cross_entropies, random_activations, random_tokens
from actmax.model.nearest import NearestTokens
from actmax.model.objective import Objective
from actmax.model.settings import GapSettings
from actmax.model.subject import Subject
from actmax.model.target import Unit

PREDICTIONS = 1_000
"""Draws from the null of a mean over as many random sequences as there are restarts."""
STAGES = ("initial", "final", "snapped", "retokenised")
"""Stages of an optimum's way to text."""


@dataclass(frozen=True)
class RandomText:
    """What one unit does on token sequences in which nothing was sought."""

    activation: Float[ndarray, " draws"]
    """Activation of each sequence, reduced over positions like the target."""
    cross_entropy: Float[ndarray, " draws"]
    """The subject's cross-entropy of each sequence, nats per token; NaN for one token, which has nothing before it."""


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
    random: RandomText
    """Activation and cross-entropy of random token sequences."""

    def z(self, stage: str) -> float:
        """Mean over restarts at a stage of `STAGES`, in standard deviations of one random sequence."""
        deviation = float(self.random.activation.std(ddof=1))
        return (_mean(getattr(self, stage)) - self._base) / deviation if deviation > 0 else nan

    def kept(self, stage: str) -> float:
        """The share of the optimum's gain over random text that is left at a stage; NaN where there was no gain."""
        gain = _mean(self.final) - self._base
        return (_mean(getattr(self, stage)) - self._base) / gain if self.gained else nan

    @property
    def gained(self) -> bool:
        """Whether the optimum differs from random text at all (two-sided, p ≤ 0.05)."""
        return self.null("final").p <= 0.05

    def null(self, name: str) -> Null:
        """A mean over restarts beside the mean of as many random token sequences.

        Null hypothesis: the restarts' sequences are exchangeable with token sequences drawn uniformly. The null is
        the predictive distribution of such a mean under Rubin's Bayesian bootstrap of the random sequences (1981,
        Ann. Statist. 9:130), so that it also knows how few they were. Two-sided.

        Args:
            name: a stage of `STAGES`, or `cross_entropy`.
        """
        values = getattr(self, name)
        drawn = self.random.cross_entropy if name == "cross_entropy" else self.random.activation
        count = int(np.isfinite(values).sum())
        if count == 0 or not np.isfinite(drawn).all():
            return Null(nan, nan, nan, nan, nan, len(drawn))
        return against(_mean(values), predictive(len(drawn), count) @ drawn)

    @property
    def lost_at(self) -> GapEnd:
        """Where the gain is lost: the first stage that leaves less than half of it."""
        if not self.gained:
            return GapEnd.NO_GAIN
        if self.kept("snapped") < 0.5:
            return GapEnd.SNAP
        return GapEnd.SURVIVES if self.kept("retokenised") >= 0.5 else GapEnd.RETOKENISE

    @property
    def _base(self) -> float:
        return float(self.random.activation.mean())

    def flat(self) -> dict[str, Any]:
        """The numbers by column name; the null of `snapped` gives `null_snapped_mean`, `_low`, `_high`, `_p`."""
        optimum = self.null("final")
        numbers: dict[str, Any] = {
            "random_activation_mean": self._base,
            "random_activation_sd": float(self.random.activation.std(ddof=1)),
            "text_draws": optimum.draws,
        }
        for stage in ("snapped", "retokenised"):
            numbers |= {f"activation_{stage}_mean": _mean(getattr(self, stage)), f"kept_{stage}": self.kept(stage)}
            numbers |= self.null(stage).columns(stage)
        numbers |= {f"z_{stage}": self.z(stage) for stage in STAGES}
        numbers |= {
            "retokenised_same": float(np.mean(self.same)),
            "cross_entropy_mean": _mean(self.cross_entropy),
            "cross_entropy_initial_mean": _mean(self.cross_entropy_initial),
        }
        numbers |= optimum.columns("final") | self.null("cross_entropy").columns("cross_entropy")
        return numbers | {"gap": self.lost_at.value}


def _mean(values: Float[ndarray, " restarts"]) -> float:
    """The mean over restarts that have a value: a text of no tokens has no activation."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else nan


@lru_cache(maxsize=8)
def predictive(draws: int, count: int) -> Float[ndarray, "predictions draws"]:
    """Weights that make means of `count` new values from `draws` old ones, by the Bayesian bootstrap."""
    # Each prediction first draws a distribution that the old values may come from (weights uniform on the simplex),
    # then `count` new values from it: their mean varies because they are few, and because the old values are few.
    generator = np.random.default_rng([draws, count])
    chances = generator.dirichlet(np.ones(draws), size=PREDICTIONS)
    return generator.multinomial(count, chances) / count


@torch.no_grad()
def measure(
    subject: Subject,
    objective: Objective,
    found: Mapping[Unit, Restarts],
    nearest: NearestTokens,
    *,
    settings: GapSettings,
) -> dict[Unit, Gap]:
    """The decode gap of each unit.

    Args:
        subject: the model that the restarts were optimized against.
        objective: what the restarts were optimized for; its reduction counts.
        found: the restarts of each unit.
        nearest: the nearest tokens of the subject.
        settings: size and seed of the null of random text.
    """
    units = [unit for unit, restarts in found.items() for _ in restarts.final]
    begun, ids = (
        torch.cat([nearest(getattr(restarts, name)).best for restarts in found.values()])
        for name in ("initial", "final")
    )
    texts = [subject.text(row) for row in ids.tolist()]
    again = [subject.tokens(text) for text in texts]
    snapped = activations(subject, objective, ids.tolist(), units)
    retokenised = activations(subject, objective, again, units)
    entropy, before = cross_entropies(subject, ids), cross_entropies(subject, begun)
    random = _random_text(subject, objective, list(found), ids.shape[1], settings)
    gaps, start = {}, 0
    for unit, restarts in found.items():
        rows = slice(start, start + len(restarts.final))
        start = rows.stop
        gaps[unit] = Gap(
            initial=restarts.activation_initial.double().numpy(),
            final=restarts.activation_final.double().numpy(),
            snapped=snapped[rows],
            retokenised=retokenised[rows],
            texts=tuple(texts[rows]),
            same=tuple(one == two for one, two in zip(again[rows], ids[rows].tolist(), strict=True)),
            lengths=tuple(len(one) for one in again[rows]),
            cross_entropy=entropy[rows],
            cross_entropy_initial=before[rows],
            random=random[unit],
        )
    return gaps


def _random_text(
    subject: Subject, objective: Objective, units: Sequence[Unit], tokens: int, settings: GapSettings
) -> dict[Unit, RandomText]:
    entropy = _random_entropies(subject, tokens, settings)
    found = random_activations(subject, objective, tuple(units), tokens, settings)
    return {unit: RandomText(found[:, number], entropy) for number, unit in enumerate(units)}


@lru_cache(maxsize=2)
def _random_entropies(subject: Subject, tokens: int, settings: GapSettings) -> Float[ndarray, " draws"]:
    """Cross-entropies of random sequences, which are the same for all units of a subject."""
    return cross_entropies(subject, random_tokens(subject, tokens, draws=settings.draws, seed=settings.seed))
