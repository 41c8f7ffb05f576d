"""Compare two networks on one batch, inside one ``tf.function``: small numbers come out, no activations.

Knows nothing of tolerances or verdicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..graph import Graph, input_tensor
from .normalizing import NormalizedModel

__all__ = ["Compared", "Comparison"]


@dataclass(frozen=True, slots=True)
class Compared:
    """A value of the original and where the normalised network computes it."""

    name: str
    value: int
    place: int
    scales: NDArray[np.float64]
    channel_axis: int

    @property
    def factor(self) -> float:
        """The largest scale."""
        return float(self.scales.max())


class Comparison:
    """Both networks in one traced function.

    Parameters
    ----------
    graph : Graph
        Of the original.
    normalized : NormalizedModel
    compared : sequence of Compared
    n_points : int
        How many of ``compared`` are points whose normalised activations are handed out too.
    margin : float
        An activation above 1 + margin is saturated.
    hand_out : bool
        Whether the normalised activations come out as well, for sketches.
    """

    def __init__(
        self,
        graph: Graph,
        normalized: NormalizedModel,
        compared: Sequence[Compared],
        *,
        margin: float,
        hand_out: bool,
        n_points: int,
    ) -> None:
        import tensorflow as tf

        before = graph.forward([each.value for each in compared])
        after = normalized.normalized_graph.forward([each.place for each in compared])
        divisors = [normalized.value_scales[value] for value in graph.inputs]

        def both(inputs: list[Any]) -> tuple[list[Any], list[Any], list[Any], list[Any]]:
            tensors, outputs = before(inputs)
            scaled = [_divided(x, scales) for x, scales in zip(inputs, divisors, strict=True)]
            normalized_tensors, normalized_outputs = after(scaled)
            numbers = [
                _numbers(old, new, each, margin)
                for old, new, each in zip(tensors, normalized_tensors, compared, strict=True)
            ]
            handed = normalized_tensors[:n_points] if hand_out else []
            return numbers, handed, outputs, normalized_outputs

        specs = [tf.TensorSpec([None, *shape], tf.as_dtype(dtype)) for _, shape, dtype in graph.input_specs]
        self._run = tf.function(both, input_signature=[specs], autograph=False)
        self._dtypes = [spec.dtype for spec in specs]

    def __call__(self, inputs: Sequence[NDArray[Any]]) -> tuple[list[Any], list[Any], list[Any], list[Any]]:
        """Return (numbers, normalised activations, outputs, normalised outputs) of one batch."""
        import tensorflow as tf

        tensors = [
            tf.cast(input_tensor(array, array.dtype), dtype)
            for array, dtype in zip(inputs, self._dtypes, strict=True)
        ]
        numbers, handed, outputs, normalized_outputs = self._run(tensors)
        return numbers, handed, outputs, normalized_outputs


def _divided(tensor: Any, scales: NDArray[np.float64]) -> Any:
    import tensorflow as tf

    if np.all(scales == 1.0):
        return tensor
    return tensor / tf.constant(scales[np.newaxis], tensor.dtype)


def _numbers(old: Any, new: Any, each: Compared, margin: float) -> list[Any]:
    """Return the largest error and the sum of squares (units of the factor), saturated values, channel peaks."""
    import tensorflow as tf

    factor = each.factor
    is_one_scale = np.all(each.scales == factor)
    relative = tf.constant((each.scales / factor)[np.newaxis], tf.float32)
    error = (new if is_one_scale else new * relative) - old * tf.constant(1.0 / factor, tf.float32)
    rank = len(each.scales.shape) + 1
    axis = each.channel_axis % rank if rank > 1 else 0
    others = [a for a in range(rank) if a != axis or rank == 1]
    # Reductions of what is there, without an array of magnitudes or squares between: memory sets the pace.
    return [
        tf.maximum(tf.reduce_max(error), -tf.reduce_min(error)),
        2.0 * tf.nn.l2_loss(error),
        tf.math.count_nonzero(new > 1.0 + margin, dtype=tf.int32),
        tf.maximum(tf.reduce_max(old, axis=others), -tf.reduce_min(old, axis=others)),
    ]
