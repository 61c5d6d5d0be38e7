"""Activations as Hugging Face has them; one planted unit, found and replicated; nothing found where nothing is."""

from __future__ import annotations

import copy
import dataclasses
import functools
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from rich.console import Console

from actmax.app import config
from actmax.errors import InputError
from actmax.evidence.findings import Measure
from actmax.evidence.readings import Reading
from actmax.model.architecture import Geometry
from actmax.model.subject import Subject, load
from actmax.model.target import Place, Unit
from actmax.report.blocks import Page
from actmax.report.terminal import show
from actmax.report.words import tuning_statement
from actmax.stats.corrections import correct
from actmax.stats.groups import compare
from actmax.stats.regrouped import regrouped_welch
from actmax.tasks.tuning import analysis
from actmax.tasks.tuning.activations import Reader, Texts, trainer
from actmax.tasks.tuning.analysis import Tuning, analyse
from actmax.tasks.tuning.headlines import findings, summarize
from actmax.tasks.tuning.heatmap import Scale, encoded, heat_map, text_of
from actmax.tasks.tuning.page import heat_map_html, heat_map_text
from actmax.tasks.tuning.plan import Words, make_plan, words_of
from actmax.tasks.tuning.settings import TuningSettings
from actmax.tasks.tuning.store import Store
from actmax.text.contexts import begin_token
from actmax.words.encoding import Batches, encode, tokens_of
from actmax.words.lists import Context, Data, Sample, Skips
from cli import Actmax

GPT2 = {"model_type": "gpt2", "n_layer": 2, "n_embd": 24, "n_head": 4, "n_positions": 32}
LLAMA = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
}
WORDS = ("a", "b", "ab", "cd", "abcde", "fghij", "x", "yz", "klmno")
FAST = TuningSettings(splits=4, folds=3, permutations=40, top=3)


def data_of(words: Sequence[str], labels: Sequence[int], template: str = " {word}") -> Data:
    start = template.index("{word}")
    samples = [
        Sample(word, label, (Context(template.replace("{word}", word), start, start + len(word), "test"),))
        for word, label in zip(words, labels, strict=True)
    ]
    return Data(tuple(samples), ("a", "b"), Skips())


def sites_of(subject: Subject) -> list[Place]:
    places: list[Place] = [(site, layer) for site in subject.geometry.sites[:-1] for layer in range(2)]
    return [("final_norm", None), *[place for place in places if place[0] != "final_norm"]]


def stored(
    subject: Subject,
    data: Data,
    places: Sequence[Place],
    folder: Path,
    *,
    vector: str = "last",
    tokens: int = 64,
    padding: int = 0,
    memory: float = 1e9,
    keep: bool = False,
) -> Store:
    encoding = encode(subject, data, before=(256,))
    dtype = "float64" if subject.dtype == torch.float64 else "float32"
    store = Store(
        subject.geometry, places, len(encoding.data.samples), memory=memory, folder=folder, keep=keep, dtype=dtype
    )
    texts = Texts(encoding.texts, tokens=tokens, padding=padding)
    trainer(accelerator="cpu", folder=folder).predict(
        Reader(subject, store, vector=vector), datamodule=texts, return_predictions=False
    )
    return store


# Hugging Face's own


