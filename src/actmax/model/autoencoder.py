"""Latents of sparse autoencoders, read by the files that SAELens and sparsify write; neither package is needed.

A latent's *pre-activation* is what enters its activation function. Over the raw activations x of a site it is affine,
`w . x + b`: the centring (`b_dec`), the scaling of inputs and what scales the latent are folded into w and b.

Sources: SAELens 6.54 (`saes/*.py`, `loading/pretrained_sae_loaders.py`) for the folders with `sae_weights.safetensors`,
configs from before 6.0 included; sparsify 1.3 (`sparse_coder.py`, `fused_encoder.py`) for those with `sae.safetensors`.
Gated: Rajamanoharan et al. 2024, arXiv 2404.16014. TopK: Gao et al. 2024, arXiv 2406.04093. JumpReLU: Rajamanoharan et
al. 2024, arXiv 2407.14435. BatchTopK: Bussmann et al. 2024, arXiv 2412.06410.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from actmax.errors import InputError
from actmax.json_text import from_json
from actmax.model.architecture import HEADS, LAYER_NORM, Geometry
from actmax.model.hooks import place_of
from actmax.model.target import Place, place_name

CONFIG, SAELENS, SPARSIFY = "cfg.json", "sae_weights.safetensors", "sae.safetensors"
"""Files of a folder: its config, and the weights of either format."""
SCALER = "activation_scaler.json"
"""Beside the weights of a checkpoint of SAELens: what its inputs are multiplied by."""
ARCHITECTURES = ("standard", "gated", "topk", "jumprelu", "batchtopk")
"""Architectures that are understood, in SAELens's words; what sparsify writes is `topk`."""
NOT_AFFINE = {
    "layer_norm": "it divides each input by its own standard deviation",
    "constant_norm_rescale": "it divides each input by its own length",
}
"""Values of `normalize_activations` under which no pre-activation is affine in the input, each with the reason."""
WRITTEN = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
"""Sites whose mean TransformerLens takes away with `center_writing_weights`."""
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
"""Types of numbers that are read, in the words of safetensors, with numpy's type for their bytes."""
OF_SAELENS = (
    *("architecture", "d_in", "d_sae", "dtype", "device", "metadata", "k"),
    *("apply_b_dec_to_input", "normalize_activations", "reshape_activations", "rescale_acts_by_decoder_norm"),
    # of checkpoints: what steers training
    *("decoder_init_norm", "l1_coefficient", "l1_warm_up_steps", "lp_norm", "l0_coefficient", "l0_warm_up_steps"),
    *("jumprelu_init_threshold", "jumprelu_bandwidth", "jumprelu_sparsity_loss_mode", "jumprelu_tanh_scale"),
    *("jumprelu_ste_to_input", "pre_act_loss_coefficient", "target_l0", "topk_threshold_lr", "aux_loss_coefficient"),
    "use_sparse_activations",
)
"""Keys of a config of SAELens from 6.0 on that are understood, or that change no encoder. Configs from before 6.0 hold
all settings of a training run, so that a key which is not known says nothing there."""
OF_SPARSIFY = (
    *("d_in", "num_latents", "expansion_factor", "k", "activation", "signed", "transcode", "skip_connection"),
    *("normalize_decoder", "multi_topk", "d_sae", "naive_decoder"),  # of the decoder, or of training
)
"""Keys of a config of sparsify (the package was called sae before) that are understood, or that change no encoder."""
BLOCK = 4096
"""Latents whose weights are held in float64 at once."""
BY_HAND = "Give the site and the layer by hand (site and layer), if you know what it was trained on."


@dataclass(frozen=True, eq=False)
class Stored:
    """A tensor in a file of safetensors, which is read where it is asked for."""

    name: str
    """The file and the tensor's name, for errors."""
    raw: ndarray
    """Numbers of the tensor as they lie in the file; bfloat16 as whole numbers of 16 bits."""
    dtype: str
    """`float64`, `float32`, `float16` or `bfloat16`."""

    def read(self, *index: Any) -> Float[ndarray, ...]:
        """The numbers at an index, all of them with none, in float64.

        Raises:
            InputError: some of them are NaN or infinite.
        """
        values = np.asarray(self.raw[index])
        if self.dtype == "bfloat16":  # the upper half of a float32
            values = (values.astype("<u4") << 16).view("<f4")
        values = values.astype(np.float64)
        if bad := int(values.size - np.isfinite(values).sum()):
            raise InputError("folder", self.name, f"must hold finite numbers, and {bad} of {values.size} are not")
        return values

    @property
    def T(self) -> Stored:  # noqa: N802
        """The same with its two dimensions exchanged."""
        return Stored(self.name, self.raw.T, self.dtype)


