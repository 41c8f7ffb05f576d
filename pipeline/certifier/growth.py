"""How far a layer can enlarge an error that its inputs come with.

Only layers whose slope is bounded and known: a quantiser, or a function of the user, may turn the last bit into a step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..graph import Node
from ..graph.kinds import (
    activation_of,
    has_foreign_weights,
    is_activation,
    is_batch_norm,
    is_from_keras,
    is_identity,
    is_linear,
    relu_layer,
    type_of,
)
from ..normalizer.updating import as_array, largest_gain

__all__ = ["grown"]

SLOPES: Final = {
    **dict.fromkeys(["linear", "relu", "relu6", "sigmoid", "tanh", "softmax", "softplus", "softsign"], 1.0),
    "silu": 1.1,
    "gelu": 1.13,
}
"""The largest slope of an activation function, rounded up."""
ROWS: Final = 256

_MOVING = (
    *(f"{kind}Pooling{n}D" for kind in ("Max", "Average", "GlobalMax", "GlobalAverage") for n in (1, 2, 3)),
    *(f"{kind}{n}D" for kind in ("ZeroPadding", "Cropping") for n in (1, 2, 3)),
    *("Flatten", "Reshape", "Permute", "RepeatVector", "Concatenate", "Average", "Maximum", "Minimum"),
)
_MERGES: Final[dict[str, Callable[[Sequence[float]], float]]] = {
    **dict.fromkeys(["Add", "Subtract", "ops.Add", "ops.Subtract"], math.fsum),
    **dict.fromkeys(_MOVING, max),
}


def grown(node: Node, errors: Sequence[float], peaks: Mapping[int, float]) -> float:
    """Return the largest error of the outputs of a layer that comes from its inputs; 0 if that is not known.

    Parameters
    ----------
    node : Node
    errors : sequence of float
        Largest error of each input.
    peaks : mapping of value to float
        Largest magnitude of each value.

    Notes
    -----
    In the largest norm a linear layer enlarges an error by at most the largest sum of magnitudes of the weights that
    make one output. Which numbers are off, and how far, does not matter.
    """
    layer, kind = node.operation, node.type
    if not any(errors) or not is_from_keras(layer):
        return 0.0
    if is_identity(layer):
        return max(errors)
    if is_batch_norm(layer):
        return largest_gain(node) * max(errors)
    if is_linear(layer):
        return 0.0 if has_foreign_weights(layer) else _slope(layer) * _largest_sum(layer) * max(errors)
    if is_activation(layer):
        return _slope(layer) * max(errors)
    if kind in {"Multiply", "ops.Multiply"} and len(errors) == len(node.inputs) == 2:
        first, second = (peaks.get(value, 0.0) for value in node.inputs)
        return first * errors[1] + (second + errors[1]) * errors[0]
    merge = _MERGES.get(type_of(layer))
    return 0.0 if merge is None else merge(errors)


def _slope(layer: Any) -> float:
    relu = relu_layer(layer)
    if relu is not None:
        # With a threshold it jumps.
        return 0.0 if relu.threshold else max(1.0, float(relu.negative_slope or 0.0))
    return SLOPES.get(activation_of(layer), 0.0)


def _largest_sum(layer: Any) -> float:
    """Return the largest sum of magnitudes of the weights that make one output."""
    if hasattr(layer, "kernel"):
        return _summed(as_array(layer.kernel), type_of(layer))
    return _summed(as_array(layer.depthwise_kernel), "Depthwise") * _summed(
        as_array(layer.pointwise_kernel), type_of(layer)
    )


def _summed(kernel: NDArray[Any], kind: str) -> float:
    """Sum over all but the outputs; a part at a time, for a kernel may be as large as the rest of the network."""
    if kind.endswith("Transpose"):
        shape, axes = (-1, *kernel.shape[-2:]), (0, 2)
    else:
        n_outputs = math.prod(kernel.shape[-2:]) if kind.startswith("Depthwise") else kernel.shape[-1]
        shape, axes = (-1, 1, n_outputs), (0, 1)
    rows = kernel.reshape(shape)
    parts = (np.abs(rows[i : i + ROWS].astype(np.float32)) for i in range(0, len(rows), ROWS))
    return float(np.max(sum(part.sum(axis=axes, dtype=np.float64) for part in parts), initial=0.0))
