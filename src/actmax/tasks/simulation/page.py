"""What is shown of a simulation of the t-test beside logistic regression."""

from __future__ import annotations

import pandas as pd

from actmax.evidence.findings import is_missing
from actmax.report import concordance
from actmax.report.blocks import MANY, Block, Number, Page, Row, Shown, Table, table
from actmax.report.source import Headline, Source, present
from actmax.report.words import simulation_answer, simulation_statement


def simulation_page(source: Source) -> Page:
    """What is shown of a simulation of the t-test beside logistic regression."""
    question = "Do the t-test and logistic regression say the same, and where does logistic regression break?"
    verdict, numbers = source.headline("effects.parquet", lambda: _answer(source))
    rates = source.blocks("Rejections by effect", lambda: _rate_table(source))
    drawn = source.figures("Rejections by effect", lambda: _rejections(source))
    statement = source.blocks("The findings in words", lambda: concordance.statement(source, simulation_statement))
    columns = (*concordance.NEEDED, "welch_p_bh")
    sections = [
        source.section("Rejections and separation", lambda: drawn, lambda: rates),
        concordance.comparison(source, lambda: source.table("comparison", *columns)),
        concordance.agreement(source),
    ]
    return Page(question, verdict, numbers, (*rates, *statement, *drawn), present(sections))


def _answer(source: Source) -> Headline:
    at = source.table("effects").set_index("effect")
    size = at.index.to_series().abs()
    largest, least = size.idxmax(), size.idxmin()
    rate = source.table("rates").set_index(["test", "effect"])["rate"]
    best = at["pearson"].max()
    return simulation_answer(source.summary), (
        Number(
            f"Wald rejects at an effect of {largest:g}",
            f"{rate['logit_wald', largest]:.0%}",
            f"Student's t: {rate['student', largest]:.0%}; without an effect a test rejects "
            f"{rate['student', least]:.0%} (t) and {rate['logit_wald', least]:.0%} (Wald)",
        ),
        Number(
            f"Units separated at {largest:g}",
            f"{at['separation_rate'][largest]:.0%}",
            f"at {least:g}: {at['separation_rate'][least]:.0%}",
        ),
        Number(
            "Correlation of t and β, all effects",
            f"{at['pearson'][largest]:.3f}",
            f"at best {best:.3f}, over the effects where β does not run away",
        ),
    )


def _rejections(source: Source) -> Block:
    from actmax.report import figures

    rates, effects = source.table("rates"), source.table("effects")
    alt = "Two line charts: percent of units that each test rejects by effect; percent separated by effect."
    caption = (
        "Left: what each test rejects; dotted at 5 %. Right: units without a maximum-likelihood estimate (separated), "
        "and units whose β has none or has run away from Firth's (exploded)."
    )
    return source.figure("rejections", lambda: figures.rejections(rates, effects), alt=alt, caption=caption)


def _rate_table(source: Source) -> Table:
    """A row per effect: the share that each test rejects with its Monte Carlo error, and how many are separated."""
    from actmax.report.figures import TESTS

    rates, effects = source.table("rates"), source.table("effects")
    wide = rates.pivot_table(index="effect", columns="test", values="rate", sort=False).reset_index()
    errors = rates.pivot_table(index="effect", columns="test", values="error", sort=False).add_suffix("_error")
    wide = wide.merge(errors, on="effect").merge(effects[["effect", "separation_rate", "pearson"]], on="effect")
    tests = [str(name) for name in rates["test"].unique()]
    shown = [
        Shown("effect", form="g"),
        *(_test_column(name, TESTS.get(name, name)) for name in tests),
        Shown(
            "separation_rate",
            "separated",
            ".0%",
            about="units without a maximum-likelihood estimate: the logit tests cannot reject there",
        ),
        Shown("pearson", "r(t, β)", ".3f", about="over the overlapping units of all effects up to this one"),
    ]
    caption = "Share of units rejected, ± Monte Carlo standard error in percent."
    title = "Rejections by effect"
    return table(pd.DataFrame(wide), shown, title=title, source="rates.parquet", caption=caption, brief=MANY)


def _test_column(test: str, head: str) -> Shown:
    """The share that a test rejects, with its Monte Carlo error."""
    error = f"{test}_error"

    def note(row: Row) -> str:
        return "" if is_missing(row.get(error)) else f"±{100 * row[error]:.0f}"

    def detail(row: Row) -> str:
        return "" if is_missing(row.get(error)) else f"{100 * row[test]:.1f} ±{100 * row[error]:.1f}"

    return Shown(test, head, ".0%", note=note, detail=detail, shade=True)
