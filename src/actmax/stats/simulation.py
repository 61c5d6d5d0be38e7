"""t-test against logistic regression where the truth is known: effects from none to full separation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy import ndarray
from scipy import stats

from actmax.errors import InputError
from actmax.stats._inputs import check_level
from actmax.stats.groups import P_COLUMNS, Comparison, compare
from actmax.stats.t_and_logit import SEPARATED, Concordance, concordance

DISTRIBUTIONS = ("normal", "skewed", "heavy", "unequal")
"""Shapes that samples are drawn from, each with a mean variance of 1 over the two groups."""
SPREAD_RATIO = 3.0
"""Standard deviation of group 1 over group 0's in `unequal`."""
EXPLODED = 3.0
"""β has exploded where it has no maximum, or exceeds Firth's estimate by this factor."""
TESTS = tuple(name for name in P_COLUMNS if name != "paired_p")


@dataclass(frozen=True)
class Design:
    """What to simulate."""

    effects: tuple[float | int, ...] = tuple(np.linspace(0.0, 6.0, 25).tolist())
    """Differences of means, in root mean standard deviations of the two groups."""
    repetitions: int = 200
    """Units drawn per effect."""
    n_0: int = 50
    """Samples in group 0."""
    n_1: int = 50
    """Samples in group 1."""
    distribution: str = "normal"
    """`normal`; `skewed` (exponential, skewness 2); `heavy` (t with 3 degrees of freedom); `unequal` (normal, standard
    deviations 1 to 3)."""
    alpha: float = 0.05
    """Level of every test."""
    seed: int = 0
    """Of the draws; an effect's draws depend on the seed and its place in the grid only."""

    def __post_init__(self) -> None:
        """Refuses what cannot be simulated, before anything is drawn."""
        check_level("alpha", self.alpha)
        if self.distribution not in DISTRIBUTIONS:
            way_out = "normal is the report's own."
            raise InputError("distribution", self.distribution, f"one of {', '.join(DISTRIBUTIONS)}", way_out)
        if not self.effects or not np.isfinite(self.effects).all():
            raise InputError(
                "effects", self.effects, "one finite number or more", "The report's grid goes from 0 to 6."
            )
        if len(set(self.effects)) < len(self.effects):
            raise InputError("effects", self.effects, "every effect once", "Take more repetitions instead.")
        for name, least in (("repetitions", 2), ("n_0", 2), ("n_1", 2)):
            if getattr(self, name) < least:
                way_out = "Some hundred repetitions of 50 against 50 take a second."
                raise InputError(name, getattr(self, name), f"a whole number from {least}", way_out)
        if len(self.effects) * self.repetitions < 3:
            raise InputError("repetitions", self.repetitions, "at least 3 units in all", "Take more repetitions.")


@dataclass(frozen=True)
class Simulation:
    """What each test made of simulated units."""

    design: Design
    """What was simulated."""
    comparison: Comparison
    """Every unit's statistics; units lie effect by effect, so unit = effect's place × repetitions + repetition."""
    units: pd.DataFrame
    """A row per unit: `effect repetition exploded` and the columns of `comparison.table`."""
    rates: pd.DataFrame
    """A row per effect and test: `effect test n missing rate error`; `rate` is the share of all repetitions that reject
    at alpha (a p that does not exist rejects nothing), `error` its Monte Carlo standard error, `missing` the share
    without a p."""
    effects: pd.DataFrame
    """A row per effect: `separation_rate separation_error explosion_rate` and the medians of |t|, |standardised β|
    (over the units that have one; `logit_known` counts them), |Firth's standardised β| and Wald's log10 p, beside the
    largest |β|."""
    concordance: Concordance
    """The t-test beside logistic regression, over all units."""

    @property
    def explodes_at(self) -> float:
        """The smallest size of effect from which on half of the β have exploded; NaN where the grid has none."""
        size, rate = self.effects["effect"].abs().to_numpy(), self.effects["explosion_rate"].to_numpy()
        calm = size[rate < 0.5].max(initial=-np.inf)
        return float(size[size > calm].min(initial=np.inf)) if (size > calm).any() else float("nan")

    @property
    def correlations_up_to(self) -> pd.DataFrame:
        """How closely t and the standardised β go together, over the overlapping units of effects up to each effect.

        A row per effect: `effect n pearson spearman`. The two part where β runs away, so the whole grid in one number
        would hide both that they agree below and that they do not above.
        """
        effect, t, beta = (self.units[name].to_numpy(dtype=float) for name in ("effect", "student_t", "logit_coef_std"))
        known = np.isfinite(t) & np.isfinite(beta)
        rows = []
        for last in self.effects["effect"]:
            chosen = known & (effect <= last)
            pair = t[chosen], beta[chosen]
            measures = (stats.pearsonr(*pair)[0], stats.spearmanr(*pair)[0]) if chosen.sum() > 2 else (np.nan, np.nan)
            rows.append({"effect": last, "n": int(chosen.sum()), "pearson": measures[0], "spearman": measures[1]})
        return pd.DataFrame(rows)

    @property
    def statement(self) -> str:
        """The finding in plain words."""
        last = self.effects.loc[self.effects["effect"].abs().idxmax()]
        where = (
            f"from an effect of {self.explodes_at:g} on" if np.isfinite(self.explodes_at) else "nowhere on this grid"
        )
        return (
            f"{self.concordance.statement} Half of the maximum-likelihood β explode or do not exist {where}; at "
            f"{last['effect']:g}, {last['separation_rate']:.0%} of units are separated, while the median |t| is "
            f"{last['median_student_t']:.1f} and Firth's median |β| per standard deviation {last['median_firth']:.1f}."
        )


