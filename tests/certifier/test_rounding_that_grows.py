"""Rounding grows from layer to layer, as in a trained network: that fails no certificate, and a wrong weight does.

The oracle is the same network in float64, as Keras computes it: what both networks are off by is rounding.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from actisketch.pipeline.certifier import certify
from actisketch.pipeline.normalizer import normalize_model
from actisketch.pipeline.sources import as_source

layers = keras.layers
DEPTH, WIDTH = 32, 48
SHAPES = {"dense": (WIDTH,), "skips": (WIDTH,), "conv": (6, 6, 12)}


def deep(kind: str, dtype: str = "float32") -> keras.Model:
    """The statistics of a batch behind each layer bring every activation back to size 1, and rounding grows."""
    x = y = keras.Input(SHAPES[kind], dtype=dtype)
    for index in range(DEPTH):
        if kind == "conv":
            z = layers.Conv2D(12, 3, padding="same", name=f"d{index}", dtype=dtype)(y)
        else:
            z = layers.Dense(WIDTH, name=f"d{index}", dtype=dtype)(y)
        z = layers.BatchNormalization(momentum=0.0, name=f"n{index}", dtype=dtype)(z)
        if kind == "skips" and index % 8 == 7:
            z = layers.Add(name=f"sum{index}", dtype=dtype)([z, y])
        y = layers.ReLU(name=f"r{index}", dtype=dtype)(z)
    y = layers.GlobalAveragePooling2D(dtype=dtype)(y) if kind == "conv" else y
    return keras.Model(x, layers.Dense(3, name="out", dtype=dtype)(y))


@pytest.fixture
def case(request: pytest.FixtureRequest) -> tuple[keras.Model, keras.Model, NDArray[np.float32]]:
    """A network, the same in float64, and samples."""
    keras.utils.set_random_seed(409)
    kind = request.param
    samples = np.random.default_rng(401).random((32, *SHAPES[kind]), dtype=np.float32)
    model, exact = deep(kind), deep(kind, "float64")
    model(samples, training=True)
    exact.set_weights(model.get_weights())
    return model, exact, samples


@pytest.mark.parametrize("case", SHAPES, indirect=True)
def test_rounding_that_grows_through_many_layers_passes(case: Any, peaks: Any) -> None:
    model, exact, samples = case
    factors = peaks(model, samples)
    normalized = normalize_model(model, factors)
    certificate = certify(model, normalized, as_source(samples), batch_size=16)
    truth = np.asarray(exact(samples.astype(np.float64)))
    before = np.abs(np.asarray(model(samples), np.float64) - truth).max()
    after = np.abs(np.asarray(normalized.model(samples), np.float64) * factors["out"] - truth).max()

    assert after < 4 * before
    assert max(point.max_residual for point in certificate.points) > certificate.tolerance
    assert certificate.passed, certificate.summary()


@pytest.mark.parametrize("case", SHAPES, indirect=True)
def test_a_channel_that_is_wrong_by_a_hundredth_fails_at_any_depth(case: Any, peaks: Any) -> None:
    model, _, samples = case
    normalized = normalize_model(model, peaks(model, samples))
    kernels = [each for each in normalized.model.weights if each.name == "kernel"]
    for index in (0, DEPTH // 2, DEPTH - 1):
        kernel = kernels[index].numpy()
        kernels[index].assign(kernel * np.array([1.01] + [1.0] * (kernel.shape[-1] - 1), np.float32))
        certificate = certify(model, normalized, as_source(samples), batch_size=16)
        kernels[index].assign(kernel)

        assert not certificate.passed, (index, certificate.summary())
