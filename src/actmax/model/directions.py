"""Directions by their addresses: rows of files, logit differences, latents of sparse autoencoders.

Nothing heavy is imported at the top, so that an address that is wrong is refused before a model is loaded.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar

from actmax.errors import InputError, renamed
from actmax.json_text import from_json
from actmax.model.target import Direction, Place, Target, Unit, place_name

if TYPE_CHECKING:
    from jaxtyping import Float
    from numpy import ndarray

    from actmax.model.architecture import Geometry
    from actmax.model.autoencoder import Autoencoder
    from actmax.model.subject import Subject

log = logging.getLogger(__name__)

FORMS = (
    "resid_pre.8[91] (a coordinate), resid_post.12:FILE.safetensors#NAME (a direction), sae:FOLDER[1234] (a latent) or "
    "'logit: Paris- London' (a logit difference)"
)
"""How targets are written."""
SHOWN = 12
"""Most names that an error lists."""


@dataclass(frozen=True)
class DirectionFile:
    """The directions of a safetensors file, as far as they are read at one site and layer.

    The file holds either `weight` (n × width), `bias` (n) if it likes, and in its metadata `names`, a JSON list of n
    strings; or a vector (width) for each direction under its name, and `NAME.bias` beside it if it likes. Directions of
    several places stand in one file behind their place, as in `resid_post.12/weight` or `resid_post.12/verb`. `title`
    in the metadata takes the place of the file's name in addresses.
    """

    path: Path
    """Path of the safetensors file."""
    title: str
    """What stands before a direction's own name in its address; empty for nothing."""
    place: Place
    """Site and layer of the activations that the directions read."""
    weight: Float[ndarray, "directions width"]
    """One vector w per direction."""
    bias: Float[ndarray, " directions"]
    """The b of each direction in w·x + b."""
    names: tuple[str, ...]
    """Names of the directions; their numbers where they have none."""

    def pick(self, which: int | str) -> Direction:
        """One direction, by its number or its name.

        Raises:
            InputError: names `index` or `name`; there is no such direction, or it is no vector that can be read.
        """
        if isinstance(which, str):
            if which not in self.names:
                way_out = f"It has {_listed(self.names)} at {place_name(*self.place)}."
                raise InputError("name", which, f"must be a name in {self.path.name}", way_out)
            which = self.names.index(which)
        if not 0 <= which < len(self.names):
            allowed = f"must be a number from 0 to {len(self.names) - 1}, the directions in {self.path.name}"
            raise InputError("index", which, allowed, f"Or name one of them: {_listed(self.names)}.")
        name = f"{self.title}#{self.names[which]}" if self.title else self.names[which]
        with renamed({"w": "direction", "b": "direction"}):
            return Direction(*self.place, self.weight[which], float(self.bias[which]), name, which, origin=self)

    def address(self, one: Direction) -> str:
        """How one of its directions is found again, wherever the reader stands."""
        return f"{place_name(*self.place)}:{self.path.resolve()}#{one.index}"

    def __len__(self) -> int:
        return len(self.names)


