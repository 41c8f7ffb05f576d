"""Both distances of two sketches, against SciPy on the plain values."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import ks_2samp, wasserstein_distance

from actisketch.pipeline.sketch import (
    ChannelSketch,
    Sketch,
    channel_distances,
    distances_between,
)
from actisketch.storage.errors import InputError

# Atoms, zeros, neighbours in one bucket, the smallest and the largest numbers.
ATOMS = np.array(
    [0, 1, 1.0001, 1.0009765625, -2, 3, 6, 1e-40, -1e-40, 1e-30, 3e38, -3e38], np.float32
).tolist()
FLOATS = st.one_of(
    st.sampled_from(ATOMS),
    st.floats(1.0, 1.0009765625, width=32),
    st.floats(-1e3, 1e3, width=32),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
)
VALUES = arrays(np.float32, st.integers(1, 40), elements=FLOATS)
BITS = st.sampled_from([12, 16, 20, 22])


def sketch_of(values, bits=20):
    sketch = Sketch(bits)
    sketch.update(np.asarray(values, np.float32))
    return sketch


def ks_statistic(a, b):
    """SciPy's p-value, which is not used, divides by zero for one sample; of float32 it gives a float32."""
    with np.errstate(all="ignore"):
        return ks_2samp(a.astype(np.float64), b.astype(np.float64), method="asymp").statistic


