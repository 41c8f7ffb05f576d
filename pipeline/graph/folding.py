"""Which BatchNormalization can be folded into the linear layer before it."""

from __future__ import annotations

from collections import Counter

from .graph import Graph
from .kinds import activation_of, has_foreign_weights, is_batch_norm, is_linear
from .nodes import Node

__all__ = ["folded_norms"]


def folded_norms(graph: Graph) -> dict[int, int]:
    """Return, for each BatchNormalization that can be folded, the node of its producer.

    It can when the producer is linear without an activation function, nothing else takes the tensor
    between them, and the normalised axis is the producer's channel axis. Shared layers are folded when
    this holds for every call, with the same two layers.
    """
    pairs = {
        node.index: graph.values[node.inputs[0]].node
        for node in graph.nodes
        if is_batch_norm(node.operation) and _is_pair(graph, node)
    }
    n_calls = Counter(id(node.operation) for node in graph.nodes)
    together = Counter(_layers(graph, norm, producer) for norm, producer in pairs.items())
    return {
        norm: producer
        for norm, producer in pairs.items()
        for layers in [_layers(graph, norm, producer)]
        if together[layers] == n_calls[layers[0]] == n_calls[layers[1]]
    }


def _layers(graph: Graph, norm: int, producer: int) -> tuple[int, int]:
    return id(graph.nodes[norm].operation), id(graph.nodes[producer].operation)


def _is_pair(graph: Graph, node: Node) -> bool:
    value = graph.values[node.inputs[0]]
    producer = graph.nodes[value.node]
    return (
        len(node.inputs) == 1  # a mask given as a tensor would be a second one
        and is_linear(producer.operation)
        and not has_foreign_weights(producer.operation)
        and activation_of(producer.operation) == "linear"
        and graph.consumers[value.index] == (node.index,)
        and graph.values[node.outputs[0]].channel_axis == value.channel_axis
    )