def hooked(subject: Subject, ids: list[int]) -> dict[Place, torch.Tensor]:
    """Every site, from the whole model's own forward pass of one unpadded text, through hooks of this test's own."""
    model: Any = subject.model
    llama = subject.geometry.model_type == "llama"
    found: dict[Place, torch.Tensor] = {}
    handles = []

    def out(name: str, layer: int, module: Any, inputs: Any, output: Any) -> None:
        found[name, layer] = output[0] if isinstance(output, tuple) else output

    def into(name: str, layer: int, module: Any, inputs: Any) -> None:
        found[name, layer] = inputs[0]

    blocks = model.model.layers if llama else model.transformer.h
    for layer, block in enumerate(blocks):
        attention = block.self_attn if llama else block.attn
        down = block.mlp.down_proj if llama else block.mlp.c_proj
        last = attention.o_proj if llama else attention.c_proj
        outputs = {"attn_out": last, "mlp_out": down}
        if llama:
            outputs |= {"mlp_pre": block.mlp.gate_proj, "mlp_pre_linear": block.mlp.up_proj}
            outputs |= {"q": attention.q_proj, "k": attention.k_proj, "v": attention.v_proj}
        else:
            outputs |= {"mlp_pre": block.mlp.c_fc, "qkv": attention.c_attn}
        middle = block.post_attention_layernorm if llama else block.ln_2
        for name, module in outputs.items():
            handles.append(module.register_forward_hook(functools.partial(out, name, layer)))
        for name, module in {"mlp_post": down, "z": last, "resid_mid": middle}.items():
            handles.append(module.register_forward_pre_hook(functools.partial(into, name, layer)))
    with torch.no_grad():
        hidden = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
    for handle in handles:
        handle.remove()
    found |= {("resid_pre", layer): hidden[layer] for layer in range(2)}
    found |= {("resid_post", 0): hidden[1], ("final_norm", -1): hidden[2]}
    if not llama:
        for layer in range(2):
            q, k, v = found.pop(("qkv", layer)).split(subject.geometry.d_model, dim=2)
            found |= {("q", layer): q, ("k", layer): k, ("v", layer): v}
    return {place: value[0] for place, value in found.items()}


@pytest.fixture(scope="module", params=[GPT2, LLAMA], ids=["gpt2", "llama"])
def small(request: pytest.FixtureRequest) -> Subject:
    """2 blocks x 24 dims, float32, one token per byte."""
    return load(name="small", source="random", architecture=request.param)


@pytest.mark.parametrize(("vector", "padding"), [("last", 0), ("last", 8), ("mean", 0), ("mean", 8)])
def test_activations_are_hugging_faces_own(small: Subject, tmp_path: Path, vector: str, padding: int) -> None:
    data = data_of(WORDS, [0, 0, 0, 0, 1, 1, 1, 1, 0], template=" {word}")
    places = sites_of(small)
    store = stored(small, data, places, tmp_path, vector=vector, padding=padding)
    begin = begin_token(small)
    checked = 0
    for row, word in enumerate(WORDS):
        ids = [begin, *small.tokenizer(f" {word}", add_special_tokens=False)["input_ids"]]
        assert len(ids) == 2 + len(word)  # begin of text, the space, a token per byte
        own = hooked(small, ids)
        for site, layer in places:
            if (site, layer) == ("resid_post", 1):
                continue  # Hugging Face shows it behind the final norm only
            values = own[site, -1 if layer is None else layer]
            expected = values[-1] if vector == "last" else values[2:].mean(0)
            got = torch.as_tensor(np.array(store[site, layer][row]))
            assert (got - expected).abs().max() <= 1e-5 * values.abs().max(), (word, site, layer)
            checked += 1
    assert checked == len(WORDS) * (len(places) - 1)


def test_the_last_blocks_output_is_what_enters_the_final_norm(small: Subject, tmp_path: Path) -> None:
    store = stored(small, data_of(WORDS, [0] * 4 + [1] * 5), [("resid_post", 1), ("final_norm", None)], tmp_path)
    norm: Any = small.model.model.norm if small.geometry.model_type == "llama" else small.model.transformer.ln_f  # pyright: ignore
    with torch.no_grad():
        expected = norm(torch.as_tensor(np.array(store["resid_post", 1])))
    assert torch.allclose(expected, torch.as_tensor(np.array(store["final_norm", None])), atol=1e-5)


def test_the_check_against_hugging_face_can_fail(small: Subject, tmp_path: Path) -> None:
    """Begin-of-text averaged in is seen at once."""
    data = data_of(WORDS, [0] * 4 + [1] * 5)
    store = stored(small, data, [("resid_post", 0)], tmp_path, vector="mean")
    own = hooked(small, [begin_token(small), *small.tokenizer(" ab", add_special_tokens=False)["input_ids"]])
    values = own["resid_post", 0]
    with_begin = torch.cat([values[:1], values[2:]]).mean(0)
    got = torch.as_tensor(np.array(store["resid_post", 0][WORDS.index("ab")]))
    assert (got - with_begin).abs().max() > 1e-3 * values.abs().max()


