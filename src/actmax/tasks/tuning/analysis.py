"""Which units tell two groups of words apart, and whether they do so on words by which they were not selected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from actmax.evidence.nulls import against
from actmax.evidence.settings import ALPHA
from actmax.model.architecture import HEADS, Geometry
from actmax.model.target import Place, place_columns
from actmax.progress import track
from actmax.stats.corrections import correct
from actmax.stats.groups import Comparison, compare
from actmax.stats.layers import Products, decode_products, products
from actmax.stats.regrouped import Regrouped, regrouped_welch
from actmax.stats.t_and_logit import Concordance, concordance
from actmax.tasks.tuning.directions import place_directions
from actmax.tasks.tuning.plan import Plan, Words, make_plan
from actmax.tasks.tuning.replication import replication
from actmax.tasks.tuning.settings import TuningSettings
from actmax.tasks.tuning.store import Store
from actmax.words.lists import FEWEST

CORRECTED = ("bonferroni", "bh")
"""Corrections that are made over all units and, again, within each site and layer."""
FAR = 10.0
"""Multiple of the median word's length from which a word's vector is called far out: the word has become an attention
sink, or the like, and makes a variance in which no t-test finds anything."""


@dataclass(frozen=True)
class Tuning:
    """Everything that a comparison of two groups of words gives."""

    units: pd.DataFrame
    """A row per unit: `site layer index` (at q, k, v and z also `head dim`), the columns of `compare` with corrections
    over all units, the same `_layer` over the unit's site and layer, `p_permutation` and `tuned`."""
    shares: pd.DataFrame
    """A row per site and layer, and per head: how many units are tuned, with the mean and the 95 % range of what
    shuffled labels give; `far_words` are those that lie ten times further out than the median word."""
    replication: pd.DataFrame
    """A row per split of the words: units selected on one half, the share that replicates on the other, its null."""
    decoders: pd.DataFrame
    """A row per site and layer, head, whole site and the whole subject: accuracy, AUC, log loss, each with its null."""
    correlations: pd.DataFrame
    """The correlations of `concordance` per site and layer, per site, and over all."""
    agreement: pd.DataFrame
    """The agreement of tests in `concordance`, for the same sets of units."""
    strata: pd.DataFrame
    """A row per unit and number of sub-tokens: the two means and the t of these words alone."""
    top: tuple[int, ...]
    """Rows of `units`, the most strongly tuned first."""
    best_layer: Mapping[str, float]
    """The best layer's accuracy, and the mean and p of the best layer's under the same shuffles."""
    directions: Mapping[str, Tensor]
    """Directions of every site and layer that tell the groups apart, by their names in `directions.safetensors`."""
    test: str
    """Name of the p that decides: `welch_p` or `paired_p`."""
    alpha: float
    """Level of the tests."""
    permutations: int
    """Number of shuffles of the labels behind the decoders' nulls."""


_Scoped = tuple[Place | None, str, Concordance]
"""A concordance with the site and layer (None for all) and the scope that it is over."""


@dataclass
class _Gathered:
    """What one pass over sites and layers gathers; lists have an entry per site and layer."""

    tables: list[pd.DataFrame] = field(default_factory=list)
    """One table per place: the comparison of every unit, beside the columns of the address."""
    comparisons: list[Comparison] = field(default_factory=list)
    """The comparisons without their tables."""
    concordances: list[_Scoped] = field(default_factory=list)
    """The t-test beside logistic regression, where there are units enough."""
    halves: list[tuple[Regrouped, ...]] = field(default_factory=list)
    """The test on the first and on the second half of the words, a column per split."""
    smallest: list[ndarray] = field(default_factory=list)
    """The smallest p of any unit under each shuffle."""
    null_tuned: list[ndarray] = field(default_factory=list)
    """How many units pass Benjamini-Hochberg under each shuffle."""
    lengths: list[ndarray] = field(default_factory=list)
    """The length of each word's vector."""
    strata: list[pd.DataFrame] = field(default_factory=list)
    """The test on words of each number of sub-tokens."""
    decoded: list[dict[str, Any]] = field(default_factory=list)
    """Rows of the table of decoders, of layers and of heads."""
    nulls: list[ndarray] = field(default_factory=list)
    """The accuracy of the layer's decoder under each shuffle."""
    directions: dict[str, Tensor] = field(default_factory=dict)
    """Directions that tell the groups apart, by their names in the file."""
    whole: dict[str, Products] = field(default_factory=dict)
    """Inner products over all layers, by site."""


