"""Compare a value of the original with the same value of the normalised network, on the samples of a batch.

Knows arrays and scales. Knows nothing of networks, tolerances or verdicts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ComparedValue", "Found", "ValueComparison"]

# The loop is fastest over rows of about as many values; they are whole positions of all channels.
LANES = 64


@dataclass(frozen=True, slots=True)
class ComparedValue:
    """A value of the original, and where the normalised network computes it."""

    name: str
    value: int
    place: int
    scales: NDArray[np.float64]
    channel_axis: int
    node: int | None = None
    """The node of the normalised network with the weights that produce the value, if there is one."""

    @property
    def old_name(self) -> str:
        """Names it among the values of the original that are handed over."""
        return f"old {self.value}"

    @property
    def new_name(self) -> str:
        """Names it among those of the normalised network."""
        return f"new {self.place}"

    @property
    def factor(self) -> float:
        """The largest scale."""
        return float(self.scales.max())

    @property
    def is_one_scale(self) -> bool:
        """Whether all channels have the same scale; then they are compared together."""
        return bool(np.all(self.scales == self.factor))

    @property
    def factors(self) -> NDArray[np.float64]:
        """A vector: the scale of each channel (the largest, if it varies along other axes), or one for all channels."""
        others = tuple(axis - 1 for axis in self.other_axes if axis)
        scales: NDArray[np.float64] = self.scales.max(axis=None if self.is_one_scale else others)
        return scales.reshape(-1)

    @property
    def other_axes(self) -> list[int]:
        """The axes of a batch of the value, but the channel axis."""
        rank = len(self.scales.shape) + 1
        axis = self.channel_axis % rank if rank > 1 else 0
        return [a for a in range(rank) if a != axis or rank == 1]


@dataclass(frozen=True, slots=True)
class Found:
    """What was found for a value in some samples of a batch."""

    numbers: tuple[NDArray[Any], ...]
    """The largest error of all channels, or of each if they have scales of their own; the sum of squared errors; the
    number of saturated values; the largest magnitude of each channel of the original. Errors are in units of the
    scales; if one is NaN, the sum is."""
    n_values: int


class ValueComparison:
    """Compares one value, batch after batch; the samples of a batch may come in parts.

    Parameters
    ----------
    each : ComparedValue
    margin : float
        An activation above 1 + margin is saturated.
    """

    def __init__(self, each: ComparedValue, *, margin: float) -> None:
        self._each = each
        self._limit = np.float32(1.0 + margin)
        self._shape: tuple[int, ...] | None = None
        """Of the value, for one sample; known when the first ones come, since Keras leaves some lengths open."""
        self._inverses = np.empty(0, np.float32)
        self._begin()

    def _begin(self) -> None:
        self._of_shapes: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
        """Errors and magnitudes by channel of samples of another shape: lengths may differ with the size of a part."""
        self._squares: list[float] = []
        self._n_saturated = self._n_values = 0
        self._errors, self._peaks = np.zeros((2, self._inverses.size), np.float32)

    def _fit(self, shape: tuple[int, ...]) -> None:
        if self._shape is not None:
            self._of_shapes.append((self._of_channels(self._errors), self._of_channels(self._peaks)))
        each, rank = self._each, len(shape)
        self._shape = shape
        # A value without axes, one number a sample, is its one channel.
        self._is_channels_last = each.channel_axis % (rank + 1) == rank and all(
            n == 1 for n in each.scales.shape[:-1]
        )
        self._inverses = self._lanes_inverses(shape or (1,))
        self._errors, self._peaks = np.zeros((2, self._inverses.size), np.float32)

    def add(self, old: NDArray[np.float32], new: NDArray[np.float32]) -> None:
        """Add samples: of both networks, of shape (n, *shape)."""
        from .sweep import compare_lanes  # Numba takes half a second to import

        if self._shape != new.shape[1:]:
            self._fit(new.shape[1:])
        squares = np.empty(len(old))
        lanes = [_in_lanes(array, self._inverses.size) for array in (old, new)]
        self._n_saturated += int(
            compare_lanes(*lanes, self._inverses, self._limit, self._errors, self._peaks, squares)
        )
        self._squares += squares.tolist()
        self._n_values += new.size

    def end_batch(self) -> Found:
        """Return what was found since the last batch ended: the same to the last bit, whatever the parts were."""
        squares = math.fsum(self._squares) if all(map(math.isfinite, self._squares)) else sum(self._squares)
        by_shape = [*self._of_shapes, (self._of_channels(self._errors), self._of_channels(self._peaks))]
        errors, peaks = (np.max(each, axis=0) for each in zip(*by_shape, strict=True))
        if self._each.is_one_scale:
            errors = errors.max(keepdims=True)
        numbers = (errors, np.float64(squares), np.int64(self._n_saturated), peaks)
        found = Found(tuple(map(np.asarray, numbers)), self._n_values)
        self._begin()
        return found

    def _lanes_inverses(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return what the original is multiplied with, for each lane: those of whole positions, or of all values."""
        scales = self._each.scales
        if not self._is_channels_last:
            return (1.0 / np.broadcast_to(scales, shape)).astype(np.float32).reshape(-1)
        n_places = math.prod(shape[:-1])
        fitting = (n for n in range(1, n_places) if n_places % n == 0 and n * shape[-1] >= LANES)
        by_channel = np.broadcast_to(scales.reshape(-1), shape[-1:])
        return (1.0 / np.tile(by_channel, next(fitting, n_places))).astype(np.float32)

    def _of_channels(self, lanes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the largest of each channel."""
        assert self._shape is not None  # samples came
        shape = self._shape or (1,)
        if self._is_channels_last:
            found: NDArray[np.float32] = lanes.reshape(-1, shape[-1]).max(axis=0)
            return found
        others = tuple(axis - 1 for axis in self._each.other_axes if axis)
        found = lanes.reshape(shape).max(axis=others)
        return found.reshape(-1)


def _in_lanes(array: NDArray[np.float32], n_lanes: int) -> NDArray[np.float32]:
    lanes = np.ascontiguousarray(array).reshape(len(array), -1, n_lanes)
    # The loop is compiled for arrays that are only read: those of TensorFlow and of files are.
    lanes.flags.writeable = False
    return lanes
