"""The Python front door: a language model, and what one can ask of it. Results are `actmax.tasks.result.Result`."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn
from yaml import YAMLError

from actmax import choices
from actmax.errors import InputError, renamed
from actmax.model.directions import Logit, parse_target, write_directions
from actmax.model.settings import SubjectSettings
from actmax.model.subject import DTYPES, Subject, proven, settle, shared
from actmax.model.target import Direction, Target, Unit, place_name
from actmax.progress import shown
from actmax.records.contents import Contents
from actmax.records.store import Status, finite, now
from actmax.tasks import registry, schema
from actmax.tasks.execution import matmul_precision, quieted
from actmax.tasks.result import Result
from actmax.tasks.task import Run, plain
from actmax.weights import cache_folder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Targets = str | Target | Sequence[str | Target]
"""One target or several, by address or as objects."""
Settings = Mapping[str, Any]
"""Settings of one group of config keys, by name."""
ARGUMENTS = {
    "unit.site": "target",
    "unit.layer": "target",
    "unit.index": "target",
    "unit.target": "target",
    "optimizer.name": "optimizer",
    "optimizer.lr": "lr",
    "init.name": "init",
    "objective.reduction": "reduction",
    "objective.sign": "sign",
    "context.name": "context",
    "search.method": "method",
    "search.passes": "passes",
    "search.text": "text",
    "examples.text": "texts",
    "tuning.data": "data",
    "trainer.accelerator": "device",
}
"""What a key of a config is called in Python, where it has a name of its own."""


class LanguageModel:
    """A frozen language model, and what one can ask of it.

    Args:
        subject: the model.
        settings: settings of the group `subject`.
        source: model and tokenizer that a wrapped model shares its weights with.
    """

    def __init__(self, subject: Subject, settings: Settings, source: tuple[PreTrainedModel, Any] | None = None) -> None:
        self._subject, self.settings, self._source = subject, dict(settings), source
        self._stamp = _versions(source)

    @property
    def subject(self) -> Subject:
        """The model with its sizes, tokenizer and sites; made anew where a wrapped model's weights have changed."""
        if self._source is not None and _versions(self._source) != self._stamp:
            self._subject, self._stamp = _wrapped(*self._source, self._subject.name), _versions(self._source)
        return self._subject

    def __repr__(self) -> str:
        sizes = self._subject.geometry
        return (
            f"{self._subject.name}: {sizes.model_type}, {sizes.layers} blocks x {sizes.d_model} dims, "
            f"{len(self._subject.embedding_matrix):,} tokens, {str(self._subject.dtype).removeprefix('torch.')}"
        )

    def maximize(
        self,
        target: Targets,
        *,
        seeds: int | Sequence[int] = 10,
        controls: int | str = "auto",
        tokens: int = 5,
        steps: int = 500,
        prior: str | Sequence[str] = "none",
        init: str = "scaled",
        optimizer: str = "adam",
        lr: float | None = None,
        context: str | Settings = "auto",
        reduction: str = "auto",
        sign: str = "maximize",
        device: str = "auto",
        progress: bool = True,
        **groups: Settings,
    ) -> Result:
        """Maximizes units over input embeddings, many restarts at once, decodes, and sets the result beside chance.

        Args:
            target: a unit such as `"resid_pre.8[91]"`, a `Direction`, a `Latent`, a `Logit`, or several of them.
            seeds: how many restarts (seeds from 0), or the seeds themselves.
            controls: number of other units that run beside, to tell what is the unit's own; auto for few.
            tokens: positions of an embedding.
            steps: steps of the optimizer.
            prior: names of priors, as on the command line (docs/priors.md).
            init: what restarts start from: scaled, randn or tokens.
            optimizer: adam, adamw or sgd.
            lr: learning rate; None takes the optimizer's own.
            context: what stands around the tokens: auto (nothing), a name, or settings (docs/context.md).
            reduction: of all positions to one number: mean, last or max; auto is the mean, of a logit the last.
            sign: maximize or minimize.
            device: auto, cpu or gpu.
            progress: whether a bar is shown.
            groups: any other key of the reference, by group: `nulls={"draws": 1999}`, `gap={"draws": 20000}`.

        Raises:
            InputError: an argument is wrong; it is named.
            KeyboardInterrupt: stopped by hand.
        """
        values = _asked(target, reduction, sign, seeds, tokens, controls, context) | {
            "task": {"name": "maximization"},
            "steps": steps,
            "init": {"name": init},
            "optimizer": choices.choice("optimizer", optimizer) | ({} if lr is None else {"lr": lr}),
            "prior": _priors(prior),
        }
        return self._ask(values, groups, device, progress, target)

    def search(
        self,
        target: Targets,
        *,
        method: str = "gcg",
        passes: int = 2000,
        seeds: int | Sequence[int] = 10,
        controls: int | str = "auto",
        tokens: int = 5,
        text: str | Path | None = None,
        context: str | Settings = "auto",
        reduction: str = "auto",
        sign: str = "maximize",
        device: str = "auto",
        progress: bool = True,
        **groups: Settings,
    ) -> Result:
        """Maximizes units over real tokens, and sets what is found beside random tokens.

        Args:
            target: a unit, a `Direction`, a `Latent`, a `Logit`, or several of them.
            method: gcg, epo, random or text (docs/search.md).
            passes: forward passes per restart; a backward pass counts as one.
            seeds: how many restarts (seeds from 0), or the seeds themselves.
            controls: other units that run beside, to tell what is the unit's own: a number, or auto for few.
            tokens: tokens of a sequence.
            text: for `method="text"`: a text file, or a folder of .txt files.
            context: what stands around the tokens: auto (begin-of-text), a name, or settings (docs/context.md).
            reduction: of all positions to one number: mean, last or max; auto is the mean, of a logit the last.
            sign: maximize or minimize.
            device: auto, cpu or gpu.
            progress: whether a bar is shown.
            groups: any other key of the reference, by group: `search={"candidates": 320}`.

        Raises:
            InputError: an argument is wrong; it is named.
            KeyboardInterrupt: stopped by hand.
        """
        values: dict[str, Any] = {
            "task": {"name": "search"},
            **_asked(target, reduction, sign, seeds, tokens, controls, context),
            "search": {"method": method, "passes": passes, "text": None if text is None else str(text)},
        }
        return self._ask(values, groups, device, progress, target)

    def examples(
        self,
        target: Targets,
        texts: str | Path,
        *,
        top: int = 20,
        context: str | Settings = "auto",
        record: Result | str | Path | None = None,
        device: str = "auto",
        progress: bool = True,
        **groups: Settings,
    ) -> Result:
        """Finds where in real text units are highest, beside their quantiles over all of it.

        Args:
            target: a unit, a `Direction`, a `Latent`, a `Logit`, or several of them.
            texts: a text file, or a folder of .txt files, streamed; or `sample`: a few passages that come with actmax.
            top: contexts to keep for each unit.
            context: what stands before each window of the text: auto (begin-of-text), none, bos, or settings with a
                prefix.
            record: the folder of a maximization of the same units, to set what it reached beside.
            device: auto, cpu or gpu.
            progress: whether a bar is shown.
            groups: any other key of the reference, by group: `examples={"window": 128}`.

        Raises:
            InputError: an argument is wrong; it is named.
            KeyboardInterrupt: stopped by hand.
        """
        if isinstance(record, Result):
            if record.contents.record is None:
                raise InputError("record", "a result", "must have been saved", "result.save(FOLDER); record=FOLDER.")
            record = record.contents.record.folder
        own = {"text": str(texts), "top": top, "record": None if record is None else str(record)}
        values: dict[str, Any] = {"task": {"name": "examples"}, "unit": _asked_targets(target), "examples": own}
        return self._ask(values | {"context": _context(context)}, groups, device, progress, target)

    def tune(
        self,
        data: str | Path = "nouns_verbs",
        *,
        sites: Sequence[str] = ("mlp_pre", "resid_post"),
        layers: int | str | Sequence[int] = "all",
        text: str | None = None,
        context: str | Settings = "auto",
        device: str = "auto",
        progress: bool = True,
        **groups: Settings,
    ) -> Result:
        """Compares the activations of two categories of words, unit by unit, and tries the answer on other words.

        Args:
            data: `nouns_verbs` (built in), a CSV (word,category[,pair][,context]), or CoNLL-U (docs/tuning.md).
            sites: sites whose units are compared.
            layers: all, a block's number, or several.
            text: a text that one unit is drawn over.
            context: what stands before each text: auto (begin-of-text), none, bos, or settings with a prefix.
            device: auto, cpu or gpu.
            progress: whether a bar is shown.
            groups: any other key of the reference, by group: `tuning={"splits": 50}`.

        Raises:
            InputError: an argument is wrong; it is named.
            KeyboardInterrupt: stopped by hand.
        """
        named = _members("sites", sites, "must be a list of sites")
        own = {"data": str(data), "sites": named, "layers": layers, "text": text}
        own["layers"] = list(layers) if isinstance(layers, (range, tuple)) else layers
        values = {"task": {"name": "tuning"}, "tuning": own, "context": _context(context)}
        return self._ask(values, groups, device, progress, None)

    def _ask(
        self,
        values: dict[str, Any],
        groups: Mapping[str, Settings],
        device: str,
        progress: bool,
        target: Targets | None,
    ) -> Result:
        """Makes the config that the command line would make, checks it, and runs the job in memory."""
        try:
            return _run(self._config(values, groups, device), self.subject, progress=progress)
        except InputError as error:
            key = ARGUMENTS.get(error.key, error.key)
            value = error.value if key == error.key or key != "target" else _named(target)
            raise InputError(key, value, error.allowed, error.way_out) from error

    def _config(self, values: Settings, groups: Mapping[str, Settings], device: str) -> DictConfig:
        own = {"subject": self.settings, "trainer": {"accelerator": device}, **values}
        if "unit" not in own:  # a job on words has no unit; the schema wants one
            own |= {"unit": choices.choice("unit", "residual")}
        own |= {key: choices.choice(key, name) for key, name in _IDLE.items() if key not in own}
        for group, settings in groups.items():
            if not isinstance(settings, Mapping) or group not in schema.groups():
                known = ", ".join(schema.groups())
                raise InputError(group, settings, f"must be settings of a group, as a dict; groups: {known}")
        try:
            cfg = OmegaConf.merge(OmegaConf.structured(schema.schema()), own, dict(groups))
        except OmegaConfBaseException as error:
            key, value = error.full_key or "settings", error.value
            raise InputError(str(key), value, f"is not a setting ({str(error).splitlines()[0]})") from error
        return cast("DictConfig", cfg)


