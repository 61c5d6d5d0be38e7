"""Agreement in meaning: the statistics on planted vectors, their levels, the embedders beside plain arithmetic."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from omegaconf import OmegaConf
from safetensors.numpy import save_file

from actmax.errors import InputError
from actmax.evidence.gap import Gap, RandomText
from actmax.evidence.meaning import (
    Alike,
    Meaning,
    beside_best,
    best_of_blocks,
    centred,
    combinations_of,
    decide_meaning,
    mean_similarity,
    measure_meaning,
    plane,
)
from actmax.evidence.own import Relabelled, relabel
from actmax.evidence.readings import DecisionStatus, MeaningStatus, OwnStatus, Verdict
from actmax.evidence.themes import WORDS, held, held_out, near_from, raised_by, theme
from actmax.model import evaluation
from actmax.model.context import Context
from actmax.model.evaluation import activations, random_tokens
from actmax.model.objective import Objective
from actmax.model.settings import GapSettings
from actmax.model.subject import Subject, shared
from actmax.model.target import Unit, target_of_row
from actmax.report.words import meaning_obstacle
from actmax.tasks.meanings import meaning_digest
from actmax.tasks.units import meaning as in_units
from actmax.tasks.units.gather import _meaning as settings_in
from actmax.tasks.units.meaning import Asked, Space, set_apart
from actmax.text import embedders
from actmax.text.embedders import Encoder, MissingExtraError, StaticTable, make_embedder
from actmax.text.settings import FILES, MeaningSettings, check_folder
from actmax.text.vocabulary import whole_words
from cli import QUICK, Actmax

Array = NDArray[np.float64]
DIMS = 24


def draw(rng: np.random.Generator, *shape: int) -> Array:
    return centred(rng.normal(size=(*shape, DIMS)), np.zeros(DIMS))


def themed(rng: np.random.Generator, *shape: int, pull: float = 3.0, towards: int | np.integer = 0) -> Array:
    """Vectors that are drawn towards one coordinate."""
    return centred(rng.normal(size=(*shape, DIMS)) + pull * np.eye(DIMS)[towards], np.zeros(DIMS))


def measured(texts: Array, chance: Array, *, unknown: float = 0.0) -> Meaning:
    return measure_meaning(texts, unknown, chance, chance[:0, 0], best_of=1)


class TestSimilarity:
    def test_the_mean_over_pairs_is_that_of_a_loop(self) -> None:
        texts = draw(np.random.default_rng(0), 3, 7)
        loops = [np.mean([float(a @ b) for a, b in combinations(some, 2)]) for some in texts]
        np.testing.assert_allclose(mean_similarity(texts), loops, atol=1e-12)

    def test_a_text_without_a_known_piece_is_like_nothing(self) -> None:
        texts = centred(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]), np.zeros(2))
        assert np.isfinite(texts).all()
        assert mean_similarity(texts).item() == pytest.approx(1 / 3)

    def test_one_text_has_no_pairs(self) -> None:
        found = measured(draw(np.random.default_rng(0), 1), draw(np.random.default_rng(1), 50, 1))
        assert found.status == MeaningStatus.ONE_RESTART
        assert math.isnan(found.null.p)
        assert math.isnan(found.kappa.low)

    def test_combinations_take_each_restarts_own_texts(self) -> None:
        pool = np.arange(20.0 * 3).reshape(20, 3, 1)
        found = combinations_of(pool, draws=50, seed=0)
        assert all(set(found[:, row, 0]) <= set(pool[:, row, 0]) for row in range(3))
        assert len(np.unique(found[:, 0, 0] - found[:, 1, 0])) > 10  # independently of each other


class TestBesideChance:
    def test_a_planted_theme_is_found_and_noise_is_not(self) -> None:
        rng = np.random.default_rng(0)
        chance = draw(rng, 499, 6)
        assert measured(themed(rng, 6), chance).null.p == pytest.approx(1 / 500)
        assert measured(draw(rng, 6), chance).null.p > 0.05

    def test_level(self) -> None:
        rng = np.random.default_rng(1)
        p = np.array([measured(draw(rng, 5), draw(rng, 99, 5)).null.p for _ in range(400)])
        assert (p <= 0.05).mean() == pytest.approx(0.05, abs=3 * math.sqrt(0.05 * 0.95 / 400))

    def test_kappa_is_one_for_the_same_text_and_none_by_chance(self) -> None:
        rng = np.random.default_rng(2)
        chance = draw(rng, 199, 6)
        assert measured(np.repeat(draw(rng, 1), 6, axis=0), chance).kappa.value == pytest.approx(1)
        found = measured(draw(rng, 6), chance).kappa
        assert found.low < 0 < found.high

    def test_kappa_is_corrected_for_chance(self) -> None:
        rng = np.random.default_rng(4)
        found = measured(themed(rng, 6), themed(rng, 99, 6, pull=1.0))
        assert found.null.mean > 0.02
        corrected = (found.null.observed - found.null.mean) / (1 - found.null.mean)
        assert found.kappa.value == pytest.approx(corrected)

    def test_unknown_pieces_are_not_judged(self) -> None:
        rng = np.random.default_rng(3)
        texts, chance = themed(rng, 6), draw(rng, 99, 6)
        assert measured(texts, chance, unknown=0.51).status == MeaningStatus.UNKNOWN_PIECES
        assert math.isnan(Alike.of(measured(texts, chance, unknown=0.51)).p)
        assert Alike.of(measured(texts, chance, unknown=0.5)).p <= 0.05


class TestPlane:
    def test_coordinates_are_those_of_loops(self) -> None:
        rng = np.random.default_rng(0)
        texts, others, chance = draw(rng, 5), draw(rng, 3), draw(rng, 40)
        found = plane(texts, others, chance)
        for row, text in enumerate(texts):
            mean = np.mean([other for number, other in enumerate(texts) if number != row], axis=0)
            assert found[row, 0] == pytest.approx(text @ mean / np.linalg.norm(mean))
        mean = texts.mean(0)
        np.testing.assert_allclose(found[5:8, 0], others @ mean / np.linalg.norm(mean))
        values, vectors = np.linalg.eigh(np.cov(chance.T))
        assert np.abs(np.corrcoef(found[8:, 1], chance @ vectors[:, values.argmax()])[0, 1]) == pytest.approx(1)

    def test_restarts_lie_apart_only_where_they_have_something_in_common(self) -> None:
        rng = np.random.default_rng(1)
        gains = {name: [] for name in ("nothing", "theme")}
        for _ in range(200):
            chance = draw(rng, 30)
            for name, texts in {"nothing": draw(rng, 6), "theme": themed(rng, 6)}.items():
                found = plane(texts, draw(rng, 4), chance)[:, 0]
                gains[name].append(found[:6].mean() - found[10:].mean())
        error = np.std(gains["nothing"]) / math.sqrt(200)
        assert np.mean(gains["nothing"]) == pytest.approx(0, abs=3 * error)
        assert np.mean(gains["theme"]) > 20 * error


class TestBesideTheBest:
    def test_p_is_that_of_a_loop_over_all_divisions(self) -> None:
        rng = np.random.default_rng(0)
        texts, best = themed(rng, 4, pull=1.0), draw(rng, 4)
        both = np.concatenate([texts, best])

        def contrast(rows: tuple[int, ...]) -> float:
            rest = [row for row in range(8) if row not in rows]
            return float(mean_similarity(both[list(rows)]) - mean_similarity(both[rest]))

        values = [contrast(rows) for rows in combinations(range(8), 4)]
        found = beside_best(texts, best)
        assert found.draws == math.comb(8, 4) - 1
        assert found.p == pytest.approx(np.mean([value >= values[0] - 1e-12 for value in values]), abs=1e-12)
        assert found.observed == pytest.approx(float(mean_similarity(texts)))

    def test_level_and_power(self) -> None:
        rng = np.random.default_rng(1)
        p = np.array([beside_best(draw(rng, 4), draw(rng, 5)).p for _ in range(400)])
        assert (p <= 0.05).mean() == pytest.approx(0.05, abs=3 * math.sqrt(0.05 * 0.95 / 400))
        assert beside_best(themed(rng, 6), draw(rng, 6)).p < 0.01
        assert beside_best(themed(rng, 6), themed(rng, 6)).p > 0.05  # what scores high by luck is about the same

    def test_too_few_sequences_are_not_tested(self) -> None:
        rng = np.random.default_rng(2)
        assert math.isnan(beside_best(themed(rng, 6), draw(rng, 2)).p)

    def test_many_divisions_are_drawn(self) -> None:
        rng = np.random.default_rng(3)
        found = beside_best(themed(rng, 12), draw(rng, 12), draws=499)
        assert found.draws == 499
        assert found.p == pytest.approx(1 / 500)

    def test_blocks_are_apart_and_hold_their_best(self) -> None:
        values = np.random.default_rng(4).normal(size=1000)
        best, size = best_of_blocks(values, passes=100, restarts=8)
        assert (len(best), size) == (10, 100)
        assert all(values[one] == values[100 * row : 100 * row + 100].max() for row, one in enumerate(best))
        least, _ = best_of_blocks(values, passes=100, restarts=8, maximize=False)
        assert values[least[0]] == values[:100].min()
        assert best_of_blocks(values, passes=9999, restarts=8)[1] == 125  # as many blocks as restarts
        assert [len(best_of_blocks(values, passes=1, restarts=some)[0]) for some in (8, 300)] == [200, 300]


class TestOwn:
    def own(self, texts: Array) -> Relabelled:
        units = len(texts)
        flat = texts.reshape(-1, DIMS)
        return relabel(flat @ flat.T, units)

    def decided(self, texts: Array, *, judged: list[int] | None = None) -> list[tuple[Verdict, DecisionStatus]]:
        chance = draw(np.random.default_rng(99), 199, texts.shape[1])
        alike = [Alike.of(measured(one, chance)) for one in texts]
        return [(one.verdict, one.status) for one in decide_meaning(alike, self.own(texts), judged=judged)]

    def test_a_theme_of_its_own_one_that_all_share_and_none(self) -> None:
        rng = np.random.default_rng(0)
        alone = np.stack([themed(rng, 8, pull=2.5), draw(rng, 8), draw(rng, 8)])
        shared_by_all = themed(rng, 3, 8)
        assert self.decided(alone)[0][0] in (Verdict.DETECTABLE, Verdict.PARTLY, Verdict.REPRODUCIBLE)
        assert self.decided(alone)[1][0] == Verdict.CHANCE
        assert {verdict for verdict, _ in self.decided(shared_by_all)} == {Verdict.SHARED}

    def test_the_second_claim_is_made_only_after_the_first(self) -> None:
        rng = np.random.default_rng(7)
        texts = np.stack([themed(rng, 8, pull=2.5), draw(rng, 8), draw(rng, 8)])
        chance = draw(np.random.default_rng(99), 199, 8)
        alike = [Alike.of(measured(texts[0], chance)), Alike(0.06, 0.005, 0.0), Alike(0.5, 0.005, 0.0)]
        found = decide_meaning(alike, self.own(texts))
        assert found[0].own is not None
        assert [one.own for one in found[1:]] == [None, None]
        assert math.isnan(found[1].flat()["own_meaning"])

    def test_units_of_different_seeds_are_not_set_apart(self) -> None:
        rng = np.random.default_rng(8)
        found = set_apart([draw(rng, 4), draw(rng, 5)], seed=0)
        assert (found.status, found.test) == (OwnStatus.NO_SHARED_SEEDS, None)

    def test_the_same_text_is_reproducible(self) -> None:
        rng = np.random.default_rng(1)
        texts = np.stack([np.repeat(draw(rng, 1), 8, axis=0), draw(rng, 8), draw(rng, 8)])
        assert self.decided(texts)[0][0] == Verdict.REPRODUCIBLE

    def test_without_other_units_it_is_not_judged(self) -> None:
        texts = themed(np.random.default_rng(2), 1, 8)
        assert self.decided(texts) == [(Verdict.NOT_JUDGED, DecisionStatus.OTHER_UNITS_NOT_TESTED)]

    def test_too_few_seeds_are_out_of_reach(self) -> None:
        texts = np.stack([themed(np.random.default_rng(3), 3), *draw(np.random.default_rng(4), 2, 3)])
        chance = draw(np.random.default_rng(99), 199, 3)
        (found, *_) = decide_meaning([Alike.of(measured(one, chance)) for one in texts], self.own(texts))
        assert found.own_status == OwnStatus.OUT_OF_REACH
        assert found.verdict == Verdict.NOT_JUDGED

    def test_what_was_not_measured_never_counts(self) -> None:
        texts = themed(np.random.default_rng(5), 2, 6)
        missing = [Alike.of(None)] * 2
        assert {one.verdict for one in decide_meaning(missing, self.own(texts))} == {Verdict.NOT_JUDGED}

    def test_dealt_out_restarts_are_nobodys_own(self) -> None:
        rng = np.random.default_rng(6)
        p = []
        for _ in range(300):
            test = self.own(themed(rng, 3, 5)).test
            assert test is not None
            p.append(test.nulls[0].p)
        assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=3 * math.sqrt(0.05 * 0.95 / 300))


class TestTheme:
    def test_the_planted_word_is_named_and_none_by_chance(self) -> None:
        rng = np.random.default_rng(0)
        words = draw(rng, 400)
        chance = draw(rng, 499, 6)
        planted = centred(draw(rng, 6) + 1.5 * words[7], np.zeros(DIMS))
        found = theme(planted, chance, words)
        assert found.nearest[0] == 7
        assert found.p[7] == pytest.approx(1 / 500)
        assert theme(draw(rng, 6), chance, words).p.min() > 0.05
        assert found.drawn.shape == (499, WORDS)

    def test_any_word_is_claimed_in_five_per_cent(self) -> None:
        rng = np.random.default_rng(1)
        words = draw(rng, 60)
        lowest = np.array([theme(draw(rng, 4), draw(rng, 99, 4), words).p.min() for _ in range(300)])
        assert (lowest <= 0.05).mean() == pytest.approx(0.05, abs=3 * math.sqrt(0.05 * 0.95 / 300))

    def test_blocks_of_words_change_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rng = np.random.default_rng(2)
        words, texts, chance = draw(rng, 100), themed(rng, 5), draw(rng, 49, 5)
        whole = theme(texts, chance, words)
        monkeypatch.setattr("actmax.evidence.themes.BLOCK", 7)
        again = theme(texts, chance, words)
        np.testing.assert_allclose(again.p, whole.p)
        np.testing.assert_array_equal(again.nearest, whole.nearest)
        np.testing.assert_array_equal(again.drawn, whole.drawn)

    def test_held_out_restarts_are_nearer_only_where_the_theme_is(self) -> None:
        rng = np.random.default_rng(3)
        tried = np.stack([themed(rng, 5), draw(rng, 5), draw(rng, 5)])
        assert held_out(themed(rng, 5), tried).p == pytest.approx(1 / 3**5)
        assert held_out(draw(rng, 5), tried[1:]).p > 0.05
        assert math.isnan(held_out(themed(rng, 5), tried[:1]).p)

    def test_held_out_level(self) -> None:
        rng = np.random.default_rng(4)
        p = np.array([held_out(themed(rng, 4), themed(rng, 3, 4)).p for _ in range(300)])
        assert (p <= 0.05).mean() <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)

    def test_words_that_raise_a_unit_are_told_from_words_that_do_not(self) -> None:
        rng = np.random.default_rng(5)
        activation = rng.normal(size=500)
        activation[:20] += 2
        drawn = rng.integers(0, 500, (199, 20))
        assert raised_by(activation, np.arange(20), drawn).p == pytest.approx(1 / 200)
        assert raised_by(activation, np.arange(20, 40), drawn).p > 0.05
        assert raised_by(-activation, np.arange(20), drawn, alternative="less").p == pytest.approx(1 / 200)

    def test_words_that_say_nothing_of_a_unit_keep_the_level(self) -> None:
        rng = np.random.default_rng(7)
        words = draw(rng, 200)
        p = []
        for _ in range(300):
            found = theme(themed(rng, 4, towards=rng.integers(DIMS)), themed(rng, 99, 4, pull=0), words)
            p.append(raised_by(rng.normal(size=200), found.nearest, found.drawn).p)
        assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=3 * math.sqrt(0.05 * 0.95 / 300))

    def test_tokens_are_counted_by_restarts_with_a_near_neighbour(self) -> None:
        words = np.eye(4)
        near = centred(np.array([1.0, 0.2, 0.0, 0.0]), np.zeros(4))
        vectors = np.array([[words[0], words[1]], [words[0], words[2]], [near, words[3]]])
        found = held([["a", "b"], ["a", "c"], ["near a", "d"]], vectors, np.zeros((5, 2, 4)), near=0.9)
        assert (found[0].token, found[0].same, found[0].near, found[0].chance) == ("a", 2, 3, 1.0)
        assert {one.token: one.near for one in found}["b"] == 1

    def test_near_neighbours_are_a_thousandth(self) -> None:
        words = draw(np.random.default_rng(6), 2000)
        cosines = (words @ words.T)[~np.eye(2000, dtype=bool)]
        assert (cosines >= near_from(words)).mean() == pytest.approx(0.001, rel=0.2)


@pytest.fixture(scope="module")
def tiny() -> Subject:
    architecture = {"model_type": "gpt2", "n_layer": 3, "n_embd": 16, "n_head": 2, "n_positions": 64}
    return shared(name="tiny", source="random", architecture=architecture, dtype="float64")


class TestEmbedders:
    def test_wordllama_is_the_mean_of_its_rows(self, tiny: Subject) -> None:
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        spec = importlib.util.find_spec("wordllama")
        assert spec is not None
        assert spec.submodule_search_locations
        folder = Path(spec.submodule_search_locations[0])
        (table,) = load_file(folder / embedders.TABLE).values()
        assert table.shape == (32_000, 256)
        tokenizer = Tokenizer.from_file(str(folder / embedders.TOKENIZER))
        texts = [" Narrow Confucius Mesopotamia", "ships and the sea"]
        found = make_embedder(MeaningSettings(embedder="wordllama"), tiny, ())(texts)
        for text, vector in zip(texts, found.vectors, strict=True):
            ids = tokenizer.encode(text.strip(), add_special_tokens=False).ids
            np.testing.assert_allclose(vector, table[ids].astype(float).mean(0), atol=1e-12)
        assert found.unknown.tolist() == [0, 0]
        assert "wordllama" not in sys.modules  # nothing of it is imported, so it never asks a hub

    def test_words_of_one_kind_are_alike(self, tiny: Subject) -> None:
        embed = make_embedder(MeaningSettings(embedder="wordllama"), tiny, ())
        words = ["water", "river", "lake", "cheese", "theorem", "law", "music", "war", "red", "seven", "table", "king"]
        found = embed(words).vectors
        alike = centred(found, found.mean(0))
        alike = alike @ alike.T
        assert alike[0, 1] > alike[0, 3:].max()
        assert alike[1, 2] > alike[1, 3:].max()

    def test_bytes_are_unknown(self, tiny: Subject) -> None:
        found = make_embedder(MeaningSettings(embedder="wordllama"), tiny, ())(["☃😀", "sea", ""])
        assert found.unknown[0] > 0.5
        assert found.unknown[1:].tolist() == [0, 1] or found.unknown[1] == 0
        assert not found.vectors[2].any()

    def test_a_missing_extra_names_its_pip_install(self, tiny: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        embedders._wordllama.cache_clear()
        with pytest.raises(MissingExtraError, match=r"pip install 'actmax\[meaning\]'"):
            make_embedder(MeaningSettings(embedder="wordllama"), tiny, ())
        embedders._wordllama.cache_clear()

    def test_a_folder_of_model2vec(self, tiny: Subject, tmp_path: Path) -> None:
        tokenizer(tmp_path)
        rows = np.random.default_rng(0).normal(size=(2, 8)).astype(np.float32)
        mapping, weights = np.array([0, 0, 1]), np.array([1.0, 2.0, 0.5])
        save_file({"embeddings": rows, "mapping": mapping, "weights": weights}, tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text("{}")
        settings = MeaningSettings(embedder="model2vec", path=str(tmp_path))
        found = make_embedder(settings, tiny, ())(["red sea", "red nowhere"])
        np.testing.assert_allclose(found.vectors[0], (2.0 * rows[0] + 0.5 * rows[1]) / 2, atol=1e-6)
        np.testing.assert_allclose(found.vectors[1], 2.0 * rows[0], atol=1e-6)  # what is unknown is left out
        assert found.unknown.tolist() == [0, 0.5]

    def test_a_folder_of_sentence_transformers(self, tiny: Subject, tmp_path: Path) -> None:
        from transformers import BertConfig, BertModel

        tokenizer(tmp_path)
        sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
        model = BertModel(BertConfig(vocab_size=3, **sizes)).eval()
        model.save_pretrained(tmp_path)
        special = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]", "pad_token": "[UNK]"}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(special))
        (tmp_path / "modules.json").write_text("[]")
        (tmp_path / "1_Pooling").mkdir()
        settings = MeaningSettings(embedder="sentence_transformers", path=str(tmp_path))
        with torch.no_grad():
            states = [model(torch.tensor([ids])).last_hidden_state[0].double().numpy() for ids in ([1, 2], [2])]
        for pooling, pool in (
            ({"pooling_mode_mean_tokens": True}, np.mean),
            ({"pooling_mode_cls_token": True}, _first),
        ):
            (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
            found = make_embedder(settings, tiny, ())(["red sea", "sea"])
            wanted = [pool(one, axis=0) for one in states]
            np.testing.assert_allclose(found.vectors, wanted, atol=1e-5)
        assert isinstance(make_embedder(settings, tiny, ()), Encoder)

    @pytest.mark.parametrize("name", ["model2vec", "sentence_transformers"])
    def test_a_folder_that_is_none(self, name: str, tmp_path: Path) -> None:
        for path in (None, str(tmp_path)):
            with pytest.raises(InputError, match="must be a folder that") as error:
                check_folder(MeaningSettings(embedder=name, path=path))
            assert error.value.key == "path"

    def test_a_damaged_folder(self, tiny: Subject, tmp_path: Path) -> None:
        for name in FILES["model2vec"]:
            (tmp_path / name).write_text("{")
        settings = MeaningSettings(embedder="model2vec", path=str(tmp_path))
        with pytest.raises(InputError, match="cannot be read"):
            make_embedder(settings, tiny, ())

    def test_the_subject_leaves_out_what_units_read(self, tiny: Subject) -> None:
        unit = Unit("resid_pre", 1, 3)
        settings = MeaningSettings(embedder="subject", layer=1)
        found = make_embedder(settings, tiny, [unit])
        text = tiny.text([5, 6])
        vector = found([text]).vectors[0]
        assert found.confounded
        assert vector[3] == 0
        assert np.delete(vector, 3).all()
        for wrong in (None, 3):
            with pytest.raises(InputError, match="0 to 2"):
                make_embedder(MeaningSettings(embedder="subject", layer=wrong), tiny, [unit])
        with pytest.raises(InputError, match="no coordinate of the residual stream"):
            make_embedder(settings, tiny, [Unit("mlp_post", 1, 3)])


def test_static_tables_do_not_mind_order() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({"[UNK]": 0, "red": 1, "sea": 2}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    found = StaticTable(made, np.eye(3), frozenset({0}))(["red sea", "sea red", "red red sea"]).vectors
    assert (found[0] == found[1]).all()
    assert found[2].tolist() == pytest.approx([0, 2 / 3, 1 / 3])


def test_identity_leaves_out_where_a_folder_lies() -> None:
    one, other = (MeaningSettings(embedder="model2vec", path=path).identity() for path in ("a", "b"))
    assert one == other
    assert one != MeaningSettings(embedder="wordllama").identity()
    assert MeaningSettings(embedder="none", draws=50).identity() == MeaningSettings(embedder="none").identity()


def test_whole_words_begin_with_a_space_and_are_letters(tiny: Subject) -> None:
    found = whole_words(tiny)
    assert all(text[0] == " " and text[1:].isalpha() and len(text) > 3 for _, text in found)
    lowered = [text.lower() for _, text in found]
    assert len(set(lowered)) == len(lowered)
    assert all(tiny.tokens(text) == [token] for token, text in found[:20])


def tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({"[UNK]": 0, "red": 1, "sea": 2}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.save(str(folder / "tokenizer.json"))


def _first(states: Array, axis: int) -> Array:
    return states[0]


class TestUnits:
    """What a job does with vectors, words and random sequences, beside the same put together here."""

    def asked(self, tiny: Subject, sign: Literal["maximize", "minimize"] = "maximize") -> Asked:
        settings = MeaningSettings(embedder="wordllama", words=100, draws=99, pool=20)
        text = Context("text", ((5, 6), (7, 8)))
        return Asked(tiny, Objective(sign=sign), settings, GapSettings(draws=200), text)

    @pytest.fixture
    def words(self, tiny: Subject, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
        """A vocabulary of 220 pieces of the table; the tiny subject's own has no whole word."""
        found = make_embedder(MeaningSettings(embedder="wordllama"), tiny, ())
        assert isinstance(found, StaticTable)
        pieces = [found.tokenizer.id_to_token(number) for number in range(1000, 3000)]
        words = [f" {piece[1:]}" for piece in pieces if piece[0] == "▁" and piece[1:].isalpha()][:220]
        monkeypatch.setattr(in_units, "whole_words", lambda subject: list(zip(range(33, 253), words, strict=True)))
        in_units.vocabulary.cache_clear()
        yield words
        in_units.vocabulary.cache_clear()

    @pytest.mark.parametrize("sign", ["maximize", "minimize"])
    def test_the_best_is_on_the_side_of_the_objective(self, tiny: Subject, sign: Any) -> None:
        asked = self.asked(tiny, sign)
        space = Space.of(asked, (), tokens=2)
        values = np.random.default_rng(0).normal(size=200)
        best, size = in_units._best(asked, space, gap_of(values), 25, torch.zeros(8, 2, dtype=torch.int64))
        assert (len(best), size) == (8, 25)
        blocks = values.reshape(8, 25)
        wanted = (blocks.argmax(1) if sign == "maximize" else blocks.argmin(1)) + 25 * np.arange(8)
        drawn = random_tokens(tiny, 2, draws=200, seed=0)[wanted].tolist()
        np.testing.assert_allclose(best, space([tiny.text(ids) for ids in drawn]))

    @pytest.mark.parametrize("sign", ["maximize", "minimize"])
    def test_words_are_read_in_text_on_the_side_of_the_objective(
        self, tiny: Subject, words: list[str], sign: Any
    ) -> None:
        asked, unit = self.asked(tiny, sign), Unit("resid_pre", 1, 3)
        space = Space.of(asked, (), tokens=2)
        rng = np.random.default_rng(0)
        texts, chance = space(words[:3]), space.words[rng.integers(0, len(words), (99, 3))]
        in_text = in_units._InText(asked, [Unit("resid_pre", 1, 4), unit])
        found = in_units._raised(in_text, unit, texts, chance, space.words)
        some = np.sort(np.random.default_rng([0, *b"words"]).permutation(220)[:100])
        there = Objective(context=Context("text", ((5, 6), (7, 8))))
        values = activations(tiny, there, [[33 + int(word)] for word in some], [unit] * 100)
        made = theme(texts, chance, space.words[some])
        side = "greater" if sign == "maximize" else "less"
        wanted = raised_by(values, made.nearest, made.drawn, alternative=side)
        assert found["theme_raises"] == pytest.approx(wanted.observed)
        assert found["null_theme_raises_p"] == pytest.approx(wanted.p)

    def test_words_are_read_once_and_kept_for_other_jobs(
        self, tiny: Subject, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked, units = replace(self.asked(tiny), cache=tmp_path), [Unit("resid_pre", 1, 3), Unit("resid_pre", 1, 4)]
        found = in_units._InText(asked, units).activation
        assert found.shape == (100, 2)
        again = replace(asked, settings=replace(asked.settings, seed=1))
        assert not np.array_equal(in_units._InText(again, units).activation, found)  # other words
        monkeypatch.setattr(evaluation, "by_unit_activations", None)
        np.testing.assert_array_equal(in_units._InText(asked, units[1:]).activation, found[:, 1:])
        with pytest.raises(TypeError):  # of another unit nothing is kept
            _ = in_units._InText(asked, [Unit("resid_pre", 1, 5)]).activation

    def test_a_theme_is_held_against_the_other_half(self, tiny: Subject, words: list[str]) -> None:
        asked, unit = self.asked(tiny), Unit("resid_pre", 1, 3)
        space = Space.of(asked, (), tokens=1)
        rng = np.random.default_rng(1)
        own, other = space(words[:6]), space(words[50:56])
        chance = space.words[rng.integers(0, len(words), (99, 6))]
        ids = torch.arange(33, 39)[:, None]
        columns: dict[str, Any] = {}
        others = {Unit("resid_pre", 1, 4): other}
        in_text = in_units._InText(asked, [unit])
        (table,) = in_units._about(columns, in_text, space, unit, ids, own, chance, others, ids)
        wanted = held_out(own[:3], np.stack([own[3:], other[3:]]))
        assert columns["theme_held_out"] == pytest.approx(wanted.observed)
        assert columns["null_theme_held_out_p"] == pytest.approx(wanted.p)
        rows = table[table["kind"] == "word"]
        assert len(rows) == WORDS
        found = theme(own, chance, space.words)
        assert list(rows["text"]) == [words[number].strip() for number in found.nearest]
        assert columns["theme_words"] == (found.p <= 0.05).sum()

    def test_what_is_alike_in_shared_tokens_alone_is_told_from_what_is_alike_apart_from_them(
        self, tiny: Subject, words: list[str]
    ) -> None:
        from tokenizers import Tokenizer, decoders, models
        from transformers import PreTrainedTokenizerFast

        sea = ["ship", "sailor", "harbour", "ocean", "boat", "captain", "deck", "anchor", "navy", "vessel"]
        others = sorted({word.strip() for word in words} - set(sea))
        vocabulary = {word: number for number, word in enumerate([*sea, *others])}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="ship"))
        tokenizer.decoder = decoders.WordPiece()
        spelled = replace(tiny, tokenizer=PreTrainedTokenizerFast(tokenizer_object=tokenizer))
        space = Space.of(self.asked(spelled), (), tokens=3)
        rng = np.random.default_rng(0)
        plain = np.array([vocabulary[word] for word in others])
        chance = space.sequences(torch.from_numpy(rng.choice(plain, (199, 6, 3))))
        texts = {
            "same tokens": [["ship", "sailor", others[11 * number]] for number in range(6)],
            "one topic": [[sea[number], sea[number + 4], others[11 * number]] for number in range(6)],
            "nothing": rng.choice(others, (6, 3), replace=False).tolist(),
        }
        p = {}
        for name, rows in texts.items():
            ids = torch.tensor([[vocabulary[word] for word in row] for row in rows])
            vectors = space.sequences(ids)
            found = in_units._apart(space, ids, vectors, chance)
            p[name] = measured(vectors, chance).null.p, found["null_meaning_apart_p"]
            loops = []
            for one, other in combinations(range(6), 2):
                left = [[word for word in rows[a] if word not in rows[b]] for a, b in ((one, other), (other, one))]
                first, second = space([" ".join(part) for part in left])
                loops.append(first @ second)
            assert found["meaning_apart"] == pytest.approx(np.mean(loops))
        assert p["same tokens"][0] <= 0.05 < p["same tokens"][1]
        assert max(p["one topic"]) <= 0.05
        assert min(p["nothing"]) > 0.05

    def test_unknown_pieces_are_told_by_unit(self, tiny: Subject) -> None:
        known, lost = Unit("resid_pre", 1, 3), Unit("resid_pre", 1, 4)
        texts = {known: ["a sea", "a ship", "a boat", "the sea"], lost: ["☃😀"] * 4}
        ids = {unit: torch.full((4, 2), 65) for unit in texts}
        gaps = {unit: gap_of(np.random.default_rng(0).normal(size=200)) for unit in texts}
        drawn = torch.randint(33, 120, (20, 4, 2), generator=torch.Generator().manual_seed(0))
        asked = self.asked(tiny)
        columns, _, kept = in_units.meaning_columns(asked, texts, ids, gaps, [drawn] * 2, own=list(texts), passes=20)
        assert columns[known]["meaning_status"] == MeaningStatus.OK
        assert columns[lost]["meaning_status"] == MeaningStatus.UNKNOWN_PIECES
        assert columns[lost]["verdict_meaning"] == Verdict.NOT_JUDGED
        assert kept["vectors"].shape == (8, 256)
        only, _, _ = in_units.meaning_columns(asked, texts, ids, gaps, [drawn] * 2, own=[known], passes=20)
        assert "meaning_status" not in only[lost]  # a control unit


