"""A model's fingerprint: the same for the same function in any process, another for any change."""

from __future__ import annotations

import collections
import fractions
import functools
import operator
import random
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from actisketch.pipeline import activations
from actisketch.pipeline.graph import model_fingerprint
from actisketch.storage.errors import MismatchError

from ..warm import WarmPython

layers = keras.layers


def network(
    *, filters: int = 4, rate: float = 0.25, name: str | None = None, dtype: str = "float32"
) -> keras.Model:
    x = keras.Input((8, 8, 1))
    y = layers.Conv2D(filters, 3, activation="relu", name=name, dtype=dtype)(x)
    y = layers.Dropout(rate)(layers.BatchNormalization()(y))
    model = keras.Model(x, layers.Dense(2)(layers.Flatten()(y)))
    fill(model)
    return model


def fill(model: keras.Model) -> None:
    rng = np.random.default_rng(11)
    model.set_weights([rng.random(weight.shape) for weight in model.get_weights()])


def test_names_that_count_up_within_a_session_are_no_part_of_it() -> None:
    assert model_fingerprint(network()) == model_fingerprint(network(name="another"))


def test_a_saved_and_loaded_model_in_another_process_has_the_same_fingerprint(
    tmp_path: Path, warm_python: WarmPython
) -> None:
    model = network()
    model.compile("adam", "mse")
    model.save(tmp_path / "model.keras")
    code = (
        "import sys, keras; from actisketch.pipeline.graph import model_fingerprint;"
        "print(model_fingerprint(keras.models.load_model(sys.argv[1])))"
    )

    assert warm_python.told("-c", code, tmp_path / "model.keras") == str(model_fingerprint(model))


def bias(model: keras.Model) -> None:
    model.layers[-1].bias.assign([0.0, 1e-7])


def moving_mean(model: keras.Model) -> None:
    model.layers[2].moving_mean.assign(np.zeros(4))


@pytest.mark.parametrize("change", [bias, moving_mean])
def test_any_change_of_a_weight_changes_it(change: Callable[[keras.Model], None]) -> None:
    model = network()
    before = model_fingerprint(model)
    change(model)
    after = model_fingerprint(model)

    assert before["topology"] == after["topology"]
    assert before["weights"] != after["weights"]


def test_a_setting_changes_the_topology() -> None:
    assert model_fingerprint(network())["topology"] != model_fingerprint(network(rate=0.5))["topology"]


def test_the_precision_is_told() -> None:
    assert model_fingerprint(network(dtype="mixed_bfloat16"))["dtype_policy"] == "float32,mixed_bfloat16"


def test_how_it_was_initialised_and_trained_does_not_matter() -> None:
    def dense(**settings: str) -> keras.Model:
        model = keras.Sequential([layers.Input((3,)), layers.Dense(2, **settings)])
        fill(model)
        return model

    plain = model_fingerprint(dense())
    assert model_fingerprint(dense(kernel_initializer="zeros", kernel_regularizer="l2")) == plain


def test_which_values_a_layer_takes_matters() -> None:
    def joined(*, swapped: bool) -> keras.Model:
        a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b")
        order = [b, a] if swapped else [a, b]
        return keras.Model([a, b], layers.Concatenate()(order))

    assert model_fingerprint(joined(swapped=False)) != model_fingerprint(joined(swapped=True))


def test_constants_of_bare_operations_count() -> None:
    def shifted(constant: NDArray[np.float32]) -> keras.Model:
        x = keras.Input((2,))
        return keras.Model(x, x + constant)

    one, other = np.array([1, 2], np.float32), np.array([1, 3], np.float32)
    assert model_fingerprint(shifted(one)) == model_fingerprint(shifted(one.copy()))
    assert model_fingerprint(shifted(one)) != model_fingerprint(shifted(other))


def applied(function: Callable[[Any], Any]) -> keras.Model:
    x = keras.Input((4, 4))
    return keras.Model(x, function(x))


class Slotted:
    __slots__ = ("by", "held")

    def __init__(self, by: float) -> None:
        self.by = by
        self.held = self


class Op:
    def __init__(self, name: str) -> None:
        self.name = name

    def get_config(self) -> dict[str, str]:
        return {"name": self.name}


