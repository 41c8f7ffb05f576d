"""Rows from something that can be iterated many times, but only from its start.

Reading forward keeps the iterator; reading back starts a new one. The hash of every row that was read is
remembered (16 bytes each): hashes need no second pass, and a row that differs the second time shows that the order is
not fixed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import InputError
from .columns import ArrayColumn, check_column, unmasked
from .protocol import Batch, InputSpec
from .rows import hash_rows
from .texts import as_texts, is_text

__all__ = ["StreamReader", "Unpacked", "join", "kinds", "unpack"]


logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Unpacked:
    """One element of a data set: named inputs and perhaps labels, as arrays with an axis of samples."""

    names: tuple[str | None, ...]
    inputs: tuple[NDArray[Any], ...]
    labels: NDArray[Any] | None
    n_targets: int = 1

    @property
    def specs(self) -> tuple[InputSpec, ...]:
        """Name, shape and type of each input."""
        return tuple(
            InputSpec(name, values.shape[1:], values.dtype.newbyteorder("=").name)
            for name, values in zip(self.names, self.inputs, strict=True)
        )

    def has_labels(self, origin: str) -> bool:
        """Return whether there are labels to measure accuracy with; warns if there are too many."""
        if self.n_targets > 1:
            message = (
                "%s has %d targets for each sample, and accuracy is of one output: it is left out; give (x, y) with "
                "the classes of the first output that decides between some"
            )
            logger.warning(message, origin, self.n_targets)
        return self.labels is not None

    def __len__(self) -> int:
        return len(self.inputs[0])

    def part(self, start: int, stop: int) -> Unpacked:
        """Return some of the rows."""
        labels = None if self.labels is None else self.labels[start:stop]
        return Unpacked(self.names, tuple(values[start:stop] for values in self.inputs), labels)


def kinds(specs: Sequence[InputSpec]) -> list[tuple[tuple[int, ...], str]]:
    """Return the shape and the type of each input: the same for all samples."""
    return [(spec.shape, spec.dtype) for spec in specs]


def join(parts: Sequence[Unpacked]) -> Batch:
    """Return the rows of several parts, one after the other; labels only if all parts have them."""
    if len(parts) == 1:
        return Batch(parts[0].inputs, parts[0].labels)
    inputs = tuple(np.concatenate(columns) for columns in zip(*(part.inputs for part in parts), strict=True))
    labels = [part.labels for part in parts if part.labels is not None]
    return Batch(inputs, np.concatenate(labels) if len(labels) == len(parts) else None)


def unpack(element: Any, *, batched: bool, origin: str) -> Unpacked:
    """Return what an element ``x``, ``(x, y)`` or ``(x, y, weights)`` holds; x may be a list or a dict.

    Raises
    ------
    InputError
        If it holds no numbers or texts, or its parts have different numbers of samples.
    """
    x, y = (
        (element[0], element[1]) if isinstance(element, tuple) and len(element) in (2, 3) else (element, None)
    )
    if isinstance(x, tuple) and len(x) == 1:
        x = x[0]
    named: list[tuple[str | None, Any]] = [(None, x)]
    if isinstance(x, Mapping):
        named = [(str(name), value) for name, value in x.items()]
    elif isinstance(x, list | tuple):
        named = [(None, value) for value in x]
    arrays = [_array(value, batched=batched) for _, value in named]
    if not arrays:
        raise InputError(f"{origin} gave an element without inputs: {type(element).__name__}")
    for (name, _), array in zip(named, arrays, strict=True):
        if not (array.ndim and len(array) == 0):  # empty batches are skipped
            called = f"an element of {origin}" if name is None else f"{name!r} of {origin}"
            check_column(ArrayColumn(array), called)
    targets = _targets(y, batched=batched)
    labels = _array(targets[0], batched=batched) if len(targets) == 1 else None
    if labels is not None and labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    lengths = {len(array) for array in arrays} | ({len(labels)} if labels is not None else set())
    if len(lengths) > 1:
        raise InputError(f"a batch of {origin} has parts of {sorted(lengths)} samples: they must agree")
    return Unpacked(tuple(name for name, _ in named), tuple(arrays), labels, n_targets=len(targets))


def _targets(y: Any, *, batched: bool) -> list[Any]:
    """Return the labels as targets: a network with several outputs is trained with one for each of them."""
    if y is None:
        return []
    if isinstance(y, Mapping):
        return list(y.values())
    is_one = isinstance(y, list) or batched
    if not isinstance(y, list | tuple) or (is_one and all(np.ndim(each) == 0 for each in y)):
        return [y]  # labels as plain numbers; a tuple of numbers in tf.data has one for each output
    return list(y)


def _array(value: Any, *, batched: bool) -> NDArray[Any]:
    array = unmasked(value.numpy() if hasattr(value, "numpy") else value, "an element of the data")
    if is_text(array.dtype):
        array = as_texts(array, "an element of the data")
    # A copy: the memory may be filled with the next samples while these wait.
    return np.array(array if batched else array[None])


class StreamReader:
    """A :class:`~.protocol.Reader` over an iterable of batches or samples.

    Parameters
    ----------
    fresh : callable
        Gives an iterable that starts at the first sample, every time.
    n_rows : int
        How many samples to use; there may be more.
    batched : bool
        Whether an element is a batch or a sample.
    origin : str
        For messages.

    Raises
    ------
    InputError
        If it gives nothing, or a different first element the second time.
    """

    def __init__(
        self, fresh: Callable[[], Iterable[Any]], *, n_rows: int, batched: bool, origin: str
    ) -> None:
        self._fresh = fresh
        self._batched = batched
        self.origin = origin
        self.n_rows = n_rows
        self._hashes: list[bytes] = []
        self._lock = threading.Lock()
        self._iterator: Iterator[Any]
        self._position: int
        self._held: Unpacked | None
        self._restart()
        first = self._next()
        if first is None:
            raise InputError(f"{origin} gave no samples: at least one is needed")
        self.inputs = first.specs
        self.has_labels = first.has_labels(origin)
        self._remember(first, 0)
        self._restart()
        again = self._next()
        if again is None:
            raise InputError(
                f"{origin} gave its samples once and nothing the second time: give a function that "
                "makes a fresh iterator"
            )
        self._remember(again, 0)
        self._restart()

    def rows(self, start: int, stop: int) -> Batch:
        """Return raw rows, reading forward where possible."""
        with self._lock:
            return self._rows(start, stop)

    def rows_and_hashes(self, start: int, stop: int, hashed: Sequence[int]) -> tuple[Batch, list[bytes]]:
        """Return raw rows, and a hash of each in ``hashed``: those of what was read are remembered."""
        return self.rows(start, stop), self.row_hashes(hashed)

    def _rows(self, start: int, stop: int) -> Batch:
        if start < self._position:
            self._restart()
        parts: list[Unpacked] = []
        while self._position < stop:
            if self._held is None or len(self._held) == 0:
                self._held = self._pull()
            held = self._held
            skip = min(max(start - self._position, 0), len(held))
            take = min(stop - self._position, len(held))
            if take > skip:
                parts.append(held.part(skip, take))
            self._held = held.part(take, len(held))
            self._position += take
        return join(parts)

    def _pull(self) -> Unpacked:
        element = self._next()
        if element is None:
            raise InputError(
                f"{self.origin} ended after {self._position} samples, but num_samples = {self.n_rows}: "
                "ask for fewer",
                n_found=self._position,
            )
        self._remember(element, self._position)
        return element

    def _next(self) -> Unpacked | None:
        for element in self._iterator:
            unpacked = unpack(element, batched=self._batched, origin=self.origin)
            if len(unpacked):
                return unpacked
        return None

    def _restart(self) -> None:
        self._iterator = iter(self._fresh())
        self._position = 0
        self._held = None

    def _remember(self, element: Unpacked, position: int) -> None:
        if kinds(element.specs) != kinds(self.inputs):
            raise InputError(
                f"{self.origin} gave samples of shape {[spec.shape for spec in element.specs]} at {position}, the "
                f"first ones had {[spec.shape for spec in self.inputs]}: all samples need one shape and type"
            )
        hashes = hash_rows(element.inputs)
        known = self._hashes[position : position + len(hashes)]
        for at, (found, seen) in enumerate(zip(hashes, known, strict=False)):
            if found != seen:
                raise InputError(
                    f"{self.origin} gave another sample {position + at} the second time: the order must be "
                    "fixed, so do not shuffle or augment (tf.data: no shuffle, or a seed and "
                    "reshuffle_each_iteration=False)",
                    sample=position + at,
                )
        self._hashes += hashes[len(known) :]

    def row_nbytes(self) -> int:
        """Return 16: the hashes themselves are kept."""
        return 16

    def row_hashes(self, rows: Sequence[int]) -> list[bytes]:
        """Return the remembered hashes; rows that were not read yet are read."""
        with self._lock:
            at = len(self._hashes)
            if rows and rows[-1] >= at:
                self._rows(at - 1, rows[-1] + 1)
            return [self._hashes[row] for row in rows]

    def identity(self) -> dict[str, Any]:
        """Return the kind only: the values are hashed."""
        return {"kind": "arrays"}

    def __getstate__(self) -> dict[str, Any]:
        # An iterator cannot be pickled; the function that makes it may be.
        state = self.__dict__.copy()
        for name in ("_lock", "_iterator", "_held", "_position"):
            del state[name]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()
        self._restart()
