"""The tuning job: reads words, takes their activations, compares, and draws one unit over a text."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from actmax.errors import InputError
from actmax.model.directions import resolved
from actmax.records.store import Summary
from actmax.tasks.subjects import SubjectWork, context_of
from actmax.tasks.task import Run, keys_of, settings_of
from actmax.tasks.tuning import activations, analysis, heatmap, tables
from actmax.tasks.tuning.activations import Reader, Texts
from actmax.tasks.tuning.plan import words_of
from actmax.tasks.tuning.store import Store
from actmax.tasks.tuning.task import places_of, tuned_unit
from actmax.words import lists
from actmax.words.encoding import encode


class TuningWork(SubjectWork):
    """Which units tell two categories of words apart, from a model's activations."""

    def prepare(self) -> None:
        """Reads the words and encodes them."""
        settings = self.settings = settings_of(self.cfg, "tuning")
        self.places = places_of(self.cfg, self.subject.geometry)
        (before,) = context_of(self.cfg, self.task, self.subject, tokens=1).before
        with keys_of(self.cfg, "tuning"):
            self.encoding = encode(self.subject, lists.read(settings), before=before)
            self.unit = None if settings.unit is None else resolved([tuned_unit(settings.unit)], self.subject)[0]
            if self.unit is not None and self.unit.place not in self.places:
                raise InputError("unit", settings.unit, "must be of a site and layer that are compared")
            text = None if settings.text is None else heatmap.text_of(settings.text)
            self.ids = None if text is None else heatmap.encoded(self.subject, text, before=before)

    def space_after_reading(self) -> int:
        """Bytes for activations and tables, once the number of words is known."""
        size = sum(self.subject.geometry.width(site) for site, _ in self.places)
        return size * (len(self.encoding.data.samples) * 8 + 2000) + 50_000_000

    @property
    def title(self) -> tuple[str, list[str]]:
        """Subject and words; tagged by subject and sites."""
        cfg = self.cfg
        return f"{cfg.subject.name} {Path(cfg.tuning.data).stem}", [cfg.subject.name, *cfg.tuning.sites]

    def perform(self, run: Run) -> Summary:
        """Reads the activations, compares, draws."""
        cfg, found = self.settings, self.encoding.data
        if run.contents.record is not None:
            run.contents.record.require_space(self.space_after_reading())
        with TemporaryDirectory() as scratch:
            store = Store(
                self.subject.geometry,
                self.places,
                len(found.samples),
                memory=cfg.memory * 1e9,
                folder=(run.folder or Path(scratch)) / "activations",
                keep=cfg.save,
                dtype="float64" if self.subject.dtype == torch.float64 else "float32",
            )
            return self._measure(run, store)

    def _measure(self, run: Run, store: Store) -> Summary:
        cfg = self.settings
        with store:
            clock = time.perf_counter()
            # what pads a text makes it longer, which matters where rotary positions depend on the length
            padding = 0 if self.subject.stretches else cfg.padding
            texts = Texts(self.encoding.texts, tokens=cfg.batch_tokens, padding=padding)
            words = [sample.word for sample in self.encoding.data.samples]
            reader = Reader(self.subject, store, vector=cfg.vector, words=words)
            accelerator = self.cfg.trainer.accelerator
            trainer = activations.trainer(accelerator=accelerator, folder=run.folder)
            with keys_of(self.cfg, "tuning"):
                trainer.predict(reader, datamodule=texts, return_predictions=False)
            seconds = {"activations": time.perf_counter() - clock}
            clock = time.perf_counter()
            headline = self._analyse(run, store)
            seconds["analysis"] = time.perf_counter() - clock
        return {**headline, **self.provenance(seconds), **self.read_behind(self.encoding.before)}

    def _analyse(self, run: Run, store: Store) -> Summary:
        data = self.encoding.data
        samples = words_of(data, self.encoding.subtokens)
        geometry = self.subject.geometry
        found = analysis.analyse(store, samples, geometry, self.settings)
        headline = tables.write_tuning(run.contents, found, self.encoding, store, self.settings.data)
        if self.ids is None:
            return headline
        unit, scale = tables.scale_of(found, self.unit, data, store)
        drawn = heatmap.heat_map(self.subject, unit, self.ids, scale, before=self.encoding.before)
        return {**headline, **tables.write_heat_map(run.contents, drawn)}
