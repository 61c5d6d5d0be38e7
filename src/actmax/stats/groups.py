"""`compare`: every statistic of two groups, a row per unit, and a status that says what does not exist and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from actmax.errors import InputError
from actmax.progress import DELAY, Bar
from actmax.stats._effects import cohens_d, hedges_factor, noncentrality_interval
from actmax.stats._inputs import Block, Readable, Samples, block_of, check_level, check_samples, check_unit, flat
from actmax.stats._logistic import Fit, Predictor, Side, fit_firth, fit_ml, predictor_of, probabilities
from actmax.stats._logspace import Tail, chi2_one_df, normal_two_sided, t_two_sided
from actmax.stats._ranks import Ranks, auc_limits, mann_whitney, rank_statistics
from actmax.stats.corrections import p_columns
from actmax.stats.sizes import Caution, cautions
from actmax.stats.ttests import (
    Moments,
    constant_difference,
    difference,
    differences,
    group_moments,
    paired_t,
    score_chi2,
    student,
    welch,
)

STATUSES = (
    "not_finite",
    "too_few",
    "constant",
    "constant_difference",
    "separated",
    "quasi_separated",
    "not_converged",
    "ok",
)
"""What a row's `status` may be; the first that applies is given."""
P_COLUMNS = (
    "mannwhitney_p", "student_p", "welch_p", "paired_p", "logit_wald_p", "logit_lr_p", "score_p", "firth_lr_p",
)  # fmt: skip
"""Columns of p-values; beside each stand its `_log10`, `_bonferroni` and `_bh`."""
ML_COLUMNS = ("logit_coef", "logit_intercept", "logit_se", "logit_coef_std", "logit_lr", "logit_wald_z")
"""Columns that exist only where the likelihood has a maximum."""
FIRTH_COLUMNS = ("firth_coef", "firth_intercept", "firth_se", "firth_coef_std", "firth_lr")
"""Columns of Firth's fit, which exist wherever the unit varies."""
SEPARATED = ("separated", "quasi_separated")
"""Statuses of units at which the likelihood has no maximum."""
D_STATUSES = ("missing", "normal_only", "ok")
"""What `Comparison.d_status` may be; the first that applies is given."""
NORMAL_ONLY_FROM = 0.5
"""|d| beyond which its interval is too narrow in groups that are not normal; docs/statistics.md has the measurement."""

Columns = dict[str, ndarray]
"""Columns of the table by name, a value per unit."""


