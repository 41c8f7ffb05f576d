"""Taps: they hand values over while a network runs.

A tap is put on a tensor while the network is traced. When the value is computed, TensorFlow calls the tap with it: in
host memory, not copied, once, in a thread of its own. Nothing else holds the value. Does not know what the values are
for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import InputError

__all__ = ["AHEAD_NBYTES", "SMALL_NBYTES", "TAPS_AT_ONCE", "Take", "Taps"]

Take = Callable[[str, NDArray[np.float32]], None]
"""Takes the values of a point, of shape (samples, *point shape); called from threads of TensorFlow, several at once."""

# Values of less than this, a batch, do not hold the network back, and some of them share a call: it takes 0.1 ms.
SMALL_NBYTES = 2**20
JOINED_TAPS = 8
# Each has counters of its own while it counts, and a network keeps few cores of values waiting.
TAPS_AT_ONCE = 4
# Values that may be with their taps while the network goes on. A larger one may, with no other.
AHEAD_NBYTES = 32 * 2**20


class Taps:
    """The taps of one traced network.

    Notes
    -----
    A tap is a stateless operation: TensorFlow chains stateful ones one after the other. So it must give something that
    is used, or it is left out of the graph: a token, and the traced function returns the tokens of all taps.

    TensorFlow would run the network ahead of its taps and keep every value until its tap has it. So what follows a
    large value waits until few enough bytes are with their taps. It waits behind an ``EnsureShape``, never in an
    operation that computes: TensorFlow fuses a convolution with what follows it only if neither waits for anything, and
    the fused operation may round differently.
    """

    def __init__(self) -> None:
        self._take: Take | None = None
        self._n_skipped = 0
        self._failure: BaseException | None = None
        self._passing = threading.Lock()
        self._graph: Any = None
        """While tracing: where taps can be put."""
        self._made: list[tuple[Any, int]] = []
        """While tracing: the token of each tap, and the bytes of its values."""
        self._small: list[tuple[str, Any, int]] = []
        """While tracing: names, tensors and bytes that will share a tap."""

    @contextmanager
    def tracing(self) -> Iterator[list[Any]]:
        """Trace a network in this context; the tokens that it gives are complete at its end, and must be returned."""
        import tensorflow as tf

        tokens: list[Any] = []
        self._graph, self._made, self._small = tf.compat.v1.get_default_graph(), [], []
        try:
            yield tokens
            self._flush()
            tokens += [token for token, _ in self._made]
        finally:
            self._graph, self._made, self._small = None, [], []  # they hold the trace

    def tap(self, names: Sequence[str], tensor: Any, *, nbytes: int) -> Any:
        """Put a tap on a tensor that is being traced.

        Parameters
        ----------
        names : sequence of str
            The points whose values it holds.
        tensor : tf.Tensor
        nbytes : int
            Of a batch of it, as float32.

        Returns
        -------
        tf.Tensor
            The same values: what the network goes on with.

        Raises
        ------
        InputError
            If the tensor is computed in a loop or a branch, where it may have any number of values.
        """
        import keras

        if tensor.graph is not self._graph:
            raise InputError(
                f"point {names[0]!r} is computed in a loop or a branch inside the network, any number of times: leave "
                "it out with record.points",
                point=names[0],
            )
        value = keras.ops.cast(tensor, "float32")
        if nbytes < SMALL_NBYTES:
            self._small += [(name, value, nbytes) for name in names]
            if len(self._small) >= JOINED_TAPS:
                self._flush()
            return tensor
        self._flush()
        following = self._behind_taps(tensor, nbytes)
        self._add([(name, value) for name in names], nbytes)
        return following

    def _flush(self) -> None:
        if self._small:
            nbytes = sum(each for *_, each in self._small)
            self._add([(name, value) for name, value, _ in self._small], nbytes)
            self._small = []

    def _add(self, named: list[tuple[str, Any]], nbytes: int) -> None:
        import tensorflow as tf

        hand_over = partial(self._hand_over, [name for name, _ in named])
        before = [token for token, _ in self._made[-TAPS_AT_ONCE : 1 - TAPS_AT_ONCE or None]]
        # The copy from another device to the host is made for this operation, and for it alone.
        with tf.device("CPU:0"), tf.control_dependencies(before):
            values = [value for _, value in named]
            token = tf.numpy_function(hand_over, values, tf.float32, stateful=False)
        self._made.append((token, nbytes))

    def _behind_taps(self, tensor: Any, nbytes: int) -> Any:
        """Return the tensor, available when its values and those that are with earlier taps are few enough bytes."""
        import tensorflow as tf

        before = self._taps_before(nbytes)
        if not before:
            return tensor
        with tf.control_dependencies(before):
            following = tf.ensure_shape(tensor, tensor.shape)
        mask = getattr(tensor, "_keras_mask", None)
        if mask is not None:
            following._keras_mask = mask
        return following

    def _taps_before(self, nbytes: int) -> list[Any]:
        """Return the tap after which few enough bytes are with taps, a new value of ``nbytes`` among them, if any."""
        for token, before in reversed(self._made):
            nbytes += before
            if nbytes > AHEAD_NBYTES:
                return [token]
        return []

    def _hand_over(self, names: list[str], *arrays: NDArray[np.float32]) -> np.float32:
        """Hand values over, called by TensorFlow, which would wrap an error: that waits for the end of the batch."""
        try:
            for name, array in zip(names, arrays, strict=True):
                if self._failure is None and self._take is not None:
                    self._take(name, array[self._n_skipped :])
        except BaseException as error:
            self._failure = self._failure or error
        return np.float32(0)

    @contextmanager
    def handing_to(self, take: Take, *, n_skipped: int = 0) -> Iterator[None]:
        """Hand the values of a batch to ``take``, without the first samples; raise at the end what it raised."""
        with self._passing:
            self._take, self._n_skipped, self._failure = take, n_skipped, None
            try:
                yield
            finally:
                failure, self._take, self._failure = self._failure, None, None
        if failure is not None:
            raise failure
