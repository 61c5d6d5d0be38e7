"""t-tests of many regroupings: the numbers of `compare`, for any mask."""

from __future__ import annotations

import numpy as np
import pytest

from actmax.errors import InputError
from actmax.stats.groups import compare
from actmax.stats.regrouped import regrouped_paired, regrouped_welch


def test_every_grouping_is_what_compare_gives() -> None:
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(30, 7)) * 10.0 ** np.arange(-3, 4) + 50).astype(np.float32)
    x[:, 6] = rng.normal(size=30) ** 5 + 1e3
    masks = [rng.choice([0, 1, 2], size=30, p=[0.4, 0.4, 0.2]) for _ in range(6)]
    found = regrouped_welch(x, np.stack([m == 0 for m in masks], 1), np.stack([m == 1 for m in masks], 1))
    for column, mask in enumerate(masks):
        inside = mask < 2
        table = compare(x[inside], mask[inside]).table
        assert found.t[:, column] == pytest.approx(table["welch_t"].to_numpy(), rel=1e-8)
        assert found.p[:, column] == pytest.approx(table["welch_p"].to_numpy(), rel=1e-7)
        assert found.d[:, column] == pytest.approx(table["cohens_d"].to_numpy(), rel=1e-8)


def test_pairs_as_they_are_left_out_and_swapped() -> None:
    rng = np.random.default_rng(1)
    before, after = rng.normal(size=(12, 5)), rng.normal(size=(12, 5)) + 0.5
    signs = np.stack([np.ones(12), np.r_[np.ones(8), np.zeros(4)], rng.choice([-1.0, 1.0], 12)], axis=1)
    found = regrouped_paired(after - before, signs)
    for column, sign in enumerate(signs.T):
        kept = sign != 0
        swap = sign[kept, None] < 0
        zero, one = np.where(swap, after[kept], before[kept]), np.where(swap, before[kept], after[kept])
        n = int(kept.sum())
        table = compare(np.concatenate([zero, one]), np.repeat([0, 1], n), pairs=np.tile(np.arange(n), 2)).table
        assert found.t[:, column] == pytest.approx(table["paired_t"].to_numpy(), rel=1e-9)
        assert found.p[:, column] == pytest.approx(table["paired_p"].to_numpy(), rel=1e-8)


def test_what_does_not_exist_is_nan() -> None:
    x = np.array([[1.0, 0.0, 5.0], [1.0, 0.0, 6.0], [1.0, 3.0, 7.0], [1.0, 3.0, 9.0]])
    labels = np.array([[False, False, True, True]]).T
    found = regrouped_welch(x, ~labels, labels)
    assert np.isnan(found.t[:, 0]).tolist() == [True, True, False]
    assert np.isnan(found.d[:, 0]).tolist() == [True, True, False]
    alone = np.array([[False, False, False, True]]).T
    assert np.isnan(regrouped_welch(x, ~labels, alone).t).all()
    assert np.isnan(regrouped_paired(np.ones((3, 2)), np.ones((3, 1))).t).all()


def test_a_sample_is_in_one_group_at_most() -> None:
    both = np.ones((4, 1), dtype=bool)
    with pytest.raises(InputError, match="one group at most"):
        regrouped_welch(np.zeros((4, 1)), both, both)
