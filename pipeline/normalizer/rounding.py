"""How large the rounding error of the original network itself is, measured against a float64 twin.

Slow, and therefore only asked where a residual is over the tolerance.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from numpy.typing import NDArray

from ...storage.errors import ActisketchError, InputError
from ..graph import Graph, Node, input_tensor, refusals_explained
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
        try:
            with refusals_explained(graph=twin):
                measured = _distances(
                    inputs,
                    (graph, values),
                    (copy, [places_of_copy[value] for value in values]),
                    (twin, [places[value] for value in values]),
                )
        except InputError as error:
            # No kernel for float64 here, or code of the user's own that knows float32 only.
            logger.warning("the rounding error of the network cannot be measured: %s", error)
            continue
        limits = believable_errors(graph, inputs)
        for key, (own_to_copy, copy_to_twin, own_to_twin) in zip(keys, measured, strict=True):
            if not own_to_copy <= copy_to_twin:
                name = graph.producer(wanted[key][0]).name
                logger.warning("at %r a rebuilt copy is another network: no rounding error there", name)
                continue
            found[key] = min(own_to_twin, limits[wanted[key][0]])
    logger.info("measured the rounding error of the original at %d points", len(found))
    return found


Places = tuple[Graph, Sequence[int]]
"""A network, and which of its values."""


def _distances(
    inputs: Sequence[NDArray[Any]], own: Places, copy: Places, twin: Places
) -> list[tuple[float, float, float]]:
    """Return for each value the largest difference of own to copy, of copy to twin, and of own to twin.

    Inside one ``tf.function``, as in `Comparison`: numbers come out, and activations are let go on the way.
    """
    import tensorflow as tf

    forwards = [graph.forward(values, dtype="float64") for graph, values in (own, copy, twin)]

    def apart(one: Any, other: Any) -> Any:
        return tf.reduce_max(tf.abs(one - other))

    def measure(tensors: list[Any]) -> list[list[Any]]:
        triples = zip(*(forward(tensors)[0] for forward in forwards), strict=True)
        return [[apart(one, two), apart(two, three), apart(one, three)] for one, two, three in triples]

    found = tf.function(measure, autograph=False)([input_tensor(array, array.dtype) for array in inputs])
    return [(float(a), float(b), float(c)) for a, b, c in found]


def _peaks(graph: Graph, values: Sequence[int], inputs: Sequence[NDArray[Any]]) -> list[float]:
    """Return the largest magnitude of each value, without holding the values of all layers at once."""
    import tensorflow as tf

    forward = graph.forward(values, dtype="float64")

    def measure(tensors: list[Any]) -> list[Any]:
        return [tf.reduce_max(tf.abs(each)) for each in forward(tensors)[0]]

    found = tf.function(measure, autograph=False)([input_tensor(array, array.dtype) for array in inputs])
    return [float(peak) for peak in found]


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
    peaks = dict(zip(numeric, _peaks(graph, numeric, inputs), strict=True))
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
