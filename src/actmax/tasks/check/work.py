"""Measures the identities of a model, or takes those that were kept, and writes them."""

from __future__ import annotations

import time
from dataclasses import replace

import pandas as pd

from actmax.model.identities import identities
from actmax.records.store import Summary
from actmax.tasks.subjects import SubjectWork
from actmax.tasks.task import Run


class CheckWork(SubjectWork):
    """Whether the sites of a model are what their names say."""

    @property
    def title(self) -> tuple[str, list[str]]:
        """Name and tags of the job's run: its subject."""
        return f"{self.cfg.subject.name} check", [self.cfg.subject.name]

    def perform(self, run: Run) -> Summary:
        """Writes `identities.parquet`, a row per identity, and returns the summary."""
        clock, sizes = time.perf_counter(), self.subject.geometry
        as_read = replace(self.subject, geometry=replace(sizes, refused=()), whole=False)
        found = identities(as_read)
        rows = [
            {
                "identity": one.name,
                "sites": ", ".join(one.sites),
                "difference": one.difference,
                "tolerance": one.tolerance,
                "passed": one.passed,
            }
            for one in found
        ]
        run.contents.write_table("identities", pd.DataFrame(rows))
        headline = {
            "identities": len(found),
            "failed": [str(one) for one in found if not one.passed],
            "sites": list(sizes.sites),
            "refused": dict(sizes.refused),
            "model_type": sizes.model_type,
            "read_as": sizes.family,
            "sizes": {"layers": sizes.layers, "d_model": sizes.d_model, "d_mlp": sizes.d_mlp, "heads": sizes.heads}
            | {"kv_heads": sizes.kv_heads, "head_dim": sizes.head_dim, "context": sizes.context},
        }
        return {**headline, **self.provenance({"check": time.perf_counter() - clock})}
