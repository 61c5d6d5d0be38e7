"""Figures from a record's tables, in one style: matplotlib, a colour-blind safe palette, PNG and SVG."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from actmax.model.target import addresses, names_in, place_name, place_of_row
from actmax.records.store import Record

# Okabe & Ito (2008), without its yellow, which is too light on white
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=COLOURS),
    "legend.frameon": False,
    "svg.hashsalt": "actmax",  # the same figure, the same file
    "svg.fonttype": "none",  # text stays text, to be edited for a paper
    "savefig.dpi": 200,
}
PLAIN = {"Creator": None, "Date": None, "Format": None, "Type": None}
"""Metadata of an SVG file: no date and no address of matplotlib."""
POINTS = 2_000
"""Number of points above which a scatter plot is drawn as pixels, also in SVG."""
STEPS = 200
"""Most points of a curve."""
CURVES = 60
"""Most curves in one figure."""
WIDE, NARROW = 6.9, 3.3
"""Widths of figures over two columns and over one, in inches."""
STAGES = {
    "activation_initial": "initial\nnoise",
    "activation_final": "optimum",
    "activation_snapped": "snapped to\ntokens",
    "activation_retokenised": "tokenised\nagain",
}
"""Columns of `gaps.parquet` in the order of an optimum's way to text, with their names in the figure."""


def image(draw: Callable[[], Figure], kind: str) -> bytes:
    """A figure as the bytes of an image file.

    Args:
        draw: makes the figure.
        kind: `png` or `svg`.
    """
    with mpl.rc_context(STYLE):
        return _encoded(draw(), kind)


def save(record: Record, name: str, draw: Callable[[], Figure]) -> list[Path]:
    """Writes `figures/NAME.png` and `.svg` of a record."""
    with mpl.rc_context(STYLE):
        figure = draw()
        images = {kind: _encoded(figure, kind) for kind in ("png", "svg")}
    return [
        record.write(f"figures/{name}.{kind}", lambda path, content=content: path.write_bytes(content))
        for kind, content in images.items()
    ]


def _encoded(figure: Figure, kind: str) -> bytes:
    stream = BytesIO()
    figure.savefig(stream, format=kind, bbox_inches="tight", metadata=PLAIN if kind == "svg" else None)
    return stream.getvalue()


def decode_gap(gaps: pd.DataFrame) -> Figure:
    """Each restart's activation on its way to text, in standard deviations of random token sequences.

    Curves of restarts are to be read against the band of single sequences, their mean against the band of means.

    Args:
        gaps: `gaps.parquet`, of units that differ from one random sequence to the next.
    """
    figure = Figure(figsize=(NARROW, 2.6), layout="constrained")
    axes = figure.add_subplot()
    base, deviation = (gaps[f"random_activation_{part}"].to_numpy(float) for part in ("mean", "sd"))
    z = {name: (gaps[name].to_numpy(float) - base) / deviation for name in STAGES}
    of_mean = 1.96 / np.sqrt(len(gaps))
    axes.axhspan(-1.96, 1.96, color="0.9", lw=0, label="95 % of random sequences")
    axes.axhspan(-of_mean, of_mean, color="0.75", lw=0, label=f"95 % of means of {len(gaps)}")
    values = np.stack(list(z.values()), axis=1)
    axes.plot(range(len(STAGES)), values.T, color=COLOURS[0], lw=0.6, alpha=0.35)
    axes.plot(range(len(STAGES)), np.nanmean(values, axis=0), color=COLOURS[1], lw=1.5, marker="o", ms=4, label="mean")
    axes.set_yscale("symlog", linthresh=3)
    axes.margins(y=0.15)
    axes.set_xticks(range(len(STAGES)), list(STAGES.values()))
    axes.set_ylabel("activation, z against random tokens")
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def agreement_histograms(units: pd.DataFrame) -> Figure:
    """Histograms over units: the agreement of their restarts above its null, those with a claim in colour.

    Args:
        units: `units.parquet`; what was tested of none of them is left out.
    """
    spaces = {"shared_tokens": "tokens in common", "direction": "cosine of moves"}
    tested = [name for name in spaces if np.isfinite(units[f"null_{name}_p"].to_numpy(float)).any()]
    figure = Figure(figsize=(WIDE, 2.6), layout="constrained")
    for place, name in enumerate(tested, start=1):
        words, axes = spaces[name], figure.add_subplot(1, len(tested), place)
        some = units.loc[units[f"null_{name}_p"].notna()]
        gain = (some[name] - some[f"null_{name}_mean"]).to_numpy(float)
        alpha = some[f"null_{name}_alpha"].to_numpy(float)
        above = some[f"null_{name}_p"].to_numpy(float) <= alpha
        axes.hist([gain[~above], gain[above]], bins=40, stacked=True, color=["0.7", COLOURS[0]])
        axes.axvline(0, color="0.3", lw=0.8)
        axes.set_xlabel(f"{words} above its null")
        axes.locator_params(axis="x", nbins=4)
        axes.set_title(f"{int(above.sum())} of {len(above)} units above chance (chance: up to {alpha.sum():.1f})")
        axes.set_ylabel("units")
    return figure


