"""Records that somebody damaged or changed: they are named and left out, and everything else goes on."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pandas as pd
import pytest
import yaml
from safetensors.torch import load_file, save_file

from actmax.__main__ import main as actmax_main
from actmax.app.report import main as report
from actmax.errors import InputError
from actmax.weights import locate
from cli import QUICK, Actmax

SWEEP = ("-m", "subject=tiny", "steps=3", "sweep=s", "seeds=0,1,2", *QUICK, "nulls.draws=39", "report=false")
FOREIGN = {"name": "web", "services": {"db": {"image": "postgres"}}}
"""A config.yaml of another program."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, session_cache: Path) -> Path:
    """A sweep of three jobs, made once; tests damage copies."""
    return ran_in(tmp_path_factory.mktemp("sweep"), session_cache, *SWEEP) / "outputs/s"


def ran_in(folder: Path, cache: Path, *overrides: str) -> Path:
    """A folder in which a command ran."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("ACTMAX_CACHE", str(cache))
        patch.setattr(sys, "argv", ["actmax", *overrides])
        actmax_main()
    return folder


@pytest.fixture
def swept(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "s"))


def jobs_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("tiny_*"))


def config(job: Path, **changed: Any) -> None:
    """Writes a config in which some keys say something else; a key with a dot is inside a group."""
    content = yaml.safe_load((job / "config.yaml").read_text())
    for key, value in changed.items():
        group, _, name = key.rpartition("__")
        (content[group] if group else content)[name] = value
    (job / "config.yaml").write_text(yaml.safe_dump(content))


def summary(job: Path, **changed: Any) -> None:
    content = json.loads((job / "summary.json").read_text())
    (job / "summary.json").write_text(json.dumps(content | changed))


def write(name: str, text: str) -> Callable[[Path], None]:
    return lambda job: (job / name).write_text(text)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "config empty": write("config.yaml", ""),
    "config missing": lambda job: (job / "config.yaml").unlink(),
    "config a list": write("config.yaml", "- a\n- b\n"),
    "config a number": write("config.yaml", "7\n"),
    "config of another program": write("config.yaml", yaml.safe_dump(FOREIGN)),
    "config no YAML": write("config.yaml", "a: [1,\n"),
    "config with a tag": write("config.yaml", "!!python/object/apply:os.getcwd []\n"),
    "config bytes": lambda job: (job / "config.yaml").write_bytes(b"\xff\xfe\x00"),
    "config's task a name": lambda job: config(job, task="maximization"),
    "config's unit a number": lambda job: config(job, unit=3),
    "config's steps a word": lambda job: config(job, steps="many"),
    "config's seeds a word": lambda job: config(job, seeds="many"),
    "config's draws a word": lambda job: config(job, nulls__draws="many"),
    "config's weight a list": lambda job: config(job, prior__fluency=[1]),
    "config of other seeds": lambda job: config(job, seeds=[40, 41]),
    "config of another site": lambda job: config(job, unit__site="mlp_out"),
    "summary empty": write("summary.json", ""),
    "summary null": write("summary.json", "null"),
    "summary a list": write("summary.json", "[1, 2]"),
    "summary without content": write("summary.json", "{}"),
    "summary of another program": write("summary.json", json.dumps(FOREIGN)),
    "summary missing": lambda job: (job / "summary.json").unlink(),
    "summary bytes": lambda job: (job / "summary.json").write_bytes(b"\x80{}"),
    "summary's seconds a number": lambda job: summary(job, seconds=3.5),
    "summary's device a list": lambda job: summary(job, device=["cpu"]),
    "summary's condition missing": lambda job: summary(job, condition=None),
    "summary nested deeply": write("summary.json", "[" * 10**5),
    "config nested deeply": write("config.yaml", "[" * 10**5),
    "summary of another job": lambda job: shutil.copy(jobs_of(job.parent)[0] / "summary.json", job),
}


def collected(swept: Path, capfd: pytest.CaptureFixture[str]) -> tuple[str, dict[str, str]]:
    """What `actmax-report` says of a folder, and the records that it left out, with the reason."""
    for file in [*swept.glob("*.parquet"), swept / "sweep.json"]:
        file.unlink()
    capfd.readouterr()
    report([str(swept), "--jobs", "0"])
    said = capfd.readouterr()
    assert "Traceback" not in said.out + said.err
    left_out = json.loads((swept / "sweep.json").read_text())["left_out"]
    return said.out, {row["record"]: row["reason"] for row in left_out}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_record_with_a_wrong_config_or_summary_is_left_out_and_named(
    swept: Path, capfd: pytest.CaptureFixture[str], damage: str
) -> None:
    _, broken, _ = jobs_of(swept)
    DAMAGES[damage](broken)
    out, left_out = collected(swept, capfd)
    assert set(left_out) == {broken.name}
    assert left_out[broken.name]
    assert broken.name in (swept / "report.html").read_text()
    assert "Records that could not be read" in out
    assert set(pd.read_parquet(swept / "tokens.parquet")["job"]) == {job.name for job in jobs_of(swept)} - {broken.name}
    assert pd.read_parquet(swept / "units.parquet")["restarts"].tolist() == [2]


def test_whole_records_are_all_put_together(swept: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config(jobs_of(swept)[0], launch__minutes=61)  # another setting of the right kind
    assert collected(swept, capfd)[1] == {}
    assert pd.read_parquet(swept / "units.parquet")["restarts"].tolist() == [3]


OTHERS = {
    "config.yaml": "services: {db: postgres}\n",
    "report.html": "<p>mine</p>",
    "summary.json": '{"mine": 1}',
    "status.json": '{"state": "fine"}',
    "tokens.parquet": "mine",
    "tokens.csv": "a,b\n",
    "actmax.txt": "mine",
}
"""Files of somebody else whose names a record uses too, and one that it does not."""


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def strange(tmp_path: Path) -> Path:
    """A folder with somebody else's work, a repository."""
    folder = tmp_path / "strange"
    (folder / ".git").mkdir(parents=True)
    (folder / ".git/HEAD").write_text("ref: refs/heads/main\n")
    for name, text in OTHERS.items():
        (folder / name).write_text(text)
    return folder


