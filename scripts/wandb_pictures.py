"""What W&B shows of a sweep, drawn from its offline files: curves, and the columns of the table of runs.

    actmax -m experiment=reproducibility subject=smollm2 unit.layer=4,8,12,16 'seeds="0:5"' steps=200 controls=0 \
        logger=wandb sweep=wandb_layers
    python scripts/wandb_pictures.py outputs/wandb_layers --figure wandb.svg

Reads each run by W&B's own `wandb leet inspect`, so what is drawn is what W&B was given.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from actmax.report.figures import PLAIN, STYLE

CURVES = {
    "activation": "mean activation",
    "init_retention": "still the initial noise",
    "unique_tokens": "unique tokens",
}
"""Metrics that are logged along the steps, and the titles of their panels."""
STEP = "trainer/global_step"
SUMMARY = {
    "activation_final_mean": "activation",
    "activation_snapped_mean": "as text",
    "random_activation_mean": "random tokens",
    "kappa_tokens": "κ",
    "verdict": "verdict",
}
"""Entries of the summary that the table of runs shows here, and their heads."""


def inspected(file: Path, *options: str) -> str:
    """What W&B's own reader says of the log of a run."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", *options, str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def run_of(file: Path) -> dict[str, Any]:
    """Name, config, summary and history of a run."""
    whole = json.loads(inspected(file, "--summary"))
    records = [json.loads(line) for line in inspected(file).splitlines() if line.strip()]
    history = pd.DataFrame([one["history"]["item"] for one in records if one["type"] == "history"])
    return {key: whole[key] for key in ("name", "config", "summary")} | {"history": history}


def drawn(runs: Sequence[Mapping[str, Any]]) -> Figure:
    """A panel for each metric, a curve for each run, and the table of runs beneath."""
    figure = Figure(figsize=(7.2, 3.9), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(2.2, 1))
    for axes, (name, title) in zip(top.subplots(1, len(CURVES)), CURVES.items(), strict=True):
        for run in runs:
            steps = run["history"].dropna(subset=[name, STEP])
            axes.plot(steps[STEP], steps[name], marker=".", label=run["name"])
        axes.set(title=title, xlabel="step")
    axes.legend(fontsize=6)
    table = bottom.subplots()
    table.axis("off")
    cells = [
        [run["name"], str(run["config"]["layer"]), *(_said(run["summary"].get(key)) for key in SUMMARY)] for run in runs
    ]
    shown = table.table(cells, colLabels=["name", "layer", *SUMMARY.values()], loc="center", cellLoc="right")
    shown.auto_set_font_size(False)
    shown.set_fontsize(7)
    shown.auto_set_column_width(range(len(SUMMARY) + 2))
    for cell in shown.get_celld().values():
        cell.set(edgecolor="#cccccc", linewidth=0.5)
    return figure


def _said(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float | int) else str(value)


def main() -> None:
    """Reads the runs of a sweep's folder and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of a sweep with logger=wandb")
    parser.add_argument("--figure", type=Path, required=True, help="an SVG file")
    arguments = parser.parse_args()
    files = sorted(arguments.folder.glob("*/wandb/offline-run-*/run-*.wandb"))
    if not files:
        raise SystemExit(f"{arguments.folder} holds no offline run of W&B. Run the sweep with logger=wandb.")
    runs = sorted(map(run_of, files), key=lambda run: run["name"])
    with mpl.rc_context({**STYLE, "svg.fonttype": "path", "figure.facecolor": "white"}):
        drawn(runs).savefig(arguments.figure, format="svg", metadata=PLAIN)
    print("\n".join(run["name"] for run in runs))


if __name__ == "__main__":
    main()
