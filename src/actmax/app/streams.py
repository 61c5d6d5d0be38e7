"""Standard output and standard error that a command can always write to: whoever reads them cannot end its job."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from actmax.errors import printable


class Steady:
    """A text stream that goes on where nobody reads it any more, where its disk is full, and where it lacks a letter.

    Args:
        stream: what is written to.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._ended = False

    def write(self, text: str) -> int:
        """Writes; what the encoding lacks as an escape."""
        encoding = self._stream.encoding or "utf-8"
        return self._try(lambda: self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding)))

    def flush(self) -> None:
        """Hands on what was written."""
        self._try(self._stream.flush)

    def _try(self, act: Any) -> Any:
        try:
            return act()
        except OSError as error:
            if self._ended:
                return 0
            self._ended = True
            with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 what is still in the buffer goes there
                os.dup2(nowhere.fileno(), self._stream.fileno())
            if error.errno != errno.EPIPE and self._stream is not sys.__stderr__:
                reason = error.strerror or type(error).__name__
                print(f"actmax: nothing more can be written to stdout ({reason}); the job goes on", file=sys.stderr)  # noqa: T201
            return 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Printable(logging.Formatter):
    """Formats a line of a log, tracebacks too, with what a terminal would act on shown as escapes."""

    def format(self, record: logging.LogRecord) -> str:
        """The line as it may be printed."""
        return printable(super().format(record))


@contextmanager
def steady() -> Iterator[None]:
    """Inside, stdout and stderr are steady; where one was closed it goes nowhere."""
    before = sys.stdout, sys.stderr
    try:
        sys.stdout, sys.stderr = (Steady(one or open(os.devnull, "w")) for one in before)  # noqa: PTH123, SIM115
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before
