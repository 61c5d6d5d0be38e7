"""300 random mutations, the same every time: of commands, of every kind of file that is read, of a record's files.

Whatever they come to, the command ends with 0, 1, 2 or 130, says so without a traceback, and changes nothing outside of
its output folder and its cache.
"""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from actmax.app.report import main as report
from actmax.model.subject import load
from cli import Actmax

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SMALL = {"model_type": "gpt2", "n_layer": 2, "n_embd": 12, "n_head": 2, "n_positions": 32}
QUICK = (
    "nulls.draws=20", "nulls.displacements=20", "gap.draws=20", "transfer.draws=20", "controls=0", "logger=none",
    "page=false", "report=false",
)  # fmt: skip
JOB = ("subject=tiny", "unit.layer=1", "unit.index=3", "steps=2", "seeds=0:2", *QUICK)
MODEL = (*JOB, "subject.path=model")
TUNING = (
    "task=tuning",
    "subject=tiny",
    "tuning.layers=1",
    "tuning.sites=[resid_post]",
    "tuning.permutations=20",
    *QUICK,
)
GROUPS = ("tuning.group_0='upos=NOUN'", "tuning.group_1='upos=VERB'")
BANK = "".join(f"1\t{word}\t{word}\t{kind}\t_\t_\t0\troot\t_\t_\n\n" for kind in ("NOUN", "VERB") for word in "abcde")
NAMES = ("one", "two", "red", "sea", "sun", "day", "fox", "hen", "owl", "ant")
WORDS = "word,category\n" + "".join(f"{word},{'ab'[n % 2]}\n" for n, word in enumerate(NAMES))
EXPERIMENT = "# @package _global_\nsteps: 2\nunit:\n  layer: 1\n  index: [3, 4]\nprior:\n  l2:\n    weight: 0.1\n"
INPUTS: dict[str, tuple[str, ...]] = {
    "words.csv": (*TUNING, "tuning.data=words.csv"),
    "bank.conllu": (*TUNING, "tuning.data=bank.conllu", *GROUPS),
    "text.txt": ("task=examples", *JOB[:3], "examples.text=text.txt", "examples.window=16", *QUICK),
    "conf/experiment/mine.yaml": ("--config-dir=conf", "experiment=mine", *JOB[:1], "seeds=0:2", *QUICK),
    "model/config.json": MODEL,
    "model/tokenizer.json": MODEL,
    "model/model.safetensors": MODEL,
    "start/embeddings.safetensors": (*JOB, "init=file", "init.path=start"),
}
"""Files that a person gives, with the command that reads them."""
COMMANDS = [
    JOB,
    (*JOB, "prior=[l2,norm]", "objective.sign=minimize", "optimizer.lr=0.01"),
    ("task=search", *JOB, "search=epo", "search.passes=20", "search.weights=[0.0,0.4]"),
    ("-m", *JOB, "seeds=0,1", "sweep=s"),
    ("task=simulation", "simulation.repetitions=3", "simulation.effects=[0.0,1.0]", "logger=none", "report=false"),
]
LETTERS = "0123456789=.,:;[]{}()'\"\\/+-~!$%&*#@ \t\n\x00\x1b\u202eéß水_aZ"


def mutated_text(text: str, rng: random.Random) -> str:
    place = rng.randrange(len(text) + 1)
    kind = rng.choice(("insert", "delete", "replace", "double", "cut"))
    if kind == "insert":
        return text[:place] + rng.choice(LETTERS) + text[place:]
    if kind == "cut":
        return text[:place]
    if kind == "double":
        return text + text[place:]
    return text[:place] + (rng.choice(LETTERS) if kind == "replace" else "") + text[place + 1 :]


def mutated_bytes(content: bytes, rng: random.Random) -> bytes:
    start, length = rng.randrange(len(content) + 1), rng.choice((1, 1, 4, 100))
    kind = rng.choice(("flip", "flip", "delete", "insert", "cut", "double", "empty", "text"))
    rest = content[start + length :]
    changed = {
        "flip": bytes(byte ^ (1 << rng.randrange(8)) for byte in content[start : start + length]),
        "delete": b"",
        "insert": rng.randbytes(length) + content[start : start + length],
        "double": 2 * content[start : start + length],
        "text": rng.choice(LETTERS).encode() * length,
    }
    if kind in ("cut", "empty"):
        return content[:start] if kind == "cut" else b""
    return content[:start] + changed[kind] + rest