def gap_of(activation: Array) -> Gap:
    """A decode gap of which only the activations of random sequences count."""
    zeros = np.zeros(4)
    names = ("initial", "final", "snapped", "retokenised", "cross_entropy", "cross_entropy_initial", "start_tokens")
    rest: dict[str, Any] = dict.fromkeys(names, zeros)
    random = RandomText(activation, zeros)
    return Gap(**rest, texts=("",) * 4, same=(True,) * 4, lengths=(1,) * 4, random=random, passes=1)


def test_an_embedders_folder_names_the_job_by_what_it_holds(tmp_path: Path) -> None:
    def digest(folder: Path, embedder: str = "model2vec") -> Any:
        return meaning_digest(OmegaConf.create({"meaning": {"embedder": embedder, "path": str(folder)}}))

    first, other = tmp_path / "first", tmp_path / "elsewhere"
    for folder in (first, other):
        folder.mkdir()
        save_file({"embeddings": np.arange(6.0).reshape(3, 2)}, folder / "model.safetensors")
    before = digest(first)
    assert before == digest(other)
    save_file({"embeddings": np.arange(1.0, 7.0).reshape(3, 2)}, first / "model.safetensors")
    assert digest(first) != before
    assert digest(first, "wordllama") == {}


def test_records_from_before_have_no_settings_of_meaning() -> None:
    assert settings_in({}) == MeaningSettings()
    assert settings_in({"meaning": {"embedder": "subject", "layer": 3}}).layer == 3


