"""How often each test rejects where nothing differs: an independent simulation, one unit after the other.

Writes tests/reference/comparison/calibration.csv, which `tests/comparison/test_calibration.py` holds `compare` against.
It imports nothing of actmax: t-tests from scipy, logistic regression from statsmodels, Firth's from a general optimizer
over the penalised likelihood as Heinze & Schemper (2002) write it, Mann-Whitney's exact rate by counting. About eight
minutes.

    python scripts/calibration.py [--units 30000] [--seed 7]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import statsmodels.api as sm
from scipy import optimize, stats

OUTPUT = Path(__file__).parents[1] / "tests" / "reference" / "comparison" / "calibration.csv"
N = 20
LEVELS = (0.05, 0.01)


def negative_penalised(theta, x, y):
    """Minus Firth's penalised log likelihood."""
    eta = theta[0] + theta[1] * x
    weight = 1 / (2 + 2 * np.cosh(eta))
    determinant = weight.sum() * (weight * x * x).sum() - (weight * x).sum() ** 2
    return -(y * eta - np.logaddexp(0, eta)).sum() - 0.5 * np.log(determinant)


def firth_p(x, y):
    """Penalised likelihood-ratio p, the null also under the full model's penalty."""
    full = optimize.minimize(negative_penalised, np.zeros(2), (x, y), method="BFGS", options={"gtol": 1e-6})
    null = optimize.minimize_scalar(lambda a: negative_penalised((a, 0.0), x, y), (-0.5, 0.5))
    return stats.chi2.sf(max(2 * (null.fun - full.fun), 0), 1)


def score_p(x, y):
    """Rao's test from the gradient and information at β = 0."""
    gradient = ((y - y.mean()) * x).sum()
    return stats.chi2.sf(gradient**2 / (y.mean() * (1 - y.mean()) * ((x - x.mean()) ** 2).sum()), 1)


def unit_p(x, y):
    """Every p of one unit."""
    one, zero = x[y == 1], x[y == 0]
    fit = sm.Logit(y, sm.add_constant(x)).fit(disp=0)
    return {
        "student": stats.ttest_ind(one, zero).pvalue,
        "welch": stats.ttest_ind(one, zero, equal_var=False).pvalue,
        "mannwhitney": stats.mannwhitneyu(one, zero, method="asymptotic").pvalue,
        "logit_wald": fit.pvalues[1],
        "logit_lr": fit.llr_pvalue,
        "score": score_p(x, y),
        "firth_lr": firth_p(x, y),
    }


def exact_mann_whitney(level):
    """The exact rejection rate of the normal approximation: the orders that it rejects over all orders."""
    counts = {(0, 0): 1.0}
    for rank in range(2 * N):
        following = {}
        for (ones, u), count in counts.items():
            zeros = rank - ones
            if ones < N:
                following[ones + 1, u + zeros] = following.get((ones + 1, u + zeros), 0) + count
            if zeros < N:
                following[ones, u] = following.get((ones, u), 0) + count
        counts = following
    u = np.array([key[1] for key in counts])
    z = (np.abs(u - N * N / 2) - 0.5) / np.sqrt(N * N * (2 * N + 1) / 12)
    mass = np.array(list(counts.values()))
    return float(mass[2 * stats.norm.sf(z) <= level].sum() / mass.sum())


def main():
    """Simulates and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, default=30_000)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    rng, y = np.random.default_rng(arguments.seed), np.repeat([0, 1], N)
    p = pd.DataFrame([unit_p(rng.normal(size=2 * N), y) for _ in range(arguments.units)])
    rows = []
    for test in p:
        for level in LEVELS:
            rate = float((p[test] <= level).mean())
            exact = exact_mann_whitney(level) if test == "mannwhitney" else level if test == "student" else np.nan
            error = np.sqrt(rate * (1 - rate) / arguments.units)
            rows.append({"test": test, "level": level, "rate": rate, "error": error, "exact": exact})
    table = pd.DataFrame(rows).assign(n_per_group=N, units=arguments.units)
    table.to_csv(OUTPUT, index=False, float_format="%.6g")
    print(table.to_string())


if __name__ == "__main__":
    main()
