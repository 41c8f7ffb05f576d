"""The loops over values, compiled by Numba: counting, checking atoms, maxima of samples.

`sorting` does the same in numpy, with identical results. The loops hold no lock (nogil) and are compiled once:
later processes read the cache that Numba keeps beside this file or, where that is read-only, in the user's
cache folder.

A bucket's count and its sum of lows share one 64-bit word, ``count << shift | sum``: one addition
a value. `counters.WordLayout` says how many values a word can count before it must be emptied.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

ZERO = np.uint32(0x8000_0000)
INFINITE = np.uint32(0x7F80_0000)
LOWEST = np.uint32(0x0080_0000)
SPARE = np.uint32(0xFF80_0000)
"""First key above the finite ones: buckets from here on are free, zeros are counted there."""
TILE = 4096
"""Values that are handled together: 16 KiB of keys stay in the first-level cache."""


def _jit(function: Any) -> Any:
    try:
        return numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:  # no folder to cache in: neither beside this file nor the user's
        return numba.njit(nogil=True, error_model="numpy")(function)


@_jit
def _key(pattern):
    return np.uint32(pattern ^ np.uint32((np.int32(pattern) >> 31) | np.int32(-0x8000_0000)))


@_jit
def _bump(words, last, key, low_bits, low_mask, one):
    low = np.uint64(key) & low_mask
    bucket = np.uint64(key) >> low_bits
    last[bucket] = low
    words[bucket] += one + low


@_jit
def _fill_tile(patterns, tile, low_bits, spares):
    """Write keys, zeros as spare keys; return the smallest key and the largest pattern as a signed number."""
    least = np.uint32(0xFFFF_FFFF)
    for i in range(patterns.size):
        pattern = patterns[i]
        spare = np.uint32(SPARE | np.uint32((i & spares) << low_bits))
        zero = np.uint32(pattern & np.uint32(0x7FFF_FFFF)) == np.uint32(0)
        key = spare if zero else _key(pattern)
        tile[i] = key
        least = key if key < least else least
    signed = patterns.view(np.int32)
    most = np.int32(-0x8000_0000)
    for i in range(signed.size):
        most = signed[i] if signed[i] > most else most
    return least, most


@_jit
def _spill_tile(tile, size, words, last, low_bits, shift):
    one, low_mask, low_bits = (
        np.uint64(1) << np.uint64(shift),
        np.uint64((1 << low_bits) - 1),
        np.uint64(low_bits),
    )
    whole = size & -8
    for i in range(0, whole, 8):
        # All eight loads stand before the first store: the compiler cannot move them there itself.
        k0, k1, k2, k3 = tile[i], tile[i + 1], tile[i + 2], tile[i + 3]
        k4, k5, k6, k7 = tile[i + 4], tile[i + 5], tile[i + 6], tile[i + 7]
        _bump(words, last, k0, low_bits, low_mask, one)
        _bump(words, last, k1, low_bits, low_mask, one)
        _bump(words, last, k2, low_bits, low_mask, one)
        _bump(words, last, k3, low_bits, low_mask, one)
        _bump(words, last, k4, low_bits, low_mask, one)
        _bump(words, last, k5, low_bits, low_mask, one)
        _bump(words, last, k6, low_bits, low_mask, one)
        _bump(words, last, k7, low_bits, low_mask, one)
    for i in range(whole, size):
        _bump(words, last, tile[i], low_bits, low_mask, one)


@_jit
def _largest_finite_key(patterns):
    """Return the largest key of finite values, 0 if there are none."""
    largest = np.uint32(0)
    for i in range(patterns.size):
        magnitude = np.uint32(patterns[i] & np.uint32(0x7FFF_FFFF))
        if magnitude < INFINITE:
            key = ZERO if magnitude == 0 else _key(patterns[i])
            largest = key if key > largest else largest
    return largest


@_jit
def _write_maxima(patterns, row_size, maxima):
    """Write the key of the largest finite value of each row, 0 where there are none."""
    for row in range(maxima.size):
        part = patterns[row * row_size : (row + 1) * row_size]
        signed = part.view(np.int32)
        most = np.int32(-0x8000_0000)
        for i in range(signed.size):
            most = signed[i] if signed[i] > most else most
        # Patterns without the sign bit order like their values. A row without one, or with an infinity, is rare: it is
        # searched value by value.
        if most < 0 or np.uint32(most) >= INFINITE:
            maxima[row] = _largest_finite_key(part)
        else:
            maxima[row] = np.uint32(np.uint32(most) | ZERO)


@_jit
def _drop_nonfinite(patterns, tile):
    """Close the gaps in ``tile`` that NaN and infinities leave; return what is left and how many of each."""
    size, n_nan, n_inf = 0, 0, 0
    for i in range(patterns.size):
        magnitude = np.uint32(patterns[i] & np.uint32(0x7FFF_FFFF))
        if magnitude < INFINITE:
            tile[size] = tile[i]
            size += 1
        elif magnitude == INFINITE:
            n_inf += 1
        else:
            n_nan += 1
    return size, n_nan, n_inf


@_jit
def _count_piece(piece, tile, words, last, low_bits, shift, spares, found):
    """Count values into ``words``; widen ``found``: smallest and largest key (of non-zeros), NaN, infinities."""
    for start in range(0, piece.size, TILE):
        part = piece[start : start + TILE]
        size = part.size
        least, most = _fill_tile(part, tile, low_bits, spares)
        strange = least < LOWEST or (most >= 0 and np.uint32(most) >= INFINITE)
        if strange:
            size, n_nan, n_inf = _drop_nonfinite(part, tile)
            found[2] += n_nan
            found[3] += n_inf
        if strange or (most <= 0 and found[1] < ZERO):
            for i in range(size):
                key = np.int64(tile[i])
                if key < SPARE:
                    found[0] = key if key < found[0] else found[0]
                    found[1] = key if key > found[1] else found[1]
        else:
            if least < SPARE and least < found[0]:
                found[0] = least
            if most > 0:
                key = np.int64(np.uint32(most) | ZERO)
                found[1] = key if key > found[1] else found[1]
        _spill_tile(tile, size, words, last, low_bits, shift)


@_jit
def count_patterns(patterns, row_size, maxima, words, last, low_bits, shift, spares, found):
    """Count the values of rows into ``words``; widen ``found`` as `_count_piece` does.

    ``maxima`` of shape (n_rows,) or (0,) gets the key of the largest value of each row.
    """
    tile = np.empty(TILE, np.uint32)
    rows_at_once = max(1, TILE // max(1, row_size))
    step = rows_at_once * row_size if maxima.size else max(1, patterns.size)
    for begin in range(0, patterns.size, step):
        piece = patterns[begin : begin + step]
        if maxima.size:
            row = begin // row_size
            _write_maxima(piece, row_size, maxima[row : row + rows_at_once])
        _count_piece(piece, tile, words, last, low_bits, shift, spares, found)


@_jit
def empty_words(words, last, begin, end, shift, ids, counts, sums, lows, n, shown):
    """Move the buckets of ``words[begin:end]`` to the arrays from ``n`` on, leave zeros; return how many are there.

    The id of the first bucket is ``shown``.
    """
    sum_mask = np.uint64((np.uint64(1) << np.uint64(shift)) - np.uint64(1))
    for bucket in range(begin, end):
        word = words[bucket]
        if word:
            ids[n] = shown + bucket - begin
            counts[n] = word >> np.uint64(shift)
            sums[n] = word & sum_mask
            lows[n] = last[bucket]
            words[bucket] = 0
            n += 1
    return n


@_jit
def refute_atoms(patterns, words, low_bits, n_suspects):
    """Clear the word (low + 1) of each suspected bucket in which a value with another low is met."""
    low_mask = np.uint64((1 << low_bits) - 1)
    for i in range(patterns.size):
        key = np.uint64(_key(patterns[i]))
        bucket = key >> np.uint64(low_bits)
        word = words[bucket]
        magnitude = np.uint32(patterns[i] & np.uint32(0x7FFF_FFFF))
        if word and word != (key & low_mask) + np.uint64(1) and magnitude != np.uint32(0):
            words[bucket] = 0
            n_suspects -= 1
            if n_suspects == 0:
                return
