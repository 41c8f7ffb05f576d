"""Send batches through both networks, traced together, or through the normalised one alone.

A tap on each compared value hands it over when it is computed; nothing is held until the batch ends. Does not know what
the values are compared with, nor tolerances or verdicts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from ..graph import Graph, input_tensor
from ..graph.steps import call_node, fed_values, steps_to
from ..normalizer.normalizing import NormalizedModel
from ..record.taps import Take, Taps
from .value_comparison import ComparedValue

__all__ = ["BatchPass"]


class BatchPass:
    """The normalised network as one traced function, with the original in it or without.

    Parameters
    ----------
    graph : Graph
        The original.
    normalized : NormalizedModel
    compared : sequence of ComparedValue
        What is handed over of both networks, in about this order.
    shapes : sequence of tuple of int
        Shape of a sample for each input of the graph. As in recording, it fixes sizes that the network leaves open.
    batch_size : int
        At most so many samples pass together.
    with_original : bool
        Whether the original runs too. Then both are traced value by value, so that neither is ahead of the other.
    """

    def __init__(
        self,
        graph: Graph,
        normalized: NormalizedModel,
        compared: Sequence[ComparedValue],
        *,
        shapes: Sequence[tuple[int, ...]],
        batch_size: int,
        with_original: bool,
    ) -> None:
        import tensorflow as tf

        self._graph, self._normalized, self._compared = graph, normalized, compared
        self._batch_size, self._with_original = batch_size, with_original
        self._taps = Taps()
        self.shapes: dict[int, tuple[int, ...]] = {}
        """Of the compared values, by place in the normalised network, for one sample."""
        specs = [
            tf.TensorSpec([None, *shape], tf.as_dtype(dtype))
            for shape, (_, _, dtype) in zip(shapes, graph.input_specs, strict=True)
        ]
        self._run = tf.function(self._trace, input_signature=[specs], autograph=False).get_concrete_function()
        self._dtypes = [spec.dtype for spec in specs]

    def __call__(self, inputs: Sequence[NDArray[Any]], take: Take) -> None:
        """Hand over the values of one batch, by their names in a `ComparedValue`; raises what ``take`` raises."""
        import tensorflow as tf

        tensors = [
            tf.cast(input_tensor(array, array.dtype), dtype)
            for array, dtype in zip(inputs, self._dtypes, strict=True)
        ]
        with self._taps.handing_to(take):
            self._run(tensors)

    def _trace(self, inputs: list[Any]) -> list[Any]:
        normalized, compared = self._normalized, self._compared
        scaled = normalized.scaled_inputs(inputs)
        new = _Steps(normalized.normalized_graph, scaled, [each.place for each in compared])
        old = _Steps(self._graph, inputs, [each.value for each in compared]) if self._with_original else None
        tapped: set[str] = set()
        with self._taps.tracing() as tokens:
            for each in compared:
                taps = [(each.new_name, new, each.place)]
                taps += [(each.old_name, old, each.value)] if old is not None else []
                for name, steps, at in taps:
                    if name not in tapped:
                        self._tap(name, steps, at)
                        tapped.add(name)
        self.shapes = {each.place: tuple(new.values[each.place].shape[1:]) for each in compared}
        return tokens

    def _tap(self, name: str, steps: _Steps, at: int) -> None:
        """Run a network as far as a value, and put a tap on it: the network goes on behind that."""
        tensor = steps.run_to(at)
        nbytes = 4 * self._batch_size * math.prod(n or 1 for n in tensor.shape[1:])
        steps.values[at] = self._taps.tap([name], tensor, nbytes=nbytes)


class _Steps:
    """A network that is run as far as it is asked to."""

    def __init__(self, graph: Graph, inputs: Sequence[Any], wanted: Sequence[int]) -> None:
        self.values = fed_values(graph, inputs)
        self._coming = iter(steps_to(graph, wanted))

    def run_to(self, value: int) -> Any:
        """Return the tensor of a value."""
        while value not in self.values:
            node, arguments = next(self._coming)
            self.values.update(zip(node.outputs, call_node(node, self.values, arguments), strict=True))
        return self.values[value]
