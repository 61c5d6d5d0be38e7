from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from actmax.errors import InputError
from actmax.records.store import VERSION, Record, Status, job_hash


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    record = Record(tmp_path)
    record.write_text("a.txt", "old")

    def half(path: Path) -> None:
        path.write_text("ne")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        record.write("a.txt", half)
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
    record.write_text("a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"


def test_json_has_null_where_a_number_is_not_finite(tmp_path: Path) -> None:
    Record(tmp_path).write_json("a.json", {"x": math.nan, "y": [math.inf, 1.5], "z": {"w": -math.inf}})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": None, "y": [None, 1.5], "z": {"w": None}}


def test_status_comes_back(tmp_path: Path) -> None:
    record = Record(tmp_path)
    assert record.status() is None
    status = Status(
        "failed",
        "abc",
        "2026-11-27T10:00:00+00:00",
        "2026-11-27T10:01:00+00:00",
        {"type": "E", "message": "m", "traceback": "t"},
    )
    record.set_status(status)
    assert record.status() == status


@pytest.mark.parametrize("text", ["{", '{"state": "complete"}', '{"unknown": 1}'])
def test_a_damaged_status_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "status.json").write_text(text)
    with pytest.raises(InputError, match="damaged"):
        Record(tmp_path).status()


def test_another_versions_status_is_named(tmp_path: Path) -> None:
    record = Record(tmp_path)
    record.set_status(Status("complete", "abc", "then", version=VERSION + 1))
    with pytest.raises(InputError, match=f"version {VERSION + 1}"):
        record.status()


def test_job_hash_is_of_content_not_order() -> None:
    assert job_hash({"a": 1, "b": [1, 2]}) == job_hash({"b": [1, 2], "a": 1})
    assert job_hash({"a": 1}) != job_hash({"a": 2})


def test_require_space(tmp_path: Path) -> None:
    Record(tmp_path / "new").require_space(1000)
    assert (tmp_path / "new").is_dir()
    with pytest.raises(InputError, match=r"^folder=.*MB are free"):
        Record(tmp_path).require_space(10**18)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"^folder=.*can be written"):
        Record(tmp_path / "file" / "below").require_space(1)
