"""What does a unit of a language model respond to, and would you get the same answer again?

The front doors are the command line (`actmax`, a Hydra app) and these modules:

- `actmax.model.subject`: load and freeze a language model, capture activations at any site.
- `actmax.maximize.module`: the LightningModule that optimizes embeddings, many restarts at once.
- `actmax.model.nearest`: nearest tokens by cosine.
- `actmax.evidence`: counts, nulls, verdicts.
- `actmax.stats`: t-tests and logistic regression that say when they break.
- `actmax.tasks.tuning`: which units tell one category of words from another.
- `actmax.tasks.examples`: where in real text units are highest.
- `actmax.records.store`: what a job leaves on disk.
"""

from importlib.metadata import version

__version__ = version("actmax")
