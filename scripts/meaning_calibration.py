"""How often agreement in meaning, and what is built on it, is claimed where nothing is there, and where something is.

    python scripts/meaning_calibration.py level --repetitions 600
    python scripts/meaning_calibration.py power --repetitions 300
    python scripts/meaning_calibration.py curves --tables LEVEL POWER --figure FILE   # draws what these two printed

Texts are five tokens of SmolLM2, compared in the static table of the extra `meaning`. A job has three units from the
same seeds; what is claimed of the first counts.

Level, where nothing is there to find:

- random tokens: every text is drawn from the plain tokens, which is the null itself;
- dealt out: the texts of one planted theme, dealt to the three units at random: alike, and nobody's own;
- Zipf: tokens of all units are drawn by Zipf's law from one order of the vocabulary: alike, and nobody's own.

Power: in every restart of the first unit k of five tokens are words near one word that is drawn anew each time.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy import ndarray

from actmax.evidence.meaning import Alike, beside_best, centred, combinations_of, decide_meaning, measure_meaning
from actmax.evidence.own import relabel
from actmax.evidence.themes import held_out, theme
from actmax.model.evaluation import random_tokens
from actmax.model.subject import shared
from actmax.report.figures import COLOURS, image
from actmax.text.embedders import make_embedder
from actmax.text.settings import MeaningSettings
from actmax.text.vocabulary import whole_words

TOKENS, UNITS, POOL, DRAWS, NEAR, VOCABULARY = 5, 3, 200, 999, 50, 2000
ALPHA = 0.05


class Bank:
    """What all repetitions share: token texts, the embedder, its centre, texts by chance, words."""

    def __init__(self) -> None:
        self.subject = shared(name="smollm2", source="wheel", id="smollm2")
        self.embed = make_embedder(MeaningSettings(embedder="wordllama"), self.subject, ())
        self.plain = self.subject.plain_tokens.numpy()
        drawn = random_tokens(self.subject, TOKENS, draws=20_000, seed=7).tolist()
        raw = self.embed([self.subject.text(ids) for ids in drawn]).vectors
        self.centre = raw.mean(0)
        self.random = centred(raw, self.centre)
        self.words = whole_words(self.subject)
        vectors = self.embed([text for _, text in self.words]).vectors
        self.word_vectors = centred(vectors, vectors.mean(0))
        self.order = np.random.default_rng(99).permutation(self.plain)
        weight = 1 / np.arange(1, len(self.plain) + 1)
        self.zipf = weight / weight.sum()

    def texts(self, ids: ndarray) -> ndarray:
        """Vectors of token sequences of any leading shape."""
        flat = ids.reshape(-1, ids.shape[-1]).tolist()
        found = self.embed([self.subject.text(one) for one in flat]).vectors
        return centred(found, self.centre).reshape(*ids.shape[:-1], -1)

    def topic(self, rng: np.random.Generator) -> ndarray:
        """The tokens of the words nearest to a random one."""
        one = rng.integers(len(self.words))
        near = np.argsort(-(self.word_vectors @ self.word_vectors[one]))[:NEAR]
        return np.array([self.words[number][0] for number in near])


Draw = Callable[[Bank, np.random.Generator, int], ndarray]


def random(bank: Bank, rng: np.random.Generator, restarts: int) -> ndarray:
    """Plain tokens, drawn uniformly."""
    return rng.choice(bank.plain, (UNITS, restarts, TOKENS))


def planted(k: int) -> Draw:
    """Makes what draws k tokens of a topic in every restart of the first unit."""

    def draw(bank: Bank, rng: np.random.Generator, restarts: int) -> ndarray:
        ids = random(bank, rng, restarts)
        ids[0, :, :k] = rng.choice(bank.topic(rng), (restarts, k))
        return ids

    return draw


def dealt(bank: Bank, rng: np.random.Generator, restarts: int) -> ndarray:
    """Two tokens of one topic in every restart of every unit."""
    ids = random(bank, rng, restarts)
    ids[:, :, :2] = rng.choice(bank.topic(rng), (UNITS, restarts, 2))
    return ids


def zipf(bank: Bank, rng: np.random.Generator, restarts: int) -> ndarray:
    """Tokens by Zipf's law, from one order for all units."""
    return bank.order[rng.choice(len(bank.plain), (UNITS, restarts, TOKENS), p=bank.zipf)]