@dataclass(frozen=True, eq=False)
class Autoencoder:
    """The encoder of a sparse autoencoder: where it reads, and what each of its latents makes of it.

    Architectures, with p the pre-activation (what `weight` and `pre` give) and z the activation (`post`):

    * `standard`: z = max(p, 0).
    * `jumprelu`: z = p where p > its threshold (and p > 0), else 0. `batchtopk` is a checkpoint with one threshold for
      all latents, and the same at inference: SAELens saves what is done as `jumprelu`.
    * `topk`: z = max(p, 0) for the k largest p of a position, else 0: it depends on all latents of that position.
    * `gated`: z = max(p, 0) where g > 0, else 0. p is the path of *magnitudes*, which SAELens calls
      `hook_sae_acts_pre`; g is the path of the *gate*, which `gate_weight` and `gate` give. Both have the same
      direction: the magnitude's is the gate's times exp(`r_mag`), and their biases differ.

    Where activations are rescaled by the decoder's norms (`rescale_acts_by_decoder_norm`), p is behind that rescaling.
    A finetuning's `scaling_factor` acts behind the activation, in the decoder, and changes neither p nor z.
    """

    folder: Path
    """Folder that the autoencoder was read from."""
    format: str
    """Format of the folder, `saelens` or `sparsify`."""
    site: str
    """The site whose activations are encoded."""
    layer: int | None
    """Layer of the site; None at `final_norm`."""
    width: int
    """Number of coordinates of the site (d_in)."""
    latents: int
    """Number of latents (d_sae)."""
    architecture: str
    """Kind of autoencoder, one of `ARCHITECTURES`."""
    model: str | None
    """Name of the language model that the config gives, or None."""
    dtype: str
    """Type of the encoder's numbers in the file; everything is computed in float64 from them."""
    k: int | None
    """How many latents of a position are kept; None but for `topk`."""
    centred: bool
    """Whether the inputs are activations less their mean over coordinates, as `center_writing_weights` makes them."""
    scale: float
    """Factor on the inputs; folded into the weights."""
    tensors: Mapping[str, Stored]
    """Weights by SAELens's names; `W_enc` has the shape (width, latents)."""
    subtracts: bool
    """Whether `b_dec` is subtracted from the inputs; folded into the biases."""
    rescales: bool
    """Whether pre-activations are multiplied by the norms of the decoder's rows; folded into the weights."""

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        site: str | None = None,
        layer: int | None = None,
        centred: bool | None = None,
    ) -> Autoencoder:
        """Reads the config of a folder and the header of its weights; no package of the folder's maker is needed.

        Args:
            folder: holds `cfg.json`, and `sae_weights.safetensors` (SAELens) or `sae.safetensors` (sparsify); or
                OWNER/NAME/FOLDER, a folder of a repository in the hub's cache. Nothing is fetched.
            site: the site that it reads, where its config has a hook that is not known; with a `layer`.
            layer: that site's layer; None at `final_norm`.
            centred: whether it was trained on activations less their mean over coordinates, as TransformerLens's
                `center_writing_weights` makes them; None takes what the config says. For some, SAELens's list of
                releases sets it over their config (`config_overrides`): gpt2-small-res-jb, gpt2-small-mlp-tm.

        Raises:
            InputError: the folder is not whole, is no such folder, or is one that is not understood; or site and layer
                are not where the config says that it reads.
        """
        folder = _find(folder)
        of_format = _of_saelens if _format(folder) == SAELENS else _of_sparsify
        config = _Config.read(folder)
        parts = of_format(config)
        parts["site"], parts["layer"] = _place(config, parts.pop("hook"), site, layer)
        parts["centred"] = (parts["centred"] if centred is None else centred) and parts["site"] in WRITTEN
        sae = cls(folder=folder, **parts)
        if sae.k is not None and not 1 <= sae.k <= sae.latents:
            raise config.wrong("k", sae.k, f"must be a number from 1 to {sae.latents}, its latents")
        return sae

    @property
    def place(self) -> Place:
        """The site and layer that it reads."""
        return self.site, self.layer

    def check_index(self, index: int) -> None:
        """Refuses a latent that it does not have.

        Raises:
            InputError: names `index`, and what is allowed.
        """
        if not 0 <= index < self.latents:
            raise InputError("index", index, f"must be a number from 0 to {self.latents - 1}, the latents of this SAE")

    def check_model(self, geometry: Geometry, name: str | None = None) -> str | None:
        """Refuses a subject that it cannot belong to; whether it does belong to one that passes, no file can tell.

        Sizes that differ are a proof and refused. Names that differ are none (`gpt2-small`, `openai-community/gpt2` and
        a folder may be one model), so they are not refused: the caller is told, to say it.

        Args:
            geometry: the subject's sizes.
            name: the name that the subject goes by: a hub id, a wheel with its version, or a folder.

        Returns:
            The name of the model in its config where it differs from `name` by more than owner, path, case and
            punctuation (and TransformerLens's `gpt2-small`, which is `gpt2`); None where it does not differ or one is
            not known.

        Raises:
            InputError: the subject lacks its site or layer, or has another width there.
        """
        where = place_name(self.site, self.layer)
        try:
            geometry.check_place(self.site, self.layer)
        except InputError as error:
            allowed = f"reads {where}, which this subject does not have ({error.key} {error.value}: {error.allowed})"
            raise InputError("folder", self.folder, allowed) from error
        if (found := geometry.width(self.site)) != self.width:
            allowed = f"is an SAE of another model: it reads {self.width} coordinates, and {where} has {found}"
            said = f"Its config says that it is of {self.model}. " if self.model else ""
            raise InputError("folder", self.folder, allowed, f"{said}Take the subject that it was trained on.")
        if self.centred and geometry.model_type not in LAYER_NORM:
            allowed = "reads activations without their mean (center_writing_weights), which this family's norm keeps"
            way_out = f"TransformerLens centres no {geometry.model_type}: say centred=False, if it is of one."
            raise InputError("folder", self.folder, allowed, way_out)
        if self.model is None or name is None or _plain(self.model) == _plain(name):
            return None
        return self.model

    def weight(self, index: int) -> tuple[Float[ndarray, " width"], float]:
        """One latent's pre-activation as a function of the raw activations x of its site: w and b of `w . x + b`.

        Args:
            index: which latent, from 0.

        Returns:
            w, float64, of the norm that it has in the file and after folding; and b.

        Raises:
            InputError: there is no such latent, its numbers are not finite, or w is zero.
        """
        return self._one("pre", index)

    def gate_weight(self, index: int) -> tuple[Float[ndarray, " width"], float]:
        """The same of a gated SAE's gate, whose sign decides whether the latent fires; else see `weight`.

        Raises:
            InputError: as `weight`; or the architecture has no gate.
        """
        self._check_gated()
        return self._one("gate", index)

    def pre(self, x: Float[ndarray, "positions width"]) -> Float[ndarray, "positions latents"]:
        """The pre-activations of all latents, in float64.

        Args:
            x: raw activations of its site.

        Raises:
            InputError: some of its numbers are not finite.
        """
        return self._all("pre", x)

    def gate(self, x: Float[ndarray, "positions width"]) -> Float[ndarray, "positions latents"]:
        """What opens the latents of a gated SAE where it is above 0, in float64; else see `pre`.

        Raises:
            InputError: as `pre`; or the architecture has no gate.
        """
        self._check_gated()
        return self._all("gate", x)

    def post(self, x: Float[ndarray, "positions width"]) -> Float[ndarray, "positions latents"]:
        """The activations of all latents, in float64; what each architecture makes of `pre` is said above.

        Args:
            x: raw activations of its site.

        Raises:
            InputError: some of its numbers are not finite.
        """
        pre = self.pre(x)
        positive = np.maximum(pre, 0.0)
        if self.architecture == "gated":
            return np.where(self.gate(x) > 0, positive, 0.0)
        if "threshold" in self.tensors:
            return np.where(pre > self._threshold(), positive, 0.0)
        if self.k is not None:
            kept = np.argpartition(pre, self.latents - self.k, axis=1)[:, self.latents - self.k :]
            mask = np.zeros_like(pre, dtype=bool)
            np.put_along_axis(mask, kept, values=True, axis=1)
            return np.where(mask, positive, 0.0)
        return positive

    def _one(self, path: str, index: int) -> tuple[Float[ndarray, " width"], float]:
        self.check_index(index)
        w, b = self._affine(path, slice(index, index + 1))
        if not w.any():
            allowed = "is a latent whose encoder is zero, so its pre-activation is constant"
            raise InputError("index", index, allowed, "Take another latent.")
        return w[:, 0], float(b[0])

    def _all(self, path: str, x: Float[ndarray, "positions width"]) -> Float[ndarray, "positions latents"]:
        parts = [self._affine(path, slice(start, start + BLOCK)) for start in range(0, self.latents, BLOCK)]
        return np.concatenate([x.astype(np.float64) @ w + b for w, b in parts], axis=1)

    def _affine(self, path: str, which: slice) -> tuple[Float[ndarray, "width some"], Float[ndarray, " some"]]:
        """W and b of some latents: (s x - b_dec) E g + b, with the mean of x taken away first where it is centred.

        SAELens folds the scale s of inputs in such a way (`fold_activation_norm_scaling_factor`) that the decoder is
        divided by s, and so are the gains g where these are its norms.
        """
        encoder = self.tensors["W_enc"].read(slice(None), which)
        if self.architecture == "gated":
            bias = self.tensors["b_mag" if path == "pre" else "b_gate"].read(which)
            encoder = encoder * np.exp(self.tensors["r_mag"].read(which)) if path == "pre" else encoder
        else:
            bias = self.tensors["b_enc"].read(which)
        if self.subtracts:
            bias = bias - self.tensors["b_dec"].read() @ encoder
        gain = np.linalg.norm(self.tensors["W_dec"].read(which), axis=1) / self.scale if self.rescales else 1.0
        w = self.scale * encoder * gain
        return w - w.mean(axis=0) if self.centred else w, bias * gain

    def _threshold(self) -> Float[ndarray, " thresholds"]:
        """What pre-activations must exceed: a number for each latent, or one for all."""
        return np.atleast_1d(self.tensors["threshold"].read()) / (self.scale if self.rescales else 1.0)

    def _check_gated(self) -> None:
        if self.architecture != "gated":
            raise InputError("folder", self.folder, f"has no gate, since its architecture is {self.architecture}")


