"""Arrays into tallies.

Chooses the engine (Numba kernels or numpy, identical results) and decides what NaN and
infinities mean. Does not know how tallies are kept or stored.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import InputError
from . import bits as fb
from .arrays import channel_slabs, first_nonfinite, layer_slabs, place
from .tally import Buckets, Tally, buckets_of_sorted, empty_tally, merge_buckets

SORT_VALUES = 1 << 20
"""Values sorted at once: 4 MiB stay near the core."""


def tally_layer(array: NDArray[Any], *, bits: int) -> Tally:
    """Return the tally of all values of an array of any shape; NaN and infinities are counted, not bucketed."""
    low_bits = 32 - bits
    tally = empty_tally(bits)
    parts: list[Buckets] = []
    minimum, maximum = fb.EMPTY_MIN_KEY, fb.EMPTY_MAX_KEY
    for slab in layer_slabs(array):
        for start in range(0, slab.size, SORT_VALUES):
            keys = _sift_layer(slab[start : start + SORT_VALUES], tally)
            if keys.size:
                keys.sort()
                minimum, maximum = min(minimum, int(keys[0])), max(maximum, int(keys[-1]))
                parts.append(buckets_of_sorted(keys, low_bits=low_bits))
    return Tally(
        bits=bits,
        buckets=merge_buckets(parts, low_bits=low_bits),
        n_zeros=tally.n_zeros,
        n_nan=tally.n_nan,
        n_inf=tally.n_inf,
        min_keys=np.array([minimum], np.uint32),
        max_keys=np.array([maximum], np.uint32),
    )


def _sift_layer(values: NDArray[np.float32], tally: Tally) -> NDArray[np.uint32]:
    """Count what has no bucket into ``tally``; return the keys of the rest."""
    keys = fb.keys_of(values)
    finite = (keys >= fb.LOWEST_FINITE_KEY) & (keys <= fb.HIGHEST_FINITE_KEY)
    if not finite.all():
        n_nan = int(np.isnan(values).sum())
        tally.n_nan[0] += n_nan
        tally.n_inf[0] += int((~finite).sum()) - n_nan
        keys = keys[finite]
    nonzero = keys[keys != fb.ZERO_KEY]
    tally.n_zeros[0] += keys.size - nonzero.size
    return nonzero


def tally_channels(array: NDArray[Any], *, bits: int, channel_axis: int) -> Tally:
    """Return the tally of each channel of an array; NaN and infinities are counted, not bucketed."""
    low_bits, n_channels = 32 - bits, array.shape[channel_axis]
    tally = empty_tally(bits, n_channels)
    parts: list[Buckets] = []
    for slab in channel_slabs(array, channel_axis):
        step = max(1, SORT_VALUES // max(1, n_channels * slab.shape[2]))
        for start in range(0, slab.shape[0], step):
            composite = _sift_channels(slab[start : start + step], tally)
            composite.sort()
            parts.append(buckets_of_sorted(composite, low_bits=low_bits))
            _widen_extremes(composite, tally)
    return Tally(
        bits=bits,
        buckets=merge_buckets(parts, low_bits=low_bits),
        n_zeros=tally.n_zeros,
        n_nan=tally.n_nan,
        n_inf=tally.n_inf,
        min_keys=tally.min_keys,
        max_keys=tally.max_keys,
    )


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
    return (channels[keep] << np.uint64(32)) | keys[keep].astype(np.uint64)


def _widen_extremes(composite: NDArray[np.uint64], tally: Tally) -> None:
    edges = np.searchsorted(composite, np.arange(tally.n_channels + 1, dtype=np.uint64) << np.uint64(32))
    filled = np.flatnonzero(edges[1:] > edges[:-1])
    first, last = composite[edges[filled]], composite[edges[filled + 1] - 1]
    keep = np.uint64(0xFFFF_FFFF)
    tally.min_keys[filled] = np.minimum(tally.min_keys[filled], (first & keep).astype(np.uint32))
    tally.max_keys[filled] = np.maximum(tally.max_keys[filled], (last & keep).astype(np.uint32))


def refuse_nonfinite(array: NDArray[Any], tally: Tally, *, point: str | None, block: int | None) -> None:
    """Raise InputError naming point, block and first index if the tally of ``array`` counted NaN or infinities."""
    n_nan, n_inf = int(tally.n_nan.sum()), int(tally.n_inf.sum())
    if not n_nan + n_inf:
        return
    found = first_nonfinite(array)
    index, value = found if found is not None else ((), float("nan"))
    sample = f" (sample {index[0]} of this block)" if block is not None and index else ""
    raise InputError(
        f"{place(point, block)}{n_nan} NaN and {n_inf} infinite of {array.size} activations, "
        f"the first at index {index}{sample} is {value}: "
        "mend the model or the data, or count and leave them out with on_nonfinite='exclude'",
        point=point,
        block=block,
        index=index,
        n_nan=n_nan,
        n_inf=n_inf,
    )
