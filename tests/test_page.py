"""The page of a job and of a sweep: what stands in it, whatever the record holds, and that nothing gets in."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actmax.app.report import main
from actmax.evidence.findings import Measure, unit_findings
from actmax.records.store import Record
from actmax.report import figures
from actmax.report.blocks import FEW, Cell, Column, Number, Page, Section, Shown, Table, table, visible_text
from actmax.report.html import render
from actmax.report.words import answer_word, in_order, p_words, unit_answer
from actmax.tasks.collect import collect
from actmax.tasks.pages import write_job
from actmax.tasks.sweep_page import write_sweep
from cli import QUICK, Actmax

JOB = ("subject=tiny", "steps=4", "seeds='0:3'", "sweep=s", *QUICK)
HOSTILE = [
    "<script>document.title = 'hacked'</script>",
    '"><img src=x onerror="document.title=1">',
    "'; alert(1); '",
    "</bdi></td></table><h1>out",
    "\x00\x07\x1b[31mred",
    "\u202eabc\u202c",
    "\u0634\u0645\u0633",
    "\ufffd",
    "\ud800",
    "{{ 7 * 7 }}",
    "</script><script>1",
]


class Reader(HTMLParser):
    """What a browser would make of the page: its tags, and the text outside of script and style."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self._in = "", ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in = tag

    def handle_endtag(self, tag: str) -> None:
        self._in = ""

    def handle_data(self, data: str) -> None:
        if self._in not in ("script", "style"):
            self.text += data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def read(source: str) -> Reader:
    reader = Reader()
    reader.feed(source)
    return reader


def hosts(source: str) -> list[str]:
    """Addresses anywhere in the page, its inline figures included; what may stand there names XML, not a place."""
    inside = [base64.b64decode(data).decode() for data in re.findall(r"data:image/svg\+xml;base64,([\w+/=]+)", source)]
    found = [
        name for text in (source, *inside) for name in re.findall(r"(?:https?:)?//[\w.-]+\.[a-z]{2,}[^\s\"'<]*", text)
    ]
    return [
        name for name in found if "www.w3.org" not in name and "purl.org" not in name and "creativecommons" not in name
    ]


def page(text: str) -> Page:
    heads = (Column("token", numeric=False), Column(text, about=text))
    cells = Cell(text, note=text, marks=text), Cell(text, note=text, detail=text)
    rows = Table("tokens", heads, (cells,), text, 2, text)
    numbers, sections = (Number(text, text, text),), (Section(text, (rows,)),)
    return Page(text, text, numbers, sections=sections, title=text, state=text, facts=text, problems=(text,))


@pytest.fixture
def job(actmax: Actmax) -> Path:
    ran = actmax(*JOB)
    assert ran.code == 0, ran.err
    return ran.job


