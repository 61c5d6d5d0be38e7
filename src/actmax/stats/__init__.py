"""Do two groups of activations differ, unit by unit? Tests that say when they break; nothing here needs torch.

    >>> from actmax.stats import compare
    >>> table = compare([[0.1], [0.4], [0.2], [0.9], [0.3], [1.2]], [0, 0, 0, 1, 1, 1]).table

`compare` gives every statistic of a unit in one row; `one_sample` asks whether a mean differs from a number;
`assumptions` says when Student's t is doubtful; `concordance` sets the t-test beside logistic regression;
`decode_labels` asks how well several units together tell the groups apart; `simulate` does all of it where the truth is
known.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
