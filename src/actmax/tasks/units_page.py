"""The pages of jobs that look for what units respond to: maximization, search, examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from actmax.report.blocks import (
    Block,
    Cell,
    Column,
    Missing,
    Number,
    Page,
    Prose,
    Shown,
    Table,
    address,
    interval,
    is_missing,
    join,
    p_value,
    table,
    visible,
)
from actmax.report.source import Source, present

UNITS_SHOWN = 8
"""Units whose tokens stand in the page."""
SAME = 1e-3
"""Cosines that differ by less are not shaded: what a search finds are tokens, up to rounding."""
NEIGHBOURS_SHOWN = 100
"""Coordinates in the table of neighbours."""
ANSWERS = {
    "converges in tokens": "Yes: other starts end at the same tokens more often than chance.",
    "converges in embedding space only": "Only in part: other starts move the same way more than chance, "
    "but their tokens agree no more than chance.",
    "above chance, not this unit's own": "Restarts agree more than chance, but no more than those of other units do.",
    "not above chance": "No: other starts agree no more than chance.",
}
"""The declared verdicts in plain words."""
ENDINGS = {
    "at the snap": "What the embedding gained is lost once it is replaced by its tokens.",
    "at the tokenizer": "What was gained survives as tokens, but not as text that is tokenised again.",
    "survives": "What was gained survives as text.",
    "no gain": "The optimum itself does no better than random tokens.",
}
"""Where the gain dies, in plain words."""
MEASURES = {
    "jaccard": ("shared tokens (Jaccard)", ".2%"),
    "displacement_cosine_assigned": ("cosine of moves, positions matched", ".4f"),
    "unique_share": ("unique tokens, share", ".1%"),
    "position_agreement": ("same token at the same position", ".2%"),
    "coverage": ("coverage", ".2%"),
    "richness": ("tokens in all (Chao2)", ".4g"),
    "entropy": ("entropy of tokens (bits)", ".3f"),
    "displacement_cosine": ("cosine of moves", ".4f"),
    "final_cosine": ("cosine of final embeddings", ".4f"),
    "final_cosine_assigned": ("cosine of final embeddings, matched", ".4f"),
}
"""The agreement of restarts, in words."""
MANY = 16
"""Units from which on they are worth a histogram."""


def question(source: Source) -> str:
    """What a job on units asks."""
    name = source.part("subject").get("name", "the subject")
    how = {"": "", "none": "", "None": ""}.get(prior := str(source.summary.get("prior", "")), f" (prior: {prior})")
    if source.part("task").get("name") == "search":
        how = f" (token search: {prior})"
    unit = unit_of(source.part("unit"))
    return f"What does {unit} of {name} respond to{how}, and would you get the same answer again?"


def unit_of(unit: dict[str, Any]) -> str:
    """The unit or units of a config, in words."""
    place = unit.get("site", "the unit") if unit.get("layer") is None else f"{unit.get('site')}.{unit['layer']}"
    return f"{place}[{unit['index']}]" if "index" in unit else str(place)


def maximization_page(source: Source) -> Page:
    """Of a gradient run or a token search."""
    units = _units(source)
    verdict, numbers = _said(source, units) if units is not None else ("", ())
    sections = [
        source.section("What was found", lambda: _statements(source), lambda: _search(source)),
        source.section("Activation", lambda: _trajectories(source), lambda: _gap(source), lambda: _gap_table(source)),
        source.section("Decoded tokens", lambda: _token_tables(source)),
        source.section(
            "Beside chance",
            lambda: _nulls(source),
            lambda: histogram(source, source.table("units")),
            lambda: _measures(source),
            lambda: _rarefaction(source),
        ),
        source.section("Neighbours before and after", lambda: _neighbours(source)),
        source.section("Priors and rounding", lambda: _priors(source), lambda: _rounding(source)),
    ]
    return Page("", question(source), verdict, numbers, present(sections))


def _units(source: Source) -> pd.DataFrame | None:
    try:
        return source.table("units")
    except Exception as error:  # the parts of the page say what is wrong with it
        source.problems.append(f"units.parquet cannot be read ({type(error).__name__}).")
        return None


def _said(source: Source, units: pd.DataFrame) -> tuple[str, tuple[Number, ...]]:
    """The verdict in plain words, and the numbers that matter."""
    try:
        return plain_verdict(units), headline(units)
    except (KeyError, ValueError, TypeError, IndexError) as error:
        source.problems.append(f"units.parquet lacks what the headline needs ({error}).")
        return "", ()


def plain_verdict(units: pd.DataFrame) -> str:
    """What there is to say of one unit, or how many units have which verdict."""
    if len(units) == 1:
        row = units.iloc[0]
        answer = ANSWERS.get(str(row["convergence"]), f"That cannot be said: {row['convergence_reason']}.")
        return join([answer, _whose(row), ENDINGS.get(str(row["gap"]), "")])
    found = Counter(units["convergence"])
    parts = [f"{found[label]} {label}" for label in ANSWERS if label in found]
    unknown = len(units) - sum(found[label] for label in ANSWERS)
    if unknown:
        parts.append(f"{unknown} cannot be judged")
    died = Counter(units["gap"])
    dead = f"The gain dies on the way to text in {sum(died[name] for name in list(ENDINGS)[:2])} of them."
    return f"Of {len(units)} units: {'; '.join(parts)}. {dead}"


def _whose(row: pd.Series) -> str:
    """A word of caution where agreement could not be set against that of other units."""
    if not str(row["convergence"]).startswith("converges") or not str(row["own"]).startswith("not available"):
        return ""
    return "Whether that is this unit's own is not known: it takes other units to compare with."


def headline(units: pd.DataFrame) -> tuple[Number, ...]:
    """Agreement of restarts, what is left of the activation as text, what the start decides; means over units."""
    means = pd.DataFrame(units.select_dtypes("number").astype(float).mean()).T.to_dict("records")[0]
    one, moves = len(units) == 1, str(units.iloc[0]["null_of_ends"])
    shared = _null(means, "jaccard", ".1%", one=one)
    kept = _null(means, "retention", ".0%", one=one)
    snapped = (
        f"{means['activation_initial_mean']:.3g} at the start, {means['activation_final_mean']:.4g} at the optimum"
    )
    random = f"random tokens: {means['random_activation_mean']:.3g} ± {means['random_activation_sd']:.2g}"
    over = "" if one else " (mean over units)"
    return (
        Number(f"Tokens that two restarts share{over}", f"{means['jaccard']:.1%}", f"{moves}: {shared}"),
        Number(
            f"Activation once snapped to tokens{over}",
            f"{means['activation_snapped_mean']:.3g}",
            f"{snapped}; {random}",
        ),
        Number(f"Positions that kept their first token{over}", f"{means['init_retention']:.0%}", f"{moves}: {kept}"),
    )


def _null(means: dict[Any, float], name: str, form: str, *, one: bool) -> str:
    """A null's mean, and for one unit its interval and p."""
    said = f"{means[f'null_{name}_mean']:{form}}"
    if not one:
        return said
    inside = interval(means.get(f"null_{name}_low"), means.get(f"null_{name}_high"), form)
    return f"{said} ({inside}; p = {p_value(means.get(f'null_{name}_p'))})"


