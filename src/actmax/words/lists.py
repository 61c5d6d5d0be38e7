"""Words and their categories: the built-in list, a CSV, CoNLL-U files. Nothing heavy is imported here."""

from __future__ import annotations

import csv
import hashlib
import heapq
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from actmax.errors import InputError, renamed
from actmax.settings import seed_setting, setting
from actmax.text.files import require_regular, utf8_lines
from actmax.words.conllu import COLUMNS, Sentence, Word, files_of, sentences

BUILT_IN = "nouns_verbs"
"""Name of the built-in list of words."""
BUILT_IN_FILE = Path(__file__).parent / "nouns_verbs.csv"
"""The built-in list, a CSV as a user might give it."""
BUILT_IN_ZIPF = {"noun": (4.567, 0.304), "verb": (4.543, 0.307)}
"""Mean and standard deviation of the list's word frequencies, log10 of occurrences in a billion words, as
`scripts/nouns_verbs.py` printed them from wordfreq 3.1.1."""
FEWEST = 4
"""Smallest number of words per category with which anything is compared."""
LISTED = 1000
"""Number of skipped words that are listed one by one; the others are only counted."""
LONGEST = 4
"""How many characters one can be when its accents are characters of their own."""
JOINER = "\u200d"
"""Makes one sign of the two around it: a woman and a computer are a programmer."""
JOINERS = ("\u200c", JOINER)
"""What stands inside words and signs without being seen."""
HEADER = ("word", "category", "pair", "context")
"""Columns that a CSV may have."""


def composed(text: str) -> str:
    """A text with each accent in its letter (NFC): written as characters of their own, they make no other text."""
    return unicodedata.normalize("NFC", text)


def same(word: str) -> str:
    """What spellings of one word have in common: capital letters do not count, nor how accents are written."""
    return composed(word).lower()


@dataclass(frozen=True)
class Context:
    """A text with a word in it."""

    text: str
    """The whole text, without begin-of-text."""
    start: int
    """Index of the word's first character."""
    end: int
    """Index of the character behind the word's last."""
    source: str
    """Origin of the text, as `FILE:LINE` where it is a file."""


@dataclass(frozen=True)
class Sample:
    """One word of one category: the replicate of every test."""

    word: str
    """The word, or the sentence where whole sentences are compared."""
    label: int
    """Number of the group, 0 or 1."""
    contexts: tuple[Context, ...]
    """The texts in which the word stands; its activations are averaged over them."""
    pair: str | None = None
    """The name that the word shares with its partner in the other group, where they are really paired."""

    @property
    def group(self) -> str:
        """Name of the samples that halves and folds keep together: the pair, or else the word."""
        return same(self.word) if self.pair is None else self.pair


@dataclass(frozen=True)
class Skip:
    """A word that is left out, and why."""

    word: str
    """The word that is left out."""
    reason: str
    """The reason, as a clause behind a number of words."""
    source: str
    """Origin of the word, as `FILE:LINE`."""


@dataclass
class Skips:
    """The words that are left out: counted by reason, the first ones listed."""

    counts: Counter[str] = field(default_factory=Counter)
    """Number of skipped words by reason."""
    listed: list[Skip] = field(default_factory=list)
    """The first skipped words, `LISTED` at most."""

    def add(self, word: str, reason: str, source: str) -> None:
        """Counts a skipped word, and lists it if it is among the first."""
        self.counts[reason] += 1
        if len(self.listed) < LISTED:
            self.listed.append(Skip(word, reason, source))


@dataclass(frozen=True)
class Data:
    """The words of a job."""

    samples: tuple[Sample, ...]
    """The samples, in the order of the rows of every table of activations."""
    categories: tuple[str, str]
    """The names of groups 0 and 1."""
    skips: Skips
    """The words that were left out."""

    @property
    def labels(self) -> list[int]:
        """The group of each sample, 0 or 1."""
        return [sample.label for sample in self.samples]

    @property
    def pairs(self) -> list[str] | None:
        """The pair of each sample; None where nothing is paired."""
        names = [sample.pair for sample in self.samples if sample.pair is not None]
        return names if len(names) == len(self.samples) else None


