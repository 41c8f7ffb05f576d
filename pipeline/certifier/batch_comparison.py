"""Compare two networks on one batch, inside one ``tf.function``: it returns a few numbers for each value.

Knows nothing of tolerances or verdicts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..graph import Graph, forward_function, input_tensor
from ..normalizer.normalizing import NormalizedModel

__all__ = ["BatchComparison", "ComparedValue"]


@dataclass(frozen=True, slots=True)
class ComparedValue:
    """A value of the original, and where the normalised network computes it."""

    name: str
    value: int
    place: int
    scales: NDArray[np.float64]
    channel_axis: int
    node: int | None = None
    """The node of the normalised network with the weights that produce the value, if there is one."""

    @property
    def factor(self) -> float:
        """The largest scale."""
        return float(self.scales.max())

    @property
    def is_one_scale(self) -> bool:
        """Whether all channels have the same scale; then they are compared together."""
        return bool(np.all(self.scales == self.factor))

    @property
    def factors(self) -> NDArray[np.float64]:
        """A vector: the scale of each channel (the largest, if it varies along other axes), or one for all channels."""
        others = tuple(axis - 1 for axis in self.other_axes if axis)
        scales: NDArray[np.float64] = self.scales.max(axis=None if self.is_one_scale else others)
        return scales.reshape(-1)

    @property
    def other_axes(self) -> list[int]:
        """The axes of a batch of the value, but the channel axis."""
        rank = len(self.scales.shape) + 1
        axis = self.channel_axis % rank if rank > 1 else 0
        return [a for a in range(rank) if a != axis or rank == 1]


class BatchComparison:
    """Both networks in one traced function.

    Parameters
    ----------
    graph : Graph
        The original.
    normalized : NormalizedModel
    compared : sequence of ComparedValue
    shapes : sequence of tuple of int
        Shape of a sample for each input of the graph. As in recording, it fixes sizes that the network leaves open.
    n_points : int
        How many of ``compared``, from the first, are points.
    margin : float
        An activation above 1 + margin is saturated.
    hand_out : bool
        Whether the normalised activations of the points are returned too, for sketches.
    """

    def __init__(
        self,
        graph: Graph,
        normalized: NormalizedModel,
        compared: Sequence[ComparedValue],
        *,
        shapes: Sequence[tuple[int, ...]],
        margin: float,
        hand_out: bool,
        n_points: int,
    ) -> None:
        import tensorflow as tf

        before = forward_function(graph, [each.value for each in compared])
        after = forward_function(normalized.normalized_graph, [each.place for each in compared])
        self.sample_values = 0
        """How many numbers of a sample are compared, as far as shapes are known in advance."""

        def both(inputs: list[Any]) -> tuple[list[Any], list[Any], list[Any], list[Any]]:
            tensors, outputs = before(inputs)
            normalized_tensors, normalized_outputs = after(normalized.scaled_inputs(inputs))
            numbers = [
                _numbers(old, new, each, margin)
                for old, new, each in zip(tensors, normalized_tensors, compared, strict=True)
            ]
            handed = normalized_tensors[:n_points] if hand_out else []
            self.sample_values = sum(math.prod(n or 1 for n in each.shape[1:]) for each in tensors)
            return numbers, handed, outputs, normalized_outputs

        specs = [
            tf.TensorSpec([None, *shape], tf.as_dtype(dtype))
            for shape, (_, _, dtype) in zip(shapes, graph.input_specs, strict=True)
        ]
        self._run = tf.function(both, input_signature=[specs], autograph=False).get_concrete_function()
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


def _numbers(old: Any, new: Any, each: ComparedValue, margin: float) -> list[Any]:
    """Return largest errors, sum of squared errors, number of saturated values, peaks, number of values.

    Errors are in units of the factors; the largest one of all channels, or of each if scales differ.
    """
    import tensorflow as tf

    if each.is_one_scale:
        error, axes = new - old * tf.constant(1.0 / each.factor, tf.float32), None
    else:
        error, axes = new - old * tf.constant((1.0 / each.scales)[np.newaxis], tf.float32), each.other_axes
    # No array of magnitudes or squares in between: memory bandwidth is the bottleneck.
    return [
        tf.maximum(tf.reduce_max(error, axis=axes), -tf.reduce_min(error, axis=axes)),
        2.0 * tf.nn.l2_loss(error),
        tf.math.count_nonzero(new > 1.0 + margin, dtype=tf.int32),
        tf.maximum(tf.reduce_max(old, axis=each.other_axes), -tf.reduce_min(old, axis=each.other_axes)),
        tf.size(new),
    ]
