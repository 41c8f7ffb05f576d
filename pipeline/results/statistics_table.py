"""Statistics of points as a small table: to look at, to ask for any percentile, to take elsewhere as a data frame.

Knows sketches. Does not know folders, caches or settings.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...storage.errors import InputError
from ..display.shown_table import ShownTable
from ..display.small_pictures import distribution_svg
from ..factors.merge import unknown_point
from ..report.numbers import axes_text, count_text, interval_text, number_text, share_text
from ..sketch import Percentile, PointSketch, Sketch
from .percentile_rows import as_percents, check_percent, percent_label
from .tidy import tidy_frame

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["PointStatistics", "StatisticsTable", "left_out_column"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PointStatistics:
    """What is known of one point, in the units of the activation; NaN where there are no values."""

    point: str
    shape: tuple[int, ...]
    """Of one sample."""
    count: int
    """Finite values, zeros included."""
    zeros: int
    mean: float
    """Exact, rounded once."""
    std: float
    """Within 1 %; NaN where the sketch cannot tell it so closely."""
    min: float
    max: float
    """Both exact."""
    percentiles: Mapping[float, Percentile]
    """By percent: value, lo and hi; the exact order statistics lie within [lo, hi]."""
    left_out: int = 0
    """Values that are NaN or infinite: they count nowhere else."""


class StatisticsTable(Mapping[str, PointStatistics]):
    """The statistics of points, by name, in model order.

    It holds the sketches themselves, in memory, and needs neither model nor data nor a folder.

    Parameters
    ----------
    sketches : mapping of str to PointSketch
    shapes : mapping of str to sequence of int
        Of one sample.
    percentiles : float or sequence of float
        In percent: those that the table shows.
    nonzero : bool
        Percentiles of the values that are not zero.
    title : str
        What it is of.

    Examples
    --------
    >>> from actisketch.pipeline.sketch import PointSketch, SketchSpec
    >>> import numpy as np
    >>> sketch = PointSketch.empty(SketchSpec())
    >>> sketch.update(np.arange(12, dtype=np.float32).reshape(4, 3))
    >>> table = StatisticsTable({"fc": sketch}, {"fc": (3,)}, percentiles=[50.0], title="4 samples")
    >>> table["fc"].mean, table.percentile("fc", 100.0).value
    (5.5, 11.0)
    >>> table
    4 samples
    point  shape  values  zeros  mean    std  min  max  p50 [lo, hi]
    fc         3      12  8.3 %   5.5  3.452    0   11  6 [6]
    """

    def __init__(
        self,
        sketches: Mapping[str, PointSketch],
        shapes: Mapping[str, Sequence[int]],
        *,
        percentiles: float | Sequence[float],
        nonzero: bool = True,
        title: str = "statistics",
    ) -> None:
        self._sketches, self._shapes = dict(sketches), shapes
        self._qs, self.nonzero, self._title = as_percents(percentiles), nonzero, title

    def __getitem__(self, point: str) -> PointStatistics:
        if point not in self._sketches:
            raise KeyError(unknown_point(str(point), list(self)))
        layer = self._layer(point)
        return PointStatistics(
            point=point,
            shape=tuple(self._shapes[point]),
            count=layer.n,
            zeros=layer.n_zeros,
            mean=layer.mean,
            std=layer.std,
            min=layer.minimum,
            max=layer.maximum,
            percentiles={q: layer.percentile(q, nonzero=self.nonzero) for q in self._qs},
            left_out=layer.n_nan + layer.n_inf,
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._sketches)

    def __len__(self) -> int:
        return len(self._sketches)

    def percentile(self, point: str, q: float, *, nonzero: bool | None = None) -> Percentile:
        """Return any percentile of a point, with an interval guaranteed to contain the exact order statistics.

        Parameters
        ----------
        point : str
        q : float
            In percent, 0 to 100.
        nonzero : bool, optional
            Of the values that are not zero; default: as the table.

        Raises
        ------
        InputError
            For an unknown point, or a q outside [0, 100].
        """
        check_percent(q)
        return self._layer(point).percentile(q, nonzero=self.nonzero if nonzero is None else nonzero)

    def sketch(self, point: str) -> PointSketch:
        """Return the sketch of a point."""
        if point not in self._sketches:
            raise InputError(unknown_point(point, list(self)), point=point)
        return self._sketches[point]

    def _layer(self, point: str) -> Sketch:
        # A copy: what a sketch keeps when it is asked is several times as large as its counts.
        return copy.copy(self.sketch(point).layer)

    def to_dataframe(self) -> DataFrame:
        """Return a tidy data frame of pandas: point, channel, statistic, value, lo, hi.

        ``channel`` is missing for the point as a whole; a sketch per channel gives the same for each channel. ``lo``
        and ``hi`` are guaranteed to contain the exact number. Statistics are ``count``, ``zeros``, ``mean``, ``std``,
        ``min``, ``max``, and ``p99.9`` and the like.

        Raises
        ------
        InputError
            Without pandas; the message has the command that installs it.
        """
        return tidy_frame(self._sketches, self._qs, nonzero=self.nonzero)

    def __repr__(self) -> str:
        return self._shown(pictures=False).text()

    def _repr_html_(self) -> str:
        return self._shown(pictures=True).html()

    def _shown(self, *, pictures: bool) -> ShownTable:
        rows = list(self.values())
        columns: dict[str, list[str]] = {
            "point": [row.point for row in rows],
            ">shape": [axes_text(row.shape) for row in rows],
            ">values": [count_text(row.count) for row in rows],
            **left_out_column([row.left_out for row in rows]),
            ">zeros": [share_text(row.zeros / row.count if row.count else None) for row in rows],
            **{
                f">{name}": [number_text(getattr(row, name)) for row in rows]
                for name in ("mean", "std", "min", "max")
            },
        }
        for q in self._qs:
            columns[f"{percent_label(q)} [lo, hi]"] = [_with_interval(row.percentiles[q]) for row in rows]
        which = "non-zero activations" if self.nonzero else "activations, zeros included"
        return ShownTable(
            title=self._title,
            lines=[f"percentiles of the {which}"] if pictures and self._qs else [],
            columns=columns,
            pictures=self._pictures() if pictures else (),
            more="table.to_dataframe() has all",
        )

    def _pictures(self) -> list[str]:
        last = self._qs[-1] if self._qs else None
        shown = []
        for point in self:
            mark = None if last is None else self.percentile(point, last).value
            shown.append(distribution_svg(self._layer(point), mark=mark))
        return shown


def left_out_column(counts: Sequence[int]) -> dict[str, list[str]]:
    """Return the column of how many values are NaN or infinite; none where all are finite."""
    return {">not finite": [count_text(count) for count in counts]} if any(counts) else {}


def _with_interval(found: Percentile) -> str:
    if math.isnan(found.value):
        return "-"
    return f"{number_text(found.value, digits=5)} {interval_text(found.lo, found.hi)}"