@dataclass(frozen=True)
class Comparison:
    """Two groups of activations compared, unit by unit."""

    table: pd.DataFrame
    """A row per unit, in the activations' column order; see `compare` for the columns."""
    alpha: float
    """Level of the test; the intervals cover 1 - alpha."""
    samples: Samples = field(repr=False)
    """Activations and labels that were compared, from which `probabilities` fits again."""

    def __repr__(self) -> str:
        n_0, n_1 = self.sizes
        shown = f"{len(self.table)} units, {n_0} against {n_1} samples, alpha {self.alpha:g}: table has a row per unit"
        doubtful, narrow = ", ".join(one.test for one in self.cautions), int((self.d_status == "normal_only").sum())
        shown += f"; see .cautions on {doubtful}" if doubtful else ""
        return f"{shown}; see .d_status on the interval of d ({narrow} of them)" if narrow else shown

    @property
    def sizes(self) -> tuple[int, int]:
        """Samples in group 0 and in group 1."""
        n_1 = int(np.count_nonzero(self.samples.is_1))
        return len(self.samples.is_1) - n_1, n_1

    @property
    def cautions(self) -> tuple[Caution, ...]:
        """The tests that reject too often in groups of these sizes, at the level that a scan of these units needs."""
        families = {name: int(np.count_nonzero(self.table[name].notna())) for name in P_COLUMNS}
        return cautions(*self.sizes, self.alpha, families)

    @property
    def d_status(self) -> pd.Series:
        """What the interval of Cohen's d asks of the groups, a value per unit, one of `D_STATUSES`.

        - `missing`: there is no d.
        - `normal_only`: |d| is above `NORMAL_ONLY_FROM`, and the interval covers what it says in normal groups only; in
          skewed or heavy-tailed ones it is too narrow, and `auc_interval` stands beside it.
        - `ok`: it holds in moderately skewed and heavy-tailed groups, too, not in those of extreme tails (log-normal).

        A sample does not show its own tail, so this is by the size of d alone.
        """
        size = self.table["cohens_d"].abs()
        known = [size.isna(), size > NORMAL_ONLY_FROM]
        return pd.Series(np.select(known, D_STATUSES[:2], D_STATUSES[2]), index=self.table.index, name="d_status")

    def auc_interval(self) -> pd.DataFrame:
        """The AUC with an interval that asks nothing of the distribution: `auc auc_low auc_high`, a row per unit.

        Beside Cohen's d, whose interval rests on normal groups and is too narrow for large effects in skewed or
        heavy-tailed ones. Assumptions: independent samples. Formula: the θ with |θ̂ - θ| ≤ z √(θ(1 - θ)(1 + n*((1 -
        θ)/(2 - θ) + θ/(1 + θ)))/(n_0 n_1)), n* = N/2 - 1, z of level 1 - alpha. Reference: Newcombe 2006, Statist. Med.
        25:559, method 5. NaN where the AUC is.

        Example:
            >>> compare([0.1, 0.4, 0.2, 0.9, 0.3, 1.2], [0, 0, 0, 1, 1, 1]).auc_interval().round(2).iloc[0].tolist()
            [0.89, 0.4, 0.99]
        """
        auc = self.table["auc"].to_numpy(dtype=float)
        low, high = auc_limits(auc, *self.sizes, self.alpha)
        return pd.DataFrame({"auc": auc, "auc_low": low, "auc_high": high}, index=self.table.index)

    def _repr_html_(self) -> str:
        """The table, as a notebook shows it."""
        return str(self.table.to_html(max_rows=20, max_cols=24, notebook=True))

    def probabilities(self, unit: int, *, method: str = "ml") -> Float[ndarray, " samples"]:
        """The fitted probability of group 1 at each sample.

        Args:
            unit: the unit's number, from 0.
            method: `ml` (maximum likelihood; NaN where it has no maximum) or `firth` (always finite, drawn to 1/2).
        """
        unit = check_unit(unit, len(self.table))
        if method not in ("ml", "firth"):
            raise InputError("method", method, "ml or firth", "firth exists for separated units too.")
        block = block_of(self.samples.values[:, [unit]], self.samples.is_1)
        known = np.isfinite(self.table["logit_coef" if method == "ml" else "firth_coef"].to_numpy()[unit])
        if not known:
            return np.full(len(self.samples.is_1), np.nan)
        x = predictor_of(block)
        fit = (fit_ml if method == "ml" else fit_firth)(x.values, x.side)
        return probabilities(x.values, fit.intercept, fit.slope)[0]


