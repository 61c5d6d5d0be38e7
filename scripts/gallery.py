"""The pictures of docs/gallery.md: runs its commands, and draws each picture from the records that they leave.

    pip install lemminflect
    python scripts/gallery.py FOLDER [--draw]

The commands run one after the other with FOLDER as their working directory, each into a folder of its own there; the
same command again runs only what is missing. `--draw` runs none, and draws from the records that are there. Pictures
go to docs/figures/NAME.svg. docs/figures/gallery.json says of each picture which jobs it shows, the SHA-256 of its
file, and the numbers of these jobs that the page may quote; a test holds the page against it.

The pictures carry a light background of their own and their text as outlines, so that they look the same everywhere.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch
from matplotlib.textpath import TextPath
from matplotlib.ticker import NullLocator

import actmax
import category
from actmax.evidence.findings import known, unit_findings
from actmax.evidence.readings import Transfer
from actmax.model.target import target_of_row
from actmax.report import figures
from actmax.report.blocks import Table, visible
from actmax.report.words import ELSEWHERE, label
from actmax.tasks.units.card import NAMES, card
from actmax.words.lists import BUILT_IN_FILE

FIGURES = Path(__file__).parents[1] / "docs" / "figures"
NUMBERS = FIGURES / "gallery.json"
UNIT = "unit.site=mlp_post unit.layer=8 unit.index=100"
DIRECTION = "unit.direction=nouns/directions.safetensors unit.site=resid_post unit.layer=12"
NAMED = "'unit.name=[decoder,decoder_shuffled_1,decoder_shuffled_2,decoder_shuffled_3]'"
COMMANDS = {
    "card": "actmax experiment=reproducibility subject=smollm2",
    "contexts": "actmax -m task=search subject=smollm2 'seeds=\"0:8\"' controls=0 context=none,bos",
    "theme": f"actmax task=search subject=smollm2 {UNIT} 'seeds=\"0:8\"'",
    "nouns": "actmax experiment=nouns_verbs subject=smollm2 hydra.run.dir=nouns",
    "verbs": f"actmax task=search subject=smollm2 {DIRECTION} {NAMED} 'seeds=\"0:8\"' controls=0 hydra.run.dir=verbs",
    "simulation": "actmax experiment=simulation",
    "layers": "actmax -m experiment=layers subject=smollm2 unit.layer=2,8,14,20 'seeds=\"0:5\"' steps=200 "
    "gap.draws=2000",
    "shuffled": "actmax experiment=nouns_verbs subject=smollm2 tuning.data=shuffled.csv",
}
"""The command of each folder of records, in the order in which they run."""
PAPER, EDGE, INK, FAINT = "#fcfcfb", "#d0d0cc", "#1a1a1a", "0.42"
ON_PAGE: Any = {
    "svg.fonttype": "path",  # a reader's machine may lack the font, and tables of text must keep their width
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
SCALE = 1.25
"""How much larger than in print a picture is shown."""
POINTS = 72
MARGIN = 16.0
"""Points between the edge of the card and what stands on it."""
ROW = 12.6
"""Points from one row of the card to the next."""
RESTARTS = 12
"""Most restarts whose tokens the card shows."""
LETTERS = 11
"""Most letters of a token there."""
TEXT = 40
"""Most letters of a restart's text on a picture."""
STEPS = 50
"""Most points of a curve there."""
WORDS = 10
"""Most words of a theme."""
WHERE = {"none": "nothing\nbefore", "bos": "begin-\nof-text", "text": "real\ntext"}
LABELLED = {"noun": "nouns", "verb": "verbs"}


@dataclass(frozen=True)
class Picture:
    """A picture, not drawn yet."""

    draw: Callable[[], Figure]
    """Makes the figure."""
    numbers: Mapping[str, str]
    """What the page may say of it, as it is printed."""
    jobs: Sequence[str]
    """The hashes of the jobs that it shows."""


# the card


def card_picture(folder: Path) -> Picture:
    """The verdict card of a job on one unit, with its curves and what each restart decodes to."""
    found = actmax.open(folder)
    row = own(found.units).iloc[0].to_dict()
    table = card(row)
    numbers = {cells[0].text: "; ".join(cell.text for cell in cells[1:] if cell.text) for cells in table.rows}
    numbers |= {
        "restarts": f"{row['restarts']}",
        "tokens": f"{found.config['tokens']} at a time",
        "steps": f"{found.config['steps']}",
        "random tokens": f"{row['random_activation_mean']:.3g}",
        "best of random sequences": f"{row['best_of_random_mean']:.3g} of {row['passes']:,.0f}",
        "norm at the first position and later": f"{row['first_norm']:.0f}, {row['later_norm']:.0f}",
        "answer": str(row["answer"]),
    }
    about = (
        f"{target_of_row(row)} of {found.config['subject']['name']}: {numbers['restarts']} random starts × "
        f"{found.config['tokens']} tokens × {numbers['steps']} steps of Adam"
    )
    tables = [own(found.table(name)) for name in ("trajectory", "gaps", "tokens")]
    return Picture(lambda: card_figure(row, table, about, *tables), numbers, hashes(found))


