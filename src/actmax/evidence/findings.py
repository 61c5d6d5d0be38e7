"""Findings: each measured claim as a row of data, the observed number beside its null, its p, and what it reads as."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from math import isnan, nan
from typing import Any, cast

import pandas as pd

from actmax.evidence.nulls import RANDOM_MOVES
from actmax.evidence.pairs import Alternative
from actmax.evidence.readings import OwnStatus, Reading, read
from actmax.model.target import Unit

ALPHA = 0.05
"""Level of the findings whose interval is the 95 % interval of their null, and that have no level of their own."""
Row = Mapping[Any, Any]
"""The numbers of one unit by name: a row of `units.parquet`, or the `summary.json` of a job on one unit."""


class Measure(StrEnum):
    """What was measured. Those of a unit are called like their column in `units.parquet`."""

    SHARED_TOKENS = "jaccard"
    """Mean pairwise Jaccard similarity of the restarts' token sets, beside their null; its p is Holm's."""
    ALIGNED_MOVES = "displacement_cosine_assigned"
    """Mean pairwise cosine of the restarts' displacements, positions matched, beside their null; its p is Holm's."""
    OWN_TOKENS = "own_contrast_tokens"
    """Shared tokens within the unit's restarts minus those with other units' restarts; its p is Holm's, then BH's."""
    OWN_MOVES = "own_contrast_embeddings"
    """Aligned moves within the unit's restarts minus those with other units' restarts; its p is Holm's, then BH's."""
    UNIQUE_TOKENS = "tokens_unique"
    """Different tokens, beside decoded random vectors; of a search beside random tokens."""
    NEAREST_COSINE = "cosine_mean"
    """Mean cosine to the nearest token, beside decoded random vectors."""
    RETENTION = "init_retention"
    """Share of positions that still decode to the token of their start, beside random moves or random tokens."""
    OPTIMUM = "activation_final_mean"
    """Mean activation of the optima, beside random token sequences."""
    SNAPPED = "activation_snapped_mean"
    """Mean activation once snapped to tokens, beside random token sequences."""
    TUNED_SHARE = "tuned_share_layer"
    """Share of units that tell two categories of words apart, corrected per layer, beside shuffled labels."""
    REPLICATION_RATE = "replication_rate"
    """Share of the units selected on half of the words that replicate on the other half, beside shuffled labels."""
    DECODER_ACCURACY = "decoder_accuracy"
    """Accuracy of a decoder over all units on held-out words, beside shuffled labels."""
    STUDENT_REJECTIONS = "student_rejection_rate"
    """Share of simulated units that Student's t-test rejects, beside its level; `effect` is the simulated one."""
    WALD_REJECTIONS = "wald_rejection_rate"
    """Share of simulated units that Wald's test of the logistic coefficient rejects, beside its level."""


