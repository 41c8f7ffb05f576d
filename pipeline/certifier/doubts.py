"""What exceeds the tolerance, and what would excuse it: plain values that travel between processes.

Each holds a number for every channel, or one number if all channels have one scale, in units of the scales.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Doubt", "Measured", "next_start"]


@dataclass(frozen=True, slots=True)
class Doubt:
    """A compared value whose residual exceeds the tolerance."""

    starts: tuple[int, ...]
    """First sample of the batch with the largest residual."""
    needed: tuple[float, ...]
    """The rounding error that would excuse the residual; 0 for channels within the tolerance."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured for such a value, on one batch or several."""

    rounding: tuple[float, ...]
    """Largest rounding error of the original network itself."""
    residual: tuple[float, ...] | None = None
    """Largest residual if both networks are computed in float64; only for networks coarser than float32, and where
    rounding grew from layer to layer."""
    fineness: float = 1.0
    """Rounding of weights in proportion to that of activations: 1 if both are in half precision, 2^-13 if float32
    weights are used in float16."""
    is_cut: bool = False
    """Whether the error was larger than what can be believed to be rounding of single layers."""
    least: tuple[float, ...] = (0.0,)
    """An error that rounding may well have, though a smaller one was measured; only where values are small."""

    def joined(self, other: Measured) -> Measured:
        """Return the measurement on the batches of both."""
        residual = None
        if self.residual is not None and other.residual is not None:
            residual = tuple(map(max, self.residual, other.residual))
        rounding = tuple(map(max, self.rounding, other.rounding))
        least = tuple(map(max, self.least, other.least))
        return Measured(rounding, residual, self.fineness, is_cut=self.is_cut or other.is_cut, least=least)


def next_start(
    doubts: Mapping[int, Doubt], measured: Mapping[int, Measured], done: frozenset[int]
) -> int | None:
    """Return the first sample of the batch to measure next: the one with most of the largest residuals still in doubt.

    ``done`` are the batches measured already. None if no other batch can excuse anything.
    """
    votes: dict[int, int] = {}
    for index, doubt in doubts.items():
        has = measured[index].rounding if index in measured else (-1.0,) * len(doubt.needed)
        for start, needed, found in zip(doubt.starts, doubt.needed, has, strict=True):
            if found < needed and start not in done:
                votes[start] = votes.get(start, 0) + 1
    return min(votes, key=lambda start: (-votes[start], start), default=None)