def card_figure(
    row: Mapping[Any, Any],
    table: Table,
    about: str,
    curves: pd.DataFrame,
    gaps: pd.DataFrame,
    tokens: pd.DataFrame,
) -> Figure:
    """The card above two panels: activation by step and as text, and the tokens of each restart.

    Args:
        row: the unit's row of `units.parquet`.
        table: its card.
        about: what was asked, in one line.
        curves: its `trajectory.parquet`.
        gaps: its `gaps.parquet`.
        tokens: its `tokens.parquet`.
    """
    width, head, panel = figures.WIDE * POINTS, 64.0, 158.0
    below = head + ROW * len(table.rows)
    height = below + 44 + panel + 30
    figure = Figure(figsize=(figures.WIDE, height / POINTS))
    page = Sheet(figure, width, height)
    answer, _, question = table.title.partition(": ")
    end = page.write(MARGIN, 27, question[:1].upper() + question[1:], size=12, weight="bold")
    page.write(end + 7, 27, answer, size=12, weight="bold", color=figures.COLOURS[1])
    page.write(MARGIN, 41, about, size=7, color=FAINT)
    card_rows(page, row, table, head)
    top, left = below + 44, MARGIN + 24
    axes = figure.add_axes((left / width, 1 - (top + panel) / height, 188 / width, panel / height))
    page.write(MARGIN, below + 22, "Activation by step, then as text", weight="bold")
    rise_panel(axes, row, curves, gaps)
    page.write(left + 204, below + 22, "What each restart decodes to", weight="bold")
    token_panel(page, tokens, left + 204, below + 34, width - MARGIN)
    return figure


class Sheet:
    """Text on a figure, by points from its upper left corner."""

    def __init__(self, figure: Figure, width: float, height: float) -> None:
        self.figure, self.width, self.height = figure, width, height

    def write(self, x: float, y: float, text: str, *, size: float = 7.5, **style: Any) -> float:
        """Writes a line at its baseline, and gives where it ends."""
        self.figure.text(x / self.width, 1 - y / self.height, text, size=size, va="baseline", **style)
        return x + extent(text, size, str(style.get("weight", "normal")))

    def rule(self, y: float, colour: str) -> None:
        """A line from margin to margin."""
        ends = [MARGIN / self.width, 1 - MARGIN / self.width]
        height = 1 - y / self.height
        self.figure.add_artist(Line2D(ends, [height, height], color=colour, lw=0.7))


def extent(text: str, size: float, weight: str = "normal") -> float:
    """The width of a line of text, in points."""
    font = FontProperties(weight=weight)
    return float(TextPath((0, 0), text, size=size, prop=font).get_extents().x1) if text else 0.0


def card_rows(page: Sheet, row: Mapping[Any, Any], table: Table, top: float) -> None:
    """The rows of the card; what claims something is bold."""
    claimed = {NAMES[one.measure][0] for one in unit_findings(known(row)) if one.claimed and one.measure in NAMES}
    texts = [[column.name for column in table.columns], *([cell.text for cell in cells] for cells in table.rows)]
    widths = [max(extent(line[place], 7.5, "bold" if place == 3 else "normal") for line in texts) for place in range(5)]
    gap = (page.width - 2 * MARGIN - sum(widths)) / 4
    starts = [MARGIN + sum(widths[:place]) + place * gap for place in range(5)]
    page.rule(top + 4, EDGE)
    for number, line in enumerate(texts):
        for place, text in enumerate(line):
            bold = number > 0 and place >= 3 and line[0] in claimed
            colour = FAINT if number == 0 or place == 2 else figures.COLOURS[1] if bold else INK
            at = starts[place] if place < 4 else page.width - MARGIN
            style: dict[str, Any] = {
                "weight": "bold" if bold else "normal",
                "color": colour,
                "ha": "left" if place < 4 else "right",
            }
            page.write(at, top + ROW * number, text, **style)
    page.rule(top + ROW * len(table.rows) + 7, EDGE)


