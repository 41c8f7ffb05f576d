"""A memory-mapped array as a place in its file, as long as that file is the one that is mapped.

Knows NumPy's memory maps. A map outlives its file: if the file was deleted or replaced, the map is read instead.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .npyfiles import FileColumn
from .states import memory_state

__all__ = ["WritableFileColumn", "file_column"]

_MAPS = Path("/proc/self/maps")


class WritableFileColumn(FileColumn):
    """Rows of a file that is mapped for writing: the file's date may stay the same when a page is written twice."""

    def state(self) -> str | None:
        """Return a hash of every byte."""
        return memory_state(self)


def file_column(array: NDArray[Any]) -> FileColumn | None:
    """Return the place in its file of a memory-mapped array, or of some of its consecutive rows.

    None if it has no file, its path leads to another file, it is copy-on-write (its memory may differ from the file),
    or it is not contiguous.
    """
    if not isinstance(array, np.memmap) or not array.flags.c_contiguous or array.size == 0:
        return None
    filename, mode, mapped = array.filename, array.mode, array._mmap  # type: ignore[attr-defined] # numpy's own
    if filename is None or mode not in ("r", "r+") or mapped is None or not _is_mapped(filename, mapped):
        return None
    # A slice has the offset attribute of the whole array: where it starts follows from the addresses.
    begin = array.offset - array.offset % mmap.ALLOCATIONGRANULARITY
    offset = begin + array.ctypes.data - _address(mapped)
    kind = FileColumn if mode == "r" else WritableFileColumn
    return kind(str(filename), offset=offset, shape=array.shape, dtype=array.dtype, fortran=False)


def _is_mapped(filename: Any, mapped: mmap.mmap) -> bool:
    """Return whether a map is of the file that is at a path now; False where the system cannot say."""
    try:
        with open(filename, "rb") as file, mmap.mmap(file.fileno(), 1, prot=mmap.PROT_READ) as now:
            if os.fstat(file.fileno()).st_size != mapped.size():
                return False
            files = [_file_at(address) for address in (_address(mapped), _address(now))]
            return None not in files and files[0] == files[1]
    except (OSError, ValueError):
        return False


def _file_at(address: int) -> tuple[str, str] | None:
    """Return device and inode of the file that is mapped at an address; None if there is none."""
    # Both come from the same place: on Btrfs and overlays os.stat has other numbers.
    for line in _MAPS.read_text().splitlines():
        place, _, _, device, inode, *_ = line.split(maxsplit=5)
        begin, _, end = place.partition("-")
        if int(begin, 16) <= address < int(end, 16):
            return (device, inode) if inode != "0" else None
    return None


def _address(mapped: mmap.mmap) -> int:
    return int(np.frombuffer(mapped, np.uint8).ctypes.data)
