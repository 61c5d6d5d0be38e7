"""What stands at the end of a result: one command that a user would want next, which works as it is printed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from safetensors.numpy import save_file

from actmax.app.report import main as report
from actmax.errors import InputError
from actmax.records.store import Record
from actmax.report.source import Source
from actmax.tasks.commands import ALONE, Next, asked, override
from actmax.tasks.pages import after
from actmax.tasks.units.after import after_maximization, after_search
from cli import QUICK, Actmax, Ran, planted
from test_config import composed
from test_docs import checked

TINY = ("subject=tiny", "subject.dtype=float64", "steps=3", "tokens=4", *QUICK)
UNIT = ("unit.layer=2", "unit.index=3")
SMALL = ("search.passes=40", "search.candidates=8", "search.top_k=8", *QUICK)
LINE = re.compile(r"Next, ([^:]+): (.+)")
PARTS = ("subject", "unit", "objective", "context")


def ahead(text: str) -> Next:
    """What the last line of an output says."""
    match = LINE.fullmatch(text.splitlines()[-1])
    assert match is not None, text[-500:]
    return Next(match[1], tuple(shlex.split(match[2])))


def content(*overrides: str) -> dict[str, Any]:
    """A job's config as its record holds it."""
    cfg = OmegaConf.to_container(composed(*overrides), resolve=False)
    assert isinstance(cfg, dict)
    cfg = {str(key): value for key, value in cfg.items() if key not in ("hydra", "sweep")}
    found = OmegaConf.to_container(OmegaConf.create(cfg), resolve=True)
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}


def config_of(ran: Ran) -> dict[str, Any]:
    return yaml.safe_load((ran.job / "config.yaml").read_text())


class TestSpelling:
    @given(st.text(st.characters(codec="utf-8", exclude_characters="$\0")))
    def test_hydra_reads_every_text_as_it_was(self, text: str) -> None:
        assert OverridesParser.create().parse_override(override("context.text", text)).value() == text

    @given(st.lists(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.just(" a:b"))))
    def test_and_every_list(self, values: list[Any]) -> None:
        assert OverridesParser.create().parse_override(override("seeds", values)).value() == values

    @pytest.mark.parametrize("text", ["${x}", "a ${oc.env:HOME} b"])
    def test_what_looks_like_a_reference_is_none(self, text: str) -> None:
        assert content(override("context.text", text), "context=prefix")["context"]["text"] == text

    def test_as_it_stands_a_text_would_be_another(self) -> None:
        assert OverridesParser.create().parse_override("unit.logit= Paris").value() == "Paris"
        assert OverridesParser.create().parse_override(override("unit.logit", " Paris")).value() == " Paris"

    def test_a_shell_reads_the_command_as_it_was(self) -> None:
        words = ("actmax", override("unit.logit", " Paris"), override("context.text", "a \"b\" $HOME `c` 'd'"))
        assert tuple(shlex.split(Next("", words).command)) == words


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_file({"verb": np.ones(576), "noun": -np.ones(576)}, "probe.safetensors")


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("subject=smollm2", "subject.dtype=bfloat16", "seeds='0:10'", "tokens=3", "max_rows=64", "controls=2"),
        ("subject=hub", "subject.id=EleutherAI/pythia-70m"),
        ("subject=hub", "subject.id=EleutherAI/pythia-70m", "subject.name=mine", "subject.revision=step3000"),
        ("subject=hub", "subject.path='/a folder/it,s'", "subject.name=mine"),
        ("subject=gpt2", "subject.path=models/mine"),
        ("subject=tiny", "subject.architecture.n_layer=3", "+subject.architecture.n_inner=64", "subject.seed=5"),
        ("unit=neuron", "unit.layer=3", "unit.index='0:8'", "seeds=[0,3]"),
        ("unit=final_norm", "objective.sign=minimize", "objective.reduction=last"),
        ("unit.layer=[2,4]", "unit.index=[3,5]"),
        ("unit.logit=' Paris'", "unit.minus=' London'"),
        ("unit.target=['resid_pre.8[91]','logit: Paris- London']",),
        ("subject=smollm2", "unit.direction=probe.safetensors", "unit.name=[verb,noun]", "unit.against=isotropic"),
        ("context=prefix", "context.text='He said: \"{go}, \\$5\"'", "context.begin=false"),
        ("context=chat", "context.chat='Name {tokens}'", "objective.positions=last"),
        ("context=text", "context.windows=4", "context.texts='/a b.txt'"),
        ("debug=quick",),
    ],
    ids=" ".join,
)
def test_what_a_config_asks_for_is_asked_again(overrides: tuple[str, ...]) -> None:
    first = content(*overrides)
    again = content(*asked(first, *PARTS, *ALONE))
    assert {key: again[key] for key in (*PARTS, *ALONE)} == {key: first[key] for key in (*PARTS, *ALONE)}


