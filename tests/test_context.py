"""What stands around the tokens: everything behind a prefix as one plain pass through the whole sequence gives it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from actmax.evidence.gap import measure
from actmax.evidence.nulls import Restarts
from actmax.maximize import priors
from actmax.maximize.module import Maximization
from actmax.maximize.optimizee import initial, scaled
from actmax.maximize.priors import Fluency
from actmax.model import evaluation
from actmax.model.context import NONE, Context
from actmax.model.nearest import NearestTokens
from actmax.model.objective import Objective, Row
from actmax.model.settings import GapSettings
from actmax.model.subject import CONTEXTS, Subject
from actmax.model.target import Place, Unit
from actmax.search import prefixes
from actmax.search.alphabet import Alphabet
from actmax.search.oracle import Evaluate, Oracle, Slopes
from test_maximization import fitted as fitted_from
from test_maximization import module_of
from test_prefixes import swapped
from test_subject import FAMILY_CASES, LAYERS, noise, tiny, twin

ROWS, TOKENS, BEFORE, AFTER = 3, 6, 5, 3
EXACT, DIFFERENT = 1e-9, 1e-3
SINGLE = 1e-4
"""GPT-Neo computes its scores in float32, whose rounding depends on how many keys are in a product."""
LAST: Place = ("final_norm", None)
UNIT = Unit("resid_post", 2, 7)
UNITS = (UNIT, Unit("mlp_post", 1, 3), Unit("z", 3, 9), Unit("resid_pre", 0, 4), Unit("final_norm", None, 11))
STEPS = 30

Reduction = Literal["mean", "last", "max"]


def surrounding(count: int = 1, *, before: int = BEFORE, after: int = 0, seed: int = 0) -> Context:
    """Random tokens around the tokens that are read."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(256, (count, before), generator=generator).tolist()
    ending = torch.randint(256, (after,), generator=generator).tolist()
    return Context("test", tuple(tuple(one) for one in ids), tuple(ending))


def singles(context: Context) -> list[Context]:
    """Each of several surroundings alone."""
    return [replace(context, before=(one,)) for one in context.before]


def sequences(rows: int = ROWS, tokens: int = TOKENS, seed: int = 5) -> Tensor:
    return torch.randint(256, (rows, tokens), generator=torch.Generator().manual_seed(seed))


def joined(ids: Tensor, context: Context) -> Tensor:
    """The ids of every whole sequence: the surroundings of a row stand one behind the other."""
    whole = [[*before, *row, *context.after] for row in ids.tolist() for before in context.before]
    return torch.tensor(whole)


def surrounded(subject: Subject, embeddings: Tensor, context: Context) -> Tensor:
    """The embeddings of every whole sequence, put together row by row."""

    def embedded(ids: Sequence[int]) -> Tensor:
        return subject.embedding_matrix[torch.tensor(ids, dtype=torch.long)]

    rows = [
        torch.cat([embedded(before), row, embedded(context.after)]) for row in embeddings for before in context.before
    ]
    return torch.stack(rows)


def plain(subject: Subject, embeddings: Tensor, places: Sequence[Place], context: Context) -> dict[Place, Tensor]:
    """The activations by one pass through every whole sequence, without any context."""
    captured = subject.run(surrounded(subject, embeddings, context), places)
    return {place: value[:, context.length :] for place, value in captured.items()}


def slope(captured: dict[Place, Tensor], embeddings: Tensor) -> Tensor:
    """The gradient of a sum of all that was read, each with a weight of its own; its largest entry is about 1."""
    total = torch.zeros((), dtype=embeddings.dtype)
    for place in sorted(captured, key=str):
        generator = torch.Generator().manual_seed(7)
        weights = torch.randn(captured[place].shape, generator=generator, dtype=embeddings.dtype)
        total = total + (captured[place] * weights).sum()
    (gradient,) = torch.autograd.grad(total, embeddings)
    return gradient / 2.0 ** gradient.abs().max().log2().round()


def apart(left: Tensor, right: Tensor) -> float:
    assert left.shape == right.shape
    return float((left - right).detach().abs().max())


def places_of(subject: Subject, layer: int) -> list[Place]:
    return [(site, layer) for site in subject.geometry.sites if site != "final_norm"]


def every_place(subject: Subject) -> list[Place]:
    return [place for layer in range(LAYERS) for place in places_of(subject, layer)] + [LAST]


def exact(subject: Subject) -> float:
    return SINGLE if subject.geometry.model_type == "gpt_neo" else EXACT


def block_sizes(subject: Subject, number: int, sizes: list[tuple[int, int]]) -> Any:
    """Notes the rows and positions of each pass through a block."""
    blocks: Any = subject.base.get_submodule("h" if hasattr(subject.base, "h") else "layers")
    return blocks[number].register_forward_pre_hook(lambda _, args: sizes.append(tuple(args[0].shape[:2])))


@cache
def the_subject(name: str) -> Subject:
    return tiny(name)


@pytest.fixture(params=FAMILY_CASES)
def subject(request: pytest.FixtureRequest) -> Subject:
    return the_subject(request.param)


@pytest.fixture
def gpt2() -> Subject:
    return the_subject("gpt2")


# ---------------------------------------------------------------- the forward pass

AROUND = {
    "before": surrounding(),
    "after": surrounding(before=0, after=AFTER),
    "both": surrounding(after=AFTER),
    "several": surrounding(3),
    "several_and_after": surrounding(2, after=AFTER),
}


