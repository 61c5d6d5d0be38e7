"""Makes data.csv, the token sets of the reference numbers; run once, committed: `python make_data.py > data.csv`."""

import csv
import sys

import numpy as np

rng = np.random.default_rng(20261123)


def drawn(restarts, tokens, vocabulary, skew):
    weight = np.arange(1, vocabulary + 1) ** -skew
    return rng.choice(vocabulary, size=(restarts, tokens), p=weight / weight.sum())


def data_sets():
    yield "skewed", drawn(10, 5, 40, 1.0)
    yield "even", drawn(10, 5, 200, 0.0)
    yield "many", drawn(100, 5, 400, 0.7)
    yield "repeats_within", drawn(8, 12, 15, 0.5)
    yield "two_restarts", np.array([[1, 2, 3, 4, 5], [5, 6, 7, 8, 9]])
    yield "no_doubletons", np.array([[1, 2, 3], [1, 4, 5], [1, 6, 7], [1, 8, 9]])
    yield "no_singletons", np.array([[1, 2, 3], [1, 2, 3], [3, 2, 1]])
    yield "all_unique", np.arange(50).reshape(10, 5)


writer = csv.writer(sys.stdout, lineterminator="\n")
writer.writerow(["dataset", "restart", "position", "token"])
for name, ids in data_sets():
    writer.writerows([name, r, t, int(ids[r, t])] for r in range(ids.shape[0]) for t in range(ids.shape[1]))
