"""Where restarts start: contract 3's formula to the bit, whatever else is in the batch."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from actmax.errors import InputError
from actmax.maximize.optimizee import Start, from_record, from_tokens, initial, randn, scaled

VOCABULARY, D_MODEL, TOKENS = 50, 12, 5
STARTS: dict[str, Callable[[Tensor, int], Start]] = {"scaled": scaled, "randn": randn, "tokens": from_tokens}


@pytest.fixture
def W_E() -> Tensor:
    return 0.14 * torch.randn(VOCABULARY, D_MODEL, generator=torch.Generator().manual_seed(7))


@pytest.fixture(params=STARTS)
def start(request: pytest.FixtureRequest, W_E: Tensor) -> Start:
    return STARTS[request.param](W_E, TOKENS)


def noise(seed: int) -> Tensor:
    return torch.randn(TOKENS, D_MODEL, generator=torch.Generator("cpu").manual_seed(seed))


@pytest.mark.parametrize("seed", [0, 1, 12345, 2**40])
def test_scaled_is_the_contracts_formula_to_the_bit(W_E: Tensor, seed: int) -> None:
    found = scaled(W_E, TOKENS)(seed)
    assert torch.equal(found, noise(seed) * W_E.std())
    assert not torch.equal(found, noise(seed + 1) * W_E.std())
    assert not torch.equal(found, noise(seed) * W_E.std(unbiased=False))


def test_randn_leaves_the_scale_at_one(W_E: Tensor) -> None:
    assert torch.equal(randn(W_E, TOKENS)(3), noise(3))
    assert not torch.equal(randn(W_E, TOKENS)(3), scaled(W_E, TOKENS)(3))


def test_tokens_are_rows_of_the_embedding_matrix(W_E: Tensor) -> None:
    rows = {tuple(row.tolist()) for row in W_E}
    found = initial(from_tokens(W_E, TOKENS), range(40))
    assert all(tuple(row.tolist()) in rows for row in found.reshape(-1, D_MODEL))
    drawn = {tuple(row.tolist()) for row in found.reshape(-1, D_MODEL)}
    assert len(drawn) > 0.9 * VOCABULARY  # 200 uniform draws of 50 reach 49 of them
    assert tuple((W_E[0] * 2).tolist()) not in rows


def test_a_seed_names_its_start_whatever_the_order_and_the_batch(start: Start) -> None:
    batch = initial(start, [3, 1, 2])
    assert torch.equal(batch, initial(start, [1, 2, 3])[[2, 0, 1]])
    for row, seed in zip(batch, (3, 1, 2), strict=True):
        assert torch.equal(row, initial(start, [seed])[0])
    assert len(torch.unique(batch, dim=0)) == 3


def test_the_global_generator_is_neither_used_nor_moved(start: Start) -> None:
    torch.manual_seed(0)
    first, state = start(4), torch.random.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(start(4), first)
    torch.manual_seed(0)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kind", STARTS)
def test_starts_are_float32_whatever_the_subjects_dtype(W_E: Tensor, kind: str, dtype: torch.dtype) -> None:
    narrow, usual = (STARTS[kind](matrix, TOKENS)(0) for matrix in (W_E.to(dtype), W_E))
    assert (narrow.dtype, narrow.device.type, narrow.shape) == (torch.float32, "cpu", (TOKENS, D_MODEL))
    assert torch.allclose(narrow, usual, rtol=2e-2)
    assert not torch.allclose(narrow, STARTS[kind](W_E, TOKENS)(1), rtol=2e-2)


def test_the_number_of_threads_does_not_move_the_scale() -> None:
    matrix = torch.randn(40_000, 96, generator=torch.Generator().manual_seed(0))
    threads, starts = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            starts.append(scaled(matrix, TOKENS)(0))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(each, starts[0]) for each in starts)


def test_an_initial_embedding_takes_no_gradient_and_shares_no_memory(start: Start, W_E: Tensor) -> None:
    found, before = initial(start, [0, 1]), W_E.clone()
    found += 1
    assert not found.requires_grad
    assert torch.equal(W_E, before)
    assert torch.equal(initial(start, [0, 1]) + 1, found)


def test_a_start_that_is_not_finite_is_refused() -> None:
    def broken(seed: int) -> Tensor:
        return torch.full((TOKENS, D_MODEL), float("nan") if seed == 2 else 0.0)

    assert initial(broken, [0, 1]).shape == (2, TOKENS, D_MODEL)
    with pytest.raises(InputError, match="finite"):
        initial(broken, [0, 1, 2])


# ---------------------------------------------------------------- from a record


SEEDS = [5, 3, 9]


@pytest.fixture
def saved() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    first, last = (torch.randn(len(SEEDS), TOKENS, D_MODEL, generator=generator) for _ in range(2))
    return {"initial": first, "final": last, "seeds": torch.tensor(SEEDS)}


@pytest.fixture
def record(tmp_path: Path, saved: dict[str, Tensor]) -> Path:
    save_file(saved, tmp_path / "embeddings.safetensors")
    return tmp_path


@pytest.mark.parametrize("which", ["initial", "final"])
@pytest.mark.parametrize("inside", [True, False], ids=["folder", "file"])
def test_a_record_gives_each_seed_its_own(record: Path, saved: dict[str, Tensor], which: str, inside: bool) -> None:
    start = from_record(record if inside else record / "embeddings.safetensors", which, TOKENS, D_MODEL)
    for row, seed in enumerate(SEEDS):
        assert torch.equal(start(seed), saved[which][row])
        assert not torch.equal(start(seed), saved["final" if which == "initial" else "initial"][row])
    assert torch.equal(initial(start, [9, 5]), saved[which][[2, 0]])


def test_a_seed_that_the_record_lacks_is_refused(record: Path) -> None:
    with pytest.raises(InputError, match=r"^seeds=4: .*\[3, 5, 9\]"):
        initial(from_record(record, "final", TOKENS, D_MODEL), [5, 4])


@pytest.mark.parametrize(
    ("tokens", "d_model", "which"), [(TOKENS + 1, D_MODEL, "final"), (TOKENS, 8, "final"), (TOKENS, D_MODEL, "middle")]
)
def test_a_record_of_another_shape_or_without_the_tensor_is_refused(
    record: Path, tokens: int, d_model: int, which: str
) -> None:
    from_record(record, "final", TOKENS, D_MODEL)
    with pytest.raises(InputError, match=r"^folder="):
        from_record(record, which, tokens, d_model)


def test_a_record_of_several_units_is_refused(tmp_path: Path, saved: dict[str, Tensor]) -> None:
    save_file({**saved, "seeds": torch.tensor([5, 3, 5])}, tmp_path / "embeddings.safetensors")
    with pytest.raises(InputError, match="one unit"):
        from_record(tmp_path, "final", TOKENS, D_MODEL)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "absent": lambda file: file.unlink(),
    "empty": lambda file: file.write_bytes(b""),
    "cut_off": lambda file: file.write_bytes(file.read_bytes()[:-40]),
    "garbage": lambda file: file.write_bytes(b"not safetensors" * 10),
    "no_seeds": lambda file: save_file({"final": torch.zeros(3, TOKENS, D_MODEL)}, file),
    "too_few_seeds": lambda file: save_file(
        {"final": torch.zeros(3, TOKENS, D_MODEL), "seeds": torch.tensor([1, 2])}, file
    ),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_record_is_refused(record: Path, damage: Callable[[Path], object]) -> None:
    damage(record / "embeddings.safetensors")
    with pytest.raises(InputError, match=r"^folder="):
        from_record(record, "final", TOKENS, D_MODEL)


def test_a_record_with_a_restart_gone_wrong_is_refused_only_if_it_is_asked_for(
    tmp_path: Path, saved: dict[str, Tensor]
) -> None:
    saved["final"][1, 0, 0] = float("inf")
    save_file(saved, tmp_path / "embeddings.safetensors")
    start = from_record(tmp_path, "final", TOKENS, D_MODEL)
    assert torch.equal(initial(start, [5, 9]), saved["final"][[0, 2]])
    with pytest.raises(InputError, match="finite"):
        initial(start, SEEDS)
