"""Activations and labels as a caller gives them, checked once and cut into blocks of units that fit in the cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Num
from numpy import ndarray
from numpy.typing import ArrayLike, NDArray

from actmax.errors import InputError

BLOCK = 2**16
"""Values in a block (512 KiB of float64): temporaries stay in the cache, and memory does not grow with the units."""


@dataclass(frozen=True)
class Samples:
    """Checked activations of two groups."""

    values: Num[ndarray, "samples units"]
    """The activations as they came, in their own dtype."""
    is_1: Bool[ndarray, " samples"]
    """Which samples belong to group 1."""
    pairs: Int[ndarray, "pairs 2"] | None
    """Sample numbers of each pair, group 0's first; None where nothing is paired."""

    def blocks(self) -> Iterator[Block]:
        """The units in order, a cache-sized block at a time."""
        samples, units = self.values.shape
        width = max(1, BLOCK // samples)
        for start in range(0, units, width):
            yield block_of(self.values[:, start : start + width], self.is_1)


@dataclass(frozen=True)
class Block:
    """Activations of some units, a row each, in float64: as given, and in a scale where nothing overflows or cancels.

    `raw = scaled * 2**exponent` exactly, and `centred = (scaled - centre) / 2**spread_exponent`: powers of two round
    nothing (but numbers below 1e-300 of the unit's largest, which underflow), and a value close to the centre loses
    nothing by the subtraction (Sterbenz).
    """

    raw: Float[ndarray, "units samples"]
    """The activations; zeros where a unit is not finite."""
    scaled: Float[ndarray, "units samples"]
    """Divided by a power of two so that the largest lies in [1/2, 1)."""
    centred: Float[ndarray, "units samples"]
    """Minus the grand mean, divided by a power of two so that the largest lies in [1/2, 1)."""
    exponent: Int[ndarray, " units"]
    """Binary logarithm of the scale of `scaled`."""
    spread_exponent: Int[ndarray, " units"]
    """Binary logarithm of the scale of `centred` against `scaled`."""
    centre: Float[ndarray, " units"]
    """Grand mean of `scaled`."""
    finite: Bool[ndarray, " units"]
    """Whether a unit holds neither NaN nor inf."""
    is_1: Bool[ndarray, " samples"]
    """Which samples belong to group 1."""

    @property
    def n_0(self) -> int:
        """Samples in group 0."""
        return len(self.is_1) - self.n_1

    @property
    def n_1(self) -> int:
        """Samples in group 1."""
        return int(self.is_1.sum())


def block_of(values: Num[ndarray, "samples units"], is_1: Bool[ndarray, " samples"]) -> Block:
    """Scales and centres some units."""
    raw = np.ascontiguousarray(values.T, dtype=np.float64)
    finite = np.asarray(np.isfinite(raw).all(axis=1))
    raw = np.where(finite[:, None], raw, 0.0)
    # Twice: the first power of two keeps squares from overflowing, the second, once the mean is gone, keeps the squares
    # of a small spread about a large mean from underflowing.
    scaled, exponent = normalize(raw)
    centre = scaled.mean(axis=1)
    centred, spread_exponent = normalize(scaled - centre[:, None])
    return Block(raw, scaled, centred, exponent, spread_exponent, centre, finite, is_1)


def normalize(x: Float[ndarray, "units samples"]) -> tuple[Float[ndarray, "units samples"], Int[ndarray, " units"]]:
    """Divides each row by the power of two that brings its largest value into [1/2, 1); the exponents beside it."""
    exponent = np.frexp(np.abs(x).max(axis=1))[1].astype(np.int64)
    return np.ldexp(x, -exponent[:, None]), exponent


def check_samples(activations: ArrayLike, labels: ArrayLike, pairs: ArrayLike | None = None) -> Samples:
    """Checks what `compare` was given.

    Raises:
        InputError: a ValueError that names the argument, its value, what is allowed and the way out.
    """
    values = check_values("activations", activations)
    is_1 = check_labels(labels, samples=len(values))
    return Samples(values, is_1, None if pairs is None else _check_pairs(pairs, is_1))


def check_values(name: str, activations: ArrayLike) -> Num[ndarray, "samples units"]:
    """A (samples, units) view of real numbers; one unit may come as (samples,)."""
    values = as_array(activations)
    if values.dtype.kind not in "fiub":
        raise InputError(name, f"array of {values.dtype}", "real numbers", "Convert to a float array first.")
    if values.ndim not in (1, 2) or 0 in values.shape:
        allowed = "an array of shape (samples, units) or (samples,) with at least one of each"
        raise InputError(name, f"array of shape {values.shape}", allowed, "Flatten other axes into units.")
    return values[:, None] if values.ndim == 1 else values


def as_array(x: ArrayLike) -> NDArray:
    """A numpy array of an array, a list or a tensor on any device; bfloat16, which numpy lacks, becomes float32."""
    if not hasattr(x, "detach"):
        return np.asarray(x)
    tensor = x.detach().cpu()  # pyright: ignore[reportAttributeAccessIssue]
    return (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()


def check_labels(labels: ArrayLike, *, samples: int) -> Bool[ndarray, " samples"]:
    """One 0 or 1 per sample, both present."""
    group = as_array(labels)
    if group.shape != (samples,):
        allowed = f"one label per sample, so shape ({samples},)"
        raise InputError(
            "labels", f"array of shape {group.shape}", allowed, "Check that both come from the same samples."
        )
    found = sorted({str(value) for value in np.unique(group)})
    if not np.isin(group, (0, 1)).all():
        way_out = "Map your classes first, for example labels = names == 'verb'."
        raise InputError("labels", ", ".join(found[:5]), "0 and 1 (or False and True) only", way_out)
    if len(found) == 1:
        allowed = "both 0 and 1: a comparison needs two groups"
        raise InputError("labels", f"all {found[0]}", allowed, "Add samples of the other class, or use one_sample.")
    return group.astype(bool)


def check_level(name: str, value: float) -> float:
    """A probability strictly between 0 and 1."""
    if not 0 < value < 1:
        raise InputError(name, value, "a number above 0 and below 1", "The usual choice is 0.05.")
    return float(value)


def check_unit(unit: int, units: int) -> int:
    """A unit's number that is there."""
    if not 0 <= unit < units:
        raise InputError("unit", unit, f"a whole number from 0 to {units - 1}", "Units count from 0, in column order.")
    return int(unit)


def _check_pairs(pairs: ArrayLike, is_1: Bool[ndarray, " samples"]) -> Int[ndarray, "pairs 2"]:
    """Sample numbers of each pair, in the order in which the pairs' first samples stand."""
    names = as_array(pairs)
    if names.shape != is_1.shape:
        allowed = f"one pair name per sample, so shape {is_1.shape}"
        raise InputError("pairs", f"array of shape {names.shape}", allowed, "Name the two samples of a pair alike.")
    zeros, ones = np.flatnonzero(~is_1), np.flatnonzero(is_1)
    for name, count in zip(*np.unique(names, return_counts=True), strict=True):
        inside = int((names[ones] == name).sum())
        if count != 2 or inside != 1:
            value = f"{name!s} ({count - inside} in group 0, {inside} in group 1)"
            way_out = "Leave samples without a partner out, or leave pairs=None where nothing is really paired."
            raise InputError("pairs", value, "each name exactly once in each group", way_out)
    # Both groups sorted by name stand partner beside partner; `rank` takes group 0 back to the order of its samples.
    partner = ones[np.argsort(names[ones], kind="stable")]
    rank = np.argsort(np.argsort(names[zeros], kind="stable"), kind="stable")
    matched = np.stack([zeros, partner[rank]], axis=1)
    return matched[np.argsort(matched.min(axis=1), kind="stable")]