def _statements(source: Source) -> list[Block]:
    said = source.summary
    blocks: list[Block] = [
        Prose(str(said[key]), title) for key, title in TITLES.items() if isinstance(said.get(key), str)
    ]
    return blocks or [Missing("The findings in words", "summary.json has none.")]


TITLES = {"verdict": "Verdict", "decode_gap": "Decode gap"}


def _search(source: Source) -> list[Block]:
    found = source.summary.get("search")
    if not isinstance(found, dict):
        return []
    text = (
        f"Best of the search ({source.summary.get('method', 'search')}): “{visible(str(found['best_text']))}” gives "
        f"{found['activation_best']:.4g}; mean over restarts {found['activation_mean']:.4g}. It took "
        f"{found['forward_passes']:,} forward passes."
    )
    blocks: list[Block] = [Prose(text, "Search")]
    if source.has("front"):
        shown = [
            Shown("seed", form="d"),
            Shown("activation"),
            Shown("cross_entropy", "nats per token"),
            Shown("text", form="s"),
        ]
        title = "Activation against fluency: the Pareto front"
        blocks.append(table(source.table("front"), shown, title=title, source="front.parquet"))
    return blocks


def _trajectories(source: Source) -> Block:
    from actmax.report import figures

    rows = source.table("trajectory")
    alt = "Line chart: the activation of every restart by step."
    caption = "Activation of every restart by step, and their mean. Step 0 is the start."
    if len(rows.drop_duplicates(["site", "layer", "index", "seed"])) > figures.CURVES:
        caption += f" Not more than {figures.CURVES} restarts are drawn."
    return source.figure("trajectory", lambda: figures.trajectories(rows), alt=alt, caption=caption)


