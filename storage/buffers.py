"""Lend memory for chunks, the same again and again, in bounded bytes.

Knows bytes and who holds them. Does not know what is in them.
"""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["BufferPool", "Holder"]


class Holder(Protocol):
    """A chunk that is being filled."""

    def move_to(self, memory: NDArray[np.uint8], /) -> NDArray[np.uint8] | None:
        """Go on in other memory and return what was held; None, at once, if somebody is filling it."""


@dataclass(frozen=True, slots=True)
class _Loan:
    """A buffer in use."""

    asked: int
    """Bytes that were asked for."""
    has: int
    """Bytes that the buffer has."""
    holder: weakref.ref[Holder] | None

    @property
    def is_gone(self) -> bool:
        """Whether the writer was dropped without being left."""
        return self.holder is not None and self.holder() is None


class BufferPool:
    """Chunk buffers that are used again: first touch of fresh memory costs more than the copy.

    May be used from several threads. There are never more buffers than were in use at the same time, and none is
    larger than the largest that was asked for. What lies here unused goes as soon as it would bring the whole above
    the bytes that were ever asked for at the same time: of T threads with a chunk each, the T largest chunks.

    Notes
    -----
    A small chunk gets a large buffer that is free, since that is touched already. If a large one is needed before the
    small chunk is full, the small chunk moves. So the whole is above those bytes only by what the threads that are
    filling small chunks in this moment have too much.
    """

    def __init__(self) -> None:
        self._free: list[NDArray[np.uint8]] = []
        self._loans: dict[int, _Loan] = {}
        """By the id of the buffer."""
        self._most_nbytes = 0
        """Bytes ever asked for at the same time."""
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers, in use or not."""
        with self._lock:
            return self._nbytes()

    def take(self, nbytes: int, holder: Holder | None = None) -> NDArray[np.uint8]:
        """Return at least so many bytes, with arbitrary content.

        Parameters
        ----------
        nbytes : int
        holder : optional
            Whose chunk may move to a smaller buffer while nobody fills it. Where it is forgotten, so is the buffer.
        """
        with self._lock:
            for gone in [key for key, loan in self._loans.items() if loan.is_gone]:
                del self._loans[gone]
            buffer = self._fitting(nbytes)
            if buffer is None:
                buffer = self._moved_away_from(nbytes)
            if buffer is None:
                # Let the largest go, so that buffers do not pile up.
                if self._free:
                    self._free.pop()
                buffer = np.empty(nbytes, np.uint8)
            self._lend(buffer, nbytes, weakref.ref(holder) if holder is not None else None)
            self._most_nbytes = max(self._most_nbytes, sum(loan.asked for loan in self._loans.values()))
        return buffer

    def give(self, buffer: NDArray[np.uint8]) -> None:
        """Take a buffer back."""
        with self._lock:
            del self._loans[id(buffer)]
            self._free.append(buffer)
            self._free.sort(key=len)
            while self._free and (excess := self._nbytes() - self._most_nbytes) > 0:
                # The smallest that is enough, else the largest: what stays is touched memory.
                self._free.pop(next((i for i, one in enumerate(self._free) if len(one) >= excess), -1))

    def _nbytes(self) -> int:
        return sum(len(buffer) for buffer in self._free) + sum(loan.has for loan in self._loans.values())

    def _lend(self, buffer: NDArray[np.uint8], asked: int, holder: weakref.ref[Holder] | None) -> None:
        self._loans[id(buffer)] = _Loan(asked, len(buffer), holder)

    def _fitting(self, nbytes: int) -> NDArray[np.uint8] | None:
        """Return the smallest free buffer that is large enough, or None."""
        fitting = next((i for i, buffer in enumerate(self._free) if len(buffer) >= nbytes), None)
        return None if fitting is None else self._free.pop(fitting)

    def _moved_away_from(self, nbytes: int) -> NDArray[np.uint8] | None:
        """Return a buffer from which a chunk of at most half of it could move to a smaller one, or None."""
        for loan in sorted(self._loans.values(), key=lambda loan: loan.has):
            holder = loan.holder() if loan.holder is not None else None
            if holder is None or loan.has < nbytes or loan.asked >= nbytes or 2 * loan.asked > loan.has:
                continue
            found = self._fitting(loan.asked)
            smaller = np.empty(loan.asked, np.uint8) if found is None else found
            large = holder.move_to(smaller)
            if large is not None:
                del self._loans[id(large)]
                self._lend(smaller, loan.asked, loan.holder)
                return large
            if found is not None:
                self._free.append(found)
                self._free.sort(key=len)
        return None
