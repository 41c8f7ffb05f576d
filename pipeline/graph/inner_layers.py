"""The layers inside the nodes of a graph: their names, and which of them are leaves.

Only looks at the layers; nothing is called.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from .graph import Graph
from .library import is_library

__all__ = ["InnerLayer", "inner_layers", "is_function", "is_leaf", "leaves_of_own_layers", "named_inside"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class InnerLayer:
    """A layer that a layer of the graph holds, at any depth."""

    path: str
    """The names of the layers around it and its own; for one that is a node of the graph too, the node's name."""
    layer: Any
    node: int
    """The first node of the graph that holds it."""
    n_graph_calls: int
    """How often the graph itself calls it."""
    is_step: bool
    """Whether a layer is around it that calls it once for each step, or in a tf.function of its own."""


def inner_layers(graph: Graph) -> tuple[InnerLayer, ...]:
    """Return the layers inside the nodes of ``graph``, those around others first, each once."""
    calls: dict[int, list[str]] = {}
    for node in graph.nodes:
        calls.setdefault(id(node.operation), []).append(node.name)
    taken = set() if graph.is_opaque else {node.name for node in graph.nodes}
    found: dict[int, InnerLayer] = {}

    def walk(holder: Any, node: int, prefix: str, is_step: bool) -> None:
        is_step = is_step or calls_by_step(holder)
        for layer in _held(holder):
            if id(layer) in found:
                continue
            in_graph = calls.get(id(layer), [])
            path = in_graph[0] if in_graph else _unique(f"{prefix}{layer.name}", taken)
            found[id(layer)] = InnerLayer(
                path=path, layer=layer, node=node, n_graph_calls=len(in_graph), is_step=is_step
            )
            walk(layer, node, f"{path}/", is_step)

    for node in graph.first_calls:
        # The name of a whole model says nothing about the place of its layers.
        walk(node.operation, node.index, "" if graph.is_opaque else f"{node.name}/", False)
    return tuple(found.values())


def named_inside(graph: Graph, names: Iterable[str]) -> frozenset[str]:
    """Return those of the names that points inside nodes of ``graph`` have."""
    paths = {each.path for each in inner_layers(graph)}
    return frozenset(
        name for name in names if name not in graph.every_point and {name, name.rpartition(":")[0]} & paths
    )


def leaves_of_own_layers(graph: Graph) -> tuple[str, ...]:
    """Return the names of the leaves inside nodes whose class is user-defined."""
    return tuple(
        each.path
        for each in inner_layers(graph)
        if is_leaf(each.layer)
        and not (each.is_step or each.n_graph_calls or is_library(type(graph.nodes[each.node].operation)))
    )


def is_leaf(layer: Any) -> bool:
    """Return whether a layer has weights of its own and no layer inside it has any.

    A recurrent layer and a TimeDistributed count as one, for they call what they hold once for each step. So does a
    layer whose ``call`` is a tf.function.
    """
    if not getattr(layer, "weights", None):
        return False
    if calls_by_step(layer):
        return True
    own = [*layer._trainable_variables, *layer._non_trainable_variables]
    return bool(own) and not any(each.weights for each in _held(layer))


def calls_by_step(layer: Any) -> bool:
    """Return whether a layer calls what it holds once for each step of its input, or in a tf.function of its own."""
    import keras

    return isinstance(layer, (keras.layers.RNN, keras.layers.TimeDistributed)) or is_function(layer)


def is_function(layer: Any) -> bool:
    """Return whether the ``call`` of a layer is a tf.function, which is traced apart, and not again each time."""
    return hasattr(getattr(layer, "call", None), "python_function")


def _held(holder: Any) -> Iterator[Any]:
    import keras

    if hasattr(holder, "_flatten_layers"):
        for layer in holder._flatten_layers(include_self=False, recursive=False):
            if not isinstance(layer, keras.layers.InputLayer):
                yield layer


def _unique(name: str, taken: set[str]) -> str:
    found, count = name, 1
    while found in taken:
        found, count = f"{name}#{count}", count + 1
    taken.add(found)
    return found
