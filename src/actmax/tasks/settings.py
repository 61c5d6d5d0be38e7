"""What every task on a model, and every task on units, reads of a config. Imports nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from actmax.errors import InputError, renamed
from actmax.evidence.settings import controls_needed
from actmax.model.architecture import SITES
from actmax.model.directions import AUTOENCODER, Logit, latent, parse_target, read_directions
from actmax.model.target import Place, Target, Unit, address, place_name
from actmax.settings import LARGEST, setting

if TYPE_CHECKING:
    from actmax.model.architecture import Geometry

MOST = 100_000
"""Most numbers that a key such as `seeds` names."""
MOST_RESTARTS = 1_000_000
"""Most restarts of a job: each is some ten rows of its tables."""
KINDS = ("target", "direction", "sae", "logit")
"""Keys of `unit` that name targets of another kind than coordinates."""
LONGEST = 80
"""Most characters of a folder's name that say what its job is about."""
AGAINST = ("auto", "rows", "isotropic", "text")
"""What control targets of directions are."""
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

    accelerator: str = setting("auto", choices=("auto", "cpu", "gpu", "cuda", "mps"))
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
    """Which coordinate: a number, a list or a range; at q, k, v and z it is head x head_dim + dim. With `direction` or
    `sae`: which row of the file, or which latent."""
    direction: str | None = None
    """A safetensors file of directions (docs/targets.md), read at `site` and `layer`, in the place of coordinates."""
    name: Any = None
    """With `direction`: one or several of its names, in the place of `index`."""
    sae: str | None = None
    """A folder with a sparse autoencoder of SAELens or sparsify, whose latents (`index`) are maximized."""
    logit: str | None = None
    """Text of a token whose logit is maximized, such as `" Paris"`."""
    minus: str | None = None
    """With `logit`: text of the token whose logit is taken off."""
    target: Any = None
    """One or several targets of any kind by their addresses, in the place of all other keys."""
    against: str = setting("auto", choices=AGAINST)
    """What control targets of a direction are: other `rows` of its file (latents of its autoencoder), random directions
    of the same length, `isotropic` or drawn from what real `text` gives at the site; `auto`: rows where there are
    enough, else isotropic."""


@dataclass
class ObjectiveSettings:
    """What is asked of the unit."""

    reduction: str = setting("auto", choices=("auto", "mean", "last", "max"))
    """How the activations of all positions become one number; `auto`: their mean, of a logit the last."""
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


def units(cfg: Any) -> list[Target]:
    """The targets of a job: coordinates, layers x indices, or directions of the kind whose key is set.

    Vectors that need the subject's weights are not known yet (`directions.resolved`).

    Raises:
        InputError: they are no numbers, or too many; keys of several kinds are set; what they name is not there.
    """
    kind = kind_of(cfg.unit)
    if kind in ("target", "logit"):
        with unit_keys(cfg):
            found = _named(cfg.unit) if kind == "target" else [Logit(cfg.unit.logit, minus=cfg.unit.minus)]
        return _each_once(found)
    layer = cfg.unit.layer
    layers = [None] if layer is None else integers(layer, "unit.layer")
    by_name = kind == "direction" and cfg.unit.name is not None
    indices = _names(cfg.unit.name) if by_name else integers(cfg.unit.index, "unit.index")
    restarts = (1 if kind == "sae" else len(layers)) * len(indices) * len(seeds(cfg))
    if restarts > MOST_RESTARTS:
        allowed = f"makes {restarts} restarts with unit.layer and seeds, and a job has at most {MOST_RESTARTS}"
        raise InputError("unit.index", cfg.unit.index, allowed, "Split it into jobs: a sweep with -m, a layer each.")
    with unit_keys(cfg):
        if kind == "sae":
            place = cfg.unit.site, layers[0] if len(layers) == 1 else None
            return [latent(cfg.unit.sae, int(index), place) for index in indices]
        if kind == "direction":
            files = [read_directions(cfg.unit.direction, (cfg.unit.site, layer)) for layer in layers]
            return _each_once([file.pick(index) for file in files for index in indices])
    return [Unit(cfg.unit.site, layer, int(index)) for layer in layers for index in indices]


def unit_keys(cfg: Any) -> AbstractContextManager[None]:
    """Turns the arguments that errors about targets name into keys of the config."""
    by_address = cfg.unit.get("target") is not None
    return renamed({str(name): "unit.target" if by_address else f"unit.{name}" for name in cfg.unit})


