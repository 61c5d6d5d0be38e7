"""What is shown of a job that compares two categories of words."""

from __future__ import annotations

from math import isnan

import numpy as np
import pandas as pd

from actmax.model.target import UNIT, addresses, rows_of, target_of_row
from actmax.report import concordance
from actmax.report.blocks import (
    MANY,
    ROWS,
    Block,
    Cell,
    ColouredText,
    Column,
    Number,
    Page,
    Prose,
    Row,
    Shown,
    Table,
    Token,
    in_brackets,
    number,
    table,
)
from actmax.report.html import encodable, render
from actmax.report.source import Headline, Source, present
from actmax.report.words import groups_statement, tuning_answer
from actmax.tasks.tuning.heatmap import SATURATED, HeatMap

WORDS_SHOWN = 6
"""Words at either end of a unit's list."""
TOKENS_SHOWN = 5_000
"""Most tokens of a coloured text."""
TESTS = {"welch": "Welch's t", "paired": "paired t"}
"""The tests that can decide which units are tuned, with their names in the table."""


def tuning_page(source: Source) -> Page:
    """What is shown of a job that compares two categories of words."""
    first, second = _categories(source)
    name = source.part("subject").get("name", "the subject")
    question = f"Which units of {name} tell {first} from {second}, and would other words give the same answer?"
    verdict, numbers = source.headline("summary.json", lambda: _answer(source.summary, first, second))
    layers = source.blocks("Tuned units by layer", lambda: _layer_table(source))
    units = source.blocks("The most strongly tuned units", lambda: _examples(source))
    text = source.blocks("One unit over a text", lambda: _heat_map(source))
    skipped = source.blocks("Left out", lambda: _skipped(source))
    statement = source.blocks("The findings in words", lambda: concordance.statement(source, groups_statement))
    drawn = source.figures("Tuned units by layer", lambda: _layer_figure(source))
    columns = (*UNIT, *concordance.NEEDED, "tuned")
    sections = [
        source.section("By layer", lambda: drawn, lambda: layers),
        source.section("The most strongly tuned units", lambda: units, lambda: _top_units(source)),
        source.section("On other words", lambda: _replication(source)),
        concordance.comparison(source, lambda: source.table("tuning", *columns), "tuned"),
        concordance.agreement(source),
        source.section("The words", lambda: _balance(source), lambda: _words(source), lambda: skipped),
    ]
    opening = (*layers, *units, *text, *skipped, *statement, *drawn)
    return Page(question, verdict, numbers, opening, present(sections))


def _categories(source: Source) -> tuple[str, str]:
    words = source.summary.get("words")
    if isinstance(words, dict) and len(words) == 2:
        first, second = map(str, words)
        return first, second
    return "group 0", "group 1"


def _answer(summary: Row, first: str, second: str) -> Headline:
    again, decoder = summary["replication"], summary["decoder"]["all"]
    rate = again.get("rate")
    shuffled = f"95 %: {decoder['null_low']:.1%} to {decoder['null_high']:.1%}; p = {decoder['p']:.2g}"
    return tuning_answer(summary, [first, second]), (
        Number(
            "Units that differ",
            f"{summary['tuned_share']:.1%}",
            f"shuffled labels: {summary['null_tuned_share_layer']:.2%} (corrected per layer)",
        ),
        Number(
            "Replicate on other words",
            "–" if rate is None else f"{rate:.1%}",
            "no unit was selected" if rate is None else f"shuffled labels: {again['null_rate_mean']:.1%}",
        ),
        Number(
            "Decoder right on held-out words",
            f"{decoder['accuracy']:.1%}",
            f"shuffled labels: {decoder['null_mean']:.1%} ({shuffled})",
        ),
    )


def heat_map_html(drawn: HeatMap) -> str:
    """One unit over a text as an HTML file; a token's numbers show under the pointer."""
    text = heat_map_text(drawn.tokens, drawn.title)
    return encodable(render(Page(f"{drawn.unit} over a text", first=(text,), title=str(drawn.unit))))


