"""The benchmark counts what it says, its rows do the same work, and its table shows what was measured."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import benchmark
from actmax.model.subject import load
from benchmark import Pace, Row, Setting

SETTING = Setting(size="tiny", steps=2, alternations=1, batches=(3,))
SCRIPT = Path(__file__).parents[1] / "scripts" / "benchmark.py"


def run_here(key: str, restarts: int) -> tuple[Row, Any]:
    """A row in this process, without a pause between its turns."""
    row = Row(key, restarts)

    def report(seconds: float, notes: dict[str, Any]) -> None:
        row.seconds.append(seconds)
        row.notes.append(notes)

    pace = benchmark.pace_of(row, SETTING, wait=lambda: None, report=report)
    return row, benchmark.CONTESTANTS[key].run(SETTING, restarts, pace)


@pytest.mark.parametrize(("layers", "width", "tokens"), [(1, 32, 5), (3, 48, 7)])
def test_flops_are_those_that_torch_counts(layers: int, width: int, tokens: int) -> None:
    architecture = {"model_type": "gpt2", "n_layer": layers, "n_embd": width, "n_head": 4, "n_positions": 32}
    subject = load(name="tiny", source="random", attention="eager", architecture=architecture)
    embedding = torch.randn(1, tokens, width, requires_grad=True)

    def counted() -> int:
        with FlopCounterMode(display=False) as counter:
            hidden = embedding
            for block in subject.base.h:  # pyright: ignore
                hidden = block(hidden)
            hidden[..., 3].sum().backward()
        return counter.get_total_flops()

    expected = benchmark.flops_per_restart_step(layers=layers, width=width, tokens=tokens)
    assert counted() == expected
    subject.model.requires_grad_(True)
    assert counted() > 1.3 * expected


def test_a_pace_times_turns_and_leaves_the_warm_up_out() -> None:
    said: list[str] = []
    pace = Pace(
        3,
        2,
        wait=lambda: said.append("wait"),
        report=lambda seconds, notes: said.append(f"report {seconds > 0}"),
        synchronize=lambda: None,
        warmup=2,
    )
    for step in range(8):
        said.append(str(step))
        pace()
    assert said == ["0", "1", "wait", "2", "3", "4", "report True", "wait", "5", "6", "7", "report True"]


def test_every_row_does_the_same_work() -> None:
    solo, literal = run_here("a", 1)
    batch, framework = run_here("e", 3)
    for key, restarts, expected in (("a0", 1, literal), ("d", 3, framework), ("d", 1, framework[:1])):
        assert torch.allclose(run_here(key, restarts)[1], expected, rtol=0, atol=2e-4)
    assert torch.allclose(literal, framework[:1], rtol=0, atol=2e-4)
    moved = framework - benchmark.starts(SETTING, benchmark.random_model(SETTING), 3)
    assert moved.abs().max() > 4 * benchmark.LR  # so that 2e-4 is little beside it
    assert len(solo.seconds) == len(batch.seconds) == 1


def test_the_peak_is_measured_for_every_shape() -> None:
    row, _ = run_here("peak", 1)
    assert set(row.notes[0]) == {"square", "blocks at 3"}
    assert all(rate > 0 for rate in row.notes[0].values())


@pytest.mark.parametrize(("key", "package"), [("b", "transformer_lens"), ("c", "nnsight")])
def test_a_library_that_is_missing_is_said_and_no_crash(
    key: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as if it were missing, also where it is installed
    ours, theirs = multiprocessing.Pipe()
    benchmark.serve(theirs, Row(key, 1), SETTING, None)
    assert ours.recv() == ("error", f"not installed: {package}")


def rows() -> list[Row]:
    return [
        Row("a", 1, [2.0, 4.0], peak_bytes=2_000_000_000),
        Row("b", 1, error="not installed: transformer_lens"),
        Row("d", 10, [1.0, 1.0]),
        Row("e", 10, [1.0, 1.25]),
        Row("peak", 1, [1.0, 1.0], notes=[{"square": 1e9, "blocks at 10": 5e8}, {"square": 2e9, "blocks at 10": 5e8}]),
    ]


def test_ratios_are_taken_within_an_alternation() -> None:
    found = {own["key"]: own for own in benchmark.figures(rows(), Setting(size="tiny", steps=8, alternations=2))}
    assert found["a"]["rate"] == benchmark.Spread(3.0, 2.0, 4.0)
    assert found["e"]["times_a"] == benchmark.Spread(26.0, 20.0, 32.0)  # 80 / 4 and 64 / 2
    assert found["e"]["times_d"] == benchmark.Spread(0.9, 0.8, 1.0)
    assert found["e"]["times_b"] is None
    flops = benchmark.flops_per_restart_step(layers=2, width=32, tokens=5)
    assert found["e"]["of_peak"].high == pytest.approx(flops * 80 / 1e9)
    assert found["e"]["of_peak"].low == pytest.approx(flops * 64 / 2e9)
    assert found["a"]["of_peak"] is None
    assert found["a"]["peak_gb"] == 2


def test_the_table_shows_every_row_and_says_what_is_missing() -> None:
    text = benchmark.table(benchmark.figures(rows(), Setting(size="tiny", steps=8, alternations=2)))
    lines = text.splitlines()
    assert len(lines) == 5
    assert "restart-steps/s" in lines[0]
    assert "26 (20 to 32)" in lines[4]
    assert lines[2].split() == ["TransformerLens", "1", "not", "installed:", "transformer_lens"]
    assert "GFLOP/s: square 1.5 (1 to 2); blocks at 10 0.5 (0.5 to 0.5)" in benchmark.peak_lines(rows())


def test_rows_are_chosen_by_letter_and_the_peak_is_always_there() -> None:
    assert [(row.key, row.restarts) for row in benchmark.chosen("a,d", [1, 5])] == [
        ("a", 1),
        ("a0", 1),
        ("d", 1),
        ("d", 5),
        ("peak", 1),
    ]
    assert [row.key for row in benchmark.chosen("cn", [5])] == ["cn", "peak"]
    with pytest.raises(SystemExit, match="must be of a, a0"):
        benchmark.chosen("z", [1])


def test_the_fast_path_is_the_plain_one(tmp_path: Path) -> None:
    options = {"layer": 2, "index": 7, "steps": 21}
    work, initial, final, path = benchmark.fast_path("tiny", tmp_path, restarts=2, **options)
    plain = benchmark.plain_path(work.subject, initial, **options)
    assert path.shape == plain[1].shape == (22, 2)

    def decode(vectors: Any) -> Any:
        return (vectors @ work.subject.embedding_matrix.T).argmax(2)

    found = benchmark.differences(initial, (final, path), plain, decode)
    assert all(found["holds"].values())
    assert found["differences"]["step_20"] < 1e-4
    other = benchmark.differences(initial, (initial, 2 * path), plain, decode)
    assert not other["holds"]["step_20"]
    assert not other["holds"]["mean_activation"]


@pytest.mark.slow
def test_the_whole_script(tmp_path: Path) -> None:
    words = ["--size", "tiny", "--only", "a,d,=e,eb,em", "--steps", "2", "--alternations", "2", "--restarts", "2"]
    ran = subprocess.run([sys.executable, SCRIPT, *words, "--json", tmp_path / "found.json"], capture_output=True)
    assert ran.returncode == 0, ran.stderr.decode()
    found = json.loads((tmp_path / "found.json").read_text())
    assert [one["key"] for one in found["rows"]] == ["a", "a0", "d", "e", "eb", "em"]
    assert all(one["error"] is None and len(one["seconds"]) == 2 for one in found["rows"])
    assert found["rows"][3]["times_a"]["low"] > 0
    assert b"actmax" in ran.stdout


class TestGpu:
    """`scripts/gpu.sh` on the CPU: whether the script works, for a GPU is seldom there."""

    SCRIPT = SCRIPT.with_name("gpu.sh")

    def ran(self, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["bash", str(self.SCRIPT), str(folder), *words], capture_output=True, text=True)

    @pytest.mark.slow
    def test_parts_leave_figures_and_tables(self, tmp_path: Path) -> None:
        ran = self.ran(tmp_path, "--small", "--limit", "300", "--only", "agreement", "search", "cpu")
        assert ran.returncode == 0, ran.stdout + ran.stderr
        parts = json.loads((tmp_path / "gpu.json").read_text())["parts"]
        assert set(parts["agreement"]["found"]["differences"].values()) == {0.0}  # here both are the CPU
        assert parts["search"]["found"]["candidates"]["candidates_per_second"]["actmax"] > 0
        said = (tmp_path / "gpu.md").read_text()
        assert said.count("\n## ") == len(parts) == 3
        assert parts["cpu"]["found"]["on the CPU"]["summary"]["verdict"] in said

    @pytest.mark.slow
    def test_a_part_without_time_is_named_and_the_others_run(self, tmp_path: Path) -> None:
        ran = self.ran(tmp_path, "--small", "--only", "rows", "atlas", "--limit", "1")
        assert ran.returncode == 1
        parts = json.loads((tmp_path / "gpu.json").read_text())["parts"]
        assert {name: "its time was over" in one["error"] for name, one in parts.items()} == {
            "rows": True,
            "atlas": True,
        }
        assert (tmp_path / "gpu.md").read_text().count("Failed:") == 2

    @pytest.mark.slow
    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
    def test_without_a_gpu_it_says_so(self, tmp_path: Path) -> None:
        ran = self.ran(tmp_path / "new")
        assert (ran.returncode, "There is no CUDA GPU here" in ran.stderr) == (1, True)
        assert not (tmp_path / "new").exists()


def test_a_row_alone_is_asked_for_by_an_equals_sign() -> None:
    keys = {row.key for row in benchmark.chosen("d,=e,eb", (3,))}
    assert keys == {"d", "e", "eb", "peak"}
    assert {row.key for row in benchmark.chosen("e", (3,))} > {"e", "eb", "eh", "em"}
    with pytest.raises(SystemExit, match="--only =f"):
        benchmark.chosen("=f", (3,))
