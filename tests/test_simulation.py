"""`actmax experiment=simulation`: no model, same record."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from actmax.report.words import simulation_statement
from cli import Actmax

SMALL = ("experiment=simulation", "simulation.effects=[0,1,6]", "simulation.repetitions=40", "logger=none")


def test_writes_its_record_and_prints_the_concordance(actmax: Actmax) -> None:
    ran = actmax(*SMALL)
    assert ran.code == 0, ran.err
    assert ran.job.parent == ran.folder / "outputs" / "simulation"
    assert len(pd.read_parquet(ran.job / "comparison.parquet")) == 120
    effects = pd.read_parquet(ran.job / "effects.parquet").set_index("effect")
    assert effects.loc[6, "separation_rate"] > 0.9
    assert effects.loc[0, "separation_rate"] == 0
    assert effects.loc[1, "pearson"] > 0.98 > effects.loc[6, "pearson"]
    rates = pd.read_parquet(ran.job / "rates.parquet").set_index(["effect", "test"])["rate"]
    assert rates[0, "student"] < 0.2 < 0.9 < rates[1, "student"]
    assert rates[6, "firth_lr"] == 1 > rates[6, "logit_wald"]
    assert {"correlations.parquet", "agreement.parquet"} <= {file.name for file in ran.job.iterdir()}
    summary = json.loads((ran.job / "summary.json").read_text())
    assert "correlate" in simulation_statement(summary)
    assert [row["effect"] for row in summary["findings"]] == [0, 0, 6, 6]
    assert len(pd.read_parquet(ran.job / "findings.parquet")) == 4
    assert "r(t, β)" in ran.out
    assert actmax(*SMALL).code == 0  # shown again
    assert "actmax.model.subject" not in ran.err


@pytest.mark.slow
def test_the_same_design_gives_the_same_numbers(actmax: Actmax) -> None:
    first = actmax(*SMALL, "hydra.run.dir=a").folder
    actmax(*SMALL, "hydra.run.dir=b")
    actmax(*SMALL, "simulation.seed=1", "hydra.run.dir=c")
    a, b, c = (pd.read_parquet(first / name / "comparison.parquet")["student_t"] for name in "abc")
    assert a.equals(b)
    assert not a.equals(c)


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("simulation.distribution=cauchy", "simulation.distribution=cauchy"),
        ("simulation.repetitions=1", "simulation.repetitions=1"),
        ("simulation.effects=[]", "simulation.effects="),
        ("simulation.alpha=2", "simulation.alpha=2"),
        ("simulation.n_0=1", "simulation.n_0=1"),
        ("simulation.effects=[a]", "simulation.effects"),
    ],
)
def test_bad_input(actmax: Actmax, override: str, key: str) -> None:
    ran = actmax(*SMALL, override)
    assert ran.code == 2
    assert key in ran.err
    assert not ran.jobs
