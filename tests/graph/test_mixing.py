"""A network in which the samples of a batch influence each other is refused: its values would depend on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from actisketch.pipeline import run
from actisketch.storage.errors import InputError

layers, ops = keras.layers, keras.ops
X = np.random.default_rng(241).random((9, 6, 4), dtype=np.float32)
ONLY_RECORD = {"report": {"enabled": False}, "normalize": {"enabled": False}}


class Centred(layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Takes the mean of the batch away."""

    def call(self, x: Any) -> Any:
        return x - ops.mean(x, axis=0, keepdims=True)


def network(middle: Any) -> keras.Model:
    keras.utils.set_random_seed(251)
    x = keras.Input((6, 4))
    return keras.Model(
        x, layers.Dense(2, name="out")(middle(layers.Dense(5, activation="relu", name="in")(x)))
    )


MIXING = {
    "softmax": (layers.Softmax(axis=0, name="over"), "'over'"),
    "unit norm": (layers.UnitNormalization(axis=0, name="over"), "'over'"),
    "own layer": (Centred(name="centred"), "'centred'"),
    "lambda": (layers.Lambda(lambda x: x / ops.max(x), name="largest"), "'largest'"),
    "mean": (lambda x: x - ops.mean(x, axis=0), "'mean'"),
    "order": (lambda x: ops.flip(x, axis=0), "'flip'"),
    "shift": (lambda x: ops.roll(x, 1, axis=0), "'roll'"),
    "sum": (lambda x: ops.cumsum(x, axis=0), "'cumsum'"),
}


@pytest.mark.parametrize("kind", MIXING)
def test_a_layer_that_mixes_samples_is_named(kind: str, tmp_path: Path) -> None:
    middle, name = MIXING[kind]

    with pytest.raises(InputError, match="influence each other in the layer") as caught:
        run(network(middle), X, output=tmp_path / "run", batch_size=8, settings=ONLY_RECORD)
    assert name in str(caught.value).replace(f"{name[:-1]}_1'", name)
    assert "--batch-size 1" in str(caught.value)


@pytest.mark.parametrize("kind", ["unit norm", "own layer", "mean"])
def test_each_sample_alone_is_taken_as_the_message_says(kind: str, tmp_path: Path) -> None:
    model = network(MIXING[kind][0])
    result = run(model, X, output=tmp_path / "run", batch_size=1, settings=ONLY_RECORD)

    expected = model.predict(X, batch_size=1, verbose=0)
    np.testing.assert_allclose(result.activations("out")[:], expected, atol=1e-6)


@pytest.mark.parametrize(
    "middle",
    [
        lambda x: ops.transpose(ops.transpose(x, (1, 0, 2)) * 2.0, (1, 0, 2)),
        lambda x: layers.Softmax(axis=1)(x),
        lambda x: layers.MultiHeadAttention(2, 3)(x, x),
        lambda x: ops.sum(x, axis=(1, 2), keepdims=True) + x,
        lambda x: layers.Lambda(lambda y: ops.round(y * 8.0) / 8.0)(x),
    ],
    ids=["time first", "over time", "attention", "within a sample", "steps"],
)
def test_what_mixes_within_a_sample_is_recorded(middle: Any, tmp_path: Path) -> None:
    model = network(middle)
    result = run(model, X, output=tmp_path / "run", batch_size=8, settings=ONLY_RECORD)

    np.testing.assert_allclose(result.activations("out")[:], model.predict(X, verbose=0), atol=1e-5)


@pytest.mark.parametrize(
    "middle",
    [
        lambda x: ops.concatenate([x, x], axis=0),
        lambda x: layers.Concatenate(axis=0)([x, x]),
        lambda x: layers.Concatenate(axis=-3)([x, x]),
        lambda x: ops.reshape(x, (-1, 2, 5)),
    ],
    ids=["operation", "layer", "from behind", "reshaped"],
)
def test_more_samples_than_went_in_are_refused(middle: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'out', block 0: expected samples of shape"):
        run(network(middle), X, output=tmp_path / "run", batch_size=8, settings=ONLY_RECORD)


@pytest.mark.parametrize("merge", [layers.Add, layers.Average], ids=["add", "average"])
@pytest.mark.parametrize("n_channels", [4, 3, 1, 8])
def test_one_number_for_each_sample_is_no_bias(n_channels: int, merge: Any, tmp_path: Path) -> None:
    # Keras' add takes (4, 1) for the bias of (4, 4) where the number of samples is known, as when it is called at once.
    x = keras.Input((6, 4))
    flat = layers.Flatten()(x)
    wide, gate = layers.Dense(n_channels, name="wide")(flat), layers.Dense(1, name="gate")(flat)
    model = keras.Model(x, merge(name="both")([wide, gate]))

    result = run(model, X, output=tmp_path / "run", points="all", batch_size=n_channels, settings=ONLY_RECORD)

    both, a, b = (result.activations(name)[:] for name in ("both", "wide", "gate"))
    np.testing.assert_allclose(both, (a + b) / (2 if merge is layers.Average else 1), atol=1e-6)
