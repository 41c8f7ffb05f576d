"""User-defined layers and operations are copied for what they are, whatever their package is called."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from actisketch.pipeline.normalizer import normalize_model
from actisketch.storage.errors import InputError

from .conftest import outputs_of

layers = keras.layers
SAMPLES = np.random.default_rng(31).random((7, 5), dtype=np.float32)
MODULES = ["mine.layers", "mine.ops.layers", "keras_mine.src.ops.layers"]


class Gain(layers.Layer):
    """Has a weight that its settings do not tell."""

    def build(self, shape: Any) -> None:
        self.gain = self.add_weight(shape=(shape[-1],), name="gain")
        super().build(shape)

    def call(self, x: Any) -> Any:
        return x * self.gain


class Doubled(keras.Operation):
    """A bare operation."""

    def call(self, x: Any) -> Any:
        return x * 2.0

    def compute_output_spec(self, x: Any) -> Any:
        return keras.KerasTensor(x.shape, x.dtype)


def from_module(kind: type, module: str) -> Any:
    """Return the class, as if it were defined in ``module``; Keras cannot find it there."""
    return type(kind.__name__, (kind,), {"__module__": module})


def network(own: Any) -> keras.Model:
    keras.utils.set_random_seed(31)
    inputs = keras.Input((5,))
    x = own(layers.Dense(5, activation="relu", name="first")(inputs))
    return keras.Model(inputs, layers.Dense(2, name="last")(x))


@pytest.mark.parametrize("module", MODULES)
def test_a_pinned_layer_is_rebuilt_with_weights_of_its_own(module: str) -> None:
    own = from_module(Gain, module)(name="own")
    model = network(own)
    own.gain.assign([2.0, 3.0, 5.0, 7.0, 11.0])
    expected = outputs_of(model, SAMPLES)
    normalized = normalize_model(model, {"first": 2.0, "last": 3.0}, pin=["own"]).model
    own.gain.assign(np.zeros(5))

    np.testing.assert_allclose(3 * outputs_of(normalized, SAMPLES), expected, rtol=1e-5)
    assert type(normalized.get_layer("own")) is type(own)


@pytest.mark.parametrize("module", MODULES)
def test_a_pinned_operation_is_copied_if_keras_knows_its_class(module: str) -> None:
    kind = from_module(Doubled, module)
    model = network(kind(name="own"))
    with pytest.raises(InputError, match=r"the operation 'own' \(Doubled\) cannot be copied .* register its"):
        normalize_model(model, {"first": 2.0, "last": 3.0}, pin=["own"])
    with keras.saving.custom_object_scope({"Doubled": kind}):
        normalized = normalize_model(model, {"first": 2.0, "last": 3.0}, pin=["own"]).model

    np.testing.assert_allclose(3 * outputs_of(normalized, SAMPLES), outputs_of(model, SAMPLES), rtol=1e-5)
