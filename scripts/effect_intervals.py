"""How often the intervals of Cohen's d and of the AUC hold the truth, and what the status of d's interval says of it.

    python scripts/effect_intervals.py [--sets 3000] [--seed 0]

Two groups of one distribution, shifted by d standard deviations; 95 % intervals of `compare` and `auc_interval`. The
true AUC is counted in 400,000 draws of either group. Prints Markdown: the share that holds the truth at each d, and,
where d is drawn evenly from 0 to 3, that share by `Comparison.d_status`. About two minutes on one core.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from scipy import stats

from actmax.stats.groups import D_STATUSES, compare

DRAWS = {
    "normal": (lambda rng, shape: rng.normal(size=shape), 1.0),
    "exponential": (lambda rng, shape: rng.exponential(size=shape), 1.0),
    "t, 3 df": (lambda rng, shape: rng.standard_t(3, shape), np.sqrt(3)),
    "log-normal": (lambda rng, shape: np.exp(rng.normal(size=shape)), np.sqrt((np.e - 1) * np.e)),
}
"""Distributions by name: how to draw, and the standard deviation."""
DESIGNS = ((20, 20), (8, 100), (100, 100))
EFFECTS = (0.0, 0.2, 0.5, 1.0, 2.0, 3.0)


def compared(name, design, d, rng):
    """The comparison of units of a distribution, each with its own true d."""
    draw, sd = DRAWS[name]
    y = np.repeat([0, 1], design)
    return compare(draw(rng, (len(y), len(d))) + sd * d * y[:, None], y)


def holds(table, name, truth):
    """In which units an interval of the table, `name_low` to `name_high`, holds the truth."""
    return ((table[f"{name}_low"] <= truth) & (truth <= table[f"{name}_high"])).to_numpy()


def true_auc(name, d, rng, count=400_000):
    """The AUC of a shift by d standard deviations."""
    draw, sd = DRAWS[name]
    ranks = stats.rankdata(np.r_[draw(rng, count), draw(rng, count) + d * sd])
    return (ranks[count:].sum() - count * (count + 1) / 2) / count**2


def by_status(name, design, sets, rng):
    """The share of intervals of d that hold it, at each status, and how many there are."""
    d = rng.uniform(0, 3, sets)
    result = compared(name, design, d, rng)
    return pd.Series(holds(result.table, "cohens_d", d)).groupby(result.d_status.to_numpy()).agg(["mean", "size"])


def main():
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    print("| interval | n | d |", " | ".join(DRAWS), "|")
    for design in DESIGNS:
        for d in EFFECTS:
            found = [compared(name, design, np.full(arguments.sets, d), rng) for name in DRAWS]
            truths = [true_auc(name, d, rng) for name in DRAWS]
            of_d = [holds(one.table, "cohens_d", d).mean() for one in found]
            of_auc = [holds(one.auc_interval(), "auc", truth).mean() for one, truth in zip(found, truths, strict=True)]
            for what, shares in (("d", of_d), ("AUC", of_auc)):
                print(f"| {what} | {design[0]} + {design[1]} | {d:g} |", " | ".join(f"{s:.2f}" for s in shares), "|")
    print("| d_status | n |", " | ".join(DRAWS), "|")
    for design in DESIGNS:
        found = [by_status(name, design, 4 * arguments.sets, rng) for name in DRAWS]
        for status in D_STATUSES[1:]:
            shares = " | ".join(f"{one.loc[status, 'mean']:.2f}" for one in found)
            print(f"| {status} | {design[0]} + {design[1]} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
