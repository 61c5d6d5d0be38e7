"""The tables of a job that reads text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from actmax.evidence.findings import is_missing, meaning_findings
from actmax.model.target import names_in
from actmax.records.contents import Contents
from actmax.records.store import Record, Summary
from actmax.tasks.examples.find import Examples, beside_optimum
from actmax.tasks.findings import write_findings

EXAMPLES_LISTED = 5
"""Units of which the summary of a job on real text holds where they are highest."""


def write_examples(
    contents: Contents,
    found: Examples,
    beside: Record | None,
    meaning: Sequence[Mapping[str, Any]],
    theme: pd.DataFrame | None,
) -> Summary:
    """Writes `contexts.parquet`, `quantiles.parquet` beside what a maximization reached in the same units, and themes.

    Args:
        contents: contents of the job, which take the tables.
        found: where the units are highest.
        beside: the record of a maximization of the same units.
        meaning: columns on what each unit's passages have in common.
        theme: the table of themes; None where there are none.
    """
    quantiles = found.quantiles
    if beside is not None:
        quantiles = beside_optimum(quantiles, beside.table("gaps"))
    if any(meaning):
        quantiles = pd.concat([quantiles, pd.DataFrame(list(meaning), index=quantiles.index)], axis=1)
    if theme is not None:
        contents.write_table("theme", theme)
    contents.write_table("contexts", found.contexts)
    contents.write_table("quantiles", quantiles)
    rows = quantiles.to_dict("records")
    shown = (*names_in(quantiles), "q0.5", "q0.999", "q1", "restarts", "optimized_mean", "snapped_mean")
    if any(meaning):
        shown += ("meaning_status", "verdict_meaning", "null_meaning_p", "null_meaning_alpha")
    highest = [
        {name: None if is_missing(row.get(name)) else row[name] for name in shown} for row in rows[:EXAMPLES_LISTED]
    ]
    listed = write_findings(contents, [one for row in rows for one in meaning_findings(row)])
    return {"units": len(rows), "positions": found.positions, "highest": highest, **listed}
