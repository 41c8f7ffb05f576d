"""Both engines; every law must hold for each."""

from __future__ import annotations

import pytest

from actisketch.pipeline.sketch.compiled import NO_NUMBA


@pytest.fixture(params=["numba", "numpy"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Count with one engine for the whole test."""
    monkeypatch.setenv(NO_NUMBA, "1" if request.param == "numpy" else "0")
    return str(request.param)