class Held(layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Holds what it was given, and tells it raw, as configurations by hand do."""

    def __init__(self, held: Any, key: str = "held", **settings: Any) -> None:
        super().__init__(**settings)
        self.key = key
        self.told = lambda: held

    def call(self, x: Any) -> Any:
        return x

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), self.key: self.told()}


def drawn(generator: Any) -> Any:
    generator.random()
    return generator


def written(seed: int | None) -> Any:
    return keras.saving.serialize_keras_object(keras.random.SeedGenerator(seed))


def filled(words: dict[Any, int]) -> Any:
    keys, numbers = tf.constant(list(words)), tf.constant(list(words.values()), tf.int64)
    return tf.lookup.KeyValueTensorInitializer(keys, numbers)


def table(words: dict[Any, int], others: int = -1) -> Any:
    return tf.lookup.StaticHashTable(filled(words), others)


def vocabulary(word: str, n_buckets: int) -> Any:
    return tf.lookup.StaticVocabularyTable(filled({word: 0}), n_buckets)


def changing(numbers: dict[int, int]) -> Any:
    made = tf.lookup.experimental.MutableHashTable(tf.int64, tf.int64, -1)
    made.insert(tf.constant(list(numbers), tf.int64), tf.constant(list(numbers.values()), tf.int64))
    return made


def holding(held: Any, key: str = "held") -> keras.Model:
    return applied(Held(held, key))


def scaled(by: float, value: Any) -> Any:
    return by * value


PAIRS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "slice": lambda: (slice(0, 4), slice(4, 8)),
    "step": lambda: (slice(None), slice(None, None, -1)),
    "range": lambda: (range(2), range(2, 4)),
    "frozenset": lambda: (frozenset({2, 3}), frozenset({2, 5})),
    "set of tuples": lambda: ({(2, 3)}, {(2, 5)}),
    "partial": lambda: (
        functools.partial(keras.ops.elu, alpha=0.5),
        functools.partial(keras.ops.elu, alpha=0.7),
    ),
    "partial of own": lambda: (functools.partial(scaled, 2.0), functools.partial(scaled, 3.0)),
    "bytes": lambda: (b"\x02", b"\x03"),
    "complex": lambda: (2 + 3j, 2 + 5j),
    "complex64": lambda: (np.complex64(2 + 3j), np.complex64(2 + 5j)),
    "date": lambda: (np.datetime64("2003-05-07"), np.datetime64("2003-05-11")),
    "dtype": lambda: (np.dtype("<f4"), np.dtype(">f4")),
    "array of objects": lambda: (np.array([2, "a"], object), np.array([3, "a"], object)),
    "shape": lambda: (np.zeros((1, 4)), np.zeros((4, 1))),
    "bits": lambda: (np.zeros(4, np.float32), np.zeros(4, np.int32)),
    "deque": lambda: (collections.deque([2]), collections.deque([3])),
    "fraction": lambda: (fractions.Fraction(2, 3), fractions.Fraction(2, 5)),
    "namespace": lambda: (types.SimpleNamespace(by=2), types.SimpleNamespace(by=3)),
    "mapping": lambda: (types.MappingProxyType({"by": 2}), types.MappingProxyType({"by": 3})),
    "getter": lambda: (operator.itemgetter(2), operator.itemgetter(3)),
    "bound": lambda: ([2].index, [3].index),
    "slots": lambda: (Slotted(2.0), Slotted(3.0)),
    "slots in own": lambda: ([Slotted(2.0)], [Slotted(3.0)]),
    "own with a name": lambda: (Op("sin"), Op("cos")),
    "name": lambda: ({"name": "sin"}, {"name": "cos"}),
    "seed": lambda: ({"seed": 2}, {"seed": 3}),
    "not a lambda": lambda: ({"value": ["sin", 2, 3]}, {"value": ["cos", 2, 3]}),
    "generator": lambda: (np.random.default_rng(2), np.random.default_rng(3)),
    "generator that drew": lambda: (np.random.default_rng(2), drawn(np.random.default_rng(2))),
    "stream of bits": lambda: (np.random.MT19937(2), np.random.MT19937(3)),
    "older generator": lambda: (np.random.RandomState(2), np.random.RandomState(3)),
    "generator of Python": lambda: (random.Random(2), random.Random(3)),
    "generator of Keras": lambda: (keras.random.SeedGenerator(2), keras.random.SeedGenerator(3)),
    "generator that Keras wrote": lambda: (written(2), written(3)),
    "generator of TensorFlow": lambda: (
        tf.random.Generator.from_seed(2),
        tf.random.Generator.from_seed(3),
    ),
    "generator in own": lambda: (Slotted(np.random.default_rng(2)), Slotted(np.random.default_rng(3))),
    "table": lambda: (table({"a": 2, "b": 3}), table({"a": 2, "b": 5})),
    "keys of a table": lambda: (table({"a": 2, "b": 3}), table({"a": 2, "c": 3})),
    "table in own": lambda: (Slotted(table({"a": 2})), Slotted(table({"a": 3}))),
    "what a table gives for others": lambda: (table({"a": 2}, others=-2), table({"a": 2}, others=-3)),
    "table that changes": lambda: (changing({2: 3}), changing({2: 5})),
    "words": lambda: (vocabulary("a", 2), vocabulary("b", 2)),
    "buckets": lambda: (vocabulary("a", 2), vocabulary("a", 3)),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_what_a_layer_of_the_user_holds_counts(kind: str) -> None:
    one, other = (model_fingerprint(holding(held))["topology"] for held in PAIRS[kind]())
    again, _ = (model_fingerprint(holding(held))["topology"] for held in PAIRS[kind]())

    assert one != other
    assert one == again


SESSIONS = {
    "Keras without a seed": lambda: keras.random.SeedGenerator(),
    "NumPy's shared one": lambda: drawn(np.random) and np.random.normal,
    "Python's shared one": lambda: drawn(random) and random.gauss,
    "the same in other order": lambda: table(dict(random.sample([("a", 2), ("b", 3), ("c", 5)], 3))),
}


@pytest.mark.parametrize("kind", SESSIONS)
def test_what_differs_by_session_does_not_count(kind: str) -> None:
    one, *others = (model_fingerprint(holding(SESSIONS[kind]())) for _ in range(3))
    assert others == [one, one]


def test_a_generator_that_keras_wrote_without_its_seed_does_not_count() -> None:
    one, other = (model_fingerprint(holding(written(None)))["topology"] for _ in range(2))
    assert one == other


SHARED = np.random.default_rng(2)


class Drawing(Held):
    """Has its code draw from a generator of its module when it is trained."""

    def call(self, x: Any, training: bool = False) -> Any:
        return x + SHARED.normal() if training else x


def test_what_else_was_drawn_from_a_generator_of_the_module_does_not_count() -> None:
    before = model_fingerprint(applied(Drawing(2.0)))
    SHARED.random()
    assert model_fingerprint(applied(Drawing(2.0))) == before


class Reading(layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Reads what it computes with from a file."""

    def __init__(self, file: str, kind: str) -> None:
        super().__init__()
        self.file, self.kind = file, kind
        self.read = np.load(file)
        if kind == "table":
            self.read = table({"a": int(self.read[0])})
        if kind == "variable":
            self.read = tf.Variable(self.read)

    def call(self, x: Any) -> Any:
        return x


class Telling(Reading):
    def get_config(self) -> dict[str, Any]:
        return {"file": self.file, "kind": self.kind}


@pytest.mark.parametrize("kind", ["array", "table", "variable"])
@pytest.mark.parametrize("reading", [Reading, Telling])
def test_what_a_layer_of_the_user_reads_from_a_file_counts(tmp_path: Path, reading: Any, kind: str) -> None:
    found = []
    for number in (2.0, 2.0, 3.0):
        np.save(tmp_path / "read.npy", np.full(4, number))
        found.append(model_fingerprint(applied(reading(str(tmp_path / "read.npy"), kind))))

    assert found[0] == found[1]
    assert found[0] != found[2]


def objects(words: list[str]) -> Any:
    return np.array([*words, None], object)


@pytest.mark.parametrize("made", [objects, tf.constant])
def test_texts_that_own_code_refers_to_count_by_what_they_say(made: Any, monkeypatch: Any) -> None:
    found, kept = [], []
    for words in ("one two", "one two", "two one"):
        kept.append(made(words.split()))  # so that no address is used twice
        monkeypatch.setitem(globals(), "TEXTS", kept[-1])
        found.append(model_fingerprint(applied(Counting())))

    assert found[0] == found[1]
    assert found[0] != found[2]


TEXTS: Any = ()


class Counting(layers.Layer):  # type: ignore[misc]  # Keras has no types
    def call(self, x: Any) -> Any:
        return x * len(TEXTS)


@pytest.mark.parametrize("key", ["seed", "build_config", "gain_initializer", "penalty_regularizer"])
def test_numbers_of_a_layer_of_the_user_count_under_any_name(key: str) -> None:
    one, other = (model_fingerprint(holding(held, key))["topology"] for held in (2.0, 3.0))
    assert one != other


@pytest.mark.parametrize(
    "one", ["he_normal", "uniform", keras.initializers.HeNormal(3), "l2", "max_norm", None]
)
def test_how_weights_of_a_layer_of_the_user_were_made_and_trained_does_not_matter(one: Any) -> None:
    told = {"module": "keras.initializers", "class_name": "Zeros", "config": {}, "registered_name": None}

    topologies = [model_fingerprint(holding(held, "kernel_initializer"))["topology"] for held in (one, told)]
    assert topologies[0] == topologies[1]


@pytest.mark.parametrize("key", ["seed", "name", "trainable", "gain_initializer"])
def test_the_arguments_of_a_lambda_count_under_any_name(key: str) -> None:
    def scaling(by: float) -> keras.Model:
        return applied(layers.Lambda(lambda x, **given: x * given[key], arguments={key: by}))

    assert model_fingerprint(scaling(2.0)) != model_fingerprint(scaling(3.0))


def test_the_shape_of_a_constant_counts() -> None:
    constant = np.arange(4, dtype=np.float32)
    along, across = (
        applied(lambda x, shape=shape: x * constant.reshape(shape)) for shape in [(1, 4), (4, 1)]
    )
    x = np.ones((1, 4, 4), np.float32)

    assert not np.array_equal(along(x), across(x))
    assert model_fingerprint(along) != model_fingerprint(across)


def test_the_cache_of_other_columns_is_refused(tmp_path: Path) -> None:
    def columns(first: int) -> keras.Model:
        x = keras.Input((8,))
        model = keras.Model(x, layers.Dense(2, "relu", name="fc")(x[:, first : first + 4]))
        fill(model)
        return model

    samples = np.random.default_rng(3).random((16, 8), np.float32)
    activations(columns(0), samples, output=str(tmp_path), progress=False)

    with pytest.raises(MismatchError):
        activations(columns(4), samples, output=str(tmp_path), progress=False)
