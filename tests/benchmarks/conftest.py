"""Whether figures are wanted, and how long a call takes."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest


@pytest.fixture
def is_measured(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("benchmark_enable"))


def timed(action: Callable[[], object]) -> float:
    """Return seconds."""
    start_s = time.perf_counter()
    action()
    return time.perf_counter() - start_s
