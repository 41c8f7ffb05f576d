"""Occupied buckets of a histogram of float patterns, sparse and in order.

Knows integers. Does not know channels, extremes or how buckets were counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Buckets:
    """Occupied buckets in ascending order, zeros apart.

    ``ids`` are ``channel << bits | bucket``. All arrays have the shape (n_buckets,).
    """

    ids: NDArray[np.uint32]
    counts: NDArray[np.int64]
    """Values in the bucket, at least 1."""
    sums: NDArray[np.int64]
    """Exact sum of the lows (the key's ``32 - bits`` lower bits) of these values."""
    atoms: NDArray[np.bool_]
    """True where all values of the bucket are the same number, which is then known exactly."""

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return self.ids.nbytes + self.counts.nbytes + self.sums.nbytes + self.atoms.nbytes

    def __len__(self) -> int:
        return int(self.ids.size)

    def same(self, other: Buckets) -> bool:
        """Return whether two are equal in every number."""
        names = ("ids", "counts", "sums", "atoms")
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in names)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CompactBuckets:
    """Buckets in the narrowest integers that can hold them: 8 to 17 bytes each instead of 21."""

    tails: NDArray[np.unsignedinteger[Any]]
    """Ids without the channel."""
    starts: NDArray[np.int64]
    """Where each channel begins, of shape (n_channels + 1,)."""
    counts: NDArray[np.unsignedinteger[Any]]
    sums: NDArray[np.unsignedinteger[Any]]
    flags: NDArray[np.uint8]
    """Atoms, 8 in a byte."""

    @classmethod
    def of(cls, buckets: Buckets, *, bits: int, starts: NDArray[np.int64]) -> CompactBuckets:
        """Return ``buckets``, which may then be forgotten."""
        return cls(
            tails=_narrow(buckets.ids & np.uint32((1 << bits) - 1)),
            starts=starts,
            counts=_narrow(buckets.counts),
            sums=_narrow(buckets.sums),
            flags=np.packbits(buckets.atoms),
        )

    def expand(self, *, bits: int) -> Buckets:
        """Return the buckets that `of` got."""
        sizes = np.diff(self.starts)
        channels = np.repeat(np.arange(sizes.size, dtype=np.uint32) << np.uint32(bits), sizes)
        return Buckets(
            ids=np.bitwise_or(channels, self.tails.astype(np.uint32), dtype=np.uint32),
            counts=self.counts.astype(np.int64),
            sums=self.sums.astype(np.int64),
            atoms=np.unpackbits(self.flags, count=self.tails.size).astype(np.bool_),
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(a.nbytes for a in (self.tails, self.starts, self.counts, self.sums, self.flags))


def _narrow(numbers: NDArray[Any]) -> NDArray[np.unsignedinteger[Any]]:
    largest = int(numbers.max(initial=0))
    return numbers.astype(np.min_scalar_type(largest))


def empty_buckets() -> Buckets:
    """Return buckets of no values."""
    return Buckets(
        ids=np.empty(0, np.uint32),
        counts=np.empty(0, np.int64),
        sums=np.empty(0, np.int64),
        atoms=np.empty(0, np.bool_),
    )


def join_buckets(parts: Sequence[Buckets]) -> Buckets:
    """Return the buckets of parts whose ids already follow each other."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return empty_buckets()
    return Buckets(
        ids=np.concatenate([part.ids for part in parts]),
        counts=np.concatenate([part.counts for part in parts]),
        sums=np.concatenate([part.sums for part in parts]),
        atoms=np.concatenate([part.atoms for part in parts]),
    )


def buckets_of_sorted(keys: NDArray[np.uint32] | NDArray[np.uint64], *, low_bits: int) -> Buckets:
    """Return the buckets of sorted non-zero keys (``channel << 32 | key`` for several channels)."""
    if not keys.size:
        return empty_buckets()
    ids = (keys >> keys.dtype.type(low_bits)).astype(np.uint32)
    starts = np.flatnonzero(np.concatenate(([True], ids[1:] != ids[:-1])))
    ends = np.concatenate((starts[1:], [keys.size]))
    lows = (keys & keys.dtype.type((1 << low_bits) - 1)).astype(np.int64)
    return Buckets(
        ids=ids[starts],
        counts=(ends - starts).astype(np.int64),
        sums=np.add.reduceat(lows, starts, dtype=np.int64),
        atoms=keys[starts] == keys[ends - 1],
    )
