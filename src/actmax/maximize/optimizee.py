"""The optimizee: the initial embeddings of restarts, and parameterizations, from which embeddings are computed.

The initial embedding of each seed is the same on any device and in any batch. A parameterization lets the optimizer
move something else in the place of the embedding, so that the embedding stays near text.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from actmax.errors import InputError
from actmax.model.nearest import Vocabulary

Start = Callable[[int], Tensor]
"""From a seed to its initial embedding, shape (tokens, d_model), float32 on the CPU."""


def _generator(seed: int) -> torch.Generator:
    """A generator on the CPU, whose numbers do not depend on the device of the fit."""
    return torch.Generator("cpu").manual_seed(seed)


def scaled(embedding_matrix: Float[Tensor, "vocabulary d_model"], tokens: int) -> Start:
    """Gaussian noise with the standard deviation of the token-embedding matrix's entries."""
    # On the CPU and in float32, for a GPU would round otherwise, and a seed stands for the same noise everywhere.
    scale = embedding_matrix.detach().float().cpu().std()
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
    """The embeddings of an earlier record, by seed; those of its control units are left out.

    Args:
        folder: the record, or its `embeddings.safetensors`.
        which: `initial` or `final`.
        tokens: number of positions that they must have.
        d_model: width that they must have.

    Raises:
        InputError: there is no such file, it is damaged, of another shape, holds several units, or lacks a seed.
    """
    file = folder / "embeddings.safetensors" if folder.is_dir() else folder
    try:
        with safe_open(file, framework="pt") as stream:
            saved, seeds = stream.get_tensor(which), stream.get_tensor("seeds").tolist()
            named = "control" in stream.keys()  # noqa: SIM118 it is no mapping
            control = stream.get_tensor("control") if named else torch.zeros(len(saved), dtype=torch.bool)
    except (OSError, SafetensorError) as error:
        allowed = f"must be a record's folder with a whole embeddings.safetensors that holds '{which}' ({error})"
        raise InputError("folder", folder, allowed) from error
    if saved.shape[1:] != (tokens, d_model):
        allowed = f"must hold embeddings of {tokens} tokens x {d_model} dims; it holds {tuple(saved.shape[1:])}"
        raise InputError("folder", folder, allowed, "Set tokens and subject to the record's.")
    if not len(seeds) == len(saved) == len(control):
        raise InputError("folder", folder, f"must name a seed for each of its {len(saved)} embeddings")
    own = [row for row, beside in enumerate(control.tolist()) if not beside]
    if len({seeds[row] for row in own}) != len(own):
        raise InputError("folder", folder, "must hold one unit, so that a seed names one embedding")
    # Restarts are found by their seeds, so that a job may take some of a record's in any order.
    by_seed = {seeds[row]: saved[row].float() for row in own}

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
        raise InputError("start", "not finite", "the initial embeddings must be finite numbers")
    return rows


class Parameterization(nn.Module, ABC):
    """A map from what the optimizer moves to embeddings, row by row: no restart may depend on another."""

    @abstractmethod
    def start(self, initial: Float[Tensor, "restarts tokens d_model"]) -> Float[Tensor, "restarts tokens width"]:
        """The parameter whose embeddings come nearest to the initial ones, so that a seed defines the start."""

    @abstractmethod
    def embed(
        self, parameter: Float[Tensor, "rows tokens width"], progress: float
    ) -> Float[Tensor, "rows tokens d_model"]:
        """The embeddings that belong to a parameter.

        Args:
            parameter: rows of some restarts.
            progress: share of the steps that have been made, 0 to 1.
        """


class Direct(Parameterization):
    """The identity: the optimizer moves the embeddings themselves."""

    def start(self, initial: Float[Tensor, "restarts tokens d_model"]) -> Float[Tensor, "restarts tokens d_model"]:
        """A copy of the initial embeddings."""
        return initial.clone()  # the optimizer changes it in place

    def embed(
        self,
        parameter: Float[Tensor, "rows tokens d_model"],
        progress: float,  # noqa: ARG002
    ) -> Float[Tensor, "rows tokens d_model"]:
        """The parameter, which is the embeddings."""
        return parameter


