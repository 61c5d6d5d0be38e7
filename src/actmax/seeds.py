"""Streams of random numbers that never meet: every purpose draws from its own."""

from __future__ import annotations

import numpy as np
import torch


def stream(seed: int, purpose: str) -> torch.Generator:
    """Random numbers of their own: a null that shared its seed with a restart would draw that restart's noise again."""
    state = np.random.SeedSequence([seed, *purpose.encode()]).generate_state(1, np.uint64)
    return torch.Generator("cpu").manual_seed(int(state[0] >> np.uint64(1)))
