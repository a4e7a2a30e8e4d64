"""What a run's page says of stages that wrote instruction data: shares kept, and dropped for each reason."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from isthmus.reports.content import Estimate, MetricRow, MetricTable, Results


def with_written(results: Results, stages: Sequence[Mapping[str, Any]]) -> Results:
    """A run's results with a table for each stage that wrote instruction data."""
    tables = tuple(_table(stage) for stage in stages if "kinds" in stage)
    return replace(results, metrics=(*results.metrics, *tables))


def _table(stage: Mapping[str, Any]) -> MetricTable:
    reasons = {name: count for name, count in stage["reasons"].items() if name != "unusable facts"}
    shares = (stage["kept"], *reasons.values())
    kinds = ", ".join(f"{count:,} of kind {kind}" for kind, count in stage["kinds"].items())
    return MetricTable(
        title=f"Instruction data written by stage {stage['name']}",
        columns=("kept", *reasons),
        rows=(
            MetricRow(
                name=f"{stage['written']:,} replies",
                estimates=tuple(Estimate(value=count / max(stage["written"], 1)) for count in shares),
            ),
        ),
        measure="percent",
        note=f"Kept: {kinds or 'nothing'}. What was dropped stands with its reason in {stage['name']}/rejects.jsonl in "
        "the run directory.",
    )
