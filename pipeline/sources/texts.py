"""Texts as samples, for networks that begin with TextVectorization or StringLookup: UTF-8 bytes, as in TensorFlow.

However they are stored (NumPy's fixed or variable width, Python strings, tensors), the same texts are the same samples.
Objects in files are never read: they would have to be unpickled.
"""

from __future__ import annotations

import hashlib
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import InputError
from .states import Readable

__all__ = ["TextColumn", "as_texts", "is_text", "text_bytes"]

OBJECT = np.dtype(object)
"""Of an array of texts: Python ``bytes``."""


def is_text(dtype: np.dtype[Any]) -> bool:
    """Return whether an array of this type holds texts, or objects that may be texts."""
    return dtype.kind in "SUTO"


def as_texts(values: NDArray[Any], origin: str) -> NDArray[Any]:
    """Return texts as an array of ``bytes`` objects, of the same shape.

    Raises
    ------
    InputError
        If something is neither ``str`` nor ``bytes``.
    """
    texts = np.empty(values.shape, OBJECT)
    flat = texts.reshape(-1)
    for index, value in enumerate(values.reshape(-1).tolist()):
        if isinstance(value, str):
            value = value.encode()
        if not isinstance(value, bytes):
            raise InputError(
                f"{origin} holds Python objects ({type(value).__name__}): save an array of numbers, or of texts (all "
                "samples of one shape)"
            )
        flat[index] = value
    return texts


def text_bytes(values: NDArray[Any]) -> list[bytes]:
    """Return bytes for each row of an array of ``bytes`` objects, of shape (n, ...); other texts give other bytes."""
    rows = values.reshape(len(values), -1).tolist()
    return [b"".join(len(text).to_bytes(8, "little") + text for text in row) for row in rows]


class _Texts(Readable, Protocol):
    def state(self) -> str | None: ...


class TextColumn:
    """Texts of another column, as ``bytes`` objects."""

    def __init__(self, column: _Texts, origin: str) -> None:
        self._column, self._origin = column, origin
        self.shape = column.shape
        self.dtype = OBJECT

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return rows."""
        return as_texts(self._column.read(start, stop), self._origin)

    def state(self) -> str | None:
        """Return that of the column; of Python objects and strings of variable width, kept by address, a hash."""
        if self._column.dtype.kind in "SU" or not hasattr(self._column, "in_memory"):
            return self._column.state()
        hasher = hashlib.sha256(str(self.shape).encode())
        for row in text_bytes(self.read(0, self.shape[0])):
            hasher.update(row)
        return hasher.hexdigest()
