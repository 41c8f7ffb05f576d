"""Percentiles as SNN toolbox takes them: `get_scale_fac`, `get_percentile`, `apply_normalization_schedule`."""

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
"""Percent points by which the toolbox lowers the percentile at each layer, before it truncates."""
CHUNK_VALUES = 4 * 2**20
"""Activations in memory at once when they are read from a file."""


def get_scale_fac(activations: Any, percentile: float) -> float:
    """Return the factor of a layer: a percentile of its activations.

    Parameters
    ----------
    activations : array_like
        Any shape; the toolbox passes those that are not zero. A memory map, a zarr array or a dask array is read
        chunk by chunk.
    percentile : float
        In percent, 0 to 100.

    Returns
    -------
    float
        ``np.percentile(activations, percentile)``; 1 for no activations.

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
        activations = activations.compute_chunk_sizes()  # of a dask array that was chosen from by a condition
    if activations.size == 0:
        return 1.0
    if np.dtype(activations.dtype).kind not in "fiu":
        raise InputError(f"activations of type {activations.dtype} have no percentile: give numbers")
    if _fits_in_memory(activations):
        factor = float(np.percentile(np.asarray(activations), percentile))
        if not np.isfinite(factor) or not np.isfinite(np.sum(activations, dtype=np.float64)):
            raise InputError("the activations hold NaN or infinities: look at the data and the network")
        return factor
    sketch = Sketch()
    for chunk in _chunks(activations):
        sketch.update(chunk)
    return float(exact_percentiles(lambda: _chunks(activations), [percentile], sketch, nonzero=False)[0])


def _fits_in_memory(activations: Any) -> bool:
    """Tell whether the array is in memory already, or small, or of a type that must not be rounded to float32."""
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
        Place of the layer among those with parameters, from 0; needed for a schedule.

    Raises
    ------
    InputError
        For a setting that is missing or impossible, or a schedule without a layer.
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
    """Return ``int(perc - 0.02 * layer_idx)``, as the toolbox does: 99.9 becomes 99 at the first layer already.

    Our own schedule, which does not truncate, is ``factors.schedule`` of a job.
    """
    return int(perc - layer_idx * SCHEDULE_STEP)
