"""Exports that open the network, however it takes its inputs: each tensor has the range of its own layer."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from actisketch.pipeline import run
from actisketch.pipeline.cli import commands
from actisketch.storage.errors import InputError

from .conftest import QUIET

pytestmark = pytest.mark.filterwarnings("ignore")

RNG = np.random.default_rng(4)
# Exchanged, they give other ranges.
FIRST, SECOND = (RNG.normal(0, s, (40, 4)).astype(np.float32) for s in (1, 5))
IDS = RNG.integers(0, 9, (40, 4)).astype(np.int32)
NEEDED = {"onnxruntime": ("onnx", "onnxruntime", "tf2onnx"), "litert": ("ai_edge_litert",)}


def skip_without_packages(kind: str) -> None:
    for package in NEEDED.get(kind, ()):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"without {package}")


def layers() -> tuple[Any, Any, Any]:
    import keras

    keras.utils.set_random_seed(4)
    one, two = (keras.layers.Dense(5, "relu", name=name) for name in ("one", "two"))
    return one, two, keras.layers.Dense(3, name="out")


def functional(kind: str) -> tuple[Any, Any]:
    """A functional network that gives FIRST to "one" and SECOND to "two", and its samples."""
    import keras

    (one, two, out), (p, q) = layers(), (keras.Input((4,), name=name) for name in "pq")
    y = out(one(p) + two(q))
    structs = {
        "list": ([p, q], [FIRST, SECOND]),
        "dict": ({"q": q, "p": p}, {"p": FIRST, "q": SECOND}),
        "dict with other keys": ({"q": p, "p": q}, {"q": FIRST, "p": SECOND}),
        "one": (p, FIRST),
        "dict of one": ({"p": p}, {"p": FIRST}),
    }
    inputs, samples = structs[kind]
    return keras.Model(inputs, out(one(p)) if "one" in kind else y), samples


def subclassed(kind: str) -> tuple[Any, Any]:
    import keras

    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.out = layers()

        def added(self, p: Any, q: Any) -> Any:
            return self.out(self.one(p) + self.two(q))

    class OfList(Net):
        def call(self, x):
            return self.added(x[0], x[1])

    class OfDict(Net):
        def call(self, x):
            return self.added(x["a"], x["my/b"])

    class OfTwo(Net):
        def call(self, q, p):
            return self.added(p, q)

    class WithFlag(Net):
        def call(self, q, flag=None, p=None):
            return self.added(p, q)

    class OfIds(Net):
        def __init__(self) -> None:
            super().__init__()
            self.table = keras.layers.Embedding(9, 4, name="table")

        def call(self, x):
            return self.out(self.one(self.table(x)))

    structs = {
        "list": (OfList, [FIRST, SECOND]),
        "dict": (OfDict, {"my/b": SECOND, "a": FIRST}),
        "arguments": (OfTwo, {"p": FIRST, "q": SECOND}),
        "flag": (WithFlag, {"p": FIRST, "q": SECOND}),
        "ids": (OfIds, IDS),
    }
    made, samples = structs[kind][0](), structs[kind][1]
    few = {k: v[:2] for k, v in samples.items()} if isinstance(samples, dict) else None
    if kind in ("arguments", "flag"):
        made(**few)
    else:
        made(few or ([each[:2] for each in samples] if kind == "list" else samples[:2]))
    return made, samples


def exported(made: tuple[Any, Any], kind: str, folder: Path) -> Any:
    skip_without_packages(kind)
    model, samples = made
    settings = {**QUIET, "record": {"activations": False, "points": "leaves"}}
    found = run(model, samples, output=str(folder / "run"), settings=settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return found.exported(kind, options={"model": model, "data": samples})


def expected_upper(layer: Any, samples: np.ndarray) -> float:
    """Percentile 99.9 of the values above zero of a Dense layer with ReLU, by NumPy."""
    kernel, bias = (np.asarray(each, np.float64) for each in layer.weights)
    values = np.maximum(samples @ kernel + bias, 0)
    return float(np.percentile(values[values > 0], 99.9))


@pytest.mark.parametrize("kind", NEEDED)
@pytest.mark.parametrize("struct", ["list", "dict", "dict with other keys", "one", "dict of one"])
def test_a_functional_network_is_exported_whatever_holds_its_inputs(kind, struct, tmp_path):
    model, samples = functional(struct)
    upper = {row.point: row.hi for row in exported((model, samples), kind, tmp_path).rows}

    assert upper["one"] == pytest.approx(expected_upper(model.get_layer("one"), FIRST), rel=5e-3)
    if "one" not in struct:
        assert upper["two"] == pytest.approx(expected_upper(model.get_layer("two"), SECOND), rel=5e-3)


@pytest.mark.parametrize("kind", NEEDED)
@pytest.mark.parametrize("struct", ["list", "dict", "arguments"])
def test_a_subclassed_network_is_exported_as_it_is_called(kind, struct, tmp_path):
    model, samples = subclassed(struct)
    upper = {row.point: row.hi for row in exported((model, samples), kind, tmp_path).rows}

    assert upper["one"] == pytest.approx(expected_upper(model.one, FIRST), rel=5e-3)
    assert upper["two"] == pytest.approx(expected_upper(model.two, SECOND), rel=5e-3)


@pytest.mark.parametrize("kind", NEEDED)
def test_a_subclassed_network_takes_whole_numbers_as_such(kind, tmp_path):
    model, samples = subclassed("ids")
    made = exported((model, samples), kind, tmp_path)
    table = np.asarray(model.table.weights[0])[IDS]
    upper = {row.point: row.hi for row in made.rows}

    assert upper["one"] == pytest.approx(expected_upper(model.one, table), rel=5e-3)


@pytest.mark.parametrize("kind", NEEDED)
def test_a_call_that_no_exporter_can_make_is_refused_in_a_sentence(kind, tmp_path):
    with pytest.raises(InputError, match=r"Keras cannot export .*: give a file that was exported"):
        exported(subclassed("flag"), kind, tmp_path)


@pytest.mark.parametrize("kind", NEEDED)
def test_what_was_in_memory_has_to_be_given_again(kind, tmp_path):
    skip_without_packages(kind)
    model, samples = functional("one")
    found = run(model, samples, output=str(tmp_path / "run"), settings=QUIET)

    for options, missing in (({}, "model"), ({"model": model}, "data")):
        with pytest.raises(InputError, match=f"in memory: give --{missing}"):
            found.exported(kind, options=options)


@pytest.mark.parametrize("kind", ["hls4ml", "nir"])
def test_targets_of_layers_refuse_a_subclassed_network(kind, tmp_path):
    if kind == "nir":
        pytest.importorskip("nir")
    model, samples = subclassed("dict")
    found = run(model, samples, output=str(tmp_path / "run"), settings=QUIET)
    with pytest.raises(InputError, match=r"subclassed|no normalised network") as refused:
        found.exported(kind, options={"model": model} if kind == "hls4ml" else {})
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("struct", ["list", "dict", "dict with other keys"])
def test_hls4ml_needs_no_inputs(struct, tmp_path):
    model, samples = functional(struct)
    found = run(model, samples, output=str(tmp_path / "run"), settings=QUIET)
    rows = found.exported("hls4ml", options={"model": model}).rows

    assert {row.point for row in rows} >= {"one", "two"}


@pytest.mark.parametrize("kind", ["csv", "tdigest", "toolbox", "toolbox-parsed", "tensorboard"])
def test_code_is_refused_where_none_is_loaded_before_anything_is_said(kind, small_run, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "tensorflow")  # then it is said that it is loaded
    command = ["export", str(small_run["run"].folder.path), "--format", kind, "--custom-objects", "layers.py"]
    done = CliRunner().invoke(commands, [*command, "--output", str(tmp_path)])

    assert isinstance(done.exception, InputError)
    assert str(done.exception) == f"--custom-objects is no option of {kind!r}: leave it out"
    assert "loading" not in done.output


def test_the_help_says_which_formats_load_code():
    words = " ".join(CliRunner().invoke(commands, ["export", "--help"]).output.split())

    assert "trust it. For onnxruntime, litert, hls4ml and nir." in words
    assert "that you trust. For onnxruntime, litert and hls4ml." in words
