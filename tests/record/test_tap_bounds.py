"""Taps work several at a time, the network runs ahead of them by no more than it may, and a loop has none."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from actisketch.pipeline.record import taps
from actisketch.storage.errors import InputError


def traced(put: Callable[[Any, Any], Any], shape: tuple[int, ...] = (4,)) -> tuple[Any, Any]:
    """Return taps, and a traced function in which ``put(taps, x)`` puts some."""
    import tensorflow as tf

    own = taps.Taps()

    @tf.function(input_signature=[tf.TensorSpec((None, *shape))], autograph=False)
    def function(x: Any) -> Any:
        with own.tracing() as tokens:
            put(own, x)
        return tokens

    return own, function


def test_a_value_that_is_computed_in_a_loop_is_refused_while_tracing() -> None:
    import tensorflow as tf

    def put(own: Any, x: Any) -> Any:
        def body(i: Any, y: Any) -> Any:
            return i + 1, own.tap(["inner"], y * 2, nbytes=4)

        return tf.while_loop(lambda i, y: i < 3, body, (tf.constant(0), x))

    _, function = traced(put)
    with pytest.raises(InputError, match="'inner' is computed in a loop or a branch"):
        function.get_concrete_function()


def test_taps_work_several_at_a_time_and_no_more_than_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that wait for each other end; of six, never more than two are at work."""
    monkeypatch.setattr(taps, "SMALL_NBYTES", 0)
    monkeypatch.setattr(taps, "TAPS_AT_ONCE", 2)

    def put(own: Any, x: Any) -> None:
        for i in range(6):
            own.tap([f"point{i}"], x + i, nbytes=1)

    own, function = traced(put)
    meeting, guard, at_work, most = threading.Barrier(2, timeout=30), threading.Lock(), [0], [0]

    def take(point: str, values: Any) -> None:
        with guard:
            at_work[0] += 1
            most[0] = max(most[0], at_work[0])
        meeting.wait()
        with guard:
            at_work[0] -= 1

    with own.handing_to(take):
        function(np.zeros((3, 4), np.float32))

    assert most[0] == 2


def test_the_network_runs_ahead_of_taps_by_no_more_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain of values of 8 bytes each: 16 may be with taps, so a third is not there before the first is taken."""
    import tensorflow as tf

    monkeypatch.setattr(taps, "SMALL_NBYTES", 0)
    monkeypatch.setattr(taps, "AHEAD_NBYTES", 16)
    computed: list[int] = []
    taken: dict[int, int] = {}

    def put(own: Any, x: Any) -> None:
        for i in range(6):
            x = tf.numpy_function(lambda x, i=i: computed.append(i) or x, [x], tf.float32)
            x.set_shape((None, 4))
            x = own.tap([str(i)], x, nbytes=8)

    own, function = traced(put)

    def take(point: str, values: Any) -> None:
        time.sleep(0.05)  # the network has time to run ahead
        taken[int(point)] = max(computed)

    with own.handing_to(take):
        function(np.zeros((1, 4), np.float32))

    assert sorted(taken) == list(range(6))
    assert all(ahead <= point + 2 for point, ahead in taken.items()), taken
