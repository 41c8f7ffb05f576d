"""The bars of a figure are the counts of the sketch, none lost and none invented."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from actisketch.pipeline.report.histogram import histogram, share_above, split_counts
from actisketch.pipeline.sketch import Sketch


def sketch_of(values: NDArray[np.float32]) -> Sketch:
    sketch = Sketch()
    sketch.update(values)
    return sketch


floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
values_lists = arrays(np.float32, st.integers(0, 200), elements=floats)


@settings(max_examples=150)
@given(values_lists, st.sampled_from([1.0, 0.37, 53.0]), st.booleans())
@example(np.zeros(0, np.float32), 1.0, False)
@example(np.zeros(7, np.float32), 1.0, False)
@example(np.full(5, -2.5, np.float32), 1.0, False)
@example(np.array([0, 2.5, 2.5], np.float32), 1.0, True)
@example(np.array([1e-45, 3e38], np.float32), 1.0, False)
@example(np.array([-3e38, 1e-45, 3e38], np.float32), 1.0, False)
def test_bars_zeros_and_what_is_below_the_axis_add_up_to_all_values(
    values: NDArray[np.float32], divisor: float, is_log: bool
) -> None:
    bars = histogram(sketch_of(values), divisor=divisor, is_log=is_log)

    assert bars.counts.sum() + bars.n_below + bars.n_zeros == pytest.approx(len(values), abs=1e-6)
    assert (bars.counts >= 0).all()
    assert (np.diff(bars.edges) > 0).all()
    assert np.isfinite(bars.edges).all()


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        (np.random.default_rng(1).exponential(1.0, 5000), "linear"),
        (np.random.default_rng(2).normal(0.0, 1.0, 5000), "linear"),
        (np.random.default_rng(3).lognormal(0.0, 3.0, 5000), "log"),
        (np.random.default_rng(4).standard_cauchy(5000), "symlog"),
        (-np.random.default_rng(5).exponential(1.0, 5000), "linear"),
    ],
)
def test_bars_agree_with_numpy_up_to_the_buckets_across_their_edges(
    values: NDArray[np.float64], scale: str
) -> None:
    sketch = sketch_of(values.astype(np.float32))
    bars = histogram(sketch)
    expected, _ = np.histogram(values[values != 0].astype(np.float32).astype(np.float64), bins=bars.edges)
    lower, upper, counts = sketch.buckets(nonzero=True)
    # A bar may be off by the buckets that lie across one of its two edges.
    across = [
        sum(counts[(lower <= edge) & (upper >= edge)].sum() for edge in pair)
        for pair in zip(bars.edges[:-1], bars.edges[1:], strict=True)
    ]

    assert bars.scale == scale
    assert (np.abs(bars.counts - expected) <= np.array(across) + 1e-6).all()


def test_zeros_are_kept_out_of_the_bars_and_counted_exactly() -> None:
    values = np.concatenate([np.zeros(13), -np.zeros(4), np.full(7, 2.0)]).astype(np.float32)

    bars = histogram(sketch_of(values))

    assert bars.n_zeros == 17
    assert bars.counts.sum() == pytest.approx(7)
    assert bars.n == 24


def test_a_divisor_rescales_the_axis_and_keeps_the_counts() -> None:
    sketch = sketch_of(np.random.default_rng(7).exponential(1.0, 3000).astype(np.float32))

    plain, divided = histogram(sketch), histogram(sketch, divisor=4.0)

    np.testing.assert_allclose(divided.edges * 4.0, plain.edges)
    np.testing.assert_allclose(divided.counts, plain.counts)


def test_what_is_too_small_for_a_log_axis_is_counted_as_below() -> None:
    values = np.array([1e-20] * 3 + [1e-3] * 500 + [1.0] * 11, np.float32)

    bars = histogram(sketch_of(values))

    assert bars.scale == "log"
    assert bars.n_below == pytest.approx(3, abs=1e-6)


@settings(max_examples=60)
@given(st.lists(st.integers(1, 1000), min_size=1, max_size=20), st.integers(1, 30))
def test_splitting_counts_conserves_them_between_outer_edges(counts: list[int], n_bars: int) -> None:
    lower = np.arange(len(counts), dtype=np.float64) * 1.5
    edges = np.linspace(-1.0, lower[-1] + 2.0, n_bars + 1)

    bars = split_counts(lower, lower + 1.0, np.array(counts), edges)

    assert bars.sum() == pytest.approx(sum(counts))


@settings(max_examples=60)
@given(
    arrays(
        np.float32,
        st.integers(1, 200),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False),
    )
)
def test_the_share_above_a_bucket_edge_is_exact(values: NDArray[np.float32]) -> None:
    places, shares = share_above(sketch_of(values))

    expected = [(values.astype(np.float64) >= place).mean() for place in places]
    np.testing.assert_allclose(shares, expected, atol=1e-12)


def test_a_logarithmic_axis_can_be_asked_for():
    sketch = sketch_of(np.linspace(1.0, 3.0, 997, dtype=np.float32))

    assert histogram(sketch).scale == "linear"
    assert histogram(sketch, is_log=True).scale == "log"
    assert histogram(sketch, is_log=True, n_bars=7).counts.sum() == pytest.approx(997)
    assert histogram(sketch_of(-np.linspace(1.0, 3.0, 97, dtype=np.float32)), is_log=True).scale == "linear"
