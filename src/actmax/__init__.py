"""What does a unit of a language model respond to, and would you get the same answer again?

    >>> import actmax
    >>> lm = actmax.load("tiny")
    >>> found = lm.maximize("resid_pre.3[7]", seeds=3, steps=5, progress=False)  # doctest: +SKIP

`load` takes a model by name, `wrap` one that is in memory; both give a `LanguageModel` with `maximize`, `search`,
`examples` and `tune`. A result shows itself in a notebook and on a terminal, and has its tables as DataFrames; `save`
writes it, `open` reads it. `compare` sets two groups of activations side by side. The command line, `actmax`, does the
same jobs from Hydra configs.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
