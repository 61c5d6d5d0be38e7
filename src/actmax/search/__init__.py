"""Search over real tokens: what maximizes a unit among sequences that somebody could type.

`search` runs many restarts in shared batches; `METHODS` are gcg, epo and, to set them beside, random draws and
sequences of real text.
"""

from actmax.search._alphabet import Alphabet
from actmax.search._front import Point, front_of, weight_of
from actmax.search._methods import METHODS, SearchSettings
from actmax.search._oracle import Evaluate, Oracle, Scored, Slopes
from actmax.search._restarts import Found, search, spreads
from actmax.search._text import real_text

__all__ = [
    "METHODS",
    "Alphabet",
    "Evaluate",
    "Found",
    "Oracle",
    "Point",
    "Scored",
    "SearchSettings",
    "Slopes",
    "front_of",
    "real_text",
    "search",
    "spreads",
    "weight_of",
]
