"""Text files line by line: numbers, ends, byte order marks, and the line that is no text."""

from __future__ import annotations

from pathlib import Path

import pytest

from actmax.errors import InputError
from actmax.text.files import check_utf8, named_file, utf8_lines


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "some.txt"


def test_lines_keep_their_ends_and_lose_byte_order_marks(file: Path) -> None:
    file.write_bytes("\ufefföne\r\n\n\ufefftwo \ufeff\nthree".encode())
    assert list(utf8_lines(file)) == [(1, "öne\r\n"), (2, "\n"), (3, "two \ufeff\n"), (4, "three")]
    file.write_bytes(b"")
    assert list(utf8_lines(file)) == []


@pytest.mark.parametrize(("content", "line"), [(b"\xff", 1), (b"a\nb\n\xc3\nd\n", 3), ("ö".encode("utf-16"), 1)])
def test_the_line_that_is_no_text_is_named(content: bytes, line: int, file: Path) -> None:
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"must be UTF-8 \(.+\)") as caught:
        check_utf8(file)
    assert caught.value.key == f"{file}:{line}"


def test_lines_before_it_are_read(file: Path) -> None:
    file.write_bytes(b"fine\n\xff\n")
    lines = utf8_lines(file)
    assert next(lines) == (1, "fine\n")
    with pytest.raises(InputError):
        next(lines)
    file.write_bytes("fine\nÿ\n".encode())
    check_utf8(file)  # negative control: the same letter, encoded


def test_a_text_is_seldom_the_name_of_a_file(file: Path) -> None:
    file.write_text("")
    assert named_file(str(file)) == file
    for text in ("x" * 5000, "a\0b", "Once upon a time.", "It is in story.txt ", "either/or", "v1.2", "no\nstory.txt"):
        assert named_file(text) is None
    for text in (str(file.parent), f"{file}x", "stroy.txt", "my stroy.TXT", "./stroy", "~/stroy", "../a/b.md"):
        with pytest.raises(InputError, match=r"^text="):
            named_file(text)
