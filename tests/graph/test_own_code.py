"""User-defined code in a fingerprint: any change of what it computes counts, and where it is written does not."""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from actisketch.pipeline.graph import model_fingerprint

from ..warm import WarmPython

layers = keras.layers


OWN = """
import keras

SLOPE = {slope}

class Settings:
    def __init__(self, gain):
        self.gain = gain

SETTINGS = Settings({gain})

def gained(x):
    return x * SETTINGS.gain

class Given(keras.layers.Layer):
    def __init__(self, function, **more):
        super().__init__(**more)
        self.function = function

    def call(self, x):
        return self.function(x)

given = lambda x: x * {given}

def steep(x):
    return keras.ops.relu(x) * SLOPE

@keras.saving.register_keras_serializable()
def myact(x):
    {act}

@keras.saving.register_keras_serializable()
class Scaled(keras.layers.Layer):
    def call(self, x):
        return self.inner(x)

    def inner(self, x):
        return {inner}

@keras.saving.register_keras_serializable()
class Cell(keras.layers.Layer):
    state_size = 2

    def call(self, x, states):
        return x * {cell}, states
"""
AS_FIRST = {
    "slope": "1.0",
    "gain": "1.0",
    "given": "1.0",
    "act": "return keras.ops.relu(x) * 1.0",
    "inner": "x * 1.0",
    "cell": "1.0",
}


def own_code_fingerprint(path: Path, text: str, build: Callable[[dict[str, Any]], Any]) -> dict[str, str]:
    """The fingerprint of a network of one layer, as a program that runs the file at ``path`` sees it."""
    path.write_text(text)
    space: dict[str, Any] = {"__name__": "own"}
    exec(compile(text, str(path), "exec"), space)
    keras.saving.get_custom_objects().clear()
    x = keras.Input((4, 2))
    return model_fingerprint(keras.Model(x, build(space)(x)))


OWN_LAYERS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "act": (lambda own: layers.Activation(own["myact"]), "myact"),
    "inner": (lambda own: own["Scaled"](), "Scaled"),
    "cell": (lambda own: layers.RNN(own["Cell"]()), "Cell"),
    "gain": (lambda own: layers.Activation(own["gained"]), "gained"),
    "given": (lambda own: own["Given"](own["given"]), "<lambda>"),
    "slope": (lambda own: layers.Activation(own["steep"]), "steep"),
}


@pytest.mark.parametrize("what", OWN_LAYERS)
def test_code_that_was_edited_changes_it_and_is_named(tmp_path: Path, what: str) -> None:
    build, name = OWN_LAYERS[what]
    first = own_code_fingerprint(tmp_path / "own.py", OWN.format(**AS_FIRST), build)
    edited = {**AS_FIRST, what: AS_FIRST[what].replace("1.0", "3.0")}
    second = own_code_fingerprint(tmp_path / "own.py", OWN.format(**edited), build)

    assert {key for key in first if first[key] != second.get(key)} == {f"code of {name}"}


@pytest.mark.parametrize("what", OWN_LAYERS)
def test_where_code_lies_is_no_part_of_it(tmp_path: Path, what: str) -> None:
    build, _ = OWN_LAYERS[what]
    (tmp_path / "elsewhere").mkdir()
    first = own_code_fingerprint(tmp_path / "own.py", OWN.format(**AS_FIRST), build)
    moved = own_code_fingerprint(tmp_path / "elsewhere" / "b.py", "\n\n" + OWN.format(**AS_FIRST), build)

    assert moved == first


def test_code_that_runs_counts_and_not_what_its_file_says_by_now(tmp_path: Path) -> None:
    def build(own: dict[str, Any]) -> Any:
        (tmp_path / "own.py").write_text(OWN.format(**{**AS_FIRST, "inner": "x * 3.0"}))
        return own["Scaled"]()

    edited_since = own_code_fingerprint(tmp_path / "own.py", OWN.format(**AS_FIRST), build)
    edited = own_code_fingerprint(tmp_path / "own.py", OWN.format(**{**AS_FIRST, "inner": "x * 3.0"}), build)

    assert edited_since["code of Scaled"] != edited["code of Scaled"]


