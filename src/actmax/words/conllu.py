"""Sentences of CoNLL-U files, one at a time, with file and line in every complaint.

The published parsers accept rows of any number of columns, split at double spaces, and do not say in which line they
failed; a treebank with a broken row would be half read. The format is ten columns, so it is read here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from actmax.errors import InputError
from actmax.text.files import files_in, utf8_lines

COLUMNS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
"""Names of the ten columns of a row."""
FORMAT = "https://universaldependencies.org/format.html describes the format."


@dataclass(frozen=True)
class Word:
    """A syntactic word of a sentence, with its annotation."""

    columns: Mapping[str, str]
    """The row's ten columns by name, as they stand in the file."""
    feats: Mapping[str, str]
    """Morphological features by name."""
    span: tuple[int, int] | None
    """First character in the sentence's text and the one behind the last; None for a part of a multiword token, which
    has no text of its own."""
    line: int
    """Number of the row's line in the file, from 1."""

    def value(self, key: str) -> str | None:
        """A column (`upos`), or else a feature (`Number`)."""
        return self.columns.get(key, self.feats.get(key))


@dataclass(frozen=True)
class Sentence:
    """A sentence with its words and its comments."""

    text: str
    """The text, put together of the tokens and the spaces between them."""
    words: tuple[Word, ...]
    """The syntactic words; empty nodes are left out."""
    metadata: Mapping[str, str]
    """Comments of the form `# key = value`, by key."""
    source: str
    """File and line of the first row, as `FILE:LINE`."""


Row = tuple[int, dict[str, str]]
"""A line's number, and its columns by name."""


def files_of(place: Path) -> list[Path]:
    """A CoNLL-U file, or those of a folder, in order.

    Raises:
        InputError: there is none.
    """
    files = files_in(place, "*.conllu") if place.is_dir() else [place]
    if not files:
        raise InputError("place", place, "must be a folder with .conllu files")
    return files


def sentences(place: Path) -> Iterator[Sentence]:
    """The sentences of a file or of a folder's files, one in memory at a time.

    Raises:
        InputError: a line is malformed; the key is `FILE:LINE`.
    """
    for file in files_of(place):
        comments: list[Row] = []
        rows: list[Row] = []
        for number, line in utf8_lines(file):
            line = line.rstrip("\r\n")
            if line.startswith("#"):
                comments.append((number, _comment(line)))
            elif line.strip():
                rows.append((number, _columns(file, number, line)))
            elif rows:
                yield _sentence(file, comments, rows)
                comments, rows = [], []
        if rows:
            yield _sentence(file, comments, rows)


def _wrong(file: Path, number: int, value: str, allowed: str) -> InputError:
    """The error for a malformed line."""
    return InputError(f"{file}:{number}", repr(value[:60]), allowed, FORMAT)


def _comment(line: str) -> dict[str, str]:
    """Key and value of a comment line; nothing where it has no such form."""
    key, separator, value = line[1:].partition("=")
    return {key.strip(): value.strip()} if separator else {}


def _columns(file: Path, number: int, line: str) -> dict[str, str]:
    """The columns of a row by name.

    Raises:
        InputError: they are not ten, one is empty, or the features are malformed.
    """
    parts = line.split("\t")
    if len(parts) != len(COLUMNS):
        raise _wrong(file, number, line, f"must have 10 columns split by tabs, and has {len(parts)}")
    if not all(parts):
        raise _wrong(file, number, line, "must have no empty column (an underscore stands for nothing)")
    columns: dict[str, str] = dict(zip(COLUMNS, parts, strict=True))
    feats = columns["feats"]
    if feats != "_" and not all("=" in feat for feat in feats.split("|")):
        raise _wrong(file, number, feats, "features must read NAME=VALUE, split by bars")
    return columns


def _sentence(file: Path, comments: Sequence[Row], rows: Sequence[Row]) -> Sentence:
    """The sentence of some rows: its text, and its words with their places in it.

    Raises:
        InputError: the ids do not run on from 1.
    """
    # `inside` is the last id of the multiword token that was read last: words up to it have no text of their own.
    text, words, expected, inside = "", [], 1, 0
    for number, columns in rows:
        start, end = _ids(file, number, columns["id"])
        if start is None:
            continue
        if start != expected:
            raise _wrong(file, number, columns["id"], f"ids must run on, and here stands {expected}")
        own = start > inside
        span = (len(text), len(text) + len(columns["form"])) if own else None
        if own:
            text += columns["form"] + ("" if "SpaceAfter=No" in columns["misc"].split("|") else " ")
        if end is None:
            words.append(Word(columns, _feats(columns["feats"]), span, number))
            expected += 1
        else:
            inside = end
    metadata = {key: value for _, comment in comments for key, value in comment.items()}
    return Sentence(text.rstrip(" "), tuple(words), metadata, f"{file}:{rows[0][0]}")


def _ids(file: Path, number: int, text: str) -> tuple[int | None, int | None]:
    """First and last id of a row: a word has no last, an empty node no first."""
    try:
        if "." in text:
            _whole, _part = (int(part) for part in text.split("."))
            return None, None
        start, *rest = (int(part) for part in text.split("-"))
    except ValueError:
        raise _wrong(file, number, text, "ids must be 3, 3-4 (a multiword token) or 3.1 (an empty node)") from None
    if len(rest) > 1 or (rest and rest[0] <= start):
        raise _wrong(file, number, text, "a multiword token must end behind its first word")
    return start, rest[0] if rest else None


def _feats(text: str) -> dict[str, str]:
    """The features of a column `feats`, by name."""
    if text == "_":
        return {}
    return dict(feat.split("=", 1) for feat in text.split("|"))
