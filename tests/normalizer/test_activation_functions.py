"""Activation functions by what they are: those of TensorFlow count as Keras' where they compute the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from actisketch.pipeline.certifier import certify
from actisketch.pipeline.graph import read_graph, select_points
from actisketch.pipeline.normalizer import normalize_model
from actisketch.pipeline.sources import as_source
from actisketch.storage.errors import InputError

from .conftest import outputs_of

layers = keras.layers
SAMPLES = np.random.default_rng(331).normal(0, 2, (64, 6)).astype(np.float32)

FUNCTIONS: dict[str, tuple[Any, Any]] = {
    "tf.nn.relu": (tf.nn.relu, keras.activations.relu),
    "keras.ops.relu": (keras.ops.relu, keras.activations.relu),
    "tf.nn.relu6": (tf.nn.relu6, keras.activations.relu6),
    "tf.nn.leaky_relu": (tf.nn.leaky_relu, keras.activations.leaky_relu),
    "tf.nn.tanh": (tf.nn.tanh, keras.activations.tanh),
    "tf.tanh": (tf.tanh, keras.activations.tanh),
    "tf.nn.elu": (tf.nn.elu, keras.activations.elu),
    "tf.nn.softmax": (tf.nn.softmax, keras.activations.softmax),
    "tf.nn.swish": (tf.nn.swish, keras.activations.silu),
    "tf.nn.gelu": (tf.nn.gelu, keras.activations.gelu),
    "keras.ops.softmax": (keras.ops.softmax, keras.activations.softmax),
    "keras.ops.hard_sigmoid": (keras.ops.hard_sigmoid, keras.activations.hard_sigmoid),
}


def in_the_layer(function: Any) -> keras.Model:
    keras.utils.set_random_seed(11)
    x = keras.Input((6,))
    hidden = layers.Dense(8, activation=function, name="hidden")(x)
    return keras.Model(x, layers.Dense(3, name="classes")(hidden))


def behind_it(function: Any) -> keras.Model:
    keras.utils.set_random_seed(11)
    x = keras.Input((6,))
    hidden = layers.Activation(function)(layers.Dense(8, name="hidden")(x))
    return keras.Model(x, layers.Dense(3, name="classes")(hidden))


@pytest.mark.parametrize("build", [in_the_layer, behind_it])
@pytest.mark.parametrize("what", FUNCTIONS)
def test_a_function_that_computes_as_one_of_keras_is_treated_as_that(
    what: str, build: Callable[[Any], keras.Model]
) -> None:
    given, of_keras = FUNCTIONS[what]
    model = build(given)
    (point, *_), (wanted, *_) = select_points(read_graph(model)), select_points(read_graph(build(of_keras)))
    factors = {"hidden": 1.0 if point.pinned else 3.0, "classes": 2.0}
    normalized = normalize_model(model, factors)

    assert (point.activation, point.pinned) == (wanted.activation, wanted.pinned)
    assert float(normalized.scales["hidden"]) == factors["hidden"]
    assert certify(model, normalized, as_source(SAMPLES), batch_size=32).passed
    rebuilt = keras.Model.from_config(normalized.model.get_config())  # as loading the saved network does
    rebuilt.set_weights(normalized.model.get_weights())
    np.testing.assert_allclose(
        outputs_of(rebuilt, SAMPLES) * 2.0, outputs_of(model, SAMPLES), rtol=1e-4, atol=1e-5
    )


def relu(x: Any) -> Any:
    """Not what its name says."""
    return keras.ops.relu(x) + 0.5


NAME = "Keras saves its name alone, which is another's: use"
WRAP = "Keras could not load it again from what it saves: write it with def, decorate it"
PIN = r"set normalize\.pin = \["


def own(x: Any) -> Any:
    return keras.ops.relu(x) + 0.5


@keras.saving.register_keras_serializable(package="named")
def registered(x: Any) -> Any:
    return keras.ops.relu(x) + 0.5


UNKNOWN = {
    "own of a known name": (relu, NAME),
    "own": (own, WRAP),
    "own and registered": (registered, PIN),
    "of another shape": (keras.ops.gelu, NAME),  # approximate, where that of keras.activations is not
    "no activation of Keras": (keras.ops.abs, WRAP),
    "tf.nn": (tf.nn.crelu, WRAP),
    "tf": (tf.identity, WRAP),
    "lambda": (lambda x: keras.ops.relu(x) + 0.5, WRAP),
}


@pytest.mark.parametrize("build", [in_the_layer, behind_it])
@pytest.mark.parametrize("what", UNKNOWN)
def test_a_function_that_computes_something_else_has_no_rule(
    what: str, build: Callable[[Any], keras.Model]
) -> None:
    function, advice = UNKNOWN[what]
    model = build(function)

    with pytest.raises(InputError, match=f"which has no rule: {advice}"):
        normalize_model(model, {"hidden": 2.0, "classes": 2.0})


@keras.saving.register_keras_serializable(package="named")
def sign(x: Any) -> Any:
    return keras.ops.sign(x)


@keras.saving.register_keras_serializable(package="named")
def shifted(x: Any) -> Any:
    return keras.ops.relu(x) + 0.5


@keras.saving.register_keras_serializable(package="named")
def steps(x: Any) -> Any:
    return keras.ops.round(x * 4.0) / 4.0


@pytest.mark.parametrize("named", [sign, shifted, steps])
@pytest.mark.parametrize("build", [in_the_layer, behind_it])
def test_a_lambda_is_to_be_named_and_pinned_and_that_works(
    named: Any, build: Callable[[Any], keras.Model], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="write it with def, decorate it") as caught:
        normalize_model(build(lambda x: named(x)), {"hidden": 2.0, "classes": 2.0})
    assert "set normalize.pin = [" in str(caught.value)

    model = build(named)
    layer = next(each.name for each in model.layers if getattr(each, "activation", None) is named)
    normalize_model(model, {"hidden": 1.0, "classes": 2.0}, pin=[layer]).model.save(tmp_path / "n.keras")
    loaded = keras.saving.load_model(tmp_path / "n.keras")
    x = np.random.default_rng(257).normal(size=(6, *model.input_shape[1:])).astype(np.float32)
    np.testing.assert_allclose(outputs_of(loaded, x) * 2.0, outputs_of(model, x), rtol=1e-5)
