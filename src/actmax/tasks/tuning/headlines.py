"""The headline numbers of a tuning job, each with its null, and its findings."""

from __future__ import annotations

from collections.abc import Mapping
from math import nan
from typing import Any

import numpy as np
import pandas as pd
from numpy import ndarray

from actmax.evidence.findings import Finding, Measure, finding
from actmax.model.target import place_of_row
from actmax.records.store import Summary
from actmax.stats.t_and_logit import SEPARATED
from actmax.tasks.tuning.analysis import Tuning


def summarize(found: Tuning) -> Summary:
    """The headline numbers, each with its null."""
    units, layers = found.units, found.shares.loc[found.shares["scope"] == "layer"]
    tuned, sizes, far = (
        _column(table, name) for table, name in ((units, "tuned"), (layers, "units"), (layers, "far_words"))
    )
    return {
        "test": found.test.removesuffix("_p"),
        "compared_units": len(units),
        "tuned_units": int(tuned.sum()),
        "tuned_share": float(tuned.mean()),
        "tuned_share_bonferroni": float((_column(units, f"{found.test}_bonferroni") <= found.alpha).mean()),
        "tuned_share_permutation": float((_column(units, "p_permutation") <= found.alpha).mean()),
        "tuned_share_layer": float(np.average(_column(layers, "share_tuned_layer"), weights=sizes)),
        "null_tuned_share_layer": float(np.average(_column(layers, "null_share_layer_mean"), weights=sizes)),
        "separated_units": int(np.isin(_column(units, "status"), SEPARATED).sum()),
        "far_words": {"layers": int((far > 0).sum()), "most": int(far.max())},
        "by_site": _by_site(units),
        "replication": _replication_summary(found.replication),
        "decoder": _decoder_summary(found.decoders, found.best_layer, found.alpha),
        "concordance": _concordance_summary(found.correlations, found.agreement),
        "subtokens": _strata_summary(found.strata, units),
    }


def _column(table: pd.DataFrame, name: str) -> ndarray:
    return np.asarray(table[name])


def _by_site(units: pd.DataFrame) -> Summary:
    found: Summary = {}
    for site, rows in units.groupby("site", sort=False):
        tuned = _column(rows, "tuned")
        found[str(site)] = {"units": len(tuned), "tuned": int(tuned.sum()), "share": float(tuned.mean())}
    return found


def _replication_summary(replication: pd.DataFrame) -> Summary:
    """Over all splits together: a split that selects nothing has nothing to replicate."""
    selected = _column(replication, "selected").astype(float)
    some = selected > 0
    found: Summary = {"splits": len(selected), "splits_that_select": int(some.sum())}
    found["selected"] = float(selected.mean())
    if not some.any():
        return {**found, "rate": None}
    for name in ("rate", "null_rate_mean", "effect_selected", "effect_held_out"):
        found[name] = float(np.average(_column(replication, name)[some], weights=selected[some]))
    found["null_rate_high"] = float(_column(replication, "null_rate_high")[some].max())
    found["shrinkage"] = 1 - found["effect_held_out"] / found["effect_selected"]
    rates = _column(replication, "rate")[some]
    return {**found, "rate_low": float(rates.min()), "rate_high": float(rates.max())}


def _decoder_summary(decoders: pd.DataFrame, best: Mapping[str, float], alpha: float) -> Summary:
    names = {"accuracy": "accuracy", "accuracy_null_mean": "null_mean", "accuracy_null_low": "null_low"}
    names |= {"accuracy_null_high": "null_high", "accuracy_null_limit": "null_limit", "accuracy_p": "p"}
    rows = decoders.to_dict("records")
    layers, whole = [row for row in rows if row["scope"] == "layer"], rows[-1]
    top = max(layers, key=lambda row: row["accuracy"])
    site, layer = place_of_row(top)
    above = sum(row["accuracy_p_bh"] <= alpha for row in layers)
    found: Summary = {"all": {short: float(whole[name]) for name, short in names.items()}}
    found["best_layer"] = {"site": site, "layer": layer, **best}
    return {**found, "layers": len(layers), "layers_above_chance": above}


def _concordance_summary(correlations: pd.DataFrame, agreement: pd.DataFrame) -> Summary:
    if not len(correlations):
        return {}
    r = correlations.query("scope == 'all' and units == 'overlapping' and x == 'student_t' and y == 'logit_coef_std'")
    same = agreement.query(
        "scope == 'all' and units == 'overlapping' and t_test == 'student' and logistic == 'logit_lr'"
    )
    rows = same.set_index("level")
    return {
        "units": int(r["n"].iloc[0]),
        "pearson": float(r["pearson"].iloc[0]),
        "spearman": float(r["spearman"].iloc[0]),
        **{
            f"{measure}_{level}": float(rows[measure].to_dict()[level])
            for measure in ("agreement", "kappa")
            for level in ("raw", "bonferroni", "bh")
        },
    }


def _strata_summary(strata: pd.DataFrame, units: pd.DataFrame) -> Summary:
    """Per number of sub-tokens: in how many of the tuned units do these words alone point the same way?"""
    found: Summary = {}
    tuned = units["tuned"].to_numpy()
    for count, rows in strata.groupby("subtokens") if len(strata) else ():
        same = np.sign(rows["cohens_d"].to_numpy()) == np.sign(units["cohens_d"].to_numpy())
        share = float(same[tuned].mean()) if tuned.any() else None
        found[str(count)] = {"n_0": int(rows["n_0"].iloc[0]), "n_1": int(rows["n_1"].iloc[0]), "same_sign": share}
    return found


def findings(summary: Mapping[str, Any], found: Tuning) -> list[Finding]:
    """The share of tuned units, what replicates of them, and the accuracy of all units, beside shuffled labels.

    The first two have a null but no p, so that nothing is claimed of them by themselves. The decoder has a p.
    """
    again, decoder = summary["replication"], summary["decoder"]["all"]
    share, null_share = summary["tuned_share_layer"], summary["null_tuned_share_layer"]
    selected = again["rate"] is not None
    rates = [again[name] if selected else nan for name in ("rate", "null_rate_mean")]
    null = (decoder["null_mean"], nan, decoder["null_limit"])
    above: dict[str, Any] = {"alpha": found.alpha, "alternative": "greater"}
    shuffled: dict[str, Any] = {"alternative": "greater", "draws": found.permutations}
    return [
        finding(Measure.TUNED_SHARE, share, (null_share, nan, nan), **above),
        finding(Measure.REPLICATION_RATE, rates[0], (rates[1], nan, nan), **above),
        finding(Measure.DECODER_ACCURACY, decoder["accuracy"], null, p=decoder["p"], **shuffled),
    ]