def claims(bank: Bank, draw: Draw, restarts: int, number: int) -> dict[str, float]:
    """What is claimed of the first of three units."""
    rng = np.random.default_rng([number, restarts])
    texts = bank.texts(draw(bank, rng, restarts))
    rows = rng.choice(len(bank.random), (POOL, restarts), replace=False)
    chance = combinations_of(bank.random[rows], draws=DRAWS, seed=number)
    best = bank.random[rng.choice(len(bank.random), 10, replace=False)]
    measured = [measure_meaning(one, 0.0, chance, best[:0], best_of=1) for one in texts]
    flat = texts.reshape(-1, texts.shape[-1])
    own = relabel(flat @ flat.T, UNITS, seed=number)
    decided = decide_meaning([Alike.of(one) for one in measured], own, judged=[0])[0]
    half = restarts // 2
    some = rng.choice(len(bank.words), VOCABULARY, replace=False)
    words = theme(texts[0], chance, bank.word_vectors[some])
    return {
        "alike": measured[0].null.p <= ALPHA,
        "own, asked always": own.test is not None and own.test.nulls[0].p <= ALPHA,
        "alike and own": decided.own is not None and decided.own.p <= decided.own_alpha,
        "beyond best": beside_best(texts[0], best, seed=number, draws=1999).p <= ALPHA,
        "any theme word": words.p.min() <= ALPHA,
        "held out": held_out(texts[0, :half], texts[:, half:]).p <= ALPHA,
    }


def row(bank: Bank, name: str, draw: Draw, restarts: int, repetitions: int) -> None:
    """Prints a row: the share of repetitions in which each claim is made, with its standard error."""
    found = [claims(bank, draw, restarts, number) for number in range(repetitions)]
    rates = {key: np.mean([one[key] for one in found]) for key in found[0]}
    cells = " | ".join(f"{rate:.1%} ± {np.sqrt(rate * (1 - rate) / repetitions):.1%}" for rate in rates.values())
    if not row.__dict__.get("headed"):
        row.__dict__["headed"] = True
        print("| texts | restarts | " + " | ".join(rates) + " |")
        print("|---" * (2 + len(rates)) + "|")
    print(f"| {name} | {restarts} | {cells} |", flush=True)


def printed(file: Path) -> list[dict[str, str]]:
    """The rows of a table in Markdown."""
    lines = [line.strip("|\n ").split(" | ") for line in file.read_text().splitlines() if line.startswith("| ")]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]


def curves(tables: Sequence[Path]) -> Figure:
    """How often a unit's restarts are called alike in meaning and its own, by the number of restarts."""
    drawn = Figure(figsize=(4.6, 2.8), layout="constrained")
    axes = drawn.add_subplot()
    rows = [row for table in tables for row in printed(table)]
    labels = {"random tokens": "nothing planted", "Zipf": "nothing, tokens by Zipf's law"}
    names = [name for name in dict.fromkeys(row["texts"] for row in rows) if name != "dealt out"]
    for number, name in enumerate(names):
        some = [row for row in rows if row["texts"] == name]
        rate, error = np.array(
            [[float(part.strip(" %")) for part in row["alike and own"].split("±")] for row in some]
        ).T
        colour, at = COLOURS[number % len(COLOURS)], [int(row["restarts"]) for row in some]
        axes.errorbar(at, rate, 2 * error, label=labels.get(name, name), color=colour, marker="o", ms=4)
    axes.axhline(100 * ALPHA, color="0.6", lw=1, ls="--")
    axes.set(xlabel="restarts", ylabel="called alike and its own, %", ylim=(-3, 103), xticks=(4, 6, 8, 12))
    axes.legend(fontsize=7, loc="center right")
    return drawn


def main() -> None:
    """Prints a table in Markdown, or draws those that were printed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("level", "power", "curves"))
    parser.add_argument("--repetitions", type=int, default=600)
    parser.add_argument("--tables", type=Path, nargs="+", help="what level and power printed, for curves")
    parser.add_argument("--figure", type=Path, help="where curves are drawn, .svg or .png")
    asked = parser.parse_args()
    if asked.what == "curves":
        asked.figure.write_bytes(image(lambda: curves(asked.tables), asked.figure.suffix[1:]))
        return
    bank = Bank()
    if asked.what == "level":
        for name, draw in {"random tokens": random, "dealt out": dealt, "Zipf": zipf}.items():
            for restarts in (4, 8, 12):
                row(bank, name, draw, restarts, asked.repetitions)
    else:
        for k in (1, 2, 3):
            for restarts in (4, 6, 8, 12):
                row(bank, f"{k} of {TOKENS} tokens of a topic", planted(k), restarts, asked.repetitions)


if __name__ == "__main__":
    main()
