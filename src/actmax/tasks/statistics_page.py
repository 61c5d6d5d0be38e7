"""The pages of jobs that compare groups: simulation and tuning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from actmax.report.blocks import (
    Block,
    Cell,
    ColouredText,
    Column,
    Missing,
    Number,
    Page,
    Prose,
    Section,
    Shown,
    Table,
    Token,
    address,
    join,
    table,
)
from actmax.report.source import Source, present

SATURATED = 2.0
"""Standard deviations from the middle at which a colour is full."""
WORDS_SHOWN = 6
"""Words at either end of a unit's list."""
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
"""Columns that the figures of a comparison read."""


def simulation_page(source: Source) -> Page:
    """Of simulated groups."""
    asked = "Do the t-test and logistic regression say the same, and where does logistic regression break?"
    verdict, numbers = _guarded(source, "effects.parquet", lambda: _simulated(source))
    sections = [
        source.section("What was found", lambda: _verdict(source)),
        source.section("Rejections and separation", lambda: _rejections(source), lambda: _rate_table(source)),
        _comparison(source, lambda: source.table("comparison", *NEEDED, "welch_p_bh")),
        source.section("Agreement of the tests", lambda: _correlations(source), lambda: _agreement(source)),
    ]
    return Page("", asked, verdict, numbers, present(sections))


def _guarded(
    source: Source, file: str, make: Callable[[], tuple[str, tuple[Number, ...]]]
) -> tuple[str, tuple[Number, ...]]:
    """The first screen, or nothing with a word about why."""
    try:
        return make()
    except Exception as error:  # the page says what is wrong with the record, whatever it is
        source.problems.append(
            f"The headline numbers are not here: {file} or summary.json ({type(error).__name__}: {error})."
        )
        return "", ()


def _verdict(source: Source) -> Block:
    said = source.summary.get("verdict")
    return Prose(str(said), "Verdict") if said else Missing("The findings in words", "summary.json has none.")


def _simulated(source: Source) -> tuple[str, tuple[Number, ...]]:
    effects, rates = source.table("effects"), source.table("rates")
    at = effects.set_index("effect")
    size = at.index.to_series().abs()
    largest, least = size.idxmax(), size.idxmin()
    rate = rates.set_index(["test", "effect"])["rate"]
    where = source.summary.get("explodes_at")
    broken = f"from an effect of {where:g} standard deviations on" if where is not None else "nowhere on this grid"
    verdict = (
        f"They say the same while the groups overlap. Half of the β explode or do not exist {broken}; t stays stable."
    )
    best = at["pearson"].max()
    return verdict, (
        Number(
            f"Wald rejects at an effect of {largest:g}", f"{rate['logit_wald', largest]:.0%}",
            f"Student's t: {rate['student', largest]:.0%}; without an effect a test rejects "
            f"{rate['student', least]:.0%} (t) and {rate['logit_wald', least]:.0%} (Wald)",
        ),
        Number(
            f"Units separated at {largest:g}", f"{at['separation_rate'][largest]:.0%}",
            f"at {least:g}: {at['separation_rate'][least]:.0%}",
        ),
        Number(
            "Correlation of t and β, all effects", f"{at['pearson'][largest]:.3f}",
            f"at best {best:.3f}, over the effects where β does not run away",
        ),
    )  # fmt: skip


def _rejections(source: Source) -> Block:
    from actmax.report import figures

    rates, effects = source.table("rates"), source.table("effects")
    alt = "Two line charts: percent of units that each test rejects by effect; percent separated by effect."
    caption = "Left: what each test rejects; dotted at 5 %. Right: units without a maximum-likelihood estimate "
    caption += "(separated), and units whose β has none or has run away from Firth's (exploded)."
    return source.figure("rejections", lambda: figures.rejections(rates, effects), alt=alt, caption=caption)


def _rate_table(source: Source) -> Table:
    from actmax.report.figures import TESTS

    rates = source.table("rates")
    wide = rates.pivot_table(index="effect", columns="test", values="rate", sort=False).reset_index()
    effects = source.table("effects")
    wide = wide.merge(effects[["effect", "separation_rate", "pearson"]], on="effect")
    shown = [
        Shown("effect", form="g"),
        *(Shown(str(name), TESTS.get(str(name), str(name)), ".1%", shade=True) for name in rates["test"].unique()),
    ]
    shown += [Shown("separation_rate", "separated", ".0%"), Shown("pearson", "r(t, β)", ".3f")]
    caption = "Share of units rejected. r(t, β): over the overlapping units of all effects up to this one."
    return table(wide, shown, title="Rejections by effect", source="rates.parquet", caption=caption)


