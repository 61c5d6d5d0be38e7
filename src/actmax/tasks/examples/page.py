"""What is shown of a job that looks for the highest activations in real text."""

from __future__ import annotations

from typing import Any

from actmax.evidence.findings import is_missing
from actmax.evidence.readings import MeaningStatus, Verdict
from actmax.model.target import addresses, target_of_row
from actmax.report.blocks import (
    ROWS,
    Block,
    Cell,
    Column,
    Number,
    Page,
    Prose,
    Row,
    Shown,
    Table,
    table,
    visible,
)
from actmax.report.source import Headline, Source, present
from actmax.report.words import contexts_statement, label, meaning_obstacle
from actmax.tasks.settings import asked_address
from actmax.tasks.units.page import themes


def examples_page(source: Source) -> Page:
    """What is shown of a job that looks for the highest activations in real text."""
    name = source.part("subject").get("name", "the subject")
    question = f"Where in real text is {asked_address(source.part('unit'))} of {name} highest?"
    verdict, numbers = source.headline("quantiles.parquet", lambda: _answer(source))
    contexts = source.blocks("Where it is highest", lambda: _contexts(source))
    first = (*contexts, *([Prose(verdict, "Verdict")] if verdict else []))
    sections = [
        source.section("Beside all positions", lambda: _quantiles(source)),
        source.section("Meaning", lambda: _meaning(source), lambda: themes(source)),
    ]
    return Page(question, verdict, numbers, first, present(sections))


def _answer(source: Source) -> Headline:
    return contexts_statement(source.summary), _numbers(source.table("quantiles").iloc[0].to_dict(), source.summary)


def _numbers(row: Row, summary: Any) -> tuple[Number, ...]:
    usual = f"median {row['q0.5']:.3g}; 99.9 % of positions are below {row['q0.999']:.4g}"
    numbers = [
        Number(f"Highest activation in text, {target_of_row(row)}", f"{row['q1']:.4g}", usual),
        Number("Positions read", f"{summary['positions']:,}", f"their activation: {row['mean']:.3g} ± {row['sd']:.3g}"),
    ]
    if not is_missing(row.get("optimized_mean")):
        snapped = f"{row['snapped_mean']:.4g} once snapped to tokens"
        numbers.append(Number("Optimized embeddings reach", f"{row['optimized_mean']:.4g}", snapped))
    return tuple(numbers)


def _contexts(source: Source) -> Block:
    contexts = source.table("contexts")
    heads = (
        Column("unit", numeric=False),
        Column("activation"),
        Column("before", numeric=False),
        Column("token", numeric=False),
        Column("after", numeric=False),
        Column("file and position", numeric=False),
    )
    rows = tuple(_context(row) for row in contexts.head(ROWS).to_dict("records"))
    caption = "The activation is that of the token. Spaces are shown as dots in it."
    return Table("Where the units are highest", heads, rows, caption, len(contexts), "contexts.parquet")


def _context(row: Row) -> tuple[Cell, ...]:
    place = f"{str(row['file']).rsplit('/', 1)[-1]} {row['position']:,}"
    before, after = (Cell(str(row[name]), wide=True) for name in ("before", "after"))
    value = Cell(f"{row['activation']:.4g}", float(row["activation"]))
    return Cell(str(target_of_row(row))), value, before, Cell(visible(str(row["token"])), shade=0.6), after, Cell(place)


def _meaning(source: Source) -> Block | None:
    """Whether the passages in which each unit is highest are about the same things."""
    rows = source.table("quantiles")
    if "meaning_status" not in rows or not bool((rows["meaning_status"] != MeaningStatus.OFF).any()):
        return None
    verdicts = [meaning_obstacle(row) or label(Verdict(row["verdict_meaning"])) for row in rows.to_dict("records")]
    named = rows.assign(unit=addresses(rows), verdict=verdicts)
    shown = [
        Shown("unit", form="s"),
        Shown("verdict", form="s"),
        Shown("meaning", "cosine", ".3f", note=lambda row: f"(up to {row['null_meaning_high']:.3f})"),
        Shown("null_meaning_p", "p", ".2g"),
        Shown("null_own_meaning_p", "p beside other units", ".2g"),
        Shown("theme", "words nearer than chance", form="s"),
    ]
    caption = (
        "Mean cosine of two passages in a space of meaning; in brackets what chance gives: all passages of a unit "
        "moved along the text by the same number of windows. Claims at 5 %, the second only after the first."
    )
    return table(named, shown, title="What the passages have in common", source="quantiles.parquet", caption=caption)


def _quantiles(source: Source) -> Block:
    rows = source.table("quantiles")
    named = rows.assign(unit=addresses(rows))
    shares = [name for name in rows.columns if name.startswith("q")]
    shown = [
        Shown("unit", form="s"),
        Shown("mean", form=".3g"),
        Shown("sd", form=".3g"),
        *(Shown(name, f"{100 * float(name[1:]):g} %") for name in shares),
        Shown("optimized_mean", "optimized"),
        Shown("snapped_mean", "snapped"),
    ]
    caption = (
        "Quantiles of the activation over all positions; optimized and snapped: from the record of a maximization."
    )
    return table(named, shown, title="Activation over all positions", source="quantiles.parquet", caption=caption)
