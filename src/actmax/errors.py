"""The two errors that a user meets: the input is wrong, or a job failed after its start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class InputError(ValueError):
    """A user's input is wrong; the command line prints the message without a traceback and exits with 2.

    Args:
        key: the argument that is wrong, or the place in a file (`FILE:LINE`); for users of the command line the
            application makes a config key of it (`renamed`).
        value: what it was.
        allowed: what would have been right, as a clause ("a number from 0 to 29").
        way_out: what to do about it, as a sentence.
    """

    def __init__(self, key: str, value: object, allowed: str, way_out: str = "") -> None:
        super().__init__(key, value, allowed, way_out)
        self.key = key
        self.value = value
        self.allowed = allowed
        self.way_out = way_out

    def __str__(self) -> str:
        message = f"{self.key}={self.value}: {self.allowed}."
        return f"{message} {self.way_out}" if self.way_out else message


def printable(message: str) -> str:
    r"""A message whose control characters and bidirectional marks, all but line ends, are shown as escapes.

    Example:
        >>> print(printable("a\x1b[31m\u202eb"))
        a\x1b[31m\u202eb
    """
    return "".join(one if one == "\n" or one.isprintable() else ascii(one)[1:-1] for one in message)


class JobError(RuntimeError):
    """A job failed after its start; its status and its log hold the traceback. The command line exits with 1."""


class BusyError(InputError):
    """Another process is running the job."""


@contextmanager
def renamed(names: Mapping[str, str]) -> Iterator[None]:
    """Calls the argument that an error names what the caller calls it; places in files and other names stay.

    Args:
        names: the caller's name by the argument's; what an error has behind a dot is kept.

    Raises:
        InputError: what was raised inside, of the same class.

    Example:
        >>> with renamed({"site": "unit.site"}):
        ...     raise InputError("site", "resid", "must be one of resid_pre, resid_post")
        Traceback (most recent call last):
        actmax.errors.InputError: unit.site=resid: must be one of resid_pre, resid_post.
    """
    try:
        yield
    except InputError as error:
        argument, dot, rest = error.key.partition(".")
        if argument not in names or ":" in error.key:  # a file may be called as an argument is: `data.csv:3`
            raise
        raise type(error)(f"{names[argument]}{dot}{rest}", error.value, error.allowed, error.way_out) from error
