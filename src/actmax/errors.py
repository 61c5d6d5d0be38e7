"""The two errors that a user meets: the input is wrong, or a job failed after its start."""

from __future__ import annotations


class InputError(ValueError):
    """A user's input is wrong; the command line prints the message without a traceback and exits with 2.

    Args:
        key: the config key (or file) that is wrong, as the user would type it.
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


class JobError(RuntimeError):
    """A job failed after its start; its status and its log hold the traceback. The command line exits with 1."""


class BusyError(InputError):
    """Another process is running the job."""
