"""From embeddings to tokens: the nearest tokens by cosine, with their similarities, and cosines for gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import normalize

BLOCK = 2**24
"""Entries of the (vectors x vocabulary) matrix that are held at once: 64 MB in float32."""
ROWS = 4096
"""Rows of the embedding matrix that are normalized at once."""


@dataclass(frozen=True)
class Nearest:
    """The nearest tokens of some vectors, nearest first along the last dimension."""

    ids: Int[Tensor, "*shape k"]
    """Ids of the nearest tokens."""
    cosines: Float[Tensor, "*shape k"]
    """Cosine similarity of each vector to each of these tokens."""

    @property
    def best(self) -> Int[Tensor, "*shape"]:
        """The nearest token of each vector."""
        return self.ids[..., 0]

    @property
    def best_cosine(self) -> Float[Tensor, "*shape"]:
        """The cosine similarity of each vector to its nearest token."""
        return self.cosines[..., 0]


class NearestTokens:
    """The nearest tokens of vectors in one embedding matrix, normalized once, a bounded block at a time.

    Args:
        embedding_matrix: W_E, shape (vocabulary, d_model); compared in float32 whatever its dtype.
    """

    def __init__(self, embedding_matrix: Float[Tensor, "vocabulary d_model"]) -> None:
        self.directions = torch.empty_like(embedding_matrix, dtype=torch.float32, requires_grad=False)
        for start in range(0, len(embedding_matrix), ROWS):  # a copy of it all in between would be large
            rows = slice(start, start + ROWS)
            self.directions[rows] = _directions(embedding_matrix[rows])

    @property
    def vocabulary(self) -> int:
        """Number of tokens in the embedding matrix."""
        return len(self.directions)

    @property
    def d_model(self) -> int:
        """Number of coordinates of a vector."""
        return self.directions.shape[1]

    def __call__(
        self,
        vectors: Float[Tensor, "*shape d_model"],
        *,
        top_k: int = 1,
        on_block: Callable[[int], None] | None = None,
    ) -> Nearest:
        """The `top_k` tokens with the largest cosine to each vector.

        A vector of length 0 has no direction: all its cosines are 0. Where tokens have the same embedding, the one with
        the lowest id comes first.

        Args:
            vectors: any leading shape.
            top_k: how many to keep.
            on_block: called after each block with the number of its vectors, for a progress bar.

        Returns:
            ids and cosines of shape (*shape, top_k), on the CPU.
        """
        flat = vectors.detach().reshape(-1, self.d_model)
        ids, cosines = [], []
        for block in self._blocks(flat):
            similarity = _directions(block.to(self.directions.device)) @ self.directions.T
            cosine, token = _top(similarity, top_k)
            ids.append(token.cpu())
            cosines.append(cosine.cpu())
            if on_block is not None:
                on_block(len(block))
        shape = (*vectors.shape[:-1], top_k)
        return Nearest(torch.cat(ids).reshape(shape), torch.cat(cosines).reshape(shape))

    def along(
        self,
        start: Float[Tensor, "vectors d_model"],
        directions: Float[Tensor, "draws vectors d_model"],
        lengths: Float[Tensor, "paths vectors"],
    ) -> tuple[Int[Tensor, "paths draws vectors"], Float[Tensor, "paths draws vectors"]]:
        """The nearest token of start + length · direction, for many lengths on the same directions.

        Inner products are linear: those of start and direction with the tokens are taken once, whatever the number of
        paths, and a path costs a multiplication and an addition per token.

        Returns:
            Token ids, and the inner product of the moved vector with that token's unit vector, on the CPU.
        """
        device, width = self.directions.device, max(1, BLOCK // self.vocabulary)
        shape = len(lengths), len(directions), len(start)
        ids, products = torch.empty(shape, dtype=torch.long), torch.empty(shape)
        for place in torch.arange(len(start)).split(width):
            base = start[place].to(device) @ self.directions.T
            for draw in torch.arange(len(directions)).split(max(1, width // len(place))):
                slope = directions[draw[:, None], place].to(device) @ self.directions.T
                for path, length in enumerate(lengths[:, place].to(device)):
                    best, token = torch.addcmul(base, slope, length[:, None]).max(-1)
                    ids[path, draw[:, None], place] = token.cpu()
                    products[path, draw[:, None], place] = best.cpu()
        return ids, products

    def _blocks(self, flat: Tensor) -> Iterator[Tensor]:
        return iter(flat.split(max(1, BLOCK // self.vocabulary)))


class Vocabulary(nn.Module):
    """The token embeddings for terms that take gradients; never coarser than float32, moved with its module.

    Args:
        embedding_matrix: W_E, shape (vocabulary, d_model).
    """

    matrix: Tensor
    lengths: Tensor

    def __init__(self, embedding_matrix: Float[Tensor, "vocabulary d_model"]) -> None:
        super().__init__()
        matrix = embedding_matrix.detach().cpu()
        matrix = matrix.to(torch.promote_types(torch.float32, matrix.dtype))
        # not persistent: they belong to the subject, which no checkpoint holds
        self.register_buffer("matrix", matrix, persistent=False)
        self.register_buffer("lengths", matrix.norm(dim=1), persistent=False)
        self.mean_length = float(self.lengths.double().mean())

    def cosines(
        self, vectors: Float[Tensor, "*shape d_model"], *, temperature: float = 1.0
    ) -> Float[Tensor, "*shape vocabulary"]:
        """The cosine of each vector to each token, over a temperature; 0 where either has length 0."""
        reach = torch.where(self.lengths > 0, temperature * self.lengths, torch.inf)
        flat = normalize(vectors, dim=-1).reshape(-1, self.matrix.shape[1])  # on a 3-d view the product goes row by row
        return (flat @ self.matrix.T).reshape(*vectors.shape[:-1], len(self.matrix)) / reach


def _directions(vectors: Float[Tensor, "vectors d_model"]) -> Float[Tensor, "vectors d_model"]:
    """Unit vectors in float32; divided by the largest entry first, so that no square over- or underflows."""
    vectors = vectors.detach()
    vectors = vectors if vectors.dtype == torch.float64 else vectors.float()
    largest = vectors.abs().amax(1, keepdim=True)
    return normalize((vectors / largest.where(largest > 0, 1)).float(), dim=1)


def _top(similarity: Float[Tensor, "vectors vocabulary"], k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row, largest first, the lowest id first among equals."""
    best, first = similarity.max(1, keepdim=True)  # max gives the lowest id among equals, topk does not promise it
    if k == 1:
        return best, first
    cosine, token = similarity.topk(k, dim=1)
    # topk may have left out the lowest id among more than k equals: it takes the place of the last one then
    last = torch.where((token == first).any(1), token[:, -1], first[:, 0])
    token = torch.cat([token[:, :-1], last[:, None]], dim=1).sort(dim=1).values
    cosine, order = similarity.gather(1, token).sort(dim=1, descending=True, stable=True)
    return cosine, token.gather(1, order)
