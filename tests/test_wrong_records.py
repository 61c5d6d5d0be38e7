"""Records that somebody damaged or changed: they are named and left out, and everything else goes on."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from actmax.__main__ import main as actmax_main
from actmax.app.report import main as report
from cli import QUICK, Actmax

SWEEP = ("-m", "subject=tiny", "steps=3", "sweep=s", "seeds=0,1,2", *QUICK, "nulls.draws=39", "report=false")
FOREIGN = {"name": "web", "services": {"db": {"image": "postgres"}}}
"""A config.yaml of another program."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, session_cache: Path) -> Path:
    """A sweep of three jobs, made once; tests damage copies."""
    folder = tmp_path_factory.mktemp("sweep")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("ACTMAX_CACHE", str(session_cache))
        patch.setattr(sys, "argv", ["actmax", *SWEEP])
        actmax_main()
    return folder / "outputs/s"


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
