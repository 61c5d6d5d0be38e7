"""Numbers that do not exist: no verdict, no p and no claim comes of them, and what is missing is said."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from actmax.evidence.gap import Gap, RandomText
from actmax.evidence.nulls import against
from actmax.evidence.readings import DecisionStatus, GapEnd, Transfer, Verdict
from actmax.evidence.transfer import Carriage, Carried
from actmax.evidence.verdicts import bh_level, judge_shared
from actmax.model.subject import load
from actmax.tasks.units.card import card, instead
from cli import QUICK, Actmax

JOB = ("subject=tiny", "steps=6", "seeds=0:5", *QUICK, "controls=2", "callbacks.comparison=null", "page=true")
LOST = "+callbacks.lost._target_=cli.Lost"
ALONE = "callbacks.trajectory=null"


def said(text: str) -> str:
    """A text without the line breaks that a terminal's width makes."""
    return " ".join(text.split())


def summary(job: Path) -> dict[str, Any]:
    return json.loads((job / "summary.json").read_text())


def no_numbers(page: Path | str) -> list[str]:
    """Where a page, its figures too, or what a terminal shows prints a number that does not exist."""
    text = page if isinstance(page, str) else page.read_text()
    figures = [base64.b64decode(data).decode() for data in re.findall(r"svg\+xml;base64,([\w+/=]+)", text)]
    drawn = [" ".join(re.findall(r"<text[^>]*>([^<]*)", figure)) for figure in figures]
    printed = "\n".join([re.sub(r"base64,[\w+/=]+", "", text), *drawn])
    return re.findall(r".{0,40}\b(?:nan|inf|None|NaT)\b.{0,20}", printed)


@pytest.mark.slow
class TestPages:
    @pytest.mark.parametrize(
        "overrides",
        [
            ("seeds=0",),
            ("seeds=[0,1]",),
            ("unit.index=[3,5]", LOST, "+callbacks.lost.index=3"),
            ("unit.index=[3,5]", LOST),
            (LOST, "+callbacks.lost.seeds=[1,4]"),
            ("task=search", "seeds=0", "search.passes=16", "search.candidates=8", "callbacks.comparison=null"),
        ],
        ids=" ".join,
    )
    def test_print_no_number_that_does_not_exist(self, overrides: tuple[str, ...], actmax: Actmax) -> None:
        ran = actmax(*JOB, *overrides)
        assert ran.code == 0, ran.err
        assert no_numbers(ran.job / "report.html") == []
        assert no_numbers(ran.out) == []

    def test_whichever_number_of_a_unit_is_missing(self, actmax: Actmax) -> None:
        row = summary(actmax(*JOB, "callbacks.trajectory=null").job)
        known = ("_draws", "_alpha")  # what was asked for is never missing
        numbers = [name for name, value in row.items() if isinstance(value, float) and not name.endswith(known)]
        assert len([name for name in numbers if name.endswith("_p")]) > 10
        for name in numbers:
            without = {**row, name: None}
            for shown in (card(without), instead(without)):
                texts = [part for cells in shown.rows for cell in cells for part in (cell.text, cell.note, cell.detail)]
                assert [text for text in texts if no_numbers(text)] == [], name

    def test_the_check_can_fail(self, tmp_path: Path) -> None:
        svg = base64.b64encode(b'<svg><text x="1">nan</text></svg>').decode()
        page = tmp_path / "page.html"
        page.write_text(f'<p>p = nan, a nanosecond</p><img src="data:image/svg+xml;base64,{svg}">')
        assert len(no_numbers(page)) == 2