def test_a_words_contexts_are_averaged_and_disk_equals_memory(subject: Subject, tmp_path: Path) -> None:
    contexts = tuple(
        Context(text, start, start + 2, "test") for text, start in (("an ab", 3), ("ab", 0), ("xx ab!", 3))
    )
    several = Data((Sample("ab", 0, contexts), *data_of("cdefghi", [0, 0, 0, 1, 1, 1, 1]).samples), ("a", "b"), Skips())
    places: list[Place] = [("resid_post", 1), ("z", 0)]
    singles = [Data((Sample("ab", 0, (c,)), *several.samples[1:]), ("a", "b"), Skips()) for c in contexts]
    with stored(subject, several, places, tmp_path / "m") as memory:
        alone = [stored(subject, one, places, tmp_path / "s")["resid_post", 1][0] for one in singles]
        assert not memory.on_disk
        assert np.allclose(memory["resid_post", 1][0], np.mean(alone, axis=0), rtol=1e-12)
        with stored(subject, several, places, tmp_path / "d", memory=100.0) as disk:
            assert disk.on_disk
            assert sorted(file.name for file in (tmp_path / "d").glob("*.npy")) == ["resid_post.1.npy", "z.0.npy"]
            assert all((disk[place] == memory[place]).all() for place in places)
        assert not (tmp_path / "d").exists()
    with stored(subject, several, places, tmp_path / "k", keep=True) as kept:
        assert kept.on_disk
    assert np.load(tmp_path / "k" / "z.0.npy").shape == (8, 24)


def test_batches_keep_lengths_apart_unless_told(subject: Subject) -> None:
    texts = encode(subject, data_of(WORDS, [0] * 4 + [1] * 5), before=(256,)).texts
    apart = list(Batches(texts, tokens=1000))
    assert [tuple(batch.ids.shape) for batch in apart] == [(3, 7), (3, 4), (3, 3)]
    together = list(Batches(texts, tokens=1000, padding=4))
    assert [tuple(batch.ids.shape) for batch in together] == [(9, 7)]
    small_batches = list(Batches(texts, tokens=7))
    assert sum(len(batch.shares) for batch in small_batches) == 9
    assert max(batch.ids.numel() for batch in small_batches) <= 7


# what cannot be encoded


def test_words_without_tokens_and_long_texts_are_counted(subject: Subject) -> None:
    data = data_of("abcdefgh", [0, 0, 0, 0, 1, 1, 1, 1])
    empty, long = Context("   ", 3, 3, "f:8"), Context("x" * 40, 0, 40, "f:9")
    extra = (Sample("", 0, (empty,)), Sample("long", 1, (long,)), Sample("some", 1, (long, Context("y", 0, 1, "f:10"))))
    found = encode(subject, Data((*data.samples, *extra), ("a", "b"), data.skips), before=(256,))
    assert dict(found.data.skips.counts) == {"no sub-token": 1, "longer than the context has room for": 2}
    assert [skip.source for skip in found.data.skips.listed] == ["f:8", "f:9", "f:9"]
    assert len(found.data.samples) == 9
    assert found.subtokens == [1] * 9
    assert found.texts[-1].share == 1


def test_too_few_words_left_is_an_error(subject: Subject) -> None:
    data = data_of(["a", "b", "c", "x" * 40, "d", "e", "f", "g"], [0, 0, 0, 0, 1, 1, 1, 1])
    with pytest.raises(InputError, match="Left out: 1 longer than the context has room for") as caught:
        encode(subject, data, before=(256,))
    assert caught.value.key == "group_0"


def test_begin_of_text(subject: Subject) -> None:
    assert begin_token(subject) == 256
    assert begin_token(subject, "a") != 256
    with pytest.raises(InputError, match=r"^token="):
        begin_token(subject, "<s>")


def test_begin_of_text_is_what_documents_began_with(subject: Subject) -> None:
    tokenizer = copy.deepcopy(subject.tokenizer)
    tokenizer.bos_token = "a"  # as SmolLM2-Instruct's says <|im_start|>
    other = Subject("s", "s", None, subject.model, tokenizer, subject.geometry)
    assert begin_token(other) == 256


# planted truth

CLASSES = 50


