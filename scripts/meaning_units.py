"""Do restarts agree in tokens, in meaning, in neither? A table and a figure over searches of several units.

    python scripts/meaning_units.py FOLDER [--figure FILE]

FOLDER holds records of `task=search … meaning.embedder=wordllama`, each of one unit of a subject, from the same seeds.
It prints a table of tests and a table of themes, each with a row for each unit:

- tokens: the share of tokens that two restarts have in common, with p beside random tokens;
- meaning: the mean cosine of two restarts' texts, with p beside random tokens;
- own: p of the same beside the other units, labels permuted within seeds (only where meaning is above chance);
- less shared: the mean cosine where of every two texts the tokens are left out that both hold, with p;
- held out: p that the second half of the seeds is nearer to what the first half has in common than other units' are;
- theme: the words of the vocabulary nearest to all restarts, as many as are nearer than chance at 5 %, four at most.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from safetensors.numpy import load_file

from actmax.evidence.meaning import Alike, decide_meaning
from actmax.evidence.nulls import Null
from actmax.evidence.themes import held_out
from actmax.model.target import Unit
from actmax.report.figures import COLOURS, WIDE, image
from actmax.tasks.units.meaning import set_apart

ALPHA = 0.05


def records(folder: Path) -> list[Path]:
    """The folders of complete records that say something of meaning."""
    found = sorted(file.parent for file in folder.rglob("meaning.safetensors"))
    return [one for one in found if '"complete"' in (one / "status.json").read_text()]


def rows(found: Sequence[Path]) -> pd.DataFrame:
    """A row for each unit; every p as it stands in the record, but for those that need all units."""
    units = [pd.read_parquet(one / "units.parquet").query("not control").iloc[0].to_dict() for one in found]
    vectors = [load_file(one / "meaning.safetensors")["vectors"] for one in found]
    vectors = [some[: int(row["restarts"])] for some, row in zip(vectors, units, strict=True)]
    decided = decide_meaning([Alike.of_row(row) for row in units], set_apart(vectors, seed=0))
    table: list[dict[str, Any]] = []
    for number, (row, one) in enumerate(zip(units, decided, strict=True)):
        half = len(vectors[number]) // 2
        others = [some[half:] for other, some in enumerate(vectors) if other != number]
        tried: Null = held_out(vectors[number][:half], np.stack([vectors[number][half:], *others]))
        table.append(
            {
                "unit": str(Unit.of_row(row)),
                "tokens": row["shared_tokens"],
                "tokens_p": row["null_shared_tokens_p"],
                "meaning": row["meaning"],
                "chance": row["null_meaning_high"],
                "meaning_p": row["null_meaning_p"],
                "own_p": np.nan if one.own is None else one.own.p,
                "apart": row["meaning_apart"],
                "apart_p": row["null_meaning_apart_p"],
                "held_out_p": tried.p,
                "raises_p": row["null_theme_raises_p"],
                "theme": ", ".join(str(row["theme"]).split(", ")[:4]),
                "verdict": one.verdict.value,
            }
        )
    return pd.DataFrame(table)


def printed(table: pd.DataFrame) -> str:
    """The table in Markdown, what is above chance at 5 % bold, and one of the themes."""

    def cell(value: float, p: float, form: str) -> str:
        words = f"{value:{form}}, {p:.2g}"
        return f"**{words}**" if p <= ALPHA else words

    def alone(p: float) -> str:
        return "" if np.isnan(p) else f"**{p:.2g}**" if p <= ALPHA else f"{p:.2g}"

    lines = [
        "| unit | tokens, p | meaning, p | own p | less shared, p | held out p | in text p |",
        "|---|---|---|---|---|---|---|",
    ]
    themes = ["", "| unit | theme |", "|---|---|"]
    for row in table.to_dict("records"):
        cells = [
            f"`{row['unit']}`",
            cell(row["tokens"], row["tokens_p"], ".1%"),
            cell(row["meaning"], row["meaning_p"], ".3f"),
            alone(row["own_p"]),
            cell(row["apart"], row["apart_p"], ".3f"),
            alone(row["held_out_p"]),
            alone(row["raises_p"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
        themes.append(f"| `{row['unit']}` | {row['theme'] or 'none'} |")
    return "\n".join(lines + themes)


def figure(table: pd.DataFrame) -> Figure:
    """Each unit's similarity in meaning beside chance, with the tokens in common and without them."""
    drawn = Figure(figsize=(WIDE, 2.6), layout="constrained")
    axes = drawn.add_subplot()
    ordered = table.sort_values("meaning", ascending=False)
    places = np.arange(len(ordered))
    axes.axhspan(-1, ordered["chance"].iloc[0], color="0.9", lw=0, label="random tokens (95 %)")
    for name, colour, mark, words in (
        ("meaning", COLOURS[0], "o", "all tokens"),
        ("apart", COLOURS[1], "D", "less the tokens in common"),
    ):
        claimed = (ordered[f"{name}_p"] <= ALPHA).to_numpy()
        values = ordered[name].to_numpy(float)
        axes.plot(places[claimed], values[claimed], mark, color=colour, ms=5, label=words)
        axes.plot(places[~claimed], values[~claimed], mark, color=colour, ms=5, mfc="white")
    axes.set_ylim(min(-0.05, float(ordered["apart"].min()) - 0.02), float(ordered["meaning"].max()) + 0.03)
    axes.set_xticks(places, ordered["unit"], rotation=35, ha="right", fontsize=6.5)
    axes.set_ylabel("cosine of two restarts")
    axes.legend(loc="upper right")
    return drawn


def main() -> None:
    """Prints the table, and draws the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--figure", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    table = rows(records(asked.folder))
    print(printed(table))
    if asked.figure is not None:
        asked.figure.write_bytes(image(lambda: figure(table), asked.figure.suffix[1:]))


if __name__ == "__main__":
    main()
