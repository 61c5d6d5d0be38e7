"""Activations and labels as a caller gives them, checked once and cut into blocks of units that fit in the cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, Num
from numpy import ndarray
from numpy.typing import NDArray
from scipy import sparse

from actmax.errors import InputError

Readable = Any
"""What `as_array` reads, or refuses in one message: arrays, lists, tables and tensors of any kind."""
BLOCK = 2**16
"""Values in a block (512 KiB of float64): temporaries stay in the cache, and memory does not grow with the units."""
FLAT = 2.0
"""Relative spacings of the largest value up to which a spread is what rounding leaves of none."""


@dataclass(frozen=True)
class Samples:
    """Checked activations of two groups."""

    values: Num[ndarray, "samples units"]
    """The activations as they were given, in the dtype that they came in."""
    is_1: Bool[ndarray, " samples"]
    """Which samples belong to group 1."""
    pairs: Int[ndarray, "pairs 2"] | None
    """Sample numbers of each pair, group 0's first; None where nothing is paired."""
    units: pd.Index
    """What the units are called: a data frame's columns, else 0, 1, 2 and so on."""

    def blocks(self) -> Iterator[Block]:
        """The units in order, a cache-sized block at a time."""
        return blocks_of(self.values, self.is_1)


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
    eps: float
    """Relative spacing of the activations' own dtype; 0 where neighbouring values are different answers."""

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
    return Block(raw, scaled, centred, exponent, spread_exponent, centre, finite, is_1, spacing_of(values.dtype))


