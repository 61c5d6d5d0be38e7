"""Which units tell one category of words from another?

- `actmax.words.lists`: the built-in list, a CSV or CoNLL-U files in, words of two groups out.
- `actmax.words.encoding`: words as token ids with the place of each word.
- `actmax.tasks.tuning.activations`: a vector per word, site and layer, by `Trainer.predict`.
- `actmax.tasks.tuning.store`: where these lie, in memory or on disk.
- `actmax.tasks.tuning.analysis`: the comparison per unit, its replication on held-out words, decoders, nulls.
- `actmax.tasks.tuning.heatmap`: one unit over a text.

Import the modules: the first needs nothing heavy, and the command line checks a word list before it loads torch.
"""
