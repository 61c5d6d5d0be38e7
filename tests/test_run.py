"""The command line from the outside: what a user types, what lies in the folder afterwards, what the exit code is."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from actmax.__main__ import explain
from actmax.errors import InputError
from actmax.evidence.findings import Measure, findings_of
from actmax.evidence.readings import VERDICTS, NeighbourStatus, Verdict
from actmax.maximize.optimizee import scaled
from actmax.model.subject import load
from actmax.records.store import Record
from actmax.report.words import answer_word, neighbours_statement
from actmax.tasks.units.work import UnitsWork
from cli import QUICK, Actmax, start

TINY = ("subject=tiny", "steps=12", *QUICK)
FLOAT64 = (*TINY, "subject.dtype=float64")
QUESTION = "would another start give the same answer?"
"""The title of the verdict card, after the answer."""
TOKEN_COLUMNS = (
    "site layer index seed position token_id token cosine init_token_id init_token init_cosine "
    "activation_initial activation_final control"
)
SUMMARY_KEYS = (
    "tokens_total tokens_unique tokens_repeated init_retention cosine_mean activation_initial_mean "
    "activation_final_mean null_unique_mean null_unique_low null_unique_high null_unique_p null_cosine_mean "
    "null_retention_mean null_retention_p verdict versions device seconds"
)


def final(job: Path) -> torch.Tensor:
    return load_file(job / "embeddings.safetensors")["final"]


class TestRecord:
    def test_of_one_unit(self, actmax: Actmax) -> None:
        ran = actmax(*TINY, "experiment=reproducibility", "steps=12", "nulls.displacements=50")
        assert ran.code == 0, ran.err
        assert ran.job.parent == ran.folder / "outputs" / "reproducibility"
        tokens = pd.read_parquet(ran.job / "tokens.parquet")
        assert list(tokens.columns) == TOKEN_COLUMNS.split()
        assert len(tokens) == 50
        assert set(map(tuple, tokens[["seed", "position"]].to_numpy())) == {(s, p) for s in range(10) for p in range(5)}
        summary = json.loads((ran.job / "summary.json").read_text())
        assert set(SUMMARY_KEYS.split()) <= set(summary)
        assert summary["tokens_unique"] == tokens["token_id"].nunique()
        assert summary["init_retention"] == pytest.approx((tokens["token_id"] == tokens["init_token_id"]).mean())
        assert summary["activation_final_mean"] > summary["activation_initial_mean"] + 0.01
        units = pd.read_parquet(ran.job / "units.parquet")
        assert len(units) == 1
        assert units.loc[0, "null_retention_p"] == summary["null_retention_p"]
        assert len(pd.read_parquet(ran.job / "restarts.parquet")) == 10
        assert len(pd.read_parquet(ran.job / "candidates.parquet")) == 250
        curve = pd.read_parquet(ran.job / "rarefaction.parquet")
        assert list(curve["restarts"]) == list(range(1, 11))
        assert curve["unique"].iloc[-1] == pytest.approx(summary["tokens_unique"])
        assert summary["answer"] == Verdict(summary["verdict"]).answer
        assert {"shared_tokens", "null_shared_tokens_p", "jaccard", "null_direction_p", "kappa_tokens", "own"} <= set(
            units.columns
        )
        trajectory = pd.read_parquet(ran.job / "trajectory.parquet")
        assert sorted(trajectory["step"].unique()) == list(range(13))
        ends = trajectory[trajectory["step"] == 12]["activation"].mean()
        assert ends == pytest.approx(summary["activation_final_mean"], rel=1e-6)
        assert json.loads((ran.job / "status.json").read_text())["state"] == "complete"
        card = f"{answer_word(summary)}: {QUESTION}"
        assert ran.out.index("Decoded tokens of resid_pre.8[91]") < ran.out.index(card)
        findings = findings_of(pd.read_parquet(ran.job / "findings.parquet"))
        assert [repr(one) for one in findings] == [repr(one) for one in findings_of(summary["findings"])]
        (retention,) = (one for one in findings if one.measure == Measure.RETENTION)
        assert (retention.observed, retention.p) == (summary["init_retention"], summary["null_retention_p"])
        tables = {file.name: list(pd.read_parquet(file).columns) for file in ran.job.glob("*.parquet")}
        assert not [name for columns in tables.values() for name in columns if " " in name]
        assert not [file for file in ran.job.rglob(".*.*") if file.name.startswith((".status", ".tokens"))]

    def test_starts_from_contract_3s_noise(self, actmax: Actmax) -> None:
        job = actmax(*TINY, "seeds=[7]").job
        architecture = {"model_type": "gpt2", "n_layer": 10, "n_embd": 96, "n_head": 4, "n_positions": 64}
        matrix = load(name="tiny", source="random", architecture=architecture).embedding_matrix
        expected = torch.randn(5, 96, generator=torch.Generator("cpu").manual_seed(7)) * matrix.std()
        assert torch.equal(load_file(job / "embeddings.safetensors")["initial"][0], expected)
        assert torch.equal(scaled(matrix, 5)(7), expected)

    @pytest.mark.slow
    def test_of_several_units_in_one_batch_equals_a_sweep_over_them(self, actmax: Actmax) -> None:
        exact = ("subject.dtype=float64", "seeds='0:2'")
        batch = actmax(*TINY, *exact, "unit.layer=[1,2]", "unit.index='3:5'").job
        assert len(pd.read_parquet(batch / "units.parquet")) == 4
        summary = json.loads((batch / "summary.json").read_text())
        assert summary["units"] == 4
        assert set(summary["init_retention"]) == {"mean", "min", "max"}
        assert {row["verdict"] for row in summary["verdicts"]} == set(VERDICTS)
        swept = actmax("-m", *TINY, *exact, "unit.layer=1,2", "unit.index=3,4", "hydra.sweep.dir=sweep")
        assert swept.code == 0, swept.err
        jobs = sorted((swept.folder / "sweep").glob("tiny_*"))
        assert len(jobs) == 4
        single = pd.concat([pd.read_parquet(job / "tokens.parquet") for job in jobs], ignore_index=True)
        key = ["layer", "index", "seed", "position"]
        together = pd.read_parquet(batch / "tokens.parquet").sort_values(key, ignore_index=True)
        single = single.sort_values(key, ignore_index=True)
        assert (together["token_id"] == single["token_id"]).all()
        assert (together["activation_final"] - single["activation_final"]).abs().max() < 1e-9

    def test_activations_for_the_comparison(self, actmax: Actmax) -> None:
        job = actmax(*TINY, "seeds='0:3'").job
        saved = load_file(job / "activations.safetensors")
        assert {name: tuple(value.shape) for name, value in saved.items()} == {
            "resid_pre.8.initial": (3, 96),
            "resid_pre.8.final": (3, 96),
        }
        restarts = pd.read_parquet(job / "restarts.parquet")
        targets = saved["resid_pre.8.final"][:, 91].tolist()
        assert targets == pytest.approx(restarts["activation_final"].tolist(), rel=1e-5)
        table = pd.read_parquet(job / "comparison.parquet")
        assert len(table) == 96
        assert table.loc[table["is_target"], "coordinate"].tolist() == [91]
        compared = json.loads((job / "summary.json").read_text())["comparison"]
        said = neighbours_statement(compared["units"]["resid_pre.8[91]"])
        assert said.startswith("Over 3 restarts the target rose by")
        many = actmax(*TINY, "unit.index='0:17'", "hydra.run.dir=many").folder / "many"
        assert not (many / "activations.safetensors").exists()
        compared = json.loads((many / "summary.json").read_text())["comparison"]
        assert compared == {"status": NeighbourStatus.TOO_MANY_UNITS, "asked": 17, "max_units": 16}

    def test_units_of_one_place_are_compared_on_their_own_restarts(self, actmax: Actmax) -> None:
        exact = ("subject.dtype=float64", "seeds='0:3'")
        both = pd.read_parquet(actmax(*TINY, *exact, "unit.index=[5,91]").job / "comparison.parquet")
        alone = pd.read_parquet(
            actmax(*TINY, *exact, "unit.index=91", "hydra.run.dir=one").folder / "one/comparison.parquet"
        )
        own = both[both["index"] == 91].reset_index(drop=True)
        assert len(both) == 2 * len(alone)
        assert (own["paired_t"] - alone["paired_t"]).abs().max() < 1e-4
        assert (both[both["index"] == 5]["paired_t"].to_numpy() - alone["paired_t"]).abs().max() > 0.1

    def test_one_restart_is_no_comparison(self, actmax: Actmax) -> None:
        ran = actmax(*TINY, "seeds=0")
        assert not (ran.job / "comparison.parquet").exists()
        assert "one restart" in ran.out

    def test_final_norm_takes_no_layer(self, actmax: Actmax) -> None:
        ran = actmax(*TINY, "unit=final_norm")
        assert ran.code == 0, ran.err
        assert pd.read_parquet(ran.job / "tokens.parquet")["layer"].isna().all()

    def test_init_file_goes_on_from_a_record(self, actmax: Actmax) -> None:
        first = actmax(*TINY, "seeds=[3,4]").job
        ran = actmax(*TINY, "seeds=[4]", "init=file", f"init.path={first}", "hydra.run.dir=second")
        assert ran.code == 0, ran.err
        assert torch.equal(load_file(ran.folder / "second/embeddings.safetensors")["initial"][0], final(first)[1])
        refused = actmax(*TINY, "seeds=[5]", "init=file", f"init.path={first}", "hydra.run.dir=third")
        assert refused.code == 2
        assert "seeds=5" in refused.err


class TestRounding:
    def test_the_same_seeds_again_with_another_kernel(self, actmax: Actmax) -> None:
        ran = actmax(*FLOAT64, "seeds='0:4'", "unit.index='90:92'", "rounding.restarts=2")
        assert ran.code == 0, ran.err
        table = pd.read_parquet(ran.job / "rounding.parquet")
        assert table["kernel"].tolist() == ["eager"] * 2
        assert table["restarts"].tolist() == [2, 2]
        assert (table["same_seed_tokens_equal"] == 1).all()  # float64
        assert (table["same_seed_displacement_cosine"] > 1 - 1e-9).all()
        assert (table["same_seed_activation_difference"] < 1e-9).all()
        assert (table["different_seeds_displacement_cosine"] < 0.99).all()
        assert "Rounding. The same seeds again, 2 of each unit, attention kernel eager: 100%" in ran.out
        assert len(pd.read_parquet(ran.job / "trajectory.parquet")["seed"].unique()) == 4  # the first run's alone

    def test_float32_rounds(self, actmax: Actmax) -> None:
        ran = actmax(*TINY, "seeds='0:3'", "rounding.restarts=3")
        assert ran.code == 0, ran.err
        summary = json.loads((ran.job / "summary.json").read_text())
        assert summary["rounding"]["kernel"] != summary["subject"]["attention"]
        assert 0 < summary["rounding"]["same_seed_activation_difference"] < 1e-3

    def test_one_at_a_time_with_the_same_kernel(self, actmax: Actmax) -> None:
        ran = actmax(*FLOAT64, "seeds='0:3'", "rounding.restarts=2", "rounding.kernel=same")
        assert ran.code == 0, ran.err
        assert "attention kernel sdpa, 1 at a time" in ran.out
        assert json.loads((ran.job / "summary.json").read_text())["rounding"]["same_seed_tokens_equal"] == 1

    def test_leaves_the_shared_subject_as_it_was(self, actmax: Actmax) -> None:
        assert actmax(*FLOAT64, "seeds=0", "rounding.restarts=1").code == 0
        ran = actmax(*FLOAT64, "seeds=1")
        assert json.loads((ran.jobs[1] / "summary.json").read_text())["subject"]["attention"] == "sdpa"


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of PyTorch's tracing
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated")
class TestCompile:
    @pytest.mark.slow  # a real compiler: half a minute
    def test_a_compiled_run_is_the_plain_one(
        self, actmax: Actmax, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
        job = (*FLOAT64, "seeds='0:3'", "unit.layer='2:4'", "max_rows=4", "subject.architecture.n_layer=4")
        folder = actmax(*job, "hydra.run.dir=plain").folder
        assert not list(tmp_path.glob("compiled/**/*.cpp"))
        ran = actmax(*job, "hydra.run.dir=other", "trainer.compile=true")
        assert ran.code == 0, ran.err
        assert list(tmp_path.glob("compiled/**/*.cpp"))
        found, plain = final(folder / "other"), final(folder / "plain")
        assert (found - plain).abs().max() < 1e-9
        assert (plain[0] - plain[1]).abs().max() > 0.01
        summaries = [json.loads((folder / name / "summary.json").read_text()) for name in ("other", "plain")]
        assert summaries[0]["subject"]["job_hash"] == summaries[1]["subject"]["job_hash"]

    @pytest.mark.slow  # a process of its own
    def test_no_compiler_is_an_error_before_the_work(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CXX", "/no/compiler")
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
        process = start(tmp_path, *TINY, "trainer.compile=true")
        _, err = process.communicate(timeout=300)
        assert process.returncode == 2
        assert err.splitlines()[-1].startswith("actmax: trainer.compile=true: PyTorch's compiler cannot be used here (")
        assert "apt-get install g++" in err
        assert not list(tmp_path.rglob("status.json"))


def test_products_are_as_exact_as_the_job_says(actmax: Actmax, tmp_path: Path) -> None:
    diary = ("+callbacks.diary._target_=cli.Diary", f"+callbacks.diary.folder={tmp_path}")
    for override, expected in (("trainer.matmul_precision=high", "high"), ("seeds=1", "highest")):
        ran = actmax(*TINY, *diary, override)
        assert ran.code == 0, ran.err
        assert json.loads((tmp_path / "rank0.json").read_text())["products"] == expected
    assert torch.get_float32_matmul_precision() == "highest"


class TestAgain:
    def test_the_same_run_gives_the_same_bits(self, actmax: Actmax) -> None:
        actmax(*TINY, "seeds='0:3'", "hydra.run.dir=a")
        folder = actmax(*TINY, "seeds='0:3'", "hydra.run.dir=b").folder
        assert (folder / "a/embeddings.safetensors").read_bytes() == (folder / "b/embeddings.safetensors").read_bytes()
        other = actmax(*TINY, "seeds='1:4'", "hydra.run.dir=c").folder / "c"
        assert not torch.equal(final(other), final(folder / "a"))

    def test_a_complete_job_is_shown_and_not_run_again(self, actmax: Actmax) -> None:
        first = actmax(*TINY)
        finished = json.loads((first.job / "status.json").read_text())["finished"]
        second = actmax(*TINY)
        assert second.code == 0
        assert json.loads((second.job / "status.json").read_text())["finished"] == finished
        assert QUESTION in second.out

    def test_force_runs_it_and_moves_the_old_record_aside(self, actmax: Actmax) -> None:
        first = actmax(*TINY).job
        kept = (first / "summary.json").read_bytes()
        ran = actmax(*TINY, "force=true")
        assert ran.code == 0, ran.err
        (old,) = (first / "previous").iterdir()
        assert (old / "summary.json").read_bytes() == kept
        assert (first / "summary.json").read_bytes() != kept  # other seconds

    def test_another_jobs_folder_is_refused(self, actmax: Actmax) -> None:
        actmax(*TINY, "hydra.run.dir=here")
        ran = actmax(*TINY, "tokens=4", "hydra.run.dir=here")
        assert ran.code == 2
        assert "another job" in ran.err


class TestInterrupted:
    LONG = ("subject=tiny", "steps=120", "seeds='0:2'", "callbacks.checkpoint.every=20", *QUICK)

    def run_until(self, folder: Path, sent: signal.Signals) -> tuple[int, str]:
        process = start(folder, *self.LONG, "hydra.run.dir=cut")
        file, deadline = Record(folder / "cut").checkpoint, time.monotonic() + 120
        while not file.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(sent)
        _, err = process.communicate(timeout=120)
        return process.returncode, err

    @pytest.mark.slow
    def test_killed_then_resumed_gives_the_same_bits(self, actmax: Actmax, tmp_path: Path) -> None:
        code, _ = self.run_until(tmp_path, signal.SIGKILL)
        assert code == -signal.SIGKILL
        assert json.loads((tmp_path / "cut/status.json").read_text())["state"] == "running"
        ran = actmax(*self.LONG, "hydra.run.dir=cut", "resume=true")
        assert ran.code == 0, ran.err
        assert "Going on from step" in (tmp_path / "cut/actmax.log").read_text()
        actmax(*self.LONG, "hydra.run.dir=whole")
        assert torch.equal(final(tmp_path / "cut"), final(tmp_path / "whole"))
        trajectories = [pd.read_parquet(tmp_path / name / "trajectory.parquet") for name in ("cut", "whole")]
        pd.testing.assert_frame_equal(*trajectories, check_exact=True)

    @pytest.mark.slow
    def test_ctrl_c_keeps_the_best_and_resumes(self, actmax: Actmax, tmp_path: Path) -> None:
        code, err = self.run_until(tmp_path, signal.SIGINT)
        assert code == 130, err
        job = tmp_path / "cut"
        assert json.loads((job / "status.json").read_text())["state"] == "interrupted"
        assert "best of each restart" in (job / "actmax.log").read_text()
        assert len(pd.read_parquet(job / "tokens.parquet")) == 10
        restarts = pd.read_parquet(job / "restarts.parquet")
        assert (restarts["activation_final"] > restarts["activation_initial"]).all()
        assert actmax(*self.LONG, "hydra.run.dir=cut").code == 0
        actmax(*self.LONG, "hydra.run.dir=whole")
        assert torch.equal(final(job), final(tmp_path / "whole"))

    @pytest.mark.parametrize("damage", ["truncated", "foreign"])
    def test_a_damaged_or_foreign_checkpoint_is_refused(self, actmax: Actmax, tmp_path: Path, damage: str) -> None:
        actmax(*TINY, "callbacks.checkpoint.every=5", "hydra.run.dir=here")
        record = Record(tmp_path / "here")
        status = json.loads(record.path("status.json").read_text())
        record.write_json("status.json", {**status, "state": "interrupted"})
        if damage == "truncated":
            record.checkpoint.write_bytes(record.checkpoint.read_bytes()[:1000])
        else:
            content = torch.load(record.checkpoint, weights_only=True)
            torch.save({**content, "actmax": {"job_hash": "other"}}, record.checkpoint)
        refused = actmax(*TINY, "callbacks.checkpoint.every=5", "hydra.run.dir=here")
        assert refused.code == 2
        assert "resume=" in refused.err
        assert actmax(*TINY, "callbacks.checkpoint.every=5", "hydra.run.dir=here", "resume=false").code == 0

    @pytest.mark.slow
    def test_two_processes_never_run_the_same_job(self, actmax: Actmax, tmp_path: Path) -> None:
        long = (*self.LONG, "steps=100000", "hydra.run.dir=cut")  # it outlasts the imports of the second process
        process = start(tmp_path, *long)
        deadline = time.monotonic() + 120
        while not (tmp_path / "cut/status.json").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        ran = actmax(*long)
        process.kill()
        process.communicate()
        assert ran.code == 2
        assert "another process" in ran.err


class TestFailure:
    def test_leaves_its_status_and_traceback(self, actmax: Actmax) -> None:
        ran = actmax(*TINY, "+callbacks.failing._target_=cli.Failing")
        assert ran.code == 1
        assert "planted" in ran.err
        assert "Traceback" not in ran.err.replace("[ERROR] - the job failed\nTraceback", "")
        status = json.loads((ran.job / "status.json").read_text())
        assert status["state"] == "failed"
        assert "RuntimeError: planted" in status["error"]["traceback"]
        assert "RuntimeError: planted" in (ran.job / "actmax.log").read_text()
        assert actmax(*TINY).code == 0  # and the next run of the same job does it

    def test_of_one_job_leaves_the_others(self, actmax: Actmax) -> None:
        ran = actmax("-m", *TINY, "steps=4,12", "+callbacks.failing._target_=cli.Failing")
        assert ran.code == 1
        states = [json.loads((job / "status.json").read_text())["state"] for job in ran.jobs]
        assert sorted(states) == ["complete", "failed"]

    @pytest.mark.parametrize("sweep", [False, True])
    def test_before_there_is_a_tracker_is_a_failed_job_too(
        self, actmax: Actmax, monkeypatch: pytest.MonkeyPatch, sweep: bool
    ) -> None:
        def title(work: UnitsWork) -> tuple[str, list[str]]:
            if work.cfg.steps == 4:
                raise ValueError("planted in the title")
            return "a title", []

        monkeypatch.setattr(UnitsWork, "title", property(title))
        ran = actmax(*(("-m", *TINY, "steps=4,2") if sweep else (*TINY, "steps=4")), "logger=wandb")
        assert ran.code == 1
        assert "planted in the title" in ran.err + ran.out
        assert "without a word" not in ran.err + ran.out
        found = [json.loads((job / "status.json").read_text()) for job in ran.jobs]
        states = {status["state"]: status for status in found}
        assert set(states) == ({"failed", "complete"} if sweep else {"failed"})
        assert states["failed"]["error"]["message"] == "planted in the title"
        assert "Traceback" in states["failed"]["error"]["traceback"]

    def test_a_full_disk_is_one_message(self, actmax: Actmax, tmp_path: Path) -> None:
        small = tmp_path / "small"
        small.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)]
        if subprocess.run(mount, capture_output=True).returncode != 0:
            pytest.skip("no right to mount a small file system here")
        try:
            ran = actmax(*TINY, "hydra.run.dir=small/job")
        finally:
            subprocess.run(["umount", "--lazy", str(small)], check=True)  # the log is still open
        assert ran.code == 2
        assert "hydra.run.dir=" in ran.err
        assert "MB are free" in ran.err


class TestBadInput:
    @pytest.mark.parametrize(
        ("overrides", "words"),
        [
            (["unit.layer=30"], ["unit.layer=30", "0 to 9"]),
            (["unit.index=96"], ["unit.index=96", "0 to 95"]),
            (["unit.site=foo"], ["unit.site=foo", "resid_pre"]),
            (["unit.site=mlp_pre_linear"], ["unit.site=mlp_pre_linear", "mlp_pre"]),
            (["subject.dtype=int8"], ["subject.dtype=int8", "bfloat16"]),
            (["subject=nope"], ["nope", "smollm2"]),
            (["steps=0"], ["steps=0", "at least 1"]),
            (["steps=abc"], ["steps", "abc"]),
            (["seeds=[]"], ["seeds=[]"]),
            (["sedes=3"], ["sedes"]),
            (["tokens=65"], ["tokens=65", "64"]),
            (["decode.top_k=300"], ["decode.top_k=300", "257"]),
            (["subject=gpt2"], ["subject.id=", "subject=smollm2", "subject.path="]),
            (["subject=hub"], ["subject.id=None", "subject.id=OWNER/NAME"]),
            (["subject=hub", "subject.id=no/such"], ["subject.id=no/such", "must be reachable"]),
            (["subject.path=/nowhere"], ["subject.path=", "save_pretrained"]),
            (["subject.attention=foo"], ["subject.attention=foo", "eager"]),
            (["+optimizer.options.foo=1"], ["optimizer.options", "foo"]),
            (["trainer.accelerator=abacus"], ["trainer.accelerator=abacus", "cpu"]),
            (["callbacks.trajectory._target_=no.such"], ["callbacks.trajectory", "no.such"]),
            (["+callbacks.checkpoint.evry=3"], ["callbacks.checkpoint"]),
            (["hydra.run.dir=/proc/nowhere"], ["hydra.run.dir=/proc/nowhere"]),
        ],
    )
    def test_is_one_message_and_exit_code_2(self, actmax: Actmax, overrides: list[str], words: list[str]) -> None:
        ran = actmax(*TINY, *overrides)
        assert ran.code == 2
        for word in words:
            assert word in ran.err
        assert "Traceback" not in ran.err
        assert not ran.jobs  # no status: nothing has started

    def test_in_the_config_itself_leaves_no_folder(self, actmax: Actmax) -> None:
        assert not (actmax(*TINY, "steps=0").folder / "outputs").exists()

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
    def test_no_gpu(self, actmax: Actmax) -> None:
        ran = actmax(*TINY, "trainer=gpu")
        assert ran.code == 2
        assert "trainer=cpu" in ran.err

    def test_the_hub_out_of_reach_is_said_within_five_seconds(self, tmp_path: Path) -> None:
        begun = time.monotonic()
        command = [sys.executable, "-m", "actmax", "subject=gpt2"]
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert ran.returncode == 2
        assert "subject=smollm2" in ran.stderr
        assert time.monotonic() - begun < 5


def test_an_error_whose_context_is_a_circle_is_explained() -> None:
    first, second = RuntimeError("a"), ValueError("b")
    first.__context__, second.__context__ = second, first
    assert explain(first) == (1, "RuntimeError: a")
    second.__context__ = InputError("steps", 0, "must be at least 1")
    assert explain(first) == (2, "steps=0: must be at least 1.")


def test_help_names_the_commands(actmax: Actmax) -> None:
    ran = actmax("--help")
    assert ran.code == 0
    assert "actmax experiment=reproducibility subject=smollm2" in ran.out
