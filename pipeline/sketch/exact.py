"""Exact percentiles from the recorded values, in one pass and bounded memory.

The sketch says in which buckets the wanted order statistics lie; the pass counts the lows of
these buckets. Knows sketches and chunks. Does not know where chunks come from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import MismatchError
from . import bits as fb
from .arrays import layer_slabs, parse_array
from .ladder import build_ladder, find_ranks, lerp, parse_percent, virtual_ranks
from .layer import Sketch


def exact_percentiles(
    chunks: Callable[[], Iterable[NDArray[Any]]],
    qs: Sequence[float],
    sketch: Sketch,
    nonzero: bool = False,
) -> list[float]:
    """Return the exact percentiles of recorded values.

    Parameters
    ----------
    chunks : callable
        Gives the chunks of the values that ``sketch`` was made of, in any order and pieces.
    qs : sequence of float
        From 0 to 100.
    sketch : Sketch
    nonzero : bool, default=False
        Leave the zeros out.

    Returns
    -------
    list of float
        Each equal to ``np.percentile(values, q, method="linear")`` of the float32 values; NaN if there are none.

    Raises
    ------
    MismatchError
        If the chunks do not hold the values that were sketched.
    """
    percents = [parse_percent(q) for q in qs]
    ladder = build_ladder(sketch.tally, nonzero=nonzero)
    size = int(ladder.offsets[-1])
    if not size:
        return [float("nan")] * len(percents)
    wanted = [virtual_ranks(percent, np.array([size])) for percent in percents]
    ranks = np.array([[int(w.previous[0]), int(w.following[0])] for w in wanted]).reshape(-1)
    found = find_ranks(ladder, ranks)
    keys = found.lo.copy()
    open_ = found.lo < found.hi
    low_bits = sketch.tally.low_bits
    rungs = np.unique(found.rungs[open_])
    if rungs.size:
        tables = _count_lows(chunks, ladder.base_keys[rungs], low_bits)
        if not np.array_equal(tables.sum(axis=1), ladder.counts[rungs]):
            raise MismatchError(
                "the chunks do not hold the values of this sketch: was it made of another cache?"
            )
        cumulative = np.cumsum(tables, axis=1)
        for i in np.flatnonzero(open_):
            slot = int(np.searchsorted(rungs, found.rungs[i]))
            low = int(np.searchsorted(cumulative[slot], found.within[i], side="right"))
            keys[i] = int(ladder.base_keys[rungs[slot]]) + low
    values = fb.floats_of(keys).reshape(-1, 2)
    return [float(lerp(a, b, float(w.gamma[0]))) for (a, b), w in zip(values, wanted, strict=True)]


def _count_lows(
    chunks: Callable[[], Iterable[NDArray[Any]]], bases: NDArray[np.uint32], low_bits: int
) -> NDArray[np.int64]:
    tables = np.zeros((bases.size, 1 << low_bits), np.int64)
    for chunk in chunks():
        for slab in layer_slabs(parse_array(chunk)):
            for start in range(0, slab.size, 1 << 20):
                keys = fb.keys_of(slab[start : start + (1 << 20)])
                keys = keys[keys != fb.ZERO_KEY]
                for slot, base in enumerate(bases):
                    lows = keys - base
                    lows = lows[lows < (1 << low_bits)]
                    tables[slot] += np.bincount(lows, minlength=1 << low_bits)
    return tables
