"""How far two distributions are apart, from their sketches, with bounds that contain the distance of the values.

Knows sketches. Does not know points or runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import InputError
from .cells import Cells, common_cells
from .channels import ChannelSketch
from .layer import Sketch
from .tally import Tally, part_of_channels

__all__ = [
    "ChannelDistances",
    "Distance",
    "Distances",
    "channel_distances",
    "distance_between",
    "distances_between",
]

_BUCKETS_AT_ONCE = 1 << 18
"""Of both sketches: what is computed from them takes 200 bytes each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Distance:
    """A distance of two distributions; NaN where one of the two has no values."""

    value: float
    """The distance that the counts prove: that of the values is hardly ever much larger."""
    lo: float
    hi: float
    """The distance of the values themselves lies within [lo, hi]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Distances:
    """Two distances of the same distributions."""

    kolmogorov_smirnov: Distance
    """The largest difference of the two distribution functions, 0 to 1."""
    wasserstein: Distance
    """How far a value has to be moved on average to turn one distribution into the other, in units of the values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelDistances:
    """The distances of each channel, in arrays of shape (n_channels,); NaN where a channel has no values."""

    kolmogorov_smirnov_lo: NDArray[np.float64]
    kolmogorov_smirnov_hi: NDArray[np.float64]
    wasserstein_lo: NDArray[np.float64]
    wasserstein_hi: NDArray[np.float64]


def distance_between(first: Sketch, second: Sketch, *, nonzero: bool = False) -> Distance:
    """Return the Kolmogorov-Smirnov distance of two sketches; see `distances_between`.

    Examples
    --------
    >>> import numpy as np
    >>> low, high = Sketch(), Sketch()
    >>> low.update(np.array([1.0, 2.0], np.float32))
    >>> high.update(np.array([2.0, 3.0], np.float32))
    >>> distance_between(low, high)
    Distance(value=0.5, lo=0.5, hi=0.5)
    """
    return distances_between(first, second, nonzero=nonzero).kolmogorov_smirnov


def distances_between(first: Sketch, second: Sketch, *, nonzero: bool = False) -> Distances:
    """Return the distances of the finite values of two sketches, which may differ in resolution.

    Parameters
    ----------
    first, second : Sketch
    nonzero : bool, default=False
        Of the values that are not zero.

    Notes
    -----
    Between buckets both distribution functions F and G are known exactly, and in each bucket so are the integrals of
    both, from counts and means. Kolmogorov-Smirnov: the known differences are a lower bound; in a bucket, F - G may be
    larger by no more than the share of F there. Wasserstein, the integral of abs(F - G): in a bucket in which F and G
    cannot cross it is the known difference of the integrals. Elsewhere that is a lower bound, and the upper one follows
    from convexity (see `_crossing`). The bounds of Wasserstein are wider than computed by what rounding may do.

    Examples
    --------
    >>> import numpy as np
    >>> low, high = Sketch(), Sketch()
    >>> low.update(np.array([1.0, 2.0], np.float32))
    >>> high.update(np.array([2.0, 4.0], np.float32))
    >>> distances_between(low, high).wasserstein.value
    1.5
    """
    found = _distances(first.tally, second.tally, nonzero)
    ks_lo, ks_hi, moved_lo, moved_hi, moved = (float(column[0]) for column in found)
    return Distances(
        kolmogorov_smirnov=Distance(value=ks_lo, lo=ks_lo, hi=ks_hi),
        wasserstein=Distance(value=moved, lo=moved_lo, hi=moved_hi),
    )


