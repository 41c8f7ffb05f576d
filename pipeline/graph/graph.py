"""The graph of a network: what was read and who consumes what.

Holds no rules of normalisation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from .nodes import Node, Point, Value

__all__ = ["Graph"]


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes and values of a model; made by `read_graph`, or by `opaque_graph` where the model has no graph.

    Parameters
    ----------
    nodes : tuple of Node
        In topological order.
    values : tuple of Value
        ``values[i].index == i``.
    inputs, outputs : tuple of int
        Values, in the order of ``model.inputs`` and ``model.outputs``.
    tensors : mapping
        ``id`` of a symbolic tensor of the outermost model -> value.
    model : keras.Model
        The model that was read.
    folded : mapping of int to int
        Node of a BatchNormalization -> node of the linear layer that it can be folded into.
    every_point : mapping of str to Point
        Every node as a point, by name; several may stand for the same tensor.
    is_opaque : bool
        Whether it is one node that calls the whole model, because that is subclassed; made by `opaque_graph`.
    """

    nodes: tuple[Node, ...]
    values: tuple[Value, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    tensors: Mapping[int, int] = field(repr=False, default_factory=dict)
    model: Any = field(repr=False, default=None)
    folded: Mapping[int, int] = field(repr=False, default_factory=dict)
    every_point: Mapping[str, Point] = field(repr=False, default_factory=dict)
    is_opaque: bool = False

    @cached_property
    def consumers(self) -> tuple[tuple[int, ...], ...]:
        """For each value the indices of the nodes that take it, -1 for each time it is an output."""
        found: list[list[int]] = [[] for _ in self.values]
        for node in self.nodes:
            for value in node.inputs:
                found[value].append(node.index)
        for value in self.outputs:
            found[value].append(-1)
        return tuple(tuple(each) for each in found)

    @cached_property
    def first_calls(self) -> tuple[Node, ...]:
        """The first node of each layer and operation."""
        found: dict[int, Node] = {}
        for node in self.nodes:
            if node.operation is not None:
                found.setdefault(id(node.operation), node)
        return tuple(found.values())

    @property
    def input_specs(self) -> tuple[tuple[str, tuple[int | None, ...], str], ...]:
        """For each input of the model: its name, its shape without samples, its dtype."""
        values = (self.values[value] for value in self.inputs)
        return tuple((self.nodes[value.node].name, value.shape, value.dtype) for value in values)

    @property
    def input_keys(self) -> tuple[str, ...]:
        """For each input of the model the name that data call it by: its key in the dict the model was built with."""
        if self.is_opaque:
            return tuple(name for name, _, _ in self.input_specs)
        struct = getattr(self.model, "_inputs_struct", None)
        keys = {id(tensor): key for key, tensor in struct.items()} if isinstance(struct, dict) else {}
        names = (name for name, _, _ in self.input_specs)
        tensors = self.model.inputs
        return tuple(str(keys.get(id(tensor), name)) for tensor, name in zip(tensors, names, strict=True))

    def producer(self, value: int) -> Node:
        """Return the node that computes ``value``."""
        return self.nodes[self.values[value].node]
