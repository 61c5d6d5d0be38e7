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

from actmax.evidence.findings import ALPHA, known
from actmax.evidence.gap import STAGES
from actmax.evidence.nulls import RANDOM_MOVES
from actmax.evidence.own import MOST_UNITS
from actmax.evidence.readings import (
    VERDICTS,
    DecisionStatus,
    GapEnd,
    NeighbourStatus,
    OwnStatus,
    Reading,
    Verdict,
    read,
)
from actmax.evidence.verdicts import PRIMARY, shares
from actmax.model.target import Unit, place_name
from actmax.report.blocks import join, visible
from actmax.stats.t_and_logit import SEPARATED

Row = Mapping[Any, Any]
"""The numbers of one unit, or another object of a record, by name."""

LABELS: dict[StrEnum, str] = {
    Verdict.TOKENS: "converges in tokens",
    Verdict.EMBEDDINGS: "converges in embedding space only",
    Verdict.NOT_OWN: "above chance, not this unit's own",
    Verdict.CHANCE: "not above chance",
    GapEnd.SNAP: "at the snap",
    GapEnd.RETOKENISE: "at the tokenizer",
}
"""Words of enum members whose value is not their words."""
ANSWERS = {
    Verdict.TOKENS: "Yes: other starts end at the same tokens more often than chance.",
    Verdict.EMBEDDINGS: "Only in part: other starts move the same way more than chance, "
    "but their tokens agree no more than chance.",
    Verdict.NOT_OWN: "Restarts agree more than chance, but no more than those of other units do.",
    Verdict.CHANCE: "No: other starts agree no more than chance.",
}
"""The verdicts as answers to the question whether one would get the same again."""
ENDINGS = {
    GapEnd.SNAP: "What the embedding gained is lost once it is replaced by its tokens.",
    GapEnd.RETOKENISE: "What was gained survives as tokens, but not as text that is tokenised again.",
    GapEnd.SURVIVES: "What was gained survives as text.",
    GapEnd.NO_GAIN: "The optimum itself does no better than random tokens.",
}
"""Where the gain is lost, as an answer."""


def label(member: StrEnum) -> str:
    """An enum member in words.

    Example:
        >>> label(Verdict.NOT_OWN), label(Verdict.NOT_AVAILABLE)
        ("above chance, not this unit's own", 'not available')
    """
    return LABELS.get(member, member.value.replace("_", " "))


def one_line(summary: Row) -> str:
    """The result of a job on units in one line, from its `summary.json`."""
    if summary["units"] != 1:
        return restarts_statement(summary)
    row = known(summary)
    change = f"{row['activation_initial_mean']:.4g} → {row['activation_final_mean']:.4g}"
    unique = f"{row['tokens_unique']} of {row['tokens_total']} tokens unique"
    return (
        f"activation {change}, {unique} (null {row['null_unique_mean']:.1f}), "
        f"{row['init_retention']:.0%} kept from the start (null {row['null_retention_mean']:.0%})"
    )


def restarts_statement(summary: Row) -> str:
    """What a job on units found, from its `summary.json`: all of one unit, the shares of verdicts over several."""
    return unit_statement(summary) if summary["units"] == 1 else verdict_shares(summary["convergence"])


# units


def unit_statement(row: Row) -> str:
    """What the numbers of one unit say, with null results said as clearly as positive ones."""
    row = known(row)
    found = f"{_decoded(row)} {_start(row)}" if row["null_of_ends"] == RANDOM_MOVES else _searched(row)
    return f"{_rise(row)} {_agreement(row)} {found}"


def units_statement(units: pd.DataFrame) -> str:
    """What the numbers of one unit say, or the shares of the verdicts over several; columns as in `units.parquet`."""
    if len(units) == 1:
        return unit_statement(units.iloc[0].to_dict())
    return verdict_shares(shares([Verdict(verdict) for verdict in units["convergence"]]).to_dict("records"))


def unit_answer(row: Row) -> str:
    """The answer on one unit in plain words: whether other starts end alike, and what is left as text."""
    row = known(row)
    verdict, own, gap = Verdict(row["convergence"]), OwnStatus(row["own"]), GapEnd(row["gap"])
    answer = ANSWERS.get(verdict, f"That cannot be said: {_obstacle(row)}.")
    caution = ""
    if own != OwnStatus.OK and verdict in (Verdict.TOKENS, Verdict.EMBEDDINGS):
        caution = "Whether that is this unit's own is not known: it takes other units to compare with."
    return join([answer, caution, ENDINGS[gap]])


