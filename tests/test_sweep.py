"""Sweeps from the outside: what runs, what is skipped, what a failure leaves, what is collected."""

from __future__ import annotations

import json
import shlex
import signal
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from filelock import FileLock
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file

from actmax.app.config import conf_folder
from actmax.app.sweep import Composer
from actmax.model.subject import load
from actmax.records.store import Record
from actmax.report.words import restarts_statement
from cli import QUICK, Actmax, planted, start, states

TINY = ("subject=tiny", "subject.dtype=float64", "steps=12", "sweep=s", *QUICK)
TINY_MODEL = {"model_type": "gpt2", "n_layer": 3, "n_embd": 24, "n_head": 4, "n_positions": 32}
GRID = ("-m", *TINY, "seeds=0,1", "unit.layer=4,8", "unit.index=90,91")
TABLES = ("tokens", "restarts", "candidates", "trajectory", "units", "layers")


def tables(folder: Path) -> dict[str, pd.DataFrame]:
    return {name: pd.read_parquet(folder / f"{name}.parquet") for name in TABLES}


def started(folder: Path) -> dict[str, str]:
    return {file.parent.name: json.loads(file.read_text())["started"] for file in folder.rglob("*/status.json")}


def sweep_json(folder: Path) -> dict:
    return json.loads((folder / "sweep.json").read_text())


class TestComposer:
    """A job's config, composed from another's, is what Hydra itself composes."""

    @pytest.mark.parametrize(
        "overrides",
        [
            ["subject=tiny", "steps=7"],
            ["steps=7", "subject=tiny", "prior=[l2,fluency]", "prior.l2.weight=0.5"],
            ["seeds='0:5'", "unit.index=[3,5]", "++optimizer.options.eps=1e-3", "+callbacks.mine={a: 1}"],
            ["experiment=reproducibility", "unit=neuron", "unit.layer=3", "~callbacks.measures"],
            ["++decode.top_k=3", "hydra.job.name=other", "sweep='a, b'"],
            ["steps=8", "steps=9"],
        ],
        ids=" ".join,
    )
    def test_composes_as_hydra_does(self, overrides: list[str]) -> None:
        from hydra import initialize_config_dir
        from hydra.core.global_hydra import GlobalHydra
        from hydra.types import RunMode

        with initialize_config_dir(str(conf_folder()), version_base="1.3"):
            loader = GlobalHydra.instance().config_loader()
            master = loader.load_configuration("config", ["subject=tiny", "hydra.job.chdir=true"], RunMode.MULTIRUN)
            compose = Composer(loader, master)
            # once for the groups, once from what is known by then
            mine = [compose([*overrides, last]) for last in ("tokens=4", "tokens=3")][1]
            theirs = loader.load_sweep_config(master, [*overrides, "tokens=3"])
            other = loader.load_sweep_config(master, [*overrides, "tokens=4"])
        assert raw(mine) == raw(theirs)
        assert raw(mine) != raw(other)
        assert mine._get_flag("struct") is theirs._get_flag("struct") is True


def raw(cfg: DictConfig) -> object:
    return OmegaConf.to_container(cfg, resolve=False)