def analyse(store: Store, words: Words, geometry: Geometry, settings: TuningSettings) -> Tuning:
    """Compares, replicates, decodes: all in one pass over sites and layers, and a second for the replication's null.

    Args:
        store: the activations of all words.
        words: labels, groups and pairs of the words.
        geometry: sizes of the subject.
        settings: levels, splits, folds and shuffles.
    """
    plan, found = make_plan(words, settings), _Gathered()
    for place in track(store.places, "comparison", unit="layer"):
        _visit(found, place, np.asarray(store[place]), geometry, plan)
    units = _corrected(found, plan)
    order = np.argsort(-units[words.t].abs().fillna(-1).to_numpy(), kind="stable")[: settings.top]
    correlations, agreement = _concordance_tables(found, units)
    return Tuning(
        units=units,
        shares=_shares(units, found, plan),
        replication=replication(found.halves, store, plan),
        decoders=_decoders(found, plan),
        best_layer=_best(found),
        correlations=correlations,
        agreement=agreement,
        strata=pd.concat(found.strata, ignore_index=True) if found.strata else pd.DataFrame(),
        top=tuple(order.tolist()),
        directions=found.directions,
        test=words.test,
        alpha=settings.alpha,
        permutations=settings.permutations,
    )


def _visit(found: _Gathered, place: Place, x: Float[ndarray, "samples width"], geometry: Geometry, plan: Plan) -> None:
    """Gathers everything that one site and layer gives."""
    words, alpha = plan.words, plan.settings.alpha
    pairs = None if words.pairs is None else np.array(words.pairs)
    compared = compare(x, words.labels, pairs=pairs, alpha=alpha)
    found.comparisons.append(replace(compared, table=compared.table.iloc[:0]))
    found.tables.append(_addressed(compared.table, place, geometry))
    if len(compared.table) >= 3:
        found.concordances.append((place, "layer", concordance(compared)))
    found.halves.append(tuple(plan.tested(x, plan.plain, half) for half in (plan.halves, ~plan.halves)))
    null = plan.tested(x, plan.shuffled).p
    found.smallest.append(np.where(np.isnan(null), 1.0, null).min(axis=0))
    found.null_tuned.append((correct(null, "bh", axis=0) <= alpha).sum(axis=0))
    found.lengths.append(np.sqrt((x.astype(np.float64) ** 2).sum(1)))
    found.strata += _strata(x, place, words)
    found.directions |= place_directions(x, place, plan)
    _decode(found, place, x, geometry, plan)


def _addressed(table: pd.DataFrame, place: Place, geometry: Geometry) -> pd.DataFrame:
    """The rows of a site and layer with their address, and their corrections named as the layer's own."""
    head, dim = divmod(np.arange(len(table)), geometry.head_dim) if place[0] in HEADS else (pd.NA, pd.NA)
    frame = pd.DataFrame({**place_columns(place, len(table)), "head": head, "dim": dim}, index=table.index)
    frame = frame.astype({"head": "Int64", "dim": "Int64"})
    names = {f"{name}_{method}": f"{name}_{method}_layer" for name in _tests(table) for method in CORRECTED}
    return pd.concat([frame, table.rename(columns=names)], axis=1)


def _tests(table: pd.DataFrame) -> list[str]:
    """Names of the columns that are p-values."""
    return [name.removesuffix("_log10") for name in table.columns if name.endswith("_p_log10")]