def units_answer(units: pd.DataFrame) -> str:
    """The answer on one unit, or how many of several units have which verdict and lose their gain as text."""
    if len(units) == 1:
        return unit_answer(units.iloc[0].to_dict())
    counts, ends = Counter(units["convergence"]), Counter(units["gap"])
    parts = [f"{counts[verdict]} {label(verdict)}" for verdict in VERDICTS if counts[verdict]]
    unknown = len(units) - sum(counts[verdict] for verdict in VERDICTS)
    if unknown:
        parts.append(f"{unknown} cannot be judged")
    lost = ends[GapEnd.SNAP] + ends[GapEnd.RETOKENISE]
    return f"Of {len(units)} units: {'; '.join(parts)}. The gain dies on the way to text in {lost} of them."


def verdict_shares(rows: Sequence[Row]) -> str:
    """The shares of the verdicts over units.

    Args:
        rows: rows of `actmax.evidence.verdicts.shares`; `convergence` in the `summary.json` of a job on several units.
    """
    judged = max(row["units"] for row in rows)
    if judged == 0:
        return "No unit could be judged: one restart has no pairs, and a null needs 39 draws."
    parts = [
        f"{row['count']} {label(Verdict(row['verdict']))} ({row['share']:.0%}, 95 %: {row['low']:.0%} to "
        f"{row['high']:.0%})"
        for row in rows
    ]
    return f"Of {judged} units: {'; '.join(parts)}. With nothing there, up to 5 % would be above chance."


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


def gap_statement(row: Row) -> str:
    """Where the gain of one unit is lost on its way to text."""
    row = known(row)
    stages = (
        f"activation {row['activation_final_mean']:.4g} at the optimum, {row['activation_snapped_mean']:.3g} once "
        f"snapped to its tokens, {row['activation_retokenised_mean']:.3g} as their text tokenised again; random tokens "
        f"give {row['random_activation_mean']:.3g} ± {row['random_activation_sd']:.2g} (mean of {row['restarts']}, "
        f"95 %: {row['null_snapped_low']:.3g} to {row['null_snapped_high']:.3g}; snapped: z = "
        f"{row['z_snapped']:.2g}, p = {row['null_snapped_p']:.2g})."
    )
    ending = {
        GapEnd.NO_GAIN: "The optimum itself is no better than random tokens.",
        GapEnd.SNAP: f"The gain dies at the snap: {row['kept_snapped']:.1%} of it is left.",
        GapEnd.RETOKENISE: f"The gain dies at the tokenizer: {row['kept_retokenised']:.1%} of it is left.",
        GapEnd.SURVIVES: f"The gain survives: {row['kept_retokenised']:.1%} of it is left.",
    }[GapEnd(row["gap"])]
    if isnan(row["null_cross_entropy_mean"]):
        return f"{stages} {ending}"
    noise = f"what the initial noise decodes to: {row['cross_entropy_initial_mean']:.3g}"
    low, high = row["null_cross_entropy_low"], row["null_cross_entropy_high"]
    null = f"random tokens: {row['null_cross_entropy_mean']:.3g}, 95 %: {low:.3g} to {high:.3g}"
    entropy = f"Cross-entropy of the snapped tokens: {row['cross_entropy_mean']:.3g} nats per token ({noise}; {null})."
    return f"{stages} {ending} {entropy}"


def gap_shares(units: pd.DataFrame) -> str:
    """Where the gain of one unit is lost, or over several units; columns as in `units.parquet`."""
    if len(units) == 1:
        return gap_statement(units.iloc[0].to_dict())
    counts = Counter(units["gap"])
    endings = {
        GapEnd.SNAP: "the gain dies at the snap",
        GapEnd.RETOKENISE: "the gain dies at the tokenizer",
        GapEnd.SURVIVES: "the gain survives",
        GapEnd.NO_GAIN: "the optimum itself is no better than random tokens",
    }
    parts = "; ".join(f"in {counts[end]} {text}" for end, text in endings.items() if counts[end])
    z = ", ".join(f"{stage} {units[f'z_{stage}'].mean():.3g}" for stage in STAGES)
    return f"Of {len(units)} units: {parts}. Mean z against random tokens: {z}."


