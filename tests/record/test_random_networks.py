"""A network that is random at inference is refused by the names of its layers, or recorded and marked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from actisketch.pipeline import open_run, run
from actisketch.pipeline.cli.show import status_lines
from actisketch.storage.errors import InputError

layers = keras.layers
SAMPLES = np.random.default_rng(311).normal(0, 1, (12, 5)).astype(np.float32)


class Dropped(layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Monte Carlo dropout: drops at inference too; a rate of 1 in 10,000 shows in no dozen values."""

    def __init__(self, rate: float = 0.5) -> None:
        super().__init__(name="mc")
        self.drop = layers.Dropout(rate, seed=5)

    def call(self, x: Any) -> Any:
        return self.drop(x, training=True)


class Unseeded(layers.Layer):  # type: ignore[misc]
    """Draws from the generator of all."""

    def call(self, x: Any) -> Any:
        return x + keras.random.normal(keras.ops.shape(x), stddev=1e-3)


class FromTensorFlow(layers.Layer):  # type: ignore[misc]
    def call(self, x: Any) -> Any:
        return x * tf.random.uniform(tf.shape(x))


class Paths(layers.Layer):  # type: ignore[misc]
    """Leaves out a sample in ten thousand: two passes over a few are the same."""

    def call(self, x: Any) -> Any:
        return x * tf.floor(tf.random.uniform((tf.shape(x)[0], 1)) + 0.9999)


class Seldom(layers.Layer):  # type: ignore[misc]
    """Swaps samples once in ten thousand times."""

    def call(self, x: Any) -> Any:
        return tf.where(tf.random.uniform(()) < 1e-4, tf.random.shuffle(x), x)


class FromGenerator(layers.Layer):  # type: ignore[misc]
    """Draws from a generator of its own, which Keras does not know."""

    def build(self, shape: Any) -> None:
        self.generator = tf.random.Generator.from_seed(3)

    def call(self, x: Any) -> Any:
        return x * tf.floor(self.generator.uniform(()) + 0.9999)


class Classes(layers.Layer):  # type: ignore[misc]
    """Draws whole numbers."""

    def call(self, x: Any) -> Any:
        return keras.ops.cast(self.drawn(x), "float32") + x

    def drawn(self, x: Any) -> Any:
        return tf.random.categorical(x, x.shape[-1])


class Remembers(layers.Layer):  # type: ignore[misc]
    """Adds how often it was called."""

    def build(self, shape: Any) -> None:
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x: Any) -> Any:
        return x + self.calls.assign_add(1.0)


RANDOM: dict[str, Callable[[], Any]] = {
    "dropout": Dropped,
    "dropout of little": lambda: Dropped(1e-4),
    "noise": lambda: Unseeded(name="mc"),
    "tf.random": lambda: FromTensorFlow(name="mc"),
    "paths": lambda: Paths(name="mc"),
    "seldom": lambda: Seldom(name="mc"),
    "a generator": lambda: FromGenerator(name="mc"),
    "dropout of TensorFlow's": lambda: layers.Lambda(lambda x: tf.nn.dropout(x, 1e-4), name="mc"),
    "whole numbers": lambda: Classes(name="mc"),
    "a Lambda": lambda: layers.Lambda(lambda x: x + keras.random.normal((5,)), name="mc"),
    "an activation function": lambda: layers.Dense(
        5, activation=lambda x: x * tf.random.normal((5,)), name="mc"
    ),
    "memory": lambda: Remembers(name="mc"),
}


def network(layer: Any) -> keras.Model:
    keras.utils.set_random_seed(7)
    x = keras.Input((5,))
    return keras.Model(
        x, layers.Dense(2, name="classes")(layer(layers.Dense(5, activation="relu", name="first")(x)))
    )


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
@pytest.mark.parametrize("what", RANDOM)
def test_a_random_network_is_refused_by_name_before_anything_is_written(tmp_path: Path, what: str) -> None:
    with pytest.raises(InputError, match=r"two passes .* differ: the layer 'mc' .*model.allow_random = true"):
        run(network(RANDOM[what]()), SAMPLES, output=tmp_path / "r", normalize=False)
    assert not (tmp_path / "r").exists()


def test_all_random_layers_are_named_and_not_those_behind_them(tmp_path: Path) -> None:
    x = keras.Input((5,))
    y = layers.Dense(4, name="between")(Dropped()(x))
    model = keras.Model(x, layers.Dense(2, name="after")(Unseeded(name="noise")(y)))

    with pytest.raises(InputError, match=r"the layers 'mc' \(Dropped\), 'noise' \(Unseeded\) are random"):
        run(model, SAMPLES, output=tmp_path / "r", normalize=False)


ALLOWED = {"model": {"allow_random": True}}


def test_an_allowed_one_is_recorded_and_the_run_says_so_everywhere(tmp_path: Path) -> None:
    model = network(Dropped())
    found = run(model, SAMPLES, output=tmp_path / "r", normalize=False, settings=ALLOWED)

    assert found.status().random_layers == ("mc",)
    assert found.status().is_complete
    assert json.loads((tmp_path / "r" / "run.json").read_text())["random_layers"] == ["mc"]
    assert "random layers, one draw" in (tmp_path / "r" / "report" / "index.html").read_text()
    assert run(model, SAMPLES, output=tmp_path / "r", normalize=False, settings=ALLOWED).random_layers == (
        "mc",
    )


def test_an_allowed_one_is_not_certified(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\('mc'\) cannot be certified.*normalize.enabled = false"):
        run(
            network(Dropped()),
            SAMPLES,
            output=tmp_path / "r",
            settings={**ALLOWED, "normalize": {"treat_as_identity": ["mc"]}},
        )
    assert not (tmp_path / "r").exists()


class Fixed(layers.Layer):  # type: ignore[misc]
    """Draws the same each time: its seed is a number."""

    def call(self, x: Any) -> Any:
        return x + keras.random.normal((5,), seed=3)


DETERMINISTIC: dict[str, Callable[[], Any]] = {
    "Dropout": lambda: layers.Dropout(0.5),
    "GaussianNoise": lambda: layers.GaussianNoise(0.5),
    "a seed that stays": lambda: Fixed(),
    "own code": lambda: layers.Lambda(lambda x: x * 2.0),
    "called as in training, which predict() does not heed": lambda: (
        lambda x: layers.Dropout(0.5)(x, training=True)
    ),
}


@pytest.mark.parametrize("what", DETERMINISTIC)
def test_what_gives_the_same_each_time_is_recorded_as_keras_predicts_it(tmp_path: Path, what: str) -> None:
    model = network(DETERMINISTIC[what]())
    found = run(model, SAMPLES, output=tmp_path / "r", normalize=False)

    assert found.status().random_layers == ()
    np.testing.assert_allclose(
        found.activations("classes")[:], np.asarray(model(SAMPLES, training=False)), rtol=1e-5, atol=1e-6
    )


def test_looking_leaves_the_seeds_of_a_network_as_they_were(tmp_path: Path) -> None:
    layer = Dropped()
    model = network(layer)
    before = layer.drop.seed_generator.state.numpy().copy()
    with pytest.raises(InputError):
        run(model, SAMPLES, output=tmp_path / "r", normalize=False)

    np.testing.assert_array_equal(layer.drop.seed_generator.state.numpy(), before)


def test_status_of_a_run_in_a_folder(tmp_path: Path) -> None:
    run(network(Dropped()), SAMPLES, output=tmp_path / "r", normalize=False, settings=ALLOWED)

    assert "random       recorded once; another run would differ: 'mc'" in list(
        status_lines(open_run(tmp_path / "r").status())
    )
