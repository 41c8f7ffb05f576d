"""The range whose clipping and rounding to whole numbers costs the least mean squared error, from buckets.

Every error is known between two bounds, because a bucket has the exact number and mean of its values, and says between
which two numbers they lie. Knows arrays. Does not know points or settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Grids", "RoundingError", "Spans", "best_grid", "rounding_errors"]

_COARSE_STEPS = 16
"""Candidates in each factor of two of the clip."""
_FINE_STEPS = 17
_ROUNDS = 2
_SIDES = 48
"""Candidates for each side of a range with two free sides, before they are refined."""
_DIGITS = 12
"""Errors that agree to so many digits count as equal, so that processors with other vector units choose alike."""


@dataclass(frozen=True, slots=True, eq=False)
class Spans:
    """Occupied buckets: what ``Sketch.spans`` returns. Arrays of shape (n_buckets,)."""

    lo: NDArray[np.float64]
    hi: NDArray[np.float64]
    means: NDArray[np.float64]
    counts: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grids:
    """Candidates: whole numbers ``lowest`` to ``highest`` times ``step``. Arrays of shape (n_candidates,)."""

    step: NDArray[np.float64]
    """Positive, in units of the activations."""
    lowest: NDArray[np.float64]
    highest: NDArray[np.float64]

    @classmethod
    def between(
        cls, lo: NDArray[np.float64], hi: NDArray[np.float64], *, bits: int, symmetric: bool
    ) -> Grids:
        """Return the grids of ranges ``lo <= 0 <= hi`` (not both 0), with zero among their numbers.

        Symmetric: ``2**(bits-1) - 1`` numbers on both sides of zero. Otherwise ``2**bits`` numbers; the share below
        zero is rounded, as by every quantiser with a whole zero point.
        """
        lo, hi = np.atleast_1d(lo), np.atleast_1d(hi)
        if symmetric:
            top = np.full(lo.shape, float((1 << (bits - 1)) - 1))
            return cls(step=np.maximum(-lo, hi) / top, lowest=-top, highest=top)
        last = float((1 << bits) - 1)
        step = (hi - lo) / last
        below = np.clip(np.rint(-lo / step), 0, last)
        return cls(step=step, lowest=-below, highest=last - below)

    def chosen(self, index: NDArray[Any]) -> Grids:
        """Return some of the candidates, by their places or a mask."""
        return Grids(step=self.step[index], lowest=self.lowest[index], highest=self.highest[index])

    @property
    def lo(self) -> NDArray[np.float64]:
        """The lowest number that each grid holds."""
        return self.lowest * self.step

    @property
    def hi(self) -> NDArray[np.float64]:
        """The highest number that each grid holds."""
        return self.highest * self.step


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundingError:
    """The mean squared error of all values, between two guaranteed bounds, in squared units of the activations."""

    lower: float
    upper: float

    @property
    def value(self) -> float:
        """The middle: at most `bound` off."""
        return (self.lower + self.upper) / 2

    @property
    def bound(self) -> float:
        """What the width of the buckets leaves open."""
        return (self.upper - self.lower) / 2


def rounding_errors(spans: Spans, grids: Grids) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return bounds on the sum of squared errors of all values, for each grid.

    Returns
    -------
    lower, upper : ndarray of shape (n_candidates,)

    Notes
    -----
    Values x of a bucket lie in [a, b] and have the mean m. With q the number of the grid that is nearest to m, they
    cost at most ``(m - q)**2 + (m - a)(b - m)`` on average, for no number is nearer to x than its own, and that is the
    largest variance (Bhatia and Davis, 2000). Where x lies beyond the middle e to the next number, it costs
    ``2 * step * (x - e)`` less than ``(x - q)**2``; on average at most the chord ``(m - a)(b - e) / (b - a)`` of it.
    Inside the range a value costs at most ``(step / 2)**2``.
    """
    a, b, m, n = spans.lo, spans.hi, spans.means, spans.counts
    width = np.maximum(b - a, np.finfo(np.float64).tiny)
    spread = np.maximum((m - a) * (b - m), 0.0)
    lower, upper = np.empty(grids.step.shape), np.empty(grids.step.shape)
    for i in range(grids.step.size):
        step, lowest, highest = (float(part[i]) for part in (grids.step, grids.lowest, grids.highest))
        number = np.clip(np.rint(m / step), lowest, highest)
        near = number * step
        square = (m - near) ** 2
        beyond = np.where(number < highest, (m - a) * np.maximum(b - (near + step / 2), 0.0), 0.0)
        before = np.where(number > lowest, (b - m) * np.maximum(near - step / 2 - a, 0.0), 0.0)
        crossing = beyond + before
        least = np.maximum(square - 2 * step * crossing / width, 0.0)
        # The chord counts on the next number alone: a wider bucket may hold several.
        least = np.where((crossing > 0) & (width > step), 0.0, least)
        inside = (a >= (lowest - 0.5) * step) & (b <= (highest + 0.5) * step)
        most = np.where(inside, np.minimum(square + spread, step * step / 4), square + spread)
        lower[i], upper[i] = np.sum(n * least), np.sum(n * np.maximum(most, least))
    return lower, upper


