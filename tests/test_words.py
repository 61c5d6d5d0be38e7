"""Every sentence, word for word, on fixed numbers; and that numbers which are missing in a record say the same."""

from __future__ import annotations

import json
from enum import StrEnum
from math import nan
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from actmax.evidence import readings
from actmax.evidence.nulls import RANDOM_TEXT
from actmax.evidence.readings import VERDICTS, GapEnd, Verdict
from actmax.evidence.verdicts import shares
from actmax.report import words
from unit_rows import ROW, null

MEAN = "The mean activation over 10 restarts went from 1.235 to 334.4. "
AGREEMENT = (
    "Agreement of restarts: converges in embedding space only. Two restarts share 1.2% of their tokens (random moves: "
    "1.0%, 95 %: 0.4% to 2.0%) and their moves, positions matched, have a mean cosine of 0.234 (random moves: 0.051, "
    "95 %: 0.030 to 0.071): above chance in embeddings (tokens p = 0.31, embeddings p = 0.02, Holm); whether it is "
    "this unit's own: not available: one unit. "
)
DECODED = (
    "Null result: 49 of 50 decoded tokens are unique (decoded random vectors: 49.8, 95 %: 49 to 50, p = 0.33) and "
    "their mean cosine is 0.1425 (random: 0.1446, 95 %: 0.1401 to 0.1492, p = 0.36), so tokens repeat no more and lie "
    "no nearer than decoded noise. "
)
START = (
    "Initialization: 48% of the positions still decode to the token of their initial noise, where random moves of the "
    "same length leave 34% (95 %: 26% to 46%, p = 0.02, the smallest it can be): the result holds more of its start "
    "than a random move would leave."
)
STAGES = (
    "activation 334.4 at the optimum, 2.5 once snapped to its tokens, 2.25 as their text tokenised "
    "again; random tokens "
    "give 0.5 ± 1.2 (mean of 10, 95 %: -0.25 to 1.25; snapped: z = 1.6, p = 0.004)."
)
ENTROPY = (
    "Cross-entropy of the snapped tokens: 10.2 nats per token (what the initial noise decodes to: 11.2; random tokens: "
    "11.5, 95 %: 11 to 12)."
)
ABOVE: dict[str, Any] = {
    "convergence": "converges_in_tokens",
    "convergence_p_tokens": 0.002,
    "convergence_p_embeddings": 0.002,
    "own": "ok",
    "own_units": 2,
    "own_p_tokens": 0.002,
    "own_p_embeddings": 0.9,
}


