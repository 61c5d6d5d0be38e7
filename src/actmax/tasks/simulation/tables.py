"""The tables and headline numbers of a simulation."""

from __future__ import annotations

from math import nan

from actmax.evidence.findings import Finding, Measure, finding
from actmax.records.contents import Contents
from actmax.records.store import Summary
from actmax.stats.simulation import Simulation
from actmax.tasks.findings import write_findings


def write_simulation(contents: Contents, found: Simulation) -> Summary:
    """Writes a simulation's tables and returns the summary's headline numbers.

    `comparison.parquet` has a row per simulated unit, `rates` one per effect and test, `effects` one per effect (its
    `pearson` and `spearman` are of t and the standardised β over all effects up to it); `correlations` and `agreement`
    set the t-test beside logistic regression.
    """
    contents.write_table("comparison", found.units)
    contents.write_table("rates", found.rates)
    contents.write_table("effects", found.effects.merge(found.correlations_up_to.drop(columns="n"), on="effect"))
    contents.write_table("correlations", found.concordance.correlations)
    contents.write_table("agreement", found.concordance.agreement)
    return {
        "simulated_units": len(found.units),
        "separation_rate": dict(zip(map(str, found.effects["effect"]), found.effects["separation_rate"], strict=True)),
        "theory_largest_difference": found.concordance.theory["difference"].abs().max(),
        **found.headline,
        **write_findings(contents, rejection_findings(found)),
    }


def rejection_findings(found: Simulation) -> list[Finding]:
    """What t and Wald's test reject at the smallest effect and at the largest, beside their level."""
    rates = {(row["test"], row["effect"]): row["rate"] for row in found.rates.to_dict("records")}
    effects, alpha = found.effects["effect"].tolist(), found.design.alpha
    tests = {"student": Measure.STUDENT_REJECTIONS, "logit_wald": Measure.WALD_REJECTIONS}
    return [
        finding(measure, rates[test, effect], (alpha, nan, nan), alpha=alpha, effect=effect)
        for effect in dict.fromkeys([min(effects, key=abs), max(effects, key=abs)])
        for test, measure in tests.items()
    ]
