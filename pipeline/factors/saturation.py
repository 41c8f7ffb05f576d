"""How much of a layer lies above its factor, and so above 1 after normalisation: from the sketch, with bounds.

Knows sketches. Does not know percentiles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..sketch import PointSketch
from ..sketch.ladder import build_ladder, rung_channels, rung_spans
from ..sketch.tally import Tally

__all__ = ["Saturation", "saturation_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Saturation:
    """A share of all activations, zeros included: that of the values lies within [lo, hi]. NaN without values."""

    lo: float
    hi: float

    @property
    def value(self) -> float:
        """The middle."""
        return (self.lo + self.hi) / 2


def saturation_of(sketch: PointSketch, factor: float | tuple[float, ...]) -> Saturation:
    """Return the share of the values that are larger than a factor, or each than that of its channel.

    Without a sketch of each channel, factors of channels leave open what lies between the smallest and the largest.
    """
    factors = np.atleast_1d(np.asarray(factor, np.float64))
    channels = sketch.channels
    if factors.size > 1 and channels is not None and channels.n_channels == factors.size:
        return _share(channels.tally, factors, factors)
    tally = sketch.layer.tally
    return _share(tally, factors.max(keepdims=True), factors.min(keepdims=True))


def _share(tally: Tally, highest: np.ndarray, lowest: np.ndarray) -> Saturation:
    """Return the share above factors of channels that lie between ``lowest`` and ``highest``."""
    ladder = build_ladder(tally, nonzero=False)
    n = int(ladder.offsets[-1])
    if not n:
        return Saturation(lo=float("nan"), hi=float("nan"))
    lo, hi = rung_spans(ladder)
    channels = rung_channels(ladder)
    surely, perhaps = lo > highest[channels], hi > lowest[channels]
    return Saturation(lo=int(ladder.counts[surely].sum()) / n, hi=int(ladder.counts[perhaps].sum()) / n)