def _comparison(source: Source, read: Callable[[], pd.DataFrame], chosen: str | None = None) -> Section | None:
    """β against t, p against p, and the volcano."""
    from actmax.report import figures

    def beta() -> Block:
        units = read()
        lost = np.count_nonzero(units["student_t"].notna() & units["logit_coef_std"].isna())
        caption = (
            f"Every unit with both; {lost:,} separated units have no β and are not drawn. The line is what normal "
        )
        caption += "groups with one variance would give."
        alt = "Scatter plot: standardised logistic coefficient against Student's t."
        return source.figure("beta_t", lambda: figures.beta_against_t(units), alt=alt, caption=caption)

    def p() -> Block:
        units, alt = read(), "Scatter plot: log p of the likelihood-ratio test against log p of the t-test."
        caption = "Who calls what significant (uncorrected): the quadrants of α = 0.05, with their counts."
        return source.figure("p_p", lambda: figures.p_against_p(units), alt=alt, caption=caption)

    def volcano() -> Block:
        units = read()
        units = units if chosen is not None else units.assign(different=units["welch_p_bh"] <= 0.05)
        alt = "Scatter plot: log p of Welch's t-test against Cohen's d."
        caption = "Blue: different by Benjamini-Hochberg at 0.05."
        draw = lambda: figures.volcano(units, chosen=chosen or "different")  # noqa: E731
        return source.figure("volcano", draw, alt=alt, caption=caption)

    return source.section("t-test beside logistic regression", beta, p, volcano)


def _correlations(source: Source) -> Block:
    rows = _overall(source.table("correlations"))
    shown = [Shown("x", form="s"), Shown("y", form="s"), Shown("units", form="s"), Shown("n", form="d")]
    shown += [Shown("pearson", form=".4f", shade=True), Shown("spearman", form=".4f", shade=True)]
    caption = "overlapping: without separated units."
    return table(rows, shown, title="Correlations", source="correlations.parquet", caption=caption)


def _agreement(source: Source) -> Block:
    rows = _overall(source.table("agreement"))
    shown = [Shown("t_test", "t-test", "s"), Shown("logistic", form="s"), Shown("level", "corrected", "s")]
    shown += [Shown("units", form="s"), Shown("n", form="d"), Shown("both", form="d"), Shown("t_only", form="d")]
    shown += [Shown("logistic_only", form="d"), Shown("neither", form="d"), Shown("agreement", form=".1%", shade=True)]
    shown += [Shown("kappa", form=".3f")]
    return table(rows, shown, title="Who calls what significant", source="agreement.parquet")


def _overall(rows: pd.DataFrame) -> pd.DataFrame:
    """Of a tuning job the rows over all units; a simulation has no others."""
    if "scope" not in rows.columns:
        return rows
    whole = pd.DataFrame(rows[rows["scope"] == "all"])
    return whole if len(whole) else rows


def tuning_page(source: Source) -> Page:
    """Of two categories of words."""
    first, second = _categories(source)
    name = source.part("subject").get("name", "the subject")
    asked = f"Which units of {name} tell {first} from {second}, and would other words give the same answer?"
    verdict, numbers = _guarded(source, "units", lambda: _tuned(source.summary, first, second))
    columns = ("site", "layer", "index", *NEEDED, "tuned")
    sections = [
        source.section("What was found", lambda: _verdict(source), lambda: _heat_map(source)),
        source.section("By layer", lambda: _share_figure(source), lambda: _share_table(source)),
        source.section("The most strongly tuned units", lambda: _examples(source), lambda: _top_units(source)),
        source.section("On other words", lambda: _replication(source)),
        _comparison(source, lambda: source.table("tuning", *columns), "tuned"),
        source.section("Agreement of the tests", lambda: _correlations(source), lambda: _agreement(source)),
        source.section("The words", lambda: _balance(source), lambda: _words(source), lambda: _skipped(source)),
    ]
    return Page("", asked, verdict, numbers, present(sections))


