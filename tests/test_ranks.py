"""Several devices in one job, here two processes on one CPU: nothing may change but the time it takes."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import tempfile
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.distributed as dist
from lightning.pytorch.accelerators import CUDAAccelerator
from safetensors.torch import load_file

from actmax.errors import InputError
from actmax.maximize.callbacks import Checkpoint, Trajectory
from actmax.maximize.ranks import Rank, shared_checkpoint
from actmax.model.subject import Subject
from actmax.records.contents import Contents
from actmax.records.store import Record
from actmax.tasks import subjects
from cli import QUICK, Actmax, Ran, start
from test_callbacks import ROWS, fit, module_of

EXACT = ("subject=tiny", "subject.dtype=float64", "steps=12", *QUICK)
TWO = "trainer.devices=2"
TABLES = ("tokens", "candidates", "restarts", "trajectory", "units")


def assert_same(one: Path, other: Path, within: float = 1e-9) -> None:
    """Two records hold the same, to rounding."""
    saved, again = (load_file(job / "embeddings.safetensors") for job in (one, other))
    assert saved.keys() == again.keys()
    assert all(torch.allclose(saved[name].double(), again[name].double(), rtol=0, atol=within) for name in saved)
    for name in TABLES:
        tables = [pd.read_parquet(job / f"{name}.parquet") for job in (one, other)]
        pd.testing.assert_frame_equal(*tables, check_exact=False, rtol=0, atol=within)


def assert_nothing_left() -> None:
    assert not dist.is_initialized()
    assert not multiprocessing.active_children()
    assert not list(Path(tempfile.gettempdir()).glob("actmax-ranks-*"))


@pytest.fixture(autouse=True)
def _own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what a test leaves there is its own."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)


class TestTwoRanks:
    @pytest.mark.slow
    def test_agree_with_one_and_each_does_its_own_part(self, actmax: Actmax, tmp_path: Path) -> None:
        # 9 restarts: rank 0 has 4, rank 1 has 5, and the second unit lies on both
        job = (*EXACT, "seeds='0:3'", "unit.index='5:8'", "logger=csv", "callbacks.measures.every=5")
        diary = ("+callbacks.diary._target_=cli.Diary", f"+callbacks.diary.folder={tmp_path}")
        two = actmax(*job, *diary, TWO, "hydra.run.dir=two")
        assert two.code == 0, two.err
        assert_nothing_left()
        found = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
        assert [one["rows"] for one in found] == [
            [[5, 0], [5, 1], [5, 2], [6, 0]],
            [[6, 1], [6, 2], [7, 0], [7, 1], [7, 2]],
        ]
        assert found[0]["pid"] == os.getpid() != found[1]["pid"]
        assert actmax(*job, "hydra.run.dir=one").code == 0
        assert_same(tmp_path / "one", tmp_path / "two")
        logged = [pd.read_csv(next((tmp_path / name / "logs").rglob("metrics.csv"))) for name in ("one", "two")]
        assert len(logged[0]) == 3
        pd.testing.assert_frame_equal(*logged, check_exact=False, rtol=1e-6)
        device = json.loads((tmp_path / "two/summary.json").read_text())["device"]
        assert device["count"] == 2
        assert device["threads"] == torch.get_num_threads()
        # which job it is does not depend on the devices
        assert "This job is complete" in actmax(*job, *diary, "hydra.run.dir=two").out

    @pytest.mark.slow
    def test_that_average_their_gradients_would_be_found_out(self, actmax: Actmax, tmp_path: Path) -> None:
        job = (*EXACT, "seeds='0:2'")
        averaging = "+callbacks.averaging._target_=cli.Averaging"
        assert actmax(*job, averaging, TWO, "hydra.run.dir=two").code == 0
        assert actmax(*job, averaging, "hydra.run.dir=one").code == 0
        with pytest.raises(AssertionError):
            assert_same(tmp_path / "one", tmp_path / "two", within=1e-4)


def wait_for(file: Path) -> None:
    deadline = time.monotonic() + 120
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert file.exists()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not (state.exists() and state.read_text().rsplit(")", 1)[1].split()[0] == "Z")


class TestStopped:
    LONG = (
        "subject=tiny",
        "subject.dtype=float64",
        "steps=150",
        "seeds='0:5'",
        "callbacks.checkpoint.every=20",
        *QUICK,
    )

    @pytest.mark.slow
    def test_by_ctrl_c_it_goes_on_with_any_number_of_devices(self, actmax: Actmax, tmp_path: Path) -> None:
        process = start(tmp_path, *self.LONG, TWO, "hydra.run.dir=cut", own_group=True)
        wait_for(Record(tmp_path / "cut").checkpoint)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the job
        out, err = process.communicate(timeout=120)
        assert process.returncode == 130, err
        assert "Traceback" not in out + err
        assert json.loads((tmp_path / "cut/status.json").read_text())["state"] == "interrupted"
        assert len(pd.read_parquet(tmp_path / "cut/tokens.parquet")) == 25
        assert_nothing_left()
        shutil.copytree(tmp_path / "cut", tmp_path / "again")
        assert actmax(*self.LONG, "hydra.run.dir=whole").code == 0
        for folder, devices in (("cut", "trainer.devices=1"), ("again", TWO)):
            ran = actmax(*self.LONG, devices, f"hydra.run.dir={folder}")
            assert ran.code == 0, ran.err
            assert "Going on from step" in (tmp_path / folder / "actmax.log").read_text()
            assert_same(tmp_path / "whole", tmp_path / folder)

    @pytest.mark.slow
    def test_by_a_kill_of_rank_0_the_others_end_too(self, tmp_path: Path) -> None:
        diary = ("+callbacks.diary._target_=cli.Diary", f"+callbacks.diary.folder={tmp_path}")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(Path(__file__).parent)]))
            process = start(tmp_path, *self.LONG, *diary, "steps=100000", TWO, "hydra.run.dir=cut")
        wait_for(tmp_path / "rank1.json")
        time.sleep(0.1)  # until it is written
        other = json.loads((tmp_path / "rank1.json").read_text())["pid"]
        assert is_alive(other)
        process.kill()
        process.communicate()
        deadline = time.monotonic() + 10
        while is_alive(other) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not is_alive(other)


class TestFailed:
    def fail(self, actmax: Actmax, folder: Path, *, kill: bool) -> tuple[Ran, dict[str, str]]:
        doomed = ("+callbacks.doomed._target_=cli.Doomed", f"+callbacks.doomed.folder={folder}")
        ran = actmax(*EXACT, "seeds='0:2'", *doomed, f"+callbacks.doomed.kill={kill}", TWO, "hydra.run.dir=two")
        status = json.loads((folder / "two/status.json").read_text())
        assert ran.code == 1
        assert status["state"] == "failed"
        moments = (folder / "moment").read_text(), status["finished"]
        assert np.diff([datetime.fromisoformat(moment).timestamp() for moment in moments]) < 10
        assert_nothing_left()
        return ran, status["error"]

    @pytest.mark.slow
    def test_a_rank_that_raises_fails_the_job_with_its_traceback(self, actmax: Actmax, tmp_path: Path) -> None:
        ran, error = self.fail(actmax, tmp_path, kill=False)
        assert error["message"] == "rank 1 of 2 failed: RuntimeError: planted on rank 1"
        assert error["message"] in ran.err
        assert 'raise RuntimeError("planted on rank 1")' in error["traceback"]

    @pytest.mark.slow
    def test_a_rank_that_is_killed_fails_the_job_at_once(self, actmax: Actmax, tmp_path: Path) -> None:
        _, error = self.fail(actmax, tmp_path, kill=True)
        assert error["message"].startswith("rank 1 of 2 was killed by SIGKILL")


class TestRefused:
    @pytest.mark.parametrize("strategy", ["ddp", "ddp_spawn", "fsdp", "deepspeed", "no_such"])
    def test_any_strategy_that_would_merge_restarts(self, actmax: Actmax, strategy: str) -> None:
        ran = actmax(*EXACT, "seeds='0:2'", f"trainer.strategy={strategy}", TWO)
        assert ran.code == 2
        assert f"trainer.strategy={strategy}: must be auto" in ran.err
        assert "merge" in ran.err
        assert "trainer.devices=N" in ran.err

    def test_more_devices_than_restarts(self, actmax: Actmax) -> None:
        ran = actmax(*EXACT, "seeds='0:2'", "trainer.devices=3")
        assert ran.code == 2
        assert "trainer.devices=3: must be at most 2" in ran.err

    def test_more_gpus_than_there_are(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(CUDAAccelerator, "is_available", lambda: True)
        monkeypatch.setattr(CUDAAccelerator, "auto_device_count", lambda: 2)
        subjects.refuse_missing_accelerator("gpu", 2)
        subjects.refuse_missing_accelerator("cpu", 3)
        with pytest.raises(InputError, match=r"trainer.devices=3: must be at most 2, the GPUs"):
            subjects.refuse_missing_accelerator("auto", 3)


@pytest.mark.parametrize(("total", "count"), [(5, 2), (9, 4), (3, 3), (1, 1), (100, 7)])
def test_shares_are_all_of_it_once_and_even(total: int, count: int) -> None:
    shares = [range(total)[Rank(number, count, Path(), 1).share(total)] for number in range(count)]
    assert [row for share in shares for row in share] == list(range(total))
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1


def test_a_share_of_a_checkpoint_holds_its_own_rows_and_no_others(subject: Subject, tmp_path: Path) -> None:
    checkpoint, trajectory = Checkpoint(every=4), Trajectory(every=2)
    checkpoint.bind(Contents(Record(tmp_path)))
    fit(module_of(subject), checkpoint, trajectory)
    file = Record(tmp_path).checkpoint
    whole = torch.load(file, weights_only=True)
    (tmp_path / "ranks").mkdir()
    rank = Rank(1, 4, tmp_path / "ranks", 1)
    rows = rank.share(len(ROWS))
    part = torch.load(shared_checkpoint(file, rank, rows, [trajectory]), weights_only=True)
    assert rows == slice(1, 3)
    for name, value in whole["state_dict"].items():
        assert torch.equal(part["state_dict"][name], value[1:3])
    moments = [content["optimizer_states"][0]["state"][0] for content in (whole, part)]
    assert torch.equal(moments[1]["exp_avg"], moments[0]["exp_avg"][1:3])
    assert torch.equal(moments[1]["step"], moments[0]["step"])
    assert part["optimizer_states"][0]["param_groups"] == whole["optimizer_states"][0]["param_groups"]
    kept = [content["callbacks"]["Trajectory"] for content in (whole, part)]
    assert kept[1]["steps"] == kept[0]["steps"] == [0, 2, 4, 6]
    assert all(
        torch.equal(one, all_of_it[1:3])
        for one, all_of_it in zip(kept[1]["activations"], kept[0]["activations"], strict=True)
    )
    assert part["global_step"] == whole["global_step"] == 8
