"""The result of one job: its tables, findings and verdict; it shows itself in notebooks and on terminals."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from actmax.errors import InputError
from actmax.evidence.readings import Verdict
from actmax.records.contents import Contents
from actmax.records.store import Record, Summary, from_yaml
from actmax.tasks import registry
from actmax.tasks.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from actmax.report.blocks import Page

WIDTH = 120
"""Columns of the text that `print(result)` gives."""


@dataclass(frozen=True, repr=False, eq=False)
class Result:
    """What one job found; `actmax.open` reads one from a record, and `save` writes one.

    Its tables are attributes, as DataFrames: `result.tokens`, `result.restarts`, `result.findings`; `result.tables`
    names them.
    """

    contents: Contents
    """Tables, tensors and the summary."""

    @property
    def summary(self) -> Summary:
        """The headline numbers, as in `summary.json`."""
        return self.contents.summary

    @cached_property
    def config(self) -> dict[str, Any]:
        """The job's config, resolved."""
        return from_yaml(self.contents.config_text) or {}

    @property
    def task(self) -> Task:
        """The kind of job."""
        return registry.task_in(self.config)

    @property
    def tables(self) -> list[str]:
        """The names of the tables."""
        return self.contents.names

    def table(self, name: str) -> pd.DataFrame:
        """A table by its name.

        Raises:
            InputError: there is no such table.
        """
        if not self.contents.has(name):
            raise InputError("name", name, f"must be one of {', '.join(self.tables)}")
        return self.contents.table(name)

    def __getattr__(self, name: str) -> pd.DataFrame:
        if not name.startswith("_") and self.contents.has(name):
            return self.contents.table(name)
        raise AttributeError(f"a result of {self.config['task']['name']} has no {name}; tables: {self.tables}")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.tables})

    @property
    def verdicts(self) -> pd.Series:
        """The declared verdict on each unit, by its address.

        Raises:
            AttributeError: the task gives no verdict on units.
        """
        from actmax.model.target import addresses

        units = self.units
        units = units.loc[~units["control"]]
        names = addresses(units)
        return pd.Series([Verdict(value) for value in units["verdict"]], names, dtype=object, name="verdict")

    @property
    def verdict(self) -> Verdict:
        """The declared verdict of a job on one unit.

        Raises:
            ValueError: the job has several units; `verdicts` has one for each.
        """
        verdicts = self.verdicts
        if len(verdicts) != 1:
            raise ValueError(f"this result has {len(verdicts)} units: ask for its verdicts")
        return verdicts.iloc[0]

    @property
    def plot(self) -> Plots:
        """Figures of the result: `result.plot.trajectory()` gives a matplotlib Axes."""
        return Plots(self)

    def page(self, *, brief: bool = False, draw: bool = True) -> Page:
        """What is shown of the result, as blocks.

        Args:
            brief: whether only the first screen is made.
            draw: whether figures are drawn.
        """
        from actmax.report.pages import page_of
        from actmax.report.source import Source

        return page_of(Source.of_contents(self.contents, brief=brief, draw=draw), self.task.page)

    def _repr_html_(self) -> str:
        from actmax.report.notebook import html

        return html(self.page(brief=True))

    def __repr__(self) -> str:
        from rich.console import Console

        from actmax.report.terminal import show

        text = io.StringIO()
        show(self.page(brief=True, draw=False), Console(file=text, width=WIDTH, color_system=None, force_jupyter=False))
        return text.getvalue().rstrip()

    def save(self, folder: Path | str, *, page: bool = True) -> Path:
        """Writes the record that the command line leaves for the same job.

        Args:
            folder: where to; made if it is not there.
            page: whether `report.html` and its figures are written too.

        Returns:
            The folder.

        Raises:
            InputError: the folder holds something else, or cannot be written.
        """
        record = Record(folder)
        status = record.status() if record.folder.is_dir() else None
        if status is None and record.folder.is_dir() and any(record.folder.iterdir()):
            raise InputError("folder", folder, "must be new, empty, or hold this job's record", "Name another.")
        if status is not None and status.job_hash != self.summary.get("job_hash"):
            raise InputError("folder", folder, "it holds the record of another job", "Name another.")
        record.require_space(10_000_000)
        self.contents.save(record)
        if page:
            from actmax.report.pages import write_page

            write_page(record, self.task.page)
        return record.folder


class Plots:
    """The figures of a result; each method gives a matplotlib Axes, the first of its figure.

    Args:
        result: what to draw.
    """

    def __init__(self, result: Result) -> None:
        self._result = result

    @property
    def _drawings(self) -> Mapping[str, Callable[[], Figure]]:
        """What draws the figures of the result's page, by name."""
        from actmax.report.blocks import Block, Prose
        from actmax.report.source import Source

        drawings: dict[str, Callable[[], Figure]] = {}

        class Listed(Source):
            """Notes who draws a figure, and draws none."""

            def figure(self, name: str, draw: Callable[[], Figure], *, alt: str, caption: str) -> Block:
                drawings[name] = draw
                return Prose(f"{alt} {caption}")

        self._result.task.page(Listed.of_contents(self._result.contents))
        return drawings

    def __dir__(self) -> list[str]:
        return sorted(self._drawings)

    def __getattr__(self, name: str) -> Any:
        drawings = {} if name.startswith("_") else self._drawings
        if name not in drawings:
            raise AttributeError(f"there is no figure {name}; figures: {', '.join(sorted(drawings))}")

        def draw() -> Axes:
            import matplotlib as mpl

            from actmax.report.figures import STYLE

            with mpl.rc_context(STYLE):
                figure = drawings[name]()
            _show_in_notebook(figure)
            return figure.axes[0]

        draw.__name__ = name
        return draw


def _show_in_notebook(figure: Figure) -> None:
    """Hands a figure to pyplot where a notebook runs, which shows what pyplot holds at the end of a cell."""
    if "ipykernel" not in sys.modules:
        return
    import matplotlib.pyplot as plt

    if (manager := plt.figure().canvas.manager) is not None:
        manager.canvas.figure = figure
        figure.set_canvas(manager.canvas)
