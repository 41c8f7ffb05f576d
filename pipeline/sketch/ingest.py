"""Arrays into tallies: layouts, and what NaN and infinities mean.

Results do not depend on the layout or on what counts. Does not know how tallies are stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import InputError
from .arrays import count_nonfinite, first_nonfinite, place
from .open_tally import NO_VALUES, OpenTally, has_nonfinite, survey
from .tally import empty_tally


def add_slabs(
    target: OpenTally,
    slabs: Iterable[NDArray[np.float32]],
    *,
    n_values: int,
    row_size: int | None = None,
    maxima: NDArray[np.float32] = NO_VALUES,
    refusal: Callable[[], InputError] | None,
) -> None:
    """Add all values of an array to ``target``, or none.

    Parameters
    ----------
    target : OpenTally
    slabs : iterable of ndarray, flat
    n_values : int
        Of all slabs.
    row_size : int, optional
        Values of one sample; slabs hold whole samples.
    maxima : ndarray of shape (n_samples,) or (0,)
        Gets the largest finite value of each sample, NaN where there is none.
    refusal : callable, optional
        Gives the error to raise if there are NaN or infinities; without it, they are counted and left out.
    """
    apart: OpenTally | None = None
    n_done = 0
    for values in slabs:
        if not values.size:
            continue
        rows = maxima[n_done : n_done + values.size // (row_size or values.size)]
        n_done += rows.size
        found = survey(values, row_size or values.size, rows)
        if refusal is not None and has_nonfinite(found):
            raise refusal()
        if values.size == n_values:
            target.add(values, found)
            return
        # Of several slabs a later one may be refused.
        apart = apart or OpenTally(empty_tally(target.bits))
        apart.add(values, found)
    if apart is not None:
        target.add_tally(apart.settle())


def has_nonfinite_values(slabs: Iterable[NDArray[np.float32]]) -> bool:
    """Return whether there are NaN or infinities in flat values."""
    return any(has_nonfinite(survey(values, values.size)) for values in slabs if values.size)


def nonfinite_error(
    array: NDArray[Any], *, point: str | None, block: int | None, first_sample: int = 0
) -> InputError:
    """Return the error that names point, block and first index of the NaN or infinities in ``array``.

    ``first_sample`` is where the array begins within its block.
    """
    n_nan, n_inf = count_nonfinite(array)
    found = first_nonfinite(array)
    index, value = found if found is not None else ((), float("nan"))
    if index:
        index = (index[0] + first_sample, *index[1:])
    sample = f" (sample {index[0]} of this block)" if block is not None and index else ""
    return InputError(
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
