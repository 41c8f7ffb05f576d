"""Layers that user-defined code refers to count in a fingerprint, whether the network holds them or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import pytest

from actisketch.pipeline.graph import model_fingerprint

layers = keras.layers


def untold(number: float) -> Any:
    """A layer that no network holds."""
    layer = layers.Dense(2, kernel_initializer=keras.initializers.Constant(number))
    layer.build((None, 2))
    return layer


def set_otherwise(number: float) -> Any:
    return layers.ReLU(max_value=number)


def in_a_model(number: float) -> Any:
    return keras.Sequential([layers.Input((2,)), untold(number)])


@pytest.mark.parametrize("made", [untold, set_otherwise, in_a_model])
def test_layers_that_code_refers_to_count_with_their_weights(made: Callable[[float], Any]) -> None:
    def around(number: float) -> keras.Model:
        x, layer = keras.Input((2,)), made(number)
        return keras.Model(x, layers.Lambda(lambda y: layer(y), output_shape=(2,))(x))

    one, again, other = (model_fingerprint(around(number)) for number in (2.0, 2.0, 3.0))

    assert one == again
    assert one != other


class Within(layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Its function refers to the layer itself."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain
        self.function = lambda x: x * self.gain

    def call(self, x: Any) -> Any:
        return self.function(x)


def test_the_name_of_a_layer_that_its_own_function_refers_to_does_not_count() -> None:
    def within(gain: float) -> keras.Model:
        x = keras.Input((2,))
        return keras.Model(x, Within(gain)(x))

    assert model_fingerprint(within(2.0)) == model_fingerprint(within(2.0))
    assert model_fingerprint(within(2.0)) != model_fingerprint(within(3.0))
