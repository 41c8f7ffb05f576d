"""What a layer keeps in neither settings nor weights is part of the network's fingerprint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from actisketch.pipeline import run
from actisketch.pipeline.graph import model_fingerprint
from actisketch.storage.errors import InputError, MismatchError

layers = keras.layers
ONE, OTHER = [7, 70, 700], [7000, 700, 7]


def adapted(layer: Any, data: Any) -> Any:
    layer.adapt(np.array(data))
    return layer


def texts(numbers: list[int]) -> list[str]:
    return [str(number) for number in numbers]


class Table(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Writes its table with its variables, and has no variable."""

    def __init__(self, table: Any = (0.0,), **more: Any) -> None:
        super().__init__(**more)
        self.table = np.asarray(table, np.float32)

    def call(self, x: Any) -> Any:
        return keras.ops.cast(x, "float32") * self.table

    def get_config(self) -> dict[str, Any]:
        return dict(super().get_config())

    def save_own_variables(self, store: Any) -> None:
        store["table"] = self.table

    def load_own_variables(self, store: Any) -> None:
        self.table = np.asarray(store["table"])


class Words(Table):
    """Writes an array of objects."""

    def save_own_variables(self, store: Any) -> None:
        store["words"] = np.array([f"word {number}" for number in self.table], dtype=object)


class Filed(Table):
    """Writes its table into a file."""

    def save_own_variables(self, store: Any) -> None:
        pass

    def load_own_variables(self, store: Any) -> None:
        pass

    def save_assets(self, folder: str) -> None:
        np.save(Path(folder) / "table.npy", self.table)

    def load_assets(self, folder: str) -> None:
        self.table = np.load(Path(folder) / "table.npy")


class Around(keras.layers.Layer):  # type: ignore[misc]
    """Holds a layer with a vocabulary in a list."""

    def __init__(self, data: list[int]) -> None:
        super().__init__()
        self.inner = [adapted(layers.IntegerLookup(), data)]

    def call(self, x: Any) -> Any:
        return self.inner[0](x)

    def get_config(self) -> dict[str, Any]:
        return dict(super().get_config())


class Untold(keras.layers.Layer):  # type: ignore[misc]
    """Keras cannot tell its settings: they are an array."""

    def __init__(self, table: Any) -> None:
        super().__init__()
        self._table = table

    def call(self, x: Any) -> Any:
        return keras.ops.cast(x, "float32") * self._table


