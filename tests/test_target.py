"""A unit's address as text and as columns, there and back, and its values beside a gathering by hand."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy import ndarray

from actmax.errors import InputError
from actmax.model.architecture import SITES
from actmax.model.target import (
    UNIT,
    Place,
    Unit,
    address,
    addressed,
    place_columns,
    place_name,
    read_own,
    rows_of,
    target_of_row,
)

LAYERS = st.none() | st.integers(0, 200)
UNITS = st.builds(Unit, st.sampled_from(SITES), LAYERS, st.integers(0, 100_000))
"""Also such as no subject has: whether it has one is for `Geometry.check` to say."""
BAD = {
    "no_index": "resid_pre.8",
    "no_site": ".8[91]",
    "site_is_a_number": "8[91]",
    "site_of_several_words": "resid pre.8[91]",
    "layer_is_a_word": "resid_pre.eight[91]",
    "layer_missing_behind_the_dot": "resid_pre.[91]",
    "layer_negative": "resid_pre.-8[91]",
    "layer_with_a_fraction": "resid_pre.8.5[91]",
    "layer_a_range": "resid_pre.0:12[91]",
    "index_empty": "resid_pre.8[]",
    "index_negative": "resid_pre.8[-1]",
    "index_a_word": "resid_pre.8[all]",
    "indices": "resid_pre.8[1,2]",
    "round_brackets": "resid_pre.8(91)",
    "left_open": "resid_pre.8[91",
    "text_behind": "resid_pre.8[91] ",
    "text_before": " resid_pre.8[91]",
    "line_end": "resid_pre.8[91]\n",
    "two_units": "resid_pre.8[91] resid_pre.8[92]",
    "digits_of_another_script": "resid_pre.٨[٩]",
    "nothing": "",
}


def others(unit: Unit) -> list[Unit]:
    """Units that differ from one in a single part of the address."""
    layer = 0 if unit.layer is None else unit.layer + 1
    changed = [replace(unit, site=f"{unit.site}x"), replace(unit, layer=layer), replace(unit, index=unit.index + 1)]
    return changed if unit.layer is None else [*changed, replace(unit, layer=None)]


@given(UNITS)
def test_an_address_as_text_there_and_back(unit: Unit) -> None:
    assert Unit.parse(str(unit)) == unit
    for other in others(unit):
        assert str(other) != str(unit)
        assert Unit.parse(str(other)) != unit


@pytest.mark.parametrize(
    ("text", "unit"),
    [("resid_pre.8[91]", Unit("resid_pre", 8, 91)), ("final_norm[3]", Unit("final_norm", None, 3))],
)
def test_what_an_address_reads_like(text: str, unit: Unit) -> None:
    assert Unit.parse(text) == unit
    assert str(unit) == text == address(*unit.columns().values())
    assert place_name(*unit.place) == text.partition("[")[0]


def test_the_address_of_several_units() -> None:
    assert address("z", [4, 8], "0:12") == "z.[4, 8][0:12]"


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_what_is_no_address_is_refused_with_what_it_must_read(text: str) -> None:
    with pytest.raises(InputError) as caught:
        Unit.parse(text)
    assert (caught.value.key, caught.value.value) == ("unit", text)
    assert "SITE.LAYER[INDEX]" in caught.value.allowed
    with pytest.raises(InputError, match=r"^target="):
        Unit.parse(text, "target")


@given(st.lists(UNITS, min_size=1, max_size=8))
def test_addresses_as_columns_there_and_back(units: list[Unit]) -> None:
    table = addressed(pd.DataFrame({"seed": range(len(units))}), units)
    assert list(table.columns) == [*UNIT, "seed"]
    assert str(table["layer"].dtype) == "Int64"
    assert [target_of_row(row) for row in table.to_dict("records")] == units
    assert [target_of_row(row) for _, row in table.iterrows()] == units
    for unit in units:
        assert rows_of(table, unit)["seed"].tolist() == [row for row, other in enumerate(units) if other == unit]
        for other in set(others(unit)) - set(units):
            assert not len(rows_of(table, other))


def test_one_unit_for_all_rows() -> None:
    table = addressed(pd.DataFrame({"seed": [0, 1, 2]}, index=[5, 6, 7]), [Unit("final_norm", None, 3)])
    assert table["index"].tolist() == [3, 3, 3]
    assert table.index.tolist() == [5, 6, 7]
    with pytest.raises(ValueError, match=r"[Ll]ength"):
        addressed(table[["seed"]], [Unit("z", 1, 2), Unit("z", 1, 3)])


def test_rows_are_found_where_layers_are_plain_numbers_or_missing() -> None:
    units = [Unit("z", 1, 2), Unit("final_norm", None, 2), Unit("z", 2, 2)]
    table = pd.DataFrame([unit.columns() for unit in units])
    assert table["layer"].dtype == float  # NaN at final_norm, as a table has it that never saw `with_layers`
    for row, unit in enumerate(units):
        assert rows_of(table, unit).index.tolist() == [row]
        assert target_of_row(table.iloc[row]) == unit


@pytest.mark.parametrize("place", [("mlp_post", 3), ("final_norm", None)])
def test_all_coordinates_of_a_place(place: Place) -> None:
    table = pd.DataFrame(place_columns(place, 4))
    assert [target_of_row(row) for row in table.to_dict("records")] == [Unit(*place, index) for index in range(4)]


def captured() -> dict[Place, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {place: torch.randn(5, 3, 7, generator=generator) for place in (("z", 1), ("z", 2), ("final_norm", None))}


def by_hand(values: dict[Place, torch.Tensor], units: list[Unit]) -> ndarray:
    own = [values[unit.site, unit.layer].numpy()[row, :, unit.index] for row, unit in enumerate(units)]
    return np.stack(own)


@pytest.mark.parametrize(
    "units",
    [
        [Unit("z", 2, index) for index in (6, 0, 3, 3, 1)],
        [Unit("z", 1, 2), Unit("z", 2, 2), Unit("final_norm", None, 6), Unit("z", 1, 2), Unit("z", 2, 0)],
    ],
    ids=["one_place", "several_places"],
)
def test_each_row_reads_its_own_unit(units: list[Unit]) -> None:
    values = captured()
    found = read_own(values, units).numpy()
    assert np.array_equal(found, by_hand(values, units))
    assert not np.array_equal(found, by_hand(values, units[::-1]))
    whole = np.stack([unit.read(values).numpy()[row] for row, unit in enumerate(units)])
    assert np.array_equal(found, whole)


def test_gradients_reach_the_own_coordinate_alone() -> None:
    units = [Unit("z", 1, 2), Unit("z", 2, 2), Unit("z", 1, 4)]
    for some in (units, [units[0], units[2]]):
        values = {place: value[: len(some)].requires_grad_() for place, value in captured().items()}
        read_own(values, some).sum().backward()
        for place, value in values.items():
            expected = torch.zeros_like(value)
            for row, unit in enumerate(some):
                expected[row, :, unit.index] = float(unit.place == place)
            gradient = torch.zeros_like(value) if value.grad is None else value.grad
            assert torch.equal(gradient, expected)


def test_arrays_are_read_like_tensors() -> None:
    store = {("z", 1): np.arange(12).reshape(4, 3)}
    assert Unit("z", 1, 2).read(store).tolist() == [2, 5, 8, 11]


def test_nothing_heavy_is_imported() -> None:
    program = "import sys; from actmax.model.target import Unit; Unit.parse('z.1[2]'); "
    program += "print([m for m in ('torch', 'pandas', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
