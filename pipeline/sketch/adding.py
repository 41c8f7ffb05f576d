"""The loops over buckets, compiled by Numba: adding up many sketches, packing and unpacking their bytes.

The same in numpy: `bucket_merge.add_by_sorting`, `packing.gather_groups` and `packing.scatter_groups`.
"""

from __future__ import annotations

import numpy as np

from .jit import jit

MIXED = -1
"""Stands for the low of a bucket whose values differ; an atom has the low of all its values."""


@jit
def add_part(ids, counts, sums, atoms, first, dense_counts, dense_sums, dense_lows):
    """Add sparse buckets to dense counters that begin with the bucket ``first``."""
    for i in range(ids.size):
        place = np.uint64(np.int64(ids[i]) - first)  # unsigned: never counted from the end
        # Selections, not branches: which buckets hold one value cannot be predicted.
        low = sums[i] if counts[i] == 1 else np.int64(MIXED)
        if atoms[i] and counts[i] > 1:
            low = sums[i] // counts[i]
        known = (dense_counts[place] == 0) | (dense_lows[place] == low)
        dense_lows[place] = low if known else np.int64(MIXED)
        dense_counts[place] += counts[i]
        dense_sums[place] += sums[i]


@jit
def count_filled(dense_counts, size):
    """Return how many of the first ``size`` counters are occupied."""
    n = 0
    for place in range(size):
        n += dense_counts[place] != 0
    return n


@jit
def take_filled(first, size, dense_counts, dense_sums, dense_lows, ids, counts, sums, atoms):
    """Move the first ``size`` counters to sparse arrays; leave zeros."""
    n = 0
    for place in range(size):
        if dense_counts[place]:
            ids[n] = first + place
            counts[n] = dense_counts[place]
            sums[n] = dense_sums[place]
            atoms[n] = dense_lows[place] != MIXED
            dense_counts[place] = 0
            dense_sums[place] = 0
            n += 1


@jit
def unpack_groups(widths, packed, group, numbers):
    """Write numbers of ``widths`` little-endian bytes, ``group`` neighbours of one width each, from ``packed``."""
    at = 0
    for g in range(widths.size):
        begin = g * group
        end = min(begin + group, numbers.size)
        width = np.int64(widths[g])
        if width == 1:
            for i in range(end - begin):
                numbers[begin + i] = packed[at + i]
        elif width == 2:
            for i in range(end - begin):
                numbers[begin + i] = np.uint64(packed[at + 2 * i]) | np.uint64(
                    packed[at + 2 * i + 1]
                ) << np.uint64(8)
        else:
            for i in range(end - begin):
                number = np.uint64(0)
                for k in range(width):
                    number |= np.uint64(packed[at + i * width + k]) << np.uint64(8 * k)
                numbers[begin + i] = number
        at += width * (end - begin)


@jit
def _pack_group(numbers, size, packed, at):
    """Write ``numbers[:size]`` to ``packed[at:]``; return how many bytes each takes."""
    largest = np.uint64(0)
    for i in range(size):
        largest = max(largest, numbers[i])
    width = 0
    while width < 8 and largest >> np.uint64(8 * width):
        width += 1
    if width == 1:
        for i in range(size):
            packed[at + i] = np.uint8(numbers[i])
    elif width == 2:
        for i in range(size):
            packed[at + 2 * i] = np.uint8(numbers[i] & np.uint64(255))
            packed[at + 2 * i + 1] = np.uint8(numbers[i] >> np.uint64(8))
    else:
        for i in range(size):
            number = numbers[i]
            for k in range(width):
                packed[at + i * width + k] = np.uint8((number >> np.uint64(8 * k)) & np.uint64(255))
    return width


@jit
def pack_groups(numbers, group, widths, packed):
    """Write what `unpack_groups` reads into ``widths`` and ``packed``; return how many bytes of it were used."""
    at = 0
    for g in range(widths.size):
        begin = g * group
        size = min(group, numbers.size - begin)
        widths[g] = _pack_group(numbers[begin : begin + size], size, packed, at)
        at += np.int64(widths[g]) * size
    return at


@jit
def pack_buckets(ids, counts, sums, low_bits, group, widths, packed):
    """Write gaps between ids, counts less one and residues of sums (`wire`) as `pack_groups` does, one after the other.

    ``widths`` has the shape (3, n_groups). Returns how many bytes of ``packed`` each of the three ends at.
    """
    largest_low = (np.int64(1) << low_bits) - 1
    numbers, ends, at = np.empty(group, np.uint64), np.empty(3, np.int64), 0
    for kind in range(3):
        for g in range(widths.shape[1]):
            begin = g * group
            size = min(group, ids.size - begin)
            for i in range(size):
                place = begin + i
                if kind == 0:
                    previous = ids[place - 1] if place else np.uint32(0)
                    numbers[i] = np.uint64(ids[place] - previous)
                elif kind == 1:
                    numbers[i] = np.uint64(counts[place] - 1)
                else:
                    residue = sums[place] - counts[place] * largest_low // 2
                    numbers[i] = np.uint64((residue << 1) ^ (residue >> 63))
            widths[kind, g] = _pack_group(numbers, size, packed, at)
            at += np.int64(widths[kind, g]) * size
        ends[kind] = at
    return ends
