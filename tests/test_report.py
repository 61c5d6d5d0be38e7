"""What the first screen of a record says: tokens marked, numbers beside their nulls, priors side by side."""

from __future__ import annotations

import io

import pandas as pd
from rich.console import Console

from actmax.report.blocks import Page, Table, visible
from actmax.report.source import Source
from actmax.report.terminal import show
from actmax.tasks.units.page import maximization_page, unit_table


def printed(table: Table, width: int = 120) -> str:
    stream = io.StringIO()
    show(Page("q", first=(table,)), Console(file=stream, width=width))
    return stream.getvalue()


def tokens() -> pd.DataFrame:
    rows = [(0, 0, 5, "[red]", 5), (0, 1, 6, " the", 1), (1, 0, 6, " the", 2), (1, 1, 7, "\n", 3)]
    table = pd.DataFrame(rows, columns=["seed", "position", "token_id", "token", "init_token_id"])
    table = table.assign(cosine=0.25, activation_initial=1.0, activation_final=334.4, init_token=" noise")
    return table.assign(site="resid_pre", layer=8, index=91)


def token_table() -> Table:
    (table,) = maximization_page(Source.of({"tokens": tokens()}, {}, brief=True, draw=False)).first[:1]
    assert isinstance(table, Table)
    return table


def test_visible() -> None:
    assert visible(" the\n") == "·the\\n"
    assert visible("a\x1b[31m") == "a\\x1b[31m"  # a token cannot colour the user's terminal


def test_the_table_of_tokens_marks_repeats_and_the_start() -> None:
    text = printed(token_table())
    assert "[red]= 0.25" in text  # markup in a token is shown, not obeyed
    assert text.count("·the* 0.25") == 2
    assert "\\n 0.25" in text
    assert "1 → 334" in text


def test_a_page_also_has_the_token_of_the_initial_noise() -> None:
    details = [cell.detail for row in token_table().rows for cell in row if cell.note]
    assert details == ["0.250 · ·noise"] * 4
    assert "noise" not in printed(token_table()).splitlines()[4]


def test_the_table_of_tokens_keeps_the_seeds_on_a_narrow_terminal() -> None:
    text = printed(token_table(), width=40)
    assert "seed" in text


def test_the_table_of_units_sets_every_number_beside_its_null() -> None:
    row = {
        "site": "resid_pre",
        "layer": 8,
        "index": 91,
        "verdict": "not_above_chance",
        "tokens_unique": 49,
        "tokens_total": 50,
        "unique_share": 0.98,
        "init_retention": 0.48,
    }
    row |= {"activation_initial_mean": 1.0, "activation_final_mean": 334.4, "cosine_mean": 0.1425}
    for name in ("unique", "retention", "cosine"):
        row |= {f"null_{name}_mean": 0.3, f"null_{name}_low": 0.1, f"null_{name}_high": 50.0}
    units = pd.DataFrame([row, {**row, "layer": None, "site": "final_norm"}]).astype({"layer": "Int64"})
    table = unit_table(units, "units.parquet")
    text = printed(table)
    assert "resid_pre.8[91]" in text
    assert "final_norm[91]" in text
    for numbers in ("49 of 50 (0 to 50)", "0.48 (0.10 to 50.00)", "0.1425 (0.1000 to 50.0000)"):
        assert text.count(numbers) == 2
    assert "not above chance" not in text  # what a terminal has no room for, a page has
    assert [row[1].text for row in table.rows] == ["not above chance"] * 2
