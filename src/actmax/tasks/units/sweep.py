"""What is shown of the units of all jobs of a sweep: by layer, by prior, by method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from actmax.evidence.findings import is_missing
from actmax.evidence.readings import VERDICTS
from actmax.report.blocks import Block, Missing, Number, Page, Prose, Row, Shown, Table, number, table
from actmax.report.source import Headline, Source, present
from actmax.report.words import label, overall_statement, priors_answer, units_answer
from actmax.tasks.units.page import headline, histogram, rise, unit_table

if TYPE_CHECKING:
    from actmax.tasks.task import Gathered

MAPS = 6
"""Most heat maps of layers: one per condition and site."""
ROWS_SHOWN = 60
"""Most rows of a table on a terminal, and of a figure of verdicts."""
MOVES = "direction"
"""The measure of agreement in embedding space."""
MEANS = "Means over units; in brackets the null's mean."
SHARED = "tokens that two restarts have in common"
MOVED = "cosine of two restarts' moves, all pairs of positions (other units)"


def units_page(source: Source, found: Gathered) -> Page:
    """What is shown of the units of all jobs; the verdict is empty where there are none.

    Args:
        source: the sweep's folder.
        found: what the units of its jobs say together.
    """
    verdict, numbers = _answer(found)
    priors = source.blocks("Priors side by side", lambda: _prior_table(found))
    methods = source.blocks("Methods side by side", lambda: _method_table(found))
    layers = source.blocks("Layers", lambda: _layer_table(found))
    notes = tuple(Missing("Put together", note) for note in found.notes)
    compared = source.figures("Priors side by side", lambda: _prior_figure(source, found))
    maps = source.figures("Layers", lambda: _layer_maps(source, found))
    sections = [
        source.section("Units", lambda: notes, lambda: _units(source, found)),
        source.section("Priors", lambda: compared, lambda: priors),
        source.section("What each method finds in tokens", lambda: methods),
        source.section("Layers", lambda: maps, lambda: _verdict_figure(source, found), lambda: layers),
    ]
    main = priors or layers
    first = (*main, *methods, *_verdicts(found), *notes, *(compared or maps[:1]))
    return Page("", verdict, numbers, first, present(sections))


def _units(source: Source, found: Gathered) -> list[Block]:
    if not len(found.table("units")):
        return [Missing("The table of units", "No complete job has units that could be put side by side.")]
    drawn = histogram(source, found.table("units"))
    return [*([] if drawn is None else [drawn]), unit_table(found.table("units"), "units.parquet")]


def _answer(found: Gathered) -> Headline:
    if len(found.table("ladder")):
        return _priors_side_by_side(found.table("ladder"))
    if not len(found.table("units")):
        return "", ()
    several = len(set(found.table("units")["condition"]))
    over = f" Over {several} conditions together; the tables keep them apart." if several > 1 else ""
    return units_answer(found.table("units")) + over, headline(found.table("units"))[:2]


def _priors_side_by_side(priors: pd.DataFrame) -> Headline:
    """The prior with most activation left in tokens, and the one whose restarts agree most."""
    best, alike = (
        priors.sort_values(name, ascending=False, na_position="last").iloc[0]
        for name in ("z_snapped", "shared_tokens_above")
    )
    error = "" if is_missing(best["z_snapped_se"]) else f"± {best['z_snapped_se']:.2f} over {best['units']} units; "
    tokens = Number(
        f"Activation in tokens, {best['prior']} ({best['site']})",
        f"z = {number(best['z_snapped'], '.2f')}",
        f"{error}random tokens: 0 ± 1",
    )
    shared = Number(
        f"Tokens that two restarts share, {alike['prior']} ({alike['site']})",
        number(alike["shared_tokens"], ".1%"),
        f"its null: {number(alike['null_shared_tokens_mean'], '.1%')}",
    )
    return priors_answer(priors), (tokens, shared)


def _verdicts(found: Gathered) -> list[Block]:
    """How many units have which verdict, by condition."""
    rows = found.summary["overall"]
    several = len(rows) > 1
    contexts = len({row["context"] for row in rows}) > 1
    names = [f"{row['prior']}" + f", context {row['context']}" * contexts for row in rows]
    titles = [
        f"Verdict, prior {name} ({row['condition'][:8]})" if several else "Verdict"
        for name, row in zip(names, rows, strict=True)
    ]
    return [Prose(overall_statement(row), title) for title, row in zip(titles, rows, strict=True)]


def _prior_table(found: Gathered) -> Block | None:
    """A row per site and prior: what it bought, and what it cost."""
    if not len(found.table("ladder")):
        return None
    shown = [
        *_contexts(found.table("ladder")),
        Shown("site", form="s"),
        Shown("prior", form="s", marks=lambda row: "*" if row["pareto_tokens"] else ""),
        Shown("seconds", form=".0f"),
        Shown("units", form="d", extra=True),
        Shown("z_final", "z optimum", ".3g", about="activation in standard deviations of random tokens"),
        Shown(
            "z_snapped",
            "z snapped",
            ".2f",
            note=_standard_error,
            shade=True,
            about="the same once snapped to tokens (± standard error over units)",
        ),
        Shown(
            "cross_entropy_mean",
            "nats",
            ".1f",
            beside="cross_entropy_initial_mean",
            about="cross-entropy per snapped token (of what the initial noise decodes to)",
        ),
        Shown("shared_tokens", "shared", ".1%", beside="null_shared_tokens_mean", shade=True, about=SHARED),
        Shown(MOVES, "direction", ".4f", beside=f"null_{MOVES}_mean", shade=True, about=MOVED),
    ]
    caption = f"{MEANS} * on the Pareto front of z snapped and shared tokens."
    title = "Priors side by side"
    return table(found.table("ladder"), shown, title=title, source="ladder.parquet", caption=caption, brief=ROWS_SHOWN)


def _contexts(rows: pd.DataFrame) -> list[Shown]:
    """The column of the context, where there are several."""
    return [Shown("context", form="s")] if len(set(rows["context"])) > 1 else []


def _standard_error(row: Row) -> str:
    return "" if is_missing(row["z_snapped_se"]) else f"±{row['z_snapped_se']:.2f}"


def _prior_figure(source: Source, found: Gathered) -> Block | None:
    from actmax.report import figures

    if not len(found.table("ladder")):
        return None
    caption = "Agreement of restarts above its null against the activation once snapped to tokens, a point per prior."
    alt = "Scatter plots: agreement above null against activation once snapped, a point per prior."
    return source.figure("pareto", lambda: figures.prior_comparison(found.table("ladder")), alt=alt, caption=caption)


def _method_table(found: Gathered) -> Block | None:
    """A row per site and method: what it finds in tokens."""
    if not len(found.table("methods")):
        return None
    shown = [
        *_contexts(found.table("methods")),
        Shown("site", form="s"),
        Shown("method", form="s"),
        Shown("forward_passes", "passes", ".0f", about="forward passes of a restart, a backward pass counted as one"),
        Shown("whole_passes", "whole model", ".0f", extra=True, about="passes through all blocks"),
        Shown("activation_mean", "mean", about="activation over restarts"),
        Shown("activation_max", "best"),
        Shown("random_activation_mean", "random", about="activation of random tokens"),
        Shown("z", "z", ".2f", shade=True, about="the mean, in standard deviations of one random sequence"),
        Shown("z_max", "best z", ".2f", shade=True),
        Shown(
            "cross_entropy",
            "nats",
            ".1f",
            beside="null_cross_entropy_mean",
            about="cross-entropy per token (of random tokens)",
        ),
        Shown("shared_tokens", "shared", ".1%", beside="null_shared_tokens_mean", about=SHARED),
        Shown("seconds", form=".0f", extra=True),
    ]
    caption = f"{MEANS} The method snapped is the optimum of a free embedding, decoded."
    title = "What each method finds in tokens"
    return table(
        found.table("methods"), shown, title=title, source="methods.parquet", caption=caption, brief=ROWS_SHOWN
    )


def _layer_maps(source: Source, found: Gathered) -> list[Block]:
    """A heat map of measures by layer for each condition and site that has several layers."""
    from actmax.report import figures

    if not len(found.table("layers")):
        return []
    groups = found.table("layers").groupby(["condition", "site"])
    several: list[Any] = [(key, pd.DataFrame(rows)) for key, rows in groups if len(rows) > 1]
    one_condition = len(set(found.table("layers")["condition"])) == 1
    blocks: list[Block] = []
    for place, ((condition, site), rows) in enumerate(several[:MAPS]):
        name = f"layers_{place + 1}" if place else "layers"
        named = str(site) if one_condition else f"{str(condition)[:12]} · {site}"
        caption = (
            f"{named}: every measure from its lowest (dark) to its highest (light) layer, grey where all have "
            "the same; means over units."
        )
        alt = "Heat map: measures by layer."
        blocks.append(source.figure(name, lambda rows=rows: figures.layer_map(rows), alt=alt, caption=caption))
    if len(several) > MAPS:
        blocks.append(Prose(f"The first {MAPS} of {len(several)} conditions and sites; layers.parquet has them all."))
    return blocks


def _verdict_figure(source: Source, found: Gathered) -> Block | None:
    from actmax.report import figures

    layers = found.table("layers")
    if not len(layers) or not layers[list(VERDICTS)].to_numpy().sum():
        return None
    some, words = layers.head(ROWS_SHOWN), {verdict.value: label(verdict) for verdict in VERDICTS}
    caption = "Share of the units with each verdict."
    if len(layers) > ROWS_SHOWN:
        caption += f" The first {ROWS_SHOWN} of {len(layers)} rows."
    alt = "Stacked bars: share of verdicts by site and layer."
    return source.figure("verdicts", lambda: figures.verdict_shares(some, words), alt=alt, caption=caption)


def _layer_table(found: Gathered) -> Table | None:
    """A row per condition, site and layer: means over units, each beside its null's."""
    if not len(found.table("layers")):
        return None
    one_condition = len(set(found.table("layers")["condition"])) == 1
    shown = [
        *_contexts(found.table("layers")),
        Shown("prior", form="s", extra=True),
        Shown("condition", form=lambda name: str(name)[:8], words=True, extra=one_condition),
        Shown("site", form="s"),
        Shown("layer", form="d"),
        Shown("units", form="d"),
        Shown("restarts", form=".0f"),
        Shown("activation_final_mean", "activation", text=rise),
        Shown("z_final", "z optimum", ".3g", extra=True, about="activation in standard deviations of random tokens"),
        Shown("z_snapped", "z snapped", ".2f", shade=True, extra=True, about="the same once snapped to tokens"),
        Shown("unique_share", "unique", ".0%", beside="null_unique_share", about="different tokens"),
        Shown(
            "init_retention",
            "kept",
            ".0%",
            beside="null_retention_mean",
            shade=True,
            about="positions that decode as their initial noise",
        ),
        Shown("shared_tokens", "shared", ".2%", beside="null_shared_tokens_mean", shade=True, about=SHARED),
        Shown(MOVES, "direction", ".4f", beside=f"null_{MOVES}_mean", shade=True, about=MOVED),
    ]
    title = "Means over units, by layer"
    return table(found.table("layers"), shown, title=title, source="layers.parquet", caption=MEANS, brief=ROWS_SHOWN)
