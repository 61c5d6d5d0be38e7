"""Findings: words, interval, p and printed numbers of a claim say the same; tables and JSON give back the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import isnan, nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import actmax
from actmax.evidence.findings import (
    COLUMNS,
    UNIT_MEASURES,
    Finding,
    Measure,
    finding,
    findings_of,
    findings_table,
    unit_findings,
)
from actmax.evidence.nulls import Null, against
from actmax.evidence.own import Own
from actmax.evidence.pairs import Alternative
from actmax.evidence.readings import OwnStatus, Reading, Transfer, read
from actmax.evidence.settings import ALPHA, CLAIMS, RANDOM_MOVES, RANDOM_TEXT, RANDOM_TOKENS, claim_alpha
from actmax.evidence.verdicts import Agreed, decide
from actmax.records.store import Record
from actmax.report.words import (
    CLAIM_WORDS,
    claim_words,
    in_order,
    label,
    p_words,
)
from actmax.stats.design import Design
from actmax.stats.simulation import simulate
from actmax.tasks.simulation.tables import rejection_findings
from actmax.tasks.units.card import NAMES, card
from unit_rows import ROW, UNTESTED

SIDES: tuple[Alternative, ...] = ("two-sided", "greater", "less")
KINDS = ("normal", "integers", "constant", "ties", "rounding", "shares")
NUMBERS = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**32),
        "draws": st.one_of(st.integers(1, 3000), st.sampled_from([19, 20, 39, 40, 139, 199, 279, 999, 1399])),
        "kind": st.sampled_from(KINDS),
        "rank": st.floats(-0.1, 1.1),
        "tail": st.sampled_from([1.0, 0.05, 0.01, 0.005]),
        "side": st.sampled_from(SIDES),
        "alpha": st.one_of(st.sampled_from([0.05, 0.05 / 7, 0.01, 0.2]), st.floats(1e-4, 0.9)),
        "measure": st.sampled_from(sorted(CLAIM_WORDS)),
    }
)
"""What a random null is made of, and at which of its quantiles (or beyond it) the observed value lies."""


def null_of(numbers: Mapping[str, Any]) -> Null:
    """A null of random draws; the observed value is a draw, lies between two or beyond all, or is a draw rounded."""
    noise, count = np.random.default_rng(numbers["seed"]), numbers["draws"]
    draws = {
        "normal": lambda: noise.normal(size=count) * 10.0 ** noise.integers(-3, 4),
        "integers": lambda: noise.integers(44, 51, count).astype(float),
        "constant": lambda: np.full(count, 0.3),
        "ties": lambda: np.append(np.full(count // 2, 0.1), noise.random(count - count // 2) / 5),
        "rounding": lambda: 0.1 * noise.integers(0, 8, count),
        "shares": lambda: noise.integers(0, 3, (count, 45)).mean(axis=1) / 5,
    }[numbers["kind"]]()
    # `tail` brings the rank near 0 or 1, where the limits are
    rank = numbers["rank"] * numbers["tail"] if noise.random() < 0.5 else 1 - (1 - numbers["rank"]) * numbers["tail"]
    place, ordered = round(rank * count), np.sort(draws)
    step = 1.0 if numbers["kind"] == "integers" else float(np.ptp(draws)) / 7 + 0.01
    if place < 0 or place >= count:
        observed = ordered[0] - step if place < 0 else ordered[-1] + step
    else:
        observed = ordered[place]
    if numbers["kind"] == "rounding":
        observed = sum([0.1] * round(observed / 0.1))  # 0.1 + 0.1 + 0.1 is not 3 x 0.1
    if numbers["kind"] == "normal" and noise.random() < 0.5:
        observed += step * noise.normal() / count
    return against(observed, draws, alternative=numbers["side"])


def finding_of(numbers: Mapping[str, Any]) -> Finding:
    null, alpha = null_of(numbers), numbers["alpha"]
    ends = (null.mean, *null.limits(alpha))
    options: dict[str, Any] = {"p": null.p, "alpha": alpha, "alternative": numbers["side"], "draws": null.draws}
    return finding(Measure(numbers["measure"]), null.observed, ends, **options)


def number(text: str) -> float:
    return float(text.rstrip("%"))


def assert_says_one_thing(one: Finding) -> None:
    """p, interval, words and printed numbers of a finding claim the same, on the same side."""
    below, above = one.observed < one.null_low, one.observed > one.null_high
    assert one.claimed == (one.p <= one.alpha) == (below or above), one
    low, inside, high = CLAIM_WORDS[one.measure]
    untested = isnan(one.null_low) and isnan(one.null_high)
    expected = "not tested" if untested else low if below else high if above else inside
    assert claim_words(one) == expected, one
    assert (claim_words(one) in (low, high)) == one.claimed
    assert not (below and one.alternative == "greater")
    assert not (above and one.alternative == "less")
    assert isnan(one.p) or one.p >= one.smallest_p, one
    for form in (NAMES.get(one.measure, ("", ".3g"))[1], ".3g", ".1%", ".0f", ".4f"):
        observed, *ends = in_order(one, form)
        printed = [number(observed) < number(ends[0]), number(observed) > number(ends[1])]
        assert printed == [below, above], (form, observed, ends, one)


@settings(max_examples=1000, deadline=None)
@given(NUMBERS)
def test_claims_p_interval_and_words_say_the_same(numbers: dict[str, Any]) -> None:
    assert_says_one_thing(finding_of(numbers))


def test_the_property_can_fail() -> None:
    """Each side, each kind of draws and each sort of answer occurs; numbers in few digits would change sides."""
    noise, seen, printed = np.random.default_rng(0), set[tuple[Any, ...]](), set[bool]()
    for at in range(4000):
        numbers = {"seed": at, "draws": int(noise.integers(1, 400)), "kind": KINDS[at % len(KINDS)], "tail": 0.05}
        numbers |= {"rank": float(noise.uniform(-0.1, 1.1)), "side": SIDES[at % 3], "alpha": 0.05}
        one = finding_of(numbers | {"measure": Measure.NEAREST_COSINE})
        seen |= {(one.alternative, one.reading), (numbers["kind"], one.claimed)}
        plain = [number(f"{value:.2g}") for value in (one.observed, one.null_low, one.null_high)]
        printed.add(one.claimed == (plain[0] < plain[1] or plain[0] > plain[2]))
    sides = {(side, reading) for side in SIDES for reading in Reading}
    never = {("greater", Reading.BELOW), ("less", Reading.ABOVE)}
    assert seen == (sides - never) | {(kind, claimed) for kind in KINDS for claimed in (True, False)}
    assert printed == {True, False}


def test_an_interval_of_another_level_is_caught() -> None:
    null = against(2.0, np.linspace(-3, 3, 199))
    ends = (null.mean, *null.limits(0.5))
    with pytest.raises(AssertionError):
        assert_says_one_thing(finding(Measure.RETENTION, 2.0, ends, p=null.p, alpha=0.05, draws=199))


def test_the_smallest_p() -> None:
    """It is that of the null, on either side, and where it is above the level nothing is tested."""
    for draws in (1, 10, 19, 20, 38, 39, 279, 280, 999):
        for side in SIDES:
            null = against(9.0 if side != "less" else -9.0, np.zeros(draws), alternative=side)
            one = finding(
                Measure.RETENTION, null.observed, (0, *null.limits(ALPHA)), p=null.p, alternative=side, draws=draws
            )
            assert one.p == pytest.approx(one.smallest_p)
            assert one.smallest_p == pytest.approx(null.smallest_p)
            assert (claim_words(one) == "not tested") == (null.smallest_p > ALPHA) == (not one.claimed)
            assert "the smallest that" in p_words(one)


def random_row(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """A unit's row whose every claim comes from random draws of its null, as in a job."""
    row, level = dict(ROW), claim_alpha(numbers["ends"])
    row |= {"null_of_ends": numbers["ends"], "gap_alternative": numbers["side"]}
    for at, (name, (measure, side)) in enumerate(UNIT_MEASURES.items()):
        made = {"seed": numbers["seed"] + at, "draws": 999, "kind": KINDS[(numbers["seed"] + at) % len(KINDS)]}
        made |= {"tail": 0.05, "rank": numbers["ranks"][at], "side": side or numbers["side"]}
        null = null_of(made)
        row |= {measure.value: null.observed} | null.claim_columns(name, 0.02 if name == "own_tokens" else level)
    return row if numbers["own"] else row | UNTESTED


