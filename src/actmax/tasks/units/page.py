"""What is shown of a job that looks for what units respond to: a maximization, or a token search."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from actmax.evidence.findings import is_missing
from actmax.evidence.readings import Verdict
from actmax.model.target import addresses, names_in, rows_of, target_of_row
from actmax.report.blocks import (
    MANY,
    Block,
    Cell,
    Column,
    Missing,
    Number,
    Page,
    Prose,
    Row,
    Shown,
    Table,
    join,
    number,
    number_cell,
    table,
    visible,
)
from actmax.report.source import Headline, Source, present
from actmax.report.words import (
    gap_shares,
    label,
    neighbours_obstacle,
    neighbours_statement,
    rounding_statement,
    search_statement,
    transfer_statement,
    units_answer,
)
from actmax.tasks.settings import asked_address
from actmax.tasks.units.card import card, instead

UNITS_SHOWN = 8
"""Most units with a table of tokens each."""
STATEMENTS = 20
"""Most units whose neighbours something is said about."""
RESTARTS_SHOWN = 125
"""Most rows of a unit's table of tokens on a page."""
SAME = 1e-3
"""Cosines that differ by less are not shaded: what a search finds are tokens, up to rounding."""
NEIGHBOURS_SHOWN = 100
"""Most coordinates in the table of neighbours."""
ENOUGH = 16
"""Number of units from which on a histogram is drawn."""
WHERE = {"none": "nothing before", "bos": "begin-of-text", "text": "real text"}
"""Contexts in which tokens are tried, as a table names them."""
MEASURES = {
    "shared_tokens": ("tokens in common", ".2%"),
    "direction": ("cosine of moves, all pairs of positions", ".4f"),
    "jaccard": ("tokens in common (Jaccard)", ".2%"),
    "displacement_cosine_assigned": ("cosine of moves, positions matched", ".4f"),
    "position_agreement": ("same token at the same position", ".2%"),
    "coverage": ("coverage", ".2%"),
    "richness": ("tokens in all (Chao2)", ".4g"),
    "entropy": ("entropy of tokens (bits)", ".3f"),
    "displacement_cosine": ("cosine of moves", ".4f"),
    "final_cosine": ("cosine of final embeddings", ".4f"),
    "final_cosine_assigned": ("cosine of final embeddings, matched", ".4f"),
}
"""Measures of the agreement of restarts by their column, with their names and formats in the table."""


def maximization_page(source: Source) -> Page:
    """What is shown of a maximization by gradients."""
    prior = str(source.summary.get("prior") or "none")
    return _page(source, "" if prior == "none" else f" (prior: {prior})")


def search_page(source: Source) -> Page:
    """What is shown of a token search."""
    method = source.summary.get("method")
    return _page(source, f" (token search: {method})" if method else " (token search)")


def _page(source: Source, how: str) -> Page:
    units = _readable_units(source)
    several = units is not None and len(units) > 1
    verdict, numbers = source.headline("units.parquet", lambda: _answer(own_rows(source, "units")))
    shown = source.blocks("The verdict card", lambda: _card(source))
    if units is not None and several:
        main = source.blocks("The table of units", lambda: unit_table(units, "units.parquet"))
    else:
        main = source.blocks("Decoded tokens", lambda: _token_tables(source))
    best = source.blocks("Search", lambda: _best_of_search(source))
    beside = source.blocks("What a reader would use instead", lambda: _instead(source))
    rounding = source.blocks("Rounding", lambda: _rounding(source))
    neighbours = source.blocks("The comparison with neighbours", lambda: _neighbour_statements(source))
    curves = source.figures("Activation by step", lambda: _trajectories(source))
    nulls = source.figures("Measures beside their nulls", lambda: _nulls(source))
    sections = [
        source.section("Activation", lambda: curves, lambda: beside, lambda: _gap(source), lambda: _gap_table(source)),
        source.section("Targets", *(lambda name=name: _of_targets(source, name) for name in OF_TARGETS)),
        source.section("In other contexts", lambda: _transfer(source)),
        source.section("Meaning", lambda: _meaning_map(source), lambda: themes(source)),
        source.section("Activation against fluency", lambda: _front(source)),
        source.section("Decoded tokens", lambda: _token_tables(source)) if several else None,
        source.section(
            "Beside chance",
            lambda: nulls,
            lambda: histogram(source, own_rows(source, "units")),
            lambda: None if several else _agreement(own_rows(source, "units").iloc[0].to_dict()),
            lambda: _rarefaction(source),
            lambda: _controls(source),
        ),
        source.section("Neighbours before and after", lambda: neighbours, lambda: _neighbours(source)),
        source.section("Priors and rounding", lambda: _priors(source), lambda: rounding),
    ]
    first = (*main, *best, *beside, *rounding, *neighbours, *nulls, *curves)
    return Page(_question(source, how), verdict, numbers, first, present(sections), card=tuple(shown))