def _rise(row: Row) -> str:
    change = f"from {row['activation_initial_mean']:.4g} to {row['activation_final_mean']:.4g}"
    restarts, frozen = row["restarts"], row["restarts_frozen"]
    sentence = f"The mean activation over {restarts} restart{'s'[: restarts > 1]} went {change}."
    if frozen:
        sentence += f" {frozen} went non-finite and stand at their best finite embedding."
    return sentence


def _agreement(row: Row) -> str:
    """The declared verdict, the two numbers that it rests on, and why."""
    verdict, chance = Verdict(row["convergence"]), row["null_of_ends"]
    if verdict == Verdict.NOT_AVAILABLE:
        return f"Agreement of restarts: not available, {_obstacle(row)}."
    shared, moves = (f"{chance}: {{0:{form}}}, 95 %: {{1:{form}}} to {{2:{form}}}" for form in (".1%", ".3f"))
    nulls = (
        [row[f"null_{name}_{part}"] for part in ("mean", "low", "high")]
        for name in (PRIMARY["tokens"], PRIMARY["embeddings"])
    )
    tokens, embeddings = (text.format(*null) for text, null in zip((shared, moves), nulls, strict=True))
    return (
        f"Agreement of restarts: {label(verdict)}. Two restarts share {row[PRIMARY['tokens']]:.1%} of their tokens "
        f"({tokens}) and their moves, positions matched, have a mean cosine of {row[PRIMARY['embeddings']]:.3f} "
        f"({embeddings}): {_above_chance(row)}; {_own(row)}."
    )


def _obstacle(row: Row) -> str:
    """Why there is no verdict."""
    if row["convergence_status"] == DecisionStatus.ONE_RESTART:
        return "one restart has no pairs"
    return f"too few draws to reach p ≤ {row['convergence_alpha']:g}"


def _spaces_above(row: Row) -> list[str]:
    return [space for space in PRIMARY if row[f"convergence_p_{space}"] <= row["convergence_alpha"]]


def _above_chance(row: Row) -> str:
    """The first question: in which spaces restarts agree more than chance."""
    found = " and ".join(_spaces_above(row)) or "neither space"
    p = [row[f"convergence_p_{space}"] for space in PRIMARY]
    return f"above chance in {found} (tokens p = {p[0]:.2g}, embeddings p = {p[1]:.2g}, Holm)"


def _own(row: Row) -> str:
    """The second question: whether that is this unit's own."""
    if not _spaces_above(row):
        return "so whether it is this unit's own does not arise"
    units, seeds = row["own_units"], row["own_seeds"]
    obstacles = {
        OwnStatus.ONE_UNIT: "one unit",
        OwnStatus.ONE_SEED: "one seed",
        OwnStatus.NO_SHARED_SEEDS: "the units share fewer than two seeds",
        OwnStatus.TOO_MANY_UNITS: f"{units} units, and above {MOST_UNITS} it takes too much memory",
        OwnStatus.OUT_OF_REACH: f"{units} units x {seeds} seeds cannot reach p ≤ {row['convergence_alpha']:g}",
    }
    status = OwnStatus(row["own"])
    if status != OwnStatus.OK:
        return f"whether it is this unit's own: not available: {obstacles[status]}"
    p = [row[f"own_p_{space}"] for space in PRIMARY]
    return f"this unit's own: tokens p = {p[0]:.2g}, embeddings p = {p[1]:.2g} (Holm, then BH over units)"


