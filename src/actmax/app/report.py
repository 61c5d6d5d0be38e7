"""From a record to what a person reads: on the terminal, and with `page` as HTML."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from actmax.errors import InputError
from actmax.evidence.verdicts import VERDICTS
from actmax.records.store import Record
from actmax.tasks.collection import Collected, collect
from actmax.tasks.pages import NAME as PAGE
from actmax.tasks.pages import visible, write_job
from actmax.tasks.sweep_page import write_sweep
from actmax.tasks.tuning.heatmap import terminal

UNITS_SHOWN = 20
"""Rows of the table of units on a terminal."""
ROWS_SHOWN = 60
"""Rows of a sweep's table on a terminal."""
TOP_SHOWN = 8
"""Units with their words on a terminal."""
EFFECTS_SHOWN = 13
"""Rows of a simulation's table on a terminal."""


def show(record: Record, console: Console | None = None) -> None:
    """Prints a job's result: tokens or units, the verdict, where the record lies."""
    console = console or _console()
    summary = record.summary()
    if record.path("rates.parquet").exists():
        console.print(rate_table(record.table("rates"), record.table("effects")))
    elif record.path("decoders.parquet").exists():
        show_tuning(record, summary, console)
    elif record.path("contexts.parquet").exists():
        console.print(context_table(record.table("contexts")))
    elif summary["units"] == 1:
        console.print(token_table(record.table("tokens")))
    else:
        console.print(unit_table(record.table("units")))
    console.print(f"[bold]Verdict.[/bold] {escape(str(summary['verdict']))}", highlight=False)
    for key, title in (("decode_gap", "Decode gap"), ("rounding", "Rounding")):
        if key in summary:
            said = summary[key]["statement"] if key == "rounding" else summary[key]
            console.print(f"[bold]{title}.[/bold] {escape(said)}", highlight=False)
    compared = summary.get("comparison", {})
    if isinstance(compared, dict):
        for unit, statement in compared.items():
            console.print(f"[bold]Comparison[/bold] at {escape(unit)}. {escape(statement)}", highlight=False)
    else:
        console.print(f"[bold]Comparison[/bold] {escape(compared)}.", highlight=False)
    console.print(f"Record: {escape(str(record.folder))}", highlight=False, soft_wrap=True)
    if record.path(PAGE).exists():
        console.print(f"Page: {escape(str(record.path(PAGE)))}", highlight=False, soft_wrap=True)


def show_tuning(record: Record, summary: dict[str, Any], console: Console) -> None:
    """Prints which units are tuned: by layer, the strongest with their words, and one of them over a text."""
    console.print(share_table(record.table("shares"), record.table("decoders")))
    console.print(example_table(record.table("examples"), record.table("tuning"), summary))
    if "heatmap" in summary:
        console.print(escape(summary["heatmap"]["title"]), highlight=False)
        console.print(terminal(record.table("heatmap")))
    if summary["skipped"]:
        said = ", ".join(f"{number} {reason}" for reason, number in summary["skipped"].items())
        console.print(f"[bold]Left out.[/bold] {escape(said)}", highlight=False)


def _table(title: str, heads: Sequence[str], left: Sequence[str]) -> Table:
    """A table with its columns; those of words stand to the left."""
    table = Table(title=title, box=box.SIMPLE_HEAD)
    for name in heads:
        table.add_column(name, justify="left" if name in left else "right")
    return table


def context_table(contexts: pd.DataFrame) -> Table:
    """The highest contexts of each unit; the token that they stand for is between brackets."""
    heads = ("unit", "activation", "context", "file")
    table = _table("Where the units are highest", heads, ("unit", "context", "file"))
    for row in contexts.head(UNITS_SHOWN).to_dict("records"):
        before, token, after = (visible(str(row[name])) for name in ("before", "token", "after"))
        text = f"{escape(before)}[bold]{escape('[' + token + ']')}[/bold]{escape(after)}"
        table.add_row(_address(row), f"{row['activation']:.4g}", text, escape(f"{Path(row['file']).name}"))
    if len(contexts) > UNITS_SHOWN:
        table.caption = f"the first {UNITS_SHOWN} of {len(contexts)} rows; contexts.parquet has them all"
    return table