def planted(*, wired: bool) -> Subject:
    """Two dims carry the class of a token, and only unit 7 of block 1's `mlp_pre` reads them, if it is wired."""
    subject = load(name="planted", source="random", dtype="float64", seed=4, architecture={**GPT2, "vocab_size": 400})
    model: Any = subject.model
    words, places = model.transformer.wte.weight, model.transformer.wpe.weight
    marks = torch.zeros(400, dtype=torch.float64)
    marks[260 : 260 + CLASSES], marks[260 + CLASSES : 260 + 2 * CLASSES] = -0.02, 0.02
    words[:, 0], words[:, 1], places[:, :2] = marks, -marks, 0  # so mean and length say nothing of the class
    for block in model.transformer.h:
        block.attn.c_attn.weight[:2] = 0
        block.mlp.c_fc.weight[:2] = 0
    if wired:
        block = model.transformer.h[1]
        block.mlp.c_fc.weight[0, 7], block.mlp.c_fc.weight[1, 7] = 0.1, -0.1
        block.mlp.c_proj.weight[7] = 0
    return subject


def token_words() -> Data:
    """A word is one token, from 260 on; the first half of them is group 0."""
    names = [f"<{number}>" for number in range(260, 260 + 2 * CLASSES)]
    return data_of(names, [0] * CLASSES + [1] * CLASSES, template="{word}")


def tuned(subject: Subject, folder: Path, settings: TuningSettings = FAST, labels: np.ndarray | None = None) -> Tuning:
    data = token_words()
    store = stored(subject, data, [("mlp_pre", 0), ("mlp_pre", 1)], folder, tokens=1024)
    words = words_of(data, [1] * len(data.samples))
    if labels is not None:
        words = Words(labels, words.groups, None, words.subtokens)
    return analyse(store, words, subject.geometry, settings)


def test_exactly_the_planted_unit_is_found_and_replicated(tmp_path: Path) -> None:
    found = tuned(planted(wired=True), tmp_path)
    units = found.units
    assert len(units) == 2 * 96
    assert units.loc[units["tuned"], ["site", "layer", "index"]].to_numpy().tolist() == [["mlp_pre", 1, 7]]
    assert found.top[0] == 96 + 7
    row = units.iloc[96 + 7]
    assert row["cohens_d"] > 1
    assert row["welch_p_bonferroni"] < 1e-3
    assert row["welch_p_bonferroni_layer"] <= row["welch_p_bonferroni"]
    assert row["p_permutation"] == pytest.approx(1 / 41)
    assert (found.replication["selected"] >= 1).all()
    assert found.replication["rate"].mean() > 0.8 > 0.2 > found.replication["null_rate_mean"].mean()
    layers = found.shares.set_index("layer")
    assert (layers.loc[1, "tuned"], layers.loc[0, "tuned"], layers.loc[1, "towards_1"]) == (1, 0, 1)
    said = tuning_statement(summarize(found), ("a", "b"), 0.05)
    assert said.startswith("1 of 192 units (0.5%) tell a from b")
    claims = {one.measure: one for one in findings(summarize(found), found)}
    decoder = claims[Measure.DECODER_ACCURACY]
    outside = decoder.observed > decoder.null_high
    assert decoder.claimed == (decoder.p <= decoder.alpha) == (decoder.reading == Reading.ABOVE) == outside
    assert claims[Measure.TUNED_SHARE].observed == pytest.approx(1 / 192)
    for measure in (Measure.TUNED_SHARE, Measure.REPLICATION_RATE):  # without a p nothing is claimed
        assert (claims[measure].claimed, claims[measure].reading) == (False, Reading.NOT_AVAILABLE)
        assert claims[measure].effect > 0


def test_without_the_wire_nothing_is_found(tmp_path: Path) -> None:
    found = tuned(planted(wired=False), tmp_path)
    assert found.units["tuned"].sum() == 0
    summary = summarize(found)
    assert summary["tuned_units"] == 0
    assert "Null result" in tuning_statement(summary, ("a", "b"), 0.05)
    assert summary["decoder"]["all"]["p"] > 0.05
    claims = {one.measure: one.claimed for one in findings(summary, found)}
    assert not any(claims.values())
    assert set(claims) == {Measure.TUNED_SHARE, Measure.REPLICATION_RATE, Measure.DECODER_ACCURACY}


