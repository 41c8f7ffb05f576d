"""Order statistics from a tally: an estimate, and an interval that always contains the true value.

The arithmetic of ranks follows ``np.percentile(..., method="linear")``. Knows tallies. Does not
know arrays of activations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import InputError
from . import bits as fb
from .tally import Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """The buckets of a tally as the rungs of a ladder that is climbed by rank; the zeros are one more rung.

    Arrays of shape (n_rungs,), ascending by channel and value.
    """

    base_keys: NDArray[np.uint32]
    """Key of the lowest value that the rung can hold."""
    counts: NDArray[np.int64]
    sums: NDArray[np.int64]
    atoms: NDArray[np.bool_]
    cumulative: NDArray[np.int64]
    """Values up to and including the rung, over all channels."""
    offsets: NDArray[np.int64]
    """Values before each channel, of shape (n_channels + 1,)."""
    min_keys: NDArray[np.int64]
    """Of shape (n_channels,); without meaning where a channel is empty."""
    max_keys: NDArray[np.int64]
    largest_low: int

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Values of each channel, of shape (n_channels,)."""
        return np.diff(self.offsets)


def build_ladder(tally: Tally, *, nonzero: bool) -> Ladder:
    """Return the ladder of a tally, with or without the zeros."""
    low_bits, buckets = tally.low_bits, tally.buckets
    bases = buckets.ids << np.uint32(low_bits)
    counts, sums, atoms = buckets.counts.astype(np.int64), buckets.sums.astype(np.int64), buckets.atoms
    min_keys, max_keys = tally.min_keys.astype(np.int64), tally.max_keys.astype(np.int64)
    starts = tally.starts
    if not nonzero and tally.n_zeros.any():
        with_zeros = np.flatnonzero(tally.n_zeros)
        edges = (with_zeros.astype(np.uint64) << np.uint64(tally.bits)) + np.uint64(fb.ZERO_KEY >> low_bits)
        at = np.searchsorted(buckets.ids, edges)
        bases = np.insert(bases, at, np.uint32(fb.ZERO_KEY))
        counts = np.insert(counts, at, tally.n_zeros[with_zeros])
        sums, atoms = np.insert(sums, at, 0), np.insert(atoms, at, True)
        starts = starts + np.concatenate(([0], np.cumsum(tally.n_zeros > 0)))
        min_keys[with_zeros] = np.minimum(min_keys[with_zeros], fb.ZERO_KEY)
        max_keys[with_zeros] = np.maximum(max_keys[with_zeros], fb.ZERO_KEY)
    cumulative = np.cumsum(counts)
    return Ladder(
        base_keys=bases,
        counts=counts,
        sums=sums,
        atoms=atoms,
        cumulative=cumulative,
        offsets=np.concatenate(([0], cumulative))[starts],
        min_keys=min_keys,
        max_keys=max_keys,
        largest_low=(1 << low_bits) - 1,
    )


def rung_channels(ladder: Ladder) -> NDArray[np.intp]:
    """Return the channel of each rung, of shape (n_rungs,)."""
    return np.searchsorted(ladder.offsets[1:], ladder.cumulative)


