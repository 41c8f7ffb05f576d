"""The loops that look for values of a few buckets, compiled by Numba; in numpy: `refinement._collect_plainly`.

A bucket is also a range of patterns: one subtraction and one comparison test a value, and a tile without a hit costs
no more than reading it.
"""

from __future__ import annotations

import numpy as np

from .jit import jit
from .kernels import ZERO, _key

TILE = 1024
"""Patterns tested together: 4 KiB stay in the first-level cache for the next bucket's test."""
STRETCH = 64
"""Channels tested together."""


@jit
def _store(slot, low, dense_at, cells, list_at, sizes, fill, lows):
    """Count or list a low of a slot; more values than the sketch counted are only counted, not stored."""
    if fill[slot] < sizes[slot]:
        if dense_at[slot] >= 0:
            cells[dense_at[slot] + np.int64(low)] += 1
        else:
            lows[list_at[slot] + fill[slot]] = low
    fill[slot] += 1


@jit
def _low(pattern, base, low_mask):
    offset = np.uint32(pattern - base)
    return offset if pattern < ZERO else np.uint32(low_mask - offset)


@jit
def collect_run(patterns, first, last, bases, low_mask, dense_at, cells, list_at, sizes, fill, lows):
    """Store the lows of values that fall in the slots ``first`` to ``last`` (excluded)."""
    for start in range(0, patterns.size, TILE):
        part = patterns[start : start + TILE]
        for slot in range(first, last):
            base = bases[slot]
            hits = np.uint32(0)
            for i in range(part.size):
                hits += np.uint32(np.uint32(part[i] - base) <= low_mask)
            if hits:
                for i in range(part.size):
                    pattern = part[i]
                    if np.uint32(pattern - base) <= low_mask and np.uint32(pattern & ~ZERO) != np.uint32(0):
                        _store(
                            slot, _low(pattern, base, low_mask), dense_at, cells, list_at, sizes, fill, lows
                        )


@jit
def collect_table(patterns, table, low_bits, dense_at, cells, list_at, sizes, fill, lows):
    """Store the lows of values whose bucket has a slot in ``table`` of shape (2**bits,), -1 for none."""
    low_mask = np.uint32((1 << low_bits) - 1)
    for i in range(patterns.size):
        key = _key(patterns[i])
        slot = table[np.uint64(key) >> np.uint64(low_bits)]
        if slot >= 0 and np.uint32(patterns[i] & ~ZERO) != np.uint32(0):
            _store(slot, np.uint32(key & low_mask), dense_at, cells, list_at, sizes, fill, lows)


@jit
def collect_rows(flat, n_channels, slots, bases, low_mask, dense_at, cells, list_at, sizes, fill, lows):
    """Store the lows of values of rows of channels.

    ``slots`` and ``bases`` of shape (n_layers, n_channels): one slot of each channel in each layer, -1 for none.
    """
    for begin in range(0, flat.size, n_channels):
        row = flat[begin : begin + n_channels]
        for layer in range(slots.shape[0]):
            for start in range(0, n_channels, STRETCH):
                part, base = row[start : start + STRETCH], bases[layer, start : start + STRETCH]
                hits = np.uint32(0)
                for i in range(part.size):
                    hits += np.uint32(np.uint32(part[i] - base[i]) <= low_mask)
                if hits:
                    for i in range(part.size):
                        pattern, slot = part[i], slots[layer, start + i]
                        if (
                            slot >= 0
                            and np.uint32(pattern - base[i]) <= low_mask
                            and np.uint32(pattern & ~ZERO) != np.uint32(0)
                        ):
                            low = _low(pattern, base[i], low_mask)
                            _store(slot, low, dense_at, cells, list_at, sizes, fill, lows)