# the config


@dataclass(frozen=True)
class _Config:
    """What a `cfg.json` says, with the errors of what it should say."""

    file: Path
    content: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path, name: str = CONFIG) -> _Config:
        file = folder / name
        try:
            content = from_json(file.read_text(encoding="utf-8"))
        except ValueError as error:
            allowed = f"must be whole JSON ({error})"
            raise InputError("folder", file, allowed, "Copy it again from where it was made.") from error
        if not isinstance(content, dict):
            raise InputError("folder", file, "must hold a JSON object", "Copy it again from where it was made.")
        return cls(file, content)

    def wrong(self, key: str, value: object, allowed: str, way_out: str = "") -> InputError:
        return InputError("folder", f"{self.file}, {key}: {value}", allowed, way_out)

    def get(self, key: str, kind: type | tuple[type, ...], meaning: str, default: Any = None) -> Any:
        """The value of a key; the default where it is missing or null, and an error where there is none."""
        value = self.content.get(key)
        if value is None and default is not None:
            return default
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):  # True is an int to Python
            raise self.wrong(key, json.dumps(value), f"must be {meaning}")
        return value

    def size(self, key: str) -> int:
        value = self.get(key, int, "a whole number from 1")
        if value < 1:
            raise self.wrong(key, value, "must be a whole number from 1")
        return value

    def flag(self, key: str, default: bool | None) -> bool:
        return self.get(key, bool, "true or false", default)

    def text(self, *keys: str) -> str:
        """The text under the first key that is there; empty where none is."""
        key = next((key for key in keys if self.content.get(key) is not None), keys[0])
        return self.get(key, str, "text", "")

    def check_keys(self, known: Sequence[str]) -> None:
        """Refuses a key that is not known, since it may change what the encoder does; not where it is null, 0 or false.

        Raises:
            InputError: names the first such key.
        """
        for key, value in self.content.items():
            if key not in known and value:
                way_out = f"If it does not change what latents make of an input, take it out of {CONFIG}."
                raise self.wrong(key, json.dumps(value), "is a key that is not understood", way_out)

    def section(self, key: str) -> _Config:
        return _Config(self.file, self.get(key, dict, "a JSON object", {}))


