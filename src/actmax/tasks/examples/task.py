"""Where in real text units are highest: settings, checks and identity."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from omegaconf import DictConfig

from actmax.errors import InputError
from actmax.model.settings import ContextSettings
from actmax.settings import seed_setting, setting
from actmax.tasks.bounds import WORD, Share
from actmax.tasks.contexts import READ_BEHIND, check_context, check_text, context_identity
from actmax.tasks.meanings import check_meaning, meaning_digest, meaning_identity
from actmax.tasks.settings import unit_keys, units, units_label
from actmax.tasks.task import FILES_OF_SUBJECT, Task, digest_of
from actmax.tasks.tuning.task import refuse_devices
from actmax.tasks.units.task import target_digest
from actmax.text.files import named_text, require_regular
from actmax.text.settings import MeaningSettings

if TYPE_CHECKING:
    from actmax.model.architecture import Geometry
    from actmax.report.source import Source
    from actmax.tasks.commands import Next

NEEDED = ("gaps.parquet", "summary.json")
"""Files of a maximization's record that is set beside."""


@dataclass
class ExamplesSettings:
    """What is read, and what is kept of it; the units are `unit.*`."""

    text: str | None = None
    """A text file, or a folder of .txt files, streamed; or `sample`: a few passages that come with actmax."""
    record: str | None = None
    """A maximization's folder, to set what it reached in the same units beside; null: none."""
    window: int = setting(64, least=2)
    """Tokens that are read together, those of the context among them."""
    top: int = setting(20, least=1)
    """Contexts to keep for each unit, each from another window."""
    context: int = setting(10, least=0)
    """Tokens shown on either side."""
    sample: int = setting(100_000, least=1000)
    """Positions that quantiles are taken over, a random choice; with fewer they are exact."""
    rows: int = setting(16, least=1)
    """Windows of a forward pass."""
    seed: int = seed_setting()
    """Seed of the choice of positions."""


class ExamplesTask(Task):
    """Where in real text units are highest."""

    name = "examples"
    groups: ClassVar = {"context": ContextSettings, "examples": ExamplesSettings, "meaning": MeaningSettings}
    keys = ("subject", "context", "examples", "meaning")
    default_context = "bos"
    idle = (*FILES_OF_SUBJECT, "examples.rows")
    on_subject = True
    work_import = "actmax.tasks.examples.work:ExamplesWork"
    page_import = "actmax.tasks.examples.page:examples_page"

    def check(self, cfg: DictConfig) -> None:
        """Refuses several devices: a text is read on one."""
        refuse_devices(cfg, self.name)

    def check_subject(self, cfg: DictConfig, sizes: Geometry) -> None:
        """Refuses units and windows that the subject lacks, and files that are not there."""
        for unit in units(cfg):
            with unit_keys(cfg):
                sizes.check(unit)
        check_context(cfg, self, READ_BEHIND)
        check_meaning(cfg, sizes.layers)
        examples = cfg.examples
        if examples.text is None or not named_text(examples.text).exists():
            allowed = "must be a text file or a folder of .txt files, or sample"
            raise InputError("examples.text", examples.text, allowed)
        if examples.window > sizes.context:
            allowed = f"must be at most {sizes.context}, the context of {cfg.subject.name}"
            raise InputError("examples.window", examples.window, allowed)
        if examples.record is not None and not all((Path(examples.record) / name).is_file() for name in NEEDED):
            allowed = "must be the folder of a maximization's complete record"
            raise InputError("examples.record", examples.record, allowed)

    def check_files(self, cfg: DictConfig, sizes: Geometry | None) -> None:  # noqa: ARG002
        """Refuses texts that cannot be read."""
        check_text("context.texts", cfg.context.texts)
        check_text("examples.text", str(named_text(cfg.examples.text)))
        if cfg.examples.record is not None:
            for name in NEEDED:
                require_regular(Path(cfg.examples.record) / name, "examples.record")

    def shares(self, cfg: DictConfig, sizes: Geometry | None) -> Iterable[Share]:
        """The residual stream of a batch of windows, and what is kept of every unit."""
        if sizes is not None:
            yield Share("examples.rows", 4 * cfg.examples.window * sizes.d_model)
        yield from (Share(f"examples.{key}", WORD * len(units(cfg))) for key in ("sample", "top"))

    def identity(self, cfg: DictConfig) -> dict[str, Any]:
        """Everything in the config that can change the result, units written out."""
        found = [list(unit.columns().values()) for unit in units(cfg)]
        content = super().identity(cfg) | {"unit": found, "context": context_identity(cfg, self)}
        content.pop("meaning")
        return content | meaning_identity(cfg)

    def read(self, cfg: DictConfig) -> dict[str, str | None]:
        """The text, the record that is set beside, and an embedder's folder."""
        named = {"*.txt": named_text(cfg.examples.text), "*.parquet": cfg.examples.record}
        data = digest_of((Path(place), pattern) for pattern, place in named.items() if place is not None)
        return super().read(cfg) | {"data": data, **meaning_digest(cfg), **target_digest(cfg)}

    def label(self, cfg: DictConfig) -> str:
        """Subject and units, as of a maximization."""
        return units_label(cfg)

    def after(self, source: Source) -> Next:
        """The search of the same units."""
        from actmax.tasks.commands import same_search

        return same_search(source.config, "a search over real tokens")

    def line(self, summary: Mapping[str, Any]) -> str:
        """How much was read."""
        return f"{summary['positions']:,} positions read for {summary['units']} units"

    def statement(self, summary: Mapping[str, Any]) -> str:
        """Where the units are highest."""
        from actmax.report.words import contexts_statement

        return contexts_statement(summary)
