"""A merge that neurons or a quantiser stand behind is measured, and takes part in the factor of its group."""

import keras
import numpy as np
import pytest

from actisketch.pipeline import run
from actisketch.pipeline.graph import read_graph, select_points

layers, ops = keras.layers, keras.ops
DATA = np.random.default_rng(41).random((200, 6, 6, 2), dtype=np.float32)


def network(merge, *, behind=None):
    """Two convolutions, what merges them, what stands behind, and a classifier; random, of different sizes."""
    keras.utils.set_random_seed(41)
    x = keras.Input((6, 6, 2))
    a = layers.Conv2D(6, 3, activation="relu", name="a")(x)
    b = layers.Conv2D(6, 3, activation="relu", name="b")(x)
    y = merge([a, b])
    y = y if behind is None else behind(y)
    model = keras.Model(x, layers.Dense(3, activation="softmax", name="out")(layers.Flatten()(y)))
    model.get_layer("b").kernel.assign(model.get_layer("b").kernel * 1.5)
    return model


def nested(parts):
    inner = [keras.Input((4, 4, 6)) for _ in parts]
    return keras.Model(inner, layers.ReLU()(layers.Add(name="sum")(inner)), name="block")(parts)


def tied_join(parts):
    total = layers.Add(name="sum")(parts)
    return layers.ReLU(name="relu")(layers.Concatenate(name="both")([*parts, total]))


NETWORKS = {
    "an Add and a ReLU": (layers.Add(name="sum"), layers.ReLU(name="relu")),
    "the operator and the function": (lambda parts: parts[0] + parts[1], ops.relu),
    "a Maximum, dropout and a ReLU": (
        layers.Maximum(),
        lambda y: layers.Activation("relu")(layers.Dropout(0.1)(y)),
    ),
    "an Average and a LeakyReLU": (layers.Average(), layers.LeakyReLU(0.2)),
    "a Subtract and a bounded ReLU": (layers.Subtract(), layers.ReLU(max_value=2.5)),
    "a Minimum": (layers.Minimum(), None),
    "an Add without an activation": (layers.Add(), None),
    "an Add in a nested model": (nested, None),
    "a Concatenate of one scale": (tied_join, None),
}


@pytest.mark.parametrize("case", NETWORKS)
def test_no_neuron_exceeds_its_factor_for_more_than_the_percentile_leaves(tmp_path, case):
    merge, behind = NETWORKS[case]
    model = network(merge, behind=behind)
    found = run(model, DATA, output=str(tmp_path / "r"), settings={"report": {"enabled": False}})
    factors = found.factors().by_point()
    graph = read_graph(model)
    before_out = keras.Model(model.inputs, model.get_layer("out").input)
    neurons = np.asarray(before_out([DATA], training=False))
    merges = [name for name in found.points if name not in {"a", "b", "out"}]
    nonzero = neurons[neurons != 0]
    (factor,) = {factors[name] for name in merges}

    assert merges[-1] == select_points(graph, "merges")[-1].name
    # Of the sketch's resolution; one value more, as a percentile lies between two.
    assert factor >= np.percentile(nonzero, 99.9) * (1 - 2**-10)
    assert (nonzero > factor * (1 + 2**-10)).sum() <= nonzero.size * 0.001 + 1
    assert factors["a"] == factors["b"] == factor
    assert found.certificate()["passed"]


def parameterised_behind(parts):
    return layers.PReLU(name="prelu")(layers.Add(name="sum")(parts))


@pytest.mark.parametrize("points", ["neurons", ["parameters", "merges"]])
def test_a_prelu_behind_an_add_is_recorded_once_and_normalised(tmp_path, points):
    model = network(parameterised_behind)
    found = run(
        model, DATA, output=str(tmp_path / "r"), points=points, settings={"report": {"enabled": False}}
    )

    assert len(found.points) == 4
    assert ("prelu" if points == "neurons" else "sum") in found.points
    assert found.certificate()["passed"]


def gated(parts):
    return layers.Multiply()([parts[0], layers.Activation("sigmoid")(parts[1])])


WITHOUT = {
    "products": gated,
    "joins": layers.Concatenate(),
    "a constant added": lambda parts: layers.Concatenate()([parts[0] + 1.0, parts[1]]),
    "whole numbers": lambda parts: (
        parts[0] * ops.cast(ops.cast(parts[0], "int32") + ops.cast(parts[1], "int32"), "float32")
    ),
}


@pytest.mark.parametrize("case", WITHOUT)
def test_networks_without_such_merges_keep_their_points(case):
    graph = read_graph(network(WITHOUT[case]))

    assert select_points(graph, "neurons") == select_points(graph, "parameters")


def test_a_join_with_an_activation_behind_it_is_measured():
    graph = read_graph(network(layers.Concatenate(name="both"), behind=layers.ReLU(name="relu")))

    assert [point.name for point in select_points(graph, "neurons")] == ["a", "b", "both", "out"]
    assert graph.producer(graph.every_point["both"].value).name == "relu"
