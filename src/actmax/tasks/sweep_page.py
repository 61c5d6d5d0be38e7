"""The page of a sweep, and of its jobs where there are few."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
import yaml
from tqdm.auto import tqdm

from actmax.evidence.verdicts import VERDICTS
from actmax.records.store import Record, from_yaml
from actmax.report.blocks import (
    Block,
    Cell,
    Code,
    Column,
    Missing,
    Number,
    Page,
    Prose,
    Shown,
    Table,
    is_missing,
    table,
)
from actmax.report.html import render
from actmax.report.source import Source, present
from actmax.tasks.collection import Collected
from actmax.tasks.pages import NAME, encodable, write_job
from actmax.tasks.units_page import headline, histogram, plain_verdict, unit_table

JOBS = 24
"""Jobs of a sweep up to which each gets its own page when it is collected: a page takes a second or two."""
MAPS = 6
"""Heat maps of layers, at most: one per condition and site."""
COLUMNS = (
    "job",
    "state",
    "seconds",
    "task",
    "subject",
    "condition",
    "started",
    "finished",
    "device",
    "visible",
    "host",
)
"""Of the table of jobs, before what differs among them."""
SWEEP_KEYS = ("overrides", "sweeper", "launcher")
"""Of Hydra's part of multirun.yaml, what a reader may want."""
HIDDEN = (*COLUMNS, "process", "error", "job_hash")


def write_sweep(found: Collected, *, jobs: int = JOBS) -> Path:
    """Writes a sweep's page, and those of its jobs where there are few.

    Args:
        found: what was collected.
        jobs: above how many none gets its own; those that have one that is newer than their status keep it.
    """
    names = [] if len(found.jobs) > jobs else _job_names(found)
    for name in tqdm(names, desc="pages", unit="job", disable=not sys.stderr.isatty()):
        own = Record(found.folder / name)
        if not _fresh(own):
            write_job(own)
    record = Record(found.folder)
    source = Source(record, job=False)
    source.write_csv()
    page = sweep_page(source, found)
    return record.write_text(NAME, encodable(render(replace(page, problems=tuple(source.problems)))))


def _job_names(found: Collected) -> list[str]:
    return [str(name) for name in found.jobs["job"]] if len(found.jobs) else []


def _fresh(record: Record) -> bool:
    """Whether there is a page that is newer than anything else that the job said."""
    page = record.path(NAME)
    said = [record.path(name) for name in ("status.json", "summary.json")]
    return page.exists() and all(page.stat().st_mtime >= file.stat().st_mtime for file in said if file.exists())


def sweep_page(source: Source, found: Collected) -> Page:
    """Of all jobs under a folder.

    Args:
        source: of the sweep's folder.
        found: what was collected there.
    """
    counts = found.summary["jobs"]
    verdict, numbers = _said(found, counts)
    sections = [
        source.section("Units", lambda: _unfinished_notes(found), lambda: _many(source, found), lambda: _units(found)),
        source.section("Priors", lambda: _ladder(source, found)),
        source.section("What each method finds in tokens", lambda: _methods(found)),
        source.section("Layers", lambda: _layers(source, found)),
        source.section("Jobs", lambda: _not_complete(found), lambda: _left_out(found), lambda: _jobs(source, found)),
        source.section("How this was made", lambda: _made(source)),
    ]
    state = (
        "complete" if counts["total"] and counts["complete"] == counts["total"] and not found.left_out else "incomplete"
    )
    name = str(found.summary["sweep"])
    asked = f"What do the {counts['total']} jobs of {name} say together?"
    facts = f"actmax · sweep {name} · collected {found.summary['collected'][:16].replace('T', ' ')} UTC"
    return Page(f"{name} · actmax", asked, verdict, numbers, present(sections), state, facts)


def _said(found: Collected, counts: dict[str, int]) -> tuple[str, tuple[Number, ...]]:
    states = ", ".join(f"{number} {state}" for state, number in counts.items() if number and state != "total")
    jobs = Number("Jobs complete", f"{counts.get('complete', 0)} of {counts['total']}", states or "none could be read")
    if len(found.ladder):
        return _side_by_side(found.ladder, jobs)
    if len(found.units):
        numbers = headline(found.units)
        several = len(set(found.units["condition"]))
        over = f" Over {several} conditions together; the tables keep them apart." if several > 1 else ""
        return plain_verdict(found.units) + over, (jobs, *numbers[:2])
    done = found.jobs[found.jobs["state"] == "complete"] if len(found.jobs) else found.jobs
    if not len(done):
        return "No job is complete, so there is nothing to say yet.", (jobs,)
    return f"{len(done)} jobs are complete; each has its own page below.", (jobs,)