_IDLE = {"init": "scaled", "optimizer": "adam", "callbacks": "default"}
"""The choice of each group that a job may not use, as the command line makes it all the same."""


def _run(cfg: DictConfig, subject: Subject, *, progress: bool) -> Result:
    """Checks a job, runs it, and holds its result in memory."""
    schema.check(cfg, schema.schema())
    task = registry.task_in(cfg)
    task.check_subject(cfg, subject.geometry)
    contents = Contents()
    contents.config_text = OmegaConf.to_yaml(cfg, resolve=True)
    with quieted(), matmul_precision(cfg.trainer.matmul_precision), shown(progress):
        work = task.work(cfg, subject)
        work.prepare()
        started = now()
        summary = work.perform(Run(contents))
    contents.summary = json.loads(json.dumps(finite(summary)))  # as it is read back from a record
    request = None if cfg.subject.source == "memory" else schema.request(cfg)
    job_hash = str(work.identity["job_hash"])
    contents.status = Status("complete", job_hash, started, now(), request=request)
    return Result(contents)


def load(name: str | Path, **settings: Any) -> LanguageModel:
    """Loads a language model, frozen.

    Args:
        name: a name of conf/subject (`smollm2`, `gpt2`, `tiny`), a hub id (`EleutherAI/pythia-70m`), or a folder that
            `save_pretrained` wrote.
        settings: any other key of `subject.*`: `dtype="float64"`, `attention="eager"`, `revision="main"`.

    Raises:
        InputError: there is no such model, it cannot be had, or its family is unknown.
    """
    known = choices.choices("subject")
    if Path(name).is_dir():
        own = {"name": Path(name).resolve().name, "source": "hub", "path": str(name)}
    elif str(name) in known and name != "hub":
        own = choices.choice("subject", str(name))
    elif "/" in str(name):
        own = {"name": str(name).rstrip("/").rpartition("/")[2], "source": "hub", "id": str(name)}
    else:
        named = ", ".join(one for one in known if one != "hub")
        raise InputError("name", name, f"must be one of {named}, a hub id (OWNER/NAME), or a folder")
    try:
        found = plain(OmegaConf.merge(OmegaConf.structured(SubjectSettings), own, settings))
    except OmegaConfBaseException as error:
        key = str(error.full_key)
        raise InputError(key, settings.get(key), f"is not a setting ({str(error).splitlines()[0]})") from error
    with renamed({"config": "name"}):
        return LanguageModel(shared(**found), found)


