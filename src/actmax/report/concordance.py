"""t-tests beside logistic regression: the figures and tables that a simulation and a tuning job share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from actmax.report.blocks import Block, Missing, Prose, Row, Section, Shown, table
from actmax.report.source import Source

NEEDED = (
    "n_0",
    "n_1",
    "student_t",
    "student_p_log10",
    "logit_coef_std",
    "logit_lr_p_log10",
    "cohens_d",
    "welch_p_log10",
)
"""Columns of a comparison that the figures read."""


def statement(source: Source, say: Callable[[Row], str]) -> Block:
    """What the job found, in words.

    Args:
        source: the job.
        say: makes the words of the job's summary.
    """
    if not source.summary:
        return Missing("The findings in words", "summary.json has none.")
    return Prose(say(source.summary), "Verdict")


def comparison(source: Source, read: Callable[[], pd.DataFrame], chosen: str | None = None) -> Section | None:
    """β against t, p against p, and p against the effect, a point per unit.

    Args:
        source: the job.
        read: reads the units with the columns of `NEEDED`, and with `chosen` or `welch_p_bh`.
        chosen: the column of truth values that says which units differ; None: by Benjamini-Hochberg.
    """
    from actmax.report import figures

    def beta() -> Block:
        units = read()
        lost = np.count_nonzero(units["student_t"].notna() & units["logit_coef_std"].isna())
        caption = (
            f"Every unit with both; {lost:,} separated units have no β and are not drawn. The line is what normal "
            "groups with one variance would give."
        )
        alt = "Scatter plot: standardised logistic coefficient against Student's t."
        return source.figure("beta_t", lambda: figures.beta_against_t(units), alt=alt, caption=caption)

    def p() -> Block:
        units, alt = read(), "Scatter plot: log p of the likelihood-ratio test against log p of the t-test."
        caption = "What each test calls significant (uncorrected): the quadrants of α = 0.05, with their counts."
        return source.figure("p_p", lambda: figures.p_against_p(units), alt=alt, caption=caption)

    def volcano() -> Block:
        units = read()
        units = units if chosen is not None else units.assign(different=units["welch_p_bh"] <= 0.05)
        alt = "Scatter plot: log p of Welch's t-test against Cohen's d."
        caption = "Blue: different by Benjamini-Hochberg at 0.05."
        draw = lambda: figures.volcano(units, chosen=chosen or "different")  # noqa: E731
        return source.figure("volcano", draw, alt=alt, caption=caption)

    return source.section("t-test beside logistic regression", beta, p, volcano)


def agreement(source: Source) -> Section | None:
    """How far the tests correlate, and which units each calls significant."""
    title = "Agreement of the tests"
    return source.section(title, lambda: _correlations(source), lambda: _significant(source))


def _correlations(source: Source) -> Block:
    shown = [
        Shown("x", form="s"),
        Shown("y", form="s"),
        Shown("units", form="s"),
        Shown("n", form="d"),
        Shown("pearson", form=".4f", shade=True),
        Shown("spearman", form=".4f", shade=True),
    ]
    rows, caption = _overall(source.table("correlations")), "overlapping: without separated units."
    return table(rows, shown, title="Correlations", source="correlations.parquet", caption=caption)


def _significant(source: Source) -> Block:
    shown = [
        Shown("t_test", "t-test", "s"),
        Shown("logistic", form="s"),
        Shown("level", "corrected", "s"),
        Shown("units", form="s"),
        *(Shown(name, form="d") for name in ("n", "both", "t_only", "logistic_only", "neither")),
        Shown("agreement", form=".1%", shade=True),
        Shown("kappa", form=".3f"),
    ]
    title = "Which test calls which units significant"
    return table(_overall(source.table("agreement")), shown, title=title, source="agreement.parquet")


def _overall(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows over all units of a tuning job; a simulation has no others."""
    if "scope" not in rows.columns:
        return rows
    whole = pd.DataFrame(rows[rows["scope"] == "all"])
    return whole if len(whole) else rows
