"""Do two groups of activations differ, unit by unit? Tests that say when they break.

    >>> from actmax.stats import compare
    >>> table = compare([[0.1], [0.4], [0.2], [0.9], [0.3], [1.2]], [0, 0, 0, 1, 1, 1]).table

`compare` gives every statistic of a unit in one row; `one_sample` asks whether a mean differs from a number;
`assumptions` says when Student's t is doubtful; `concordance` sets the t-test beside logistic regression;
`decode_labels` asks how well several units together tell the groups apart; `simulate` does all of it where the truth is
known.
"""

from actmax.stats._compare import P_COLUMNS, STATUSES, Comparison, compare
from actmax.stats._corrections import correct
from actmax.stats._ttests import OneSample, one_sample
from actmax.stats.assumptions import Assumptions, assumptions
from actmax.stats.before_after import BeforeAfter, before_after
from actmax.stats.concordance import Concordance, concordance
from actmax.stats.decoder import Decoding, decode_labels
from actmax.stats.simulation import DISTRIBUTIONS, Design, Simulation, simulate

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