@pytest.mark.slow
def test_shuffled_labels_keep_both_error_rates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """200 shuffles of the labels, through the whole analysis; a true unit is left for the false-discovery rate.

    But for the concordance, which rejects nothing and takes most of the time.
    """
    monkeypatch.setattr(analysis, "concordance", lambda comparison: None)
    monkeypatch.setattr(analysis, "_concordance_tables", lambda found, units: (pd.DataFrame(), pd.DataFrame()))
    subject, data = planted(wired=True), token_words()
    store = stored(subject, data, [("mlp_pre", 1)], tmp_path, tokens=1024)
    plain = np.array(data.labels, dtype=bool)
    rng = np.random.default_rng(0)
    quick = TuningSettings(splits=1, folds=2, permutations=20, top=1)
    families, permuted, false_shares, replicated = [], [], [], []
    for _ in range(200):
        labels = rng.permutation(plain)
        x = np.array(store["mlp_pre", 1])[:, :48]
        x[:, 7] = np.where(labels, 1.0, -1.0) + rng.normal(size=len(x))  # true under these labels too
        words = Words(labels, tuple(map(str, range(len(labels)))), None, np.ones(len(labels), dtype=np.int64))
        found = analyse(held(x, tmp_path), words, sizes_of(x), quick)
        false = found.units.drop(index=7)
        families.append((false["welch_p_bonferroni"] <= 0.05).any())
        permuted.append((false["p_permutation"] <= 0.05).any())
        false_shares.append(false["tuned"].sum() / max(found.units["tuned"].sum(), 1))
        replicated.append(found.units.loc[7, "tuned"])
    error = 3 * np.sqrt(0.05 * 0.95 / 200)
    assert np.mean(families) <= 0.05 + error
    assert np.mean(permuted) <= 0.05 + error
    assert np.mean(false_shares) <= 0.05 + error
    assert np.mean(replicated) == 1  # and the check sees what is there


def held(x: np.ndarray, folder: Path) -> Store:
    """Made-up activations of one layer, in a store; the geometry has as many neurons as there are columns."""
    store = Store(sizes_of(x), [("mlp_pre", 0)], len(x), memory=1e9, folder=folder, dtype="float64")
    store.add(("mlp_pre", 0), range(len(x)), x)
    return store


def sizes_of(x: np.ndarray) -> Geometry:
    return Geometry("gpt2", 2, 6, x.shape[1], 2, 2, 3, 32, False)


def test_the_error_rates_hold_over_200_shuffles(tmp_path: Path) -> None:
    """Any unit that the corrected t-tests find under shuffled labels, on the subject's own activations, is false."""
    store = stored(planted(wired=False), token_words(), [("mlp_pre", 1)], tmp_path, tokens=1024)
    x, rng = np.array(store["mlp_pre", 1]), np.random.default_rng(1)
    labels = np.stack([rng.permutation(np.repeat([False, True], CLASSES)) for _ in range(200)], axis=1)
    p = regrouped_welch(x, ~labels, labels).p
    error = 3 * np.sqrt(0.05 * 0.95 / 200)
    for method in ("bonferroni", "bh"):
        assert np.mean([(correct(column, method) <= 0.05).any() for column in p.T]) <= 0.05 + error
    assert 0.03 < (p <= 0.05).mean() < 0.07
    assert (p <= 0.05).any(axis=0).mean() > 0.5  # uncorrected, it is another matter


# halves, folds, strata, pairs


def grouped(pairs: bool = False) -> tuple[np.ndarray, Words]:
    rng = np.random.default_rng(1)
    labels = np.tile([False, True], 20)
    names = tuple(f"w{number // 2}" for number in range(40))
    base = np.repeat(rng.normal(size=(20, 6)) * 10, 2, axis=0)
    x = base + rng.normal(size=(40, 6)) * 0.1
    x[:, 2] += labels * 0.3
    return x, Words(labels, names, names if pairs else None, np.tile([1, 2], 20)[np.argsort(np.tile([0, 1], 20))])


def test_words_are_never_split_between_halves_or_folds() -> None:
    _, words = grouped()
    plan = make_plan(words, TuningSettings(splits=10, permutations=20))
    for half in plan.halves.T:
        assert len({(name, bool(inside)) for name, inside in zip(words.groups, half, strict=True)}) == 20
        assert 18 <= half.sum() <= 22
    fold = plan.folds.held_out
    assert len(set(zip(words.groups, fold.tolist(), strict=True))) == 20
    for column in plan.folds.labels.T:
        for number in range(5):
            assert column[fold == number].sum() == words.labels[fold == number].sum()


