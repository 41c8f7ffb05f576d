"""What a source is: samples in a fixed order that can be read at random, and what identifies them.

Knows shapes, types and names. Does not know files, preprocessing or models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

__all__ = ["Batch", "InputSpec", "Reader", "Source"]


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One input of the network as a source delivers it."""

    name: str | None
    """The name it was given (a key of a dict, of a file); None when there is one input without a name."""
    shape: tuple[int, ...]
    """Of one sample: without the axis of samples."""
    dtype: str
    """NumPy name of what :meth:`Source.read` returns, as ``"float32"``; ``"object"`` for texts, which are ``bytes``."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Some consecutive samples."""

    inputs: tuple[NDArray[Any], ...]
    """One array of shape (n, \\*spec.shape) for each input, in the order of :attr:`Source.inputs`."""
    labels: NDArray[Any] | None = None
    """Array of shape (n, ...) as the data holds it, never preprocessed; None when there are none."""

    def __len__(self) -> int:
        return len(self.inputs[0])


@runtime_checkable
class Source(Protocol):
    """Samples in a fixed order: reading the same range twice gives the same bytes.

    Every source can be pickled if what it was made of can be.
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

        Any range may be asked for from any thread; going forward range by range costs one pass over
        the data. The arrays may be read-only views of the user's own.

        Raises
        ------
        InputError
            If the range is not in the data, a value is NaN or infinite (the sample is named), or the
            data cannot be read.
        """
        ...

    def fingerprint(self) -> dict[str, Any]:
        """Return what identifies the data apart from its length: nested, JSON-able, comparable with ``==``.

        Input names, shapes, types, preprocessing and the first sample's content. Neither paths nor dates,
        and not the number of samples: data that grew has the same fingerprint. Later samples are
        covered by :meth:`content_hash`.
        """
        ...

    def content_hash(self, start: int, stop: int) -> str:
        """Return a hash of the content and order of the samples ``start`` to ``stop`` (exclusive).

        To be kept beside whatever was computed from them, and compared before that is used again.
        """
        ...


class Reader(Protocol):
    """Raw rows, as a kind of data set gives them; :class:`~.prepared.PreparedSource` makes a source of it."""

    @property
    def n_rows(self) -> int:
        """Rows that exist."""
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

    def marks(self, rows: Sequence[int]) -> list[bytes]:
        """Return a hash of the content of each of these rows (ascending)."""
        ...

    def row_nbytes(self) -> int:
        """Return the bytes that have to be read for the mark of one row, about."""
        ...

    def identity(self) -> dict[str, Any]:
        """Return the settings that decide what the rows hold beyond the bytes that are marked."""
        ...
