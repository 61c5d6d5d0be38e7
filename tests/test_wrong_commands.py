"""Commands that a person gets wrong: answered early, in one message that names the key, with an exit code of 2."""

from __future__ import annotations

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
