"""What is over the tolerance and what it takes to excuse it: plain values that travel between processes.

Each holds a number for every channel, or one for all of them where they have one scale, in units of the scales.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Doubt", "Measured", "next_start"]


@dataclass(frozen=True, slots=True)
class Doubt:
    """A compared value with a residual over the tolerance."""

    starts: tuple[int, ...]
    """First sample of the batch with the largest residual."""
    needed: tuple[float, ...]
    """The rounding error that would excuse the residual; 0 for what is within the tolerance."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of such a value on one batch or several."""

    rounding: tuple[float, ...]
    """Largest rounding error of the original network itself."""
    residual: tuple[float, ...] | None = None
    """Largest residual between both networks computed in float64: only of a network that is itself coarser than
    float32."""
    fineness: float = 1.0
    """How large the rounding of a weight is beside that of an activation: 1 where both are in half precision, 2^-13
    where weights of float32 are used in float16."""

    def joined(self, other: Measured) -> Measured:
        """Return what holds for the batches of both."""
        residual = None
        if self.residual is not None and other.residual is not None:
            residual = tuple(map(max, self.residual, other.residual))
        return Measured(tuple(map(max, self.rounding, other.rounding)), residual, self.fineness)


def next_start(
    doubts: Mapping[int, Doubt], measured: Mapping[int, Measured], done: frozenset[int]
) -> int | None:
    """Return the batch on which most of what is still in doubt has its largest residual: the first of such.

    ``done`` are the batches that were measured already. None when no other one can excuse anything.
    """
    votes: dict[int, int] = {}
    for index, doubt in doubts.items():
        has = measured[index].rounding if index in measured else (-1.0,) * len(doubt.needed)
        for start, needed, found in zip(doubt.starts, doubt.needed, has, strict=True):
            if found < needed and start not in done:
                votes[start] = votes.get(start, 0) + 1
    return min(votes, key=lambda start: (-votes[start], start), default=None)
