"""Counts of values by bucket, for one or many channels, and their merge.

Every sketch consists of tallies: integers only, in one canonical order, so that equal data give equal
tallies however they were split. Knows numbers. Does not know arrays of activations or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import InputError
from . import bits as fb
from .bucket_merge import merge_buckets
from .buckets import Buckets, CompactBuckets, empty_buckets, join_buckets

TOTAL_BITS = 62
"""Sums of lows stay below ``2**TOTAL_BITS``: in int64 there is room for one more addition."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tally:
    """Everything a sketch knows, as integers. Per-channel arrays have the shape (n_channels,)."""

    bits: int
    buckets: Buckets
    n_zeros: NDArray[np.int64]
    n_nan: NDArray[np.int64]
    n_inf: NDArray[np.int64]
    min_keys: NDArray[np.uint32]
    """Key of the smallest non-zero value; `bits.EMPTY_MIN_KEY` where there is none."""
    max_keys: NDArray[np.uint32]
    """Key of the largest non-zero value; `bits.EMPTY_MAX_KEY` where there is none."""

    @property
    def n_channels(self) -> int:
        """Number of channels; 1 for a layer."""
        return int(self.n_zeros.size)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return self.buckets.nbytes + 32 * self.n_channels

    @property
    def n_values(self) -> int:
        """Number of all values, NaN and infinities included."""
        return int(self.buckets.counts.sum()) + int((self.n_zeros + self.n_nan + self.n_inf).sum())

    @property
    def low_bits(self) -> int:
        """Number of bits of a key below its bucket."""
        return 32 - self.bits

    @property
    def starts(self) -> NDArray[np.intp]:
        """Where each channel begins in the buckets, of shape (n_channels + 1,)."""
        edges = np.arange(self.n_channels + 1, dtype=np.uint64) << np.uint64(self.bits)
        return np.searchsorted(self.buckets.ids, edges)

    def n_nonzero(self) -> NDArray[np.int64]:
        """Return the number of finite non-zero values of each channel, of shape (n_channels,)."""
        cumulative = np.concatenate(([0], np.cumsum(self.buckets.counts)))
        return np.diff(cumulative[self.starts])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CompactTally:
    """A tally in less memory, kept between updates."""

    rest: Tally
    """The tally without its buckets."""
    buckets: CompactBuckets

    @classmethod
    def of(cls, tally: Tally) -> CompactTally:
        """Return ``tally``, which may then be forgotten."""
        buckets = CompactBuckets.of(tally.buckets, bits=tally.bits, starts=tally.starts)
        return cls(rest=replace(tally, buckets=empty_buckets()), buckets=buckets)

    def expand(self) -> Tally:
        """Return the tally that `of` got."""
        return replace(self.rest, buckets=self.buckets.expand(bits=self.rest.bits))

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return self.buckets.nbytes + 32 * self.rest.n_channels


def empty_tally(bits: int, n_channels: int = 1) -> Tally:
    """Return the tally of no values, the neutral element of `merge_tallies`."""
    if n_channels << bits > 1 << 32:
        raise InputError(
            f"{n_channels} channels at {bits} bits are more than 2**32 buckets: "
            f"use channel_bits={max(12, 32 - (n_channels - 1).bit_length())}, or sketch the layer as a whole",
            n_channels=n_channels,
        )
    return Tally(
        bits=bits,
        buckets=empty_buckets(),
        n_zeros=np.zeros(n_channels, np.int64),
        n_nan=np.zeros(n_channels, np.int64),
        n_inf=np.zeros(n_channels, np.int64),
        min_keys=np.full(n_channels, fb.EMPTY_MIN_KEY, np.uint32),
        max_keys=np.full(n_channels, fb.EMPTY_MAX_KEY, np.uint32),
    )


