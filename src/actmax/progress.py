"""How far something is: a bar on a terminal and in a notebook, a plain line now and then elsewhere, or nothing.

All of it goes to stderr, so that stdout holds results alone.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

with warnings.catch_warnings():
    # Without ipywidgets a notebook gets plain bars. The warning about that comes with the first import alone, which is
    # this one: Lightning and transformers import the same module later.
    warnings.filterwarnings("ignore", message="IProgress not found")
    from tqdm import auto

if TYPE_CHECKING:
    from tqdm import tqdm

Item = TypeVar("Item")

SECONDS = 10.0
"""Time between two lines where there is no bar."""
DELAY = 2.0
"""Seconds that a part of a job takes before it shows a bar of its own."""
_shown = ContextVar("shown", default=True)


@contextmanager
def shown(show: bool) -> Iterator[None]:
    """Whether bars and lines opened inside are shown; what an outer block has switched off stays off."""
    token = _shown.set(show and _shown.get())
    try:
        yield
    finally:
        _shown.reset(token)


@dataclass
class Stop:
    """A request to stop after the step in hand, so that what there is can be kept."""

    requested: bool = False
    """Whether somebody has asked."""


class Bar:
    """A bar, or the lines that stand for it; a context manager that closes the bar at its end.

    Args:
        title: what is under way.
        total: how many steps it takes; None where that is not known.
        unit: the name of a step.
        start: steps that were done before.
        scale: whether the bar shows numbers with a prefix, such as 1.2M.
        seconds: time between two lines.
        delay: seconds before a bar appears: what takes less than that shows none.

    Example:
        >>> with shown(False), Bar("search", 20, unit="pass") as bar:
        ...     bar.reach(20)
    """

    def __init__(
        self,
        title: str,
        total: int | None = None,
        *,
        unit: str,
        start: int = 0,
        scale: bool = False,
        seconds: float | int = SECONDS,
        delay: float | int = 0,
    ) -> None:
        self.title, self.total, self.unit, self.done, self.seconds = title, total, unit, start, seconds
        self._visible, self._start = _shown.get(), start
        self._begun = self._last = time.monotonic()
        self._bar: tqdm | None = None
        kind = _bar_class() if self._visible else None
        if kind is not None:
            self._bar = kind(desc=title, total=total, initial=start, unit=unit, unit_scale=scale, delay=delay)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def advance(self, steps: int = 1, note: Callable[[], str] | None = None) -> None:
        """Goes on by some steps.

        Args:
            steps: how many.
            note: makes what stands behind the count; called only where something is shown.
        """
        self.done += steps
        if self._bar is not None:
            if self._bar.update(steps) and note is not None:
                self._bar.set_postfix_str(note(), refresh=False)
        elif self._visible and time.monotonic() - self._last > self.seconds:
            self._last = time.monotonic()
            end = "" if note is None else f", {note()}"
            print(f"actmax: {self.title}: {self.unit} {self.done}{self._left()}{end}", file=sys.stderr, flush=True)  # noqa: T201

    def _left(self) -> str:
        """How many steps there are, and the time that the others take at the pace so far, as a bar shows it."""
        if self.total is None or self.done >= self.total:
            return "" if self.total is None else f" of {self.total}"
        pace = (self._last - self._begun) / max(1, self.done - self._start)
        return f" of {self.total}, {auto.tqdm.format_interval(pace * (self.total - self.done))} left"

    def resume(self, done: int) -> None:
        """Goes on to a number of steps that were done before: they say nothing about the pace of the others."""
        self.done = self._start = done
        self._begun = time.monotonic()
        if self._bar is not None:
            self._bar.reset()  # its clock too
            self._bar.initial = self._bar.n = self._bar.last_print_n = done

    def reach(self, done: int) -> None:
        """Goes on to a number of steps."""
        self.advance(done - self.done)

    def close(self) -> None:
        """Leaves the bar as it stands."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def track(items: Collection[Item], title: str, *, unit: str, delay: float | int = 0) -> Iterator[Item]:
    """Passes items on, and shows how many have been dealt with.

    Example:
        >>> with shown(False):
        ...     list(track("ab", "letters", unit="letter"))
        ['a', 'b']
    """
    if not items:
        return
    with Bar(title, len(items), unit=unit, delay=delay) as bar:
        for item in items:
            yield item
            bar.advance()


def _bar_class() -> type[tqdm] | None:
    """Tqdm's form for a terminal or, where it can show its widget, for a notebook; None where there is neither."""
    bar = auto.tqdm
    in_notebook = any(base.__module__ == "tqdm.notebook" for base in bar.__mro__)
    return bar if in_notebook or sys.stderr.isatty() else None
