"""The search methods, each written for one restart: a generator that yields questions and is sent their answers.

So what a restart finds cannot depend on which others share its batches.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeAlias

import numpy as np

from actmax.search.moves import Moves
from actmax.search.oracle import Evaluate, Scored, Slopes
from actmax.search.settings import SearchSettings

Questions: TypeAlias = Generator[Evaluate | Slopes, Any, None]
"""The questions of one restart, one at a time, until its budget is spent."""


def random(moves: Moves, settings: SearchSettings, weights: tuple[float, ...]) -> Questions:  # noqa: ARG001
    """Sequences drawn uniformly: the floor that a search must leave."""
    while True:
        yield Evaluate(moves.fresh(settings.candidates))


def text(moves: Moves, settings: SearchSettings, weights: tuple[float, ...]) -> Questions:  # noqa: ARG001
    """Sequences of a text, drawn uniformly: what real text reaches without any search."""
    while sequences := moves.real(settings.candidates):
        yield Evaluate(sequences)


def gcg(moves: Moves, settings: SearchSettings, weights: tuple[float, ...]) -> Questions:  # noqa: ARG001
    """Greedy coordinate gradient (Zou et al. 2023, arXiv:2307.15043, algorithm 1), for an activation.

    A step takes the gradient to the one-hot tokens of the current sequence, draws swaps of one position for one of the
    `top_k` tokens with the largest slope there, evaluates them, and moves to the best. Unlike there, it moves only
    uphill, never evaluates a sequence twice, and after `patience` steps without a better one goes on from the best of
    `candidates` perturbed copies of the best sequence (each position drawn anew with probability one half).
    """
    current = _best((yield Evaluate(moves.fresh(settings.candidates))), moves.sign)
    best, idle = current, 0
    # `current` is where the search stands, `best` the best sequence so far; both are pairs of tokens and activation.
    while True:
        (tops,) = yield Slopes((current[0],))
        children = moves.children(current[0], tops, settings.candidates)
        found = _best((yield Evaluate(children)), moves.sign) if children else current
        better = moves.sign * found[1] > moves.sign * current[1]
        current, idle = (found, 0) if better else (current, idle + 1)
        best = current if moves.sign * current[1] > moves.sign * best[1] else best
        if idle > settings.patience or not children:
            current, idle = _best((yield Evaluate(moves.perturbed(best[0], settings.candidates))), moves.sign), 0


def epo(moves: Moves, settings: SearchSettings, weights: tuple[float, ...]) -> Questions:
    """Evolutionary prompt optimization (Thompson, Straznickas & Sklar 2024, arXiv:2402.01702), for an activation.

    A member of the population for each λ; a generation takes every member's gradient of activation - λ · cross-entropy
    to its one-hot tokens, draws children by swaps within the `top_k` tokens, evaluates all of them, and gives each λ
    the best of parents and children. Every `generations`, the best member under a λ drawn from them remains, and the
    population begins anew from copies of it, here perturbed ones (each position drawn anew with probability one half):
    unperturbed, it would climb back to where it was.
    """
    # Every member gets the same number of children, rounded up.
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
        survivor = _survivors(population, (drawn,), moves.sign).sequences[0]
        population = yield Evaluate(moves.perturbed(survivor, settings.candidates), fluency=True)


METHODS: dict[str, Callable[[Moves, SearchSettings, tuple[float, ...]], Questions]] = {
    "gcg": gcg,
    "epo": epo,
    "random": random,
    "text": text,
}
"""The methods by name; each takes the restart's moves, the settings, and λ in activations per nat."""


def _best(scored: Scored, sign: float) -> tuple[tuple[int, ...], float]:
    """The sequence with the best activation, and that activation."""
    number = int(scored.worth(sign).argmax())
    return scored.sequences[number], float(scored.activation[number])


def _survivors(scored: Scored, weights: tuple[float, ...], sign: float) -> Scored:
    """The best sequence under each weight λ of activation - λ · cross-entropy."""
    rows = np.array([scored.worth(sign, weight).argmax() for weight in weights])
    return Scored(tuple(scored.sequences[row] for row in rows), scored.activation[rows], scored.cross_entropy[rows])


def _joined(one: Scored, two: Scored) -> Scored:
    """Parents and children in one population."""
    numbers = (np.concatenate([getattr(one, name), getattr(two, name)]) for name in ("activation", "cross_entropy"))
    return Scored(one.sequences + two.sequences, *numbers)
