"""Add up the buckets of many sketches: the same integers in any order.

Many large parts are added to dense counters, one window of bucket ids after the other; a few small ones are sorted.
Knows buckets. Does not know what they count.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .buckets import Buckets, empty_buckets, join_buckets
from .compiled import is_worth_compiled

SORTED_BUCKETS = 1 << 15
"""Up to this many buckets in all are sorted: sweeping dense counters would take longer."""
WINDOW = 1 << 20
"""Number of dense counters: 20 MiB, of which only the touched pages cost memory."""


def merge_buckets(parts: Sequence[Buckets]) -> Buckets:
    """Return the buckets of all parts, equal ids added up."""
    parts = [part for part in parts if len(part)]
    if not parts:
        return empty_buckets()
    if len(parts) == 1:
        return parts[0]
    if is_worth_compiled(sum(len(part) for part in parts), least=SORTED_BUCKETS):
        return add_densely(parts)
    return add_by_sorting(parts)


def add_by_sorting(parts: Sequence[Buckets]) -> Buckets:
    """Return the sum of parts, in numpy."""
    ids = np.concatenate([part.ids for part in parts])
    order = np.argsort(ids, kind="stable")
    ids = ids[order]
    counts = np.concatenate([part.counts for part in parts])[order]
    sums = np.concatenate([part.sums for part in parts])[order]
    atoms = np.concatenate([part.atoms for part in parts])[order]
    starts = np.flatnonzero(np.concatenate(([True], ids[1:] != ids[:-1])))
    # The low of an atom is its mean; other parts get a low that no atom has.
    lows = np.where(atoms, sums // counts, -1)
    lowest, highest = np.minimum.reduceat(lows, starts), np.maximum.reduceat(lows, starts)
    return Buckets(
        ids=ids[starts],
        counts=np.add.reduceat(counts, starts, dtype=np.int64),
        sums=np.add.reduceat(sums, starts, dtype=np.int64),
        atoms=(lowest == highest) & (lowest >= 0),
    )


def add_densely(parts: Sequence[Buckets]) -> Buckets:
    """Return the sum of parts, by the compiled kernels."""
    lowest = min(int(part.ids[0]) for part in parts)
    highest = max(int(part.ids[-1]) for part in parts)
    size = min(WINDOW, highest - lowest + 1)
    dense = np.zeros(size, np.int64), np.zeros(size, np.int64), np.zeros(size, np.int32)
    edges = np.arange(lowest, highest + size + 1, size, dtype=np.int64)
    cuts = [np.searchsorted(part.ids, edges) for part in parts]
    windows = []
    for i, first in enumerate(edges[:-1].tolist()):
        slices = [
            (part, slice(int(cut[i]), int(cut[i + 1])))
            for part, cut in zip(parts, cuts, strict=True)
            if cut[i] < cut[i + 1]
        ]
        if slices:
            windows.append(_add_window(slices, first, min(size, highest - first + 1), dense))
    return join_buckets(windows)


def _add_window(
    slices: Sequence[tuple[Buckets, slice]],
    first: int,
    size: int,
    dense: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]],
) -> Buckets:
    from . import adding  # Numba takes half a second to import

    for part, cut in slices:
        adding.add_part(part.ids[cut], part.counts[cut], part.sums[cut], part.atoms[cut], first, *dense)
    n = adding.count_filled(dense[0], size)
    merged = Buckets(
        ids=np.empty(n, np.uint32),
        counts=np.empty(n, np.int64),
        sums=np.empty(n, np.int64),
        atoms=np.empty(n, np.bool_),
    )
    adding.take_filled(first, size, *dense, merged.ids, merged.counts, merged.sums, merged.atoms)
    return merged
