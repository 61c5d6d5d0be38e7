from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from torch import Tensor

from actmax.maximize import memory, module
from actmax.maximize.module import BUCKET, OPTIMIZERS, PROBED, ROW_TENSORS, SHARE_OF_MEMORY, Maximization
from actmax.maximize.optimizee import initial, scaled
from actmax.maximize.priors import L2
from actmax.maximize.settings import OPTIONS
from actmax.model.objective import Objective, Row, by_unit
from actmax.model.subject import Subject, load
from actmax.model.target import Unit

UNIT = Unit("resid_pre", 2, 7)
STEPS = 40


def module_of(subject: Subject, rows: list[Row], start: Tensor | None = None, **options: Any) -> Maximization:
    if start is None:
        start = initial(scaled(subject.embedding_matrix, 5), [row.seed for row in rows])
    return Maximization(subject, rows, start, **{"objective": Objective(), "steps": STEPS, "lr": 0.01, **options})


def fitted(subject: Subject, rows: list[Row], start: Tensor | None = None, **options: Any) -> Maximization:
    module = module_of(subject, rows, start, **options)
    trainer(module.steps).fit(module)
    return module


def trainer(steps: int, **options: Any) -> Trainer:
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return Trainer(max_steps=steps, max_epochs=-1, accelerator="cpu", **quiet, **options)


def rows(*seeds: int, unit: Unit = UNIT) -> list[Row]:
    return [Row(unit, seed) for seed in seeds]


def literal_script(subject: Subject, start: Tensor, unit: Unit, *, l2: float = 0.0) -> Tensor:
    """Report A's own way: one restart at a time, the whole model, hidden_states."""
    embedding = start[None].clone().to(subject.dtype).requires_grad_()
    optimizer = torch.optim.Adam([embedding], lr=0.01)
    for _ in range(STEPS):
        optimizer.zero_grad()
        hidden = subject.model(inputs_embeds=embedding, output_hidden_states=True).hidden_states[unit.layer]
        loss = -hidden[0, :, unit.index].mean() + l2 * embedding.square().sum()
        loss.backward()
        optimizer.step()
    return embedding.detach()[0]


@pytest.mark.parametrize("l2", [0.0, 0.3])
def test_equals_the_literal_script(subject: Subject, l2: float) -> None:
    module = fitted(subject, rows(0, 1), priors=[L2(l2, "absolute")])
    for number, seed in enumerate((0, 1)):
        start = scaled(subject.embedding_matrix, 5)(seed)
        expected = literal_script(subject, start, UNIT, l2=l2)
        assert torch.allclose(module.embedding[number], expected, rtol=0, atol=1e-9)
    other = literal_script(subject, scaled(subject.embedding_matrix, 5)(0), Unit("resid_pre", 2, 8), l2=l2)
    assert not torch.allclose(module.embedding[0], other, atol=1e-3)


def test_the_activation_rises_and_the_subject_keeps_its_bits(subject: Subject) -> None:
    weights = {name: weight.clone() for name, weight in subject.model.state_dict().items()}
    _, _, start, end = fitted(subject, rows(0, 1, 2)).outcome()
    assert (end > start + 0.05).all()
    assert all(torch.equal(weight, weights[name]) for name, weight in subject.model.state_dict().items())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in subject.model.parameters())


def test_batch_and_solo_agree(subject: Subject) -> None:
    units = [UNIT, Unit("resid_pre", 1, 3), Unit("resid_pre", 3 - 1, 9)]
    together = fitted(subject, [Row(unit, seed) for unit in units for seed in range(3)])
    for number, row in enumerate(together.rows):
        alone = fitted(subject, [row])
        assert torch.allclose(together.embedding[number], alone.embedding[0], rtol=0, atol=1e-9)
    assert not torch.allclose(together.embedding[0], together.embedding[1], atol=1e-3)


@pytest.mark.parametrize("max_rows", [1, 2, 5])
def test_max_rows_changes_nothing(subject: Subject, max_rows: int) -> None:
    units = [UNIT, Unit("resid_pre", 1, 3)]
    job = [Row(unit, seed) for unit in units for seed in range(3)]
    whole, parts = fitted(subject, job), fitted(subject, job, max_rows=max_rows)
    assert torch.allclose(whole.embedding, parts.embedding, rtol=0, atol=1e-9)
    assert torch.allclose(whole.outcome()[3], parts.outcome()[3], atol=1e-9)
    captured, again = whole.capture(whole.embedding), parts.capture(parts.embedding)
    assert captured.keys() == again.keys()
    assert all(torch.allclose(captured[place], again[place], atol=1e-9) for place in captured)


