"""How often each test of `compare` rejects where nothing differs, down to the level of a scan: the table of sizes.

    python scripts/sizes.py [--draws 40000] [--seed 1]
    python scripts/sizes.py --show                        # the tables for docs/statistics.md, of the file as it is

Writes src/actmax/stats/sizes.csv, which `compare` reads for its cautions and docs/statistics.md shows. Both groups come
from one distribution: normal, skewed (exponential), heavy (t with 3 degrees of freedom) or rectified (max(normal, 0)).
About ten minutes on one core.

At 2.5e-6 plain simulation would need 1e8 sets, so sets are drawn from a mixture of densities, and each counts with the
weight f/q, f the density of a set under the null and q that of the mixture (importance sampling; Owen 2013, Monte Carlo
theory, chapter 9). A third of the sets come from f itself, so that no weight is above 3. In the others the groups are
moved apart, their spread changed, or a small group drawn together, in ways that make the tests reject. Student's t and
Welch's t under normality are known without simulation (tests/comparison/test_sizes.py), and the table agrees.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from actmax.stats.groups import P_COLUMNS, compare

OUTPUT = Path(__file__).parents[1] / "src" / "actmax" / "stats" / "sizes.csv"
SIZES = ((3, 100), (8, 100), (20, 20), (20, 200), (100, 100))
LEVELS = (0.05, 1e-3, 2.5e-6)
TESTS = tuple(name for name in P_COLUMNS if name != "paired_p")
DISTRIBUTIONS = ("normal", "skewed", "heavy", "rectified")
TOGETHER = 4000


class Proposal:
    """How a group is drawn: its log density, and its draws."""

    def __init__(self, draw, log_density):
        self.draw, self.log_density = draw, log_density


def location(family, shift, scale):
    """A location-scale family's member."""
    return Proposal(
        lambda rng, shape: family.rvs(loc=shift, scale=scale, size=shape, random_state=rng),
        lambda x: family.logpdf(x, loc=shift, scale=scale),
    )


def rectified(shift, scale):
    """Zero with the probability that the normal is negative, else the normal itself; density against that mass."""
    law = stats.norm(shift, scale)

    def log_density(x):
        return np.where(x > 0, law.logpdf(x), law.logcdf(0))

    return Proposal(lambda rng, shape: np.maximum(law.rvs(size=shape, random_state=rng), 0), log_density)


def moved(distribution, shift, scale):
    """A group whose mean moved by so many standard deviations (the skewed: by its rate), and whose spread changed."""
    if distribution == "skewed":
        return location(stats.expon, 0.0, max(1 + shift, 0.1) * scale)
    if distribution == "rectified":
        return rectified(1.7 * shift, scale)
    return location(stats.norm if distribution == "normal" else _T3(), shift, scale)


def mixture(distribution, small, large):
    """Pairs of proposals, of the larger and the smaller group: the null first, then the groups moved apart.

    A difference of k standard errors costs least where each group moves in proportion to its share of the variance.
    """
    error, share = np.sqrt(1 / small + 1 / large), (1 / small) / (1 / small + 1 / large)
    steps = [(k * error, scale) for k in (-5.0, -3.5, -2.2, 2.2, 3.5, 5.0) for scale in (1.0, 0.8)]
    pairs = [(0.0, 1.0, 0.0, 1.0)]
    pairs += [(-step * (1 - share), scale, step * share, scale) for step, scale in steps]
    if small < 20:  # a few samples that lie close together make a t by themselves
        pairs += [(0.0, 1.0, place, width) for place in (-0.7, 0.0, 0.7, 1.5) for width in (0.01, 0.05, 0.2)]
    if distribution in ("heavy", "skewed", "rectified"):  # one far sample, or a wide group, makes others
        pairs += [(0.0, 1.0, step, 2.0) for step in (-2 * error, 2 * error, 6 * error)]
    return [(moved(distribution, *pair[:2]), moved(distribution, *pair[2:])) for pair in pairs]


