"""Run a graph layer by layer, eagerly: each value is yielded when it is computed and freed when nothing needs it.

For few samples. Nothing is traced, which for a large network takes longer than computing a few batches; and any layer
can compute in another precision than its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ...storage.errors import InputError
from .graph import Graph
from .nodes import Node
from .state import layers_within
from .steps import call_node, fed_values, steps_to

__all__ = ["values_in_turn"]


def values_in_turn(
    graph: Graph, inputs: Sequence[Any], wanted: Sequence[int], *, dtype: str | None = None
) -> Iterator[tuple[int, Any]]:
    """Yield each wanted value with its index, in the order of the graph.

    Parameters
    ----------
    graph : Graph
    inputs : sequence of array or tensor
        One batch, in the order of ``graph.inputs``.
    wanted : sequence of int
        Values.
    dtype : str, optional
        Every layer computes in it, with its own weights; by default each in its own dtype.

    Notes
    -----
    A caller that drops each value before it takes the next needs no more memory than the network itself.
    """
    asked = set(wanted)
    steps = steps_to(graph, wanted)
    uses = Counter(value for node, _ in steps for value in node.inputs)
    values = fed_values(graph, inputs, dtype=dtype)
    yield from ((value, values[value]) for value in graph.inputs if value in asked)
    for node, extra in steps:
        values.update(zip(node.outputs, _called(node, values, extra, dtype), strict=True))
        uses.subtract(node.inputs)
        for value in node.outputs:
            if value in asked:
                yield value, values[value]
        for value in {*node.inputs, *node.outputs}:
            if uses[value] <= 0:
                values.pop(value, None)


def _called(node: Node, values: dict[int, Any], extra: dict[str, Any], dtype: str | None) -> list[Any]:
    import keras

    if dtype is None:
        return _call(node, values, extra)
    if node.operation is None:
        slot, own = node.args
        return [keras.ops.cast(values[slot.value], dtype if "float" in own else own)]
    with _computing_in(node.operation, dtype):
        return _call(node, values, extra)


def _call(node: Node, values: dict[int, Any], extra: dict[str, Any]) -> list[Any]:
    import tensorflow as tf

    try:
        return call_node(node, values, extra)
    except InputError:
        # On a CPU some operations run only when they are compiled, such as convolutions with ``channels_first``.
        outputs: list[Any] = tf.function(lambda: call_node(node, values, extra), autograph=False)()
        return outputs


@contextmanager
def _computing_in(operation: Any, dtype: str) -> Iterator[None]:
    """Make a layer and the layers inside it compute in ``dtype``; bare operations follow their inputs."""
    import keras

    layers = layers_within(operation)
    if any(layer.quantization_mode for layer in layers):
        raise InputError(f"the layer {operation.name!r} is quantised: in float it would be another layer")
    kept = [(layer, layer._dtype_policy) for layer in layers if "float" in str(layer.compute_dtype)]
    try:
        for layer, _ in kept:
            policy = keras.DTypePolicy(dtype)
            # Where both dtypes of a policy are the same, Keras does not cast the weights.
            policy._variable_dtype = layer.variable_dtype
            layer._dtype_policy = policy
        yield
    finally:
        for layer, policy in kept:
            layer._dtype_policy = policy