def test_max_rows_bounds_a_forward_pass(subject: Subject) -> None:
    sizes: list[int] = []
    handle = subject.base.h[0].register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    try:
        fitted(subject, rows(0, 1, 2, 3, 4), max_rows=2, steps=3)
    finally:
        handle.remove()
    assert sizes == [2, 2, 1] * 3


@pytest.mark.parametrize(
    ("seeds", "first", "second"),
    [(BUCKET, [BUCKET, BUCKET], [BUCKET]), (3, [6], [6]), (BUCKET + 4, [BUCKET, BUCKET, 8], [BUCKET, 8])],
)
def test_shallow_targets_do_not_pay_for_deep_ones_unless_they_are_few(
    subject: Subject, seeds: int, first: list[int], second: list[int]
) -> None:
    job = [Row(Unit("resid_pre", layer, 7), seed) for layer in (1, 2) for seed in range(seeds)]
    sizes: list[list[int]] = [[], []]
    hooks = [
        block.register_forward_pre_hook(lambda _, args, own=own: own.append(len(args[0])))
        for block, own in zip(subject.base.h[:2], sizes, strict=True)
    ]
    try:
        found = fitted(subject, job, steps=1, max_rows=BUCKET if len(first) == 3 else None)
    finally:
        for hook in hooks:
            hook.remove()
    assert sizes == [first, second]
    assert torch.allclose(found.embedding[-1], fitted(subject, job[-1:], steps=1).embedding[0], rtol=0, atol=1e-9)


