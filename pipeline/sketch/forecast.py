"""Foresee what a sketch takes in memory and on disk, before a value is seen.

An estimate from above for values that spread like a bell curve, of both signs or of one: they occupy every bucket in
the powers of two around their scale, and one power of two more for each doubling of their number. Values that spread
over many more powers of two (of a softmax, say) take more.

Arithmetic only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from . import channel_counts
from .open_tally import LOOSE_VALUES
from .sketch_spec import SketchSpec

__all__ = [
    "MANY_SAMPLES",
    "MERGING_NBYTES",
    "SketchForecast",
    "counters_nbytes",
    "sketch_forecast",
]

MERGING_NBYTES = 20 * 2**20
"""Dense counters into which sketches are merged."""
MANY_SAMPLES = 2**20
"""More than calibrate a network: a merged sketch of more samples is taken to be of these."""

# Bits of a float32 pattern that are not its fraction: sign and exponent.
_SIGN_AND_EXPONENT_BITS = 9
# Powers of two beside those that the number of values tells: the bell curve's top, and where it thins out.
_MORE_OCTAVES = 2

# A bucket in memory once it was asked for: number, count, sum, flag. Beside them what answers percentiles once asked.
_BUCKET_NBYTES = 21
_ASKED_BUCKET_NBYTES = 50
# A few values of each channel are kept as they are between updates.
_LOOSE_CHANNEL_NBYTES = 4 * channel_counts.LOOSE_VALUES
# Stored, by resolution: 4.1 to 5.1 bytes were measured at 20 bits, 5.1 to 5.9 at 16, up to 9.9 at 12.
_STORED_BUCKET_NBYTES = ((18, 5), (16, 6), (0, 10))
# Stored settings, extremes, checksums and the place in a record; for each channel counts and extremes.
_STORED_POINT_NBYTES = 500
_STORED_CHANNEL_NBYTES = 16

# More values than these count as these: a sketch grows by one power of two with each doubling.
_MANY_VALUES = 2**36

# Open counters: a word for each bucket of the powers of two that occur, however rarely; two wider ones beside words
# that were emptied in between; pages that are touched for little.
_WORD_NBYTES = 8
_WIDE_NBYTES = 16
_OPEN_NBYTES = 64 * 2**10
# Channels are counted in groups of about 2**20 dense counters.
_GROUP_BITS = 20


def counters_nbytes(spec: SketchSpec) -> int:
    """Return the bytes of the counters of one thread, in which channels are counted."""
    return _WORD_NBYTES << max(_GROUP_BITS, spec.channel_bits) if spec.per_channel else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SketchForecast:
    """What the sketch of a point takes, by the buckets that will be occupied."""

    spec: SketchSpec
    layer: int
    """Buckets of the values."""
    maxima: int
    """Buckets of the maxima of samples."""
    channels: int
    """Buckets of all channels together; 0 without sketches of channels."""
    n_channels: int
    open_nbytes: int
    """Bytes of the counters of values and maxima while these are added."""
    channel_bucket_nbytes: int
    """Of a bucket of a channel between updates, in the narrowest integers that hold it."""

    @property
    def nbytes(self) -> int:
        """Bytes in memory while values are added."""
        loose = _LOOSE_CHANNEL_NBYTES * self.n_channels if self.spec.per_channel else 0
        return self.open_nbytes + self.channels_nbytes + loose

    @property
    def channels_nbytes(self) -> int:
        """Bytes in memory of the sketches of channels."""
        return self.channels * self.channel_bucket_nbytes

    @property
    def merged_nbytes(self) -> int:
        """Bytes in memory once no values are added any more."""
        return (self.layer + self.maxima) * _BUCKET_NBYTES + self.channels_nbytes

    @property
    def asked_nbytes(self) -> int:
        """Bytes in memory once percentiles have been computed."""
        return (self.layer + self.maxima) * _ASKED_BUCKET_NBYTES + self.channels_nbytes

    @property
    def widened_nbytes(self) -> int:
        """More bytes in memory while channels are merged or packed, which widens them before and after."""
        return 2 * _BUCKET_NBYTES * self.channels

    @property
    def stored_nbytes(self) -> int:
        """Bytes as stored, but for the name of the point."""
        return (
            (self.layer + self.maxima) * _per_stored_bucket(self.spec.bits)
            + self.channels * _per_stored_bucket(self.spec.channel_bits)
            + (self.n_channels * _STORED_CHANNEL_NBYTES if self.spec.per_channel else 0)
            + _STORED_POINT_NBYTES
        )


def sketch_forecast(
    spec: SketchSpec, *, n_samples: int, sample_values: int, n_channels: int, is_signed: bool = True
) -> SketchForecast:
    """Return what the sketch of a point takes after ``n_samples`` samples.

    Parameters
    ----------
    spec : SketchSpec
    n_samples : int
    sample_values : int
        Values of one sample, of all channels.
    n_channels : int
    is_signed : bool, default=True
        Whether values are of both signs.
    """
    n_values = min(n_samples * sample_values, _MANY_VALUES)
    n_each = -(-n_values // n_channels)
    of_channel = _occupied(n_each, spec.channel_bits, is_signed) if spec.per_channel else 0
    return SketchForecast(
        spec=spec,
        layer=_occupied(n_values, spec.bits, is_signed),
        maxima=_occupied(n_samples, spec.bits, is_signed),
        channels=n_channels * of_channel,
        n_channels=n_channels,
        open_nbytes=sum(_open_nbytes(n, spec.bits, is_signed) for n in (n_values, n_samples)),
        channel_bucket_nbytes=_narrow_nbytes(n_each, spec.channel_bits),
    )


def _occupied(n_values: int, bits: int, is_signed: bool) -> int:
    """Return how many buckets this many values that are not zero occupy at most."""
    per_octave = 1 << (bits - _SIGN_AND_EXPONENT_BITS)
    n_octaves = max(0.0, math.log2(max(1, n_values) / per_octave)) + _MORE_OCTAVES
    return min(n_values, 1 << bits, int((1 + is_signed) * per_octave * n_octaves))


def _open_nbytes(n_values: int, bits: int, is_signed: bool) -> int:
    """Return the bytes of open counters of this many values that are not zero, at most."""
    if n_values <= LOOSE_VALUES:
        return 4 * n_values
    per_octave = (1 + is_signed) << (bits - _SIGN_AND_EXPONENT_BITS)
    n_octaves = math.log2(n_values) + _MORE_OCTAVES
    # A word is emptied when it is half full: after that many values of one bucket.
    n_wide = max(0.0, n_octaves - math.log2(per_octave << (bits - 1)))
    nbytes = per_octave * (n_octaves * _WORD_NBYTES + n_wide * _WIDE_NBYTES)
    return _OPEN_NBYTES + min(int(nbytes), (_WORD_NBYTES + _WIDE_NBYTES) << bits)


def _narrow_nbytes(n_values: int, bits: int) -> int:
    """Return the bytes of the narrowest integers for place, count and sum of lows, and of a flag.

    As if all values were of one power of two: no bucket of a bell curve has more than a sixth of what that gives.
    """
    count = n_values // (1 << (bits - _SIGN_AND_EXPONENT_BITS)) + 1
    numbers = ((1 << bits) - 1, count, count << (32 - bits))
    return sum(next(n for n in (1, 2, 4, 8) if number < 1 << 8 * n) for number in numbers) + 1


def _per_stored_bucket(bits: int) -> int:
    return next(nbytes for least, nbytes in _STORED_BUCKET_NBYTES if bits >= least)
