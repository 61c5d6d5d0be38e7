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

from actmax.evidence.estimates import Estimate, jackknife
from actmax.evidence.gap import beside_random
from actmax.evidence.nulls import Null, against
from actmax.evidence.pairs import Alternative
from actmax.evidence.readings import Transfer
from actmax.evidence.settings import ALPHA
from actmax.model.context import Context
from actmax.model.evaluation import activations, random_activations, random_tokens
from actmax.model.objective import Objective
from actmax.model.settings import GapSettings
from actmax.model.subject import Subject
from actmax.model.target import Place, Target

CARRIED = 0.5
"""Least share of what tokens are beyond random ones that they keep in another context, to be said to work there."""
ALIKE = 1e-9
"""Largest relative difference between shares that is taken for rounding."""
SINK_SEQUENCES = 64
"""Random sequences over which lengths are measured."""
SINK_TOKENS = 8
"""Tokens of these sequences."""


@dataclass(frozen=True)
class Carried:
    """What the tokens of one unit's restarts do in one context; the restart is the replicate."""

    activation: Float[ndarray, " restarts"]
    """Activation of each restart's tokens in the other context."""
    random: Float[ndarray, " draws"]
    """Activation of random token sequences in the other context."""
    own: bool = False
    """Whether it is the context that the tokens were found in."""
    sign: Literal["maximize", "minimize"] = "maximize"
    """Whether more activation was looked for, or less."""

    @property
    def alternative(self) -> Alternative:
        """The side of random tokens that was looked for."""
        return "greater" if self.sign == "maximize" else "less"

    @property
    def null(self) -> Null:
        """The mean over restarts beside the mean of as many random token sequences there (`beside_random`)."""
        return beside_random(self.activation, self.random, self.alternative)

    @property
    def z(self) -> Float[ndarray, " restarts"]:
        """Each restart in standard deviations of one random sequence there, positive on the side looked for."""
        spread = float(self.random.std(ddof=1))
        above = (self.activation - self.random.mean()) * (1 if self.sign == "maximize" else -1)
        return above / spread if spread > 0 else np.full(len(above), nan)

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


@dataclass(frozen=True)
class Carriage:
    """One unit in all contexts that were tried, beside the context that its tokens were found in."""

    found: Carried
    """What its tokens do in the context that they were found in."""
    contexts: Mapping[str, Carried]
    """What its tokens do in each context that was tried, by name; their own may be among them."""
    found_alpha: float
    """Level at which tokens are called beyond random ones in their own context."""

    @property
    def alpha(self) -> float:
        """The level of a claim in one context: alpha over the number of contexts but their own (Bonferroni)."""
        return ALPHA / max(1, sum(not one.own for one in self.contexts.values()))

    def share(self, name: str) -> Estimate:
        """How much of what tokens are beyond random ones in their own context they are in another: mean z over mean z.

        z counts in standard deviations of one random sequence in the same context, so that contexts in which
        everything is larger can be compared. 1 is as far beyond random tokens as where they were found, 0 is chance.
        The interval is a jackknife over restarts; how far random tokens vary is taken as known.
        """
        there, here = self.contexts[name].z, self.found.z
        whole = _ratio(there, here)
        left_out = np.array([_ratio(np.delete(there, row), np.delete(here, row)) for row in range(len(here))])
        found = jackknife(whole, left_out)
        # all restarts found the same: an interval of no width is right here
        alike = len(here) > 2 and np.allclose(left_out, whole, rtol=ALIKE, atol=0)
        return replace(found, low=whole, high=whole) if alike else found

    def works(self, name: str) -> bool | None:
        """Whether tokens work in a context: beyond random ones there, at least half as far as where they were found.

        Half is held against the lower limit of the share's interval. None where either is not known.
        """
        null, share = self.contexts[name].null, self.share(name)
        if not null.exists:
            return None
        if null.p > self.alpha:
            return False
        return share.low >= CARRIED if np.isfinite(share.low) else None

    @property
    def reading(self) -> Transfer:
        """Whether the tokens work elsewhere: in every other context, in some, or in none."""
        if not self.found.null.p <= self.found_alpha:
            return Transfer.NOTHING if self.found.null.exists else Transfer.NOT_TESTED
        works = [self.works(name) for name, one in self.contexts.items() if not one.own]
        if not works or None in works:
            return Transfer.NOT_TESTED
        return Transfer.EVERYWHERE if all(works) else Transfer.IN_PART if any(works) else Transfer.NOWHERE

    def flat(self) -> dict[str, Any]:
        """The columns of `units.parquet`: `transfer_NAME_…` and `null_transfer_NAME_…` for each context."""
        own = next((name for name, one in self.contexts.items() if one.own), None)
        columns: dict[str, Any] = {"transfer": self.reading.value, "transfer_own": own}
        for name, one in self.contexts.items():
            share, null = self.share(name), one.null
            numbers = {
                "mean": null.observed,
                "random_mean": float(one.random.mean()),
                "random_sd": float(one.random.std(ddof=1)),
                "z": float(one.z.mean()),
                "share": share.value,
                "share_low": share.low,
                "share_high": share.high,
            }
            columns |= {f"transfer_{name}_{part}": value for part, value in numbers.items()}
            claim = null.claim_columns(f"transfer_{name}", self.alpha)
            columns |= {part: float(value) for part, value in claim.items()}
        return columns


def _ratio(there: Float[ndarray, " restarts"], here: Float[ndarray, " restarts"]) -> float:
    return float(there.mean() / here.mean()) if len(here) and here.mean() > 0 else nan


def carry(
    subject: Subject,
    objective: Objective,
    found: Mapping[Target, tuple[Int[torch.Tensor, "restarts tokens"], Carried]],
    contexts: Sequence[Context],
    *,
    settings: GapSettings,
    alpha: float,
    cache: Path | None = None,
) -> dict[Target, Carriage]:
    """What tokens that were found do in some contexts, beside random tokens there.

    Args:
        subject: the model that they were found in.
        objective: what they were found for, with the context that they were found in.
        found: the tokens of each unit's restarts, and what they do in the context that they were found in.
        contexts: where they are tried.
        settings: number and seed of random sequences.
        alpha: level at which tokens are called beyond random ones in their own context.
        cache: the folder that keeps activations of random sequences.
    """
    units = tuple(found)
    rows = [unit for unit, (ids, _) in found.items() for _ in ids]
    sequences = [ids for some, _ in found.values() for ids in some.tolist()]
    carried: dict[Target, dict[str, Carried]] = {unit: {} for unit in units}
    for context in contexts:
        if same_place(context, objective):
            for unit, (_, own) in found.items():
                carried[unit][context.name] = own
            continue
        there = replace(objective, context=context)
        values = activations(subject, there, sequences, rows)
        drawn = random_activations(subject, there, units, len(sequences[0]), settings, cache)
        start = 0
        for number, (unit, (ids, _)) in enumerate(found.items()):
            start, some = start + len(ids), slice(start, start + len(ids))
            values[some][np.isnan(found[unit][1].activation)] = nan  # what has no number where it was found has none
            carried[unit][context.name] = Carried(values[some], drawn[:, number], sign=objective.sign)
    return {unit: Carriage(own, carried[unit], alpha) for unit, (_, own) in found.items()}


def same_place(context: Context, objective: Objective) -> bool:
    """Whether a context is the one that an objective has, as far as what is read depends on it."""
    seen = replace(objective, context=context).seen
    return (seen.before, seen.after) == (objective.seen.before, objective.seen.after)


@lru_cache(maxsize=4)
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