def own_rows(source: Source, name: str) -> pd.DataFrame:
    """The rows of a table that are about the job's own units, not its control units."""
    rows = source.table(name)
    return pd.DataFrame(rows[~rows["control"].to_numpy(bool)]) if "control" in rows else rows


def _card(source: Source) -> Block:
    units = own_rows(source, "units")
    if len(units) == 1:
        return card(units.iloc[0].to_dict())
    return Prose(f"{units_answer(units)} {gap_shares(units)}", "Verdicts")


def _instead(source: Source) -> Block | None:
    units = own_rows(source, "units")
    return instead(units.iloc[0].to_dict()) if len(units) == 1 else None


def _controls(source: Source) -> Block | None:
    """The control units, with the numbers of the job's own."""
    rows = source.table("units")
    if "control" not in rows or not bool(rows["control"].any()):
        return None
    controls = pd.DataFrame(rows[rows["control"].to_numpy(bool)])
    return replace(unit_table(controls, "units.parquet"), title="Control units: other units from the same seeds")


def _question(source: Source, how: str) -> str:
    unit, name = asked_address(source.part("unit")), source.part("subject").get("name", "the subject")
    return f"What does {unit} of {name} respond to{how}, and would you get the same answer again?"


def _readable_units(source: Source) -> pd.DataFrame | None:
    try:
        return own_rows(source, "units")
    except Exception:  # what is made from it says what is wrong
        return None


def _answer(units: pd.DataFrame) -> Headline:
    return units_answer(units), headline(units) if len(units) > 1 else ()


def headline(units: pd.DataFrame) -> tuple[Number, ...]:
    """Agreement of restarts, activation left as text, positions that kept their first token; means over units."""
    means = pd.DataFrame(units.select_dtypes("number").astype(float).mean()).T.to_dict("records")[0]
    chance = str(units.iloc[0]["null_of_ends"])
    before, after = means["activation_initial_mean"], means["activation_final_mean"]
    random = f"{number(means['random_activation_mean'], '.3g')} ± {number(means['random_activation_sd'], '.2g')}"
    return (
        Number(
            "Tokens that two restarts share (mean over units)",
            number(means["shared_tokens"], ".1%"),
            f"{chance}: {number(means['null_shared_tokens_mean'], '.1%')}",
        ),
        Number(
            "Activation once snapped to tokens (mean over units)",
            number(means["activation_snapped_mean"], ".3g"),
            f"{number(before, '.3g')} at the start, {number(after, '.4g')} at the optimum; random tokens: {random}",
        ),
        Number(
            "Positions that kept their first token (mean over units)",
            number(means["init_retention"], ".0%"),
            f"{chance}: {number(means['null_retention_mean'], '.0%')}",
        ),
    )


# the first screen


def rise(row: Row) -> str:
    """The activation at the start and at the optimum, means over restarts."""
    return f"{number(row['activation_initial_mean'], '.3g')} → {number(row['activation_final_mean'], '.4g')}"


def _inside(name: str, form: str, *, mean: bool = False) -> Callable[[Row], str]:
    """Makes the small print that gives a null's 95 % interval, and its mean before it."""

    def text(row: Row) -> str:
        if is_missing(row[f"null_{name}_low"]):
            return ""
        middle, low, high = (f"{row[f'null_{name}_{part}']:{form}}" for part in ("mean", "low", "high"))
        return f"({f'{middle}; ' if mean else ''}{low} to {high})"

    return text