def prior_comparison(priors: pd.DataFrame) -> Figure:
    """For each prior, the agreement of restarts above its null against the activation once snapped to tokens.

    Args:
        priors: `ladder.parquet`.
    """
    figure = Figure(figsize=(WIDE, 3.0), layout="constrained")
    spaces = {"shared_tokens": "tokens in common", "direction": "cosine of moves"}
    for place, (name, words) in enumerate(spaces.items(), start=1):
        axes = figure.add_subplot(1, 2, place)
        for colour, (site, rows) in zip(COLOURS, priors.groupby("site", sort=False), strict=False):
            _prior_points(axes, pd.DataFrame(rows), name, str(site), colour)
        axes.axhline(0, color="0.6", lw=0.8, zorder=0)
        axes.axvline(0, color="0.6", lw=0.8, zorder=0)
        axes.set_xlabel("activation once snapped, z against random tokens")
        axes.set_ylabel(f"{words} above its null")
        axes.legend(loc="best")
    return figure


def _prior_points(axes: Axes, rows: pd.DataFrame, name: str, site: str, colour: str) -> None:
    x, y, dx, dy = (
        rows[column].to_numpy() for column in ("z_snapped", f"{name}_above", "z_snapped_se", f"{name}_above_se")
    )
    axes.errorbar(x, y, xerr=dx, yerr=dy, fmt="o", ms=4, lw=0.8, color=colour, label=f"{site} (± se over units)")
    for prior, a, b in zip(rows["prior"], x, y, strict=True):
        axes.annotate(str(prior), (a, b), xytext=(4, 3), textcoords="offset points", fontsize=6, color=colour)


def trajectories(activations: pd.DataFrame) -> Figure:
    """The activation of every restart by step, and the mean over restarts.

    Args:
        activations: `trajectory.parquet` of one job.
    """
    figure = Figure(figsize=(WIDE, 2.6), layout="constrained")
    axes = figure.add_subplot()
    groups = [
        pd.DataFrame(rows)
        for _, rows in activations.groupby([*names_in(activations), "seed"], sort=False, dropna=False)
    ]
    chosen = groups[:: -(-len(groups) // CURVES)]
    for number, rows in enumerate(chosen):
        some = rows.iloc[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), STEPS)).astype(int))]
        axes.plot(
            some["step"], some["activation"], color=COLOURS[0], lw=0.8, alpha=0.5, label="" if number else "a restart"
        )
    steps = pd.DataFrame(activations.groupby("step", sort=True)[["activation"]].mean())
    axes.plot(steps.index, steps["activation"], color=COLOURS[1], lw=1.6, label="mean")
    axes.set_xlabel("step")
    axes.set_ylabel("activation of the target")
    axes.legend(loc="best")
    return figure


MEASURES = {
    "tokens_unique": "different tokens",
    "init_retention": "kept from the start\n(share of positions)",
    "cosine_mean": "cosine to the\nnearest token",
    "shared_tokens": "tokens in common\n(two restarts)",
    "direction": "cosine of moves\n(null: other units)",
}
"""Headline measures of a unit by their column in `units.parquet`, with their names in the figure."""
NULLS = {"tokens_unique": "unique", "init_retention": "retention", "cosine_mean": "cosine"}
"""Names of the nulls that are called otherwise than their measure."""
UNITS = 40
"""Most units in one figure."""


