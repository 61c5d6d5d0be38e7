"""Findings: each measured claim as a row of data, the observed number beside its null, its p, and what it reads as."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from math import isnan, nan
from typing import Any, cast

import pandas as pd

from actmax.evidence.pairs import Alternative
from actmax.evidence.readings import MeaningStatus, Reading, read
from actmax.evidence.settings import ALPHA, CLAIMS, TRIED
from actmax.model.target import TARGET, Target, target_of_row

Row = Mapping[Any, Any]
"""The numbers of one unit by name: a row of `units.parquet`, or the `summary.json` of a job on one unit."""


class Measure(StrEnum):
    """What was measured. Those of a unit are called like their column in `units.parquet`."""

    SHARED_TOKENS = "shared_tokens"
    """Share of tokens that two restarts have in common, beside what they would have by chance."""
    OWN_TOKENS = "own_tokens"
    """The same over the seeds that the units share, beside what any units' restarts have in common."""
    DIRECTION = "direction"
    """Mean cosine of two restarts' moves over all pairs of positions, beside that of any units' restarts."""
    UNIQUE_TOKENS = "tokens_unique"
    """Different tokens, beside those of random moves; of a search beside random tokens."""
    NEAREST_COSINE = "cosine_mean"
    """Mean cosine to the nearest token, beside that of random moves, restart by restart."""
    RETENTION = "init_retention"
    """Share of positions that still decode to the token of their start, beside random moves or random tokens."""
    OPTIMUM = "activation_final_mean"
    """Mean activation of the optima, beside means of as many random token sequences."""
    SNAPPED = "activation_snapped_mean"
    """Mean activation once snapped to tokens, beside means of as many random token sequences."""
    TRANSFER_NONE = "transfer_none_mean"
    """Mean activation of the tokens with nothing before them, beside means of as many random token sequences there."""
    TRANSFER_BOS = "transfer_bos_mean"
    """Mean activation of the tokens behind begin-of-text, beside means of as many random token sequences there."""
    TRANSFER_TEXT = "transfer_text_mean"
    """Mean activation of the tokens in windows of real text, beside means of as many random token sequences there."""
    MEANING = "meaning"
    """Mean similarity of two restarts' texts in a space of meaning, beside that of texts by chance."""
    MEANING_APART = "meaning_apart"
    """The same where of every two texts the tokens are left out that both hold."""
    OWN_MEANING = "own_meaning"
    """The same over the seeds that the units share, beside how alike any units' restarts are."""
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
    """Lower end of the null's interval at the level `alpha`; NaN where it has none, as in a test for more."""
    null_high: float
    """Upper end of that interval; NaN where it has none, as in a test for less."""
    p: float
    """p of the observed number, from the same draws as the interval; NaN where there is none."""
    alpha: float
    """Level that p is held against, corrected for the other claims on the unit."""
    alternative: Alternative
    """The side on which p looks: `two-sided`, `greater` or `less`."""
    draws: int | None
    """Number of draws of the null; 0 where it is exact, None where it is not known."""
    effect: float
    """Observed number minus the null's mean; in a simulation the simulated effect, in standard deviations."""
    reading: Reading
    """Where the observed number lies to the null's interval."""
    claimed: bool
    """Whether p is at most alpha, and so the observed number outside of the interval: what words may claim."""
    smallest_p: float = nan
    """The smallest p that so many draws can give; NaN where that is not known."""
    target: str | None = None
    """Name of the direction; None where the finding is about a unit, or about none."""

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, enum members as their values: an object of `findings` in `summary.json`.

        `target` is left out where it is None.
        """
        found = {name: value.value if isinstance(value, StrEnum) else value for name, value in asdict(self).items()}
        if self.target is None:
            found.pop(TARGET)
        return found


COLUMNS = {field.name: "object" for field in fields(Finding) if field.name != TARGET}
COLUMNS |= dict.fromkeys(
    ("observed", "null_mean", "null_low", "null_high", "p", "alpha", "effect", "smallest_p"), "float64"
)
COLUMNS |= dict.fromkeys(("layer", "index", "draws"), "Int64") | {"claimed": "bool"}
"""The columns of `findings.parquet` in order, with their types."""


def findings_table(findings: Iterable[Finding]) -> pd.DataFrame:
    """Findings as a table, a row each, with the same columns and types; `target` besides, where one has a direction.

    Example:
        >>> len(findings_table([])), str(findings_table([]).dtypes["layer"])
        (0, 'Int64')
    """
    rows = [finding.as_dict() for finding in findings]
    columns = COLUMNS | ({TARGET: "object"} if any(TARGET in row for row in rows) else {})
    return pd.DataFrame(rows, columns=list(columns)).astype(columns)


def findings_of(rows: pd.DataFrame | Sequence[Row]) -> tuple[Finding, ...]:
    """The findings that `findings_table` made a table of, or that a `summary.json` lists."""
    return tuple(map(_finding, rows.to_dict("records") if isinstance(rows, pd.DataFrame) else rows))


def _finding(row: Row) -> Finding:
    values = {name: None if is_missing(value) else value for name, value in row.items() if name in (*COLUMNS, TARGET)}
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
    unit: Target | None = None,
) -> Finding:
    """A finding from its numbers.

    Args:
        measure: what was measured.
        observed: the measured number.
        null: mean, lower and upper end of the null's interval at the level alpha.
        p: p from the same draws.
        alpha: level that p is held against.
        alternative: the side on which p and the interval look.
        draws: number of draws of the null.
        effect: size of the effect; None for the observed number minus the null's mean.
        unit: the unit that it is about; None where it is not about one.
    """
    mean, low, high = map(float, null)
    effect = observed - mean if effect is None else effect
    address = (None, None, None) if unit is None else (unit.site, unit.layer, unit.index)
    numbers = (float(observed), mean, low, high, float(p), float(alpha))
    found = (alternative, draws, float(effect), read(observed, low, high), bool(p <= alpha))
    smallest = (2 if alternative == "two-sided" else 1) / (draws + 1) if draws else nan
    name = None if unit is None else unit.columns().get(TARGET)
    return Finding(measure, *address, *numbers, *found, smallest, name)


UNIT_MEASURES: dict[str, tuple[Measure, Alternative | None]] = {
    "shared_tokens": (Measure.SHARED_TOKENS, "greater"),
    "own_tokens": (Measure.OWN_TOKENS, "greater"),
    "direction": (Measure.DIRECTION, "greater"),
    "unique": (Measure.UNIQUE_TOKENS, "two-sided"),
    "cosine": (Measure.NEAREST_COSINE, "two-sided"),
    "retention": (Measure.RETENTION, "two-sided"),
    "final": (Measure.OPTIMUM, None),
    "snapped": (Measure.SNAPPED, None),
    "meaning": (Measure.MEANING, "greater"),
    "meaning_apart": (Measure.MEANING_APART, "greater"),
    "own_meaning": (Measure.OWN_MEANING, "greater"),
    "transfer_none": (Measure.TRANSFER_NONE, None),
    "transfer_bos": (Measure.TRANSFER_BOS, None),
    "transfer_text": (Measure.TRANSFER_TEXT, None),
}
"""The measures of a unit by the name of their null in its row, and on which side they are looked for; None: on that of
the objective, `gap_alternative`."""


def unit_findings(row: Row) -> tuple[Finding, ...]:
    """The findings on one unit, from its row: the claims of the declared rule, tested or not, and those on transfer.

    Whether shared tokens are the unit's own is asked only where they are above chance. Whether tokens work in other
    contexts, and whether restarts agree in meaning, are questions of their own, each with a level of its own.
    """
    row = known(row)
    names = [name for name in UNIT_MEASURES if name in CLAIMS[row["null_of_ends"]]]
    if not is_missing(row["own_tokens"]):
        names.insert(1, "own_tokens")
    carried = [f"transfer_{name}" for name in elsewhere(row)]
    return (
        *(_unit_finding(row, name) for name in names),
        *meaning_findings(row),
        *(_unit_finding(row, name) for name in carried),
    )


def meaning_findings(row: Row) -> tuple[Finding, ...]:
    """The findings on what a unit's texts are about, from its row; none where that was not judged."""
    row = known(row)
    if row.get("meaning_status") != MeaningStatus.OK:
        return ()
    names = ["meaning", *(name for name in ("meaning_apart", "own_meaning") if not is_missing(row.get(name)))]
    return tuple(_unit_finding(row, name) for name in names)


def elsewhere(row: Row) -> list[str]:
    """The contexts, but the one that a unit's tokens were found in, in which they were tried."""
    own = row.get("transfer_own")
    return [name for name in TRIED if name != own and not is_missing(row.get(f"transfer_{name}_mean"))]


def _unit_finding(row: Row, name: str) -> Finding:
    """A finding from the columns of its measure and its null."""
    measure, side = UNIT_MEASURES[name]
    null = {part: row[f"null_{name}_{part}"] for part in ("mean", "low", "high", "p", "alpha", "draws")}
    ends = [null[part] for part in ("mean", "low", "high")]
    options: dict[str, Any] = {"p": null["p"], "alpha": null["alpha"], "alternative": side or row["gap_alternative"]}
    unit = target_of_row(row) if "site" in row else None
    return finding(measure, row[measure], ends, unit=unit, draws=int(null["draws"]), **options)
