"""Fixtures: a cache folder of our own, a tiny subject, the command line in this process and in one of its own."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from actmax.app import config
from actmax.model.subject import Subject, load
from actmax.weights import cache_folder
from cli import Actmax, Ran

TINY = {"model_type": "gpt2", "n_layer": 3, "n_embd": 24, "n_head": 4, "n_positions": 32}


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """A shell starts what it puts in the background with Ctrl-C ignored, and processes of tests would inherit that."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _offline() -> Iterator[None]:
    """No test may wait for a hub; W&B has no server here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_SILENT", "true")
        yield


@pytest.fixture(scope="session", autouse=True)
def _weights_alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Of the user's cache only the converted weights of the real model are used; what runs keep stays out of it."""
    subjects, folder = cache_folder() / "subjects", tmp_path_factory.mktemp("cache-with-weights")
    subjects.mkdir(parents=True, exist_ok=True)
    (folder / "subjects").symlink_to(subjects, target_is_directory=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACTMAX_CACHE", str(folder))
        yield


@pytest.fixture(scope="session")
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _cache(request: pytest.FixtureRequest, session_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fast tests take nothing at all of the user's cache."""
    if request.node.get_closest_marker("slow") is None:
        monkeypatch.setenv("ACTMAX_CACHE", str(session_cache))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny tensors gain nothing from threads, and lose much to their waiting where other work runs beside the tests."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def subject() -> Subject:
    """3 blocks x 24 dims, 257 tokens, float64."""
    return load(name="tiny", source="random", architecture=TINY, dtype="float64")


@pytest.fixture
def actmax(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Actmax:
    """Runs the command line in this process, in an empty folder."""
    from actmax.__main__ import main

    monkeypatch.chdir(tmp_path)

    def run(*overrides: str) -> Ran:
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # which the command sets for itself
        monkeypatch.setattr(sys, "argv", ["actmax", *overrides])
        capfd.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        said = capfd.readouterr()
        return Ran(code, said.out, said.err, tmp_path)

    return run


config.register()
