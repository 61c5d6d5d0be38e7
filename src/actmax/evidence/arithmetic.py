"""How far the same seeds end apart when only the arithmetic differs, beside how far different seeds end apart."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import combinations
from math import nan

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cosine_similarity

from actmax.evidence.nulls import Restarts


@dataclass(frozen=True)
class Ends:
    """Where some restarts of one unit ended."""

    ids: Int[Tensor, "restarts tokens"]
    """The tokens that the restarts decode to."""
    restarts: Restarts
    """The restarts that ended at these embeddings."""

    @property
    def moves(self) -> Float[Tensor, "restarts tokens d_model"]:
        """Displacements from the initial noise."""
        return self.restarts.final - self.restarts.initial


@dataclass(frozen=True)
class Apart:
    """How alike two restarts ended, position by position."""

    tokens_equal: float
    """Share of positions that decode to the same token in both restarts."""
    displacement_cosine: float
    """Mean cosine of the two displacements over positions; NaN where a position did not move."""
    activation_difference: float
    """|a - b| over the mean of |a| and |b|, for the activations a and b of the two restarts."""


def apart(one: Ends, i: int, two: Ends, j: int) -> Apart:
    """Compares restart i of one run with restart j of another, position by position."""
    a, b = float(one.restarts.activation_final[i]), float(two.restarts.activation_final[j])
    size = (abs(a) + abs(b)) / 2
    moves = one.moves[i].double(), two.moves[j].double()
    still = any(bool((move.norm(dim=1) == 0).any()) for move in moves)
    return Apart(
        tokens_equal=(one.ids[i] == two.ids[j]).double().mean().item(),
        displacement_cosine=nan if still else cosine_similarity(*moves, dim=1).mean().item(),
        activation_difference=abs(a - b) / size if size > 0 else 0.0,
    )


@dataclass(frozen=True)
class Rounding:
    """What arithmetic does to the restarts of one unit, and what the start does."""

    same_seed: tuple[Apart, ...]
    """Each repeated restart beside itself."""
    different_seeds: tuple[Apart, ...]
    """Each pair of restarts of the first run."""

    def flat(self) -> dict[str, float]:
        """Means over restarts and over pairs: `same_seed_tokens_equal`, `different_seeds_tokens_equal`, and so on."""
        return {
            f"{kind}_{name}": value
            for kind in ("same_seed", "different_seeds")
            for name, value in _means(getattr(self, kind)).items()
        }


def rounding(first: Ends, again: Ends) -> Rounding:
    """Sets the rounding spread of one unit beside the spread over seeds.

    Args:
        first: all restarts of the run.
        again: the first restarts of the run once more, in the same order.

    Example:
        >>> import torch
        >>> here = torch.eye(3)[:, None]
        >>> one = Restarts(0 * here, here, torch.zeros(3), torch.ones(3), torch.zeros(3, dtype=torch.bool))
        >>> ends = Ends(torch.tensor([[1], [2], [3]]), one)
        >>> found = rounding(ends, ends).flat()
        >>> found["same_seed_tokens_equal"], found["different_seeds_tokens_equal"]
        (1.0, 0.0)
    """
    count = len(first.ids)
    same = tuple(apart(first, row, again, row) for row in range(len(again.ids)))
    return Rounding(same, tuple(apart(first, i, first, j) for i, j in combinations(range(count), 2)))


def _means(found: tuple[Apart, ...]) -> dict[str, float]:
    if not found:
        return {"tokens_equal": nan, "displacement_cosine": nan, "activation_difference": nan}
    rows = [asdict(one) for one in found]
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
