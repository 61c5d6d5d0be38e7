"""t-test against logistic regression where the truth is known: effects from none to full separation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy import ndarray
from scipy import stats

from actmax.stats.design import Design
from actmax.stats.groups import P_COLUMNS, Comparison, compare
from actmax.stats.t_and_logit import SEPARATED, Concordance, concordance

SPREAD_RATIO = 3.0
"""Standard deviation of group 1 over group 0's in `unequal`."""
EXPLODED = 3.0
"""Factor over Firth's estimate from which β counts as exploded (as it does where it has no maximum)."""
TESTS = tuple(name for name in P_COLUMNS if name != "paired_p")
"""The tests whose rates are counted: simulated groups are not paired."""


@dataclass(frozen=True)
class Simulation:
    """What each test made of simulated units."""

    design: Design
    """Groups, distribution and effects that were simulated."""
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
    def headline(self) -> dict[str, Any]:
        """From which effect on β explodes, what the tests do at the largest effect, and how far t and β agree."""
        last = max(self.effects.to_dict("records"), key=lambda row: abs(row["effect"]))
        names = ("effect", "separation_rate", "median_student_t", "median_firth")
        return {
            "alpha": self.design.alpha,
            "explodes_at": self.explodes_at,
            "largest_effect": {name: float(last[name]) for name in names},
            "concordance": self.concordance.headline,
        }


def simulate(design: Design) -> Simulation:
    """Draws units at every effect and compares them with every test.

    Null hypothesis, at effect 0: the groups have one mean (under `unequal`, one mean but two variances). Assumptions:
    independent samples. Formulas: a rate's Monte Carlo error is √(r(1 - r)/repetitions). Reference: Morris, White &
    Crowther 2019, Statist. Med. 38:2074.

    Example:
        >>> found = simulate(Design(effects=[0.0, 6.0], repetitions=20))
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
        # Variances v and SPREAD_RATIO² v with mean 1, as all other distributions have.
        narrow = np.sqrt(2 / (1 + SPREAD_RATIO**2))
        x[: design.n_0] *= narrow
        x[design.n_0 :] *= narrow * SPREAD_RATIO
    x[design.n_0 :] += effect
    return x


def _exploded(table: pd.DataFrame) -> ndarray:
    """Where β has no maximum or exceeds Firth's estimate many times, though t and Firth's estimate exist."""
    finite = np.isfinite(table[["student_t", "firth_coef"]].to_numpy(float)).all(axis=1)
    beta, firth = np.abs(table[["logit_coef_std", "firth_coef_std"]].to_numpy(float)).T
    return finite & (np.isnan(beta) | (beta > EXPLODED * firth) & (firth > 1))


def _rate(part: pd.DataFrame, test: str, alpha: float) -> dict[str, object]:
    """How often a test rejects at one effect, with its Monte Carlo error."""
    p = part[test].to_numpy(dtype=float)
    rate = float((p <= alpha).mean())
    error = float(np.sqrt(rate * (1 - rate) / len(p)))
    named = {"effect": part["effect"].to_numpy()[0], "test": test.removesuffix("_p"), "n": len(p)}
    return {**named, "missing": float(np.isnan(p).mean()), "rate": rate, "error": error}


def _effect(part: pd.DataFrame) -> dict[str, object]:
    """What becomes of t, β and Firth's estimate at one effect."""
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
