"""Makes the built-in list of 100 nouns and 100 verbs, and prints its balance.

The pools below were read by hand from the words of 4 to 9 letters that lemminflect (the NIH SPECIALIST lexicon) knows
under one part of speech only, as their own base form. From them the script takes the 100 pairs of a noun and a verb
that lie closest in sub-token count, length and frequency; the pairing serves the choice alone, and no test pairs them.
Frequencies are wordfreq's (Zipf scale: log10 of occurrences in a billion words; data CC BY-SA 4.0), sub-tokens those of
one tokenizer. Neither package is a dependency of actmax.

    pip install wordfreq lemminflect tokenizers scipy
    python scripts/nouns_verbs.py TOKENIZER.json src/actmax/words/nouns_verbs.csv
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from lemminflect import getAllLemmas
from scipy.optimize import linear_sum_assignment
from tokenizers import Tokenizer
from wordfreq import zipf_frequency

VERBS = """
believe become remember bring hear include happen learn provide follow send enjoy continue lose seem forget listen
speak write create allow expect consider agree spend imagine protect choose grow carry explain avoid accept appear
receive begin remain apply enter improve prevent decide require prove develop suggest exist remove ensure teach discuss
perform maintain determine recommend seek deserve admit achieve assume prefer describe identify promote suppose attend
deliver prepare manage destroy survive swear contain operate celebrate earn ignore defend occur argue establish
encourage refer suffer solve confirm marry obtain compete discover reflect arrive belong introduce remind engage expand
indicate deny extend commit define explore enable recover relax rely succeed involve submit announce breathe convince
pursue forgive vary relate complain generate attract depend resist adopt qualify examine proceed restore retain
eliminate inform justify acquire disappear intend approve predict adjust assess assure observe alter declare detect
interact withdraw donate differ insist possess subscribe evaluate arrange behave borrow inspire negotiate propose weigh
adapt satisfy admire punish oppose arise translate educate rebuild unite bury emerge consume interfere verify calculate
dominate regulate clarify dismiss tolerate convey imply obey confess endure persuade absorb flee interpret modify
exclude specify conquer
"""
NOUNS = """
family person music president story fact death office history girl friend idea woman community morning child education
street college song month moment road town energy wife industry hour member policy society church movie director
attention brother football quality decision situation hair hospital truth district growth river album century student
committee island treatment region nature computer episode income justice movement safety statement ability knowledge
hotel lady leader sister insurance opinion cancer direction operation analysis marriage disease professor crime reality
agreement equipment nation teacher theory agency camera activity coffee division library location owner hill village
authority artist prison senate winner dinner apple birthday vehicle beauty variety youth injury magazine religion
strategy audience medicine mountain victory accident capacity climate governor museum planet drama actor apartment
identity kitchen aircraft argument talent bird ministry shirt stadium surgery editor kingdom mayor alcohol newspaper
republic territory universe attitude academy category cheese consumer concert factory weapon height princess protein
battery decade theatre childhood comedy cabinet highway jury guitar chamber bedroom poverty railway actress angel
anxiety palace temple uncle fiction happiness legend avenue pizza ceremony diamond bureau colonel dragon illness
minority poetry citizen lifetime medal passenger creek currency funeral legacy frequency heritage luxury infection
courage diversity tissue domain footage symbol treaty darkness fortune tiger wisdom furniture autumn lion oxygen poem
spider dirt recipe biology portrait poet scientist pollution prisoner sheep tobacco basement liver physician cinema
grammar casino creature gentleman farmer salad wallet tragedy cabin eagle deer jewelry tribe athlete lemon teenager
elephant umbrella sunset
"""
WEIGHTS = (4.0, 4.0, 1.0, 2.0)
"""Of a difference of one sub-token with a space before the word, without one, of a letter, and of a Zipf unit."""


def known_as(word: str) -> set[str]:
    """The parts of speech under which the lexicon has the word as its own base form; proper names apart."""
    return {part for part, lemmas in getAllLemmas(word).items() if part != "PROPN" and word in lemmas}


def pool(text: str, part: str) -> list[str]:
    """A pool's words, checked: each once, and unambiguous in the lexicon."""
    words = text.split()
    wrong = [word for word in words if words.count(word) > 1 or known_as(word) != {part}]
    if wrong:
        raise SystemExit(f"not a {part} alone, or named twice: {' '.join(wrong)}")
    return words


def features(words: list[str], tokenizer: Tokenizer) -> np.ndarray:
    """Sub-tokens with and without a space, letters, and Zipf frequency: a row per word."""
    return np.array([[_length(tokenizer, f" {word}"), _length(tokenizer, word), len(word), zipf_frequency(word, "en")]
                     for word in words], dtype=float)  # fmt: skip


def _length(tokenizer: Tokenizer, text: str) -> int:
    return len(tokenizer.encode(text, add_special_tokens=False).ids)


def matched(nouns: np.ndarray, verbs: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the closest pairs."""
    cost = (np.abs(nouns[:, None] - verbs[None]) * WEIGHTS).sum(2)
    rows, columns = linear_sum_assignment(cost)
    best = np.argsort(cost[rows, columns], kind="stable")[:size]
    return rows[best], columns[best]


def main() -> None:
    """Reads the pools, matches, writes and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(arguments.tokenizer))
    words = {"noun": pool(NOUNS, "NOUN"), "verb": pool(VERBS, "VERB")}
    found = {name: features(some, tokenizer) for name, some in words.items()}
    chosen = dict(zip(words, matched(found["noun"], found["verb"], 100), strict=True))
    lines = [f"{word},{name}" for name, some in words.items() for word in sorted(some[row] for row in chosen[name])]
    arguments.output.write_text("\n".join(["word,category", *lines, ""]), encoding="utf-8")
    for name, rows in chosen.items():
        mean, sd = found[name][rows].mean(0), found[name][rows].std(0, ddof=1)
        print(name, "sub-tokens with a space, without, letters, Zipf: mean", mean.round(3), "sd", sd.round(3))


if __name__ == "__main__":
    main()
