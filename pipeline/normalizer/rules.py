"""The scale rule of each kind of layer, in one table.

A rule takes the propagation and a node whose inputs have scale variables, ties or pins what must be, and
returns the variables of the node's outputs. The numbers come later (`solving`), the weights after them (`rescaling`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np

from ...storage.errors import InputError
from ..graph import Node, why_opaque
from ..graph.kinds import (
    BOUNDED,
    HOMOGENEOUS,
    TYING_MERGES,
    activation_of,
    has_foreign_weights,
    held_layer,
    is_activation,
    is_batch_norm,
    is_from_keras,
    is_identity,
    is_linear,
    is_loaded_again,
    is_misnamed,
    relu_layer,
    type_of,
)
from . import position_rules
from .merge_rules import joined, ones, product, quotient, stacked, tied
from .movement import spread
from .pinning import PINNED
from .propagation import Pinned, Propagation
from .refusing import refuse_foreign_weights, refused
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
    rule = Propagation.one_scale if _is_augmentation(node) else RULES.get(node.type)
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
    opaque = why_opaque(node.operation, node.kwargs)
    if opaque is not None:
        return refused(
            node,
            f"no rule for {node.name!r} ({node.type}), {opaque}",
            reason=f"no rule for {opaque}",
            remedy="call its layers in the network itself, a Masking layer left out, or set "
            "normalize.pin = {names}, which keeps the scale 1 around it",
        )
    return refused(
        node,
        f"no rule for the layer {node.name!r} ({node.type}), which takes {before}",
        reason="no rule",
        remedy="if f(a x) = a f(x) for every a > 0, set normalize.treat_as_identity = {names}, otherwise "
        "normalize.pin = {names} keeps the scale 1 around it",
    )


def _linear(walk: Propagation, node: Node) -> list[Ids]:
    layer = node.operation
    refuse_foreign_weights(node)
    (value,), (output,) = node.inputs, node.outputs
    result = walk.graph.values[output]
    axis = -1 if node.type == "Dense" else position_rules.input_channel_axis(layer, walk.rank(value))
    inputs = walk.channels(node, value, axis=axis)
    vector = walk.through_parameters(node, inputs, result.shape[result.channel_axis])
    return [_activated(walk, node, spread(vector, rank=len(result.shape), axis=result.channel_axis))]


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
        why = f"has the activation function {name.removeprefix('custom:')!r}, which has no rule"
        # A pinned layer is rebuilt from its settings, which contain only the name of a function.
        function = node.operation.activation
        remedy = "set normalize.pin = {names}, or "
        if is_misnamed(function):
            remedy = "Keras saves its name alone, which is another's: "
        elif not is_loaded_again(function):
            remedy = (
                "Keras could not load it again from what it saves: write it with def, decorate it with "
                "keras.saving.register_keras_serializable() and set normalize.pin = {names}, or "
            )
        raise refused(
            node,
            f"the layer {node.name!r} {why}",
            reason=why,
            remedy=f"{remedy}use the one of keras.activations that computes the same",
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
        walk.pin_parameters(node)
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


def _time_distributed(walk: Propagation, node: Node) -> list[Ids]:
    """Use the rule of the layer within, for which time is one more axis of positions; else scale 1 around it."""
    layer = held_layer(node.operation)
    inner = replace(node, operation=layer, type=type_of(layer))
    rule = _rule_at_each_time(walk, inner)
    if rule is not None:
        return rule(walk, inner)
    walk.pin_parameters(node)
    return walk.pin_node(node, f"applies {inner.type} at each time: {PINNED.get(inner.type, 'no rule')}")


def _rule_at_each_time(walk: Propagation, node: Node) -> Rule | None:
    layer = node.operation
    last = {walk.graph.values[value].channel_axis for value in (*node.inputs, *node.outputs)} == {-1}
    if not is_from_keras(layer) or len(node.inputs) > 1 or not last:
        return None
    if getattr(layer, "data_format", None) == "channels_first":
        return None
    is_free = activation_of(layer) in HOMOGENEOUS and not _has_threshold(layer)
    if is_linear(layer):
        return _linear if is_free and not has_foreign_weights(layer) else None
    if is_batch_norm(layer):
        return _batch_norm if layer.axis in {-1, walk.rank(node.inputs[0]) - 1} else None
    if is_identity(layer) or is_activation(layer):
        return position_rules.same if is_free else None
    if RULES.get(node.type) is position_rules.per_channel:
        return position_rules.per_channel
    return Propagation.one_scale if node.type in _MOVING else None


def _embedding(walk: Propagation, node: Node) -> list[Ids]:
    refuse_foreign_weights(node)
    indices = walk.ids[node.inputs[0]].reshape(-1)[:1]
    walk.variables.pin(walk.ids[node.inputs[0]], where=node.name)
    vector = walk.through_parameters(node, indices, node.operation.output_dim)
    return [spread(vector, rank=walk.rank(node.outputs[0]), axis=-1)]


def _cast(walk: Propagation, node: Node) -> list[Ids]:
    before, after = (walk.graph.values[value].dtype for value in (node.inputs[0], node.outputs[0]))
    if "float" in before and "float" not in after:
        return walk.pin_node(node, f"rounds to {after}")
    return position_rules.same(walk, node)


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
_MOVING = frozenset({"Flatten", "Reshape", "Permute", "RepeatVector"})
_HOMOGENEOUS_OPS = [
    *["Abs", "Absolute", "AdaptiveAveragePool", "AdaptiveMaxPool", "ArraySplit", "AveragePool"],
    *["BroadcastTo", "Copy", "Cumsum", "DepthToSpace", "Diagonal", "Diff", "ExpandDims", "Flip"],
    *["Fliplr", "Flipud", "GetItem", "Hsplit", "MaxPool", "Median", "Moveaxis", "Negative", "Ptp"],
    *["Ravel", "Repeat", "Roll", "Rot90", "Slice", "Sort", "SpaceToDepth", "Split", "Squeeze"],
    *["StopGradient", "Swapaxes", "Take", "Tile", "Trace", "Tril", "Triu", "Unstack", "Vsplit"],
]

RULES: Final[dict[str, Rule]] = {
    "BatchNormalization": _batch_norm,
    "Embedding": _embedding,
    "Flatten": position_rules.flatten,
    "Reshape": position_rules.reshape,
    "Permute": position_rules.permute,
    "RepeatVector": position_rules.repeat_vector,
    "Concatenate": joined,
    "Multiply": product,
    "Rescaling": _rescaling,
    # keras.applications.convnext: a gain for each channel, whatever the scale.
    "LayerScale": position_rules.same,
    "Resizing": position_rules.resizing,
    "ops.Resize": position_rules.resizing,
    "ops.Pad": position_rules.padding,
    "TimeDistributed": _time_distributed,
    **dict.fromkeys(TYING_MERGES, tied),
    **dict.fromkeys([*_POOLS, *_ADAPTIVE, *_SHAPED, "CenterCrop"], position_rules.per_channel),
    "ops.Reshape": position_rules.reshape,
    "ops.Transpose": position_rules.transpose,
    "ops.Concatenate": joined,
    "ops.Multiply": product,
    "ops.Divide": quotient,
    "ops.TrueDivide": quotient,
    "ops.Cast": _cast,
    "ops.Identity": position_rules.same,
    "ops.ZerosLike": ones,
    "ops.OnesLike": ones,
    **dict.fromkeys(
        [f"ops.{name}" for name in ("Mean", "Sum", "Max", "Min", "Amax", "Amin")], position_rules.reduction
    ),
    **dict.fromkeys([f"ops.{name}" for name in ("Stack", "Dstack", "Hstack", "Vstack")], stacked),
    **dict.fromkeys([f"ops.{name}" for name in _HOMOGENEOUS_OPS], Propagation.one_scale),
}
