"""The Pareto front against the definition, tried row against row."""

import numpy as np
import pytest

from actmax.stats.pareto import on_pareto_front, pareto_front


@pytest.mark.parametrize("seed", range(5))
def test_on_front_against_a_loop(seed: int):
    points = np.random.default_rng(seed).integers(0, 5, size=(30, 2)).astype(float)
    points[3, 0], points[4, 1] = np.nan, np.inf
    known = points[np.isfinite(points).all(1)]
    expected = [bool(np.isfinite(a).all() and not any((b >= a).all() and (b > a).any() for b in known)) for a in points]
    assert on_pareto_front(*points.T).tolist() == expected
    assert 0 < sum(expected) < 30


def test_front_is_strict_ordered_and_keeps_the_first_of_equal_rows():
    points = np.random.default_rng(0).integers(0, 9, size=(200, 2)).astype(float)
    front = pareto_front(*points.T)
    assert (np.diff(points[front, 0]) < 0).all()
    assert (np.diff(points[front, 1]) > 0).all()
    kept = points[front].tolist()
    assert front.tolist() == [points.tolist().index(point) for point in kept]
    assert {tuple(point) for point in points[on_pareto_front(*points.T)]} == {tuple(point) for point in kept}
    # negative control: the order of equal rows matters, so the assertion above can fail
    turned = len(points) - 1 - pareto_front(*points[::-1].T)
    assert turned.tolist() != front.tolist()


def test_nothing_has_no_front():
    assert pareto_front(np.empty(0), np.empty(0)).tolist() == []
    assert on_pareto_front(np.full(2, np.nan), np.zeros(2)).tolist() == [False, False]
