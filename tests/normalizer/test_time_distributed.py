"""TimeDistributed has the rule of the layer that it holds; what has none there keeps scale 1 around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from actisketch.pipeline.graph import read_graph, select_points
from actisketch.pipeline.normalizer import normalize_in_place

from .conftest import outputs_of

layers = keras.layers
SAMPLES = np.random.default_rng(61).random((5, 3, 6, 6, 2), dtype=np.float32)


def video(*stack: Any) -> keras.Model:
    """A convolution at each time, what is to be tried, and a classifier."""
    keras.utils.set_random_seed(61)
    first = layers.TimeDistributed(layers.Conv2D(4, 3, padding="same", activation="relu"), name="first")
    rest = [layers.Flatten(), layers.Dense(3, name="out")]
    return keras.Sequential([layers.Input((3, 6, 6, 2)), first, *stack, *rest])


def at_each_time(layer: Any) -> Any:
    return layers.TimeDistributed(layer, name="tried")


FREE: dict[str, Callable[[], list[Any]]] = {
    "Conv2D": lambda: [at_each_time(layers.Conv2D(5, 3, strides=2, activation="relu"))],
    "Conv2D without bias and BatchNormalization": lambda: [
        at_each_time(layers.Conv2D(5, 3, use_bias=False)),
        layers.TimeDistributed(layers.BatchNormalization(scale=False)),
        layers.ReLU(),
    ],
    "a BatchNormalization outside": lambda: [at_each_time(layers.Conv2D(5, 3)), layers.BatchNormalization()],
    "DepthwiseConv2D": lambda: [at_each_time(layers.DepthwiseConv2D(3, depth_multiplier=2))],
    "SeparableConv2D": lambda: [at_each_time(layers.SeparableConv2D(5, 3, activation="leaky_relu"))],
    "Conv2DTranspose": lambda: [at_each_time(layers.Conv2DTranspose(5, 2, activation="relu"))],
    "Dense": lambda: [at_each_time(layers.Dense(5, activation="relu"))],
    "Dense behind Flatten": lambda: [
        layers.TimeDistributed(layers.Flatten()),
        at_each_time(layers.Dense(5, activation="relu")),
    ],
    "Dense behind pooling": lambda: [
        layers.TimeDistributed(layers.MaxPooling2D()),
        layers.TimeDistributed(layers.ReLU()),
        layers.TimeDistributed(layers.Dropout(0.5)),
        layers.TimeDistributed(layers.GlobalAveragePooling2D()),
        at_each_time(layers.Dense(5, activation="relu")),
    ],
    "PReLU": lambda: [at_each_time(layers.Conv2D(5, 3)), layers.TimeDistributed(layers.PReLU())],
}
PINNED: dict[str, Callable[[], list[Any]]] = {
    "LSTM": lambda: [layers.Reshape((3, 6, 24)), at_each_time(layers.LSTM(4))],
    "a network": lambda: [
        at_each_time(keras.Sequential([layers.Input((6, 6, 4)), layers.Conv2D(2, 3), layers.ReLU()]))
    ],
    "softmax": lambda: [at_each_time(layers.Dense(4, activation="softmax"))],
    "relu6": lambda: [at_each_time(layers.Dense(4, activation="relu6"))],
    "LayerNormalization": lambda: [at_each_time(layers.LayerNormalization())],
}


@pytest.mark.parametrize("mode", ["layer", "channel"])
@pytest.mark.parametrize("case", FREE)
def test_scales_pass_as_the_layer_within_lets_them(
    case: str, mode: str, randomize: Any, peaks: Any, certified: Any
) -> None:
    model = video(*FREE[case]())
    randomize(model)
    normalized, certificate = certified(model, peaks(model, SAMPLES, mode=mode), SAMPLES, mode=mode)

    assert certificate.passed, certificate.summary()
    assert not normalized.pinned
    for point in certificate.points:
        # A PReLU is a point of its own, tied to the layer before it.
        assert point.is_dead or case == "PReLU" or point.peak == pytest.approx(1.0, rel=1e-5)
    np.testing.assert_allclose(
        outputs_of(normalized.model, SAMPLES) * normalized.scales["out"],
        outputs_of(model, SAMPLES),
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize("case", PINNED)
def test_what_holds_no_scale_within_keeps_one_around_it(
    case: str, randomize: Any, peaks: Any, certified: Any
) -> None:
    model = video(*PINNED[case]())
    randomize(model)
    normalized, certificate = certified(model, peaks(model, SAMPLES), SAMPLES)

    assert certificate.passed, certificate.summary()
    assert [each.name for each in normalized.pinned] == ["tried"]
    assert normalized.scales["first"] == 1.0


def test_one_layer_at_each_time_and_by_itself_has_one_scale(peaks: Any, certified: Any) -> None:
    keras.utils.set_random_seed(67)
    x, shared = keras.Input((3, 5)), layers.Dense(5, activation="relu", name="shared")
    y = layers.TimeDistributed(shared, name="timed")(shared(x))
    model = keras.Model(x, layers.Dense(2, name="out")(y))
    samples = np.random.default_rng(67).random((6, 3, 5), dtype=np.float32)
    normalized, certificate = certified(model, peaks(model, samples), samples)

    # Its input comes with scale 1 once, so all that it gives does.
    assert certificate.passed
    assert normalized.scales["shared"] == normalized.scales["timed"] == 1.0


def test_weights_within_are_changed_in_place(randomize: Any) -> None:
    model = video(*FREE["Dense"]())
    randomize(model)
    before = outputs_of(model, SAMPLES)
    scales = normalize_in_place(model, {point.name: 3.0 for point in select_points(read_graph(model))})

    np.testing.assert_allclose(outputs_of(model, SAMPLES) * scales["out"], before, rtol=1e-4, atol=1e-4)
    assert scales == {"first": 3.0, "tried": 3.0, "out": 3.0}


@pytest.mark.parametrize("pin", ["tried", "TimeDistributed"])
def test_it_is_pinned_when_asked(pin: str, peaks: Any, certified: Any) -> None:
    model = video(*FREE["Dense"]())
    normalized, certificate = certified(model, peaks(model, SAMPLES), SAMPLES, pin=[pin])

    assert certificate.passed
    assert normalized.scales["tried"] == 1.0
