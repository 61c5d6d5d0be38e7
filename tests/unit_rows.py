"""A unit's row as `units.parquet` holds it, with numbers that tests change."""

from __future__ import annotations

from math import nan
from typing import Any

from actmax.evidence.nulls import RANDOM_MOVES


def null(name: str, mean: float, low: float, high: float, p: float) -> dict[str, float]:
    return {f"null_{name}_mean": mean, f"null_{name}_low": low, f"null_{name}_high": high, f"null_{name}_p": p}


ROW: dict[str, Any] = {
    "site": "resid_pre",
    "layer": 8,
    "index": 91,
    "restarts": 10,
    "restarts_frozen": 0,
    "tokens_total": 50,
    "tokens_unique": 49,
    "init_retention": 0.48,
    "cosine_mean": 0.14253,
    "activation_initial_mean": 1.2345678,
    "activation_final_mean": 334.41,
    "jaccard": 0.0123,
    "displacement_cosine_assigned": 0.2345,
    "null_of_ends": RANDOM_MOVES,
    "pool_draws": 1000,
    "end_draws": 100,
    "text_draws": 1000,
    **null("unique", 49.83, 49.0, 50.0, 0.33),
    **null("cosine", 0.14461, 0.1401, 0.1492, 0.36),
    **null("retention", 0.345, 0.26, 0.46, 0.0198),
    **null("displaced_unique", 48.2, 46.0, 50.0, 0.8),
    **null("jaccard", 0.0101, 0.004, 0.02, 0.31),
    **null("displacement_cosine_assigned", 0.0511, 0.03, 0.071, 1 / 101),
    "convergence": "converges_in_embedding_space",
    "convergence_status": "ok",
    "convergence_alpha": 0.05,
    "convergence_p_tokens": 0.31,
    "convergence_p_embeddings": 2 / 101,
    "own_p_tokens": nan,
    "own_p_embeddings": nan,
    "own": "one_unit",
    "own_units": 1,
    "own_seeds": 10,
    "own_draws": 0,
    "own_contrast_tokens": nan,
    "own_contrast_embeddings": nan,
    **null("own_contrast_tokens", nan, nan, nan, nan),
    **null("own_contrast_embeddings", nan, nan, nan, nan),
    "random_activation_mean": 0.5,
    "random_activation_sd": 1.25,
    "activation_snapped_mean": 2.5,
    "activation_retokenised_mean": 2.25,
    "kept_snapped": 0.25,
    "kept_retokenised": 0.125,
    "z_snapped": 1.6,
    **null("final", 0.5, -0.25, 1.25, 0.002),
    **null("snapped", 0.5, -0.25, 1.25, 0.004),
    **null("cross_entropy", 11.5, 11.0, 12.0, 0.5),
    "cross_entropy_mean": 10.25,
    "cross_entropy_initial_mean": 11.25,
    "gap": "at_the_snap",
}
"""The row of a unit that converges in embedding space and loses its gain at the snap."""