class Principal(Parameterization):
    """Coefficients of the token embeddings' first principal components: x = mean + c V, V's rows orthonormal.

    The initial embeddings are projected onto that subspace: c = (x - mean) Vᵀ. Components are eigenvectors of the
    covariance over the vocabulary (Jolliffe 2002, chapter 1), largest variance first, computed in float64 on the CPU;
    their sign is chosen so that the entry of largest size is positive.

    Args:
        embedding_matrix: the token embeddings W_E, shape (vocabulary, d_model).
        components: number of principal components.

    Raises:
        ValueError: there are fewer components.
    """

    mean: Tensor
    """Mean of the token embeddings."""
    basis: Tensor
    """The principal components, an orthonormal row each."""

    def __init__(self, embedding_matrix: Float[Tensor, "vocabulary d_model"], components: int) -> None:
        super().__init__()
        most = min(embedding_matrix.shape)
        if not 1 <= components <= most:
            raise ValueError(f"there are 1 to {most} principal components, not {components}")
        mean, basis = _principal(embedding_matrix.detach().cpu(), components)
        # As precise as the parameter that they are multiplied with, whatever the subject's own number format.
        precision = torch.promote_types(torch.float32, embedding_matrix.dtype)
        self.register_buffer("mean", mean.to(precision), persistent=False)
        self.register_buffer("basis", basis.to(precision), persistent=False)

    def start(self, initial: Float[Tensor, "restarts tokens d_model"]) -> Float[Tensor, "restarts tokens components"]:
        """The coefficients of the initial embeddings' projection."""
        # With orthonormal rows V, the least squares fit of x - mean by c V is c = (x - mean) V'.
        return (initial - self.mean) @ self.basis.T

    def embed(
        self,
        parameter: Float[Tensor, "rows tokens components"],
        progress: float,  # noqa: ARG002
    ) -> Float[Tensor, "rows tokens d_model"]:
        """The point of the subspace with these coefficients."""
        return self.mean + parameter @ self.basis


def _principal(matrix: Tensor, components: int) -> tuple[Tensor, Tensor]:
    """Mean and principal components of the rows of a matrix."""
    mean = matrix.double().mean(0)
    scatter = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    # Eigenvectors of the scatter matrix (the covariance but for a factor). It is summed in blocks: the whole matrix in
    # float64 would take twice its memory.
    for block in matrix.split(8192):
        centred = block.double() - mean
        scatter += centred.T @ centred
    # `eigh` sorts eigenvalues upwards, and leaves the sign of each eigenvector open.
    basis = torch.linalg.eigh(scatter).eigenvectors.flip(1)[:, :components].T
    # Of v and -v the one whose largest entry is positive, so that a component is the same on every machine.
    peak = basis.gather(1, basis.abs().argmax(1, keepdim=True))
    return mean, basis * peak.sign()


class Mixture(Parameterization):
    """A softmax mixture of tokens: x = Σ_v w_v e_v, w = softmax(s/τ), one score s per token and position.

    The initial scores are the cosines of the initial embedding to the tokens, and scores stay in that unit; τ goes from
    `temperature` to `final_temperature` geometrically with the steps (as the Gumbel-softmax of Jang et al. 2017 is
    annealed, without its noise), so that mixtures sharpen. The scores take vocabulary x tokens numbers per restart, and
    so do their gradient and each of the optimizer's states.

    Args:
        vocabulary: the token embeddings.
        temperature: τ before the first step, in cosines.
        final_temperature: τ after the last.
    """

    def __init__(self, vocabulary: Vocabulary, temperature: float, final_temperature: float) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.temperatures = (temperature, final_temperature)

    def start(self, initial: Float[Tensor, "restarts tokens d_model"]) -> Float[Tensor, "restarts tokens vocabulary"]:
        """The cosines of the initial embeddings to the tokens."""
        # At τ = 0.02 a token with a cosine higher by 0.1 has e^5 times the weight, so the mixture starts near the
        # tokens that the initial embedding points to, and every token has some gradient.
        return self.vocabulary.cosines(initial)

    def weights(
        self, parameter: Float[Tensor, "rows tokens vocabulary"], progress: float
    ) -> Float[Tensor, "rows tokens vocabulary"]:
        """The share of each token at each position; the shares of a position sum to 1."""
        # τ = first^(1 - progress) · last^progress: geometric from one to the other.
        first, last = self.temperatures
        return (parameter / (first ** (1 - progress) * last**progress)).softmax(2)

    def embed(
        self, parameter: Float[Tensor, "rows tokens vocabulary"], progress: float
    ) -> Float[Tensor, "rows tokens d_model"]:
        """The mixture, inside the convex hull of the token embeddings."""
        return self.weights(parameter, progress) @ self.vocabulary.matrix
