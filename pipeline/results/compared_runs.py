"""Compare two runs, or two percentiles of one run: factors, and how far the distributions of each point are apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ...storage.errors import InputError
from ..factors.factors_file import Factors, PointFactor
from ..sketch import Distance, distance_between
from .run import Run

__all__ = ["ComparedPoint", "compare_runs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedPoint:
    """One point in both runs."""

    point: str
    first: PointFactor
    second: PointFactor
    distance: Distance
    """Of the activations, without the zeros if the first run's factors are without them."""

    @property
    def ratio(self) -> float | None:
        """The second factor divided by the first; None where either has one for each channel."""
        first, second = self.first.factor, self.second.factor
        return None if isinstance(first, tuple) or isinstance(second, tuple) else second / first


def compare_runs(
    first: Run, second: Run, *, percentile: float | None = None, second_percentile: float | None = None
) -> list[ComparedPoint]:
    """Return the points that both runs have, those that are furthest apart first.

    Parameters
    ----------
    first, second : Run
        As two checkpoints of a network, or two data sets; or the same run twice.
    percentile, second_percentile : float, optional
        In percent; default: that of each run's settings.

    Raises
    ------
    InputError
        If they have no point in common.
    """
    names = [name for name in first.points if name in set(second.points)]
    if not names:
        raise InputError(
            f"the runs {str(first.folder.path)!r} and {str(second.folder.path)!r} have no point in common: compare "
            "runs of networks with layers of the same names"
        )
    ours, theirs = _factors(first, percentile), _factors(second, second_percentile)
    compared = list(_compared(first, second, names, ours, theirs))
    # Python's sort keeps the order of the model among equals.
    return sorted(compared, key=_apart, reverse=True)


def _factors(run: Run, percentile: float | None) -> Factors:
    return run.factors() if percentile is None else run.factors(percentile=percentile)


def _compared(
    first: Run, second: Run, names: list[str], ours: Factors, theirs: Factors
) -> Iterator[ComparedPoint]:
    before, after = ({p.name: p for p in factors.points} for factors in (ours, theirs))
    for name in names:
        a, b = first.sketches[name].layer, second.sketches[name].layer
        found = (
            Distance(value=0.0, lo=0.0, hi=0.0) if a == b else distance_between(a, b, nonzero=ours.nonzero)
        )
        yield ComparedPoint(point=name, first=before[name], second=after[name], distance=found)


def _apart(row: ComparedPoint) -> tuple[float, float]:
    """Return what rows are ordered by: the distance, then how far the ratio of the factors is from 1."""
    ratio = row.ratio or 1.0
    distance = row.distance.value
    return (distance if distance == distance else -1.0, max(ratio, 1 / ratio))
