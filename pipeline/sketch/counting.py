"""Float32 slabs into tallies by the compiled kernels.

The same results as `sorting`, 10 times faster on large arrays. Knows counters and kernels. Does not know layouts of
arrays, or what NaN means to the user.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import bits as fb
from .buckets import Buckets
from .counters import CHANNEL_PAD, Scratch, WordLayout, scratch
from .tally import Tally, empty_tally, join_channels, merge_tallies

MAX_GROUP = 16
"""Channels counted in one sweep over an array: their values fill one cache line of 64 bytes."""
STAGED_VALUES = 4096
"""Values of one channel that are collected before they are counted."""
GROUP_BITS = 20
"""A group of channels has about ``2**GROUP_BITS`` counters: fewer channels at a higher resolution."""


def count_layer(
    values: NDArray[np.float32], *, bits: int, row_size: int, maxima: NDArray[np.uint32]
) -> Tally:
    """Return the tally of flat values; the keys of the row maxima go to ``maxima`` unless that has no rows."""
    from . import kernels  # Numba takes half a second to import

    layout = WordLayout.of(bits)
    patterns = values.view(np.uint32)
    step = layout.max_values if not maxima.size else max(1, layout.max_values // row_size) * row_size
    tallies = [empty_tally(bits)]
    with scratch(1 << bits, layout.low_bits) as counters:
        group = _Group(counters=counters, layout=layout, stride=1 << bits, n_channels=1)
        for start in range(0, patterns.size, step):
            part = patterns[start : start + step]
            rows = maxima[start // row_size : (start + part.size) // row_size] if maxima.size else maxima
            found = _nothing_found(1)
            kernels.count_patterns(
                part,
                row_size,
                rows,
                counters.words,
                counters.last,
                layout.low_bits,
                layout.shift,
                layout.spares,
                found[0],
            )
            tally, suspects = group.take(found)
            if suspects.size:
                kernels.refute_atoms(part, counters.words, layout.low_bits, suspects.size)
            group.judge(tally.buckets, suspects)
            tallies.append(tally)
    return merge_tallies(tallies)


def count_channels(values: NDArray[np.float32], *, bits: int) -> Tally:
    """Return the tally of each channel of values of shape (outer, n_channels, inner)."""
    n_channels = values.shape[1]
    layout = WordLayout.of(bits)
    at_once = max(1, min(MAX_GROUP, 1 << max(0, GROUP_BITS - bits)))
    stride = (1 << bits) + CHANNEL_PAD
    step = max(1, layout.max_values // values.shape[2])
    tallies = [empty_tally(bits, n_channels)]
    with scratch(at_once * stride, layout.low_bits) as counters:
        for start in range(0, values.shape[0], step):
            patterns = values[start : start + step].view(np.uint32)
            groups = []
            for first in range(0, n_channels, at_once):
                size = min(at_once, n_channels - first)
                group = _Group(counters=counters, layout=layout, stride=stride, n_channels=size)
                groups.append(_count_group(patterns, first, group))
            tallies.append(join_channels(groups))
    return merge_tallies(tallies)


def _count_group(patterns: NDArray[np.uint32], first: int, group: _Group) -> Tally:
    from . import lanes  # Numba takes half a second to import

    counters, layout, stride = group.counters, group.layout, group.stride
    found = _nothing_found(group.n_channels)
    _, row_size, inner = patterns.shape
    sizes = (layout.low_bits, layout.shift)
    if inner == 1 and group.n_channels == lanes.LANES and first % 2 == 0 and row_size % 2 == 0:
        flat = patterns.reshape(-1)
        lanes.count_lanes(flat, first, row_size, counters.words, counters.last, stride, *sizes, found)
    else:
        stage = np.empty(STAGED_VALUES, np.uint32)
        lanes.count_runs(
            patterns, first, stage, counters.words, counters.last, stride, *sizes, layout.spares, found
        )
    tally, suspects = group.take(found)
    if suspects.size:
        lanes.refute_group(patterns, first, group.n_channels, counters.words, stride, layout.low_bits)
    group.judge(tally.buckets, suspects)
    return tally


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """Some channels and where their counters are."""

    counters: Scratch
    layout: WordLayout
    stride: int
    n_channels: int

    def take(self, found: NDArray[np.int64]) -> tuple[Tally, NDArray[np.intp]]:
        """Return what the counters hold, and which atoms need a second look at the values: their words get low + 1."""
        from . import lanes  # Numba takes half a second to import

        counters, layout = self.counters, self.layout
        size = lanes.count_group(counters.words, self.stride, layout.low_bits, found)
        ids = np.empty(size, np.uint32)
        counts, sums, lows = (np.empty(size, np.int64) for _ in range(3))
        n_zeros = np.zeros(self.n_channels, np.int64)
        lanes.empty_group(
            counters.words,
            counters.last,
            self.stride,
            layout.low_bits,
            layout.shift,
            layout.spares,
            found,
            ids,
            counts,
            sums,
            lows,
            n_zeros,
        )
        # One value, or two whose mean is the last of them, are an atom. More values may only look like one.
        buckets = Buckets(ids=ids, counts=counts, sums=sums, atoms=sums == counts * lows)
        suspects = np.flatnonzero(buckets.atoms & (counts > 2))
        counters.words[self._places(ids[suspects])] = (lows[suspects] + 1).astype(np.uint64)
        tally = Tally(
            bits=32 - layout.low_bits,
            buckets=buckets,
            n_zeros=n_zeros,
            n_nan=found[:, 2].copy(),
            n_inf=found[:, 3].copy(),
            min_keys=found[:, 0].astype(np.uint32),
            max_keys=found[:, 1].astype(np.uint32),
        )
        return tally, suspects

    def judge(self, buckets: Buckets, suspects: NDArray[np.intp]) -> None:
        """Suspects whose words the second look has left stay atoms; clear the words."""
        places = self._places(buckets.ids[suspects])
        buckets.atoms[suspects] = self.counters.words[places] != 0
        self.counters.words[places] = 0

    def _places(self, ids: NDArray[np.uint32]) -> NDArray[np.int64]:
        bits = 32 - self.layout.low_bits
        wide = ids.astype(np.int64)
        return (wide >> bits) * self.stride + (wide & ((1 << bits) - 1))


def _nothing_found(n_channels: int) -> NDArray[np.int64]:
    return np.tile(np.array([fb.EMPTY_MIN_KEY, fb.EMPTY_MAX_KEY, 0, 0], np.int64), (n_channels, 1))
