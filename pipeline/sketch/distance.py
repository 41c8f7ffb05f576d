"""How far two distributions are apart, from their sketches, with bounds.

Knows sketches. Does not know points or runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .layer import Sketch

__all__ = ["Distance", "distance_between"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Distance:
    """The Kolmogorov-Smirnov distance: the largest difference of the two distribution functions, 0 to 1.

    NaN where one of the two has no values.
    """

    value: float
    """The largest difference that the counts prove; equal to ``lo``."""
    lo: float
    hi: float
    """The distance of the values themselves lies within [lo, hi]."""


def distance_between(first: Sketch, second: Sketch, *, nonzero: bool = False) -> Distance:
    """Return the Kolmogorov-Smirnov distance of two sketches, which may differ in resolution.

    Parameters
    ----------
    first, second : Sketch
    nonzero : bool, default=False
        Of the values that are not zero.

    Notes
    -----
    The share of values up to x is known exactly between buckets. Inside a bucket it lies between those at its ends.
    The largest difference of the known shares is a lower bound; the largest difference that the shares inside the
    buckets allow is an upper one.

    Examples
    --------
    >>> import numpy as np
    >>> low, high = Sketch(), Sketch()
    >>> low.update(np.array([1.0, 2.0], np.float32))
    >>> high.update(np.array([2.0, 3.0], np.float32))
    >>> distance_between(low, high)
    Distance(value=0.5, lo=0.5, hi=0.5)
    """
    ours, theirs = _bounds(first, nonzero), _bounds(second, nonzero)
    if not len(ours[2]) or not len(theirs[2]):
        return Distance(value=float("nan"), lo=float("nan"), hi=float("nan"))
    places = np.unique(np.concatenate([*ours[:2], *theirs[:2]]))
    a_least, a_most = _shares(ours, places)
    b_least, b_most = _shares(theirs, places)
    lo = float(np.maximum(a_least - b_most, b_least - a_most).max(initial=0.0))
    # Between two neighbouring places a share is at least that at the lower and at most that before the upper one.
    a_before, b_before = _shares_before(ours, places), _shares_before(theirs, places)
    hi = max(
        float(np.maximum(a_most - b_least, b_most - a_least).max()),
        float(np.maximum(a_before[1:] - b_least[:-1], b_before[1:] - a_least[:-1]).max(initial=0.0)),
    )
    return Distance(value=lo, lo=lo, hi=min(max(hi, lo), 1.0))


Bounds = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]


def _bounds(sketch: Sketch, nonzero: bool) -> Bounds:
    """Return between which values those of each bucket lie, and how many there are."""
    lo, hi, _, counts = sketch.spans(nonzero)
    return lo, hi, counts


def _shares(buckets: Bounds, places: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the least and the largest share of values up to each place, that place included."""
    lower, upper, counts = buckets
    summed = np.concatenate([[0], np.cumsum(counts)])
    least = summed[np.searchsorted(upper, places, side="right")]
    most = summed[np.searchsorted(lower, places, side="right")]
    return least / summed[-1], most / summed[-1]


def _shares_before(buckets: Bounds, places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the largest share of values below each place."""
    lower, _, counts = buckets
    summed = np.concatenate([[0], np.cumsum(counts)])
    share: NDArray[np.float64] = summed[np.searchsorted(lower, places, side="left")] / summed[-1]
    return share
