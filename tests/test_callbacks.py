from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer

from actmax.maximize.callbacks import Checkpoint, Measures, Progress, Trajectory
from actmax.maximize.module import Maximization
from actmax.maximize.optimizee import initial, scaled
from actmax.model.nearest import NearestTokens
from actmax.model.objective import Objective, Row
from actmax.model.subject import Subject
from actmax.model.target import Unit
from actmax.records.contents import Contents
from actmax.records.store import Record

ROWS = [Row(Unit("resid_pre", layer, 7), seed) for layer in (1, 2) for seed in range(3)]


def module_of(subject: Subject, **options: Any) -> Maximization:
    start = initial(scaled(subject.embedding_matrix, 5), [row.seed for row in ROWS])
    return Maximization(subject, ROWS, start, objective=Objective(), steps=10, lr=0.01, **options)


def fit(module: Maximization, *callbacks: Trajectory | Checkpoint | Progress, steps: int = 10) -> Trainer:
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(max_steps=steps, max_epochs=-1, accelerator="cpu", callbacks=list(callbacks), **quiet)
    trainer.fit(module)
    return trainer


@pytest.mark.parametrize(("every", "steps"), [(1, list(range(10))), (3, [0, 3, 6, 9]), (20, [0])])
def test_trajectory_keeps_the_activations_before_each_update(subject: Subject, every: int, steps: list[int]) -> None:
    module, trajectory = module_of(subject), Trajectory(every)
    fit(module, trajectory)
    assert trajectory.steps == steps
    assert torch.allclose(trajectory.activations[0], module.evaluate(module.initial), atol=1e-12)
    again = Trajectory(every)
    again.load_state_dict(trajectory.state_dict())
    assert again.steps == trajectory.steps


@pytest.mark.parametrize("max_rows", [1, 2, 6])
def test_measures_do_not_depend_on_chunks(subject: Subject, max_rows: int) -> None:
    module, measures = module_of(subject, max_rows=max_rows), Measures()
    fit(module)
    measures.nearest = NearestTokens(subject.embedding_matrix)
    measures.initial_ids = measures.nearest(module.initial).best
    found = measures.measure(module)
    ids = measures.nearest(module.embedding).best
    unique = sum(len(ids[rows].unique()) for rows in ([0, 1, 2], [3, 4, 5])) / 2
    assert found["unique_tokens"] == unique
    assert found["init_retention"] == pytest.approx((ids == measures.initial_ids).double().mean().item())
    assert found["activation"] == pytest.approx(module.activation.mean().item(), rel=1e-6)
    assert measures.measure(module) == found  # nothing is carried over


def test_checkpoints_are_whole_and_the_newest_is_kept(subject: Subject, tmp_path: Path) -> None:
    checkpoint = Checkpoint(every=4)
    checkpoint.bind(Contents(Record(tmp_path)))
    fit(module_of(subject), checkpoint)
    assert [file.name for file in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]
    assert torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 8


def test_progress_is_plain_lines_where_there_is_no_terminal(
    subject: Subject, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(module_of(subject), Progress(seconds=0.0))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[-1].startswith("actmax: 6 restarts of 2 units: step 10 of 10, activation ")
    fit(module_of(subject), Progress(seconds=60.0))
    assert capsys.readouterr().err == ""


def test_progress_is_about_the_jobs_own_units(subject: Subject, capsys: pytest.CaptureFixture[str]) -> None:
    control = ROWS[-1].unit
    module = module_of(subject, controls=[control])
    fit(module, Progress(seconds=0.0))
    own = [row.unit != control for row in ROWS]
    assert module.activation[own].mean().item() != pytest.approx(module.activation.mean().item(), rel=1e-2)
    expected = f"6 restarts of 1 unit and 1 control: step 10 of 10, activation {module.activation[own].mean():.4g}"
    assert capsys.readouterr().err.splitlines()[-1].endswith(expected)
