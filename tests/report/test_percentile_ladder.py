"""What another percentile would do to a layer, against NumPy on the values themselves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from actisketch.pipeline.report.percentile_ladder import LADDER, ladder
from actisketch.pipeline.sketch import Sketch


def sketch_of(values: NDArray[np.float32]) -> Sketch:
    sketch = Sketch()
    sketch.update(values)
    return sketch


# Sums of eighths: many values are equal, and none is rounded.
few = st.integers(-40, 40).map(lambda n: n / 8)
any_float = st.floats(-1e6, 1e6, width=32)


@settings(max_examples=200)
@given(arrays(np.float32, st.integers(1, 120), elements=few | any_float), st.booleans())
@example(np.array([0, 0, 0, 0, 1, 1, 2, 6, 6, 6], np.float32), True)
@example(np.zeros(7, np.float32), True)
def test_a_rung_contains_the_percentile_and_counts_what_is_above(
    values: NDArray[np.float32], nonzero: bool
) -> None:
    rungs = list(ladder(sketch_of(values), nonzero=nonzero))

    chosen = values[values != 0] if nonzero and (values != 0).any() else values
    assert [rung.q for rung in rungs] == list(LADDER)
    for rung in rungs:
        exact = np.percentile(chosen.astype(np.float64), rung.q)
        assert rung.percentile.lo <= exact * (1 + 1e-12 * np.sign(exact)) + 1e-30
        assert exact * (1 - 1e-12 * np.sign(exact)) - 1e-30 <= rung.percentile.hi
        # Not more than are above the interval's lower end, and not fewer than are above its upper one.
        assert (values > rung.percentile.hi).mean() <= rung.saturation + 1e-12
        assert rung.saturation <= (values > rung.percentile.lo).mean() + 1e-12


@pytest.mark.parametrize("nonzero", [True, False])
def test_of_different_values_the_share_above_is_exact(nonzero: bool) -> None:
    values = np.maximum(np.random.default_rng(7).normal(size=100_003), 0).astype(np.float32)

    rungs = list(ladder(sketch_of(values), nonzero=nonzero, more=97.0))

    chosen = values[values != 0] if nonzero else values
    assert [rung.q for rung in rungs] == [97.0, *LADDER]
    for rung in rungs:
        # In float64: in float32 the percentile would be rounded onto a value.
        exact = np.percentile(chosen.astype(np.float64), rung.q)
        assert rung.saturation == (values > exact).mean()


def test_without_values_there_is_no_ladder() -> None:
    assert list(ladder(Sketch(), nonzero=True)) == []
