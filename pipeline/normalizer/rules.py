"""What each layer does to scales: one small rule for each kind, in one table.

A rule takes the propagation and a node whose inputs have scale variables, ties or pins what must be, and
returns the variables of the node's outputs. The numbers come later (`solving`), the weights after them (`rescaling`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from ...storage.errors import InputError
from ..graph import Node, Slot
from ..graph.kinds import (
    BOUNDED,
    HOMOGENEOUS,
    TYING_MERGES,
    activation_of,
    has_foreign_weights,
    is_activation,
    is_from_keras,
    is_identity,
    is_linear,
    relu_layer,
)
from .movement import concatenated, flattened, permuted, repeated, reshaped, spread
from .pinning import PINNED
from .propagation import Pinned, Propagation
from .variables import Ids

__all__ = ["outputs_of"]

Rule = Callable[[Propagation, Node], list[Ids]]


def outputs_of(walk: Propagation, node: Node) -> list[Ids]:
    """Return the scale variables of the outputs of ``node``.

    Raises
    ------
    InputError
        For a layer without a rule about which ``walk.exceptions`` says nothing.
    """
    asked = walk.exceptions.says(node)
    if asked == "pin":
        walk.pin_parameters(node)
        return walk.pin_node(node, "asked for")
    if asked == "identity":
        return _identified(walk, node)
    if node.type == "Cast":
        return _cast(walk, node)
    if not is_from_keras(node.operation):
        raise _unknown(walk, node)
    if is_linear(node.operation):
        return _linear(walk, node)
    if is_activation(node.operation):
        return [_activated(walk, node, walk.ids[node.inputs[0]])]
    if is_identity(node.operation):
        return [walk.ids[node.inputs[0]]]
    rule = _one_scale if _is_augmentation(node) else RULES.get(node.type)
    if rule is not None:
        return rule(walk, node)
    if node.type in PINNED:
        return walk.pin_node(node, PINNED[node.type])
    raise _unknown(walk, node)


def _identified(walk: Propagation, node: Node) -> list[Ids]:
    outputs = walk.one_scale(node)
    if is_linear(node.operation):
        # Its kernel stays as it is, its bias is divided by the scale that passes.
        scale = outputs[0].reshape(-1)[:1]
        for ids in walk.parameters.setdefault(id(node.operation), (scale, scale)):
            walk.variables.tie(ids, scale, where=node.name)
    return outputs


def _is_augmentation(node: Node) -> bool:
    """RandomFlip and its like do nothing, or crop the centre, at inference."""
    return node.type.startswith("Random") and ".preprocessing." in type(node.operation).__module__


def _unknown(walk: Propagation, node: Node) -> InputError:
    before = ", ".join(repr(walk.graph.producer(value).name) for value in node.inputs)
    return InputError(
        f"no rule for the layer {node.name!r} ({node.type}), which takes {before}: if f(a x) = a f(x) for "
        f"every a > 0 say treat_as_identity=[{node.layer_name!r}], otherwise pin=[{node.layer_name!r}] keeps "
        "the scale 1 around it",
        layer=node.name,
        layer_type=node.type,
    )


def _linear(walk: Propagation, node: Node) -> list[Ids]:
    layer = node.operation
    _refuse_foreign_weights(node)
    (value,), (output,) = node.inputs, node.outputs
    result = walk.graph.values[output]
    axis = -1 if node.type == "Dense" else input_channel_axis(layer, walk.rank(value))
    inputs = walk.channels(node, value, axis=axis)
    vector = walk.through_parameters(node, inputs, result.shape[result.channel_axis])
    return [_activated(walk, node, spread(vector, rank=len(result.shape), axis=result.channel_axis))]


def _refuse_foreign_weights(node: Node) -> None:
    """Raise InputError for a layer whose weights are not those that the updates know."""
    if not has_foreign_weights(node.operation):
        return
    function = getattr(node.operation, "activation", None)
    if is_activation(function):
        raise InputError(
            f"the activation function of the layer {node.name!r} is a layer with weights "
            f"({type(function).__name__}): put it behind {node.layer_name!r} as a layer of its own",
            layer=node.name,
        )
    raise InputError(
        f"the layer {node.name!r} is quantised or has LoRA weights, which cannot be rescaled: "
        f"normalise the network before that step, or say pin=[{node.layer_name!r}]",
        layer=node.name,
    )


def input_channel_axis(layer: Any, rank: int) -> int:
    """Return the channel axis of what a layer takes, from its ``data_format``."""
    return -rank if getattr(layer, "data_format", None) == "channels_first" else -1


def _activated(walk: Propagation, node: Node, ids: Ids) -> Ids:
    """Return the scales behind the activation function of ``node``."""
    name = activation_of(node.operation)
    if name in BOUNDED or _has_threshold(node.operation):
        # One bound serves all channels, so they share one scale.
        walk.variables.tie_all(ids, where=node.name)
        if walk.keep_structure and not walk.variables.is_pinned(ids):
            walk.variables.pin(ids, where=node.name)
        return ids.reshape(-1)[:1].reshape((1,) * ids.ndim)
    if name in HOMOGENEOUS:
        return ids
    if name.startswith("custom:"):
        raise InputError(
            f"the layer {node.name!r} has the activation function {name.removeprefix('custom:')!r}, which "
            f"has no rule: say pin=[{node.layer_name!r}], or use the one of keras.activations that computes the same",
            layer=node.name,
        )
    return _pin_activation(walk, node, ids, name)


def _pin_activation(walk: Propagation, node: Node, ids: Ids, name: str) -> Ids:
    """Pin the scales before a function that is not positively homogeneous."""
    walk.variables.pin(ids, where=node.name)
    walk.pinned.append(Pinned(node.name, node.type, f"{name} is not positively homogeneous"))
    return walk.ones(node.outputs[0])


def _has_threshold(operation: Any) -> bool:
    layer = relu_layer(operation)
    return layer is not None and bool(layer.threshold)


def _batch_norm(walk: Propagation, node: Node) -> list[Ids]:
    value = node.inputs[0]
    if len(node.inputs) > 1:
        return walk.pin_node(node, "a masked BatchNormalization")
    if node.index in walk.graph.folded and not walk.keep_structure:
        return [walk.ids[value]]
    axis = walk.graph.values[node.outputs[0]].channel_axis
    rank = walk.rank(value)
    inputs = walk.channels(node, value, axis=axis)
    if walk.keep_structure:
        # Without folding the mean and the shift are divided, nothing else: the scale goes through.
        known, _ = walk.parameters.setdefault(id(node.operation), (inputs, inputs))
        walk.variables.tie(inputs, known, where=node.name)
        return [spread(inputs, rank=rank, axis=axis)]
    n_channels = walk.graph.values[value].shape[axis]
    return [spread(walk.through_parameters(node, inputs, n_channels), rank=rank, axis=axis)]


def _embedding(walk: Propagation, node: Node) -> list[Ids]:
    _refuse_foreign_weights(node)
    indices = walk.ids[node.inputs[0]].reshape(-1)[:1]
    walk.variables.pin(walk.ids[node.inputs[0]], where=node.name)
    vector = walk.through_parameters(node, indices, node.operation.output_dim)
    return [spread(vector, rank=walk.rank(node.outputs[0]), axis=-1)]


def _per_channel(walk: Propagation, node: Node) -> list[Ids]:
    """Pooling, padding, cropping, upsampling: mixes positions, never channels."""
    value, output = node.inputs[0], node.outputs[0]
    axis = walk.graph.values[output].channel_axis
    if walk.rank(output) != walk.rank(value):
        axis = input_channel_axis(node.operation, walk.rank(value))
    vector = walk.channels(node, value, axis=axis)
    out_axis = axis if walk.rank(output) == walk.rank(value) else -1
    return [spread(vector, rank=walk.rank(output), axis=out_axis)]


def _resizing(walk: Propagation, node: Node) -> list[Ids]:
    layer = node.operation
    if layer.pad_to_aspect_ratio and layer.fill_mode == "constant" and layer.fill_value:
        return walk.pin_node(node, f"pads with {layer.fill_value:g}")
    return _per_channel(walk, node)


def _cast(walk: Propagation, node: Node) -> list[Ids]:
    before, after = (walk.graph.values[value].dtype for value in (node.inputs[0], node.outputs[0]))
    if "float" in before and "float" not in after:
        return walk.pin_node(node, f"rounds to {after}")
    return _same(walk, node)


def _same(walk: Propagation, node: Node) -> list[Ids]:
    return [walk.ids[node.inputs[0]] for _ in node.outputs]


def _one_scale(walk: Propagation, node: Node) -> list[Ids]:
    return walk.one_scale(node)


def _moved(walk: Propagation, node: Node, ids: Ids | None) -> list[Ids]:
    return walk.one_scale(node) if ids is None else [ids]


def _flatten(walk: Propagation, node: Node) -> list[Ids]:
    value = node.inputs[0]
    first = node.operation.data_format == "channels_first"
    shape = walk.graph.values[value].shape
    return _moved(walk, node, flattened(walk.ids[value], shape, channels_first=first))


def _reshape(walk: Propagation, node: Node) -> list[Ids]:
    shape, target = (walk.graph.values[v].shape for v in (node.inputs[0], node.outputs[0]))
    return _moved(walk, node, reshaped(walk.ids[node.inputs[0]], shape, target))


def _permute(walk: Propagation, node: Node) -> list[Ids]:
    return [permuted(walk.ids[node.inputs[0]], [axis - 1 for axis in node.operation.dims])]


def _transpose(walk: Propagation, node: Node) -> list[Ids]:
    n_axes = walk.rank(node.inputs[0]) + 1
    axes = [axis % n_axes for axis in node.operation.axes or ()]
    if not axes or axes[0] != 0:
        return walk.one_scale(node)
    return [permuted(walk.ids[node.inputs[0]], [axis - 1 for axis in axes[1:]])]


def _repeat_vector(walk: Propagation, node: Node) -> list[Ids]:
    return [repeated(walk.ids[node.inputs[0]])]


def _concatenate(walk: Propagation, node: Node) -> list[Ids]:
    rank = walk.rank(node.outputs[0])
    axis = node.operation.axis
    if axis is None or axis in {0, -rank - 1} or any(walk.rank(v) != rank for v in node.inputs):
        return walk.one_scale(node)
    axis = axis - 1 if axis > 0 else axis
    shapes = [walk.graph.values[value].shape for value in node.inputs]
    return _moved(walk, node, concatenated([walk.ids[v] for v in node.inputs], shapes, axis=axis))


def _tied(walk: Propagation, node: Node) -> list[Ids]:
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


def _product(walk: Propagation, node: Node) -> list[Ids]:
    """Multiply: the gates have scale 1, the gated value passes its scale on."""
    if len(node.inputs) == 1:
        same_rank = walk.rank(node.inputs[0]) == walk.rank(node.outputs[0])
        return _same(walk, node) if same_rank else walk.one_scale(node)
    free = [value for value in node.inputs if not walk.variables.is_pinned(walk.ids[value])]
    if len({walk.rank(value) for value in node.inputs}) > 1 or not free:
        return walk.pin_node(node, "a product of values of different rank") if free else _ones(walk, node)
    gated = max(free, key=lambda value: _size(walk, value))
    for value in free:
        if value != gated:
            walk.variables.pin(walk.ids[value], where=node.name)
    if node.inputs.count(gated) > 1:
        walk.variables.pin(walk.ids[gated], where=node.name)
    return [walk.ids[gated]]


def _size(walk: Propagation, value: int) -> int:
    return int(np.prod([size or 1 for size in walk.graph.values[value].shape], dtype=np.int64))


def _ones(walk: Propagation, node: Node) -> list[Ids]:
    return [walk.ones(value) for value in node.outputs]


def _quotient(walk: Propagation, node: Node) -> list[Ids]:
    """Divide: by a constant it passes the scale on, by anything else it is pinned."""
    divides_by_constant = len(node.inputs) == 1 and isinstance(node.args[0], Slot)
    return walk.one_scale(node) if divides_by_constant else walk.pin_node(node, "a quotient of values")


def _constants_are_zero(node: Node) -> bool:
    from keras import tree

    arguments = tree.flatten((node.args, dict(node.kwargs)))
    constants = [each for each in arguments if each is not None and not isinstance(each, Slot)]
    return all(not np.any(np.asarray(each)) for each in constants)


def _reduction(walk: Propagation, node: Node) -> list[Ids]:
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


def _rescaling(walk: Propagation, node: Node) -> list[Ids]:
    """Pass the scale on through x * scale, or end it at x * scale + offset."""
    value = node.inputs[0]
    if not np.any(np.asarray(node.operation.offset)):
        return [walk.ids[value]]
    walk.variables.tie_all(walk.ids[value], where=node.name)
    if walk.keep_structure:
        walk.variables.pin(walk.ids[value], where=node.name)
    return [walk.ones(node.outputs[0])]


_POOLS = [
    f"{kind}Pooling{n}D" for kind in ("Max", "Average", "GlobalMax", "GlobalAverage") for n in (1, 2, 3)
]
_ADAPTIVE = [f"Adaptive{kind}Pooling{n}D" for kind in ("Max", "Average") for n in (1, 2, 3)]
_SHAPED = [f"{kind}{n}D" for kind in ("ZeroPadding", "Cropping", "UpSampling") for n in (1, 2, 3)]
_HOMOGENEOUS_OPS = [
    *["Abs", "Absolute", "AveragePool", "BroadcastTo", "Copy", "Cumsum", "ExpandDims", "Flip", "GetItem"],
    *["MaxPool", "Moveaxis", "Negative", "Ravel", "Repeat", "Roll", "Sort", "Split", "Squeeze", "Stack"],
    *["StopGradient", "Swapaxes", "Take", "Tile", "Unstack"],
]

RULES: Final[dict[str, Rule]] = {
    "BatchNormalization": _batch_norm,
    "Embedding": _embedding,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Permute": _permute,
    "RepeatVector": _repeat_vector,
    "Concatenate": _concatenate,
    "Multiply": _product,
    "Rescaling": _rescaling,
    # keras.applications.convnext: a gain for each channel, whatever the scale.
    "LayerScale": _same,
    "Resizing": _resizing,
    **dict.fromkeys(TYING_MERGES, _tied),
    **dict.fromkeys([*_POOLS, *_ADAPTIVE, *_SHAPED], _per_channel),
    "ops.Reshape": _reshape,
    "ops.Transpose": _transpose,
    "ops.Concatenate": _concatenate,
    "ops.Multiply": _product,
    "ops.Divide": _quotient,
    "ops.TrueDivide": _quotient,
    "ops.Cast": _cast,
    "ops.Identity": _same,
    "ops.ZerosLike": _ones,
    "ops.OnesLike": _ones,
    **dict.fromkeys([f"ops.{name}" for name in ("Mean", "Sum", "Max", "Min", "Amax", "Amin")], _reduction),
    **dict.fromkeys([f"ops.{name}" for name in _HOMOGENEOUS_OPS], _one_scale),
}
