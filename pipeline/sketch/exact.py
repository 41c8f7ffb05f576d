"""Exact percentiles of recorded values, in one pass and bounded memory.

Knows chunks that can be read again. Does not know where they come from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import MismatchError
from .channels import ChannelSketch
from .layer import Sketch
from .refining import Refinement

EXACT_NBYTES = 128 * 2**20
"""Memory that a pass may hold, in bytes; if that is not enough for all, there are more passes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactRequest:
    """Which exact percentiles of a point are wanted."""

    sketch: Sketch | ChannelSketch
    """Of exactly the values that the chunks hold."""
    qs: tuple[float, ...]
    """Percentiles from 0 to 100."""
    nonzero: bool = False
    """Leave the zeros out."""
    channel_axis: int = -1
    """Of the chunks, samples counted as axis 0; only for a ChannelSketch."""
    is_selection: bool = False
    """The chunks hold all values within the intervals that the sketch gives, and need not hold the others."""


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
    request = ExactRequest(sketch=sketch, qs=tuple(qs), nonzero=nonzero, is_selection=is_selection)
    found = exact_many(lambda: (("", chunk) for chunk in chunks()), {"": request})[""]
    return [float(value) for value in found[:, 0]]


def exact_channel_percentiles(
    chunks: Callable[[], Iterable[NDArray[Any]]],
    qs: Sequence[float],
    sketch: ChannelSketch,
    nonzero: bool = False,
    *,
    channel_axis: int = -1,
) -> NDArray[np.float64]:
    """Return the exact percentiles of each channel, of shape (n_qs, n_channels); as `exact_percentiles`."""
    request = ExactRequest(sketch=sketch, qs=tuple(qs), nonzero=nonzero, channel_axis=channel_axis)
    return exact_many(lambda: (("", chunk) for chunk in chunks()), {"": request})[""]


def exact_many(
    chunks: Callable[[], Iterable[tuple[str, NDArray[Any]]]],
    requests: Mapping[str, ExactRequest],
    *,
    nbytes: int = EXACT_NBYTES,
) -> dict[str, NDArray[np.float64]]:
    """Return exact percentiles of several points from the same pass over their chunks.

    Parameters
    ----------
    chunks : callable
        Gives (point, chunk) pairs, in any order; pairs of points that are not asked for are skipped.
    requests : mapping of str to ExactRequest
        By point.
    nbytes : int, default=128 MiB
        Memory that a pass may hold, in bytes, besides a chunk.

    Returns
    -------
    dict of str to ndarray of shape (n_qs, n_channels), float64
        One channel for a Sketch; NaN where there are no values.

    Raises
    ------
    MismatchError
        If the chunks do not hold the values that were sketched.
    """
    refinements = {
        point: Refinement(
            request.sketch,
            request.qs,
            nonzero=request.nonzero,
            channel_axis=request.channel_axis,
            is_selection=request.is_selection,
        )
        for point, request in requests.items()
    }
    while waiting := {point: one for point, one in refinements.items() if not one.is_settled}:
        left = nbytes
        chosen: dict[str, Refinement] = {}
        for point, refinement in waiting.items():
            if chosen and left <= 0:
                break
            left -= refinement.begin_pass(left)
            chosen[point] = refinement
        for point, chunk in chunks():
            if point in chosen:
                chosen[point].show(chunk)
        for point, refinement in chosen.items():
            _end_pass(point, refinement)
    return {point: refinement.percentiles() for point, refinement in refinements.items()}


def _end_pass(point: str, refinement: Refinement) -> None:
    try:
        refinement.end_pass()
    except MismatchError as problem:
        if not point:
            raise
        raise MismatchError(f"point {point!r}: {problem}", point=point) from None
