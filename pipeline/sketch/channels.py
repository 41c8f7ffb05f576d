"""One sketch for each channel of a point, kept together so that no loop runs over channels.

Knows tallies of many channels. Does not know models or files.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import InputError
from .arrays import channel_slabs, layer_slabs, parse_array, place
from .channel_counts import ChannelCounts
from .ingest import has_nonfinite_values, nonfinite_error
from .ladder import build_ladder, estimate_values, find_ranks, key_values, parse_percent, virtual_ranks
from .layer import LARGEST_STD_ERROR, Sketch
from .moments import as_float, exact_sums, square_sums, squared_deviations, std_bounds
from .sketch_spec import OnNonFinite, merged_policy, parse_bits
from .tally import Tally, empty_tally, merge_tallies, part_of_channels, same_tally
from .wire import decode_tally, encode_tally


class ChannelSketch:
    """Mergeable statistics of each channel: a `Sketch` with arrays of shape (n_channels,) in the place of numbers.

    Parameters
    ----------
    n_channels : int
    bits : int, default=16
        Resolution, see `SketchSpec.channel_bits`.
    on_nonfinite : {"error", "exclude"}, default="error"
    """

    def __init__(self, n_channels: int, bits: int = 16, *, on_nonfinite: OnNonFinite = "error") -> None:
        if n_channels < 1:
            raise InputError(f"a channel sketch needs at least one channel, got {n_channels}")
        self._counts = ChannelCounts.of(empty_tally(parse_bits(bits), n_channels))
        self._on_nonfinite: OnNonFinite = on_nonfinite

    @classmethod
    def _of(cls, tally: Tally, on_nonfinite: OnNonFinite = "error") -> ChannelSketch:
        sketch = cls(tally.n_channels, tally.bits, on_nonfinite=on_nonfinite)
        sketch._counts = ChannelCounts.of(tally)
        return sketch

    @property
    def bits(self) -> int:
        """Resolution: bits of the float pattern that choose a bucket."""
        return self._counts.bits

    @property
    def n_channels(self) -> int:
        """Number of channels."""
        return self._counts.n_channels

    @property
    def tally(self) -> Tally:
        """The counts behind the statistics."""
        self._counts = self._counts.settled()
        return self._counts.tally()

    def __reduce__(self) -> tuple[Any, tuple[Tally, OnNonFinite]]:
        return ChannelSketch._of, (self.tally, self._on_nonfinite)

    def update(
        self, array: Any, *, channel_axis: int = -1, point: str | None = None, block: int | None = None
    ) -> None:
        """Add all values of an array whose axis ``channel_axis`` counts the channels.

        Raises
        ------
        InputError
            If the dtype or the number of channels does not fit, or a value is NaN or infinite and those are not
            excluded. The sketch is then unchanged.
        """
        array = parse_array(array, point=point, block=block)
        axis = parse_channel_axis(array, channel_axis, self.n_channels, point=point, block=block)
        if self._on_nonfinite == "error" and has_nonfinite_values(layer_slabs(array)):
            raise nonfinite_error(array, point=point, block=block)
        self._counts = self._counts.plus(channel_slabs(array, axis))

    def merge(self, other: ChannelSketch) -> ChannelSketch:
        """Return the sketch of both; neither is changed. InputError if resolution or channels differ.

        The result excludes NaN and infinities if one of the two does.
        """
        policy = merged_policy(self._on_nonfinite, other._on_nonfinite)
        return ChannelSketch._of(merge_tallies([self.tally, other.tally]), policy)

    def to_bytes(self) -> bytes:
        """Return the sketch as bytes: equal for equal sketches."""
        return encode_tally(self.tally)

    @classmethod
    def from_bytes(cls, data: bytes | memoryview) -> ChannelSketch:
        """Return the sketch that `to_bytes` gave; FormatError if the bytes are damaged or newer.

        Bytes hold values only: ``on_nonfinite`` is the default again.
        """
        return cls._of(decode_tally(data))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ChannelSketch) and same_tally(self.tally, other.tally)

    __hash__ = None  # type: ignore[assignment]  # mutable: update() changes it

    def __repr__(self) -> str:
        return f"ChannelSketch(n_channels={self.n_channels}, n={int(self.n.sum())})"

    @property
    def n(self) -> NDArray[np.int64]:
        """Finite values of each channel."""
        tally = self.tally
        return tally.n_nonzero() + tally.n_zeros

    @property
    def n_zeros(self) -> NDArray[np.int64]:
        """Zeros of each channel."""
        return self.tally.n_zeros.copy()

    @property
    def n_nonzero(self) -> NDArray[np.int64]:
        """Finite values of each channel that are not zero."""
        return self.tally.n_nonzero()

    @property
    def n_nan(self) -> NDArray[np.int64]:
        """NaN that were left out, of each channel."""
        return self.tally.n_nan.copy()

    @property
    def n_inf(self) -> NDArray[np.int64]:
        """Infinities that were left out, of each channel."""
        return self.tally.n_inf.copy()

    @property
    def minimum(self) -> NDArray[np.float64]:
        """Smallest value of each channel, exact; NaN where there are none."""
        return self._extreme(self.tally.min_keys, least=True)

    @property
    def maximum(self) -> NDArray[np.float64]:
        """Largest value of each channel, exact; NaN where there are none."""
        return self._extreme(self.tally.max_keys, least=False)

    def _extreme(self, keys: NDArray[np.uint32], *, least: bool) -> NDArray[np.float64]:
        tally = self.tally
        filled, zeros = tally.n_nonzero() > 0, tally.n_zeros > 0
        values = np.full(self.n_channels, np.nan)
        values[filled] = key_values(keys[filled])
        return np.asarray((np.fmin if least else np.fmax)(values, np.where(zeros, 0.0, np.nan)))

    @property
    def mean(self) -> NDArray[np.float64]:
        """Exact mean of each channel, rounded once; NaN where there are no values."""
        sums = exact_sums(self.tally)
        means = [
            as_float(total, divisor=n) if n else np.nan
            for total, n in zip(sums, self.n.tolist(), strict=True)
        ]
        return np.array(means, np.float64)

    @property
    def sum(self) -> NDArray[np.float64]:
        """Exact sum of each channel, rounded once."""
        return np.array([as_float(total) for total in exact_sums(self.tally)], np.float64)

    @property
    def sum_squares(self) -> NDArray[np.float64]:
        """Sum of squares of each channel; at most `sum_squares_error` off, the same in any order."""
        return square_sums(self.tally)[0]

    @property
    def sum_squares_error(self) -> NDArray[np.float64]:
        """Bound on the error of `sum_squares`: below 2^-16 of it for normal floats at 16 bits."""
        return square_sums(self.tally)[1]

    @property
    def std(self) -> NDArray[np.float64]:
        """Standard deviation of each channel, within 1 %; NaN where the buckets cannot tell it so closely."""
        tally, means = self.tally, self.mean
        totals, errors = squared_deviations(tally, np.nan_to_num(means))
        n = self.n
        known = (n > 0) & (errors <= LARGEST_STD_ERROR * totals)
        return np.asarray(np.sqrt(np.divide(totals, n, out=np.full(n.shape, np.nan), where=known)))

    @property
    def std_bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """For each channel two numbers that its exact standard deviation lies between, also where `std` is NaN."""
        return std_bounds(self.tally, np.nan_to_num(self.mean), self.n)

    @property
    def sparsity(self) -> NDArray[np.float64]:
        """Share of zeros of each channel, 0 to 1; NaN where there are no values."""
        n = self.n
        return np.asarray(np.divide(self.n_zeros, n, out=np.full(n.shape, np.nan), where=n > 0))

    @property
    def nbytes(self) -> int:
        """Bytes of state in memory."""
        return self._counts.nbytes

    def percentile(
        self, q: float, nonzero: bool = False
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return (value, lo, hi) of each channel, as `Sketch.percentile`; NaN where there are no values."""
        percent = parse_percent(q)
        ladder = build_ladder(self.tally, nonzero=nonzero)
        channels = np.flatnonzero(ladder.sizes)
        value, lo, hi = (np.full(self.n_channels, np.nan) for _ in range(3))
        if channels.size:
            wanted = virtual_ranks(percent, ladder.sizes[channels])
            last = np.where(wanted.gamma > 0, wanted.following, wanted.previous)
            lower, upper = find_ranks(ladder, wanted.previous, channels), find_ranks(ladder, last, channels)
            first, second = estimate_values(ladder, lower), estimate_values(ladder, upper)
            lo[channels], hi[channels] = key_values(lower.lo), key_values(upper.hi)
            between = first + (second - first) * wanted.gamma
            value[channels] = np.clip(between, lo[channels], hi[channels])
        return value, lo, hi

    def channel(self, index: int) -> Sketch:
        """Return the sketch of one channel, by its index from 0."""
        if not (_is_whole(index) and 0 <= index < self.n_channels):
            raise InputError(f"channel {index!r} of {self.n_channels}: count from 0", channel=index)
        return Sketch._of(part_of_channels(self.tally, int(index), int(index) + 1), self._on_nonfinite)


def parse_channel_axis(
    array: NDArray[Any], channel_axis: int, n_channels: int, *, point: str | None, block: int | None
) -> int:
    """Return the axis of the channels counted from 0, or raise InputError."""
    if not -array.ndim <= channel_axis < array.ndim:
        raise InputError(
            f"{place(point, block)}channel_axis={channel_axis} of an array of shape {array.shape}: "
            f"choose from {-array.ndim} to {array.ndim - 1}",
            point=point,
        )
    axis = channel_axis % array.ndim
    if array.shape[axis] != n_channels:
        raise InputError(
            f"{place(point, block)}an array of shape {array.shape} has {array.shape[axis]} channels on axis {axis}, "
            f"this sketch has {n_channels}",
            point=point,
            n_channels=n_channels,
        )
    return axis


def _is_whole(number: Any) -> bool:
    return isinstance(number, int | np.integer)
