"""Layers that keep more than settings and weights are rebuilt with it: adapted preprocessing, tables of one's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from actisketch.pipeline import run
from actisketch.pipeline.normalizer import normalize_model

from .conftest import outputs_of

layers = keras.layers
RNG = np.random.default_rng(353)
WHOLE = RNG.integers(0, 9, (40, 3))
REAL = RNG.normal(0, 1, (40, 3)).astype(np.float32)
WORDS = RNG.choice(list("abcdef"), (40, 3))


def adapted(layer: Any, data: Any) -> Any:
    layer.adapt(np.array(data))
    return layer


@keras.saving.register_keras_serializable("test_layers_with_state")
class Table(layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Multiplies with a table that it saves itself."""

    table = np.zeros(3, np.float32)

    def call(self, x: Any) -> Any:
        return x * self.table

    def get_config(self) -> dict[str, Any]:
        return dict(super().get_config())

    def save_own_variables(self, store: Any) -> None:
        store["table"] = self.table

    def load_own_variables(self, store: Any) -> None:
        self.table = np.asarray(store["table"])


@keras.saving.register_keras_serializable("test_layers_with_state")
class Both(Table):
    """Has a weight beside its table, and saves the table as a file."""

    def build(self, shape: Any) -> None:
        self.shift = self.add_weight(shape=(3,), initializer="ones", name="shift")

    def call(self, x: Any) -> Any:
        return x * self.table + self.shift

    def save_own_variables(self, store: Any) -> None:
        store["shift"] = self.shift

    def load_own_variables(self, store: Any) -> None:
        self.shift.assign(store["shift"])

    def save_assets(self, folder: str) -> None:
        np.save(Path(folder) / "table.npy", self.table)

    def load_assets(self, folder: str) -> None:
        self.table = np.load(Path(folder) / "table.npy")


def with_table(layer: Any) -> Any:
    layer.table = np.array([0.5, 2.0, 3.0], np.float32)
    return layer


LAYERS: dict[str, tuple[Callable[[], Any], Any]] = {
    "IntegerLookup": (lambda: adapted(layers.IntegerLookup(name="p"), WHOLE), WHOLE),
    "of many": (lambda: adapted(layers.IntegerLookup(name="p", output_mode="multi_hot"), WHOLE), WHOLE),
    "of frequencies": (lambda: adapted(layers.IntegerLookup(name="p", output_mode="tf_idf"), WHOLE), WHOLE),
    "Discretization": (lambda: adapted(layers.Discretization(num_bins=5, name="p"), REAL), REAL),
    "of bins": (
        lambda: adapted(layers.Discretization(num_bins=5, output_mode="multi_hot", name="p"), REAL),
        REAL,
    ),
    "Normalization": (lambda: adapted(layers.Normalization(name="p"), REAL), REAL),
    "own table": (lambda: with_table(Table(name="p")), REAL),
    "own table and weight": (lambda: with_table(Both(name="p")), REAL),
}


def network(layer: Any, dtype: str, width: int = 3) -> keras.Model:
    keras.utils.set_random_seed(3)
    x = keras.Input((width,), dtype=dtype)
    y = layer(x)
    if "int" in str(y.dtype):
        y = layers.Flatten()(layers.Embedding(40, 3, name="embedding")(y))
    y = layers.Dense(4, activation="relu", name="hidden")(y)
    return keras.Model(x, layers.Dense(3, name="classes")(y))


@pytest.mark.parametrize("what", LAYERS)
def test_a_pinned_layer_with_state_is_rebuilt_certified_and_saved(tmp_path: Path, what: str) -> None:
    build, samples = LAYERS[what]
    model = network(build(), samples.dtype.name)
    expected = outputs_of(model, samples)
    found = run(model, samples, output=tmp_path / "r", settings={"normalize": {"pin": ["p"]}})
    loaded = keras.saving.load_model(found.folder.network_path)

    assert found.certificate()["passed"]
    scale = found.factors().by_point()["classes"]
    np.testing.assert_allclose(outputs_of(loaded, samples) * scale, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(outputs_of(model, samples), expected)


TEXT: dict[str, tuple[Callable[[], Any], int]] = {
    "StringLookup": (lambda: adapted(layers.StringLookup(name="p"), WORDS), 3),
    "of many": (lambda: adapted(layers.StringLookup(name="p", output_mode="count"), WORDS), 3),
    "TextVectorization": (
        lambda: adapted(layers.TextVectorization(output_sequence_length=3, name="p"), WORDS[:, 0]),
        1,
    ),
    "of frequencies": (
        lambda: adapted(layers.TextVectorization(output_mode="tf_idf", name="p"), WORDS[:, 0]),
        1,
    ),
}


@pytest.mark.parametrize("what", TEXT)
def test_a_layer_of_words_keeps_its_vocabulary(what: str) -> None:
    build, width = TEXT[what]
    model = network(build(), "string", width)
    samples = tf.constant(WORDS[:, :width])
    points = [
        name for name in ("embedding", "hidden", "classes") if name in {each.name for each in model.layers}
    ]
    normalized = normalize_model(model, dict.fromkeys(points, 2.0), pin=["p"])

    np.testing.assert_allclose(
        np.asarray(normalized.model(samples)) * 2.0, np.asarray(model(samples)), rtol=1e-5, atol=1e-6
    )
