"""Where a restart starts: the initial embedding of each seed, drawn the same way on any device and in any batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from actmax.errors import InputError

Start = Callable[[int], Tensor]
"""A seed in, its initial embedding (tokens, d_model) out, float32 on the CPU."""


def _generator(seed: int) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)


def scaled(embedding_matrix: Float[Tensor, "vocabulary d_model"], tokens: int) -> Start:
    """Gaussian noise with the standard deviation of the token-embedding matrix's entries."""
    scale = embedding_matrix.detach().float().cpu().std()  # a GPU would round otherwise
    width = embedding_matrix.shape[1]
    return lambda seed: torch.randn(tokens, width, generator=_generator(seed)) * scale


def randn(embedding_matrix: Float[Tensor, "vocabulary d_model"], tokens: int) -> Start:
    """Gaussian noise with standard deviation 1."""
    width = embedding_matrix.shape[1]
    return lambda seed: torch.randn(tokens, width, generator=_generator(seed))


def from_tokens(embedding_matrix: Float[Tensor, "vocabulary d_model"], tokens: int) -> Start:
    """The embeddings of tokens drawn uniformly from the vocabulary."""
    matrix = embedding_matrix.detach()

    def start(seed: int) -> Tensor:
        ids = torch.randint(len(matrix), (tokens,), generator=_generator(seed))
        return matrix[ids.to(matrix.device)].float().cpu()

    return start


def from_record(folder: Path, which: str, tokens: int, d_model: int) -> Start:
    """The embeddings that an earlier job left, by seed (`initial` or `final`).

    Raises:
        InputError: there is no such file, it is damaged, of another shape, holds several units, or lacks a seed.
    """
    file = folder / "embeddings.safetensors" if folder.is_dir() else folder
    try:
        with safe_open(file, framework="pt") as stream:
            saved, seeds = stream.get_tensor(which), stream.get_tensor("seeds").tolist()
    except (OSError, SafetensorError) as error:
        allowed = f"must be a record's folder with a whole embeddings.safetensors that holds '{which}' ({error})"
        raise InputError("init.path", folder, allowed) from error
    if saved.shape[1:] != (tokens, d_model):
        allowed = f"must hold embeddings of {tokens} tokens x {d_model} dims; it holds {tuple(saved.shape[1:])}"
        raise InputError("init.path", folder, allowed, "Set tokens and subject to the record's.")
    if len(set(seeds)) != len(seeds):
        raise InputError("init.path", folder, "must hold one unit, so that a seed names one embedding")
    if len(seeds) != len(saved):
        raise InputError("init.path", folder, f"must name a seed for each of its {len(saved)} embeddings")
    by_seed = dict(zip(seeds, saved.float(), strict=True))

    def start(seed: int) -> Tensor:
        if seed not in by_seed:
            raise InputError("seeds", seed, f"must be among the record's seeds {sorted(by_seed)} with init=file")
        return by_seed[seed]

    return start


def initial(start: Start, seeds: Sequence[int]) -> Float[Tensor, "restarts tokens d_model"]:
    """The initial embeddings of some restarts, a row per seed.

    Raises:
        InputError: a start is not finite.
    """
    rows = torch.stack([start(seed) for seed in seeds])
    if not torch.isfinite(rows).all():
        raise InputError("init", "not finite", "the initial embeddings must be finite numbers")
    return rows
