"""Reads a text through the model and keeps where units are highest."""

from __future__ import annotations

import time
from functools import partial

from actmax.errors import InputError
from actmax.progress import Bar
from actmax.records.store import Record, Summary
from actmax.tasks.examples.find import find_examples
from actmax.tasks.examples.meaning import passages_in_common
from actmax.tasks.examples.tables import write_examples
from actmax.tasks.settings import asked_address
from actmax.tasks.subjects import SubjectWork, context_of, on_cuda
from actmax.tasks.targets import own_targets
from actmax.tasks.task import Run, keys_of, plain
from actmax.text.files import named_text, text_files
from actmax.text.settings import MeaningSettings
from actmax.text.windows import windows


class ExamplesWork(SubjectWork):
    """Where in real text units are highest."""

    def prepare(self) -> None:
        """Looks through the files, and at the record that is to stand beside them."""
        cfg = self.cfg.examples
        self.units = own_targets(self.cfg, self.subject)
        with keys_of(self.cfg, "examples", place="examples.text"):
            self.files = text_files(named_text(cfg.text))
        (self.before,) = context_of(self.cfg, self.task, self.subject, tokens=1).before
        if len(self.before) >= cfg.window:
            allowed = f"must be above {len(self.before)}, the tokens that stand before each window"
            raise InputError("examples.window", cfg.window, allowed)
        self.beside = None if cfg.record is None else Record(cfg.record)
        if self.beside is not None:
            named = self.beside.summary().get("subject", {}).get("weights_sha256")
            if named != self.subject.weights_hash:
                allowed = f"must be of {self.subject.name}, with the same weights"
                raise InputError("examples.record", cfg.record, allowed)

    @property
    def title(self) -> tuple[str, list[str]]:
        """Name and tags of the job's run: its subject and site."""
        return f"{self.cfg.subject.name} examples of {asked_address(self.cfg.unit)}", [self.cfg.subject.name]

    def perform(self, run: Run) -> Summary:
        """Reads the text through the model, and returns the summary."""
        cfg, clock = self.cfg.examples, time.perf_counter()
        if on_cuda(self.cfg.trainer.accelerator):
            self.subject.to("cuda")
        text = partial(windows, self.subject, self.files, size=cfg.window, before=self.before)
        total = sum(file.stat().st_size for file in self.files)
        with keys_of(self.cfg, "examples"), Bar("text", total, unit="byte", scale=True) as bar:
            found = find_examples(
                self.subject,
                self.units,
                text(progress=bar.advance),
                top=cfg.top,
                seed=cfg.seed,
                rows=cfg.rows,
                sample=cfg.sample,
                context=cfg.context,
                before=len(self.before),
            )
        around = {"context": cfg.context, "before": len(self.before)}
        meaning = MeaningSettings(**plain(self.cfg.meaning))
        columns, theme = passages_in_common(self.subject, meaning, found, text(), **around)
        headline = write_examples(run.contents, found, self.beside, columns, theme)
        seconds = {"examples": time.perf_counter() - clock}
        return {**headline, **self.provenance(seconds), **self.read_behind(self.before)}
