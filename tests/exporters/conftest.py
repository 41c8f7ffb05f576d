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
    """Record the shipped network over samples in memory; returns the run and the options that open both again."""

    def record(samples: np.ndarray) -> tuple[Run, dict[str, Any]]:
        output = str(tmp_path_factory.mktemp("digits") / "run")
        found = run(
            Path(demo_files["model"]),
            samples,
            output=output,
            settings={**QUIET, "record": {"activations": False}},
        )
        return found, {"data": samples}

    return record


def with_outlier(samples: np.ndarray, at: int = 5) -> np.ndarray:
    """Return the samples with one value of 1e4 in one of them."""
    changed = samples.copy()
    changed[at, 3, 3, 0] = 1e4
    return changed
