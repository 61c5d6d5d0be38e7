"""Sentences: the only module that makes them, from numbers and enum members, when something is shown.

A unit's row is a mapping with the columns of `units.parquet`, from a live result, a table of a record, or the
`summary.json` of a job on one unit; a number that does not exist may be NaN, None or NA.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum
from math import isnan, nan
from typing import Any

import pandas as pd

from actmax.evidence.findings import Finding, Measure, elsewhere, known
from actmax.evidence.gap import STAGES
from actmax.evidence.own import MOST_UNITS
from actmax.evidence.readings import (
    VERDICTS,
    Answer,
    DecisionStatus,
    GapEnd,
    MeaningStatus,
    NeighbourStatus,
    OwnStatus,
    Reading,
    Transfer,
    Verdict,
)
from actmax.evidence.settings import ALPHA, SINK
from actmax.model.target import place_name, target_of_row
from actmax.report.blocks import join, number, visible
from actmax.stats.sizes import Caution
from actmax.stats.t_and_logit import SEPARATED

Row = Mapping[Any, Any]
"""The numbers of one unit, or another object of a record, by name."""

LABELS: dict[StrEnum, str] = {
    Verdict.DETECTABLE: "detectable, not the same answer",
    GapEnd.SNAP: "at the snap",
    GapEnd.RETOKENISE: "at the tokenizer",
}
"""Words of enum members whose value is not their words."""
OF_TOKENS = {
    Verdict.REPRODUCIBLE: "Other starts end at the same tokens, and those of other units do not.",
    Verdict.PARTLY: "Other starts end at some of the same tokens, more than those of other units do.",
    Verdict.DETECTABLE: "Other starts share more tokens than chance, and than those of other units, but too few to "
    "call the answers the same.",
    Verdict.SHARED: "Other starts share more tokens than chance, but no more than those of other units do.",
    Verdict.CHANCE: "Other starts share no more tokens than chance.",
}
"""What the verdict on a unit's tokens says."""
OF_MOVES = {
    Verdict.REPRODUCIBLE: "In embedding space they move the same way, and those of other units do not.",
    Verdict.PARTLY: "In embedding space they move partly the same way, more than those of other units do.",
    Verdict.DETECTABLE: "In embedding space they have a direction in common that other units have not, but they do not "
    "move the same way.",
    Verdict.SHARED: "In embedding space they move alike, but no more than those of other units do.",
    Verdict.CHANCE: "In embedding space they have no more of a direction in common than those of other units.",
    Verdict.NOT_JUDGED: "Whether they move more alike than those of other units was not tested",
}
"""What the verdict on a unit's moves says."""
OF_MEANING = {
    Verdict.REPRODUCIBLE: "In meaning {they} are the same, and those of other units are not.",
    Verdict.PARTLY: "In meaning {they} are partly the same, more than those of other units are.",
    Verdict.DETECTABLE: "In meaning {they} are more alike than chance, and than those of other units.",
    Verdict.SHARED: "In meaning {they} are more alike than chance, but no more than those of other units are.",
    Verdict.CHANCE: "In meaning {they} are no more alike than chance.",
}
"""What the verdict on what a unit's restarts are about says."""
ENDINGS = {
    GapEnd.NOT_TESTED: "",
    GapEnd.NO_GAIN: "The optimum itself is not beyond random tokens.",
    GapEnd.SNAP: "As text the optimum is not beyond random tokens.",
    GapEnd.RETOKENISE: "As tokens the optimum is beyond random tokens, as text that is tokenised again it is not.",
    GapEnd.SURVIVES: "As text the optimum is still beyond random tokens.",
}
"""How far the gain is carried on its way to text."""
ELSEWHERE = {"none": "with nothing before them", "bos": "behind begin-of-text", "text": "in real text"}
"""Where tokens are tried, in words."""
TRANSFER_WORDS = {
    Transfer.EVERYWHERE: "They work elsewhere: beyond random tokens everywhere, and at least half is established.",
    Transfer.IN_PART: "They work in some of these contexts: beyond random tokens, and at least half is established.",
    Transfer.NOWHERE: "They do not carry over: nowhere is at least half established beyond random tokens.",
    Transfer.NOT_TESTED: "Whether that is at least half is not tested: it takes three restarts.",
}
"""What the reading of transfer says."""
CLAIM_WORDS: dict[Measure, tuple[str, str, str]] = {
    Measure.SHARED_TOKENS: ("less than chance", "no more than chance", "more than chance"),
    Measure.OWN_TOKENS: ("less than others", "no more than others", "its own"),
    Measure.DIRECTION: ("less than others", "no more than others", "its own"),
    Measure.UNIQUE_TOKENS: ("fewer than chance", "as many as chance", "more than chance"),
    Measure.NEAREST_COSINE: ("further than chance", "as near as chance", "nearer than chance"),
    Measure.RETENTION: ("fewer than chance", "as many as chance", "more than chance"),
    Measure.MEANING: ("less than chance", "no more than chance", "more than chance"),
    Measure.MEANING_APART: ("less than chance", "no more than chance", "more than chance"),
    Measure.OWN_MEANING: ("less than others", "no more than others", "its own"),
    Measure.OPTIMUM: ("below chance", "not beyond chance", "above chance"),
    Measure.SNAPPED: ("below chance", "not beyond chance", "above chance"),
    **dict.fromkeys(
        (Measure.TRANSFER_NONE, Measure.TRANSFER_BOS, Measure.TRANSFER_TEXT),
        ("below chance", "not beyond chance", "above chance"),
    ),
}
"""How a finding on a unit reads below, inside and above the interval of its null."""


