"""Search over real tokens: what maximizes a unit among sequences that somebody could type.

`search` runs many restarts in shared batches; `METHODS` are gcg, epo and, to set them beside, random draws and
sequences of real text.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