UNIT_COLUMNS = (
    Shown("restarts", form=".0f", extra=True),
    Shown("verdict", form="s", extra=True),
    Shown("activation_final_mean", "activation", text=rise),
    Shown(
        "activation_snapped_mean",
        "snapped",
        ".3g",
        beside="random_activation_mean",
        extra=True,
        about="activation of the tokens (of random tokens)",
    ),
    Shown(
        "shared_tokens",
        "shared",
        ".2%",
        beside="null_shared_tokens_mean",
        shade=True,
        extra=True,
        about="tokens that two restarts have in common",
    ),
    Shown(
        "direction",
        "direction",
        ".4f",
        beside="null_direction_mean",
        shade=True,
        extra=True,
        about="cosine of two restarts' moves, all pairs of positions (other units)",
    ),
    Shown(
        "tokens_unique",
        "unique tokens",
        text=lambda row: f"{row['tokens_unique']:.0f} of {number(row['tokens_total'], '.0f')}",
        note=_inside("unique", ".0f"),
        about="different tokens (random moves or tokens)",
    ),
    Shown(
        "init_retention",
        "kept",
        ".2f",
        note=_inside("retention", ".2f"),
        detail=_inside("retention", ".2f", mean=True),
        about="positions that still decode to the token of their start",
    ),
    Shown("cosine_mean", "cosine", ".4f", note=_inside("cosine", ".4f"), about="to the nearest token"),
)
"""Headline numbers of a unit, each beside its null."""


def unit_table(units: pd.DataFrame, file: str) -> Table:
    """A row per unit with its headline numbers, each beside its null.

    Args:
        units: `units.parquet`, of a job or a sweep.
        file: name of the file that holds all rows.
    """
    named = units.assign(
        unit=addresses(units),
        verdict=[label(Verdict(verdict)) for verdict in units["verdict"]],
    )
    several_contexts = "context" in units and len(set(units["context"])) > 1
    several_priors = "prior" in units and len(set(units["prior"])) > 1
    names = [*(["prior"] if several_priors else []), *(["context"] if several_contexts else [])]
    shown = [Shown("unit", form="s"), *(Shown(name, form="s") for name in names), *UNIT_COLUMNS]
    caption = "In brackets what chance gives: an interval at the level of a claim, or a mean."
    return table(named, shown, title=f"{len(units)} units", source=file, caption=caption)


def _token_tables(source: Source) -> list[Block]:
    tokens = own_rows(source, "tokens")
    if not len(tokens):
        return [Missing("Decoded tokens", "tokens.parquet is damaged: it has no rows.")]
    units = [pd.DataFrame(rows) for _, rows in tokens.groupby(names_in(tokens), sort=False, dropna=False)]
    blocks: list[Block] = [_token_table(rows) for rows in units[:UNITS_SHOWN]]
    if len(units) > UNITS_SHOWN:
        blocks.append(Prose(f"The first {UNITS_SHOWN} of {len(units)} units; tokens.parquet has them all."))
    return blocks


def _token_table(tokens: pd.DataFrame) -> Table:
    """A unit's decoded tokens, seeds by positions, each with its cosine and the token of its initial noise."""
    repeats = tokens["token_id"].duplicated(keep=False)
    cosine = tokens["cosine"].to_numpy(float)
    low, high = float(cosine.min()), float(cosine.max())
    positions = sorted(tokens["position"].unique())
    heads = [Column("seed"), *(Column(f"position {place}", numeric=False) for place in positions), Column("activation")]
    seeds = list(tokens.assign(repeat=repeats).groupby("seed", sort=True))
    rows = []
    for seed, some in seeds[:RESTARTS_SHOWN]:
        ends = some.iloc[0]
        cells = [_token(row, low, high) for row in some.sort_values("position").to_dict("records")]
        change = f"{number(ends['activation_initial'], '.3g')} → {number(ends['activation_final'], '.3g')}"
        final = replace(number_cell(ends["activation_final"], ".3g"), text=change)
        rows.append((Cell(str(seed), float(str(seed))), *cells, final))
    caption = (
        "The token nearest to each optimum, with its cosine; a page shades by the cosine, and adds the token of the "
        "initial noise. = is still the token of its initial noise; * occurs more than once. Spaces are shown as dots."
    )
    title = f"Decoded tokens of {target_of_row(tokens.iloc[0])}, by seed and position"
    return Table(title, tuple(heads), tuple(rows), caption, len(seeds), "tokens.parquet", brief=MANY)