def against_nulls(units: pd.DataFrame) -> Figure:
    """Each headline measure of each unit beside the interval of its null, at the level of a claim; axes begin at 0.

    Args:
        units: `units.parquet`; the first 40 are drawn.
    """
    some = units.head(UNITS)
    figure = Figure(figsize=(WIDE, 1.5 + 0.16 * len(some)), layout="constrained")
    panels = figure.subplots(1, len(MEASURES), sharey=True)
    places = np.arange(len(some))
    for axes, (name, words) in zip(panels, MEASURES.items(), strict=True):
        null = f"null_{NULLS.get(name, name)}"
        low, high, mean = (some[f"{null}_{part}"].to_numpy(float) for part in ("low", "high", "mean"))
        found = some[name].to_numpy(float)
        one_sided = np.isnan(low) & ~np.isnan(high)  # a test for more has no lower limit: the bar goes on to the left
        low = np.where(one_sided, np.fmin(0, np.fmin(mean, found)), low)
        axes.barh(places, high - low, left=low, height=0.5, color="0.8", label="null")
        axes.plot(mean, places, "|", color="0.35", ms=7, label="its mean")
        axes.plot(found, places, "o", color=COLOURS[1], ms=4, label="found")
        axes.set_xlabel(words)
        axes.margins(x=0.15)
        if np.isfinite(found).any():  # a scale that is cut would show any distance as large
            left, right = axes.get_xlim()
            left = min(0.0, left) if np.nanmin(found) < 0 else 0.0
            axes.set_xlim(left, right + 0.05 * (right - left))
        axes.locator_params(axis="x", nbins=2)
    panels[0].set_yticks(places, addresses(some))
    panels[0].set_ylim(len(some) - 0.4, -0.6)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def meaning_map(texts: pd.DataFrame) -> Figure:
    """The restarts of a unit in a plane of the space of meaning, beside other units' restarts and texts by chance.

    Args:
        texts: `meaning.parquet`, rows of one unit.
    """
    figure = Figure(figsize=(NARROW, 2.6), layout="constrained")
    axes = figure.add_subplot()
    drawn = (("chance", "0.75", ".", "by chance"), ("other", COLOURS[0], "^", "other units"))
    for kind, colour, mark, words in (*drawn, ("own", COLOURS[1], "o", "the unit")):
        rows = texts[texts["kind"] == kind]
        if len(rows):
            axes.plot(rows["near"], rows["axis"], mark, color=colour, ms=4, mew=0, label=words)
    axes.set_xlabel("cosine to what the unit's (other) restarts share")
    axes.set_ylabel("first axis of texts by chance")
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def rarefaction(curves: pd.DataFrame) -> Figure:
    """Expected unique tokens against the number of restarts, beside the same under the null; means over units.

    Args:
        curves: `rarefaction.parquet`.
    """
    figure = Figure(figsize=(NARROW, 2.6), layout="constrained")
    axes = figure.add_subplot()
    columns = ["unique", "null_mean", "null_low", "null_high"]
    means = pd.DataFrame(curves.groupby("restarts", sort=True)[columns].mean())
    axes.fill_between(means.index, means["null_low"], means["null_high"], color="0.85", lw=0, label="null, 95 %")
    axes.plot(means.index, means["null_mean"], color="0.35", lw=1, ls="--", label="null, mean")
    axes.plot(means.index, means["unique"], color=COLOURS[1], marker="o", ms=3, lw=1.2, label="found")
    axes.set_xlabel("restarts")
    axes.set_ylabel("different tokens")
    axes.legend(loc="upper left")
    return figure