def label(member: StrEnum) -> str:
    """An enum member in words.

    Example:
        >>> label(Verdict.DETECTABLE), label(Verdict.NOT_JUDGED)
        ('detectable, not the same answer', 'not judged')
    """
    return LABELS.get(member, member.value.replace("_", " "))


def one_line(summary: Row) -> str:
    """The result of a job on units in one line, from its `summary.json`."""
    if summary["units"] != 1:
        return restarts_statement(summary)
    row = known(summary)
    change = f"{row['activation_initial_mean']:.4g} → {row['activation_final_mean']:.4g}"
    shared = f"{row['shared_tokens']:.1%} of tokens shared (null {row['null_shared_tokens_mean']:.1%})"
    text = f"{row['activation_snapped_mean']:.3g} as text (random tokens {row['random_activation_mean']:.3g})"
    return f"{answer_word(row)}, {label(Verdict(row['verdict']))}: activation {change}, {text}, {shared}"


def restarts_statement(summary: Row) -> str:
    """What a job on units found, from its `summary.json`: all of one unit, the shares of verdicts over several."""
    if summary["units"] != 1:
        return verdict_shares(summary["verdicts"])
    return f"{rise(summary)} {unit_answer(summary)}"


# units


def answer_word(row: Row) -> str:
    """The headline in a word or two: whether another start gives the same answer."""
    return label(Answer(row["answer"])).capitalize()


def rise(row: Row) -> str:
    """How far the activation rose, and how many restarts went non-finite."""
    change = f"from {row['activation_initial_mean']:.4g} to {row['activation_final_mean']:.4g}"
    restarts = row["restarts"]
    return join([f"The mean activation over {restarts} restart{'s'[: restarts > 1]} went {change}.", lost(row)])


def lost(row: Row) -> str:
    """How many restarts of a unit are missing, for they went non-finite; nothing where none did."""
    count = int(row["restarts_frozen"])
    if DecisionStatus(row["verdict_status"]) == DecisionStatus.NON_FINITE:
        return f"All {count} restarts went non-finite, and stand at their best finite embedding: nothing is judged."
    return f"{count} more went non-finite and count{'s'[: count == 1]} as missing." if count else ""


