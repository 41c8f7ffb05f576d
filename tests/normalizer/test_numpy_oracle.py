"""An independent oracle: plain numpy computes small networks from the normalised weights, without Keras."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from actisketch.pipeline.normalizer import normalize_model

layers = keras.layers
Array = NDArray[np.float64]
Weights = Mapping[str, list[Array]]


def weights_of(model: keras.Model) -> dict[str, list[Array]]:
    return {layer.name: [np.asarray(w, np.float64) for w in layer.weights] for layer in model.layers}


def relu(x: Array) -> Array:
    return np.maximum(x, 0.0)


def convolve(x: Array, kernel: Array, bias: Array) -> Array:
    """A 'valid' convolution by explicit sums over the window."""
    height, width = (x.shape[a] - kernel.shape[a - 1] + 1 for a in (1, 2))
    out = np.zeros((len(x), height, width, kernel.shape[-1]))
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            out += x[:, i : i + height, j : j + width] @ kernel[i, j]
    return out + bias


def batch_norm(x: Array, weights: list[Array], epsilon: float) -> Array:
    gamma, beta, mean, variance = weights
    return gamma * (x - mean) / np.sqrt(variance + epsilon) + beta


def test_a_chain_with_a_folded_normalisation(randomize: Any) -> None:
    keras.utils.set_random_seed(31)
    model = keras.Sequential(
        [
            layers.Input((6, 6, 2)),
            layers.Conv2D(3, 3, name="conv", use_bias=False),
            layers.BatchNormalization(name="bn"),
            layers.ReLU(name="relu"),
            layers.Flatten(),
            layers.Dense(2, name="out"),
        ]
    )
    randomize(model)
    x = np.random.default_rng(37).random((5, 6, 6, 2))
    factors = {"conv": np.array([0.7, 1.9, 3.1]), "out": np.array(5.3)}
    old, new = weights_of(model), weights_of(normalize_model(model, factors, mode="channel").model)

    (kernel,) = old["conv"]
    hidden = relu(batch_norm(convolve(x, kernel, np.zeros(3)), old["bn"], model.get_layer("bn").epsilon))
    normalized = relu(convolve(x, *new["conv"]))
    np.testing.assert_allclose(normalized * factors["conv"], hidden, rtol=2e-6, atol=1e-6)
    before = hidden.reshape(5, -1) @ old["out"][0] + old["out"][1]
    after = normalized.reshape(5, -1) @ new["out"][0] + new["out"][1]
    np.testing.assert_allclose(after * 5.3, before, rtol=2e-6, atol=1e-6)
    assert "bn" not in new


@pytest.mark.parametrize("mode", ["layer", "channel"])
def test_branches_that_are_joined_and_flattened(mode: str, randomize: Any) -> None:
    keras.utils.set_random_seed(41)
    x_in = keras.Input((5, 5, 2))
    a = layers.Conv2D(2, 3, activation="relu", name="a")(x_in)
    b = layers.Conv2D(3, 3, activation="relu", name="b")(x_in)
    joined = layers.Permute((3, 1, 2))(layers.Concatenate()([a, b]))
    model = keras.Model(x_in, layers.Dense(2, name="out")(layers.Flatten()(joined)))
    randomize(model)
    x = np.random.default_rng(43).random((4, 5, 5, 2))
    factors = {"a": np.array([2.0, 7.0]), "b": np.array([0.3, 1.1, 5.0]), "out": np.array(1.7)}
    if mode == "layer":
        factors = {"a": np.array(2.0), "b": np.array(0.3), "out": np.array(1.7)}
    old, new = weights_of(model), weights_of(normalize_model(model, factors, mode=mode).model)  # type: ignore[arg-type]

    def forward(weights: Weights) -> Array:
        both = np.concatenate([relu(convolve(x, *weights["a"])), relu(convolve(x, *weights["b"]))], axis=-1)
        kernel, bias = weights["out"]
        return np.asarray(both.transpose(0, 3, 1, 2).reshape(4, -1) @ kernel + bias)

    np.testing.assert_allclose(forward(new) * 1.7, forward(old), rtol=5e-6, atol=1e-6)
    np.testing.assert_allclose(
        relu(convolve(x, *new["b"])) * factors["b"], relu(convolve(x, *old["b"])), rtol=5e-6
    )


def test_an_addition_shares_the_largest_scale_of_its_branches(randomize: Any) -> None:
    keras.utils.set_random_seed(47)
    x_in = keras.Input((4,))
    a, b = layers.Dense(3, name="a")(x_in), layers.Dense(3, activation="relu", name="b")(x_in)
    model = keras.Model(x_in, layers.Dense(2, name="out")(layers.ReLU()(layers.Add(name="sum")([a, b]))))
    randomize(model)
    x = np.random.default_rng(53).random((6, 4))
    normalized = normalize_model(model, {"a": 2.0, "b": 3.0, "sum": 4.0, "out": 1.0})
    old, new = weights_of(model), weights_of(normalized.model)

    def branch(weights: Weights, name: str) -> Array:
        kernel, bias = weights[name]
        return np.asarray(x @ kernel + bias)

    assert normalized.scales == {"a": 4.0, "b": 4.0, "sum": 4.0, "out": 1.0}
    assert normalized.groups == (("a", "b", "sum"),)
    np.testing.assert_allclose(branch(new, "a") * 4.0, branch(old, "a"), rtol=1e-5, atol=1e-6)
    merged = [relu(branch(w, "a") + relu(branch(w, "b"))) @ w["out"][0] + w["out"][1] for w in (old, new)]
    np.testing.assert_allclose(merged[1], merged[0], rtol=1e-5, atol=1e-6)