def wrap(model: nn.Module, tokenizer: Any, *, name: str | None = None) -> LanguageModel:
    """Takes a Hugging Face model that is in memory: fine-tuned, merged, patched.

    The model itself is left as it is: what is asked runs on a frozen view that shares its weights. When they change,
    the next question is about the changed model; its records are named by the hash of its weights.

    Args:
        model: a causal language model of a known family.
        tokenizer: its tokenizer.
        name: what to call it; None takes the config's or the class's own.

    Raises:
        InputError: its family or dtype is not known, or there is no tokenizer.
    """
    config = getattr(model, "config", None)
    if config is None or not hasattr(model, "get_input_embeddings"):
        raise InputError("model", type(model).__name__, "must be a Hugging Face causal language model")
    if not hasattr(tokenizer, "get_vocab"):
        raise InputError(
            "tokenizer", tokenizer, "must be the model's tokenizer: AutoTokenizer.from_pretrained gives it"
        )
    called = name or Path(str(getattr(config, "_name_or_path", "") or type(model).__name__)).name
    causal = cast("PreTrainedModel", model)
    subject = _wrapped(causal, tokenizer, called)
    dtype = str(subject.dtype).removeprefix("torch.")
    own = {"name": called, "source": "memory", "id": subject.id, "dtype": dtype, "attention": subject.attention}
    return LanguageModel(subject, own, (causal, tokenizer))


