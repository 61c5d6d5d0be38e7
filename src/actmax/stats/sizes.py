"""Which tests may be trusted at which sizes: how often each rejects where nothing differs, measured beforehand.

A test that is fine at 0.05 may be off by a thousand times at the level of a scan. `sizes.csv` beside this file is what
`scripts/sizes.py` measured; docs/statistics.md shows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

TABLE = Path(__file__).with_name("sizes.csv")
"""A row per test, design, distribution and level: `test n_small n_large distribution level size error`."""
TOO_OFTEN = 2.0
"""Times its level that a test may reject where nothing differs before it is not to be trusted."""


@dataclass(frozen=True)
class Caution:
    """A test that rejects too often where nothing differs, in groups of about these sizes at this level."""

    test: str
    """The column of the test's p."""
    level: float
    """The level that an uncorrected p has to reach: alpha over the number of units with such a p (Bonferroni)."""
    size: float
    """How often the test rejects at that level where nothing differs, for the worst of the distributions measured."""
    distribution: str
    """Shape of the activations in the simulation: `normal`, `skewed`, `heavy` or `rectified`."""
    design: tuple[int, int]
    """The group sizes at which that was measured, the nearest in the table."""


def cautions(n_0: int, n_1: int, alpha: float | int, families: Mapping[str, int]) -> tuple[Caution, ...]:
    """The tests that are not to be trusted in two groups of these sizes.

    The size between the levels of the table is interpolated, logarithm against logarithm; beyond them its ratio to the
    level is that of the nearest. A test counts as untrustworthy where its size is `TOO_OFTEN` times the level or more,
    and above the level by more than two Monte Carlo errors.

    Args:
        n_0: samples in group 0.
        n_1: samples in group 1.
        alpha: level of all tests of a family together.
        families: number of tests in the family of each column of p-values.
    """
    table, small, large = _table(), min(n_0, n_1), max(n_0, n_1)
    designs = list(dict.fromkeys(zip(table["n_small"], table["n_large"], strict=True)))
    near = min(designs, key=lambda at: abs(np.log(at[0] / small)) + abs(np.log(at[1] / large)))
    design = int(near[0]), int(near[1])
    part = table[(table["n_small"] == design[0]) & (table["n_large"] == design[1])]
    found = []
    for test, rows in part.groupby("test", sort=False):
        family = families.get(f"{test}_p", 0)
        if not family:
            continue
        level = float(alpha) / family
        worst = [
            (_at(pd.DataFrame(one), "size", level), _at(pd.DataFrame(one), "error", level), name)
            for name, one in rows.groupby("distribution")
        ]
        size, error, name = max(worst)
        if size >= TOO_OFTEN * level and size - 2 * error > level:
            found.append(Caution(f"{test}_p", level, size, str(name), design))
    return tuple(found)


def _at(rows: pd.DataFrame, column: str, level: float) -> float:
    """A column at a level, by its ratio to the level; a size of 0 counts as a millionth of its level."""
    rows = rows.sort_values("level")
    levels = rows["level"].to_numpy(dtype=float)
    ratio = np.log(np.maximum(rows[column].to_numpy(dtype=float) / levels, 1e-6))
    return level * float(np.exp(np.interp(np.log(level), np.log(levels), ratio)))


@lru_cache(maxsize=1)
def _table() -> pd.DataFrame:
    return pd.read_csv(TABLE)
