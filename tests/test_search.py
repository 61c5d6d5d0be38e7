"""Token search: the true maximum where everything can be tried, the front from its text alone, restarts alone."""

from __future__ import annotations

import copy
import itertools
import json
import math
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer, decoders, models
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedTokenizerFast

from actmax.errors import InputError
from actmax.evidence.settings import RANDOM_TEXT, RANDOM_TOKENS
from actmax.model import evaluation
from actmax.model.architecture import geometry
from actmax.model.nearest import NearestTokens
from actmax.model.objective import Objective, Row
from actmax.model.settings import GapSettings
from actmax.model.subject import Subject
from actmax.model.target import Unit
from actmax.progress import Bar
from actmax.records.store import Record
from actmax.search import prefixes
from actmax.search.alphabet import Alphabet
from actmax.search.front import Point, front_of, weight_of
from actmax.search.moves import Moves
from actmax.search.oracle import Evaluate, Oracle, Slopes
from actmax.search.pieces import real_text
from actmax.search.restarts import Found, search, spreads
from actmax.search.settings import SearchSettings
from actmax.tasks.search import work
from actmax.tasks.units.card import card
from cli import QUICK, Actmax

LETTERS = "abcdefghijklmnopqrstu"
UNIT = Unit("resid_pre", 2, 5)
MAX = Objective()
BUDGET = 800
"""Forward passes per restart, of 12,075 sequences."""
SMALL = SearchSettings(passes=BUDGET, candidates=24, top_k=12, patience=2, generations=6, weights=[0.0, 0.2, 0.8])


@pytest.fixture(scope="module")
def toy() -> Subject:
    """2 blocks x 16 dims and 26 tokens: 21 letters, two pairs of them, a twin of `u`, a token without text, an end."""
    names = [*LETTERS, "ab", "cd", "v", "\ufffd"]
    vocabulary = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("a", "b"), ("c", "d")]))
    tokenizer.decoder = decoders.Fuse()
    end = "<|end|>"
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=end, eos_token=end, unk_token=end)
    sizes = {"n_layer": 3, "n_embd": 16, "n_head": 2, "n_positions": 8, "vocab_size": len(fast)}
    ends = {"bos_token_id": len(names), "eos_token_id": len(names)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        # a rugged landscape: with the usual 0.02 the subject is nearly linear, and any climb ends at the top
        model = AutoModelForCausalLM.from_config(GPT2Config(**sizes, **ends, initializer_range=0.5))
    model = model.to(torch.float64).requires_grad_(False).eval()
    assert len(fast) == 26
    embedding = model.get_input_embeddings().weight
    embedding[names.index("v")] = embedding[names.index("u")]
    return Subject("toy", "toy", None, model, fast, geometry(model.config.to_dict()))


@pytest.fixture(scope="module")
def everything(toy: Subject) -> dict[tuple[int, ...], float]:
    """Every sequence of three tokens that is text, with its activation."""
    alphabet = Alphabet(toy)
    sequences = list(itertools.product(alphabet.ids.tolist(), repeat=3))
    kept = [ids for ids, keep in zip(sequences, alphabet.accepts(sequences), strict=True) if keep]
    return dict(zip(kept, evaluation.activations(toy, MAX, kept, [UNIT] * len(kept)).tolist(), strict=True))


def rows(count: int, unit: Unit = UNIT, start: int = 0) -> list[Row]:
    return [Row(unit, seed) for seed in range(start, start + count)]


def searched(toy: Subject, method: str, count: int, **others: object) -> list[Found]:
    settings = replace(SMALL, method=method, **others)
    return search(toy, MAX, rows(count), settings, tokens=3)


def count_hooks(subject: Subject) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in subject.model.modules())


class TestAlphabet:
    def test_leaves_out_what_nobody_can_type(self, toy: Subject) -> None:
        assert [toy.token(number) for number in Alphabet(toy).ids.tolist()] == [*LETTERS, "ab", "cd"]
        assert Alphabet(toy, only_text=False).ids.tolist() == list(range(26))

    def test_knows_sequences_that_their_text_does_not_give_back(self, toy: Subject) -> None:
        sequences = [(0, 1, 2), (1, 0, 2), (21, 0, 4), (0, 21, 4)]  # a b c, b a c, ab a e, a ab e
        assert Alphabet(toy).accepts(sequences) == [False, True, True, True]
        assert Alphabet(toy, only_text=False).accepts(sequences) == [True] * 4

    def test_of_bytes_is_ascii(self, subject: Subject) -> None:
        assert len(Alphabet(subject).ids) == 128


