"""Makes data.csv, the data sets of the reference numbers; run once, committed: `python make_data.py > data.csv`."""

import csv
import sys

import numpy as np

rng = np.random.default_rng(20261122)


def two(n_0, n_1, shift, draw=rng.normal):
    return np.concatenate([draw(size=n_0), draw(size=n_1) + shift]), np.repeat([0, 1], [n_0, n_1])


def data_sets():
    yield "balanced", *two(20, 20, 0.8)
    yield "unbalanced", *two(12, 35, -0.9)
    x, y = two(25, 25, 0.6)
    yield "tied", np.round(2 * x), y
    x, y = two(15, 15, 4.0)
    x[14], x[15] = x[15:].min() + 0.35, x[15:].min() + 0.11
    yield "near_separated", x, y
    yield "separated", np.concatenate([rng.uniform(0, 1, 10), rng.uniform(1.5, 3, 14)]), np.repeat([0, 1], [10, 14])
    x = np.concatenate([rng.uniform(0, 1, 9), rng.uniform(1, 2, 9)])
    x[4] = x[13] = 1.0
    yield "quasi_separated", x, np.repeat([0, 1], 9)
    yield "tiny", np.array([0.3, 1.9, 0.7, 1.1, 2.2, 1.6, 3.4]), np.array([0, 0, 0, 1, 1, 1, 1])
    x, y = two(20, 20, 0.7)
    yield "huge_offset", 1e8 + x, y
    x, y = two(18, 22, 0.5)
    yield "huge_scale", 1e150 * x, y
    yield "small_scale", 1e-150 * x, y
    yield "skewed", *two(30, 20, 0.4, lambda size: rng.lognormal(size=size))
    x, y = two(10, 10, 0.0)
    x[y == 0] = 0.25
    yield "one_group_constant", x, y
    yield "null", *two(40, 40, 0.0)
    x, y = two(25, 31, 0.3)
    x[y == 1] *= 4
    order = rng.permutation(56)
    yield "unequal_variances", x[order], y[order]
    yield "far", *two(50, 50, 40.0)
    # One huge sample, on the side of its group: Firth's likelihood has a second, lower maximum near β = 0.
    x, y = two(20, 20, 2.5)
    x[27] = 120.0
    yield "outlier", x, y


writer = csv.writer(sys.stdout, lineterminator="\n")
writer.writerow(["dataset", "label", "x"])
for name, values, labels in data_sets():
    writer.writerows([name, int(label), repr(float(value))] for value, label in zip(values, labels, strict=True))
