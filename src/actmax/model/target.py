"""What is read of a subject: its address, its values in a forward pass, and its columns in a table.

An address is parsed, printed and turned into columns here and nowhere else, and nothing else knows how values are
gathered. Nothing heavy is imported at the top, so that an address that is wrong is refused at once.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from math import nan
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from actmax.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from jaxtyping import Float
    from numpy import ndarray
    from torch import Tensor

    from actmax.model.architecture import Geometry

    Values_co = TypeVar("Values_co", Tensor, ndarray, covariant=True)

    class Captured(Protocol[Values_co]):
        """The activations of all coordinates of some places; the last dimension is the coordinate."""

        def __getitem__(self, place: Place, /) -> Values_co: ...

    class Row(Protocol):
        """A row of a table: a Series, or a dict of `to_dict("records")`."""

        def __getitem__(self, key: str, /) -> Any: ...

        def get(self, key: str, /) -> Any: ...  # noqa: D102 as a dict has it


Place = tuple[str, int | None]
"""A site and a layer (None at `final_norm`)."""
UNIT = ["site", "layer", "index"]
"""The columns that hold a unit's address, in every table."""
TARGET = "target"
"""The column besides with the name of a direction: missing in a row about a unit, and in tables of units alone."""
WHOLE_NAMES = ("sae:", "logit:")
"""How names begin that say by themselves where they are read: an address is the name alone."""


class Target(ABC):
    """What is read of a subject: one number per position, from the activations at one site and layer."""

    site: str
    """Where in a block, in TransformerLens's names; or `final_norm`."""
    layer: int | None
    """Which block, from 0; None at `final_norm`."""
    index: int
    """Which coordinate of the site, or which row of a direction's file."""

    @property
    def place(self) -> Place:
        """The site and layer that it is read from."""
        return self.site, self.layer

    @abstractmethod
    def read(self, captured: Captured[Values_co]) -> Values_co:
        """Values of the target in what `Subject.run` captured: the activations' shape without the last dimension."""

    @abstractmethod
    def weights(self, width: int) -> Float[ndarray, " width"]:
        """The vector w of its read-out w · x + b at a site of some width."""

    def check_subject(self, geometry: Geometry, name: str | None = None) -> None:  # noqa: ARG002 others say it
        """Refuses a subject that lacks its site and layer, or has another width there.

        Args:
            geometry: the subject's sizes.
            name: what the subject goes by.

        Raises:
            InputError: names `site`, `layer`, `index`, `direction` or `sae`.
        """
        geometry.check_place(self.site, self.layer)
        self.check_width(geometry.width(self.site))

    @abstractmethod
    def check_width(self, width: int) -> None:
        """Refuses a site of another width than it is read from."""

    @property
    def coordinate(self) -> int | None:
        """The coordinate that it is; None for a direction that is none."""
        return self.index

    @property
    def identity(self) -> str:
        """What names it and everything that its values depend on, beside the subject."""
        return str(self)

    def columns(self) -> dict[str, Any]:
        """The target's address as the first columns of a table's row; `with_layers` types a table of such rows."""
        return {"site": self.site, "layer": self.layer, "index": self.index}

    @abstractmethod
    def __str__(self) -> str:
        """The address of the target, as users write it and as tables, messages and figures print it."""


