"""What only a gradient run leaves: where its restarts ended, its priors, the spread that arithmetic makes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import pandas as pd
import torch

from actmax.evidence.arithmetic import Ends, rounding
from actmax.evidence.nulls import Restarts
from actmax.model.objective import by_unit
from actmax.model.subject import Subject
from actmax.model.target import Target, names_in, with_layers
from actmax.records.contents import Contents
from actmax.records.store import Summary

if TYPE_CHECKING:
    from actmax.maximize.module import Maximization  # Lightning takes seconds, and a report needs none of it


def by_unit_restarts(module: Maximization, *, interrupted: bool) -> dict[Target, tuple[list[int], Restarts]]:
    """Where the restarts of each unit stand, on the CPU, with their seeds.

    Args:
        module: the module after its fit.
        interrupted: whether the fit was stopped; then each restart stands at its best.
    """
    initial, final, before, after = (value.cpu() for value in module.outcome(interrupted=interrupted))
    frozen = module.frozen.cpu()
    return {
        unit: (
            [module.rows[row].seed for row in rows],
            Restarts(initial[rows], final[rows], before[rows], after[rows], frozen[rows]),
        )
        for unit, rows in by_unit(module.rows).items()
    }


def write_rounding(
    contents: Contents,
    subject: Subject,
    found: Mapping[Target, tuple[list[int], Restarts]],
    again: Mapping[Target, tuple[list[int], Restarts]],
    *,
    kernel: str,
) -> Summary:
    """Writes `rounding.parquet`, a row per unit, and returns its means over units.

    Args:
        contents: contents of the job, which take the table.
        subject: the language model.
        found: the restarts of each unit.
        again: the first seeds of each unit once more.
        kernel: the attention kernel of the second run.
    """
    nearest = subject.nearest

    def ends(restarts: Restarts) -> Ends:
        return Ends(nearest(restarts.final).best, restarts)

    rows = [
        {**unit.columns(), "kernel": kernel, "restarts": len(second.final)}
        | rounding(ends(found[unit][1]), ends(second)).flat()
        for unit, (_, second) in again.items()
    ]
    table = with_layers(pd.DataFrame(rows))
    contents.write_table("rounding", table)
    means = table.drop(columns=[*names_in(table), "kernel"]).mean().to_dict()
    return {"kernel": kernel, **means}


def prior_summary(
    module: Maximization, found: Mapping[Target, tuple[list[int], Restarts]], controls: Collection[Target] = ()
) -> Summary:
    """Each loss term's weight, its coefficient and its value at the start and at the end, means over restarts.

    Args:
        module: the module after its fit.
        found: the restarts of each unit, control units too.
        controls: the control units, which are left out of the means.
    """
    own = [row for row, one in enumerate(module.rows) if one.unit not in controls]
    values = {
        name: module.prior_values(torch.cat([getattr(one, name) for _, one in found.values()]).to(module.device))
        for name in ("initial", "final")
    }
    priors = {
        prior.name: {
            "weight": prior.weight,
            "scale": prior.scale,
            "coefficient_mean": float(module.coefficients[own, number].mean()),
            **{f"{name}_mean": float(terms[prior.name][own].mean()) for name, terms in values.items()},
        }
        for number, prior in enumerate(module.priors)
    }
    return {"priors": priors} if priors else {}