class _T3:
    """Student's t with 3 degrees of freedom, at any place and scale."""

    @staticmethod
    def rvs(*, loc, scale, size, random_state):
        return stats.t.rvs(3, loc=loc, scale=scale, size=size, random_state=random_state)

    @staticmethod
    def logpdf(x, *, loc, scale):
        return stats.t.logpdf(x, 3, loc=loc, scale=scale)


def sizes(distribution, small, large, draws, rng):
    """Rejection rates of all tests at all levels, with their errors."""
    proposals = mixture(distribution, small, large)
    share = np.r_[1 / 3, np.full(len(proposals) - 1, 2 / 3 / (len(proposals) - 1))]
    totals = np.zeros((2, len(TESTS), len(LEVELS)))
    labels = np.repeat([0, 1], [large, small])
    for start in range(0, draws, TOGETHER):
        units = min(TOGETHER, draws - start)
        component = rng.choice(len(proposals), units, p=share)
        group_0, group_1 = np.empty((large, units)), np.empty((small, units))
        for place, (zero, one) in enumerate(proposals):
            chosen = np.flatnonzero(component == place)
            group_0[:, chosen] = zero.draw(rng, (large, len(chosen)))
            group_1[:, chosen] = one.draw(rng, (small, len(chosen)))
        logs = np.stack(
            [zero.log_density(group_0).sum(axis=0) + one.log_density(group_1).sum(axis=0) for zero, one in proposals]
        )
        weight = 1 / (share @ np.exp(logs - logs[0]))
        table = compare(np.concatenate([group_0, group_1]), labels).table
        for test, name in enumerate(TESTS):
            p = table[name].to_numpy()
            for level, alpha in enumerate(LEVELS):
                counted = weight * (p <= alpha)
                totals[:, test, level] += counted.sum(), (counted**2).sum()
    rate = totals[0] / draws
    return rate, np.sqrt(np.maximum(totals[1] / draws - rate**2, 0) / draws)


def shown(table):
    """The table as Markdown, one for each level: a row per test and design, the distributions side by side."""
    text = [f"{size:.3f}" if level > 0.01 else f"{size:.1e}" for size, level in table[["size", "level"]].to_numpy()]
    table = table.assign(text=text)
    lines = []
    for level in LEVELS:
        lines += [
            f"\nSizes at {level:g}:\n",
            f"| test | n | {' | '.join(DISTRIBUTIONS)} |",
            "|---|---|" + "---|" * len(DISTRIBUTIONS),
        ]
        for test in TESTS:
            part = table[(table["test"] == test.removesuffix("_p")) & (table["level"] == level)]
            for (small, large), rows in part.groupby(["n_small", "n_large"]):
                cells = rows.set_index("distribution")["text"]
                lines.append(f"| {test} | {small} + {large} | {' | '.join(cells[kind] for kind in DISTRIBUTIONS)} |")
    return "\n".join(lines)


def main():
    """Simulates all cells and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=40_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", action="store_true")
    arguments = parser.parse_args()
    if arguments.show:
        print(shown(pd.read_csv(OUTPUT)))
        return
    rows = []
    for number, (small, large) in enumerate(SIZES):
        for kind, distribution in enumerate(DISTRIBUTIONS):
            rng = np.random.default_rng([arguments.seed, number, kind])
            rate, error = sizes(distribution, small, large, arguments.draws, rng)
            rows += [
                {"test": name.removesuffix("_p"), "n_small": small, "n_large": large, "distribution": distribution}
                | {"level": alpha, "size": rate[test, level], "error": error[test, level]}
                for test, name in enumerate(TESTS)
                for level, alpha in enumerate(LEVELS)
            ]
            print(pd.DataFrame(rows[-len(TESTS) * len(LEVELS) :]).to_string(), flush=True)
    pd.DataFrame(rows).to_csv(OUTPUT, index=False, float_format="%.3g")


if __name__ == "__main__":
    main()
