"""The sketch of one stream of values: of a layer, of a weight, of the maxima of samples.

Knows tallies and percentiles. Does not know models, files or channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import FormatError, InputError
from . import bits as fb
from .arrays import layer_slabs, parse_array
from .digest import Digest, digest_of_buckets, trimmed_mean
from .ingest import add_slabs, nonfinite_error
from .ladder import (
    Ladder,
    build_ladder,
    estimate_values,
    find_ranks,
    key_values,
    parse_percent,
    rung_spans,
    virtual_ranks,
)
from .moments import as_float, exact_sums, rung_means, square_sums, squared_deviations, std_bounds
from .open_tally import NO_VALUES, OpenTally
from .sketch_spec import OnNonFinite, merged_policy, parse_bits
from .tally import Tally, empty_tally, merge_tallies, same_tally
from .wire import decode_tally, encode_tally

LARGEST_STD_ERROR = 0.02
"""Relative, of the variance: the standard deviation is then within 1 %."""


@dataclass(frozen=True, slots=True)
class Percentile:
    """A percentile and an interval guaranteed to contain it, in the units of the values."""

    value: float
    """The likeliest value, between ``lo`` and ``hi``; NaN if there are no values."""
    lo: float
    """Not above the lower order statistic that ``np.percentile(..., method="linear")`` interpolates from."""
    hi: float
    """Not below the upper one."""

    @property
    def width(self) -> float:
        """``hi - lo``: 0 where the percentile is known exactly."""
        return self.hi - self.lo


def decode_layer(data: bytes | memoryview, *, is_checked: bool = False) -> Tally:
    """Return the tally that `Sketch.to_bytes` wrote; as `decode_tally`."""
    tally = decode_tally(data, is_checked=is_checked)
    if tally.n_channels != 1:
        raise FormatError(
            f"these bytes are a sketch of {tally.n_channels} channels: read them as ChannelSketch"
        )
    return tally


class Sketch:
    """Mergeable statistics of float32 values: exact counts, extremes, sum; certified percentiles.

    Parameters
    ----------
    bits : int, default=20
        Resolution, see `SketchSpec.bits`.
    on_nonfinite : {"error", "exclude"}, default="error"
        Whether `update` refuses NaN and infinities, or counts them and leaves them out.

    Notes
    -----
    Equal values give equal sketches, to the byte, in whatever order and pieces they came. Updates of one
    sketch are not thread-safe; sketch in each thread and `merge`.

    Examples
    --------
    >>> import numpy as np
    >>> sketch = Sketch()
    >>> sketch.update(np.array([0.0, 1.0, 2.0, 3.0, 4.0], np.float32))
    >>> sketch.percentile(50)
    Percentile(value=2.0, lo=2.0, hi=2.0)
    """

    def __init__(self, bits: int = 20, *, on_nonfinite: OnNonFinite = "error") -> None:
        self._counts = OpenTally(empty_tally(parse_bits(bits)))
        self._on_nonfinite: OnNonFinite = on_nonfinite

    @classmethod
    def _of(cls, tally: Tally, on_nonfinite: OnNonFinite = "error") -> Sketch:
        sketch = cls(tally.bits, on_nonfinite=on_nonfinite)
        sketch._counts = OpenTally(tally)
        return sketch

    @property
    def bits(self) -> int:
        """Resolution: bits of the float pattern that choose a bucket."""
        return self._counts.bits

    @property
    def tally(self) -> Tally:
        """The counts behind the statistics."""
        return self._counts.settle()

    def update(self, array: Any, *, point: str | None = None, block: int | None = None) -> None:
        """Add all values of an array.

        Parameters
        ----------
        array : array_like of any shape and layout, float32, float16 or bfloat16
        point, block : optional
            Named in error messages.

        Raises
        ------
        InputError
            If the dtype is another one, or a value is NaN or infinite and those are not excluded. The sketch is
            then unchanged.
        """
        array = parse_array(array, point=point, block=block)
        self._add(layer_slabs(array), array.size, lambda: nonfinite_error(array, point=point, block=block))

    def __reduce__(self) -> tuple[Any, tuple[Tally, OnNonFinite]]:
        return Sketch._of, (self.tally, self._on_nonfinite)  # open counters belong to one sketch

    def _add(
        self,
        slabs: Iterable[NDArray[np.float32]],
        n_values: int,
        refusal: Callable[[], InputError],
        *,
        row_size: int | None = None,
        maxima: NDArray[np.float32] = NO_VALUES,
    ) -> None:
        """Do as `ingest.add_slabs`."""
        add_slabs(
            self._counts,
            slabs,
            n_values=n_values,
            row_size=row_size,
            maxima=maxima,
            refusal=refusal if self._on_nonfinite == "error" else None,
        )
        self._forget()

    def _add_few(self, values: NDArray[np.float32]) -> None:
        """Add finite values, for which memory was reserved."""
        self._counts.add(values)
        self._forget()

    def _forget(self) -> None:
        for name in ("_ladder", "_nonzero_ladder"):
            self.__dict__.pop(name, None)

    def merge(self, other: Sketch) -> Sketch:
        """Return the sketch of both; neither is changed. InputError if resolutions differ.

        The result excludes NaN and infinities if one of the two does.
        """
        policy = merged_policy(self._on_nonfinite, other._on_nonfinite)
        return Sketch._of(merge_tallies([self.tally, other.tally]), policy)

    def to_bytes(self) -> bytes:
        """Return the sketch as bytes: equal for equal sketches."""
        return encode_tally(self.tally)

    @classmethod
    def from_bytes(cls, data: bytes | memoryview) -> Sketch:
        """Return the sketch that `to_bytes` gave; FormatError if the bytes are damaged or newer.

        Bytes hold values only: ``on_nonfinite`` is the default again.
        """
        return cls._of(decode_layer(data))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sketch) and same_tally(self.tally, other.tally)

    __hash__ = None  # type: ignore[assignment]  # mutable: update() changes it

    def __repr__(self) -> str:
        return f"Sketch(n={self.n}, n_zeros={self.n_zeros}, minimum={self.minimum}, maximum={self.maximum})"

    @property
    def n(self) -> int:
        """Number of finite values."""
        return self.n_nonzero + self.n_zeros

    @property
    def n_zeros(self) -> int:
        """Number of zeros, -0.0 included."""
        return int(self.tally.n_zeros[0])

    @property
    def n_nonzero(self) -> int:
        """Number of finite values that are not zero."""
        return int(self.tally.buckets.counts.sum())

    @property
    def n_nan(self) -> int:
        """Number of NaN that were left out."""
        return int(self.tally.n_nan[0])

    @property
    def n_inf(self) -> int:
        """Number of infinities that were left out."""
        return int(self.tally.n_inf[0])

    @property
    def minimum(self) -> float:
        """Smallest value, exact; NaN if there are none."""
        return self._extreme(self.tally.min_keys, np.minimum)

    @property
    def maximum(self) -> float:
        """Largest value, exact; NaN if there are none."""
        return self._extreme(self.tally.max_keys, np.maximum)

    def _extreme(self, keys: NDArray[np.uint32], choose: np.ufunc) -> float:
        if not self.n:
            return float("nan")
        return float(key_values(choose(keys, fb.ZERO_KEY) if self.n_zeros else keys)[0])

    @property
    def sum(self) -> float:
        """Exact sum, rounded once."""
        return as_float(exact_sums(self.tally)[0])

    @property
    def mean(self) -> float:
        """Exact mean, rounded once; NaN if there are no values."""
        return as_float(exact_sums(self.tally)[0], divisor=self.n) if self.n else float("nan")

    @property
    def sum_squares(self) -> float:
        """Sum of squares; at most `sum_squares_error` off, the same in any order."""
        return float(square_sums(self.tally)[0][0])

    @property
    def sum_squares_error(self) -> float:
        """Bound on the error of `sum_squares`: below 2^-24 of it for normal floats at 20 bits."""
        return float(square_sums(self.tally)[1][0])

    @property
    def std(self) -> float:
        """Standard deviation, within 1 %; NaN where the buckets cannot tell it so closely, or there are no values.

        They cannot where the values lie much closer together than to zero: at 20 bits within a few thousandths.
        """
        if not self.n:
            return float("nan")
        (total,), (error,) = squared_deviations(self.tally, np.array([self.mean]))
        return float(np.sqrt(total / self.n)) if error <= LARGEST_STD_ERROR * total else float("nan")

    @property
    def std_bounds(self) -> tuple[float, float]:
        """Two numbers that the exact standard deviation lies between, also where `std` is NaN."""
        (lo,), (hi,) = std_bounds(self.tally, np.array([self.mean]), np.array([self.n]))
        return float(lo), float(hi)

    @property
    def sparsity(self) -> float:
        """Share of zeros among the finite values, 0 to 1; NaN if there are none."""
        return self.n_zeros / self.n if self.n else float("nan")

    @property
    def nbytes(self) -> int:
        """Bytes of state in memory."""
        return self._counts.nbytes

    @cached_property
    def _ladder(self) -> Ladder:
        return build_ladder(self.tally, nonzero=False)

    @cached_property
    def _nonzero_ladder(self) -> Ladder:
        return build_ladder(self.tally, nonzero=True)

    def percentile(self, q: float, nonzero: bool = False) -> Percentile:
        """Return percentile ``q`` and an interval guaranteed to contain the exact one.

        Parameters
        ----------
        q : float
            From 0 to 100.
        nonzero : bool, default=False
            Leave the zeros out.

        Returns
        -------
        Percentile
            ``lo`` and ``hi`` contain both order statistics that ``np.percentile(..., method="linear")``
            interpolates between, always; they are equal for extremes, zeros and buckets of one value.
            NaN if there are no values.
        """
        percent = parse_percent(q)
        ladder = self._nonzero_ladder if nonzero else self._ladder
        size = int(ladder.offsets[-1])
        if not size:
            return Percentile(float("nan"), float("nan"), float("nan"))
        wanted = virtual_ranks(percent, np.array([size]))
        gamma = float(wanted.gamma[0])
        last = int(wanted.following[0]) if gamma else int(wanted.previous[0])
        found = find_ranks(ladder, np.array([int(wanted.previous[0]), last]))
        values = estimate_values(ladder, found)
        lo, hi = float(key_values(found.lo[:1])[0]), float(key_values(found.hi[1:])[0])
        value = float(values[0] + (values[1] - values[0]) * gamma)
        return Percentile(min(max(value, lo), hi), lo, hi)

    def buckets(
        self, nonzero: bool = False
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        """Return (lower edges, upper edges, counts) of the occupied buckets, ascending.

        Edges are the smallest and largest value that the bucket can hold, in the units of the values; zeros are
        one bucket from 0 to 0.
        """
        ladder = self._nonzero_ladder if nonzero else self._ladder
        bases = ladder.base_keys.astype(np.int64)
        zeros = ladder.atoms & (ladder.sums == 0) & (bases == fb.ZERO_KEY)
        tops = np.where(zeros, bases, bases + ladder.largest_low)
        return key_values(bases), key_values(np.minimum(tops, fb.HIGHEST_FINITE_KEY)), ladder.counts.copy()

    def spans(
        self, nonzero: bool = False
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        """Return (lowest, highest, means, counts) of the values in each occupied bucket, ascending.

        All values of a bucket lie between lowest and highest, which are equal where they are all the same number.
        Means are off by less than a unit in the last place.
        """
        ladder = self._nonzero_ladder if nonzero else self._ladder
        return (*rung_spans(ladder), rung_means(ladder), ladder.counts.copy())

    def digest(self, compression: float = 200.0, *, scale: str = "k2", nonzero: bool = False) -> Digest:
        """Return the t-digest of the values: a small summary to send and plot.

        Parameters
        ----------
        compression : float, default=200
            10 to 100,000; see `Digest.compression`.
        scale : {"k1", "k2"}, default="k2"
            Scale function: k2 spends more centroids on the tails.
        nonzero : bool, default=False
            Leave the zeros out.
        """
        lo, hi, means, counts = self.spans(nonzero)
        return digest_of_buckets(means, counts, lo, hi, compression=compression, scale=scale)

    def trimmed_mean(self, lower: float, upper: float, *, nonzero: bool = False) -> float:
        """Return the mean of the values between two percentiles (0 to 100); NaN if there are none.

        From the exact means of the buckets: the error is at most the width of the two buckets at the borders, weighted
        with their share.
        """
        ladder = self._nonzero_ladder if nonzero else self._ladder
        return trimmed_mean(rung_means(ladder), ladder.counts, lower, upper)