def share_table(shares: pd.DataFrame, decoders: pd.DataFrame) -> Table:
    """A row per site and layer: how many units are tuned, and how well all of them together decode the category."""
    heads = ("site", "layer", "tuned", "share", "shuffled", "separated", "accuracy")
    table = _table("Tuned units and decoders by layer", heads, ("site",))
    table.caption = (
        "tuned: Benjamini-Hochberg over all units; shuffled: mean share under shuffled labels, corrected per\n"
        "layer; accuracy on held-out words, in brackets 95 % of what shuffled labels give"
    )
    layers = decoders[decoders["scope"] == "layer"]
    rows = shares[shares["scope"] == "layer"].merge(layers, on=["site", "layer"], suffixes=("", "_decoder"))
    for row in rows.head(ROWS_SHOWN).to_dict("records"):
        table.add_row(
            str(row["site"]),
            "" if pd.isna(row["layer"]) else str(int(row["layer"])),
            f"{row['tuned']} of {row['units']}",
            f"{row['share_tuned']:.1%}",
            f"{row['null_share_layer_mean']:.2%}",
            str(row["separated"]),
            f"{row['accuracy']:.1%} ({row['accuracy_null_low']:.0%} to {row['accuracy_null_high']:.0%})",
        )
    if len(rows) > ROWS_SHOWN:
        table.caption = f"{table.caption}\nthe first {ROWS_SHOWN} of {len(rows)} rows; shares.parquet has them all"
    return table


def example_table(examples: pd.DataFrame, units: pd.DataFrame, summary: dict[str, Any]) -> Table:
    """The most strongly tuned units, each with its words of the highest and of the lowest activation."""
    heads = ("unit", "t", "d", "highest", "lowest")
    table = _table("The most strongly tuned units and their words", heads, ("unit", "highest", "lowest"))
    known = units.set_index(["site", "layer", "index"])
    for _, rows in list(examples.groupby("unit", sort=True))[:TOP_SHOWN]:
        words = rows.sort_values("rank")
        first = words.iloc[0]
        row = known.loc[(first["site"], first["layer"], first["index"])]
        table.add_row(
            _address(first.to_dict()),
            f"{row[summary['test'] + '_t']:.1f}",
            f"{row['cohens_d']:.2f}",
            *(escape(", ".join(_marked(some))) for some in (words.head(5), words.tail(5).iloc[::-1])),
        )
    return table


def _marked(words: pd.DataFrame) -> list[str]:
    return [f"{row['word']} ({row['category']})"[:40] for row in words.to_dict("records")]


def line(record: Record) -> str:
    """A job's result in one line."""
    summary = record.summary()
    if "tokens_unique" not in summary or summary["units"] != 1:
        return str(summary["verdict"])
    change = f"{summary['activation_initial_mean']:.4g} → {summary['activation_final_mean']:.4g}"
    unique = f"{summary['tokens_unique']} of {summary['tokens_total']} tokens unique"
    return (
        f"activation {change}, {unique} (null {summary['null_unique_mean']:.1f}), "
        f"{summary['init_retention']:.0%} kept from the start (null {summary['null_retention_mean']:.0%})"
    )


def draw(record: Record) -> None:
    """Writes a job's page with its figures."""
    write_job(record)


def draw_sweep(found: Collected) -> None:
    """Writes a sweep's page with its figures."""
    write_sweep(found)


