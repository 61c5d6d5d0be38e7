"""Priors side by side: the order of the rungs, their front, their figure; and the same through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from actmax.report.blocks import Table
from actmax.report.source import Source
from actmax.tasks.task import Gathered
from actmax.tasks.units.ladder import MEANS, RUNGS, ladder
from actmax.tasks.units.sweep import units_page
from cli import QUICK, Actmax

TINY = ("subject=tiny", "steps=3", "tokens=3", "seeds='0:2'", "unit.index='0:2'", "sweep=s", *QUICK)


def units(priors: tuple[str, ...], sites: tuple[str, ...] = ("resid_pre",)) -> pd.DataFrame:
    rows = []
    for number, prior in enumerate(priors):
        for site in sites:
            for index in range(3):
                row = dict.fromkeys(MEANS, 0.1) | {
                    "prior": prior,
                    "context": "none",
                    "site": site,
                    "condition": f"c{number}",
                }
                row |= {"index": index, "restarts": 5, "verdict": "not_above_chance"}
                rows.append(row | {"z_snapped": number + index, "shared_tokens": 0.1 + index / 10})
    return pd.DataFrame(rows)


def test_rungs_stand_in_order_and_others_behind() -> None:
    found = ladder(units(("smooth", "fluency", "none", "l2")), {})
    assert found["prior"].tolist() == ["none", "l2", "fluency", "smooth"]
    assert RUNGS[0] == "none"


def test_means_errors_and_seconds_are_over_units() -> None:
    found = ladder(units(("none", "l2"), ("resid_pre", "mlp_post")), {("c1", "mlp_post"): 7.0})
    row = found[(found["prior"] == "l2") & (found["site"] == "mlp_post")].iloc[0]
    assert row["z_snapped"] == pytest.approx(2.0)
    assert row["z_snapped_se"] == pytest.approx(1 / np.sqrt(3))
    assert row["shared_tokens_above"] == pytest.approx(0.2 - 0.1)
    assert (row["units"], row["restarts"], row["seconds"]) == (3, 15, 7.0)
    assert row["not_above_chance"] == 3
    assert np.isnan(found[found["site"] == "resid_pre"]["seconds"]).all()


class TestCommand:
    @pytest.mark.slow
    def test_a_sweep_over_priors_ends_in_a_table_and_a_figure(self, actmax: Actmax, tmp_path: Path) -> None:
        # as many units and seeds as it takes to set units against each other: the null of the direction
        tested = ("seeds='0:6'", "unit.index='0:3'")
        ran = actmax("-m", *TINY, *tested, "prior=none,l2,simplex", "unit=residual,neuron", "page=true")
        assert ran.code == 0, ran.err
        folder = tmp_path / "outputs/s"
        table = pd.read_parquet(folder / "ladder.parquet")
        assert table["prior"].tolist() == ["none", "l2", "simplex"] * 2
        assert (table["seconds"] > 0).all()
        assert table[[name for name in MEANS if name != "kept_snapped"]].notna().all(axis=None)  # no gain in 3 steps
        assert [row["prior"] for row in json.loads((folder / "sweep.json").read_text())["ladder"]] == [*table["prior"]]
        assert "Priors side by side" in ran.out
        assert imread(folder / "figures/pareto.png").shape[0] > 300
        assert (folder / "figures/pareto.svg").read_text().count("simplex") == 4  # 2 panels x 2 sites

    @pytest.mark.slow
    def test_one_prior_is_no_ladder(self, actmax: Actmax, tmp_path: Path) -> None:
        assert actmax("-m", *TINY, "prior=l2", "unit=residual,neuron", "page=true").code == 0
        assert not (tmp_path / "outputs/s/ladder.parquet").exists()
        assert not (tmp_path / "outputs/s/figures/pareto.png").exists()


def test_the_table_shows_numbers_beside_nulls() -> None:
    from test_report import printed

    gathered = Gathered({"ladder": ladder(units(("none", "l2")), {})}, {"overall": []})
    (table,) = units_page(Source.of({}, {}, brief=True, draw=False), gathered).first
    assert isinstance(table, Table)
    text = printed(table)
    assert text.count("(10.0%)") == 2
    assert "±0.58" in text
