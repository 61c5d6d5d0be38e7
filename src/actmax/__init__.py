"""What does a unit of a language model respond to, and would you get the same answer again?

The front doors are the command line (`actmax`, a Hydra app) and these modules:

- `actmax.subject`: load and freeze a language model, capture activations at any site.
- `actmax.maximization`: the LightningModule that optimizes embeddings, many restarts at once.
- `actmax.decoding`: nearest tokens by cosine.
- `actmax.reproducibility`: counts, nulls, verdicts.
- `actmax.comparison`: t-tests and logistic regression that say when they break.
- `actmax.tuning`: which units tell one category of words from another.
- `actmax.examples`: where in real text units are highest.
- `actmax.record`: what a job leaves on disk.
"""

from importlib.metadata import version

__version__ = version("actmax")
