"""Transfer: what the tokens that were found do in other contexts, beside random tokens there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import nan
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray

from actmax.evidence.gap import means_of_best
from actmax.evidence.nulls import Null, against
from actmax.evidence.pairs import Alternative
from actmax.evidence.readings import Transfer
from actmax.evidence.settings import ALPHA
from actmax.model.context import Context
from actmax.model.evaluation import activations, random_activations, random_tokens
from actmax.model.objective import Objective
from actmax.model.settings import GapSettings
from actmax.model.subject import Subject
from actmax.model.target import Place, Unit

SINK_SEQUENCES = 64
"""Random sequences over which lengths are measured."""
SINK_TOKENS = 8
"""Tokens of these sequences."""


@dataclass(frozen=True)
class Carried:
    """What the tokens of one unit's restarts do in one context; the restart is the replicate."""

    activation: Float[ndarray, " restarts"]
    """Activation of each restart's tokens there."""
    random: Float[ndarray, " draws"]
    """Activation of random token sequences there."""
    best_of: int
    """Number of random sequences of which the best is what restarts are set beside."""
    own: bool
    """Whether it is the context that the tokens were found in."""
    sign: Literal["maximize", "minimize"] = "maximize"
    """Whether more activation was looked for, or less."""

    @property
    def alternative(self) -> Alternative:
        """The side of random tokens that was looked for."""
        return "greater" if self.sign == "maximize" else "less"

    @property
    def null(self) -> Null:
        """The mean over restarts beside that of as many bests of random sequences there.

        Null hypothesis: the found tokens are there no better than the best of as many random sequences as a restart
        took forward passes (of all that were drawn, where that is fewer): whoever wanted the unit high in that context
        could as well have drawn at random.
        """
        finite = self.activation[np.isfinite(self.activation)]
        if not len(finite) or not np.isfinite(self.random).all():
            return against(nan, [], alternative=self.alternative)
        best = means_of_best(self.random, self.best_of, len(finite), sign=self.sign)
        return against(float(finite.mean()), best, alternative=self.alternative)

    def of_restart(self, number: int) -> dict[str, float]:
        """One restart beside single random sequences: their mean and 95 % interval, z, and its one-sided p."""
        value, spread = float(self.activation[number]), float(self.random.std(ddof=1))
        low, high = np.quantile(self.random, [ALPHA / 2, 1 - ALPHA / 2]).tolist()
        return {
            "activation": value,
            "random_mean": float(self.random.mean()),
            "random_low": low,
            "random_high": high,
            "z": (value - float(self.random.mean())) / spread if spread > 0 else nan,
            "p": against(value, self.random, alternative=self.alternative).p,
        }

    def flat(self, name: str, alpha: float) -> dict[str, float]:
        """The numbers by column name, `transfer_NAME_…` and `null_transfer_NAME_…`."""
        numbers = {
            "mean": self.null.observed,
            "random_mean": float(self.random.mean()),
            "random_sd": float(self.random.std(ddof=1)),
            "best_of": float(self.best_of),
        }
        columns = {f"transfer_{name}_{part}": value for part, value in numbers.items()}
        claim = self.null.claim_columns(f"transfer_{name}", alpha)
        return columns | {part: float(value) for part, value in claim.items()}


@dataclass(frozen=True)
class Carriage:
    """One unit in all contexts that were tried."""

    contexts: Mapping[str, Carried]
    """What its tokens do in each context, by name."""

    @property
    def alpha(self) -> float:
        """The level of a claim in one context: alpha over the number of contexts but their own (Bonferroni)."""
        return ALPHA / max(1, len(self._elsewhere))

    @property
    def _elsewhere(self) -> list[Carried]:
        return [one for one in self.contexts.values() if not one.own]

    @property
    def reading(self) -> Transfer:
        """Whether the tokens work elsewhere: in every other context, in some, or in none."""
        works = [one.null.p <= self.alpha for one in self._elsewhere if one.null.exists]
        if not works:
            return Transfer.NOT_TESTED
        return Transfer.EVERYWHERE if all(works) else Transfer.IN_PART if any(works) else Transfer.NOWHERE

    def flat(self) -> dict[str, Any]:
        """The columns of `units.parquet`."""
        own = next((name for name, one in self.contexts.items() if one.own), None)
        found: dict[str, Any] = {"transfer": self.reading.value, "transfer_own": own}
        for name, one in self.contexts.items():
            found |= one.flat(name, self.alpha)
        return found


def carry(
    subject: Subject,
    objective: Objective,
    found: Mapping[Unit, Int[torch.Tensor, "restarts tokens"]],
    contexts: Sequence[Context],
    *,
    passes: int,
    settings: GapSettings,
    own: GapSettings,
    cache: Path | None = None,
) -> dict[Unit, Carriage]:
    """What tokens that were found do in some contexts, beside random tokens there.

    Args:
        subject: the model that they were found in.
        objective: what they were found for, with the context that they were found in.
        found: the tokens of each unit's restarts.
        contexts: where they are tried.
        passes: forward passes that each restart took, a backward pass counted as one.
        settings: number and seed of random sequences.
        own: those of the random sequences in the context that they were found in, which have run already.
        cache: the folder that keeps activations of random sequences.
    """
    units = tuple(found)
    rows = [unit for unit, ids in found.items() for _ in ids]
    sequences = [ids for some in found.values() for ids in some.tolist()]
    carried: dict[Unit, dict[str, Carried]] = {unit: {} for unit in units}
    for context in contexts:
        there, same = replace(objective, context=context), same_place(context, objective)
        values = activations(subject, there, sequences, rows)
        drawn = random_activations(subject, there, units, len(sequences[0]), own if same else settings, cache)
        start = 0
        for number, (unit, ids) in enumerate(found.items()):
            start, some = start + len(ids), slice(start, start + len(ids))
            best_of = max(1, min(passes, len(drawn)))
            one = Carried(values[some], drawn[:, number], best_of, same, objective.sign)
            carried[unit][context.name] = one
    return {unit: Carriage(some) for unit, some in carried.items()}


def same_place(context: Context, objective: Objective) -> bool:
    """Whether a context is the one that an objective has, as far as what is read depends on it."""
    seen = replace(objective, context=context).seen
    return (seen.before, seen.after) == (objective.seen.before, objective.seen.after)


@lru_cache(maxsize=64)
@torch.no_grad()
def first_position(subject: Subject, place: Place) -> tuple[float, float]:
    """How long the activation vector is at the first position of random tokens, and at later ones; both are medians.

    Without anything before it the first token is an attention sink in most models: most of attention's weight goes to
    it, and its residual is many times as long as any later (Xiao et al. 2024, arXiv:2309.17453; Sun et al. 2024,
    arXiv:2402.17762).

    Args:
        subject: the language model.
        place: site and layer.
    """
    tokens = min(SINK_TOKENS, subject.geometry.context)
    ids = random_tokens(subject, tokens, draws=SINK_SEQUENCES, seed=0)
    lengths = subject.run(subject.embed(ids), [place])[place].double().norm(dim=2)
    return lengths[:, 0].median().item(), lengths[:, 1:].median().item()
