"""What must hold in a model if its sites are what their names say, measured once for each model when it is loaded.

A table of module paths can be wrong for a model without any error: a norm behind the attention, an embedding module
that scales, a block that adds in place. So nothing of it is believed. Each identity is measured on four tokens in the
subject's own dtype; a site whose identity fails is refused for that model, with the identity and the difference.

Differences are relative: the largest difference of a position's coordinates over the largest coordinate there (of a
sum: over the largest sum of absolute summands), the largest over positions and layers. With eps, the distance from 1 to
the next number of the dtype, the tolerances are:

- `SAME` eps where both sides are the same operations on the same numbers: nothing but a last bit may differ.
- `SAME` eps of the summands for a sum: three summands and a multiplier are rounded four times, by half an eps each.
- `SAME` (eps + sqrt(n) eps') for a product of n terms: the order of its sum changes it by sqrt(n) roundings of the
  precision eps' that it is summed in (float32 for narrower dtypes; Higham and Mary, SIAM J. Sci. Comput. 41, 2019).
- `SAME` sqrt(2 b) c behind kept keys, where products have other shapes in all of b blocks. Each block rounds its stream
  twice; c is how far one rounding of the embeddings moves the result, measured on a row of its own.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from importlib.metadata import version
from math import inf, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from actmax.errors import InputError
from actmax.json_text import from_json
from actmax.memory import is_lack
from actmax.model.architecture import SITES, SIZES, Geometry, geometry, unknown_family
from actmax.model.context import Context
from actmax.model.families import FAMILIES, Tap, watch
from actmax.weights import cache_folder

if TYPE_CHECKING:
    from actmax.model.subject import Subject

log = logging.getLogger(__name__)

TOKENS = 4
"""Tokens of the sequence that identities are measured on."""
SAME = 4
"""How many roundings two sides may differ by that are the same but for rounding."""
SUBSETS = 1
"""How many random halves of an MLP's neurons are turned."""
STEEP = 30.0
"""How far from 0 the largest input of an activation function is put, to see that it is one."""
LINEAR = 0.01
"""How near to a multiple what leaves an activation function would be, were it none."""
ERRORS = (RuntimeError, TypeError, ValueError, AttributeError, KeyError, IndexError, NotImplementedError)
"""What a pass of a model raises whose blocks are not those of the entry."""
RUNS = "a pass from embeddings runs"
KEPT = "a pass behind kept keys and values is one pass"


@dataclass(frozen=True)
class Identity:
    """One identity, as it was measured in a model."""

    name: str
    """The identity in words, as a report shows it."""
    sites: tuple[str, ...]
    """Sites that are refused where the identity fails; none where it only decides how passes may be made."""
    difference: float
    """Largest relative difference between both sides of the identity; inf where they cannot be compared."""
    tolerance: float
    """Largest relative difference that is taken for rounding."""

    @property
    def passed(self) -> bool:
        """Whether it holds."""
        return self.difference <= self.tolerance  # not where it is NaN

    def __str__(self) -> str:
        return f"{self.name}, which is off by {self.difference:.2g} (rounding makes {self.tolerance:.1g})"


def proved(subject: Subject) -> Subject:
    """The subject without the sites whose identity fails; measured once for weights, code and versions, and kept.

    Args:
        subject: a language model of a known family.
    """
    return _without_refused(subject, identities(subject))


def identities(subject: Subject) -> list[Identity]:
    """The identities of a subject: as they were kept, or measured now."""
    file = cache_folder() / "identities" / _name(subject)
    found = _kept(file)
    if found is None:
        found = measure(subject)
        _keep(file, found)
    return found


def recognised(make: Callable[[Geometry], Subject], config: Mapping[str, Any]) -> Subject:
    """The subject of a family that is not known, read as the known one whose identities all hold in it.

    Of several, the one with the most sites.

    Args:
        make: gives the subject with sizes and, in these, the family to read it as.
        config: its config.

    Raises:
        InputError: it is like none; the identity that failed in the nearest is named.
    """
    best: Subject | None = None
    nearest: tuple[int, str] = (-1, "")
    for sizes in _candidates(config):
        subject = make(sizes)
        if not _fits(subject):
            continue
        found = identities(subject)
        failed = [one for one in found if not one.passed and one.name != KEPT]
        if not failed and (best is None or len(sizes.sites) > len(best.geometry.sites)):
            best = _without_refused(subject, found)
        if failed and len(found) - len(failed) > nearest[0]:
            nearest = len(found) - len(failed), f"; read as {sizes.family}, {failed[0]}"
    if best is None:
        reason = nearest[1] or "; its modules are called as in none of them"
        raise unknown_family(config.get("model_type"), reason)
    log.info("%s is read as %s: all identities hold", best.geometry.model_type, best.geometry.family)
    return best


