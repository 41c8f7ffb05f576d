"""New weights and settings of one layer, from the scales around it.

Reads the layer's variables and gives arrays by the name of the attribute that holds them; changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..graph import Node
from ..graph.kinds import (
    BOUNDED,
    activation_of,
    has_foreign_weights,
    held_layer,
    is_batch_norm,
    is_from_keras,
    is_linear,
    relu_layer,
    type_of,
)
from .rescaling import Affine, conv_input_scales, rescale_kernel, rescaled_bias
from .solving import Solution

__all__ = [
    "LayerUpdate",
    "as_array",
    "largest_gain",
    "layer_update",
    "output_norms",
    "relu_config",
    "rescaling_config",
]

Array = NDArray[np.float64]
RELU6_BOUND = 6.0


@dataclass(frozen=True, slots=True)
class LayerUpdate:
    """What changes in a layer."""

    arrays: dict[str, NDArray[np.generic]]
    """Attribute (``"kernel"``, ``"gamma"``) -> its new value: all of the layer's weights, or none when they stay."""
    config: dict[str, Any] = field(default_factory=dict)
    """Settings that differ from the original layer's."""


def as_array(variable: Any) -> NDArray[np.generic]:
    """Return the value of a Keras variable, without a copy where it lies in this process' memory."""
    import keras
    import tensorflow as tf

    tensor = tf.convert_to_tensor(variable.value)
    if "CPU" in tensor.device and tensor.dtype in (tf.float32, tf.float64, tf.float16):
        return np.asarray(memoryview(tensor))
    array: NDArray[np.generic] = keras.ops.convert_to_numpy(variable)
    return array


def layer_update(solution: Solution, node: Node, *, norm: Node | None = None) -> LayerUpdate:
    """Return the new weights of the layer of ``node``; ``norm`` is the BatchNormalization folded into it."""
    layer = held_layer(node.operation)
    if layer is not node.operation:
        node = replace(node, operation=layer, type=type_of(layer))
    if has_foreign_weights(layer):
        # The rules let it through only where it is pinned or said to be homogeneous.
        return LayerUpdate({})
    if is_linear(layer) and id(layer) in solution.walk.parameters:
        return _linear_update(solution, node, norm)
    if is_batch_norm(layer) and id(layer) in solution.walk.parameters:
        return _norm_update(solution, node)
    if node.type == "Embedding" and id(layer) in solution.walk.parameters:
        _, outputs = solution.of_parameters(layer)
        kernel = as_array(layer.embeddings)
        return LayerUpdate(
            {"embeddings": rescale_kernel(kernel, np.ones((1, 1)), 1.0 / outputs.reshape(1, -1))}
        )
    return LayerUpdate({}, rescaling_config(solution, node))


def rescaling_config(solution: Solution, node: Node) -> dict[str, Any]:
    """Return the settings of a layer that computes ``x * scale + offset`` between other scales.

    Nothing for any other layer, and where they stay.
    """
    layer = node.operation
    if solution.walk.keep_structure or node.type != "Rescaling" or not is_from_keras(layer):
        return {}
    if not np.any(np.asarray(layer.offset)):
        return {}
    before, after = (float(solution.of_value(value).flat[0]) for value in (node.inputs[0], node.outputs[0]))
    if before == after == 1.0:
        return {}
    scale, offset = np.asarray(layer.scale) * (before / after), np.asarray(layer.offset) / after
    return {"scale": scale.tolist(), "offset": offset.tolist()}


def relu_config(solution: Solution, node: Node) -> dict[str, Any] | None:
    """Return the settings of the ReLU layer that must take the place of the activation function of ``node``.

    None where the function stays: it has no bound, or its scale is 1, or nothing but weights may change.
    """
    if solution.walk.keep_structure:
        return None
    scale = float(solution.of_value(node.outputs[0]).flat[0])
    layer = relu_layer(node.operation)
    upper = RELU6_BOUND if layer is None else layer.max_value
    threshold = 0.0 if layer is None else float(layer.threshold)
    is_bounded = activation_of(node.operation) in BOUNDED or threshold != 0.0
    if not is_bounded or scale == 1.0:
        return None
    return {
        "max_value": None if upper is None else float(upper) / scale,
        "negative_slope": 0.0 if layer is None else float(layer.negative_slope),
        "threshold": threshold / scale,
    }


def _affine_of(layer: Any) -> Affine:
    def read(variable: Any) -> Array | None:
        return None if variable is None else as_array(variable).astype(np.float64)

    mean, variance = read(layer.moving_mean), read(layer.moving_variance)
    assert mean is not None  # a built BatchNormalization has both
    assert variance is not None
    return Affine.of_batch_norm(
        gamma=read(layer.gamma), beta=read(layer.beta), mean=mean, variance=variance, epsilon=layer.epsilon
    )


def largest_gain(node: Node) -> float:
    """Return the largest factor by which a linear layer or a BatchNormalization multiplies one number."""
    layer = node.operation
    if is_batch_norm(layer):
        return float(np.max(np.abs(_affine_of(layer).gain), initial=0.0))
    names = ("kernel",) if hasattr(layer, "kernel") else ("depthwise_kernel", "pointwise_kernel")
    kernels = [as_array(getattr(layer, name)) for name in names]
    # Without an array of magnitudes: a kernel may be as large as the rest of the network.
    return math.prod(max(float(kernel.max()), -float(kernel.min())) for kernel in kernels)