class TestRun:
    @pytest.mark.parametrize("kind", AROUND)
    def test_every_site_and_slope_as_in_one_pass_over_everything(self, subject: Subject, kind: str) -> None:
        context = AROUND[kind]
        embeddings = noise().requires_grad_()
        fresh = replace(subject)  # keeps nothing yet
        for places in [*(places_of(subject, layer) for layer in (2, 0, 1, 3)), [LAST]]:  # deeper after shallower too
            expected = plain(fresh, embeddings, places, context)
            found = fresh.run(embeddings, places, context=context)
            assert found.keys() == expected.keys() == set(places)
            for place in places:
                assert apart(found[place], expected[place]) < exact(subject), place
            assert apart(slope(found, embeddings), slope(expected, embeddings)) < exact(subject), places

    @pytest.mark.parametrize("kind", ["before", "several"])
    def test_a_token_of_the_prefix_matters_wherever_attention_reaches(self, subject: Subject, kind: str) -> None:
        """The control of the test above: with another prefix its comparison fails."""
        context = AROUND[kind]
        other = surrounding(context.count, seed=1)
        embeddings = noise().requires_grad_()
        for layer in range(LAYERS):
            places: list[Place] = [("resid_post", layer), ("z", layer)]
            expected = plain(subject, embeddings, places, context)
            found = subject.run(embeddings, places, context=other)
            assert all(apart(found[place], expected[place]) > DIFFERENT for place in places)
            assert apart(slope(found, embeddings), slope(expected, embeddings)) > DIFFERENT

    def test_the_surroundings_of_a_row_stand_one_behind_the_other(self, subject: Subject) -> None:
        context = surrounding(2, after=AFTER)
        found = subject.run(noise(), [UNIT.place], context=context)[UNIT.place].unflatten(0, (ROWS, 2))
        for number, one in enumerate(singles(context)):
            alone = subject.run(noise(), [UNIT.place], context=one)[UNIT.place]
            assert apart(found[:, number], alone) < exact(subject)
            assert apart(found[:, 1 - number], alone) > DIFFERENT

    @pytest.mark.parametrize("kind", AROUND)
    def test_no_block_runs_for_what_enters_the_first(self, subject: Subject, kind: str) -> None:
        context, place = AROUND[kind], ("resid_pre", 0)
        fresh, ran = replace(subject), []
        embeddings = noise().requires_grad_()
        expected = plain(fresh, embeddings, [place], context)
        fresh.run(embeddings, [place], context=context)  # keys of what stands before are made here
        hook = block_sizes(fresh, 0, ran)
        try:
            found = fresh.run(embeddings, [place], context=context)
        finally:
            hook.remove()
        assert not ran
        assert apart(found[place], expected[place]) < EXACT
        assert apart(slope(found, embeddings), slope(expected, embeddings)) < EXACT
        if subject.geometry.model_type in ("gpt2", "gpt_neo"):  # learned positions are added before the first block
            own = noise() if context.count == 1 else noise().repeat_interleave(context.count, 0)
            without = fresh.run(own, [place])[place]
            moved = apart(found[place][:, :TOKENS], without)
            assert moved > DIFFERENT if context.length else moved < EXACT

    def test_against_the_whole_model_of_hugging_face(self, subject: Subject) -> None:
        model: Any = twin(subject).model
        context, ids = surrounding(2, after=AFTER), sequences()
        hidden = model(input_ids=joined(ids, context), output_hidden_states=True, use_cache=False).hidden_states
        entering: list[Place] = [("resid_pre", layer) for layer in range(LAYERS)]
        found = subject.run(subject.embed(ids), [*entering, LAST], context=context)
        for layer, place in enumerate([*entering, LAST]):
            assert apart(found[place], hidden[layer][:, BEFORE:]) < exact(subject)
            assert layer == 0 or apart(found[place], hidden[layer - 1][:, BEFORE:]) > DIFFERENT

    def test_what_stands_behind_changes_nothing_before_it(self, subject: Subject) -> None:
        longer, shorter = surrounding(2, after=AFTER), surrounding(2, after=AFTER).without_after()
        places = every_place(subject)
        more, less = (subject.run(noise(), places, context=one) for one in (longer, shorter))
        for place in places:
            assert more[place].shape[1] == TOKENS + AFTER
            assert apart(more[place][:, :TOKENS], less[place]) < exact(subject)
        other = replace(longer, after=longer.after[::-1])
        changed = subject.run(noise(), [LAST], context=other)[LAST]
        assert apart(changed[:, TOKENS:], more[LAST][:, TOKENS:]) > DIFFERENT

    def test_what_stands_before_runs_once_and_stays_as_it_was(self, subject: Subject) -> None:
        context, fresh, ran = surrounding(2), replace(subject), []
        hook = block_sizes(fresh, 1, ran)
        try:
            first = fresh.run(noise(), [("resid_post", 1)], context=context)
            assert ran == [(2, BEFORE), (2 * ROWS, TOKENS)]
            ran.clear()
            kept = [tensor.clone() for layers in fresh._keys.values() for pair in layers for tensor in pair]
            with torch.enable_grad():
                other = fresh.run(noise(rows=1, seed=3).requires_grad_(), [("resid_post", 1)], context=context)
            other["resid_post", 1].sum().backward()
            second = fresh.run(noise(), [("resid_post", 1)], context=context)
            assert ran == [(2, TOKENS), (2 * ROWS, TOKENS)]
            ran.clear()
            fresh.run(noise(), [("resid_post", 1)], context=surrounding(2, seed=1))
            assert ran == [(2, BEFORE), (2 * ROWS, TOKENS)]  # another one is not this one's
        finally:
            hook.remove()
        assert torch.equal(first["resid_post", 1], second["resid_post", 1])
        after = [tensor for layers in list(fresh._keys.values())[:1] for pair in layers for tensor in pair]
        assert len(kept) == len(after) == 4
        assert all(torch.equal(*pair) and not pair[1].requires_grad for pair in zip(kept, after, strict=True))

    def test_the_last_few_contexts_are_kept(self, gpt2: Subject) -> None:
        fresh, ran = replace(gpt2), []
        contexts = [surrounding(seed=seed) for seed in range(CONTEXTS + 3)]
        values = [fresh.run(noise(), [UNIT.place], context=one)[UNIT.place] for one in contexts]
        assert len(fresh._keys) == CONTEXTS
        hook = block_sizes(fresh, 0, ran)
        try:
            again = [fresh.run(noise(), [UNIT.place], context=one)[UNIT.place] for one in (contexts[-1], contexts[0])]
        finally:
            hook.remove()
        assert ran == [(ROWS, TOKENS), (1, BEFORE), (ROWS, TOKENS)]  # the last one is kept, the first is made anew
        assert torch.equal(again[0], values[-1])
        assert torch.equal(again[1], values[0])

    def test_keys_that_were_made_without_gradients_serve_a_pass_with_them(self, gpt2: Subject) -> None:
        fresh, context = replace(gpt2), surrounding(2)
        with torch.inference_mode():  # as the search for real examples reads
            fresh.run(noise(), [UNIT.place], context=context)
        embeddings = noise().requires_grad_()
        found = slope(fresh.run(embeddings, [UNIT.place], context=context), embeddings)
        assert apart(found, slope(plain(fresh, embeddings, [UNIT.place], context), embeddings)) < EXACT
        assert found.abs().max() > DIFFERENT

    def test_no_hook_stays_behind(self, subject: Subject) -> None:
        fresh = twin(subject)
        fresh.run(noise(), every_place(fresh), context=surrounding(2, after=AFTER))
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in fresh.model.modules())

    def test_sequences_of_several_lengths_are_refused(self) -> None:
        with pytest.raises(ValueError, match="of one length"):
            Context("test", ((1, 2), (3,)))
        with pytest.raises(ValueError, match="of one length"):
            Context("test", ())
        assert Context("test", ((1, 2), (3, 4))).count == 2


# ---------------------------------------------------------------- beginnings that are shared


