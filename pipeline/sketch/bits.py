"""Float32 patterns as ordered integers: keys, buckets, edges, spacings.

The *key* of a float32 is an unsigned 32-bit integer that orders like the number. The *bucket* of
a value is the top ``bits`` bits of its key, its *low* the rest. Inside one bucket sign and
exponent are the same, so values are linear in *low*, and sums of lows give exact sums of values.

Knows numpy. Does not know counts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

ZERO_KEY = 0x8000_0000
"""Key of zero; -0.0 is made 0.0 before it gets a key."""
LOWEST_FINITE_KEY = 0x0080_0000
"""Key of the most negative finite float32; anything below is -inf or a NaN with its sign bit set."""
HIGHEST_FINITE_KEY = 0xFF7F_FFFF
"""Key of the largest finite float32; anything above is +inf or NaN."""
EMPTY_MIN_KEY, EMPTY_MAX_KEY = 0xFFFF_FFFF, 0
"""Extremes of no values at all: neutral for minimum and maximum."""
MANTISSA_BITS = 23
SUBNORMAL_EXPONENT = -149
"""Every finite float32 is a whole multiple of ``2**SUBNORMAL_EXPONENT``."""


def keys_of(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Return the keys of float32 values.

    Parameters
    ----------
    values : ndarray, float32
        Any shape; NaN and infinities have keys too, outside the finite range.

    Returns
    -------
    ndarray, uint32
        Same shape; ``a < b`` if and only if ``keys_of(a) < keys_of(b)``, and -0.0 has the key of 0.0.
    """
    patterns = np.ascontiguousarray(np.atleast_1d(values)).view(np.uint32)
    patterns = np.where(patterns == np.uint32(ZERO_KEY), np.uint32(0), patterns)  # -0.0 is zero
    flips = (patterns.view(np.int32) >> np.int32(31)).view(np.uint32) | np.uint32(ZERO_KEY)
    return (patterns ^ flips).reshape(np.shape(values))


def floats_of(keys: NDArray[Any]) -> NDArray[np.float32]:
    """Return the float32 values of keys: the inverse of `keys_of`."""
    keys = np.atleast_1d(keys).astype(np.uint32)
    positive = keys >= np.uint32(ZERO_KEY)
    patterns = np.where(positive, keys ^ np.uint32(ZERO_KEY), ~keys)
    return patterns.view(np.float32)


def spacings_of(keys: NDArray[Any]) -> NDArray[np.float64]:
    """Return the distance between neighbouring float32 at each key (the unit in the last place)."""
    return np.ldexp(1.0, steps_of(keys) + SUBNORMAL_EXPONENT)


def steps_of(keys: NDArray[Any]) -> NDArray[np.int32]:
    """Return the binary exponent of the spacing at each key, counted from ``SUBNORMAL_EXPONENT``: 0 to 253."""
    exponents = (_magnitudes(keys) >> MANTISSA_BITS).astype(np.int32)
    return np.maximum(exponents, 1) - 1


def multiples_of(keys: NDArray[Any]) -> NDArray[np.int64]:
    """Return the values of keys as signed whole multiples of their spacing: below 2**24 in size."""
    keys = np.asarray(keys).astype(np.int64)
    magnitudes = _magnitudes(keys).astype(np.int64)
    fractions = magnitudes & ((1 << MANTISSA_BITS) - 1)
    normal = (magnitudes >> MANTISSA_BITS) > 0
    whole = fractions + (normal.astype(np.int64) << MANTISSA_BITS)
    return np.where(keys >= ZERO_KEY, whole, -whole)


def _magnitudes(keys: NDArray[Any]) -> NDArray[np.uint32]:
    keys = np.asarray(keys).astype(np.uint32)
    return np.where(keys >= np.uint32(ZERO_KEY), keys ^ np.uint32(ZERO_KEY), ~keys & np.uint32(0x7FFF_FFFF))
