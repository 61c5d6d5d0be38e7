"""From the activations of two groups of words to which units tell them apart, on words that did not choose them too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from actmax.architecture import HEADS, Geometry
from actmax.comparison import Comparison, compare, concordance, correct
from actmax.comparison.layers import Folds, Products, decode_products, make_folds, products
from actmax.comparison.regrouped import Regrouped, regrouped_paired, regrouped_welch
from actmax.errors import InputError
from actmax.subject import Place
from actmax.tuning.activations import Store
from actmax.tuning.words import FEWEST, Data

Progress = Callable[[Iterable[Place], str], Iterable[Place]]
"""Passes places on and shows how far it is; the text says with what."""

CORRECTED = ("bonferroni", "bh")
UNIT = ("site", "layer", "index")


@dataclass(frozen=True)
class Settings:
    """How the words are compared."""

    alpha: float = 0.05
    """Level of every test, raw and corrected."""
    splits: int = 20
    """Random halvings of the words, for replication."""
    folds: int = 5
    """Of the decoders."""
    C: float = 1.0
    """Inverse strength of the decoders' regularisation."""
    permutations: int = 200
    """Shuffles of the labels, for every null."""
    top: int = 20
    """Units whose words are kept."""
    seed: int = 0
    """Of halves, folds and shuffles."""

    def __post_init__(self) -> None:
        least = {"splits": 1, "folds": 2, "permutations": 20, "top": 1}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise InputError(name, getattr(self, name), f"must be at least {low}")
        for name, low, high in (("alpha", 0.0, 1.0), ("C", 0.0, np.inf)):
            if not low < getattr(self, name) < high:
                raise InputError(name, getattr(self, name), f"must be above {low:g} and below {high:g}")


@dataclass(frozen=True)
class Words:
    """The samples as arrays."""

    labels: Bool[ndarray, " samples"]
    """Which are in group 1."""
    groups: tuple[str, ...]
    """What halves and folds never split."""
    pairs: tuple[str, ...] | None
    """Names of real pairs; None where nothing is paired."""
    subtokens: Int[ndarray, " samples"]
    """Sub-tokens of each word."""

    @property
    def test(self) -> str:
        """The test that decides: Welch's t, or the paired t where words are really paired."""
        return "welch_p" if self.pairs is None else "paired_p"

    @property
    def t(self) -> str:
        """Its statistic."""
        return "welch_t" if self.pairs is None else "paired_t"

    @property
    def matched(self) -> Int[ndarray, "pairs 2"]:
        """Sample numbers of each pair, group 0's first."""
        assert self.pairs is not None  # noqa: S101
        place = {(pair, bool(label)): n for n, (pair, label) in enumerate(zip(self.pairs, self.labels, strict=True))}
        return np.array([[place[pair, False], place[pair, True]] for pair in dict.fromkeys(self.pairs)])


def words_of(data: Data, subtokens: Sequence[int]) -> Words:
    """The samples of some data."""
    labels = np.array(data.labels, dtype=bool)
    groups = tuple(sample.group for sample in data.samples)
    pairs = None if data.pairs is None else tuple(data.pairs)
    return Words(labels, groups, pairs, np.array(subtokens, dtype=np.int64))


@dataclass(frozen=True)
class Tuning:
    """What was found."""

    units: pd.DataFrame
    """A row per unit: `site layer index` (at q, k, v and z also `head dim`), the columns of `compare` with corrections
    over all units, the same `_layer` over the unit's site and layer, `p_permutation` and `tuned`."""
    shares: pd.DataFrame
    """A row per site and layer, and per head: how many units are tuned, with the mean and the 95 % range of what shuffled
    labels give."""
    replication: pd.DataFrame
    """A row per split of the words: units selected on one half, the share that replicates on the other, and its null."""
    decoders: pd.DataFrame
    """A row per site and layer, head, whole site and the whole subject: accuracy, AUC, log loss, each with its null."""
    correlations: pd.DataFrame
    """`concordance`'s correlations per site and layer, per site, and over all."""
    agreement: pd.DataFrame
    """Its table of agreement, likewise."""
    strata: pd.DataFrame
    """A row per unit and number of sub-tokens: the two means and the t of these words alone."""
    top: tuple[int, ...]
    """Rows of `units`, the most strongly tuned first."""
    summary: Mapping[str, Any]
    """The headline numbers, each with its null."""


