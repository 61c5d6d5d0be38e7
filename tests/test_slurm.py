"""launch=slurm on a real Slurm, which scripts/slurm.sh starts on this machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
from safetensors.torch import load_file

from actmax.records.store import Record
from cli import QUICK, planted, start

ROOT = Path(__file__).parents[1]
SCRIPT = str(ROOT / "scripts" / "slurm.sh")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue")
JOB = ("-m", "subject=tiny", *QUICK, "launch=slurm", "launch.memory_gb=0.9", "launch.cpus=1", "hydra.sweep.dir=sweep")
SLOW = ("steps=200", "callbacks.checkpoint.every=10", "+callbacks.slow={_target_: cli.Slow, seconds: 0.05}")

Sweep = Callable[..., subprocess.Popen[str]]

pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install 'actmax[slurm]'")
missing = [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(missing), reason=f"no {', '.join(missing)} here: apt-get install slurm-wlm munge"),
]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file that SLURM_CONF names."""
    folder = tmp_path_factory.mktemp("slurm")
    try:
        ran = subprocess.run([SCRIPT, "start", str(folder)], capture_output=True, text=True, timeout=120)
        assert ran.returncode == 0, ran.stderr
        assert f"export SLURM_CONF={folder}/slurm.conf" in ran.stdout
        yield folder / "slurm.conf"
    finally:
        subprocess.run([SCRIPT, "stop", str(folder)], check=True, timeout=120)


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[Sweep]:
    """Starts a sweep's driver; none outlives its test."""
    drivers = []

    def run(*overrides: str) -> subprocess.Popen[str]:
        drivers.append(start(tmp_path, *JOB, *overrides))
        return drivers[-1]

    yield run
    for driver in drivers:
        driver.kill()
        driver.communicate()