def neighbours(changes: pd.DataFrame, *, alpha: float = 0.05) -> Figure:
    """How far every coordinate of a site moved from the initial noise to the optimum.

    Args:
        changes: `comparison.parquet` of a maximization, rows of one unit.
        alpha: level of the paired t-test, corrected by Bonferroni, at which a coordinate counts as changed.
    """
    figure = Figure(figsize=(WIDE, 2.6), layout="constrained")
    axes = figure.add_subplot()
    target = changes["is_target"].to_numpy(bool)
    changed = ~target & (changes["paired_p_bonferroni"].to_numpy(float) <= alpha)
    x, y = changes["coordinate"].to_numpy(), changes["paired_difference"].to_numpy(float)
    for rows, colour, words in (
        (~target & ~changed, "0.6", "neighbour, change not established"),
        (changed, COLOURS[0], "changed (paired t, Bonferroni)"),
        (target, COLOURS[1], "target"),
    ):
        size = 30 if words == "target" else 7
        axes.scatter(x[rows], y[rows], s=size, color=colour, lw=0, label=words, rasterized=len(x) > POINTS)
    axes.axhline(0, color="0.6", lw=0.8, zorder=0)
    axes.set_yscale("symlog", linthresh=max(float(np.nanmedian(np.abs(y))), 1e-12))
    axes.margins(y=0.1)
    axes.set_xlabel("coordinate")
    axes.set_ylabel("change of activation\n(optimum − initial noise)")
    figure.legend(loc="outside upper center", ncols=3)
    return figure


TESTS = {
    "student": "Student's t",
    "welch": "Welch's t",
    "mannwhitney": "Mann-Whitney",
    "logit_wald": "logit, Wald",
    "logit_lr": "logit, likelihood ratio",
    "score": "logit, score",
    "firth_lr": "Firth, likelihood ratio",
}
"""The tests by their name in tables, with their names in the figure."""


