"""Where memory runs out: halved batches, the same result, limits of the process, a message that says what helps."""

from __future__ import annotations

import logging
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from actmax import memory
from actmax.model import evaluation
from actmax.model.evaluation import random_activations
from actmax.model.objective import Objective
from actmax.model.subject import Subject
from actmax.model.target import Unit
from cli import QUICK, Actmax
from test_maximization import fitted, rows

ERRORS = [
    torch.OutOfMemoryError("planted"),
    MemoryError("std::bad_alloc"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
]
SEARCH = ("task=search", "subject=tiny", "search.passes=60", "search.candidates=20", "seeds=0:3", *QUICK)


class Small:
    """Runs of a subject that have room for so many rows, and raise an error where there are more."""

    def __init__(self, error: Exception, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error, self.room, self.run = error, room, Subject.run
        monkeypatch.setattr(Subject, "run", lambda *arguments, **options: self(*arguments, **options))

    def __call__(self, subject: Subject, embeddings: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        if len(embeddings) > self.room:
            raise self.error
        return self.run(subject, embeddings, *arguments, **options)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
class TestHalving:
    def test_a_fit_does(self, subject: Subject, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
        whole = fitted(subject, rows(*range(7)), steps=3)
        Small(error, 3, monkeypatch)
        found = fitted(subject, rows(*range(7)), steps=3)
        assert found.max_rows == 2
        assert (found.embedding - whole.embedding).abs().max() < 1e-9

    def test_so_do_nulls(self, subject: Subject, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
        ids = evaluation.random_tokens(subject, 3, draws=40, seed=0)
        units = [Unit("resid_pre", 1, 3)]
        given = subject, Objective(), ids, units
        whole, entropy = evaluation.by_unit_activations(*given), evaluation.cross_entropies(subject, ids)
        own = evaluation.activations(subject, Objective(), ids.tolist(), units * 40)
        Small(error, 7, monkeypatch)
        seen: list[int] = []
        with monkeypatch.context() as patch:
            patch.setattr(evaluation.Bar, "advance", lambda _, steps: seen.append(steps))
            np.testing.assert_allclose(evaluation.by_unit_activations(*given), whole, rtol=1e-9)
        assert sum(seen) == 40
        np.testing.assert_allclose(evaluation.cross_entropies(subject, ids), entropy, rtol=1e-9)
        np.testing.assert_allclose(evaluation.activations(subject, Objective(), ids.tolist(), units * 40), own)

    @pytest.mark.slow
    def test_one_row_too_many_is_said_with_what_helps(
        self, actmax: Actmax, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        assert actmax(*SEARCH, "report=false", "hydra.run.dir=whole").code == 0  # the model is loaded, and proved
        Small(error, 0, monkeypatch)
        ran = actmax(*SEARCH, "report=false", "hydra.run.dir=small")
        assert ran.code == 1
        assert "Memory ran out." in ran.err.splitlines()[-1]
        assert "max_rows=N" in ran.err


def test_a_search_goes_on_to_the_same(actmax: Actmax, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = actmax(*SEARCH, "hydra.run.dir=whole")
    assert whole.code == 0, whole.err
    random_activations.cache_clear()
    monkeypatch.setenv("ACTMAX_CACHE", str(whole.folder / "cache"))
    Small(ERRORS[2], 5, monkeypatch)
    ran = actmax(*SEARCH, "hydra.run.dir=small")
    assert ran.code == 0, ran.err
    assert "(max_rows sets how many)" in (ran.folder / "small" / "actmax.log").read_text()
    one, other = (pd.read_parquet(ran.folder / name / "restarts.parquet") for name in ("whole", "small"))
    assert one["text"].tolist() == other["text"].tolist()
    np.testing.assert_allclose(one["activation_final"], other["activation_final"], rtol=1e-4)


def test_another_error_is_not_taken_for_it(caplog: pytest.LogCaptureFixture) -> None:
    def fails(start: int, stop: int) -> None:
        raise RuntimeError("shapes do not fit")

    with caplog.at_level(logging.WARNING), pytest.raises(RuntimeError, match="shapes"):
        list(memory.in_batches(fails, 8, 4))
    assert not caplog.text


@pytest.fixture
def limit() -> Iterator[Any]:
    """Sets a limit to what this process may still take of its address space."""
    before = resource.getrlimit(resource.RLIMIT_AS)

    def lower(more: int) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + more, before[1]))

    yield lower
    resource.setrlimit(resource.RLIMIT_AS, before)


class TestAddressSpace:
    def test_a_limit_counts(self, limit: Any) -> None:
        assert (memory.free_bytes() or 0) > 2e8
        limit(100_000_000)
        assert 0 < (memory.free_bytes() or 0) <= 1e8
        with pytest.raises(RuntimeError) as raised:
            torch.ones(200_000_000)
        assert memory.is_lack(raised.value)
        with pytest.raises(MemoryError) as missing:
            np.ones(200_000_000)
        assert memory.is_lack(missing.value)

    def test_within_one_batches_are_halved(self, limit: Any) -> None:
        limit(400_000_000)
        made = list(memory.in_batches(lambda start, stop: float(torch.ones(stop - start, 10_000_000).sum()), 16, 16))
        assert sum(made) == 16 * 10_000_000
        assert len(made) > 1


FEW = ("tuning.permutations=20", "tuning.splits=2")


class TestTuning:
    """Reading words goes on with fewer texts at a time, and each word is counted once."""

    WORDS = (
        "task=tuning",
        "subject=tiny",
        "tuning.data=words.csv",
        "report=false",
        "tuning.permutations=20",
        "tuning.splits=2",
    )

    @pytest.fixture
    def words(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        rows = [f"{a}{b},{'noun' if a < 'e' else 'verb'}\n" for a in "abcdefgh" for b in "rstu"]
        (tmp_path / "words.csv").write_text("word,category\n" + "".join(rows))

    @pytest.mark.slow
    @pytest.mark.usefixtures("words")
    def test_batches_are_halved(self, actmax: Actmax, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = actmax(*self.WORDS, *FEW, "hydra.run.dir=whole")
        assert whole.code == 0, whole.err
        Small(ERRORS[1], 5, monkeypatch)
        ran = actmax(*self.WORDS, *FEW, "hydra.run.dir=small")
        assert ran.code == 0, ran.err
        log = (ran.folder / "small" / "actmax.log").read_text()
        assert log.count("tuning.batch_tokens sets how many") >= 1
        one, other = (pd.read_parquet(ran.folder / name / "tuning.parquet") for name in ("whole", "small"))
        np.testing.assert_allclose(one["student_t"], other["student_t"], rtol=1e-9)

    @pytest.mark.usefixtures("words")
    def test_another_failure_is_none_of_these(self, actmax: Actmax, monkeypatch: pytest.MonkeyPatch) -> None:
        Small(RuntimeError("shapes do not fit"), 5, monkeypatch)
        ran = actmax(*self.WORDS, "hydra.run.dir=small")
        assert (ran.code, "Memory ran out" in ran.err) == (1, False)


def test_a_model_that_does_not_fit_is_said_so(actmax: Actmax, monkeypatch: pytest.MonkeyPatch) -> None:
    def loads(**_: Any) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("actmax.tasks.subjects.shared", loads)
    ran = actmax("subject=tiny", "steps=2")
    assert ran.code == 1
    assert "Memory ran out. subject.dtype=bfloat16" in ran.err
    assert "Traceback" not in ran.err
