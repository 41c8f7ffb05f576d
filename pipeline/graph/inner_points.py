"""Points inside the nodes of a graph: which calls can be recorded, and why others cannot.

One trace of the network finds them. Nothing is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ...storage.errors import InputError
from .graph import Graph
from .inner_calls import InnerCall, watched_calls
from .inputs import shape_words
from .keras_errors import refusals_explained
from .kinds import activation_of, type_of
from .nodes import InnerPoint
from .reading import channel_axis, n_params
from .steps import fed_values, steps_to

__all__ = ["InnerCalls", "Samples", "traced_calls"]

Samples = Sequence[tuple[tuple[int, ...], Any]]
"""Shape and dtype of one sample of each input, in the order of ``graph.inputs``."""

N_TRACED: Final = 1_009
"""Samples while the network is traced: a prime that hardly a network has as a size, so that its multiples are told."""


class InnerCalls:
    """The calls of layers inside the nodes of a network, as one trace made them.

    Parameters
    ----------
    calls : sequence of (InnerCall, InnerPoint or str)
        In the order in which they ended; with each its point, or why it cannot be recorded.
    """

    def __init__(self, calls: Sequence[tuple[InnerCall, InnerPoint | str]]) -> None:
        self.points = tuple(found for _, found in calls if isinstance(found, InnerPoint))
        self._found = {id(call): found for call, found in calls}
        self._by_layer: dict[str, list[InnerCall]] = {}
        for call, _ in calls:
            self._by_layer.setdefault(call.inner.path, []).append(call)

    def of(self, path: str) -> list[InnerCall]:
        """Return the calls of a layer."""
        return self._by_layer.get(path, [])

    def found(self, call: InnerCall) -> InnerPoint | str:
        """Return the point that records a call, or why it cannot be recorded."""
        return self._found[id(call)]


def traced_calls(graph: Graph, samples: Samples) -> InnerCalls:
    """Return the calls of all layers inside the nodes of ``graph``.

    Raises
    ------
    InputError
        If the network cannot be traced for these samples.
    """
    try:
        return _traced(graph, samples, N_TRACED)
    except InputError:
        # The network may take batches of some sizes only.
        return _traced(graph, samples, None)


def _traced(graph: Graph, samples: Samples, n_samples: int | None) -> InnerCalls:
    import tensorflow as tf

    calls: list[tuple[InnerCall, InnerPoint | str]] = []
    specs = [tf.TensorSpec((n_samples, *shape), dtype) for shape, dtype in samples]

    def note(call: InnerCall, output: Any) -> Any:
        calls.append((call, _refusal(call, output, n_samples) or _point(call, output, n_samples)))
        return output

    def pass_through(inputs: list[Any]) -> None:
        values = fed_values(graph, inputs)
        with watched_calls(graph, note) as call_node:
            for node, extra in steps_to(graph, graph.outputs):
                values.update(zip(node.outputs, call_node(node, values, extra), strict=True))

    with refusals_explained(graph=graph):
        tf.function(pass_through, input_signature=[specs], autograph=False).get_concrete_function()
    return InnerCalls(calls)


def _refusal(call: InnerCall, output: Any, n_samples: int | None) -> str:
    """Return why the output of a call cannot be recorded, as the end of a sentence; empty if it can."""
    import tensorflow as tf

    if call.is_step:
        return "is called inside a loop, a branch or a tf.function"
    if isinstance(output, dict):
        return "gives a dict"
    if isinstance(output, list | tuple):
        return f"gives {len(output)} values" if len(output) != 1 else "gives a list"
    if not isinstance(output, tf.Tensor):
        return f"gives no tensor but {type(output).__name__}"
    if output.dtype == tf.string:
        return "gives text"
    known = output.shape[1 if n_samples is None else 0 :] if output.shape.rank else output.shape
    if output.shape.rank is None or None in known:
        shape = "unknown" if output.shape.rank is None else shape_words(tuple(output.shape[1:]))
        return f"gives a shape that varies, {shape}, or a number of rows that does"
    n_rows = output.shape[0] if output.shape.rank else 0
    if n_rows != 1 and n_samples is not None and (not n_rows or n_rows % n_samples):
        return f"gives no values of single samples, but the shape {shape_words(tuple(output.shape))}"
    return ""


def _point(call: InnerCall, output: Any, n_samples: int | None) -> InnerPoint:
    layer = call.inner.layer
    # 1009 // 1009 is 1, 4 * 1009 // 1009 is 4, and 1 // 1009 is 0.
    n_rows = 1 if n_samples is None or output.shape[0] is None else output.shape[0] // n_samples
    shape = (*([n_rows] if n_rows > 1 else []), *output.shape[1:])
    return InnerPoint(
        name=call.name,
        layer_name=layer.name,
        layer_type=type_of(layer),
        activation=activation_of(layer),
        node=call.node.index,
        shape=shape,
        channel_axis=channel_axis(layer, None, rank=len(output.shape) - 1),
        n_params=n_params(layer),
        layer=layer,
        call=call.number,
        place=call.place,
        n_rows=n_rows,
    )