class TestUnit:
    def test_agreement_decoded_noise_and_start(self) -> None:
        assert words.unit_statement(ROW) == MEAN + AGREEMENT + DECODED + START

    def test_beyond_chance_and_without_a_verdict(self) -> None:
        row = ROW | {
            "restarts": 1,
            "restarts_frozen": 1,
            "tokens_unique": 41,
            "cosine_mean": 0.16,
            "init_retention": 0.2,
        }
        row |= {"null_unique_p": 2 / 1001, "null_cosine_p": 0.03}
        row |= {"convergence": "not_available", "convergence_status": "one_restart"}
        assert words.unit_statement(row) == (
            "The mean activation over 1 restart went from 1.235 to 334.4. 1 went non-finite and stand at their best "
            "finite embedding. Agreement of restarts: not available, one restart has no pairs. Beyond chance: 41 of 50 "
            "decoded tokens are unique (decoded random vectors: 49.8, 95 %: 49 to 50, p = 0.002, the smallest it can "
            "be) and their mean cosine is 0.1600 (random: 0.1446, 95 %: 0.1401 to 0.1492, p = 0.03): tokens "
            "repeat more "
            "than in decoded noise and they lie nearer to real tokens than decoded noise. Initialization: 20% of the "
            "positions still decode to the token of their initial noise, where random moves of the same length leave "
            "34% (95 %: 26% to 46%, p = 0.02, the smallest it can be): the optimizer leaves its start more thoroughly "
            "than a random move."
        )

    def test_of_a_search(self) -> None:
        row = (
            ROW | ABOVE | {"null_of_ends": RANDOM_TEXT, "jaccard": 0.5, "init_retention": 0.3, "null_retention_p": 0.9}
        )
        assert words.unit_statement(row) == (
            f"{MEAN}Agreement of restarts: converges in tokens. Two restarts share 50.0% of their tokens (random text: "
            "1.0%, 95 %: 0.4% to 2.0%) and their moves, positions matched, have a mean cosine of 0.234 (random text: "
            "0.051, 95 %: 0.030 to 0.071): above chance in tokens and embeddings (tokens p = 0.002, embeddings p = "
            "0.002, Holm); this unit's own: tokens p = 0.002, embeddings p = 0.9 (Holm, then BH over units). 49 of 50 "
            "tokens are unique (random text: 48.2, 95 %: 46 to 50, p = 0.8); 30% of the positions hold the token that "
            "they began with (random text: 34%, 95 %: 26% to 46%, p = 0.9)."
        )

    @pytest.mark.parametrize(
        ("changed", "expected"),
        [
            ({"own": "out_of_reach", "own_seeds": 3}, "2 units x 3 seeds cannot reach p ≤ 0.05."),
            ({"own": "one_seed"}, "whether it is this unit's own: not available: one seed."),
            ({"own": "no_shared_seeds"}, "not available: the units share fewer than two seeds."),
            ({"own": "too_many_units", "own_units": 300}, "300 units, and above 256 it takes too much memory."),
            (
                {"convergence": "not_above_chance", "convergence_p_tokens": 1.0, "convergence_p_embeddings": 1.0},
                (
                    "above chance in neither space (tokens p = 1, embeddings p = 1, Holm); so whether it is this "
                    "unit's own does not arise."
                ),
            ),
            (
                {"convergence": "not_available", "convergence_status": "too_few_draws"},
                "Agreement of restarts: not available, too few draws to reach p ≤ 0.05.",
            ),
        ],
    )
    def test_why(self, changed: dict[str, Any], expected: str) -> None:
        assert expected in words.unit_statement(ROW | ABOVE | changed)

    def test_retention_within_its_null(self) -> None:
        row = ROW | {"init_retention": 0.3}
        assert words.unit_statement(row).endswith("no more and no less of the start than a random move leaves.")

    @pytest.mark.parametrize(
        ("convergence", "own", "gap", "expected"),
        [
            (
                "converges_in_tokens", "one_unit", "at_the_snap",
                ("Yes: other starts end at the same tokens more often than chance. Whether that is this unit's own is "
                "not known: it takes other units to compare with. What the embedding gained is lost once it is "
                "replaced by its tokens."),
            ),
            (
                "converges_in_embedding_space", "ok", "at_the_tokenizer",
                ("Only in part: other starts move the same way more than chance, but their tokens agree no more than "
                "chance. What was gained survives as tokens, but not as text that is tokenised again."),
            ),
            (
                "not_this_units_own", "ok", "survives",
                ("Restarts agree more than chance, but no more than those of other units do. What was gained survives "
                "as text."),
            ),
            (
                "not_above_chance", "one_unit", "no_gain",
                "No: other starts agree no more than chance. The optimum itself does no better than random tokens.",
            ),
            (
                "not_available", "one_unit", "no_gain",
                "That cannot be said: one restart has no pairs. The optimum itself does no better than random tokens.",
            ),
        ],
    )  # fmt: skip
    def test_answer(self, convergence: str, own: str, gap: str, expected: str) -> None:
        row = ROW | {"convergence": convergence, "convergence_status": "one_restart", "own": own, "gap": gap}
        assert words.unit_answer(row) == words.units_answer(pd.DataFrame([row])) == expected

    def test_one_line(self) -> None:
        assert words.one_line({"units": 1, **ROW}) == (
            "activation 1.235 → 334.4, 49 of 50 tokens unique (null 49.8), 48% kept from the start (null 34%)"
        )


