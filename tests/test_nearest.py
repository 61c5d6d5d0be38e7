"""Nearest tokens against a naive float64 cosine table, however the work is cut into blocks."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from actmax.model import nearest as nearest_tokens
from actmax.model.nearest import Nearest, NearestTokens, Vocabulary

VOCABULARY, D_MODEL = 120, 16


@pytest.fixture
def W_E() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.rand(VOCABULARY, 1, generator=generator) * 10 + 0.1  # so that a dot product is no cosine
    return lengths * torch.randn(VOCABULARY, D_MODEL, generator=generator)


@pytest.fixture
def vectors() -> Tensor:
    return torch.randn(37, D_MODEL, generator=torch.Generator().manual_seed(1))


def cosine_table(vectors: Tensor, matrix: Tensor) -> Tensor:
    left, right = vectors.double(), matrix.double()
    return left @ right.T / left.norm(dim=1)[:, None] / right.norm(dim=1)


def agrees(found: Nearest, vectors: Tensor, matrix: Tensor) -> bool:
    """Whether ids and cosines are those of the naive table."""
    best = cosine_table(vectors, matrix).topk(found.ids.shape[-1], dim=1)
    return torch.equal(found.ids, best.indices) and torch.allclose(found.cosines.double(), best.values, atol=1e-6)


@pytest.mark.parametrize("top_k", [1, 2, 5, VOCABULARY])
def test_nearest_tokens_are_those_of_a_naive_cosine_table(W_E: Tensor, vectors: Tensor, top_k: int) -> None:
    found = NearestTokens(W_E)(vectors, top_k=top_k)
    assert found.ids.shape == found.cosines.shape == (len(vectors), top_k)
    assert agrees(found, vectors, W_E)
    assert not agrees(found, vectors.flip(0), W_E)
    by_dot_product = (vectors @ W_E.T).topk(top_k, dim=1).indices
    assert not torch.equal(found.ids, by_dot_product)


@pytest.mark.parametrize("block", [1, VOCABULARY, 5 * VOCABULARY + 7, 36 * VOCABULARY, 37 * VOCABULARY, 2**24])
@pytest.mark.parametrize("top_k", [1, 3])
def test_block_boundaries_do_not_matter(
    W_E: Tensor, vectors: Tensor, block: int, top_k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearest_tokens, "BLOCK", block)
    sizes: list[int] = []
    found = NearestTokens(W_E)(vectors, top_k=top_k, on_block=sizes.append)
    assert agrees(found, vectors, W_E)
    assert sum(sizes) == len(vectors)
    assert max(sizes) == min(len(vectors), max(1, block // VOCABULARY))


def test_a_matrix_is_normalized_alike_in_blocks(W_E: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = NearestTokens(W_E).directions
    monkeypatch.setattr(nearest_tokens, "ROWS", 7)
    torch.testing.assert_close(NearestTokens(W_E).directions, whole, rtol=0, atol=0)
    assert torch.equal(NearestTokens(W_E[:0]).directions, whole[:0])


def test_no_more_than_a_block_is_held_at_once(W_E: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Watches every tensor that torch makes while 1,000 vectors are decoded."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        entries = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            made = out if isinstance(out, tuple) else (out,)
            self.entries = max([self.entries, *(each.numel() for each in made if isinstance(each, Tensor))])
            return out

    def largest(block: int) -> int:
        monkeypatch.setattr(nearest_tokens, "BLOCK", block)
        nearest, many = NearestTokens(W_E), torch.ones(1000, D_MODEL)
        with Largest() as seen:
            nearest(many)
        return seen.entries

    assert largest(200 * VOCABULARY) == 200 * VOCABULARY
    assert largest(2**24) == 1000 * VOCABULARY  # the watch does see a large one


@pytest.mark.parametrize("shape", [(), (7,), (2, 5), (2, 3, 4), (0,), (3, 0)])
def test_any_leading_shape(W_E: Tensor, shape: tuple[int, ...]) -> None:
    vectors = torch.randn(*shape, D_MODEL, generator=torch.Generator().manual_seed(2))
    found = NearestTokens(W_E)(vectors, top_k=3)
    assert found.ids.shape == found.cosines.shape == (*shape, 3)
    assert found.best.shape == found.best_cosine.shape == shape
    flat = NearestTokens(W_E)(vectors.reshape(-1, D_MODEL), top_k=3)
    assert torch.equal(found.ids.reshape(-1, 3), flat.ids)


def test_candidates_come_best_first_and_the_first_is_the_best(W_E: Tensor, vectors: Tensor) -> None:
    five, one = NearestTokens(W_E)(vectors, top_k=5), NearestTokens(W_E)(vectors)
    assert (five.cosines[:, :-1] > five.cosines[:, 1:]).all()
    assert torch.equal(five.best, one.best)
    assert torch.equal(five.best_cosine, five.cosines.amax(1))
    assert not torch.equal(five.ids[:, 1], one.best)


def test_an_embedding_decodes_to_its_own_token(W_E: Tensor) -> None:
    found = NearestTokens(W_E)(W_E * torch.linspace(0.1, 9, VOCABULARY)[:, None])
    assert torch.equal(found.best, torch.arange(VOCABULARY))
    assert torch.allclose(found.best_cosine, torch.ones(VOCABULARY), atol=1e-6)
    assert (NearestTokens(W_E)(-W_E).best_cosine < 0.99).all()


def test_a_vector_without_a_length_has_cosine_zero(W_E: Tensor, vectors: Tensor) -> None:
    vectors[3] = 0
    found = NearestTokens(W_E)(vectors, top_k=2)
    assert (found.cosines[3] == 0).all()
    assert ((found.ids[3] >= 0) & (found.ids[3] < VOCABULARY)).all()
    others = torch.arange(len(vectors)) != 3
    assert agrees(Nearest(found.ids[others], found.cosines[others]), vectors[others], W_E)


@pytest.mark.parametrize("length", [1e-16, 1e-6, 1e6, 1e25])
def test_length_does_not_matter(W_E: Tensor, vectors: Tensor, length: float) -> None:
    found = NearestTokens(W_E)(vectors * length)
    assert torch.equal(found.best, NearestTokens(W_E)(vectors).best)
    assert torch.allclose(found.best_cosine, NearestTokens(W_E)(vectors).best_cosine, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_matrix_of_another_dtype_is_compared_in_float32(W_E: Tensor, vectors: Tensor, dtype: torch.dtype) -> None:
    matrix = W_E.to(dtype)
    found = NearestTokens(matrix)(vectors, top_k=3)
    assert found.cosines.dtype is torch.float32
    assert agrees(found, vectors, matrix)
    assert agrees(found, vectors, W_E) is (dtype is torch.float64)


def test_vectors_of_another_dtype(W_E: Tensor, vectors: Tensor) -> None:
    assert agrees(NearestTokens(W_E)(vectors.double()), vectors, W_E)
    rounded = vectors.bfloat16()
    assert agrees(NearestTokens(W_E)(rounded), rounded.float(), W_E)


def test_the_matrix_and_the_vectors_stay_as_they_are_and_no_gradient_is_kept(W_E: Tensor, vectors: Tensor) -> None:
    before = W_E.clone(), vectors.clone()
    found = NearestTokens(W_E.requires_grad_())(vectors.requires_grad_())
    assert torch.equal(W_E, before[0])
    assert torch.equal(vectors, before[1])
    assert not found.cosines.requires_grad
    assert (vectors @ W_E.T).requires_grad


@pytest.mark.parametrize("top_k", [1, 5])
def test_of_equal_tokens_the_first_is_taken_whatever_the_batch_and_top_k(vectors: Tensor, top_k: int) -> None:
    """Models hold reserved tokens with one and the same embedding; the record must name the same one each time."""
    generator = torch.Generator().manual_seed(3)
    matrix = torch.randn(40, D_MODEL, generator=generator).repeat(3, 1)
    nearest = NearestTokens(matrix)
    expected = cosine_table(vectors, matrix[:40]).argmax(1)
    assert torch.equal(nearest(vectors).best % 40, expected)
    alone = torch.stack([nearest(vector, top_k=top_k).best for vector in vectors])
    assert torch.equal(alone, expected)
    assert torch.equal(nearest(vectors, top_k=top_k).best, expected)


@pytest.mark.parametrize("block", [1, 7 * VOCABULARY, 37 * VOCABULARY, 80 * VOCABULARY, 2**24])
def test_along_paths_is_decoding_each_point(
    W_E: Tensor, vectors: Tensor, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    generator = torch.Generator().manual_seed(2)
    directions = torch.randn(5, 37, D_MODEL, generator=generator)
    lengths = torch.tensor([0.0, 0.5, 30.0])[:, None] * torch.rand(3, 37, generator=generator)
    monkeypatch.setattr(nearest_tokens, "BLOCK", block)
    ids, products = NearestTokens(W_E).along(vectors, directions, lengths)
    assert ids.shape == products.shape == (3, 5, 37)
    points = vectors + lengths[:, None, :, None] * directions
    for point, best, product in zip(points.flatten(0, 1), ids.flatten(0, 1), products.flatten(0, 1), strict=True):
        cosines = (product / point.norm(dim=1))[:, None]
        assert agrees(Nearest(best[:, None], cosines), point, W_E)
    assert not torch.equal(ids[0], ids[2])


@pytest.mark.parametrize("shape", [(), (0, 5), (3,), (2, 3)])
def test_cosines_of_any_leading_shape_are_those_of_each_vector(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    vocabulary = Vocabulary(torch.randn(7, 4, generator=generator))
    vectors = torch.randn(*shape, 4, generator=generator)
    found = vocabulary.cosines(vectors, temperature=0.5)
    assert found.shape == (*shape, 7)
    expected = cosine_similarity(vectors[..., None, :], vocabulary.matrix, dim=-1) / 0.5
    torch.testing.assert_close(found, expected)