def _side_by_side(rungs: pd.DataFrame, jobs: Number) -> tuple[str, tuple[Number, ...]]:
    """Where several priors ran: which keeps most of the activation in tokens, and whose restarts agree most."""
    best, alike = (
        rungs.sort_values(name, ascending=False, na_position="last").iloc[0] for name in ("z_snapped", "jaccard_above")
    )
    verdict = (
        f"{best['prior']} has the most activation left in tokens, restarts of {alike['prior']} share the most tokens "
        "above their null. Each prior is judged by itself; the tables below keep them apart."
    )
    tokens = Number(
        f"Activation in tokens, {best['prior']} ({best['site']})",
        f"z = {best['z_snapped']:.2f}",
        f"± {best['z_snapped_se']:.2f} over {best['units']} units; random tokens: 0 ± 1",
    )
    shared = Number(
        f"Tokens that two restarts share, {alike['prior']} ({alike['site']})",
        f"{alike['jaccard']:.1%}",
        f"its null: {alike['null_jaccard_mean']:.1%}",
    )
    return verdict, (jobs, tokens, shared)


def _unfinished_notes(found: Collected) -> list[Block]:
    return [Missing("Put together", note) for note in found.notes]


def _units(found: Collected) -> Block:
    if not len(found.units):
        return Missing("The table of units", "No complete job has units that could be put side by side.")
    return unit_table(found.units, "units.parquet")


def _ladder(source: Source, found: Collected) -> list[Block]:
    from actmax.report import figures

    if not len(found.ladder):
        return []
    caption = (
        "What each prior buys: agreement of restarts above its null, against the activation once snapped to tokens."
    )
    alt = "Scatter plots: agreement above null against activation once snapped, a point per prior."
    figure = source.figure("pareto", lambda: figures.pareto(found.ladder), alt=alt, caption=caption)
    shown = [
        Shown("site", form="s"), Shown("prior", form="s"), Shown("seconds", form=".0f"), Shown("units", form="d"),
        Shown("z_final", "z optimum", ".3g"), Shown("z_snapped", "z snapped", ".2f", shade=True),
        Shown("z_snapped_se", "± se", ".2f"),
        Shown("cross_entropy_mean", "nats", ".1f"), Shown("cross_entropy_initial_mean", "nats, start", ".1f"),
        Shown("jaccard", "shared", ".1%", shade=True), Shown("null_jaccard_mean", "null", ".1%"),
        Shown("displacement_cosine_assigned", "moves", ".3f", shade=True),
        Shown("null_displacement_cosine_assigned_mean", "null", ".3f"),
        Shown("pareto_tokens", "on the front", lambda on: "yes" if on else "no"),
    ]  # fmt: skip
    caption = (
        "z: activation in standard deviations of random tokens; nats: cross-entropy per snapped token; se: over units."
    )
    return [figure, table(found.ladder, shown, title="Priors side by side", source="ladder.parquet", caption=caption)]


def _methods(found: Collected) -> Block | None:
    if not len(found.methods):
        return None
    shown = [
        Shown("site", form="s"), Shown("method", form="s"), Shown("forward_passes", "passes", ".0f"),
        Shown("whole_passes", "whole model", ".0f"), Shown("activation_mean", "mean"), Shown("activation_max", "best"),
        Shown("random_activation_mean", "random tokens"), Shown("z", "z", ".2f", shade=True),
        Shown("z_max", "best z", ".2f", shade=True), Shown("cross_entropy", "nats", ".1f"),
        Shown("null_cross_entropy_mean", "random tokens", ".1f"), Shown("jaccard", "shared", ".1%"),
        Shown("null_jaccard_mean", "null", ".1%"), Shown("seconds", form=".0f"),
    ]  # fmt: skip
    caption = (
        "Activation of tokens, means over units; snapped: the optimum of a free embedding, decoded; passes: forward "
        "passes of a restart, a backward pass counted as one; z: in standard deviations of one random sequence."
    )
    return table(found.methods, shown, title="Methods side by side", source="methods.parquet", caption=caption)


def _many(source: Source, found: Collected) -> Block | None:
    return histogram(source, found.units) if len(found.units) else None


def _layers(source: Source, found: Collected) -> list[Block]:
    from actmax.report import figures

    if not len(found.layers):
        return []
    blocks: list[Block] = []
    groups = found.layers.groupby(["condition", "site"])
    several = [(key, pd.DataFrame(rows)) for key, rows in groups if len(rows) > 1]
    for number, (key, rows) in enumerate(several[:MAPS]):
        name = "layers" if number == 0 else f"layers_{number + 1}"
        caption = (
            f"{_named(key)}: every measure from its lowest (dark) to its highest (light) layer, grey where all have "
            "the same; means over units."
        )
        alt = "Heat map: measures by layer."
        blocks.append(source.figure(name, lambda rows=rows: figures.layer_map(rows), alt=alt, caption=caption))
    if len(several) > MAPS:
        blocks.append(Prose(f"The first {MAPS} of {len(several)} conditions and sites; layers.parquet has them all."))
    return [*blocks, *_verdicts(source, found), _layer_table(found)]


def _named(key: Any) -> str:
    return " · ".join(str(part)[:12] for part in key)


