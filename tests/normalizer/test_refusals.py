"""What cannot be normalised is told all at once, by class, and the advice can be followed word by word."""

from __future__ import annotations

import ast
import re
from typing import Any

import keras
import numpy as np
import pytest

from actisketch.pipeline.graph import read_graph
from actisketch.pipeline.normalizer import normalize_model, propagate
from actisketch.storage.errors import InputError

layers = keras.layers
SAMPLES = np.random.default_rng(26).random((6, 5), dtype=np.float32)


class Halved(keras.layers.Layer):
    """Homogeneous, which nobody can know."""

    def call(self, x: Any) -> Any:
        return x * 0.5


class Squared(keras.layers.Layer):
    """Not homogeneous."""

    def call(self, x: Any) -> Any:
        return x * x


@keras.saving.register_keras_serializable("test_refusals")
def own(x: Any) -> Any:
    return keras.ops.relu(x) + 0.1


def network(*stack: Any) -> keras.Model:
    keras.utils.set_random_seed(26)
    return keras.Sequential(
        [layers.Input((5,)), layers.Dense(5, name="first"), *stack, layers.Dense(2, name="last")]
    )


def refusal(model: keras.Model) -> InputError:
    with pytest.raises(InputError) as caught:
        normalize_model(model, {})
    return caught.value


def lora(layer: Any) -> Any:
    layer.build((None, 5))
    layer.enable_lora(2)
    return layer


CASES = {
    "one class": (lambda: [Squared(name=f"s{i}") for i in range(7)], ["Squared"], 7),
    "two classes": (
        lambda: [Squared(name="s0"), Halved(name="h0"), Squared(name="s1")],
        ["Squared", "h0"],
        3,
    ),
    "a class that is fine elsewhere": (
        lambda: [layers.Dense(5, activation=own, name="a"), layers.Dense(5, activation=own, name="b")],
        ["a", "b"],
        2,
    ),
    "weights of another kind": (
        lambda: [lora(layers.Dense(5, name="a")), Squared(name="s"), lora(layers.Dense(5, name="b"))],
        ["a", "b", "s"],
        3,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_all_refusals_come_in_one_message_and_its_advice_works(case: str, peaks: Any, certified: Any) -> None:
    stack, expected, n_layers = CASES[case]
    model = network(*stack())
    error = refusal(model)
    advice = [ast.literal_eval(found) for found in re.findall(r"(?<=normalize\.pin = )\[.*?\]", str(error))]

    assert f"{n_layers} layers cannot be normalised" in str(error)
    assert sorted(error.pin) == sorted(advice[-1]) == sorted(expected)
    assert sorted({name for each in advice for name in each}) == sorted(expected)
    for name in error.layers[:2]:
        assert repr(name) in str(error)
    _, certificate = certified(model, peaks(model, SAMPLES), SAMPLES, pin=error.pin)
    assert certificate.passed


def test_a_layer_without_a_rule_may_be_said_to_pass_scales_by_its_class(peaks: Any, certified: Any) -> None:
    model = network(Halved(name="h0"), Halved(name="h1"))
    assert "normalize.treat_as_identity = ['Halved']" in str(refusal(model))
    _, certificate = certified(model, peaks(model, SAMPLES), SAMPLES, treat_as_identity=["Halved"])

    assert certificate.passed
    assert not [point.name for point in certificate.points if point.pinned]


def test_the_only_layer_that_is_refused_keeps_its_place_in_the_message() -> None:
    assert str(refusal(network(Squared(name="square")))).startswith(
        "no rule for the layer 'square' (Squared), which takes 'first': if f(a x) = a f(x) for every a > 0, set "
        "normalize.treat_as_identity = ['square'], otherwise normalize.pin = ['square']"
    )


def test_a_shared_layer_is_one_refusal() -> None:
    x, shared = keras.Input((5,)), Squared(name="square")
    error = refusal(keras.Model(x, layers.Dense(2)(shared(shared(x)))))

    assert "no rule for the layer 'square'" in str(error)


def test_an_activation_function_with_weights_is_among_them_without_advice_that_fails() -> None:
    error = refusal(network(layers.Dense(5, activation=layers.PReLU(), name="p"), Squared(name="s")))

    assert error.pin == ("s",)
    assert "put it behind its layer as a layer of its own" in str(error)


MAKES_CODES = {
    "IntegerLookup": lambda: layers.IntegerLookup(vocabulary=[3, 5, 7]),
    "Hashing": lambda: layers.Hashing(4),
    "Discretization": lambda: layers.Discretization(bin_boundaries=[1.0, 2.0]),
    "CategoryEncoding": lambda: layers.CategoryEncoding(num_tokens=9, output_mode="multi_hot"),
}


@pytest.mark.parametrize("kind", MAKES_CODES)
def test_layers_that_make_whole_numbers_are_pinned_without_being_asked(kind: str) -> None:
    x = keras.Input((5,), dtype="float32" if kind == "Discretization" else "int32")
    y = keras.ops.cast(MAKES_CODES[kind]()(x), "float32")
    walk = propagate(read_graph(keras.Model(x, layers.Dense(2, name="out")(y))))

    assert kind in {each.type for each in walk.pinned}


def test_layers_that_take_text_are_pinned_without_being_asked() -> None:
    text = keras.Input((1,), dtype="string")
    words = layers.TextVectorization(vocabulary=["a", "b"], output_sequence_length=3)(text)
    known = layers.StringLookup(vocabulary=["a", "b"])(text)
    y = layers.Concatenate()([keras.ops.cast(words, "float32"), keras.ops.cast(known, "float32")])
    walk = propagate(read_graph(keras.Model(text, layers.Dense(2)(y))))

    assert {each.type for each in walk.pinned} >= {"TextVectorization", "StringLookup"}


@pytest.mark.parametrize("tie_weights", [True, False])
def test_a_reversible_embedding_keeps_its_table(tie_weights: bool, peaks: Any, certified: Any) -> None:
    keras.utils.set_random_seed(26)
    x = keras.Input((4,), dtype="int32")
    table = layers.ReversibleEmbedding(7, 5, tie_weights=tie_weights, name="table")
    y = layers.Dense(5, activation="relu", name="dense")(table(x))
    y = layers.Dense(5, name="back")(y)
    model = keras.Model(x, layers.Softmax()(table(y, reverse=True)))
    words = np.random.default_rng(26).integers(0, 7, (6, 4), dtype=np.int32)
    normalized, certificate = certified(model, peaks(model, words), words)

    assert certificate.passed
    assert normalized.scales["dense"] != 1.0
