"""The loops over values that belong to channels, compiled by Numba.

Channel c of a group has its counters from ``c * stride`` on; strides are not powers of two: the counters of the
channels would meet in the same sets of the cache (measured: 170 instead of 1150 million values/s). For the rest see
`kernels`.
"""

from __future__ import annotations

import numpy as np

from .kernels import INFINITE, LOWEST, SPARE, TILE, ZERO, _bump, _count_piece, _jit, _key, empty_words

LANES = 16
"""Channels of float32 in a cache line of 64 bytes."""
ROWS = TILE // LANES


@_jit
def _copy_rows(flat, first, row_size, rows, raw):
    """Copy 16 values of each row to ``raw``, by pairs; indices are unsigned, so none can be counted from the end."""
    pairs, target = flat.view(np.uint64), raw.view(np.uint64)
    for row in range(rows):
        start = (np.uint64(row) * np.uint64(row_size) + np.uint64(first)) >> np.uint64(1)
        for pair in range(LANES // 2):
            target[np.uint64(row * (LANES // 2) + pair)] = pairs[start + np.uint64(pair)]


@_jit
def _extremes(raw, tile, rows, least, most):
    """Leave the smallest key and the largest signed pattern of each lane in the first 16 of ``least`` and ``most``."""
    signed = raw.view(np.int32)
    size = rows * LANES
    least[:size], most[:size] = tile[:size], signed[:size]
    while rows > 1:
        # Fold the upper half on the lower one: whole vectors, no lane is looked at alone.
        half = (rows + 1) // 2
        for i in range((rows - half) * LANES):
            j = i + half * LANES
            least[i] = least[j] if least[j] < least[i] else least[i]
            most[i] = most[j] if most[j] > most[i] else most[i]
        rows = half


@_jit
def _spill_lanes(tile, size, words, last, stride, low_bits, shift):
    one, low_mask, low_bits = (
        np.uint64(1) << np.uint64(shift),
        np.uint64((1 << low_bits) - 1),
        np.uint64(low_bits),
    )
    for start in range(0, size, LANES):
        for lane in range(LANES):
            key = np.uint64(tile[np.uint64(start + lane)])
            bucket = (key >> low_bits) + np.uint64(lane) * np.uint64(stride)
            low = key & low_mask
            last[bucket] = low
            words[bucket] += one + low


@_jit
def _spill_strange(raw, size, words, last, stride, low_bits, shift, found):
    """Count a tile with NaN or infinities, or with lanes of no positive values, one by one."""
    one, low_mask, low_bits = (
        np.uint64(1) << np.uint64(shift),
        np.uint64((1 << low_bits) - 1),
        np.uint64(low_bits),
    )
    for i in range(size):
        lane = i % LANES
        magnitude = np.uint32(raw[i] & np.uint32(0x7FFF_FFFF))
        own = slice(lane * stride, (lane + 1) * stride)
        if magnitude > INFINITE:
            found[lane, 2] += 1
        elif magnitude == INFINITE:
            found[lane, 3] += 1
        elif magnitude == 0:
            _bump(words[own], last[own], SPARE, low_bits, low_mask, one)
        else:
            key = _key(raw[i])
            found[lane, 0] = min(found[lane, 0], np.int64(key))
            found[lane, 1] = max(found[lane, 1], np.int64(key))
            _bump(words[own], last[own], key, low_bits, low_mask, one)


@_jit
def count_lanes(flat, first, row_size, words, last, stride, low_bits, shift, found):
    """Count 16 channels from ``first`` (even) on of rows of ``row_size`` (even) channels."""
    raw, tile = np.empty(TILE, np.uint32), np.empty(TILE, np.uint32)
    least, most = np.empty(TILE, np.uint32), np.empty(TILE, np.int32)
    n_rows = flat.size // row_size
    for begin in range(0, n_rows, ROWS):
        rows = min(ROWS, n_rows - begin)
        size = rows * LANES
        _copy_rows(flat[begin * row_size :], first, row_size, rows, raw)
        for i in range(size):
            zero = np.uint32(raw[i] & np.uint32(0x7FFF_FFFF)) == np.uint32(0)
            tile[i] = SPARE if zero else _key(raw[i])
        _extremes(raw, tile, rows, least, most)
        strange = False
        for lane in range(LANES):
            strange |= least[lane] < LOWEST or (most[lane] >= 0 and np.uint32(most[lane]) >= INFINITE)
            strange |= most[lane] <= 0 and found[lane, 1] < ZERO and least[lane] < SPARE
        if strange:
            _spill_strange(raw, size, words, last, stride, low_bits, shift, found)
            continue
        for lane in range(LANES):
            if least[lane] < SPARE:
                found[lane, 0] = min(found[lane, 0], np.int64(least[lane]))
            if most[lane] > 0:
                found[lane, 1] = max(found[lane, 1], np.int64(np.uint32(most[lane]) | ZERO))
        _spill_lanes(tile, size, words, last, stride, low_bits, shift)


@_jit
def count_runs(patterns, first, stage, words, last, stride, low_bits, shift, spares, found):
    """Count channels ``first`` to ``first + len(found)`` of patterns of shape (outer, n_channels, inner).

    Short runs of one channel are collected in ``stage`` before they are counted.
    """
    tile = np.empty(TILE, np.uint32)
    inner = patterns.shape[2]
    at_once = max(1, stage.size // inner)
    for channel in range(found.shape[0]):
        own_words = words[channel * stride : (channel + 1) * stride]
        own_last = last[channel * stride : (channel + 1) * stride]
        own = found[channel]
        if inner >= TILE // 8:
            for row in range(patterns.shape[0]):
                run = patterns[row, first + channel]
                _count_piece(run, tile, own_words, own_last, low_bits, shift, spares, own)
            continue
        for begin in range(0, patterns.shape[0], at_once):
            end = min(begin + at_once, patterns.shape[0])
            size = 0
            for row in range(begin, end):
                for i in range(inner):
                    stage[size] = patterns[row, first + channel, i]
                    size += 1
            _count_piece(stage[:size], tile, own_words, own_last, low_bits, shift, spares, own)


@_jit
def count_group(words, stride, low_bits, found):
    """Return the number of occupied buckets of a group of channels."""
    n = 0
    for channel in range(found.shape[0]):
        for bucket in range(found[channel, 0] >> low_bits, (found[channel, 1] >> low_bits) + 1):
            n += words[channel * stride + bucket] != 0
    return n


@_jit
def empty_group(words, last, stride, low_bits, shift, spares, found, ids, counts, sums, lows, zeros):
    """Move the buckets of a group of channels to the arrays, its zeros to ``zeros``; leave zero words."""
    n, bits = 0, 32 - low_bits
    for channel in range(found.shape[0]):
        offset = channel * stride
        begin, end = found[channel, 0] >> low_bits, (found[channel, 1] >> low_bits) + 1
        if begin < end:
            shown = (channel << bits) + begin
            n = empty_words(
                words, last, offset + begin, offset + end, shift, ids, counts, sums, lows, n, shown
            )
        first_spare = offset + (np.int64(SPARE) >> low_bits)
        for spare in range(first_spare, first_spare + spares + 1):
            zeros[channel] += np.int64(words[spare] >> np.uint64(shift))
            words[spare] = 0


@_jit
def refute_group(patterns, first, n_channels, words, stride, low_bits):
    """Do as `kernels.refute_atoms` for channels from ``first`` on of patterns of shape (outer, all channels, inner)."""
    low_mask = np.uint64((1 << low_bits) - 1)
    for row in range(patterns.shape[0]):
        for channel in range(n_channels):
            for i in range(patterns.shape[2]):
                pattern = patterns[row, first + channel, i]
                key = np.uint64(_key(pattern))
                bucket = np.uint64(channel * stride) + (key >> np.uint64(low_bits))
                word = words[bucket]
                magnitude = np.uint32(pattern & np.uint32(0x7FFF_FFFF))
                if word and word != (key & low_mask) + np.uint64(1) and magnitude != np.uint32(0):
                    words[bucket] = 0
