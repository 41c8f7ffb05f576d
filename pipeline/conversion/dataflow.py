"""Take the samples of a one-shot ``dataflow`` to disk, so that they can be read twice in bounded memory."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import InputError
from .configuration import ToolboxSettings

__all__ = ["spooled"]


def spooled(dataflow: Any, settings: ToolboxSettings, folder: Path) -> NDArray[Any]:
    """Return the samples of the first batches of ``dataflow`` as a memory map of a file in ``folder``.

    Parameters
    ----------
    dataflow : iterator
        Batches by ``next()``, arrays or tuples (samples, labels, ...); ``batch_size`` and a length where
        ``num_samples`` is not set.

    Notes
    -----
    As in the toolbox, ``ceil(num_samples / [simulation] batch_size)`` batches are taken, whatever their own size.
    """
    n_wanted = settings.num_samples
    if n_wanted is None:
        try:
            n_wanted = len(dataflow) * int(dataflow.batch_size)
        except (TypeError, AttributeError) as error:
            raise InputError(
                "the dataflow has no length: set [normalization] num_samples", setting="num_samples"
            ) from error
    path, n_samples = folder / "samples.raw", 0
    shape: tuple[int, ...] | None = None
    dtype = np.dtype(np.float32)
    with path.open("wb") as file:
        for _ in range(math.ceil(n_wanted / settings.batch_size)):
            batch = _next(dataflow, n_samples)
            if shape is None:
                shape, dtype = batch.shape[1:], batch.dtype
            if batch.shape[1:] != shape or batch.dtype != dtype:
                raise InputError(
                    f"the dataflow gives batches of shapes {shape} and {batch.shape[1:]}: one is needed"
                )
            file.write(np.ascontiguousarray(batch).data)
            n_samples += len(batch)
    if not n_samples or shape is None:
        raise InputError("the dataflow gives no samples")
    samples: NDArray[Any] = np.memmap(path, dtype=dtype, mode="r", shape=(n_samples, *shape))
    return samples


def _next(dataflow: Any, n_samples: int) -> NDArray[Any]:
    try:
        batch = dataflow.next() if hasattr(dataflow, "next") else next(dataflow)
    except StopIteration:
        raise InputError(
            f"the dataflow ended after {n_samples} samples: lower [normalization] num_samples",
            n_samples=n_samples,
        ) from None
    return np.asarray(batch[0] if isinstance(batch, tuple) else batch)
