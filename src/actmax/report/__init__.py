"""What is shown of a result: blocks, the sentences in them, and their renderings on a terminal, a page, a notebook.

A task describes what it shows as a `Page` of blocks, made from a `Source`: a record, or a result in memory.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