@dataclass
class Reading:
    """Which words are read, and from where."""

    data: str = BUILT_IN
    """`nouns_verbs` (built in), or a path: a CSV (word,category[,pair][,context]), a CoNLL-U file, a folder of them."""
    group_0: str | None = None
    """A CSV's category (null: the first of two by name); a condition on CoNLL-U: `upos=NOUN`, `meta.KEY=VALUE`."""
    group_1: str | None = None
    """The same for group 1 (null: the other category); differences are group 1 minus group 0."""
    pair: str | None = None
    """CoNLL-U: what partners share, `lemma` or `meta.KEY`, where words are really paired."""
    template: str = " {word}"
    """The text around a bare word, behind begin-of-text."""
    words: int = setting(1000, least=4)
    """CoNLL-U: at most so many words of a group, a random choice."""
    contexts: int = setting(10, least=1)
    """CoNLL-U: at most so many sentences of a word, averaged."""
    seed: int = seed_setting()
    """Seed of the choice of words, of halves, folds and shuffles."""

    @property
    def groups(self) -> tuple[str | None, str | None]:
        """The category or condition of group 0 and of group 1."""
        return self.group_0, self.group_1


def read(reading: Reading) -> Data:
    """Reads the words that are to be compared.

    Raises:
        InputError: names the setting, or the file and the line.
    """
    check_reading(reading)
    if reading.data == BUILT_IN or _is_csv(Path(reading.data)):
        file = BUILT_IN_FILE if reading.data == BUILT_IN else Path(reading.data)
        return checked(_from_csv(file, reading))
    return checked(_from_conllu(Path(reading.data), reading))


def check_reading(reading: Reading) -> None:
    """Refuses settings that are wrong whatever the files hold.

    Raises:
        InputError: names the setting.
    """
    if reading.template.count("{word}") != 1:
        raise InputError("template", repr(reading.template), "must hold {word} once", "Say ' {word}'.")
    place = Path(reading.data)
    if reading.data == BUILT_IN or _is_csv(place):
        if reading.pair is not None:
            raise InputError("pair", reading.pair, "is for CoNLL-U", "A CSV has a column for it: pair.")
        if reading.data == BUILT_IN or place.is_file():
            return
    if not place.exists():
        allowed = f"must be {BUILT_IN}, a .csv, a .conllu file, or a folder of .conllu files"
        raise InputError("data", reading.data, allowed)
    with renamed({"place": "data"}):
        for file in files_of(place):
            require_regular(file)
    selectors = [_selector(f"group_{number}", text) for number, text in enumerate(reading.groups)]
    if len({selector.whole for selector in selectors}) == 2:
        raise InputError("group_1", reading.groups[1], "must be of sentences if group_0 is, and of words if not")
    _check_pair(reading.pair)


def _is_csv(place: Path) -> bool:
    return place.suffix.lower() == ".csv"


def _check_pair(pair: str | None) -> None:
    """Refuses a kind of pairs that there is not.

    Raises:
        InputError: names the setting.
    """
    if pair is not None and pair != "lemma" and not pair.startswith("meta."):
        raise InputError("pair", pair, "must be lemma or meta.KEY")


def checked(data: Data) -> Data:
    """The data without words that lack a partner.

    Raises:
        InputError: fewer than 4 words of a category are left.
    """
    data = _with_partners(data)
    counts = Counter(data.labels)
    for label, name in enumerate(data.categories):
        if counts[label] < FEWEST:
            allowed = f"must have at least {FEWEST} words, and has {counts[label]}"
            left_out = ", ".join(f"{number} {reason}" for reason, number in data.skips.counts.items())
            way_out = f"Left out: {left_out}." if left_out else "Give more words."
            raise InputError(f"group_{label}", name, allowed, way_out)
    return data


def _with_partners(data: Data) -> Data:
    """The data without words that lack a partner in the other group, where any word has one."""
    if all(sample.pair is None for sample in data.samples):
        return data
    seen = {(sample.pair, sample.label) for sample in data.samples}
    kept = []
    for sample in data.samples:
        if sample.pair is not None and (sample.pair, 1 - sample.label) in seen:
            kept.append(sample)
        else:
            data.skips.add(sample.word, "without a partner", sample.contexts[0].source)
    return replace(data, samples=tuple(kept))


# words of a CSV


@dataclass(frozen=True)
class _Line:
    """The cells of a CSV's row."""

    word: str
    category: str
    pair: str | None
    context: str | None
    source: str


