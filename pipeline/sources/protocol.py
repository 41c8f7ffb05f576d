"""What a source is: samples in a fixed order that can be read at random, and what identifies them.

Knows shapes, types and names. Does not know files, preprocessing or models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

__all__ = ["Batch", "InputSpec", "Reader", "Source"]


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One input of the network as a source delivers it."""

    name: str | None
    """Its name (a key of a dict, or of a file); None if there is one input without a name."""
    shape: tuple[int, ...]
    """Of one sample: without the axis of samples."""
    dtype: str
    """NumPy name of what :meth:`Source.read` returns, as ``"float32"``; ``"object"`` for texts, which are ``bytes``."""

    @property
    def nbytes(self) -> int:
        """Bytes of one sample."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True)
class Batch:
    """Some consecutive samples."""

    inputs: tuple[NDArray[Any], ...]
    """One array of shape (n, \\*spec.shape) for each input, in the order of :attr:`Source.inputs`."""
    labels: NDArray[Any] | None = None
    """Array of shape (n, ...) as the data holds it, never preprocessed; None if there are none."""

    def __len__(self) -> int:
        return len(self.inputs[0])


@runtime_checkable
class Source(Protocol):
    """Samples in a fixed order: reading the same range twice gives the same bytes.

    A source can be pickled if what it was made from can be.
    """

    @property
    def n_samples(self) -> int:
        """How many samples there are to read; at least one."""
        ...

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        """What :meth:`read` delivers, one entry for each input."""
        ...

    @property
    def has_labels(self) -> bool:
        """Whether batches carry labels."""
        ...

    def read(self, start: int, stop: int) -> Batch:
        """Return the samples ``start`` to ``stop`` (exclusive), preprocessed.

        Any thread may read any range; reading forward, range by range, takes one pass over the data. The arrays
        may be read-only views of the user's own. They stay as they are: later reads write to other memory, since
        samples wait while those before them go through the network.

        Raises
        ------
        InputError
            If the range is not in the data, a value is NaN or infinite (the sample is named), or the
            data cannot be read.
        """
        ...

    def fingerprint(self) -> dict[str, Any]:
        """Return what identifies the data apart from its length: nested, JSON-able, comparable with ``==``.

        Names, shapes and types of the inputs, preprocessing, and the content of the first sample. No paths, no dates,
        no number of samples: data that has grown has the same fingerprint. :meth:`content_hash` covers the other
        samples.
        """
        ...

    def content_hash(self, start: int, stop: int) -> str:
        """Return a hash of the content and order of the samples ``start`` to ``stop`` (exclusive).

        It is kept with what was computed from them, and compared before that is used again.
        """
        ...


class Reader(Protocol):
    """Raw rows of one kind of data set; :class:`~.prepared.PreparedSource` makes a source from it."""

    @property
    def n_rows(self) -> int:
        """How many rows there are."""
        ...

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        """Raw shapes and types."""
        ...

    @property
    def has_labels(self) -> bool:
        """Whether rows have labels."""
        ...

    @property
    def origin(self) -> str:
        """For messages: a path, or the kind of object."""
        ...

    def rows(self, start: int, stop: int) -> Batch:
        """Return raw rows."""
        ...

    def rows_and_hashes(self, start: int, stop: int, hashed: Sequence[int]) -> tuple[Batch, list[bytes]]:
        """Return raw rows, and a hash of each in ``hashed``, of the content that they were read from."""
        ...

    def row_hashes(self, rows: Sequence[int]) -> list[bytes]:
        """Return a hash of the content of each of these rows (ascending)."""
        ...

    def row_nbytes(self) -> int:
        """Return about how many bytes are read for the hash of one row."""
        ...

    def identity(self) -> dict[str, Any]:
        """Return the settings that decide what the rows hold, beside the bytes that are hashed."""
        ...
