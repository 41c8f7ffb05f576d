"""Arrays into tallies: layouts, sorting or compiled counting, and what NaN and infinities mean.

Results do not depend on the layout or on what counts. Does not know how tallies are kept or stored.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import InputError
from . import bits as fb
from .arrays import channel_slabs, first_nonfinite, layer_slabs, place, sample_slabs
from .compiled import is_compiled
from .counting import count_channels, count_layer
from .sorting import largest_of_rows, sort_channels, sort_layer
from .tally import Tally, empty_tally, merge_tallies

SORTED_VALUES = 1 << 15
"""Arrays of up to this many values are sorted: emptying the counters would take longer."""
SORTED_CHANNEL_VALUES = 128
"""As ``SORTED_VALUES``, for each channel."""

NO_ROWS = np.empty(0, np.uint32)


def tally_layer(array: NDArray[Any], *, bits: int) -> Tally:
    """Return the tally of all values of an array of any shape; NaN and infinities are counted, not bucketed."""
    tallies = [
        _tally_rows(slab, bits=bits, row_size=slab.size, maxima=NO_ROWS) for slab in layer_slabs(array)
    ]
    return merge_tallies([empty_tally(bits), *tallies])


def tally_samples(array: NDArray[Any], *, bits: int) -> tuple[Tally, Tally]:
    """Return the tally of all values and that of the largest finite value of each sample (along axis 0)."""
    row_size = array.size // max(1, array.shape[0])
    tallies = [empty_tally(bits)]
    if not row_size:
        return tallies[0], tallies[0]
    maxima = np.zeros(array.shape[0], np.uint32)
    done = 0
    for slab in sample_slabs(array):
        rows = maxima[done : done + slab.size // row_size]
        done += rows.size
        tallies.append(_tally_rows(slab, bits=bits, row_size=row_size, maxima=rows))
    peaks = fb.floats_of(maxima[maxima > 0])
    return merge_tallies(tallies), sort_layer(peaks, bits=bits)


def _tally_rows(
    values: NDArray[np.float32], *, bits: int, row_size: int, maxima: NDArray[np.uint32]
) -> Tally:
    if not is_compiled() or values.size <= SORTED_VALUES:
        if maxima.size:
            maxima[:] = largest_of_rows(values, row_size)
        return sort_layer(values, bits=bits)
    return count_layer(values, bits=bits, row_size=row_size, maxima=maxima)


def tally_channels(array: NDArray[Any], *, bits: int, channel_axis: int) -> Tally:
    """Return the tally of each channel of an array; NaN and infinities are counted, not bucketed."""
    tallies = [empty_tally(bits, array.shape[channel_axis])]
    for slab in channel_slabs(array, channel_axis):
        is_small = slab.shape[0] * slab.shape[2] <= SORTED_CHANNEL_VALUES
        count = count_channels if is_compiled() and not is_small else sort_channels
        tallies.append(count(slab, bits=bits))
    return merge_tallies(tallies)


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
        "correct the model or the data, or count and leave them out with on_nonfinite='exclude' "
        "(sketch.nonfinite in a job)",
        point=point,
        block=block,
        index=index,
        n_nan=n_nan,
        n_inf=n_inf,
    )
