"""The front door: what `actmax` says by itself, the experiments in a line each, and the choices that --help lists."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from omegaconf import DictConfig

from actmax.choices import about, choice, choices

WELCOME = """\
actmax: what does a unit of a language model respond to, and would you get the same answer again?

On a real model of 135M parameters, without a hub, an account or a GPU:
  actmax experiment=reproducibility subject=smollm2   would another start give the same answer?
  actmax task=search subject=smollm2                  which real tokens raise a unit most?
On a random model, in seconds, to see whether all is installed:
  actmax debug=quick

  actmax experiments      whole jobs and sweeps to start from, a line each
  actmax --help           all choices and keys
  actmax-report FOLDER    what a job or a sweep found, once more, and its page
Nothing was started. The default job, a maximization of one unit of GPT-2 Small: actmax task=maximization"""
"""What is said where nothing is asked for."""
EXPERIMENTS = "experiments"
"""The word that asks for the list of experiments."""
KINDS = {
    "What to do": ("task", "experiment", "debug"),
    "To which unit of which model": ("subject", "unit"),
    "What stands before the tokens": ("context",),
    "How embeddings are optimized (task=maximization)": ("init", "prior", "optimizer"),
    "How real tokens are searched (task=search)": ("search",),
    "Either of these by one name, for a sweep": ("method",),
    "Where it runs": ("launch", "trainer"),
    "What is watched and logged": ("callbacks", "logger"),
}
"""Groups of choices by their heading in the help."""
WIDTH = 110
"""Most characters of a line of --help."""
OTHERS = "Others"
"""What is said of groups that none of `KINDS` names: a user's own, by --config-dir."""


def experiments() -> str:
    """Every experiment in a line: its name, whether it is a sweep, the first line of its file's comment."""
    names = choices("experiment")
    width = max(map(len, names))
    lines = [f"  {name:{width}}  {_kind(name)}  {about('experiment', name)}" for name in names]
    head = "Run one with actmax experiment=NAME subject=smollm2; a sweep is several jobs, and --cfg job only shows."
    return "\n".join([head, "", *lines])


def _kind(experiment: str) -> str:
    mode = choice("experiment", experiment).get("hydra", {}).get("mode")
    return "sweep" if mode == "MULTIRUN" else "job  "


def grouped_choices() -> str:
    """The choices of every group that Hydra finds, by what they are about."""
    loader: Any = GlobalHydra.instance().config_loader()
    files = loader.repository  # by itself: the loader would go through its overrides for each group
    found = {name: files.get_group_options(name) for name in files.get_group_options("", ObjectType.GROUP)}
    del found["hydra"]
    known = {name for names in KINDS.values() for name in names}
    kinds = {**KINDS, OTHERS: tuple(name for name in found if name not in known)}
    lines: list[str] = []
    for kind, names in kinds.items():
        there = [name for name in names if found.get(name)]
        lines += [kind] if there else []
        lines += [_line(f"{name}=", found[name]) for name in there]
    return "\n".join(lines)


def grouped_keys(cfg: DictConfig) -> str:
    """The names of all keys of a job's config, those of each group in a line."""
    groups = {str(name): cfg._get_node(name) for name in cfg if name != "hydra"}
    alone = [name for name, node in groups.items() if not isinstance(node, DictConfig)]
    lines = [_line(f"{name}.", list(node)) for name, node in groups.items() if isinstance(node, DictConfig)]
    return "\n".join([_line("alone", alone), *lines])


def _line(head: str, names: Sequence[str]) -> str:
    return fill(f"  {head:13} {', '.join(names)}", WIDTH, subsequent_indent=" " * 16, break_on_hyphens=False)
