"""Run a graph: from inputs to any of its values.

Pure Keras operations, so that it can be traced by ``tf.function`` and costs what the bare model costs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from .feeding import input_tensor
from .graph import Graph
from .keras_errors import layer_refusals
from .nodes import Node, Point, Slot

__all__ = ["call_node", "fed_values", "forward_function", "needed_nodes", "steps_to", "traced_forward"]


def needed_nodes(graph: Graph, wanted: Sequence[int]) -> tuple[Node, ...]:
    """Return the nodes that must run for ``wanted`` values, in topological order."""
    needed = set(wanted)
    found = []
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            needed.update(node.inputs)
            found.append(node)
    return tuple(reversed(found))


def forward_function(
    graph: Graph,
    points: Sequence[Point] | Sequence[int],
    *,
    dtype: str = "float32",
    on_value: Callable[[int, Any], Any] | None = None,
) -> Callable[[Sequence[Any]], tuple[list[Any], list[Any]]]:
    """Return a function from the inputs of a network to the tensors of ``points`` and its outputs.

    Parameters
    ----------
    graph : Graph
    points : sequence of Point or of int
        Points, or indices of values.
    dtype : str, default="float32"
        Of the tensors of the points.
    on_value : callable, optional
        Called with the index of each value and its tensor when that is computed; returns the tensor to go on with.

    Returns
    -------
    callable
        ``call(inputs) -> (point_tensors, output_tensors)``; inputs in the order of ``graph.inputs``, points as
        ``dtype`` in the order given, outputs in the dtype of the model. Inference mode; the weights are read from the
        model's variables at each call. Wrap it in ``tf.function``.
    """
    import keras

    wanted = [each if isinstance(each, int) else each.value for each in points]
    steps = steps_to(graph, [*wanted, *graph.outputs])

    def call(inputs: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        values: dict[int, Any] = {}

        def add(computed: Iterable[tuple[int, Any]]) -> None:
            for index, tensor in computed:
                values[index] = tensor if on_value is None else on_value(index, tensor)

        add(fed_values(graph, inputs).items())
        for node, extra in steps:
            add(zip(node.outputs, call_node(node, values, extra), strict=True))
        tensors = [keras.ops.cast(values[index], dtype) for index in wanted]
        return tensors, [values[index] for index in graph.outputs]

    return call


def traced_forward(
    graph: Graph, points: Sequence[Point] | Sequence[int], samples: Sequence[tuple[tuple[int, ...], Any]]
) -> Any:
    """Return `forward_function`, traced for any number of samples, as a run records it.

    Parameters
    ----------
    graph : Graph
    points : sequence of Point or of int
        Points, or indices of values.
    samples : sequence of (shape, dtype)
        Of one sample of each input, in the order of ``graph.inputs``.

    Notes
    -----
    Called eagerly, or traced for 4 samples, Keras' add takes one value of each sample for a bias of 4 channels.
    """
    import tensorflow as tf

    specs = [tf.TensorSpec((None, *shape), dtype) for shape, dtype in samples]
    return tf.function(forward_function(graph, points), input_signature=[specs], autograph=False)


def steps_to(graph: Graph, wanted: Sequence[int]) -> list[tuple[Node, dict[str, Any]]]:
    """Return the nodes that compute ``wanted`` from the inputs, in order, each with its arguments at inference."""
    return [
        (node, _inference_arguments(node.operation))
        for node in needed_nodes(graph, wanted)
        if node.type != "InputLayer"
    ]


def fed_values(graph: Graph, inputs: Sequence[Any], *, dtype: str | None = None) -> dict[int, Any]:
    """Return the values of a graph's inputs as tensors, by their index; floats as ``dtype``, if it is given."""
    import keras

    values: dict[int, Any] = {}
    for index, tensor in zip(graph.inputs, inputs, strict=True):
        if isinstance(tensor, np.ndarray):
            tensor = input_tensor(tensor, tensor.dtype)
        own = graph.values[index].dtype
        values[index] = keras.ops.convert_to_tensor(tensor, dtype=dtype if dtype and "float" in own else own)
    return values


def call_node(node: Node, values: dict[int, Any], extra: dict[str, Any]) -> list[Any]:
    """Return the outputs of a node, of the values that are known so far."""
    import keras

    args, kwargs = keras.tree.map_structure(
        lambda argument: values[argument.value] if isinstance(argument, Slot) else argument,
        (node.args, dict(node.kwargs)),
    )
    if node.operation is None:
        return [keras.ops.cast(*args)]
    with layer_refusals(node, doing="called"):
        outputs: list[Any] = keras.tree.flatten(node.operation(*args, **{**kwargs, **extra}))
    return outputs


def _inference_arguments(operation: Any) -> dict[str, Any]:
    """``model.predict`` calls every layer with training=False, whatever the call in the graph says."""
    if operation is None or "training" not in inspect.signature(operation.call).parameters:
        return {}
    return {"training": False}