ROWS = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**32),
        "ranks": st.lists(st.floats(-0.1, 1.1), min_size=len(UNIT_MEASURES), max_size=len(UNIT_MEASURES)),
        "ends": st.sampled_from([RANDOM_MOVES, RANDOM_TOKENS, RANDOM_TEXT]),
        "side": st.sampled_from(["greater", "less"]),
        "own": st.booleans(),
    }
)


def assert_transfer_says_one_thing(row: dict[str, Any], found: list[Finding]) -> None:
    """The card's row and the findings on transfer show the same numbers."""
    (line,) = [line for line in card(row).rows if str(line[0].text) == "works elsewhere"]
    _, observed, chance, reading, p = (str(cell.text) for cell in line)
    for one in found:
        assert_says_one_thing(one)
        assert in_order(one, ".3g")[0] in observed
        assert all(text in chance for text in in_order(one, ".3g")[1:] if text != "nan")
        assert p_words(one, brief=True) in p
    assert reading == label(Transfer(row["transfer"]))


@settings(max_examples=100, deadline=None)
@given(ROWS)
def test_a_card_claims_what_its_findings_claim(numbers: dict[str, Any]) -> None:
    row = random_row(numbers)
    found = {one.measure: one for one in unit_findings(row)}
    expected = {UNIT_MEASURES[name][0] for name in CLAIMS[numbers["ends"]]}
    elsewhere = {Measure.TRANSFER_BOS, Measure.TRANSFER_TEXT}
    assert_transfer_says_one_thing(row, [found.pop(measure) for measure in sorted(elsewhere)])
    assert set(found) == expected | ({Measure.OWN_TOKENS} if numbers["own"] else set())
    lines = card(row).rows[: len(found)]
    for line, measure in zip(lines, [measure for measure in NAMES if measure in found], strict=True):
        one = found[measure]
        if isnan(one.observed):
            assert not one.claimed
            continue
        assert_says_one_thing(one)
        _, observed, chance, reading, p = (str(cell.text) for cell in line)
        printed = in_order(one, NAMES[measure][1])
        assert observed.startswith(printed[0])
        assert all(text in chance for text in printed[1:] if text.rstrip("%") != "nan")
        assert reading == claim_words(one)
        assert p == (p_words(one, brief=True) or "–")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Rows of real units: of a tiny run with two control units, of one to minimize, and of one without other units."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACTMAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        lm = actmax.load("tiny", dtype="float64")
        small: dict[str, Any] = {"nulls": {"draws": 299, "displacements": 20}, "gap": {"draws": 200}}
        small |= {"transfer": {"draws": 40}}
        small |= {"steps": 12, "progress": False}
        runs = [
            lm.maximize("resid_pre.3[7]", seeds=6, **small),
            lm.maximize("resid_pre.3[8]", seeds=4, controls=0, sign="minimize", **small),
        ]
        return pd.concat([one.table("units") for one in runs], ignore_index=True)


