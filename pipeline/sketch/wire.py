"""Tallies into bytes and back: versioned and checked, without pickle.

::

    "ASKT" | version u8 | bits u8 | n_channels u32 | n_buckets u64 | packed arrays | crc32 u32

All numbers are little-endian. Equal tallies give equal bytes. Knows tallies. Does not know files.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import FormatError
from .buckets import Buckets
from .compiled import is_worth_compiled
from .packing import GROUP, pack_integers, unpack_integers
from .sketch_spec import MAX_BITS, MIN_BITS
from .tally import Tally

MAGIC = b"ASKT"
VERSION = 1
_HEADER = struct.Struct("<4sBBIQ")
_CHECK = struct.Struct("<I")


def encode_tally(tally: Tally) -> bytes:
    """Return the bytes of a tally."""
    buckets = tally.buckets
    header = _HEADER.pack(MAGIC, VERSION, tally.bits, tally.n_channels, len(buckets))
    whole = [
        pack_integers(array)
        for array in (tally.n_zeros, tally.n_nan, tally.n_inf, tally.min_keys, tally.max_keys)
    ]
    body = [
        *_pack_buckets(buckets, low_bits=tally.low_bits),
        np.packbits(buckets.atoms[_open(buckets.counts, buckets.sums)]).tobytes(),
    ]
    return seal(header + b"".join(whole + body))


def _pack_buckets(buckets: Buckets, *, low_bits: int) -> list[bytes]:
    """Return gaps between ids, counts less one and residues of sums, packed."""
    if not is_worth_compiled(len(buckets), least=GROUP):
        residues = _zigzag(buckets.sums - _expected_sums(buckets.counts, low_bits))
        gaps = np.diff(buckets.ids, prepend=np.uint32(0))
        return [pack_integers(array) for array in (gaps, buckets.counts - 1, residues)]
    from . import adding  # Numba takes half a second to import

    # In one go: arrays in between would take fresh memory, which costs more than the rest.
    widths, packed = np.empty((3, -(-len(buckets) // GROUP)), np.uint8), np.empty(24 * len(buckets), np.uint8)
    ends = adding.pack_buckets(buckets.ids, buckets.counts, buckets.sums, low_bits, GROUP, widths, packed)
    parts = np.split(packed[: ends[2]], ends[:2])
    return [own.tobytes() + part.tobytes() for own, part in zip(widths, parts, strict=True)]


def decode_tally(data: bytes | memoryview, *, is_checked: bool = False) -> Tally:
    """Return the tally that `encode_tally` gave; ``is_checked`` as in `unseal`.

    Raises
    ------
    FormatError
        If the bytes are cut off, damaged, of something else or of a newer version.
    """
    view = unseal(data, magic=MAGIC, version=VERSION, what="a sketch", is_checked=is_checked)
    if len(view) < _HEADER.size:
        raise FormatError(f"a sketch of {len(view)} bytes has no header: the bytes are cut off")
    _, _, bits, n_channels, n_buckets = _HEADER.unpack_from(view)
    if not MIN_BITS <= bits <= MAX_BITS or n_channels << bits > 1 << 32 or n_buckets > n_channels << bits:
        raise FormatError(f"a sketch claims {n_buckets} buckets of {bits} bits: the bytes are damaged")
    rest = view[_HEADER.size :]
    whole: list[NDArray[np.int64]] = []
    for _ in range(5):
        numbers, rest = unpack_integers(rest, n_channels)
        whole.append(numbers.astype(np.int64))
    gaps, rest = unpack_integers(rest, n_buckets)
    counts, rest = unpack_integers(rest, n_buckets)
    residues, rest = unpack_integers(rest, n_buckets)
    buckets = _buckets(gaps, counts.astype(np.int64) + 1, residues, rest, low_bits=32 - bits)
    return Tally(
        bits=bits,
        buckets=buckets,
        n_zeros=whole[0],
        n_nan=whole[1],
        n_inf=whole[2],
        min_keys=whole[3].astype(np.uint32),
        max_keys=whole[4].astype(np.uint32),
    )


def _buckets(
    gaps: NDArray[np.uint64],
    counts: NDArray[np.int64],
    residues: NDArray[np.uint64],
    rest: memoryview,
    *,
    low_bits: int,
) -> Buckets:
    sums = _unzigzag(residues) + _expected_sums(counts, low_bits)
    undecided = _open(counts, sums)
    n_open = int(undecided.sum())
    if len(rest) != -(-n_open // 8):
        raise FormatError(
            f"a sketch has {len(rest)} bytes of flags instead of {-(-n_open // 8)}: it is damaged"
        )
    atoms = counts == 1
    atoms[undecided] = np.unpackbits(np.frombuffer(rest, np.uint8), count=n_open).astype(np.bool_)
    return Buckets(ids=np.cumsum(gaps).astype(np.uint32), counts=counts, sums=sums, atoms=atoms)


def seal(body: bytes) -> bytes:
    """Return ``body`` and its CRC-32."""
    return body + _CHECK.pack(zlib.crc32(body))


def unseal(
    data: bytes | memoryview, *, magic: bytes, version: int, what: str, is_checked: bool = False
) -> memoryview:
    """Return the body of what `seal` gave, after checking its kind, version and, unless that was done, its CRC-32."""
    view = memoryview(data)
    if bytes(view[:4]) != magic:
        raise FormatError(f"these {len(view)} bytes are not {what}: they start with {bytes(view[:4])!r}")
    if len(view) < 5 + _CHECK.size:
        raise FormatError(f"{what} of {len(view)} bytes has no header: the bytes are cut off")
    if view[4] > version:
        raise FormatError(
            f"{what} of format version {view[4]} is newer than this program, which reads up to {version}: "
            "install a newer actisketch",
            version=view[4],
        )
    body = view[: -_CHECK.size]
    if not is_checked and _CHECK.unpack(view[-_CHECK.size :])[0] != zlib.crc32(body):
        raise FormatError(f"{what} of {len(view)} bytes fails its checksum: the bytes are damaged or cut off")
    return body


def _open(counts: NDArray[np.int64], sums: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return where count and sum leave open whether all values of the bucket are the same."""
    return np.asarray((counts > 1) & (sums % counts == 0))


def _expected_sums(counts: NDArray[np.int64], low_bits: int) -> NDArray[np.int64]:
    # Lows are nearly uniform: their difference from the expected sum takes a few bytes less.
    return counts * ((1 << low_bits) - 1) // 2


def _zigzag(numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    return ((numbers << 1) ^ (numbers >> 63)).view(np.uint64)


def _unzigzag(numbers: NDArray[np.uint64]) -> NDArray[np.int64]:
    half = (numbers >> np.uint64(1)).view(np.int64)
    return half ^ -(numbers & np.uint64(1)).view(np.int64)