class TestRestarts:
    def test_where_all_are_lost_nothing_is_judged(self, actmax: Actmax) -> None:
        ran = actmax(*JOB, LOST)
        assert ran.code == 0, ran.err
        found = summary(ran.job)
        assert found["restarts_frozen"] == 5
        assert found["verdict"] == found["answer"] == "not_judged"
        ps = {name: value for name, value in found.items() if name.endswith("_p")}
        assert len(ps) > 15
        assert set(ps.values()) == {None}
        assert not any(one["claimed"] for one in found["findings"])
        assert {one["reading"] for one in found["findings"]} == {"not_available"}
        assert found["gap"] == "not_tested"
        assert found["transfer"] == "not_tested"
        assert "All 5 restarts went non-finite" in said(ran.out)
        assert not re.search(r"[Bb]eyond chance:|random tokens\.|above chance", said(ran.out))
        assert "eyond chance: " not in (ran.job / "report.html").read_text()
        assert no_numbers(ran.job / "report.html") == no_numbers(ran.out) == []

    def test_and_where_none_is_something_is(self, actmax: Actmax) -> None:
        ran = actmax(*JOB)
        found = summary(ran.job)
        assert found["restarts_frozen"] == 0
        assert found["verdict"] != "not_judged"
        assert {one["reading"] for one in found["findings"]} & {"above", "within", "below"}
        assert "non-finite" not in ran.out

    def test_single_ones_are_missing_as_if_they_had_not_run(self, actmax: Actmax) -> None:
        lost = actmax(*JOB, f"{LOST}", "+callbacks.lost.seeds=[1,4]", "hydra.run.dir=lost")
        assert lost.code == 0, lost.err
        actmax(*JOB, "seeds=[0,2,3]", "hydra.run.dir=fewer")
        one, other = (summary(lost.folder / name) for name in ("lost", "fewer"))
        assert one["restarts_frozen"] == 2
        assert "2 more went non-finite" in said(lost.out)
        same = set(one) - {"restarts_frozen", "seconds", "findings", "provenance", "job_hash", "condition"}
        assert "null_own_tokens_p" in same
        numbers = {name: one[name] for name in same if isinstance(one[name], (int, float, str, type(None)))}
        for name, value in numbers.items():
            assert other[name] == (pytest.approx(value, rel=1e-4) if isinstance(value, float) else value), name
        rows = pd.read_parquet(lost.folder / "lost" / "restarts.parquet")
        assert len(rows) == 15
        assert rows.loc[rows["frozen"], "seed"].unique().tolist() == [1, 4]

    def test_of_one_unit_leave_the_others_what_they_have(self, actmax: Actmax) -> None:
        two = (*JOB, "unit.index=[3,5]", "controls=0")
        ran = actmax(*two, LOST, "+callbacks.lost.index=3", "hydra.run.dir=lost")
        assert ran.code == 0, ran.err
        units = pd.read_parquet(ran.folder / "lost" / "units.parquet").set_index("index")
        assert units["verdict"].to_dict()[3] == "not_judged"
        assert np.isnan(units.loc[3, "null_snapped_p"])
        whole = pd.read_parquet(actmax(*two, "hydra.run.dir=whole").folder / "whole" / "units.parquet").set_index(
            "index"
        )
        for name in ("null_shared_tokens_p", "null_snapped_p", "activation_final_mean", "transfer_bos_mean"):
            assert units.loc[5, name] == pytest.approx(whole.loc[5, name], rel=1e-6)

    @pytest.mark.slow
    def test_their_meaning_is_missing_too(self, actmax: Actmax) -> None:
        ran = actmax(*JOB, "meaning.embedder=subject", "meaning.layer=1", LOST, "+callbacks.lost.seeds=[1]")
        assert ran.code == 0, ran.err
        vectors = load_file(ran.job / "meaning.safetensors")["vectors"]
        lost = pd.read_parquet(ran.job / "restarts.parquet")["frozen"].to_numpy()
        assert vectors.isnan().any(1).tolist() == lost.tolist()

    @pytest.mark.slow
    def test_in_a_sweep_they_are_missing_too(self, actmax: Actmax) -> None:
        ran = actmax("-m", *JOB, "seeds=[0,1],[2,3]", LOST, "+callbacks.lost.seeds=[1]")
        assert ran.code == 0, ran.err
        units = pd.read_parquet(ran.jobs[0].parent / "units.parquet")
        assert units["restarts"].tolist() == [3]


NAN = float("nan")