def test_nothing_is_asked_for_that_is_so_by_itself() -> None:
    first = content("subject=smollm2")
    assert asked(first, "subject", "objective", *ALONE) == ["subject=smollm2"]
    assert asked(first, "unit") == ["unit.site=resid_pre", "unit.layer=8", "unit.index=91"]


@pytest.mark.slow
class TestUnits:
    def test_from_a_maximization_to_a_search_to_real_text_and_back(self, actmax: Actmax, tmp_path: Path) -> None:
        ran = actmax(*TINY, *UNIT, "seeds=[0,1]", "hydra.run.dir=m")
        assert ran.code == 0, ran.err
        first, unit = ahead(ran.out), ["unit.site=resid_pre", "unit.layer=2", "unit.index=3"]
        same = ["subject=tiny", "subject.dtype=float64", *unit]
        assert list(first.words) == ["actmax", "task=search", *same, "seeds=[0,1]", "controls=0", "tokens=4"]
        ran = actmax(*first.words[1:], *SMALL, "hydra.run.dir=s")
        assert ran.code == 0, ran.err
        config = yaml.safe_load((tmp_path / "s" / "config.yaml").read_text())
        before = yaml.safe_load((tmp_path / "m" / "config.yaml").read_text())
        assert [config[key] for key in ("subject", "unit")] == [before[key] for key in ("subject", "unit")]
        second = ahead(ran.out)
        assert list(second.words) == ["actmax", "task=examples", *same, "examples.text=sample"]
        ran = actmax(*second.words[1:], "examples.window=16", "page=false", "hydra.run.dir=e")
        assert ran.code == 0, ran.err
        contexts = pd.read_parquet(tmp_path / "e" / "contexts.parquet")
        assert set(contexts["index"]) == {3}
        assert {Path(file).name for file in contexts["file"]} == {"passages.txt"}
        third = ahead(ran.out)
        assert list(third.words) == ["actmax", "task=search", *same]
        checked(list(third.words[1:]))

    def test_of_several_it_is_the_one_whose_restarts_agree_most(self) -> None:
        units = pd.DataFrame(
            [
                {"layer": 1, "index": 3, "shared_tokens": 0.50, "null_shared_tokens_mean": 0.40, "control": False},
                {"layer": 1, "index": 7, "shared_tokens": 0.30, "null_shared_tokens_mean": 0.01, "control": False},
                {"layer": 2, "index": 3, "shared_tokens": np.nan, "null_shared_tokens_mean": 0.01, "control": False},
                {"layer": 2, "index": 7, "shared_tokens": 0.90, "null_shared_tokens_mean": 0.01, "control": True},
            ]
        ).assign(site="mlp_post")
        config = content("subject=tiny", "unit=neuron", "unit.layer=[1,2]", "unit.index=[3,7]", "seeds='0:3'")
        for of_units, task in ((after_maximization, "search"), (after_search, "examples")):
            found = of_units(Source.of({"units": units}, {}, config))
            unit = ("unit.site=mlp_post", "unit.layer=1", "unit.index=7")
            assert found.words[:6] == ("actmax", f"task={task}", "subject=tiny", *unit)
            assert "whose restarts have most in common" in found.why
            checked(list(found.words[1:]))
            alone = of_units(Source.of({"units": units.iloc[[0, 3]]}, {}, config))  # the other is a control
            assert {"unit.layer=[1,2]", "unit.index=[3,7]"} <= set(alone.words)

    @pytest.mark.parametrize(
        ("own", "carried"),
        [
            (("context=prefix", "context.text='A b'"), ["context=prefix", 'context.text="A b"']),
            (("context=none",), []),
            (("context=bos",), ["context=bos"]),
            (("objective.sign=minimize",), ["objective.sign=minimize"]),
            (("unit.logit=b", "unit.minus=a"), ["unit.logit=b", "unit.minus=a"]),
        ],
        ids=str,
    )
    def test_what_is_asked_and_where_stay(self, actmax: Actmax, own: tuple[str, ...], carried: list[str]) -> None:
        ran = actmax(*TINY, *own)
        assert ran.code == 0, ran.err
        words = list(ahead(ran.out).words)
        checked(words[1:])
        left = [word for word in words if word not in ("unit.site=resid_pre", "unit.layer=8", "unit.index=91")]
        head = ["actmax", "task=search", "subject=tiny", "subject.dtype=float64"]
        assert left == [*head, *carried, "controls=0", "tokens=4"]

    def test_a_search_without_context_leads_to_text_without_begin_of_text(self, actmax: Actmax) -> None:
        ran = actmax("task=search", *TINY, *SMALL, *UNIT, "context=none", "search=random")
        assert ran.code == 0, ran.err
        assert ahead(ran.out).words[-2:] == ("context=none", "examples.text=sample")

    def test_behind_a_search_for_the_lowest_stands_the_highest(self, actmax: Actmax) -> None:
        ran = actmax("task=search", *TINY, *SMALL, *UNIT, "objective.sign=minimize")
        assert ran.code == 0, ran.err
        found = ahead(ran.out)
        assert found.words[1] == "task=search"
        assert content(*found.words[1:])["objective"]["sign"] == "maximize"
        assert found.why == "the other end"

    def test_shown_again_it_is_the_same(self, actmax: Actmax, capfd: pytest.CaptureFixture[str]) -> None:
        ran = actmax(*TINY, *UNIT)
        report([str(ran.job)])
        assert ahead(capfd.readouterr().out) == ahead(ran.out)
        file = ran.job / "config.yaml"
        for old, new in (("source: random", "source: memory"), ("name: maximization", "name: of_another_package")):
            before = file.read_text()
            assert old in before
            file.write_text(before.replace(old, new))
            assert after(Record(ran.job)) is None  # no command line has it
            file.write_text(before)
        assert after(Record(ran.job)) == ahead(ran.out)

    def test_a_damaged_record_has_none(self, actmax: Actmax) -> None:
        ran = actmax("task=check", "subject=tiny", "logger=none", "page=false")
        file = ran.job / "summary.json"
        file.write_text(file.read_text().replace('"sizes"', '"sises"'))
        assert after(Record(ran.job)) is None


