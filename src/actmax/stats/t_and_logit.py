"""How far the t-test and logistic regression say the same, over the units of one comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar

from actmax.errors import InputError
from actmax.stats.groups import SEPARATED, Comparison

TESTS = {"student": "student_p", "welch": "welch_p"}
"""The t-tests, and the column of each one's p."""
LOGISTIC = {"logit_wald": "logit_wald_p", "logit_lr": "logit_lr_p", "score": "score_p", "firth_lr": "firth_lr_p"}
"""The tests of the logistic slope, and the column of each one's p."""
LEVELS = ("raw", "bonferroni", "bh")
"""How p is corrected before it is compared with alpha."""


@dataclass(frozen=True)
class Concordance:
    """How far the t-tests and the tests of logistic regression agree over many units."""

    correlations: pd.DataFrame
    """A row per pair of measures (`x`, `y`) and set of units (`units`: `all` or `overlapping`, the latter without
    separated ones): `n pearson spearman`, over the units where both exist. NaN below three units or where one measure
    is constant."""
    agreement: pd.DataFrame
    """A row per pair of tests (`t_test`, `logistic`), threshold (`level`: `raw`, `bonferroni`, `bh`) and set of units:
    `n both t_only logistic_only neither agreement kappa mcnemar_p`."""
    theory: pd.DataFrame
    """A row per unit with a Student's t: `student_t score predicted difference`; the score χ² is N t²/(N - 2 + t²), so
    `difference` is rounding."""
    alpha: float
    """Level of significance, raw and corrected."""

    @property
    def headline(self) -> dict[str, Any]:
        """How closely t and the standardised β go together and how often the tests agree, over overlapping units.

        `units pearson` of the correlation, `compared agreement` of Student's t-test and the likelihood-ratio test
        without correction, their level `alpha`, and `theory_largest_difference`.
        """
        row = _only(self.correlations, x="student_t", y="logit_coef_std", units="overlapping")
        agreed = _only(self.agreement, t_test="student", logistic="logit_lr", level="raw", units="overlapping")
        return {
            "units": row["n"],
            "pearson": row["pearson"],
            "compared": agreed["n"],
            "agreement": agreed["agreement"],
            "alpha": self.alpha,
            "theory_largest_difference": self.theory["difference"].abs().max(),
        }


def _only(frame: pd.DataFrame, **chosen: str) -> dict[str, Any]:
    """The one row with these values."""
    rows = frame.to_dict("records")
    return next(row for row in rows if all(row[name] == value for name, value in chosen.items()))


def concordance(comparison: Comparison) -> Concordance:
    """Sets Student's and Welch's t-test beside the logistic tests, over the units of a comparison.

    Null hypothesis of McNemar's test: each of two tests rejects as often where the other does not; exact binomial.
    Assumptions: none for the table itself; units of one model are not independent, so read kappa and McNemar's p as
    descriptions. Formulas: κ = (p_o - p_e)/(1 - p_e); Pearson and Spearman of β (raw and per standard deviation) with
    t, and of log10 p with log10 p. References: Cohen 1960, Educ. Psychol. Meas. 20:37; McNemar 1947, Psychometrika
    12:153. The theory: the score χ² is N·t²/(N-2+t²), so t-test and score test order units alike, and Wald and
    likelihood ratio differ only in how they estimate β's error; where groups are separated there is no β, and
    `overlapping` leaves those units out.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> from actmax.stats import compare
        >>> found = concordance(compare(rng.normal(size=(40, 50)), np.repeat([0, 1], 20)))
        >>> bool(found.theory["difference"].abs().max() < 1e-9)
        True
    """
    table = comparison.table
    if len(table) < 3:
        raise InputError("comparison", f"{len(table)} units", "at least 3 units", "Compare more units in one call.")
    sets = {"all": np.ones(len(table), dtype=bool), "overlapping": ~table["status"].isin(SEPARATED).to_numpy()}
    measures = _measures()
    correlations = [_correlation(table.loc[rows], x, y, name) for name, rows in sets.items() for x, y in measures]
    agreement = [
        _agreement(table.loc[rows], t_test, logistic, level, comparison.alpha) | {"units": name}
        for name, rows in sets.items() for t_test in TESTS for logistic in LOGISTIC for level in LEVELS
    ]  # fmt: skip
    return Concordance(pd.DataFrame(correlations), pd.DataFrame(agreement), _theory(table), comparison.alpha)