class TestSerial:
    @pytest.mark.slow
    def test_a_sweep_of_2x2x2(self, actmax: Actmax, tmp_path: Path) -> None:
        ran = actmax(*GRID)
        assert ran.code == 0, ran.err
        assert states(ran.jobs) == ["complete"] * 8
        folder = tmp_path / "outputs/s"
        found, said = tables(folder), sweep_json(folder)
        assert len(found["tokens"]) == 8 * 5
        assert len(found["units"]) == 4
        assert (found["units"]["restarts"] == 2).all()
        assert said["jobs"] == {"total": 8, "complete": 8, "failed": 0, "interrupted": 0, "running": 0, "died": 0}
        assert [row["layer"] for row in said["layers"]] == [4, 8]
        assert len(said["units"]) == 4
        jobs = pd.read_parquet(folder / "jobs.parquet")
        assert set(jobs["seeds"]) == {"0", "1"}
        assert "steps" not in jobs.columns  # it does not differ

    @pytest.mark.slow
    def test_restarts_of_several_jobs_are_measured_as_those_of_one(self, actmax: Actmax, tmp_path: Path) -> None:
        actmax(*GRID)
        actmax(*TINY, "seeds=[0,1]", "unit.layer=[4,8]", "unit.index=[90,91]", "hydra.run.dir=one")
        swept = tables(tmp_path / "outputs/s")["units"]
        one = pd.read_parquet(tmp_path / "one/units.parquet")
        numbers = one.select_dtypes("number").columns
        assert len(numbers) > 30
        assert (swept[numbers].astype(float) - one[numbers].astype(float)).abs().max().max() < 1e-9
        said = [[restarts_statement({"units": 1, **row}) for row in rows.to_dict("records")] for rows in (swept, one)]
        assert said[0] == said[1]
        alone = pd.concat([pd.read_parquet(job / "units.parquet") for job in (tmp_path / "outputs/s").glob("tiny_*")])
        assert (alone["tokens_unique"].max() < swept["tokens_unique"]).all()  # one job's numbers are not the unit's

    @pytest.mark.slow
    def test_the_same_command_again_runs_nothing(self, actmax: Actmax, tmp_path: Path) -> None:
        sweep = ("-m", *TINY, "unit.layer=4,8")
        actmax(*sweep, "seeds=0,1")
        before = started(tmp_path / "outputs/s")
        ran = actmax(*sweep, "seeds=0,1")
        assert ran.code == 0, ran.err
        assert "4 complete already, skipped" in ran.out
        assert started(tmp_path / "outputs/s") == before
        more = actmax(*sweep, "seeds=0,1,2")
        assert "2 new" in more.out
        assert len(started(tmp_path / "outputs/s")) == 6

    @pytest.mark.slow
    def test_force_runs_all_again_and_deletes_nothing(self, actmax: Actmax, tmp_path: Path) -> None:
        sweep = ("-m", *TINY, "seeds=0,1")
        actmax(*sweep)
        before = started(tmp_path / "outputs/s")
        ran = actmax(*sweep, "force=true")
        assert ran.code == 0, ran.err
        after = started(tmp_path / "outputs/s")
        assert len(list((tmp_path / "outputs/s").glob("*/previous/*/summary.json"))) == 2
        assert all(after[name] > before[name] for name in before)
        assert sweep_json(tmp_path / "outputs/s")["jobs"]["total"] == 2  # the old ones are no jobs of the sweep

    def test_report_false_collects_and_shows_nothing(self, actmax: Actmax, tmp_path: Path) -> None:
        ran = actmax("-m", *TINY, "seeds=0,1", "report=false")
        assert ran.code == 0, ran.err
        assert "Means over units" not in ran.out
        assert sweep_json(tmp_path / "outputs/s")["jobs"]["complete"] == 2
        assert "Means over units" in actmax("-m", *TINY, "seeds=0,1").out

    @pytest.mark.slow
    def test_other_weights_in_the_same_folder_are_another_job(self, actmax: Actmax, tmp_path: Path) -> None:
        for seed in (0, 1):
            subject = load(name="tiny", source="random", architecture=TINY_MODEL, seed=seed)
            subject.model.save_pretrained(tmp_path / f"model{seed}")
            subject.tokenizer.save_pretrained(tmp_path / f"model{seed}")
        sweep = ("-m", *TINY, f"subject.path={tmp_path / 'model0'}", "unit.layer=1", "unit.index=5", "seeds=0,1")
        assert actmax(*sweep).code == 0
        assert "2 complete already" in actmax(*sweep).out
        weights = "model.safetensors"
        (tmp_path / "model0" / weights).write_bytes((tmp_path / "model1" / weights).read_bytes())
        ran = actmax(*sweep)
        assert "complete already" not in ran.out
        assert ran.code == 1
        assert ran.out.count("it holds the record of another job") == 2
        assert actmax(*sweep, "force=true").code == 0

    def test_a_job_asked_for_twice_runs_once(self, actmax: Actmax, tmp_path: Path) -> None:
        ran = actmax("-m", *TINY, "seeds=0,'0:1'")
        assert ran.code == 0, ran.err
        assert len(started(tmp_path / "outputs/s")) == 1

    @pytest.mark.slow
    def test_a_job_that_another_process_runs_is_left_to_it(self, actmax: Actmax, tmp_path: Path) -> None:
        actmax("-m", *TINY, "seeds=0,1")
        (first, _) = sorted((tmp_path / "outputs/s").glob("tiny_*"))
        status = json.loads((first / "status.json").read_text())
        Record(first).write_json("status.json", {**status, "state": "running"})
        with FileLock(Record(first).lock):
            ran = actmax("-m", *TINY, "seeds=0,1")
            assert "1 running in another process" in ran.out
            assert sweep_json(tmp_path / "outputs/s")["jobs"]["running"] == 1
        assert ran.code == 0
        again = actmax("-m", *TINY, "seeds=0,1")  # nobody holds it: it had died
        assert "1 died before" in again.out
        assert states([first]) == ["complete"]

    @pytest.mark.slow
    def test_an_atlas_says_how_many_units_agree_and_draws_them(self, actmax: Actmax, tmp_path: Path) -> None:
        small = ("subject=tiny", "subject.architecture.n_embd=16", "subject.architecture.n_layer=2", "steps=3")
        ran = actmax("experiment=atlas", *small, *QUICK, "page=true", "nulls.displacements=39")
        assert ran.code == 0, ran.err
        folder = tmp_path / "outputs" / "atlas"
        units = pd.read_parquet(folder / "units.parquet")
        assert (len(units), len(ran.jobs)) == (32, 2)
        assert set(map(tuple, units[["layer", "index"]].to_numpy())) == {(a, b) for a in (0, 1) for b in range(16)}
        assert (folder / "figures" / "units.png").stat().st_size > 1000
        assert "Of 32 units" in ran.out
        trajectory = pd.read_parquet(ran.jobs[0] / "trajectory.parquet")
        assert sorted(set(trajectory["step"])) == [0, 3]

    @pytest.mark.slow
    def test_experiments_sweep_by_themselves(self, actmax: Actmax, tmp_path: Path) -> None:
        ran = actmax(*TINY[:2], "experiment=layers", "steps=2", "seeds=0", *QUICK)
        assert ran.code == 0, ran.err
        found = pd.read_parquet(tmp_path / "outputs/layers/units.parquet")
        assert sorted(found["layer"]) == list(range(10))  # tiny has ten
        one = actmax(*TINY[:2], "experiment=layers", "steps=2", "seeds=1", *QUICK, "hydra.mode=RUN")
        assert one.code == 0, one.err
        assert len(started(tmp_path / "outputs/layers")) == 11


