"""Values that hurt quantile sketches, and arrays of arbitrary float32 for hypothesis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

Values = NDArray[np.float32]

N = 60_000
"""More than are sorted at once, so that the compiled loops run."""

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
few_values = arrays(np.float32, st.integers(0, 60), elements=finite)
ties = arrays(
    np.float32, st.integers(1, 60), elements=st.sampled_from([0.0, -0.0, 0.3, 0.3000001, -0.3, 1e-45, 6.0])
)
"""Few different values, many times each, some in one bucket."""
percents = st.one_of(st.floats(0, 100), st.sampled_from([0.0, 0.1, 50.0, 99.0, 99.9, 100.0]))


def make(name: str) -> Values:
    """Return the values of a distribution by name, always the same."""
    rng = np.random.default_rng(20)
    normal = rng.standard_normal(N)
    made: dict[str, Callable[[], NDArray[Any]]] = {
        "bimodal with a gap of 1e5": lambda: np.where(rng.random(N) < 0.5, normal, 1e5 + normal),
        "sorted": lambda: np.sort(normal),
        "one outlier of 1e4 first": lambda: np.concatenate(([1e4], np.abs(normal[1:]))),
        "an all-zero first block": lambda: np.concatenate((np.zeros(N // 2), np.abs(normal[: N // 2]))),
        "a first block of 1e-5": lambda: np.concatenate((np.full(N // 2, 1e-5), np.abs(normal[: N // 2]))),
        "constant": lambda: np.full(N, 0.3),
        "quantised": lambda: rng.integers(-20, 20, N) * 0.0235,
        "heavy tail": lambda: rng.standard_cauchy(N),
        "rectified": lambda: np.maximum(normal, 0),
        "negative": lambda: -np.abs(normal),
        "denormal": lambda: normal * 1e-42,
        "huge": lambda: np.clip(normal, -3, 3) * 1e38,
        "narrow": lambda: 1 + normal * 1e-6,
        "any pattern": lambda: _finite_patterns(rng),
        "zeros": lambda: np.where(normal > 0, 0.0, -0.0),
        "one value": lambda: np.array([1.5]),
    }
    values: NDArray[Any] = made[name]()
    return values.astype(np.float32)


NAMES = (
    "bimodal with a gap of 1e5",
    "sorted",
    "one outlier of 1e4 first",
    "an all-zero first block",
    "a first block of 1e-5",
    "constant",
    "quantised",
    "heavy tail",
    "rectified",
    "negative",
    "denormal",
    "huge",
    "narrow",
    "any pattern",
    "zeros",
    "one value",
)


def _finite_patterns(rng: np.random.Generator) -> Values:
    values = rng.integers(0, 2**32, N, dtype=np.uint32).view(np.float32)
    return np.where(np.isfinite(values), values, np.float32(1))
