"""A unit's row as `units.parquet` holds it, with numbers that tests change."""

from __future__ import annotations

from math import nan
from typing import Any

from actmax.evidence.settings import RANDOM_MOVES, claim_alpha


def null(name: str, mean: float, low: float, high: float, p: float, *, draws: int | None = None) -> dict[str, float]:
    """The columns of a null; with the level and the draws where it is that of a claim."""
    columns = {f"null_{name}_mean": mean, f"null_{name}_low": low, f"null_{name}_high": high, f"null_{name}_p": p}
    if draws is None:
        return columns
    return columns | {f"null_{name}_alpha": claim_alpha(RANDOM_MOVES), f"null_{name}_draws": draws}


def _transfer(name: str, mean: float, high: float, p: float, share: tuple[float, float, float]) -> dict[str, float]:
    null = {"mean": mean, "low": nan, "high": high, "p": p, "alpha": 0.025, "draws": 39_999}
    shares = dict(zip(("share", "share_low", "share_high"), share, strict=True))
    found = {f"transfer_{name}_{part}": value for part, value in shares.items()}
    return found | {f"null_transfer_{name}_{part}": value for part, value in null.items()}


ROW: dict[str, Any] = {
    "site": "resid_pre",
    "layer": 8,
    "index": 91,
    "restarts": 10,
    "restarts_frozen": 0,
    "tokens_total": 50,
    "tokens_unique": 45,
    "pairs": 45,
    "pairs_sharing": 9,
    "init_retention": 0.48,
    "cosine_mean": 0.14253,
    "activation_initial_mean": 1.2345678,
    "activation_final_mean": 334.41,
    "activation_initial_sd": 0.75,
    "activation_final_sd": 12.5,
    "shared_tokens": 0.0623,
    "jaccard": 0.0323,
    "displacement_cosine_assigned": 0.2345,
    "kappa_tokens": 0.053,
    "kappa_tokens_low": 0.012,
    "kappa_tokens_high": 0.094,
    "kappa_embeddings": 0.19,
    "kappa_embeddings_low": 0.16,
    "kappa_embeddings_high": 0.22,
    "null_of_ends": RANDOM_MOVES,
    **null("unique", 49.83, 48.0, 50.0, 0.002, draws=999),
    **null("cosine", 0.14461, 0.1401, 0.1492, 0.36, draws=999),
    **null("retention", 0.345, 0.24, 0.5, 0.012, draws=999),
    **null("shared_tokens", 0.0101, nan, 0.0412, 0.001, draws=999),
    **null("displacement_cosine_assigned", 0.0511, nan, 0.071, 1 / 512),
    "verdict": "detectable_not_the_same_answer",
    "answer": "no",
    "verdict_tokens": "detectable_not_the_same_answer",
    "verdict_embeddings": "shared_with_other_units",
    "verdict_status": "ok",
    "own": "ok",
    "own_units": 3,
    "own_seeds": 10,
    "own_tokens": 0.0623,
    **null("own_tokens", 0.0122, nan, 0.0333, 3 / 59_049, draws=59_048),
    "direction": 0.2012,
    **null("direction", 0.1511, nan, 0.2444, 0.25, draws=59_048),
    "gap_alternative": "greater",
    "random_activation_mean": 0.5,
    "random_activation_sd": 1.25,
    "random_activation_draws": 10_000,
    "start_tokens_activation_mean": 0.75,
    "start_tokens_p": 1 / 256,
    "passes": 1000,
    "best_of_random_mean": 4.5,
    "best_of_random_low": 4.25,
    "best_of_random_high": 4.75,
    "activation_snapped_mean": 2.5,
    "activation_retokenised_mean": 1.125,
    "kept_snapped": 0.25,
    "kept_retokenised": 0.125,
    "z_snapped": 1.6,
    "z_of_mean_snapped": 5.06,
    **null("final", 0.5, nan, 1.25, 1 / 40_000, draws=39_999),
    **null("snapped", 0.5, nan, 1.25, 0.0002, draws=39_999),
    **null("retokenised", 0.5, nan, 1.25, 0.012, draws=39_999),
    **null("cross_entropy", 11.5, 11.0, 12.0, 0.5),
    "cross_entropy_mean": 10.25,
    "cross_entropy_initial_mean": 11.25,
    "gap": "at_the_tokenizer",
    "first_norm": 812.0,
    "later_norm": 130.0,
    "transfer": "in_part",
    "transfer_own": "none",
    "transfer_none_mean": 2.5,
    "transfer_bos_mean": 6.5,
    "transfer_text_mean": 1.5,
    **_transfer("none", 0.5, 1.25, 2.5e-5, (1.0, 1.0, 1.0)),
    **_transfer("bos", 1.25, 2.25, 2.5e-5, (0.75, 0.625, 0.875)),
    **_transfer("text", 0.75, 1.625, 0.0625, (0.125, -0.125, 0.375)),
}
"""The row of a unit whose restarts share some tokens of its own, too few to be the same, and whose text is lost."""

UNTESTED: dict[str, Any] = {
    "own": "one_unit",
    "own_units": 1,
    "own_tokens": nan,
    **null("own_tokens", nan, nan, nan, nan, draws=0),
    **null("direction", nan, nan, nan, nan, draws=0),
    "verdict": "not_judged",
    "answer": "not_judged",
    "verdict_tokens": "not_judged",
    "verdict_embeddings": "not_judged",
    "verdict_status": "other_units_not_tested",
}
"""What the row says where there was no other unit."""
