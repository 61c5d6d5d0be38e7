"""Every sentence, word for word, on fixed numbers; and that numbers which are missing in a record say the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from math import nan
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from actmax.evidence import readings
from actmax.evidence.findings import Measure, finding, unit_findings
from actmax.evidence.readings import VERDICTS, DecisionStatus, GapEnd, Verdict
from actmax.evidence.verdicts import shares
from actmax.report import words
from unit_rows import ROW, UNTESTED

MEAN = "The mean activation over 10 restarts went from 1.235 to 334.4."
FEW = (
    "Other starts share more tokens than chance, and than those of other units, but too few to call the answers the "
    "same."
)
ALIKE = "In embedding space they move alike, but no more than those of other units do."
LOST = "As tokens the optimum is beyond random tokens, as text that is tokenised again it is not."
NOT_TESTED = "Whether they move more alike than those of other units was not tested: "
ALONE = "there is no other unit (controls=2 adds two)."


class TestUnit:
    def test_answer(self) -> None:
        expected = f"No. {FEW} {ALIKE} {LOST}"
        assert words.unit_answer(ROW) == words.units_answer(pd.DataFrame([ROW])) == expected
        assert words.restarts_statement({"units": 1, **ROW}) == f"{MEAN} {expected}"

    def test_rise(self) -> None:
        assert words.rise(ROW) == MEAN
        assert words.rise(ROW | {"restarts": 1, "restarts_frozen": 2}) == (
            "The mean activation over 1 restart went from 1.235 to 334.4. 2 more went non-finite and count as missing."
        )
        assert words.lost(ROW) == ""
        assert words.lost(ROW | {"restarts_frozen": 5, "verdict_status": "non_finite"}) == (
            "All 5 restarts went non-finite, and stand at their best finite embedding: nothing is judged."
        )

    @pytest.mark.parametrize(
        ("tokens", "answer", "expected"),
        [
            (
                "reproducible", "yes",
                "Yes. Other starts end at the same tokens, and those of other units do not. ",
            ),
            (
                "partly_reproducible", "partly",
                "Partly. Other starts end at some of the same tokens, more than those of other units do. ",
            ),
            (
                "shared_with_other_units", "no",
                "No. Other starts share more tokens than chance, but no more than those of other units do. ",
            ),
            ("not_above_chance", "no", "No. Other starts share no more tokens than chance. "),
        ],
    )  # fmt: skip
    def test_tokens(self, tokens: str, answer: str, expected: str) -> None:
        row = ROW | {"verdict": tokens, "verdict_tokens": tokens, "answer": answer}
        assert words.unit_answer(row) == f"{expected}{ALIKE} {LOST}"

    @pytest.mark.parametrize(
        ("moves", "expected"),
        [
            ("reproducible", "In embedding space they move the same way, and those of other units do not."),
            (
                "partly_reproducible",
                "In embedding space they move partly the same way, more than those of other units do.",
            ),
            (
                "detectable_not_the_same_answer",
                (
                    "In embedding space they have a direction in common that other units have not, but they do not "
                    "move the same way."
                ),
            ),
            (
                "not_above_chance",
                "In embedding space they have no more of a direction in common than those of other units.",
            ),
        ],
    )
    def test_moves(self, moves: str, expected: str) -> None:
        assert words.unit_answer(ROW | {"verdict_embeddings": moves}) == f"No. {FEW} {expected} {LOST}"

    @pytest.mark.parametrize(
        ("end", "expected"),
        [
            (GapEnd.NO_GAIN, "The optimum itself is not beyond random tokens."),
            (GapEnd.SNAP, "As text the optimum is not beyond random tokens."),
            (GapEnd.RETOKENISE, LOST),
            (GapEnd.SURVIVES, "As text the optimum is still beyond random tokens."),
        ],
    )
    def test_text(self, end: GapEnd, expected: str) -> None:
        assert words.unit_answer(ROW | {"gap": end.value}) == f"No. {FEW} {ALIKE} {expected}"

    @pytest.mark.parametrize(
        ("changed", "reason"),
        [
            ({}, ALONE),
            ({"own": "one_seed"}, "one seed has no pairs."),
            ({"own": "no_shared_seeds"}, "the units share fewer than two seeds."),
            (
                {"own": "too_many_units", "own_units": 300},
                "300 units, and above 256 it takes too much memory.",
            ),
            (
                {"own": "out_of_reach", "own_units": 2, "own_seeds": 3},
                "2 units x 3 seeds cannot give a small enough p (more seeds do).",
            ),
        ],
    )
    def test_not_tested_beside_other_units(self, changed: dict[str, Any], reason: str) -> None:
        above = (
            "Not judged. Other starts share more tokens than chance; whether those of other units share as many was "
            f"not tested: {reason} {NOT_TESTED}{reason} {LOST}"
        )
        assert words.unit_answer(ROW | UNTESTED | changed) == above
        chance = {"verdict": "not_above_chance", "verdict_tokens": "not_above_chance", "answer": "no"}
        row = ROW | UNTESTED | changed | chance | {"verdict_status": "ok"}
        assert words.unit_answer(row) == (
            f"No. Other starts share no more tokens than chance. {NOT_TESTED}{reason} {LOST}"
        )

    @pytest.mark.parametrize(
        ("status", "expected"),
        [
            ("one_restart", f"Not judged. One restart has no pairs. {LOST}"),
            ("non_finite", f"Not judged. There is no restart whose numbers are finite. {LOST}"),
            (
                "too_few_draws",
                f"Not judged. 99 draws cannot give a p of 0.0071 or less (nulls.draws). {LOST}",
            ),
        ],
    )
    def test_not_judged(self, status: str, expected: str) -> None:
        row = ROW | UNTESTED | {"verdict_status": status, "null_shared_tokens_draws": 99}
        assert words.unit_answer(row) == expected

    def test_every_verdict_has_words(self) -> None:
        assert set(words.OF_TOKENS) == set(VERDICTS)
        assert set(words.OF_MOVES) == {*VERDICTS, Verdict.NOT_JUDGED}
        assert set(words.ENDINGS) == set(GapEnd)
        untested = [one for one in DecisionStatus if one != DecisionStatus.OK]
        said = {words.unit_answer(ROW | UNTESTED | {"verdict_status": one.value}) for one in untested}
        assert len(said) == 4

    def test_one_line(self) -> None:
        assert words.one_line({"units": 1, **ROW}) == (
            "No, detectable, not the same answer: activation 1.235 → 334.4, 2.5 as text (random tokens 0.5), 6.2% of "
            "tokens shared (null 1.0%)"
        )


FOUND = {one.measure: one for one in unit_findings(ROW)}


class TestClaims:
    def test_readings(self) -> None:
        assert {str(measure): words.claim_words(one) for measure, one in FOUND.items()} == {
            "shared_tokens": "more than chance",
            "own_tokens": "its own",
            "direction": "no more than others",
            "tokens_unique": "fewer than chance",
            "cosine_mean": "as near as chance",
            "init_retention": "as many as chance",
            "activation_final_mean": "above chance",
            "activation_snapped_mean": "above chance",
            "transfer_bos_mean": "above chance",
            "transfer_text_mean": "not beyond chance",
        }

    def test_not_tested(self) -> None:
        (direction,) = [one for one in unit_findings(ROW | UNTESTED) if one.measure == Measure.DIRECTION]
        assert words.claim_words(direction) == "not tested"
        assert words.p_words(direction) == words.p_words(direction, brief=True) == ""

    def test_every_measure_of_a_unit_has_three(self) -> None:
        elsewhere = {one.measure for one in unit_findings(ROW | {"transfer_own": "bos"})}
        asked: dict[str, Any] = {"meaning_status": "ok", "meaning": 0.2, "meaning_apart": 0.2, "own_meaning": 0.2}
        for name in ("meaning", "meaning_apart", "own_meaning"):
            null = {"mean": 0.0, "low": float("nan"), "high": 0.1, "p": 0.01, "alpha": 0.05, "draws": 99}
            asked |= {f"null_{name}_{part}": value for part, value in null.items()}
        in_meaning = {one.measure for one in unit_findings(ROW | asked)}
        assert set(words.CLAIM_WORDS) == set(FOUND) | elsewhere | in_meaning
        assert all(len(set(three)) == 3 for three in words.CLAIM_WORDS.values())

    def test_p(self) -> None:
        p = {measure: words.p_words(one) for measure, one in FOUND.items()}
        assert p[Measure.SHARED_TOKENS] == "p ≤ 0.001, the smallest that 999 draws can give"
        assert p[Measure.UNIQUE_TOKENS] == "p ≤ 0.002, the smallest that 999 draws can give"  # two-sided
        assert p[Measure.OPTIMUM] == "p ≤ 2.5e-05, the smallest that 39,999 draws can give"
        assert p[Measure.RETENTION] == "p = 0.012"
        assert words.p_words(FOUND[Measure.SHARED_TOKENS], brief=True) == "≤ 0.001"
        exact = finding(Measure.WALD_REJECTIONS, 0.1, (0.05, nan, nan), p=1e-9, draws=0)
        assert words.p_words(exact) == "p = 1e-09"  # there are no draws that could give no less

    @pytest.mark.parametrize(
        ("numbers", "form", "expected"),
        [
            ((0.0623, nan, 0.0412), ".1%", ("6.2%", "nan%", "4.1%")),
            ((0.04123, nan, 0.0412), ".1%", ("4.123%", "nan%", "4.120%")),
            ((0.0412, nan, 0.0412), ".1%", ("4.1%", "nan%", "4.1%")),
            ((0.04118, nan, 0.0412), ".1%", ("4.118%", "nan%", "4.120%")),
            ((45, 48, 50), ".0f", ("45", "48", "50")),
            ((47.6, 48, 50), ".0f", ("47.6", "48.0", "50.0")),
            ((334.41, nan, 334.4), ".3g", ("334.41", "nan", "334.4")),
            ((-5.0, -4.999, nan), ".3g", ("-5", "-4.999", "nan")),
            ((nan, nan, nan), ".3g", ("nan", "nan", "nan")),
        ],
    )
    def test_numbers_keep_their_order(
        self, numbers: tuple[float, float, float], form: str, expected: tuple[str, str, str]
    ) -> None:
        observed, low, high = numbers
        one = finding(Measure.SNAPPED, observed, (0.0, low, high), p=0.01)
        assert words.in_order(one, form) == expected


class TestUnits:
    def test_answer(self) -> None:
        several = pd.DataFrame(
            [
                ROW | {"verdict": "reproducible"},
                ROW | {"verdict": "not_above_chance", "gap": "survives"},
                ROW | {"verdict": "not_judged", "gap": "at_the_snap"},
            ]
        )
        assert words.units_answer(several) == (
            "Of 3 units: 1 reproducible; 1 not above chance; 1 not judged. As text 1 of them are still beyond random "
            "tokens."
        )

    def test_shares(self) -> None:
        verdicts = [Verdict.REPRODUCIBLE] * 3 + [Verdict.CHANCE] * 9
        expected = (
            "Of 12 units: 3 reproducible (25%, 95 %: 9% to 53%); 0 partly reproducible (0%, 95 %: 0% to 24%); 0 "
            "detectable, not the same answer (0%, 95 %: 0% to 24%); 0 shared with other units (0%, 95 %: 0% to 24%); 9 "
            "not above chance (75%, 95 %: 47% to 91%). With nothing there, up to 5 % would have a claim."
        )
        rows = shares(verdicts).to_dict("records")
        assert words.verdict_shares(rows) == expected
        assert words.restarts_statement({"units": 12, "verdicts": rows}) == expected
        assert words.one_line({"units": 12, "verdicts": rows}) == expected
        assert words.verdict_shares(shares([]).to_dict("records")) == "No unit could be judged."

    def test_counts(self) -> None:
        counts = dict.fromkeys(VERDICTS, 0)
        assert words.verdict_counts(counts) == "none judged"
        counts |= {Verdict.SHARED: 2, Verdict.CHANCE: 1}
        assert words.verdict_counts(counts) == "2 shared with other units; 1 not above chance"
        row = {"units": 3, "restarts": 30, **counts}
        assert words.overall_statement(row) == (
            "Of 3 units (30 restarts): 2 shared with other units; 1 not above chance."
        )

    def test_gaps(self) -> None:
        columns = {"z_initial": 0.1, "z_final": [5.0, 6.0, 7.0, 8.0], "z_snapped": 1.0, "z_retokenised": -0.5}
        table = pd.DataFrame({"gap": ["at_the_snap", "at_the_snap", "survives", "no_gain"], **columns})
        assert words.gap_shares(table) == (
            "Beyond random tokens are, of 4 units: 1 not even as optimum; 2 as optimum only; 1 as text. Mean z, in "
            "standard deviations of one random sequence: initial 0.1, final 6.5, snapped 1, retokenised -0.5."
        )


def said(row: Mapping[str, Any]) -> str:
    """How all findings of a row read."""
    return "; ".join(
        " ".join((words.claim_words(one), words.p_words(one), *words.in_order(one, ".3g")))
        for one in unit_findings(row)
    )


def test_a_record_says_the_same(tmp_path: Path) -> None:
    """None of JSON and NA of a table stand for a number that does not exist, like NaN of a live result."""
    lost = ROW | UNTESTED
    from_json = json.loads(json.dumps({key: None if value != value else value for key, value in lost.items()}))
    frame = pd.DataFrame([lost, lost | {"layer": None}]).astype({"layer": "Int64"})
    frame.to_parquet(tmp_path / "units.parquet")
    from_table = pd.read_parquet(tmp_path / "units.parquet").to_dict("records")
    for statement in (words.rise, words.unit_answer, said):
        assert {statement(row) for row in (lost, from_json, *from_table)} == {statement(lost)}


NUMBERS = {
    "restarts": 12, "alpha": 0.05, "difference": 50.05, "difference_low": 49.5, "difference_high": 50.5,
    "p": 1.5e-20, "status": "separated", "neighbours": 39, "neighbours_changed": 3, "neighbours_rose": 1,
    "neighbours_separated": 2, "neighbours_further": 0, "neighbours_further_unclear": 0,
}  # fmt: skip
RISE = "Over 12 restarts the target rose by 50.05 (95% interval 49.5 to 50.5, paired t p = 1.5e-20)"
OTHERS = ". Of its 39 neighbours 3 changed (paired t, Bonferroni 0.05): 1 rose and 2 fell; 2 are separated. "
NONE = "None moved as far as the target on average."


class TestNeighbours:
    def test_statement(self) -> None:
        separated = (
            "; its two groups are separated, so logistic regression has no maximum-likelihood estimate there, while t "
            "and Firth's estimate stand"
        )
        assert words.neighbours_statement(NUMBERS) == RISE + separated + OTHERS + NONE
        assert words.neighbours_statement(NUMBERS | {"status": "ok"}) == RISE + OTHERS + NONE
        further = {"status": "ok", "neighbours_further": 3}
        assert words.neighbours_statement(NUMBERS | further) == (
            f"{RISE}{OTHERS}3 moved at least as far as the target on average."
        )
        assert words.neighbours_statement(NUMBERS | further | {"neighbours_further_unclear": 2}) == (
            f"{RISE}{OTHERS}3 moved at least as far as the target on average, 2 of them too unevenly over restarts for "
            "the test to establish it."
        )

    def test_obstacles(self) -> None:
        assert words.neighbours_obstacle({"status": "ok", "units": {}}) == ""
        off = {"status": "too_many_units", "asked": 17, "max_units": 16}
        assert words.neighbours_obstacle(off) == "off: 17 units, and callbacks.comparison.max_units is 16"
        alone = "not available: one restart, and restarts are the replicates; give two seeds or more"
        assert words.neighbours_obstacle({"status": "one_restart"}) == alone


def test_rounding() -> None:
    numbers = {
        "tokens_equal": (0.95, 0.0123),
        "displacement_cosine": (0.991, 0.05),
        "activation_difference": (0.0012, 0.21),
    }
    data = {"kernel": "eager", "restarts": 2.0}
    data |= {f"same_seed_{name}": same for name, (same, _) in numbers.items()}
    data |= {f"different_seeds_{name}": other for name, (_, other) in numbers.items()}
    assert words.rounding_statement(data) == (
        "The same seeds again, 2 of each unit, attention kernel eager: 95% of the tokens equal (different "
        "seeds: 1.2%), "
        "displacement cosine 0.991 (0.050), activations 0.12% apart (21.00%)."
    )
    lost = words.rounding_statement(data | {"different_seeds_displacement_cosine": None})
    assert "cosine 0.991 (nan)" in lost


def test_examples() -> None:
    row = {"site": "resid_pre", "layer": 2, "index": 3, "q1": 12.3456, "q0.5": 0.12345, "q0.999": 9.87654}
    alone = "resid_pre.2[3] is highest at 12.35 in this text (median 0.1235, 99.9 %: 9.877)"
    assert words.examples_statement(row) == f"{alone}."
    assert words.examples_statement(row | {"optimized_mean": pd.NA}) == f"{alone}."
    beside = row | {"restarts": 4.0, "optimized_mean": 99.999, "snapped_mean": 5.55555}
    expected = f"{alone}; 4 optimized embeddings reach 100 on average, and snapped to tokens 5.556."
    assert words.examples_statement(beside) == expected
    assert words.contexts_statement({"units": 2, "highest": [row, beside]}) == f"{alone}. {expected}"


CONCORDANCE = {
    "units": 80, "pearson": 0.98765, "compared": 80, "agreement": 0.9875, "alpha": 0.05,
    "theory_largest_difference": 1.25e-13,
}  # fmt: skip
TUNING = {
    "compared_units": 1000, "tuned_units": 120, "tuned_share": 0.12, "tuned_share_permutation": 0.034,
    "tuned_share_layer": 0.131, "null_tuned_share_layer": 0.0021, "separated_units": 2,
    "replication": {
        "rate": 0.81, "selected": 55.0, "splits_that_select": 19, "splits": 20, "null_rate_mean": 0.026,
        "rate_low": 0.7, "rate_high": 0.9, "shrinkage": 0.213,
    },
    "decoder": {
        "all": {"accuracy": 0.93, "null_mean": 0.5, "null_limit": 0.61, "p": 0.005},
        "best_layer": {"site": "mlp_pre", "layer": 3, "accuracy": 0.95, "null_mean": 0.6, "p": 0.004},
        "layers": 6, "layers_above_chance": 5,
    },
    "concordance": {"pearson": 0.98765, "units": 990, "agreement_raw": 0.991, "agreement_bh": 0.995},
    "far_words": {"layers": 1, "most": 2}, "words": {"noun": 10, "verb": 10}, "alpha": 0.05,
}  # fmt: skip
UNITS = (
    "120 of 1000 units (12.0%) tell noun from verb (Benjamini-Hochberg 0.05 over all of them; 3.4% family-wise, by "
    "permutation). Corrected per layer it is 13.1%, and 0.21% under shuffled labels. "
)
DECODER = (
    "A decoder over all units is right on 93.0% of held-out words (shuffled labels: 50.0%, 95 %: up to 61.0%, p "
    "= {p}); the best layer, mlp_pre.3, on 95.0% (best of the shuffled: 60.0%, p = 0.004); 5 of 6 layers are above "
    "chance."
)


class TestStatistics:
    def test_simulation(self) -> None:
        last = {"effect": 6.0, "separation_rate": 0.99, "median_student_t": 30.25, "median_firth": 3.75}
        summary: dict[str, Any] = {"simulated_units": 100, "explodes_at": 5.0, "largest_effect": last}
        summary |= {"concordance": CONCORDANCE}
        expected = (
            "Over 80 overlapping units, t and the standardised β correlate at 0.9877 and the t-test and "
            "likelihood-ratio "
            "test agree at α=0.05 on 98.8%. Largest distance of the score χ² from N·t²/(N-2+t²): 1.2e-13. Half of the "
            "maximum-likelihood β explode or do not exist from an effect of 5 on; at 6, 99% of units are separated, "
            "while the median |t| is 30.2 and Firth's median |β| per standard deviation 3.8."
        )
        assert words.simulation_statement(summary) == expected
        assert words.simulation_answer(summary) == (
            "They say the same while the groups overlap. Half of the β explode or do not exist from an effect of 5 "
            "standard deviations on; t stays stable."
        )
        assert "nowhere on this grid; at 6" in words.simulation_statement(summary | {"explodes_at": None})
        lost = words.concordance_statement(CONCORDANCE | {"compared": 0, "agreement": None})
        assert (
            lost == "No unit has both a t-test and a maximum-likelihood fit, so there is nothing to set side by side."
        )

    def test_tuning(self) -> None:
        expected = (
            f"{UNITS}Half of the words selects 55 units on average (19 of 20 splits select any); 81.0% of them "
            "replicate on the other half (same direction, p ≤ 0.05; shuffled labels: 2.6%; by split 70.0% to 90.0%), "
            f"and effects shrink by 21.3%. {DECODER.format(p='0.005')} t and the standardised β correlate at "
            "0.9877 over 990 overlapping units; the t-test and likelihood-ratio test agree on 99.1% of them "
            "uncorrected "
            "and on 99.5% corrected; 2 units are separated. Mind that at 1 layers up to 2 words lie ten times further "
            "out than the median word (attention sinks, most likely): t-tests have little power there."
        )
        assert words.tuning_statement(TUNING, ("noun", "verb"), 0.05) == expected
        assert words.groups_statement(TUNING) == expected
        assert words.tuning_answer(TUNING, ("noun", "verb")) == (
            "12% of 1,000 units differ between noun and verb. Of the units that one half of the words selects, 81% "
            "replicate on the other half."
        )

    def test_a_null_result(self) -> None:
        decoder: Any = TUNING["decoder"]
        lost = {"replication": {"rate": None}, "concordance": {}, "far_words": {"layers": 0, "most": 0}}
        lost |= {"decoder": decoder | {"all": decoder["all"] | {"p": 0.2}}}
        assert words.tuning_statement(TUNING | lost, ("noun", "verb"), 0.05) == (
            f"{UNITS}Null result: half of the words select no unit, so there is nothing to replicate. Null "
            "result: "
            f"{DECODER.format(p='0.2')}"
        )
        assert words.tuning_answer(TUNING | lost, ("noun", "verb")).endswith(
            "Half of the words selects no unit, so nothing could be tried on the other half."
        )


def test_every_member_has_words() -> None:
    enums = [
        one for one in vars(readings).values() if isinstance(one, type) and issubclass(one, StrEnum) and one != StrEnum
    ]
    members = [member for one in enums for member in one]
    assert len(members) > 20
    assert all(words.label(member) and "_" not in words.label(member) for member in members)
    assert all(member.value == member.value.lower() and " " not in member.value for member in members)
    assert set(words.LABELS) <= set(members)