def rise_panel(axes: Axes, row: Mapping[Any, Any], curves: pd.DataFrame, gaps: pd.DataFrame) -> None:
    """Activation of every restart by step, and behind the last step that of its tokens, beside random tokens."""
    middle, half = row["random_activation_mean"], 1.96 * row["random_activation_sd"]
    last = int(curves["step"].max())
    text = 1.2 * last
    axes.axhspan(middle - half, middle + half, color="0.87", lw=0)
    ends = gaps.set_index("seed")["activation_snapped"]
    for seed, rows in curves.groupby("seed"):
        some = thinned(rows.sort_values("step"))
        values = some["activation"].to_numpy(float)
        axes.plot(some["step"], values, color=figures.COLOURS[0], lw=0.7, alpha=0.5)
        axes.plot([last, text], [values[-1], ends[seed]], color=figures.COLOURS[0], lw=0.7, ls=":", alpha=0.7)
        axes.plot(text, ends[seed], "o", color=figures.COLOURS[0], ms=2.5, mew=0)
    mean = pd.DataFrame(curves.groupby("step", sort=True)[["activation"]].mean())
    mean = thinned(mean)
    axes.plot(mean.index, mean["activation"], color=figures.COLOURS[1], lw=1.8)
    axes.plot([last, text], [mean["activation"].iloc[-1], ends.mean()], color=figures.COLOURS[1], lw=1.3, ls=":")
    axes.plot(text, ends.mean(), "o", color=figures.COLOURS[1], ms=5, mew=0)
    axes.set_yscale("symlog", linthresh=middle + half)
    top = axes.get_ylim()[1]
    ticks = [0.0, *(10.0**power for power in range(-6, 9) if middle + half < 10.0**power < top)]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xticks([0, last / 2, last, text], ["step 0", f"{last / 2:g}", f"{last:g}", "as text"], fontsize=7)
    axes.tick_params(axis="y", labelsize=7)
    axes.set_xlim(-0.03 * last, 1.3 * last)
    axes.text(0.5 * last, middle, "random tokens (95 %)", fontsize=6.5, color=FAINT, ha="center", va="center")
    at = mean.index[len(mean) // 3]
    place = {"textcoords": "offset points", "xytext": (12, -20), "fontsize": 6.5, "color": figures.COLOURS[1]}
    axes.annotate(f"mean of {curves['seed'].nunique()} restarts", (at, mean["activation"].loc[at]), **place)


def thinned(rows: pd.DataFrame) -> pd.DataFrame:
    """As many rows as a curve needs, from the first to the last."""
    return rows.iloc[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), STEPS)).astype(int))]


def token_panel(page: Sheet, tokens: pd.DataFrame, left: float, top: float, right: float) -> None:
    """The tokens of each restart in a line: faint what is still the initial noise, bold what two restarts share."""
    seeds = list(tokens.groupby("seed", sort=True))
    shared = pd.DataFrame(tokens.groupby("token_id")[["seed"]].nunique())["seed"]
    x = page.write(left, top, "grey: still the initial noise", size=6.5, color=FAINT)
    page.write(x + 10, top, "bold: in two restarts or more", size=6.5, weight="bold", color=figures.COLOURS[1])
    positions = int(tokens["position"].nunique())
    step = (right - left - 12) / positions
    for number, (seed, rows) in enumerate(seeds[:RESTARTS]):
        y = top + 17 + 15.2 * number
        page.write(left, y, f"{seed}", size=6.5, color=FAINT)
        for place, one in enumerate(rows.sort_values("position").to_dict("records")):
            style: dict[str, Any] = {"color": FAINT if one["token_id"] == one["init_token_id"] else INK}
            if shared[one["token_id"]] > 1:
                style = {"color": figures.COLOURS[1], "weight": "bold"}
            page.write(
                left + 12 + step * place,
                y,
                shortened(visible(str(one["token"])).lstrip("·"), LETTERS),
                size=6.5,
                **style,
            )


def shortened(text: str, letters: int) -> str:
    """A text of a few letters at most."""
    return text if len(text) <= letters else f"{text[: letters - 1]}…"


# searches


def contexts_picture(folder: Path) -> Picture:
    """What one unit's searches found in each context, and what the same tokens give elsewhere."""
    found_in = {found.config["context"]["name"]: found for found in map(actmax.open, jobs_in(folder))}
    searches = {name: found_in[name] for name in WHERE if name in found_in}
    rows = {name: own(found.units).iloc[0].to_dict() for name, found in searches.items()}
    numbers = {}
    for name, row in rows.items():
        others = [one for one in WHERE if one != name]
        numbers |= {
            f"{name}, activation": f"{row['activation_final_mean']:.1f}, random {row['random_activation_mean']:.1f}",
            f"{name}, z": f"{row['z_snapped']:.1f}",
            f"{name}, restarts and passes": f"{row['restarts']}, {row['passes']:,.0f}",
            **{f"{name}, kept in {one}": kept(row, one, interval=True) for one in others},
            f"{name}, works elsewhere": label(Transfer(row["transfer"])),
            f"{name}, best texts": "; ".join(best_texts(own(searches[name].restarts))),
        }
    tried = {name: (row, own(searches[name].transfer), own(searches[name].restarts)) for name, row in rows.items()}
    return Picture(lambda: contexts_figure(tried), numbers, hashes(*searches.values()))