def _token(row: Row, low: float, high: float) -> Cell:
    marks = ("=" if row["token_id"] == row["init_token_id"] else "") + ("*" if row["repeat"] else "")
    shade = (row["cosine"] - low) / (high - low) if high > low + SAME and not is_missing(row["cosine"]) else None
    detail = f"{number(row['cosine'], '.3f')} · {visible(str(row['init_token']))}"
    return Cell(visible(str(row["token"])), None, number(row["cosine"], ".2f"), detail, marks, shade)


def _best_of_search(source: Source) -> Block | None:
    found = source.summary.get("search")
    return Prose(search_statement(source.summary), "Search") if isinstance(found, Mapping) else None


def _rounding(source: Source) -> Block | None:
    found = source.summary.get("rounding")
    return Prose(rounding_statement(found), "Rounding") if isinstance(found, Mapping) else None


def _neighbour_statements(source: Source) -> list[Block]:
    compared = source.summary.get("comparison")
    if not isinstance(compared, Mapping):
        return []
    if obstacle := neighbours_obstacle(compared):
        return [Prose(f"{obstacle}.", "Comparison")]
    units = list(compared.get("units", {}).items())
    blocks: list[Block] = [
        Prose(neighbours_statement(numbers), f"Comparison at {unit}") for unit, numbers in units[:STATEMENTS]
    ]
    if len(units) > STATEMENTS:
        blocks.append(Prose(f"The first {STATEMENTS} of {len(units)} units; summary.json has them all.", "Comparison"))
    return blocks


# activation


def _trajectories(source: Source) -> Block:
    from actmax.report import figures

    rows = own_rows(source, "trajectory")
    alt = "Line chart: the activation of every restart by step."
    caption = "Activation of every restart by step, and their mean. Step 0 is the start."
    if len(rows.drop_duplicates([*names_in(rows), "seed"])) > figures.CURVES:
        caption += f" Not more than {figures.CURVES} restarts are drawn."
    return source.figure("trajectory", lambda: figures.trajectories(rows), alt=alt, caption=caption)


def _gap(source: Source) -> Block:
    from actmax.report import figures

    gaps = own_rows(source, "gaps")
    varied = pd.DataFrame(gaps[gaps["random_activation_sd"] > 0])  # else there is no unit to count in
    if not len(varied):
        return Missing("The decode gap", "Random tokens all give the same activation, so there is no unit to count in.")
    caption = (
        "Each restart on its way to text, in standard deviations of random token sequences: single restarts beside the "
        "light band, their mean beside the dark one."
    )
    alt = "Line chart: each restart's activation as initial noise, optimum, snapped tokens and text tokenised again."
    return source.figure("decode_gap", lambda: figures.decode_gap(varied), alt=alt, caption=caption)


def _gap_table(source: Source) -> Block:
    gaps = own_rows(source, "gaps")
    several = len(gaps.drop_duplicates(names_in(gaps))) > 1
    gaps = gaps.assign(unit=addresses(gaps))
    stages = {"initial": "start", "final": "optimum", "snapped": "snapped", "retokenised": "tokenised again"}
    shown = [
        *([Shown("unit", form="s")] if several else []),
        Shown("seed", form="d"),
        *(Shown(f"activation_{stage}", name) for stage, name in stages.items()),
        Shown("cross_entropy", "nats per token"),
        Shown("text", "decoded text", form=visible, words=True),
    ]
    caption = "nats per token: the model's cross-entropy of the decoded text. Spaces are shown as dots."
    return table(gaps, shown, title="Restarts on their way to text", source="gaps.parquet", caption=caption)


def _transfer(source: Source) -> Block | None:
    """What the tokens of each restart do in other contexts, beside random tokens there."""
    if not source.has("transfer"):
        return None
    rows, units = own_rows(source, "transfer"), own_rows(source, "units")
    several = len(units) > 1
    shown = [
        *([Shown("unit", form="s")] if several else []),
        Shown("where", form="s"),
        Shown("seed", form="d"),
        Shown("activation"),
        Shown("random_mean", "random tokens", ".3g", note=_random_interval),
        Shown("z", form=".2f", shade=True),
        Shown("p", form=".2g"),
    ]
    named = rows.assign(
        unit=addresses(rows),
        where=[f"{WHERE[row['context']]}{' (its own)' if row['own'] else ''}" for row in rows.to_dict("records")],
    )
    caption = "z and p (one-sided): each restart beside single random sequences in the same context."
    if not several:
        caption = join([transfer_statement(units.iloc[0].to_dict()), caption])
    title = "The same tokens in other contexts"
    return table(named, shown, title=title, source="transfer.parquet", caption=caption)


