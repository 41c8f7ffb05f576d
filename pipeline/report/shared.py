"""Layers that share a factor, and the neurons behind the merges that tie them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ..graph.kinds import TYING_MERGES
from .contents import ReportData
from .point_row import Row, table_row

__all__ = ["SharedRow", "shared_factors"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedRow:
    """One layer of a group."""

    row: Row
    is_merge: bool
    """Whether it is the neuron, or the quantiser, that takes the sum: recorded behind an Add or the like."""
    used: str
    """Its own percentile as a share of the factor in use: how much of its range the shared factor leaves it."""


def shared_factors(report: ReportData) -> Iterator[tuple[SharedRow, ...]]:
    """Yield the groups of layers that are divided by the same number, each in the order of the graph."""
    numbers = {point.name: number for number, point in enumerate(report.points, start=1)}
    for group in report.groups:
        rows = []
        for number in sorted(numbers[name] for name in group if name in numbers):
            point = report.points[number - 1].uncached()
            share = point.percentile.value / max(point.factors)
            rows.append(
                SharedRow(
                    row=table_row(number, point),
                    is_merge=point.layer_type in TYING_MERGES,
                    used="-" if math.isnan(share) else f"{100 * share:.0f} %",
                )
            )
        if len(rows) > 1:
            yield tuple(rows)
