"""What stands before the tokens that are read, in the same forward pass."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Context:
    """What stands before the tokens that are read. Only `NONE` exists, and `Subject.run` takes no other."""

    name: str
    """What it is called in records and messages."""


NONE = Context("none")
"""Nothing: the first token that is read is the first that the model sees."""
