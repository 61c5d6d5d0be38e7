"""Report A on a real language model (SmolLM2-135M), as requirements.md measured it; and what rounding does to it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from actmax.evidence.findings import Measure, unit_findings
from actmax.evidence.settings import RANDOM_MOVES, claim_alpha

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

ACTMAX = (sys.executable, "-m", "actmax")
MAIN = ("experiment=reproducibility", "subject=smollm2")
QUICK = (
    *("nulls.draws=20", "nulls.displacements=20", "gap.draws=100", "meaning.embedder=none"),
    *("controls=0", "logger=none", "page=false"),
)
Run = Callable[..., Path]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs the main job, changed or not, in a process of its own; each variant once."""
    root, done = tmp_path_factory.mktemp("real"), {}

    def once(name: str, *overrides: str) -> Path:
        if name not in done:
            command = [*ACTMAX, *MAIN, f"hydra.run.dir={root / name}", *overrides]
            ran = subprocess.run(command, capture_output=True, text=True, cwd=root)
            assert ran.returncode == 0, ran.stderr
            done[name] = root / name
        return done[name]

    return once


@pytest.fixture(scope="module")
def main(run: Run) -> Path:
    return run("main")


def summary(job: Path) -> dict:
    return json.loads((job / "summary.json").read_text())


def test_the_main_job_agrees_with_the_requirements(main: Path) -> None:
    found = summary(main)
    assert found["activation_initial_mean"] == pytest.approx(1.014, rel=0.001)
    assert found["activation_final_mean"] == pytest.approx(334, rel=0.05)
    assert found["tokens_total"] == 50
    assert abs(found["tokens_unique"] - 49) <= 2
    assert found["init_retention"] == pytest.approx(0.48, abs=0.12)
    assert found["cosine_mean"] == pytest.approx(0.1425, abs=0.003)


def test_its_nulls_agree_with_the_requirements(main: Path) -> None:
    """Random moves of the same lengths keep a third of the start, and decode to nearly as many tokens as noise does."""
    found = summary(main)
    assert found["null_retention_mean"] == pytest.approx(0.345, abs=0.05)
    assert found["null_unique_mean"] == pytest.approx(49, abs=1.5)
    assert found["null_cosine_mean"] == pytest.approx(0.1446, abs=0.01)


def test_its_claims_are_decided_beside_two_control_units(main: Path) -> None:
    found = summary(main)
    assert len(found["controls"]) == 2
    assert (found["own"], found["own_units"], found["own_seeds"]) == ("ok", 3, 10)
    units = pd.read_parquet(main / "units.parquet")
    assert units["control"].tolist() == [False, True, True]
    claims = {one.measure: one for one in unit_findings(found)}
    elsewhere = [claims.pop(measure).alpha for measure in (Measure.TRANSFER_BOS, Measure.TRANSFER_TEXT)]
    assert elsewhere == [0.025, 0.025]  # a question of its own, over two contexts
    of_meaning = [claims.pop(one) for one in (Measure.MEANING, Measure.MEANING_APART)]
    assert {one.alpha for one in of_meaning} == {0.05}  # another question
    others = {Measure.OWN_TOKENS, Measure.OWN_MEANING}
    assert {one.alpha for measure, one in claims.items() if measure not in others} == {claim_alpha(RANDOM_MOVES)}
    assert claims[Measure.OPTIMUM].claimed  # 334 where random tokens give about nothing
    assert found["answer"] != "yes"  # 49 of 50 tokens are different
    assert found["kappa_tokens_low"] < 0.1


def test_its_checkpoint_is_small(main: Path) -> None:
    """Four tensors like the embedding for each restart, of control units too, and nothing of the model's weights."""
    restarts = pd.read_parquet(main / "restarts.parquet")
    assert len(restarts) == 30
    needed = len(restarts) * 5 * 576 * 4 * 4
    assert needed < (main / "checkpoints" / "last.ckpt").stat().st_size < 1.2 * needed


def test_the_same_run_gives_the_same_bits(run: Run, main: Path) -> None:
    again = run("again", "nulls.displacements=20", "page=false")  # another job to the record, the same to the optimizer
    first, second = (load_file(job / "embeddings.safetensors") for job in (main, again))
    assert torch.equal(first["final"], second["final"])
    assert not torch.equal(first["final"], first["initial"])


@pytest.mark.parametrize(
    ("name", "overrides"),
    [("eager", ["subject.attention=eager"]), ("chunks", ["max_rows=3"])],
)
def test_other_paths_agree_as_contract_3_says(run: Run, main: Path, name: str, overrides: list[str]) -> None:
    assert_agrees(main, [run(name, *overrides, *QUICK)])


def test_solo_and_batch_agree_as_contract_3_says(tmp_path: Path, main: Path) -> None:
    alone = f"seeds={','.join(map(str, range(10)))}"  # a sweep: ten jobs of one restart
    command = [*ACTMAX, "-m", *MAIN, alone, *QUICK, "sweep=solo"]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    jobs = [status.parent for status in tmp_path.glob("outputs/solo/*/status.json")]
    assert len(jobs) == 10
    assert_agrees(main, jobs)


def assert_agrees(main: Path, jobs: list[Path]) -> None:
    """Contract 3: 1e-3 at step 20; at step 500 the mean within 5 %, retention 0.12, unique 2, 80 % of tokens."""
    key = ["seed", "position"]
    tokens = [table(parts, "tokens").sort_values(key, ignore_index=True) for parts in ([main], jobs)]
    steps = [
        table(parts, "trajectory").pivot_table(index="step", columns="seed", values="activation")
        for parts in ([main], jobs)
    ]
    np.testing.assert_allclose(steps[0].loc[20], steps[1].loc[20], rtol=1e-3)
    assert steps[0].loc[500].mean() == pytest.approx(steps[1].loc[500].mean(), rel=0.05)
    kept = [(found["token_id"] == found["init_token_id"]).mean() for found in tokens]
    assert kept[0] == pytest.approx(kept[1], abs=0.12)
    assert abs(tokens[0]["token_id"].nunique() - tokens[1]["token_id"].nunique()) <= 2
    assert (tokens[0]["token_id"] == tokens[1]["token_id"]).mean() >= 0.8


def table(jobs: list[Path], name: str) -> pd.DataFrame:
    """Rows of the unit that was asked about; control units are not in every job."""
    found = pd.concat([pd.read_parquet(job / f"{name}.parquet") for job in jobs], ignore_index=True)
    return found[~found["control"]].reset_index(drop=True)


def test_other_seeds_do_not_agree(run: Run, main: Path) -> None:
    """The negative control: the check above sees a difference where there is one."""
    other = run("other", "seeds='10:20'", *QUICK)
    tokens = [table([job], "tokens")["token_id"].to_numpy() for job in (main, other)]
    assert np.mean(tokens[0] == tokens[1]) < 0.2
