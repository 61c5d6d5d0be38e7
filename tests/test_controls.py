"""Control units: how many a job adds, which, that every table marks them, and that no number of the job's own changes.

They run beside the job's own units from the same seeds, so that one job can tell what is its unit's own.
"""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import actmax as library
from actmax.evidence.findings import findings_of, unit_findings
from actmax.evidence.readings import DecisionStatus, OwnStatus, Verdict
from actmax.model.target import UNIT, Unit, target_of_row
from actmax.records.store import Record
from actmax.tasks.units.measure import summarize
from cli import QUICK, Actmax, Ran, start

BASE = ("subject=tiny", "subject.dtype=float64", "steps=4", *(part for part in QUICK if "controls" not in part))
SEARCH = ("task=search", "search=epo", "search.passes=40", "search.candidates=8", "search.top_k=8")
MARKED = {"units", "restarts", "tokens", "candidates", "trajectory", "rarefaction", "gaps"}
"""Tables that hold rows of control units."""
JUDGED = ("own", "verdict", "answer", "null_own", "null_direction", "direction")
"""Beginnings of the columns that say what other units have to do with a unit."""


def done(ran: Ran, place: str = "job") -> Path:
    assert ran.code == 0, ran.err
    return ran.folder / place


def summary(job: Path) -> dict[str, Any]:
    return json.loads((job / "summary.json").read_text())