def _candidates(config: Mapping[str, Any]) -> list[Geometry]:
    """The sizes of a model as each known kind of block would have them, each kind once."""
    found: dict[Any, Geometry] = {}
    for family in SIZES:
        try:
            sizes = geometry(config, like=family)
        except InputError:
            continue
        found.setdefault((repr(FAMILIES[family]), sizes.own_sites, replace(sizes, like=None)), sizes)
    return list(found.values())


def _fits(subject: Subject) -> bool:
    """Whether the model has the modules of the entry."""
    return not any(one.difference == inf for one in _modules(subject))


def _without_refused(subject: Subject, found: Sequence[Identity]) -> Subject:
    refused = {site: str(one) for one in found if not one.passed for site in one.sites}
    for one in found:
        if not one.passed:
            log.warning(
                "%s: %s does not hold%s", subject.name, one, f": no {', '.join(one.sites)}" if one.sites else ""
            )
    sizes = replace(subject.geometry, refused=tuple(refused.items()))
    whole = any(one.name == KEPT and not one.passed for one in found)
    found_subject = replace(subject, geometry=sizes, whole=whole)
    found_subject._hashes.update(subject._hashes)
    return found_subject


# measuring


def measure(subject: Subject) -> list[Identity]:
    """Measures all identities of a subject, now.

    Args:
        subject: a language model; its weights are left as they are.
    """
    everything = subject.geometry.own_sites
    missing = _modules(subject)
    without = {site for one in missing for site in one.sites}
    if without >= set(everything):
        return missing
    plain = replace(subject, geometry=replace(subject.geometry, refused=()))
    sites = [site for site in everything if site not in without]
    with torch.no_grad():
        try:
            seen = _Seen(plain, sites)
            found = [*seen.stream(), *seen.products(), *_turned(plain, seen), *seen.passes()]
        except ERRORS as error:
            if is_lack(error):  # which says nothing of the model
                raise
            said = (str(error).strip().splitlines() or [""])[0][:120]
            return [*missing, Identity(f"{RUNS} ({type(error).__name__}: {said})", everything, inf, 0.0)]
    return [*missing, *(one for one in found if set(one.sites) <= set(everything))]


def _modules(subject: Subject) -> list[Identity]:
    """An identity that fails for each site whose module the model lacks."""
    base, family, sizes = subject.base, FAMILIES[subject.geometry.family], subject.geometry
    try:
        blocks = list(base.get_submodule(family.blocks).children())
        norm = base.get_submodule(family.final_norm)
    except AttributeError as error:
        return [Identity(f"the model has its blocks and its final norm ({error})", sizes.own_sites, inf, 0.0)]
    if len(blocks) != sizes.layers or norm is None:
        name = f"the model has {sizes.layers} blocks at {family.blocks} and a norm at {family.final_norm}"
        return [Identity(name, sizes.own_sites, inf, 0.0)]
    found = []
    for site in sizes.own_sites:
        if site == "final_norm":
            continue
        tap = family.taps.get(site)
        if tap is None or not all(_has(block, tap.module) for block in blocks):
            path = tap.module if tap else site
            found.append(Identity(f"every block has the module {path}", (site,), inf, 0.0))
    return found


def _has(block: nn.Module, path: str) -> bool:
    try:
        return block.get_submodule(path) is not None
    except AttributeError:
        return False


