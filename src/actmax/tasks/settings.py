"""What every task on a model, and every task on units, reads of a config. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from random import Random
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from actmax.errors import InputError
from actmax.evidence.settings import controls_needed
from actmax.model.architecture import SITES
from actmax.model.target import Place, Unit, place_name
from actmax.settings import LARGEST, setting

if TYPE_CHECKING:
    from actmax.model.architecture import Geometry

MOST = 100_000
"""Most numbers that a key such as `seeds` names."""
MOST_RESTARTS = 1_000_000
"""Most restarts of a job: each is some ten rows of its tables."""
PRECISIONS = ("highest", "high", "medium")
"""PyTorch's names for how exact float32 products are, the exact one first."""


@dataclass
class TaskSettings:
    """Which kind of job this is."""

    name: str = MISSING
    """Maximize over embeddings or over tokens, simulate, compare words, or read text."""


@dataclass
class TrainerSettings:
    """What the Lightning Trainer is told."""

    accelerator: str = "auto"
    """Kind of device; `auto` takes a GPU where there is one."""
    devices: int = setting(1, least=1)
    """Over how many devices of this machine a job's restarts are split."""
    strategy: str = "auto"
    """Must stay `auto`: every other of Lightning's would merge the restarts."""
    deterministic: bool = False
    """Lightning's: only algorithms that give the same bits every time, and an error where there is none."""
    detect_anomaly: bool = False
    """Lightning's: PyTorch's search for the operation that made a NaN in a backward pass; slow."""
    profiler: str | None = setting(None, choices=("simple", "advanced", "pytorch"))
    """Lightning's, such as `simple`; null: none."""
    compile: bool = False
    """The blocks of the fit's steps through `torch.compile`: some 25 s to begin with, and nothing gained on a CPU."""
    matmul_precision: str = setting("highest", choices=PRECISIONS)
    """PyTorch's, of float32 products: `highest`, `high` (TF32 on a GPU that has it) or `medium`; it names the job."""


@dataclass
class UnitSettings:
    """What is maximized; `layer` and `index` take a number, a list or a range."""

    site: str = setting(MISSING, choices=SITES)
    """Where in a block, in TransformerLens's names; or `final_norm`."""
    layer: Any = MISSING
    """Which block, from 0: a number, a list, or a range such as `"0:12"`; null at `final_norm`."""
    index: Any = MISSING
    """Which coordinate: a number, a list or a range; at q, k, v and z it is head x head_dim + dim."""


@dataclass
class ObjectiveSettings:
    """What is asked of the unit."""

    reduction: str = setting("mean", choices=("mean", "last", "max"))
    """How the activations of all positions become one number."""
    sign: str = setting("maximize", choices=("maximize", "minimize"))
    """Whether the activation is maximized or minimized."""
    positions: str = setting("own", choices=("own", "last"))
    """Which positions are read: those of the optimized tokens, or the last of the whole input (context=chat)."""


@dataclass
class DecodeSettings:
    """How embeddings become tokens."""

    top_k: int = setting(5, least=1)
    """Nearest tokens to keep for each position."""


@dataclass
class RestartSettings:
    """How many restarts there are, and how long."""

    seeds: Any = 0
    """Seeds of the restarts: a number, a list, or a range such as `"0:10"`."""
    controls: Any = "auto"
    """Control units that run beside the job's own, so that it can tell what is the unit's own: a number, or `auto`: as
    few as that takes, two for one unit and ten seeds."""
    tokens: int = setting(5, least=1)
    """Positions of an embedding, or tokens of a sequence."""
    steps: int = setting(500, least=1)
    """Steps of the optimizer."""
    max_rows: int | None = setting(None, least=1)
    """Rows of a forward pass; null: all at once, or as many as there is free memory for."""


