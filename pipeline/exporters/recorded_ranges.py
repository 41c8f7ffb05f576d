"""The range of every recorded point, as targets of low precision take it: from the sketches alone."""

from __future__ import annotations

from ..factors.ranges import chosen_range, describe_method
from ..settings.job_settings import FactorSettings
from .exporter import RangeRow, RecordedRun

__all__ = ["recorded_ranges"]

BOUNDED = frozenset({"softmax", "sigmoid", "hard_sigmoid", "tanh", "softsign"})
"""Functions that no outlier carries away. To clip them would cut off the most certain decisions, and save nothing."""


def recorded_ranges(run: RecordedRun, settings: FactorSettings) -> dict[str, RangeRow]:
    """Return a row for each point, under its own name."""
    rows = {}
    for point in run.cache.spec.points:
        activation = str(point.meta.get("activation", ""))
        is_bounded = activation in BOUNDED
        used = settings.model_copy(update={"method": "max"}) if is_bounded else settings
        found = chosen_range(run.sketches[point.name].layer, used)
        why = f"max, as {activation} is bounded" if is_bounded else describe_method(settings)
        source = f"{why}, from the run"
        rows[point.name] = RangeRow(
            tensor=point.name, point=point.name, lo=found.lo, hi=found.hi, source=source
        )
    return rows
