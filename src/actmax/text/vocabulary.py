"""The words of a subject's vocabulary: tokens that are a whole word."""

from __future__ import annotations

from actmax.model.subject import Subject

LEAST_LETTERS = 3
"""Letters of a word, at least: shorter tokens are pieces more often than words."""


def whole_words(subject: Subject) -> list[tuple[int, str]]:
    """The tokens that begin with a space and are letters from there on, each with its text.

    Of tokens that differ in capital letters alone the first is taken.

    Args:
        subject: the language model.
    """
    found: dict[str, tuple[int, str]] = {}
    for token in subject.plain_tokens.tolist():
        text = subject.token(token)
        word = text[1:]
        if text[:1] == " " and len(word) >= LEAST_LETTERS and word.isalpha():
            found.setdefault(word.lower(), (token, text))
    return list(found.values())
