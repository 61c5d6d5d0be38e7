"""docs/errors.md is what the commands of the tests say, and its check notices when it is not."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import errors
from actmax.app import config
from actmax.errors import InputError


def entries(text: str) -> list[tuple[str, str, str]]:
    """Message, meaning and way out of every error on a page, each on one line."""
    found = []
    for section in re.split(r"^### ", text, flags=re.MULTILINE)[1:]:
        _, means, *blocks = re.split(r"\n\n", section.partition("\n## ")[0].strip())
        for messages, out in zip(blocks[::2], blocks[1::2], strict=True):
            assert out.startswith("**Way out:** ")
            one_line = " ".join(out.removeprefix("**Way out:** ").split())
            for message in re.split(r"^- ", messages, flags=re.MULTILINE)[1:]:
                code = re.match(r"`(.*)`", " ".join(message.split()))
                assert code, message
                found.append((code[1], " ".join(means.split()), one_line))
    return found


@pytest.fixture(scope="module")
def page() -> list[tuple[str, str, str]]:
    return entries(errors.PAGE.read_text(encoding="utf-8"))


def test_a_provoked_error_is_an_entry_with_its_meaning_and_its_way_out() -> None:
    error, said = errors.provoked("subject=tiny", "search.passes=1")
    assert said == "actmax: search.passes=1: must be at least 2."
    row = errors.row(error, said, {"search.passes": "Forward passes."}, {"search.passes": 2000})
    (entry,) = entries(errors.laid_out({"Values": [row]}))
    assert entry == (
        "search.passes=1: must be at least 2.",
        "Forward passes.",
        "Give `search.passes=` a value: 2 or above. Without this key it is `2000`.",
    )
    with pytest.raises(RuntimeError, match="was taken"):
        errors.provoked("--cfg", "job", "subject=tiny")


@pytest.mark.parametrize(
    ("error", "way_out"),
    [
        (InputError("steps", 0, "must be at least 1", "Say 1."), "Say 1."),
        (InputError("prior.l3", 1, "there is no such key"), "(reference.md#prior)"),
        (InputError("stepz", 1, "there is no such key"), "(reference.md)"),
        (InputError("max_rows", 0, "must be at least 1"), "`max_rows=null` leaves it out"),
        (InputError("callbacks.trajectory.every", 0, "must be at least 1"), "Without this key it is `1`"),
        (InputError("nulls.seed", 2**70, "must be at most"), "from 0 to 9223372036854775807"),
        (InputError("trainer.profiler", "x", "must be one of"), "`simple`, `advanced`, `pytorch`"),
        (InputError("unit.minus", "a", "belongs to unit.logit"), "Take `unit.minus` out"),
        (InputError("unit.sae", "x", "must be an SAE"), "docs/targets.md"),
    ],
)
def test_every_kind_of_error_has_a_way_out_of_its_own(error: InputError, way_out: str) -> None:
    config.register()
    values = {"prior": {}, "prior.l2": {}, "max_rows": None, "steps": 500, "callbacks.trajectory.every": 1}
    assert way_out in errors.way_out(error, values)


def test_no_entry_lacks_a_part_and_no_way_out_is_everybodys(page: list[tuple[str, str, str]]) -> None:
    assert len(page) > 100
    assert [one for one in page if min(map(len, one)) < 5] == []
    for name in ("unit.sae", "unit.direction", "unit.logit", "tuning.data", "nulls.seed"):
        assert [one for one in page if one[0].startswith((f"{name}=", "words.csv:"))], name
    keys: dict[str, set[str]] = {}
    for message, _, out in page:
        keys.setdefault(out, set()).add(message.partition("=")[0])
    assert [out for out, own in keys.items() if len({key for key in own if ":" not in key}) > 3] == []


def test_the_page_has_every_table_of_the_tests(page: list[tuple[str, str, str]]) -> None:
    messages = [message for message, _, _ in page]
    answers = [f"{message} {way_out}" for message, _, way_out in page]
    for given, allowed in errors.WRONG_VALUES:
        key = given.split()[-1].lstrip("+").partition("=")[0]
        there = [one for one in answers if one.startswith(f"{key}=") and allowed in one]
        assert there or given in errors.GROUPS, given
    for given in errors.MANY:
        key = given.split()[-1]
        assert [one for one in messages if one.startswith(f"{key}=1000000000: takes")] or "examples" in given
    for _, _, said in errors.WRONG_DIRECTIONS:
        assert [one for one in page if all(word in " ".join(one) for word in said)], said
    for _, words in errors.WRONG_LOGITS + errors.WRONG_LATENTS:
        assert [one for one in page if all(word in " ".join(one) for word in words)], words
    for *_, words in errors.WRONG_CONFIGS + errors.WRONG_SIZES:
        there = [one for one in page if all(word in " ".join(one) for word in words)]
        assert bool(there) != (errors.BY_HAND in words), words


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
