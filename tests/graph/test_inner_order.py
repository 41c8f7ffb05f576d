"""Layers inside others that get the samples in another order, and those that only seem to; values from numpy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L

from actisketch.pipeline import run
from actisketch.storage.errors import InputError

X = np.random.default_rng(19).normal(size=(11, 6)).astype(np.float32)


def flipped(dense, v):
    return dense(v[::-1])[::-1]


def rolled(dense, v):
    return tf.roll(dense(tf.roll(v, 1, 0)), -1, 0)


def every_second_first(dense, v):
    order = tf.concat([tf.range(0, tf.shape(v)[0], 2), tf.range(1, tf.shape(v)[0], 2)], 0)
    return tf.gather(dense(tf.gather(v, order)), tf.argsort(order))


def last_two_exchanged(dense, v):
    n = tf.shape(v)[0]
    order = tf.concat([tf.range(n - 2), [n - 1, n - 2]], 0)
    return tf.gather(dense(tf.gather(v, order)), order)


def sorted_by_value(dense, v):
    order = tf.argsort(v[:, 0])
    return tf.gather(dense(tf.gather(v, order)), tf.argsort(order))


def of_the_others_too(dense, v):
    y = dense(v - tf.reduce_mean(v, 0))
    return v[:, :4] + y - tf.stop_gradient(y)


def in_order(dense, v):
    return dense(v)


class Own(L.Layer):
    def __init__(self, calling, **settings):
        super().__init__(**settings)
        self.calling, self.d = calling, L.Dense(4, name="d", use_bias=False)

    def build(self, shape):
        self.d.build(shape)

    def call(self, v):
        return self.calling(self.d, v)

    def compute_output_shape(self, shape):
        return (shape[0], 4)

    def get_config(self):
        raise NotImplementedError


class Shared(Own):
    """Gives its layer one row that is the same for all samples, as positions are."""

    def call(self, v):
        return v[:, :4] + self.d(tf.ones((1, 6)))


def model_of(layer, **more):
    keras.utils.set_random_seed(2)
    x = keras.Input((6,), **more)
    return keras.Model(x, layer(x))


def recorded(model, data, folder):
    settings = {"report": {"enabled": False}}
    return run(model, data, output=folder, points="leaves", batch_size=4, normalize=False, settings=settings)


OTHERS = [flipped, rolled, every_second_first, last_two_exchanged, of_the_others_too]


@pytest.mark.parametrize("calling", OTHERS)
def test_values_that_are_kept_for_another_sample_are_refused(tmp_path, calling):
    with pytest.raises(InputError, match=r"'v/d' \(Dense\) .* not in the order of the samples: leave it out"):
        recorded(model_of(Own(calling, name="v")), X, tmp_path / "r")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("descends", [False, True])
def test_samples_that_a_layer_sorts_are_refused_whatever_order_they_have(tmp_path, descends):
    data = X[np.argsort(X[:, 0])][:: -1 if descends else 1]

    with pytest.raises(InputError, match=r"'v/d' .* not in the order of the samples"):
        recorded(model_of(Own(sorted_by_value, name="v")), data, tmp_path / "r")


def test_samples_that_differ_little_are_told_apart(tmp_path):
    data = (293 + 0.05 * X).astype(np.float32)

    with pytest.raises(InputError, match=r"'v/d' .* not in the order of the samples"):
        recorded(model_of(Own(flipped, name="v")), data, tmp_path / "r")


def test_first_samples_that_are_equal_hide_nothing(tmp_path):
    data = np.concatenate([X[:1], X[:1], X[:2]])

    with pytest.raises(InputError, match=r"'v/d' .* not in the order of the samples"):
        recorded(model_of(Own(flipped, name="v")), data, tmp_path / "r")


def test_a_network_that_takes_batches_of_one_size_is_looked_at_too(tmp_path):
    def of_four(dense, v):
        return flipped(dense, tf.reshape(v, (4, 6)))

    with pytest.raises(InputError, match=r"'v/d' .* not in the order of the samples"):
        recorded(model_of(Own(of_four, name="v"), batch_size=4), X[:8], tmp_path / "r")


@pytest.mark.parametrize(
    "data", [X, 293 + 0.05 * X, np.tile(X[:1], (5, 1)), np.zeros_like(X), X[:2], 1e30 * X, X[:1]]
)
def test_values_in_the_order_of_the_samples_are_recorded(tmp_path, data):
    model = model_of(Own(in_order, name="v"))
    result = recorded(model, np.asarray(data, np.float32), tmp_path / "r")
    expected = np.asarray(data, np.float32) @ model.get_layer("v").d.kernel.numpy()

    largest = np.abs(expected).max()
    np.testing.assert_allclose(result.activations("v/d")[:], expected, rtol=1e-4, atol=1e-6 * largest)


def test_what_the_samples_share_is_recorded(tmp_path):
    model = model_of(Shared(None, name="v"))
    result = recorded(model, X, tmp_path / "r")
    row = np.ones((1, 6)) @ model.get_layer("v").d.kernel.numpy()

    np.testing.assert_allclose(result.activations("v/d")[:], np.tile(row, (11, 1)), rtol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_is_no_other_order(tmp_path, policy):
    model = model_of(Own(in_order, name="v", dtype=policy))
    result = recorded(model, X, tmp_path / "r")

    np.testing.assert_allclose(
        result.activations("v/d")[:], X @ model.get_layer("v").d.kernel.numpy(), rtol=0.1, atol=0.05
    )