def unit_answer(row: Row) -> str:
    """The answer on one unit in plain words: whether other starts end alike, and what is left as text."""
    row = known(row)
    tokens, moves = Verdict(row["verdict_tokens"]), Verdict(row["verdict_embeddings"])
    nothing = DecisionStatus.ONE_RESTART, DecisionStatus.NON_FINITE, DecisionStatus.TOO_FEW_DRAWS
    untested = DecisionStatus(row["verdict_status"]) in nothing
    of_tokens = OF_TOKENS.get(tokens, "") or f"{_obstacle(row)}."
    of_moves = OF_MOVES[moves] + (f": {_own_obstacle(row)}." if moves == Verdict.NOT_JUDGED else "")
    parts = [of_tokens, "" if untested else of_moves, meaning_statement(row), ENDINGS[GapEnd(row["gap"])]]
    return join([f"{answer_word(row)}.", *parts])


def meaning_statement(row: Row, they: str = "they") -> str:
    """Whether a unit's restarts agree in what they are about; nothing where that was not measured.

    Args:
        row: a row of `units.parquet`, or the `summary.json` of a job on one unit.
        they: what is compared, where no sentence before says it.
    """
    row = known(row)
    if row.get("meaning_status") != MeaningStatus.OK:
        return ""
    verdict, only = Verdict(row["verdict_meaning"]), _only_shared(row)
    if verdict == Verdict.NOT_JUDGED and row["null_meaning_p"] <= row["null_meaning_alpha"]:
        tested = "whether those of other units are as well was not tested"
        return join([f"In meaning {they} are more alike than chance; {tested}.", only])
    return join([OF_MEANING.get(verdict, "").format(they=they), only])


def _only_shared(row: Row) -> str:
    """That texts are alike in the tokens that they share alone; nothing where they are alike apart from these too."""
    apart = row.get("null_meaning_apart_p", nan)
    if isnan(apart) or row["null_meaning_p"] > row["null_meaning_alpha"] or apart <= row["null_meaning_apart_alpha"]:
        return ""
    return "Less the tokens in common they are no more alike than chance."


def meaning_obstacle(row: Row) -> str:
    """Why it was not measured what a unit's restarts are about; nothing where it was.

    Args:
        row: a row of `units.parquet`, or the `summary.json` of a job on one unit.
    """
    return {
        MeaningStatus.EXTRA_MISSING: "not measured: pip install 'actmax[meaning]'",
        MeaningStatus.ONE_RESTART: "not measured: one restart has no pairs",
        MeaningStatus.UNKNOWN_PIECES: f"not judged: {row.get('meaning_unknown', nan):.0%} of the pieces are unknown",
    }.get(MeaningStatus(row["meaning_status"]), "")


def units_answer(units: pd.DataFrame) -> str:
    """The answer on one unit, or how many of several units have which verdict, and stay beyond random tokens as text.

    Args:
        units: `units.parquet`, without control units.
    """
    if len(units) == 1:
        return unit_answer(units.iloc[0].to_dict())
    counts, ends = Counter(units["verdict"]), Counter(units["gap"])
    parts = [f"{counts[verdict]} {label(verdict)}" for verdict in (*VERDICTS, Verdict.NOT_JUDGED) if counts[verdict]]
    gone = int(units["restarts_frozen"].to_numpy(int).sum())
    return (
        f"Of {len(units)} units: {'; '.join(parts)}. As text {ends[GapEnd.SURVIVES]} of them are still beyond random "
        "tokens."
    ) + f" {gone} restarts went non-finite and count as missing." * bool(gone)