def _find(place: str | Path) -> Path:
    """The folder at a path, or by OWNER/NAME/FOLDER in the hub's cache."""
    folder = Path(place).expanduser().absolute()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise InputError("folder", place, "must be a folder, and is a file")
    owner, name, *inner = (*PurePosixPath(place).parts, "", "")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    within = "/".join(filter(None, inner))
    try:
        found = Path(snapshot_download(f"{owner}/{name}", allow_patterns=f"{within}*", local_files_only=True)) / within
    except (HFValidationError, LocalEntryNotFoundError):
        found = None
    if found is None or not found.is_dir():
        allowed = "must be a folder, or OWNER/NAME/FOLDER in the hub's cache, and is neither"
        raise InputError("folder", place, allowed, "Fetch it with `hf download OWNER/NAME --include 'FOLDER/*'`.")
    return found


def _format(folder: Path) -> str:
    """The weights' file of a folder, which says whose format it is."""
    found = [name for name in (SAELENS, SPARSIFY) if (folder / name).is_file()]
    if len(found) == 1 and (folder / CONFIG).is_file():
        return found[0]
    allowed = f"must hold {CONFIG} and either {SAELENS} (SAELens) or {SPARSIFY} (sparsify), and "
    inner = sorted(file.parent for depth in ("*", "*/*") for file in folder.glob(f"{depth}/{CONFIG}"))
    way_out = f"There are such folders in it, {inner[0]} first: name one of them." if inner and not found else ""
    if len(found) == 2:
        raise InputError("folder", folder, f"{allowed}holds both")
    if not found and any(file.suffix in (".pt", ".pth", ".bin", ".pkl") for file in folder.iterdir()):
        way_out = "Load it with the package that made it and save it again as safetensors."
        raise InputError("folder", folder, f"{allowed}has pickled weights only, which can run code of others", way_out)
    raise InputError("folder", folder, f"{allowed}lacks {CONFIG if found else 'both'}", way_out)