class TestHostileText:
    @pytest.mark.parametrize("text", HOSTILE, ids=ascii)
    def test_is_text_and_nothing_else(self, text: str) -> None:
        plain, hostile = (
            read(render(page("plain"))),
            read(render(page(text)).encode("utf-8", "backslashreplace").decode()),
        )
        assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in plain.tags]
        assert hostile.text.count(visible_text(text)) == plain.text.count("plain")

    def test_the_check_can_fail(self) -> None:
        plain = render(page("plain"))
        broken = plain.replace("plain", HOSTILE[0])  # what a page without escaping would be
        assert [tag for tag, _ in read(broken).tags] != [tag for tag, _ in read(plain).tags]

    @settings(deadline=None, max_examples=50)
    @given(st.text(min_size=1))
    def test_any_text_leaves_the_page_as_it_is(self, text: str) -> None:
        tags = [tag for tag, _ in read(render(page(text))).tags]
        assert tags == [tag for tag, _ in read(render(page("plain"))).tags]

    def test_no_control_character_and_no_direction_gets_through(self) -> None:
        said = render(page("".join(HOSTILE)))
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", said)
        assert "\\u202e" in said
        assert "\ufffd" in said

    def test_every_text_of_a_table_is_isolated(self) -> None:
        said = render(page("\u0634\u0645\u0633"))
        cells = re.findall(r"<td.*?</td>", said, re.DOTALL)
        assert cells
        assert all("<bdi>\u0634\u0645\u0633</bdi>" in cell for cell in cells)

    def test_only_the_script_that_was_written_here_may_run(self) -> None:
        said = render(page("plain"))
        (script,) = re.findall(r"<script>(.*?)</script>", said, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy = html.unescape(re.findall(r'Content-Security-Policy" content="([^"]*)"', said)[0])
        assert f"script-src 'sha256-{digest}'" in policy
        assert "default-src 'none'" in policy

    def test_of_a_vocabulary_in_a_record(self, job: Path) -> None:
        tokens = pd.read_parquet(job / "tokens.parquet")
        before = read(write_job(Record(job)).read_text())
        known = [text for text in HOSTILE if text != "\ud800"]  # which Parquet cannot hold
        tokens["token"] = [known[row % len(known)] for row in range(len(tokens))]
        tokens["init_token"] = tokens["token"]
        Record(job).write_table("tokens", tokens)
        after = read(write_job(Record(job)).read_text())
        assert [tag for tag, _ in after.tags if tag != "b"] == [tag for tag, _ in before.tags if tag != "b"]
        assert "<script>document.title" in after.text.replace("·", " ")


class TestJob:
    def test_the_first_screen(self, job: Path) -> None:
        said = read(write_job(Record(job)).read_text())
        row = pd.read_parquet(job / "units.parquet").iloc[0]
        assert "What does resid_pre.8[91] of tiny respond to, and would you get the same answer again?" in said.text
        row = row.to_dict()
        answer = said.text.index(unit_answer(row))
        card = said.text.index(f"{answer_word(row)}: would another start give the same answer?")
        assert answer < card < said.text.index("What was found")
        assert said.text.count("would another start") == 1
        (found,) = (one for one in unit_findings(row) if one.measure == Measure.SHARED_TOKENS)
        shown, _, limit = in_order(found, ".1%")
        assert f"{shown} ({row['pairs_sharing']} of {row['pairs']} pairs)" in said.text
        assert f"random moves: up to {limit}" in said.text
        assert p_words(found, brief=True) in said.text

    def test_the_card_then_figures_then_what_was_found(self, job: Path) -> None:
        source = write_job(Record(job)).read_text()
        figures = ('href="figures/nulls.svg"', 'href="figures/trajectory.svg"')
        parts = ("would another start give", *figures, "<h3>Decoded tokens")
        places = [source.index(part) for part in parts]
        assert places == sorted(places)
        assert all(source.count(part) == 1 for part in figures)
        assert places[-1] < source.index('href="figures/decode_gap.svg"')

    @pytest.mark.slow
    def test_numbers_of_control_units_stand_in_a_table_of_their_own(self, actmax: Actmax) -> None:
        ran = actmax(*JOB, "controls=2")
        assert ran.code == 0, ran.err
        said = read(write_job(Record(ran.job)).read_text()).text
        title = "Control units: other units from the same seeds"
        own, beside = said.split(title)
        for name in json.loads((ran.job / "summary.json").read_text())["controls"]:
            assert name not in own.replace("controls=2", "")
            assert name in beside
        alone = actmax(*JOB, "hydra.run.dir=alone").folder / "alone"
        assert title not in read(write_job(Record(alone)).read_text()).text

    def test_what_the_tokens_do_in_other_contexts(self, job: Path) -> None:
        text = read(write_job(Record(job)).read_text()).text
        assert "The same tokens in other contexts" in text
        assert "nothing before (its own)" in text
        assert "begin-of-text" in text
        assert "begin-of-text (its own)" not in text

    def test_no_figure_draws_a_control_unit(self, actmax: Actmax, monkeypatch: pytest.MonkeyPatch) -> None:
        ran = actmax(*JOB, "controls=2")
        drawn: dict[str, list[int]] = {}

        def watched(name: str, draw: Callable[[pd.DataFrame], Any]) -> Callable[[pd.DataFrame], Any]:
            return lambda rows: (drawn.__setitem__(name, sorted(set(rows["index"]))), draw(rows))[1]

        for name in ("trajectories", "decode_gap", "against_nulls", "rarefaction"):
            monkeypatch.setattr(figures, name, watched(name, getattr(figures, name)))
        write_job(Record(ran.job))
        assert drawn == {name: [91] for name in ("trajectories", "decode_gap", "against_nulls", "rarefaction")}

    def test_needs_no_other_file_and_no_host(self, job: Path) -> None:
        source = write_job(Record(job)).read_text()
        assert hosts(source) == []
        assert hosts(source + '<a href="https://wandb.ai/x">') == ["https://wandb.ai/x"]
        for tag, attributes in read(source).tags:
            if attributes.get("class") == "save":  # a file that the page holds too
                assert base64.b64encode((job / str(attributes["href"])).read_bytes()).decode() in source
                continue
            for name in ("src", "href", "data", "action"):
                assert str(attributes.get(name) or "data:").startswith("data:"), (tag, attributes)
        assert len(source) < 5_000_000

    def test_figures_and_tables_lie_beside_it(self, job: Path) -> None:
        source = write_job(Record(job)).read_text()
        names = {file.stem for file in (job / "figures").glob("*.svg")}
        assert names == {file.stem for file in (job / "figures").glob("*.png")}
        assert names == {"trajectory", "decode_gap", "nulls", "rarefaction", "neighbours"}
        assert source.count("data:image/svg+xml") == len(names)
        links = [attributes for tag, attributes in read(source).tags if attributes.get("class") == "save"]
        assert [one["href"] for one in links] == [f"figures/{one['download']}" for one in links]
        assert {str(one["download"]) for one in links} == {f"{name}.svg" for name in names}
        tokens = pd.read_csv(job / "tokens.csv", keep_default_na=False)
        assert len(tokens) == 15
        assert tokens["token_id"].tolist() == pd.read_parquet(job / "tokens.parquet")["token_id"].tolist()

    def test_says_how_it_was_made(self, job: Path) -> None:
        said = read(write_job(Record(job)).read_text()).text
        assert "actmax subject=tiny steps=4 'seeds='\"'\"'0:3'\"'\"''" in said
        assert "steps: 4" in said
        assert json.loads((job / "summary.json").read_text())["versions"]["torch"] in said

    @pytest.mark.slow
    def test_twice_is_the_same(self, job: Path) -> None:
        assert write_job(Record(job)).read_bytes() == write_job(Record(job)).read_bytes()

    def test_by_a_run_and_not_without(self, actmax: Actmax) -> None:
        ran = actmax("subject=tiny", "steps=2", "seeds=[0,1]", *QUICK)
        assert not (ran.job / "report.html").exists()
        shown = actmax("subject=tiny", "steps=2", "seeds=[0,1]", *QUICK, "page=true")
        assert (ran.job / "report.html").exists()
        assert "Page: " in shown.out


TASKS = {
    "several": ("unit.index=[3,5,7]",),
    "search": ("task=search", "search.passes=40", "search.candidates=8", "search.top_k=8"),
    "priors": ("prior=[l2,norm]", "rounding.restarts=1"),
}


@pytest.mark.slow
@pytest.mark.parametrize("overrides", TASKS.values(), ids=TASKS)
def test_every_kind_of_job_has_a_whole_page(overrides: tuple[str, ...], actmax: Actmax) -> None:
    ran = actmax(*JOB, *overrides, "subject.dtype=float64")
    assert ran.code == 0, ran.err
    source = write_job(Record(ran.job)).read_text()
    assert 'class="missing"' not in source
    several = "unit.index=[3,5,7]" in overrides
    assert ('class="value"' in source) == several  # of one unit the card has every number
    assert ("would another start give the same answer?" in source) == (not several)


def test_of_a_simulation(actmax: Actmax) -> None:
    ran = actmax("task=simulation", "simulation.effects=[0.0,1.0,5.0]", "simulation.repetitions=20", "page=false")
    assert ran.code == 0, ran.err
    source = write_job(Record(ran.job)).read_text()
    assert 'class="missing"' not in source
    assert {file.stem for file in (ran.job / "figures").glob("*.svg")} == {"rejections", "beta_t", "p_p", "volcano"}
    assert "Wald rejects at an effect of 5" in source


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


DAMAGES: dict[str, Callable[[Path], None]] = {
    "cut": cut,
    "empty": lambda file: file.write_bytes(b""),
    "noise": lambda file: file.write_bytes(bytes(range(256))),
    "gone": lambda file: file.unlink(),
}
FILES = (
    "status.json",
    "summary.json",
    "config.yaml",
    "units.parquet",
    "tokens.parquet",
    "trajectory.parquet",
    "gaps.parquet",
)


class TestDamage:
    @pytest.mark.parametrize(
        "damage",
        [pytest.param(act, id=name, marks=pytest.mark.slow) for name, act in DAMAGES.items()],
    )
    def test_what_is_missing_is_said(self, damage: Callable[[Path], None], job: Path, tmp_path: Path) -> None:
        assert 'class="missing"' not in write_job(Record(job)).read_text()
        for name in FILES:
            if damage is cut and name == "config.yaml":
                continue  # half a YAML file is a whole one
            copy = tmp_path / f"copy-{name}"
            shutil.copytree(job, copy)
            damage(copy / name)
            said = read(write_job(Record(copy)).read_text()).text
            assert name in said or Path(name).stem in said, name
            assert re.search(r"missing|not here|damaged|cannot be read|not in the record|lacks", said), name

    def test_a_table_without_its_columns(self, job: Path) -> None:
        Record(job).write_table("units", pd.DataFrame({"site": ["x"]}))
        Record(job).write_table("tokens", pd.read_parquet(job / "tokens.parquet").head(0))
        said = read(write_job(Record(job)).read_text()).text
        assert "lacks what the headline needs" in said
        assert "Decoded tokens" in said

    def test_an_empty_folder(self, tmp_path: Path) -> None:
        said = read(write_job(Record(tmp_path / "nothing")).read_text()).text
        for name in ("status.json", "summary.json", "config.yaml"):
            assert f"{name} is missing" in said

    def test_another_version_is_refused_in_words(self, job: Path, capfd: pytest.CaptureFixture[str]) -> None:
        status = json.loads((job / "status.json").read_text())
        Record(job).write_json("status.json", {**status, "version": 99})
        with pytest.raises(SystemExit) as end:
            main([str(job)])
        assert end.value.code == 2
        assert "version 99" in capfd.readouterr().err
        said = read((job / "report.html").read_text()).text
        assert "version 99" in said
        assert "Decoded tokens" not in said
        assert "steps: 4" in said

    def test_the_command_on_a_damaged_record(self, job: Path, capfd: pytest.CaptureFixture[str]) -> None:
        (job / "summary.json").unlink()
        with pytest.raises(SystemExit) as end:
            main([str(job)])
        assert end.value.code == 2
        err = capfd.readouterr().err
        assert "report.html says what is missing" in err
        assert "Traceback" not in err

    def test_a_failed_job(self, actmax: Actmax) -> None:
        ran = actmax(*JOB, "+callbacks.failing._target_=cli.Failing", "steps=8", "page=true")
        assert ran.code == 1
        said = read((ran.job / "report.html").read_text()).text
        assert "The job failed" in said
        assert "RuntimeError: planted" in said
        assert "Traceback" in said


class TestSweep:
    @pytest.fixture
    def swept(self, actmax: Actmax, tmp_path: Path) -> Path:
        ran = actmax("-m", "subject=tiny", "steps=4", "seeds='0:2'", "sweep=s", "unit.layer=1,4,8", *QUICK)
        assert ran.code == 0, ran.err
        return tmp_path / "outputs/s"

    def test_links_to_each_job_and_says_what_failed(self, swept: Path) -> None:
        jobs = sorted(swept.glob("tiny_*"))
        failed = {"state": "failed", "error": {"type": "E", "message": "<b>planted</b>", "traceback": ""}}
        Record(jobs[0]).write_json("status.json", json.loads((jobs[0] / "status.json").read_text()) | failed)
        (jobs[1] / "summary.json").write_text("{")
        source = write_sweep(collect(swept)).read_text()
        said = read(source)
        links = {attributes["href"] for tag, attributes in said.tags if tag == "a"}
        assert links == {f"{job.name}/report.html" for job in (jobs[0], jobs[2])}
        assert all((swept / str(link)).exists() for link in links)
        assert "E: <b>planted</b>" in said.text
        assert "Records that could not be read" in said.text
        assert jobs[1].name in said.text
        assert "1 of 2" in said.text
        assert "actmax -m subject=tiny" in said.text
        assert hosts(source) == []

    @pytest.mark.slow
    def test_priors_side_by_side_are_not_averaged(self, actmax: Actmax, tmp_path: Path) -> None:
        ran = actmax("-m", "subject=tiny", "steps=4", "seeds='0:2'", "sweep=s", "prior=none,simplex", *QUICK)
        assert ran.code == 0, ran.err
        said = read(write_sweep(collect(tmp_path / "outputs/s")).read_text()).text
        asked = [read(page.read_text()).text for page in (tmp_path / "outputs/s").glob("*/report.html")]
        assert [text.count("respond to (prior: simplex), and") for text in sorted(asked, key=len)].count(1) == 1
        priors = pd.read_parquet(tmp_path / "outputs/s/ladder.parquet").to_dict("records")
        best = max(priors, key=lambda row: row["z_snapped"])
        assert f"{best['prior']} has the most activation left in tokens" in said
        assert f"z = {best['z_snapped']:.2f}" in said
        assert "Over 2 conditions together" not in said

    @pytest.mark.slow
    def test_whole(self, swept: Path) -> None:
        source = write_sweep(collect(swept)).read_text()
        assert 'class="missing"' not in source
        assert {file.stem for file in (swept / "figures").glob("*.png")} >= {"layers"}
        assert "3 of 3" in source

    @pytest.mark.slow
    def test_of_many_jobs_has_no_pages_of_theirs(self, swept: Path) -> None:
        source = write_sweep(collect(swept), jobs=2).read_text()
        assert not list(swept.glob("*/report.html"))
        assert "3 have none: actmax-report FOLDER/JOB makes it" in source

    @pytest.mark.slow
    def test_a_page_that_is_new_enough_is_kept(self, swept: Path) -> None:
        write_sweep(collect(swept))
        pages = {file: file.stat().st_mtime_ns for file in swept.glob("*/report.html")}
        assert len(pages) == 3
        changed = sorted(pages)[0]
        (changed.parent / "status.json").write_text((changed.parent / "status.json").read_text())
        write_sweep(collect(swept))
        assert {file for file, time in pages.items() if file.stat().st_mtime_ns != time} == {changed}

    def test_nothing_but_damage(self, swept: Path) -> None:
        for job in swept.glob("tiny_*"):
            (job / "summary.json").write_text("{")
        said = read(write_sweep(collect(swept)).read_text()).text
        assert "nothing to say yet" in said
        assert "0 of 0" in said


class TestTable:
    def test_is_cut_and_names_the_file(self) -> None:
        frame = pd.DataFrame({"a": np.arange(1500.0)})
        made = table(frame, [Shown("a")], title="t", source="units.parquet")
        assert len(made.rows) == 1000
        assert made.cut() == "The first 1,000 of 1,500 rows; units.parquet has them all."
        assert table(frame.head(1000), [Shown("a")], title="t", source="x").cut() == ""

    def test_is_folded_where_it_is_long_and_says_how_long(self) -> None:
        frame = pd.DataFrame({"a": np.arange(1500.0)})
        for rows, size in ((FEW, ""), (FEW + 1, f"{FEW + 1} rows"), (1500, "1,000 of 1,500 rows")):
            made = table(frame.head(rows), [Shown("a")], title="t", source="units.parquet")
            source = render(Page("q", first=(made,)))
            folds = re.findall(r"<details[^>]*><summary><h3>t</h3> <small>(.*?)</small></summary>", source)
            assert folds == [size] * bool(size), rows
            assert read(source).count("td") == min(rows, 1000)
            assert "open" not in dict(read(source).tags).get("details", {})

    def test_missing_numbers_are_dashes(self) -> None:
        made = table(pd.DataFrame({"a": [1.5, np.nan]}), [Shown("a"), Shown("absent")], title="t", source="x")
        assert [row[0].text for row in made.rows] == ["1.5", "–"]
        assert len(made.columns) == 1


class TestFigures:
    def test_many_points_are_pixels(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        sizes = []
        for number in (1_000, 60_000):
            units = pd.DataFrame({"cohens_d": rng.normal(size=number), "welch_p_log10": -rng.exponential(size=number)})
            units["tuned"] = units["welch_p_log10"] < -1
            _, svg = figures.save(Record(tmp_path), "v", lambda units=units: figures.volcano(units, chosen="tuned"))
            sizes.append((svg.stat().st_size, "image/png" in svg.read_text()))
        assert [pixels for _, pixels in sizes] == [False, True]
        assert sizes[1][0] < 1_000_000

    def test_the_line_of_theory_is_what_logistic_regression_finds(self) -> None:
        from actmax.stats.groups import compare

        rng = np.random.default_rng(0)
        labels = np.repeat([0, 1], [4000, 2000])
        x = rng.normal(size=(6000, 4)) + labels[:, None] * np.array([0.0, 0.3, 0.8, 1.5])
        found = compare(x, labels).table
        expected = figures.normal_beta(found["student_t"].to_numpy(float), 4000.0, 2000.0)
        assert np.abs(found["logit_coef_std"] - expected).max() < 0.1
        assert np.abs(found["logit_coef_std"] + expected).max() > 1  # the other sign would be seen
