"""What the tasks share that maximize units, before anything is run."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from actmax.errors import InputError
from actmax.evidence.settings import NullSettings
from actmax.model.settings import ContextSettings, GapSettings, TransferSettings
from actmax.records.store import job_hash
from actmax.tasks.bounds import WORD, Share, share_of_product
from actmax.tasks.contexts import check_context, check_text, context_digest, context_identity
from actmax.tasks.meanings import check_meaning, meaning_digest, meaning_identity
from actmax.tasks.settings import (
    control_count,
    files_of,
    integers,
    kind_of,
    objective_settings,
    seeds,
    unit_keys,
    units,
    units_label,
)
from actmax.tasks.task import FILES_OF_SUBJECT, Gathered, Task, digest_of
from actmax.text.settings import MeaningSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from actmax.evidence.nulls import Displaced, Restarts
    from actmax.model.architecture import Geometry
    from actmax.model.subject import Subject
    from actmax.records.collect import Job

    Ends = Callable[[Sequence[Restarts]], Sequence[Displaced]]

GROUPS = {
    "context": ContextSettings,
    "nulls": NullSettings,
    "gap": GapSettings,
    "transfer": TransferSettings,
    "meaning": MeaningSettings,
}
"""Groups of keys of both tasks."""
KEYS = (
    "subject",
    "unit",
    "objective",
    "context",
    "decode",
    "nulls",
    "gap",
    "transfer",
    "meaning",
    "seeds",
    "controls",
    "tokens",
)
"""Top-level keys that can change the result of both."""
TOGETHER = 32
"""Units whose nulls are drawn together."""
VECTOR = 256
"""The least bytes of a vector of a text."""


class UnitsTask(Task):
    """A task that maximizes units: a row per restart, and a name for everything but the unit and the seed."""

    on_subject = True
    idle = FILES_OF_SUBJECT
    page_import = "actmax.tasks.units.page:maximization_page"

    @property
    def gathered_with(self) -> str:
        """Gradient runs and searches are set side by side."""
        return "units"

    def check_subject(self, cfg: DictConfig, sizes: Geometry) -> None:
        """Refuses units and lengths that the subject lacks."""
        for unit in units(cfg):
            with unit_keys(cfg):
                sizes.check(unit)
        if cfg.tokens > sizes.context:
            allowed = f"must be at most {sizes.context}, the context of {cfg.subject.name}"
            raise InputError("tokens", cfg.tokens, allowed)
        check_context(cfg, self)
        check_meaning(cfg, sizes.layers)

    def check_files(self, cfg: DictConfig, sizes: Geometry | None) -> None:  # noqa: ARG002
        """Refuses a text for windows that cannot be read."""
        check_text("context.texts", cfg.context.texts)

    def shares(self, cfg: DictConfig, sizes: Geometry | None) -> Iterable[Share]:  # noqa: ARG002
        """The draws of the nulls, of the decode gap, of transfer and of meaning, and the decoded tokens."""
        own, each = len(units(cfg)), len(seeds(cfg))
        yield Share("nulls.draws", 6 * WORD * each * cfg.tokens)
        yield Share("nulls.displacements", 3 * WORD * each * cfg.tokens * min(own, TOGETHER))
        yield from (Share(f"{group}.draws", WORD * (cfg.tokens + 2 * own)) for group in ("gap", "transfer"))
        for group in ("context", "transfer"):
            yield share_of_product(cfg, f"{group}.windows", f"{group}.window", WORD)
        if cfg.meaning.embedder != "none":
            yield from (Share(f"meaning.{key}", VECTOR * each) for key in ("draws", "pool", "words"))
        yield Share("decode.top_k", 1.5 * WORD * own * each * cfg.tokens)

    def identity(self, cfg: DictConfig) -> dict[str, Any]:
        """Everything in the config that can change the result, units, seeds and the number of controls written out."""
        found = [list(unit.columns().values()) for unit in units(cfg)]
        counts = {"seeds": integers(cfg.seeds, "seeds"), "controls": control_count(cfg)}
        content = super().identity(cfg) | counts | {"unit": found, "context": context_identity(cfg, self)}
        content["objective"] = objective_settings(cfg)
        if kind_of(cfg.unit) != "coordinate":
            content["against"] = cfg.unit.against
        content.pop("meaning")
        return content | meaning_identity(cfg)

    def read(self, cfg: DictConfig) -> dict[str, str | None]:
        """What a user brings: the text whose windows are a context, an embedder's folder, directions."""
        return super().read(cfg) | context_digest(cfg) | meaning_digest(cfg) | target_digest(cfg)

    def condition(self, cfg: DictConfig) -> str:
        """Names everything but units, controls and seeds: jobs of one condition may be put together."""
        content = self.identity(cfg)
        for key in ("unit", "seeds", "controls"):
            content.pop(key)
        content.pop("against", None)
        return job_hash({"config": content, **self.read(cfg)})[:12]

    @abstractmethod
    def method(self, cfg: DictConfig) -> str:
        """The job's priors, or its search, as a person calls them."""

    def label(self, cfg: DictConfig) -> str:
        """Subject, site, layers and indices."""
        return units_label(cfg)

    def line(self, summary: Mapping[str, Any]) -> str:
        """The activation and what was kept, or the verdicts of several units."""
        from actmax.report.words import one_line

        return one_line(summary)

    def statement(self, summary: Mapping[str, Any]) -> str:
        """What the restarts of one unit show, or the verdicts of several units."""
        from actmax.report.words import restarts_statement

        return restarts_statement(summary)

    def passes(self, job: Job) -> tuple[float, float]:
        """Forward passes of a restart, a backward pass counted as one, and how many ran the whole model."""
        passes = 2.0 * job.config["steps"]
        return passes, passes if job.config["prior"]["fluency"]["weight"] > 0 else 0.0

    def ends(self, subject: Subject, settings: NullSettings, config: Mapping[str, Any]) -> Ends | None:  # noqa: ARG002
        """Draws where restarts would end by chance; None for random displacements of their starts."""
        return None

    def verify(self, job: Job) -> None:
        """Refuses a record whose tables are of different lengths."""
        from actmax.tasks.units.gather import verify

        verify(job)

    def gather(self, jobs: Sequence[Job]) -> Gathered:
        """Units over all their jobs, means by layer, priors and methods side by side."""
        from actmax.tasks.units.gather import gather

        return gather(jobs)


def target_digest(cfg: DictConfig) -> dict[str, str | None]:
    """sha256 of the files that directions come from, where there are any."""
    files = files_of(cfg.unit)
    return {"targets": digest_of(files)} if files else {}


def init_digest(cfg: DictConfig) -> str | None:
    """sha256 of the record's file that restarts start from, where they do."""
    if cfg.init.path is None:
        return None
    place = Path(cfg.init.path)
    file = place / "embeddings.safetensors" if place.is_dir() else place
    return digest_of([(file, "")]) if file.is_file() else None