def table(job: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(job / f"{name}.parquet")


def own(rows: pd.DataFrame) -> pd.DataFrame:
    """What is left when the rows of control units are dropped by hand."""
    return rows[~rows["control"]].reset_index(drop=True)


class TestNumber:
    @pytest.mark.parametrize(
        ("asked", "expected"),
        [
            (("seeds='0:6'",), 2),
            (("seeds='0:6'", "controls=auto"), 2),
            (("seeds='0:6'", "controls=0"), 0),
            (("seeds='0:6'", "controls=3"), 3),
            (("seeds='0:5'",), 3),
            (("seeds='0:10'", "unit.index=[3,5,7]"), 0),
            (("seeds='0:10'", "unit.index=[3,5]"), 1),
            (("seeds='0:2'",), 0),
            (("seeds='0:2'", "controls=1"), 1),
        ],
        ids=lambda asked: " ".join(asked) if isinstance(asked, tuple) else str(asked),
    )
    def test_of_control_units(self, asked: tuple[str, ...], expected: int, actmax: Actmax) -> None:
        job = done(actmax(*BASE, *asked, "steps=1", "hydra.run.dir=job"))
        assert len(summary(job)["controls"]) == int(table(job, "units")["control"].sum()) == expected

    @pytest.mark.parametrize("value", ["-1", "many", "1.5", "true"])
    def test_that_is_none_is_refused_in_one_message(self, value: str, actmax: Actmax) -> None:
        ran = actmax(*BASE, f"controls={value}")
        assert ran.code == 2
        (message,) = (line for line in ran.err.splitlines() if line.startswith("actmax: "))
        assert message.startswith(f"actmax: controls={value.capitalize() if value == 'true' else value}: must be")
        assert "auto" in message
        assert "Traceback" not in ran.err
        assert not ran.jobs

    def test_is_that_of_the_site_where_it_has_no_more(self, actmax: Actmax) -> None:
        small = ("subject.architecture.n_embd=8", "subject.architecture.n_head=2", "unit.index=[0,1,2]", "seeds='0:2'")
        job = done(actmax(*BASE, *small, "unit.layer=1", "controls=20", "steps=1", "hydra.run.dir=job"))
        assert sorted(table(job, "units")["index"]) == list(range(8))
        assert len(summary(job)["controls"]) == 5


class TestWhich:
    @pytest.mark.slow
    def test_are_the_same_for_every_job_on_a_site_and_layer(self, actmax: Actmax) -> None:
        def controls(place: str, *overrides: str) -> list[Unit]:
            job = done(actmax(*BASE, "steps=1", "seeds='0:2'", f"hydra.run.dir={place}", *overrides), place)
            rows = table(job, "units")
            found = [target_of_row(row) for row in rows[rows["control"]].to_dict("records")]
            assert [str(unit) for unit in found] == summary(job)["controls"]
            return found

        first = controls("first", "unit.index=3", "controls=2")
        assert controls("second", "unit.index=[5,7]", "controls=2", "seeds='4:7'", "tokens=3") == first
        assert controls("more", "unit.index=3", "controls=3")[:2] == first
        assert controls("layer", "unit.index=3", "unit.layer=2", "controls=2") != first
        assert {unit.place for unit in first} == {("resid_pre", 8)}
        # a unit that is asked for is no control, and the next one takes its place
        again = controls("itself", f"unit.index={first[0].index}", "controls=2")
        assert again[0] == first[1]
        assert first[0] not in again

    def test_of_several_layers_come_from_each_in_turn(self, actmax: Actmax) -> None:
        units = ("unit.layer=[2,4]", "unit.index=3", "seeds='0:2'", "controls=3", "steps=1")
        job = done(actmax(*BASE, *units, "hydra.run.dir=job"))
        rows = table(job, "units")
        assert rows[rows["control"]]["layer"].tolist() == [2, 4, 2]

    def test_of_a_site_without_layers(self, actmax: Actmax) -> None:
        job = done(actmax(*BASE, "unit=final_norm", "seeds='0:3'", "controls=2", "steps=1", "hydra.run.dir=job"))
        assert table(job, "units")["control"].tolist() == [False, True, True]
        assert int(table(job, "restarts")["control"].sum()) == 6


class TestMarked:
    @pytest.mark.parametrize("task", [("prior=[l2]", "rounding.restarts=1"), SEARCH], ids=["maximization", "search"])
    def test_in_every_table(self, task: tuple[str, ...], actmax: Actmax) -> None:
        job = done(actmax(*BASE, *task, "seeds='0:3'", "controls=2", "hydra.run.dir=job"))
        names = set(summary(job)["controls"])
        assert len(names) == 2
        tables = {file.stem: pd.read_parquet(file) for file in job.glob("*.parquet")}
        marked = MARKED | ({"front"} & set(tables)) | {"transfer"}
        assert {name for name, rows in tables.items() if "control" in rows} == marked
        assert not tables.pop("transfer")["control"].any()  # control units are not tried elsewhere
        for name, rows in tables.items():
            addresses = [str(target_of_row(row)) for row in rows.to_dict("records")] if set(UNIT) <= set(rows) else []
            about = np.array([address in names for address in addresses], dtype=bool)
            if "control" in rows:
                assert rows["control"].dtype == bool, name
                assert rows["control"].tolist() == about.tolist(), name
                assert 0 < about.sum() < len(rows), name
            else:
                assert not about.any(), name  # a table that marks none holds none
        assert len(load_file(job / "embeddings.safetensors")["final"]) == len(tables["restarts"]) == 9

    def test_without_any_the_column_is_there_all_the_same(self, actmax: Actmax) -> None:
        job = done(actmax(*BASE, "seeds='0:3'", "controls=0", "hydra.run.dir=job"))
        for name in MARKED:
            rows = table(job, name)
            assert rows["control"].dtype == bool
            assert not rows["control"].any()
        assert summary(job)["controls"] == []


class TestHeadlineNumbers:
    JOB = ("seeds='0:6'", "prior=[l2]", "logger=csv", "callbacks.measures.every=2")

    @pytest.fixture
    def jobs(self, actmax: Actmax) -> tuple[Path, Path]:
        """The same job with control units and without."""
        return tuple(
            done(actmax(*BASE, *self.JOB, f"controls={count}", f"hydra.run.dir=c{count}"), f"c{count}")
            for count in (2, 0)
        )

    def test_are_those_of_the_tables_without_their_rows(self, jobs: tuple[Path, Path]) -> None:
        found, (row,) = summary(jobs[0]), own(table(jobs[0], "units")).to_dict("records")
        for name, value in summarize([{key: part for key, part in row.items() if key != "control"}]).items():
            assert found[name] == value or (found[name] is None and pd.isna(value)), name
        expected = [repr(one) for one in unit_findings(row)]
        assert list(map(repr, findings_of(table(jobs[0], "findings")))) == expected
        assert list(map(repr, findings_of(found["findings"]))) == expected
        assert found["units"] == 1
        tokens = own(table(jobs[0], "tokens"))
        assert found["tokens_unique"] == tokens["token_id"].nunique()
        assert found["tokens_unique"] != table(jobs[0], "tokens")["token_id"].nunique()  # theirs would be counted

    def test_are_those_of_the_job_without_control_units(self, jobs: tuple[Path, Path]) -> None:
        """Beyond rounding, but for what is asked about other units."""
        rows = [own(table(job, "units")) for job in jobs]
        numbers = [name for name in rows[1].select_dtypes("number") if not name.startswith(JUDGED)]
        assert len(numbers) > 80
        pd.testing.assert_frame_equal(*(row[numbers] for row in rows), check_exact=False, rtol=1e-9, atol=1e-9)
        for name in MARKED - {"units"}:
            pair = (own(table(job, name)) for job in jobs)
            pd.testing.assert_frame_equal(*pair, check_exact=False, rtol=1e-9, atol=1e-9)
        compared = (table(job, "comparison") for job in jobs)
        pd.testing.assert_frame_equal(*compared, check_exact=False, rtol=1e-6, atol=1e-9)
        priors = [summary(job)["priors"]["l2"] for job in jobs]
        assert priors[0].keys() == priors[1].keys()
        for name in ("coefficient_mean", "initial_mean", "final_mean"):
            assert priors[0][name] == pytest.approx(priors[1][name], rel=1e-9)
        assert [row["own"].item() for row in rows] == [OwnStatus.OK, OwnStatus.ONE_UNIT]
        assert rows[0]["own_units"].item() == 3

    def test_that_run_along_are_the_same(self, jobs: tuple[Path, Path]) -> None:
        logged = [pd.read_csv(next((job / "logs").rglob("metrics.csv"))) for job in jobs]
        assert len(logged[0]) == 2
        pd.testing.assert_frame_equal(*logged, check_exact=False, rtol=1e-6)
        everyone = table(jobs[0], "trajectory").query("step == 3")["activation"].mean()
        assert logged[0]["activation"].iloc[-1] != pytest.approx(everyone, rel=1e-3)  # theirs would be seen

    def test_of_several_units_are_means_over_these(self, actmax: Actmax) -> None:
        job = done(actmax(*BASE, "seeds='0:4'", "unit.index=[5,7]", "controls=2", "hydra.run.dir=job"))
        found, units = summary(job), own(table(job, "units"))
        assert found["units"] == len(units) == 2
        for name in ("activation_final_mean", "direction"):
            assert found[name]["mean"] == pytest.approx(units[name].mean())
            assert found[name]["mean"] != pytest.approx(table(job, "units")[name].mean())
        counts = {row["verdict"]: row["count"] for row in found["verdicts"]}
        assert {name: count for name, count in counts.items() if count} == units["verdict"].value_counts().to_dict()
        assert set(table(job, "findings")["index"]) == {5, 7}
        assert set(found["comparison"]["units"]) == {"resid_pre.8[5]", "resid_pre.8[7]"}

    def test_of_a_search_are_those_of_its_own_units(self, actmax: Actmax) -> None:
        job = done(actmax(*BASE, *SEARCH, "seeds='0:3'", "controls=2", "hydra.run.dir=job"))
        found, restarts = summary(job), own(table(job, "restarts"))
        assert found["search"]["activation_best"] == restarts["activation_final"].max()
        assert found["search"]["activation_mean"] == pytest.approx(restarts["activation_final"].mean())
        assert found["search"]["forward_passes"] == restarts["forward_passes"].sum()
        assert found["search"]["forward_passes"] < table(job, "restarts")["forward_passes"].sum()


class TestIdentity:
    def test_is_the_resolved_number(self, actmax: Actmax) -> None:
        def named(count: str) -> tuple[str, str]:
            place = f"c{count}"
            job = done(actmax(*BASE, "seeds='0:6'", "steps=1", f"controls={count}", f"hydra.run.dir={place}"), place)
            found = summary(job)
            return found["job_hash"], found["condition"]

        auto, two, three = map(named, ("auto", "2", "3"))
        assert auto == two
        assert three[0] != two[0]
        assert three[1] == two[1]  # jobs with other controls may be put together

    def test_auto_finds_the_job_complete_that_was_asked_for_with_2(self, actmax: Actmax) -> None:
        job = (*BASE, "seeds='0:6'", "steps=1", "hydra.run.dir=job")
        done(actmax(*job, "controls=2"))
        again = actmax(*job, "controls=auto")
        assert "This job is complete" in again.out
        assert actmax(*job, "controls=1").code == 2


class TestSweep:
    PARTS = ("-m", *BASE, "unit.index=7", "seeds='0:3','3:6'", "sweep=s")

    def test_over_seeds_pools_a_unit_with_its_controls(self, actmax: Actmax, tmp_path: Path) -> None:
        ran = actmax(*self.PARTS, "controls=2")
        assert ran.code == 0, ran.err
        (swept,) = table(tmp_path / "outputs/s", "units").to_dict("records")
        assert (swept["own"], swept["own_units"], swept["own_seeds"]) == (OwnStatus.OK, 3, 6)
        assert (swept["restarts"], swept["jobs"], swept["control"]) == (6, 2, False)
        alone = pd.concat([own(table(job, "units")) for job in ran.jobs])
        assert set(alone["own"]) == {OwnStatus.OUT_OF_REACH}  # which three seeds of one job cannot tell
        one = done(actmax(*BASE, "unit.index=7", "seeds='0:6'", "controls=2", "hydra.run.dir=one"), "one")
        (row,) = own(table(one, "units")).to_dict("records")
        for name in ("verdict", "verdict_tokens", "verdict_embeddings", "verdict_status", "answer", "gap"):
            assert swept[name] == row[name], name
        for name in ("direction", "null_direction_p", "null_direction_high", "kappa_embeddings", "shared_tokens"):
            assert swept[name] == pytest.approx(row[name], abs=1e-9), name
        assert row["verdict_embeddings"] not in (Verdict.NOT_JUDGED, Verdict.CHANCE)
        findings = [table(place, "findings") for place in (tmp_path / "outputs/s", one)]
        assert findings[0]["measure"].tolist() == findings[1]["measure"].tolist()
        assert set(findings[0]["index"]) == {7}

    def test_over_seeds_without_controls_cannot_judge(self, actmax: Actmax, tmp_path: Path) -> None:
        assert actmax(*self.PARTS, "controls=0").code == 0
        (swept,) = table(tmp_path / "outputs/s", "units").to_dict("records")
        assert (swept["own"], swept["verdict_embeddings"]) == (OwnStatus.ONE_UNIT, Verdict.NOT_JUDGED)

    def test_over_units_has_no_row_of_a_control(self, actmax: Actmax, tmp_path: Path) -> None:
        ran = actmax("-m", *BASE, "unit.index=7,9", "seeds='0:6'", "sweep=s", "controls=2")
        assert ran.code == 0, ran.err
        folder = tmp_path / "outputs/s"
        units = table(folder, "units")
        assert units["index"].tolist() == [7, 9]
        assert units["own_units"].tolist() == [3, 3]  # each with its job's controls
        assert table(folder, "layers")["units"].tolist() == [2]
        assert set(table(folder, "findings")["index"]) == {7, 9}
        said = json.loads((folder / "sweep.json").read_text())
        assert [row["units"] for row in said["overall"]] == [2]

    def test_a_control_that_another_job_asks_for_is_judged_there(self, actmax: Actmax, tmp_path: Path) -> None:
        first = done(actmax(*BASE, "unit.index=7", "seeds='0:6'", "controls=1", "steps=1", "hydra.run.dir=one"), "one")
        index = target_of_row(table(first, "units").iloc[1].to_dict()).index
        ran = actmax("-m", *BASE, f"unit.index=7,{index}", "seeds='0:6'", "sweep=s", "controls=2")
        assert ran.code == 0, ran.err
        units = table(tmp_path / "outputs/s", "units")
        assert sorted(units["index"]) == sorted([7, index])
        assert not units["control"].any()
        assert set(units["jobs"]) == {1}


class TestInterrupted:
    LONG = (*BASE, "steps=120", "seeds='0:3'", "callbacks.checkpoint.every=20", "controls=2")

    @pytest.mark.slow
    def test_a_killed_job_goes_on_with_its_controls(self, actmax: Actmax, tmp_path: Path) -> None:
        process = start(tmp_path, *self.LONG, "hydra.run.dir=cut")
        file, deadline = Record(tmp_path / "cut").checkpoint, time.monotonic() + 120
        while not file.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL
        cut, whole = (done(actmax(*self.LONG, f"hydra.run.dir={place}"), place) for place in ("cut", "whole"))
        assert "Going on from step" in (cut / "actmax.log").read_text()
        assert torch.equal(*(load_file(job / "embeddings.safetensors")["final"] for job in (cut, whole)))
        for name in MARKED:
            pd.testing.assert_frame_equal(table(cut, name), table(whole, name), check_exact=True)
        assert summary(cut)["controls"] == summary(whole)["controls"] != []

    def test_a_checkpoint_of_other_controls_is_refused(self, actmax: Actmax, tmp_path: Path) -> None:
        job = (*BASE, "seeds='0:2'", "callbacks.checkpoint.every=2", "hydra.run.dir=here")
        record = Record(done(actmax(*job, "controls=1"), "here"))
        status = json.loads(record.path("status.json").read_text())
        record.write_json("status.json", {**status, "state": "interrupted"})
        refused = actmax(*job, "controls=2")
        assert refused.code == 2
        assert "another job" in refused.err


@pytest.mark.slow
@pytest.mark.parametrize("seeds", ["0:3", "0:2"])
def test_two_devices_give_the_tables_of_one(seeds: str, actmax: Actmax) -> None:
    """Of 9 rows rank 1 has five, all of them of control units."""
    job = (*BASE, "steps=12", f"seeds='{seeds}'", "controls=2", "logger=csv", "callbacks.measures.every=5")
    places = {"one": "trainer.devices=1", "two": "trainer.devices=2"}
    one, two = (done(actmax(*job, devices, f"hydra.run.dir={place}"), place) for place, devices in places.items())
    for name in MARKED:
        pd.testing.assert_frame_equal(table(one, name), table(two, name), check_exact=False, rtol=0, atol=1e-9)
    logged = [pd.read_csv(next((place / "logs").rglob("metrics.csv"))) for place in (one, two)]
    assert len(logged[0]) == 3
    pd.testing.assert_frame_equal(*logged, check_exact=False, rtol=1e-6)
    assert summary(one)["controls"] == summary(two)["controls"]


SMALL = {
    "nulls": {"draws": 299, "displacements": 20},
    "gap": {"draws": 40},
    "transfer": {"draws": 40},
    "meaning": {"embedder": "none"},
    "progress": False,
}


@pytest.fixture(scope="module")
def lm() -> library.LanguageModel:
    return library.load("tiny", dtype="float64")


class TestPython:
    @pytest.mark.parametrize(("argument", "override"), [({}, "auto"), ({"controls": 1}, "1")])
    def test_equals_the_command(
        self, argument: dict[str, int], override: str, lm: library.LanguageModel, actmax: Actmax
    ) -> None:
        found = lm.maximize("resid_pre.3[7]", seeds=6, steps=4, **argument, **SMALL)
        unit = ("unit.layer=3", "unit.index=7", "seeds='0:6'", f"controls={override}")
        job = done(actmax(*BASE, *unit, "hydra.run.dir=job"))
        for name in found.tables:
            pd.testing.assert_frame_equal(found.table(name), table(job, name), check_exact=True)
        assert found.summary["controls"] == summary(job)["controls"]
        assert found.verdict == summary(job)["verdict"]
        assert found.summary["job_hash"] == summary(job)["job_hash"]

    def test_of_a_search(self, lm: library.LanguageModel, actmax: Actmax) -> None:
        options = {"search": {"candidates": 8, "top_k": 8}, **SMALL}
        found = lm.search("resid_pre.3[7]", method="epo", passes=40, seeds=3, controls=2, **options)
        unit = ("unit.layer=3", "unit.index=7", "seeds='0:3'", "controls=2")
        job = done(actmax(*BASE, *SEARCH, *unit, "hydra.run.dir=job"))
        pd.testing.assert_frame_equal(found.units, table(job, "units"), check_exact=True)
        assert found.units["control"].tolist() == [False, True, True]

    @pytest.mark.parametrize("value", [-1, "many", True])
    def test_names_the_argument(self, value: object, lm: library.LanguageModel) -> None:
        with pytest.raises(library.InputError, match=r"^controls="):
            lm.maximize("resid_pre.3[7]", seeds=6, steps=1, controls=value, **SMALL)

    def test_verdict_is_of_the_own_unit(self, lm: library.LanguageModel) -> None:
        found = lm.maximize("resid_pre.3[7]", seeds=6, steps=4, controls=2, **SMALL)
        assert found.verdict == own(found.units)["verdict"].item()
        assert found.summary["verdict_status"] in (DecisionStatus.OK, DecisionStatus.OTHER_UNITS_NOT_TESTED)
        assert len(found.verdicts) == 1


def test_restarts_start_from_the_record_of_a_job_with_controls(actmax: Actmax) -> None:
    """A seed of the record names the embedding of the job's own unit, not that of a control unit."""
    first = done(actmax(*BASE, "seeds=0:4", "controls=2", "hydra.run.dir=first"), "first")
    saved = load_file(first / "embeddings.safetensors")
    assert saved["control"].tolist() == [False] * 4 + [True] * 8
    again = done(
        actmax(*BASE, "seeds=[3,1]", "init=file", f"init.path={first}", "controls=1", "hydra.run.dir=again"), "again"
    )
    started = load_file(again / "embeddings.safetensors")
    expected = saved["final"][[3, 1]]
    assert torch.equal(started["initial"][:2].float(), expected.float())
    assert torch.equal(started["initial"][2:].float(), expected.float())  # controls start from the same embeddings
    assert not torch.equal(saved["final"][[7, 5]], expected)