def compare(
    activations: Readable,
    labels: Readable,
    *,
    pairs: Readable | None = None,
    alpha: float | int = 0.05,
    hedges: bool = False,
    by: bool = False,
) -> Comparison:
    """Compares two groups of activations with t-tests, ranks and logistic regression, a row per unit.

    Null hypothesis: the unit does not differ between the groups: in its mean (`student`, `welch`, `paired`), its
    distribution (`mannwhitney`), or the log odds of group 1 along it (`logit_wald`, `logit_lr`, `score`, `firth_lr`).
    Assumptions: samples are independent (words or restarts, not the steps of one run or the tokens of one prompt).
    Differences are group 1 minus group 0. Formulas and references stand at each statistic and in `docs/statistics.md`.

    The columns: `n_0 n_1 mean_0 mean_1 cohens_d cohens_d_low cohens_d_high auc student_t welch_t welch_df paired_t
    n_pairs logit_coef logit_intercept logit_se logit_lr firth_coef firth_intercept firth_se status`, the eight p of
    `P_COLUMNS`, each also as `_log10`, `_bonferroni` and `_bh`, and beside them `sd_0 sd_1 logit_coef_std
    firth_coef_std logit_wald_z score firth_lr` (`_std` is per standard deviation of all samples).

    Args:
        activations: (samples, units) or (samples,), numpy or torch, any float dtype; computed in float64.
        labels: 0 or 1 per sample.
        pairs: a name per sample, the same for the two samples of a pair; only for what is really paired.
        alpha: the intervals of Cohen's d cover 1 - alpha.
        hedges: also give `hedges_g` with its interval, Cohen's d without its small-sample bias.
        by: also give every p's Benjamini-Yekutieli correction, `_by`.

    Raises:
        InputError: a ValueError that names the argument, its value, what is allowed and the way out.

    Example:
        >>> result = compare([[0.1], [0.4], [0.2], [0.9], [0.3], [1.2]], [0, 0, 0, 1, 1, 1])
        >>> result.table.loc[0, "status"]
        'ok'
    """
    alpha = check_level("alpha", alpha)
    samples = check_samples(activations, labels, pairs)
    # A copy: the caller may reuse the array, and `probabilities` reads it later.
    samples = replace(samples, values=samples.values.copy())
    table = _table(_columns(samples, alpha, hedges=hedges, by=by)).set_axis(samples.units, axis=0)
    return Comparison(table, alpha, samples)


def _columns(samples: Samples, alpha: float, *, hedges: bool, by: bool) -> Columns:
    """All columns of all units: statistics block by block, then the p-values, which need the whole call."""
    with np.errstate(all="ignore"):
        parts = []
        with Bar("comparison", samples.values.shape[1], unit="unit", scale=True, delay=DELAY) as bar:
            for block in samples.blocks():
                parts.append(_statistics(block, samples.pairs))
                bar.advance(len(block.raw))
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        del parts  # the p-values below need as much again
        n_0, n_1 = int((~samples.is_1).sum()), int(samples.is_1.sum())
        columns = _blank(columns | _effect_columns(columns["student_t"], n_0, n_1, alpha, hedges=hedges))
        tails = _tails(columns, n_0, n_1)
    for name in P_COLUMNS:
        columns |= p_columns(name, tails[name], by=by)
    return columns | {"n_0": np.full(len(columns["auc"]), n_0), "n_1": np.full(len(columns["auc"]), n_1)}


def _statistics(block: Block, pairs: Int[ndarray, "pairs 2"] | None) -> Columns:
    """All statistics of a block that need its samples; p-values need only these."""
    n_pairs = 0 if pairs is None else len(pairs)
    units = len(block.raw)
    columns: Columns = {"n_pairs": np.full(units, n_pairs), "finite": block.finite}
    if min(block.n_0, block.n_1) < 2:
        return columns | _too_few(block)
    m_0, m_1 = group_moments(block, ~block.is_1), group_moments(block, block.is_1)
    diff, ranks = difference(block, m_0, m_1), rank_statistics(block.raw, block.is_1)
    welch_t, welch_df = welch(diff, m_0, m_1)
    apart = None if pairs is None else differences(block, pairs)
    status = _status(block, m_0, m_1, apart)
    columns |= _moment_columns(block, m_0, m_1) | {"student_t": student(diff, m_0, m_1), "welch_t": welch_t}
    columns |= {"welch_df": welch_df, "score": score_chi2(block, m_0, m_1), **ranks._asdict()}
    columns["auc"] = np.where(status == "constant", 0.5, ranks.u_1 / (block.n_0 * block.n_1))
    columns["paired_t"] = np.full(units, np.nan) if apart is None else paired_t(block, apart)
    return columns | _logistic_columns(block, status, _overlap(m_0, m_1) == "ok")


