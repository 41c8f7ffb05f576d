"""Find the layer in which the samples of a batch influence each other: its values are the batch's, not the samples'.

Such values change with the batch size, and with who else is in the last batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from .code import brings_code
from .graph import Graph
from .nodes import Node
from .steps import call_node, fed_values, steps_to

__all__ = ["Mixing"]

PARTS: Final = (slice(1, None), slice(1))
"""Of a batch. Both, since a largest or first value is in one of them only."""

IsClose = Callable[[Any, Any], bool]


class Mixing:
    """Looks for such a layer while the values of a batch are computed one after the other.

    Parameters
    ----------
    graph : Graph
        Not random.
    inputs : sequence of tensor
        The batch.
    is_close : callable
        Tells whether two tensors of one shape agree.

    Notes
    -----
    Each node is called alone, with a part of its inputs: rounding that grows from layer to layer is no mixing. A node
    that moves the axis of samples, as networks with time first have, is found as well, so the whole network is called.
    """

    def __init__(self, graph: Graph, inputs: Sequence[Any], is_close: IsClose) -> None:
        self._graph, self._inputs, self._is_close = graph, inputs, is_close
        self._suspects: list[tuple[Node, slice]] = []

    def look(self, node: Node, extra: dict[str, Any], values: Mapping[int, Any]) -> None:
        """Look at a node; ``values`` has those that it takes and gives."""
        n_samples = len(self._inputs[0])
        if not _may_mix(node):
            return
        for rows in PARTS if n_samples > 1 else ():
            given = {index: _part(values[index], rows, n_samples) for index in node.inputs}
            expected = [_part(values[index], rows, n_samples) for index in node.outputs]
            if not all(map(self._is_close, call_node(node, given, extra), expected)) and _mixes_when_traced(
                node, extra, values, rows, n_samples, self._is_close
            ):
                self._suspects.append((node, rows))

    def node(self) -> Node | None:
        """Return the first node that mixes samples; None when each sample's values are its own."""
        if not self._suspects:
            return None
        values = _all_values(self._graph, self._inputs)
        for rows in PARTS:
            suspects = [node for node, looked_at in self._suspects if looked_at == rows]
            part = {index: _part(value, rows, len(self._inputs[0])) for index, value in values.items()}
            if suspects and not _is_each_its_own(
                self._graph, [tensor[rows] for tensor in self._inputs], part, self._is_close
            ):
                return suspects[0]
        return None


def _may_mix(node: Node) -> bool:
    """Keras' layers with parameters take sample by sample; they are also what costs."""
    return not node.n_params or brings_code(node.operation)


def _part(value: Any, rows: slice, n_samples: int) -> Any:
    has_samples = len(getattr(value, "shape", ())) > 0 and value.shape[0] == n_samples
    return value[rows] if has_samples else value


def _mixes_when_traced(
    node: Node,
    extra: dict[str, Any],
    values: Mapping[int, Any],
    rows: slice,
    n_samples: int,
    is_close: IsClose,
) -> bool:
    """Return whether a node mixes samples also where the batch size is open, as it is when they are recorded.

    Keras' add takes (4, 1) for the bias of (4, 4), and so each of 4 samples for one of 4 channels.
    """
    import tensorflow as tf

    def call(tensors: Sequence[Any]) -> list[Any]:
        return call_node(node, dict(zip(node.inputs, tensors, strict=True)), extra)

    whole = [tf.convert_to_tensor(values[index]) for index in node.inputs]
    part = [_part(tensor, rows, n_samples) for tensor in whole]
    shapes = [
        (None, *a.shape[1:]) if a.shape != b.shape else a.shape for a, b in zip(whole, part, strict=True)
    ]
    specs = [tf.TensorSpec(shape, tensor.dtype) for shape, tensor in zip(shapes, whole, strict=True)]
    traced = tf.function(call, input_signature=[specs], autograph=False)
    expected = (_part(value, rows, n_samples) for value in traced(whole))
    return not all(map(is_close, traced(part), expected))


def _is_each_its_own(
    graph: Graph, inputs: Sequence[Any], expected: Mapping[int, Any], is_close: IsClose
) -> bool:
    """Return whether a part of a batch gives the same values as within the batch, where the shapes are equal."""
    return all(
        is_close(value, expected[index])
        for index, value in _all_values(graph, inputs).items()
        if getattr(value, "shape", None) == getattr(expected[index], "shape", None)
    )


def _all_values(graph: Graph, inputs: Sequence[Any]) -> dict[int, Any]:
    values = fed_values(graph, inputs)
    for node, extra in steps_to(graph, graph.outputs):
        values.update(zip(node.outputs, call_node(node, values, extra), strict=True))
    return values
