"""Networks and runs that several folders of tests share. TensorFlow is imported by the fixtures that need it."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest


@pytest.fixture(scope="session")
def demo_files():
    """Paths of the shipped network and digits."""
    from importlib.resources import files

    folder = files("actisketch.pipeline.demo")
    return {"model": str(folder / "digits.keras"), "data": str(folder / "digits.npz")}


@pytest.fixture(scope="session")
def digits(demo_files):
    """Inputs as the network takes them, float32 of shape (1797, 8, 8, 1), and labels."""
    with np.load(demo_files["data"]) as archive:
        return archive["x"].astype(np.float32) / 16, archive["y"]


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory):
    """A finished demo: its folder, and what it printed. Read it, do not change it."""
    import subprocess
    import sys

    folder = tmp_path_factory.mktemp("demo") / "run"
    command = [sys.executable, "-m", "actisketch.pipeline", "demo", "--output", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder.parent)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def make_small_model(keras):
    keras.utils.set_random_seed(5)
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, activation="relu", name="first"),
            keras.layers.Dense(7, activation="relu", name="second"),
            keras.layers.Dense(3, activation="softmax", name="classes"),
        ],
        name="small",
    )


def make_small_data():
    return np.random.default_rng(5).random((53, 6), dtype=np.float32)


@pytest.fixture
def small_model():
    """An untrained chain: 6 inputs, two Dense layers and a softmax."""
    import keras

    return make_small_model(keras)


@pytest.fixture
def small_data():
    """53 samples for the small model, float32 of shape (53, 6)."""
    return make_small_data()


@pytest.fixture(scope="session")
def small_parts():
    """What makes the small model and its data, for fixtures of a longer scope."""
    return make_small_model, make_small_data
