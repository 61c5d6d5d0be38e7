"""One room per task: its settings, checks, identity, run, result, page and collection."""