def _from_csv(file: Path, reading: Reading) -> Data:
    lines = list(_csv_lines(file))
    categories = _categories(file, lines, reading.groups)
    skips, found, names = Skips(), {}, {}
    for line in lines:
        if line.category not in categories:
            skips.add(line.word, f"of category {line.category}", line.source)
            continue
        context = _context(line, reading.template)
        key = (line.pair, same(line.word), categories.index(line.category))
        contexts = found.setdefault(key, {})
        names.setdefault(key, line.word.lower())
        if context.text in contexts:
            skips.add(line.word, "duplicate", line.source)
        else:
            contexts[context.text] = context
    samples = [Sample(names[key], key[2], tuple(held.values()), key[0]) for key, held in found.items()]
    _refuse_clashes(samples)
    return Data(tuple(samples), categories, skips)


def _csv_lines(file: Path) -> Iterator[_Line]:
    rows = csv.reader((line for _, line in utf8_lines(file)), strict=True)
    place = BUILT_IN if file == BUILT_IN_FILE else file  # a record names no folder of the machine that made it
    try:
        header = [name.strip() for name in next(rows, [])]
        _check_header(file, header)
        for row in rows:
            if row:
                yield _csv_line(f"{place}:{rows.line_num}", header, row)
    except csv.Error as error:
        raise InputError(f"{file}:{rows.line_num}", "malformed", f"must be CSV ({error})") from error


def _check_header(file: Path, header: Sequence[str]) -> None:
    wrong = [name for name in header if name not in HEADER]
    if wrong or len(set(header)) < len(header) or not {"word", "category"} <= set(header):
        allowed = "the header must be word,category[,pair][,context]"
        raise InputError(f"{file}:1", ",".join(header), allowed, "Write it as the first line: word,category.")


def _csv_line(source: str, header: Sequence[str], row: Sequence[str]) -> _Line:
    if len(row) != len(header):
        allowed = f"must have {len(header)} columns, and has {len(row)}"
        raise InputError(source, repr(",".join(row)[:60]), allowed, "Put a cell that holds a comma in double quotes.")
    cells = {name: cell.strip() for name, cell in zip(header, row, strict=True)}
    for name in ("word", "category"):
        if not cells[name]:
            raise InputError(source, repr(",".join(row)[:60]), f"must have a {name}")
    pair = composed(cells.get("pair", "")) or None
    return _Line(cells["word"], composed(cells["category"]), pair, cells.get("context") or None, source)


def _categories(file: Path, lines: Sequence[_Line], groups: tuple[str | None, str | None]) -> tuple[str, str]:
    """The names of groups 0 and 1: those that were asked for, or the two that there are, in order."""
    known = sorted({line.category for line in lines})
    first, second = groups = groups[0] and composed(groups[0]), groups[1] and composed(groups[1])
    for number, name in enumerate(groups):
        if name is not None and name not in known:
            raise InputError(f"group_{number}", name, f"must be a category of {file}: {', '.join(known)}")
    rest = [name for name in known if name not in groups]
    missing = groups.count(None)
    if len(rest) < missing or first is second is not None:
        allowed = "a comparison needs two categories, and it has " + (", ".join(known) or "no word")
        raise InputError("data", file, allowed, "Name two that differ, or add words of another.")
    if len(rest) > missing > 0:
        raise InputError("data", file, f"has the categories {', '.join(known)}", "Name tuning.group_0 and _1.")
    return first or rest.pop(0), second or rest.pop(0)


def _context(line: _Line, template: str) -> Context:
    """A row's text: its own with the word found in it, or the template around the word.

    Raises:
        InputError: the row's text lacks the word.
    """
    if line.context is None:
        start = template.index("{word}")
        return Context(template.replace("{word}", line.word), start, start + len(line.word), line.source)
    span = find_word(line.word, line.context)
    if span is None:
        allowed, way_out = f"the context must hold the word {line.word!r}", ""
        if _folded(line.word) in _folded(line.context) or line.word.casefold() in line.context.casefold():
            allowed += ", which stands there only inside a longer run of letters"
            way_out = "Where no space says which letters are a word, a CoNLL-U file does."
        raise InputError(line.source, repr(line.context[:60]), allowed, way_out)
    return Context(line.context, *span, line.source)