JOB = ("subject=tiny", "steps=3", *QUICK, "nulls.draws=39", "report=false")


class TestFoldersOfOthers:
    @pytest.mark.parametrize("more", [(), ("force=true",)])
    @pytest.mark.parametrize("only", [None, *OTHERS, ".git"])
    def test_a_job_is_refused_there(
        self, actmax: Actmax, strange: Path, more: tuple[str, ...], only: str | None
    ) -> None:
        if only is not None:
            for item in strange.iterdir():
                if item.name != only:
                    shutil.rmtree(item) if item.is_dir() else item.unlink()
        before = contents(strange)
        ran = actmax(*JOB, f"hydra.run.dir={strange}", *more)
        assert ran.code == 2
        assert ran.err.startswith(f"actmax: hydra.run.dir={strange}: it holds something else than a job's record (")
        assert (only or ".git") in ran.err
        assert contents(strange) == before
        assert ran.err.count("\n") == 1

    def test_so_is_a_sweep(self, actmax: Actmax, strange: Path) -> None:
        before = contents(strange)
        ran = actmax("-m", *JOB, "seeds=0,1", f"hydra.sweep.dir={strange}")
        assert ran.code == 2
        assert ran.err.startswith(f"actmax: hydra.sweep.dir={strange}: it holds files of these names")
        ran = actmax("-m", *JOB, "seeds=0,1", f"hydra.sweep.dir={strange.parent}", f"hydra.sweep.subdir={strange.name}")
        assert ran.code == 2
        assert "something else than a job's record" in ran.err
        assert contents(strange) == before

    @pytest.mark.parametrize("name", ["report.html", "summary.json", "tokens.parquet", "tokens.csv"])
    def test_what_records_below_say_is_not_written_over_it(
        self, swept: Path, capfd: pytest.CaptureFixture[str], name: str
    ) -> None:
        folder = swept.parent / "project"
        (folder / "outputs").mkdir(parents=True)
        swept.rename(folder / "outputs/s")
        (folder / "config.yaml").write_text(OTHERS["config.yaml"])
        (folder / "own.parquet").write_text("mine")
        (folder / name).write_text(OTHERS[name])
        before = contents(folder)
        with pytest.raises(SystemExit) as end:
            report([str(folder), "--jobs", "0"])
        assert end.value.code == 2
        said = capfd.readouterr().err
        assert said.startswith(
            f"actmax-report: DIR={folder}: it holds files of these names that actmax did not write: "
        )
        assert name in said
        assert contents(folder) == before
        (folder / name).unlink()
        for _ in range(2):  # the second time over its own files
            report([str(folder), "--jobs", "0"])
        after = contents(folder)
        assert {"report.html", "sweep.json", "tokens.csv"} <= set(after)
        for own in ("config.yaml", "own.parquet"):
            assert after[own] == before[own]

    def test_a_page_of_a_job_is_not_written_there(self, strange: Path, capfd: pytest.CaptureFixture[str]) -> None:
        before = contents(strange)
        with pytest.raises(SystemExit) as end:
            report([str(strange)])
        assert end.value.code == 2
        assert "must hold records" in capfd.readouterr().err
        assert contents(strange) == before

    def test_force_moves_the_record_and_nothing_else(self, actmax: Actmax, tmp_path: Path) -> None:
        assert actmax(*JOB, "hydra.run.dir=job").code == 0
        job = tmp_path / "job"
        (job / ".git").mkdir()
        mine = {"notes.md": "mine", "words.csv": "word,category\n", ".git/HEAD": "ref\n", "run.log": "mine"}
        for name, text in mine.items():
            (job / name).write_text(text)
        ran = actmax(*JOB, "hydra.run.dir=job", "force=true")
        assert ran.code == 0, ran.err
        (old,) = (job / "previous").iterdir()
        assert {"status.json", "config.yaml", "summary.json", "tokens.parquet"} <= {file.name for file in old.iterdir()}
        assert not {name.partition("/")[0] for name in mine} & {file.name for file in old.iterdir()}
        assert {name: (job / name).read_text() for name in mine} == mine

    def test_a_new_folder_an_empty_one_and_a_try_that_was_killed_are_taken(
        self, actmax: Actmax, tmp_path: Path
    ) -> None:
        (tmp_path / "empty").mkdir()
        assert actmax(*JOB, "hydra.run.dir=empty").code == 0
        shutil.copytree(tmp_path / "empty/.hydra", tmp_path / "killed/.hydra")  # before its status was written
        (tmp_path / "killed/.status.json.x1y2").write_text("{")
        (tmp_path / "killed/actmax.log").touch()
        assert actmax(*JOB, "hydra.run.dir=killed").code == 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, session_cache: Path) -> Path:
    """One complete job, made once."""
    return ran_in(tmp_path_factory.mktemp("whole"), session_cache, *JOB, "hydra.run.dir=job") / "job"


