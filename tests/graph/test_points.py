"""Which tensor stands for a layer, and which layers a pattern means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import pytest

from actisketch.pipeline.graph import Graph, read_graph, select_points
from actisketch.storage.errors import InputError

layers = keras.layers


def graph_of(*stack: keras.Layer, shape: tuple[int, ...] = (8, 8, 3)) -> Graph:
    return read_graph(keras.Sequential([layers.Input(shape), *stack]))


def recorded(graph: Graph, name: str) -> str:
    return graph.producer(graph.every_point[name].value).name


def test_a_point_is_recorded_after_the_normalisation_and_the_separate_activation_that_follow() -> None:
    graph = graph_of(
        layers.Conv2D(4, 3, name="conv"),
        layers.BatchNormalization(name="bn"),
        layers.Dropout(0.5),
        layers.ReLU(6.0, name="relu"),
        layers.MaxPooling2D(),
    )

    (point,) = select_points(graph)
    assert (point.name, recorded(graph, "conv"), point.activation) == ("conv", "relu", "relu6")
    assert point.n_params == 3 * 3 * 3 * 4 + 4 + 4 * 4


def test_a_normalisation_behind_an_activation_function_is_a_point_of_its_own() -> None:
    graph = graph_of(
        layers.Conv2D(4, 3, activation="relu", name="conv"), layers.BatchNormalization(name="bn")
    )

    assert [point.name for point in select_points(graph)] == ["conv", "bn"]
    assert recorded(graph, "conv") == "conv"


def test_a_layer_with_its_own_activation_does_not_swallow_the_next_one() -> None:
    graph = graph_of(layers.Dense(4, activation="tanh", name="dense"), layers.ReLU(name="relu"), shape=(3,))

    assert recorded(graph, "dense") == "dense"
    assert graph.every_point["dense"].pinned


def test_only_one_separate_activation_belongs_to_a_layer() -> None:
    graph = graph_of(
        layers.Dense(4, name="dense"), layers.ReLU(name="one"), layers.Softmax(name="two"), shape=(3,)
    )

    assert recorded(graph, "dense") == "one"


def test_a_prelu_with_parameters_belongs_to_the_layer_before_it() -> None:
    graph = graph_of(layers.Dense(4, name="dense"), layers.PReLU(name="prelu"), shape=(3,))

    (point,) = select_points(graph)
    assert (point.name, point.activation, point.n_params) == ("dense", "prelu", 3 * 4 + 4 + 4)


def test_what_several_layers_take_is_recorded_where_they_take_it() -> None:
    x = keras.Input((4,))
    y = layers.Dense(4, name="dense")(x)
    graph = read_graph(keras.Model(x, layers.Add(name="sum")([layers.ReLU(name="relu")(y), y])))

    assert recorded(graph, "dense") == "dense"


def test_a_merge_is_recorded_after_the_activation_that_follows_it() -> None:
    x = keras.Input((4,))
    merged = layers.Add(name="sum")([layers.Dense(4, name="a")(x), layers.Dense(4, name="b")(x)])
    graph = read_graph(keras.Model(x, layers.Dense(2, name="c")(layers.ReLU(name="relu")(merged))))

    assert [point.name for point in select_points(graph)] == ["a", "b", "c"]
    assert [point.name for point in select_points(graph, "merges")] == ["sum"]
    assert recorded(graph, "sum") == "relu"
    assert [point.name for point in select_points(graph, ["parameters", "merges"])] == ["a", "b", "sum", "c"]


def test_points_of_the_same_tensor_are_one_point() -> None:
    graph = graph_of(
        layers.Dense(4, name="dense"), layers.ReLU(name="relu"), layers.Dense(2, name="out"), shape=(3,)
    )

    assert [point.name for point in select_points(graph, "all")] == ["dense", "out"]


def test_patterns_match_names_and_words_may_be_mixed_with_them() -> None:
    graph = graph_of(
        layers.Conv2D(4, 3, name="conv1"), layers.Conv2D(4, 3, name="conv2"), layers.Flatten(name="flat")
    )

    assert [point.name for point in select_points(graph, ["conv[2-9]", "inputs"])] == [
        graph.input_specs[0][0],
        "conv2",
    ]


def test_a_pattern_that_matches_nothing_is_refused_with_near_names() -> None:
    graph = graph_of(layers.Conv2D(4, 3, name="block1_conv1"), layers.Flatten(name="flat"))
    with pytest.raises(InputError, match="block1_conv1") as caught:
        select_points(graph, "block1_conv9")

    assert caught.value.near == ["block1_conv1"]


def test_a_model_without_parameters_has_nothing_to_normalise() -> None:
    with pytest.raises(InputError, match="no layer with parameters"):
        select_points(graph_of(layers.Flatten()))


@pytest.mark.parametrize(
    ("activation", "pinned"),
    [
        ("relu", False),
        ("leaky_relu", False),
        ("relu6", False),
        (None, False),
        ("softmax", True),
        ("gelu", True),
    ],
)
def test_functions_that_are_not_homogeneous_pin_their_point(activation: str | None, pinned: bool) -> None:
    graph = graph_of(layers.Dense(3, activation=activation, name="dense"), shape=(4,))

    assert graph.every_point["dense"].pinned is pinned


CURVED_WITHIN: dict[str, Callable[[Any], Any]] = {
    "GroupQueryAttention": lambda x: layers.GroupQueryAttention(3, 4, 2, name="curved")(x, x),
    "MultiHeadAttention": lambda x: layers.MultiHeadAttention(2, 3, name="curved")(x, x),
    "Attention": lambda x: layers.Attention(name="curved")([x, x]),
    "AdditiveAttention": lambda x: layers.AdditiveAttention(name="curved")([x, x]),
    "SimpleRNN": layers.SimpleRNN(3, activation="relu", name="curved"),
    "Bidirectional": layers.Bidirectional(layers.GRU(3), name="curved"),
}


@pytest.mark.parametrize("kind", CURVED_WITHIN)
def test_attention_and_recurrent_layers_pin_their_point(kind: str) -> None:
    inputs = keras.Input((5, 4))
    model = keras.Model(inputs, CURVED_WITHIN[kind](layers.Dense(4, name="dense")(inputs)))
    points = read_graph(model).every_point

    assert {name: points[name].pinned for name in ("dense", "curved")} == {"dense": False, "curved": True}


def test_a_shared_convolution_and_its_shared_normalisation_are_one_point_for_each_call() -> None:
    encoder = keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Conv2D(3, 3, name="conv"),
            layers.BatchNormalization(name="bn"),
            layers.ReLU(),
        ],
        name="encoder",
    )
    a, b = keras.Input((8, 8, 1)), keras.Input((8, 8, 1))
    graph = read_graph(keras.Model([a, b], layers.Subtract()([encoder(a), encoder(b)])))

    assert [point.name for point in select_points(graph)] == ["encoder/conv", "encoder/conv:1"]
    assert len(graph.folded) == 2
