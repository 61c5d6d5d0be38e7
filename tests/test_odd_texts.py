"""Tokenizers, texts and models that differ from GPT-2's: what a person sees of them is right, or refused by name."""

from __future__ import annotations

import dataclasses
import shutil
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from actmax.api import wrap
from actmax.errors import InputError
from actmax.model.context import Context
from actmax.model.settings import ContextSettings
from actmax.model.subject import Subject, byte_tokenizer, load
from actmax.model.target import Unit
from actmax.search.alphabet import Alphabet
from actmax.tasks.examples.find import find_examples
from actmax.tasks.tuning.heatmap import encoded, text_of
from actmax.text.contexts import make_context
from actmax.text.windows import pieces, windows
from actmax.words.encoding import encode
from actmax.words.lists import Reading, find_word, read
from cli import QUICK, Actmax

PLAIN = {"controls": 0, "meaning": {"embedder": "none"}, "transfer": {"draws": 40}}
"""Settings of a search for a job that is done soon."""
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def sentencepiece() -> Any:
    """A tokenizer of Llama's kind: words begin with ▁, what is not known is spelled in bytes."""
    words = ["▁", "▁the", "▁doctor", "▁answered", "▁phone", "ing", "s", "▁s", "e", "r", "▁sing", "a", "▁a", "A"]
    letters = [letter for letter in "bcdfghijklmnopqtuvwxyz" if letter not in words]
    names = ["<unk>", "<s>", "</s>", *BYTES, *words, *letters]
    vocabulary = [(name, -float(number)) for number, name in enumerate(names)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(parts)
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def subject_with(tokenizer: Any, *, rows: int | None = None) -> Subject:
    """A tiny Llama with the tokenizer, and as many embeddings as it has tokens, or as given."""
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    architecture = {"model_type": "llama", "num_key_value_heads": 1, "max_position_embeddings": 64, **sizes}
    size = rows or max(tokenizer.get_vocab().values()) + 1
    made = load(name="odd", source="random", architecture=architecture | {"vocab_size": max(size, 257)})
    if size < 257:
        made.model.resize_token_embeddings(size)
    return dataclasses.replace(made, tokenizer=tokenizer)


@pytest.fixture(scope="module")
def llama() -> Subject:
    return subject_with(sentencepiece())


@pytest.fixture(scope="module")
def plain() -> Subject:
    return subject_with(byte_tokenizer())


class TestTokensAsText:
    def test_a_space_in_front_is_seen_and_a_byte_keeps_its_name(self, llama: Subject) -> None:
        ids = llama.tokens("the doctor answered the phone")
        assert [llama.token(one) for one in ids] == [" the", " doctor", " answered", " the", " phone"]
        names = llama.tokenizer.get_vocab()
        assert llama.token(names["ing"]) == "ing"
        assert llama.token(names["<0x41>"]) == "<0x41>"
        assert llama.token(names["A"]) == "A"
        assert llama.token(names["<s>"]) == "<s>"

    def test_no_two_tokens_are_shown_alike(self, llama: Subject) -> None:
        shown = [llama.token(one) for one in range(len(llama.embedding_matrix))]
        assert len(set(shown)) == len(shown)

    @pytest.mark.parametrize("often", [1, 2, 97])
    def test_spaces_are_seen_where_few_tokens_bring_one(self, often: int) -> None:
        """As in a vocabulary for Chinese or Japanese."""
        words = [chr(0x4E00 + number) for number in range(300)]
        words = [f"▁{word}" if number % often == often - 1 else word for number, word in enumerate(words)]
        tokenizer = Tokenizer(models.Unigram([("<unk>", -9.0), *((word, -1.0) for word in words)], unk_id=0))
        tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        subject = subject_with(PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>"))
        assert [subject.token(token + 1) for token in range(300)] == [word.replace("▁", " ") for word in words]

    def test_a_byte_is_not_shown_as_a_letter_that_has_a_token(self) -> None:
        """In GPT-2's alphabet the byte A9 is called ©, as the text of two bytes that may be a token too."""
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer, tokenizer.decoder = (
            pre_tokenizers.ByteLevel(add_prefix_space=False),
            decoders.ByteLevel(),
        )
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        made = trainers.BpeTrainer(vocab_size=258, initial_alphabet=alphabet, show_progress=False)
        tokenizer.train_from_iterator(["© © ®"] * 4, made)
        subject = subject_with(PreTrainedTokenizerFast(tokenizer_object=tokenizer))
        (letter,), byte = subject.tokens("©"), subject.tokenizer.get_vocab()["©"]
        assert (subject.token(letter), subject.token(byte)) == ("©", f"© [id {byte}]")
        shown = [subject.token(one) for one in range(len(subject.embedding_matrix))]
        assert len(set(shown)) == len(shown)

    def test_two_tokens_of_one_text_are_told_apart(self) -> None:
        vocabulary = {"<unk>": 0, "s": 1, "o": 2, "o</w>": 3, "s</w>": 4}
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", end_of_word_suffix="</w>"))
        tokenizer.decoder = decoders.BPEDecoder(suffix="</w>")
        subject = subject_with(PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>"))
        shown = [subject.token(one) for one in range(6)]
        assert len(set(shown)) == 6
        assert shown[5] == "[id 5]"

    def test_bytes_of_gpt2s_kind_are_shown_as_before(self, plain: Subject) -> None:
        assert [plain.token(one) for one in plain.tokens(" a é")] == [" ", "a", " ", "Ã", "©"]

    def test_rows_without_a_token_are_shown_by_number_and_are_no_text(self) -> None:
        vocabulary = {"a": 0, "b": 5, "c": 290}  # unused ids in the middle, and rows behind the last
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="a"))
        tokenizer.decoder = decoders.Fuse()
        subject = subject_with(PreTrainedTokenizerFast(tokenizer_object=tokenizer), rows=300)
        assert [subject.token(one) for one in (0, 5, 7, 295)] == ["a", "b", "[id 7]", "[id 295]"]
        assert subject.plain_tokens.tolist() == [0, 5, 290]


class TestSearch:
    def test_pieces_count_where_a_text_can_hold_them(self, llama: Subject) -> None:
        names = llama.tokenizer.get_vocab()
        usable = set(Alphabet(llama).ids.tolist())
        for name in ("▁the", "▁sing", "ing", "s"):
            assert names[name] in usable, name
        assert names["<0x41>"] not in usable  # A is a token of its own
        assert names["<s>"] not in usable
        alphabet = Alphabet(llama)
        typed, lost = llama.tokens("singing the phones"), [names["ing"], names["▁the"]]
        assert alphabet.accepts([tuple(typed), tuple(lost)]) == [True, False]

    def test_a_first_word_behind_begin_of_text(self, llama: Subject) -> None:
        """Decoded behind a special token a word shows its space, and the tokenizer would put another in front."""
        names = llama.tokenizer.get_vocab()
        begin, typed, lost = names["<s>"], llama.tokens("singing the phones"), [names["ing"], names["▁the"]]
        assert llama.text([begin, *typed]) == "<s> singing the phones"
        for before in ((begin,), (begin, names["▁the"]), (names["▁the"],)):
            assert Alphabet(llama, context=Context("prefix", (before,))).accepts([tuple(typed)]) == [True], before
        assert Alphabet(llama, context=Context("bos", ((begin,),))).accepts([tuple(lost)]) == [False]
        merged = Alphabet(llama, context=Context("prefix", ((begin, names["▁"]),)))
        assert merged.accepts([(names["s"],)]) == [False]  # both become ▁s

    def test_a_search_behind_begin_of_text(self, llama: Subject) -> None:
        lm = wrap(llama.model, llama.tokenizer)
        found = lm.search("resid_post.1[3]", passes=60, seeds=2, tokens=3, progress=False, gap={"draws": 40}, **PLAIN)
        assert found.summary["context"] == "bos"
        model: Any = llama.model
        for _, row in found.table("restarts").iterrows():
            tokens = found.table("tokens").query(f"seed == {row.seed}").sort_values("position").token_id.tolist()
            ids = torch.tensor([[llama.tokenizer.bos_token_id, *tokens]])
            assert row.text == llama.text(tokens)
            with torch.no_grad():
                after = model.model(input_ids=ids, output_hidden_states=True).hidden_states[1]
                last = model.model.layers[1](
                    after, position_embeddings=model.model.rotary_emb(after, torch.arange(4)[None])
                )
            assert float(last[0, 1:, 3].mean()) == pytest.approx(row.activation_final, abs=1e-6)

    def test_pieces_of_words_that_a_space_is_put_before(self, plain: Subject) -> None:
        """GPT-2's bytes with `add_prefix_space`: `ing` by itself comes back as ` ing`."""
        tokenizer, alphabet = Tokenizer(models.BPE()), pre_tokenizers.ByteLevel.alphabet()
        tokenizer.pre_tokenizer, tokenizer.decoder = (
            pre_tokenizers.ByteLevel(add_prefix_space=False),
            decoders.ByteLevel(),
        )
        made = trainers.BpeTrainer(vocab_size=280, initial_alphabet=alphabet, show_progress=False)
        tokenizer.train_from_iterator(["singing sang", "walking walks", "the thing"] * 3, made)
        found = {}
        for space in (False, True):
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
            subject = subject_with(PreTrainedTokenizerFast(tokenizer_object=tokenizer))
            found[space] = {subject.token(one) for one in Alphabet(subject).ids.tolist()}
            assert Alphabet(subject).accepts([tuple(subject.tokens(" singing"))]) == [True]
        assert "ing" in found[True] & found[False]
        assert found[True] == found[False]

    def test_pieces_of_words_whose_end_is_marked(self) -> None:
        vocabulary = {
            "<unk>": 0,
            "s": 1,
            "o": 2,
            "g</w>": 3,
            "s</w>": 4,
            "so": 5,
            "o</w>": 6,
            "so</w>": 7,
            "on": 8,
            "n": 9,
        }
        merges = [("s", "o"), ("s", "o</w>")]
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", end_of_word_suffix="</w>"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        tokenizer.decoder = decoders.BPEDecoder(suffix="</w>")
        subject = subject_with(PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>"))
        usable = {subject.tokenizer.convert_ids_to_tokens(one) for one in Alphabet(subject).ids.tolist()}
        assert {"so", "so</w>", "g</w>"} <= usable
        assert not {"<unk>", "on"} & usable  # no merge makes it

    def test_a_vocabulary_without_whole_words(self) -> None:
        tokenizer = Tokenizer(models.Unigram([("<unk>", -9.0), ("▁", -1.0), ("a", -2.0), ("b", -2.0)], unk_id=0))
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        parts = [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        tokenizer.decoder = decoders.Sequence(parts)
        subject = subject_with(PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>"))
        assert Alphabet(subject).ids.tolist() == [1, 2, 3]

    def test_an_empty_alphabet_is_refused(self) -> None:
        tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "Ġx": 1}, unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.normalizer = normalizers.Replace("Ġ", "")
        subject = subject_with(PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>"), rows=20)
        with pytest.raises(InputError, match="only_text=True: leaves no token"):
            _ = Alphabet(subject).ids

    def test_a_tokenizer_in_python_is_refused(self, plain: Subject) -> None:
        class Slow:
            is_fast = False

            def __getattr__(self, name: str) -> Any:
                return getattr(plain.tokenizer, name)

        with pytest.raises(InputError, match="needs a fast tokenizer"):
            _ = Alphabet(dataclasses.replace(plain, tokenizer=Slow())).ids


class TestMoreTokensThanRows:
    """A [PAD] was added, and the matrix not resized."""

    @pytest.fixture
    def subject(self, plain: Subject) -> Subject:
        tokenizer = byte_tokenizer()
        tokenizer.add_special_tokens({"pad_token": "[PAD]"})
        return dataclasses.replace(plain, tokenizer=tokenizer)

    def test_a_text_without_it_is_read(self, subject: Subject) -> None:
        assert subject.text(subject.tokens("as ever")) == "as ever"
        assert len(Alphabet(subject).ids) > 90

    def test_a_text_with_it_is_refused_by_name(self, subject: Subject) -> None:
        with pytest.raises(InputError, match=r"\[PAD\].*257"):
            subject.tokens("before [PAD] behind")


DOCUMENTS = "the end.<|endoftext|>A new document begins here.<|endoftext|>"


class TestDocuments:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        (tmp_path / "text.txt").write_text(DOCUMENTS * 3)
        return tmp_path / "text.txt"

    def test_a_window_holds_one_document(self, plain: Subject, file: Path) -> None:
        found = list(windows(plain, [file], size=13, before=(256,)))
        assert all(256 not in window.ids[1:] for window in found)
        texts = [plain.text(window.ids[1:]) for window in found]
        assert texts[:5] == ["the end.", "A new docume", "nt begins he", "re.", "the end."]
        ids = plain.tokens(file.read_text())
        assert all(tuple(ids[one.start : one.start + len(one.ids) - 1]) == one.ids[1:] for one in found)

    def test_a_document_that_ends_at_a_blocks_end(
        self, plain: Subject, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = list(windows(plain, [file], size=13, before=(256,)))
        file.write_text(DOCUMENTS.replace(">", ">\n", 1))
        monkeypatch.setattr("actmax.text.windows.BLOCK", 20)
        assert "\n" in "".join(plain.text(one.ids[1:]) for one in windows(plain, [file], size=13, before=(256,)))
        assert len(whole) == 12

    def test_special_tokens_are_no_example(self, plain: Subject, file: Path) -> None:
        text = windows(plain, [file], size=64, before=(256,))
        found = find_examples(plain, [Unit("resid_post", 1, 3)], text, top=20, seed=0)
        assert "<|endoftext|>" not in set(found.contexts["token"])
        assert found.positions == len(plain.tokens(DOCUMENTS.replace("<|endoftext|>", "") * 3))

    def test_a_text_of_special_tokens_alone_is_refused(self, actmax: Actmax, plain: Subject, tmp_path: Path) -> None:
        for name, text in {"none": "<|endoftext|>" * 2, "one": "<|endoftext|>a<|endoftext|>"}.items():
            (tmp_path / f"{name}.txt").write_text(text)
        unit, text = Unit("resid_post", 1, 3), windows(plain, [tmp_path / "one.txt"], size=8, before=(256,))
        assert find_examples(plain, [unit], text, top=2, seed=0).positions == 1
        ran = actmax("task=examples", "subject=tiny", "examples.text=none.txt", "unit.layer=2", "unit.index=3", *QUICK)
        assert ran.code != 0
        assert "examples.text" in ran.err
        assert "at least one token" in ran.err
        assert "KeyError" not in ran.err

    def test_pieces_for_a_search_hold_none(self, plain: Subject, file: Path) -> None:
        found = pieces(plain, [file], size=6, count=1000, seed=0)
        assert len(found)
        assert not (found == 256).any()
        texts = {plain.text(row) for row in found.tolist()}
        assert "d.A ne" not in texts
        assert "he end" in texts

    def test_tuning_and_heat_maps_take_none(self, plain: Subject, tmp_path: Path) -> None:
        rows = [f"w{letter},{kind}," for kind in ("x", "y") for letter in "abcde"]
        rows = [
            f"{row}{'<|endoftext|> ' if number == 0 else ''}a {row[:2]} b {kind}"
            for number, row in enumerate(rows)
            for kind in [row[3]]
        ]
        (tmp_path / "data.csv").write_text("\n".join(["word,category,context", *rows]))
        found = encode(plain, read(Reading(data=str(tmp_path / "data.csv"))), before=(256,))
        assert found.data.skips.counts["with a special token in its text"] == 1
        assert len(found.data.samples) == 9
        with pytest.raises(InputError, match="endoftext"):
            encoded(plain, DOCUMENTS, before=(256,))
        assert encoded(plain, "the end.", before=(256,))


class TestBlocks:
    """A file is read in blocks; its tokens are those of the whole text, whatever stands at a block's border."""

    @pytest.fixture
    def short(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("actmax.text.windows.BLOCK", 400)
        monkeypatch.setattr("actmax.text.windows.OVERLAP", 40)

    @pytest.mark.parametrize("kind", ["llama", "plain", "merging"])
    @pytest.mark.parametrize(
        "part",
        ["the doctor answered\n", "the doctor sings ", "sing", "e\u0301", "a\r\nthe", "sing the{end}\n", "\n\n  the"],
        ids=["lines", "one line", "one word", "marks", "CRLF", "documents", "empty lines"],
    )
    @pytest.mark.usefixtures("short")
    def test_tokens_are_those_of_the_whole(
        self, request: pytest.FixtureRequest, tmp_path: Path, kind: str, part: str
    ) -> None:
        subject = merging() if kind == "merging" else request.getfixturevalue(kind)
        text, file = part.format(end=subject.tokenizer.eos_token) * 900, tmp_path / "text.txt"
        file.write_bytes(text.encode())
        documents, ends = [[]], subject.boundaries
        for token in subject.tokens(text.replace("\r\n", "\n")):
            documents[-1].append(token)
            if token in ends:
                documents[-1].pop()
                documents.append([])
        expected = [tuple(one[start : start + 13]) for one in documents for start in range(0, len(one), 13)]
        assert [one.ids for one in windows(subject, [file], size=13, before=())] == expected
        assert len(pieces(subject, [file], size=2, count=10**6, seed=0)) == sum(
            max(0, len(one) - 1) for one in documents
        )

    @pytest.mark.usefixtures("short")
    def test_what_never_comes_into_step_is_read_all_the_same(self, tmp_path: Path) -> None:
        subject = merging()
        (file := tmp_path / "text.txt").write_text("s" * 9001)
        read = [token for one in windows(subject, [file], size=64, before=()) for token in one.ids]
        assert subject.text(read) == "s" * 9001


def merging() -> Subject:
    """A tokenizer of bytes that makes one token of two line ends, of three letters s, and of a space's neighbours."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ċ", "Ċ"), ("ĊĊ", "Ġ"), ("s", "s"), ("ss", "s"), ("Ġ", "Ġ")]
    names = [*alphabet, *("".join(pair) for pair in merges), "<end>"]
    tokenizer = Tokenizer(models.BPE(vocab={name: place for place, name in enumerate(names)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return subject_with(PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>"))


def test_a_byte_order_mark_is_no_text(plain: Subject, tmp_path: Path) -> None:
    for name, start in {"with.txt": "\ufeff", "without.txt": ""}.items():
        (tmp_path / name).write_text(f"{start}first line\n{start}second line\n", encoding="utf-8")
    read_ = {
        name: [
            "".join(plain.text(one.ids) for one in windows(plain, [tmp_path / name], size=8, before=())),
            text_of(str(tmp_path / name)),
        ]
        for name in ("with.txt", "without.txt")
    }
    assert read_["with.txt"] == read_["without.txt"]
    assert read_["without.txt"][0] == "first line\nsecond line\n"
    assert text_of("\ufeffOnce upon") == "Once upon"
    contexts = [make_context(plain, ContextSettings("prefix", text=f"{mark}Once"), tokens=2) for mark in ("\ufeff", "")]
    assert contexts[0] == contexts[1]


def lines_run(function: Callable[..., object], *arguments: object) -> int:
    """How many lines of a function itself are run by a call: its steps, without a clock."""
    count, before = 0, sys.gettrace()

    def trace(frame: FrameType, event: str, _: object) -> Callable[..., object] | None:
        nonlocal count
        if frame.f_code.co_name != function.__name__:
            return None
        count += event == "line"
        return trace

    sys.settrace(trace)
    try:
        function(*arguments)
    finally:
        sys.settrace(before)
    return count


class TestWordsInScripts:
    def csv(self, folder: Path, *rows: tuple[str, str]) -> Path:
        others = [(f"{kind}word{number}", kind, f"here {kind}word{number} is") for kind in "xy" for number in range(5)]
        lines = [f"{word},x,{context}" for word, context in rows] + [",".join(one) for one in others]
        (folder / "data.csv").write_text("\n".join(["word,category,context", *lines]), encoding="utf-8")
        return folder / "data.csv"

    def found(self, folder: Path, word: str, context: str) -> str:
        data = read(Reading(data=str(self.csv(folder, (word, context)))))
        (sample,) = [sample for sample in data.samples if sample.word.casefold() == word.casefold()]
        (one,) = sample.contexts
        return one.text[one.start : one.end]

    @pytest.mark.parametrize(
        ("word", "context"),
        [
            ("किताब", "यह किताब अच्छी है"),
            ("Straße", "Die STRASSE ist lang"),
            ("don't", "I don't know"),
            ("re-do", "to re-do it"),
            ("l'eau", "de l'eau froide"),
            ("水", "喝 水 吧"),
            ("cat", "The catalogue has a Cat."),
            ("👍🏽", "ok 👍🏽 yes"),
            ("👩‍💻", "a 👩‍💻 here"),
            ("🇩🇪", "the 🇩🇪 flag"),
            ("❤", "I ❤ you"),
        ],
    )
    def test_the_word_itself(self, tmp_path: Path, word: str, context: str) -> None:
        assert self.found(tmp_path, word, context).casefold() == word.casefold()

    @pytest.mark.parametrize(("word", "context"), [("NFC", "NFD"), ("NFD", "NFC")])
    @pytest.mark.parametrize("text", ["un café noir", "ἐν ᾧ ἐστιν"])  # of one letter there, and three marks on it
    def test_composed_or_not(self, tmp_path: Path, word: str, context: str, text: str) -> None:
        own = text.split()[1]
        found = self.found(tmp_path, unicodedata.normalize(word, own), unicodedata.normalize(context, text))
        assert unicodedata.normalize("NFC", found) == own

    def test_twice_the_text_takes_twice_the_steps(self) -> None:
        """It took their square: two minutes for a text of 100,000 characters."""
        texts = {length: "the quick brown fox " * length + "zebra" for length in (50, 100)}
        steps = [lines_run(find_word, "zebra", text) for text in texts.values()]
        assert [find_word("zebra", text) for text in texts.values()] == [(1000, 1005), (2000, 2005)]
        assert 1.8 * steps[0] < steps[1] < 2.2 * steps[0]

    @pytest.mark.parametrize(
        ("word", "context"),
        [
            ("क", "यह किताब है"),  # a letter whose vowel sign makes it another syllable
            ("e", "cafe\u0301 noir".replace("cafe", "caf e")),  # e, and then an accent
            ("水", "喝水果汁吧"),  # a letter of fruit: no space says where the word ends
            ("ねこ", "ねこまたがいる"),
            ("👍", "ok 👍🏽 yes"),  # a thumb, and its colour
            ("👩", "a 👩‍💻 here"),  # a programmer, whose second half is a computer
            ("💻", "a 👩‍💻 here"),
            ("❤", "I ❤️ you"),
            ("🇩", "the 🇩🇪 flag"),
        ],
    )
    def test_another_word_is_not_taken_for_it(self, tmp_path: Path, word: str, context: str) -> None:
        with pytest.raises(InputError, match="inside a longer run of letters") as caught:
            self.found(tmp_path, word, context)
        assert "CoNLL-U" in str(caught.value)

    def test_a_word_that_is_not_there_is_said_to_be_missing(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="must hold the word 'dog'"):
            self.found(tmp_path, "dog", "a cat")


def test_words_without_a_token_are_left_out(tmp_path: Path) -> None:
    """To a tokenizer of words all that it does not know is one: as samples they would be the same, many times."""
    words = [f"{kind}{letter}" for kind in "xy" for letter in "abcde"]
    (tmp_path / "data.csv").write_text("\n".join(["word,category", *(f"{word},{word[0]}" for word in words)]))
    counted = {}
    for known in (words, words[1:]):
        names = ["<unk>", "<s>", *known]
        tokenizer = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        subject = subject_with(PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>"))
        found = encode(subject, read(Reading(data=str(tmp_path / "data.csv"))), before=(1,))
        counted[len(known)] = len(found.data.samples), found.data.skips.counts["unknown to the tokenizer"]
    assert counted == {10: (10, 0), 9: (9, 1)}


class TestModels:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        sizes = {"n_layer": 2, "n_embd": 16, "n_head": 2, "n_positions": 32}
        made = load(name="m", source="random", architecture={"model_type": "gpt2", **sizes})
        made.model.save_pretrained(tmp_path / "model")
        made.tokenizer.save_pretrained(tmp_path / "model")
        return tmp_path / "model"

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    def test_weights_that_are_no_numbers_are_refused_by_name(self, folder: Path, value: float) -> None:
        whole = load(name="m", path=str(folder))
        whole.model.transformer.h[1].mlp.c_fc.weight[3, 5] = value
        whole.model.save_pretrained(folder)
        with pytest.raises(InputError, match=r"transformer\.h\.1\.mlp\.c_fc\.weight"):
            load(name="m", path=str(folder))

    def test_a_tokenizer_without_a_vocabulary_is_refused(self, folder: Path) -> None:
        assert load(name="m", path=str(folder)).tokens("a")
        for file in folder.glob("tokenizer*"):
            file.unlink()
        Tokenizer(models.BPE()).save(str(folder / "tokenizer.json"))
        (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
        with pytest.raises(InputError, match="vocabulary"):
            load(name="m", path=str(folder))

    def test_text_that_comes_back_longer_than_the_context(self, actmax: Actmax) -> None:
        ran = actmax(*QUICK, "subject=tiny", "unit.layer=2", "unit.index=3", "tokens=40", "steps=2", "seeds=0:3")
        assert ran.code == 0, ran.err
        assert (ran.job / "gaps.parquet").exists()
        shutil.rmtree(ran.job)


class TestRopesThatStretch:
    """Rotary positions that depend on the length of the sequence: here of more than 8 tokens."""

    @pytest.fixture
    def subject(self, request: pytest.FixtureRequest) -> Subject:
        factors = {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "original_max_position_embeddings": 8}
        rope = {"rope_type": request.param, "rope_theta": 1e4, **(factors if request.param == "longrope" else {})}
        sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
        ropes = {"rope_parameters": rope, "max_position_embeddings": 64, "num_key_value_heads": 1}
        made = load(name="odd", source="random", architecture={"model_type": "llama", **ropes, **sizes})
        return dataclasses.replace(made, tokenizer=byte_tokenizer())

    @pytest.mark.parametrize("subject", ["longrope", "default"], indirect=True)
    def test_a_text_behind_the_tokens(self, subject: Subject) -> None:
        """What is read without it, as a causal model does not look there, would be another number."""
        subject.tokenizer.chat_template = "{{ messages[0].content }}{% if add_generation_prompt %}?{% endif %}"
        settings = ContextSettings("chat", chat="ab{tokens}yz")
        assert make_context(subject, settings, tokens=3).after == tuple(subject.tokens("yz?"))  # 8 in all
        if subject.stretches:
            assert subject.unstretched == 8
            with pytest.raises(InputError, match="what stands behind these would change"):
                make_context(subject, settings, tokens=4)
        else:
            assert make_context(subject, settings, tokens=4)

    @pytest.mark.parametrize("subject", ["longrope", "default"], indirect=True)
    def test_tuning_pads_nothing(self, subject: Subject, tmp_path: Path) -> None:
        words = [f"{kind * size},{kind}" for kind in "xy" for size in range(3, 13, 2)]
        (tmp_path / "data.csv").write_text("\n".join(["word,category", *words]))
        lm = wrap(subject.model, subject.tokenizer)
        own = {"save": True, "permutations": 20, "splits": 1, "folds": 2}
        read_ = []
        for padding in (0, 20):
            tuning = {**own, "padding": padding}
            tuned = lm.tune(tmp_path / "data.csv", sites=["resid_post"], layers=1, progress=False, tuning=tuning)
            read_.append(tuned.table("tuning"))
        numbers = [table.select_dtypes("number").to_numpy(dtype=float) for table in read_]
        assert np.allclose(*numbers, atol=1e-4, equal_nan=True)


def test_finite_weights_pass_whatever_their_size() -> None:
    large = subject_with(byte_tokenizer())
    assert torch.isfinite(large.embedding_matrix).all()
    assert np.isfinite(float(large.embedding_matrix.abs().max()))
