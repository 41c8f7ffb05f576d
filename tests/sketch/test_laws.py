"""Equal values give equal bytes, however they came; intervals contain the truth."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actisketch.pipeline.sketch import ChannelSketch, PointSketch, Sketch, SketchSpec, merge_sketches

from .distributions import NAMES, Values, few_values, make, percents, ties

pytestmark = pytest.mark.usefixtures("engine")


def sketch_of(*parts: Values, bits: int = 20) -> Sketch:
    sketch = Sketch(bits)
    for part in parts:
        sketch.update(part)
    return sketch


def point_of(samples: Values) -> PointSketch:
    point = PointSketch.empty(SketchSpec(per_channel=True), samples.shape[-1])
    point.update(samples)
    return point


class TestMerging:
    @given(one=few_values, other=few_values)
    @settings(max_examples=40)
    def test_is_commutative_to_the_bit(self, one: Values, other: Values) -> None:
        a, b = sketch_of(one), sketch_of(other)

        assert a.merge(b).to_bytes() == b.merge(a).to_bytes()

    @given(parts=st.tuples(ties, ties, ties))
    @settings(max_examples=40)
    def test_is_associative_to_the_bit(self, parts: tuple[Values, Values, Values]) -> None:
        a, b, c = (sketch_of(part) for part in parts)

        assert a.merge(b).merge(c).to_bytes() == a.merge(b.merge(c)).to_bytes()

    @given(values=st.one_of(few_values, ties), cuts=st.lists(st.integers(0, 60), max_size=4))
    @settings(max_examples=60)
    def test_any_split_gives_the_bytes_of_the_whole(self, values: Values, cuts: list[int]) -> None:
        parts = np.split(values, sorted(cuts))

        assert sketch_of(*parts[::-1]).to_bytes() == sketch_of(values).to_bytes()

    def test_changes_neither_of_its_arguments(self) -> None:
        a, b = sketch_of(make("rectified")), sketch_of(make("negative"))
        before = a.to_bytes(), b.to_bytes()
        a.merge(b)

        assert (a.to_bytes(), b.to_bytes()) == before

    @pytest.mark.parametrize("name", NAMES)
    def test_a_shuffle_in_seven_parts_gives_the_bytes_of_the_whole(self, name: str) -> None:
        values = make(name)
        shuffled = np.random.default_rng(7).permutation(values)

        assert sketch_of(*np.array_split(shuffled, 7)).to_bytes() == sketch_of(values).to_bytes()

    def test_of_a_thousand_point_sketches_is_the_sketch_of_all(self) -> None:
        samples = make("rectified")[:36_000].reshape(1000, 2, 3, 6)
        points = [point_of(samples[i : i + 1]) for i in range(1000)]

        assert merge_sketches(points[::-1]) == point_of(samples)
        assert merge_sketches(iter(points)).to_bytes() == point_of(samples).to_bytes()

    def test_by_doubling_counts_two_to_the_forty_values(self) -> None:
        values = np.array([-2.0, 0.0, 0.3, 0.3, 1.0, 1.0001, 5.0, 0.0], np.float32)
        sketch = sketch_of(values)
        for _ in range(37):
            sketch = sketch.merge(sketch)
        exact = sum((Fraction(float(value)) for value in values), Fraction()) * 2**37

        assert sketch.n == 2**40
        assert sketch.n_zeros == 2**38
        assert sketch.sum == float(exact)
        assert sketch.percentile(100) == sketch_of(values).percentile(100)
        assert Sketch.from_bytes(sketch.to_bytes()) == sketch


def contains_the_truth(sketch: Sketch, values: Values, q: float, *, nonzero: bool) -> None:
    chosen = np.sort(values[values != 0] if nonzero else values)
    found = sketch.percentile(q, nonzero)
    if not chosen.size:
        assert math.isnan(found.value)
        return
    virtual = (chosen.size - 1) * (q / 100)
    lower = float(chosen[min(math.floor(virtual), chosen.size - 1)])
    upper = float(chosen[min(math.ceil(virtual), chosen.size - 1)])
    assert found.lo <= lower <= upper <= found.hi
    assert found.lo <= found.value <= found.hi


class TestIntervals:
    @given(
        values=st.one_of(few_values, ties),
        q=percents,
        nonzero=st.booleans(),
        bits=st.sampled_from([12, 16, 20]),
    )
    @settings(max_examples=150)
    def test_contain_the_order_statistics(self, values: Values, q: float, nonzero: bool, bits: int) -> None:
        contains_the_truth(sketch_of(values, bits=bits), values, q, nonzero=nonzero)

    @pytest.mark.parametrize("name", NAMES)
    def test_contain_the_truth_of_hard_distributions(self, name: str) -> None:
        values = make(name)
        for bits in (12, 20):
            sketch = sketch_of(values, bits=bits)
            for q in (0, 0.01, 1, 25, 50, 75.5, 90, 99, 99.9, 99.99, 100):
                for nonzero in (False, True):
                    contains_the_truth(sketch, values, q, nonzero=nonzero)

    @pytest.mark.parametrize("name", ["rectified", "heavy tail", "sorted", "one outlier of 1e4 first"])
    @pytest.mark.parametrize(("bits", "width"), [(20, 2.0**-11), (16, 2.0**-7)])
    def test_are_as_narrow_as_the_resolution_says(self, name: str, bits: int, width: float) -> None:
        values = make(name)
        chosen, sketch = np.sort(values[values != 0]), sketch_of(values, bits=bits)
        for rank in range(0, chosen.size, 997):
            # Just at a rank, so that one order statistic is meant and no gap between two.
            found = sketch.percentile(100 * rank / (chosen.size - 1), nonzero=True)
            gap = float(chosen[min(rank + 1, chosen.size - 1)] - chosen[max(rank - 1, 0)])

            assert found.width <= width * max(abs(found.lo), abs(found.hi)) + gap

    @pytest.mark.parametrize("name", ["constant", "quantised", "zeros", "one value"])
    def test_are_points_where_buckets_hold_one_number(self, name: str) -> None:
        values = make(name)
        sketch = sketch_of(values)
        chosen = np.sort(values)
        for q in (0, 10, 50, 99.9, 100):
            lower = chosen[math.floor((chosen.size - 1) * (q / 100))]
            upper = chosen[math.ceil((chosen.size - 1) * (q / 100))]

            assert (sketch.percentile(q).lo, sketch.percentile(q).hi) == (lower, upper)

    @given(values=few_values.filter(len))
    @settings(max_examples=40)
    def test_are_points_at_the_extremes(self, values: Values) -> None:
        sketch = sketch_of(values)

        assert sketch.percentile(0).lo == sketch.percentile(0).hi == sketch.minimum == values.min()
        assert sketch.percentile(100).lo == sketch.percentile(100).hi == sketch.maximum == values.max()

    def test_of_channels_are_those_of_each_channel_alone(self) -> None:
        values = make("heavy tail")[:59_990].reshape(-1, 2, 5)
        sketch = ChannelSketch(2)
        sketch.update(values, channel_axis=1)
        for q in (0, 33.3, 99.9, 100):
            value, lo, hi = sketch.percentile(q)
            for channel in range(2):
                found = sketch.channel(channel).percentile(q)

                assert (found.value, found.lo, found.hi) == (value[channel], lo[channel], hi[channel])
                contains_the_truth(sketch.channel(channel), values[:, channel].ravel(), q, nonzero=False)


class TestMoments:
    @given(values=st.one_of(few_values, ties))
    @settings(max_examples=60)
    def test_sum_and_mean_are_exact_and_rounded_once(self, values: Values) -> None:
        sketch = sketch_of(values)
        exact = sum((Fraction(float(value)) for value in values), Fraction())

        assert sketch.sum == float(exact)
        if values.size:
            assert sketch.mean == float(exact / values.size)

    @pytest.mark.parametrize("name", NAMES)
    def test_the_sum_of_squares_is_within_its_bound(self, name: str) -> None:
        values = make(name)
        sketch = sketch_of(values)
        exact = math.fsum(values.astype(np.float64) ** 2)

        assert abs(sketch.sum_squares - exact) <= sketch.sum_squares_error
        if name != "denormal" and name != "any pattern":
            assert sketch.sum_squares_error <= 2.0**-24 * exact

    def test_moments_of_channels_are_those_of_each_channel_alone(self) -> None:
        values = make("heavy tail").reshape(-1, 6)
        sketch = ChannelSketch(6)
        sketch.update(values)
        squares = [math.fsum(column.astype(np.float64) ** 2) for column in values.T]

        assert sketch.sum_squares.tolist() == [sketch.channel(channel).sum_squares for channel in range(6)]
        assert (np.abs(sketch.sum_squares - squares) <= sketch.sum_squares_error).all()
        assert (sketch.sum_squares_error <= 2.0**-16 * np.array(squares)).all()
        assert ChannelSketch(3).sum_squares.tolist() == [0.0, 0.0, 0.0]
        assert sketch.mean.tolist() == [sketch.channel(channel).mean for channel in range(6)]
        assert sketch.sum.tolist() == [math.fsum(column.astype(np.float64)) for column in values.T]