def output_norms(node: Node) -> Array | None:
    """Return for each output channel the root of the summed squares of the weights that make it; None without such."""
    layer, kind = node.operation, node.type
    if is_batch_norm(layer):
        affine = _affine_of(layer)
        both: Array = np.hypot(affine.gain, affine.shift)
        return both
    if not is_linear(layer) or has_foreign_weights(layer):
        return None
    kernel = as_array(layer.pointwise_kernel if kind.startswith("SeparableConv") else layer.kernel)
    weights: NDArray[np.float32] = kernel.astype(np.float32, copy=False)
    squares: NDArray[np.float32]
    if kind.endswith("Transpose"):
        weights = weights.reshape(-1, *kernel.shape[-2:])
        squares = np.einsum("koi,koi->o", weights, weights)
    else:
        n_outputs = math.prod(kernel.shape[-2:]) if kind.startswith("DepthwiseConv") else kernel.shape[-1]
        weights = weights.reshape(-1, n_outputs)
        squares = np.einsum("io,io->o", weights, weights)
    bias = np.float64(0.0) if layer.bias is None else as_array(layer.bias).astype(np.float64)
    norms: Array = np.hypot(np.sqrt(squares.astype(np.float64)), bias)
    return norms


def _linear_update(solution: Solution, node: Node, norm: Node | None) -> LayerUpdate:
    layer = node.operation
    inputs, outputs = solution.of_parameters(layer)
    fold = None if norm is None else _affine_of(norm.operation)
    gain = 1.0 / outputs if fold is None else fold.gain / outputs
    arrays = dict(_kernels(node, inputs, gain))
    n_outputs = solution.walk.graph.values[node.outputs[0]].shape
    axis = solution.walk.graph.values[node.outputs[0]].channel_axis
    bias = None if layer.bias is None else as_array(layer.bias).astype(np.float64)
    bias = rescaled_bias(bias, outputs=outputs, fold=fold, n=int(n_outputs[axis] or 0))
    if bias is not None:
        dtype = next(iter(arrays.values())).dtype
        arrays["bias"] = bias.astype(dtype)
    return LayerUpdate(arrays, {"use_bias": True} if bias is not None and layer.bias is None else {})


def _kernels(node: Node, inputs: Array, gain: Array) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Yield the kernels with ``inputs`` multiplied in and ``gain`` multiplied out."""
    layer, kind = node.operation, node.type
    if kind.startswith("SeparableConv"):
        depthwise, pointwise = as_array(layer.depthwise_kernel), as_array(layer.pointwise_kernel)
        one = np.ones((1,) * depthwise.ndim)
        yield "depthwise_kernel", rescale_kernel(depthwise, _last_two(inputs, depthwise, row=True), one)
        yield "pointwise_kernel", rescale_kernel(pointwise, one, _last_two(gain, pointwise, row=False))
        return
    kernel = as_array(layer.kernel)
    if kind.startswith("DepthwiseConv"):
        by_multiplier = gain if gain.size == 1 else gain.reshape(kernel.shape[-2:])
        ins = _last_two(inputs, kernel, row=True)
        outs = by_multiplier.reshape((1,) * (kernel.ndim - by_multiplier.ndim) + by_multiplier.shape)
    elif kind.endswith("Transpose"):
        ins, outs = _last_two(inputs, kernel, row=False), _last_two(gain, kernel, row=True)
    elif kind.startswith("Conv"):
        per_group, n_outputs = kernel.shape[-2:]
        matrix = conv_input_scales(
            inputs, n_inputs=per_group * layer.groups, per_group=per_group, n_outputs=n_outputs
        )
        ins = matrix.reshape((1,) * (kernel.ndim - 2) + matrix.shape)
        outs = _last_two(gain, kernel, row=False)
    else:
        ins, outs = _last_two(inputs, kernel, row=True), _last_two(gain, kernel, row=False)
    yield "kernel", rescale_kernel(kernel, ins, outs)


def _last_two(vector: Array, kernel: NDArray[np.generic], *, row: bool) -> Array:
    """Return ``vector`` along the last axis but one (``row``) or the last one of ``kernel``."""
    tail = (vector.size, 1) if row else (1, vector.size)
    return vector.reshape((1,) * (kernel.ndim - 2) + tail)


def _norm_update(solution: Solution, node: Node) -> LayerUpdate:
    layer = node.operation
    inputs, outputs = solution.of_parameters(layer)
    mean = as_array(layer.moving_mean)
    arrays: dict[str, NDArray[np.generic]] = {
        "moving_mean": (mean.astype(np.float64) / inputs).astype(mean.dtype),
        "moving_variance": as_array(layer.moving_variance),
    }
    if not solution.walk.keep_structure:
        gamma = 1.0 if layer.gamma is None else as_array(layer.gamma).astype(np.float64)
        beta = 0.0 if layer.beta is None else as_array(layer.beta).astype(np.float64)
        shape = mean.shape
        arrays["gamma"] = np.broadcast_to(gamma * inputs / outputs, shape).astype(mean.dtype)
        arrays["beta"] = np.broadcast_to(beta / outputs, shape).astype(mean.dtype)
        return LayerUpdate(arrays, {"scale": True, "center": True})
    if layer.gamma is not None:
        arrays["gamma"] = as_array(layer.gamma)
    if layer.beta is not None:
        arrays["beta"] = (as_array(layer.beta).astype(np.float64) / outputs).astype(mean.dtype)
    return LayerUpdate(arrays)
