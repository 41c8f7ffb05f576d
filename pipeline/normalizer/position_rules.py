"""Scale rules of layers that move, drop or summarise positions: pooling, padding, reshaping, reductions.

A rule as in `rules`: from a propagation and a node to the variables of the node's outputs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..graph import Node, Slot
from .movement import flattened, reshaped, spread
from .propagation import Propagation
from .variables import Ids

__all__ = [
    "flatten",
    "input_channel_axis",
    "padding",
    "per_channel",
    "permute",
    "reduction",
    "repeat_vector",
    "reshape",
    "resizing",
    "same",
    "transpose",
]


def input_channel_axis(layer: Any, rank: int) -> int:
    """Return the channel axis of what a layer takes, from its ``data_format``."""
    return -rank if getattr(layer, "data_format", None) == "channels_first" else -1


def per_channel(walk: Propagation, node: Node, axis: int | None = None) -> list[Ids]:
    """Pooling, padding, cropping, upsampling: mixes positions, never channels, which lie along ``axis``."""
    value, output = node.inputs[0], node.outputs[0]
    if axis is None:
        # Not that of the value: a Cropping1D behind a Concatenate along the positions crops these.
        axis = input_channel_axis(node.operation, walk.rank(value))
    vector = walk.channels(node, value, axis=axis)
    out_axis = axis if walk.rank(output) == walk.rank(value) else -1
    return [spread(vector, rank=walk.rank(output), axis=out_axis)]


def padding(walk: Propagation, node: Node) -> list[Ids]:
    """``keras.ops.pad``: with zeros or with what lies within, channel by channel if there are no new channels."""
    given = [*node.args[1:], *node.kwargs.values()]
    if any(each is not None and (isinstance(each, Slot) or np.any(np.asarray(each))) for each in given):
        return walk.pin_node(node, "pads with a value that is not 0")
    widths = node.operation.pad_width
    axis = walk.graph.values[node.outputs[0]].channel_axis
    of_channels = widths[0] if len(widths) == 1 else widths[axis]
    return walk.one_scale(node) if any(of_channels) else per_channel(walk, node, axis)


def resizing(walk: Propagation, node: Node) -> list[Ids]:
    """Resizing: channel by channel, unless it pads with a value that is not 0."""
    layer = node.operation
    if layer.pad_to_aspect_ratio and layer.fill_mode == "constant" and layer.fill_value:
        return walk.pin_node(node, f"pads with {layer.fill_value:g}")
    return per_channel(walk, node)


def same(walk: Propagation, node: Node) -> list[Ids]:
    """Pass the scales on as they are."""
    return [walk.ids[node.inputs[0]] for _ in node.outputs]


def _moved(walk: Propagation, node: Node, ids: Ids | None) -> list[Ids]:
    return walk.one_scale(node) if ids is None else [ids]


def flatten(walk: Propagation, node: Node) -> list[Ids]:
    """Flatten: each element keeps its scale."""
    value = node.inputs[0]
    first = node.operation.data_format == "channels_first"
    shape = walk.graph.values[value].shape
    return _moved(walk, node, flattened(walk.ids[value], shape, channels_first=first))


def reshape(walk: Propagation, node: Node) -> list[Ids]:
    """Reshape: each element keeps its scale."""
    shape, target = (walk.graph.values[v].shape for v in (node.inputs[0], node.outputs[0]))
    return _moved(walk, node, reshaped(walk.ids[node.inputs[0]], shape, target))


def permute(walk: Propagation, node: Node) -> list[Ids]:
    """Permute: the scales move with the axes."""
    return [walk.ids[node.inputs[0]].transpose([axis - 1 for axis in node.operation.dims])]


def transpose(walk: Propagation, node: Node) -> list[Ids]:
    """``keras.ops.transpose``: the scales move with the axes, if the samples stay first."""
    n_axes = walk.rank(node.inputs[0]) + 1
    axes = [axis % n_axes for axis in node.operation.axes or ()]
    if not axes or axes[0] != 0:
        return walk.one_scale(node)
    return [walk.ids[node.inputs[0]].transpose([axis - 1 for axis in axes[1:]])]


def repeat_vector(walk: Propagation, node: Node) -> list[Ids]:
    """RepeatVector: (n,) becomes (repeats, n)."""
    return [walk.ids[node.inputs[0]].reshape(1, -1)]


def reduction(walk: Propagation, node: Node) -> list[Ids]:
    """Mean, sum or maximum over positions: the channels keep their scales if they are kept."""
    axis, keepdims = node.operation.axis, node.operation.keepdims
    if getattr(node.operation, "initial", None):
        return walk.pin_node(node, f"compares with {node.operation.initial:g}")
    rank = walk.rank(node.inputs[0])
    axes = {axis} if isinstance(axis, int) else set(axis or ())
    reduced = {a - 1 if a > 0 else a + rank for a in axes}
    kept = [a for a in range(rank) if a not in reduced]
    if not axes or 0 in axes or -rank - 1 in axes or len(kept) != 1:
        return walk.one_scale(node)
    vector = walk.channels(node, node.inputs[0], axis=kept[0])
    out_rank = walk.rank(node.outputs[0])
    return [spread(vector, rank=out_rank, axis=kept[0] if keepdims else -1)]