class TestNulls:
    @pytest.mark.parametrize("wrong", [NAN, np.inf, -np.inf])
    def test_one_draw_that_is_no_number_leaves_no_p(self, wrong: float) -> None:
        null = against(5.0, [1.0] * 38 + [wrong])
        assert np.isnan(null.p)
        assert null.reading(0.05).value == "not_available"
        assert against(5.0, [1.0] * 39).p == 0.05

    def test_of_random_text_leave_the_gap_untested(self) -> None:
        def gap(drawn: np.ndarray) -> Gap:
            ones = {name: np.full(4, 9.0) for name in ("initial", "final", "snapped", "retokenised")}
            ones |= {name: np.full(4, 1.0) for name in ("cross_entropy", "cross_entropy_initial", "start_tokens")}
            text = {"texts": ("a",) * 4, "same": (True,) * 4, "lengths": (1,) * 4}
            return Gap(**ones, **text, random=RandomText(drawn, drawn), passes=5)

        drawn = np.linspace(0, 1, 50)
        assert gap(drawn).end(0.05) == GapEnd.SURVIVES
        assert gap(drawn).best_of_random().exists
        wrong = drawn.copy()
        wrong[7] = NAN
        assert gap(wrong).end(0.05) == GapEnd.NOT_TESTED
        assert not gap(wrong).best_of_random().exists
        numbers = gap(wrong).flat(0.05)
        assert all(np.isnan(value) for name, value in numbers.items() if name.endswith("_p") and "start" not in name)

    def test_of_other_units_are_not_taken_for_theirs(self) -> None:
        missing = against(NAN, [], alternative="greater")
        given = {"level": 0.01, "own": missing, "own_level": 0.01, "kappa_low": 0.9}
        assert judge_shared(0.001, 0.001, **given) == (Verdict.NOT_JUDGED, DecisionStatus.OTHER_UNITS_NOT_TESTED)
        beside = given | {"own": against(1.0, np.linspace(0, 0.5, 999), alternative="greater")}
        assert judge_shared(0.001, 0.001, **beside) == (Verdict.REPRODUCIBLE, DecisionStatus.OK)

    def test_that_do_not_exist_move_no_correction(self) -> None:
        assert bh_level([0.04, NAN], 0.05) == bh_level([0.04], 0.05) == 0.05

    def test_elsewhere_leave_transfer_untested(self) -> None:
        drawn = np.linspace(0, 1, 50)
        there = Carried(np.full(4, 9.0), drawn)
        one = Carriage(Carried(np.full(4, 9.0), drawn, own=True), {"bos": there}, 0.05)
        assert one.reading == Transfer.EVERYWHERE
        wrong = np.where(np.arange(50) == 3, NAN, drawn)
        assert Carriage(one.found, {"bos": Carried(there.activation, wrong)}, 0.05).reading == Transfer.NOT_TESTED
        assert Carriage(Carried(there.activation, wrong, own=True), {"bos": there}, 0.05).reading == Transfer.NOT_TESTED


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that are finite, and activations that overflow at one token."""
    folder = tmp_path_factory.mktemp("overflows")
    sizes = {"n_layer": 2, "n_embd": 12, "n_head": 2, "n_positions": 32}
    subject: Any = load(name="tiny", source="random", architecture={"model_type": "gpt2", **sizes})
    with torch.no_grad():
        subject.model.transformer.wte.weight[subject.tokens("Z")[0]] = 3e38  # the positions' embedding is added to it
        subject.model.transformer.wpe.weight[:] = 1e38
    subject.model.save_pretrained(folder)
    subject.tokenizer.save_pretrained(folder)
    return folder


class TestTexts:
    def job(self, actmax: Actmax, model: Path, letter: str, *task: str) -> Any:
        (model.parent / f"{letter}.txt").write_text(f"some words and {letter}ebras are here. " * 9)
        rows = [f"{word},noun\n" for word in ("dog", "cat", f"{letter}ebra", "cow", "owl", "elk")]
        rows += [f"{word},verb\n" for word in ("run", "eat", "sit", "mix", "sew", "hop")]
        (model.parent / f"{letter}.csv").write_text("word,category\n" + "".join(rows))
        return actmax("subject=tiny", f"subject.path={model}", "unit.layer=1", "logger=none", "page=false", *task)

    def test_are_refused_by_name_among_examples(self, actmax: Actmax, model: Path) -> None:
        task = ("task=examples", "unit.index=3", "examples.window=16")
        assert self.job(actmax, model, "z", *task, f"examples.text={model.parent / 'z.txt'}").code == 0
        ran = self.job(actmax, model, "Z", *task, f"examples.text={model.parent / 'Z.txt'}")
        assert ran.code == 2
        assert "examples.text=" in ran.err
        assert "the activation at token 15 of the text is no finite number" in ran.err

    def test_are_refused_by_name_among_words(self, actmax: Actmax, model: Path) -> None:
        task = ("task=tuning", "tuning.sites=[resid_post]")  # at such sizes an activation function is no longer one
        assert self.job(actmax, model, "z", *task, f"tuning.data={model.parent / 'z.csv'}").code == 0
        ran = self.job(actmax, model, "Z", *task, f"tuning.data={model.parent / 'Z.csv'}")
        assert ran.code == 2
        assert "tuning.data=zebra: an activation of 1 words at " in ran.err