class TestDamagedAtARerun:
    """The same command on a complete record of which something went away names the file and the way out."""

    FILES = ("config.yaml", "summary.json", "status.json", "tokens.parquet", "units.parquet")
    CASES = (*((name, how) for name in FILES for how in ("missing", "damaged")),)
    CASES += tuple(("embeddings.safetensors", how) for how in ("missing", "damaged", "changed"))

    @pytest.mark.parametrize(("name", "how"), CASES)
    def test_is_named_and_force_runs_it_again(
        self, actmax: Actmax, whole: Path, tmp_path: Path, name: str, how: str
    ) -> None:
        job = Path(shutil.copytree(whole, tmp_path / "job"))
        if how == "missing":
            (job / name).unlink()
        elif how == "changed":  # another number, in a file of the same size and the same shape
            content = bytearray((job / name).read_bytes())
            content[-5] ^= 64
            (job / name).write_bytes(content)
        else:
            (job / name).write_bytes((job / name).read_bytes()[:11] + b"\xff")
        ran = actmax(*JOB, "hydra.run.dir=job")
        assert ran.code == 2, ran.out
        assert ran.err.startswith(f"actmax: hydra.run.dir={job}: its record is damaged")
        assert name in ran.err
        assert "force=true moves that record aside" in ran.err
        assert ran.err.count("\n") == 1
        if name == "status.json":
            again = actmax(*JOB, "hydra.run.dir=job", "force=true")
            assert again.code == 0, again.err
            assert (next((job / "previous").iterdir()) / "tokens.parquet").exists()

    def test_a_whole_one_is_shown(self, actmax: Actmax, whole: Path, tmp_path: Path) -> None:
        shutil.copytree(whole, tmp_path / "job")
        ran = actmax(*JOB, "hydra.run.dir=job", "report=true")
        assert ran.code == 0, ran.err
        assert "would another start give the same answer?" in ran.out

    def test_tensors_from_before_digests_were_kept_are_taken(self, actmax: Actmax, whole: Path, tmp_path: Path) -> None:
        file = Path(shutil.copytree(whole, tmp_path / "job")) / "embeddings.safetensors"
        save_file(load_file(file), file)
        assert actmax(*JOB, "hydra.run.dir=job").code == 0

    def test_in_a_sweep_it_is_named_too(self, actmax: Actmax, made: Path, tmp_path: Path) -> None:
        shutil.copytree(made, tmp_path / "outputs/s")
        broken = jobs_of(tmp_path / "outputs/s")[1]
        (broken / "tokens.parquet").unlink()
        ran = actmax(*SWEEP)
        assert ran.code == 1
        assert "tokens.parquet is missing" in ran.out
        assert "force=true" in ran.out


