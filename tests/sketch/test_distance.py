"""The Kolmogorov-Smirnov distance of two sketches, against NumPy on the plain values."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from actisketch.pipeline.sketch import Sketch, distance_between

VALUES = arrays(
    np.float32,
    st.integers(1, 40),
    elements=st.one_of(st.sampled_from([0.0, 1.0, 1.0009765625, -2.0, 3.0]), st.floats(-1e3, 1e3, width=32)),
)


def sketch_of(values, bits=20):
    sketch = Sketch(bits)
    sketch.update(np.asarray(values, np.float32))
    return sketch


def exact(a, b):
    """The largest difference of the empirical distribution functions, which change at the values only."""
    places = np.concatenate([a, b])
    shares = [np.searchsorted(np.sort(x), places, side="right") / x.size for x in (a, b)]
    return np.abs(shares[0] - shares[1]).max()


@given(VALUES, VALUES, st.sampled_from([12, 16, 20]), st.sampled_from([12, 20]))
def test_the_bounds_contain_the_distance_of_the_values(a, b, bits, other_bits):
    found = distance_between(sketch_of(a, bits), sketch_of(b, other_bits))

    assert found.lo - 1e-12 <= exact(a, b) <= found.hi + 1e-12
    assert found.value == found.lo


@given(VALUES, VALUES)
def test_the_distance_is_the_same_in_both_directions(a, b):
    first, second = sketch_of(a), sketch_of(b)

    assert distance_between(first, second) == distance_between(second, first)


def test_the_bounds_are_close_for_activations():
    rng = np.random.default_rng(3)
    a = np.maximum(rng.normal(0.0, 1.0, 20_000), 0).astype(np.float32)
    b = np.maximum(rng.normal(0.1, 1.3, 20_000), 0).astype(np.float32)
    found = distance_between(sketch_of(a), sketch_of(b))
    without_zeros = distance_between(sketch_of(a), sketch_of(b), nonzero=True)

    assert found.hi - found.lo < 2e-3
    assert without_zeros.lo <= exact(a[a != 0], b[b != 0]) <= without_zeros.hi
    assert abs(without_zeros.lo - found.lo) > 0.01


def test_a_sketch_is_at_distance_zero_from_itself_as_far_as_buckets_can_tell():
    values = np.random.default_rng(7).normal(size=997).astype(np.float32)
    found = distance_between(sketch_of(values), sketch_of(values))

    assert found.lo == 0.0
    assert found.hi < 0.02


def test_values_apart_are_at_distance_one():
    assert distance_between(sketch_of([1, 2, 3]), sketch_of([4, 5])).value == 1.0


def test_there_is_no_distance_from_nothing():
    assert np.isnan(distance_between(sketch_of([0.0]), sketch_of([1.0]), nonzero=True).value)
