"""Candidates evaluated per second: a token search of ours against nanoGCG's own loop, same model and objective.

    pip install nanogcg
    python scripts/benchmark_search.py [--alternations 5] [--device cuda]

Both evaluate the same 1280 sequences of 5 tokens, what 8 restarts of `search=gcg` ask in a step: 160 swaps of one
token of each of 8 sequences, for the mean activation of one unit of SmolLM2 (`--subject tiny` tries the script).
nanoGCG's `GCG` runs unchanged; only its model is wrapped, so that it also gives the activation: `whole` runs the whole
model and its head, as nanoGCG does, `no head` spares it the head. Ours runs no block above the target, and shared
beginnings once. Prints JSON: candidates per second, and the ratio's median, least and most over the alternations.
Where nanoGCG is not installed, actmax's own row is measured alone.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import time
from pathlib import Path
from types import SimpleNamespace

import torch

import actmax
from actmax.model.objective import Objective
from actmax.model.target import Unit
from actmax.search.alphabet import Alphabet
from actmax.search.moves import Moves
from actmax.search.oracle import Evaluate, Oracle

UNITS = {"smollm2": Unit("resid_pre", 8, 91), "tiny": Unit("resid_pre", 2, 7)}
RESTARTS, CANDIDATES, TOKENS = 8, 160, 5


class Watched(torch.nn.Module):
    """A model whose forward pass also leaves the unit's activation; `head` says whether it makes real logits."""

    def __init__(self, subject, unit, *, head):
        super().__init__()
        self.model, self.unit, self.head = subject.model if head else subject.base, unit, head
        self.embeddings = subject.model.get_input_embeddings()
        self.dtype, self.device = subject.model.dtype, subject.model.device
        self.activations = []

    def get_input_embeddings(self):
        """What nanoGCG asks for."""
        return self.embeddings

    def forward(self, inputs_embeds):
        """Logits, and the activation on the side."""
        out = self.model(inputs_embeds=inputs_embeds, output_hidden_states=True, use_cache=False)
        self.activations.append(out.hidden_states[self.unit.layer][..., self.unit.index].mean(1))
        return SimpleNamespace(logits=out.logits if self.head else inputs_embeds[..., :2])


def theirs(subject, unit, embeddings, *, head):
    """The evaluation of nanoGCG as something to call; it returns the activations."""
    from nanogcg import GCGConfig
    from nanogcg.gcg import GCG

    model = Watched(subject, unit, head=head)
    gcg = GCG(model, subject.tokenizer, GCGConfig(allow_non_ascii=True, use_prefix_cache=False))
    gcg.target_ids = torch.zeros(1, 1, dtype=torch.long, device=model.device)

    def evaluate():
        model.activations.clear()
        gcg._compute_candidates_loss_original(RESTARTS * CANDIDATES, embeddings)
        return torch.cat(model.activations)

    return evaluate


def ours(subject, unit, sequences):
    """The same by our oracle."""
    oracle = Oracle(subject, Objective(), Alphabet(subject), top_k=256)
    asked = [(unit, Evaluate(tuple(sequences[i : i + CANDIDATES]))) for i in range(0, len(sequences), CANDIDATES)]

    def evaluate():
        return torch.cat([torch.from_numpy(scored.activation) for scored in oracle.evaluate(asked)])

    return evaluate


def main():
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--alternations", type=int, default=5)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--subject", choices=("smollm2", "tiny"), default="smollm2", help="tiny: to try the script")
    parser.add_argument("--json", type=Path, help="a file for what is printed")
    arguments = parser.parse_args()
    subject, unit = actmax.load(arguments.subject).subject.to(arguments.device), UNITS[arguments.subject]
    moves = Moves(Alphabet(subject), 0, lengths=(TOKENS, TOKENS), start=TOKENS, sign=1.0)
    tops = torch.stack([moves.alphabet.ids[torch.randperm(len(moves.alphabet.ids))[:256]] for _ in range(TOKENS)])
    sequences = [child for one in moves.fresh(RESTARTS) for child in moves.children(one, tops, CANDIDATES)]
    with torch.no_grad():
        embeddings = subject.embed(torch.tensor(sequences))
    ways = {"actmax": ours(subject, unit, sequences)}
    if importlib.util.find_spec("nanogcg"):
        ways["nanogcg, no head"] = theirs(subject, unit, embeddings, head=False)
        ways["nanogcg, whole"] = theirs(subject, unit, embeddings, head=True)
    for evaluate in ways.values():  # the first call of a device also loads its kernels
        evaluate()
    seconds, found = {name: [] for name in ways}, {}
    for _ in range(arguments.alternations):
        for name, evaluate in ways.items():
            begun = time.perf_counter()
            found[name] = evaluate().double().cpu()
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
        "device": torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(said, indent=2))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(said, indent=2) + "\n")


if __name__ == "__main__":
    main()
