"""Sums, means and sums of squares from a tally, independent of order to the last bit.

Knows tallies. Does not know ranks.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from . import bits as fb
from .tally import Tally

_SAFE_VALUES = 1 << 38
"""Up to so many values the int64 sums below cannot overflow: multiples are below 2**24."""


def exact_sum(tally: Tally, *, channel: int = 0) -> int:
    """Return the exact sum of a channel's finite values, in multiples of ``2**-149``."""
    part = slice(*tally.starts[channel : channel + 2])
    ids, counts = tally.buckets.ids[part], tally.buckets.counts[part].astype(np.int64)
    if not ids.size:
        return 0
    bases = ids << np.uint32(tally.low_bits)
    steps = fb.steps_of(bases)
    edges = np.flatnonzero(np.concatenate(([True], steps[1:] != steps[:-1])))
    multiples, lows = fb.multiples_of(bases), tally.buckets.sums[part].astype(np.int64)
    if int(counts.sum()) > _SAFE_VALUES:
        totals = np.add.reduceat(counts.astype(object) * multiples + lows, edges)
    else:
        totals = np.add.reduceat(counts * multiples + lows, edges)
    return sum(int(total) << int(step) for total, step in zip(totals, steps[edges], strict=True))


def as_float(multiple: int, *, divisor: int = 1) -> float:
    """Return ``multiple * 2**-149 / divisor``, correctly rounded."""
    # The division of two ints is correctly rounded in Python, however large they are.
    return multiple / (divisor << -fb.SUBNORMAL_EXPONENT)


def bucket_means(tally: Tally) -> NDArray[np.float64]:
    """Return the mean of each bucket, of shape (n_buckets,): exact up to one rounding each."""
    buckets = tally.buckets
    bases = buckets.ids << np.uint32(tally.low_bits)
    multiples = fb.multiples_of(bases) + buckets.sums / buckets.counts
    return np.ldexp(multiples, fb.steps_of(bases) + fb.SUBNORMAL_EXPONENT)


def square_sum(tally: Tally, *, channel: int = 0) -> tuple[float, float]:
    """Return the sum of squares of a channel's finite values and a bound on its error.

    Notes
    -----
    Values of a bucket with the mean m lie in [a, b], so their variance is between 0 and ``(m - a)(b - m)``
    (Bhatia and Davis, 2000), and 0 for atoms. The middle is returned: the relative error is at most
    ``2**(15 - 2 * bits) + 2**-50`` for normal floats, 2^-25 at 20 bits.
    """
    part = slice(*tally.starts[channel : channel + 2])
    counts, atoms = tally.buckets.counts[part], tally.buckets.atoms[part]
    if not counts.size:
        return 0.0, 0.0
    bases = tally.buckets.ids[part] << np.uint32(tally.low_bits)
    largest = (1 << tally.low_bits) - 1
    lows = tally.buckets.sums[part] / counts
    spacings = fb.spacings_of(bases)
    means = (fb.multiples_of(bases) + lows) * spacings
    spread = np.where(atoms, 0.0, lows * (largest - lows)) * spacings**2 / 2
    # fsum rounds once: no order and no width of a vector unit can change the result.
    middle = math.fsum(counts * (means**2 + spread))
    return middle, math.fsum(counts * spread) + middle * 2.0**-50
