"""Candidates evaluated per second: a token search of ours against nanoGCG's own loop, same model and objective.

    pip install nanogcg
    python scripts/benchmark_search.py [--alternations 5]

Both evaluate the same 1280 sequences of 5 tokens, what 8 restarts of `search=gcg` ask in a step: 160 swaps of one
token of each of 8 sequences, for the mean activation of one unit of SmolLM2. nanoGCG's `GCG` runs unchanged; only its
model is wrapped, so that it also gives the activation: `whole` runs the whole model and its head, as nanoGCG does, `no
head` spares it the head. Ours runs no block above the target, and shared beginnings once. Prints JSON: candidates per
second, and the ratio's median, least and most over the alternations.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from types import SimpleNamespace

import torch

from actmax.model.objective import Objective
from actmax.model.subject import load
from actmax.model.target import Unit
from actmax.search.alphabet import Alphabet
from actmax.search.moves import Moves
from actmax.search.oracle import Evaluate, Oracle

UNIT, RESTARTS, CANDIDATES, TOKENS = Unit("resid_pre", 8, 91), 8, 160, 5


class Watched(torch.nn.Module):
    """A model whose forward pass also leaves the unit's activation; `head` says whether it makes real logits."""

    def __init__(self, model, *, head):
        super().__init__()
        self.model, self.head = model, head
        self.dtype, self.device = model.dtype, model.device
        self.activations = []

    def get_input_embeddings(self):
        """What nanoGCG asks for."""
        return self.model.get_input_embeddings()

    def forward(self, inputs_embeds):
        """Logits, and the activation on the side."""
        model = self.model if self.head else self.model.model
        out = model(inputs_embeds=inputs_embeds, output_hidden_states=True, use_cache=False)
        self.activations.append(out.hidden_states[UNIT.layer][..., UNIT.index].mean(1))
        return SimpleNamespace(logits=out.logits if self.head else inputs_embeds[..., :2])


def theirs(subject, embeddings, *, head):
    """The evaluation of nanoGCG as something to call; it returns the activations."""
    from nanogcg import GCGConfig
    from nanogcg.gcg import GCG

    model = Watched(subject.model, head=head)
    gcg = GCG(model, subject.tokenizer, GCGConfig(allow_non_ascii=True, use_prefix_cache=False))
    gcg.target_ids = torch.zeros(1, 1, dtype=torch.long)

    def evaluate():
        model.activations.clear()
        gcg._compute_candidates_loss_original(RESTARTS * CANDIDATES, embeddings)
        return torch.cat(model.activations)

    return evaluate


def ours(subject, sequences):
    """The same by our oracle."""
    oracle = Oracle(subject, Objective(), Alphabet(subject), top_k=256)
    asked = [(UNIT, Evaluate(tuple(sequences[i : i + CANDIDATES]))) for i in range(0, len(sequences), CANDIDATES)]

    def evaluate():
        return torch.cat([torch.from_numpy(scored.activation) for scored in oracle.evaluate(asked)])

    return evaluate


def main():
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--alternations", type=int, default=5)
    alternations = parser.parse_args().alternations
    subject = load(name="smollm2", source="wheel", id="smollm2")
    moves = Moves(Alphabet(subject), 0, lengths=(TOKENS, TOKENS), start=TOKENS, sign=1.0)
    tops = torch.stack([moves.alphabet.ids[torch.randperm(len(moves.alphabet.ids))[:256]] for _ in range(TOKENS)])
    sequences = [child for one in moves.fresh(RESTARTS) for child in moves.children(one, tops, CANDIDATES)]
    with torch.no_grad():
        embeddings = subject.embed(torch.tensor(sequences))
    ways = {
        "actmax": ours(subject, sequences),
        "nanogcg, no head": theirs(subject, embeddings, head=False),
        "nanogcg, whole": theirs(subject, embeddings, head=True),
    }
    seconds, found = {name: [] for name in ways}, {}
    for _ in range(alternations):
        for name, evaluate in ways.items():
            begun = time.perf_counter()
            found[name] = evaluate().double()
            seconds[name].append(time.perf_counter() - begun)
    for name, values in found.items():
        assert torch.allclose(values, found["actmax"], atol=1e-3), name  # the same question, the same answer
    ratios = {
        name: [there / here for there, here in zip(seconds[name], seconds["actmax"], strict=True)]
        for name in ways
        if name != "actmax"
    }
    said = {
        "candidates_per_second": {name: len(sequences) / statistics.median(some) for name, some in seconds.items()},
        "actmax_is_faster_by": {
            name: {"median": statistics.median(some), "least": min(some), "most": max(some)}
            for name, some in ratios.items()
        },
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(said, indent=2))


if __name__ == "__main__":
    main()
