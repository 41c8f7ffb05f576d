"""Running a graph gives what Keras gives, for every layer, at once."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from actisketch.pipeline.graph import check_model, forward_function, read_graph, select_points

layers = keras.layers


def branched_model() -> keras.Model:
    keras.utils.set_random_seed(3)
    x = keras.Input((8, 8, 2))
    y = layers.Conv2D(4, 3, padding="same", activation="relu", name="conv")(x)
    z = layers.BatchNormalization(name="bn")(layers.Conv2D(4, 1, name="skip")(x))
    y = layers.Dropout(0.9)(layers.Add(name="sum")([y, z]))
    y = layers.GlobalAveragePooling2D(name="gap")(keras.ops.relu(y))
    return keras.Model(x, layers.Dense(3, activation="softmax", name="classes")(y))


def test_every_value_equals_the_output_of_a_model_cut_at_it() -> None:
    model = branched_model()
    samples = np.random.default_rng(5).random((7, 8, 8, 2), dtype=np.float32)
    graph = read_graph(model)
    points = select_points(graph, "all")
    tensors, outputs = tf.function(forward_function(graph, points))([tf.constant(samples)])

    cut = {"conv": "conv", "skip": "bn", "gap": "gap", "classes": "classes"}
    for point, tensor in zip(points, tensors, strict=True):
        if point.name in cut:
            oracle = keras.Model(model.input, model.get_layer(cut[point.name]).output)
            np.testing.assert_array_equal(tensor, oracle(samples, training=False))
    np.testing.assert_array_equal(outputs[0], model(samples, training=False))


def test_weights_are_read_at_each_call() -> None:
    model = branched_model()
    graph = read_graph(model)
    forward = tf.function(forward_function(graph, select_points(graph, "conv")))
    samples = tf.ones((1, 8, 8, 2))
    forward([samples])
    model.get_layer("conv").kernel.assign(np.zeros((3, 3, 2, 4)))
    (conv,), _ = forward([samples])

    assert not np.asarray(conv).any()


def test_inference_is_meant_even_where_the_graph_says_training() -> None:
    x = keras.Input((3,))
    model = keras.Model(x, layers.Dropout(0.5)(layers.Dense(50)(x), training=True))
    graph = read_graph(model)
    _, outputs = forward_function(graph, [])([np.ones((2, 3), np.float32)])

    np.testing.assert_array_equal(outputs[0], model.predict(np.ones((2, 3), np.float32), verbose=0))


class Augmenting(layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Calls a layer that draws unless it is told that this is inference, and is not told itself."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = layers.RandomFlip()

    def call(self, x: Any) -> Any:
        return self.inner(x)


def test_inference_is_meant_by_layers_that_do_not_ask() -> None:
    x = keras.Input((4, 4, 1))
    model = keras.Model(x, Augmenting()(x))
    samples = np.random.default_rng(5).random((16, 4, 4, 1), dtype=np.float32)
    graph = read_graph(model)

    np.testing.assert_array_equal(forward_function(graph, [])([samples])[1][0], samples)
    assert check_model(graph, [samples]) == ()


def test_half_precision_is_recorded_in_float32() -> None:
    policy = keras.DTypePolicy("mixed_float16")
    model = keras.Sequential(
        [layers.Input((4,)), layers.Dense(3, dtype=policy), layers.Dense(2, dtype="bfloat16")]
    )
    graph = read_graph(model)
    tensors, outputs = forward_function(graph, select_points(graph))([np.ones((2, 4), np.float32)])

    assert [tensor.dtype for tensor in tensors] == [tf.float32, tf.float32]
    assert outputs[0].dtype == tf.bfloat16


def test_a_nested_model_casts_its_inputs_as_keras_does() -> None:
    inner_in = keras.Input((3,), dtype="float16")
    inner = keras.Model(inner_in, inner_in * 2.0, name="inner")
    x = keras.Input((3,))
    model = keras.Model(x, inner(x))
    graph = read_graph(model)
    samples = np.array([[1.0, 1 / 3, 1e-4]], np.float32)
    _, outputs = forward_function(graph, [])([samples])

    assert [node.type for node in graph.nodes] == ["InputLayer", "Cast", "ops.Multiply"]
    np.testing.assert_array_equal(outputs[0], model(samples))


def test_a_mask_travels_along() -> None:
    x = keras.Input((5,), dtype="int32")
    y = layers.LSTM(3, name="lstm")(layers.Embedding(9, 4, mask_zero=True)(x))
    model = keras.Model(x, layers.Dense(2)(y))
    words = np.array([[1, 2, 0, 0, 0], [3, 0, 0, 0, 0]], np.int32)
    graph = read_graph(model)
    _, outputs = forward_function(graph, [])([words])

    np.testing.assert_allclose(outputs[0], model.predict(words, verbose=0), rtol=1e-6)
