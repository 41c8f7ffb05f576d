"""Write one block: chunks as they fill, then, once all are safe, the record that commits it.

Knows the layout of a block. Does not know where the activations come from.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from functools import partial
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .codecs import encode
from .commit_record import ChunkSum, CommitRecord
from .errors import InputError
from .layout import Layout
from .spec import Block, PointSpec
from .stores import Store
from .writing import WritingThreads

__all__ = ["BlockWriter"]


class _Column:
    """The chunks of one point within the block being written."""

    def __init__(self, point: PointSpec, keys: list[str], *, chunk_samples: int, dtype: str) -> None:
        self.point = point
        self.keys = keys
        """Of its chunks, in order."""
        self.chunk_samples = chunk_samples
        self.dtype = np.dtype(dtype)
        self.n_done = 0
        self.buffer: NDArray[Any] | None = None
        """The chunk that is being filled."""
        self.n_filled = 0
        """Chunks that are written, or will be."""
        self.chunks: dict[int, ChunkSum] = {}
        """Of those that are written, by their place."""
        self.is_open = True
        self.guard = threading.Lock()
        """Held while samples are taken, and to end that."""


class BlockWriter:
    """Writes one block batch by batch; made by `Cache.write`.

    Holds at most one chunk of each point, and only where batches and chunks do not coincide. A block stays missing if
    its ``with`` is left without `commit`.

    Notes
    -----
    Different points may be appended from several threads at once: they share nothing but the store, and the block
    has the same bytes. The samples of one point come in order, so from one thread at a time. `commit` comes when all
    of them have returned. Leaving the ``with`` waits for appends that are under way; later ones are refused.

    With ``writing`` chunks are encoded and written by its threads. What one of them raises, the next append raises, or
    the commit.
    """

    def __init__(
        self,
        store: Store,
        layout: Layout,
        block: Block,
        *,
        committed: Callable[[CommitRecord], CommitRecord],
        writing: WritingThreads | None = None,
    ) -> None:
        self.block = block
        self._writing = writing
        self._written: list[Future[None]] = []
        """Chunks that the threads have been given."""
        self._failure: BaseException | None = None
        """What one of them met."""
        self._is_left = False
        self._store = store
        self._spec = spec = layout.spec
        self._committed = committed
        self._columns = {
            p.name: _Column(
                p,
                layout.chunk_keys(p.name, block),
                chunk_samples=layout.chunk_samples[p.name],
                dtype=spec.dtype,
            )
            for p in (spec.points if spec.keeps_activations else ())
        }

    def __enter__(self) -> BlockWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for column in self._columns.values():
            with column.guard:
                column.is_open = False
                if self._writing is not None and column.buffer is not None:
                    self._writing.give_back(column.buffer)
                column.buffer = None
        self._is_left = True
        wait(self._written)

    def append(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take the next samples of the block, of every point or of some.

        Parameters
        ----------
        arrays : mapping of str to ndarray of shape (any number of samples, *point shape)
            float32 or what converts to the stored dtype without overflow. Written before the call returns, or
            copied: the caller may use the memory again. Not so with ``writing``: it is given away.

        Raises
        ------
        InputError
            If a shape does not fit, the block gets too many samples, a value overflows float16, or the writer has
            been left.
        StorageError
            If the store refuses.
        """
        for name, array in arrays.items():
            if (column := self._columns.get(name)) is None:
                self._spec.point(name)
                raise InputError(
                    "this cache holds sketches only: commit them without activations", point=name
                )
            with column.guard:
                checked = self._checked(column, array)
                column.is_open = False  # unless it succeeds: which samples are in place is not known then
                self._append(column, checked)
                column.is_open = True

    def _checked(self, column: _Column, array: NDArray[Any]) -> NDArray[Any]:
        point, block = column.point, self.block
        self._check_open(column)
        if array.shape[1:] != point.shape or array.ndim == 0:
            raise InputError(
                f"activations of point {point.name!r} have shape {array.shape!r}, (samples, "
                f"{', '.join(map(str, point.shape))}) was expected",
                point=point.name,
                block=block.index,
            )
        if column.n_done + len(array) > block.n_samples:
            raise InputError(
                f"block {block.index} has {block.n_samples} samples, point {point.name!r} was given "
                f"{column.n_done + len(array)}",
                point=point.name,
                block=block.index,
            )
        return array

    def _check_open(self, column: _Column) -> None:
        point, block = column.point, self.block
        if not column.is_open:
            raise InputError(
                f"the writer of block {block.index} has been left, or could not write point {point.name!r}: take a "
                "new one from Cache.write",
                point=point.name,
                block=block.index,
            )

    def _append(self, column: _Column, array: NDArray[Any]) -> None:
        if self._failure is not None:
            raise self._failure
        size = column.chunk_samples
        taken = 0
        while taken < len(array):
            filled = column.n_done % size
            n = min(size - filled, len(array) - taken)
            part = array[taken : taken + n]
            if n == size and part.dtype == column.dtype and part.flags.c_contiguous:
                self._put(column, part, is_own=False)
            else:
                self._fill(column, part, filled)
            column.n_done += n
            taken += n
            if column.buffer is not None and (filled + n == size or column.n_done == self.block.n_samples):
                column.buffer[filled + n :] = np.nan
                whole, column.buffer = column.buffer, None
                self._put(column, whole, is_own=True)

    def _fill(self, column: _Column, part: NDArray[Any], filled: int) -> None:
        """Copy samples behind those that the chunk has."""
        point = column.point
        if column.buffer is None:
            new = np.empty if self._writing is None else self._writing.buffer
            column.buffer = new((column.chunk_samples, *point.shape), column.dtype)
        try:
            with np.errstate(over="raise"):
                column.buffer[filled : filled + len(part)] = part
        except FloatingPointError as error:
            peak = float(np.max(np.abs(part[np.isfinite(part)])))
            raise InputError(
                f"point {point.name!r} reaches {peak:g} in block {self.block.index}, {column.dtype} ends at "
                f"{np.finfo(column.dtype).max:g}: store it as float32",
                point=point.name,
                block=self.block.index,
            ) from error

    def _put(self, column: _Column, values: NDArray[Any], *, is_own: bool) -> None:
        """Write a chunk, or have it written: memory of its own is used again then."""
        index, column.n_filled = column.n_filled, column.n_filled + 1
        if self._writing is None:
            self._write(column, index, values)
        else:
            work = partial(self._write_later, self._writing, column, index, values, is_own=is_own)
            self._written.append(self._writing.write(values.nbytes, work))

    def _write(self, column: _Column, index: int, values: NDArray[Any]) -> None:
        encoded = encode(values, self._spec.codec)
        self._store.write(column.keys[index], encoded.parts)
        column.chunks[index] = ChunkSum(encoded.nbytes, encoded.crc)

    def _write_later(
        self, writing: WritingThreads, column: _Column, index: int, values: NDArray[Any], *, is_own: bool
    ) -> None:
        try:
            if not self._is_left and self._failure is None:
                self._write(column, index, values)
        except BaseException as error:
            self._failure = error
        finally:
            if is_own:
                writing.give_back(values)

    def commit(self, sketches: Mapping[str, bytes], facts: Mapping[str, Any] | None = None) -> CommitRecord:
        """Flush the chunks to the disk, then write the commit record: from then on the block is committed.

        Parameters
        ----------
        sketches : mapping of str to bytes
            One for each point.
        facts : mapping, optional
            JSON values, kept in the record. No times or machines: the same block must have the same bytes.
        """
        wait(self._written)
        if self._failure is not None:
            raise self._failure
        self._check_complete(sketches)
        points = [point.name for point in self._spec.points]
        record = CommitRecord(
            block=self.block,
            cache_hash=self._spec.short_hash,
            chunks={
                name: tuple(column.chunks[i] for i in range(column.n_filled))
                for name, column in self._columns.items()
            },
            sketches={name: bytes(sketches[name]) for name in points},
            facts=dict(facts or {}),
        )
        self._store.sync([key for column in self._columns.values() for key in column.keys])
        return self._committed(record)

    def _check_complete(self, sketches: Mapping[str, bytes]) -> None:
        block = self.block
        for name, column in self._columns.items():
            self._check_open(column)
            if column.n_done != block.n_samples:
                raise InputError(
                    f"block {block.index} has {block.n_samples} samples, point {name!r} got {column.n_done}: "
                    "append all of them before commit",
                    point=name,
                    block=block.index,
                )
        asked = {point.name for point in self._spec.points}
        if asked != sketches.keys():
            odd = sorted(asked ^ sketches.keys())
            raise InputError(
                f"commit needs one sketch for each point, these differ: {', '.join(map(repr, odd))}",
                block=block.index,
            )