def _gap(source: Source) -> Block:
    from actmax.report import figures

    gaps = source.table("gaps")
    varied = pd.DataFrame(gaps[gaps["random_activation_sd"] > 0])  # else there is no unit to count in
    if not len(varied):
        return Missing("The decode gap", "Random tokens all give the same activation, so there is no unit to count in.")
    caption = "Each restart on its way to text, in standard deviations of random token sequences."
    alt = "Line chart: each restart's activation as initial noise, optimum, snapped tokens and text tokenised again."
    return source.figure("decode_gap", lambda: figures.decode_gap(varied), alt=alt, caption=caption)


def _gap_table(source: Source) -> Block:
    gaps = source.table("gaps")
    several = len(gaps.drop_duplicates(["site", "layer", "index"])) > 1
    gaps = gaps.assign(unit=[address(row) for row in gaps.to_dict("records")])
    shown = [*([Shown("unit", form="s")] if several else []), Shown("seed", form="d")]
    stages = {"initial": "start", "final": "optimum", "snapped": "snapped", "retokenised": "tokenised again"}
    shown += [Shown(f"activation_{stage}", words) for stage, words in stages.items()]
    shown += [Shown("cross_entropy", "nats per token"), Shown("text", "decoded text", form=visible)]
    caption = "nats per token: the model's cross-entropy of the decoded text. Spaces are shown as dots."
    return _texts(table(gaps, shown, title="Restarts on their way to text", source="gaps.parquet", caption=caption))


def _texts(made: Table) -> Table:
    """With the last column to the left: it is text, though it has a format."""
    heads = (*made.columns[:-1], Column(made.columns[-1].name, numeric=False))
    rows = tuple((*row[:-1], Cell(row[-1].text, wide=True)) for row in made.rows)
    return Table(made.title, heads, rows, made.caption, made.cut)


def _token_tables(source: Source) -> list[Block]:
    tokens = source.table("tokens")
    if not len(tokens):
        return [Missing("Decoded tokens", "tokens.parquet is damaged: it has no rows.")]
    units = [pd.DataFrame(rows) for _, rows in tokens.groupby(["site", "layer", "index"], sort=False, dropna=False)]
    blocks: list[Block] = [_token_table(rows) for rows in units[:UNITS_SHOWN]]
    if len(units) > UNITS_SHOWN:
        blocks.append(Prose(f"The first {UNITS_SHOWN} of {len(units)} units; tokens.parquet has them all."))
    return blocks