@dataclass
class _Gathered:
    """What one pass over the places leaves."""

    tables: list[pd.DataFrame] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    concordances: list[tuple[Place | None, str, Any]] = field(default_factory=list)
    halves: list[tuple[Regrouped, Regrouped]] = field(default_factory=list)
    smallest: list[ndarray] = field(default_factory=list)
    null_tuned: list[ndarray] = field(default_factory=list)
    strata: list[pd.DataFrame] = field(default_factory=list)
    decoded: list[dict[str, Any]] = field(default_factory=list)
    nulls: list[ndarray] = field(default_factory=list)
    whole: dict[str, Products] = field(default_factory=dict)


def analyse(store: Store, words: Words, geometry: Geometry, settings: Settings, progress: Progress) -> Tuning:
    """Compares, replicates, decodes: everything in one pass over sites and layers, but for the replication's null.

    Args:
        store: the activations.
        words: the samples.
        geometry: of the subject.
        settings: of the tests.
        progress: shows how far it is.
    """
    rng = np.random.default_rng(settings.seed)
    folds = make_folds(
        words.labels,
        words.groups,
        folds=min(settings.folds, _fewest(words)),
        permutations=settings.permutations,
        seed=settings.seed,
        paired=words.pairs is not None,
    )
    halves = [_halves(words, rng) for _ in range(settings.splits)]
    shuffled = _shuffles(words, rng, settings.permutations)
    found = _Gathered()
    for place in progress(store.places, "comparison"):
        _visit(found, place, np.asarray(store[place]), words, geometry, settings, folds, halves, shuffled)
    units = _corrected(found, words, settings)
    replication = _replication(found, store, words, halves, settings, rng, progress)
    decoders = _decoders(found, folds, settings)
    whole = [] if len(units) < 3 else _whole_concordance(found, units)
    correlations, agreement = _concordance_tables([*found.concordances, *whole])
    strata = pd.concat(found.strata, ignore_index=True) if found.strata else pd.DataFrame()
    shares = _shares(units, found, settings)
    order = np.argsort(-units[words.t].abs().fillna(-1).to_numpy(), kind="stable")[: settings.top]
    best = _best(found)
    tables = (units, shares, replication, decoders, correlations, agreement, strata)
    return Tuning(*tables, tuple(order.tolist()), _summary(*tables, words, settings, best))


def _fewest(words: Words) -> int:
    """Groups of words in the smaller category: no fold may lack one."""
    return min(len({g for g, y in zip(words.groups, words.labels, strict=True) if y == side}) for side in (False, True))


