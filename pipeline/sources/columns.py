"""One array along the axis of samples, wherever it is: in memory, in a mapped file, in zarr, in dask.

Knows arrays. Does not know which of them are inputs and which are labels.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import InputError
from .mapped import file_column
from .preprocessing import is_float
from .states import combined, file_state, memory_state, tree_state
from .texts import TextColumn, as_texts, is_text

__all__ = ["ArrayColumn", "Column", "LazyColumn", "as_column", "check_column", "unmasked"]

# The chunks of a lazy array are kept while they are read through. Larger chunks are read in part, several times: that
# is slower, but the memory is bounded.
WINDOW_NBYTES = 256 * 2**20


class Column(Protocol):
    """An array whose first axis counts samples."""

    @property
    def shape(self) -> tuple[int, ...]:
        """With the axis of samples."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values."""
        ...

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return rows; a view where that is free."""
        ...

    def state(self) -> str | None:
        """Return what tells cheaply whether the values have changed; see :mod:`.states`."""
        ...


class ArrayColumn:
    """An array in memory, or one that the operating system maps."""

    in_memory = True

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array
        self.shape: tuple[int, ...] = array.shape
        self.dtype = array.dtype

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return rows as a read-only view."""
        view = self._array[start:stop]
        view.flags.writeable = False
        return view

    def state(self) -> str | None:
        """Return a hash of every byte."""
        return memory_state(self)