def kind_of(unit: Mapping[str, Any]) -> str:
    """Which kind of target a config asks for: `coordinate`, or the key that is set in its place.

    Raises:
        InputError: several of these keys are set, or one that belongs to another that is not.
    """
    asked = [key for key in KINDS if unit.get(key) is not None]
    if len(asked) > 1:
        allowed = f"cannot stand beside unit.{asked[0]}: each names targets of another kind"
        raise InputError(f"unit.{asked[1]}", unit[asked[1]], allowed, "unit.target takes a list of any kinds.")
    for key, owner in (("name", "direction"), ("minus", "logit")):
        if unit.get(key) is not None and asked != [owner]:
            raise InputError(f"unit.{key}", unit[key], f"belongs to unit.{owner}, which is not set")
    return asked[0] if asked else "coordinate"


def _named(unit: Any) -> list[Target]:
    return [parse_target(str(one), "unit.target") for one in _names(unit.target)]


def _names(value: Any) -> list[str]:
    found = [str(one) for one in (value if isinstance(value, Sequence) and not isinstance(value, str) else [value])]
    if not found:
        raise InputError("unit.target", value, "must name at least one target")
    return found


def _each_once(found: Sequence[Target]) -> list[Target]:
    """Refuses two targets of one address, which tables could not tell apart."""
    names = [str(one) for one in found]
    if twice := [name for number, name in enumerate(names) if name in names[:number]]:
        allowed = f"must name each target once, by an address of its own, and two are {twice[0]}"
        raise InputError("unit.target", ", ".join(names), allowed, "Files need names of their own.")
    return list(found)


def files_of(unit: Mapping[str, Any]) -> list[tuple[Path, str]]:
    """The files that the targets of a config are read from, folders with the pattern of the files in them."""
    found = [(Path(unit["direction"]), "")] if unit.get("direction") else []
    found += [(Path(unit["sae"]), pattern) for pattern in AUTOENCODER] if unit.get("sae") else []
    if unit.get("target"):
        for text in _names(unit["target"]):
            if text.startswith("sae:"):
                found += [(Path(text[4:].rpartition("[")[0]), pattern) for pattern in AUTOENCODER]
            elif "#" in text and not text.startswith("logit:"):
                found.append((Path(text.partition(":")[2].rpartition("#")[0]), ""))
    return found


def asked_address(unit: Mapping[str, Any]) -> str:
    """The address of what a config asks for, all of it in one: what its keys say, whether or not files are there."""
    kind = kind_of(unit)
    if kind == "target":
        return ", ".join(_names(unit["target"]))
    if kind == "logit":
        return str(Logit(unit["logit"], minus=unit.get("minus")))
    site, layer, index = unit.get("site", "the unit"), unit.get("layer"), unit.get("index")
    if kind == "coordinate":
        shown = ", ".join(map(str, index)) if isinstance(index, list) else index
        return place_name(site, layer) if "index" not in unit else address(site, layer, shown)
    if kind == "sae":
        return f"sae:{Path(unit['sae']).name}[{index}]"
    which = index if unit.get("name") is None else ", ".join(_names(unit["name"]))
    return f"{place_name(site, layer)}:{Path(unit['direction']).name}#{which}"


def objective_settings(cfg: Mapping[Any, Any]) -> dict[str, Any]:
    """What is asked of a job's targets, with the reduction that `auto` stands for.

    Args:
        cfg: the job's config, a node or the mapping that a record holds.
    """
    found = {str(key): value for key, value in cfg["objective"].items()}
    if found["reduction"] == "auto":
        unit = cfg["unit"]
        logits = unit.get("logit") is not None
        if unit.get("target") is not None:
            logits = all(name.startswith("logit:") for name in _names(unit["target"]))
        found["reduction"] = "last" if logits else "mean"
    return found


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


def control_units(cfg: Any, sizes: Geometry) -> list[Target]:
    """The control units of a job: drawn from the sites and layers of its units, the same for all jobs there.

    Each site and layer has its order of coordinates, a permutation that depends on nothing else. The controls are the
    first of it that the job does not ask for itself, from each of the job's layers in turn; fewer than asked for where
    a site has no more.

    Args:
        cfg: the job's config.
        sizes: sizes of the subject.
    """
    own, count = units(cfg), control_count(cfg)
    orders: dict[Place, Iterator[Target]] = {}
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
    parts = [cfg.unit.site, _span(cfg.unit.layer), _span(cfg.unit.index)]
    if kind_of(cfg.unit) != "coordinate":
        parts = [re.sub(r"[^\w.=-]+", "-", asked_address(cfg.unit), flags=re.ASCII).strip("-")[:LONGEST]]
    return "_".join(part for part in (cfg.subject.name, *parts, context) if part)


def _span(value: Any) -> str:
    if value is None:
        return ""
    numbers = integers(value, "")
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}to{numbers[-1]}"