def kept(row: Mapping[Any, Any], name: str, *, interval: bool = False) -> str:
    """How much of what they are beyond random tokens a unit's tokens keep in another context."""
    share, low, high = (row[f"transfer_{name}_share{end}"] for end in ("", "_low", "_high"))
    return f"{share:.0%} ({low:.0%} to {high:.0%})" if interval else f"{share:.0%}"


def best_texts(restarts: pd.DataFrame, count: int = 3) -> list[str]:
    """The texts of the restarts with the highest activation."""
    found = restarts.nlargest(count, "activation_final")["text"]
    return [shortened(visible(text.strip()).replace("·", " "), TEXT) for text in found]


def contexts_figure(tried: Mapping[str, tuple[Mapping[Any, Any], pd.DataFrame, pd.DataFrame]]) -> Figure:
    """A panel for each context that was searched: its tokens there and in the others, in units of random tokens.

    Args:
        tried: by context, the unit's row of `units.parquet`, its `transfer.parquet` and its `restarts.parquet`.
    """
    figure = Figure(figsize=(figures.WIDE, 3.5), layout="constrained")
    panels = figure.subplots(1, len(tried), sharey=True, squeeze=False)[0]
    for axes, (name, (row, transfer, restarts)) in zip(panels, tried.items(), strict=True):
        places = [name, *(one for one in WHERE if one != name)]
        z = transfer.pivot_table(index="seed", columns="context", values="z")[places]
        chance_bands(axes, len(z))
        values = z.to_numpy(float).T
        axes.plot(range(len(places)), values, color=figures.COLOURS[0], lw=0.8, alpha=0.5, marker="o", ms=2.5)
        axes.plot(range(len(places)), z.mean(), color=figures.COLOURS[1], lw=1.8, marker="o", ms=5, label="mean")
        names = [WHERE[name] + "\nfound here", *(f"{WHERE[one]}\nkeeps {kept(row, one)}" for one in places[1:])]
        axes.set_xticks(range(len(places)), names, fontsize=7)
        axes.set_xlim(-0.3, len(places) - 0.7)
        axes.set_title(f"found {ELSEWHERE[name].replace('before them', 'before')}", weight="bold", loc="left")
        axes.set_xlabel("\n" + "\n".join(f"“{text}”" for text in best_texts(restarts)), fontsize=6.5, loc="left")
    panels[0].set_ylabel("activation of the tokens,\nz against random tokens there")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def chance_bands(axes: Axes, count: int) -> None:
    """Where single random sequences lie, and means of as many."""
    axes.axhspan(-1.96, 1.96, color="0.9", lw=0, label="95 % of random sequences")
    of_mean = 1.96 / np.sqrt(count)
    axes.axhspan(-of_mean, of_mean, color="0.75", lw=0, label=f"95 % of means of {count}")


def theme_picture(folder: Path) -> Picture:
    """Where the restarts of a unit lie in a space of meaning, and the words nearest to all of them."""
    found = actmax.open(folder)
    row = own(found.units).iloc[0].to_dict()
    texts, words = own(found.meaning), own(found.theme)
    words = words.loc[words["kind"] == "word"].head(WORDS)
    numbers = {
        "meaning in common": f"{row['meaning']:.3f}",
        "by chance up to": f"{row['null_meaning_high']:.3f}",
        "p": f"{row['null_meaning_p']:.2g}",
        "less tokens in common": f"{row['meaning_apart']:.3f}, p = {row['null_meaning_apart_p']:.2g}",
        "beside other units": f"p = {row['null_own_meaning_p']:.2g}",
        "tokens in common": f"{row['shared_tokens']:.1%} (chance up to {row['null_shared_tokens_high']:.1%})",
        "restarts": f"{row['restarts']}",
        "words of the theme": f"{int(row['theme_words'])}: {row['theme']}",
        "raises in real text": f"p = {row['null_theme_raises_p']:.2g}",
    }
    ends = best_texts(own(found.restarts), int(row["restarts"]))
    return Picture(lambda: theme_figure(texts, words, ends), numbers, hashes(found))