class _Seen:
    """What one pass from embeddings gives at all sites, beside the model's own pass from token ids."""

    def __init__(self, subject: Subject, sites: Sequence[str]) -> None:
        self.subject, self.sizes = subject, subject.geometry
        tokens = min(TOKENS, self.sizes.context)
        rows = len(subject.embedding_weight)
        # spread over the vocabulary, and no two alike
        self.ids = torch.linspace(0, rows - 1, tokens + 2, dtype=torch.float64).long()[1:-1]
        self.hidden, self.scores = _own_pass(subject, self.ids[None].to(subject.device))
        self.embedded = subject.embed(self.ids[None])
        self.places = [(site, layer) for site in sites if site != "final_norm" for layer in range(self.sizes.layers)]
        self.changed: set[str] = set()
        with self._watched():
            self.at = subject.run(self.embedded, [*self.places, ("final_norm", None)])
        number, summed = subject.dtype, torch.promote_types(subject.dtype, torch.float32)
        self.eps, self.fine = torch.finfo(number).eps, torch.finfo(summed).eps

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Notes the sites whose tensor a block goes on to change in place, and which are not copied."""
        read: list[tuple[str, Tensor, int]] = []

        def note(site: str, value: Any) -> None:
            tensor = value[0] if isinstance(value, tuple) else value
            read.append((site, tensor, tensor._version))

        with ExitStack() as stack:
            for site, layer in self.places:
                tap, module = self.tap(site), self.module(site, layer)
                if tap.columns is None and not tap.copied:
                    stack.callback(watch(module, tap.side, partial(note, site)))
            yield
        self.changed |= {site for site, tensor, before in read if tensor._version != before}

    def has(self, *sites: str) -> bool:
        """Whether all sites were read, in their widths."""
        return all((site, 0) in self.at and self.width(site) for site in sites)

    def width(self, site: str) -> bool:
        """Whether a site is as wide as its name says."""
        return self.at[site, 0].shape[-1] == self.sizes.width(site)

    def layers(self, measured: Callable[[int], float]) -> float:
        """The largest difference over all blocks; NaN if any is."""
        return _worst([measured(layer) for layer in range(self.sizes.layers)])

    def tap(self, site: str) -> Tap:
        """Where a site is read."""
        return FAMILIES[self.sizes.family].taps[site]

    def module(self, site: str, layer: int) -> Any:
        """The module that a site of a block is read at."""
        blocks = self.subject.base.get_submodule(FAMILIES[self.sizes.family].blocks)
        return blocks.get_submodule(str(layer)).get_submodule(self.tap(site).module)

    def stream(self) -> Iterator[Identity]:
        """The residual stream, from the embedding to the prediction."""
        same, at, last = SAME * self.eps, self.at, self.sizes.layers - 1
        wrong = [site for site, layer in self.places if layer == 0 and not self.width(site)]
        if wrong:
            yield Identity("sites are as wide as the sizes in the config say", tuple(wrong), inf, 0.0)
        if self.changed:
            yield Identity("nothing changes it in place behind its reading", tuple(sorted(self.changed)), inf, 0.0)
        embedding = _apart(at["resid_pre", 0], self.hidden[0])
        name = "resid_pre.0 of a token's embedding is what its id gives"
        yield Identity(name, self.sizes.own_sites, embedding, same)
        states = self.layers(lambda layer: _apart(at["resid_pre", layer], self.hidden[layer]))
        name = "resid_pre is what enters the blocks in the model's own pass from ids"
        yield Identity(name, ("resid_pre",), states, same)
        norm = self.subject.base.get_submodule(FAMILIES[self.sizes.family].final_norm)
        end = _apart(norm(at["resid_post", last]), at["final_norm", None])
        following = [_apart(at["resid_post", layer], at["resid_pre", layer + 1]) for layer in range(last)]
        name = "resid_post is the next block's resid_pre, and the last one's norm is final_norm"
        yield Identity(name, ("resid_post", "final_norm"), _worst([*following, end]), same)
        scores = self.subject.logits(at["final_norm", None])
        product = SAME * (self.eps + sqrt(self.sizes.d_model) * self.fine)
        name = "final_norm through the head gives the model's own logits"
        yield Identity(name, ("final_norm",), _apart(scores, self.scores), product)
        if self.has("attn_out", "mlp_out"):
            whole = self.layers(lambda layer: self._sum(layer, ("resid_pre", "attn_out", "mlp_out"), "resid_post"))
            name = "resid_pre + attn_out + mlp_out = resid_post"
            yield Identity(name, ("attn_out", "mlp_out"), whole, same)
        if self.has("attn_out", "resid_mid"):
            half = self.layers(lambda layer: self._sum(layer, ("resid_pre", "attn_out"), "resid_mid"))
            yield Identity("resid_pre + attn_out = resid_mid", ("attn_out", "resid_mid"), half, same)

    def _sum(self, layer: int, parts: Sequence[str], whole: str) -> float:
        summands = [self.at[part, layer] for part in parts]
        size = torch.stack([one.abs() for one in summands]).sum(0)
        return _apart(torch.stack(summands).sum(0), self.at[whole, layer], size)

    def products(self) -> Iterator[Identity]:
        """What enters the last projections, through them."""
        for inner, outer in (("z", "attn_out"), ("mlp_post", "mlp_out")):
            if self.has(inner, outer):
                found = self.layers(partial(self._through, inner, outer))
                tolerance = SAME * (self.eps + sqrt(self.sizes.width(inner)) * self.fine)
                name = f"{inner} through the output projection is {outer}"
                yield Identity(name, (inner, outer), found, tolerance)

    def _through(self, inner: str, outer: str, layer: int) -> float:
        projection, last = self.module(inner, layer), self.module(outer, layer)
        try:
            given = projection(self.at[inner, layer])
            given = given if last is projection else last(given)
        except ERRORS as error:  # of another width: they do not belong together
            if is_lack(error):
                raise
            return inf
        given = given * self.sizes.residual_multiplier if self.tap(outer).scaled else given
        return _apart(given, self.at[outer, layer])

    def passes(self) -> Iterator[Identity]:
        """Passes that stop early, and that go on behind kept keys."""
        depth = self.sizes.layers // 2
        place = ("resid_pre", depth)
        cut = self.subject.run(self.embedded, [place])[place]
        name = f"resid_pre.{depth} is the same if no block above it runs"
        yield Identity(name, self.sizes.own_sites, _apart(cut, self.at[place]), SAME * self.eps)
        half = len(self.ids) // 2
        if not self.subject.keeps_keys or not half:
            return
        place = ("resid_post", depth)
        rest = self.embedded[:, half:]
        generator = torch.Generator().manual_seed(0)
        sign = torch.randn(rest.shape, generator=generator).sign().to(rest)
        both = torch.cat([rest, rest * (1 + self.eps * sign)])
        before = Context("prefix", before=(tuple(self.ids[:half].tolist()),))
        try:
            behind, moved = self.subject.run(both, [place], context=before)[place]
        except ERRORS:
            yield Identity(KEPT, (), inf, 0.0)
            return
        conditioning = max(_apart(moved, behind), self.fine, self.eps)
        tolerance = SAME * sqrt(2 * (depth + 1)) * conditioning
        yield Identity(KEPT, (), _apart(behind, self.at[place][0, half:]), tolerance)


def _own_pass(subject: Subject, ids: Tensor) -> tuple[list[Tensor], Tensor]:
    """What enters each block, in the order in which they run, and the logits: the whole model, as its user runs it.

    Raises:
        ValueError: the blocks do not run once each, in their order.
    """
    blocks = list(subject.base.get_submodule(FAMILIES[subject.geometry.family].blocks).children())
    order: list[int] = []
    entered: list[Tensor] = []

    def enter(number: int, value: Tensor) -> None:
        order.append(number)
        entered.append(value)

    model: Any = subject.model
    off = {"output_hidden_states": False, "output_attentions": False}  # transformers leaves hooks behind for them
    with ExitStack() as stack:
        for number, block in enumerate(blocks):
            stack.callback(watch(block, "input", partial(enter, number)))
        scores = model(input_ids=ids, use_cache=False, return_dict=True, **off).logits
    if order != list(range(len(blocks))):
        raise ValueError("the blocks do not run once each in their order")
    return entered, scores


def _apart(one: Tensor, other: Tensor, size: Tensor | None = None) -> float:
    """The largest difference of a position's coordinates over the largest size there."""
    if one.shape != other.shape:
        return inf
    wide = torch.promote_types(one.dtype, torch.float32)
    one, other = one.to(wide), other.to(wide)
    largest = (torch.maximum(one.abs(), other.abs()) if size is None else size.to(wide)).amax(-1)
    difference = (one - other).abs().amax(-1)
    # where everything is 0 nothing differs
    return _worst((difference / largest.where(largest > 0, torch.ones_like(largest))).flatten().tolist())