def _verdicts(source: Source, found: Collected) -> list[Block]:
    from actmax.report import figures

    layers = found.layers
    if not len(layers) or not layers[list(VERDICTS)].to_numpy().sum():
        return []
    some = layers.head(60)
    caption = "Share of the units with each verdict." + (
        f" The first 60 of {len(layers)} rows." if len(layers) > 60 else ""
    )
    alt = "Stacked bars: share of verdicts by site and layer."
    draw = lambda: figures.verdict_shares(some, VERDICTS)  # noqa: E731
    return [source.figure("verdicts", draw, alt=alt, caption=caption)]


def _layer_table(found: Collected) -> Table:
    shown = [
        Shown("prior", form="s"), Shown("condition", form=lambda text: str(text)[:8]),
        Shown("site", form="s"), Shown("layer", form="d"),
        Shown("units", form="d"), Shown("restarts", form=".0f"), Shown("activation_final_mean", "activation"),
        Shown("z_final", "z optimum", ".3g"), Shown("z_snapped", "z snapped", ".2f", shade=True),
        Shown("jaccard", "shared", ".2%", shade=True), Shown("null_jaccard_mean", "null", ".2%"),
        Shown("displacement_cosine_assigned", "moves", ".3f", shade=True),
        Shown("null_displacement_cosine_assigned_mean", "null", ".3f"),
        Shown("unique_share", "unique", ".0%"), Shown("null_unique_share", "null", ".0%"),
        Shown("init_retention", "kept", ".0%", shade=True), Shown("null_retention_mean", "null", ".0%"),
    ]  # fmt: skip
    caption = "Means over units, each followed by its null's; z in standard deviations of random tokens."
    return table(found.layers, shown, title="Layers", source="layers.parquet", caption=caption)


def _not_complete(found: Collected) -> list[Block]:
    rows = found.summary["not_complete"]
    if not rows:
        return []
    cells = tuple(
        (
            Cell(str(row["job"]), wide=True),
            Cell(str(row["state"])),
            Cell(str(row["error"] or "it left no error"), wide=True),
        )
        for row in rows[:1000]
    )
    heads = tuple(Column(name, numeric=False) for name in ("job", "state", "error"))
    cut = f"The first 1,000 of {len(rows):,}; jobs.parquet has them all." if len(rows) > 1000 else ""
    return [Table("Not complete", heads, cells, "The sweep's command again runs these alone.", cut)]


def _left_out(found: Collected) -> list[Block]:
    if not found.left_out:
        return []
    heads = (Column("record", numeric=False), Column("reason", numeric=False))
    rows = tuple((Cell(name, wide=True), Cell(reason, wide=True)) for name, reason in found.left_out[:1000])
    return [Table("Records that could not be read", heads, rows, "They are in none of the numbers.")]


def _counted(name: str) -> list[str | int]:
    """A key that sorts names as people count: layer 2 before layer 10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def _jobs(source: Source, found: Collected) -> Block:
    if not len(found.jobs):
        return Missing("The table of jobs", "No record could be read.")
    extra = [name for name in found.jobs.columns if name not in HIDDEN]
    heads = [Column("job", numeric=False), Column("state", numeric=False), Column("seconds")]
    heads += [Column(name, numeric=False) for name in [*extra, "device", "host"]]
    shown = sorted(found.jobs.head(1000).to_dict("records"), key=lambda row: _counted(str(row["job"])))
    rows = [_job(source, row, extra) for row in shown]
    linked = sum(row[0].link is not None for row in rows)
    caption = "Each job's name leads to its own page." if linked else "No job has a page of its own yet."
    if linked < len(rows):
        caption += f" {len(rows) - linked} have none: actmax-report FOLDER/JOB makes it."
    cut = f"The first 1,000 of {len(found.jobs):,} jobs; jobs.parquet has them all." if len(found.jobs) > 1000 else ""
    return Table("All jobs", tuple(heads), tuple(rows), caption, cut)


def _job(source: Source, row: dict[Any, Any], extra: Sequence[str]) -> tuple[Cell, ...]:
    name = str(row["job"])
    page = source.record.path(f"{name}/report.html")
    link = "/".join(quote(part) for part in (*name.split("/"), "report.html")) if page.exists() else None
    seconds = Cell("–") if is_missing(row["seconds"]) else Cell(f"{row['seconds']:.1f}", float(row["seconds"]))
    rest = [
        Cell("–" if is_missing(row[key]) else str(row[key])[:60], _key(row[key])) for key in (*extra, "device", "host")
    ]
    return Cell(name, link=link), Cell(str(row["state"])), seconds, *rest


def _key(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _made(source: Source) -> list[Block]:
    file = source.record.path("multirun.yaml")
    try:
        text = file.read_text(encoding="utf-8")
        content = from_yaml(text)
        overrides = content["hydra"]["overrides"]["task"]
        # the rest of Hydra's own part is its help and its logging
        content["hydra"] = {key: content["hydra"][key] for key in SWEEP_KEYS if key in content["hydra"]}
        return [
            Code("Run it again", shlex.join(["actmax", "-m", *overrides]), folded=False),
            Code("multirun.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True)),
        ]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return [Missing("The command", "multirun.yaml is not here: the folder was not made by one sweep.")]