def theme_figure(texts: pd.DataFrame, words: pd.DataFrame, ends: Sequence[str]) -> Figure:
    """The record's map of meaning, beside the theme's words and above the restarts' texts.

    Args:
        texts: `meaning.parquet`, rows of one unit.
        words: `theme.parquet`, rows of words, nearest first.
        ends: the restarts' texts.
    """
    figure = figures.meaning_map(texts)
    figure.set_size_inches(figures.WIDE, 3.5)
    axes = beside(figure)
    places = np.arange(len(words))
    found, chance, z = (words[name].to_numpy(float) for name in ("similarity", "chance", "z"))
    spread = 1.96 * (found - chance) / z
    claimed = words["p"].to_numpy(float) <= 0.05
    axes.barh(places, 2 * spread, left=chance - spread, height=0.6, color="0.85", label="95 % of texts by chance")
    axes.plot(found[claimed], places[claimed], "o", color=figures.COLOURS[1], ms=5, label="nearer than chance")
    if not claimed.all():
        axes.plot(found[~claimed], places[~claimed], "o", color="0.5", ms=5, label="not established")
    axes.set_yticks(places, words["text"].map(visible).tolist())
    axes.set_ylim(len(words) - 0.4, -0.6)
    axes.set_xlabel("mean cosine of the word to the restarts")
    figure.legends.clear()  # one above each panel in its place
    for panel in figure.axes:
        panel.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, columnspacing=1, handletextpad=0.3)
    lines = ["   ".join(f"“{text}”" for text in ends[start : start + 2]) for start in range(0, len(ends), 2)]
    figure.supxlabel("\n".join(lines), fontsize=6.5, x=0.03, ha="left")
    return figure


def beside(figure: Figure) -> Axes:
    """Room to the right of a figure's only axes."""
    grid = figure.add_gridspec(1, 2)
    figure.axes[0].set_subplotspec(grid[0])
    return figure.add_subplot(grid[1])


# nouns and verbs


def direction_picture(folder: Path, nouns: Path) -> Picture:
    """Whether what maximizes a decoder of nouns and verbs are verbs, beside decoders of shuffled labels."""
    found = actmax.open(folder)
    words = actmax.open(nouns).words
    if set(words["category"]) != set(LABELLED):
        raise SystemExit(f"{nouns} must hold nouns and verbs")
    pool, targets = category.scored(found, actmax.load(found.config["subject"]["name"]).subject, category.by_lexicon)
    restarts, units = own(found.restarts), own(found.units)
    texts = [best_texts(rows, 2) for _, rows in restarts.groupby("target", sort=False)]
    named = [(named_direction(name), scores, null) for name, scores, null in targets]
    numbers = {"one random text": f"{pool.mean():.2f} ± {pool.std(ddof=1):.2f}"}
    for (name, scores, null), ends, row in zip(named, texts, units.to_dict("records"), strict=True):
        p = (1 + (null >= scores.mean()).sum()) / (1 + len(null))
        numbers[name] = f"{scores.mean():.2f} ± {scores.std(ddof=1):.2f}, chance up to {np.quantile(null, 0.95):.2f}"
        numbers[f"{name}, p"] = f"{p:.4f}" if p < 0.01 else f"{p:.2f}"
        numbers[f"{name}, restarts"] = f"{len(scores)}"
        ends_at, random = row["activation_final_mean"], row["random_activation_mean"]
        numbers[f"{name}, activation"] = f"{ends_at:.2f}, random {random:.2f}"
        numbers[f"{name}, texts"] = "; ".join(ends)
    return Picture(lambda: direction_figure(named, texts), numbers, hashes(found))


def named_direction(address: str) -> str:
    """A direction's name in words, from its address."""
    name = address.rpartition("#")[2]
    return (
        "decoder of the real labels" if name == "decoder" else f"decoder of shuffled labels, {name.rpartition('_')[2]}"
    )


