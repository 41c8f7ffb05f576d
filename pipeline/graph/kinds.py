"""What kind of thing an operation of Keras is: linear, activation, identity, normalisation.

Knows the layers and operations of Keras by class name, and trusts a class name only when the
class comes from Keras itself: a user-defined ``Dense`` is unknown until the user says what it does.
"""

from __future__ import annotations

import functools
import re
import types
from typing import Any, Final

import numpy as np

__all__ = [
    "ATTENTION_LAYERS",
    "BOUNDED",
    "HOMOGENEOUS",
    "RECURRENT_LAYERS",
    "TYING_MERGES",
    "activation_of",
    "function_name",
    "has_foreign_weights",
    "held_layer",
    "is_activation",
    "is_batch_norm",
    "is_from_keras",
    "is_identity",
    "is_linear",
    "is_loaded_again",
    "is_misnamed",
    "relu_layer",
    "type_of",
]

LINEAR_LAYERS: Final = frozenset(
    {"Dense", "Conv1D", "Conv2D", "Conv3D", "Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"}
    | {"DepthwiseConv1D", "DepthwiseConv2D", "SeparableConv1D", "SeparableConv2D"}
)
ACTIVATION_LAYERS: Final = {
    "Activation": "",
    "ReLU": "relu",
    "LeakyReLU": "leaky_relu",
    "PReLU": "prelu",
    "ELU": "elu",
    "Softmax": "softmax",
}
# keras.ops called on symbolic tensors appear as nodes of these classes: ``LogSoftmax`` is log_softmax.
ACTIVATION_OPS: Final = {
    name: re.sub("(?<=[a-z])(?=[A-Z])", "_", name).lower()
    for name in (
        *("Relu", "Relu6", "LeakyRelu", "Sigmoid", "Silu", "Softmax", "LogSoftmax", "LogSigmoid", "Softplus"),
        *("Softsign", "Elu", "Selu", "Celu", "Gelu", "Glu", "HardSigmoid", "HardSilu", "HardTanh", "Mish"),
        *("Tanh", "Threshold"),
    )
}
IDENTITY_LAYERS: Final = frozenset(
    {"ActivityRegularization", "AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise", "Identity"}
    | {"SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D"}
    # keras.applications.convnext: drops residual branches in training only.
    | {"StochasticDepth"}
)
RECURRENT_LAYERS: Final = frozenset(
    {"LSTM", "GRU", "SimpleRNN", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D", "RNN", "Bidirectional"}
)
# `keras.layers.GroupQueryAttention` is the public name of the class GroupedQueryAttention.
ATTENTION_LAYERS: Final = frozenset(
    {"MultiHeadAttention", "GroupedQueryAttention", "Attention", "AdditiveAttention"}
)
TYING_MERGES: Final = frozenset(
    {"Add", "Subtract", "Average", "Maximum", "Minimum"}
    # keras.applications.inception_resnet_v2: x + scale * y.
    | {"CustomScaleLayer"}
    | {"ops.Add", "ops.Subtract", "ops.Maximum", "ops.Minimum"}
)
"""Their inputs share one scale, which is also that of the output."""

OTHER_NAMES: Final = {"softmax_v2": "softmax", "log_softmax_v2": "log_softmax", "swish": "silu"}
"""TensorFlow's name of a function -> Keras' name."""
HOMOGENEOUS: Final = frozenset({"linear", "relu", "leaky_relu", "prelu"})
"""Activation functions with f(a x) = a f(x) for every a > 0: they pass a scale on."""

BOUNDED: Final = frozenset({"relu6"})
"""Pass a scale on when their bound is divided by it."""


def is_from_keras(operation: Any) -> bool:
    """Return whether the class of ``operation`` is one of Keras' own."""
    return type(operation).__module__.split(".")[0] == "keras"


def _is(operation: Any, names: Any) -> bool:
    return is_from_keras(operation) and type(operation).__name__ in names


def is_operation(operation: Any) -> bool:
    """Return whether it is a bare ``keras.ops`` call and not a layer."""
    return is_from_keras(operation) and ".ops." in type(operation).__module__


def is_linear(operation: Any) -> bool:
    """Return whether it is a layer that computes y = W x + b, before its activation function."""
    return _is(operation, LINEAR_LAYERS) and not is_operation(operation)


def held_layer(operation: Any) -> Any:
    """Return the layer inside a TimeDistributed; any other operation unchanged."""
    return operation.layer if _is(operation, {"TimeDistributed"}) else operation


def has_foreign_weights(operation: Any) -> bool:
    """Return whether a layer has more weights than kernel and bias: quantised, LoRA, an activation with weights."""
    function = getattr(operation, "activation", None)
    # PReLU has none before its first batch.
    has_own = bool(getattr(function, "weights", None)) or _is(function, {"PReLU"})
    return has_own or bool(
        getattr(operation, "quantization_mode", None) or getattr(operation, "lora_enabled", False)
    )


def is_batch_norm(operation: Any) -> bool:
    """Return whether it is Keras' batch normalisation layer."""
    return _is(operation, {"BatchNormalization"}) and not is_operation(operation)


def is_identity(operation: Any) -> bool:
    """Return whether it does nothing at inference (dropout, noise and the like)."""
    return _is(operation, IDENTITY_LAYERS)


def is_activation(operation: Any) -> bool:
    """Return whether it is an activation function that stands alone, as a layer or as an operation."""
    names = ACTIVATION_OPS if is_operation(operation) else ACTIVATION_LAYERS
    return _is(operation, names)


def type_of(operation: Any) -> str:
    """Return the class name, with ``ops.`` before it for a bare ``keras.ops`` call."""
    name = type(operation).__name__
    return f"ops.{name}" if is_operation(operation) else name


def activation_of(operation: Any) -> str:
    """Return the name of the activation function that ``operation`` applies last.

    Returns
    -------
    str
        A name of ``keras.activations``; ``"linear"`` for none; ``"custom:<name>"`` for a function
        that is not one of Keras'. A ReLU layer with an upper bound is ``"relu6"`` whatever the bound.
    """
    if is_activation(operation):
        return _standalone_activation(operation)
    function = getattr(operation, "activation", None)
    return "linear" if function is None else function_name(function)


def _standalone_activation(operation: Any) -> str:
    name = type(operation).__name__
    if is_operation(operation):
        return ACTIVATION_OPS[name]
    if name == "Activation":
        return function_name(operation.activation)
    if name == "ReLU" and operation.max_value is not None:
        return "relu6"
    return ACTIVATION_LAYERS[name]


def relu_layer(operation: Any) -> Any:
    """Return the ReLU layer that ``operation`` is or has as its activation function; None if there is none."""
    for each in (operation, getattr(operation, "activation", None)):
        if _is(each, {"ReLU"}) and not is_operation(each):
            return each
    return None


def function_name(function: Any) -> str:
    """Return the name of an activation function; ``"custom:..."`` when it is not one of ``keras.activations``.

    ``tf.nn.relu`` and ``keras.ops.relu`` are other objects, of which a saved model keeps only the name: a function that
    computes the same as Keras' function of its name counts as that one.
    """
    import keras

    if is_activation(function):  # activation=keras.layers.LeakyReLU() is allowed by Keras
        return _standalone_activation(function)
    given = getattr(function, "__name__", type(function).__name__)
    name = OTHER_NAMES.get(given, given)
    known = getattr(keras.activations, name, None)
    is_known = known is function or (known is not None and _computes_as(function, known))
    return name if is_known else f"custom:{given}"


def is_misnamed(function: Any) -> bool:
    """Return whether Keras writes a function by a name of ``keras.activations`` that computes something else."""
    import keras

    if not isinstance(function, types.FunctionType) or not hasattr(keras.activations, function.__name__):
        return False
    return function_name(function).startswith("custom:")


def is_loaded_again(function: Any) -> bool:
    """Return whether Keras gives the same function for what it saves of it: it is Keras' own, or registered."""
    import keras

    if function_name(function) == "custom:<lambda>":
        return False  # Keras warns of it when it is asked
    try:
        return keras.activations.get(keras.activations.serialize(function)) is function
    except (TypeError, ValueError):  # how Keras says that it cannot
        return False


@functools.lru_cache(maxsize=256)
def _computes_as(function: Any, known: Any) -> bool:
    """Return whether a function of Keras or TensorFlow is one of ``keras.activations`` (``keras.ops.gelu`` is not)."""
    if str(getattr(function, "__module__", "")).split(".")[0] not in {"keras", "tensorflow"}:
        return False
    samples = np.linspace(-8.0, 8.0, 128, dtype=np.float32).reshape(1, -1)
    try:
        return bool(np.allclose(function(samples), known(samples), rtol=1e-6, atol=1e-6))
    except Exception:  # it takes other arguments
        return False