def check(found, a, b):
    """SciPy rounds too: in units of the largest value."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    statistic = ks_statistic(a, b)
    moved, slack = wasserstein_distance(a, b), 1e-14 * float(np.abs([*a, *b]).max())

    assert found.kolmogorov_smirnov.lo - 1e-12 <= statistic <= found.kolmogorov_smirnov.hi + 1e-12
    assert found.wasserstein.lo - slack <= moved <= found.wasserstein.hi + slack
    for each in (found.kolmogorov_smirnov, found.wasserstein):
        assert 0.0 <= each.lo <= each.value <= each.hi


@given(VALUES, VALUES, BITS, BITS)
def test_the_bounds_contain_the_distances_of_all_and_of_the_nonzero_values(a, b, bits, other_bits):
    first, second = sketch_of(a, bits), sketch_of(b, other_bits)
    check(distances_between(first, second), a, b)
    without_zeros = distances_between(first, second, nonzero=True)

    if a.any() and b.any():
        check(without_zeros, a[a != 0], b[b != 0])
    else:
        assert np.isnan([without_zeros.kolmogorov_smirnov.lo, without_zeros.wasserstein.hi]).all()


@given(VALUES, BITS)
def test_the_same_values_may_be_at_distance_zero(values, bits):
    found = distances_between(sketch_of(values, bits), sketch_of(values[::-1], bits))

    assert found.kolmogorov_smirnov.lo == found.wasserstein.lo == 0.0
    check(found, values, values)


@given(VALUES, VALUES)
def test_the_order_does_not_matter(a, b):
    first, second = sketch_of(a), sketch_of(b)
    one, other = distances_between(first, second), distances_between(second, first)

    assert one.kolmogorov_smirnov == other.kolmogorov_smirnov
    assert np.allclose(
        [one.wasserstein.lo, one.wasserstein.hi], [other.wasserstein.lo, other.wasserstein.hi], rtol=1e-12
    )


@given(st.integers(1, 5), st.integers(1, 5), st.floats(0.125, 2.0**100, width=32))
def test_two_atoms_are_as_far_apart_as_they_are(n, m, step):
    low, high = np.full(n, 1.0, np.float32), np.full(m, np.float32(1.0) + np.float32(step), np.float32)
    found = distances_between(sketch_of(low), sketch_of(high))

    assert found.kolmogorov_smirnov.lo == found.kolmogorov_smirnov.hi == 1.0
    assert found.wasserstein.value == pytest.approx(float(high[0]) - 1.0, rel=1e-12)


@pytest.mark.parametrize(("bits", "ks_width", "moved_width"), [(20, 2e-4, 1e-8), (16, 4e-3, 1e-8)])
def test_the_bounds_are_close_for_activations(bits, ks_width, moved_width):
    rng = np.random.default_rng(11)
    a = np.maximum(rng.normal(0.0, 1.0, 300_000), 0).astype(np.float32)
    b = np.maximum(rng.normal(0.1, 1.3, 300_000), 0).astype(np.float32)
    found = distances_between(sketch_of(a, bits), sketch_of(b, bits))
    check(found, a, b)

    assert found.kolmogorov_smirnov.hi - found.kolmogorov_smirnov.lo < ks_width
    assert found.wasserstein.hi - found.wasserstein.lo < moved_width


@pytest.mark.parametrize(
    ("centre", "width", "more", "wider", "bits", "ks_width"),
    [
        (0, 1, 0.1, 1.3, 20, 1.5e-4),
        (0, 1, 0.1, 1.3, 16, 2.5e-3),
        (0, 1, 0.1, 1.3, 12, 0.035),
        (5, 0.1, 0.05, 1.0, 20, 0.0085),
        (5, 0.1, 0.05, 1.0, 16, 0.125),
    ],
)
def test_the_bounds_are_as_the_readme_says(centre, width, more, wider, bits, ks_width):
    rng = np.random.default_rng(0)
    a = np.maximum(rng.normal(centre, width, 300_000), 0).astype(np.float32)
    b = np.maximum(rng.normal(centre + more, width * wider, 300_000), 0).astype(np.float32)
    found = distances_between(sketch_of(a, bits), sketch_of(b, bits))

    assert ks_width / 2 < found.kolmogorov_smirnov.hi - found.kolmogorov_smirnov.lo < ks_width
    assert bits == 12 or found.wasserstein.hi - found.wasserstein.lo < 1e-6


def test_equal_sketches_leave_open_less_than_a_bucket():
    values = np.maximum(np.random.default_rng(13).normal(size=300_000), 0).astype(np.float32)
    found = distances_between(sketch_of(values), sketch_of(values))

    assert 0.0 == found.wasserstein.lo < found.wasserstein.hi < values.mean() * 2**-12
    assert 0.0 == found.kolmogorov_smirnov.lo < found.kolmogorov_smirnov.hi < 5e-4


@pytest.mark.parametrize("nonzero", [False, True])
def test_channels_have_the_distances_that_each_has_alone(nonzero):
    rng = np.random.default_rng(17)
    a = np.maximum(rng.normal(0.0, 1.0, (211, 7)), 0).astype(np.float32)
    b = np.maximum(rng.normal(0.3, 1.5, (101, 7)), 0).astype(np.float32)
    a[:, 2], b[:, 5] = 0, -1e-3
    first, second = ChannelSketch(7), ChannelSketch(7, 20)
    first.update(a)
    second.update(b)
    found = channel_distances(first, second, nonzero=nonzero)

    for channel in range(7):
        x, y = (v[v != 0] if nonzero else v for v in (a[:, channel], b[:, channel]))
        lo, hi = found.wasserstein_lo[channel], found.wasserstein_hi[channel]
        if not x.size:
            assert np.isnan([lo, hi, found.kolmogorov_smirnov_hi[channel]]).all()
            continue
        statistic = ks_statistic(x, y)

        assert lo <= wasserstein_distance(x.astype(float), y.astype(float)) <= hi
        assert found.kolmogorov_smirnov_lo[channel] - 1e-12 <= statistic
        assert statistic <= found.kolmogorov_smirnov_hi[channel] + 1e-12


def test_channels_are_compared_in_parts_of_bounded_size(monkeypatch):
    from actisketch.pipeline.sketch import distance

    values = np.random.default_rng(19).normal(size=(97, 11)).astype(np.float32)
    first, second = ChannelSketch(11), ChannelSketch(11)
    first.update(values)
    second.update(values + np.float32(0.5))
    whole = channel_distances(first, second)
    monkeypatch.setattr(distance, "_BUCKETS_AT_ONCE", 500)
    parts = channel_distances(first, second)

    assert np.array_equal(whole.kolmogorov_smirnov_hi, parts.kolmogorov_smirnov_hi)
    assert np.allclose(whole.wasserstein_lo, parts.wasserstein_lo, rtol=1e-12)


def test_other_numbers_of_channels_are_refused():
    with pytest.raises(InputError, match="3 channels cannot be compared with 4"):
        channel_distances(ChannelSketch(3), ChannelSketch(4))


SUBNORMALS = arrays(np.int64, st.integers(1, 40), elements=st.integers(1, 2**23 - 1) | st.integers(1, 5))


@given(SUBNORMALS, st.sampled_from([-1, 1]), BITS, BITS, st.integers(0, 30))
def test_the_smallest_numbers_are_at_no_distance_from_themselves_at_any_resolutions(
    multiples, sign, bits, other_bits, n_doublings
):
    values = np.ldexp(np.float64(sign) * multiples, -149).astype(np.float32)
    first, second = sketch_of(values, bits), sketch_of(values, other_bits)
    for _ in range(n_doublings):
        first = first.merge(first)

    assert distances_between(first, second).wasserstein.lo == 0.0


@given(SUBNORMALS, st.sampled_from([-1, 1]), BITS, st.integers(0, 30))
def test_the_means_of_the_smallest_numbers_are_right_to_a_unit_in_the_last_place(
    multiples, sign, bits, n_doublings
):
    values = np.ldexp(np.float64(sign) * multiples, -149).astype(np.float32)
    sketch = sketch_of(values, bits)
    for _ in range(n_doublings):
        sketch = sketch.merge(sketch)
    of_bucket = {}
    for multiple in multiples.tolist():
        of_bucket.setdefault(multiple >> 32 - bits, []).append(multiple)
    exact = sorted(sign * Fraction(sum(each), len(each) * 2**149) for each in of_bucket.values())
    means = sketch.spans()[2]

    assert all(abs(Fraction(m) - e) < np.spacing(abs(float(e))) for m, e in zip(means, exact, strict=True))
