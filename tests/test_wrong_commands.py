"""Commands that a person gets wrong: answered early, in one message that names the key, with an exit code of 2."""

from __future__ import annotations

import dataclasses
import json
import re
import signal
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_type_hints

import numpy as np
import pandas as pd
import pytest

from actmax import progress
from actmax.app import config
from actmax.evidence import gap as evidence_gap
from actmax.model.evaluation import random_activations
from actmax.tasks import bounds
from cli import QUICK, Actmax, Ran, start

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


UNKNOWN = [
    ("step", "steps"),
    ("unit.indx", "unit.index"),
    ("nulls.draw", "nulls.draws"),
    ("prior.l2.wieght", "prior.l2.weight"),
    ("trainer.precison", ""),
    ("subjct", "subject"),
    ("a.b", ""),
    ("passes", "search.passes"),
    ("prior.weight", "prior.l2.weight or prior.norm.weight or prior.manifold.weight"),
    ("draws", "nulls.draws or gap.draws or transfer.draws"),
]
"""Keys that there are not, with the one that was meant."""


class TestUnknownKeys:
    """Hydra's own message suggests `+KEY=VALUE`, which then changed nothing, silently."""

    @pytest.mark.parametrize("plus", ["", "+", "++"])
    @pytest.mark.parametrize(
        ("key", "meant"),
        UNKNOWN,
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


class TestSettingsOfAnotherTask:
    """What was typed and changes nothing is said: somebody expects something of it."""

    SAID = "which change nothing in"

    def test_are_named(self, actmax: Actmax) -> None:
        typed = ("search.passes=7", "++tuning.words=9", "task=simulation", "tokens=3", "simulation.repetitions=9")
        ran = actmax("simulation.effects=[1]", *typed, "logger=none", "page=false")
        assert ran.code == 0, ran.err
        assert f"{self.SAID} this job: search.passes=7 ++tuning.words=9 tokens=3\n" in ran.out

    def test_that_a_job_reads_are_not(self, actmax: Actmax) -> None:
        ran = actmax(*TINY, "objective.sign=minimize", "init=scaled", "trainer.deterministic=true", "max_rows=2")
        assert ran.code == 0, ran.err
        assert self.SAID not in ran.out

    @pytest.mark.parametrize(("tasks", "times"), [("maximization", 1), ("maximization,search", 0)])
    def test_are_named_in_a_sweep_where_no_job_reads_them(self, actmax: Actmax, tasks: str, times: int) -> None:
        ran = actmax(
            "-m", *TINY, "seeds=0,1", f"task={tasks}", "context=none", "search.passes=9", "search.candidates=4"
        )
        assert ran.code == 0, ran.err
        assert ran.out.count(f"{self.SAID} any job: search.passes=9 search.candidates=4\n") == times
        assert ran.out.count(self.SAID) == times


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

    @pytest.mark.parametrize("values", ["range(0,3,0)", "range(0,inf)", "range(nan,2)", "range(0,3,inf)"])
    def test_a_range_without_an_end_is_refused(self, actmax: Actmax, values: str) -> None:
        refused(actmax("-m", *TINY, f"seeds={values}"), f"actmax: seeds={values}: must be a range between finite")

    def test_a_range_and_a_glob_of_a_few_are_a_few_jobs(self, actmax: Actmax) -> None:
        ran = actmax("-m", *TINY, "seeds=range(0,2)", "prior=glob(l2*)", "steps=1,1")
        assert ran.code == 0, ran.err
        assert len(ran.jobs) == 4


WRONG_VALUES = [
    ("nulls.seed=-1", "at least 0"),
    ("gap.seed=-1", "at least 0"),
    ("context.seed=-3", "at least 0"),
    ("nulls.seed=99999999999999999999999", "at most 9223372036854775807"),
    ("subject.seed=9223372036854775808", "at most"),
    ("transfer.random_seed=9223372036854775808", "at most"),
    ("task=simulation simulation.seed=-1", "at least 0"),
    ("callbacks.comparison.alpha=7", "above 0 and below 1"),
    ("callbacks.comparison.alpha=x", "must be a number"),
    ("callbacks.comparison.max_units=-1", "at least 0"),
    ("callbacks.trajectory.every=0", "at least 1"),
    ("callbacks.trajectory.every=2.5", "a whole number"),
    ("callbacks.measures.every=-1", "at least 0"),
    ("callbacks.checkpoint.every=often", "a whole number"),
    ("callbacks.progress.seconds=-1", "at least 0"),
    ("callbacks.trajectory=5", "_target_"),
    ("optimizer.lr=1e300", "at most 1e+06"),
    ("prior=l2 prior.l2.weight=1e300", "at most 1e+09"),
    ("prior=simplex prior.simplex.temperature=1e-300", "at least 1e-06"),
    ("prior=manifold prior.manifold.temperature=1e-300", "at least 1e-06"),
    ("trainer.profiler=banana", "simple, advanced, pytorch"),
    ("subject=null", "tiny"),
    ("prior=null", "none"),
    ("callbacks=null", "default"),
    ("launch.memory_gb=nan", "a positive number"),
    ("launch.minutes=99999999999999", "at most"),
    ("subject.name=../../x", "a plain name"),
    ("subject.name='a/b'", "a plain name"),
    ("sweep=../../x", "a plain name"),
    ("sweep=..", "a plain name"),
    ("sweep=''", "a plain name"),
    ("steps=true", "must be a whole number"),
    ("max_rows=[3]", "must be a whole number or null"),
    ("unit.site=[q]", "must be a text"),
    ("optimizer.lr=fast", "must be a number"),
    ("search.weights=0.5", "must be a list, each a number"),
    ("nulls=null", "must be a group of keys. Set its keys one by one, as in nulls.draws=VALUE"),
    ("gap=[]", "must be a group of keys"),
    ("tokens=${positions}", "cannot be taken (Interpolation key 'positions' not found). It must be a whole number"),
    ("force=???", "must be true or false"),
    ("+optimizer.options.maximize=true", "is no option here: adam takes betas, eps"),
    ("optimizer=sgd +optimizer.options.betas=[0.9,0.9]", "is no option here: sgd takes momentum"),
    ("+optimizer.options.capturable=true", "is no option here"),
    ("trainer.accelerator=tpu", "must be one of auto, cpu, gpu, cuda, mps"),
]


class TestWrongValues:
    @pytest.mark.parametrize(("given", "allowed"), WRONG_VALUES)
    def test_are_refused_before_the_work(self, actmax: Actmax, given: str, allowed: str) -> None:
        ran = actmax(*TINY, *given.split())
        key = given.split()[-1].lstrip("+").partition("=")[0]
        assert ran.code == 2, ran.err or ran.out
        assert ran.err.splitlines()[-1].startswith(f"actmax: {key}=")
        assert allowed in ran.err
        assert not re.search("Traceback|full_key|[$]VALUE", ran.err)
        assert not ran.jobs
        assert not [file for file in ran.folder.parent.glob("x*") if file.is_dir()]

    @pytest.mark.parametrize(
        "given",
        [
            "optimizer.options.eps=-1",
            "+callbacks.mine._target_=nope.Nope",
            "callbacks.comparison.alpha=nan",
            "subject.attention=banana",
            "subject.architecture.n_head=7",
            "++subject.architecture.activation_function=banana",
            f"subject.name={'n' * 300}",
        ],
    )
    @pytest.mark.parametrize("folder", ["outputs/a/b", "here"])
    def test_what_only_the_model_tells_leaves_no_folder_either(
        self, actmax: Actmax, tmp_path: Path, given: str, folder: str
    ) -> None:
        (tmp_path / "here").mkdir()
        named = () if given.startswith("subject.name") else (f"hydra.run.dir={folder}",)
        refused(actmax(*TINY, *named, given))
        assert [file.name for file in tmp_path.iterdir()] == ["here"]

    def test_a_job_that_failed_leaves_its_record(self, actmax: Actmax) -> None:
        ran = actmax(*TINY, "steps=9", "+callbacks.failing._target_=cli.Failing")
        assert ran.code == 1
        assert (ran.job / "actmax.log").stat().st_size

    @pytest.mark.parametrize(
        "given",
        [
            "nulls.seed=9223372036854775807",
            "callbacks.comparison.alpha=0.01 callbacks.trajectory.every=2 callbacks.measures.every=0",
            "optimizer.lr=1000 prior=l2 prior.l2.weight=1e6",
            "trainer.profiler=null callbacks.trajectory=null",
            "sweep=my-sweep.2 subject.name='GPT-mine'",
        ],
    )
    def test_what_is_allowed_runs(self, actmax: Actmax, given: str) -> None:
        ran = actmax(*TINY, *given.split())
        assert ran.code == 0, ran.err


MANY = [
    "nulls.draws",
    "nulls.displacements",
    "gap.draws",
    "transfer.draws",
    "transfer.windows",
    "transfer.window",
    "context=text context.windows",
    "context=text context.window",
    "decode.top_k",
    "steps",
    "meaning.embedder=subject meaning.layer=1 meaning.draws",
    "meaning.embedder=subject meaning.layer=1 meaning.pool",
    "meaning.embedder=subject meaning.layer=1 meaning.words",
    "task=search search.passes",
    "task=search search.candidates",
    "task=search search.top_k",
    "task=search search=epo search.candidates",
    "task=simulation simulation.repetitions",
    "task=simulation simulation.n_0",
    "task=simulation simulation.n_1",
    "task=tuning tuning.permutations",
    "task=tuning tuning.splits",
    "task=tuning tuning.folds",
    "task=tuning tuning.words",
    "task=tuning tuning.contexts",
    "task=tuning tuning.batch_tokens",
    "task=examples examples.rows",
    "task=examples examples.sample",
    "task=examples examples.top",
]
"""Keys that count what a job holds, behind the keys that make the job ask for them."""
REFUSED = ("tokens", "trainer.devices", "prior.manifold.k", "prior.pca.components", "examples.window")
"""Counts that something of the job or of its model bounds, which is named."""
NO_LOOP = {
    "max_rows": "rows that there are",
    "meaning.layer": "a place, refused where there is none",
    "rounding.restarts": "seeds that there are",
    "search.patience": "passes",
    "search.generations": "passes",
    "tuning.padding": "words that there are",
    "tuning.top": "units that there are",
    "examples.context": "tokens of a window",
    "launch.jobs_per_gpu": "jobs that there are",
    "launch.gpus": "refused where there are fewer",
    "launch.minutes": "has a limit of its own",
    "launch.cpus": "the scheduler",
    "launch.parallel": "jobs that there are",
    "launch.requeue": "times that the scheduler ends a job",
}
"""Whole numbers that make nothing longer, each with what bounds it."""
JUST = [
    ("nulls.draws", 16_000_000, 17_000_000, ""),  # 6 numbers for each of 5 tokens: 240 bytes
    ("nulls.displacements", 33_000_000, 34_000_000, ""),  # 3 of them: 120
    ("tuning.permutations", 434_000, 435_000, "task=tuning"),  # 3 for each of 384 units: 9216
    ("tuning.splits", 434_000, 435_000, "task=tuning"),
]
"""Counts that 4 GB hold and that they do not, and what makes the job ask for them."""
LONG = [
    ("steps", 7 * 24 * 3600 * 1000, "callbacks.trajectory=null"),
    ("search.passes", 7 * 24 * 3600 * 10**6, "task=search"),
    ("search.passes", 7 * 24 * 3600 * 10**6 // 12, 'task=search seeds="0:12"'),
]
"""Counts with the largest that is allowed for its time, and what makes the job ask for them."""
SIZES = ["n_layer", "n_embd", "n_positions", "n_inner"]


class TestMuch:
    """Numbers that no memory holds are refused at once, with the largest that would fit."""

    @pytest.fixture(autouse=True)
    def _machine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A machine with 4 GB left."""
        monkeypatch.setattr(bounds, "free_bytes", lambda **_: 4 * 10**9)

    @pytest.mark.parametrize("given", MANY)
    def test_is_refused_with_what_would_fit(self, actmax: Actmax, tmp_path: Path, given: str) -> None:
        (tmp_path / "text.txt").write_text("some text " * 40)
        more = ("examples.text=text.txt", "examples.window=16") if "examples" in given else ()
        begun = time.monotonic()
        *others, key = given.split()
        said = refused(actmax(*TINY, *more, *others, f"{key}={10**9}"), f"{key}={10**9}: takes", "4 GB are free")
        assert time.monotonic() - begun < 3
        most = int(said.split("At most ")[1].split(" would fit")[0].partition("=")[2])
        assert 0 < most < 10**9

    @pytest.mark.parametrize("key", SIZES)
    def test_of_a_random_model_too(self, actmax: Actmax, key: str) -> None:
        begun = time.monotonic()
        said = refused(
            actmax(*TINY, f"+subject.architecture.{key}=100000000".replace("+", "++")), "GB of memory are free"
        )
        assert said.startswith("actmax: subject.architecture=")
        assert time.monotonic() - begun < 3

    @pytest.mark.parametrize("key", REFUSED)
    def test_where_the_job_or_its_model_is_the_bound_it_is_named(
        self, actmax: Actmax, tmp_path: Path, key: str
    ) -> None:
        (tmp_path / "text.txt").write_text("some text " * 40)
        group, _, rest = key.partition(".")
        others = {"prior": (f"prior={rest.split('.')[0]}",), "examples": ("task=examples", "examples.text=text.txt")}
        ran = actmax(*TINY, *others.get(group, ()), f"{key}={10**9}")
        assert ran.code == 2
        assert f"actmax: {key}={10**9}: must be at most" in ran.err

    def test_no_count_is_left_out(self) -> None:
        """A new setting that counts something needs a bound in tasks/bounds.py, or a reason why it needs none."""
        whole = {key for key, kind in _kinds(config.schema()) if kind in (int, int | None)}
        counts = {key for key in whole if not key.endswith("seed")}
        asked = {given.split()[-1] for given in MANY} | set(REFUSED)
        assert counts == asked | set(NO_LOOP)
        assert not asked & set(NO_LOOP)

    @pytest.mark.parametrize(("key", "fits", "more", "others"), JUST)
    def test_the_bound_is_near_what_is_held(
        self, actmax: Actmax, monkeypatch: pytest.MonkeyPatch, key: str, fits: int, more: int, others: str
    ) -> None:
        monkeypatch.setattr(config, "has_gpu", lambda: False)  # which is asked next
        command = (*TINY, *others.split(), "trainer.accelerator=gpu")
        refused(actmax(*command, f"{key}={more}"), f"actmax: {key}={more}: takes")
        refused(actmax(*command, f"{key}={fits}"), "actmax: trainer.accelerator=gpu: ")

    @pytest.mark.parametrize(("key", "most", "others"), LONG)
    def test_so_is_what_nobody_waits_for(
        self, actmax: Actmax, monkeypatch: pytest.MonkeyPatch, key: str, most: int, others: str
    ) -> None:
        monkeypatch.setattr(bounds, "free_bytes", lambda **_: 10**18)
        begun = time.monotonic()
        given = actmax(*TINY, *others.split(), f"{key}={10 * most}")
        done = f"At most {key}={most} can be done"
        refused(given, f"{key}={10 * most}: takes 70 days or more, and a job may take 7. {done}")
        refused(actmax(*TINY, *others.split(), f"{key}={most + 1}"), done)
        assert time.monotonic() - begun < 6

    @pytest.mark.parametrize("memory", [10**18, None])
    def test_what_can_be_done_begins_and_says_how_long(
        self, actmax: Actmax, monkeypatch: pytest.MonkeyPatch, memory: int | None
    ) -> None:
        monkeypatch.setattr(bounds, "free_bytes", lambda **_: memory)
        key, most, others = LONG[0]
        fails = "+callbacks.failing._target_=cli.Failing"  # at the fifth step
        ran = actmax(*TINY, others, f"{key}={most}", fails, "callbacks.progress.seconds=0")
        assert ran.code == 1
        assert "planted" in ran.err
        assert re.search(rf"step 4 of {most}, \d+:\d\d:\d\d left", ran.err)

    def test_what_fits_runs(self, actmax: Actmax) -> None:
        assert actmax(*TINY, "gap.draws=5000", "transfer.draws=100", "decode.top_k=7").code == 0

    def test_and_what_just_does_not_is_refused(self, actmax: Actmax, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bounds, "free_bytes", lambda **_: 10**7)
        # 8 bytes for each of 5 tokens, and for 2 numbers of one unit: 56; 10^7 / 56 = 178571.4
        refused(actmax(*TINY, "gap.draws=178572"), "gap.draws=178572: takes", "At most gap.draws=178571 would fit")


BARS = {
    "maximization": [
        "1 restarts of 1 unit: step 3 of 3",
        "random moves: move 20 of 20",
        "nulls: unit 1 of 1",
        "activations of tokens: sequence 1 of 1",
        "cross-entropies: sequence 40 of 40",
        "activations of random tokens: sequence 40 of 40",
    ],
    "search": ["search: pass 50 of 50", "activations of random tokens: sequence 40 of 40"],
    "meaning.embedder=subject meaning.layer=1": ["vectors of texts: batch "],
    "tuning": ["activations: batch ", "decoder: fit 105 of 105", "comparison: layer 1 of 1", "replication null: layer"],
    "simulation": ["comparison: unit 40 of 40"],
    "examples": ["text: byte 6400 of 6400"],
}
"""The bars of each task, or of what makes a job ask for more, as lines at their end."""


class TestProgress:
    """Whatever grows with a count has a bar, with the count as its end: it may take long, and never in silence."""

    @pytest.mark.parametrize("given", BARS)
    def test_shows_how_far_it_is(
        self, actmax: Actmax, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
    ) -> None:
        ticks = count(step=2 * progress.SECONDS)
        monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
        monkeypatch.setenv("ACTMAX_CACHE", str(tmp_path / "cache"))
        random_activations.cache_clear()
        evidence_gap._random_entropies.cache_clear()
        (tmp_path / "text.txt").write_text("some text " * 640)
        more = {
            "maximization": ("callbacks.progress.seconds=0",),
            "search": ("task=search", "search.passes=50"),
            "tuning": ("task=tuning", "tuning.sites=[resid_post]", "tuning.layers=1", "tuning.permutations=20"),
            "simulation": ("task=simulation", "simulation.effects=[0,1]", "simulation.repetitions=20"),
            "examples": ("task=examples", "examples.text=text.txt", "examples.window=16"),
        }
        ran = actmax(*TINY, *more.get(given, given.split()))
        assert ran.code == 0, ran.err
        for line in BARS[given]:
            assert f"actmax: {line}" in ran.err, line
        assert not re.search(r"NaN|nan|-\d+:", ran.err)

    def test_shows_nothing_of_what_is_soon_done(self, actmax: Actmax) -> None:
        assert "actmax: " not in actmax(*TINY).err

    @pytest.mark.slow
    def test_ctrl_c_on_the_way_keeps_what_there_was(self, tmp_path: Path) -> None:
        process = start(tmp_path, *TINY, "nulls.displacements=400000", "hydra.run.dir=job")
        file, deadline = tmp_path / "job/restarts.parquet", time.monotonic() + 120
        while not file.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
        assert process.returncode == 130, err
        assert json.loads((tmp_path / "job/status.json").read_text())["state"] == "interrupted"
        assert len(pd.read_parquet(file)) == 1
        assert not (tmp_path / "job/units.parquet").exists()


def _kinds(schema: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The kind of every setting of a dataclass and of the dataclasses in it, by dotted key."""
    for name, kind in get_type_hints(schema).items():
        if dataclasses.is_dataclass(kind):
            yield from _kinds(kind, f"{prefix}{name}.")  # pyright: ignore[reportArgumentType]
        else:
            yield f"{prefix}{name}", kind


class TestCache:
    JOB = (*TINY, "gap.draws=41")

    @pytest.mark.parametrize("place", ["/proc/nowhere", "a-file"])
    def test_one_that_cannot_be_written_is_a_warning(
        self, actmax: Actmax, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
    ) -> None:
        (tmp_path / "a-file").write_text("mine")
        monkeypatch.setenv("ACTMAX_CACHE", place)
        ran = actmax(*self.JOB, f"seeds={len(place)}")
        assert ran.code == 0, ran.err
        assert "ACTMAX_CACHE" in ran.out + ran.err
        assert "Traceback" not in ran.out + ran.err
        assert (tmp_path / "a-file").read_text() == "mine"

    def test_false_numbers_in_it_are_noticed(
        self, actmax: Actmax, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ACTMAX_CACHE", str(tmp_path / "cache"))

        def z(folder: str) -> float:
            random_activations.cache_clear()  # what this process remembers
            assert actmax(*self.JOB, f"hydra.run.dir={folder}").code == 0
            return float(pd.read_parquet(tmp_path / folder / "units.parquet")["random_activation_mean"].iloc[0])

        first = z("first")
        kept = sorted((tmp_path / "cache/nulls").glob("*.npy"))
        stamps = [file.stat().st_mtime_ns for file in kept]
        assert z("again") == first
        assert [file.stat().st_mtime_ns for file in kept] == stamps  # the cache was used
        for file in kept:
            whole, numbers = file.read_bytes(), np.load(file)
            np.save(file, numbers + 1000)
            file.write_bytes(file.read_bytes() + whole[-32:])  # the digest of what it held before
        assert z("changed") == first
        for file in kept:
            np.save(file, np.load(file) + 1000)
        assert z("unsigned") == first


class TestOptionsOfHydra:
    @pytest.mark.parametrize("given", ["hydra.verbose=7", "--shell-completion"])
    def test_that_it_does_not_take_are_refused(self, actmax: Actmax, given: str) -> None:
        refused(actmax(given, *TINY), "Hydra does not take what was given (")

    def test_an_error_of_a_job_is_none_of_hydras(self, actmax: Actmax) -> None:
        ran = actmax(*TINY, "steps=9", "+callbacks.failing._target_=cli.Failing")
        assert ran.code == 1
        assert "Hydra" not in ran.err


class TestOneJobElsewhere:
    @pytest.mark.parametrize("launch", ["slurm", "gpus", "cluster"])
    def test_a_launcher_of_sweeps_is_refused_for_one_job(self, actmax: Actmax, launch: str) -> None:
        refused(actmax(*TINY, f"launch={launch}"), f"launch={launch}: is for the jobs of a sweep", "Add -m")

    def test_the_serial_one_is_not(self, actmax: Actmax) -> None:
        assert actmax(*TINY, "launch=serial").code == 0

    def test_no_line_about_overrides_stands_before_a_message(self, actmax: Actmax) -> None:
        ran = actmax(*TINY, "optimizer.options.eps=-1")
        assert ran.code == 2
        assert "Error executing job" not in ran.err
        assert ran.err.startswith("actmax: optimizer.options=")


ODD = "\x1b[31mred\x1b]0;title\x07\u202etxt"
"""A colour, a terminal's title, and a mark that turns what follows round."""


class TestEscapeSequences:
    @pytest.mark.parametrize("override", ["subject.path", "tuning.data", "hydra.run.dir"])
    def test_are_shown_as_escapes_in_a_message(self, actmax: Actmax, tmp_path: Path, override: str) -> None:
        place = tmp_path / ODD
        place.mkdir()
        (place / "config.yaml").write_text("a: 1")
        task = ("task=tuning",) if override.startswith("tuning") else ()
        ran = actmax(*TINY, *task, f"{override}='{place}'")
        assert ran.code == 2
        assert "\\x1b[31mred" in ran.err
        assert "\\u202e" in ran.err
        assert not {"\x1b", "\x07", "\u202e"} & set(ran.err)

    def test_are_shown_as_escapes_where_a_record_lies(self, actmax: Actmax) -> None:
        ran = actmax(*TINY, "report=true", f"hydra.run.dir='{ODD}'")
        assert ran.code == 0, ran.err
        assert "\\x1b[31mred" in ran.out
        assert not {"\x1b", "\x07", "\u202e"} & set(ran.out)

    def exits(self, ran: Ran) -> dict[str, str]:
        """What a person may see of a command: the terminal, logs, pages, names."""
        files = [file for file in ran.folder.rglob("*") if file.suffix in (".log", ".html", ".md", ".svg")]
        seen = {str(file.relative_to(ran.folder)): file.read_text() for file in files}
        names = [str(file.relative_to(ran.folder / "outputs")) for file in (ran.folder / "outputs").rglob("*")]
        return seen | {"stdout": ran.out, "stderr": ran.err, "names": "".join(names)}

    @pytest.mark.parametrize("task", ["tuning", "examples", "maximization", "sweep"])
    def test_are_shown_as_escapes_at_every_exit(self, actmax: Actmax, tmp_path: Path, task: str) -> None:
        words = [f"{word}{ODD},noun" for word in ("dog", "cat", "cow", "owl")]
        words += [f"{word},verb" for word in ("run", "eat", "sit", "mix")]
        (tmp_path / f"w{ODD}.csv").write_text("\n".join(["word,category", *words]))
        (tmp_path / f"t{ODD}.txt").write_text(f"a {ODD} ran.")
        text = f"'t{ODD}.txt'"
        examples = ("task=examples", f"examples.text={text}", "examples.window=16")
        tuning = ("task=tuning", f"tuning.data='w{ODD}.csv'", f"tuning.text={text}")
        around = ("context=text", f"context.texts={text}", "context.windows=1", "transfer.windows=1")
        more = {
            "tuning": (*tuning, "tuning.unit='resid_post.0[3]'", "page=false"),
            "examples": examples,
            "maximization": (*TINY, "report=true", "page=true", "nulls.draws=299", *around),
            "sweep": ("-m", *examples, "unit.index=3,4"),
        }
        ran = actmax(*more[task], "subject=tiny", "logger=none")
        assert ran.code == 0, ran.err
        exits = self.exits(ran)
        assert len(exits) > 4
        for name, shown in exits.items():
            assert not {"\x1b", "\x07", "\u202e"} & set(shown), name
        if task != "maximization":
            assert "\\x1b" in "".join(exits.values())

    @pytest.mark.parametrize("arguments", [("task=tuning", "-m", f"a={ODD}"), (f"--{ODD}",), ("--cfg", ODD)])
    def test_are_shown_as_escapes_where_the_command_line_is_no_command(
        self, actmax: Actmax, arguments: tuple[str, ...]
    ) -> None:
        said = refused(actmax(*arguments))
        assert not {"\x1b", "\x07", "\u202e"} & set(said)
        assert "usage:" not in said

    def test_are_shown_as_escapes_in_log_lines(self, actmax: Actmax, tmp_path: Path) -> None:
        ran = actmax(*TINY, "steps=9", "+callbacks.failing._target_=cli.Failing", f"hydra.run.dir='{ODD}'")
        assert ran.code == 1
        assert "ERROR" in ran.out
        assert not {"\x1b", "\x07", "\u202e"} & set(ran.out + ran.err + (tmp_path / ODD / "actmax.log").read_text())