def _of_saelens(config: _Config) -> dict[str, Any]:
    """The fields of an SAE in SAELens's format: a config with `metadata` (6.0 on) or one in which all keys are flat.

    The defaults of keys that are missing are SAELens's own (`handle_pre_6_0_config`, `SAEConfig`).
    """
    said = _Config(config.file, {**config.content, **config.section("metadata").content})
    architecture = _architecture(config)
    for key in ("hook_name_out", "d_out"):
        if said.content.get(key) is not None:
            raise config.wrong(key, said.content[key], "is of a transcoder, which reads and writes at two places")
    if "metadata" in config.content:
        config.check_keys(OF_SAELENS)
    if said.content.get("hook_head_index") is not None:
        allowed = "is of an SAE of a single head, and an SAE must read all coordinates of a site"
        raise config.wrong("hook_head_index", said.content["hook_head_index"], allowed)
    width, latents = config.size("d_in"), config.size("d_sae")
    hook = said.text("hook_name", "hook_point")
    kwargs = said.section("model_from_pretrained_kwargs")
    if (place := place_of(hook)) is None or place[0] in HEADS:
        for key in ("fold_value_biases", "refactor_factored_attn_matrices"):
            if kwargs.flag(key, default=False):
                raise config.wrong(key, "true", "changes what heads hold, and ours hold what Hugging Face's model says")
    says_k = config if config.content.get("k") is not None else config.section("activation_fn_kwargs")
    tensors = _tensors(config.file.parent / SAELENS, _shapes(architecture, width, latents))
    return {
        "format": "saelens",
        "hook": hook,
        "width": width,
        "latents": latents,
        "architecture": architecture,
        "model": said.text("model_name") or None,
        "dtype": tensors["W_enc"].dtype,
        "k": says_k.size("k") if architecture == "topk" else None,
        "centred": kwargs.flag("center_writing_weights", default=False),
        "scale": _input_scale(config),
        "tensors": tensors,
        "subtracts": config.flag("apply_b_dec_to_input", default=True),
        # batchtopk's default is another than topk's, so a checkpoint of it must say it
        "rescales": config.flag("rescale_acts_by_decoder_norm", default=None if architecture == "batchtopk" else False),
    }


_ONLY_ENCODERS = (
    "Transcoders, cross-coders and matryoshka checkpoints are not read; SAELens saves a matryoshka SAE that is done as "
    "jumprelu."
)


