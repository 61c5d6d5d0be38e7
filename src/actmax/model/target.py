"""What is read of a subject: its address, its values in a forward pass, and its columns in a table.

An address is parsed, printed and turned into columns here and nowhere else, and nothing else knows how values are
gathered. Nothing heavy is imported at the top, so that an address that is wrong is refused at once.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from actmax.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from jaxtyping import Float
    from numpy import ndarray
    from torch import Tensor

    Values_co = TypeVar("Values_co", Tensor, ndarray, covariant=True)

    class Captured(Protocol[Values_co]):
        """The activations of all coordinates of some places; the last dimension is the coordinate."""

        def __getitem__(self, place: Place, /) -> Values_co: ...

    class Row(Protocol):
        """A row of a table: a Series, or a dict of `to_dict("records")`."""

        def __getitem__(self, key: str, /) -> Any: ...


Place = tuple[str, int | None]
"""A site and its layer (None at `final_norm`)."""
UNIT = ["site", "layer", "index"]
"""The columns that hold a unit's address, in every table."""


class Target(ABC):
    """What is read of a subject: one number per position, from the activations at one site and layer."""

    @property
    @abstractmethod
    def place(self) -> Place:
        """The site and layer that it is read from."""

    @abstractmethod
    def read(self, captured: Captured[Values_co]) -> Values_co:
        """Its values, from what `Subject.run` captured: the shape of the activations without the last dimension."""

    @abstractmethod
    def columns(self) -> dict[str, Any]:
        """Its address as the first columns of a table's row."""

    @abstractmethod
    def __str__(self) -> str:
        """Its address, as users write it and as tables, messages and figures print it."""


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

    @classmethod
    def of_row(cls, row: Row) -> Unit:
        """The unit that a table's row is about."""
        return cls(*place_of_row(row), int(row["index"]))

    @property
    def place(self) -> Place:
        """The site and layer that it is read from."""
        return self.site, self.layer

    def read(self, captured: Captured[Values_co]) -> Values_co:
        """Its values, from what `Subject.run` captured: the shape of the activations without the last dimension."""
        return captured[self.place][..., self.index]

    def columns(self) -> dict[str, Any]:
        """`site`, `layer` and `index`, for a row; `with_layers` gives a table of such rows its type of layers."""
        return {"site": self.site, "layer": self.layer, "index": self.index}

    def __str__(self) -> str:
        return address(self.site, self.layer, self.index)


def read_own(captured: Mapping[Place, Tensor], units: Sequence[Unit]) -> Float[Tensor, "copies tokens"]:
    """The values of each row's own unit at all positions: unit i is read in row i of what was captured.

    Where there are several copies of each row, one behind the other, unit i is read in all copies of row i.
    """
    import torch

    copies = len(next(iter(captured.values()))) // len(units)
    units = [unit for unit in units for _ in range(copies)] if copies > 1 else units
    places = {unit.place for unit in units}
    if len(places) > 1:
        return torch.stack([unit.read(captured)[row] for row, unit in enumerate(units)])
    # one gather for all rows: a selection for each costs as many kernels, forward and backward
    values = captured[places.pop()]
    index = torch.tensor([unit.index for unit in units], device=values.device)
    return values.gather(2, index[:, None, None].expand(-1, values.shape[1], 1))[..., 0]


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


def rows_of(table: pd.DataFrame, unit: Unit) -> pd.DataFrame:
    """The rows of a table that are about a unit."""
    layer = table["layer"].isna() if unit.layer is None else (table["layer"] == unit.layer).fillna(value=False)
    return table.loc[layer & (table["site"] == unit.site) & (table["index"] == unit.index)]


def addressed(table: pd.DataFrame, units: Iterable[Unit]) -> pd.DataFrame:
    """A table with the addresses of units as its first columns: of one unit for all rows, or of one for each row."""
    import pandas as pd

    units = list(units)
    columns = address_columns(units * len(table) if len(units) == 1 else units)
    return pd.concat([pd.DataFrame(columns, index=table.index), table], axis=1)


def address_columns(units: Iterable[Unit]) -> dict[str, Any]:
    """The columns `site`, `layer` (whole numbers, or missing) and `index` of a table with a row for each unit."""
    import pandas as pd

    rows = list(units)
    layers = pd.array([unit.layer for unit in rows], dtype="Int64")
    return {"site": [unit.site for unit in rows], "layer": layers, "index": [unit.index for unit in rows]}


def place_columns(place: Place, width: int) -> dict[str, Any]:
    """The same columns of a table with a row for each coordinate of a place, in order."""
    import pandas as pd

    site, layer = place
    return {"site": [site] * width, "layer": pd.array([layer] * width, dtype="Int64"), "index": range(width)}


def with_layers(table: pd.DataFrame) -> pd.DataFrame:
    """The table, its layers as whole numbers or missing (`final_norm` has none); the other columns are not copied."""
    table["layer"] = table["layer"].astype("Int64")
    return table
