"""Maximize units over input embeddings: the gradient run."""
