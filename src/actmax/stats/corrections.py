"""Corrections for many tests, over any axis of an array: the family is the finite p-values of one slice."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from actmax.errors import InputError
from actmax.stats._inputs import Readable, as_array
from actmax.stats._logspace import Tail


class _Method(NamedTuple):
    """One correction, applied to p-values in ascending order."""

    weigh: Callable[[ndarray, ndarray, ndarray], ndarray]
    """Corrected p-values before they are made monotone: of the ordered p-values, their ranks and the family's size."""
    step_up: bool
    """Whether the running extremum is the minimum from the largest p down, or the maximum from the smallest p up."""


METHODS = {
    "bonferroni": _Method(lambda p, _, family: p * family, step_up=False),
    "bh": _Method(lambda p, rank, family: p / (rank / family), step_up=True),
    "by": _Method(lambda p, rank, family: p / (rank / family / _harmonic(family)), step_up=True),
    "holm": _Method(lambda p, rank, family: p * (family - rank + 1), step_up=False),
}
"""The corrections that `correct` offers."""


def correct(p: Readable, method: str, axis: int = -1) -> Float[ndarray, "*tests"]:
    """Corrected p-values over those that are not NaN; NaN stays NaN and counts for nothing.

    Null hypothesis: all of the family's nulls hold. `bonferroni` and `holm` bound the probability of any false
    rejection under any dependence; `bh` bounds the expected share of false rejections where tests are independent or
    positively dependent, `by` under any dependence. Formulas: bonferroni min(1, m p); holm max over smaller ranks of (m
    - i + 1) p_(i); bh min over larger ranks of m p_(i) / i; by the same times Σ 1/i. References: Holm 1979, Scand. J.
    Statist. 6:65; Benjamini & Hochberg 1995, JRSS B 57:289; Benjamini & Yekutieli 2001, Ann. Statist. 29:1165.

    Args:
        p: p-values: an array, a list, a column of a table or a tensor, in whose order the corrected ones come as an
            array; NaN where a test does not exist.
        method: `bonferroni`, `holm`, `bh` or `by`.
        axis: along which a family lies; each slice along it is corrected by itself.

    Raises:
        InputError: a p is no probability, or there is no such axis or method.

    Example:
        >>> correct(np.array([0.01, np.nan, 0.04]), "bonferroni").tolist()
        [0.02, nan, 0.08]
    """
    if method not in METHODS:
        raise InputError("method", method, f"one of {', '.join(METHODS)}", "bh controls the false discovery rate.")
    return _corrected(p, METHODS[method], axis)


def holm(p: Readable, axis: int = -1) -> Float[ndarray, "*tests"]:
    """Holm's correction, as `correct` with `holm`.

    Example:
        >>> holm(np.array([[0.01, 0.04], [0.04, np.nan]]), axis=1).tolist()
        [[0.02, 0.04], [0.04, nan]]
    """
    return correct(p, "holm", axis)


def benjamini_hochberg(p: Readable, axis: int = -1) -> Float[ndarray, "*tests"]:
    """Benjamini and Hochberg's correction, as `correct` with `bh` up to the rounding of one multiplication.

    Example:
        >>> benjamini_hochberg(np.array([[0.01, 0.04], [0.04, np.nan]]), axis=1).tolist()
        [[0.02, 0.04], [0.04, nan]]
    """
    # m/i times p, as scipy has it, where `correct` divides by i/m, as statsmodels does. The last bits differ, and each
    # stands in records: verdicts are decided on the first, tables of comparisons are made of the second.
    return _corrected(p, _Method(lambda p, rank, family: p * (family / rank), step_up=True), axis)


def _corrected(p: Readable, method: _Method, axis: int) -> Float[ndarray, "*tests"]:
    """One correction of every slice along an axis."""
    values = np.moveaxis(_probabilities(p, axis), axis, -1)
    known = ~np.isnan(values)
    # What is missing comes last as inf, at the rank of the largest p: there it changes no running extremum.
    values = np.where(known, values, np.inf)
    family = np.maximum(known.sum(axis=-1, keepdims=True), 1)
    rank = np.minimum(np.arange(1, values.shape[-1] + 1), family)
    order = np.argsort(values, axis=-1)
    weighed = method.weigh(np.take_along_axis(values, order, axis=-1), rank, family)
    # A rejected hypothesis takes along all with a smaller p (step-up); one that is kept keeps all with a larger
    # (step-down). So corrected p-values are in the order of the p-values.
    if method.step_up:
        monotone = np.minimum.accumulate(weighed[..., ::-1], axis=-1)[..., ::-1]
    else:
        monotone = np.maximum.accumulate(weighed, axis=-1)
    corrected = np.empty_like(values)
    np.put_along_axis(corrected, order, np.minimum(monotone, 1.0), axis=-1)
    return np.moveaxis(np.where(known, corrected, np.nan), -1, axis)


def _probabilities(p: Readable, axis: int) -> Float[ndarray, "*tests"]:
    """P-values in float64, checked."""
    values = as_array("p", p)
    if values.dtype.kind not in "fiu":
        raise InputError("p", f"array of {values.dtype}", "probabilities from 0 to 1, or NaN", "Pass numbers.")
    if not -values.ndim <= axis < values.ndim:
        allowed = f"an axis of an array with {values.ndim} dimensions"
        raise InputError("axis", axis, allowed, "A family has one p or more: pass [p] for a single one.")
    values = values.astype(np.float64)
    wrong = values[~np.isnan(values) & ~((values >= 0) & (values <= 1))]
    if len(wrong):
        raise InputError("p", wrong[0], "probabilities from 0 to 1, or NaN", "Pass p-values, not their logarithms.")
    return values


def _harmonic(family: Int[ndarray, "*families"]) -> Float[ndarray, "*families"]:
    """Σ 1/i over i = 1 to each family's size: Benjamini and Yekutieli's price of any dependence."""
    sums = {size: np.sum(1.0 / np.arange(1, size + 1)) for size in np.unique(family).tolist()}
    return np.vectorize(sums.__getitem__, otypes=[np.float64])(family)


def p_columns(name: str, tail: Tail, *, by: bool = False) -> dict[str, Float[ndarray, " units"]]:
    """A p's columns: itself, its log10 and its corrections."""
    methods = ("bonferroni", "bh", "by") if by else ("bonferroni", "bh")
    corrected = {f"{name}_{method}": correct(tail.p, method) for method in methods}
    return {name: tail.p, f"{name}_log10": tail.log10} | corrected
