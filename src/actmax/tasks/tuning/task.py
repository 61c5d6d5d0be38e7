"""Which units tell two categories of words apart: settings, checks and identity."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from omegaconf import DictConfig

from actmax.errors import InputError, renamed
from actmax.model.directions import parse_target
from actmax.model.settings import ContextSettings
from actmax.model.target import Place, Target
from actmax.tasks.bounds import WORD, Share
from actmax.tasks.contexts import READ_BEHIND, check_context, check_text, context_identity
from actmax.tasks.settings import integers
from actmax.tasks.task import FILES_OF_SUBJECT, Task, checked_once, digest_of, keys_of, plain, settings_of
from actmax.tasks.tuning.settings import TuningSettings
from actmax.text.files import check_utf8, named_file
from actmax.words.lists import BUILT_IN, check_reading, read

if TYPE_CHECKING:
    from actmax.model.architecture import Geometry
    from actmax.report.source import Source
    from actmax.tasks.commands import Next


class TuningTask(Task):
    """Which units tell two categories of words apart."""

    name = "tuning"
    groups: ClassVar = {"context": ContextSettings, "tuning": TuningSettings}
    keys = ("subject", "context", "tuning")
    default_context = "bos"
    idle = (*FILES_OF_SUBJECT, "tuning.memory", "tuning.batch_tokens")
    on_subject = True
    work_import = "actmax.tasks.tuning.work:TuningWork"
    page_import = "actmax.tasks.tuning.page:tuning_page"

    def check_settings(self, cfg: DictConfig) -> None:
        """Refuses sites that there are not, layers that are no numbers, a unit that is no address."""
        settings = settings_of(cfg, "tuning")
        if settings.layers != "all":
            integers(settings.layers, "tuning.layers")
        if settings.unit is not None:
            tuned_unit(settings.unit)

    def check(self, cfg: DictConfig) -> None:
        """Refuses several devices: the words are read on one."""
        refuse_devices(cfg, self.name)

    def check_subject(self, cfg: DictConfig, sizes: Geometry) -> None:
        """Refuses sites, layers and units that the subject lacks, and words that cannot be read."""
        places_of(cfg, sizes)
        check_context(cfg, self, READ_BEHIND)
        settings = settings_of(cfg, "tuning")
        with keys_of(cfg, "tuning"):
            check_reading(settings)
        if cfg.tuning.unit is not None:
            unit = tuned_unit(cfg.tuning.unit)
            try:
                sizes.check(unit)
            except InputError as error:
                allowed = f"{error.key} {error.allowed}"
                raise InputError("tuning.unit", cfg.tuning.unit, allowed, error.way_out) from error

    def check_files(self, cfg: DictConfig, sizes: Geometry | None) -> None:  # noqa: ARG002
        """Refuses words and a text that cannot be read."""
        check_text("context.texts", cfg.context.texts)
        asked = json.dumps(plain(cfg.tuning), sort_keys=True)
        with keys_of(cfg, "tuning"):
            checked_once(_words, asked, cfg.tuning.data)
        if cfg.tuning.text is not None and (file := named_file(cfg.tuning.text, "tuning.text")) is not None:
            check_utf8(file)

    def shares(self, cfg: DictConfig, sizes: Geometry | None) -> Iterable[Share]:
        """A batch's residual stream, the lists of words, and the tests of shuffled groups and splits."""
        if sizes is None:
            return
        yield Share("tuning.batch_tokens", 4 * sizes.d_model)
        yield from (Share(f"tuning.{key}", 4 * WORD) for key in ("folds", "words", "contexts"))
        # t, p and d of every unit of a place under every shuffle and split
        widest = max((sizes.width(site) for site in cfg.tuning.sites), default=1)
        yield from (Share(f"tuning.{key}", 3 * WORD * widest) for key in ("permutations", "splits"))

    def identity(self, cfg: DictConfig) -> dict[str, Any]:
        """Everything in the config that can change the result."""
        return super().identity(cfg) | {"context": context_identity(cfg, self)}

    def read(self, cfg: DictConfig) -> dict[str, str | None]:
        """The words, and the text of the heat map where it is a file."""
        found = [] if cfg.tuning.data == BUILT_IN else [(Path(cfg.tuning.data), "*.conllu")]
        if cfg.tuning.text is not None and (file := named_file(cfg.tuning.text, "tuning.text")) is not None:
            found.append((file, ""))
        return super().read(cfg) | {"data": digest_of(found)}

    def label(self, cfg: DictConfig) -> str:
        """The beginning of the job's folder name: subject and words."""
        return f"{cfg.subject.name}_{Path(cfg.tuning.data).stem}"

    def after(self, source: Source) -> Next | None:
        """The search for what the decoder of the best layer responds to; None for a result that is on no disk."""
        from actmax.tasks.commands import asked, job, override, place, same_context

        if source.record is None:
            return None
        best = source.summary["decoder"]["best_layer"]
        file = place(source.record.path("directions.safetensors"))
        asks = {"direction": file, "name": "decoder", "site": best["site"], "layer": best["layer"]}
        unit = [override(f"unit.{key}", value) for key, value in asks.items()]
        around = [*same_context(source.config), override("seeds", "0:8")]
        why = "what the decoder of the best layer responds to"
        return job(why, "task=search", *asked(source.config, "subject"), *unit, *around)

    def statement(self, summary: Mapping[str, Any]) -> str:
        """How many units are tuned, and whether other words would give the same."""
        from actmax.report.words import groups_statement

        return groups_statement(summary)


def _words(settings: str) -> None:
    """Reads the words that some settings ask for, and keeps nothing."""
    read(TuningSettings(**json.loads(settings)))


def refuse_devices(cfg: DictConfig, task: str) -> None:
    """Refuses several devices for a task that runs on one.

    Raises:
        InputError: names `trainer.devices`.
    """
    if cfg.trainer.devices > 1:
        allowed = f"must be 1: {task} runs on one device"
        raise InputError("trainer.devices", cfg.trainer.devices, allowed)


def tuned_unit(text: str) -> Target:
    """The unit of the heat map, by its address.

    Raises:
        InputError: it is no address.
    """
    try:
        return parse_target(text, "tuning.unit")
    except InputError as error:
        way_out = "Quote it: 'tuning.unit=\"mlp_pre.3[70]\"'."
        raise InputError(error.key, error.value, error.allowed, way_out) from error


def places_of(cfg: DictConfig, sizes: Geometry) -> list[Place]:
    """The sites and layers whose units are compared; `final_norm` has no layer.

    Raises:
        InputError: the subject lacks one.
    """
    layers = range(sizes.layers) if cfg.tuning.layers == "all" else integers(cfg.tuning.layers, "tuning.layers")
    places: list[Place] = []
    for site in cfg.tuning.sites:
        own = [None] if site == "final_norm" else list(layers)
        places += [(site, layer) for layer in own]
    for site, layer in places:
        with renamed({"site": "tuning.sites", "layer": "tuning.layers"}):
            sizes.check_place(site, layer)
    return places
