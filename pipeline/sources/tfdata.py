"""Rows of a ``tf.data.Dataset``: finite, in a fixed order, batched or not.

Nothing is imported here: whoever has a data set has imported TensorFlow.
"""

from __future__ import annotations

import logging
from typing import Any

from ...storage.errors import InputError
from .streams import StreamReader

__all__ = ["dataset_reader"]

logger = logging.getLogger(__name__)

# What these steps give depends on a function of the user, not on the steps before them.
_ANYTHING = ("FlatMap", "Interleave", "GroupByWindow")
_INFINITE, _UNKNOWN = -1, -2  # tf.data.INFINITE_CARDINALITY and UNKNOWN_CARDINALITY


def dataset_reader(dataset: Any, *, num_samples: int | None, batched: bool | None) -> StreamReader:
    """Return the rows of a data set.

    Parameters
    ----------
    dataset : tf.data.Dataset
        Its elements are ``x``, ``(x, y)`` or ``(x, y, weights)``.
    num_samples : int, optional
        Use only the first N samples. Without it, a data set of batches is counted by one pass: the size of its last
        batch is not known before.
    batched : bool, optional
        Default: what the steps of the data set say; else batched if every part has an open first axis.

    Raises
    ------
    InputError
        If it is infinite without ``num_samples``, empty, shuffled differently each time, or holds no tensors.
    """
    origin = "the tf.data.Dataset"
    spec = dataset.element_spec
    shapes = [leaf.shape for leaf in _leaves(spec) if hasattr(leaf, "shape")]
    if not shapes:
        raise InputError(f"{origin} has elements without tensors: {spec}")
    if batched is None:
        batched = _looks_batched(dataset, shapes)
    cardinality = int(dataset.cardinality())
    if num_samples is None:
        if cardinality == _INFINITE:
            raise InputError(f"{origin} never ends: remove .repeat(), or set num_samples")
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


def _looks_batched(dataset: Any, shapes: list[Any]) -> bool:
    if any(shape.rank == 0 for shape in shapes):  # a label of one sample
        return False
    seen = dataset
    while seen is not None:  # a batch step with drop_remainder fixes the first axis
        name = type(seen).__name__
        if "Unbatch" in name or "Batch" in name:
            return "Unbatch" not in name
        if any(step in name for step in _ANYTHING):
            break
        seen = getattr(seen, "_input_dataset", None)
    if not all(shape.rank is None or shape[0] is None for shape in shapes):
        return False
    first = shapes[0]
    if first.rank is not None and first.rank > 2 and first[1] is None:
        message = (
            "elements of shape %s are taken for batches, although no step of the data set says so: give "
            "as_source(data, batched=False) if they are single samples"
        )
        logger.warning(message, tuple(first))
    return True