def _categories(source: Source) -> tuple[str, str]:
    words = source.summary.get("words")
    if isinstance(words, dict) and len(words) == 2:
        first, second = map(str, words)
        return first, second
    return "group 0", "group 1"


def _tuned(summary: dict[str, Any], first: str, second: str) -> tuple[str, tuple[Number, ...]]:
    again, decoder = summary["replication"], summary["decoder"]["all"]
    rate = again.get("rate")
    verdict = (
        f"{summary['tuned_share']:.0%} of {summary['compared_units']:,} units differ between {first} and {second}. "
    )
    if rate is None:
        verdict += "Half of the words selects no unit, so nothing could be tried on the other half."
    else:
        verdict += f"Of the units that one half of the words selects, {rate:.0%} replicate on the other half."
    shuffled = f"95 %: {decoder['null_low']:.1%} to {decoder['null_high']:.1%}; p = {decoder['p']:.2g}"
    numbers = [
        Number(
            "Units that differ", f"{summary['tuned_share']:.1%}",
            f"shuffled labels: {summary['null_tuned_share_layer']:.2%} (corrected per layer)",
        ),
        Number(
            "Replicate on other words", "–" if rate is None else f"{rate:.1%}",
            "no unit was selected" if rate is None else f"shuffled labels: {again['null_rate_mean']:.1%}",
        ),
        Number(
            "Decoder right on held-out words", f"{decoder['accuracy']:.1%}",
            f"shuffled labels: {decoder['null_mean']:.1%} ({shuffled})",
        ),
    ]  # fmt: skip
    return verdict, tuple(numbers)


def _heat_map(source: Source) -> Block | None:
    if not source.has("heatmap"):
        return None
    rows = source.table("heatmap").to_dict("records")
    said = source.summary.get("heatmap", {}).get("title", "One unit over a text")
    return ColouredText(str(said), tuple(_token(row) for row in rows[:5_000]))


def _token(row: dict[Any, Any]) -> Token:
    score = float(row["score"])
    share = max(-1.0, min(1.0, score / SATURATED)) if score == score else 0.0
    return Token(str(row["token"]), share, f"{row['position']}: activation {row['activation']:.4g}, {score:+.2f} SD")


def _share_figure(source: Source) -> Block:
    from actmax.report import figures

    by_layer, decoders = (rows[rows["scope"] == "layer"] for rows in (source.table("shares"), source.table("decoders")))
    alt = "Two line charts by layer: share of tuned units, and accuracy of the decoder, beside shuffled labels."
    caption = "Left: share of the units that are tuned. Right: accuracy of a decoder over all units of the layer."
    draw = lambda: figures.shares(pd.DataFrame(by_layer), pd.DataFrame(decoders))  # noqa: E731
    return source.figure("shares", draw, alt=alt, caption=caption)


def _share_table(source: Source) -> Block:
    layers, decoders = source.table("shares"), source.table("decoders")
    decoders = decoders[decoders["scope"] == "layer"]
    rows = layers[layers["scope"] == "layer"].merge(decoders, on=["site", "layer"], suffixes=("", "_decoder"))
    shown = [
        Shown("site", form="s"),
        Shown("layer", form="d"),
        Shown("units", form="d"),
        Shown("tuned", form="d"),
        Shown("share_tuned", "share", ".1%", shade=True),
        Shown("null_share_layer_mean", "shuffled", ".2%"),
        Shown("separated", form="d"),
        Shown("accuracy", form=".1%", shade=True),
        Shown("accuracy_null_mean", "shuffled", ".1%"),
        Shown("accuracy_p", "p", ".2g"),
    ]
    caption = (
        "tuned: Benjamini-Hochberg over all units; shuffled: the same with shuffled labels; accuracy: on held-out "
    )
    caption += "words."
    return table(rows, shown, title="Sites and layers", source="shares.parquet", caption=caption)


