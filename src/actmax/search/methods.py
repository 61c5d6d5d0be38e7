"""The searches, each written for one restart: a generator that asks and is answered.

So a restart cannot know which others share its batches.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from actmax.errors import InputError
from actmax.search.moves import Moves
from actmax.search.oracle import Evaluate, Scored, Slopes

Questions: TypeAlias = Generator[Evaluate | Slopes, Any, None]
"""What a restart asks, one question at a time, until it is no longer answered."""


@dataclass(frozen=True)
class SearchSettings:
    """How to search."""

    method: str = "gcg"
    """A name of `METHODS`."""
    passes: int = 2000
    """Forward passes per restart."""
    candidates: int = 160
    """Sequences to evaluate per step of a restart."""
    top_k: int = 256
    """Tokens per position that a swap may take, by their slope."""
    patience: int = 5
    """Steps of gcg without a better sequence, before it goes on from a disturbed one."""
    generations: int = 30
    """Of epo, between two collapses of the population."""
    weights: tuple[float, ...] = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
    """λ of epo's population: standard deviations of the unit over random tokens, per nat."""
    lengths: tuple[int, int] = field(default=(5, 5))
    """The shortest and the longest sequence."""
    only_text: bool = True
    """Leave out tokens and sequences that nobody can type."""
    text: str | None = None
    """Of `text`: a text file, or a folder of .txt files, whose sequences are evaluated."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError("search.method", self.method, f"must be one of {', '.join(METHODS)}")
        if self.fluency and self.lengths[0] < 2:
            raise InputError("tokens", self.lengths[0], "must be at least 2 with search=epo: one has no fluency")
        if self.method == "text" and self.text is None:
            raise InputError("search.text", None, "must be a text file or a folder of .txt files with search=text")

    @classmethod
    def of(cls, content: Mapping[str, Any], *, tokens: int) -> SearchSettings:
        """From a config's `search`, for sequences of one length."""
        return cls(**{**content, "weights": tuple(content["weights"]), "lengths": (tokens, tokens)})

    @property
    def source(self) -> Path | None:
        """The text that the method reads, if it reads any."""
        return Path(self.text) if self.method == "text" and self.text is not None else None

    @property
    def fluency(self) -> bool:
        """Whether cross-entropy counts."""
        return self.method == "epo"


def random(moves: Moves, settings: SearchSettings, weights: tuple[float, ...]) -> Questions:  # noqa: ARG001
    """Sequences drawn uniformly: the floor that a search must leave."""
    while True:
        yield Evaluate(moves.fresh(settings.candidates))


def text(moves: Moves, settings: SearchSettings, weights: tuple[float, ...]) -> Questions:  # noqa: ARG001
    """Sequences of a text, drawn uniformly: what is to be had without any search where there is text to read."""
    while sequences := moves.real(settings.candidates):
        yield Evaluate(sequences)


def gcg(moves: Moves, settings: SearchSettings, weights: tuple[float, ...]) -> Questions:  # noqa: ARG001
    """Greedy coordinate gradient (Zou et al. 2023, arXiv:2307.15043, algorithm 1), for an activation.

    A step takes the gradient to the one-hot tokens of the current sequence, draws swaps of one position for one of the
    `top_k` tokens with the largest slope there, evaluates them, and moves to the best. Unlike there, it moves only
    uphill, never evaluates a sequence twice, and after `patience` steps in vain goes on from the best of as many
    disturbed copies of the best sequence (each position drawn anew with probability one half).
    """
    current = _best((yield Evaluate(moves.fresh(settings.candidates))), moves.sign)
    best, idle = current, 0
    while True:
        (tops,) = yield Slopes((current[0],))
        children = moves.children(current[0], tops, settings.candidates)
        found = _best((yield Evaluate(children)), moves.sign) if children else current
        better = moves.sign * found[1] > moves.sign * current[1]
        current, idle = (found, 0) if better else (current, idle + 1)
        best = current if moves.sign * current[1] > moves.sign * best[1] else best
        if idle > settings.patience or not children:
            current, idle = _best((yield Evaluate(moves.disturbed(best[0], settings.candidates))), moves.sign), 0


def epo(moves: Moves, settings: SearchSettings, weights: tuple[float, ...]) -> Questions:
    """Evolutionary prompt optimization (Thompson, Straznickas & Sklar 2024, arXiv:2402.01702), for an activation.

    A member of the population for each λ; a generation takes every member's gradient of activation - λ · cross-entropy
    to its one-hot tokens, draws children by swaps within the `top_k` tokens, evaluates all of them, and gives each λ
    the best of parents and children. Every `generations`, the best member under a λ drawn from them remains, and the
    population begins anew from copies of it, here disturbed ones (each position drawn anew with probability one half),
    for else it climbs back to where it was.
    """
    share = -(-settings.candidates // len(weights))
    population = yield Evaluate(moves.fresh(settings.candidates), fluency=True)
    while True:
        for _ in range(settings.generations):
            population = _survivors(population, weights, moves.sign)
            tops = yield Slopes(population.sequences, weights)
            pairs = zip(population.sequences, tops, strict=True)
            children = tuple(child for parent, some in pairs for child in moves.children(parent, some, share))
            if not children:
                break
            population = _joined(population, (yield Evaluate(children, fluency=True)))
        drawn = weights[moves.draw(len(weights))]
        keeper = _survivors(population, (drawn,), moves.sign).sequences[0]
        population = yield Evaluate(moves.disturbed(keeper, settings.candidates), fluency=True)


METHODS: dict[str, Callable[[Moves, SearchSettings, tuple[float, ...]], Questions]] = {
    "gcg": gcg,
    "epo": epo,
    "random": random,
    "text": text,
}
"""A restart's questions, from its moves, the settings, and λ in activations per nat."""


def _best(scored: Scored, sign: float) -> tuple[tuple[int, ...], float]:
    number = int(scored.worth(sign).argmax())
    return scored.sequences[number], float(scored.activation[number])


def _survivors(scored: Scored, weights: tuple[float, ...], sign: float) -> Scored:
    """The best sequence under each weight."""
    rows = np.array([scored.worth(sign, weight).argmax() for weight in weights])
    return Scored(tuple(scored.sequences[row] for row in rows), scored.activation[rows], scored.cross_entropy[rows])


def _joined(one: Scored, two: Scored) -> Scored:
    numbers = (np.concatenate([getattr(one, name), getattr(two, name)]) for name in ("activation", "cross_entropy"))
    return Scored(one.sequences + two.sequences, *numbers)
