"""Reading a Keras model into a graph: nested, shared, with several inputs and outputs, without touching it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from actisketch.pipeline import run
from actisketch.pipeline.graph import Slot, forward_function, read_graph, select_points
from actisketch.storage.errors import InputError

layers = keras.layers


def nested_model() -> keras.Model:
    inner = keras.Sequential(
        [layers.Input((4,)), layers.Dense(3, activation="relu", name="d1"), layers.Dense(3, name="d2")],
        name="inner",
    )
    outer = keras.Input((4,), name="x")
    first, second = inner(outer), inner(outer + 1.0)
    joined = layers.Add(name="sum")([first, second])
    return keras.Model(outer, layers.Dense(2, activation="softmax", name="classes")(joined))


def test_nested_models_are_dissolved_and_shared_layers_get_one_node_for_each_call() -> None:
    graph = read_graph(nested_model())

    names = [node.name for node in graph.nodes if node.type == "Dense"]
    assert names == ["inner/d1", "inner/d2", "inner/d1:1", "inner/d2:1", "classes"]
    assert [node.call for node in graph.nodes if node.layer_name == "d1"] == [0, 1]
    assert graph.nodes[2].operation is graph.nodes[4].operation


def test_every_node_comes_after_the_nodes_whose_values_it_takes() -> None:
    graph = read_graph(keras.applications.MobileNetV2(weights=None, input_shape=(32, 32, 3), classes=2))

    for node in graph.nodes:
        assert all(graph.values[value].node < node.index for value in node.inputs)
    assert [node.index for node in graph.nodes] == list(range(len(graph.nodes)))


def test_arguments_that_are_no_tensors_are_kept_and_tensors_become_slots() -> None:
    x = keras.Input((4, 2))
    y = keras.ops.concatenate([x, x * 2.0], axis=-1)
    graph = read_graph(keras.Model(x, layers.Flatten()(y)))

    (joined,) = [node for node in graph.nodes if node.type == "ops.Concatenate"]
    assert [slot for slot in joined.args[0] if isinstance(slot, Slot)] == [Slot(0), Slot(1)]


def test_branches_that_reach_no_output_are_left_out() -> None:
    x = keras.Input((4,))
    inner = keras.Model(x, [layers.Dense(2, name="used")(x), layers.Dense(3, name="unused")(x)])
    outer = keras.Input((4,))
    graph = read_graph(keras.Model(outer, inner(outer)[0]))

    assert [node.layer_name for node in graph.nodes if node.type == "Dense"] == ["used"]


def test_several_inputs_and_outputs_keep_their_order_and_names() -> None:
    left, right = keras.Input((3,), name="left"), keras.Input((5,), name="right", dtype="int32")
    embedded = layers.Flatten()(layers.Embedding(7, 2)(right))
    model = keras.Model(
        {"right": right, "left": left}, [layers.Dense(2, name="a")(embedded), layers.Dense(1, name="b")(left)]
    )
    graph = read_graph(model)

    # Keras orders the inputs of a dict by their keys.
    assert graph.input_specs == (("left", (3,), "float32"), ("right", (5,), "int32"))
    assert [graph.producer(value).name for value in graph.outputs] == ["a", "b"]


def test_channels_are_found_where_the_layer_keeps_them() -> None:
    x = keras.Input((3, 8, 8))
    y = layers.Conv2D(5, 3, data_format="channels_first", name="conv")(x)
    y = layers.ReLU(name="relu")(y)
    graph = read_graph(keras.Model(x, layers.Flatten()(y)))

    (point,) = select_points(graph)
    assert (point.shape, point.channel_axis, point.n_channels) == ((5, 6, 6), -3, 5)


def test_the_model_is_as_it_was_after_reading() -> None:
    model = nested_model()
    before = {layer.name: len(layer._inbound_nodes) for layer in model.layers}
    read_graph(model)

    assert {layer.name: len(layer._inbound_nodes) for layer in model.layers} == before


class Subclassed(keras.Model):  # type: ignore[misc]  # Keras has no types
    def __init__(self) -> None:
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, x: object) -> object:
        return self.dense(x)


def test_a_subclassed_model_is_refused_with_advice() -> None:
    model = Subclassed()
    model(keras.ops.zeros((1, 3)))
    with pytest.raises(InputError, match="rebuild it as a functional model"):
        read_graph(model)


def test_a_sequential_model_without_input_shape_is_refused_with_advice() -> None:
    with pytest.raises(InputError, match=r"call model\.build"):
        read_graph(keras.Sequential([layers.Dense(2)]))


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(InputError, match="got dict"):
        read_graph({})


def test_a_subclassed_model_inside_a_functional_one_is_one_opaque_node() -> None:
    x = keras.Input((3,))
    graph = read_graph(keras.Model(x, Subclassed()(x)))

    assert [node.type for node in graph.nodes] == ["InputLayer", "Subclassed"]


def difference(kind: str) -> keras.Model:
    """A model of two inputs that computes 3 b - a, built with its inputs as a list, a tuple or a dict."""
    b, a = keras.Input((4,), name="b_in"), keras.Input((4,), name="a_in")
    inputs = {
        "list": [b, a],
        "tuple": (b, a),
        "dict": {"b_in": b, "a_in": a},
        "sorted": {"a_in": a, "b_in": b},
    }
    return keras.Model(inputs[kind], b * 3.0 - a, name="difference")


@pytest.mark.filterwarnings("ignore:.*doesn't match the expected structure")
@pytest.mark.parametrize(
    ("built", "called"),
    [
        ("list", "dict"),
        ("tuple", "dict"),
        ("list", "list"),
        ("list", "tuple"),
        ("dict", "dict"),
        ("sorted", "dict"),
        ("sorted", "list"),
        ("list", "more"),
    ],
)
def test_inputs_of_a_nested_model_reach_it_as_in_predict(built: str, called: str) -> None:
    x, y = keras.Input((4,), name="x"), keras.Input((4,), name="y")
    call = {
        "dict": {"b_in": x, "a_in": y},
        "list": [x, y],
        "tuple": (x, y),
        "more": {"b_in": x, "a_in": y, "c_in": x},
    }[called]
    model = keras.Model([x, y], difference(built)(call))
    data = [np.full((2, 4), 2.0, np.float32), np.full((2, 4), 7.0, np.float32)]
    expected = model.predict(data, verbose=0)
    graph = read_graph(model)
    _, (found,) = forward_function(graph, [])(data)

    np.testing.assert_allclose(found, expected)
    assert not any(node.layer_name == "difference" for node in graph.nodes)


def test_a_nested_model_whose_input_keras_squeezes_stays_one_opaque_node() -> None:
    flat = keras.Input((4,))
    inner = keras.Model(flat, flat * 3.0, name="inner")
    x = keras.Input((4, 1))
    model = keras.Model(x, inner(x))
    data = np.arange(8, dtype=np.float32).reshape(2, 4, 1)
    _, (found,) = forward_function(read_graph(model), [])([data])

    np.testing.assert_allclose(found, model.predict(data, verbose=0))


@pytest.mark.parametrize("kind", ["list", "dict", "sorted"])
def test_inputs_of_a_model_are_named_in_the_order_in_which_it_takes_them(kind: str) -> None:
    model = difference(kind)
    data = {"b_in": np.full((2, 4), 2.0, np.float32), "a_in": np.full((2, 4), 7.0, np.float32)}
    graph = read_graph(model)
    _, (found,) = forward_function(graph, [])([data[name] for name, _, _ in graph.input_specs])

    np.testing.assert_allclose(found, model.predict(data, verbose=0))


def stateful(kind: Any, *shape: int, **more: Any) -> keras.Model:
    x = keras.Input(batch_shape=(4, *shape))
    return keras.Model(x, kind(x))


def hidden_in_a_model() -> keras.Model:
    inner_input = keras.Input(batch_shape=(4, 5, 3))
    inner = keras.Model(inner_input, layers.LSTM(2, stateful=True, name="memory")(inner_input), name="inner")
    x = keras.Input(batch_shape=(4, 5, 3))
    return keras.Model(x, inner(x))


class Own(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Holds a recurrent layer."""

    def __init__(self) -> None:
        super().__init__(name="memory")
        self.inner = layers.GRU(2, stateful=True)

    def build(self, shape: Any) -> None:
        self.inner.build(shape)

    def call(self, x: Any) -> Any:
        return self.inner(x)


