"""Bring the values of both networks together, and compare each pair as soon as both are there.

The original's come from the original, or from a cache. Does not know networks, tolerances or verdicts.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import FormatError, IncompleteError, StorageError
from .value_comparison import ComparedValue, Found, ValueComparison

__all__ = ["Pairing", "Recorded", "Span"]

Span = tuple[int, int]
"""Consecutive samples: start, stop."""
Array = NDArray[np.float32]
Recorded = Callable[[int, int, int], Iterable[Array]]
"""``recorded(index, start, stop)`` gives the original's values of these samples, in parts of any size."""


class Pairing:
    """Takes the values of one batch.

    Parameters
    ----------
    pairs : mapping of index to (ComparedValue, ValueComparison)
        What is compared.
    parts : sequence of Span
        The samples of the batch, in the parts that results are wanted for; one, if the original's are handed over.
    kept : set of int
        The pairs that are wanted whole.
    sketch : callable
        ``sketch(index, array)`` also gets the values of the normalised network.
    recorded : callable, optional
        Gives the original's values; default: they are handed over.
    """

    def __init__(
        self,
        pairs: Mapping[int, tuple[ComparedValue, ValueComparison]],
        parts: Sequence[Span],
        *,
        kept: frozenset[int],
        sketch: Callable[[int, Array], None],
        recorded: Recorded | None = None,
    ) -> None:
        self._pairs, self._parts, self._kept = pairs, parts, kept
        self._sketch, self._recorded = sketch, recorded
        self._names = {
            index: [each.new_name] if recorded is not None else [each.new_name, each.old_name]
            for index, (each, _) in pairs.items()
        }
        self._uses = Counter(name for names in self._names.values() for name in names)
        self._here: dict[str, Array] = {}
        self._guard = threading.Lock()
        self.found: dict[int, list[Found]] = {}
        """For each pair, what was found in each part."""
        self.kept: dict[int, tuple[Array, Array]] = {}
        """Of the original and of the normalised network, all samples."""
        self.problem: Exception | None = None
        """Why recorded values could not be read; then not all pairs were compared."""

    def take(self, name: str, array: Array) -> None:
        """Take a value of either network for all samples, by its name in a `ComparedValue`; from any thread."""
        with self._guard:
            self._here[name] = array
            ready = {
                index: [self._here[each] for each in names]
                for index, names in self._names.items()
                if name in names and all(each in self._here for each in names)
            }
            self._uses.subtract(each for index in ready for each in self._names[index])
            self._here = {each: values for each, values in self._here.items() if self._uses[each]}
        for index, (new, *old) in ready.items():
            self._sketch(index, new)
            self._compare(index, new, *old)

    def _compare(self, index: int, new: Array, old: Array | None = None) -> None:
        comparison, first = self._pairs[index][1], self._parts[0][0]
        found: list[Found] = []
        whole: list[Array] = []
        try:
            for start, stop in self._parts:
                done = start - first
                for values in self._originals(index, start, stop, old):
                    comparison.add(values, new[done : done + len(values)])
                    done += len(values)
                    if index in self._kept:
                        whole.append(values.copy())
                found.append(comparison.end_batch())
        except (FormatError, IncompleteError, StorageError) as error:
            comparison.end_batch()
            self.problem = error
            return
        self.found[index] = found
        if index in self._kept:
            self.kept[index] = np.concatenate(whole), new

    def _originals(self, index: int, start: int, stop: int, old: Array | None) -> Iterable[Array]:
        if old is not None:
            return [old]  # of all samples, which are one part then; an operation may have merged their rows
        return self._recorded(index, start, stop) if self._recorded is not None else []