def _token_table(tokens: pd.DataFrame) -> Table:
    """Seeds by positions: each decoded token over that of its initial noise."""
    repeats = tokens["token_id"].duplicated(keep=False)
    cosine = tokens["cosine"].to_numpy(float)
    low, high = float(cosine.min()), float(cosine.max())
    positions = sorted(tokens["position"].unique())
    heads = (
        Column("seed"),
        *(Column(f"position {position}", numeric=False) for position in positions),
        Column("activation"),
    )
    rows = []
    for seed, some in list(tokens.assign(repeat=repeats).groupby("seed", sort=True))[: 1000 // UNITS_SHOWN]:
        first = some.iloc[0]
        cells = [_token(row, low, high) for row in some.sort_values("position").to_dict("records")]
        end = Cell(f"{first['activation_final']:.4g}", float(first["activation_final"]))
        rows.append((Cell(str(seed), float(str(seed))), *cells, end))
    total = len(set(tokens["seed"]))
    cut = f"The first {len(rows)} of {total} restarts; tokens.parquet has them all." if total > len(rows) else ""
    caption = (
        "Large: the token nearest to the optimum, shaded by its cosine. Small: that cosine, and the token of the "
        "initial noise. = is still the token of its initial noise; * occurs more than once. Spaces are shown as dots."
    )
    return Table(f"{address(tokens.iloc[0])}: seed by position", heads, tuple(rows), caption, cut)


def _token(row: dict[Any, Any], low: float, high: float) -> Cell:
    marks = ("=" if row["token_id"] == row["init_token_id"] else "") + ("*" if row["repeat"] else "")
    shade = (row["cosine"] - low) / (high - low) if high > low + SAME else None
    note = f"{row['cosine']:.3f} · {visible(str(row['init_token']))}"
    return Cell(visible(str(row["token"])), None, note, marks, shade)


def _nulls(source: Source) -> Block:
    from actmax.report import figures

    units = source.table("units")
    caption = "Each measure (dot) beside the 95 % interval of its null (bar) and the null's mean (tick)."
    if len(units) > figures.UNITS:
        caption += f" The first {figures.UNITS} of {len(units)} units."
    alt = "Dot chart: each unit's headline measures beside the intervals of their nulls."
    return source.figure("nulls", lambda: figures.against_nulls(units), alt=alt, caption=caption)


def histogram(source: Source, units: pd.DataFrame) -> Block | None:
    """How far the restarts of many units agree above their nulls; None where there are few."""
    from actmax.report import figures

    if len(units) < MANY or not bool(units["convergence_p_tokens"].notna().any()):
        return None
    caption = "Agreement of restarts above its null, a histogram over units; those above chance (Holm, 5 %) in colour."
    alt = "Two histograms over units: agreement above its null in tokens and in embeddings."
    return source.figure("units", lambda: figures.units(units), alt=alt, caption=caption)


def _measures(source: Source) -> Block:
    units = source.table("units")
    return unit_table(units, "units.parquet") if len(units) > 1 else _one_unit(units.iloc[0].to_dict())


def _one_unit(row: dict[Any, Any]) -> Table:
    heads = (
        Column("measure", numeric=False),
        Column("value"),
        Column("interval"),
        Column("null"),
        Column("null's interval"),
        Column("p"),
    )
    rows = []
    for name, (words, form) in MEASURES.items():
        ends = [
            interval(row[f"{stem}_low"], row[f"{stem}_high"], form).removeprefix("95 %: ")
            for stem in (name, f"null_{name}")
        ]
        mean, p = row[f"null_{name}_mean"], row[f"null_{name}_p"]
        cells = [
            Cell(words, wide=True),
            _float(row[name], form),
            Cell(ends[0]),
            _float(mean, form),
            Cell(ends[1]),
            _float(p, ".2g"),
        ]
        rows.append(tuple(cells))
    caption = (
        "Intervals are 95 %: jackknife over restarts. p: whether restarts agree more than under the null, one-sided."
    )
    return Table("Agreement of restarts", heads, tuple(rows), caption)


def _float(value: Any, form: str) -> Cell:
    return Cell("–") if is_missing(value) else Cell(f"{value:{form}}", float(value))


def unit_table(units: pd.DataFrame, file: str) -> Table:
    """A row per unit with its headline numbers and their nulls."""
    named = units.assign(unit=[address(row) for row in units.to_dict("records")])
    shown = [
        Shown("unit", form="s"),
        *([Shown("prior", form="s")] if "prior" in units and len(set(units["prior"])) > 1 else []),
        Shown("restarts", form=".0f"),
        Shown("convergence", "verdict", form="s"),
        Shown("activation_final_mean", "activation"),
        Shown("activation_snapped_mean", "snapped", ".3g"),
        Shown("random_activation_mean", "random tokens", ".3g"),
        Shown("jaccard", "shared", ".2%", shade=True),
        Shown("null_jaccard_mean", "null", ".2%"),
        Shown("displacement_cosine_assigned", "moves", ".3f", shade=True),
        Shown("null_displacement_cosine_assigned_mean", "null", ".3f"),
        Shown("unique_share", "unique", ".0%"),
        Shown("null_unique_share_mean", "null", ".0%"),
        Shown("init_retention", "kept", ".0%"),
        Shown("null_retention_mean", "null", ".0%"),
    ]
    caption = "shared: tokens of two restarts (Jaccard); moves: cosine of moves, positions matched; kept: positions "
    caption += "that still decode to the token of their start. Each is followed by the mean of its null."
    return table(named, shown, title=f"{len(units)} units", source=file, caption=caption)


def _rarefaction(source: Source) -> Block:
    from actmax.report import figures

    rows = source.table("rarefaction")
    caption = "How many different tokens so many restarts give on average, found and under the null"
    caption += "." if len(rows.drop_duplicates(["site", "layer", "index"])) == 1 else "; means over units."
    alt = "Line chart: different tokens against the number of restarts, beside the same under the null."
    return source.figure("rarefaction", lambda: figures.rarefaction(rows), alt=alt, caption=caption)


def _neighbours(source: Source) -> Sequence[Block] | None:
    said = source.summary.get("comparison")
    statements: list[Block] = []
    if isinstance(said, dict):
        statements = [Prose(str(text), str(unit)) for unit, text in list(said.items())[:UNITS_SHOWN]]
    elif said is not None:
        return [Missing("The comparison with neighbours", f"It was {said}.")]
    if not source.has("comparison"):
        return statements or None
    rows = source.table("comparison")
    first = rows.drop_duplicates(["site", "layer", "index"]).iloc[0]
    own = rows[(rows["site"] == first["site"]) & (rows["index"] == first["index"])]
    own = pd.DataFrame(own if is_missing(first["layer"]) else own[own["layer"] == first["layer"]])
    return [*statements, _neighbour_figure(source, own), _neighbour_table(own)]


def _neighbour_figure(source: Source, rows: pd.DataFrame) -> Block:
    from actmax.report import figures

    target = address(rows.iloc[0])
    caption = f"How far each coordinate of the site moved from the start to the optimum; the target is {target}."
    alt = "Scatter plot: change of activation of every coordinate of the site."
    return source.figure("neighbours", lambda: figures.neighbours(rows), alt=alt, caption=caption)


def _neighbour_table(rows: pd.DataFrame) -> Table:
    order = np.argsort(-rows["paired_difference"].abs().to_numpy(float), kind="stable")  # NaN goes last
    largest = rows.iloc[order]
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
    return table(largest, shown, title=title, source="comparison.parquet", rows=NEIGHBOURS_SHOWN)


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
    ]
    shown += [Shown("initial_mean", "at the start"), Shown("final_mean", "at the end")]
    return table(frame, shown, title="Loss terms, means over restarts", source="summary.json")


