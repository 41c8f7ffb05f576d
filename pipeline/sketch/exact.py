"""Exact percentiles of recorded values, in one pass and bounded memory.

Knows chunks that can be read again. Does not know where they come from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .channels import ChannelSketch
from .layer import Sketch
from .refining import Refinement

EXACT_NBYTES = 128 * 2**20
"""Memory that a pass may hold, in bytes; if that is not enough for all, there are more passes."""


def exact_percentiles(
    chunks: Callable[[], Iterable[NDArray[Any]]],
    qs: Sequence[float],
    sketch: Sketch,
    nonzero: bool = False,
    *,
    is_selection: bool = False,
) -> list[float]:
    """Return the exact percentiles of recorded values.

    Parameters
    ----------
    chunks : callable
        Gives the chunks of the values that ``sketch`` was made of, in any order and pieces; called once for each
        pass, usually once.
    qs : sequence of float
        From 0 to 100.
    sketch : Sketch
    nonzero : bool, default=False
        Leave the zeros out.
    is_selection : bool, default=False
        The chunks hold all values of the buckets in which the percentiles lie, and need not hold the others: a
        worker elsewhere has picked them out.

    Returns
    -------
    list of float
        Each equal to ``np.percentile(values, q, method="linear")`` of the float32 values, ``q`` a Python float; NaN
        if there are none.

    Raises
    ------
    MismatchError
        If the chunks do not hold the values that were sketched.

    Notes
    -----
    Holds at most 32 KiB for each bucket of 20 bits that it looks for, besides a chunk.
    """
    refinement = Refinement(sketch, qs, nonzero=nonzero, is_selection=is_selection)
    return [float(value) for value in _refined(refinement, chunks)[:, 0]]


def exact_channel_percentiles(
    chunks: Callable[[], Iterable[NDArray[Any]]],
    qs: Sequence[float],
    sketch: ChannelSketch,
    nonzero: bool = False,
    *,
    channel_axis: int = -1,
) -> NDArray[np.float64]:
    """Return the exact percentiles of each channel, of shape (n_qs, n_channels); as `exact_percentiles`."""
    return _refined(Refinement(sketch, qs, nonzero=nonzero, channel_axis=channel_axis), chunks)


def _refined(refinement: Refinement, chunks: Callable[[], Iterable[NDArray[Any]]]) -> NDArray[np.float64]:
    while not refinement.is_settled:
        refinement.begin_pass(EXACT_NBYTES)
        for chunk in chunks():
            refinement.show(chunk)
        refinement.end_pass()
    return refinement.percentiles()
