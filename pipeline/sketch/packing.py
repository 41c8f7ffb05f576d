"""Integer arrays into few bytes and back.

Groups of 64 neighbours are stored with as many whole bytes as the largest of them needs: counts
of neighbouring buckets are alike, so one large count widens only its group. Knows arrays of
unsigned integers. Does not know what they mean.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import FormatError

GROUP = 64
"""Neighbours that share a width: at 64 the widths cost 1/64 byte a number."""


def pack_integers(numbers: NDArray[Any]) -> bytes:
    """Return whole numbers >= 0 as bytes: a width for each group, then the groups of width 1, of width 2, ..."""
    size = numbers.size
    if not size:
        return b""
    n_groups = -(-size // GROUP)
    padded = np.zeros(n_groups * GROUP, "<u8")
    padded[:size] = numbers
    groups = padded.reshape(n_groups, GROUP)
    widths = _byte_widths(groups.max(axis=1))
    planes = groups.view(np.uint8).reshape(n_groups, GROUP, 8)
    parts = [widths.tobytes()]
    for width in range(1, 9):
        chosen = np.flatnonzero(widths == width)
        if chosen.size:
            parts.append(planes[chosen, :, :width].tobytes())
    return b"".join(parts)


def unpack_integers(packed: memoryview, size: int) -> tuple[NDArray[np.uint64], memoryview]:
    """Return ``size`` numbers that `pack_integers` gave, and the bytes after them.

    Raises
    ------
    FormatError
        If the bytes end too early or name impossible widths.
    """
    if not size:
        return np.empty(0, np.uint64), packed
    n_groups = -(-size // GROUP)
    widths = np.frombuffer(_take(packed, n_groups), np.uint8)
    packed = packed[n_groups:]
    present = np.bincount(widths, minlength=9)
    if present.size > 9:
        raise FormatError(f"a sketch names a number of {int(widths.max())} bytes: the bytes are damaged")
    planes = np.zeros((n_groups, GROUP, 8), np.uint8)
    for width in range(1, 9):
        n_chosen = int(present[width])
        if n_chosen:
            n_bytes = n_chosen * GROUP * width
            chunk = np.frombuffer(_take(packed, n_bytes), np.uint8).reshape(n_chosen, GROUP, width)
            packed = packed[n_bytes:]
            if n_chosen == n_groups:
                planes[:, :, :width] = chunk
            else:
                planes[widths == width, :, :width] = chunk
    return planes.view("<u8").reshape(-1)[:size].astype(np.uint64, copy=False), packed


def _take(packed: memoryview, n_bytes: int) -> memoryview:
    if len(packed) < n_bytes:
        raise FormatError(f"a sketch ends {n_bytes - len(packed)} bytes too early: the bytes are cut off")
    return packed[:n_bytes]


def _byte_widths(largest: NDArray[np.uint64]) -> NDArray[np.uint8]:
    edges = np.array([1 << (8 * width) for width in range(8)], np.uint64)
    return np.searchsorted(edges, largest, side="right").astype(np.uint8)
