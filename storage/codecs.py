"""Turn a chunk of values into the bytes that Zarr v3 specifies, and back.

Knows arrays and bytes only. Chunks are encoded here and not by zarr-python, so that one pass over the bytes gives
the checksum for both Zarr's ``crc32c`` codec and the commit record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from .errors import FormatError

__all__ = ["BLOSC_LEVEL", "CODECS", "DEFAULT_CODEC", "Encoded", "crc32c", "decode", "encode"]

_TRAILER_NBYTES = 4


CODECS: Mapping[str, Literal["lz4", "zstd"] | None] = {"none": None, "lz4": "lz4", "zstd": "zstd"}
"""Blosc's compressor of each codec, or None. Each codec is followed by Zarr's ``crc32c``.

Measured in ``storage/README.md``. A bit shuffle stored more bytes than a byte shuffle where many values are zero.
"""

BLOSC_LEVEL = 1

DEFAULT_CODEC = "none"


@dataclass(frozen=True, slots=True)
class Encoded:
    """One chunk as it is stored."""

    parts: tuple[NDArray[np.uint8] | bytes, ...]
    """Buffers to write one after the other; the last one is the checksum of the others."""
    nbytes: int
    """Length of all parts together."""
    crc: int
    """CRC-32C of what stands before the trailer."""


def crc32c(buffer: Any) -> int:
    """Return the CRC-32C of a buffer."""
    # The C extension takes bytes and arrays, no memoryviews; np.frombuffer copies nothing.
    return int(google_crc32c.value(buffer if isinstance(buffer, bytes) else np.frombuffer(buffer, np.uint8)))


def encode(values: NDArray[Any], codec: str) -> Encoded:
    """Return a whole chunk as stored bytes.

    Parameters
    ----------
    values : ndarray
        A whole chunk, in the stored dtype, C-contiguous. Not copied by codec ``none``: write it before
        it changes.
    codec : str
        One of `CODECS`.
    """
    values = values.astype(values.dtype.newbyteorder("<"), copy=False)
    body: NDArray[np.uint8] | bytes = values.reshape(-1).view(np.uint8)
    if (compressor := CODECS[codec]) is not None:
        from numcodecs.blosc import SHUFFLE, Blosc

        blosc = Blosc(cname=compressor, clevel=BLOSC_LEVEL, shuffle=SHUFFLE)
        body = bytes(blosc.encode(values.reshape(-1)))
    crc = crc32c(body)
    return Encoded((body, crc.to_bytes(_TRAILER_NBYTES, "little")), len(body) + _TRAILER_NBYTES, crc)


def decode(
    stored: bytes | memoryview, *, shape: tuple[int, ...], dtype: str, codec: str, is_checked: bool = False
) -> NDArray[Any]:
    """Return the values of a chunk; the array may share memory with `stored` and be read-only.

    ``is_checked``: the checksum was found right.

    Raises
    ------
    FormatError
        If the length or the checksum is wrong.
    """
    if len(stored) < _TRAILER_NBYTES:
        raise FormatError(f"{len(stored)} bytes are too few for a chunk")
    body = memoryview(stored)[:-_TRAILER_NBYTES]
    if not is_checked and crc32c(body) != int.from_bytes(stored[-_TRAILER_NBYTES:], "little"):
        raise FormatError("the checksum of the chunk is wrong")
    if CODECS[codec] is not None:
        from numcodecs.blosc import Blosc

        try:
            body = memoryview(Blosc().decode(body))
        except RuntimeError as error:
            raise FormatError(f"the chunk cannot be decompressed: {error}") from error
    values = np.frombuffer(body, np.dtype(dtype).newbyteorder("<"))
    if values.size != int(np.prod(shape)):
        raise FormatError(f"the chunk holds {values.size} values, {int(np.prod(shape))} were expected")
    return values.reshape(shape)