@dataclass(frozen=True, order=True)
class Unit(Target):
    """One coordinate of a site and layer."""

    site: str
    """Where in a block, in TransformerLens's names; or `final_norm`."""
    layer: int | None
    """Which block, from 0; None at `final_norm`."""
    index: int
    """Which coordinate; at q, k, v and z it is head x head_dim + dim (of the kv-heads for k and v)."""

    @classmethod
    def parse(cls, text: str, argument: str = "unit") -> Unit:
        """A unit by its address. Whether a subject has such a unit is for `Geometry.check` to say.

        Args:
            text: SITE.LAYER[INDEX], or SITE[INDEX] where the site takes no layer.
            argument: what the caller calls the text, for the error.

        Raises:
            InputError: it is no address of one unit.

        Example:
            >>> Unit.parse("mlp_pre.3[70]")
            Unit(site='mlp_pre', layer=3, index=70)
        """
        match = re.fullmatch(r"([a-z]\w*)(?:\.(\d+))?\[(\d+)\]", text, re.ASCII)
        if match is None:
            allowed = "must read SITE.LAYER[INDEX], as in resid_pre.8[91], or final_norm[INDEX]"
            raise InputError(argument, text, allowed)
        site, layer, index = match.groups()
        return cls(site, None if layer is None else int(layer), int(index))

    def read(self, captured: Captured[Values_co]) -> Values_co:
        """Values of the target in what `Subject.run` captured: the activations' shape without the last dimension."""
        return captured[self.place][..., self.index]

    def weights(self, width: int) -> Float[ndarray, " width"]:
        """The vector that is 1 at its coordinate and 0 elsewhere."""
        import numpy as np

        return np.eye(1, width, self.index)[0]

    def check_width(self, width: int) -> None:
        """Refuses an index that the site does not have."""
        if not 0 <= self.index < width:
            raise InputError("index", self.index, f"must be a number from 0 to {width - 1} at {self.site}")

    def __str__(self) -> str:
        return address(self.site, self.layer, self.index)


@dataclass(frozen=True, eq=False)
class Direction(Target):
    """An affine read-out w · x + b of one site and layer: a probe's weights, a difference of means.

    Two directions are the same where their address and their numbers are. A norm of w that is not 1 is kept.

    Raises:
        InputError: w is no vector of finite numbers, or all of them are 0; b is no finite number.

    Example:
        >>> import numpy as np
        >>> both = Direction("resid_post", 3, np.array([3.0, 4.0]), name="both")
        >>> str(both), float(both.read({("resid_post", 3): np.array([[1.0, 2.0]])})[0])
        ('resid_post.3:both', 11.0)
    """

    site: str
    """Where in a block, in TransformerLens's names; or `final_norm`."""
    layer: int | None
    """Which block, from 0; None at `final_norm`."""
    w: Any = None
    """The vector, as wide as the site (array or tensor); None where an address alone is known, so that nothing can be
    read."""
    b: float = 0.0
    """What is added to w · x."""
    name: str | None = None
    """What it is called; None: by a digest of its numbers."""
    index: int = 0
    """Row of the file that it comes from, or number of the latent."""
    origin: Any = None
    """The file or the autoencoder that it is a row of, with others beside it."""

    key: ClassVar[str] = "direction"
    """The argument that errors about this kind of target name."""

    def __post_init__(self) -> None:
        if self.w is not None:
            object.__setattr__(self, "w", _vector(self.w))
            object.__setattr__(self, "b", _number(self.b))
        if self.name is None:
            object.__setattr__(self, "name", f"direction {self.digest[:8]}")

    @property
    def norm(self) -> float:
        """The length of w; NaN where w is not known."""
        return nan if self.w is None else float((self.w**2).sum() ** 0.5)

    @cached_property
    def digest(self) -> str:
        """sha256 of w and b; empty where they are not known."""
        return "" if self.w is None else sha256(self.w.tobytes() + repr(self.b).encode()).hexdigest()

    @property
    def coordinate(self) -> int | None:
        """The coordinate that it is, where w is 1 there and 0 elsewhere and b is 0; else None."""
        return self._coordinate

    @cached_property
    def _coordinate(self) -> int | None:
        places = self.w.nonzero()[0]
        return int(places[0]) if len(places) == 1 and self.w[places[0]] == 1 and self.b == 0 else None

    def read(self, captured: Captured[Values_co]) -> Values_co:
        """W · x + b of what `Subject.run` captured, never coarser than float32; numpy arrays in float64.

        A direction that is a coordinate is read as that is: the same bits, and no product with the other coordinates.
        """
        import numpy as np

        values: Any = captured[self.place]
        if self.coordinate is not None:
            return values[..., self.coordinate]
        if isinstance(values, np.ndarray):
            return values.astype("float64") @ self.w + self.b  # pyright: ignore[reportReturnType] numpy in, numpy out
        w = self.like(values)
        return values.to(w.dtype) @ w + self.b

    def like(self, values: Tensor) -> Float[Tensor, " width"]:
        """The vector w on the device of some activations and in their format, or float32 where theirs is coarser."""
        import torch

        dtype = torch.promote_types(torch.float32, values.dtype)
        if (values.device, dtype) not in self._like:
            self._like[values.device, dtype] = torch.from_numpy(self.w.copy()).to(values.device, dtype)
        return self._like[values.device, dtype]

    @cached_property
    def _like(self) -> dict[Any, Tensor]:
        return {}

    def weights(self, width: int) -> Float[ndarray, " width"]:
        """The vector w."""
        self.check_width(width)
        return self.w

    def check_width(self, width: int) -> None:
        """Refuses a site of another width than w has."""
        if self.w is not None and len(self.w) != width:
            allowed = f"has {len(self.w)} numbers, and {place_name(*self.place)} of this model is {width} wide"
            raise InputError(self.key, str(self), allowed)

    def columns(self) -> dict[str, Any]:
        """`site`, `layer`, `index`, and its name as `target`."""
        return {**super().columns(), TARGET: self.name}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Direction) and self._own == other._own

    def __hash__(self) -> int:
        return hash(self._own)

    @property
    def identity(self) -> str:
        """The address of the direction and a digest of its numbers."""
        return f"{self} {self.digest}"

    @property
    def _own(self) -> tuple[Any, ...]:
        return self.site, self.layer, self.index, self.name, self.digest

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_like"}

    def __str__(self) -> str:
        name = str(self.name)
        return name if name.startswith(WHOLE_NAMES) else f"{place_name(*self.place)}:{name}"