def find_word(word: str, text: str) -> tuple[int, int] | None:
    """Where a word first stands in a text by itself; None where it does not.

    Capital letters do not count, nor whether an accent is a character of its own (Unicode's canonical equivalence).
    A letter and the marks behind it, as in Hindi, belong together.

    Example:
        >>> find_word("cat", "The catalogue has a Cat.")
        (20, 23)
    """
    wanted, edges = _folded(word), [place for place in range(len(text) + 1) if _is_edge(text, place)]
    for number, start in enumerate(edges):
        for end in edges[number + 1 :]:
            if end > start + LONGEST * len(word):
                break
            if _folded(text[start:end]) == wanted:
                return start, end
    return None


def _folded(text: str) -> str:
    return composed(composed(text).casefold())


def _is_edge(text: str, place: int) -> bool:
    """Whether a word can begin or end at a place: it does not lie between two letters, or a sign and its mark."""
    if place in (0, len(text)):
        return True
    before, behind = text[place - 1], text[place]
    if before == JOINER or behind in JOINERS or _is_mark(behind):
        return False
    return not (_in_word(before) and _in_word(behind))


def _is_mark(character: str) -> bool:
    """Whether a character belongs to the one before it: an accent, a vowel sign, a variant, a colour of skin."""
    return unicodedata.category(character).startswith("M") or "\U0001f3fb" <= character <= "\U0001f3ff"


def _in_word(character: str) -> bool:
    """Whether a character is part of words: a letter, a digit, a letter of a flag, a mark on one, or a joiner."""
    of_flag = "\U0001f1e6" <= character <= "\U0001f1ff"
    return character.isalnum() or character in ("_", *JOINERS) or of_flag or _is_mark(character)


def _refuse_clashes(samples: Iterable[Sample]) -> None:
    """Refuses a text that stands in both groups, and a pair with two words in one group.

    Raises:
        InputError: the key is `FILE:LINE`.
    """
    texts: dict[tuple[str, int], Sample] = {}
    members: dict[tuple[str, int], str] = {}
    for sample in samples:
        for context in sample.contexts:
            place = composed(context.text), len(composed(context.text[: context.start]))
            other = texts.setdefault(place, sample)
            if other.label != sample.label:
                allowed = f"stands in both groups with the same text (also {other.contexts[0].source})"
                raise InputError(context.source, sample.word, allowed, "Leave it out, or give each its context.")
        if sample.pair is not None:
            first = members.setdefault((sample.pair, sample.label), sample.word)
            if first != sample.word:
                allowed = f"the pair {sample.pair} has {first} in that group already"
                raise InputError(sample.contexts[0].source, sample.word, allowed, "A pair has one word in each group.")


# annotated text


@dataclass(frozen=True)
class _Selector:
    """A condition on words or sentences of CoNLL-U files."""

    key: str
    """Name of a column, of a feature, or of a comment of the sentence."""
    value: str
    """The value that the column must have."""
    whole: bool
    """Whether the condition is one on sentences."""

    def matches(self, word: Word) -> bool:
        """Whether a word meets the condition."""
        return self.takes(word.value(self.key))

    def takes(self, value: str | None) -> bool:
        """Whether a value is the one that is asked for."""
        return value is not None and composed(value) == composed(self.value)


def _selector(name: str, text: str | None) -> _Selector:
    """The condition that a setting states.

    Raises:
        InputError: names the setting.
    """
    key, separator, value = (text or "").partition("=")
    if not (key and separator and value):
        allowed = "must say which words of the CoNLL-U files: upos=NOUN, Number=Sing, or meta.KEY=VALUE for sentences"
        raise InputError(name, text, allowed)
    if key.startswith("meta."):
        return _Selector(key.removeprefix("meta."), value, whole=True)
    if key in COLUMNS and key not in ("form", "lemma", "upos", "xpos", "deprel"):
        raise InputError(name, text, "must name form, lemma, upos, xpos, deprel, a feature, or meta.KEY")
    return _Selector(key, value, whole=False)


Key = tuple[str | None, str, int]
"""Identity of a sample: its pair, its word, and its label."""


