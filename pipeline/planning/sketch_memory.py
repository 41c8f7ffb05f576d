"""What sketches will take in memory and on disk, before a value is seen.

An estimate from above for values that spread like a bell curve, of both signs or of one: they occupy every bucket in
the powers of two around their scale, and one power of two more for each doubling of their number. Values that spread
over many more powers of two (of a softmax, say) take more.

Arithmetic only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...storage import PointSpec
from ..factors.merge import UNPACKED_NBYTES, UNPACKED_PER_BYTE, WAITING_NBYTES
from ..record.point_sketch import n_channels_of
from ..record.recorder import JOINED_NBYTES, RECORDING_THREADS, UNMERGED_NBYTES
from ..sketch import SketchSpec

__all__ = ["counter_bits", "merged_nbytes", "occupied_buckets", "open_block_nbytes", "records_nbytes"]

# Bits of a float32 pattern that are not its fraction: sign and exponent.
_SIGN_AND_EXPONENT_BITS = 9
# Powers of two beside those that the number of values tells: the bell curve's top, and where it thins out.
_MORE_OCTAVES = 2

# A bucket in memory: number, count, sum, flag. Beside them what answers percentiles once asked.
_BUCKET_NBYTES = 21
_ASKED_BUCKET_NBYTES = 50
# Channels are kept in narrower integers between updates.
_CHANNEL_BUCKET_NBYTES = 14
# In a record, by resolution: 4.1 to 5.1 bytes were measured at 20 bits, 5.1 to 5.9 at 16, up to 9.9 at 12.
_STORED_BUCKET_NBYTES = ((18, 5), (16, 6), (0, 10))
# The sketch's settings, extremes and checksums, its place in the header of the record with its name; for each channel
# counts and extremes; for each chunk its checksum.
_STORED_POINT_NBYTES = 500
_STORED_CHANNEL_NBYTES = 16
# Of each record, whatever it holds, and of a chunk in it.
_STORED_RECORD_NBYTES = 512
_STORED_CHUNK_NBYTES = 32
# What Zarr and this program write about a point, and about the cache as a whole.
_DOCUMENTS_NBYTES = 4096

# With more samples than these, a merged sketch is taken to be of no more: it grows by one power of two with each
# doubling, and these are more than calibrate a network.
_MANY_SAMPLES = 2**20
_MANY_VALUES = 2**36

# Dense counters into which sketches are merged.
_MERGING_NBYTES = 20 * 2**20

# Channels are counted in groups of so many dense counters.
_GROUP_BITS = 20


def occupied_buckets(n_values: int, *, bits: int, is_signed: bool = True) -> int:
    """Return how many buckets so many values occupy at most, if they spread like a bell curve.

    Parameters
    ----------
    n_values : int
        Values that are not zero.
    bits : int
        Resolution, see `SketchSpec.bits`.
    is_signed : bool, default=True
        Whether they are of both signs.
    """
    per_octave = 1 << (bits - _SIGN_AND_EXPONENT_BITS)
    n_octaves = max(0.0, math.log2(max(1, n_values) / per_octave)) + _MORE_OCTAVES
    return min(n_values, 1 << bits, int((1 + is_signed) * per_octave * n_octaves))


def counter_bits(spec: SketchSpec) -> int:
    """Return the binary logarithm of the dense counters of one thread."""
    return max(spec.bits, _GROUP_BITS, spec.channel_bits) if spec.per_channel else spec.bits


def records_nbytes(
    points: Sequence[PointSpec], spec: SketchSpec, *, block_samples: int, n_samples: int, n_chunks: int
) -> int:
    """Return what the commit records of all blocks and the cache's documents take on disk, in bytes."""
    n_blocks = -(-n_samples // block_samples)
    last = n_samples - (n_blocks - 1) * block_samples
    return (
        _DOCUMENTS_NBYTES * (1 + len(points))
        + _STORED_CHUNK_NBYTES * n_chunks
        + (n_blocks - 1) * _record_nbytes(points, spec, block_samples)
        + _record_nbytes(points, spec, last)
    )


def open_block_nbytes(
    points: Sequence[PointSpec], spec: SketchSpec, *, block_samples: int, slab_samples: int
) -> int:
    """Return the memory of the sketches of a block while it is recorded, in bytes."""
    kept = [_kept_nbytes(point, spec, block_samples) for point in points]
    # Sketches of one update have nothing to add up.
    n_slabs = -(-block_samples // slab_samples)
    in_parts = [
        nbytes
        for nbytes, point in zip(kept, points, strict=True)
        if n_slabs > 1 or slab_samples * point.n_values * 4 > JOINED_NBYTES
    ]
    # Adding channels up widens them, before and after.
    widened = sorted(_buckets(point, spec, block_samples)[2] for point in points)[-RECORDING_THREADS:]
    sketched = sum(kept) + min(UNMERGED_NBYTES, 15 * sum(in_parts)) + 2 * _BUCKET_NBYTES * sum(widened)
    # Sketches are let go as they are packed, then the record is put together from what they were packed to.
    return max(sketched, 2 * _record_nbytes(points, spec, block_samples))


def merged_nbytes(
    points: Sequence[PointSpec], spec: SketchSpec, *, block_samples: int, n_samples: int
) -> int:
    """Return the memory of merging the sketches of all blocks and of asking them, in bytes."""
    n_blocks, seen = -(-n_samples // block_samples), min(n_samples, _MANY_SAMPLES)
    block_samples = min(block_samples, n_samples)
    asked = sum(_kept_nbytes(point, spec, seen, bucket=_ASKED_BUCKET_NBYTES) for point in points)
    record = _record_nbytes(points, spec, block_samples)
    largest = UNPACKED_PER_BYTE * max(_stored_nbytes(point, spec, block_samples) for point in points)
    unpacked = min(max(UNPACKED_NBYTES, largest), n_blocks * largest)
    widened = 2 * _BUCKET_NBYTES * max(_buckets(point, spec, seen)[2] for point in points)
    # The record that is read is there whole and in parts, beside those that wait.
    read = min(WAITING_NBYTES, n_blocks * record) + 2 * record
    return asked + read + unpacked + widened + _MERGING_NBYTES


def _record_nbytes(points: Sequence[PointSpec], spec: SketchSpec, n_samples: int) -> int:
    return _STORED_RECORD_NBYTES + sum(_stored_nbytes(point, spec, n_samples) for point in points)


def _kept_nbytes(point: PointSpec, spec: SketchSpec, n_samples: int, *, bucket: int = _BUCKET_NBYTES) -> int:
    layer, maxima, channels = _buckets(point, spec, n_samples)
    return (layer + maxima) * bucket + channels * _CHANNEL_BUCKET_NBYTES


def _stored_nbytes(point: PointSpec, spec: SketchSpec, n_samples: int) -> int:
    layer, maxima, channels = _buckets(point, spec, n_samples)
    n_channels = n_channels_of(point) if spec.per_channel else 0
    return (
        (layer + maxima) * _per_stored_bucket(spec.bits)
        + channels * _per_stored_bucket(spec.channel_bits)
        + n_channels * _STORED_CHANNEL_NBYTES
        + _STORED_POINT_NBYTES
        + len(point.name.encode())
    )


def _per_stored_bucket(bits: int) -> int:
    return next(nbytes for least, nbytes in _STORED_BUCKET_NBYTES if bits >= least)


def _buckets(point: PointSpec, spec: SketchSpec, n_samples: int) -> tuple[int, int, int]:
    """Return the occupied buckets of a point: of its values, of the maxima of its samples, of all its channels."""
    is_signed = point.meta.get("activation") not in ("relu", "relu6")
    n_values = min(n_samples * point.n_values, _MANY_VALUES)
    layer = occupied_buckets(n_values, bits=spec.bits, is_signed=is_signed)
    maxima = occupied_buckets(n_samples, bits=spec.bits, is_signed=is_signed)
    if not spec.per_channel:
        return layer, maxima, 0
    n_channels = n_channels_of(point)
    of_channel = occupied_buckets(-(-n_values // n_channels), bits=spec.channel_bits, is_signed=is_signed)
    return layer, maxima, n_channels * of_channel