def test_what_a_killed_process_was_writing_is_deleted_at_the_next_start(
    actmax: Actmax, whole: Path, tmp_path: Path
) -> None:
    job = Path(shutil.copytree(whole, tmp_path / "job"))
    status = json.loads((job / "status.json").read_text())
    (job / "status.json").write_text(json.dumps({**status, "state": "failed"}))
    (job / "checkpoints").mkdir(exist_ok=True)
    ours = ("checkpoints/.last.ckpt.a1b2c3_d", ".status.json.abcdefgh", ".units.parquet.00000000")
    others = (".last.ckpt.mine", "checkpoints/.last.ckpt.a1b2c3_d.txt", ".notes.txt.abcdefgh")
    for name in (*ours, *others):
        (job / name).write_text("half of it")
    assert actmax(*JOB, "hydra.run.dir=job", "steps=4").code == 2  # another job's: nothing is touched
    assert all((job / name).exists() for name in ours)
    ran = actmax(*JOB, "hydra.run.dir=job")
    assert ran.code == 0, ran.err
    assert not [name for name in ours if (job / name).exists()]
    assert all((job / name).exists() for name in others)


@pytest.mark.parametrize(
    "changed",
    [
        {"started": "../../../x"},
        {"started": "/etc/passwd"},
        {"started": 7},
        {"finished": "soon"},
        {"state": "fine"},
        {"error": "none"},
        {"job_hash": 3},
        {"version": "5"},
        {"more": 1},
    ],
)
def test_a_status_with_something_else_in_it_is_damaged(
    actmax: Actmax, tmp_path: Path, made: Path, changed: dict[str, Any]
) -> None:
    job = Path(shutil.copytree(jobs_of(made)[0], tmp_path / "inside/job"))
    status = json.loads((job / "status.json").read_text())
    (job / "status.json").write_text(json.dumps(status | changed))
    seed = yaml.safe_load((job / "config.yaml").read_text())["seeds"]
    command = ("subject=tiny", "steps=3", f"seeds={seed}", *SWEEP[5:], f"hydra.run.dir={job}")
    ran = actmax(*command)
    assert ran.code == 2
    assert "status.json" in ran.err
    assert "force=true" in ran.err
    ran = actmax(*command, "force=true")
    assert ran.code == 0, ran.err
    assert sorted(item.name for item in (tmp_path / "inside").iterdir()) == ["job"]
    assert sorted(item.name for item in tmp_path.iterdir()) == ["inside"]
    assert len(list((job / "previous").iterdir())) == 1


def test_a_status_nested_too_deeply_is_damaged(actmax: Actmax, tmp_path: Path, made: Path) -> None:
    """Python's parser raises no `ValueError` of that."""
    swept = Path(shutil.copytree(made, tmp_path / "swept"))
    job = jobs_of(swept)[0]
    seed = yaml.safe_load((job / "config.yaml").read_text())["seeds"]
    (job / "status.json").write_text('{"a":' * 10**5)
    command = ("subject=tiny", "steps=3", f"seeds={seed}", *SWEEP[5:], f"hydra.run.dir={job}")
    ran = actmax(*command)
    assert ran.code == 2
    assert "status.json" in ran.err
    assert "force=true" in ran.err
    report([str(swept), "--jobs", "0"])
    assert actmax(*command, "force=true").code == 0
    assert actmax(*command).code == 0


def test_collecting_asks_no_hub(
    swept: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name in a record is nobody's wish to ask a hub for it."""
    asked = []

    def snapshot(name: str, *, local_files_only: bool, **_: object) -> str:
        asked.append(local_files_only)
        raise huggingface_hub.errors.LocalEntryNotFoundError(name)

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    for job in jobs_of(swept):
        config(job, subject__source="hub", subject__id="someone/else")
    collected(swept, capfd)
    assert asked
    assert all(asked)
    with pytest.raises(InputError):  # a person who names it, does wish so
        locate(source="hub", id="someone/else", revision=None, path=None, wheel=None)
    assert not all(asked)
