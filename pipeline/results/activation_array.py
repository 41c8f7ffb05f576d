"""Recorded activations as an array that is read when it is indexed; each block is checked against its commit record.

Knows caches and NumPy's indexing. Does not know runs.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Mapping
from types import EllipsisType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ...storage import Cache
from ...storage.errors import InputError
from ...storage.options import StorageOptions
from ..factors.merged_file import merged_key

if TYPE_CHECKING:
    from keras.utils import PyDataset

__all__ = ["Activations"]

# A block of up to this size is kept after it was read, so that reading row by row does not read it again.
KEPT_NBYTES = 256 * 2**20


class Activations:
    """The activations of one point, of shape (n_samples, *point shape); nothing is read before it is indexed.

    Indexing follows NumPy and gives a fresh array. Whole blocks are read, at most one beside the result, and each is
    checked: a block that is missing or damaged raises, and is never read as other values. There are also
    ``numpy.asarray(activations)`` (all at once), iteration over samples, :meth:`blocks`, ``dask.array.from_array``, and
    for Keras :meth:`as_py_dataset`.

    Parameters
    ----------
    cache : Cache
        With activations, open for reading.
    point : str
        One of its points.
    storage_options : mapping, optional
        As the cache was opened with.

    Raises
    ------
    IncompleteError, FormatError
        When it is indexed: if a block is missing, or differs from what was recorded.
    """

    def __init__(self, cache: Cache, point: str, storage_options: Mapping[str, Any] | None = None) -> None:
        self._cache, self._point, self._options = cache, point, StorageOptions(storage_options or {})
        self.shape: tuple[int, ...] = (cache.spec.n_samples, *cache.spec.point(point).shape)
        self.dtype: np.dtype[Any] = np.dtype(cache.spec.dtype)
        self._kept: tuple[int, NDArray[Any] | None] = (-1, None)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self._cache.url, self._options, self._point)

    def __dask_tokenize__(self) -> tuple[str, str, str]:
        return (type(self).__name__, self._point, merged_key(self._cache))

    def __repr__(self) -> str:
        shape = ", ".join(map(str, self.shape))
        return f"<activations of {self._point!r}: ({shape}) {self.dtype}, read when indexed>"

    @property
    def ndim(self) -> int:
        """Number of axes, including that of the samples."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all values in memory."""
        return self.size * self.dtype.itemsize

    @property
    def chunks(self) -> tuple[int, ...]:
        """The shape of a block of samples, which is read at once."""
        return (min(self._cache.spec.block_samples, len(self)), *self.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[NDArray[Any]]:
        for block in self.blocks():
            yield from block

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Yield the activations block by block, in order of samples; one is held at a time."""
        for block in self._cache.blocks:
            yield self._cache.read_block(self._point, block)

    def as_py_dataset(self, labels: Any = None, *, batch_size: int = 32) -> PyDataset:
        """Return the activations as a ``keras.utils.PyDataset``, which ``fit`` and ``predict`` read batch by batch.

        Keras takes the activations themselves too, and reads all of them at once then.

        Parameters
        ----------
        labels : array of shape (n_samples, ...), optional
            What each batch is paired with.
        batch_size : int

        Raises
        ------
        InputError
            If there are not as many labels as samples.

        Notes
        -----
        Train with ``shuffle=False``: in any other order a block is read for each of its batches.
        """
        import keras

        if labels is not None and len(labels) != len(self):
            raise InputError(f"{len(labels):,} labels for {len(self):,} samples: give one for each")
        activations, begins = self, range(0, len(self), batch_size)

        class Batches(keras.utils.PyDataset):  # type: ignore[misc]  # Keras has no types
            def __len__(self) -> int:
                return len(begins)

            def __getitem__(self, index: int) -> Any:
                rows = slice(begins[index], begins[index] + batch_size)
                return activations[rows] if labels is None else (activations[rows], labels[rows])

        return Batches()

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("activations are read from the cache: an array of them is always a copy")
        values: NDArray[Any] = self[...]
        return values if dtype is None else values.astype(dtype, copy=False)

    def __getitem__(self, index: Any) -> Any:
        """Return ``numpy.asarray(self)[index]``, reading only the blocks that are needed."""
        entries, place = self._parsed(index)
        rows, instead = _chosen_rows(entries[place], len(self))
        return self._read(rows)[(*entries[:place], *instead, *entries[place + 1 :])]

    def _parsed(self, index: Any) -> tuple[list[Any], int]:
        """Return an index with an entry for every axis, and the place of the entry for samples."""
        given = list(index) if isinstance(index, tuple) else [index]
        entries = [np.asarray(each) if isinstance(each, list | tuple | range) else each for each in given]
        if any(isinstance(each, (bool, np.bool_)) for each in entries):
            raise IndexError(
                "a single True or False is not an index of activations: give one for each sample"
            )
        n_axes = sum(_n_axes(each) for each in entries)
        ellipses = [i for i, each in enumerate(entries) if isinstance(each, EllipsisType)]
        if len(ellipses) > 1 or n_axes > self.ndim:
            raise IndexError(f"an index of {n_axes} axes does not fit activations of {self.ndim}")
        first = ellipses[0] if ellipses else len(entries)
        entries[first : first + 1] = [slice(None)] * (self.ndim - n_axes)
        return entries, next(i for i, each in enumerate(entries) if each is not None)

    def _read(self, rows: NDArray[np.intp]) -> NDArray[Any]:
        """Return the samples with these ascending numbers."""
        values = np.empty((len(rows), *self.shape[1:]), self.dtype)
        numbers = rows // self._cache.spec.block_samples
        for number in np.unique(numbers).tolist():
            first, last = np.searchsorted(numbers, [number, number + 1])
            start = number * self._cache.spec.block_samples
            values[first:last] = self._block(number)[rows[first:last] - start]
        return values

    def _block(self, number: int) -> NDArray[Any]:
        kept, values = self._kept
        if kept != number or values is None:
            values = self._cache.read_block(self._point, self._cache.spec.block(number))
            self._kept = (number, values if values.nbytes <= KEPT_NBYTES else None)
        return values


def _reopened(url: str, options: Mapping[str, Any], point: str) -> Activations:
    return Activations(Cache.open(url, storage_options=options or None), point, options)


def _n_axes(entry: Any) -> int:
    if entry is None or isinstance(entry, EllipsisType):
        return 0
    return entry.ndim if isinstance(entry, np.ndarray) and entry.dtype == bool else 1


def _chosen_rows(entry: Any, n_samples: int) -> tuple[NDArray[np.intp], tuple[Any, ...]]:
    """Return which samples an entry of an index selects, ascending, and the index of these that gives the entry."""
    if isinstance(entry, slice):
        rows = np.arange(n_samples, dtype=np.intp)[entry]
        backwards = len(rows) > 1 and rows[0] > rows[-1]
        return (rows[::-1], (slice(None, None, -1),)) if backwards else (rows, (slice(None),))
    if isinstance(entry, np.ndarray) and entry.dtype == bool:
        if entry.shape[0] != n_samples:
            raise IndexError(f"a mask of {entry.shape[0]} samples does not fit {n_samples}")
        wanted, *others = entry.nonzero()
        rows, places = np.unique(wanted, return_inverse=True)
        return rows, (places.reshape(wanted.shape), *others)
    if isinstance(entry, np.ndarray) and entry.ndim:
        if entry.size and not np.issubdtype(entry.dtype, np.integer):
            raise IndexError(f"activations are indexed with whole numbers, not {entry.dtype}")
        wanted = entry.astype(np.intp)
        wrong = wanted[(wanted < -n_samples) | (wanted >= n_samples)]
        if wrong.size:
            raise IndexError(f"sample {wrong.flat[0]} does not exist: there are {n_samples}")
        rows, places = np.unique(wanted % n_samples, return_inverse=True)
        return rows, (places.reshape(wanted.shape),)
    number = operator.index(entry)
    if not -n_samples <= number < n_samples:
        raise IndexError(f"sample {number} does not exist: there are {n_samples}")
    return np.array([number % n_samples], np.intp), (0,)