def _too_few(block: Block) -> Columns:
    """The columns where a group has fewer than two samples: means, and NaN for everything else."""
    names = {"student_t", "welch_t", "welch_df", "score", "auc", "paired_t", "sd_0", "sd_1"}
    names |= {*Ranks._fields, *ML_COLUMNS, *FIRTH_COLUMNS}
    columns: Columns = {name: np.full(len(block.raw), np.nan) for name in names}
    for group, chosen in (("mean_0", ~block.is_1), ("mean_1", block.is_1)):
        columns[group] = _raw_mean(block, block.centred[:, chosen].mean(axis=1))
    return columns | {"status": np.where(block.finite, "too_few", "not_finite").astype(object)}


def _moment_columns(block: Block, m_0: Moments, m_1: Moments) -> Columns:
    """Means and standard deviations of both groups, in the units of the activations."""
    columns = {"mean_0": _raw_mean(block, m_0.mean), "mean_1": _raw_mean(block, m_1.mean)}
    columns["sd_0"] = np.ldexp(m_0.root_ss / np.sqrt(m_0.n - 1), block.exponent)
    columns["sd_1"] = np.ldexp(m_1.root_ss / np.sqrt(m_1.n - 1), block.exponent)
    return columns


def _raw_mean(block: Block, mean: Float[ndarray, " units"]) -> Float[ndarray, " units"]:
    """Means of `Block.centred` in the units of the activations."""
    return np.ldexp(block.centre + np.ldexp(mean, block.spread_exponent), block.exponent)


def _status(block: Block, m_0: Moments, m_1: Moments, apart: Float[ndarray, "units pairs"] | None) -> ndarray:
    """The statuses that follow from the groups' ranges: exact, and the same whichever way the labels stand."""
    constant = flat(np.minimum(m_0.low, m_1.low), np.maximum(m_0.high, m_1.high), block.eps)
    same = np.zeros(len(constant), dtype=bool) if apart is None else constant_difference(block, apart)
    names = ["not_finite", "constant", "constant_difference"]
    return np.select([~block.finite, constant, same], names, _overlap(m_0, m_1)).astype(object)


def _overlap(m_0: Moments, m_1: Moments) -> ndarray:
    """Whether the groups' ranges meet: `separated`, `quasi_separated` or `ok`."""
    # On one predictor the likelihood has no maximum exactly where one group's range ends where the other's begins, or
    # before (Albert & Anderson 1984): β grows without end, and only samples at a shared end stay undecided.
    separated = (m_0.high < m_1.low) | (m_1.high < m_0.low)
    touching = (m_0.high == m_1.low) | (m_1.high == m_0.low)
    return np.select([separated, touching], list(SEPARATED), "ok")


def _logistic_columns(block: Block, status: ndarray, overlap: ndarray) -> Columns:
    """Both fits where they exist, mapped back to the units of the activations."""
    x, varied = predictor_of(block), (status != "constant") & (status != "not_finite")
    overlap = varied & overlap
    ml, firth = _fit_where(overlap, x, fit_ml), _fit_where(varied, x, fit_firth)
    failed = (overlap & ~ml.converged) | (varied & ~firth.converged)
    status = np.where(failed & (status == "ok"), "not_converged", status)
    deviation = x.values.std(axis=1)
    columns = _raw_columns("logit", ml, x, deviation) | _raw_columns("firth", firth, x, deviation)
    return columns | {"logit_wald_z": ml.slope / ml.se, "status": status}


def _raw_columns(name: str, fit: Fit, x: Predictor, deviation: Float[ndarray, " units"]) -> Columns:
    """A fit of a predictor in the units of the activations."""
    # α + β(raw/2^e - offset), with e the predictor's exponent, is (α - β·offset) + (β/2^e) raw.
    return {
        f"{name}_coef": np.ldexp(fit.slope, -x.exponent),
        f"{name}_intercept": fit.intercept - fit.slope * x.offset,
        f"{name}_se": np.ldexp(fit.se, -x.exponent),
        f"{name}_coef_std": fit.slope * deviation,
        f"{name}_lr": fit.lr,
    }


