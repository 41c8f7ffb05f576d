"""Ranges from buckets against brute force on the raw values: within the bound that the buckets leave."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from actisketch.pipeline.factors.ranges import ChosenRange, chosen_range, rounding_error
from actisketch.pipeline.settings.job_settings import FactorSettings
from actisketch.pipeline.sketch import Percentile, Sketch
from actisketch.storage.errors import InputError

N = 30_011


def values(name):
    rng = np.random.default_rng(41)
    found = {
        "relu": np.maximum(rng.normal(size=N), 0),
        "normal": rng.normal(size=N),
        "shifted": rng.normal(size=N) + 0.8,
        "heavy tail": np.exp(2 * rng.normal(size=N)),
        "laplace": rng.laplace(size=N),
        "negative": -np.abs(rng.normal(size=N)),
        "steps of 0.1": np.rint(np.abs(rng.normal(size=N)) * 10) / 10,
        "outlier": np.append(np.maximum(rng.normal(size=N), 0), 1e4),
        "two numbers": rng.integers(0, 2, size=N),
        "one number": np.full(7, 3.7),
    }[name]
    return found.astype(np.float32)


NAMES = ["relu", "normal", "shifted", "heavy tail", "laplace", "negative", "steps of 0.1", "outlier"]
NAMES += ["two numbers", "one number"]


def sketched(array, bits=20):
    sketch = Sketch(bits)
    sketch.update(array)
    return sketch


def squared_error(x, lo, hi, *, bits, symmetric):
    """The mean squared error of rounding, as ONNX Runtime's formulas for scale and zero point give it."""
    x = x.astype(np.float64)
    if symmetric:
        largest = 2 ** (bits - 1) - 1
        lowest, highest, scale = -largest, largest, max(-lo, hi) / largest
    else:
        scale = (hi - lo) / (2**bits - 1)
        zero_point = np.rint(-lo / scale)
        lowest, highest = -zero_point, 2**bits - 1 - zero_point
    return float(np.mean((x - np.clip(np.rint(x / scale), lowest, highest) * scale) ** 2))


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [3, 8, 12])
@pytest.mark.parametrize("name", NAMES)
def test_mse_costs_no_more_than_the_best_of_many_clips(name, bits, symmetric):
    x = values(name)
    sketch = sketched(x)
    found = chosen_range(sketch, FactorSettings(method="mse", bits=bits, symmetric=symmetric))
    error = rounding_error(sketch, found, bits=bits, symmetric=symmetric)
    true = squared_error(x, found.lo, found.hi, bits=bits, symmetric=symmetric)
    lowest, highest = min(float(x.min()), 0), max(float(x.max()), 0)
    clips = np.geomspace(1e-3, 1, 120)
    brute = min(squared_error(x, lowest * c, highest * c, bits=bits, symmetric=symmetric) for c in clips)

    assert error.lower * (1 - 1e-9) <= true <= error.upper * (1 + 1e-9)
    # Neighbouring candidates are 0.07 % apart, and the error is flat at its minimum.
    assert true <= brute * (1 + 1e-5) + 2 * error.bound
    assert found.size.lo <= found.size.value <= found.size.hi


@pytest.mark.parametrize("name", ["normal", "shifted", "laplace"])
def test_both_sides_of_an_affine_range_are_chosen(name):
    x = values(name)
    found = chosen_range(sketched(x), FactorSettings(method="mse", bits=6))
    true = squared_error(x, found.lo, found.hi, bits=6, symmetric=False)
    shares = np.geomspace(0.3, 1, 20)
    brute = min(
        squared_error(x, x.min() * a, x.max() * b, bits=6, symmetric=False) for a in shares for b in shares
    )

    assert true <= brute * 1.002


def test_8_bits_leave_a_bound_of_a_few_hundredths_of_the_error():
    for name in ("relu", "normal", "heavy tail"):
        sketch = sketched(values(name))
        found = chosen_range(sketch, FactorSettings(method="mse"))
        error = rounding_error(sketch, found, bits=8, symmetric=False)

        assert error.bound < 0.03 * error.value


@given(
    x=hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(-1e6, 1e6, width=32)),
    lo=st.floats(-1e5, 0),
    hi=st.floats(1e-3, 1e5),
    bits=st.integers(2, 16),
    sketch_bits=st.sampled_from([12, 16, 20]),
    symmetric=st.booleans(),
)
def test_the_error_of_any_range_lies_within_its_bounds(x, lo, hi, bits, sketch_bits, symmetric):
    found = ChosenRange(lo=lo, hi=hi, size=Percentile(hi, hi, hi))
    error = rounding_error(sketched(x, sketch_bits), found, bits=bits, symmetric=symmetric)
    true = squared_error(x, lo, hi, bits=bits, symmetric=symmetric)
    # Float64 rounds x / scale, which costs at most this much.
    slack = 1e-12 * max(float(np.max(np.abs(x))), hi, -lo) ** 2 + 1e-9 * true

    assert error.lower - slack <= true <= error.upper + slack


POSITIVE = st.floats(0, 1e6, width=32)


@given(
    x=hnp.arrays(np.float32, st.integers(1, 40), elements=POSITIVE),
    sign=st.sampled_from([1, -1]),
    bits=st.integers(2, 12),
    sketch_bits=st.sampled_from([12, 16, 20]),
    symmetric=st.booleans(),
)
def test_no_smaller_range_costs_less_than_the_bounds_leave_open(x, sign, bits, sketch_bits, symmetric):
    x = x * sign
    sketch = sketched(x, sketch_bits)
    found = chosen_range(sketch, FactorSettings(method="mse", bits=bits, symmetric=symmetric))
    if found.lo == found.hi:
        assert not x.any()
        return
    error = rounding_error(sketch, found, bits=bits, symmetric=symmetric)
    true = squared_error(x, found.lo, found.hi, bits=bits, symmetric=symmetric)
    largest = float(np.abs(x).max())
    slack = 1e-9 * true + 1e-12 * largest**2

    for share in 2.0 ** (-np.arange(49) / 16):
        hi = largest * share
        ends = (0.0, hi) if sign > 0 else (-hi, 0.0)
        other = ChosenRange(lo=ends[0], hi=ends[1], size=found.size)
        bound = rounding_error(sketch, other, bits=bits, symmetric=symmetric).bound
        other_error = squared_error(x, *ends, bits=bits, symmetric=symmetric)
        assert true <= other_error + bound + error.bound + slack


