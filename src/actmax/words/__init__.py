"""Words and their categories: the built-in list, a CSV, CoNLL-U files; and their tokens."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
