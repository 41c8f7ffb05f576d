"""Hand on what the layers inside nodes give, while a network is traced: in the order of the samples, by point.

What is tapped is what was found before: the same layers, called in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ...storage.errors import InputError
from .graph import Graph
from .inner_calls import CallNode, InnerCall, watched_calls
from .nodes import InnerPoint
from .steps import call_node

__all__ = ["OnInner", "tapped_calls"]

OnInner = Callable[[InnerPoint, Any], Any]
"""Takes a point and its tensor, of shape (samples, *point shape); returns the same values, to go on with."""


@contextmanager
def tapped_calls(
    graph: Graph, points: Sequence[InnerPoint], on_inner: OnInner, *, like: Any
) -> Iterator[CallNode]:
    """Hand on the tensors of ``points`` while all nodes of ``graph`` are traced in this context.

    Gives what calls a node, as `call_node`.

    Parameters
    ----------
    graph : Graph
    points : sequence of InnerPoint
        Found by a trace of the same network.
    on_inner : callable
    like : tensor
        With one row for each sample, as an input of the network.

    Raises
    ------
    InputError
        If the network calls its layers otherwise than it did when the points were found.
    """
    if not points:
        yield call_node
        return
    wanted = {point.place: point for point in points}

    def hand_on(call: InnerCall, output: Any) -> Any:
        point = wanted.get(call.place)
        if point is None or call.is_step:
            return output
        if call.inner.layer is not point.layer or call.number != point.call or not hasattr(output, "shape"):
            raise _otherwise(point)
        del wanted[call.place]
        return _handed_on(point, output, on_inner, like)

    with watched_calls(graph, hand_on) as watched:
        yield watched
    for point in wanted.values():
        raise _otherwise(point)


def _handed_on(point: InnerPoint, output: Any, on_inner: OnInner, like: Any) -> Any:
    import tensorflow as tf

    if point.n_rows == 1:
        if output.shape[1:] == point.shape:
            return on_inner(point, output)
        on_inner(point, tf.ensure_shape(output, (None, *point.shape)))
        return output
    n_samples = tf.shape(like)[0]
    if point.n_rows == 0:
        on_inner(point, tf.broadcast_to(output, [n_samples, *point.shape]))
        return output
    taken = on_inner(point, tf.reshape(output, [n_samples, *point.shape]))
    following = tf.ensure_shape(tf.reshape(taken, tf.shape(output)), output.shape)
    if (mask := getattr(output, "_keras_mask", None)) is not None:
        following._keras_mask = mask
    return following


def _otherwise(point: InnerPoint) -> InputError:
    return InputError(
        f"the network does not call the layer {point.name!r} each time in the same way: its call() uses a state of "
        "Python, which recording cannot repeat; write it without, or record other points (record.points)",
        point=point.name,
    )
