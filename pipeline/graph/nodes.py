"""The values of a graph and the nodes that compute them.

Plain frozen records: no running, no rules. A *value* is a tensor of the graph; a *node* is one
call of one layer (or bare operation), so a shared layer has as many nodes as calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["AnyPoint", "InnerPoint", "Node", "Point", "Slot", "Value"]


@dataclass(frozen=True, slots=True)
class Slot:
    """Stands in the recorded arguments of a call where a tensor was."""

    value: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A tensor of the graph."""

    index: int
    shape: tuple[int | None, ...]
    """Without the axis of the samples; None where the network leaves a size open."""
    dtype: str
    node: int
    """Index of the node that computes it."""
    channel_axis: int
    """Negative, so that it holds with and without the axis of the samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One call of one layer or operation."""

    index: int
    """Position in topological order."""
    name: str
    """Unique: ``"conv1"``, ``"inner/conv1"`` in a nested model, ``"conv1:1"`` for a second call."""
    layer_name: str
    """The layer's own name; shared by all nodes of a shared layer."""
    type: str
    """Class name of the layer, ``"ops.Add"`` for a bare operation, ``"InputLayer"``, ``"Cast"``."""
    operation: Any
    """The Keras layer or operation itself; None for a cast at the border of a nested model."""
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    args: tuple[Any, ...] = ()
    """Positional arguments of the call with a `Slot` for every tensor."""
    kwargs: Mapping[str, Any]
    call: int = 0
    """0 for the first call of this layer, 1 for the second..."""
    n_params: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A place in the graph where activations are recorded."""

    name: str
    """Name of the node that it stands for; unique."""
    layer_name: str
    layer_type: str
    activation: str
    """The function applied last before the recorded tensor; ``"linear"`` for none."""
    value: int
    """The recorded tensor, an index into ``graph.values``."""
    node: int
    shape: tuple[int | None, ...]
    """Without the axis of the samples."""
    channel_axis: int
    pinned: bool
    """Its factor is always 1: softmax and everything else that is not positively homogeneous."""
    n_params: int
    """Of its layer, and of what is folded into it."""

    @property
    def n_channels(self) -> int | None:
        """Size of the channel axis; 1 for a point without axes."""
        return self.shape[self.channel_axis] if self.shape else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class InnerPoint:
    """A place inside a node of the graph: the output of one call of a layer that another layer calls.

    No rule of the graph reaches it: it is never tied or pinned, and its layer is never rewritten.
    """

    name: str
    """``"encoder/block_1/mha/query"``: the names of the layers around it; ``":1"`` for its layer's second call."""
    layer_name: str
    layer_type: str
    activation: str
    """The function that the layer applies last; ``"linear"`` for none."""
    node: int
    """The node of the graph that holds it."""
    shape: tuple[int | None, ...]
    """Without the axis of the samples."""
    channel_axis: int
    n_params: int
    layer: Any
    """The Keras layer itself."""
    call: int
    """0 for the first call of this layer, 1 for the second; calls in the graph come first."""
    place: int
    """Among all calls inside nodes, in the order of a trace."""
    n_rows: int = 1
    """Rows along the tensor's first axis for each sample: 4 windows of an image are 4, the first axis of `shape`.

    0: all samples share one row, as positions do.
    """
    pinned: bool = False


AnyPoint = Point | InnerPoint