def rung_spans(ladder: Ladder) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return between which values those of each rung lie: equal where they are all the same number."""
    channels = rung_channels(ladder)
    bases = ladder.base_keys.astype(np.int64)
    known = bases + ladder.sums // np.maximum(ladder.counts, 1)
    lo = np.where(ladder.atoms, known, np.maximum(bases, ladder.min_keys[channels]))
    hi = np.where(ladder.atoms, known, np.minimum(bases + ladder.largest_low, ladder.max_keys[channels]))
    return key_values(lo), key_values(hi)


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedKeys:
    """What is known of some order statistics; each array has the shape of their ranks."""

    rungs: NDArray[np.intp]
    within: NDArray[np.int64]
    """Rank inside the rung, from 0."""
    lo: NDArray[np.int64]
    """Key that the order statistic is not below."""
    hi: NDArray[np.int64]
    """Key that the order statistic is not above."""


def find_ranks(ladder: Ladder, ranks: NDArray[np.int64], channels: NDArray[np.intp] | int = 0) -> RankedKeys:
    """Return the certified keys of order statistics.

    Parameters
    ----------
    ladder : Ladder
    ranks : ndarray, int64
        Ranks from 0 inside each channel; they must exist.
    channels : ndarray of the shape of ``ranks``, or int, default=0

    Notes
    -----
    In a bucket of ``c`` lows in [0, M] with the exact sum s, the r-th smallest low x obeys

    * ``x <= s // (c - r)``, for the ``c - r`` lows from x on are at least x and add up to at most s;
    * ``x >= ceil((s - (c - r - 1) * M) / (r + 1))``, for the ``r + 1`` lows up to x are at most x and the rest
      at most M.

    A bucket of one value, of only the smallest or only the largest low is thus known exactly, as are atoms,
    and the first and the last rank by the exact extremes.
    """
    absolute = ranks + ladder.offsets[channels]
    rungs = np.searchsorted(ladder.cumulative, absolute, side="right")
    counts, sums = ladder.counts[rungs], ladder.sums[rungs]
    within = absolute - (ladder.cumulative[rungs] - counts)
    above = counts - within - 1
    most = ladder.largest_low
    low = np.maximum(-((above * most - sums) // (within + 1)), 0)
    high = np.minimum(sums // (above + 1), most)
    atoms = ladder.atoms[rungs]
    known = sums // counts
    bases = ladder.base_keys[rungs].astype(np.int64)
    lo = bases + np.where(atoms, known, low)
    hi = bases + np.where(atoms, known, high)
    smallest, largest = ladder.min_keys[channels], ladder.max_keys[channels]
    hi = np.where(ranks == 0, smallest, np.minimum(hi, largest))
    lo = np.where(ranks == ladder.sizes[channels] - 1, largest, np.maximum(lo, smallest))
    return RankedKeys(rungs=rungs, within=within, lo=lo, hi=hi)


def estimate_values(ladder: Ladder, found: RankedKeys) -> NDArray[np.float64]:
    """Return the likeliest values of order statistics, between their certified keys.

    Inside a bucket the density is taken as linear, tilted so that the bucket's exact mean comes out.
    """
    counts = ladder.counts[found.rungs]
    span = ladder.largest_low + 1
    share = (found.within + 0.5) / counts
    mean = (ladder.sums[found.rungs] / counts + 0.5) / span
    tilt = np.clip(6.0 * mean - 3.0, -1.0, 1.0)
    # The positive root t of tilt * t**2 + (1 - tilt) * t = share, in the form that is safe for tilt near 0.
    linear = 1.0 - tilt
    part = 2.0 * share / (linear + np.sqrt(linear * linear + 4.0 * tilt * share))
    bases = ladder.base_keys[found.rungs]
    values = fb.multiples_of(bases) + (part * span - 0.5)
    values = np.ldexp(values, fb.steps_of(bases) + fb.SUBNORMAL_EXPONENT)
    return np.clip(values, key_values(found.lo), key_values(found.hi))


def key_values(keys: NDArray[Any]) -> NDArray[np.float64]:
    """Return the values of keys as float64 (exact)."""
    return fb.floats_of(keys).astype(np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualRanks:
    """Between which ranks ``np.percentile`` interpolates, and how far."""

    previous: NDArray[np.int64]
    following: NDArray[np.int64]
    gamma: NDArray[np.float64]


def virtual_ranks(q: float, sizes: NDArray[np.int64]) -> VirtualRanks:
    """Return the ranks of percentile ``q`` among ``sizes`` values, to the bit as numpy computes them.

    Notes
    -----
    ``numpy/lib/_function_base_impl.py``: ``virtual = (n - 1) * (q / 100)`` in float64, clamped to the last rank.
    """
    virtual = (sizes - 1) * np.true_divide(q, 100.0)
    previous = np.floor(virtual).astype(np.int64)
    last = np.maximum(sizes - 1, 0)
    at_end = virtual >= sizes - 1
    previous = np.where(at_end, last, previous)
    following = np.where(at_end, last, previous + 1)
    gamma = np.where(at_end, 0.0, virtual - np.floor(virtual))
    return VirtualRanks(previous=previous, following=following, gamma=gamma)


def parse_percent(q: Any) -> float:
    """Return ``q`` as a float in [0, 100], or raise InputError."""
    try:
        percent = float(q)
    except (TypeError, ValueError):
        raise InputError(f"a percentile is one number from 0 to 100, got {q!r}", q=q) from None
    if not 0.0 <= percent <= 100.0:
        raise InputError(f"a percentile is a number from 0 to 100, got {q!r}", q=q)
    return percent


def lerp(
    previous: NDArray[np.float32], following: NDArray[np.float32], gamma: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return what numpy interpolates between float32 values for one Python float ``q``, to the bit.

    Notes
    -----
    ``_lerp`` of ``numpy/lib/_function_base_impl.py``: all arithmetic is in float32, from the nearer end.
    """
    with np.errstate(over="ignore"):
        difference = following - previous
        low = previous + difference * gamma.astype(np.float32)
        high = following - difference * (1.0 - gamma).astype(np.float32)
    return np.where(gamma >= 0.5, high, low)
