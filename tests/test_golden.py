"""No number of any task has changed since the golden set was written; and one that had would be noticed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

import golden

EXPECTED: dict[str, Any] = json.loads(golden.GOLDEN.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All cases, run once: two minutes."""
    return golden.run(tmp_path_factory.mktemp("golden"))


@pytest.mark.slow
def test_no_number_has_changed(found: dict[str, Any]) -> None:
    if differs := golden.other_machine(EXPECTED, found):
        pytest.skip(f"another kind of machine, where digits may differ: {', '.join(differs)}")
    rows = golden.compare(EXPECTED["cases"], found["cases"])
    assert all(row.same for row in rows), f"\n{golden.table(rows)}"


@pytest.mark.slow
def test_no_number_has_changed_beyond_a_tolerance(found: dict[str, Any]) -> None:
    """On any machine: names, kinds, numbers of rows, what is no float, and means of floats."""
    rows = golden.compare(EXPECTED["cases"], found["cases"], exact=False)
    assert all(row.same for row in rows), f"\n{golden.table(rows)}"


def test_every_case_has_its_digests() -> None:
    assert {name.partition("/")[0] for name in EXPECTED["cases"]} == set(golden.CASES)
    files = {file for case in EXPECTED["cases"].values() for file in case}
    assert {f"{name}.parquet" for name in golden.STATISTICS} <= files
    assert {"sweep.json", "summary.json", "embeddings.safetensors", "ladder.parquet", "heatmap.parquet"} <= files


# negative controls: a record of our own, and what is done to it

TABLE = pd.DataFrame(
    {
        "activation": [0.1, 0.2, np.nan, -0.0],
        "seed": [0, 1, 2, 3],
        "token": ["a", "b", None, "ü"],
        "front": [True, False, True, True],
        "ids": [[1, 2], [3], [], [4]],
    }
)
SUMMARY = {"activation": {"mean": 0.1}, "units": [1, 2], "seconds": {"fit": 0.3}, "job_hash": "abc", "verdict": "yes"}


def digests(folder: Path, table: pd.DataFrame = TABLE, **changed: Any) -> dict[str, Any]:
    folder.mkdir(parents=True)
    table.to_parquet(folder / "gaps.parquet")
    table.to_parquet(folder / "units.parquet")
    (folder / "summary.json").write_text(json.dumps(SUMMARY | changed))
    save_file({"final": np.arange(6.0).reshape(2, 3)}, folder / "embeddings.safetensors")
    return {"case": golden.digest_record(folder)}


