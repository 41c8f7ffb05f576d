"""Rows of a ``tf.data.Dataset``: finite, in a fixed order, batched or not.

The data set brings TensorFlow along; nothing is imported here before it is there.
"""

from __future__ import annotations

import logging
from typing import Any

from ...storage.errors import InputError
from .streams import StreamReader

__all__ = ["dataset_reader"]

logger = logging.getLogger(__name__)

_INFINITE, _UNKNOWN = -1, -2  # tf.data.INFINITE_CARDINALITY and UNKNOWN_CARDINALITY


def dataset_reader(dataset: Any, *, num_samples: int | None, batched: bool | None) -> StreamReader:
    """Return the rows of a data set.

    Parameters
    ----------
    dataset : tf.data.Dataset
        Its elements are ``x``, ``(x, y)`` or ``(x, y, weights)``.
    num_samples : int, optional
        Use the first so many. Without it a data set of batches is counted by one pass, because the size of
        its last batch is known only then.
    batched : bool, optional
        Default: batched if the first axis of the elements is open, or a batch step is in the pipeline.

    Raises
    ------
    InputError
        If it is infinite without ``num_samples``, empty, shuffled anew each time, or holds no tensors.
    """
    origin = "the tf.data.Dataset"
    spec = dataset.element_spec
    shapes = [leaf.shape for leaf in _leaves(spec) if hasattr(leaf, "shape")]
    if not shapes:
        raise InputError(f"{origin} has elements without tensors: {spec}")
    if batched is None:
        batched = _looks_batched(dataset, shapes[0])
    cardinality = int(dataset.cardinality())
    if num_samples is None:
        if cardinality == _INFINITE:
            raise InputError(f"{origin} has no end: remove .repeat(), or say num_samples")
        num_samples = _count(dataset, cardinality, batched=batched)
        if num_samples == 0:
            raise InputError(f"{origin} is empty: at least one sample is needed")
    return StreamReader(
        lambda: dataset.as_numpy_iterator(), n_rows=num_samples, batched=batched, origin=origin
    )


def _count(dataset: Any, cardinality: int, *, batched: bool) -> int:
    if not batched and cardinality != _UNKNOWN:
        return cardinality
    logger.info("counting the samples of the data set by reading it once; num_samples would save that")
    n_samples = 0
    for element in dataset.as_numpy_iterator():
        n_samples += len(_leaves(element)[0]) if batched else 1
    return n_samples


def _leaves(spec: Any) -> list[Any]:
    """Return the parts of the input, and then of the rest, of an element or its specification."""
    if isinstance(spec, dict):
        return [leaf for value in spec.values() for leaf in _leaves(value)]
    if isinstance(spec, tuple | list):
        return [leaf for value in spec for leaf in _leaves(value)]
    return [spec]


def _looks_batched(dataset: Any, shape: Any) -> bool:
    if shape.rank is not None and shape.rank > 0 and shape[0] is None:
        return True
    seen = dataset
    while seen is not None:  # a batch step with drop_remainder fixes the first axis
        name = type(seen).__name__
        if "Unbatch" in name:
            return False
        if "Batch" in name:
            return True
        seen = getattr(seen, "_input_dataset", None)
    return False
