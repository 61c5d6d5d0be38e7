"""The tables and headline numbers of a tuning job."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from actmax.model.target import Target, Unit, addressed, rows_of, target_of_row
from actmax.records.contents import Contents
from actmax.records.store import Summary
from actmax.tasks.findings import write_findings
from actmax.tasks.tuning import headlines
from actmax.tasks.tuning.analysis import Tuning
from actmax.tasks.tuning.heatmap import HeatMap, Scale
from actmax.tasks.tuning.page import heat_map_html
from actmax.tasks.tuning.store import Store
from actmax.words.encoding import Encoding
from actmax.words.lists import BUILT_IN, BUILT_IN_ZIPF, Data


def write_tuning(contents: Contents, found: Tuning, encoding: Encoding, store: Store, source: str) -> Summary:
    """Writes a tuning job's tables and returns the summary's headline numbers.

    `tuning.parquet` has a row per unit, `shares` one per site and layer, `replication` one per halving of the words,
    `decoders` one per decoder, `correlations` and `agreement` set the t-test beside logistic regression, `strata` has
    the units by number of sub-tokens, `directions.safetensors` what tells the groups apart at each place; `words`,
    `balance` and `skipped` say what was read, `examples` holds the most strongly tuned units at every word.
    """
    data = encoding.data
    tables = {"tuning": found.units, "shares": found.shares, "replication": found.replication}
    tables |= {"decoders": found.decoders, "correlations": found.correlations, "agreement": found.agreement}
    tables |= {"strata": found.strata, "words": word_table(encoding), "examples": example_table(found, data, store)}
    balance = balance_table(encoding, source)
    tables |= {"balance": balance, "skipped": pd.DataFrame([vars(skip) for skip in data.skips.listed])}
    for name, table in tables.items():
        if len(table.columns):
            contents.write_table(name, table)
    contents.write_tensors("directions", found.directions)
    headline = headlines.summarize(found)
    words = {name: data.labels.count(label) for label, name in enumerate(data.categories)}
    return {
        "words": words,
        "paired": data.pairs is not None,
        "skipped": dict(data.skips.counts),
        "balance": balance.to_dict("records"),
        "alpha": found.alpha,
        **headline,
        **write_findings(contents, headlines.findings(headline, found)),
    }


def word_table(encoding: Encoding) -> pd.DataFrame:
    """A row per sample: what was compared."""
    data = encoding.data
    rows = {
        "word": [sample.word for sample in data.samples],
        "category": [data.categories[sample.label] for sample in data.samples],
        "pair": pd.array([sample.pair for sample in data.samples], dtype="string"),
        "letters": [len(sample.word) for sample in data.samples],
        "subtokens": encoding.subtokens,
        "contexts": [len(sample.contexts) for sample in data.samples],
        "text": [sample.contexts[0].text for sample in data.samples],
        "source": [sample.contexts[0].source for sample in data.samples],
    }
    return pd.DataFrame(rows)


def balance_table(encoding: Encoding, source: str) -> pd.DataFrame:
    """A row per category: how its words compare in length, sub-tokens and, for the built-in list, frequency."""
    words = word_table(encoding)
    rows = []
    for category in encoding.data.categories:
        inside = words[words["category"] == category]
        row: dict[str, Any] = {"category": category, "words": len(inside)}
        for name in ("letters", "subtokens", "contexts"):
            values = np.asarray(inside[name], dtype=float)
            row |= {f"{name}_mean": float(values.mean()), f"{name}_sd": float(values.std(ddof=1))}
        if source == BUILT_IN:
            row["zipf_mean"], row["zipf_sd"] = BUILT_IN_ZIPF[category]
        rows.append(row)
    return pd.DataFrame(rows)


def example_table(found: Tuning, data: Data, store: Store) -> pd.DataFrame:
    """The most strongly tuned units at every word: a row per unit and word, `rank` from the highest activation."""
    tables = []
    for order, row in enumerate(found.units.iloc[list(found.top)].to_dict("records")):
        unit = target_of_row(row)
        values = pd.Series(unit.read(store).astype(float))
        table = addressed(pd.DataFrame({"activation": values}), [unit])
        table.insert(0, "unit", order)
        table["word"] = [sample.word for sample in data.samples]
        table["category"] = [data.categories[sample.label] for sample in data.samples]
        table["rank"] = values.rank(ascending=False, method="first").astype(int)
        tables.append(table.sort_values("rank"))
    return pd.concat(tables, ignore_index=True)


def scale_of(found: Tuning, unit: Target | None, data: Data, store: Store) -> tuple[Target, Scale]:
    """The target of the heat map (the most strongly tuned unit where none is named), and what measures it.

    Raises:
        KeyError: it is read where nothing was compared.
    """
    unit = target_of_row(found.units.iloc[found.top[0]]) if unit is None else unit
    row, categories = _groups(found, unit, data, store), data.categories
    n_0, n_1 = int(row["n_0"]), int(row["n_1"])
    pooled = (((n_0 - 1) * row["sd_0"] ** 2 + (n_1 - 1) * row["sd_1"] ** 2) / (n_0 + n_1 - 2)) ** 0.5
    middle, towards = (row["mean_0"] + row["mean_1"]) / 2, 1.0 if row["mean_1"] >= row["mean_0"] else -1.0
    return unit, Scale(float(middle), float(pooled), towards, categories)


def _groups(found: Tuning, unit: Target, data: Data, store: Store) -> dict[str, Any]:
    """Sizes, means and standard deviations of the two groups of words."""
    if unit.coordinate is not None:
        inside = rows_of(found.units, Unit(*unit.place, unit.coordinate))
        if not len(inside):
            raise KeyError(str(unit))
        return inside.iloc[0].to_dict()
    values, labels = unit.read(store).astype(float), np.array([sample.label for sample in data.samples])
    groups = {label: values[labels == label] for label in (0, 1)}
    sizes = {f"n_{label}": len(some) for label, some in groups.items()}
    means = {f"mean_{label}": some.mean() for label, some in groups.items()}
    return {**sizes, **means, **{f"sd_{label}": some.std(ddof=1) for label, some in groups.items()}}


def write_heat_map(contents: Contents, drawn: HeatMap) -> Summary:
    """Writes `heatmap.parquet` and `heatmap.html`; returns what the summary says of it."""
    contents.write_table("heatmap", drawn.tokens)
    contents.write_text("heatmap.html", heat_map_html(drawn))
    return {"heatmap": {"unit": str(drawn.unit), "title": drawn.title}}
