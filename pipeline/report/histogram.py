"""Turn the buckets of a sketch into the bars of a figure.

A sketch has thousands of buckets of fixed relative width; a figure has about a hundred bars of equal
width on its axis. A bucket across the edge of two bars is split in proportion, so that
no count is lost: the bars, the values off the axis, and the zeros add up to ``sketch.n``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..sketch import Sketch

__all__ = ["Histogram", "ScaleKind", "histogram", "share_above", "split_counts"]

FEWEST_BARS, MOST_BARS = 12, 96
# If the largest value is this many times the median, a linear axis would squeeze all but the tail into a few bars.
SPREAD_FOR_LOG = 50.0
# Nobody reads more decades; the share of values below them is written on the axis.
MAX_DECADES = 6.0

ScaleKind = Literal["linear", "log", "symlog"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """The bars of one figure.

    The law: ``counts.sum() + n_zeros + n_below == n`` up to the rounding of float64.
    """

    edges: NDArray[np.float64]
    """Shape (n_bars + 1,), ascending, in the units of the values."""
    counts: NDArray[np.float64]
    """Shape (n_bars,): the number of non-zero values in each bar; fractions where a bucket was split."""
    n: int
    """All values, zeros included."""
    n_zeros: int
    n_below: float
    """Non-zero values too close to zero for a log axis."""
    scale: ScaleKind
    linear_width: float
    """Half width of the linear part around zero of a symlog axis; 0 otherwise."""

    @property
    def shares(self) -> NDArray[np.float64]:
        """The bars as shares of all values, zeros included."""
        return self.counts / max(self.n, 1)


def split_counts(
    lower: NDArray[np.float64],
    upper: NDArray[np.float64],
    counts: NDArray[np.int64],
    edges: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the number of bucketed values between neighbouring `edges`.

    Parameters
    ----------
    lower, upper : ndarray of shape (n_buckets,), float64
        Disjoint buckets in ascending order, which may have gaps.
    counts : ndarray of shape (n_buckets,), int64
    edges : ndarray of shape (n_bars + 1,), float64
        Ascending.

    Returns
    -------
    ndarray of shape (n_bars,), float64
        A bucket across an edge is split in proportion to its width; one without width (a single value)
        belongs to the bar that it opens. The last bar is closed.
    """
    if not len(counts):
        return np.zeros(len(edges) - 1)
    # A bucket without width would give the cumulative curve two values at its place.
    opened = np.maximum(upper, np.nextafter(lower, np.inf))
    places = np.stack([lower, opened], axis=1).ravel()
    summed = np.concatenate([[0.0], np.cumsum(counts, dtype=np.float64)])
    heights = np.stack([summed[:-1], summed[1:]], axis=1).ravel()
    at_edges = np.interp(edges, np.maximum.accumulate(places), heights)
    if edges[-1] >= upper[-1]:
        at_edges[-1] = summed[-1]
    return np.diff(at_edges)


def histogram(
    sketch: Sketch, *, divisor: float = 1.0, n_bars: int | None = None, is_log: bool = False
) -> Histogram:
    """Return the bars of the non-zero values of `sketch`, and choose the axis that shows them best.

    Parameters
    ----------
    sketch : Sketch
    divisor : float, default=1.0
        Positive; the values are divided by it first.
    n_bars : int, optional
        Default: 12 to 96, fewer for few values.
    is_log : bool, default=False
        Take a logarithmic axis, unless all values are negative, or one number.

    Returns
    -------
    Histogram
        On a linear axis unless the largest magnitude is over 50
        times the median one; then on a logarithmic axis, symmetric when there are values of both signs.
    """
    lower, upper, counts = sketch.buckets(nonzero=True)
    if not len(counts):
        return _without_values(sketch)
    lower = np.maximum(lower, sketch.minimum) / divisor
    upper = np.minimum(upper, sketch.maximum) / divisor
    low, high = float(lower[0]), float(upper[-1])
    widest = max(abs(low), abs(high))
    n_bars = n_bars or int(min(MOST_BARS, max(FEWEST_BARS, 2 * math.sqrt(counts.sum()))))
    median = _median_magnitude(lower, upper, counts)
    if (median * SPREAD_FOR_LOG >= widest and not is_log) or high <= 0 or low == high:
        edges, scale, linear_width = _linear_edges(low, high, n_bars), "linear", 0.0
    elif low > 0:
        start = max(low, high * 10.0**-MAX_DECADES)
        edges, scale, linear_width = _log_edges(start, high, n_bars), "log", 0.0
    else:
        linear_width = max(median / SPREAD_FOR_LOG, widest * 10.0**-MAX_DECADES)
        edges, scale = _symlog_edges(low, high, linear_width, n_bars), "symlog"
    bars = split_counts(lower, upper, counts, edges)
    n_below = float(counts.sum() - bars.sum())
    return Histogram(
        edges=edges,
        counts=bars,
        n=sketch.n,
        n_zeros=sketch.n_zeros,
        n_below=n_below if n_below > 1e-9 * sketch.n else 0.0,
        scale=scale,  # type: ignore[arg-type]  # one of the three words above
        linear_width=linear_width,
    )


def share_above(sketch: Sketch) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return places, and for each the share of values at or above it, for plotting.

    Returns
    -------
    places : ndarray of shape (n_buckets,), float64
        The lower edges of the buckets, ascending, zero included.
    shares : ndarray of shape (n_buckets,), float64
        Falls from 1; exact at these places, but for subnormal numbers, which share the edge of zero.
    """
    lower, _, counts = sketch.buckets()
    total = max(int(counts.sum()), 1)
    return lower, counts[::-1].cumsum()[::-1] / total


def _without_values(sketch: Sketch) -> Histogram:
    return Histogram(
        edges=np.array([0.0, 1.0]),
        counts=np.zeros(1),
        n=sketch.n,
        n_zeros=sketch.n_zeros,
        n_below=0.0,
        scale="linear",
        linear_width=0.0,
    )


def _median_magnitude(
    lower: NDArray[np.float64], upper: NDArray[np.float64], counts: NDArray[np.int64]
) -> float:
    magnitudes = np.abs(lower + upper) / 2
    order = np.argsort(magnitudes, kind="stable")
    summed = np.cumsum(counts[order])
    return float(magnitudes[order[np.searchsorted(summed, summed[-1] / 2)]])


def _linear_edges(low: float, high: float, n_bars: int) -> NDArray[np.float64]:
    # The axis contains zero, because the bars are compared with the bar of the zeros.
    low, high = min(low, 0.0), max(high, 0.0)
    return np.linspace(low, high, n_bars + 1)


def _log_edges(low: float, high: float, n_bars: int) -> NDArray[np.float64]:
    edges = np.geomspace(low, high, n_bars + 1)
    edges[0], edges[-1] = low, high
    return edges


def _symlog_edges(low: float, high: float, linear_width: float, n_bars: int) -> NDArray[np.float64]:
    places = np.linspace(_symlog(low, linear_width), _symlog(high, linear_width), n_bars + 1)
    edges = (
        np.sign(places)
        * linear_width
        * np.where(np.abs(places) <= 1, np.abs(places), 10.0 ** (np.abs(places) - 1))
    )
    edges[0], edges[-1] = low, high
    return edges


def _symlog(value: float, linear_width: float) -> float:
    scaled = abs(value) / linear_width
    return math.copysign(scaled if scaled <= 1 else 1 + math.log10(scaled), value)