def direction_figure(targets: Sequence[tuple[str, np.ndarray, np.ndarray]], texts: Sequence[Sequence[str]]) -> Figure:
    """For each direction, the score of each restart's text beside means of as many random texts.

    Args:
        targets: name, scores of the restarts, and of random texts the means of as many.
        texts: the restarts' texts of each, highest first.
    """
    figure = Figure(figsize=(figures.WIDE, 0.9 + 0.62 * len(targets)), layout="constrained")
    axes = figure.add_subplot()
    for place, (_, scores, null) in enumerate(targets):
        low, high = np.quantile(null, [0.05, 0.95])
        shift = np.linspace(-0.2, 0.2, len(scores))
        said = ["", "", ""] if place else ["chance (90 %)", "a restart", "mean"]
        axes.barh(place, high - low, left=low, height=0.62, color="0.85", label=said[0])
        axes.plot(scores, place + shift, "o", color=figures.COLOURS[0], ms=3.5, mew=0, alpha=0.6, label=said[1])
        axes.plot(scores.mean(), place, "D", color=figures.COLOURS[1], ms=6, label=said[2])
    axes.axvline(0, color="0.6", lw=0.8, zorder=0)
    quoted = ["\n".join(f"“{text}”" for text in some) for some in texts]
    names = [f"{name}\n{said}" for (name, _, _), said in zip(targets, quoted, strict=True)]
    axes.set_yticks(range(len(targets)), names, fontsize=6.5)
    axes.set_ylim(len(targets) - 0.5, -0.5)
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel("verbs less nouns\n(share of the tokens that the lexicon knows)")
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def nouns_picture(folder: Path) -> Picture:
    """The record's figure of tuned units and decoders by layer."""
    found = actmax.open(folder)
    shares, decoders = by_layer(found.shares), by_layer(found.decoders)
    return Picture(lambda: figures.tuned_shares(shares, decoders), tuning_numbers(found), hashes(found))


def tuning_numbers(found: actmax.Result) -> dict[str, str]:
    """The headline numbers of a comparison of two groups of words."""
    summary = found.summary
    again, decoder, best = summary["replication"], summary["decoder"]["all"], summary["decoder"]["best_layer"]
    rate = again.get("rate")
    accuracy = by_layer(found.decoders)["accuracy"]
    return {
        "words": " and ".join(f"{count} {LABELLED.get(name, name)}" for name, count in summary["words"].items()),
        "units": f"{summary['compared_units']:,}",
        "shuffles": f"{found.config['tuning']['permutations']}",
        "tuned": f"{summary['tuned_share']:.1%} ({summary['tuned_units']:,})",
        "tuned, shuffled labels, corrected per layer": f"{summary['null_tuned_share_layer']:.3%}",
        "Bonferroni": f"{summary['tuned_share_bonferroni']:.1%}",
        "replicate": "no unit was selected" if rate is None else f"{rate:.1%}, shuffled {again['null_rate_mean']:.1%}",
        "decoder": f"{decoder['accuracy']:.1%}, shuffled {decoder['null_low']:.1%} to {decoder['null_high']:.1%}, "
        f"p = {decoder['p']:.2g}",
        "best layer": f"{best['accuracy']:.1%}, shuffled {best['null_mean']:.1%}, p = {best['p']:.2g}",
        "layers above chance": f"{summary['decoder']['layers_above_chance']} of {summary['decoder']['layers']}",
        "layers, lowest and highest": f"{accuracy.min():.1%}, {accuracy.max():.1%}",
        "p of at most 0.05": f"{(found.tuning['welch_p_log10'] <= np.log10(0.05)).mean():.1%}",
    }