def _wrapped(model: PreTrainedModel, tokenizer: Any, name: str) -> Subject:
    """A frozen view of a model: modules of its own, weights in common."""
    if hasattr(model, "merge_and_unload"):
        allowed = "holds an adapter beside its weights, which are not what it computes with"
        raise InputError("model", type(model).__name__, allowed, "wrap(model.merge_and_unload(), tokenizer)")
    own = {id(one): nn.Parameter(one.detach(), requires_grad=False) for one in model.parameters()}
    view = copy.deepcopy(model, own).eval()
    settle(view)
    dtype = next(view.get_input_embeddings().parameters()).dtype
    if dtype not in DTYPES.values():
        raise InputError("model", str(dtype), f"its weights must be of {', '.join(DTYPES)}")
    with renamed({"config": "model"}):
        found = proven(partial(Subject, name, "in memory", None, view, tokenizer), view)
    if not all(one.is_floating_point() for one in view.parameters()):
        _require_gradients(found)
    named = replace(found, id=f"in memory, weights {found.weights_hash[:16]}")
    named._hashes.update(found._hashes)
    return named


def _require_gradients(subject: Subject) -> None:
    """Refuses a model whose kernels give no gradient for their inputs, as some of quantized weights do.

    Raises:
        InputError: nothing can be maximized in it.
    """
    embedded = subject.embed(torch.arange(2)[None]).detach().requires_grad_()
    place, reason = ("resid_post", 0), "it has none"
    try:
        (slope,) = torch.autograd.grad(subject.run(embedded, [place])[place].float().square().sum(), embedded)
        if bool(torch.isfinite(slope).all()) and bool(slope.any()):
            return
    except (RuntimeError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0][:120]
    allowed = f"gradients must pass through its first block to the embeddings ({reason})"
    raise InputError("model", type(subject.model).__name__, allowed, "Load it in bfloat16 or float32.")


def _versions(source: tuple[PreTrainedModel, Any] | None) -> tuple[int, ...]:
    """Counters that PyTorch raises at every change in place of a weight."""
    return () if source is None else tuple(one._version for one in source[0].parameters())


def open(  # noqa: A001 the name that users expect, beside load and save
    folder: Path | str,
) -> Result:
    """The result that a record holds, whether the command line or `save` wrote it.

    Args:
        folder: the folder of one job.

    Raises:
        InputError: there is no record, it is damaged, of another version, or not complete.
    """
    found = Result(Contents.read(folder))
    try:
        registry.task_in(found.config)
    except (KeyError, TypeError, YAMLError) as error:
        raise InputError("folder", folder, "its record is damaged: config.yaml names no task") from error
    return found