def _obstacle(row: Row) -> str:
    """Why tokens could not be judged."""
    alpha = row["null_shared_tokens_alpha"]
    return {
        DecisionStatus.ONE_RESTART: "One restart has no pairs",
        DecisionStatus.NON_FINITE: "There is no restart whose numbers are finite",
        DecisionStatus.TOO_FEW_DRAWS: f"{row['null_shared_tokens_draws']:.0f} draws cannot give a p of {alpha:.2g} or "
        "less (nulls.draws)",
        DecisionStatus.OTHER_UNITS_NOT_TESTED: "Other starts share more tokens than chance; whether those of other "
        f"units share as many was not tested: {_own_obstacle(row)}",
    }[DecisionStatus(row["verdict_status"])]


def _own_obstacle(row: Row) -> str:
    """Why a unit's restarts could not be set against those of other units."""
    units, seeds = row["own_units"], row["own_seeds"]
    return {
        OwnStatus.ONE_UNIT: "there is no other unit (controls=2 adds two)",
        OwnStatus.ONE_SEED: "one seed has no pairs",
        OwnStatus.NO_SHARED_SEEDS: "the units share fewer than two seeds",
        OwnStatus.TOO_MANY_UNITS: f"{units} units, and above {MOST_UNITS} it takes too much memory",
        OwnStatus.OUT_OF_REACH: f"{units} units x {seeds} seeds cannot give a small enough p (more seeds do)",
    }[OwnStatus(row["own"])]


def claim_words(one: Finding) -> str:
    """How a finding on a unit reads: the words claim something exactly where the finding does."""
    if one.reading == Reading.NOT_AVAILABLE:
        return "not tested"
    place = (Reading.BELOW, Reading.WITHIN, Reading.ABOVE).index(one.reading)
    return CLAIM_WORDS[one.measure][place]


def transfer_statement(row: Row) -> str:
    """Whether the tokens of a unit's restarts work in other contexts than the one that they were found in.

    Args:
        row: a row of `units.parquet`, or the `summary.json` of a job on one unit.
    """
    row = known(row)
    kept = [f"{_share(row, name)} {ELSEWHERE[name]}" for name in elsewhere(row)]
    if not kept:
        return ""
    reading = Transfer(row["transfer"])
    if reading == Transfer.NOTHING:
        return "Where they were found, the tokens are not beyond random ones: there is nothing to carry elsewhere."
    unit = "of what they are beyond random ones where they were found, in standard deviations of random ones"
    return f"The same tokens keep {', '.join(kept)} {unit}. {TRANSFER_WORDS[reading]}"


def _share(row: Row, name: str) -> str:
    value, low, high = (row[f"transfer_{name}_share{end}"] for end in ("", "_low", "_high"))
    ends = "no interval" if isnan(low) else f"95 %: {low:.0%} to {high:.0%}"
    return f"{value:.0%} ({ends})"


def sink_statement(row: Row) -> str:
    """That the first position is an attention sink, where nothing stands before the tokens; else nothing.

    Args:
        row: a row of `units.parquet`, or the `summary.json` of a job on one unit.
    """
    row = known(row)
    first, later = row.get("first_norm", nan), row.get("later_norm", nan)
    if not first > SINK * later:
        return ""
    place = place_name(str(row["site"]), row["layer"]) if "site" in row else "the unit's place"
    return (
        f"Mind that the first position is an attention sink: the norm at {place} is {first:,.0f} there and "
        f"{later:,.0f} later (medians over random tokens). context=bos puts begin-of-text there."
    )


def p_words(one: Finding, *, brief: bool = False) -> str:
    """A p, marked where it is the smallest that so many draws can give; nothing where there is none.

    Args:
        one: the finding.
        brief: whether the number stands in a column of its own, and its mark is the sign alone.

    Example:
        >>> from actmax.evidence.findings import finding
        >>> found = finding(Measure.SHARED_TOKENS, 1, (0, 0, 0), p=0.001, alternative="greater", draws=999)
        >>> p_words(found), p_words(found, brief=True)
        ('p ≤ 0.001, the smallest that 999 draws can give', '≤ 0.001')
    """
    if isnan(one.p):
        return ""
    # rounded, a p and its level may look the same
    number = f"{one.p:.2g}" if f"{one.p:.2g}" != f"{one.alpha:.2g}" or one.p == one.alpha else f"{one.p:.6g}"
    floor = floor_words(one)
    if brief:
        return f"≤ {number}" if floor else number
    return f"p ≤ {number}, {floor}" if floor else f"p = {number}"


