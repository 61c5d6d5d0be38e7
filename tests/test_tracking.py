"""W&B for real, offline: what its own reader finds in the run files."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from actmax.app import config, tracking
from actmax.app.tracking import WandbTracker
from actmax.records.store import Record
from cli import QUICK, Actmax
from test_config import composed

TINY = ("subject=tiny", "steps=12", *(part for part in QUICK if "logger" not in part))
WANDB = (*TINY, "logger=wandb", "callbacks.measures.every=4")


def inspected(job: Path) -> dict[str, Any]:
    (file,) = job.glob("wandb/offline-run-*/run-*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    return {"text": ran.stdout, "records": [json.loads(line) for line in ran.stdout.splitlines() if line.strip()]}


def test_a_run_offline(actmax: Actmax) -> None:
    ran = actmax(*WANDB, "experiment=reproducibility", "steps=12", "seeds='0:2'")
    assert ran.code == 0, ran.err
    text = inspected(ran.job)["text"]
    for said in ("reproducibility", "tiny resid_pre.8[91] seeds 0:2", "unique_tokens", "init_retention", "job_hash"):
        assert said in text
    assert "WANDB_MODE=offline" in (ran.job / "actmax.log").read_text()  # the reason
    assert list(ran.job.rglob("*.table.json")), "the token table"
    assert (ran.job / "wandb").is_dir()
    assert os.environ.get("WANDB_DATA_DIR") is None


def test_the_token_table_holds_no_control_unit(actmax: Actmax) -> None:
    ran = actmax(*WANDB, "seeds='0:2'", "controls=2")
    assert ran.code == 0, ran.err
    (file,) = ran.job.rglob("*.table.json")
    table = json.loads(file.read_text())
    units = {row[table["columns"].index("index")] for row in table["data"]}
    assert (units, len(table["data"])) == ({91}, 2 * 5)


@pytest.mark.slow
def test_figures_are_logged(actmax: Actmax) -> None:
    ran = actmax(*WANDB, "seeds='0:2'", "page=true", "hydra.run.dir=with")
    assert ran.code == 0, ran.err
    drawn = {file.stem for file in (ran.folder / "with/figures").glob("*.png")}
    logged = [file for file in (ran.folder / "with/wandb").rglob("*.png") if "media" in file.parts]
    assert {name for name in drawn if any(file.name.startswith(f"{name}_") for file in logged)} == drawn != set()
    assert actmax(*WANDB, "seeds='0:2'", "hydra.run.dir=without").code == 0
    assert not [file for file in (ran.folder / "without/wandb").rglob("*.png") if "media" in file.parts]


def test_a_failed_job_ends_its_run_with_1_and_the_next_job_has_its_own(actmax: Actmax) -> None:
    ran = actmax("-m", *WANDB, "steps=4,12", "+callbacks.failing._target_=cli.Failing")
    assert ran.code == 1
    codes = {}
    for job in ran.jobs:
        state = json.loads((job / "status.json").read_text())["state"]
        codes[state] = exit_code(inspected(job)["records"])
    assert codes == {"complete": 0, "failed": 1}


def exit_code(records: list[dict[str, Any]]) -> int:
    (code,) = {found for record in records for found in _values(record, ("exit_code", "exitCode"))}
    return code


def _values(node: Any, keys: tuple[str, ...]) -> list[Any]:
    if isinstance(node, dict):
        own = [value for key, value in node.items() if key in keys]
        return own + [found for value in node.values() for found in _values(value, keys)]
    return [found for value in node for found in _values(value, keys)] if isinstance(node, list) else []


def test_a_tracker_that_cannot_start_does_not_fail_the_run(actmax: Actmax, tmp_path: Path) -> None:
    job = tmp_path / "job"
    job.mkdir()
    (job / "wandb").write_text("a file where W&B wants a folder")
    ran = actmax(*WANDB, "hydra.run.dir=job")
    assert ran.code == 0, ran.err
    assert json.loads((job / "status.json").read_text())["state"] == "complete"
    assert "untracked" in (job / "actmax.log").read_text()


def test_a_tracker_that_breaks_on_the_way_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = {
        "project": "actmax",
        "entity": None,
        "group": "g",
        "name": "n",
        "tags": [],
        "job_type": "j",
        "config": {},
        "state": str,
    }
    tracker = WandbTracker(Record(tmp_path), **options)
    (logger,) = tracker.loggers
    logger.log_metrics({"activation": 1.0}, step=1)
    tracker.run.finish()  # as if the service had died: a finished run refuses to log
    with caplog.at_level(logging.WARNING):
        logger.log_metrics({"activation": 2.0}, step=2)
        logger.log_metrics({"activation": 3.0}, step=3)
    assert len([record for record in caplog.records if "untracked" in record.message]) == 1
    tracker.finish(0)


def test_csv_holds_the_running_measures(actmax: Actmax) -> None:
    ran = actmax(*TINY, "callbacks.measures.every=4")
    lines = (ran.job / "logs/version_0/metrics.csv").read_text().splitlines()
    assert set(lines[0].split(",")) >= {"activation", "unique_tokens", "init_retention", "step"}
    assert len(lines) == 1 + 3


@pytest.mark.slow
def test_a_sweep_is_a_group_of_runs(actmax: Actmax) -> None:
    ran = actmax("-m", *WANDB, "sweep=s", "seeds='0:2',2", "unit.layer=4,8")
    assert ran.code == 0, ran.err
    runs = [_run(inspected(job)["records"]) for job in ran.jobs]
    assert len({run["run_id"] for run in runs}) == 4
    assert {run["run_group"] for run in runs} == {"s"}
    assert {run["display_name"] for run in runs} == {
        f"tiny resid_pre.{layer}[91] seeds {seeds}" for layer in (4, 8) for seeds in ("0:2", "2")
    }
    configs = [{key: run["config"][key] for key in ("site", "layer", "index", "seeds")} for run in runs]
    assert {"site": "resid_pre", "layer": 4, "index": 91, "seeds": [0, 1]} in configs
    assert {"site": "resid_pre", "layer": 8, "index": 91, "seeds": 2} in configs
    assert [exit_code(inspected(job)["records"]) for job in ran.jobs] == [0] * 4


def _run(records: list[dict[str, Any]]) -> dict[str, Any]:
    """The last word on a run in its file, with its config."""
    (first, *_) = [record["run"] for record in records if record["type"] == "run"]
    return {**first, "config": first["config"]["update"]}


def test_wandbs_own_sweep_drives_the_same_app() -> None:
    spec = yaml.safe_load((Path(__file__).parents[1] / "docs/wandb-sweep.yaml").read_text())
    given = [f"{key}={one['values'][0]}" for key, one in spec["parameters"].items()]  # what args_no_hyphens becomes
    assert spec["command"][0] == spec["program"] == "actmax"
    assert spec["command"][-1] == "${args_no_hyphens}"
    config.check(composed(*spec["command"][1:-1], *given))


class TestNoNetwork:
    """Who is logged in, where W&B cannot be reached: offline soon, with the reason, and nothing is lost."""

    def online(self, monkeypatch: pytest.MonkeyPatch, place: str, mode: str | None = "online") -> None:
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.setenv("WANDB_BASE_URL", place)
        monkeypatch.delenv("WANDB_MODE")
        if mode is not None:
            monkeypatch.setenv("WANDB_MODE", mode)

    def went_offline(self, actmax: Actmax, begun: float) -> None:
        ran = actmax(*WANDB, "hydra.run.dir=job")
        assert time.monotonic() - begun < 15
        assert ran.code == 0, ran.err
        assert "W&B is offline: " in (ran.folder / "job/actmax.log").read_text()
        assert "wandb sync" in (ran.folder / "job/actmax.log").read_text()
        assert "job_hash" in inspected(ran.folder / "job")["text"]

    @pytest.mark.parametrize("mode", [pytest.param("online", marks=pytest.mark.slow), None])
    def test_nothing_takes_the_connection(
        self, actmax: Actmax, monkeypatch: pytest.MonkeyPatch, mode: str | None
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        self.online(monkeypatch, f"http://127.0.0.1:{port}", mode)
        self.went_offline(actmax, time.monotonic())

    @pytest.mark.slow
    def test_the_name_is_not_known(self, actmax: Actmax, monkeypatch: pytest.MonkeyPatch) -> None:
        self.online(monkeypatch, "https://nowhere.invalid")
        self.went_offline(actmax, time.monotonic())

    @pytest.mark.slow
    def test_the_server_takes_it_and_says_nothing(self, actmax: Actmax, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.online(monkeypatch, f"http://127.0.0.1:{server.getsockname()[1]}")
            self.went_offline(actmax, time.monotonic())

    def test_a_server_that_answers_is_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.online(monkeypatch, place := f"http://127.0.0.1:{server.getsockname()[1]}")
            assert tracking._mode() == ("online", "you are logged in")
            monkeypatch.setenv("WANDB_BASE_URL", "http://proxied.invalid")
            assert tracking._mode()[0] == "offline"
            monkeypatch.setenv("http_proxy", place)
            assert tracking._mode()[0] == "online"


DEEP = ("subject.architecture.n_layer=12",)  # two digits, so that 2 is written 02


@pytest.mark.slow
def test_what_wandb_was_given_can_be_drawn(actmax: Actmax, tmp_path: Path) -> None:
    ran = actmax("-m", *WANDB, "unit.layer=2,10", *DEEP, "seeds='0:2'", "sweep=drawn")
    assert ran.code == 0, ran.err
    script = Path(__file__).parents[1] / "scripts" / "wandb_pictures.py"
    folders = {job.parent for job in ran.jobs}
    words = [sys.executable, str(script), str(folders.pop()), "--figure", str(tmp_path / "runs.svg")]
    drawn = subprocess.run(words, capture_output=True, text=True)
    assert drawn.returncode == 0, drawn.stderr
    names = drawn.stdout.splitlines()
    assert names == sorted(names) == [f"tiny resid_pre.{layer}[91] seeds 0:2" for layer in ("02", "10")]
    assert "<svg" in (tmp_path / "runs.svg").read_text()
    nothing = subprocess.run([*words[:2], str(tmp_path / "empty"), *words[3:]], capture_output=True, text=True)
    assert (nothing.returncode, "holds no offline run" in nothing.stderr) == (1, True)


def test_a_search_is_named_by_its_method_and_context(actmax: Actmax) -> None:
    ran = actmax(
        *(one for one in WANDB if "callbacks" not in one),
        *DEEP,
        "task=search",
        "search.passes=60",
        "transfer.draws=50",
        "seeds='0:2'",
    )
    assert ran.code == 0, ran.err
    assert "tiny resid_pre.08[91] gcg bos seeds 0:2" in inspected(ran.job)["text"]


@pytest.mark.slow
def test_the_page_names_keys_that_runs_have(actmax: Actmax) -> None:
    page = (Path(__file__).parents[1] / "docs/wandb.md").read_text()
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)*)`", page[page.index("## A sweep") : page.index("## Without")]))
    ran = actmax(*WANDB, "meaning.embedder=wordllama")
    assert ran.code == 0, ran.err
    text = inspected(ran.job)["text"]
    assert {"z_snapped", "null_meaning_p", "layer"} <= named
    assert [name for name in sorted(named | {"z_snap"}) if f'"{name}"' not in text] == ["z_snap"]
