"""What was found where two networks were compared: totals that add up to the same, whatever the order and the parts.

Knows numbers. Does not know networks: findings travel between processes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from ..sketch import PointSketch, merge_sketches
from .decisions import Decisions

__all__ = ["Findings", "Tally", "add_up"]


@dataclass(slots=True)
class Tally:
    """Totals of one compared value."""

    errors: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))
    """Largest error of each channel, or of all channels together where they have one scale; NaN as soon as one was."""
    starts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))
    """First sample of the batch with that error: the first of them."""
    n_saturated: int = 0
    n_values: int = 0
    channel_peaks: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))
    # Sums of floats depend on their order; sums of fractions do not, and there is one summand for each batch.
    finite_square_sum: Fraction = Fraction(0)
    other_square_sum: float = 0.0

    def add(self, numbers: Sequence[NDArray[np.float32]], *, n_values: int, start: int) -> None:
        """Add what `Comparison` found in the batch that begins with the sample ``start``."""
        error, squares, saturated, peaks = (np.asarray(each, dtype=np.float64) for each in numbers)
        # A maximum may pass over a NaN, a sum never does.
        errors = np.full(error.size, np.nan) if np.isnan(squares) else error.reshape(-1)
        found = Tally(
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

    def merge(self, other: Tally) -> None:
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
        """Root of the mean square of the error."""
        return math.sqrt((float(self.finite_square_sum) + self.other_square_sum) / max(1, self.n_values))

    @property
    def max_error(self) -> float:
        """The largest error of all channels; NaN as soon as one was."""
        return float(self.errors.max())

    @property
    def worst_start(self) -> int:
        """First sample of the batch with the largest error: the first of them."""
        ranks = _ranks(self.errors)
        return int(self.starts[ranks == ranks.max()].min())


def _ranks(errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """NaN is above all, an infinite error included."""
    infinite = np.where(np.isinf(errors), np.finfo(np.float64).max, errors)
    return np.where(np.isnan(errors), np.inf, infinite)


@dataclass(slots=True)
class Findings:
    """Of some samples."""

    tallies: tuple[Tally, ...]
    """One for each compared value."""
    decisions: Decisions
    sketches: Mapping[str, PointSketch]
    """Of the normalised activations, by point; empty where nobody wants them."""
    n_samples: int = 0


def add_up(parts: Iterable[Findings], into: Findings) -> Findings:
    """Add the findings of other samples to ``into`` and return it."""
    for part in parts:
        for mine, theirs in zip(into.tallies, part.tallies, strict=True):
            mine.merge(theirs)
        into.decisions.merge(part.decisions)
        into.sketches = {
            name: merge_sketches([sketch, part.sketches[name]]) for name, sketch in into.sketches.items()
        }
        into.n_samples += part.n_samples
    return into
