"""Corrections for many tests: the family is the finite p-values of one call."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from statsmodels.stats.multitest import multipletests

from actmax.errors import InputError
from actmax.stats._logspace import Tail

METHODS = {"bonferroni": "bonferroni", "bh": "fdr_bh", "by": "fdr_by", "holm": "holm"}
"""Our names and statsmodels' names."""


def correct(p: Float[ndarray, " units"], method: str) -> Float[ndarray, " units"]:
    """Corrected p-values over the finite ones; NaN stays NaN and counts for nothing.

    Null hypothesis: all of the family's nulls hold. `bonferroni` and `holm` bound the probability of any false
    rejection under any dependence; `bh` bounds the expected share of false rejections where tests are independent or
    positively dependent, `by` under any dependence. Formulas: bonferroni min(1, m p); holm max over smaller ranks of (m
    - i + 1) p_(i); bh min over larger ranks of m p_(i) / i; by the same times Σ 1/i. References: Holm 1979, Scand. J.
    Statist. 6:65; Benjamini & Hochberg 1995, JRSS B 57:289; Benjamini & Yekutieli 2001, Ann. Statist. 29:1165.

    Args:
        p: p-values of one family; NaN where a test does not exist.
        method: `bonferroni`, `holm`, `bh` or `by`.

    Example:
        >>> correct(np.array([0.01, np.nan, 0.04]), "bonferroni").tolist()
        [0.02, nan, 0.08]
    """
    if method not in METHODS:
        raise InputError("method", method, f"one of {', '.join(METHODS)}", "bh controls the false discovery rate.")
    finite = np.isfinite(p)
    wrong = p[finite & ~((p >= 0) & (p <= 1))]
    if len(wrong):
        raise InputError("p", wrong[0], "probabilities from 0 to 1, or NaN", "Pass p-values, not their logarithms.")
    corrected = np.full(len(p), np.nan)
    if finite.any():
        corrected[finite] = multipletests(p[finite], method=METHODS[method])[1]
    return corrected


def p_columns(name: str, tail: Tail, *, by: bool = False) -> dict[str, Float[ndarray, " units"]]:
    """A p's columns: itself, its log10 and its corrections."""
    methods = ("bonferroni", "bh", "by") if by else ("bonferroni", "bh")
    corrected = {f"{name}_{method}": correct(tail.p, method) for method in methods}
    return {name: tail.p, f"{name}_log10": tail.log10} | corrected
