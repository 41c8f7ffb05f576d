"""Percentiles as SNN toolbox computes them: `get_scale_fac`, `get_percentile`, `apply_normalization_schedule`."""

from __future__ import annotations

from collections.abc import Iterator
from configparser import ConfigParser
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import InputError
from ..sketch import Sketch, exact_percentiles
from .configuration import percentile_of, uses_schedule

__all__ = ["apply_normalization_schedule", "get_percentile", "get_scale_fac"]

SCHEDULE_STEP = 0.02
"""Percentage points by which the toolbox lowers the percentile at each layer, before it truncates it."""
CHUNK_VALUES = 4 * 2**20
"""Number of activations in memory at once when they are read from a file."""


def get_scale_fac(activations: Any, percentile: float) -> float:
    """Return a percentile of the activations of a layer as its factor.

    Parameters
    ----------
    activations : array_like
        Any shape; the toolbox passes those that are not zero. Memory maps, zarr and dask arrays are read
        chunk by chunk.
    percentile : float
        From 0 to 100.

    Returns
    -------
    float
        ``np.percentile(activations, percentile)``; 1 if there are no activations.

    Raises
    ------
    InputError
        If the percentile is not between 0 and 100, or an activation is not finite.
    """
    if not 0 <= percentile <= 100:
        raise InputError(f"percentile {percentile!r} is not between 0 and 100", percentile=percentile)
    if not hasattr(activations, "dtype"):
        activations = np.asarray(activations)
    if hasattr(activations, "compute_chunk_sizes") and np.isnan(activations.size):
        activations = activations.compute_chunk_sizes()  # a dask array that a condition has selected from
    if activations.size == 0:
        return 1.0
    if np.dtype(activations.dtype).kind not in "fiu":
        raise InputError(f"activations of type {activations.dtype} have no percentile: give numbers")
    if _fits_in_memory(activations):
        factor = float(np.percentile(np.asarray(activations), percentile))
        if not np.isfinite(factor) or not np.isfinite(np.sum(activations, dtype=np.float64)):
            raise InputError("the activations contain NaN or infinities: check the data and the network")
        return factor
    sketch = Sketch()
    for chunk in _chunks(activations):
        sketch.update(chunk)
    return float(exact_percentiles(lambda: _chunks(activations), [percentile], sketch, nonzero=False)[0])


def _fits_in_memory(activations: Any) -> bool:
    """Whether the array is in memory already, or small, or of a type that must not be rounded to float32."""
    in_memory = isinstance(activations, np.ndarray) and not isinstance(activations, np.memmap)
    return (
        in_memory
        or activations.size <= CHUNK_VALUES
        or np.dtype(activations.dtype) not in (np.float32, np.float16)
    )


def _chunks(activations: Any) -> Iterator[NDArray[Any]]:
    row = int(np.prod(activations.shape[1:], dtype=np.int64)) or 1
    n_rows = max(1, CHUNK_VALUES // row)
    for start in range(0, activations.shape[0], n_rows):
        yield np.asarray(activations[start : start + n_rows])


def get_percentile(config: ConfigParser, layer_idx: int | None = None) -> float:
    """Return the percentile for a layer, in percent.

    Parameters
    ----------
    config : ConfigParser
        ``[normalization] percentile`` and ``normalization_schedule``.
    layer_idx : int, optional
        Index of the layer among those with parameters, from 0; needed for a schedule.

    Raises
    ------
    InputError
        If a setting is missing or invalid, or a schedule has no layer.
    """
    percentile = percentile_of(config)
    if not uses_schedule(config):
        return percentile
    if layer_idx is None or layer_idx < 0:
        raise InputError(
            f"a normalization_schedule needs the index of the layer, got layer_idx={layer_idx!r}"
        )
    return apply_normalization_schedule(percentile, layer_idx)


def apply_normalization_schedule(perc: float, layer_idx: int) -> int:
    """Return ``int(perc - 0.02 * layer_idx)`` as the toolbox does: even at the first layer 99.9 becomes 99.

    The schedule of a job, ``factors.schedule``, does not truncate.
    """
    return int(perc - layer_idx * SCHEDULE_STEP)
