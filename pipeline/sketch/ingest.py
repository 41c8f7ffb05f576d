"""Arrays into tallies: layouts, threads, the engine, and what NaN and infinities mean.

Results do not depend on the engine, the layout or the number of threads. Does not know how
tallies are kept or stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import InputError
from . import bits as fb
from .arrays import channel_slabs, first_nonfinite, layer_slabs, place, sample_slabs
from .compiled import is_compiled
from .counting import MAX_GROUP, count_channels, count_layer
from .sorting import largest_of_rows, sort_channels, sort_layer
from .tally import Tally, empty_tally, join_channels, merge_tallies

SORTED_VALUES = 1 << 15
"""Arrays up to this size are sorted: emptying the counters would take longer."""
SORTED_CHANNEL_VALUES = 128
"""As ``SORTED_VALUES``, for each channel."""
THREAD_VALUES = 1 << 18
"""A thread is worth its start from this many values on."""

NO_ROWS = np.empty(0, np.uint32)


def tally_layer(array: NDArray[Any], *, bits: int, threads: int = 1) -> Tally:
    """Return the tally of all values of an array of any shape; NaN and infinities are counted, not bucketed."""
    tasks = [
        partial(_tally_rows, piece, bits=bits, row_size=piece.size, maxima=NO_ROWS)
        for slab in layer_slabs(array)
        for piece in np.array_split(slab, _worthwhile(slab.size, threads))
    ]
    return merge_tallies([empty_tally(bits), *_run(tasks, threads)])


def tally_samples(array: NDArray[Any], *, bits: int, threads: int = 1) -> tuple[Tally, Tally]:
    """Return the tally of all values and that of the largest finite value of each sample (along axis 0)."""
    row_size = array.size // max(1, array.shape[0])
    if not row_size:
        return empty_tally(bits), empty_tally(bits)
    tallies: list[Tally] = []
    maxima = np.zeros(array.shape[0], np.uint32)
    done = 0
    for slab in sample_slabs(array):
        rows = maxima[done : done + slab.size // row_size]
        done += rows.size
        per_piece = -(-rows.size // _worthwhile(slab.size, threads))
        tasks = [
            partial(
                _tally_rows,
                slab[start * row_size : (start + per_piece) * row_size],
                bits=bits,
                row_size=row_size,
                maxima=rows[start : start + per_piece],
            )
            for start in range(0, rows.size, per_piece)
        ]
        tallies += _run(tasks, threads)
    peaks = fb.floats_of(maxima[maxima > 0])
    return merge_tallies([empty_tally(bits), *tallies]), sort_layer(peaks, bits=bits)


def _tally_rows(
    values: NDArray[np.float32], *, bits: int, row_size: int, maxima: NDArray[np.uint32]
) -> Tally:
    if not is_compiled() or values.size <= SORTED_VALUES:
        if maxima.size:
            maxima[:] = largest_of_rows(values, row_size)
        return sort_layer(values, bits=bits)
    return count_layer(values, bits=bits, row_size=row_size, maxima=maxima)


def tally_channels(array: NDArray[Any], *, bits: int, channel_axis: int, threads: int = 1) -> Tally:
    """Return the tally of each channel of an array; NaN and infinities are counted, not bucketed."""
    n_channels = array.shape[channel_axis]
    tallies = [empty_tally(bits, n_channels)]
    for slab in channel_slabs(array, channel_axis):
        if not is_compiled() or slab.shape[0] * slab.shape[2] <= SORTED_CHANNEL_VALUES:
            tallies.append(sort_channels(slab, bits=bits))
            continue
        per_thread = -(-n_channels // _worthwhile(slab.size, threads))
        per_thread = -(-per_thread // MAX_GROUP) * MAX_GROUP
        tasks = [
            partial(count_channels, slab, bits=bits, first=first, last=min(first + per_thread, n_channels))
            for first in range(0, n_channels, per_thread)
        ]
        tallies.append(join_channels(_run(tasks, threads)))
    return merge_tallies(tallies)


def _worthwhile(n_values: int, threads: int) -> int:
    return max(1, min(threads, n_values // THREAD_VALUES))


def _run(tasks: Sequence[Callable[[], Tally]], threads: int) -> list[Tally]:
    if threads <= 1 or len(tasks) <= 1:
        return [task() for task in tasks]
    with ThreadPoolExecutor(threads, thread_name_prefix="actisketch-sketch") as pool:
        return list(pool.map(lambda task: task(), tasks))


def refuse_nonfinite(
    array: NDArray[Any], tally: Tally, *, point: str | None, block: int | None, first_sample: int = 0
) -> None:
    """Raise InputError naming point, block and first index if the tally of ``array`` counted NaN or infinities.

    ``first_sample`` is where the array begins within its block.
    """
    n_nan, n_inf = int(tally.n_nan.sum()), int(tally.n_inf.sum())
    if not n_nan + n_inf:
        return
    found = first_nonfinite(array)
    index, value = found if found is not None else ((), float("nan"))
    if index:
        index = (index[0] + first_sample, *index[1:])
    sample = f" (sample {index[0]} of this block)" if block is not None and index else ""
    raise InputError(
        f"{place(point, block)}{n_nan} NaN and {n_inf} infinite of {array.size} activations, "
        f"the first at index {index}{sample} is {value}: "
        "mend the model or the data, or count and leave them out with on_nonfinite='exclude' "
        "(sketch.nonfinite in a job)",
        point=point,
        block=block,
        index=index,
        n_nan=n_nan,
        n_inf=n_inf,
    )