def floor_words(one: Finding) -> str:
    """That a p is the smallest that so many draws can give; nothing where it is not."""
    smallest = one.draws and one.p <= one.smallest_p * (1 + 1e-9)
    return f"the smallest that {one.draws:,} draws can give" if smallest else ""


def in_order(one: Finding, form: str) -> tuple[str, str, str]:
    """The observed number and both limits of the null as text, with digits enough that none changes sides.

    Args:
        one: the finding.
        form: the format of a number with few digits: `.1%`, `.3g` or `.4f`.
    """
    digits, kind = int(form[1:-1]), form[-1]
    limits = [value for value in (one.null_low, one.null_high) if not isnan(value)]
    text = form
    for more in range(digits, digits + 12):
        text = f".{more}{kind}"
        if all(_side(f"{one.observed:{text}}", f"{value:{text}}") == _sign(one.observed - value) for value in limits):
            break
    observed, low, high = (f"{value:{text}}" for value in (one.observed, one.null_low, one.null_high))
    return observed, low, high


def _side(one: str, other: str) -> int:
    return _sign(float(one.rstrip("%")) - float(other.rstrip("%")))


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def verdict_shares(rows: Sequence[Row]) -> str:
    """The shares of the verdicts over units.

    Args:
        rows: rows of `actmax.evidence.verdicts.shares`; `verdicts` in the `summary.json` of a job on several units.
    """
    judged = max(row["units"] for row in rows)
    if judged == 0:
        return "No unit could be judged."
    parts = [
        f"{row['count']} {label(Verdict(row['verdict']))} ({row['share']:.0%}, 95 %: {row['low']:.0%} to "
        f"{row['high']:.0%})"
        for row in rows
    ]
    return f"Of {judged} units: {'; '.join(parts)}. With nothing there, up to 5 % would have a claim."


def verdict_counts(counts: Row) -> str:
    """How many units have which verdict.

    Args:
        counts: a row with a column per verdict, as in `layers.parquet`.
    """
    return "; ".join(f"{counts[verdict]} {label(verdict)}" for verdict in VERDICTS if counts[verdict]) or "none judged"


def overall_statement(row: Row) -> str:
    """How many of a sweep's units have which verdict.

    Args:
        row: a row of `overall` in `sweep.json`.
    """
    return f"Of {row['units']} units ({row['restarts']} restarts): {verdict_counts(row)}."


def gap_shares(units: pd.DataFrame) -> str:
    """How far the gain of several units is carried on its way to text; columns as in `units.parquet`."""
    counts = Counter(units["gap"])
    endings = {
        GapEnd.NOT_TESTED: "not tested",
        GapEnd.NO_GAIN: "not even as optimum",
        GapEnd.SNAP: "as optimum only",
        GapEnd.RETOKENISE: "as tokens, not as text that is tokenised again",
        GapEnd.SURVIVES: "as text",
    }
    parts = "; ".join(f"{counts[end]} {text}" for end, text in endings.items() if counts[end])
    means: dict[str, Any] = {stage: units[f"z_{stage}"].mean() for stage in STAGES}
    z = ", ".join(f"{stage} {number(mean, '.3g')}" for stage, mean in means.items())
    spread = "Mean z, in standard deviations of one random sequence"
    return f"Beyond random tokens are, of {len(units)} units: {parts}. {spread}: {z}."