class _Choice:
    """A uniform choice of words and of each word's contexts from a stream, in memory that does not grow with it.

    It keeps those with the smallest hashes (bottom-k): the same whatever the order of the files, and each word as
    likely as the next however often it occurs.
    """

    def __init__(self, words: int, contexts: int, seed: int) -> None:
        self.words, self.contexts, self.seed = words, contexts, seed
        self.held: dict[Key, list[tuple[int, str, Context]]] = {}
        self.order: dict[int, list[tuple[int, Key]]] = {0: [], 1: []}
        self.names: dict[Key, str] = {}

    def _hash(self, text: str) -> int:
        """64 pseudorandom bits of a text."""
        return int.from_bytes(hashlib.sha256(f"{self.seed}:{text}".encode()).digest()[:8])

    def add(self, key: Key, name: str, context: Context) -> None:
        """Takes an occurrence of a word, if the word is among the chosen so far."""
        # Partners share their hash, so that a choice of pairs is one of whole pairs.
        rank, order = -self._hash(key[0] or key[1]), self.order[key[2]]
        if key not in self.held:
            if len(order) == self.words and rank <= order[0][0]:
                return
            heapq.heappush(order, (rank, key))
            self.held[key], self.names[key] = [], name
            if len(order) > self.words:
                _, dropped = heapq.heappop(order)
                del self.held[dropped], self.names[dropped]
        held = self.held[key]
        heapq.heappush(held, (-self._hash(f"{context.source}:{context.start}"), context.source, context))
        if len(held) > self.contexts:
            heapq.heappop(held)

    def samples(self) -> list[Sample]:
        """The chosen words with their contexts, by group and then by word."""
        found = []
        for key in sorted(self.held, key=lambda key: (key[2], key[1], key[0] or "")):
            contexts = sorted((context for *_, context in self.held[key]), key=lambda one: (one.source, one.start))
            found.append(Sample(self.names[key], key[2], tuple(contexts), key[0]))
        return found


def _from_conllu(place: Path, reading: Reading) -> Data:
    """A choice of the words (or sentences) of CoNLL-U files that meet the conditions of the two groups."""
    selectors = [_selector(f"group_{number}", text) for number, text in enumerate(reading.groups)]
    skips, choice = Skips(), _Choice(reading.words, reading.contexts, reading.seed)
    for sentence in sentences(place):
        found = _whole(sentence, selectors) if selectors[0].whole else _words(sentence, selectors, skips)
        for name, lemma, label, context in found:
            pair = _pair(reading.pair, lemma, sentence.metadata)
            if reading.pair is not None and pair is None:
                skips.add(name, f"without {reading.pair}", context.source)
                continue
            # Partners are words of one lemma: all its forms in a group are one sample.
            choice.add((pair, same(name) if pair is None else "", label), name, context)
    return Data(tuple(choice.samples()), (str(reading.groups[0]), str(reading.groups[1])), skips)


def _pair(pair: str | None, lemma: str, metadata: Mapping[str, str]) -> str | None:
    """The name of a word's pair: its lemma, or a comment of its sentence; None where nothing is paired."""
    if pair is None:
        return None
    name = metadata.get(pair.removeprefix("meta."))
    return same(lemma) if pair == "lemma" else name and composed(name)


Found = tuple[str, str, int, Context]
"""A word (or sentence) that meets a condition: word, lemma, label, and its context."""


def _whole(sentence: Sentence, selectors: Sequence[_Selector]) -> Iterator[Found]:
    """The sentence itself, for each group whose condition it meets."""
    for label, selector in enumerate(selectors):
        if selector.takes(sentence.metadata.get(selector.key)):
            context = Context(sentence.text, 0, len(sentence.text), sentence.source)
            yield sentence.text, sentence.text, label, context


def _words(sentence: Sentence, selectors: Sequence[_Selector], skips: Skips) -> Iterator[Found]:
    """The words of a sentence that meet the condition of one group."""
    file = sentence.source.rpartition(":")[0]
    for word in sentence.words:
        labels = [label for label, selector in enumerate(selectors) if selector.matches(word)]
        name, source = word.columns["form"], f"{file}:{word.line}"
        if len(labels) == 2:
            skips.add(name, "in both groups", source)
        elif labels and word.span is None:
            skips.add(name, "inside a multiword token", source)
        elif labels and word.span is not None:
            yield name, word.columns["lemma"], labels[0], Context(sentence.text, *word.span, source)
