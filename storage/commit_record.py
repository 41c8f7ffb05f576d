"""Encode the record that commits a block: what was stored, how to check it, and the block's sketches.

Knows bytes. Does not know where records are kept, nor what a sketch means.

A record is one object, written last::

    prefix, 80 bytes   magic, version, block, sizes, the cache's hash, CRC-32C of the prefix
    header, JSON       per point: length and CRC-32C of each chunk, place and CRC-32C of the sketch; facts
    CRC-32C of the header, 4 bytes
    sketches           one after the other

The prefix alone tells whether the record belongs here and has its whole length, so that thousands are
scanned without reading a sketch.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .codecs import crc32c
from .errors import FormatError
from .parsing import LARGEST_NBYTES, parse_json
from .spec import MOST_BLOCK_SAMPLES, Block
from .typed import items, table, whole

__all__ = ["PREFIX_NBYTES", "RECORD_VERSION", "ChunkSum", "CommitPrefix", "CommitRecord"]

RECORD_VERSION = 1
_MAGIC = b"ASKBLOCK"
# magic, version, flags, index, start, stop, header bytes, total bytes, first 16 bytes of the cache's hash
_PREFIX = struct.Struct("<8sHHIQQIQ16s")
PREFIX_NBYTES = 80
_CRC = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class ChunkSum:
    """How one stored chunk must look."""

    nbytes: int
    """Length of the stored bytes, with Zarr's trailing checksum."""
    crc: int
    """CRC-32C of the stored bytes without that trailer."""

    def problem(self, stored: bytes | memoryview) -> str | None:
        """Say what is wrong with these bytes, or None if they are what was committed."""
        if len(stored) != self.nbytes:
            return f"has {len(stored)} bytes, {self.nbytes} were committed"
        body = memoryview(stored)[:-4]
        # The trailer is compared too: plain Zarr readers go by it.
        if crc32c(body) != self.crc or int.from_bytes(stored[-4:], "little") != self.crc:
            return "has other bytes than were committed (checksum)"
        return None


