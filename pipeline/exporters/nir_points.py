"""Which points the neurons of a NIR graph may stand for. Knows graphs of layers, not NIR."""

from __future__ import annotations

from ..graph import Graph, Node

__all__ = ["layers_before"]

_LINEAR = frozenset({"Conv2D", "DepthwiseConv2D", "Dense"})


def layers_before(graph: Graph, node: Node) -> tuple[str, ...]:
    """Return a node and those that its value came through, back to the next merge or layer with a kernel."""
    names = [node.name]
    while len(node.inputs) == 1 and node.type not in _LINEAR:
        node = graph.producer(node.inputs[0])
        names.append(node.name)
    return tuple(names)
