"""The buckets of two sketches side by side, cell by cell, for as many channels as they have.

Knows tallies. Does not know distances.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import bits as fb
from .ladder import Ladder, build_ladder, rung_channels, rung_spans
from .moments import rung_means
from .tally import Tally

__all__ = ["Cells", "Side", "common_cells"]

_CHANNEL_SHIFT = 33
"""A cell is numbered by channel, then by key, then by whether it is more than the zeros."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Side:
    """One of the two sketches; arrays of shape (n_cells,). A cell without its values has those of the other side."""

    before: NDArray[np.float64]
    """Share of the channel's values below the cell."""
    after: NDArray[np.float64]
    """The same with those of the cell."""
    lo: NDArray[np.float64]
    hi: NDArray[np.float64]
    """The values in the cell lie within [lo, hi]."""
    mean: NDArray[np.float64]

    @property
    def share(self) -> NDArray[np.float64]:
        """Share of the channel's values in the cell."""
        return self.after - self.before

    @property
    def spread(self) -> NDArray[np.float64]:
        """The largest mean deviation from their mean that values within [lo, hi] can have."""
        width = self.hi - self.lo
        spread = 2.0 * (self.mean - self.lo) * (self.hi - self.mean) / np.where(width > 0, width, 1.0)
        return np.maximum(spread, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cells:
    """The cells of all channels in which both sketches have values, ascending by channel and value."""

    first: Side
    second: Side
    lo: NDArray[np.float64]
    hi: NDArray[np.float64]
    """The values of both sides lie within [lo, hi]."""
    gaps: NDArray[np.float64]
    """From each cell to the next one of its channel; 0 for the last one."""
    channels: NDArray[np.intp]
    """Which channels these are."""
    starts: NDArray[np.intp]
    """Where each begins."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Rungs:
    """What one sketch has in each of its cells."""

    numbers: NDArray[np.int64]
    counts: NDArray[np.int64]
    lo: NDArray[np.float64]
    hi: NDArray[np.float64]
    mean: NDArray[np.float64]


def common_cells(first: Tally, second: Tally, *, nonzero: bool) -> Cells:
    """Return two tallies of the same number of channels side by side, in the coarser of their resolutions."""
    ladders = [build_ladder(tally, nonzero=nonzero) for tally in (first, second)]
    filled = (ladders[0].sizes > 0) & (ladders[1].sizes > 0)
    coarse = 32 - min(first.bits, second.bits)
    rungs = [_rungs(ladder, filled, coarse) for ladder in ladders]
    numbers = np.union1d(rungs[0].numbers, rungs[1].numbers)
    of_channel = numbers >> _CHANNEL_SHIFT
    channels = np.flatnonzero(filled)
    starts = np.searchsorted(of_channel, channels)
    a, b = (_side(each, numbers, starts) for each in rungs)
    a, b = _borrowed(a, rungs[0], b, numbers), _borrowed(b, rungs[1], a, numbers)
    lo, hi = np.minimum(a.lo, b.lo), np.maximum(a.hi, b.hi)
    gaps = np.zeros(numbers.size)
    gaps[:-1] = np.where(of_channel[1:] == of_channel[:-1], lo[1:] - hi[:-1], 0.0)
    return Cells(first=a, second=b, lo=lo, hi=hi, gaps=gaps, channels=channels, starts=starts)


def _rungs(ladder: Ladder, filled: NDArray[np.bool_], coarse: int) -> _Rungs:
    """Return the rungs of the filled channels, those of one cell as one."""
    channels = rung_channels(ladder)
    lo, hi = rung_spans(ladder)
    bases = ladder.base_keys.astype(np.int64)
    # The zeros are a cell of their own: a bucket of the smallest numbers begins at their key.
    is_more = ~((bases == fb.ZERO_KEY) & (lo == 0) & (hi == 0))
    numbers = channels.astype(np.int64) << _CHANNEL_SHIFT | bases >> coarse << coarse + 1 | is_more
    keep = filled[channels]
    numbers, lo, hi = numbers[keep], lo[keep], hi[keep]
    counts, means = ladder.counts[keep], rung_means(ladder)[keep]
    if not numbers.size:
        return _Rungs(numbers=numbers, counts=counts, lo=lo, hi=hi, mean=means)
    first = np.flatnonzero(np.concatenate(([True], numbers[1:] != numbers[:-1])))
    if first.size == numbers.size:
        return _Rungs(numbers=numbers, counts=counts, lo=lo, hi=hi, mean=means)
    last = np.append(first[1:], numbers.size) - 1
    summed = np.add.reduceat(counts, first)
    return _Rungs(
        numbers=numbers[first],
        counts=summed,
        lo=lo[first],
        hi=hi[last],
        mean=np.add.reduceat(counts * means, first) / summed,
    )


def _side(rungs: _Rungs, numbers: NDArray[np.int64], starts: NDArray[np.intp]) -> Side:
    """Return a sketch in all cells; where it has no values, ``lo``, ``hi`` and ``mean`` are NaN."""
    at = np.searchsorted(numbers, rungs.numbers)
    counts = np.zeros(numbers.size, np.int64)
    counts[at] = rungs.counts
    cumulative = np.concatenate(([0], np.cumsum(counts)))
    edges = np.append(starts, numbers.size)
    repeats = np.diff(edges)
    offsets = np.repeat(cumulative[starts], repeats)
    sizes = np.repeat(np.diff(cumulative[edges]), repeats)
    columns = {name: np.full(numbers.size, np.nan) for name in ("lo", "hi", "mean")}
    for name, column in columns.items():
        column[at] = getattr(rungs, name)
    return Side(
        before=(cumulative[:-1] - offsets) / sizes, after=(cumulative[1:] - offsets) / sizes, **columns
    )


def _borrowed(side: Side, rungs: _Rungs, other: Side, numbers: NDArray[np.int64]) -> Side:
    """Return a side that has the other's numbers in the cells without values of its own, where its share is 0."""
    is_own = np.zeros(numbers.size, np.bool_)
    is_own[np.searchsorted(numbers, rungs.numbers)] = True
    return Side(
        before=side.before,
        after=side.after,
        lo=np.where(is_own, side.lo, other.lo),
        hi=np.where(is_own, side.hi, other.hi),
        mean=np.where(is_own, side.mean, other.mean),
    )