class TestOracle:
    def test_evaluates_like_gap(self, toy: Subject) -> None:
        oracle = Oracle(toy, MAX, Alphabet(toy), top_k=4, max_rows=2)
        sequences = ((0, 2, 4), (1, 3), (5, 6, 7), (8, 9, 10))
        (one, two) = oracle.evaluate([(UNIT, Evaluate(sequences, fluency=True)), (UNIT, Evaluate(sequences[:1]))])
        assert np.allclose(one.activation, evaluation.activations(toy, MAX, sequences, [UNIT] * 4), atol=1e-12)
        assert one.cross_entropy[1] == pytest.approx(evaluation.cross_entropies(toy, torch.tensor([sequences[1]]))[0])
        assert two.activation[0] == pytest.approx(one.activation[0], abs=1e-12)

    @pytest.mark.parametrize(("max_rows", "most"), [(None, 512), (700, 700)])
    def test_asks_no_more_on_a_cpu_than_memory_is_worth(
        self, toy: Subject, monkeypatch: pytest.MonkeyPatch, max_rows: int | None, most: int
    ) -> None:
        run, held = prefixes.run, []
        monkeypatch.setattr(
            prefixes, "run", lambda *args, **options: held.append(len(args[1])) or run(*args, **options)
        )
        sequences = tuple((first, second, 4) for first in range(26) for second in range(26))
        Oracle(toy, MAX, Alphabet(toy), top_k=4, max_rows=max_rows).evaluate([(UNIT, Evaluate(sequences))])
        assert held == [min(most, 676), *([676 - most] if most < 676 else [])]

    @pytest.mark.parametrize("weight", [0.0, 1.5])
    def test_slopes_are_derivatives_to_one_hot_tokens(self, toy: Subject, weight: float) -> None:
        ids = torch.tensor([[0, 5, 9]])
        one_hot = torch.nn.functional.one_hot(ids, 26).double().requires_grad_()
        out = toy.model(inputs_embeds=one_hot @ toy.embedding_matrix, output_hidden_states=True)
        own = (out.logits[:, :-1].log_softmax(2) * one_hot[:, 1:]).sum(2).mean()
        (out.hidden_states[2][0, :, 5].mean() + weight * own).backward()
        slope = one_hot.grad[0, :, Alphabet(toy).ids]
        ((found,),) = Oracle(toy, MAX, Alphabet(toy), top_k=26).slopes([(UNIT, Slopes(((0, 5, 9),), (weight,)))])
        assert torch.equal(found, Alphabet(toy).ids[slope.argsort(dim=1, descending=True)])
        if weight == 0:
            ((alone,),) = Oracle(toy, MAX, Alphabet(toy), top_k=26).slopes([(UNIT, Slopes(((0, 5, 9),)))])
            assert torch.equal(alone, found)


