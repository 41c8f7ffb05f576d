"""``normalized.keras`` follows from the network and its factors alone: not from the day, nor from the process."""

import json
import subprocess
import sys
import time
import zipfile

import keras
import numpy as np
import pytest

from actisketch.pipeline import run
from actisketch.pipeline.record.model import load_network, save_network

SCRIPT = """
import sys
import keras, numpy as np
from actisketch.pipeline import run
for _ in range(int(sys.argv[2])):  # so that addresses differ
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, name="d")])
keras.utils.set_random_seed(5)
same = keras.initializers.GlorotUniform(seed=3)
inputs = keras.Input((6, 6, 3), name="im")
x = keras.layers.Conv2D(4, 3, kernel_initializer=same, name="c1")(inputs)
x = keras.layers.BatchNormalization(name="bn")(x)
x = keras.layers.ReLU(name="r")(x)
x = keras.layers.Flatten(name="f")(x)
x = keras.layers.Dense(5, activation="relu", kernel_initializer=same, name="h")(x)
outputs = keras.layers.Dense(3, activation="softmax", name="d")(x)
x = np.random.default_rng(0).random((20, 6, 6, 3), dtype=np.float32)
run(keras.Model(inputs, outputs, name="n"), x, output="r", settings={"report": {"enabled": False}})
"""


@pytest.mark.slow
def test_two_processes_at_two_times_write_the_same_bytes(tmp_path):
    found = []
    for i in (0, 7):
        (tmp_path / str(i)).mkdir()
        command = [sys.executable, "-c", SCRIPT, "r", str(i)]
        subprocess.run(command, cwd=tmp_path / str(i), check=True, capture_output=True)
        folder = tmp_path / str(i) / "r"
        found.append(
            [(folder / name).read_bytes() for name in ("normalized.keras", "run.json", "certificate.json")]
        )

    assert found[0] == found[1]


def shared_everything():
    """Objects that several layers share, which Keras tells by their addresses in memory."""
    keras.utils.set_random_seed(5)
    one = keras.regularizers.L2(0.01)
    inputs = keras.Input((4,), name="i")
    x = keras.layers.Dense(5, activation="relu", kernel_regularizer=one, bias_regularizer=one, name="a")(
        inputs
    )
    x = keras.layers.Dense(3, kernel_regularizer=one, name="b")(x)
    return keras.Model(inputs, x, name="m")


def with_assets():
    keras.utils.set_random_seed(5)
    lookup = keras.layers.IntegerLookup(vocabulary=[3, 1, 7], name="lookup")
    words = keras.layers.StringLookup(vocabulary=["a", "b"], name="words")
    numbers, texts = keras.Input((2,), dtype="int64", name="n"), keras.Input((2,), dtype="string", name="t")
    return keras.Model([numbers, texts], [lookup(numbers), words(texts)], name="m")


def with_seeds():
    keras.utils.set_random_seed(5)
    inputs = keras.Input((4, 2), name="i")
    x = keras.layers.Dropout(0.5, seed=2, name="o")(inputs)
    return keras.Model(inputs, keras.layers.LSTM(3, name="l")(x), name="m")


@pytest.mark.parametrize("build", [shared_everything, with_assets, with_seeds])
def test_a_network_built_twice_is_saved_to_the_same_bytes_and_loads(build, tmp_path):
    kept = [build(), [object() for _ in range(1000)]]
    save_network(kept[0], tmp_path / "1.keras")
    time.sleep(2.1)  # a zip's dates have two seconds' resolution
    again = build()
    save_network(again, tmp_path / "2.keras")
    loaded = load_network(tmp_path / "1.keras")

    assert (tmp_path / "1.keras").read_bytes() == (tmp_path / "2.keras").read_bytes()
    for mine, theirs in zip(again.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy())
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in again.layers]


def test_no_date_is_left_in_the_archive(small_model, tmp_path):
    save_network(small_model, tmp_path / "n.keras")
    with zipfile.ZipFile(tmp_path / "n.keras") as archive:
        dates = {member.date_time for member in archive.infolist()}
        saved = json.loads(archive.read("metadata.json"))

    assert dates == {(1980, 1, 1, 0, 0, 0)}
    assert saved == {"keras_version": keras.__version__, "date_saved": "1980-01-01@00:00:00"}


def test_made_again_the_network_has_the_digest_that_the_run_noted(small_model, small_data, tmp_path):
    first = run(small_model, small_data, output=tmp_path / "r", settings={"report": {"enabled": False}})
    noted = first.folder.manifest()["stages"]["normalize"]
    first.folder.network_path.unlink()
    time.sleep(2.1)
    again = run(small_model, small_data, output=tmp_path / "r", settings={"report": {"enabled": False}})

    assert again.folder.manifest()["stages"]["normalize"] == noted