def _worst(differences: Sequence[float]) -> float:
    return float(torch.tensor([0.0, *differences], dtype=torch.float64).max())  # NaN where one is NaN


# Queries, keys, values and neurons: who reads whom. Rows of one batch are the same text; in each some heads or neurons
# are turned (their sign is changed, which leaves every norm of them as it is). Behind each block all rows are made
# alike again, so that one pass asks every block.


@dataclass(frozen=True)
class _Turn:
    """Some coordinates of a site whose sign is changed, in one row of the batch."""

    row: int
    site: str
    coordinates: Tensor
    positions: slice
    chosen: Tensor
    """The heads or neurons at z or mlp_post that may change, as a mask."""
    factor: float = -1.0
    """What the coordinates are multiplied by."""
    linear: bool = False
    """Whether the chosen heads or neurons must be multiplied by the same factor."""
    bent: bool = False
    """Whether the chosen heads or neurons must not be multiplied by the factor."""


def _turned(subject: Subject, seen: _Seen) -> Iterator[Identity]:
    """The identities of q, k, v and of what enters the MLP's activation function."""
    sizes = subject.geometry
    attention = [site for site in "qkv" if seen.has(site, "z")]
    inside = [site for site in ("mlp_pre", "mlp_pre_linear") if seen.has(site, "mlp_post")]
    turns = _turns(seen, [*attention, *inside])
    if not turns:
        return
    ends = [*(["z"] if attention else []), *(["mlp_post"] if inside else [])]
    try:
        at = _pass_with(subject, seen, turns, ends)
    except ERRORS as error:
        yield Identity(f"{RUNS} with heads turned ({type(error).__name__})", (*attention, *inside), inf, 0.0)
        return
    for site in (*attention, *inside):
        own = [turn for turn in turns if turn.site == site]
        end = "z" if site in attention else "mlp_post"
        found = _worst([_strayed(at[end, layer], turn) for layer in range(sizes.layers) for turn in own])
        changed = [_changed(at[end, layer], turn) for layer in range(sizes.layers) for turn in own if turn.chosen.any()]
        # a head may be dead; that most are says that another thing was turned
        found = found if sum(changed) > len(changed) / 2 else inf
        yield Identity(_TURNED[site], (site,), found, SAME * seen.eps)


