"""Bad factors, unknown layers, impossible combinations: one clear error each, and the original is never touched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from actisketch.pipeline.graph import model_fingerprint
from actisketch.pipeline.normalizer import normalize_model
from actisketch.storage.errors import InputError, MismatchError

layers = keras.layers
GOOD = {"first": 2.0, "second": 3.0}


@pytest.mark.parametrize(
    ("factors", "error", "match"),
    [
        ({"first": 2.0}, InputError, "no factor: 'second'"),
        ({**GOOD, "third": 1.0}, MismatchError, "of another network"),
        ({**GOOD, "first": -2.0}, InputError, r"'first' is .*-2\.0"),
        ({**GOOD, "first": 0.0}, InputError, "positive and finite"),
        ({**GOOD, "first": float("nan")}, InputError, "positive and finite"),
        ({**GOOD, "first": float("inf")}, InputError, "positive and finite"),
        ({**GOOD, "first": np.ones(8)}, InputError, "mode='layer' takes one number"),
        ({**GOOD, "first": np.ones(5)}, InputError, "each of its 8 channels"),
        ({**GOOD, "first": "abc"}, InputError, "'first' is 'abc'"),
        ({**GOOD, "first": None}, InputError, "'first'"),
        ({**GOOD, "first": [1.0, [2.0]]}, InputError, "'first' is"),
        ({**GOOD, "first": 1j}, InputError, "'first' is 1j"),
        ({**GOOD, "first": {}}, InputError, "'first' is"),
        ([2.0, 3.0], InputError, "mapping of point names"),
    ],
)
def test_unusable_factors_are_refused_and_the_network_is_as_it_was(
    factors: dict[str, Any], error: type[Exception], match: str, small_model: Any
) -> None:
    before = model_fingerprint(small_model)
    with pytest.raises(error, match=match):
        normalize_model(small_model, factors)

    assert model_fingerprint(small_model) == before


def test_the_original_is_never_changed_not_even_its_list_of_calls(small_model: Any) -> None:
    before = model_fingerprint(small_model), [len(layer._inbound_nodes) for layer in small_model.layers]
    normalize_model(small_model, GOOD)

    assert (
        model_fingerprint(small_model),
        [len(layer._inbound_nodes) for layer in small_model.layers],
    ) == before


@pytest.mark.parametrize("mode", ["neuron", None])
def test_an_unknown_mode_is_refused(mode: Any, small_model: Any) -> None:
    with pytest.raises(InputError, match="'layer' or 'channel'"):
        normalize_model(small_model, GOOD, mode=mode)


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), np.ones(5), "abc", None, [1, [2]]])
def test_an_unusable_input_factor_is_refused(factor: Any, small_model: Any) -> None:
    with pytest.raises(InputError, match="factor of the input"):
        normalize_model(small_model, GOOD, input_factor=factor)


def test_an_input_that_does_not_exist_is_refused(small_model: Any) -> None:
    with pytest.raises(InputError, match=r"normalize\.input_factor names 'left'"):
        normalize_model(small_model, GOOD, input_factor={"left": 2.0})


@pytest.mark.parametrize(
    ("dead", "error", "match"),
    [
        ({"typo": True}, MismatchError, "no point 'typo'"),
        ({"first": [True, False]}, InputError, r"dead\['first'\] .* each of its 8 channels"),
        ({"first": "no"}, InputError, "true or false"),
        (["first"], InputError, "mapping of point names"),
    ],
)
def test_what_is_said_to_be_dead_and_is_not_there_is_refused(
    dead: Any, error: type[Exception], match: str, small_model: Any
) -> None:
    with pytest.raises(error, match=match):
        normalize_model(small_model, GOOD, dead=dead)


def test_whole_numbers_at_the_input_cannot_be_divided() -> None:
    inputs = keras.Input((8, 8, 3), dtype="uint8", name="pixels")
    first = layers.Conv2D(2, 3, activation="relu", name="first")(layers.Rescaling(1.0)(inputs))
    model = keras.Model(inputs, first)
    with pytest.raises(InputError, match=r"'pixels' is uint8 .* cast the samples"):
        normalize_model(model, {"first": 2.0}, input_factor=255.0)

    assert normalize_model(model, {"first": 2.0}).scales == {"first": 2.0}


@keras.saving.register_keras_serializable(package="actisketch_tests")
class Halved(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Positively homogeneous, but the rules cannot know."""

    def call(self, x: Any) -> Any:
        return x * 0.5


def with_unknown_layer() -> keras.Model:
    keras.utils.set_random_seed(107)
    return keras.Sequential(
        [
            layers.Input((6,)),
            layers.Dense(4, activation="relu", name="first"),
            Halved(name="halved"),
            layers.Dense(3, name="second"),
        ]
    )


def test_a_layer_without_a_rule_is_named_with_its_place_and_the_choices() -> None:
    with pytest.raises(InputError) as caught:
        normalize_model(with_unknown_layer(), GOOD)

    message = str(caught.value)
    assert all(part in message for part in ("'halved'", "Halved", "'first'", "treat_as_identity", "pin"))


@pytest.mark.parametrize(
    ("options", "scale"), [({"treat_as_identity": ["halved"]}, 2.0), ({"pin": ["Halved"]}, 1.0)]
)
def test_the_user_says_what_an_unknown_layer_does(
    options: Any, scale: float, small_data: Any, certified: Callable[..., Any]
) -> None:
    normalized, certificate = certified(with_unknown_layer(), GOOD, small_data, **options)

    assert certificate.passed
    assert normalized.scales["first"] == scale


def test_a_wrong_claim_about_a_layer_fails_the_certificate(
    small_data: Any, certified: Callable[..., Any]
) -> None:
    model = keras.Sequential(
        [
            layers.Input((6,)),
            layers.Dense(4, name="first"),
            layers.Activation("tanh"),
            layers.Dense(3, name="second"),
        ]
    )
    _, certificate = certified(model, GOOD, small_data, treat_as_identity=["Activation"])

    assert not certificate.passed


def test_a_claim_about_no_layer_is_refused(small_model: Any) -> None:
    with pytest.raises(InputError, match="matches no layer"):
        normalize_model(small_model, GOOD, pin=["conv*"])


def test_a_function_of_ones_own_is_named() -> None:
    model = keras.Sequential([layers.Input((3,)), layers.Dense(2, activation=lambda x: x * x, name="odd")])
    with pytest.raises(InputError, match="'odd' has the activation function '<lambda>'"):
        normalize_model(model, {"odd": 1.0})


def test_two_inputs_that_are_added_must_have_the_same_factor() -> None:
    left, right = keras.Input((3,), name="left"), keras.Input((3,), name="right")
    model = keras.Model([left, right], layers.Dense(2, name="out")(layers.Add(name="sum")([left, right])))
    with pytest.raises(InputError, match=r"at 'sum' .* 2 .* 3"):
        normalize_model(model, {"out": 1.0}, input_factor={"left": 2.0, "right": 3.0})

    assert normalize_model(model, {"out": 1.0}, input_factor=2.0).input_scales == {"left": 2.0, "right": 2.0}