def test_code_is_the_same_in_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm_python: WarmPython
) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "own.py").write_text(OWN.format(**AS_FIRST))
    code = (
        "import sys, keras; sys.path.insert(0, sys.argv[1]); import own;"
        "from actisketch.pipeline.graph import model_fingerprint;"
        "x = keras.Input((4, 2));"
        "y = keras.layers.RNN(own.Cell())(own.Scaled()(keras.layers.Activation(own.myact)(x)));"
        "found = model_fingerprint(keras.Model(x, y))"
    )
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path / "here")])
    monkeypatch.setattr(sys, "path", [*sys.path])
    here: dict[str, Any] = {}
    exec(code, here)
    del sys.modules["own"]

    assert warm_python.told("-c", f"{code};print(found)", tmp_path / "there") == str(here["found"])
    assert "code of Scaled" in here["found"]


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
def test_a_network_of_keras_alone_has_no_code() -> None:
    """Whatever Keras wraps around its layers: caches of such networks stay valid."""
    x = keras.Input((8, 8, 2))
    y = layers.Conv2D(3, 3, activation="gelu")(x)
    y = layers.PReLU()(layers.BatchNormalization()(y))
    y = layers.TimeDistributed(layers.Dense(3))(layers.Reshape((36, 3))(y))
    y = layers.Bidirectional(layers.LSTM(2))(layers.MultiHeadAttention(2, 3)(y, y))
    y = layers.Lambda(lambda values: values * 2)(keras.ops.sin(y) + 1)

    assert set(model_fingerprint(keras.Model(x, y))) == {"topology", "weights", "dtype_policy"}


LAMBDA = """
import keras

layer = keras.layers.Lambda(lambda x: x * {by})
given = keras.layers.Lambda(lambda x, by={by}: x * by)
dense = keras.layers.Dense(2, activation=lambda x: keras.ops.relu(x) + {by}, kernel_initializer="ones")
timed = keras.layers.TimeDistributed(keras.layers.Lambda(lambda x: x - {by}))
shaped = keras.layers.Lambda(lambda x: x + {by}, output_shape=lambda shape: shape)
"""


def lambda_fingerprint(path: Path, name: str, by: str, *, before: str = "") -> dict[str, str]:
    text = before + LAMBDA.format(by=by)
    path.write_text(text)
    space: dict[str, Any] = {"__name__": path.stem}
    exec(compile(text, str(path), "exec"), space)
    x = keras.Input((4, 2))
    return model_fingerprint(keras.Model(x, space[name](x)))


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
@pytest.mark.parametrize("name", ["layer", "given", "dense", "timed", "shaped"])
def test_a_lambda_is_its_code_and_neither_file_nor_line(tmp_path: Path, name: str) -> None:
    first = lambda_fingerprint(tmp_path / "net.py", name, "2.0")
    lower = lambda_fingerprint(tmp_path / "net.py", name, "2.0", before="# one\n# two\nTHREE = 3\n")
    moved = lambda_fingerprint(tmp_path / "elsewhere.py", name, "2.0")
    edited = lambda_fingerprint(tmp_path / "net.py", name, "3.0")

    assert first == lower == moved
    assert first != edited


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
@pytest.mark.parametrize("name", ["layer", "timed", "shaped"])
def test_a_saved_and_loaded_lambda_is_the_same(tmp_path: Path, name: str) -> None:
    space: dict[str, Any] = {}
    exec(compile(LAMBDA.format(by="2.0"), "net.py", "exec"), space)
    x = keras.Input((4, 2))
    model = keras.Model(x, space[name](x))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=False)

    assert model_fingerprint(loaded) == model_fingerprint(model)


def test_comments_and_the_name_of_the_module_are_no_part_of_code(tmp_path: Path) -> None:
    found = []
    for module, before in (("own", ""), ("package.layers", "# a comment\n\n\n")):
        text = before + OWN.format(**AS_FIRST).replace(
            "return x * SETTINGS.gain", "return x * SETTINGS.gain  # gained"
        )
        space: dict[str, Any] = {"__name__": module}
        exec(compile(text, str(tmp_path / f"{module}.py"), "exec"), space)
        keras.saving.get_custom_objects().clear()
        x = keras.Input((4, 2))
        y = layers.RNN(space["Cell"]())(space["Given"](space["given"])(layers.Activation(space["gained"])(x)))
        found.append(model_fingerprint(keras.Model(x, space["Scaled"]()(y))))

    assert found[0] == found[1]


def test_code_that_cloudpickle_brings_is_the_same_without_its_file(
    tmp_path: Path, warm_python: WarmPython
) -> None:
    """As on a worker of another machine: the classes of a script, and none of its lines."""
    lines = (
        OWN.format(**AS_FIRST)
        + """
import cloudpickle, pathlib, sys
from actisketch.pipeline.graph import model_fingerprint

shape = "a global that an attribute is called like: x.shape does not mean it"

class Sized(keras.layers.Layer):
    def call(self, x):
        return x * float(x.shape[-1])

def build():
    x = keras.Input((4, 2))
    y = Given(given)(Scaled()(keras.layers.Activation(gained)(x)))
    return keras.Model(x, keras.layers.RNN(Cell())(Sized()(y)))

if __name__ == "__main__":
    pathlib.Path(sys.argv[1]).write_bytes(cloudpickle.dumps(build))
    print(model_fingerprint(build()))
"""
    )
    (tmp_path / "script.py").write_text(lines)
    there = (
        "import cloudpickle, pathlib, sys; from actisketch.pipeline.graph import model_fingerprint;"
        "print(model_fingerprint(cloudpickle.loads(pathlib.Path(sys.argv[1]).read_bytes())()))"
    )
    here = warm_python.told(tmp_path / "script.py", tmp_path / "build")
    (tmp_path / "script.py").unlink()

    assert "code of Sized" in here
    assert warm_python.told("-c", there, tmp_path / "build") == here


