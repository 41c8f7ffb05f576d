"""The loops over values that belong to channels, compiled by Numba.

``words`` of shape (n_channels, 3, stride) and ``state`` of shape (n_channels, 9) are for each channel what `kernels`
tells. Strides are not powers of two: the counters of the channels would meet in the same sets of the cache (measured:
170 instead of 1150 million values/s).
"""

from __future__ import annotations

import numpy as np

from .compressing import WIDTH
from .jit import jit
from .kernels import (
    INFINITE,
    IS_WIDE,
    MAGNITUDE,
    N_INF,
    N_NAN,
    N_RECENT,
    N_ZEROS,
    NEGATIVE,
    POSITIVE,
    TILE,
    ZERO,
    _count_piece,
    _is_strange,
    _relieve,
    _relieve_all,
    _survey_piece,
    _widen_by_patterns,
)

LANES = 16
"""Channels of float32 in a cache line of 64 bytes."""
ROWS = TILE // LANES


@jit
def _copy_rows(flat, first, row_size, rows, raw):
    """Copy 16 values of each row to ``raw``; indices are unsigned, so none can be counted from the end."""
    for row in range(rows):
        start, target = np.uint64(row * row_size + first), np.uint64(row * LANES)
        for lane in range(LANES):
            raw[target + np.uint64(lane)] = flat[start + np.uint64(lane)]


@jit
def _fold(raw, rows, largest, outer, inner_positive, inner_negative):
    """Leave in the first 16 of the arrays, for each lane, what `kernels._survey_piece` computes for all values."""
    for i in range(rows * LANES):
        largest[i], outer[i] = np.int32(raw[i]), raw[i]
        inner_positive[i] = raw[i] - np.uint32(1)
        inner_negative[i] = (raw[i] ^ ZERO) - np.uint32(1)
    while rows > 1:
        # The upper half is folded on the lower one: whole vectors, no lane is looked at alone.
        half = (rows + 1) // 2
        for i in range((rows - half) * LANES):
            j = i + half * LANES
            largest[i] = max(largest[i], largest[j])
            outer[i] = max(outer[i], outer[j])
            inner_positive[i] = min(inner_positive[i], inner_positive[j])
            inner_negative[i] = min(inner_negative[i], inner_negative[j])
        rows = half


@jit
def _spill_lanes(tile, size, words, low_bits):
    low_mask, one = np.uint64((1 << low_bits) - 1), np.uint64(1) << np.uint64(32 + low_bits)
    low_bits = np.uint64(low_bits)
    for start in range(0, size, LANES):
        for lane in range(LANES):
            pattern = np.uint64(tile[np.uint64(start + lane)])
            low = pattern & low_mask
            bucket = pattern >> low_bits
            words[lane, 0, bucket] = (words[lane, 0, bucket] + one + (low << low_bits)) | low


@jit
def _count_run(run, words, state, low_bits, kept):
    """Count values of one channel."""
    n_strange = state[N_NAN] + state[N_INF]
    _survey_piece(run, state)
    n_counted = _count_piece(run, words, state, low_bits, kept)
    state[N_ZEROS] += run.size - n_counted - (state[N_NAN] + state[N_INF] - n_strange)