class TestSharedBeginnings:
    @pytest.mark.parametrize("kind", ["before", "several", "several_and_after"])
    def test_every_site_as_in_one_pass_over_everything(self, subject: Subject, kind: str) -> None:
        context, ids, places = AROUND[kind], swapped(subject, parents=2), every_place(subject)
        found = prefixes.run(subject, ids, places, context=context)
        with torch.no_grad():
            expected = plain(subject, subject.embed(ids), places, context)
        assert found.keys() == expected.keys()
        for place in places:
            assert apart(found[place], expected[place]) < exact(subject), place
        other = prefixes.run(subject, ids, [LAST], context=replace(context, before=context.before[0:1] * context.count))
        assert context.count == 1 or apart(other[LAST], expected[LAST]) > DIFFERENT
        wrong = prefixes.run(subject, ids, [LAST], context=surrounding(context.count, after=len(context.after), seed=1))
        assert apart(wrong[LAST], expected[LAST]) > DIFFERENT

    @pytest.mark.parametrize("count", [1, 2])
    def test_what_is_shared_runs_once(self, subject: Subject, count: int) -> None:
        ids, context, fresh, ran = swapped(subject), surrounding(count), replace(subject), []
        hook = block_sizes(fresh, 0, ran)
        try:
            prefixes.run(fresh, ids, [("resid_pre", 2)], context=context)
            assert (count, BEFORE) in ran  # what stands before, once
            assert sum(rows * tokens for rows, tokens in ran) < 0.65 * ids.numel() * count + count * BEFORE
            ran.clear()
            different = torch.arange(50)[:, None].expand(50, TOKENS)
            prefixes.run(fresh, different, [("resid_pre", 2)], context=context)
            assert ran == [(50 * count, TOKENS)]  # nothing in common: in one piece
        finally:
            hook.remove()

    def test_what_enters_the_first_block(self, subject: Subject) -> None:
        ids, context = swapped(subject, parents=1), surrounding(2, after=AFTER)
        found = prefixes.run(subject, ids, [("resid_pre", 0)], context=context)
        expected = plain(subject, subject.embed(ids), [("resid_pre", 0)], context)
        assert apart(found["resid_pre", 0], expected["resid_pre", 0]) < EXACT


# ---------------------------------------------------------------- positions that depend on the length

