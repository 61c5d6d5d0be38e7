"""What a folder of records becomes, also half of it, also damaged."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import yaml

from actmax.app.report import main
from actmax.errors import InputError
from actmax.evidence.findings import findings_of
from actmax.evidence.readings import OwnStatus
from actmax.records import collect as reading
from actmax.records.collect import Job
from actmax.records.store import VERSION, Record
from actmax.report.words import restarts_statement
from actmax.tasks.collect import collect
from cli import QUICK, Actmax

SWEEP = ("-m", "subject=tiny", "steps=4", "sweep=s", "seeds=0,1,2,3", *QUICK)


@pytest.fixture
def swept(actmax: Actmax, tmp_path: Path) -> Path:
    ran = actmax(*SWEEP)
    assert ran.code == 0, ran.err
    return tmp_path / "outputs/s"


def test_damaged_and_foreign_records_are_named_and_left_out(swept: Path) -> None:
    jobs = sorted(swept.glob("tiny_*"))
    (jobs[0] / "tokens.parquet").write_bytes((jobs[0] / "tokens.parquet").read_bytes()[:200])
    Record(jobs[1]).write_json("status.json", {**json.loads((jobs[1] / "status.json").read_text()), "version": 99})
    (jobs[2] / "summary.json").write_text("{")
    found = collect(swept)
    reasons = dict(found.left_out)
    assert set(reasons) == {job.name for job in jobs[:3]}
    assert "99" in reasons[jobs[1].name]
    assert str(VERSION) in reasons[jobs[1].name]
    assert "damaged" in reasons[jobs[0].name]
    tokens = pd.read_parquet(swept / "tokens.parquet")
    assert set(tokens["job"]) == {jobs[3].name}
    assert found.table("units").loc[0, "restarts"] == 1
    said = json.loads((swept / "sweep.json").read_text())
    assert {row["record"] for row in said["left_out"]} == set(reasons)


def test_works_with_half_of_it_missing(swept: Path) -> None:
    whole = collect(swept)
    assert whole.table("units").loc[0, "restarts"] == 4
    jobs = sorted(swept.glob("tiny_*"))
    shutil.rmtree(jobs[0])
    for file in [*jobs[1].glob("*.parquet"), jobs[1] / "summary.json"]:
        file.unlink()
    status = json.loads((jobs[1] / "status.json").read_text())
    Record(jobs[1]).write_json("status.json", {**status, "state": "running", "finished": None})
    found = collect(swept)
    assert found.left_out == ()
    assert found.summary["jobs"] == {
        "total": 3,
        "complete": 2,
        "failed": 0,
        "interrupted": 0,
        "running": 0,
        "died": 1,
    }
    assert found.table("units").loc[0, "restarts"] == 2


def test_each_table_is_read_once_and_twice_where_it_is_not_held(swept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads, read = Counter(), Job._read
    monkeypatch.setattr(Job, "_read", lambda job, name: (reads.update([(job.name, name)]), read(job, name))[1])
    held = collect(swept)
    written = {file.name: pd.read_parquet(file) for file in swept.glob("*.parquet")}
    assert set(reads.values()) == {1}
    reads.clear()
    monkeypatch.setattr(reading, "HELD", 0)
    monkeypatch.setattr(reading, "ROW_GROUP", 1)
    again = collect(swept)
    # a sweep has findings of its own, over all jobs
    assert min(count for (_, name), count in reads.items() if name != "findings") >= 2
    pd.testing.assert_frame_equal(held.table("units"), again.table("units"))
    for file, table in written.items():
        pd.testing.assert_frame_equal(table, pd.read_parquet(swept / file))


def test_units_of_several_jobs_spent_what_one_of_them_did(swept: Path) -> None:
    """A restart is set beside the best of as many random sequences as it took passes, whichever job it ran in."""
    jobs = [pd.read_parquet(file)["passes"].iloc[0] for file in swept.glob("*/units.parquet")]
    steps = yaml.safe_load(next(swept.glob("*/config.yaml")).read_text())["steps"]
    found = collect(swept).table("units")
    assert set(jobs) == {2 * steps} == set(found["passes"])  # forward and backward
    assert (found["jobs"] > 1).all()


def test_other_conditions_stay_apart(swept: Path, actmax: Actmax) -> None:
    actmax(*SWEEP, "optimizer.lr=0.01")
    found = collect(swept)
    assert len(found.table("units")) == 2
    assert found.table("units")["condition"].is_unique
    assert set(found.jobs["optimizer.lr"]) == {"0.001", "0.01"}


@pytest.mark.slow
def test_units_of_several_jobs_are_set_against_each_other(actmax: Actmax, tmp_path: Path) -> None:
    same = ("subject=tiny", "subject.dtype=float64", "steps=30", "seeds='0:6'", *QUICK, "nulls.displacements=50")
    ran = actmax("-m", *same, "sweep=s", "unit.index=90,91,92")
    assert ran.code == 0, ran.err
    together = actmax(*same, "unit.index=[90,91,92]", "hydra.run.dir=one")
    assert together.code == 0, together.err
    swept, one = (pd.read_parquet(tmp_path / place / "units.parquet") for place in ("outputs/s", "one"))
    columns = ["verdict", "verdict_tokens", "verdict_embeddings", "verdict_status", "answer"]
    columns += ["own", "own_units", "own_seeds", "null_own_tokens_draws", "null_direction_draws"]
    pd.testing.assert_frame_equal(swept[columns], one[columns])
    said = [[restarts_statement({"units": 1, **row}) for row in rows.to_dict("records")] for rows in (swept, one)]
    assert said[0] == said[1]
    findings = findings_of(pd.read_parquet(tmp_path / "outputs/s/findings.parquet"))
    assert Counter(found.measure for found in findings) == Counter(
        found.measure for found in findings_of(pd.read_parquet(tmp_path / "one/findings.parquet"))
    )
    assert (swept["own"] == "ok").all()
    for p in ("null_direction_p", "null_shared_tokens_p"):
        assert (swept[p] - one[p]).abs().max() < 1e-9
    alone = pd.concat([pd.read_parquet(job / "units.parquet") for job in (tmp_path / "outputs/s").glob("tiny_*")])
    assert set(alone["own"]) == {OwnStatus.ONE_UNIT}  # which one job cannot know


def test_a_subject_that_is_not_here_is_said(swept: Path) -> None:
    for file in swept.glob("*/config.yaml"):
        text = file.read_text().replace("source: random", "source: hub").replace("id: null", "id: no/such")
        file.write_text(text)
    found = collect(swept)
    assert not len(found.table("units"))
    assert "4 jobs were not put together" in found.notes[0]
    assert len(pd.read_parquet(swept / "tokens.parquet")) == 20


@pytest.mark.slow
def test_the_command(swept: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (swept / "sweep.json").unlink()
    main([str(swept)])
    said = capfd.readouterr().out
    assert "4 complete" in said
    assert (swept / "sweep.json").exists()
    main([str(next(swept.glob("tiny_*")))])  # a job's own folder is shown, and nothing in it is written over
    assert "would another start give the same answer?" in capfd.readouterr().out
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit) as end:
        main([str(tmp_path / "empty")])
    assert end.value.code == 2
    assert "must hold records" in capfd.readouterr().err


def test_of_no_record_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must hold records"):
        collect(tmp_path / "nowhere")


def test_findings_of_tasks_in_one_folder_stand_together(actmax: Actmax, tmp_path: Path) -> None:
    both = ("sweep=s", "logger=none", "page=false", "report=false")
    assert actmax("subject=tiny", "steps=4", "seeds='0:2'", *both, *QUICK[:4]).code == 0
    assert actmax("task=simulation", "simulation.effects=[0,1]", "simulation.repetitions=5", *both).code == 0
    found = collect(tmp_path / "outputs" / "s")
    assert len(found.jobs) == 2
    findings = pd.read_parquet(tmp_path / "outputs" / "s" / "findings.parquet")
    folder = tmp_path / "outputs" / "s"
    alone = {file.parent.name: pd.read_parquet(file) for file in folder.glob("*/findings.parquet")}
    assert len(alone) == 2
    assert len(findings) == sum(map(len, alone.values()))