def show_sweep(found: Collected, console: Console | None = None) -> None:
    """Prints what a folder of records says: a row per layer, what is missing, where the tables lie."""
    console = console or _console()
    if len(found.ladder):
        console.print(ladder_table(found.ladder))
    elif len(found.layers):
        console.print(layer_table(found.layers))
    if len(found.methods):
        console.print(method_table(found.methods))
    for row in found.summary["overall"]:
        said = "; ".join(f"{row[label]} {label}" for label in VERDICTS if row[label])
        which = f", {_condition(row)}" if len(found.summary["overall"]) > 1 else ""
        judged = f"Of {row['units']} units ({row['restarts']} restarts): {said or 'none judged'}"
        console.print(f"[bold]Verdict[/bold]{which}. {judged}", highlight=False)
    counts = {state: number for state, number in found.summary["jobs"].items() if number and state != "total"}
    said = ", ".join(f"{number} {state}" for state, number in counts.items())
    console.print(f"[bold]Jobs.[/bold] {found.summary['jobs']['total']}: {said}", highlight=False)
    for name, reason in found.left_out:
        console.print(f"[bold]Left out.[/bold] {escape(name)}: {escape(reason)}", highlight=False)
    for note in found.notes:
        console.print(f"[bold]Note.[/bold] {escape(note)}", highlight=False)
    console.print(f"Tables and sweep.json: {escape(str(found.folder))}", highlight=False, soft_wrap=True)
    if (found.folder / PAGE).exists():
        console.print(f"Page: {escape(str(found.folder / PAGE))}", highlight=False, soft_wrap=True)


def layer_table(layers: pd.DataFrame) -> Table:
    """A row per site and layer: means over units, each beside its null's."""
    several = len(set(layers["condition"])) > 1
    names = ("site", "layer", "units", "restarts", "activation", "unique", "kept", "shared", "moves")
    heads = (("condition",) if several else ()) + names
    table = _table("Means over units, by layer; in brackets the null's mean", heads, ("site", "condition"))
    table.caption = (
        "unique: different tokens; kept: positions that decode as their initial noise; shared: tokens that two\n"
        "restarts have in common; moves: cosine of two restarts' displacements, positions matched"
    )
    for row in layers.head(ROWS_SHOWN).to_dict("records"):
        cells = [
            str(row["site"]),
            "" if pd.isna(row["layer"]) else str(int(row["layer"])),
            str(row["units"]),
            str(row["restarts"]),
            f"{row['activation_initial_mean']:.3g} → {row['activation_final_mean']:.4g}",
            f"{row['unique_share']:.0%} ({row['null_unique_share']:.0%})",
            f"{row['init_retention']:.0%} ({row['null_retention_mean']:.0%})",
            f"{row['jaccard']:.1%} ({row['null_jaccard_mean']:.1%})",
            f"{row['displacement_cosine_assigned']:.3f} ({row['null_displacement_cosine_assigned_mean']:.3f})",
        ]
        table.add_row(*([str(row["condition"])[:8]] if several else []), *cells)
    if len(layers) > ROWS_SHOWN:
        table.caption += f"\nthe first {ROWS_SHOWN} of {len(layers)} rows; layers.parquet has them all"
    return table


def _condition(row: dict[str, Any]) -> str:
    return f"prior {row['prior']} ({row['condition'][:8]})"


def ladder_table(rungs: pd.DataFrame) -> Table:
    """A row per site and prior: what it bought, and what it cost."""
    heads = ("site", "prior", "seconds", "z optimum", "z snapped", "nats", "shared", "moves")
    table = _table("Priors side by side: means over units; in brackets the null's mean", heads, ("site", "prior"))
    table.caption = (
        "z: activation against random tokens, of the optimum and once snapped to its tokens\n"
        "(± standard error over units); nats: cross-entropy per snapped token, in brackets what the\n"
        "initial noise decodes to; shared, moves: agreement of restarts in tokens and in embedding\n"
        "space; * on the Pareto front of z snapped and shared tokens"
    )
    for row in rungs.to_dict("records"):
        table.add_row(
            str(row["site"]),
            str(row["prior"]) + ("*" if row["pareto_tokens"] else ""),
            f"{row['seconds']:.0f}",
            f"{row['z_final']:.3g}",
            f"{row['z_snapped']:.2f} ±{row['z_snapped_se']:.2f}",
            f"{row['cross_entropy_mean']:.1f} ({row['cross_entropy_initial_mean']:.1f})",
            f"{row['jaccard']:.1%} ({row['null_jaccard_mean']:.1%})",
            f"{row['displacement_cosine_assigned']:.3f} ({row['null_displacement_cosine_assigned_mean']:.3f})",
        )
    return table