def search_statement(summary: Row) -> str:
    """The best text that a token search found, and what it took.

    Args:
        summary: summary of a search.
    """
    found = summary["search"]
    return (
        f"Best of the search ({summary.get('method', 'search')}): “{visible(str(found['best_text']))}” gives "
        f"{found['activation_best']:.4g}; mean over restarts {found['activation_mean']:.4g}. It took "
        f"{found['forward_passes']:,} forward passes."
    )


# neighbours and rounding


def neighbours_statement(data: Row) -> str:
    """What a maximization did to its target and to the other coordinates of its site.

    Args:
        data: the numbers of one unit under `comparison.units` of `summary.json` (`BeforeAfter.headline`).
    """
    separated = (
        "; its two groups are separated, so logistic regression has no maximum-likelihood estimate there, while t and "
        "Firth's estimate stand"
    )
    data = known(data)
    return (
        f"Over {data['restarts']} restarts the target rose by {data['difference']:.4g} ({1 - data['alpha']:.0%} "
        f"interval {data['difference_low']:.4g} to {data['difference_high']:.4g}, paired t p = {data['p']:.2g})"
        f"{separated if data['status'] in SEPARATED else ''}. Of its {data['neighbours']} neighbours "
        f"{data['neighbours_changed']} changed (paired t, Bonferroni {data['alpha']:g}): {data['neighbours_rose']} "
        f"rose and {data['neighbours_changed'] - data['neighbours_rose']} fell; {data['neighbours_separated']} are "
        f"separated. {_further(data)}"
    )


def caution_statement(caution: Caution) -> str:
    """Why a test of a comparison is not to be trusted at its groups' sizes."""
    small, large = caution.design
    return (
        f"{caution.test} is not to be trusted here: a scan of these units needs p ≤ {caution.level:.2g}, and in groups "
        f"of about {small} and {large} samples that do not differ the test goes below it with probability "
        f"{caution.size:.2g} ({caution.distribution} data), {caution.size / caution.level:.3g} times as often as it "
        "should."
    )


def _further(data: Row) -> str:
    """How many neighbours moved as far as the target: a change that is not established may be large all the same."""
    count, unclear = data["neighbours_further"], data["neighbours_further_unclear"]
    if not count:
        return "None moved as far as the target on average."
    established = f", {unclear} of them too unevenly over restarts for the test to establish it" if unclear else ""
    return f"{count} moved at least as far as the target on average{established}."


def neighbours_obstacle(comparison: Row) -> str:
    """Why neighbours were not compared; nothing where they were.

    Args:
        comparison: what `summary.json` holds under that name.
    """
    return {
        NeighbourStatus.OK: "",
        NeighbourStatus.ONE_RESTART: (
            "not available: one restart, and restarts are the replicates; give two seeds or more"
        ),
        NeighbourStatus.TOO_MANY_UNITS: (
            f"off: {comparison.get('asked')} units, and callbacks.comparison.max_units is {comparison.get('max_units')}"
        ),
    }[NeighbourStatus(comparison["status"])]


def rounding_statement(data: Row) -> str:
    """How far the same seeds end apart when only the arithmetic differs, beside different seeds.

    Args:
        data: what `summary.json` holds under `rounding`.
    """
    data = known(data)
    same, other = (
        {name: data[f"{kind}_{name}"] for name in ("tokens_equal", "displacement_cosine", "activation_difference")}
        for kind in ("same_seed", "different_seeds")
    )
    return (
        f"The same seeds again, {data['restarts']:.0f} of each unit, attention kernel {data['kernel']}: "
        f"{same['tokens_equal']:.0%} of the tokens equal (different seeds: {other['tokens_equal']:.1%}), displacement "
        f"cosine {same['displacement_cosine']:.3f} ({other['displacement_cosine']:.3f}), activations "
        f"{same['activation_difference']:.2%} apart ({other['activation_difference']:.2%})."
    )


# a model's identities


