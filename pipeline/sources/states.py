"""Tell cheaply whether data has changed: of a file by what the file system says, of memory by a hash of every byte.

A state is compared with a remembered one. If they are equal, nothing has changed. If they differ, or one is None
(unknown), the samples themselves have to be compared. A state does not identify data: a copy has another one.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Readable", "combined", "file_state", "files_state", "memory_state", "states_of", "tree_state"]

# A file that has just changed may change again and keep its date: dates have steps of 2 s on FAT, of ticks on Linux.
RECENT_NS = 2_000_000_000
# What a thread hashes at a time, with SHA-256: processors have instructions for it (2 GB/s a core, blake2b 1.3).
_PIECE_NBYTES = 8 * 2**20
_THREADS = 4


class Readable(Protocol):
    """An array along the axis of samples, in memory."""

    @property
    def shape(self) -> tuple[int, ...]:
        """With the axis of samples."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values."""
        ...

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return rows."""
        ...


def combined(states: Iterable[str | None]) -> str | None:
    """Return one state of several, in their order; None if one of them is unknown."""
    parts = list(states)
    return None if None in parts else hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def file_state(at: os.stat_result, *more: Any) -> str | None:
    """Return the state of a file; None if it has just changed. ``more`` says which part of it is meant.

    It has the date of the inode too: programs can set a file's date back (``cp -p``, ``touch -d``), but not that one.
    """
    if time.time_ns() - max(at.st_mtime_ns, at.st_ctime_ns) < RECENT_NS:
        return None
    return json.dumps([at.st_dev, at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns, *more])


def files_state(paths: Iterable[str | Path]) -> str | None:
    """Return the state of files in this order; None if one has just changed, or is missing."""
    try:
        return combined(file_state(os.stat(path)) for path in paths)
    except OSError:
        return None


def tree_state(folder: str | Path) -> str | None:
    """Return the state of all files in a folder, with their names; of a file its own."""
    if os.path.isfile(folder):
        return files_state([folder])
    paths = sorted(os.path.join(root, name) for root, _, names in os.walk(folder) for name in names)
    return combined([json.dumps([os.path.relpath(path, folder) for path in paths]), files_state(paths)])


def memory_state(array: Readable) -> str:
    """Return a hash of every byte of an array, of its type and of its shape."""
    row_nbytes = int(np.prod(array.shape[1:], dtype=np.int64)) * array.dtype.itemsize
    step = max(1, _PIECE_NBYTES // max(row_nbytes, 1))

    def piece(start: int) -> bytes:
        rows = np.ascontiguousarray(array.read(start, min(start + step, array.shape[0])))
        return hashlib.sha256(rows.view(np.uint8).data if rows.size else b"").digest()

    hasher = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="actisketch-hash") as pool:
        for part in pool.map(piece, range(0, array.shape[0], step)):
            hasher.update(part)
    return hasher.hexdigest()


def states_of(parts: Sequence[Any]) -> str | None:
    """Return the state of parts that have one; None if one of them has none."""
    return combined(part.state() if hasattr(part, "state") else None for part in parts)