def _random_interval(row: Row) -> str:
    return f"({number(row['random_low'], '.3g')} to {number(row['random_high'], '.3g')})"


def _meaning_map(source: Source) -> Block | None:
    """Where the restarts of the first unit lie in the space of meaning."""
    from actmax.report import figures

    if not source.has("meaning"):
        return None
    rows = source.table("meaning")
    first = rows_of(rows, target_of_row(rows.iloc[0]))
    caption = (
        f"Texts in a space of meaning, for {target_of_row(first.iloc[0])}: to the right what is near to its restarts "
        "(each held against the others), upwards where texts by chance differ most."
    )
    alt = "Scatter plot: a unit's restarts in two dimensions, beside other units' restarts and texts by chance."
    return source.figure("meaning", lambda: figures.meaning_map(first), alt=alt, caption=caption)


def themes(source: Source) -> Block | None:
    """The words that are nearest to what restarts have in common."""
    if not source.has("theme"):
        return None
    rows = source.table("theme")
    words = pd.DataFrame(rows[rows["kind"] == "word"])
    named = words.assign(unit=addresses(words))
    shown = [
        *([Shown("unit", form="s")] if len(words.drop_duplicates(names_in(words))) > 1 else []),
        Shown("text", "word", form="s"),
        Shown("similarity", "cosine", ".3f", beside="chance", shade=True),
        Shown("z", form=".2f"),
        Shown("p", form=".2g"),
    ]
    caption = (
        "The words of the vocabulary nearest to all restarts: mean cosine to their texts (by chance), in standard "
        "deviations of texts by chance, and p corrected for looking at the whole vocabulary."
    )
    return table(named, shown, title="Theme", source="theme.parquet", caption=caption)


OF_TARGETS = {
    "targets": (
        "Targets",
        (
            Shown("unit", "target", "s"),
            Shown("control", "is", lambda control: "control" if control else "own", words=True),
            Shown("norm", "length of w"),
            Shown("bias", "b"),
        ),
        "What is read is w · x + b; lengths are as they are given.",
    ),
    "latents": (
        "Latents",
        (
            Shown("unit", "latent", "s"),
            Shown("stage", form="s"),
            Shown("pre", "before its activation function"),
            Shown("post", "behind it"),
            Shown("firing", "positions at which it fires", ".0%"),
        ),
        "What is optimized is what enters the latent's activation function. Means over restarts.",
    ),
}
"""Tables about targets, by the names of their files: title, columns and caption.

The first is about what directions are, the second about what latents of autoencoders give behind their activation
function.
"""


def _of_targets(source: Source, name: str) -> Block | None:
    """A table about targets; None where the job has none."""
    if not source.has(name):
        return None
    rows = source.table(name) if name == "targets" else _means_of_latents(own_rows(source, name))
    title, shown, caption = OF_TARGETS[name]
    return table(rows.assign(unit=addresses(rows)), shown, title=title, source=f"{name}.parquet", caption=caption)


def _means_of_latents(rows: pd.DataFrame) -> pd.DataFrame:
    groups = rows.groupby([*names_in(rows), "stage"], sort=False, dropna=False)
    return pd.DataFrame(groups[["pre", "post", "firing"]].mean()).reset_index()


def _front(source: Source) -> Block | None:
    if not source.has("front"):
        return None
    shown = [
        Shown("seed", form="d"),
        Shown("activation"),
        Shown("cross_entropy", "nats per token"),
        Shown("text", form="s"),
    ]
    title = "The Pareto front of activation and cross-entropy"
    return table(own_rows(source, "front"), shown, title=title, source="front.parquet")


# beside chance


def _nulls(source: Source) -> Block:
    from actmax.report import figures

    units = own_rows(source, "units")
    caption = "Each measure (dot) beside its null's interval at the level of a claim (bar) and its mean (tick)."
    if len(units) > figures.UNITS:
        caption += f" The first {figures.UNITS} of {len(units)} units."
    alt = "Dot chart: each unit's headline measures beside the intervals of their nulls."
    return source.figure("nulls", lambda: figures.against_nulls(units), alt=alt, caption=caption)