def _architecture(config: _Config) -> str:
    """The architecture in a config of SAELens; before 6.0, TopK was `standard` with another activation function."""
    architecture = config.get("architecture", str, "text", None if "metadata" in config.content else "standard")
    activation = config.text("activation_fn", "activation_fn_str") or "relu"
    if activation == "topk" and architecture == "standard":
        architecture = "topk"
    if architecture not in ARCHITECTURES:
        raise config.wrong("architecture", architecture, f"must be one of {', '.join(ARCHITECTURES)}", _ONLY_ENCODERS)
    if activation not in ("relu", "topk" if architecture == "topk" else "relu"):
        raise config.wrong("activation_fn", activation, "must be relu, or topk where the architecture is topk")
    return architecture


def _input_scale(config: _Config) -> float:
    """What inputs are multiplied by: 1, or the factor beside a checkpoint (`expected_average_only_in`)."""
    kind = config.get("normalize_activations", (str, bool), "text", "none")
    kind = {True: "expected_average_only_in", False: "none"}.get(kind, kind)  # older configs: whether there is such one
    if kind == "none":
        return 1.0
    if kind in NOT_AFFINE:
        reason = f"makes the pre-activation no affine function of the activations ({NOT_AFFINE[kind]})"
        raise config.wrong("normalize_activations", kind, f"{reason}, so there is no direction to maximize")
    if kind != "expected_average_only_in":
        way_out = "Let SAELens fold it into the weights, and save the SAE again."
        raise config.wrong("normalize_activations", kind, "must be none or expected_average_only_in", way_out)
    factor = None
    if (config.file.parent / SCALER).is_file():
        factor = _Config.read(config.file.parent, SCALER).get("scaling_factor", (int, float), "a number above 0")
    if factor is None or not 0 < factor < np.inf:
        allowed = f"needs the factor of its inputs, which {SCALER} beside it would hold (scaling_factor)"
        way_out = "Fold it with SAELens (sae.fold_activation_norm_scaling_factor(factor)), and save the SAE again."
        raise config.wrong("normalize_activations", kind, allowed, way_out)
    return factor


def _of_sparsify(config: _Config) -> dict[str, Any]:
    """The fields of an SAE in sparsify's format; its hookpoint is its folder's name, its model beside that folder."""
    for key, meaning in (("transcode", "transcoder"), ("skip_connection", "transcoder with a skip connection")):
        if config.flag(key, default=False):
            raise config.wrong(key, "true", f"is of a {meaning}, which reads and writes at two places")
    if config.flag("signed", default=False):
        raise config.wrong("signed", "true", "keeps the largest latents of either sign, which is not read")
    if (activation := config.text("activation") or "topk") != "topk":
        raise config.wrong("activation", activation, "must be topk")
    config.check_keys(OF_SPARSIFY)
    width = config.size("d_in")
    latents = config.content.get("num_latents") or width * config.size("expansion_factor")
    latents = _Config(config.file, {"num_latents": latents}).size("num_latents")
    shapes = {"encoder.weight": (latents, width), "encoder.bias": (latents,), "b_dec": (width,)}
    found = _tensors(config.file.parent / SPARSIFY, shapes | {"W_dec": (latents, width)}, optional=("W_dec",))
    folder = config.file.parent
    folder = folder.parent if re.fullmatch(r"seed\d+", folder.name) else folder
    run = _Config.read(folder.parent, "config.json").text("model") if (folder.parent / "config.json").is_file() else ""
    return {
        "format": "sparsify",
        "hook": folder.name,
        "width": width,
        "latents": latents,
        "architecture": "topk",
        "model": run or None,
        "dtype": found["encoder.weight"].dtype,
        "k": config.size("k"),
        "centred": False,
        "scale": 1.0,
        "tensors": {"W_enc": found["encoder.weight"].T, "b_enc": found["encoder.bias"], "b_dec": found["b_dec"]},
        "subtracts": True,
        "rescales": False,
    }


