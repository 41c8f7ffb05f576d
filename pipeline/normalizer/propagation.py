"""Walk a graph and give every value its scale variables.

Knows the modes, the user's exceptions and the bookkeeping of shared layers; what a layer does to scales is in
`rules`.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import InputError
from ..graph import Graph, Node
from ..graph.kinds import held_layer
from .movement import spread
from .variables import ONE, Ids, ScaleVariables

__all__ = ["Exceptions", "Mode", "Pinned", "Propagation"]

Mode = Literal["layer", "channel"]


@dataclass(frozen=True, slots=True)
class Exceptions:
    """The user's exceptions: layers without a rule, and layers that shall be treated differently.

    Patterns in the manner of a shell, matched against the name of a node, of its layer and its class name.
    """

    pin: tuple[str, ...] = ()
    """Scale 1 at all inputs and outputs."""
    identity: tuple[str, ...] = ()
    """Positively homogeneous: passes one common scale from its inputs to its outputs."""

    def says(self, node: Node) -> Literal["pin", "identity"] | None:
        """Return what the user asked for at ``node``."""
        if _any_match(self.pin, node):
            return "pin"
        return "identity" if _any_match(self.identity, node) else None

    def check(self, graph: Graph) -> None:
        """Raise InputError for a pattern that matches no layer."""
        for keyword, patterns in (("pin", self.pin), ("treat_as_identity", self.identity)):
            for pattern in patterns:
                if not any(_any_match((pattern,), node) for node in graph.nodes):
                    names = ", ".join(node.name for node in graph.nodes[:8])
                    raise InputError(
                        f"normalize.{keyword} = {pattern!r} matches no layer: the network has {names}...; "
                        "name a layer, a class such as 'Lambda', or a pattern such as 'block1_*'",
                        pattern=pattern,
                    )


def _any_match(patterns: Collection[str], node: Node) -> bool:
    names = (node.name, node.layer_name, node.type)
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns for name in names)


@dataclass(frozen=True, slots=True)
class Pinned:
    """A layer whose inputs keep their scale 1."""

    name: str
    type: str
    reason: str


@dataclass(eq=False)
class Propagation:
    """The scale variables of every value of a graph, while they are being found."""

    graph: Graph
    mode: Mode
    exceptions: Exceptions
    keep_structure: bool = False
    """Fold nothing and add nothing: for an update of the weights in place."""
    variables: ScaleVariables = field(default_factory=ScaleVariables)
    ids: dict[int, Ids] = field(default_factory=dict)
    parameters: dict[int, tuple[Ids, Ids]] = field(default_factory=dict)
    """id of a layer -> scale variables of its input and output channels; shared by all its calls."""
    pinned: list[Pinned] = field(default_factory=list)

    def rank(self, value: int) -> int:
        """Return the number of axes of a value, without the samples'."""
        return len(self.graph.values[value].shape)

    def start(self, input_factor: Mapping[int, NDArray[np.float64]]) -> None:
        """Set the scales of the inputs: arrays of one number or one per channel."""
        for value, factors in input_factor.items():
            recorded = self.graph.values[value]
            name = f"input {self.graph.producer(value).name!r}"
            vector = self.variables.fixed(factors, name=name)
            if np.all(factors == 1.0):
                vector = np.full(1, ONE, dtype=np.int64)
            self.ids[value] = spread(vector, rank=self.rank(value), axis=recorded.channel_axis)

    def pin_node(self, node: Node, reason: str) -> list[Ids]:
        """Pin everything that goes in and out of ``node``."""
        for value in node.inputs:
            self.variables.pin(self.ids[value], where=node.name)
        self.pinned.append(Pinned(node.name, node.type, reason))
        return [self.ones(value) for value in node.outputs]

    def pin_parameters(self, node: Node) -> None:
        """Keep the weights of a layer as they are, for all of its calls."""
        one = np.full(1, ONE, dtype=np.int64)
        for ids in self.parameters.setdefault(id(held_layer(node.operation)), (one, one)):
            self.variables.pin(ids, where=node.name)

    def pin_shared_weights(self) -> None:
        """Keep the weights that two layers have, as where a layer of the user holds one that the network calls too.

        In place both would compute with the new ones. A rebuilt network has a copy for each.
        """
        holders: dict[int, dict[int, Node]] = {}
        for node in self.graph.first_calls:
            layer = held_layer(node.operation)
            for weight in getattr(layer, "weights", ()):
                holders.setdefault(id(weight), {})[id(layer)] = node
        for nodes in holders.values():
            for key, node in nodes.items():
                if len(nodes) > 1 and key in self.parameters:
                    self.pin_parameters(node)
                    others = ", ".join(repr(other.name) for other in nodes.values() if other is not node)
                    pinned = Pinned(node.name, node.type, f"shares weights with {others}")
                    self.pinned += [pinned] if pinned not in self.pinned else []

    def ones(self, value: int) -> Ids:
        """Return the pinned scale for a value."""
        return np.full((1,) * self.rank(value), ONE, dtype=np.int64)

    def free(self, value: int) -> Ids:
        """Return a new scale for a value."""
        return self.variables.new(1).reshape((1,) * self.rank(value))

    def one_scale(self, node: Node) -> list[Ids]:
        """Tie all inputs of ``node`` to one common scale and give it to all outputs."""
        found = [self.ids[value].reshape(-1) for value in node.inputs]
        for ids in found:
            self.variables.tie(ids, found[0][:1], where=node.name)
        return [found[0][:1].reshape((1,) * self.rank(value)) for value in node.outputs]

    def channels(self, node: Node, value: int, *, axis: int) -> Ids:
        """Make the scales of ``value`` equal along every axis but ``axis``; return them as a vector."""
        ids = self.ids[value]
        kept = axis % ids.ndim if ids.ndim else 0
        for other in range(ids.ndim):
            if other != kept and ids.shape[other] > 1:
                first = np.take(ids, [0], axis=other)
                self.variables.tie(ids, first, where=node.name)
                ids = first
        return ids.reshape(-1)

    def free_outputs(self, node: Node, n_channels: int | None) -> Ids:
        """Return new variables for the output channels of a layer: one, or one for each in channel mode."""
        per_channel = self.mode == "channel" and n_channels is not None
        return self.variables.new(int(n_channels or 1) if per_channel else 1)

    def through_parameters(self, node: Node, inputs: Ids, n_channels: int | None) -> Ids:
        """Return the output variables of a layer with weights, the same for all calls of a shared one."""
        key = id(node.operation)
        if key not in self.parameters:
            self.parameters[key] = (inputs, self.free_outputs(node, n_channels))
        known, outputs = self.parameters[key]
        self.variables.tie(inputs, known, where=node.name)
        return outputs
