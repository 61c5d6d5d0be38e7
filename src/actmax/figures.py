"""Figures from a record's tables, in one style: matplotlib, a colour-blind safe palette, PNG and SVG."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from actmax.record import Record

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
WIDE, NARROW = 6.9, 3.3
"""Inches: two columns and one."""
STAGES = {
    "activation_initial": "initial\nnoise",
    "activation_final": "optimum",
    "activation_snapped": "snapped to\ntokens",
    "activation_retokenised": "tokenised\nagain",
}


def save(record: Record, name: str, draw: Callable[[], Figure]) -> list[Path]:
    """Writes `figures/NAME.png` and `.svg`."""
    with mpl.rc_context(STYLE):
        figure = draw()
        return [
            record.write(
                f"figures/{name}.{kind}", lambda path, kind=kind: figure.savefig(path, format=kind, bbox_inches="tight")
            )
            for kind in ("png", "svg")
        ]


def decode_gap(gaps: pd.DataFrame) -> Figure:
    """Where the gain dies: each restart in standard deviations of random token sequences, on its way to text.

    Args:
        gaps: `gaps.parquet`, of units that differ from one random sequence to the next.
    """
    figure = Figure(figsize=(NARROW, 2.6), layout="constrained")
    axes = figure.add_subplot()
    base, deviation = (gaps[f"random_activation_{part}"].to_numpy(float) for part in ("mean", "sd"))
    z = {name: (gaps[name].to_numpy(float) - base) / deviation for name in STAGES}
    axes.axhspan(-1.96, 1.96, color="0.88", lw=0, label="random tokens, 95 %")
    values = np.stack(list(z.values()), axis=1)
    axes.plot(range(len(STAGES)), values.T, color=COLOURS[0], lw=0.6, alpha=0.35)
    axes.plot(range(len(STAGES)), np.nanmean(values, axis=0), color=COLOURS[1], lw=1.5, marker="o", ms=4, label="mean")
    axes.set_yscale("symlog", linthresh=3)
    axes.margins(y=0.15)
    axes.set_xticks(range(len(STAGES)), list(STAGES.values()))
    axes.set_ylabel("activation, z against random tokens")
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def units(table: pd.DataFrame) -> Figure:
    """How far the restarts of each unit agree above chance: a histogram over units, those above it set apart.

    Args:
        table: `units.parquet`.
    """
    figure = Figure(figsize=(WIDE, 2.6), layout="constrained")
    spaces = {
        "tokens": ("jaccard", "shared tokens (Jaccard)"),
        "embeddings": ("displacement_cosine_assigned", "cosine of moves (assigned)"),
    }
    for place, (space, (name, words)) in enumerate(spaces.items(), start=1):
        axes = figure.add_subplot(1, 2, place)
        gain = (table[name] - table[f"null_{name}_mean"]).to_numpy(float)
        above = table[f"convergence_p_{space}"].to_numpy(float) <= 0.05
        axes.hist([gain[~above], gain[above]], bins=40, stacked=True, color=["0.7", COLOURS[0]])
        axes.axvline(0, color="0.3", lw=0.8)
        axes.set_xlabel(f"{words} above its null")
        axes.set_title(f"{int(above.sum())} of {len(above)} units above chance (chance: up to {len(above) * 0.05:.0f})")
        axes.set_ylabel("units")
    return figure


def pareto(table: pd.DataFrame) -> Figure:
    """What each prior buys: agreement of restarts above its null against activation once snapped to tokens.

    Args:
        table: `ladder.parquet`.
    """
    figure = Figure(figsize=(WIDE, 3.0), layout="constrained")
    spaces = {"jaccard": "shared tokens (Jaccard)", "displacement_cosine_assigned": "cosine of moves (assigned)"}
    for place, (name, words) in enumerate(spaces.items(), start=1):
        axes = figure.add_subplot(1, 2, place)
        for colour, (site, rows) in zip(COLOURS, table.groupby("site", sort=False), strict=False):
            _rungs(axes, pd.DataFrame(rows), name, str(site), colour)
        axes.axhline(0, color="0.6", lw=0.8, zorder=0)
        axes.axvline(0, color="0.6", lw=0.8, zorder=0)
        axes.set_xlabel("activation once snapped, z against random tokens")
        axes.set_ylabel(f"{words} above its null")
        axes.legend(loc="best")
    return figure


def _rungs(axes: Axes, rows: pd.DataFrame, name: str, site: str, colour: str) -> None:
    x, y, dx, dy = (
        rows[column].to_numpy() for column in ("z_snapped", f"{name}_above", "z_snapped_se", f"{name}_above_se")
    )
    axes.errorbar(x, y, xerr=dx, yerr=dy, fmt="o", ms=4, lw=0.8, color=colour, label=f"{site} (± se over units)")
    for prior, a, b in zip(rows["prior"], x, y, strict=True):
        axes.annotate(str(prior), (a, b), xytext=(4, 3), textcoords="offset points", fontsize=6, color=colour)