def test_real_rows(real: pd.DataFrame) -> None:
    rows = real.to_dict("records")
    assert [row["own"] for row in rows] == ["ok"] * 3 + ["one_unit"]
    found = [one for row in rows for one in unit_findings(row)]
    for one in found:
        if not isnan(one.observed) and not isnan(one.p):
            assert_says_one_thing(one)
    own = {Measure.TRANSFER_NONE}  # the context that the tokens were found in
    assert {one.measure for one in found} == {measure for measure, _ in UNIT_MEASURES.values()} - own
    assert {one.claimed for one in found} == {True, False}
    assert {one.alternative for one in found if one.measure == Measure.SNAPPED} == {"greater", "less"}
    (untested,) = [one for one in unit_findings(rows[-1]) if one.measure == Measure.DIRECTION]
    assert claim_words(untested) == "not tested"
    for row in rows[:3]:
        levels = {one.measure: one.alpha for one in unit_findings(row)}
        own = levels.pop(Measure.OWN_TOKENS, 0.0)
        of_meaning = [levels.pop(one, ALPHA) for one in (Measure.MEANING, Measure.MEANING_APART, Measure.OWN_MEANING)]
        assert of_meaning == [ALPHA] * 3  # a question of its own
        elsewhere = {levels.pop(measure, None) for measure in (Measure.TRANSFER_BOS, Measure.TRANSFER_TEXT)}
        assert elsewhere == ({ALPHA / 2} if row["transfer_own"] == "none" else {None})  # controls are not tried
        assert set(levels.values()) == {claim_alpha(RANDOM_MOVES)}
        assert own <= claim_alpha(RANDOM_MOVES)