STATEFUL: dict[str, Callable[[], keras.Model]] = {
    "LSTM": lambda: stateful(layers.LSTM(2, stateful=True, name="memory"), 5, 3),
    "GRU": lambda: stateful(layers.GRU(2, stateful=True, name="memory"), 5, 3),
    "SimpleRNN": lambda: stateful(layers.SimpleRNN(2, stateful=True, name="memory"), 5, 3),
    "RNN of cells": lambda: stateful(layers.RNN(layers.LSTMCell(2), stateful=True, name="memory"), 5, 3),
    "ConvLSTM1D": lambda: stateful(layers.ConvLSTM1D(2, 3, stateful=True, name="memory"), 5, 6, 3),
    "Bidirectional": lambda: stateful(
        layers.Bidirectional(layers.LSTM(2, stateful=True), name="memory"), 5, 3
    ),
    "in a nested model": hidden_in_a_model,
    "in a layer": lambda: stateful(Own(), 5, 3),
}


@pytest.mark.parametrize("what", STATEFUL)
def test_a_network_that_remembers_batches_is_refused_by_name_and_left_alone(
    tmp_path: Path, what: str
) -> None:
    model = STATEFUL[what]()
    batch = np.random.default_rng(13).normal(size=model.input_shape).astype(np.float32)
    before = model.get_weights()

    with pytest.raises(InputError, match=r"stateful=True of '(inner/)?memory' .* stateful=False") as error:
        run(model, batch, output=tmp_path / "r", batch_size=4, normalize=False)
    assert not (tmp_path / "r").exists()
    assert error.value.facts["layers"][0].endswith("memory")
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_recurrent_network_without_memory_gives_what_keras_gives(tmp_path: Path) -> None:
    x = keras.Input((5, 3))
    model = keras.Model(x, layers.Dense(2, name="classes")(layers.LSTM(4, stateful=False, name="lstm")(x)))
    samples = np.random.default_rng(17).normal(size=(10, 5, 3)).astype(np.float32)
    found = run(model, samples, output=tmp_path / "r", batch_size=4, normalize=False)

    np.testing.assert_allclose(
        found.activations("classes")[:], model.predict(samples, verbose=0), rtol=1e-5, atol=1e-6
    )
