"""Whether what a search found for a direction is of the category that the direction was made for.

    python scripts/category.py SEARCH_RECORD TUNING_RECORD

A text's score is its projection, in wordllama's table (which has nothing to do with the subject), on the mean vector of
the tuning job's group 1 less that of its group 0, in units of the distance between these means: 0 is midway, 0.5 is a
word of group 1. Words that the text itself holds are no matter: the table knows meanings, not the direction. Null: as
many texts of random plain tokens, 9,999 times; p is one-sided. The restart is the replicate. Prints a row per target,
the groups' own words first, and beside each direction of the labels those of shuffled labels.

For nouns and verbs, where lemminflect is installed (pip install lemminflect: the NIH SPECIALIST lexicon), a second
table asks the lexicon: of a text's tokens that it knows, how many more are a verb and no noun than a noun and no verb.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

import actmax
from actmax.model.evaluation import random_tokens
from actmax.model.subject import Subject
from actmax.model.target import target_of_row
from actmax.text.embedders import make_embedder
from actmax.text.settings import MeaningSettings

DRAWS = 9_999
POOL = 4_000


def main() -> None:
    """Reads both records and prints the table."""
    search, tuning = (Path(place) for place in sys.argv[1:3])
    found = actmax.open(search)
    subject = actmax.load(found.config["subject"]["name"]).subject
    embed = make_embedder(MeaningSettings(embedder="wordllama"), subject, ())
    words = pd.read_parquet(tuning / "words.parquet")
    categories = list(dict.fromkeys(words["category"]))
    groups = [embed(words.loc[words["category"] == name, "word"].tolist()).vectors for name in categories]
    middle, apart = (groups[0].mean(0) + groups[1].mean(0)) / 2, groups[1].mean(0) - groups[0].mean(0)

    def score(texts: list[list[str]]) -> np.ndarray:
        return (embed(["".join(one) for one in texts]).vectors - middle) @ apart / (apart @ apart)

    for name, vectors in zip(categories, groups, strict=True):
        own = (vectors - middle) @ apart / (apart @ apart)
        print(f"{name}, {len(own)} words: {own.mean():.2f} ± {own.std(ddof=1):.2f}")
    print_table("by the table of meanings", found, subject, score)
    if importlib.util.find_spec("lemminflect") and set(categories) == {"noun", "verb"}:
        print_table("by the lexicon", found, subject, by_lexicon)


def print_table(
    title: str, found: actmax.Result, subject: Subject, score: Callable[[list[list[str]]], np.ndarray]
) -> None:
    """A row per target: the mean score of its restarts' texts, beside that of as many random texts."""
    pool, rows = scored(found, subject, score)
    print(f"{title}: random texts of {found.config['tokens']} tokens: {pool.mean():.2f} ± {pool.std(ddof=1):.2f}")
    for name, own, null in rows:
        p = (1 + (null >= own.mean()).sum()) / (1 + DRAWS)
        limit, spread = np.sort(null)[int(0.95 * (DRAWS + 1)) - 1], own.std(ddof=1)
        print(f"{name}: {own.mean():.2f} ± {spread:.2f}, {len(own)} restarts; chance up to {limit:.2f}, p = {p:.4f}")


def scored(
    found: actmax.Result, subject: Subject, score: Callable[[list[list[str]]], np.ndarray]
) -> tuple[np.ndarray, list[tuple[str, np.ndarray, np.ndarray]]]:
    """Scores of random texts, and for each target its name, its restarts' scores, and means of as many random texts."""
    tokens, rng = found.config["tokens"], np.random.default_rng(0)
    drawn = random_tokens(subject, tokens, draws=POOL, seed=0).tolist()
    pool = score([[subject.token(token) for token in ids] for ids in drawn])
    rows = found.tokens.loc[~found.tokens["control"]]
    names = pd.Series([str(target_of_row(row)) for row in rows.to_dict("records")], rows.index)
    targets = []
    for name in dict.fromkeys(names):
        own = score([some["token"].tolist() for _, some in rows[names == name].groupby("seed")])
        targets.append((name, own, rng.choice(pool, (DRAWS, len(own))).mean(1)))
    return pool, targets


def by_lexicon(texts: list[list[str]]) -> np.ndarray:
    """Of each text's tokens that the lexicon knows, the share of verbs that are no nouns less that of the opposite."""
    from lemminflect import getAllLemmas

    def kind(token: str) -> float | None:
        word = token.strip()
        known = set(getAllLemmas(word.lower())) if word.isalpha() and len(word) > 2 else set()
        return float("VERB" in known) - float("NOUN" in known) if known else None

    kinds = [[one for token in text if (one := kind(token)) is not None] for text in texts]
    return np.array([float(np.mean(some)) if some else 0.0 for some in kinds])


if __name__ == "__main__":
    main()
