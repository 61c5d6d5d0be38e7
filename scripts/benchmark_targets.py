"""What directions cost beside coordinates: a gradient step and a search's evaluations of 64 targets of one place.

    python scripts/benchmark_targets.py                       # SmolLM2-135M, resid_pre.8
    python scripts/benchmark_targets.py --subject tiny --place resid_pre.2 --turns 3

Both run in turns in one process, so that whatever else the machine does meets both; printed is the median of the ratios
of neighbouring turns, with their range.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

import actmax
from actmax.maximize.module import Maximization
from actmax.maximize.optimizee import initial, scaled
from actmax.model.objective import Objective, Row
from actmax.model.subject import Subject
from actmax.model.target import Direction, Target, Unit
from actmax.search.alphabet import Alphabet
from actmax.search.oracle import Evaluate, Oracle

TOKENS, TARGETS, CANDIDATES = 5, 64, 20


def rounds(subject: Subject, targets: Sequence[Target]) -> dict[str, Callable[[], object]]:
    """What is timed, by name: a step of a gradient run, a restart of each target, and a round of candidates."""
    rows = [Row(target, 0) for target in targets]
    start = initial(scaled(subject.embedding_matrix, TOKENS), [0] * len(rows))
    module = Maximization(subject, rows, start, objective=Objective(), steps=1)
    oracle = Oracle(subject, Objective(), Alphabet(subject), top_k=256)
    ids = subject.plain_tokens[torch.randint(len(subject.plain_tokens), (TARGETS, CANDIDATES, TOKENS))].tolist()
    asked = [(one, Evaluate(tuple(map(tuple, some)))) for one, some in zip(targets, ids, strict=True)]

    def step() -> None:
        embeddings = start.clone().requires_grad_()
        module.objective.loss(module.activations(embeddings, slice(0, len(rows)))).sum().backward()

    return {
        f"gradient step, {TARGETS} targets": step,
        f"search, {TARGETS} x {CANDIDATES} candidates": lambda: oracle.evaluate(asked),
    }


def main() -> None:
    """Times the two in turns and prints their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subject", default="smollm2")
    parser.add_argument("--place", default="resid_pre.8")
    parser.add_argument("--turns", type=int, default=15)
    asked = parser.parse_args()
    torch.manual_seed(0)
    subject = actmax.load(asked.subject).subject
    site, _, layer = asked.place.partition(".")
    width = subject.geometry.width(site)
    vectors = np.random.default_rng(0).normal(size=(TARGETS, width)) / np.sqrt(width)
    units = [Unit(site, int(layer), index) for index in range(TARGETS)]
    directions = [Direction(site, int(layer), w, name=str(n), index=n) for n, w in enumerate(vectors)]
    by_unit, by_direction = rounds(subject, units), rounds(subject, directions)
    print(f"{asked.subject}, {TARGETS} targets at {asked.place}, {torch.get_num_threads()} threads")
    for name in by_unit:
        times = []
        for _ in range(asked.turns + 1):
            pair = []
            for act in (by_unit[name], by_direction[name]):
                begun = time.perf_counter()
                act()
                pair.append(time.perf_counter() - begun)
            times.append(pair)
        pairs = np.array(times[1:])  # the first turn warms up
        ratios = pairs[:, 1] / pairs[:, 0]
        spread = f"{ratios.min():.2f} to {ratios.max():.2f}"
        print(f"{name}: directions {np.median(ratios):.2f} ({spread}); coordinates {pairs[:, 0].min():.4f} s")


if __name__ == "__main__":
    main()