def read_directions(path: Path | str, place: Place) -> DirectionFile:
    """The directions that a file holds for a site and layer.

    Raises:
        InputError: names `direction`: no such file, no safetensors, nothing for this place, shapes or names that do not
            belong together.
    """
    file = Path(path)
    if not file.is_file():
        reason = "is no file on disk" if file.exists() else "is not there"
        raise InputError("direction", path, f"must be a safetensors file, and {reason}")
    stat = file.stat()
    return _read(file, place, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _read(file: Path, place: Place, size: int, changed: int) -> DirectionFile:  # noqa: ARG001 what names the content
    import numpy as np

    tensors, metadata = _tensors(file)
    group = place_name(*place) + "/"
    places = sorted({name.rpartition("/")[0] for name in tensors if "/" in name})
    prefix = group if places else ""
    own = {name.removeprefix(prefix): values for name, values in tensors.items() if name.startswith(prefix)}
    if not own:
        allowed = f"must hold directions of {place_name(*place)}; it holds {_listed(places) or 'nothing'}"
        raise InputError("direction", file, allowed, "unit.site and unit.layer say where they are read.")
    if "weight" not in own:
        own, names = _stacked(file, own)
    else:
        names = None
    weight = np.atleast_2d(own["weight"]).astype(np.float64)
    bias = np.asarray(own.get("bias", np.zeros(len(weight))), dtype=np.float64).reshape(-1)
    if weight.ndim != 2 or not weight.size or bias.shape != weight.shape[:1]:
        allowed = f"must hold weight (n × width) and bias (n); they are {weight.shape} and {bias.shape}"
        raise InputError("direction", file, allowed)
    names = names or _names(file, metadata.get(f"{prefix}names"), len(weight))
    return DirectionFile(file, metadata.get("title", file.name), place, weight, bias, names)


def _stacked(file: Path, own: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Vectors by name as one matrix, and their names; a bias is a number beside its vector."""
    import numpy as np

    vectors = {name: values for name, values in own.items() if not name.endswith(".bias")}
    shapes = {values.shape for values in vectors.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        held = ", ".join(f"{name} {list(values.shape)}" for name, values in list(own.items())[:SHOWN])
        allowed = f"must hold `weight` (directions × width), or vectors of one width by their names; it holds {held}"
        raise InputError("direction", file, allowed)
    biases = {name: values for name, values in own.items() if name not in vectors}
    for name, values in biases.items():
        if name.removesuffix(".bias") not in vectors or values.size != 1:
            allowed = f"must hold one number under {name}, beside the vector {name.removesuffix('.bias')}"
            raise InputError("direction", file, allowed, f"It holds {list(values.shape)}, and {_listed([*vectors])}.")
    bias = [float(biases[f"{name}.bias"].item()) if f"{name}.bias" in biases else 0.0 for name in vectors]
    return {"weight": np.stack(list(vectors.values())), "bias": np.array(bias)}, tuple(vectors)


def _tensors(file: Path) -> tuple[dict[str, Any], Mapping[str, str]]:
    """The tensors of a safetensors file as arrays, and its metadata. Formats that NumPy lacks are read by PyTorch."""
    from safetensors import safe_open

    try:
        with safe_open(file, framework="numpy") as stream:
            names, metadata = list(stream.keys()), stream.metadata() or {}
            try:
                return {name: stream.get_tensor(name) for name in names}, metadata
            except TypeError:  # bfloat16
                pass
        with safe_open(file, framework="pt") as stream:
            return {name: stream.get_tensor(name).double().numpy() for name in names}, metadata
    except Exception as error:  # safetensors raises its own, which is no OSError
        allowed = f"must be a whole safetensors file ({(str(error).splitlines() or [type(error).__name__])[0]})"
        way_out = "safetensors.numpy.save_file({'weight': w}, FILE, metadata={'names': json.dumps(names)}) writes one."
        raise InputError("direction", file, allowed, way_out) from error


def _names(file: Path, text: str | None, count: int) -> tuple[str, ...]:
    if text is None:
        return tuple(str(number) for number in range(count))
    try:
        found = from_json(text)
    except ValueError:
        found = None
    if not isinstance(found, list) or len(found) != count or not all(isinstance(name, str) and name for name in found):
        raise InputError("direction", file, f"its metadata `names` must be a JSON list of {count} strings")
    if twice := [name for name in found if found.count(name) > 1]:
        raise InputError("direction", file, f"must name each direction once, and two are called {twice[0]!r}")
    return tuple(found)


def write_directions(path: Path | str, directions: Iterable[Direction], *, title: str | None = None) -> None:
    """Writes directions of any places as a file that `read_directions` reads.

    Args:
        path: the file.
        directions: of each place in the order of their numbers; their vectors must be known.
        title: what stands before their names in addresses; None for the file's name.
    """
    import numpy as np
    from safetensors.numpy import save_file

    tensors: dict[str, Any] = {}
    metadata = {} if title is None else {"title": title}
    groups: dict[Place, list[Direction]] = {}
    for one in directions:
        groups.setdefault(one.place, []).append(one)
    for place, some in groups.items():
        tensors[f"{place_name(*place)}/weight"] = np.stack([one.w for one in some])
        tensors[f"{place_name(*place)}/bias"] = np.array([one.b for one in some])
        metadata[f"{place_name(*place)}/names"] = json.dumps([one.name for one in some], ensure_ascii=False)
    save_file(tensors, path, metadata=metadata)


class Logit(Direction):
    """The logit of a token, or how much higher it is than another token's: a direction behind the final norm.

    Its vector is a difference of rows of the output head, which a subject gives (`of`).

    Args:
        token: text of the token whose logit it is, with the space before it.
        minus: text of the token whose logit is taken off; None: none.
        w: the vector, where it is known.
        b: what is added.

    Raises:
        InputError: the text of a token is empty.
    """

    key: ClassVar[str] = "logit"

    def __init__(self, token: str, *, minus: str | None = None, w: Any = None, b: float = 0.0) -> None:
        if not token or minus == "":
            raise InputError("minus" if token else "logit", "", "must be the text of a token, such as ' Paris'")
        super().__init__("final_norm", None, w, b, f"logit:{token}" + ("" if minus is None else f"-{minus}"))
        object.__setattr__(self, "token", token)
        object.__setattr__(self, "minus", minus)

    token: str
    """Text of the token whose logit is read."""
    minus: str | None
    """Text of the token whose logit is taken off."""

    def of(self, subject: Subject) -> Logit:
        """The same with its vector, from a subject's output head.

        Raises:
            InputError: names `logit` or `minus`: no single token; or the head is not affine.
        """
        import torch

        ids = [_token(subject, "logit", self.token)]
        ids += [] if self.minus is None else [_token(subject, "minus", self.minus)]
        if len(set(ids)) < len(ids):
            raise InputError("minus", self.minus, "must be another token than the one whose logit is read")

        def logit(hidden: Any) -> Any:
            found = subject.logits(hidden).double()
            return found[..., ids[0]] - (found[..., ids[1]] if len(ids) > 1 else 0.0)

        with torch.enable_grad():
            probes = torch.randn(3, subject.geometry.d_model, generator=torch.Generator().manual_seed(0))
            probes = torch.cat([torch.zeros(1, subject.geometry.d_model), 10 * probes])
            probes = probes.to(subject.device, subject.dtype).requires_grad_()
            values = logit(probes)
            (slopes,) = torch.autograd.grad(values.sum(), probes)
        w, b = slopes[0].double(), float(values[0].detach())
        slack = (slopes.double() - w).norm(dim=1) / w.norm()
        if not bool((slack < AFFINE).all()):
            allowed = f"cannot be maximized: its logits are no affine function of what the head of {subject.name} reads"
            raise InputError("logit", self.token, allowed, "Logits behind a soft cap are not.")
        return Logit(self.token, minus=self.minus, w=w.detach().cpu().numpy(), b=b)


AFFINE = 1e-3
"""Largest relative change of a logit's slope between places at which it counts as affine."""


def _token(subject: Subject, key: str, text: str) -> int:
    ids = subject.tokens(text)
    if len(ids) != 1:
        pieces = ", ".join(repr(subject.token(one)) for one in ids) or "nothing"
        allowed = f"must be one token of {subject.name}, and is {len(ids)}: {pieces}"
        raise InputError(key, text, allowed, "Most words have a space before them: ' Paris'.")
    return ids[0]


def parse_logit(text: str, argument: str) -> Logit:
    """A logit by its address, `logit: Paris- London` or `logit: Paris`: every space counts.

    Raises:
        InputError: more than one hyphen, so that it is not clear where the second token begins.
    """
    parts = text.removeprefix("logit:").split("-")
    if len(parts) > 2 or not all(parts):
        way_out = "Say unit.logit=' Paris' unit.minus=' London' (in Python: Logit(' Paris', minus=' London'))."
        raise InputError(argument, text, "must be 'logit:TOKEN' or 'logit:TOKEN-TOKEN', with one hyphen", way_out)
    return Logit(parts[0], minus=parts[1] if len(parts) > 1 else None)


BLOCK = 256
"""Positions whose latents are computed together."""
AUTOENCODER = ("cfg.json", "*.safetensors", "*scaler.json")
"""The files of a sparse autoencoder's folder."""


@dataclass(frozen=True, eq=False)
class Latents:
    """The latents of a sparse autoencoder, as directions."""

    autoencoder: Autoencoder
    """The autoencoder whose latents are read."""

    @property
    def path(self) -> Path:
        """The folder that it lies in."""
        return self.autoencoder.folder

    def pick(self, which: int) -> Latent:
        """One latent, by its number."""
        return Latent(self, which)

    def address(self, one: Direction) -> str:
        """How one of its latents is found again, wherever the reader stands."""
        return f"sae:{self.path.resolve()}[{one.index}]"

    def __len__(self) -> int:
        return self.autoencoder.latents


class Latent(Direction):
    """A latent of a sparse autoencoder: its pre-activation, which is affine in the activations of its site.

    Args:
        origin: the latents of the autoencoder.
        index: which latent, from 0.

    Raises:
        InputError: names `index`; there is no such latent, or its encoder is zero or not finite.
    """

    key: ClassVar[str] = "sae"

    def __init__(self, origin: Latents, index: int) -> None:
        name = f"sae:{origin.path.name}[{index}]"
        super().__init__(*origin.autoencoder.place, *origin.autoencoder.weight(index), name, index, origin)

    @classmethod
    def load(cls, folder: Path | str, index: int, *, site: str | None = None, layer: int | None = None) -> Latent:
        """A latent of the autoencoder in a folder that SAELens or sparsify wrote (docs/targets.md).

        Args:
            folder: the folder; or OWNER/NAME/FOLDER in the hub's cache.
            index: which latent, from 0.
            site: where it reads, if its config has a hook that is not known.
            layer: the layer of that site.

        Raises:
            InputError: names `folder` or `index`.
        """
        from actmax.model.autoencoder import Autoencoder

        return cls(Latents(Autoencoder.load(folder, site=site, layer=layer)), index)

    def activations(
        self, x: Float[ndarray, "positions width"]
    ) -> tuple[Float[ndarray, " positions"], Float[ndarray, " positions"]]:
        """The latent before and behind its activation function, which may depend on all latents (TopK).

        Args:
            x: activations of its site.
        """
        import numpy as np

        blocks = [x[start : start + BLOCK] for start in range(0, len(x), BLOCK)]
        post = [self.origin.autoencoder.post(block)[:, self.index] for block in blocks]
        return x @ self.w + self.b, np.concatenate(post)

    def check_subject(self, geometry: Geometry, name: str | None = None) -> None:
        """Refuses a subject that lacks its site, or has another width there; says it where names of models differ."""
        with renamed({"folder": "sae"}):
            other = self.origin.autoencoder.check_model(geometry, name)
        if other is not None:
            log.warning(
                "The autoencoder in %s says that it is of %s, and the subject is %s.", self.origin.path, other, name
            )


def latent(folder: Path | str, index: int, place: Place | None = None) -> Latent:
    """A latent by the folder of its autoencoder, which is read once.

    Args:
        folder: the folder.
        index: which latent.
        place: where it reads, if its config does not say it.

    Raises:
        InputError: names `sae` or `index`.
    """
    with renamed({"folder": "sae"}):
        files = [file for pattern in AUTOENCODER for file in sorted(Path(folder).glob(pattern))]
        stamps = tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files)
        return _latents(str(folder), place, stamps).pick(index)


@lru_cache(maxsize=8)
def _latents(folder: str, place: Place | None, stamps: tuple[tuple[str, int, int], ...]) -> Latents:  # noqa: ARG001
    from actmax.model.autoencoder import Autoencoder

    try:
        return Latents(Autoencoder.load(folder))
    except InputError as error:
        if "no place that is known" not in error.allowed or place is None:
            raise
    return Latents(Autoencoder.load(folder, site=place[0], layer=place[1]))


def parse_target(text: str, argument: str = "target") -> Target:
    """A target by its address.

    Args:
        text: a coordinate `SITE.LAYER[INDEX]`, a direction `SITE.LAYER:FILE#NAME` (or its number), a latent
            `sae:FOLDER[INDEX]`, or a logit difference `logit: Paris- London`. At `final_norm` there is no layer.
        argument: what the caller calls the text, for the error.

    Raises:
        InputError: it is no such address, or what it names is not there.
    """
    if text.startswith("logit:"):
        return parse_logit(text, argument)
    if text.startswith("sae:"):
        match = re.fullmatch(r"sae:(.+)\[(\d+)\]", text)
        if match is None:
            raise InputError(argument, text, "must read sae:FOLDER[INDEX]")
        return latent(match[1], int(match[2]))
    match = re.fullmatch(r"([a-z]\w*)(?:\.(\d+))?:(.+)#([^#]+)", text)
    if match is None:
        try:
            return Unit.parse(text, argument)
        except InputError as error:
            raise InputError(argument, text, f"must be a target such as {FORMS}") from error
    place = match[1], None if match[2] is None else int(match[2])
    found = read_directions(match[3], place)
    return found.pick(int(match[4]) if match[4] not in found.names and match[4].isdecimal() else match[4])


def siblings(one: Target) -> Iterator[Direction]:
    """The other directions of the same file, or latents of the same autoencoder, in a random order.

    The order depends on nothing but their number and the place, and so is the same for all jobs on it. Those that
    cannot be read (a vector of zeros) are left out.
    """
    origin: Any = getattr(one, "origin", ())
    order = list(range(len(origin or ())))
    Random(f"controls {place_name(*one.place)} {len(order)}").shuffle(order)  # noqa: S311 an order, no secret
    for number in order:
        with suppress(InputError):
            if (other := origin.pick(number)) != one:
                yield other


def resolved(targets: Sequence[Target], subject: Subject) -> list[Target]:
    """The same targets with the vectors that need the subject's weights."""
    return [one.of(subject) if isinstance(one, Logit) else one for one in targets]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