STRETCHED = {
    "dynamic": ({"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}, 8),
    "longrope": (
        {
            "rope_type": "longrope",
            "rope_theta": 1e4,
            "factor": 4.0,
            "original_max_position_embeddings": 8,
            "short_factor": [1.0, 1.0, 1.0, 1.0],
            "long_factor": [4.0, 3.0, 2.0, 5.0],
        },
        32,
    ),
}


class TestLengthDependent:
    """8 positions in training: 5 before and 6 tokens are more than that, each alone is less."""

    @pytest.mark.parametrize("key", ["rope_parameters", "rope_scaling"])
    @pytest.mark.parametrize("kind", STRETCHED)
    def test_keeps_no_keys(self, kind: str, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
        rope, size = STRETCHED[kind]
        context = surrounding(2, after=AFTER)

        def made() -> Subject:  # anew each time: `dynamic` keeps the stretch of the longest sequence so far
            return tiny("llama", architecture={key: rope, "max_position_embeddings": size})

        first = made()
        assert not first.keeps_keys
        embeddings = noise().requires_grad_()
        for places in [*(places_of(first, layer) for layer in range(LAYERS)), [LAST]]:
            found = made().run(embeddings, places, context=context)
            expected = plain(made(), embeddings, places, context)
            assert all(apart(found[place], expected[place]) < EXACT for place in places)
            assert apart(slope(found, embeddings), slope(expected, embeddings)) < EXACT
        ids = swapped(first, parents=1)
        shared = prefixes.run(made(), ids, [LAST], context=context)[LAST]
        whole = plain(made(), first.embed(ids), [LAST], context)[LAST]
        assert apart(shared, whole) < EXACT
        monkeypatch.setattr(Subject, "keeps_keys", True)
        forced = made().run(embeddings, [UNIT.place], context=context)[UNIT.place]
        assert apart(forced, plain(made(), embeddings, [UNIT.place], context)[UNIT.place]) > DIFFERENT

    @pytest.mark.parametrize("kind", ["default", "linear", "yarn", "llama3"])
    def test_other_rotary_positions_keep_them(self, kind: str) -> None:
        others = {
            "linear": {"factor": 2.0},
            "yarn": {"factor": 2.0, "original_max_position_embeddings": 8},
            "llama3": {
                "factor": 2.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8,
            },
        }
        rope = {"rope_type": kind, "rope_theta": 1e4, **others.get(kind, {})}
        subject = tiny("llama", architecture={"rope_parameters": rope, "max_position_embeddings": 16})
        assert subject.keeps_keys
        context = surrounding(after=AFTER)
        expected = plain(subject, noise(), [LAST], context)[LAST]
        assert apart(subject.run(noise(), [LAST], context=context)[LAST], expected) < EXACT
        assert apart(subject.run(noise(), [LAST], context=surrounding(after=AFTER, seed=1))[LAST], expected) > DIFFERENT

    def test_every_family_of_these_tests_keeps_them(self, subject: Subject) -> None:
        assert subject.keeps_keys


# ---------------------------------------------------------------- the objective


def reduced(values: Tensor, reduction: Reduction) -> Tensor:
    """Written out: rows x tokens to rows."""
    return {"mean": values.mean(1), "last": values[:, TOKENS - 1], "max": values.max(1).values}[reduction]


def activation_in(subject: Subject, objective: Objective, embeddings: Tensor, unit: Unit = UNIT) -> Tensor:
    captured = subject.run(embeddings, [unit.place], context=objective.seen)
    return objective.activation(unit.read(captured))


class TestObjective:
    @pytest.mark.parametrize("reduction", ["mean", "last", "max"])
    def test_reads_the_tokens_alone(self, subject: Subject, reduction: Reduction) -> None:
        context = surrounding(after=AFTER)
        whole = UNIT.read(subject.run(surrounded(subject, noise(), context), [UNIT.place]))
        found = activation_in(subject, Objective(reduction, context=context), noise())
        assert apart(found, reduced(whole[:, BEFORE : BEFORE + TOKENS], reduction)) < exact(subject)
        assert reduction == "last" or apart(found, reduced(whole, reduction)) > DIFFERENT
        assert reduction != "last" or apart(found, whole[:, -1]) > DIFFERENT

    @pytest.mark.parametrize("reduction", ["mean", "last", "max"])
    def test_the_last_position_is_that_of_the_whole_input(self, subject: Subject, reduction: Reduction) -> None:
        context = surrounding(after=AFTER)
        whole = UNIT.read(subject.run(surrounded(subject, noise(), context), [UNIT.place]))
        objective = Objective(reduction, positions="last", context=context)
        assert objective.seen == context
        found = activation_in(subject, objective, noise())
        assert apart(found, whole[:, -1]) < exact(subject)
        assert apart(found, whole[:, BEFORE + TOKENS - 1]) > DIFFERENT  # the last of the tokens
        bare = Objective(reduction, positions="last", context=context.without_after())
        assert apart(activation_in(subject, bare, noise()), whole[:, BEFORE + TOKENS - 1]) < exact(subject)

    @pytest.mark.parametrize("positions", ["own", "last"])
    @pytest.mark.parametrize("reduction", ["mean", "last", "max"])
    def test_over_several_surroundings_it_is_the_mean_of_each(
        self, subject: Subject, reduction: Reduction, positions: Literal["own", "last"]
    ) -> None:
        context = surrounding(3, after=AFTER)
        objective = Objective(reduction, positions=positions, context=context)
        found = activation_in(subject, objective, noise())
        each = [activation_in(subject, replace(objective, context=one), noise()) for one in singles(context)]
        assert found.shape == (ROWS,)
        assert apart(found, torch.stack(each).mean(0)) < exact(subject)
        assert min(apart(found, one) for one in each) > DIFFERENT

    def test_the_largest_counts_within_each_surrounding(self, gpt2: Subject) -> None:
        context = surrounding(3)
        values = UNIT.read(plain(gpt2, noise(), [UNIT.place], context)).unflatten(0, (ROWS, 3))
        found = activation_in(gpt2, Objective("max", context=context), noise())
        assert apart(found, values.max(2).values.mean(1)) < EXACT
        assert apart(found, values.mean(1).max(1).values) > DIFFERENT  # the largest of the mean

    def test_what_stands_behind_does_not_run_where_the_tokens_are_read(self, gpt2: Subject) -> None:
        objective, ran = Objective(context=surrounding(2, after=AFTER)), []
        assert objective.seen.after == ()
        assert objective.seen.before == objective.context.before
        without = Objective(context=objective.context.without_after())
        activation_in(gpt2, objective, noise())
        hook = block_sizes(gpt2, 0, ran)
        try:
            found = activation_in(gpt2, objective, noise())
            activation_in(gpt2, replace(objective, positions="last"), noise())
        finally:
            hook.remove()
        assert ran == [(2 * ROWS, TOKENS), (2 * ROWS, TOKENS + AFTER)]
        assert torch.equal(found, activation_in(gpt2, without, noise()))

    def test_the_vectors_of_a_place_are_reduced_like_a_unit(self, gpt2: Subject) -> None:
        objective = Objective("max", context=surrounding(2))
        captured = gpt2.run(noise(), [UNIT.place], context=objective.seen)
        whole = objective.activation(captured[UNIT.place])
        assert whole.shape == (ROWS, 24)
        assert torch.equal(whole[:, UNIT.index], objective.activation(UNIT.read(captured)))


# ---------------------------------------------------------------- activations and cross-entropies of sequences


def hidden_states(subject: Subject, ids: Tensor, context: Context) -> tuple[Tensor, ...]:
    model: Any = twin(subject).model
    with torch.no_grad():
        return model(input_ids=joined(ids, context), output_hidden_states=True, use_cache=False).hidden_states


def literal_entropy(subject: Subject, ids: Tensor, before: Sequence[int]) -> list[float]:
    """Token by token, from the whole model's logits at the position before it."""
    model: Any = subject.model
    found = []
    for row in ids.tolist():
        whole = [*before, *row]
        with torch.no_grad():
            log_p = model(input_ids=torch.tensor([whole]), use_cache=False).logits[0].log_softmax(1)
        nexts = range(len(before) + 1, len(whole))  # all tokens of the sequence but its first
        found.append(-float(np.mean([float(log_p[place - 1, whole[place]]) for place in nexts])))
    return found


class TestEvaluation:
    @pytest.mark.parametrize("count", [1, 3])
    @pytest.mark.parametrize("reduction", ["mean", "last", "max"])
    def test_activations_are_those_of_the_whole_sequence(
        self, subject: Subject, reduction: Reduction, count: int
    ) -> None:
        """The residual stream alone, which Hugging Face gives by itself; all lengths in one call."""
        context = surrounding(count, after=AFTER)
        objective = Objective(reduction, context=context)
        units = [Unit("resid_pre", layer, index) for layer, index in ((1, 3), (2, 5), (3, 7), (0, 2))]
        asked = [tuple(one) for tokens in (6, 3, 1, 6) for one in sequences(1, tokens, seed=tokens).tolist()]
        found = evaluation.activations(subject, objective, [*asked, ()], [*units, units[0]])
        assert np.isnan(found[-1])
        wrong = evaluation.activations(subject, Objective(reduction), asked, units)
        for number, (ids, unit) in enumerate(zip(asked, units, strict=True)):
            hidden = hidden_states(subject, torch.tensor([ids]), context)[unit.layer or 0]
            own = hidden[:, BEFORE : BEFORE + len(ids), unit.index]
            each = {"mean": own.mean(1), "last": own[:, -1], "max": own.amax(1)}[reduction]
            assert found[number] == pytest.approx(float(each.mean()), abs=exact(subject))
            assert unit.layer == 0 or abs(wrong[number] - float(each.mean())) > DIFFERENT

    def test_activations_of_the_last_position_come_from_the_whole_input(self, subject: Subject) -> None:
        context = surrounding(2, after=AFTER)
        unit, ids = Unit("resid_pre", 3, 5), sequences()
        objective = Objective(positions="last", context=context)
        whole = hidden_states(subject, ids, context)[3][:, :, 5].unflatten(0, (ROWS, 2)).mean(1)
        for found in (
            evaluation.activations(subject, objective, ids.tolist(), [unit] * ROWS),
            evaluation.by_unit_activations(subject, objective, ids, [unit])[:, 0],
        ):
            assert found == pytest.approx(whole[:, -1].numpy(), abs=exact(subject))
            assert np.abs(found - whole[:, BEFORE + TOKENS - 1].numpy()).max() > DIFFERENT

    @pytest.mark.parametrize("rows", [3, 300])
    @pytest.mark.parametrize("count", [1, 2])
    def test_every_unit_at_every_sequence(
        self, gpt2: Subject, monkeypatch: pytest.MonkeyPatch, count: int, rows: int
    ) -> None:
        """More rows than a pass holds, too, with fewer of them where each has several copies."""
        context, ids = surrounding(count, after=AFTER), sequences(rows)
        objective, said, ran = Objective("mean", context=context), [], []
        hook = block_sizes(gpt2, 0, ran)
        monkeypatch.setattr(evaluation.Bar, "advance", lambda _, steps: said.append(steps))
        try:
            found = evaluation.by_unit_activations(gpt2, objective, ids, UNITS)
        finally:
            hook.remove()
        assert sum(said) == rows
        assert max(copies for copies, tokens in ran if tokens == TOKENS) <= evaluation.ROWS
        for number, unit in enumerate(UNITS):
            with torch.no_grad():
                whole = unit.read(plain(gpt2, gpt2.embed(ids), [unit.place], context))[:, :TOKENS]
            expected = whole.mean(1).unflatten(0, (rows, count)).mean(1)
            assert np.abs(found[:, number] - expected.numpy()).max() < EXACT
            own = evaluation.activations(gpt2, objective, ids.tolist(), [unit] * rows)
            assert np.abs(found[:, number] - own).max() < EXACT
        other = evaluation.by_unit_activations(gpt2, Objective(), ids, UNITS)
        assert np.abs(found - other).max(0).min() > DIFFERENT

    @pytest.mark.parametrize("count", [1, 2])
    def test_cross_entropy_is_that_of_all_tokens_but_the_first(self, subject: Subject, count: int) -> None:
        context, ids = surrounding(count, after=AFTER), sequences()
        each = np.array([literal_entropy(subject, ids, before) for before in context.before])
        found = evaluation.cross_entropies(subject, ids, context)
        assert found == pytest.approx(each.mean(0), abs=exact(subject))
        bare = evaluation.cross_entropies(subject, ids)
        assert bare == pytest.approx(np.array(literal_entropy(subject, ids, ())), abs=exact(subject))
        assert np.abs(found - bare).min() > DIFFERENT
        assert np.isnan(evaluation.cross_entropies(subject, ids[:, :1], context)).all()

    @pytest.mark.parametrize("count", [1, 2])
    def test_predictions_hold_every_surrounding(self, gpt2: Subject, count: int) -> None:
        context, ids = surrounding(count, after=AFTER), sequences()
        hidden = gpt2.run(gpt2.embed(ids), [LAST], context=context)[LAST]  # what stands behind predicts nothing of ids
        predicted = evaluation.predictions(gpt2, hidden, ids)
        assert predicted.shape == (ROWS, count, TOKENS - 1, 257)
        own = evaluation.own_scores(predicted, ids)
        logits = gpt2.model(input_ids=joined(ids, context), use_cache=False).logits.log_softmax(2)
        for row, copy, place in ((0, 0, 0), (ROWS - 1, count - 1, TOKENS - 2), (1, count - 1, 2)):
            log_p = logits[row * count + copy, BEFORE + place]
            assert apart(predicted[row, copy, place], log_p) < EXACT
            assert own[row, copy, place] == pytest.approx(float(log_p[ids[row, place + 1]]), abs=EXACT)
            assert abs(float(own[row, copy, place] - log_p[ids[row, place]])) > DIFFERENT


class TestRandomActivations:
    SETTINGS = GapSettings(draws=40, seed=3)

    def files(self, subject: Subject, objective: Objective, folder: Path) -> set[str]:
        evaluation.random_activations(subject, objective, (UNIT,), TOKENS, self.SETTINGS, folder)
        return {file.name for file in folder.iterdir()}

    def former(self, subject: Subject, objective: Objective) -> str:
        """The name of the file when there were no contexts yet."""
        settings = self.SETTINGS
        asked = [str(UNIT), objective.reduction, str(subject.dtype), TOKENS, settings.draws, settings.seed]
        digest = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]
        return f"{subject.weights_hash[:24]}-{digest}-v1.npy"

    @pytest.mark.parametrize("reduction", ["mean", "last", "max"])
    def test_a_file_of_before_there_were_contexts_has_its_name_still(
        self, gpt2: Subject, tmp_path: Path, reduction: Reduction
    ) -> None:
        objective = Objective(reduction)
        name = self.former(gpt2, objective)
        planted = np.arange(40.0)
        np.save(tmp_path / name, planted)
        evaluation.random_activations.cache_clear()
        made = evaluation.random_activations(gpt2, objective, (UNIT,), TOKENS, self.SETTINGS, tmp_path)
        assert not np.array_equal(made[:, 0], planted)  # without its digest it may hold anything
        evaluation._keep(tmp_path / name, planted)
        evaluation.random_activations.cache_clear()
        found = evaluation.random_activations(gpt2, objective, (UNIT,), TOKENS, self.SETTINGS, tmp_path)
        assert np.array_equal(found[:, 0], planted)
        assert self.files(gpt2, objective, tmp_path) == {name}

    def test_nothing_around_the_tokens_is_one_name_whatever_it_is_called(self, gpt2: Subject, tmp_path: Path) -> None:
        bare = (NONE, Context("other"), surrounding(before=0, after=AFTER))  # what stands behind is not read
        assert {name for one in bare for name in self.files(gpt2, Objective(context=one), tmp_path)} == {
            self.former(gpt2, Objective())
        }

    def test_every_context_has_a_file_of_its_own(self, gpt2: Subject, tmp_path: Path) -> None:
        one, other, several = surrounding(), surrounding(seed=1), surrounding(2)
        ended = surrounding(after=AFTER)
        objectives = [
            Objective(),
            Objective(context=one),
            Objective(context=other),
            Objective(context=several),
            Objective("max", context=one),
            Objective(positions="last", context=one),
            Objective(positions="last", context=ended),
            Objective(positions="last", context=replace(ended, after=ended.after[::-1])),
            Objective(positions="last"),
        ]
        count = 0
        ids = evaluation.random_tokens(gpt2, TOKENS, draws=40, seed=3)
        for objective in objectives:
            for _ in range(2):  # made, and then read
                evaluation.random_activations.cache_clear()
                found = evaluation.random_activations(gpt2, objective, (UNIT,), TOKENS, self.SETTINGS, tmp_path)
                expected = evaluation.by_unit_activations(gpt2, objective, ids, [UNIT])
                assert np.abs(found - expected).max() < EXACT
            assert len(list(tmp_path.iterdir())) == (count := count + 1)

    def test_what_is_not_read_shares_the_file(self, gpt2: Subject, tmp_path: Path) -> None:
        context = surrounding(after=AFTER)
        names = self.files(gpt2, Objective(context=context), tmp_path)
        assert self.files(gpt2, Objective(context=context.without_after()), tmp_path) == names
        assert len(names) == 1
        assert names != {self.former(gpt2, Objective())}


# ---------------------------------------------------------------- searches


def literal_slopes(
    subject: Subject, ids: Tensor, objective: Objective, unit: Unit, weight: float, sign: float
) -> tuple[Tensor, Tensor]:
    """Derivatives to the one-hot vectors by autograd through the whole model of Hugging Face; the score besides."""
    model: Any = twin(subject).model
    matrix, context = subject.embedding_matrix, objective.context
    one_hot = nn.functional.one_hot(ids, len(matrix)).to(matrix.dtype).requires_grad_()
    own = slice(context.length, context.length + ids.shape[1])
    score = torch.zeros((), dtype=matrix.dtype)
    for before in context.before:
        around = [matrix[torch.tensor(part, dtype=torch.long)][None] for part in (before, context.after)]
        whole = torch.cat([around[0], one_hot @ matrix, around[1]], dim=1)
        out = model(inputs_embeds=whole, output_hidden_states=True, use_cache=False)
        values = out.hidden_states[unit.layer or 0][0, :, unit.index]
        activation = values[-1] if objective.positions == "last" else values[own].mean()
        log_p = out.logits[0, own.start : own.stop - 1].log_softmax(1)
        fluency = (log_p * one_hot[0, 1:]).sum(1).mean()
        score = score + (sign * activation + weight * fluency) / context.count
    (gradient,) = torch.autograd.grad(score, one_hot)
    return gradient[0], score.detach()


@pytest.mark.parametrize("positions", ["own", "last"])
@pytest.mark.parametrize("count", [1, 2])
class TestOracle:
    UNIT = Unit("resid_pre", 2, 5)

    def oracle(self, subject: Subject, objective: Objective, **options: Any) -> Oracle:
        alphabet = Alphabet(subject, only_text=False, context=objective.context)
        return Oracle(subject, objective, alphabet, top_k=257, **options)

    @pytest.mark.parametrize("sign", ["maximize", "minimize"])
    @pytest.mark.parametrize("weight", [None, 0.0, 1.5])
    def test_slopes_are_derivatives_to_one_hot_tokens(
        self,
        subject: Subject,
        count: int,
        positions: Literal["own", "last"],
        weight: float | None,
        sign: Literal["maximize", "minimize"],
    ) -> None:
        ids = sequences(1)
        objective = Objective(sign=sign, positions=positions, context=surrounding(count, after=AFTER))
        factor = 1.0 if sign == "maximize" else -1.0
        expected, _ = literal_slopes(subject, ids, objective, self.UNIT, weight or 0.0, factor)
        asked = Slopes((tuple(ids[0].tolist()),), () if weight is None else (weight,))
        ((found,),) = self.oracle(subject, objective).slopes([(self.UNIT, asked)])
        assert torch.equal(found.sort(dim=1).values, torch.arange(257).expand(TOKENS, 257))
        assert expected.gather(1, found).diff(dim=1).max() < exact(subject)  # descending
        wrong = replace(objective, context=surrounding(count, after=AFTER, seed=1))
        ((other,),) = self.oracle(subject, wrong).slopes([(self.UNIT, asked)])
        assert expected.gather(1, other).diff(dim=1).max() > DIFFERENT

    def test_the_literal_slopes_are_finite_differences(
        self, gpt2: Subject, count: int, positions: Literal["own", "last"]
    ) -> None:
        """What the test above compares with, itself: between two tokens the score rises as the slopes say."""
        model, step = gpt2.model, 1e-6
        objective = Objective(positions=positions, context=surrounding(count, after=AFTER))
        ids, weight, matrix = sequences(1), 1.5, gpt2.embedding_matrix
        slopes, _ = literal_slopes(gpt2, ids, objective, self.UNIT, weight, 1.0)

        def score(one_hot: Tensor) -> float:
            """Through `Subject.run`, with every entry of the one-hot vectors free."""
            captured = gpt2.run(one_hot @ matrix, [self.UNIT.place, LAST], context=objective.seen)
            activation = objective.activation(self.UNIT.read(captured))
            log_p = gpt2.logits(captured[LAST][:, : TOKENS - 1]).log_softmax(2)
            own = (log_p.unflatten(0, (1, -1)) * one_hot[:, None, 1:]).sum(3).mean((1, 2))
            return float(activation + weight * own)

        assert not model.training
        start = nn.functional.one_hot(ids, len(matrix)).to(matrix.dtype)
        for place, token in ((0, 3), (2, 100), (TOKENS - 1, 40)):
            ends = []
            for change in (step, -step):
                moved = start.clone()
                moved[0, place, token] += change
                ends.append(score(moved))
            difference = (ends[0] - ends[1]) / (2 * step)
            assert difference == pytest.approx(float(slopes[place, token]), abs=1e-6)
            assert abs(difference - float(slopes[place, token - 1])) > DIFFERENT

    def test_evaluates_like_the_gap(self, subject: Subject, count: int, positions: Literal["own", "last"]) -> None:
        context = surrounding(count, after=AFTER)
        objective = Objective(positions=positions, context=context)
        asked = tuple(map(tuple, swapped(subject, parents=1)[:40].clamp(max=255).tolist()))
        shorter = ((1, 2, 3), (1, 2, 4), (5, 6))
        questions = (Evaluate(asked), Evaluate(asked + shorter, fluency=True))
        for question in questions:
            (found,) = self.oracle(subject, objective).evaluate([(self.UNIT, question)])
            (parts,) = self.oracle(subject, objective, max_rows=7).evaluate([(self.UNIT, question)])
            expected = evaluation.activations(
                subject, objective, question.sequences, [self.UNIT] * len(question.sequences)
            )
            for one in (found, parts):
                assert np.abs(one.activation - expected).max() < exact(subject)
            assert np.abs(found.activation[::-1] - expected).max() > DIFFERENT
            if question.fluency:
                entropy = evaluation.cross_entropies(subject, torch.tensor(asked), context)
                assert np.abs(found.cross_entropy[: len(asked)] - entropy).max() < exact(subject)
                short = evaluation.cross_entropies(subject, torch.tensor(shorter[2:]), context)
                assert found.cross_entropy[-1] == pytest.approx(short[0], abs=exact(subject))
                bare = evaluation.cross_entropies(subject, torch.tensor(asked))
                assert np.abs(found.cross_entropy[: len(asked)] - bare).max() > DIFFERENT


# ---------------------------------------------------------------- maximization


def starting(subject: Subject, *seeds: int) -> Tensor:
    return initial(scaled(subject.embedding_matrix, TOKENS), list(seeds)).double()


def fitted(subject: Subject, job: list[Row], **options: Any) -> Maximization:
    return fitted_from(subject, job, starting(subject, *[row.seed for row in job]), **options)


def rows(*seeds: int, unit: Unit = UNIT) -> list[Row]:
    return [Row(unit, seed) for seed in seeds]


def literal_activation(subject: Subject, embedding: Tensor, unit: Unit, objective: Objective) -> Tensor:
    """One restart's activation, each surrounding by a pass of its own through the whole sequence."""
    own = slice(objective.context.length, objective.context.length + embedding.shape[1])
    found = []
    for one in singles(objective.context):
        values = unit.read(subject.run(surrounded(subject, embedding, one), [unit.place]))
        found.append(values[:, -1] if objective.positions == "last" else values[:, own].mean(1))
    return torch.stack(found).mean(0)


def literal_fluency(subject: Subject, embedding: Tensor, context: Context, temperature: float) -> Tensor:
    """One restart's fluency term from the whole model's logits, each surrounding by itself."""
    matrix = subject.embedding_matrix
    softly = (nn.functional.normalize(embedding[0, 1:], dim=1) @ nn.functional.normalize(matrix, dim=1).T) / temperature
    model: Any = subject.model
    found = []
    for one in singles(context):
        logits = model(inputs_embeds=surrounded(subject, embedding, one), use_cache=False).logits
        log_q = logits[0, one.length : one.length + embedding.shape[1] - 1].log_softmax(1)
        found.append(-(softly.softmax(1) * log_q).sum(1).mean())
    return torch.stack(found).mean()


MANY = {
    "one": Objective(context=surrounding()),
    "several": Objective(context=surrounding(2)),
    "last": Objective(positions="last", context=surrounding(2, after=AFTER)),
}


@pytest.mark.parametrize("kind", MANY)
class TestMaximization:
    def test_equals_the_literal_script(self, gpt2: Subject, kind: str) -> None:
        objective = MANY[kind]
        module = fitted(gpt2, rows(0, 1), objective=objective, steps=STEPS)
        ends = []
        for number, start in enumerate(starting(gpt2, 0, 1)):
            embedding = start[None].clone().requires_grad_()
            optimizer = torch.optim.Adam([embedding], lr=0.01)
            for _ in range(STEPS):
                optimizer.zero_grad()
                (-literal_activation(gpt2, embedding, UNIT, objective).sum()).backward()
                optimizer.step()
            ends.append(embedding.detach()[0])
            assert apart(module.embedding[number], ends[-1]) < EXACT
        bare = fitted(gpt2, rows(0, 1), objective=Objective(), steps=STEPS)
        assert apart(bare.embedding[0], ends[0]) > DIFFERENT

    def test_batch_and_solo_agree(self, gpt2: Subject, kind: str) -> None:
        options = {"objective": MANY[kind], "steps": STEPS}
        job = [Row(unit, seed) for unit in UNITS[:3] for seed in range(2)]
        together = fitted(gpt2, job, **options)
        parts = fitted(gpt2, job, max_rows=2, **options)
        assert apart(together.embedding, parts.embedding) < EXACT
        for number, row in enumerate(job):
            alone = fitted(gpt2, [row], **options)
            assert apart(together.embedding[number], alone.embedding[0]) < EXACT
            assert apart(together.outcome()[3][[number]], alone.outcome()[3]) < EXACT
        assert apart(together.embedding[0], together.embedding[1]) > DIFFERENT
        assert (together.outcome()[3] > together.outcome()[2]).all()

    def test_the_first_step_goes_along_the_gradient_of_a_plain_pass(self, subject: Subject, kind: str) -> None:
        objective = MANY[kind]
        job = [Row(unit, 0) for unit in UNITS]
        start = starting(subject, *[0] * len(job))
        module = fitted(subject, job, objective=objective, optimizer="sgd", lr=1.0, steps=1)
        for number, unit in enumerate(UNITS):
            embedding = start[[number]].requires_grad_()
            activation = literal_activation(subject, embedding, unit, objective)
            (gradient,) = torch.autograd.grad(activation.sum(), embedding)
            assert apart(module.embedding[[number]] - start[[number]], gradient) < exact(subject)
            if unit.place == UNIT.place:
                (bare,) = torch.autograd.grad(literal_activation(subject, embedding, unit, Objective()), embedding)
                assert apart(bare, gradient) > DIFFERENT

    def test_fluency_is_the_mean_over_the_surroundings(self, subject: Subject, kind: str) -> None:
        objective, prior = MANY[kind], Fluency(0.7, "absolute")
        start = starting(subject, 0, 1)
        module = module_of(subject, rows(0, 1), start, objective=objective, priors=[prior])
        found = module.prior_values(start)["fluency"]
        each = torch.stack(
            [
                module_of(
                    subject, rows(0, 1), start, objective=replace(objective, context=one), priors=[prior]
                ).prior_values(start)["fluency"]
                for one in singles(objective.context)
            ]
        )
        assert apart(found, each.mean(0)) < exact(subject)
        bare = module_of(subject, rows(0, 1), start, priors=[prior]).prior_values(start)["fluency"]
        for number in range(2):
            literal = literal_fluency(subject, start[[number]], objective.context, prior.temperature)
            assert apart(found[number], literal) < exact(subject)
            assert apart(bare[number], literal) > DIFFERENT

    def test_fluency_in_blocks_of_rows_is_the_same(
        self, gpt2: Subject, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        objective, prior = MANY[kind], Fluency(0.7, "absolute")
        options = {"objective": objective, "priors": [prior], "optimizer": "sgd", "lr": 1.0, "steps": 2}
        whole = fitted(gpt2, rows(0, 1, 2), **options)
        monkeypatch.setattr(priors, "BLOCK", 2 * (TOKENS - 1) * 257)  # two copies, of which a row has one or two
        parts = fitted(gpt2, rows(0, 1, 2), **options)
        assert apart(whole.embedding, parts.embedding) < EXACT
        assert apart(whole.embedding, whole.initial) > DIFFERENT

    def test_a_row_keeps_as_much_more_as_there_are_surroundings(self, gpt2: Subject, kind: str) -> None:
        objective = MANY[kind]
        (several, one) = (
            fitted(gpt2, rows(0, 1), objective=each, steps=1).bytes_per_row()
            for each in (objective, replace(objective, context=singles(objective.context)[0]))
        )
        assert several == pytest.approx(objective.context.count * one, rel=0.1)

    def test_the_first_step_with_fluency_too(self, gpt2: Subject, kind: str) -> None:
        objective, prior = MANY[kind], Fluency(0.7, "absolute")
        options = {"objective": objective, "priors": [prior], "optimizer": "sgd", "lr": 1.0, "steps": 1}
        module = fitted(gpt2, rows(0, 1), **options)
        for number, start in enumerate(starting(gpt2, 0, 1)):
            embedding = start[None].clone().requires_grad_()
            loss = -literal_activation(gpt2, embedding, UNIT, objective).sum()
            (without,) = torch.autograd.grad(loss, embedding, retain_graph=True)
            loss = loss + 0.7 * literal_fluency(gpt2, embedding, objective.context, prior.temperature)
            (gradient,) = torch.autograd.grad(loss, embedding)
            step = start[None] - module.embedding[[number]]
            assert apart(step, gradient) < EXACT
            assert apart(step, without) > DIFFERENT

    def test_evaluate_and_capture_read_a_plain_pass(self, subject: Subject, kind: str) -> None:
        objective = MANY[kind]
        job = [Row(unit, seed) for unit in UNITS for seed in range(2)]
        start = starting(subject, *[row.seed for row in job])
        module = module_of(subject, job, start, objective=objective, max_rows=3)
        found, captured = module.evaluate(start), module.capture(start)
        assert captured.keys() == {unit.place for unit in UNITS}
        for number, row in enumerate(job):
            with torch.no_grad():
                literal = literal_activation(subject, start[[number]], row.unit, objective)
            assert apart(found[[number]], literal) < exact(subject)
            own = captured[row.unit.place][[row.seed], row.unit.index]
            assert apart(own, literal) < exact(subject)
        assert all(values.shape == (2, subject.geometry.width(site)) for (site, _), values in captured.items())
        bare = module_of(subject, job, start, objective=Objective()).evaluate(start)
        assert apart(found[:2], bare[:2]) > DIFFERENT


class TestGap:
    @pytest.mark.parametrize("positions", ["own", "last"])
    @pytest.mark.parametrize("count", [1, 2])
    def test_every_stage_is_read_in_the_context(
        self, gpt2: Subject, count: int, positions: Literal["own", "last"]
    ) -> None:
        objective = Objective(positions=positions, context=surrounding(count, after=AFTER))
        typed = Alphabet(gpt2).ids[:94]  # one byte each: their text gives the same number of tokens
        start, end = (gpt2.embed(typed[sequences(2, seed=seed) % len(typed)]) for seed in (1, 2))
        module = module_of(gpt2, rows(0, 1), start, objective=objective)
        found = Restarts(start, end, module.evaluate(start), module.evaluate(end), module.frozen)
        settings = GapSettings(draws=40)
        nearest = NearestTokens(gpt2.embedding_matrix)
        gaps = {
            one: measure(gpt2, one, {UNIT: found}, nearest, passes=1, settings=settings)[UNIT]
            for one in (objective, Objective())
        }
        gap, bare = gaps.values()
        ids, begun, random = (
            nearest(end).best,
            nearest(start).best,
            evaluation.random_tokens(gpt2, TOKENS, draws=40, seed=0),
        )

        def activations(some: Tensor) -> list[float]:
            with torch.no_grad():
                return [float(literal_activation(gpt2, gpt2.embed(one[None]), UNIT, objective)) for one in some]

        def entropies(some: Tensor) -> list[float]:
            each = [literal_entropy(gpt2, some, before) for before in objective.context.before]
            return np.mean(each, axis=0).tolist()

        for name, values in {
            "snapped": activations(ids),
            "retokenised": activations(ids),
            "start_tokens": activations(begun),
            "cross_entropy": entropies(ids),
            "cross_entropy_initial": entropies(begun),
        }.items():
            assert getattr(gap, name) == pytest.approx(values, abs=EXACT), name
            assert np.abs(getattr(bare, name) - values).max() > DIFFERENT, name
        assert gap.random.activation == pytest.approx(activations(random), abs=EXACT)
        assert gap.random.cross_entropy == pytest.approx(entropies(random), abs=EXACT)
        assert np.abs(bare.random.activation - gap.random.activation).max() > DIFFERENT

    @pytest.mark.parametrize("before", [0, BEFORE])
    def test_a_text_of_more_tokens_than_there_is_room_for_is_no_error(self, gpt2: Subject, before: int) -> None:
        """Bytes that are no text by themselves: what they spell is three times as long when it is tokenised again."""
        context = surrounding(before=before) if before else NONE
        start = gpt2.embed(torch.arange(250, 256))[None]
        activation = torch.zeros(1, dtype=torch.float64)
        found = Restarts(start, start, activation, activation, torch.zeros(1, dtype=torch.bool))
        nearest, settings = NearestTokens(gpt2.embedding_matrix), GapSettings(draws=40)
        gap = measure(gpt2, Objective(context=context), {UNIT: found}, nearest, passes=1, settings=settings)[UNIT]
        assert gap.lengths[0] + before > gpt2.geometry.context
        assert np.isfinite(gap.snapped).all()


# ---------------------------------------------------------------- kernels and the compiler


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox_parallel", "gpt_neox_sequential", "llama"])
class TestKernels:
    def test_agree_behind_a_prefix(self, name: str) -> None:
        context = surrounding(2, after=AFTER)
        sdpa, eager = the_subject(name), tiny(name, attention="eager")
        assert (sdpa.attention, eager.attention) == ("sdpa", "eager")
        places = every_place(sdpa)
        left, right = (one.run(noise(), places, context=context) for one in (sdpa, eager))
        # eager's softmax is in float32 whatever the dtype, so that the two agree no better without a context
        rounding = max(apart(sdpa.run(noise(), [one])[one], eager.run(noise(), [one])[one]) for one in places)
        assert max(apart(left[place], right[place]) for place in places) < max(EXACT, 10 * rounding)
        other = eager.run(noise(), [LAST], context=surrounding(2, after=AFTER, seed=1))[LAST]
        assert apart(left[LAST], other) > max(DIFFERENT, 100 * rounding)

    def test_keys_of_one_are_not_the_others(self, name: str) -> None:
        context, fresh, ran = surrounding(2, after=AFTER), replace(the_subject(name)), []
        eager = tiny(name, attention="eager").run(noise(), [LAST], context=context)[LAST]
        before = fresh.run(noise(), [LAST], context=context)[LAST]
        hook = block_sizes(fresh, 0, ran)
        try:
            with fresh.attending("eager"):
                found = fresh.run(noise(), [LAST], context=context)[LAST]
            again = fresh.run(noise(), [LAST], context=context)[LAST]
        finally:
            hook.remove()
        assert ran == [(2, BEFORE), (2 * ROWS, TOKENS + AFTER), (2 * ROWS, TOKENS + AFTER)]
        assert torch.equal(found, eager)  # as if its keys had never been another kernel's
        assert torch.equal(again, before)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of PyTorch's tracing
class TestCompiled:
    """By Dynamo alone, as in test_subject.py."""

    @pytest.fixture
    def graphs(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
        """What was handed to the compiler."""
        handed: list[Any] = []

        def keep(graph: Any, _: Any) -> Any:
            handed.append(graph)
            return graph.forward

        monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=keep))
        torch.compiler.reset()
        yield handed
        torch.compiler.reset()

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["gpt2", "llama"])
    def test_gives_the_same_behind_a_prefix(self, name: str, graphs: list[Any]) -> None:
        context = surrounding(2, after=AFTER)
        places: list[Place] = [("resid_pre", 3), ("mlp_post", 1), LAST]
        counts = []
        compiled, ordinary = tiny(name), the_subject(name)
        for count in (2, 5, 5, 5):
            embeddings = noise(count).requires_grad_()
            for place in places:
                expected = plain(ordinary, embeddings, [place], context)[place]
                with compiled.compiled():
                    found = compiled.run(embeddings, [place], context=context)[place]
                assert apart(found, expected) < 1e-6 * float(expected.detach().abs().max())
                slopes = [torch.autograd.grad(one.sin().sum(), embeddings)[0] for one in (expected, found)]
                assert apart(*slopes) < 1e-6 * float(slopes[0].abs().max())
            counts.append(len(graphs))
        assert counts[0] > 0
        assert counts[2] == counts[3]  # a shape that was met before is not compiled again
