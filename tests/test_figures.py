from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from actmax.report import figures


def table(p: list[float]) -> pd.DataFrame:
    count = len(p)
    gains = {"shared_tokens": [0.1] * count, "direction": [0.2 + 0.01 * row for row in range(count)]}
    nulls = {
        f"null_{name}_{part}": [value] * count for name in gains for part, value in (("mean", 0.1), ("alpha", 0.05))
    }
    return pd.DataFrame({**gains, **nulls, "null_shared_tokens_p": [1.0] * count, "null_direction_p": p})


@pytest.mark.parametrize(("p", "above"), [([0.01, 0.05, 0.06, 1.0], 2), ([1.0] * 4, 0)])
def test_units_above_chance_are_counted_and_every_unit_is_drawn(p: list[float], above: int) -> None:
    tokens, embeddings = figures.agreement_histograms(table(p)).axes
    assert tokens.get_title().startswith("0 of 4 units above chance")
    assert embeddings.get_title().startswith(f"{above} of 4 units above chance")
    bars = [[bar.get_height() for bar in group] for group in embeddings.containers]
    assert [sum(heights) for heights in bars] == [4 - above, above]


def test_what_was_tested_of_no_unit_has_no_histogram() -> None:
    missing = table([float("nan")] * 4).assign(null_direction_mean=float("nan"))
    (tokens,) = figures.agreement_histograms(missing).axes
    assert tokens.get_xlabel().startswith("tokens in common")
    one = missing.assign(null_direction_mean=0.1, null_direction_p=[0.01, *[float("nan")] * 3])
    assert figures.agreement_histograms(one).axes[1].get_title().startswith("1 of 1 units above chance")


@pytest.mark.parametrize(("priors", "name"), [(("none", "l2"), "none, z.3"), (("none", "none"), "z.3")])
def test_verdicts_name_the_prior_where_there_are_several(priors: tuple[str, str], name: str) -> None:
    counts = {"yes": [1, 2], "no": [3, 0]}
    layers = pd.DataFrame({"prior": priors, "site": "z", "layer": [3, 4], **counts})
    (axes,) = figures.verdict_shares(layers, {"yes": "Yes", "no": "No"}).axes
    assert axes.get_yticklabels()[0].get_text() == name


def test_a_measure_that_is_the_same_in_every_layer_is_neither_highest_nor_lowest() -> None:
    rising = {name: np.linspace(0, 1, 30) for name in figures.LAYERS}
    layers = pd.DataFrame({"layer": range(30), **rising, "shared_tokens": 0.0})
    axes, _ = figures.layer_map(layers).axes
    drawn = axes.images[0].get_array()
    row = list(figures.LAYERS).index("shared_tokens")
    assert np.ma.getmaskarray(drawn)[row].all()
    assert np.ma.getmaskarray(drawn).sum() == 30
    assert len(axes.get_xticks()) <= figures.CELLS


def test_measures_stand_on_a_scale_that_begins_at_zero() -> None:
    """A scale that is cut shows any distance as large: 0.0465 beside 0.036 to 0.042."""
    row = {"site": "z", "layer": 3, "index": 1}
    for name in figures.MEASURES:
        null = f"null_{figures.NULLS.get(name, name)}"
        row |= {name: 0.0465, f"{null}_low": 0.036, f"{null}_high": 0.042, f"{null}_mean": 0.039}
    drawn = figures.against_nulls(pd.DataFrame([row])).axes
    assert [axes.get_xlim()[0] for axes in drawn] == [0.0] * len(figures.MEASURES)
    below = figures.against_nulls(pd.DataFrame([row | {"direction": -0.01}])).axes
    assert below[list(figures.MEASURES).index("direction")].get_xlim()[0] < -0.01


def test_a_mean_has_a_band_of_its_own() -> None:
    """The mean of 16 restarts varies four times less than a single random sequence."""
    stages = {name: [1.0] * 16 for name in figures.STAGES}
    gaps = pd.DataFrame({**stages, "random_activation_mean": 0.0, "random_activation_sd": 1.0})
    (axes,) = figures.decode_gap(gaps).axes
    bands = [patch.get_extents().transformed(axes.transData.inverted()) for patch in axes.patches]
    assert sorted(band.y1 for band in bands) == pytest.approx([1.96 / 4, 1.96])
