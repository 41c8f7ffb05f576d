"""Run a graph: from inputs to any of its values.

Pure Keras operations, so that it can be traced by ``tf.function`` and costs what the bare model costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .graph import Graph
from .inner_taps import OnInner, tapped_calls
from .nodes import AnyPoint, InnerPoint
from .steps import fed_values, steps_to

__all__ = ["forward_function", "traced_forward"]


def forward_function(
    graph: Graph,
    points: Sequence[AnyPoint] | Sequence[int],
    *,
    dtype: str = "float32",
    on_value: Callable[[int, Any], Any] | None = None,
    on_inner: OnInner | None = None,
) -> Callable[[Sequence[Any]], tuple[list[Any], list[Any]]]:
    """Return a function from the inputs of a network to the tensors of ``points`` and its outputs.

    Parameters
    ----------
    graph : Graph
    points : sequence of Point, InnerPoint or int
        Points, or indices of values. With points inside nodes, the function can be traced only, not called eagerly.
    dtype : str, default="float32"
        Of the tensors of the points.
    on_value : callable, optional
        Called with the index of each value and its tensor when that is computed; returns the tensor to go on with.
    on_inner : callable, optional
        The same for each point inside a node.

    Returns
    -------
    callable
        ``call(inputs) -> (point_tensors, output_tensors)``; inputs in the order of ``graph.inputs``, points as
        ``dtype`` in the order given, outputs in the dtype of the model. Inference mode; the weights are read from the
        model's variables at each call. Wrap it in ``tf.function``.
    """
    import keras

    inner = [each for each in points if isinstance(each, InnerPoint)]
    wanted = [
        each if isinstance(each, int) else each.value for each in points if not isinstance(each, InnerPoint)
    ]
    steps = steps_to(graph, [*wanted, *graph.outputs])

    def call(inputs: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        values: dict[int, Any] = {}
        kept: dict[str, Any] = {}

        def add(computed: Iterable[tuple[int, Any]]) -> None:
            for index, tensor in computed:
                values[index] = tensor if on_value is None else on_value(index, tensor)

        def keep(point: InnerPoint, tensor: Any) -> Any:
            kept[point.name] = tensor if on_inner is None else on_inner(point, tensor)
            return kept[point.name]

        add(fed_values(graph, inputs).items())
        with tapped_calls(graph, inner, keep, like=inputs[0]) as call_node:
            for node, extra in steps:
                add(zip(node.outputs, call_node(node, values, extra), strict=True))
        of_graph = (values[index] for index in wanted)
        found = [kept[each.name] if isinstance(each, InnerPoint) else next(of_graph) for each in points]
        tensors = [keras.ops.cast(tensor, dtype) for tensor in found]
        return tensors, [values[index] for index in graph.outputs]

    return call


def traced_forward(
    graph: Graph, points: Sequence[AnyPoint] | Sequence[int], samples: Sequence[tuple[tuple[int, ...], Any]]
) -> Any:
    """Return `forward_function`, traced for any number of samples, as a run records it.

    Parameters
    ----------
    graph : Graph
    points : sequence of Point, InnerPoint or int
        Points, or indices of values.
    samples : sequence of (shape, dtype)
        Of one sample of each input, in the order of ``graph.inputs``.

    Notes
    -----
    Called eagerly, or traced for 4 samples, Keras' add takes one value of each sample for a bias of 4 channels.
    """
    import tensorflow as tf

    specs = [tf.TensorSpec((None, *shape), dtype) for shape, dtype in samples]
    return tf.function(forward_function(graph, points), input_signature=[specs], autograph=False)