def _place(config: _Config, hook: str, site: str | None, layer: int | None) -> Place:
    """Where it reads: what its hook says, or what was given by hand, which must not contradict that."""
    found = place_of(hook)
    if hook == "ln_final.hook_normalized":
        raise config.wrong(
            "hook", hook, "lies before the final norm's weight, where we have no site: final_norm is after"
        )
    if site is None:
        if layer is not None:
            raise InputError("layer", layer, "takes a site with it where the place is given by hand")
        if found is None:
            allowed = "is no place that is known, among TransformerLens's hooks and Hugging Face's modules"
            raise config.wrong("hook", hook or "none", allowed, BY_HAND)
        return found
    if (layer is None) != (site == "final_norm"):
        raise InputError("layer", layer, "must be given with the site, but for final_norm, which takes none")
    if found is not None and _same(found) != _same((site, layer)):
        allowed = f"is not where this SAE reads, which is {place_name(*found)} ({hook} in {config.file})"
        raise InputError("site", place_name(site, layer), allowed)
    return site, layer


def _same(place: Place) -> Place:
    """A name for a place and for what has the same values: what leaves a block is what enters the next."""
    site, layer = place
    return ("resid_pre", layer + 1) if site == "resid_post" and layer is not None else place


def _plain(name: str) -> str:
    """A model's name without owner, path, version, case and punctuation."""
    last = re.sub(r"[^a-z0-9]", "", name.rstrip("/\\").replace("\\", "/").rpartition("/")[2].partition("==")[0].lower())
    return {"gpt2small": "gpt2"}.get(last, last)


# the weights


def _shapes(architecture: str, width: int, latents: int) -> dict[str, tuple[int, ...]]:
    """The tensors of SAELens's file, by its names."""
    own = {
        "gated": {"b_gate": (latents,), "r_mag": (latents,), "b_mag": (latents,)},
        "jumprelu": {"b_enc": (latents,), "threshold": (latents,)},
        "batchtopk": {"b_enc": (latents,), "topk_threshold": ()},
    }
    shapes = {"W_enc": (width, latents), "W_dec": (latents, width), "b_dec": (width,)}
    return shapes | own.get(architecture, {"b_enc": (latents,)})


def _tensors(file: Path, shapes: Mapping[str, tuple[int, ...]], optional: Sequence[str] = ()) -> dict[str, Stored]:
    """The tensors of a file, which must be those that the config asks for."""
    found = _open(file)
    for name in ("scaling_factor", "finetuning_scaling_factor"):  # of the decoder
        found.pop(name, None)
    if "threshold" in shapes and "log_threshold" in found:  # of older checkpoints of JumpReLUTrainingSAE
        log = found.pop("log_threshold")
        found["threshold"] = Stored(log.name, np.exp(log.read()), "float64")
    unknown, missing = sorted(set(found) - set(shapes)), sorted(set(shapes) - set(found) - set(optional))
    if unknown or missing:
        lacks = f"lacks {', '.join(missing)}" if missing else f"holds {', '.join(unknown)} besides"
        allowed = f"must hold {', '.join(shapes)}, as its config says, and {lacks}"
        raise InputError("folder", file, allowed, "Is it of another architecture than its config says?")
    for name, stored in found.items():
        if stored.raw.shape != shapes[name]:
            allowed = f"must have the shape {list(shapes[name])}, as its config says, and has {list(stored.raw.shape)}"
            raise InputError("folder", stored.name, allowed)
    if "topk_threshold" in found:
        found["threshold"] = found.pop("topk_threshold")
    return found


def _open(file: Path) -> dict[str, Stored]:
    """The tensors of a safetensors file, none of them read yet."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy"):  # checks that header and length are whole
            pass
    except (OSError, SafetensorError) as error:
        way_out = "Copy it again from where it was made."
        raise InputError("folder", file, f"must be a whole file of safetensors ({error})", way_out) from error
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header = from_json(stream.read(size))
    header.pop("__metadata__", None)
    stored = {}
    for name, entry in header.items():
        if entry["dtype"] not in DTYPES:
            allowed = f"must be of float64, float32, float16 or bfloat16, and is of {entry['dtype']}"
            raise InputError("folder", f"{file}, {name}", allowed)
        kind, shape = DTYPES[entry["dtype"]], tuple(entry["shape"])
        start, end = entry["data_offsets"]
        flat = np.memmap(file, kind, "r", 8 + size + start, (end - start) // np.dtype(kind).itemsize)
        dtype = "bfloat16" if entry["dtype"] == "BF16" else np.dtype(kind).name
        stored[name] = Stored(f"{file}, {name}", flat.reshape(shape), dtype)
    return stored