def blocks_of(values: Num[ndarray, "samples units"], is_1: Bool[ndarray, " samples"]) -> Iterator[Block]:
    """Some units' blocks in order, each of a size that fits in the cache."""
    samples, units = values.shape
    width = max(1, BLOCK // samples)
    for start in range(0, units, width):
        yield block_of(values[:, start : start + width], is_1)


def spacing_of(dtype: np.dtype[Any]) -> float:
    """Relative spacing of a dtype in which rounding is small beside what is measured; else 0.

    Whole numbers are exact, and half precision is so coarse that neighbouring values are the data.
    """
    return float(np.finfo(dtype).eps) if dtype.kind == "f" and dtype.itemsize >= 4 else 0.0


def flat(
    low: Float[ndarray, " units"], high: Float[ndarray, " units"], eps: float, *, size: ndarray | None = None
) -> Bool[ndarray, " units"]:
    """Whether values from low to high are one value, but for rounding: at most `FLAT` spacings apart.

    0.1 + 0.2 is not 0.3: a t whose denominator is such a difference is of the order 1e15, and says nothing.

    Args:
        low: the smallest value.
        high: the largest value.
        eps: relative spacing.
        size: size of the values that were rounded; by default the larger of |low| and |high|.
    """
    size = np.maximum(np.abs(low), np.abs(high)) if size is None else size
    return high - low <= FLAT * eps * size


def normalize(x: Float[ndarray, "units samples"]) -> tuple[Float[ndarray, "units samples"], Int[ndarray, " units"]]:
    """Divides each row by the power of two that brings its largest value into [1/2, 1); the exponents beside it."""
    exponent = np.frexp(np.abs(x).max(axis=1))[1].astype(np.int64)
    # The product rounds as `ldexp` does, and costs a tenth; only to raise subnormal numbers is no float large enough.
    factor = np.ldexp(1.0, -exponent)[:, None]
    return (x * factor if np.isfinite(factor).all() else np.ldexp(x, -exponent[:, None])), exponent


def check_samples(activations: Readable, labels: Readable, pairs: Readable | None = None) -> Samples:
    """Checks what `compare` was given.

    Raises:
        InputError: a ValueError that names the argument, its value, what is allowed and the way out.
    """
    values = check_values("activations", activations)
    index = index_of(activations)
    is_1 = check_labels(aligned("labels", labels, index), samples=len(values))
    matched = None if pairs is None else _check_pairs(aligned("pairs", pairs, index), is_1)
    return Samples(values, is_1, matched, unit_names(activations, values.shape[1]))


def check_values(name: str, activations: Readable) -> Num[ndarray, "samples units"]:
    """A (samples, units) view of real numbers; one unit may come as (samples,)."""
    values = as_array(name, activations)
    if values.dtype.kind not in "fiub":
        raise InputError(name, f"array of {values.dtype}", "real numbers", "Convert to a float array first.")
    if values.ndim not in (1, 2) or 0 in values.shape:
        allowed = "an array of shape (samples, units) or (samples,) with at least one of each"
        raise InputError(name, f"array of shape {values.shape}", allowed, "Flatten other axes into units.")
    return values[:, None] if values.ndim == 1 else values


def as_array(name: str, x: Readable) -> NDArray[Any]:
    """A numpy array of an array, a list, a table or a tensor on any device; bfloat16 becomes float32.

    Raises:
        InputError: what numpy would read wrongly or not at all: masks, sparse matrices, rows of different lengths,
            tensors in a format without numbers of their own.
    """
    if sparse.issparse(x):
        raise InputError(name, f"sparse matrix of shape {x.shape}", "a dense array", f"Pass {name}.toarray().")
    if _is_masked(x):
        way_out = "Leave these samples out, or fill them with NaN: a unit that holds NaN has no statistics."
        raise InputError(name, "masked array", "values without a mask, which would be read as if they counted", way_out)
    if hasattr(x, "detach"):
        return _of_tensor(name, x)
    if isinstance(x, list | tuple) and any(hasattr(row, "detach") for row in x):
        x = [as_array(name, row) for row in x]
    try:
        return np.asarray(x)
    except ValueError as error:
        allowed = "rows of one length"
        raise InputError(name, "rows of different lengths", allowed, "Give every sample the same units.") from error


def _is_masked(x: Any) -> bool:
    """Whether an array, or a row of a list, hides a value."""
    return np.ma.is_masked(x) or (isinstance(x, list | tuple) and any(np.ma.is_masked(row) for row in x))


def _of_tensor(name: str, x: Any) -> NDArray[Any]:
    kind = str(x.dtype).removeprefix("torch.")
    if "strided" not in str(x.layout) or x.is_nested:
        way_out = f"Pass {name}.to_dense()."
        raise InputError(name, f"tensor with layout {x.layout}", "a dense tensor with rows of one length", way_out)
    if kind.startswith("float8") or x.is_quantized:
        allowed = "float16, bfloat16, float32 or float64, since numbers of 8 bits have a scale that is kept elsewhere"
        raise InputError(name, f"tensor of {kind}", allowed, f"Pass {name}.float() times that scale.")
    tensor = x.detach().cpu()
    return (tensor.float() if kind == "bfloat16" else tensor).numpy()


def index_of(table: Any) -> pd.Index | None:
    """The names of the samples, where a table has such names."""
    return table.index if isinstance(table, pd.DataFrame | pd.Series) else None


def unit_names(table: Any, units: int) -> pd.Index:
    """The names of the units: a data frame's columns, a series' name, else their numbers."""
    if isinstance(table, pd.DataFrame):
        return table.columns.to_flat_index().rename("unit")
    if isinstance(table, pd.Series) and table.name is not None:
        return pd.Index([table.name], name="unit")
    return pd.RangeIndex(units, name="unit")


def aligned(name: str, values: Any, index: pd.Index | None) -> Any:
    """Values in the order of the activations' samples, where both carry the samples' names.

    Raises:
        InputError: the names differ, or one occurs twice, so that nothing says which value belongs to which sample.
    """
    own = index_of(values)
    if index is None or own is None or own.equals(index):
        return values
    if own.is_unique and index.is_unique and len(own) == len(index) and bool(own.isin(index).all()):
        return values.loc[index]
    allowed = "the same index as the activations, each name once"
    way_out = f"Give both the same index, or pass {name}.to_numpy() where the order is already the same."
    raise InputError(name, f"{type(values).__name__} with another index", allowed, way_out)


def check_labels(labels: Readable, *, samples: int) -> Bool[ndarray, " samples"]:
    """One 0 or 1 per sample, both present."""
    group = as_array("labels", labels)
    if group.shape != (samples,):
        allowed = f"one label per sample, so shape ({samples},)"
        raise InputError(
            "labels", f"array of shape {group.shape}", allowed, "Check that both come from the same samples."
        )
    known = [
        isinstance(value, bool | int | float | np.number | np.bool_) and value in (0, 1) for value in group.tolist()
    ]
    found = sorted({str(value) for value in group.tolist()})
    if not all(known):
        way_out = "Map your classes first, for example labels = names == 'verb'; leave out samples without a label."
        raise InputError("labels", ", ".join(found[:5]), "0 and 1 (or False and True) only", way_out)
    if len(found) == 1:
        allowed = "both 0 and 1: a comparison needs two groups"
        raise InputError("labels", f"all {found[0]}", allowed, "Add samples of the other class, or use one_sample.")
    return group.astype(bool)


def check_level(name: str, value: float | int) -> float:
    """A probability strictly between 0 and 1."""
    if not 0 < value < 1:
        raise InputError(name, value, "a number above 0 and below 1", "The usual choice is 0.05.")
    return float(value)


def check_unit(unit: Any, units: int, *, name: str = "unit") -> int:
    """A unit's number that is there."""
    if isinstance(unit, bool | float | np.floating) or not 0 <= unit < units:
        raise InputError(name, unit, f"a whole number from 0 to {units - 1}", "Units count from 0, in column order.")
    return int(unit)


def _check_pairs(pairs: Readable, is_1: Bool[ndarray, " samples"]) -> Int[ndarray, "pairs 2"]:
    """Sample numbers of each pair, in the order in which the pairs' first samples stand."""
    codes, names = group_codes("pairs", pairs, len(is_1))
    zeros, ones = np.flatnonzero(~is_1), np.flatnonzero(is_1)
    counts, inside = np.bincount(codes), np.bincount(codes[ones], minlength=len(names))
    for name in np.flatnonzero((counts != 2) | (inside != 1))[:1]:
        value = f"{names[name]!s} ({counts[name] - inside[name]} in group 0, {inside[name]} in group 1)"
        way_out = "Leave samples without a partner out, or leave pairs=None where nothing is really paired."
        raise InputError("pairs", value, "each name exactly once in each group", way_out)
    # Both groups sorted by name stand partner beside partner; `rank` takes group 0 back to the order of its samples.
    partner = ones[np.argsort(codes[ones], kind="stable")]
    rank = np.argsort(np.argsort(codes[zeros], kind="stable"), kind="stable")
    matched = np.stack([zeros, partner[rank]], axis=1)
    return matched[np.argsort(matched.min(axis=1), kind="stable")]


def group_codes(name: str, groups: Readable, samples: int) -> tuple[Int[ndarray, " samples"], NDArray[Any]]:
    """A number from 0 per sample, the same for the same name, and the names in the order of these numbers."""
    names = as_array(name, groups)
    if names.shape != (samples,):
        allowed = f"one name per sample, so shape ({samples},)"
        raise InputError(name, f"array of shape {names.shape}", allowed, "Name samples that belong together alike.")
    codes, found = pd.factorize(names)
    if (codes < 0).any():
        way_out = "Name every sample, one that stands alone by a name of its own."
        raise InputError(name, f"{int((codes < 0).sum())} missing names", "a name for every sample", way_out)
    return codes.astype(np.int64), np.asarray(found)