SEARCH = (*QUICK, "task=search", "subject=tiny", "unit.site=resid_pre", "unit.layer=1", "unit.index=3")
"""A search on the tiny subject; its text is single characters, which have pieces in the table."""


@pytest.fixture
def searched(actmax: Actmax) -> Path:
    ran = actmax(*SEARCH, "seeds=0:4", "controls=2", "search.passes=40", "meaning.embedder=wordllama", "page=true")
    assert ran.code == 0, ran.err
    return ran.job


class TestRecord:
    def test_an_independent_computation_gives_the_same(self, searched: Path) -> None:
        """From the texts alone: the wheel's table, means, cosines and every relabelling, by loops."""
        from itertools import product

        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        units, gaps = (pd.read_parquet(searched / f"{name}.parquet") for name in ("units", "gaps"))
        kept = load_file(searched / "meaning.safetensors")
        spec = importlib.util.find_spec("wordllama")
        assert spec is not None
        assert spec.submodule_search_locations
        folder = Path(spec.submodule_search_locations[0])
        (table,) = load_file(folder / embedders.TABLE).values()
        cut = Tokenizer.from_file(str(folder / embedders.TOKENIZER))
        lost = {cut.token_to_id(f"<0x{byte:02X}>") for byte in range(256)} | {cut.token_to_id("<unk>")}
        vectors = []
        for text in gaps["text"]:
            ids = [one for one in cut.encode(text.strip(), add_special_tokens=False).ids if one not in lost]
            mean = table[ids].astype(float).mean(0) if ids else np.zeros(256)
            moved = mean - kept["centre"]
            vectors.append(moved / np.sqrt((moved**2).sum()))
        np.testing.assert_allclose(kept["vectors"], vectors, atol=1e-9)
        texts = np.array(vectors).reshape(3, 4, 256)
        row = units[~units["control"]].iloc[0]
        pairs = list(combinations(range(4), 2))
        assert row["meaning"] == pytest.approx(np.mean([texts[0, i] @ texts[0, j] for i, j in pairs]), abs=1e-9)

        def contrast(pick: tuple[int, ...]) -> float:
            # within less between, where the rows of `pick` are the unit, and all others of each seed are not
            rows = [texts[unit, seed] for seed, unit in enumerate(pick)]
            within = np.mean([rows[i] @ rows[j] for i, j in pairs])
            rest = [[texts[unit, seed] for unit in range(3) if unit != pick[seed]] for seed in range(4)]
            between = [rows[i] @ other for i in range(4) for j in range(4) if i != j for other in rest[j]]
            return float(within - np.mean(between))

        found = {pick: contrast(pick) for pick in product(range(3), repeat=4)}
        test = relabel(kept["vectors"] @ kept["vectors"].T, 3).test
        assert test is not None
        for unit in range(3):
            own = (unit,) * 4
            p = np.mean([value >= found[own] - 1e-12 for value in found.values()])
            assert test.nulls[unit].p == pytest.approx(p, abs=1e-9)
        if row["null_meaning_p"] <= 0.05:
            assert row["null_own_meaning_p"] == pytest.approx(test.nulls[0].p, abs=1e-9)

    def test_findings_words_and_row_agree(self, searched: Path) -> None:
        units, findings = (pd.read_parquet(searched / f"{name}.parquet") for name in ("units", "findings"))
        row = units[~units["control"]].iloc[0].to_dict()
        one = findings[findings["measure"] == "meaning"].iloc[0]
        assert one["observed"] == row["meaning"]
        assert one["claimed"] == (row["null_meaning_p"] <= 0.05)
        assert row["meaning_best_count"] >= 3
        page = (searched / "report.html").read_text()
        assert "meaning in common" in page
        assert (searched / "figures/meaning.svg").exists()
        where = pd.read_parquet(searched / "meaning.parquet")
        assert where["kind"].value_counts().to_dict() == {"own": 4, "other": 8, "chance": 200}
        assert set(where.loc[where["kind"] == "own", "of"]) == {str(target_of_row(row))}

    def test_the_subjects_own_stream_says_what_leaving_out_changes(self, actmax: Actmax) -> None:
        asked = ("meaning.embedder=subject", "meaning.layer=2", "seeds=0:3", "search.passes=20", "page=true")
        ran = actmax(*SEARCH, *asked)
        assert ran.code == 0, ran.err
        (row,) = pd.read_parquet(ran.job / "units.parquet").to_dict("records")
        sizes = {"model_type": "gpt2", "n_layer": 10, "n_embd": 96, "n_head": 4, "n_positions": 64}
        tiny = shared(name="tiny", source="random", architecture=sizes)
        stream = embedders.ResidualStream(tiny, 2, ())
        texts = stream(list(pd.read_parquet(ran.job / "gaps.parquet")["text"])).vectors
        drawn = random_tokens(tiny, 5, draws=in_units.CENTRE, seed=0).tolist()
        centre = stream([tiny.text(ids) for ids in drawn]).vectors.mean(0)
        assert row["meaning_whole"] == pytest.approx(mean_similarity(centred(texts, centre)).item(), abs=1e-9)
        assert abs(row["meaning_whole"] - row["meaning"]) > 1e-5
        assert "nothing left out" in (ran.job / "report.html").read_text()

    def test_it_is_asked_by_default(self, actmax: Actmax) -> None:
        asked = [some for some in SEARCH if not some.startswith("meaning")]
        ran = actmax(*asked, "seeds=0:3", "search.passes=20")
        assert ran.code == 0, ran.err
        (row,) = pd.read_parquet(ran.job / "units.parquet").to_dict("records")
        assert row["meaning_status"] == MeaningStatus.OK
        assert "meaning in common" in ran.out

    def test_it_need_not_be_asked(self, actmax: Actmax) -> None:
        asked = (*SEARCH, "seeds=0:3", "search.passes=20", "meaning.embedder=none")
        ran = actmax(*asked)
        assert ran.code == 0, ran.err
        assert not any("meaning" in name for name in pd.read_parquet(ran.job / "units.parquet"))
        assert not (ran.job / "meaning.safetensors").exists()
        again = actmax(*asked, "meaning.draws=50")  # what is not asked names no job
        assert again.jobs == ran.jobs
        assert "complete" in again.out + again.err

    def test_a_missing_extra_harms_nothing_else(self, actmax: Actmax, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = importlib.util.find_spec

        def find(name: str, *rest: Any) -> Any:
            return None if name == "wordllama" else whole(name, *rest)

        monkeypatch.setattr(importlib.util, "find_spec", find)
        embedders._wordllama.cache_clear()
        ran = actmax(*SEARCH, "seeds=0:3", "search.passes=20", "meaning.embedder=wordllama", "page=true")
        embedders._wordllama.cache_clear()
        assert ran.code == 0, ran.err
        row = pd.read_parquet(ran.job / "units.parquet").iloc[0].to_dict()
        assert row["meaning_status"] == MeaningStatus.EXTRA_MISSING
        assert meaning_obstacle(row) == "not measured: pip install 'actmax[meaning]'"
        assert "pip install" in (ran.job / "report.html").read_text()

    @pytest.mark.parametrize(
        ("overrides", "words"),
        [
            (("meaning.embedder=model2vec",), "meaning.path=None"),
            (("meaning.embedder=model2vec", "meaning.path=nowhere"), "meaning.path=nowhere"),
            (("meaning.embedder=subject",), "meaning.layer=None"),
            (("meaning.embedder=subject", "meaning.layer=99"), "meaning.layer=99"),
            (("meaning.embedder=glove",), "must be one of wordllama"),
        ],
    )
    def test_bad_input(self, actmax: Actmax, overrides: tuple[str, ...], words: str) -> None:
        ran = actmax(*SEARCH, *overrides)
        assert ran.code == 2
        assert words in ran.err

    def test_a_sweep_sets_its_units_apart(self, actmax: Actmax) -> None:
        jobs = ("unit.index=3,4,5", "seeds=0:4", "search.passes=30", "sweep=s", "meaning.embedder=wordllama")
        ran = actmax("-m", *(part for part in SEARCH if not part.startswith("unit.index")), *jobs)
        assert ran.code == 0, ran.err
        alone = pd.concat([pd.read_parquet(job / "units.parquet") for job in ran.jobs])
        assert set(alone["own_meaning_status"]) == {OwnStatus.ONE_UNIT}
        together = pd.read_parquet(ran.folder / "outputs/s/units.parquet")
        assert set(together["own_meaning_status"]) == {OwnStatus.OK}

    def test_seeds_of_several_jobs_are_put_together(self, actmax: Actmax) -> None:
        jobs = ("seeds=0,1,2,3", "search.passes=30", "sweep=s", "meaning.embedder=wordllama")
        ran = actmax("-m", *SEARCH, *jobs)
        assert ran.code == 0, ran.err
        (row,) = pd.read_parquet(ran.folder / "outputs/s/units.parquet").to_dict("records")
        assert row["meaning_status"] == MeaningStatus.OK
        assert row["restarts"] == 4


@pytest.mark.slow
def test_a_real_units_restarts_have_a_theme(actmax: Actmax) -> None:
    """resid_pre.8[91] of SmolLM2 behind begin-of-text answers to old civilizations."""
    where = ("task=search", "subject=smollm2", "unit.site=resid_pre", "unit.layer=8", "unit.index=91")
    jobs = ("seeds=0:6", "controls=0", "search.passes=600", "gap.draws=2000", "transfer.draws=100", "logger=none")
    ran = actmax(*where, *jobs, "meaning.embedder=wordllama", "page=true")
    assert ran.code == 0, ran.err
    row = pd.read_parquet(ran.job / "units.parquet").iloc[0].to_dict()
    found = pd.read_parquet(ran.job / "theme.parquet")
    assert row["meaning_status"] == MeaningStatus.OK
    assert set(found["kind"]) == {"word", "token"}
    words = found[found["kind"] == "word"]
    assert (words["p"] <= 0.05).sum() == row["theme_words"] or row["theme_words"] > len(words)
    assert np.isfinite(row["theme_raises"])
    page = (ran.job / "report.html").read_text()
    assert all(word in page for word in words["text"])
    assert math.isnan(row["theme_held_out"])  # no other unit to be nearer than
