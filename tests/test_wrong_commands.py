"""Commands that a person gets wrong: answered early, in one message that names the key, with an exit code of 2."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from cli import QUICK, Actmax, Ran

TINY = ("subject=tiny", "steps=3", *QUICK, "nulls.draws=39", "report=false")


def refused(ran: Ran, *words: str) -> str:
    """The one message of a command that was refused before anything was written; its folder holds nothing."""
    assert ran.code == 2, ran.err or ran.out
    assert ran.err.startswith("actmax: ")
    assert "Traceback" not in ran.err
    for word in words:
        assert word in ran.err
    assert not (ran.folder / "outputs").exists()
    return ran.err


class TestUnknownKeys:
    """Hydra's own message suggests `+KEY=VALUE`, which then changed nothing, silently."""

    @pytest.mark.parametrize("plus", ["", "+", "++"])
    @pytest.mark.parametrize(
        ("key", "meant"),
        [
            ("step", "steps"),
            ("unit.indx", "unit.index"),
            ("nulls.draw", "nulls.draws"),
            ("prior.l2.wieght", "prior.l2.weight"),
            ("trainer.precison", ""),
            ("subjct", "subject"),
            ("a.b", ""),
        ],
    )
    def test_are_refused_with_the_one_that_was_meant(self, actmax: Actmax, plus: str, key: str, meant: str) -> None:
        if "." in key and not plus and key.startswith("a."):
            key = "a"
        said = refused(actmax(*TINY, f"{plus}{key}=5"), "there is no such key")
        assert said.startswith(f"actmax: {key.partition('.')[0]}")
        assert (f"Did you mean {meant}?" in said) == bool(meant)
        assert "append" not in said
        assert f"+{key}" not in said
        assert said.count("\n") == 1

    def test_are_refused_in_a_sweep(self, actmax: Actmax) -> None:
        said = refused(actmax("-m", *TINY, "+step=5,6"), "step=5: there is no such key")
        assert "Did you mean steps?" in said

    def test_a_group_that_is_taken_out_is_named(self, actmax: Actmax) -> None:
        refused(actmax(*TINY, "~nulls"), "nulls", "must be there")

    def test_where_any_key_is_taken_they_are_added(self, actmax: Actmax, tmp_path: Path) -> None:
        more = (
            "+optimizer.options.amsgrad=true",
            "+subject.architecture.layer_norm_epsilon=1e-4",
            "~callbacks.measures",
        )
        ran = actmax(*TINY, *more, f"+callbacks.diary={{_target_: cli.Diary, folder: {tmp_path}}}", "hydra.run.dir=job")
        assert ran.code == 0, ran.err
        assert (tmp_path / "rank0.json").exists()
        hint = refused(actmax(*TINY, "optimizer.options.amsgrad=true"), "optimizer.options.amsgrad")
        assert "+optimizer.options.amsgrad" in hint


class TestManyJobs:
    """What would be millions is counted, not written out."""

    @pytest.mark.parametrize(
        ("override", "words"),
        [
            ("seeds='0:1000000000'", ["seeds=0:1000000000", "at most 100000", "1000000000"]),
            ("seeds='0:1000000000000000000000000000:3'", ["seeds="]),
            ("seeds=['0:99999','100000:100003']", ["at most 100000", "100002"]),
            ("unit.index='0:20000000'", ["unit.index=0:20000000", "at most 100000"]),
            ("task=tuning tuning.layers='0:2000000000'", ["tuning.layers=", "at most 100000"]),
            ("unit.index='0:90' seeds='0:90000'", ["8100000 restarts", "at most 1000000"]),
            ("seeds=9223372036854775808", ["seeds=9223372036854775808", "2^63"]),
        ],
    )
    def test_numbers_of_one_job_have_a_bound(self, actmax: Actmax, override: str, words: list[str]) -> None:
        begun = time.monotonic()
        refused(actmax(*TINY, *override.split()), *words)
        assert time.monotonic() - begun < 3

    @pytest.mark.parametrize(
        ("overrides", "jobs"),
        [
            ("seeds=range(0,1000000)", 1_000_000),
            ("seeds=range(0,1e12)", 10**12),
            ("seeds=range(0,10000) unit.index=range(0,90)", 900_000),
            ("seeds=range(1000000,0,-2)", 500_000),
        ],
    )
    def test_jobs_of_a_sweep_have_a_bound(self, actmax: Actmax, overrides: str, jobs: int) -> None:
        begun = time.monotonic()
        refused(actmax("-m", *TINY, *overrides.split()), f"{jobs} jobs", "at most 100000 jobs")
        assert time.monotonic() - begun < 3

    def test_planning_many_is_said_before_it_begins(self, actmax: Actmax) -> None:
        ran = actmax("-m", *TINY, "steps=0", "seeds=range(0,200)")
        assert "Planning 200 jobs" in ran.out
        refused(ran, "steps=0")
        assert "Planning" not in actmax("-m", *TINY, "steps=0", "seeds=range(0,20)").out

    @pytest.mark.parametrize("override", ["seeds=range(0,0)", "seeds=range(5,0)", "unit=glob(zz*)", "prior=glob(q?)"])
    def test_a_sweep_over_nothing_has_no_jobs(self, actmax: Actmax, override: str) -> None:
        said = refused(actmax("-m", *TINY, override), "no jobs")
        assert said.startswith(f"actmax: {override}: ")

    def test_a_range_and_a_glob_of_a_few_are_a_few_jobs(self, actmax: Actmax) -> None:
        ran = actmax("-m", *TINY, "seeds=range(0,2)", "prior=glob(l2*)", "steps=1,1")
        assert ran.code == 0, ran.err
        assert len(ran.jobs) == 4
