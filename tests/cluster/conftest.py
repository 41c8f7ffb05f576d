"""Clusters of real processes, and what every test of them needs."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from actisketch.pipeline.cluster.rehearsal import RehearsalRecipe, rehearsal_spec
from actisketch.pipeline.record.recorder import record_missing
from actisketch.pipeline.sketch import SketchSpec
from actisketch.storage import Cache

from ..on_disk import IN_WORK, contents

SKETCH = SketchSpec()
N_BLOCKS, BLOCK = 23, 16
HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
faulty_module: Any = importlib.import_module("faulty")


@pytest.fixture(scope="session", autouse=True)
def _workers_find_the_faulty_producers() -> Iterator[None]:
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), *([before] if before else [])])
    yield
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


@pytest.fixture
def faulty() -> Any:
    """The module with the producers that go wrong."""
    return faulty_module


# Of a module and not of the session: a client that lives on is everybody's default, and arrays of other tests would
# be computed on it.
@pytest.fixture(scope="module")
def shared_client() -> Iterator[Any]:
    """Two local workers for the tests of a module that leave them as they were."""
    from actisketch.pipeline.cluster import connected

    with connected(workers=2) as client:
        yield client


@pytest.fixture(scope="module")
def threads_client() -> Iterator[Any]:
    """A worker in this process: TensorFlow is here already."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=1, threads_per_worker=3, processes=False, dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


class Cluster:
    """A scheduler and workers started by hand from the command line, in a working directory of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "scheduler.json"
        self._stack = ExitStack()
        self.scheduler = self._start("scheduler", "--scheduler-file", str(self.file), "--port", "0")
        while not self.file.exists():
            assert self.scheduler.poll() is None, (folder / "scheduler.log").read_text()
            time.sleep(0.05)
        self.workers: list[subprocess.Popen[bytes]] = []

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        log = self._stack.enter_context((self.folder / f"{arguments[0]}.log").open("ab"))
        dashboard = ["--no-dashboard"] if arguments[0] == "worker" else ["--dashboard-address", "127.0.0.1:0"]
        process = subprocess.Popen(
            [str(Path(sys.executable).parent / "dask"), *arguments, *dashboard],
            cwd=self.folder,
            stdout=log,
            stderr=log,
        )
        self._stack.callback(_end, process)
        return process

    def add_worker(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a worker process without a nanny: what kills it kills it for good."""
        flags = ("--scheduler-file", str(self.file), "--no-nanny", "--nthreads", "1", *arguments)
        self.workers.append(self._start("worker", *flags))
        return self.workers[-1]

    def close(self) -> None:
        self._stack.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait()


@pytest.fixture
def start_cluster() -> Iterator[Callable[[int], Cluster]]:
    """Start a scheduler and so many workers by hand."""
    folder = Path(tempfile.mkdtemp(prefix="dask-by-hand-"))
    started: list[Cluster] = []

    def start(n_workers: int) -> Cluster:
        cluster = Cluster(folder)
        started.append(cluster)
        for _ in range(n_workers):
            cluster.add_worker()
        return cluster

    yield start
    for cluster in started:
        cluster.close()
    shutil.rmtree(folder, ignore_errors=True)


def new_cache(path: Path, recipe: RehearsalRecipe | None = None, n_blocks: int = N_BLOCKS) -> Cache:
    spec = rehearsal_spec(recipe or RehearsalRecipe(), n_blocks=n_blocks, block_samples=BLOCK)
    return Cache.create_or_resume(path, spec)


@pytest.fixture
def in_process(tmp_path: Path) -> dict[str, bytes]:
    """The bytes that a run in this process writes."""
    with new_cache(tmp_path / "in-process") as cache:
        record_missing(cache, RehearsalRecipe(), sketch=SKETCH)
    return contents(tmp_path / "in-process", without=IN_WORK)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "computed").mkdir()
    return tmp_path / "computed"


@pytest.fixture(scope="module")
def model() -> Any:
    """A convolution, and a softmax of three classes, for images of 6 x 6."""
    import keras

    keras.utils.set_random_seed(4)
    inputs = keras.Input((6, 6, 1), name="image")
    x = keras.layers.Conv2D(5, 3, activation="relu", name="conv")(inputs)
    x = keras.layers.Flatten()(x)
    return keras.Model(inputs, keras.layers.Dense(3, activation="softmax", name="classes")(x))
