"""The verdict card of one unit: each measure beside what chance gives, and how it reads."""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan
from typing import Any

from actmax.evidence.findings import Finding, Measure, is_missing, known, unit_findings
from actmax.evidence.readings import MeaningStatus, Transfer
from actmax.evidence.settings import CLAIMS, RANDOM_MOVES
from actmax.report.blocks import Cell, Column, Row, Table, in_brackets, interval, join, number, number_cell, p_said
from actmax.report.words import (
    ELSEWHERE,
    answer_word,
    claim_words,
    floor_words,
    in_order,
    label,
    lost,
    meaning_obstacle,
    p_words,
    sink_statement,
)

NAMES = {
    Measure.UNIQUE_TOKENS: ("different tokens", ".0f"),
    Measure.SHARED_TOKENS: ("tokens in common", ".1%"),
    Measure.OWN_TOKENS: ("… beside other units", ".1%"),
    Measure.DIRECTION: ("direction in common", ".4f"),
    Measure.RETENTION: ("still the initial noise", ".0%"),
    Measure.NEAREST_COSINE: ("cosine to nearest token", ".4f"),
    Measure.OPTIMUM: ("activation, optimum", ".4g"),
    Measure.SNAPPED: ("activation as text", ".3g"),
    Measure.MEANING: ("meaning in common", ".3f"),
    Measure.MEANING_APART: ("… less tokens in common", ".3f"),
    Measure.OWN_MEANING: ("… beside other units", ".3f"),
}
"""The measures of the card in its order, with their names and the formats of their numbers."""
OF_MEANING = (Measure.MEANING, Measure.MEANING_APART, Measure.OWN_MEANING)
"""The measures of the card that are about meaning."""
THEME_SHOWN = 6
"""Most words of a theme that the card shows."""
HEADS = (
    Column("measure", numeric=False),
    Column("observed", numeric=False),
    Column("chance", numeric=False),
    Column("reading", numeric=False),
    Column("p"),
)


def card(row: Row) -> Table:
    """The verdict card of one unit.

    Args:
        row: its row of `units.parquet`, or the `summary.json` of a job on it.
    """
    row = known(row)
    found = {one.measure: one for one in unit_findings(row)}
    rows = [_claim(row, found[measure]) for measure in NAMES if measure in found and measure not in OF_MEANING]
    rows += _meaning(row, found)
    if carried := _transfer(row):
        rows.append(carried)
    rows.append(_kappa(row))
    rows.append(_spread(row))
    claims = len(CLAIMS[row["null_of_ends"]])
    caption = (
        "chance: where a row lies if there is nothing to find; each at a level of "
        f"{found[Measure.SNAPPED].alpha:.2g}, so that all {claims} do in 95 % of cases (Bonferroni). up to: only more "
        "is looked for. ≤: the smallest p that the draws can give. Different tokens say little by themselves: noise "
        "decodes to different tokens too. In common: to two restarts, the direction as cosine of their moves. κ, with "
        "its 95 % interval: 0 is chance, 1 the same tokens; from 0.5 on (lower limit) the same answer, from 0.1 on "
        "partly. κ and spread describe, and are not tested."
    )
    caption = join([lost(row), caption])
    if carried:
        caption += (
            " Works elsewhere: the tokens in other contexts; in brackets how much they keep of how far beyond random "
            "ones they are where they were found, in standard deviations (yes: beyond random ones, and the lower limit "
            "is at least half); 5 % over these contexts together."
        )
    if row.get("meaning_status") == MeaningStatus.OK:
        caption += (
            " Meaning in common: mean cosine of two restarts' texts in a space of meaning; a question of its own, at 5 "
            "%, and only where they are alike it is asked whether other units' are as well. Less tokens in common: of "
            "every two texts the tokens are left out that both hold; at 5 % by itself. Theme: words of the "
            "vocabulary that are nearer to all restarts than chance, corrected for looking at all words."
        )
    caption = join([caption, sink_statement(row)])
    return Table(f"{answer_word(row)}: would another start give the same answer?", HEADS, tuple(rows), caption)