@dataclass(frozen=True)
class Finding:
    """One measured claim: a number beside its null, its p, and how it reads."""

    measure: Measure
    """The number that was measured."""
    site: str | None
    """Site of the unit; None where the finding is not about one unit."""
    layer: int | None
    """Layer of the unit; None where it has none, or where the finding is not about one unit."""
    index: int | None
    """Coordinate of the unit; None where the finding is not about one unit."""
    observed: float
    """The measured number; NaN where it does not exist."""
    null_mean: float
    """Mean of what the measure gives where nothing is there."""
    null_low: float
    """Lower end of the null's 95 % interval; NaN where it is not known."""
    null_high: float
    """Upper end of the null's 95 % interval; NaN where it is not known."""
    p: float
    """Corrected p of the observed number; NaN where there is none."""
    alpha: float
    """Level that p is held against."""
    alternative: Alternative
    """The side on which p looks: `two-sided`, `greater` or `less`."""
    draws: int | None
    """Number of draws of the null; 0 where it is exact, None where it is not known."""
    effect: float
    """Observed number minus the null's mean; in a simulation the simulated effect, in standard deviations."""
    reading: Reading
    """Where the observed number lies to the null's interval."""
    claimed: bool
    """Whether the words that show this finding claim it."""

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, enum members as their values: an object of `findings` in `summary.json`."""
        return {name: value.value if isinstance(value, StrEnum) else value for name, value in asdict(self).items()}


COLUMNS = {field.name: "object" for field in fields(Finding)}
COLUMNS |= dict.fromkeys(("observed", "null_mean", "null_low", "null_high", "p", "alpha", "effect"), "float64")
COLUMNS |= dict.fromkeys(("layer", "index", "draws"), "Int64") | {"claimed": "bool"}
"""The columns of `findings.parquet` in order, with their types."""


def findings_table(findings: Iterable[Finding]) -> pd.DataFrame:
    """Findings as a table, a row each, with the same columns and types whatever the findings.

    Example:
        >>> len(findings_table([])), str(findings_table([]).dtypes["layer"])
        (0, 'Int64')
    """
    return pd.DataFrame([finding.as_dict() for finding in findings], columns=list(COLUMNS)).astype(COLUMNS)


def findings_of(rows: pd.DataFrame | Sequence[Row]) -> tuple[Finding, ...]:
    """The findings that `findings_table` made a table of, or that a `summary.json` lists."""
    return tuple(map(_finding, rows.to_dict("records") if isinstance(rows, pd.DataFrame) else rows))


def _finding(row: Row) -> Finding:
    values = {name: None if is_missing(value) else value for name, value in row.items() if name in COLUMNS}
    values |= {name: nan for name, kind in COLUMNS.items() if kind == "float64" and values[name] is None}
    values |= {"measure": Measure(row["measure"]), "reading": Reading(row["reading"])}
    return Finding(**cast("dict[str, Any]", values))


def known(row: Row) -> dict[str, Any]:
    """A row with NaN for every number that is missing in whatever way: None, NA or NaN."""
    return {str(name): nan if is_missing(value) else value for name, value in row.items()}


def is_missing(value: Any) -> bool:
    """Whether there is no value: None, NA or NaN."""
    return value is None or value is pd.NA or (isinstance(value, float) and isnan(value))


def finding(
    measure: Measure,
    observed: float | int,
    null: Sequence[float | int],
    *,
    p: float | int = nan,
    alpha: float | int = ALPHA,
    alternative: Alternative = "two-sided",
    draws: int | None = None,
    effect: float | int | None = None,
    unit: Unit | None = None,
    claims: Sequence[Reading] | bool | None = None,
) -> Finding:
    """A finding from its numbers.

    Args:
        measure: what was measured.
        observed: the measured number.
        null: mean, lower and upper end of the null's interval.
        p: corrected p.
        alpha: level that p is held against.
        alternative: the side on which p looks.
        draws: number of draws of the null.
        effect: size of the effect; None for the observed number minus the null's mean.
        unit: the unit that it is about; None where it is not about one.
        claims: the readings at which it is claimed, or whether it is; None where it is claimed if p is at most alpha.
    """
    mean, low, high = map(float, null)
    reading = read(observed, low, high)
    claimed = p <= alpha if claims is None else claims if isinstance(claims, bool) else reading in claims
    effect = observed - mean if effect is None else effect
    address = (None, None, None) if unit is None else (unit.site, unit.layer, unit.index)
    numbers = (float(observed), mean, low, high, float(p), alpha)
    return Finding(measure, *address, *numbers, alternative, draws, float(effect), reading, bool(claimed))


def unit_findings(row: Row) -> tuple[Finding, ...]:
    """The findings on one unit, from its row.

    What is claimed of the agreement of restarts and of the optimum goes by p, as the verdict and the decode gap do.
    What is claimed of unique tokens, their cosine and the retention goes by the side of the null's interval on which
    they lie. Of a search's tokens, and of the snapped activation, the words give p and claim nothing.
    """
    row = known(row)
    return (*_agreement(row), *_own(row), *_tokens(row), *_gap(row))


def _unit_finding(row: Row, measure: Measure, null: str, **options: Any) -> Finding:
    """A finding from the columns of its measure and its null; p is the null's where no other is given."""
    unit = Unit.of_row(row) if "site" in row else None
    ends = [row[f"null_{null}_{part}"] for part in ("mean", "low", "high")]
    options = {"p": row.get(f"null_{null}_p", nan), **options, "draws": int(options["draws"])}
    return finding(measure, row[measure], ends, unit=unit, **options)


def _agreement(row: Row) -> list[Finding]:
    """Above chance: one p per space, by Holm over the two."""
    spaces = {"tokens": Measure.SHARED_TOKENS, "embeddings": Measure.ALIGNED_MOVES}
    options = {"alpha": row["convergence_alpha"], "alternative": "greater", "draws": row["end_draws"]}
    return [
        _unit_finding(row, measure, measure.value, p=row[f"convergence_p_{space}"], **options)
        for space, measure in spaces.items()
    ]


def _own(row: Row) -> list[Finding]:
    """This unit's own: asked in a space where other units are there to compare with, and the unit is above chance."""
    spaces = {"tokens": Measure.OWN_TOKENS, "embeddings": Measure.OWN_MOVES}
    alpha = row["convergence_alpha"]
    asked = {space: row["own"] == OwnStatus.OK and row[f"convergence_p_{space}"] <= alpha for space in spaces}
    options = {"alpha": alpha, "alternative": "greater", "draws": row["own_draws"]}
    return [
        _unit_finding(row, measure, measure.value, p=row[f"own_p_{space}"], **options)
        for space, measure in spaces.items()
        if asked[space]
    ]


def _tokens(row: Row) -> list[Finding]:
    """What the restarts' tokens are beside chance."""
    if row["null_of_ends"] != RANDOM_MOVES:
        searched: dict[str, Any] = {"draws": row["end_draws"], "claims": False}
        return [
            _unit_finding(row, Measure.UNIQUE_TOKENS, "displaced_unique", **searched),
            _unit_finding(row, Measure.RETENTION, "retention", **searched),
        ]
    pool, sides = row["pool_draws"], (Reading.BELOW, Reading.ABOVE)
    return [
        _unit_finding(row, Measure.UNIQUE_TOKENS, "unique", draws=pool, claims=[Reading.BELOW]),
        _unit_finding(row, Measure.NEAREST_COSINE, "cosine", draws=pool, claims=[Reading.ABOVE]),
        _unit_finding(row, Measure.RETENTION, "retention", draws=row["end_draws"], claims=sides),
    ]


def _gap(row: Row) -> list[Finding]:
    """The activation on its way to text."""
    draws = row["text_draws"]
    return [
        _unit_finding(row, Measure.OPTIMUM, "final", draws=draws),
        _unit_finding(row, Measure.SNAPPED, "snapped", draws=draws, claims=False),
    ]
