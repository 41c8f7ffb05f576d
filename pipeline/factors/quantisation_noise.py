"""How well each layer survives rounding to whole numbers, with the range that each method chooses.

Knows sketches. Does not know files.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import get_args

from ...storage.errors import InputError
from ..settings.factor_settings import MOST_ENTROPY_BITS, FactorSettings, RangeMethod
from ..sketch import PointSketch, Sketch
from .entropy import LEAST_BITS
from .ranges import chosen_range, rounding_error

__all__ = ["LayerNoise", "MethodNoise", "noise_by_layer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodNoise:
    """What rounding within the range of one method does to one layer."""

    lo: float
    hi: float
    """The range, in units of the activations."""
    sqnr: float
    """Signal to quantisation noise in dB: 10 log10 of the mean square over the mean squared error; infinite if nothing
    is lost."""
    sqnr_lo: float
    sqnr_hi: float
    """The ratio of the values themselves lies within."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerNoise:
    """What rounding does to one layer, by method."""

    point: str
    methods: Mapping[str, MethodNoise]
    """Only methods that can answer: the entropy needs a fine sketch."""

    def worst_of(self, method: str) -> float:
        """Return the ratio of a method, in dB; the least of all methods if it has none."""
        if method in self.methods:
            return self.methods[method].sqnr
        return min(noise.sqnr for noise in self.methods.values())


def noise_by_layer(
    sketches: Mapping[str, PointSketch], settings: FactorSettings, *, bits: int, symmetric: bool
) -> list[LayerNoise]:
    """Return a row for each point that has values, the worst by the method of the settings first.

    Parameters
    ----------
    sketches : mapping of point name to PointSketch
    settings : FactorSettings
        The percentile, and whether zeros count for it.
    bits : int
        Of the whole numbers, 2 to 16.
    symmetric : bool
        Levels on both sides of zero for every point.

    Raises
    ------
    InputError
        For another number of bits.
    """
    if type(bits) is not int or not 2 <= bits <= 16:
        raise InputError(f"bits = {bits!r} is refused: a whole number from 2 to 16")
    changes = {"bits": bits, "symmetric": symmetric}
    found = [
        LayerNoise(point=name, methods=dict(_by_method(sketch.layer, settings.model_copy(update=changes))))
        for name, sketch in sketches.items()
        if sketch.layer.n > sketch.layer.n_zeros
    ]
    return sorted(found, key=lambda row: row.worst_of(settings.method))


def _by_method(sketch: Sketch, settings: FactorSettings) -> Iterator[tuple[str, MethodNoise]]:
    for method in get_args(RangeMethod):
        if method == "entropy" and (sketch.bits < LEAST_BITS or settings.bits > MOST_ENTROPY_BITS):
            continue
        chosen = chosen_range(sketch, settings.model_copy(update={"method": method}))
        error = rounding_error(sketch, chosen, bits=settings.bits, symmetric=settings.symmetric)
        signal, doubt = sketch.sum_squares / sketch.n, sketch.sum_squares_error / sketch.n
        yield (
            method,
            MethodNoise(
                lo=chosen.lo,
                hi=chosen.hi,
                sqnr=_decibels(signal, error.value),
                sqnr_lo=_decibels(signal - doubt, error.upper),
                sqnr_hi=_decibels(signal + doubt, error.lower),
            ),
        )


def _decibels(signal: float, noise: float) -> float:
    return math.inf if noise <= 0 else 10 * math.log10(signal / noise) if signal > 0 else -math.inf