def by_layer(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of whole layers."""
    return rows.loc[rows["scope"] == "layer"]


def null_picture(folder: Path, nouns: Path) -> Picture:
    """The same tests and decoders on shuffled labels and on the real ones."""
    both = {"shuffled labels": actmax.open(folder), "nouns and verbs": actmax.open(nouns)}
    p = {name: 10.0 ** found.tuning["welch_p_log10"].to_numpy(float) for name, found in both.items()}
    decoders = {name: by_layer(found.decoders) for name, found in both.items()}
    numbers = {f"{name}, {what}": said for name, found in both.items() for what, said in tuning_numbers(found).items()}
    return Picture(lambda: null_figure(p, decoders), numbers, hashes(*both.values()))


def null_figure(p: Mapping[str, np.ndarray], decoders: Mapping[str, pd.DataFrame]) -> Figure:
    """Histograms of the units' p, and decoders by layer beside shuffled labels.

    Args:
        p: the units' p, by what the labels are.
        decoders: `decoders.parquet`, rows of layers, by the same.
    """
    figure = Figure(figsize=(figures.WIDE, 2.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    edges = np.linspace(0, 1, 21)
    for (name, values), colour in zip(p.items(), (figures.COLOURS[0], figures.COLOURS[1]), strict=True):
        known_p = values[np.isfinite(values)]
        left.stairs(100 * np.histogram(known_p, edges)[0] / len(known_p), edges, color=colour, lw=1.4, label=name)
        for mark, (site, rows) in zip(("o", "^"), decoders[name].groupby("site", sort=False), strict=False):
            at, accuracy = rows["layer"].to_numpy(float), 100 * rows["accuracy"].to_numpy(float)
            right.plot(at, accuracy, color=colour, marker=mark, ms=3, lw=0.8, label=f"{name}, {site}")
    rows = decoders[next(iter(decoders))].sort_values("layer").groupby("layer")
    low, high = (100 * rows[f"accuracy_null_{end}"].mean().to_numpy(float) for end in ("low", "high"))
    right.fill_between(list(rows.groups), low, high, color="0.85", lw=0, label="95 % of shuffles", zorder=0)
    left.axhline(5, color="0.4", lw=0.8, ls=":", label="uniform, as by chance")
    left.set_yscale("log")
    left.set_yticks([1, 10, 100], ["1", "10", "100"])
    left.set_xlabel("p of a unit (Welch's t)")
    left.set_ylabel("units (percent)")
    right.set_xlabel("layer")
    right.set_ylabel("held-out words right (percent)")
    right.set_ylim(-3, 103)
    left.legend(loc="upper right")
    right.legend(loc="lower right", fontsize=6.5, bbox_to_anchor=(1.0, 0.0))
    return figure


# simulation, layers


def simulation_picture(folder: Path) -> Picture:
    """The record's figure of what each test rejects by effect."""
    found = actmax.open(folder)
    rate = found.rates.set_index(["test", "effect"])["rate"]
    at = found.effects.set_index("effect")
    tests = ("student", "logit_wald", "logit_lr", "firth_lr")
    numbers = {
        f"effect {effect:g}": ", ".join(f"{name} {rate[name, effect]:.0%}" for name in tests)
        + f", separated {at['separation_rate'][effect]:.0%}"
        for effect in at.index
    }
    config = found.config["simulation"]
    numbers["sizes"] = ", ".join(f"{name} {config[name]}" for name in ("repetitions", "n_0", "n_1"))
    return Picture(lambda: figures.rejections(found.rates, found.effects), numbers, hashes(found))


def layers_picture(folder: Path) -> Picture:
    """One coordinate in several layers: the optimum, its tokens, and what restarts share."""
    jobs = [actmax.open(one) for one in jobs_in(folder)]
    units = own(pd.read_parquet(folder / "units.parquet")).sort_values("layer")
    numbers = {}
    for row in units.to_dict("records"):
        numbers[str(target_of_row(row))] = (
            f"{row['activation_initial_mean']:.3g} → {row['activation_final_mean']:.4g}, z {row['z_final']:.3g}; as "
            f"text z {row['z_snapped']:.1f}, p = {row['null_snapped_p']:.2g}; shared {row['shared_tokens']:.1%}, "
            f"chance up to {row['null_shared_tokens_high']:.1%}; {row['verdict']}"
        )
    numbers["as text beyond chance"] = f"{int((units['null_snapped_p'] <= units['null_snapped_alpha']).sum())}"
    numbers["sharing more than chance"] = (
        f"{int((units['null_shared_tokens_p'] <= units['null_shared_tokens_alpha']).sum())}"
    )
    numbers["layers, restarts, steps"] = f"{len(units)}, {units['restarts'].iloc[0]}, {jobs[0].config['steps']}"
    numbers["z at the optimum"] = f"{units['z_final'].min():.0f} to {units['z_final'].max():.0f}"
    return Picture(lambda: layers_figure(units), numbers, hashes(*jobs))


def layers_figure(units: pd.DataFrame) -> Figure:
    """By layer: z of the optimum and of its tokens, and the tokens that two restarts share, beside chance.

    Args:
        units: `units.parquet` of a sweep over layers, one unit in each.
    """
    figure = Figure(figsize=(figures.WIDE, 2.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    layers = units["layer"].astype(str).tolist()
    places = np.arange(len(units))
    chance_bands(left, int(units["restarts"].iloc[0]))
    for name, colour, mark, words in (
        ("z_final", figures.COLOURS[1], "D", "optimum (no text)"),
        ("z_snapped", figures.COLOURS[0], "o", "its tokens"),
    ):
        left.plot(places, units[name].to_numpy(float), mark, color=colour, ms=6, label=words)
    left.set_yscale("symlog", linthresh=3)
    left.set_yticks([0, 10, 100, 1000][: 2 + int(np.log10(max(10, units["z_final"].max())))])
    left.yaxis.set_major_formatter("{x:g}")
    left.set_ylabel("activation, z against random tokens", fontsize=7)
    high = 100 * units["null_shared_tokens_high"].to_numpy(float)
    right.bar(places, high, width=0.6, color="0.85", label="chance: up to here")
    shared = 100 * units["shared_tokens"].to_numpy(float)
    right.plot(places, shared, "o", color=figures.COLOURS[0], ms=6, label="found", clip_on=False)
    right.set_ylim(0, max(10.0, 1.25 * right.get_ylim()[1]))
    right.set_ylabel("tokens that two restarts share (percent)", fontsize=7)
    for axes in (left, right):
        axes.set_xticks(places, layers)
        axes.set_xlim(-0.6, len(units) - 0.4)
        axes.set_xlabel("layer")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, columnspacing=1, handletextpad=0.4)
    return figure


# files


PICTURES: dict[str, Callable[[Path], Picture]] = {
    "card": lambda folder: card_picture(folder / "card"),
    "contexts": lambda folder: contexts_picture(folder / "contexts"),
    "theme": lambda folder: theme_picture(folder / "theme"),
    "nouns_verbs": lambda folder: nouns_picture(folder / "nouns"),
    "direction": lambda folder: direction_picture(folder / "verbs", folder / "nouns"),
    "simulation": lambda folder: simulation_picture(folder / "simulation"),
    "layers": lambda folder: layers_picture(folder / "layers"),
    "null": lambda folder: null_picture(folder / "shuffled", folder / "nouns"),
}
"""What makes each picture, docs/figures/NAME.svg, from the folder of all records."""


def own(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows about the job's own units, not its control units."""
    return rows.loc[~rows["control"].to_numpy(bool)] if "control" in rows else rows


def jobs_in(folder: Path) -> list[Path]:
    """The records of a sweep."""
    return sorted(file.parent for file in folder.glob("*/status.json"))


def hashes(*found: actmax.Result) -> list[str]:
    """What identifies the jobs that results come from."""
    return [one.summary["job_hash"][:16] for one in found]


def svg(draw: Callable[[], Figure]) -> bytes:
    """A figure as a picture for a page: on a light sheet of its own, text as outlines."""
    with mpl.rc_context({**figures.STYLE, **ON_PAGE}):
        figure = draw()
        width, height = figure.get_size_inches()
        sheet = FancyBboxPatch(
            (0.02, 0.02), width - 0.04, height - 0.04, boxstyle="round,pad=0,rounding_size=0.09", facecolor=PAPER,
            edgecolor=EDGE, lw=0.8, zorder=-10, transform=figure.dpi_scale_trans,
        )  # fmt: skip
        sheet.set_in_layout(False)
        figure.add_artist(sheet)
        if (engine := figure.get_layout_engine()) is not None:
            engine.set(w_pad=0.12, h_pad=0.1)
        stream = BytesIO()
        figure.savefig(stream, format="svg", metadata=figures.PLAIN)
    return _slim(re.sub(rb'( (?:width|height)=")([\d.]+)pt"', _larger, stream.getvalue(), count=2))


def _slim(content: bytes) -> bytes:
    """The same picture in fewer bytes: no comments, no indents, thousandths of a point."""
    for what, better in (
        (rb"<!-- .*? -->", b""),
        (rb"\n\s+", b"\n"),
        (rb"(\.\d{3})\d+", rb"\1"),
        (rb"DejaVuSans-", b"D"),
    ):
        content = re.sub(what, better, content)
    return content


def _larger(size: re.Match[bytes]) -> bytes:
    return size[1] + f'{SCALE * float(size[2]):.1f}pt"'.encode()


def shuffled_words(file: Path) -> None:
    """The built-in list of nouns and verbs with its labels shuffled."""
    words = pd.read_csv(BUILT_IN_FILE)
    words["category"] = words["category"].sample(frac=1, random_state=0).to_numpy()
    words.to_csv(file, index=False)


def run(folder: Path) -> None:
    """Runs every command in the folder; actmax itself runs only what is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    shuffled_words(folder / "shuffled.csv")
    for name, command in COMMANDS.items():
        words = shlex.split(command)[1:]
        place = f"hydra.{'sweep' if '-m' in words else 'run'}.dir={name}"
        print(command, flush=True)
        whole = [sys.executable, "-m", "actmax", *words, *([place] if place not in words else [])]
        ran = subprocess.run(whole, cwd=folder, stdout=subprocess.DEVNULL)
        if ran.returncode:
            raise SystemExit(f"exit code {ran.returncode}: {command} (in {folder})")


def main() -> None:
    """Runs, draws, writes and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--draw", action="store_true")
    asked = parser.parse_args()
    if not asked.draw:
        run(asked.folder)
    said = {}
    for name, make in PICTURES.items():
        picture = make(asked.folder)
        content = svg(picture.draw)
        (FIGURES / f"{name}.svg").write_bytes(content)
        sha = hashlib.sha256(content).hexdigest()
        said[name] = {"jobs": list(picture.jobs), "sha256": sha, "numbers": dict(picture.numbers)}
        print(f"{name}.svg: {len(content):,} bytes")
        print("".join(f"  {what}: {number}\n" for what, number in picture.numbers.items()), end="")
    NUMBERS.write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
