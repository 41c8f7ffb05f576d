"""Places of values along an axis, and its ticks. Pure functions of numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .histogram import ScaleKind

__all__ = ["Scale", "decade_ticks", "log_scale", "round_ticks", "tick_text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """An axis."""

    low: float
    high: float
    ends: tuple[float, float]
    """Where ``low`` and ``high`` are, in units of the picture."""
    kind: ScaleKind = "linear"
    linear_width: float = 0.0
    """Half width of the linear part around zero of a symlog axis."""

    @property
    def start(self) -> float:
        """Where ``low`` is."""
        return self.ends[0]

    @property
    def end(self) -> float:
        """Where ``high`` is."""
        return self.ends[1]

    def place(self, values: ArrayLike) -> NDArray[np.float64]:
        """Return where values are; those beyond the ends are moved to them."""
        low, high, given = (
            self._warped(np.asarray(each, np.float64)) for each in (self.low, self.high, values)
        )
        share = (given - low) / (high - low) if high > low else np.full_like(given, 0.5)
        return np.asarray(self.start + np.clip(share, 0.0, 1.0) * (self.end - self.start))

    def at(self, value: float) -> float:
        """Return where one value is."""
        return float(self.place(value))

    def ticks(self, limit: int) -> list[float]:
        """Return at most `limit` round numbers on the axis."""
        if self.kind == "linear":
            return round_ticks(self.low, self.high, limit=limit)
        if self.kind == "log":
            return decade_ticks(self.low, self.high, limit=limit)
        half = max(2, limit // 2)
        above, below = (
            decade_ticks(self.linear_width, end, limit=half) if end > self.linear_width else []
            for end in (self.high, -self.low)
        )
        return [*(-place for place in reversed(below)), 0.0, *above]

    def _warped(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.kind == "linear":
            return values
        if self.kind == "log":
            return np.asarray(np.log10(np.maximum(values, min(self.low, self.high))))
        scaled = np.abs(values) / self.linear_width
        # The logarithm of what lies within the linear part is not used.
        return np.asarray(
            np.sign(values) * np.where(scaled <= 1, scaled, 1 + np.log10(np.maximum(scaled, 1)))
        )


def log_scale(values: Iterable[float], ends: tuple[float, float]) -> Scale:
    """Return a logarithmic axis on which all positive finite `values` have some room around them."""
    known = [value for value in values if 0 < value < math.inf]
    low, high = (min(known), max(known)) if known else (0.5, 2.0)
    return Scale(low=low / 1.6, high=high * 1.6, ends=ends, kind="log")


def decade_ticks(low: float, high: float, *, limit: int = 6) -> list[float]:
    """Return at most `limit` round numbers between two positive ones, for a logarithmic axis.

    Examples
    --------
    >>> decade_ticks(0.02, 300.0)
    [0.1, 1.0, 10.0, 100.0]
    """
    exponents = range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)
    if len(exponents) >= 3:
        step = math.ceil(len(exponents) / limit)
        return [float(f"1e{exponent}") for exponent in exponents[::step]]
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for digits in ("1", "13", "125", "123468", "123456789"):
        places = [float(f"{digit}e{exponent}") for exponent in range(first, last + 1) for digit in digits]
        fitting = [place for place in places if low <= place <= high]
        if len(fitting) >= 3:
            break
    return fitting[:: math.ceil(len(fitting) / limit)] if fitting else [low]


def round_ticks(low: float, high: float, *, limit: int = 6) -> list[float]:
    """Return at most `limit` round numbers from `low` to `high`, for a linear axis.

    Examples
    --------
    >>> round_ticks(-0.3, 2.1)
    [0.0, 0.5, 1.0, 1.5, 2.0]
    """
    width = high - low
    if not 0 < width < math.inf:
        return [low]
    size = 10.0 ** math.floor(math.log10(width / limit))
    for step in (size * digit for digit in (1.0, 2.0, 2.5, 5.0, 10.0, 20.0)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first + 1 <= limit:
            # Twelve digits: 3 * 0.1 is no round number.
            return [float(f"{n * step:.12g}") for n in range(first, last + 1)]
    return [low]


def tick_text(value: float) -> str:
    """Return a tick label: ``"0"``, ``"0.01"``, ``"1e-5"``, ``"2.5e6"``."""
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e4:
        return f"{value:.4g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
