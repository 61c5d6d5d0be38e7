"""The tables of a job that reads text."""

from __future__ import annotations

from actmax.evidence.findings import is_missing
from actmax.model.target import UNIT
from actmax.records.contents import Contents
from actmax.records.store import Record, Summary
from actmax.tasks.examples.find import Examples, beside_optimum

EXAMPLES_LISTED = 5
"""Units of which the summary of a job on real text holds where they are highest."""


def write_examples(contents: Contents, found: Examples, beside: Record | None) -> Summary:
    """Writes `contexts.parquet`, and `quantiles.parquet` beside what a maximization reached in the same units."""
    quantiles = found.quantiles
    if beside is not None:
        quantiles = beside_optimum(quantiles, beside.table("gaps"))
    contents.write_table("contexts", found.contexts)
    contents.write_table("quantiles", quantiles)
    rows = quantiles.to_dict("records")
    shown = (*UNIT, "q0.5", "q0.999", "q1", "restarts", "optimized_mean", "snapped_mean")
    highest = [
        {name: None if is_missing(row.get(name)) else row[name] for name in shown} for row in rows[:EXAMPLES_LISTED]
    ]
    return {"units": len(rows), "positions": found.positions, "highest": highest, "findings": []}