class TestFailure:
    def test_leaves_the_others_and_the_same_command_runs_it_alone(self, actmax: Actmax, tmp_path: Path) -> None:
        sweep = ("-m", *TINY, "seeds=0,1,2", *planted(tmp_path / "plants"))
        (tmp_path / "plants/1").write_text("raise")
        ran = actmax(*sweep)
        assert ran.code == 1
        assert "1 of 3 jobs are not complete" in ran.err
        assert "RuntimeError: planted" in ran.out
        folder = tmp_path / "outputs/s"
        assert len(pd.read_parquet(folder / "tokens.parquet")) == 10  # collected, whatever failed
        (row,) = sweep_json(folder)["not_complete"]
        assert row["error"] == "RuntimeError: planted"
        assert "Traceback" in (folder / row["job"] / "actmax.log").read_text()
        before = started(folder)
        (command,) = (line.split("alone: ")[1] for line in ran.out.splitlines() if "alone: " in line)
        alone = actmax(*shlex.split(command)[1:])
        assert alone.code == 0, alone.err
        after = started(folder)
        assert [name for name in after if after[name] != before[name]] == [row["job"]]
        assert actmax(*sweep).code == 0

    def test_that_can_be_known_before_starts_nothing(self, actmax: Actmax, tmp_path: Path) -> None:
        ran = actmax("-m", *TINY, "unit.layer=8,9,10")
        assert ran.code == 2
        assert "unit.layer=10" in ran.err
        assert "0 to 9" in ran.err
        assert not (tmp_path / "outputs").exists()

    def test_of_every_job_before_its_record_is_named_too(self, actmax: Actmax) -> None:
        ran = actmax("-m", *TINY, "decode.top_k=300,301")
        assert ran.code == 1
        assert "decode.top_k=300" in ran.out
        assert "decode.top_k=301" in ran.out
        assert "2 of 2 jobs are not complete" in ran.err
        assert "There is no record" in ran.err

    def test_of_the_input_in_a_job_alone_is_named(self, actmax: Actmax, tmp_path: Path) -> None:
        ran = actmax("-m", *TINY, "decode.top_k=3,300")
        assert ran.code == 1
        assert "decode.top_k=300" in ran.out
        assert len(started(tmp_path / "outputs/s")) == 1


class TestStopped:
    LONG = ("-m", "subject=tiny", "steps=100", "sweep=s", "callbacks.checkpoint.every=20", "seeds=0,1,2", *QUICK)

    def stop_in_second_job(self, folder: Path, sent: signal.Signals) -> tuple[int, str]:
        process = start(folder, *self.LONG)
        deadline = time.monotonic() + 120
        while len(list(folder.rglob("last.ckpt"))) < 2 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(sent)
        _, err = process.communicate(timeout=120)
        return process.returncode, err

    @pytest.mark.slow
    @pytest.mark.parametrize(("sent", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
    def test_loses_nothing(self, actmax: Actmax, tmp_path: Path, sent: signal.Signals, code: int) -> None:
        returned, err = self.stop_in_second_job(tmp_path, sent)
        assert returned == code, err
        folder = tmp_path / "outputs/s"
        before = started(folder)
        assert len(before) == 2
        ran = actmax(*self.LONG)
        assert ran.code == 0, ran.err
        assert f"1 {'died' if sent == signal.SIGKILL else 'interrupted'} before" in ran.out
        assert "Going on from step" in ran.out
        after = started(folder)
        assert len([name for name in before if before[name] == after[name]]) == 1
        undisturbed = actmax(*self.LONG, "sweep=whole")
        assert undisturbed.code == 0
        for name in TABLES:
            pair = [pd.read_parquet(tmp_path / "outputs" / one / f"{name}.parquet") for one in ("s", "whole")]
            pd.testing.assert_frame_equal(*pair, check_exact=True)
        for job in folder.glob("tiny_*"):
            other = tmp_path / "outputs/whole" / job.name
            pair = [load_file(one / "embeddings.safetensors")["final"] for one in (job, other)]
            assert torch.equal(*pair)
