"""From a record to what a person reads; so far on the terminal."""

from __future__ import annotations

import sys
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from actmax.record import Record

UNITS_SHOWN = 20
"""Rows of the table of units on a terminal."""
EFFECTS_SHOWN = 13
"""Rows of a simulation's table on a terminal."""


def show(record: Record, console: Console | None = None) -> None:
    """Prints a job's result: tokens or units, the verdict, where the record lies."""
    # a pipe or a file has no width of its own
    console = console or Console(width=None if sys.stdout.isatty() else 120)
    summary = record.summary()
    if record.path("rates.parquet").exists():
        console.print(rate_table(record.table("rates"), record.table("effects")))
    elif summary["units"] == 1:
        console.print(token_table(record.table("tokens")))
    else:
        console.print(unit_table(record.table("units")))
    console.print(f"[bold]Verdict.[/bold] {escape(str(summary['verdict']))}", highlight=False)
    compared = summary.get("comparison", {})
    if isinstance(compared, dict):
        for unit, statement in compared.items():
            console.print(f"[bold]Comparison[/bold] at {escape(unit)}. {escape(statement)}", highlight=False)
    else:
        console.print(f"[bold]Comparison[/bold] {escape(compared)}.", highlight=False)
    console.print(f"Record: {escape(str(record.folder))}", highlight=False, soft_wrap=True)


def visible(token: str) -> str:
    """A token with its spaces shown as dots and its control characters as escapes.

    Example:
        >>> visible(" the ")
        '·the·'
    """
    shown = (letter if letter.isprintable() else ascii(letter)[1:-1] for letter in token.replace(" ", "·"))
    return "".join(shown)


def token_table(tokens: pd.DataFrame) -> Table:
    """Seeds x positions: each decoded token with its cosine; `=` marks the token of the initial noise, `*` a repeat."""
    repeats = tokens["token_id"].duplicated(keep=False)
    table = Table(
        title="Decoded token and cosine, by seed and position",
        caption="= the token of its initial noise    * a repeat",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("seed", justify="right", no_wrap=True)
    for position in sorted(tokens["position"].unique()):
        table.add_column(str(position))
    table.add_column("activation", justify="right", no_wrap=True)
    for seed, rows in tokens.assign(repeat=repeats).groupby("seed", sort=True):
        ends = rows.iloc[0]
        change = f"{ends['activation_initial']:.3g} → {ends['activation_final']:.3g}"
        table.add_row(str(seed), *(_cell(row) for row in rows.sort_values("position").to_dict("records")), change)
    return table


def _cell(row: dict[Any, Any]) -> str:
    marks = ("=" if row["token_id"] == row["init_token_id"] else "") + ("*" if row["repeat"] else "")
    return f"{escape(visible(row['token']))}{marks} [dim]{row['cosine']:.2f}[/dim]"


def unit_table(units: pd.DataFrame) -> Table:
    """A row per unit, each number beside its null's 95 % interval."""
    table = Table(title=f"{len(units)} units" + (f", the first {UNITS_SHOWN}" if len(units) > UNITS_SHOWN else ""))
    for name in ("unit", "activation", "unique tokens", "kept from the start", "cosine"):
        table.add_column(name)
    for row in units.head(UNITS_SHOWN).to_dict("records"):
        table.add_row(
            _address(row),
            f"{row['activation_initial_mean']:.3g} → {row['activation_final_mean']:.4g}",
            f"{row['tokens_unique']} of {row['tokens_total']} ({_between(row, 'unique', '.0f')})",
            f"{row['init_retention']:.2f} ({_between(row, 'retention', '.2f')})",
            f"{row['cosine_mean']:.4f} ({_between(row, 'cosine', '.4f')})",
        )
    return table


def _address(row: dict[Any, Any]) -> str:
    place = row["site"] if pd.isna(row["layer"]) else f"{row['site']}.{row['layer']}"
    return escape(f"{place}[{row['index']}]")


def _between(row: dict[Any, Any], name: str, form: str) -> str:
    return f"null {row[f'null_{name}_low']:{form}} to {row[f'null_{name}_high']:{form}}"


def rate_table(rates: pd.DataFrame, effects: pd.DataFrame) -> Table:
    """A row per effect: the share that each test rejects with its Monte Carlo error, and how many are separated."""
    table = Table(
        title="Percent of units rejected, ± Monte Carlo standard error",
        caption="separated units have no maximum-likelihood estimate: the logit tests cannot reject there\n"
        "r(t, β): Pearson over the overlapping units of all effects up to this one",
        box=box.SIMPLE_HEAD,
    )
    tests = [str(name) for name in rates["test"].unique()]
    for name in ["effect", *tests, "separated", "r(t, β)"]:
        table.add_column(name.replace("_", " "), justify="right")
    cells = {(row["effect"], row["test"]): _percent(row["rate"], row["error"]) for row in rates.to_dict("records")}
    for row in effects.iloc[:: -(-len(effects) // EFFECTS_SHOWN)].to_dict("records"):
        rejected = [cells[row["effect"], name] for name in tests]
        table.add_row(f"{row['effect']:g}", *rejected, f"{row['separation_rate']:.0%}", f"{row['pearson']:.3f}")
    return table


def _percent(rate: float, error: float) -> str:
    return f"{100 * rate:.0f} ±{100 * error:.0f}"
