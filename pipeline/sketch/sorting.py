"""Float32 slabs into tallies by sorting keys, in numpy: what the kernels compute, in its plainest form.

Used where Numba is missing, and for small arrays, where sorting is faster than emptying counters. Does not
know layouts, or what NaN means to the user.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from . import bits as fb
from .bucket_merge import merge_buckets
from .buckets import Buckets, buckets_of_sorted
from .tally import Tally, empty_tally

SORT_VALUES = 1 << 20
"""Values that are sorted at once: 4 MiB stay in the caches of the core."""


def sort_layer(values: NDArray[np.float32], *, bits: int) -> Tally:
    """Return the tally of flat values; NaN and infinities are counted, not bucketed."""
    low_bits = 32 - bits
    tally = empty_tally(bits)
    parts: list[Buckets] = []
    for start in range(0, values.size, SORT_VALUES):
        keys = _sift_layer(values[start : start + SORT_VALUES], tally)
        if keys.size:
            keys.sort()
            tally.min_keys[0] = min(int(tally.min_keys[0]), int(keys[0]))
            tally.max_keys[0] = max(int(tally.max_keys[0]), int(keys[-1]))
            parts.append(buckets_of_sorted(keys, low_bits=low_bits))
    return replace(tally, buckets=merge_buckets(parts))


def _sift_layer(values: NDArray[np.float32], tally: Tally) -> NDArray[np.uint32]:
    """Count zeros, NaN and infinities into ``tally``; return the keys of the rest."""
    keys = fb.keys_of(values)
    finite = (keys >= fb.LOWEST_FINITE_KEY) & (keys <= fb.HIGHEST_FINITE_KEY)
    if not finite.all():
        n_nan = int(np.isnan(values).sum())
        tally.n_nan[0] += n_nan
        tally.n_inf[0] += int((~finite).sum()) - n_nan
        keys = keys[finite]
    nonzero = keys[keys != fb.ZERO_KEY]
    tally.n_zeros[0] += keys.size - nonzero.size
    return np.asarray(nonzero)


def survey_plainly(
    values: NDArray[np.float32], row_size: int, maxima: NDArray[np.float32], found: NDArray[np.int64]
) -> None:
    """Do as `kernels.survey_rows`, for floats instead of their patterns."""
    finite = np.isfinite(values)
    is_finite = bool(finite.all())
    keys = fb.keys_of(values if is_finite else values[finite])
    for place, chosen in ((0, keys[keys < fb.ZERO_KEY]), (2, keys[keys > fb.ZERO_KEY])):
        if chosen.size:
            found[place] = min(found[place], int(chosen.min()))
            found[place + 1] = max(found[place + 1], int(chosen.max()))
    if not is_finite:
        n_nan = int(np.isnan(values).sum())
        found[4:6] += n_nan, int((~finite).sum()) - n_nan
    if maxima.size:
        plain = values if is_finite else np.where(finite, values, -np.float32(np.inf))
        maxima[:] = plain.reshape(-1, row_size).max(axis=1)
        maxima[np.isinf(maxima)] = np.nan


def sort_channels(values: NDArray[np.float32], *, bits: int) -> Tally:
    """Return the tally of each channel of values of shape (outer, n_channels, inner)."""
    low_bits, n_channels = 32 - bits, values.shape[1]
    tally = empty_tally(bits, n_channels)
    parts: list[Buckets] = []
    step = max(1, SORT_VALUES // max(1, n_channels * values.shape[2]))
    for start in range(0, values.shape[0], step):
        composite = _sift_channels(values[start : start + step], tally)
        composite.sort()
        parts.append(buckets_of_sorted(composite, low_bits=low_bits))
        _widen_extremes(composite, tally)
    return replace(tally, buckets=merge_buckets(parts))


def _sift_channels(values: NDArray[np.float32], tally: Tally) -> NDArray[np.uint64]:
    keys = fb.keys_of(values)
    n_channels = tally.n_channels
    channels = np.broadcast_to(np.arange(n_channels, dtype=np.uint64)[None, :, None], keys.shape)
    finite = (keys >= fb.LOWEST_FINITE_KEY) & (keys <= fb.HIGHEST_FINITE_KEY)
    if not finite.all():
        nan = np.isnan(values)
        n_nan = nan.sum(axis=(0, 2))
        tally.n_nan[:] += n_nan
        tally.n_inf[:] += (~finite).sum(axis=(0, 2)) - n_nan
    zero = keys == fb.ZERO_KEY
    tally.n_zeros[:] += zero.sum(axis=(0, 2))
    keep = finite & ~zero
    return np.asarray((channels[keep] << np.uint64(32)) | keys[keep].astype(np.uint64))


def _widen_extremes(composite: NDArray[np.uint64], tally: Tally) -> None:
    edges = np.searchsorted(composite, np.arange(tally.n_channels + 1, dtype=np.uint64) << np.uint64(32))
    filled = np.flatnonzero(edges[1:] > edges[:-1])
    first, last = composite[edges[filled]], composite[edges[filled + 1] - 1]
    keep = np.uint64(0xFFFF_FFFF)
    tally.min_keys[filled] = np.minimum(tally.min_keys[filled], (first & keep).astype(np.uint32))
    tally.max_keys[filled] = np.maximum(tally.max_keys[filled], (last & keep).astype(np.uint32))
