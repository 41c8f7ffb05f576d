"""The range of every recorded point, as targets of low precision take it: from what the run recorded alone."""

from __future__ import annotations

from dataclasses import dataclass

from ...storage import PointSpec
from ..factors.compute import asked_of_points
from ..factors.exact_source import ExactSource
from ..factors.ranges import ChosenRange, chosen_range, describe_method
from ..settings.job_settings import FactorSettings
from ..sketch import Percentile, Sketch
from .exporter import RecordedRun

__all__ = ["RecordedRange", "recorded_ranges"]

BOUNDED = frozenset({"softmax", "sigmoid", "hard_sigmoid", "tanh", "softsign"})
"""Functions that no outlier carries away. To clip them would cut off the most certain decisions, and save nothing."""


@dataclass(frozen=True, slots=True)
class RecordedRange:
    """The range of a point, and where it came from, in words."""

    found: ChosenRange
    source: str


def recorded_ranges(
    run: RecordedRun, settings: FactorSettings, *, clips_bounded: bool = False
) -> dict[str, RecordedRange]:
    """Return the range of each point by its name, after schedule and overrides.

    Parameters
    ----------
    run : RecordedRun
    settings : FactorSettings
        With ``exact``, percentiles are those of the recorded activations.
    clips_bounded : bool
        Treat the results of softmax and the like as all others; otherwise they keep their extremes.

    Raises
    ------
    InputError
        If an override names no point, or exact percentiles cannot be had.
    """
    points = run.cache.spec.points
    source = ExactSource(run.cache, run.sketches, settings.accept_rounding) if settings.exact else None
    asked = asked_of_points([point.name for point in points], settings)
    return {
        point.name: _range(point, run.sketches[point.name].layer, given, source, clips_bounded=clips_bounded)
        for point, given in zip(points, asked, strict=True)
    }


def _range(
    point: PointSpec,
    sketch: Sketch,
    given: FactorSettings | float,
    source: ExactSource | None,
    *,
    clips_bounded: bool,
) -> RecordedRange:
    if isinstance(given, float):
        lo, hi = -given if sketch.minimum < 0 else 0.0, given if sketch.maximum > 0 else 0.0
        found = ChosenRange(lo=lo, hi=hi, size=Percentile(given, given, given))
        return RecordedRange(found, "factor of factors.overrides")
    activation = str(point.meta.get("activation", ""))
    if activation in BOUNDED and not clips_bounded:
        found = chosen_range(sketch, given.model_copy(update={"method": "max"}))
        return RecordedRange(found, f"max, as {activation} is bounded, from the run")
    found, exactly = chosen_range(sketch, given), ""
    if source is not None and found.lo < found.hi and given.method == "percentile":
        found, exactly = _exact(source, point.name, given), "exact "
    return RecordedRange(found, f"{exactly}{describe_method(given)}, from the run")


def _exact(source: ExactSource, point: str, settings: FactorSettings) -> ChosenRange:
    ends = [settings.percentile, 100.0 - settings.percentile]
    upper, lower = source.percentiles(point, ends, nonzero=settings.nonzero)
    lo, hi = min(lower, 0.0), max(upper, 0.0)
    size = hi if hi > 0 else -lo
    return ChosenRange(lo=lo, hi=hi, size=Percentile(size, size, size))