def test_real_pairs_get_the_paired_test_and_others_never(tmp_path: Path) -> None:
    x, words = grouped(pairs=True)
    paired = analyse(held(x, tmp_path), words, sizes_of(x), FAST)
    assert paired.test == "paired_p"
    assert paired.units["tuned"].tolist() == [False, False, True, False, False, False]
    reference = compare(x, words.labels, pairs=np.array(words.pairs)).table
    assert np.allclose(paired.units["paired_t"], reference["paired_t"])
    _, loose = grouped()
    unpaired = analyse(held(x, tmp_path), loose, sizes_of(x), FAST)
    assert unpaired.test == "welch_p"
    assert unpaired.units["paired_p"].isna().all()
    assert not unpaired.units["tuned"].any()
    assert paired.replication["rate"].mean() > 0.7


def test_heads_have_addresses_and_decoders_of_their_own(subject: Subject, tmp_path: Path) -> None:
    data = data_of("abcdefghijklmnop", [0, 1] * 8)
    store = stored(subject, data, [("z", 0), ("resid_post", 0)], tmp_path)
    found = analyse(store, words_of(data, [1] * 16), subject.geometry, FAST)
    z = found.units[found.units["site"] == "z"]
    assert (z["head"] * 6 + z["dim"] == z["index"]).all()
    assert found.units.loc[found.units["site"] == "resid_post", "head"].isna().all()
    assert found.decoders["scope"].value_counts().to_dict() == {"head": 4, "layer": 2, "site": 2, "all": 1}
    heads = found.decoders[found.decoders["scope"] == "head"]
    assert (heads["units"] == 6).all()
    assert found.decoders.set_index("scope").loc["all", "units"] == 48
    assert found.shares["scope"].value_counts().to_dict() == {"head": 4, "layer": 2}
    assert found.strata["subtokens"].unique().tolist() == [1]


def test_words_that_became_sinks_are_counted(tmp_path: Path) -> None:
    x, words = grouped()
    x[3] *= 1000
    found = analyse(held(x, tmp_path), words, sizes_of(x), FAST)
    assert found.shares["far_words"].tolist() == [1]
    assert "1 words lie ten times" in tuning_statement(summarize(found), ("a", "b"), 0.05)


def test_settings_refuse() -> None:
    for wrong in ({"splits": 0}, {"folds": 1}, {"permutations": 3}, {"top": 0}, {"alpha": 1.0}, {"C": 0.0}):
        with pytest.raises(InputError) as caught:
            TuningSettings(**wrong)
        assert caught.value.key == next(iter(wrong))


# the heat map


def test_heat_map_reads_every_token_behind_begin_of_text(subject: Subject, tmp_path: Path) -> None:
    unit = Unit.parse("mlp_pre.1[5]")
    ids = encoded(subject, "a <b>\n&", before=(256,))
    drawn = heat_map(subject, unit, ids, Scale(0.0, 0.01, -1.0, ("noun", "verb")), before=(256,))
    own = subject.run(subject.embedding_matrix[torch.tensor([ids])], [("mlp_pre", 1)])["mlp_pre", 1][0, 1:, 5]
    assert drawn.tokens["activation"].tolist() == pytest.approx(own.tolist(), rel=1e-12)
    assert drawn.tokens["score"].tolist() == pytest.approx((-own / 0.01).tolist(), rel=1e-12)
    assert drawn.tokens["token"].tolist() == list("a <b>\n&")
    page = heat_map_html(drawn)
    assert page.count("<span") == 7
    assert "&lt;" in page
    assert "&amp;" in page
    assert "<script" not in page
    assert "://" not in page
    text = heat_map_text(drawn.tokens, drawn.title)
    stream = io.StringIO()
    show(Page("q", first=(text,)), Console(file=stream, width=120))
    assert stream.getvalue() == f"{drawn.title}\na <b>\n&\n"
    scores = np.clip(-own.numpy() / 0.01 / 2, -1, 1)  # full colour two standard deviations from the middle
    assert [token.score for token in text.tokens] == pytest.approx(scores.tolist(), rel=1e-12)


