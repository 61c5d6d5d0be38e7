"""The headline numbers of a tuning job, each with its null, and the finding in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy import ndarray

from actmax.stats.t_and_logit import SEPARATED
from actmax.tasks.tuning.analysis import Tuning


def summarize(found: Tuning) -> dict[str, Any]:
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


def _by_site(units: pd.DataFrame) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for site, rows in units.groupby("site", sort=False):
        tuned = _column(rows, "tuned")
        found[str(site)] = {"units": len(tuned), "tuned": int(tuned.sum()), "share": float(tuned.mean())}
    return found


def _replication_summary(replication: pd.DataFrame) -> dict[str, Any]:
    """Over all splits together: a split that selects nothing has nothing to replicate."""
    selected = _column(replication, "selected").astype(float)
    some = selected > 0
    found: dict[str, Any] = {"splits": len(selected), "splits_that_select": int(some.sum())}
    found["selected"] = float(selected.mean())
    if not some.any():
        return {**found, "rate": None}
    for name in ("rate", "null_rate_mean", "effect_selected", "effect_held_out"):
        found[name] = float(np.average(_column(replication, name)[some], weights=selected[some]))
    found["null_rate_high"] = float(_column(replication, "null_rate_high")[some].max())
    found["shrinkage"] = 1 - found["effect_held_out"] / found["effect_selected"]
    rates = _column(replication, "rate")[some]
    return {**found, "rate_low": float(rates.min()), "rate_high": float(rates.max())}


def _decoder_summary(decoders: pd.DataFrame, best: Mapping[str, float], alpha: float) -> dict[str, Any]:
    names = {"accuracy": "accuracy", "accuracy_null_mean": "null_mean", "accuracy_null_low": "null_low"}
    names |= {"accuracy_null_high": "null_high", "accuracy_p": "p"}
    rows = decoders.to_dict("records")
    layers, whole = [row for row in rows if row["scope"] == "layer"], rows[-1]
    top = max(layers, key=lambda row: row["accuracy"])
    where = {"site": str(top["site"]), "layer": None if pd.isna(top["layer"]) else int(top["layer"])}
    above = sum(row["accuracy_p_bh"] <= alpha for row in layers)
    found = {"all": {short: float(whole[name]) for name, short in names.items()}}
    return {**found, "best_layer": {**where, **best}, "layers": len(layers), "layers_above_chance": above}


def _concordance_summary(correlations: pd.DataFrame, agreement: pd.DataFrame) -> dict[str, Any]:
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


def _strata_summary(strata: pd.DataFrame, units: pd.DataFrame) -> dict[str, Any]:
    """Per number of sub-tokens: in how many of the tuned units do these words alone point the same way?"""
    found: dict[str, Any] = {}
    tuned = units["tuned"].to_numpy()
    for count, rows in strata.groupby("subtokens") if len(strata) else ():
        same = np.sign(rows["cohens_d"].to_numpy()) == np.sign(units["cohens_d"].to_numpy())
        share = float(same[tuned].mean()) if tuned.any() else None
        found[str(count)] = {"n_0": int(rows["n_0"].iloc[0]), "n_1": int(rows["n_1"].iloc[0]), "same_sign": share}
    return found


def statement(summary: Mapping[str, Any], categories: Sequence[str], alpha: float) -> str:
    """The finding in plain words, each number beside its null."""
    first, second = categories
    units, tuned = summary["compared_units"], summary["tuned_units"]
    said = (
        f"{tuned} of {units} units ({summary['tuned_share']:.1%}) tell {first} from {second} (Benjamini-Hochberg "
        f"{alpha:g} over all of them; {summary['tuned_share_permutation']:.1%} family-wise, by permutation). "
        f"Corrected per layer it is {summary['tuned_share_layer']:.1%}, and {summary['null_tuned_share_layer']:.2%} "
        "under shuffled labels."
    )
    parts = [said, _said_of_replication(summary["replication"], alpha), _said_of_decoder(summary["decoder"])]
    found = summary["concordance"]
    if found:
        parts.append(
            f"t and the standardised β correlate at {found['pearson']:.4f} over {found['units']} overlapping units; "
            f"the t-test and likelihood-ratio test agree on {found['agreement_raw']:.1%} of them uncorrected and on "
            f"{found['agreement_bh']:.1%} corrected; {summary['separated_units']} units are separated."
        )
    if summary["far_words"]["layers"]:
        parts.append(
            f"Mind that at {summary['far_words']['layers']} layers up to {summary['far_words']['most']} words lie ten "
            "times further out than the median word (attention sinks, most likely): t-tests have little power there."
        )
    return " ".join(parts)


def _said_of_replication(found: Mapping[str, Any], alpha: float) -> str:
    if found["rate"] is None:
        return "Null result: half of the words select no unit, so there is nothing to replicate."
    return (
        f"Half of the words selects {found['selected']:.0f} units on average ({found['splits_that_select']} of "
        f"{found['splits']} splits select any); {found['rate']:.1%} of them replicate on the other half (same "
        f"direction, p ≤ {alpha:g}; shuffled labels: {found['null_rate_mean']:.1%}; by split "
        f"{found['rate_low']:.1%} to {found['rate_high']:.1%}), and effects shrink by {found['shrinkage']:.1%}."
    )


def _said_of_decoder(found: Mapping[str, Any]) -> str:
    whole, best = found["all"], found["best_layer"]
    place = best["site"] if best["layer"] is None else f"{best['site']}.{best['layer']}"
    verdict = "" if whole["p"] <= 0.05 else "Null result: "
    return (
        f"{verdict}A decoder over all units is right on {whole['accuracy']:.1%} of held-out words (shuffled labels: "
        f"{whole['null_mean']:.1%}, 95 %: {whole['null_low']:.1%} to {whole['null_high']:.1%}, p = {whole['p']:.2g}); "
        f"the best layer, {place}, on {best['accuracy']:.1%} (best of the shuffled: {best['null_mean']:.1%}, p = "
        f"{best['p']:.2g}); {found['layers_above_chance']} of {found['layers']} layers are above chance."
    )