def check_statement(summary: Row) -> str:
    """Whether a model's sites are what their names say.

    Args:
        summary: summary of a check.
    """
    name, refused = summary["subject"]["name"], summary["refused"]
    known = summary["read_as"] == summary["model_type"]
    how = "" if known else f" Its family, {summary['model_type']}, is not known; it is read as {summary['read_as']}."
    if not summary["failed"]:
        return f"All {len(summary['sites'])} sites of {name} are what their names say.{how}"
    lost = f"Refused: {', '.join(refused)}." if refused else "No site is refused; every pass is of whole sequences."
    return f"{len(summary['failed'])} of {summary['identities']} identities do not hold in {name}. {lost}{how}"


# examples in real text


def contexts_statement(summary: Row) -> str:
    """Where units are highest in a text, from a job's `summary.json`; the first of them where there are many."""
    return join(map(examples_statement, summary["highest"]))


def examples_statement(row: Row) -> str:
    """Where in real text a unit is highest, beside what a maximization reached.

    Args:
        row: a row of `quantiles.parquet`, or of `highest` in `summary.json`.
    """
    row, unit = known(row), target_of_row(row)
    highest = f"{unit} is highest at {row['q1']:.4g} in this text (median {row['q0.5']:.4g}, 99.9 %: "
    highest += f"{row['q0.999']:.4g})"
    if not isnan(row.get("optimized_mean", nan)):
        highest += f"; {row['restarts']:.0f} optimized embeddings reach {row['optimized_mean']:.4g} on average, and "
        highest += f"snapped to tokens {row['snapped_mean']:.4g}"
    return join([f"{highest}.", meaning_statement(row, "the passages where it is highest")])


# statistics between groups


def concordance_statement(data: Row) -> str:
    """How far the t-test and logistic regression say the same.

    Args:
        data: `Concordance.headline`.
    """
    data = known(data)
    if not data["compared"]:
        return "No unit has both a t-test and a maximum-likelihood fit, so there is nothing to set side by side."
    return (
        f"Over {data['units']} overlapping units, t and the standardised β correlate at {data['pearson']:.4f} and the "
        f"t-test and likelihood-ratio test agree at α={data['alpha']:g} on {data['agreement']:.1%}. Largest distance "
        f"of the score χ² from N·t²/(N-2+t²): {data['theory_largest_difference']:.1e}."
    )


def simulation_statement(summary: Row) -> str:
    """Where logistic regression breaks and t does not.

    Args:
        summary: summary of a simulation.
    """
    last, where = summary["largest_effect"], known(summary)["explodes_at"]
    return (
        f"{concordance_statement(summary['concordance'])} Half of the maximum-likelihood β explode or do not exist "
        f"{'nowhere on this grid' if isnan(where) else f'from an effect of {where:g} on'}; at {last['effect']:g}, "
        f"{last['separation_rate']:.0%} of units are separated, while the median |t| is "
        f"{last['median_student_t']:.1f} and Firth's median |β| per standard deviation {last['median_firth']:.1f}."
    )


def simulation_answer(summary: Row) -> str:
    """The answer of a simulation in plain words."""
    where = known(summary)["explodes_at"]
    broken = "nowhere on this grid" if isnan(where) else f"from an effect of {where:g} standard deviations on"
    return (
        f"They say the same while the groups overlap. Half of the β explode or do not exist {broken}; t stays stable."
    )


def groups_statement(summary: Row) -> str:
    """What a job on words found, from its `summary.json`."""
    return tuning_statement(summary, list(summary["words"]), summary["alpha"])


