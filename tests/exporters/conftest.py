"""Runs that exporters of low precision are tried on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actisketch.pipeline import Run, run

QUIET = {"normalize": {"enabled": False}, "report": {"enabled": False}}


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A network with a convolution, pooling and Dense layers, its samples, both as files, and its run."""
    import keras

    keras.utils.set_random_seed(11)
    inputs = keras.Input((8, 8, 2), name="image")
    x = keras.layers.Conv2D(5, 3, padding="same", activation="relu", name="conv")(inputs)
    x = keras.layers.MaxPooling2D(2, name="pool")(x)
    x = keras.layers.Flatten(name="flat")(x)
    x = keras.layers.Dense(7, activation="relu", name="hidden")(x)
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax", name="classes")(x))
    samples = np.random.default_rng(11).normal(size=(83, 8, 8, 2)).astype(np.float32)
    folder = tmp_path_factory.mktemp("small")
    model.save(folder / "network.keras")
    np.save(folder / "x.npy", samples)
    found = run(
        folder / "network.keras",
        folder / "x.npy",
        output=str(folder / "run"),
        settings={**QUIET, "record": {"activations": False}},
    )
    return {"model": model, "samples": samples, "run": found, "folder": folder}


@pytest.fixture(scope="session")
def record_digits(tmp_path_factory: pytest.TempPathFactory, demo_files: dict[str, str]) -> Any:
    """Record the shipped network, or another one, over samples in memory; returns the run and what opens it again."""

    def record(samples: np.ndarray, model: Path = Path(demo_files["model"])) -> tuple[Run, dict[str, Any]]:
        output = str(tmp_path_factory.mktemp("digits") / "run")
        found = run(
            model,
            samples,
            output=output,
            settings={**QUIET, "record": {"activations": False}},
        )
        return found, {"data": samples}

    return record


@pytest.fixture(scope="session")
def mobile_digits(
    digits: tuple[np.ndarray, np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, np.ndarray, np.ndarray]:
    """A network like MobileNet, trained on digits of twice their size, as a file; its samples and labels."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(31)
    x, labels = digits[0].repeat(2, axis=1).repeat(2, axis=2), digits[1]

    def normed(y: Any) -> Any:
        return layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.9)(y))

    inputs = keras.Input((16, 16, 1), name="image")
    y = normed(layers.Conv2D(16, 3, padding="same", use_bias=False)(inputs))
    for n_channels, strides in ((24, 2), (32, 1), (48, 2), (64, 1)):
        y = normed(layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False)(y))
        y = normed(layers.Conv2D(n_channels, 1, use_bias=False)(y))
    y = layers.GlobalAveragePooling2D()(y)
    model = keras.Model(inputs, layers.Dense(10, activation="softmax", name="classes")(y))
    n_epochs = 16
    rate = keras.optimizers.schedules.CosineDecay(6e-3, n_epochs * -(-len(x) // 32))
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    model.fit(x, labels, epochs=n_epochs, batch_size=32, verbose=0)
    path = tmp_path_factory.mktemp("mobile") / "mobile.keras"
    model.save(path)
    return path, x, labels


def with_outlier(samples: np.ndarray, at: int = 5) -> np.ndarray:
    """Return the samples with one value of 1e4 in one of them."""
    changed = samples.copy()
    changed[at, 3, 3, 0] = 1e4
    return changed
