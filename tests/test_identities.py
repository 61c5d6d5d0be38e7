"""What is proved of a model at load: it holds in every family, and what is wrong is refused by a wide margin."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from actmax.errors import InputError
from actmax.model import identities as module
from actmax.model.architecture import Geometry, geometry
from actmax.model.families import FAMILIES, Family, Tap
from actmax.model.identities import KEPT, Identity, measure, proved, recognised
from actmax.model.subject import Subject, byte_tokenizer, load, settle
from actmax.weights import cache_folder
from test_families import captured, difference, shaken, the_ids, the_subject
from tiny_families import CASES, LAYERS, SOME

FAR = 1e-2


def failed(found: list[Identity]) -> dict[str, float]:
    """The largest difference of what is refused, by site."""
    worst: dict[str, float] = {}
    for one in found:
        for site in () if one.passed else one.sites:
            worst[site] = max(worst.get(site, 0.0), one.difference)
    return worst


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# ---------------------------------------------------------------- what holds


@pytest.mark.parametrize("name", CASES)
def test_every_identity_holds_in_every_family(name: str) -> None:
    subject = the_subject(name)
    found = measure(subject)
    assert [str(one) for one in found if not one.passed] == []
    assert {site for one in found for site in one.sites} == set(subject.geometry.sites)
    assert max(one.tolerance for one in found if one.name != KEPT) < 1e-12  # float64: rounding makes no more
    assert subject.geometry.refused == ()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", SOME)
def test_in_a_narrower_dtype_too(name: str, dtype: str) -> None:
    subject = load(name=name, source="random", architecture=CASES[name], dtype=dtype)
    shaken(subject.model)
    assert [str(one) for one in measure(subject) if not one.passed] == []


# ---------------------------------------------------------------- what does not


def reread(family: str, monkeypatch: pytest.MonkeyPatch, **taps: Tap) -> None:
    """Plants other taps in a family's entry."""
    entry = FAMILIES[family]
    planted = Family(entry.blocks, entry.final_norm, {**entry.taps, **taps})
    monkeypatch.setitem(FAMILIES, family, planted)


def not_the_same(name: str, read: Subject) -> bool:
    """Whether any site gives another value than by the family's own entry, or none at all."""
    if set(read.geometry.own_sites) - {site for site, _ in captured(name)}:  # it claims sites that are not there
        return True
    places = [place for place in captured(name) if place[0] in read.geometry.own_sites]
    try:
        found = read.run(read.embed(the_ids()), places)
    except (RuntimeError, AttributeError, KeyError, IndexError, InputError):
        return True
    return any(
        value.shape != captured(name)[place].shape
        or value.shape[-1] != read.geometry.width(place[0])
        or difference(value, captured(name)[place]) > FAR
        for place, value in found.items()
    )


def swapped(tap: Tap) -> Tap:
    """The same, its first two coordinates after the others: heads begin where they do not."""

    def columns(sizes: Geometry, tap: Tap = tap) -> Tensor:
        width = sizes.width("v") if tap.columns is None else len(tap.columns(sizes))
        return (torch.arange(width) if tap.columns is None else tap.columns(sizes)).roll(2)

    return dataclasses.replace(tap, columns=columns)