def cell(row: int, column: str, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        values = [value if number == row else old for number, old in enumerate(table[column].tolist())]
        return table.assign(**{column: values})

    return change


@pytest.fixture
def before(tmp_path: Path) -> dict[str, Any]:
    return digests(tmp_path / "before")


def test_the_same_is_the_same(before: dict[str, Any], tmp_path: Path) -> None:
    other = digests(tmp_path / "after", seconds={"fit": 9.9}, job_hash="def")  # both left out
    assert before == other
    assert before["case"]["summary.json"] == {"activation.mean": 0.1, "units.0": 1, "units.1": 2, "verdict": "yes"}
    rows = golden.compare(before, other)
    assert all(row.same for row in rows)
    assert golden.total(rows) == "4 files: 17 equal, 0 changed, 0 only before, 0 only after"


@pytest.mark.parametrize(
    ("column", "change"),
    [
        ("activation", cell(1, "activation", np.nextafter(0.2, 1))),
        ("activation", cell(3, "activation", 0.0)),  # was -0.0
        ("activation", cell(2, "activation", 0.0)),  # was NaN
        ("seed", cell(1, "seed", 7)),
        ("token", cell(3, "token", "u")),
        ("front", cell(0, "front", False)),
        ("ids", cell(3, "ids", [5])),
        ("seed", lambda table: table.astype({"seed": float})),
    ],
)
def test_one_changed_cell_is_noticed(
    before: dict[str, Any], tmp_path: Path, column: str, change: Callable[[pd.DataFrame], pd.DataFrame]
) -> None:
    rows = golden.compare(before, digests(tmp_path / "after", change(TABLE)))
    assert [(row.file, row.changed) for row in rows if not row.same] == [
        ("gaps.parquet", (column,)),
        ("units.parquet", (column,)),
    ]
    assert f"case gaps.parquet, changed: {column}" in golden.table(rows)


def test_a_renamed_column_is_noticed_until_it_is_named(before: dict[str, Any], tmp_path: Path) -> None:
    after = digests(tmp_path / "after", TABLE.rename(columns={"activation": "reached"}))
    (row, *_) = golden.compare(before, after)
    assert (row.changed, row.lost, row.new) == ((), ("activation",), ("reached",))
    rows = golden.compare(before, after, [("activation", "reached")])
    assert [row.file for row in rows if not row.same] == ["summary.json"]  # where that key kept its name


def test_a_missing_row_is_noticed(before: dict[str, Any], tmp_path: Path) -> None:
    after = digests(tmp_path / "after", TABLE.iloc[:-1])
    for exact in (True, False):
        (row, *_) = golden.compare(before, after, exact=exact)
        assert {golden.ROWS, "seed"} <= set(row.changed)


def test_tensors_values_and_files_count_too(before: dict[str, Any], tmp_path: Path) -> None:
    after = digests(tmp_path / "after", verdict="no", new=1)
    save_file({"final": np.arange(6.0).reshape(3, 2)}, tmp_path / "after" / "embeddings.safetensors")
    (tmp_path / "after" / "units.parquet").unlink()
    after = {"case": golden.digest_record(tmp_path / "after")}
    found = {row.file: row for row in golden.compare(before, after)}
    assert found["embeddings.safetensors"].changed == ("final",)
    assert (found["summary.json"].changed, found["summary.json"].new) == (("verdict",), ("new",))
    assert len(found["units.parquet"].lost) == 6
    assert found["gaps.parquet"].same


def test_another_machine_may_round_but_not_differ(before: dict[str, Any], tmp_path: Path) -> None:
    def files(name: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> list[str]:
        rows = golden.compare(before, digests(tmp_path / name, change(TABLE)), exact=False)
        return [row.file for row in rows if not row.same]

    assert files("bit", cell(1, "activation", np.nextafter(0.2, 1))) == []
    assert files("a little", cell(1, "activation", 0.20001)) == ["gaps.parquet"]  # statistics may amplify it
    assert files("more", cell(1, "activation", 0.21)) == ["gaps.parquet", "units.parquet"]
    assert files("token", cell(1, "token", "c")) == ["gaps.parquet"]
    assert files("kind", lambda table: table.astype({"seed": float})) == ["gaps.parquet", "units.parquet"]


def test_the_canary_names_the_processor() -> None:
    """Two processors gave other digests of cases, and the same of all that the canary computes."""
    found = golden.compute_canary()
    assert found["processor"].strip("? ")
    assert golden.other_machine({"canary": found}, {"canary": {**found, "processor": "another"}}) == ["processor"]
    assert "processor" in EXPECTED["canary"]


def test_the_canary_of_another_machine_differs() -> None:
    own = {"canary": {"torch exp": "a", "version of torch": "2"}}
    assert golden.other_machine(own, own) == []
    assert golden.other_machine(own, {"canary": {"torch exp": "b", "version of torch": "2"}}) == ["torch exp"]
    assert golden.other_machine(own, {"canary": {"torch exp": "a"}}) == ["version of torch"]


def sweep(folder: Path, names: list[str], conditions: list[str]) -> dict[str, Any]:
    """Two jobs and what was collected of them, in the order of their folders' names."""
    for number, (name, condition) in enumerate(zip(names, conditions, strict=True)):
        place = folder / name
        (place / ".hydra").mkdir(parents=True)
        (place / ".hydra" / "hydra.yaml").write_text(f"hydra: {{job: {{num: {number}}}}}")
        (place / "status.json").write_text("{}")
        (place / "summary.json").write_text(json.dumps({"condition": condition, "number": number}))
    rows = sorted(zip(names, conditions, ("first", "second"), strict=True))
    table = pd.DataFrame(rows, columns=pd.Index(["job", "condition", "text"]))
    table.to_parquet(folder / "jobs.parquet")
    table.drop(columns="job").sort_values("condition").to_parquet(folder / "units.parquet")
    units = [{"condition": condition, "text": text} for _, condition, text in rows]
    (folder / "sweep.json").write_text(json.dumps({"collected": "now", "units": units}))
    return dict(golden.digested(folder, "sweep"))


def test_what_a_sweep_collects_does_not_depend_on_hashes(tmp_path: Path) -> None:
    one = sweep(tmp_path / "one", ["job_a", "job_b"], ["c1", "c2"])
    other = sweep(tmp_path / "other", ["job_z", "job_y"], ["c9", "c8"])
    assert one == other
    assert list(one) == ["sweep/0", "sweep/1", "sweep"]
    assert one["sweep/1"]["summary.json"] == {"number": 1}
    assert one["sweep"]["sweep.json"]["units.1.text"] == "second"
