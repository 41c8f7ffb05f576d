"""Scale rules of layers that join values: sums, products, quotients, Concatenate.

A rule as in `rules`: from a propagation and a node to the variables of the node's outputs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..graph import Node, Slot
from .movement import concatenated
from .propagation import Propagation
from .variables import Ids

__all__ = ["joined", "ones", "product", "quotient", "stacked", "tied"]


def tied(walk: Propagation, node: Node) -> list[Ids]:
    """Add, Subtract, Average, Maximum, Minimum: all inputs share their scale."""
    if not _constants_are_zero(node):
        return walk.pin_node(node, "adds or compares with a constant")
    ranks = {walk.rank(value) for value in node.inputs}
    if len(ranks) > 1:
        return walk.one_scale(node)
    first = walk.ids[node.inputs[0]]
    for value in node.inputs[1:]:
        walk.variables.tie(first, walk.ids[value], where=node.name)
        first = np.broadcast_arrays(first, walk.ids[value])[0]
    return [first]


def joined(walk: Propagation, node: Node) -> list[Ids]:
    """Concatenate: the scales side by side; one for all along an axis whose sizes are open."""
    if _constants(node):
        return stacked(walk, node)
    rank = walk.rank(node.outputs[0])
    axis = node.operation.axis
    if axis is None or axis in {0, -rank - 1} or any(walk.rank(v) != rank for v in node.inputs):
        return walk.one_scale(node)
    axis = axis - 1 if axis > 0 else axis
    shapes = [walk.graph.values[value].shape for value in node.inputs]
    ids = concatenated([walk.ids[v] for v in node.inputs], shapes, axis=axis)
    return walk.one_scale(node) if ids is None else [ids]


def stacked(walk: Propagation, node: Node) -> list[Ids]:
    """``keras.ops.stack`` and the like: one scale for all, which a constant among them would not follow."""
    if not _constants_are_zero(node):
        return walk.pin_node(node, "joins with a constant")
    return walk.one_scale(node)


def product(walk: Propagation, node: Node) -> list[Ids]:
    """Multiply: the gates have scale 1, the gated value passes its scale on."""
    if len(node.inputs) == 1:
        same_rank = walk.rank(node.inputs[0]) == walk.rank(node.outputs[0])
        return [walk.ids[node.inputs[0]]] if same_rank else walk.one_scale(node)
    free = [value for value in node.inputs if not walk.variables.is_pinned(walk.ids[value])]
    if len({walk.rank(value) for value in node.inputs}) > 1 or not free:
        return walk.pin_node(node, "a product of values of different rank") if free else ones(walk, node)
    gated = max(free, key=lambda value: _size(walk, value))
    for value in free:
        if value != gated:
            walk.variables.pin(walk.ids[value], where=node.name)
    if node.inputs.count(gated) > 1:
        walk.variables.pin(walk.ids[gated], where=node.name)
    return [walk.ids[gated]]


def _size(walk: Propagation, value: int) -> int:
    return int(np.prod([size or 1 for size in walk.graph.values[value].shape], dtype=np.int64))


def ones(walk: Propagation, node: Node) -> list[Ids]:
    """Return scale 1 for outputs that do not depend on the inputs' values."""
    return [walk.ones(value) for value in node.outputs]


def quotient(walk: Propagation, node: Node) -> list[Ids]:
    """Divide: by a constant it passes the scale on, by anything else it is pinned."""
    divides_by_constant = len(node.inputs) == 1 and isinstance(node.args[0], Slot)
    return walk.one_scale(node) if divides_by_constant else walk.pin_node(node, "a quotient of values")


def _constants(node: Node) -> list[Any]:
    from keras import tree

    arguments = tree.flatten((node.args, dict(node.kwargs)))
    return [each for each in arguments if each is not None and not isinstance(each, Slot)]


def _constants_are_zero(node: Node) -> bool:
    return all(not np.any(np.asarray(each)) for each in _constants(node))