_TURNED = {
    "q": "turning q of a head and position changes z there and nowhere else",
    "k": "turning k of a head at the first position changes z behind it, of the heads that read it",
    "v": "turning v of a head turns z of the heads that read it",
    "mlp_pre": "turning some of mlp_pre changes these of mlp_post, and does not turn them where there is a gate",
    "mlp_pre_linear": "turning some of mlp_pre_linear turns these of mlp_post",
}


def _turns(seen: _Seen, sites: Sequence[str]) -> list[_Turn]:
    """What is turned in which row; row 0 is left as it is. Heads by the bits of their numbers: each has its own."""
    found: list[_Turn] = []
    sizes = seen.sizes
    group = sizes.heads // sizes.kv_heads
    for site in sites:
        if site in ("q", "k", "v"):
            heads = sizes.heads if site == "q" else sizes.kv_heads
            positions = {"q": slice(1, 2), "k": slice(0, 1), "v": slice(None)}[site]
            masks = [(torch.arange(heads) + 1) >> bit & 1 == 1 for bit in range(heads.bit_length())]
            for mask in masks:
                reads = (mask if site == "q" else mask.repeat_interleave(group)).repeat_interleave(sizes.head_dim)
                own = mask.repeat_interleave(sizes.head_dim).nonzero()[:, 0]
                found.append(_Turn(len(found) + 1, site, own, positions, reads, linear=site == "v"))
            if site == "q":  # the first position sees itself alone, whatever it asks for
                none = torch.zeros(sizes.width("z"), dtype=torch.bool)
                found.append(_Turn(len(found) + 1, site, torch.arange(sizes.width("q")), slice(0, 1), none))
        else:
            generator = torch.Generator().manual_seed(len(site))
            # near 0 an activation function is a line, as the branch that it multiplies is everywhere
            small = max(float(seen.at[site, layer].abs().max()) for layer in range(sizes.layers))
            factor = -max(1.0, STEEP / max(small, 1e-30)) if site == "mlp_pre" else -1.0
            for _ in range(SUBSETS):
                mask = torch.rand(sizes.d_mlp, generator=generator) < 0.5
                mask[0] = True
                how = {"linear": site == "mlp_pre_linear", "bent": site == "mlp_pre" and SIZES[sizes.family].gated}
                found.append(_Turn(len(found) + 1, site, mask.nonzero()[:, 0], slice(None), mask, factor, **how))
    return found


