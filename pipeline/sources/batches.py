"""Rows of a ``keras.utils.PyDataset``: batches that are read by number.

All batches but the last must have one size, so that the batch of a row is known without reading the others.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from ...storage.errors import InputError
from .protocol import Batch
from .rows import hash_rows, hashes_in
from .streams import Unpacked, join, kinds, unpack

__all__ = ["BatchedReader"]


class BatchedReader:
    """A :class:`~.protocol.Reader` over a PyDataset.

    Raises
    ------
    InputError
        If it is infinite, empty, or gives different samples the second time.
    """

    def __init__(self, dataset: Any) -> None:
        self.origin = f"the {type(dataset).__name__}"
        if _is_shuffled(dataset):
            raise InputError(
                f"{self.origin} shuffles its samples, differently in every process: make it with shuffle=False"
            )
        self._dataset = dataset
        self._lock = threading.Lock()
        self._held: tuple[int, Unpacked] | None = None
        self._n_batches = _n_batches(dataset, self.origin)
        first = self._load(0)
        self._size = len(first)
        self.inputs = first.specs
        self.has_labels = first.has_labels(self.origin)
        if hash_rows(self._load(0).inputs) != hash_rows(first.inputs):
            raise InputError(
                f"{self.origin} gave a different first batch the second time: the order must be fixed, so do not "
                "shuffle or augment in __getitem__"
            )
        last = len(first) if self._n_batches == 1 else len(self._load(self._n_batches - 1))
        if last > self._size:
            raise InputError(
                f"the last batch of {self.origin} has {last} samples, the first {self._size}: {_ONE_SIZE}"
            )
        self.n_rows = (self._n_batches - 1) * self._size + last

    def rows(self, start: int, stop: int) -> Batch:
        """Return raw rows; the batch that was read last is kept."""
        parts = []
        for number in range(start // self._size, (stop - 1) // self._size + 1):
            begin = number * self._size
            parts.append(self._batch(number).part(max(start - begin, 0), min(stop - begin, self._size)))
        return join(parts)

    def rows_and_hashes(self, start: int, stop: int, hashed: Sequence[int]) -> tuple[Batch, list[bytes]]:
        """Return raw rows, and a hash of each in ``hashed``."""
        batch = self.rows(start, stop)
        return batch, hashes_in(batch, start, hashed)

    def _batch(self, number: int) -> Unpacked:
        with self._lock:
            if self._held is not None and self._held[0] == number:
                return self._held[1]
            batch = self._load(number)
            expected = self._size if number < self._n_batches - 1 else self.n_rows - number * self._size
            if len(batch) != expected:
                raise InputError(
                    f"batch {number} of {self.origin} has {len(batch)} samples, not {expected}: {_ONE_SIZE}"
                )
            if kinds(batch.specs) != kinds(self.inputs):
                raise InputError(
                    f"batch {number} of {self.origin} holds {kinds(batch.specs)}, the first {kinds(self.inputs)}: all "
                    "samples need one shape"
                )
            self._held = (number, batch)
            return batch

    def _load(self, number: int) -> Unpacked:
        return unpack(self._dataset[number], batched=True, origin=self.origin)

    def row_nbytes(self) -> int:
        """Return the bytes of one row over all inputs."""
        return sum(spec.nbytes for spec in self.inputs)

    def row_hashes(self, rows: Sequence[int]) -> list[bytes]:
        """Return a hash of each of these rows."""
        hashes: list[bytes] = []
        for row in rows:
            number, at = divmod(row, self._size)
            hashes += hash_rows(self._batch(number).part(at, at + 1).inputs)
        return hashes

    def identity(self) -> dict[str, Any]:
        """Return the kind only: the values are hashed."""
        return {"kind": "arrays"}

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["_lock"]
        state["_held"] = None
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()


_ONE_SIZE = "all batches need the same size, except the last, which may be smaller"


def _is_shuffled(dataset: Any) -> bool:
    """Return whether it is an iterator of Keras (`ImageDataGenerator.flow`) that draws its order at the start."""
    is_iterator = any(
        kind.__name__ == "Iterator" and "keras" in kind.__module__ for kind in type(dataset).__mro__
    )
    return is_iterator and bool(getattr(dataset, "shuffle", False))


def _n_batches(dataset: Any, origin: str) -> int:
    try:
        # Keras 3 has num_batches (None: infinite), which falls back to __len__.
        count = dataset.num_batches if hasattr(type(dataset), "num_batches") else len(dataset)
    except (NotImplementedError, TypeError):
        count = None
    if count is None:
        raise InputError(f"the length of {origin} is unknown: give it a __len__ that counts its batches")
    if count < 1:
        raise InputError(f"{origin} has no batches: at least one is needed")
    return int(count)