def _named(target: Targets | None) -> object:
    return target if isinstance(target, (str, Target)) or target is None else [str(one) for one in target]


def _asked(
    target: Targets,
    reduction: str,
    sign: str,
    seeds: int | Sequence[int],
    tokens: int,
    controls: int | str,
    context: str | Settings,
) -> dict[str, Any]:
    """What a maximization and a search are both asked, as a config holds it."""
    objective = {"reduction": reduction, "sign": sign}
    return {
        **_restarts(seeds),
        "tokens": tokens,
        "controls": controls,
        "unit": _asked_targets(target),
        "objective": objective,
        "context": _context(context),
    }


def _context(context: str | Settings) -> dict[str, Any]:
    """Settings of the group `context`, of which the name alone may be given."""
    if not isinstance(context, (str, Mapping)):
        raise InputError("context", context, "must be a name, or settings as a dict")
    return {"name": context} if isinstance(context, str) else dict(context)


def _restarts(seeds: int | Sequence[int]) -> dict[str, Any]:
    """Seeds as a config holds them: from 0, or those that are given."""
    allowed = "must be a number of restarts from 1, or a list of seeds"
    given: Any = getattr(seeds, "tolist", lambda: seeds)()  # numpy's numbers are no setting
    if isinstance(given, int):
        if isinstance(given, bool) or given < 1:
            raise InputError("seeds", given, allowed)
        return {"seeds": f"0:{given}"}
    return {"seeds": _members("seeds", given, allowed)}


def _members(argument: str, given: Any, allowed: str) -> list[Any]:
    """What an argument that takes several things holds; a text is one thing.

    Raises:
        InputError: it holds nothing, as a number does.
    """
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise InputError(argument, given, allowed)
    return list(given)


def _asked_targets(target: Targets) -> dict[str, Any]:
    """Targets as a config says them: units as one site, layers x indices, where they fill such a product; else a list.

    Raises:
        InputError: an address is wrong, or none is given.
    """
    allowed = "must be an address, such as resid_pre.8[91], a target, or a list of them"
    given = [target] if isinstance(target, (str, Target)) else _members("target", target, allowed)
    if not given:
        raise InputError("target", given, "must name at least one target")
    if wrong := [one for one in given if not isinstance(one, (str, Target))]:
        raise InputError("target", wrong[0], allowed)
    with renamed(dict.fromkeys(("direction", "index", "name", "sae"), "target")):
        targets = [one if isinstance(one, Target) else parse_target(one) for one in given]
    sites, layers, indices = (list(dict.fromkeys(_part(targets, name))) for name in ("site", "layer", "index"))
    layer, index = (one[0] if len(one) == 1 else one for one in (layers, indices))
    place = {"site": sites[0], "layer": layer, "index": index}
    if len(sites) == 1 and [Unit(sites[0], layer, index) for layer in layers for index in indices] == targets:
        return place
    addresses = [text if isinstance(text, str) else _address(text) for text in given]
    return {**place, "target": addresses if len(addresses) > 1 else addresses[0]}


def _address(target: Target) -> str:
    """Where a target is found again, by a config: a direction that is in memory alone is put into a file of the cache.

    The file is named by what it holds, so that the same direction has the same address.
    """
    if isinstance(target, (Unit, Logit)) or not isinstance(target, Direction):
        return str(target)
    if target.origin is not None:
        return target.origin.address(target)
    folder = cache_folder() / "directions"
    file = folder / f"{sha256(target.identity.encode()).hexdigest()[:16]}.safetensors"
    if not file.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            partial = file.with_suffix(f".{os.getpid()}.part")
            write_directions(partial, [target], title="")
            partial.replace(file)
        except OSError as error:
            allowed = f"cannot be kept in {folder} (ACTMAX_CACHE), where nothing can be written ({error})"
            raise InputError("target", target, allowed, "ACTMAX_CACHE names another folder.") from error
    return f"{place_name(*target.place)}:{file}#0"


def _part(targets: Sequence[Target], name: str) -> list[Any]:
    return [getattr(target, name) for target in targets]


def _priors(prior: str | Sequence[str]) -> dict[str, Any]:
    """The settings of some priors together."""
    found: dict[str, Any] = {}
    for name in [prior] if isinstance(prior, str) else _members("prior", prior, "must be a name, or a list of names"):
        found |= choices.choice("prior", name, "prior")
    return found