def _fit_where(rows: Bool[ndarray, " units"], x: Predictor, fit_rows: Callable[[ndarray, Side], Fit]) -> Fit:
    """A fit of the chosen rows, NaN in the others."""
    found = fit_rows(x.values[rows], x.side)
    columns = [np.full(len(rows), np.nan) for _ in range(4)]
    for column, values in zip(columns, found[:4], strict=True):
        column[rows] = values
    converged = np.zeros(len(rows), dtype=bool)
    converged[rows] = found.converged
    return Fit(columns[0], columns[1], columns[2], columns[3], converged)


def _effect_columns(t: Float[ndarray, " units"], n_0: int, n_1: int, alpha: float, *, hedges: bool) -> Columns:
    """Cohen's d and its interval; NaN where t is."""
    columns: Columns = {name: np.full(len(t), np.nan) for name in ("cohens_d_low", "cohens_d_high")}
    known, df = np.isfinite(t), n_0 + n_1 - 2
    if known.any():
        low, high = noncentrality_interval(t[known], float(df), alpha)
        columns["cohens_d_low"][known] = cohens_d(low, n_0, n_1)
        columns["cohens_d_high"][known] = cohens_d(high, n_0, n_1)
    columns["cohens_d"] = cohens_d(t, n_0, n_1)
    if hedges:
        factor = hedges_factor(float(df)) if df > 1 else np.nan
        columns |= {name.replace("cohens_d", "hedges_g"): factor * column for name, column in list(columns.items())}
    return columns


def _blank(columns: Columns) -> Columns:
    """NaN where a number does not exist: units that are not finite keep only their counts, and inf becomes NaN."""
    status, broken = columns["status"], ~columns["finite"]
    numbers = {name: column for name, column in columns.items() if column.dtype == np.float64}
    overflow = np.any([np.isinf(column) for column in numbers.values()], axis=0)
    constant = status == "constant"
    for name, column in numbers.items():
        gone = broken | np.isinf(column)
        if name not in ("mean_0", "mean_1", "sd_0", "sd_1", "auc"):
            gone |= constant
        columns[name] = np.where(gone, np.nan, column)
    columns["status"] = np.where(broken | overflow, "not_finite", status)
    return columns


def _tails(columns: Columns, n_0: int, n_1: int) -> dict[str, Tail]:
    """The p-value of each test and its logarithm, from the test's statistic."""
    t, count = columns["student_t"], columns["n_pairs"]
    return {
        "mannwhitney_p": mann_whitney(Ranks(*(columns[name] for name in Ranks._fields)), n_0, n_1),
        "student_p": t_two_sided(t, np.full(len(t), float(max(n_0 + n_1 - 2, 1)))),
        "welch_p": t_two_sided(columns["welch_t"], columns["welch_df"]),
        "paired_p": t_two_sided(columns["paired_t"], np.maximum(count - 1.0, 1.0)),
        "logit_wald_p": normal_two_sided(columns["logit_wald_z"]),
        "logit_lr_p": chi2_one_df(columns["logit_lr"]),
        "score_p": chi2_one_df(columns["score"]),
        "firth_lr_p": chi2_one_df(columns["firth_lr"]),
    }


def _table(columns: Columns) -> pd.DataFrame:
    """The columns in the order in which they are read."""
    names = ["n_0", "n_1", "mean_0", "mean_1", "sd_0", "sd_1", "cohens_d", "cohens_d_low", "cohens_d_high"]
    names += ["hedges_g", "hedges_g_low", "hedges_g_high", "auc", "mannwhitney_p", "student_t", "student_p", "welch_t"]
    names += ["welch_df", "welch_p", "paired_t", "paired_p", "n_pairs", "logit_coef", "logit_coef_std"]
    names += [
        "logit_intercept",
        "logit_se",
        "logit_wald_z",
        "logit_wald_p",
        "logit_lr",
        "logit_lr_p",
        "score",
        "score_p",
    ]
    names += ["firth_coef", "firth_coef_std", "firth_intercept", "firth_se", "firth_lr", "firth_lr_p"]
    order = []
    for name in names:
        order += [name, *(f"{name}{end}" for end in ("_log10", "_bonferroni", "_bh", "_by"))]
    return pd.DataFrame({name: columns[name] for name in [*order, "status"] if name in columns})