def test_behind_words_it_is_a_search_for_the_decoders_direction(actmax: Actmax, tmp_path: Path) -> None:
    words = [f"{one}{two},{'noun' if one < 'e' else 'verb'}\n" for one in "abcdefgh" for two in "rstu"]
    (tmp_path / "words.csv").write_text("word,category\n" + "".join(words))
    small = ("tuning.layers=[1,2]", "tuning.sites=[resid_post]", "tuning.permutations=40", "tuning.splits=4")
    ran = actmax("task=tuning", "subject=tiny", "tuning.data=words.csv", *small, "page=false", "hydra.run.dir=a b/w")
    assert ran.code == 0, ran.err
    found = ahead(ran.out)
    decoders = pd.read_parquet(tmp_path / "a b" / "w" / "decoders.parquet").query("scope == 'layer'")
    best = decoders.loc[decoders["accuracy"].idxmax(), "layer"]
    assert found.words == (
        *("actmax", "task=search", "subject=tiny", 'unit.direction="a b/w/directions.safetensors"'),
        *("unit.name=decoder", "unit.site=resid_post", f"unit.layer={best}", 'seeds="0:8"'),
    )
    ran = actmax(*found.words[1:], *SMALL, "hydra.run.dir=s")
    assert ran.code == 0, ran.err
    assert "#decoder" in ran.out
    checked(list(ahead(ran.out).words[1:]))  # the direction goes along to real text