def test_rows_of_tests_are_like_real_ones(real: pd.DataFrame) -> None:
    assert set(ROW) | set(UNTESTED) <= set(real.columns)
    levels = {name for name in real.columns if name.endswith(("_alpha", "_draws"))}
    assert {name for name in levels if "meaning" not in name} <= set(ROW)  # those on meaning: tests/test_meaning.py


def by_measure(row: dict[str, Any]) -> dict[Measure, Finding]:
    return {one.measure: one for one in unit_findings(row)}


def test_a_card_says_of_the_first_position_and_of_other_contexts() -> None:
    said = card(ROW)
    (line,) = [line for line in said.rows if str(line[0].text) == "works elsewhere"]
    assert [str(cell.text) for cell in line[1:4]] == [
        "bos 6.5 (75%), text 1.5 (12%)",
        "random tokens: up to 2.25, 1.62",
        "in part",
    ]
    assert "the norm at resid_pre.8 is 812 there and 130 later" in said.caption
    nothing = card(ROW | {"transfer": "nothing_to_carry", "first_norm": nan, "later_norm": nan})
    (line,) = [line for line in nothing.rows if str(line[0].text) == "works elsewhere"]
    assert "%" not in str(line[1].text)  # a share of nothing
    assert "attention sink" not in nothing.caption
    untried = card({name: value for name, value in ROW.items() if "transfer" not in name})
    assert "works elsewhere" not in [str(line[0].text) for line in untried.rows]


def test_findings_of_a_row() -> None:
    found = by_measure(ROW)
    tokens = found[Measure.SHARED_TOKENS]
    assert (tokens.site, tokens.layer, tokens.index) == ("resid_pre", 8, 91)
    assert (tokens.observed, tokens.null_mean, tokens.p, tokens.draws) == (0.0623, 0.0101, 0.001, 999)
    assert tokens.effect == pytest.approx(0.0522)
    assert (tokens.reading, tokens.claimed, tokens.alternative) == (Reading.ABOVE, True, "greater")
    assert tokens.alpha == claim_alpha(RANDOM_MOVES)
    assert list(found)[:3] == [Measure.SHARED_TOKENS, Measure.OWN_TOKENS, Measure.DIRECTION]
    assert found[Measure.OWN_TOKENS].claimed
    assert found[Measure.OWN_TOKENS].alpha == claim_alpha(RANDOM_MOVES)
    assert not found[Measure.DIRECTION].claimed
    assert not found[Measure.RETENTION].claimed  # p = 0.012, one claim of seven
    assert found[Measure.OPTIMUM].claimed
    assert all((one.claimed, one.reading) != (True, Reading.WITHIN) for one in found.values())
    alone = by_measure(ROW | UNTESTED)
    assert Measure.OWN_TOKENS not in alone
    assert claim_words(alone[Measure.DIRECTION]) == "not tested"
    searched = by_measure(ROW | {"null_of_ends": RANDOM_TEXT})
    assert not {Measure.NEAREST_COSINE, Measure.OPTIMUM} & set(searched)  # it ends at tokens


