"""Write the samples of a ``dataflow`` to disk, because they are read twice and may not fit in memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
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
    dataflow : iterator, tf.data.Dataset, keras.utils.PyDataset or another iterable
        Gives batches: arrays, tuples or lists (samples, labels, ...), or dicts with one array of samples. It needs a
        length and ``batch_size`` if ``num_samples`` is not set.

    Notes
    -----
    Like the toolbox, it takes ``ceil(num_samples / [simulation] batch_size)`` batches, whatever their size.
    """
    n_wanted = settings.num_samples
    if n_wanted is None:
        try:
            n_wanted = len(dataflow) * int(dataflow.batch_size)
        except (TypeError, AttributeError) as error:
            raise InputError(
                "the dataflow has no length: set [normalization] num_samples", setting="num_samples"
            ) from error
    n_batches = math.ceil(n_wanted / settings.batch_size)
    path, lengths = folder / "samples.raw", list[int]()
    shape, dtype = (0,), np.dtype(np.float32)
    with path.open("wb") as file:
        for batch in map(_samples_of, islice(_batches(dataflow), n_batches)):
            if not lengths:
                shape, dtype = batch.shape[1:], batch.dtype
            if batch.shape[1:] != shape or batch.dtype != dtype:
                raise InputError(
                    f"the dataflow gives batches of shapes {shape} and {batch.shape[1:]}: all need one shape and type"
                )
            file.write(np.ascontiguousarray(batch).data)
            lengths.append(len(batch))
    n_samples = sum(lengths)
    if len(lengths) < n_batches:
        raise InputError(
            f"the dataflow ended after {n_samples} samples: lower [normalization] num_samples",
            n_samples=n_samples,
        )
    if not n_samples:
        raise InputError("the dataflow gives no samples")
    samples: NDArray[Any] = np.memmap(path, dtype=dtype, mode="r", shape=(n_samples, *shape))
    return samples


def _batches(dataflow: Any) -> Iterator[Any]:
    """Return an iterator of batches; an iterator is continued where it stands."""
    if hasattr(dataflow, "next"):
        return _by_next(dataflow)
    if isinstance(dataflow, Iterator):
        return dataflow
    if hasattr(dataflow, "__getitem__") and hasattr(dataflow, "__len__"):
        return (dataflow[number] for number in range(len(dataflow)))  # a PyDataset's own iterator never ends
    if isinstance(dataflow, Iterable):
        return iter(dataflow)
    raise InputError(
        f"the dataflow is a {type(dataflow).__name__}, which gives no batches: give an iterator, a tf.data.Dataset or "
        "a PyDataset"
    )


def _by_next(dataflow: Any) -> Iterator[Any]:
    with suppress(StopIteration):
        while True:
            yield dataflow.next()


def _samples_of(batch: Any) -> NDArray[Any]:
    """Return the samples of a batch.

    Raises
    ------
    InputError
        If it is not clear which they are, or they are not numbers.
    """
    if isinstance(batch, tuple) and batch:
        batch = batch[0]
    elif isinstance(batch, list) and len(batch) in (2, 3) and all(hasattr(each, "shape") for each in batch):
        if len({tuple(each.shape) for each in batch}) == 1:
            raise InputError(
                f"the dataflow gives lists of {len(batch)} arrays of one shape, which may be samples or samples and "
                "targets: give one array, or a tuple"
            )
        batch = batch[0]
    if isinstance(batch, Mapping):
        names = sorted(map(str, batch))
        name = names[0] if len(names) == 1 else "x" if "x" in names else None
        if name is None:
            raise InputError(
                f"the dataflow gives batches with the keys {names}: name the samples 'x', or give (samples, labels)"
            )
        batch = batch[name]
    try:
        samples = np.asarray(batch)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"the dataflow gives a {type(batch).__name__}, which is not an array: {error}"
        ) from None
    if samples.ndim == 0 or samples.dtype.kind not in "fiub":
        raise InputError(
            f"the dataflow gives a batch of dtype {samples.dtype} and shape {samples.shape}: give arrays of numbers "
            "with an axis of samples"
        )
    return samples