def _examples(source: Source) -> Block:
    examples = source.table("examples")
    columns = ("site", "layer", "index", "cohens_d", "welch_t", "status")
    known = source.table("tuning", *columns).set_index(["site", "layer", "index"])
    rows = []
    for _, words in examples.groupby("unit", sort=True):
        words = words.sort_values("rank")
        first = words.iloc[0].to_dict()
        row = known.loc[(first["site"], first["layer"], first["index"])]
        ends = (words.head(WORDS_SHOWN), words.tail(WORDS_SHOWN).iloc[::-1])
        numbers = [Cell(f"{row[name]:.3g}", float(row[name])) for name in ("welch_t", "cohens_d")]
        rows.append((Cell(address(first)), *numbers, *(Cell(_named(some), wide=True) for some in ends)))
    heads = (Column("unit", numeric=False), Column("Welch's t"), Column("Cohen's d"))
    heads = (*heads, Column("highest", numeric=False), Column("lowest", numeric=False))
    return Table("With their words", heads, tuple(rows), "The words at which the unit is highest and lowest.")


def _named(words: pd.DataFrame) -> str:
    return ", ".join(f"{row['word']} ({row['category']})" for row in words.to_dict("records"))


def _top_units(source: Source) -> Block:
    columns = ("site", "layer", "index", "mean_0", "mean_1", "cohens_d", "cohens_d_low", "cohens_d_high", "auc")
    units = source.table("tuning", *columns, "welch_t", "welch_p_bh", "logit_coef", "firth_coef", "status", "tuned")
    order = np.argsort(-units["welch_t"].abs().to_numpy(float), kind="stable")  # NaN goes last
    top = units.iloc[order[:1000]]
    top = top.assign(unit=[address(row) for row in top.to_dict("records")])
    first, second = _categories(source)
    shown = [
        Shown("unit", form="s"), Shown("welch_t", "Welch's t", ".3g"), Shown("welch_p_bh", "p (BH)", ".2g"),
        Shown("cohens_d", "Cohen's d", ".2f", shade=True), Shown("cohens_d_low", "95 % low", ".2f"),
        Shown("cohens_d_high", "high", ".2f"), Shown("auc", form=".3f"), Shown("mean_0", f"mean, {first}", ".3g"),
        Shown("mean_1", f"mean, {second}", ".3g"), Shown("logit_coef", "logistic β", ".3g"),
        Shown("firth_coef", "Firth's β", ".3g"), Shown("status", form="s"),
    ]  # fmt: skip
    made = table(top, shown, title="Units by |t|", source="tuning.parquet")
    cut = (
        f"The first {len(top):,} of {len(units):,} units; tuning.parquet has them all." if len(units) > len(top) else ""
    )
    caption = "– where a number does not exist; status says why. Differences are the second group minus the first."
    return Table(made.title, made.columns, made.rows, caption, cut)


def _replication(source: Source) -> Block:
    shown = [
        Shown("split", form="d"), Shown("selected", form="d"), Shown("replicated", form="d"),
        Shown("rate", form=".1%", shade=True), Shown("null_rate_mean", "shuffled labels", ".1%"),
        Shown("effect_selected", "|d| selected", ".3f"), Shown("effect_held_out", "|d| held out", ".3f"),
        Shown("shrinkage", form=".1%"),
    ]  # fmt: skip
    caption = "Half of the words selects units, the other half tries them: same direction, p ≤ 0.05."
    return table(source.table("replication"), shown, title="By split", source="replication.parquet", caption=caption)


def _balance(source: Source) -> Block:
    shown = [Shown("category", form="s"), Shown("words", form="d"), Shown("letters_mean", "letters", ".2f")]
    shown += [
        Shown("letters_sd", "sd", ".2f"),
        Shown("subtokens_mean", "sub-tokens", ".2f"),
        Shown("subtokens_sd", "sd", ".2f"),
    ]
    shown += [Shown("contexts_mean", "contexts", ".2f"), Shown("zipf_mean", "frequency (Zipf)", ".2f")]
    return table(source.table("balance"), shown, title="Balance of the groups", source="balance.parquet")


def _words(source: Source) -> Block:
    shown = [
        Shown("word", form="s"),
        Shown("category", form="s"),
        Shown("pair", form="s"),
        Shown("subtokens", "sub-tokens", "d"),
    ]
    shown += [Shown("contexts", form="d"), Shown("text", "read in", "s")]
    return table(source.table("words"), shown, title="All words", source="words.parquet")


def _skipped(source: Source) -> Sequence[Block]:
    found = source.summary.get("skipped") or {}
    said = ", ".join(f"{number} {reason}" for reason, number in found.items())
    return [Prose(join([f"{said}."]), "Left out")] if said else []