def _claim(row: Row, one: Finding) -> tuple[Cell, ...]:
    name, form = NAMES[one.measure]
    if one.measure == Measure.RETENTION and row["null_of_ends"] != RANDOM_MOVES:
        name = "still the token of the start"
    observed, low, high = _printed(one, form)
    if not isnan(one.observed):
        observed += {
            Measure.UNIQUE_TOKENS: f" of {row['tokens_total']:.0f}",
            Measure.SHARED_TOKENS: f" ({row['pairs_sharing']:.0f} of {row['pairs']:.0f} pairs)",
        }.get(one.measure, "")
    p = Cell("–") if isnan(one.p) else Cell(p_words(one, brief=True), one.p, detail=floor_words(one))
    return Cell(name), Cell(observed), Cell(_chance(row, one, low, high)), Cell(claim_words(one)), p


def _printed(one: Finding, form: str) -> tuple[str, ...]:
    """The observed number and both limits of the null, with a dash for each that does not exist."""
    values = (one.observed, one.null_low, one.null_high)
    return tuple("–" if isnan(value) else text for value, text in zip(values, in_order(one, form), strict=True))


def _chance(row: Row, one: Finding, low: str, high: str) -> str:
    name = {
        Measure.OWN_TOKENS: "other units",
        Measure.OWN_MEANING: "other units",
        Measure.DIRECTION: "other units",
        Measure.OPTIMUM: "random tokens",
        Measure.SNAPPED: "random tokens",
    }.get(one.measure, str(row["null_of_ends"]))
    if isnan(one.null_low) and isnan(one.null_high):
        return "–"
    if isnan(one.null_low):
        return f"{name}: up to {high}"
    return f"{name}: down to {low}" if isnan(one.null_high) else f"{name}: {low} to {high}"


def _meaning(row: Row, found: Mapping[Measure, Finding]) -> list[tuple[Cell, ...]]:
    """Whether restarts agree in meaning, and in what; a note where it was not measured, nothing where not asked."""
    status = MeaningStatus(row.get("meaning_status") or MeaningStatus.OFF)
    if status == MeaningStatus.OFF:
        return []
    if status != MeaningStatus.OK:
        return [(Cell("meaning in common"), Cell("–"), Cell("–"), Cell(meaning_obstacle(row)), Cell("–"))]
    rows = [_claim(row, found[measure]) for measure in OF_MEANING if measure in found]
    if not is_missing(row.get("meaning_whole")):
        ends = [number(row[name], ".3f") for name in ("meaning_whole", "null_meaning_whole_high")]
        p, note = number_cell(row["null_meaning_whole_p"], ".2g"), "confounded by what the unit raises"
        rows.append((Cell("… nothing left out"), Cell(ends[0]), Cell(f"up to {ends[1]}"), Cell(note), p))
    if not is_missing(row.get("theme_words")):
        words = str(row["theme"] or "").split(", ")
        shown = ", ".join(words[:THEME_SHOWN]) + (", …" if len(words) > THEME_SHOWN else "")
        reading = "nearer than chance" if row["theme_words"] else "no word nearer than chance"
        rows.append((Cell("theme"), Cell(shown or "–"), Cell("all words"), Cell(reading), Cell("")))
    return rows


def _transfer(row: Row) -> tuple[Cell, ...]:
    """Whether the tokens work in other contexts than the one that they were found in; nothing where none was tried."""
    found = {name: one for one in unit_findings(row) for name in ELSEWHERE if one.measure == f"transfer_{name}_mean"}
    if not found:
        return ()
    texts = {name: _printed(one, ".3g") for name, one in found.items()}
    reading = Transfer(row["transfer"])
    observed = ", ".join(f"{name} {text[0]}{_share(row, name, reading)}" for name, text in texts.items())
    up = next(iter(found.values())).alternative == "greater"
    limits = ", ".join(high if up else low for _, low, high in texts.values())
    p = ", ".join(dict.fromkeys(p_words(one, brief=True) for one in found.values()))
    chance = f"random tokens: {'up' if up else 'down'} to {limits}"
    return Cell("works elsewhere"), Cell(observed), Cell(chance), Cell(label(reading)), Cell(p or "–")


