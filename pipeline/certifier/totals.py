"""Totals of a comparison of two networks. Parts may be merged in any order: the totals are the same to the last bit.

Knows numbers. Does not know networks: totals travel between processes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from ..sketch import PointSketch, merge_sketches
from .decisions import Decisions

__all__ = ["ComparisonTotals", "ValueTotals"]


@dataclass(slots=True)
class ValueTotals:
    """Totals of one compared value."""

    errors: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))
    """Largest error of each channel, or of all channels if they have one scale; NaN if any error is NaN."""
    starts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))
    """First sample of the first batch with that error."""
    n_saturated: int = 0
    n_values: int = 0
    channel_peaks: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))
    # A sum of floats depends on their order, a sum of fractions does not; and there is only one summand for each batch.
    finite_square_sum: Fraction = Fraction(0)
    other_square_sum: float = 0.0

    def add(self, numbers: Sequence[NDArray[np.float32]], *, n_values: int, start: int) -> None:
        """Add what was found in the samples that begin with ``start``: errors, squares, saturated values, peaks."""
        error, squares, saturated, peaks = (np.asarray(each, dtype=np.float64) for each in numbers)
        # A maximum may ignore NaN, a sum does not.
        errors = np.full(error.size, np.nan) if np.isnan(squares) else error.reshape(-1)
        found = ValueTotals(
            errors=errors,
            starts=np.full(error.size, start),
            n_saturated=int(saturated),
            n_values=n_values,
            channel_peaks=peaks,
        )
        if np.isfinite(squares):
            found.finite_square_sum = Fraction(float(squares))
        else:
            found.other_square_sum = float(squares)
        self.merge(found)

    def merge(self, other: ValueTotals) -> None:
        """Add the totals of other samples."""
        mine, theirs = _ranks(self.errors), _ranks(other.errors)
        is_worse = (theirs > mine) | ((theirs == mine) & (other.starts < self.starts))
        self.errors = np.where(is_worse, other.errors, self.errors)
        self.starts = np.where(is_worse, other.starts, self.starts)
        self.n_saturated += other.n_saturated
        self.n_values += other.n_values
        self.channel_peaks = np.maximum(self.channel_peaks, other.channel_peaks)
        self.finite_square_sum += other.finite_square_sum
        self.other_square_sum += other.other_square_sum

    @property
    def rms_error(self) -> float:
        """Root of the mean square of the errors."""
        return math.sqrt((float(self.finite_square_sum) + self.other_square_sum) / max(1, self.n_values))

    @property
    def max_error(self) -> float:
        """The largest error of all channels; NaN if any error is NaN."""
        return float(self.errors.max())


def _ranks(errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return errors in an order where NaN is larger than infinity."""
    infinite = np.where(np.isinf(errors), np.finfo(np.float64).max, errors)
    return np.where(np.isnan(errors), np.inf, infinite)


@dataclass(slots=True)
class ComparisonTotals:
    """What was found on some samples."""

    values: tuple[ValueTotals, ...]
    """One for each compared value."""
    decisions: Decisions
    sketches: dict[str, PointSketch]
    """Sketches of the normalised activations, by point; empty if they are not asked for."""
    n_samples: int = 0
    n_recorded: int = 0
    """Samples for which the original's activations came from a cache."""
    problems: set[str] = field(default_factory=set)
    """What could not be read there; the original ran for those samples."""

    def merge(self, other: ComparisonTotals) -> None:
        """Add the totals of other samples."""
        for mine, theirs in zip(self.values, other.values, strict=True):
            mine.merge(theirs)
        self.decisions.merge(other.decisions)
        for name, sketch in self.sketches.items():
            self.sketches[name] = merge_sketches([sketch, other.sketches[name]])
        self.n_samples += other.n_samples
        self.n_recorded += other.n_recorded
        self.problems |= other.problems