def merge_tallies(tallies: Sequence[Tally]) -> Tally:
    """Return the tally of all values of several tallies, in any order the same.

    Raises
    ------
    InputError
        If resolutions or channel counts differ, or the counts would no longer fit 64 bits.
    """
    first = tallies[0]
    for other in tallies[1:]:
        if other.bits != first.bits:
            raise InputError(
                f"cannot merge a sketch of {other.bits} bits into one of {first.bits}: sketch with one resolution",
                bits=(first.bits, other.bits),
            )
        if other.n_channels != first.n_channels:
            raise InputError(
                f"cannot merge a sketch of {other.n_channels} channels into one of {first.n_channels}: "
                "are they of the same point?",
                n_channels=(first.n_channels, other.n_channels),
            )
    tallies = [tally for tally in tallies if not _is_empty(tally)]
    if len(tallies) <= 1:
        return tallies[0] if tallies else first
    _refuse_overflow(tallies)
    return Tally(
        bits=first.bits,
        buckets=merge_buckets([tally.buckets for tally in tallies]),
        n_zeros=np.sum([tally.n_zeros for tally in tallies], axis=0),
        n_nan=np.sum([tally.n_nan for tally in tallies], axis=0),
        n_inf=np.sum([tally.n_inf for tally in tallies], axis=0),
        min_keys=np.min([tally.min_keys for tally in tallies], axis=0),
        max_keys=np.max([tally.max_keys for tally in tallies], axis=0),
    )


def _is_empty(tally: Tally) -> bool:
    return not (len(tally.buckets) or tally.n_zeros.any() or tally.n_nan.any() or tally.n_inf.any())


def _refuse_overflow(tallies: Sequence[Tally]) -> None:
    total = sum(tally.n_values for tally in tallies)
    allowed = 1 << (TOTAL_BITS - tallies[0].low_bits)
    if total > allowed:
        raise InputError(
            f"a sketch of {tallies[0].bits} bits counts at most {allowed} values, these would be {total}: "
            "use more bits or keep the parts apart",
            n=total,
            allowed=allowed,
        )


def join_channels(tallies: Sequence[Tally]) -> Tally:
    """Return the tally of all channels of several tallies, one after the other."""
    if len(tallies) == 1:
        return tallies[0]
    bits = tallies[0].bits
    firsts = np.cumsum([0, *(tally.n_channels for tally in tallies)])
    moved = [
        replace(tally.buckets, ids=tally.buckets.ids + np.uint32(first << bits))
        for tally, first in zip(tallies, firsts.tolist(), strict=False)
    ]
    return Tally(
        bits=bits,
        buckets=join_buckets(moved),
        n_zeros=np.concatenate([tally.n_zeros for tally in tallies]),
        n_nan=np.concatenate([tally.n_nan for tally in tallies]),
        n_inf=np.concatenate([tally.n_inf for tally in tallies]),
        min_keys=np.concatenate([tally.min_keys for tally in tallies]),
        max_keys=np.concatenate([tally.max_keys for tally in tallies]),
    )


def part_of_channels(tally: Tally, first: int, last: int) -> Tally:
    """Return the tally of the channels from ``first`` to ``last`` (excluded)."""
    own = slice(first, last)
    part = slice(*tally.starts[[first, min(last, tally.n_channels)]].tolist())
    buckets = tally.buckets
    return Tally(
        bits=tally.bits,
        buckets=Buckets(
            ids=buckets.ids[part] - np.uint32(first << tally.bits),
            counts=buckets.counts[part],
            sums=buckets.sums[part],
            atoms=buckets.atoms[part],
        ),
        n_zeros=tally.n_zeros[own],
        n_nan=tally.n_nan[own],
        n_inf=tally.n_inf[own],
        min_keys=tally.min_keys[own],
        max_keys=tally.max_keys[own],
    )


def same_tally(one: Tally, other: Tally) -> bool:
    """Return whether two tallies are equal in every number."""
    if one.bits != other.bits or one.n_channels != other.n_channels or len(one.buckets) != len(other.buckets):
        return False
    names = ("n_zeros", "n_nan", "n_inf", "min_keys", "max_keys")
    same = all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)
    return same and one.buckets.same(other.buckets)