class TestSearch:
    @pytest.mark.slow
    def test_finds_the_true_maximum(self, toy: Subject, everything: dict[tuple[int, ...], float]) -> None:
        """In at least 95 of 100 restarts, within a budget in which random draws mostly don't."""
        assert len(everything) == 12_075
        top = max(everything.values())

        def share(method: str, count: int, **others: int) -> float:
            found = searched(toy, method, count, **others)
            assert all(one.passes <= BUDGET for one in found)
            return float(np.mean([one.activation > top - 1e-9 for one in found]))

        assert share("gcg", 100, passes=500) >= 0.95
        assert share("epo", 100) >= 0.95
        assert share("random", 20) < 0.5

    def test_finds_the_true_minimum(self, toy: Subject, everything: dict[tuple[int, ...], float]) -> None:
        found = search(toy, Objective("mean", "minimize"), rows(5), SMALL, tokens=3)
        lowest = min(everything.values())
        assert sum(one.activation < lowest + 1e-9 for one in found) >= 4
        assert all(np.diff(one.trajectory).max() <= 0 for one in found)

    def test_says_what_it_found(self, toy: Subject, everything: dict[tuple[int, ...], float]) -> None:
        for method in ("gcg", "epo"):
            for one in searched(toy, method, 3, passes=200):
                assert one.activation == pytest.approx(everything[one.ids], abs=1e-9)
                assert one.activation_initial == pytest.approx(everything[one.initial], abs=1e-9)
                assert one.trajectory[-1] == one.activation
                assert np.diff(one.trajectory).min() >= 0
                assert np.diff(one.evaluated).min() > 0
                assert one.passes <= 200

    @pytest.mark.parametrize("method", ["gcg", "epo"])
    def test_excluded_tokens_never_appear(
        self, toy: Subject, everything: dict[tuple[int, ...], float], method: str
    ) -> None:
        assert all(one.ids in everything for one in searched(toy, method, 20, passes=300))
        free = searched(toy, method, 20, passes=300, only_text=False)
        assert any(one.ids not in everything for one in free)  # they would

    @pytest.mark.parametrize("method", ["gcg", "epo"])
    def test_of_a_restart_is_nobody_elses_business(self, toy: Subject, method: str) -> None:
        settings, other = replace(SMALL, method=method, passes=300), Unit("mlp_out", 1, 3)
        together = search(toy, MAX, [*rows(3), *rows(2, other)], settings, tokens=3, max_rows=7)
        for row, beside in zip([*rows(3), *rows(2, other)], together, strict=True):
            (alone,) = search(toy, MAX, [row], settings, tokens=3)
            assert (alone.ids, alone.initial, alone.passes) == (beside.ids, beside.initial, beside.passes)
            assert np.allclose(alone.trajectory, beside.trajectory, atol=1e-9)
            assert [point.ids for point in alone.front] == [point.ids for point in beside.front]
        assert len({one.initial for one in together}) == 3  # seeds differ, and a unit starts as another does

    @pytest.mark.parametrize("method", ["gcg", "epo"])
    def test_twice_is_the_same_and_leaves_no_trace(self, toy: Subject, method: str) -> None:
        before = {name: value.clone() for name, value in toy.model.state_dict().items()}
        hooks = count_hooks(toy)  # the test of slopes asks transformers for hidden states, which leaves its own
        one, two = (searched(toy, method, 3, passes=200) for _ in range(2))
        for first, second in zip(one, two, strict=True):
            assert np.array_equal(first.trajectory, second.trajectory)
            assert (first.ids, first.front) == (second.ids, second.front)
        assert all(torch.equal(value, before[name]) for name, value in toy.model.state_dict().items())
        assert count_hooks(toy) == hooks
        assert not any(weight.requires_grad for weight in toy.model.parameters())

    def test_inserts_and_deletes_where_lengths_may_vary(self, toy: Subject) -> None:
        parent, tops = (4, 5, 6), torch.tensor([[7, 8], [9, 10], [11, 12]])

        def lengths(shortest: int, longest: int) -> set[int]:
            moves = Moves(Alphabet(toy), 0, lengths=(shortest, longest), start=3, sign=1.0)
            children = moves.children(parent, tops, 99)
            assert len(children) == len(set(children))
            assert moves.children(parent, tops, 99) == ()  # nothing twice
            return {len(one) for one in children}

        assert lengths(3, 3) == {3}
        assert lengths(2, 3) == {2, 3}
        assert lengths(3, 4) == {3, 4}
        assert lengths(2, 5) == {2, 3, 4}

    def test_leaves_its_first_length_where_another_gives_more(self, toy: Subject) -> None:
        settings = replace(SMALL, passes=200)
        found = search(
            toy, MAX, [Row(Unit("resid_pre", 2, index), 0) for index in range(8)], settings, tokens=3, lengths=(2, 5)
        )
        assert {len(one.ids) for one in found} - {3}
        assert {len(one.ids) for one in found} <= {2, 3, 4, 5}

    def test_stops_when_asked(self, toy: Subject) -> None:
        said = []
        found = search(
            toy, MAX, rows(2), SMALL, tokens=3, progress=lambda done, total: said.append((done, total)) or True
        )
        assert said == [(48, 2 * BUDGET)]
        assert [one.passes for one in found] == [24, 24]

    @pytest.mark.parametrize("method", ["gcg", "epo", "random"])
    def test_goes_on_where_it_was_stopped(self, toy: Subject, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
        settings, journal, asked = replace(SMALL, method=method, passes=300), [], []
        whole = search(toy, MAX, rows(3), settings, tokens=3)
        rounds = 3
        stopped = search(
            toy,
            MAX,
            rows(3),
            settings,
            tokens=3,
            progress=lambda done, total: len(journal[0]) >= rounds,
            keep=lambda answers: journal.__setitem__(slice(None), copy.deepcopy(answers)),
        )
        assert all(one.passes < 300 for one in stopped)
        evaluate = Oracle.evaluate
        monkeypatch.setattr(Oracle, "evaluate", lambda self, some: asked.append(some) or evaluate(self, some))
        told = []
        again = search(
            toy, MAX, rows(3), settings, tokens=3, answers=journal, progress=lambda done, _: told.append(done) or False
        )
        assert told[0] == sum(one.passes for one in stopped)  # a bar goes on from there
        assert told[1] > told[0]
        assert sum(one.passes for _, one in itertools.chain(*asked)) < 3 * 300 - sum(one.passes for one in stopped) + 1
        for one, other in zip(whole, again, strict=True):
            assert np.array_equal(one.trajectory, other.trajectory)
            assert np.array_equal(one.evaluated, other.evaluated)
            assert (one.ids, one.front, one.passes) == (other.ids, other.front, other.passes)

    def test_counts_a_backward_pass_and_the_whole_model(self, toy: Subject) -> None:
        (one,) = searched(toy, "gcg", 1, passes=50)
        assert (one.passes, one.whole_passes) == (50, 0)
        assert one.evaluated.tolist() == [24, 50]  # 24 candidates; a gradient and 24 more
        (two,) = searched(toy, "epo", 1, passes=60)
        assert two.whole_passes == two.passes
        assert two.evaluated.tolist() == [24, 54]  # 3 gradients and 24 more; not enough is left for another round


class TestFront:
    def test_keeps_what_nothing_beats(self) -> None:
        pairs = [(1.0, 3.0), (2.0, 2.0), (3.0, 5.0), (0.0, 1.0), (3.0, 4.0), (2.0, 9.0)]
        points = [Point((number,), *pair) for number, pair in enumerate(pairs)]
        assert [point.ids[0] for point in front_of(points)] == [3, 1, 4]
        assert [point.ids[0] for point in front_of(points, sign=-1.0)] == [3]

    def test_names_the_weight_at_which_a_point_is_best(self) -> None:
        front = (Point((0,), 0.0, 0.0), Point((1,), 1.0, 4.0), Point((2,), 10.0, 5.0))
        assert weight_of(front[2], front, [0.0, 1.0, 3.0]) == 0
        assert weight_of(front[0], front, [0.0, 1.0, 3.0]) == 3
        assert math.isnan(weight_of(front[1], front, [0.0, 1.0, 3.0]))

    def test_rises_and_comes_back_from_its_text_alone(self, toy: Subject) -> None:
        for one in searched(toy, "epo", 4, passes=600):
            assert len(one.front) > 2
            numbers = np.array([[point.activation, point.cross_entropy] for point in one.front])
            assert (np.diff(numbers, axis=0) > 0).all()
            assert one.front[-1].activation == one.activation
            for point in one.front:
                ids = toy.tokens(toy.text(point.ids))
                assert evaluation.activations(toy, MAX, [ids], [UNIT])[0] == pytest.approx(point.activation, abs=1e-9)
                entropy = evaluation.cross_entropies(toy, torch.tensor([ids]))[0]
                assert entropy == pytest.approx(point.cross_entropy, abs=1e-9)

    def test_could_not_from_a_text_that_is_another_sequence(self, toy: Subject) -> None:
        """What the check keeps out: `a` and `b` spell the token `ab`."""
        again = toy.tokens(toy.text((0, 1, 2)))
        one, other = evaluation.activations(toy, MAX, [(0, 1, 2), again], [UNIT] * 2)
        assert abs(one - other) > 1e-3


class TestText:
    """What is to be had of real text without any search: its sequences, each once."""

    WRITTEN = "thequickbrownfoxjumpsoverthelazydogabab"

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        (tmp_path / "text.txt").write_text("".join(letter for letter in self.WRITTEN if letter in LETTERS))
        return tmp_path / "text.txt"

    def test_is_read_to_its_end_and_its_best_is_found(
        self, toy: Subject, place: Path, everything: dict[tuple[int, ...], float]
    ) -> None:
        ids = toy.tokenizer(place.read_text())["input_ids"]
        written = {tuple(ids[start : start + 3]) for start in range(len(ids) - 2)}
        assert set(map(tuple, real_text(Alphabet(toy), place, tokens=3).tolist())) == written
        for one in searched(toy, "text", 3, text=str(place)):
            assert one.activation == pytest.approx(max(everything[ids] for ids in written))
            assert one.passes == len(written) < BUDGET
            assert one.activation < max(everything.values())

    def test_is_not_read_beyond_the_budget(self, toy: Subject, place: Path) -> None:
        first, second = searched(toy, "text", 2, text=str(place), passes=4, candidates=3)
        assert first.passes == second.passes == 4
        assert first.initial != second.initial

    def test_keeps_what_nobody_can_type_out(self, toy: Subject, place: Path) -> None:
        place.write_text("aab")  # b behind a is one token with it: the tokens a, ab, and no other
        with pytest.raises(InputError, match=r"^text=.*at least 3 tokens"):
            real_text(Alphabet(toy), place, tokens=3)
        assert real_text(Alphabet(toy), place, tokens=2).tolist() == [toy.tokenizer("aab")["input_ids"]]

    def test_stands_beside_its_own_sequences_and_is_another_job_where_it_changes(
        self, actmax: Actmax, place: Path
    ) -> None:
        def ran(folder: str, *overrides: str) -> Record:
            one = actmax(*JOB, *QUICKLY, "unit.index=5", f"hydra.run.dir={folder}", *overrides)
            assert one.code == 0, one.err
            return Record(one.folder / folder)

        reading = ("search=text", f"search.text={place}")
        place.write_text("the quick brown fox jumps over the lazy dog " * 3)
        first = ran("first", *reading)
        assert first.table("units")["null_of_ends"].tolist() == [RANDOM_TEXT]
        shown = [[cell.text for cell in row] for row in card(first.summary()).rows]
        assert sum("random text: " in cell for row in shown for cell in row) >= 3
        assert all(text in place.read_text() for text in first.table("restarts")["text"])
        assert ran("random", "search=random").table("units")["null_of_ends"].tolist() == [RANDOM_TOKENS]
        assert ran("again", *reading).summary()["job_hash"] == first.summary()["job_hash"]
        place.write_text("pack my box with five dozen liquor jugs")
        assert ran("changed", *reading).summary()["job_hash"] != first.summary()["job_hash"]


def test_spreads_are_of_random_tokens(toy: Subject) -> None:
    found = spreads(toy, MAX, [UNIT], tokens=3, settings=GapSettings(draws=50))
    ids = evaluation.random_tokens(toy, 3, draws=50, seed=0)
    assert found[UNIT] == pytest.approx(evaluation.by_unit_activations(toy, MAX, ids, [UNIT])[:, 0].std(ddof=1))


@pytest.mark.parametrize(
    ("changed", "key"), [({"method": "beam"}, "method"), ({"method": "text"}, "text"), ({"weights": []}, "weights")]
)
def test_settings_refuse(changed: dict, key: str) -> None:
    with pytest.raises(InputError) as caught:
        replace(SMALL, **changed)
    assert caught.value.key == key


def test_one_token_has_no_fluency(toy: Subject) -> None:
    with pytest.raises(InputError, match=r"^tokens=1"):
        search(toy, MAX, rows(1), replace(SMALL, method="epo"), tokens=3, lengths=(1, 3))


JOB = (
    "task=search",
    "subject=tiny",
    "subject.dtype=float64",
    "unit.layer=2",
    "unit.index=[5,7]",
    "seeds=[0,1,2]",
    *QUICK,
)
QUICKLY = ("search.passes=150", "search.candidates=16", "search.top_k=8", "tokens=4")


def check_front(record: Record) -> None:
    """One front per unit, rising; its top is the best restart."""
    front, restarts = record.table("front"), record.table("restarts")
    assert front["index"].unique().tolist() == [5, 7]
    for index, one in front.groupby("index"):
        assert (np.diff(one["activation"]) > 0).all()
        assert (np.diff(one["cross_entropy"]) > 0).all()
        assert one["lambda"].iloc[-1] == 0
        assert one["activation"].iloc[-1] == restarts[restarts["index"] == index]["activation_final"].max()


class TestCommand:
    @pytest.mark.parametrize("method", ["gcg", "epo"])
    def test_leaves_the_gradient_runs_record(self, actmax: Actmax, method: str) -> None:
        ran = actmax(*JOB, *QUICKLY, f"search={method}")
        assert ran.code == 0, ran.err
        assert "Verdict" in ran.out
        record = Record(ran.job)
        tokens, restarts, units = (record.table(name) for name in ("tokens", "restarts", "units"))
        assert (len(tokens), len(restarts), len(units)) == (2 * 3 * 4, 2 * 3, 2)
        assert (restarts["forward_passes"] <= 150).all()
        assert (restarts["activation_final"] >= restarts["activation_initial"]).all()
        spelled = tokens.groupby(["index", "seed"], sort=False)["token"].agg("".join)
        assert spelled.tolist() == restarts["text"].tolist()
        assert np.allclose(record.table("gaps")["activation_retokenised"], restarts["activation_final"], atol=1e-9)
        course = record.table("trajectory")
        for (index, seed), one in course.groupby(["index", "seed"]):
            own = restarts[(restarts["index"] == index) & (restarts["seed"] == seed)]
            assert one["forward_passes"].is_monotonic_increasing
            assert one["activation"].is_monotonic_increasing
            assert one["activation"].iloc[-1] == own["activation_final"].iloc[0]
        said = record.summary()
        assert said["search"]["forward_passes"] == restarts["forward_passes"].sum()
        assert said["method"] == method
        assert record.path("front.parquet").exists() == (method == "epo")
        if method == "epo":
            check_front(record)

    @pytest.mark.parametrize("method", ["gcg", "epo"])
    def test_that_failed_goes_on_from_its_checkpoint(
        self, actmax: Actmax, monkeypatch: pytest.MonkeyPatch, method: str
    ) -> None:
        evaluate, calls = Oracle.evaluate, []

        def failing(self: Oracle, asked: list) -> list:
            calls.append(asked)
            if len(calls) == 4:
                raise RuntimeError("the machine went away")
            return evaluate(self, asked)

        begun, resume = [], Bar.resume
        monkeypatch.setattr(Bar, "resume", lambda self, done: begun.append(done) or resume(self, done))
        job = (*JOB, *QUICKLY, f"search={method}")
        with monkeypatch.context() as patch:
            patch.setattr(work, "SAVE_SECONDS", -1)
            patch.setattr(Oracle, "evaluate", failing)
            assert actmax(*job, "hydra.run.dir=cut").code == 1
        ran = actmax(*job, "hydra.run.dir=cut")
        assert ran.code == 0, ran.err
        assert len(begun) == 1  # the time left is told from what is still to do
        assert 0 < begun[0] < json.loads((ran.job / "summary.json").read_text())["search"]["forward_passes"]
        assert "Going on from step" in (ran.folder / "cut" / "actmax.log").read_text()
        assert actmax(*job, "hydra.run.dir=whole").code == 0
        assert len(begun) == 1  # a run from the start has nothing behind it
        assert len(calls) == 4
        cut, whole = Record(ran.folder / "cut"), Record(ran.folder / "whole")
        for name in ("trajectory", "restarts", "tokens", "units"):
            pd.testing.assert_frame_equal(cut.table(name), whole.table(name), check_exact=True)

    def test_holds_no_normalized_embeddings_of_an_earlier_job(
        self, actmax: Actmax, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        evaluate, matrix, held, alive = Oracle.evaluate, NearestTokens.__init__, [], weakref.WeakSet()
        monkeypatch.setattr(NearestTokens, "__init__", lambda self, *args: alive.add(self) or matrix(self, *args))
        monkeypatch.setattr(Oracle, "evaluate", lambda self, some: held.append(len(alive)) or evaluate(self, some))
        ran = actmax("-m", *JOB, *QUICKLY, "unit.index=5", "method=none,gcg", "steps=2", "search.passes=40")
        assert ran.code == 0, ran.err
        assert set(held) == {0}
        held.clear()
        monkeypatch.setattr(Subject, "forget_nearest", lambda self: None)  # the control: then they stay
        assert actmax("-m", *JOB, *QUICKLY, "unit.index=7", "method=none,gcg", "steps=2", "search.passes=40").code == 0
        assert set(held) == {1}

    def test_sweeps_set_methods_side_by_side(self, actmax: Actmax) -> None:
        ran = actmax("-m", *JOB, *QUICKLY, "unit.index=5", "search=gcg,random")
        assert ran.code == 0, ran.err
        rungs = json.loads((ran.folder / "outputs" / "search" / "sweep.json").read_text())["ladder"]
        assert {rung["prior"] for rung in rungs} == {"gcg", "random"}

    @pytest.mark.slow
    @pytest.mark.parametrize("written", [None, "the quick brown fox jumps over the lazy dog, and so do all of us"])
    def test_methods_stand_beside_each_other_at_equal_passes(
        self, actmax: Actmax, tmp_path: Path, written: str | None
    ) -> None:
        """What `experiment=search` says of each method is what that method's own record holds."""
        text = []
        if written is not None:
            (tmp_path / "written.txt").write_text(written)
            text = [f"search.text={tmp_path / 'written.txt'}"]
        small = ("search.passes=60", "steps=30", "search.candidates=10", "search.top_k=8", "seeds=[0,1]", "tokens=4")
        ran = actmax("experiment=search", "subject=tiny", "unit.layer=2", *QUICK, *small, *text)
        assert ran.code == 0, ran.err
        assert "What each method finds in tokens" in ran.out
        folder = ran.folder / "outputs" / "search"
        methods = json.loads((folder / "summary.json").read_text())["methods"]
        assert list(methods) == ["snapped", "simplex", "random", *(["text"] if text else []), "gcg", "epo"]
        for record in (Record(status.parent) for status in folder.glob("*/status.json")):
            said, gaps = record.summary(), record.table("gaps")
            name = {"none": "snapped"}.get(said["prior"], said["prior"])
            found, tokens = methods.pop(name), gaps["activation_snapped"]
            assert found["activation_mean"] == pytest.approx(tokens.mean())
            assert found["activation_max"] == pytest.approx(tokens.max())
            spread = gaps["random_activation_sd"].iloc[0]
            assert found["z"] == pytest.approx((tokens.mean() - gaps["random_activation_mean"].iloc[0]) / spread)
            assert found["cross_entropy"] == pytest.approx(gaps["cross_entropy"].mean())
            assert 50 < found["forward_passes"] <= 60
            assert found["whole_passes"] == (found["forward_passes"] if name == "epo" else 0)
        assert not methods

    def test_a_search_beside_a_prior_is_refused(self, actmax: Actmax) -> None:
        ran = actmax(*JOB, "prior=l2")
        assert ran.code == 2
        assert "actmax: prior=l2: a search moves over tokens" in ran.err

    @pytest.mark.parametrize(
        ("overrides", "key"),
        [
            (["tokens=1", "search=epo"], "tokens"),
            (["search.weights=[-1]"], "search.weights"),
            (["search.candidates=0"], "search.candidates"),
            (["search=text"], "search.text"),
            (["search=text", "search.text=nowhere.txt"], "search.text"),
            (["trainer.devices=2"], "trainer.devices"),
            (["decode.top_k=9999"], "decode.top_k"),
        ],
    )
    def test_refuses_in_one_message(self, actmax: Actmax, overrides: list[str], key: str) -> None:
        ran = actmax(*JOB, *overrides)
        assert ran.code == 2
        assert f"actmax: {key}=" in ran.err
        assert "Traceback" not in ran.err
        assert ran.jobs == []