def test_text_of_a_heat_map(subject: Subject, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("from a file", encoding="utf-8")
    assert text_of(str(tmp_path / "t.txt")) == "from a file"
    assert text_of("x" * 5000) == "x" * 5000
    with pytest.raises(InputError, match=r"^text="):
        text_of("  ")
    (tmp_path / "b.txt").write_bytes(b"\xff")
    with pytest.raises(InputError, match="UTF-8"):
        text_of(str(tmp_path / "b.txt"))
    with pytest.raises(InputError, match="must have 1 to 31 tokens, and has 40"):
        encoded(subject, "x" * 40, before=(256,))


# the command line

TINY = ("experiment=nouns_verbs", "subject=tiny", "logger=none", "tuning.layers=0", "tuning.sites=[resid_post,z]")
QUICK = ("tuning.splits=2", "tuning.permutations=20", "tuning.folds=2", "tuning.top=2")


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    file = tmp_path / "mine.csv"
    words = [f"{word},{name}" for name, some in {"p": "abcdef", "q": "ghijkl"}.items() for word in some]
    file.write_text("\n".join(["word,category", *words, "a,p"]) + "\n")
    return file


def test_the_experiment_writes_its_record_and_says_what_it_found(actmax: Actmax, listed: Path) -> None:
    ran = actmax(*TINY, *QUICK, f"tuning.data={listed}", "tuning.text=abc", "tuning.save=true")
    assert ran.code == 0, ran.err
    assert ran.job.parent == ran.folder / "outputs" / "nouns_verbs"
    assert ran.job.name.startswith("tiny_mine_")
    tables = {file.stem: pd.read_parquet(file) for file in ran.job.glob("*.parquet")}
    assert len(tables["tuning"]) == 192
    assert len(tables["words"]) == 12
    assert len(tables["examples"]) == 24
    assert tables["skipped"]["reason"].tolist() == ["duplicate"]
    assert len(tables["replication"]) == 2
    assert set(tables["correlations"]["scope"]) == {"layer", "site", "all"}
    assert {"welch_p_bh", "welch_p_bh_layer", "student_p_bonferroni_layer"} <= set(tables["tuning"])
    assert np.load(ran.job / "activations" / "z.0.npy").shape == (12, 96)
    assert "<html" in (ran.job / "heatmap.html").read_text()
    summary = json.loads((ran.job / "summary.json").read_text())
    assert summary["skipped"] == {"duplicate": 1}
    assert summary["words"] == {"p": 6, "q": 6}
    assert (summary["context"], summary["before"]) == ("bos", ["<|endoftext|>"])
    assert "Verdict. " in ran.out
    assert "Left out. 1 duplicate" in ran.out
    again = actmax(*TINY, *QUICK, f"tuning.data={listed}", "tuning.text=abc", "tuning.save=true")
    assert (again.code, len(again.jobs)) == (0, 1)
    listed.write_text(listed.read_text() + "m,q\n")
    changed = actmax(*TINY, *QUICK, f"tuning.data={listed}", "tuning.text=abc", "tuning.save=true")
    assert changed.code == 2
    assert "another job" in changed.err


@pytest.fixture(scope="module")
def composed() -> Any:
    with initialize_config_dir(str(config.conf_folder()), version_base="1.3"):
        cfg = compose("config", ["experiment=nouns_verbs", "subject=tiny"], return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        return compose("config", ["experiment=nouns_verbs", "subject=tiny"])


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("tuning.sites", ["mlp"], "tuning.sites=mlp:"),
        ("tuning.sites", [], "tuning.sites=[]:"),
        ("tuning.sites", ["z", "z"], "tuning.sites=['z', 'z']:"),
        ("tuning.sites", ["mlp_pre_linear"], "tuning.sites=mlp_pre_linear:"),
        ("tuning.layers", 99, "tuning.layers=99:"),
        ("tuning.layers", "some", "tuning.layers=some:"),
        ("tuning.vector", "first", "tuning.vector=first:"),
        ("tuning.data", "nowhere.csv", "tuning.data=nowhere.csv:"),
        ("tuning.template", "word", "tuning.template='word':"),
        ("tuning.alpha", 0.0, "tuning.alpha=0.0:"),
        ("tuning.C", -1.0, "tuning.C=-1.0:"),
        ("tuning.permutations", 2, "tuning.permutations=2:"),
        ("tuning.splits", 0, "tuning.splits=0:"),
        ("tuning.unit", "seven", "tuning.unit=seven:"),
        ("tuning.unit", "z.0[9999]", "tuning.unit=z.0[9999]:"),
        ("tuning.pair", "lemma", "tuning.pair=lemma:"),
        ("trainer.devices", 2, "trainer.devices=2:"),
    ],
)
def test_bad_input_is_refused_before_anything_heavy(composed: Any, key: str, value: object, named: str) -> None:
    cfg = copy.deepcopy(composed)
    OmegaConf.update(cfg, key, value)
    with pytest.raises(InputError) as caught:
        checked(cfg)
    assert str(caught.value).startswith(named)