def integers(value: Any, key: str) -> list[int]:
    """A number, a list, or a range `start:stop` (`start:stop:step`), stop left out; as in Python's slices.

    Raises:
        InputError: it is none of these, names a number twice, is empty, or names more than `MOST` numbers.

    Example:
        >>> integers("0:3", "seeds"), integers(7, "seeds"), integers([1, "4:6"], "seeds")
        ([0, 1, 2], [7], [1, 4, 5])
    """
    parts = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    ranges = [_numbers(part, value, key) for part in parts]
    count = sum(max(0, -(-(one.stop - one.start) // one.step)) for one in ranges)  # not len, which ends at 2^63
    if count > MOST:
        raise InputError(key, value, f"must name at most {MOST} numbers, and names {count}", "Split it into jobs.")
    numbers = [number for one in ranges for number in one]
    if not numbers:
        raise InputError(key, value, "must name at least one number")
    if len(set(numbers)) < len(numbers):
        raise InputError(key, value, "must name each number once", "A repeated one would count as a replicate.")
    return numbers


def _numbers(part: Any, value: Any, key: str) -> range:
    wrong = InputError(
        key, value, "must be whole numbers from 0 to 2^63 - 1, a list of them, or a range such as '0:12'"
    )
    if isinstance(part, bool) or part is None:
        raise wrong
    try:
        ends = [int(end) for end in str(part).split(":")]
    except ValueError:
        raise wrong from None
    if len(ends) > 3 or (len(ends) == 3 and ends[2] < 1) or min(ends) < 0:
        raise wrong
    found = range(ends[0], ends[0] + 1) if len(ends) == 1 else range(*ends)
    if found and found[-1] > LARGEST:
        raise wrong
    return found


def seeds(cfg: Any) -> list[int]:
    """The seeds of a job."""
    return integers(cfg.seeds, "seeds")


def units(cfg: Any) -> list[Unit]:
    """The units of a job: layers x indices.

    Raises:
        InputError: they are no numbers, or too many.
    """
    layer = cfg.unit.layer
    layers = [None] if layer is None else integers(layer, "unit.layer")
    indices = integers(cfg.unit.index, "unit.index")
    restarts = len(layers) * len(indices) * len(seeds(cfg))
    if restarts > MOST_RESTARTS:
        allowed = f"makes {restarts} restarts with unit.layer and seeds, and a job has at most {MOST_RESTARTS}"
        raise InputError("unit.index", cfg.unit.index, allowed, "Split it into jobs: a sweep with -m, a layer each.")
    return [Unit(cfg.unit.site, layer, index) for layer in layers for index in indices]


def control_count(cfg: Any) -> int:
    """How many control units a job asks for.

    Raises:
        InputError: it is neither a number from 0 nor `auto`.
    """
    asked = cfg.controls
    if asked == "auto":
        return controls_needed(len(units(cfg)), len(seeds(cfg)))
    if isinstance(asked, bool) or not isinstance(asked, int) or asked < 0:
        raise InputError("controls", asked, "must be a number of control units from 0, or auto")
    return asked


def control_units(cfg: Any, sizes: Geometry) -> list[Unit]:
    """The control units of a job: drawn from the sites and layers of its units, the same for all jobs there.

    Each site and layer has its order of coordinates, a permutation that depends on nothing else. The controls are the
    first of it that the job does not ask for itself, from each of the job's layers in turn; fewer than asked for where
    a site has no more.

    Args:
        cfg: the job's config.
        sizes: sizes of the subject.
    """
    own, count = units(cfg), control_count(cfg)
    orders: dict[Place, Iterator[Unit]] = {}
    for place in dict.fromkeys(unit.place for unit in own):
        indices = list(range(sizes.width(place[0])))
        Random(f"controls {place_name(*place)}").shuffle(indices)  # noqa: S311 an order that stays, no secret
        orders[place] = iter([unit for unit in (Unit(*place, index) for index in indices) if unit not in own])
    turns = (unit for turn in zip_longest(*orders.values()) for unit in turn if unit is not None)
    return list(islice(turns, count))


GROUPS: Mapping[str, Any] = {
    "unit": UnitSettings,
    "objective": ObjectiveSettings,
    "decode": DecodeSettings,
}
"""Groups of keys that tasks on units share, by name."""


def units_label(cfg: Any) -> str:
    """Subject, site, layers, indices and a context that was named, for the name of the folder of a job on units."""
    context = "" if cfg.context.name in ("auto", "none") else cfg.context.name
    parts = [cfg.subject.name, cfg.unit.site, _span(cfg.unit.layer), _span(cfg.unit.index), context]
    return "_".join(part for part in parts if part)


def _span(value: Any) -> str:
    if value is None:
        return ""
    numbers = integers(value, "")
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}to{numbers[-1]}"
