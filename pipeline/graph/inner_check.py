"""Check on a few samples that what is recorded inside nodes belongs to the sample that it is kept for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import InputError
from .forward import traced_forward
from .graph import Graph
from .model_check import coarsest_dtype, is_the_same
from .nodes import InnerPoint

__all__ = ["check_rows"]

logger = logging.getLogger(__name__)

N_SAMPLES = 3
"""With two, their exchange and the order of every second one could not be told from none."""
NEARER = 4
"""By this factor a row must be nearer to another sample's values to count as these."""
ROUNDED = {"float16": 0.01, "bfloat16": 0.05, "float32": 1e-5}
"""Of the largest value: less is rounding."""


def check_rows(graph: Graph, points: Sequence[InnerPoint], inputs: Sequence[Any]) -> None:
    """Refuse points whose rows are not those of one sample after the other.

    A layer may work on samples in another order, or on rows that are no samples, such as the windows of images. How
    many there are for a sample is known from a trace; here it is seen whether they are the same as where the sample
    is alone.

    Parameters
    ----------
    graph : Graph
        Not random.
    points : sequence of InnerPoint
    inputs : sequence of array or tensor
        One batch, in the order of ``graph.inputs``.

    Raises
    ------
    InputError
        For the first such point.

    Notes
    -----
    Three samples go through the network in two orders, since a layer may sort them by their values, and each with
    copies of itself for company. A network that takes batches of one size only gets batches of that size.
    """
    if not points or len(chosen := _different(inputs)) < 2:
        return
    import tensorflow as tf

    samples = [(tuple(tensor.shape[1:]), tensor.dtype) for tensor in inputs]
    forward = traced_forward(graph, points, samples)

    def passed(order: Sequence[int], n_rows: int) -> list[Any]:
        rows = np.resize(np.asarray(chosen)[list(order)], n_rows)
        tensors, _ = forward([tf.gather(tensor, rows) for tensor in inputs])
        return [tensor[: len(chosen)] for tensor in tensors]

    def passes(n_rows: int) -> tuple[list[Any], list[Any], list[list[Any]]]:
        places = range(len(chosen))
        return passed(places, n_rows), passed(places[::-1], n_rows), [passed([k], n_rows) for k in places]

    try:
        ordered, turned, alone = passes(len(chosen))
    except Exception as error:  # whatever the network's own code raises
        logger.info("the network takes no batch of %d samples: %s", len(chosen), error)
        ordered, turned, alone = passes(len(inputs[0]))
    dtype = coarsest_dtype(graph)
    for place, point in enumerate(points):
        own = np.stack([np.asarray(each[place][0]) for each in alone])
        if not (_are_own(ordered[place], own, dtype) and _are_own(turned[place], own[::-1], dtype)):
            raise InputError(
                f"the layer {point.name!r} ({point.layer_type}) works on rows of which each belongs to several "
                "samples, or that are not in the order of the samples: leave it out with record.points",
                point=point.name,
            )


def _different(inputs: Sequence[Any]) -> list[int]:
    """Return the first samples of a batch of which no two are equal: equal ones have no order."""
    found: dict[bytes, int] = {}
    for row in range(len(inputs[0])):
        found.setdefault(b"".join(np.asarray(tensor[row]).tobytes() for tensor in inputs), row)
        if len(found) == N_SAMPLES:
            break
    return list(found.values())


def _are_own(rows: Any, own: NDArray[Any], dtype: str) -> bool:
    """Return whether rows are those of the samples, and none is much nearer to those of another sample.

    Samples that differ little in large values, such as temperatures in kelvin, differ by less than rounding may.
    """
    import tensorflow as tf

    if not is_the_same(tf.convert_to_tensor(own), rows, dtype=dtype):
        return False
    given, own = (
        np.asarray(rows, np.float64).reshape(len(own), -1),
        own.astype(np.float64).reshape(len(own), -1),
    )
    gaps = np.nan_to_num(np.abs(given[:, None] - own[None]), nan=0.0, posinf=0.0).max(axis=-1, initial=0.0)
    rounded = ROUNDED[dtype] * np.max(np.abs(own), initial=0.0, where=np.isfinite(own))
    at_home = np.diagonal(gaps)
    return not bool(np.any((at_home > rounded) & (NEARER * gaps.min(axis=1) < at_home)))
