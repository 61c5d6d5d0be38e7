"""How often the same answer comes back, and how often it would by chance: counts, agreement, nulls, verdicts.

`measure` gives the headline numbers of one unit, `agree` how far its restarts agree in three spaces, `own_agreement`
whether a unit's restarts agree more with each other than with those of other units, `decide` the declared verdict.
Every number stands beside its null.
"""

from actmax.evidence._agreement import Agreement, agree
from actmax.evidence._coverage import Incidence, coverage, rarefaction, richness
from actmax.evidence._estimates import Estimate, jackknife
from actmax.evidence._measures import (
    AGREEMENT,
    InitRetention,
    Measures,
    NullSettings,
    UniqueTokens,
    judge,
    measure,
    moves,
    repeated,
    verdict,
)
from actmax.evidence._nulls import (
    POOL_VERSION,
    RANDOM_MOVES,
    RANDOM_TEXT,
    RANDOM_TOKENS,
    Displaced,
    Null,
    Pool,
    Restarts,
    against,
    displace,
    displace_together,
    random_pool,
    redraw,
    uniform_unique,
)
from actmax.evidence._own import Own, OwnTest, own_agreement
from actmax.evidence._pairs import (
    EMBEDDINGS,
    TOKENS,
    Alternative,
    Statistic,
    assigned_cosines,
    cosines,
    entropy,
    jaccards,
    position_agreements,
)
from actmax.evidence._rounding import Ends, Rounding, rounding
from actmax.evidence._verdicts import PRIMARY, VERDICTS, Verdict, decide, shares

__all__ = [
    "AGREEMENT",
    "EMBEDDINGS",
    "POOL_VERSION",
    "PRIMARY",
    "RANDOM_MOVES",
    "RANDOM_TEXT",
    "RANDOM_TOKENS",
    "TOKENS",
    "VERDICTS",
    "Agreement",
    "Alternative",
    "Displaced",
    "Ends",
    "Estimate",
    "Incidence",
    "InitRetention",
    "Measures",
    "Null",
    "NullSettings",
    "Own",
    "OwnTest",
    "Pool",
    "Restarts",
    "Rounding",
    "Statistic",
    "UniqueTokens",
    "Verdict",
    "against",
    "agree",
    "assigned_cosines",
    "cosines",
    "coverage",
    "decide",
    "displace",
    "displace_together",
    "entropy",
    "jaccards",
    "jackknife",
    "judge",
    "measure",
    "moves",
    "own_agreement",
    "position_agreements",
    "random_pool",
    "rarefaction",
    "redraw",
    "repeated",
    "richness",
    "rounding",
    "shares",
    "uniform_unique",
    "verdict",
]
