"""Which units tell one category of words from another?

- `actmax.tuning.words`: the built-in list, a CSV or CoNLL-U files in, words of two groups out.
- `actmax.tuning.tokens`: words as token ids with the place of each word, batched by length.
- `actmax.tuning.activations`: one vector per word, site and layer, by a Lightning DataModule and `Trainer.predict`.
- `actmax.tuning.store`: where these lie, in memory or on disk.
- `actmax.tuning.analysis`: the comparison per unit, its replication on held-out words, decoders, nulls.
- `actmax.tuning.heatmap`: one unit over a text.

Import the modules: the first needs nothing heavy, and the command line checks a word list before it loads torch.
"""