def rejections(rates: pd.DataFrame, effects: pd.DataFrame) -> Figure:
    """Share of units that each test rejects by effect, and share without a usable maximum-likelihood estimate.

    Args:
        rates: `rates.parquet`.
        effects: `effects.parquet`.
    """
    figure = Figure(figsize=(WIDE, 3.3), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for colour, (name, rows) in zip(COLOURS * 2, rates.groupby("test", sort=False), strict=False):
        at, rate, error = (rows[column].to_numpy(float) for column in ("effect", "rate", "error"))
        dashed = "--" if str(name).startswith(("logit", "score")) else "-"
        left.errorbar(at, 100 * rate, yerr=100 * error, color=colour, lw=1, ls=dashed, label=TESTS.get(str(name), name))
    left.axhline(5, color="0.6", lw=0.8, ls=":", zorder=0)
    left.set_ylabel("percent of units")
    left.set_title("rejected at α = 0.05 (± Monte Carlo error)")
    for colour, name, words in zip(
        COLOURS, ("separation_rate", "explosion_rate"), ("separated", "β exploded"), strict=False
    ):
        right.plot(effects["effect"], 100 * effects[name], color=colour, marker="o", ms=3, label=words)
    right.set_title("without a usable β")
    for axes in (left, right):
        axes.set_xlabel("effect (standard deviations)")
    right.legend(loc="best")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def beta_against_t(units: pd.DataFrame) -> Figure:
    """The standardised β of logistic regression against Student's t, with the curve of two normal groups.

    Args:
        units: a row per unit, as `compare` gives them.
    """
    figure = Figure(figsize=(NARROW, 3.0), layout="constrained")
    axes = figure.add_subplot()
    t, beta = units["student_t"].to_numpy(float), units["logit_coef_std"].to_numpy(float)
    known = np.isfinite(t) & np.isfinite(beta)
    axes.scatter(t[known], beta[known], s=5, lw=0, alpha=0.4, color=COLOURS[0], rasterized=known.sum() > POINTS)
    if known.any():
        span = np.linspace(t[known].min(), t[known].max(), 200)
        n_0, n_1 = (float(np.median(units[name].to_numpy(float))) for name in ("n_0", "n_1"))
        axes.plot(span, normal_beta(span, n_0, n_1), color=COLOURS[1], lw=1.2, label="theory, normal groups")
        axes.set_yscale("symlog", linthresh=max(3.0, 2 * float(np.median(np.abs(beta[known])))))
        axes.legend(loc="upper left")
    axes.set_xlabel("Student's t")
    axes.set_ylabel("logistic β per standard deviation")
    return figure


def normal_beta(t: Any, n_0: float, n_1: float) -> Any:
    """β per standard deviation of all samples of two normal groups with one variance, given their Student's t.

    Args:
        t: Student's t.
        n_0: size of group 0.
        n_1: size of group 1.
    """
    # Two normal groups with means Δ apart and one variance σ² have β = Δ/σ². With t = Δ / (σ √(1/n_0 + 1/n_1)) and
    # N = n_0 + n_1, the sum of squares of all samples is (N - 2) σ² + Δ² n_0 n_1 / N = σ² (N - 2 + t²), so their
    # standard deviation is s = σ √((N - 2 + t²) / (N - 1)), and β s = t √(1/n_0 + 1/n_1) √((N - 2 + t²) / (N - 1)).
    total = n_0 + n_1
    return t * np.sqrt(1 / n_0 + 1 / n_1) * np.sqrt((total - 2 + t**2) / (total - 1))


def p_against_p(units: pd.DataFrame, *, alpha: float = 0.05) -> Figure:
    """-log10 p of the likelihood-ratio test against that of the t-test, with counts of what is significant by which.

    Args:
        units: a row per unit, as `compare` gives them.
        alpha: level of both tests, at which the quadrants meet.
    """
    figure = Figure(figsize=(NARROW, 3.0), layout="constrained")
    axes = figure.add_subplot()
    x, y = (-units[f"{name}_p_log10"].to_numpy(float) for name in ("student", "logit_lr"))
    known = np.isfinite(x) & np.isfinite(y)
    axes.scatter(x[known], y[known], s=5, lw=0, alpha=0.4, color=COLOURS[0], rasterized=known.sum() > POINTS)
    edge = -np.log10(alpha)
    axes.axhline(edge, color="0.4", lw=0.8, ls=":")
    axes.axvline(edge, color="0.4", lw=0.8, ls=":", label=f"α = {alpha:g}")
    if known.any():
        axes.plot([0, x[known].max()], [0, x[known].max()], color=COLOURS[1], lw=1, label="equal p")
    one, other = x[known] >= edge, y[known] >= edge
    counts = f"both {(one & other).sum():,}\nt only {(one & ~other).sum():,}\nlogit only {(~one & other).sum():,}"
    axes.text(
        0.97, 0.12, f"{counts}\nneither {(~one & ~other).sum():,}", transform=axes.transAxes, ha="right", va="bottom"
    )
    axes.set_xlabel("−log₁₀ p, Student's t-test")
    axes.set_ylabel("−log₁₀ p, likelihood ratio")
    axes.legend(loc="upper left")
    return figure


def volcano(units: pd.DataFrame, *, chosen: str) -> Figure:
    """-log10 p of Welch's t-test against Cohen's d.

    Args:
        units: a row per unit, as `compare` gives them.
        chosen: the column of truth values that says which units are called different.
    """
    figure = Figure(figsize=(NARROW, 3.0), layout="constrained")
    axes = figure.add_subplot()
    d, p = units["cohens_d"].to_numpy(float), -units["welch_p_log10"].to_numpy(float)
    tuned = units[chosen].to_numpy(bool)
    for rows, colour, words in ((~tuned, "0.6", "not different"), (tuned, COLOURS[0], "different")):
        axes.scatter(d[rows], p[rows], s=5, lw=0, alpha=0.4, color=colour, label=words, rasterized=len(d) > POINTS)
    axes.set_xlabel("Cohen's d (group 1 − group 0)")
    axes.set_ylabel("−log₁₀ p, Welch's t-test")
    legend = axes.legend(loc="best", markerscale=2)
    for handle in legend.legend_handles:
        handle.set_alpha(1)  # pyright: ignore[reportOptionalMemberAccess]
    return figure


def tuned_shares(by_layer: pd.DataFrame, decoders: pd.DataFrame) -> Figure:
    """Share of the units that is tuned, and accuracy of a decoder over all units, by layer and site.

    Args:
        by_layer: `shares.parquet`, rows of scope `layer`.
        decoders: `decoders.parquet`, rows of scope `layer`.
    """
    figure = Figure(figsize=(WIDE, 2.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for colour, (site, rows) in zip(COLOURS, by_layer.groupby("site", sort=False), strict=False):
        at = rows["layer"].astype("Float64").fillna(0)
        left.plot(at, 100 * rows["share_tuned"], color=colour, marker="o", ms=3, label=str(site))
        left.plot(at, 100 * rows["null_share_layer_mean"], color=colour, lw=1, ls=":")
    for colour, (site, rows) in zip(COLOURS, decoders.groupby("site", sort=False), strict=False):
        at = rows["layer"].astype("Float64").fillna(0).to_numpy(float)
        right.plot(at, 100 * rows["accuracy"], color=colour, marker="o", ms=3, label=str(site))
        low, high = (100 * rows[f"accuracy_null_{end}"].to_numpy(float) for end in ("low", "high"))
        right.fill_between(at, low, high, color=colour, alpha=0.15, lw=0)
    left.set_ylabel("tuned units (percent)")
    left.set_title("dotted: shuffled labels")
    right.set_ylabel("held-out words right (percent)")
    right.set_title("band: 95 % of shuffled labels")
    for axes in (left, right):
        axes.set_xlabel("layer")
        axes.set_ylim(-3, 103)
    left.legend(loc="best")
    return figure


LAYERS = {
    "activation_final_mean": "activation at the optimum",
    "z_snapped": "z once snapped",
    "unique_share": "unique tokens",
    "init_retention": "kept from the start",
    "cosine_mean": "cosine to the nearest token",
    "shared_tokens": "tokens in common",
    "direction": "cosine of moves",
}
"""Measures by their column in `layers.parquet`, with their names in the figure."""
CELLS = 16
"""Most layers with numbers in their cells and a name each at the axis."""


def layer_map(layers: pd.DataFrame) -> Figure:
    """A heat map of measures by layer, each measure on its own scale; grey where all layers have one value, or none.

    Args:
        layers: `layers.parquet`, rows of one condition and site.
    """
    values = layers[list(LAYERS)].to_numpy(float).T
    known = np.isfinite(values)
    low = np.where(known, values, np.inf).min(axis=1, keepdims=True)
    high = np.where(known, values, -np.inf).max(axis=1, keepdims=True)
    scaled = (values - low) / np.where(high > low, high - low, np.nan)
    figure = Figure(figsize=(WIDE, 2.6), layout="constrained")
    axes = figure.add_subplot()
    colours = mpl.colormaps["cividis"].with_extremes(bad="0.85")
    image = axes.imshow(scaled, aspect="auto", cmap=colours, vmin=0, vmax=1, interpolation="nearest")
    axes.set_yticks(range(len(LAYERS)), list(LAYERS.values()))
    names = ["–" if pd.isna(layer) else str(layer) for layer in layers["layer"]]
    every = -(-len(names) // CELLS)
    axes.set_xticks(range(0, len(names), every), names[::every])
    axes.set_xlabel("layer")
    if len(names) <= CELLS:
        _print_values(axes, values, scaled)
    figure.colorbar(image, ax=axes, ticks=[0, 1], format=lambda end, _: "highest" if end else "lowest")
    return figure


def _print_values(axes: Axes, values: Any, scaled: Any) -> None:
    """Prints each value in its cell of the heat map."""
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            colour = "white" if scaled[row, column] < 0.5 else "black"
            axes.text(column, row, f"{value:.2g}", ha="center", va="center", fontsize=5.5, color=colour)


def verdict_shares(layers: pd.DataFrame, verdicts: Mapping[str, str]) -> Figure:
    """Shares of the verdicts over units, by site and layer.

    Args:
        layers: `layers.parquet`, with a count per verdict.
        verdicts: words for each column of counts, strongest first.
    """
    several = len(set(layers["prior"])) > 1
    rows = layers.to_dict("records")
    names = [(f"{row['prior']}, " if several else "") + place_name(*place_of_row(row)) for row in rows]
    figure = Figure(figsize=(WIDE, min(1.2 + 0.17 * len(layers), 9.0)), layout="constrained")
    axes = figure.add_subplot()
    left = np.zeros(len(layers))
    counts = layers[list(verdicts)].to_numpy(float)
    judged = np.maximum(counts.sum(axis=1), 1)
    colours = (*COLOURS[: len(verdicts) - 1], "0.85")
    for colour, hatch, name, column in zip(
        colours, ("", "//", "..", "xx", ""), verdicts.values(), counts.T, strict=False
    ):
        share = 100 * column / judged
        places = np.arange(len(layers))
        axes.barh(places, share, left=left, height=0.7, color=colour, hatch=hatch, ec="white", label=name)
        left = left + share
    axes.set_yticks(np.arange(len(layers)), names, fontsize=6 if len(names) > 20 else 8)
    axes.invert_yaxis()
    axes.set_xlabel("units (percent of those judged)")
    figure.legend(loc="outside upper center", ncols=2)
    return figure