def histogram(source: Source, units: pd.DataFrame) -> Block | None:
    """How far the restarts of many units agree above their nulls; None where there are few."""
    from actmax.report import figures

    if len(units) < ENOUGH or not bool(units["null_shared_tokens_p"].notna().any()):
        return None
    caption = "Agreement of restarts above its null, a histogram over units; those with a claim in colour."
    alt = "Two histograms over units: agreement above its null in tokens and in embeddings."
    return source.figure("units", lambda: figures.agreement_histograms(units), alt=alt, caption=caption)


def _agreement(row: Row) -> Table:
    """One unit's measures of agreement, each with its interval, its null and p."""
    names = ("value", "interval", "null", "null's interval", "p")
    heads = (Column("measure", numeric=False), *map(Column, names))
    rows = []
    for name, (words, form) in MEASURES.items():
        ends = [_limits(row[f"{stem}_low"], row[f"{stem}_high"], form) for stem in (name, f"null_{name}")]
        value, mean, p = (
            number_cell(row[column], form)
            for column, form in ((name, form), (f"null_{name}_mean", form), (f"null_{name}_p", ".2g"))
        )
        rows.append((Cell(words, wide=True), value, Cell(ends[0]), mean, Cell(ends[1]), p))
    caption = (
        "Intervals are 95 %: jackknife over restarts. The null's limit and p are one-sided, from the same draws: "
        "random moves or tokens for tokens, random signs of moves for embeddings, other units for the direction. The "
        "first two rows are claims of the card, at its level; the others are at 5 %, each by itself."
    )
    return Table("Agreement of restarts", heads, tuple(rows), caption)


def _limits(low: float | None, high: float | None, form: str) -> str:
    """An interval, or the one limit that it has."""
    if is_missing(low) and is_missing(high):
        return "no interval"
    if is_missing(low) or is_missing(high):
        return f"from {low:{form}}" if is_missing(high) else f"up to {high:{form}}"
    return f"{low:{form}} to {high:{form}}"


def _rarefaction(source: Source) -> Block:
    from actmax.report import figures

    rows = own_rows(source, "rarefaction")
    caption = "How many different tokens so many restarts give on average, found and under the null"
    caption += "." if len(rows.drop_duplicates(names_in(rows))) == 1 else "; means over units."
    alt = "Line chart: different tokens against the number of restarts, beside the same under the null."
    return source.figure("rarefaction", lambda: figures.rarefaction(rows), alt=alt, caption=caption)


# neighbours and priors


def _neighbours(source: Source) -> Sequence[Block] | None:
    if not source.has("comparison"):
        return None
    rows = source.table("comparison")
    first = rows_of(rows, target_of_row(rows.iloc[0]))
    return [_neighbour_figure(source, first), _neighbour_table(first)]


def _neighbour_figure(source: Source, rows: pd.DataFrame) -> Block:
    from actmax.report import figures

    target = str(target_of_row(rows.iloc[0]))
    caption = f"How far each coordinate of the site moved from the start to the optimum; the target is {target}."
    alt = "Scatter plot: change of activation of every coordinate of the site."
    return source.figure("neighbours", lambda: figures.neighbours(rows), alt=alt, caption=caption)


def _neighbour_table(rows: pd.DataFrame) -> Table:
    order = np.argsort(-rows["paired_difference"].abs().to_numpy(float), kind="stable")  # NaN goes last
    shown = [
        Shown("coordinate", form="d"),
        Shown("paired_difference", "change"),
        Shown("paired_difference_low", "95 % low"),
        Shown("paired_difference_high", "high"),
        Shown("mean_0", "before"),
        Shown("mean_1", "after"),
        Shown("paired_t", "t", ".3g"),
        Shown("paired_p_bonferroni", "p (Bonferroni)", ".2g"),
        Shown("status", form="s"),
    ]
    title = "The coordinates that changed most"
    return table(rows.iloc[order], shown, title=title, source="comparison.parquet", rows=NEIGHBOURS_SHOWN)


def _priors(source: Source) -> Block | None:
    found = source.summary.get("priors")
    if not found:
        return None
    frame = pd.DataFrame([{"prior": name, **values} for name, values in found.items()])
    shown = [
        Shown("prior", form="s"),
        Shown("weight"),
        Shown("scale", form="s"),
        Shown("coefficient_mean", "coefficient"),
        Shown("initial_mean", "at the start"),
        Shown("final_mean", "at the end"),
    ]
    return table(frame, shown, title="Loss terms, means over restarts", source="summary.json")