def _halves(words: Words, rng: np.random.Generator) -> Bool[ndarray, " samples"]:
    """Which samples are in the first half: whole words, evenly in each category."""
    kinds: dict[str, set[bool]] = {}
    for group, label in zip(words.groups, words.labels.tolist(), strict=True):
        kinds.setdefault(group, set()).add(label)
    first: set[str] = set()
    for kind in ({False}, {True}, {False, True}):
        names = sorted(group for group, labels in kinds.items() if labels == kind)
        chosen = rng.permutation(len(names))[: (len(names) + int(rng.integers(2))) // 2]
        first |= {names[place] for place in chosen}
    return np.array([group in first for group in words.groups])


def _shuffles(words: Words, rng: np.random.Generator, count: int) -> ndarray:
    """Shuffled labels, a column each; for pairs the signs of their differences."""
    if words.pairs is not None:
        return rng.choice([-1.0, 1.0], size=(len(words.matched), count))
    return np.stack([rng.permutation(words.labels) for _ in range(count)], axis=1)


def _tested(x: ndarray, words: Words, shuffled: ndarray, chosen: ndarray | None = None) -> Regrouped:
    """The deciding test under many labellings, of all samples or (a column per labelling) of the chosen ones."""
    if words.pairs is not None:
        pairs = words.matched
        inside = 1.0 if chosen is None else chosen[pairs[:, 0]].astype(np.float64)
        return regrouped_paired(x[pairs[:, 1]] - x[pairs[:, 0]], shuffled * inside)
    inside = np.ones_like(shuffled) if chosen is None else chosen
    return regrouped_welch(x, ~shuffled & inside, shuffled & inside)


def _as_labelled(words: Words, count: int) -> ndarray:
    """The labels as they are, in so many columns, in the form of `_shuffles`."""
    plain = words.labels if words.pairs is None else np.ones(len(words.matched))
    return np.repeat(plain[:, None], count, axis=1)


def _visit(
    found: _Gathered,
    place: Place,
    x: Float[ndarray, "samples width"],
    words: Words,
    geometry: Geometry,
    settings: Settings,
    folds: Folds,
    halves: Sequence[ndarray],
    shuffled: ndarray,
) -> None:
    """Everything that one site and layer gives."""
    compared = compare(x, words.labels, pairs=words.pairs, alpha=settings.alpha)
    found.comparisons.append(replace(compared, table=compared.table.iloc[:0]))
    found.tables.append(_addressed(compared.table, place, geometry))
    if len(compared.table) >= 3:
        found.concordances.append((place, "layer", concordance(compared)))
    first = np.stack(halves, axis=1)
    plain = _as_labelled(words, len(halves))
    found.halves.append((_tested(x, words, plain, first), _tested(x, words, plain, ~first)))
    null = _tested(x, words, shuffled).p
    found.smallest.append(np.nanmin(np.where(np.isnan(null), 1.0, null), axis=0))
    found.null_tuned.append(_rejected(null, settings.alpha))
    found.strata += _strata(x, place, words)
    _decode(found, place, x, geometry, folds, settings)


def _addressed(table: pd.DataFrame, place: Place, geometry: Geometry) -> pd.DataFrame:
    """A place's rows with their address, its corrections named as the layer's."""
    site, layer = place
    address: dict[str, Any] = {"site": site, "layer": layer, "index": np.arange(len(table))}
    dim = address["index"] % geometry.head_dim if site in HEADS else pd.NA
    head = address["index"] // geometry.head_dim if site in HEADS else pd.NA
    frame = pd.DataFrame({**address, "head": head, "dim": dim}, index=table.index)
    frame = frame.astype({"layer": "Int64", "head": "Int64", "dim": "Int64"})
    names = {f"{name}_{method}": f"{name}_{method}_layer" for name in _tests(table) for method in CORRECTED}
    return pd.concat([frame, table.rename(columns=names)], axis=1)


def _tests(table: pd.DataFrame) -> list[str]:
    """The columns that are p-values."""
    return [name.removesuffix("_log10") for name in table.columns if name.endswith("_p_log10")]


def _rejected(p: Float[ndarray, "units draws"], alpha: float) -> Int[ndarray, " draws"]:
    """How many units of each draw pass Benjamini-Hochberg within the place."""
    ordered = np.sort(np.where(np.isnan(p), np.inf, p), axis=0)
    passed = ordered <= alpha * np.arange(1, len(p) + 1)[:, None] / np.maximum((~np.isnan(p)).sum(0), 1)
    return np.where(passed.any(0), len(p) - np.argmax(passed[::-1], axis=0), 0)


def _strata(x: ndarray, place: Place, words: Words) -> list[pd.DataFrame]:
    """The same test on the words of each number of sub-tokens alone, where there are enough of both groups."""
    tables = []
    for count in sorted(set(words.subtokens.tolist())):
        inside = words.subtokens == count
        n_1, n_0 = int((inside & words.labels).sum()), int((inside & ~words.labels).sum())
        if min(n_0, n_1) < FEWEST:
            continue
        zeros, ones = (inside & ~words.labels)[:, None], (inside & words.labels)[:, None]
        tested = regrouped_welch(x, zeros, ones)
        columns = {
            "site": place[0],
            "layer": pd.array([place[1]] * x.shape[1], dtype="Int64"),
            "index": np.arange(x.shape[1]),
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


def _decode(
    found: _Gathered, place: Place, x: ndarray, geometry: Geometry, folds: Folds, settings: Settings
) -> None:
    """The decoder of a layer and of each of its heads; the layer's products join those of its site."""
    site, layer = place
    own = products(x, folds)
    found.whole[site] = found.whole[site] + own if site in found.whole else own
    parts: list[tuple[int | None, Products]] = [(None, own)]
    if site in HEADS:
        size = geometry.head_dim
        parts += [(h, products(x[:, h * size : (h + 1) * size], folds)) for h in range(x.shape[1] // size)]
    for head, some in parts:
        row, null = _decoded(some, folds, settings)
        found.decoded.append({"site": site, "layer": layer, "head": head, **row})
        if head is None:
            found.nulls.append(null)


def _decoded(some: Products, folds: Folds, settings: Settings) -> tuple[dict[str, Any], ndarray]:
    """A decoder's row, and the accuracies of its null."""
    decoding = decode_products(some, folds, C=settings.C)
    row: dict[str, Any] = {"units": decoding.units}
    for measure, values in zip(decoding.table.index, decoding.table.to_dict("records"), strict=True):
        names = {"observed": measure, "p": f"{measure}_p"}
        row |= {names.get(str(name), f"{measure}_{name}"): value for name, value in values.items()}
    return row, decoding.null["accuracy"].to_numpy()


def _decoders(found: _Gathered, folds: Folds, settings: Settings) -> pd.DataFrame:
    """All decoders; layer and head are missing where it is the decoder of a whole site, site too for all sites."""
    rows = [{"scope": "layer" if row["head"] is None else "head", **row} for row in found.decoded]
    for site, some in found.whole.items():
        rows.append({"scope": "site", "site": site, "layer": None, "head": None, **_decoded(some, folds, settings)[0]})
    everything = sum(list(found.whole.values())[1:], next(iter(found.whole.values())))
    rows.append({"scope": "all", "site": None, "layer": None, "head": None, **_decoded(everything, folds, settings)[0]})
    table = pd.DataFrame(rows).astype({"layer": "Int64", "head": "Int64"})
    for scope in ("layer", "head"):
        inside = table["scope"] == scope
        table.loc[inside, "accuracy_p_bh"] = correct(table.loc[inside, "accuracy_p"].to_numpy(float), "bh")
    return table


def _best(found: _Gathered) -> dict[str, float]:
    """The best layer's accuracy against the best layer's under the same shuffles: choosing it costs nothing then."""
    layers = [row["accuracy"] for row in found.decoded if row["head"] is None]
    null = np.max(np.stack(found.nulls), axis=0)
    best = max(layers)
    return {"accuracy": best, "null_mean": null.mean(), "p": float((1 + (null >= best).sum()) / (1 + len(null)))}


# corrections, shares, concordance


def _corrected(found: _Gathered, words: Words, settings: Settings) -> pd.DataFrame:
    """All units with the corrections over all of them."""
    table = pd.concat(found.tables, ignore_index=True)
    whole = {
        f"{name}_{method}": correct(table[name].to_numpy(float), method)
        for name in _tests(table)
        for method in CORRECTED
    }
    p = table[words.test].to_numpy(float)
    # the family-wise p of Westfall and Young: how often the smallest p of all units is as small under shuffled labels
    smallest = np.sort(np.min(np.stack(found.smallest), axis=0))
    reached = np.searchsorted(smallest, p * (1 + 1e-9), side="right")
    whole["p_permutation"] = np.where(np.isnan(p), np.nan, (1 + reached) / (1 + len(smallest)))
    whole["tuned"] = whole[f"{words.test}_bh"] <= settings.alpha
    return pd.concat([table, pd.DataFrame(whole)], axis=1)


def _shares(units: pd.DataFrame, found: _Gathered, settings: Settings) -> pd.DataFrame:
    """How many units are tuned by site, layer and head, with what shuffled labels give."""
    test = "paired_p" if units["paired_p"].notna().any() else "welch_p"
    frame = units.assign(
        separated=units["status"].isin(("separated", "quasi_separated")),
        tuned_bonferroni=units[f"{test}_bonferroni"] <= settings.alpha,
        tuned_layer=units[f"{test}_bh_layer"] <= settings.alpha,
        towards_1=units["tuned"] & (units["cohens_d"] > 0),
    )
    kinds = ["tuned", "tuned_bonferroni", "tuned_layer", "towards_1", "separated"]
    tables = []
    for scope, keys in (("layer", ["site", "layer"]), ("head", ["site", "layer", "head"])):
        rows = frame if scope == "layer" else frame[frame["head"].notna()]
        if not len(rows):
            continue
        grouped = rows.groupby(keys, sort=False, dropna=False)
        table = pd.concat([grouped.size().rename("units"), grouped[kinds].sum(), grouped[kinds].mean().add_prefix("share_")], axis=1)  # fmt: skip
        tables.append(table.reset_index().assign(scope=scope))
    shares = pd.concat(tables, ignore_index=True)
    null = pd.DataFrame([_spread(draws, len(t)) for draws, t in zip(found.null_tuned, found.tables, strict=True)])
    return pd.concat([shares, null], axis=1)  # the layers come first, in the places' order


def _spread(draws: Int[ndarray, " draws"], units: int) -> dict[str, float]:
    share = draws / units
    low, high = np.quantile(share, [0.025, 0.975])
    return {
        "null_share_layer_mean": float(share.mean()),
        "null_share_layer_low": float(low),
        "null_share_layer_high": float(high),
        "null_any_layer": float((draws > 0).mean()),
    }


def _whole_concordance(found: _Gathered, units: pd.DataFrame) -> list[tuple[Place | None, str, Any]]:
    """The concordance of each site over all layers, and of everything."""
    one = found.comparisons[0]
    rows: list[tuple[Place | None, str, Any]] = []
    for site, table in units.groupby("site", sort=False):
        rows.append(((str(site), None), "site", concordance(replace(one, table=table))))
    rows.append((None, "all", concordance(replace(one, table=units))))
    return rows


def _concordance_tables(rows: Sequence[tuple[Place | None, str, Any]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    tables: dict[str, list[pd.DataFrame]] = {"correlations": [], "agreement": []}
    for place, scope, found in rows:
        site, layer = place or (None, None)
        for name, parts in tables.items():
            frame: pd.DataFrame = getattr(found, name)
            parts.append(frame.assign(scope=scope, site=site, layer=pd.array([layer] * len(frame), dtype="Int64")))
    empty = pd.DataFrame()
    return tuple(pd.concat(parts, ignore_index=True) if parts else empty for parts in tables.values())  # pyright: ignore


# replication


def _replication(
    found: _Gathered,
    store: Store,
    words: Words,
    halves: Sequence[ndarray],
    settings: Settings,
    rng: np.random.Generator,
    progress: Progress,
) -> pd.DataFrame:
    """Selects on one half of the words (Benjamini-Hochberg over all units), tests on the other."""
    first, second = ([getattr(pair[side], name) for pair in found.halves] for side, name in ((0, "p"), (1, "p")))
    p_1, p_2 = np.concatenate(first), np.concatenate(second)
    d_1, d_2 = (np.concatenate([pair[side].d for pair in found.halves]) for side in (0, 1))
    selected = np.stack([correct(column, "bh") <= settings.alpha for column in p_1.T], axis=1)
    replicated = selected & (p_2 <= settings.alpha) & (np.sign(d_1) == np.sign(d_2))
    draws = -(-settings.permutations // len(halves))
    null = _replication_null(store, words, halves, selected, d_1, settings, draws, rng, progress)
    rows = [
        _split_row(*columns, null[:, number])
        for number, columns in enumerate(zip(selected.T, replicated.T, d_1.T, d_2.T, strict=True))
    ]
    return pd.DataFrame(rows).rename_axis("split").reset_index()


def _split_row(selected: ndarray, replicated: ndarray, d_1: ndarray, d_2: ndarray, null: ndarray) -> dict[str, float]:
    count = int(selected.sum())
    sign, size = np.sign(d_1[selected]), np.abs(d_1[selected])
    seen = np.where(np.isnan(d_2[selected]), 0.0, d_2[selected])
    return {
        "selected": count,
        "replicated": int(replicated.sum()),
        "rate": replicated.sum() / count if count else np.nan,
        "null_rate_mean": null.mean() / count if count else np.nan,
        "null_rate_high": np.quantile(null, 0.95) / count if count else np.nan,
        "p": (1 + (null >= replicated.sum()).sum()) / (1 + len(null)) if count else np.nan,
        "effect_selected": float(size.mean()) if count else np.nan,
        "effect_held_out": float((sign * seen).mean()) if count else np.nan,
        "shrinkage": 1 - (sign * seen).sum() / size.sum() if count else np.nan,
    }


def _replication_null(
    store: Store,
    words: Words,
    halves: Sequence[ndarray],
    selected: Bool[ndarray, "units splits"],
    d_1: Float[ndarray, "units splits"],
    settings: Settings,
    draws: int,
    rng: np.random.Generator,
    progress: Progress,
) -> Int[ndarray, "draws splits"]:
    """How many selected units replicate on the other half when its labels are shuffled."""
    shuffled = np.concatenate([_shuffled_outside(words, half, draws, rng) for half in halves], axis=1)
    outside = np.repeat(~np.stack(halves, axis=1), draws, axis=1)
    counts, start = np.zeros((len(halves), draws), dtype=np.int64), 0
    for place in progress(store.places, "replication null"):
        x = np.asarray(store[place])
        rows = slice(start, start + x.shape[1])
        start += x.shape[1]
        any_selected = selected[rows].any(1)
        if not any_selected.any():
            continue
        tested = _tested(x[:, any_selected], words, shuffled, outside)
        hit = (tested.p <= settings.alpha).reshape(-1, len(halves), draws)
        same = np.sign(tested.d).reshape(hit.shape) == np.sign(d_1[rows][any_selected])[:, :, None]
        counts += (hit & same & selected[rows][any_selected][:, :, None]).sum(0)
    return counts.T


def _shuffled_outside(words: Words, half: ndarray, draws: int, rng: np.random.Generator) -> ndarray:
    if words.pairs is not None:
        return _shuffles(words, rng, draws)
    columns = np.repeat(words.labels[:, None], draws, axis=1)
    for column in columns.T:
        column[~half] = rng.permutation(column[~half])
    return columns


# headline numbers


def _summary(
    units: pd.DataFrame,
    shares: pd.DataFrame,
    replication: pd.DataFrame,
    decoders: pd.DataFrame,
    correlations: pd.DataFrame,
    agreement: pd.DataFrame,
    strata: pd.DataFrame,
    words: Words,
    settings: Settings,
    best: Mapping[str, float],
) -> dict[str, Any]:
    layers = shares[shares["scope"] == "layer"]
    return {
        "test": words.test.removesuffix("_p"),
        "compared_units": len(units),
        "tuned_units": int(units["tuned"].sum()),
        "tuned_share": float(units["tuned"].mean()),
        "tuned_share_bonferroni": float((units[f"{words.test}_bonferroni"] <= settings.alpha).mean()),
        "tuned_share_permutation": float((units["p_permutation"] <= settings.alpha).mean()),
        "null_tuned_share_layer": float(np.average(layers["null_share_layer_mean"], weights=layers["units"])),
        "separated_units": int(units["status"].isin(("separated", "quasi_separated")).sum()),
        "by_site": _by_site(units),
        "replication": _replication_summary(replication),
        "decoder": _decoder_summary(decoders, best),
        "concordance": _concordance_summary(correlations, agreement),
        "subtokens": _strata_summary(strata, units),
    }


def _by_site(units: pd.DataFrame) -> dict[str, Any]:
    return {
        str(site): {"units": len(rows), "tuned": int(rows["tuned"].sum()), "share": float(rows["tuned"].mean())}
        for site, rows in units.groupby("site", sort=False)
    }


def _replication_summary(replication: pd.DataFrame) -> dict[str, Any]:
    rates = replication["rate"].dropna()
    if not len(rates):
        return {"splits": len(replication), "selected": 0.0, "rate": None}
    columns = ("selected", "rate", "null_rate_mean", "effect_selected", "effect_held_out", "shrinkage")
    means = {name: float(replication.loc[rates.index, name].mean()) for name in columns}
    return {"splits": len(replication), **means, "rate_low": float(rates.min()), "rate_high": float(rates.max())}


def _decoder_summary(decoders: pd.DataFrame, best: Mapping[str, float]) -> dict[str, Any]:
    names = {"accuracy": "accuracy", "accuracy_null_mean": "null_mean", "accuracy_null_low": "null_low"}
    names |= {"accuracy_null_high": "null_high", "accuracy_p": "p"}
    layers = decoders[decoders["scope"] == "layer"].reset_index(drop=True)
    top = layers.loc[int(np.argmax(layers["accuracy"].to_numpy()))]
    where = {"site": str(top["site"]), "layer": None if pd.isna(top["layer"]) else int(top["layer"])}
    whole = decoders[decoders["scope"] == "all"].iloc[0]
    above = int((layers["accuracy_p_bh"] <= 0.05).sum())
    found = {"all": {short: float(whole[name]) for name, short in names.items()}}
    return {**found, "best_layer": {**where, **best}, "layers": len(layers), "layers_above_chance": above}


def _concordance_summary(correlations: pd.DataFrame, agreement: pd.DataFrame) -> dict[str, Any]:
    if not len(correlations):
        return {}
    r = correlations.query("scope == 'all' and units == 'overlapping' and x == 'student_t' and y == 'logit_coef_std'")
    same = agreement.query("scope == 'all' and units == 'overlapping' and t_test == 'student' and logistic == 'logit_lr'")
    rows = same.set_index("level")
    return {
        "units": int(r["n"].iloc[0]),
        "pearson": float(r["pearson"].iloc[0]),
        "spearman": float(r["spearman"].iloc[0]),
        **{f"agreement_{level}": float(rows.loc[level, "agreement"]) for level in ("raw", "bonferroni", "bh")},  # pyright: ignore
        **{f"kappa_{level}": float(rows.loc[level, "kappa"]) for level in ("raw", "bonferroni", "bh")},  # pyright: ignore
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
    parts = [
        f"{tuned} of {units} units ({summary['tuned_share']:.1%}) tell {first} from {second} (Benjamini-Hochberg "
        f"{alpha:g} over all of them; {summary['tuned_share_permutation']:.1%} family-wise, by permutation). Under shuffled "
        f"labels, corrected per layer, {summary['null_tuned_share_layer']:.2%} are."
    ]
    parts += [_said_of_replication(summary["replication"], alpha), _said_of_decoder(summary["decoder"])]
    found = summary["concordance"]
    if found:
        parts.append(
            f"t and the standardised β correlate at {found['pearson']:.4f} over {found['units']} overlapping units; t-test "
            f"and likelihood-ratio test agree on {found['agreement_raw']:.1%} of them uncorrected and on "
            f"{found['agreement_bh']:.1%} corrected; {summary['separated_units']} units are separated."
        )
    return " ".join(parts)


def _said_of_replication(found: Mapping[str, Any], alpha: float) -> str:
    if found["rate"] is None:
        return "Null result: half of the words select no unit, so there is nothing to replicate."
    return (
        f"Half of the words selects {found['selected']:.0f} units on average, of which {found['rate']:.1%} replicate on the "
        f"other half (same direction, p ≤ {alpha:g}; chance {found['null_rate_mean']:.1%}; {found['splits']} splits, "
        f"{found['rate_low']:.1%} to {found['rate_high']:.1%}); effects shrink by {found['shrinkage']:.1%}."
    )


def _said_of_decoder(found: Mapping[str, Any]) -> str:
    whole, best = found["all"], found["best_layer"]
    place = best["site"] if best["layer"] is None else f"{best['site']}.{best['layer']}"
    verdict = "" if whole["p"] <= 0.05 else "Null result: "
    return (
        f"{verdict}A decoder over all units is right on {whole['accuracy']:.1%} of held-out words (shuffled labels: "
        f"{whole['null_mean']:.1%}, 95 %: {whole['null_low']:.1%} to {whole['null_high']:.1%}, p = {whole['p']:.2g}); the best "
        f"layer, {place}, on {best['accuracy']:.1%} (best of the shuffled: {best['null_mean']:.1%}, p = {best['p']:.2g}); "
        f"{found['layers_above_chance']} of {found['layers']} layers are above chance."
    )
