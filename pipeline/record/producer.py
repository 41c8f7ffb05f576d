"""Where activations come from, and who takes them: two protocols, and a Keras network that produces.

The recorder knows only the protocols, so a producer without a model can stand in for Keras.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import cached_property, partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...storage import LastingThreads, PointSpec
from ...storage.errors import InputError
from ..graph import (
    AnyPoint,
    Graph,
    InnerPoint,
    Point,
    check_model,
    check_rows,
    forward_function,
    graph_points,
    inner_points,
    input_tensor,
    match_inputs,
    refusals_explained,
    shape_words,
    used_outputs,
)
from ..sources import Batch, HashedReads, Source
from .taps import Taps

__all__ = ["Consumer", "KerasProducer", "Producer"]


_NOTHING_HASHED = 0, 0, ""
# Batches that were read and hashed, and wait while others go through the network: of a small one several, since some
# take longer to read than others.
READ_AHEAD_NBYTES = 4 * 2**20
MOST_AHEAD = 8


class Consumer(Protocol):
    """What values are handed over to."""

    def take(self, point: str, values: NDArray[np.float32]) -> None:
        """Take the next values of a point, of shape (n, *point shape).

        Those of a point come in the order of the samples. Different points may come from several threads at once, and
        in any order. The array is given away: the producer does not write to its memory again.
        """
        ...

    def end_batch(self, n_samples: int) -> None:
        """Be told that all points of a batch were handed over, and how many samples that had."""
        ...


class Producer(Protocol):
    """Computes the activations of samples, batch by batch, in a fixed order."""

    @property
    def points(self) -> tuple[PointSpec, ...]:
        """Where activations are recorded, in model order."""
        ...

    def content_hash(self, start: int, stop: int) -> str:
        """Return a hash of the content and order of the samples start..stop-1."""
        ...

    def hand_over(self, start: int, stop: int, consumer: Consumer) -> None:
        """Compute the samples start..stop-1; hand each point's values over as they are computed, once.

        ``start`` is a multiple of the batch size, so the same samples always meet the same batch. What the consumer
        raises ends that, and goes on to the caller as it is.
        """
        ...


class KerasProducer:
    """One pass of a Keras network over a source: one ``tf.function`` with a tap on the value of every point.

    Parameters
    ----------
    graph : Graph
        The network.
    points : sequence of Point or InnerPoint
        Where to record.
    source : Source
        The samples.
    batch_size : int
        Samples that go through the network together.
    allow_random : bool
        Take a network of which two passes over the same samples differ.

    Raises
    ------
    InputError
        If the samples do not fit the inputs of the network.
    """

    def __init__(
        self,
        graph: Graph,
        points: tuple[AnyPoint, ...],
        source: Source,
        *,
        batch_size: int,
        allow_random: bool = False,
    ) -> None:
        self._graph, self._graph_points = graph, points
        self._allow_random, self._is_checked = allow_random, False
        self._source, self._batch_size = source, batch_size
        self._inputs = match_inputs(graph, source.inputs)
        self._taps = Taps()
        self._hashed = _NOTHING_HASHED
        """First and last sample (excluded) of those that were handed over last, and their hash; for one call."""
        self._traced_shapes: dict[str, tuple[int | None, ...]] = {}
        shapes: Sequence[tuple[int | None, ...]] = [point.shape for point in points]
        if any(None in shape for shape in shapes):
            _ = self._function
            shapes = [self._traced_shapes.get(point.name, point.shape) for point in points]
        self._points = tuple(
            _point_spec(graph, point, shape) for point, shape in zip(points, shapes, strict=True)
        )

    @cached_property
    def _function(self) -> Any:
        """The traced pass; traced when first needed, since a run with nothing to do never is."""
        import tensorflow as tf

        specs = [tf.TensorSpec((None, *self._source.inputs[i].shape), dtype) for i, dtype in self._inputs]
        forward = forward_function(
            self._graph, self._graph_points, on_value=self._tapped, on_inner=self._tapped_inner
        )

        @tf.function(input_signature=[specs], autograph=False)  # type: ignore[untyped-decorator]  # no stubs
        def run_through(inputs: list[Any]) -> list[Any]:
            with self._taps.tracing() as tokens:
                forward(inputs)
            return tokens

        with refusals_explained(graph=self._graph):
            return run_through.get_concrete_function()

    def _tapped(self, index: int, tensor: Any) -> Any:
        """Put a tap on a value if it belongs to points; return what the network goes on with."""
        names = [point.name for point in graph_points(self._graph_points) if point.value == index]
        if not names:
            return tensor
        shape = tuple(tensor.shape[1:])
        self._traced_shapes.update(dict.fromkeys(names, shape))
        return self._taps.tap(names, tensor, nbytes=self._nbytes(shape))

    def _tapped_inner(self, point: InnerPoint, tensor: Any) -> Any:
        return self._taps.tap([point.name], tensor, nbytes=self._nbytes(point.shape))

    def _nbytes(self, shape: Sequence[int | None]) -> int:
        return 4 * self._batch_size * math.prod(n or 1 for n in shape)

    def check(self) -> tuple[str, ...]:
        """Return the names of the layers that are random at inference, found on the first batch.

        Raises
        ------
        InputError
            If there are some and they are not allowed, or the graph does not compute what its model does.
        """
        n_samples = min(self._batch_size, self._source.n_samples)
        inputs = self._tensors(self._source.read(0, n_samples), 0, n_samples)
        with refusals_explained(0, n_samples, self._graph):
            return self._checked(inputs)

    def _checked(self, inputs: list[Any]) -> tuple[str, ...]:
        self._is_checked = True
        random = check_model(self._graph, inputs, allow_random=self._allow_random)
        if not random:
            check_rows(self._graph, inner_points(self._graph_points), inputs)
        return random

    def _tensors(self, batch: Batch, start: int, stop: int) -> list[Any]:
        """Return the samples start..stop-1 as the network takes them."""
        # TensorFlow divides the product of one row by the threads it has, that of more rows it does not: a sample that
        # is left over goes through the network twice, so that other threads give the same bits.
        arrays = batch.inputs
        if self._is_left_over(start, stop):
            arrays = tuple(np.repeat(array, 2, axis=0) for array in arrays)
        return [input_tensor(arrays[i], dtype) for i, dtype in self._inputs]

    def _is_left_over(self, start: int, stop: int) -> bool:
        return stop - start == 1 < self._batch_size

    def input_nbytes(self) -> int:
        """Return the bytes per sample of all inputs, as they are read or as the network takes them if that is more."""
        specs = [(self._source.inputs[i], np.dtype(dtype).itemsize) for i, dtype in self._inputs]
        return sum(max(spec.nbytes, math.prod(spec.shape) * itemsize) for spec, itemsize in specs)

    def largest_tensor_nbytes(self) -> int:
        """Return the bytes per sample of the largest tensor of the network whose shape is known beforehand."""
        shapes = [*(value.shape for value in self._graph.values), *(point.shape for point in self._points)]
        return max((4 * math.prod(n for n in shape if n is not None) for shape in shapes), default=0)

    def multiplications(self) -> int:
        """Return how many a sample costs the network, about: each parameter is used once at each place of the output.

        An axis whose length is not known beforehand counts as one. For estimates of time; no more than that.
        """
        recorded = {
            point.node: spec
            for point, spec in zip(self._graph_points, self._points, strict=True)
            if isinstance(point, Point)
        }
        total = 0
        for node in self._graph.nodes:
            if not (node.n_params and node.inputs):
                continue
            taken, given = (self._graph.values[side[0]] for side in (node.inputs, node.outputs))
            shape = recorded[node.index].shape if node.index in recorded else given.shape
            # A recurrent layer that gives its last state has used its parameters at each step of its input.
            at = (shape, given.channel_axis) if len(shape) > 1 else (taken.shape, taken.channel_axis)
            # Looking an embedding up multiplies nothing: no value is made of more than all values that go in.
            total += min(node.n_params * _n_places(*at), _n_places(taken.shape) * _n_places(shape))
        return total

    def content_hash(self, start: int, stop: int) -> str:
        """Return a hash of the content and order of the samples start..stop-1."""
        (first, last, hashed), self._hashed = self._hashed, _NOTHING_HASHED
        return hashed if (first, last) == (start, stop) else self._source.content_hash(start, stop)

    @property
    def points(self) -> tuple[PointSpec, ...]:
        """Where activations are recorded, in model order."""
        return self._points

    def hand_over(self, start: int, stop: int, consumer: Consumer) -> None:
        """Compute the samples start..stop-1, batch by batch; see `Producer`.

        Samples are read and hashed by the caller's thread, while those before them go through the network.
        """
        batch_nbytes = self._batch_size * self.input_nbytes()
        n_ahead = min(MOST_AHEAD, max(1, READ_AHEAD_NBYTES // max(1, batch_nbytes)))
        reads = HashedReads(self._source, start, stop)
        # Ended twice: a second Ctrl-C may come where the first end has not begun.
        with LastingThreads(1, name="actisketch-pass") as passing, passing, _Passes(passing) as passes:
            for first in range(start, stop, self._batch_size):
                last = min(first + self._batch_size, stop)
                inputs = self._tensors(reads.read(first, last), first, last)
                if first == 0 and not self._is_checked:
                    with refusals_explained(first, last, self._graph):
                        self._checked(inputs)
                function = self._function  # traced in this thread
                passes.wait(most=n_ahead - 1)
                passes.begin(partial(self._run_through, function, inputs, first, last, consumer))
            self._hashed = start, stop, reads.content_hash()

    def _run_through(
        self, function: Any, inputs: list[Any], first: int, last: int, consumer: Consumer
    ) -> None:
        n_skipped = 1 if self._is_left_over(first, last) else 0
        with (
            self._taps.handing_to(consumer.take, n_skipped=n_skipped),
            refusals_explained(first, last, self._graph),
        ):
            function(inputs)
        consumer.end_batch(last - first)


class _Passes:
    """Batches that go through the network one after the other, in a thread; the ``with`` ends when all have.

    After an error none is begun. An error in the ``with`` waits for those that were there before it.
    """

    def __init__(self, thread: LastingThreads) -> None:
        self._thread = thread
        self._pending: deque[Future[None]] = deque()
        self._is_over = False

    def __enter__(self) -> _Passes:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None or issubclass(kind, Exception):
                self.wait()
        finally:
            self._is_over = True

    def begin(self, run: Callable[[], None]) -> None:
        done: Future[None] = Future()
        self._thread.submit(done, partial(self._do, run))
        self._pending.append(done)

    def _do(self, run: Callable[[], None]) -> None:
        if self._is_over:
            return
        try:
            run()
        except BaseException:
            self._is_over = True
            raise

    def wait(self, *, most: int = 0) -> None:
        """Wait until at most so many are not done; raise what one of them met."""
        while len(self._pending) > most:
            self._pending.popleft().result()


def _point_spec(graph: Graph, point: AnyPoint, shape: tuple[int | None, ...]) -> PointSpec:
    known = tuple(n for n in shape if n is not None)
    if len(known) != len(shape):
        raise InputError(
            f"the shape of {point.name!r} is {shape_words(shape)} and varies: give samples of one shape, "
            "or leave the point out with record.points",
            point=point.name,
        )
    meta = {
        "layer": point.layer_name,
        "layer_type": point.layer_type,
        "activation": point.activation,
        "pinned": point.pinned,
        "n_params": point.n_params,
    }
    if isinstance(point, InnerPoint):
        meta |= {"inside": graph.nodes[point.node].name, "place": point.place}
    elif output := used_outputs(graph, graph.nodes[point.node])[0]:
        # Caches of earlier programs hold the first output, whether it is used or not.
        meta |= {"output": output}
    return PointSpec(name=point.name, shape=known, channel_axis=point.channel_axis, meta=meta)


def _n_places(shape: Sequence[int | None], but_axis: int | None = None) -> int:
    """Return the product of the axes, or of all but one."""
    lengths = [n or 1 for n in shape]
    return math.prod(lengths) // (lengths[but_axis] if but_axis is not None and lengths else 1)
