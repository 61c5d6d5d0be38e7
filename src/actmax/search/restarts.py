"""Many restarts of a search, side by side in shared batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from actmax.model import evaluation
from actmax.model.objective import Objective, Row
from actmax.model.settings import GapSettings
from actmax.model.subject import Subject
from actmax.model.target import Target
from actmax.search.alphabet import Alphabet, Ids
from actmax.search.front import Point, front_of
from actmax.search.methods import METHODS
from actmax.search.moves import Moves
from actmax.search.oracle import Evaluate, Oracle, Scored, Slopes
from actmax.search.pieces import real_text
from actmax.search.settings import SearchSettings

Answered: TypeAlias = Tensor | list[Tensor]
"""An answer as it is kept: activations and cross-entropies of sequences, or the best tokens of some."""


@dataclass(frozen=True)
class Found:
    """What one restart of a search found."""

    row: Row
    """The restart: its unit and its seed."""
    initial: Ids
    """The first sequence that was drawn."""
    activation_initial: float
    """Activation of the first sequence."""
    ids: Ids
    """The sequence with the best activation."""
    activation: float
    """Activation of the best sequence."""
    passes: int
    """Number of forward passes, a backward pass counted as one."""
    whole_passes: int
    """How many of these ran all blocks, not only those below the target."""
    evaluated: Int[ndarray, " answers"]
    """Number of forward passes up to each answer."""
    trajectory: Float[ndarray, " answers"]
    """The best activation up to each answer."""
    front: tuple[Point, ...]
    """The Pareto front of all evaluated sequences, where fluency counted."""
    weights: tuple[float, ...]
    """Weights λ of the population in activations per nat, where fluency counted."""
    sign: float
    """-1 where the activation was minimized, else 1."""


def _kept(answer: Scored | list) -> Answered:
    """An answer in the form in which it is kept."""
    if isinstance(answer, Scored):
        return torch.from_numpy(np.stack([answer.activation, answer.cross_entropy]))
    return [tops.clone() for tops in answer]


class Restart:
    """A restart under way: its next question, and what the answers so far have shown.

    Args:
        row: unit and seed.
        alphabet: the tokens that may be used.
        settings: the search method and its settings.
        tokens: the length of the first sequences.
        lengths: the shortest and the longest sequence that may be tried.
        sign: -1 where the activation is minimized.
        spread: the unit's standard deviation over random tokens, in which λ counts.
        text: sequences of real text, for a search among them.
    """

    def __init__(
        self,
        row: Row,
        alphabet: Alphabet,
        settings: SearchSettings,
        *,
        tokens: int,
        lengths: tuple[int, int],
        sign: float,
        spread: float,
        text: Int[Tensor, "sequences tokens"] | None = None,
    ) -> None:
        self.row, self.sign, self.budget = row, sign, settings.passes
        self.weights = tuple(weight * spread for weight in settings.weights) if settings.fluency else ()
        moves = Moves(alphabet, row.seed, lengths=lengths, start=tokens, sign=sign, text=text)
        self._questions = METHODS[settings.method](moves, settings, self.weights)
        self._seen: list[tuple[int, float]] = []
        self._first: Point | None = None
        self._best: Point | None = None
        self._front: tuple[Point, ...] = ()
        self.answers: list[Answered] = []
        self.passes = self.whole_passes = 0
        self.question = self._within(next(self._questions))

    def answer(self, answer: Scored | list) -> None:
        """Takes the answer to the question, and sets the next one; None once the budget is spent."""
        asked = self.question
        if asked is None:
            raise ValueError("there was no question")
        self.passes += asked.passes
        self.whole_passes += asked.passes if asked.fluency else 0
        self.answers.append(_kept(answer))
        if isinstance(answer, Scored):
            self._record(answer)
        try:
            self.question = self._within(self._questions.send(answer))
        except StopIteration:  # every sequence of a text has been evaluated
            self.question = None

    def replay(self, answers: Sequence[Answered]) -> None:
        """Takes answers that were given before an interruption; nothing is evaluated again."""
        for answer in answers:
            asked = self.question
            if asked is None:
                raise ValueError("more answers than questions")
            self.answer(Scored(asked.sequences, *answer.numpy()) if isinstance(answer, Tensor) else answer)

    def _within(self, asked: Evaluate | Slopes) -> Evaluate | Slopes | None:
        """As much of a question as the budget allows; None where that is nothing."""
        left = self.budget - self.passes
        if isinstance(asked, Slopes):
            return asked if asked.passes < left else None  # a gradient is worth nothing without a candidate
        return replace(asked, sequences=asked.sequences[:left]) if left > 0 else None

    def _record(self, scored: Scored) -> None:
        """Keeps the best sequence, the trajectory and, where fluency counts, the front."""
        worth = scored.worth(self.sign)
        number = int(worth.argmax())
        self._first = self._first or scored.point(0)
        # Written so that a best activation that is NaN is replaced too.
        if self._best is None or not worth[number] <= self.sign * self._best.activation:
            self._best = scored.point(number)
        self._seen.append((self.passes, self._best.activation))
        if self.weights:
            self._front = front_of([*self._front, *scored.front(self.sign)], sign=self.sign)

    @property
    def found(self) -> Found:
        """What has been found so far."""
        if self._first is None or self._best is None:
            raise ValueError("nothing has been evaluated")
        evaluated, trajectory = zip(*self._seen, strict=True)
        return Found(
            row=self.row,
            initial=self._first.ids,
            activation_initial=self._first.activation,
            ids=self._best.ids,
            activation=self._best.activation,
            passes=self.passes,
            whole_passes=self.whole_passes,
            evaluated=np.array(evaluated),
            trajectory=np.array(trajectory),
            front=self._front,
            weights=self.weights,
            sign=self.sign,
        )


def search(
    subject: Subject,
    objective: Objective,
    rows: Sequence[Row],
    settings: SearchSettings,
    *,
    tokens: int = 5,
    spread: Mapping[Target, float] | None = None,
    lengths: tuple[int, int] | None = None,
    max_rows: int | None = None,
    progress: Callable[[int, int], bool] | None = None,
    answers: Sequence[Sequence[Answered]] = (),
    keep: Callable[[list[list[Answered]]], object] | None = None,
) -> list[Found]:
    """Searches from every row, in shared batches.

    What a restart finds depends on its unit, its seed and the settings, beyond rounding on nothing else.

    Args:
        subject: the language model.
        objective: what restarts are optimized for.
        rows: the restarts.
        settings: the search method and its settings.
        tokens: the length of the first sequences.
        lengths: the shortest and the longest sequence; None: all as long as the first.
        spread: each unit's standard deviation over random tokens (`spreads`), in which λ counts; 1 where none is given.
        max_rows: sequences per forward pass.
        progress: called after each round with passes done and to do, over all restarts; True stops. With `answers` it
            is called before the first round too, with the passes that they took.
        answers: the answers of each row before an interruption: the search goes on behind them.
        keep: called after each round with all answers so far, for such a use.

    Returns:
        What each row found, in order.
    """
    lengths = lengths or (tokens, tokens)
    settings.check_length(lengths[0])
    alphabet = Alphabet(subject, only_text=settings.only_text, context=objective.context)
    oracle = Oracle(subject, objective, alphabet, top_k=settings.top_k, max_rows=max_rows)
    text = None if settings.source is None else real_text(alphabet, settings.source, tokens=tokens)
    make = partial(Restart, tokens=tokens, lengths=lengths, sign=oracle.sign, text=text)
    restarts = [make(row, alphabet, settings, spread=(spread or {}).get(row.unit, 1.0)) for row in rows]
    for one, before in zip(restarts, answers, strict=False):
        one.replay(before)
    _rounds(oracle, restarts, progress, keep)
    return [one.found for one in restarts]


def _rounds(
    oracle: Oracle,
    restarts: Sequence[Restart],
    progress: Callable[[int, int], bool] | None,
    keep: Callable[[list[list[Answered]]], object] | None,
) -> None:
    """Answers the questions of all restarts, until none asks or `progress` stops; both are called as `search` says."""

    def stopped() -> bool:
        done, budget = sum(one.passes for one in restarts), sum(one.budget for one in restarts)
        return progress is not None and progress(done, budget)

    if any(one.answers for one in restarts):  # of an earlier run; a stop is asked about behind a round
        stopped()
    while any(one.question is not None for one in restarts):
        _round(oracle, restarts)
        if keep is not None:
            keep([one.answers for one in restarts])
        if stopped():
            break


def _round(oracle: Oracle, restarts: Sequence[Restart]) -> None:
    """Answers the questions of all restarts; gradients and evaluations each share batches."""
    for kind, answers in ((Slopes, oracle.slopes), (Evaluate, oracle.evaluate)):
        asking = [one for one in restarts if isinstance(one.question, kind)]
        if asking:
            asked = [(one.row.unit, one.question) for one in asking]
            for one, answer in zip(asking, answers(asked), strict=True):  # pyright: ignore[reportArgumentType]
                one.answer(answer)


@torch.no_grad()
def spreads(
    subject: Subject,
    objective: Objective,
    units: Sequence[Target],
    *,
    tokens: int,
    settings: GapSettings,
    cache: Path | None = None,
) -> dict[Target, float]:
    """The standard deviation of each unit over random token sequences; 1 where it does not vary.

    Args:
        subject: the language model.
        objective: what restarts are optimized for.
        units: the units.
        tokens: length of the sequences.
        settings: number and seed of the sequences.
        cache: the folder that keeps activations of random sequences.
    """
    units = tuple(dict.fromkeys(units))
    drawn = evaluation.random_activations(subject, objective, units, tokens, settings, cache).std(axis=0, ddof=1)
    return {unit: float(value) if value > 0 else 1.0 for unit, value in zip(units, drawn, strict=True)}