def checked(cfg: Any) -> None:
    config.check(cfg)
    config.check_subject(cfg)


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("context.token=<s>", "context.token=<s>"),
        ('tuning.unit="z.3[1]"', "tuning.unit=z.3[1]"),
        ("tuning.group_1=adverb", "tuning.group_1=adverb"),
        ("tuning.text=" + "x" * 70, "must have 1 to 63 tokens, and has 70"),
    ],
)
def test_bad_input_of_a_subject_leaves_nothing(actmax: Actmax, override: str, key: str) -> None:
    ran = actmax(*TINY, *QUICK, override)
    assert ran.code == 2, ran.err
    assert key in ran.err
    assert "Traceback" not in ran.err
    assert not ran.jobs


SAME_WORK = {"tuning.memory": 0.0, "tuning.batch_tokens": 7, "unit.layer": 3, "steps": 7}
OTHER_WORK = {"tuning.vector": "mean", "tuning.layers": [0], "tuning.seed": 1, "subject.seed": 1, "context.token": "a"}


@pytest.mark.parametrize(("overrides", "same"), [(SAME_WORK, True), (OTHER_WORK, False)])
def test_the_folder_names_the_work(composed: Any, overrides: dict[str, Any], same: bool) -> None:
    for key, value in overrides.items():
        cfg = copy.deepcopy(composed)
        OmegaConf.update(cfg, key, value)
        assert (config.job_folder(cfg) == config.job_folder(composed)) == same, key


def test_a_malformed_word_file_is_named_with_its_line(actmax: Actmax, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("word,category\na,p\nb\n")
    ran = actmax(*TINY, *QUICK, "tuning.data=bad.csv")
    assert ran.code == 2
    assert "bad.csv:3=" in ran.err
    assert not ran.jobs


@pytest.mark.slow
def test_nouns_and_verbs_on_the_real_model(actmax: Actmax) -> None:
    ran = actmax("experiment=nouns_verbs", "subject=smollm2", "tuning.layers=[1,15]", "logger=none")
    assert ran.code == 0, ran.err
    summary = json.loads((ran.job / "summary.json").read_text())
    assert summary["compared_units"] == 2 * (1536 + 576)
    assert summary["tuned_share"] > 0.1 > 0.02 > summary["null_tuned_share_layer"]
    assert summary["replication"]["rate"] > 0.5 > 0.1 > summary["replication"]["null_rate_mean"]
    assert summary["decoder"]["all"]["accuracy"] > 0.8 > 0.6 > summary["decoder"]["all"]["null_high"]
    assert summary["far_words"]["layers"] == 0
    (decoder,) = (one for one in summary["findings"] if one["measure"] == Measure.DECODER_ACCURACY)
    assert decoder["claimed"]
    assert decoder["observed"] > decoder["null_high"]


def test_a_tokenizer_that_does_not_say_where_its_tokens_stand_is_refused(subject: Subject) -> None:
    slow = copy.copy(subject.tokenizer)
    slow.__class__ = type("Slow", (type(slow),), {"is_fast": False})
    context = Context("a river", 2, 7, "here")
    assert tokens_of(subject, context, (256,))[1]
    with pytest.raises(InputError, match="where in the text"):
        tokens_of(dataclasses.replace(subject, tokenizer=slow), context, (256,))