def _measures() -> list[tuple[str, str]]:
    """The pairs of columns that are correlated."""
    betas = ("logit_coef", "logit_coef_std", "firth_coef", "firth_coef_std")
    pairs = [(f"{test}_t", beta) for test in TESTS for beta in betas]
    return pairs + [(f"{t}_log10", f"{p}_log10") for t in TESTS.values() for p in LOGISTIC.values()]


def _correlation(table: pd.DataFrame, x: str, y: str, units: str) -> dict[str, object]:
    both = table[[x, y]].to_numpy(float)
    both = both[np.isfinite(both).all(axis=1)]
    found: dict[str, object] = {"x": x, "y": y, "units": units, "n": len(both), "pearson": np.nan, "spearman": np.nan}
    if len(both) < 3 or (np.ptp(both, axis=0) == 0).any():
        return found
    # Pearson on values divided by their largest: at scales like 1e150 the sums of squares would overflow.
    scaled, ranks = both / np.abs(both).max(axis=0), stats.rankdata(both, axis=0)
    pearson, spearman = np.corrcoef(scaled.T)[0, 1], np.corrcoef(ranks.T)[0, 1]
    return found | {"pearson": float(pearson), "spearman": float(spearman)}


def _agreement(table: pd.DataFrame, t_test: str, logistic: str, level: str, alpha: float) -> dict[str, object]:
    end = "" if level == "raw" else f"_{level}"
    p = table[[f"{TESTS[t_test]}{end}", f"{LOGISTIC[logistic]}{end}"]].to_numpy(float)
    p = p[np.isfinite(p).all(axis=1)]
    by_t, by_logistic = p[:, 0] <= alpha, p[:, 1] <= alpha
    counts = {"both": by_t & by_logistic, "t_only": by_t & ~by_logistic, "logistic_only": ~by_t & by_logistic}
    counts |= {"neither": ~by_t & ~by_logistic}
    cells = {name: int(chosen.sum()) for name, chosen in counts.items()}
    summary = {"t_test": t_test, "logistic": logistic, "level": level, "n": len(p), **cells}
    return {**summary, **_summaries(by_t, by_logistic, cells)}


def _summaries(
    by_t: Bool[ndarray, " units"], by_logistic: Bool[ndarray, " units"], cells: dict[str, int]
) -> dict[str, float]:
    """Agreement, Cohen's κ (NaN where neither test ever varies) and McNemar's exact p."""
    if not len(by_t):
        return {"agreement": np.nan, "kappa": np.nan, "mcnemar_p": np.nan}
    observed = float((by_t == by_logistic).mean())
    t, logistic = by_t.mean(), by_logistic.mean()
    chance = float(t * logistic + (1 - t) * (1 - logistic))
    kappa = (observed - chance) / (1 - chance) if chance < 1 else np.nan
    square = [[cells["both"], cells["t_only"]], [cells["logistic_only"], cells["neither"]]]
    return {"agreement": observed, "kappa": kappa, "mcnemar_p": float(mcnemar(square, exact=True).pvalue)}  # pyright: ignore


def _theory(table: pd.DataFrame) -> pd.DataFrame:
    """The score χ² as computed, and as the function of the pooled t that it equals."""
    known = table.loc[table["student_t"].notna()]
    t, score, total = known["student_t"].to_numpy(), known["score"].to_numpy(), (known["n_0"] + known["n_1"]).to_numpy()
    predicted = predicted_score(t, total)
    columns = {"student_t": t, "score": score, "predicted": predicted, "difference": score - predicted}
    return pd.DataFrame(columns, index=known.index)


def predicted_score(t: Float[ndarray, " units"], total: ndarray) -> Float[ndarray, " units"]:
    """N·t²/(N - 2 + t²), without squaring a t that may be huge."""
    size = np.abs(t)
    small, inverse = np.minimum(size, 1.0) ** 2, 1 / np.maximum(size, 1.0)
    return np.where(size > 1, total / ((total - 2) * inverse**2 + 1), total * small / (total - 2 + small))