class TestUnits:
    def test_answer(self) -> None:
        several = pd.DataFrame(
            [
                ROW | {"convergence": "converges_in_tokens"},
                ROW | {"convergence": "not_above_chance", "gap": "survives"},
                ROW | {"convergence": "not_available", "gap": "at_the_tokenizer"},
            ]
        )
        assert words.units_answer(several) == (
            "Of 3 units: 1 converges in tokens; 1 not above chance; 1 cannot be judged. The gain dies on the way to "
            "text in 2 of them."
        )

    def test_shares(self) -> None:
        verdicts = [Verdict.TOKENS] * 3 + [Verdict.CHANCE] * 9
        expected = (
            "Of 12 units: 3 converges in tokens (25%, 95 %: 9% to 53%); 0 converges in embedding space only (0%, 95 %: "
            "0% to 24%); 0 above chance, not this unit's own (0%, 95 %: 0% to 24%); 9 not above chance (75%, 95 %: 47% "
            "to 91%). With nothing there, up to 5 % would be above chance."
        )
        rows = shares(verdicts).to_dict("records")
        assert words.verdict_shares(rows) == expected
        assert words.restarts_statement({"units": 12, "tokens_unique": {"mean": 1.0}, "convergence": rows}) == expected
        assert words.units_statement(pd.DataFrame([ROW | {"convergence": one.value} for one in verdicts])) == expected
        none = "No unit could be judged: one restart has no pairs, and a null needs 39 draws."
        assert words.verdict_shares(shares([]).to_dict("records")) == none

    def test_counts(self) -> None:
        counts = dict.fromkeys(VERDICTS, 0)
        assert words.verdict_counts(counts) == "none judged"
        counts |= {Verdict.NOT_OWN: 2, Verdict.CHANCE: 1}
        assert words.verdict_counts(counts) == "2 above chance, not this unit's own; 1 not above chance"

    def test_gaps(self) -> None:
        columns = {"z_initial": 0.1, "z_final": [5.0, 6.0, 7.0, 8.0], "z_snapped": 1.0, "z_retokenised": -0.5}
        table = pd.DataFrame({"gap": ["at_the_snap", "at_the_snap", "survives", "no_gain"], **columns})
        assert words.gap_shares(table) == (
            "Of 4 units: in 2 the gain dies at the snap; in 1 the gain survives; in 1 the optimum itself is no better "
            "than random tokens. Mean z against random tokens: initial 0.1, final 6.5, snapped 1, retokenised -0.5."
        )


class TestGap:
    @pytest.mark.parametrize(
        ("end", "expected"),
        [
            (GapEnd.SNAP, "The gain dies at the snap: 25.0% of it is left."),
            (GapEnd.RETOKENISE, "The gain dies at the tokenizer: 12.5% of it is left."),
            (GapEnd.SURVIVES, "The gain survives: 12.5% of it is left."),
            (GapEnd.NO_GAIN, "The optimum itself is no better than random tokens."),
        ],
    )
    def test_ends(self, end: GapEnd, expected: str) -> None:
        row = ROW | {"gap": end.value}
        assert words.gap_statement(row) == f"{STAGES} {expected} {ENTROPY}"
        assert words.gap_shares(pd.DataFrame([row])) == words.gap_statement(row)

    def test_of_one_token_has_no_entropy(self) -> None:
        row = ROW | null("cross_entropy", nan, nan, nan, nan) | {"cross_entropy_mean": nan}
        assert words.gap_statement(row) == f"{STAGES} The gain dies at the snap: 25.0% of it is left."


def test_a_record_says_the_same(tmp_path: Path) -> None:
    """None of JSON and NA of a table stand for a number that does not exist, like NaN of a live result."""
    from_json = json.loads(json.dumps({key: None if value != value else value for key, value in ROW.items()}))
    frame = pd.DataFrame([ROW, ROW | {"layer": None}]).astype({"layer": "Int64"})
    frame.to_parquet(tmp_path / "units.parquet")
    from_table = pd.read_parquet(tmp_path / "units.parquet").to_dict("records")
    for statement in (words.unit_statement, words.gap_statement, words.unit_answer):
        assert {statement(row) for row in (ROW, from_json, *from_table)} == {statement(ROW)}


NUMBERS = {
    "restarts": 12, "alpha": 0.05, "difference": 50.05, "difference_low": 49.5, "difference_high": 50.5,
    "p": 1.5e-20, "status": "separated", "neighbours": 39, "neighbours_changed": 3, "neighbours_rose": 1,
    "neighbours_separated": 2,
}  # fmt: skip
RISE = "Over 12 restarts the target rose by 50.05 (95% interval 49.5 to 50.5, paired t p = 1.5e-20)"
OTHERS = ". Of its 39 neighbours 3 changed (paired t, Bonferroni 0.05): 1 rose and 2 fell; 2 are separated."


class TestNeighbours:
    def test_statement(self) -> None:
        separated = (
            "; its two groups are separated, so logistic regression has no maximum-likelihood estimate there, while t "
            "and Firth's estimate stand"
        )
        assert words.neighbours_statement(NUMBERS) == RISE + separated + OTHERS
        assert words.neighbours_statement(NUMBERS | {"status": "ok"}) == RISE + OTHERS

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
        "all": {"accuracy": 0.93, "null_mean": 0.5, "null_low": 0.4, "null_high": 0.61, "p": 0.005},
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
    "A decoder over all units is right on 93.0% of held-out words (shuffled labels: 50.0%, 95 %: 40.0% to 61.0%, p "
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
    assert set(words.ANSWERS) == set(VERDICTS)
    assert set(words.ENDINGS) == set(GapEnd)
