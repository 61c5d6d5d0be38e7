"""How fast `compare` is, beside the same columns computed unit by unit with statsmodels, scipy and firthmodels.

    python scripts/benchmark_comparison.py [--units 36864] [--samples 200] [--loop 40]

firthmodels is no dependency of actmax: install it where you run this (`pip install firthmodels`). The loop is timed on
a sample of the units and scaled up. Limit the process to two cores (`taskset -c 0,1`) to repeat the published numbers.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
import warnings

import numpy as np
import statsmodels.api as sm
from scipy import optimize, special, stats

from actmax.stats._inputs import check_samples
from actmax.stats._logistic import fit_ml, side_of
from actmax.stats.groups import compare


def d_interval(t, df, root):
    """The noncentral t interval of one unit by a bracketing root finder."""
    width = 6 + 2 * abs(t)

    def limit(target):
        return optimize.brentq(lambda ncp: special.nctdtr(df, ncp, t) - target, t - width, t + width)

    return limit(0.975) * root, limit(0.025) * root


def t_and_rank_columns(x, y):
    """What scipy gives for one unit."""
    one, zero = x[y == 1], x[y == 0]
    student, welch = stats.ttest_ind(one, zero), stats.ttest_ind(one, zero, equal_var=False)
    stats.mannwhitneyu(one, zero)
    d_interval(student.statistic, len(x) - 2, np.sqrt(1 / len(one) + 1 / len(zero)))
    return stats.norm.logsf(abs(student.statistic)), stats.t.logsf(abs(welch.statistic), welch.df)


def ml_columns(x, y):
    """Logit with its Wald and likelihood-ratio p, and the score test of statsmodels' GLM."""
    design = sm.add_constant(x)
    fit = sm.Logit(y, design).fit(disp=0)
    return fit.params, fit.bse, fit.pvalues, fit.llr_pvalue


def score_column(x, y):
    """Rao's test by statsmodels."""
    null = sm.GLM(y, np.ones((len(y), 1)), family=sm.families.Binomial()).fit()
    return null.model.score_test(null.params, exog_extra=x[:, None])


def firth_columns(x, y):
    """Firth's fit with its penalised likelihood-ratio p."""
    from firthmodels import FirthLogisticRegression

    model = FirthLogisticRegression().fit(x[:, None], y)
    model.lrt()
    return model.coef_, model.lrt_pvalues_


def seconds(function, *arguments):
    """Wall time of one call."""
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def ml_only(x, y):
    """The maximum-likelihood columns alone, as `compare` computes them."""
    samples = check_samples(x, y)
    with np.errstate(all="ignore"):
        for block in samples.blocks():
            fit_ml(block.centred, side_of(block.is_1))


def data(units, samples, seed):
    """Float32 activations of two groups with effects from none to 1.5 standard deviations."""
    rng = np.random.default_rng(seed)
    y = np.repeat([0, 1], [samples // 2, samples - samples // 2])
    x = rng.standard_normal((samples, units), dtype=np.float32)
    x[y == 1] += rng.uniform(0, 1.5, units).astype(np.float32)
    return x, y


def main():
    """Times both and prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=36_864)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--loop", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    x, y = data(arguments.units, arguments.samples, arguments.seed)
    pairs = np.r_[np.arange((y == 0).sum()), np.arange((y == 1).sum())] if 2 * y.sum() == len(y) else None
    compare(x[:, :50], y)
    ours = seconds(lambda: compare(x, y, pairs=pairs, hedges=True))
    ours_ml = seconds(ml_only, x, y)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    chosen = np.linspace(0, arguments.units - 1, arguments.loop).astype(int)
    columns = [x[:, unit].astype(np.float64) for unit in chosen]
    parts = {f.__name__: f for f in (t_and_rank_columns, ml_columns, score_column, firth_columns)}
    loop = {}
    for name, function in parts.items():
        function(columns[0], y)
        loop[name] = sum(seconds(function, column, y) for column in columns) / arguments.loop * arguments.units
    total = sum(loop.values())
    result = {
        "units": arguments.units,
        "samples": arguments.samples,
        "compare_seconds": ours,
        "compare_peak_gib": memory,
        "loop_seconds": total,
        "loop_parts_seconds": loop,
        "times_faster": total / ours,
        "ml_seconds": ours_ml,
        "ml_times_faster": loop["ml_columns"] / ours_ml,
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
