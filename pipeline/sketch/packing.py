"""Integer arrays into few bytes and back.

Each group of 64 neighbours takes as many whole bytes a number as its largest needs. Counts of neighbouring buckets are
alike, and one large count widens only its group.

::

    width of each group u8 | numbers of the first group | of the second | ... | of the last, which may be shorter

Knows arrays of unsigned integers. Does not know what they mean.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import FormatError
from .compiled import is_worth_compiled

GROUP = 64
"""Neighbours that share a width: at 64 the widths cost 1/64 byte a number."""


def pack_integers(numbers: NDArray[Any]) -> bytes:
    """Return whole numbers >= 0 as bytes."""
    size = numbers.size
    if not size:
        return b""
    if is_worth_compiled(size, least=0):
        from . import adding  # Numba takes half a second to import

        widths, packed = np.empty(-(-size // GROUP), np.uint8), np.empty(8 * size, np.uint8)
        total = adding.pack_groups(numbers.astype(np.uint64, copy=False), GROUP, widths, packed)
        return widths.tobytes() + packed[:total].tobytes()
    return scatter_groups(numbers)


def scatter_groups(numbers: NDArray[Any]) -> bytes:
    """Return what `pack_integers` does, in numpy."""
    size = numbers.size
    padded = np.zeros(-(-size // GROUP) * GROUP, "<u8")
    padded[:size] = numbers
    groups = padded.reshape(-1, GROUP)
    widths = _byte_widths(groups.max(axis=1))
    offsets, total = _offsets(widths, size)
    planes = groups.view(np.uint8).reshape(-1, GROUP, 8)
    packed = np.empty(int(offsets[-1]) + GROUP * int(widths[-1]), np.uint8)
    for width in np.unique(widths[widths > 0]).tolist():
        chosen = np.flatnonzero(widths == width)
        places = offsets[chosen, None] + np.arange(GROUP * width)
        packed[places] = planes[chosen, :, :width].reshape(chosen.size, -1)
    return widths.tobytes() + packed[:total].tobytes()


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
    if widths.max() > 8:
        raise FormatError(f"a sketch names a number of {int(widths.max())} bytes: the bytes are damaged")
    total = GROUP * int(widths.sum(dtype=np.int64)) - (GROUP * n_groups - size) * int(widths[-1])
    body = np.frombuffer(_take(packed[n_groups:], total), np.uint8)
    if is_worth_compiled(size, least=0):
        from . import adding  # Numba takes half a second to import

        numbers = np.empty(size, np.uint64)
        adding.unpack_groups(widths, body, GROUP, numbers)
    else:
        numbers = gather_groups(widths, _offsets(widths, size)[0], body)[:size]
    return numbers, packed[n_groups + total :]


def gather_groups(
    widths: NDArray[np.uint8], offsets: NDArray[np.int64], body: NDArray[np.uint8]
) -> NDArray[np.uint64]:
    """Return the numbers of all groups; what fills up the last one has no meaning."""
    planes = np.zeros((widths.size, GROUP, 8), np.uint8)
    for width in np.unique(widths[widths > 0]).tolist():
        chosen = np.flatnonzero(widths == width)
        places = offsets[chosen, None] + np.arange(GROUP * width)
        planes[chosen, :, :width] = body.take(places, mode="clip").reshape(chosen.size, GROUP, width)
    return planes.view("<u8").reshape(-1).astype(np.uint64, copy=False)


def _offsets(widths: NDArray[np.uint8], size: int) -> tuple[NDArray[np.int64], int]:
    """Return where each group begins, and where the last one, of the rest of ``size``, ends."""
    ends = np.cumsum(widths.astype(np.int64) * GROUP)
    missing = widths.size * GROUP - size
    return ends - widths.astype(np.int64) * GROUP, int(ends[-1]) - missing * int(widths[-1])


def _take(packed: memoryview, n_bytes: int) -> memoryview:
    if len(packed) < n_bytes:
        raise FormatError(f"a sketch ends {n_bytes - len(packed)} bytes too early: the bytes are cut off")
    return packed[:n_bytes]


def _byte_widths(largest: NDArray[np.uint64]) -> NDArray[np.uint8]:
    edges = np.array([1 << (8 * width) for width in range(8)], np.uint64)
    return np.searchsorted(edges, largest, side="right").astype(np.uint8)
