"""Whether figures are wanted, how long a call and a disk take, and networks that are as if they were trained.

Without figures a benchmark shows only that it still runs: then it is one of the slow tests.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actisketch.storage import files


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("benchmark_enable"):
        for item in items:
            if item.path.is_relative_to(Path(__file__).parent):
                item.add_marker(pytest.mark.slow)


@pytest.fixture
def is_measured(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("benchmark_enable"))


def timed(action: Callable[[], object]) -> float:
    """Return seconds."""
    start_s = time.perf_counter()
    action()
    return time.perf_counter() - start_s


def disk_s(folder: Path, recorded: Path) -> tuple[float, float]:
    """Return the seconds that writing the files of a run or cache takes, and reading them, with nothing between."""
    sizes = [path.stat().st_size for path in recorded.rglob("*") if path.is_file()]
    memory = memoryview(mmap.mmap(-1, max(sizes) + mmap.PAGESIZE))
    memory[:] = np.random.default_rng(3).bytes(len(memory))
    folder.mkdir()

    def write() -> None:
        for i, size in enumerate(sizes):
            files.write_new(folder / str(i), [memory[:size]])
            files.sync(folder / str(i))

    def read() -> None:
        for i in range(len(sizes)):
            files.read_into(folder / str(i), memory)

    return timed(write), timed(read)


def as_trained(model: Any, images: Any) -> Any:
    """Give every BatchNormalization the statistics of a batch."""
    for layer in model._flatten_layers(include_self=False):
        if type(layer).__name__ == "BatchNormalization":
            layer.momentum = 0.0
    model(images, training=True)
    return model
