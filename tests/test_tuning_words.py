"""Words in: the built-in list, a CSV, CoNLL-U files, and everything that can be wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from actmax.errors import InputError
from actmax.words.conllu import sentences
from actmax.words.lists import Reading, read


def row(number: object, form: str, upos: str = "X", feats: str = "_", lemma: str = "_", misc: str = "_") -> str:
    return f"{number}\t{form}\t{lemma}\t{upos}\t_\t{feats}\t_\t_\t_\t{misc}"


def treebank(folder: Path, *parts: list[str], name: str = "a.conllu") -> Path:
    file = folder / name
    file.write_text("".join("\n".join(part) + "\n\n" for part in parts), encoding="utf-8")
    return file


def listed(folder: Path, *lines: str, header: str = "word,category") -> Path:
    file = folder / "words.csv"
    file.write_text("\n".join([header, *lines, ""]), encoding="utf-8")
    return file


GROUPS = {"a": "one two six ten", "b": "red tan sky sea"}
FOUR = [f"{word},{name}" for name, words in GROUPS.items() for word in words.split()]


def test_the_built_in_list_is_100_against_100_and_balanced() -> None:
    data = read(Reading("nouns_verbs"))
    assert data.categories == ("noun", "verb")
    words = {label: [s.word for s in data.samples if s.label == label] for label in (0, 1)}
    assert [len(set(some)) for some in words.values()] == [100, 100]
    assert not set(words[0]) & set(words[1])
    lengths = [sorted(map(len, some)) for some in words.values()]
    assert sum(lengths[0]) == sum(lengths[1])
    assert data.pairs is None
    assert data.samples[0].contexts[0].text == " academy"
    assert (data.samples[0].contexts[0].start, data.samples[0].contexts[0].end) == (1, 8)


def test_a_csv_with_contexts_and_duplicates(tmp_path: Path) -> None:
    lines = [
        *(line + "," for line in FOUR),
        'Run,a,"They run fast, and run on"',
        'run,b,"A run of luck"',
        'run,b,"A long run"',
        "one,a,",
    ]
    data = read(Reading(str(listed(tmp_path, *lines, header="word,category,context"))))
    assert len(data.samples) == 10
    assert dict(data.skips.counts) == {"duplicate": 1}
    assert data.skips.listed[0].source.endswith("words.csv:13")
    (a, b) = (sample for sample in data.samples if sample.word == "run")
    assert (a.label, b.label, len(b.contexts), a.group) == (0, 1, 2, "run")
    assert [a.contexts[0].text[a.contexts[0].start : a.contexts[0].end], a.contexts[0].start] == ["run", 5]


class TestAccents:
    """An accent may be part of its letter or a character of its own: that makes no other word."""

    WORD, APART = "caf\u00e9", "cafe\u0301"

    @pytest.mark.parametrize("other", [WORD.upper(), APART, APART.upper()], ids=["capitals", "apart", "both"])
    def test_spellings_of_a_word_are_one_sample(self, tmp_path: Path, other: str) -> None:
        data = read(Reading(str(listed(tmp_path, *FOUR, f"{self.WORD},a", f"{other},a", "cafe,a"))))
        assert [sample.word for sample in data.samples].count(self.WORD) == 1
        assert len(data.samples) == 10  # cafe is another word
        (sample,) = (sample for sample in data.samples if sample.word == self.WORD)
        assert [context.text for context in sample.contexts] == [f" {self.WORD}", f" {other}"]

    def test_a_word_of_both_groups_stays_on_one_side(self, tmp_path: Path) -> None:
        lines = [*(f"{line}," for line in FOUR), f"{self.WORD},a,un {self.WORD}", f"{self.APART},b,le {self.APART}"]
        data = read(Reading(str(listed(tmp_path, *lines, header="word,category,context"))))
        assert [sample.group for sample in data.samples].count(self.WORD) == 2

    def test_one_text_in_both_groups_is_refused(self, tmp_path: Path) -> None:
        file = listed(tmp_path, *FOUR, f"{self.WORD},a", f"{self.APART},b")
        with pytest.raises(InputError, match="stands in both groups with the same text"):
            read(Reading(str(file)))

    def test_categories_and_pairs(self, tmp_path: Path) -> None:
        lines = [f"a{n},{self.WORD},{self.WORD}{n}" for n in range(4)]
        lines += [f"b{n},{self.APART if n else self.WORD}s,{self.APART}{n}" for n in range(4)]
        data = read(Reading(str(listed(tmp_path, *lines, header="word,category,pair")), group_0=self.APART))
        assert (data.categories, len(data.samples)) == ((self.WORD, f"{self.WORD}s"), 8)

    def test_annotated_text(self, tmp_path: Path) -> None:
        parts = [[row(1, f"{self.APART if n else self.WORD}", "NOUN", lemma=self.APART)] for n in range(2)]
        parts += [[row(1, f"n{n}", "NOUN", lemma=self.APART)] for n in range(3)]
        parts += [[row(1, f"v{n}", "VERB")] for n in range(4)]
        file = str(treebank(tmp_path, *parts))
        data = read(Reading(file, group_0="upos=NOUN", group_1="upos=VERB"))
        assert len(data.samples) == 8
        assert len(read(Reading(file, group_0=f"lemma={self.WORD}", group_1="upos=VERB")).samples) == 8


def test_pairs_of_a_csv_and_words_without_a_partner(tmp_path: Path) -> None:
    pairs = [f"w{n}s,plural,{n}" for n in range(5)] + [f"w{n},singular,{n}" for n in range(4)]
    data = read(
        Reading(str(listed(tmp_path, *pairs, header="word,category,pair")), group_0="singular", group_1="plural")
    )
    assert data.categories == ("singular", "plural")
    assert data.pairs is not None
    assert sorted(data.pairs) == sorted(["0", "1", "2", "3"] * 2)
    assert dict(data.skips.counts) == {"without a partner": 1}


def test_other_categories_are_left_out_once_two_are_named(tmp_path: Path) -> None:
    data = read(Reading(str(listed(tmp_path, *FOUR, "five,c")), group_0="b", group_1="a"))
    assert (data.categories, dict(data.skips.counts)) == (("b", "a"), {"of category c": 1})


@pytest.mark.parametrize(
    ("lines", "header", "key", "said"),
    [
        (FOUR, "word,class", "words.csv:1", "header"),
        ([*FOUR, "four"], "word,category", "words.csv:10", "2 columns"),
        ([*FOUR, "four,a,b"], "word,category", "words.csv:10", "2 columns"),
        ([*FOUR, ",a"], "word,category", "words.csv:10", "must have a word"),
        ([*FOUR, '"four,a'], "word,category", "words.csv:10", "must be CSV"),
        (FOUR[:4], "word,category", "data", "two categories"),
        ([], "word,category", "data", "two categories"),
        (FOUR[:7], "word,category", "group_1", "at least 4"),
        ([*FOUR, "five,c"], "word,category", "data", "a, b, c"),
        ([*FOUR, "one,b"], "word,category", "words.csv:10", "both groups"),
        ([line + "," for line in FOUR] + ["one,a,nothing"], "word,category,context", "words.csv:10", "hold the word"),
        (["a,x,1", "b,x,1", "c,y,1"], "word,category,pair", "words.csv:3", "pair 1"),
    ],
)
def test_bad_csv(tmp_path: Path, lines: list[str], header: str, key: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        read(Reading(str(listed(tmp_path, *lines, header=header))))
    assert Path(caught.value.key).name == key
    assert said in str(caught.value)


def test_a_csv_that_is_not_text_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "words.csv").write_bytes(b"\xef\xbb\xbfword,category\none,a\n\xff\xfe,a\n")
    with pytest.raises(InputError, match="UTF-8") as caught:
        read(Reading(str(tmp_path / "words.csv")))
    assert caught.value.key.endswith("words.csv:3")


@pytest.mark.parametrize(
    ("reading", "key"),
    [
        (Reading("missing.csv"), "data"),
        (Reading("missing"), "data"),
        (Reading("nouns_verbs", template="word"), "template"),
        (Reading("nouns_verbs", pair="lemma"), "pair"),
        (Reading("nouns_verbs", group_0="noun", group_1="adverb"), "group_1"),
        (Reading("nouns_verbs", group_0="noun", group_1="noun"), "data"),
        (Reading(".", group_0="upos=NOUN", group_1="upos=VERB"), "data"),
    ],
)
def test_bad_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reading: Reading, key: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        read(reading)
    assert caught.value.key == key


def test_conllu_spells_sentences_with_multiword_tokens_and_empty_nodes(tmp_path: Path) -> None:
    rows = [
        "# sent_id = 1",
        "# polarity = negative",
        row("1-2", "Don't", misc="_"),
        row(1, "Do", "AUX"),
        row(2, "n't", "PART"),
        row(3, "go", "VERB", "Mood=Imp|VerbForm=Fin", misc="SpaceAfter=No"),
        row("3.1", "gone", "VERB"),
        row(4, "!", "PUNCT"),
    ]
    (found,) = sentences(treebank(tmp_path, rows))
    assert found.text == "Don't go!"
    assert found.metadata == {"sent_id": "1", "polarity": "negative"}
    assert [word.columns["form"] for word in found.words] == ["Do", "n't", "go", "!"]
    assert [word.span for word in found.words] == [None, None, (6, 8), (8, 9)]
    assert found.words[2].value("Mood") == "Imp"
    assert found.words[2].line == 6
    assert found.source.endswith("a.conllu:3")


def test_conllu_reads_on_over_byte_order_marks_and_windows_lines(tmp_path: Path) -> None:
    file = tmp_path / "w.conllu"
    file.write_bytes(("\ufeff" + row(1, "go", "VERB") + "\r\n\r\n" + row(1, "on", "ADP")).encode())
    assert [sentence.text for sentence in sentences(file)] == ["go", "on"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("2\tgo\tgo", "10 columns"),
        (row(2, "go").replace("\t", "  "), "10 columns"),
        (row(3, "go"), "ids must run on"),
        (row("x", "go"), "ids must be"),
        (row("3-2", "go"), "must end behind"),
        (row(2, ""), "empty column"),
        (row(2, "go", feats="Plur"), "NAME=VALUE"),
    ],
)
def test_malformed_conllu_names_file_and_line(tmp_path: Path, line: str, said: str) -> None:
    file = treebank(tmp_path, [row(1, "I")], ["# a comment", row(1, "You"), line])
    with pytest.raises(InputError, match=said) as caught:
        list(sentences(file))
    assert caught.value.key == f"{file}:5"


def test_conllu_that_is_not_text_names_the_line(tmp_path: Path) -> None:
    file = tmp_path / "a.conllu"
    file.write_bytes(row(1, "go").encode() + b"\n\xff\n")
    with pytest.raises(InputError, match="UTF-8") as caught:
        list(sentences(file))
    assert caught.value.key == f"{file}:2"


def nouns_and_verbs(folder: Path, count: int = 6) -> Path:
    place = folder / "bank"
    place.mkdir(exist_ok=True)
    for part in range(2):
        parts = []
        for n in range(count):
            singular = row(1, f"n{n}", "NOUN", "Number=Sing", f"n{n}")
            plural = row(3, f"n{n}s", "NOUN", "Number=Plur", f"n{n}")
            parts.append([singular, row(2, f"v{n}", "VERB"), plural])
        treebank(place, *parts, name=f"{part}.conllu")
    return place


def test_a_folder_of_conllu_files_averages_each_words_contexts(tmp_path: Path) -> None:
    place = nouns_and_verbs(tmp_path)
    data = read(Reading(str(place), group_0="upos=NOUN", group_1="upos=VERB"))
    assert data.categories == ("upos=NOUN", "upos=VERB")
    assert data.labels.count(0) == 12
    assert data.labels.count(1) == 6
    assert {len(sample.contexts) for sample in data.samples} == {2}
    few = read(Reading(str(place), group_0="upos=NOUN", group_1="upos=VERB", words=5, contexts=1))
    assert (few.labels.count(0), few.labels.count(1)) == (5, 5)
    assert {len(sample.contexts) for sample in few.samples} == {1}
    again = read(Reading(str(place), group_0="upos=NOUN", group_1="upos=VERB", words=5, contexts=1))
    other = read(Reading(str(place), group_0="upos=NOUN", group_1="upos=VERB", words=5, contexts=1, seed=1))
    assert few.samples == again.samples
    assert few.samples != other.samples


def test_lemmas_pair_singular_and_plural(tmp_path: Path) -> None:
    reading = Reading(
        str(nouns_and_verbs(tmp_path)), group_0="Number=Sing", group_1="Number=Plur", pair="lemma", words=4
    )
    data = read(reading)
    assert data.pairs is not None
    assert len(data.pairs) == 8  # whole pairs are chosen
    assert {data.pairs.count(name) for name in data.pairs} == {2}


def test_sentences_by_a_metadata_field_pair_too(tmp_path: Path) -> None:
    parts = [
        [f"# kind = {kind}", f"# of = {n}", row(1, f"It{n}"), row(2, "is"), *([row(3, "not")] if kind == "neg" else [])]
        for n in range(4)
        for kind in ("neg", "plain")
    ]
    file = treebank(tmp_path, *parts)
    data = read(Reading(str(file), group_0="meta.kind=plain", group_1="meta.kind=neg", pair="meta.of"))
    assert sorted(sample.word for sample in data.samples)[:2] == ["It0 is", "It0 is not"]
    assert data.pairs is not None
    context = data.samples[0].contexts[0]
    assert (context.start, context.end) == (0, len(context.text))


@pytest.mark.parametrize(
    ("groups", "pair", "key"),
    [
        ((None, None), None, "group_0"),
        (("upos=NOUN", "VERB"), None, "group_1"),
        (("upos=NOUN", "head=1"), None, "group_1"),
        (("upos=NOUN", "meta.kind=neg"), None, "group_1"),
        (("upos=NOUN", "upos=ADV"), None, "group_1"),
        (("upos=NOUN", "upos=VERB"), "form", "pair"),
    ],
)
def test_bad_groups_of_conllu(
    tmp_path: Path, groups: tuple[str | None, str | None], pair: str | None, key: str
) -> None:
    with pytest.raises(InputError) as caught:
        read(Reading(str(nouns_and_verbs(tmp_path)), group_0=groups[0], group_1=groups[1], pair=pair))
    assert caught.value.key == key
