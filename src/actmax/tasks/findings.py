"""Findings of a job, as a table and in its summary."""

from __future__ import annotations

from collections.abc import Sequence

from actmax.evidence.findings import Finding, findings_table
from actmax.records.contents import Contents
from actmax.records.store import Summary


def write_findings(contents: Contents, findings: Sequence[Finding]) -> Summary:
    """Writes `findings.parquet`, where there are any, and returns what `summary.json` holds of them."""
    if findings:
        contents.write_table("findings", findings_table(findings))
    return {"findings": [one.as_dict() for one in findings]}