def test_what_does_not_exist_is_not_claimed() -> None:
    row = ROW | decide([Agreed(nan, 0.001, nan, nan)], Own(OwnStatus.ONE_UNIT))[0].flat()
    row |= {"shared_tokens": nan} | against(nan, [nan] * 99, alternative="greater").claim_columns("shared_tokens", 0.01)
    one = by_measure(row)[Measure.SHARED_TOKENS]
    assert (one.reading, one.claimed) == (Reading.NOT_AVAILABLE, False)
    assert claim_words(one) == "not tested"
    assert isnan(one.effect)
    assert p_words(one) == ""


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((0.0, 1.0, 2.0), Reading.BELOW),
        ((1.0, 1.0, 2.0), Reading.WITHIN),
        ((2.5, 1.0, 2.0), Reading.ABOVE),
        ((2.5, nan, 2.0), Reading.ABOVE),
        ((1.5, nan, 2.0), Reading.WITHIN),
        ((0.5, 1.0, nan), Reading.BELOW),
        ((1.5, nan, nan), Reading.NOT_AVAILABLE),
        ((nan, 1.0, 2.0), Reading.NOT_AVAILABLE),
    ],
)
def test_readings(numbers: tuple[float, float, float], expected: Reading) -> None:
    assert read(*numbers) == expected


def same(some: tuple[Finding, ...], others: tuple[Finding, ...]) -> bool:
    """Equal, NaN included."""
    return [repr(one) for one in some] == [repr(one) for one in others]


class TestTable:
    FINDINGS = (*unit_findings(ROW), finding(Measure.TUNED_SHARE, 0.1, (0.01, nan, nan)))

    def test_round_trips(self, tmp_path: Path) -> None:
        record = Record(tmp_path)
        record.write_table("findings", findings_table(self.FINDINGS))
        record.write_json("summary.json", {"findings": [one.as_dict() for one in self.FINDINGS]})
        assert same(findings_of(record.table("findings")), self.FINDINGS)
        assert same(findings_of(record.summary()["findings"]), self.FINDINGS)
        assert not same(findings_of(record.table("findings")), self.FINDINGS[1:])

    @pytest.mark.parametrize("count", [0, 1, -1, None])
    def test_has_one_schema(self, count: int | None) -> None:
        table = findings_table(self.FINDINGS[-1:] if count == -1 else self.FINDINGS[:count])
        assert {name: str(kind) for name, kind in table.dtypes.items()} == COLUMNS
        assert "findings" not in table
        assert not [name for name in table if " " in str(name)]

    def test_values_are_plain(self) -> None:
        text = json.dumps(self.FINDINGS[0].as_dict())
        assert '"measure": "shared_tokens"' in text
        assert '"reading": "above"' in text
        assert '"smallest_p": 0.001' in text


def test_of_a_simulation() -> None:
    found = rejection_findings(simulate(Design(effects=[0.0, 1.0, 6.0], repetitions=20)))
    assert [(one.measure, one.effect) for one in found] == [
        (Measure.STUDENT_REJECTIONS, 0.0),
        (Measure.WALD_REJECTIONS, 0.0),
        (Measure.STUDENT_REJECTIONS, 6.0),
        (Measure.WALD_REJECTIONS, 6.0),
    ]
    assert found[2].observed == 1
    assert found[0].observed < 0.3
    assert {(one.null_mean, one.site, one.claimed) for one in found} == {(0.05, None, False)}
    assert findings_table(found)["index"].isna().to_numpy().all()
