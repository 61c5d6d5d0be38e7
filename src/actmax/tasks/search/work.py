"""The search over tokens: runs it in shared batches, keeps its answers, and measures what it found."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import Any

import torch

from actmax.errors import InputError
from actmax.model.target import Target
from actmax.progress import Bar
from actmax.records.store import Summary
from actmax.search.restarts import Found, search, spreads
from actmax.tasks.execution import graceful_interrupt
from actmax.tasks.search import tables
from actmax.tasks.subjects import device_of
from actmax.tasks.targets import write_targets
from actmax.tasks.task import Run, keys_of, settings_of
from actmax.tasks.units.work import UnitsWork
from actmax.weights import cache_folder

log = logging.getLogger(__name__)

SAVE_SECONDS = 10
"""Least number of seconds between two checkpoints of a search."""


class SearchWork(UnitsWork):
    """Maximizes units over real tokens, and sets what it finds beside the same nulls."""

    def prepare(self) -> None:
        """Puts the subject where it is to run."""
        cfg, vocabulary = self.cfg, len(self.subject.embedding_matrix)
        if cfg.decode.top_k > vocabulary:
            allowed = f"must be at most {vocabulary}, the size of the vocabulary"
            raise InputError("decode.top_k", cfg.decode.top_k, allowed)
        self.settings = settings_of(cfg, "search")
        self.subject.to(device_of(cfg.trainer.accelerator))

    def perform(self, run: Run) -> Summary:
        """Searches, measures what was found, and returns the summary."""
        cfg, clock = self.cfg, time.perf_counter()
        with graceful_interrupt(run.stop):
            found = self._search(run)
        seconds = {"fit": time.perf_counter() - clock}
        write_targets(run.contents, self.units, self.controls)
        tables.write_found(run.contents, self.subject, found, top_k=cfg.decode.top_k, controls=self.controls)
        if run.stop.requested:
            log.warning("Stopped by hand: the best of each restart so far is kept.")
            raise KeyboardInterrupt
        clock = time.perf_counter()
        with keys_of(cfg, "search"):
            summary = tables.summarize(
                run.contents,
                self.subject,
                found,
                objective=self.objective,
                searched=self.settings,
                tokens=cfg.tokens,
                settings=settings_of(cfg, "nulls"),
                gap_settings=settings_of(cfg, "gap"),
                transfer=self.transfer,
                meaning=self.meaning,
                cache=cache_folder() / "nulls",
                controls=self.controls,
            )
        seconds["nulls"] = time.perf_counter() - clock
        return {**summary, "method": self.settings.method, **self.provenance(seconds)}

    def _search(self, run: Run) -> list[Found]:
        subject, tokens = self.subject, self.cfg.tokens
        answers = [] if run.checkpoint is None else torch.load(run.checkpoint, weights_only=True)["answers"]
        options: dict[str, Any] = {"tokens": tokens, "spread": self._spread() if self.settings.fluency else None}
        options |= {"max_rows": self.cfg.max_rows, "answers": answers}
        saved = time.perf_counter()
        subject.forget_nearest()  # an earlier job's: a search reads none, and needs the memory
        with keys_of(self.cfg, "search"), Bar("search", self.settings.passes * len(self.rows), unit="pass") as bar:

            def progress(done: int, _: int) -> bool:
                if answers and not bar.done:
                    bar.resume(done)
                bar.reach(done)
                return run.stop.requested

            def keep(given: list) -> None:
                nonlocal saved
                if run.stop.requested or time.perf_counter() - saved > SAVE_SECONDS:
                    saved = time.perf_counter()
                    self._save(run, given)

            return search(subject, self.objective, self.rows, self.settings, progress=progress, keep=keep, **options)

    def _spread(self) -> dict[Target, float]:
        """The spread over random sequences in which weights on fluency count."""
        settings, cache = settings_of(self.cfg, "gap"), cache_folder() / "nulls"
        options = {"tokens": self.cfg.tokens, "settings": settings, "cache": cache}
        return spreads(self.subject, self.objective, self.units, **options)

    def _save(self, run: Run, answers: list) -> None:
        """Writes a checkpoint: the job's identity, and the answers that every restart got so far."""
        record = run.contents.record
        if record is None:
            return
        content = {"actmax": self.identity, "global_step": max(map(len, answers)), "answers": answers}
        record.write(str(record.checkpoint.relative_to(record.folder)), partial(torch.save, content))
