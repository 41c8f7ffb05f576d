"""Choose the range of a point from its sketch: by a percentile, the extremes, the squared error or the entropy.

Knows sketches and the settings of factors. Does not know points, channels or files.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ...storage.errors import InputError
from ..settings.factor_settings import FactorSettings
from ..settings.percents import percent_text
from ..sketch import Percentile, Sketch
from .clipping import Grids, RoundingError, Spans, best_grid, rounding_errors
from .entropy import LEAST_BITS, entropy_clip

__all__ = ["ChosenRange", "chosen_range", "describe_method", "rounding_error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenRange:
    """A range of values that low precision shall hold, in units of the activations; it contains zero."""

    lo: float
    """0 or below."""
    hi: float
    """0 or above; ``lo == hi == 0`` if all values are zero."""
    size: Percentile
    """What a factor is made from: the upper end, or the size of the lower one if there is nothing above zero, with the
    interval that contains what the same method finds in the values themselves. NaN if there are no values."""


def chosen_range(sketch: Sketch, settings: FactorSettings) -> ChosenRange:
    """Return the range that the settings choose for the values of a sketch.

    ``percentile`` and ``max`` take the percentile at both ends, ``mse`` the clip that minimises the mean squared error
    of rounding to ``bits``, ``entropy`` the one that minimises the divergence.

    Raises
    ------
    InputError
        If the sketch is too coarse for the entropy.
    """
    if sketch.n - (sketch.n_zeros if settings.nonzero else 0) == 0:
        return ChosenRange(lo=0.0, hi=0.0, size=Percentile(*[float("nan")] * 3))
    if settings.method in ("percentile", "max"):
        q = 100.0 if settings.method == "max" else settings.percentile
        return _between_percentiles(sketch, q, nonzero=settings.nonzero)
    spans = Spans(*sketch.spans(nonzero=settings.nonzero))
    if not np.any(spans.means):
        return ChosenRange(lo=0.0, hi=0.0, size=Percentile(0.0, 0.0, 0.0))
    if settings.method == "mse":
        return _by_squared_error(spans, settings)
    return _by_entropy(sketch, spans, settings)


def rounding_error(sketch: Sketch, found: ChosenRange, *, bits: int, symmetric: bool) -> RoundingError:
    """Return the mean squared error of rounding all values, zeros included, to ``bits`` within a range.

    Parameters
    ----------
    sketch : Sketch
        With at least one value.
    """
    spans = Spans(*sketch.spans())
    if found.lo == found.hi:  # everything becomes zero
        squares, error = sketch.sum_squares, sketch.sum_squares_error
        return RoundingError(lower=(squares - error) / sketch.n, upper=(squares + error) / sketch.n)
    grid = Grids.between(np.array([found.lo]), np.array([found.hi]), bits=bits, symmetric=symmetric)
    lower, upper = rounding_errors(spans, grid)
    return RoundingError(lower=float(lower[0]) / sketch.n, upper=float(upper[0]) / sketch.n)


def describe_method(settings: FactorSettings) -> str:
    """Return how ranges are chosen, in words for a table."""
    if settings.method in ("percentile", "max"):
        return f"percentile {percent_text(settings.percentile)}" if settings.method == "percentile" else "max"
    grid = ", symmetric" if settings.symmetric and settings.method == "mse" else ""
    return f"{settings.method}, {settings.bits} bits{grid}"


def _between_percentiles(sketch: Sketch, q: float, *, nonzero: bool) -> ChosenRange:
    upper, lower = (sketch.percentile(each, nonzero=nonzero) for each in (q, 100.0 - q))
    lo, hi = min(lower.value, 0.0), max(upper.value, 0.0)
    return ChosenRange(lo=lo, hi=hi, size=upper if hi > 0 else _negated(lower))


def _negated(found: Percentile) -> Percentile:
    return Percentile(-found.value, -found.hi, -found.lo)


def _by_squared_error(spans: Spans, settings: FactorSettings) -> ChosenRange:
    best, others = best_grid(spans, bits=settings.bits, symmetric=settings.symmetric)
    is_above = float(best.hi[0]) > 0
    ends, end = (others.hi, best.hi) if is_above else (-others.lo, -best.lo)
    size = Percentile(float(end[0]), float(ends.min()), float(ends.max()))
    return ChosenRange(lo=float(best.lo[0]), hi=float(best.hi[0]), size=size)


def _by_entropy(sketch: Sketch, spans: Spans, settings: FactorSettings) -> ChosenRange:
    if sketch.bits < LEAST_BITS:
        raise InputError(
            f"factors.method = 'entropy' needs histograms of a finer sketch: it has {sketch.bits} bits, record with "
            f"sketch.bits = {LEAST_BITS} (channels: sketch.channel_bits), or choose 'mse'"
        )
    clip = entropy_clip(spans, bits=settings.bits)
    lo, hi = max(float(spans.lo[0]), -clip.value), min(float(spans.hi[-1]), clip.value)
    size = Percentile(clip.value, clip.lo, clip.hi)
    found = ChosenRange(lo=min(lo, 0.0), hi=max(hi, 0.0), size=size)
    end = found.hi if found.hi > 0 else -found.lo
    # Where the other side is the larger one, this end is the extreme of the values, which is exact.
    return found if end >= clip.value else replace(found, size=Percentile(end, end, end))