def _rounding(source: Source) -> Block | None:
    found = source.summary.get("rounding")
    return Prose(str(found["statement"]), "Rounding") if isinstance(found, dict) else None


def examples_page(source: Source) -> Page:
    """Of a job that looked through text."""
    name = source.part("subject").get("name", "the subject")
    asked = f"Where in real text is {unit_of(source.part('unit'))} of {name} highest?"
    try:
        numbers = _example_numbers(source.table("quantiles").iloc[0].to_dict(), source.summary)
    except Exception as error:  # the sections say what is wrong
        source.problems.append(f"quantiles.parquet cannot be read ({type(error).__name__}).")
        numbers = ()
    sections = [
        source.section("Where it is highest", lambda: _contexts(source)),
        source.section("Beside all positions", lambda: _quantiles(source)),
    ]
    return Page("", asked, str(source.summary.get("verdict", "")), numbers, present(sections))


def _example_numbers(row: dict[Any, Any], summary: dict[str, Any]) -> tuple[Number, ...]:
    usual = f"median {row['q0.5']:.3g}; 99.9 % of positions are below {row['q0.999']:.4g}"
    numbers = [
        Number(f"Highest activation in text, {address(row)}", f"{row['q1']:.4g}", usual),
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
    )
    heads = (*heads, Column("after", numeric=False), Column("file and position", numeric=False))
    rows = tuple(_context(row) for row in contexts.head(1000).to_dict("records"))
    cut = f"The first 1,000 of {len(contexts):,} rows; contexts.parquet has them all." if len(contexts) > 1000 else ""
    return Table(
        "The highest contexts", heads, rows, "The activation is that of the token. Spaces are dots in it.", cut
    )


def _context(row: dict[Any, Any]) -> tuple[Cell, ...]:
    place = f"{str(row['file']).rsplit('/', 1)[-1]} {row['position']:,}"
    before, after = (Cell(str(row[name]), wide=True) for name in ("before", "after"))
    value = Cell(f"{row['activation']:.4g}", float(row["activation"]))
    return Cell(address(row)), value, before, Cell(visible(str(row["token"])), shade=0.6), after, Cell(place)


def _quantiles(source: Source) -> Block:
    rows = source.table("quantiles")
    named = rows.assign(unit=[address(row) for row in rows.to_dict("records")])
    shares = [name for name in rows.columns if name.startswith("q")]
    shown = [Shown("unit", form="s"), Shown("mean", form=".3g"), Shown("sd", form=".3g")]
    shown += [Shown(name, f"{100 * float(name[1:]):g} %", ".4g") for name in shares]
    shown += [Shown("optimized_mean", "optimized"), Shown("snapped_mean", "snapped")]
    caption = (
        "Quantiles of the activation over all positions; optimized and snapped: from the record of a maximization."
    )
    return table(named, shown, title="Activation over all positions", source="quantiles.parquet", caption=caption)