def _pass_with(subject: Subject, seen: _Seen, turns: Sequence[_Turn], ends: Sequence[str]) -> dict[Any, Tensor]:
    """What is read of z and mlp_post of all blocks in all rows, in one pass of the first two tokens."""
    embedded = seen.embedded[:, :2].repeat(len(turns) + 1, 1, 1)
    shape = (embedded.shape[0], embedded.shape[1])
    with ExitStack() as stack:
        for layer in range(subject.geometry.layers):
            block = seen.module("resid_post", layer)
            stack.callback(block.register_forward_hook(_alike).remove)
            for site in dict.fromkeys(turn.site for turn in turns):
                own = [turn for turn in turns if turn.site == site]
                tap = seen.tap(site)
                columns = None if tap.columns is None else tap.columns(subject.geometry)
                hook = partial(_turn, own, columns, shape)
                stack.callback(seen.module(site, layer).register_forward_hook(hook).remove)
        places = [(end, layer) for end in ends for layer in range(subject.geometry.layers)]
        return subject.run(embedded, places)


def _turn(
    turns: Sequence[_Turn], columns: Tensor | None, shape: tuple[int, int], _: Any, __: Any, output: Tensor
) -> Tensor:
    turned = output.reshape(*shape, -1).clone()
    for turn in turns:
        at = (turn.coordinates if columns is None else columns[turn.coordinates]).to(output.device)
        part = turned[turn.row, turn.positions]
        part[:, at] = turn.factor * part[:, at]
    return turned.reshape(output.shape)


def _alike(_: Any, __: Any, output: Any) -> Any:
    """All rows as the first."""
    first = output[0] if isinstance(output, tuple) else output
    first = first[:1].expand_as(first).contiguous()
    return (first, *output[1:]) if isinstance(output, tuple) else first


def _strayed(end: Tensor, turn: _Turn) -> float:
    """How far z or mlp_post changed where it may not; of what is linear, how far it is from what it must be."""
    plain, found, may = end[0], end[turn.row], turn.chosen.to(end.device)
    multiple = _apart(torch.where(may, turn.factor * plain, plain), found)
    if turn.linear:
        return multiple
    if turn.bent and multiple < LINEAR:
        return inf
    free = may.expand_as(plain).clone()
    if turn.site in ("q", "k"):
        free[0] = False  # the first position sees itself alone
    return _apart(torch.where(free, plain, found), plain)


def _changed(end: Tensor, turn: _Turn) -> bool:
    return bool((end[turn.row] != end[0]).any())


# keeping


@cache
def _code() -> str:
    """sha256 over the code that makes and reads sites, and the versions of what it stands on."""
    whole = hashlib.sha256()
    for name in ("architecture", "families", "identities", "subject"):
        whole.update(Path(__file__).with_name(f"{name}.py").read_bytes())
    for package in ("actmax", "transformers", "torch"):
        whole.update(f"{package}=={version(package)}\n".encode())
    return whole.hexdigest()


def _name(subject: Subject) -> str:
    """A file's name that says everything that identities depend on."""
    model: Any = subject.model
    asked = [_code(), str(subject.dtype), subject.attention, subject.device.type, asdict(subject.geometry)]
    asked.append(model.config.to_dict())
    digest = hashlib.sha256(json.dumps(asked, default=str).encode()).hexdigest()[:16]
    return f"{subject.weights_hash[:24]}-{digest}.json"


def _kept(file: Path) -> list[Identity] | None:
    """Identities of an earlier load; None where there are none, or the file is damaged: they are measured anew."""
    try:
        content = from_json(file.read_text(encoding="utf-8"))
        rows = [Identity(**{**row, "sites": tuple(row["sites"])}) for row in content["identities"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    known = all(set(row.sites) <= set(SITES) and isinstance(row.difference, float) for row in rows)
    return rows if known and rows and content.get("digest") == _digest(content["identities"]) else None


def _digest(rows: object) -> str:
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _keep(file: Path, found: Sequence[Identity]) -> None:
    """Writes identities whole or not at all, whoever else writes the same; nothing where nothing can be written."""
    rows = json.loads(json.dumps([asdict(one) for one in found]))
    partial_file = file.with_suffix(f".{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial_file.write_text(json.dumps({"identities": rows, "digest": _digest(rows)}), encoding="utf-8")
        partial_file.replace(file)
    except OSError as error:
        log.info("Identities are not kept in %s (ACTMAX_CACHE): %s", file.parent, error)