def _decoded(row: Row) -> str:
    """Whether the decoded tokens repeat more, or lie nearer to tokens, than decoded random vectors."""
    unique, cosine = (_null(row, name) for name in ("unique", "cosine"))
    observed = row["cosine_mean"]
    facts = (
        f"{row['tokens_unique']} of {row['tokens_total']} decoded tokens are unique (decoded random vectors: "
        f"{unique['mean']:.1f}, 95 %: {unique['low']:.0f} to {unique['high']:.0f}, {_p(unique, row['pool_draws'])}) "
        f"and their mean cosine is {observed:.4f} (random: {cosine['mean']:.4f}, 95 %: {cosine['low']:.4f} to "
        f"{cosine['high']:.4f}, {_p(cosine, row['pool_draws'])})"
    )
    repeats = read(row["tokens_unique"], unique["low"], unique["high"]) == Reading.BELOW
    nearer = read(observed, cosine["low"], cosine["high"]) == Reading.ABOVE
    if not (repeats or nearer):
        return f"Null result: {facts}, so tokens repeat no more and lie no nearer than decoded noise."
    found = ["tokens repeat more than in decoded noise"] * repeats
    found += ["they lie nearer to real tokens than decoded noise"] * nearer
    return f"Beyond chance: {facts}: {' and '.join(found)}."


def _searched(row: Row) -> str:
    """The tokens of restarts that end at tokens, where lying near tokens says nothing."""
    unique, kept, chance = _null(row, "displaced_unique"), _null(row, "retention"), row["null_of_ends"]
    draws = row["end_draws"]
    return (
        f"{row['tokens_unique']} of {row['tokens_total']} tokens are unique ({chance}: {unique['mean']:.1f}, 95 %: "
        f"{unique['low']:.0f} to {unique['high']:.0f}, {_p(unique, draws)}); {row['init_retention']:.0%} of the "
        f"positions hold the token that they began with ({chance}: {kept['mean']:.0%}, 95 %: {kept['low']:.0%} to "
        f"{kept['high']:.0%}, {_p(kept, draws)})."
    )


def _start(row: Row) -> str:
    """Whether the result holds more or less of its start than a random move of the same length."""
    null = _null(row, "retention")
    facts = (
        f"{row['init_retention']:.0%} of the positions still decode to the token of their initial noise, where random "
        f"moves of the same length leave {null['mean']:.0%} (95 %: {null['low']:.0%} to {null['high']:.0%}, "
        f"{_p(null, row['end_draws'])})"
    )
    meaning = {
        Reading.ABOVE: "the result holds more of its start than a random move would leave",
        Reading.WITHIN: "no more and no less of the start than a random move leaves",
        Reading.BELOW: "the optimizer leaves its start more thoroughly than a random move",
        Reading.NOT_AVAILABLE: "the two cannot be compared",
    }[read(row["init_retention"], null["low"], null["high"])]
    return f"Initialization: {facts}: {meaning}."


def _null(row: Row, name: str) -> dict[str, float | int]:
    return {part: row[f"null_{name}_{part}"] for part in ("mean", "low", "high", "p")}


def _p(null: Mapping[str, float | int], draws: int) -> str:
    """A two-sided p, and whether it is the smallest that so many draws can give."""
    smallest = draws and null["p"] <= 2 / (draws + 1) * 1.0001
    return f"p = {null['p']:.2g}" + (", the smallest it can be" if smallest else "")


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
        "separated."
    )


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


# examples in real text


def contexts_statement(summary: Row) -> str:
    """Where units are highest in a text, from a job's `summary.json`; the first of them where there are many."""
    return join(map(examples_statement, summary["highest"]))


def examples_statement(row: Row) -> str:
    """Where in real text a unit is highest, beside what a maximization reached.

    Args:
        row: a row of `quantiles.parquet`, or of `highest` in `summary.json`.
    """
    row, unit = known(row), Unit.of_row(row)
    highest = f"{unit} is highest at {row['q1']:.4g} in this text (median {row['q0.5']:.4g}, 99.9 %: "
    highest += f"{row['q0.999']:.4g})"
    if isnan(row.get("optimized_mean", nan)):
        return f"{highest}."
    return (
        f"{highest}; {row['restarts']:.0f} optimized embeddings reach {row['optimized_mean']:.4g} on average, and "
        f"snapped to tokens {row['snapped_mean']:.4g}."
    )


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
        f"{whole['null_mean']:.1%}, 95 %: {whole['null_low']:.1%} to {whole['null_high']:.1%}, p = {whole['p']:.2g}); "
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
        priors.sort_values(name, ascending=False, na_position="last").iloc[0] for name in ("z_snapped", "jaccard_above")
    )
    return (
        f"{best['prior']} has the most activation left in tokens, restarts of {alike['prior']} share the most tokens "
        "above their null. Each prior is judged by itself; the tables below keep them apart."
    )