def channel_distances(
    first: ChannelSketch, second: ChannelSketch, *, nonzero: bool = False
) -> ChannelDistances:
    """Return the distances of each channel, as `distances_between`.

    Raises
    ------
    InputError
        If the two have different numbers of channels.
    """
    if first.n_channels != second.n_channels:
        raise InputError(
            f"{first.n_channels} channels cannot be compared with {second.n_channels}: compare the layers as a whole"
        )
    tallies = first.tally, second.tally
    per_channel = sum(len(tally.buckets) for tally in tallies) // first.n_channels + 1
    step = max(1, _BUCKETS_AT_ONCE // per_channel)
    parts = []
    for start in range(0, first.n_channels, step):
        a, b = (part_of_channels(tally, start, start + step) for tally in tallies)
        parts.append(_distances(a, b, nonzero))
    ks_lo, ks_hi, moved_lo, moved_hi, _ = (np.concatenate(column) for column in zip(*parts, strict=True))
    return ChannelDistances(
        kolmogorov_smirnov_lo=ks_lo,
        kolmogorov_smirnov_hi=ks_hi,
        wasserstein_lo=moved_lo,
        wasserstein_hi=moved_hi,
    )


def _distances(first: Tally, second: Tally, nonzero: bool) -> tuple[NDArray[np.float64], ...]:
    """Return both distances of each channel with bounds: KS lo and hi, Wasserstein lo, hi and value."""
    cells = common_cells(first, second, nonzero=nonzero)
    n_channels = first.n_channels
    found = tuple(np.full(n_channels, np.nan) for _ in range(5))
    if cells.channels.size:
        for column, part in zip(found, (*_kolmogorov_smirnov(cells), *_wasserstein(cells)), strict=True):
            column[cells.channels] = part
    return found


def _kolmogorov_smirnov(cells: Cells) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the bounds of each channel.

    In a cell F rises from F0 to F1 between ``a.lo`` and ``a.hi``, and G from G0 to G1 between ``b.lo`` and ``b.hi``.
    F - G reaches F1 - G0 if F has risen before G begins to, and cannot exceed it, or the differences at both ends if G
    has risen before F begins to.
    """
    a, b = cells.first, cells.second
    at_ends = np.abs(a.after - b.after)
    rises, sinks = a.after - b.before, b.after - a.before
    lo = np.maximum.reduce([at_ends, np.where(a.hi < b.lo, rises, 0.0), np.where(b.hi < a.lo, sinks, 0.0)])
    hi = np.maximum.reduce([at_ends, np.where(a.lo < b.hi, rises, 0.0), np.where(b.lo < a.hi, sinks, 0.0)])
    return (np.maximum.reduceat(lo, cells.starts), np.maximum.reduceat(hi, cells.starts))


def _wasserstein(cells: Cells) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return lower bound, upper bound and value of each channel."""
    a, b, starts = cells.first, cells.second, cells.starts
    before, after = a.before - b.before, a.after - b.after
    width = cells.hi - cells.lo
    known = np.abs(before * width + a.share * (cells.hi - a.mean) - b.share * (cells.hi - b.mean))
    least, most = _crossing(cells, before, after, width)
    crosses = (a.before < b.after) & (b.before < a.after)
    lo = np.where(crosses, np.maximum(known, least), known)
    hi = np.where(crosses, np.maximum(most, lo), known)
    between = np.abs(after) * cells.gaps
    lower, upper = (np.add.reduceat(each + between, starts) for each in (lo, hi))
    # Each term is off by some units in the last place of what it is a difference of, and each addition by half a unit.
    sizes = np.add.reduceat(a.share * np.abs(a.mean) + b.share * np.abs(b.mean) + width + cells.gaps, starts)
    n_cells = np.diff(np.append(starts, lo.size))
    rounding = np.where(upper > 0, 2.0**-50 * sizes + 2.0**-52 * n_cells * upper, 0.0)
    return np.maximum(lower - rounding, 0.0), upper + rounding, lower


def _crossing(
    cells: Cells, before: NDArray[np.float64], after: NDArray[np.float64], width: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return bounds on the integral of abs(F - G) over each cell, wherever the two cross.

    Two upper bounds, the smaller of which counts. abs(F - G) is convex in both, so that it lies below the bilinear
    function that equals it at the corners of [F0, F1] x [G0, G1]; F and G both increase, so that the mean of their
    product is at least the product of their means (Chebyshev), at which the bilinear function is largest. And moving
    all values of a cell to their mean costs at most twice ``(m - lo)(hi - m) / (hi - lo)`` each, the largest mean
    deviation within [lo, hi], by which abs(F - G) then differs in both directions.
    """
    a, b = cells.first, cells.second
    safe = np.where(width > 0, width, 1.0)
    u, v = np.clip((cells.hi - a.mean) / safe, 0.0, 1.0), np.clip((cells.hi - b.mean) / safe, 0.0, 1.0)
    rises, sinks = np.abs(a.after - b.before), np.abs(a.before - b.after)
    corners = (1 - u) * ((1 - v) * np.abs(before) + v * sinks) + u * ((1 - v) * rises + v * np.abs(after))
    low, high = np.minimum(a.mean, b.mean), np.maximum(a.mean, b.mean)
    steps = np.abs(before) * (low - cells.lo) + np.abs(after) * (cells.hi - high)
    steps += np.where(a.mean < b.mean, rises, sinks) * (high - low)
    moved = a.share * a.spread + b.share * b.spread
    return steps - moved, np.minimum(corners * width, steps + moved)
