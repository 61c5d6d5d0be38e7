"""What can be read from numbers: sides of a null, verdicts, where a gain is lost, why a question was not asked.

The values of these enums stand in records; `actmax.report.words` says them in words. Nothing heavy is imported.
"""

from __future__ import annotations

from enum import StrEnum
from math import isfinite


class Reading(StrEnum):
    """Where an observed value lies to the interval of its null."""

    BELOW = "below"
    WITHIN = "within"
    ABOVE = "above"
    NOT_AVAILABLE = "not_available"
    """The value or the interval does not exist."""


def read(observed: float | int, low: float | int, high: float | int) -> Reading:
    """Where an observed value lies to an interval; one end of the interval may be missing.

    Example:
        >>> read(3, 0.5, 2.0).value, read(1, 0.5, 2.0).value, read(1, float("nan"), float("nan")).value
        ('above', 'within', 'not_available')
    """
    if not isfinite(observed) or not (isfinite(low) or isfinite(high)):
        return Reading.NOT_AVAILABLE
    return Reading.BELOW if observed < low else Reading.ABOVE if observed > high else Reading.WITHIN


class Verdict(StrEnum):
    """What may be said of one unit's restarts by the declared rule (`actmax.evidence.verdicts.decide`)."""

    REPRODUCIBLE = "reproducible"
    """Above chance, the unit's own, and the lower limit of the chance-corrected agreement is at least 0.5."""
    PARTLY = "partly_reproducible"
    """Above chance, the unit's own, and the lower limit of the chance-corrected agreement is at least 0.1."""
    DETECTABLE = "detectable_not_the_same_answer"
    """Above chance and the unit's own, but too little to call the answers the same."""
    SHARED = "shared_with_other_units"
    """Restarts agree, but no more than restarts of other units do."""
    CHANCE = "not_above_chance"
    NOT_JUDGED = "not_judged"

    @property
    def answer(self) -> Answer:
        """The answer to: would another start give the same?"""
        answers = {Verdict.REPRODUCIBLE: Answer.YES, Verdict.PARTLY: Answer.PARTLY, Verdict.NOT_JUDGED: Answer.UNKNOWN}
        return answers.get(self, Answer.NO)


class Answer(StrEnum):
    """The headline: whether another start gives the same answer."""

    YES = "yes"
    PARTLY = "partly"
    NO = "no"
    UNKNOWN = "not_judged"


VERDICTS = (Verdict.REPRODUCIBLE, Verdict.PARTLY, Verdict.DETECTABLE, Verdict.SHARED, Verdict.CHANCE)
"""The verdicts that say something of a unit, strongest first."""


class DecisionStatus(StrEnum):
    """Whether there was anything to judge, or why not."""

    OK = "ok"
    ONE_RESTART = "one_restart"
    NON_FINITE = "non_finite"
    """All restarts went non-finite."""
    TOO_FEW_DRAWS = "too_few_draws"
    """The null has too few draws for any p to reach the level."""
    OTHER_UNITS_NOT_TESTED = "other_units_not_tested"
    """Restarts agree more than chance, and whether other units' restarts agree as much was not tested."""


class OwnStatus(StrEnum):
    """Whether a unit's restarts could be set against those of other units, or why not."""

    OK = "ok"
    ONE_UNIT = "one_unit"
    ONE_SEED = "one_seed"
    NO_SHARED_SEEDS = "no_shared_seeds"
    """The units share fewer than two seeds."""
    TOO_MANY_UNITS = "too_many_units"
    """The similarities of all restarts would take too much memory."""
    OUT_OF_REACH = "out_of_reach"
    """With so few units and seeds no p can reach the level."""


class GapEnd(StrEnum):
    """How far an optimum's gain over random tokens is carried on its way to text."""

    NOT_TESTED = "not_tested"
    """The optimum, or what random tokens do, is no number."""
    NO_GAIN = "no_gain"
    """The optimum itself is not beyond random tokens."""
    SNAP = "at_the_snap"
    """The optimum is beyond random tokens, and its decoded tokens are not."""
    RETOKENISE = "at_the_tokenizer"
    """The decoded tokens are beyond random tokens, and their text tokenised again is not."""
    SURVIVES = "survives"
    """The text is still beyond random tokens."""


class MeaningStatus(StrEnum):
    """Whether it was measured what restarts are about, or why not."""

    OK = "ok"
    OFF = "off"
    """No embedder was asked for."""
    EXTRA_MISSING = "extra_missing"
    """The package that carries the embedder is not installed."""
    ONE_RESTART = "one_restart"
    UNKNOWN_PIECES = "unknown_pieces"
    """The embedder does not know most of the pieces of the texts."""


class Transfer(StrEnum):
    """Whether tokens keep, in other contexts, at least half of how far beyond random ones they were found to be."""

    EVERYWHERE = "yes"
    IN_PART = "in_part"
    """In some of the other contexts."""
    NOWHERE = "no"
    NOTHING = "nothing_to_carry"
    """Where they were found, they are not beyond random tokens."""
    NOT_TESTED = "not_tested"


class NeighbourStatus(StrEnum):
    """Whether the coordinates of a site were compared before and after, or why not."""

    OK = "ok"
    ONE_RESTART = "one_restart"
    TOO_MANY_UNITS = "too_many_units"
