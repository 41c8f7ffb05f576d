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


@keras.saving.register_keras_serializable("tests")
class Holding(layers.Layer):
    """Calls a layer that the network calls too."""

    def __init__(self, held: Any, **settings: Any) -> None:
        super().__init__(**settings)
        self.held = held

    def call(self, x: Any) -> Any:
        return keras.ops.tanh(self.held(x))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "held": keras.saving.serialize_keras_object(self.held)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Holding:
        return cls(keras.saving.deserialize_keras_object(config.pop("held")), **config)


def masked(layer: Any, *, name: str) -> Callable[[Any], Any]:
    """The layer in a model, called without a mask and with one."""
    x = keras.Input((6,))
    inner = keras.Model(x, layer(x), name=name)
    return lambda y: layers.Concatenate()([inner(y), inner(layers.Masking()(y))])


@pytest.mark.filterwarnings("ignore:.*destroy the mask")
@pytest.mark.parametrize("mode", ["layer", "channel"])
@pytest.mark.parametrize("around", [Holding, layers.SpectralNormalization, masked])
def test_in_place_weights_that_another_layer_uses_too_stay(around: Any, mode: Any) -> None:
    """Both would compute with the new ones, and only one of them takes scaled values."""
    x, shared = keras.Input((6,)), layers.Dense(6, "relu", name="shared")
    both = layers.Concatenate()([shared(x), around(shared, name="around")(x)])
    model = keras.Model(x, layers.Dense(2, name="out")(layers.Dense(5, "relu", name="free")(both)))
    names = [point.name for point in select_points(read_graph(model))]
    name, before = next(each for each in names if each.endswith("shared")), outputs_of(model, SAMPLES)
    factors = dict.fromkeys(names, 2.0) | {"free": 3.0, "out": 5.0}
    options = {"pin": ["around"], "mode": mode}
    twin = normalize_model(model, factors, keep_structure=True, **options)

    scales = normalize_in_place(model, factors, **options)

    assert (scales[name], scales["free"]) == (1.0, 3.0)
    assert name in twin.pinned_points
    assert any("shares weights with 'around'" in each.reason for each in twin.pinned)
    np.testing.assert_allclose(5.0 * outputs_of(model, SAMPLES), before, atol=1e-5)
    np.testing.assert_allclose(5.0 * outputs_of(twin.model, SAMPLES), before, atol=1e-5)
    # A rebuilt network has a copy for each.
    assert normalize_model(model, factors, **options).scales[name] == 2.0


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
