"""Networks, runs and a server that tests share. TensorFlow is imported by the fixtures that need it."""

import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from .warm import WarmPython

# How long an example takes is no question of its truth: CI's machine may be slow and busy.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
settings.load_profile("any machine")


@pytest.fixture(autouse=True)
def _own_layers_stay_registered():
    """Give Keras back the layers of one's own that a test forgot: those of other test files are among them."""
    keras = sys.modules.get("keras")
    before = {} if keras is None else dict(keras.saving.get_custom_objects())
    yield
    if before:
        keras.saving.get_custom_objects().update(before)


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
    folder = tmp_path_factory.mktemp("demo") / "run"
    command = [sys.executable, "-m", "actisketch.pipeline", "demo", "--output", str(folder)]
    # The environment as Python has it: readline, which pytest imports, adds the width of a terminal behind its back.
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=folder.parent, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture
def start_held() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a command line in a process of its own; return it when it has told of so many blocks, and waits."""
    with ExitStack() as stack:

        def start(n_blocks: int, *arguments: object, **options: Any) -> subprocess.Popen[str]:
            command = [sys.executable, str(Path(__file__).with_name("held.py")), str(n_blocks)]
            process = subprocess.Popen(
                [*command, *map(str, arguments)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                **options,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n", process.communicate()[1]
            return process

        yield start


@pytest.fixture(scope="session")
def warm_python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmPython]:
    """Processes of their own that need not load TensorFlow first."""
    python = WarmPython(tmp_path_factory.mktemp("warm"))
    yield python
    python.close()


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


# A real S3 server that answers over HTTP.
BUCKET = "activations"


class S3Server(NamedTuple):
    """A running server."""

    endpoint: str

    @property
    def options(self) -> dict[str, Any]:
        """What obstore needs to reach it."""
        return s3_options(self.endpoint)


def s3_options(endpoint: str) -> dict[str, Any]:
    """Return the storage options of a server without TLS."""
    return {
        "endpoint": endpoint,
        "access_key_id": "test",
        "secret_access_key": "test",
        "region": "us-east-1",
        "client_options": {"allow_http": True},
    }


# The server chooses a free port itself and says which: asking the system for one beforehand is a race.
_SERVER = """
import logging, sys, threading
logging.getLogger("werkzeug").setLevel("ERROR")
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """Run moto's S3 in a process of its own, with one bucket."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        server = S3Server(f"http://127.0.0.1:{int(process.stdout.readline())}")
        urllib.request.urlopen(urllib.request.Request(f"{server.endpoint}/{BUCKET}", method="PUT")).close()
        yield server
        process.stdin.close()
