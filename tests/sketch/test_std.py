"""The standard deviation is NumPy's within 1 %, or it is not told."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from actisketch.pipeline.sketch import ChannelSketch, Sketch

from .distributions import NAMES, make


def std_of(values: np.ndarray, bits: int = 20) -> float:
    sketch = Sketch(bits=bits)
    sketch.update(values.astype(np.float32))
    return sketch.std


@pytest.mark.parametrize("bits", [12, 16, 20])
@pytest.mark.parametrize("name", NAMES)
def test_of_any_distribution(name: str, bits: int) -> None:
    values = make(name)
    told = std_of(values, bits)

    if not np.isnan(told):
        assert told == pytest.approx(np.std(values.astype(np.float64)), rel=0.0101)
    if bits == 20:
        # Both of values that lie closer together than buckets are wide.
        assert np.isnan(told) == (name in {"denormal", "narrow"})


@pytest.mark.parametrize("bits", [12, 16, 20])
@pytest.mark.parametrize(
    ("centre", "width"), [(293.15, 0.05), (100, 0.01), (1e4, 1.0), (10, 0.1), (3, 0.1), (-50, 0.5)]
)
def test_of_values_far_from_zero_it_is_right_or_not_told(centre: float, width: float, bits: int) -> None:
    values = np.random.default_rng(3).normal(centre, width, 4000).astype(np.float32)
    told = std_of(values, bits)

    assert np.isnan(told) or told == pytest.approx(np.std(values.astype(np.float64)), rel=0.0101)


def test_of_atoms_it_is_exact() -> None:
    values = np.array([0.7] * 999 + [0.75], np.float32)

    assert std_of(values) == pytest.approx(np.std(values.astype(np.float64)), rel=1e-6)
    assert std_of(np.full(50, 293.15)) == 0
    assert np.isnan(Sketch().std)


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=60), st.sampled_from([12, 16, 20]))
def test_of_any_values(values: list[float], bits: int) -> None:
    array = np.array(values, np.float32)
    told, true = std_of(array, bits), float(np.std(array.astype(np.float64)))

    assert np.isnan(told) or told == pytest.approx(true, rel=0.0101, abs=1e-12)


def exact_variance(values: np.ndarray) -> Fraction:
    """Of float32 numbers, without any rounding."""
    numbers = [Fraction(float(value)) for value in values]
    mean = sum(numbers, Fraction()) / len(numbers)
    return sum(((number - mean) ** 2 for number in numbers), Fraction()) / len(numbers)


@given(
    st.lists(
        st.one_of(
            st.floats(-1e6, 1e6, width=32),
            st.floats(293.125, 293.25, width=32),
            st.floats(width=32, allow_nan=False, allow_infinity=False),
            st.just(0.0),
        ),
        min_size=1,
        max_size=60,
    ),
    st.sampled_from([12, 16, 20]),
)
def test_its_bounds_contain_the_exact_one_also_where_it_is_not_told(values: list[float], bits: int) -> None:
    array, sketch = np.array(values, np.float32), Sketch(bits=bits)
    sketch.update(array)
    lo, hi = sketch.std_bounds

    assert Fraction(lo) ** 2 <= exact_variance(array) <= Fraction(hi) ** 2
    assert np.isnan(sketch.std) or lo <= sketch.std <= hi


@given(
    hnp.arrays(
        np.float32, st.tuples(st.integers(1, 20), st.integers(1, 4)), elements=st.floats(-9, 9, width=32)
    ),
    st.sampled_from([12, 16]),
)
def test_channels_have_that_of_a_sketch_of_their_own(values: np.ndarray, bits: int) -> None:
    channels = ChannelSketch(values.shape[1], bits)
    channels.update(values)
    alone = []
    for column in values.T:
        alone.append(Sketch(bits=bits))
        alone[-1].update(np.ascontiguousarray(column))

    assert np.array_equal(channels.std, [sketch.std for sketch in alone], equal_nan=True)
    assert np.array_equal(np.transpose(channels.std_bounds), [sketch.std_bounds for sketch in alone])


def test_channels_without_values_have_none() -> None:
    empty = ChannelSketch(2)

    assert np.isnan([*empty.std, *np.ravel(empty.std_bounds), *Sketch().std_bounds]).all()
