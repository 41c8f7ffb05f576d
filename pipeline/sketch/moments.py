"""Sums, means and sums of squares from a tally, independent of order to the last bit.

Knows tallies. Does not know ranks.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from . import bits as fb
from .ladder import Ladder
from .tally import Tally

_SAFE_VALUES = 1 << 38
"""Up to this many values the int64 sums below cannot overflow: multiples are below 2**24."""


def exact_sums(tally: Tally) -> list[int]:
    """Return the exact sum of each channel's finite values, in multiples of ``2**-149``."""
    sums = [0] * tally.n_channels
    ids, counts = tally.buckets.ids, tally.buckets.counts
    if not ids.size:
        return sums
    bases = ids << np.uint32(tally.low_bits)
    channels = ids.astype(np.int64) >> tally.bits
    steps = fb.steps_of(bases)
    groups = channels << 8 | steps
    edges = np.flatnonzero(np.concatenate(([True], groups[1:] != groups[:-1])))
    multiples, lows = fb.multiples_of(bases), tally.buckets.sums
    if int(counts.sum()) > _SAFE_VALUES:
        totals = np.add.reduceat(counts.astype(object) * multiples + lows, edges)
    else:
        totals = np.add.reduceat(counts * multiples + lows, edges)
    for channel, step, total in zip(
        channels[edges].tolist(), steps[edges].tolist(), totals.tolist(), strict=True
    ):
        sums[channel] += total << step
    return sums


def as_float(multiple: int, *, divisor: int = 1) -> float:
    """Return ``multiple * 2**-149 / divisor``, correctly rounded."""
    # The division of two ints is correctly rounded in Python, however large they are.
    return multiple / (divisor << -fb.SUBNORMAL_EXPONENT)


def rung_means(ladder: Ladder) -> NDArray[np.float64]:
    """Return the mean of each rung, of shape (n_rungs,): off by less than a unit in the last place."""
    multiples, counts = fb.multiples_of(ladder.base_keys), np.maximum(ladder.counts, 1)
    # Of subnormals, the lows may take away nearly all of a base below zero: their whole part is added exactly.
    wholes, rests = np.divmod(ladder.sums, counts)
    is_subnormal = np.abs(multiples) < 1 << fb.MANTISSA_BITS
    means = np.where(is_subnormal, multiples + wholes + rests / counts, multiples + ladder.sums / counts)
    return np.ldexp(means, fb.steps_of(ladder.base_keys) + fb.SUBNORMAL_EXPONENT)


def square_sums(tally: Tally) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the sum of squares of each channel's finite values and a bound on its error, of shape (n_channels,).

    Notes
    -----
    Values of a bucket with the mean m lie in [a, b], so their variance is between 0 and ``(m - a)(b - m)``
    (Bhatia and Davis, 2000), and 0 for atoms. The middle is returned: the relative error is at most
    ``2**(15 - 2 * bits) + 2**-50`` for normal floats, 2^-25 at 20 bits.
    """
    counts, atoms = tally.buckets.counts, tally.buckets.atoms
    bases = tally.buckets.ids << np.uint32(tally.low_bits)
    largest = (1 << tally.low_bits) - 1
    lows = tally.buckets.sums / counts
    spacings = fb.spacings_of(bases)
    means = (fb.multiples_of(bases) + lows) * spacings
    spread = np.where(atoms, 0.0, lows * (largest - lows)) * spacings**2 / 2
    middles = _rounded_sums(counts * (means**2 + spread), tally)
    return middles, _rounded_sums(counts * spread, tally) + middles * 2.0**-50


def squared_deviations(
    tally: Tally, means: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the sum of squared distances of each channel's finite values from ``means``, and a bound on its error.

    Both of shape (n_channels,). As `square_sums`, without cancellation where the values lie far from zero.
    """
    counts, atoms = tally.buckets.counts, tally.buckets.atoms
    bases = tally.buckets.ids << np.uint32(tally.low_bits)
    lows = tally.buckets.sums / counts
    spacings = fb.spacings_of(bases)
    centres = np.repeat(means, np.diff(tally.starts))
    distances = (fb.multiples_of(bases) + lows) * spacings - centres
    spread = np.where(atoms, 0.0, lows * (((1 << tally.low_bits) - 1) - lows)) * spacings**2 / 2
    zeros = tally.n_zeros * means**2
    middles = _rounded_sums(counts * (distances**2 + spread), tally) + zeros
    return middles, _rounded_sums(counts * spread, tally) + middles * 2.0**-50


def std_bounds(
    tally: Tally, means: NDArray[np.float64], n: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (lo, hi) of each channel, of shape (n_channels,): its standard deviation lies between them.

    Parameters
    ----------
    tally : Tally
    means : ndarray of shape (n_channels,), float64
        Exact, rounded once.
    n : ndarray of shape (n_channels,), int64
        Finite values. NaN is returned where there are none.

    Notes
    -----
    To the bound of `squared_deviations` come the rounding of the distances, by the
    inequality of Cauchy and Schwarz, and that of the mean.
    """
    totals, errors = squared_deviations(tally, means)
    squares = n * means**2
    errors = errors + 2.0**-50 * np.sqrt(totals * (totals + squares)) + squares * 2.0**-104
    sizes = np.where(n > 0, n, np.nan)
    # Outwards by more than a division and a root round.
    lo = np.sqrt(np.maximum(totals - errors, 0.0) / sizes) * (1 - 2.0**-50)
    hi = np.sqrt((totals + errors) / sizes) * (1 + 2.0**-50)
    return lo, hi


def _rounded_sums(terms: NDArray[np.float64], tally: Tally) -> NDArray[np.float64]:
    """Return the sum of each channel's terms, one term for each bucket."""
    starts = tally.starts.tolist()
    # fsum rounds once: no order and no width of a vector unit can change the result.
    sums = [math.fsum(terms[first:last]) for first, last in pairwise(starts)]
    return np.array(sums, np.float64)