def tensorrt_threshold(x, *, bits, nonzero):
    """Migacz' pseudocode, step by step, on a histogram of the raw values; with our number of bins."""
    sizes = np.abs(x[x != 0] if nonzero else x).astype(np.float64)
    largest = float(np.abs(x).max())
    width = 2.0 ** np.ceil(np.log2(largest * (1 + 1e-12))) / 4096
    histogram, _ = np.histogram(sizes, bins=np.arange(int(largest / width) + 2) * width)
    n_levels = 2 ** (bits - 1)
    divergences = {}
    for i in range(n_levels, histogram.size + 1):
        reference = histogram[:i].astype(np.float64)
        outliers = histogram[i:].sum()
        reference[i - 1] += outliers
        candidate = np.zeros(i)
        for level in range(n_levels):
            start, stop = level * i // n_levels, (level + 1) * i // n_levels
            part = histogram[start:stop]
            if np.count_nonzero(part):
                candidate[start:stop] = np.where(part > 0, part.sum() / np.count_nonzero(part), 0)
        p, q = reference / reference.sum(), candidate / max(candidate.sum(), 1)
        if np.any((p > 0) & (q == 0)):
            continue
        divergences[i] = float(np.sum(p[p > 0] * np.log(p[p > 0] / q[p > 0])))
    least = min(divergences.values())
    return [min((i + 0.5) * width, largest) for i, d in divergences.items() if d <= least + 1e-10]


@pytest.mark.parametrize("bits", [5, 8])
@pytest.mark.parametrize("name", ["relu", "laplace", "heavy tail", "one number"])
def test_entropy_finds_the_threshold_of_tensorrts_description(name, bits):
    x = values(name)
    found = chosen_range(sketched(x), FactorSettings(method="entropy", bits=bits))

    # The counts are exact, so is the threshold; a side that does not reach it ends at its last value.
    threshold = max(-found.lo, found.hi)
    assert threshold in tensorrt_threshold(x, bits=bits, nonzero=True)
    assert found.hi == min(threshold, float(x.max()))
    assert found.lo == max(-threshold, min(float(x.min()), 0.0))
    assert found.size.lo <= found.hi == found.size.value <= found.size.hi


@settings(max_examples=10)
@given(
    x=hnp.arrays(np.float32, st.integers(1, 300), elements=st.floats(-1e3, 1e3, width=32)),
    bits=st.integers(2, 5),
)
def test_entropy_finds_the_threshold_of_any_values(x, bits):
    if not x.any():
        return
    found = chosen_range(sketched(x), FactorSettings(method="entropy", bits=bits))

    assert max(-found.lo, found.hi) in tensorrt_threshold(x, bits=bits, nonzero=True)


def test_entropy_counts_zeros_if_percentiles_do():
    x = np.append(values("laplace"), np.zeros(N, np.float32))
    found = chosen_range(sketched(x), FactorSettings(method="entropy", nonzero=False))

    assert max(-found.lo, found.hi) in tensorrt_threshold(x, bits=8, nonzero=False)


def test_entropy_refuses_a_coarse_sketch_and_names_the_setting():
    with pytest.raises(
        InputError, match=r"needs histograms of a finer sketch: it has 19 bits.*sketch.bits = 20"
    ):
        chosen_range(sketched(values("relu"), 19), FactorSettings(method="entropy"))


def test_percentile_and_max_take_both_ends():
    x = values("shifted")
    by_percentile = chosen_range(sketched(x), FactorSettings(percentile=99.0, nonzero=False))
    by_max = chosen_range(sketched(x), FactorSettings(method="max"))

    assert by_percentile.lo == pytest.approx(np.percentile(x, 1.0), rel=2**-10)
    assert by_percentile.hi == pytest.approx(np.percentile(x, 99.0), rel=2**-10)
    assert (by_max.lo, by_max.hi) == (float(x.min()), float(x.max()))


def test_a_range_contains_zero():
    x = np.array([2.0, 3.0, 5.0], np.float32)
    for method in ("percentile", "max", "mse", "entropy"):
        found = chosen_range(sketched(x), FactorSettings(method=method))
        other = chosen_range(sketched(-x), FactorSettings(method=method))

        assert (found.lo, other.hi) == (0.0, 0.0)
        assert 0 < found.hi == -other.lo == other.size.value


@pytest.mark.parametrize("array", [np.zeros(5, np.float32), np.zeros(0, np.float32)])
@pytest.mark.parametrize("method", ["percentile", "max", "mse", "entropy"])
def test_nothing_but_zeros_has_no_range(method, array):
    found = chosen_range(sketched(array), FactorSettings(method=method))

    assert (found.lo, found.hi) == (0.0, 0.0)


def test_the_order_and_the_pieces_of_the_values_do_not_change_a_range():
    x = values("shifted")
    pieces = Sketch()
    for part in np.array_split(x[::-1], 7):
        pieces = pieces.merge(sketched(part))
    for method in ("mse", "entropy"):
        assert chosen_range(pieces, FactorSettings(method=method)) == chosen_range(
            sketched(x), FactorSettings(method=method)
        )
