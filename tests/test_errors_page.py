"""docs/errors.md is what the commands of the tests say, and its check notices when it is not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import errors


def test_a_provoked_error_is_a_row_with_its_meaning_and_its_way_out() -> None:
    error, said = errors.provoked("subject=tiny", "search.passes=1")
    assert said == "actmax: search.passes=1: must be at least 2."
    row = errors._row(error, said, {"search.passes": "Forward passes."})
    assert row == f"| `search.passes=1: must be at least 2.` | Forward passes. | {errors.PLAIN} |"
    with pytest.raises(RuntimeError, match="was taken"):
        errors.provoked("--cfg", "job", "subject=tiny")


def test_the_page_has_every_table_of_the_tests() -> None:
    text = errors.PAGE.read_text(encoding="utf-8")
    for given, allowed in errors.WRONG_VALUES:
        key = given.split()[-1].partition("=")[0]
        assert f"| `{key}=" in text or "=null" in given, given
        assert allowed.split("|")[0] in text or "=null" in given, given
    for given in errors.MANY:
        assert f"`{given.split()[-1]}=1000000000: takes" in text or "examples" in given, given


@pytest.mark.slow
@pytest.mark.parametrize("change", [False, True])
def test_the_check_notices(change: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "errors.md"
    file.write_text(
        errors.PAGE.read_text(encoding="utf-8").replace("at least 0", "at least 1" if change else "at least 0")
    )
    monkeypatch.setattr(sys, "argv", ["errors.py", "--check", "--file", str(file)])
    if change:
        with pytest.raises(SystemExit, match="run python scripts/errors"):
            errors.main()
    else:
        errors.main()