def simulate(design: Design) -> Simulation:
    """Draws units at every effect and compares them with every test.

    Null hypothesis, at effect 0: the groups have one mean (under `unequal`, one mean but two variances). Assumptions:
    independent samples. Formulas: a rate's Monte Carlo error is √(r(1 - r)/repetitions). Reference: Morris, White &
    Crowther 2019, Statist. Med. 38:2074.

    Example:
        >>> found = simulate(Design(effects=(0.0, 6.0), repetitions=20))
        >>> found.effects["separation_rate"].tolist()[0]
        0.0
    """
    labels = np.repeat([0, 1], [design.n_0, design.n_1])
    drawn = [_draw(design, place, effect) for place, effect in enumerate(design.effects)]
    comparison = compare(np.concatenate(drawn, axis=1), labels, alpha=design.alpha)
    truth = {
        "effect": np.repeat(design.effects, design.repetitions),
        "repetition": np.tile(np.arange(design.repetitions), len(design.effects)),
        "exploded": _exploded(comparison.table),
    }
    units = pd.concat([pd.DataFrame(truth, index=comparison.table.index), comparison.table], axis=1)
    by_effect = [part for _, part in units.groupby("effect", sort=False)]
    rates = pd.DataFrame([_rate(part, test, design.alpha) for part in by_effect for test in TESTS])
    effects = pd.DataFrame([_effect(part) for part in by_effect])
    return Simulation(design, comparison, units, rates, effects, concordance(comparison))


def _draw(design: Design, place: int, effect: float | int) -> Float[ndarray, "samples units"]:
    """One effect's units, group 0's samples first."""
    rng = np.random.default_rng([design.seed, place])
    shape = (design.n_0 + design.n_1, design.repetitions)
    draws = {
        "normal": rng.standard_normal,
        "skewed": lambda size: rng.standard_exponential(size) - 1,
        "heavy": lambda size: rng.standard_t(3, size) / np.sqrt(3),
        "unequal": rng.standard_normal,
    }
    x = draws[design.distribution](shape)
    if design.distribution == "unequal":
        narrow = np.sqrt(2 / (1 + SPREAD_RATIO**2))
        x[: design.n_0] *= narrow
        x[design.n_0 :] *= narrow * SPREAD_RATIO
    x[design.n_0 :] += effect
    return x


def _exploded(table: pd.DataFrame) -> ndarray:
    """Where β has no maximum or has left Firth's estimate behind, though t and Firth exist."""
    finite = np.isfinite(table[["student_t", "firth_coef"]].to_numpy(float)).all(axis=1)
    beta, firth = np.abs(table[["logit_coef_std", "firth_coef_std"]].to_numpy(float)).T
    return finite & (np.isnan(beta) | (beta > EXPLODED * firth) & (firth > 1))


def _rate(part: pd.DataFrame, test: str, alpha: float) -> dict[str, Any]:
    p = part[test].to_numpy(dtype=float)
    rate = float((p <= alpha).mean())
    error = float(np.sqrt(rate * (1 - rate) / len(p)))
    row = {"effect": part["effect"].to_numpy()[0], "test": test.removesuffix("_p"), "n": len(p)}
    return row | {"missing": float(np.isnan(p).mean()), "rate": rate, "error": error}


def _effect(part: pd.DataFrame) -> dict[str, Any]:
    separated = float(np.mean(part["status"].isin(SEPARATED).to_numpy()))
    beta, firth, t = (part[name].abs() for name in ("logit_coef_std", "firth_coef_std", "student_t"))
    return {
        "effect": part["effect"].to_numpy()[0],
        "n": len(part),
        "separation_rate": separated,
        "separation_error": float(np.sqrt(separated * (1 - separated) / len(part))),
        "explosion_rate": float(np.mean(part["exploded"].to_numpy())),
        "logit_known": np.count_nonzero(beta.notna()),
        "median_logit": beta.median(),
        "largest_logit": beta.max(),
        "median_firth": firth.median(),
        "median_student_t": t.median(),
        "median_wald_log10": part["logit_wald_p_log10"].median(),
    }
