"""What stands around the tokens, made of settings; what merges with it; what a command says where it cannot be had."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from actmax.errors import InputError
from actmax.model.context import NONE, Context
from actmax.model.objective import Objective, Row
from actmax.model.settings import ContextSettings
from actmax.model.subject import Subject
from actmax.model.target import Unit
from actmax.search.alphabet import Alphabet
from actmax.search.restarts import search
from actmax.search.settings import SearchSettings
from actmax.text import contexts
from actmax.text.contexts import begin_token, make_context
from actmax.text.files import SAMPLE
from actmax.text.typed import Typed
from cli import QUICK, Actmax

END = "<|endoftext|>"


MERGES = (("a", "b"), ("b", "c"), ("Ġ", "a"), ("Ġ", "b"), ("Ġ", "ab"))


def merging(
    subject: Subject,
    merges: Sequence[tuple[str, str]] = MERGES,
    *,
    template: str | None = None,
    bos: bool = True,
) -> Subject:
    """The tiny subject with a tokenizer that merges: `ab`, `bc`, and a space with the letter behind it."""
    names = [*"abcdefgh", "Ġ", *("".join(pair) for pair in merges)]
    vocabulary = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    ends = {"bos_token": END, "eos_token": END} if bos else {}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **ends)
    fast.chat_template = template
    return dataclasses.replace(subject, tokenizer=fast)


def made(subject: Subject, tokens: int = 3, **options: Any) -> Context:
    return make_context(subject, ContextSettings(**options), tokens=tokens)


class TestMade:
    def test_of_each_kind(self, subject: Subject) -> None:
        assert made(subject, name="none") == NONE
        assert made(subject, name="bos") == Context("bos", ((256,),))
        assert made(subject, name="prefix", text="Hi") == Context("prefix", ((256, *subject.tokens("Hi")),))
        assert made(subject, name="prefix", text="Hi", begin=False).before == (tuple(subject.tokens("Hi")),)
        assert made(subject, name="bos", token="a").before == (tuple(subject.tokens("a")),)

    def test_auto_is_what_the_task_says_and_nothing_where_there_is_no_begin_of_text(self, subject: Subject) -> None:
        settings, bare = ContextSettings(), merging(subject, bos=False)
        assert make_context(subject, settings, tokens=3, default="none") == NONE
        assert make_context(subject, settings, tokens=3, default="bos").name == "bos"
        assert make_context(bare, settings, tokens=3, default="bos") == NONE
        with pytest.raises(InputError, match=r"token=None: must name a token of tiny.*context=none"):
            made(bare, name="bos")
        # a prefix needs no begin-of-text
        assert made(bare, name="prefix", text="abc").before == (tuple(bare.tokens("abc")),)

    def test_windows_are_of_one_length_apart_and_the_same_again(self, subject: Subject, tmp_path: Path) -> None:
        text = "".join(chr(97 + number * number // 7 % 26) for number in range(200))
        (tmp_path / "a.txt").write_text(text)
        options: dict[str, Any] = {"name": "text", "texts": str(tmp_path), "windows": 6, "window": 11}
        found = made(subject, **options)
        assert found.count == len(set(found.before)) == 6
        assert {len(one) for one in found.before} == {11}
        assert {one[0] for one in found.before} == {256}
        assert all(subject.text(one[1:]) in text for one in found.before)
        assert made(subject, **options) == found
        assert made(subject, **options, seed=1) != found
        rest = make_context(subject, ContextSettings(**options), tokens=3, apart=set(found.before))
        assert not set(rest.before) & set(found.before)

    def test_the_sample_has_windows_enough(self, subject: Subject) -> None:
        assert made(subject, name="text").count == 8
        assert len(SAMPLE.read_text().split()) > 2000
        assert SAMPLE.read_text().isascii()

    def test_a_chat_stands_on_both_sides(self, subject: Subject) -> None:
        template = "ab{{ messages[0]['content'] }}ef{% if add_generation_prompt %}gh{% endif %}"
        chat = merging(subject, template=template)
        found = made(chat, name="chat", chat="c{tokens}d")
        assert (chat.text(found.before[0]), chat.text(found.after)) == ("abc", "defgh")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"name": "prefix"}, r"text=None: must be the text before the tokens"),
            ({"name": "chat"}, r"chat=None: must hold \{tokens\} once"),
            ({"name": "chat", "chat": "no place"}, r"chat=no place: must hold \{tokens\} once"),
            ({"name": "chat", "chat": "{tokens}{tokens}"}, r"must hold \{tokens\} once"),
            ({"name": "chat", "chat": "{tokens}"}, r"name=chat: cannot be had: .* no chat template.*context=prefix"),
            ({"name": "prefix", "text": "x" * 29}, r"text=x+: is 30 tokens, which with 3 optimized ones do not fit"),
            ({"name": "text", "window": 30}, r"window=30: is 30 tokens, which with 3"),
            ({"name": "text", "windows": 10_000}, r"windows=10000: must be at most \d+, the windows of 16 tokens"),
            ({"name": "text", "texts": "nowhere"}, r"texts=nowhere: must be a text file or a folder"),
            ({"name": "bos", "token": "<s>"}, r"token=<s>: must be a token of tiny"),
            ({"name": "other"}, r"name=other: must be one of auto, none, bos"),
            ({"name": "text", "window": 1}, r"window=1: must be at least 2"),
        ],
    )
    def test_what_cannot_be_had(self, subject: Subject, options: dict[str, Any], message: str) -> None:
        with pytest.raises(InputError, match=message):
            made(subject, **options)

    def test_a_text_shorter_than_a_window(self, subject: Subject, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("too short")
        with pytest.raises(InputError, match=r"window=16: must be no longer than a.txt"):
            made(subject, name="text", texts=str(tmp_path / "a.txt"))

    def test_a_template_that_drops_or_repeats_the_message(self, subject: Subject) -> None:
        for template, times in (("nothing", 0), ("{{ messages[0]['content'] }}{{ messages[0]['content'] }}", 2)):
            with pytest.raises(InputError, match=f"it is there {times} times"):
                made(merging(subject, template=template), name="chat", chat="{tokens}")
        with pytest.raises(InputError, match="the chat template refuses it"):
            made(merging(subject, template="{{ raise_exception('no') }}"), name="chat", chat="{tokens}")

    def test_a_begin_of_text_that_the_model_has_no_embedding_for(self, subject: Subject) -> None:
        other = merging(subject)
        other.tokenizer.add_tokens([f"<{number}>" for number in range(300)])
        name = other.tokenizer.convert_ids_to_tokens(280)
        with pytest.raises(InputError, match="must be a token that tiny has an embedding for: its id is 280, of 257"):
            begin_token(other, name)


class TestTyped:
    def test_alone_and_behind_what_merges(self, subject: Subject) -> None:
        toy = merging(subject)
        name = toy.tokenizer.convert_tokens_to_ids
        b, c, spaced = (name("b"),), (name("c"),), (name("Ġb"),)
        assert Typed(toy)([b, c, spaced]) == [True, True, True]
        behind_a = Context("prefix", (tuple(toy.tokens("a")),))
        assert Typed(toy, behind_a)([b, c, spaced]) == [False, True, True]  # a and b become ab
        before_c = Context("chat", ((),), tuple(toy.tokens("c")))
        assert Typed(toy, before_c)([b, c, spaced]) == [False, True, False]  # b and c become bc, also behind a space
        both = Context("text", (tuple(toy.tokens("a")), tuple(toy.tokens("d"))))
        assert Typed(toy, both)([b]) == [False]  # in one of two surroundings
        assert Typed(toy, Context("text", both.before[1:]))([b]) == [True]

    def test_a_piece_that_begins_inside_a_word_is_taken_back_to_where_it_is_itself(self, subject: Subject) -> None:
        toy = merging(subject)
        before = (*toy.tokens("ab"), toy.tokenizer.convert_tokens_to_ids("c"))  # typed, abc would be ab and c
        assert Typed(toy, Context("prefix", (before,)))([tuple(toy.tokens("d"))]) == [True]

    def test_searches_use_only_what_can_be_typed_there(self, subject: Subject) -> None:
        toy = merging(subject)
        behind_a = Context("prefix", (tuple(toy.tokens("a")),))
        settings = SearchSettings("gcg", passes=200, candidates=20, top_k=20)
        rows = [Row(Unit("resid_pre", 2, 5), seed) for seed in range(4)]
        typed = Typed(toy, behind_a)
        for context, allowed in ((behind_a, True), (NONE, False)):
            found = search(toy, Objective(context=context), rows, settings, tokens=2)
            assert all(typed([one.ids for one in found])) or not allowed
        assert Alphabet(toy, context=behind_a).accepts([tuple(toy.tokens("bd"))]) == [False]
        assert Alphabet(toy).accepts([tuple(toy.tokens("bd"))]) == [True]

    def test_ends_that_merge_are_named_or_refused(
        self, subject: Subject, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        toy = merging(subject, [("h", letter) for letter in "abcdefg"])  # 7 of 16 tokens merge behind an h
        with caplog.at_level(logging.WARNING):
            made(toy, name="prefix", text="g")
            assert not caplog.text
            made(toy, name="prefix", text="h")
            assert "context.text: " in caplog.text
            assert "of tokens merge with 'h', as 'a' does" in caplog.text
        monkeypatch.setattr(contexts, "FEW", 0.7)
        made(toy, name="prefix", text="g")
        with pytest.raises(InputError, match=r"text=h: must leave room for tokens: 4\d% of tokens merge with 'h'"):
            made(toy, name="prefix", text="h")


TINY = ("subject=tiny", "unit.layer=2", "unit.index=3", *QUICK)


class TestCommand:
    @pytest.mark.parametrize(
        ("overrides", "key"),
        [
            (("context=prefix",), "context.text=None"),
            (("context=chat", "'context.chat=\"{tokens}\"'"), "context.name=chat"),
            (("context=text", "context.texts=nowhere"), "context.texts=nowhere"),
            (("context=text", "context.windows=5000"), "context.windows=5000"),
            (("context=bos", "'context.token=\"<s>\"'"), "context.token=<s>"),
            (("context=text", "context.windows=0"), "context.windows=0"),
            (("objective.positions=first",), "objective.positions=first"),
        ],
    )
    @pytest.mark.parametrize("task", ["maximization", "search"])
    def test_bad_input_is_one_line_and_leaves_nothing(
        self, actmax: Actmax, task: str, overrides: tuple[str, ...], key: str
    ) -> None:
        ran = actmax(f"task={task}", *TINY, *(one.strip("'") for one in overrides))
        assert ran.code == 2
        (line,) = [line for line in ran.err.splitlines() if line.startswith("actmax: ")]
        assert key in line
        assert not ran.jobs

    @pytest.mark.parametrize("task", ["examples", "tuning"])
    def test_texts_are_read_behind_nothing_begin_of_text_or_a_prefix(
        self, actmax: Actmax, tmp_path: Path, task: str
    ) -> None:
        (tmp_path / "a.txt").write_text("The quick brown fox jumps over the lazy dog. " * 5)
        own = ("examples.text=a.txt", "examples.window=20") if task == "examples" else ("tuning.layers=0",)
        ran = actmax(f"task={task}", *TINY, *own, "context=chat", 'context.chat="{tokens}"')
        assert ran.code == 2
        assert "context.name=chat: must be one of auto, none, bos, prefix" in ran.err

    def test_examples_behind_each(self, actmax: Actmax, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("The quick brown fox jumps over the lazy dog. " * 5)
        positions, before = {}, {}
        for name, more in (("none", ()), ("bos", ()), ("prefix", ("context.text=Hi",))):
            ran = actmax(
                "task=examples", *TINY, "examples.text=a.txt", f"context={name}", *more, f"hydra.run.dir={name}"
            )
            assert ran.code == 0, ran.err
            summary = json.loads((tmp_path / name / "summary.json").read_text())
            positions[name], before[name] = summary["positions"], summary["before"]
            first = pd.read_parquet(tmp_path / name / "contexts.parquet").query("rank == 1")["activation"].item()
            positions[f"{name} highest"] = first
        assert positions["none"] == positions["bos"] == positions["prefix"] == 225
        assert before == {"none": [], "bos": [END], "prefix": [END, "H", "i"]}
        assert len({positions[f"{name} highest"] for name in before}) == 3

    @pytest.mark.slow
    def test_contexts_stand_side_by_side_in_a_sweep(self, actmax: Actmax, tmp_path: Path) -> None:
        ran = actmax(
            "-m", *TINY, "method=none,gcg", "context=none,bos", "seeds='0:3'", "steps=3", "search.passes=60", "sweep=s"
        )
        assert ran.code == 0, ran.err
        assert len(ran.jobs) == 4
        folder = tmp_path / "outputs/s"
        units, methods = (pd.read_parquet(folder / f"{name}.parquet") for name in ("units", "methods"))
        assert sorted(zip(units["prior"], units["context"], strict=True)) == [
            ("gcg", "bos"), ("gcg", "none"), ("none", "bos"), ("none", "none"),
        ]  # fmt: skip
        assert methods[["context", "method"]].to_numpy().tolist() == [
            ["none", "snapped"], ["none", "gcg"], ["bos", "snapped"], ["bos", "gcg"],
        ]  # fmt: skip
        assert set(json.loads((folder / "sweep.json").read_text())["methods"]) == {
            "snapped, none", "gcg, none", "snapped, bos", "gcg, bos",
        }  # fmt: skip
        assert {job.name for job in ran.jobs if "_bos_" in job.name} == {
            job.name
            for job in ran.jobs
            if yaml.safe_load((job / "config.yaml").read_text())["context"]["name"] == "bos"
        }

    def test_restarts_of_several_jobs_are_put_together_in_their_context(self, actmax: Actmax, tmp_path: Path) -> None:
        own = ("task=search", "search.passes=80", "context=prefix", "context.text=Once", *TINY)
        assert actmax("-m", *own, "seeds='0:2','2:4'", "sweep=parts").code == 0
        assert actmax(*own, "seeds='0:4'", "hydra.run.dir=whole").code == 0
        pooled = pd.read_parquet(tmp_path / "outputs/parts/units.parquet").iloc[0]
        whole = pd.read_parquet(tmp_path / "whole/units.parquet").iloc[0]
        assert (pooled["jobs"], pooled["context"]) == (2, "prefix “Once”")
        for name in ("activation_final_mean", "random_activation_mean", "transfer_bos_mean", "transfer_bos_share"):
            assert pooled[name] == pytest.approx(whole[name], rel=1e-5), name
        assert pooled["transfer"] == whole["transfer"]

    def test_auto_and_what_it_stands_for_are_one_job(self, actmax: Actmax) -> None:
        own = ("task=search", "search.passes=40", *TINY, "hydra.run.dir=job")
        assert actmax(*own).code == 0
        again = actmax(*own, "context=bos")
        assert again.code == 0
        assert "complete" in again.err + again.out
        assert actmax(*own, "context=none").code == 2  # another job's record

    def test_a_changed_text_is_another_job(self, actmax: Actmax, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("The quick brown fox jumps over the lazy dog. " * 20)
        own = ("task=search", "search.passes=40", *TINY, "context=text", "context.texts=a.txt", "hydra.run.dir=job")
        assert actmax(*own).code == 0
        assert actmax(*own).code == 0
        (tmp_path / "a.txt").write_text(
            "Another text that has as many windows in it, I hope, as the first one had. " * 20
        )
        assert actmax(*own).code == 2

    def test_the_last_of_the_whole_input_is_read(self, actmax: Actmax, tmp_path: Path) -> None:
        own = ("task=search", "search.passes=60", *TINY, "seeds='0:3'")
        for positions in ("own", "last"):
            ran = actmax(*own, f"objective.positions={positions}", f"hydra.run.dir={positions}")
            assert ran.code == 0, ran.err
        one, two = (pd.read_parquet(tmp_path / name / "restarts.parquet") for name in ("own", "last"))
        assert not set(one["activation_final"]) & set(two["activation_final"])
