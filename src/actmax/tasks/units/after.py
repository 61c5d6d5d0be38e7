"""The command that a user would want behind a job on units: the search of the same unit, or its place in real text."""

from __future__ import annotations

from typing import Any

from actmax.evidence.findings import is_missing
from actmax.report.source import Source
from actmax.tasks.commands import Next, job, override, same_context, same_search, same_unit
from actmax.tasks.contexts import READ_BEHIND
from actmax.tasks.settings import kind_of
from actmax.tasks.units.page import own_rows
from actmax.text.files import SAMPLE_NAME

ONE = ", for the unit whose restarts have most in common"
"""What is said of the one of several units that the command is about."""


def after_maximization(source: Source) -> Next:
    """The search of the same unit over real tokens; of several the one whose restarts agree most.

    Where nothing stood before the embedding, begin-of-text stands before the tokens, as before any text.
    """
    only, around = _one_of(source), source.part("context")
    if around.get("name") == "none":
        around["name"] = "auto"
    return same_search({**source.config, "context": around}, f"a search over real tokens{ONE if only else ''}", only)


def after_search(source: Source) -> Next:
    """Where in real text the unit is highest; behind a search for its lowest, one for its highest."""
    config, only = source.config, _one_of(source)
    if source.part("objective").get("sign") == "minimize":
        other = {**config, "objective": {**source.part("objective"), "sign": "maximize"}}
        return same_search(other, f"the other end{ONE if only else ''}", only)
    texts = next(
        (name for name in (source.part("search").get("text"), source.part("context").get("texts")) if name), None
    )
    rest = [*same_context(config, READ_BEHIND), override("examples.text", texts or SAMPLE_NAME)]
    return job(
        f"the highest places in real text{ONE if only else ''}", "task=examples", *same_unit(config, only), *rest
    )


def _one_of(source: Source) -> dict[str, Any] | None:
    """The coordinate of several whose restarts have most tokens in common beyond chance; None where there is one."""
    units = own_rows(source, "units").reset_index(drop=True)
    if len(units) == 1 or kind_of(source.part("unit")) != "coordinate":
        return None
    beyond = (units["shared_tokens"] - units["null_shared_tokens_mean"]).fillna(-1).to_numpy(float)
    row = units.iloc[int(beyond.argmax())]
    layer = None if is_missing(row["layer"]) else int(row["layer"])
    return {"site": str(row["site"]), "layer": layer, "index": int(row["index"])}
