"""How often the same answer comes back, and how often it would by chance: counts, agreement, nulls, verdicts.

`measure` gives the headline numbers of one unit, `agree` how far its restarts agree in three spaces, `own_agreement`
whether a unit's restarts agree more with each other than with those of other units, `decide` the declared verdict.
Every number stands beside its null.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
