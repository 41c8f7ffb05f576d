"""The steps of a graph: which nodes must run for a value, and how one is called at inference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .feeding import input_tensor
from .graph import Graph
from .keras_errors import layer_refusals
from .nodes import Node, Slot

__all__ = ["call_node", "fed_values", "inference_arguments", "needed_nodes", "steps_to"]


def needed_nodes(graph: Graph, wanted: Sequence[int]) -> tuple[Node, ...]:
    """Return the nodes that must run for ``wanted`` values, in topological order."""
    needed = set(wanted)
    found = []
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            needed.update(node.inputs)
            found.append(node)
    return tuple(reversed(found))


def steps_to(graph: Graph, wanted: Sequence[int]) -> list[tuple[Node, dict[str, Any]]]:
    """Return the nodes that compute ``wanted`` from the inputs, in order, each with its arguments at inference."""
    return [
        (node, inference_arguments(node.operation))
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


def inference_arguments(operation: Any) -> dict[str, Any]:
    """``model.predict`` calls every layer with training=False, whatever the call in the graph says.

    One whose ``call`` does not take it hands it on to the layers within: augmentations of images have True by default.
    """
    import keras

    return {"training": False} if isinstance(operation, keras.Layer) else {}
