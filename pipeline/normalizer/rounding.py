"""How large the rounding error of the original network itself is, measured against a float64 twin.

Slow, and therefore only asked where a residual is over the tolerance.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import ActisketchError
from ..graph import Graph, Node
from ..graph.kinds import is_batch_norm, is_linear
from .rebuilding import rebuilt_copy
from .updating import largest_gain

__all__ = ["rounding_errors"]

logger = logging.getLogger(__name__)

EPSILONS: Final = {"float64": 2.0**-52, "float16": 2.0**-10, "bfloat16": 2.0**-7}
EPSILON: Final = 2.0**-23
"""Of float32, and of what computes in no float."""
TF32_EPSILON: Final = 2.0**-10
MOST_EPSILONS: Final = 128.0
"""Largest error, in epsilons of the largest number on the way, that is believed to be rounding: sums of n numbers that
cancel err by about sqrt(n), layers behind each other add up."""


def rounding_errors(
    graph: Graph,
    wanted: Mapping[int, tuple[int, int]],
    read: Callable[[int], list[NDArray[Any]]],
) -> dict[int, float]:
    """Return the largest difference between values of a network and of its float64 twin.

    Parameters
    ----------
    graph : Graph
        The network.
    wanted : mapping of key to (value, start)
        The value to measure and the first sample of the batch to measure it on.
    read : callable
        From the first sample of a batch to the inputs of the network.

    Returns
    -------
    dict of key to float
        In the units of the value, at most 128 epsilons of the largest number on the way to it. What cannot be measured
        is left out: a value that the twin does not have, or at which a copy in the network's own dtypes differs
        from it by more than rounding, because there the network cannot be built anew.

    Notes
    -----
    The twin is built by the code that builds the normalised network. The difference of a layer that this
    code cannot build is no rounding, but looks like it in the twin; the copy shows it.
    """
    try:
        copy, places_of_copy = rebuilt_copy(graph)
        twin, places = rebuilt_copy(graph, dtype="float64")
    except (ActisketchError, TypeError, ValueError) as error:
        # A layer of the user's own may know float32 only: then there is nothing to excuse a residual with.
        logger.warning("the rounding error of the network cannot be measured: %s", error)
        return {}
    found: dict[int, float] = {}
    for start in sorted({start for _, start in wanted.values()}):
        keys = [
            key
            for key, (value, first) in wanted.items()
            if first == start and value in places and value in places_of_copy
        ]
        values = [wanted[key][0] for key in keys]
        inputs = read(start)
        single = _forward(graph, values, inputs)
        again = _forward(copy, [places_of_copy[value] for value in values], inputs)
        double = _forward(twin, [places[value] for value in values], inputs)
        limits = believable_errors(graph, inputs)
        for key, own, same, exact in zip(keys, single, again, double, strict=True):
            if not _distance(own, same) <= _distance(same, exact):
                name = graph.producer(wanted[key][0]).name
                logger.warning("at %r a rebuilt copy is another network: no rounding error there", name)
                continue
            found[key] = min(_distance(own, exact), limits[wanted[key][0]])
    logger.info("measured the rounding error of the original at %d points", len(found))
    return found


def _forward(graph: Graph, values: Sequence[int], inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    tensors, _ = graph.forward(values, dtype="float64")(inputs)
    return [np.asarray(tensor) for tensor in tensors]


def _distance(one: NDArray[Any], other: NDArray[Any]) -> float:
    return float(np.max(np.abs(one - other), initial=0.0))


def believable_errors(graph: Graph, inputs: Sequence[NDArray[Any]]) -> dict[int, float]:
    """Return for every value the largest error on these inputs that can be called rounding, in its units.

    Parameters
    ----------
    graph : Graph
    inputs : sequence of ndarray
        One batch, in the order of ``graph.inputs``.

    Notes
    -----
    128 epsilons, of the coarsest dtype on the way, of the largest number on the way: an activation, or an
    activation times the largest weight that meets it, because what cancels inside a layer never
    shows outside.
    """
    numeric = [value.index for value in graph.values if "float" in value.dtype]
    peaks = {
        value: float(np.max(np.abs(array), initial=0.0))
        for value, array in zip(numeric, _forward(graph, numeric, inputs), strict=True)
    }
    largest: dict[int, float] = {}
    epsilons: dict[int, float] = {}
    for node in graph.nodes:
        gain = largest_gain(node) if is_linear(node.operation) or is_batch_norm(node.operation) else 1.0
        inside = [max(largest[value], peaks.get(value, 0.0) * gain) for value in node.inputs]
        for value in node.outputs:
            largest[value] = max([peaks.get(value, 0.0), *inside])
            coarse = [_epsilon(node, graph.values[value].dtype), *(epsilons[v] for v in node.inputs)]
            epsilons[value] = max(coarse)
    return {value: MOST_EPSILONS * epsilons[value] * largest[value] for value in largest}


def _epsilon(node: Node, dtype: str) -> float:
    computed = [dtype, str(getattr(node.operation, "compute_dtype", dtype))]
    found = max(EPSILONS.get(each, EPSILON) for each in computed)
    return max(found, TF32_EPSILON) if found == EPSILON and _has_tf32() else found


def _has_tf32() -> bool:
    """Tell whether float32 is multiplied with the 10 bits of TensorFloat-32, as on newer GPUs."""
    import tensorflow as tf

    return bool(
        tf.config.experimental.tensor_float_32_execution_enabled() and tf.config.list_physical_devices("GPU")
    )
