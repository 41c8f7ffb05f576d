"""Compare two runs layer by layer from their sketches: distances of the distributions, zeros, percentiles, factors."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...storage.errors import IncompleteError, InputError
from ..factors.factors_file import Factors, PointFactor
from ..factors.merge import how_to_go_on
from ..sketch import (
    ChannelDistances,
    Distance,
    Distances,
    Percentile,
    PointSketch,
    channel_distances,
    distances_between,
)
from .comparison_remarks import recorded_tree, remarks_on, remarks_on_channels
from .matched_points import Matched, match_points, meant_points
from .percentile_rows import as_percents, is_number
from .run import Run, open_run
from .so_far import SoFar, recorded_so_far

__all__ = ["ComparedPercentile", "ComparedPoint", "Measure", "RunComparison", "compare", "compare_recorded"]

Measure = Literal["ks", "wasserstein"]
"""``ks``: Kolmogorov-Smirnov, 0 to 1. ``wasserstein``: 1-Wasserstein, in units of the mean size of the first values."""

SAME = Distance(value=0.0, lo=0.0, hi=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedPercentile:
    """One percentile in both runs."""

    q: float
    first: Percentile
    second: Percentile


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedPoint:
    """One point in both runs."""

    point: str
    """Its name in the first run."""
    other: str
    """Its name in the second run."""
    matched_by: Literal["name", "place"]
    n_values: tuple[int, int]
    n_zeros: tuple[int, int]
    every: Distances
    """Of all values."""
    nonzero: Distances
    """Of the values that are not zero."""
    mean_size: tuple[float, float]
    """Mean of the absolute values of the first run: of all, of those that are not zero."""
    percentiles: tuple[ComparedPercentile, ...]
    """Of the values that the points are ordered by."""
    first: PointFactor
    second: PointFactor
    channels: tuple[ChannelDistances, ChannelDistances] | None = None
    """Of all values and of those that are not zero, where asked for and both runs have as many channels."""

    @property
    def ratio(self) -> float | None:
        """The second factor divided by the first; None where either has one for each channel."""
        first, second = self.first.factor, self.second.factor
        return None if isinstance(first, tuple) or isinstance(second, tuple) else second / first

    @property
    def zeros(self) -> tuple[float, float]:
        """Share of zeros in the first and the second run, 0 to 1; NaN where there are no values."""
        first, second = (k / n if n else math.nan for k, n in zip(self.n_zeros, self.n_values, strict=True))
        return first, second

    def distance(self, measure: Measure, *, nonzero: bool) -> Distance:
        """Return one distance.

        Infinite if only one run has such values, as where a layer has died; NaN if neither has.
        """
        counts = [n - k if nonzero else n for n, k in zip(self.n_values, self.n_zeros, strict=True)]
        if (counts[0] == 0) != (counts[1] == 0):
            return Distance(value=math.inf, lo=math.inf, hi=math.inf)
        found = self.nonzero if nonzero else self.every
        if measure == "ks":
            return found.kolmogorov_smirnov
        size = self.mean_size[nonzero]
        moved = found.wasserstein
        return Distance(
            value=_relative(moved.value, size), lo=_relative(moved.lo, size), hi=_relative(moved.hi, size)
        )


def _relative(moved: float, size: float) -> float:
    # NaN stays NaN: no distance is known where neither run has values, and then there is no size either.
    return moved / size if size else moved * math.inf if moved else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunComparison:
    """Two runs, point by point: those that are furthest apart first."""

    first: SoFar
    second: SoFar
    """What is recorded of both."""
    measure: Measure
    nonzero: bool
    """What the points are ordered by."""
    points: tuple[ComparedPoint, ...]
    only_in_first: tuple[str, ...]
    only_in_second: tuple[str, ...]
    per_channel: bool = False
    """Whether the distances of channels were asked for."""
    asked_points: tuple[str, ...] = ()
    """The names or patterns that were asked for; empty: all points."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader has to know: runs that are not finished, damaged blocks, channels that are not compared."""
        lacking = [row.point for row in self.points if row.channels is None] if self.per_channel else []
        return (
            *remarks_on("the first run", self.first),
            *remarks_on("the second run", self.second),
            *remarks_on_channels(lacking, self.first, self.second),
        )

    def distance(self, row: ComparedPoint) -> Distance:
        """Return the distance that the points are ordered by."""
        return row.distance(self.measure, nonzero=self.nonzero)

    def above(self, limit: float) -> list[ComparedPoint]:
        """Return the points whose distance is certainly larger than ``limit``: its lower bound is.

        Raises
        ------
        InputError
            For what is no number of 0 or more; nothing is larger than NaN.
        """
        if not is_number(limit) or not limit >= 0:
            raise InputError(f"the limit {limit!r} is refused: a number of 0 or more")
        return [row for row in self.points if self.distance(row).lo > limit]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; NaN and infinities stay."""
        return {
            "first": recorded_tree(self.first),
            "second": recorded_tree(self.second),
            "ordered_by": {"measure": self.measure, "nonzero": self.nonzero},
            "remarks": list(self.remarks),
            "only_in_first": list(self.only_in_first),
            "only_in_second": list(self.only_in_second),
            "points": [{**_tree(row), "distance": _ordering(self.distance(row))} for row in self.points],
        }


def compare(
    a: Run | str | Path,
    b: Run | str | Path,
    *,
    points: str | Sequence[str] | None = None,
    qs: float | Sequence[float] = (50.0, 99.0, 99.9, 100.0),
    percentile: float | None = None,
    second_percentile: float | None = None,
    measure: Measure = "ks",
    nonzero: bool | None = None,
    per_channel: bool = False,
) -> RunComparison:
    """Compare two runs layer by layer, from their sketches alone: no model, no data.

    As two checkpoints, two data sets, a network before and after quantisation. Either run may still go on: what is
    recorded by now is compared, and the remarks of the result say how much that is.

    Parameters
    ----------
    a, b : Run or path
        Points are matched by name, then by place, see :func:`~.matched_points.match_points`.
    points : str or sequence of str, optional
        Names or patterns (``"conv*"``) of points of the first run; default: all.
    qs : float or sequence of float
        Percentiles to show, in percent, each once.
    percentile, second_percentile : float, optional
        Of the factors, in percent; default: as the settings of each run.
    measure : {"ks", "wasserstein"}
        What the points are ordered by: the Kolmogorov-Smirnov distance (0 to 1), or the 1-Wasserstein distance divided
        by the mean size of the first run's values.
    nonzero : bool, optional
        Order by the distance of the values that are not zero, or of all; default: as the factors of the first run.
    per_channel : bool
        Also the distances of each channel, where both runs have sketches of as many channels.

    Returns
    -------
    RunComparison
        All distances come with bounds that contain the distance of the recorded values.

    Raises
    ------
    InputError
        If the runs have no point in common, or a pattern means none.
    IncompleteError
        If nothing is recorded of one of them yet.

    Examples
    --------
    >>> worst = compare("runs/monday", "runs/tuesday").points[0]  # doctest: +SKIP
    >>> worst.point, worst.every.kolmogorov_smirnov  # doctest: +SKIP
    ('conv2', Distance(value=0.0213, lo=0.0213, hi=0.0215))
    """
    first, second = (recorded_so_far(each if isinstance(each, Run) else open_run(each)) for each in (a, b))
    return compare_recorded(
        first,
        second,
        points=points,
        qs=qs,
        percentile=percentile,
        second_percentile=second_percentile,
        measure=measure,
        nonzero=nonzero,
        per_channel=per_channel,
    )


def compare_recorded(
    first: SoFar,
    second: SoFar,
    *,
    points: str | Sequence[str] | None = None,
    qs: float | Sequence[float] = (),
    percentile: float | None = None,
    second_percentile: float | None = None,
    measure: Measure = "ks",
    nonzero: bool | None = None,
    per_channel: bool = False,
    check: Callable[[], None] = lambda: None,
) -> RunComparison:
    """Do as :func:`compare` with what is recorded of two runs; ``check`` is called before each point and may raise."""
    ranks = as_percents(qs)
    _check(first, second, measure)
    a, b = first.run, second.run
    matching = match_points(a.cache.spec.points, b.cache.spec.points)
    pairs = matching.pairs
    asked: tuple[str, ...] = ()
    if points is not None:
        chosen = set(meant_points(points, a.points))
        asked = (points,) if isinstance(points, str) else tuple(points)
        pairs = tuple(pair for pair in pairs if pair.first in chosen)
    if not pairs:
        raise InputError(
            f"the runs {str(a.folder.path)!r} and {str(b.folder.path)!r} have no {'such ' if points else ''}point in "
            "common, by name or by place: compare runs of networks of the same layers"
        )
    without_zeros = a.settings.factors.nonzero if nonzero is None else nonzero
    before, after = (
        {p.name: p for p in _factors(run, q).points} for run, q in ((a, percentile), (b, second_percentile))
    )
    # Equal keys are equal records of one cache: the values are the same, as sketches alone cannot tell.
    is_same = first.key == second.key and a.cache.url == b.cache.url
    rows = []
    for pair in pairs:
        check()
        row = _compared(
            pair,
            a.sketches[pair.first],
            b.sketches[pair.second],
            factors=(before[pair.first], after[pair.second]),
            qs=ranks,
            q_nonzero=without_zeros,
            is_same=is_same,
            per_channel=per_channel,
        )
        rows.append(row)
    # Python's sort keeps the order of the model among equals.
    rows.sort(key=lambda row: _apart(row, measure, without_zeros), reverse=True)
    return RunComparison(
        first=first,
        second=second,
        measure=measure,
        nonzero=without_zeros,
        points=tuple(rows),
        only_in_first=() if points else matching.only_in_first,
        only_in_second=() if points else matching.only_in_second,
        per_channel=per_channel,
        asked_points=asked,
    )


def _check(first: SoFar, second: SoFar, measure: str) -> None:
    if measure not in ("ks", "wasserstein"):
        raise InputError(f"measure = {measure!r} is refused: 'ks' or 'wasserstein'")
    for so_far in (first, second):
        if not so_far.n_blocks_done:
            raise IncompleteError(
                f"nothing is recorded of {str(so_far.run.folder.path)!r} yet: {how_to_go_on(so_far.run.cache)}"
            )


def _factors(run: Run, percentile: float | None) -> Factors:
    changes: dict[str, Any] = {} if percentile is None else {"percentile": percentile}
    # A comparison reads no activations.
    return run.factors(exact=False, **changes)


def _compared(
    pair: Matched,
    a: PointSketch,
    b: PointSketch,
    *,
    factors: tuple[PointFactor, PointFactor],
    qs: Sequence[float],
    q_nonzero: bool,
    is_same: bool,
    per_channel: bool,
) -> ComparedPoint:
    one, other = a.layer, b.layer
    is_same = is_same and pair.first == pair.second
    same = Distances(kolmogorov_smirnov=SAME, wasserstein=SAME)
    every, nonzero = (
        same
        if is_same and (one.n_nonzero if without else one.n)
        else distances_between(one, other, nonzero=without)
        for without in (False, True)
    )
    q_rows = (
        ComparedPercentile(
            q=q, first=one.percentile(q, nonzero=q_nonzero), second=other.percentile(q, nonzero=q_nonzero)
        )
        for q in qs
    )
    _, _, means, counts = one.spans(nonzero=True)
    size = float(np.abs(means) @ counts)
    return ComparedPoint(
        point=pair.first,
        other=pair.second,
        matched_by=pair.by,
        n_values=(one.n, other.n),
        n_zeros=(one.n_zeros, other.n_zeros),
        every=every,
        nonzero=nonzero,
        mean_size=(size / max(one.n, 1), size / max(one.n_nonzero, 1)),
        percentiles=tuple(q_rows),
        first=factors[0],
        second=factors[1],
        channels=_channels(a, b) if per_channel else None,
    )


def _channels(a: PointSketch, b: PointSketch) -> tuple[ChannelDistances, ChannelDistances] | None:
    ours, theirs = a.channels, b.channels
    if ours is None or theirs is None or ours.n_channels != theirs.n_channels:
        return None
    return channel_distances(ours, theirs), channel_distances(ours, theirs, nonzero=True)


def _apart(row: ComparedPoint, measure: Measure, nonzero: bool) -> tuple[float, float]:
    """Return what rows are ordered by: the distance, then how far the ratio of the factors is from 1."""
    distance, ratio = row.distance(measure, nonzero=nonzero).value, row.ratio or 1.0
    return (-1.0 if math.isnan(distance) else distance, max(ratio, 1 / ratio))


def _ordering(found: Distance) -> dict[str, Any]:
    """Return the distance that points are ordered by; JSON has no infinity, so a word says where it is one."""
    return {**dataclasses.asdict(found), "is_infinite": math.isinf(found.lo)}


def _tree(row: ComparedPoint) -> dict[str, Any]:
    """Return a row as plain values; arrays of channels become lists."""
    tree = {**dataclasses.asdict(row), "ratio": row.ratio, "zeros": row.zeros}
    if row.channels is not None:
        tree["channels"] = {
            name: {field: column.tolist() for field, column in dataclasses.asdict(of).items()}
            for name, of in zip(("every", "nonzero"), row.channels, strict=True)
        }
    return tree
