"""Statistics as a tidy data frame of pandas: one row for each point, channel and statistic.

Knows sketches. Does not know folders, caches or settings.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..exporters import import_extra
from ..sketch import ChannelSketch, PointSketch, Sketch
from .percentile_rows import percent_label

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["tidy_frame"]

# For each statistic its value, lo and hi: of one layer, or of each channel.
Columns = Iterator[tuple[str, NDArray[Any], NDArray[Any], NDArray[Any]]]


def tidy_frame(sketches: Mapping[str, PointSketch], qs: Sequence[float], *, nonzero: bool) -> DataFrame:
    """Return a data frame with the columns ``point``, ``channel``, ``statistic``, ``value``, ``lo`` and ``hi``.

    Parameters
    ----------
    sketches : mapping of str to PointSketch
        ``channel`` counts from 0 where a point has a sketch for each channel, and is missing for the point itself.
    qs : sequence of float
        Percentiles, in percent.
    nonzero : bool
        Percentiles of the values that are not zero.

    Raises
    ------
    InputError
        Without pandas.
    """
    pandas = import_extra("pandas", extra="notebook", needed_by="a data frame")
    points: list[str] = []
    statistics: list[str] = []
    numbers: dict[str, list[NDArray[Any]]] = {"channel": [], "value": [], "lo": [], "hi": []}
    for point, sketch in sketches.items():
        for channels, name, value, lo, hi in _of_point(sketch, qs, nonzero=nonzero):
            points += [point] * len(channels)
            statistics += [name] * len(channels)
            for column, values in zip(numbers, (channels, value, lo, hi), strict=True):
                numbers[column].append(np.asarray(values, np.float64))
    columns: dict[str, Any] = {"point": points, "channel": None, "statistic": statistics}
    columns |= {name: np.concatenate(parts) if parts else [] for name, parts in numbers.items()}
    frame = pandas.DataFrame(columns)
    # Whole numbers with a missing one for the point as a whole.
    return frame.astype({"channel": "Int64"})


def _of_point(sketch: PointSketch, qs: Sequence[float], *, nonzero: bool) -> Iterator[tuple[Any, ...]]:
    whole = np.array([np.nan])
    for columns in _of_layer(copy.copy(sketch.layer), qs, nonzero=nonzero):
        yield whole, *columns
    if sketch.channels is not None:
        channels = np.arange(sketch.channels.n_channels)
        for columns in _of_channels(sketch.channels, qs, nonzero=nonzero):
            yield channels, *columns


def _of_layer(layer: Sketch, qs: Sequence[float], *, nonzero: bool) -> Columns:
    exact = {
        "count": layer.n,
        "zeros": layer.n_zeros,
        "mean": layer.mean,
    }
    for name, number in exact.items():
        value = np.array([number], np.float64)
        yield name, value, value, value
    lo, hi = layer.std_bounds
    yield "std", np.array([layer.std]), np.array([lo]), np.array([hi])
    for name, number in {"min": layer.minimum, "max": layer.maximum}.items():
        value = np.array([number], np.float64)
        yield name, value, value, value
    for q in qs:
        found = layer.percentile(q, nonzero=nonzero)
        yield percent_label(q), np.array([found.value]), np.array([found.lo]), np.array([found.hi])


def _of_channels(channels: ChannelSketch, qs: Sequence[float], *, nonzero: bool) -> Columns:
    for name, values in {"count": channels.n, "zeros": channels.n_zeros, "mean": channels.mean}.items():
        yield name, values, values, values
    lo, hi = channels.std_bounds
    yield "std", channels.std, lo, hi
    for name, values in {"min": channels.minimum, "max": channels.maximum}.items():
        yield name, values, values, values
    for q in qs:
        yield percent_label(q), *channels.percentile(q, nonzero=nonzero)
