"""What the work of both tasks on units shares: a row per restart, and what names a condition."""

from __future__ import annotations

from typing import cast

from omegaconf import DictConfig

from actmax.model.objective import Row
from actmax.model.settings import TransferSettings
from actmax.model.subject import Subject
from actmax.model.target import Unit
from actmax.records.store import Summary
from actmax.tasks.contexts import context_label
from actmax.tasks.settings import asked_address, seeds
from actmax.tasks.subjects import SubjectWork, objective_of, transfer_contexts
from actmax.tasks.targets import control_targets, own_targets
from actmax.tasks.task import Task, plain
from actmax.tasks.units.task import UnitsTask
from actmax.text.settings import MeaningSettings


class UnitsWork(SubjectWork):
    """A job on units, a row per restart: units x seeds, in order, control units after the job's own."""

    def __init__(self, task: Task, cfg: DictConfig, subject: Subject) -> None:
        super().__init__(task, cfg, subject)
        own = own_targets(cfg, subject)
        self.controls = control_targets(cfg, subject, own)
        self.units = [*own, *self.controls]
        self.rows = [Row(unit, seed) for unit in self.units for seed in seeds(cfg)]
        self.objective = objective_of(cfg, task, subject)
        tried = TransferSettings(**plain(cfg.transfer))  # a rank's config has no types
        self.meaning = MeaningSettings(**plain(cfg.meaning))
        self.transfer = tried, transfer_contexts(cfg, subject, self.objective.context)

    @property
    def space(self) -> int:
        """Bytes that the record may take at most: a dozen copies of the embeddings, the trajectory, and 20 MB."""
        return len(self.rows) * (self.cfg.tokens * 2048 * 4 * 12 + self.cfg.steps * 64) + 20_000_000

    @property
    def title(self) -> tuple[str, list[str]]:
        """Subject, unit, method, context and seeds; tagged by subject and site.

        A single coordinate's numbers are as long as the largest of its model, so that names sort as numbers do.
        """
        cfg, first = self.cfg, self.units[0]
        address = asked_address(cfg.unit)
        if isinstance(first, Unit) and first.layer is not None and address == str(first):
            sizes = self.subject.geometry
            layer, index = len(str(sizes.layers - 1)), len(str(sizes.width(first.site) - 1))
            address = f"{first.site}.{first.layer:0{layer}}[{first.index:0{index}}]"
        method = cast("UnitsTask", self.task).method(cfg)
        how = [one for one in (method, context_label(cfg, self.objective.context.name)) if one != "none"]
        return " ".join([cfg.subject.name, address, *how, f"seeds {cfg.seeds}"]), [cfg.subject.name, first.site]

    def provenance(self, seconds: dict[str, float]) -> Summary:
        """Adds the condition to the entries: the hash of everything but unit and seed, by which records are pooled."""
        task, entries = cast("UnitsTask", self.task), super().provenance(seconds)
        condition = task.condition(self.cfg) + self.subject.weights_hash[:12]
        device = {**entries["device"], "count": self.cfg.trainer.devices}
        context = context_label(self.cfg, self.objective.context.name)
        names = {"condition": condition, "prior": task.method(self.cfg), "context": context}
        return {**entries, **names, "device": device}
