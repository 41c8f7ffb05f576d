"""A tally that is being added to: values become buckets only when these are asked for.

Few values are kept as they are, since counters touch many pages of memory. More are counted by the compiled kernels
into counters that stay open; without Numba they are sorted. Knows values of one stream. Does not know layouts of
arrays, or what NaN means to the user.
"""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

from .compiled import is_compiled
from .counters import give_back, lend
from .counting import empty_counters, nothing_found, take_tally, touched_nbytes
from .sorting import sort_layer, survey_plainly
from .tally import Tally, merge_tallies

LOOSE_VALUES = 1 << 15
"""Up to this many values are kept as they are: 128 KiB, while their counters would take more."""

NO_VALUES = np.empty(0, np.float32)
_MOST_PARTS = 16
"""This many tallies are kept apart before they are added up: 16 cost little more than two."""
Found = NDArray[np.int64]
"""What `survey` found in some values, laid out as told in `kernels`."""


def survey(values: NDArray[np.float32], row_size: int, maxima: NDArray[np.float32] = NO_VALUES) -> Found:
    """Return extremes and numbers of NaN and infinities of flat values; write the largest finite one of each row.

    ``maxima`` has the shape (n_rows,), or (0,) if they are not wanted; a row without finite values gets NaN.
    """
    found: Found = nothing_found(1)[0]
    if not is_worth_counting(values.size):
        survey_plainly(values, row_size, maxima, found)
        return found
    from . import kernels  # Numba takes half a second to import

    kernels.survey_rows(values.view(np.uint32), row_size, maxima.view(np.uint32), found)
    return found


def has_nonfinite(found: Found) -> bool:
    """Return whether there were NaN or infinities."""
    return bool(found[4] or found[5])


def is_worth_counting(n_values: int) -> bool:
    """Return whether the kernels are faster for this many values than numpy, the cost of loading them included."""
    return is_compiled() and (n_values > LOOSE_VALUES or f"{__package__}.kernels" in sys.modules)


class OpenTally:
    """Counts of the values of one stream. An error leaves it as it was.

    Parameters
    ----------
    tally : Tally
        What was counted before.
    """

    __slots__ = ("_loose", "_n_loose", "_parts", "_state", "_words")

    def __init__(self, tally: Tally) -> None:
        self._parts = [tally]
        """What was counted and is no longer open, never empty."""
        self._loose: NDArray[np.float32] | None = None
        """Memory for values that are not counted yet; the first ``_n_loose`` are."""
        self._n_loose = 0
        self._words: NDArray[np.uint64] | None = None
        self._state = nothing_found(1)

    @property
    def bits(self) -> int:
        """Resolution."""
        return self._parts[0].bits

    @property
    def nbytes(self) -> int:
        """Bytes of state in memory, at most: of counters, all from the smallest value to the largest of a sign."""
        return sum(part.buckets.nbytes for part in self._parts) + 4 * self._n_loose + self._open_nbytes()

    def _open_nbytes(self) -> int:
        return 0 if self._words is None else touched_nbytes(self._state, bits=self.bits)

    def reserve(self, n_values: int) -> None:
        """Get the memory that so many more values need, so that adding them cannot fail, unless they must be sorted."""
        if self._words is not None:
            return
        if self._n_loose + n_values > LOOSE_VALUES:
            if is_compiled():
                self._state = nothing_found(1)
                self._words = lend(1, 3, 1 << self.bits)
                return
            self._sort_loose()
        if self._loose is None and n_values <= LOOSE_VALUES:
            self._loose = np.empty(LOOSE_VALUES, np.float32)

    def add(self, values: NDArray[np.float32], found: Found | None = None) -> None:
        """Add flat values, in which `survey` found ``found``."""
        self.reserve(values.size)
        n_loose = self._n_loose + values.size
        if self._words is not None:
            if self._n_loose:
                self._count(self._loose_values())
                self._n_loose = 0
            self._count(values, found)
        elif n_loose <= LOOSE_VALUES and self._loose is not None:
            self._loose[self._n_loose : n_loose] = values
            self._n_loose = n_loose
        else:
            self.add_tally(sort_layer(values, bits=self.bits))

    def _loose_values(self) -> NDArray[np.float32]:
        return NO_VALUES if self._loose is None else self._loose[: self._n_loose]

    def _count(self, values: NDArray[np.float32], found: Found | None = None) -> None:
        from . import kernels  # Numba takes half a second to import

        found = survey(values, values.size) if found is None else found
        assert self._words is not None  # reserved
        kernels.count(values.view(np.uint32), found, self._words[0], self._state[0], 32 - self.bits)

    def add_tally(self, tally: Tally) -> None:
        """Add what was counted elsewhere."""
        self._parts.append(tally)
        if len(self._parts) >= _MOST_PARTS:
            self._parts = [merge_tallies(self._parts)]

    def settle(self) -> Tally:
        """Return the tally of all values; more can be added."""
        self._sort_loose()
        if self._words is not None:
            words, touched = self._words, self._open_nbytes()
            counted = take_tally(words, self._state, bits=self.bits)
            # No call stands between: Ctrl-C finds the values in the counters or in the parts, never in both or neither.
            self._parts, self._words = [*self._parts, counted], None
            empty_counters(words, self._state, bits=self.bits)
            give_back(words, touched_nbytes=touched)
        if len(self._parts) > 1:
            self._parts = [merge_tallies(self._parts)]
        self._loose = None
        return self._parts[0]

    def _sort_loose(self) -> None:
        if self._n_loose:
            counted = sort_layer(self._loose_values(), bits=self.bits)
            self._parts, self._n_loose = [*self._parts, counted], 0