def method_table(methods: pd.DataFrame) -> Table:
    """A row per site and method: what it finds in tokens."""
    several = "; means over units" if max(methods["units"].tolist()) > 1 else ""
    heads = ("site", "method", "passes", "mean", "best", "random", "z", "best z", "nats", "shared")
    table = _table(f"What each method finds in tokens{several}", heads, ("site", "method"))
    table.caption = (
        "snapped: the optimum of a free embedding, decoded; passes: forward passes of a restart, a backward pass\n"
        "counted as one; mean, best: activation over restarts, random: of random tokens; z: of both, in standard\n"
        "deviations of one random sequence; nats: cross-entropy per token (random tokens'); shared: tokens that two\n"
        "restarts have in common (their null's)"
    )
    for row in methods.to_dict("records"):
        table.add_row(
            str(row["site"]),
            str(row["method"]),
            f"{row['forward_passes']:.0f}",
            f"{row['activation_mean']:.3g}",
            f"{row['activation_max']:.3g}",
            f"{row['random_activation_mean']:.2g}",
            f"{row['z']:.2f}",
            f"{row['z_max']:.2f}",
            f"{row['cross_entropy']:.1f} ({row['null_cross_entropy_mean']:.1f})",
            f"{row['jaccard']:.1%} ({row['null_jaccard_mean']:.1%})",
        )
    return table


def show_failures(failures: Sequence[tuple[Path, str, str, str]], console: Console | None = None) -> None:
    """Prints the jobs of a sweep that are not complete: folder, state, error, and the command that runs one alone."""
    console = console or _console()
    for folder, state, message, command in failures:
        said = f"[bold red]{state}[/bold red] {escape(folder.name)}: {escape(message)}"
        console.print(said, highlight=False, soft_wrap=True)  # whole lines, so that a search in a log finds them
        console.print(f"    record and log: {escape(str(folder))}", highlight=False, soft_wrap=True)
        console.print(f"    alone: {escape(command)}", highlight=False, soft_wrap=True)


def _console() -> Console:
    # a pipe or a file has no width of its own
    return Console(width=None if sys.stdout.isatty() else 120)


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script `actmax-report`: collects what lies under a folder, shows it, writes `report.html` there."""
    parser = argparse.ArgumentParser(prog="actmax-report", description=main.__doc__)
    parser.add_argument("folder", metavar="DIR", type=Path, help="of a job, a sweep, or several; it may still run")
    parser.add_argument("--jobs", type=int, metavar="N", help="a page for each job too, up to N jobs of a sweep")
    parsed = parser.parse_args(arguments)
    try:
        if _is_job(parsed.folder):
            _report_job(Record(parsed.folder))
        else:
            found = collect(parsed.folder)
            write_sweep(found, **({} if parsed.jobs is None else {"jobs": parsed.jobs}))
            show_sweep(found)
    except InputError as error:
        print(f"actmax-report: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(2)


def _is_job(folder: Path) -> bool:
    """Whether a folder is a job's own; of a damaged record something may be missing, but it has no jobs under it."""
    names = ("status.json", "config.yaml", "summary.json")
    return any((folder / name).exists() for name in names) and not (folder / "multirun.yaml").exists()


def _report_job(record: Record) -> None:
    """Writes the page first: it says what is missing where the rest cannot be shown.

    Raises:
        InputError: the record is damaged, or of another version.
    """
    page = write_job(record)
    status = record.status()
    console = _console()
    if status is not None and status.state == "complete":
        try:
            show(record, console)
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            allowed = f"its record is damaged or incomplete ({type(error).__name__})"
            raise InputError("DIR", record.folder, allowed, f"{page} says what is missing.") from error
    else:
        state = "without a status" if status is None else status.state
        console.print(f"This job is {state}. Page: {escape(str(page))}", highlight=False, soft_wrap=True)


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
