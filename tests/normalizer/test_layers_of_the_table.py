"""Every kind of layer in the table of rules, in a small network: the certificate passes, the scale is right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

layers = keras.layers
Any2D = Callable[[Any], Any]


def image(*stack: Any, n_channels: int = 4) -> keras.Model:
    """A convolution, the layers in question, and a classifier."""
    keras.utils.set_random_seed(13)
    return keras.Sequential(
        [
            layers.Input((8, 8, 3)),
            layers.Conv2D(n_channels, 3, padding="same", activation="relu", name="first"),
            *stack,
            layers.Flatten(),
            layers.Dense(5, activation="relu", name="hidden"),
            layers.Dense(3, activation="softmax", name="classes"),
        ]
    )


CASES: dict[str, list[Any]] = {
    "Conv2D": [layers.Conv2D(6, 3, strides=2, activation="relu")],
    "Conv2D without bias": [layers.Conv2D(6, 3, use_bias=False), layers.ReLU()],
    "grouped Conv2D": [layers.Conv2D(6, 3, groups=2, activation="relu")],
    "dilated Conv2D": [layers.Conv2D(6, 3, dilation_rate=2, activation="relu")],
    "DepthwiseConv2D": [layers.DepthwiseConv2D(3, depth_multiplier=2, activation="relu")],
    "DepthwiseConv2D, BatchNormalization": [
        layers.DepthwiseConv2D(3),
        layers.BatchNormalization(),
        layers.ReLU(),
    ],
    "SeparableConv2D": [layers.SeparableConv2D(6, 3, depth_multiplier=2, activation="relu")],
    "SeparableConv2D, BatchNormalization": [layers.SeparableConv2D(6, 3), layers.BatchNormalization()],
    "Conv2DTranspose": [layers.Conv2DTranspose(6, 3, strides=2, activation="relu")],
    "Conv2DTranspose, BatchNormalization": [layers.Conv2DTranspose(6, 2), layers.BatchNormalization()],
    "BatchNormalization without gain": [layers.Conv2D(6, 3), layers.BatchNormalization(scale=False)],
    "BatchNormalization alone": [
        layers.MaxPooling2D(),
        layers.BatchNormalization(center=False),
        layers.ReLU(),
    ],
    "ReLU": [layers.Conv2D(6, 3), layers.ReLU(negative_slope=0.1)],
    "ReLU with bounds": [layers.Conv2D(6, 3), layers.ReLU(max_value=0.7, threshold=0.1)],
    "relu6": [layers.Conv2D(6, 3, activation="relu6"), layers.Activation("relu6")],
    "a layer as activation": [layers.Conv2D(6, 3, activation=layers.ReLU(max_value=0.4))],
    "LeakyReLU": [layers.Conv2D(6, 3), layers.LeakyReLU(0.2)],
    "PReLU": [layers.Conv2D(6, 3), layers.PReLU(shared_axes=(1, 2))],
    "Activation": [layers.Conv2D(6, 3), layers.Activation("relu")],
    "sigmoid": [layers.Conv2D(6, 3, activation="sigmoid")],
    "tanh": [layers.Conv2D(6, 3), layers.Activation("tanh")],
    "ELU": [layers.Conv2D(6, 3), layers.ELU()],
    "MaxPooling2D": [layers.MaxPooling2D(3, strides=2, padding="same")],
    "AveragePooling2D": [layers.AveragePooling2D(2)],
    "GlobalAveragePooling2D": [layers.GlobalAveragePooling2D(keepdims=True)],
    "GlobalMaxPooling2D": [layers.GlobalMaxPooling2D()],
    "ZeroPadding2D": [layers.ZeroPadding2D(((1, 0), (2, 1))), layers.Conv2D(3, 3, activation="relu")],
    "Cropping2D": [layers.Cropping2D(2)],
    "UpSampling2D": [layers.UpSampling2D(2, interpolation="bilinear")],
    "Dropout": [layers.Dropout(0.5), layers.SpatialDropout2D(0.5), layers.GaussianNoise(1.0)],
    "Reshape": [layers.Reshape((16, 16)), layers.Conv1D(4, 3, activation="relu")],
    "Permute": [layers.Permute((3, 1, 2)), layers.Conv2D(4, 3, activation="relu")],
    "Dense on an image": [layers.Dense(5, activation="relu")],
    "LayerNormalization": [layers.LayerNormalization()],
    "augmentation": [layers.RandomFlip(), layers.RandomRotation(0.2)],
    "one dimension": [
        layers.Reshape((64, 4)),
        layers.SeparableConv1D(5, 3, activation="relu"),
        layers.DepthwiseConv1D(3),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Conv1DTranspose(3, 2, activation="relu"),
        layers.ZeroPadding1D(1),
        layers.Cropping1D(2),
        layers.UpSampling1D(2),
        layers.MaxPooling1D(2),
        layers.AveragePooling1D(2),
    ],
    "three dimensions": [
        layers.Reshape((4, 4, 4, 4)),
        layers.Conv3D(5, 2, activation="relu"),
        layers.BatchNormalization(),
        layers.Conv3DTranspose(3, 2, activation="relu"),
        layers.UpSampling3D(2),
        layers.MaxPooling3D(2),
        layers.AveragePooling3D(2),
        layers.ZeroPadding3D(1),
        layers.Cropping3D(1),
    ],
    "RepeatVector": [
        layers.GlobalAveragePooling2D(),
        layers.RepeatVector(3),
        layers.Conv1D(4, 2, activation="relu"),
    ],
}


@pytest.mark.parametrize("mode", ["layer", "channel"])
@pytest.mark.parametrize("case", CASES)
def test_the_function_is_preserved(case: str, mode: str, randomize: Any, peaks: Any, certified: Any) -> None:
    # Layers cannot be used in two models: both modes get their own copies.
    stack = [type(layer).from_config(layer.get_config()) for layer in CASES[case]]
    model = image(*stack)
    randomize(model)
    samples = np.random.default_rng(17).random((6, 8, 8, 3), dtype=np.float32)
    _, certificate = certified(model, peaks(model, samples, mode=mode), samples, mode=mode)

    assert certificate.passed, certificate.summary()
    assert certificate.outputs[0].class_agreement == 1.0
    # A chain without pinned layers: every free point now peaks at 1, channel by channel if asked for.
    for point in certificate.points:
        if not point.pinned and not point.is_dead:
            assert point.peak == pytest.approx(1.0, rel=1e-5)


def test_channels_first_networks_are_normalised_along_their_channels(
    randomize: Any, peaks: Any, certified: Any
) -> None:
    x = keras.Input((3, 8, 8))
    y = layers.Conv2D(4, 3, padding="same", data_format="channels_first", name="conv")(x)
    y = layers.BatchNormalization(axis=1, name="bn")(y)
    y = layers.ReLU()(y)
    y = layers.Flatten(data_format="channels_first")(y)
    model = keras.Model(x, layers.Dense(3, name="out")(y))
    randomize(model)
    samples = np.random.default_rng(19).random((4, 3, 8, 8), dtype=np.float32)
    try:
        model(samples)
    except Exception as error:  # TensorFlow on a CPU without oneDNN has no such kernel
        pytest.skip(f"this TensorFlow has no channels_first convolution here: {type(error).__name__}")
    normalized, certificate = certified(model, peaks(model, samples, mode="channel"), samples, mode="channel")

    assert certificate.passed
    assert np.shape(normalized.scales["conv"]) == (4,)


def test_an_embedding_is_divided(randomize: Any, peaks: Any, certified: Any) -> None:
    x = keras.Input((7,), dtype="int32")
    y = layers.Embedding(11, 4, name="words")(x)
    y = layers.Conv1D(5, 3, activation="relu", name="conv")(y)
    model = keras.Model(x, layers.Dense(2, name="out")(layers.GlobalMaxPooling1D()(y)))
    samples = np.random.default_rng(23).integers(0, 11, (6, 7), dtype=np.int32)
    _, certificate = certified(model, peaks(model, samples, mode="channel"), samples, mode="channel")

    assert certificate.passed
    assert not certificate.points[0].pinned


def test_a_recurrent_layer_keeps_scale_one_around_it(randomize: Any, peaks: Any, certified: Any) -> None:
    x = keras.Input((7, 3))
    y = layers.LSTM(4, name="lstm")(layers.Conv1D(5, 3, name="conv")(x))
    model = keras.Model(x, layers.Dense(2, name="out")(y))
    samples = np.random.default_rng(29).random((4, 7, 3), dtype=np.float32)
    normalized, certificate = certified(model, peaks(model, samples), samples)

    assert certificate.passed
    assert normalized.scales["conv"] == normalized.scales["lstm"] == 1.0
    assert ("lstm", "LSTM") in [(each.name, each.type) for each in normalized.pinned]
