"""A frozen language model: its sizes, its sites, what is read of it, and the nearest token of a vector."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
