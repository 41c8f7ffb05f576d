"""A graph that does not compute what its model computes is refused before anything is recorded or certified."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from actisketch.pipeline.certifier import certify
from actisketch.pipeline.graph import check_model, read_graph, reading, select_points
from actisketch.pipeline.normalizer import normalize_model
from actisketch.pipeline.record.producer import KerasProducer
from actisketch.pipeline.sources import as_source
from actisketch.storage.errors import InputError

layers = keras.layers
LEFT, RIGHT = (np.random.default_rng(seed).normal(0, 1, (6, 3)).astype(np.float32) for seed in (229, 233))


def difference() -> keras.Model:
    """Two inputs, the later name first, through different layers and subtracted."""
    one, other = keras.Input((3,), name="b_in"), keras.Input((3,), name="a_in")
    outputs = layers.Subtract(name="minus")(
        [layers.Dense(4, name="p")(one), layers.Dense(4, name="q")(other)]
    )
    return keras.Model([one, other], outputs, name="inner")


class Nobody:
    """A consumer that is never handed anything."""

    def take(self, point: str, values: Any) -> None:
        raise AssertionError(point)

    end_batch = None


def read_in_the_wrong_order(inner: Any, node: Any) -> list[Any]:
    return list(reversed(node.input_tensors))


def test_a_graph_with_swapped_inputs_is_neither_recorded_nor_certified(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, y = keras.Input((3,), name="x"), keras.Input((3,), name="y")
    model = keras.Model([x, y], layers.Dense(2, name="classes")(difference()([x, y])))
    monkeypatch.setattr(reading, "_inputs_in_order", read_in_the_wrong_order)
    graph = read_graph(model)
    source = as_source([LEFT, RIGHT])
    producer = KerasProducer(graph, select_points(graph), source, batch_size=3)
    normalized = normalize_model(model, dict.fromkeys(["inner/p", "inner/q", "classes"], 2.0))

    with pytest.raises(InputError, match="something else at its output 'classes'"):
        producer.hand_over(0, 6, Nobody())
    with pytest.raises(InputError, match="something else at its output 'classes'"):
        certify(model, normalized, source, batch_size=3)


class Noise(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Random at inference too."""

    def __init__(self) -> None:
        super().__init__(name="noise")
        self.seeds = keras.random.SeedGenerator(239)

    def call(self, x: Any) -> Any:
        return x + keras.random.normal(keras.ops.shape(x), seed=self.seeds)


def test_a_network_that_is_random_itself_is_not_refused_where_it_is_allowed() -> None:
    x = keras.Input((3,))
    graph = read_graph(keras.Model(x, Noise()(layers.Dense(2)(x))))

    assert check_model(graph, [LEFT], allow_random=True) == ("noise",)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "bfloat16", "float64"])
def test_a_network_of_any_precision_agrees_with_its_graph(policy: str) -> None:
    model = keras.Sequential(
        [
            layers.Input((3,)),
            layers.Dense(20, activation="relu", dtype=policy),
            layers.BatchNormalization(dtype=policy),
            layers.Dense(2, activation="softmax", dtype=policy),
        ]
    )
    check_model(read_graph(model), [LEFT])


def test_values_that_are_not_finite_agree_with_themselves() -> None:
    x = keras.Input((3,))
    samples: NDArray[np.float32] = LEFT.copy()
    samples[0], samples[1] = np.nan, np.inf
    check_model(read_graph(keras.Model(x, layers.ReLU()(x))), [samples])
