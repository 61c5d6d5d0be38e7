from __future__ import annotations

import io

import pandas as pd
from rich.console import Console

from actmax.app.report import token_table, unit_table, visible


def printed(table: object, width: int = 120) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width).print(table)
    return stream.getvalue()


def tokens() -> pd.DataFrame:
    rows = [(0, 0, 5, "[red]", 5), (0, 1, 6, " the", 1), (1, 0, 6, " the", 2), (1, 1, 7, "\n", 3)]
    table = pd.DataFrame(rows, columns=["seed", "position", "token_id", "token", "init_token_id"])
    return table.assign(cosine=0.25, activation_initial=1.0, activation_final=334.4)


def test_visible() -> None:
    assert visible(" the\n") == "·the\\n"
    assert visible("a\x1b[31m") == "a\\x1b[31m"  # a token cannot colour the user's terminal


def test_token_table_marks_repeats_and_the_start() -> None:
    text = printed(token_table(tokens()))
    assert "[red]= 0.25" in text  # markup in a token is shown, not obeyed
    assert text.count("·the* 0.25") == 2
    assert "\\n 0.25" in text
    assert "1 → 334" in text


def test_token_table_keeps_the_seeds_on_a_narrow_terminal() -> None:
    text = printed(token_table(tokens()), width=40)
    assert "seed" in text


def test_unit_table_sets_every_number_beside_its_null() -> None:
    row = {
        "site": "resid_pre",
        "layer": 8,
        "index": 91,
        "tokens_unique": 49,
        "tokens_total": 50,
        "init_retention": 0.48,
    }
    row |= {"activation_initial_mean": 1.0, "activation_final_mean": 334.4, "cosine_mean": 0.1425}
    for name in ("unique", "retention", "cosine"):
        row |= {f"null_{name}_low": 0.1, f"null_{name}_high": 50.0}
    units = pd.DataFrame([row, {**row, "layer": None, "site": "final_norm"}]).astype({"layer": "Int64"})
    text = printed(unit_table(units))
    assert "resid_pre.8[91]" in text
    assert "final_norm[91]" in text
    assert text.count("null") == 6