def best_grid(spans: Spans, *, bits: int, symmetric: bool) -> tuple[Grids, Grids]:
    """Return the grid with the least error among those that are tried, and those that may be as good.

    The latter are all candidates whose lower bound is not above the upper bound of the best: the grid that is best for
    the values themselves is among them.

    Parameters
    ----------
    spans : Spans
        With at least one value that is not zero.
    """
    lowest, highest = min(float(spans.lo[0]), 0.0), max(float(spans.hi[-1]), 0.0)
    if symmetric or lowest == 0.0 or highest == 0.0:
        search = _Search(spans, bits, symmetric, np.array([min(lowest, 0.0)]), np.array([max(highest, 0.0)]))
        search.shrink(lowest, highest)
    else:
        search = _Search(spans, bits, symmetric, np.array([lowest]), np.array([highest]))
        search.two_sides()
    return search.answer()


class _Search:
    """Candidates that were tried, with the bounds of their errors."""

    def __init__(
        self,
        spans: Spans,
        bits: int,
        symmetric: bool,
        lo: NDArray[np.float64],
        hi: NDArray[np.float64],
    ) -> None:
        self._spans, self._bits, self._symmetric = spans, bits, symmetric
        self._tried: list[tuple[NDArray[np.float64], ...]] = []
        self.extend(lo, hi)

    def extend(self, lo: NDArray[np.float64], hi: NDArray[np.float64]) -> None:
        grids = Grids.between(lo, hi, bits=self._bits, symmetric=self._symmetric)
        lower, upper = rounding_errors(self._spans, grids)
        self._tried.append((np.atleast_1d(lo), np.atleast_1d(hi), lower, upper))

    def _all(self) -> tuple[NDArray[np.float64], ...]:
        return tuple(np.concatenate(parts) for parts in zip(*self._tried, strict=True))

    def _best(self) -> int:
        lower, upper = self._all()[2:]
        middle = (lower + upper) / 2
        scale = 10.0 ** (np.floor(np.log10(max(float(middle.max()), 1e-300))) - _DIGITS)
        return int(np.argmin(np.rint(middle / scale)))

    def shrink(self, lowest: float, highest: float) -> None:
        """Try smaller and smaller ranges until clipping alone costs more than the best; then refine."""
        shrunk = 2.0 ** (-np.arange(1, _COARSE_STEPS + 1) / _COARSE_STEPS)
        at = 1.0
        while at > 1e-30:
            self.extend(lowest * at * shrunk, highest * at * shrunk)
            at *= 0.5
            if self._clipped(lowest * at, highest * at) > float(np.min(self._all()[3])):
                break
        for round_ in range(1, _ROUNDS + 1):
            lo, hi = (part[self._best()] for part in self._all()[:2])
            reach = np.log(2.0) / _COARSE_STEPS / (_FINE_STEPS // 2) ** (round_ - 1)
            factors = np.exp(np.linspace(-reach, reach, _FINE_STEPS))
            factors = factors[(lo * factors >= lowest) & (hi * factors <= highest)]
            self.extend(lo * factors, hi * factors)

    def _clipped(self, lo: float, hi: float) -> float:
        """Return what clipping to a range costs at least."""
        outside = self._spans.means - np.clip(self._spans.means, lo, hi)
        return float(np.sum(self._spans.counts * outside**2))

    def two_sides(self) -> None:
        """Start where rounding is estimated as noise of step**2 / 12, which makes a convex problem; then refine."""
        m, n = self._spans.means, self._spans.counts
        lowest, highest = float(self._spans.lo[0]), float(self._spans.hi[-1])
        shrunk = 2.0 ** (-np.arange(_SIDES) / 4.0)
        above = np.array([np.sum(n * np.maximum(m - highest * f, 0.0) ** 2) for f in shrunk])
        below = np.array([np.sum(n * np.minimum(m - lowest * f, 0.0) ** 2) for f in shrunk])
        step = (highest * shrunk[None, :] - lowest * shrunk[:, None]) / ((1 << self._bits) - 1)
        costs = above[None, :] + below[:, None] + n.sum() * step**2 / 12
        i, j = np.unravel_index(int(np.argmin(costs)), costs.shape)
        lo, hi = lowest * shrunk[i], highest * shrunk[j]
        for reach in (0.2, 0.05, 0.0125):
            factors = np.exp(np.linspace(-reach, reach, 7))
            los, his = np.meshgrid(lo * factors, hi * factors)
            fits = (los >= lowest) & (his <= highest)
            self.extend(los[fits], his[fits])
            lo, hi = (float(part[self._best()]) for part in self._all()[:2])

    def answer(self) -> tuple[Grids, Grids]:
        lo, hi, lower, upper = self._all()
        grids = Grids.between(lo, hi, bits=self._bits, symmetric=self._symmetric)
        best = self._best()
        return grids.chosen(np.array([best])), grids.chosen(lower <= upper[best])
