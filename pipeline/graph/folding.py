"""Which BatchNormalization can be folded into the linear layer before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .kinds import activation_of, is_batch_norm, is_linear

if TYPE_CHECKING:
    from .graph import Graph
    from .nodes import Node

__all__ = ["folded_norms"]


def folded_norms(graph: Graph) -> dict[int, int]:
    """Return, for each BatchNormalization that can be folded, the node of its producer.

    It can when the producer is linear without an activation function, nothing else takes
    the tensor between them, both are called once, and the normalised axis is the producer's channel axis.
    """
    n_calls: dict[int, int] = {}
    for node in graph.nodes:
        if node.operation is not None:
            n_calls[id(node.operation)] = n_calls.get(id(node.operation), 0) + 1
    return {
        node.index: graph.values[node.inputs[0]].node
        for node in graph.nodes
        if is_batch_norm(node.operation) and _is_foldable(graph, node, n_calls)
    }


def _is_foldable(graph: Graph, node: Node, n_calls: dict[int, int]) -> bool:
    value = graph.values[node.inputs[0]]
    producer = graph.nodes[value.node]
    return (
        len(node.inputs) == 1  # a mask given as a tensor would be a second one
        and is_linear(producer.operation)
        and activation_of(producer.operation) == "linear"
        and graph.consumers[value.index] == (node.index,)
        and n_calls[id(node.operation)] == 1
        and n_calls[id(producer.operation)] == 1
        and graph.values[node.outputs[0]].channel_axis == value.channel_axis
    )