@pytest.mark.parametrize("name", SOME)
class TestWrongEntries:
    def test_another_familys_entry(self, name: str) -> None:
        """Where a site of it gives anything else, it fails by a wide margin; else it is as good."""
        subject, wrong = the_subject(name), 0
        config: Any = subject.model.config.to_dict()  # pyright: ignore
        config = {"max_position_embeddings": 32, "intermediate_size": subject.geometry.d_mlp, **config}
        kinds: dict[Any, Geometry] = {}
        for other in FAMILIES:
            try:
                sizes = geometry(config, like=other)
            except InputError:
                continue
            kinds.setdefault((repr(FAMILIES[other]), dataclasses.replace(sizes, like=None), sizes.own_sites), sizes)
        for sizes in kinds.values():
            read = dataclasses.replace(subject, geometry=sizes)
            worst = failed(measure(read))
            assert (max(worst.values(), default=0.0) > FAR) is not_the_same(name, read), sizes.family
            wrong += bool(worst)
        assert wrong > 5

    def test_attention_for_mlp(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        subject, family = the_subject(name), CASES[name]["model_type"]
        taps = FAMILIES[family].taps
        reread(family, monkeypatch, attn_out=taps["mlp_out"], mlp_out=taps["attn_out"])
        worst = failed(measure(subject))
        assert worst["attn_out"] > FAR
        assert not {"resid_pre", "q", "k", "v"} & set(worst)  # the others work

    @pytest.mark.parametrize("site", "qkv")
    def test_heads_that_begin_elsewhere(self, name: str, site: str, monkeypatch: pytest.MonkeyPatch) -> None:
        subject, family = the_subject(name), CASES[name]["model_type"]
        if subject.geometry.kv_heads == 1 and site != "q":
            pytest.skip("one key head is read by all")
        reread(family, monkeypatch, **{site: swapped(FAMILIES[family].taps[site])})
        worst = failed(measure(subject))
        assert set(worst) == {site}
        assert worst[site] > FAR

    @pytest.mark.parametrize(("one", "other"), [("q", "k"), ("k", "v"), ("q", "v")])
    def test_one_for_the_other(self, name: str, one: str, other: str, monkeypatch: pytest.MonkeyPatch) -> None:
        subject, family = the_subject(name), CASES[name]["model_type"]
        taps = FAMILIES[family].taps
        reread(family, monkeypatch, **{one: taps[other], other: taps[one]})
        worst = failed(measure(subject))
        assert {one, other} <= set(worst)
        assert min(worst[one], worst[other]) > FAR

    def test_the_mlps_branches(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        subject, family = the_subject(name), CASES[name]["model_type"]
        taps = FAMILIES[family].taps
        if "mlp_pre_linear" not in taps:
            pytest.skip("no gate")
        reread(family, monkeypatch, mlp_pre=taps["mlp_pre_linear"], mlp_pre_linear=taps["mlp_pre"])
        worst = failed(measure(subject))
        assert set(worst) == {"mlp_pre", "mlp_pre_linear"}
        assert min(worst.values()) > FAR


def wrong(architecture: str, monkeypatch: pytest.MonkeyPatch, **taps: Tap) -> set[str]:
    reread(CASES[architecture]["model_type"], monkeypatch, **taps)
    return set(failed(measure(the_subject(architecture))))


def test_what_copied_entries_get_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Norms behind attention and MLP, multipliers, and a block that adds in place, each left out."""
    llama, neox = FAMILIES["llama"].taps, FAMILIES["falcon"].taps
    for family in ("gemma2", "gemma3_text", "olmo2", "olmo3", "granite"):
        both = {"attn_out": llama["attn_out"], "mlp_out": llama["mlp_out"]}
        assert {"attn_out", "mlp_out"} <= wrong(family, monkeypatch, **both), family
    plain = dataclasses.replace(neox["mlp_out"], copied=False)
    assert {"attn_out", "mlp_out"} <= wrong("falcon", monkeypatch, mlp_out=plain)


def test_an_embedding_that_is_not_what_the_model_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gemma's module multiplies: the weight's rows are something else, and then nothing of the model is right."""
    subject = the_subject("gemma")
    monkeypatch.setattr(Subject, "embed", lambda self, ids: self.embedding_weight[ids.to(self.device)])
    worst = failed(measure(subject))
    assert set(worst) == set(subject.geometry.own_sites)
    assert worst["resid_pre"] > FAR
    assert failed(measure(the_subject("llama"))) == {}


def test_scores_that_are_not_the_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Subject, "_scaled", lambda self, scores: scores)
    for name in ("cohere", "granite", "gemma2"):
        assert failed(measure(the_subject(name)))["final_norm"] > FAR
    assert failed(measure(the_subject("llama"))) == {}


# ---------------------------------------------------------------- what is refused


@pytest.fixture
def mistaken(monkeypatch: pytest.MonkeyPatch) -> Subject:
    """A Llama whose `v` is read at the keys' projection."""
    reread("llama", monkeypatch, v=FAMILIES["llama"].taps["k"])
    monkeypatch.setattr(module, "_code", lambda: "another table")
    return proved(dataclasses.replace(the_subject("llama")))


def test_a_site_whose_identity_fails_is_refused_and_the_others_work(mistaken: Subject) -> None:
    with pytest.raises(InputError, match=r"^site=v: .*turning v of a head.* off by [0-9.]+.* It has resid_pre, .*"):
        mistaken.geometry.check_site("v")
    with pytest.raises(InputError, match="turning v"):
        mistaken.run(torch.zeros(1, 2, 24), [("v", 0)])
    assert set(mistaken.geometry.own_sites) - set(mistaken.geometry.sites) == {"v"}
    found = mistaken.run(torch.zeros(1, 2, 24), [("k", 0), ("resid_post", 1)])
    assert len(found) == 2


def test_where_kept_keys_are_wrong_passes_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    from actmax.model.context import Context

    subject = dataclasses.replace(the_subject("llama"))
    before = Context("prefix", before=((5, 6),))
    embedded = subject.embed(torch.tensor([[7, 8]]))
    expected = subject.run(embedded, [("resid_post", 2)], context=before)["resid_post", 2]
    begin = Subject.begin

    def late(self: Subject, context: Any, places: Any, *, rows: int) -> Any:
        cache = begin(self, context, places, rows=rows)
        for layer in cache.layers:
            layer.values = layer.values * 1.01
        return cache

    monkeypatch.setattr(Subject, "begin", late)
    monkeypatch.setattr(module, "_code", lambda: "late")
    careful = proved(subject)
    assert not careful.keeps_keys
    assert careful.geometry.refused == ()
    found = careful.run(embedded, [("resid_post", 2)], context=before)["resid_post", 2]
    assert (found - expected).abs().max() < 1e-6
    assert (subject.run(embedded, [("resid_post", 2)], context=before)["resid_post", 2] - expected).abs().max() > 1e-4


# ---------------------------------------------------------------- kept


class TestKept:
    @pytest.fixture
    def counted(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Subject]:
        monkeypatch.setenv("ACTMAX_CACHE", str(tmp_path))
        asked: list[Subject] = []

        def count(subject: Subject) -> list[Identity]:
            asked.append(subject)
            return measure(subject)

        monkeypatch.setattr(module, "measure", count)
        return asked

    def load(self, **changes: Any) -> Subject:
        return load(name="t", source="random", architecture={**CASES["llama"], "mlp_bias": False}, **changes)

    def test_the_second_time_nothing_is_measured(self, counted: list[Subject]) -> None:
        sites = [self.load().geometry for _ in range(3)]
        assert len(counted) == 1
        assert sites[0] == sites[1] == sites[2]

    def test_other_weights_dtypes_and_code_are(self, counted: list[Subject], monkeypatch: pytest.MonkeyPatch) -> None:
        for changes in ({}, {"seed": 1}, {"dtype": "float64"}, {"attention": "eager"}):
            self.load(**changes)
        assert len(counted) == 4
        monkeypatch.setattr(module, "_code", lambda: "other")
        self.load()
        assert len(counted) == 5

    @pytest.mark.parametrize("content", ["", "{}", "cut", "changed"])
    def test_a_damaged_file_is_made_anew(self, counted: list[Subject], content: str) -> None:
        self.load()
        (file,) = (cache_folder() / "identities").iterdir()
        whole = file.read_text()
        rows = json.loads(whole)
        rows["identities"][0]["difference"] = 1.0
        file.write_text({"cut": whole[:100], "changed": json.dumps(rows)}.get(content, content))
        assert self.load().geometry.refused == ()
        assert len(counted) == 2
        assert file.read_text() == whole

    def test_a_folder_that_cannot_be_written_stops_nothing(
        self, counted: list[Subject], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv("ACTMAX_CACHE", str(tmp_path / "file"))
        assert self.load().geometry.sites
        assert self.load().geometry.sites
        assert len(counted) == 2

    def test_nothing_is_left_in_the_model(self, counted: list[Subject]) -> None:
        subject = self.load()
        before = {name: weight.clone() for name, weight in subject.model.named_parameters()}
        random = torch.random.get_rng_state()
        measure(subject)
        kinds = ("_forward_hooks", "_forward_pre_hooks")
        assert not any(getattr(one, kind) for one in subject.model.modules() for kind in kinds)
        assert all(torch.equal(weight, before[name]) for name, weight in subject.model.named_parameters())
        assert torch.equal(torch.random.get_rng_state(), random)
        assert len(subject._keys) <= 1


ON_A_CPU = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"


@pytest.mark.parametrize("error", [RuntimeError(ON_A_CPU), torch.OutOfMemoryError("CUDA out of memory")])
def test_a_lack_of_memory_says_nothing_of_the_model(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = the_subject("gpt2")

    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Subject, "run", broken)
    with pytest.raises(type(error), match="memory"):
        measure(subject)
    error = ValueError("shapes differ")  # which does
    assert failed(measure(subject)) != {}


# ---------------------------------------------------------------- families that are not known


def model_of(model_type: str, **changes: Any) -> Any:
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    sizes = {"hidden_size": 24, "num_hidden_layers": LAYERS, "num_attention_heads": 4, "num_key_value_heads": 2}
    sizes |= {"head_dim": 6, "intermediate_size": 40, "vocab_size": 257, "max_position_embeddings": 32}
    config = CONFIG_MAPPING[model_type](**sizes, pad_token_id=None, bos_token_id=256, eos_token_id=256, **changes)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float64)
    shaken(model)
    model.requires_grad_(False).eval()
    settle(model)
    return model


def read_as(model: Any) -> Subject:
    make = partial(Subject, "new", "in memory", None, model, byte_tokenizer())
    return recognised(make, model.config.to_dict())


@pytest.mark.parametrize(
    ("model_type", "family"),
    [("seed_oss", "llama"), ("helium", "llama"), ("exaone4", "olmo2"), ("cohere2", "cohere"), ("arcee", "mixtral")],
)
def test_an_unknown_family_is_read_as_the_one_whose_identities_hold(model_type: str, family: str) -> None:
    model = model_of(model_type)
    subject = read_as(model)
    assert (subject.geometry.model_type, subject.geometry.family) == (model_type, family)
    ids = torch.tensor([[5, 6, 7, 8]])
    truth = model(input_ids=ids, output_hidden_states=True, use_cache=False)
    found = subject.run(subject.embed(ids), [("resid_pre", 2), ("final_norm", None), ("attn_out", 1)])
    assert torch.allclose(found["resid_pre", 2], truth.hidden_states[2], rtol=0, atol=1e-10)
    assert torch.allclose(subject.logits(found["final_norm", None]), truth.logits, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", SOME)
def test_a_known_family_is_found_without_its_entry(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read as another, or as itself; either way all that is said of it holds."""
    subject = the_subject(name)
    found = read_as(subject.model)
    assert failed(measure(found)) == {}
    assert {"resid_pre", "resid_post", "attn_out", "mlp_out", "q", "k", "v", "z"} <= set(found.geometry.sites)


@pytest.mark.parametrize(("model_type", "reason"), [("glm4", "attn_out"), ("bitnet", "turning q|attn_out|z through")])
def test_what_fits_none_is_refused_with_the_identity_and_how_to_add_it(model_type: str, reason: str) -> None:
    with pytest.raises(InputError, match=rf"^config={model_type}: .*read as \w+, .*({reason}).*docs/families\.md"):
        read_as(model_of(model_type))


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, MambaConfig

    model: Any = AutoModelForCausalLM.from_config(
        MambaConfig(vocab_size=257, hidden_size=16, num_hidden_layers=1, state_size=4)
    )
    model.save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"^config=mamba: .*FAMILIES"):
        load(name="m", path=str(tmp_path))


def test_an_unknown_family_in_a_folder_is_loaded(tmp_path: Path) -> None:
    model = model_of("seed_oss")
    model.save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    subject = load(name="s", path=str(tmp_path), dtype="float64")
    assert subject.geometry.like == "llama"
    with pytest.raises(InputError, match=r"site=resid"):
        subject.geometry.check_site("resid")
