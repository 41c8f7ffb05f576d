"""The loops over values, compiled by Numba: extremes, maxima of samples, counting.

`sorting` does the same in numpy, with identical results. The loops hold no lock (nogil) and are compiled once:
later processes read the cache that Numba keeps beside this file or, where that is read-only, in the user's
cache folder.

Values are counted by their patterns, which order like numbers but for the sign; zeros are only counted. What a
bucket holds is one 64-bit word::

    count (`bits` bits) | sum of lows (32 bits) | lows, or-ed (32 - `bits` bits)

so that a value costs one load and one store. All values of a bucket are the same number if and only if the sum is the
count times the or-ed lows, as no low is larger than these. A word holds less than ``2**bits`` values: those that are
half full are emptied into wide counters in time.
"""

from __future__ import annotations

import numpy as np

from .compressing import HAS_COMPRESS, WIDTH, compress, prefetch
from .jit import jit

ZERO = np.uint32(0x8000_0000)
"""Sign of a pattern; key of zero."""
MAGNITUDE = np.uint32(0x7FFF_FFFF)
INFINITE = np.uint32(0x7F80_0000)
NAN = np.uint32(0x7FC0_0000)
ABSENT = np.uint32(0xFFFF_FFFF)
LINE = 16
"""Values in a cache line of 64 bytes."""
TILE = 4096
"""Values that are handled together: 16 KiB stay in the first-level cache."""

# Places of what is known beside the words: smallest and largest key of the negative values and of the positive ones,
# numbers of NaN, infinities and zeros, values counted since words were last relieved, whether any word ever was.
NEGATIVE, POSITIVE, N_NAN, N_INF, N_ZEROS, N_RECENT, IS_WIDE = 0, 2, 4, 5, 6, 7, 8


@jit
def _key(pattern):
    return np.uint32(pattern ^ np.uint32((np.int32(pattern) >> 31) | np.int32(-0x8000_0000)))


@jit
def _largest_finite_key(patterns):
    """Return the largest key of finite values, 0 if there are none."""
    largest = np.uint32(0)
    for i in range(patterns.size):
        magnitude = np.uint32(patterns[i] & MAGNITUDE)
        key = ZERO if magnitude == np.uint32(0) else _key(patterns[i])
        key = key if magnitude < INFINITE else np.uint32(0)
        largest = key if key > largest else largest
    return largest


@jit
def _widen(found, key):
    """Let the extremes of the key's sign include it."""
    place = POSITIVE if key > ZERO else NEGATIVE
    found[place] = min(found[place], np.int64(key))
    found[place + 1] = max(found[place + 1], np.int64(key))


@jit
def _is_strange(largest, outer):
    """Return whether there are NaN or infinities: from the largest pattern, signed and unsigned."""
    return largest >= np.int32(INFINITE) or outer >= np.uint32(ZERO | INFINITE)


@jit
def _widen_by_patterns(found, largest, outer, inner_positive, inner_negative):
    """Widen the extremes by the largest patterns, and by the smallest magnitudes of either sign less one."""
    if outer > ZERO:
        _widen(found, np.uint32(~outer))
        _widen(found, np.uint32(~(np.uint32(inner_negative + np.uint32(1)) | ZERO)))
    if largest > 0:
        _widen(found, np.uint32(np.uint32(inner_positive + np.uint32(1)) | ZERO))
        _widen(found, np.uint32(np.uint32(largest) | ZERO))


@jit
def _survey_strange(patterns, found):
    """Do as `_survey_piece` where there are NaN or infinities."""
    for i in range(patterns.size):
        magnitude = np.uint32(patterns[i] & MAGNITUDE)
        if magnitude >= INFINITE:
            found[N_INF if magnitude == INFINITE else N_NAN] += 1
        elif magnitude != np.uint32(0):
            _widen(found, _key(patterns[i]))
    return _largest_finite_key(patterns)


@jit
def _survey_piece(patterns, found):
    """Widen the extremes in ``found``, count NaN and infinities; return the largest key of finite values, or 0."""
    largest, outer = np.int32(-0x8000_0000), np.uint32(0)
    inner_positive, inner_negative = ABSENT, ABSENT
    for i in range(patterns.size):
        pattern, signed = patterns[i], np.int32(patterns[i])
        largest = signed if signed > largest else largest
        outer = pattern if pattern > outer else outer
        # Less one, zeros of either sign are no longer the smallest.
        less_one = np.uint32(pattern - np.uint32(1))
        inner_positive = less_one if less_one < inner_positive else inner_positive
        less_one = np.uint32((pattern ^ ZERO) - np.uint32(1))
        inner_negative = less_one if less_one < inner_negative else inner_negative
    if _is_strange(largest, outer):
        return _survey_strange(patterns, found)
    _widen_by_patterns(found, largest, outer, inner_positive, inner_negative)
    return np.uint32(np.uint32(largest) | ZERO) if largest >= 0 else _largest_finite_key(patterns)


