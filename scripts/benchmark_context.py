"""What a context costs: a search's evaluations, a gradient step and a search's gradient, behind and without one.

    python scripts/benchmark_context.py                       # SmolLM2-135M, block 8, begin-of-text
    python scripts/benchmark_context.py --subject tiny --turns 3

Both run in turns in one process, so that whatever else the machine does meets both; printed is the median of the ratios
of neighbouring turns, with their range.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

import actmax
from actmax.maximize.module import Maximization
from actmax.maximize.optimizee import initial, scaled
from actmax.model.context import NONE, Context
from actmax.model.objective import Objective, Row
from actmax.model.settings import ContextSettings
from actmax.model.subject import Subject
from actmax.model.target import Unit
from actmax.search.alphabet import Alphabet
from actmax.search.moves import Moves
from actmax.search.oracle import Evaluate, Oracle, Slopes
from actmax.text.contexts import make_context

TOKENS, RESTARTS, CANDIDATES = 5, 8, 160


def rounds(subject: Subject, context: Context, unit: Unit) -> dict[str, Callable[[], object]]:
    """What is timed, by name: a round of a search's candidates, its gradient, and a step of a gradient run."""
    objective = Objective(context=context)
    alphabet = Alphabet(subject, context=context)
    oracle = Oracle(subject, objective, alphabet, top_k=256)
    moves = [Moves(alphabet, seed, lengths=(TOKENS, TOKENS), start=TOKENS, sign=1.0) for seed in range(RESTARTS)]
    parents = [one.fresh(1)[0] for one in moves]
    tops = oracle.slopes([(unit, Slopes((parent,))) for parent in parents])
    children = [one.children(parent, top[0], CANDIDATES) for one, parent, top in zip(moves, parents, tops, strict=True)]
    rows = [Row(unit, seed) for seed in range(RESTARTS)]
    start = initial(scaled(subject.embedding_matrix, TOKENS), range(RESTARTS))
    module = Maximization(subject, rows, start, objective=objective, steps=1)

    def step() -> None:
        embeddings = start.clone().requires_grad_()
        module.objective.loss(module.activations(embeddings, slice(0, RESTARTS))).sum().backward()

    return {
        f"search, {RESTARTS} x {CANDIDATES} candidates": lambda: oracle.evaluate(
            [(unit, Evaluate(some)) for some in children]
        ),
        "search, its gradient": lambda: oracle.slopes([(unit, Slopes((parent,))) for parent in parents]),
        f"gradient step, {RESTARTS} restarts": step,
    }


def main() -> None:
    """Times the two in turns and prints their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subject", default="smollm2")
    parser.add_argument("--unit", default="resid_pre.8[91]")
    parser.add_argument("--context", default="bos", help="a name of conf/context, or a text that is a prefix")
    parser.add_argument("--turns", type=int, default=15)
    asked = parser.parse_args()
    subject, unit = actmax.load(asked.subject).subject, Unit.parse(asked.unit)
    named = asked.context in ("bos", "text")
    settings = ContextSettings(name=asked.context) if named else ContextSettings(name="prefix", text=asked.context)
    context = make_context(subject, settings, tokens=TOKENS)
    without, behind = rounds(subject, NONE, unit), rounds(subject, context, unit)
    print(
        f"{asked.subject}, {unit}, {torch.get_num_threads()} threads, {context.count} x {context.length} tokens before"
    )
    for name in without:
        times = []
        for _ in range(asked.turns + 1):
            pair = []
            for act in (without[name], behind[name]):
                begun = time.perf_counter()
                act()
                pair.append(time.perf_counter() - begun)
            times.append(pair)
        pairs = np.array(times[1:])  # the first turn warms up
        ratios = pairs[:, 1] / pairs[:, 0]
        spread = f"{ratios.min():.2f} to {ratios.max():.2f}"
        print(f"{name}: {np.median(ratios):.2f} ({spread}); without {pairs[:, 0].min():.4f} s")


if __name__ == "__main__":
    main()