@pytest.fixture(autouse=True)
def _environment(slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the jobs inherit; the queue is empty after every test, whatever became of it."""
    monkeypatch.setenv("SLURM_CONF", str(slurm))
    monkeypatch.setenv("ACTMAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'tests'}:{os.environ.get('PYTHONPATH', '')}")
    yield
    left = queue()
    subprocess.run(["scancel", f"--user={os.getuid()}"], check=True)
    until(lambda: not queue())
    assert left == []


def queue() -> list[str]:
    """The states of the jobs that wait or run; what Slurm still tidies up after (COMPLETING) does neither."""
    said = subprocess.run(
        ["squeue", "--noheader", "--array", "--format=%T"], check=True, capture_output=True, text=True
    )
    return [state for state in said.stdout.split() if state != "COMPLETING"]


def until(true: Callable[[], object], driver: subprocess.Popen[str] | None = None, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert driver is None or driver.poll() is None, driver.communicate()[1]
        assert time.monotonic() < deadline, f"waited {seconds} s in vain"
        time.sleep(0.2)


def folders(place: Path) -> dict[int, Path]:
    """Each job's folder, by its seed. Hydra does not write a file at one stroke: one without a seed is under way."""
    texts = {file.parents[1]: file.read_text() for file in place.glob("sweep/tiny_*/.hydra/overrides.yaml")}
    seeds = {job: re.search(r"seeds='?(\d+)'?\n", text) for job, text in texts.items()}
    return {int(seed[1]): job for job, seed in seeds.items() if seed}


def states(place: Path) -> dict[int, str]:
    return {
        seed: json.loads((job / "status.json").read_text())["state"] for seed, job in sorted(folders(place).items())
    }


def finished(job: Path) -> float:
    return datetime.fromisoformat(json.loads((job / "status.json").read_text())["finished"]).timestamp()


def most_at_a_time(jobs: list[Path]) -> int:
    """How many of the jobs were under way together: each from its start by Hydra to the end that its status names."""
    spans = [((job / ".hydra/overrides.yaml").stat().st_mtime, finished(job)) for job in jobs]
    return max(sum(start <= moment < end for start, end in spans) for moment, _ in spans)


def test_a_sweep_is_complete_and_no_wider_than_asked(tmp_path: Path, sweep: Sweep) -> None:
    seen = f"+callbacks.seen={{_target_: cli.Seen, folder: '{tmp_path}'}}"
    driver = sweep("steps=20", "seeds=0,1,2,3", "launch.parallel=2", seen)
    out, err = driver.communicate(timeout=400)
    assert driver.returncode == 0, err
    assert states(tmp_path) == dict.fromkeys(range(4), "complete")
    assert most_at_a_time(list(folders(tmp_path).values())) == 2
    assert "2 waiting (JobArrayTaskLimit), 2 running" in out
    assert {file.read_text() for file in tmp_path.glob("seen-*")} == {"0", "1"}
    tensors = [load_file(job / "embeddings.safetensors")["final"] for job in folders(tmp_path).values()]
    assert len({float(tensor.sum()) for tensor in tensors}) == 4


def test_a_killed_job_neither_hangs_the_sweep_nor_takes_the_others_along(tmp_path: Path, sweep: Sweep) -> None:
    doomed = planted(tmp_path / "planted")
    (tmp_path / "planted/1").write_text("kill")
    doomed = (*doomed, f"+callbacks.seen={{_target_: cli.Seen, folder: '{tmp_path}'}}")
    driver = sweep("steps=20", *doomed, "seeds=0,1,2,3", "launch.parallel=4", "launch.gpus=null")
    out, err = driver.communicate(timeout=400)
    ended = time.time()
    assert driver.returncode == 1, err
    found = states(tmp_path)
    whole = [folders(tmp_path)[seed] for seed in (0, 2, 3)]
    assert [found[seed] for seed in (0, 2, 3)] == ["complete"] * 3
    assert found[1] == "failed"
    assert ended - max(finished(job) for job in whole) < 60
    assert "its process died" in out
    assert "Killed" in out
    assert most_at_a_time(whole) == 3
    assert {file.read_text() for file in tmp_path.glob("seen-*")} == {"none"}


@pytest.mark.parametrize("requeue", [1, 0])
def test_a_job_out_of_time_is_queued_again_and_goes_on(tmp_path: Path, sweep: Sweep, requeue: int) -> None:
    driver = sweep(*SLOW, "seeds=0", "force=true", "launch.minutes=5", f"launch.requeue={requeue}")
    until(lambda: any(Record(job).checkpoint.exists() for job in folders(tmp_path).values()), driver)
    subprocess.run(["scancel", "--signal=USR2", f"--user={os.getuid()}"], check=True)  # as Slurm does before the end
    _, err = driver.communicate(timeout=400)
    job = folders(tmp_path)[0]
    assert ("Going on from step" in (job / "actmax.log").read_text()) == (requeue == 1)
    assert states(tmp_path) == {0: "complete" if requeue == 1 else "failed"}, err
    assert driver.returncode == 1 - requeue, err
    assert not (job / "previous").exists()  # force=true counts once


def test_ctrl_c_cancels_what_waits_and_ends_what_runs(tmp_path: Path, sweep: Sweep) -> None:
    driver = sweep(*SLOW, "seeds=0,1,2", "launch.parallel=1")
    until(lambda: any(Record(job).checkpoint.exists() for job in folders(tmp_path).values()), driver)
    assert sorted(queue()) == ["PENDING", "PENDING", "RUNNING"]
    driver.send_signal(signal.SIGINT)
    _, err = driver.communicate(timeout=120)
    assert driver.returncode == 130, err
    assert queue() == []
    assert list(states(tmp_path).values()) == ["interrupted"]
    (job,) = folders(tmp_path).values()
    assert (job / "embeddings.safetensors").exists()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("launch.partition=nowhere", "Invalid partition name specified"),
        ("launch.gpus=3", "Requested node configuration is not available"),
        ("launch.memory_gb=9", "Memory specification can not be satisfied"),
        ("launch.cpus=9", "PartitionConfig"),  # Slurm accepts it, and lets it wait for ever
    ],
)
def test_what_slurm_refuses_is_the_users_to_put_right(tmp_path: Path, sweep: Sweep, wrong: str, words: str) -> None:
    driver = sweep("seeds=0,1", wrong)
    _, err = driver.communicate(timeout=120)
    assert driver.returncode == 2, err
    assert f"actmax: {wrong}" in err
    assert words in err
    assert "main (2 GPUs, 4 CPUs and 4 GB a node)" in err
    assert not folders(tmp_path)


def test_no_slurm_that_answers(slurm: Path, tmp_path: Path, sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    deaf = tmp_path / "deaf.conf"
    deaf.write_text(re.sub("SlurmctldPort=.*", "SlurmctldPort=1", slurm.read_text()))
    with monkeypatch.context() as patch:
        patch.setenv("SLURM_CONF", str(deaf))
        driver = sweep("seeds=0,1")
        _, err = driver.communicate(timeout=120)
    assert driver.returncode == 2, err
    assert "actmax: launch=slurm: Slurm refuses it" in err
    assert "Unable to contact slurm controller" in err