@jit
def _largest_key(patterns):
    """Return the largest key of finite values, or 0."""
    largest = np.int32(-0x8000_0000)
    for i in range(patterns.size):
        signed = np.int32(patterns[i])
        largest = signed if signed > largest else largest
    # Patterns without the sign order like their values. None of them, or an infinity, is rare.
    is_plain = largest >= 0 and largest < np.int32(INFINITE)
    return np.uint32(np.uint32(largest) | ZERO) if is_plain else _largest_finite_key(patterns)


@jit
def _pattern_of(key):
    """Return the pattern of a key; a NaN for 0, which is no finite value's key."""
    if key == np.uint32(0):
        return NAN
    return np.uint32(key ^ ZERO) if key >= ZERO else np.uint32(~key)


@jit
def survey_rows(patterns, row_size, maxima, found):
    """Widen ``found`` by all values; write the largest finite value of each row to ``maxima``, NaN where there is none.

    ``maxima``, patterns, has the shape (n_rows,), or (0,) if they are not wanted. ``found`` is laid out as told above.
    """
    if row_size < TILE and maxima.size:
        step = TILE // row_size
        for first in range(0, maxima.size, step):
            end = min(first + step, maxima.size)
            _survey_piece(patterns[first * row_size : end * row_size], found)
            for row in range(first, end):
                maxima[row] = _pattern_of(_largest_key(patterns[row * row_size : (row + 1) * row_size]))
        return
    for row in range(patterns.size // row_size):
        largest = np.uint32(0)
        for begin in range(row * row_size, (row + 1) * row_size, TILE):
            end = min(begin + TILE, (row + 1) * row_size)
            largest = max(largest, _survey_piece(patterns[begin:end], found))
        if maxima.size:
            maxima[row] = _pattern_of(largest)


@jit
def _keep(patterns, kept):
    """Copy what is finite and not zero to ``kept``, which has room for 16 more; return how many there are."""
    size, begin = np.int64(0), np.int64(0)
    if HAS_COMPRESS:
        begin = patterns.size - patterns.size % WIDTH
        for i in range(0, begin, WIDTH):
            size += compress(patterns, i, kept, size)
    for i in range(begin, patterns.size):
        kept[np.uint64(size)] = patterns[i]
        less_one = np.uint32(np.uint32(patterns[i] & MAGNITUDE) - np.uint32(1))
        size += np.int64(less_one < np.uint32(INFINITE - np.uint32(1)))
    return size


@jit
def _bump(words, pattern, low_bits, low_mask, one):
    low = np.uint64(pattern) & low_mask
    bucket = np.uint64(pattern) >> low_bits
    words[bucket] = (words[bucket] + one + (low << low_bits)) | low


@jit
def _add_all(patterns, size, words, low_bits, following):
    """Count ``patterns[:size]``, of which none is zero, into words; have the cache load what follows meanwhile."""
    low_mask, one = np.uint64((1 << low_bits) - 1), np.uint64(1) << np.uint64(32 + low_bits)
    low_bits = np.uint64(low_bits)
    whole, line = size & -8, np.int64(0)
    for i in range(0, whole, 8):
        prefetch(following, line)
        line += LINE
        # All eight loads stand before the first store: the compiler cannot move them there itself.
        p0, p1, p2, p3 = patterns[i], patterns[i + 1], patterns[i + 2], patterns[i + 3]
        p4, p5, p6, p7 = patterns[i + 4], patterns[i + 5], patterns[i + 6], patterns[i + 7]
        _bump(words, p0, low_bits, low_mask, one)
        _bump(words, p1, low_bits, low_mask, one)
        _bump(words, p2, low_bits, low_mask, one)
        _bump(words, p3, low_bits, low_mask, one)
        _bump(words, p4, low_bits, low_mask, one)
        _bump(words, p5, low_bits, low_mask, one)
        _bump(words, p6, low_bits, low_mask, one)
        _bump(words, p7, low_bits, low_mask, one)
    for i in range(whole, size):
        _bump(words, patterns[i], low_bits, low_mask, one)
    for i in range(line, following.size, LINE):
        prefetch(following, i)


@jit
def _bucket_ranges(state, low_bits):
    """Return first and last bucket (excluded) of the negative values that were counted, and of the positive ones."""
    half, n_buckets = np.int64(1) << (31 - low_bits), np.int64(1) << (32 - low_bits)
    # Negative patterns descend where keys ascend.
    return (
        n_buckets - 1 - (state[NEGATIVE + 1] >> low_bits),
        n_buckets - (state[NEGATIVE] >> low_bits),
        (state[POSITIVE] >> low_bits) - half,
        (state[POSITIVE + 1] >> low_bits) - half + 1,
    )


@jit
def _relieve(words, low_bits, begin, end):
    """Empty half-full words into the wide counters beside them; return whether there were any."""
    seen = np.uint64(0)
    for bucket in range(begin, end):
        seen |= words[0, bucket]
    if not seen >> np.uint64(63):
        return False
    low_mask = np.uint64((1 << low_bits) - 1)
    for bucket in range(begin, end):
        word = words[0, bucket]
        if word >> np.uint64(63):
            words[1, bucket] += word >> np.uint64(32 + low_bits)
            words[2, bucket] += np.uint64(np.uint32(word >> np.uint64(low_bits)))
            words[0, bucket] = word & low_mask
    return True


@jit
def _relieve_all(words, state, low_bits):
    first, after, other_first, other_after = _bucket_ranges(state, low_bits)
    state[IS_WIDE] |= _relieve(words, low_bits, first, after)
    state[IS_WIDE] |= _relieve(words, low_bits, other_first, other_after)
    state[N_RECENT] = 0


@jit
def _widen_state(state, found):
    for place in (NEGATIVE, POSITIVE):
        state[place] = min(state[place], found[place])
        state[place + 1] = max(state[place + 1], found[place + 1])
    state[N_NAN] += found[N_NAN]
    state[N_INF] += found[N_INF]


@jit
def _count_piece(patterns, words, state, low_bits, kept):
    """Count values into words whose ``state`` includes their extremes; return how many were finite and not zero."""
    limit, n_counted = np.int64(1) << (31 - low_bits), np.int64(0)
    step = min(TILE, limit)
    for begin in range(0, patterns.size, step):
        size = _keep(patterns[begin : begin + step], kept)
        if state[N_RECENT] + size > limit:
            _relieve_all(words, state, low_bits)
        _add_all(kept, size, words[0], low_bits, patterns[begin + step : begin + 2 * step])
        state[N_RECENT] += size
        n_counted += size
    return n_counted


@jit
def count(patterns, found, words, state, low_bits):
    """Count values into ``words`` of shape (3, n_buckets): words, wide counts and wide sums.

    ``found`` is what `survey_rows` found in them, ``state`` what is known of all values in the words.
    """
    kept = np.empty(TILE + WIDTH, np.uint32)
    _widen_state(state, found)
    n_counted = _count_piece(patterns, words, state, low_bits, kept)
    state[N_ZEROS] += patterns.size - n_counted - found[N_NAN] - found[N_INF]


@jit
def count_occupied(words, state, low_bits):
    """Return the number of occupied buckets; ``words`` has the shape (n_channels, 3, n_buckets)."""
    n = 0
    for channel in range(state.shape[0]):
        first, after, other_first, other_after = _bucket_ranges(state[channel], low_bits)
        for begin, end in ((first, after), (other_first, other_after)):
            for bucket in range(begin, end):
                n += words[channel, 0, bucket] != 0
            if state[channel, IS_WIDE]:
                for bucket in range(begin, end):
                    n += words[channel, 0, bucket] == 0 and words[channel, 1, bucket] != 0
    return n


@jit
def _take_range(words, begin, n_buckets, step, shown, flip, is_wide, low_bits, out, n):
    """Copy ``n_buckets`` buckets from ``begin`` on, by ``step``, to ``out[n:]``; return the place after them.

    The id of the first is ``shown``. ``flip`` is the largest low where lows descend with the values, else 0.
    """
    ids, counts, sums, atoms = out
    low_mask = np.uint64((1 << low_bits) - 1)
    for i in range(n_buckets):
        bucket = np.uint64(begin + i * step)
        word = words[0, bucket]
        size, total = (
            np.int64(word >> np.uint64(32 + low_bits)),
            np.int64(np.uint32(word >> np.uint64(low_bits))),
        )
        if is_wide:
            size += np.int64(words[1, bucket])
            total += np.int64(words[2, bucket])
        # Written in any case, and overwritten if it is empty: which buckets are cannot be predicted.
        place = np.uint64(n)
        ids[place], counts[place] = shown + i, size
        sums[place] = size * flip - total if flip else total
        atoms[place] = total == size * np.int64(word & low_mask)
        n += size != 0
    return n


@jit
def take_occupied(words, state, low_bits, ids, counts, sums, atoms):
    """Copy the buckets that `count_occupied` counted to the arrays, in the order of channels and keys.

    The arrays have one place more than there are buckets.
    """
    half, n_buckets = np.int64(1) << (31 - low_bits), np.int64(1) << (32 - low_bits)
    out, largest_low, n = (ids, counts, sums, atoms), np.int64((1 << low_bits) - 1), np.int64(0)
    for channel in range(state.shape[0]):
        own, is_wide, shown = words[channel], state[channel, IS_WIDE] != 0, channel * n_buckets
        first, after, other_first, other_after = _bucket_ranges(state[channel], low_bits)
        shown_first = shown + n_buckets - after
        n = _take_range(
            own, after - 1, after - first, -1, shown_first, largest_low, is_wide, low_bits, out, n
        )
        shown_first, size = shown + half + other_first, other_after - other_first
        n = _take_range(own, other_first, size, 1, shown_first, np.int64(0), is_wide, low_bits, out, n)


@jit
def clear(words, state, low_bits):
    """Leave zeros in counters whose ``state`` tells what they hold."""
    for channel in range(state.shape[0]):
        first, after, other_first, other_after = _bucket_ranges(state[channel], low_bits)
        for begin, end in ((first, after), (other_first, other_after)):
            for kind in range(3 if state[channel, IS_WIDE] else 1):
                words[channel, kind, begin:end] = 0