def test_where_memory_is_short_fewer_rows_run_together(
    subject: Subject, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seeds = range(PROBED + 6)
    whole = fitted(subject, rows(*seeds), steps=3)
    assert whole.max_rows == len(seeds)  # there is room on this machine
    states = ROW_TENSORS * whole.parameter.numel() * 8  # of float64
    free = states + int(10.5 * whole.bytes_per_row() / SHARE_OF_MEMORY)
    monkeypatch.setattr(memory, "free_memory", lambda _: free)
    assert "rows in a forward pass" not in caplog.text
    found = fitted(subject, rows(*seeds), steps=3)
    assert found.max_rows == 10
    assert "10 of 70 rows in a forward pass" in caplog.text
    assert torch.allclose(found.embedding, whole.embedding, rtol=0, atol=1e-9)
    assert fitted(subject, rows(*seeds), steps=1, max_rows=60).max_rows == 60  # who names a number gets it
    assert fitted(subject, rows(*seeds[:PROBED]), steps=1).max_rows == PROBED
    monkeypatch.setattr(memory, "free_memory", lambda _: 0)
    assert fitted(subject, rows(*seeds), steps=1).max_rows == 1


def test_what_a_row_keeps_is_what_each_of_many_keeps(subject: Subject) -> None:
    shallow, deep = Unit("resid_pre", 1, 7), Unit("resid_pre", 2, 7)
    per_row = {unit.layer: fitted(subject, rows(0, 1, unit=unit), steps=1).bytes_per_row() for unit in (shallow, deep)}
    both = fitted(subject, rows(0, 1, unit=shallow) + rows(0, 1, unit=deep), steps=1)
    assert 1.9 * per_row[1] < per_row[2] == both.bytes_per_row()
    module = fitted(subject, rows(*range(20), unit=deep), steps=1)

    def held(count: int) -> int:
        chunk = slice(0, count)

        def activation() -> Tensor:
            return module.activations(module.embedding[chunk].requires_grad_(), chunk)

        return memory.kept_for_backward(activation)

    assert held(20) - held(10) == pytest.approx(10 * per_row[2], rel=0.02)


@pytest.mark.parametrize("room", [3, 1])
def test_out_of_memory_halves_max_rows_and_goes_on(
    subject: Subject, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, room: int
) -> None:
    undisturbed = fitted(subject, rows(*range(7)))
    run, step = Subject.run, 0

    def small(
        self: Subject, embeddings: Tensor, *args: Any, **options: Any
    ) -> Any:  # as a GPU whose other user comes at step 10
        nonlocal step
        step += 1
        if step > 10 and len(embeddings) > room:
            raise torch.OutOfMemoryError("planted")
        return run(self, embeddings, *args, **options)

    monkeypatch.setattr(Subject, "run", small)
    found = fitted(subject, rows(*range(7)))
    assert (found.embedding - undisturbed.embedding).abs().max() < 1e-9
    assert found.max_rows == {3: 2, 1: 1}[room]
    assert caplog.text.count("Out of memory") == {3: 2, 1: 3}[room]  # 7, 4, 2, 1


def test_one_row_too_many_is_an_error(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(self: Subject, embeddings: Tensor, *args: Any, **options: Any) -> Any:
        raise torch.OutOfMemoryError("planted")

    monkeypatch.setattr(Subject, "run", none)
    with pytest.raises(torch.OutOfMemoryError, match="planted"):
        fitted(subject, rows(0, 1, 2))


def test_the_same_run_gives_the_same_bits(subject: Subject) -> None:
    first, second = fitted(subject, rows(0, 1)), fitted(subject, rows(0, 1))
    assert torch.equal(first.embedding, second.embedding)
    assert not torch.equal(first.embedding, fitted(subject, rows(0, 2)).embedding)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_options_are_those_that_the_optimizer_takes(name: str) -> None:
    """All of PyTorch's but `lr`, which has a key of its own, and what would turn or record the steps."""
    taken = set(inspect.signature(OPTIMIZERS[name]).parameters) - {"params", "lr"}
    assert taken - set(OPTIONS[name]) == taken & {"maximize", "capturable", "differentiable"}
    assert set(OPTIONS[name]) <= taken


def test_minimize_goes_the_other_way(subject: Subject) -> None:
    _, _, start, end = fitted(subject, rows(0, 1), objective=Objective(sign="minimize")).outcome()
    assert (end < start - 0.05).all()


def test_reductions() -> None:
    values = torch.tensor([[1.0, 5.0, 3.0]])
    found = {name: Objective(name).activation(values).item() for name in ("mean", "last", "max")}  # pyright: ignore
    assert found == {"mean": 3.0, "last": 3.0, "max": 5.0}
    last = torch.tensor([[1.0, 5.0, 4.0]])
    assert Objective("last").activation(last).item() == 4.0


@pytest.mark.parametrize("reduction", ["last", "max"])
def test_each_reduction_raises_what_it_names(subject: Subject, reduction: Any) -> None:
    module = fitted(subject, rows(0), objective=Objective(reduction))
    values = subject.run(module.embedding.detach(), [("resid_pre", 2)])["resid_pre", 2][..., 7]
    assert module.outcome()[3].item() == pytest.approx(Objective(reduction).activation(values).item(), abs=1e-12)
    _, _, start, end = module.outcome()
    assert end > start + 0.05


def test_l2_lowers_the_norm(subject: Subject) -> None:
    priors = [L2(weight, "absolute") for weight in (0.0, 0.1, 10.0)]
    norms = [fitted(subject, rows(0), priors=[prior]).embedding.norm().item() for prior in priors]
    assert norms[0] > norms[1] > norms[2]


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_every_optimizer_keeps_restarts_apart(subject: Subject, optimizer: str) -> None:
    together = fitted(subject, rows(0, 1), optimizer=optimizer)
    assert torch.allclose(together.embedding[1], fitted(subject, rows(1), optimizer=optimizer).embedding[0], atol=1e-9)


@pytest.mark.parametrize("site", ["resid_post", "attn_out", "mlp_pre", "mlp_post", "q", "z", "final_norm"])
def test_every_kind_of_site_can_be_a_target(subject: Subject, site: str) -> None:
    unit = Unit(site, None if site == "final_norm" else 1, 5)
    _, _, start, end = fitted(subject, rows(0, unit=unit)).outcome()
    assert end > start + 0.01


class TestNonFinite:
    def test_a_restart_that_goes_non_finite_is_frozen_and_poisons_no_other(self, subject: Subject) -> None:
        start = initial(scaled(subject.embedding_matrix, 5), [0, 1, 2])
        start = start.double()
        start[1] = 1e300  # its squares overflow in the first norm
        module = fitted(subject, rows(0, 1, 2), start)
        assert module.frozen.tolist() == [False, True, False]
        clean = fitted(subject, rows(0, 2))
        assert torch.allclose(module.embedding[[0, 2]], clean.embedding, rtol=0, atol=1e-9)
        _, final, _, _ = module.outcome()
        assert torch.equal(final[1], start[1])

    def test_it_stands_at_its_best_finite_embedding(self, subject: Subject) -> None:
        module = fitted(subject, rows(0, 1), lr=1e200)
        _, final, before, after = module.outcome()
        assert module.frozen.all()
        assert final.isfinite().all()
        assert after.isfinite().all()
        assert (after >= before).all()


class TestCheckpoint:
    def test_names_the_subject_and_lacks_its_weights(self, subject: Subject, tmp_path: Path) -> None:
        module = module_of(subject, rows(0, 1), identity={"subject": "tiny", "weights_sha256": subject.weights_hash})
        fit = trainer(STEPS)
        fit.fit(module)
        fit.save_checkpoint(tmp_path / "last.ckpt")
        content = torch.load(tmp_path / "last.ckpt", weights_only=True)
        assert set(content["state_dict"]) == {"parameter", "best", "best_loss", "alive"}
        assert content["actmax"]["weights_sha256"] == subject.weights_hash
        assert (tmp_path / "last.ckpt").stat().st_size < 100_000

    @pytest.mark.parametrize("stop", [1, 17])
    def test_resumes_bit_for_bit(self, subject: Subject, tmp_path: Path, stop: int) -> None:
        whole = fitted(subject, rows(0, 1))
        # the same 40 steps, left after `stop` of them
        half = module_of(subject, rows(0, 1))
        first = trainer(stop)
        first.fit(half)
        first.save_checkpoint(tmp_path / "last.ckpt")
        rest = module_of(subject, rows(0, 1))
        second = trainer(STEPS)
        second.fit(rest, ckpt_path=tmp_path / "last.ckpt", weights_only=True)
        assert second.global_step == STEPS
        assert torch.equal(rest.embedding, whole.embedding)
        assert torch.equal(rest.best, whole.best)
        assert not torch.equal(half.embedding, whole.embedding)


def test_a_float64_subject_gets_a_float64_optimizee_and_a_bfloat16_one_does_not(subject: Subject) -> None:
    assert module_of(subject, rows(0)).embedding.dtype == torch.float64
    architecture = {"model_type": "gpt2", "n_layer": 2, "n_embd": 24, "n_head": 4, "n_positions": 32}
    narrow = load(name="narrow", source="random", dtype="bfloat16", architecture=architecture)
    module = fitted(narrow, rows(0, unit=Unit("resid_post", 1, 7)))
    assert module.embedding.dtype == torch.float32
    _, _, start, end = module.outcome()
    assert end > start


def test_capture_reduces_like_the_target(subject: Subject) -> None:
    module = module_of(subject, rows(0, 1))
    values = module.capture(module.initial)["resid_pre", 2]
    assert values.shape == (2, 24)
    assert torch.allclose(values[:, 7], module.evaluate(module.initial), atol=1e-12)


def test_rows_of_a_unit_stand_together(subject: Subject) -> None:
    other = Unit("resid_pre", 1, 0)
    assert list(by_unit([Row(UNIT, 0), Row(UNIT, 1), Row(other, 0)]).values()) == [[0, 1], [2]]
    with pytest.raises(ValueError, match="stand together"):
        module_of(subject, [Row(UNIT, 0), Row(other, 0), Row(UNIT, 1)])


def test_freed_memory_is_handed_back_during_fits_of_large_parameters(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_back = 0

    def count() -> None:
        nonlocal given_back
        given_back += 1

    monkeypatch.setattr(memory, "give_back", count)
    small = fitted(subject, rows(0, 1))
    assert given_back == 0
    monkeypatch.setattr(module, "LARGE", 1)
    large = fitted(subject, rows(0, 1))
    assert given_back == large.steps // module.GIVE_BACK > 0
    assert torch.equal(small.embedding, large.embedding)