def _strata(x: ndarray, place: Place, words: Words) -> list[pd.DataFrame]:
    """Welch's test on the words of each number of sub-tokens alone, where there are enough of both groups."""
    tables = []
    for count in sorted(set(words.subtokens.tolist())):
        inside = words.subtokens == count
        n_1, n_0 = int((inside & words.labels).sum()), int((inside & ~words.labels).sum())
        if min(n_0, n_1) < FEWEST:
            continue
        zeros, ones = (inside & ~words.labels)[:, None], (inside & words.labels)[:, None]
        tested = regrouped_welch(x, zeros, ones)
        columns = {
            **place_columns(place, x.shape[1]),
            "subtokens": count,
            "n_0": n_0,
            "n_1": n_1,
            "mean_0": x[zeros[:, 0]].mean(0, dtype=np.float64),
            "mean_1": x[ones[:, 0]].mean(0, dtype=np.float64),
            "cohens_d": tested.d[:, 0],
            "welch_t": tested.t[:, 0],
            "welch_p": tested.p[:, 0],
        }
        tables.append(pd.DataFrame(columns))
    return tables


# decoders


def _decode(found: _Gathered, place: Place, x: ndarray, geometry: Geometry, plan: Plan) -> None:
    """Gathers the decoder of a layer and of each of its heads; adds the layer's products to those of its site."""
    site, layer = place
    own = products(x, plan.folds)
    found.whole[site] = found.whole[site] + own if site in found.whole else own
    parts: list[tuple[int | None, Products]] = [(None, own)]
    if site in HEADS:
        size = geometry.head_dim
        parts += [(h, products(x[:, h * size : (h + 1) * size], plan.folds)) for h in range(x.shape[1] // size)]
    for head, some in parts:
        row, null = _decoded(some, plan)
        found.decoded.append({"site": site, "layer": layer, "head": head, **row})
        if head is None:
            found.nulls.append(null)


def _decoded(some: Products, plan: Plan) -> tuple[dict[str, Any], ndarray]:
    """The row of a decoder, and its accuracy under each shuffle."""
    decoding = decode_products(some, plan.folds, C=plan.settings.C)
    row: dict[str, Any] = {"units": decoding.units}
    for measure, values in zip(decoding.table.index, decoding.table.to_dict("records"), strict=True):
        names = {"observed": measure, "p": f"{measure}_p"}
        row |= {names.get(str(name), f"{measure}_{name}"): value for name, value in values.items()}
    null = decoding.null["accuracy"].to_numpy()
    row["accuracy_null_limit"] = against(row["accuracy"], null, alternative="greater").limits(ALPHA)[1]
    return row, null


def _decoders(found: _Gathered, plan: Plan) -> pd.DataFrame:
    """The table of decoders; layer and head are missing for a whole site, and the site too for all sites."""
    rows = [{"scope": "layer" if row["head"] is None else "head", **row} for row in found.decoded]
    for site, some in found.whole.items():
        rows.append({"scope": "site", "site": site, "layer": None, "head": None, **_decoded(some, plan)[0]})
    everything = sum(list(found.whole.values())[1:], next(iter(found.whole.values())))
    rows.append({"scope": "all", "site": None, "layer": None, "head": None, **_decoded(everything, plan)[0]})
    table = pd.DataFrame(rows).astype({"layer": "Int64", "head": "Int64"})
    for scope in ("layer", "head"):
        inside = table["scope"] == scope
        table.loc[inside, "accuracy_p_bh"] = correct(table.loc[inside, "accuracy_p"].to_numpy(float), "bh")
    return table


def _best(found: _Gathered) -> dict[str, float]:
    """The best layer's accuracy against the best layer's under the same shuffles.

    The null chooses the best layer too, so that the p needs no correction for the choice.
    """
    layers = [row["accuracy"] for row in found.decoded if row["head"] is None]
    null = np.max(np.stack(found.nulls), axis=0)
    best = max(layers)
    return {"accuracy": best, "null_mean": null.mean(), "p": float((1 + (null >= best).sum()) / (1 + len(null)))}


# corrections, shares, concordance


def _corrected(found: _Gathered, plan: Plan) -> pd.DataFrame:
    """The units of all sites and layers, with corrections over all of them."""
    table = pd.concat(found.tables, ignore_index=True)
    whole = {
        f"{name}_{method}": correct(table[name].to_numpy(float), method)
        for name in _tests(table)
        for method in CORRECTED
    }
    p = table[plan.words.test].to_numpy(float)
    # The family-wise p of Westfall and Young (1993, Resampling-Based Multiple Testing): how often the smallest p of all
    # units is as small under shuffled labels. A p that equals one of the null's counts as reached, beyond rounding.
    smallest = np.sort(np.min(np.stack(found.smallest), axis=0))
    reached = np.searchsorted(smallest, p * (1 + 1e-9), side="right")
    whole["p_permutation"] = np.where(np.isnan(p), np.nan, (1 + reached) / (1 + len(smallest)))
    whole["tuned"] = whole[f"{plan.words.test}_bh"] <= plan.settings.alpha
    return pd.concat([table, pd.DataFrame(whole)], axis=1)


def _shares(units: pd.DataFrame, found: _Gathered, plan: Plan) -> pd.DataFrame:
    """The share of tuned units per site and layer and per head, beside the share under shuffled labels."""
    test, alpha = plan.words.test, plan.settings.alpha
    frame = units.assign(
        separated=units["status"].isin(("separated", "quasi_separated")),
        tuned_bonferroni=units[f"{test}_bonferroni"] <= alpha,
        tuned_layer=units[f"{test}_bh_layer"] <= alpha,
        towards_1=units["tuned"] & (units["cohens_d"] > 0),
    )
    kinds = ["tuned", "tuned_bonferroni", "tuned_layer", "towards_1", "separated"]
    tables = []
    for scope, keys in (("layer", ["site", "layer"]), ("head", ["site", "layer", "head"])):
        rows = frame if scope == "layer" else frame[frame["head"].notna()]
        if not len(rows):
            continue
        groups = rows.groupby(keys, sort=False, dropna=False)
        counts, means = pd.DataFrame(groups[kinds].sum()), pd.DataFrame(groups[kinds].mean())
        counts.insert(0, "units", groups.size().to_numpy())
        tables.append(pd.concat([counts, means.add_prefix("share_")], axis=1).reset_index().assign(scope=scope))
    shares = pd.concat(tables, ignore_index=True)
    null = pd.DataFrame([_spread(draws, len(t)) for draws, t in zip(found.null_tuned, found.tables, strict=True)])
    null["far_words"] = [int((lengths > FAR * np.median(lengths)).sum()) for lengths in found.lengths]
    return pd.concat([shares, null], axis=1)  # the layers' rows come first, in the order of the pass


def _spread(draws: Int[ndarray, " draws"], units: int) -> dict[str, float]:
    """Mean and 95 % range over shuffles of the share of tuned units, and how often there is any."""
    share = draws / units
    low, high = np.quantile(share, [0.025, 0.975])
    return {
        "null_share_layer_mean": float(share.mean()),
        "null_share_layer_low": float(low),
        "null_share_layer_high": float(high),
        "null_any_layer": float((draws > 0).mean()),
    }


def _whole_concordance(found: _Gathered, units: pd.DataFrame) -> list[_Scoped]:
    """The concordance of each site over all layers, and of everything."""
    one = found.comparisons[0]
    rows: list[_Scoped] = []
    for site, table in units.groupby("site", sort=False):
        rows.append(((str(site), None), "site", concordance(replace(one, table=table))))
    rows.append((None, "all", concordance(replace(one, table=units))))
    return rows


def _concordance_tables(found: _Gathered, units: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Correlations and agreement per site and layer, per site, and over all."""
    rows = [*found.concordances, *(_whole_concordance(found, units) if len(units) > 2 else ())]
    tables: dict[str, list[pd.DataFrame]] = {"correlations": [], "agreement": []}
    for place, scope, one in rows:
        site, layer = place or (None, None)
        for name, parts in tables.items():
            frame: pd.DataFrame = getattr(one, name)
            parts.append(frame.assign(scope=scope, site=site, layer=pd.array([layer] * len(frame), dtype="Int64")))
    correlations, agreement = (
        pd.concat(parts, ignore_index=True) if parts else pd.DataFrame() for parts in tables.values()
    )
    return correlations, agreement