def _vector(w: Any) -> Float[ndarray, " width"]:
    import numpy as np

    try:
        if hasattr(w, "detach"):  # a tensor, of whatever format and wherever it lies
            w = w.detach().cpu().double().numpy()
        found = np.array(w, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError("w", type(w).__name__, f"must be a vector of numbers ({error})") from error
    if found.ndim != 1 or not len(found):
        raise InputError("w", f"an array of shape {found.shape}", "must be one vector, as wide as the site")
    if not np.isfinite(found).all():
        raise InputError("w", "a vector with NaN or infinity in it", "must be finite numbers")
    if not found.any():
        raise InputError("w", "a vector of zeros", "must point somewhere")
    found.flags.writeable = False
    return found


def _number(b: Any) -> float:
    try:
        found = float(b)
    except (TypeError, ValueError):
        found = nan
    if found - found != 0:  # NaN and infinity
        raise InputError("b", b, "must be a finite number")
    return found


def read_own(captured: Mapping[Place, Tensor], units: Sequence[Target]) -> Float[Tensor, "copies tokens"]:
    """The values of each row's own target at all positions: target i is read in row i of what was captured.

    Where there are several copies of each row, one behind the other, target i is read in all copies of row i.
    """
    import torch

    copies = len(next(iter(captured.values()))) // len(units)
    units = [unit for unit in units for _ in range(copies)] if copies > 1 else units
    places = {unit.place for unit in units}
    if len(places) > 1:
        return torch.stack([unit.read(captured)[row] for row, unit in enumerate(units)])
    # one gather, or one product, for all rows: a selection for each costs as many kernels, forward and backward
    values = captured[places.pop()]
    coordinates = [unit.coordinate for unit in units]
    if None not in coordinates:
        index = torch.tensor(coordinates, device=values.device)
        return values.gather(2, index[:, None, None].expand(-1, values.shape[1], 1))[..., 0]
    return _products(values, units)


def _products(values: Float[Tensor, "copies tokens width"], units: Sequence[Target]) -> Float[Tensor, "copies tokens"]:
    """W · x + b of each row's own target; w of a coordinate is 1 there."""
    import torch

    numbers = {unit: number for number, unit in enumerate(dict.fromkeys(units))}
    rows = [unit.like(values) if isinstance(unit, Direction) else _one_hot(unit, values) for unit in numbers]
    own = torch.tensor([numbers[unit] for unit in units], device=values.device)
    bias = torch.tensor([getattr(unit, "b", 0.0) for unit in numbers], device=values.device, dtype=rows[0].dtype)
    w = torch.stack(rows)[own]
    return torch.einsum("ctw,cw->ct", values.to(w.dtype), w) + bias[own, None]


def _one_hot(unit: Target, values: Tensor) -> Float[Tensor, " width"]:
    import torch

    w = torch.zeros(values.shape[-1], device=values.device, dtype=torch.promote_types(torch.float32, values.dtype))
    w[unit.index] = 1
    return w


# addresses as text


def address(site: str, layer: object, index: object) -> str:
    """SITE.LAYER[INDEX]; of several units at once where layer or index is a list or a range.

    Example:
        >>> address("resid_pre", 8, 91), address("final_norm", None, "0:12")
        ('resid_pre.8[91]', 'final_norm[0:12]')
    """
    return f"{place_name(site, layer)}[{index}]"


def place_name(site: str, layer: object) -> str:
    """SITE.LAYER, or the site alone where it takes no layer."""
    return site if layer is None else f"{site}.{layer}"


# addresses in tables


def place_of_row(row: Row) -> Place:
    """The site and layer of a table's row."""
    import pandas as pd

    return str(row["site"]), None if pd.isna(row["layer"]) else int(row["layer"])


def target_of_row(row: Row) -> Target:
    """What a table's row is about: a unit, or a direction of which the address alone is known.

    Example:
        >>> print(target_of_row({"site": "resid_post", "layer": 3, "index": 0, "target": "probe.safetensors#verb"}))
        resid_post.3:probe.safetensors#verb
    """
    import pandas as pd

    name = row.get(TARGET)
    if name is None or pd.isna(name):
        return Unit(*place_of_row(row), int(row["index"]))
    return Direction(*place_of_row(row), name=str(name), index=int(row["index"]))


def names_in(table: pd.DataFrame) -> list[str]:
    """The columns of a table that hold an address."""
    return [*UNIT, TARGET] if TARGET in table else UNIT


def addresses(table: pd.DataFrame) -> list[str]:
    """The address of each row's target, as it is read."""
    return [str(target_of_row(row)) for row in table.to_dict("records")]


def rows_of(table: pd.DataFrame, unit: Target) -> pd.DataFrame:
    """The rows of a table that are about a target."""
    layer = table["layer"].isna() if unit.layer is None else (table["layer"] == unit.layer).fillna(value=False)
    inside = layer & (table["site"] == unit.site) & (table["index"] == unit.index)
    name = unit.columns().get(TARGET)
    if TARGET in table:
        inside &= table[TARGET].isna() if name is None else (table[TARGET] == name).fillna(value=False)
    elif name is not None:
        inside &= False
    return table.loc[inside]


def addressed(table: pd.DataFrame, units: Iterable[Target]) -> pd.DataFrame:
    """A table with the addresses of targets as its first columns: of one for all rows, or of one for each row."""
    import pandas as pd

    units = list(units)
    columns = address_columns(units * len(table) if len(units) == 1 else units)
    return pd.concat([pd.DataFrame(columns, index=table.index), table], axis=1)


def address_columns(units: Iterable[Target]) -> dict[str, Any]:
    """The columns `site`, `layer` (whole numbers, or missing) and `index` of a table with a row for each target.

    And `target`, the names of directions, where one of them is no unit.
    """
    import pandas as pd

    rows = list(units)
    layers = pd.array([unit.layer for unit in rows], dtype="Int64")
    found = {"site": [unit.site for unit in rows], "layer": layers, "index": [unit.index for unit in rows]}
    names = [unit.columns().get(TARGET) for unit in rows]
    return found | ({TARGET: names} if any(name is not None for name in names) else {})


def place_columns(place: Place, width: int) -> dict[str, Any]:
    """The same columns of a table with a row for each coordinate of a place, in order."""
    import pandas as pd

    site, layer = place
    return {"site": [site] * width, "layer": pd.array([layer] * width, dtype="Int64"), "index": range(width)}


def with_layers(table: pd.DataFrame) -> pd.DataFrame:
    """The table, its layers as whole numbers or missing (`final_norm` has none); the other columns are not copied."""
    table["layer"] = table["layer"].astype("Int64")
    return table
