"""What `stats` holds in memory beside its input does not grow with the number of units times samples."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from actmax.stats.groups import compare
from actmax.stats.ttests import one_sample

SAMPLES, UNITS = 400, 8000
CALLS = {
    "one_sample": lambda x: one_sample(x),
    "one_sample of a table": lambda x: one_sample(x, 0.5),
    "compare": lambda x: compare(x, np.repeat([0, 1], SAMPLES // 2)),
}


def peak(call):
    """Bytes in use at most while the call runs, beyond those before it."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        call()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", CALLS)
def test_less_than_one_copy_in_float64(name):
    x = np.random.default_rng(0).normal(size=(SAMPLES, UNITS)).astype(np.float16)
    assert peak(lambda: CALLS[name](x)) < SAMPLES * UNITS * 8


def test_the_check_can_fail():
    x = np.zeros((SAMPLES, UNITS), np.float16)
    assert peak(lambda: x.astype(np.float64).mean(axis=0)) >= SAMPLES * UNITS * 8