@pytest.mark.parametrize("change", ["tensor", "array", "variable"])
def test_the_numbers_that_own_code_refers_to_count(tmp_path: Path, change: str) -> None:
    made = {"tensor": "tf.constant({})", "array": "np.array({})", "variable": "keras.Variable({})"}[change]
    text = """
import keras, numpy as np, tensorflow as tf
TABLE = {made}
class Looking(keras.layers.Layer):
    def call(self, x):
        return x * keras.ops.cast(TABLE, "float32")
"""
    found = []
    for numbers in ("[1.0, 2.0]", "[1.0, 3.0]"):
        space: dict[str, Any] = {"__name__": "own"}
        exec(text.replace("{made}", made.format(numbers)), space)
        x = keras.Input((4, 2))
        found.append(model_fingerprint(keras.Model(x, space["Looking"]()(x))))

    assert found[0] != found[1]


REFERENCES = {
    "a property": ("@property\n    def gain(self):\n        return {}", "x * self.gain"),
    "a cached property": (
        "@functools.cached_property\n    def gain(self):\n        return {}",
        "x * self.gain",
    ),
    "a partial function": ("times = functools.partial(lambda x, by: x * by, by={})", "Looking.times(x)"),
    "a default": ("def times(self, x, by={}):\n        return x * by", "self.times(x)"),
    "a class within": ("class Gain:\n        by = {}", "x * self.Gain.by"),
    "a set of settings": ("gains = {{{}}}", "x * min(self.gains)"),
    "a table": ("gains = {{'of': [{}]}}", "x * self.gains['of'][0]"),
    "another module": ("gains = vars(other).update(gain={}) or other", "x * other.gain"),
}


@pytest.mark.parametrize("what", REFERENCES)
def test_what_own_code_refers_to_counts(what: str) -> None:
    """Each of these changes what a layer computes while its `call` stays as it is."""
    found = []
    for number in ("2.0", "3.0"):
        member, call = REFERENCES[what]
        space: dict[str, Any] = {
            "__name__": "own",
            "functools": functools,
            "other": types.ModuleType("other"),
        }
        text = f"    {member.format(number)}\n\n    def call(self, x):\n        return {call}\n"
        exec(f"import keras\nclass Looking(keras.layers.Layer):\n{text}", space)
        x = keras.Input((4, 2))
        found.append(model_fingerprint(keras.Model(x, space["Looking"]()(x))))

    assert {key for key in found[0] if found[0][key] != found[1][key]} == {"code of Looking"}


class Times:
    """No layer: Keras tells nothing of it but the name of its class."""

    def __init__(self, by: float) -> None:
        self.by = by

    def __call__(self, x: Any) -> Any:
        return x * self.by


def compiled(by: float) -> Any:
    return tf.function(lambda x: x * by, autograph=False)


def called_as(by: float) -> Any:
    times = Times(by)
    times.__name__ = "relu"  # type: ignore[attr-defined]
    return times


FUNCTIONS: dict[str, tuple[Any, Any]] = {
    "of keras.ops, called as another": (keras.ops.gelu, keras.activations.gelu),
    "compiled": (compiled(2.0), compiled(3.0)),
    "object": (called_as(2.0), called_as(3.0)),
    "method": (Times(2.0).__call__, Times(3.0).__call__),
    "method of an object that holds an array": (Times(np.ones(2)).__call__, Times(np.zeros(2)).__call__),
}


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
@pytest.mark.parametrize(
    "build", [layers.Activation, lambda f: layers.Dense(2, activation=f, bias_initializer="ones")]
)
@pytest.mark.parametrize("what", FUNCTIONS)
def test_functions_that_settings_tell_by_one_name_are_told_apart(
    what: str, build: Callable[[Any], Any]
) -> None:
    def fingerprint(function: Any) -> dict[str, str]:
        keras.utils.set_random_seed(3)
        x = keras.Input((4, 2))
        return model_fingerprint(keras.Model(x, build(function)(x)))

    one, other = FUNCTIONS[what]

    assert fingerprint(one) == fingerprint(one)
    assert fingerprint(one) != fingerprint(other)