def standing(folder: Path) -> dict[str, bytes]:
    """What lies in a folder beside outputs and the cache."""
    files = (file for file in folder.rglob("*") if file.is_file())
    named = {str(file.relative_to(folder)): file for file in files}
    return {name: file.read_bytes() for name, file in named.items() if not name.startswith(("outputs/", "multirun/"))}


@pytest.fixture
def ended(actmax: Actmax, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[..., int]]:
    """Runs a command, or the report of a folder, and asks how it ended."""

    def late(*_: object) -> None:
        raise TimeoutError("the command takes a minute")

    before = signal.signal(signal.SIGALRM, late)

    def run(*arguments: str, shown: Path | None = None) -> int:
        stood = standing(tmp_path)
        signal.alarm(60)
        try:
            code, err = _shown(shown, capfd) if shown else (lambda ran: (ran.code, ran.err))(actmax(*arguments))
        finally:
            signal.alarm(0)
        assert code in (0, 1, 2, 130), (arguments, err)
        assert "Traceback" not in err, (arguments, err)
        assert "TimeoutError" not in err, arguments
        if shown is None:
            assert standing(tmp_path) == stood, arguments
        return code

    yield run
    signal.signal(signal.SIGALRM, before)


def _shown(folder: Path, capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = 0
    try:
        report([str(folder)])
    except SystemExit as end:
        code = int(end.code or 0)
    return code, capfd.readouterr().err


@pytest.mark.parametrize("number", range(len(COMMANDS)))
def test_commands(ended: Callable[..., int], number: int) -> None:
    rng, codes = random.Random(f"commands {number}"), []
    assert ended(*COMMANDS[number]) == 0
    for _ in range(20):
        arguments = list(COMMANDS[number])
        for place in rng.sample(range(len(arguments)), rng.choice((1, 1, 2))):
            arguments[place] = mutated_text(arguments[place], rng)
        codes.append(ended(*arguments))
    assert codes.count(2) > 5  # most are wrong


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every kind of file that a person gives."""
    folder = tmp_path_factory.mktemp("given")
    subject: Any = load(name="tiny", source="random", architecture=SMALL)
    subject.model.save_pretrained(folder / "model")
    subject.tokenizer.save_pretrained(folder / "model")
    (folder / "conf/experiment").mkdir(parents=True)
    texts = {"words.csv": WORDS, "bank.conllu": BANK, "text.txt": "Once upon a time. " * 9}
    for name, text in {**texts, "conf/experiment/mine.yaml": EXPERIMENT}.items():
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("name", INPUTS)
def test_files_that_a_person_gives(ended: Callable[..., int], given: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(given, tmp_path, dirs_exist_ok=True)
    if name.startswith("start/"):
        assert ended(*JOB) == 0
        shutil.copytree(next((tmp_path / "outputs/maximization").iterdir()), tmp_path / "start")
    whole, rng = (tmp_path / name).read_bytes(), random.Random(name)
    assert ended(*INPUTS[name]) == 0
    for _ in range(16):
        (tmp_path / name).write_bytes(mutated_bytes(whole, rng))
        shutil.rmtree(tmp_path / "outputs")
        (tmp_path / "outputs").mkdir()
        ended(*INPUTS[name])


def test_files_of_a_record(ended: Callable[..., int], tmp_path: Path) -> None:
    job, copy = (*JOB, "hydra.run.dir=outputs/job"), tmp_path / "outputs/job"
    assert ended(*job) == 0
    shutil.copytree(copy, tmp_path / "outputs/whole")
    names = sorted(file.name for file in copy.iterdir() if file.is_file() and file.name != ".lock")
    rng = random.Random("record")
    for number in range(72):
        shutil.rmtree(copy)
        shutil.copytree(tmp_path / "outputs/whole", copy)
        file = copy / names[number % len(names)]
        file.write_bytes(mutated_bytes(file.read_bytes(), rng))
        if number // len(names) % 4 == 3:  # a page takes as long as three reruns
            ended(shown=copy)
        else:
            ended(*job)