@jit
def count_lanes(flat, first, row_size, words, state, low_bits):
    """Count 16 channels from ``first`` (even) on of rows of ``row_size`` (even) channels."""
    raw, tile, kept = np.empty(TILE, np.uint32), np.empty(TILE, np.uint32), np.empty(TILE + WIDTH, np.uint32)
    largest, outer = np.empty(TILE, np.int32), np.empty(TILE, np.uint32)
    inner_positive, inner_negative = np.empty(TILE, np.uint32), np.empty(TILE, np.uint32)
    n_rows, limit = flat.size // row_size, np.int64(1) << (31 - low_bits)
    # No finite value is in the bucket of infinity: zeros are counted there.
    zeros = np.int64(INFINITE) >> low_bits
    for begin in range(0, n_rows, ROWS):
        rows = min(ROWS, n_rows - begin)
        size = rows * LANES
        _copy_rows(flat[begin * row_size :], first, row_size, rows, raw)
        _fold(raw, rows, largest, outer, inner_positive, inner_negative)
        strange = False
        for lane in range(LANES):
            strange |= _is_strange(largest[lane], outer[lane])
        for lane in range(LANES):
            own = state[lane]
            if own[N_RECENT] + rows > limit:
                _relieve_all(words[lane], own, low_bits)
                _relieve(words[lane], low_bits, zeros, zeros + 1)
            if strange:
                for row in range(rows):
                    tile[row] = raw[row * LANES + lane]
                _count_run(tile[:rows], words[lane], own, low_bits, kept)
            else:
                _widen_by_patterns(
                    own, largest[lane], outer[lane], inner_positive[lane], inner_negative[lane]
                )
                own[N_RECENT] += rows
        if not strange:
            for i in range(size):
                tile[i] = INFINITE if np.uint32(raw[i] & MAGNITUDE) == np.uint32(0) else raw[i]
            _spill_lanes(tile, size, words, low_bits)
    for lane in range(LANES):
        state[lane, N_ZEROS] += np.int64(words[lane, 0, zeros] >> np.uint64(32 + low_bits))
        state[lane, N_ZEROS] += np.int64(words[lane, 1, zeros])
        words[lane, 0, zeros] = 0
        words[lane, 1, zeros] = 0


@jit
def count_runs(patterns, first, stage, words, state, low_bits):
    """Count channels from ``first`` on of patterns of shape (outer, n_channels, inner).

    Short runs of one channel are collected in ``stage`` before they are counted.
    """
    kept = np.empty(TILE + WIDTH, np.uint32)
    inner = patterns.shape[2]
    at_once = max(1, stage.size // inner)
    for channel in range(state.shape[0]):
        own, own_state = words[channel], state[channel]
        if inner >= TILE // 8:
            for row in range(patterns.shape[0]):
                run = patterns[row, first + channel]
                for begin in range(0, inner, TILE):
                    _count_run(run[begin : begin + TILE], own, own_state, low_bits, kept)
            continue
        for begin in range(0, patterns.shape[0], at_once):
            end = min(begin + at_once, patterns.shape[0])
            size = 0
            for row in range(begin, end):
                for i in range(inner):
                    stage[size] = patterns[row, first + channel, i]
                    size += 1
            _count_run(stage[:size], own, own_state, low_bits, kept)


@jit
def put_back(tails, starts, counts, sums, atoms, least, most, words, state, low_bits):
    """Fill empty counters with the buckets of channels, as `kernels.take_occupied` gave them.

    ``tails`` are ids without the channel; ``least`` and ``most`` are the extreme keys of each channel.
    """
    half, n_buckets = np.int64(1) << (31 - low_bits), np.int64(1) << (32 - low_bits)
    low_mask = np.int64((1 << low_bits) - 1)
    for channel in range(state.shape[0]):
        own, known = words[channel], state[channel]
        for i in range(starts[channel], starts[channel + 1]):
            bucket, count, total = np.int64(tails[i]), counts[i], sums[i]
            # Where both signs occur, the inner extremes are only needed to tell which buckets are filled.
            low_key, high_key = bucket << low_bits, bucket << low_bits | low_mask
            place = POSITIVE if bucket >= half else NEGATIVE
            known[place] = min(known[place], max(low_key, np.int64(least[channel])))
            known[place + 1] = max(known[place + 1], min(high_key, np.int64(most[channel])))
            if bucket >= half:
                bucket -= half
            else:
                bucket, total = n_buckets - 1 - bucket, count * low_mask - total
            # Where values differ, some low is not the largest: the sum will never be the count times it.
            either = low_mask
            if atoms[i]:
                either = total if count == 1 else total // count
            if count < half:
                own[0, bucket] = (
                    np.uint64(count) << np.uint64(32 + low_bits)
                    | np.uint64(total) << np.uint64(low_bits)
                    | np.uint64(either)
                )
            else:
                own[0, bucket], own[1, bucket], own[2, bucket] = either, count, total
                known[IS_WIDE] = 1
