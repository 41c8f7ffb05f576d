"""The clip whose histogram loses the least information when its bins are joined to the levels of an integer.

The histogram has 2,049 to 4,096 bins from zero to the largest size. Its edges are edges of the sketch's buckets, so the
counts are exact: those of all values. Knows arrays. Does not know points or settings.

References
----------
.. [1] Migacz, "8-bit Inference with TensorRT", GPU Technology Conference (2017).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .clipping import Spans

__all__ = ["LEAST_BITS", "EntropyClip", "entropy_clip"]

LEAST_BITS = 20
"""Resolution at which no bucket is wider than a bin."""
_BINS = 4096
"""From zero to the next power of two above the largest size."""
_DIGITS = 12
"""Divergences that agree to so many digits count as equal, see `clipping`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EntropyClip:
    """A threshold on the size of values, and the bin in whose middle it lies."""

    value: float
    lo: float
    hi: float


def entropy_clip(spans: Spans, *, bits: int) -> EntropyClip:
    """Return the threshold with the least Kullback-Leibler divergence.

    Parameters
    ----------
    spans : Spans
        With at least one value that is not zero, of a resolution of at least `LEAST_BITS`.
    bits : int
        Of the integer; its ``2**(bits - 1)`` levels hold the sizes of the values.

    Notes
    -----
    For each number of bins i from the number of levels on, the reference has the first i bins, and in the last of them
    also all values beyond. The candidate joins the i bins to levels at ``floor(level * i / n_levels)`` and gives each
    bin that is not empty the same share of its level. The threshold is ``(i + 0.5)`` bins, not beyond the largest size.
    A candidate without values in the last bin, where the reference has some, diverges without bound.
    """
    largest = max(-float(spans.lo[0]), float(spans.hi[-1]))
    width = float(np.ldexp(1.0, int(np.frexp(largest)[1]))) / _BINS
    places = (np.abs(spans.means) / width).astype(np.int64)
    bins = np.bincount(places, weights=spans.counts, minlength=int(largest / width) + 1).astype(np.float64)
    divergence = _divergences(bins, n_levels=1 << (bits - 1))
    n_used = int(np.argmin(np.round(divergence, _DIGITS))) + min(1 << (bits - 1), bins.size)
    middle = min((n_used + 0.5) * width, largest)
    return EntropyClip(value=middle, lo=min(n_used * width, middle), hi=min((n_used + 1) * width, largest))


def _divergences(bins: NDArray[Any], *, n_levels: int) -> NDArray[np.float64]:
    """Return the divergence for each number of bins from ``n_levels`` to all of them."""
    used = np.arange(min(n_levels, bins.size), bins.size + 1)
    total, outside = bins.sum(), bins.sum() - np.cumsum(bins)[used - 1]
    counted, filled, information = (
        np.concatenate(([0.0], np.cumsum(each))) for each in (bins, bins > 0, _x_log_x(bins))
    )
    edges = np.arange(n_levels + 1)[None, :] * used[:, None] // n_levels
    joined = np.diff(counted[edges], axis=1)
    share = joined / np.maximum(np.diff(filled[edges], axis=1), 1)
    referred = joined.copy()
    referred[:, -1] += outside
    explained = np.where(referred > 0, referred * np.log(np.where(share > 0, share, 1.0)), 0.0).sum(axis=1)
    last = bins[used - 1]
    reference = information[used - 1] + _x_log_x(last + outside)
    divergence = (reference - explained) / total - np.log(total) + np.log(np.maximum(counted[used], 1.0))
    return np.where((last == 0) & (outside > 0), np.inf, divergence)


def _x_log_x(x: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(x, dtype=np.float64) * np.log(np.where(x > 0, x, 1.0))