class Gain(keras.layers.Layer):  # type: ignore[misc]
    """Keras tells what its constructor was given."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain

    def call(self, x: Any) -> Any:
        return keras.ops.cast(x, "float32") * self.gain


class Forgetful(keras.layers.Layer):  # type: ignore[misc]
    """Its settings leave out what its constructor was given."""

    def __init__(self, by: Any, **more: Any) -> None:
        super().__init__(**more)
        self.by = by

    def call(self, x: Any) -> Any:
        return keras.ops.cast(x, "float32") * getattr(self.by, "gain", self.by)

    def get_config(self) -> dict[str, Any]:
        return dict(super().get_config())


class Holding(keras.layers.Layer):  # type: ignore[misc]
    """Tells nothing of the layer within it."""

    def __init__(self, held: Any) -> None:
        super().__init__()
        self.kept = [held]

    def call(self, x: Any) -> Any:
        return self.kept[0](x)

    def get_config(self) -> dict[str, Any]:
        return dict(super().get_config())


class Remembering(Forgetful):
    """Keras tells what its constructor was given, as far as it can."""

    get_config = keras.layers.Layer.get_config


class Amount:
    """An object that Keras knows nothing of."""

    def __init__(self, gain: float) -> None:
        self.gain = gain


def exchanged(numbers: list[int]) -> Any:
    layer = layers.IntegerLookup(vocabulary=[1, 2, 3])
    layer.set_vocabulary(numbers)
    return layer


def set_since(numbers: list[int]) -> Any:
    layer = Gain(1.0)
    layer.gain = float(numbers[0])
    return layer


def frequencies(numbers: list[int]) -> Any:
    layer = layers.IntegerLookup(output_mode="tf_idf", num_oov_indices=1)
    return adapted(layer, [[7, 70, 700], [min(numbers[0], 700)] * 3])


STATEFUL: dict[str, tuple[str, Callable[[list[int]], Any]]] = {
    "IntegerLookup": ("int64", lambda v: adapted(layers.IntegerLookup(), v)),
    "StringLookup": ("string", lambda v: adapted(layers.StringLookup(), texts(v))),
    "TextVectorization": (
        "string",
        lambda v: adapted(layers.TextVectorization(output_sequence_length=2), texts(v)),
    ),
    "frequencies": ("int64", frequencies),
    "a vocabulary exchanged since": ("int64", exchanged),
    "own variables": ("int64", lambda v: Table(v)),
    "own words": ("int64", lambda v: Words(v)),
    "own files": ("int64", lambda v: Filed(v)),
    "within a layer": ("int64", lambda v: Around(v)),
    "no settings": ("int64", lambda v: Untold(np.float32(v))),
    "an attribute set since": ("int64", set_since),
    "a setting that is left out": ("int64", lambda v: Forgetful(float(v[0]))),
    "an array that is left out": ("int64", lambda v: Forgetful(np.float32(v))),
    "an object that is left out": ("int64", lambda v: Forgetful(Amount(v[0]))),
    "left out within a layer": ("int64", lambda v: Holding(Forgetful(float(v[0])))),
    "settings that the holder leaves out": ("int64", lambda v: Holding(layers.Rescaling(float(v[0])))),
    "left out by an activation": (
        "float32",
        lambda v: layers.Dense(2, activation=Forgetful(float(v[0])), kernel_initializer="ones"),
    ),
    "an object that Keras cannot write": ("int64", lambda v: Remembering(Amount(v[0]))),
}


def network(layer: Any, dtype: str) -> keras.Model:
    x = keras.Input((1 if isinstance(layer, layers.TextVectorization) else 3,), dtype=dtype)
    return keras.Model(x, layer(x))


@pytest.mark.parametrize("what", STATEFUL)
def test_two_networks_that_differ_by_state_alone_have_two_fingerprints(what: str) -> None:
    dtype, build = STATEFUL[what]
    one, again, other = (model_fingerprint(network(build(v), dtype)) for v in (ONE, list(ONE), OTHER))

    assert one == again
    assert one != other


@pytest.mark.parametrize("what", ["IntegerLookup", "StringLookup", "TextVectorization", "own variables"])
def test_a_saved_and_loaded_network_has_the_same_state(tmp_path: Path, what: str) -> None:
    dtype, build = STATEFUL[what]
    model = network(build(OTHER), dtype)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", custom_objects={"Table": Table})

    assert "state" in model_fingerprint(model)
    assert model_fingerprint(loaded)["state"] == model_fingerprint(model)["state"]


def lora() -> Any:
    layer = layers.Dense(3)
    layer.build((None, 3))
    layer.enable_lora(2)
    return layer


class Copying(layers.Dense):  # type: ignore[misc]
    """Writes copies of its weights under names of its own."""

    def save_own_variables(self, store: Any) -> None:
        store["kernel"], store["bias"] = np.asarray(self.kernel), np.asarray(self.bias)


STATELESS: dict[str, tuple[str, Callable[[], Any]]] = {
    "Normalization": ("float32", lambda: adapted(layers.Normalization(), np.eye(3))),
    "Discretization": ("float32", lambda: adapted(layers.Discretization(num_bins=3), np.eye(3))),
    "a vocabulary in the settings": ("int64", lambda: layers.IntegerLookup(vocabulary=ONE)),
    "and its special words": ("string", lambda: layers.StringLookup(vocabulary=["[UNK]", "a", "b"])),
    "and their frequencies": (
        "int64",
        lambda: layers.IntegerLookup(vocabulary=ONE, idf_weights=[0.5, 0.25, 1.0], output_mode="tf_idf"),
    ),
    "words": ("string", lambda: layers.TextVectorization(vocabulary=["a", "b"])),
    "LoRA": ("float32", lora),
    "Dropout": ("float32", lambda: layers.Dropout(0.5, seed=3)),
    "copies of the weights": ("float32", lambda: Copying(3)),
}


@pytest.mark.parametrize("what", STATELESS)
def test_what_settings_and_weights_tell_is_told_once(what: str) -> None:
    """So the caches of such networks stay valid."""
    dtype, build = STATELESS[what]

    assert "state" not in model_fingerprint(network(build(), dtype))


def looked_up(data: list[int]) -> keras.Model:
    x = keras.Input((2,), dtype="int64")
    y = layers.Embedding(5, 2, embeddings_initializer=keras.initializers.RandomUniform(seed=5))(
        adapted(layers.IntegerLookup(), data)(x)
    )
    return keras.Model(x, layers.Dense(2, kernel_initializer="ones", name="classes")(layers.Flatten()(y)))


def test_the_cache_of_a_network_with_another_vocabulary_is_refused(tmp_path: Path) -> None:
    samples = np.array([[7, 70], [700, 7000]] * 4)
    run(looked_up(ONE), samples, output=tmp_path / "r", normalize=False)

    with pytest.raises(MismatchError, match="state"):
        run(looked_up(OTHER), samples, output=tmp_path / "r", normalize=False)


class Silent(keras.layers.Layer):  # type: ignore[misc]
    def call(self, x: Any) -> Any:
        return x


class NoConfig(Silent):
    def get_config(self) -> dict[str, Any]:
        raise AttributeError("no attribute 'units'")


class BadConfig(Silent):
    def get_config(self) -> dict[str, Any]:
        return {"units": {}["units"]}


class BadState(Silent):
    def save_own_variables(self, store: Any) -> None:
        raise RuntimeError("no table yet")


class BadFiles(Silent):
    def save_assets(self, folder: str) -> None:
        raise OSError("no such file")


@pytest.mark.parametrize("kind", [NoConfig, BadConfig, BadState, BadFiles])
def test_a_layer_that_cannot_tell_what_it_is_is_named(tmp_path: Path, kind: type[Silent]) -> None:
    x = keras.Input((3,))
    model = keras.Model(x, kind(name="mine")(layers.Dense(2)(x)))

    with pytest.raises(
        InputError, match=f"the layer 'mine' \\({kind.__name__}\\) does not give its"
    ) as error:
        run(model, np.ones((4, 3), np.float32), output=tmp_path / "r", normalize=False)
    assert error.value.facts["layer"] == "mine"
    assert not (tmp_path / "r").exists()
