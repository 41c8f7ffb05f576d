"""What a certificate must not excuse, and what is promised of pinned, shared and nested layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from actisketch.pipeline.certifier import certify
from actisketch.pipeline.graph import read_graph, select_points
from actisketch.pipeline.normalizer import normalize_in_place, normalize_model
from actisketch.pipeline.sources import as_source

from .conftest import outputs_of

layers = keras.layers
SAMPLES = np.random.default_rng(211).normal(0, 2, (16, 6)).astype(np.float32)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    keras.utils.set_random_seed(223)


@keras.saving.register_keras_serializable("tests")
class Forgetful(layers.Layer):
    """Multiplies by a number that its settings do not tell."""

    gain = 1.0

    def call(self, x: Any) -> Any:
        return x * self.gain


def test_state_that_is_lost_when_a_layer_is_rebuilt_fails_the_certificate() -> None:
    x = keras.Input((6,))
    forgetful = Forgetful(name="f")
    model = keras.Model(x, layers.Dense(3, name="b")(forgetful(layers.Dense(5, "relu", name="a")(x))))
    forgetful.gain = 3.0  # seen by the original only
    normalized = normalize_model(model, {"a": 2.0, "b": 3.0}, treat_as_identity=["f"])

    certificate = certify(model, normalized, as_source(SAMPLES), batch_size=8)

    assert not certificate.passed
    assert certificate.worst is not None
    assert certificate.worst.max_residual > 1000 * certificate.worst.allowed


def test_an_adapted_normalization_keeps_what_it_learnt() -> None:
    x = keras.Input((6,))
    learnt = layers.Normalization(name="n")
    learnt.adapt(SAMPLES * 3 + 2)
    hidden = layers.Dense(5, activation="relu", name="a")(learnt(x))
    model = keras.Model(x, layers.Dense(3, name="b")(hidden))
    normalized = normalize_model(model, {"a": 2.0, "b": 3.0})

    assert certify(model, normalized, as_source(SAMPLES), batch_size=8).passed
    np.testing.assert_allclose(
        outputs_of(normalized.model, SAMPLES) * 3.0, outputs_of(model, SAMPLES), atol=1e-5
    )


def test_weights_change_in_place_though_the_first_call_of_their_layer_leads_nowhere() -> None:
    a, b, x = keras.Input((6,)), keras.Input((6,)), keras.Input((6,))
    shared = layers.Dense(4, activation="relu", name="shared")
    inner = keras.Model([a, b], [shared(a), shared(b)])
    used = inner([x, x])[1]
    model = keras.Model(x, layers.Dense(2, activation="softmax", name="out")(used))
    before = outputs_of(model, SAMPLES)
    (name,) = [point.name for point in select_points(read_graph(model)) if point.name != "out"]

    scales = normalize_in_place(model, {name: 2.5, "out": 1.0})

    assert scales[name] == 2.5
    np.testing.assert_allclose(outputs_of(model, SAMPLES), before, atol=1e-6)


PinnedModel = Callable[[], tuple[keras.Model, dict[str, float]]]


def chain() -> tuple[keras.Model, dict[str, float]]:
    x = keras.Input((8, 8, 2))
    y = layers.Conv2D(4, 3, activation="relu", name="conv")(x)
    y = layers.BatchNormalization(name="norm")(y)
    y = layers.DepthwiseConv2D(3, name="depthwise")(y)
    y = layers.SeparableConv2D(3, 2, activation="relu", name="separable")(y)
    y = layers.Dense(5, activation="relu", name="dense")(layers.Flatten()(y))
    model = keras.Model(x, layers.Dense(3, name="out")(y))
    return model, dict.fromkeys([p.name for p in select_points(read_graph(model))], 2.0)


@pytest.mark.parametrize("mode", ["layer", "channel"])
@pytest.mark.parametrize(
    "pin", [["conv"], ["norm"], ["depthwise"], ["separable"], ["dense", "out"], ["*conv*"], ["*"]]
)
def test_layers_with_weights_can_be_pinned(pin: list[str], mode: Any) -> None:
    model, factors = chain()
    samples = np.random.default_rng(227).random((6, 8, 8, 2), dtype=np.float32)

    normalized = normalize_model(model, factors, pin=pin, mode=mode)

    assert certify(model, normalized, as_source(samples), batch_size=3).passed
    if pin == ["*"]:
        np.testing.assert_allclose(normalized.model(samples), model(samples), atol=1e-5)
    else:
        assert any(scale != 1.0 for scale in map(np.max, normalized.scales.values()))


@pytest.mark.parametrize("name", ["dense", "norm"])
def test_pinning_one_call_of_a_shared_layer_keeps_its_weights_for_all(name: str) -> None:
    x = keras.Input((6,))
    shared = layers.Dense(6, name="dense") if name == "dense" else layers.BatchNormalization(name="norm")
    first = shared(layers.Dense(6, activation="relu", name="a")(x))
    second = shared(layers.Dense(6, activation="relu", name="b")(layers.ReLU()(first)))
    model = keras.Model(x, layers.Dense(2, name="out")(second))
    factors = dict.fromkeys([p.name for p in select_points(read_graph(model))], 2.0)
    for call in (f"{name}", f"{name}:1"):
        normalized = normalize_model(model, factors, pin=[call])

        assert certify(model, normalized, as_source(SAMPLES), batch_size=8).passed
