"""Fixed-point types of hls4ml: wide enough for the range, and not wider; by the names that hls4ml gives."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from actisketch.pipeline import run
from actisketch.pipeline.cli import commands
from actisketch.pipeline.exporters.as_hls4ml import integer_bits
from actisketch.storage.errors import InputError

from .conftest import QUIET


def holds(bits, lo, hi, width):
    """Whether fixed<width, bits> holds both, by the definition of ap_fixed."""
    step = 2.0 ** (bits - width)
    return -(2.0 ** (width - 1)) * step <= lo and hi <= (2.0 ** (width - 1) - 1) * step


@given(lo=st.floats(-1e9, 0), hi=st.floats(0, 1e9), width=st.integers(2, 40))
def test_the_bits_hold_the_range_and_one_less_does_not(lo, hi, width):
    if max(-lo, hi) < 1e-30:
        return
    bits = integer_bits(lo, hi, width=width)

    assert holds(bits, lo, hi, width)
    assert not holds(bits - 1, lo, hi, width)


@pytest.mark.parametrize(
    ("lo", "hi", "bits"),
    [(0, 1, 2), (-1, 0, 1), (0, 0.5, 1), (-4, 3.9, 3), (0, 4, 4), (0, 0.1, -2), (0, 0, 1)],
)
def test_the_bits_of_known_ranges(lo, hi, bits):
    assert integer_bits(lo, hi, width=16) == bits


def test_the_names_are_those_of_hls4ml_and_the_bits_hold_the_percentile(small_run, tmp_path):
    found, path = small_run["run"], tmp_path / "config.json"
    command = ["export", str(found.folder.path), "--format", "hls4ml", "--width", "12", "--output", str(path)]
    done = CliRunner().invoke(commands, command)
    config = json.loads(path.read_text())["LayerName"]

    assert done.exit_code == 0, (done.output, done.exception)
    # It splits the activation function off: conv computes, conv_relu has the result.
    assert list(config) == ["conv_relu", "hidden_relu", "classes_softmax"]
    for point, layer in zip(found.points, config, strict=True):
        hi = found.percentile(point, 99.9).hi
        kind = config[layer]["Precision"]["result"]
        bits = int(kind.removeprefix("fixed<12,").removesuffix(">"))
        assert holds(bits, 0, hi, 12)
        assert not holds(bits - 1, 0, hi, 12)
    assert "hidden_relu" in done.output


def test_own_activation_layers_linear_layers_and_nested_networks(tmp_path):
    import keras

    keras.utils.set_random_seed(7)
    inner = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(4, activation="relu", name="deep")], name="inner"
    )
    inputs = keras.Input((6,))
    x = keras.layers.ReLU(name="spike")(keras.layers.Dense(5, name="dense")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2, name="out")(inner(x)))
    samples = np.random.default_rng(2).normal(size=(40, 6)).astype(np.float32)
    found = run(model, samples, output=str(tmp_path / "r"), settings=QUIET)
    made = found.exported("hls4ml", options={"model": model})
    config = json.loads(made.content)["LayerName"]
    out = np.asarray(model(samples))

    assert set(config) == {"spike", "out"}
    assert made.warnings == ("hls4ml has no name for 'inner/deep': left out",)
    (row,) = (row for row in made.rows if row.tensor == "out")
    # Between two values far apart, the ends of the interval are these.
    lowest, highest = np.percentile(out, 0.1, method="lower"), np.percentile(out, 99.9, method="higher")
    assert lowest - 1e-3 * abs(lowest) <= row.lo <= np.percentile(out, 0.1)
    assert np.percentile(out, 99.9) <= row.hi <= highest + 1e-3 * abs(highest)


def test_recurrent_layers_keep_their_names_and_layers_as_functions_have_none(tmp_path):
    import keras
    from keras import layers

    # hls4ml makes one layer of a recurrent one, and refuses an activation that is no function.
    model = keras.Sequential(
        [
            keras.Input((3, 2)),
            layers.LSTM(4, name="memory"),
            layers.Dense(3, activation=layers.LeakyReLU(), name="leaky"),
            layers.Dense(2, activation="tanh", name="out"),
        ]
    )
    samples = np.random.default_rng(2).normal(size=(40, 3, 2)).astype(np.float32)
    found = run(model, samples, output=str(tmp_path / "r"), settings=QUIET)
    made = found.exported("hls4ml", options={"model": model})

    assert list(json.loads(made.content)["LayerName"]) == ["memory", "out_tanh"]
    assert made.warnings == ("hls4ml has no name for 'leaky': left out",)


@pytest.mark.parametrize("width", ["1", "65"])
def test_an_impossible_width_is_refused(small_run, width, tmp_path):
    command = ["export", str(small_run["run"].folder.path), "--format", "hls4ml", "--width", width]
    done = CliRunner().invoke(commands, [*command, "--output", str(tmp_path / "c.json")])

    assert isinstance(done.exception, InputError)
    assert list(tmp_path.iterdir()) == []
