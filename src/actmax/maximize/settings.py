"""What a config says of a gradient run: its start, its priors, its optimizer. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from actmax.errors import InputError
from actmax.settings import setting
from actmax.weights import tensors_in


@dataclass
class InitSettings:
    """Where restarts start."""

    name: str = setting(MISSING, choices=("scaled", "randn", "tokens", "file"))
    """From what noise, or from which embeddings."""
    path: str | None = None
    """For `file`: the folder of an earlier record, or its `embeddings.safetensors`."""
    tensor: str = setting("final", choices=("initial", "final"))
    """For `file`: whether from where its restarts began or from where they ended."""


@dataclass
class TermSettings:
    """A loss term; a weight of 0 leaves it out."""

    weight: float = setting(0.0, least=0, most=1e9)
    """Strength of the term; 0 leaves it out."""
    scale: str = setting("relative", choices=("relative", "absolute"))
    """Unit of the weight: lengths of the objective's gradient at the start, or the formula as it stands."""


@dataclass
class ManifoldSettings(TermSettings):
    """Distance to the nearest tokens: over how many tokens, and how soft a minimum."""

    k: int = setting(10, least=1)
    """How many of the nearest tokens count."""
    temperature: float = setting(0.05, least=1e-6, most=1e6)
    """How soft the minimum over them is, in the unit of the squared distance (1: the tokens' mean length, squared)."""


@dataclass
class FluencySettings(TermSettings):
    """Cross-entropy of softly decoded tokens: how soft the tokens are."""

    temperature: float = setting(0.01, least=1e-6, most=1e6)
    """Temperature of the softmax over tokens, in cosines."""


@dataclass
class PrincipalSettings:
    """Whether the optimizee lies in the span of principal components, and of how many."""

    use: bool = False
    """Whether the optimizee lies in that span."""
    components: int = setting(64, least=1)
    """How many principal components of the token embeddings."""


@dataclass
class MixtureSettings:
    """Whether the optimizee is a mixture of tokens, and how soft a one before the first step and after the last."""

    use: bool = False
    """Whether the optimizee is such a mixture."""
    temperature: float = setting(0.02, least=1e-6, most=1e6)
    """Temperature of the softmax over tokens before the first step, in cosines."""
    final_temperature: float = setting(0.005, least=1e-6, most=1e6)
    """The temperature after the last step; geometric between."""


@dataclass
class PriorSettings:
    """What keeps the embeddings near text: loss terms, and at most one parameterization."""

    l2: TermSettings = field(default_factory=TermSettings)
    """Sum of squares of the embedding."""
    norm: TermSettings = field(default_factory=TermSettings)
    """Each position as long as a token embedding is on average."""
    manifold: ManifoldSettings = field(default_factory=ManifoldSettings)
    """Squared distance to the nearest tokens, a soft minimum."""
    fluency: FluencySettings = field(default_factory=FluencySettings)
    """The subject's cross-entropy of the softly decoded tokens."""
    smooth: TermSettings = field(default_factory=TermSettings)
    """Squared differences of neighbouring positions."""
    pca: PrincipalSettings = field(default_factory=PrincipalSettings)
    """The optimizee stays in the span of the token embeddings' first principal components."""
    simplex: MixtureSettings = field(default_factory=MixtureSettings)
    """Each position is a softmax mixture of tokens."""


TERMS = ("l2", "norm", "manifold", "fluency", "smooth")
"""The loss terms among the fields of `PriorSettings`."""
PARAMETERIZATIONS = ("pca", "simplex")
"""The parameterizations among them; at most one is in use."""


COMMON = ("weight_decay", "foreach", "fused")
"""Arguments that every optimizer takes."""
OPTIONS = {
    "adam": ("betas", "eps", "amsgrad", "decoupled_weight_decay", *COMMON),
    "adamw": ("betas", "eps", "amsgrad", *COMMON),
    "sgd": ("momentum", "dampening", "nesterov", *COMMON),
}
"""Arguments of PyTorch's optimizers that may be set. `maximize` would turn the objective round; `capturable` and
`differentiable` are for loops that are not ours."""


@dataclass
class OptimizerSettings:
    """How the embeddings move."""

    name: str = setting(MISSING, choices=("adam", "adamw", "sgd"))
    """PyTorch's optimizer; all work element by element, for any other would let restarts feel each other."""
    lr: float = setting(0.001, above=0, most=1e6)
    """Learning rate of every step."""
    options: dict[str, Any] = field(default_factory=dict)
    """The optimizer's other arguments, as PyTorch names them."""


def check_start(place: Path, tensor: str, shape: tuple[int, int]) -> None:
    """Refuses a record to start from that cannot be read, or is of another shape, by the header of its file alone.

    Args:
        place: the record's folder, or its `embeddings.safetensors`.
        tensor: `initial` or `final`.
        shape: tokens and width that its embeddings must have.

    Raises:
        InputError: names `file`.
    """
    file = place / "embeddings.safetensors" if place.is_dir() else place
    read = tensors_in(file) if file.is_file() else None
    if read is None or tensor not in read[0] or file.stat().st_size != read[1]:
        allowed = f"must be a record's folder with a whole embeddings.safetensors that holds '{tensor}'"
        raise InputError("file", place, allowed, "Name the folder of a complete record.")
    if tuple(read[0][tensor][1:]) != shape:
        found = " x ".join(map(str, read[0][tensor][1:]))
        allowed = f"must hold embeddings of {shape[0]} tokens x {shape[1]} dims; it holds {found}"
        raise InputError("file", place, allowed, "Set tokens and subject to the record's.")
