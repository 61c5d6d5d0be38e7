"""Sequences of real text, for a search among them."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from actmax.errors import InputError, renamed
from actmax.search.alphabet import Alphabet
from actmax.text.files import text_files
from actmax.text.windows import pieces

PIECES = 100_000
"""Largest number of sequences that are kept of a text, a random choice."""


def real_text(alphabet: Alphabet, text: Path, *, tokens: int) -> Int[Tensor, "sequences tokens"]:
    """Runs of consecutive tokens of a text, each once, in random order; only those that give themselves back.

    Args:
        alphabet: the tokens that may be used, and their tokenizer.
        text: a text file, or a folder of .txt files.
        tokens: length of a sequence.

    Raises:
        InputError: there is no text, or none so long.
    """
    with renamed({"place": "text"}):
        files = text_files(text)
    drawn = pieces(alphabet.subject, files, size=tokens, count=PIECES, seed=0)
    sequences = list(dict.fromkeys(map(tuple, drawn.tolist())))
    kept = [ids for ids, keep in zip(sequences, alphabet.accepts(sequences), strict=True) if keep]
    if not kept:
        raise InputError("text", text, f"must hold text of at least {tokens} tokens")
    return torch.tensor(kept)
