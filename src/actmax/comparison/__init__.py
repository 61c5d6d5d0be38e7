"""Do two groups of activations differ, unit by unit? Tests that say when they break.

    >>> from actmax.comparison import compare
    >>> table = compare([[0.1], [0.4], [0.2], [0.9], [0.3], [1.2]], [0, 0, 0, 1, 1, 1]).table

`compare` gives every statistic of a unit in one row; `one_sample` asks whether a mean differs from a number;
`assumptions` says when Student's t is doubtful; `concordance` sets the t-test beside logistic regression;
`decode_labels` asks how well several units together tell the groups apart; `simulate` does all of it where the truth is
known.
"""

from actmax.comparison._compare import P_COLUMNS, STATUSES, Comparison, compare
from actmax.comparison._corrections import correct
from actmax.comparison._ttests import OneSample, one_sample
from actmax.comparison.assumptions import Assumptions, assumptions
from actmax.comparison.before_after import BeforeAfter, before_after
from actmax.comparison.concordance import Concordance, concordance
from actmax.comparison.decoder import Decoding, decode_labels
from actmax.comparison.simulation import DISTRIBUTIONS, Design, Simulation, simulate

__all__ = [
    "DISTRIBUTIONS",
    "P_COLUMNS",
    "STATUSES",
    "Assumptions",
    "BeforeAfter",
    "Comparison",
    "Concordance",
    "Decoding",
    "Design",
    "OneSample",
    "Simulation",
    "assumptions",
    "before_after",
    "compare",
    "concordance",
    "correct",
    "decode_labels",
    "one_sample",
    "simulate",
]