class LazyColumn:
    """A zarr or dask array. The chunks that were read last are kept: reading forward reads each once.

    They are let go when the state is asked for, and it is another or unknown: what is read after that is never older.
    A local array that is read from its start is read anew: a walk through 20,000 chunks for their state takes 0.9 s.
    """

    def __init__(self, array: Any, *, chunk_rows: int) -> None:
        self._array = array
        self.shape: tuple[int, ...] = tuple(int(axis) for axis in array.shape)
        self.dtype = np.dtype(array.dtype)
        row_nbytes = int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize
        fits = chunk_rows * row_nbytes <= WINDOW_NBYTES
        self._chunk_rows = max(1, chunk_rows) if fits else 1
        self._window: tuple[int, int, NDArray[Any] | None] = (0, 0, None)
        self._state: str | None = None
        """The one that was asked for last: from before the window was read, or unknown."""
        self._lock = threading.Lock()

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return rows; whole chunks are read, and the last one is kept."""
        if self._chunk_rows == 1:
            return self._load(start, stop)
        with self._lock:
            if start == 0 and self._place() is not None:
                self._window = (0, 0, None)
            begin, end, kept = self._window
            if kept is not None and begin <= start and stop <= end:
                return kept[start - begin : stop - begin]
            parts = []
            at = start
            if kept is not None and begin <= start < end:
                parts.append(kept[start - begin :])
                at = end
            first = at // self._chunk_rows * self._chunk_rows
            last = min(-(-stop // self._chunk_rows) * self._chunk_rows, self.shape[0])
            loaded = self._load(first, last)
            parts.append(loaded[at - first : stop - first])
            tail = (last - 1) // self._chunk_rows * self._chunk_rows
            # A copy, so that the memory of the chunks before the last one is freed.
            self._window = (max(tail, first), last, loaded[max(tail, first) - first :].copy())
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def state(self) -> str | None:
        """Return the state of the files of a local zarr array; None for computed values and remote stores."""
        with self._lock:
            state = self._state_now()
            if state is None or state != self._state:
                self._window = (0, 0, None)
            self._state = state
            return state

    def _state_now(self) -> str | None:
        place = self._place()
        if place is None:
            return None
        path = self._array.path
        archive = getattr(self._array.store, "_zf", None)
        if archive is not None and archive.fp is not None:
            # What is read is the file that zarr holds open, whatever is at its path now.
            return combined([str(path), combined([file_state(os.fstat(archive.fp.fileno()))])])
        return combined([str(path), tree_state(place / path if place.is_dir() else place)])

    def gaps(self) -> str | None:
        """Return in words how many chunks of a local zarr array are missing: zarr gives the fill value for them."""
        if self._place() is None:
            return None
        n_chunks, n_stored = self._array.nchunks, self._array.nchunks_initialized
        if n_stored >= n_chunks:
            return None
        return (
            f"{n_chunks - n_stored:,} of {n_chunks:,} chunks of the zarr array {self._array.name or ''!r} are "
            f"not stored and are read as {self._array.fill_value!s}: write them again if they were lost"
        )

    def _place(self) -> Path | None:
        store = getattr(self._array, "store", None)
        place = getattr(store, "root", None) or getattr(store, "path", None)
        return Path(place) if isinstance(place, str | Path) and Path(place).exists() else None

    def _load(self, start: int, stop: int) -> NDArray[Any]:
        part = self._array[start:stop]
        if hasattr(part, "compute"):
            # Threads of this process, whatever Dask client is the default: a worker that asked its own
            # scheduler for input would wait for itself.
            part = part.compute(scheduler="threads")
        return unmasked(part, "a chunk of the array")

    def __getstate__(self) -> dict[str, Any]:
        return {"array": self._array, "chunk_rows": self._chunk_rows}

    def __setstate__(self, state: dict[str, Any]) -> None:
        LazyColumn.__init__(self, state["array"], chunk_rows=state["chunk_rows"])


def as_column(array: Any, origin: str) -> Column:
    """Return a column over a numpy array, memory map, zarr array, dask array or array-like of numbers.

    Raises
    ------
    InputError
        If it holds objects, has no axis of samples, or its length is unknown.
    """
    module = type(array).__module__.partition(".")[0]
    if module == "dask":
        column = _dask_column(array, origin)
    elif module == "zarr":
        if not hasattr(array, "dtype"):
            raise InputError(
                f"{origin} is a zarr group with {sorted(array.array_keys())}: name one of its arrays"
            )
        chunks = getattr(array, "shards", None) or array.chunks
        column = LazyColumn(array, chunk_rows=chunks[0] if chunks else 1)
    elif hasattr(array, "__array__"):
        values = unmasked(array, origin)
        column = file_column(values) or ArrayColumn(values)
    else:
        raise InputError(
            f"{origin} is a {type(array).__name__}, not an array: convert it with numpy.asarray first"
        )
    return check_column(column, origin)


def check_column(column: Column, origin: str) -> Column:
    """Return the column if it holds numbers or texts along an axis of samples.

    Raises
    ------
    InputError
        With the shape or type that was found.
    """
    dtype = column.dtype
    if dtype.kind == "O" and not isinstance(column, ArrayColumn | LazyColumn | TextColumn):
        raise InputError(
            f"{origin} holds Python objects, which are never unpickled: save an array of numbers, or of texts "
            "(x.astype(str)), all samples of one shape"
        )
    if not (dtype.kind in "fiub" or is_float(dtype) or is_text(dtype)):
        raise InputError(f"{origin} has dtype {dtype}, which no network takes: convert it to float32")
    if not column.shape:
        raise InputError(f"{origin} is a single number: an array of shape (n_samples, ...) is needed")
    if column.shape[0] == 0 or 0 in column.shape:
        raise InputError(f"{origin} is empty, of shape {column.shape}: at least one sample is needed")
    if not is_text(dtype) or isinstance(column, TextColumn):
        return column
    if isinstance(column, ArrayColumn) and dtype.kind == "O":
        as_texts(column.read(0, column.shape[0]), origin)  # refused now, not after hours
    return TextColumn(column, origin)


def unmasked(values: Any, origin: str) -> NDArray[Any]:
    """Return an array as ``numpy.ndarray``; of a masked array the values, if none is masked.

    Raises
    ------
    InputError
        If some are: only the user can say what should stand there.
    """
    if isinstance(values, np.ma.MaskedArray):
        n_masked = int(np.count_nonzero(np.ma.getmaskarray(values)))
        if n_masked:
            raise InputError(
                f"{origin} has {n_masked:,} masked values of {values.size:,}: fill them with numpy.ma.filled(x, 0), "
                "or leave those samples out"
            )
        data: NDArray[Any] = values.data
        return data
    return values if isinstance(values, np.ndarray) else np.asarray(values)


def _dask_column(array: Any, origin: str) -> Column:
    if not hasattr(array, "chunks") or not hasattr(array, "dtype"):
        raise InputError(
            f"{origin} is a {type(array).__name__}: use its array, as `frame.to_dask_array(lengths=True)`"
        )
    if any(axis != axis for axis in array.shape):  # unknown lengths are NaN in dask
        raise InputError(
            f"{origin} is a dask array of unknown length: call `.compute_chunk_sizes()` on it first"
        )
    return LazyColumn(array, chunk_rows=int(max(array.chunks[0], default=1)) if array.ndim else 1)