def tuning_statement(summary: Row, categories: Sequence[str], alpha: float | int) -> str:
    """Which units tell two categories apart, whether other words agree, and how well all units decode the category.

    Args:
        summary: summary of a tuning job.
        categories: the two, group 0 first.
        alpha: level of the tests.
    """
    first, second = categories
    units, tuned = summary["compared_units"], summary["tuned_units"]
    tuned_share = (
        f"{tuned} of {units} units ({summary['tuned_share']:.1%}) tell {first} from {second} (Benjamini-Hochberg "
        f"{alpha:g} over all of them; {summary['tuned_share_permutation']:.1%} family-wise, by permutation). "
        f"Corrected per layer it is {summary['tuned_share_layer']:.1%}, and {summary['null_tuned_share_layer']:.2%} "
        "under shuffled labels."
    )
    parts = [tuned_share, replication_statement(summary["replication"], alpha), decoder_statement(summary["decoder"])]
    found, far = summary["concordance"], summary["far_words"]
    if found:
        parts.append(
            f"t and the standardised β correlate at {found['pearson']:.4f} over {found['units']} overlapping units; "
            f"the t-test and likelihood-ratio test agree on {found['agreement_raw']:.1%} of them uncorrected and on "
            f"{found['agreement_bh']:.1%} corrected; {summary['separated_units']} units are separated."
        )
    if far["layers"]:
        parts.append(
            f"Mind that at {far['layers']} layers up to {far['most']} words lie ten times further out than the median "
            "word (attention sinks, most likely): t-tests have little power there."
        )
    return join(parts)


def tuning_answer(summary: Row, categories: Sequence[str]) -> str:
    """The answer of a tuning job in plain words."""
    first, second = categories
    rate = summary["replication"].get("rate")
    answer = f"{summary['tuned_share']:.0%} of {summary['compared_units']:,} units differ between {first} and {second}."
    if rate is None:
        return f"{answer} Half of the words selects no unit, so nothing could be tried on the other half."
    return f"{answer} Of the units that one half of the words selects, {rate:.0%} replicate on the other half."


def replication_statement(found: Row, alpha: float | int) -> str:
    """Whether units that half of the words selects replicate on the other half.

    Args:
        found: `replication` of a tuning job's summary.
        alpha: level of the tests.
    """
    if found["rate"] is None:
        return "Null result: half of the words select no unit, so there is nothing to replicate."
    return (
        f"Half of the words selects {found['selected']:.0f} units on average ({found['splits_that_select']} of "
        f"{found['splits']} splits select any); {found['rate']:.1%} of them replicate on the other half (same "
        f"direction, p ≤ {alpha:g}; shuffled labels: {found['null_rate_mean']:.1%}; by split "
        f"{found['rate_low']:.1%} to {found['rate_high']:.1%}), and effects shrink by {found['shrinkage']:.1%}."
    )


def decoder_statement(found: Row) -> str:
    """How well all units, and the best layer, decode the category of held-out words.

    Args:
        found: `decoder` of a tuning job's summary.
    """
    whole, best = found["all"], found["best_layer"]
    place = place_name(best["site"], best["layer"])
    result = "" if whole["p"] <= ALPHA else "Null result: "
    return (
        f"{result}A decoder over all units is right on {whole['accuracy']:.1%} of held-out words (shuffled labels: "
        f"{whole['null_mean']:.1%}, 95 %: up to {whole['null_limit']:.1%}, p = {whole['p']:.2g}); "
        f"the best layer, {place}, on {best['accuracy']:.1%} (best of the shuffled: {best['null_mean']:.1%}, p = "
        f"{best['p']:.2g}); {found['layers_above_chance']} of {found['layers']} layers are above chance."
    )


# sweeps


def priors_answer(priors: pd.DataFrame) -> str:
    """Which of several priors keeps most of the activation in tokens, and which agrees most.

    Args:
        priors: `ladder.parquet`.
    """
    best, alike = (
        priors.sort_values(name, ascending=False, na_position="last").iloc[0]
        for name in ("z_snapped", "shared_tokens_above")
    )
    return (
        f"{best['prior']} has the most activation left in tokens, restarts of {alike['prior']} share the most tokens "
        "above their null. Each prior is judged by itself; the tables below keep them apart."
    )