def test_behind_a_simulation_stand_real_words(actmax: Actmax) -> None:
    ran = actmax("task=simulation", "simulation.effects=[0,1]", "simulation.repetitions=5", "page=false")
    found = ahead(ran.out)
    assert found.words == ("actmax", "experiment=nouns_verbs", "subject=smollm2")
    checked(list(found.words[1:]))


def test_behind_a_check_stands_a_unit_that_the_model_has(actmax: Actmax) -> None:
    ran = actmax("task=check", "subject=tiny", "subject.architecture.n_layer=3", "logger=none", "page=false")
    found = ahead(ran.out)
    small = ("subject=tiny", "subject.architecture.n_layer=3")
    unit = ("unit.site=resid_pre", "unit.layer=1", "unit.index=0", 'seeds="0:10"')
    assert found.words == ("actmax", "task=maximization", *small, *unit)
    assert actmax(*found.words[1:], "steps=1", *QUICK).code == 0
    assert actmax(*found.words[1:5], "steps=1", *QUICK).code == 2  # its default layer, 8, is not there


class TestSweeps:
    SWEEP = ("-m", *TINY, *UNIT, "seeds=0,1", "sweep=s")

    @pytest.mark.slow
    def test_first_the_jobs_pages_then_a_job(
        self, actmax: Actmax, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        ran = actmax(*self.SWEEP)
        assert ran.code == 0, ran.err
        pages = ahead(ran.out)
        assert pages.words == ("actmax-report", "outputs/s", "--jobs", "2")
        report(list(pages.words[1:]))
        one = ahead(capfd.readouterr().out)
        assert one.words[0] == "actmax-report"
        assert one.words[1] in {f"outputs/s/{job.name}" for job in ran.jobs}
        report(list(one.words[1:]))
        assert ahead(capfd.readouterr().out).words[:2] == ("actmax", "task=search")
        turned = (tmp_path / "outputs" / "s").rename(tmp_path / "a\u202eb")  # as an escape it would be another folder
        report([str(turned)])
        assert "Next, " not in capfd.readouterr().out

    def test_where_jobs_are_missing_the_sweep_again(self, actmax: Actmax, tmp_path: Path) -> None:
        plants = planted(tmp_path / "plants")
        (tmp_path / "plants" / "1").write_text("raise")
        ran = actmax(*self.SWEEP, "steps=8", *plants, "hydra.sweep.dir=my sweep")
        assert ran.code == 1
        (line,) = [line for line in ran.out.splitlines() if LINE.fullmatch(line)]
        found = ahead(line)
        assert found.why == "the jobs that are missing"
        ran = actmax(*found.words[1:])
        assert ran.code == 0, ran.err
        assert "1 failed before" in ran.out
        assert len(ran.jobs) == 2  # in the same folder
        assert ahead(ran.out).words[0] == "actmax-report"


def test_a_command_that_the_app_does_not_take_is_noticed() -> None:
    with pytest.raises(InputError, match=r"unit\.site"):
        checked(list(ahead("Next, this: actmax task=search unit.site=resid").words[1:]))
