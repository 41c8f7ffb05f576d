"""Samples are read while those before them go through the network, and errors come in the order of the samples."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from actisketch.pipeline.graph import read_graph, select_points
from actisketch.pipeline.record.producer import KerasProducer
from actisketch.pipeline.sources import as_source

N_SAMPLES, BATCH = 11, 4
"""The last batch has 3 samples."""


class Kept:
    """A consumer that keeps copies."""

    def __init__(self) -> None:
        self.values: dict[str, list[Any]] = {}
        self.n_samples: list[int] = []

    def take(self, point: str, values: Any) -> None:
        self.values.setdefault(point, []).append(values.copy())

    def end_batch(self, n_samples: int) -> None:
        self.n_samples.append(n_samples)

    def joined(self) -> dict[str, Any]:
        return {point: np.concatenate(arrays) for point, arrays in self.values.items()}


def producer_of(source: Any) -> KerasProducer:
    keras.utils.set_random_seed(2)
    x = inputs = keras.Input((6,))
    for i in range(2):
        x = keras.layers.Dense(16, activation="relu", name=f"dense{i}")(x)
    graph = read_graph(keras.Model(inputs, x))
    return KerasProducer(graph, select_points(graph, "all"), source, batch_size=BATCH)


class Watched:
    """A source that calls ``before`` with the first sample before it reads."""

    def __init__(self, samples: Any, before: Callable[[int], None]) -> None:
        self._source, self._before = as_source(samples), before

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def read(self, start: int, stop: int) -> Any:
        self._before(start)
        return self._source.read(start, stop)


def test_samples_are_read_while_those_before_them_go_through_the_network() -> None:
    is_read = [threading.Event() for _ in range(3)]
    samples = np.ones((N_SAMPLES, 6), np.float32)
    producer = producer_of(Watched(samples, lambda start: is_read[start // BATCH].set()))

    class Waiting(Kept):
        def take(self, point: str, values: Any) -> None:
            following = is_read[min(len(self.n_samples) + 1, 2)]
            assert following.wait(60)
            super().take(point, values)

    kept, plain = Waiting(), Kept()
    producer.hand_over(0, N_SAMPLES, kept)
    producer_of(as_source(samples)).hand_over(0, N_SAMPLES, plain)

    assert kept.n_samples == [4, 4, 3]
    for point, values in plain.joined().items():
        np.testing.assert_array_equal(kept.joined()[point], values)


@pytest.mark.parametrize("is_refused", [True, False])
def test_an_error_of_a_batch_comes_before_one_of_reading_those_after_it(*, is_refused: bool) -> None:
    def fail(start: int) -> None:
        if start == 2 * BATCH:
            raise OSError("cannot be read")

    class Refusing(Kept):
        def end_batch(self, n_samples: int) -> None:
            super().end_batch(n_samples)
            if is_refused and len(self.n_samples) == 2:
                raise ZeroDivisionError("mine")

    kept = Refusing()
    producer = producer_of(Watched(np.ones((N_SAMPLES, 6), np.float32), fail))
    with pytest.raises(ZeroDivisionError if is_refused else OSError):
        producer.hand_over(0, N_SAMPLES, kept)

    assert kept.n_samples == [4, 4]
