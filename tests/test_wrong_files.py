"""Files that a job reads: pipes, names without a file, damage; answered before the model is loaded, nothing left."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from actmax.model.subject import load
from actmax.records.store import Record
from cli import QUICK, Actmax, Ran

TINY = ("subject=tiny", "steps=3", *QUICK, "nulls.draws=39", "report=false")
SMALL = {"model_type": "gpt2", "n_layer": 2, "n_embd": 12, "n_head": 2, "n_positions": 32}
WORDS = "word,category\n" + "".join(
    f"{word},{'ab'[n % 2]}\n" for n, word in enumerate(["one", "two", "red", "sea", "sun", "day"])
)
TREEBANK = "1\tdogs\tdog\tNOUN\t_\t_\t0\troot\t_\t_\n\n"


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe.csv")
    return tmp_path / "pipe.csv"


def refused(ran: Ran, *words: str) -> None:
    assert ran.code == 2, ran.err or ran.out
    for word in words:
        assert word in ran.err
    assert ran.err.count("\n") == 1
    assert not (ran.folder / "outputs").exists()  # nor an empty folder


TUNING = ("task=tuning", "tuning.sites=[resid_post]", "tuning.layers=1", "tuning.permutations=50", "tuning.splits=2")
GROUPS = ("tuning.group_0='upos=NOUN'", "tuning.group_1='upos=VERB'")
WHERE = {
    "tuning.data": TUNING,
    "tuning.text": (*TUNING, "tuning.unit='resid_post.1[3]'"),
    "context.texts": ("context=text",),
    "search.text": ("task=search", "search=text"),
    "examples.text": ("task=examples",),
    "init.path": ("init=file",),
}
"""The keys that name a file which is read, with what makes a job read it."""


@pytest.mark.timeout(60)
class TestPipes:
    """A reader of a pipe waits for ever, and what it gives can be read once only."""

    @pytest.mark.parametrize("key", WHERE)
    def test_are_refused(self, actmax: Actmax, pipe: Path, key: str) -> None:
        refused(actmax(*TINY, *WHERE[key], f"{key}={pipe}"), str(pipe), "must be")

    def test_so_are_devices(self, actmax: Actmax) -> None:
        refused(actmax(*TINY, *WHERE["examples.text"], "examples.text=/dev/zero"), "examples.text=/dev/zero")

    @pytest.mark.parametrize("key", ["context.texts", "examples.text"])
    def test_so_are_pipes_in_a_folder(self, actmax: Actmax, tmp_path: Path, key: str) -> None:
        (tmp_path / "texts").mkdir()
        (tmp_path / "texts/a.txt").write_text("Once upon a time. " * 20)
        os.mkfifo(tmp_path / "texts/b.txt")
        refused(actmax(*TINY, *WHERE[key], f"{key}=texts"), "b.txt", "a pipe or a device")

    def test_a_command_in_the_place_of_a_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "words.csv").write_text(WORDS)
        job = " ".join((*TINY, *TUNING[:2]))
        command = f"{sys.executable} -m actmax {job} tuning.data=<(cat words.csv)"
        ran = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert ran.returncode == 2, ran.stderr
        assert "must be a file on disk, and is a pipe" in ran.stderr

    def test_a_checkpoint_that_is_a_pipe(self, actmax: Actmax, tmp_path: Path) -> None:
        assert actmax(*TINY, "hydra.run.dir=job").code == 0
        record = Record(tmp_path / "job")
        status = json.loads(record.path("status.json").read_text())
        record.write_json("status.json", {**status, "state": "interrupted"})
        record.checkpoint.unlink(missing_ok=True)
        record.checkpoint.parent.mkdir(exist_ok=True)
        os.mkfifo(record.checkpoint)
        ran = actmax(*TINY, "hydra.run.dir=job")
        assert ran.code == 2
        assert "last.ckpt must be a file on disk" in ran.err
        assert "resume=false" in ran.err

    @pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
    def test_a_models_file_that_is_a_pipe(self, actmax: Actmax, model: Path, name: str) -> None:
        (model / name).unlink()
        os.mkfifo(model / name)
        ran = actmax(*TINY, "subject.path=model", "unit.layer=1", "unit.index=3")
        refused(ran, "subject.path=", "config.json" if name == "config.json" else name)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    subject: Any = load(name="tiny", source="random", architecture=SMALL)
    subject.model.save_pretrained(tmp_path / "model")
    subject.tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


class TestNamesWithoutAFile:
    @pytest.mark.parametrize(
        "text", ["stroy.txt", "my stroy.TXT", "./stroy", "/no/such/stroy.md", "~/stroy", "a.jsonl"]
    )
    def test_are_no_texts(self, actmax: Actmax, text: str) -> None:
        ran = actmax(*TINY, *WHERE["tuning.text"], f"tuning.text='{text}'")
        refused(ran, f"tuning.text='{text}'", "no such file")

    def test_a_folder_is_no_text(self, actmax: Actmax, tmp_path: Path) -> None:
        (tmp_path / "stories").mkdir()
        refused(actmax(*TINY, *WHERE["tuning.text"], "tuning.text=stories"), "tuning.text=stories", "a folder")

    @pytest.mark.parametrize("text", ["stroy.txt ", "See stroy.txt for more", "and/or"])
    def test_a_text_that_is_none_is_read(self, actmax: Actmax, text: str, tmp_path: Path) -> None:
        ran = actmax(*TINY, *WHERE["tuning.text"], f"tuning.text='{text}'", "hydra.run.dir=job")
        assert ran.code == 0, ran.err
        assert (tmp_path / "job/heatmap.html").exists()


BAD: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "a CSV without categories": ("tuning.data", lambda file: file.write_text("word\none\n"), ":1="),
    "a CSV with a short row": ("tuning.data", lambda file: file.write_text(WORDS + "alone\n"), ":8="),
    "a CSV that is no text": ("tuning.data", lambda file: file.write_bytes(WORDS.encode() + b"\xff,a\n"), ":8="),
    "a CSV of one category": ("tuning.data", lambda file: file.write_text("word,category\nx,a\n"), "two categories"),
    "an empty CSV": ("tuning.data", lambda file: file.write_text(""), "header"),
    "a text that is none": ("examples.text", lambda file: file.write_bytes(b"fine\n\xff\xfe\n"), ":2="),
    "an empty text": ("examples.text", lambda file: file.write_text(""), "must hold text"),
    "windows of what is no text": ("context.texts", lambda file: file.write_bytes(b"\x80"), ":1="),
    "a search in what is no text": ("search.text", lambda file: file.write_bytes(b"\x80"), ":1="),
    "a start that is none": ("init.path", lambda file: file.write_bytes(b"x" * 1000), "init.path="),
    "a start that is not there": ("init.path", lambda file: None, "init.path="),
}


class TestBeforeTheModel:
    @pytest.mark.parametrize("case", BAD)
    def test_what_cannot_be_read_is_refused_and_leaves_nothing(
        self, actmax: Actmax, tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        key, write, words = BAD[case]
        file = tmp_path / "given.csv"
        write(file)
        monkeypatch.setattr("actmax.model.subject.load", lambda **_: pytest.fail("the model was loaded"))
        refused(actmax(*TINY, *WHERE[key], f"{key}={file}"), words)
        refused(actmax("-m", *TINY, *WHERE[key], f"{key}={file}", "seeds=0,1"), words)

    def test_a_treebank_with_a_broken_row(self, actmax: Actmax, tmp_path: Path) -> None:
        (tmp_path / "bank.conllu").write_text(TREEBANK * 3 + "1\tbroken\n\n")
        ran = actmax(*TINY, *TUNING, "tuning.data=bank.conllu", *GROUPS)
        refused(ran, "bank.conllu:7=", "10 columns")

    def test_a_record_of_other_sizes(self, actmax: Actmax, tmp_path: Path) -> None:
        assert actmax(*TINY, "hydra.run.dir=first").code == 0
        ran = actmax(*TINY, "init=file", "init.path=first", "tokens=4")
        refused(ran, "init.path=first", "4 tokens x 96 dims; it holds 5 x 96")
        cut = tmp_path / "first/embeddings.safetensors"
        cut.write_bytes(cut.read_bytes()[:-8])
        refused(actmax(*TINY, "init=file", "init.path=first"), "init.path=first", "whole embeddings.safetensors")

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
    @pytest.mark.parametrize("name", ["a file", "no GPU"])
    def test_it_takes_less_than_a_second_and_a_half(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "words.csv").write_text("word\n")
        wrong = ("task=tuning", "tuning.data=words.csv") if name == "a file" else ("trainer=gpu",)
        seconds = []
        for _ in range(2):  # the first fills the disk's cache
            begun = time.monotonic()
            command = [sys.executable, "-X", "importtime", "-m", "actmax", "subject=tiny", *wrong]
            ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
            seconds.append(time.monotonic() - begun)
            assert ran.returncode == 2, ran.stderr
            imported = {
                line.rpartition("|")[2].strip() for line in ran.stderr.splitlines() if line.startswith("import")
            }
            assert "hydra" in imported
            assert not imported & {"torch", "transformers", "pandas"}
        assert min(seconds) < 3  # 1.5 s on a machine that does nothing else
        assert not (tmp_path / "outputs").exists()

    def test_a_csv_may_be_called_so_in_capitals(self, actmax: Actmax, tmp_path: Path) -> None:
        (tmp_path / "WORDS.CSV").write_text(WORDS + "mud,a\nice,b\n")
        ran = actmax(*TINY, *TUNING, "tuning.data=WORDS.CSV")
        assert ran.code == 0, ran.err


class TestChangedModels:
    """The weights alone do not name a model: its config and its tokenizer change what is found."""

    JOB = (*TINY, "subject.path=model", "unit.layer=1", "unit.index=3")

    def run(self, actmax: Actmax, *more: str) -> Ran:
        ran = actmax(*self.JOB, *more)
        assert ran.code == 0, ran.err
        return ran

    @pytest.fixture
    def changed(self, model: Path) -> Callable[[str], None]:
        def change(name: str) -> None:
            content = json.loads((model / name).read_text())
            if name == "config.json":
                content["layer_norm_epsilon"] = 0.1
            else:
                vocabulary = content["model"]["vocab"]
                vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
            (model / name).write_text(json.dumps(content))

        return change

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
    def test_are_other_jobs(self, actmax: Actmax, changed: Callable[[str], None], name: str) -> None:
        first = self.run(actmax)
        assert self.run(actmax).jobs == first.jobs  # unchanged, it is shown again
        self.run(actmax, "hydra.run.dir=named")
        changed(name)
        ran = self.run(actmax)
        assert len([job for job in ran.jobs if job.parent.name == "maximization"]) == 2
        again = actmax(*self.JOB, "hydra.run.dir=named")
        assert again.code == 2
        assert "it holds the record of another job" in again.err

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
    def test_are_run_again_by_a_sweep(self, actmax: Actmax, changed: Callable[[str], None], name: str) -> None:
        sweep = ("-m", *self.JOB, "seeds=0,1", "sweep=s")
        assert actmax(*sweep).code == 0
        changed(name)
        ran = actmax(*sweep)
        assert ran.code == 0, ran.err
        assert len(ran.jobs) == 4

    def test_in_another_folder_is_the_same_job(self, actmax: Actmax, model: Path) -> None:
        self.run(actmax, "hydra.run.dir=named")
        shutil.copytree(model, model.parent / "other")
        ran = actmax(*self.JOB, "subject.path=other", "hydra.run.dir=named")
        assert ran.code == 0, ran.err


class TestNestedDeeply:
    """JSON that Python's parser refuses by another error than that of damage."""

    DEEP = b"[" * 10**5

    def test_is_no_config_of_a_model(self, actmax: Actmax, model: Path) -> None:
        assert actmax(*TINY, "subject.path=model", "unit.layer=1", "unit.index=3", "hydra.run.dir=whole").code == 0
        (model / "config.json").write_bytes(self.DEEP)
        refused(actmax(*TINY, "subject.path=model"), "subject.path=", "config.json: must be whole JSON (it is nested")

    def test_is_no_config_of_an_autoencoder(self, actmax: Actmax, tmp_path: Path) -> None:
        (tmp_path / "sae").mkdir()
        (tmp_path / "sae/cfg.json").write_bytes(self.DEEP)
        (tmp_path / "sae/sae_weights.safetensors").write_bytes(b"")
        refused(actmax(*TINY, "unit.sae=sae", "unit.index=0"), "unit.sae=", "cfg.json: must be whole JSON (it is")

    def test_is_no_header_of_a_start(self, actmax: Actmax, tmp_path: Path) -> None:
        file = tmp_path / "start.safetensors"
        file.write_bytes(len(self.DEEP).to_bytes(8, "little") + self.DEEP)
        refused(actmax(*TINY, "init=file", f"init.path={file}"), "init.path=", "whole embeddings.safetensors")
