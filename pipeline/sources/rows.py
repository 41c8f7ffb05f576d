"""Rows made of columns: one array for each input, and perhaps one for the labels.

Knows which columns belong together. Does not know where they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import InputError
from .columns import Column, LazyColumn
from .protocol import Batch, InputSpec
from .states import states_of
from .texts import text_bytes

__all__ = ["ColumnsReader", "hash_rows", "hashes_in"]

_SLAB_NBYTES = 16 * 2**20


class ColumnsReader:
    """A :class:`~.protocol.Reader` over columns of the same length.

    Parameters
    ----------
    columns : sequence of (name or None, Column)
        The inputs, in order.
    labels : Column, optional
    origin : str
        For messages.

    Raises
    ------
    InputError
        If the lengths differ.
    """

    def __init__(
        self, columns: Sequence[tuple[str | None, Column]], labels: Column | None, *, origin: str
    ) -> None:
        self._columns = tuple(column for _, column in columns)
        self._labels = labels
        self.origin = origin
        self.inputs = tuple(
            InputSpec(name, column.shape[1:], _plain(column.dtype)) for name, column in columns
        )
        self.n_rows = self._columns[0].shape[0]
        lengths = {
            _title(index, spec): column.shape[0]
            for (index, spec), column in zip(enumerate(self.inputs), self._columns, strict=True)
        }
        if labels is not None:
            lengths["labels"] = labels.shape[0]
        if len(set(lengths.values())) > 1:
            found = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise InputError(f"{origin}: different numbers of samples ({found}), they must agree")

    @property
    def has_labels(self) -> bool:
        """Whether there is a column of labels."""
        return self._labels is not None

    def rows(self, start: int, stop: int) -> Batch:
        """Return raw rows."""
        labels = None if self._labels is None else self.labels(start, stop)
        return Batch(tuple(column.read(start, stop) for column in self._columns), labels)

    def rows_and_hashes(self, start: int, stop: int, hashed: Sequence[int]) -> tuple[Batch, list[bytes]]:
        """Return raw rows, and a hash of each in ``hashed``."""
        batch = self.rows(start, stop)
        return batch, hashes_in(batch, start, hashed)

    def labels(self, start: int, stop: int) -> NDArray[Any]:
        """Return the labels of these rows, without the rows; only if ``has_labels``."""
        assert self._labels is not None
        return _squeeze(self._labels.read(start, stop))

    def state(self) -> str | None:
        """Return what tells cheaply whether the rows have changed; labels do not matter."""
        return states_of(self._columns)

    def row_nbytes(self) -> int:
        """Return the bytes of one row over all inputs."""
        return sum(
            int(np.prod(column.shape[1:], dtype=np.int64)) * column.dtype.itemsize for column in self._columns
        )

    def row_hashes(self, rows: Sequence[int]) -> list[bytes]:
        """Return a hash of each of these rows."""
        hashes: list[bytes] = []
        for start, stop in _runs(rows, max(1, _SLAB_NBYTES // max(self.row_nbytes(), 1))):
            hashes += hash_rows(tuple(column.read(start, stop) for column in self._columns))
        return hashes

    def gaps(self) -> tuple[str, ...]:
        """Return in words which parts of the arrays are not stored."""
        found = (column.gaps() for column in self._columns if isinstance(column, LazyColumn))
        return tuple(each for each in found if each is not None)

    def identity(self) -> dict[str, Any]:
        """Return the kind only: the values are hashed."""
        return {"kind": "arrays"}


def hashes_in(batch: Batch, start: int, rows: Sequence[int]) -> list[bytes]:
    """Return a hash of each of these rows, from raw rows of which the first is ``start``."""
    if len(rows) == len(batch):
        return hash_rows(batch.inputs)
    places = [row - start for row in rows]
    return hash_rows(tuple(values[places] for values in batch.inputs)) if places else []


def hash_rows(inputs: tuple[NDArray[Any], ...]) -> list[bytes]:
    """Return a 16-byte hash of each row over all inputs; it does not depend on the byte order."""
    if any(values.dtype.kind == "O" for values in inputs):
        columns = [text_bytes(v) if v.dtype.kind == "O" else hash_rows((v,)) for v in inputs]
        return [hashlib.blake2b(b"".join(row), digest_size=16).digest() for row in zip(*columns, strict=True)]
    arrays = []
    for values in inputs:
        little = (
            values.astype(values.dtype.newbyteorder("<"), copy=False)
            if values.dtype.byteorder == ">"
            else values
        )
        arrays.append(np.ascontiguousarray(little).reshape(len(values), -1).view(np.uint8))
    if len(arrays) == 1:
        return [hashlib.blake2b(row.data, digest_size=16).digest() for row in arrays[0]]
    hashes = []
    for parts in zip(*arrays, strict=True):
        hasher = hashlib.blake2b(digest_size=16)
        for part in parts:
            hasher.update(part)
        hashes.append(hasher.digest())
    return hashes


def _runs(rows: Sequence[int], longest: int) -> Iterator[tuple[int, int]]:
    """Cut ascending rows into ranges of neighbours, none longer than ``longest``."""
    start = stop = None
    for row in rows:
        if stop is not None and start is not None and row == stop and stop - start < longest:
            stop = row + 1
            continue
        if start is not None and stop is not None:
            yield start, stop
        start, stop = row, row + 1
    if start is not None and stop is not None:
        yield start, stop


def _plain(dtype: np.dtype[Any]) -> str:
    return dtype.newbyteorder("=").name


def _title(index: int, spec: InputSpec) -> str:
    return f"input {index}" if spec.name is None else repr(spec.name)


def _squeeze(labels: NDArray[Any]) -> NDArray[Any]:
    """Labels of shape (n, 1), as CIFAR-10 has them, mean (n,)."""
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
