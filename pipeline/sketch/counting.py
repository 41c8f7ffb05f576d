"""Open counters of the compiled kernels into tallies, and slabs of channels.

The same results as `sorting`, 10 times faster on large arrays. Knows counters and kernels. Does not know layouts of
arrays, or what NaN means to the user.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from . import bits as fb
from .buckets import Buckets
from .counters import give_back, lend
from .tally import CompactTally, Tally

CHANNEL_PAD = 520
"""Counters between the channels of a group: powers of two would compete for the same places in the cache."""
MAX_GROUP = 16
"""Channels counted in one sweep over an array: their values fill one cache line of 64 bytes."""
STAGED_VALUES = 4096
"""Values of one channel that are collected before they are counted."""
GROUP_BITS = 20
"""A group of channels has about ``2**GROUP_BITS`` counters: fewer channels at a higher resolution."""


_NOTHING_FOUND = np.array([[fb.EMPTY_MIN_KEY, fb.EMPTY_MAX_KEY] * 2 + [0] * 5] * MAX_GROUP, np.int64)


def nothing_found(n_channels: int) -> NDArray[np.int64]:
    """Return the state of counters of no values, of shape (n_channels, 9), laid out as told in `kernels`."""
    return _NOTHING_FOUND[:n_channels].copy()


def touched_nbytes(state: NDArray[np.int64], *, bits: int) -> int:
    """Return the bytes of the counters from the smallest value to the largest of each sign."""
    buckets = state[:, :4] >> (32 - bits)
    spans = np.maximum(buckets[:, 1::2] - buckets[:, ::2] + 1, 0).sum(axis=1)
    return int((spans * np.where(state[:, -1] != 0, 24, 8)).sum())


def take_tally(words: NDArray[np.uint64], state: NDArray[np.int64], *, bits: int) -> Tally:
    """Return the tally of what was counted into ``words`` of shape (n_channels, 3, ...), which stay as they are."""
    from . import kernels  # Numba takes half a second to import

    low_bits = 32 - bits
    size = kernels.count_occupied(words, state, low_bits)
    out = [np.empty(size + 1, dtype) for dtype in (np.uint32, np.int64, np.int64, np.bool_)]
    ids, counts, sums, atoms = (array[:size] for array in out)
    tally = Tally(
        bits=bits,
        buckets=Buckets(ids=ids, counts=counts, sums=sums, atoms=atoms),
        n_zeros=state[:, 6].copy(),
        n_nan=state[:, 4].copy(),
        n_inf=state[:, 5].copy(),
        min_keys=np.minimum(state[:, 0], state[:, 2]).astype(np.uint32),
        max_keys=np.maximum(state[:, 1], state[:, 3]).astype(np.uint32),
    )
    kernels.take_occupied(words, state, low_bits, *out)
    return tally


def empty_counters(words: NDArray[np.uint64], state: NDArray[np.int64], *, bits: int) -> None:
    """Leave zeros in the counters that `take_tally` has read."""
    from . import kernels  # Numba takes half a second to import

    kernels.clear(words, state, 32 - bits)


def channels_at_once(bits: int) -> int:
    """Return how many channels are counted together."""
    return max(1, min(MAX_GROUP, 1 << max(0, GROUP_BITS - bits)))


def count_channels(
    slabs: Sequence[NDArray[np.float32]], groups: Sequence[CompactTally], *, bits: int
) -> list[CompactTally]:
    """Return the tallies of groups of channels with the values of shape (outer, n_channels, inner) added."""
    words = lend(channels_at_once(bits), 3, (1 << bits) + CHANNEL_PAD)
    first, largest = 0, 0
    added: list[CompactTally] = []
    for group in groups:
        state = nothing_found(group.rest.n_channels)
        _put_back(group, words, state)
        for slab in slabs:
            _count_group(slab.view(np.uint32), first, words, state, 32 - bits)
        added.append(CompactTally.of(take_tally(words, state, bits=bits)))
        empty_counters(words, state, bits=bits)
        largest = max(largest, touched_nbytes(state, bits=bits))
        first += len(state)
    # Only after success: counters of an interrupted use are not zero.
    give_back(words, touched_nbytes=largest)
    return added


def _put_back(group: CompactTally, words: NDArray[np.uint64], state: NDArray[np.int64]) -> None:
    """Fill counters with what `take_tally` took from them."""
    from . import lanes  # Numba takes half a second to import

    rest, buckets = group.rest, group.buckets
    state[:, 4], state[:, 5], state[:, 6] = rest.n_nan, rest.n_inf, rest.n_zeros
    if not buckets.tails.size:
        return
    lanes.put_back(
        buckets.tails.astype(np.uint32, copy=False),
        buckets.starts,
        buckets.counts.astype(np.int64),
        buckets.sums.astype(np.int64),
        np.unpackbits(buckets.flags, count=buckets.tails.size),
        rest.min_keys,
        rest.max_keys,
        words,
        state,
        32 - rest.bits,
    )


def _count_group(
    patterns: NDArray[np.uint32],
    first: int,
    words: NDArray[np.uint64],
    state: NDArray[np.int64],
    low_bits: int,
) -> None:
    from . import lanes  # Numba takes half a second to import

    _, row_size, inner = patterns.shape
    if inner == 1 and len(state) == lanes.LANES and first % 2 == 0 and row_size % 2 == 0:
        lanes.count_lanes(patterns.reshape(-1), first, row_size, words, state, low_bits)
    else:
        lanes.count_runs(patterns, first, np.empty(STAGED_VALUES, np.uint32), words, state, low_bits)