def heat_map_text(tokens: pd.DataFrame, title: str) -> ColouredText:
    """One unit over a text, a colour for each token.

    Args:
        tokens: `heatmap.parquet`.
        title: what the colours mean.
    """
    return ColouredText(title, tuple(_token(row) for row in tokens.head(TOKENS_SHOWN).to_dict("records")))


def _token(row: Row) -> Token:
    score = float(row["score"])
    share = 0.0 if isnan(score) else max(-1.0, min(1.0, score / SATURATED))
    numbers = f"activation {number(row['activation'], '.4g')}, {number(score, '+.2f')} SD"
    return Token(str(row["token"]), share, f"{row['position']}: {numbers}")


def _heat_map(source: Source) -> Block | None:
    if not source.has("heatmap"):
        return None
    title = source.summary.get("heatmap", {}).get("title", "One unit over a text")
    return heat_map_text(source.table("heatmap"), str(title))


def _of_layers(rows: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(rows[rows["scope"] == "layer"])


def _layer_figure(source: Source) -> Block:
    from actmax.report import figures

    by_layer, decoders = _of_layers(source.table("shares")), _of_layers(source.table("decoders"))
    alt = "Two line charts by layer: share of tuned units, and accuracy of the decoder, beside shuffled labels."
    caption = "Left: share of the units that are tuned. Right: accuracy of a decoder over all units of the layer."
    return source.figure("shares", lambda: figures.tuned_shares(by_layer, decoders), alt=alt, caption=caption)


def _layer_table(source: Source) -> Block:
    """A row per site and layer: how many units are tuned, and how well all of them decode the category."""
    shares, decoders = _of_layers(source.table("shares")), _of_layers(source.table("decoders"))
    rows = shares.merge(decoders, on=["site", "layer"], suffixes=("", "_decoder"))
    shown = [
        Shown("site", form="s"),
        Shown("layer", form="d"),
        Shown("tuned", text=lambda row: f"{row['tuned']} of {row['units']}", about="Benjamini-Hochberg over all units"),
        Shown(
            "share_tuned",
            "share",
            ".1%",
            note=_shuffled_share,
            shade=True,
            about="of tuned units (mean under shuffled labels, corrected per layer)",
        ),
        Shown("separated", form="d"),
        Shown(
            "accuracy",
            form=".1%",
            note=_shuffled,
            detail=_shuffled_detail,
            shade=True,
            about="on held-out words (95 % of what shuffled labels give)",
        ),
        Shown("accuracy_p", "p", ".2g", extra=True),
    ]
    return table(rows, shown, title="Tuned units and decoders by layer", source="shares.parquet", brief=MANY)


def _shuffled_share(row: Row) -> str:
    return in_brackets(row["null_share_layer_mean"], ".2%")


def _shuffled(row: Row) -> str:
    return f"({row['accuracy_null_low']:.0%} to {row['accuracy_null_high']:.0%})"


def _shuffled_detail(row: Row) -> str:
    return f"{row['accuracy_null_mean']:.1%} {_shuffled(row)}"


def _examples(source: Source) -> Block:
    """The most strongly tuned units, each with its words of the highest and of the lowest activation."""
    examples = source.table("examples")
    test = str(source.summary.get("test", "welch"))
    numbers = {f"{test}_t": TESTS.get(test, f"{test} t"), "cohens_d": "Cohen's d"}
    units = source.table("tuning", *UNIT, *numbers)
    rows = []
    for _, words in examples.groupby("unit", sort=True):
        ranked = words.sort_values("rank")
        unit = target_of_row(ranked.iloc[0])
        row = rows_of(units, unit).iloc[0]
        ends = (ranked.head(WORDS_SHOWN), ranked.tail(WORDS_SHOWN).iloc[::-1])
        cells = [Cell(f"{row[name]:.3g}", float(row[name])) for name in numbers]
        rows.append((Cell(str(unit)), *cells, *(Cell(_named(some), wide=True) for some in ends)))
    heads = [Column("unit", numeric=False), *map(Column, numbers.values())]
    heads += [Column(name, numeric=False) for name in ("highest", "lowest")]
    title = "The most strongly tuned units and their words"
    caption = "The words at which the unit is highest and lowest."
    return Table(title, tuple(heads), tuple(rows), caption, file="examples.parquet")


def _named(words: pd.DataFrame) -> str:
    return ", ".join(f"{row['word']} ({row['category']})" for row in words.to_dict("records"))


def _top_units(source: Source) -> Block:
    columns = (*UNIT, "mean_0", "mean_1", "cohens_d", "cohens_d_low", "cohens_d_high", "auc")
    units = source.table("tuning", *columns, "welch_t", "welch_p_bh", "logit_coef", "firth_coef", "status", "tuned")
    order = np.argsort(-units["welch_t"].abs().to_numpy(float), kind="stable")  # NaN goes last
    top = units.iloc[order[:ROWS]]
    top = top.assign(unit=addresses(top))
    first, second = _categories(source)
    shown = [
        Shown("unit", form="s"),
        Shown("welch_t", "Welch's t", ".3g"),
        Shown("welch_p_bh", "p (BH)", ".2g"),
        Shown("cohens_d", "Cohen's d", ".2f", shade=True),
        Shown("cohens_d_low", "95 % low", ".2f"),
        Shown("cohens_d_high", "high", ".2f"),
        Shown("auc", form=".3f"),
        Shown("mean_0", f"mean, {first}", ".3g"),
        Shown("mean_1", f"mean, {second}", ".3g"),
        Shown("logit_coef", "logistic β", ".3g"),
        Shown("firth_coef", "Firth's β", ".3g"),
        Shown("status", form="s"),
    ]
    caption = "– where a number does not exist; status says why. Differences are the second group minus the first."
    return table(top, shown, title="Units by |t|", source="tuning.parquet", caption=caption, total=len(units))


def _replication(source: Source) -> Block:
    shown = [
        Shown("split", form="d"),
        Shown("selected", form="d"),
        Shown("replicated", form="d"),
        Shown("rate", form=".1%", shade=True),
        Shown("null_rate_mean", "shuffled labels", ".1%"),
        Shown("effect_selected", "|d| selected", ".3f"),
        Shown("effect_held_out", "|d| held out", ".3f"),
        Shown("shrinkage", form=".1%"),
    ]
    caption = "Half of the words selects units, the other half tries them: same direction, p ≤ 0.05."
    return table(source.table("replication"), shown, title="By split", source="replication.parquet", caption=caption)


def _balance(source: Source) -> Block:
    shown = [
        Shown("category", form="s"),
        Shown("words", form="d"),
        Shown("letters_mean", "letters", ".2f"),
        Shown("letters_sd", "sd", ".2f"),
        Shown("subtokens_mean", "sub-tokens", ".2f"),
        Shown("subtokens_sd", "sd", ".2f"),
        Shown("contexts_mean", "contexts", ".2f"),
        Shown("zipf_mean", "frequency (Zipf)", ".2f"),
    ]
    return table(source.table("balance"), shown, title="Balance of the groups", source="balance.parquet")


def _words(source: Source) -> Block:
    shown = [
        Shown("word", form="s"),
        Shown("category", form="s"),
        Shown("pair", form="s"),
        Shown("subtokens", "sub-tokens", "d"),
        Shown("contexts", form="d"),
        Shown("text", "read in", "s"),
    ]
    return table(source.table("words"), shown, title="All words", source="words.parquet")


def _skipped(source: Source) -> Block | None:
    found = source.summary.get("skipped") or {}
    reasons = ", ".join(f"{number} {reason}" for reason, number in found.items())
    return Prose(f"{reasons}.", "Left out") if reasons else None