def _share(row: Row, name: str, reading: Transfer) -> str:
    """How much tokens keep in a context, in brackets; nothing where there is nothing to keep."""
    share = row[f"transfer_{name}_share"]
    return "" if isnan(share) or reading == Transfer.NOTHING else f" ({share:.0%})"


def _kappa(row: Row) -> tuple[Cell, ...]:
    """How much of the answer is the same: the agreement of tokens beyond chance."""
    low, high = row["kappa_tokens_low"], row["kappa_tokens_high"]
    value = "–" if isnan(row["kappa_tokens"]) else f"{row['kappa_tokens'] + 0:.2f}".replace("-0.00", "0.00")
    ends = "no interval" if isnan(low) or isnan(high) else f"{low:.2f} to {high:.2f}".replace("-0.00", "0.00")
    return Cell("κ, beyond chance"), Cell(f"{value} ({ends})"), Cell("0"), Cell(""), Cell("")


def _spread(row: Row) -> tuple[Cell, ...]:
    """How far the optima differ, beside how far the starts do."""
    value, start = row["activation_final_sd"], row["activation_initial_sd"]
    share = abs(value / row["activation_final_mean"]) if row["activation_final_mean"] else float("nan")
    observed = join([f"± {value:.3g}", in_brackets(share, ".0%")]) if not isnan(value) else "–"
    before = "–" if isnan(start) else f"at the start: ± {start:.2g}"
    return Cell("spread over restarts"), Cell(observed), Cell(before), Cell(""), Cell("")


def instead(row: Row) -> Table:
    """What the optimum gives as text beside what a reader would use instead of it.

    Args:
        row: a unit's row of `units.parquet`.
    """
    row = known(row)
    passes, low, high = row["passes"], row["best_of_random_low"], row["best_of_random_high"]
    unknown = isnan(low) or isnan(high)
    best = "more passes than random sequences were drawn (gap.draws)" if unknown else interval(low, high, ".3g")
    z, p, sd = row["z_of_mean_snapped"], row["null_snapped_p"], number(row["random_activation_sd"], ".2g")
    rows: list[tuple[str, Any, str]] = [
        ("optimum", row["activation_final_mean"], ""),
        ("snapped to its tokens", row["activation_snapped_mean"], p_said(p, f"z of the mean {number(z, '.2g')}, ")),
        ("their text, tokenised again", row["activation_retokenised_mean"], p_said(row["null_retokenised_p"])),
        ("random tokens", row["random_activation_mean"], f"± {sd}, one sequence"),
        ("tokens of the start", row["start_tokens_activation_mean"], p_said(row["start_tokens_p"], "paired ")),
        (f"best of {passes:,.0f} random sequences", row["best_of_random_mean"], best),
    ]
    cells = tuple(
        (Cell(name, wide=True), number_cell(value, ".4g"), Cell(note, wide=True)) for name, value, note in rows
    )
    heads = (Column("what is put in", numeric=False), Column("activation"), Column("beside it", numeric=False))
    caption = (
        "Means over restarts. p: one-sided, on the side of the objective, each by itself; snapped and tokenised again "
        "against means of as many random sequences, those of the start against the snapped ones, restart by "
        "restart. As many random sequences as a restart took forward passes."
    )
    if not isnan(row["kept_snapped"]):
        caption += f" Kept of the gain once snapped: {row['kept_snapped']:.1%}."
    return Table("As text, beside what a reader would use instead", heads, cells, caption)
