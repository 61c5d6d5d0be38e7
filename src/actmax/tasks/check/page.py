"""What is shown of a model's identities."""

from __future__ import annotations

from actmax.report.blocks import Block, Number, Page, Prose, Shown, table
from actmax.report.source import Headline, Source, present
from actmax.report.words import check_statement

MOST = 30
"""Most identities that a terminal shows: all that there are."""


def check_page(source: Source) -> Page:
    """What is shown of a model's identities."""
    name = source.part("subject").get("name", "the subject")
    question = f"Are the sites of {name} what their names say?"
    verdict, numbers = source.headline("identities.parquet", lambda: _answer(source))
    rows = source.blocks("Identities", lambda: _identities(source))
    said = (Prose(verdict, "Verdict"),) if verdict else ()
    return Page(question, verdict, numbers, (*rows, *said), present([]))


def _answer(source: Source) -> Headline:
    sizes, summary = source.summary["sizes"], source.summary
    shape = f"{sizes['layers']} blocks x {sizes['d_model']} dims, {sizes['heads']} heads of {sizes['head_dim']} dims "
    shape += f"on {sizes['kv_heads']} of keys and values, context {sizes['context']:,}"
    family = summary["model_type"] if summary["read_as"] == summary["model_type"] else f"as {summary['read_as']}"
    return check_statement(summary), (
        Number("Sites", str(len(summary["sites"])), ", ".join(summary["sites"]) or "none"),
        Number("Read", family, shape),
    )


def _identities(source: Source) -> Block:
    rows = source.table("identities")
    named = rows.assign(holds=["yes" if passed else "no" for passed in rows["passed"]])
    shown = [
        Shown("identity", form="s"),
        Shown("holds", form="s"),
        Shown("difference", form=".2g"),
        Shown("tolerance", "rounding makes", ".1g"),
        Shown("sites", "sites that need it", form="s", extra=True),
    ]
    caption = (
        "Differences are relative, the largest over positions and blocks, in the model's own dtype. A site that needs "
        "an identity which does not hold is refused in this model."
    )
    return table(named, shown, title="Identities", source="identities.parquet", caption=caption, brief=MOST, rows=MOST)