@dataclass(frozen=True, slots=True)
class CommitPrefix:
    """The first bytes of a record: enough to know whether the block is committed."""

    block: Block
    header_nbytes: int
    nbytes: int
    """Length of the whole record."""
    cache_hash: bytes
    """`CacheSpec.short_hash`."""

    def encode(self) -> bytes:
        """Return the 80 bytes."""
        block = self.block
        packed = _PREFIX.pack(
            _MAGIC,
            RECORD_VERSION,
            0,
            block.index,
            block.start,
            block.stop,
            self.header_nbytes,
            self.nbytes,
            self.cache_hash,
        )
        packed = packed.ljust(PREFIX_NBYTES - _CRC.size, b"\0")
        return packed + _CRC.pack(crc32c(packed))

    @classmethod
    def decode(cls, stored: bytes) -> CommitPrefix:
        """Return the prefix of a record; FormatError says what is wrong."""
        if len(stored) < PREFIX_NBYTES:
            raise FormatError(f"the record has {len(stored)} bytes, fewer than its prefix")
        magic, version, _, index, start, stop, header_nbytes, nbytes, cache_hash = _PREFIX.unpack_from(stored)
        if magic != _MAGIC:
            raise FormatError("this is not a commit record")
        if (
            crc32c(stored[: PREFIX_NBYTES - _CRC.size])
            != _CRC.unpack_from(stored, PREFIX_NBYTES - _CRC.size)[0]
        ):
            raise FormatError("the prefix of the record is damaged (checksum)")
        if version != RECORD_VERSION:
            raise FormatError(
                f"the record has version {version}, this program reads version {RECORD_VERSION}: "
                "update actisketch"
            )
        if header_nbytes > LARGEST_NBYTES:
            raise FormatError(
                f"the record claims a header of {header_nbytes:,} bytes, at most {LARGEST_NBYTES:,} are read"
            )
        return cls(Block(index, start, stop), header_nbytes, nbytes, cache_hash)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitRecord:
    """One committed block."""

    block: Block
    cache_hash: bytes
    chunks: Mapping[str, tuple[ChunkSum, ...]]
    """The block's chunks of each point, in order along axis 0; empty if activations are not recorded."""
    sketches: Mapping[str, bytes] | None
    """The sketch of each point; None if only the header was read."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """JSON values that the writer kept with the block."""
    head_hash: str = field(default="", compare=False)
    """A hash of prefix and header as stored: it changes with any chunk, sketch or fact. Empty if it was not read."""

    def encode(self) -> bytes:
        """Return the whole record; the same values give the same bytes."""
        if self.sketches is None:
            raise ValueError("a record without its sketches cannot be written")
        points: dict[str, Any] = {}
        offset = 0
        for name, sketch in self.sketches.items():
            chunks = [[chunk.nbytes, chunk.crc] for chunk in self.chunks.get(name, ())]
            points[name] = {"chunks": chunks, "sketch": [offset, len(sketch), crc32c(sketch)]}
            offset += len(sketch)
        document = {"points": points, "facts": dict(self.facts)}
        header = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
        nbytes = PREFIX_NBYTES + len(header) + _CRC.size + offset
        prefix = CommitPrefix(self.block, len(header), nbytes, self.cache_hash).encode()
        return b"".join([prefix, header, _CRC.pack(crc32c(header)), *self.sketches.values()])

    @classmethod
    def decode(cls, stored: bytes, *, with_sketches: bool = True) -> CommitRecord:
        """Return the record; FormatError says what is wrong.

        Parameters
        ----------
        stored : bytes
            The whole record, or at least prefix and header if `with_sketches` is False.
        """
        prefix = CommitPrefix.decode(stored)
        end = PREFIX_NBYTES + prefix.header_nbytes
        header = stored[PREFIX_NBYTES:end]
        if len(stored) < end + _CRC.size or crc32c(header) != _CRC.unpack_from(stored, end)[0]:
            raise FormatError("the header of the record is damaged (checksum)")
        if with_sketches and len(stored) != prefix.nbytes:
            raise FormatError(f"the record has {len(stored)} bytes, {prefix.nbytes} were committed")
        try:
            document = table(parse_json(header), "the header")
        except ValueError as error:  # a FormatError is one
            raise FormatError(f"the header of the record cannot be read: {error}") from None
        points = {
            name: table(point, f"point {name!r}")
            for name, point in table(document.get("points"), "points").items()
        }
        body = memoryview(stored)[end + _CRC.size :]
        return cls(
            block=prefix.block,
            cache_hash=prefix.cache_hash,
            chunks={name: _chunks(point.get("chunks"), name) for name, point in points.items()},
            sketches={name: _slice(body, name, point.get("sketch")) for name, point in points.items()}
            if with_sketches
            else None,
            facts=table(document.get("facts"), "the facts of a record"),
            head_hash=hashlib.blake2b(stored[:end], digest_size=16).hexdigest(),
        )


def _chunks(listed: Any, name: str) -> tuple[ChunkSum, ...]:
    what = f"the chunks of point {name!r}"
    return tuple(
        ChunkSum(*_numbers(each, what, n=2)) for each in items(listed, what, most=MOST_BLOCK_SAMPLES)
    )


def _numbers(listed: Any, what: str, *, n: int) -> list[int]:
    numbers = [whole(number, what) for number in items(listed, what, most=n)]
    if len(numbers) != n:
        raise FormatError(f"{what} has {len(numbers)} numbers instead of {n}")
    return numbers


def _slice(body: memoryview, name: str, place: Any) -> bytes:
    offset, nbytes, crc = _numbers(place, f"the place of the sketch of point {name!r}", n=3)
    sketch = bytes(body[offset : offset + nbytes])
    if crc32c(sketch) != crc:
        raise FormatError(f"the sketch of point {name!r} is damaged (checksum)", point=name)
    return sketch
